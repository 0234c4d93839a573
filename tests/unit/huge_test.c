/*
 * Values of terabytes in the engine: nothing that is done for all pieces of a value is done in one turn (worker/drive/setjob.c). The medium's data area is
 * a hole, so that pieces cost their records only; drive 5 is what the test says it is.
 */
#include "config.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "common/base/assert.h"
#include "common/base/crc.h"
#include "tests/scale/hole.h"
#include "tests/unit/sets_up.h"
#include "worker/drive/engine_priv.h"

#define PIECE		(4 * MIB)
#define TIB		(1ull << 40)
#define DEPTH		32u
#define HERE		8u			/* of so many pieces one is here */

static struct mkv_sb hole_sb;
static struct mkv_layout_want hole_want;
static uint32_t zero_crc;		/* of a chunk */
static unsigned turns_made;

static struct mkv_media *
wrap(struct rig *r, struct mkv_media *m)
{
	(void)r;
	return (hole_create(m, hole_sb.data_off, hole_want.total_bytes));
}

/* A drive of so many bytes, of which only the metadata are there. */
static struct rig *
up_hole(uint64_t bytes, uint32_t objects)
{
	static uint8_t zeros[CHUNK];
	uint8_t zero[32] = { 0 };
	struct rig *r;
	char why[256];

	hole_want = (struct mkv_layout_want){ .total_bytes = bytes, .extent_bytes = PIECE, .objects_max = objects, .journal_bytes = 16 * MIB };
	assert_int_equal(mkv_layout_plan(&hole_sb, &hole_want, why, sizeof(why)), 0);
	r = rig_create(RIG_SIM, hole_sb.data_off, 1);
	zero_crc = mkv_crc32c(0, zeros, sizeof(zeros));
	r->wrap = wrap;
	r->o.extent_bytes = PIECE;
	r->o.objects_max = objects;
	r->o.journal_bytes = hole_want.journal_bytes;
	r->o.queue_depth = DEPTH;
	assert_int_equal(mkv_hkdf(zero, 32, NULL, 0, MKV_PIECE_INFO, strlen(MKV_PIECE_INFO), secret, sizeof(secret)), 0);
	assert_int_equal(rig_open(r), 0);
	return (r);
}

/* A turn looks at no more pieces than it may, and drops fewer. */
static void
turn(struct rig *r)
{
	uint64_t looks = r->e->setjobs.looks;
	uint32_t pieces = r->e->pieces;

	rig_turn(r);
	turns_made++;
	assert_in_range(r->e->setjobs.looks - looks, 0, 2 * SET_STEP);
	if (r->e->pieces < pieces)
		assert_in_range(pieces - r->e->pieces, 1, SET_STEP / SET_DROP_COST + MKV_INDEX_MANY);
}

/* While it goes on small values are put and read, each within some turns. How many turns it took. */
static unsigned
until(struct rig *r, int (*done)(struct rig *))
{
	unsigned from = turns_made, served = 0;

	while (!done(r)) {
		struct mkv_drv_req q;
		char key[32];
		unsigned began;

		assert_true(turns_made - from < 5000000);
		snprintf(key, sizeof(key), "small %u", served++ % 8);
		for (int op = 0; op < 2 && !done(r); op++) {
			if (op == 0)
				rig_put_req(r, &q, DEPTH - 1, key, 5000, 7);
			else
				rig_req(&q, MKV_DRV_STAT, key);
			rig_submit(r, DEPTH - 1, &q);
			for (began = turns_made; !r->slot[DEPTH - 1].done; )
				turn(r);
			assert_in_range(turns_made - began, 1, 60);
			assert_int_equal(rig_wait(r, DEPTH - 1)->status, 0);
		}
	}
	return (turns_made - from);
}

static int
all_committed(struct rig *r)
{
	return (r->e->provisional == 0 && r->e->setjobs.count == 0);
}

static int
all_freed(struct rig *r)
{
	return (r->e->pieces == 0 && r->e->setjobs.count == 0 && r->e->pend_count == 0);
}

static void
piece_req(struct mkv_drv_req *q, unsigned op, struct mkv_set_id set, uint32_t no)
{
	rig_req(q, op, NULL);
	q->flags = MKV_DRV_F_PIECE | MKV_DRV_F_ACCEPTED;
	q->set = set;
	q->piece_no = no;
	q->piece_bytes = PIECE;
	q->digest = mkv_piece_digest(secret, set, no);
}

/* Pieces from, from + by, … below to, all of zeros. */
static void
put_zeros(struct rig *r, struct mkv_set_id set, uint32_t from, uint32_t to, uint32_t by)
{
	unsigned slot = 0;

	for (uint32_t no = from; no < to; no += by, slot = (slot + 1) % (DEPTH - 1)) {
		struct mkv_drv_req q;

		if (r->slot[slot].busy)
			assert_int_equal(rig_wait(r, slot)->status, 0);
		piece_req(&q, MKV_DRV_PUT, set, no);
		q.flags |= MKV_DRV_F_VERIFIED;
		q.value_bytes = PIECE;
		q.n_crcs = MKV_DRV_CRCS_MAX;
		for (unsigned i = 0; i < q.n_crcs; i++)
			q.crcs[i] = zero_crc;
		rig_bufs(&q, 0, PIECE);
		rig_submit(r, slot, &q);
	}
	for (slot = 0; slot < DEPTH; slot++) {
		if (r->slot[slot].busy)
			assert_int_equal(rig_wait(r, slot)->status, 0);
	}
}

static int
put_whole(struct rig *r, struct mkv_set_id set, const char *key, uint64_t bytes, uint32_t pieces)
{
	struct mkv_drv_req q;

	rig_req(&q, MKV_DRV_PUT, key);
	q.flags = MKV_DRV_F_MANIFEST;
	q.set = set;
	q.value_bytes = bytes;
	q.piece_count = pieces;
	q.piece_bytes = PIECE;
	q.n_stripe = HERE;
	for (uint8_t i = 1; i < HERE; i++)
		q.stripe[i] = i;
	rig_submit(r, DEPTH, &q);
	return (rig_wait(r, DEPTH)->status);
}

/* The last bytes of a piece, by the drive's own check of the edge. */
static int
get_end(struct rig *r, struct mkv_set_id set, uint32_t no)
{
	struct mkv_drv_req q;
	const struct mkv_drv_rep *p;

	piece_req(&q, MKV_DRV_GET, set, no);
	q.off = PIECE - 100;
	q.len = 100;
	rig_bufs(&q, 1, 2 * CHUNK);
	rig_submit(r, DEPTH, &q);
	p = rig_wait(r, DEPTH);
	assert_true(p->status != 0 || (p->len == 100 && p->value_bytes == PIECE));
	return (p->status);
}

/* What the other drives of the stripe say, who have freed all of theirs. */
static void
others_freed(struct rig *r, struct mkv_set_id set)
{
	struct mkv_desc d = { .op = MKV_DRV_SET_FREED, .arg = { set.lo, set.hi } };

	for (uint32_t i = 1; i < HERE; i++)
		mkv_engine_peer(r->e, i, &d);
}

static void
assert_size(struct rig *r, const char *key, uint64_t bytes, uint32_t pieces)
{
	struct mkv_drv_req q;
	const struct mkv_drv_rep *p;

	rig_req(&q, MKV_DRV_STAT, key);
	rig_submit(r, DEPTH, &q);
	p = rig_wait(r, DEPTH);
	assert_int_equal(p->status, 0);
	assert_true(p->value_bytes == bytes && p->piece_count == pieces && p->piece_bytes == PIECE);
}

/* 3 TiB in 786,432 pieces, every eighth of them here: put, read, replaced and deleted, while others are served; nothing is left. */
static void
test_terabytes(void **state)
{
	struct rig *r = up_hole(TIB / 2, 120000);
	const uint32_t pieces = 3u << 18;
	struct mkv_set_id a = set_new(r, 0), b;
	uint64_t small;
	unsigned n;

	(void)state;
	assert_true(pieces > 1u << 18);
	put_zeros(r, a, 0, pieces, HERE);
	assert_int_equal(r->e->provisional, pieces / HERE);
	assert_int_equal(put_whole(r, a, "v", 3 * TIB, pieces), 0);
	n = until(r, all_committed);
	assert_true(n >= pieces / (2 * SET_STEP));
	assert_size(r, "v", 3 * TIB, pieces);
	assert_int_equal(get_end(r, a, pieces - HERE), 0);
	assert_int_equal(get_end(r, a, (1u << 18) + HERE), 0);
	assert_int_equal(get_end(r, a, pieces - 1), MKV_E_MISS);		/* it is another drive's */

	/* Replaced by a smaller one: the old pieces leave, the new ones stay. */
	b = set_new(r, 0);
	put_zeros(r, b, 0, 1u << 10, HERE);
	assert_int_equal(put_whole(r, b, "v", 4096 * MIB, 1u << 10), 0);
	others_freed(r, a);
	for (n = 0; r->e->pieces > (1u << 10) / HERE; n++) {
		assert_true(n < 1000000);
		turn(r);
	}
	assert_true(n >= pieces / SET_STEP);
	until(r, all_committed);
	assert_int_equal(get_end(r, a, 0), MKV_E_MISS);
	assert_int_equal(get_end(r, b, 0), 0);
	assert_size(r, "v", 4096 * MIB, 1u << 10);
	assert_int_equal(rig_op(r, MKV_DRV_DELETE, "v", NULL), 0);
	others_freed(r, b);
	until(r, all_freed);
	turns(r, 4);
	assert_int_equal(r->e->setfrees, 0);
	small = r->e->ix.linked;
	assert_true(small <= 8 && used(r) <= small * 2 * hole_sb.unit_bytes);
	rig_destroy(&r);
}

/* The largest value there can be, of which the first, some and the last pieces are here; and what is beyond. */
static void
test_largest(void **state)
{
	static const uint32_t here[] = { 0, 1u << 10, (1u << 10) + 1, 1u << 18, 1u << 25, MKV_DRV_PIECES_MAX - 1 };
	struct rig *r = up_hole(TIB / 2, 4096);
	struct mkv_set_id set = set_new(r, 0);
	struct mkv_drv_req q;
	uint64_t hold;

	(void)state;
	assert_true((uint64_t)MKV_DRV_PIECES_MAX * PIECE == MKV_DRV_VALUE_MAX && MKV_DRV_VALUE_MAX == 1ull << 48);
	r->e->o.evict = 0;
	for (unsigned i = 0; i < MKV_ARRAY_LEN(here); i++)
		put_zeros(r, set, here[i], here[i] + 1, 1);
	piece_req(&q, MKV_DRV_PUT, set, MKV_DRV_PIECES_MAX);
	rig_submit(r, DEPTH, &q);
	assert_int_equal(rig_wait(r, DEPTH)->status, MKV_E_TOOBIG);
	assert_int_equal(put_whole(r, set, "v", MKV_DRV_VALUE_MAX, MKV_DRV_PIECES_MAX + 1), MKV_E_TOOBIG);
	assert_int_equal(put_whole(r, set, "v", MKV_DRV_VALUE_MAX + 1, MKV_DRV_PIECES_MAX), MKV_E_TOOBIG);
	assert_int_equal(put_whole(r, set, "v", MKV_DRV_VALUE_MAX, MKV_DRV_PIECES_MAX - 1), MKV_E_PROTO);
	assert_int_equal(put_whole(r, set, "v", MKV_DRV_VALUE_MAX, MKV_DRV_PIECES_MAX), 0);
	assert_true(set_units(r->e, 1, MKV_DRV_PIECES_MAX) == MKV_DRV_VALUE_MAX / hole_sb.unit_bytes);
	until(r, all_committed);
	assert_size(r, "v", MKV_DRV_VALUE_MAX, MKV_DRV_PIECES_MAX);
	for (unsigned i = 0; i < MKV_ARRAY_LEN(here); i++)
		assert_int_equal(get_end(r, set, here[i]), 0);
	assert_int_equal(get_hold(r, "v", &hold), 0);
	assert_true(r->slot[0].rep.value_bytes == MKV_DRV_VALUE_MAX);
	mkv_engine_release(r->e, 0, hold, 0);
	assert_int_equal(rig_close(r, 0), 0);
	assert_int_equal(rig_open(r), 0);
	assert_size(r, "v", MKV_DRV_VALUE_MAX, MKV_DRV_PIECES_MAX);
	assert_int_equal(get_end(r, set, MKV_DRV_PIECES_MAX - 1), 0);
	assert_int_equal(rig_op(r, MKV_DRV_DELETE, "v", NULL), 0);
	turns(r, 1);
	assert_true(said(r, 0, MKV_DRV_SET_FREE)->arg[2] == MKV_DRV_PIECES_MAX);
	others_freed(r, set);
	until(r, all_freed);
	rig_destroy(&r);
}

/* ---- Steps of a few pieces --------------------------------------------------------------------------------------------------- */

static void
hear_from(struct rig *r, uint32_t drive, unsigned op, struct mkv_set_id set, uint32_t count)
{
	struct mkv_desc d = { .op = (uint16_t)op, .arg = { set.lo, set.hi, count } };

	mkv_engine_peer(r->e, drive, &d);
}

static unsigned
count_said(const struct rig *r, unsigned from, unsigned op, uint32_t drive)
{
	unsigned n = 0;

	assert_true(r->peers - from <= MKV_ARRAY_LEN(r->peer));
	for (unsigned i = from; i < r->peers; i++)
		n += r->peer[i % 16].op == op && r->peer_drive[i % 16] == drive;
	return (n);
}

/* Asked again while it goes on, by another drive, for more pieces: one walk, and an answer to each. None before all is gone and durable. */
static void
test_free_again(void **state)
{
	struct rig *r = up();
	struct mkv_set_id set = { 7, 0x1234 };
	unsigned from, n;

	(void)state;
	put_pieces(r, set, 0, 100);
	r->e->o.set_step = 4;
	turn(r);
	from = r->peers;
	hear_from(r, 5, MKV_DRV_SET_COMMITTED, set, 100);	/* its walk is not over when the other begins */
	hear_from(r, 5, MKV_DRV_SET_FREE, set, 50);
	assert_int_equal(r->e->setjobs.count, 1);
	for (n = 0; n < 10; n++)
		turn(r);
	assert_in_range(r->e->pieces, 51, 99);
	hear_from(r, 6, MKV_DRV_SET_FREE, set, 100);
	hear_from(r, 5, MKV_DRV_SET_FREE, set, 50);
	hear_from(r, 5, MKV_DRV_SET_COMMITTED, set, 100);
	assert_int_equal(r->e->setjobs.count, 1);
	for (; r->e->pieces > 0; n++) {
		turn(r);
		assert_int_equal(r->peers, from);
		assert_true(n < 1000);
	}
	assert_true(n >= 20);
	for (n = 0; r->peers == from; n++)
		assert_true(n < 100 && (turn(r), 1));
	assert_int_equal(r->e->pend_count, 0);
	assert_int_equal(count_said(r, from, MKV_DRV_SET_FREED, 5), 1);
	assert_int_equal(count_said(r, from, MKV_DRV_SET_FREED, 6), 1);
	assert_int_equal(r->e->setjobs.count, 0);
	turns(r, 1);
	assert_int_equal(used(r), 0);
	rig_destroy(&r);
}

/* More sets than there are jobs: what found no room is said again. */
static void
test_table_full(void **state)
{
	struct rig *r = up();
	const unsigned sets = SETJOBS_MAX + 20;
	uint32_t left;

	(void)state;
	for (unsigned i = 0; i < sets; i++)
		put_pieces(r, (struct mkv_set_id){ 100 + i, 0x1234 }, 0, 2);
	r->e->o.set_step = 1;
	turn(r);
	turn(r);
	for (unsigned i = 0; i < sets; i++)
		hear_from(r, 5, MKV_DRV_SET_FREE, (struct mkv_set_id){ 100 + i, 0x1234 }, 2);
	assert_int_equal(r->e->setjobs.count, SETJOBS_MAX);
	for (unsigned n = 0; r->e->setjobs.count > 0; n++)
		assert_true(n < 10000 && (turn(r), 1));
	left = r->e->pieces;
	assert_in_range(left, 1, 2 * 21);
	for (unsigned i = 0; i < sets; i++) {
		hear_from(r, 5, MKV_DRV_SET_FREE, (struct mkv_set_id){ 100 + i, 0x1234 }, 2);
		turn(r);
	}
	for (unsigned n = 0; r->e->setjobs.count > 0; n++)
		assert_true(n < 10000 && (turn(r), 1));
	turns(r, 1);
	assert_int_equal(used(r), 0);
	rig_destroy(&r);
}

/* ABORT goes on from turn to turn, others with it; what is committed stays. */
static void
test_abort(void **state)
{
	struct rig *r = up();
	struct mkv_set_id set[3] = { set_new(r, 0), set_new(r, 0), set_new(r, 0) };
	unsigned n, done = 0;

	(void)state;
	for (unsigned i = 0; i < 3; i++)
		put_pieces(r, set[i], 0, 40);
	assert_int_equal(put_manifest(r, set[2], "v", 40, 0, 0), 0);
	turns(r, 1);
	assert_int_equal(r->e->provisional, 80);
	r->e->o.set_step = 4;
	turn(r);
	for (unsigned i = 0; i < 3; i++) {
		struct mkv_drv_req q;

		rig_req(&q, MKV_DRV_ABORT, NULL);
		q.flags = MKV_DRV_F_PIECE;
		q.set = set[i];
		q.piece_count = i == 0 ? UINT32_MAX : 40;
		q.deadline_ns = UINT64_MAX;
		rig_submit(r, i, &q);
	}
	for (n = 0; done < 3; n++) {
		assert_true(n < 1000);
		turn(r);
		for (unsigned i = done = 0; i < 3; i++)
			done += r->slot[i].done != 0;
	}
	assert_true(n >= 20);
	for (unsigned i = 0; i < 3; i++)
		assert_int_equal(rig_wait(r, i)->status, 0);
	turns(r, 1);
	assert_int_equal(r->e->provisional, 0);
	assert_int_equal(used(r), 40 * 8192);
	assert_int_equal(rig_put(r, "other", 5000, 1, 0), 0);
	rig_destroy(&r);
}

/* The end of the process in the middle of each walk: it begins anew, and all is well in the end. */
static void
test_crash(void **state)
{
	for (unsigned at = 0; at < 40; at += 3) {
		struct rig *r = up();
		struct mkv_set_id set = set_new(r, 0);

		(void)state;
		put_pieces(r, set, 0, 60);
		r->e->o.set_step = r->o.set_step = 4;
		assert_int_equal(put_manifest(r, set, "v", 60, 0, 0), 0);
		if (at % 2 == 0) {
			turns(r, 1);
			assert_int_equal(rig_op(r, MKV_DRV_DELETE, "v", NULL), 0);
		}
		for (unsigned n = 0; n < at; n++)
			turn(r);
		assert_int_equal(rig_close(r, 1), 0);
		sim_reboot(r->sim, at % 3 == 0 ? SIM_DROP : SIM_KEEP);
		assert_int_equal(rig_open(r), 0);
		turns(r, 5);
		turns(r, 5);
		assert_int_equal(r->e->provisional, 0);
		assert_int_equal(r->e->setjobs.count, 0);
		assert_int_equal(r->e->setfrees, 0);
		assert_int_equal(used(r), at % 2 == 0 ? 0 : 60 * 8192);
		rig_destroy(&r);
	}
}

/*
 * A journal that says of very many pieces that they are committed: an open does not look for all of them. It asks for what it did not look for; what was
 * few is known.
 */
static void
test_replay(void **state)
{
	struct rig *r = up();
	struct mkv_set_id few = { 7, 0x1234 }, many = { 8, 0x1234 };
	unsigned from;

	(void)state;
	put_pieces(r, few, 0, 3);
	put_pieces(r, many, 0, 3);
	hear(r, MKV_DRV_SET_COMMITTED, few, 1000, 0);
	hear(r, MKV_DRV_SET_COMMITTED, many, MKV_DRV_PIECES_MAX, 0);
	for (unsigned n = 0; !all_committed(r); n++)
		assert_true(n < 100000 && (turn(r), 1));
	assert_int_equal(rig_put(r, "makes it durable", 100, 1, 0), 0);
	assert_int_equal(rig_close(r, 1), 0);
	sim_reboot(r->sim, SIM_KEEP);
	assert_int_equal(rig_open(r), 0);
	assert_int_equal(r->e->provisional, 3);
	assert_in_range(r->e->setjobs.looks, 1000, 1u << 22);
	from = r->peers;
	turns(r, 2);
	assert_non_null(said(r, from, MKV_DRV_SET_ASK));
	hear(r, MKV_DRV_SET_COMMITTED, many, 1000, 0);
	assert_int_equal(r->e->provisional, 0);
	assert_int_equal(used(r), 6 * 8192 + 4096);
	rig_destroy(&r);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_free_again), cmocka_unit_test(test_table_full), cmocka_unit_test(test_abort), cmocka_unit_test(test_crash),
		cmocka_unit_test(test_replay), cmocka_unit_test(test_largest), cmocka_unit_test(test_terabytes),
	};

	return (cmocka_run_group_tests(tests, NULL, NULL));
}
