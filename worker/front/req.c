/*
 * memkv-front, loop thread: life of a request: taken from the pool by dispatch, moved by its op's step, ended once, given back when nothing outside
 * (drive, socket, park queue) knows it any more. Owns the pool and the hash by (connection, request id).
 *
 *   dispatch -> start -> step ... step -> mkv_req_end -> undo, parts, drives' last answers, reply -> free
 *
 * The deadline ends a request from outside, whatever it waits for; a drive that still has its slot and buffers keeps the context until it
 * answers or dies. A deadline in the middle of the client's own bytes ends the connection.
 */
#include "config.h"

#include "worker/front/front_priv.h"

#include <string.h>

#include "common/base/assert.h"
#include "common/base/err.h"

#define REQ_LATE_NS	(30 * MKV_NS_PER_SEC)	/* an answer that waits for memory: whether it can come at all is looked at so often */

static const struct mkv_req_ops *const req_ops[] = {
	&mkv_put_ops, &mkv_get_ops, &mkv_exists_ops, &mkv_match_ops, &mkv_delete_ops, &mkv_touch_ops,
	&mkv_list_ops, &mkv_info_ops, &mkv_stat_ops, &mkv_report_ops, &mkv_ping_ops, &mkv_cancel_ops, &mkv_attach_ops,
	&mkv_region_ops,
};

/* From -> to that can be; a bit for each state. */
#define TO(s)	(1u << (s))
static const unsigned req_edges[REQ_STATES] = {
	[REQ_FREE]	= TO(REQ_RECEIVE) | TO(REQ_WAIT) | TO(REQ_DRIVE) | TO(REQ_REPLY),
	[REQ_RECEIVE]	= TO(REQ_WAIT) | TO(REQ_DRIVE) | TO(REQ_REPLY) | TO(REQ_FREE),
	[REQ_WAIT]	= TO(REQ_RECEIVE) | TO(REQ_DRIVE) | TO(REQ_REPLY) | TO(REQ_FREE),
	[REQ_DRIVE]	= TO(REQ_RECEIVE) | TO(REQ_WAIT) | TO(REQ_REPLY) | TO(REQ_FREE),
	[REQ_REPLY]	= TO(REQ_RECEIVE) | TO(REQ_WAIT) | TO(REQ_DRIVE) | TO(REQ_FREE),
};
#undef TO

static const struct mkv_req_ops *
req_ops_of(unsigned op)
{
	for (size_t i = 0; i < MKV_ARRAY_LEN(req_ops); i++)
		if (req_ops[i]->op == op)
			return (req_ops[i]);
	return (NULL);
}

/* ---- States ---------------------------------------------------------------------------------------------------------------- */

/* RECEIVE is measured by frame, in conn.c: a value in parts has many. */
static void
req_set_state(struct mkv_req *r, enum mkv_req_state to)
{
	static const int stage[REQ_STATES] = {
		[REQ_FREE] = -1, [REQ_RECEIVE] = -1, [REQ_WAIT] = MKV_M_front_buffer_wait_seconds,
		[REQ_DRIVE] = MKV_M_front_ring_seconds, [REQ_REPLY] = MKV_M_front_reply_seconds,
	};
	uint64_t now;

	if (r->state == to)
		return;
	MKV_ASSERT(req_edges[r->state] & (1u << to));
	now = mkv_now_ns();
	if (stage[r->state] >= 0)
		mkv_metric_time(r->f->m, (enum mkv_metric)stage[r->state], now - r->stage_ns);
	r->stage_ns = now;
	r->state = (uint8_t)to;
}

/* What it waits for, by what it holds. */
static enum mkv_req_state
req_where(const struct mkv_req *r)
{
	int sending = r->out.busy;

	for (unsigned i = 0; i < REQ_PARTS; i++) {
		if (r->part[i].state == PART_RECV)
			return (REQ_RECEIVE);
		sending |= r->part[i].state == PART_SEND;
	}
	if (r->parked != NULL)
		return (REQ_WAIT);
	if (r->n_dops != 0)
		return (REQ_DRIVE);
	return (sending ? REQ_REPLY : REQ_RECEIVE);
}

/* ---- Pool ------------------------------------------------------------------------------------------------------------------ */

static void	req_fire(struct mkv_timer *t, uint64_t now_ns);

void
mkv_req_pool_init(struct mkv_front *f)
{
	for (uint32_t i = 0; i < f->conf.requests_max; i++) {
		struct mkv_req *r = &f->reqs[i];

		r->magic = REQ_MAGIC;
		r->f = f;
		mkv_list_init(&r->park_link);
		mkv_list_init(&r->hold_link);
		mkv_list_init(&r->xfer_wait);
		mkv_list_push_tail(&f->req_free, &r->link);
	}
}

static uint32_t
req_bucket(const struct mkv_front *f, uint32_t conn_idx, uint64_t id)
{
	uint64_t k[2] = { conn_idx, id };

	return ((uint32_t)mkv_hash64(k, sizeof(k), 0) & f->req_hash_mask);
}

struct mkv_req *
mkv_req_find(const struct mkv_front *f, const struct mkv_conn *c, uint64_t id)
{
	struct mkv_req *r = f->req_hash[req_bucket(f, c->idx, id)];

	while (r != NULL && (r->c != c || r->id != id))
		r = r->hash_next;
	return (r);
}

static void
req_unhash(struct mkv_req *r)
{
	struct mkv_req **p = &r->f->req_hash[req_bucket(r->f, r->c->idx, r->id)];

	while (*p != r) {
		MKV_ASSERT(*p != NULL);
		p = &(*p)->hash_next;
	}
	*p = r->hash_next;
	r->hash_next = NULL;
}

static struct mkv_req *
req_take(struct mkv_conn *c, const struct mkv_hdr *h)
{
	struct mkv_front *f = c->f;
	struct mkv_list *l = mkv_list_pop(&f->req_free);
	struct mkv_req **bucket;
	struct mkv_req *r;

	if (l == NULL)
		return (NULL);
	r = MKV_CONTAINER_OF(l, struct mkv_req, link);
	MKV_CHECK_OBJ(r, REQ_MAGIC);
	MKV_ASSERT(r->state == REQ_FREE && r->n_dops == 0 && r->parked == NULL);
	r->op = h->op;
	r->ending = 0;
	r->c = c;
	r->id = h->request_id;
	r->channel = c->remote_channel;
	r->by_region = c->by_region;
	mkv_chan_req_begins(r);
	r->carrier = c->remote_carrier;
	r->posted = r->wrote = 0;
	r->born_ns = r->stage_ns = c->hdr_ns;
	r->deadline_ns = c->frame_until_ns;
	r->tries = 0;
	r->former = 0;
	r->late = 0;
	r->status = 0;
	r->reason = 0;
	r->timer.fire = req_fire;
	memset(&r->out, 0, offsetof(struct mkv_out, pay));
	memset(&r->u, 0, sizeof(r->u));
	mkv_list_push_tail(&c->reqs, &r->link);
	c->n_reqs++;
	f->n_reqs++;
	bucket = &f->req_hash[req_bucket(f, c->idx, r->id)];
	r->hash_next = *bucket;
	*bucket = r;
	mkv_metric_add(f->m, MKV_M_front_requests_total, r->op, 1);
	return (r);
}

static void
req_free(struct mkv_req *r)
{
	struct mkv_front *f = r->f;

	MKV_ASSERT(r->ending && r->n_dops == 0 && !r->out.busy && r->parked == NULL);
	for (unsigned i = 0; i < REQ_PARTS; i++)
		MKV_ASSERT(r->part[i].state == PART_FREE);
	MKV_ASSERT(r->xfer_now == NULL && mkv_list_empty(&r->xfer_wait));
	mkv_chan_req_done(r);
	mkv_chan_req_gone(r);
	mkv_timer_disarm(f->timers, &r->timer);
	req_set_state(r, REQ_FREE);
	mkv_metric_time(f->m, MKV_M_front_request_seconds, r->stage_ns - r->born_ns);
	if (r->op == MKV_WIRE_PUT || r->op == MKV_WIRE_GET)
		mkv_metric_time(f->m, r->op == MKV_WIRE_PUT ? MKV_M_front_put_seconds : MKV_M_front_get_seconds, r->stage_ns - r->born_ns);
	if (r->c != NULL) {
		req_unhash(r);
		mkv_list_remove(&r->link);
		r->c->n_reqs--;
		mkv_conn_kick(r->c);
		r->c = NULL;
	}
	mkv_list_push_tail(&f->req_free, &r->link);
	f->n_reqs--;
}

/*
 * As many connections that wait for a context as there are contexts. By what is there, not by what was just given back: one that was woken may be gone,
 * or have got its context already.
 */
void
mkv_req_contexts(struct mkv_front *f)
{
	uint32_t n = f->conf.requests_max - f->n_reqs;
	struct mkv_list *l;

	for (; n > 0 && (l = mkv_list_pop(&f->req_wait)) != NULL; n--)
		mkv_conn_kick(MKV_CONTAINER_OF(l, struct mkv_conn, wait_link));
}

/* ---- Ending ---------------------------------------------------------------------------------------------------------------- */

static void
req_out_done(struct mkv_out *o, int res)
{
	(void)res;		/* an error closes the connection by itself */
	mkv_req_run(o->owner);
}

void
mkv_req_reply(struct mkv_req *r, struct mkv_out *o, unsigned flags, int status, unsigned reason, const void *body, uint32_t body_bytes)
{
	MKV_ASSERT(!o->busy && body_bytes % 8 == 0);
	o->hdr = (struct mkv_hdr){ .magic = MKV_WIRE_MAGIC, .version = MKV_WIRE_VERSION, .op = r->op,
		.flags = (uint16_t)(MKV_WIRE_F_REPLY | flags | (o->pay_bytes != 0 ? MKV_WIRE_F_PAYLOAD : 0) | (o->place != NULL ? MKV_WIRE_F_REMOTE : 0)), .request_id = r->id, .body_bytes = body_bytes,
		.payload_bytes = o->pay_bytes, .status = (uint16_t)-status, .reason = (uint16_t)reason };
	if (mkv_err_retry(status))
		o->hdr.deadline_us = 10000;	/* when to come again */
	o->body = body;
	o->until_ns = r->deadline_ns;
	if (r->c == NULL || !mkv_conn_alive(r->c) || (r->channel == 0 && r->c->state == CONN_LOOSE))
		return;
	if (r->channel == 0)
		mkv_conn_send(r->c, o);
	else
		(void)mkv_chan_reply(r, o);	/* a channel that broke has ended the request */
}

static void
req_count_end(const struct mkv_req *r)
{
	struct mkv_metrics *m = r->f->m;

	if (r->status == MKV_E_TIMEOUT)
		mkv_metric_add(m, MKV_M_front_expired_total, 0, 1);
	if (r->status == MKV_E_CANCELLED)
		mkv_metric_add(m, MKV_M_front_cancelled_total, 0, 1);
	if (r->status == MKV_E_RETRY)
		mkv_metric_add(m, MKV_M_front_retries_total, 0, 1);
	if (r->status == MKV_E_MISS)
		mkv_metric_add(m, MKV_M_front_misses_total, r->reason, 1);
	else if (r->status != 0)
		mkv_metric_add(m, MKV_M_front_errors_total, r->op, 1);
}

void
mkv_req_end(struct mkv_req *r, int status, unsigned reason, const void *body, uint32_t body_bytes)
{
	if (r->ending)
		return;
	MKV_ASSERT(body_bytes <= REQ_BODY_BYTES && status <= 0);
	/* A drive failed, not the request. Asked again, it goes to another place, or to another drive as soon as this one is out of service. */
	if (status == MKV_E_IO || status == MKV_E_READONLY) {
		status = MKV_E_BUSY;
		reason = MKV_REASON_DRIVE_OFFLINE;
	}
	r->ending = 1;
	r->status = status;
	r->reason = reason;
	req_count_end(r);
	/* What is out goes before the answer; nothing comes behind it. */
	if (status != 0)
		mkv_chan_stop(r);
	if (body_bytes != 0)
		memcpy(r->body, body, body_bytes);
	r->out.owner = r;
	r->out.done = req_out_done;
	/* First: for memory that no drive has been given nobody has to wait. */
	if (status != 0 && r->by_region)
		mkv_dops_recall(r->f, r);
	if (mkv_lends(r)) {
		MKV_ASSERT(body_bytes == 0);
		r->late = 1;
		mkv_timer_arm(r->f->timers, &r->timer, mkv_now_ns() + REQ_LATE_NS);
		return;
	}
	mkv_req_reply(r, &r->out, 0, status, reason, r->body, body_bytes);
	if (status != 0)
		mkv_dops_recall(r->f, r);
}

void
mkv_req_end_sent(struct mkv_req *r)
{
	MKV_ASSERT(!r->ending);
	r->ending = 1;
	r->status = 0;
}

void
mkv_req_orphan(struct mkv_req *r)
{
	MKV_CHECK_OBJ(r, REQ_MAGIC);
	req_unhash(r);
	r->c = NULL;		/* already off the connection's list */
	if (!r->ending) {
		r->ending = 1;
		r->status = MKV_E_CLOSED;
		mkv_dops_recall(r->f, r);
	}
	mkv_req_run(r);
}

int
mkv_req_again(struct mkv_req *r, int status)
{
	return (status == MKV_E_RETRY && !r->ending && r->tries++ < REQ_TRIES_MAX && mkv_now_ns() < r->deadline_ns);
}

/* Its turn after mkv_req_end(). */
static enum mkv_next
req_end_step(struct mkv_req *r)
{
	const struct mkv_req_ops *ops = req_ops_of(r->op);
	int busy = 0;

	/* Once: the ending may wait for a slot of its own, and who leaves a queue to join it again wakes itself for ever. */
	if (r->ending == 1)
		mkv_unpark(r->f, r);
	r->ending = 2;
	for (unsigned i = 0; i < REQ_PARTS; i++)
		busy |= !mkv_part_clear(r, &r->part[i]);
	if (ops->undo != NULL && ops->undo(r) != MKV_NEXT_DONE)
		busy = 1;
	/* What the client may use again from its answer on is back. */
	if (r->late && !mkv_lends(r)) {
		r->late = 0;
		mkv_req_reply(r, &r->out, 0, r->status, r->reason, NULL, 0);
	}
	if (busy || r->late || r->n_dops != 0 || r->out.busy)
		return (MKV_NEXT_PARK);
	/* Whatever the ending waited for is not needed any more: its drive went. */
	mkv_unpark(r->f, r);
	return (MKV_NEXT_DONE);
}

void
mkv_req_run(struct mkv_req *r)
{
	enum mkv_next nxt;

	MKV_CHECK_OBJ(r, REQ_MAGIC);
	MKV_ASSERT(r->ending || r->c != NULL);
	do
		nxt = r->ending ? req_end_step(r) : req_ops_of(r->op)->step(r);
	while (nxt == MKV_NEXT_AGAIN);
	if (nxt == MKV_NEXT_DONE)
		req_free(r);		/* touch nothing after */
	else
		req_set_state(r, req_where(r));
}

static void
req_fire(struct mkv_timer *t, uint64_t now_ns)
{
	struct mkv_req *r = MKV_CONTAINER_OF(t, struct mkv_req, timer);

	(void)now_ns;
	MKV_CHECK_OBJ(r, REQ_MAGIC);
	if (r->ending) {
		if (r->c != NULL && r->late)
			mkv_timer_arm(r->f->timers, &r->timer, mkv_now_ns() + REQ_LATE_NS);
		if (r->c != NULL && (mkv_keys_unfinished(r) || mkv_lends_lost(r)))
			mkv_conn_close(r->c);
		return;
	}
	if (r->c->rx_req == r && r->c->rx_ref && r->c->rx == RX_PAYLOAD)
		mkv_conn_unread(r->c);
	for (unsigned i = 0; i < REQ_PARTS; i++)
		if (r->part[i].state == PART_RECV && r->channel == 0) {
			mkv_metric_add(r->f->m, MKV_M_front_expired_total, 0, 1);
			mkv_conn_close(r->c);
			return;
		}
	mkv_req_end(r, MKV_E_TIMEOUT, MKV_REASON_TIMED_OUT, NULL, 0);
	mkv_req_run(r);
}

void
mkv_req_releases(struct mkv_front *f)
{
	struct mkv_list *l, now;

	mkv_list_init(&now);
	while ((l = mkv_list_pop(&f->hold_wait)) != NULL)
		mkv_list_push_tail(&now, l);
	while ((l = mkv_list_pop(&now)) != NULL)
		mkv_req_run(MKV_CONTAINER_OF(l, struct mkv_req, hold_link));
}

/* ---- Answers of drives ----------------------------------------------------------------------------------------------------- */

void
mkv_req_on_dop(struct mkv_req *r, struct mkv_dop *d, const struct mkv_drv_rep *rep, int status)
{
	struct mkv_part *p = d->part;

	d->keep = 0;
	req_ops_of(r->op)->on_dop(r, d, rep, status);
	if (d->keep)
		return;
	if (p != NULL && p->dop == d)
		p->dop = NULL;
	mkv_dop_drop(r->f, d);
}

void
mkv_req_on_dop_lost(struct mkv_req *r, struct mkv_dop *d)
{
	struct mkv_part *p = d->part;

	d->keep = 0;
	req_ops_of(r->op)->on_dop(r, d, NULL, MKV_E_RETRY);
	MKV_ASSERT(!d->keep);
	if (p != NULL && p->dop == d)
		p->dop = NULL;
}

/* ---- Dispatch -------------------------------------------------------------------------------------------------------------- */

/* Flags that this op can have. */
static int
req_flags_ok(const struct mkv_conn *c, const struct mkv_hdr *h, const struct mkv_wire_op_row *row)
{
	int lists = (row->flags & MKV_OPF_LISTS) != 0;

	if ((h->flags & MKV_WIRE_F_LONG_BODY) != 0 || ((h->flags & MKV_WIRE_F_REMOTE) != 0 && c->remote == NULL && !c->by_region))
		return (0);
	if ((h->flags & MKV_WIRE_F_MORE) != 0 && !lists && h->op != MKV_WIRE_PUT)
		return (0);
	if ((h->flags & MKV_WIRE_F_ABORT) != 0 && (h->op != MKV_WIRE_PUT || h->payload_bytes != 0 || (h->flags & MKV_WIRE_F_MORE) != 0))
		return (0);
	return (1);
}

/* A part of a put that was answered early: the client had it on the way. */
static int
req_is_late_part(const struct mkv_hdr *h, const uint8_t *body)
{
	const struct mkv_wire_put *w = (const struct mkv_wire_put *)(const void *)body;

	if (h->op != MKV_WIRE_PUT)
		return (0);
	return ((h->flags & MKV_WIRE_F_ABORT) != 0 || (h->body_bytes >= sizeof(*w) && w->part_off != 0));
}

static enum mkv_take
req_refuse(struct mkv_req *r, const struct mkv_hdr *h, int status)
{
	mkv_req_end(r, status, status == MKV_E_TIMEOUT ? MKV_REASON_TIMED_OUT : MKV_REASON_NONE, NULL, 0);
	if ((h->flags & MKV_WIRE_F_MORE) != 0 && (mkv_wire_op_row(h->op)->flags & MKV_OPF_LISTS) != 0) {
		/* Its other parts are on their way: they are taken for what they are, not for new requests. */
		r->u.keys.more = 1;
		mkv_timer_arm(r->f->timers, &r->timer, mkv_now_ns() + r->f->conf.handshake_ns);
	}
	mkv_req_run(r);
	return (h->payload_bytes != 0 ? MKV_TAKE_DISCARD : MKV_TAKE_DONE);
}

static enum mkv_take
req_start(struct mkv_conn *c, const struct mkv_hdr *h, const uint8_t *body)
{
	const struct mkv_req_ops *ops = req_ops_of(h->op);
	struct mkv_req *r;
	int e;

	if (ops == NULL)			/* HELLO, CONNECT: their time is over */
		return (MKV_TAKE_BREAK);
	/* One more for a CANCEL or PING: they must get through when all credits are out. */
	if (c->n_reqs >= c->f->conf.inflight_max + (h->op == MKV_WIRE_CANCEL || h->op == MKV_WIRE_PING))
		return (MKV_TAKE_HOLD);
	if ((e = mkv_chan_lease(c, h, body)) != 0)
		return (e == MKV_E_AGAIN ? MKV_TAKE_HOLD : MKV_TAKE_DISCARD);
	if ((r = req_take(c, h)) == NULL) {
		if (mkv_list_empty(&c->wait_link))
			mkv_list_push_tail(&c->f->req_wait, &c->wait_link);
		return (MKV_TAKE_HOLD);
	}
	/* A DROP is done however late it is: its answer is taken for that. */
	if (mkv_now_ns() >= r->deadline_ns && h->op != MKV_WIRE_REGION)
		return (req_refuse(r, h, MKV_E_TIMEOUT));
	if (c->remote != NULL && c->remote->lost)
		return (req_refuse(r, h, MKV_E_CLOSED));
	/* Where keys are is not known before the drives have come: that is no miss. */
	e = c->f->map_version == 0 && h->op != MKV_WIRE_PING && h->op != MKV_WIRE_CANCEL && h->op != MKV_WIRE_INFO && h->op != MKV_WIRE_REGION ? MKV_E_RETRY : ops->start(r, h, body);
	if (e != 0)
		return (req_refuse(r, h, e));
	mkv_timer_arm(c->f->timers, &r->timer, r->deadline_ns);
	if (ops->part != NULL)
		return (ops->part(r, h, body));
	mkv_req_run(r);
	return (MKV_TAKE_DONE);
}

enum mkv_take
mkv_req_dispatch(struct mkv_conn *c, const struct mkv_hdr *h, const uint8_t *body)
{
	struct mkv_req *r = mkv_req_find(c->f, c, h->request_id);
	int e;

	if (!req_flags_ok(c, h, mkv_wire_op_row(h->op)))
		return (MKV_TAKE_BREAK);
	if (r == NULL)
		return (req_is_late_part(h, body) ? MKV_TAKE_DISCARD : req_start(c, h, body));
	if (r->op != h->op || req_ops_of(r->op)->part == NULL || r->channel != c->remote_channel)
		return (MKV_TAKE_BREAK);	/* an id in use */
	if ((e = mkv_chan_lease_again(r)) != 0)
		return (e == MKV_E_AGAIN ? MKV_TAKE_HOLD : MKV_TAKE_DISCARD);
	return (req_ops_of(r->op)->part(r, h, body));
}

/* ---- Keys ------------------------------------------------------------------------------------------------------------------ */

int
mkv_req_take_key(struct mkv_req *r, struct mkv_wire_in *in, size_t ns_bytes, size_t key_bytes)
{
	const void *ns, *key;
	const uint8_t *secret;

	if (ns_bytes > MKV_WIRE_NS_MAX || key_bytes == 0 || key_bytes > MKV_WIRE_KEY_MAX)
		return (MKV_E_INVAL);
	ns = mkv_wire_take(in, ns_bytes);
	key = mkv_wire_take(in, key_bytes);
	if (ns == NULL || key == NULL)
		return (MKV_E_PROTO);
	if ((secret = mkv_ns_secret(r->f, ns, ns_bytes)) == NULL)
		return (MKV_E_SYSTEM);
	r->ns_bytes = (uint16_t)ns_bytes;
	r->key_bytes = (uint16_t)key_bytes;
	memcpy(r->ns, ns, ns_bytes);
	memcpy(r->key, key, key_bytes);
	r->digest = mkv_digest(secret, key, key_bytes);
	return (0);
}

int
mkv_req_take_get(struct mkv_req *r, const struct mkv_hdr *h, const uint8_t *body, const struct mkv_wire_get **out)
{
	struct mkv_wire_in in = { body, body + h->body_bytes };
	const struct mkv_wire_get *w = mkv_wire_take(&in, sizeof(*w));
	int e;

	if (w == NULL)
		return (MKV_E_PROTO);
	if ((e = mkv_req_take_key(r, &in, w->ns_bytes, w->key_bytes)) != 0)
		return (e);
	*out = w;
	if (!mkv_wire_skip_pad(&in, body))
		return (MKV_E_PROTO);
	return (r->by_region ? mkv_region_take_get(r, &in) : mkv_chan_take_segs(r->c, &in));
}

void
mkv_req_fill(const struct mkv_req *r, struct mkv_drv_req *q)
{
	q->digest = r->digest;
	q->ns_bytes = r->ns_bytes;
	q->key_bytes = r->key_bytes;
	memcpy(q->ns, r->ns, r->ns_bytes);
	memcpy(q->key, r->key, r->key_bytes);
}
