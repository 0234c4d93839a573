/*
 * The engine's end of the failure registry (failreg.h). Drive's loop thread; owns the rows and one block buffer.
 *
 *   fail_note(): a row changes, its block is due -> fail_step(): one block at a time, at most ten a second -> on the medium
 *   a drive that is about to be given up (its process is killed then) writes the rest without pauses: mkv_engine_failures_keep()
 *
 * No flush of its own: the next group's, or the close's, covers it. A write that fails is not tried again before another failure is noted, and that
 * it failed is noted nowhere. It goes on when the drive is read-only by a failure, for that is what people want to read about; it never writes to a
 * store that was opened to be looked at.
 *
 * drive.error_limit goes by places: a key that everybody asks for and that lies on one bad place, or a page with many records, is one failure however
 * often it is met, and a drive is not given up for it; one that fails here and there is. What clients say, and bytes that nobody proved, is not noted.
 */
#include "config.h"

#include <stdlib.h>
#include <string.h>

#include "common/base/err.h"
#include "worker/drive/engine_priv.h"

#define FAIL_PAUSE_NS	(100 * MKV_NS_PER_MS)
#define FAIL_PLACE_MS	60000u			/* the same place again, so soon: nothing new */

int
fail_init(struct mkv_engine *e)
{
	struct fails *f = &e->fl;

	f->row = calloc(MKV_FAIL_ROWS, sizeof(*f->row));
	if (posix_memalign((void **)&f->mem, MKV_BLOCK, MKV_BLOCK) != 0)
		f->mem = NULL;
	f->never_write = 1;			/* until fail_open() */
	return (f->row != NULL && f->mem != NULL ? 0 : MKV_E_NOMEM);
}

void
fail_fini(struct mkv_engine *e)
{
	free(e->fl.row);
	free(e->fl.mem);
}

static void
fail_gauges(struct mkv_engine *e)
{
	if (e->o.metrics == NULL)
		return;
	mkv_metric_set(e->o.metrics, MKV_M_drive_failures, 0, e->fl.sum.events);
	mkv_metric_set(e->o.metrics, MKV_M_drive_failure_places, 0, e->fl.sum.rows);
}

/* A block that cannot be read costs its own rows. A medium that was just formatted has one: its first MiB was zero. */
int
fail_open(struct mkv_engine *e)
{
	struct fails *f = &e->fl;
	void *mem;
	int r = 0;

	if (!e->formatted) {
		if (posix_memalign(&mem, MKV_BLOCK, MKV_FAILREG_BLOCKS * MKV_BLOCK) != 0)
			return (MKV_E_NOMEM);
		if ((r = eng_read_spots(e, mem, MKV_FAILREG_BLOCKS, MKV_FAILREG_OFF)) >= 0)
			mkv_fail_parse(mem, e->tag, f->row, &f->sum);
		free(mem);
	}
	f->never_write = e->readonly;
	fail_gauges(e);
	return (r == MKV_E_CANCELLED ? r : 0);
}

/* Does it count for drive.error_limit? Not what is no failure of a place, nor a place that failed just now. */
static int
fail_is_news(const struct mkv_engine *e, const struct mkv_fail_row *f)
{
	if (f->what != MKV_FAIL_READ && f->what != MKV_FAIL_DATA && f->what != MKV_FAIL_PAGE && f->what != MKV_FAIL_WRITE)
		return (0);
	for (uint32_t i = 0; i < MKV_FAIL_ROWS; i++) {
		const struct mkv_fail_row *r = &e->fl.row[i];

		/* A wall clock that went back makes it news. */
		if (r->serial != 0 && r->what == f->what && r->off == f->off)
			return (r->mount != f->mount || f->last_ms - r->last_ms >= FAIL_PLACE_MS);
	}
	return (1);
}

static void
fail_add(struct mkv_engine *e, enum mkv_failure what, uint64_t off, uint32_t bytes, int err, uint64_t arg, uint32_t count)
{
	struct fails *f = &e->fl;
	struct mkv_fail_row row = { .what = (uint16_t)what, .off = off, .bytes = bytes, .err = err, .arg = arg, .count = count, .mount = e->sb.mount,
		.epoch = e->sb.epoch, .last_ms = eng_wall(e) };

	if (fail_is_news(e, &row))
		ENG_COUNT(e, bad_places_total, 1);
	f->due |= 1u << (mkv_fail_add(f->row, &f->sum, &row) / MKV_FAIL_PER_BLOCK);
	fail_gauges(e);
}

void
fail_note(struct mkv_engine *e, enum mkv_failure what, uint64_t off, uint32_t bytes, int err, uint64_t arg)
{
	fail_add(e, what, off, bytes, err, arg, 1);
}

void
fail_slow(struct mkv_engine *e, struct dio *d, int err, uint64_t now)
{
	uint64_t took_ns = now - d->begin_ns;

	if (took_ns > FAIL_SLOW_NS)
		fail_add(e, MKV_FAIL_SLOW, d->off, d->bytes, err, took_ns / MKV_NS_PER_MS, d->slow ? 0 : 1);
}

/* An I/O that hangs may never end, and its drive is given up with it: it is noted while it hangs. A few hundred at most, once a second. */
void
fail_watch(struct mkv_engine *e, uint64_t now)
{
	const struct journal *j = &e->jn;

	if (now < e->fl.watch_ns)
		return;
	e->fl.watch_ns = now + MKV_NS_PER_SEC;
	for (uint32_t i = 0; i < e->dios; i++) {
		struct dio *d = &e->dio[i];

		if (d->r == NULL || d->slow || now - d->begin_ns <= FAIL_SLOW_NS)
			continue;
		d->slow = 1;
		fail_note(e, MKV_FAIL_SLOW, d->off, d->bytes, MKV_E_TIMEOUT, (now - d->begin_ns) / MKV_NS_PER_MS);
	}
	if (j->state == JN_IDLE || e->fl.slow_seq == j->flight->first_seq || now - j->io_begin_ns <= FAIL_SLOW_NS)
		return;
	e->fl.slow_seq = j->flight->first_seq;
	fail_note(e, MKV_FAIL_SLOW, mkv_sb_journal_at(&e->sb, j->flight->first_seq), j->flight->blocks * MKV_BLOCK, MKV_E_TIMEOUT,
	    (now - j->io_begin_ns) / MKV_NS_PER_MS);
}

static void
fail_on_write(struct mkv_mio *mio, int res)
{
	(void)res;
	MKV_CONTAINER_OF(mio, struct fails, mio)->writing = 0;
}

void
fail_step(struct mkv_engine *e, uint64_t now)
{
	struct fails *f = &e->fl;
	uint32_t k;

	if (f->due == 0 || f->writing || f->never_write || (now < f->next_ns && !f->hurry))
		return;
	k = (uint32_t)__builtin_ctz(f->due);
	f->due &= f->due - 1;
	f->hurry &= f->due != 0;
	f->next_ns = now + FAIL_PAUSE_NS;
	f->writing = 1;
	mkv_fail_block((struct mkv_fail_block *)f->mem, e->tag, f->row, k);
	memset(&f->mio, 0, sizeof(f->mio));
	f->mio.done = fail_on_write;
	sched_write(e, MKV_IO_JOURNAL, &f->mio, f->mem, MKV_BLOCK, MKV_FAILREG_OFF + (uint64_t)k * MKV_BLOCK, -1);
}

uint64_t
fail_next_ns(const struct mkv_engine *e)
{
	return (e->fl.due == 0 || e->fl.never_write || e->fl.writing ? UINT64_MAX : e->fl.hurry ? 0 : e->fl.next_ns);
}

int
mkv_engine_failures_keep(struct mkv_engine *e)
{
	MKV_CHECK_OBJ(e, MKV_ENGINE_MAGIC);
	e->fl.hurry = 1;
	return (e->fl.never_write || (e->fl.due == 0 && !e->fl.writing));
}

/* Orderly end: what is due is written, what is under way is waited for. 0 or MKV_E_CANCELLED. */
int
fail_close(struct mkv_engine *e)
{
	while (e->fl.writing || (e->fl.due != 0 && !e->fl.never_write)) {
		fail_step(e, UINT64_MAX);
		if (e->o.ops->pump(e->o.arg) == MKV_E_CANCELLED) {
			e->cancelled = 1;
			return (MKV_E_CANCELLED);
		}
	}
	return (0);
}
