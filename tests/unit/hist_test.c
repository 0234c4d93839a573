/*
 * Histograms: slots without gaps, the promised precision, quantiles against sorted samples, and pages full of garbage.
 */
#include "config.h"
#include "common/base/hist.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <pthread.h>
#include <stdlib.h>

#include <cmocka.h>

#include "common/base/assert.h"
#include "tests/lib/rnd.h"

#define SAMPLES	5000u

static struct mkv_hist hist, other;

static int
empty(void **state)
{
	(void)state;
	hist = other = (struct mkv_hist){ .count = 0 };
	return (0);
}

static void
slots_cover_everything(void **state)
{
	uint64_t upper, lower = 0;

	(void)state;
	for (unsigned slot = 0; slot < MKV_HIST_SLOTS; slot++) {
		upper = mkv_hist_slot_upper_ns(slot);
		assert_true(upper >= lower);
		assert_int_equal(mkv_hist_slot(lower), slot);
		assert_int_equal(mkv_hist_slot(upper), slot);
		assert_true(upper - lower <= lower / 16);	/* off by at most 1/16 */
		lower = upper + 1;
	}
	assert_true(lower == 1ull << MKV_HIST_MAX_LOG2);
	assert_int_equal(mkv_hist_slot(lower), MKV_HIST_SLOTS - 1);
	assert_int_equal(mkv_hist_slot(UINT64_MAX), MKV_HIST_SLOTS - 1);
}

static int
compare(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return (x < y ? -1 : x > y);
}

static void
quantiles(void **state)
{
	static const double q[] = { 0, 0.001, 0.5, 0.9, 0.99, 0.999, 1 };
	static uint64_t v[SAMPLES];
	struct rnd r;
	uint64_t got, want, rank;

	(void)state;
	rnd_init(&r, 3);
	assert_int_equal(mkv_hist_quantile_ns(&hist, 0.5), 0);
	for (unsigned i = 0; i < SAMPLES; i++) {
		v[i] = rnd_u64(&r) >> (24 + rnd_below(&r, 40));
		mkv_hist_add(&hist, v[i]);
	}
	qsort(v, SAMPLES, sizeof(v[0]), compare);
	for (unsigned i = 0; i < MKV_ARRAY_LEN(q); i++) {
		rank = (uint64_t)(q[i] * SAMPLES + 0.999999);
		want = v[rank == 0 ? 0 : rank - 1];
		got = mkv_hist_quantile_ns(&hist, q[i]);
		assert_true(got >= want && got <= want + want / 16 + 1);
	}
	assert_int_equal(hist.count, SAMPLES);
	assert_true(hist.max_ns == v[SAMPLES - 1]);
}

static void
ranks_are_exact(void **state)
{
	(void)state;
	for (unsigned v = 1; v <= 4; v++)
		mkv_hist_add(&hist, v);
	assert_int_equal(mkv_hist_quantile_ns(&hist, 0), 1);
	assert_int_equal(mkv_hist_quantile_ns(&hist, 0.25), 1);
	assert_int_equal(mkv_hist_quantile_ns(&hist, 0.26), 2);
	assert_int_equal(mkv_hist_quantile_ns(&hist, 0.5), 2);
	assert_int_equal(mkv_hist_quantile_ns(&hist, 0.75), 3);
	assert_int_equal(mkv_hist_quantile_ns(&hist, 1), 4);
	assert_int_equal(mkv_hist_quantile_ns(&hist, 7), 4);
	assert_int_equal(mkv_hist_quantile_ns(&hist, -1), 1);
}

static void
merged_is_the_sum(void **state)
{
	struct rnd r;
	struct mkv_hist both = { .count = 0 };
	uint64_t v;

	(void)state;
	rnd_init(&r, 4);
	for (unsigned i = 0; i < SAMPLES; i++) {
		v = rnd_u64(&r) >> 30;
		mkv_hist_add(i % 3 ? &hist : &other, v);
		mkv_hist_add(&both, v);
	}
	mkv_hist_merge(&hist, &other);
	assert_memory_equal(&hist, &both, sizeof(both));
}

static void
beyond_the_last_slot(void **state)
{
	(void)state;
	mkv_hist_add(&hist, 1ull << 50);
	assert_true(mkv_hist_quantile_ns(&hist, 0.5) == 1ull << 50);
}

static void
garbage_is_harmless(void **state)
{
	struct rnd r;

	(void)state;
	rnd_init(&r, 5);
	for (unsigned i = 0; i < 200; i++) {
		rnd_fill(&r, &other, sizeof(other));
		if (i % 2)
			other.max_ns = other.count = 0;
		(void)mkv_hist_quantile_ns(&other, 0.99);
		mkv_hist_merge(&hist, &other);
		mkv_hist_add(&other, rnd_u64(&r));
	}
}

static void *
add_many(void *arg)
{
	for (unsigned i = 0; i < 20000; i++)
		mkv_hist_add(arg, i);
	return (NULL);
}

static void
threads_lose_nothing(void **state)
{
	pthread_t t[3];

	(void)state;
	for (unsigned i = 0; i < 3; i++)
		assert_int_equal(pthread_create(&t[i], NULL, add_many, &hist), 0);
	for (unsigned i = 0; i < 3; i++)
		pthread_join(t[i], NULL);
	assert_int_equal(hist.count, 60000);
	assert_int_equal(hist.max_ns, 19999);
	assert_true(hist.sum_ns == 3ull * 20000 * 19999 / 2);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(slots_cover_everything, empty),
		cmocka_unit_test_setup(quantiles, empty),
		cmocka_unit_test_setup(ranks_are_exact, empty),
		cmocka_unit_test_setup(merged_is_the_sum, empty),
		cmocka_unit_test_setup(beyond_the_last_slot, empty),
		cmocka_unit_test_setup(garbage_is_harmless, empty),
		cmocka_unit_test_setup(threads_lose_nothing, empty),
	};

	return (cmocka_run_group_tests(tests, NULL, NULL));
}
