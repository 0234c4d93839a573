/*
 * Eviction in a whole engine: policies, pins, admission, what survives a restart. The medium is simulated.
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
#include "tests/crash/rig.h"
#include "worker/drive/engine_priv.h"

#define MIB	(1u << 20)

static struct rig *
up(uint64_t bytes, enum mkv_policy_kind policy)
{
	struct rig *r = rig_create(RIG_SIM, bytes, 1);

	r->o.policy = policy;
	assert_int_equal(rig_open(r), 0);
	return (r);
}

static int
put(struct rig *r, const char *kind, unsigned n, uint64_t bytes, unsigned flags)
{
	struct mkv_drv_req q;
	char key[32];

	snprintf(key, sizeof(key), "%s%u", kind, n);
	rig_put_req(r, &q, 0, key, bytes, n);
	q.flags |= (uint16_t)flags;
	q.deadline_ns = r->now_ns + 10 * MKV_NS_PER_SEC;
	rig_submit(r, 0, &q);
	return (rig_wait(r, 0)->status);
}

static int
get(struct rig *r, const char *kind, unsigned n, uint64_t bytes)
{
	char key[32];

	snprintf(key, sizeof(key), "%s%u", kind, n);
	return (rig_get(r, key, 0, bytes, n));
}

static int
there(struct rig *r, const char *kind, unsigned n, unsigned *reason)
{
	char key[32];

	snprintf(key, sizeof(key), "%s%u", kind, n);
	return (rig_op(r, MKV_DRV_STAT, key, reason) == 0);
}

static void
pass(struct rig *r, uint64_t ms)
{
	uint64_t end = r->now_ns + ms * MKV_NS_PER_MS;

	r->wall_ms += ms;
	r->now_ns = end;
	for (unsigned n = 0; n < 2000; n++)
		rig_turn(r);
}

static void
test_policy_none(void **state)
{
	struct rig *r = up(24 * MIB, MKV_POLICY_NONE);
	uint64_t begin;
	unsigned n = 0;

	(void)state;
	while (put(r, "k", n, 500000, 0) == 0)
		n++;
	assert_in_range(n, 20, 48);
	begin = r->now_ns;
	assert_int_equal(put(r, "k", n, 500000, 0), MKV_E_NOSPACE);
	assert_true(r->now_ns - begin < MKV_NS_PER_SEC);			/* at once: it had ten seconds */
	for (unsigned k = 0; k < n; k++)
		assert_true(there(r, "k", k, NULL));
	/* A reload lets it go on. */
	r->o.policy = MKV_POLICY_FIFO;
	mkv_engine_tune(r->e, &r->o);
	assert_int_equal(put(r, "k", n, 500000, 0), 0);
	assert_false(there(r, "k", 0, NULL));
	rig_destroy(&r);
}

static void
test_pin_share(void **state)
{
	struct rig *r = rig_create(RIG_SIM, 32 * MIB, 1);
	unsigned n = 0, reason;

	(void)state;
	r->o.pin_pct = 25;
	assert_int_equal(rig_open(r), 0);
	while (n < 64 && put(r, "pin", n, MIB, MKV_DRV_F_PIN) == 0)
		n++;
	assert_in_range(n, 5, 8);
	assert_int_equal(put(r, "pin", n, MIB, MKV_DRV_F_PIN), MKV_E_NOSPACE);
	assert_int_equal(r->e->pin_asked, 0);
	assert_int_equal(put(r, "pin", 0, MIB, MKV_DRV_F_PIN), 0);		/* it is pinned already */
	for (unsigned k = 0; k < 100; k++)
		assert_int_equal(put(r, "other", k, MIB, 0), 0);
	for (unsigned k = 0; k < n; k++)
		assert_true(there(r, "pin", k, NULL));
	assert_int_equal(rig_close(r, 1), 0);
	sim_reboot(r->sim, SIM_DROP);
	assert_int_equal(rig_open(r), 0);
	assert_int_equal(put(r, "pin", n, MIB, MKV_DRV_F_PIN), MKV_E_NOSPACE);
	assert_int_equal(rig_op(r, MKV_DRV_DELETE, "pin0", &reason), 0);
	assert_int_equal(put(r, "pin", n, MIB, MKV_DRV_F_PIN), 0);
	rig_destroy(&r);
}

/* A touch may pin as well, and is held to the same share. */
static void
test_pin_by_touch(void **state)
{
	struct rig *r = rig_create(RIG_SIM, 32 * MIB, 1);
	struct mkv_drv_req q;
	int status[4];

	(void)state;
	r->o.pin_pct = 10;
	assert_int_equal(rig_open(r), 0);
	for (unsigned n = 0; n < 4; n++) {
		char key[16];

		assert_int_equal(put(r, "t", n, MIB, 0), 0);
		snprintf(key, sizeof(key), "t%u", n);
		rig_req(&q, MKV_DRV_TOUCH, key);
		q.flags = MKV_DRV_F_PIN;
		q.deadline_ns = r->now_ns + MKV_NS_PER_SEC;
		rig_submit(r, 0, &q);
		status[n] = rig_wait(r, 0)->status;
	}
	assert_int_equal(status[0], 0);
	assert_int_equal(status[1], 0);
	assert_int_equal(status[3], MKV_E_NOSPACE);
	for (unsigned k = 0; k < 80; k++)
		assert_int_equal(put(r, "other", k, MIB, 0), 0);
	assert_true(there(r, "t", 0, NULL));
	assert_false(there(r, "t", 3, NULL));
	rig_destroy(&r);
}

/* A striped value counts with its share of the drive; its manifest has no units of its own. */
static void
test_pin_of_a_stripe(void **state)
{
	struct rig *r = rig_create(RIG_SIM, 32 * MIB, 1);
	struct mkv_drv_req q;
	int status[2];

	(void)state;
	r->o.pin_pct = 20;
	assert_int_equal(rig_open(r), 0);
	for (unsigned n = 0; n < 2; n++) {
		struct mkv_set_id set;

		rig_req(&q, MKV_DRV_SET_NEW, "");
		q.deadline_ns = r->now_ns + MKV_NS_PER_SEC;
		rig_submit(r, 0, &q);
		set = rig_wait(r, 0)->set;
		rig_req(&q, MKV_DRV_PUT, n ? "large" : "small");
		q.flags = MKV_DRV_F_MANIFEST | MKV_DRV_F_PIN;
		q.set = set;
		q.n_stripe = 1;
		q.stripe[0] = (uint8_t)r->o.drive_idx;
		q.piece_bytes = r->o.extent_bytes;
		q.piece_count = n ? 1000 : 1;
		q.value_bytes = (uint64_t)q.piece_count * q.piece_bytes;
		q.deadline_ns = r->now_ns + MKV_NS_PER_SEC;
		rig_submit(r, 0, &q);
		status[n] = rig_wait(r, 0)->status;
	}
	assert_int_equal(status[0], 0);
	assert_int_equal(status[1], MKV_E_NOSPACE);
	assert_int_equal(r->e->pin_asked, 0);
	assert_in_range(r->e->pin_units, 1, r->e->al.units / 5);
	rig_destroy(&r);
}

/* The order in which objects leave is about the same after a restart. */
static void
test_order_survives(void **state)
{
	struct rig *r = up(48 * MIB, MKV_POLICY_LRU);
	unsigned left = 0, right = 0;

	(void)state;
	for (unsigned n = 0; n < 60; n++)
		assert_int_equal(put(r, "k", n, 500000, 0), 0);
	for (unsigned n = 0; n < 30; n++)					/* the older half becomes the younger one */
		assert_int_equal(get(r, "k", n, 500000), 0);
	assert_int_equal(rig_close(r, 0), 0);
	assert_int_equal(rig_open(r), 0);
	for (unsigned n = 0; n < 50; n++)
		assert_int_equal(put(r, "new", n, 500000, 0), 0);
	for (unsigned n = 0; n < 60; n++)
		*(n < 30 ? &left : &right) += there(r, "k", n, NULL);
	assert_in_range(right, 1, 20);
	assert_int_equal(left, 30);
	rig_destroy(&r);
}

static void
test_not_admitted(void **state)
{
	struct rig *r = up(24 * MIB, MKV_POLICY_CLOCK);
	unsigned n, reason;

	(void)state;
	for (n = 0; n < 100; n++)
		assert_int_equal(put(r, "k", n, 500000, 0), 0);
	r->e->pol.second_touch = 1;
	r->e->evicting = 1;
	assert_int_equal(put(r, "once", 0, 500000, 0), 0);
	assert_false(there(r, "once", 0, &reason));
	assert_int_equal(reason, MKV_REASON_NOT_ADMITTED);
	r->e->evicting = 1;
	assert_int_equal(put(r, "once", 0, 500000, 0), 0);
	assert_true(there(r, "once", 0, NULL));
	r->e->evicting = 1;
	assert_int_equal(put(r, "pinned", 0, 500000, MKV_DRV_F_PIN), 0);	/* these are promises */
	assert_int_equal(put(r, "absent", 0, 500000, MKV_DRV_F_IF_ABSENT), 0);
	assert_true(there(r, "pinned", 0, NULL));
	assert_true(there(r, "absent", 0, NULL));
	rig_destroy(&r);
}

static unsigned
used_pct(struct rig *r)
{
	struct mkv_engine_info info;

	mkv_engine_info(r->e, &info);
	return ((unsigned)(info.used_bytes * 100 / info.total_bytes));
}

/* Nothing leaves below the high watermark; from there on as much as the low one wants, and no more. */
static void
test_watermarks(void **state)
{
	struct rig *r = rig_create(RIG_SIM, 64 * MIB, 1);
	unsigned n = 0, left = 0;

	(void)state;
	r->o.policy = MKV_POLICY_FIFO;
	r->o.evict_high_pct = 60;
	r->o.evict_low_pct = 40;
	assert_int_equal(rig_open(r), 0);
	while (used_pct(r) < 58)
		assert_int_equal(put(r, "k", n++, 500000, 0), 0);
	pass(r, 3000);
	for (unsigned k = 0; k < n; k++)
		assert_true(there(r, "k", k, NULL));
	for (unsigned k = 0; k < 4; k++)					/* 0.85 % each */
		assert_int_equal(put(r, "k", n++, 500000, 0), 0);
	pass(r, 3000);
	assert_in_range(used_pct(r), 36, 43);				/* some came when it had ended */
	for (unsigned k = 0; k < n; k++)
		left += there(r, "k", k, NULL);
	assert_true(there(r, "k", n - 1, NULL));
	assert_false(there(r, "k", 0, NULL));
	pass(r, 3000);
	assert_in_range(left, n * 35 / 60, n * 45 / 60);
	rig_destroy(&r);
}

/*
 * What other policies would have hit is reported, whatever this one is: a loop over more than there is room for is nothing to lru, and much to one that
 * does not take everything. A fixed policy stays what it is; adaptive, set later, begins with what is known.
 */
static void
shadows_report(enum mkv_policy_kind policy)
{
	struct rig *r = rig_create(RIG_SIM, 48 * MIB, 1);
	uint64_t looked, lru, second;
	struct mkv_metrics *m;

	assert_int_equal(mkv_metrics_open_private(&m), 0);
	r->o.metrics = m;
	r->o.policy = policy;
	assert_int_equal(rig_open(r), 0);
	for (unsigned round = 0; round < 12; round++) {
		for (unsigned k = 0; k < 120; k++) {
			if (get(r, "k", k, 500000) != 0)
				assert_int_equal(put(r, "k", k, 500000, 0), 0);
		}
	}
	assert_int_equal(r->e->pol.second_touch, policy == MKV_POLICY_ADAPTIVE);
	r->o.policy = MKV_POLICY_ADAPTIVE;
	mkv_engine_tune(r->e, &r->o);
	assert_int_equal(r->e->pol.second_touch, 1);
	assert_int_equal(rig_close(r, 0), 0);
	looked = mkv_metric_get(m, MKV_M_drive_shadow_accesses, 0);
	lru = mkv_metric_get(m, MKV_M_drive_shadow_lru_hits, 0);
	second = mkv_metric_get(m, MKV_M_drive_shadow_second_touch_hits, 0);
	assert_true(looked > 1000 && second < looked);
	assert_true(lru < looked / 50);
	assert_true(second > looked / 4);
	assert_int_equal(mkv_metric_get(m, MKV_M_drive_policy_chosen, 0), MKV_ADAPT_SECOND);
	rig_destroy(&r);
	mkv_metrics_close(&m);
}

static void
test_shadows_report(void **state)
{
	(void)state;
	shadows_report(MKV_POLICY_ADAPTIVE);
	shadows_report(MKV_POLICY_FIFO);
}

/* Each block of a prompt names the one before it: the end leaves before the beginning, whatever order lru would have. */
static void
test_chain_leaves_from_its_end(void **state)
{
	(void)state;
	for (int chained = 0; chained < 2; chained++) {
		struct rig *r = up(24 * MIB, MKV_POLICY_LRU);
		struct mkv_digest before = { 0, 0 };
		unsigned first = 0, last = 0;

		for (unsigned n = 0; n < 20; n++) {
			struct mkv_drv_req q;
			char key[16];

			snprintf(key, sizeof(key), "c%u", n);
			rig_put_req(r, &q, 0, key, 500000, n);
			if (chained)
				q.parent = before;
			before = q.digest;
			q.deadline_ns = r->now_ns + 10 * MKV_NS_PER_SEC;
			rig_submit(r, 0, &q);
			assert_int_equal(rig_wait(r, 0)->status, 0);
		}
		for (unsigned k = 0; first + last < 10 && k < 60; k++) {
			assert_int_equal(put(r, "new", k, 500000, 0), 0);
			first = last = 0;
			for (unsigned n = 0; n < 20; n++)
				*(n < 10 ? &first : &last) += !there(r, "c", n, NULL);
		}
		assert_true(first + last >= 10);
		assert_true(chained ? last > first : first > last);
		rig_destroy(&r);
	}
}

/* Puts at a rate: room is made before they ask for it. */
static void
test_ahead_of_need(void **state)
{
	struct rig *r = up(64 * MIB, MKV_POLICY_CLOCK);
	uint64_t ahead = 0;

	(void)state;
	for (unsigned n = 0; n < 300; n++) {
		assert_int_equal(put(r, "k", n, 500000, 0), 0);
		ahead = MKV_MAX(ahead, r->e->ahead_units);
	}
	assert_in_range(ahead, 1, r->e->al.units / 16);
	for (unsigned n = 0; n < 20000; n++)					/* nobody puts: the room is given back */
		rig_turn(r);
	assert_int_equal(r->e->ahead_units, 0);
	rig_destroy(&r);
}

/* Objects whose time is over leave by themselves, with their reason, pinned or not, before any pressure. */
static void
test_expired_leave(void **state)
{
	struct rig *r = up(64 * MIB, MKV_POLICY_LRU);
	struct mkv_drv_req q;
	unsigned reason;

	(void)state;
	for (unsigned n = 0; n < 20; n++) {
		char key[16];

		snprintf(key, sizeof(key), "ttl%u", n);
		rig_put_req(r, &q, 0, key, 100000, n);
		q.ttl_ms = 1000;
		q.flags |= n == 7 ? MKV_DRV_F_PIN : 0;
		rig_submit(r, 0, &q);
		assert_int_equal(rig_wait(r, 0)->status, 0);
	}
	assert_int_equal(put(r, "stays", 0, 100000, 0), 0);
	r->wall_ms += 2000;
	for (unsigned n = 0; n < 20000 && r->e->ix.linked > 1; n++)
		rig_turn(r);
	assert_int_equal(r->e->ix.linked, 1);
	assert_int_equal(r->e->pin_units, 0);
	pass(r, 2000);
	assert_int_equal(r->e->pend_units, 0);					/* nobody else writes: it is durable all the same */
	assert_false(there(r, "ttl", 7, &reason));
	assert_int_equal(reason, MKV_REASON_EXPIRED);
	rig_destroy(&r);
}

/* Two owners of one place: recovery believes neither, and neither has a share of the pins any more. */
static void
test_pins_of_two_owners(void **state)
{
	struct rig *r = up(48 * MIB, MKV_POLICY_LRU);
	uint32_t run = 0;

	(void)state;
	for (unsigned n = 0; n < 2; n++) {
		struct mkv_drv_req q;
		char key[32];
		uint32_t i;

		assert_int_equal(put(r, "k", n, 65536, MKV_DRV_F_PIN), 0);
		snprintf(key, sizeof(key), "k%u", n);
		rig_req(&q, MKV_DRV_GET, key);
		i = mkv_index_find(&r->e->ix, q.digest);
		assert_int_not_equal(i, MKV_ENT_NIL);
		run = n == 0 ? r->e->ix.ent[i].run : run;
		r->e->ix.ent[i].run = run;
	}
	assert_true(r->e->pin_units > 0);
	assert_int_equal(rig_close(r, 0), 0);
	assert_int_equal(rig_open(r), 0);
	assert_int_equal(r->e->ix.linked, 0);
	assert_int_equal(r->e->al.free_units, r->e->al.units);
	assert_int_equal(r->e->pin_units, 0);
	rig_destroy(&r);
}

/* A match of `n` keys with a lease: what was granted; *there: how many are there. */
static uint32_t
lease(struct rig *r, const char *kind, unsigned first, unsigned n, uint32_t ms, unsigned *there_n)
{
	struct mkv_digest *d = (struct mkv_digest *)(void *)rig_mem(r, 0);
	const struct mkv_drv_rep *rep;
	struct mkv_drv_req q;
	char key[32];

	for (unsigned k = 0; k < n; k++) {
		snprintf(key, sizeof(key), "%s%u", kind, first + k);
		rig_req(&q, MKV_DRV_STAT, key);
		d[k] = q.digest;
	}
	rig_req(&q, MKV_DRV_BATCH, "");
	rig_bufs(&q, 0, n * sizeof(*d));
	q.n_digests = n;
	q.lease_ms = ms;
	q.deadline_ns = r->now_ns + MKV_NS_PER_SEC;
	rig_submit(r, 0, &q);
	rep = rig_wait(r, 0);
	assert_int_equal(rep->status, 0);
	*there_n = 0;
	for (unsigned k = 0; k < n; k++)
		*there_n += rig_mem(r, 0)[k] & 1;
	return (rep->lease_ms);
}

/* Leased objects stay under any storm, and go when their time is over, longer ones later. */
static void
test_lease(void **state)
{
	struct rig *r = up(32 * MIB, MKV_POLICY_FIFO);
	unsigned n;

	(void)state;
	for (unsigned k = 0; k < 20; k++)
		assert_int_equal(put(r, "k", k, 500000, 0), 0);
	assert_int_equal(lease(r, "k", 0, 10, 20000, &n), 20000);
	assert_int_equal(n, 10);
	assert_int_equal(lease(r, "k", 5, 5, 40000, &n), 40000);
	assert_int_equal(lease(r, "k", 5, 5, 1000, &n), 1000);			/* shortens nothing */
	for (unsigned k = 0; k < 100; k++)
		assert_int_equal(put(r, "storm", k, 500000, 0), 0);
	assert_int_equal(lease(r, "k", 0, 20, 0, &n), 0);
	assert_int_equal(n, 10);
	assert_int_equal(r->e->lease.count, 10);
	pass(r, 25000);
	assert_int_equal(r->e->lease.count, 5);
	for (unsigned k = 0; k < 100; k++)
		assert_int_equal(put(r, "more", k, 500000, 0), 0);
	(void)lease(r, "k", 0, 20, 0, &n);
	assert_int_equal(n, 5);
	pass(r, 25000);
	assert_int_equal(r->e->lease.count, 0);
	assert_int_equal(r->e->lease.units, 0);
	for (unsigned k = 0; k < 100; k++)
		assert_int_equal(put(r, "last", k, 500000, 0), 0);
	(void)lease(r, "k", 0, 20, 0, &n);
	assert_int_equal(n, 0);
	rig_destroy(&r);
}

/* Half of the drive at most: the rest is told so, and puts go on. Deleting a leased object ends its lease. */
static void
test_lease_share(void **state)
{
	struct rig *r = up(32 * MIB, MKV_POLICY_LRU);
	unsigned n, reason;

	(void)state;
	for (unsigned k = 0; k < 50; k++)
		assert_int_equal(put(r, "k", k, 500000, 0), 0);
	assert_int_equal(lease(r, "k", 0, 50, 60000, &n), 0);
	assert_in_range(r->e->lease.units, r->e->al.units / 3, r->e->al.units / 2);
	for (unsigned k = 0; k < 100; k++)
		assert_int_equal(put(r, "storm", k, 500000, 0), 0);
	n = r->e->lease.count;
	assert_int_equal(rig_op(r, MKV_DRV_DELETE, "k0", &reason), 0);
	assert_int_equal(r->e->lease.count, n - 1);
	rig_destroy(&r);
}

/* After a crash nothing is evicted until the last lease is over; without leases nobody waits. */
static void
test_lease_survives(void **state)
{
	(void)state;
	for (int leased = 0; leased < 2; leased++) {
		for (int crash = 0; crash < 2; crash++) {
			struct rig *r = up(32 * MIB, MKV_POLICY_FIFO);
			struct mkv_drv_req q;
			unsigned n;

			for (unsigned k = 0; k < 40; k++)
				assert_int_equal(put(r, "k", k, 500000, 0), 0);
			if (leased)
				assert_int_equal(lease(r, "k", 0, 1, 15000, &n), 15000);
			assert_int_equal(rig_close(r, crash), 0);
			if (crash)
				sim_reboot(r->sim, SIM_DROP);
			assert_int_equal(rig_open(r), 0);
			for (unsigned k = 0; k < 40; k++) {
				char key[16];

				snprintf(key, sizeof(key), "n%u", k);
				rig_put_req(r, &q, 0, key, MIB, k);
				q.deadline_ns = r->now_ns + 100 * MKV_NS_PER_MS;
				rig_submit(r, 0, &q);
				assert_true(rig_wait(r, 0)->status == 0 || leased);
				if (leased)
					assert_true(there(r, "k", 0, NULL));
			}
			pass(r, 30000);
			for (unsigned k = 0; k < 60; k++)
				assert_int_equal(put(r, "m", k, 500000, 0), 0);
			assert_false(there(r, "k", 0, NULL));
			rig_destroy(&r);
		}
	}
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_policy_none), cmocka_unit_test(test_pin_share), cmocka_unit_test(test_pin_by_touch),
		cmocka_unit_test(test_pin_of_a_stripe),
		cmocka_unit_test(test_order_survives), cmocka_unit_test(test_not_admitted), cmocka_unit_test(test_watermarks),
		cmocka_unit_test(test_shadows_report), cmocka_unit_test(test_chain_leaves_from_its_end), cmocka_unit_test(test_ahead_of_need),
		cmocka_unit_test(test_expired_leave), cmocka_unit_test(test_pins_of_two_owners), cmocka_unit_test(test_lease), cmocka_unit_test(test_lease_share),
		cmocka_unit_test(test_lease_survives),
	};

	return (cmocka_run_group_tests(tests, NULL, NULL));
}
