/*
 * A checkpoint fits its area: by the numbers for every size of a store, with as many and as large items as there can be, and where the scan meets more than
 * is there at any moment. The index is filled by hand: the objects have neither data nor pages.
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

#define MIB		(1ull << 20)
#define ITEM_BYTES	sizeof(struct mkv_ckpt_item)
#define SIDE_BYTES	(MKV_OBJ_RUNS_MAX * sizeof(struct mkv_run))
#define SET_BYTES	(ITEM_BYTES + sizeof(struct mkv_jset))
#define SLOT_BYTES	(ITEM_BYTES + MKV_DRV_NS_MAX + 1)
#define DEPTH		1024u			/* of requests: so many puts may come above objects_max at once */

_Static_assert(sizeof(struct mkv_jset) <= SIDE_BYTES, "a manifest's item is no larger");

/* No block is filled worse than this: what did not fit is shorter than the largest item. */
static const uint64_t block_bytes = sizeof(((struct mkv_ckpt_block *)0)->data) - (ITEM_BYTES + SIDE_BYTES - 8);

static void
test_numbers(void **state)
{
	char why[256];

	(void)state;
	for (uint64_t objects = 64; objects <= 1u << 30; objects = objects + 1 + objects / 7) {
		struct mkv_layout_want want = { .total_bytes = 1ull << 44, .extent_bytes = 1u << 20, .objects_max = (uint32_t)objects };
		uint64_t linked = objects + DEPTH, sides = (objects + PENDING_MAX + DEPTH) / 8 + 1024;
		struct mkv_sb sb = { 0 };

		assert_int_equal(mkv_layout_plan(&sb, &want, why, sizeof(why)), 0);
		assert_int_equal(sb.objects_max, objects);
		sides = MKV_MIN(sides, linked);
		assert_true(linked * ITEM_BYTES + sides * SIDE_BYTES + SETFREE_MAX * SET_BYTES + 2 * mkv_layout_slots(sb.objects_max) * SLOT_BYTES <=
		    (sb.ckpt_blocks - 2) * block_bytes);
	}
}

static void
add(struct mkv_engine *e, uint64_t n, int multi)
{
	uint32_t i = mkv_index_take(&e->ix), s = MKV_ENT_NIL;

	assert_int_not_equal(i, MKV_ENT_NIL);
	if (multi)
		s = mkv_side_take(&e->ix);
	eng_ent(e, i)->digest = (struct mkv_digest){ .lo = n * 0x9e3779b97f4a7c15ull, .hi = n };
	if (s != MKV_ENT_NIL) {
		eng_ent(e, i)->flags |= MKV_ENT_MULTI;
		eng_ent(e, i)->run = s;
		eng_ent(e, i)->units = e->ix.side[s].n = MKV_OBJ_RUNS_MAX;
	}
	mkv_index_link(&e->ix, i);
}

static struct rig *
up(uint32_t objects)
{
	struct rig *r = rig_create(RIG_SIM, 48 * MIB, 1);

	r->o.objects_max = objects;
	r->o.evict = 0;
	return (eng_opened(r));
}

static void
test_full(void **state)
{
	static const uint32_t sizes[] = { 64, 1024, 20000 };

	(void)state;
	for (unsigned k = 0; k < MKV_ARRAY_LEN(sizes); k++) {
		struct rig *r = up(sizes[k]);
		struct mkv_engine *e = r->e;
		uint64_t id = e->ck.id;

		for (uint64_t n = 0; n < sizes[k] + r->o.queue_depth; n++)
			add(e, n + 1, 1);
		for (unsigned i = 0; i < SETFREE_MAX; i++)
			e->setfree[i].used = 1;
		for (unsigned i = 0; i < e->ns.count; i++) {
			char name[MKV_DRV_NS_MAX + 1];

			snprintf(name, sizeof(name), "%063u", i);
			assert_int_equal(ns_take(e, name, MKV_DRV_NS_MAX), i + 1);
		}
		assert_int_equal(ckpt_run(e), 0);
		assert_true(e->ck.id > id);
		assert_int_equal(e->ck.items, sizes[k] + r->o.queue_depth + SETFREE_MAX + 2 * e->ns.count);
		assert_true(e->ck.blocks <= e->sb.ckpt_blocks - 2);
		rig_destroy(&r);
	}
}

/* The deepest queue that can be configured. */
static void
test_deepest(void **state)
{
	struct rig *r = rig_create(RIG_SIM, 48 * MIB, 1);

	(void)state;
	r->o.queue_depth = 4096;
	r = eng_opened(r);
	assert_int_equal(rig_put(r, "a", 5000, 1, 0), 0);
	rig_destroy(&r);
}

/* What was seen already is written anew behind the scan, more than the area has room for: it begins again. */
static void
test_moving(void **state)
{
	struct rig *r = up(20000);
	struct mkv_engine *e = r->e;
	uint64_t id = e->ck.id;
	uint32_t moved = 0;

	(void)state;
	for (uint64_t n = 0; n < 3000; n++)
		add(e, n + 1, 0);
	e->sb.ckpt_blocks = 2 + 31;		/* 3131 items */
	e->ck.wanted = 1;
	for (unsigned turns = 0; e->ck.id == id && turns < 10000; turns++) {
		if (moved == 0 && e->ck.blocks > 0 && e->ck.state == CK_SCAN) {
			assert_int_equal(journal_room(e, 0, 1), 0);
			(void)journal_append(e, MKV_J_DROP, (struct mkv_digest){ .lo = 1, .hi = 1 }, 0, 0, MKV_REASON_NONE, NULL, 0);
			for (; moved < 1000; moved++) {
				mkv_index_unlink(&e->ix, moved);
				add(e, 10000 + moved, 0);
			}
		}
		rig_turn(r);
		assert_int_equal(r->readonly, 0);
	}
	assert_int_equal(moved, 1000);
	assert_true(e->ck.id > id);
	assert_int_equal(e->ck.items, 3000);
	rig_destroy(&r);
}

/* In order of the queues and of the slab: so many entries a turn, however few of them there is something to say of, and the next turn at once. */
static void
test_turns(void **state)
{
	enum { OBJECTS = 100000 };
	struct rig *r = up(OBJECTS);
	struct mkv_engine *e = r->e;
	uint64_t id = e->ck.id;
	unsigned ranks = 0, scans = 0;

	(void)state;
	for (uint64_t n = 0; n < OBJECTS; n++)
		add(e, n + 1, 0);
	for (uint32_t i = 0; i < 3000; i++)
		mkv_policy_insert(&e->pol, i, MKV_ENT_NIL);
	for (uint32_t i = 3000; i < OBJECTS - 1; i++)
		mkv_index_unlink(&e->ix, i);
	e->ck.wanted = e->ck.hurry = 1;
	for (unsigned turns = 0; e->ck.id == id && turns < 10000; turns++) {
		uint32_t at = e->ck.next_ent;
		uint64_t next = mkv_engine_step(e);

		assert_true(e->ck.state != CK_SCAN || e->ck.next_ent - at <= 10000);
		ranks += e->ck.state == CK_RANK;
		scans += e->ck.state == CK_SCAN && e->ck.ios == 0;
		if (e->ck.state == CK_RANK || (e->ck.state == CK_SCAN && e->ck.ios == 0))
			assert_int_equal(next, 0);
		(void)r->media->ops->pump(r->media, 0);
	}
	assert_true(e->ck.id > id);
	assert_int_equal(e->ck.items, 3001);
	assert_true(ranks >= 2 && scans >= 8);
	rig_destroy(&r);
}

/* Nobody waits for a turn of the loop that has only memory to look at: open and close pump for I/O. */
static void
test_run(void **state)
{
	enum { OBJECTS = 100000 };
	struct rig *r = up(OBJECTS);
	struct mkv_engine *e = r->e;
	uint64_t begin;

	(void)state;
	for (uint64_t n = 0; n < OBJECTS; n++)
		add(e, n + 1, 0);
	for (uint32_t i = 0; i < OBJECTS; i++)
		mkv_policy_insert(&e->pol, i, MKV_ENT_NIL);
	begin = r->now_ns;
	assert_int_equal(ckpt_run(e), 0);
	assert_int_equal(e->ck.items, OBJECTS);
	/* A pump is a tenth of a millisecond here. */
	assert_true((r->now_ns - begin) / (MKV_NS_PER_MS / 10) <= 2 * MKV_DIV_UP(e->ck.blocks, CKPT_CHUNK_BLOCKS) + 16);
	rig_destroy(&r);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_numbers),
		cmocka_unit_test(test_full),
		cmocka_unit_test(test_deepest),
		cmocka_unit_test(test_moving),
		cmocka_unit_test(test_turns),
		cmocka_unit_test(test_run),
	};

	return (cmocka_run_group_tests(tests, NULL, NULL));
}
