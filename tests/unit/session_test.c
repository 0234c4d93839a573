/*
 * The handshake, and what the front does with frames that are wrong: a typed answer or a closed connection, counted, and good clients beside
 * them undisturbed.
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

#define DEV_KEY_ID	1u

static struct rig rig;
static struct rig_client cl, good;

static uint64_t
count(enum mkv_metric m)
{
	return (mkv_metric_get(rig.m, m, 0));
}

static int
setup(void **state)
{
	const struct rig_conf conf = { .drives = 1, .kind = MKV_IOQ_AUTO, .connections = 4, .handshake_ns = 80 * MKV_NS_PER_MS,
		.idle_ns = 300 * MKV_NS_PER_MS };

	(void)state;
	rig_open(&rig, &conf);
	return (0);
}

static int
setup_patient(void **state)
{
	const struct rig_conf conf = { .drives = 1, .kind = MKV_IOQ_AUTO, .connections = 4, .handshake_ns = RIG_PATIENCE_MS * MKV_NS_PER_MS };

	(void)state;
	rig_open(&rig, &conf);
	return (0);
}

static int
teardown(void **state)
{
	(void)state;
	rig_close(&rig);
	return (0);
}

/* HELLO with a body of the caller's making. */
static void
say_hello(struct rig_client *c, const struct mkv_wire_hello *b)
{
	struct mkv_hdr h;

	rig_frame_make(c, &h, MKV_WIRE_HELLO, 0, c->next_id++, NULL, 0, 0);
	h.body_bytes = sizeof(*b);
	rig_write(c, &h, sizeof(h));
	rig_write(c, b, sizeof(*b));
}

static void
say_connect(struct rig_client *c, uint32_t key_id, uint64_t counter, int mac)
{
	struct mkv_wire_connect b = { 0 };
	struct mkv_hdr h;

	c->counter = 0;
	rig_frame_make(c, &h, MKV_WIRE_CONNECT, 0, c->next_id++, &b, sizeof(b), 0);
	h.key_id = key_id;
	h.counter = counter;
	memset(h.mac, mac, sizeof(h.mac));
	rig_write(c, &h, sizeof(h));
	rig_write(c, &b, sizeof(b));
}

static const struct mkv_wire_hello hello = { .version_min = 1, .version_max = 1 };

static void
assert_refused(struct rig_client *c, int status)
{
	static const uint8_t zero[32];

	assert_int_equal(rig_recv(c, RIG_PATIENCE_MS), 1);
	assert_int_equal(-(int)c->f.hdr.status, status);
	assert_int_equal(c->f.hdr.session_id, 0);
	assert_memory_equal(c->f.hdr.mac, zero, sizeof(zero));
	assert_int_equal(rig_recv(c, 500), -1);
}

static void
test_refused(void **state)
{
	const struct mkv_wire_hello future = { .version_min = 2, .version_max = 9 }, rail = { .version_min = 1, .version_max = 1, .rail = 3 };
	uint64_t before = count(MKV_M_front_auth_failures_total);

	(void)state;
	rig_client_open(&rig, &cl);
	say_hello(&cl, &hello);
	assert_int_equal(rig_recv(&cl, RIG_PATIENCE_MS), 1);
	say_connect(&cl, 4711, 1, 0);			/* unknown key */
	assert_refused(&cl, MKV_E_AUTH);
	rig_client_close(&cl);

	rig_client_open(&rig, &cl);
	say_hello(&cl, &hello);
	assert_int_equal(rig_recv(&cl, RIG_PATIENCE_MS), 1);
	say_connect(&cl, RIG_KEY_ID, 1, 0x11);		/* wrong MAC */
	assert_refused(&cl, MKV_E_AUTH);
	rig_client_close(&cl);
	assert_int_equal(count(MKV_M_front_auth_failures_total), before + 2);

	rig_client_open(&rig, &cl);
	say_hello(&cl, &future);
	assert_refused(&cl, MKV_E_VERSION);
	rig_client_close(&cl);

	rig_client_open(&rig, &cl);
	say_hello(&cl, &rail);
	assert_refused(&cl, MKV_E_UNSUPPORTED);
	rig_client_close(&cl);
}

/* What a reload may change, and nothing else. */
static void
test_reload(void **state)
{
	struct mkv_front_conf c = rig.f->conf, before = c;

	(void)state;
	c.handshake_ns++;
	c.idle_ns++;
	c.stall_ns++;
	c.accepted = !c.accepted;
	c.verify_put = !c.verify_put;
	c.inflight_max++;
	c.front_id++;
	mkv_front_reload(rig.f, &c);
	c.inflight_max--;
	c.front_id--;
	assert_memory_equal(&rig.f->conf, &c, sizeof(c));
	mkv_front_reload(rig.f, &before);
	assert_memory_equal(&rig.f->conf, &before, sizeof(c));
}

static void
test_keys(void **state)
{
	uint8_t key[32] = { 9 };

	(void)state;
	assert_int_equal(mkv_front_key(rig.f, DEV_KEY_ID, key, 1, 0), 0);
	assert_non_null(mkv_auth_key(rig.f, DEV_KEY_ID, 1));
	assert_null(mkv_auth_key(rig.f, DEV_KEY_ID, 0));	/* loopback only */
	assert_non_null(mkv_auth_key(rig.f, RIG_KEY_ID, 0));
	assert_null(mkv_auth_key(rig.f, 0, 1));
	assert_int_equal(mkv_front_key(rig.f, DEV_KEY_ID, NULL, 1, 1), 0);
	assert_null(mkv_auth_key(rig.f, DEV_KEY_ID, 1));
	for (uint32_t i = 0; i < MKV_FRONT_KEYS_MAX - 1; i++)
		assert_int_equal(mkv_front_key(rig.f, 100 + i, key, 0, 0), 0);
	assert_int_equal(mkv_front_key(rig.f, 999, key, 0, 0), MKV_E_NOSPACE);
	for (uint32_t i = 0; i < MKV_FRONT_KEYS_MAX - 1; i++)
		assert_int_equal(mkv_front_key(rig.f, 100 + i, NULL, 0, 1), 0);
}

static void
assert_closed_counted(enum mkv_metric m, uint64_t before)
{
	assert_int_equal(rig_recv(&cl, 500), -1);
	assert_int_equal(count(m), before + 1);
	rig_client_close(&cl);
}

static void
open_session(void)
{
	rig_client_open(&rig, &cl);
	rig_client_handshake(&cl);
}

/* Frames that were good once, or would be good elsewhere. */
static void
test_replays(void **state)
{
	uint64_t bad = count(MKV_M_front_auth_failures_total);
	struct mkv_hdr h;

	(void)state;
	open_session();				/* the same frame twice */
	rig_frame_make(&cl, &h, MKV_WIRE_PING, 0, 50, NULL, 0, 0);
	rig_write(&cl, &h, sizeof(h));
	assert_int_equal(rig_recv(&cl, RIG_PATIENCE_MS), 1);
	rig_write(&cl, &h, sizeof(h));
	assert_closed_counted(MKV_M_front_auth_failures_total, bad++);

	open_session();				/* one left out */
	cl.counter++;
	rig_send(&cl, MKV_WIRE_PING, 0, 0, NULL, 0, NULL, 0);
	assert_closed_counted(MKV_M_front_auth_failures_total, bad++);

	open_session();				/* of another session */
	cl.session ^= 1;
	rig_send(&cl, MKV_WIRE_PING, 0, 0, NULL, 0, NULL, 0);
	assert_closed_counted(MKV_M_front_auth_failures_total, bad++);

	open_session();				/* unsigned */
	rig_frame_make(&cl, &h, MKV_WIRE_PING, 0, 50, NULL, 0, 0);
	memset(h.mac, 0, sizeof(h.mac));
	rig_write(&cl, &h, sizeof(h));
	assert_closed_counted(MKV_M_front_auth_failures_total, bad++);

	open_session();				/* our own answer, sent back */
	rig_send(&cl, MKV_WIRE_PING, 0, 0, NULL, 0, NULL, 0);
	assert_int_equal(rig_recv(&cl, RIG_PATIENCE_MS), 1);
	bad = count(MKV_M_front_bad_frames_total);
	rig_write(&cl, &cl.f.hdr, sizeof(cl.f.hdr));
	assert_closed_counted(MKV_M_front_bad_frames_total, bad);
}

static void
test_wrong_state(void **state)
{
	uint64_t bad = count(MKV_M_front_bad_frames_total);
	struct mkv_wire_connect conn = { 0 };
	uint8_t body[64];

	(void)state;
	rig_client_open(&rig, &cl);		/* a request before the handshake */
	rig_send(&cl, MKV_WIRE_PING, 0, 0, NULL, 0, NULL, 0);
	assert_closed_counted(MKV_M_front_bad_frames_total, bad++);
	rig_client_open(&rig, &cl);		/* CONNECT before HELLO */
	say_connect(&cl, RIG_KEY_ID, 1, 0);
	assert_closed_counted(MKV_M_front_bad_frames_total, bad++);
	rig_client_open(&rig, &cl);		/* HELLO twice */
	say_hello(&cl, &hello);
	say_hello(&cl, &hello);
	assert_int_equal(rig_recv(&cl, RIG_PATIENCE_MS), 1);
	assert_closed_counted(MKV_M_front_bad_frames_total, bad++);
	open_session();				/* handshake in the session */
	rig_send(&cl, MKV_WIRE_CONNECT, 0, 0, &conn, sizeof(conn), NULL, 0);
	assert_closed_counted(MKV_M_front_bad_frames_total, bad++);
	open_session();				/* MORE where there are no parts */
	rig_send(&cl, MKV_WIRE_GET, MKV_WIRE_F_MORE, 0, body, rig_get_body(body, "x", 1, 0, 10), NULL, 0);
	assert_closed_counted(MKV_M_front_bad_frames_total, bad++);
	open_session();				/* an id that is in use */
	rig.drive[0].hold = 1;
	rig_send(&cl, MKV_WIRE_GET, 0, 60, body, rig_get_body(body, "x", 1, 0, 10), NULL, 0);
	rig_send(&cl, MKV_WIRE_GET, 0, 60, body, rig_get_body(body, "x", 1, 0, 10), NULL, 0);
	assert_closed_counted(MKV_M_front_bad_frames_total, bad++);
	rig_drive_answer_held(&rig.drive[0]);
	rig_pump_ms(&rig, 5);
}

/* Bodies that say something else than they are: a typed error, and the connection goes on. */
static void
test_bad_bodies(void **state)
{
	uint8_t body[8192];
	struct mkv_wire_get *g = (void *)body;
	struct mkv_wire_put *p = (void *)body;
	struct mkv_wire_keys *k = (void *)body;
	size_t n;

	(void)state;
	open_session();
	n = rig_get_body(body, "key", 3, 0, 10);
	g->key_bytes = 600;
	rig_send(&cl, MKV_WIRE_GET, 0, 0, body, n, NULL, 0);
	assert_int_equal(rig_recv(&cl, RIG_PATIENCE_MS), 1);
	assert_int_equal(-(int)cl.f.hdr.status, MKV_E_INVAL);
	n = rig_get_body(body, "key", 3, 0, 10);
	g->key_bytes = 30;
	rig_send(&cl, MKV_WIRE_STAT, 0, 0, body, n, NULL, 0);
	assert_int_equal(rig_recv(&cl, RIG_PATIENCE_MS), 1);
	assert_int_equal(-(int)cl.f.hdr.status, MKV_E_PROTO);
	n = rig_put_body(body, "key", 3, "12345", 5, 0, 6, 0);		/* value_bytes is not what comes */
	rig_send(&cl, MKV_WIRE_PUT, 0, 0, body, n, "12345", 5);
	assert_int_equal(rig_recv(&cl, RIG_PATIENCE_MS), 1);
	assert_int_equal(-(int)cl.f.hdr.status, MKV_E_PROTO);
	n = rig_put_body(body, "key", 3, "12345", 5, 0, 5, 0);
	p->n_crcs = 1000000000;
	rig_send(&cl, MKV_WIRE_PUT, 0, 0, body, n, "12345", 5);
	assert_int_equal(rig_recv(&cl, RIG_PATIENCE_MS), 1);
	assert_int_equal(-(int)cl.f.hdr.status, MKV_E_PROTO);
	n = rig_keys_body(body, "k%u", 0, 10);
	k->n_keys = 11;
	rig_send(&cl, MKV_WIRE_EXISTS, 0, 0, body, n, NULL, 0);
	assert_int_equal(rig_recv(&cl, RIG_PATIENCE_MS), 1);
	assert_int_equal(-(int)cl.f.hdr.status, MKV_E_PROTO);
	n = rig_keys_body(body, "k%u", 0, 10);
	k->n_keys = UINT32_MAX;
	rig_send(&cl, MKV_WIRE_DELETE, 0, 0, body, n, NULL, 0);
	assert_int_equal(rig_recv(&cl, RIG_PATIENCE_MS), 1);
	assert_int_equal(-(int)cl.f.hdr.status, MKV_E_PROTO);
	assert_int_equal(rig_put(&cl, "fine", "12345", 5), 0);
	rig_client_close(&cl);
}

static void
test_timeouts(void **state)
{
	uint64_t before = count(MKV_M_front_timeouts_total);

	(void)state;
	rig_client_open(&rig, &cl);		/* says nothing */
	assert_int_equal(rig_recv(&cl, 1000), -1);
	rig_client_close(&cl);
	rig_client_open(&rig, &cl);		/* says half a header */
	rig_write(&cl, "MKV\1\1\1", 6);
	assert_int_equal(rig_recv(&cl, 1000), -1);
	rig_client_close(&cl);
	open_session();				/* half a header in the session */
	rig_write(&cl, "MKV\1\1\3", 6);
	assert_int_equal(rig_recv(&cl, 1000), -1);
	rig_client_close(&cl);
	open_session();				/* idle */
	assert_int_equal(rig_recv(&cl, 100), 0);
	assert_int_equal(rig_recv(&cl, 1000), -1);
	rig_client_close(&cl);
	assert_int_equal(count(MKV_M_front_timeouts_total), before + 4);
}

/* The fifth of four is told so when it says HELLO; those beyond the spare contexts are closed; a place that becomes free is given again. */
static void
test_connection_limit(void **state)
{
	enum { ALL = 4 + FRONT_SPARE_CONNS + 1 };
	static struct rig_client c[ALL];
	uint64_t before = count(MKV_M_front_connections_refused_total);

	(void)state;
	for (unsigned i = 0; i < ALL; i++)
		rig_client_open(&rig, &c[i]);
	rig_pump_ms(&rig, 5);
	for (unsigned i = 0; i < ALL; i++)
		assert_int_equal(c[i].closed, i == ALL - 1);
	say_hello(&c[4], &hello);
	assert_int_equal(rig_recv(&c[4], RIG_PATIENCE_MS), 1);
	assert_int_equal(c[4].f.hdr.op, MKV_WIRE_HELLO);
	assert_int_equal(-(int)c[4].f.hdr.status, MKV_E_BUSY);
	assert_int_equal(rig_recv(&c[4], RIG_PATIENCE_MS), -1);
	assert_int_equal(count(MKV_M_front_connections_refused_total), before + ALL - 4);
	for (unsigned i = 0; i < ALL; i++)
		rig_client_close(&c[i]);
	rig_pump_ms(&rig, 5);
	assert_int_equal(rig.f->n_crowded, 0);
	open_session();
	rig_client_close(&cl);
}

/* ---- 10,000 wrong frames --------------------------------------------------------------------------------------------------- */

static uint32_t seed = 20240607;

static uint32_t
rnd(uint32_t below)
{
	seed = seed * 1664525 + 1013904223;
	return ((uint32_t)(((uint64_t)seed * below) >> 32));
}

static size_t
good_frame(uint8_t *f, size_t *body_at, size_t *pay)
{
	struct mkv_hdr *h = (void *)f;
	uint8_t *body = f + sizeof(*h);
	static const uint8_t ops[] = { MKV_WIRE_PUT, MKV_WIRE_GET, MKV_WIRE_EXISTS, MKV_WIRE_DELETE, MKV_WIRE_STAT, MKV_WIRE_TOUCH, MKV_WIRE_MATCH,
		MKV_WIRE_LIST, MKV_WIRE_INFO, MKV_WIRE_REPORT, MKV_WIRE_PING, MKV_WIRE_CANCEL };
	unsigned op = ops[rnd(sizeof(ops))];
	size_t n = 0;

	*pay = 0;
	switch (op) {
	case MKV_WIRE_PUT:
		*pay = rnd(3000);
		memset(f + 8192, 7, *pay);
		n = rig_put_body(body, "mutant", 6, f + 8192, *pay, 0, *pay, 0);
		memmove(body + n, f + 8192, *pay);
		break;
	case MKV_WIRE_GET:
		n = rig_get_body(body, "mutant", 6, rnd(100), rnd(5000));
		break;
	case MKV_WIRE_STAT:
	case MKV_WIRE_REPORT:
		n = rig_get_body(body, "mutant", 6, 0, 0);
		break;
	case MKV_WIRE_LIST:
		n = sizeof(struct mkv_wire_list);
		memset(body, 0, n);
		break;
	case MKV_WIRE_CANCEL:
		n = sizeof(struct mkv_wire_cancel);
		memset(body, 0, n);
		break;
	case MKV_WIRE_PING:
	case MKV_WIRE_INFO:
		break;
	default:
		n = rig_keys_body(body, "mu%u", 0, 1 + rnd(20));
	}
	*body_at = sizeof(*h);
	rig_frame_make(&cl, h, op, 0, cl.next_id++, body, n, *pay);
	return (sizeof(*h) + n);
}

/* Change something; then sign it again or not, so that both what the MAC stops and what it does not is tried. */
static size_t
mutate(uint8_t *f, size_t signed_bytes, size_t pay)
{
	struct mkv_hdr *h = (void *)f;
	size_t all = signed_bytes + pay;
	unsigned changes = 1 + rnd(3), sign = rnd(4) != 0;

	for (unsigned i = 0; i < changes; i++) {
		size_t at = rnd(2) ? rnd(MKV_WIRE_SIGNED_BYTES) : rnd((uint32_t)signed_bytes);

		switch (rnd(4)) {
		case 0:	f[at] ^= (uint8_t)(1u << rnd(8)); break;
		case 1:	f[at] = (uint8_t)rnd(256); break;
		case 2:	f[at] = 0xff; break;
		case 3:	memset(f + at, rnd(2) ? 0xff : 0, MKV_MIN(signed_bytes - at, (size_t)rnd(9))); break;
		}
	}
	if (sign) {
		uint32_t n = MKV_MIN(h->body_bytes, (uint32_t)(signed_bytes - sizeof(*h)));

		memcpy(h->magic, "MKV\1", 4);
		mkv_mac_sign(cl.c2s, h, MKV_WIRE_SIGNED_BYTES, f + sizeof(*h), n, h->mac);
	}
	return (rnd(10) == 0 ? rnd((uint32_t)all) : all);
}

static void
test_mutants(void **state)
{
	static uint8_t f[65536];
	unsigned closed = 0, answered = 0, silent = 0, total = 10000;
	uint64_t bad = count(MKV_M_front_bad_frames_total) + count(MKV_M_front_auth_failures_total) + count(MKV_M_front_timeouts_total);

	(void)state;
	if (getenv("MKV_TEST_MUTANTS") != NULL)
		total = (unsigned)atoi(getenv("MKV_TEST_MUTANTS"));
	rig_client_open(&rig, &good);
	rig_client_handshake(&good);
	open_session();
	for (unsigned i = 0; i < total; i++) {
		size_t at, pay, n;

		cl.deadline_us = 20000;
		n = good_frame(f, &at, &pay);
		n = mutate(f, n, pay);
		rig_write(&cl, f, n);
		rig_pump(&rig);
		while (rig_recv(&cl, 0) == 1)
			answered++;
		if (!cl.closed && i % 16 != 15 && cl.out_bytes == 0 && rig.f->n_reqs == 0 && rig_recv(&cl, 0) == 0) {
			/* Is the front in the middle of a frame? Ask. */
			rig_send(&cl, MKV_WIRE_PING, 0, 0, NULL, 0, NULL, 0);
			if (rig_recv(&cl, 2) == 1)
				continue;
		}
		silent += !cl.closed;
		closed += cl.closed;
		rig_client_close(&cl);
		rig_pump(&rig);
		open_session();
		if (i % 50 == 0)
			assert_int_equal(rig_put(&good, "good", "0123456789", 10), 0);
	}
	rig_client_close(&cl);
	rig_client_close(&good);
	bad = count(MKV_M_front_bad_frames_total) + count(MKV_M_front_auth_failures_total) + count(MKV_M_front_timeouts_total) - bad;
	print_message("mutants: %u frames, %u closed (%u counted), %u answers, %u left in the middle of a frame\n", total, closed, (unsigned)bad,
	    answered, silent);
	assert_true(closed <= bad + total / 1000);
	assert_true(closed > total / 10 && answered > total / 10);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_refused, setup, teardown),
		cmocka_unit_test_setup_teardown(test_reload, setup, teardown),
		cmocka_unit_test_setup_teardown(test_keys, setup, teardown),
		cmocka_unit_test_setup_teardown(test_replays, setup, teardown),
		cmocka_unit_test_setup_teardown(test_wrong_state, setup, teardown),
		cmocka_unit_test_setup_teardown(test_bad_bodies, setup, teardown),
		cmocka_unit_test_setup_teardown(test_timeouts, setup, teardown),
		cmocka_unit_test_setup_teardown(test_connection_limit, setup_patient, teardown),
		cmocka_unit_test_setup_teardown(test_mutants, setup_patient, teardown),
	};

	return (cmocka_run_group_tests(tests, NULL, NULL));
}
