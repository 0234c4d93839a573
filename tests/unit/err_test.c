/*
 * Errors and reasons: every row is found, foreign numbers are not, every errno becomes an error.
 */
#include "config.h"
#include "common/base/err.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <limits.h>
#include <string.h>

#include <cmocka.h>

static void
rows_are_found(void **state)
{
	(void)state;
#define MKV_ERR(name, num, http, retry, exitcode, text) \
	assert_int_equal(MKV_E_##name, -(num)); \
	assert_string_equal(mkv_err(-(num)), text); \
	assert_string_equal(mkv_err_name(-(num)), #name); \
	assert_int_equal(mkv_err_retry(-(num)), retry); \
	assert_int_equal(mkv_err_exit(-(num)), exitcode); \
	assert_true(mkv_err_known(-(num))); \
	assert_true((http) >= 400 && (http) < 600);
#include "common/tbl/errors.def"
#undef MKV_ERR
	assert_int_equal(mkv_err_exit(0), 0);
	assert_true(mkv_err_known(0));
}

static void
foreign_numbers(void **state)
{
	static const int foreign[] = { 1, 27, -28, -1000, INT_MAX, INT_MIN };

	(void)state;
	for (size_t i = 0; i < sizeof(foreign) / sizeof(foreign[0]); i++) {
		assert_string_equal(mkv_err(foreign[i]), "unknown error");
		assert_string_equal(mkv_err_name(foreign[i]), "UNKNOWN");
		assert_false(mkv_err_known(foreign[i]));
		assert_false(mkv_err_retry(foreign[i]));
		assert_int_equal(mkv_err_exit(foreign[i]), 1);
	}
	assert_string_equal(mkv_reason_label(MKV_REASON_COUNT), "unknown");
	assert_string_equal(mkv_reason_text(UINT_MAX), "unknown reason");
}

static void
every_errno_is_an_error(void **state)
{
	(void)state;
	for (int e = -5; e < 5000; e++) {
		assert_true(mkv_err_from_errno(e) < 0);
		assert_true(mkv_err_known(mkv_err_from_errno(e)));
	}
	assert_int_equal(mkv_err_from_errno(ENOSPC), MKV_E_NOSPACE);
	assert_int_equal(mkv_err_from_errno(EWOULDBLOCK), MKV_E_AGAIN);
	assert_int_equal(mkv_err_from_errno(ECANCELED), MKV_E_CANCELLED);
	assert_int_equal(mkv_err_from_errno(EPIPE), MKV_E_CLOSED);
	assert_int_equal(mkv_err_from_errno(99999), MKV_E_SYSTEM);
}

static void
reasons_differ(void **state)
{
	(void)state;
	for (unsigned i = 0; i < MKV_REASON_COUNT; i++) {
		assert_int_not_equal(strlen(mkv_reason_text(i)), 0);
		for (unsigned j = 0; j < i; j++)
			assert_string_not_equal(mkv_reason_label(i), mkv_reason_label(j));
	}
	assert_string_equal(mkv_reason_label(MKV_REASON_EVICTED), "evicted");
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(rows_are_found),
		cmocka_unit_test(foreign_numbers),
		cmocka_unit_test(every_errno_is_an_error),
		cmocka_unit_test(reasons_differ),
	};

	return (cmocka_run_group_tests(tests, NULL, NULL));
}
