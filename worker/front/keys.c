/*
 * memkv-front, loop thread: what the four list operations share: taking the parts of a list, and the answer of one byte a key.
 *
 * The answer's bytes lie in stage memory (u->res), behind room for the fixed part of each reply, so that header, fixed part and bytes leave as they lie:
 * key i is at reply i / KEYS_PER_REPLY. Until a key is answered its byte belongs to keys_batch.c or keys_each.c.
 * A list is answered once, after its last part; if it fails early, its other parts are swallowed until the last or the deadline.
 */
#include "config.h"

#include "worker/front/keys_priv.h"

#include <string.h>

#include "common/base/assert.h"
#include "common/base/err.h"

#define KEY_BYTES_MIN	3u		/* on the wire */

_Static_assert(sizeof(struct mkv_wire_keys_reply) + KEYS_PER_REPLY == MKV_WIRE_BODY_MAX, "a reply is full");

int
mkv_keys_unfinished(const struct mkv_req *r)
{
	return ((mkv_wire_op_row(r->op)->flags & MKV_OPF_LISTS) != 0 && r->u.keys.more);
}

int
mkv_keys_start(struct mkv_req *r, const struct mkv_hdr *h, const uint8_t *body)
{
	struct mkv_wire_in in = { body, body + h->body_bytes };
	const struct mkv_wire_keys *w = mkv_wire_take(&in, sizeof(*w));
	const void *ns;

	if (w == NULL || w->ns_bytes > MKV_WIRE_NS_MAX || (ns = mkv_wire_take(&in, w->ns_bytes)) == NULL)
		return (MKV_E_PROTO);
	r->ns_bytes = w->ns_bytes;
	memcpy(r->ns, ns, w->ns_bytes);
	r->u.keys.ttl_ms = w->ttl_ms;
	r->u.keys.flags = w->flags;
	r->u.keys.lease_ms = r->u.keys.granted_ms = r->op == MKV_WIRE_MATCH ? w->lease_ms : 0;
	if (mkv_ns_secret(r->f, r->ns, r->ns_bytes) == NULL)
		return (MKV_E_SYSTEM);
	return (0);
}

/* The struct of a body, its namespace, and keys that may fit behind it. */
static int
keys_head_ok(const struct mkv_hdr *h, const uint8_t *body, int first)
{
	struct mkv_wire_in in = { body, body + h->body_bytes };
	const struct mkv_wire_keys *w = mkv_wire_take(&in, sizeof(*w));

	if (w == NULL || (!first && w->ns_bytes != 0) || mkv_wire_take(&in, w->ns_bytes) == NULL)
		return (0);
	return (w->n_keys <= (size_t)(in.end - in.p) / KEY_BYTES_MIN);
}

/* Stage units that a list may come to hold, by its first part. */
static uint32_t
keys_claim(const struct mkv_req *r, const struct mkv_hdr *h, uint32_t n_keys)
{
	int more = (h->flags & MKV_WIRE_F_MORE) != 0;
	uint32_t n = more ? MKV_WIRE_KEYS_MAX : n_keys, replies = more ? 2 : 1;

	if (r->op == MKV_WIRE_DELETE || r->op == MKV_WIRE_TOUCH)
		return (replies + (more ? KEYS_BODIES_MAX : 1));
	return (replies + 2 * MKV_DIV_UP(n, (uint32_t)KEYS_DIGESTS_UNIT) + MKV_MIN(r->f->route_serving.n, n) + (more ? KEYS_EARLY_MAX : 0));
}

/* A list of this connection that is at work and has parts to come: they come behind the one that we look at. */
static int
keys_other_open(const struct mkv_req *r)
{
	MKV_LIST_FOREACH(it, &r->c->reqs) {
		const struct mkv_req *o = MKV_CONTAINER_OF(it, struct mkv_req, link);

		if (o != r && !o->ending && mkv_keys_unfinished(o) && o->u.keys.claim != 0)
			return (1);
	}
	return (0);
}

/*
 * 0; MKV_E_AGAIN: parked; MKV_E_BUSY: it would wait for a list that waits for it. A list takes memory bit by bit and gives nothing back before its end,
 * so lists that are at work together must fit the stage together: else each would wait for what the others hold. What puts and gets hold comes back
 * without them.
 */
static int
keys_admit(struct mkv_req *r, uint32_t claim)
{
	struct mkv_front *f = r->f;

	if (r->u.keys.claim != 0)
		return (0);
	if (!mkv_park_turn(&f->park_lists, r) || (f->lists_claim != 0 && f->lists_claim + claim > f->lists_claim_max)) {
		if (keys_other_open(r))
			return (MKV_E_BUSY);
		mkv_park(f, &f->park_lists, r);
		return (MKV_E_AGAIN);
	}
	if (r->parked == &f->park_lists)
		mkv_unpark(f, r);
	r->u.keys.claim = claim;
	f->lists_claim += claim;
	return (0);
}

static void
keys_dismiss(struct mkv_req *r)
{
	if (r->u.keys.claim == 0)
		return;
	MKV_ASSERT(r->f->lists_claim >= r->u.keys.claim);
	r->f->lists_claim -= r->u.keys.claim;
	r->u.keys.claim = 0;
	r->f->park_lists.wake = 1;
}

/* 0; MKV_E_AGAIN: parked. A list that comes in parts may grow to two replies. */
static int
keys_room(struct mkv_req *r, const struct mkv_hdr *h)
{
	uint32_t bytes = (h->flags & MKV_WIRE_F_MORE) != 0 ? 2 * MKV_WIRE_BODY_MAX : MKV_WIRE_BODY_MAX;

	if (r->u.keys.res.unit_count != 0)
		return (0);
	return (mkv_buf_take_parked(r, bytes, &r->u.keys.res));
}

enum mkv_take
mkv_keys_part(struct mkv_req *r, const struct mkv_hdr *h, const uint8_t *body, mkv_keys_fn *take)
{
	const struct mkv_wire_keys *w = (const struct mkv_wire_keys *)(const void *)body;
	struct mkv_keys *u = &r->u.keys;
	int first = !u->started, e;

	if (r->ending) {
		if (!u->more)
			return (MKV_TAKE_BREAK);
		u->more = (h->flags & MKV_WIRE_F_MORE) != 0;
		mkv_req_run(r);
		return (MKV_TAKE_DONE);
	}
	if (!first && !u->more)
		return (MKV_TAKE_BREAK);
	if (!keys_head_ok(h, body, first) || u->n + w->n_keys > MKV_WIRE_KEYS_MAX)
		e = MKV_E_PROTO;
	else if ((e = keys_admit(r, keys_claim(r, h, w->n_keys))) == 0 && (e = keys_room(r, h)) == 0)
		e = take(r, h, body);
	if (e == MKV_E_AGAIN) {
		/* Parked, or too much is kept already; the step kicks the connection when there is room. */
		u->more = 1;
		u->held = 1;
		return (MKV_TAKE_HOLD);
	}
	u->started = 1;
	u->held = 0;
	u->more = (h->flags & MKV_WIRE_F_MORE) != 0;
	if (e != 0)
		mkv_req_end(r, e, MKV_REASON_NONE, NULL, 0);
	mkv_req_run(r);
	return (MKV_TAKE_DONE);
}

/* ---- The answer ------------------------------------------------------------------------------------------------------------ */

static void
keys_reply(struct mkv_req *r, struct mkv_out *o, uint32_t from, uint32_t n, unsigned flags)
{
	uint8_t *base = mkv_buf_ptr(r->f->stage, r->u.keys.res);
	struct mkv_wire_keys_reply *w = (struct mkv_wire_keys_reply *)(void *)(base + mkv_keys_byte_off(from) - sizeof(*w));
	uint32_t bytes = (uint32_t)MKV_ALIGN_UP(sizeof(*w) + n, 8);

	memset((uint8_t *)w + sizeof(*w) + n, 0, bytes - sizeof(*w) - n);
	*w = (struct mkv_wire_keys_reply){ .n_keys = n, .n_there = r->u.keys.n_there };
	mkv_req_reply(r, o, flags, 0, MKV_REASON_NONE, w, bytes);
}

void
mkv_keys_answer(struct mkv_req *r)
{
	struct mkv_keys *u = &r->u.keys;
	struct mkv_part *p = &r->part[0];
	uint32_t first = MKV_MIN(u->n, (uint32_t)KEYS_PER_REPLY);

	mkv_metric_add(r->f->m, MKV_M_front_hits_total, r->op, u->n_there);
	mkv_part_init(r, p, 0, 0);
	p->state = PART_SEND;
	keys_reply(r, &p->out, 0, first, first < u->n ? MKV_WIRE_F_MORE : 0);
	if (first < u->n) {
		p = &r->part[1];
		mkv_part_init(r, p, 1, 0);
		p->state = PART_SEND;
		keys_reply(r, &p->out, first, u->n - first, 0);
	}
	mkv_req_end_sent(r);
}

void
mkv_keys_count_miss(struct mkv_req *r, unsigned reason, uint32_t n)
{
	mkv_metric_add(r->f->m, MKV_M_front_misses_total, reason, n);
}

/* After the replies have left and all drives have answered. */
enum mkv_next
mkv_keys_undo(struct mkv_req *r)
{
	struct mkv_keys *u = &r->u.keys;

	if (u->held && r->c != NULL) {
		u->held = 0;
		mkv_conn_kick(r->c);		/* the held part is swallowed */
	}
	if (r->n_dops != 0 || r->part[0].state != PART_FREE || r->part[1].state != PART_FREE)
		return (MKV_NEXT_PARK);
	mkv_buf_back(r, &u->res);
	for (unsigned i = 0; i < KEYS_UNITS_MAX; i++)
		mkv_buf_back(r, &u->unit[i]);
	for (unsigned i = 0; i < KEYS_BODIES_MAX; i++)
		mkv_buf_back(r, &u->body[i].buf);
	for (unsigned i = 0; i < KEYS_SLICES_MAX; i++)
		mkv_buf_back(r, &u->slice[i].buf);
	keys_dismiss(r);
	return (u->more && r->c != NULL ? MKV_NEXT_PARK : MKV_NEXT_DONE);
}
