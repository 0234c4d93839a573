/*
 * Many requests share a stage that cannot hold all of them: each has a part of what it needs and waits for the rest. Whoever waits must not hold what the
 * others wait for; all are served long before their deadlines. rig_close() asserts that everything was given back.
 */
#include "config.h"

#include "tests/unit/front_rig.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "common/base/assert.h"
#include "common/base/err.h"

#define VALUE	(10u << 20)
#define GETS	8u
#define LISTS	6u

#define PATIENCE_MS	(4 * RIG_PATIENCE_MS)	/* half a million keys under an emulator: slow is not stuck */

static const struct rig_conf small_stage = { .drives = 2, .kind = MKV_IOQ_AUTO, .stage_bytes = 4u << 20, .requests = 64 };

static void
put_value(struct rig_client *c, unsigned i, uint8_t *v)
{
	char key[32];

	snprintf(key, sizeof(key), "v%u", i);
	rig_fill(v, VALUE, i);
	assert_int_equal(rig_put(c, key, v, VALUE), 0);
}

/* Values of ten parts, eight at once, room for four parts: pieces are asked for in their order, so the one that leaves next is always there. */
static void
gets_at_once(struct rig *r, struct rig_client *c)
{
	uint64_t id[GETS], at[GETS] = { 0 };
	uint8_t body[64], *v = malloc(VALUE);
	unsigned done = 0;

	(void)r;
	for (unsigned i = 0; i < 2; i++)
		put_value(c, i, v);
	c->deadline_us = PATIENCE_MS * 1000;
	for (unsigned i = 0; i < GETS; i++)
		id[i] = rig_send(c, MKV_WIRE_GET, 0, 0, body, rig_get_body(body, i % 2 == 0 ? "v0" : "v1", 2, 0, UINT64_MAX), NULL, 0);
	while (done < GETS) {
		const struct mkv_wire_object *o = (void *)c->f.body;
		unsigned i = 0;

		assert_int_equal(rig_recv(c, PATIENCE_MS), 1);
		assert_int_equal(c->f.hdr.status, 0);
		while (i < GETS && id[i] != c->f.hdr.request_id)
			i++;
		assert_true(i < GETS);
		assert_int_equal(o->off, at[i]);
		at[i] += c->f.hdr.payload_bytes;
		done += (c->f.hdr.flags & MKV_WIRE_F_MORE) == 0;
	}
	for (unsigned i = 0; i < GETS; i++)
		assert_int_equal(at[i], VALUE);
	free(v);
}

static void
test_gets(void **state)
{
	(void)state;
	for (unsigned seed = 0; seed < 3; seed++) {
		struct rig r;
		struct rig_client c;

		rig_open(&r, &small_stage);
		rig_client_open(&r, &c);
		rig_client_handshake(&c);
		gets_at_once(&r, &c);
		rig_client_close(&c);
		rig_close(&r);
	}
}

/* A drive dies with one piece while the others of the same values are there: what is there already makes room for what is asked again. */
static void
test_gets_drive_dies(void **state)
{
	uint8_t body[64], *v = malloc(VALUE);
	struct rig r;
	struct rig_client c;
	unsigned done = 0;

	(void)state;
	rig_open(&r, &small_stage);
	rig_client_open(&r, &c);
	rig_client_handshake(&c);
	put_value(&c, 0, v);
	put_value(&c, 1, v);
	c.deadline_us = PATIENCE_MS * 1000;
	r.drive[0].hold = 1;
	for (unsigned i = 0; i < GETS; i++)
		(void)rig_send(&c, MKV_WIRE_GET, 0, 0, body, rig_get_body(body, i % 2 == 0 ? "v0" : "v1", 2, 0, UINT64_MAX), NULL, 0);
	rig_pump_ms(&r, 50);
	rig_map(&r, 0, MKV_DRIVE_RESTARTING);
	rig_drive_kill(&r, 0);
	r.drive[0].hold = 0;
	rig_drive_up(&r, 0, 11);
	rig_map(&r, 0, MKV_DRIVE_ONLINE);
	mkv_front_drive_drained(r.f, 0, 10);
	while (done < GETS) {
		assert_int_equal(rig_recv(&c, PATIENCE_MS), 1);
		assert_int_equal(c.f.hdr.status, 0);
		done += (c.f.hdr.flags & MKV_WIRE_F_MORE) == 0;
	}
	rig_client_close(&c);
	rig_close(&r);
	free(v);
}

/* The longest lists, each needs half of the stage. */
static void
test_lists(void **state)
{
	static const unsigned ops[] = { MKV_WIRE_EXISTS, MKV_WIRE_DELETE };
	static uint8_t body[MKV_WIRE_BODY_MAX];

	(void)state;
	for (unsigned o = 0; o < MKV_ARRAY_LEN(ops); o++) {
		struct rig_client *c = calloc(LISTS, sizeof(*c));
		struct rig r;

		rig_open(&r, &small_stage);
		for (unsigned i = 0; i < LISTS; i++) {
			rig_client_open(&r, &c[i]);
			rig_client_handshake(&c[i]);
			c[i].deadline_us = PATIENCE_MS * 1000;
		}
		for (unsigned k = 0; k < 65536; k += 4096)
			for (unsigned i = 0; i < LISTS; i++)
				(void)rig_send(&c[i], ops[o], k + 4096 < 65536 ? MKV_WIRE_F_MORE : 0, 1000, body, rig_keys_body(body, "q%05u", k, 4096), NULL, 0);
		for (unsigned i = 0; i < LISTS; i++) {
			unsigned got = 0;

			do {
				assert_int_equal(rig_recv(&c[i], PATIENCE_MS), 1);
				assert_int_equal(c[i].f.hdr.status, 0);
				got += ((struct mkv_wire_keys_reply *)(void *)c[i].f.body)->n_keys;
			} while (c[i].f.hdr.flags & MKV_WIRE_F_MORE);
			assert_int_equal(got, 65536);
		}
		for (unsigned i = 0; i < LISTS; i++)
			rig_client_close(&c[i]);
		rig_close(&r);
		free(c);
	}
}

/*
 * Two lists of one connection whose parts come in turns, each with a claim of more than half of what lists may have: the second would wait for the first,
 * whose parts come behind it. It is told BUSY, the first goes on, and the second is served when it comes again.
 */
static void
test_lists_in_turns(void **state)
{
	static const unsigned ops[] = { MKV_WIRE_EXISTS, MKV_WIRE_MATCH, MKV_WIRE_DELETE };
	static uint8_t body[MKV_WIRE_BODY_MAX];

	(void)state;
	for (unsigned o = 0; o < MKV_ARRAY_LEN(ops); o++) {
		static const struct rig_conf tiny = { .drives = 2, .kind = MKV_IOQ_AUTO, .stage_bytes = 3u << 20, .requests = 64 };
		struct rig_client c = { 0 };
		unsigned busy = 0, good = 0;
		struct rig r;

		rig_open(&r, &tiny);
		r.f->lists_claim_max = 8;		/* of one such list only, whatever it claims */
		rig_client_open(&r, &c);
		rig_client_handshake(&c);
		c.deadline_us = PATIENCE_MS * 1000;
		for (unsigned k = 0; k < 3; k++)
			for (unsigned id = 1000; id < 1002; id++)
				(void)rig_send(&c, ops[o], k < 2 ? MKV_WIRE_F_MORE : 0, id, body, rig_keys_body(body, "t%05u", k * 1000, 1000), NULL, 0);
		while (busy + good < 2) {
			assert_int_equal(rig_recv(&c, RIG_PATIENCE_MS), 1);
			if (c.f.hdr.status == 0) {
				assert_int_equal(c.f.hdr.request_id, 1000);
				good++;
			} else {
				assert_int_equal(-(int)c.f.hdr.status, MKV_E_BUSY);
				assert_int_equal(c.f.hdr.request_id, 1001);
				assert_true(c.f.hdr.deadline_us > 0);
				busy++;
			}
		}
		assert_int_equal(busy, 1);
		(void)rig_send(&c, ops[o], 0, 1002, body, rig_keys_body(body, "t%05u", 0, 1000), NULL, 0);
		assert_int_equal(rig_recv(&c, RIG_PATIENCE_MS), 1);
		assert_int_equal(c.f.hdr.status, 0);
		rig_client_close(&c);
		rig_close(&r);
	}
}

/* A drive dies with slices of a list that is still on its way: they are asked again, and the list is answered as if nothing had been. */
static void
test_list_drive_dies(void **state)
{
	static uint8_t body[MKV_WIRE_BODY_MAX];
	struct mkv_wire_keys_reply *w;
	struct rig_client c = { 0 };
	unsigned got = 0, there = 0;
	struct rig r;

	(void)state;
	rig_open(&r, &small_stage);
	rig_client_open(&r, &c);
	rig_client_handshake(&c);
	c.deadline_us = PATIENCE_MS * 1000;
	for (unsigned i = 0; i < 3; i++) {
		char key[32];

		snprintf(key, sizeof(key), "q%05u", 7000 * i);
		assert_int_equal(rig_put(&c, key, body, 100), 0);
	}
	r.drive[0].hold = r.drive[1].hold = 1;
	for (unsigned k = 0; k < 20480; k += 2048) {
		(void)rig_send(&c, MKV_WIRE_EXISTS, k + 2048 < 20480 ? MKV_WIRE_F_MORE : 0, 1000, body, rig_keys_body(body, "q%05u", k, 2048), NULL, 0);
		rig_pump_ms(&r, 2);
		if (k != 10240)
			continue;
		assert_true(r.drive[0].n_held > 1 && r.drive[1].n_held > 1);	/* they work while the list comes */
		rig_map(&r, 0, MKV_DRIVE_RESTARTING);
		rig_drive_kill(&r, 0);
		rig_drive_up(&r, 0, 11);
		rig_map(&r, 0, MKV_DRIVE_ONLINE);
		mkv_front_drive_drained(r.f, 0, 10);
	}
	rig_drive_answer_held(&r.drive[0]);
	rig_drive_answer_held(&r.drive[1]);
	r.drive[0].hold = r.drive[1].hold = 0;
	assert_int_equal(rig_recv(&c, RIG_PATIENCE_MS), 1);
	assert_int_equal(c.f.hdr.status, 0);
	w = (struct mkv_wire_keys_reply *)(void *)c.f.body;
	got = w->n_keys;
	there = w->n_there;
	assert_int_equal(got, 20480);
	assert_int_equal(there, 3);
	for (unsigned i = 0; i < 20480; i++)
		assert_int_equal(((uint8_t *)(w + 1))[i] & 1, i % 7000 == 0);
	rig_client_close(&c);
	rig_close(&r);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_gets),
		cmocka_unit_test(test_gets_drive_dies),
		cmocka_unit_test(test_lists),
		cmocka_unit_test(test_lists_in_turns),
		cmocka_unit_test(test_list_drive_dies),
	};

	return (cmocka_run_group_tests(tests, NULL, NULL));
}
