/*
 * A channel whose messages go by datagrams or by the tether: answers leave behind their data, requests that come twice have their effect once, strangers hear nothing.
 */
#include "config.h"

#include "tests/unit/front_ctl_up.h"

/* ---- Tests ----------------------------------------------------------------------------------------------------------------- */

static void
round_trips(void **state)
{
	static const uint32_t sizes[] = { 1, 7, 4096, 65537, 200001, 1 << 20 };

	(void)state;
	for (unsigned k = 0; k < 2; k++) {
		struct t *t = ctl_opened(t_both[k]);

		for (unsigned i = 0; i < MKV_ARRAY_LEN(sizes); i++)
			t_put_get(t, "key", sizes[i], i);
		assert_int_equal(t_count(t, MKV_M_front_datagrams_received_total), k == 0 ? 0 : 2 * MKV_ARRAY_LEN(sizes));
		assert_int_equal(t_count(t, MKV_M_front_datagrams_sent_total), k == 0 ? 0 : 2 * MKV_ARRAY_LEN(sizes));
		assert_int_equal(t->u.brokens, 0);
		closed(t);
	}
}

/* A value in parts, by the tether: each part is told of when it is here. */
static void
values_in_parts(void **state)
{
	const uint32_t n = (2 << 20) + 54321;
	uint8_t *want = malloc(n);
	uint64_t got = 0;

	(void)state;
	rig_fill(want, n, 5);
	for (unsigned k = 0; k < 2; k++) {
		struct t *t = ctl_opened(t_both[k]);
		struct t_msg *m;
		struct t_ask a;

		memcpy(t->mem, want, n);
		t_put_parts(t, 7000, 0, n, NULL);
		memset(t->mem, T_POISON, T_BYTES);
		t_make_get(t, &a, "long", 0, 3, n);
		t_by_tether(t, a.op, a.flags, a.id, a.body, a.bytes, 0);
		for (got = 0; got < n; got += m->h.payload_bytes) {
			assert_non_null(m = t_next(t));
			assert_int_equal(m->h.status, 0);
			assert_true(m->by_tether && (m->h.flags & MKV_WIRE_F_REMOTE) != 0);
			assert_memory_equal(t->mem + 3 + got, want + got, m->h.payload_bytes);	/* it is there when its answer is */
		}
		assert_false(m->h.flags & MKV_WIRE_F_MORE);
		closed(t);
	}
	free(want);
}

/* The answer to a get leaves when a READ behind its WRITEs has come back, and not before. */
static void
an_answer_waits_for_its_data(void **state)
{
	(void)state;
	for (unsigned k = 0; k < 2; k++) {
		struct t *t = ctl_opened(t_both[k]);
		struct fv_wr w[FV_LOG];
		struct t_ask a;
		unsigned n;

		t_store(t, "k", 300000);
		fv_hold(1);
		t_make_get(t, &a, "k", 0, 1 << 20, 300000);
		t_say(t, &a, 0);
		t_silence(t);
		fv_hold(0);
		(void)t_answer(t, a.id);
		assert_memory_equal(t->mem, t->mem + (1 << 20), 300000);
		n = fv_log(w, FV_LOG);
		assert_int_equal(w[n - 1].opcode, IBV_WR_RDMA_READ);
		assert_int_equal(w[n - 1].bytes, 1);
		assert_int_equal(w[n - 2].opcode, IBV_WR_RDMA_WRITE);
		closed(t);
	}
}

/* A get is stopped while its WRITEs are out: neither its answer nor CANCEL's is here before they are done. */
static void
cancelled_behind_its_data(void **state)
{
	(void)state;
	for (unsigned k = 0; k < 2; k++) {
		struct t *t = ctl_opened(t_both[k]);
		struct t_ask get, cancel;

		t_store(t, "k", 1 << 20);
		fv_hold(1);
		t_make_get(t, &get, "k", 0, 2 << 20, 1 << 20);	/* four pieces of two segments are out, the window is full */
		t_say(t, &get, 0);
		t_silence(t);
		t_make_cancel(t, &cancel, get.id);
		t_say(t, &cancel, 0);
		t_silence(t);
		fv_hold(0);
		assert_int_equal(-(int)t_answer(t, get.id)->h.status, MKV_E_CANCELLED);
		assert_memory_equal(t->mem, t->mem + (2 << 20), 200000);
		assert_int_equal(t->mem[(2 << 20) + 200000], T_POISON);
		assert_int_equal(t_answer(t, cancel.id)->h.status, 0);
		t_silence(t);
		t_put_get(t, "k2", 1000, 9);
		closed(t);
	}
}

/* The channel breaks under a get: its client hears of it by the tether, and so does one who has not heard. */
static void
a_broken_channel_is_told(void **state)
{
	(void)state;
	for (unsigned k = 0; k < 2; k++) {
		struct t *t = ctl_opened(t_both[k]);
		struct t_msg *m;
		struct t_ask a;

		t_store(t, "k", 100000);
		fv_hold(1);
		t_make_get(t, &a, "k", 0, 1 << 20, 100000);
		t_say(t, &a, 0);
		t_silence(t);
		mkv_rdma_qp_fail(t->u.qp);
		fv_hold(0);
		m = t_answer(t, a.id);
		assert_int_equal(-(int)m->h.status, MKV_E_CLOSED);
		assert_true(m->by_tether);
		t_make_get(t, &a, "k", 0, 1 << 20, 100000);
		t_by_tether(t, a.op, a.flags, a.id, a.body, a.bytes, 0);
		assert_non_null(m = t_next(t));
		assert_int_equal(-(int)m->h.status, MKV_E_CLOSED);
		closed(t);
	}
}

/* One datagram of four is lost each way, one of four comes twice, and they overtake each other: all is right, and done once. */
static void
a_network_that_loses(void **state)
{
	struct t *t = ctl_opened(&t_datagrams);
	unsigned puts = 0;
	char key[16];

	(void)state;
	t->net->lose = t->net->repeat = t->net->turn = 250;
	for (unsigned i = 0; i < 60; i++) {
		snprintf(key, sizeof(key), "k%u", i % 7);
		t_put_get(t, key, 1 + i * 3000, i);
	}
	for (unsigned i = 0; i < 2; i++)
		puts += t->r.drive[i].count[MKV_DRV_PUT];
	assert_int_equal(puts, 60);
	assert_true(t_count(t, MKV_M_front_datagrams_repeated_total) > 0);
	assert_true(t_count(t, MKV_M_front_datagrams_replayed_total) > 0);
	assert_int_equal(mkv_metric_get(t->r.m, MKV_M_front_requests_total, MKV_WIRE_GET), 60);
	assert_int_equal(mkv_metric_get(t->r.m, MKV_M_front_requests_total, MKV_WIRE_PUT), 60);
	t->net->lose = t->net->repeat = t->net->turn = 0;
	closed(t);
}

/* Who is not known gets no byte, and changes nothing. */
static void
strangers_hear_nothing(void **state)
{
	static const enum mkv_metric counts[] = { MKV_M_front_datagrams_malformed_total, MKV_M_front_datagrams_malformed_total,
		MKV_M_front_datagrams_unknown_total, MKV_M_front_datagrams_unknown_total, MKV_M_front_datagrams_forged_total,
		MKV_M_front_datagrams_forged_total, MKV_M_front_datagrams_foreign_total, MKV_M_front_datagrams_malformed_total };
	struct t *t = ctl_opened(&t_datagrams);
	_Alignas(8) uint8_t buf[4096];
	struct mkv_hdr *h = (struct mkv_hdr *)(void *)buf;
	struct mkv_addr own;
	uint32_t bytes;
	int other;

	(void)state;
	own = t->net->server;
	mkv_addr_set_port(&own, 0);
	assert_true((other = mkv_udp_bind(&own)) >= 0);
	for (unsigned i = 0; i < MKV_ARRAY_LEN(counts); i++) {
		const uint64_t before = t_count(t, counts[i]);
		int from = t->net->udp;

		bytes = t_datagram(t, buf, MKV_WIRE_PING, 0, 500 + i, NULL, 0, 0);
		switch (i) {
		case 0: bytes = 20; break;
		case 1: h->magic[1] = 'X'; break;
		case 2: h->session_id ^= 1; break;
		case 3: h->channel = 2; break;
		case 4: h->mac[7] ^= 1; break;
		case 5: h->request_id++; break;
		case 6: from = other; break;
		case 7: bytes = sizeof(buf); h->body_bytes = 8; break;
		}
		assert_int_equal(sendto(from, buf, bytes, 0, (struct sockaddr *)&t->net->server.ss, t->net->server.bytes), bytes);
		t_silence(t);
		assert_int_equal(t_count(t, counts[i]), before + 1);
	}
	assert_int_equal(sendto(t->net->udp, buf, 0, 0, (struct sockaddr *)&t->net->server.ss, t->net->server.bytes), 0);
	t_silence(t);
	assert_int_equal(recv(other, buf, sizeof(buf), MSG_DONTWAIT), -1);
	assert_int_equal(t->net->came, 0);
	assert_int_equal(t_count(t, MKV_M_front_datagrams_sent_total), 0);
	close(other);
	t_put_get(t, "k", 1000, 1);
	closed(t);
}

/* The same bytes once more: not a second time, whatever they ask for. */
static void
a_replay_is_dropped(void **state)
{
	struct t *t = ctl_opened(&t_datagrams);
	_Alignas(8) uint8_t buf[4096];
	uint32_t bytes;

	(void)state;
	bytes = t_datagram(t, buf, MKV_WIRE_PING, 0, 500, NULL, 0, 0);
	net_in(t->net, &t->net->there, buf, bytes);
	assert_non_null(t_next(t));
	for (unsigned i = 0; i < 3; i++)
		net_in(t->net, &t->net->there, buf, bytes);
	t_silence(t);
	assert_int_equal(t_count(t, MKV_M_front_datagrams_replayed_total), 3);
	assert_int_equal(mkv_metric_get(t->r.m, MKV_M_front_requests_total, MKV_WIRE_PING), 1);
	closed(t);
}

/* Again while it is at work: silence. Again when it is done: the same answer. Again when its client has that: silence. */
static void
a_request_comes_again(void **state)
{
	struct t *t = ctl_opened(&t_datagrams);
	struct t_ask put, ping;
	struct t_msg *m;

	(void)state;
	rig_fill(t->mem, 5000, 4);
	t_drives(t, 1);
	t_make_put(t, &put, "k", 0, 5000);
	t_say(t, &put, 0);
	t_silence(t);
	for (unsigned i = 0; i < 3; i++)
		t_say(t, &put, i == 0 ? 0 : MKV_WIRE_F_RESEND);	/* the first one was overtaken by one that was sent later */
	t_silence(t);
	t_drives(t, 0);
	assert_non_null(m = t_next(t));
	assert_int_equal(m->h.status, 0);
	t_silence(t);
	t_say(t, &put, MKV_WIRE_F_RESEND);
	m = t_answer(t, put.id);
	assert_int_equal(m->h.status, 0);
	assert_int_equal(m->h.body_bytes, sizeof(struct mkv_wire_object));
	ping = (struct t_ask){ .op = MKV_WIRE_PING, .id = t->next_id++ };
	t->acked = put.id + 1;
	t_say(t, &ping, 0);
	assert_non_null(t_next(t));
	t_say(t, &put, MKV_WIRE_F_RESEND);
	t_silence(t);
	assert_int_equal(t->r.drive[0].count[MKV_DRV_PUT] + t->r.drive[1].count[MKV_DRV_PUT], 1);
	assert_int_equal(t_count(t, MKV_M_front_datagrams_repeated_total), 5);
	closed(t);
}

/* Again by the tether: it is the same request, and that is where its answer goes; one that is new begins there. */
static void
the_tether_takes_over(void **state)
{
	struct t *t = ctl_opened(&t_datagrams);
	struct t_ask get;
	struct t_msg *m;

	(void)state;
	t_store(t, "k", 5000);
	t_drives(t, 1);
	t_make_get(t, &get, "k", 0, 1 << 20, 5000);
	t_say(t, &get, 0);
	t_silence(t);
	t_by_tether(t, get.op, get.flags | MKV_WIRE_F_RESEND, get.id, get.body, get.bytes, 0);
	t_silence(t);
	t_drives(t, 0);
	assert_non_null(m = t_next(t));
	assert_true(m->by_tether && m->h.request_id == get.id && m->h.payload_bytes == 5000);
	assert_memory_equal(t->mem, t->mem + (1 << 20), 5000);
	t_silence(t);
	/* When it is done already. */
	t_make_get(t, &get, "k", 0, 2 << 20, 5000);
	t_say(t, &get, 0);
	assert_non_null(m = t_next(t));
	assert_false(m->by_tether);
	t_by_tether(t, get.op, get.flags | MKV_WIRE_F_RESEND, get.id, get.body, get.bytes, 0);
	assert_non_null(m = t_next(t));
	assert_true(m->by_tether && m->h.request_id == get.id && m->h.payload_bytes == 5000);
	/* And when no datagram of it has come, but one still does afterwards. */
	t_make_get(t, &get, "k", 0, 3 << 20, 5000);
	t_by_tether(t, get.op, get.flags | MKV_WIRE_F_RESEND, get.id, get.body, get.bytes, 0);
	assert_non_null(m = t_next(t));
	assert_true(m->by_tether && m->h.request_id == get.id && m->h.payload_bytes == 5000);
	memset(t->mem + (3 << 20), T_POISON, 5000);
	t_say(t, &get, 0);
	(void)t_answer(t, get.id);
	assert_int_equal(t->mem[3 << 20], T_POISON);
	assert_int_equal(mkv_metric_get(t->r.m, MKV_M_front_requests_total, MKV_WIRE_GET), 3);
	closed(t);
}

/* CANCEL overtakes what it cancels: that does not begin any more, and nothing is written. */
static void
cancel_comes_first(void **state)
{
	struct t *t = ctl_opened(&t_datagrams);
	struct t_ask get, cancel;
	struct t_msg *m;

	(void)state;
	t_store(t, "k", 5000);
	t_make_get(t, &get, "k", 0, 1 << 20, 5000);
	t_make_cancel(t, &cancel, get.id);
	t_say(t, &cancel, 0);
	assert_non_null(m = t_next(t));
	assert_int_equal(m->h.status, 0);
	t_say(t, &get, 0);
	assert_int_equal(-(int)t_answer(t, get.id)->h.status, MKV_E_RETRY);
	assert_int_equal(t->mem[1 << 20], T_POISON);
	assert_int_equal(mkv_metric_get(t->r.m, MKV_M_front_requests_total, MKV_WIRE_GET), 0);
	closed(t);
}

/* A message waits for a request context when it is cancelled: it does not begin afterwards, on any carrier. */
static void
a_held_message_is_cancelled(void **state)
{
	struct t *t = ctl_opened(&t_datagrams);
	struct t_ask one, get, cancel, again;
	struct t_msg *m;

	(void)state;
	t->r.f->conf.inflight_max = 1;
	rig_fill(t->mem, 5000, 4);
	t_drives(t, 1);
	t_make_put(t, &one, "k", 0, 5000);
	t_say(t, &one, 0);
	t_silence(t);
	t_make_get(t, &get, "k", 0, 1 << 20, 5000);
	t_say(t, &get, 0);
	t_silence(t);
	t_say(t, &get, MKV_WIRE_F_RESEND);
	t_silence(t);
	t_make_cancel(t, &cancel, get.id);
	t_say(t, &cancel, 0);
	assert_non_null(m = t_next(t));
	if (t_num_dcis != 0) {			/* by DC it is told of as well: CANCEL's answer alone says nothing */
		assert_int_equal(m->h.request_id, get.id);
		assert_int_equal(-(int)m->h.status, MKV_E_CANCELLED);
		assert_non_null(m = t_next(t));
	}
	assert_int_equal(m->h.request_id, cancel.id);
	t_drives(t, 0);
	(void)t_answer(t, one.id);
	t_silence(t);
	assert_int_equal(t->mem[1 << 20], T_POISON);
	again = get;
	again.id = t->next_id++;
	assert_int_equal(t_call(t, &again)->h.payload_bytes, 5000);
	closed(t);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(round_trips), cmocka_unit_test(values_in_parts), cmocka_unit_test(an_answer_waits_for_its_data),
		cmocka_unit_test(cancelled_behind_its_data), cmocka_unit_test(a_broken_channel_is_told), cmocka_unit_test(a_network_that_loses),
		cmocka_unit_test(strangers_hear_nothing), cmocka_unit_test(a_replay_is_dropped), cmocka_unit_test(a_request_comes_again),
		cmocka_unit_test(the_tether_takes_over), cmocka_unit_test(cancel_comes_first), cmocka_unit_test(a_held_message_is_cancelled),
	};

	int failed = cmocka_run_group_tests_name("by RC", tests, NULL, NULL);

	t_num_dcis = 8;
	return (failed + cmocka_run_group_tests_name("by DC", tests, NULL, NULL));
}
