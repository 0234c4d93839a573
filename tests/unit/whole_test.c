/*
 * Values of which pieces are gone: the home finds out, and they become misses (worker/drive/whole.c). Drive 5 has the pieces that are not here.
 */
#include "config.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "common/base/place.h"
#include "tests/unit/sets_up.h"

/* Pieces 0 and 1 here, the others at drive 5. */
static struct mkv_set_id
put_striped(struct rig *r, const char *key, uint32_t pieces)
{
	struct mkv_set_id set = set_new(r, 0);
	struct mkv_drv_req q;

	put_pieces(r, set, 0, 2);
	rig_req(&q, MKV_DRV_PUT, key);
	q.flags = MKV_DRV_F_MANIFEST;
	q.set = set;
	q.value_bytes = (uint64_t)pieces * 5000;
	q.piece_count = pieces;
	q.piece_bytes = 5000;
	q.n_stripe = 2;
	q.stripe[0] = 5;
	rig_submit(r, 0, &q);
	assert_int_equal(rig_wait(r, 0)->status, 0);
	return (set);
}

static void
again(struct rig *r, int orderly)
{
	assert_int_equal(rig_close(r, !orderly), 0);
	if (!orderly)
		sim_reboot(r->sim, SIM_KEEP);
	assert_int_equal(rig_open(r), 0);
}

static unsigned
there(struct rig *r, const char *key)
{
	unsigned reason;
	int status = rig_op(r, MKV_DRV_STAT, key, &reason);

	assert_true(status == 0 || status == MKV_E_MISS);
	return (status == 0 ? 0 : reason);
}

static void
seen(struct rig *r, struct mkv_set_id set, uint32_t first, uint64_t bits)
{
	struct mkv_desc d = { .op = MKV_DRV_SET_SEEN, .arg = { set.lo, set.hi, first, bits } };

	mkv_engine_peer(r->e, 5, &d);
	for (int i = 0; i < 200; i++)
		rig_turn(r);
}

/* Everything was there: nothing happens. One piece is not: a miss with its reason, the others are freed, and so it stays. */
static void
test_start(void **state)
{
	struct rig *r = up();
	struct mkv_set_id set = put_striped(r, "v", 4);
	const struct mkv_desc *d;
	unsigned from;

	(void)state;
	from = r->peers;
	again(r, 1);
	turns(r, 2);
	d = said(r, from, MKV_DRV_SET_LOOK);
	assert_non_null(d);
	assert_true(d->arg[0] == set.lo && d->arg[1] == set.hi && d->arg[2] == 0 && d->arg[3] == 4);
	assert_null(said(r, from, MKV_DRV_SET_LOST));
	seen(r, set, 0, 12);
	from = r->peers;
	turns(r, 200);
	assert_null(said(r, from, MKV_DRV_SET_LOOK));
	assert_int_equal(there(r, "v"), 0);
	again(r, 1);
	turns(r, 2);
	seen(r, set, 0, 4);
	assert_int_equal(there(r, "v"), MKV_REASON_LOST);
	turns(r, 5);
	assert_int_equal(used(r), 0);
	again(r, 0);
	assert_int_equal(there(r, "v") == 0, 0);
	rig_destroy(&r);
}

/* Who is silent is asked again, later, and decides nothing. */
static void
test_silence(void **state)
{
	struct rig *r = up();
	struct mkv_set_id set = put_striped(r, "v", 3);
	unsigned from;

	(void)state;
	again(r, 1);
	turns(r, 8);
	turns(r, 8);
	from = r->peers;
	turns(r, 20);
	assert_null(said(r, from, MKV_DRV_SET_LOOK));
	assert_int_equal(there(r, "v"), 0);
	turns(r, 61);
	assert_non_null(said(r, from, MKV_DRV_SET_LOOK));
	seen(r, set, 64, 0);			/* not what was asked for */
	seen(r, (struct mkv_set_id){ 1, 2 }, 0, 0);
	assert_int_equal(there(r, "v"), 0);
	rig_destroy(&r);
}

/* A reader that missed a piece says so; 64 pieces at a time. */
static void
test_reader(void **state)
{
	struct rig *r = up();
	struct mkv_set_id set;
	const struct mkv_desc *d;
	uint64_t hold;
	unsigned from;

	(void)state;
	turns(r, 2);
	set = put_striped(r, "v", 70);
	from = r->peers;
	assert_int_equal(get_hold(r, "v", &hold), 0);
	mkv_engine_release(r->e, 0, hold, 0);
	turns(r, 1);
	assert_null(said(r, from, MKV_DRV_SET_LOOK));
	assert_int_equal(get_hold(r, "v", &hold), 0);
	mkv_engine_release(r->e, 0, hold, MKV_DRV_RELEASE_SHORT);
	turns(r, 1);
	assert_int_equal(said(r, from, MKV_DRV_SET_LOOK)->arg[3], 64);
	seen(r, set, 0, UINT64_MAX << 2);
	d = said(r, from, MKV_DRV_SET_LOOK);
	assert_true(d->arg[2] == 64 && d->arg[3] == 6);
	seen(r, set, 64, 0x2f);
	assert_int_equal(there(r, "v"), MKV_REASON_LOST);
	rig_destroy(&r);
}

/* Two drives: this one, and the one with number 5, in a state. */
static struct mkv_map
map_with(struct rig *r, uint64_t version, unsigned state)
{
	struct mkv_map m = { .version = version, .n = 6 };
	struct mkv_engine_info info;

	mkv_engine_info(r->e, &info);
	for (unsigned i = 0; i < 6; i += 5) {
		memset(m.row[i].uuid, (int)i, 16);
		m.row[i].known = 1;
		m.row[i].state = i == 0 ? MKV_DRIVE_ONLINE : (uint8_t)state;
		m.row[i].weight = m.row[i].former = i == 0 ? 100 : 1e-12;
	}
	memcpy(m.row[0].uuid, info.uuid, 16);
	return (m);
}

/* What lies on a drive that is away may come back; on one that was removed it does not, and nobody waits for its word. */
static void
test_states(void **state)
{
	struct rig *r = up();
	struct mkv_map m = map_with(r, 1, MKV_DRIVE_ONLINE);
	unsigned from;

	(void)state;
	put_striped(r, "v", 3);
	mkv_engine_map(r->e, &m);
	turns(r, 1);
	m = map_with(r, 2, MKV_DRIVE_FAILED);
	mkv_engine_map(r->e, &m);
	turns(r, 20);
	from = r->peers;
	turns(r, 100);
	assert_null(said(r, from, MKV_DRV_SET_LOOK));
	assert_int_equal(there(r, "v"), 0);
	m = map_with(r, 3, MKV_DRIVE_ONLINE);	/* it came back */
	mkv_engine_map(r->e, &m);
	turns(r, 2);
	assert_non_null(said(r, from, MKV_DRV_SET_LOOK));
	turns(r, 20);
	m = map_with(r, 4, MKV_DRIVE_REMOVED);
	mkv_engine_map(r->e, &m);
	turns(r, 2);
	assert_int_equal(there(r, "v"), MKV_REASON_LOST);
	turns(r, 5);
	assert_int_equal(used(r), 0);
	from = r->peers;
	turns(r, 10);
	assert_null(said(r, from, MKV_DRV_SET_FREE));
	rig_destroy(&r);
}

/* As one of the others: it says which pieces it has, and that some may be gone. */
static void
test_other(void **state)
{
	struct rig *r = up();
	struct mkv_set_id set = { 7, 0x1234 };
	struct mkv_desc d = { .op = MKV_DRV_SET_LOOK, .arg = { 7, 0x1234, 64, 10 } };
	struct mkv_drv_req q;
	unsigned from;

	(void)state;
	put_pieces(r, set, 1, 2);
	put_pieces(r, set, 66, 68);
	from = r->peers;
	mkv_engine_peer(r->e, 5, &d);
	assert_int_equal(said(r, from, MKV_DRV_SET_SEEN)->arg[3], 12);
	assert_int_equal(said(r, from, MKV_DRV_SET_SEEN)->arg[2], 64);
	from = r->peers;
	d.arg[3] = 65;
	mkv_engine_peer(r->e, 5, &d);
	d.arg[2] = UINT32_MAX;
	mkv_engine_peer(r->e, 5, &d);
	assert_int_equal(r->peers, from);
	/* A piece whose bytes are bad: its home is told which value it was of. */
	rig_req(&q, MKV_DRV_VERIFY, NULL);
	q.flags = MKV_DRV_F_PIECE;
	q.digest = mkv_piece_digest(secret, set, 1);
	for (uint64_t off = MIB; off + 4096 <= r->bytes; off += 4096)
		if (rig_value_is(r->sim->now + off, 0, 4096, 1))
			r->sim->now[off] ^= 1;
	rig_submit(r, 0, &q);
	assert_int_equal(rig_wait(r, 0)->status, MKV_E_CORRUPT);
	assert_true(said(r, from, MKV_DRV_SET_LOST)->arg[0] == 7 && said(r, from, MKV_DRV_SET_LOST)->arg[1] == 0x1234);
	assert_int_equal(said(r, from, MKV_DRV_SET_LOST)->arg[2], MKV_REASON_WRITER_CRC);	/* nobody had proved it */
	/* After an end that was not orderly accepted pieces may be gone without a trace. */
	from = r->peers;
	again(r, 0);
	turns(r, 2);
	assert_int_equal(said(r, from, MKV_DRV_SET_LOST)->arg[0], 0);
	rig_destroy(&r);
}

/* As the home of a value of which another drive lost a piece. */
static void
test_told(void **state)
{
	struct rig *r = up();
	struct mkv_set_id one = put_striped(r, "one", 3), two = put_striped(r, "two", 3);
	unsigned from = r->peers;

	(void)state;
	hear(r, MKV_DRV_SET_LOST, one, 0, 0);
	assert_true(said(r, from, MKV_DRV_SET_LOOK)->arg[0] == one.lo);
	seen(r, one, 0, 0);
	assert_int_equal(there(r, "one"), MKV_REASON_LOST);
	assert_int_equal(there(r, "two"), 0);
	hear(r, MKV_DRV_SET_LOST, (struct mkv_set_id){ 0, 0 }, 0, 0);
	turns(r, 2);
	assert_true(said(r, from, MKV_DRV_SET_LOOK)->arg[0] == two.lo);
	seen(r, two, 0, 0);
	assert_int_equal(there(r, "two"), MKV_REASON_LOST);
	rig_destroy(&r);
}

/* Why the piece left is why the value is missed; and a piece that leaves while its value is checked is not taken for there because it was seen before. */
static void
test_told_why(void **state)
{
	struct rig *r = up();
	struct mkv_set_id one = put_striped(r, "one", 3), two = put_striped(r, "two", 3), many = put_striped(r, "many", 70);
	struct mkv_desc d = { .op = MKV_DRV_SET_LOST, .arg = { one.lo, one.hi, MKV_REASON_CORRUPT } };
	unsigned from;

	(void)state;
	mkv_engine_peer(r->e, 5, &d);
	turns(r, 1);
	seen(r, one, 0, 0);
	assert_int_equal(there(r, "one"), MKV_REASON_CORRUPT);
	d.arg[0] = two.lo;
	d.arg[2] = 9999;			/* a neighbour's number */
	mkv_engine_peer(r->e, 5, &d);
	turns(r, 1);
	seen(r, two, 0, 0);
	assert_int_equal(there(r, "two"), MKV_REASON_LOST);
	d.arg[0] = many.lo;
	d.arg[2] = MKV_REASON_WRITER_CRC;
	mkv_engine_peer(r->e, 5, &d);
	seen(r, many, 64, 0);			/* not asked for yet; time passes */
	seen(r, many, 0, UINT64_MAX);		/* all of these; then one of them goes */
	assert_int_equal(said(r, 0, MKV_DRV_SET_LOOK)->arg[2], 64);
	mkv_engine_peer(r->e, 5, &d);
	from = r->peers;
	seen(r, many, 64, 0x3f);
	assert_int_equal(said(r, from, MKV_DRV_SET_LOOK)->arg[2], 0);
	seen(r, many, 0, UINT64_MAX & ~(1ull << 40));
	assert_int_equal(there(r, "many"), MKV_REASON_WRITER_CRC);
	rig_destroy(&r);
}

/* A piece that is lost before its value's manifest comes: the value is looked at as soon as it is there. */
static void
test_told_early(void **state)
{
	struct rig *r = up();
	struct mkv_set_id set;
	unsigned from;

	(void)state;
	for (unsigned any = 0; any < 2; any++) {
		set = set_new(r, 0);
		put_pieces(r, set, 1, 2);
		hear(r, MKV_DRV_SET_LOST, any ? (struct mkv_set_id){ 0, 0 } : set, 0, 0);
		turns(r, 8);
		from = r->peers;
		assert_int_equal(put_manifest(r, set, "v", 2, 0, 0), 0);
		turns(r, 1);
		assert_null(said(r, from, MKV_DRV_SET_LOOK));	/* all drives of its stripe are here */
		assert_int_equal(there(r, "v"), MKV_REASON_LOST);
		turns(r, 5);
		assert_int_equal(used(r), 0);
	}
	set = set_new(r, 0);
	put_pieces(r, set, 1, 2);
	assert_int_equal(put_manifest(r, set, "v", 2, 0, 0), 0);
	turns(r, 8);
	assert_int_equal(there(r, "v"), 0);		/* nobody said anything */
	rig_destroy(&r);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_start), cmocka_unit_test(test_silence), cmocka_unit_test(test_reader), cmocka_unit_test(test_states),
		cmocka_unit_test(test_other), cmocka_unit_test(test_told), cmocka_unit_test(test_told_why), cmocka_unit_test(test_told_early),
	};

	return (cmocka_run_group_tests(tests, NULL, NULL));
}
