/*
 * memkv-front, loop thread: DELETE and TOUCH of lists. Each key is a request of its own to its home drive, KEYS_DOPS_MAX in flight. The bodies of the
 * parts are kept in stage memory, KEYS_BODIES_MAX at most; then the connection is not read until one is used up.
 */
#include "config.h"

#include "worker/front/keys_priv.h"

#include <string.h>

#include "common/base/assert.h"
#include "common/base/err.h"

#define EACH_SECOND	0x80000000u	/* in the tag of a dop: the key's former home */

_Static_assert(MKV_WIRE_KEYS_MAX < EACH_SECOND, "number of a key");

/* Walk over the keys of a body before anything is done with them. */
static int
each_body_ok(const struct mkv_hdr *h, const uint8_t *body)
{
	struct mkv_wire_in in = { body, body + h->body_bytes };
	const struct mkv_wire_keys *w = mkv_wire_take(&in, sizeof(*w));
	size_t bytes;

	(void)mkv_wire_take(&in, w->ns_bytes);
	for (uint32_t i = 0; i < w->n_keys; i++)
		if (mkv_keys_next(&in, &bytes) == NULL)
			return (0);
	return (mkv_wire_skip_pad(&in, body) && in.p == in.end);
}

/* Keep the body: behind its struct and namespace it is the keys. */
static int
each_take(struct mkv_req *r, const struct mkv_hdr *h, const uint8_t *body)
{
	struct mkv_keys *u = &r->u.keys;
	const struct mkv_wire_keys *w = (const struct mkv_wire_keys *)(const void *)body;
	struct mkv_keys_body *k;

	if (!each_body_ok(h, body))
		return (MKV_E_PROTO);
	if (w->n_keys == 0)
		return (0);
	if (u->n_bodies == KEYS_BODIES_MAX)
		return (MKV_E_AGAIN);
	k = &u->body[u->n_bodies];
	if (mkv_buf_take_parked(r, MKV_MAX(h->body_bytes, 1u), &k->buf) != 0)
		return (MKV_E_AGAIN);
	memcpy(mkv_buf_ptr(r->f->stage, k->buf), body, h->body_bytes);
	k->bytes = h->body_bytes;
	k->at = (uint32_t)sizeof(*w) + w->ns_bytes;
	k->left = w->n_keys;
	u->n_bodies++;
	u->n += w->n_keys;
	return (0);
}

static enum mkv_take
each_part(struct mkv_req *r, const struct mkv_hdr *h, const uint8_t *body)
{
	return (mkv_keys_part(r, h, body, each_take));
}

static void
each_next_body(struct mkv_req *r)
{
	struct mkv_keys *u = &r->u.keys;

	mkv_buf_back(r, &u->body[0].buf);
	memmove(&u->body[0], &u->body[1], (KEYS_BODIES_MAX - 1) * sizeof(u->body[0]));
	memset(&u->body[KEYS_BODIES_MAX - 1], 0, sizeof(u->body[0]));
	u->n_bodies--;
}

/* The next key to its drive. 1: pushed; 0: parked. */
static int
each_push(struct mkv_req *r)
{
	struct mkv_keys *u = &r->u.keys;
	struct mkv_keys_body *k = &u->body[0];
	const uint8_t *base = mkv_buf_ptr(r->f->stage, k->buf), *key;
	struct mkv_wire_in in = { base + k->at, base + k->bytes };
	struct mkv_drv_req *q;
	struct mkv_dop *d;
	size_t bytes;

	if ((d = mkv_dop_take(r->f, r)) == NULL)
		return (0);
	key = mkv_keys_next(&in, &bytes);
	MKV_ASSERT(key != NULL);		/* checked when it came, and only FRONT has written there since */
	q = mkv_dop_req(r->f, d);
	q->digest = mkv_digest(mkv_ns_secret(r->f, r->ns, r->ns_bytes), key, bytes);
	q->ns_bytes = r->ns_bytes;
	q->key_bytes = (uint16_t)bytes;
	memcpy(q->ns, r->ns, r->ns_bytes);
	memcpy(q->key, key, bytes);
	q->ttl_ms = u->ttl_ms;
	*((uint8_t *)mkv_buf_ptr(r->f->stage, u->res) + mkv_keys_byte_off(u->n_out)) = 0;
	d->tag = u->n_out++;
	mkv_dop_push(r->f, d, mkv_route_home(r->f, q->digest), r->op == MKV_WIRE_DELETE ? MKV_DRV_DELETE : MKV_DRV_TOUCH);
	k->at = (uint32_t)(in.p - base);
	if (--k->left == 0)
		each_next_body(r);
	return (1);
}

/*
 * Deleted: also where the key was before the last change of the map, or it would come up again. Touched: there, if it has not moved. 1: the same
 * slot goes there. Its request lies in it as it was; a drive that spoilt it hurts its own answer.
 */
static int
each_former(struct mkv_req *r, struct mkv_dop *d, int status)
{
	const struct mkv_drv_req *q = mkv_stage_slot(r->f->stage, (uint32_t)(d - r->f->dops));
	int former;

	if ((d->tag & EACH_SECOND) || (r->op == MKV_WIRE_TOUCH && status == 0) || (former = mkv_route_former(r->f, q->digest)) < 0)
		return (0);
	if (status == 0)
		*((uint8_t *)mkv_buf_ptr(r->f->stage, r->u.keys.res) + mkv_keys_byte_off(d->tag)) = 1;
	d->tag |= EACH_SECOND;
	d->keep = 1;
	mkv_dop_push(r->f, d, former, d->op);
	return (1);
}

static void
each_on_dop(struct mkv_req *r, struct mkv_dop *d, const struct mkv_drv_rep *rep, int status)
{
	struct mkv_keys *u = &r->u.keys;
	uint8_t *byte;

	if (r->ending)
		return;
	if (status != 0 && status != MKV_E_MISS) {
		/* A delete may have happened: the whole list is idempotent and the client asks again. */
		mkv_req_end(r, status, MKV_REASON_NONE, NULL, 0);
		return;
	}
	if (each_former(r, d, status))
		return;
	byte = (uint8_t *)mkv_buf_ptr(r->f->stage, u->res) + mkv_keys_byte_off(d->tag & ~EACH_SECOND);
	if ((d->tag & EACH_SECOND) && *byte == 1)
		status = 0;
	u->n_back++;
	u->n_there += status == 0;
	*byte = status == 0 ? 1 : (uint8_t)(rep->reason << 1);
	if (status != 0)
		mkv_keys_count_miss(r, rep->reason, 1);
}

static enum mkv_next
each_step(struct mkv_req *r)
{
	struct mkv_keys *u = &r->u.keys;

	while (u->n_bodies != 0 && r->n_dops < KEYS_DOPS_MAX)
		if (!each_push(r))
			return (MKV_NEXT_PARK);
	if (u->held && u->n_bodies < KEYS_BODIES_MAX)
		mkv_conn_kick(r->c);
	if (u->more || !u->started || u->n_bodies != 0 || u->n_back != u->n)
		return (MKV_NEXT_PARK);
	mkv_keys_answer(r);
	return (MKV_NEXT_AGAIN);
}

const struct mkv_req_ops mkv_delete_ops = {
	.op = MKV_WIRE_DELETE,
	.start = mkv_keys_start,
	.part = each_part,
	.step = each_step,
	.on_dop = each_on_dop,
	.undo = mkv_keys_undo,
};

const struct mkv_req_ops mkv_touch_ops = {
	.op = MKV_WIRE_TOUCH,
	.start = mkv_keys_start,
	.part = each_part,
	.step = each_step,
	.on_dop = each_on_dop,
	.undo = mkv_keys_undo,
};
