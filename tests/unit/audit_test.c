/*
 * Pieces that nobody will name, and messages that were lost: what the audit of pieces (worker/drive/audit.c) does about them.
 */
#include "config.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "common/base/err.h"
#include "tests/unit/sets_up.h"
#include "worker/drive/engine_priv.h"

/* While its front lives and its time is not over a set stays; then its pieces go, also those beyond the first question. */
static void
test_open_set(void **state)
{
	struct rig *r = up();
	struct mkv_set_id set, late;

	(void)state;
	set = set_new(r, 0);
	put_pieces(r, set, 0, 3);
	put_pieces(r, set, 1022, 1030);
	late = set_new(r, r->now_ns + 100 * MKV_NS_PER_SEC);
	put_pieces(r, late, 0, 1);
	turns(r, 90);
	assert_int_equal(used(r), 12 * 8192);
	turns(r, 90);
	turns(r, 60);
	assert_int_equal(used(r), 11 * 8192);
	assert_int_equal(put_manifest(r, late, "late", 1, 0, 0), MKV_E_BUSY);
	mkv_engine_client_gone(r->e, 0);
	turns(r, 61);
	turns(r, 61);
	assert_int_equal(used(r), 0);
	rig_destroy(&r);
}

/* The home was started again: what it gave out before is void, what it has durably is not. */
static void
test_restart(void **state)
{
	struct rig *r = up();
	struct mkv_set_id set, whole;

	(void)state;
	whole = set_new(r, 0);
	put_pieces(r, whole, 0, 2);
	assert_int_equal(put_manifest(r, whole, "whole", 2, 0, 0), 0);
	set = set_new(r, 0);
	put_pieces(r, set, 0, 3);
	assert_int_equal(rig_close(r, 1), 0);
	sim_reboot(r->sim, SIM_KEEP);
	assert_int_equal(rig_open(r), 0);
	assert_int_equal(put_manifest(r, set, "v", 3, 0, 0), MKV_E_BUSY);
	turns(r, 3);
	assert_int_equal(used(r), 2 * 8192);
	/* A manifest that comes twice frees nothing. */
	assert_int_equal(put_manifest(r, whole, "whole", 2, 0, 0), 0);
	turns(r, 100);
	assert_int_equal(used(r), 2 * 8192);
	rig_destroy(&r);
}

/* Pieces of a home elsewhere: silence keeps them, its answers decide, its removal frees them. */
static void
test_foreign_home(void **state)
{
	struct rig *r = up();
	struct mkv_set_id a = { 7, 0 }, b = { 8, 0 }, c = { 9, 0 };
	uint8_t uuid[16] = { 42 };
	unsigned from;

	(void)state;
	a.hi = b.hi = c.hi = 0x1234;
	mkv_engine_home_removed(r->e, uuid);		/* of another */
	put_pieces(r, a, 0, 2);
	put_pieces(r, b, 0, 2);
	put_pieces(r, c, 0, 2);
	from = r->peers;
	turns(r, 61);
	assert_non_null(said(r, from, MKV_DRV_SET_ASK));
	assert_int_equal(said(r, from, MKV_DRV_SET_ASK)->arg[3], 0);
	turns(r, 200);
	assert_int_equal(used(r), 6 * 8192);
	hear(r, MKV_DRV_SET_COMMITTED, a, 2, 0);
	hear(r, MKV_DRV_SET_FREE, b, 1024, 0);
	turns(r, 1);
	assert_int_equal(used(r), 4 * 8192);
	hear(r, MKV_DRV_SET_COMMITTED, c, 2, 0);
	from = r->peers;
	turns(r, 61);
	assert_null(said(r, from, MKV_DRV_SET_ASK));	/* all are known */
	hear(r, MKV_DRV_SET_AUDIT, (struct mkv_set_id){ 0, 0 }, 0, 0);
	turns(r, 5);
	assert_non_null(said(r, from, MKV_DRV_SET_ASK));
	assert_int_equal(said(r, from, MKV_DRV_SET_ASK)->arg[3], 1);
	assert_int_equal(used(r), 4 * 8192);
	hear(r, MKV_DRV_SET_FREE, c, 1024, 0);
	turns(r, 1);
	assert_int_equal(used(r), 2 * 8192);
	rig_destroy(&r);
}

static void
test_removed_home(void **state)
{
	struct rig *r = up();
	uint8_t uuid[16] = { 42 }, other[16] = { 43 };
	struct mkv_set_id a = { 7, mkv_block_tag(uuid) }, b = { 8, mkv_block_tag(other) };

	(void)state;
	put_pieces(r, a, 0, 2);
	put_pieces(r, b, 0, 3);
	mkv_engine_home_removed(r->e, uuid);
	turns(r, 5);
	assert_int_equal(used(r), 3 * 8192);
	rig_destroy(&r);
}

/* Added again it is a home like any: what it has put since stays, and what is left of its former life is for it to say. Then it may be removed once more. */
static void
test_removed_home_comes_back(void **state)
{
	struct rig *r = up();
	uint8_t uuid[16] = { 42 }, other[16] = { 43 };
	struct mkv_set_id a = { 7, mkv_block_tag(uuid) }, b = { 8, mkv_block_tag(other) };
	unsigned from;

	(void)state;
	mkv_engine_home_removed(r->e, other);
	mkv_engine_home_removed(r->e, uuid);
	turns(r, 5);
	put_pieces(r, a, 0, 2);
	put_pieces(r, b, 0, 3);
	from = r->peers;
	mkv_engine_home_back(r->e, uuid);
	turns(r, 5);
	assert_int_equal(used(r), 2 * 8192);
	assert_non_null(said(r, from, MKV_DRV_SET_ASK));
	assert_int_equal(said(r, from, MKV_DRV_SET_ASK)->arg[1], a.hi);
	mkv_engine_home_removed(r->e, uuid);
	turns(r, 5);
	assert_int_equal(used(r), 0);
	rig_destroy(&r);
}

/* No more are remembered than there can be drives: of those that were removed the last. */
static void
test_many_removed_homes(void **state)
{
	struct rig *r = up();
	uint8_t uuid[16] = { 0 };

	(void)state;
	for (unsigned i = 0; i <= 64; i++) {
		uuid[0] = (uint8_t)i;
		put_pieces(r, (struct mkv_set_id){ i + 1, mkv_block_tag(uuid) }, 0, 1);
	}
	for (unsigned i = 0; i <= 64; i++) {
		uuid[0] = (uint8_t)i;
		mkv_engine_home_removed(r->e, uuid);
	}
	turns(r, 5);
	assert_int_equal(used(r), 8192);		/* the first one's */
	rig_destroy(&r);
}

/* At the home: SET_COMMITTED that was lost is said again; not before it is true for good; what is gone is free; what is going is left to it. */
static void
test_home_answers(void **state)
{
	struct rig *r = up();
	struct mkv_set_id set = set_new(r, 0), open = set_new(r, 0), no = { 1, 0 };
	unsigned from;

	(void)state;
	from = r->peers;
	assert_int_equal(put_manifest(r, set, "v", 4, 5, MKV_DRV_F_ACCEPTED), 0);
	assert_null(said(r, from, MKV_DRV_SET_COMMITTED));
	turns(r, 3);
	assert_non_null(said(r, from, MKV_DRV_SET_COMMITTED));
	from = r->peers;
	hear(r, MKV_DRV_SET_ASK, set, 1024, 0);
	assert_int_equal(said(r, from, MKV_DRV_SET_COMMITTED)->arg[2], 4);
	from = r->peers;
	hear(r, MKV_DRV_SET_ASK, set, 1024, 1);
	hear(r, MKV_DRV_SET_ASK, open, 1024, 0);
	hear(r, MKV_DRV_SET_ASK, no, 1024, 0);		/* of another home */
	assert_int_equal(r->peers, from);
	assert_int_equal(rig_op(r, MKV_DRV_DELETE, "v", NULL), 0);
	turns(r, 2);
	from = r->peers;
	hear(r, MKV_DRV_SET_FREED, set, 0, 0);
	hear(r, MKV_DRV_SET_ASK, set, 1024, 1);
	assert_non_null(said(r, from, MKV_DRV_SET_FREE));
	rig_destroy(&r);
}

static struct mkv_set_id
put_value(struct rig *r, const char *key, uint32_t pieces)
{
	struct mkv_set_id set = set_new(r, 0);

	put_pieces(r, set, 0, pieces);
	assert_int_equal(put_manifest(r, set, key, pieces, 0, 0), 0);
	return (set);
}

/* Who reads a value keeps its pieces, whatever becomes of the key: until its release, or its end. Audits do not free them either. */
static void
test_reader(void **state)
{
	struct rig *r = up();
	struct mkv_set_id a;
	uint64_t hold, other;

	(void)state;
	a = put_value(r, "v", 2);
	assert_int_equal(get_hold(r, "v", &hold), 0);
	assert_int_equal(get_hold(r, "v", &other), 0);
	assert_true(hold != 0 && other != 0 && hold != other);
	put_value(r, "v", 3);
	turns(r, 200);
	hear(r, MKV_DRV_SET_AUDIT, (struct mkv_set_id){ 0, 0 }, 0, 0);
	turns(r, 5);
	hear(r, MKV_DRV_SET_ASK, a, 1024, 1);
	turns(r, 5);
	assert_int_equal(used(r), 5 * 8192);
	mkv_engine_release(r->e, 0, hold, 0);
	turns(r, 5);
	assert_int_equal(used(r), 5 * 8192);
	mkv_engine_release(r->e, 0, other, 0);
	turns(r, 5);
	assert_int_equal(used(r), 3 * 8192);
	assert_int_equal(get_hold(r, "v", &hold), 0);
	assert_int_equal(rig_op(r, MKV_DRV_DELETE, "v", NULL), 0);
	turns(r, 5);
	assert_int_equal(used(r), 3 * 8192);
	mkv_engine_client_gone(r->e, 0);
	turns(r, 5);
	assert_int_equal(used(r), 0);
	rig_destroy(&r);
}

/* More readers than can be counted: they read all the same, and what is replaced under them is freed. A restart knows no readers. */
static void
test_readers_many(void **state)
{
	struct rig *r = up();
	uint64_t hold, last = 0;
	unsigned held = 0;

	(void)state;
	put_value(r, "v", 1);
	for (unsigned i = 0; i < 1100; i++) {
		assert_int_equal(get_hold(r, "v", &hold), 0);
		held += hold != 0;
		last = hold != 0 ? hold : last;
	}
	assert_true(held >= 256 && held < 1024);
	mkv_engine_release(r->e, 0, last, 0);
	assert_int_equal(get_hold(r, "v", &hold), 0);
	assert_true(hold != 0);
	assert_int_equal(rig_op(r, MKV_DRV_DELETE, "v", NULL), 0);
	assert_int_equal(rig_close(r, 1), 0);
	sim_reboot(r->sim, SIM_KEEP);
	assert_int_equal(rig_open(r), 0);
	turns(r, 5);
	assert_int_equal(used(r), 0);
	rig_destroy(&r);
}

/*
 * A start that begins with a checkpoint, for it met damage: nobody asks for pieces meanwhile, or the answer of this very drive would come before its books
 * are open (it counted a provisional piece that was none any more).
 */
static void
test_damaged_start(void **state)
{
	struct rig *r = up();
	struct mkv_set_id set;
	const struct mkv_sb *sb = (const void *)(r->sim->now + MKV_SB_OFF_A);
	uint64_t at;

	(void)state;
	at = mkv_sb_journal_at(sb, r->e->jn.next_seq);
	assert_int_equal(rig_put(r, "damaged", 5000, 1, 0), 0);
	set = set_new(r, UINT64_MAX);
	put_pieces(r, set, 0, 3);
	assert_int_equal(put_manifest(r, set, "v", 3, r->o.drive_idx, 0), 0);
	assert_int_equal(rig_close(r, 1), 0);		/* what the pieces heard is in no durable block */
	sim_reboot(r->sim, SIM_DROP);
	r->sim->now[at + 100] ^= 1;
	r->sim->durable[at + 100] ^= 1;
	assert_int_equal(rig_open(r), 0);
	assert_int_equal(r->e->rec.damaged_blocks, 1);
	assert_int_equal(r->e->pieces, 3);
	turns(r, 4);
	assert_int_equal(r->e->provisional, 0);
	rig_destroy(&r);
}

/* A put that takes longer than its first deadline: its front says so, and the set stays open. Not once it is over. */
static void
test_renewed_set(void **state)
{
	struct rig *r = up();
	struct mkv_set_id set = set_new(r, r->now_ns + 20 * MKV_NS_PER_SEC), late = set_new(r, r->now_ns + 20 * MKV_NS_PER_SEC);
	struct mkv_drv_req q;

	(void)state;
	put_pieces(r, set, 0, 3);
	turns(r, 25);
	rig_req(&q, MKV_DRV_SET_NEW, "v");
	q.set = set;
	q.deadline_ns = r->now_ns + 1000 * MKV_NS_PER_SEC;
	rig_submit(r, 0, &q);
	assert_int_equal(rig_wait(r, 0)->status, 0);
	turns(r, 100);
	assert_int_equal(used(r), 3 * 8192);
	assert_int_equal(put_manifest(r, set, "v", 3, 0, 0), 0);
	q.set = late;
	q.deadline_ns = r->now_ns + 1000 * MKV_NS_PER_SEC;
	rig_submit(r, 0, &q);
	assert_int_equal(rig_wait(r, 0)->status, MKV_E_BUSY);
	assert_int_equal(put_manifest(r, late, "late", 3, 0, 0), MKV_E_BUSY);
	turns(r, 100);
	assert_int_equal(used(r), 3 * 8192);
	rig_destroy(&r);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_open_set), cmocka_unit_test(test_renewed_set), cmocka_unit_test(test_damaged_start), cmocka_unit_test(test_restart), cmocka_unit_test(test_foreign_home),
		cmocka_unit_test(test_removed_home), cmocka_unit_test(test_removed_home_comes_back), cmocka_unit_test(test_many_removed_homes),
		cmocka_unit_test(test_home_answers),
		cmocka_unit_test(test_reader), cmocka_unit_test(test_readers_many),
	};

	return (cmocka_run_group_tests(tests, NULL, NULL));
}
