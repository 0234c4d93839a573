/*
 * Fuzz target: what both ends check before they believe a frame. The input is a header, then a body that is walked by a script of takes
 * drawn from its own bytes. Wrong would be: a header accepted beyond a limit of its op, a cursor outside of the body.
 */
#include "config.h"

#include <stdlib.h>
#include <string.h>

#include "proto/wire.h"
#include "tests/fuzz/fuzz.h"

static void
check_header(const struct mkv_hdr *h, int is_reply, int in_session)
{
	const struct mkv_wire_op_row *row;

	if (mkv_wire_hdr_check(h, is_reply, in_session) != 0)
		return;
	row = mkv_wire_op_row(h->op);
	if (row == NULL || h->body_bytes > MKV_WIRE_BODY_MAX || h->body_bytes % 8 != 0 || h->payload_bytes > MKV_WIRE_PART_MAX)
		abort();
	if (!in_session && h->op != MKV_WIRE_HELLO && h->op != MKV_WIRE_CONNECT)
		abort();
}

static void
walk_body(const uint8_t *body, size_t bytes)
{
	struct mkv_wire_in in = { body, body + bytes };

	for (size_t i = 0; i < bytes; i++) {
		const uint8_t *at = in.p;

		if (body[i] & 1)
			(void)mkv_wire_skip_pad(&in, body);
		else if (mkv_wire_take(&in, body[i] >> 1) != NULL && in.p != at + (body[i] >> 1))
			abort();
		if (in.p < at || in.p > in.end)
			abort();
	}
	if (mkv_wire_take(&in, SIZE_MAX) != NULL)
		abort();
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
	struct mkv_hdr h;

	if (bytes < sizeof(h))
		return (0);
	memcpy(&h, data, sizeof(h));
	for (int i = 0; i < 4; i++)
		check_header(&h, i & 1, i >> 1);
	walk_body(data + sizeof(h), bytes - sizeof(h));
	return (0);
}
