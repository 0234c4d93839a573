/*
 * The pool map at an engine: kept in two blocks, the fence between versions, the sweep of what no version reaches, the log for drives that are away,
 * forgetting. On the simulated medium.
 */
#include "config.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "common/base/assert.h"
#include "common/base/err.h"
#include "tests/crash/rig.h"
#include "worker/drive/layout.h"

#define BYTES		(64ull << 20)
#define KEYS		120u
#define TURNS_MAX	4000

static struct rig *
rig_new(void)
{
	struct rig *r = rig_create(RIG_SIM, BYTES, 7);

	memset(r->o.drive_uuid, 0xd0, 16);
	assert_int_equal(rig_open(r), 0);
	return (r);
}

/* n drives, all of which take part; former: so many of them did before. */
static struct mkv_map
map_of(uint64_t version, unsigned n, unsigned former)
{
	struct mkv_map m = { .version = version, .n = n };

	for (unsigned i = 0; i < n; i++) {
		memset(m.row[i].uuid, 0xd0 + (int)i, 16);
		m.row[i].known = 1;
		m.row[i].state = MKV_DRIVE_ONLINE;
		m.row[i].weight = 100;
		m.row[i].former = i < former ? 100 : 0;
	}
	return (m);
}

static void
give(struct rig *r, const struct mkv_map *m)
{
	mkv_engine_map(r->e, m);
	for (int i = 0; i < TURNS_MAX && r->map_stored != m->version; i++)
		rig_turn(r);
	assert_int_equal(r->map_stored, m->version);
}

static int
put_as(struct rig *r, const char *key, uint64_t version, unsigned flags)
{
	struct mkv_drv_req q;

	rig_put_req(r, &q, 1, key, 5000, 1);
	q.map_version = (uint32_t)version;
	q.flags |= (uint16_t)flags;
	rig_submit(r, 1, &q);
	return (rig_wait(r, 1)->status);
}

static int
delete_as(struct rig *r, const char *key, uint64_t version)
{
	struct mkv_drv_req q;

	rig_req(&q, MKV_DRV_DELETE, key);
	q.map_version = (uint32_t)version;
	rig_submit(r, 1, &q);
	return (rig_wait(r, 1)->status);
}

static const char *
key_no(unsigned i)
{
	static char key[32];

	snprintf(key, sizeof(key), "key %u", i);
	return (key);
}

static void
put_all(struct rig *r, uint64_t version)
{
	for (unsigned i = 0; i < KEYS; i++)
		assert_int_equal(put_as(r, key_no(i), version, 0), 0);
}

static int
there(struct rig *r, unsigned i)
{
	unsigned reason;

	return (rig_op(r, MKV_DRV_STAT, key_no(i), &reason) == 0);
}

static struct mkv_digest
digest_no(unsigned i)
{
	struct mkv_drv_req q;

	rig_req(&q, MKV_DRV_STAT, key_no(i));
	return (q.digest);
}

static int
homed(const struct mkv_map *m, int former, unsigned i, int drive)
{
	struct mkv_place p = { 0 };

	mkv_place_of(&p, m, former);
	return (mkv_place_home(&p, digest_no(i).lo) == drive);
}

static void
reopen(struct rig *r, int abandon)
{
	assert_int_equal(rig_close(r, abandon), 0);
	if (abandon)
		sim_reboot(r->sim, SIM_DROP);
	r->map_stored = 0;
	assert_int_equal(rig_open(r), 0);
}

/* ---- */

static void
a_map_is_kept(void **state)
{
	struct rig *r = rig_new();
	struct mkv_map one = map_of(1, 1, 0), two = map_of(2, 3, 1);

	(void)state;
	assert_int_equal(mkv_engine_map_kept(r->e)->version, 0);
	give(r, &one);
	two.row[2].state = MKV_DRIVE_FAILED;
	two.row[2].since = 2;
	give(r, &two);
	reopen(r, 1);
	assert_memory_equal(mkv_engine_map_kept(r->e), &two, sizeof(two));
	give(r, &two);				/* heard again: said again */
	rig_destroy(&r);
}

static void
a_damaged_copy_leaves_the_one_before(void **state)
{
	struct rig *r = rig_new();
	struct mkv_map one = map_of(1, 1, 0), two = map_of(2, 2, 1);

	(void)state;
	give(r, &one);
	give(r, &two);
	assert_int_equal(rig_close(r, 0), 0);
	r->sim->now[MKV_POOLMAP_OFF + 100] ^= 1;		/* version 2 lies in block 1 */
	r->sim->durable[MKV_POOLMAP_OFF + 100] ^= 1;
	assert_int_equal(rig_open(r), 0);
	assert_int_equal(mkv_engine_map_kept(r->e)->version, 1);
	rig_destroy(&r);
}

static void
writes_under_another_version_are_refused(void **state)
{
	struct rig *r = rig_new();
	struct mkv_map m = map_of(5, 1, 0);
	unsigned reason;

	(void)state;
	assert_int_equal(put_as(r, "a", 0, 0), 0);		/* nobody has said anything of maps */
	give(r, &m);
	assert_int_equal(put_as(r, "b", 4, 0), MKV_E_RETRY);
	assert_int_equal(delete_as(r, "a", 4), MKV_E_RETRY);
	assert_int_equal(put_as(r, "b", 5, 0), 0);
	assert_int_equal(rig_op(r, MKV_DRV_STAT, "a", &reason), 0);	/* reads go by no version */
	rig_destroy(&r);
}

/* What was asked under the old version is done before the new one is kept. */
static void
the_fence_waits_for_older_writes(void **state)
{
	struct rig *r = rig_new();
	struct mkv_map one = map_of(1, 1, 0), two = map_of(2, 1, 1);
	struct mkv_drv_req q;

	(void)state;
	give(r, &one);
	rig_put_req(r, &q, 1, "slow", 5000, 1);
	q.map_version = 1;
	rig_submit(r, 1, &q);
	mkv_engine_map(r->e, &two);
	for (int i = 0; i < TURNS_MAX && r->map_stored != 2; i++) {
		rig_turn(r);
		assert_true(r->map_stored != 2 || r->slot[1].done);
	}
	assert_int_equal(r->map_stored, 2);
	assert_int_equal(rig_wait(r, 1)->status, 0);
	rig_destroy(&r);
}

static void
what_no_map_reaches_is_swept(void **state)
{
	struct rig *r = rig_new();
	struct mkv_map one = map_of(1, 1, 0), two = map_of(2, 2, 1), three = map_of(3, 2, 2), four = map_of(4, 3, 2);
	unsigned mine = 0;

	(void)state;
	give(r, &one);
	put_all(r, 1);
	give(r, &two);
	for (int i = 0; i < 200; i++)
		rig_turn(r);
	for (unsigned i = 0; i < KEYS; i++)
		assert_true(there(r, i));		/* drive 0 is the former home of all */
	give(r, &three);
	give(r, &four);					/* is kept only after the sweep of version 3 */
	for (unsigned i = 0; i < KEYS; i++) {
		assert_int_equal(there(r, i), homed(&three, 0, i, 0));
		mine += (unsigned)homed(&three, 0, i, 0);
	}
	assert_in_range(mine, KEYS / 4, KEYS * 3 / 4);
	rig_destroy(&r);
}

static void
a_sweep_begins_again_after_a_crash(void **state)
{
	struct rig *r = rig_new();
	struct mkv_map one = map_of(1, 1, 0), three = map_of(3, 2, 2), four = map_of(4, 2, 2);

	(void)state;
	give(r, &one);
	put_all(r, 1);
	give(r, &three);
	reopen(r, 1);
	give(r, &four);
	for (unsigned i = 0; i < KEYS; i++)
		assert_int_equal(there(r, i), homed(&three, 0, i, 0));
	rig_destroy(&r);
}

static void
the_log_has_what_was_written_while_one_is_away(void **state)
{
	struct rig *r = rig_new();
	struct mkv_map one = map_of(1, 1, 0), two = map_of(2, 2, 1), back = map_of(3, 2, 1);
	const struct mkv_digest *log;
	int whole;

	(void)state;
	two.row[1].state = MKV_DRIVE_FAILED;
	two.row[1].since = 2;
	give(r, &one);
	assert_int_equal(put_as(r, key_no(0), 1, 0), 0);
	give(r, &two);
	assert_int_equal(put_as(r, key_no(1), 2, 0), 0);
	assert_int_equal(delete_as(r, key_no(0), 2), 0);
	assert_int_equal(delete_as(r, key_no(9), 2), MKV_E_MISS);	/* what is not here may be there */
	assert_int_equal(mkv_engine_away(r->e, 2, &log, &whole), 3);
	assert_true(whole);
	assert_true(mkv_digest_eq(log[0], digest_no(1)) && mkv_digest_eq(log[1], digest_no(0)) && mkv_digest_eq(log[2], digest_no(9)));
	(void)mkv_engine_away(r->e, 1, &log, &whole);
	assert_false(whole);			/* under version 1 nothing was logged */
	give(r, &back);
	(void)mkv_engine_away(r->e, 2, &log, &whole);
	assert_false(whole);			/* nobody is away any more */
	rig_destroy(&r);
}

/* What a process wrote before this one began is in no log. */
static void
the_log_of_a_new_process_is_not_whole(void **state)
{
	struct rig *r = rig_new();
	struct mkv_map two = map_of(2, 2, 1);
	const struct mkv_digest *log;
	int whole;

	(void)state;
	two.row[1].state = MKV_DRIVE_ABSENT;
	give(r, &two);
	(void)mkv_engine_away(r->e, 2, &log, &whole);
	assert_false(whole);
	(void)mkv_engine_away(r->e, 3, &log, &whole);
	assert_true(whole);
	rig_destroy(&r);
}

static void
what_is_to_be_forgotten_is_gone_before_the_map_counts(void **state)
{
	struct rig *r = rig_new();
	struct mkv_map one = map_of(1, 1, 0), two = map_of(2, 1, 1);
	struct mkv_digest d[3] = { digest_no(3), digest_no(5), digest_no(KEYS + 5) };

	(void)state;
	give(r, &one);
	put_all(r, 1);
	assert_int_equal(mkv_engine_forget(r->e, d, 3), 0);
	give(r, &two);
	reopen(r, 1);				/* power loss: what was said to be stored is durable with all before it */
	assert_int_equal(mkv_engine_map_kept(r->e)->version, 2);
	for (unsigned i = 0; i < KEYS; i++)
		assert_int_equal(there(r, i), i != 3 && i != 5);
	rig_destroy(&r);
}

static void
a_drive_may_begin_with_nothing_under_keys(void **state)
{
	struct rig *r = rig_new();

	(void)state;
	put_all(r, 0);
	assert_int_equal(rig_close(r, 0), 0);
	r->o.forget_all = 1;
	assert_int_equal(rig_open(r), 0);
	r->o.forget_all = 0;
	assert_false(there(r, 0));
	reopen(r, 1);
	for (unsigned i = 0; i < KEYS; i++)
		assert_false(there(r, i));
	rig_destroy(&r);
}

static void
a_drained_drive_is_empty_in_time(void **state)
{
	struct rig *r = rig_create(RIG_SIM, BYTES, 7);
	struct mkv_map one = map_of(1, 2, 0), two = map_of(2, 2, 2);
	struct mkv_engine_info info;
	unsigned n = 0;

	(void)state;
	r->o.drain_ns = 2 * MKV_NS_PER_SEC;
	assert_int_equal(rig_open(r), 0);
	give(r, &one);
	put_all(r, 1);
	mkv_engine_info(r->e, &info);
	two.row[0].state = MKV_DRIVE_DRAINING;
	give(r, &two);
	r->now_ns += MKV_NS_PER_SEC;
	for (int i = 0; i < 200; i++)
		rig_turn(r);
	for (unsigned i = 0; i < KEYS; i++)
		n += (unsigned)there(r, i);
	assert_in_range(n, 1, KEYS * 3 / 4);
	r->now_ns += 2 * MKV_NS_PER_SEC;
	for (int i = 0; i < 200; i++)
		rig_turn(r);
	mkv_engine_info(r->e, &info);
	assert_int_equal(info.objects, 0);
	rig_destroy(&r);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_map_is_kept),
		cmocka_unit_test(a_damaged_copy_leaves_the_one_before),
		cmocka_unit_test(writes_under_another_version_are_refused),
		cmocka_unit_test(the_fence_waits_for_older_writes),
		cmocka_unit_test(what_no_map_reaches_is_swept),
		cmocka_unit_test(a_sweep_begins_again_after_a_crash),
		cmocka_unit_test(the_log_has_what_was_written_while_one_is_away),
		cmocka_unit_test(the_log_of_a_new_process_is_not_whole),
		cmocka_unit_test(what_is_to_be_forgotten_is_gone_before_the_map_counts),
		cmocka_unit_test(a_drive_may_begin_with_nothing_under_keys),
		cmocka_unit_test(a_drained_drive_is_empty_in_time),
	};

	return (cmocka_run_group_tests(tests, NULL, NULL));
}
