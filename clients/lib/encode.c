/*
 * Requests to frames: bodies as proto/wire.h lays them out, payload as iovecs of the caller's memory.
 *
 * The op's loop thread. Owns nothing. Invariants: a body is never longer than its op's limit in wire_ops.def (the largest PUT body is 48 + 63 + 2 *
 * 512 +
 * 4 * 64 and padding; key lists are cut to fit), checked below.
 * Fails: never; arguments were checked when the op was filled.
 */
#include "config.h"

#include <string.h>

#include "clients/lib/client_priv.h"

_Static_assert(sizeof(struct mkv_wire_put) + MKV_WIRE_NS_MAX + 2 * MKV_WIRE_KEY_MAX + 8 + 4 * PART_CRCS_MAX + 8 <= 4096, "PUT body");
#define SAME(a, b) _Static_assert((unsigned)MKV_PUT_##a == (unsigned)MKV_WIRE_PUT_##b, "flags go out as they came in")
SAME(IF_ABSENT, IF_ABSENT);
SAME(OVERWRITE, OVERWRITE);
SAME(PIN, PIN);
SAME(ACCEPTED, ACCEPTED);
SAME(COMMIT, COMMIT);

/* Of a part of a list: the server works on one while the next is made and signed. */
#define KEYS_FRAME_BYTES	49152u
_Static_assert(sizeof(struct mkv_wire_keys) + MKV_WIRE_NS_MAX + 2 + MKV_WIRE_KEY_MAX <= KEYS_FRAME_BYTES && KEYS_FRAME_BYTES <= MKV_WIRE_BODY_MAX,
    "each part has a key at least");

#define PUT_FLAGS	(MKV_PUT_IF_ABSENT | MKV_PUT_OVERWRITE | MKV_PUT_PIN | MKV_PUT_ACCEPTED | MKV_PUT_COMMIT)

struct out {
	uint8_t		*base, *p;
};

static void
out_bytes(struct out *o, const void *from, size_t bytes)
{
	if (bytes > 0)
		memcpy(o->p, from, bytes);
	o->p += bytes;
}

static void
out_pad(struct out *o)
{
	while ((size_t)(o->p - o->base) % 8 != 0)
		*o->p++ = 0;
}

static uint64_t
put_total(const struct op *o)
{
	return (o->kind == OPK_STREAM ? o->part->total : o->iov_bytes);
}

unsigned
mkv_frame_payload(struct leg *l, struct iovec *out, unsigned max, uint64_t *got)
{
	struct op *o = l->op;
	uint64_t at;

	if (l->stage != NULL) {
		out[0] = (struct iovec){ .iov_base = (void *)(uintptr_t)(l->stage + (l->tx_off - l->stage_off)), .iov_len = l->frame_left };
		*got = l->frame_left;
		return (1);
	}
	if (o->kind != OPK_STREAM)
		return (mkv_op_iov_slice(o, l->tx_off, l->frame_left, out, max, got));
	at = l->tx_off - (o->part->total - o->part->bytes);
	MKV_ASSERT(at + l->frame_left == o->part->bytes);
	out[0] = (struct iovec){ .iov_base = o->part->buf + at, .iov_len = l->frame_left };
	*got = l->frame_left;
	return (1);
}

void
mkv_frame_took(struct leg *l, uint64_t bytes)
{
	MKV_ASSERT(bytes <= l->frame_left);
	l->tx_off += bytes;
	l->frame_left -= bytes;
}

/* CRCs of payload bytes at the leg's cursor, cut at 64 KiB from there (parts begin at multiples of 64 KiB). */
static void
put_crcs(struct leg *l, uint32_t *crcs)
{
	uint64_t off = l->tx_off, left = l->frame_left, got;
	uint32_t crc = 0, in_chunk = 0;
	struct iovec v[8];
	unsigned n;

	while (l->frame_left > 0) {
		n = mkv_frame_payload(l, v, MKV_ARRAY_LEN(v), &got);
		for (unsigned i = 0; i < n; i++) {
			const uint8_t *p = v[i].iov_base;

			for (uint64_t have = v[i].iov_len, step; have > 0; have -= step, p += step) {
				step = MKV_MIN(have, MKV_CRC_CHUNK - in_chunk);
				crc = mkv_crc32c(crc, p, step);
				in_chunk += (uint32_t)step;
				if (in_chunk == MKV_CRC_CHUNK) {
					*crcs++ = crc;
					crc = in_chunk = 0;
				}
			}
		}
		mkv_frame_took(l, got);
	}
	if (in_chunk > 0)
		*crcs = crc;
	l->tx_off = off;
	l->frame_left = left;
}

static void
out_crcs(struct leg *l, struct out *out, uint32_t n)
{
	uint32_t crcs[PART_CRCS_MAX];
	struct op *o = l->op;

	if (n == 0)
		return;
	if (l->crcs != NULL) {
		out_bytes(out, l->crcs, n * sizeof(crcs[0]));
	} else if (l->tx_off == 0 && l->frame_left == o->crcs_for) {
		out_bytes(out, o->crcs, n * sizeof(crcs[0]));
	} else {
		put_crcs(l, crcs);
		out_bytes(out, crcs, n * sizeof(crcs[0]));
	}
	out_pad(out);
}

static void
encode_put(struct leg *l, struct mkv_hdr *h, struct out *out, uint32_t part_bytes)
{
	struct op *o = l->op;
	struct mkv_wire_put *w = (struct mkv_wire_put *)out->p;
	uint64_t left = put_total(o) - l->tx_off;
	int first = l->tx_off == 0, verify = !o->c->cf.no_verify && (o->dev == NULL || l->stage != NULL);	/* a GPU's, by RDMA: the server makes them */

	l->frame_left = MKV_MIN(left, part_bytes);
	l->last_begun = o->kind == OPK_STREAM ? o->part->last : l->frame_left == left;
	memset(w, 0, sizeof(*w));
	w->value_bytes = l->last_begun || o->kind != OPK_STREAM ? put_total(o) : MKV_WIRE_SIZE_UNKNOWN;
	w->part_off = l->tx_off;
	w->put_id = o->put_id;
	w->ttl_ms = o->ttl_ms;
	w->flags = (o->flags & PUT_FLAGS) | (verify || l->frame_left == 0 ? 0 : MKV_WIRE_PUT_NO_CRC);
	w->n_crcs = verify ? mkv_crc_chunks(l->frame_left) : 0;
	w->ns_bytes = first ? o->ns_bytes : 0;
	w->key_bytes = first ? o->key_bytes : 0;
	w->parent_bytes = first ? o->parent_bytes : 0;
	out->p += sizeof(*w);
	out_bytes(out, o->ns, w->ns_bytes);
	out_bytes(out, o->key, w->key_bytes);
	out_bytes(out, o->parent, w->parent_bytes);
	out_pad(out);
	out_crcs(l, out, w->n_crcs);
	h->payload_bytes = l->frame_left;
	h->flags |= (l->last_begun ? 0 : MKV_WIRE_F_MORE) | (l->frame_left > 0 ? MKV_WIRE_F_PAYLOAD : 0);
}

uint64_t
mkv_get_room(const struct op *o)
{
	return (MKV_MIN(o->len, o->iov_bytes));
}

/* GET, STAT, REPORT. */
static void
encode_get(struct leg *l, struct out *out)
{
	struct op *o = l->op;
	struct mkv_wire_get *w = (struct mkv_wire_get *)out->p;

	memset(w, 0, sizeof(*w));
	if (l->wire_op == MKV_WIRE_GET) {
		w->off = o->off;
		w->len = mkv_get_room(o);
	} else if (l->wire_op == MKV_WIRE_REPORT) {
		w->off = l->bad_off;
		w->len = MKV_CRC_CHUNK;
	}
	w->flags = o->flags & MKV_NO_TOUCH ? MKV_WIRE_LIST_NO_TOUCH : 0;
	w->ns_bytes = o->ns_bytes;
	w->key_bytes = o->key_bytes;
	out->p += sizeof(*w);
	out_bytes(out, o->ns, o->ns_bytes);
	out_bytes(out, o->key, o->key_bytes);
	out_pad(out);
}

/* One key of a share. 0: it is for the next frame. */
static int
out_key(struct leg *l, struct out *out, size_t room)
{
	const struct keyset *ks = l->op->keys;
	uint32_t i = l->idx[l->tx_key], bytes = ks->off[i + 1] - ks->off[i];

	if ((size_t)(out->p - out->base) + bytes > room)
		return (0);
	out_bytes(out, ks->wire + ks->off[i], bytes);
	l->tx_key++;
	return (1);
}

/* As many of all keys as there is room for: they lie as they go out. */
static void
out_keys(struct leg *l, struct out *out, size_t room)
{
	const uint32_t *off = l->op->keys->off;
	uint32_t from = l->tx_key, low = from, high = l->n_idx;

	room -= (size_t)(out->p - out->base);
	while (low < high) {
		uint32_t mid = high - (high - low) / 2;

		if (off[mid] - off[from] <= room)
			low = mid;
		else
			high = mid - 1;
	}
	out_bytes(out, l->op->keys->wire + off[from], off[low] - off[from]);
	l->tx_key = low;
}

static void
encode_keys(struct leg *l, struct mkv_hdr *h, struct out *out)
{
	struct op *o = l->op;
	struct mkv_wire_keys *w = (struct mkv_wire_keys *)out->p;
	uint32_t from = l->tx_key;

	memset(w, 0, sizeof(*w));
	w->lease_ms = o->lease_ms;
	w->ttl_ms = o->ttl_ms;
	w->flags = o->flags & MKV_NO_TOUCH ? MKV_WIRE_LIST_NO_TOUCH : 0;
	w->ns_bytes = from == 0 ? o->ns_bytes : 0;
	out->p += sizeof(*w);
	out_bytes(out, o->ns, w->ns_bytes);
	if (l->idx == NULL)
		out_keys(l, out, KEYS_FRAME_BYTES);
	else
		while (l->tx_key < l->n_idx && out_key(l, out, KEYS_FRAME_BYTES))
			continue;
	out_pad(out);
	w->n_keys = l->tx_key - from;
	l->last_begun = l->tx_key == l->n_idx;
	h->flags |= l->last_begun ? 0 : MKV_WIRE_F_MORE;
}

static void
encode_list(struct leg *l, struct out *out)
{
	struct op *o = l->op;
	struct mkv_wire_list *w = (struct mkv_wire_list *)out->p;

	memset(w, 0, sizeof(*w));
	w->cursor = o->off;
	w->max_rows = (uint32_t)o->len;
	w->ns_bytes = o->ns_bytes;
	w->prefix_bytes = o->key_bytes;
	out->p += sizeof(*w);
	out_bytes(out, o->ns, o->ns_bytes);
	out_bytes(out, o->key, o->key_bytes);
	out_pad(out);
}

void
mkv_frame_encode(struct leg *l, struct mkv_hdr *h, uint8_t *dst, uint32_t part_bytes)
{
	struct out out = { .base = dst, .p = dst };

	h->op = l->wire_op;
	h->flags = l->attempts > 0 ? MKV_WIRE_F_RESEND : 0;
	h->payload_bytes = 0;
	l->last_begun = 1;
	switch ((enum mkv_wire_op)l->wire_op) {
	case MKV_WIRE_PUT:
		encode_put(l, h, &out, part_bytes);
		break;
	case MKV_WIRE_GET:
	case MKV_WIRE_STAT:
	case MKV_WIRE_REPORT:
		encode_get(l, &out);
		break;
	case MKV_WIRE_EXISTS:
	case MKV_WIRE_DELETE:
	case MKV_WIRE_TOUCH:
	case MKV_WIRE_MATCH:
		encode_keys(l, h, &out);
		break;
	case MKV_WIRE_LIST:
		encode_list(l, &out);
		break;
	default:					/* PING, INFO: no body */
		break;
	}
	h->body_bytes = (uint32_t)(out.p - out.base);
	MKV_ASSERT(h->body_bytes <= mkv_wire_op_row(h->op)->body_max);
}
