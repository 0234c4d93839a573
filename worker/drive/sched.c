/*
 * Foreground first: whose turn it is at the medium. Drive's loop thread; owns counters only.
 *
 *   FIRST   journal     given to the medium at once: puts wait for it
 *   FRONT   get, put    requests: transfers in pieces, small reads before the others, large reads and writes by turns and within a window
 *   BACK    the rest    a piece at a time, when sched_may() says so: nothing of requests under way for a moment, or within its share of the bytes
 *                       they move, or after its patience ended: nothing starves
 *
 * The window is as small as the medium's latency asks for: when pieces of reads take several times what they take alone, less is given to it at once,
 * and what waits, waits here, where a small read can pass. One piece of each queue is always under way: nothing starves, whatever the window.
 *
 * A checkpoint that the journal waits for does not ask (ckpt.c). Memory has no queue that anybody could wait in: everything may, nothing is counted.
 */
#include "config.h"

#include "worker/drive/engine_priv.h"

#define SCHED_QUIET_NS		(1 * MKV_NS_PER_MS)	/* so long after the last request's I/O the drive counts as quiet */
#define SCHED_BACK_BYTES	(256u * 1024)		/* of all background work, under way beside requests */
#define SCHED_QUIET_BYTES	(4u << 20)		/* and on a quiet drive */
#define SCHED_CREDIT_MAX	(512u * 1024)
#define SCHED_SMALL_BYTES	(256u * 1024)		/* a read of no more is small */
#define SCHED_PIECE_MIN		65536u
#define SCHED_PIECE_PART	8u			/* of an extent */
#define SCHED_WINDOW_MIN	(1u << 20)
#define SCHED_WINDOW_MAX	(16u << 20)
#define SCHED_WINDOW_STEP	(256u * 1024)
#define SCHED_PERIOD_NS		(10 * MKV_NS_PER_MS)
#define SCHED_SLOWER		4u			/* times its time alone: too much is under way */
#define SCHED_FLOOR_NS		(100 * MKV_NS_PER_US)	/* no reason to wait below this */
#define SCHED_DIOS_KEPT		16u			/* for small reads */
#define SCHED_TRIM_BYTES	65536u			/* what a discard counts as: it moves nothing, but it keeps the device busy */

enum sched_kind { FIRST, FRONT, BACK };

static const struct sched_row {
	enum sched_kind	kind;
	unsigned	share;
	uint64_t	patience_ns;
} sched_row[MKV_IO_CLASSES] = {
#define MKV_IOCLASS(name, num, label, kind, share, patience_ms, text)	[num] = { kind, share, patience_ms * MKV_NS_PER_MS },
#include "common/tbl/ioclasses.def"
#undef MKV_IOCLASS
};

static uint32_t
sched_cost(enum mkv_io_class c, uint32_t bytes)
{
	return (c == MKV_IO_TRIM ? SCHED_TRIM_BYTES : MKV_MIN(bytes, SCHED_BACK_BYTES));
}

static uint64_t
sched_back_bytes(const struct sched *s)
{
	uint64_t bytes = 0;

	for (unsigned c = 0; c < MKV_IO_CLASSES; c++)
		bytes += sched_row[c].kind == BACK ? s->c[c].bytes : 0;
	return (bytes);
}

static int
sched_busy(const struct sched *s, uint64_t now)
{
	return (s->c[MKV_IO_GET].in_flight + s->c[MKV_IO_PUT].in_flight > 0 || now - s->front_ns < SCHED_QUIET_NS);
}

int
sched_may(struct mkv_engine *e, enum mkv_io_class c, uint32_t bytes)
{
	struct sched *s = &e->sched;
	struct sched_class *k = &s->c[c];
	uint32_t cost = sched_cost(c, bytes);
	uint64_t now, back;
	int busy;

	MKV_ASSERT(sched_row[c].kind == BACK);
	if (e->o.media->shared)
		return (1);
	now = eng_now(e);
	busy = sched_busy(s, now);
	back = sched_back_bytes(s);
	/* The end of what is under way turns the loop. */
	if (back > 0 && back + cost > (busy ? SCHED_BACK_BYTES : SCHED_QUIET_BYTES))
		return (0);
	if (!busy || k->credit >= cost)
		return (1);
	if (k->turn_ns == 0)
		k->turn_ns = now;
	if (now - k->turn_ns >= sched_row[c].patience_ns)
		return (1);
	s->wake_ns = MKV_MIN(s->wake_ns, MKV_MIN(k->turn_ns + sched_row[c].patience_ns, MKV_MAX(now, s->front_ns) + SCHED_QUIET_NS));
	return (0);
}

void
sched_begin(struct mkv_engine *e, enum mkv_io_class c, uint32_t bytes)
{
	struct sched_class *k = &e->sched.c[c];
	uint32_t cost = sched_cost(c, bytes);

	mkv_metric_add(e->o.metrics, MKV_M_drive_io_total, c, 1);
	mkv_metric_add(e->o.metrics, MKV_M_drive_io_bytes_total, c, bytes);
	k->in_flight++;
	k->bytes += sched_row[c].kind == BACK ? cost : bytes;
	if (sched_row[c].kind != BACK)
		return;
	k->credit -= MKV_MIN(k->credit, cost);
	k->turn_ns = 0;
}

/* What requests moved gives background work the right to its share. */
static void
sched_earn(struct sched *s, uint32_t bytes)
{
	for (unsigned c = 0; c < MKV_IO_CLASSES; c++) {
		if (sched_row[c].kind == BACK)
			s->c[c].credit = MKV_MIN(s->c[c].credit + (uint64_t)bytes * sched_row[c].share / 100, SCHED_CREDIT_MAX);
	}
}

void
sched_end(struct mkv_engine *e, enum mkv_io_class c, uint32_t bytes)
{
	struct sched *s = &e->sched;
	struct sched_class *k = &s->c[c];
	uint64_t held = sched_row[c].kind == BACK ? sched_cost(c, bytes) : bytes;

	MKV_ASSERT(k->in_flight > 0 && k->bytes >= held);
	k->in_flight--;
	k->bytes -= held;
	if (sched_row[c].kind == FRONT) {
		s->front_ns = eng_now(e);
		sched_earn(s, bytes);
	}
}

static void
sched_on_done(struct mkv_mio *mio, int res)
{
	struct mkv_engine *e = mio->sched;

	mio->done = mio->then;
	sched_end(e, (enum mkv_io_class)mio->io_class, mio->sched_bytes);
	mio->done(mio, res);
}

static void
sched_note(struct mkv_engine *e, enum mkv_io_class c, struct mkv_mio *mio, uint32_t bytes)
{
	if (e->o.media->shared)
		return;
	sched_begin(e, c, bytes);
	mio->sched = e;
	mio->io_class = c;
	mio->sched_bytes = bytes;
	mio->then = mio->done;
	mio->done = sched_on_done;
}

void
sched_read(struct mkv_engine *e, enum mkv_io_class c, struct mkv_mio *mio, void *buf, uint32_t bytes, uint64_t off, int buf_idx)
{
	sched_note(e, c, mio, bytes);
	e->o.media->ops->read(e->o.media, mio, buf, bytes, off, buf_idx);
}

void
sched_write(struct mkv_engine *e, enum mkv_io_class c, struct mkv_mio *mio, const void *buf, uint32_t bytes, uint64_t off, int buf_idx)
{
	sched_note(e, c, mio, bytes);
	e->o.media->ops->write(e->o.media, mio, buf, bytes, off, buf_idx);
}

void
sched_flush(struct mkv_engine *e, enum mkv_io_class c, struct mkv_mio *mio)
{
	sched_note(e, c, mio, 0);
	e->o.media->ops->flush(e->o.media, mio);
}

void
sched_init(struct mkv_engine *e)
{
	for (unsigned k = 0; k < SCHED_QUEUES; k++)
		mkv_list_init(&e->sched.q[k].reqs);
	e->sched.window_bytes = SCHED_WINDOW_MAX;
}

/* As small as the latency asks for, as large as it allows: looked at when something ends, so an idle drive is not woken for it. */
static void
sched_adapt(struct sched *s, uint64_t now)
{
	int slow = 0;

	if (now - s->period_ns < SCHED_PERIOD_NS)
		return;
	s->period_ns = now;
	for (unsigned i = 0; i < 2; i++) {
		struct sched_pace *p = &s->pace[i];
		uint64_t mean;

		if (p->n == 0)
			continue;
		mean = p->sum_ns / p->n;
		/* It rises slowly, so that a medium that became slower is not held against its youth. */
		p->floor_ns = p->floor_ns == 0 || mean < p->floor_ns ? mean : p->floor_ns + p->floor_ns / 256 + 1;
		slow |= mean > SCHED_SLOWER * p->floor_ns + SCHED_FLOOR_NS;
		p->sum_ns = p->n = 0;
	}
	if (slow)
		s->window_bytes = MKV_MAX(s->window_bytes * 3 / 4, SCHED_WINDOW_MIN);
	else if (s->full)
		s->window_bytes = MKV_MIN(s->window_bytes + SCHED_WINDOW_STEP, SCHED_WINDOW_MAX);
	s->full = 0;
}

void
sched_done(struct mkv_engine *e, const struct mkv_req *r, uint64_t took_ns)
{
	struct sched *s = &e->sched;
	struct sched_queue *q = &s->q[r->x.queue];

	MKV_ASSERT(q->in_flight > 0);
	q->in_flight--;
	if (r->x.queue != SCHED_WRITE) {
		s->pace[r->x.queue].sum_ns += took_ns;
		s->pace[r->x.queue].n++;
	}
	sched_adapt(s, eng_now(e));
}

static int
sched_fits(const struct mkv_engine *e, unsigned k)
{
	const struct sched *s = &e->sched;

	if (mkv_list_empty(&s->q[k].reqs))
		return (0);
	if (k == SCHED_SMALL || s->q[k].in_flight == 0 || e->o.media->shared)
		return (1);
	return (e->dios_used + SCHED_DIOS_KEPT < e->dios && s->c[MKV_IO_GET].bytes + s->c[MKV_IO_PUT].bytes + s->piece_bytes <= s->window_bytes);
}

/* The queue whose turn it is, or SCHED_QUEUES. */
static unsigned
sched_pick(struct mkv_engine *e)
{
	struct sched *s = &e->sched;
	struct sched_queue *l = &s->q[SCHED_LARGE], *w = &s->q[SCHED_WRITE];
	int large = sched_fits(e, SCHED_LARGE), write = sched_fits(e, SCHED_WRITE);

	if (sched_fits(e, SCHED_SMALL))
		return (SCHED_SMALL);
	/* Who is alone owes nothing. */
	if (mkv_list_empty(&l->reqs) || mkv_list_empty(&w->reqs))
		l->deficit = w->deficit = 0;
	if (!large || !write) {
		s->full |= !large && !write && (!mkv_list_empty(&l->reqs) || !mkv_list_empty(&w->reqs));
		return (large ? SCHED_LARGE : write ? SCHED_WRITE : SCHED_QUEUES);
	}
	if (l->deficit <= 0 && w->deficit <= 0) {
		l->deficit += (int64_t)sched_row[MKV_IO_GET].share * s->piece_bytes;
		w->deficit += (int64_t)sched_row[MKV_IO_PUT].share * s->piece_bytes;
	}
	return (l->deficit > 0 ? SCHED_LARGE : SCHED_WRITE);
}

void
sched_pump(struct mkv_engine *e)
{
	struct sched *s = &e->sched;
	unsigned k;

	while (e->dio_free != NULL && (k = sched_pick(e)) != SCHED_QUEUES) {
		struct sched_queue *q = &s->q[k];
		struct mkv_req *r = MKV_CONTAINER_OF(q->reqs.next, struct mkv_req, io_link);
		uint64_t now = eng_now(e);

		mkv_metric_add(e->o.metrics, MKV_M_drive_io_waits_total, r->x.write ? MKV_IO_PUT : MKV_IO_GET, now - r->x.queued_ns >= MKV_NS_PER_MS);
		r->x.queued_ns = now;
		q->in_flight++;
		q->deficit = MKV_MAX(q->deficit - req_piece(r, s->piece_bytes), -(int64_t)sched_row[MKV_IO_GET].share * s->piece_bytes);
		if (r->x.pos >= r->x.end)
			mkv_list_remove(&r->io_link);
	}
}

void
sched_queue(struct mkv_req *r)
{
	struct mkv_engine *e = r->e;
	struct xfer *x = &r->x;

	e->sched.piece_bytes = e->o.media->shared ? UINT32_MAX & ~(MKV_BLOCK - 1u) : MKV_MAX(e->sb.extent_bytes / SCHED_PIECE_PART, SCHED_PIECE_MIN);
	x->queue = x->write ? SCHED_WRITE : x->end - x->pos <= SCHED_SMALL_BYTES ? SCHED_SMALL : SCHED_LARGE;
	x->queued_ns = eng_now(e);
	mkv_list_push_tail(&e->sched.q[x->queue].reqs, &r->io_link);
	sched_pump(e);
}

void
sched_turn(struct mkv_engine *e)
{
	e->sched.wake_ns = UINT64_MAX;
}

uint64_t
sched_next_ns(const struct mkv_engine *e)
{
	return (e->sched.wake_ns);
}

void
sched_gauges(struct mkv_engine *e)
{
	for (unsigned c = 0; c < MKV_IO_CLASSES; c++)
		mkv_metric_set(e->o.metrics, MKV_M_drive_io_in_flight, c, e->sched.c[c].in_flight);
}
