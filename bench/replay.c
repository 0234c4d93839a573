/*
 * Replay of a trace, as an inference engine would use the store. One thread, one driver instance.
 *
 * For each request: MATCH the chain of its blocks, GET the blocks of the prefix that is there (checked with --verify), PUT the rest. A block
 * is a hit if it arrived and all blocks before it did.
 *
 *	WAITING --due--> MATCH --answer--> GET --last get back--> PUT --last put back--> free
 *	                  |  nothing there: straight to PUT; all there: no PUT
 *
 * Block transfers of all requests share `--concurrency` buffers; requests are served in the order of the trace. With --requests 1 (the
 * default of the closed loop) the blocks of a request are all answered before the next request asks, so the hit ratio of a store that loses
 * nothing is the trace's own.
 */
#include "config.h"
#include "bench/bench_priv.h"

#include <stdlib.h>
#include <string.h>

#include "bench/gen.h"
#include "bench/trace.h"
#include "common/base/assert.h"
#include "common/base/clock.h"
#include "common/base/err.h"
#include "common/base/list.h"
#include "common/base/units.h"

#define REPLAY_DRAIN_MAX	64u
#define REPLAY_WAIT_US		100000u
#define REPLAY_SILENT_NS	(5 * MKV_NS_PER_SEC)
#define REPLAY_OPEN_REQUESTS	64u
#define REPLAY_REQUESTS_MAX	4096u
#define REPLAY_BEHIND		(BENCH_REASONS_MAX - 1)	/* "behind_a_miss" */

enum replay_state { REPLAY_FREE, REPLAY_MATCH, REPLAY_GET, REPLAY_PUT };

struct replay_request {
	struct mkv_list	link;			/* of the active ones, in the order of the trace */
	enum replay_state state;
	const struct mkv_trace_request *tr;
	unsigned	next, end;		/* blocks of this state that are still to start: [next, end) */
	unsigned	good;			/* blocks that arrived without a gap so far known */
	unsigned	out;			/* transfers in flight */
	unsigned	reason;			/* of the first miss */
	uint64_t	due_ns, began_ns;
	struct bench_io	match;
	struct mkv_key	*keys;			/* room for the longest chain */
	char		(*text)[BENCH_KEY_BYTES];
};

struct replay_xfer {
	struct replay_xfer *next_free;
	struct replay_request *rq;
	unsigned	block;
	uint64_t	began_ns;
	struct bench_io	io;
	unsigned char	*buf;
};

struct replay {
	const struct bench_params *p;
	struct bench_result *res;
	struct bench_stats *stats;
	struct bench_replay_result *out;
	struct mkv_trace trace;
	struct bench_drv *drv;
	struct replay_request *rq;
	struct replay_xfer *xfer, *xfer_free;
	struct mkv_list	active, idle;
	unsigned	n_rq, n_active, chain_max;
	uint64_t	next_request, room, start_ns, last_good_ns;
	struct bench_io	*late, **late_tail;
	void		*values;
	int		stop;
};

/* Nothing new is started: what is in flight comes back, and that is all. */
static int
replay_cut(const struct replay *rp)
{
	return (rp->stop || bench_interrupted());
}

/* ---- requests to the driver ---- */

static void
replay_submit(struct replay *rp, struct bench_io *io)
{
	if (rp->late == NULL && rp->drv->ops->submit(rp->drv, io) == 0)
		return;
	io->next = NULL;
	*rp->late_tail = io;
	rp->late_tail = &io->next;
}

static void
replay_late_submit(struct replay *rp)
{
	struct bench_io *io;

	while ((io = rp->late) != NULL) {
		if (rp->drv->ops->submit(rp->drv, io) != 0)
			return;
		rp->late = io->next;
		if (rp->late == NULL)
			rp->late_tail = &rp->late;
	}
}

static void
replay_match_start(struct replay *rp, struct replay_request *rq)
{
	for (unsigned i = 0; i < rq->tr->n; i++) {
		rq->keys[i].data = rq->text[i];
		rq->keys[i].bytes = bench_key(rq->text[i], 'b', rp->p->seed, rp->trace.id[rq->tr->first + i]);
	}
	rq->state = REPLAY_MATCH;
	rq->began_ns = mkv_now_ns();
	rq->match = (struct bench_io){ .op = BENCH_MATCH, .keys = rq->keys, .n_keys = rq->tr->n, .deadline_us = rp->p->deadline_us, .user = rq };
	replay_submit(rp, &rq->match);
}

static void
replay_block_start(struct replay *rp, struct replay_request *rq)
{
	struct replay_xfer *x = rp->xfer_free;
	int put = rq->state == REPLAY_PUT;

	rp->xfer_free = x->next_free;
	x->rq = rq;
	x->block = rq->next++;
	rq->out++;
	x->io = (struct bench_io){ .op = put ? BENCH_PUT : BENCH_GET, .keys = &rq->keys[x->block], .n_keys = 1, .buf = x->buf,
		.bytes = put ? rp->p->block_bytes : rp->room, .deadline_us = rp->p->deadline_us, .user = x };
	if (put && rp->p->verify)
		mkv_gen_fill(x->buf, rp->p->block_bytes, rp->p->seed, rp->trace.id[rq->tr->first + x->block], 0);
	else if (put)
		mkv_gen_stamp(x->buf, rp->p->block_bytes, rp->p->seed, rp->trace.id[rq->tr->first + x->block], 0);
	x->began_ns = mkv_now_ns();
	replay_submit(rp, &x->io);
}

/* ---- the way of a request ---- */

static void
replay_miss(struct replay *rp, const struct replay_request *rq)
{
	unsigned n = rq->tr->n - rq->good;

	bench_add(&rp->stats->hits, rq->good);
	if (n == 0)
		return;
	bench_add(&rp->stats->misses, n);
	bench_add(&rp->stats->miss_by[MKV_MIN(rq->reason, REPLAY_BEHIND - 1)], 1);
	bench_add(&rp->stats->miss_by[REPLAY_BEHIND], n - 1);
}

static void
replay_release(struct replay *rp, struct replay_request *rq)
{
	rq->state = REPLAY_FREE;
	rp->n_active--;
	mkv_list_remove(&rq->link);
	mkv_list_push_tail(&rp->idle, &rq->link);
}

static void
replay_finish(struct replay *rp, struct replay_request *rq)
{
	uint64_t now = mkv_now_ns();

	mkv_hist_add(&rp->out->request, now - rq->due_ns);
	mkv_hist_add(&rp->stats->latency, now - rq->due_ns);
	bench_add(&rp->out->requests, 1);
	replay_release(rp, rq);
}

/* Called whenever nothing of the request's state is left to start or in flight. */
static void
replay_next_state(struct replay *rp, struct replay_request *rq)
{
	if (rq->state == REPLAY_GET) {
		replay_miss(rp, rq);
		rq->state = REPLAY_PUT;
		rq->next = rq->good;
		rq->end = rq->tr->n;
		if (rq->next < rq->end)
			return;
	}
	if (rq->state == REPLAY_PUT)
		replay_finish(rp, rq);
}

static void
replay_error(struct replay *rp, const struct bench_io *io, const char *what, uint64_t now)
{
	char key[BENCH_KEY_BYTES];

	snprintf(key, sizeof(key), "%.*s", (int)io->keys[0].bytes, (const char *)io->keys[0].data);
	bench_count_error(rp->res, (int)io->result, what, key);
	if (now - rp->last_good_ns > REPLAY_SILENT_NS + rp->p->deadline_us * MKV_NS_PER_US)
		rp->stop = 1;
}

static void
replay_matched(struct replay *rp, struct replay_request *rq, uint64_t now)
{
	int64_t m = rq->match.result;

	if (m < 0) {
		replay_error(rp, &rq->match, "match", now);
		m = 0;
	} else {
		rp->last_good_ns = now;
		mkv_hist_add(&rp->out->match, now - rq->began_ns);
	}
	rq->state = REPLAY_GET;
	rq->reason = rq->match.reason;
	rq->next = 0;
	rq->end = rq->good = (unsigned)MKV_MIN(m, (int64_t)rq->tr->n);
	if (rq->end == 0)
		replay_next_state(rp, rq);
}

static void
replay_wrong(struct replay *rp, const struct replay_xfer *x, size_t where)
{
	bench_add(&rp->stats->verify_failures, 1);
	if (rp->res->first_error[0] == '\0')
		snprintf(rp->res->first_error, sizeof(rp->res->first_error), "wrong bytes of key %s at offset %zu of %lld", x->rq->text[x->block],
		    where, (long long)x->io.result);
}

/* A block arrived, or did not: then nothing from it on counts as a hit. */
static void
replay_got(struct replay *rp, struct replay_xfer *x, uint64_t now)
{
	const struct bench_params *p = rp->p;
	struct replay_request *rq = x->rq;
	size_t where = 0;

	if (x->io.result < 0) {
		if (x->io.result != MKV_ERR_MISS)
			replay_error(rp, &x->io, "get", now);
		else if (p->verify && (x->io.reason == MKV_REASON_CORRUPT || x->io.reason == MKV_REASON_LOST))
			replay_wrong(rp, x, 0);		/* it was acknowledged and matched */
		if (x->block < rq->good) {
			rq->good = x->block;
			rq->reason = x->io.reason;
		}
		return;
	}
	mkv_hist_add(&rp->out->get, now - x->began_ns);
	bench_add(&rp->out->got_blocks, 1);
	bench_add(&rp->out->got_bytes, (uint64_t)x->io.result);
	bench_add(&rp->stats->bytes, (uint64_t)x->io.result);
	if (!p->drv->keeps_values)
		return;
	if ((uint64_t)x->io.result != p->block_bytes || mkv_gen_check(x->buf, p->block_bytes, p->seed,
	    rp->trace.id[rq->tr->first + x->block], 0, p->verify, &where) != MKV_GEN_GOOD)
		replay_wrong(rp, x, where);
}

static void
replay_put_done(struct replay *rp, struct replay_xfer *x, uint64_t now)
{
	if (x->io.result < 0) {
		replay_error(rp, &x->io, "put", now);
		return;
	}
	mkv_hist_add(&rp->out->put, now - x->began_ns);
	bench_add(&rp->out->put_blocks, 1);
	bench_add(&rp->out->put_bytes, rp->p->block_bytes);
	bench_add(&rp->stats->bytes, rp->p->block_bytes);
}

static void
replay_io_done(struct replay *rp, struct bench_io *io, uint64_t now)
{
	struct replay_xfer *x;
	struct replay_request *rq;

	if (io->op == BENCH_MATCH) {
		replay_matched(rp, io->user, now);
		return;
	}
	x = io->user;
	rq = x->rq;
	if (io->op == BENCH_GET)
		replay_got(rp, x, now);
	else
		replay_put_done(rp, x, now);
	if (io->result >= 0 || io->result == MKV_ERR_MISS) {
		rp->last_good_ns = now;
		bench_add(&rp->stats->ops, 1);
	}
	x->next_free = rp->xfer_free;
	rp->xfer_free = x;
	if (--rq->out == 0 && rq->next == rq->end && !replay_cut(rp))
		replay_next_state(rp, rq);
}

/* ---- the loop ---- */

static int
replay_over(const struct replay *rp)
{
	return (replay_cut(rp) || rp->next_request == rp->trace.n_req);
}

static uint64_t
replay_due_ns(const struct replay *rp)
{
	return (rp->start_ns + (uint64_t)((double)rp->trace.req[rp->next_request].at_us * 1000 / rp->p->speed));
}

static void
replay_start_due(struct replay *rp)
{
	uint64_t now = mkv_now_ns(), due;
	struct replay_request *rq;

	while (!replay_over(rp) && !mkv_list_empty(&rp->idle)) {
		due = rp->p->speed > 0 ? replay_due_ns(rp) : now;
		if (due > now)
			return;
		rq = MKV_CONTAINER_OF(mkv_list_pop(&rp->idle), struct replay_request, link);
		mkv_list_push_tail(&rp->active, &rq->link);
		rp->n_active++;
		rq->tr = &rp->trace.req[rp->next_request++];
		rq->due_ns = due;
		replay_match_start(rp, rq);
	}
}

static void
replay_start_blocks(struct replay *rp)
{
	MKV_LIST_FOREACH_SAFE (it, tmp, &rp->active) {
		struct replay_request *rq = MKV_CONTAINER_OF(it, struct replay_request, link);

		if (replay_cut(rp) && rq->state != REPLAY_MATCH) {
			rq->end = rq->next;		/* what is in flight comes back, the rest stays undone and uncounted */
			if (rq->out == 0)
				replay_release(rp, rq);
			continue;
		}
		while (rq->state != REPLAY_MATCH && rq->next < rq->end && rp->xfer_free != NULL)
			replay_block_start(rp, rq);
		if (rp->xfer_free == NULL)
			return;
	}
}

static uint64_t
replay_wait_us(const struct replay *rp)
{
	uint64_t now, due;

	if (replay_over(rp) || rp->p->speed <= 0 || mkv_list_empty(&rp->idle))
		return (REPLAY_WAIT_US);
	now = mkv_now_ns();
	due = replay_due_ns(rp);
	return (due <= now ? 0 : MKV_MIN((due - now) / MKV_NS_PER_US, REPLAY_WAIT_US));
}

static void
replay_loop(struct replay *rp)
{
	struct bench_io *done[REPLAY_DRAIN_MAX];
	uint64_t now;
	unsigned n;

	for (;;) {
		replay_late_submit(rp);
		replay_start_due(rp);
		replay_start_blocks(rp);
		if (rp->n_active == 0 && replay_over(rp))
			return;
		rp->drv->ops->wait(rp->drv, replay_wait_us(rp));
		n = rp->drv->ops->drain(rp->drv, done, REPLAY_DRAIN_MAX);
		now = mkv_now_ns();
		for (unsigned i = 0; i < n; i++)
			replay_io_done(rp, done[i], now);
	}
}

/* ---- making, checking, ending ---- */

static int
replay_requests_make(struct replay *rp)
{
	struct replay_request *rq;

	for (uint64_t i = 0; i < rp->trace.n_req; i++)
		rp->chain_max = MKV_MAX(rp->chain_max, rp->trace.req[i].n);
	rp->rq = calloc(rp->n_rq, sizeof(*rp->rq));
	for (unsigned i = 0; rp->rq != NULL && i < rp->n_rq; i++) {
		rq = &rp->rq[i];
		rq->keys = calloc(rp->chain_max, sizeof(*rq->keys));
		rq->text = calloc(rp->chain_max, sizeof(*rq->text));
		if (rq->keys == NULL || rq->text == NULL)
			return (MKV_ERR_NOMEM);
		mkv_list_push_tail(&rp->idle, &rq->link);
	}
	return (rp->rq != NULL ? 0 : MKV_ERR_NOMEM);
}

static int
replay_xfers_make(struct replay *rp)
{
	uint64_t bytes = rp->p->concurrency * rp->room;
	void *block = NULL;

	if (rp->drv->ops->alloc != NULL)
		block = rp->drv->ops->alloc(rp->drv, bytes);
	else if (posix_memalign(&rp->values, 4096, bytes) == 0)
		block = rp->values;
	rp->xfer = calloc(rp->p->concurrency, sizeof(*rp->xfer));
	if (block == NULL || rp->xfer == NULL)
		return (MKV_ERR_NOMEM);
	mkv_gen_fill(block, bytes, rp->p->seed, 0, 0);
	for (uint64_t i = 0; i < rp->p->concurrency; i++) {
		rp->xfer[i].buf = (unsigned char *)block + i * rp->room;
		rp->xfer[i].next_free = rp->xfer_free;
		rp->xfer_free = &rp->xfer[i];
	}
	return (0);
}

/* With --capacity-of-distinct: does the server hold what the result will claim? Within 10 %. */
static int
replay_capacity(struct replay *rp, char *why, size_t why_bytes)
{
	double pct = rp->p->capacity_pct, want = pct / 100 * (double)rp->trace.distinct * (double)rp->p->block_bytes;
	struct bench_drv_info info = { 0 };
	char a[32], b[32];

	if (pct <= 0)
		return (0);
	rp->out->capacity_bytes = (uint64_t)want;
	printf("capacity: %.3g %% of %llu distinct blocks of %llu bytes are %s\n", pct, (unsigned long long)rp->trace.distinct,
	    (unsigned long long)rp->p->block_bytes, mkv_size_human(a, sizeof(a), (uint64_t)want));
	if (rp->drv->ops->info == NULL || rp->drv->ops->info(rp->drv, &info) != 0 || info.total_bytes == 0) {
		printf("capacity: %s does not say how much it holds\n", rp->p->drv->name);
		return (0);
	}
	rp->out->server_bytes = info.total_bytes;
	if ((double)info.total_bytes >= want * 0.9 && (double)info.total_bytes <= want * 1.1)
		return (0);
	snprintf(why, why_bytes, "the server holds %s where --capacity-of-distinct means %s: start it with --set 'storage.drives=[{media: FILE, "
	    "max_size: %llu}]', or choose --block-bytes or --limit to fit", mkv_size_human(b, sizeof(b), info.total_bytes), a,
	    (unsigned long long)want);
	return (MKV_ERR_CONFIG);
}

static int
replay_make(struct replay *rp, char *why, size_t why_bytes)
{
	const struct bench_params *p = rp->p;
	struct bench_drv_opts o;
	int r;

	r = mkv_trace_load(&rp->trace, p->trace, p->limit, why, why_bytes);
	if (r != 0)
		return (r);
	rp->out->requests_total = rp->trace.n_req;
	rp->out->blocks = rp->trace.n_ids;
	rp->out->distinct = rp->trace.distinct;
	rp->out->ceiling_hits = rp->trace.ceiling_hits;
	rp->room = MKV_ALIGN_UP(p->block_bytes, 4096);
	rp->n_rq = (unsigned)MKV_MIN(p->requests > 0 ? p->requests : p->speed > 0 ? REPLAY_OPEN_REQUESTS : 1, REPLAY_REQUESTS_MAX);
	bench_drv_opts(p, &o, p->concurrency + rp->n_rq, p->block_bytes);
	r = p->drv->open(&rp->drv, &o, why, why_bytes);
	if (r == 0 && ((r = replay_requests_make(rp)) != 0 || (r = replay_xfers_make(rp)) != 0))
		snprintf(why, why_bytes, "no memory for %llu blocks in flight: lower --concurrency or --block-bytes", (unsigned long long)p->concurrency);
	return (r != 0 ? r : replay_capacity(rp, why, why_bytes));
}

static void
replay_free(struct replay *rp)
{
	if (rp->drv != NULL)
		rp->drv->ops->close(rp->drv);
	for (unsigned i = 0; rp->rq != NULL && i < rp->n_rq; i++) {
		free(rp->rq[i].keys);
		free(rp->rq[i].text);
	}
	free(rp->rq);
	free(rp->xfer);
	free(rp->values);
	mkv_trace_free(&rp->trace);
}

static void
replay_measured(struct replay *rp)
{
	pid_t pids[BENCH_PIDS_MAX];
	unsigned n_pids = bench_server_pids(rp->p, pids);
	double server0 = bench_cpu_of(pids, n_pids), client0 = (double)mkv_cpu_ns() / 1e9;
	struct bench_drv_info info = { 0 };
	struct bench_progress *pr;

	pr = bench_progress_start(rp->stats, &rp->out->requests, rp->trace.n_req, !rp->p->quiet);
	rp->start_ns = rp->last_good_ns = mkv_now_ns();
	replay_loop(rp);
	rp->res->seconds = (double)(mkv_now_ns() - rp->start_ns) / 1e9;
	bench_progress_stop(pr);
	rp->res->client_cpu_s = (double)mkv_cpu_ns() / 1e9 - client0;
	rp->res->server_cpu_s = server0 < 0 ? -1 : MKV_MAX(bench_cpu_of(pids, n_pids) - server0, 0);
	rp->res->interrupted = bench_interrupted();
	if (rp->drv->ops->info != NULL && rp->drv->ops->info(rp->drv, &info) == 0)
		memcpy(rp->res->transport, info.transport, sizeof(rp->res->transport));
}

int
bench_replay(const struct bench_params *p, struct bench_result *res, char *why, size_t why_bytes)
{
	struct replay rp = { .p = p, .res = res, .stats = res->stats, .out = res->replay };
	int r;

	rp.late_tail = &rp.late;
	mkv_list_init(&rp.active);
	mkv_list_init(&rp.idle);
	r = replay_make(&rp, why, why_bytes);
	if (r == 0) {
		replay_measured(&rp);
		if (rp.stop) {
			snprintf(why, why_bytes, "nothing but failures for seconds, gave up (%s)", res->first_error);
			r = MKV_ERR_UNREACHABLE;
		}
	}
	replay_free(&rp);
	return (r);
}
