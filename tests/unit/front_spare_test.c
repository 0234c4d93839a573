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

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_idle),
		cmocka_unit_test(test_death),
		cmocka_unit_test(test_short),
	};

	return (cmocka_run_group_tests(tests, NULL, NULL));
}
