/*
 * The adaptive policy: shadows of the candidates that count what each would have hit. Drive's loop thread; owns the shadows, memory is taken at start.
 *
 * A shadow is an index without data, a ghost list and a policy over them: the very code it stands for. It sees the accesses to a sample of the keys, one in
 * 2^k by digest, and holds 2^-k of the objects that the store holds; so a few thousand entries tell what a store of any size would have hit. Objects are
 * counted, not bytes.
 *
 * Every so often (a part of the shadow's size in accesses) the new hits are added to decayed scores. Another candidate takes over when it is ahead by more
 * than a twentieth: a change of mind costs hits. Second touch is a candidate like the others: admission becomes strict where that hits more, and stops
 * when nothing has to leave any more.
 */
#include "config.h"

#include <stdlib.h>
#include <string.h>

#include "common/base/assert.h"
#include "common/base/err.h"

#include "worker/drive/policy.h"

#define ADAPT_OBJECTS_MAX	4096u		/* of a shadow */
#define ADAPT_OBJECTS_MIN	1024u		/* below: a denser sample */
#define ADAPT_GHOST_TURNS	2u
#define ADAPT_PERIODS		16u		/* in as many accesses as a shadow has objects */
#define ADAPT_PERIOD_MIN	32u
#define ADAPT_DECAY		0.9946		/* of a period: half in eight times the shadow's objects */
#define ADAPT_AHEAD		1.05
#define ADAPT_CALM		4u		/* accesses without a victim, in parts of the shadow's objects: nothing has to leave */

struct adapt_shadow {
	struct mkv_index ix;
	struct mkv_policy pol;
	uint32_t	fresh_hits;		/* of this period */
	uint64_t	hits;
	double		score;
};

struct mkv_adapt {
	struct adapt_shadow shadow[MKV_ADAPT_CANDIDATES];
	enum mkv_adapt_candidate chosen;
	uint32_t	shift;			/* k */
	uint32_t	objects;		/* a shadow may hold */
	uint32_t	in_period;
	uint32_t	calm;			/* sampled accesses since something had to leave */
	int		pressed;
	uint64_t	accesses;
};

static const struct {
	enum mkv_policy_kind kind;
	int		second_touch;
} adapt_candidate[MKV_ADAPT_CANDIDATES] = {
	[MKV_ADAPT_CLOCK]	= { MKV_POLICY_CLOCK, 0 },
	[MKV_ADAPT_LRU]		= { MKV_POLICY_LRU, 0 },
	[MKV_ADAPT_S3FIFO]	= { MKV_POLICY_S3FIFO, 0 },
	[MKV_ADAPT_SECOND]	= { MKV_POLICY_CLOCK, 1 },
};

static int
shadow_init(struct adapt_shadow *s, unsigned c)
{
	int r;

	if ((r = mkv_index_init(&s->ix, ADAPT_OBJECTS_MAX + 1)) != 0 ||
	    (r = mkv_policy_init(&s->pol, &s->ix, 2 * ADAPT_GHOST_TURNS * ADAPT_OBJECTS_MAX, adapt_candidate[c].kind)) != 0)
		return (r);
	s->pol.ghost_turns = ADAPT_GHOST_TURNS;
	s->pol.second_touch = adapt_candidate[c].second_touch;
	return (0);
}

int
mkv_adapt_init(struct mkv_policy *p)
{
	struct mkv_adapt *a = calloc(1, sizeof(*a));
	int r = a != NULL ? 0 : MKV_E_NOMEM;

	p->adapt = a;
	for (unsigned c = 0; r == 0 && c < MKV_ADAPT_CANDIDATES; c++)
		r = shadow_init(&a->shadow[c], c);
	if (r != 0) {
		mkv_adapt_fini(p);
		return (r);
	}
	a->objects = ADAPT_OBJECTS_MAX;
	return (0);
}

void
mkv_adapt_fini(struct mkv_policy *p)
{
	struct mkv_adapt *a = p->adapt;

	if (a == NULL)
		return;
	for (unsigned c = 0; c < MKV_ADAPT_CANDIDATES; c++) {
		mkv_policy_fini(&a->shadow[c].pol);
		mkv_index_fini(&a->shadow[c].ix);
	}
	free(a);
	p->adapt = NULL;
}

static int
adapt_sampled(const struct mkv_adapt *a, struct mkv_digest d)
{
	return ((d.hi & ((1ull << a->shift) - 1)) == 0);
}

static void
shadow_drop(struct adapt_shadow *s, uint32_t i)
{
	mkv_policy_remove(&s->pol, i);
	mkv_index_unlink(&s->ix, i);
	mkv_index_drop(&s->ix, i);
}

static void
shadow_shrink(struct adapt_shadow *s, uint32_t objects)
{
	while (s->ix.linked > objects) {
		unsigned look = UINT32_MAX;		/* every turn takes a reference away: it ends */
		uint32_t i = mkv_policy_victim(&s->pol, &look);

		mkv_policy_evict(&s->pol, i);
		shadow_drop(s, i);
	}
}

static void
shadow_access(struct adapt_shadow *s, struct mkv_digest d, uint32_t objects, int pressed)
{
	uint32_t i = mkv_index_find(&s->ix, d);

	if (i != MKV_ENT_NIL) {
		s->fresh_hits++;
		s->hits++;
		mkv_policy_hit(&s->pol, i, MKV_ENT_NIL);
		return;
	}
	if (pressed && !mkv_policy_admit(&s->pol, d))
		return;
	shadow_shrink(s, objects - 1);
	i = mkv_index_take(&s->ix);
	MKV_ASSERT(i != MKV_ENT_NIL);
	s->ix.ent[i].digest = d;
	mkv_index_link(&s->ix, i);
	mkv_policy_insert(&s->pol, i, MKV_ENT_NIL);
}

/* The store outgrew the sample: take half of the keys. */
static void
adapt_sparser(struct mkv_adapt *a)
{
	a->shift++;
	for (unsigned c = 0; c < MKV_ADAPT_CANDIDATES; c++) {
		struct adapt_shadow *s = &a->shadow[c];

		for (uint32_t i = 0; i < s->ix.ents_high; i++)
			if ((s->ix.ent[i].flags & MKV_ENT_LINKED) && !adapt_sampled(a, s->ix.ent[i].digest))
				shadow_drop(s, i);
	}
}

static void
adapt_choose(struct mkv_policy *p, enum mkv_adapt_candidate c)
{
	p->adapt->chosen = c;
	if (p->kind != MKV_POLICY_ADAPTIVE)
		return;					/* only watched */
	p->ops = &mkv_policy_table[adapt_candidate[c].kind];
	p->second_touch = adapt_candidate[c].second_touch;
	p->ghost_turns = ADAPT_GHOST_TURNS;
}

void
mkv_adapt_follow(struct mkv_policy *p)
{
	adapt_choose(p, p->adapt->chosen);
}

static void
adapt_period(struct mkv_policy *p)
{
	struct mkv_adapt *a = p->adapt;
	unsigned best = a->chosen;

	a->in_period = 0;
	for (unsigned c = 0; c < MKV_ADAPT_CANDIDATES; c++) {
		struct adapt_shadow *s = &a->shadow[c];

		s->score = s->score * ADAPT_DECAY + s->fresh_hits;
		s->fresh_hits = 0;
	}
	for (unsigned c = 0; c < MKV_ADAPT_CANDIDATES; c++)
		if (a->shadow[c].score > a->shadow[best].score)
			best = c;
	if (a->shadow[best].score > a->shadow[a->chosen].score * ADAPT_AHEAD)
		adapt_choose(p, best);
}

void
mkv_adapt_access(struct mkv_policy *p, struct mkv_digest d)
{
	struct mkv_adapt *a = p->adapt;
	uint32_t count = mkv_policy_count(p);

	while (count >> a->shift > ADAPT_OBJECTS_MAX)
		adapt_sparser(a);
	if (a->shift > 0 && count >> a->shift < ADAPT_OBJECTS_MIN)
		a->shift--;
	if (!adapt_sampled(a, d))
		return;
	a->objects = a->pressed ? MKV_MAX(count >> a->shift, 1u) : ADAPT_OBJECTS_MAX;
	a->accesses++;
	for (unsigned c = 0; c < MKV_ADAPT_CANDIDATES; c++) {
		a->shadow[c].pol.ghosts_max = p->ghosts_max >> a->shift;
		shadow_access(&a->shadow[c], d, a->objects, a->pressed);
	}
	if (!a->pressed)
		return;
	if (++a->calm > a->objects / ADAPT_CALM + ADAPT_PERIOD_MIN) {
		a->pressed = 0;
		adapt_choose(p, MKV_ADAPT_CLOCK);
		return;
	}
	if (++a->in_period >= MKV_MAX(a->objects / ADAPT_PERIODS, ADAPT_PERIOD_MIN))
		adapt_period(p);
}

void
mkv_adapt_pressure(struct mkv_policy *p)
{
	p->adapt->pressed = 1;
	p->adapt->calm = 0;
}

uint64_t
mkv_adapt_counts(const struct mkv_policy *p, uint64_t hits[MKV_ADAPT_CANDIDATES])
{
	for (unsigned c = 0; c < MKV_ADAPT_CANDIDATES; c++)
		hits[c] = p->adapt != NULL ? p->adapt->shadow[c].hits : 0;
	return (p->adapt != NULL ? p->adapt->accesses : 0);
}

enum mkv_adapt_candidate
mkv_adapt_chosen(const struct mkv_policy *p)
{
	return (p->adapt != NULL ? p->adapt->chosen : MKV_ADAPT_CLOCK);
}

uint64_t
mkv_adapt_bytes(const struct mkv_policy *p)
{
	uint64_t sum = sizeof(struct mkv_adapt);

	for (unsigned c = 0; p->adapt != NULL && c < MKV_ADAPT_CANDIDATES; c++) {
		const struct adapt_shadow *s = &p->adapt->shadow[c];

		sum += (uint64_t)s->ix.ents_high * sizeof(struct mkv_ent) + 4ull * (s->ix.buckets + s->ix.split) +
		    4ull * mkv_ghost_room(&s->pol.ghost);
	}
	return (p->adapt != NULL ? sum : 0);
}
