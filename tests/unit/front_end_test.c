/*
 * Endings of requests that the simulation (tests/sim) found to be wrong: what they leave behind must not stop the connection or the front. rig_close()
 * asserts that everything was given back.
 */
#include "config.h"

#include "tests/unit/front_rig.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "common/base/assert.h"
#include "common/base/err.h"

#define PART		(1u << 20)
#define SLOTS		4u
#define SPIN_SECONDS	60u

static void
put_begin(struct rig_client *c, const char *key, const uint8_t *v, size_t bytes, int more)
{
	uint8_t body[512];
	size_t b = rig_put_body(body, key, strlen(key), v, bytes, 0, more ? MKV_WIRE_SIZE_UNKNOWN : bytes, 0);

	rig_send(c, MKV_WIRE_PUT, more ? MKV_WIRE_F_MORE : 0, 0, body, b, v, bytes);
}

static void
expect_status(struct rig_client *c, int status)
{
	assert_int_equal(rig_recv(c, RIG_PATIENCE_MS), 1);
	assert_int_equal(c->f.hdr.status, -status);
}

/* Memory mode: the deadline recalls a reservation that no drive has been given. Its payload is passed over, and the connection goes on. */
static void
test_recalled_reservation(void **state)
{
	const struct rig_conf conf = { .drives = 1, .memory_mode = 1, .kind = MKV_IOQ_AUTO };
	uint8_t *v = calloc(1, 100000);
	struct rig_client c;
	struct rig r;

	(void)state;
	rig_open(&r, &conf);
	rig_client_open(&r, &c);
	rig_client_handshake(&c);
	rig_drive_kill(&r, 0);
	c.deadline_us = 30000;
	put_begin(&c, "k", v, 100000, 0);
	expect_status(&c, MKV_E_TIMEOUT);
	c.deadline_us = RIG_PATIENCE_MS * 1000;
	rig_send(&c, MKV_WIRE_PING, 0, 0, NULL, 0, NULL, 0);
	expect_status(&c, 0);
	mkv_front_drive_drained(r.f, 0, r.drive[0].epoch);
	rig_client_close(&c);
	rig_close(&r);
	free(v);
}

/* The drive answers the first of what it holds, and holds the rest. */
static void
answer_first(struct rig_drive *d)
{
	struct mkv_desc rest[SLOTS];
	unsigned n = d->n_held - 1;

	assert_true(d->n_held >= 1 && n < SLOTS);
	memcpy(rest, d->held + 1, n * sizeof(rest[0]));
	d->n_held = 1;
	rig_drive_answer_held(d);
	memcpy(d->held, rest, n * sizeof(rest[0]));
	d->n_held = n;
	d->hold = 1;
}

/* A put in parts has timed out, gets have all slots: its ABORT waits for one, and nothing turns for it meanwhile. */
static void
test_abort_without_slot(void **state)
{
	const struct rig_conf conf = { .drives = 1, .kind = MKV_IOQ_AUTO, .slots = SLOTS };
	uint8_t *v = calloc(1, PART), body[64];
	struct rig_client c, g;
	struct rig r;

	(void)state;
	rig_open(&r, &conf);
	rig_client_open(&r, &c);
	rig_client_handshake(&c);
	rig_client_open(&r, &g);
	rig_client_handshake(&g);
	r.drive[0].hold = 1;
	c.deadline_us = 500000;
	put_begin(&c, "k", v, PART, 1);
	while (r.drive[0].n_held == 0)
		rig_pump(&r);			/* SET_NEW */
	answer_first(&r.drive[0]);
	while (r.drive[0].n_held == 0)
		rig_pump(&r);			/* the piece */
	assert_int_equal(r.drive[0].count[MKV_DRV_PUT], 1);
	for (unsigned i = 0; i < SLOTS; i++)	/* one more than there are slots left */
		rig_send(&g, MKV_WIRE_GET, 0, 0, body, rig_get_body(body, "none", 4, 0, 100), NULL, 0);
	expect_status(&c, MKV_E_TIMEOUT);
	while (r.drive[0].n_held < SLOTS)
		rig_pump(&r);
	alarm(SPIN_SECONDS);
	answer_first(&r.drive[0]);		/* the piece: its slot goes to the get that waits */
	rig_pump_ms(&r, 20);
	alarm(0);
	assert_int_equal(r.drive[0].count[MKV_DRV_ABORT], 0);
	rig_drive_answer_held(&r.drive[0]);
	for (unsigned i = 0; i < SLOTS; i++)
		expect_status(&g, MKV_E_MISS);
	rig_pump_ms(&r, 20);
	assert_int_equal(r.drive[0].count[MKV_DRV_ABORT], 1);
	rig_client_close(&c);
	rig_client_close(&g);
	rig_close(&r);
	free(v);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_recalled_reservation),
		cmocka_unit_test(test_abort_without_slot),
	};

	return (cmocka_run_group_tests(tests, NULL, NULL));
}
