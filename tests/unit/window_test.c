/*
 * The window of counters against a model that remembers all that was seen: each is taken once, however they are mixed, and none that is too old.
 */
#include "config.h"
#include "common/base/window.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>

#include <cmocka.h>

#include "tests/lib/rnd.h"

#define N	200000u

static void
window_in_order(void **state)
{
	struct mkv_window w = { 0 };

	(void)state;
	assert_int_equal(mkv_window_take(&w, 0), 0);		/* no counter is 0 */
	for (uint64_t i = 1; i <= 5000; i++) {
		assert_int_equal(mkv_window_take(&w, i), 1);
		assert_int_equal(mkv_window_take(&w, i), 0);
	}
}

static void
window_edges(void **state)
{
	struct mkv_window w = { 0 };

	(void)state;
	assert_int_equal(mkv_window_take(&w, MKV_WINDOW_BITS), 1);
	assert_int_equal(mkv_window_take(&w, 1), 1);		/* 1,023 below the top: the last that is known */
	assert_int_equal(mkv_window_take(&w, MKV_WINDOW_BITS + 1), 1);
	assert_int_equal(mkv_window_take(&w, 1), 0);		/* and now it is not */
	assert_int_equal(mkv_window_take(&w, 2), 1);
	assert_int_equal(mkv_window_take(&w, 2), 0);
	/* All of it at once; the place of 2 is that of another now. */
	assert_int_equal(mkv_window_take(&w, 2 + 5 * (uint64_t)MKV_WINDOW_BITS), 1);
	assert_int_equal(mkv_window_take(&w, 3 + 4 * (uint64_t)MKV_WINDOW_BITS), 1);
	assert_int_equal(mkv_window_take(&w, 2 + 4 * (uint64_t)MKV_WINDOW_BITS), 0);
	/* The last counters that there are. */
	assert_int_equal(mkv_window_take(&w, UINT64_MAX - 1), 1);
	assert_int_equal(mkv_window_take(&w, UINT64_MAX), 1);
	assert_int_equal(mkv_window_take(&w, UINT64_MAX - 1), 0);
	assert_int_equal(mkv_window_take(&w, UINT64_MAX), 0);
	assert_int_equal(mkv_window_take(&w, UINT64_MAX - 2), 1);
	assert_int_equal(mkv_window_take(&w, 1), 0);
}

static void
window_against_a_model(void **state)
{
	uint8_t *seen = calloc(N, 1);
	struct mkv_window w = { 0 };
	uint64_t top = 0, at = 1;
	struct rnd r;

	(void)state;
	assert_non_null(seen);
	rnd_init(&r, 11);
	while (at + 3000 < N) {
		uint64_t n = at + rnd_below(&r, 2000);
		int fresh;

		/* Forward by a little as a rule, by a leap now and then; back by up to twice the window. */
		at += rnd_below(&r, 100) == 0 ? rnd_below(&r, 2500) : rnd_below(&r, 3);
		if (n > 1500 && rnd_below(&r, 2) == 0)
			n -= rnd_below(&r, 1500);
		fresh = !seen[n] && (n > top || top - n < MKV_WINDOW_BITS);
		assert_int_equal(mkv_window_take(&w, n), fresh);
		seen[n] |= (uint8_t)fresh;
		if (n > top)
			top = n;
	}
	free(seen);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(window_in_order),
		cmocka_unit_test(window_edges),
		cmocka_unit_test(window_against_a_model),
	};

	return (cmocka_run_group_tests(tests, NULL, NULL));
}
