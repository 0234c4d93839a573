/*
 * Queues and policies (see policy.h). Drive's loop thread; owns the links, the rank and four flags of each entry: REF, REF2, SMALL.
 *
 * A queue is a ring through its entries and itself: links are entry + 1, or QUEUE + number for the queue. q_prev is the younger neighbour, q_next the
 * older one. Invariant: an entry in a queue has both links, one in none has none.
 */
#include "config.h"

#include "worker/drive/policy.h"

#include <stdlib.h>
#include <string.h>

#include "common/base/assert.h"
#include "common/base/err.h"


#define QUEUE		0xfffffff0u		/* above every entry */
#define S3_SMALL_PART	10u			/* the probation queue is one part in so many */
#define S3_GHOST_TURNS	1u			/* as it was published */

static uint32_t *
q_older(struct mkv_policy *p, uint32_t n)
{
	return (n >= QUEUE ? &p->q[n - QUEUE].young : &p->ix->ent[n - 1].q_next);
}

static uint32_t *
q_younger(struct mkv_policy *p, uint32_t n)
{
	return (n >= QUEUE ? &p->q[n - QUEUE].old : &p->ix->ent[n - 1].q_prev);
}

static int
q_of(const struct mkv_ent *en)
{
	return (en->flags & MKV_ENT_SMALL ? MKV_PQ_SMALL : MKV_PQ_MAIN);
}

static void
q_unlink(struct mkv_policy *p, uint32_t i)
{
	struct mkv_ent *en = &p->ix->ent[i];

	MKV_ASSERT(en->q_prev != 0 && en->q_next != 0);
	if (p->cursor == i + 1)
		p->cursor = en->q_next;
	*q_older(p, en->q_prev) = en->q_next;
	*q_younger(p, en->q_next) = en->q_prev;
	en->q_prev = en->q_next = 0;
	MKV_ASSERT(p->q[q_of(en)].count > 0);
	p->q[q_of(en)].count--;
}

/* On the old side of `at`, which is in queue q or is that queue. */
static void
q_link_behind(struct mkv_policy *p, int q, uint32_t at, uint32_t i)
{
	struct mkv_ent *en = &p->ix->ent[i];
	uint32_t older = *q_older(p, at);

	MKV_ASSERT(en->q_prev == 0 && en->q_next == 0);
	en->q_prev = at;
	en->q_next = older;
	*q_younger(p, older) = i + 1;
	*q_older(p, at) = i + 1;
	en->flags = (uint16_t)(q == MKV_PQ_SMALL ? en->flags | MKV_ENT_SMALL : en->flags & ~MKV_ENT_SMALL);
	en->rank = 0;
	p->q[q].count++;
}

/* Parent came to a young end not long ago. */
static int
q_fresh(const struct mkv_policy *p, int q, uint32_t parent)
{
	const struct mkv_ent *en;

	if (parent == MKV_ENT_NIL || p->fresh[parent % MKV_POLICY_FRESH].ent != parent + 1 ||
	    p->moves - p->fresh[parent % MKV_POLICY_FRESH].at > MKV_POLICY_FRESH)
		return (0);
	en = &p->ix->ent[parent];
	return (en->q_next != 0 && q_of(en) == q);
}

static void
q_link_young(struct mkv_policy *p, int q, uint32_t parent, uint32_t i)
{
	q_link_behind(p, q, q_fresh(p, q, parent) ? parent + 1 : QUEUE + (uint32_t)q, i);
	p->fresh[i % MKV_POLICY_FRESH].ent = i + 1;
	p->fresh[i % MKV_POLICY_FRESH].at = ++p->moves;
}

static void
q_to_young(struct mkv_policy *p, int q, uint32_t i)
{
	q_unlink(p, i);
	q_link_behind(p, q, QUEUE + (uint32_t)q, i);
}

static uint32_t
q_oldest(struct mkv_policy *p, int q)
{
	uint32_t n = p->q[q].old;

	return (n >= QUEUE ? MKV_ENT_NIL : n - 1);
}

/* How often it was read, 0 to 3: two bits of the flags. */
static unsigned
ref_get(const struct mkv_ent *en)
{
	return ((en->flags & MKV_ENT_REF ? 1 : 0) + (en->flags & MKV_ENT_REF2 ? 2 : 0));
}

static void
ref_set(struct mkv_ent *en, unsigned refs)
{
	en->flags &= (uint16_t)~(MKV_ENT_REF | MKV_ENT_REF2);
	en->flags |= (refs & 1 ? MKV_ENT_REF : 0) | (refs & 2 ? MKV_ENT_REF2 : 0);
}

static uint64_t
ghost_window(const struct mkv_policy *p)
{
	return (MKV_MIN((uint64_t)p->ghost_turns * mkv_policy_count(p), p->ghosts_max));
}

static int
enters_main(struct mkv_policy *p, struct mkv_digest d)
{
	(void)p;
	(void)d;
	return (MKV_PQ_MAIN);
}

/* Seen and gone a while ago: its probation is over. */
static int
enters_small(struct mkv_policy *p, struct mkv_digest d)
{
	return (mkv_ghost_take(&p->ghost, d, ghost_window(p)) ? MKV_PQ_MAIN : MKV_PQ_SMALL);
}

static void
hit_ref(struct mkv_policy *p, uint32_t i, uint32_t parent)
{
	struct mkv_ent *en = &p->ix->ent[i];

	(void)parent;
	ref_set(en, MKV_MIN(ref_get(en) + 1, 3u));
}

static void
hit_move(struct mkv_policy *p, uint32_t i, uint32_t parent)
{
	hit_ref(p, i, parent);
	if (p->ix->ent[i].q_next == 0)
		return;
	q_unlink(p, i);
	q_link_young(p, MKV_PQ_MAIN, parent, i);
}

static void
hit_nothing(struct mkv_policy *p, uint32_t i, uint32_t parent)
{
	(void)p;
	(void)i;
	(void)parent;
}

/* The oldest of a queue: it goes, or it has been read, and has another turn in the main one: all: with none of its references left, else with one less. */
static uint32_t
victim_of(struct mkv_policy *p, int q, int all)
{
	uint32_t i = q_oldest(p, q);
	struct mkv_ent *en = &p->ix->ent[i];

	if (ref_get(en) == 0)
		return (i);
	ref_set(en, all ? 0 : ref_get(en) - 1);
	q_to_young(p, MKV_PQ_MAIN, i);
	return (MKV_ENT_NIL);
}

/* What another policy had on probation goes first. */
static uint32_t
victim_clock(struct mkv_policy *p, unsigned *look)
{
	uint32_t i = MKV_ENT_NIL;

	while (i == MKV_ENT_NIL && mkv_policy_count(p) > 0 && *look > 0) {
		--*look;
		i = victim_of(p, p->q[MKV_PQ_SMALL].count > 0 ? MKV_PQ_SMALL : MKV_PQ_MAIN, 1);
	}
	return (i);
}

static uint32_t
victim_oldest(struct mkv_policy *p, unsigned *look)
{
	uint32_t i;

	while (p->q[MKV_PQ_SMALL].count > 0 && *look > 0) {
		--*look;
		if ((i = victim_of(p, MKV_PQ_SMALL, 1)) != MKV_ENT_NIL)
			return (i);
	}
	if (*look == 0)
		return (MKV_ENT_NIL);
	--*look;
	return (q_oldest(p, MKV_PQ_MAIN));
}

static uint32_t
victim_s3fifo(struct mkv_policy *p, unsigned *look)
{
	uint32_t i = MKV_ENT_NIL;

	while (i == MKV_ENT_NIL && mkv_policy_count(p) > 0 && *look > 0) {
		uint32_t small = p->q[MKV_PQ_SMALL].count;
		int probation = small > 0 && (small > mkv_policy_count(p) / S3_SMALL_PART || p->q[MKV_PQ_MAIN].count == 0);

		--*look;
		i = victim_of(p, probation ? MKV_PQ_SMALL : MKV_PQ_MAIN, probation);
	}
	return (i);
}

static uint32_t
victim_none(struct mkv_policy *p, unsigned *look)
{
	(void)p;
	(void)look;
	return (MKV_ENT_NIL);
}

const struct mkv_policy_ops mkv_policy_table[MKV_POLICY_KINDS] = {
	[MKV_POLICY_ADAPTIVE]	= { "adaptive", enters_main, hit_ref, victim_clock },	/* until it knows more */
	[MKV_POLICY_CLOCK]	= { "clock", enters_main, hit_ref, victim_clock },
	[MKV_POLICY_LRU]	= { "lru", enters_main, hit_move, victim_oldest },
	[MKV_POLICY_S3FIFO]	= { "s3fifo", enters_small, hit_ref, victim_s3fifo },
	[MKV_POLICY_FIFO]	= { "fifo", enters_main, hit_nothing, victim_oldest },
	[MKV_POLICY_NONE]	= { "none", enters_main, hit_ref, victim_none },
};

int
mkv_policy_init(struct mkv_policy *p, struct mkv_index *ix, uint32_t ghosts, enum mkv_policy_kind kind)
{
	int r;

	memset(p, 0, sizeof(*p));
	p->ix = ix;
	p->kind = MKV_POLICY_CLOCK;
	p->ops = &mkv_policy_table[MKV_POLICY_CLOCK];
	for (uint32_t q = 0; q < MKV_PQ_COUNT; q++)
		p->q[q].young = p->q[q].old = QUEUE + q;
	p->ghost_turns = S3_GHOST_TURNS;
	if ((r = mkv_ghost_init(&p->ghost, ghosts)) != 0 || (r = mkv_policy_set(p, kind)) != 0) {
		mkv_policy_fini(p);
		return (r);
	}
	/* Sets fill unevenly: of a full table the last part is not kept by all of them. */
	p->ghosts_max = mkv_ghost_room(&p->ghost) / 2;
	return (0);
}

void
mkv_policy_fini(struct mkv_policy *p)
{
	mkv_adapt_fini(p);
	mkv_ghost_fini(&p->ghost);
	p->ix = NULL;
}

int
mkv_policy_set(struct mkv_policy *p, enum mkv_policy_kind kind)
{
	int r;

	MKV_ASSERT(kind < MKV_POLICY_KINDS);
	if (kind == p->kind)
		return (0);
	if (kind == MKV_POLICY_ADAPTIVE && p->adapt == NULL && (r = mkv_adapt_init(p)) != 0)
		return (r);
	if (kind != MKV_POLICY_ADAPTIVE && !p->watched)
		mkv_adapt_fini(p);
	p->kind = kind;
	p->ops = &mkv_policy_table[kind];
	p->ghost_turns = S3_GHOST_TURNS;
	p->second_touch = 0;
	if (kind == MKV_POLICY_ADAPTIVE && p->watched)
		mkv_adapt_follow(p);
	return (0);
}

int
mkv_policy_watch(struct mkv_policy *p)
{
	p->watched = 1;
	return (p->adapt != NULL ? 0 : mkv_adapt_init(p));
}

int
mkv_policy_admit(struct mkv_policy *p, struct mkv_digest d)
{
	if (p->adapt != NULL)
		mkv_adapt_pressure(p);
	if (!p->second_touch || mkv_ghost_take(&p->ghost, d, ghost_window(p)))
		return (1);
	mkv_ghost_add(&p->ghost, d);
	if (p->adapt != NULL)
		mkv_adapt_access(p, d);
	return (0);
}

void
mkv_policy_insert(struct mkv_policy *p, uint32_t i, uint32_t parent)
{
	struct mkv_digest d = p->ix->ent[i].digest;

	q_link_young(p, p->ops->enters(p, d), parent, i);
	if (p->adapt != NULL)
		mkv_adapt_access(p, d);
}

void
mkv_policy_hit(struct mkv_policy *p, uint32_t i, uint32_t parent)
{
	p->ops->hit(p, i, parent);
	if (p->adapt != NULL)
		mkv_adapt_access(p, p->ix->ent[i].digest);
}

void
mkv_policy_touch(struct mkv_policy *p, uint32_t i)
{
	struct mkv_ent *en = &p->ix->ent[i];

	(void)p;
	if (ref_get(en) == 0)
		ref_set(en, 1);
}

uint32_t
mkv_policy_victim(struct mkv_policy *p, unsigned *look)
{
	if (p->adapt != NULL)
		mkv_adapt_pressure(p);
	return (p->ops->victim(p, look));
}

void
mkv_policy_keep(struct mkv_policy *p, uint32_t i)
{
	q_to_young(p, q_of(&p->ix->ent[i]), i);
}

void
mkv_policy_remove(struct mkv_policy *p, uint32_t i)
{
	if (p->ix->ent[i].q_next != 0)
		q_unlink(p, i);
}

void
mkv_policy_evict(struct mkv_policy *p, uint32_t i)
{
	const struct mkv_ent *en = &p->ix->ent[i];

	if (en->q_next != 0 && (en->flags & MKV_ENT_SMALL))
		mkv_ghost_add(&p->ghost, en->digest);
	mkv_policy_remove(p, i);
}

void
mkv_policy_restore(struct mkv_policy *p, uint32_t i)
{
	int q = q_of(&p->ix->ent[i]);

	q_link_behind(p, q, QUEUE + (uint32_t)q, i);
}

void
mkv_policy_rank_begin(struct mkv_policy *p)
{
	p->cursor = p->q[MKV_PQ_SMALL].young;
	p->ranked = 0;
}

int
mkv_policy_rank_step(struct mkv_policy *p, unsigned n)
{
	for (; n > 0 && p->cursor != 0; n--) {
		struct mkv_ent *en;

		if (p->cursor >= QUEUE) {
			p->cursor = p->cursor == QUEUE + MKV_PQ_SMALL ? p->q[MKV_PQ_MAIN].young : 0;
			p->ranked = 0;
			continue;
		}
		en = &p->ix->ent[p->cursor - 1];
		en->rank = (uint8_t)MKV_MIN(255ull, 256ull * p->ranked / p->q[q_of(en)].count);
		p->ranked++;
		p->cursor = en->q_next;
	}
	return (p->cursor != 0);
}

/*
 * One pass over the slab: a chain for each rank of each queue, in the order of the slab; then the chains of a queue are joined, rank 0 at its young end.
 */
void
mkv_policy_rebuild(struct mkv_policy *p, int (*in)(const struct mkv_ent *en))
{
	struct {
		uint32_t	young, old;		/* entry + 1 */
	} chain[MKV_PQ_COUNT][256] = { { { 0, 0 } } }, *c;

	MKV_ASSERT(mkv_policy_count(p) == 0);
	for (uint32_t i = 0; i < p->ix->ents_high; i++) {
		struct mkv_ent *en = &p->ix->ent[i];

		if ((en->flags & MKV_ENT_LINKED) == 0 || !in(en))
			continue;
		MKV_ASSERT(en->q_prev == 0 && en->q_next == 0);
		c = &chain[q_of(en)][en->rank];
		en->rank = 0;
		en->q_prev = c->old;
		*(c->old != 0 ? &p->ix->ent[c->old - 1].q_next : &c->young) = i + 1;
		c->old = i + 1;
		p->q[q_of(en)].count++;
	}
	for (unsigned q = 0; q < MKV_PQ_COUNT; q++) {
		uint32_t end = QUEUE + q;

		for (c = chain[q]; c < chain[q] + 256; c++) {
			if (c->old == 0)
				continue;
			*q_older(p, end) = c->young;
			*q_younger(p, c->young) = end;
			end = c->old;
		}
		*q_older(p, end) = QUEUE + q;
		p->q[q].old = end;
	}
}
