/*
 * memkv-front, loop thread: the message by which a connection is passed to a rail's front (pass.h). Both ends; owns nothing.
 * What can fail: the message, which comes from another process.
 */
#include "config.h"

#include "worker/front/pass.h"

#include <string.h>

#include "common/base/err.h"

size_t
mkv_pass_encode(uint8_t msg[MKV_PASS_MSG_MAX], uint16_t rail, const struct sockaddr *from, socklen_t from_bytes, const void *bytes, size_t n)
{
	struct mkv_pass_head h = {
		.magic = MKV_PASS_MAGIC, .version = MKV_PASS_VERSION, .rail = rail, .from_bytes = (uint32_t)from_bytes, .bytes = (uint32_t)n
	};

	if (n == 0 || n > MKV_PASS_BYTES_MAX || from_bytes > sizeof(struct sockaddr_storage))
		return (0);
	memcpy(msg, &h, sizeof(h));
	if (from_bytes > 0)
		memcpy(msg + sizeof(h), from, from_bytes);
	memcpy(msg + sizeof(h) + from_bytes, bytes, n);
	return (sizeof(h) + from_bytes + n);
}

int
mkv_pass_decode(const uint8_t *msg, size_t msg_bytes, uint16_t rail, struct sockaddr_storage *from, const uint8_t **p, uint32_t *n)
{
	struct mkv_pass_head h;

	*p = NULL;
	*n = 0;
	memset(from, 0, sizeof(*from));
	if (msg_bytes < sizeof(h))
		return (MKV_E_PROTO);
	memcpy(&h, msg, sizeof(h));
	if (h.magic != MKV_PASS_MAGIC || h.version != MKV_PASS_VERSION || h.rail != rail || h.from_bytes > sizeof(*from) ||
	    h.bytes == 0 || h.bytes > MKV_PASS_BYTES_MAX || msg_bytes != sizeof(h) + h.from_bytes + h.bytes)
		return (MKV_E_PROTO);
	/* An address that names no family is none: it is not taken for one of this host. */
	memcpy(from, msg + sizeof(h), h.from_bytes);
	*p = msg + sizeof(h) + h.from_bytes;
	*n = h.bytes;
	return (0);
}
