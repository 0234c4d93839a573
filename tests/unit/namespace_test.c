/*
 * Namespaces of one drive: who is in which, purging one, what meets a purge, slots that are used again, tables that are full, and recovery of all that.
 */
#include "config.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "common/base/err.h"
#include "tests/unit/engine_up.h"
#include "worker/drive/engine_priv.h"

#define MIB	(1ull << 20)

static void
req_ns(struct mkv_drv_req *q, const char *ns)
{
	q->ns_bytes = (uint16_t)strlen(ns);
	memcpy(q->ns, ns, q->ns_bytes);
}

static void
put_begin(struct rig *r, unsigned slot, const char *ns, const char *key, uint64_t bytes, unsigned flags)
{
	struct mkv_drv_req q;

	rig_put_req(r, &q, slot, key, bytes, 7);
	req_ns(&q, ns);
	q.flags = (uint16_t)flags;
	rig_submit(r, slot, &q);
}

static int
put(struct rig *r, const char *ns, const char *key, uint64_t bytes)
{
	put_begin(r, 0, ns, key, bytes, 0);
	return (rig_wait(r, 0)->status);
}

/* 0 there; else the reason + 1 of the miss. */
static int
missing(struct rig *r, const char *ns, const char *key)
{
	const struct mkv_drv_rep *p;
	struct mkv_drv_req q;

	rig_req(&q, MKV_DRV_STAT, key);
	req_ns(&q, ns);
	rig_submit(r, 0, &q);
	p = rig_wait(r, 0);
	if (p->status == 0)
		return (0);
	assert_int_equal(p->status, MKV_E_MISS);
	return (p->reason + 1);
}

#define DELETED	(MKV_REASON_DELETED + 1)

static uint64_t
objects_of(struct rig *r, const char *ns, uint64_t *bytes)
{
	struct mkv_engine_ns row[MKV_DRV_NS_COUNT_MAX];
	size_t n = mkv_engine_namespaces(r->e, row, MKV_ARRAY_LEN(row));

	for (size_t i = 0; i < n; i++) {
		if (row[i].name_bytes != strlen(ns) || memcmp(row[i].name, ns, row[i].name_bytes) != 0)
			continue;
		if (bytes != NULL)
			*bytes = row[i].bytes;
		return (row[i].objects);
	}
	return (0);
}

/* Every list holds what the index says, and nothing else. */
static void
check_lists(struct rig *r)
{
	struct mkv_engine *e = r->e;
	uint64_t objects = 0, linked = 0, purged = 0;

	for (uint32_t s = 1; s <= e->ns.count; s++) {
		const struct nspace *ns = &e->ns.slot[s];
		uint32_t n = 0, prev = 0;

		for (uint32_t i = ns->first; i != 0; prev = i, i = eng_ent(e, i - 1)->ns_next) {
			assert_int_equal(eng_ent(e, i - 1)->slot, s);
			assert_int_equal(eng_ent(e, i - 1)->ns_prev, prev);
			assert_true(eng_ent(e, i - 1)->flags & MKV_ENT_LINKED);
			n++;
		}
		assert_int_equal(ns->objects, n);
		objects += n;
		purged += ns->purge_seq != 0 ? n : 0;
	}
	for (uint32_t i = 0; i < e->ix.ents_high; i++)
		linked += (eng_ent(e, i)->flags & (MKV_ENT_LINKED | MKV_ENT_PIECE)) == MKV_ENT_LINKED;
	assert_int_equal(objects, linked);
	assert_int_equal(e->ns.purged, purged);
}

static void
turns(struct rig *r, unsigned n)
{
	while (n-- > 0)
		rig_turn(r);
}

static void
crash(struct rig *r)
{
	(void)rig_close(r, 1);
	if (r->sim != NULL)
		sim_reboot(r->sim, SIM_DROP);
	r->dead = 0;
	assert_int_equal(rig_open(r), 0);
	check_lists(r);
}

static void
test_purge(void **state)
{
	struct rig *r = eng_up(RIG_SIM, 48 * MIB);
	uint64_t used, bytes = 0;
	char key[32];

	(void)state;
	assert_int_equal(put(r, "", "keep", 5000), 0);
	assert_int_equal(put(r, "other", "keep2", 5000), 0);
	turns(r, 300);
	used = r->e->al.free_units;
	for (int i = 0; i < 400; i++) {
		snprintf(key, sizeof(key), "k%d", i);
		assert_int_equal(put(r, "team", key, 10000), 0);
	}
	assert_int_equal(objects_of(r, "team", &bytes), 400);
	assert_int_equal(bytes, 400 * 3 * 4096);
	assert_int_equal(objects_of(r, "", NULL), 1);
	check_lists(r);
	assert_int_equal(rig_purge(r, "team"), 0);
	assert_int_equal(r->purged_objects, 400);
	/* All at once misses, though not one of them has left the index or the first 256 at most. */
	for (int i = 0; i < 400; i += 57) {
		snprintf(key, sizeof(key), "k%d", i);
		assert_int_equal(missing(r, "team", key), DELETED);
	}
	turns(r, 10);
	check_lists(r);
	assert_int_equal(r->e->ns.purged, 0);
	assert_int_equal(r->e->al.free_units, used);
	assert_int_equal(objects_of(r, "team", NULL), 0);
	assert_int_equal(missing(r, "", "keep"), 0);
	assert_int_equal(missing(r, "other", "keep2"), 0);
	/* Again, and of nothing: done. */
	assert_int_equal(rig_purge(r, "team"), 0);
	assert_int_equal(rig_purge(r, "never"), 0);
	assert_int_equal(r->purged_objects, 0);
	assert_int_equal(put(r, "team", "k1", 10000), 0);
	assert_int_equal(rig_purge(r, ""), 0);
	assert_int_equal(missing(r, "", "keep"), DELETED);
	assert_int_equal(missing(r, "team", "k1"), 0);
	crash(r);
	assert_int_equal(missing(r, "team", "k1"), 0);
	assert_int_equal(missing(r, "team", "k2"), DELETED);
	assert_int_equal(missing(r, "other", "keep2"), 0);
	assert_int_equal(missing(r, "", "keep"), DELETED);
	rig_destroy(&r);
}

/* Until the answer nothing is gone for good; after a crash it is all or nothing. */
static void
test_not_durable(void **state)
{
	struct rig *r = eng_up(RIG_SIM, 48 * MIB);

	(void)state;
	assert_int_equal(put(r, "a", "1", 5000), 0);
	assert_int_equal(put(r, "a", "2", 5000), 0);
	mkv_engine_purge(r->e, 1, "a", 1);
	(void)mkv_engine_step(r->e);
	assert_int_equal(r->purged_id, 0);
	crash(r);
	assert_int_equal(missing(r, "a", "1"), 0);
	assert_int_equal(missing(r, "a", "2"), 0);
	rig_destroy(&r);
}

/* A put whose record is before the purge's is purged, one behind it stays; both may be under way at the same moment. */
static void
test_put_meets_purge(void **state)
{
	struct rig *r = eng_up(RIG_SIM, 48 * MIB);

	(void)state;
	assert_int_equal(put(r, "a", "old", 5000), 0);
	put_begin(r, 1, "a", "before", 5000, 0);
	for (int i = 0; i < 1000 && r->e->ns.slot[1].coming == 0; i++)
		rig_turn(r);
	assert_int_equal(r->e->ns.slot[1].coming, 1);
	mkv_engine_purge(r->e, 1, "a", 1);
	while (r->e->ns.slot[1].purge_seq == 0)
		(void)mkv_engine_step(r->e);
	assert_int_equal(r->purged_id, 0);
	put_begin(r, 2, "a", "behind", 5000, 0);
	assert_int_equal(rig_wait(r, 1)->status, 0);
	assert_int_equal(rig_wait(r, 2)->status, 0);
	for (int i = 0; i < 1000 && r->purged_id == 0; i++)
		rig_turn(r);
	assert_int_equal(r->purged_id, 1);
	for (int again = 0; again < 2; again++) {
		assert_int_equal(missing(r, "a", "old"), DELETED);
		assert_int_equal(missing(r, "a", "before"), DELETED);
		assert_int_equal(missing(r, "a", "behind"), 0);
		crash(r);
	}
	rig_destroy(&r);
}

/* The same bytes again are no touch of an object that is being purged: the put would be lost with it. */
static void
test_same_meets_purge(void **state)
{
	struct rig *r = eng_up(RIG_SIM, 48 * MIB);

	(void)state;
	put_begin(r, 1, "a", "k", 5000, MKV_DRV_F_VERIFIED);
	assert_int_equal(rig_wait(r, 1)->status, 0);
	put_begin(r, 1, "a", "k", 5000, MKV_DRV_F_VERIFIED);
	assert_int_equal(rig_wait(r, 1)->status, 0);
	assert_int_equal(r->slot[1].rep.same, 1);
	mkv_engine_purge(r->e, 1, "a", 1);
	while (r->e->ns.slot[1].purge_seq == 0)
		(void)mkv_engine_step(r->e);
	assert_int_equal(r->purged_id, 0);
	put_begin(r, 1, "a", "k", 5000, MKV_DRV_F_VERIFIED);
	assert_int_equal(rig_wait(r, 1)->status, 0);
	assert_int_equal(r->slot[1].rep.same, 0);
	for (int i = 0; i < 1000 && r->purged_id == 0; i++)
		rig_turn(r);
	assert_int_equal(missing(r, "a", "k"), 0);
	crash(r);
	assert_int_equal(missing(r, "a", "k"), 0);
	rig_destroy(&r);
}

/* Checkpoints in every state of it: before, between purge and reaping, after the slot has another name. */
static void
test_checkpoints(void **state)
{
	struct rig *r = eng_up(RIG_SIM, 48 * MIB);

	(void)state;
	for (int i = 0; i < 600; i++) {
		char key[32];

		snprintf(key, sizeof(key), "k%d", i);
		assert_int_equal(put(r, i % 2 ? "odd" : "even", key, 4096), 0);
	}
	assert_int_equal(ckpt_run(r->e), 0);
	crash(r);
	assert_int_equal(objects_of(r, "odd", NULL), 300);
	assert_int_equal(objects_of(r, "even", NULL), 300);
	assert_int_equal(rig_purge(r, "odd"), 0);
	assert_true(r->e->ns.purged > 0);
	r->e->ck.wanted = 1;
	(void)mkv_engine_step(r->e);
	assert_int_equal(ckpt_run(r->e), 0);
	crash(r);
	assert_int_equal(objects_of(r, "odd", NULL), 0);
	assert_int_equal(objects_of(r, "even", NULL), 300);
	assert_int_not_equal(missing(r, "odd", "k1"), 0);
	assert_int_equal(rig_purge(r, "even"), 0);
	turns(r, 20);
	assert_int_equal(put(r, "third", "k0", 4096), 0);
	assert_int_equal(rig_close(r, 0), 0);
	assert_int_equal(rig_open(r), 0);
	check_lists(r);
	assert_int_equal(objects_of(r, "even", NULL), 0);
	assert_int_equal(objects_of(r, "third", NULL), 1);
	rig_destroy(&r);
}

/*
 * While the index is written out, a slot keeps its name though it is empty: what the scan saw in it would pass for another namespace's, and the purge that
 * replay meets would not find it.
 */
static void
test_scan(void **state)
{
	struct rig *r = rig_create(RIG_SIM, 48 * MIB, 1);
	struct mkv_engine *e;
	char key[32];
	uint64_t id;
	int err;

	(void)state;
	r->o.objects_max = 20000;
	r = eng_opened(r);
	e = r->e;
	for (int i = 0; i < 3000; i++) {
		snprintf(key, sizeof(key), "k%d", i);
		put_begin(r, 0, "a", key, 0, MKV_DRV_F_ACCEPTED);
		assert_int_equal(rig_wait(r, 0)->status, 0);
	}
	for (uint32_t i = 1; i < e->ns.count; i++) {
		snprintf(key, sizeof(key), "fill%u", i);
		assert_int_not_equal(ns_take(e, key, strlen(key)), 0);
		e->ns.slot[i + 1].coming = 1;
	}
	mkv_engine_sync(e);
	id = e->ck.id;
	e->ck.wanted = 1;
	for (int i = 0; i < 10000 && (e->ck.state != CK_SCAN || e->ck.blocks == 0); i++)
		rig_turn(r);
	assert_int_equal(e->ck.state, CK_SCAN);
	assert_true(e->ck.next_ent > 0);
	mkv_engine_purge(e, 9, "a", 1);
	/* The purge is durable and all is reaped before the scan ends; the table is full. */
	for (int i = 0; i < 100 && e->ck.state == CK_SCAN && (r->purged_id != 9 || e->ns.purged > 0); i++) {
		e->ck.ios++;			/* the scan stands still */
		rig_turn(r);
		e->ck.ios--;
	}
	assert_int_equal(e->ns.purged, 0);
	assert_int_equal(e->ck.state, CK_SCAN);
	assert_int_equal(ns_take(e, "b", 1), 0);
	err = put(r, "b", "kb", 4096);
	assert_true(err == MKV_E_BUSY || (err == 0 && e->ck.id != id));
	for (int i = 0; i < 10000 && e->ck.id == id; i++)
		rig_turn(r);
	assert_int_equal(put(r, "b", "kb", 4096), 0);
	rig_close(r, 1);
	sim_reboot(r->sim, SIM_DROP);
	assert_int_equal(rig_open(r), 0);
	check_lists(r);
	assert_int_equal(objects_of(r, "a", NULL), 0);
	assert_int_equal(objects_of(r, "b", NULL), 1);
	rig_destroy(&r);
}

/* Names come and go for ever; only so many at one time. */
static void
test_table(void **state)
{
	struct rig *r = rig_create(RIG_SIM, 48 * MIB, 1);
	uint32_t count;
	char ns[80];
	int err = 0;

	(void)state;
	r->o.objects_max = 1024;
	r = eng_opened(r);
	count = r->e->ns.count;
	assert_int_equal(count, 64);
	for (uint32_t i = 0; i < count; i++) {
		snprintf(ns, sizeof(ns), "%063u", i);
		assert_int_equal(put(r, ns, ns, 4096), 0);
	}
	assert_int_equal(put(r, "more", "more", 4096), MKV_E_BUSY);
	snprintf(ns, sizeof(ns), "%063u", 5);
	assert_int_equal(put(r, ns, "another", 4096), 0);
	crash(r);
	assert_int_equal(put(r, "more", "more", 4096), MKV_E_BUSY);
	for (int i = 0; i < 300; i++) {
		assert_int_equal(rig_purge(r, ns), 0);
		turns(r, 2);
		snprintf(ns, sizeof(ns), "name %d", i);
		/* While a checkpoint is written no name goes. */
		for (int t = 0; t < 1000 && (err = put(r, ns, ns, 4096)) == MKV_E_BUSY; t++)
			rig_turn(r);
		assert_int_equal(err, 0);
		assert_int_equal(rig_purge(r, "name 3"), 0);
	}
	crash(r);
	assert_int_equal(objects_of(r, ns, NULL), 1);
	assert_int_not_equal(missing(r, "name 3", "name 3"), 0);
	assert_int_equal(objects_of(r, "name 7", NULL), 0);
	rig_destroy(&r);
}

/* Replay meets more objects than the index has room for, because those of purged namespaces leave it late. */
static void
test_replay_full(void **state)
{
	struct rig *r = rig_create(RIG_SIM, 48 * MIB, 1);
	char key[32];
	int held = 0;

	(void)state;
	r->o.objects_max = 1024;
	r->o.evict = 0;
	r->o.journal_bytes = 8 * MIB;
	r = eng_opened(r);
	for (int i = 0; i < 900 * 20; i++) {
		if (i > 0 && i % 900 == 0)
			assert_int_equal(rig_purge(r, "a"), 0);
		if (!held && r->e->ck.state == CK_SCAN) {
			r->e->ck.ios++;			/* it never ends, so all is in the journal */
			held = 1;
		}
		snprintf(key, sizeof(key), "k%d", i);
		put_begin(r, 0, "a", key, 0, MKV_DRV_F_ACCEPTED);
		assert_int_equal(rig_wait(r, 0)->status, 0);
	}
	mkv_engine_sync(r->e);
	for (int i = 0; i < 1000 && r->e->jn.flushed < r->e->jn.last_record; i++)
		rig_turn(r);
	r->e->ck.ios -= (unsigned)held;
	crash(r);
	assert_int_equal(objects_of(r, "a", NULL), 900);
	for (int i = 900 * 19; i < 900 * 20; i++) {
		snprintf(key, sizeof(key), "k%d", i);
		assert_int_equal(missing(r, "a", key), 0);
	}
	rig_destroy(&r);
}

/* The space of a purge is due: nobody is evicted for a put that waits for it, and pins and leases do not keep what is purged. */
static void
test_space(void **state)
{
	struct rig *r = rig_create(RIG_SIM, 24 * MIB, 1);
	char key[32];
	int n = 0;

	(void)state;
	r->o.evict = 0;
	r = eng_opened(r);
	for (int i = 0; i < 8; i++) {
		snprintf(key, sizeof(key), "keep%d", i);
		assert_int_equal(put(r, "keep", key, 65536), 0);
	}
	do {
		snprintf(key, sizeof(key), "k%d", n++);
		put_begin(r, 0, "big", key, 65536, n % 3 ? 0 : MKV_DRV_F_PIN);
	} while (rig_wait(r, 0)->status == 0);
	assert_int_equal(r->slot[0].rep.status, MKV_E_NOSPACE);
	r->o.evict = 1;
	r->o.evict_high_pct = 100;
	r->o.evict_low_pct = 99;
	mkv_engine_tune(r->e, &r->o);
	mkv_engine_purge(r->e, 1, "big", 3);
	for (int i = 0; i < 16; i++) {
		snprintf(key, sizeof(key), "new%d", i);
		put_begin(r, 1 + (unsigned)i, "new", key, 65536, MKV_DRV_F_PIN);
	}
	for (int i = 0; i < 16; i++)
		assert_int_equal(rig_wait(r, 1 + (unsigned)i)->status, 0);
	for (int i = 0; i < 8; i++) {
		snprintf(key, sizeof(key), "keep%d", i);
		assert_int_equal(missing(r, "keep", key), 0);
	}
	turns(r, 100);
	check_lists(r);
	assert_int_equal(objects_of(r, "big", NULL), 0);
	assert_int_equal(r->e->pin_units, 16 * 16);
	rig_destroy(&r);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_purge),
		cmocka_unit_test(test_not_durable),
		cmocka_unit_test(test_put_meets_purge),
		cmocka_unit_test(test_same_meets_purge),
		cmocka_unit_test(test_checkpoints),
		cmocka_unit_test(test_scan),
		cmocka_unit_test(test_table),
		cmocka_unit_test(test_replay_full),
		cmocka_unit_test(test_space),
	};

	return (cmocka_run_group_tests(tests, NULL, NULL));
}
