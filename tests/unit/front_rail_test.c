/*
 * A front's channel on the fake fabric: a client by hand beside it, its messages and segments right and wrong, transfers that are stopped in the middle by
 * either end. rig_close() asserts that nothing is left: no buffer, slot or request; fv_start() that no object of verbs is.
 */
#include "config.h"

#include <fcntl.h>
#include <unistd.h>

#include "common/base/log.h"
#include "tests/unit/front_rail_up.h"
#include "worker/front/rail_priv.h"

/* ---- Tests ----------------------------------------------------------------------------------------------------------------- */

static void
round_trips(void **state)
{
	static const uint32_t sizes[] = { 1, 7, 4096, 65536, 65537, 200001, 1 << 20 };
	static const uint32_t cuts[] = { UINT32_MAX, 70000, 33333 };
	struct fv_wr w[FV_LOG];
	struct t *t = opened(0);

	(void)state;
	for (size_t i = 0; i < MKV_ARRAY_LEN(sizes); i++)
		for (size_t k = 0; k < MKV_ARRAY_LEN(cuts); k++) {
			uint32_t n = sizes[i], off = 4097 + (uint32_t)i;
			uint8_t *want = malloc(n);

			rig_fill(want, n, n + (uint32_t)k);
			memcpy(t->mem + off, want, n);
			assert_int_equal(t_put(t, "key", off, n, cuts[k]), 0);
			memset(t->mem, T_POISON, T_BYTES);
			assert_int_equal(t_get(t, "key", 0, off + 5, n + 1000, cuts[k]), n);
			assert_memory_equal(t->mem + off + 5, want, n);
			assert_true(t_poison_but(t, off + 5, n));
			memset(t->mem, T_POISON, T_BYTES);
			free(want);
		}
	for (unsigned n = fv_log(w, FV_LOG), i = 0; i < n; i++) {
		if (w[i].opcode == IBV_WR_SEND)
			continue;
		assert_true(w[i].bytes <= T_PIECE);
		assert_int_equal(fv_access(w[i].lkey) & ~(IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_RELAXED_ORDERING), 0);	/* nobody far reaches ours */
	}
	closed(t);
}

/* The front is woken by the request and by what comes back of its answer; however many turns are between, each is asked for once. */
static void
a_get_asks_for_two_wake_ups(void **state)
{
	struct t *t = opened(0);
	unsigned asked, events;

	(void)state;
	assert_int_equal(t_put(t, "key", 0, 4096, UINT32_MAX), 0);
	t_pump(t);
	asked = fv_calls(FV_REQ_NOTIFY_CQ);
	events = (unsigned)mkv_rdma_hub_count(t->rail->hub)->events;
	for (unsigned i = 0; i < 20; i++) {
		assert_int_equal(t_get(t, "key", 0, 8192, 4096, UINT32_MAX), 4096);
		t_pump(t);
	}
	asked = fv_calls(FV_REQ_NOTIFY_CQ) - asked;
	events = (unsigned)mkv_rdma_hub_count(t->rail->hub)->events - events;
	assert_true(asked >= 20 && asked <= 40);
	assert_int_equal(asked, events);
	closed(t);
}

static void
values_in_parts(void **state)
{
	struct t *t = opened(0);
	uint32_t part = 1 << 20, n = 2 * part + 54321, off = 100;
	uint8_t *want = malloc(n);
	struct t_msg *m;
	uint64_t id;

	(void)state;
	rig_fill(want, n, 5);
	memcpy(t->mem + off, want, n);
	id = t_put_part(t, "long", 0, off, part, 0, n, 1, 300000);
	for (uint32_t at = part; at < n; at += part) {
		assert_non_null(m = t_next(t));
		assert_int_equal(m->h.request_id, id);
		assert_int_equal(m->h.status, 0);
		assert_true((m->h.flags & MKV_WIRE_F_MORE) != 0 && m->h.body_bytes == 0);
		(void)t_put_part(t, "long", id, off + at, MKV_MIN(part, n - at), at, n, at + part < n, 300000);
	}
	assert_non_null(m = t_next(t));
	assert_int_equal(m->h.status, 0);
	assert_int_equal(m->h.request_id, id);
	if (m->h.flags & MKV_WIRE_F_MORE)
		assert_non_null(m = t_next(t));
	assert_false(m->h.flags & MKV_WIRE_F_MORE);
	memset(t->mem, T_POISON, T_BYTES);
	assert_int_equal(t_get(t, "long", 0, 3, n, 400000), n);
	assert_memory_equal(t->mem + 3, want, n);
	assert_true(t_poison_but(t, 3, n));
	memset(t->mem, T_POISON, T_BYTES);
	assert_int_equal(t_get(t, "long", part - 10, 3, 100000, 7777), 100000);
	assert_memory_equal(t->mem + 3, want + part - 10, 100000);
	assert_true(t_poison_but(t, 3, 100000));
	closed(t);
	free(want);
}

/* A get waits for a request context, which a put gives back when its next part, that came later, has been taken. */
static void
a_part_passes_what_waits(void **state)
{
	struct t *t = opened(0);
	uint32_t part = 1 << 20, n = part + 1000;
	uint64_t put, get;
	struct t_msg *m;

	(void)state;
	rig_fill(t->mem, n, 3);
	t->r.f->conf.inflight_max = 1;
	put = t_put_part(t, "long", 0, 0, part, 0, n, 1, 300000);
	assert_non_null(m = t_next(t));
	assert_true(m->h.request_id == put && (m->h.flags & MKV_WIRE_F_MORE) != 0);
	get = t_ask_get(t, "nothing", 0, 0, 1000, 1000);
	t_pump(t);
	(void)t_put_part(t, "long", put, part, n - part, part, n, 0, 300000);
	while ((m = t_next(t)) != NULL && m->h.request_id == put)
		assert_int_equal(m->h.status, 0);
	assert_non_null(m);
	assert_int_equal(m->h.request_id, get);
	assert_int_equal(-(int)m->h.status, MKV_E_MISS);
	closed(t);
}

static void
answers_without_payload(void **state)
{
	struct t *t = opened(0);
	uint8_t body[1024];
	struct t_msg *m;

	(void)state;
	assert_int_equal(t_get(t, "nothing", 0, 0, 1000, 1000), MKV_E_MISS);
	(void)t_send(t, MKV_WIRE_PING, 0, 0, NULL, 0, 0);
	assert_non_null(m = t_next(t));
	assert_int_equal(m->h.op, MKV_WIRE_PING);
	assert_int_equal(m->h.credits, t->credits);
	memset(t->mem, 3, 500);
	assert_int_equal(t_put(t, "k", 0, 500, 500), 0);
	(void)t_send(t, MKV_WIRE_STAT, 0, 0, body, rig_get_body(body, "k", 1, 0, 0), 0);
	assert_non_null(m = t_next(t));
	assert_int_equal(((const struct mkv_wire_object *)(const void *)m->body)->value_bytes, 500);
	assert_int_equal(t_get(t, "k", 500, 0, 1000, 1000), 0);
	closed(t);
}

static void
wrong_bytes_are_refused(void **state)
{
	struct t *t = opened(0);

	(void)state;
	rig_fill(t->mem, 200000, 1);
	fv_hold(1);
	(void)t_put_part(t, "bad", 0, 0, 200000, 0, 200000, 0, 200000);
	t_pump(t);
	t->mem[150000] ^= 1;			/* after it was signed */
	fv_hold(0);
	assert_int_equal(-(int)t_next(t)->h.status, MKV_E_CORRUPT);
	assert_int_equal(t_get(t, "bad", 0, 0, 1000, 1000), MKV_E_MISS);
	assert_int_equal(mkv_metric_get(t->r.m, MKV_M_front_crc_failures_total, 0), 1);
	closed(t);
}

/* CANCEL while pieces are out: what is out comes first, nothing comes behind the answer. */
static void
cancelled_in_the_middle(void **state)
{
	struct t *t = opened(0);
	uint32_t n = 1 << 20;
	struct t_msg *m;
	uint64_t id;

	(void)state;
	rig_fill(t->mem, n, 2);
	assert_int_equal(t_put(t, "k", 0, n, n), 0);
	for (int put = 0; put < 2; put++) {
		struct mkv_wire_cancel w = { 0 };
		unsigned cancelled = 0, answered = 0;

		memset(t->mem, T_POISON, T_BYTES);
		id = put ? t_put_part(t, "k2", 0, 0, n, 0, n, 0, n) : t_ask_get(t, "k", 0, 0, n, n);
		w.request_id = id;
		t_pump(t);
		fv_hold(1);
		(void)t_send(t, MKV_WIRE_CANCEL, 0, 0, &w, sizeof(w), 0);
		fv_hold(0);
		while ((m = t_next(t)) != NULL) {
			cancelled |= m->h.op == MKV_WIRE_CANCEL;
			answered |= m->h.request_id == id;
			if (cancelled && answered)
				break;
		}
		assert_true(cancelled && answered);
		memset(t->mem, T_POISON, T_BYTES);
		rig_pump_ms(&t->r, 5);
		t_pump(t);
		assert_true(t_poison_but(t, 0, 0));
	}
	closed(t);
}

/* Every piece that was posted is in front of the answers, and none is posted behind them. */
static void
nothing_comes_behind_cancelled(void **state)
{
	struct t *t = opened(0);
	uint32_t n = 1 << 20;

	(void)state;
	rig_fill(t->mem, n, 2);
	assert_int_equal(t_put(t, "k", 0, n, n), 0);
	for (int put = 0; put < 2; put++) {
		struct mkv_wire_cancel w = { 0 };
		uint64_t before = fv_count().wrs;
		struct t_msg *m;

		w.request_id = put ? t_put_part(t, "k2", 0, 0, n, 0, n, 0, n) : t_ask_get(t, "k", 0, 0, n, n);
		mkv_rdma_hub_flush(t->u.hub);
		fv_hold(1);
		t_pump(t);
		assert_int_equal(fv_held(), 4);
		(void)t_send(t, MKV_WIRE_CANCEL, 0, 0, &w, sizeof(w), 0);
		mkv_rdma_hub_flush(t->u.hub);
		(void)fv_step(5);			/* the pieces have arrived, and CANCEL with them */
		t_pump(t);
		assert_int_equal(fv_count().wrs - before, 2 + 4 + 2);	/* two messages, four pieces, two answers */
		fv_hold(0);
		assert_non_null(m = t_next(t));
		assert_int_equal(m->h.request_id, w.request_id);
		assert_int_equal(-(int)m->h.status, MKV_E_CANCELLED);
		assert_non_null(m = t_next(t));
		assert_int_equal(m->h.op, MKV_WIRE_CANCEL);
	}
	closed(t);
}

/* The window is all that is out, and a deadline that passes meanwhile ends the request when that came back. */
static void
window_and_deadline(void **state)
{
	struct t *t = opened(0);
	uint32_t n = 1 << 20;

	(void)state;
	rig_fill(t->mem, n, 2);
	assert_int_equal(t_put(t, "k", 0, n, n), 0);
	for (int put = 0; put < 2; put++) {
		uint64_t id;

		t->deadline_us = 300000;
		id = put ? t_put_part(t, "k2", 0, 0, n, 0, n, 0, n) : t_ask_get(t, "k", 0, 0, n, n);
		mkv_rdma_hub_flush(t->u.hub);		/* the request arrives; what the front posts waits */
		fv_hold(1);
		t_pump(t);
		assert_int_equal(fv_held(), 4);		/* rdma.window in pieces */
		rig_pump_ms(&t->r, 400);
		assert_true(fv_held() >= 4);
		fv_hold(0);
		for (struct t_msg *m; (m = t_next(t)) != NULL && m->h.request_id != id;)
			continue;
		assert_int_equal(-(int)t->msg[(t->at_msg - 1) % T_MSGS].h.status, MKV_E_TIMEOUT);
	}
	t->deadline_us = RIG_PATIENCE_MS * 1000;
	assert_int_equal(t_get(t, "k", 0, 0, n, n), n);
	closed(t);
}

static void
ends_that_break_in_the_middle(void **state)
{
	(void)state;
	for (int what = 0; what < 6; what++) {
		struct t *t = opened(0);
		uint32_t n = 1 << 20;

		rig_fill(t->mem, n, 2);
		assert_int_equal(t_put(t, "k", 0, n, n), 0);
		(void)(what % 2 ? t_put_part(t, "k2", 0, 0, n, 0, n, 0, n) : t_ask_get(t, "k", 0, 0, n, n));
		mkv_rdma_hub_flush(t->u.hub);
		fv_hold(1);
		t_pump(t);
		assert_true(fv_held() > 0);
		if (what / 2 == 0) {			/* the client shuts its queue pair, as a fence does */
			mkv_rdma_qp_fail(t->u.qp);
			fv_hold(0);
			t_assert_broken(t);
			assert_int_equal(mkv_metric_get(t->r.m, MKV_M_front_channels_broken_total, 0), 1);
		} else if (what / 2 == 1) {		/* the tether ends */
			shutdown(t->c.fd, SHUT_RDWR);
			rig_pump_ms(&t->r, 5);
			fv_hold(0);
		} else {				/* the client takes its memory away */
			mkv_rdma_mem_drop(&t->reg);
			fv_hold(0);
			t_assert_broken(t);
		}
		closed(t);
	}
}

static void
another_channel_after_the_first(void **state)
{
	struct t *t = opened(0);

	(void)state;
	rig_fill(t->mem, 1000, 9);
	assert_int_equal(t_put(t, "k", 0, 1000, 1000), 0);
	t_detach(t);
	t_qp(t);
	assert_int_equal(t_ask(t, 7), MKV_E_PROTO);	/* not the next one */
	for (unsigned i = 0; i < 200; i++) {		/* the old one is busy for a moment */
		int e = t_ask(t, 2);

		if (e == 0)
			break;
		assert_int_equal(e, MKV_E_BUSY);
		rig_pump_ms(&t->r, 5);
	}
	t_drop_qps(t);			/* nobody at the far end: it is given up for the next */
	for (unsigned i = 0; i < 200; i++) {
		t_qp(t);
		if (t_ask(t, 3) == 0)
			break;
		t_drop_qps(t);
		rig_pump_ms(&t->r, 5);
	}
	assert_non_null(t->u.qp);
	assert_true(t_tether_answers(t));
	closed(t);
}

/* Another carrier of messages than the queue pair: only one that there is, and only where it is served. */
static void
carriers_of_messages(void **state)
{
	struct t *t = opened(0);

	(void)state;
	assert_int_equal(t_ask_control(t, 2, 3, 0), MKV_E_PROTO);
	assert_int_equal(t_ask_control(t, 2, MKV_WIRE_CONTROL_RDMA, 9), MKV_E_PROTO);
	assert_int_equal(t_ask_control(t, 2, MKV_WIRE_CONTROL_UDP, 0), MKV_E_PROTO);
	assert_int_equal(t_ask_control(t, 2, MKV_WIRE_CONTROL_UDP, 9), MKV_E_UNSUPPORTED);	/* this rail has no socket */
	rig_fill(t->mem, 1000, 9);
	assert_int_equal(t_put(t, "k", 0, 1000, 1000), 0);	/* the channel that it has lives on */
	closed(t);
}

/* A session outlives its key, but gets no further channel by it. */
static void
a_key_that_was_revoked(void **state)
{
	struct t *t = opened(0);

	(void)state;
	t_detach(t);
	assert_int_equal(mkv_front_key(t->r.f, RIG_KEY_ID, t->r.key, 0, 1), 0);
	t_qp(t);
	assert_int_equal(t_ask(t, 2), MKV_E_AUTH);
	assert_true(t_tether_answers(t));
	t_drop_qps(t);
	closed(t);
}

/* What a client must not send ends its channel, and nothing else. */
static void
messages_that_break_the_rules(void **state)
{
	(void)state;
	for (int what = 0; what < 9; what++) {
		struct t *t = opened(0);
		_Alignas(8) uint8_t body[4000];
		size_t b;

		memset(t->mem, 1, 1000);
		b = rig_put_body(body, "k", 1, t->mem, 1000, 0, 1000, 0);
		switch (what) {
		case 0:				/* its key is another one's */
			mkv_mac_destroy(&t->out);
			assert_int_equal(mkv_mac_create(&t->out, t->r.key), 0);
			(void)t_send(t, MKV_WIRE_PING, 0, 0, NULL, 0, 0);
			break;
		case 1:				/* one is missing */
			t->counter++;
			(void)t_send(t, MKV_WIRE_PING, 0, 0, NULL, 0, 0);
			break;
		case 2:				/* lists go by the tether */
			(void)t_send(t, MKV_WIRE_EXISTS, 0, 0, body, rig_keys_body(body, "k%u", 0, 3), 0);
			break;
		case 3:				/* payload that is nowhere */
			(void)t_send(t, MKV_WIRE_PUT, 0, 0, body, b, 1000);
			break;
		case 4:				/* shorter than a header */
			mkv_rdma_qp_send(t->u.qp, &(struct iovec){ body, 50 }, 1, MKV_RDMA_SIGNAL, NULL);
			break;
		case 5:				/* a body that is not all there */
			t->counter++;
			memset(body, 0, 96);
			mkv_rdma_qp_send(t->u.qp, &(struct iovec){ body, 96 }, 1, MKV_RDMA_SIGNAL, NULL);
			break;
		case 6:				/* the session of somebody else */
			t->c.session++;
			(void)t_send(t, MKV_WIRE_PING, 0, 0, NULL, 0, 0);
			t->c.session--;
			break;
		case 7:				/* HELLO's time is over */
			(void)t_send(t, MKV_WIRE_HELLO, 0, 0, body, 64, 0);
			break;
		case 8:				/* another channel's number */
			t->channel++;
			(void)t_send(t, MKV_WIRE_PING, 0, 0, NULL, 0, 0);
			break;
		}
		t_assert_broken(t);
		assert_int_equal(mkv_metric_get(t->r.m, MKV_M_front_channels_broken_total, 0), 1);
		closed(t);
	}
}

/* Segments that make no sense end the request; the channel goes on. */
static void
segments_that_make_no_sense(void **state)
{
	struct t *t = opened(0);

	(void)state;
	rig_fill(t->mem, 1000, 1);
	for (int what = 0; what < 4; what++) {
		_Alignas(8) uint8_t body[4000];
		struct mkv_wire_seg s = { .addr = (uintptr_t)t->mem, .bytes = 1000 };
		size_t b = rig_put_body(body, "k", 1, t->mem, 1000, 0, 1000, 0);

		if (what == 0)
			s.bytes = 999;
		if (what == 1)
			s.addr = UINT64_MAX - 10;
		if (what == 2)
			s.bytes = 0;
		memcpy(body + b, &s, sizeof(s));
		(void)t_send(t, MKV_WIRE_PUT, MKV_WIRE_F_REMOTE, 0, body, b + (what == 3 ? 8 : sizeof(s)), 1000);
		assert_int_equal(-(int)t_next(t)->h.status, MKV_E_PROTO);
	}
	assert_int_equal(t_put(t, "k", 0, 1000, 300), 0);
	/* By the tether there is no such thing. */
	rig_send(&t->c, MKV_WIRE_GET, MKV_WIRE_F_REMOTE, 0, t->mem, 0, NULL, 0);
	assert_int_equal(rig_recv(&t->c, RIG_PATIENCE_MS), -1);
	closed(t);
}

/* A wrong key breaks the channel: the NIC at the far end says no. */
static void
keys_that_are_not_the_clients(void **state)
{
	(void)state;
	for (int put = 0; put < 2; put++) {
		struct t *t = opened(0);
		_Alignas(8) uint8_t body[4000];
		struct mkv_wire_seg s = { .bytes = 1000, .rkey = 0xdeadbeef };
		size_t b;

		rig_fill(t->mem, 1000, 1);
		assert_int_equal(t_put(t, "k", 0, 1000, 1000), 0);
		s.addr = (uintptr_t)t->mem;
		b = put ? rig_put_body(body, "k2", 2, t->mem, 1000, 0, 1000, 0) : rig_get_body(body, "k", 1, 0, 1000);
		memcpy(body + b, &s, sizeof(s));
		(void)t_send(t, put ? MKV_WIRE_PUT : MKV_WIRE_GET, MKV_WIRE_F_REMOTE, 0, body, b + sizeof(s), put ? 1000 : 0);
		t_assert_broken(t);
		closed(t);
	}
}

/* More messages than were granted, while nothing can be answered. */
static void
more_than_was_granted(void **state)
{
	struct t *t = opened(0);

	(void)state;
	rig_fill(t->mem, 1000, 1);
	t_drives(t, 1);
	for (unsigned i = 0; i < 200 && mkv_metric_get(t->r.m, MKV_M_front_channels_broken_total, 0) == 0; i++) {
		if (!mkv_rdma_qp_ready(t->u.qp) || mkv_rdma_qp_room(t->u.qp) == 0)
			break;
		(void)t_put_part(t, "k", 0, 0, 1000, 0, 1000, 0, 1000);
		t_pump(t);
	}
	assert_int_equal(mkv_metric_get(t->r.m, MKV_M_front_channels_broken_total, 0), 1);
	t_assert_broken(t);
	rig_drive_kill(&t->r, 0);		/* their answers would not fit the rings of the rig at once */
	rig_drive_kill(&t->r, 1);
	closed(t);
}

static void
a_port_that_goes_down_is_told(void **state)
{
	struct t *t = opened(0);
	struct mkv_wire_rail row;

	(void)state;
	mkv_rail_describe(t->rail, &row);
	assert_int_equal(row.state, 1);
	assert_string_equal(row.device, "fake0");
	fv_port(0, 1, 0);
	assert_int_equal(mkv_rail_event(t->rail), 1);
	mkv_rail_describe(t->rail, &row);
	assert_int_equal(row.state, 0);
	fv_port(0, 1, 1);
	assert_int_equal(mkv_rail_event(t->rail), 1);
	assert_int_equal(mkv_rail_event(t->rail), 0);
	fv_event(0, IBV_EVENT_DEVICE_FATAL, 0);
	assert_int_equal(mkv_rail_event(t->rail), 2);
	closed(t);
}

/* The address that clients were told goes: the rail is down, until it is there again. Where another takes its place the process begins anew; others are nothing to it. */
static void
an_address_that_goes_is_told(void **state)
{
	struct t *t = opened(0);
	struct fv_device *d = fv_device(0);
	const struct ibv_gid_entry had = d->gid[3];

	(void)state;
	assert_int_equal(t->rail->dev->gid_index, 3);
	d->gid[4] = had;
	d->gid[4].gid_index = 4;
	d->gid[4].gid.raw[15] ^= 0x40;
	d->n_gids = 5;
	fv_event(0, IBV_EVENT_GID_CHANGE, 1);
	assert_int_equal(mkv_rail_event(t->rail), 0);
	d->n_gids = 3;
	fv_event(0, IBV_EVENT_GID_CHANGE, 1);
	assert_int_equal(mkv_rail_event(t->rail), 1);		/* the link-local one that is left is no substitute */
	assert_int_equal(t->rail->up, 0);
	assert_non_null(strstr(mkv_rail_state_text(t->rail), "address"));
	fv_port(0, 1, 0);
	assert_int_equal(mkv_rail_event(t->rail), 0);
	fv_port(0, 1, 1);
	assert_int_equal(mkv_rail_event(t->rail), 0);
	d->n_gids = 4;
	fv_event(0, IBV_EVENT_GID_CHANGE, 1);
	assert_int_equal(mkv_rail_event(t->rail), 1);
	assert_int_equal(t->rail->up, 1);
	d->gid[3].gid.raw[15] ^= 0x40;
	fv_event(0, IBV_EVENT_GID_CHANGE, 1);
	assert_int_equal(mkv_rail_event(t->rail), 3);
	d->gid[3] = had;
	closed(t);
}

/* Counted, and asked for again by the next look at the gauges. */
static void
few_receives_are_counted(void **state)
{
	struct t *t = opened(0);

	(void)state;
	assert_true(t->rail->alarm_set);
	fv_event(0, IBV_EVENT_SRQ_LIMIT_REACHED, 0);
	assert_int_equal(mkv_rail_event(t->rail), 0);
	assert_int_equal(mkv_metric_get(t->r.m, MKV_M_front_receives_low_total, 0), 1);
	assert_false(t->rail->alarm_set);
	mkv_rail_gauges(t->rail);
	assert_true(t->rail->alarm_set);
	closed(t);
}

/* The log has the device, and what mends it. */
static void
an_arena_that_is_not_taken(void **state)
{
	struct t *t = opened(0);
	static uint8_t arena[65536];
	char text[1024];
	ssize_t n;
	int fd[2];

	(void)state;
	assert_int_equal(pipe2(fd, O_NONBLOCK), 0);
	mkv_log_set_fd(fd[1]);
	fv_fail(FV_REG_MR, 1, ENOMEM);
	assert_int_equal(mkv_rail_arena(t->rail, 1, arena, sizeof(arena)), MKV_E_NOMEM);
	mkv_log_set_fd(STDERR_FILENO);
	n = read(fd[0], text, sizeof(text) - 1);
	assert_true(n > 0);
	text[n] = '\0';
	assert_non_null(strstr(text, "event=rail_memory"));
	assert_non_null(strstr(text, "65536 bytes cannot be locked for RDMA device fake0"));
	assert_non_null(strstr(text, "LimitMEMLOCK="));
	close(fd[0]);
	close(fd[1]);
	assert_int_equal(mkv_rail_arena(t->rail, 1, arena, sizeof(arena)), 0);
	closed(t);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(round_trips),
		cmocka_unit_test(a_get_asks_for_two_wake_ups),
		cmocka_unit_test(values_in_parts),
		cmocka_unit_test(a_part_passes_what_waits),
		cmocka_unit_test(answers_without_payload),
		cmocka_unit_test(wrong_bytes_are_refused),
		cmocka_unit_test(cancelled_in_the_middle),
		cmocka_unit_test(nothing_comes_behind_cancelled),
		cmocka_unit_test(window_and_deadline),
		cmocka_unit_test(ends_that_break_in_the_middle),
		cmocka_unit_test(another_channel_after_the_first), cmocka_unit_test(carriers_of_messages),
		cmocka_unit_test(a_key_that_was_revoked),
		cmocka_unit_test(messages_that_break_the_rules),
		cmocka_unit_test(segments_that_make_no_sense),
		cmocka_unit_test(keys_that_are_not_the_clients),
		cmocka_unit_test(more_than_was_granted), cmocka_unit_test(few_receives_are_counted),
		cmocka_unit_test(an_arena_that_is_not_taken),
		cmocka_unit_test(a_port_that_goes_down_is_told),
		cmocka_unit_test(an_address_that_goes_is_told),
	};

	return (cmocka_run_group_tests(tests, NULL, NULL));
}
