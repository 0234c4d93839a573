/*
 * Requests: taking them up, key locks, waiting, data transfers, the end. Drive's loop thread; owns the pool of requests and of transfers.
 *
 * A request is on one list at a time: free, ready, or what it waits for; a transfer that waits for its turn (sched.c) is queued besides. `parked` says
 * that a deadline may end the wait; requests that wait for the medium or for a flush are not parked: their buffers are under I/O. Everything in a
 * struct mkv_drv_req is foreign and checked in req_check(); a request that makes no sense is answered MKV_E_PROTO and counted.
 */
#include "config.h"

#include <string.h>

#include "common/base/crc.h"
#include "common/base/err.h"
#include "common/base/log.h"
#include "worker/drive/engine_priv.h"

enum { OP_WRITES = 1, OP_KEY = 2, OP_BUFS = 4 };

static const struct req_op {
	enum mkv_next	(*step)(struct mkv_req *);
	unsigned	flags;
} req_ops[] = {
	[MKV_DRV_PUT]		= { put_step,		OP_WRITES | OP_KEY | OP_BUFS },
	[MKV_DRV_RESERVE]	= { reserve_step,	OP_WRITES },
	[MKV_DRV_COMMIT]	= { commit_step,	OP_WRITES | OP_KEY },
	[MKV_DRV_ABORT]		= { abort_step,		0 },
	[MKV_DRV_GET]		= { get_step,		OP_KEY | OP_BUFS },
	[MKV_DRV_STAT]		= { stat_step,		OP_KEY },
	[MKV_DRV_DELETE]	= { delete_step,	OP_WRITES | OP_KEY },
	[MKV_DRV_TOUCH]		= { touch_step,		OP_KEY },
	[MKV_DRV_BATCH]		= { batch_step,		OP_BUFS },
	[MKV_DRV_LIST]		= { list_step,		OP_BUFS },
	[MKV_DRV_INFO]		= { info_step,		0 },
	[MKV_DRV_SET_NEW]	= { set_new_step,	OP_WRITES },
	[MKV_DRV_VERIFY]	= { verify_step,	OP_KEY },
};

void
req_wake(struct mkv_req *r)
{
	if (r->ready)
		return;
	mkv_list_remove(&r->link);
	r->parked = 0;
	r->ready = 1;
	mkv_list_push_tail(&r->e->ready, &r->link);
}

void
req_park(struct mkv_req *r, struct mkv_list *on)
{
	MKV_ASSERT(!r->ready);
	mkv_list_remove(&r->link);
	if (on != NULL)
		mkv_list_push_tail(on, &r->link);
	r->parked = 1;
}

/* Only those that wait now: who parks again meanwhile goes behind. */
void
req_wake_list(struct mkv_list *l, unsigned max)
{
	while (max-- > 0 && !mkv_list_empty(l))
		req_wake(MKV_CONTAINER_OF(l->next, struct mkv_req, link));
}

enum mkv_next
req_finish(struct mkv_req *r, int status, unsigned reason)
{
	r->p.status = status;
	r->p.reason = (uint16_t)reason;
	if (status == MKV_E_MISS)
		mkv_metric_add(r->e->o.metrics, MKV_M_drive_misses_total, reason, 1);
	r->state = RQ_REPLY;
	return (MKV_NEXT_DONE);
}

static void
req_end(struct mkv_req *r)
{
	struct mkv_engine *e = r->e;
	uint32_t c = r->call.client;

	MKV_ASSERT(r->x.in_flight == 0 && r->leader == NULL && mkv_list_empty(&r->io_link));
	MKV_ASSERT(mkv_list_empty(&r->lead_link) && mkv_list_empty(&r->followers));
	if (r->q.op == MKV_DRV_GET || r->q.op == MKV_DRV_VERIFY)
		get_release(r);
	else
		put_release(r);
	req_unlock(r);
	if (e->bounce_of == r) {
		e->bounce_of = NULL;
		req_wake_list(&e->bounce_wait, 1);
	}
	if (r->region != 0)
		e->o.ops->region_done(e->o.arg, c, r->region);
	poolmap_note(e, r);
	e->scrub.busy_ns = eng_now(e);
	mkv_metric_time(e->o.metrics, MKV_M_drive_request_seconds, e->scrub.busy_ns - r->begin_ns);
	if (!r->gone)
		e->o.ops->reply(e->o.arg, &r->call, &r->p);
	r->state = RQ_FREE;
	mkv_list_remove(&r->all);
	mkv_list_remove(&r->link);
	mkv_list_push_tail(&e->req_free, &r->link);
	e->at_work--;
	if (--e->active[c] == 0 && e->gone[c]) {
		e->gone[c] = 0;
		e->o.ops->client_done(e->o.arg, c);
	}
}

void
req_run(struct mkv_req *r)
{
	enum mkv_next nxt;

	do
		nxt = r->step(r);
	while (nxt == MKV_NEXT_AGAIN);
	if (nxt == MKV_NEXT_DONE)
		req_end(r);
}

static enum mkv_next
req_refuse(struct mkv_req *r)
{
	if (r->q.op == MKV_DRV_COMMIT)
		commit_refused(r);
	return (req_finish(r, r->err, MKV_REASON_NONE));
}

/* In the stage, or buffer 0 of a request that may, in a region. NULL: there is no such memory. */
static void *
req_check_buf(struct mkv_req *r, unsigned i, uint64_t room)
{
	const struct mkv_engine_ops *ops = r->e->o.ops;
	const struct mkv_drv_buf *b = &r->q.bufs[i];
	void *p;

	if ((r->q.flags & MKV_DRV_F_DIRECT) == 0 || i > 0)
		return (b->region == 0 ? ops->buffer(r->e->o.arg, r->call.client, b->off, room, &r->buf[i].idx) : NULL);
	if (b->region == 0 || ops->region == NULL)
		return (NULL);
	if ((p = ops->region(r->e->o.arg, r->call.client, b->region, b->off, room, &r->buf[i].idx)) != NULL)
		r->region = b->region;
	return (p);
}

static int
req_check_direct_get(const struct mkv_drv_req *q)
{
	return (q->n_bufs == 2 && q->off % CHUNK == 0 && q->len != 0 && q->bufs[0].bytes % MKV_BLOCK == 0 && q->bufs[0].bytes >= q->len / MKV_BLOCK * MKV_BLOCK &&
	    q->bufs[1].bytes >= MKV_BLOCK);
}

/* Nobody has seen its bytes: whoever says that they match their CRCs is wrong. */
static int
req_check_direct_put(const struct mkv_drv_req *q)
{
	const uint64_t whole = q->value_bytes / MKV_BLOCK * MKV_BLOCK, rest = q->value_bytes - whole;

	return ((q->flags & (MKV_DRV_F_VERIFIED | MKV_DRV_F_MANIFEST)) == 0 && whole != 0 && q->bufs[0].bytes == whole && q->n_bufs == 1u + (rest != 0) &&
	    (rest == 0 || q->bufs[1].bytes == rest));
}

/* What a request with a region must be, so that none of it is touched by more than the medium. */
static int
req_check_direct(const struct mkv_req *r)
{
	if (r->e->o.media->shared)
		return (0);
	if (r->q.op == MKV_DRV_PUT)
		return (req_check_direct_put(&r->q));
	return (r->q.op == MKV_DRV_GET && req_check_direct_get(&r->q));
}

/* Buffers: each but the last a multiple of 4096, all inside the client's staging memory. */
static int
req_check_bufs(struct mkv_req *r)
{
	struct mkv_drv_req *q = &r->q;

	if (q->n_bufs > MKV_DRV_BUFS_MAX)
		return (0);
	for (unsigned i = 0; i < q->n_bufs; i++) {
		uint64_t room = MKV_ALIGN_UP((uint64_t)q->bufs[i].bytes, MKV_BLOCK);

		if (room == 0 || room > UINT32_MAX || q->bufs[i].off % MKV_BLOCK != 0)
			return (0);
		if (i + 1 < q->n_bufs && q->bufs[i].bytes % MKV_BLOCK != 0)
			return (0);
		if ((r->buf[i].ptr = req_check_buf(r, i, room)) == NULL)
			return (0);
		r->buf[i].bytes = (uint32_t)room;
		r->room += room;
	}
	return (1);
}

static int
req_check(struct mkv_req *r, const struct req_op **out)
{
	struct mkv_drv_req *q = &r->q;
	const struct req_op *op = q->op < MKV_ARRAY_LEN(req_ops) ? &req_ops[q->op] : NULL;

	if (q->magic != MKV_DRV_REQ_MAGIC || op == NULL || op->step == NULL)
		return (MKV_E_PROTO);
	if (q->key_bytes > MKV_DRV_KEY_MAX || q->ns_bytes > MKV_DRV_NS_MAX || q->n_crcs > MKV_DRV_CRCS_MAX || q->n_stripe > MKV_DRV_STRIPE_MAX)
		return (MKV_E_PROTO);
	if ((op->flags & OP_KEY) && q->key_bytes == 0 && (q->flags & MKV_DRV_F_PIECE) == 0)
		return (MKV_E_PROTO);
	for (unsigned i = 0; i < q->n_stripe; i++) {
		if (q->stripe[i] >= MKV_DRV_STRIPE_MAX)
			return (MKV_E_PROTO);
	}
	if ((q->flags & MKV_DRV_F_DIRECT) != 0 && !req_check_direct(r))
		return (MKV_E_UNSUPPORTED);
	if ((op->flags & OP_BUFS) ? !req_check_bufs(r) : q->n_bufs != 0)
		return ((q->flags & MKV_DRV_F_DIRECT) != 0 ? MKV_E_UNSUPPORTED : MKV_E_PROTO);
	if (q->deadline_ns != 0 && r->begin_ns >= q->deadline_ns) {
		ENG_COUNT(r->e, expired_requests_total, 1);
		return (MKV_E_TIMEOUT);
	}
	if (poolmap_refuses(r->e, q))
		return (MKV_E_RETRY);
	if ((op->flags & OP_WRITES) && r->e->readonly)
		return (MKV_E_READONLY);
	*out = op;
	return (0);
}

/* A taken request begins with nothing but its identity. */
static void
req_reset(struct mkv_req *r, const struct mkv_call *call, const struct mkv_drv_req *q)
{
	r->lock = r->parked = r->ready = r->gone = r->err = 0;
	r->call = *call;
	r->room = 0;
	r->region = 0;
	r->n_runs = 0;
	r->units = 0;
	memset(&r->x, 0, sizeof(r->x));
	r->ent = r->side = MKV_ENT_NIL;
	r->page = 0;
	r->seq = 0;
	r->committed = r->quarantine = r->same = r->tries = r->spec = r->begun = r->verifies = 0;
	r->expires_ms = 0;
	r->scan_page = r->scan_left = r->scan_piece = 0;
	memcpy(&r->q, q, sizeof(r->q));
	memset(&r->p, 0, sizeof(r->p));
	r->p.magic = MKV_DRV_REP_MAGIC;
	r->p.op = r->q.op;
	mkv_list_init(&r->link);
	mkv_list_init(&r->lock_link);
	mkv_list_init(&r->group_link);
	mkv_list_init(&r->io_link);
	mkv_list_init(&r->lead_link);
	mkv_list_init(&r->followers);
	mkv_list_init(&r->follow_link);
	r->leader = NULL;
	r->follow_bytes = 0;
	r->state = RQ_START;
}

int
mkv_engine_submit(struct mkv_engine *e, const struct mkv_call *call, const struct mkv_drv_req *q)
{
	const struct req_op *op = NULL;
	struct mkv_list *l;
	struct mkv_req *r;

	MKV_CHECK_OBJ(e, MKV_ENGINE_MAGIC);
	MKV_ASSERT(call->client < MKV_ENGINE_CLIENTS_MAX);
	MKV_ASSERT(!e->gone[call->client]);
	if ((l = mkv_list_pop(&e->req_free)) == NULL)
		return (MKV_E_AGAIN);
	r = MKV_CONTAINER_OF(l, struct mkv_req, link);
	MKV_CHECK_OBJ(r, MKV_REQ_MAGIC);
	req_reset(r, call, q);
	r->begin_ns = eng_now(e);
	r->wall_ms = eng_wall(e);
	mkv_list_push_tail(&e->all, &r->all);
	e->at_work++;
	e->active[call->client]++;
	r->err = req_check(r, &op);
	if (r->err == MKV_E_PROTO)
		ENG_COUNT(e, requests_bad_total, 1);
	r->step = r->err != 0 ? req_refuse : op->step;
	req_wake(r);
	return (0);
}

static struct mkv_list *
req_lock_bucket(struct mkv_engine *e, struct mkv_digest d)
{
	return (&e->lock[(d.lo >> 32) % LOCK_BUCKETS]);
}

int
req_lock(struct mkv_req *r)
{
	struct mkv_list *b = req_lock_bucket(r->e, r->q.digest);

	if (r->lock == 2)
		return (1);
	MKV_ASSERT(r->lock == 0);
	r->lock = 2;
	MKV_LIST_FOREACH(l, b) {
		if (mkv_digest_eq(MKV_CONTAINER_OF(l, struct mkv_req, lock_link)->q.digest, r->q.digest)) {
			r->lock = 1;
			break;
		}
	}
	mkv_list_push_tail(b, &r->lock_link);
	if (r->lock == 1)
		req_park(r, NULL);
	return (r->lock == 2);
}

void
req_unlock(struct mkv_req *r)
{
	int had = r->lock == 2;

	mkv_list_remove(&r->lock_link);
	r->lock = 0;
	if (!had)
		return;
	MKV_LIST_FOREACH(l, req_lock_bucket(r->e, r->q.digest)) {
		struct mkv_req *n = MKV_CONTAINER_OF(l, struct mkv_req, lock_link);

		if (mkv_digest_eq(n->q.digest, r->q.digest)) {
			MKV_ASSERT(n->lock == 1);
			n->lock = 2;
			req_wake(n);
			return;
		}
	}
}

int
req_locked(struct mkv_engine *e, struct mkv_digest d)
{
	MKV_LIST_FOREACH(l, req_lock_bucket(e, d)) {
		if (mkv_digest_eq(MKV_CONTAINER_OF(l, struct mkv_req, lock_link)->q.digest, d))
			return (1);
	}
	return (0);
}

uint32_t
req_find(struct mkv_req *r, unsigned *reason)
{
	struct mkv_engine *e = r->e;
	uint32_t i = mkv_index_find(&e->ix, r->q.digest);
	struct mkv_ent *en;

	if (i == MKV_ENT_NIL) {
		*reason = eng_ghost_reason(e, r->q.digest);
		return (i);
	}
	en = eng_ent(e, i);
	*reason = MKV_REASON_NEVER;
	if (!!(en->flags & MKV_ENT_PIECE) != !!(r->q.flags & MKV_DRV_F_PIECE))
		return (MKV_ENT_NIL);
	if (ns_purged(e, en)) {
		*reason = MKV_REASON_DELETED;
		return (MKV_ENT_NIL);
	}
	if (ent_expired(e, en, r->wall_ms)) {
		*reason = MKV_REASON_EXPIRED;
		if (r->lock != 2 && !req_locked(e, en->digest))
			(void)evict_one(e, i, MKV_REASON_EXPIRED);
		return (MKV_ENT_NIL);
	}
	return (i);
}

uint64_t
req_phys(const struct mkv_engine *e, const struct mkv_run *run, unsigned n, uint64_t pos, uint64_t *left)
{
	for (unsigned i = 0; i < n; i++) {
		uint64_t bytes = (uint64_t)run[i].len * e->sb.unit_bytes;

		if (pos < bytes) {
			*left = bytes - pos;
			return (e->sb.data_off + (uint64_t)run[i].off * e->sb.unit_bytes + pos);
		}
		pos -= bytes;
	}
	MKV_ASSERT(!"position inside the runs");
	return (0);
}

static struct req_buf *
req_buf_at(struct mkv_req *r, uint64_t *pos)
{
	for (unsigned i = 0; i < r->q.n_bufs; i++) {
		if (*pos < r->buf[i].bytes)
			return (&r->buf[i]);
		*pos -= r->buf[i].bytes;
	}
	MKV_ASSERT(!"position inside the buffers");
	return (NULL);
}

uint8_t *
req_at(struct mkv_req *r, uint64_t pos, uint64_t *len)
{
	struct req_buf *b = req_buf_at(r, &pos);

	*len = b->bytes - pos;
	return (b->ptr + pos);
}

/*
 * A device that protects what it moves refuses a write whose bytes change meanwhile: of memory that a client can change that says nothing about the medium. What does is the
 * same put by the stage, which comes next.
 */
static void
req_dio_failed(struct mkv_req *r, const struct dio *d, int err)
{
	struct mkv_engine *e = r->e;

	if (r->x.write && r->region != 0) {
		ENG_COUNT(e, region_write_errors_total, 1);
		return;
	}
	mkv_metric_add(e->o.metrics, r->x.write ? MKV_M_drive_write_errors_total : MKV_M_drive_read_errors_total, 0, 1);
	mkv_log(r->x.write ? MKV_EV_DRIVE_WRITE_FAILED : MKV_EV_DRIVE_READ_FAILED, "drive=%s err=\"%s\"", e->o.name, mkv_err(err));
	fail_note(e, r->x.write ? MKV_FAIL_WRITE : MKV_FAIL_READ, d->off, d->bytes, err, 0);
}

static void
req_on_dio(struct mkv_mio *mio, int res)
{
	struct dio *d = MKV_CONTAINER_OF(mio, struct dio, mio);
	struct mkv_req *r = d->r;
	struct mkv_engine *e = r->e;
	uint64_t took_ns = eng_now(e) - d->begin_ns;

	MKV_CHECK_OBJ(r, MKV_REQ_MAGIC);
	MKV_ASSERT(r->x.in_flight > 0);
	mkv_metric_time(e->o.metrics, r->x.write ? MKV_M_drive_write_seconds : MKV_M_drive_read_seconds, took_ns);
	fail_slow(e, d, res, d->begin_ns + took_ns);
	d->r = NULL;
	d->next = e->dio_free;
	e->dio_free = d;
	e->dios_used--;
	r->x.in_flight--;
	sched_done(e, r, took_ns);
	if (res != 0) {
		req_dio_failed(r, d, res);
		req_xfer_cut(r, 0);
		r->x.err = res;
	}
	if (r->x.in_flight == 0 && r->x.pos >= r->x.end) {
		follow_end(r);
		req_wake(r);
	}
	sched_pump(e);
}

static void
req_dio(struct mkv_req *r, uint8_t *mem, uint32_t bytes, uint64_t off, int idx)
{
	struct mkv_engine *e = r->e;
	struct dio *d = e->dio_free;

	e->dio_free = d->next;
	e->dios_used++;
	d->r = r;
	d->begin_ns = eng_now(e);
	d->off = off;
	d->bytes = bytes;
	d->slow = 0;
	if (!r->begun)
		mkv_metric_time(e->o.metrics, MKV_M_drive_queue_seconds, d->begin_ns - r->begin_ns);
	r->begun = 1;
	d->mio.done = req_on_dio;
	r->x.in_flight++;
	if (r->x.write) {
		ENG_COUNT(e, writes_total, 1);
		ENG_COUNT(e, write_bytes_total, bytes);
		sched_write(e, MKV_IO_PUT, &d->mio, mem, bytes, off, idx);
	} else {
		ENG_COUNT(e, reads_total, 1);
		ENG_COUNT(e, read_bytes_total, bytes);
		sched_read(e, MKV_IO_GET, &d->mio, mem, bytes, off, idx);
	}
}

uint32_t
req_piece(struct mkv_req *r, uint32_t most)
{
	struct xfer *x = &r->x;
	uint64_t left_run, left_mem = UINT64_MAX, off, n, pos = x->pos - x->base;
	struct req_buf *b;
	uint8_t *mem;
	int idx = -1;

	MKV_ASSERT(x->pos < x->end);
	off = req_phys(r->e, r->run, r->n_runs, x->pos, &left_run);
	if (x->one != NULL)
		mem = x->one + pos;
	else {
		b = req_buf_at(r, &pos);
		mem = b->ptr + pos;
		left_mem = b->bytes - pos;
		idx = b->idx;
	}
	n = MKV_MIN(MKV_MIN(MKV_MIN(left_run, left_mem), x->end - x->pos), most);
	x->pos += n;
	req_dio(r, mem, (uint32_t)n, off, idx);
	return ((uint32_t)n);
}

/* Move [pos, end) of the object (multiples of 4096); its byte `base` lies at the beginning of the buffers, or of `one`. Wakes r at the end. */
void
req_xfer(struct mkv_req *r, int write, uint64_t pos, uint64_t end, uint64_t base, uint8_t *one)
{
	MKV_ASSERT(r->x.in_flight == 0 && r->leader == NULL);
	MKV_ASSERT(pos % MKV_BLOCK == 0 && end % MKV_BLOCK == 0 && base <= pos);
	r->x = (struct xfer){ .write = write, .pos = pos, .end = end, .base = base, .one = one };
	if (pos < end)
		sched_queue(r);
}

void
req_xfer_cut(struct mkv_req *r, int err)
{
	mkv_list_remove(&r->io_link);
	r->x.pos = r->x.end;
	if (err != 0)
		r->err = err;
}

static int
req_late(const struct mkv_req *r, uint64_t now)
{
	return (r->gone || (r->q.deadline_ns != 0 && now >= r->q.deadline_ns));
}

/* A late one whose bytes are not under way: it has none to wait for. */
static void
req_sweep_moving(struct mkv_req *r)
{
	int err = r->gone ? MKV_E_CANCELLED : MKV_E_TIMEOUT;

	if (r->leader != NULL)
		follow_leave(r, err);
	else if (r->x.pos < r->x.end) {
		req_xfer_cut(r, err);
		if (r->x.in_flight > 0)
			return;
		follow_end(r);
		req_wake(r);
	}
}

/* Deadlines and dead clients, for those that wait for something other than the medium. */
void
req_sweep(struct mkv_engine *e, uint64_t now)
{
	unsigned parked = 0;

	MKV_LIST_FOREACH(l, &e->all) {
		struct mkv_req *r = MKV_CONTAINER_OF(l, struct mkv_req, all);

		if (!r->parked) {
			if (req_late(r, now))
				req_sweep_moving(r);
			continue;
		}
		parked++;
		if (req_late(r, now)) {
			r->err = r->gone ? MKV_E_CANCELLED : MKV_E_TIMEOUT;
			req_wake(r);
		}
	}
	fail_watch(e, now);
	mkv_metric_set(e->o.metrics, MKV_M_drive_parked, 0, parked);
}

static void
req_drop_txns(struct mkv_engine *e, uint32_t client)
{
	for (uint32_t i = 0; i < TXNS_MAX; i++) {
		struct txn *t = &e->txn[i];

		if (t->used && t->client == client)
			put_txn_drop(e, t);
	}
}

void
mkv_engine_client_gone(struct mkv_engine *e, uint32_t client)
{
	MKV_CHECK_OBJ(e, MKV_ENGINE_MAGIC);
	MKV_ASSERT(client < MKV_ENGINE_CLIENTS_MAX);
	for (uint32_t i = 0; i < HOLDS_MAX; i++) {
		if (e->hold[i].ent != MKV_ENT_NIL && e->hold[i].client == client)
			hold_drop(e, i);
	}
	req_drop_txns(e, client);
	openset_client_gone(e, client);
	MKV_LIST_FOREACH(l, &e->all) {
		struct mkv_req *r = MKV_CONTAINER_OF(l, struct mkv_req, all);

		if (r->call.client != client)
			continue;
		r->gone = 1;
		if (r->parked) {
			r->err = MKV_E_CANCELLED;
			req_wake(r);
		}
	}
	if (e->active[client] == 0) {
		e->o.ops->client_done(e->o.arg, client);
		return;
	}
	e->gone[client] = 1;
}
