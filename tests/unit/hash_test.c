/*
 * Digests and placement: the documented arithmetic (values computed by another program), even spread, and that a new node takes only
 * its share.
 */
#include "config.h"
#include "common/base/hash.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "common/base/assert.h"
#include "common/base/auth.h"
#include "common/base/err.h"
#include "tests/lib/rnd.h"

#define KEYS	60000u

static void
secrets(void **state)
{
	uint8_t store[32], a[MKV_SECRET_BYTES], b[MKV_SECRET_BYTES], want[16];
	static const uint8_t begin[16] = { 0xef, 0xd4, 0x0d, 0x17, 0xda, 0xc3, 0x8d, 0x77, 0xa4, 0x90, 0xc0, 0x63, 0x4e, 0xf1, 0xae, 0x32 };
	char ns[64];

	(void)state;
	for (unsigned i = 0; i < 32; i++)
		store[i] = (uint8_t)i;
	assert_int_equal(mkv_digest_secret(store, "ns one", 6, a), 0);
	memcpy(want, begin, sizeof(want));
	assert_memory_equal(a, want, sizeof(want));
	assert_int_equal(mkv_digest_secret(store, "ns onf", 6, b), 0);
	assert_memory_not_equal(a, b, sizeof(a));
	assert_int_equal(mkv_digest_secret(store, NULL, 0, b), 0);
	memset(ns, 'n', sizeof(ns));
	assert_int_equal(mkv_digest_secret(store, ns, 63, b), 0);
	assert_int_equal(mkv_digest_secret(store, ns, 64, b), MKV_E_INVAL);
}

static void
digests(void **state)
{
	uint8_t store[32] = { 1 }, a[MKV_SECRET_BYTES], b[MKV_SECRET_BYTES], key[512];
	struct mkv_digest d, e;
	struct rnd r;

	(void)state;
	rnd_init(&r, 9);
	rnd_fill(&r, key, sizeof(key));
	assert_int_equal(mkv_digest_secret(store, "a", 1, a), 0);
	assert_int_equal(mkv_digest_secret(store, "b", 1, b), 0);
	for (size_t n = 1; n <= sizeof(key); n++) {
		d = mkv_digest(a, key, n);
		assert_true(mkv_digest_eq(d, mkv_digest(a, key, n)));
		e = mkv_digest(b, key, n);
		assert_false(mkv_digest_eq(d, e));
		assert_false(d.lo == e.lo || d.hi == e.hi || d.lo == d.hi);
		key[n - 1] ^= 1;
		assert_false(mkv_digest_eq(d, mkv_digest(a, key, n)));
		key[n - 1] ^= 1;
	}
	assert_true(mkv_hash64("", 0, 0) == 0x2d06800538d394c2ull);	/* XXH3's published answer */
	assert_true(mkv_hash64("x", 1, 0) != mkv_hash64("x", 1, 1));
}

static void
documented_order(void **state)
{
	static const uint64_t node[] = { 0x1111111111111111ull, 0x2222222222222222ull, 0x3333333333333333ull, 0x4444444444444444ull,
		0x5555555555555555ull };
	static const double weight[] = { 1, 1, 2, 1, 0.5 };
	static const struct {
		uint64_t	key;
		unsigned	order[5];
	} want[] = {
		{ 0, { 0, 1, 4, 3, 2 } }, { 1, { 0, 2, 1, 3, 4 } }, { 0xdeadbeef, { 2, 4, 1, 0, 3 } },
		{ UINT64_MAX, { 2, 3, 0, 1, 4 } }, { 0x123456789abcdef0ull, { 2, 0, 3, 4, 1 } }, { 42, { 2, 1, 3, 0, 4 } },
	};
	unsigned got[5];

	(void)state;
	for (size_t i = 0; i < MKV_ARRAY_LEN(want); i++) {
		assert_int_equal(mkv_rendezvous(node, weight, 5, want[i].key), want[i].order[0]);
		for (unsigned n = 0; n <= 5; n++) {
			memset(got, 0xff, sizeof(got));
			assert_int_equal(mkv_rendezvous_top(node, weight, 5, want[i].key, got, n), n);
			assert_memory_equal(got, want[i].order, n * sizeof(got[0]));
		}
	}
}

static void
nodes_without_weight(void **state)
{
	uint64_t node[] = { 1, 2, 3, 3 };
	double weight[] = { 0, -1, NAN, 0 };
	unsigned top[4];

	(void)state;
	assert_int_equal(mkv_rendezvous(node, weight, 4, 7), -1);
	assert_int_equal(mkv_rendezvous(node, weight, 0, 7), -1);
	assert_int_equal(mkv_rendezvous_top(node, weight, 4, 7, top, 4), 0);
	weight[2] = 1;
	assert_int_equal(mkv_rendezvous(node, weight, 4, 7), 2);
	weight[3] = 1;				/* the same hash: one score, the first of them */
	assert_int_equal(mkv_rendezvous(node, weight, 4, 7), 2);
	assert_int_equal(mkv_rendezvous_top(node, weight, 4, 7, top, 4), 2);
	assert_int_equal(top[0], 2);
	assert_int_equal(top[1], 3);
}

static void
ties_go_to_the_smaller_hash(void **state)
{
	static const uint64_t node[] = { 9, 4, 6 };
	static const double weight[] = { INFINITY, INFINITY, INFINITY };	/* the same score for all */
	unsigned top[3];

	(void)state;
	assert_int_equal(mkv_rendezvous(node, weight, 3, 1), 1);
	assert_int_equal(mkv_rendezvous_top(node, weight, 3, 1, top, 3), 3);
	assert_int_equal(top[0], 1);
	assert_int_equal(top[1], 2);
	assert_int_equal(top[2], 0);
}

static void
spread_follows_weight(void **state)
{
	uint64_t node[5];
	double weight[5] = { 1, 1, 2, 4, 0.5 }, share;
	unsigned hits[5] = { 0 };
	struct rnd r;

	(void)state;
	rnd_init(&r, 10);
	for (unsigned i = 0; i < 5; i++)
		node[i] = rnd_u64(&r);
	for (unsigned k = 0; k < KEYS; k++)
		hits[mkv_rendezvous(node, weight, 5, mkv_hash64(&k, sizeof(k), 0))]++;
	for (unsigned i = 0; i < 5; i++) {
		share = hits[i] / (KEYS * weight[i] / 8.5);
		assert_true(share > 0.95 && share < 1.05);
	}
}

static void
a_new_node_takes_only_its_share(void **state)
{
	uint64_t node[8], key;
	double weight[8] = { 1, 1, 1, 1, 1, 1, 1, 1 };
	unsigned moved = 0;
	int before, after;
	struct rnd r;

	(void)state;
	rnd_init(&r, 11);
	for (unsigned i = 0; i < 8; i++)
		node[i] = rnd_u64(&r);
	for (unsigned k = 0; k < KEYS; k++) {
		key = rnd_u64(&r);
		before = mkv_rendezvous(node, weight, 7, key);
		after = mkv_rendezvous(node, weight, 8, key);
		assert_true(after == before || after == 7);
		moved += after != before;
	}
	assert_true(moved > KEYS / 8 * 0.93 && moved < KEYS / 8 * 1.07);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(secrets),
		cmocka_unit_test(digests),
		cmocka_unit_test(documented_order),
		cmocka_unit_test(nodes_without_weight),
		cmocka_unit_test(ties_go_to_the_smaller_hash),
		cmocka_unit_test(spread_follows_weight),
		cmocka_unit_test(a_new_node_takes_only_its_share),
	};

	return (cmocka_run_group_tests(tests, NULL, NULL));
}
