/*
 * Fuzz target: the message by which one front passes a connection to another. Wrong would be: bytes outside of the message, more of them than a front
 * takes, or a message that another would be made from what was read of it.
 */
#include "config.h"

#include <stdlib.h>
#include <string.h>

#include "tests/fuzz/fuzz.h"
#include "worker/front/pass.h"

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
	uint8_t again[MKV_PASS_MSG_MAX];
	struct sockaddr_storage from;
	struct mkv_pass_head h;
	const uint8_t *p;
	uint32_t n;

	if (mkv_pass_decode(data, bytes, 1, &from, &p, &n) != 0) {
		if (p != NULL || n != 0)
			abort();
		return (0);
	}
	memcpy(&h, data, sizeof(h));
	if (p < data || n == 0 || n > MKV_PASS_BYTES_MAX || p + n != data + bytes)
		abort();
	if (mkv_pass_encode(again, 1, (struct sockaddr *)&from, (socklen_t)h.from_bytes, p, n) != bytes || memcmp(again, data, bytes) != 0)
		abort();
	return (0);
}
