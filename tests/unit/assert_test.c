/*
 * Asserts end the process and leave last words; crash points end it where and when they are told to.
 */
#include "config.h"
#include "common/base/assert.h"

#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "tests/lib/death.h"

struct thing {
	uint32_t	magic;
};

static void
fail_plain(void *arg)
{
	int *zero = arg;

	MKV_ASSERT(*zero == 1);
}

static void
fail_magic(void *arg)
{
	struct thing *t = arg;

	MKV_CHECK_OBJ(t, 7u);
}

static void
pass_points(void *arg)
{
	(void)arg;
	MKV_CRASH_POINT("test.other");
	MKV_CRASH_POINT("test.point");
	MKV_CRASH_POINT("test.pointed");
	MKV_CRASH_POINT("test.point");
}

static void
asserts_leave_last_words(void **state)
{
	struct thing bad = { 8 }, good = { 7 };
	char said[4096];
	int zero = 0, one = 1;

	(void)state;
	assert_int_equal(death_signal(fail_plain, &zero, said, sizeof(said)), SIGABRT);
	assert_non_null(strstr(said, "level=error event=assert expr=\"*zero == 1\""));
	assert_non_null(strstr(said, "assert_test.c:"));
	assert_non_null(strstr(said, "func=fail_plain"));
	assert_non_null(strchr(said, '['));	/* a frame of the backtrace */
	assert_int_equal(death_signal(fail_plain, &one, said, sizeof(said)), 0);
	assert_true(death_by_assert(fail_magic, &bad));
	assert_true(death_by_assert(fail_magic, NULL));
	assert_false(death_by_assert(fail_magic, &good));
}

static int
ended_at(const char *point, char *said, size_t said_bytes)
{
	int sig;

	setenv("MKV_CRASH_POINT", point, 1);
	sig = death_signal(pass_points, NULL, said, said_bytes);
	unsetenv("MKV_CRASH_POINT");
	return (sig);
}

static void
crash_points(void **state)
{
	char said[256];

	(void)state;
#ifndef MKV_WITH_CRASH_POINTS
	skip();					/* configure --enable-crash-points */
#endif
	assert_int_equal(death_signal(pass_points, NULL, said, sizeof(said)), 0);
	assert_int_equal(ended_at("test.point", said, sizeof(said)), SIGKILL);
	assert_non_null(strstr(said, "crash_point=test.point\n"));
	assert_int_equal(ended_at("test.point:2", said, sizeof(said)), SIGKILL);
	assert_int_equal(ended_at("test.point:3", said, sizeof(said)), 0);
	assert_int_equal(ended_at("test.poin", said, sizeof(said)), 0);
	assert_int_equal(ended_at("test", said, sizeof(said)), 0);
}

static void
least_and_most_look_once(void **state)
{
	int calls = 0;

	(void)state;
	assert_int_equal(MKV_MAX(++calls, -1), 1);
	assert_int_equal(MKV_MIN(5, MKV_MAX(calls++, 3)), 3);
	assert_int_equal(MKV_MIN(MKV_MIN(++calls, 7), 9), 3);
	assert_int_equal(calls, 3);
	assert_true(MKV_MAX((uint8_t)200, (uint64_t)1 << 40) == (uint64_t)1 << 40);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(asserts_leave_last_words),
		cmocka_unit_test(crash_points), cmocka_unit_test(least_and_most_look_once),
	};

	return (cmocka_run_group_tests(tests, NULL, NULL));
}
