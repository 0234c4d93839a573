/*
 * Requests that come twice while others overtake them, and answers beside a line that is not empty: what a slow request and a lost datagram must not lead to.
 */
#include "config.h"

#include "tests/unit/front_ctl_up.h"

#define MANY	70u			/* more than the answers that are kept of a session */

static void
t_pings(struct t *t, unsigned n)
{
	for (unsigned i = 0; i < n; i++) {
		struct t_ask ping = { .op = MKV_WIRE_PING, .id = t->next_id++ };
		struct t_msg *m;

		t_say(t, &ping, 0);
		assert_non_null(m = t_next(t));
		assert_int_equal(m->h.request_id, ping.id);
	}
}

/* More answers than are kept have left since it began: it is at work all the same, and not to be asked for anew. */
static void
a_slow_request_is_overtaken(void **state)
{
	struct t *t = calloc(1, sizeof(*t));
	struct t_ask get;
	struct t_msg *m;

	(void)state;
	t_open(t, MKV_WIRE_CONTROL_UDP);
	t_store(t, "k", 5000);
	t_drives(t, 1);
	t_make_get(t, &get, "k", 0, 1 << 20, 5000);
	t_say(t, &get, 0);
	t_silence(t);
	t_pings(t, MANY);
	t_say(t, &get, MKV_WIRE_F_RESEND);
	t_silence(t);
	t_drives(t, 0);
	assert_non_null(m = t_next(t));
	assert_int_equal(m->h.request_id, get.id);
	assert_int_equal(m->h.status, 0);
	assert_memory_equal(t->mem, t->mem + (1 << 20), 5000);
	t_close(t);
	free(t);
}

/* The same of one that has not begun. */
static void
a_held_message_is_overtaken(void **state)
{
	struct t *t = calloc(1, sizeof(*t));
	struct t_ask one, get;
	struct t_msg *m;

	(void)state;
	t_open(t, MKV_WIRE_CONTROL_UDP);
	t_store(t, "k", 5000);
	t->r.f->conf.inflight_max = 1;
	t_drives(t, 1);
	t_make_get(t, &one, "k", 0, 1 << 20, 5000);
	t_say(t, &one, 0);
	t_silence(t);
	t_make_get(t, &get, "k", 0, 2 << 20, 5000);
	t_say(t, &get, 0);
	t_silence(t);
	t_pings(t, MANY);
	t_say(t, &get, MKV_WIRE_F_RESEND);
	t_silence(t);
	t_drives(t, 0);
	assert_non_null(m = t_next(t));
	assert_int_equal(m->h.request_id, one.id);
	assert_non_null(m = t_next(t));
	assert_int_equal(m->h.request_id, get.id);
	assert_int_equal(m->h.status, 0);
	assert_memory_equal(t->mem, t->mem + (2 << 20), 5000);
	t_close(t);
	free(t);
}

/* And of a value in parts by the tether, which have one number; a client that tries the value once more says so with each. */
static void
put_parts(unsigned flags)
{
	const uint32_t part = 1 << 20, n = part + 54321;
	struct t *t = calloc(1, sizeof(*t));
	struct t_msg *m;

	t_open(t, MKV_WIRE_CONTROL_UDP);
	rig_fill(t->mem, n, 5);
	for (uint32_t at = 0; at < n; at += part) {
		const uint32_t step = MKV_MIN(part, n - at);
		const int more = at + step < n;
		_Alignas(8) uint8_t body[4000];
		size_t b = rig_put_body(body, "long", at == 0 ? 4 : 0, t->mem + at, step, at, more ? MKV_WIRE_SIZE_UNKNOWN : n, 0);

		b = t_segs(t, body, b, at, step, 100000);
		t_by_tether(t, MKV_WIRE_PUT, MKV_WIRE_F_REMOTE | flags | (more ? MKV_WIRE_F_MORE : 0), 900, body, b, step);
		assert_non_null(m = t_next(t));
		assert_int_equal(m->h.request_id, 900);
		assert_int_equal(m->h.status, 0);
		assert_int_equal((m->h.flags & MKV_WIRE_F_MORE) != 0, more);
		t_pings(t, MANY);
	}
	t_close(t);
	free(t);
}

static void
parts_are_overtaken(void **state)
{
	(void)state;
	put_parts(0);
	put_parts(MKV_WIRE_F_RESEND);
}

/* CANCEL by datagram overtakes what is in the tether still, which does not begin: its client has its memory back. */
static void
cancel_overtakes_the_tether(void **state)
{
	const uint32_t part = 1 << 20;
	_Alignas(8) uint8_t body[4000];
	struct t *t = calloc(1, sizeof(*t));
	struct t_ask get, cancel;
	struct t_msg *m;
	size_t b;

	(void)state;
	t_open(t, MKV_WIRE_CONTROL_UDP);
	t_store(t, "k", 5000);
	t_make_get(t, &get, "k", 0, 1 << 20, 5000);
	for (unsigned i = 0; i < 2; i++) {
		t_make_cancel(t, &cancel, i == 0 ? get.id : 900);
		t_say(t, &cancel, 0);
		assert_non_null(m = t_next(t));
		assert_int_equal(m->h.request_id, cancel.id);
	}
	t_by_tether(t, get.op, get.flags, get.id, get.body, get.bytes, 0);
	assert_non_null(m = t_next(t));
	assert_int_equal(m->h.request_id, get.id);
	assert_int_equal(-(int)m->h.status, MKV_E_RETRY);
	assert_int_equal(t->mem[1 << 20], T_POISON);
	b = t_segs(t, body, rig_put_body(body, "long", 4, t->mem, part, 0, MKV_WIRE_SIZE_UNKNOWN, 0), 0, part, 100000);
	t_by_tether(t, MKV_WIRE_PUT, MKV_WIRE_F_REMOTE | MKV_WIRE_F_MORE | MKV_WIRE_F_RESEND, 900, body, b, part);
	assert_non_null(m = t_next(t));
	assert_int_equal(m->h.request_id, 900);
	assert_int_equal(-(int)m->h.status, MKV_E_RETRY);
	t_close(t);
	free(t);
}

/* What is out on the queue pair is an answer to a PING: there is no data to wait for, and no address to READ from. */
static void
an_answer_beside_a_message(void **state)
{
	struct t *t = calloc(1, sizeof(*t));
	struct mkv_hdr h = { .magic = "MKV\1", .version = MKV_WIRE_VERSION, .op = MKV_WIRE_PING, .deadline_us = 1000000, .request_id = 77, .channel = 1 };
	struct t_ask cancel;
	struct fv_wr w[FV_LOG];
	struct t_msg *m;
	unsigned n;

	(void)state;
	t_open(t, MKV_WIRE_CONTROL_UDP);
	h.session_id = t->c.session;
	h.counter = ++t->counter;
	assert_int_equal(mkv_mac_sign(t->out, &h, MKV_WIRE_SIGNED_BYTES, NULL, 0, h.mac), 0);
	mkv_rdma_qp_send(t->u.qp, &(struct iovec){ &h, sizeof(h) }, 1, MKV_RDMA_SIGNAL, NULL);
	mkv_rdma_hub_flush(t->u.hub);
	fv_hold(1);
	t_silence(t);
	assert_int_equal(fv_held(), 1);
	t_make_cancel(t, &cancel, 12345);
	t_say(t, &cancel, 0);
	assert_non_null(m = t_next(t));
	assert_int_equal(m->h.request_id, cancel.id);
	assert_int_equal(m->h.status, 0);
	n = fv_log(w, FV_LOG);
	assert_int_equal(w[n - 1].opcode, IBV_WR_SEND);
	mkv_rdma_qp_fail(t->u.qp);		/* nobody here takes a message by it */
	t_close(t);
	free(t);
}

/* By DC an error costs its request alone. Its client has heard how it ended, so nothing of it is written by what comes late. */
static void
a_request_that_failed_comes_again(void **state)
{
	struct t *t = calloc(1, sizeof(*t));
	struct mkv_wire_seg bad = { .bytes = 1000, .rkey = 0xdeadbeef };
	struct t_ask get;
	struct t_msg *m;

	(void)state;
	t_num_dcis = 4;
	t_open(t, MKV_WIRE_CONTROL_UDP);
	t_store(t, "k", 2000);
	bad.addr = (uintptr_t)t->mem;
	t_make_get(t, &get, "k", 0, 1 << 20, 1000);
	get.bytes = rig_get_body(get.body, "k", 1, 0, 2000);
	get.bytes = t_segs(t, get.body, get.bytes, 1 << 20, 1000, 1000);
	memcpy(get.body + get.bytes, &bad, sizeof(bad));
	get.bytes += sizeof(bad);
	t_say(t, &get, 0);
	assert_non_null(m = t_next(t));
	assert_int_equal(m->h.request_id, get.id);
	assert_int_equal(-(int)m->h.status, MKV_E_CLOSED);
	assert_memory_equal(t->mem, t->mem + (1 << 20), 1000);
	memset(t->mem + (1 << 20), T_POISON, 1000);
	t_say(t, &get, MKV_WIRE_F_RESEND);
	assert_non_null(m = t_next(t));
	assert_int_equal(m->h.request_id, get.id);
	assert_int_equal(-(int)m->h.status, MKV_E_CLOSED);
	assert_int_equal(t->mem[1 << 20], T_POISON);
	assert_int_equal(mkv_metric_get(t->r.m, MKV_M_front_requests_total, MKV_WIRE_GET), 1);
	t_close(t);
	free(t);
	t_num_dcis = 0;
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_slow_request_is_overtaken),
		cmocka_unit_test(a_held_message_is_overtaken),
		cmocka_unit_test(parts_are_overtaken),
		cmocka_unit_test(cancel_overtakes_the_tether),
		cmocka_unit_test(an_answer_beside_a_message),
		cmocka_unit_test(a_request_that_failed_comes_again),
	};

	return (cmocka_run_group_tests(tests, NULL, NULL));
}
