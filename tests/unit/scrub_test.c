/*
 * The scrubber: what it finds and what it leaves alone, in which order, how fast, and who goes first. The medium is simulated, time is virtual.
 */
#include "config.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "common/base/auth.h"
#include "common/base/crc.h"
#include "common/base/err.h"
#include "common/shm/metric.h"
#include "tests/crash/media_pass.h"
#include "tests/lib/rnd.h"
#include "tests/unit/scrub_up.h"

#define MANY	200000u			/* turns that a pass never needs */

/* A medium that keeps the scrubber's reads of data until it is told. */
static struct {
	struct media_pass p;
	struct rig	*r;
	int		keep;
	unsigned	n;
	struct { struct mkv_mio *mio; void *buf; uint32_t bytes; uint64_t off; } kept[MKV_OBJ_RUNS_MAX];
} slow;

static void
slow_read(struct mkv_media *m, struct mkv_mio *mio, void *buf, uint32_t bytes, uint64_t off, int idx)
{
	if (slow.keep && slow.r->e != NULL && slow.r->e->scrub.state == SC_DATA && (uint8_t *)buf >= slow.r->e->scrub.mem &&
	    (uint8_t *)buf < slow.r->e->scrub.mem + MKV_CRC_CHUNK) {
		slow.kept[slow.n].mio = mio;
		slow.kept[slow.n].buf = buf;
		slow.kept[slow.n].bytes = bytes;
		slow.kept[slow.n++].off = off;
		return;
	}
	media_pass_read(m, mio, buf, bytes, off, idx);
}

static void
slow_go(void)
{
	slow.keep = 0;
	for (unsigned i = 0; i < slow.n; i++)
		media_pass_read(&slow.p.m, slow.kept[i].mio, slow.kept[i].buf, slow.kept[i].bytes, slow.kept[i].off, -1);
	slow.n = 0;
}

static struct mkv_media *
slow_wrap(struct rig *r, struct mkv_media *m)
{
	(void)media_pass(&slow.p, m);
	slow.p.ops.read = slow_read;
	slow.r = r;
	slow.n = 0;
	slow.keep = 1;
	return (&slow.p.m);
}

static struct rig *
up_slow(uint64_t bytes, uint64_t seed)
{
	struct rig *r = up(RIG_SIM, bytes, seed);

	assert_int_equal(rig_close(r, 0), 0);
	r->wrap = slow_wrap;
	assert_int_equal(rig_open(r), 0);
	return (r);
}

/* Off while a test prepares: on is said by this. */
static void
scrub_at(struct rig *r, uint64_t rate)
{
	r->o.scrub_rate = rate;
	if (r->e != NULL)
		mkv_engine_tune(r->e, &r->o);
}

/* Until this pass is over, or the next one where none is under way. */
static void
pass(struct rig *r)
{
	uint32_t before = r->e->scrub.pass - (r->e->scrub.passing != 0);

	for (unsigned i = 0; r->e->scrub.pass == before || r->e->scrub.passing || r->e->scrub.state != SC_NEXT; i++) {
		assert_true(i < MANY);
		rig_turn(r);
	}
	mkv_engine_sync(r->e);
	for (unsigned i = 0; i < 100; i++)
		rig_turn(r);
}

/* The next pass is due. */
static void
later(struct rig *r)
{
	r->now_ns += r->o.scrub_interval_ns;
}

static void
turn_until_reading(struct rig *r)
{
	for (unsigned i = 0; r->e->scrub.state != SC_DATA; i++) {
		assert_true(i < MANY);
		rig_turn(r);
	}
}

static unsigned
reason_of(struct rig *r, const char *key)
{
	unsigned reason = 0;

	assert_int_equal(rig_op(r, MKV_DRV_STAT, key, &reason), MKV_E_MISS);
	return (reason);
}

static uint64_t
used(struct rig *r)
{
	struct mkv_engine_info info;

	mkv_engine_info(r->e, &info);
	return (info.used_bytes);
}

/* ---- What it finds ---------------------------------------------------------------------------------------------------------- */

static void
test_flipped_bit(void **state)
{
	struct rig *r = up(RIG_SIM, 64 * MIB, 1);
	uint64_t before;

	(void)state;
	put_many(r, 20, 300000);
	before = used(r);
	scrub_at(r, 64 * MIB);
	pass(r);
	assert_int_equal(COUNTED(r, scrub_objects_total), 20);
	assert_int_equal(COUNTED(r, scrub_bad_total), 0);
	flip(r, place(r, "k7", 299999));
	later(r);
	pass(r);
	assert_int_equal(COUNTED(r, scrub_bad_total), 1);
	assert_int_equal(COUNTED(r, corrupt_total), 1);
	assert_int_equal(COUNTED(r, writer_crc_total), 0);
	assert_int_equal(r->e->fl.sum.events, 1);
	assert_int_equal(reason_of(r, "k7"), MKV_REASON_CORRUPT);
	for (unsigned i = 0; i < 20; i++) {
		char key[16];

		snprintf(key, sizeof(key), "k%u", i);
		assert_int_equal(rig_get(r, key, 0, MIB, i), i == 7 ? MKV_E_MISS : 0);
	}
	/* Its units stay taken until the next start. */
	assert_int_equal(used(r), before);
	assert_int_equal(rig_close(r, 0), 0);
	assert_int_equal(rig_open(r), 0);
	assert_true(used(r) < before);
	assert_int_equal(r->e->fl.sum.events, 1);
	rig_destroy(&r);
}

/* A read that was wrong once: nothing happened. */
static void
test_wrong_once(void **state)
{
	struct rig *r = up(RIG_SIM, 64 * MIB, 2);

	(void)state;
	put_many(r, 3, 100000);
	flip(r, place(r, "k1", 70000));
	scrub_at(r, 64 * MIB);
	while (r->e->scrub.state != SC_DATA || eng_ent(r->e, r->e->scrub.ent)->run != eng_ent(r->e, entry(r, "k1"))->run)
		rig_turn(r);
	assert_int_equal(r->e->scrub.tries, 0);
	flip(r, place(r, "k1", 70000));
	pass(r);
	assert_int_equal(COUNTED(r, scrub_objects_total), 3);
	assert_int_equal(COUNTED(r, corrupt_total), 0);
	rig_destroy(&r);
}

/* What cannot be read is not wrong: it stays, and the registry has the place. */
static void
test_unreadable(void **state)
{
	struct rig *r = up(RIG_SIM, 64 * MIB, 3);

	(void)state;
	put_many(r, 3, 100000);
	sim_bad(r->sim, place(r, "k0", 0), 4096, 1);
	sim_bad(r->sim, place(r, "k2", 65536), 4096, 2);
	scrub_at(r, 64 * MIB);
	pass(r);
	assert_int_equal(COUNTED(r, scrub_objects_total), 2);
	assert_int_equal(COUNTED(r, read_errors_total), 1);
	assert_int_equal(COUNTED(r, corrupt_total), 0);
	assert_int_equal(r->e->fl.sum.events, 1);
	assert_int_equal(rig_get(r, "k2", 0, MIB, 2), 0);
	rig_destroy(&r);
}

/*
 * Nobody proved them and they cannot be read, nor can one of their pages, while others come that can: a few tries, or the drive would be taken for one
 * that fails (drive.error_limit).
 */
static void
test_unreadable_unverified(void **state)
{
	struct rig *r = up(RIG_SIM, 64 * MIB, 3);
	char key[16];

	(void)state;
	for (unsigned i = 0; i < 80; i++) {
		snprintf(key, sizeof(key), "u%u", i);
		assert_int_equal(rig_put(r, key, 4096, i, 0), 0);
	}
	assert_int_equal(rig_close(r, 0), 0);
	assert_int_equal(rig_open(r), 0);
	assert_int_equal(r->e->unproved, 80);
	sim_bad(r->sim, mkv_sb_page_at(&r->e->sb, eng_ent(r->e, entry(r, "u0"))->page), 4096, UINT32_MAX);
	assert_int_not_equal(eng_ent(r->e, entry(r, "u0"))->page, eng_ent(r->e, entry(r, "u79"))->page);
	sim_bad(r->sim, place(r, "u78", 0), 4096, UINT32_MAX);
	sim_bad(r->sim, place(r, "u79", 0), 4096, UINT32_MAX);
	scrub_at(r, 64 * MIB);
	for (unsigned i = 0; i < 100; i++) {
		snprintf(key, sizeof(key), "v%u", i);
		assert_int_equal(rig_put(r, key, 4096, i, 0), 0);
		for (unsigned k = 0; k < 20; k++)
			rig_turn(r);
	}
	assert_true(COUNTED(r, read_errors_total) >= 3 && COUNTED(r, read_errors_total) <= 6);
	assert_int_equal(r->e->scrub.pass, 1);
	assert_int_equal(COUNTED(r, corrupt_total) + COUNTED(r, writer_crc_total), 0);
	/* Those that came meanwhile have their turn. */
	r->now_ns += 61 * MKV_NS_PER_SEC;
	for (unsigned i = 0; r->e->unproved > r->e->pg.live[eng_ent(r->e, entry(r, "u0"))->page] + 2u; i++) {
		assert_true(i < MANY);
		rig_turn(r);
	}
	rig_destroy(&r);
}

/* Objects of several runs: the drive is full of small ones, and every second one leaves. */
static void
test_several_runs(void **state)
{
	struct rig *r = up(RIG_SIM, 24 * MIB, 4);
	char key[16];
	unsigned n;

	(void)state;
	r->o.evict = 0;
	mkv_engine_tune(r->e, &r->o);
	for (n = 0; n < 10000; n++) {
		snprintf(key, sizeof(key), "s%u", n);
		if (rig_put(r, key, 65536, n, MKV_DRV_F_VERIFIED) != 0)
			break;
	}
	for (unsigned i = 0; i < n; i += 2) {
		snprintf(key, sizeof(key), "s%u", i);
		assert_int_equal(rig_op(r, MKV_DRV_DELETE, key, NULL), 0);
	}
	put(r, "big", 500000, 5);
	assert_true(eng_ent(r->e, entry(r, "big"))->flags & MKV_ENT_MULTI);
	flip(r, place(r, "big", 499000));
	scrub_at(r, 512 * MIB);
	pass(r);
	assert_int_equal(COUNTED(r, scrub_bad_total), 1);
	assert_int_equal(reason_of(r, "big"), MKV_REASON_CORRUPT);
	rig_destroy(&r);
}

/* ---- Metadata pages --------------------------------------------------------------------------------------------------------- */

/* The cache has it whole: nothing is lost, and the records lie elsewhere from then on. */
static void
test_page_in_cache(void **state)
{
	struct rig *r = up(RIG_SIM, 64 * MIB, 5);
	uint32_t page;

	(void)state;
	put_many(r, 60, 5000);			/* some pages */
	page = eng_ent(r->e, entry(r, "k0"))->page;
	assert_int_not_equal(eng_ent(r->e, entry(r, "k59"))->page, page);
	flip(r, mkv_sb_page_at(&r->e->sb, page) + 100);
	scrub_at(r, 64 * MIB);
	pass(r);
	assert_int_equal(COUNTED(r, corrupt_total), 1);
	assert_int_equal(COUNTED(r, scrub_bad_total), 0);
	assert_int_not_equal(eng_ent(r->e, entry(r, "k0"))->page, page);
	assert_int_equal(rig_close(r, 0), 0);
	assert_int_equal(rig_open(r), 0);
	for (unsigned i = 0; i < 60; i++) {
		char key[16];

		snprintf(key, sizeof(key), "k%u", i);
		assert_int_equal(rig_get(r, key, 0, MIB, i), 0);
	}
	rig_destroy(&r);
}

static void
test_page_lost(void **state)
{
	struct rig *r = up(RIG_SIM, 64 * MIB, 6);
	unsigned gone = 0;
	uint64_t at;

	(void)state;
	put_many(r, 60, 5000);
	at = mkv_sb_page_at(&r->e->sb, eng_ent(r->e, entry(r, "k0"))->page) + 100;
	assert_int_equal(rig_close(r, 0), 0);
	flip(r, at);
	assert_int_equal(rig_open(r), 0);
	scrub_at(r, 64 * MIB);
	pass(r);
	for (unsigned i = 0; i < 60; i++) {
		char key[16];
		unsigned reason = 0;

		snprintf(key, sizeof(key), "k%u", i);
		if (rig_op(r, MKV_DRV_STAT, key, &reason) == 0)
			continue;
		assert_int_equal(reason, MKV_REASON_CORRUPT);
		gone++;
	}
	assert_true(gone > 5 && gone < 55);
	assert_int_equal(COUNTED(r, scrub_bad_total), gone);
	assert_int_equal(COUNTED(r, corrupt_total), 1);		/* one failure, not one for each object */
	rig_destroy(&r);
}

/* ---- Who wrote it ----------------------------------------------------------------------------------------------------------- */

static void
liar(enum rig_kind kind)
{
	struct rig *r = up(kind, 32 * MIB, 7);
	uint64_t before;

	put_many(r, 5, 200000);
	before = used(r);
	if (kind == RIG_MEMORY) {
		/* Into the arena, by a put that the front did not look at. */
		assert_int_equal(rig_put(r, "lie", 200000, 9, 0), 0);
		flip(r, place(r, "lie", 150000));
	} else
		lie(r, "lie", 200000, 0);
	assert_int_equal(r->e->unproved, 1);
	scrub_at(r, 64 * MIB);
	pass(r);
	assert_int_equal(r->e->unproved, 0);
	assert_int_equal(reason_of(r, "lie"), MKV_REASON_WRITER_CRC);
	assert_int_equal(COUNTED(r, writer_crc_total), 1);
	assert_int_equal(COUNTED(r, corrupt_total), 0);
	assert_int_equal(r->e->fl.sum.events, 0);
	assert_int_equal(used(r), before);
	rig_destroy(&r);
}

static void
test_liar(void **state)
{
	(void)state;
	liar(RIG_SIM);
}

static void
test_liar_in_memory(void **state)
{
	(void)state;
	liar(RIG_MEMORY);
}

/* ---- Order ------------------------------------------------------------------------------------------------------------------ */

static void
test_unverified_first(void **state)
{
	struct rig *r = up(RIG_SIM, 64 * MIB, 9);

	(void)state;
	put_many(r, 30, 100000);
	assert_int_equal(rig_put(r, "u1", 100000, 1, 0), 0);
	put(r, "v", 100000, 1);
	assert_int_equal(rig_put(r, "u2", 100000, 2, 0), 0);
	assert_int_equal(rig_put(r, "u0", 0, 0, 0), 0);		/* no bytes, nothing to prove */
	assert_int_equal(r->e->unproved, 2);
	scrub_at(r, 64 * MIB);
	for (unsigned i = 0; r->e->unproved > 0; i++) {
		assert_true(i < MANY);
		rig_turn(r);
	}
	assert_int_equal(COUNTED(r, scrub_objects_total), 2);
	pass(r);
	assert_int_equal(COUNTED(r, scrub_objects_total), 35);
	/* It stays so over a start, also one without an orderly stop. */
	assert_int_equal(rig_close(r, 1), 0);
	sim_reboot(r->sim, SIM_DROP);
	assert_int_equal(rig_open(r), 0);
	assert_int_equal(r->e->unproved, 0);
	rig_destroy(&r);
}

/* What nobody has checked does not wait for the next pass. */
static void
test_unverified_between_passes(void **state)
{
	struct rig *r = up(RIG_SIM, 64 * MIB, 10);

	(void)state;
	put_many(r, 3, 100000);
	scrub_at(r, 64 * MIB);
	pass(r);
	assert_int_equal(rig_put(r, "u", 100000, 1, 0), 0);
	for (unsigned i = 0; r->e->unproved > 0; i++) {
		assert_true(i < MANY);
		rig_turn(r);
	}
	assert_int_equal(r->e->scrub.pass, 1);
	assert_int_equal(COUNTED(r, scrub_objects_total), 4);
	rig_destroy(&r);
}

/* An end in the middle: the next life goes on there, and the pass counts once. */
static void
test_goes_on_after_a_restart(void **state)
{
	struct rig *r = up(RIG_SIM, 64 * MIB, 11);
	uint32_t page;

	(void)state;
	put_many(r, 200, 20000);
	scrub_at(r, 64 * MIB);
	for (unsigned i = 0; COUNTED(r, scrub_objects_total) < 100; i++) {
		assert_true(i < MANY);
		rig_turn(r);
	}
	assert_int_equal(rig_close(r, 0), 0);
	scrub_at(r, 0);
	assert_int_equal(rig_open(r), 0);
	page = r->e->scrub.next_page;
	assert_true(page > 0 && r->e->scrub.passing);
	assert_int_equal(r->e->scrub.pass, 1);
	assert_true(r->e->scrub.pass_bytes >= 100 * 20480);
	scrub_at(r, 64 * MIB);
	while (r->e->scrub.passing)
		rig_turn(r);
	assert_int_equal(r->e->scrub.pass, 1);
	assert_true(COUNTED(r, scrub_objects_total) >= 200 && COUNTED(r, scrub_objects_total) < 240);
	assert_int_equal(rig_close(r, 0), 0);
	/* And a whole one is not begun again before its time. */
	assert_int_equal(rig_open(r), 0);
	assert_false(r->e->scrub.passing);
	for (unsigned i = 0; i < 1000; i++)
		rig_turn(r);
	assert_int_equal(r->e->scrub.pass, 1);
	later(r);
	pass(r);
	assert_int_equal(r->e->scrub.pass, 2);
	rig_destroy(&r);
}

/* ---- How fast, and who goes first ------------------------------------------------------------------------------------------- */

static void
test_rate(void **state)
{
	struct rig *r = up(RIG_SIM, 64 * MIB, 12);
	uint64_t begin;

	(void)state;
	put_many(r, 40, 1000000);
	begin = r->now_ns;
	scrub_at(r, 4 * MIB);
	while (r->now_ns < begin + 2 * MKV_NS_PER_SEC)
		rig_turn(r);
	assert_true(COUNTED(r, scrub_bytes_total) <= (int)(8 * MIB + 256 * 1024));
	assert_true(COUNTED(r, scrub_bytes_total) >= (int)(6 * MIB));
	/* Off is off, at once, and nothing stays held. */
	scrub_at(r, 0);
	for (unsigned i = 0; i < 10; i++)
		rig_turn(r);
	begin = (uint64_t)COUNTED(r, scrub_bytes_total);
	assert_int_equal(r->e->scrub.ent, MKV_ENT_NIL);
	assert_int_equal(r->e->pg.held, UINT32_MAX);
	for (unsigned i = 0; i < 10000; i++)
		rig_turn(r);
	assert_int_equal(COUNTED(r, scrub_bytes_total), begin);
	rig_destroy(&r);
}

/* All but one were proved: the walk to that one looks at so many entries a turn, and the next turn comes at once. */
static void
test_walk_in_turns(void **state)
{
	enum { OBJECTS = 100000 };
	struct rig *r = rig_create(RIG_SIM, 48 * MIB, 18);
	unsigned walks = 0;

	(void)state;
	r->o.objects_max = OBJECTS;
	assert_int_equal(rig_open(r), 0);
	for (uint64_t n = 0; n < OBJECTS; n++) {
		uint32_t i = mkv_index_take(&r->e->ix);

		assert_int_not_equal(i, MKV_ENT_NIL);
		eng_ent(r->e, i)->digest = (struct mkv_digest){ .lo = n * 0x9e3779b97f4a7c15ull, .hi = n };
		eng_ent(r->e, i)->flags |= MKV_ENT_VERIFIED;
		eng_ent(r->e, i)->units = 1;
		mkv_index_link(&r->e->ix, i);
	}
	r->e->unproved = 1;
	scrub_at(r, 64 * MIB);
	for (unsigned i = 0; r->e->scrub.again_ns == 0; i++) {
		uint32_t at = r->e->scrub.hand;
		uint64_t next = mkv_engine_step(r->e);

		assert_true(i < MANY);
		if (r->e->scrub.hand <= at)
			continue;
		assert_true(r->e->scrub.hand - at <= 10000 && next <= r->now_ns);
		walks++;
	}
	assert_true(walks >= OBJECTS / 10000);
	rig_destroy(&r);
}

/* While somebody asks it has a small share of what they move; in memory none. */
static void
gives_way(enum rig_kind kind, int share)
{
	struct rig *r = up(kind, 64 * MIB, 13);
	struct mkv_drv_req q;

	put_many(r, 40, 1000000);
	scrub_at(r, 1024 * MIB);
	for (unsigned i = 0; i < 200; i++) {
		rig_req(&q, MKV_DRV_GET, "k3");
		if (kind != RIG_MEMORY)
			rig_bufs(&q, 0, MIB);
		q.len = 1000000;
		rig_submit(r, 0, &q);
		assert_int_equal(rig_wait(r, 0)->status, 0);
		if (kind == RIG_MEMORY)
			mkv_engine_release(r->e, 0, r->slot[0].rep.hold, 0);
		rig_turn(r);
	}
	assert_true(COUNTED(r, scrub_bytes_total) <= share * 200 * 10000);
	for (unsigned i = 0; COUNTED(r, scrub_objects_total) < 40; i++) {
		assert_true(i < MANY);
		rig_turn(r);
	}
	rig_destroy(&r);
}

static void
test_gives_way(void **state)
{
	(void)state;
	gives_way(RIG_SIM, 5);			/* percent */
	gives_way(RIG_MEMORY, 0);
}

/* ---- Objects that leave while they are read --------------------------------------------------------------------------------- */

static void
test_deleted_while_read(void **state)
{
	struct rig *r = up_slow(32 * MIB, 14);
	uint64_t empty = used(r);
	struct mkv_drv_req q;

	(void)state;
	put(r, "a", 1000000, 1);
	scrub_at(r, 1024 * MIB);
	turn_until_reading(r);
	rig_req(&q, MKV_DRV_DELETE, "a");
	rig_submit(r, 2, &q);
	assert_int_equal(rig_wait(r, 2)->status, 0);
	assert_int_equal(slow.n, 1);
	assert_true(used(r) > empty);
	slow_go();
	pass(r);
	assert_int_equal(COUNTED(r, corrupt_total), 0);
	assert_int_equal(used(r), empty);
	assert_int_equal(r->e->ix.used, 0);
	rig_destroy(&r);
}

/* Bad bytes of an object that was replaced meanwhile are nobody's any more. */
static void
test_replaced_while_read(void **state)
{
	struct rig *r = up_slow(32 * MIB, 15);
	struct mkv_drv_req q;

	(void)state;
	put(r, "a", 1000000, 1);
	flip(r, place(r, "a", 5));
	scrub_at(r, 1024 * MIB);
	turn_until_reading(r);
	rig_put_req(r, &q, 0, "a", 500000, 2);
	q.flags = MKV_DRV_F_VERIFIED;
	rig_submit(r, 0, &q);
	assert_int_equal(rig_wait(r, 0)->status, 0);
	slow_go();
	pass(r);
	assert_int_equal(rig_get(r, "a", 0, MIB, 2), 0);
	assert_int_equal(COUNTED(r, corrupt_total) + r->e->fl.sum.events, 0);
	rig_destroy(&r);
}

/* The end does not wait for more than the read that is under way. */
static void
test_closed_while_read(void **state)
{
	struct rig *r = up_slow(32 * MIB, 17);

	(void)state;
	put(r, "a", 1000000, 1);
	scrub_at(r, 1024 * MIB);
	turn_until_reading(r);
	slow_go();
	assert_int_equal(rig_close(r, 0), 0);
	assert_int_equal(rig_open(r), 0);
	assert_int_equal(rig_get(r, "a", 0, MIB, 1), 0);
	rig_destroy(&r);
}

/* All at once, for a while: nothing good is dropped, and at the end the books are right. */
static void
test_churn(void **state)
{
	struct rig *r = up(RIG_SIM, 32 * MIB, 16);
	struct rnd rnd;
	char key[16];

	(void)state;
	rnd_init(&rnd, 16);
	r->o.scrub_interval_ns = MKV_NS_PER_MS;
	scrub_at(r, 4096 * MIB);
	for (unsigned i = 0; i < 3000; i++) {
		snprintf(key, sizeof(key), "k%u", rnd_below(&rnd, 60));
		switch (rnd_below(&rnd, 4)) {
		case 0:
			(void)rig_op(r, MKV_DRV_DELETE, key, NULL);
			break;
		default:
			assert_int_equal(rig_put(r, key, rnd_below(&rnd, 1000000), i, rnd_below(&rnd, 2) ? MKV_DRV_F_VERIFIED : 0), 0);
			break;
		}
		for (unsigned n = rnd_below(&rnd, 60); n > 0; n--)
			rig_turn(r);
	}
	assert_true(COUNTED(r, scrub_objects_total) > 500);
	assert_int_equal(COUNTED(r, corrupt_total) + COUNTED(r, writer_crc_total), 0);
	scrub_at(r, 0);
	for (unsigned i = 0; i < 60; i++) {
		snprintf(key, sizeof(key), "k%u", i);
		(void)rig_op(r, MKV_DRV_DELETE, key, NULL);
	}
	for (unsigned i = 0; i < 200; i++)
		rig_turn(r);
	assert_int_equal(used(r), 0);
	assert_int_equal(r->e->ix.used, 0);
	assert_int_equal(r->e->unproved, 0);
	assert_int_equal(r->e->pg.free, r->e->pg.count - (r->e->pg.open != FRAME_NIL));
	rig_destroy(&r);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_flipped_bit),
		cmocka_unit_test(test_wrong_once),
		cmocka_unit_test(test_unreadable),
		cmocka_unit_test(test_unreadable_unverified),
		cmocka_unit_test(test_several_runs),
		cmocka_unit_test(test_page_in_cache),
		cmocka_unit_test(test_page_lost),
		cmocka_unit_test(test_liar),
		cmocka_unit_test(test_liar_in_memory),
		cmocka_unit_test(test_unverified_first),
		cmocka_unit_test(test_unverified_between_passes),
		cmocka_unit_test(test_goes_on_after_a_restart),
		cmocka_unit_test(test_rate),
		cmocka_unit_test(test_walk_in_turns),
		cmocka_unit_test(test_gives_way),
		cmocka_unit_test(test_deleted_while_read),
		cmocka_unit_test(test_replaced_while_read),
		cmocka_unit_test(test_closed_while_read),
		cmocka_unit_test(test_churn),
	};

	return (cmocka_run_group_tests(tests, NULL, NULL));
}
