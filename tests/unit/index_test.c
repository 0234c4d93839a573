/*
 * The index against a model, through growth and turnover; its memory for each object; entries that stay where they are.
 */
#include "config.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "common/base/err.h"
#include "tests/lib/rnd.h"
#include "worker/drive/index.h"

#define N	50000u

static struct mkv_digest
digest_of(uint32_t k)
{
	const struct mkv_digest d = { mkv_hash64(&k, sizeof(k), 1), mkv_hash64(&k, sizeof(k), 2) };

	return (d);
}

static void
test_model(void **state)
{
	struct mkv_index ix;
	uint32_t *slot = malloc(N * sizeof(*slot)), linked = 0;
	struct rnd rnd;

	(void)state;
	rnd_init(&rnd, 7);
	memset(slot, 0xff, N * sizeof(*slot));
	assert_int_equal(mkv_index_init(&ix, N), 0);
	for (unsigned i = 0; i < 400000; i++) {
		uint32_t k = rnd_below(&rnd, N), at = mkv_index_find(&ix, digest_of(k));

		assert_int_equal(at, slot[k]);
		if (at == MKV_ENT_NIL) {
			at = mkv_index_take(&ix);
			assert_int_not_equal(at, MKV_ENT_NIL);
			ix.ent[at].digest = digest_of(k);
			mkv_index_link(&ix, at);
			slot[k] = at;
			linked++;
		} else if (rnd_below(&rnd, 3)) {
			mkv_index_unlink(&ix, at);
			assert_int_equal(mkv_index_find(&ix, digest_of(k)), MKV_ENT_NIL);
			mkv_index_drop(&ix, at);
			slot[k] = MKV_ENT_NIL;
			linked--;
		}
		assert_int_equal(ix.linked, linked);
	}
	mkv_index_fini(&ix);
	free(slot);
}

/* Same low half: all are found by it, each by its own digest. */
static void
test_same_lo(void **state)
{
	struct mkv_index ix;
	uint32_t it = 0, n = 0;

	(void)state;
	assert_int_equal(mkv_index_init(&ix, 1000), 0);
	for (uint32_t k = 0; k < 300; k++) {
		uint32_t at = mkv_index_take(&ix);

		ix.ent[at].digest = (struct mkv_digest){ k % 3, k };
		mkv_index_link(&ix, at);
	}
	while (mkv_index_find_lo(&ix, 1, &it) != MKV_ENT_NIL)
		n++;
	assert_int_equal(n, 100);
	assert_int_not_equal(mkv_index_find(&ix, (struct mkv_digest){ 2, 299 }), MKV_ENT_NIL);
	assert_int_equal(mkv_index_find(&ix, (struct mkv_digest){ 2, 298 }), MKV_ENT_NIL);
	mkv_index_fini(&ix);
}

static void
test_full(void **state)
{
	struct mkv_index ix;
	uint32_t s, n = 0;

	(void)state;
	assert_int_equal(mkv_index_init(&ix, 100), 0);
	for (int i = 0; i < 100; i++)
		assert_int_not_equal(mkv_index_take(&ix), MKV_ENT_NIL);
	assert_int_equal(mkv_index_take(&ix), MKV_ENT_NIL);
	mkv_index_drop(&ix, 50);
	assert_int_equal(mkv_index_take(&ix), 50);
	while ((s = mkv_side_take(&ix)) != MKV_ENT_NIL)
		n++;
	assert_int_equal(n, ix.sides_max);
	mkv_side_drop(&ix, 3);
	assert_int_equal(mkv_side_take(&ix), 3);
	mkv_index_fini(&ix);
}

/* The budget: 64 bytes an object, whatever the moment of growth. */
static void
test_memory(void **state)
{
	struct mkv_index ix;

	(void)state;
	assert_int_equal(mkv_index_init(&ix, 1000000), 0);
	for (uint32_t k = 0; k < 300000; k++) {
		uint32_t at = mkv_index_take(&ix);
		uint64_t bytes;

		ix.ent[at].digest = digest_of(k);
		mkv_index_link(&ix, at);
		bytes = (uint64_t)ix.ents_high * sizeof(struct mkv_ent) + 4ull * (ix.buckets + ix.split);
		if (k > 10000)
			assert_true(bytes <= 64ull * ix.linked);
	}
	mkv_index_fini(&ix);
}

/* What many look-ups at once find is what one at a time finds, also on chains of one bucket. */
static void
test_many(void **state)
{
	struct mkv_digest d[MKV_INDEX_MANY];
	uint32_t found[MKV_INDEX_MANY];
	struct mkv_index ix;

	(void)state;
	assert_int_equal(mkv_index_init(&ix, 10000), 0);
	for (uint32_t k = 0; k < 3000; k++) {
		uint32_t at = mkv_index_take(&ix);

		ix.ent[at].digest = k % 3 == 0 ? (struct mkv_digest){ 7, k } : digest_of(k);
		mkv_index_link(&ix, at);
	}
	for (uint32_t from = 0; from < 6000; from += 11) {
		unsigned n = from % (MKV_INDEX_MANY + 1);

		for (unsigned k = 0; k < n; k++)
			d[k] = (from + k) % 3 == 0 ? (struct mkv_digest){ 7, from + k } : digest_of(from + k);
		mkv_index_find_many(&ix, d, n, found);
		for (unsigned k = 0; k < n; k++) {
			assert_int_equal(found[k], mkv_index_find(&ix, d[k]));
			assert_int_equal(found[k] == MKV_ENT_NIL, from + k >= 3000);
		}
	}
	mkv_index_fini(&ix);
}

/* Announced entries: any number announced, fewer or more that come; all are found, also later. Of two with one digest the last comes first. */
static void
test_expect(void **state)
{
	static const uint32_t announced[] = { 0, 1, 1000, 1024, 1500, 3000, 4096, 5000, UINT32_MAX };

	(void)state;
	for (unsigned a = 0; a < sizeof(announced) / sizeof(announced[0]); a++) {
		struct mkv_index ix;

		assert_int_equal(mkv_index_init(&ix, 6000), 0);
		mkv_index_expect(&ix, announced[a]);
		for (uint32_t k = 0; k < 4000; k++) {
			uint32_t at = mkv_index_take(&ix);

			ix.ent[at].digest = digest_of(k % 10 == 0 && k > 0 ? k - 1 : k);
			mkv_index_link(&ix, at);
		}
		for (uint32_t k = 9; k < 3999; k += 10) {
			assert_int_equal(mkv_index_find(&ix, digest_of(k)), k + 1);
			mkv_index_unlink(&ix, k + 1);
			ix.ent[k + 1].digest = digest_of(k + 1);
			mkv_index_link(&ix, k + 1);
		}
		mkv_index_expected(&ix);
		for (uint32_t k = 4000; k < 6000; k++) {
			uint32_t at = mkv_index_take(&ix);

			ix.ent[at].digest = digest_of(k);
			mkv_index_link(&ix, at);
		}
		for (uint32_t k = 0; k < 6000; k++)
			assert_int_equal(mkv_index_find(&ix, digest_of(k)), k);
		mkv_index_fini(&ix);
	}
}

/* So many that memory is asked for ahead: what is there already stays. */
static void
test_expect_many(void **state)
{
	struct mkv_index ix;

	(void)state;
	assert_int_equal(mkv_index_init(&ix, 2000000), 0);
	mkv_index_expect(&ix, 1000000);
	for (uint32_t k = 0; k < 300000; k++) {
		uint32_t at = mkv_index_take(&ix);

		ix.ent[at].digest = digest_of(k);
		mkv_index_link(&ix, at);
	}
	mkv_index_expected(&ix);
	for (uint32_t k = 0; k < 300000; k++)
		assert_int_equal(mkv_index_find(&ix, digest_of(k)), k);
	mkv_index_fini(&ix);
}

/* Adding is taking and linking; asking for memory changes nothing, however far it goes. */
static void
test_add(void **state)
{
	struct mkv_index ix;

	(void)state;
	assert_int_equal(mkv_index_init(&ix, 1000), 0);
	for (uint32_t k = 0; k < 1000; k++) {
		struct mkv_ent en = { .digest = digest_of(k), .page = k, .run = 3, .units = 2, .flags = MKV_ENT_PIN, .expires = 9, .rank = 8 };

		for (unsigned step = 0; step < 6; step++)
			mkv_index_prefetch(&ix, en.digest, step);
		assert_int_equal(mkv_index_add(&ix, &en), k);
	}
	assert_int_equal(mkv_index_add(&ix, &(struct mkv_ent){ .page = 1 }), MKV_ENT_NIL);
	assert_int_equal(ix.linked, 1000);
	assert_int_equal(ix.used, 1000);
	for (uint32_t k = 0; k < 1000; k++) {
		const struct mkv_ent *en = &ix.ent[k];

		assert_int_equal(mkv_index_find(&ix, digest_of(k)), k);
		assert_int_equal(en->flags, MKV_ENT_PIN | MKV_ENT_USED | MKV_ENT_LINKED);
		assert_true(en->page == k && en->run == 3 && en->units == 2 && en->expires == 9 && en->rank == 8 && en->q_next == 0);
	}
	mkv_index_unlink(&ix, 500);
	mkv_index_drop(&ix, 500);
	assert_int_equal(mkv_index_add(&ix, &(struct mkv_ent){ .digest = digest_of(5000) }), 500);
	assert_int_equal(mkv_index_find(&ix, digest_of(5000)), 500);
	mkv_index_fini(&ix);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_model), cmocka_unit_test(test_same_lo), cmocka_unit_test(test_full), cmocka_unit_test(test_memory),
		cmocka_unit_test(test_many), cmocka_unit_test(test_expect), cmocka_unit_test(test_expect_many), cmocka_unit_test(test_add),
	};

	return (cmocka_run_group_tests(tests, NULL, NULL));
}
