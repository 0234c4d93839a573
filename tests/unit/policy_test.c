/*
 * Queues, policies, ghosts and ranks, over an index without data. What policies hit on real traces is tests/policy.
 */
#include "config.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "common/base/assert.h"
#include "common/base/hash.h"
#include "tests/lib/rnd.h"
#include "worker/drive/policy.h"

#define N	600u

struct box {
	struct mkv_index ix;
	struct mkv_policy pol;
};

static struct mkv_digest
digest_of(uint32_t k)
{
	return ((struct mkv_digest){ mkv_hash64(&k, sizeof(k), 1), mkv_hash64(&k, sizeof(k), 2) });
}

static void
box_up(struct box *b, enum mkv_policy_kind kind)
{
	assert_int_equal(mkv_index_init(&b->ix, 20000), 0);
	assert_int_equal(mkv_policy_init(&b->pol, &b->ix, 8 * N, kind), 0);
}

static void
box_down(struct box *b)
{
	mkv_policy_fini(&b->pol);
	mkv_index_fini(&b->ix);
}

static uint32_t
box_put(struct box *b, uint32_t k, uint32_t parent)
{
	uint32_t i = mkv_index_take(&b->ix);

	assert_int_not_equal(i, MKV_ENT_NIL);
	b->ix.ent[i].digest = digest_of(k);
	mkv_index_link(&b->ix, i);
	mkv_policy_insert(&b->pol, i, parent);
	return (i);
}

static uint32_t
box_find(struct box *b, uint32_t k)
{
	return (mkv_index_find(&b->ix, digest_of(k)));
}

static uint32_t
box_victim(struct box *b)
{
	unsigned look = 100000;

	return (mkv_policy_victim(&b->pol, &look));
}

/* Who leaves: its key, by search. */
static uint32_t
box_evict(struct box *b, uint32_t keys)
{
	uint32_t i = box_victim(b);

	assert_int_not_equal(i, MKV_ENT_NIL);
	for (uint32_t k = 0; k < keys; k++) {
		if (box_find(b, k) != i)
			continue;
		mkv_policy_evict(&b->pol, i);
		mkv_index_unlink(&b->ix, i);
		mkv_index_drop(&b->ix, i);
		return (k);
	}
	fail();
	return (0);
}

static void
test_order(void **state)
{
	static const struct {
		enum mkv_policy_kind kind;
		uint32_t	leaves[4];
	} want[] = {		/* 0 1 2 3 came in this order, then 0 was read */
		{ MKV_POLICY_FIFO,	{ 0, 1, 2, 3 } },
		{ MKV_POLICY_LRU,	{ 1, 2, 3, 0 } },
		{ MKV_POLICY_CLOCK,	{ 1, 2, 3, 0 } },
		{ MKV_POLICY_S3FIFO,	{ 1, 2, 3, 0 } },
		{ MKV_POLICY_ADAPTIVE,	{ 1, 2, 3, 0 } },
	};

	(void)state;
	for (unsigned w = 0; w < MKV_ARRAY_LEN(want); w++) {
		struct box b;

		box_up(&b, want[w].kind);
		for (uint32_t k = 0; k < 4; k++)
			(void)box_put(&b, k, MKV_ENT_NIL);
		mkv_policy_hit(&b.pol, box_find(&b, 0), MKV_ENT_NIL);
		for (unsigned k = 0; k < 4; k++)
			assert_int_equal(box_evict(&b, 4), want[w].leaves[k]);
		assert_int_equal(box_victim(&b), MKV_ENT_NIL);
		box_down(&b);
	}
}

static void
test_none(void **state)
{
	struct box b;

	(void)state;
	box_up(&b, MKV_POLICY_NONE);
	(void)box_put(&b, 0, MKV_ENT_NIL);
	assert_int_equal(box_victim(&b), MKV_ENT_NIL);
	assert_int_equal(mkv_policy_set(&b.pol, MKV_POLICY_LRU), 0);
	assert_int_equal(box_evict(&b, 1), 0);
	box_down(&b);
}

/* A chain that comes after an older object: the older one leaves, then the chain from its end. */
static void
test_chain(void **state)
{
	struct box b;
	uint32_t i;

	(void)state;
	for (int kind = MKV_POLICY_ADAPTIVE; kind <= MKV_POLICY_FIFO; kind++) {
		box_up(&b, (enum mkv_policy_kind)kind);
		(void)box_put(&b, 0, MKV_ENT_NIL);
		i = box_put(&b, 1, MKV_ENT_NIL);
		i = box_put(&b, 2, i);
		(void)box_put(&b, 3, i);
		assert_int_equal(box_evict(&b, 4), 0);
		assert_int_equal(box_evict(&b, 4), 3);
		assert_int_equal(box_evict(&b, 4), 2);
		assert_int_equal(box_evict(&b, 4), 1);
		box_down(&b);
	}
}

/* A parent that came long ago is no reason to be old oneself. */
static void
test_chain_of_an_old_parent(void **state)
{
	struct box b;
	uint32_t old, k;

	(void)state;
	box_up(&b, MKV_POLICY_LRU);
	old = box_put(&b, 0, MKV_ENT_NIL);
	for (k = 1; k <= MKV_POLICY_FRESH + 1; k++)
		(void)box_put(&b, k, MKV_ENT_NIL);
	(void)box_put(&b, k, old);
	assert_int_equal(box_evict(&b, k + 1), 0);
	assert_int_equal(box_evict(&b, k + 1), 1);
	box_down(&b);
}

static void
test_probation(void **state)
{
	struct box b;

	(void)state;
	box_up(&b, MKV_POLICY_S3FIFO);
	for (uint32_t k = 0; k < 20; k++)
		(void)box_put(&b, k, MKV_ENT_NIL);
	assert_int_equal(b.pol.q[MKV_PQ_SMALL].count, 20);
	assert_int_equal(box_evict(&b, 20), 0);
	(void)box_put(&b, 0, MKV_ENT_NIL);			/* known: no probation again */
	assert_int_equal(b.pol.q[MKV_PQ_SMALL].count, 19);
	assert_int_equal(b.pol.q[MKV_PQ_MAIN].count, 1);
	assert_int_equal(box_evict(&b, 20), 1);
	assert_int_equal(mkv_policy_set(&b.pol, MKV_POLICY_FIFO), 0);
	assert_int_equal(box_evict(&b, 20), 2);			/* what was on probation goes first */
	box_down(&b);
}

static void
test_second_touch(void **state)
{
	struct box b;

	(void)state;
	box_up(&b, MKV_POLICY_CLOCK);
	for (uint32_t k = 0; k < N; k++)
		(void)box_put(&b, k, MKV_ENT_NIL);
	assert_int_equal(mkv_policy_admit(&b.pol, digest_of(N)), 1);
	b.pol.second_touch = 1;
	assert_int_equal(mkv_policy_admit(&b.pol, digest_of(N)), 0);
	assert_int_equal(mkv_policy_admit(&b.pol, digest_of(N)), 1);
	assert_int_equal(mkv_policy_admit(&b.pol, digest_of(N)), 0);	/* the ghost is used up */
	for (uint32_t k = 0; k < 4 * N; k++)
		(void)mkv_policy_admit(&b.pol, digest_of(2 * N + k));
	assert_int_equal(mkv_policy_admit(&b.pol, digest_of(N)), 0);	/* too long ago */
	box_down(&b);
}

/* A store that holds all: nothing is measured as a loss, second touch never begins. */
static void
test_adaptive_calm(void **state)
{
	struct box b;

	(void)state;
	box_up(&b, MKV_POLICY_ADAPTIVE);
	for (unsigned round = 0; round < 3; round++) {
		for (uint32_t k = 0; k < 15000; k++) {
			uint32_t i = box_find(&b, k);

			if (i != MKV_ENT_NIL)
				mkv_policy_hit(&b.pol, i, MKV_ENT_NIL);
			else
				(void)box_put(&b, k, MKV_ENT_NIL);
		}
	}
	assert_int_equal(b.pol.second_touch, 0);
	assert_int_equal(mkv_adapt_chosen(&b.pol), MKV_ADAPT_CLOCK);
	assert_in_range(mkv_adapt_bytes(&b.pol), 1, 2u << 20);
	box_down(&b);
}

/*
 * A few objects that are always read again, among many that never are: second touch, and only as long as something has to leave.
 */
static void
test_adaptive_scan(void **state)
{
	struct box b;
	struct rnd rnd;
	uint32_t fresh = 100000;

	(void)state;
	rnd_init(&rnd, 3);
	box_up(&b, MKV_POLICY_ADAPTIVE);
	for (unsigned n = 0; n < 200000; n++) {
		uint32_t k = rnd_below(&rnd, 20) == 0 ? rnd_below(&rnd, 2 * N) : fresh++, i = box_find(&b, k);

		if (i != MKV_ENT_NIL) {
			mkv_policy_hit(&b.pol, i, MKV_ENT_NIL);
			continue;
		}
		if (b.ix.linked >= N) {
			if (!mkv_policy_admit(&b.pol, digest_of(k)))
				continue;
			i = box_victim(&b);
			mkv_policy_evict(&b.pol, i);
			mkv_index_unlink(&b.ix, i);
			mkv_index_drop(&b.ix, i);
		}
		(void)box_put(&b, k, MKV_ENT_NIL);
	}
	assert_true(mkv_adapt_chosen(&b.pol) == MKV_ADAPT_SECOND || mkv_adapt_chosen(&b.pol) == MKV_ADAPT_S3FIFO);
	for (unsigned n = 0; n < 10 * N; n++)
		mkv_policy_hit(&b.pol, rnd_below(&rnd, N), MKV_ENT_NIL);
	assert_int_equal(b.pol.second_touch, 0);
	box_down(&b);
}

static int
all(const struct mkv_ent *en)
{
	(void)en;
	return (1);
}

/* Ranks are written while queues change, and rebuild about the order that was. */
static void
test_ranks(void **state)
{
	struct box b;
	uint32_t k, before = 0;

	(void)state;
	box_up(&b, MKV_POLICY_CLOCK);
	for (k = 0; k < N; k++)
		(void)box_put(&b, k, MKV_ENT_NIL);
	mkv_policy_rank_begin(&b.pol);
	while (mkv_policy_rank_step(&b.pol, 7)) {
		if (k < N + 20)
			(void)box_put(&b, k++, MKV_ENT_NIL);
		if (b.pol.cursor != 0 && b.pol.cursor - 1 < N && before < 10) {	/* the one that is next in the walk leaves */
			uint32_t i = b.pol.cursor - 1;

			mkv_policy_remove(&b.pol, i);
			mkv_index_unlink(&b.ix, i);
			mkv_index_drop(&b.ix, i);
			before++;
		}
	}
	for (uint32_t i = 0; i < b.ix.ents_high; i++)
		b.ix.ent[i].q_prev = b.ix.ent[i].q_next = 0;
	mkv_policy_fini(&b.pol);
	assert_int_equal(mkv_policy_init(&b.pol, &b.ix, N, MKV_POLICY_CLOCK), 0);
	mkv_policy_rebuild(&b.pol, all);
	assert_int_equal(mkv_policy_count(&b.pol), b.ix.linked);
	for (unsigned n = 0; n < 300; n++)
		assert_in_range(box_evict(&b, N + 20), n > 40 ? n - 40 : 0, n + 40);
	box_down(&b);
}

static int
odd_only(const struct mkv_ent *en)
{
	return (en->page & 1);
}

/* Each queue from its young end: ranks rise, and within one the numbers; what does not belong is in none. */
static void
test_rebuild_order(void **state)
{
	uint8_t rank[3 * N];
	struct rnd rnd;
	struct box b;
	uint32_t seen = 0;

	(void)state;
	rnd_init(&rnd, 11);
	box_up(&b, MKV_POLICY_S3FIFO);
	for (uint32_t k = 0; k < 3 * N; k++) {
		struct mkv_ent en = { .digest = digest_of(k), .page = k, .flags = rnd_below(&rnd, 3) ? 0 : MKV_ENT_SMALL, .rank = rank[k] = (uint8_t)rnd_below(&rnd, 256) };

		assert_int_equal(mkv_index_add(&b.ix, &en), k);
	}
	mkv_index_unlink(&b.ix, 7);
	mkv_policy_rebuild(&b.pol, odd_only);
	for (unsigned q = 0; q < MKV_PQ_COUNT; q++) {
		uint32_t younger = b.pol.q[q].young, n = younger, count = 0;

		for (; n <= 3 * N; younger = n, n = b.ix.ent[n - 1].q_next, count++) {
			const struct mkv_ent *en = &b.ix.ent[n - 1];

			assert_int_equal(en->page & 1, 1);
			assert_int_equal(en->rank, 0);
			assert_int_equal((en->flags & MKV_ENT_SMALL) != 0, q == MKV_PQ_SMALL);
			assert_int_equal(count == 0 || en->q_prev == younger, 1);
			assert_true(count == 0 || rank[younger - 1] * 10000 + younger < rank[n - 1] * 10000 + n);
		}
		assert_int_equal(b.pol.q[q].old, younger);
		assert_int_equal(b.pol.q[q].count, count);
		seen += count;
	}
	assert_int_equal(seen, 3 * N / 2 - 1);
	for (uint32_t i = 0; i < 3 * N; i++)
		mkv_policy_remove(&b.pol, i);
	assert_int_equal(mkv_policy_count(&b.pol), 0);
	for (unsigned q = 0; q < MKV_PQ_COUNT; q++)
		assert_int_equal(b.pol.q[q].young, b.pol.q[q].old);
	box_down(&b);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_order), cmocka_unit_test(test_none), cmocka_unit_test(test_chain), cmocka_unit_test(test_chain_of_an_old_parent),
		cmocka_unit_test(test_probation), cmocka_unit_test(test_second_touch), cmocka_unit_test(test_adaptive_calm),
		cmocka_unit_test(test_adaptive_scan), cmocka_unit_test(test_ranks), cmocka_unit_test(test_rebuild_order),
	};

	return (cmocka_run_group_tests(tests, NULL, NULL));
}
