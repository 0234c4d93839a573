/*
 * Whose turn it is at the medium, and reads of the same bytes: what is given to it, when, and who has what it answered.
 *
 * A gate stands before the simulated medium: data I/O of chosen classes is held back until the test lets it go or fails it.
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
#include "worker/drive/engine_priv.h"

#define MIB		(1ull << 20)
#define TURNS_MAX	5000
#define PIECE		(128u * 1024)	/* of a large transfer, where an extent has 1 MiB */
#define GETS		(1u << MKV_IO_GET)
#define PUTS		(1u << MKV_IO_PUT)

struct held {
	struct mkv_mio	*mio;
	void		*buf;
	uint64_t	off;
	uint32_t	bytes;
};

struct gate {
	struct media_pass p;
	struct rig	*r;
	unsigned	hold;		/* classes whose data does not pass */
	struct held	held[512];
	unsigned	n;
	struct mkv_mio	*fail;		/* ends with an error in the next pump */
	unsigned	passed[MKV_IO_CLASSES];	/* data I/O given to the gate */
};

static struct gate gate;

static int
gate_holds(struct mkv_mio *mio, void *buf, uint32_t bytes, uint64_t off)
{
	if (gate.r->e == NULL || off < gate.r->e->sb.data_off)
		return (0);
	gate.passed[mio->io_class]++;
	if ((gate.hold & (1u << mio->io_class)) == 0)
		return (0);
	MKV_ASSERT(gate.n < MKV_ARRAY_LEN(gate.held));
	gate.held[gate.n++] = (struct held){ mio, buf, off, bytes };
	return (1);
}

static void
gate_read(struct mkv_media *m, struct mkv_mio *mio, void *buf, uint32_t bytes, uint64_t off, int idx)
{
	if (!gate_holds(mio, buf, bytes, off))
		media_pass_read(m, mio, buf, bytes, off, idx);
}

static void
gate_write(struct mkv_media *m, struct mkv_mio *mio, const void *buf, uint32_t bytes, uint64_t off, int idx)
{
	if (!gate_holds(mio, (void *)(uintptr_t)buf, bytes, off))
		media_pass_write(m, mio, buf, bytes, off, idx);
}

static int
gate_pump(struct mkv_media *m, uint64_t until_ns)
{
	struct mkv_mio *mio = gate.fail;

	gate.fail = NULL;
	if (mio != NULL)
		mio->done(mio, MKV_E_IO);
	return (media_pass_pump(m, until_ns));
}

static struct mkv_media *
gate_wrap(struct rig *r, struct mkv_media *in)
{
	memset(&gate, 0, sizeof(gate));
	gate.r = r;
	(void)media_pass(&gate.p, in);
	gate.p.ops.read = gate_read;
	gate.p.ops.write = gate_write;
	gate.p.ops.pump = gate_pump;
	return (&gate.p.m);
}

/* The oldest one that is held, taken off. */
static struct held
gate_take(void)
{
	struct held h = gate.held[0];

	MKV_ASSERT(gate.n > 0);
	memmove(gate.held, gate.held + 1, --gate.n * sizeof(h));
	return (h);
}

static void
gate_let(unsigned n)
{
	while (n-- > 0 && gate.n > 0) {
		struct held h = gate_take();

		if (h.mio->io_class == MKV_IO_GET)
			media_pass_read(&gate.p.m, h.mio, h.buf, h.bytes, h.off, -1);
		else
			media_pass_write(&gate.p.m, h.mio, h.buf, h.bytes, h.off, -1);
	}
}

/* All of it, and what comes after. */
static void
gate_open(void)
{
	gate.hold = 0;
	gate_let(UINT32_MAX);
}

static uint64_t
gate_bytes(void)
{
	uint64_t bytes = 0;

	for (unsigned i = 0; i < gate.n; i++)
		bytes += gate.held[i].bytes;
	return (bytes);
}

static struct rig *
up(void)
{
	struct rig *r = rig_create(RIG_SIM, 64 * MIB, 3);

	r->wrap = gate_wrap;
	assert_int_equal(mkv_metrics_open_private(&r->o.metrics), 0);
	assert_int_equal(rig_open(r), 0);
	return (r);
}

static void
down(struct rig *r)
{
	struct mkv_metrics *m = r->o.metrics;

	rig_destroy(&r);
	mkv_metrics_close(&m);
}

static uint64_t
count(const struct rig *r, enum mkv_metric id, unsigned label)
{
	return (mkv_metric_get(r->o.metrics, id, label));
}

static void
turns(struct rig *r, unsigned n)
{
	while (n-- > 0)
		rig_turn(r);
}

static void
get_of(struct rig *r, unsigned slot, unsigned client, const char *key, uint64_t off, uint64_t len, uint64_t timeout_ns)
{
	struct mkv_call c = { .client = client, .slot_idx = slot };
	struct mkv_drv_req q;

	rig_req(&q, MKV_DRV_GET, key);
	rig_bufs(&q, slot, MKV_MIN(MKV_ALIGN_UP(len, 65536) + 131072, RIG_SLOT_BYTES));
	memset(rig_mem(r, slot), 0x5a, RIG_SLOT_BYTES);
	q.off = off;
	q.len = len;
	q.deadline_ns = timeout_ns ? r->now_ns + timeout_ns : 0;
	MKV_ASSERT(!r->slot[slot].busy);
	r->slot[slot].busy = 1;
	r->slot[slot].done = 0;
	c.gen = ++r->slot[slot].gen;
	assert_int_equal(mkv_engine_submit(r->e, &c, &q), 0);
}

/* The slot is answered with these bytes. */
static void
got(struct rig *r, unsigned slot, uint64_t off, uint64_t len, uint64_t seed)
{
	const struct mkv_drv_rep *p = rig_wait(r, slot);

	assert_int_equal(p->status, 0);
	assert_int_equal(p->off, off);
	assert_int_equal(p->len, len);
	assert_true(rig_value_is(rig_mem(r, slot) + p->skip, off, len, seed));
}

static void
ended(struct rig *r, unsigned slot, int status)
{
	assert_int_equal(rig_wait(r, slot)->status, status);
}

static void
test_classes_are_counted(void **state)
{
	struct rig *r = up();

	(void)state;
	assert_int_equal(rig_put(r, "a", 300000, 1, 0), 0);
	assert_int_equal(rig_get(r, "a", 0, 300000, 1), 0);
	assert_int_equal(count(r, MKV_M_drive_io_bytes_total, MKV_IO_PUT), 303104);
	assert_int_equal(count(r, MKV_M_drive_io_bytes_total, MKV_IO_GET), 303104);
	assert_true(count(r, MKV_M_drive_io_total, MKV_IO_JOURNAL) > 1);
	turns(r, 200);
	assert_int_equal(r->e->sched.c[MKV_IO_PUT].in_flight + r->e->sched.c[MKV_IO_GET].in_flight + r->e->sched.c[MKV_IO_JOURNAL].in_flight, 0);
	assert_int_equal(r->e->sched.c[MKV_IO_GET].bytes + r->e->sched.c[MKV_IO_PUT].bytes, 0);
	assert_int_equal(r->e->dios_used, 0);
	assert_int_equal(rig_close(r, 0), 0);
	assert_true(count(r, MKV_M_drive_io_total, MKV_IO_CHECKPOINT) > 2);
	down(r);
}

/* Large reads fill the window and no more; a small one passes them. */
static void
test_a_small_read_passes(void **state)
{
	struct rig *r = up();
	char key[8];

	(void)state;
	for (unsigned i = 0; i < 8; i++) {
		snprintf(key, sizeof(key), "l%u", i);
		assert_int_equal(rig_put(r, key, MIB, i, 0), 0);
	}
	assert_int_equal(rig_put(r, "small", 65536, 99, 0), 0);
	r->e->sched.window_bytes = MIB;
	gate.hold = GETS;
	for (unsigned i = 0; i < 8; i++) {
		snprintf(key, sizeof(key), "l%u", i);
		get_of(r, i, 0, key, 0, MIB, 0);
	}
	turns(r, 3);
	assert_true(gate_bytes() <= MIB && gate_bytes() > MIB - PIECE);
	get_of(r, 8, 0, "small", 0, 65536, 0);
	turns(r, 3);
	assert_int_equal(gate.held[gate.n - 1].bytes, 65536);
	for (unsigned i = 0; i < 200 && !r->slot[7].done; i++) {
		gate_let(1);
		turns(r, 1);
		assert_true(gate_bytes() <= MKV_MAX(r->e->sched.window_bytes, MIB) + 65536);
	}
	for (unsigned i = 0; i < 8; i++)
		got(r, i, 0, MIB, i);
	got(r, 8, 0, 65536, 99);
	assert_int_equal(gate.passed[MKV_IO_GET], 8 * (MIB / PIECE + 1) + 1);	/* two buffers each */
	assert_true(count(r, MKV_M_drive_io_waits_total, MKV_IO_GET) > 0);
	down(r);
}

/* Reads and writes that both wait have turns by their shares, 4 to 2. */
static void
test_turns(void **state)
{
	struct rig *r = up();
	struct mkv_drv_req q;
	unsigned get0, put0;
	char key[8];

	(void)state;
	for (unsigned i = 0; i < 8; i++) {
		snprintf(key, sizeof(key), "l%u", i);
		assert_int_equal(rig_put(r, key, MIB, i, 0), 0);
	}
	r->e->sched.window_bytes = MIB;
	gate.hold = GETS | PUTS;
	for (unsigned i = 0; i < 8; i++) {
		snprintf(key, sizeof(key), "p%u", i);
		rig_put_req(r, &q, 8 + i, key, MIB, i);
		rig_submit(r, 8 + i, &q);
	}
	turns(r, 1);
	for (unsigned i = 0; i < 8; i++) {
		snprintf(key, sizeof(key), "l%u", i);
		get_of(r, i, 0, key, 0, MIB, 0);
	}
	turns(r, 3);
	get0 = gate.passed[MKV_IO_GET];
	put0 = gate.passed[MKV_IO_PUT];
	for (unsigned i = 0; i < 36; i++) {
		r->e->sched.window_bytes = MIB;
		gate_let(1);
		turns(r, 1);
	}
	get0 = gate.passed[MKV_IO_GET] - get0;
	put0 = gate.passed[MKV_IO_PUT] - put0;
	assert_true(get0 + put0 >= 30);
	assert_true(get0 > put0 && put0 * 4 > get0);
	gate_open();
	for (unsigned i = 0; i < 16; i++) {
		if (i < 8)
			got(r, i, 0, MIB, i);
		else
			ended(r, i, 0);
	}
	down(r);
}

/* Whatever fills the window and never ends: the other kind goes on, a piece at a time. */
static void
test_nothing_starves(void **state)
{
	struct rig *r = up();
	struct mkv_drv_req q;

	(void)state;
	assert_int_equal(rig_put(r, "l", MIB, 1, 0), 0);
	assert_int_equal(rig_put(r, "m", MIB, 2, 0), 0);
	r->e->sched.window_bytes = 1;
	gate.hold = GETS;
	get_of(r, 1, 0, "l", 0, MIB, 0);
	turns(r, 2);
	assert_int_equal(gate.n, 1);
	assert_int_equal(rig_put(r, "p", MIB, 3, 0), 0);
	gate_open();
	got(r, 1, 0, MIB, 1);
	gate.hold = PUTS;
	r->e->sched.window_bytes = 1;
	rig_put_req(r, &q, 2, "q", MIB, 4);
	rig_submit(r, 2, &q);
	turns(r, 2);
	assert_int_equal(gate.n, 1);
	get_of(r, 3, 0, "m", 0, MIB, 0);
	got(r, 3, 0, MIB, 2);
	gate_open();
	ended(r, 2, 0);
	down(r);
}

/* What has not begun when its time is over does not begin; its units are free again. */
static void
test_late_transfers_are_cut(void **state)
{
	struct rig *r = up();
	struct mkv_drv_req q;
	uint64_t free_units;
	unsigned n;

	(void)state;
	assert_int_equal(rig_put(r, "l", MIB, 1, 0), 0);
	turns(r, 300);
	free_units = r->e->al.free_units;
	r->e->sched.window_bytes = 1;
	gate.hold = GETS | PUTS;
	rig_put_req(r, &q, 2, "q", MIB, 4);
	q.deadline_ns = r->now_ns + 10 * MKV_NS_PER_MS;
	rig_submit(r, 2, &q);
	get_of(r, 3, 0, "l", 0, MIB, 10 * MKV_NS_PER_MS);
	turns(r, 300);
	assert_int_equal(gate.n, 2);
	assert_false(r->slot[2].done || r->slot[3].done);		/* their buffers are under I/O */
	n = gate.passed[MKV_IO_GET] + gate.passed[MKV_IO_PUT];
	gate_open();
	ended(r, 2, MKV_E_TIMEOUT);
	ended(r, 3, MKV_E_TIMEOUT);
	assert_int_equal(gate.passed[MKV_IO_GET] + gate.passed[MKV_IO_PUT], n);
	assert_int_equal(r->e->al.free_units, free_units);
	assert_int_equal(rig_get(r, "l", 0, MIB, 1), 0);
	down(r);
}

/* The window follows the medium: small when pieces take long, large again when they do not. */
static void
test_window(void **state)
{
	struct rig *r = up();
	struct sched *s = &r->e->sched;
	struct mkv_req q = { .x = { .queue = SCHED_LARGE } };
	uint64_t before;

	(void)state;
	for (unsigned i = 0; i < 1000; i++) {
		s->q[SCHED_LARGE].in_flight++;
		r->now_ns += MKV_NS_PER_MS;
		s->full = 1;
		sched_done(r->e, &q, 200 * MKV_NS_PER_US);
	}
	before = s->window_bytes;
	assert_int_equal(before, 16 * MIB);
	for (unsigned i = 0; i < 400; i++) {
		s->q[SCHED_LARGE].in_flight++;
		r->now_ns += MKV_NS_PER_MS;
		sched_done(r->e, &q, 5 * MKV_NS_PER_MS);
	}
	assert_int_equal(s->window_bytes, MIB);
	for (unsigned i = 0; i < 40; i++) {
		s->q[SCHED_LARGE].in_flight++;
		r->now_ns += MKV_NS_PER_MS;
		s->full = 1;
		sched_done(r->e, &q, 250 * MKV_NS_PER_US);
	}
	assert_true(s->window_bytes > MIB && s->window_bytes < before);
	down(r);
}

/* Background: on a quiet drive; within its share; after its patience. Not more at a time than it may. */
static void
test_background(void **state)
{
	struct rig *r = up();
	struct mkv_engine *e = r->e;

	(void)state;
	r->now_ns += 10 * MKV_NS_PER_MS;
	assert_true(sched_may(e, MKV_IO_SCRUB, 65536));
	sched_begin(e, MKV_IO_GET, 65536);
	sched_turn(e);
	assert_false(sched_may(e, MKV_IO_SCRUB, 65536));
	assert_true(sched_next_ns(e) <= r->now_ns + MKV_NS_PER_MS);
	r->now_ns += 999 * MKV_NS_PER_MS;
	assert_false(sched_may(e, MKV_IO_SCRUB, 65536));
	r->now_ns += MKV_NS_PER_MS;
	assert_true(sched_may(e, MKV_IO_SCRUB, 65536));
	sched_begin(e, MKV_IO_SCRUB, 65536);
	assert_false(sched_may(e, MKV_IO_SCRUB, 65536));
	sched_end(e, MKV_IO_SCRUB, 65536);
	/* 3 % of what requests move. */
	sched_end(e, MKV_IO_GET, 65536);
	for (unsigned i = 0; i < 5; i++) {
		sched_begin(e, MKV_IO_GET, MIB);
		sched_end(e, MKV_IO_GET, MIB);
	}
	assert_true(sched_may(e, MKV_IO_SCRUB, 65536));
	sched_begin(e, MKV_IO_SCRUB, 65536);
	sched_end(e, MKV_IO_SCRUB, 65536);
	sched_begin(e, MKV_IO_GET, MIB);
	assert_true(sched_may(e, MKV_IO_SCRUB, 65536));
	sched_begin(e, MKV_IO_SCRUB, 65536);
	assert_false(sched_may(e, MKV_IO_SCRUB, 65536));		/* used up */
	assert_true(sched_may(e, MKV_IO_CHECKPOINT, 65536));
	sched_begin(e, MKV_IO_CHECKPOINT, 65536);
	assert_true(sched_may(e, MKV_IO_TRIM, 1u << 30));		/* a discard moves nothing */
	sched_begin(e, MKV_IO_TRIM, 1u << 30);
	sched_begin(e, MKV_IO_EVICT, 65536);
	assert_false(sched_may(e, MKV_IO_CHECKPOINT, 65536));		/* so much at a time */
	sched_end(e, MKV_IO_EVICT, 65536);
	sched_end(e, MKV_IO_TRIM, 1u << 30);
	sched_end(e, MKV_IO_CHECKPOINT, 65536);
	sched_end(e, MKV_IO_SCRUB, 65536);
	sched_end(e, MKV_IO_GET, MIB);
	sched_turn(e);
	assert_true(sched_next_ns(e) == UINT64_MAX);			/* nobody asked: nothing wakes it */
	down(r);
}

/* Requests are always under way: the checkpoint keeps ahead of the journal all the same. */
static void
test_checkpoint_keeps_ahead(void **state)
{
	struct rig *r = rig_create(RIG_SIM, 64 * MIB, 3);
	uint64_t used = 0;
	char key[16];

	(void)state;
	r->wrap = gate_wrap;
	r->o.journal_bytes = 512u * 1024;
	r->o.objects_max = 8192;
	assert_int_equal(mkv_metrics_open_private(&r->o.metrics), 0);
	assert_int_equal(rig_open(r), 0);
	assert_int_equal(rig_put(r, "l", 65536, 1, 0), 0);
	gate.hold = GETS;
	get_of(r, 1, 0, "l", 0, 65536, 0);
	for (unsigned i = 0; i < 6000 && count(r, MKV_M_drive_checkpoints_total, 0) < 8; i++) {
		/* It has earned nothing and waits for nothing: only the journal moves it. */
		r->e->sched.c[MKV_IO_CHECKPOINT].credit = 0;
		r->e->sched.c[MKV_IO_CHECKPOINT].turn_ns = r->now_ns;
		snprintf(key, sizeof(key), "k%u", i % 4000);
		assert_int_equal(rig_put(r, key, 100, i, 0), 0);
		used = MKV_MAX(used, r->e->jn.next_seq - r->e->jn.tail);
	}
	assert_true(count(r, MKV_M_drive_checkpoints_total, 0) >= 8);
	assert_true(used < (uint64_t)r->e->sb.journal_blocks * 3 / 4);
	gate_open();
	got(r, 1, 0, 65536, 1);
	down(r);
}

/* One read, three answers, none before it has ended. */
static void
test_followers(void **state)
{
	struct rig *r = up();

	(void)state;
	assert_int_equal(rig_put(r, "k", 300000, 7, 0), 0);
	gate.hold = GETS;
	gate.passed[MKV_IO_GET] = 0;
	get_of(r, 1, 0, "k", 0, 300000, 0);
	get_of(r, 2, 0, "k", 0, 300000, 0);
	get_of(r, 3, 1, "k", 70000, 100000, 0);			/* inside, edges in the middle of chunks; another front */
	turns(r, 50);
	assert_int_equal(gate.passed[MKV_IO_GET], 3);			/* two buffers, pieces of 128 KiB */
	assert_int_equal(gate.n, 3);
	gate_let(2);
	turns(r, 5);
	assert_false(r->slot[1].done || r->slot[2].done || r->slot[3].done);
	gate_let(1);
	got(r, 1, 0, 300000, 7);
	got(r, 2, 0, 300000, 7);
	got(r, 3, 70000, 100000, 7);
	assert_int_equal(gate.passed[MKV_IO_GET], 3);
	assert_int_equal(count(r, MKV_M_drive_coalesced_reads_total, 0), 2);
	assert_int_equal(count(r, MKV_M_drive_coalesced_read_bytes_total, 0), 303104 + 131072);
	assert_int_equal(count(r, MKV_M_drive_gets_total, 0), 3);
	/* Nobody reads any more: the next one reads for itself. */
	get_of(r, 4, 0, "k", 0, 300000, 0);
	turns(r, 5);
	assert_int_equal(gate.n, 3);
	gate_open();
	got(r, 4, 0, 300000, 7);
	down(r);
}

/* A range that is not all inside is read. */
static void
test_no_follower_of_less(void **state)
{
	struct rig *r = up();

	(void)state;
	assert_int_equal(rig_put(r, "k", 300000, 7, 0), 0);
	gate.hold = GETS;
	get_of(r, 1, 0, "k", 65536, 65536, 0);
	get_of(r, 2, 0, "k", 65536, 131072, 0);
	get_of(r, 3, 0, "k", 0, 65536, 0);
	turns(r, 5);
	gate_open();
	got(r, 1, 65536, 65536, 7);
	got(r, 2, 65536, 131072, 7);
	got(r, 3, 0, 65536, 7);
	assert_int_equal(count(r, MKV_M_drive_coalesced_reads_total, 0), 0);
	down(r);
}

/* Two objects of one bucket: each has its own bytes. */
static void
test_no_follower_of_another(void **state)
{
	struct rig *r = up();
	struct mkv_drv_req q;
	uint32_t ent[300];
	unsigned pairs = 0;
	char key[8];

	(void)state;
	for (unsigned i = 0; i < 300; i++) {
		snprintf(key, sizeof(key), "k%u", i);
		assert_int_equal(rig_put(r, key, 4096, i, 0), 0);
		rig_req(&q, MKV_DRV_GET, key);
		ent[i] = mkv_index_find(&r->e->ix, q.digest);
	}
	for (unsigned a = 0; a < 300; a++) {
		for (unsigned b = a + 1; b < 300 && pairs < 8; b++) {
			if (ent[a] % LEAD_BUCKETS != ent[b] % LEAD_BUCKETS)
				continue;
			pairs++;
			gate.hold = GETS;
			snprintf(key, sizeof(key), "k%u", a);
			get_of(r, 1, 0, key, 0, 4096, 0);
			snprintf(key, sizeof(key), "k%u", b);
			get_of(r, 2, 0, key, 0, 4096, 0);
			turns(r, 3);
			assert_int_equal(gate.n, 2);
			gate_open();
			got(r, 1, 0, 4096, a);
			got(r, 2, 0, 4096, b);
		}
	}
	assert_int_equal(pairs, 8);
	down(r);
}

/* The leader's read fails: that is its own misfortune. */
static void
test_leader_fails(void **state)
{
	struct rig *r = up();

	(void)state;
	assert_int_equal(rig_put(r, "k", 65536, 7, 0), 0);
	gate.hold = GETS;
	get_of(r, 1, 0, "k", 0, 65536, 0);
	get_of(r, 2, 0, "k", 0, 65536, 0);
	get_of(r, 3, 0, "k", 0, 65536, 0);
	turns(r, 5);
	assert_int_equal(gate.n, 1);
	gate.fail = gate_take().mio;
	turns(r, 5);
	ended(r, 1, MKV_E_IO);
	assert_int_equal(gate.n, 2);
	gate_open();
	got(r, 2, 0, 65536, 7);
	got(r, 3, 0, 65536, 7);
	assert_int_equal(count(r, MKV_M_drive_coalesced_reads_total, 0), 0);
	down(r);
}

/* The leader's client dies: its read ends all the same, before its buffers are given back, and its followers have the bytes. */
static void
test_leader_dies(void **state)
{
	struct rig *r = up();

	(void)state;
	assert_int_equal(rig_put(r, "k", 65536, 7, 0), 0);
	gate.hold = GETS;
	get_of(r, 1, 1, "k", 0, 65536, 0);
	get_of(r, 2, 0, "k", 0, 65536, 0);
	turns(r, 2);
	assert_int_equal(gate.n, 1);
	mkv_engine_client_gone(r->e, 1);
	turns(r, 200);
	assert_int_equal(r->client_done, 0);
	assert_false(r->slot[2].done);
	gate_open();
	got(r, 2, 0, 65536, 7);
	turns(r, 5);
	assert_int_equal(r->client_done, 1);
	assert_false(r->slot[1].done);
	down(r);
}

/* It dies, or is late, before all of its read has begun: followers begin anew. */
static void
test_leader_is_cut(void **state)
{
	struct rig *r = up();

	(void)state;
	assert_int_equal(rig_put(r, "k", MIB, 7, 0), 0);
	for (unsigned dies = 0; dies < 2; dies++) {
		gate.hold = GETS;
		r->e->sched.window_bytes = 1;
		get_of(r, 1 + dies, 1 + dies, "k", 0, MIB, dies ? 0 : 10 * MKV_NS_PER_MS);
		get_of(r, 3 + dies, 0, "k", 0, MIB, 0);
		turns(r, 2);
		assert_int_equal(gate.n, 1);
		if (dies)
			mkv_engine_client_gone(r->e, 2);
		turns(r, 300);
		assert_false(r->slot[3 + dies].done);
		gate_open();
		got(r, 3 + dies, 0, MIB, 7);
		if (!dies)
			ended(r, 1, MKV_E_TIMEOUT);
	}
	assert_int_equal(count(r, MKV_M_drive_coalesced_reads_total, 0), 0);
	assert_int_equal(r->client_done, 1);
	down(r);
}

/* A follower's own deadline, and its own client: its buffers are under no I/O. */
static void
test_follower_leaves(void **state)
{
	struct rig *r = up();

	(void)state;
	assert_int_equal(rig_put(r, "k", 65536, 7, 0), 0);
	gate.hold = GETS;
	get_of(r, 1, 0, "k", 0, 65536, 0);
	get_of(r, 2, 0, "k", 0, 65536, 10 * MKV_NS_PER_MS);
	get_of(r, 3, 1, "k", 0, 65536, 0);
	get_of(r, 4, 0, "k", 0, 65536, 0);
	turns(r, 2);
	mkv_engine_client_gone(r->e, 1);
	turns(r, 200);
	assert_int_equal(gate.n, 1);
	assert_true(r->slot[2].done && !r->slot[1].done && !r->slot[4].done);
	ended(r, 2, MKV_E_TIMEOUT);
	assert_int_equal(r->client_done, 1);
	gate_open();
	got(r, 1, 0, 65536, 7);
	got(r, 4, 0, 65536, 7);
	assert_int_equal(count(r, MKV_M_drive_coalesced_reads_total, 0), 1);
	assert_int_equal(rig_mem(r, 2)[0], 0x5a);			/* nothing came late */
	assert_int_equal(rig_mem(r, 3)[0], 0x5a);
	down(r);
}

/* The key is replaced while its old object is read: who asks now gets the new one. */
static void
test_replaced_between(void **state)
{
	struct rig *r = up();

	(void)state;
	assert_int_equal(rig_put(r, "k", 65536, 7, 0), 0);
	gate.hold = GETS;
	get_of(r, 1, 0, "k", 0, 65536, 0);
	get_of(r, 2, 0, "k", 0, 65536, 0);
	turns(r, 2);
	assert_int_equal(rig_put(r, "k", 65536, 8, 0), 0);
	get_of(r, 3, 0, "k", 0, 65536, 0);
	turns(r, 2);
	assert_int_equal(gate.n, 2);
	gate_open();
	got(r, 1, 0, 65536, 7);
	got(r, 2, 0, 65536, 7);
	got(r, 3, 0, 65536, 8);
	down(r);
}

/* Copies are made in the loop: so many bytes for one read, the next one leads. */
static void
test_followers_are_bounded(void **state)
{
	struct rig *r = up();

	(void)state;
	assert_int_equal(rig_put(r, "k", MIB, 7, 0), 0);
	gate.hold = GETS;
	for (unsigned i = 0; i < 20; i++)
		get_of(r, i, 0, "k", 0, MIB, 0);
	turns(r, 5);
	gate_open();
	for (unsigned i = 0; i < 20; i++)
		got(r, i, 0, MIB, 7);
	assert_int_equal(count(r, MKV_M_drive_coalesced_reads_total, 0), 20 - 3);
	down(r);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_classes_are_counted), cmocka_unit_test(test_a_small_read_passes), cmocka_unit_test(test_turns),
		cmocka_unit_test(test_nothing_starves), cmocka_unit_test(test_late_transfers_are_cut), cmocka_unit_test(test_window),
		cmocka_unit_test(test_background), cmocka_unit_test(test_checkpoint_keeps_ahead), cmocka_unit_test(test_followers),
		cmocka_unit_test(test_no_follower_of_less), cmocka_unit_test(test_no_follower_of_another), cmocka_unit_test(test_leader_fails),
		cmocka_unit_test(test_leader_dies), cmocka_unit_test(test_leader_is_cut), cmocka_unit_test(test_follower_leaves),
		cmocka_unit_test(test_replaced_between), cmocka_unit_test(test_followers_are_bounded),
	};

	return (cmocka_run_group_tests(tests, NULL, NULL));
}
