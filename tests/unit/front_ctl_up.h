/*
 * A client by hand of a channel whose messages go by datagrams or by the tether, on the fake fabric, and a network between that loses, repeats and reorders what the
 * test tells it to. The socket is a real one on loopback.
 */
#ifndef MKV_TESTS_FRONT_CTL_UP_H
#define MKV_TESTS_FRONT_CTL_UP_H

#include "tests/unit/front_rig.h"
#include "tests/unit/rdma_up.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <unistd.h>

#include "common/base/crc.h"
#include "common/base/udp.h"
#include "common/base/window.h"
#include "common/rdma/dc.h"
#include "tests/lib/rnd.h"
#include "worker/front/rail.h"

#define T_BYTES		(6u << 20)
#define T_PIECE		(64u << 10)
#define T_POISON	0xa5
#define T_QUEUE		512u
#define T_WAY_MAX	64u

struct t_msg {
	struct mkv_hdr	h;
	_Alignas(8) uint8_t body[1024];
	int		by_tether;
};

struct t_way {				/* one direction of the network: what waits to be overtaken */
	unsigned	n;
	uint8_t		msg[T_WAY_MAX][4096];
	uint32_t	bytes[T_WAY_MAX];
};

struct t {
	struct rig	r;
	struct rig_client c;			/* the tether */
	struct mkv_rail	*rail;
	struct up	u;
	uint8_t		*mem;
	struct mkv_rdma_mem *reg;
	uint16_t	control, credits;
	uint64_t	counter, next_id, acked;
	struct mkv_mac	*out, *in;
	struct mkv_window seen;
	struct sockaddr_storage from;
	int		udp;
	struct mkv_addr	server;
	/* the network */
	unsigned	lose, repeat, turn;		/* of 1,000 datagrams each way */
	struct rnd	rnd;
	struct t_way	there, back;
	struct t_msg	msg[T_QUEUE];
	unsigned	n_msg, at_msg;
	unsigned	came;				/* datagrams from the server, lost ones too */
};

static struct t *now;
static uint32_t t_num_dcis;			/* 0: payload goes by RC */
static uint16_t t_loose;			/* MKV_WIRE_CONTROL_LOOSE: ATTACH says that the tether will be closed */

static inline void
t_recv(struct mkv_rdma_qp *qp, struct mkv_rdma_rx *rx)
{
	(void)qp;
	mkv_rdma_rx_back(now->u.hub, rx);
	fail_msg("an answer by the queue pair");
}

static inline void
t_done(struct mkv_rdma_qp *qp, void *cookie, int status)
{
	(void)qp;
	(void)cookie;
	(void)status;
}

static inline void
t_broken(struct mkv_rdma_qp *qp, const char *why)
{
	(void)qp;
	(void)why;
	now->u.brokens++;
}

static const struct mkv_rdma_qp_ops t_ops = { t_recv, t_done, t_broken };

static inline uint64_t
t_count(const struct t *t, enum mkv_metric m)
{
	return (mkv_metric_get(t->r.m, m, 0));
}

/* ---- The network ----------------------------------------------------------------------------------------------------------- */

static inline int
net_luck(struct t *t, unsigned of_1000)
{
	return (rnd_below(&t->rnd, 1000) < of_1000);
}

/* Puts a datagram on a way: not at all, once or twice. */
static inline void
net_in(struct t *t, struct t_way *w, const void *buf, uint32_t bytes)
{
	for (unsigned i = 1 + (unsigned)net_luck(t, t->repeat); i > 0 && w->n < T_WAY_MAX; i--) {
		if (net_luck(t, t->lose))
			continue;
		memcpy(w->msg[w->n], buf, bytes);
		w->bytes[w->n++] = bytes;
	}
}

/* What arrives next, any of those that wait if the way turns them around; NULL: nothing. */
static inline const uint8_t *
net_out(struct t *t, struct t_way *w, uint32_t *bytes)
{
	static uint8_t buf[4096];
	unsigned i;

	if (w->n == 0 || (t->turn != 0 && net_luck(t, t->turn)))
		return (NULL);
	i = net_luck(t, t->turn) ? rnd_below(&t->rnd, w->n) : 0;
	memcpy(buf, w->msg[i], w->bytes[i]);
	*bytes = w->bytes[i];
	w->n--;
	memmove(w->msg[i], w->msg[i + 1], (w->n - i) * sizeof(w->msg[0]));
	memmove(&w->bytes[i], &w->bytes[i + 1], (w->n - i) * sizeof(w->bytes[0]));
	return (buf);
}

static inline void
net_take(struct t *t, const uint8_t *buf, uint32_t bytes)
{
	struct t_msg *m = &t->msg[t->n_msg % T_QUEUE];

	assert_true(bytes >= sizeof(m->h) && bytes <= MKV_UDP_SAFE);
	memcpy(&m->h, buf, sizeof(m->h));
	memcpy(m->body, buf + sizeof(m->h), bytes - sizeof(m->h));
	assert_int_equal(mkv_mac_check(t->in, &m->h, MKV_WIRE_SIGNED_BYTES, m->body, m->h.body_bytes, m->h.mac), 0);
	assert_int_equal(m->h.channel, 1);
	m->by_tether = 0;
	if (mkv_window_take(&t->seen, m->h.counter))
		t->n_msg++;
}

static inline void
net_pump(struct t *t)
{
	uint8_t buf[4096];
	const uint8_t *p;
	uint32_t bytes;
	ssize_t n;

	if (t->udp < 0)
		return;
	while ((p = net_out(t, &t->there, &bytes)) != NULL)
		assert_int_equal(sendto(t->udp, p, bytes, 0, (struct sockaddr *)&t->server.ss, t->server.bytes), bytes);
	while ((n = recv(t->udp, buf, sizeof(buf), MSG_DONTWAIT)) > 0) {
		t->came++;
		net_in(t, &t->back, buf, (uint32_t)n);
	}
	while ((p = net_out(t, &t->back, &bytes)) != NULL)
		net_take(t, p, bytes);
}

/* Answers by the tether that belong to the channel's requests. */
static inline void
tether_pump(struct t *t)
{
	while (rig_recv(&t->c, 0) == 1) {
		struct t_msg *m = &t->msg[t->n_msg++ % T_QUEUE];

		m->h = t->c.f.hdr;
		assert_true(m->h.body_bytes <= sizeof(m->body));
		memcpy(m->body, t->c.f.body, m->h.body_bytes);
		m->by_tether = 1;
	}
}

static inline void
t_pump(struct t *t)
{
	for (unsigned i = 0; i < 4; i++) {
		net_pump(t);
		mkv_rail_readable(t->rail);
		rig_pump(&t->r);
		(void)mkv_rdma_hub_poll(t->u.hub, 64);
		tether_pump(t);
	}
}

/* The next message of the front within so many rounds; NULL: it says nothing. */
static inline struct t_msg *
t_next_in(struct t *t, unsigned rounds)
{
	for (unsigned i = 0; i < rounds && t->at_msg == t->n_msg; i++) {
		t_pump(t);
		if (t->at_msg == t->n_msg)
			rig_pump_ms(&t->r, 1);
	}
	return (t->at_msg == t->n_msg ? NULL : &t->msg[t->at_msg++ % T_QUEUE]);
}

static inline struct t_msg *
t_next(struct t *t)
{
	return (t_next_in(t, 500));
}

static inline void
t_silence(struct t *t)
{
	assert_null(t_next_in(t, 20));
}

/* ---- Up and down ----------------------------------------------------------------------------------------------------------- */

static inline void
t_keys(struct t *t)
{
	const struct mkv_conn *c = MKV_CONTAINER_OF(t->r.f->conn_used.next, struct mkv_conn, link);
	uint8_t k[MKV_KEY_BYTES];

	assert_int_equal(mkv_key_session(t->r.key, c->s.nonce_c, c->s.nonce_s, MKV_DIR_C2S, 1, t->r.f->conf.front_id, c->s.transcript, k), 0);
	assert_int_equal(mkv_mac_create(&t->out, k), 0);
	assert_int_equal(mkv_key_session(t->r.key, c->s.nonce_c, c->s.nonce_s, MKV_DIR_S2C, 1, t->r.f->conf.front_id, c->s.transcript, k), 0);
	assert_int_equal(mkv_mac_create(&t->in, k), 0);
}

static inline void
t_attach(struct t *t)
{
	struct mkv_rdma_qp_conf q = { .sends = UP_SENDS, .send_bytes = MKV_WIRE_RDMA_BYTES, .remote_read = 1, .remote_write = 1, .ops = &t_ops };
	struct mkv_wire_attach w = { .transport = MKV_FEATURE_RDMA_RC, .channel = 1, .recv_bytes = UP_RECV_BYTES, .control = t->control | t_loose };
	const struct mkv_wire_attach *a = (const void *)t->c.f.body;
	struct mkv_rdma_peer p = { 0 };
	struct up *u = &t->u;

	if (t_num_dcis != 0) {
		q.sends = 0;
		w.transport = MKV_FEATURE_RDMA_DC;
		assert_int_equal(mkv_rdma_target_create(&u->qp, u->hub, &q), 0);
		w.dc_key = mkv_rdma_target_key(u->qp);
	} else {
		assert_int_equal(mkv_rdma_qp_create(&u->qp, u->hub, &q), 0);
		w.psn = mkv_rdma_qp_psn(u->qp);
	}
	w.qpn = mkv_rdma_qp_number(u->qp);
	w.mtu_bytes = u->dev->mtu_bytes;
	w.rd_atomic_in = u->dev->rd_atomic_in;
	w.rd_atomic_out = u->dev->rd_atomic_out;
	memcpy(w.gid, u->dev->gid.raw, sizeof(w.gid));
	if (t->udp >= 0)
		w.udp_port = (uint16_t)mkv_udp_port(t->udp);
	rig_send(&t->c, MKV_WIRE_ATTACH, 0, 0, &w, sizeof(w), NULL, 0);
	assert_int_equal(rig_recv(&t->c, RIG_PATIENCE_MS), 1);
	assert_int_equal(t->c.f.hdr.status, 0);
	assert_int_equal(a->control, t->control | t_loose);
	assert_true((a->udp_port != 0) == (t->control == MKV_WIRE_CONTROL_UDP));
	if (t->udp >= 0)
		mkv_addr_set_port(&t->server, a->udp_port);
	p.qpn = a->qpn;
	p.psn = a->psn;
	p.mtu_bytes = a->mtu_bytes;
	p.rd_atomic_in = (uint8_t)a->rd_atomic_in;
	p.rd_atomic_out = (uint8_t)a->rd_atomic_out;
	memcpy(p.gid, a->gid, sizeof(p.gid));
	if (t_num_dcis == 0)
		assert_int_equal(mkv_rdma_qp_connect(u->qp, &p), 0);
	t->credits = a->credits;
	t_keys(t);
}

static inline void
t_sockets(struct t *t)
{
	static const uint8_t loopback[16] = { [10] = 0xff, [11] = 0xff, [12] = 127, [15] = 1 };
	struct mkv_addr own;

	mkv_addr_make(&own, loopback, 0);
	t->from = own.ss;
	t->r.from = &t->from;
	t->server = own;
	assert_true(mkv_rail_listen(t->rail, loopback, 0) >= 0);
	t->udp = mkv_udp_bind(&own);
	assert_true(t->udp >= 0);
}

static inline void
t_open(struct t *t, uint16_t control)
{
	struct rig_conf rc = { .drives = 2, .rail = 1, .stage_bytes = 16 << 20 };
	struct mkv_rail_conf c = { .rail = 1, .device = "fake0", .gid_index = -1, .traffic_class = -1, .service_level = -1, .piece_bytes = T_PIECE,
		.window_bytes = 4 * T_PIECE, .srq_depth = 256, .num_dcis = t_num_dcis };
	struct mkv_rdma_conf d = { .device = "fake1", .gid_index = -1, .traffic_class = -1, .service_level = -1 };
	struct mkv_rdma_hub_conf h = { .recvs = 64, .recv_bytes = UP_RECV_BYTES, .sends_max = 2 * UP_SENDS };
	char why[512] = "";

	memset(t, 0, sizeof(*t));
	now = t;
	t->control = control;
	t->udp = -1;
	t->next_id = 1000;
	rnd_init(&t->rnd, 1);
	fv_start(2);
	if (t_num_dcis != 0)
		fv_dc(FV_DC_YES);
	rig_open(&t->r, &rc);
	t->r.f->conf.verify_put = 1;
	assert_int_equal(mkv_rail_open(&t->rail, t->r.f, fv_verbs(), &c, why, sizeof(why)), 0);
	assert_int_equal(mkv_rdma_dev_open(&t->u.dev, fv_verbs(), &d, why, sizeof(why)), 0);
	assert_int_equal(mkv_rdma_hub_open(&t->u.hub, t->u.dev, &h, why, sizeof(why)), 0);
	t->mem = malloc(T_BYTES);
	memset(t->mem, T_POISON, T_BYTES);
	assert_int_equal(mkv_rdma_mem_add(&t->reg, t->u.dev, t->mem, T_BYTES, MKV_RDMA_READABLE | MKV_RDMA_WRITABLE, why, sizeof(why)), 0);
	if (control == MKV_WIRE_CONTROL_UDP)
		t_sockets(t);
	rig_client_open(&t->r, &t->c);
	t->c.rail = 1;
	rig_client_handshake(&t->c);
	t_attach(t);
}

static inline void
t_close(struct t *t)
{
	fv_hold(0);
	mkv_rdma_qp_fail(t->u.qp);
	for (unsigned i = 0; i < 1000 && !mkv_rdma_qp_idle(t->u.qp); i++) {
		t_pump(t);
		rig_pump_ms(&t->r, 1);
	}
	mkv_rdma_qp_destroy(&t->u.qp);
	mkv_mac_destroy(&t->out);
	mkv_mac_destroy(&t->in);
	rig_client_close(&t->c);
	for (unsigned i = 0; i < 1000 && !mkv_rail_quiet(t->rail); i++)
		rig_pump_ms(&t->r, 1);
	assert_true(mkv_rail_quiet(t->rail));
	mkv_rail_close(&t->rail);
	rig_close(&t->r);
	mkv_rdma_mem_drop(&t->reg);
	mkv_rdma_hub_close(&t->u.hub);
	mkv_rdma_dev_close(&t->u.dev);
	if (t->udp >= 0)
		close(t->udp);
	free(t->mem);
	assert_int_equal(fv_alive(), 0);
}

/* Drives that keep what they are asked, and then answer it. */
static inline void
t_drives(struct t *t, int hold)
{
	for (unsigned i = 0; i < 2; i++) {
		t->r.drive[i].hold = hold;
		if (!hold)
			rig_drive_answer_held(&t->r.drive[i]);
	}
}

/* ---- Messages -------------------------------------------------------------------------------------------------------------- */

static inline void
t_by_tether(struct t *t, unsigned op, unsigned flags, uint64_t id, const void *body, size_t body_bytes, size_t pay_bytes)
{
	struct mkv_hdr h;

	rig_frame_make(&t->c, &h, op, flags, id, body, body_bytes, pay_bytes);
	rig_write(&t->c, &h, sizeof(h));
	rig_write(&t->c, body, body_bytes);
}

static inline uint32_t
t_datagram(struct t *t, uint8_t buf[4096], unsigned op, unsigned flags, uint64_t id, const void *body, size_t body_bytes, size_t pay_bytes)
{
	struct mkv_hdr *h = (struct mkv_hdr *)(void *)buf;

	*h = (struct mkv_hdr){ .version = MKV_WIRE_VERSION, .op = (uint8_t)op, .flags = (uint16_t)flags, .session_id = t->c.session, .counter = ++t->counter,
		.request_id = id, .body_bytes = (uint32_t)body_bytes, .deadline_us = RIG_PATIENCE_MS * 1000, .payload_bytes = pay_bytes, .channel = 1,
		.ack_below = (uint32_t)t->acked };
	memcpy(h->magic, "MKV\1", 4);
	if (pay_bytes != 0)
		h->flags |= MKV_WIRE_F_PAYLOAD;
	if (body_bytes != 0)
		memcpy(h + 1, body, body_bytes);
	assert_int_equal(mkv_mac_sign(t->out, h, MKV_WIRE_SIGNED_BYTES, h + 1, body_bytes, h->mac), 0);
	return ((uint32_t)(sizeof(*h) + body_bytes));
}

static inline void
t_send(struct t *t, unsigned op, unsigned flags, uint64_t id, const void *body, size_t body_bytes, size_t pay_bytes)
{
	_Alignas(8) uint8_t buf[4096];

	if (t->control == MKV_WIRE_CONTROL_UDP)
		net_in(t, &t->there, buf, t_datagram(t, buf, op, flags, id, body, body_bytes, pay_bytes));
	else
		t_by_tether(t, op, flags, id, body, body_bytes, pay_bytes);
}

static inline size_t
t_segs(struct t *t, uint8_t *body, size_t at, uint32_t off, uint32_t n, uint32_t cut)
{
	uint32_t lkey, rkey;

	while (n > 0) {
		struct mkv_wire_seg s = { .addr = (uintptr_t)t->mem + off, .bytes = MKV_MIN(n, cut) };

		assert_true(mkv_rdma_mem_keys(t->reg, t->mem + off, &lkey, &rkey) >= s.bytes);
		s.rkey = rkey;
		memcpy(body + at, &s, sizeof(s));
		at += sizeof(s);
		off += s.bytes;
		n -= s.bytes;
	}
	return (at);
}

struct t_ask {				/* a request that can be sent again */
	unsigned	op, flags;
	uint64_t	id;
	_Alignas(8) uint8_t body[3900];
	size_t		bytes, pay;
};

static inline void
t_say(struct t *t, const struct t_ask *a, unsigned more_flags)
{
	t_send(t, a->op, a->flags | more_flags, a->id, a->body, a->bytes, a->pay);
}

static inline void
t_make_put(struct t *t, struct t_ask *a, const char *key, uint32_t off, uint32_t n)
{
	*a = (struct t_ask){ .op = MKV_WIRE_PUT, .flags = MKV_WIRE_F_REMOTE, .id = t->next_id++, .pay = n };
	a->bytes = t_segs(t, a->body, rig_put_body(a->body, key, strlen(key), t->mem + off, n, 0, n, 0), off, n, 100000);
}

static inline void
t_make_get(struct t *t, struct t_ask *a, const char *key, uint64_t at, uint32_t off, uint32_t room)
{
	*a = (struct t_ask){ .op = MKV_WIRE_GET, .flags = MKV_WIRE_F_REMOTE, .id = t->next_id++ };
	a->bytes = t_segs(t, a->body, rig_get_body(a->body, key, strlen(key), at, room), off, room, 100000);
}

static inline void
t_make_cancel(struct t *t, struct t_ask *a, uint64_t of)
{
	struct mkv_wire_cancel w = { .request_id = of };

	*a = (struct t_ask){ .op = MKV_WIRE_CANCEL, .flags = t->control == MKV_WIRE_CONTROL_TCP ? MKV_WIRE_F_REMOTE : 0, .id = t->next_id++,
		.bytes = sizeof(w) };
	memcpy(a->body, &w, sizeof(w));
}

/* The answer to a, which is sent until one comes; others are let go by. */
static inline struct t_msg *
t_call(struct t *t, const struct t_ask *a)
{
	struct t_msg *m;

	t_say(t, a, 0);
	for (unsigned tries = 0; tries < 500; tries++) {
		while ((m = t_next_in(t, t->lose != 0 || t->turn != 0 ? 10 : 500)) != NULL)
			if (m->h.request_id == a->id) {
				t->acked = t->next_id;
				return (m);
			}
		t_say(t, a, MKV_WIRE_F_RESEND);
	}
	fail_msg("no answer");
	return (NULL);
}

static inline void
t_put_get(struct t *t, const char *key, uint32_t n, uint32_t seed)
{
	uint8_t *want = malloc(n);
	struct t_ask a;

	rig_fill(want, n, seed);
	memcpy(t->mem + 100, want, n);
	t_make_put(t, &a, key, 100, n);
	assert_int_equal(t_call(t, &a)->h.status, 0);
	memset(t->mem, T_POISON, 2 * n + 200);
	t_make_get(t, &a, key, 0, 77, n + 10);
	assert_int_equal(t_call(t, &a)->h.payload_bytes, n);
	assert_memory_equal(t->mem + 77, want, n);
	for (uint32_t i = 0; i < 77; i++)
		assert_int_equal(t->mem[i], T_POISON);
	for (uint32_t i = 77 + n; i < 2 * n + 200; i++)
		assert_int_equal(t->mem[i], T_POISON);
	free(want);
}

/* The first n bytes of memory as a value. */
static inline void
t_store(struct t *t, const char *key, uint32_t n)
{
	struct t_ask a;

	rig_fill(t->mem, n, 3);
	t_make_put(t, &a, key, 0, n);
	assert_int_equal(t_call(t, &a)->h.status, 0);
	t->acked = 0;
}

#endif
