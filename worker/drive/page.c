/*
 * Metadata pages and their cache. Drive's loop thread; owns the frames (opts.page_cache_bytes) and a few bytes for each page of the medium.
 *
 *   page: free -> open (records arrive) -> writing -> on the medium, never changed -> free when its last object is gone
 *
 * A page is written once, when it is full or a checkpoint wants it. Until the record that says so is durable, its records are in the journal in
 * full, so a torn page loses nothing. Sparse pages are emptied by moving what lives (page_gc) when free pages get few.
 * live counts objects that point here, also those that are unlinked and not yet free; it reaches 0 only after the last record is durable.
 */
#include "config.h"

#include <stdlib.h>
#include <string.h>

#include "common/base/err.h"
#include "common/base/log.h"
#include "worker/drive/engine_priv.h"

#define PAGE_FRAMES_MIN	128u

int
page_init(struct mkv_engine *e)
{
	struct pages *p = &e->pg;

	p->count = p->free = e->sb.page_count;
	p->frames = (uint32_t)MKV_MAX(e->o.page_cache_bytes / MKV_BLOCK, PAGE_FRAMES_MIN);
	p->frames = MKV_MIN(p->frames, MKV_MAX(p->count, PAGE_FRAMES_MIN));
	p->open = FRAME_NIL;
	p->held = PAGE_NIL;
	mkv_list_init(&p->written);
	mkv_list_init(&p->wait);
	p->live = calloc(p->count, 1);
	p->total = calloc(p->count, 1);
	p->taken = calloc(p->count, 1);
	p->frame_of = calloc(p->count, sizeof(uint32_t));
	p->frame = calloc(p->frames, sizeof(*p->frame));
	if (posix_memalign((void **)&p->mem, MKV_BLOCK, (size_t)p->frames * MKV_BLOCK) != 0)
		p->mem = NULL;
	p->gc_mem = malloc(MKV_BLOCK);
	if (p->live == NULL || p->total == NULL || p->taken == NULL || p->frame_of == NULL || p->frame == NULL || p->mem == NULL || p->gc_mem == NULL)
		return (MKV_E_NOMEM);
	for (uint32_t i = 0; i < p->frames; i++) {
		p->frame[i].e = e;
		p->frame[i].pg = (struct mkv_page *)(p->mem + (size_t)i * MKV_BLOCK);
		mkv_list_init(&p->frame[i].waiters);
		mkv_list_init(&p->frame[i].dirty);
	}
	return (0);
}

void
page_fini(struct mkv_engine *e)
{
	struct pages *p = &e->pg;

	free(p->live);
	free(p->total);
	free(p->taken);
	free(p->frame_of);
	free(p->frame);
	free(p->mem);
	free(p->gc_mem);
}

static uint32_t
page_frame_no(struct pages *p, struct frame *f)
{
	return ((uint32_t)(f - p->frame));
}

/*
 * A frame can be had, or a page. Who waits here waits for one or the other, and one open page serves many: all look again, those that find nothing
 * wait on in their order.
 */
static void
page_wake(struct mkv_engine *e)
{
	req_wake_list(&e->pg.wait, UINT32_MAX);
}

static void
page_frame_drop(struct mkv_engine *e, struct frame *f)
{
	MKV_ASSERT(f->state != FR_READING && f->state != FR_WRITING);
	e->pg.frame_of[f->page] = 0;
	f->state = FR_FREE;
	page_wake(e);
}

/* A frame for `page`: a free one, or the first clean one that was not used since the hand passed. */
static struct frame *
page_frame_take(struct mkv_engine *e, uint32_t page)
{
	struct pages *p = &e->pg;

	for (uint32_t i = 0; i < 2 * p->frames; i++) {
		struct frame *f = &p->frame[p->hand];

		p->hand = (p->hand + 1) % p->frames;
		if (f->state == FR_CLEAN || f->state == FR_BAD) {
			if (f->ref && f->state == FR_CLEAN) {
				f->ref = 0;
				continue;
			}
			p->frame_of[f->page] = 0;
			f->state = FR_FREE;
		}
		if (f->state != FR_FREE)
			continue;
		f->page = page;
		f->ref = 1;
		f->tries = 0;
		p->frame_of[page] = page_frame_no(p, f) + 1;
		p->touched = MKV_MAX(p->touched, p->frame_of[page]);
		return (f);
	}
	return (NULL);
}

int
page_good(struct mkv_engine *e, const struct mkv_page *pg, uint32_t page)
{
	return (pg->magic == MKV_PAGE_MAGIC && pg->tag == e->tag && pg->page_no == page && pg->used <= sizeof(pg->data) &&
	    mkv_block_good(pg, offsetof(struct mkv_page, crc)));
}

static void
page_read(struct mkv_engine *e, struct frame *f)
{
	f->state = FR_READING;
	ENG_COUNT(e, meta_reads_total, 1);
	sched_read(e, f->back ? MKV_IO_EVICT : MKV_IO_GET, &f->mio, f->pg, MKV_BLOCK, mkv_sb_page_at(&e->sb, f->page), -1);
}

static void
page_on_read(struct mkv_mio *mio, int res)
{
	struct frame *f = MKV_CONTAINER_OF(mio, struct frame, mio);
	struct mkv_engine *e = f->e;

	if (res == 0 && page_good(e, f->pg, f->page)) {
		f->state = FR_CLEAN;
	} else if (f->tries++ == 0) {
		page_read(e, f);
		return;
	} else {
		if (res != 0)
			ENG_COUNT(e, read_errors_total, 1);
		mkv_log(res ? MKV_EV_DRIVE_READ_FAILED : MKV_EV_DRIVE_CORRUPT, "drive=%s page=%u", e->o.name, f->page);
		fail_note(e, res ? MKV_FAIL_READ : MKV_FAIL_PAGE, mkv_sb_page_at(&e->sb, f->page), MKV_BLOCK, res ? res : MKV_E_CORRUPT, 0);
		f->state = FR_BAD;
		f->tries = res != 0;
	}
	req_wake_list(&f->waiters, UINT32_MAX);
	if (!e->pg.taken[f->page])
		page_frame_drop(e, f);
	else
		page_wake(e);
}

int
page_get(struct mkv_engine *e, uint32_t page, struct mkv_req *r, struct mkv_page **out)
{
	struct pages *p = &e->pg;
	struct frame *f;
	int err;

	if (page >= p->count || !p->taken[page])
		return (MKV_E_CORRUPT);
	if (p->frame_of[page] != 0) {
		f = &p->frame[p->frame_of[page] - 1];
		if (f->state == FR_BAD) {
			err = f->tries ? MKV_E_IO : MKV_E_CORRUPT;
			page_frame_drop(e, f);
			return (err);
		}
		if (f->state != FR_READING) {
			f->ref = 1;
			ENG_COUNT(e, page_cache_hits_total, 1);
			*out = f->pg;
			return (0);
		}
	} else {
		if ((f = page_frame_take(e, page)) == NULL) {
			if (r != NULL)
				req_park(r, &p->wait);
			return (MKV_E_AGAIN);
		}
		ENG_COUNT(e, page_cache_misses_total, 1);
		f->mio.done = page_on_read;
		f->back = r == NULL;
		page_read(e, f);
	}
	if (r != NULL) {
		req_park(r, &f->waiters);
		r->parked = 0;			/* the medium answers: no deadline ends this */
	}
	return (MKV_E_AGAIN);
}

static int
page_take(struct mkv_engine *e, uint32_t *out)
{
	struct pages *p = &e->pg;

	for (uint32_t i = 0; i < p->count && p->free > 0; i++) {
		uint32_t page = p->cursor;

		p->cursor = (p->cursor + 1) % p->count;
		if (!p->taken[page] && p->frame_of[page] == 0) {
			*out = page;
			return (1);
		}
	}
	return (0);
}

static int
page_open_new(struct mkv_engine *e)
{
	struct pages *p = &e->pg;
	struct frame *f;
	uint32_t page;

	if (p->writing >= PAGES_WRITING_MAX || !page_take(e, &page))
		return (MKV_E_AGAIN);
	if ((f = page_frame_take(e, page)) == NULL)
		return (MKV_E_AGAIN);
	memset(f->pg, 0, MKV_BLOCK);
	f->pg->magic = MKV_PAGE_MAGIC;
	f->pg->tag = e->tag;
	f->pg->page_no = page;
	f->state = FR_OPEN;
	p->taken[page] = 1;
	p->total[page] = p->live[page] = 0;
	p->free--;
	p->open = page_frame_no(p, f);
	return (0);
}

int
page_room(struct mkv_engine *e, uint32_t bytes)
{
	struct pages *p = &e->pg;

	if (p->open != FRAME_NIL && p->frame[p->open].pg->used + bytes > sizeof(p->frame[0].pg->data))
		page_close_open(e);
	if (p->open != FRAME_NIL && p->live[p->frame[p->open].page] == UINT8_MAX)
		page_close_open(e);
	return (p->open != FRAME_NIL ? 0 : page_open_new(e));
}

void
page_add(struct mkv_engine *e, const struct mkv_obj *o, uint32_t *page, uint16_t *pos)
{
	struct pages *p = &e->pg;
	struct frame *f = &p->frame[p->open];

	MKV_ASSERT(f->state == FR_OPEN);
	MKV_ASSERT(f->pg->used + o->bytes <= sizeof(f->pg->data));
	memcpy(f->pg->data + f->pg->used, o, o->bytes);
	*page = f->page;
	*pos = f->pg->used;
	f->pg->used = (uint16_t)(f->pg->used + o->bytes);
	p->live[f->page]++;
	p->total[f->page]++;
}

static void
page_on_write(struct mkv_mio *mio, int res)
{
	struct frame *f = MKV_CONTAINER_OF(mio, struct frame, mio);
	struct mkv_engine *e = f->e;

	if (res != 0) {
		ENG_COUNT(e, write_errors_total, 1);
		/* Its records are in the journal, which cannot be cut any more: no new checkpoint, no more writes. */
		fail_note(e, MKV_FAIL_META, mkv_sb_page_at(&e->sb, f->page), MKV_BLOCK, res, 0);
		eng_readonly(e, "a metadata write failed");
		return;
	}
	mkv_list_push_tail(&e->pg.written, &f->dirty);
}

void
page_close_open(struct mkv_engine *e)
{
	struct pages *p = &e->pg;
	struct frame *f;

	if (p->open == FRAME_NIL)
		return;
	f = &p->frame[p->open];
	p->open = FRAME_NIL;
	f->state = FR_WRITING;
	p->writing++;
	mkv_block_seal(f->pg, offsetof(struct mkv_page, crc));
	f->mio.done = page_on_write;
	ENG_COUNT(e, meta_writes_total, 1);
	sched_write(e, MKV_IO_JOURNAL, &f->mio, f->pg, MKV_BLOCK, mkv_sb_page_at(&e->sb, f->page), -1);
}

static void
page_release(struct mkv_engine *e, uint32_t page)
{
	struct pages *p = &e->pg;
	struct frame *f = p->frame_of[page] ? &p->frame[p->frame_of[page] - 1] : NULL;

	if (f != NULL && (f->state == FR_OPEN || f->state == FR_WRITING))
		return;				/* looked at again when it is written */
	if (page == p->held)
		return;				/* when it is not held any more */
	p->taken[page] = 0;
	p->free++;
	if (f != NULL && f->state != FR_READING)
		page_frame_drop(e, f);
	page_wake(e);
}

void
page_dec(struct mkv_engine *e, uint32_t page)
{
	MKV_ASSERT(page < e->pg.count && e->pg.live[page] > 0);
	if (--e->pg.live[page] == 0)
		page_release(e, page);
}

/* A page that is read without the cache: it is nobody else's meanwhile. */
void
page_hold(struct mkv_engine *e, uint32_t page)
{
	MKV_ASSERT(e->pg.held == PAGE_NIL && e->pg.taken[page]);
	e->pg.held = page;
}

void
page_unhold(struct mkv_engine *e)
{
	uint32_t page = e->pg.held;

	e->pg.held = PAGE_NIL;
	if (page != PAGE_NIL && e->pg.taken[page] && e->pg.live[page] == 0)
		page_release(e, page);
}

/* Pages whose write is complete get their journal record: only that lets recovery trust the medium for them. */
void
page_journal_written(struct mkv_engine *e)
{
	struct pages *p = &e->pg;
	static const struct mkv_digest none;

	while (!mkv_list_empty(&p->written) && journal_room(e, 0, 1) == 0) {
		struct frame *f = MKV_CONTAINER_OF(mkv_list_pop(&p->written), struct frame, dirty);

		(void)journal_append(e, MKV_J_PAGE_WRITTEN, none, f->page, 0, 0, NULL, 0);
		f->state = FR_CLEAN;
		p->writing--;
		if (p->live[f->page] == 0)
			page_release(e, f->page);
		page_wake(e);
	}
}

static int
page_sparse(const struct pages *p, uint32_t page)
{
	uint32_t f = p->frame_of[page];

	if (!p->taken[page] || p->live[page] == 0 || 2u * p->live[page] > p->total[page])
		return (0);
	return (f == 0 || (p->frame[f - 1].state != FR_OPEN && p->frame[f - 1].state != FR_WRITING));
}

/* Move what lives in gc_mem's page to the open page. 0 done; MKV_E_AGAIN: later. */
static int
page_move(struct mkv_engine *e, const struct mkv_page *pg)
{
	struct mkv_obj_view v, own;
	uint32_t pos = 0;

	while (mkv_page_next(pg, &pos, &v) == 1) {
		uint32_t i = mkv_index_find(&e->ix, v.o->digest), page;
		uint16_t at;

		if (i == MKV_ENT_NIL || eng_ent(e, i)->page != pg->page_no || req_locked(e, v.o->digest))
			continue;
		if (obj_in_page(e, eng_ent(e, i), pg, &own) != 0 || own.o != v.o)
			continue;		/* a dead record of the same key */
		if (page_room(e, v.o->bytes) != 0 || journal_room(e, v.o->bytes, 0) != 0)
			return (MKV_E_AGAIN);
		page_add(e, v.o, &page, &at);
		pending_push(e, journal_append(e, MKV_J_MOVE, v.o->digest, page, at, pg->page_no, v.o, v.o->bytes), MKV_ENT_NIL, pg->page_no);
		eng_ent(e, i)->page = page;
	}
	return (0);
}

/* Its image on the medium is no good, the one in memory is: what lives in it moves. Forgotten where another one is being emptied. */
void
page_move_soon(struct mkv_engine *e, uint32_t page)
{
	if (e->pg.gc)
		return;
	e->pg.gc = 1;
	e->pg.gc_page = page;
}

/* One step: when free pages are few, empty the next sparse one. */
void
page_gc(struct mkv_engine *e)
{
	struct pages *p = &e->pg;
	struct mkv_page *pg;
	int r;

	for (uint32_t n = 0; !p->gc && p->free < p->count / 8 && n < 1024; n++) {
		p->gc_hand = (p->gc_hand + 1) % p->count;
		if (page_sparse(p, p->gc_hand)) {
			p->gc = 1;
			p->gc_page = p->gc_hand;
		}
	}
	if (!p->gc)
		return;
	if (!p->taken[p->gc_page]) {
		p->gc = 0;
		return;
	}
	/* Puts that wait for a page wait for this. */
	if (mkv_list_empty(&p->wait) && p->free >= p->count / 16 && !sched_may(e, MKV_IO_EVICT, MKV_BLOCK))
		return;
	if ((r = page_get(e, p->gc_page, NULL, &pg)) == MKV_E_AGAIN)
		return;
	if (r == 0) {
		memcpy(p->gc_mem, pg, MKV_BLOCK);
		r = page_move(e, (const struct mkv_page *)p->gc_mem);
	}
	if (r != MKV_E_AGAIN)
		p->gc = 0;
}

int
page_replay(struct mkv_engine *e, uint32_t page, uint16_t pos, const struct mkv_obj *o)
{
	struct pages *p = &e->pg;
	struct frame *f;

	if (page >= p->count || pos + o->bytes > sizeof(f->pg->data) || pos % 8 != 0)
		return (MKV_E_CORRUPT);
	f = p->frame_of[page] ? &p->frame[p->frame_of[page] - 1] : NULL;
	if (f == NULL && (f = page_frame_take(e, page)) == NULL)
		return (MKV_E_NOMEM);		/* more open pages than ever were: only damage does that */
	if (f->state != FR_OPEN || pos == 0) {
		memset(f->pg, 0, MKV_BLOCK);
		f->pg->magic = MKV_PAGE_MAGIC;
		f->pg->tag = e->tag;
		f->pg->page_no = page;
		f->state = FR_OPEN;
	}
	memcpy(f->pg->data + pos, o, o->bytes);
	f->pg->used = (uint16_t)MKV_MAX(f->pg->used, pos + o->bytes);
	return (0);
}

void
page_replay_written(struct mkv_engine *e, uint32_t page)
{
	struct frame *f;

	if (page >= e->pg.count || e->pg.frame_of[page] == 0)
		return;
	f = &e->pg.frame[e->pg.frame_of[page] - 1];
	e->pg.frame_of[page] = 0;
	f->state = FR_FREE;
}

/*
 * The images that the crash left in the journal alone: write them; the first group says so, or they would add up over many crashes. A store that
 * may only be read keeps them in their frames.
 */
int
page_replay_end(struct mkv_engine *e)
{
	struct pages *p = &e->pg;
	int r;

	for (uint32_t i = 0; i < p->frames; i++) {
		struct frame *f = &p->frame[i];

		if (f->state != FR_OPEN)
			continue;
		if (!p->taken[f->page]) {
			page_replay_written(e, f->page);
			continue;
		}
		mkv_block_seal(f->pg, offsetof(struct mkv_page, crc));
		if (!e->readonly && (r = eng_write(e, f->pg, MKV_BLOCK, mkv_sb_page_at(&e->sb, f->page))) != 0)
			return (r);
		f->state = FR_WRITING;
		p->writing++;
		mkv_list_push_tail(&p->written, &f->dirty);
	}
	return (0);
}
