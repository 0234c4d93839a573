/*
 * Reading what nobody reads: every object and every metadata page is checked against its CRCs, in idle time, over and over. Drive's loop thread; owns one
 * read buffer, the copy of one page, and where it is.
 *
 *   next: an entry that was never proved, else the next page of the pass -> VISIT: its records one by one -> READ at most SCRUB_READ bytes -> check
 *
 * A pass goes through the pages in order, so what was checked longest ago comes first. Pages are read from the medium and not taken from the cache, which
 * would prove nothing; only one that is not written yet is. The page stays taken during its visit, so that its records mean what they say; an entry is held
 * during one read and not between two: it may leave meanwhile, and is looked up anew each time. Requests go first (sched.c), and nothing is read faster
 * than storage.scrub.rate.
 *
 * Wrong bytes are read once more. Then the object leaves (obj_corrupt()); of a damaged page all objects leave, unless the cache still has it whole: then
 * its records move. What cannot be read is noted and stays. The pass and its page are in the checkpoints: after a crash some of it is done twice.
 */
#include "config.h"

#include <stdlib.h>
#include <string.h>

#include "common/base/crc.h"
#include "common/base/err.h"
#include "common/base/log.h"
#include "worker/drive/engine_priv.h"

#define SCRUB_READ	(4u * CHUNK)
#define SCRUB_QUIET_NS	(2 * MKV_NS_PER_MS)	/* without requests, in memory */
#define SCRUB_AGAIN_NS	(60 * MKV_NS_PER_SEC)	/* what could not be proved is looked at again */
#define SCRUB_LOOK	4096u			/* entries or pages looked at in one turn */
#define SCRUB_RECORDS	64u			/* records passed over in one turn */

int
scrub_init(struct mkv_engine *e)
{
	struct scrub *s = &e->scrub;
	void *mem = NULL;

	if (posix_memalign(&mem, MKV_BLOCK, SCRUB_READ + MKV_BLOCK) != 0)
		return (MKV_E_NOMEM);
	s->mem = mem;
	s->pg = (struct mkv_page *)(s->mem + SCRUB_READ);
	s->ent = MKV_ENT_NIL;
	s->unread_page = PAGE_NIL;
	return (0);
}

void
scrub_fini(struct mkv_engine *e)
{
	free(e->scrub.mem);
}

/* From the newest checkpoint: foreign numbers. */
void
scrub_recovered(struct mkv_engine *e, const struct mkv_ckpt_head *h)
{
	struct scrub *s = &e->scrub;

	if (h->scrub_page > e->pg.count + 1)
		return;
	s->pass = h->scrub_pass;
	s->began_ms = h->scrub_began_ms;
	s->ended_ms = h->scrub_ended_ms;
	s->pass_bytes = h->scrub_bytes;
	s->passing = h->scrub_page != 0;
	s->next_page = s->passing ? h->scrub_page - 1 : 0;
}

void
scrub_save(const struct mkv_engine *e, struct mkv_ckpt_head *h)
{
	const struct scrub *s = &e->scrub;

	h->scrub_pass = s->pass;
	h->scrub_page = !s->passing ? 0 : 1 + (s->state != SC_NEXT && !s->only ? s->page : s->next_page);
	h->scrub_began_ms = s->began_ms;
	h->scrub_ended_ms = s->ended_ms;
	h->scrub_bytes = s->pass_bytes;
}

void
scrub_gauges(struct mkv_engine *e)
{
	const struct scrub *s = &e->scrub;
	struct mkv_metrics *m = e->o.metrics;

	if (m == NULL)
		return;
	mkv_metric_set(m, MKV_M_drive_scrub_pass, 0, s->pass);
	mkv_metric_set(m, MKV_M_drive_scrub_pass_bytes, 0, s->pass_bytes);
	mkv_metric_set(m, MKV_M_drive_scrub_pass_percent, 0, s->passing ? (uint64_t)s->next_page * 100 / MKV_MAX(e->pg.count, 1u) : s->pass ? 100 : 0);
	mkv_metric_set(m, MKV_M_drive_scrub_pass_end_seconds, 0, s->ended_ms / 1000);
}

static int
scrub_on(const struct mkv_engine *e)
{
	return (e->o.scrub_rate != 0 && !e->o.offline && !e->o.look_only && !e->readonly && !e->opening && !e->scrub.stop);
}

/* ---- Reading --------------------------------------------------------------------------------------------------------------- */

static void
scrub_on_read(struct mkv_mio *mio, int res)
{
	struct scrub_io *io = MKV_CONTAINER_OF(mio, struct scrub_io, mio);
	struct scrub *s = &io->e->scrub;

	MKV_ASSERT(s->ios > 0);
	s->ios--;
	if (res != 0 && s->err == 0) {
		s->err = res;
		s->err_off = io->off;
	}
}

static void
scrub_issue(struct mkv_engine *e, void *to, uint32_t bytes, uint64_t off)
{
	struct scrub *s = &e->scrub;
	struct scrub_io *io = &s->io[s->ios];

	MKV_ASSERT(s->ios < MKV_OBJ_RUNS_MAX);
	s->ios++;
	memset(io, 0, sizeof(*io));
	io->e = e;
	io->off = off;
	io->mio.done = scrub_on_read;
	s->bytes += bytes;
	sched_read(e, MKV_IO_SCRUB, &io->mio, to, bytes, off, -1);
}

/* What was read is paid for in time. */
static void
scrub_pay(struct mkv_engine *e, uint64_t now)
{
	struct scrub *s = &e->scrub;

	s->next_ns = MKV_MAX(s->next_ns, now) + (uint64_t)((double)s->bytes * (double)MKV_NS_PER_SEC / (double)e->o.scrub_rate);
	s->pass_bytes += s->bytes;
	ENG_COUNT(e, scrub_bytes_total, s->bytes);
}

static void
scrub_read_page(struct mkv_engine *e, uint64_t now)
{
	struct scrub *s = &e->scrub;

	s->state = SC_PAGE;
	s->bytes = 0;
	s->err = 0;
	scrub_issue(e, s->pg, MKV_BLOCK, mkv_sb_page_at(&e->sb, s->page));
	scrub_pay(e, now);
}

/* The next bytes of the object, which is held until they are here. */
static void
scrub_read_data(struct mkv_engine *e, uint32_t i, const struct mkv_obj_view *v, uint64_t now)
{
	struct scrub *s = &e->scrub;
	uint64_t end = MKV_MIN(s->at + SCRUB_READ, MKV_ALIGN_UP(v->o->value_bytes, MKV_BLOCK)), left;

	s->state = SC_DATA;
	s->ent = i;
	eng_ent(e, i)->holds++;
	s->bytes = 0;
	s->err = 0;
	for (uint64_t pos = s->at; pos < end; pos += left) {
		uint64_t off = req_phys(e, v->runs, v->o->n_runs, pos, &left);

		left = MKV_MIN(left, end - pos);
		scrub_issue(e, s->mem + (pos - s->at), (uint32_t)left, off);
	}
	scrub_pay(e, now);
}

/* ---- A visit of a page ------------------------------------------------------------------------------------------------------ */

static void
scrub_leave(struct mkv_engine *e)
{
	struct scrub *s = &e->scrub;

	page_unhold(e);
	s->state = SC_NEXT;
	scrub_gauges(e);
}

/* Whatever it was about, unfinished. */
static void
scrub_drop(struct mkv_engine *e)
{
	struct scrub *s = &e->scrub;

	if (s->ent != MKV_ENT_NIL)
		ent_unhold(e, s->ent);
	s->ent = MKV_ENT_NIL;
	if (s->state == SC_NEXT)
		return;
	if (!s->only && s->passing)
		s->next_page = s->page;
	scrub_leave(e);
}

/* A page that is not on the medium yet, and may grow. */
static const struct mkv_page *
scrub_unwritten(const struct mkv_engine *e, uint32_t page)
{
	uint32_t f = e->pg.frame_of[page];

	if (f == 0 || (e->pg.frame[f - 1].state != FR_OPEN && e->pg.frame[f - 1].state != FR_WRITING))
		return (NULL);
	return (e->pg.frame[f - 1].pg);
}

/* only: what nobody proved; the rest of the page has its turn in the pass. */
static void
scrub_visit(struct mkv_engine *e, uint32_t page, int only, uint64_t now)
{
	struct scrub *s = &e->scrub;

	page_hold(e, page);
	s->page = page;
	s->only = only;
	s->pos = s->rec = 0;
	s->at = 0;
	s->tries = 0;
	s->grows = scrub_unwritten(e, page) != NULL;
	if (s->grows)
		s->state = SC_VISIT;
	else
		scrub_read_page(e, now);
}

static void
scrub_next_record(struct scrub *s)
{
	s->rec = s->pos;
	s->at = 0;
	s->tries = 0;
	s->state = SC_VISIT;
}

/* The entry that this record is of, MKV_ENT_NIL: none, any more. */
static uint32_t
scrub_ent(struct mkv_engine *e, const struct mkv_obj_view *v)
{
	uint32_t i = mkv_index_find(&e->ix, v->o->digest);
	struct mkv_obj_view own;

	if (i == MKV_ENT_NIL || eng_ent(e, i)->page != e->scrub.page || obj_in_page(e, eng_ent(e, i), e->scrub.pg, &own) != 0 || own.o != v->o)
		return (MKV_ENT_NIL);
	return (i);
}

static int
scrub_wants(const struct mkv_engine *e, uint32_t i, const struct mkv_obj_view *v)
{
	const struct mkv_ent *en = &e->ix.ent[i];

	if (en->units == 0 || v->o->value_bytes == 0 || en->holds == MKV_ENT_HOLDS_MAX)
		return (0);
	/* Foreign numbers. A get decides about a record that makes no sense. */
	if (v->o->value_bytes > (uint64_t)en->units * e->sb.unit_bytes || v->o->n_crcs != mkv_crc_chunks(v->o->value_bytes))
		return (0);
	return (!e->scrub.only || !ent_is_proved(en));
}

/* One record, or the end of the page. */
static void
scrub_record(struct mkv_engine *e, uint64_t now)
{
	struct scrub *s = &e->scrub;
	struct mkv_obj_view v;
	uint32_t i;

	s->pos = s->rec;
	if (mkv_page_next(s->pg, &s->pos, &v) != 1) {
		scrub_leave(e);
		return;
	}
	if ((i = scrub_ent(e, &v)) == MKV_ENT_NIL || !scrub_wants(e, i, &v)) {
		scrub_next_record(s);
		return;
	}
	scrub_read_data(e, i, &v, now);
}

/* A page that is not written grows: its records are looked at as they are now. */
static int
scrub_refresh(struct mkv_engine *e, uint64_t now)
{
	struct scrub *s = &e->scrub;
	const struct mkv_page *pg;

	if (!s->grows)
		return (1);
	if ((pg = scrub_unwritten(e, s->page)) != NULL) {
		memcpy(s->pg, pg, MKV_BLOCK);
		return (1);
	}
	s->grows = 0;
	scrub_read_page(e, now);
	return (0);
}

/* ---- What was read ---------------------------------------------------------------------------------------------------------- */

/* All objects with their record in this page lose it. Bounded; the walk goes on in the next turn. */
static void
scrub_lost(struct mkv_engine *e, uint64_t now)
{
	struct scrub *s = &e->scrub;

	for (unsigned n = 0; n < SCRUB_LOOK && s->lost < e->ix.ents_high; n++, s->lost++) {
		const struct mkv_ent *en = eng_ent(e, s->lost);

		if ((en->flags & MKV_ENT_LINKED) == 0 || en->page != s->page || req_locked(e, en->digest))
			continue;
		if (evict_one(e, s->lost, MKV_REASON_CORRUPT) != 0) {
			s->next_ns = now + MKV_NS_PER_MS;	/* no room in the journal */
			return;
		}
		ENG_COUNT(e, scrub_bad_total, 1);
		if (en->flags & MKV_ENT_PIECE)
			whole_lost(e, (struct mkv_set_id){ 0, 0 }, MKV_REASON_LOST);
	}
	if (s->lost >= e->ix.ents_high)
		scrub_leave(e);
}

static void
scrub_page_bad(struct mkv_engine *e)
{
	struct scrub *s = &e->scrub;
	uint32_t f = e->pg.frame_of[s->page];

	mkv_log(MKV_EV_DRIVE_CORRUPT, "drive=%s page=%u found=scrub", e->o.name, s->page);
	fail_note(e, MKV_FAIL_PAGE, mkv_sb_page_at(&e->sb, s->page), MKV_BLOCK, MKV_E_CORRUPT, 0);
	ENG_COUNT(e, corrupt_total, 1);
	if (f != 0 && e->pg.frame[f - 1].state == FR_CLEAN) {
		scrub_leave(e);
		page_move_soon(e, s->page);		/* the cache has it whole */
		return;
	}
	s->lost = 0;
	s->state = SC_LOST;
}

/* Twice in vain: it stays, and is not tried again at once, or one bad place would look like a drive that fails (drive.error_limit). */
static void
scrub_unread(struct mkv_engine *e, uint32_t bytes)
{
	struct scrub *s = &e->scrub;

	ENG_COUNT(e, read_errors_total, 1);
	fail_note(e, MKV_FAIL_READ, s->err_off, bytes, s->err, 0);
	if (s->only)
		s->unread_page = s->page;
	s->unread |= s->only;
}

static void
scrub_page_read(struct mkv_engine *e, uint64_t now)
{
	struct scrub *s = &e->scrub;

	if (s->err == 0 && page_good(e, s->pg, s->page)) {
		s->tries = 0;
		s->state = SC_VISIT;
		ENG_COUNT(e, scrub_pages_total, 1);
		return;
	}
	if (s->tries++ == 0) {
		scrub_read_page(e, now);
		return;
	}
	if (s->err == 0) {
		scrub_page_bad(e);
		return;
	}
	scrub_unread(e, MKV_BLOCK);
	scrub_leave(e);
}

/* The first chunk of those just read that does not match, or the end of what was read. */
static uint64_t
scrub_good_until(const struct scrub *s, const struct mkv_obj_view *v)
{
	uint64_t end = MKV_MIN(s->at + SCRUB_READ, v->o->value_bytes), pos;

	for (pos = s->at; pos < end; pos += CHUNK) {
		if (mkv_crc32c(0, s->mem + (pos - s->at), MKV_MIN(CHUNK, end - pos)) != v->crcs[pos / CHUNK])
			return (pos);
	}
	return (end);
}

static void
scrub_bad(struct mkv_engine *e, uint32_t i, const struct mkv_obj_view *v, uint64_t at)
{
	struct obj_blame b = { .data = 1, .put_id = v->o->put_id, .bytes = CHUNK };
	uint64_t left;

	b.off = req_phys(e, v->runs, v->o->n_runs, at, &left);
	if (v->set != NULL)
		b.set = v->set->set;
	ENG_COUNT(e, scrub_bad_total, 1);
	(void)obj_corrupt(e, i, &b);
}

static void
scrub_data_read(struct mkv_engine *e, uint64_t now)
{
	struct scrub *s = &e->scrub;
	uint32_t i = s->ent, pos = s->rec;
	struct mkv_obj_view v;
	uint64_t good;

	/* It was held: what it is, and where, has not changed. It may have left, and then nobody wants to know. */
	MKV_ASSERT(mkv_page_next(s->pg, &pos, &v) == 1);
	good = s->err == 0 ? scrub_good_until(s, &v) : s->at;
	s->state = SC_VISIT;
	if ((eng_ent(e, i)->flags & MKV_ENT_LINKED) == 0) {
		scrub_next_record(s);
	} else if (s->err == 0 && good == MKV_MIN(s->at + SCRUB_READ, v.o->value_bytes)) {
		s->at = good;
		s->tries = 0;
	} else if (s->tries++ == 0) {
		scrub_read_data(e, i, &v, now);		/* once more, and held all the time */
	} else {
		if (s->err == 0)
			scrub_bad(e, i, &v, good);
		else
			scrub_unread(e, CHUNK);
		scrub_next_record(s);
	}
	if (s->state == SC_VISIT && s->at >= v.o->value_bytes) {
		ENG_COUNT(e, scrub_objects_total, 1);
		obj_proved(e, i);
		s->progress++;
		scrub_next_record(s);
	}
	ent_unhold(e, i);
	if (s->state != SC_DATA)
		s->ent = MKV_ENT_NIL;
}

/* ---- What comes next -------------------------------------------------------------------------------------------------------- */

/* The next entry that nobody proved. 1: a visit began, or the walk goes on in the next turn. */
static int
scrub_walk(struct mkv_engine *e, uint64_t now)
{
	struct scrub *s = &e->scrub;

	if (e->unproved == 0 || now < s->again_ns)
		return (0);
	for (unsigned n = 0; n < SCRUB_LOOK && s->hand < e->ix.ents_high; n++) {
		const struct mkv_ent *en = eng_ent(e, s->hand++);

		if ((en->flags & MKV_ENT_LINKED) == 0 || ent_is_proved(en) || en->units == 0 || en->page == s->unread_page)
			continue;
		scrub_visit(e, en->page, 1, now);
		return (1);
	}
	if (s->hand < e->ix.ents_high)
		return (1);
	/* Those that are left are being written or cannot be read: not again at once. */
	if (s->progress == 0 || s->unread)
		s->again_ns = now + SCRUB_AGAIN_NS;
	s->progress = 0;
	s->unread = 0;
	s->unread_page = PAGE_NIL;
	s->hand = 0;
	return (1);
}

/* When a pass is due, in milliseconds from now. A wall clock that went back makes it due at once. */
static uint64_t
scrub_due_ms(const struct mkv_engine *e)
{
	const struct scrub *s = &e->scrub;
	uint64_t wall = eng_wall(e), every = e->o.scrub_interval_ns / MKV_NS_PER_MS;

	if (s->pass == 0 || wall < s->began_ms || wall - s->began_ms >= every)
		return (0);
	return (every - (wall - s->began_ms));
}

/* Is there anything to be read? */
static int
scrub_is_due(const struct mkv_engine *e, uint64_t now)
{
	const struct scrub *s = &e->scrub;

	return (s->state != SC_NEXT || s->passing || (e->unproved > 0 && now >= s->again_ns) || scrub_due_ms(e) == 0);
}

/* The next page of the pass, if one is due: a visit begins, or the walk goes on in the next turn. */
static void
scrub_pass(struct mkv_engine *e, uint64_t now)
{
	struct scrub *s = &e->scrub;

	if (!s->passing) {
		if (scrub_due_ms(e) > 0)
			return;
		s->passing = 1;
		s->pass++;
		s->began_ms = eng_wall(e);
		s->next_page = 0;
		s->pass_bytes = 0;
	}
	for (unsigned n = 0; n < SCRUB_LOOK && s->next_page < e->pg.count; n++) {
		uint32_t page = s->next_page++;

		if (!e->pg.taken[page] || e->pg.live[page] == 0)
			continue;
		scrub_visit(e, page, 0, now);
		return;
	}
	if (s->next_page >= e->pg.count) {
		s->passing = 0;
		s->ended_ms = eng_wall(e);
		scrub_gauges(e);
	}
}

/* May something be read now? In memory a read is this thread's own work: it waits until nobody has asked for a moment. */
static int
scrub_may(struct mkv_engine *e, uint64_t now)
{
	struct scrub *s = &e->scrub;

	if (now < s->next_ns)
		return (0);
	if (e->o.media->shared)
		return (e->at_work == 0 && now >= s->busy_ns + SCRUB_QUIET_NS);
	s->waits = !sched_may(e, MKV_IO_SCRUB, SCRUB_READ);
	return (!s->waits);
}

void
scrub_step(struct mkv_engine *e, uint64_t now)
{
	struct scrub *s = &e->scrub;

	if (e->at_work > 0)
		s->busy_ns = now;
	s->waits = 0;
	if (s->ios > 0)
		return;
	if (!scrub_on(e)) {
		scrub_drop(e);
		return;
	}
	if (s->state == SC_DATA)
		scrub_data_read(e, now);
	else if (s->state == SC_PAGE)
		scrub_page_read(e, now);
	if (s->state == SC_LOST)
		scrub_lost(e, now);
	for (unsigned n = 0; n < SCRUB_RECORDS && s->ios == 0 && scrub_is_due(e, now) && scrub_may(e, now); n++) {
		if (s->state == SC_NEXT && !scrub_walk(e, now))
			scrub_pass(e, now);
		if (s->state == SC_NEXT)
			return;			/* nothing to do, or the walk goes on in the next turn */
		if (s->state == SC_VISIT && s->ios == 0 && scrub_refresh(e, now))
			scrub_record(e, now);
		if (s->state == SC_LOST)
			return;
	}
}

/* When the next step has something to do, though nothing else happens. */
uint64_t
scrub_next_ns(const struct mkv_engine *e, uint64_t now)
{
	const struct scrub *s = &e->scrub;
	uint64_t next = s->next_ns, due;

	if (!scrub_on(e) || s->ios > 0 || s->waits)
		return (UINT64_MAX);
	if (e->o.media->shared)
		next = MKV_MAX(next, MKV_MAX(s->busy_ns, e->at_work > 0 ? now : 0) + SCRUB_QUIET_NS);
	if (scrub_is_due(e, now))
		return (MKV_MAX(next, now));
	due = scrub_due_ms(e);
	due = due < UINT64_MAX / MKV_NS_PER_MS / 2 ? now + due * MKV_NS_PER_MS : UINT64_MAX;
	return (MKV_MAX(next, e->unproved > 0 ? MKV_MIN(due, s->again_ns) : due));
}

/* The end is near: nothing more is read, what is under way is waited for. 0 or MKV_E_CANCELLED. */
int
scrub_close(struct mkv_engine *e)
{
	struct scrub *s = &e->scrub;

	s->stop = 1;
	while (s->ios > 0) {
		if (e->o.ops->pump(e->o.arg) == MKV_E_CANCELLED) {
			e->cancelled = 1;
			return (MKV_E_CANCELLED);
		}
	}
	scrub_drop(e);
	return (0);
}
