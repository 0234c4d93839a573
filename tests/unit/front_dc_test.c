/*
 * A front's DC on the fake fabric: leases of its initiators, who waits for one, what their errors cost, and that no client costs a queue pair. rig_close() asserts
 * that nothing is left: no buffer, slot or request; fv_start() that no object of verbs is.
 */
#include "config.h"

#include "tests/lib/rnd.h"
#include "tests/unit/front_guest.h"
#include "worker/front/rail_priv.h"

static uint32_t
free_dcis(struct t *t)
{
	mkv_rail_gauges(t->rail);
	return ((uint32_t)M(dcis_free));
}

static void
assert_all_free(struct t *t, uint32_t n)
{
	for (unsigned i = 0; i < 1000 && free_dcis(t) != n; i++) {
		t_pump(t);
		rig_pump_ms(&t->r, 1);
	}
	assert_int_equal(free_dcis(t), n);
	assert_int_equal(M(dcis_leased), 0);
	assert_int_equal(M(dcis_lost), 0);
}

/* The answer to this request, whatever else comes before it. */
static struct t_msg *
answer_to(struct t *t, uint64_t id)
{
	struct t_msg *m;

	while ((m = t_next(t)) != NULL && m->h.request_id != id)
		continue;
	assert_non_null(m);
	return (m);
}

/* ---- What is agreed on ----------------------------------------------------------------------------------------------------- */

static void
the_rail_says_what_it_has(void **state)
{
	struct t *t = opened(4);
	struct mkv_wire_rail row;

	(void)state;
	mkv_rail_describe(t->rail, &row);
	assert_int_equal(row.transports, MKV_FEATURE_RDMA_RC | MKV_FEATURE_RDMA_DC);
	assert_string_equal(mkv_rail_without_dc(t->rail), "");
	closed(t);
	t = opened(0);
	mkv_rail_describe(t->rail, &row);
	assert_int_equal(row.transports, MKV_FEATURE_RDMA_RC);
	assert_true(mkv_rail_without_dc(t->rail)[0] != '\0');
	closed(t);
}

/* A front whose device has none: the same client gets RC at its next try. */
static void
a_device_without_dc(void **state)
{
	struct t *t = opened(0);
	struct mkv_wire_attach a = t_want(t, 2);

	(void)state;
	a.transport = MKV_FEATURE_RDMA_DC;
	assert_int_equal(t_ask_for(&t->c, &a), MKV_E_UNSUPPORTED);
	assert_int_equal(t_get(t, "the channel is there still", 0, 0, 100, 100), MKV_E_MISS);
	closed(t);
}

static void
clients_that_do_not_fit(void **state)
{
	struct t *t = opened(4);
	struct mkv_wire_attach a = t_want(t, 2);

	(void)state;
	a.mtu_bytes /= 2;
	assert_int_equal(t_ask_for(&t->c, &a), MKV_E_UNSUPPORTED);
	assert_int_equal(t_get(t, "the channel is there still", 0, 0, 100, 100), MKV_E_MISS);
	a = t_want(t, 2);
	a.rd_atomic_in--;
	assert_int_equal(t_ask_for(&t->c, &a), MKV_E_UNSUPPORTED);
	a = t_want(t, 2);
	a.qpn = 1u << 24;
	assert_int_equal(t_ask_for(&t->c, &a), MKV_E_PEER);
	a = t_want(t, 3);
	memset(a.gid, 0x77, sizeof(a.gid));
	assert_int_equal(t_ask_for(&t->c, &a), MKV_E_UNREACHABLE);
	assert_all_free(t, 4);
	closed(t);
}

static void
clients_cost_no_queue_pair(void **state)
{
	struct t *t = opened(4);
	unsigned alive, made;
	struct rig_client c[8];

	(void)state;
	assert_int_equal(t_put(t, "k", 0, 1000, 1000), 0);	/* its address handle is there */
	assert_all_free(t, 4);
	alive = fv_alive();
	made = fv_calls(FV_DC_CREATE_INITIATOR);
	for (unsigned i = 0; i < MKV_ARRAY_LEN(c); i++) {
		struct mkv_wire_attach a = t_want(t, 1);

		rig_client_join(&t->r, &c[i], 1);
		assert_int_equal(t_ask_for(&c[i], &a), 0);
	}
	rig_pump_ms(&t->r, 2);
	mkv_rail_gauges(t->rail);
	assert_int_equal(M(channels), 9);
	assert_int_equal(M(channels_dc), 9);
	assert_int_equal(fv_alive(), alive);
	assert_int_equal(fv_calls(FV_DC_CREATE_INITIATOR), made);
	for (unsigned i = 0; i < MKV_ARRAY_LEN(c); i++)
		rig_client_close(&c[i]);
	closed(t);
}

/* ---- Blocks ---------------------------------------------------------------------------------------------------------------- */

static void
blocks_go_both_ways(void **state)
{
	static const uint32_t sizes[] = { 1, 4096, 65537, 1 << 20 };
	struct t *t = opened(4);
	struct fv_wr w[FV_LOG];
	uint32_t first = 0;

	(void)state;
	for (size_t i = 0; i < MKV_ARRAY_LEN(sizes); i++) {
		uint32_t n = sizes[i], off = 4097 + (uint32_t)i;
		uint8_t *want = malloc(n);

		rig_fill(want, n, n);
		memcpy(t->mem + off, want, n);
		assert_int_equal(t_put(t, "key", off, n, 70000), 0);
		memset(t->mem, T_POISON, T_BYTES);
		assert_int_equal(t_get(t, "key", 0, off + 5, n + 1000, 33333), n);
		assert_memory_equal(t->mem + off + 5, want, n);
		assert_true(t_poison_but(t, off + 5, n));
		free(want);
	}
	/* A value in parts: one line for all of them. */
	rig_fill(t->mem, 3000000, 3);
	for (uint32_t at = 0, part = 1 << 20, n = 3000000; at < n; at += part) {
		uint64_t id = t_put_part(t, "long", at == 0 ? 0 : t->next_id + 1000000, at, MKV_MIN(part, n - at), at, n, at + part < n, 300000);

		assert_int_equal(answer_to(t, id)->h.status, 0);
	}
	assert_all_free(t, 4);
	assert_int_equal(t_get(t, "long", 0, 3000000, 3000000, 400000), 3000000);
	assert_memory_equal(t->mem, t->mem + 3000000, 3000000);
	/* All pieces of one request went by one initiator, and they took turns. */
	for (unsigned n = fv_log(w, FV_LOG), i = 0; i < n; i++)
		if (w[i].opcode != IBV_WR_SEND) {
			assert_int_equal(w[i].dctn, mkv_rdma_qp_number(t->u.qp));
			assert_int_equal(w[i].dc_key, mkv_rdma_target_key(t->u.qp));
			first |= 1u << (w[i].qpn % 32);
		}
	assert_true((first & (first - 1)) != 0);
	assert_all_free(t, 4);
	assert_int_equal(M(dci_resets_total), 0);
	closed(t);
}

/* Different initiators at once: each request has one, all its pieces and its answer. */
static void
requests_side_by_side(void **state)
{
	struct t *t = opened(8);
	uint32_t n = 100000;
	uint64_t id[3];
	char key[8];

	(void)state;
	for (unsigned i = 0; i < 3; i++) {
		snprintf(key, sizeof(key), "k%u", i);
		assert_int_equal(t_put(t, key, i * n, n, n), 0);
	}
	memset(t->mem + 3 * n, T_POISON, T_BYTES - 3 * n);
	for (unsigned i = 0; i < 3; i++) {
		snprintf(key, sizeof(key), "k%u", i);
		id[i] = t_ask_get(t, key, 0, (3 + i) * n, n, n);
	}
	mkv_rdma_hub_flush(t->u.hub);
	fv_hold(1);
	t_pump(t);
	assert_int_equal(free_dcis(t), 5);
	assert_int_equal(fv_held(), 3 * 3);		/* two pieces and the answer of each */
	fv_hold(0);
	for (unsigned i = 0; i < 3; i++)
		assert_int_equal(answer_to(t, id[i])->h.status, 0);
	assert_memory_equal(t->mem, t->mem + 3 * n, 3 * n);
	assert_all_free(t, 8);
	closed(t);
}

/* ---- Waiting --------------------------------------------------------------------------------------------------------------- */

/* More requests than initiators: they wait, none is lost, and a PING comes through where one is kept for it. */
static void
requests_wait_for_an_initiator(void **state)
{
	(void)state;
	for (uint32_t dcis = 1; dcis <= 3; dcis++) {
		struct t *t = opened(dcis);
		uint32_t n = 10000;
		uint64_t ping;
		struct t_msg *m;
		unsigned got = 0;

		for (unsigned i = 0; i < 10; i++) {
			char key[8];

			snprintf(key, sizeof(key), "k%u", i);
			(void)t_put_part(t, key, 0, i * n, n, 0, n, 0, n);
		}
		t_drives(t, 1);
		t_pump(t);
		assert_int_equal(free_dcis(t), dcis - 1);
		assert_true(M(dci_waits_total) > 0);
		ping = t_send(t, MKV_WIRE_PING, 0, 0, NULL, 0, 0);
		if (dcis > 1) {
			assert_non_null(m = t_next(t));
			assert_int_equal(m->h.request_id, ping);
		}
		t_drives(t, 0);
		while (got < 10 + (dcis == 1)) {
			assert_non_null(m = t_next(t));
			assert_int_equal(m->h.status, 0);
			got++;
		}
		for (unsigned i = 0; i < 10; i++) {
			char key[8];

			snprintf(key, sizeof(key), "k%u", i);
			assert_int_equal(t_get(t, key, 0, 20 * n, n, n), n);
			assert_memory_equal(t->mem + i * n, t->mem + 20 * n, n);
		}
		assert_all_free(t, dcis);
		assert_int_equal(M(dci_resets_total), 0);
		closed(t);
	}
}

/* A value in parts has the only initiator, since a part of it is at its drive; others wait in front of its next part. */
static void
parts_pass_those_who_wait(void **state)
{
	struct t *t = opened(1);
	uint32_t part = 1 << 20, n = part + 1000;
	uint64_t put, get;
	struct t_msg *m;
	unsigned reads;

	(void)state;
	t_drives(t, 1);
	put = t_put_part(t, "long", 0, 0, part, 0, n, 1, 300000);
	m = answer_to(t, put);
	assert_true((m->h.flags & MKV_WIRE_F_MORE) != 0);
	get = t_ask_get(t, "nothing", 0, 0, 1000, 1000);
	t_pump(t);
	assert_int_equal(M(dci_waits_total), 1);
	reads = t_reads();
	(void)t_put_part(t, "long", put, part, n - part, part, n, 0, 300000);
	t_pump(t);
	assert_true(t_reads() > reads);
	t_drives(t, 0);
	do
		assert_int_equal((m = answer_to(t, put))->h.status, 0);
	while ((m->h.flags & MKV_WIRE_F_MORE) != 0);
	assert_int_equal(-(int)answer_to(t, get)->h.status, MKV_E_MISS);
	assert_all_free(t, 1);
	closed(t);
}

/* Two sessions that wait take turns: the one with much to ask does not keep the other from its one request. */
static void
sessions_take_turns(void **state)
{
	struct t *t = opened(2);
	const struct mkv_chan *ch;
	unsigned before = 0;
	struct guest g;

	(void)state;
	assert_int_equal(t_put(t, "k", 0, 1000, 1000), 0);
	guest_open(t, &g);
	ch = &t->rail->chans[g.conn->idx];
	t_drives(t, 1);
	for (unsigned i = 0; i < 12; i++)
		(void)t_ask_get(t, "k", 0, 0, 1000, 1000);
	t_pump(t);
	guest_ask_get(t, &g, "k");
	t_pump(t);
	assert_int_equal(ch->n_held, 1);
	for (; before < 12 && ch->n_held == 1; before++) {
		t_drives(t, 0);
		t_drives(t, 1);
		for (unsigned i = 0; i < 4; i++)
			rig_pump(&t->r);
	}
	assert_in_range(before, 1, 3);
	t_drives(t, 0);
	guest_close(&g);
	closed(t);
}

/* ---- Errors ---------------------------------------------------------------------------------------------------------------- */

/* A wrong key costs its request, which is told so, and nothing else; the initiator works again. */
static void
an_error_costs_one_request(void **state)
{
	(void)state;
	for (int put = 0; put < 2; put++) {
		struct t *t = opened(2);
		_Alignas(8) uint8_t body[4000];
		struct mkv_wire_seg s = { .bytes = 1000, .rkey = 0xdeadbeef };
		uint64_t bad, good;
		struct t_msg *m;
		size_t b;

		assert_int_equal(t_put(t, "k", 0, 1000, 1000), 0);
		for (unsigned i = 0; i < 6; i++) {
			s.addr = (uintptr_t)t->mem;
			b = put ? rig_put_body(body, "k2", 2, t->mem, 1000, 0, 1000, 0) : rig_get_body(body, "k", 1, 0, 1000);
			memcpy(body + b, &s, sizeof(s));
			bad = t_send(t, put ? MKV_WIRE_PUT : MKV_WIRE_GET, MKV_WIRE_F_REMOTE, 0, body, b + sizeof(s), put ? 1000 : 0);
			good = t_ask_get(t, "k", 0, 5000, 1000, 1000);
			m = answer_to(t, bad);
			assert_int_equal(-(int)m->h.status, MKV_E_CLOSED);
			assert_int_equal(m->h.reason, MKV_REASON_NIC_REFUSED);
			for (t->at_msg = 0; t->at_msg < t->n_msg && t->msg[t->at_msg % T_MSGS].h.request_id != good; t->at_msg++)
				continue;
			m = answer_to(t, good);
			assert_int_equal(m->h.status, 0);
			assert_memory_equal(t->mem, t->mem + 5000, 1000);
			t->at_msg = t->n_msg;
		}
		assert_int_equal(M(channels_broken_total), 0);
		assert_all_free(t, 2);
		assert_int_equal(M(dci_resets_total), 6);
		closed(t);
	}
}

/* The device says that an initiator broke in the middle: bytes may be on their way, and that is what the client hears. */
static void
a_path_that_fails_in_the_middle(void **state)
{
	(void)state;
	for (int put = 0; put < 2; put++) {
		struct t *t = opened(4);
		uint32_t n = 1 << 20;
		struct fv_wr w[FV_LOG];
		struct t_msg *m;
		uint64_t id;

		assert_int_equal(t_put(t, "k", 0, n, n), 0);
		id = put ? t_put_part(t, "k2", 0, 0, n, 0, n, 0, n) : t_ask_get(t, "k", 0, 0, n, n);
		mkv_rdma_hub_flush(t->u.hub);
		fv_hold(1);
		t_pump(t);
		assert_int_equal(fv_held(), 4);
		fv_qp_break(w[fv_log(w, FV_LOG) - 1].qpn);
		t_pump(t);
		fv_hold(0);
		m = answer_to(t, id);
		assert_int_equal(-(int)m->h.status, MKV_E_CLOSED);
		assert_int_equal(m->h.reason, MKV_REASON_PATH);
		assert_int_equal(t_get(t, "k", 0, 0, n, n), n);
		assert_int_equal(M(channels_broken_total), 0);
		assert_all_free(t, 4);
		assert_int_equal(M(dci_resets_total), 1);
		closed(t);
	}
}

/* With no initiator left to say it by, a get that failed so breaks the channel: its client then makes its memory safe by itself. A put has nothing to say. */
static void
a_path_that_nobody_can_be_told_of(void **state)
{
	(void)state;
	for (int put = 0; put < 2; put++) {
		struct t *t = opened(1);
		uint32_t n = 1 << 20;
		struct fv_wr w[FV_LOG];

		assert_int_equal(t_put(t, "k", 0, n, n), 0);
		(void)(put ? t_put_part(t, "k2", 0, 0, n, 0, n, 0, n) : t_ask_get(t, "k", 0, 0, n, n));
		mkv_rdma_hub_flush(t->u.hub);
		fv_hold(1);
		t_pump(t);
		fv_qp_break(w[fv_log(w, FV_LOG) - 1].qpn);
		t_pump(t);
		fv_hold(0);
		t_pump(t);
		assert_int_equal(M(channels_broken_total), !put);
		if (put)
			assert_int_equal(t_get(t, "k", 0, 0, n, n), n);
		else
			t_assert_broken(t);
		assert_all_free(t, 1);
		closed(t);
	}
}

/* An initiator that cannot be made anew is out of service, and is told as such; the others do its work. */
static void
an_initiator_that_is_lost(void **state)
{
	struct t *t = opened(3);
	struct mkv_wire_rail row;
	uint64_t id;

	(void)state;
	assert_int_equal(t_put(t, "k", 0, 1000, 1000), 0);
	assert_all_free(t, 3);
	id = t_lose_initiator(t);
	assert_int_equal(answer_to(t, id)->h.reason, MKV_REASON_PATH);
	for (unsigned i = 0; i < 10; i++)
		assert_int_equal(t_get(t, "k", 0, 5000, 1000, 1000), 1000);
	rig_pump_ms(&t->r, 2);
	assert_int_equal(free_dcis(t), 2);
	assert_int_equal(M(dcis_lost), 1);
	/* With the last of them DC is over, and the rail says so; who attaches again gets RC. */
	for (unsigned i = 0; i < 2; i++)
		(void)t_lose_initiator(t);
	t_assert_broken(t);
	mkv_rail_describe(t->rail, &row);
	assert_int_equal(row.transports, MKV_FEATURE_RDMA_RC);
	assert_true(mkv_rail_without_dc(t->rail)[0] != '\0');
	t_detach(t);
	t_qp(t);
	assert_int_equal(t_ask(t, 2), MKV_E_UNSUPPORTED);
	t_drop_qps(t);
	t->num_dcis = 0;
	t_attach(t, 2);
	t->at_msg = t->n_msg;
	assert_int_equal(t_get(t, "k", 0, 5000, 1000, 1000), 1000);
	closed(t);
}

/* The client's target is gone, as after a fence: the second failure of the path ends the channel. */
static void
a_client_that_is_gone(void **state)
{
	struct t *t = opened(4);

	(void)state;
	assert_int_equal(t_put(t, "k", 0, 1000, 1000), 0);
	(void)t_ask_get(t, "k", 0, 0, 1000, 1000);
	(void)t_ask_get(t, "k", 0, 0, 1000, 1000);
	mkv_rdma_hub_flush(t->u.hub);
	mkv_rdma_qp_fail(t->u.qp);
	t_assert_broken(t);
	assert_int_equal(M(channels_broken_total), 1);
	assert_all_free(t, 4);
	t_detach(t);
	t_attach(t, 2);
	assert_int_equal(t_get(t, "k", 0, 5000, 1000, 1000), 1000);
	closed(t);
}

/* No receives: its second message that finds none ends the channel. Others go on. */
static void
a_client_that_posts_no_receives(void **state)
{
	struct t *t = opened(4);

	(void)state;
	fv_quirks(FV_RNR_AT_ONCE);
	assert_int_equal(t_put(t, "k", 0, 1000, 1000), 0);
	t->keep_rx = 1;
	for (unsigned i = 0; i < 200 && M(channels_broken_total) == 0; i++) {
		if (!mkv_rdma_qp_ready(t->tx) || mkv_rdma_qp_room(t->tx) == 0)
			break;
		(void)t_ask_get(t, "k", 0, 0, 1000, 1000);
		t_pump(t);
	}
	assert_int_equal(M(channels_broken_total), 1);
	t_rx_back(t);
	t_assert_broken(t);
	assert_all_free(t, 4);
	closed(t);
}

/* ---- Order ----------------------------------------------------------------------------------------------------------------- */

/* The answer to CANCEL comes by the initiator of what it ends: behind all that was posted. */
static void
nothing_comes_behind_cancelled(void **state)
{
	struct t *t = opened(4);
	uint32_t n = 1 << 20;

	(void)state;
	assert_int_equal(t_put(t, "k", 0, n, n), 0);
	for (int put = 0; put < 2; put++) {
		struct mkv_wire_cancel w = { 0 };
		uint64_t before;
		struct fv_wr l[FV_LOG];
		struct t_msg *m;
		unsigned k;

		assert_all_free(t, 4);
		before = fv_count().wrs;
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
		assert_int_equal(free_dcis(t), 3);
		k = fv_log(l, FV_LOG);
		assert_int_equal(l[k - 1].qpn, l[k - 2].qpn);
		assert_int_equal(l[k - 1].qpn, l[k - 4].qpn);
		fv_hold(0);
		assert_non_null(m = t_next(t));
		assert_int_equal(m->h.request_id, w.request_id);
		assert_int_equal(-(int)m->h.status, MKV_E_CANCELLED);
		assert_non_null(m = t_next(t));
		assert_int_equal(m->h.op, MKV_WIRE_CANCEL);
	}
	assert_all_free(t, 4);
	closed(t);
}

/* A get's path fails, and the client hears of it by another initiator: a CANCEL that crosses that word is answered behind it. */
static void
cancel_goes_behind_the_word(void **state)
{
	struct t *t = opened(4);
	struct mkv_wire_cancel w = { 0 };
	struct fv_wr l[FV_LOG];
	uint32_t n = 1 << 20;
	struct t_msg *m;
	unsigned k;

	(void)state;
	assert_int_equal(t_put(t, "k", 0, n, n), 0);
	w.request_id = t_ask_get(t, "k", 0, 0, n, n);
	mkv_rdma_hub_flush(t->u.hub);
	fv_hold(1);
	t_pump(t);
	fv_qp_break(l[fv_log(l, FV_LOG) - 1].qpn);
	t_pump(t);
	assert_int_equal(fv_held(), 1);			/* the word */
	(void)t_send(t, MKV_WIRE_CANCEL, 0, 0, &w, sizeof(w), 0);
	mkv_rdma_hub_flush(t->u.hub);
	(void)fv_step(2);
	t_pump(t);
	k = fv_log(l, FV_LOG);
	assert_true(l[k - 1].opcode == IBV_WR_SEND && l[k - 1].qpn == l[k - 3].qpn);
	fv_hold(0);
	assert_non_null(m = t_next(t));
	assert_true(m->h.request_id == w.request_id && m->h.reason == MKV_REASON_PATH);
	assert_non_null(m = t_next(t));
	assert_int_equal(m->h.op, MKV_WIRE_CANCEL);
	assert_all_free(t, 4);
	closed(t);
}

static void
a_session_ends_with_initiators_out(void **state)
{
	(void)state;
	for (int what = 0; what < 4; what++) {
		struct t *t = opened(4);
		uint32_t n = 1 << 20;

		assert_int_equal(t_put(t, "k", 0, n, n), 0);
		for (unsigned i = 0; i < 2; i++)
			(void)(what % 2 ? t_put_part(t, "k2", 0, 0, n, 0, n, 0, n) : t_ask_get(t, "k", 0, 0, n, n));
		mkv_rdma_hub_flush(t->u.hub);
		fv_hold(1);
		t_pump(t);
		assert_true(fv_held() >= 8);
		assert_int_equal(free_dcis(t), 2);
		if (what / 2 == 0)
			shutdown(t->c.fd, SHUT_RDWR);
		else {
			struct mkv_wire_attach a = t_want(t, 2);

			(void)t_ask_for(&t->c, &a);		/* it gives the channel up */
		}
		rig_pump_ms(&t->r, 5);
		fv_hold(0);
		assert_all_free(t, 4);
		assert_int_equal(M(dci_resets_total), 2);
		assert_int_equal(M(channels_broken_total), 0);
		closed(t);
	}
}

/* ---- Messages -------------------------------------------------------------------------------------------------------------- */

/* What anybody could have sent costs the client nothing. */
static void
messages_of_others_and_old_ones(void **state)
{
	struct t *t = opened(4);
	uint8_t body[64] = { 0 };
	struct mkv_mac *ours;

	(void)state;
	(void)t_send(t, MKV_WIRE_PING, 0, 0, NULL, 0, 0);
	assert_non_null(t_next(t));
	t->counter--;				/* once more */
	(void)t_send(t, MKV_WIRE_PING, 0, 0, NULL, 0, 0);
	t->counter += 2000;			/* a gap is no fault */
	(void)t_send(t, MKV_WIRE_PING, 0, 0, NULL, 0, 0);
	assert_non_null(t_next(t));
	t->counter -= 1500;			/* too old to tell */
	(void)t_send(t, MKV_WIRE_PING, 0, 0, NULL, 0, 0);
	t->counter += 1500;
	t_pump(t);
	assert_int_equal(M(messages_stale_total), 2);
	t->counter -= 100;			/* late, but new */
	(void)t_send(t, MKV_WIRE_PING, 0, 0, NULL, 0, 0);
	assert_non_null(t_next(t));
	t->counter += 100;
	t->c.session++;
	(void)t_send(t, MKV_WIRE_PING, 0, 0, NULL, 0, 0);
	t->c.session--;
	t->channel++;
	(void)t_send(t, MKV_WIRE_PING, 0, 0, NULL, 0, 0);
	t->channel--;
	mkv_rdma_qp_send(t->tx, &(struct iovec){ body, 50 }, 1, MKV_RDMA_SIGNAL, NULL);
	t_pump(t);
	assert_int_equal(M(messages_unknown_total), 3);
	ours = t->out;
	t->out = NULL;
	assert_int_equal(mkv_mac_create(&t->out, t->r.key), 0);
	(void)t_send(t, MKV_WIRE_PING, 0, 0, NULL, 0, 0);
	mkv_mac_destroy(&t->out);
	t->out = ours;
	t_pump(t);
	assert_int_equal(M(auth_failures_total), 1);
	assert_int_equal(M(channels_broken_total), 0);
	(void)t_send(t, MKV_WIRE_PING, 0, 0, NULL, 0, 0);
	assert_non_null(t_next(t));
	assert_all_free(t, 4);
	closed(t);
}

/* What the client itself has signed, and must not send, ends its channel. */
static void
messages_that_break_the_rules(void **state)
{
	struct t *t = opened(4);
	uint8_t body[4000];

	(void)state;
	(void)t_send(t, MKV_WIRE_EXISTS, 0, 0, body, rig_keys_body(body, "k%u", 0, 3), 0);
	t_assert_broken(t);
	assert_int_equal(M(channels_broken_total), 1);
	closed(t);
}

/* ---- All of it at once ----------------------------------------------------------------------------------------------------- */

#define CHAOS_STEPS	300u
#define CHAOS_KEYS	4u

static uint64_t
chaos_get(struct t *t, struct rnd *r, int bad)
{
	_Alignas(8) uint8_t body[4000];
	struct mkv_wire_seg s = { .addr = (uintptr_t)t->mem, .bytes = 1000, .rkey = 0xdeadbeef };
	char key[8];
	size_t b;

	snprintf(key, sizeof(key), "k%u", (unsigned)rnd_below(r, CHAOS_KEYS));
	if (!bad)
		return (t_ask_get(t, key, 0, 0, 1 + (uint32_t)rnd_below(r, 1 << 20), 1 << 18));
	b = rig_get_body(body, key, strlen(key), 0, 1000);
	memcpy(body + b, &s, sizeof(s));
	return (t_send(t, MKV_WIRE_GET, MKV_WIRE_F_REMOTE, 0, body, b + sizeof(s), 0));
}

static uint64_t
chaos_put(struct t *t, struct rnd *r, int more)
{
	char key[8];

	snprintf(key, sizeof(key), "k%u", (unsigned)rnd_below(r, CHAOS_KEYS));
	if (more)
		return (t_put_part(t, key, 0, 0, 1 << 20, 0, 1 << 21, 1, 1 << 18));
	return (t_put_part(t, key, 0, 0, 1 << 18, 0, 1 << 18, 0, 1 << 18));
}

static void
chaos_break(struct rnd *r)
{
	struct fv_wr w[FV_LOG];
	unsigned n = fv_log(w, FV_LOG);

	if (n > 0)
		fv_qp_break(w[n - 1 - rnd_below(r, MKV_MIN(n, 8u))].qpn);
}

static void
chaos_attach(struct t *t)
{
	fv_hold(0);
	t_detach(t);
	t_attach(t, (uint16_t)(t->channel + 1));
}

static void
chaos_step(struct t *t, struct rnd *r, uint64_t *last)
{
	struct mkv_wire_cancel w = { .request_id = *last };

	t->deadline_us = 1000 + (uint32_t)rnd_below(r, 50000);
	if (!mkv_rdma_qp_ready(t->tx) || mkv_rdma_qp_room(t->tx) == 0 || rnd_below(r, 50) == 0) {
		chaos_attach(t);
		return;
	}
	switch (rnd_below(r, 14)) {
	case 0: case 1: case 2: *last = chaos_get(t, r, 0); break;
	case 3: case 4: *last = chaos_put(t, r, 0); break;
	case 5: *last = chaos_put(t, r, 1); break;
	case 6: *last = chaos_get(t, r, 1); break;
	case 7: (void)t_send(t, MKV_WIRE_PING, 0, 0, NULL, 0, 0); break;
	case 8: (void)t_send(t, MKV_WIRE_CANCEL, 0, 0, &w, sizeof(w), 0); break;
	case 9: fv_hold(1); break;
	case 10: fv_hold(0); break;
	case 11: chaos_break(r); break;
	case 12: (void)fv_step((unsigned)rnd_below(r, 6)); break;
	case 13: rig_pump_ms(&t->r, 2); break;
	}
	mkv_rdma_hub_flush(t->u.hub);
	if (rnd_below(r, 3) != 0)
		t_pump(t);
}

/* Whatever comes together: at its end all initiators are free and work, and nothing is left (t_close()). */
static void
everything_at_once(void **state)
{
	(void)state;
	for (uint32_t seed = 1; seed <= 24; seed++) {
		uint32_t dcis = 1 + seed % 5;
		struct t *t = opened(dcis);
		struct rnd r;
		uint64_t last = 0;

		rnd_init(&r, seed);
		fv_quirks(seed % 3 == 0 ? FV_RNR_AT_ONCE : 0);
		for (unsigned i = 0; i < CHAOS_KEYS; i++) {
			char key[8];

			snprintf(key, sizeof(key), "k%u", i);
			assert_int_equal(t_put(t, key, 0, 1 << (12 + 2 * i), 1 << 20), 0);
		}
		for (unsigned i = 0; i < CHAOS_STEPS; i++)
			chaos_step(t, &r, &last);
		t->deadline_us = RIG_PATIENCE_MS * 1000;
		chaos_attach(t);
		/* One that broke while it was free shows it to the next who has it. */
		for (unsigned i = 0; i < 2 * dcis; i++) {
			(void)t_send(t, MKV_WIRE_PING, 0, 0, NULL, 0, 0);
			t_pump(t);
		}
		t->at_msg = t->n_msg;
		assert_int_equal(t_put(t, "last", 0, 100000, 50000), 0);
		assert_int_equal(t_get(t, "last", 0, 200000, 100000, 70000), 100000);
		assert_memory_equal(t->mem, t->mem + 200000, 100000);
		assert_all_free(t, dcis);
		closed(t);
	}
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_rail_says_what_it_has),
		cmocka_unit_test(a_device_without_dc),
		cmocka_unit_test(clients_that_do_not_fit),
		cmocka_unit_test(clients_cost_no_queue_pair),
		cmocka_unit_test(blocks_go_both_ways),
		cmocka_unit_test(requests_side_by_side),
		cmocka_unit_test(requests_wait_for_an_initiator),
		cmocka_unit_test(parts_pass_those_who_wait),
		cmocka_unit_test(sessions_take_turns),
		cmocka_unit_test(an_error_costs_one_request),
		cmocka_unit_test(a_path_that_fails_in_the_middle),
		cmocka_unit_test(a_path_that_nobody_can_be_told_of),
		cmocka_unit_test(an_initiator_that_is_lost),
		cmocka_unit_test(a_client_that_is_gone),
		cmocka_unit_test(a_client_that_posts_no_receives),
		cmocka_unit_test(nothing_comes_behind_cancelled),
		cmocka_unit_test(cancel_goes_behind_the_word),
		cmocka_unit_test(a_session_ends_with_initiators_out),
		cmocka_unit_test(messages_of_others_and_old_ones),
		cmocka_unit_test(messages_that_break_the_rules),
		cmocka_unit_test(everything_at_once),
	};

	return (cmocka_run_group_tests(tests, NULL, NULL));
}
