/*
 * Wrong bytes on the medium: what a client's report leads to, whose fault it is, and what counts when it is asked whether the drive is to be given up.
 */
#include "config.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "common/base/err.h"
#include "common/base/log.h"
#include "tests/unit/scrub_up.h"

/*
 * What drive.error_limit goes by: a place counts once a minute, however often it is asked for and however many objects it has; many places count each.
 * Bytes that nobody proved, and reports, say nothing.
 */
static void
test_places(void **state)
{
	struct rig *r = up(RIG_SIM, 64 * MIB, 11);
	unsigned reason, gone = 0;
	char key[16];
	uint64_t page;

	(void)state;
	put_many(r, 60, 5000);
	put(r, "spot", 100000, 3);
	page = mkv_sb_page_at(&r->e->sb, eng_ent(r->e, entry(r, "k0"))->page) + 100;
	assert_int_equal(rig_close(r, 0), 0);
	assert_int_equal(rig_open(r), 0);
	for (unsigned i = 0; i < 20; i++)
		assert_int_equal(rig_op(r, MKV_DRV_VERIFY, "spot", &reason), 0);
	assert_int_equal(COUNTED(r, bad_places_total), 0);
	sim_bad(r->sim, place(r, "spot", 0), 4096, UINT32_MAX);
	for (unsigned i = 0; i < 40; i++)
		assert_int_equal(rig_get(r, "spot", 0, 100000, 3), MKV_E_IO);
	assert_true(COUNTED(r, read_errors_total) >= 40);
	assert_int_equal(COUNTED(r, bad_places_total), 1);
	r->now_ns += 61 * MKV_NS_PER_SEC;
	assert_int_equal(rig_get(r, "spot", 0, 100000, 3), MKV_E_IO);
	assert_int_equal(COUNTED(r, bad_places_total), 2);
	/* A page: each of its objects is a miss. */
	flip(r, page);
	for (unsigned i = 0; i < 60; i++) {
		snprintf(key, sizeof(key), "k%u", i);
		gone += rig_op(r, MKV_DRV_STAT, key, &reason) != 0;
	}
	assert_true(gone > 5 && COUNTED(r, corrupt_total) > 5);
	assert_int_equal(COUNTED(r, bad_places_total), 3);
	/* Many places, whoever finds them. */
	for (unsigned i = 0, n = 0; n < 10; i++) {
		snprintf(key, sizeof(key), "k%u", i);
		if (rig_op(r, MKV_DRV_STAT, key, &reason) != 0)
			continue;
		flip(r, place(r, key, 100));
		assert_int_equal(rig_op(r, MKV_DRV_VERIFY, key, &reason), MKV_E_CORRUPT);
		assert_int_equal(reason, MKV_REASON_CORRUPT);
		assert_int_equal(COUNTED(r, bad_places_total), 4 + n++);
	}
	for (unsigned i = 0; i < 20; i++) {
		snprintf(key, sizeof(key), "w%u", i);
		assert_int_equal(rig_put(r, key, 5000, i, 0), 0);
		flip(r, place(r, key, 100));
		assert_int_equal(rig_op(r, MKV_DRV_VERIFY, key, &reason), MKV_E_CORRUPT);
		assert_int_equal(reason, MKV_REASON_WRITER_CRC);
	}
	assert_int_equal(COUNTED(r, bad_places_total), 13);
	rig_destroy(&r);
}

/* Rows of many blocks are on the medium within a moment when the drive is given up, not ten blocks a second. */
static void
test_kept_in_a_hurry(void **state)
{
	struct rig *r = up(RIG_SIM, 64 * MIB, 12);
	unsigned turns = 0, rows;
	uint64_t begin;

	(void)state;
	for (unsigned i = 0; i < 20 * MKV_FAIL_PER_BLOCK; i++)
		fail_note(r->e, MKV_FAIL_DATA, (i + 1) * 65536ull, 65536, MKV_E_CORRUPT, 0);
	begin = r->now_ns;
	while (!mkv_engine_failures_keep(r->e)) {
		assert_true(turns++ < 2000);
		rig_turn(r);
	}
	assert_true(r->now_ns - begin < MKV_NS_PER_SEC);
	rows = r->e->fl.sum.rows;
	assert_int_equal(rig_close(r, 1), 0);		/* as when it is killed */
	sim_reboot(r->sim, SIM_KEEP);
	assert_int_equal(rig_open(r), 0);
	assert_int_equal(r->e->fl.sum.rows, rows);
	rig_destroy(&r);
}

/* A client's report finds the same, and says so to the one who asks. */
static void
test_liar_reported(void **state)
{
	struct rig *r = up(RIG_SIM, 32 * MIB, 8);
	unsigned reason = 0;

	(void)state;
	lie(r, "lie", 200000, 0);
	assert_int_equal(rig_op(r, MKV_DRV_VERIFY, "lie", &reason), MKV_E_CORRUPT);
	assert_int_equal(reason, MKV_REASON_WRITER_CRC);
	assert_int_equal(COUNTED(r, writer_crc_total), 1);
	assert_int_equal(COUNTED(r, corrupt_total), 0);
	assert_int_equal(r->e->fl.sum.events, 0);
	assert_int_equal(r->e->unproved, 0);
	assert_int_equal(rig_op(r, MKV_DRV_VERIFY, "lie", &reason), MKV_E_MISS);
	assert_int_equal(reason, MKV_REASON_WRITER_CRC);
	rig_destroy(&r);
}

/* Of a reported range its chunks are read and no others; only who read all proved all. Too many reports at once: the rest is BUSY, and nobody else waits. */
static void
test_reported_range(void **state)
{
	struct rig *r = up(RIG_SIM, 32 * MIB, 8);
	struct mkv_drv_req q;
	unsigned busy = 0, good = 0;

	(void)state;
	rig_put_req(r, &q, 0, "v", 300000, 1);
	q.crcs[3] ^= 1;
	rig_submit(r, 0, &q);
	assert_int_equal(rig_wait(r, 0)->status, 0);
	rig_req(&q, MKV_DRV_VERIFY, "v");
	q.off = 65536;
	q.len = 2 * 65536;
	rig_submit(r, 0, &q);
	assert_int_equal(rig_wait(r, 0)->status, 0);
	assert_int_equal(r->slot[0].rep.flags & MKV_DRV_F_VERIFIED, 0);
	q.off = UINT64_MAX - 5;				/* foreign numbers */
	q.len = UINT64_MAX;
	rig_submit(r, 0, &q);
	assert_int_equal(rig_wait(r, 0)->status, 0);
	assert_int_equal(r->slot[0].rep.flags & MKV_DRV_F_VERIFIED, 0);
	assert_int_equal(r->e->unproved, 1);
	for (unsigned i = 0; i < 4 * VERIFY_MAX; i++) {
		q.off = 10;
		q.len = 100;
		rig_submit(r, i, &q);
	}
	for (unsigned i = 0; i < 4 * VERIFY_MAX; i++) {
		int status = rig_wait(r, i)->status;

		assert_true(status == 0 || status == MKV_E_BUSY);
		good += status == 0;
		busy += status != 0;
	}
	assert_true(good >= VERIFY_MAX && busy > 0);
	assert_int_equal(r->e->verifies, 0);
	q.off = 3 * 65536 + 1;
	q.len = 1;
	rig_submit(r, 0, &q);
	assert_int_equal(rig_wait(r, 0)->status, MKV_E_CORRUPT);
	assert_int_equal(r->slot[0].rep.reason, MKV_REASON_WRITER_CRC);
	rig_destroy(&r);
}

/* ---- Who wrote it ----------------------------------------------------------------------------------------------------------- */

/* What the engine logs while fn runs. */
static const char *
logged(struct rig *r, const char *key)
{
	static char text[8192];
	FILE *f = tmpfile();
	unsigned reason;
	size_t n;

	assert_non_null(f);
	mkv_log_set_fd(fileno(f));
	assert_int_equal(rig_op(r, MKV_DRV_VERIFY, key, &reason), MKV_E_CORRUPT);
	assert_int_equal(reason, MKV_REASON_WRITER_CRC);
	mkv_log_set_fd(2);
	rewind(f);
	n = fread(text, 1, sizeof(text) - 1, f);
	text[n] = '\0';
	fclose(f);
	return (text);
}

static void
lie_from(struct rig *r, const char *key, const struct mkv_drv_writer *who)
{
	struct mkv_drv_req q;

	rig_put_req(r, &q, 0, key, 100000, 9);
	q.put_id = 77;
	q.crcs[0] ^= 4;
	if (who != NULL)
		q.writer = *who;
	rig_submit(r, 0, &q);
	assert_int_equal(rig_wait(r, 0)->status, 0);
}

/* The line names the connection that the put came by, while that is known; never another one. */
static void
test_writer_is_named(void **state)
{
	struct mkv_drv_writer four = { .session = 0xabc, .key_id = 5, .port = 4000, .addr = { [10] = 0xff, 0xff, 10, 1, 2, 3 }, .client = { 1, [15] = 2 } };
	struct mkv_drv_writer six = { .session = 0xdef, .key_id = 6, .port = 4001, .addr = { 0x20, 1, 0xd, 0xb8, [15] = 7 } };
	struct mkv_drv_writer local = { .session = 0x123, .key_id = 1 };
	struct rig *r = up(RIG_SIM, 32 * MIB, 13);

	(void)state;
	lie_from(r, "four", &four);
	lie_from(r, "six", &six);
	lie_from(r, "local", &local);
	lie_from(r, "nobody", NULL);
	assert_non_null(strstr(logged(r, "four"), "event=drive_writer_crc "));
	lie_from(r, "four", &four);
	assert_non_null(strstr(logged(r, "four"), " put_id=000000000000004d units=25 writer=10.1.2.3:4000 session=abc key_id=5 client=01000000000000000000000000000002\n"));
	assert_non_null(strstr(logged(r, "six"), " writer=[2001:db8:0:0:0:0:0:7]:4001 session=def key_id=6 "));
	assert_non_null(strstr(logged(r, "local"), " writer=none session=123 key_id=1 "));
	assert_non_null(strstr(logged(r, "nobody"), " writer=unknown\n"));
	/* Put again by another one: that one is named. After a start nobody is. */
	lie_from(r, "four", &four);
	lie_from(r, "four", &six);
	assert_non_null(strstr(logged(r, "four"), " session=def "));
	lie_from(r, "four", &four);
	assert_int_equal(rig_close(r, 0), 0);
	assert_int_equal(rig_open(r), 0);
	assert_non_null(strstr(logged(r, "four"), " writer=unknown\n"));
	assert_int_equal(COUNTED(r, writer_crc_total), 7);
	assert_int_equal(COUNTED(r, corrupt_total), 0);
	rig_destroy(&r);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_places),
		cmocka_unit_test(test_kept_in_a_hurry),
		cmocka_unit_test(test_liar_reported),
		cmocka_unit_test(test_reported_range),
		cmocka_unit_test(test_writer_is_named),
	};
	int r = cmocka_run_group_tests(tests, NULL, NULL);

	mkv_metrics_close(&metrics);
	return (r);
}
