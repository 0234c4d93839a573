/*
 * Checkpoints: the index written out while requests go on. Drive's loop thread; owns one chunk buffer.
 *
 *   IDLE -> DRAIN   the block being filled and the open page are closed; wait until all records before start_seq are durable and applied, and
 *                   their pages written
 *        -> SCAN    entries in slab order, a chunk of blocks at a time, each written before the next is made
 *        -> SYNC    wait until every record appended so far is durable: what the scan saw must not be newer than the journal
 *        -> FLUSH   body durable
 *        -> HEAD    both heads written -> HEAD_FLUSH -> complete: the journal before start_seq may be overwritten
 *
 * Entries never move in the slab, so one that did not change is seen exactly once; what changed is in the journal from start_seq on and replay puts
 * it right, in whatever state the scan caught it. Areas alternate; a head is written only over a complete
 * body. A failed write makes the drive read-only: the journal could not be cut any more.
 */
#include "config.h"

#include <stdlib.h>
#include <string.h>

#include "common/base/err.h"
#include "common/base/log.h"
#include "worker/drive/engine_priv.h"

int
ckpt_init(struct mkv_engine *e)
{
	if (posix_memalign((void **)&e->ck.mem, MKV_BLOCK, (size_t)CKPT_CHUNK_BLOCKS * MKV_BLOCK) != 0) {
		e->ck.mem = NULL;
		return (MKV_E_NOMEM);
	}
	return (0);
}

void
ckpt_fini(struct mkv_engine *e)
{
	free(e->ck.mem);
}

static void
ckpt_on_io(struct ckpt *c, int res)
{
	if (res != 0)
		c->err = res;
	MKV_ASSERT(c->ios > 0);
	c->ios--;
}

static void
ckpt_on_io0(struct mkv_mio *mio, int res)
{
	ckpt_on_io(MKV_CONTAINER_OF(mio, struct ckpt, mio[0]), res);
}

static void
ckpt_on_io1(struct mkv_mio *mio, int res)
{
	ckpt_on_io(MKV_CONTAINER_OF(mio, struct ckpt, mio[1]), res);
}

static struct mkv_ckpt_block *
ckpt_block(struct ckpt *c, uint32_t i)
{
	return ((struct mkv_ckpt_block *)(c->mem + (size_t)i * MKV_BLOCK));
}

/* Room for an item in the chunk, in a fresh block where it must be. NULL: chunk full. */
static void *
ckpt_room(struct mkv_engine *e, uint32_t bytes)
{
	struct ckpt *c = &e->ck;
	struct mkv_ckpt_block *b = c->filled ? ckpt_block(c, c->filled - 1) : NULL;
	void *p;

	if (b == NULL || b->used + bytes > sizeof(b->data)) {
		if (c->filled == CKPT_CHUNK_BLOCKS)
			return (NULL);
		b = ckpt_block(c, c->filled++);
		memset(b, 0, sizeof(*b));
		b->magic = MKV_CKPT_MAGIC;
		b->tag = e->tag;
		b->id = c->id + 1;
		b->block_no = c->blocks + c->filled - 1;
	}
	p = b->data + b->used;
	b->used = (uint16_t)(b->used + bytes);
	b->n_items++;
	return (p);
}

static int
ckpt_put_ent(struct mkv_engine *e, const struct mkv_ent *en)
{
	struct mkv_run run[MKV_OBJ_RUNS_MAX];
	unsigned n = en->flags & MKV_ENT_MULTI ? mkv_ent_runs(&e->ix, en, run) : 0;
	uint32_t bytes = (uint32_t)(sizeof(struct mkv_ckpt_item) + n * sizeof(run[0]) + (en->flags & MKV_ENT_MANIFEST ? sizeof(struct mkv_jset) : 0));
	struct mkv_ckpt_item *it = ckpt_room(e, bytes);

	if (it == NULL)
		return (0);
	it->kind = MKV_CI_OBJECT;
	it->n_runs = (uint8_t)n;
	it->bytes = (uint16_t)bytes;
	it->flags = en->flags & MKV_ENT_LASTING;
	it->units = en->units;
	it->digest = en->digest;
	it->page = en->page;
	it->run = en->run;
	it->expires = en->expires;
	it->rank = en->rank;
	it->slot = en->slot;
	memcpy(it->body, run, n * sizeof(run[0]));
	if (en->flags & MKV_ENT_MANIFEST) {
		const struct mkv_side *s = &e->ix.side[en->run];
		struct mkv_jset js = { .set = s->set, .stripe_mask = s->stripe_mask, .piece_count = s->piece_count };

		memcpy(it->body, &js, sizeof(js));
	}
	e->ck.items++;
	return (1);
}

static int
ckpt_put_set(struct mkv_engine *e, const struct setfree *s)
{
	struct mkv_jset js = { .set = s->set, .stripe_mask = s->mask, .piece_count = s->piece_count };
	struct mkv_ckpt_item *it = ckpt_room(e, sizeof(*it) + sizeof(js));

	if (it == NULL)
		return (0);
	it->kind = MKV_CI_SETFREE;
	it->bytes = sizeof(*it) + sizeof(js);
	memcpy(it->body, &js, sizeof(js));
	e->ck.items++;
	return (1);
}

/* The names of slots that are left of this pass. */
static int
ckpt_put_slots(struct mkv_engine *e, uint32_t *next)
{
	struct mkv_ckpt_item item, *it;
	uint8_t name[MKV_DRV_NS_MAX + 1];

	for (; *next < e->ns.count; (*next)++) {
		if (!ns_ckpt_item(e, *next + 1, &item, name))
			continue;
		if ((it = ckpt_room(e, item.bytes)) == NULL)
			return (0);
		*it = item;
		memcpy(it->body, name, item.bytes - sizeof(item));
		e->ck.items++;
	}
	return (1);
}

/*
 * Fill the chunk with what comes next. A slab of holes, with few objects between them, takes several turns: no block may be left half empty, the area
 * has no room for that.
 */
static void
ckpt_fill(struct mkv_engine *e)
{
	struct ckpt *c = &e->ck;
	uint32_t left = CKPT_SCAN_STEP;

	if (!c->cut)
		c->filled = 0;
	c->cut = 0;
	if (!ckpt_put_slots(e, &c->next_slot[0]))
		return;
	for (; c->next_ent < e->ix.ents_high; c->next_ent++) {
		const struct mkv_ent *en = eng_ent(e, c->next_ent);

		if (left-- == 0) {
			c->cut = 1;
			return;
		}
		if ((en->flags & MKV_ENT_LINKED) && !ckpt_put_ent(e, en))
			return;
	}
	for (; c->next_set < SETFREE_MAX; c->next_set++) {
		const struct setfree *s = &e->setfree[c->next_set];

		if (s->used && !ckpt_put_set(e, s))
			return;
	}
	if (!ckpt_put_slots(e, &c->next_slot[1]))
		return;
	c->last = 1;
}

static void
ckpt_scan(struct mkv_engine *e)
{
	struct ckpt *c = &e->ck;

	if (c->last) {
		c->end_seq = e->jn.last_record;
		c->state = CK_SYNC;
		return;
	}
	ckpt_fill(e);
	if (c->cut || c->filled == 0) {
		e->more = 1;
		return;
	}
	/*
	 * Two head blocks frame the body. What is there at any moment fits (tests/unit/ckpt_test.c), but a scan that takes long may meet an object twice,
	 * before and after it was written anew. Then it begins again: when the journal is full nothing is written anew any more.
	 */
	if (c->blocks + c->filled > e->sb.ckpt_blocks - 2) {
		c->err = e->jn.last_record < c->start_seq ? MKV_E_NOSPACE : 0;
		c->wanted = 1;
		c->hurry = 1;		/* it took too long */
		c->state = CK_IDLE;
		return;
	}
	for (uint32_t i = 0; i < c->filled; i++)
		mkv_block_seal(ckpt_block(c, i), offsetof(struct mkv_ckpt_block, crc));
	c->ios = 1;
	c->mio[0].done = ckpt_on_io0;
	sched_write(e, MKV_IO_CHECKPOINT, &c->mio[0], c->mem, c->filled * MKV_BLOCK,
	    e->sb.ckpt_off[c->area] + (uint64_t)(1 + c->blocks) * MKV_BLOCK, -1);
	c->blocks += c->filled;
}

static void
ckpt_begin(struct mkv_engine *e)
{
	struct ckpt *c = &e->ck;

	page_close_open(e);
	journal_close_block(e);
	c->start_seq = e->jn.next_seq;
	c->end_seq = e->jn.last_record;
	c->next_ent = c->next_set = c->blocks = 0;
	c->next_slot[0] = c->next_slot[1] = 0;
	c->items = 0;
	c->last = c->cut = c->err = 0;
	c->wanted = 0;
	mkv_policy_rank_begin(&e->pol);
	c->state = CK_DRAIN;
}

static void
ckpt_heads(struct mkv_engine *e)
{
	struct ckpt *c = &e->ck;

	for (uint32_t copy = 0; copy < 2; copy++) {
		struct mkv_ckpt_head *h = (struct mkv_ckpt_head *)(c->mem + (size_t)copy * MKV_BLOCK);

		memset(h, 0, sizeof(*h));
		h->magic = MKV_CKPT_HEAD_MAGIC;
		h->tag = e->tag;
		h->id = c->id + 1;
		h->start_seq = c->start_seq;
		h->blocks = c->blocks;
		h->copy = copy;
		h->items = c->items;
		h->mount = e->sb.mount;
		h->lease_until_ms = e->lease.until_ms;
		scrub_save(e, h);
		mkv_block_seal(h, offsetof(struct mkv_ckpt_head, crc));
	}
	c->ios = 2;
	c->mio[0].done = ckpt_on_io0;
	c->mio[1].done = ckpt_on_io1;
	sched_write(e, MKV_IO_CHECKPOINT, &c->mio[0], c->mem, MKV_BLOCK, e->sb.ckpt_off[c->area], -1);
	sched_write(e, MKV_IO_CHECKPOINT, &c->mio[1], c->mem + MKV_BLOCK, MKV_BLOCK,
	    e->sb.ckpt_off[c->area] + (uint64_t)(e->sb.ckpt_blocks - 1) * MKV_BLOCK, -1);
	c->state = CK_HEAD;
}

static void
ckpt_flush(struct mkv_engine *e, enum ckpt_state next)
{
	struct ckpt *c = &e->ck;

	c->ios = 1;
	c->mio[0].done = ckpt_on_io0;
	c->state = next;
	ENG_COUNT(e, flushes_total, 1);
	sched_flush(e, MKV_IO_CHECKPOINT, &c->mio[0]);
}

static void
ckpt_complete(struct mkv_engine *e)
{
	struct ckpt *c = &e->ck;

	c->id++;
	c->area ^= 1;
	c->hurry = 0;
	c->state = CK_IDLE;
	e->jn.tail = c->start_seq;
	e->jn.mark_max = UINT64_MAX;
	ENG_COUNT(e, checkpoints_total, 1);
	req_wake_list(&e->jn.wait, UINT32_MAX);
}

/*
 * As slow as it may be, as fast as it must be: the share of the checkpoint that is written keeps ahead of the share of the journal that was used up
 * meanwhile, so that it is complete while a quarter of the journal is left and no put waits for it. What is faster than that asks for its turn.
 */
static int
ckpt_late(const struct mkv_engine *e)
{
	const struct ckpt *c = &e->ck;
	uint64_t from = c->start_seq - e->jn.tail, to = (uint64_t)e->sb.journal_blocks * 3 / 4, used = e->jn.next_seq - e->jn.tail;

	if (from >= to || used >= to)
		return (1);
	return ((used - from) * MKV_MAX(e->ix.ents_high, 1u) > (uint64_t)c->next_ent * (to - from));
}

static int
ckpt_may(struct mkv_engine *e)
{
	return (e->ck.hurry || ckpt_late(e) || sched_may(e, MKV_IO_CHECKPOINT, CKPT_CHUNK_BLOCKS * MKV_BLOCK));
}

/* One turn: as far as it goes without waiting, at most one chunk. */
void
ckpt_step(struct mkv_engine *e)
{
	struct ckpt *c = &e->ck;

	if (c->ios > 0)
		return;
	if (c->err != 0) {
		int flush = c->state == CK_FLUSH || c->state == CK_HEAD_FLUSH;

		fail_note(e, flush ? MKV_FAIL_FLUSH : MKV_FAIL_META, e->sb.ckpt_off[c->area], 0, c->err, 0);
		eng_readonly(e, flush ? "a flush failed" : "a checkpoint could not be written");
		c->state = CK_IDLE;
		return;
	}
	if (c->state == CK_IDLE && c->wanted)
		ckpt_begin(e);
	if (c->state == CK_DRAIN) {
		if (e->jn.flushed < c->end_seq)
			journal_urgent(e);
		else if (e->pg.writing == 0)
			c->state = CK_RANK;
	}
	if (c->state == CK_RANK) {
		if (mkv_policy_rank_step(&e->pol, CKPT_RANK_STEP))
			e->more = 1;
		else
			c->state = CK_SCAN;
	}
	if (c->state == CK_SCAN && !c->ios && ckpt_may(e))
		ckpt_scan(e);
	if (c->state == CK_SYNC) {
		if (e->jn.flushed >= c->end_seq)
			ckpt_flush(e, CK_FLUSH);
		else
			journal_urgent(e);
		return;
	}
	if (c->ios > 0)
		return;
	if (c->state == CK_FLUSH)
		ckpt_heads(e);
	else if (c->state == CK_HEAD)
		ckpt_flush(e, CK_HEAD_FLUSH);
	else if (c->state == CK_HEAD_FLUSH)
		ckpt_complete(e);
}

int
ckpt_run(struct mkv_engine *e)
{
	uint64_t id = e->ck.id;

	/* One that is under way began too early: it is followed by another. */
	if (e->ck.state != CK_IDLE)
		id++;
	while (e->ck.id <= id && !e->readonly) {
		e->ck.wanted = 1;
		e->ck.hurry = 1;
		for (unsigned i = 0; i < CKPT_RUN_STEPS && mkv_engine_step(e) == 0 && e->ck.id <= id; i++)
			continue;
		if (e->o.ops->pump(e->o.arg) == MKV_E_CANCELLED) {
			e->cancelled = 1;
			return (MKV_E_CANCELLED);
		}
	}
	return (e->readonly ? MKV_E_READONLY : 0);
}
