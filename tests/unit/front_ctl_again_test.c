/*
 * Requests that come twice while others overtake them, and answers beside a line that is not empty: what a slow request and a lost datagram must not lead to.
 */
#include "config.h"

#include "tests/unit/front_ctl_up.h"

#define MANY	70u			/* more than the answers that are kept of a session */

static void
t_pings(struct t *t)
{
	for (unsigned i = 0; i < MANY; i++) {
		struct t_ask ping = { .op = MKV_WIRE_PING, .id = t->next_id++ };

		t_say(t, &ping, 0);
		(void)t_answer(t, ping.id);
	}
}

/* More answers than are kept have left since a get came: it is not to be asked for anew. held: another one has the only request context, so it has not begun. */
static void
overtaken(int held)
{
	struct t *t = ctl_opened(&t_datagrams);
	struct t_ask one, get;

	t_store(t, "k", 5000);
	t_drives(t, 1);
	if (held) {
		t->r.f->conf.inflight_max = 1;
		t_make_get(t, &one, "k", 0, 1 << 20, 5000);
		t_say(t, &one, 0);
		t_silence(t);
	}
	t_make_get(t, &get, "k", 0, 2 << 20, 5000);
	t_say(t, &get, 0);
	t_silence(t);
	t_pings(t);
	t_say(t, &get, MKV_WIRE_F_RESEND);
	t_silence(t);
	t_drives(t, 0);
	if (held)
		(void)t_answer(t, one.id);
	assert_int_equal(t_answer(t, get.id)->h.status, 0);
	assert_memory_equal(t->mem, t->mem + (2 << 20), 5000);
	closed(t);
}

static void
a_slow_request_is_overtaken(void **state)
{
	(void)state;
	overtaken(0);
}

static void
a_held_message_is_overtaken(void **state)
{
	(void)state;
	overtaken(1);
}

/* The same of a value in parts by the tether, which have one number; a client that tries the value once more says so with each. */
static void
put_parts(unsigned flags)
{
	const uint32_t n = (1 << 20) + 54321;
	struct t *t = ctl_opened(&t_datagrams);

	rig_fill(t->mem, n, 5);
	t_put_parts(t, 900, flags, n, t_pings);
	closed(t);
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
	struct t *t = ctl_opened(&t_datagrams);
	struct t_ask get, cancel;
	size_t b;

	(void)state;
	t_store(t, "k", 5000);
	t_make_get(t, &get, "k", 0, 1 << 20, 5000);
	for (unsigned i = 0; i < 2; i++) {
		t_make_cancel(t, &cancel, i == 0 ? get.id : 900);
		t_say(t, &cancel, 0);
		(void)t_answer(t, cancel.id);
	}
	t_by_tether(t, get.op, get.flags, get.id, get.body, get.bytes, 0);
	assert_int_equal(-(int)t_answer(t, get.id)->h.status, MKV_E_RETRY);
	assert_int_equal(t->mem[1 << 20], T_POISON);
	b = t_put_body(t, body, "long", 0, part, 0, 0, 1, T_CUT);
	t_by_tether(t, MKV_WIRE_PUT, MKV_WIRE_F_REMOTE | MKV_WIRE_F_MORE | MKV_WIRE_F_RESEND, 900, body, b, part);
	assert_int_equal(-(int)t_answer(t, 900)->h.status, MKV_E_RETRY);
	closed(t);
}

/* What is out on the queue pair is an answer to a PING: there is no data to wait for, and no address to READ from. */
static void
an_answer_beside_a_message(void **state)
{
	struct t *t = ctl_opened(&t_datagrams);
	struct t_ask cancel;
	struct fv_wr w[FV_LOG];
	unsigned n;

	(void)state;
	t_by_rdma.send(t, MKV_WIRE_PING, 0, 77, NULL, 0, 0);
	mkv_rdma_hub_flush(t->u.hub);
	fv_hold(1);
	t_silence(t);
	assert_int_equal(fv_held(), 1);
	t_make_cancel(t, &cancel, 12345);
	t_say(t, &cancel, 0);
	assert_int_equal(t_answer(t, cancel.id)->h.status, 0);
	n = fv_log(w, FV_LOG);
	assert_int_equal(w[n - 1].opcode, IBV_WR_SEND);
	mkv_rdma_qp_fail(t->u.qp);		/* nobody here takes a message by it */
	closed(t);
}

/* By DC an error costs its request alone. Its client has heard how it ended, so nothing of it is written by what comes late. */
static void
a_request_that_failed_comes_again(void **state)
{
	struct mkv_wire_seg bad = { .bytes = 1000, .rkey = 0xdeadbeef };
	struct t_ask get;
	struct t *t;

	(void)state;
	t_num_dcis = 4;
	t = ctl_opened(&t_datagrams);
	t_store(t, "k", 2000);
	bad.addr = (uintptr_t)t->mem;
	t_make_get(t, &get, "k", 0, 1 << 20, 1000);
	get.bytes = rig_get_body(get.body, "k", 1, 0, 2000);
	get.bytes = t_segs(t, get.body, get.bytes, 1 << 20, 1000, 1000);
	memcpy(get.body + get.bytes, &bad, sizeof(bad));
	get.bytes += sizeof(bad);
	t_say(t, &get, 0);
	assert_int_equal(-(int)t_answer(t, get.id)->h.status, MKV_E_CLOSED);
	assert_memory_equal(t->mem, t->mem + (1 << 20), 1000);
	memset(t->mem + (1 << 20), T_POISON, 1000);
	t_say(t, &get, MKV_WIRE_F_RESEND);
	assert_int_equal(-(int)t_answer(t, get.id)->h.status, MKV_E_CLOSED);
	assert_int_equal(t->mem[1 << 20], T_POISON);
	assert_int_equal(mkv_metric_get(t->r.m, MKV_M_front_requests_total, MKV_WIRE_GET), 1);
	closed(t);
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
