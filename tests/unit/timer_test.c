/*
 * Timers: order, re-arming and disarming against a plain sorted model, and what fire() may do.
 */
#include "config.h"
#include "common/base/timer.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "common/base/assert.h"
#include "common/base/err.h"

#define N 200

struct tt {
	struct mkv_timer t;
	struct mkv_timers *ts;
	unsigned	fired;
	uint64_t	again_ns;	/* fire() arms for this moment again, if not 0 */
	struct tt	*victim;	/* fire() disarms it */
};

static uint64_t last_at;

static void
on_fire(struct mkv_timer *t, uint64_t now_ns)
{
	struct tt *x = MKV_CONTAINER_OF(t, struct tt, t);

	assert_true(t->at_ns <= now_ns);
	assert_true(t->at_ns >= last_at);
	assert_int_equal(t->heap_idx, 0);
	last_at = t->at_ns;
	x->fired++;
	if (x->victim != NULL)
		mkv_timer_disarm(x->ts, &x->victim->t);
	if (x->again_ns != 0)
		mkv_timer_arm(x->ts, t, x->again_ns);
}

static void
test_empty(void **state MKV_UNUSED)
{
	struct mkv_timers ts;

	assert_int_equal(mkv_timers_init(&ts, 4), 0);
	assert_true(mkv_timers_next_ns(&ts) == UINT64_MAX);
	assert_int_equal(mkv_timers_run(&ts, UINT64_MAX), 0);
	mkv_timers_fini(&ts);
	mkv_timers_fini(&ts);			/* twice is harmless */
}

/* Random arms, re-arms and disarms; after each the next moment must be the model's smallest. */
static void
test_against_model(void **state MKV_UNUSED)
{
	static struct tt x[N];
	uint64_t model[N], least;
	struct mkv_timers ts;
	unsigned armed = 0;

	srand(7);
	memset(x, 0, sizeof(x));
	memset(model, 0, sizeof(model));
	assert_int_equal(mkv_timers_init(&ts, N), 0);
	for (unsigned step = 0; step < 20000; step++) {
		unsigned i = (unsigned)rand() % N;

		x[i].t.fire = on_fire;
		if (rand() % 3 == 0) {
			mkv_timer_disarm(&ts, &x[i].t);
			model[i] = 0;
		} else {
			model[i] = 1 + (uint64_t)rand() % 1000;
			mkv_timer_arm(&ts, &x[i].t, model[i]);
		}
		least = UINT64_MAX;
		for (unsigned k = 0; k < N; k++)
			if (model[k] != 0 && model[k] < least)
				least = model[k];
		assert_true(mkv_timers_next_ns(&ts) == least);
	}
	for (unsigned k = 0; k < N; k++)
		armed += (model[k] != 0);
	last_at = 0;
	least = mkv_timers_run(&ts, 500);
	assert_int_equal(least + mkv_timers_run(&ts, 1000), armed);
	for (unsigned k = 0; k < N; k++)
		assert_int_equal(x[k].fired, model[k] != 0);
	mkv_timers_fini(&ts);
}

/* A timer that arms itself for a moment that is already due must not hold the loop. */
static void
test_rearm_in_fire(void **state MKV_UNUSED)
{
	struct mkv_timers ts;
	struct tt x = { .t.fire = on_fire, .ts = &ts, .again_ns = 10 };

	assert_int_equal(mkv_timers_init(&ts, 1), 0);
	last_at = 0;
	mkv_timer_arm(&ts, &x.t, 10);
	assert_int_equal(mkv_timers_run(&ts, 9), 0);
	assert_int_equal(mkv_timers_run(&ts, 10), 1);
	assert_int_equal(mkv_timers_run(&ts, 10), 1);
	assert_int_equal(x.fired, 2);
	mkv_timers_fini(&ts);
	assert_int_equal(x.t.heap_idx, 0);	/* forgotten, and may be armed elsewhere */
}

static void
test_disarm_in_fire(void **state MKV_UNUSED)
{
	struct mkv_timers ts;
	struct tt b = { .t.fire = on_fire, .ts = &ts }, a = { .t.fire = on_fire, .ts = &ts, .victim = &b };

	assert_int_equal(mkv_timers_init(&ts, 2), 0);
	last_at = 0;
	mkv_timer_arm(&ts, &b.t, 2);
	mkv_timer_arm(&ts, &a.t, 1);
	assert_int_equal(mkv_timers_run(&ts, 5), 1);
	assert_int_equal(b.fired, 0);
	assert_true(mkv_timers_next_ns(&ts) == UINT64_MAX);
	mkv_timers_fini(&ts);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_empty),
		cmocka_unit_test(test_against_model),
		cmocka_unit_test(test_rearm_in_fire),
		cmocka_unit_test(test_disarm_in_fire),
	};

	return (cmocka_run_group_tests(tests, NULL, NULL));
}
