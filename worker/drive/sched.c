/*
 * Foreground first: whose turn it is at the medium. Drive's loop thread; owns counters only.
 *
 *   FIRST   journal     given to the medium at once: puts wait for it
 *   FRONT   get, put    requests
 *   BACK    the rest    a piece at a time, when sched_may() says so: nothing of requests under way for a moment, or within its share of the bytes
 *                       they move, or after its patience ended: nothing starves
 *
 * A checkpoint that the journal waits for does not ask (ckpt.c). Memory has no queue that anybody could wait in: everything may, nothing is counted.
 */
#include "config.h"

#include "worker/drive/engine_priv.h"

#define SCHED_QUIET_NS		(1 * MKV_NS_PER_MS)	/* so long after the last request's I/O the drive counts as quiet */
#define SCHED_BACK_BYTES	(256u * 1024)		/* of all background work, under way beside requests */
#define SCHED_QUIET_BYTES	(4u << 20)		/* and on a quiet drive */
#define SCHED_CREDIT_MAX	(512u * 1024)
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
