/*
 * A session whose client has closed its connection (ATTACH with LOOSE; datagrams and DC): it goes on by its channel, costs little, and ends by itself.
 */
#include "config.h"

#include "tests/unit/front_ctl_up.h"

#include <sys/mman.h>

#define LOOSE_S		60u

static struct mkv_conn *
conn_of(const struct t *t)
{
	return (MKV_CONTAINER_OF(t->r.f->conn_used.next, struct mkv_conn, link));
}

static uint64_t
loose(struct t *t)
{
	mkv_front_gauges(t->r.f);
	return (t_count(t, MKV_M_front_sessions_loose));
}

/* The front has seen the end of the stream, and the socket is closed there. */
static void
drop_tether(struct t *t)
{
	assert_int_equal(shutdown(t->c.fd, SHUT_RDWR), 0);
	for (unsigned i = 0; i < RIG_PATIENCE_MS && (loose(t) == 0 || conn_of(t)->fd >= 0); i++)
		rig_pump_ms(&t->r, 1);
	assert_int_equal(loose(t), 1);
	assert_int_equal(conn_of(t)->fd, -1);
}

/* So much later, for a moment. */
static void
later(struct t *t, unsigned seconds)
{
	t->r.ahead_ns = seconds * MKV_NS_PER_SEC;
	rig_pump_ms(&t->r, 5);
	t->r.ahead_ns = 0;
	rig_pump_ms(&t->r, 5);
}

static void
loose_close(struct t *t)
{
	later(t, LOOSE_S + 2);
	closed(t);
}

/* Values of every size go both ways with no connection, also where the network loses, repeats and turns around. */
static void
it_goes_on(void **state)
{
	static const uint32_t sizes[] = { 1, 7, 4096, 65537, 200001, 1 << 20 };
	struct t *t = ctl_opened(&t_datagrams);

	(void)state;
	t_put_get(t, "before", 5000, 1);
	drop_tether(t);
	for (unsigned i = 0; i < MKV_ARRAY_LEN(sizes); i++)
		t_put_get(t, "key", sizes[i], i);
	t->net->lose = t->net->repeat = t->net->turn = 250;
	for (unsigned i = 0; i < 30; i++)
		t_put_get(t, "rough", 1 + i * 3000, i);
	t->net->lose = t->net->repeat = t->net->turn = 0;
	assert_int_equal(t->r.f->n_sessions, 1);
	assert_int_equal(t->r.f->n_conns, 1);			/* it counts among network.max_connections */
	loose_close(t);
}

/* A get is at work, the other one's answer was on the way to the tether: both are answered by datagram, behind their data. */
static void
requests_at_work_go_on(void **state)
{
	struct t *t = ctl_opened(&t_datagrams);
	struct t_ask one, two;
	unsigned seen = 0;
	struct t_msg *m;

	(void)state;
	t_store(t, "k", 5000);
	t_drives(t, 1);
	t_make_get(t, &one, "k", 0, 1 << 20, 5000);
	t_say(t, &one, 0);
	t_make_get(t, &two, "k", 0, 2 << 20, 5000);
	t_say(t, &two, 0);
	t_silence(t);
	t_by_tether(t, two.op, two.flags | MKV_WIRE_F_RESEND, two.id, two.body, two.bytes, 0);
	t_silence(t);
	drop_tether(t);
	t_drives(t, 0);
	for (unsigned i = 0; i < 2; i++) {
		assert_non_null(m = t_next(t));
		assert_false(m->by_tether);
		assert_int_equal(m->h.payload_bytes, 5000);
		seen |= m->h.request_id == one.id ? 1 : m->h.request_id == two.id ? 2 : 4;
	}
	assert_int_equal(seen, 3);
	assert_memory_equal(t->mem, t->mem + (1 << 20), 5000);
	assert_memory_equal(t->mem, t->mem + (2 << 20), 5000);
	t_say(t, &two, MKV_WIRE_F_RESEND);			/* that answer was lost: the same once more */
	(void)t_answer(t, two.id);
	assert_int_equal(mkv_metric_get(t->r.m, MKV_M_front_requests_total, MKV_WIRE_GET), 2);
	loose_close(t);
}

/* What came by the stream ends with it, in the middle of its bytes too, and gives its buffers back (rig_close() looks). */
static void
the_stream_ends(void **state)
{
	struct t *t = ctl_opened(&t_datagrams);
	uint8_t *value = calloc(1, 1 << 20);
	_Alignas(8) uint8_t body[1024];
	struct mkv_hdr h;
	size_t b;

	(void)state;
	rig_fill(value, 1 << 20, 3);
	t_drives(t, 1);
	b = rig_get_body(body, "nobody", 6, 0, 100);
	rig_send(&t->c, MKV_WIRE_GET, 0, 0, body, b, NULL, 0);
	b = rig_put_body(body, "half", 4, value, 1 << 20, 0, 1 << 20, 0);
	rig_frame_make(&t->c, &h, MKV_WIRE_PUT, 0, 9000, body, b, 1 << 20);
	rig_write(&t->c, &h, sizeof(h));
	rig_write(&t->c, body, b);
	rig_write(&t->c, value, 100000);
	t_silence(t);
	assert_int_equal(conn_of(t)->n_reqs, 2);
	drop_tether(t);
	assert_int_equal(conn_of(t)->n_reqs, 0);
	t_drives(t, 0);
	t_put_get(t, "k", 1000, 1);
	loose_close(t);
	free(value);
}

/* A value in parts is on its way by the stream when that ends: nothing more is sent there, and all of it is given back. */
static void
parts_end_with_the_stream(void **state)
{
	struct t *t = ctl_opened(&t_datagrams);
	const uint32_t n = 1 << 20;
	uint8_t *value = calloc(1, n);
	_Alignas(8) uint8_t body[1024];
	size_t b;

	(void)state;
	rig_fill(value, n, 3);
	for (unsigned i = 0; i < 6; i++) {
		b = rig_put_body(body, "long", i == 0 ? 4 : 0, value, n, (uint64_t)i * n, i < 5 ? MKV_WIRE_SIZE_UNKNOWN : 6ull * n, 0);
		rig_send(&t->c, MKV_WIRE_PUT, i < 5 ? MKV_WIRE_F_MORE : 0, 9000, body, b, value, n);
	}
	assert_int_equal(rig_recv(&t->c, RIG_PATIENCE_MS), 1);
	assert_int_equal(t->c.f.hdr.status, 0);
	t->c.deaf = 1;
	b = rig_get_body(body, "long", 4, 0, 6ull * n);
	rig_send(&t->c, MKV_WIRE_GET, 0, 0, body, b, NULL, 0);
	rig_pump_ms(&t->r, 50);
	assert_int_equal(conn_of(t)->tx_busy, 1);
	t->c.deaf = 0;
	drop_tether(t);
	assert_int_equal(conn_of(t)->n_reqs, 0);
	t_put_get(t, "k", 1000, 1);
	loose_close(t);
	free(value);
}

/* 60 s without a message, and not before; every valid datagram begins them anew, one that is none does not. */
static void
silence_ends_it(void **state)
{
	struct t *t = ctl_opened(&t_datagrams);
	_Alignas(8) uint8_t buf[4096];
	struct t_ask ping = { .op = MKV_WIRE_PING };
	uint32_t bytes;

	(void)state;
	t->r.f->conf.loose_ns = 400 * MKV_NS_PER_MS;
	drop_tether(t);
	for (unsigned i = 0; i < 8; i++) {
		rig_pump_ms(&t->r, 100);
		ping.id = t->next_id++;
		assert_int_equal(t_call(t, &ping)->h.status, 0);
	}
	assert_int_equal(t->r.f->n_sessions, 1);
	for (unsigned i = 0; i < 8 && t->r.f->n_sessions == 1; i++) {
		rig_pump_ms(&t->r, 100);
		bytes = t_datagram(t, buf, MKV_WIRE_PING, 0, 500, NULL, 0, 0);
		buf[sizeof(struct mkv_hdr) - 1] ^= 1;
		net_in(t->net, &t->net->there, buf, bytes);
		t_pump(t);
	}
	assert_int_equal(t->r.f->n_sessions, 0);
	assert_int_equal(loose(t), 0);
	assert_int_equal(t_count(t, MKV_M_front_sessions_loose_expired_total), 1);
	closed(t);
}

/* By default that is a minute: after 59 s it is there. */
static void
a_minute(void **state)
{
	struct t *t = ctl_opened(&t_datagrams);

	(void)state;
	assert_int_equal(t->r.f->conf.loose_ns, LOOSE_S * MKV_NS_PER_SEC);
	drop_tether(t);
	later(t, LOOSE_S - 2);
	assert_int_equal(t->r.f->n_sessions, 1);
	later(t, LOOSE_S + 1);
	assert_int_equal(t->r.f->n_sessions, 0);
	closed(t);
}

/* The front stops: so does the session, and what is at work in it. */
static void
the_front_stops(void **state)
{
	struct t *t = ctl_opened(&t_datagrams);
	struct t_ask a;

	(void)state;
	t_store(t, "k", 5000);
	drop_tether(t);
	t_drives(t, 1);
	t_make_get(t, &a, "k", 0, 1 << 20, 5000);
	t_say(t, &a, 0);
	t_silence(t);
	mkv_front_stop(t->r.f, 50 * MKV_NS_PER_MS);
	t_drives(t, 0);
	for (unsigned i = 0; i < RIG_PATIENCE_MS && t->r.f->n_conns != 0; i++)
		t_pump(t);
	assert_int_equal(t->r.f->n_sessions, 0);
	assert_int_equal(loose(t), 0);
	closed(t);
}

static void
goodbye(struct t *t, struct t_ask *bye)
{
	*bye = (struct t_ask){ .op = MKV_WIRE_DETACH, .id = t->next_id++ };
	assert_int_equal(t_call(t, bye)->h.status, 0);
	for (unsigned i = 0; i < 10; i++)
		rig_pump_ms(&t->r, 1);
}

/* Its client says so: the session ends at once, and what is at work in it moves nothing any more. Said once more it is nobody's. */
static void
its_client_says_goodbye(void **state)
{
	struct t *t = ctl_opened(&t_datagrams);
	struct t_ask get, bye;

	(void)state;
	t_store(t, "k", 5000);
	memset(t->mem, T_POISON, T_BYTES);
	drop_tether(t);
	t_drives(t, 1);
	t_make_get(t, &get, "k", 0, 1 << 20, 5000);
	t_say(t, &get, 0);
	t_silence(t);
	goodbye(t, &bye);
	assert_int_equal(t->r.f->n_sessions, 0);
	assert_int_equal(t->r.f->n_conns, 0);
	assert_int_equal(loose(t), 0);
	t_drives(t, 0);
	t_say(t, &bye, MKV_WIRE_F_RESEND);
	t_silence(t);
	assert_int_equal(t_count(t, MKV_M_front_datagrams_unknown_total), 1);
	for (uint32_t i = 0; i < T_BYTES; i++)
		assert_int_equal(t->mem[i], T_POISON);
	assert_int_equal(t_count(t, MKV_M_front_channels_broken_total), 0);
	assert_int_equal(t_count(t, MKV_M_front_sessions_loose_expired_total), 0);
	closed(t);
}

/* With pieces under way: they end before its memory serves another request (rig_close() looks that nothing is left). */
static void
goodbye_in_the_middle(void **state)
{
	struct t *t = ctl_opened(&t_datagrams);
	struct t_ask get, bye;

	(void)state;
	t_store(t, "k", 1 << 20);
	drop_tether(t);
	fv_hold(1);
	t_make_get(t, &get, "k", 0, 1 << 20, 1 << 20);
	t_say(t, &get, 0);
	t_silence(t);
	assert_int_equal(fv_held(), 4);
	goodbye(t, &bye);
	fv_hold(0);
	for (unsigned i = 0; i < RIG_PATIENCE_MS && t->r.f->n_conns != 0; i++)
		rig_pump_ms(&t->r, 1);
	assert_int_equal(t->r.f->n_conns, 0);
	closed(t);
}

/* The tether is still there: it goes on without the channel, and its end is the session's. */
static void
goodbye_with_a_tether(void **state)
{
	struct t *t = ctl_opened(&t_datagrams);
	struct t_ask bye;

	(void)state;
	t_put_get(t, "k", 1000, 1);
	goodbye(t, &bye);
	assert_true(mkv_rail_quiet(t->rail));
	rig_put_get(&t->c, "stream", 100000);
	assert_int_equal(shutdown(t->c.fd, SHUT_RDWR), 0);
	for (unsigned i = 0; i < RIG_PATIENCE_MS && t->r.f->n_conns != 0; i++)
		rig_pump_ms(&t->r, 1);
	assert_int_equal(t->r.f->n_sessions, 0);
	closed(t);
}

/* By the stream it is nothing that a client may say. */
static void
goodbye_by_the_stream(void **state)
{
	(void)state;
	for (unsigned flags = 0; flags <= MKV_WIRE_F_REMOTE; flags += MKV_WIRE_F_REMOTE) {
		struct t *t = ctl_opened(&t_datagrams);

		rig_send(&t->c, MKV_WIRE_DETACH, flags, 900, NULL, 0, NULL, 0);
		for (unsigned i = 0; i < RIG_PATIENCE_MS && t->r.f->n_conns != 0; i++)
			rig_pump_ms(&t->r, 1);
		assert_int_equal(t->r.f->n_sessions, 0);
		assert_int_equal(t_count(t, MKV_M_front_bad_frames_total), 1);
		closed(t);
	}
}

/* Two failures of the path in a row break the channel: without a tether there is nothing left of the session. */
static void
a_broken_channel_ends_it(void **state)
{
	struct t *t = ctl_opened(&t_datagrams);
	struct t_ask a;

	(void)state;
	t_store(t, "k", 5000);
	drop_tether(t);
	mkv_rdma_qp_fail(t->u.qp);			/* its target is gone */
	for (unsigned i = 0; i < 8 && t->r.f->n_sessions == 1; i++) {
		t_make_get(t, &a, "k", 0, 1 << 20, 5000);
		t_say(t, &a, 0);
		(void)t_next_in(t, 50);
	}
	assert_int_equal(t->r.f->n_sessions, 0);
	assert_int_equal(t_count(t, MKV_M_front_channels_broken_total), 1);
	closed(t);
}

/* A few KiB: the connection's context and the channel; of the receive buffer only what shares a page with others is still there. */
static void
it_costs_little(void **state)
{
	struct t *t = ctl_opened(&t_datagrams);
	const uint8_t *from, *to;
	unsigned char page[CONN_RX_BYTES / 4096 + 2];

	(void)state;
	memset(conn_of(t)->rx_buf, 0x5a, CONN_RX_BYTES);	/* as if long frames had come */
	from = (const uint8_t *)MKV_ALIGN_UP((uintptr_t)conn_of(t)->rx_buf, 4096);
	to = (const uint8_t *)(((uintptr_t)conn_of(t)->rx_buf + CONN_RX_BYTES) & ~(uintptr_t)4095);
	assert_int_equal(mincore((void *)(uintptr_t)from, (size_t)(to - from), page), 0);
	assert_int_equal(page[0] & 1, 1);
	drop_tether(t);
	assert_int_equal(mincore((void *)(uintptr_t)from, (size_t)(to - from), page), 0);
	for (size_t i = 0; i < (size_t)(to - from) / 4096; i++)
		assert_int_equal(page[i] & 1, 0);
	assert_true(CONN_RX_BYTES - (size_t)(to - from) < 2 * 4096);
	assert_null(conn_of(t)->s.mac_in);
	assert_null(conn_of(t)->s.mac_out);
	print_message("a session without a tether: %zu bytes and a channel\n", sizeof(struct mkv_conn));
	loose_close(t);
}

/* Its context serves another client afterwards, from the beginning. */
static void
its_place_is_taken(void **state)
{
	struct t *t = ctl_opened(&t_datagrams);
	struct rig_client c;
	uint32_t idx;

	(void)state;
	drop_tether(t);
	idx = conn_of(t)->idx;
	later(t, LOOSE_S + 1);
	assert_int_equal(t->r.f->n_conns, 0);
	mkv_list_remove(&t->r.f->conns[idx].link);
	mkv_list_push_head(&t->r.f->conn_free, &t->r.f->conns[idx].link);
	rig_client_join(&t->r, &c, 1);
	assert_int_equal(conn_of(t)->idx, idx);
	rig_put_get(&c, "stream", 100000);
	assert_int_equal(shutdown(c.fd, SHUT_RDWR), 0);	/* it has not said LOOSE: that is the end */
	for (unsigned i = 0; i < RIG_PATIENCE_MS && t->r.f->n_conns != 0; i++)
		rig_pump_ms(&t->r, 1);
	assert_int_equal(t->r.f->n_sessions, 0);
	rig_client_close(&c);
	closed(t);
}

/* Only with datagrams, only by DC. */
static void
who_may(void **state)
{
	static const struct { uint16_t transport, control; int status; } row[] = {
		{ MKV_FEATURE_RDMA_RC, MKV_WIRE_CONTROL_UDP, MKV_E_UNSUPPORTED }, { MKV_FEATURE_RDMA_DC, MKV_WIRE_CONTROL_TCP, MKV_E_UNSUPPORTED },
		{ MKV_FEATURE_RDMA_DC, MKV_WIRE_CONTROL_RDMA, MKV_E_UNSUPPORTED }, { MKV_FEATURE_RDMA_DC, 3, MKV_E_PROTO },
	};
	struct t *t = ctl_opened(&t_datagrams);

	(void)state;
	for (unsigned i = 0; i < MKV_ARRAY_LEN(row); i++) {
		struct mkv_wire_attach w = t_want(t, 2);

		w.transport = row[i].transport;
		w.control = row[i].control | MKV_WIRE_CONTROL_LOOSE;
		w.udp_port = row[i].control == MKV_WIRE_CONTROL_UDP ? t->udp_port : 0;
		assert_int_equal(t_ask_for(&t->c, &w), row[i].status);
	}
	t_put_get(t, "k", 1000, 1);				/* the channel that there is has not suffered */
	drop_tether(t);
	loose_close(t);
}

/* The same end of the tether without that word: the session's end, as ever. */
static void
who_has_not_said_it(void **state)
{
	struct t *t;

	(void)state;
	t_loose = 0;
	t = ctl_opened(&t_datagrams);
	t_put_get(t, "k", 1000, 1);
	assert_int_equal(shutdown(t->c.fd, SHUT_RDWR), 0);
	for (unsigned i = 0; i < RIG_PATIENCE_MS && t->r.f->n_sessions != 0; i++)
		rig_pump_ms(&t->r, 1);
	assert_int_equal(loose(t), 0);
	closed(t);
	t_loose = MKV_WIRE_CONTROL_LOOSE;
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(it_goes_on), cmocka_unit_test(requests_at_work_go_on), cmocka_unit_test(the_stream_ends),
		cmocka_unit_test(parts_end_with_the_stream),
		cmocka_unit_test(silence_ends_it), cmocka_unit_test(a_minute), cmocka_unit_test(the_front_stops),
		cmocka_unit_test(a_broken_channel_ends_it), cmocka_unit_test(it_costs_little), cmocka_unit_test(its_place_is_taken),
		cmocka_unit_test(who_may), cmocka_unit_test(who_has_not_said_it),
		cmocka_unit_test(its_client_says_goodbye), cmocka_unit_test(goodbye_in_the_middle), cmocka_unit_test(goodbye_with_a_tether),
		cmocka_unit_test(goodbye_by_the_stream),
	};

	t_num_dcis = 8;
	t_loose = MKV_WIRE_CONTROL_LOOSE;
	return (cmocka_run_group_tests(tests, NULL, NULL));
}
