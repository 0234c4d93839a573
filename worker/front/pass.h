/*
 * A connection on its way from the TCP front that accepted it to the front of the rail that it asked for: one message through that rail's door, with the
 * socket as its one descriptor. Head, the peer's address, the bytes that were read of the socket already.
 */
#ifndef MKV_WORKER_FRONT_PASS_H
#define MKV_WORKER_FRONT_PASS_H

#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>

#define MKV_PASS_MAGIC		0x5a3db0e1u
#define MKV_PASS_VERSION	1u
#define MKV_PASS_BYTES_MAX	8192u		/* of the socket: a HELLO frame and all that one recv brings behind it */

struct mkv_pass_head {
	uint32_t	magic;
	uint16_t	version;
	uint16_t	rail;
	uint32_t	from_bytes;	/* of the address, at most a struct sockaddr_storage */
	uint32_t	bytes;		/* read already, 1..MKV_PASS_BYTES_MAX */
};
_Static_assert(sizeof(struct mkv_pass_head) == 16, "pass head");

#define MKV_PASS_MSG_MAX	(sizeof(struct mkv_pass_head) + sizeof(struct sockaddr_storage) + MKV_PASS_BYTES_MAX)

/* The message; its length, or 0: what is to be passed is not (no bytes, too many). */
size_t	mkv_pass_encode(uint8_t msg[MKV_PASS_MSG_MAX], uint16_t rail, const struct sockaddr *from, socklen_t from_bytes, const void *bytes, size_t n);
/* *p and *n lie in msg. 0; MKV_E_PROTO: foreign bytes that are no such message, or for another rail. */
int	mkv_pass_decode(const uint8_t *msg, size_t msg_bytes, uint16_t rail, struct sockaddr_storage *from, const uint8_t **p, uint32_t *n);

#endif
