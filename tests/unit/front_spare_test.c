/*
 * Runs of an arena that a front reserves ahead (memory mode): taken by puts of the size that keeps coming, given back when none come, gone with their
 * drive. rig_close() asserts that no slot is left.
 */
#include "config.h"

#include "tests/unit/front_rig.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "common/base/err.h"

#define VALUE	(256u << 10)
#define PUTS	20u
#define RING	16u			/* what the ring to a drive holds here */

static const struct rig_conf mem = { .drives = 1, .kind = MKV_IOQ_AUTO, .memory_mode = 1 };
static uint8_t value[VALUE], back[VALUE];

static unsigned
spares(const struct rig *r)
{
	unsigned n = 0;

	for (unsigned i = 0; i < SPARES_MAX; i++)
		n += r->f->drive[0].spare[i].state == SPARE_HELD;
	return (n);
}

static void
put_some(struct rig_client *c, unsigned from, unsigned n)
{
	for (unsigned i = from; i < from + n; i++) {
		char key[16];
		size_t got;

		snprintf(key, sizeof(key), "k%u", i);
		rig_fill(value, VALUE, i);
		assert_int_equal(rig_put(c, key, value, VALUE), 0);
		assert_int_equal(rig_get(c, key, 0, UINT64_MAX, back, &got), 0);
		assert_int_equal(got, VALUE);
		assert_memory_equal(value, back, VALUE);
	}
}

static void
with(void (*run)(struct rig *, struct rig_client *))
{
	struct rig_client c;
	struct rig r;

	rig_open(&r, &mem);
	rig_client_open(&r, &c);
	rig_client_handshake(&c);
	run(&r, &c);
	rig_client_close(&c);
	rig_close(&r);
}

/* Every reservation ends, as a value or given back. */
static void
run_idle(struct rig *r, struct rig_client *c)
{
	const unsigned *n = r->drive[0].count;

	put_some(c, 0, PUTS);
	rig_pump_ms(r, 5);
	assert_true(spares(r) > 0);
	rig_pump_ms(r, 400);
	assert_int_equal(spares(r), 0);
	assert_int_equal(n[MKV_DRV_COMMIT], PUTS);
	assert_true(n[MKV_DRV_ABORT] > 0);
	assert_int_equal(n[MKV_DRV_RESERVE], n[MKV_DRV_COMMIT] + n[MKV_DRV_ABORT]);
	put_some(c, PUTS, 2);
}

/* A new process knows nothing of what the old one had reserved. */
static void
run_death(struct rig *r, struct rig_client *c)
{
	put_some(c, 0, PUTS);
	rig_pump_ms(r, 5);
	assert_true(spares(r) > 0);
	rig_map(r, 0, MKV_DRIVE_RESTARTING);
	rig_drive_kill(r, 0);
	assert_int_equal(spares(r), 0);
	r->drive[0].count[MKV_DRV_RESERVE] = 0;
	rig_drive_up(r, 0, 11);
	rig_map(r, 0, MKV_DRIVE_ONLINE);
	put_some(c, PUTS, 1);
	assert_true(r->drive[0].count[MKV_DRV_RESERVE] > 0);
}

/* Where space is short there are none: others need it now. */
static void
run_short(struct rig *r, struct rig_client *c)
{
	put_some(c, 0, PUTS);
	rig_pump_ms(r, 5);
	assert_true(spares(r) > 0);
	r->drive[0].force[MKV_DRV_RESERVE] = MKV_E_NOSPACE;
	put_some(c, PUTS, 1);			/* into a spare; the next one is refused */
	rig_pump_ms(r, 5);
	assert_int_equal(spares(r), 0);
	rig_fill(value, VALUE, 1);
	assert_int_equal(rig_put(c, "full", value, VALUE), MKV_E_NOSPACE);
	r->drive[0].force[MKV_DRV_RESERVE] = 0;
	put_some(c, 2 * PUTS, 2);
}

/* What is reserved for a value that is on its way, half of it received. */
static void
begin_put(struct rig *r, struct rig_client *c)
{
	uint8_t body[1024];
	struct mkv_hdr h;
	size_t n;

	rig_fill(value, VALUE, 1);
	n = rig_put_body(body, "half", 4, value, VALUE, 0, VALUE, 0);
	rig_frame_make(c, &h, MKV_WIRE_PUT, 0, c->next_id++, body, n, VALUE);
	rig_write(c, &h, sizeof(h));
	rig_write(c, body, n);
	rig_write(c, value, VALUE / 2);
	rig_pump_ms(r, 5);
	assert_int_equal(r->drive[0].count[MKV_DRV_RESERVE], 1);
}

/* Its drive's ring is full when the bytes are here, and the deadline passes: the COMMIT never goes there, and what was reserved is given back, or nobody could have it. */
static void
run_unsent(struct rig *r, struct rig_client *c)
{
	struct rig_client other;
	uint8_t body[64];

	rig_client_open(r, &other);
	rig_client_handshake(&other);
	other.deadline_us = 60000000;
	c->deadline_us = 1000000;
	begin_put(r, c);
	r->drive[0].stopped = 1;
	for (unsigned i = 0; i < RING; i++)
		(void)rig_send(&other, MKV_WIRE_STAT, 0, 0, body, rig_get_body(body, "none", 4, 0, 0), NULL, 0);
	rig_pump_ms(r, 5);
	assert_int_equal(mkv_metric_get(r->m, MKV_M_front_ring_full_total, 0), 0);
	rig_write(c, value + VALUE / 2, VALUE / 2);
	rig_pump_ms(r, 5);
	assert_true(mkv_metric_get(r->m, MKV_M_front_ring_full_total, 0) > 0);
	r->ahead_ns = 2 * MKV_NS_PER_SEC;
	assert_int_equal(rig_recv(c, RIG_PATIENCE_MS), 1);
	assert_int_equal(c->f.hdr.op, MKV_WIRE_PUT);
	assert_int_equal(c->f.hdr.status, -MKV_E_TIMEOUT);
	r->ahead_ns = 0;
	r->drive[0].stopped = 0;
	for (unsigned i = 0; i < RING; i++)
		assert_int_equal(rig_recv(&other, RIG_PATIENCE_MS), 1);
	rig_client_close(&other);
	c->deadline_us = 60000000;
	rig_pump_ms(r, 5);
	assert_int_equal(r->drive[0].count[MKV_DRV_COMMIT], 0);
	assert_int_equal(r->drive[0].count[MKV_DRV_ABORT], 1);
	put_some(c, 0, 2);
}

static void
say_same(struct mkv_desc *d, struct mkv_drv_rep *rep)
{
	if (d->op == MKV_DRV_RESERVE)
		rep->same = 1;
}

/* A drive that says of bytes which come by the socket that they are there, and was not asked: they are read and forgotten, and the connection goes on. */
static void
run_same(struct rig *r, struct rig_client *c)
{
	r->drive[0].mangle = say_same;
	rig_fill(value, VALUE, 1);
	assert_int_equal(rig_put(c, "same", value, VALUE), MKV_E_PEER);
	r->drive[0].mangle = NULL;
	put_some(c, 0, 2);
}

static void
test_idle(void **state)
{
	(void)state;
	with(run_idle);
}

static void
test_death(void **state)
{
	(void)state;
	with(run_death);
}

static void
test_short(void **state)
{
	(void)state;
	with(run_short);
}

static void
test_unsent(void **state)
{
	(void)state;
	with(run_unsent);
}

static void
test_same(void **state)
{
	(void)state;
	with(run_same);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_idle),
		cmocka_unit_test(test_death),
		cmocka_unit_test(test_short),
		cmocka_unit_test(test_unsent),
		cmocka_unit_test(test_same),
	};

	return (cmocka_run_group_tests(tests, NULL, NULL));
}
