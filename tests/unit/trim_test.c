/*
 * TRIM in a whole engine (worker/drive/trim.c). The medium is simulated, leaves rubbish where it discarded, and stops the test when anybody reads or
 * writes there meanwhile.
 */
#include "config.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "common/base/err.h"
#include "common/shm/metric.h"
#include "tests/crash/rig.h"
#include "worker/drive/engine_priv.h"

#define MIB	(1u << 20)

static struct mkv_metrics *metrics;

static uint64_t
count(enum mkv_metric id)
{
	return (mkv_metric_get(metrics, id, 0));
}

static void
pass(struct rig *r, uint64_t ms)
{
	r->wall_ms += ms;
	r->now_ns += ms * MKV_NS_PER_MS;
	for (unsigned n = 0; n < 200; n++)
		rig_turn(r);
}

/* A store whose free space has been gone through. */
static struct rig *
up(uint64_t bytes, enum mkv_policy_kind policy)
{
	struct rig *r = rig_create(RIG_SIM, bytes, 1);

	assert_int_equal(mkv_metrics_open_private(&metrics), 0);
	sim_may_discard(r->sim);
	r->o.trim = 1;
	r->o.policy = policy;
	r->o.metrics = metrics;
	assert_int_equal(rig_open(r), 0);
	for (unsigned i = 0; i < 1000 && (r->e->trim.first < r->e->al.extents || r->e->trim.left > 0 || r->e->trim.claim.len > 0); i++)
		pass(r, 100);
	assert_int_equal(r->e->trim.extents, 0);
	return (r);
}

static void
down(struct rig *r)
{
	mkv_metrics_close(&metrics);
	rig_destroy(&r);
}

static int
put(struct rig *r, unsigned n, uint64_t bytes)
{
	struct mkv_drv_req q;
	char key[32];

	snprintf(key, sizeof(key), "k%u", n);
	rig_put_req(r, &q, 0, key, bytes, n);
	q.deadline_ns = r->now_ns + 10 * MKV_NS_PER_SEC;
	rig_submit(r, 0, &q);
	return (rig_wait(r, 0)->status);
}

static int
get(struct rig *r, unsigned n, uint64_t bytes)
{
	char key[32];

	snprintf(key, sizeof(key), "k%u", n);
	return (rig_get(r, key, 0, bytes, n));
}

static int
delete(struct rig *r, unsigned n)
{
	char key[32];

	snprintf(key, sizeof(key), "k%u", n);
	return (rig_op(r, MKV_DRV_DELETE, key, NULL));
}

static void
test_all_free_space_once(void **state)
{
	struct rig *r = up(32 * MIB, MKV_POLICY_ADAPTIVE);

	(void)state;
	assert_int_equal(count(MKV_M_drive_trim_bytes_total), r->e->al.units * r->e->sb.unit_bytes);
	assert_int_equal(count(MKV_M_drive_trim_ranges_in_total), 0);
	assert_int_equal(r->e->al.free_units, r->e->al.units);
	down(r);
}

/* Ten neighbours over three extents, freed one by one: nothing for five seconds, then one call. What stays is whole. */
static void
test_neighbours_are_one_call(void **state)
{
	struct rig *r = up(32 * MIB, MKV_POLICY_ADAPTIVE);
	unsigned calls = r->sim->discards;

	(void)state;
	r->look_ns = 10;				/* as in life: what is freed in a turn is younger than the turn */
	for (unsigned n = 0; n < 12; n++)
		assert_int_equal(put(r, n, MIB / 4), 0);
	for (unsigned n = 1; n < 11; n++)
		assert_int_equal(delete(r, n), 0);
	pass(r, 3000);
	assert_int_equal(r->sim->discards, calls);
	assert_int_equal(count(MKV_M_drive_trim_ranges_in_total), 10);
	assert_int_equal(r->e->trim.extents, 3);
	pass(r, 2500);
	assert_int_equal(r->sim->discards, calls + 1);
	assert_int_equal(r->sim->discard_bytes, 10 * (MIB / 4));
	assert_int_equal(r->e->trim.extents, 0);
	assert_int_equal(get(r, 0, MIB / 4), 0);
	assert_int_equal(get(r, 11, MIB / 4), 0);
	pass(r, 60000);
	assert_int_equal(r->sim->discards, calls + 1);
	down(r);
}

/* 1024 extents do not wait for the five seconds. */
static void
test_1024_extents(void **state)
{
	struct rig *r = rig_create(RIG_SIM, 300 * MIB, 1);
	struct mkv_run run[1024];
	unsigned calls;

	(void)state;
	assert_int_equal(mkv_metrics_open_private(&metrics), 0);
	sim_may_discard(r->sim);
	r->o.trim = 1;
	r->o.extent_bytes = MKV_EXTENT_MIN;
	assert_int_equal(rig_open(r), 0);
	r->e->trim.first = r->e->al.extents;		/* without the pass over all of it */
	for (unsigned k = 0; k < 1024; k++)
		assert_int_equal(mkv_alloc_take(&r->e->al, r->e->al.per_extent, &run[k], 1), 1);
	calls = r->sim->discards;
	for (unsigned k = 0; k < 1023; k++)
		trim_free(r->e, run[k]);
	pass(r, 1000);
	assert_int_equal(r->sim->discards, calls);
	trim_free(r->e, run[1023]);
	for (unsigned i = 0; i < 40; i++)
		pass(r, 10);
	assert_int_equal(r->e->trim.extents, 0);
	assert_true(r->sim->discards > calls);
	assert_true(r->sim->discards <= calls + 16);
	down(r);
}

/* While a put is at work nothing is begun; a put that waits for long is not kept waiting for the sake of free space, nor the other way round. */
static void
test_requests_first(void **state)
{
	struct rig *r = up(64 * MIB, MKV_POLICY_ADAPTIVE);
	struct mkv_drv_req q;
	unsigned calls;

	(void)state;
	for (unsigned n = 0; n < 32; n++)
		assert_int_equal(put(r, n, MIB), 0);
	for (unsigned n = 0; n < 31; n++)
		assert_int_equal(delete(r, n), 0);
	calls = r->sim->discards;
	pass(r, 3000);
	rig_put_req(r, &q, 2, "slow", MIB / 2, 77);
	rig_submit(r, 2, &q);
	r->e->sched.c[MKV_IO_TRIM].credit = 0;
	(void)mkv_engine_step(r->e);			/* its write is under way, and stays so: nobody turns the medium */
	r->now_ns += 3 * MKV_NS_PER_SEC;
	(void)mkv_engine_step(r->e);
	assert_int_equal(r->sim->discards, calls);
	r->now_ns += MKV_NS_PER_SEC;			/* its patience is over */
	(void)mkv_engine_step(r->e);
	assert_int_equal(r->sim->discards, calls + 1);
	assert_true(r->sim->discard_bytes <= 4 * MIB);
	assert_int_equal(mkv_metric_get(metrics, MKV_M_drive_trim_in_flight_bytes, 0), r->sim->discard_bytes);
	assert_int_equal(rig_wait(r, 2)->status, 0);
	pass(r, 6000);
	assert_int_equal(r->e->trim.extents, 0);
	assert_int_equal(get(r, 31, MIB), 0);
	down(r);
}

/* Whoever asks for space while some of it is being discarded gets other space, or waits for that end: never the range itself, never `no space`. */
static void
test_full_store_waits_for_it(void **state)
{
	struct rig *r = up(24 * MIB, MKV_POLICY_NONE);
	unsigned n = 0;
	uint64_t used;

	(void)state;
	while (put(r, n, MIB / 2) == 0)
		n++;
	assert_true(n > 20);
	assert_int_equal(delete(r, 3), 0);
	pass(r, 10);
	used = mkv_metric_get(metrics, MKV_M_drive_used_bytes, 0);
	r->sim->discard_hold = 1u << 30;
	pass(r, 6000);
	assert_true(r->e->trim.claim.len > 0);
	assert_true(mkv_metric_get(metrics, MKV_M_drive_used_bytes, 0) <= used);
	/* All of the hole is claimed, a quarter of it at most at a time: take what is left. */
	while (r->e->al.free_units > 0) {
		struct mkv_run run;

		assert_int_equal(mkv_alloc_take(&r->e->al, 1, &run, 1), 1);
	}
	r->sim->discard_hold = 50;
	assert_int_equal(put(r, 1000, r->e->sb.unit_bytes), 0);
	assert_int_equal(r->sim->discard_hold, 0);
	assert_int_equal(put(r, 1001, MIB / 2), MKV_E_NOSPACE);
	for (unsigned k = 0; k < n; k++)
		assert_int_equal(get(r, k, MIB / 2), k == 3 ? MKV_E_MISS : 0);
	down(r);
}

/* Nothing is evicted, a range is away, and it would not be enough: the answer is `no space', and nobody waits. Space that only waits to be discarded is taken. */
static void
test_full_store_answers_at_once(void **state)
{
	struct rig *r = up(24 * MIB, MKV_POLICY_NONE);
	unsigned n = 0, unit = r->e->sb.unit_bytes;

	(void)state;
	while (put(r, n, MIB / 2) == 0)
		n++;
	assert_int_equal(delete(r, 3), 0);
	pass(r, 10);
	assert_true(r->e->trim.extents > 0);
	assert_int_equal(put(r, 1000, MIB / 2), 0);
	assert_int_equal(delete(r, 1000), 0);
	r->sim->discard_hold = 1u << 30;
	pass(r, 6000);
	assert_int_equal(r->sim->discarding, 1);
	assert_true(r->e->trim.claim.len > 0);
	assert_int_equal(put(r, 1001, (r->e->al.free_units + r->e->trim.claim.len + 1) * unit), MKV_E_NOSPACE);
	assert_int_equal(r->sim->discarding, 1);
	/* Objects are what is missing, not units. */
	r->e->sb.objects_max = r->e->ix.linked;
	assert_int_equal(put(r, 1002, unit), MKV_E_NOSPACE);
	assert_int_equal(r->sim->discarding, 1);
	down(r);
}

static void
test_failures(void **state)
{
	struct rig *r = up(32 * MIB, MKV_POLICY_ADAPTIVE);
	unsigned calls = r->sim->discards;

	(void)state;
	for (unsigned n = 0; n < 8; n++)
		assert_int_equal(put(r, n, MIB / 4), 0);
	r->sim->fail_discard = MKV_E_IO;
	assert_int_equal(delete(r, 1), 0);
	pass(r, 6000);
	assert_int_equal(r->sim->discards, calls + 1);
	assert_int_equal(count(MKV_M_drive_trim_errors_total), 1);
	assert_int_equal(r->e->al.free_units + 7 * (MIB / 4 / r->e->sb.unit_bytes), r->e->al.units);
	assert_int_equal(r->readonly, 0);
	/* It goes on when there is something new. */
	assert_int_equal(delete(r, 2), 0);
	pass(r, 7000);
	assert_int_equal(r->sim->discards, calls + 2);
	/* A medium that cannot is not asked again. */
	r->sim->fail_discard = MKV_E_UNSUPPORTED;
	assert_int_equal(delete(r, 3), 0);
	pass(r, 7000);
	assert_int_equal(delete(r, 4), 0);
	pass(r, 7000);
	assert_int_equal(r->sim->discards, calls + 3);
	assert_int_equal(count(MKV_M_drive_trim_errors_total), 1);
	assert_int_equal(get(r, 5, MIB / 4), 0);
	down(r);
}

/* An orderly end waits for the one under way; what is there stays. */
static void
test_close_waits(void **state)
{
	struct rig *r = up(32 * MIB, MKV_POLICY_ADAPTIVE);

	(void)state;
	for (unsigned n = 0; n < 4; n++)
		assert_int_equal(put(r, n, MIB / 4), 0);
	assert_int_equal(delete(r, 1), 0);
	r->sim->discard_hold = 1000;
	pass(r, 6000);
	assert_true(r->e->trim.claim.len > 0);
	r->sim->discard_hold = 50;
	assert_int_equal(rig_close(r, 0), 0);
	assert_int_equal(r->sim->discarding, 0);
	assert_int_equal(rig_open(r), 0);
	assert_int_equal(get(r, 0, MIB / 4), 0);
	assert_int_equal(get(r, 1, MIB / 4), MKV_E_MISS);
	assert_int_equal(get(r, 2, MIB / 4), 0);
	down(r);
}

/* The last checkpoint turns the loop: the rest of the batch is not begun by that. */
static void
test_close_begins_none(void **state)
{
	struct rig *r = up(32 * MIB, MKV_POLICY_ADAPTIVE);
	unsigned calls = r->sim->discards;

	(void)state;
	for (unsigned n = 0; n < 8; n++)
		assert_int_equal(put(r, n, MIB), 0);
	for (unsigned n = 1; n < 8; n += 2)
		assert_int_equal(delete(r, n), 0);
	r->sim->discard_hold = 1000;
	r->now_ns += 6 * MKV_NS_PER_SEC;
	for (unsigned i = 0; i < 100 && r->e->trim.claim.len == 0; i++)
		rig_turn(r);
	assert_true(r->e->trim.claim.len > 0 && r->e->trim.left > 0);
	r->sim->discard_hold = 1;
	assert_int_equal(rig_close(r, 0), 0);
	assert_int_equal(r->sim->discarding, 0);
	assert_int_equal(r->sim->discards, calls + 1);
	down(r);
}

/* Who must end at once does not wait for it, nor says that it ended in order; also where nothing is left to be written. */
static void
test_close_is_cancelled(void **state)
{
	(void)state;
	for (int readonly = 0; readonly < 2; readonly++) {
		struct rig *r = up(32 * MIB, MKV_POLICY_ADAPTIVE);
		unsigned writes;

		assert_int_equal(put(r, 0, MIB / 4), 0);
		assert_int_equal(delete(r, 0), 0);
		r->sim->discard_hold = 1000;
		pass(r, 6000);
		assert_true(r->e->trim.claim.len > 0);
		if (readonly) {
			r->sim->fail_flush = 1;
			assert_int_equal(put(r, 1, MIB / 4), MKV_E_READONLY);
			pass(r, 1000);
		}
		r->sim->dead = 1;
		writes = r->sim->ops;
		assert_int_equal(rig_close(r, 0), MKV_E_CANCELLED);
		assert_int_equal(r->sim->ops, writes);
		down(r);
	}
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_all_free_space_once),
		cmocka_unit_test(test_neighbours_are_one_call),
		cmocka_unit_test(test_1024_extents),
		cmocka_unit_test(test_requests_first),
		cmocka_unit_test(test_full_store_waits_for_it),
		cmocka_unit_test(test_full_store_answers_at_once),
		cmocka_unit_test(test_failures),
		cmocka_unit_test(test_close_waits),
		cmocka_unit_test(test_close_begins_none),
		cmocka_unit_test(test_close_is_cancelled),
	};

	return (cmocka_run_group_tests(tests, NULL, NULL));
}
