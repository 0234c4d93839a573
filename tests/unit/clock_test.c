/*
 * Clocks: monotonic, in the right unit, and the injected form says the same.
 */
#include "config.h"
#include "common/base/clock.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <time.h>

#include <cmocka.h>

static void
monotonic(void **state)
{
	uint64_t before = mkv_now_ns(), now, injected;

	(void)state;
	for (unsigned i = 0; i < 1000; i++) {
		now = mkv_now_ns();
		assert_true(now >= before);
		before = now;
	}
	injected = mkv_clock_os.now_ns(mkv_clock_os.arg);
	assert_true(injected >= before && injected - before < MKV_NS_PER_SEC);
}

static void
units(void **state)
{
	struct timespec pause = { 0, 20 * (long)MKV_NS_PER_MS };
	uint64_t begin = mkv_now_ns(), took;
	uint64_t wall = mkv_wall_ms();

	(void)state;
	nanosleep(&pause, NULL);
	took = mkv_now_ns() - begin;
	assert_true(took >= 20 * MKV_NS_PER_MS && took < 10 * MKV_NS_PER_SEC);
	assert_true(wall / 1000 >= (uint64_t)time(NULL) - 2 && wall / 1000 <= (uint64_t)time(NULL));
	assert_true(mkv_clock_os.wall_ms(NULL) / 1000 - wall / 1000 < 10);
}

static void
cpu_time_is_of_this_process(void **state)
{
	uint64_t begin = mkv_cpu_ns(), until = mkv_now_ns() + 2 * MKV_NS_PER_SEC;
	volatile unsigned sink = 0;

	(void)state;
	while (mkv_cpu_ns() - begin < 5 * MKV_NS_PER_MS && mkv_now_ns() < until)
		sink++;
	assert_true(mkv_cpu_ns() - begin >= 5 * MKV_NS_PER_MS);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(monotonic),
		cmocka_unit_test(units),
		cmocka_unit_test(cpu_time_is_of_this_process),
	};

	return (cmocka_run_group_tests(tests, NULL, NULL));
}
