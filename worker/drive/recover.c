/*
 * Recovery: newest good checkpoint, then the journal (replay.c), then one pass over the index that claims units and pages. Drive's loop thread,
 * during open; nothing else runs.
 *
 * Damage is counted and costs what only the damaged block knew. If what is left could be older than what is lost (the newest checkpoint is gone and
 * the journal was overwritten since the other one), nothing of it is believed: an empty store is right, a stale one is not.
 */
#include "config.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/err.h"
#include "common/base/log.h"
#include "worker/drive/engine_priv.h"

#define RECOVER_READ_BLOCKS	256u
#define RECOVER_AHEAD		16u		/* entries */

void
recover_drop(struct mkv_engine *e, uint32_t i, unsigned reason)
{
	struct mkv_ent *en = eng_ent(e, i);

	if (reason != MKV_REASON_NONE)
		eng_ghost(e, en->digest, reason);
	mkv_index_unlink(&e->ix, i);
	ns_remove(e, i);
	if (en->flags & MKV_ENT_MANIFEST) {
		const struct mkv_side *s = &e->ix.side[en->run];
		struct mkv_jset js = { .set = s->set, .stripe_mask = s->stripe_mask, .piece_count = s->piece_count };

		setmap_del(e, en->run);
		set_replay_gone(e, &js);
	}
	if (en->flags & (MKV_ENT_MANIFEST | MKV_ENT_MULTI))
		mkv_side_drop(&e->ix, en->run);
	mkv_index_drop(&e->ix, i);
}

void
recover_drop_all(struct mkv_engine *e)
{
	for (uint32_t i = 0; i < e->ix.ents_high; i++) {
		if ((eng_ent(e, i)->flags & MKV_ENT_LINKED) == 0)
			continue;
		recover_drop(e, i, MKV_REASON_LOST);
		e->rec.lost_objects++;
	}
}

/* A slot with its side record. MKV_ENT_NIL: tables full. */
static uint32_t
recover_slot(struct mkv_engine *e, struct mkv_digest d, int side)
{
	uint32_t i = mkv_index_take(&e->ix), s;

	if (i == MKV_ENT_NIL)
		return (i);
	eng_ent(e, i)->digest = d;
	if (!side)
		return (i);
	if ((s = mkv_side_take(&e->ix)) == MKV_ENT_NIL) {
		mkv_index_drop(&e->ix, i);
		return (MKV_ENT_NIL);
	}
	eng_ent(e, i)->run = s;
	return (i);
}

/* In the place of all that have its digest: a checkpoint that was made while a key was overwritten may know the old one and the new one. */
static void
recover_link(struct mkv_engine *e, uint32_t i)
{
	uint32_t old;

	while ((old = mkv_index_find(&e->ix, eng_ent(e, i)->digest)) != MKV_ENT_NIL)
		recover_drop(e, old, MKV_REASON_NONE);
	/* The same manifest again: replay met a checkpoint that had it already. */
	if (eng_ent(e, i)->flags & MKV_ENT_MANIFEST) {
		set_replay_freed(e, e->ix.side[eng_ent(e, i)->run].set);
		setmap_add(e, i);
	}
	mkv_index_link(&e->ix, i);
	ns_add(e, i);
}

/*
 * Most records of a journal overwrite: the new object gets the slot of the old one, and with it the place in the chain. MKV_ENT_NIL: there is none, or it has
 * a side record.
 */
static uint32_t
recover_reuse(struct mkv_engine *e, struct mkv_digest d)
{
	uint32_t i = mkv_index_find(&e->ix, d), twin;
	struct mkv_ent *en = eng_ent(e, i != MKV_ENT_NIL ? i : 0);

	if (i == MKV_ENT_NIL || (en->flags & (MKV_ENT_MANIFEST | MKV_ENT_MULTI)))
		return (MKV_ENT_NIL);
	while ((twin = mkv_index_find_next(&e->ix, i)) != MKV_ENT_NIL)
		recover_drop(e, twin, MKV_REASON_NONE);
	ns_remove(e, i);
	*en = (struct mkv_ent){ .digest = d, .next = en->next, .flags = MKV_ENT_USED | MKV_ENT_LINKED };
	return (i);
}

static void
recover_set(struct mkv_side *s, struct mkv_set_id set, uint64_t mask, uint32_t piece_count)
{
	s->set = set;
	s->stripe_mask = mask;
	s->piece_count = piece_count;
}

static void
recover_runs(struct mkv_engine *e, struct mkv_ent *en, const struct mkv_run *run, unsigned n)
{
	if (n > 1) {
		en->flags |= MKV_ENT_MULTI;
		e->ix.side[en->run].n = n;
		memcpy(e->ix.side[en->run].run, run, n * sizeof(*run));
	} else
		en->run = n ? run[0].off : 0;
}

int
recover_ent(struct mkv_engine *e, const struct mkv_obj_view *v, uint32_t page)
{
	const struct mkv_obj *o = v->o;
	int manifest = (o->flags & MKV_OBJ_MANIFEST) != 0, side = manifest || o->n_runs > 1, reused;
	struct mkv_ent *en;
	uint64_t mask = 0;
	uint32_t i, slot = 0;

	if (o->units > UINT16_MAX || (manifest && v->set == NULL))
		return (MKV_E_CORRUPT);
	if ((o->flags & MKV_OBJ_PIECE) == 0 && (slot = ns_take(e, v->ns, o->ns_bytes)) == 0)
		return (MKV_E_NOMEM);
	i = side ? MKV_ENT_NIL : recover_reuse(e, o->digest);
	reused = i != MKV_ENT_NIL;
	if (!reused && (i = recover_slot(e, o->digest, side)) == MKV_ENT_NIL && ns_replay_sweep(e))
		i = recover_slot(e, o->digest, side);
	if (i == MKV_ENT_NIL)
		return (MKV_E_NOMEM);
	en = eng_ent(e, i);
	en->page = page;
	en->slot = slot & MKV_ENT_SLOT_MAX;
	en->units = (uint16_t)o->units;
	en->expires = eng_ticks(e, o->expires_ms);
	en->flags |= o->flags & MKV_OBJ_VERIFIED ? MKV_ENT_VERIFIED : 0;
	en->flags |= o->flags & MKV_OBJ_PIN ? MKV_ENT_PIN : 0;
	en->flags |= o->flags & MKV_OBJ_PIECE ? MKV_ENT_PIECE | MKV_ENT_PROVISIONAL : 0;
	if (manifest) {
		for (unsigned k = 0; k < o->n_stripe; k++)
			mask |= 1ull << (v->stripe[k] & 63);
		en->flags |= MKV_ENT_MANIFEST;
		recover_set(&e->ix.side[en->run], v->set->set, mask, v->set->piece_count);
	} else
		recover_runs(e, en, v->runs, o->n_runs);
	if (reused)
		ns_add(e, i);
	else
		recover_link(e, i);
	return (0);
}

/* An item with more behind it than itself: runs, a set. What does not hold together is skipped. */
static void
recover_item_rare(struct mkv_engine *e, const struct mkv_ckpt_item *it, struct mkv_ent *en)
{
	uint32_t room = it->bytes - (uint32_t)sizeof(*it), i;
	struct mkv_jset js = { 0 };
	struct mkv_run run[MKV_OBJ_RUNS_MAX] = { { 0, 0 } };
	int manifest = it->kind == MKV_CI_OBJECT && (it->flags & MKV_ENT_MANIFEST), side = manifest || it->n_runs > 1;

	if (it->kind == MKV_CI_SETFREE || manifest) {
		if (room < sizeof(js))
			return;
		memcpy(&js, it->body, sizeof(js));
	}
	if (it->kind == MKV_CI_SETFREE) {
		set_replay_gone(e, &js);
		return;
	}
	if (it->kind == MKV_CI_SLOT) {
		ns_replay_item(e, it);
		return;
	}
	if (it->kind != MKV_CI_OBJECT || it->n_runs > MKV_OBJ_RUNS_MAX || (!manifest && room < it->n_runs * sizeof(run[0])))
		return;
	if (!!(it->flags & MKV_ENT_MULTI) != (it->n_runs > 1))
		return;
	if (side && (en->run = mkv_side_take(&e->ix)) == MKV_ENT_NIL)
		return;
	if (manifest) {
		recover_set(&e->ix.side[en->run], js.set, js.stripe_mask, js.piece_count);
	} else if (it->n_runs > 1) {
		memcpy(run, it->body, it->n_runs * sizeof(run[0]));
		recover_runs(e, en, run, it->n_runs);
	}
	i = mkv_index_add(&e->ix, en);
	if (i == MKV_ENT_NIL && side)
		mkv_side_drop(&e->ix, en->run);
	else if (i != MKV_ENT_NIL) {
		ns_add(e, i);
		if (manifest)
			setmap_add(e, i);
	}
}

/*
 * One item of a checkpoint. Its block had a good CRC. A look for others with its digest would cost most of the time of a recovery: the journal has the
 * record that made the second one, and it drops both (recover_link()).
 */
static void
recover_item(struct mkv_engine *e, const struct mkv_ckpt_item *it)
{
	struct mkv_ent en = {
		.digest = it->digest, .page = it->page, .run = it->run, .units = it->units, .flags = it->flags & MKV_ENT_LASTING, .expires = it->expires,
		.rank = it->rank, .slot = it->slot & MKV_ENT_SLOT_MAX,
	};
	uint32_t i;

	if (it->kind == MKV_CI_OBJECT && !ns_replay_known(e, it->slot, (it->flags & MKV_ENT_PIECE) != 0))
		return;
	if (it->kind == MKV_CI_OBJECT && it->n_runs == 0 && (it->flags & (MKV_ENT_MULTI | MKV_ENT_MANIFEST)) == 0) {
		if ((i = mkv_index_add(&e->ix, &en)) != MKV_ENT_NIL)
			ns_add(e, i);
	} else
		recover_item_rare(e, it, &en);
}

/* A step of the walk over a block's items: bytes of the item at pos, 0 at the end. */
static uint32_t
recover_step(const struct mkv_ckpt_block *b, uint32_t pos)
{
	const struct mkv_ckpt_item *it = (const void *)(b->data + pos);

	if (pos + sizeof(*it) > b->used || it->bytes < sizeof(*it) || it->bytes % 8 != 0 || pos + it->bytes > b->used)
		return (0);
	return (it->bytes);
}

/*
 * The items of a block. Millions of them, each with a miss or two: beside each item the memory for the same one of the next block is asked for, as far
 * from its use as the processor can go on with others meanwhile. That block (NULL: none) may be anything.
 */
static uint64_t
recover_block(struct mkv_engine *e, const struct mkv_ckpt_block *b, const struct mkv_ckpt_block *next)
{
	uint32_t pos = 0, bytes, ahead = 0;
	uint64_t n = 0;

	if (next != NULL && next->used > sizeof(next->data))
		next = NULL;
	for (; n < b->n_items && (bytes = recover_step(b, pos)) != 0; n++, pos += bytes) {
		uint32_t k = next != NULL ? recover_step(next, ahead) : 0;

		if (k != 0)
			mkv_index_prefetch(&e->ix, ((const struct mkv_ckpt_item *)(const void *)(next->data + ahead))->digest, 0);
		ahead += k;
		recover_item(e, (const struct mkv_ckpt_item *)(const void *)(b->data + pos));
	}
	return (n);
}

/* A piece of the body on its way to memory while the one before it is worked on. The medium owns it until it is done. */
struct recover_read {
	struct mkv_mio	mio;
	int		done, res;
	uint8_t		*buf;			/* RECOVER_READ_BLOCKS blocks */
	uint32_t	at, blocks;
};

static void
recover_on_read(struct mkv_mio *mio, int res)
{
	struct recover_read *rd = MKV_CONTAINER_OF(mio, struct recover_read, mio);

	rd->done = 1;
	rd->res = res;
}

static void
recover_read_begin(struct mkv_engine *e, struct recover_read *rd, const struct mkv_ckpt_head *h, uint32_t area, uint32_t at)
{
	rd->at = at;
	rd->blocks = at < h->blocks ? MKV_MIN(RECOVER_READ_BLOCKS, h->blocks - at) : 0;
	rd->done = rd->blocks == 0;
	if (rd->done)
		return;
	memset(&rd->mio, 0, sizeof(rd->mio));
	rd->mio.done = recover_on_read;
	e->rec.recovery_read_bytes += (uint64_t)rd->blocks * MKV_BLOCK;
	e->o.media->ops->read(e->o.media, &rd->mio, rd->buf, rd->blocks * MKV_BLOCK, e->sb.ckpt_off[area] + (uint64_t)(1 + at) * MKV_BLOCK, -1);
	(void)e->o.media->ops->pump(e->o.media, 0);	/* or it begins when somebody waits for it */
}

/* 0, or MKV_E_CANCELLED: the process is to end, and nothing turns the loop again. */
static int
recover_read_wait(struct mkv_engine *e, struct recover_read *rd)
{
	while (!rd->done && !e->cancelled) {
		if (e->o.ops->pump(e->o.arg) == MKV_E_CANCELLED)
			e->cancelled = 1;
	}
	return (e->cancelled ? MKV_E_CANCELLED : 0);
}

int
recover_read_spots(struct mkv_engine *e, uint8_t *to, uint32_t blocks, uint64_t off)
{
	int bad;

	if (e->unreadable > ENG_SPOTS_MAX)
		return (MKV_E_IO);
	if ((bad = eng_read_spots(e, to, blocks, off)) < 0)
		return (bad);
	e->unreadable += (uint32_t)bad;
	return (e->unreadable > ENG_SPOTS_MAX ? MKV_E_IO : 0);
}

/* The items of one piece. */
static uint64_t
recover_piece(struct mkv_engine *e, const struct mkv_ckpt_head *h, const struct recover_read *rd)
{
	const struct mkv_ckpt_block *b = (const void *)rd->buf;
	uint64_t items = 0;

	for (uint32_t i = 0; i < rd->blocks; i++, b++) {
		if (b->magic != MKV_CKPT_MAGIC || b->tag != e->tag || b->id != h->id || b->block_no != rd->at + i ||
		    b->used > sizeof(b->data) || !mkv_block_good(b, offsetof(struct mkv_ckpt_block, crc))) {
			e->rec.damaged_blocks++;
			continue;
		}
		items += recover_block(e, b, i + 1 < rd->blocks ? b + 1 : NULL);
	}
	return (items);
}

/* More than there can be: the slots of those that are there twice are needed for what the journal brings. The later item is the newer one. */
static void
recover_twins(struct mkv_engine *e)
{
	for (uint32_t i = 0; i < e->ix.ents_high; i++) {
		const struct mkv_ent *en = eng_ent(e, i);

		if ((en->flags & MKV_ENT_LINKED) && mkv_index_find(&e->ix, en->digest) != i)
			recover_drop(e, i, MKV_REASON_NONE);
	}
}

static int
recover_body(struct mkv_engine *e, const struct mkv_ckpt_head *h, uint32_t area, struct recover_read *rd)
{
	uint64_t items = 0;
	unsigned now = 0;
	int r;

	mkv_index_expect(&e->ix, (uint32_t)MKV_MIN(h->items, UINT32_MAX));
	recover_read_begin(e, &rd[0], h, area, 0);
	for (; rd[now].blocks > 0; now ^= 1) {
		recover_read_begin(e, &rd[now ^ 1], h, area, rd[now].at + rd[now].blocks);
		if ((r = recover_read_wait(e, &rd[now])) == 0 && rd[now].res != 0)
			r = recover_read_spots(e, rd[now].buf, rd[now].blocks, e->sb.ckpt_off[area] + (uint64_t)(1 + rd[now].at) * MKV_BLOCK);
		if (r != 0)
			return (recover_read_wait(e, &rd[now ^ 1]) != 0 ? MKV_E_CANCELLED : r);
		items += recover_piece(e, h, &rd[now]);
	}
	mkv_index_expected(&e->ix);
	ns_replay_named(e);
	if (e->ix.linked > e->sb.objects_max)
		recover_twins(e);
	if (items < h->items)
		e->rec.lost_objects += (uint32_t)(h->items - items);
	return (0);
}

static int
recover_head_good(const struct mkv_engine *e, const struct mkv_ckpt_head *h)
{
	return (h->magic == MKV_CKPT_HEAD_MAGIC && h->tag == e->tag && h->blocks <= e->sb.ckpt_blocks - 2 &&
	    mkv_block_good(h, offsetof(struct mkv_ckpt_head, crc)));
}

/* Bytes that nobody wrote: a head that was torn is an older one, another store's, or blank, since all it says lies in one sector. */
static int
recover_head_rotten(const struct mkv_ckpt_head *h)
{
	static const uint8_t blank[MKV_BLOCK];

	return (!mkv_block_good(h, offsetof(struct mkv_ckpt_head, crc)) && memcmp(h, blank, sizeof(blank)) != 0);
}

/*
 * The newest head of both areas, both copies. 1 found; 0 none; MKV_E_IO: there may be one, and nobody can tell; MKV_E_CANCELLED.
 *
 * An area whose heads cannot be read may hold the newest checkpoint. The journal still reaches back to the other one, or it does not: then replay
 * says so (ck.hidden). If it does, the next checkpoint goes over the hidden one before anything is served, so that this one never comes back.
 */
static int
recover_head(struct mkv_engine *e, struct mkv_ckpt_head *best, uint32_t *area, uint8_t *buf)
{
	int good[2] = { 0, 0 }, bad[2] = { 0, 0 }, rotten[2] = { 0, 0 }, same = 0, found = 0, r;

	for (uint32_t k = 0; k < 4; k++) {
		uint64_t off = e->sb.ckpt_off[k / 2] + (k % 2 ? (uint64_t)(e->sb.ckpt_blocks - 1) * MKV_BLOCK : 0);
		const struct mkv_ckpt_head *h = (const void *)buf;

		if ((r = eng_read_spots(e, buf, 1, off)) < 0)
			return (r);
		e->rec.recovery_read_bytes += MKV_BLOCK;
		bad[k / 2] += r;
		rotten[k / 2] |= r || recover_head_rotten(h);
		if (!recover_head_good(e, h))
			continue;
		if (!found || h->id > best->id) {
			*best = *h;
			*area = k / 2;
			same = 0;
			found = 1;
		}
		good[k / 2] = 1;
		same += h->id == best->id;
	}
	for (uint32_t a = 0; a < 2; a++) {
		if (bad[a] == 0 || good[a])
			continue;
		if (e->ck.hidden)
			return (MKV_E_IO);
		e->ck.hidden = 1;
		*area = a ^ 1;
		e->rec.damaged_blocks++;
	}
	/* One copy is of another time: the crash came between the two. It serves, but soon there is a whole one. */
	if (found && same < 2 && rotten[*area])
		e->rec.damaged_blocks++;
	else if (found && same < 2)
		e->ck.wanted = 1;
	return (found);
}

/* Claim the units of entry i. MKV_E_CORRUPT: they are not what they should be; *clash: somebody else has one of them. */
static int
recover_claim(struct mkv_engine *e, uint32_t i, struct mkv_run *clash)
{
	const struct mkv_ent *en = eng_ent(e, i);
	struct mkv_run run[MKV_OBJ_RUNS_MAX];
	unsigned n;
	uint32_t sum = 0;

	clash->len = 0;
	if (en->page >= e->pg.count || e->pg.live[en->page] == UINT8_MAX)
		return (MKV_E_CORRUPT);
	if ((en->flags & (MKV_ENT_MULTI | MKV_ENT_MANIFEST)) == 0 && en->units > 0) {
		run[0] = (struct mkv_run){ en->run, en->units };
		if (mkv_alloc_mark(&e->al, run[0]) == 0)
			return (0);
		*clash = run[0];
		return (MKV_E_CORRUPT);
	}
	n = mkv_ent_runs(&e->ix, en, run);
	for (unsigned k = 0; k < n; k++)
		sum += run[k].len;
	if (n > 0 && sum != en->units)
		return (MKV_E_CORRUPT);
	for (unsigned k = 0; k < n; k++) {
		if (mkv_alloc_mark(&e->al, run[k]) == 0)
			continue;
		*clash = run[k];
		while (k > 0)
			mkv_alloc_unmark(&e->al, run[--k]);
		return (MKV_E_CORRUPT);
	}
	return (0);
}

static void
recover_lose(struct mkv_engine *e, uint32_t i)
{
	recover_drop(e, i, MKV_REASON_LOST);
	e->rec.lost_objects++;
}

/* Who else claims a part of this run? Two owners are a sign of lost records: neither is believed. Rare, so a walk over all is fine. */
static void
recover_clash(struct mkv_engine *e, uint32_t below, struct mkv_run c)
{
	for (uint32_t i = 0; i < below; i++) {
		struct mkv_ent *en = eng_ent(e, i);
		struct mkv_run run[MKV_OBJ_RUNS_MAX];
		unsigned n = en->flags & MKV_ENT_LINKED ? mkv_ent_runs(&e->ix, en, run) : 0;
		int hit = 0;

		for (unsigned k = 0; k < n; k++)
			hit |= run[k].off < (uint64_t)c.off + c.len && c.off < (uint64_t)run[k].off + run[k].len;
		if (!hit)
			continue;
		for (unsigned k = 0; k < n; k++)
			mkv_alloc_unmark(&e->al, run[k]);
		e->pg.live[en->page]--;
		ent_count(e, en, -1);
		recover_lose(e, i);
	}
}

/* What the claim of an entry some steps ahead will touch; whatever its fields say. */
static void
recover_settle_prefetch(struct mkv_engine *e, uint32_t i)
{
	const struct mkv_ent *en = eng_ent(e, i);

	if (en->page < e->pg.count)
		__builtin_prefetch(&e->pg.live[en->page], 1);
	if (en->run < e->al.units)
		__builtin_prefetch(&e->al.map[en->run >> 6], 1);
}

/* What is here under keys may be stale. Pieces are named by sets, which are never given twice. */
static void
recover_forget(struct mkv_engine *e)
{
	for (uint32_t i = 0; i < e->ix.ents_high; i++)
		if ((eng_ent(e, i)->flags & (MKV_ENT_LINKED | MKV_ENT_PIECE)) == MKV_ENT_LINKED)
			recover_drop(e, i, MKV_REASON_DRIVE_OFFLINE);
	e->ck.wanted = 1;
}

/* Pages with a live record are taken. Nobody knows how many dead ones they have: counted as of ordinary pages. */
static void
recover_pages(struct mkv_engine *e)
{
	struct pages *p = &e->pg;

	for (uint32_t i = 0; i < p->count; i++) {
		if (p->live[i] == 0)
			continue;
		p->taken[i] = 1;
		p->total[i] = (uint8_t)MKV_MAX(p->live[i], 12);
		p->free--;
	}
}

/* The index is final: units and pages follow from it. */
static void
recover_settle(struct mkv_engine *e)
{
	e->pieces = e->manifests = e->provisional = e->unproved = 0;
	if (e->o.forget_all)
		recover_forget(e);
	for (uint32_t i = 0; i < e->ix.ents_high; i++) {
		struct mkv_ent *en = eng_ent(e, i);
		struct mkv_run clash;

		if (i + RECOVER_AHEAD < e->ix.ents_high)
			recover_settle_prefetch(e, i + RECOVER_AHEAD);
		if ((en->flags & MKV_ENT_LINKED) == 0 || ns_replay_settle(e, i))
			continue;
		if (recover_claim(e, i, &clash) != 0) {
			if (clash.len != 0 && (uint64_t)clash.off + clash.len <= e->al.units)
				recover_clash(e, i, clash);
			recover_lose(e, i);
			continue;
		}
		e->pg.live[en->page]++;
		ent_count(e, en, 1);
	}
	ns_replay_settled(e);
	mkv_alloc_marked(&e->al);
	recover_pages(e);
}

/* Checkpoint, then journal. buf: two pieces. */
static int
recover_read(struct mkv_engine *e, uint8_t *buf)
{
	struct recover_read rd[2] = { { .buf = buf }, { .buf = buf + (size_t)RECOVER_READ_BLOCKS * MKV_BLOCK } };
	struct mkv_ckpt_head h = { 0 };
	uint32_t area = 1;
	int r = 0;

	if (!e->formatted && (r = recover_head(e, &h, &area, buf)) >= 0) {
		/* A hidden checkpoint may have the number that comes next: its body must not pass for one that was begun over it. */
		e->ck.id = h.id + (uint64_t)e->ck.hidden;
		e->ck.area = area ^ 1;
		lease_recovered(e, h.lease_until_ms);
		scrub_recovered(e, &h);
		r = r == 1 ? recover_body(e, &h, area, rd) : 0;
	}
	return (r != 0 ? r : replay_run(e, h.id ? h.start_seq : 1, h.mount, e->formatted));
}

int
recover_run(struct mkv_engine *e, char *why, size_t why_bytes)
{
	uint8_t *buf;
	int r;

	if (posix_memalign((void **)&buf, MKV_BLOCK, 2ull * RECOVER_READ_BLOCKS * MKV_BLOCK) != 0)
		return (MKV_E_NOMEM);
	r = recover_read(e, buf);
	free(buf);
	if (e->cancelled)
		r = MKV_E_CANCELLED;
	if (r == 0) {
		recover_settle(e);
		lease_barrier(e);
		mkv_policy_rebuild(&e->pol, ent_queued);
		r = page_replay_end(e);
	}
	if (r == MKV_E_IO)
		snprintf(why, why_bytes, "%s: what recovery needs cannot be read, and nothing was changed. If it stays so, replace the drive or begin anew: "
		    "memkv setup --force --drives %s", e->o.name, e->o.name);
	else if (r != 0)
		snprintf(why, why_bytes, "%s: recovery failed: %s", e->o.name, mkv_err(r));
	return (r);
}
