/*
 * A front's DC while initiators are short or fail: what becomes of messages that wait for one, what CANCEL hears, and how many receives a client may keep.
 */
#include "config.h"

#include "tests/unit/front_rail_up.h"
#include "worker/front/rail_priv.h"

/* A put has the only initiator that requests may have. */
static uint64_t
t_busy(struct t *t)
{
	uint64_t id = t_put_part(t, "busy", 0, 0, 1000, 0, 1000, 0, 1000);

	t_drives(t, 1);
	t_pump(t);
	return (id);
}

static uint64_t
t_cancel(struct t *t, uint64_t id)
{
	struct mkv_wire_cancel w = { .request_id = id };

	return (t_send(t, MKV_WIRE_CANCEL, 0, 0, &w, sizeof(w), 0));
}

static void
t_expect(struct t *t, uint64_t id, int status)
{
	struct t_msg *m = t_next(t);

	assert_non_null(m);
	assert_int_equal(m->h.request_id, id);
	assert_int_equal(-(int)m->h.status, status);
}

/*
 * The client is told that its request is over, by the way that CANCEL's answer goes: without that word it has to make its memory safe by itself, and all else on
 * its target with it.
 */
static void
a_message_that_waits_is_cancelled(void **state)
{
	struct t *t = opened(2);
	uint64_t busy = t_busy(t), get = t_ask_get(t, "k", 0, 100000, 1000, 1000), cancel;

	(void)state;
	t_pump(t);
	assert_int_equal(M(dci_waits_total), 1);
	cancel = t_cancel(t, get);
	t_expect(t, get, MKV_E_CANCELLED);
	t_expect(t, cancel, 0);
	t_drives(t, 0);
	t_expect(t, busy, 0);
	t_pump(t);
	assert_int_equal(t->at_msg, t->n_msg);
	assert_int_equal(mkv_metric_get(t->r.m, MKV_M_front_requests_total, MKV_WIRE_GET), 0);
	closed(t);
}

/* Their credits are the client's again: behind one that waits still they must not count against it, nor keep receives. */
static void
many_that_wait_are_cancelled(void **state)
{
	struct t *t = opened(2);
	uint64_t busy = t_busy(t), first = t_ask_get(t, "k", 0, 100000, 1000, 1000), get[CHAN_CREDITS_MAX], cancel;
	unsigned n = MKV_MIN(t->credits, CHAN_CREDITS_MAX) - 2;

	(void)state;
	t_pump(t);
	for (unsigned round = 0; round < 4; round++) {
		for (unsigned i = 0; i < n; i++) {
			get[i] = t_ask_get(t, "k", 0, 100000, 1000, 1000);
			t_pump(t);
		}
		for (unsigned i = 0; i < n; i++) {
			cancel = t_cancel(t, get[i]);
			t_expect(t, get[i], MKV_E_CANCELLED);
			t_expect(t, cancel, 0);
		}
		assert_int_equal(M(channels_broken_total), 0);
	}
	t_drives(t, 0);
	t_expect(t, busy, 0);
	t_expect(t, first, MKV_E_MISS);
	assert_int_equal(t_put(t, "k", 0, 1000, 1000), 0);
	closed(t);
}

/* CANCEL has joined the initiator that is about to fail: it is answered all the same, after what it was for. A client has room for few of them. */
static void
an_error_is_told_to_cancel_too(void **state)
{
	struct t *t = opened(4);
	_Alignas(8) uint8_t body[4000];
	struct mkv_wire_seg s = { .addr = (uintptr_t)t->mem, .bytes = 1000, .rkey = 0xdeadbeef };
	struct mkv_wire_cancel w = { 0 };
	uint64_t cancel;
	struct t_msg *m;
	size_t b;

	(void)state;
	assert_int_equal(t_put(t, "k", 0, 1000, 1000), 0);
	b = rig_get_body(body, "k", 1, 0, 1000);
	memcpy(body + b, &s, sizeof(s));
	w.request_id = t_send(t, MKV_WIRE_GET, MKV_WIRE_F_REMOTE, 0, body, b + sizeof(s), 0);
	mkv_rdma_hub_flush(t->u.hub);
	fv_hold(1);
	t_pump(t);
	assert_int_equal(fv_held(), 2);			/* its piece and its answer */
	cancel = t_send(t, MKV_WIRE_CANCEL, 0, 0, &w, sizeof(w), 0);
	mkv_rdma_hub_flush(t->u.hub);
	fv_hold(0);
	m = t_next(t);
	assert_non_null(m);
	assert_int_equal(m->h.request_id, w.request_id);
	assert_int_equal(m->h.reason, MKV_REASON_NIC_REFUSED);
	m = t_next(t);
	assert_non_null(m);
	assert_int_equal(m->h.request_id, cancel);
	closed(t);
}

/* Receives are shared: who has been granted two of them, since its messages go by the tether, keeps no more of them by sending here all the same. */
static void
receives_are_kept_as_granted(void **state)
{
	struct t *t = opened(8);

	(void)state;
	t_detach(t);
	t_qp(t);
	assert_int_equal(t_ask_control(t, 2, MKV_WIRE_CONTROL_TCP, 0), 0);
	t_connect(t, (const void *)t->c.f.body);
	t->channel = 2;
	t_keys(t);
	t_drives(t, 1);
	for (unsigned i = 0; i < CHAN_CREDITS_MORE + CHAN_RECEIVES_OVER; i++)
		(void)t_ask_get(t, "k", 0, 100000, 1000, 1000);
	t_pump(t);
	assert_int_equal(M(channels_broken_total), 0);
	(void)t_ask_get(t, "k", 0, 100000, 1000, 1000);
	t_pump(t);
	assert_int_equal(M(channels_broken_total), 1);
	t_drives(t, 0);
	t_assert_broken(t);
	closed(t);
}

/* What is given back counts no more. */
static void
receives_come_back(void **state)
{
	struct t *t = opened(4);

	(void)state;
	for (unsigned i = 0; i < 3 * CHAN_HELD_MAX; i++) {
		uint64_t get;

		assert_int_equal(t_put(t, "k", 0, 1000, 1000), 0);
		assert_int_equal(t_get(t, "k", 0, 100000, 1000, 1000), 1000);
		assert_int_equal(t_get(t, "nothing", 0, 100000, 1000, 1000), MKV_E_MISS);
		t_drives(t, 1);
		get = t_ask_get(t, "k", 0, 100000, 1000, 1000);
		t_pump(t);
		(void)t_cancel(t, get);
		t_expect(t, get, MKV_E_CANCELLED);
		assert_non_null(t_next(t));
		t_drives(t, 0);
	}
	assert_int_equal(M(channels_broken_total), 0);
	for (unsigned i = 0; i < 1000 && chan_of(MKV_CONTAINER_OF(t->r.f->conn_used.next, struct mkv_conn, link))->n_rx != 0; i++)
		t_pump(t);
	assert_int_equal(chan_of(MKV_CONTAINER_OF(t->r.f->conn_used.next, struct mkv_conn, link))->n_rx, 0);
	closed(t);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_message_that_waits_is_cancelled),
		cmocka_unit_test(many_that_wait_are_cancelled),
		cmocka_unit_test(an_error_is_told_to_cancel_too),
		cmocka_unit_test(receives_are_kept_as_granted),
		cmocka_unit_test(receives_come_back),
	};

	return (cmocka_run_group_tests(tests, NULL, NULL));
}
