/*
 * Requests that wait inside the engine: for a transfer, for a page or its frame, for a group that never comes. Each of them is answered, whatever the
 * medium does to the others.
 *
 * A gate stands before the simulated medium: it can hold reads back and fail writes to a range.
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
#include "tests/crash/media_pass.h"
#include "tests/crash/rig.h"
#include "worker/drive/layout.h"

#define MIB		(1ull << 20)
#define TURNS_MAX	2000
#define PER_PAGE	7u		/* records with such keys in a page, at most */
#define PAGES		150u		/* more than the smallest cache has frames */
#define READERS		160u

struct gate {
	struct media_pass p;
	int		hold;		/* reads do not come back */
	uint64_t	fail_from, fail_to;
	struct mkv_mio	*failed, *due;	/* said at the second pump after the write, so that the engine has gone on meanwhile */
};

static struct gate gate;

static void
gate_read(struct mkv_media *m, struct mkv_mio *mio, void *buf, uint32_t bytes, uint64_t off, int idx)
{
	if (!gate.hold)
		media_pass_read(m, mio, buf, bytes, off, idx);
}

static void
gate_write(struct mkv_media *m, struct mkv_mio *mio, const void *buf, uint32_t bytes, uint64_t off, int idx)
{
	if (off < gate.fail_from || off >= gate.fail_to) {
		media_pass_write(m, mio, buf, bytes, off, idx);
		return;
	}
	mio->next = gate.failed;
	gate.failed = mio;
}

static int
gate_pump(struct mkv_media *m, uint64_t until_ns)
{
	struct mkv_mio *mio = gate.due, *next;

	gate.due = gate.failed;
	gate.failed = NULL;
	for (; mio != NULL; mio = next) {
		next = mio->next;
		mio->done(mio, MKV_E_IO);
	}
	return (media_pass_pump(m, until_ns));
}

static struct mkv_media *
gate_wrap(struct rig *r, struct mkv_media *in)
{
	(void)r;
	memset(&gate, 0, sizeof(gate));
	(void)media_pass(&gate.p, in);
	gate.p.ops.read = gate_read;
	gate.p.ops.write = gate_write;
	gate.p.ops.pump = gate_pump;
	return (&gate.p.m);
}

static struct rig *
up(unsigned queue_depth)
{
	struct rig *r = rig_create(RIG_SIM, 64 * MIB, 3);

	r->wrap = gate_wrap;
	r->o.queue_depth = queue_depth;
	r->o.page_cache_bytes = 0;
	assert_int_equal(rig_open(r), 0);
	return (r);
}

/* The same store with nothing in memory. */
static void
again(struct rig *r)
{
	assert_int_equal(rig_close(r, 0), 0);
	assert_int_equal(rig_open(r), 0);
}

/* A key so long that few records fit a page. */
static const char *
key_of(unsigned i)
{
	static char key[501];

	memset(key, 'k', sizeof(key) - 1);
	snprintf(key, 12, "%010u", i);
	key[10] = 'k';
	return (key);
}

static unsigned
answered(const struct rig *r, unsigned n)
{
	unsigned done = 0;

	for (unsigned i = 0; i < n; i++)
		done += r->slot[i].done != 0;
	return (done);
}

static void
turn_until(struct rig *r, unsigned n)
{
	for (unsigned i = 0; i < TURNS_MAX && answered(r, n) < n; i++)
		rig_turn(r);
	assert_int_equal(answered(r, n), n);
}

/* More transfers than there are, and records that are not in memory: a get that waits for both goes on after both. */
static void
test_gets_without_a_transfer(void **state)
{
	struct rig *r = up(16);
	struct mkv_drv_req q;

	(void)state;
	for (unsigned i = 0; i < 8; i++) {
		char name[4] = { 'v', (char)('0' + i) };

		assert_int_equal(rig_put(r, name, MIB, i, 0), 0);
		for (unsigned k = 0; k < PER_PAGE; k++)
			assert_int_equal(rig_put(r, key_of(8 * i + k), 100, 1, 0), 0);
	}
	again(r);
	for (unsigned i = 0; i < 8; i++) {
		char name[4] = { 'v', (char)('0' + i) };

		rig_req(&q, MKV_DRV_GET, name);
		q.len = MIB;
		q.n_bufs = MKV_DRV_BUFS_MAX;
		for (unsigned k = 0; k < MKV_DRV_BUFS_MAX; k++)
			q.bufs[k] = (struct mkv_drv_buf){ .off = (uint64_t)i * RIG_SLOT_BYTES + k * 65536, .bytes = 65536 };
		rig_submit(r, i, &q);
	}
	turn_until(r, 8);
	for (unsigned i = 0; i < 8; i++) {
		assert_int_equal(r->slot[i].rep.status, 0);
		assert_true(rig_value_is(rig_mem(r, i), 0, MIB, i));
	}
	rig_destroy(&r);
}

static void
fill_pages(struct rig *r)
{
	for (unsigned i = 0; i < PAGES * PER_PAGE; i++)
		assert_int_equal(rig_put(r, key_of(i), 100, i, 0), 0);
	again(r);
}

static void
stat_pages(struct rig *r, unsigned n)
{
	struct mkv_drv_req q;

	for (unsigned i = 0; i < n; i++) {
		rig_req(&q, MKV_DRV_STAT, key_of(i * PER_PAGE % (PAGES * PER_PAGE)));
		rig_submit(r, i, &q);
	}
}

/* More pages are asked for than the cache has frames, and nobody has a deadline: a frame whose read is done serves the next. */
static void
test_more_readers_than_frames(void **state)
{
	struct rig *r = up(READERS);

	(void)state;
	fill_pages(r);
	stat_pages(r, READERS);
	turn_until(r, READERS);
	for (unsigned i = 0; i < READERS; i++)
		assert_int_equal(r->slot[i].rep.status, 0);
	rig_destroy(&r);
}

/* All frames are under I/O that does not end: who waits for one is answered at the deadline. */
static void
test_deadline_without_a_frame(void **state)
{
	static const unsigned ops[] = { MKV_DRV_STAT, MKV_DRV_GET, MKV_DRV_DELETE, MKV_DRV_PUT };
	struct rig *r = up(READERS);
	struct mkv_drv_req q;

	(void)state;
	fill_pages(r);
	gate.hold = 1;
	stat_pages(r, 140);
	rig_turn(r);
	for (unsigned i = 0; i < MKV_ARRAY_LEN(ops); i++) {
		rig_put_req(r, &q, i, key_of(145 * PER_PAGE + i), 100, 1);
		q.op = (uint16_t)ops[i];
		q.n_bufs = ops[i] == MKV_DRV_PUT || ops[i] == MKV_DRV_GET;
		q.flags = ops[i] == MKV_DRV_PUT ? MKV_DRV_F_IF_ABSENT : 0;
		q.len = 100;
		q.deadline_ns = r->now_ns + 20 * MKV_NS_PER_MS;
		rig_submit(r, 200 + i, &q);
	}
	for (unsigned i = 0; i < TURNS_MAX; i++)
		rig_turn(r);
	for (unsigned i = 0; i < MKV_ARRAY_LEN(ops); i++) {
		assert_true(r->slot[200 + i].done);
		assert_int_equal(r->slot[200 + i].rep.status, MKV_E_TIMEOUT);
	}
	rig_destroy(&r);
}

/* A page cannot be written while puts gather for the next group: that group never begins, and its puts hear it. */
static void
test_readonly_while_gathering(void **state)
{
	struct rig *r = up(32);
	const struct mkv_sb *sb;
	struct mkv_drv_req q;
	unsigned n = 0, refused = 0;

	(void)state;
	assert_int_equal(rig_put(r, "before", 1000, 1, 0), 0);
	sb = (const void *)(r->sim->now + MKV_SB_OFF_A);
	gate.fail_from = sb->page_off;
	gate.fail_to = sb->page_off + (uint64_t)sb->page_count * MKV_BLOCK;
	/* One more each turn: there is always a group under way and one that gathers. */
	for (; n < 64 && !r->readonly; n++) {
		rig_put_req(r, &q, n, key_of(n), 100, n);
		rig_submit(r, n, &q);
		rig_turn(r);
	}
	assert_true(r->readonly);
	turn_until(r, n);
	for (unsigned i = 0; i < n; i++) {
		int status = r->slot[i].rep.status;

		assert_true(status == 0 || status == MKV_E_READONLY);
		refused += status != 0;
	}
	assert_true(refused > 0);
	assert_int_equal(mkv_engine_busy(r->e), 0);
	rig_destroy(&r);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_gets_without_a_transfer), cmocka_unit_test(test_more_readers_than_frames),
		cmocka_unit_test(test_deadline_without_a_frame), cmocka_unit_test(test_readonly_while_gathering),
	};

	return (cmocka_run_group_tests(tests, NULL, NULL));
}
