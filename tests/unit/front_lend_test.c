/*
 * Regions that drives read into themselves: which bytes go there and which never do, and how long a client's memory stays out. A front with fake drives (front_rig.h).
 */
#include "config.h"

#include "tests/unit/front_lend_up.h"

#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmocka.h>

#include "common/base/crc.h"
#include "common/base/err.h"

static uint8_t untouched[4096 + CHUNK + 4096];		/* what a get of one chunk could reach, and more */

static void
stored(struct rig_client *c, const char *key, size_t n)
{
	rig_fill(value, n, (uint32_t)n + 1);
	assert_int_equal(rig_put(c, key, value, n), 0);
}

static void
with(int memory_mode, void (*fn)(struct rig *, struct rig_client *))
{
	with_front(memory_mode, 1, fn);
}

/* No byte but the value's changes, whatever its size and place; what lies behind its end on the medium is nowhere. */
static void
run_sizes(struct rig *r, struct rig_client *c)
{
	struct memory m = stable(r, c, 1);

	for (uint32_t n = 1; n <= 8193; n += n < 8 || (n > 4088 && n < 4104) || n > 8186 ? 1 : 509) {
		char key[16];

		snprintf(key, sizeof(key), "k%u", n);
		stored(c, key, n);
		for (uint64_t at = 0; at < 8192; at += 4096) {
			assert_int_equal(end_get(c, get(c, key, at, CHUNK)), n);
			only(&m, at, value, n);
			memset(m.p, GUARD, at + n);
		}
	}
	assert_true(direct(r) > 40);
	assert_int_equal(metric(r, MKV_M_front_region_get_bytes_total) % 4096 != 0, 1);
	assert_true(metric(r, MKV_M_front_region_direct_get_bytes_total) > 0);
	memory_free(&m);
}

static void
test_sizes(void **state MKV_UNUSED)
{
	with(0, run_sizes);
}

/* Every size around two blocks at both ends of one, and every place in a block: there it is copied, all of it. */
static void
run_every(struct rig *r, struct rig_client *c)
{
	struct memory m = stable(r, c, 1);

	for (uint32_t n = 1; n <= 8193; n++) {
		uint64_t at = n <= 4096 ? n - 1 : n % 2 * 4096;

		stored(c, "every", n);
		assert_int_equal(end_get(c, get(c, "every", at, CHUNK)), n);
		assert_memory_equal(m.p + at, value, n);
		memset(m.p + at, GUARD, n);
		assert_memory_equal(m.p, untouched, sizeof(untouched));
	}
	only(&m, 0, untouched, 1);
	memory_free(&m);
}

static void
test_every(void **state MKV_UNUSED)
{
	memset(untouched, GUARD, sizeof(untouched));
	with(0, run_every);
}

/* In pieces, and exactly the room that it takes. */
static void
run_large(struct rig *r, struct rig_client *c)
{
	static const uint64_t sizes[] = { CHUNK, 100000, PART - 1, PART, PART + 1, 2 * PART, 2 * PART + 4096, sizeof(value) };
	struct memory m = stable(r, c, 1);

	for (unsigned i = 0; i < MKV_ARRAY_LEN(sizes); i++) {
		char key[16];
		unsigned before = direct(r);
		uint64_t copied = metric(r, MKV_M_front_region_get_bytes_total), straight = metric(r, MKV_M_front_region_direct_get_bytes_total), n = sizes[i];

		snprintf(key, sizeof(key), "l%u", i);
		stored(c, key, n);
		assert_int_equal(end_get(c, get(c, key, 4096 * i, n)), n);
		only(&m, 4096 * i, value, n);
		memset(m.p, GUARD, ROOM);
		assert_true(direct(r) > before);
		copied = metric(r, MKV_M_front_region_get_bytes_total) - copied;
		straight = metric(r, MKV_M_front_region_direct_get_bytes_total) - straight;
		assert_int_equal(copied + straight, n);
		assert_true(copied < CHUNK);
	}
	memory_free(&m);
}

static void
test_large(void **state MKV_UNUSED)
{
	with(0, run_large);
}

/* What a drive may not do itself is right all the same: addresses and offsets on no boundary, a range that ends in a chunk, several segments. */
static void
run_copied(struct rig *r, struct rig_client *c)
{
	const uint64_t n = 2 * PART + 70000;
	struct mkv_wire_seg two[2] = { { 0, CHUNK, 1 }, { CHUNK, PART, 1 } }, one = { 0, PART, 1 };
	struct memory m = stable(r, c, 1);

	stored(c, "k", n);
	stored(c, "small", 200000);
	rig_fill(value, n, (uint32_t)n + 1);
	for (uint64_t at = 1; at < 4096; at += 1023) {
		assert_int_equal(end_get(c, get(c, "k", at, n)), n);
		only(&m, at, value, n);
		memset(m.p, GUARD, ROOM);
	}
	assert_int_equal(end_get(c, begin_get(c, "k", 4095, UINT64_MAX, &one, 1)), PART);
	only(&m, 0, value + 4095, PART);
	assert_int_equal(end_get(c, begin_get(c, "k", 0, UINT64_MAX, two, 2)), PART + CHUNK);
	only(&m, 0, value, PART + CHUNK);
	memset(m.p, GUARD, ROOM);
	assert_int_equal(direct(r), 0);
	assert_int_equal(end_get(c, begin_get(c, "k", CHUNK, PART + 77, &one, 1)), PART);	/* the room ends first */
	only(&m, 0, value + CHUNK, PART);
	memset(m.p, GUARD, ROOM);
	one.bytes = 70001;
	rig_fill(value, 200000, 200001);
	assert_int_equal(end_get(c, begin_get(c, "small", CHUNK, UINT64_MAX, &one, 1)), 70001);
	only(&m, 0, value + CHUNK, 70001);
	assert_int_equal(metric(r, MKV_M_front_errors_total), 0);
	memory_free(&m);
}

static void
test_copied(void **state MKV_UNUSED)
{
	with(0, run_copied);
}

/* Nobody waits for a drive to take a region; one that refuses is not asked again. */
static void
run_not_there(struct rig *r, struct rig_client *c)
{
	struct memory m = memory_of(ROOM), plain = memory_of(ROOM);

	stored(c, "k", PART);
	r->drive[0].lend_hold = r->drive[1].lend_hold = 1;
	assert_int_equal(region_with(c, 1, ROOM, m.fd, MKV_WIRE_REGION_STABLE), 0);
	assert_int_equal(region(c, 2, ROOM, plain.fd), 0);
	assert_int_equal(end_get(c, get(c, "k", 0, PART)), PART);
	assert_int_equal(r->drive[0].n_ask, 1);
	only(&m, 0, value, PART);
	r->drive[0].lend_status = r->drive[1].lend_status = MKV_E_NOMEM;
	r->drive[0].lend_hold = r->drive[1].lend_hold = 0;
	rig_pump_ms(r, 1);
	assert_int_equal(end_get(c, get(c, "k", 0, PART)), PART);
	assert_int_equal(direct(r), 0);
	assert_int_equal(r->f->lends_asked, 0);
	assert_int_equal(drop(c, 1), 0);
	r->drive[0].lend_status = r->drive[1].lend_status = MKV_E_RETRY;	/* now not, later */
	assert_int_equal(region_with(c, 1, ROOM, m.fd, MKV_WIRE_REGION_STABLE), 0);
	rig_pump_ms(r, 1);
	assert_int_equal(r->f->lends_here, 0);
	assert_int_equal(metric(r, MKV_M_front_regions_not_lent_total), 2);
	r->drive[0].lend_status = r->drive[1].lend_status = 0;
	r->ahead_ns += MKV_NS_PER_SEC;
	lent(r, 1);
	assert_int_equal(end_get(c, get(c, "k", 0, PART)), PART);
	assert_int_equal(direct(r), 1);
	memory_free(&m);
	memory_free(&plain);
}

static void
test_not_there(void **state MKV_UNUSED)
{
	with(0, run_not_there);
}

/* DROP is answered when no drive has the memory, nor may be at work in it; others have their turn meanwhile. */
static void
run_dropped(struct rig *r, struct rig_client *c)
{
	struct memory m = stable(r, c, 1);
	struct rig_client other;
	uint64_t id, got;

	rig_client_open(r, &other);
	rig_client_handshake(&other);
	stored(c, "k", PART);
	hold(r, 1);
	got = get(c, "k", 0, PART);
	held(r, 1);
	id = begin_drop(c, 1);
	assert_int_equal(rig_recv(c, 20), 0);
	assert_int_equal(rig_send(c, MKV_WIRE_PING, 0, 0, NULL, 0, NULL, 0), id + 1);
	assert_int_equal(answer(c, id + 1), 0);
	r->drive[0].lend_hold = r->drive[1].lend_hold = 1;
	hold(r, 0);
	assert_int_equal(end_get(c, got), PART);
	only(&m, 0, value, PART);
	assert_int_equal(rig_recv(c, 20), 0);
	assert_int_equal(r->f->n_regions, 1);
	assert_int_equal(r->drive[0].n_lent, 1);
	r->drive[0].lend_hold = r->drive[1].lend_hold = 0;
	assert_int_equal(answer(c, id), 0);
	assert_int_equal(r->f->n_regions, 0);
	rig_put_get(&other, "goes on", 100000);
	rig_client_close(&other);
	memory_free(&m);
}

static void
test_dropped(void **state MKV_UNUSED)
{
	with(0, run_dropped);
}

/* Idle memory: the answer comes with the last drive's word. */
static void
run_dropped_idle(struct rig *r, struct rig_client *c)
{
	struct memory m = stable(r, c, 1);
	uint64_t id;

	r->drive[1].lend_hold = 1;
	id = begin_drop(c, 1);
	assert_int_equal(rig_recv(c, 20), 0);
	assert_int_equal(r->drive[0].n_lent, 0);
	assert_int_equal(r->f->n_regions, 1);
	assert_int_equal(r->f->regions_bytes, 2 * ROOM);
	r->drive[1].lend_hold = 0;
	assert_int_equal(answer(c, id), 0);
	assert_int_equal(r->f->n_regions, 0);
	memory_free(&m);
}

static void
test_dropped_idle(void **state MKV_UNUSED)
{
	with(0, run_dropped_idle);
}

/* One that comes too late is done all the same: whatever its answer says, the client takes it for that. */
static void
run_dropped_late(struct rig *r, struct rig_client *c)
{
	struct memory m = stable(r, c, 1);
	uint64_t id, got;

	stored(c, "k", PART);
	hold(r, 1);
	got = get(c, "k", 0, PART);
	held(r, 1);
	c->deadline_us = 1;
	id = begin_drop(c, 1);
	assert_int_equal(rig_recv(c, 20), 0);
	hold(r, 0);
	assert_int_equal(end_get(c, got), PART);
	assert_int_equal(answer(c, id), MKV_E_TIMEOUT);
	assert_int_equal(r->f->n_regions, 0);
	c->deadline_us = 600000000;
	memory_free(&m);
}

static void
test_dropped_late(void **state MKV_UNUSED)
{
	with(0, run_dropped_late);
}

/* A client that asks for it and does not stay to hear that it was done, before and behind its deadline. */
static void
run_dropped_gone(struct rig *r, struct rig_client *c)
{
	for (unsigned late = 0; late < 2; late++) {
		struct rig_client other;
		struct memory m;

		rig_client_open(r, &other);
		rig_client_handshake(&other);
		m = stable(r, &other, 1);
		r->drive[1].lend_hold = 1;
		other.deadline_us = 10000000;
		(void)begin_drop(&other, 1);
		assert_int_equal(rig_recv(&other, 20), 0);
		r->ahead_ns += late * 20 * MKV_NS_PER_SEC;
		rig_pump_ms(r, 5);
		rig_client_close(&other);
		rig_pump_ms(r, 20);
		assert_int_equal(r->f->n_regions, 1);
		rig_put_get(c, "goes on", 100000);
		r->drive[1].lend_hold = 0;
		for (unsigned i = 0; i < RIG_PATIENCE_MS && r->f->n_reqs != 0; i++)
			rig_pump_ms(r, 1);
		rig_pump_ms(r, 5);
		assert_int_equal(r->f->n_regions, 0);
		assert_int_equal(r->f->n_reqs, 0);
		memory_free(&m);
	}
}

static void
test_dropped_gone(void **state MKV_UNUSED)
{
	with(0, run_dropped_gone);
}

/* A drive that hangs: its caller's answer stays away with the memory, whatever the deadline, and nobody else's does. */
static void
run_hung(struct rig *r, struct rig_client *c)
{
	struct memory m = stable(r, c, 1);
	uint64_t id;

	stored(c, "k", PART);
	hold(r, 1);
	c->deadline_us = 10000000;
	id = get(c, "k", 0, PART);
	held(r, 1);
	r->ahead_ns += 20 * MKV_NS_PER_SEC;
	assert_int_equal(rig_recv(c, 20), 0);
	assert_int_equal(metric(r, MKV_M_front_expired_total), 1);
	c->deadline_us = 600000000;
	r->ahead_ns += 60 * MKV_NS_PER_SEC;
	assert_int_equal(rig_send(c, MKV_WIRE_PING, 0, 0, NULL, 0, NULL, 0), id + 1);
	assert_int_equal(answer(c, id + 1), 0);
	hold(r, 0);
	assert_int_equal(answer(c, id), MKV_E_TIMEOUT);
	assert_int_equal(end_get(c, get(c, "k", 0, PART)), PART);
	memory_free(&m);
}

static void
test_hung(void **state MKV_UNUSED)
{
	with(0, run_hung);
}

static void
run_cancelled(struct rig *r, struct rig_client *c)
{
	struct memory m = stable(r, c, 1);
	uint64_t id;

	stored(c, "k", PART);
	hold(r, 1);
	id = get(c, "k", 0, PART);
	held(r, 1);
	cancel_held(r, c, id);
	memory_free(&m);
}

static void
test_cancelled(void **state MKV_UNUSED)
{
	with(0, run_cancelled);
}

/*
 * A drive dies with a client's memory: until the supervisor says that its I/O is over, its device may write there. The next life is shown the region again; until it has it, and
 * for that get until the memory is back, values take the other way, or wait.
 */
static void
run_died(struct rig *r, struct rig_client *c)
{
	struct memory m = stable(r, c, 1);
	unsigned at;
	uint64_t id;

	stored(c, "k", PART);
	hold(r, 1);
	id = get(c, "k", 0, PART);
	held(r, 1);
	at = r->drive[0].n_held == 1 ? 0 : 1;
	r->drive[0].hold = r->drive[1].hold = 0;
	rig_drive_kill(r, at);
	assert_int_equal(rig_recv(c, 5), 0);
	r->drive[at].lend_hold = 1;
	rig_drive_up(r, at, 12);
	assert_int_equal(rig_recv(c, 20), 0);		/* asked nowhere: the dead life's bytes could come behind */
	assert_int_equal(r->drive[at].n_ask, 1);
	only(&m, 0, m.p, 0);
	memset(m.p, 0x11, PART);			/* and there they are */
	mkv_front_drive_drained(r->f, at, 9);		/* not that life */
	assert_int_equal(rig_recv(c, 20), 0);
	mkv_front_drive_drained(r->f, at, 11);
	assert_int_equal(end_get(c, id), PART);
	only(&m, 0, value, PART);
	assert_int_equal(direct(r), 0);
	r->drive[at].lend_hold = 0;
	lent(r, 1);
	assert_int_equal(end_get(c, get(c, "k", 0, PART)), PART);
	assert_int_equal(direct(r), 1);
	memory_free(&m);
}

static void
test_died(void **state MKV_UNUSED)
{
	with(0, run_died);
}

/* Another client's get is with a drive, which dies; the get's deadline passes without an answer. Which drive. */
static unsigned
lose_get_of(struct rig *r, struct rig_client *c, struct rig_client *other, struct memory *m)
{
	unsigned at;

	stored(c, "k", PART);
	rig_client_open(r, other);
	rig_client_handshake(other);
	*m = stable(r, other, 1);
	hold(r, 1);
	other->deadline_us = 10000000;
	(void)get(other, "k", 0, PART);
	held(r, 1);
	at = r->drive[0].n_held == 1 ? 0 : 1;
	r->drive[0].hold = r->drive[1].hold = 0;
	rig_drive_kill(r, at);
	r->ahead_ns += 20 * MKV_NS_PER_SEC;
	assert_int_equal(rig_recv(other, 20), 0);
	return (at);
}

/* The same, and the deadline passes, the client leaves: nothing is freed before its time, everything then. */
static void
run_died_late(struct rig *r, struct rig_client *c)
{
	struct memory m;
	struct rig_client other;
	unsigned at = lose_get_of(r, c, &other, &m);

	rig_client_close(&other);
	rig_pump_ms(r, 20);
	assert_int_equal(r->f->n_regions, 1);
	assert_int_equal(r->f->n_reqs, 1);
	rig_drive_up(r, at, 12);
	rig_pump_ms(r, 5);
	assert_int_equal(r->drive[at].n_lent, 0);	/* its client is gone: no drive is shown it any more */
	assert_int_equal(r->f->n_regions, 1);
	mkv_front_drive_drained(r->f, at, 11);
	for (unsigned i = 0; i < RIG_PATIENCE_MS && r->f->n_regions != 0; i++)
		rig_pump_ms(r, 1);
	assert_int_equal(r->f->n_regions, 0);
	assert_int_equal(r->f->n_reqs, 0);
	memory_free(&m);
}

static void
test_died_late(void **state MKV_UNUSED)
{
	with(0, run_died_late);
}

/* A dead drive that stays away: the answers that it keeps would be their session's places for ever; the session ends, and others go on. */
static void
run_died_away(struct rig *r, struct rig_client *c)
{
	struct rig_client other;
	struct memory m;
	unsigned at = lose_get_of(r, c, &other, &m);

	r->ahead_ns += 60 * MKV_NS_PER_SEC;
	assert_int_equal(rig_recv(&other, RIG_PATIENCE_MS), -1);
	rig_client_close(&other);
	r->ahead_ns = 0;
	assert_int_equal(r->f->n_conns, 1);
	assert_int_equal(r->f->n_regions, 1);
	rig_drive_up(r, at, 12);
	mkv_front_drive_drained(r->f, at, 11);
	for (unsigned i = 0; i < RIG_PATIENCE_MS && r->f->n_regions != 0; i++)
		rig_pump_ms(r, 1);
	assert_int_equal(r->f->n_regions, 0);
	assert_int_equal(r->f->n_reqs, 0);
	rig_put_get(c, "goes on", 100000);
	memory_free(&m);
}

static void
test_died_away(void **state MKV_UNUSED)
{
	with(0, run_died_away);
}

/* A dead drive that never comes back is no reason for the front to stay when it is told to end, whether the client is gone or waits. */
static void
died_for_good(int waits)
{
	struct rig_conf conf = { .drives = 2, .regions_bytes = 1ull << 30, .lend = 1, .kind = MKV_IOQ_AUTO };
	struct rig_client c;
	struct memory m;
	struct rig r;

	rig_open(&r, &conf);
	r.from = &unix_socket;
	rig_client_open(&r, &c);
	rig_client_handshake(&c);
	stored(&c, "k", PART);
	m = stable(&r, &c, 1);
	hold(&r, 1);
	(void)get(&c, "k", 0, PART);
	held(&r, 1);
	rig_drive_kill(&r, r.drive[0].n_held == 1 ? 0 : 1);
	if (!waits)
		rig_client_close(&c);
	rig_pump_ms(&r, 5);
	assert_int_equal(r.f->n_reqs, 1);
	mkv_front_stop(r.f, 1000 * MKV_NS_PER_SEC);
	for (unsigned i = 0; i < RIG_PATIENCE_MS / 10 && !mkv_front_idle(r.f); i++)
		rig_pump_ms(&r, 1);
	assert_true(mkv_front_idle(r.f));
	if (waits)
		rig_client_close(&c);
	rig_close(&r);
	memory_free(&m);
}

static void
test_died_for_good(void **state MKV_UNUSED)
{
	died_for_good(0);
	died_for_good(1);
}

/* A client that is gone in the middle: its memory lives as long as a drive is at work in it, and counts as long. */
static void
run_killed(struct rig *r, struct rig_client *c)
{
	struct rig_client other;
	struct memory m;

	stored(c, "k", PART);
	rig_client_open(r, &other);
	rig_client_handshake(&other);
	m = stable(r, &other, 1);
	hold(r, 1);
	(void)get(&other, "k", 0, PART);
	held(r, 1);
	rig_client_close(&other);
	rig_pump_ms(r, 10);
	assert_int_equal(r->f->n_regions, 1);
	assert_int_equal(r->f->regions_bytes, 2 * ROOM);
	assert_int_equal(r->drive[0].n_lent + r->drive[1].n_lent, 2);
	hold(r, 0);
	for (unsigned i = 0; i < RIG_PATIENCE_MS && r->f->n_regions != 0; i++)
		rig_pump_ms(r, 1);
	assert_int_equal(r->f->n_regions, 0);
	rig_put_get(c, "goes on", 100000);
	memory_free(&m);
}

static void
test_killed(void **state MKV_UNUSED)
{
	with(0, run_killed);
}

/* How much of a get of one chunk did the copying front not see? */
static uint64_t
straight_into(struct rig *r, struct rig_client *c, uint32_t number)
{
	uint64_t before = metric(r, MKV_M_front_region_direct_get_bytes_total);
	struct mkv_wire_seg s = { 0, CHUNK, number };

	assert_int_equal(end_get(c, begin_get(c, "k", 0, UINT64_MAX, &s, 1)), CHUNK);
	return (metric(r, MKV_M_front_region_direct_get_bytes_total) - before);
}

/* So many are asked about at a time, so many regions of a process are lent; the others are copied to, until one of those goes. */
static void
run_many(struct rig *r, struct rig_client *c)
{
	struct memory m[40];

	r->drive[0].lend_hold = r->drive[1].lend_hold = 1;
	for (unsigned i = 0; i < 40; i++) {
		m[i] = memory_of(CHUNK);
		assert_int_equal(region_with(c, i + 1, CHUNK, m[i].fd, MKV_WIRE_REGION_STABLE), 0);
	}
	assert_int_equal(r->drive[0].n_ask + r->drive[1].n_ask, 32);
	assert_int_equal(r->f->lends_asked, 32);
	r->drive[0].lend_hold = r->drive[1].lend_hold = 0;
	lent(r, 32);
	stored(c, "k", CHUNK);
	assert_int_equal(drop(c, 39), 0);
	assert_int_equal(straight_into(r, c, 33), 0);
	assert_int_equal(drop(c, 7), 0);
	lent(r, 32);
	assert_int_equal(straight_into(r, c, 33), CHUNK);
	for (uint32_t n = 1; n <= 8; n++)
		if (n != 7)
			assert_int_equal(drop(c, n), 0);
	lent(r, 31);
	for (unsigned i = 0; i < 40; i++)
		memory_free(&m[i]);
}

static void
test_many(void **state MKV_UNUSED)
{
	with(0, run_many);
}

/* Memory that comes and goes without end costs a drive no more than its share of time; what is larger than that is lent to none. */
static void
run_rate(struct rig *r, struct rig_client *c)
{
	struct memory m = memory_of(64 << 20);
	uint64_t began = mkv_now_ns();
	int large = mkv_os_shm_create("large", 300ull << 20, 0);

	for (uint32_t i = 1; i <= 4; i++) {
		assert_int_equal(region_with(c, i, m.bytes, m.fd, MKV_WIRE_REGION_STABLE), 0);
		lent(r, 1);
		assert_int_equal(drop(c, i), 0);
	}
	assert_true(mkv_now_ns() - began > 290 * MKV_NS_PER_MS);
	assert_int_equal(mkv_os_shm_fill(large, 300ull << 20), 0);
	assert_int_equal(region_with(c, 9, 300ull << 20, large, MKV_WIRE_REGION_STABLE), MKV_E_TOOBIG);
	r->f->conf.regions_bytes = 4ull << 30;
	assert_int_equal(region_with(c, 9, 300ull << 20, large, MKV_WIRE_REGION_STABLE), 0);
	rig_pump_ms(r, 1);
	assert_int_equal(r->drive[0].n_ask + r->drive[0].n_lent + r->f->lends_asked, 0);
	assert_int_equal(drop(c, 9), 0);
	r->f->conf.regions_bytes = 1ull << 30;
	close(large);
	memory_free(&m);
}

static void
test_rate(void **state MKV_UNUSED)
{
	with(0, run_rate);
}

/* The same of the smallest ones: a drive is not shown more of them than it takes in that share. */
static void
run_flood(struct rig *r, struct rig_client *c)
{
	struct memory m = memory_of(4096);
	uint64_t began = mkv_now_ns(), periods;

	for (unsigned i = 0; i < 1500; i++) {
		assert_int_equal(region_with(c, 1, m.bytes, m.fd, MKV_WIRE_REGION_STABLE), 0);
		assert_int_equal(drop(c, 1), 0);
	}
	periods = (mkv_now_ns() - began) / (100 * MKV_NS_PER_MS) + 2;
	assert_true(r->drive[0].n_shown > 100);
	assert_true(r->drive[0].n_shown <= 256 * periods);
	memory_free(&m);
}

static void
test_flood(void **state MKV_UNUSED)
{
	with(0, run_flood);
}

/* Memory mode: there is nothing that a drive could read. */
static void
run_memory_mode(struct rig *r, struct rig_client *c)
{
	struct memory m = memory_of(ROOM);

	stored(c, "k", PART);
	assert_int_equal(region_with(c, 1, ROOM, m.fd, MKV_WIRE_REGION_STABLE), 0);
	assert_int_equal(end_get(c, get(c, "k", 0, PART)), PART);
	only(&m, 0, value, PART);
	assert_int_equal(r->drive[0].n_ask + r->drive[0].n_lent, 0);
	memory_free(&m);
}

static void
test_memory_mode(void **state MKV_UNUSED)
{
	with(1, run_memory_mode);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_sizes),
		cmocka_unit_test(test_every),
		cmocka_unit_test(test_large),
		cmocka_unit_test(test_copied),
		cmocka_unit_test(test_not_there),
		cmocka_unit_test(test_dropped),
		cmocka_unit_test(test_dropped_idle),
		cmocka_unit_test(test_dropped_late),
		cmocka_unit_test(test_dropped_gone),
		cmocka_unit_test(test_hung),
		cmocka_unit_test(test_cancelled),
		cmocka_unit_test(test_died),
		cmocka_unit_test(test_died_late),
		cmocka_unit_test(test_died_away),
		cmocka_unit_test(test_died_for_good),
		cmocka_unit_test(test_killed),
		cmocka_unit_test(test_many),
		cmocka_unit_test(test_rate),
		cmocka_unit_test(test_flood),
		cmocka_unit_test(test_memory_mode),
	};

	mkv_crc_init();
	return (cmocka_run_group_tests(tests, NULL, NULL));
}
