/*
 * Replies to results. Foreign bytes: the frame's MAC was good, so they come from the server; they are checked all the same, and what does not fit
 * what was asked is MKV_E_PEER, which ends the session.
 *
 * The op's loop thread. Owns op->reply (malloced) from LIST and INFO until the op goes back to its pool.
 */
#include "config.h"

#include <stdlib.h>
#include <string.h>

#include "clients/lib/client_priv.h"

static int
decode_object(struct op *o, const struct mkv_hdr *h, const uint8_t *body)
{
	struct mkv_wire_object w;

	if (h->body_bytes < sizeof(w))
		return (MKV_E_PEER);
	memcpy(&w, body, sizeof(w));
	if (w.value_bytes > MKV_WIRE_VALUE_MAX)
		return (MKV_E_PEER);
	o->object.value_bytes = w.value_bytes;
	o->object.put_wall_ms = w.put_wall_ms;
	o->object.expires_wall_ms = w.expires_wall_ms;
	o->object.put_id = w.put_id;
	o->object.flags = w.flags & MKV_WIRE_PUT_PIN ? MKV_PUT_PIN : 0;
	o->object.same = (w.flags & MKV_WIRE_PUT_SAME) != 0;
	return (0);
}

static int
decode_keys(struct leg *l, const struct mkv_hdr *h, const uint8_t *body)
{
	int last = !(h->flags & MKV_WIRE_F_MORE), r;
	struct mkv_wire_keys_reply kr;

	if (h->body_bytes < sizeof(kr))
		return (MKV_E_PEER);
	memcpy(&kr, body, sizeof(kr));
	if (l->wire_op != MKV_WIRE_MATCH && kr.n_keys > h->body_bytes - sizeof(kr))
		return (MKV_E_PEER);
	if (kr.reason >= MKV_REASON_COUNT)
		kr.reason = MKV_REASON_NONE;
	if ((r = mkv_keys_reply(l, &kr, body + sizeof(kr), last)) != 0)
		return (r);
	return (!last);
}

static int
decode_keep(struct op *o, const struct mkv_hdr *h, const uint8_t *body)
{
	free(o->reply);
	o->reply_bytes = h->body_bytes;
	o->reply = malloc(h->body_bytes + 1);
	if (o->reply == NULL)
		return (MKV_E_NOMEM);
	memcpy(o->reply, body, h->body_bytes);
	return (0);
}

static int
decode_good(struct leg *l, const struct mkv_hdr *h, const uint8_t *body, int *status)
{
	switch ((enum mkv_wire_op)h->op) {
	case MKV_WIRE_PUT:
	case MKV_WIRE_STAT:
		return (decode_object(l->op, h, body));
	case MKV_WIRE_EXISTS:
	case MKV_WIRE_DELETE:
	case MKV_WIRE_TOUCH:
	case MKV_WIRE_MATCH:
		return (decode_keys(l, h, body));
	case MKV_WIRE_LIST:
	case MKV_WIRE_INFO:
		*status = decode_keep(l->op, h, body);
		return (0);
	case MKV_WIRE_PING:
	case MKV_WIRE_REPORT:
		return (0);
	default:
		return (MKV_E_PEER);
	}
}

int
mkv_frame_decode(struct leg *l, const struct mkv_hdr *h, const uint8_t *body, int *status)
{
	int keys = (mkv_wire_op_row(l->wire_op)->flags & MKV_OPF_LISTS) != 0;

	*status = -(int)h->status;
	if (h->op != l->wire_op || h->payload_bytes != 0 || !mkv_err_known(*status))
		return (MKV_E_PEER);
	if ((h->flags & MKV_WIRE_F_MORE) && (!keys || *status != 0))
		return (MKV_E_PEER);
	/* Good news before the request was sent in full cannot be. */
	if (*status == 0 && !l->last_begun)
		return (MKV_E_PEER);
	return (*status == 0 ? decode_good(l, h, body, status) : 0);
}

/* How many CRCs bytes at off have, cut at the value's 64 KiB boundaries. */
static uint32_t
part_chunks(uint64_t off, uint64_t bytes)
{
	return (bytes == 0 ? 0 : (uint32_t)((off + bytes - 1) / MKV_CRC_CHUNK - off / MKV_CRC_CHUNK + 1));
}

static int
part_fits(const struct leg *l, const struct mkv_hdr *h, const struct mkv_wire_object *w)
{
	const struct op *o = l->op;
	uint64_t rest = w->value_bytes > o->off ? w->value_bytes - o->off : 0;
	uint64_t want = MKV_MIN(rest, mkv_get_room(o)), have = l->rx_off + h->payload_bytes;

	if (l->rx_begun && w->value_bytes != o->object.value_bytes)
		return (0);
	if (have > want || (h->payload_bytes > 0 && w->off != o->off + l->rx_off))
		return (0);
	/* An empty part that promises more would go on for ever. */
	return (h->flags & MKV_WIRE_F_MORE ? h->payload_bytes > 0 : have == want);
}

int
mkv_frame_decode_part(struct leg *l, const struct mkv_hdr *h, const uint8_t *body, const uint32_t **crcs, uint32_t *n_crcs)
{
	struct mkv_wire_object w;

	if (l->wire_op != MKV_WIRE_GET || h->op != MKV_WIRE_GET || h->body_bytes < sizeof(w))
		return (MKV_E_PEER);
	memcpy(&w, body, sizeof(w));
	if (w.n_crcs > PART_CRCS_MAX + 1 || h->body_bytes < sizeof(w) + w.n_crcs * sizeof(uint32_t) || !part_fits(l, h, &w))
		return (MKV_E_PEER);
	if (decode_object(l->op, h, body) != 0)
		return (MKV_E_PEER);
	l->rx_begun = 1;
	*crcs = (const uint32_t *)(body + sizeof(w));
	*n_crcs = l->op->c->cf.no_verify ? 0 : w.n_crcs;
	if (!l->op->c->cf.no_verify && w.n_crcs != part_chunks(w.off, h->payload_bytes))
		return (MKV_E_PEER);
	return (0);
}
