/*
 * Windows of libmemkv: their memory is what a server takes for a region, and no unit of it is ever in two chunks.
 */
#include "config.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include <cmocka.h>

#include "clients/lib/shmwin.h"
#include "common/base/assert.h"
#include "common/base/err.h"
#include "common/base/os.h"

#define UNITS	200u

static struct shmwin w;

static int
setup(void **state)
{
	(void)state;
	memset(&w, 0, sizeof(w));
	assert_int_equal(mkv_shmwin_step(&w, UNITS * WINDOW_UNIT), 0);	/* more than one step */
	while (mkv_shmwin_step(&w, UNITS * WINDOW_UNIT) == 0)
		continue;
	assert_int_equal(w.filled, w.bytes);
	return (0);
}

static int
teardown(void **state)
{
	(void)state;
	mkv_shmwin_fini(&w);
	mkv_shmwin_fini(&w);				/* of none */
	return (0);
}

static void
test_is_a_region(void **state)
{
	struct mkv_os_shm shm;

	(void)state;
	assert_int_equal(mkv_os_shm_check(w.fd, &shm), 0);
	assert_int_equal(shm.bytes, UNITS * WINDOW_UNIT);
	memset(w.base, 0x5a, w.bytes);
}

/* A loop takes a step between requests: it takes no more pages than that, however they are had. Where they cannot be asked for (an emulator) all come with the last. */
static void
test_steps(void **state)
{
	struct shmwin v = { 0 };
	struct stat st;
	int r;

	(void)state;
	while ((r = mkv_shmwin_step(&v, 32u << 20)) == 0) {
		assert_int_equal(fstat(v.fd, &st), 0);
		assert_true((uint64_t)st.st_blocks * 512 <= v.filled);
	}
	assert_int_equal(r, 1);
	assert_int_equal(fstat(v.fd, &st), 0);
	assert_int_equal((uint64_t)st.st_blocks * 512, 32u << 20);
	mkv_shmwin_fini(&v);
}

static void
test_full(void **state)
{
	struct chunk k[UNITS], large;

	(void)state;
	assert_int_equal(mkv_shmwin_take(&w, UNITS * WINDOW_UNIT + 1ull, &large), MKV_E_AGAIN);
	for (unsigned i = 0; i < UNITS; i++) {
		assert_int_equal(mkv_shmwin_take(&w, 1 + i % WINDOW_UNIT, &k[i]), 0);
		assert_int_equal(window_off(&k[i]), (uint64_t)i * WINDOW_UNIT);
	}
	assert_int_equal(mkv_shmwin_take(&w, 1, &large), MKV_E_AGAIN);
	mkv_shmwin_drop(&w, &k[63]);
	mkv_shmwin_drop(&w, &k[65]);
	assert_int_equal(mkv_shmwin_take(&w, WINDOW_UNIT + 1, &large), MKV_E_AGAIN);	/* two, and not in one run */
	mkv_shmwin_drop(&w, &k[64]);
	assert_int_equal(mkv_shmwin_take(&w, 3 * WINDOW_UNIT, &large), 0);
	assert_int_equal(large.at, 63);
	assert_int_equal(large.units, 3);
}

static void
test_never_twice(void **state)
{
	uint8_t owner[UNITS] = { 0 };
	struct chunk k[64] = { { 0, 0 } };
	uint64_t seed = 7;

	(void)state;
	for (unsigned round = 0; round < 20000; round++) {
		unsigned i;

		seed = seed * 6364136223846793005ull + 1442695040888963407ull;
		i = (unsigned)(seed >> 58);
		if (k[i].units > 0) {
			memset(owner + k[i].at, 0, k[i].units);
			mkv_shmwin_drop(&w, &k[i]);
			assert_int_equal(k[i].units, 0);
		} else if (mkv_shmwin_take(&w, 1 + (seed >> 32) % (12 * WINDOW_UNIT), &k[i]) == 0) {
			assert_true(k[i].at + k[i].units <= UNITS);
			for (unsigned u = k[i].at; u < k[i].at + k[i].units; u++) {
				assert_int_equal(owner[u], 0);
				owner[u] = 1;
			}
		}
	}
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_is_a_region, setup, teardown),
		cmocka_unit_test(test_steps),
		cmocka_unit_test_setup_teardown(test_full, setup, teardown),
		cmocka_unit_test_setup_teardown(test_never_twice, setup, teardown),
	};

	return (cmocka_run_group_tests_name("shmwin", tests, NULL, NULL));
}
