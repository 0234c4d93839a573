/*
 * The space map against a model: every unit belongs to nobody or to one owner, free counts are right, recovery's claims clash when they should.
 */
#include "config.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "common/base/assert.h"
#include "common/base/err.h"
#include "tests/lib/rnd.h"
#include "worker/drive/alloc.h"

#define EXTENTS	21u
#define PER	32u		/* not a multiple of 64: extents share words of the map */

static void
model_run(int lowest)
{
	struct mkv_alloc a;
	struct { struct mkv_run run[8]; unsigned n; } own[64] = { 0 };
	uint8_t used[EXTENTS * PER] = { 0 };
	struct rnd rnd;
	uint64_t in_use = 0;

	rnd_init(&rnd, 42);
	assert_int_equal(mkv_alloc_init(&a, EXTENTS, PER), 0);
	a.lowest = lowest;
	for (unsigned i = 0; i < 200000; i++) {
		unsigned k = rnd_below(&rnd, 64);

		if (own[k].n == 0) {
			uint32_t want = 1 + (rnd_below(&rnd, 4) ? rnd_below(&rnd, 12) : rnd_below(&rnd, PER)), got = 0;
			unsigned runs_max = rnd_below(&rnd, 2) ? 8 : 1;

			own[k].n = mkv_alloc_take(&a, want, own[k].run, runs_max);
			assert_true(own[k].n <= runs_max);
			for (unsigned r = 0; r < own[k].n; r++) {
				struct mkv_run run = own[k].run[r];

				assert_int_equal(run.off / PER, (run.off + run.len - 1) / PER);
				for (uint32_t u = run.off; u < run.off + run.len; u++)
					assert_int_equal(used[u]++, 0);
				got += run.len;
			}
			assert_int_equal(got, own[k].n ? want : 0);
			if (own[k].n == 0 && runs_max == 1) {
				/* Refused: indeed no run is long enough. */
				for (uint32_t x = 0; x < EXTENTS; x++) {
					uint32_t len = 0;

					for (uint32_t u = x * PER; u < (x + 1) * PER; u++) {
						len = used[u] ? 0 : len + 1;
						assert_true(len < want);
					}
				}
			}
			in_use += got;
		} else {
			for (unsigned r = 0; r < own[k].n; r++) {
				mkv_alloc_free(&a, own[k].run[r]);
				for (uint32_t u = 0; u < own[k].run[r].len; u++)
					used[own[k].run[r].off + u] = 0;
				in_use -= own[k].run[r].len;
			}
			own[k].n = 0;
		}
		assert_int_equal(a.free_units, EXTENTS * PER - in_use);
	}
	mkv_alloc_fini(&a);
}

static void
test_model(void **state)
{
	(void)state;
	model_run(0);
	model_run(1);
}

/* Puts that overwrite: the new value is taken before the old one's run is free. How far up is the map ever touched? */
static uint32_t
overwrite_reach(int lowest)
{
	struct mkv_run own[4], fresh[1];
	struct mkv_alloc a;
	uint32_t reach = 0;

	assert_int_equal(mkv_alloc_init(&a, EXTENTS, PER), 0);
	a.lowest = lowest;
	for (unsigned k = 0; k < 4; k++)
		assert_int_equal(mkv_alloc_take(&a, PER / 2, &own[k], 1), 1);
	for (unsigned i = 0; i < 100; i++) {
		assert_int_equal(mkv_alloc_take(&a, PER / 2, fresh, 1), 1);
		reach = fresh->off + fresh->len > reach ? fresh->off + fresh->len : reach;
		mkv_alloc_free(&a, own[i * 7 % 4]);
		own[i * 7 % 4] = fresh[0];
	}
	mkv_alloc_fini(&a);
	return (reach);
}

static void
test_lowest(void **state)
{
	(void)state;
	assert_true(overwrite_reach(1) <= 3 * PER);	/* what lives, and one beside it */
	assert_int_equal(overwrite_reach(0), EXTENTS * PER);
}

static void
test_mark(void **state)
{
	struct mkv_alloc a;
	struct mkv_run run[8];

	(void)state;
	assert_int_equal(mkv_alloc_init(&a, EXTENTS, PER), 0);
	assert_int_equal(mkv_alloc_mark(&a, (struct mkv_run){ 10, 20 }), 0);
	assert_int_equal(mkv_alloc_mark(&a, (struct mkv_run){ 29, 1 }), MKV_E_CORRUPT);
	assert_int_equal(mkv_alloc_mark(&a, (struct mkv_run){ 5, 6 }), MKV_E_CORRUPT);
	assert_int_equal(mkv_alloc_mark(&a, (struct mkv_run){ 30, 1 }), 0);
	assert_int_equal(mkv_alloc_mark(&a, (struct mkv_run){ PER - 1, 2 }), MKV_E_CORRUPT);
	assert_int_equal(mkv_alloc_mark(&a, (struct mkv_run){ EXTENTS * PER, 1 }), MKV_E_CORRUPT);
	assert_int_equal(mkv_alloc_mark(&a, (struct mkv_run){ UINT32_MAX, 2 }), MKV_E_CORRUPT);
	assert_int_equal(mkv_alloc_mark(&a, (struct mkv_run){ 40, 0 }), MKV_E_CORRUPT);
	assert_int_equal(mkv_alloc_mark(&a, (struct mkv_run){ PER, PER }), 0);
	mkv_alloc_unmark(&a, (struct mkv_run){ PER, PER });
	assert_int_equal(mkv_alloc_mark(&a, (struct mkv_run){ 2 * PER - 3, 3 }), 0);
	mkv_alloc_marked(&a);
	assert_int_equal(a.free_in[0], PER - 21);
	assert_int_equal(a.free_in[1], PER - 3);
	assert_int_equal(a.free_units, EXTENTS * PER - 24);
	assert_int_equal(mkv_alloc_take(&a, PER, run, 1), 1);
	assert_true(run[0].off >= 2 * PER);
	mkv_alloc_fini(&a);
	assert_int_equal(mkv_alloc_init(&a, 0, PER), MKV_E_INVAL);
	assert_int_equal(mkv_alloc_init(&a, 1u << 30, 1u << 12), MKV_E_INVAL);
}

/* The same runs, marked as recovery does or taken one by one, leave the same map and counts. */
static void
test_mark_many(void **state)
{
	static const uint32_t pers[] = { 8, 64, 1024 };
	struct rnd rnd;

	(void)state;
	rnd_init(&rnd, 5);
	for (unsigned t = 0; t < 3; t++) {
		uint32_t per = pers[t], units = EXTENTS * per, left = 0;
		struct mkv_alloc a;
		uint8_t used[EXTENTS * 1024] = { 0 };

		assert_int_equal(mkv_alloc_init(&a, EXTENTS, per), 0);
		for (unsigned i = 0; i < 3000; i++) {
			struct mkv_run r = { rnd_below(&rnd, units), 1 + rnd_below(&rnd, rnd_below(&rnd, 8) ? 4 : per) };
			int fits = r.off / per == (r.off + r.len - 1) / per;

			for (uint32_t u = r.off; fits && u < r.off + r.len; u++)
				fits = !used[u];
			assert_int_equal(mkv_alloc_mark(&a, r), fits ? 0 : MKV_E_CORRUPT);
			if (fits && rnd_below(&rnd, 4) == 0)
				mkv_alloc_unmark(&a, r);
			else if (fits)
				memset(used + r.off, 1, r.len);
		}
		mkv_alloc_marked(&a);
		for (uint32_t x = 0; x < EXTENTS; x++) {
			uint32_t n = 0;

			for (uint32_t u = x * per; u < (x + 1) * per; u++)
				n += !used[u];
			assert_int_equal(a.free_in[x], n);
			assert_int_equal(a.longest[x], n);
			left += n;
		}
		assert_int_equal(a.free_units, left);
		for (uint32_t u = 0; u < units; u++)
			assert_int_equal((a.map[u / 64] >> (u % 64)) & 1, used[u]);
		mkv_alloc_fini(&a);
	}
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_model), cmocka_unit_test(test_lowest), cmocka_unit_test(test_mark), cmocka_unit_test(test_mark_many),
	};

	return (cmocka_run_group_tests(tests, NULL, NULL));
}
