/*
 * Wire format: what clients and fronts check before they believe a frame. Any process, any thread; owns nothing; cannot fail but by saying
 * that the bytes are wrong.
 */
#include "config.h"

#include "proto/wire.h"

#include <string.h>

#include "common/base/assert.h"
#include "common/base/err.h"

static const struct mkv_wire_op_row wire_ops[] = {
#define MKV_OP(name, num, label, flags, body_max)	{ (num), label, (flags), (body_max) },
#include "proto/wire_ops.def"
#undef MKV_OP
};

const struct mkv_wire_op_row *
mkv_wire_op_row(unsigned op)
{
	for (size_t i = 0; i < MKV_ARRAY_LEN(wire_ops); i++)
		if (wire_ops[i].op == op)
			return (&wire_ops[i]);
	return (NULL);
}

static int
wire_payload_ok(const struct mkv_hdr *h, const struct mkv_wire_op_row *row, int is_reply)
{
	int may = is_reply ? h->op == MKV_WIRE_GET : (row->flags & MKV_OPF_PAYLOAD) != 0;

	if (h->payload_bytes > MKV_WIRE_PART_MAX)
		return (0);
	if (h->payload_bytes != 0 && !may)
		return (0);
	return ((h->payload_bytes != 0) == ((h->flags & MKV_WIRE_F_PAYLOAD) != 0));
}

int
mkv_wire_hdr_check(const struct mkv_hdr *h, int is_reply, int in_session)
{
	static const uint8_t magic[4] = MKV_WIRE_MAGIC;
	const struct mkv_wire_op_row *row = mkv_wire_op_row(h->op);
	uint32_t body_max;

	if (memcmp(h->magic, magic, sizeof(magic)) != 0)
		return (MKV_E_PROTO);
	if (h->version != MKV_WIRE_VERSION)
		return (MKV_E_VERSION);
	if (row == NULL || (h->flags & ~MKV_WIRE_F_KNOWN) != 0 || ((h->flags & MKV_WIRE_F_REPLY) != 0) != is_reply)
		return (MKV_E_PROTO);
	if (!in_session && h->op != MKV_WIRE_HELLO && h->op != MKV_WIRE_CONNECT)
		return (MKV_E_PROTO);
	/* A reply's body is as long as its kind needs; before the session both directions are small. */
	body_max = is_reply && in_session ? MKV_WIRE_BODY_MAX : row->body_max;
	if (h->body_bytes > body_max || h->body_bytes % 8 != 0)
		return (MKV_E_PROTO);
	if (!wire_payload_ok(h, row, is_reply))
		return (MKV_E_PROTO);
	if (!is_reply && (h->request_id == 0 || h->deadline_us == 0 || h->status != 0 || h->reason != 0))
		return (MKV_E_PROTO);
	return (0);
}

int
mkv_wire_control_ok(const struct mkv_wire_attach *a)
{
	return (mkv_wire_carrier(a) <= MKV_WIRE_CONTROL_TCP && (a->udp_port != 0) == (mkv_wire_carrier(a) == MKV_WIRE_CONTROL_UDP));
}

const void *
mkv_wire_take(struct mkv_wire_in *in, size_t bytes)
{
	const void *p = in->p;

	if ((size_t)(in->end - in->p) < bytes)
		return (NULL);
	in->p += bytes;
	return (p);
}

int
mkv_wire_skip_pad(struct mkv_wire_in *in, const void *base)
{
	size_t used = (size_t)(in->p - (const uint8_t *)base);
	size_t pad = (8 - used % 8) % 8;
	const uint8_t *z = mkv_wire_take(in, pad);

	if (z == NULL)
		return (0);
	for (size_t i = 0; i < pad; i++)
		if (z[i] != 0)
			return (0);
	return (1);
}
