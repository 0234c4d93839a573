/*
 * The failure registry: rows that count, a ring that forgets the oldest, blocks of anything; what the engine writes there and how it survives.
 */
#include "config.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "common/base/crc.h"
#include "common/base/err.h"
#include "tests/crash/rig.h"
#include "tests/lib/rnd.h"
#include "worker/drive/failreg.h"

#define TAG	0x1234567890abcdefull

static struct mkv_fail_row row[MKV_FAIL_ROWS], back[MKV_FAIL_ROWS];
static struct mkv_fail_block block[MKV_FAILREG_BLOCKS];

static uint32_t
add(struct mkv_fail_sum *sum, unsigned what, uint64_t off, uint64_t now)
{
	struct mkv_fail_row f = { .what = (uint16_t)what, .off = off, .bytes = 4096, .err = MKV_E_IO, .last_ms = now, .count = 1 };

	return (mkv_fail_add(row, sum, &f));
}

static void
test_rows_count(void **state)
{
	struct mkv_fail_sum sum = { 0 };
	uint32_t a;

	(void)state;
	memset(row, 0, sizeof(row));
	a = add(&sum, MKV_FAIL_READ, 4096, 10);
	assert_int_equal(add(&sum, MKV_FAIL_READ, 4096, 30), a);
	assert_int_not_equal(add(&sum, MKV_FAIL_WRITE, 4096, 31), a);
	assert_int_not_equal(add(&sum, MKV_FAIL_READ, 8192, 32), a);
	assert_int_equal(row[a].count, 2);
	assert_int_equal(row[a].first_ms, 10);
	assert_int_equal(row[a].last_ms, 30);
	assert_int_equal(sum.rows, 3);
	assert_int_equal(sum.events, 4);
	/* More about the last time is not another time. */
	{
		struct mkv_fail_row f = { .what = MKV_FAIL_READ, .off = 4096, .arg = 7, .last_ms = 40 };

		assert_int_equal(mkv_fail_add(row, &sum, &f), a);
		assert_int_equal(row[a].count, 2);
		assert_int_equal(row[a].arg, 7);
		assert_int_equal(sum.events, 4);
	}
}

/* As many places as there is room for, and some: the newest are kept, in order, also over blocks and back. */
static void
test_ring(void **state)
{
	struct mkv_fail_sum sum = { 0 }, again;
	uint64_t at = 0, n = 0, total = MKV_FAIL_ROWS * 2 + 100;
	const struct mkv_fail_row *f;

	(void)state;
	memset(row, 0, sizeof(row));
	for (uint64_t i = 1; i <= total; i++)
		add(&sum, MKV_FAIL_DATA, i * 4096, i);
	assert_int_equal(sum.rows, MKV_FAIL_ROWS);
	assert_int_equal(sum.events, MKV_FAIL_ROWS);
	for (uint32_t k = 0; k < MKV_FAILREG_BLOCKS; k++)
		mkv_fail_block(&block[k], TAG, row, k);
	mkv_fail_parse(block, TAG, back, &again);
	assert_memory_equal(back, row, sizeof(row));
	assert_memory_equal(&again, &sum, sizeof(sum));
	while ((f = mkv_fail_next(back, &again, &at)) != NULL)
		assert_int_equal(f->off, (total - MKV_FAIL_ROWS + ++n) * 4096);
	assert_int_equal(n, MKV_FAIL_ROWS);
}

/* A damaged block costs its rows, another store's is nobody's, random bytes are no rows. */
static void
test_foreign(void **state)
{
	struct mkv_fail_sum sum = { 0 }, again;
	struct rnd rnd;

	(void)state;
	memset(row, 0, sizeof(row));
	for (uint64_t i = 0; i < MKV_FAIL_ROWS; i++)
		add(&sum, MKV_FAIL_PAGE, i * 4096, i);
	for (uint32_t k = 0; k < MKV_FAILREG_BLOCKS; k++)
		mkv_fail_block(&block[k], k == 7 ? TAG + 1 : TAG, row, k);
	((uint8_t *)&block[3])[2000] ^= 1;
	block[5] = block[4];
	memset(&block[9], 0, sizeof(block[9]));
	mkv_fail_parse(block, TAG, back, &again);
	assert_int_equal(again.damaged, 2);
	assert_int_equal(again.rows, MKV_FAIL_ROWS - 4 * MKV_FAIL_PER_BLOCK);
	rnd_init(&rnd, 5);
	for (unsigned i = 0; i < 200; i++) {
		for (size_t k = 0; k < sizeof(block) / 8; k++)
			((uint64_t *)(void *)block)[k] = rnd_u64(&rnd);
		for (uint32_t k = 0; k < MKV_FAILREG_BLOCKS; k++) {
			block[k].magic = MKV_FAIL_MAGIC;
			block[k].tag = TAG;
			block[k].block_no = k;
			mkv_block_seal(&block[k], offsetof(struct mkv_fail_block, crc));
		}
		mkv_fail_parse(block, TAG, back, &again);
		for (uint64_t at = 0, n = 0; mkv_fail_next(back, &again, &at) != NULL;)
			assert_true(++n <= MKV_FAIL_ROWS);
	}
}

/* ---- the engine ---- */

static uint64_t
noted(struct rig *r, unsigned what)
{
	struct mkv_fail_sum sum;
	struct mkv_sb sb;
	uint64_t at = 0, n = 0;
	const struct mkv_fail_row *f;

	memcpy(&sb, r->sim->now, sizeof(sb));
	memcpy(block, r->sim->now + MKV_FAILREG_OFF, sizeof(block));
	mkv_fail_parse(block, mkv_block_tag(sb.uuid), back, &sum);
	assert_int_equal(sum.damaged, 0);
	while ((f = mkv_fail_next(back, &sum, &at)) != NULL)
		n += f->what == what ? f->count : 0;
	return (n);
}

static void
test_a_failed_flush_is_noted(void **state)
{
	struct rig *r = rig_create(RIG_SIM, 64u << 20, 1);

	(void)state;
	assert_int_equal(rig_open(r), 0);
	assert_int_equal(rig_put(r, "a", 100000, 1, 0), 0);
	r->sim->fail_flush = 1;
	assert_int_not_equal(rig_put(r, "b", 100000, 2, 0), 0);
	assert_true(r->readonly);
	assert_int_equal(rig_close(r, 0), 0);
	assert_int_equal(noted(r, MKV_FAIL_FLUSH), 1);
	/* It is still there after the next life, which adds nothing. */
	assert_int_equal(rig_open(r), 0);
	assert_int_equal(rig_get(r, "a", 0, 100000, 1), 0);
	assert_int_equal(rig_close(r, 0), 0);
	assert_int_equal(noted(r, MKV_FAIL_FLUSH), 1);
	rig_destroy(&r);
}

static void
test_a_failed_write_is_noted(void **state)
{
	struct rig *r = rig_create(RIG_SIM, 64u << 20, 2);

	(void)state;
	assert_int_equal(rig_open(r), 0);
	r->sim->fail_write = 1;
	assert_int_not_equal(rig_put(r, "a", 100000, 1, 0), 0);
	assert_false(r->readonly);
	assert_int_equal(rig_close(r, 0), 0);
	assert_int_equal(noted(r, MKV_FAIL_WRITE), 1);
	rig_destroy(&r);
}

/* It is noted while it hangs, once, and when it ends how long it was. */
static void
test_a_slow_write_is_noted(void **state)
{
	struct rig *r = rig_create(RIG_SIM, 64u << 20, 3);
	struct mkv_drv_req q;

	(void)state;
	assert_int_equal(rig_open(r), 0);
	rig_put_req(r, &q, 0, "a", 40000, 1);
	q.deadline_ns = 0;
	rig_submit(r, 0, &q);
	(void)mkv_engine_step(r->e);
	for (unsigned i = 0; i < 3; i++) {
		r->now_ns += 4 * MKV_NS_PER_SEC;
		(void)mkv_engine_step(r->e);
	}
	assert_non_null(rig_wait(r, 0));
	assert_int_equal(rig_close(r, 0), 0);
	assert_int_equal(noted(r, MKV_FAIL_SLOW), 1);
	for (unsigned i = 0; i < MKV_FAIL_ROWS; i++)
		assert_true(back[i].what != MKV_FAIL_SLOW || (back[i].arg >= 12000 && back[i].arg < 13000));
	rig_destroy(&r);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_rows_count), cmocka_unit_test(test_ring), cmocka_unit_test(test_foreign),
		cmocka_unit_test(test_a_failed_flush_is_noted), cmocka_unit_test(test_a_failed_write_is_noted),
		cmocka_unit_test(test_a_slow_write_is_noted),
	};

	mkv_crc_init();
	return (cmocka_run_group_tests(tests, NULL, NULL));
}
