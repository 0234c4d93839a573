/*
 * The index (see index.h). Drive's loop thread; owns three reservations of address space.
 *
 * Invariants: linked <= buckets + split; every linked entry is on exactly one chain, that of its digest.lo under the present split.
 * Fails only when a table is full.
 */
#include "config.h"

#include "worker/drive/index.h"

#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "common/base/assert.h"
#include "common/base/err.h"
#include "common/base/os.h"

#define INDEX_BUCKETS_MIN	1024u
#define INDEX_HUGE_MIN		(32u << 20)	/* smaller reservations stay in small pages: their round-up would show */

static void *
index_reserve(uint64_t bytes)
{
	void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	if (p == MAP_FAILED)
		return (NULL);
	/* Fewer faults while it fills, fewer misses ever after; only advice. */
	if (bytes >= INDEX_HUGE_MIN)
		(void)madvise(p, bytes, MADV_HUGEPAGE);
	return (p);
}

int
mkv_index_init(struct mkv_index *ix, uint32_t ents_max)
{
	memset(ix, 0, sizeof(*ix));
	ix->ents_max = ents_max;
	ix->heads_max = INDEX_BUCKETS_MIN;
	while (ix->heads_max < ents_max && ix->heads_max < (1u << 31))
		ix->heads_max *= 2;
	ix->sides_max = ents_max / 8 + 1024;
	ix->ent = index_reserve((uint64_t)ents_max * sizeof(struct mkv_ent));
	ix->head = index_reserve((uint64_t)ix->heads_max * sizeof(uint32_t));
	ix->side = index_reserve((uint64_t)ix->sides_max * sizeof(struct mkv_side));
	if (ix->ent == NULL || ix->head == NULL || ix->side == NULL) {
		mkv_index_fini(ix);
		return (MKV_E_NOMEM);
	}
	ix->ent_free = ix->side_free = MKV_ENT_NIL;
	ix->buckets = INDEX_BUCKETS_MIN;
	return (0);
}

void
mkv_index_fini(struct mkv_index *ix)
{
	mkv_index_expected(ix);
	if (ix->ent != NULL)
		munmap(ix->ent, (uint64_t)ix->ents_max * sizeof(struct mkv_ent));
	if (ix->head != NULL)
		munmap(ix->head, (uint64_t)ix->heads_max * sizeof(uint32_t));
	if (ix->side != NULL)
		munmap(ix->side, (uint64_t)ix->sides_max * sizeof(struct mkv_side));
	memset(ix, 0, sizeof(*ix));
}

static uint32_t *
index_head(const struct mkv_index *ix, uint64_t lo)
{
	uint32_t b = (uint32_t)(lo & (ix->buckets - 1));

	if (b < ix->split)
		b = (uint32_t)(lo & (2ull * ix->buckets - 1));
	return (&ix->head[b]);
}

uint32_t
mkv_index_find(const struct mkv_index *ix, struct mkv_digest d)
{
	for (uint32_t i = *index_head(ix, d.lo); i != 0; i = ix->ent[i - 1].next) {
		if (mkv_digest_eq(ix->ent[i - 1].digest, d))
			return (i - 1);
	}
	return (MKV_ENT_NIL);
}

uint32_t
mkv_index_find_next(const struct mkv_index *ix, uint32_t i)
{
	const struct mkv_digest d = ix->ent[i].digest;

	for (i = ix->ent[i].next; i != 0; i = ix->ent[i - 1].next) {
		if (mkv_digest_eq(ix->ent[i - 1].digest, d))
			return (i - 1);
	}
	return (MKV_ENT_NIL);
}

void
mkv_index_prefetch(const struct mkv_index *ix, struct mkv_digest d, unsigned step)
{
	const uint32_t *h = index_head(ix, d.lo);
	uint32_t i;

	if (step == 0) {
		__builtin_prefetch(h, 1);
		return;
	}
	for (i = *h; i != 0 && step > 1; step--)
		i = ix->ent[i - 1].next;
	if (i != 0)
		__builtin_prefetch(&ix->ent[i - 1], 1);
}

/*
 * Three passes, so that what one look-up waits for is on its way while the others are begun: buckets, their first entries, the search itself.
 */
void
mkv_index_find_many(const struct mkv_index *ix, const struct mkv_digest *d, unsigned n, uint32_t *out)
{
	const uint32_t *head[MKV_INDEX_MANY];

	MKV_ASSERT(n <= MKV_INDEX_MANY);
	for (unsigned k = 0; k < n; k++) {
		head[k] = index_head(ix, d[k].lo);
		__builtin_prefetch(head[k]);
	}
	for (unsigned k = 0; k < n; k++) {
		out[k] = *head[k];
		if (out[k] != 0)
			__builtin_prefetch(&ix->ent[out[k] - 1]);
	}
	for (unsigned k = 0; k < n; k++) {
		uint32_t i = out[k];

		while (i != 0 && !mkv_digest_eq(ix->ent[i - 1].digest, d[k]))
			i = ix->ent[i - 1].next;
		out[k] = i != 0 ? i - 1 : MKV_ENT_NIL;
	}
}

uint32_t
mkv_index_find_lo(const struct mkv_index *ix, uint64_t lo, uint32_t *it)
{
	uint32_t i = *it == 0 ? *index_head(ix, lo) : *it - 1;

	for (; i != 0; i = ix->ent[i - 1].next) {
		if (ix->ent[i - 1].digest.lo == lo) {
			*it = ix->ent[i - 1].next + 1;
			return (i - 1);
		}
	}
	return (MKV_ENT_NIL);
}

/* A slot with what its last owner left. */
static uint32_t
index_slot(struct mkv_index *ix)
{
	uint32_t i;

	if (ix->ent_free != MKV_ENT_NIL) {
		i = ix->ent_free;
		ix->ent_free = ix->ent[i].next;
	} else if (ix->ents_high < ix->ents_max) {
		i = ix->ents_high++;
	} else
		return (MKV_ENT_NIL);
	MKV_ASSERT((ix->ent[i].flags & MKV_ENT_USED) == 0);
	ix->used++;
	return (i);
}

uint32_t
mkv_index_take(struct mkv_index *ix)
{
	uint32_t i = index_slot(ix);

	if (i == MKV_ENT_NIL)
		return (i);
	memset(&ix->ent[i], 0, sizeof(ix->ent[i]));
	ix->ent[i].flags = MKV_ENT_USED;
	return (i);
}

void
mkv_index_drop(struct mkv_index *ix, uint32_t i)
{
	struct mkv_ent *en = &ix->ent[i];

	MKV_ASSERT(i < ix->ents_high);
	MKV_ASSERT((en->flags & MKV_ENT_USED) != 0);
	MKV_ASSERT((en->flags & MKV_ENT_LINKED) == 0);
	MKV_ASSERT(en->holds == 0);
	en->flags = 0;
	en->next = ix->ent_free;
	ix->ent_free = i;
	ix->used--;
}

static void *
index_populate(void *arg)
{
	struct mkv_index *ix = arg;

	mkv_os_populate(ix->head, ix->populate_head_bytes);
	mkv_os_populate(ix->ent, ix->populate_bytes);
	return (NULL);
}

void
mkv_index_expect(struct mkv_index *ix, uint32_t n)
{
	sigset_t all, old;

	MKV_ASSERT(ix->linked == 0 && !ix->populating);
	n = MKV_MIN(n, ix->ents_max);
	while (2ull * ix->buckets <= MKV_MIN(n, ix->heads_max))
		ix->buckets *= 2;
	ix->split = n > ix->buckets && 2ull * ix->buckets <= ix->heads_max ? n - ix->buckets : 0;
	ix->populate_head_bytes = MKV_ALIGN_UP((uint64_t)(ix->buckets + ix->split) * sizeof(uint32_t), 4096);
	ix->populate_bytes = (uint64_t)n * sizeof(struct mkv_ent) & ~(uint64_t)4095;
	if (ix->populate_bytes < INDEX_HUGE_MIN)
		return;
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	ix->populating = pthread_create(&ix->populate, NULL, index_populate, ix) == 0;
	pthread_sigmask(SIG_SETMASK, &old, NULL);
}

void
mkv_index_expected(struct mkv_index *ix)
{
	if (ix->populating)
		MKV_ASSERT(pthread_join(ix->populate, NULL) == 0);
	ix->populating = 0;
}

/* Move what belongs to the upper half of bucket `split` there; both keep their order. */
static void
index_split(struct mkv_index *ix)
{
	uint32_t old = ix->split, i = ix->head[old], *keep = &ix->head[old], *move = &ix->head[old + ix->buckets];

	if (2ull * ix->buckets > ix->heads_max)
		return;
	for (; i != 0; i = ix->ent[i - 1].next) {
		struct mkv_ent *en = &ix->ent[i - 1];

		if (en->digest.lo & ix->buckets) {
			*move = i;
			move = &en->next;
		} else {
			*keep = i;
			keep = &en->next;
		}
	}
	*keep = *move = 0;
	if (++ix->split == ix->buckets) {
		ix->buckets *= 2;
		ix->split = 0;
	}
}

static void
index_link(struct mkv_index *ix, uint32_t i)
{
	struct mkv_ent *en = &ix->ent[i];
	uint32_t *h;

	if (ix->linked >= ix->buckets + ix->split)
		index_split(ix);
	h = index_head(ix, en->digest.lo);
	en->next = *h;
	*h = i + 1;
	en->flags |= MKV_ENT_LINKED;
	ix->linked++;
}

void
mkv_index_link(struct mkv_index *ix, uint32_t i)
{
	MKV_ASSERT((ix->ent[i].flags & (MKV_ENT_USED | MKV_ENT_LINKED)) == MKV_ENT_USED);
	index_link(ix, i);
}

uint32_t
mkv_index_add(struct mkv_index *ix, const struct mkv_ent *en)
{
	uint32_t i = index_slot(ix);

	if (i == MKV_ENT_NIL)
		return (i);
	ix->ent[i] = *en;
	ix->ent[i].flags |= MKV_ENT_USED;
	index_link(ix, i);
	return (i);
}

void
mkv_index_unlink(struct mkv_index *ix, uint32_t i)
{
	uint32_t *p;

	MKV_ASSERT((ix->ent[i].flags & MKV_ENT_LINKED) != 0);
	for (p = index_head(ix, ix->ent[i].digest.lo); *p != 0; p = &ix->ent[*p - 1].next) {
		if (*p == i + 1)
			break;
	}
	MKV_ASSERT(*p == i + 1);
	*p = ix->ent[i].next;
	ix->ent[i].flags &= (uint16_t)~MKV_ENT_LINKED;
	ix->linked--;
}

uint32_t
mkv_side_take(struct mkv_index *ix)
{
	uint32_t s;

	if (ix->side_free != MKV_ENT_NIL) {
		s = ix->side_free;
		ix->side_free = ix->side[s].next;
	} else if (ix->sides_high < ix->sides_max) {
		s = ix->sides_high++;
	} else
		return (MKV_ENT_NIL);
	memset(&ix->side[s], 0, sizeof(ix->side[s]));
	ix->sides_used++;
	return (s);
}

void
mkv_side_drop(struct mkv_index *ix, uint32_t s)
{
	MKV_ASSERT(s < ix->sides_high);
	ix->side[s].next = ix->side_free;
	ix->side_free = s;
	ix->sides_used--;
}

unsigned
mkv_ent_runs(const struct mkv_index *ix, const struct mkv_ent *en, struct mkv_run *out)
{
	const struct mkv_side *s;

	if (en->units == 0 || (en->flags & MKV_ENT_MANIFEST))
		return (0);
	if ((en->flags & MKV_ENT_MULTI) == 0) {
		out[0].off = en->run;
		out[0].len = en->units;
		return (1);
	}
	MKV_ASSERT(en->run < ix->sides_high);
	s = &ix->side[en->run];
	MKV_ASSERT(s->n <= 8);
	memcpy(out, s->run, s->n * sizeof(*out));
	return (s->n);
}
