/*
 * Looking over a whole store that serves nobody: every page, every record, on demand every byte. Called between open and close from the loop's
 * thread, with no request at work; runs the loop itself (ops->pump). Owns a window of pages, marks of each entry, one object's bytes and those around it.
 *
 *   pages in order, a window at a time -> each record that the index names is marked, its data checked -> entries without a mark have lost theirs
 *
 * With repair, what is bad is dropped by the journal when all was seen; the caller's close makes it durable. What is read may be anything.
 */
#include "config.h"

#include <stdlib.h>
#include <string.h>

#include "common/base/crc.h"
#include "common/base/err.h"
#include "worker/drive/engine_priv.h"

#define INSPECT_WINDOW	256u			/* pages */
#define INSPECT_AHEAD	(4u << 20)		/* of data, where small objects lie side by side */

enum { INSPECT_SEEN = 1, INSPECT_BAD = 2 };

struct inspect {
	struct mkv_engine *e;
	struct mkv_inspect *in;
	uint8_t		*mark;			/* of each entry */
	uint8_t		*window, *data;
	int		window_good;
	uint8_t		*ahead;			/* data around the last object: [ahead_off, ahead_off + ahead_bytes) */
	uint64_t	ahead_off;
	uint32_t	ahead_bytes, ahead_size, ahead_hits;
	uint64_t	done;
};

static void
inspect_say(struct inspect *s, const char *what, const struct mkv_obj_view *v, uint64_t off)
{
	if (s->in->bad != NULL)
		s->in->bad(s->in->arg, what, v != NULL ? v->key : NULL, v != NULL ? v->o->key_bytes : 0, off);
}

/*
 * Objects of one page were mostly put one after the other and lie so. A read that serves several is followed by one twice as long, one that serves
 * none by one half as long; what cannot be read so is read alone.
 */
static int
inspect_read(struct inspect *s, uint8_t *to, uint32_t bytes, uint64_t off)
{
	uint64_t end = s->e->sb.data_off + s->e->sb.data_units * s->e->sb.unit_bytes;

	if (off >= s->ahead_off && off + bytes <= s->ahead_off + s->ahead_bytes) {
		memcpy(to, s->ahead + (off - s->ahead_off), bytes);
		s->ahead_hits++;
		return (0);
	}
	s->ahead_size = s->ahead_hits > 0 ? MKV_MIN(2 * s->ahead_size, INSPECT_AHEAD) : MKV_MAX(s->ahead_size / 2, CHUNK / 4);
	s->ahead_hits = s->ahead_bytes = 0;
	if (bytes < s->ahead_size && off + s->ahead_size <= end && eng_read(s->e, s->ahead, s->ahead_size, off) == 0) {
		s->ahead_off = off;
		s->ahead_bytes = s->ahead_size;
		memcpy(to, s->ahead, bytes);
		return (0);
	}
	return (eng_read(s->e, to, bytes, off));
}

/* The bytes of an object against its CRCs. */
static int
inspect_bytes(struct inspect *s, const struct mkv_obj_view *v, uint64_t *off)
{
	struct mkv_engine *e = s->e;
	uint64_t value = v->o->value_bytes, left, units = 0;

	for (unsigned i = 0; i < v->o->n_runs; i++) {
		if ((uint64_t)v->runs[i].off + v->runs[i].len > e->al.units)
			return (MKV_E_CORRUPT);
		units += v->runs[i].len;
	}
	if (value > e->sb.extent_bytes || value > units * e->sb.unit_bytes || v->o->n_crcs != mkv_crc_chunks(value))
		return (MKV_E_CORRUPT);
	for (uint64_t pos = 0; pos < value; pos += left) {
		int r;

		*off = req_phys(e, v->runs, v->o->n_runs, pos, &left);
		left = MKV_MIN(left, MKV_ALIGN_UP(value - pos, MKV_BLOCK));
		if ((r = inspect_read(s, s->data + pos, (uint32_t)left, *off)) != 0)
			return (r);
	}
	for (unsigned c = 0; c < v->o->n_crcs; c++) {
		uint64_t pos = (uint64_t)c * CHUNK;

		*off = req_phys(e, v->runs, v->o->n_runs, pos, &left);
		if (mkv_crc32c(0, s->data + pos, MKV_MIN(value - pos, CHUNK)) != v->crcs[c])
			return (MKV_E_CORRUPT);
	}
	return (0);
}

static void
inspect_data(struct inspect *s, uint32_t i, const struct mkv_obj_view *v)
{
	uint64_t off = 0;
	int r;

	if (!s->in->data || (v->o->flags & MKV_OBJ_MANIFEST))
		return;
	s->in->data_bytes += v->o->value_bytes;
	if ((r = inspect_bytes(s, v, &off)) == 0)
		return;
	s->mark[i] |= INSPECT_BAD;
	s->in->bad_data++;
	inspect_say(s, r == MKV_E_CORRUPT ? "its bytes do not match their checksums" : mkv_err(r), v, off);
}

static void
inspect_records(struct inspect *s, uint32_t page, const struct mkv_page *pg)
{
	struct mkv_engine *e = s->e;
	struct mkv_obj_view v, own;
	uint32_t pos = 0, i;

	while (mkv_page_next(pg, &pos, &v) == 1) {
		i = mkv_index_find(&e->ix, v.o->digest);
		if (i == MKV_ENT_NIL || eng_ent(e, i)->page != page || obj_in_page(e, eng_ent(e, i), pg, &own) != 0 || own.o != v.o)
			continue;
		s->mark[i] |= INSPECT_SEEN;
		s->in->objects++;
		s->in->pieces += (v.o->flags & MKV_OBJ_PIECE) != 0;
		inspect_data(s, i, &v);
	}
}

/* A page as the engine has it in memory, else as it lies on the medium. NULL: it cannot be read, or is damaged. */
static const struct mkv_page *
inspect_page(struct inspect *s, uint32_t page, uint32_t first)
{
	struct mkv_engine *e = s->e;
	struct mkv_page *pg = (struct mkv_page *)(s->window + (size_t)(page - first) * MKV_BLOCK);

	if (e->pg.frame_of[page] != 0) {
		const struct frame *f = &e->pg.frame[e->pg.frame_of[page] - 1];

		if (f->state == FR_OPEN || f->state == FR_WRITING || f->state == FR_CLEAN)
			return (f->pg);
	}
	if (!s->window_good && eng_read(e, pg, MKV_BLOCK, mkv_sb_page_at(&e->sb, page)) != 0)
		return (NULL);
	if (pg->magic != MKV_PAGE_MAGIC || pg->tag != e->tag || pg->page_no != page || pg->used > sizeof(pg->data) ||
	    !mkv_block_good(pg, offsetof(struct mkv_page, crc)))
		return (NULL);
	return (pg);
}

static void
inspect_window(struct inspect *s, uint32_t first, uint32_t n)
{
	struct mkv_engine *e = s->e;
	uint32_t live = 0;

	for (uint32_t p = first; p < first + n; p++)
		live += e->pg.live[p];
	if (live == 0)
		return;
	s->window_good = eng_read(e, s->window, n * MKV_BLOCK, mkv_sb_page_at(&e->sb, first)) == 0;
	for (uint32_t p = first; p < first + n && !e->cancelled; p++) {
		const struct mkv_page *pg;

		if (e->pg.live[p] == 0)
			continue;
		s->in->pages++;
		s->done += e->pg.live[p];
		if ((pg = inspect_page(s, p, first)) != NULL) {
			inspect_records(s, p, pg);
		} else {
			s->in->bad_pages++;
			inspect_say(s, "a metadata page is damaged", NULL, mkv_sb_page_at(&e->sb, p));
		}
		if (s->in->progress != NULL)
			s->in->progress(s->in->arg, s->done, e->ix.linked);
	}
}

/* Journal and index take it; the journal's room comes back as its groups end. */
static int
inspect_drop(struct mkv_engine *e, uint32_t i)
{
	int r;

	while ((r = evict_one(e, i, MKV_REASON_CORRUPT)) == MKV_E_AGAIN && !e->readonly) {
		journal_urgent(e);
		(void)mkv_engine_step(e);
		if (e->o.ops->pump(e->o.arg) == MKV_E_CANCELLED)
			return (MKV_E_CANCELLED);
	}
	return (e->readonly ? MKV_E_READONLY : r);
}

static int
inspect_settle(struct inspect *s)
{
	struct mkv_engine *e = s->e;
	uint32_t high = e->ix.ents_high;
	int r = 0;

	for (uint32_t i = 0; i < high; i++) {
		if ((eng_ent(e, i)->flags & MKV_ENT_LINKED) == 0 || (s->mark[i] & INSPECT_SEEN))
			continue;
		s->mark[i] |= INSPECT_BAD;
		s->in->bad_records++;
	}
	for (uint32_t i = 0; i < high && r == 0 && s->in->repair; i++) {
		if ((s->mark[i] & INSPECT_BAD) && (r = inspect_drop(e, i)) == 0)
			s->in->dropped++;
	}
	return (r);
}

int
mkv_engine_inspect(struct mkv_engine *e, struct mkv_inspect *in)
{
	struct inspect s = { .e = e, .in = in, .ahead_size = CHUNK };
	int r = MKV_E_NOMEM;

	MKV_CHECK_OBJ(e, MKV_ENGINE_MAGIC);
	MKV_ASSERT(e->at_work == 0);
	s.mark = calloc((size_t)e->ix.ents_high + 1, 1);
	if (posix_memalign((void **)&s.window, MKV_BLOCK, (size_t)INSPECT_WINDOW * MKV_BLOCK) != 0)
		s.window = NULL;
	if (posix_memalign((void **)&s.data, MKV_BLOCK, MKV_ALIGN_UP(e->sb.extent_bytes, CHUNK)) != 0)
		s.data = NULL;
	if (posix_memalign((void **)&s.ahead, MKV_BLOCK, INSPECT_AHEAD) != 0)
		s.ahead = NULL;
	if (s.mark != NULL && s.window != NULL && s.data != NULL && s.ahead != NULL) {
		for (uint32_t p = 0; p < e->pg.count && !e->cancelled; p += INSPECT_WINDOW)
			inspect_window(&s, p, MKV_MIN(INSPECT_WINDOW, e->pg.count - p));
		r = e->cancelled ? MKV_E_CANCELLED : inspect_settle(&s);
	}
	free(s.ahead);
	free(s.data);
	free(s.window);
	free(s.mark);
	return (r);
}
