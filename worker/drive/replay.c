/*
 * Replay of the journal. Drive's loop thread, during open.
 *
 * Blocks are read in order from start_seq. A block counts if its CRC, tag and sequence are right and its mount is not older than the block's before
 * it; the first one's, than the checkpoint's. (Of a group that a crash cut off, later blocks may have reached the medium and an earlier one not: the
 * next life's journal may end right before them, and so may its checkpoint.) The first that does not count is the end, unless a later block proves
 * that it was durable once: then it is damaged, the keys it named (the block after it carries their digests) are forgotten, and replay goes on; if
 * that list is lost too, everything older is forgotten.
 *
 * A block is applied when a later one says that it was durable. What lies behind the last such mark is the last group: its puts are believed only
 * if their data matches its CRCs. A put that does not match was never acknowledged (or, accepted, is lost within its window); then a checkpoint
 * must follow before anything else, or the next recovery would believe it.
 *
 * A page record in the last group is not believed: the page may have been in the drive's cache only. Its image is made again and written.
 */
#include "config.h"

#include <stdlib.h>
#include <string.h>

#include "common/base/crc.h"
#include "common/base/err.h"
#include "worker/drive/engine_priv.h"

#define REPLAY_WINDOW		512u		/* blocks in memory */
#define REPLAY_AHEAD		256u		/* blocks on their way there while others are applied */
#define REPLAY_STEPS		4u		/* of a look-up that comes soon: its bucket and the three first entries there */
#define REPLAY_LOOK_CLEAN	128u		/* how far to look behind a block that was plainly never written */

struct replay {
	struct mkv_engine *e;
	uint8_t		*mem;			/* REPLAY_WINDOW blocks */
	uint8_t		*data;			/* one chunk */
	uint64_t	base;			/* sequence of the first block in memory */
	uint32_t	count;
	uint64_t	start, next, apply;	/* next to look at, next to apply */
	uint64_t	flushed;
	uint32_t	mount, apply_mount;	/* of the last block looked at, applied */
	struct {
		struct mkv_mio	mio;
		uint8_t		*mem;		/* REPLAY_AHEAD blocks; the medium's until done */
		uint64_t	seq;
		uint32_t	blocks;		/* 0: nothing was asked for */
		int		done, res;
	} ahead;
};

static int
replay_read(struct replay *p, uint8_t *to, uint64_t seq, uint32_t n)
{
	struct mkv_sb *sb = &p->e->sb;

	while (n > 0) {
		uint32_t at = (uint32_t)(seq % sb->journal_blocks), k = MKV_MIN(n, sb->journal_blocks - at);
		int r = eng_read(p->e, to, k * MKV_BLOCK, mkv_sb_journal_at(sb, seq));

		if (r != 0)
			return (r);
		p->e->rec.recovery_read_bytes += (uint64_t)k * MKV_BLOCK;
		to += (size_t)k * MKV_BLOCK;
		seq += k;
		n -= k;
	}
	return (0);
}

/* A range that cannot be read at once is read block by block; what cannot be read is made a block that is neither good nor empty. */
static void
replay_read_hard(struct replay *p, uint8_t *to, uint64_t seq, uint32_t n)
{
	int r = replay_read(p, to, seq, n);

	for (uint32_t i = 0; r != 0 && i < n; i++) {
		uint8_t *b = to + (size_t)i * MKV_BLOCK;

		if (recover_read_spots(p->e, b, 1, mkv_sb_journal_at(&p->e->sb, seq + i)) != 0)
			memset(b, 0xff, MKV_BLOCK);
	}
}

static void
replay_on_ahead(struct mkv_mio *mio, int res)
{
	struct replay *p = MKV_CONTAINER_OF(mio, struct replay, ahead.mio);

	p->ahead.done = 1;
	p->ahead.res = res;
}

/* Ask for what follows the window, up to the ring's end. A ring that fits the window is there already. */
static void
replay_ahead_begin(struct replay *p)
{
	struct mkv_engine *e = p->e;
	uint64_t seq = p->base + p->count;

	if (e->cancelled || e->sb.journal_blocks <= REPLAY_WINDOW)
		return;
	p->ahead.seq = seq;
	p->ahead.blocks = (uint32_t)MKV_MIN((uint64_t)REPLAY_AHEAD, e->sb.journal_blocks - seq % e->sb.journal_blocks);
	p->ahead.done = 0;
	memset(&p->ahead.mio, 0, sizeof(p->ahead.mio));
	p->ahead.mio.done = replay_on_ahead;
	e->rec.recovery_read_bytes += (uint64_t)p->ahead.blocks * MKV_BLOCK;
	e->o.media->ops->read(e->o.media, &p->ahead.mio, p->ahead.mem, p->ahead.blocks * MKV_BLOCK, mkv_sb_journal_at(&e->sb, seq), -1);
	(void)e->o.media->ops->pump(e->o.media, 0);	/* or it begins when somebody waits for it */
}

/* Blocks of [seq, seq+n) that were asked for and are there now, copied to `to`. */
static uint32_t
replay_ahead_take(struct replay *p, uint8_t *to, uint64_t seq, uint32_t n)
{
	uint32_t blocks = p->ahead.blocks;

	if (blocks == 0)
		return (0);
	while (!p->ahead.done && !p->e->cancelled) {
		if (p->e->o.ops->pump(p->e->o.arg) == MKV_E_CANCELLED)
			p->e->cancelled = 1;
	}
	p->ahead.blocks = 0;
	if (p->e->cancelled || p->ahead.res != 0 || p->ahead.seq != seq || blocks > n)
		return (0);
	memcpy(to, p->ahead.mem, (size_t)blocks * MKV_BLOCK);
	return (blocks);
}

/* Move the window so that it has block seq. It begins at the oldest block that is still to be applied, where that is near enough. */
static void
replay_window(struct replay *p, uint64_t seq)
{
	uint64_t base = p->apply <= seq && seq - p->apply < REPLAY_WINDOW - 8 ? p->apply : seq;
	uint32_t keep = 0, room = (uint32_t)MKV_MIN((uint64_t)REPLAY_WINDOW, p->e->sb.journal_blocks), n;

	if (base >= p->base && base < p->base + p->count) {
		keep = (uint32_t)(p->base + p->count - base);
		memmove(p->mem, p->mem + (size_t)(base - p->base) * MKV_BLOCK, (size_t)keep * MKV_BLOCK);
	}
	p->base = base;
	n = replay_ahead_take(p, p->mem + (size_t)keep * MKV_BLOCK, base + keep, room - keep);
	p->count = keep + n;
	if (seq >= base + p->count) {
		replay_read_hard(p, p->mem + (size_t)p->count * MKV_BLOCK, base + p->count, room - p->count);
		p->count = room;
	}
	replay_ahead_begin(p);
}

static const struct mkv_jblock *
replay_block(struct replay *p, uint64_t seq)
{
	if (seq < p->base || seq >= p->base + p->count)
		replay_window(p, seq);
	return ((const struct mkv_jblock *)(p->mem + (size_t)(seq - p->base) * MKV_BLOCK));
}

static int
replay_whole(const struct replay *p, const struct mkv_jblock *b)
{
	return (b->magic == MKV_JBLOCK_MAGIC && b->tag == p->e->tag && b->used <= sizeof(b->data) && 8u * b->n_touched <= b->used &&
	    mkv_block_good(b, offsetof(struct mkv_jblock, crc)));
}

static int
replay_good_since(const struct replay *p, const struct mkv_jblock *b, uint64_t seq, uint32_t mount)
{
	return (b->seq == seq && b->mount >= mount && b->mount < p->e->sb.mount && b->flushed < seq && replay_whole(p, b));
}

static int
replay_good(const struct replay *p, const struct mkv_jblock *b, uint64_t seq)
{
	return (replay_good_since(p, b, seq, p->mount));
}

static int
replay_never_written(const struct replay *p, const struct mkv_jblock *b)
{
	static const uint8_t zero[MKV_BLOCK];

	return (memcmp(b, zero, MKV_BLOCK) == 0 || replay_whole(p, b));
}

/* Block seq does not count. Was it durable once? Then a block behind it says so. */
static int
replay_was_durable(struct replay *p, uint64_t seq)
{
	uint64_t limit = replay_never_written(p, replay_block(p, seq)) ? REPLAY_LOOK_CLEAN : p->e->sb.journal_blocks;
	uint64_t end = MKV_MIN(seq + limit, p->start + p->e->sb.journal_blocks);

	for (uint64_t s = seq + 1; s < end; s++) {
		const struct mkv_jblock *b = replay_block(p, s);

		if (replay_good(p, b, s) && b->flushed >= seq)
			return (1);
	}
	return (0);
}

/* Does the data of a put match its CRCs? MKV_E_IO: it cannot be read, and nobody knows. */
static int
replay_data_good(struct replay *p, const struct mkv_obj_view *v)
{
	struct mkv_engine *e = p->e;
	uint64_t pos = 0, units = 0;

	for (unsigned i = 0; i < v->o->n_runs; i++) {
		if ((uint64_t)v->runs[i].off + v->runs[i].len > e->al.units)
			return (0);
		units += v->runs[i].len;
	}
	if (v->o->flags & MKV_OBJ_MANIFEST)
		return (1);
	if (v->o->value_bytes > units * e->sb.unit_bytes || v->o->n_crcs != mkv_crc_chunks(v->o->value_bytes))
		return (0);
	for (unsigned c = 0; c < v->o->n_crcs; c++) {
		uint64_t len = MKV_MIN(v->o->value_bytes - pos, CHUNK), room = MKV_ALIGN_UP(len, MKV_BLOCK), left;

		for (uint64_t k = 0; k < room; k += left) {
			uint64_t at = req_phys(e, v->runs, v->o->n_runs, pos + k, &left);

			left = MKV_MIN(left, room - k);
			if (eng_read(e, p->data + k, (uint32_t)left, at) != 0 && eng_read(e, p->data + k, (uint32_t)left, at) != 0)
				return (MKV_E_IO);
		}
		if (mkv_crc32c(0, p->data, len) != v->crcs[c])
			return (0);
		pos += len;
	}
	return (1);
}

static void
replay_put(struct replay *p, const struct mkv_jrec *rec, int tail)
{
	struct mkv_engine *e = p->e;
	struct mkv_obj_view v;
	uint32_t i;
	int good;

	if (mkv_obj_parse(rec->body, rec->bytes - sizeof(*rec), &v) != 0 || !mkv_digest_eq(v.o->digest, rec->digest)) {
		e->rec.damaged_blocks++;
		return;
	}
	if (tail && (good = replay_data_good(p, &v)) != 1) {
		e->rec.torn_records++;
		e->ck.wanted = 1;
		/* Perhaps it was acknowledged: what it replaced must not come back. */
		while (good != 0 && (i = mkv_index_find(&e->ix, rec->digest)) != MKV_ENT_NIL) {
			recover_drop(e, i, MKV_REASON_LOST);
			e->rec.lost_objects++;
		}
		return;
	}
	if (page_replay(e, rec->page, rec->pos, v.o) != 0 || recover_ent(e, &v, rec->page) != 0)
		e->rec.lost_objects++;
}

static void
replay_move(struct replay *p, const struct mkv_jrec *rec)
{
	struct mkv_engine *e = p->e;
	struct mkv_obj_view v;
	uint32_t i;

	if (mkv_obj_parse(rec->body, rec->bytes - sizeof(*rec), &v) != 0 || page_replay(e, rec->page, rec->pos, v.o) != 0) {
		e->rec.damaged_blocks++;
		return;
	}
	i = mkv_index_find(&e->ix, rec->digest);
	if (i != MKV_ENT_NIL && eng_ent(e, i)->page == rec->arg)
		eng_ent(e, i)->page = rec->page;
}

static void
replay_touch(struct replay *p, const struct mkv_jrec *rec)
{
	const struct mkv_jtouch *t = (const void *)rec->body;
	uint32_t i = mkv_index_find(&p->e->ix, rec->digest);

	if (i == MKV_ENT_NIL || rec->bytes < sizeof(*rec) + sizeof(*t))
		return;
	eng_ent(p->e, i)->expires = eng_ticks(p->e, t->expires_ms);
	eng_ent(p->e, i)->flags |= t->flags & MKV_DRV_F_PIN ? MKV_ENT_PIN : 0;
	eng_ent(p->e, i)->flags |= t->flags & MKV_DRV_F_VERIFIED ? MKV_ENT_VERIFIED : 0;
}

static void
replay_record(struct replay *p, const struct mkv_jrec *rec, int tail)
{
	struct mkv_engine *e = p->e;
	const struct mkv_jset *s = (const void *)rec->body;
	uint32_t i;

	switch (rec->type) {
	case MKV_J_PUT:
		replay_put(p, rec, tail);
		break;
	case MKV_J_MOVE:
		replay_move(p, rec);
		break;
	case MKV_J_DROP:
		while ((i = mkv_index_find(&e->ix, rec->digest)) != MKV_ENT_NIL)
			recover_drop(e, i, rec->arg < MKV_REASON_COUNT ? rec->arg : MKV_REASON_NONE);
		break;
	case MKV_J_TOUCH:
		replay_touch(p, rec);
		break;
	case MKV_J_PAGE_WRITTEN:
		if (!tail)
			page_replay_written(e, rec->page);
		break;
	case MKV_J_SET_COMMITTED:
		if (rec->bytes >= sizeof(*rec) + sizeof(*s))
			setjob_replay_committed(e, s->set, MKV_MIN(s->piece_count, MKV_DRV_PIECES_MAX));
		break;
	case MKV_J_SET_FREED:
		if (rec->bytes >= sizeof(*rec) + sizeof(*s))
			set_replay_freed(e, s->set);
		break;
	case MKV_J_LEASE:
		if (rec->bytes >= sizeof(*rec) + sizeof(struct mkv_jlease))
			lease_recovered(e, ((const struct mkv_jlease *)rec->body)->until_ms);
		break;
	case MKV_J_PURGE:
		if (rec->arg <= MKV_DRV_NS_MAX && rec->bytes >= sizeof(*rec) + rec->arg)
			ns_replay_purge(e, rec->body, rec->arg);
		break;
	default:				/* foreign bytes behind a good CRC: another program */
		e->rec.damaged_blocks++;
		break;
	}
}

/* A step of the walk over a block's records: the record at pos, NULL where none can be. */
static const struct mkv_jrec *
replay_step(const struct mkv_jblock *b, uint32_t pos)
{
	const struct mkv_jrec *rec = (const void *)(b->data + pos);

	if (pos + sizeof(*rec) > b->used || rec->bytes < sizeof(*rec) || rec->bytes % 8 != 0 || pos + rec->bytes > b->used)
		return (NULL);
	return (rec);
}

/* Each record is a look-up or two, and each of these a miss: the memory of the blocks to come is asked for before it is used. They may be anything. */
static void
replay_prefetch(struct replay *p, uint64_t seq, unsigned step)
{
	const struct mkv_jblock *b = (const struct mkv_jblock *)(p->mem + (size_t)(seq - p->base) * MKV_BLOCK);
	const struct mkv_jrec *rec;
	uint32_t pos;

	if (seq < p->base || seq >= p->base + p->count || b->used > sizeof(b->data))
		return;
	pos = 8u * b->n_touched;
	for (unsigned n = 0; n < b->n_records && (rec = replay_step(b, pos)) != NULL; n++, pos += rec->bytes)
		mkv_index_prefetch(&p->e->ix, rec->digest, step);
}

static void
replay_apply_good(struct replay *p, const struct mkv_jblock *b, int tail)
{
	uint32_t pos = 8u * b->n_touched;
	const struct mkv_jrec *rec;

	for (unsigned n = 0; n < b->n_records; n++, pos += rec->bytes) {
		if ((rec = replay_step(b, pos)) == NULL) {
			p->e->rec.damaged_blocks++;
			return;
		}
		replay_record(p, rec, tail);
	}
}

/* Forget every key that the damaged block named, as far as anybody knows. */
static void
replay_apply_damaged(struct replay *p, uint64_t seq)
{
	const struct mkv_jblock *b = replay_block(p, seq + 1);
	struct mkv_engine *e = p->e;

	e->rec.damaged_blocks++;
	if (!replay_good_since(p, b, seq + 1, p->apply_mount)) {
		recover_drop_all(e);
		return;
	}
	for (unsigned k = 0; k < b->n_touched; k++) {
		uint32_t it, i;
		uint64_t lo;

		memcpy(&lo, b->data + 8u * k, 8);
		ns_replay_touched(e, lo);
		for (it = 0; (i = mkv_index_find_lo(&e->ix, lo, &it)) != MKV_ENT_NIL; it = 0) {
			recover_drop(e, i, MKV_REASON_LOST);
			e->rec.lost_objects++;
		}
	}
}

static void
replay_apply(struct replay *p, uint64_t upto, int tail)
{
	for (; p->apply <= upto; p->apply++) {
		const struct mkv_jblock *b = replay_block(p, p->apply);

		for (unsigned k = 0; k < REPLAY_STEPS; k++)
			replay_prefetch(p, p->apply + REPLAY_STEPS - k, k);
		if (replay_good_since(p, b, p->apply, p->apply_mount)) {
			p->apply_mount = b->mount;
			replay_apply_good(p, b, tail);
		} else
			replay_apply_damaged(p, p->apply);
	}
}

/* Find the end; apply what is known durable on the way. */
static void
replay_scan(struct replay *p)
{
	uint64_t lap = p->start + p->e->sb.journal_blocks;

	for (p->next = p->start; p->next < lap; p->next++) {
		const struct mkv_jblock *b = replay_block(p, p->next);

		if (replay_good(p, b, p->next)) {
			p->mount = b->mount;
			p->flushed = MKV_MAX(p->flushed, b->flushed);
			if (p->flushed >= p->apply)
				replay_apply(p, MKV_MIN(p->flushed, p->next), 0);
		} else if (!replay_was_durable(p, p->next))
			break;
	}
}

/* No checkpoint fits the journal: what it says cannot be completed. Go on behind everything that was ever written. */
static void
replay_distrust(struct replay *p)
{
	uint64_t newest = p->start;

	recover_drop_all(p->e);
	p->e->rec.damaged_blocks++;
	p->e->ck.wanted = 1;
	for (uint64_t s = 0; s < p->e->sb.journal_blocks; s++) {
		const struct mkv_jblock *b = replay_block(p, s);

		if (replay_whole(p, b))
			newest = MKV_MAX(newest, b->seq);
	}
	p->start = p->next = p->apply = newest + 1;
}

/* 1: the ring went on over start_seq: blocks that the checkpoint needs are gone. Where its own block says nothing, the next whole one does. */
static int
replay_lapped(struct replay *p)
{
	for (uint64_t s = p->start; s < p->start + REPLAY_LOOK_CLEAN / 2; s++) {
		const struct mkv_jblock *b = replay_block(p, s);

		if (replay_whole(p, b))
			return (b->seq > s);
		if (replay_never_written(p, b))
			return (0);
	}
	return (0);
}

/*
 * The journal ends at a block that could not be read. A power loss leaves such blocks, in the last group; so does a medium that was away for a moment,
 * and then there is no end here at all. Whatever can be read meanwhile is the latter: to be opened again.
 */
static int
replay_end_unread(struct replay *p)
{
	const struct mkv_jblock *b = replay_block(p, p->next);
	struct mkv_engine *e = p->e;
	int r;

	if (b->magic != UINT32_MAX)
		return (0);
	r = eng_read(e, p->data, MKV_BLOCK, mkv_sb_journal_at(&e->sb, p->next));
	if (r == 0)
		return (((const struct mkv_jblock *)(const void *)p->data)->magic == UINT32_MAX ? 0 : MKV_E_IO);
	e->rec.damaged_blocks++;
	return (0);
}

/*
 * Does the place of the next block, where it is not one that is still needed, hold anything but a whole block of a former lap? Then it is part of one that
 * was being written at the crash, and what is written there next could be torn so that the two make it whole (journal_wipe()).
 */
static int
replay_remains(struct replay *p)
{
	return (p->next - p->start < p->e->sb.journal_blocks && !replay_never_written(p, replay_block(p, p->next)));
}

static void
replay_end(struct replay *p)
{
	struct journal *j = &p->e->jn;

	j->remains = replay_remains(p);
	j->next_seq = p->next;
	j->flushed = j->last_record = p->next - 1;	/* made durable by the superblock's flush, before anything is answered */
	j->tail = p->start;
	j->last_idle = p->next == p->start;
	j->n_touched = 0;
	if (p->next > p->start) {
		const struct mkv_jblock *b = replay_block(p, p->next - 1);
		uint32_t pos = 8u * b->n_touched;

		for (unsigned n = 0; replay_good_since(p, b, p->next - 1, p->apply_mount) && n < b->n_records && pos + sizeof(struct mkv_jrec) <= b->used; n++) {
			const struct mkv_jrec *rec = (const void *)(b->data + pos);

			if (rec->bytes < sizeof(*rec) || j->n_touched == MKV_TOUCHED_MAX)
				break;
			if (mkv_jtype_touches(rec->type))
				j->touched[j->n_touched++] = rec->digest.lo;
			pos += rec->bytes;
		}
	}
}

static void
replay_free(struct replay *p)
{
	(void)replay_ahead_take(p, NULL, 0, 0);
	free(p->ahead.mem);
	free(p->data);
	free(p->mem);
}

static int
replay_alloc(struct replay *p)
{
	if (posix_memalign((void **)&p->mem, MKV_BLOCK, (size_t)REPLAY_WINDOW * MKV_BLOCK) != 0)
		p->mem = NULL;
	if (posix_memalign((void **)&p->ahead.mem, MKV_BLOCK, (size_t)REPLAY_AHEAD * MKV_BLOCK) != 0)
		p->ahead.mem = NULL;
	if (posix_memalign((void **)&p->data, MKV_BLOCK, CHUNK) != 0)
		p->data = NULL;
	return (p->mem != NULL && p->ahead.mem != NULL && p->data != NULL ? 0 : MKV_E_NOMEM);
}

int
replay_run(struct mkv_engine *e, uint64_t start_seq, uint32_t mount, int fresh)
{
	struct replay p = { .e = e, .start = start_seq, .next = start_seq, .apply = start_seq, .flushed = start_seq - 1, .mount = mount, .apply_mount = mount };
	uint64_t believed;
	int r;

	if (fresh)
		return (0);
	if ((r = replay_alloc(&p)) != 0) {
		replay_free(&p);
		return (r);
	}
	if (!replay_lapped(&p)) {
		replay_scan(&p);
		believed = p.apply - 1;
		if (p.next > p.apply)
			replay_apply(&p, p.next - 1, 1);
		/* A record that was refused must be refused again if we crash before the checkpoint: no block may call it durable. */
		if (e->rec.torn_records > 0)
			e->jn.mark_max = believed;
		r = replay_end_unread(&p);
	} else if (e->ck.hidden)
		r = MKV_E_IO;			/* the checkpoint that the journal belongs to is there, but cannot be read */
	else
		replay_distrust(&p);
	if (e->unreadable > ENG_SPOTS_MAX)
		r = MKV_E_IO;
	replay_end(&p);
	replay_free(&p);
	return (r);
}
