/*
 * Sizes and durations: what is taken, what is refused, and that what is written is read back.
 */
#include "config.h"
#include "common/base/units.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "common/base/assert.h"
#include "common/base/err.h"
#include "tests/lib/rnd.h"

#define UNTOUCHED	0x1234567890ull

struct sample {
	const char	*text;
	uint64_t	value;
};

static void
sizes_taken(void **state)
{
	static const struct sample good[] = {
		{ "0", 0 }, { "4096", 4096 }, { "64KiB", 65536 }, { "1 MiB", 1048576 }, { " 2GiB ", 2ull << 30 }, { "1 TiB", 1ull << 40 },
		{ "3PiB", 3ull << 50 }, { "5 KB", 5000 }, { "5mb", 5000000 }, { "7GB", 7000000000ull }, { "7 TB", 7000000000000ull },
		{ "64kib", 65536 }, { "12B", 12 }, { "18446744073709551615", UINT64_MAX }, { "16383 PiB", 16383ull << 50 },
	};
	uint64_t v;

	(void)state;
	for (size_t i = 0; i < MKV_ARRAY_LEN(good); i++) {
		assert_int_equal(mkv_size_parse(good[i].text, &v), 0);
		assert_true(v == good[i].value);
	}
}

static void
durations_taken(void **state)
{
	static const struct sample good[] = {
		{ "500us", 500 }, { "10ms", 10000 }, { "5s", 5000000 }, { "2m", 120000000 }, { "1h", 3600000000ull }, { "7d", 604800000000ull },
		{ "0s", 0 }, { " 5 s ", 5000000 }, { "5S", 5000000 },
	};
	uint64_t v;

	(void)state;
	for (size_t i = 0; i < MKV_ARRAY_LEN(good); i++) {
		assert_int_equal(mkv_duration_parse(good[i].text, &v), 0);
		assert_true(v == good[i].value);
	}
}

static void
refused(void **state)
{
	static const char *const bad_size[] = { "", " ", "KiB", "-1", "+1", "1.5GiB", "1 Mi", "1M", "0x10", "64KiBs", "1 2", "1e3",
		"18446744073709551616", "16384PiB", "99999999999999999999KiB", "1\nKiB" };
	static const char *const bad_duration[] = { "", "5", "0", "5 sec", "-5s", "1.5s", "s", "18446744073709551615s", "5s5", "213503982335d" };
	uint64_t v = UNTOUCHED;

	(void)state;
	for (size_t i = 0; i < MKV_ARRAY_LEN(bad_size); i++)
		assert_int_equal(mkv_size_parse(bad_size[i], &v), MKV_E_INVAL);
	for (size_t i = 0; i < MKV_ARRAY_LEN(bad_duration); i++)
		assert_int_equal(mkv_duration_parse(bad_duration[i], &v), MKV_E_INVAL);
	assert_true(v == UNTOUCHED);
}

static void
written_is_read_back(void **state)
{
	char text[32];
	struct rnd r;
	uint64_t v, back;

	(void)state;
	rnd_init(&r, 2);
	for (unsigned i = 0; i < 20000; i++) {
		v = rnd_u64(&r) >> rnd_below(&r, 64);
		if (rnd_below(&r, 2) != 0)
			v &= ~0ull << rnd_below(&r, 64);
		assert_int_equal(mkv_size_parse(mkv_size_format(text, sizeof(text), v), &back), 0);
		assert_true(back == v);
		assert_int_equal(mkv_duration_parse(mkv_duration_format(text, sizeof(text), v), &back), 0);
		assert_true(back == v);
	}
}

static void
texts(void **state)
{
	char text[32], small[4];

	(void)state;
	assert_string_equal(mkv_size_format(text, sizeof(text), 65536), "64KiB");
	assert_string_equal(mkv_size_format(text, sizeof(text), 1002240), "1002240");
	assert_string_equal(mkv_size_format(text, sizeof(text), 0), "0");
	assert_string_equal(mkv_size_human(text, sizeof(text), 1023), "1023 B");
	assert_string_equal(mkv_size_human(text, sizeof(text), 1536ull << 20), "1.5 GiB");
	assert_string_equal(mkv_size_human(text, sizeof(text), (1ull << 20) - 1), "1.0 MiB");
	assert_string_equal(mkv_duration_format(text, sizeof(text), 1500), "1500us");
	assert_string_equal(mkv_duration_format(text, sizeof(text), 0), "0s");
	assert_string_equal(mkv_duration_format(text, sizeof(text), 60000000), "1m");
	assert_int_equal(strlen(mkv_size_format(small, sizeof(small), 1ull << 62)), 3);	/* cut, terminated */
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(sizes_taken),
		cmocka_unit_test(durations_taken),
		cmocka_unit_test(refused),
		cmocka_unit_test(written_is_read_back),
		cmocka_unit_test(texts),
	};

	return (cmocka_run_group_tests(tests, NULL, NULL));
}
