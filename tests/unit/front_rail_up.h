/*
 * A front's rail and a client of it on the fake fabric, as the tests of the rail use them: a client by hand beside the front, its messages and its memory. What
 * carries its messages is a row of struct t_carrier: here the queue pair; the tether and datagrams are in front_ctl_up.h.
 */
#ifndef MKV_TESTS_FRONT_RAIL_UP_H
#define MKV_TESTS_FRONT_RAIL_UP_H

#include <poll.h>

#include "common/base/crc.h"
#include "common/base/window.h"
#include "common/rdma/dc.h"
#include "tests/unit/front_rig.h"
#include "tests/unit/rdma_up.h"
#include "worker/front/rail.h"

#define T_BYTES		(6u << 20)
#define T_PIECE		(64u << 10)
#define T_POISON	0xa5
#define T_MSGS		512u
#define T_ROUNDS	500u			/* so long an answer is waited for */

#define M(name)		mkv_metric_get(t->r.m, MKV_M_front_##name, 0)

struct t;

struct t_carrier {
	uint16_t	control;		/* MKV_WIRE_CONTROL_* */
	void		(*open)(struct t *t);	/* before ATTACH; NULL: nothing to be done */
	void		(*send)(struct t *t, unsigned op, unsigned flags, uint64_t id, const void *body, size_t body_bytes, size_t pay_bytes);
	void		(*pump)(struct t *t);	/* NULL: messages come by the queue pair, and only then may any */
	void		(*close)(struct t *t);	/* NULL: nothing to be done */
};

struct t_msg {
	struct mkv_hdr	h;
	_Alignas(8) uint8_t body[1024];
	int		by_tether;
};

struct t {
	struct rig	r;
	struct rig_client c;			/* the tether */
	struct mkv_rail	*rail;
	uint32_t	num_dcis;		/* 0: RC */
	const struct t_carrier *by;
	struct t_net	*net;			/* datagrams: front_ctl_up.h */
	uint16_t	loose, udp_port;	/* of ATTACH: MKV_WIRE_CONTROL_LOOSE, the tether will be closed; datagrams */
	struct up	u;			/* the client's device, hub, queue pair or target */
	struct mkv_rdma_qp *tx;			/* what it sends by: the same, or its initiator */
	struct mkv_window seen;			/* DC, datagrams: counters of answers */
	uint8_t		*mem;
	struct mkv_rdma_mem *reg;
	uint16_t	channel, credits;
	uint64_t	counter, counter_in, next_id, acked;
	struct mkv_mac	*out, *in;
	struct t_msg	msg[T_MSGS];
	unsigned	n_msg, at_msg;
	uint32_t	deadline_us;
	int		keep_rx;		/* receives are not posted again */
	struct mkv_rdma_rx *kept[T_MSGS];
	unsigned	n_kept;
};

static struct t *now;

/* A signed message, put where the next one is to be; it counts when n_msg does. */
static inline struct t_msg *
t_take(struct t *t, const uint8_t *buf, uint32_t bytes)
{
	struct t_msg *m = &t->msg[t->n_msg % T_MSGS];

	assert_true(bytes >= sizeof(m->h) && bytes <= sizeof(m->h) + sizeof(m->body));
	memcpy(&m->h, buf, sizeof(m->h));
	memcpy(m->body, buf + sizeof(m->h), bytes - sizeof(m->h));
	assert_int_equal(mkv_mac_check(t->in, &m->h, MKV_WIRE_SIGNED_BYTES, m->body, m->h.body_bytes, m->h.mac), 0);
	assert_int_equal(m->h.channel, t->channel);
	m->by_tether = 0;
	return (m);
}

static inline void
t_recv(struct mkv_rdma_qp *qp, struct mkv_rdma_rx *rx)
{
	struct t *t = now;
	const struct t_msg *m;

	(void)qp;
	if (t->by->pump != NULL)
		fail_msg("an answer by the queue pair");
	m = t_take(t, rx->buf, rx->bytes);
	if (t->num_dcis != 0)
		assert_int_equal(mkv_window_take(&t->seen, m->h.counter), 1);
	else
		assert_int_equal(m->h.counter, ++t->counter_in);
	t->n_msg++;
	if (t->keep_rx)
		t->kept[t->n_kept++] = rx;
	else
		mkv_rdma_rx_back(t->u.hub, rx);
}

static inline void
t_rx_back(struct t *t)
{
	t->keep_rx = 0;
	while (t->n_kept > 0)
		mkv_rdma_rx_back(t->u.hub, t->kept[--t->n_kept]);
}

static inline void
t_done(struct mkv_rdma_qp *qp, void *cookie, int status)
{
	(void)qp;
	(void)cookie;
	now->u.closed += status != 0;
}

static inline void
t_broken(struct mkv_rdma_qp *qp, const char *why)
{
	(void)qp;
	(void)why;
	now->u.brokens++;
}

static const struct mkv_rdma_qp_ops t_ops = { t_recv, t_done, t_broken };

static inline int
t_is_readable(int fd)
{
	struct pollfd p = { fd, POLLIN, 0 };

	return (poll(&p, 1, 0) == 1);
}

static inline void
t_pump(struct t *t)
{
	for (unsigned i = 0; i < 8; i++) {
		if (t->by->pump != NULL)
			t->by->pump(t);
		mkv_rdma_hub_flush(t->u.hub);
		rig_pump(&t->r);
		if (t_is_readable(mkv_rail_fd(t->rail)))
			mkv_rail_woken(t->rail);
		(void)mkv_rdma_hub_poll(t->u.hub, 64);
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
	return (t->at_msg == t->n_msg ? NULL : &t->msg[t->at_msg++ % T_MSGS]);
}

static inline struct t_msg *
t_next(struct t *t)
{
	return (t_next_in(t, T_ROUNDS));
}

static inline void
t_keys(struct t *t)
{
	const struct mkv_conn *c = MKV_CONTAINER_OF(t->r.f->conn_used.next, struct mkv_conn, link);
	uint8_t k[MKV_KEY_BYTES];

	assert_int_equal(mkv_key_session(t->r.key, c->s.nonce_c, c->s.nonce_s, MKV_DIR_C2S, t->channel, t->r.f->conf.front_id, c->s.transcript, k), 0);
	assert_int_equal(mkv_mac_create(&t->out, k), 0);
	assert_int_equal(mkv_key_session(t->r.key, c->s.nonce_c, c->s.nonce_s, MKV_DIR_S2C, t->channel, t->r.f->conf.front_id, c->s.transcript, k), 0);
	assert_int_equal(mkv_mac_create(&t->in, k), 0);
	t->counter = t->counter_in = 0;
	memset(&t->seen, 0, sizeof(t->seen));
}

static inline void
t_qp(struct t *t)
{
	struct mkv_rdma_qp_conf q = { .sends = UP_SENDS, .send_bytes = MKV_WIRE_RDMA_BYTES, .remote_read = 1, .remote_write = 1, .ops = &t_ops };
	struct mkv_rdma_qp_conf target = q;

	if (t->num_dcis == 0) {
		assert_int_equal(mkv_rdma_qp_create(&t->u.qp, t->u.hub, &q), 0);
		t->tx = t->u.qp;
		return;
	}
	target.sends = 0;
	assert_int_equal(mkv_rdma_target_create(&t->u.qp, t->u.hub, &target), 0);
	assert_int_equal(mkv_rdma_initiator_create(&t->tx, t->u.hub, &q), 0);
}

static inline struct mkv_wire_attach
t_want(const struct t *t, uint16_t channel)
{
	const struct up *u = &t->u;
	int dc = t->num_dcis != 0;
	struct mkv_wire_attach a = { .transport = dc ? MKV_FEATURE_RDMA_DC : MKV_FEATURE_RDMA_RC, .channel = channel, .qpn = mkv_rdma_qp_number(u->qp),
		.psn = dc ? 0 : mkv_rdma_qp_psn(u->qp), .dc_key = dc ? mkv_rdma_target_key(u->qp) : 0, .mtu_bytes = u->dev->mtu_bytes,
		.recv_bytes = UP_RECV_BYTES, .rd_atomic_in = u->dev->rd_atomic_in, .rd_atomic_out = u->dev->rd_atomic_out };

	memcpy(a.gid, u->dev->gid.raw, sizeof(a.gid));
	return (a);
}

static inline int
t_ask_for(struct rig_client *c, const struct mkv_wire_attach *a)
{
	rig_send(c, MKV_WIRE_ATTACH, 0, 0, a, sizeof(*a), NULL, 0);
	assert_int_equal(rig_recv(c, RIG_PATIENCE_MS), 1);
	return (-(int)c->f.hdr.status);
}

static inline int
t_ask_control(struct t *t, uint16_t channel, uint16_t control, uint16_t port)
{
	struct mkv_wire_attach a = t_want(t, channel);

	a.control = control;
	a.udp_port = port;
	return (t_ask_for(&t->c, &a));
}

static inline int
t_ask(struct t *t, uint16_t channel)
{
	return (t_ask_control(t, channel, t->by->control | t->loose, t->udp_port));
}

static inline void
t_connect(struct t *t, const struct mkv_wire_attach *a)
{
	struct mkv_rdma_peer p = { .qpn = a->qpn, .psn = a->psn, .mtu_bytes = a->mtu_bytes, .rd_atomic_in = (uint8_t)a->rd_atomic_in,
		.rd_atomic_out = (uint8_t)a->rd_atomic_out };
	struct mkv_rdma_dct to = { .dctn = a->qpn, .key = a->dc_key };

	memcpy(p.gid, a->gid, sizeof(p.gid));
	memcpy(to.gid, a->gid, sizeof(to.gid));
	assert_int_equal(a->transport, t->num_dcis != 0 ? MKV_FEATURE_RDMA_DC : MKV_FEATURE_RDMA_RC);
	assert_int_equal(t->num_dcis != 0 ? mkv_rdma_initiator_aim(t->tx, &to) : mkv_rdma_qp_connect(t->u.qp, &p), 0);
}

static inline void
t_attach(struct t *t, uint16_t channel)
{
	const struct mkv_wire_attach *a = (const void *)t->c.f.body;
	int e = MKV_E_BUSY;			/* for a moment: its former one is not gone */

	t_qp(t);
	for (unsigned i = 0; i < 200 && (e = t_ask(t, channel)) == MKV_E_BUSY; i++)
		rig_pump_ms(&t->r, 1);
	assert_int_equal(e, 0);
	assert_int_equal(a->channel, channel);
	assert_true(a->credits >= 4 && a->recv_bytes == MKV_WIRE_RDMA_BYTES);
	assert_int_equal(a->control, t->by->control | t->loose);
	assert_true((a->udp_port != 0) == (t->by->control == MKV_WIRE_CONTROL_UDP));
	t_connect(t, a);
	t->channel = channel;
	t->credits = a->credits;
	t_keys(t);
}

static inline void
t_drop_qps(struct t *t)
{
	mkv_rdma_qp_fail(t->u.qp);
	if (t->tx != t->u.qp) {
		mkv_rdma_qp_fail(t->tx);
		mkv_rdma_qp_destroy(&t->tx);
	}
	mkv_rdma_qp_destroy(&t->u.qp);
	t->tx = NULL;
}

static inline void
t_detach(struct t *t)
{
	if (t->u.qp == NULL)
		return;
	mkv_rdma_qp_fail(t->u.qp);
	mkv_rdma_qp_fail(t->tx);
	for (unsigned i = 0; i < 1000 && !(mkv_rdma_qp_idle(t->u.qp) && mkv_rdma_qp_idle(t->tx)); i++) {
		t_pump(t);
		rig_pump_ms(&t->r, 1);
	}
	t_drop_qps(t);
	mkv_mac_destroy(&t->out);
	mkv_mac_destroy(&t->in);
}

/* Front and client; the channel is t_attach()'s. num_dcis 0: by RC. */
static inline void
t_open_rail(struct t *t, uint32_t num_dcis, const struct t_carrier *by)
{
	struct rig_conf rc = { .drives = 2, .rail = 1, .stage_bytes = 16 << 20 };
	struct mkv_rail_conf c = { .rail = 1, .device = "fake0", .gid_index = -1, .traffic_class = -1, .service_level = -1, .piece_bytes = T_PIECE,
		.window_bytes = 4 * T_PIECE, .srq_depth = 256, .num_dcis = num_dcis };
	struct mkv_rdma_conf d = { .device = "fake1", .gid_index = -1, .traffic_class = -1, .service_level = -1 };
	struct mkv_rdma_hub_conf h = { .recvs = 64, .recv_bytes = UP_RECV_BYTES, .sends_max = 2 * UP_SENDS };
	char why[512] = "";

	memset(t, 0, sizeof(*t));
	now = t;
	t->num_dcis = num_dcis;
	t->by = by;
	t->deadline_us = RIG_PATIENCE_MS * 1000;
	fv_start(2);
	if (num_dcis != 0)
		fv_dc(FV_DC_YES);
	rig_open(&t->r, &rc);
	t->r.f->conf.verify_put = 1;
	assert_int_equal(mkv_rail_open(&t->rail, t->r.f, fv_verbs(), &c, why, sizeof(why)), 0);
	assert_int_equal(mkv_rdma_dev_open(&t->u.dev, fv_verbs(), &d, why, sizeof(why)), 0);
	assert_int_equal(mkv_rdma_hub_open(&t->u.hub, t->u.dev, &h, why, sizeof(why)), 0);
	t->mem = malloc(T_BYTES);
	assert_non_null(t->mem);
	memset(t->mem, T_POISON, T_BYTES);
	assert_int_equal(mkv_rdma_mem_add(&t->reg, t->u.dev, t->mem, T_BYTES, MKV_RDMA_READABLE | MKV_RDMA_WRITABLE, why, sizeof(why)), 0);
	if (by->open != NULL)
		by->open(t);
	rig_client_join(&t->r, &t->c, 1);
}

/* Of a message of the channel, signed. */
static inline struct mkv_hdr
t_header(struct t *t, unsigned op, unsigned flags, uint64_t id, const void *body, size_t body_bytes, size_t pay_bytes)
{
	struct mkv_hdr h = { .magic = "MKV\1", .version = MKV_WIRE_VERSION, .op = (uint8_t)op, .flags = (uint16_t)flags, .session_id = t->c.session,
		.counter = ++t->counter, .request_id = id, .body_bytes = (uint32_t)body_bytes, .deadline_us = t->deadline_us, .payload_bytes = pay_bytes,
		.channel = t->channel, .ack_below = (uint32_t)t->acked };

	if (pay_bytes != 0)
		h.flags |= MKV_WIRE_F_PAYLOAD;
	assert_int_equal(mkv_mac_sign(t->out, &h, MKV_WIRE_SIGNED_BYTES, body, body_bytes, h.mac), 0);
	return (h);
}

static inline void
t_send_rdma(struct t *t, unsigned op, unsigned flags, uint64_t id, const void *body, size_t body_bytes, size_t pay_bytes)
{
	struct mkv_hdr h = t_header(t, op, flags, id, body, body_bytes, pay_bytes);
	struct iovec v[2] = { { &h, sizeof(h) }, { (void *)(uintptr_t)body, body_bytes } };

	mkv_rdma_qp_send(t->tx, v, body_bytes != 0 ? 2 : 1, MKV_RDMA_SIGNAL, NULL);
}

static const struct t_carrier t_by_rdma = { .control = MKV_WIRE_CONTROL_RDMA, .send = t_send_rdma };

static inline void
t_close(struct t *t)
{
	fv_hold(0);
	t_detach(t);
	rig_client_close(&t->c);
	for (unsigned i = 0; i < 1000 && !mkv_rail_quiet(t->rail); i++)
		rig_pump_ms(&t->r, 1);
	assert_true(mkv_rail_quiet(t->rail));
	mkv_rail_close(&t->rail);
	rig_close(&t->r);
	mkv_rdma_mem_drop(&t->reg);
	mkv_rdma_hub_close(&t->u.hub);
	mkv_rdma_dev_close(&t->u.dev);
	if (t->by->close != NULL)
		t->by->close(t);
	free(t->mem);
	assert_int_equal(fv_alive(), 0);
}

/* Of the last work requests: READs of the client's memory. */
static inline unsigned
t_reads(void)
{
	static struct fv_wr w[FV_LOG];
	unsigned n = 0;

	for (unsigned i = fv_log(w, FV_LOG); i-- > 0;)
		n += w[i].opcode == IBV_WR_RDMA_READ;
	return (n);
}

/* With its channel, by the queue pair. */
static inline struct t *
opened(uint32_t num_dcis)
{
	struct t *t = calloc(1, sizeof(*t));

	t_open_rail(t, num_dcis, &t_by_rdma);
	t_attach(t, 1);
	rig_fill(t->mem, T_BYTES, 2);
	return (t);
}

static inline void
closed(struct t *t)
{
	t_close(t);
	free(t);
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

static inline uint64_t
t_send(struct t *t, unsigned op, unsigned flags, uint64_t id, const void *body, size_t body_bytes, size_t pay_bytes)
{
	if (id == 0)
		id = ++t->next_id + 1000000;
	t->by->send(t, op, flags, id, body, body_bytes, pay_bytes);
	return (id);
}

/* [off, off + n) of the client's memory as segments of at most `cut` bytes, behind a body. */
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

/* [part_off, part_off + n) of a value, which lies at `off`. */
static inline size_t
t_put_body(struct t *t, uint8_t *body, const char *key, uint32_t off, uint32_t n, uint64_t part_off, uint64_t total, int more, uint32_t cut)
{
	size_t b = rig_put_body(body, key, part_off == 0 ? strlen(key) : 0, t->mem + off, n, part_off, more ? MKV_WIRE_SIZE_UNKNOWN : total, 0);

	return (t_segs(t, body, b, off, n, cut));
}

static inline size_t
t_get_body(struct t *t, uint8_t *body, const char *key, uint64_t at, uint32_t off, uint32_t room, uint32_t cut)
{
	return (t_segs(t, body, rig_get_body(body, key, strlen(key), at, room), off, room, cut));
}

static inline uint64_t
t_put_part(struct t *t, const char *key, uint64_t id, uint32_t off, uint32_t n, uint64_t part_off, uint64_t total, int more, uint32_t cut)
{
	_Alignas(8) uint8_t body[4000];
	size_t b = t_put_body(t, body, key, off, n, part_off, total, more, cut);

	return (t_send(t, MKV_WIRE_PUT, MKV_WIRE_F_REMOTE | (more ? MKV_WIRE_F_MORE : 0), id, body, b, n));
}

static inline int
t_put(struct t *t, const char *key, uint32_t off, uint32_t n, uint32_t cut)
{
	uint64_t id = t_put_part(t, key, 0, off, n, 0, n, 0, cut);
	struct t_msg *m = t_next(t);

	assert_non_null(m);
	assert_int_equal(m->h.request_id, id);
	return (-(int)m->h.status);
}

static inline uint64_t
t_ask_get(struct t *t, const char *key, uint64_t at, uint32_t off, uint32_t room, uint32_t cut)
{
	_Alignas(8) uint8_t body[4000];
	size_t b = t_get_body(t, body, key, at, off, room, cut);

	return (t_send(t, MKV_WIRE_GET, MKV_WIRE_F_REMOTE, 0, body, b, 0));
}

/* By DC: the initiator of a get of "k" fails and cannot be made anew. The get's id. */
static inline uint64_t
t_lose_initiator(struct t *t)
{
	uint64_t id = t_ask_get(t, "k", 0, 5000, 1000, 1000);
	struct fv_wr w[FV_LOG];

	mkv_rdma_hub_flush(t->u.hub);
	fv_hold(1);
	t_pump(t);
	fv_fail(FV_MODIFY_QP, 2, EIO);			/* ERR, then RESET */
	fv_qp_break(w[fv_log(w, FV_LOG) - 1].qpn);
	t_pump(t);
	fv_hold(0);
	return (id);
}

/* Bytes that came; a status if it says no. Each part's CRCs are those of the bytes that are there when it is heard of. */
static inline int64_t
t_get(struct t *t, const char *key, uint64_t at, uint32_t off, uint32_t room, uint32_t cut)
{
	uint64_t id = t_ask_get(t, key, at, off, room, cut), got = 0;
	struct t_msg *m;

	do {
		const struct mkv_wire_object *o;
		const uint32_t *crc;
		uint64_t left, p;

		assert_non_null(m = t_next(t));
		assert_int_equal(m->h.request_id, id);
		if (m->h.status != 0)
			return (-(int64_t)m->h.status);
		o = (const void *)m->body;
		crc = (const void *)(o + 1);
		assert_int_equal(o->off, at + got);
		assert_true((m->h.flags & MKV_WIRE_F_REMOTE) != 0 || m->h.payload_bytes == 0);
		p = off + got;
		left = m->h.payload_bytes;
		got += left;
		for (uint32_t i = 0; i < o->n_crcs; i++) {
			uint64_t n = MKV_MIN(left, MKV_CRC_CHUNK - (o->off + m->h.payload_bytes - left) % MKV_CRC_CHUNK);

			assert_int_equal(mkv_crc32c(0, t->mem + p, n), crc[i]);
			p += n;
			left -= n;
		}
		assert_int_equal(left, 0);
	} while (m->h.flags & MKV_WIRE_F_MORE);
	return ((int64_t)got);
}

static inline int
t_poison_but(const struct t *t, uint32_t off, uint32_t n)
{
	for (uint32_t i = 0; i < T_BYTES; i++)
		if ((i < off || i >= off + n) && t->mem[i] != T_POISON)
			return (0);
	return (1);
}

static inline int
t_tether_answers(struct t *t)
{
	uint64_t id = rig_send(&t->c, MKV_WIRE_PING, 0, 0, NULL, 0, NULL, 0);
	const struct t_msg *m;

	if (t->by->pump == NULL)
		return (rig_recv(&t->c, RIG_PATIENCE_MS) == 1 && t->c.f.hdr.request_id == id && t->c.f.hdr.status == 0);
	while ((m = t_next(t)) != NULL)
		if (m->h.request_id == id)
			return (m->h.status == 0);
	return (0);
}

/* The channel is over, the session goes on. */
static inline void
t_assert_broken(struct t *t)
{
	for (unsigned i = 0; i < 1000 && !mkv_rail_quiet(t->rail); i++) {
		t_pump(t);
		rig_pump_ms(&t->r, 1);
	}
	assert_true(mkv_rail_quiet(t->rail));
	assert_true(t_tether_answers(t));
}

#endif
