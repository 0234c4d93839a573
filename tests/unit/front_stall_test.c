/*
 * The front when a client stalls: inside what it sends, and with answers that it does not read. rig_close() asserts after each test that no buffer, slot,
 * request or hold is left. Limits that hold on most machines are doubled where this one was too slow for what is to be seen.
 */
#include "config.h"

#include "tests/unit/front_rig.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "common/base/clock.h"
#include "common/base/err.h"

#define BIG	(1u << 20)

static uint8_t *big;

static void
send_get(struct rig_client *c, const char *key)
{
	uint8_t body[1024];

	(void)rig_send(c, MKV_WIRE_GET, 0, 0, body, rig_get_body(body, key, strlen(key), 0, BIG), NULL, 0);
}

static void
pump_until_idle(struct rig *r)
{
	for (unsigned i = 0; i < RIG_PATIENCE_MS && r->f->n_reqs != 0; i++)
		rig_pump_ms(r, 1);
	assert_int_equal(r->f->n_reqs, 0);
}

/* The other client, the rig's, stays. */
static void
close_until_gone(struct rig *r, struct rig_client *d)
{
	rig_client_close(d);
	for (unsigned i = 0; i < RIG_PATIENCE_MS && r->f->n_conns != 1; i++)
		rig_pump_ms(r, 1);
	assert_int_equal(r->f->n_conns, 1);
}

/* The front took the put up, and closed the connection at its deadline. 0: the machine was so slow that the deadline passed before there was a request. */
static int
stalled_in_body(struct rig *r, uint32_t deadline_us)
{
	static struct rig_client d;
	uint8_t body[1024];
	struct mkv_hdr h;
	uint64_t until;
	size_t n;
	int seen, got;

	rig_client_open(r, &d);
	rig_client_handshake(&d);
	d.deadline_us = deadline_us;
	rig_fill(big, 1 << 20, 1);
	n = rig_put_body(body, "stall", 5, big, 1 << 20, 0, 1 << 20, 0);
	rig_frame_make(&d, &h, MKV_WIRE_PUT, 0, 50, body, n, 1 << 20);
	until = mkv_now_ns() + deadline_us * MKV_NS_PER_US;
	rig_write(&d, &h, sizeof(h));
	rig_write(&d, body, n);
	rig_write(&d, big, 500000);
	while (r->f->n_reqs == 0 && mkv_now_ns() < until)
		rig_pump_ms(r, 1);
	seen = r->f->n_reqs == 1;
	got = rig_recv(&d, RIG_PATIENCE_MS);
	assert_true(got != 0 && mkv_now_ns() >= until);
	pump_until_idle(r);
	close_until_gone(r, &d);
	return (seen && got == -1);
}

/* The same of answers that are not read. 0: the deadline passed before there were answers, so that what was said instead is short. */
static int
stalled_deaf(struct rig *r, uint32_t deadline_us)
{
	static struct rig_client d;
	uint64_t before = mkv_metric_get(r->m, MKV_M_front_requests_total, MKV_WIRE_GET), taken = 0;
	int closed;

	rig_client_open(r, &d);
	rig_client_handshake(&d);
	assert_int_equal(rig_put(&d, "stall", big, 1 << 20), 0);
	d.deaf = 1;
	d.deadline_us = deadline_us;
	for (unsigned i = 0; i < 6; i++)
		send_get(&d, "stall");
	for (unsigned i = 0; i < RIG_PATIENCE_MS && taken < 6 && r->f->n_conns == 2; i++) {
		rig_pump_ms(r, 1);
		taken = mkv_metric_get(r->m, MKV_M_front_requests_total, MKV_WIRE_GET) - before;
	}
	pump_until_idle(r);
	closed = r->f->n_conns == 1;
	close_until_gone(r, &d);
	return (closed);
}

/*
 * A client that stalls inside a body or does not read its answers loses its connection at its deadline, and its buffers with it. 60 ms are enough to get
 * so far on most machines; on others a longer deadline is looked for.
 */
static void
fault_stalls(struct rig *r, struct rig_client *c)
{
	uint32_t us = 60000;

	(void)c;
	while (!stalled_in_body(r, us))
		assert_true((us *= 2) < RIG_PATIENCE_MS * 1000 / 4);
	us = 50000;
	while (!stalled_deaf(r, us))
		assert_true((us *= 2) < RIG_PATIENCE_MS * 1000 / 4);
}

static void
test_stalls(void **state)
{
	const struct rig_conf one = { .drives = 1, .kind = MKV_IOQ_AUTO }, mem = { .drives = 1, .kind = MKV_IOQ_AUTO, .memory_mode = 1 };
	const struct rig_conf poll = { .drives = 1, .kind = MKV_IOQ_POLL };

	(void)state;
	rig_with(&one, fault_stalls);
	rig_with(&mem, fault_stalls);
	rig_with(&poll, fault_stalls);
}

/*
 * A put whose body stops in the middle, or whose payload does, and whose deadline is far away: after the stall limit its connection is closed and all of it
 * is given back (rig_close() asserts that).
 */
static void
stalled_put(const struct rig_conf *conf)
{
	static struct rig_client d;
	uint8_t body[1024];
	struct mkv_hdr h;
	struct rig r;
	size_t n;

	rig_open(&r, conf);
	rig_fill(big, 1 << 20, 1);
	for (unsigned i = 0; i < 2; i++) {
		rig_client_open(&r, &d);
		rig_client_handshake(&d);
		d.deadline_us = 3600000000u;
		n = rig_put_body(body, "stall", 5, big, 1 << 20, 0, 1 << 20, 0);
		rig_frame_make(&d, &h, MKV_WIRE_PUT, 0, 50, body, n, 1 << 20);
		rig_write(&d, &h, sizeof(h));
		rig_write(&d, body, i == 0 ? n / 2 : n);
		rig_write(&d, big, i == 0 ? 0 : 500000);
		assert_int_equal(rig_recv(&d, RIG_PATIENCE_MS), -1);
		rig_pump_ms(&r, 5);
		assert_int_equal(r.f->n_reqs, 0);
		rig_client_close(&d);
	}
	rig_close(&r);
}

/* Turn the rig for so long; the longest that a turn took. */
static uint64_t
turn_for(struct rig *r, uint64_t ns)
{
	uint64_t now = mkv_now_ns(), until = now + ns, gap = 0;

	while (now < until) {
		uint64_t began = now;

		rig_pump(r);
		usleep(200);
		now = mkv_now_ns();
		gap = MKV_MAX(gap, now - began);
	}
	return (gap);
}

/* A client that sends slowly but steadily is served. 0: it was not, on a machine that itself paused for half the limit. */
static int
slow_put(const struct rig_conf *conf)
{
	static struct rig_client slow;
	uint8_t body[1024];
	uint64_t gap = 0;
	struct mkv_hdr h;
	struct rig r;
	size_t n;
	int got;

	rig_open(&r, conf);
	rig_client_open(&r, &slow);
	rig_client_handshake(&slow);
	slow.deadline_us = 3600000000u;
	n = rig_put_body(body, "slow", 4, big, 1 << 20, 0, 1 << 20, 0);
	rig_frame_make(&slow, &h, MKV_WIRE_PUT, 0, 50, body, n, 1 << 20);
	rig_write(&slow, &h, sizeof(h));
	rig_write(&slow, body, n);
	for (unsigned i = 0; i <= 8; i++) {
		gap = MKV_MAX(gap, turn_for(&r, conf->stall_ns / 4));
		if (i < 8)
			rig_write(&slow, big + (i << 17), 1 << 17);
	}
	got = rig_recv(&slow, RIG_PATIENCE_MS);
	if (got != -1 || gap < conf->stall_ns / 2) {
		assert_int_equal(got, 1);
		assert_int_equal(slow.f.hdr.status, 0);
	}
	rig_client_close(&slow);
	rig_close(&r);
	return (got == 1);
}

static void
test_stalled_puts(void **state)
{
	struct rig_conf file = { .drives = 1, .kind = MKV_IOQ_AUTO, .stall_ns = 400 * MKV_NS_PER_MS };
	struct rig_conf mem = { .drives = 1, .kind = MKV_IOQ_AUTO, .stall_ns = 400 * MKV_NS_PER_MS, .memory_mode = 1 };

	(void)state;
	stalled_put(&file);
	stalled_put(&mem);
	while (!slow_put(&file))
		assert_true((file.stall_ns *= 2) < 10 * MKV_NS_PER_SEC);
	while (!slow_put(&mem))
		assert_true((mem.stall_ns *= 2) < 10 * MKV_NS_PER_SEC);
}

static int
setup(void **state)
{
	(void)state;
	big = malloc(BIG);
	return (big == NULL);
}

static int
teardown(void **state)
{
	(void)state;
	free(big);
	return (0);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_stalls), cmocka_unit_test(test_stalled_puts),
	};

	return (cmocka_run_group_tests(tests, setup, teardown));
}
