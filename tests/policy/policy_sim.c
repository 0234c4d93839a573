/*
 * Eviction policies over a trace: the engine's own policy code around an index without data, one process, no I/O but the trace.
 *
 *   policy_sim TRACE.jsonl [PERCENT...]     one line for each capacity (percent of the trace's distinct blocks) and policy:
 *                                           percent  policy  prefix hits  references  blocks written
 *
 * A block of a request is a hit if it and all blocks before it are there. Blocks that are there are hit in the order of the request, the others are put;
 * nothing leaves before the store is full. `optimal` knows the future: it keeps what is used soonest and does not take what is used later than all it has.
 * A name with "+chain": each block names the one before it.
 */
#include "config.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bench/trace.h"
#include "common/base/assert.h"
#include "common/base/err.h"
#include "common/base/hash.h"
#include "worker/drive/policy.h"

struct sim {
	const struct mkv_trace *t;
	uint32_t	*block;			/* of each reference: its number among the distinct ones */
	uint32_t	*next;			/* of each reference: the next one of its block, or UINT32_MAX */
	uint32_t	blocks;
	uint64_t	hits, writes;
};

struct run {
	struct mkv_index ix;
	struct mkv_policy pol;
	uint32_t	objects_max;
	int		chain;
};

static struct mkv_digest
sim_digest(uint32_t block)
{
	return ((struct mkv_digest){ mkv_hash64(&block, sizeof(block), 1), mkv_hash64(&block, sizeof(block), 2) });
}

static void
die(const char *why)
{
	fprintf(stderr, "policy_sim: %s\n", why);
	exit(2);
}

static void *
sim_alloc(uint64_t n, size_t bytes)
{
	void *p = calloc(n, bytes);

	if (p == NULL)
		die("out of memory");
	return (p);
}

static int
sim_cmp(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return (x < y ? -1 : x > y);
}

/* Ids to small numbers; who comes next. */
static void
sim_prepare(struct sim *s)
{
	uint64_t n = s->t->n_ids, *id = sim_alloc(n, sizeof(*id)), k = 0;
	uint32_t *seen;

	memcpy(id, s->t->id, n * sizeof(*id));
	qsort(id, n, sizeof(*id), sim_cmp);
	for (uint64_t i = 0; i < n; i++)
		if (k == 0 || id[i] != id[k - 1])
			id[k++] = id[i];
	s->blocks = (uint32_t)k;
	s->block = sim_alloc(n, sizeof(*s->block));
	s->next = sim_alloc(n, sizeof(*s->next));
	seen = sim_alloc(k, sizeof(*seen));
	memset(seen, 0xff, k * sizeof(*seen));
	for (uint64_t i = n; i-- > 0;) {
		uint64_t *at = bsearch(&s->t->id[i], id, k, sizeof(*id), sim_cmp);

		s->block[i] = (uint32_t)(at - id);
		s->next[i] = seen[s->block[i]];
		seen[s->block[i]] = (uint32_t)i;
	}
	free(seen);
	free(id);
}

static void
run_evict(struct run *r)
{
	while (r->ix.linked >= r->objects_max) {
		unsigned look = UINT32_MAX;
		uint32_t i = mkv_policy_victim(&r->pol, &look);

		MKV_ASSERT(i != MKV_ENT_NIL);
		mkv_policy_evict(&r->pol, i);
		mkv_index_unlink(&r->ix, i);
		mkv_index_drop(&r->ix, i);
	}
}

/* One block of a request: 1 it was there. */
static int
run_block(struct sim *s, struct run *r, struct mkv_digest d, struct mkv_digest before, int first)
{
	uint32_t i = mkv_index_find(&r->ix, d), parent = MKV_ENT_NIL;

	if (i != MKV_ENT_NIL) {
		if (r->chain && !first)
			parent = mkv_index_find(&r->ix, before);
		mkv_policy_hit(&r->pol, i, parent);
		return (1);
	}
	if (r->ix.linked >= r->objects_max && !mkv_policy_admit(&r->pol, d))
		return (0);
	run_evict(r);
	if (r->chain && !first)
		parent = mkv_index_find(&r->ix, before);
	i = mkv_index_take(&r->ix);
	r->ix.ent[i].digest = d;
	mkv_index_link(&r->ix, i);
	mkv_policy_insert(&r->pol, i, parent);
	s->writes++;
	return (0);
}

/* A client looks for the prefix before it reads or puts anything. */
static unsigned
run_match(struct sim *s, struct run *r, const struct mkv_trace_request *q)
{
	unsigned n = 0;

	while (n < q->n && mkv_index_find(&r->ix, sim_digest(s->block[q->first + n])) != MKV_ENT_NIL)
		n++;
	return (n);
}

static void
sim_run(struct sim *s, enum mkv_policy_kind kind, uint32_t objects, int chain)
{
	struct run *r = sim_alloc(1, sizeof(*r));

	r->objects_max = objects;
	r->chain = chain;
	s->hits = s->writes = 0;
	if (mkv_index_init(&r->ix, objects + 1) != 0 || mkv_policy_init(&r->pol, &r->ix, 8 * objects, kind) != 0)
		die("out of memory");
	for (uint64_t q = 0; q < s->t->n_req; q++) {
		const struct mkv_trace_request *rq = &s->t->req[q];
		struct mkv_digest before = { 0, 0 };

		s->hits += run_match(s, r, rq);
		for (unsigned k = 0; k < rq->n; k++) {
			struct mkv_digest d = sim_digest(s->block[rq->first + k]);

			(void)run_block(s, r, d, before, k == 0);
			before = d;
		}
	}
	mkv_policy_fini(&r->pol);
	mkv_index_fini(&r->ix);
	free(r);
}

/* What is in the store, by when it is used next: a bit for each reference. */
struct future {
	uint64_t	*word;
	int64_t		top;			/* no bit above this word */
	uint8_t		*in;			/* by block */
	uint32_t	count;
};

static uint32_t
future_last(struct future *f)
{
	while (f->word[f->top] == 0)
		f->top--;
	return ((uint32_t)f->top * 64 + 63 - (uint32_t)__builtin_clzll(f->word[f->top]));
}

static void
future_flip(struct future *f, uint32_t at)
{
	f->word[at / 64] ^= 1ull << (at % 64);
	if (at / 64 > f->top)
		f->top = at / 64;
}

/* At reference i the block is put or was used; it stays if there is room for it. */
static void
future_use(struct sim *s, struct future *f, uint64_t i, uint32_t objects)
{
	uint32_t b = s->block[i], last;

	if (f->in[b]) {
		future_flip(f, (uint32_t)i);
		f->in[b] = 0;
		f->count--;
	} else if (s->next[i] != UINT32_MAX)
		s->writes++;
	if (s->next[i] == UINT32_MAX)
		return;
	if (f->count == objects) {
		last = future_last(f);
		if (last < s->next[i]) {
			s->writes--;
			return;
		}
		future_flip(f, last);
		f->in[s->block[last]] = 0;
		f->count--;
	}
	future_flip(f, s->next[i]);
	f->in[b] = 1;
	f->count++;
}

static void
sim_optimal(struct sim *s, uint32_t objects)
{
	struct future f = { .word = sim_alloc(s->t->n_ids / 64 + 1, 8), .in = sim_alloc(s->blocks, 1) };

	s->hits = s->writes = 0;
	for (uint64_t q = 0; q < s->t->n_req; q++) {
		const struct mkv_trace_request *rq = &s->t->req[q];
		unsigned n = 0;

		while (n < rq->n && f.in[s->block[rq->first + n]])
			n++;
		s->hits += n;
		for (unsigned k = 0; k < rq->n; k++)
			future_use(s, &f, rq->first + k, objects);
	}
	free(f.word);
	free(f.in);
}

static void
sim_print(const struct sim *s, unsigned percent, const char *policy, const char *more)
{
	printf("%u\t%s%s\t%llu\t%llu\t%llu\n", percent, policy, more, (unsigned long long)s->hits, (unsigned long long)s->t->n_ids,
	    (unsigned long long)s->writes);
}

static void
sim_capacity(struct sim *s, unsigned percent)
{
	static const enum mkv_policy_kind kind[] = { MKV_POLICY_FIFO, MKV_POLICY_LRU, MKV_POLICY_CLOCK, MKV_POLICY_S3FIFO, MKV_POLICY_ADAPTIVE };
	uint32_t objects = (uint32_t)((uint64_t)s->blocks * percent / 100);

	if (objects == 0)
		die("a trace of so few blocks has no such part");
	for (unsigned k = 0; k < MKV_ARRAY_LEN(kind); k++) {
		for (int chain = 0; chain < 2; chain++) {
			sim_run(s, kind[k], objects, chain);
			sim_print(s, percent, mkv_policy_table[kind[k]].name, chain ? "+chain" : "");
		}
	}
	sim_optimal(s, objects);
	sim_print(s, percent, "optimal", "");
}

int
main(int argc, char **argv)
{
	struct mkv_trace t;
	struct sim s = { .t = &t };
	char why[256];

	if (argc < 2)
		die("usage: policy_sim TRACE.jsonl [PERCENT...]");
	if (mkv_trace_load(&t, argv[1], 0, why, sizeof(why)) != 0)
		die(why);
	if (t.n_ids == 0 || t.n_ids >= UINT32_MAX)
		die("too few blocks, or too many");
	sim_prepare(&s);
	if (argc == 2) {
		static const unsigned usual[] = { 1, 5, 10, 20, 50 };

		for (unsigned k = 0; k < MKV_ARRAY_LEN(usual); k++)
			sim_capacity(&s, usual[k]);
	}
	for (int k = 2; k < argc; k++)
		sim_capacity(&s, (unsigned)strtoul(argv[k], NULL, 10));
	free(s.block);
	free(s.next);
	mkv_trace_free(&t);
	return (0);
}
