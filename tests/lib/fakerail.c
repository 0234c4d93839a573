/*
 * The fake server's queue pairs, over common/rdma and the fabric of fakeverbs. See fakeserver.h for how they misbehave.
 *
 * A thread for each queue pair: it polls, takes messages, READs what puts name, and has the rest served as a request of any connection; answers WRITE first. Owns
 * device, hub and queue pair; a helper of tests: what cannot be ends the test. By DC it has a target of its own, an initiator in the queue pair's place, and another
 * one for what must not wait for the first.
 */
#include "config.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/base/assert.h"
#include "common/base/clock.h"
#include "common/base/crc.h"
#include "common/base/err.h"
#include "common/rdma/dc.h"
#include "common/base/udp.h"
#include "common/base/window.h"
#include "common/rdma/mem.h"
#include "tests/lib/fakeserver_priv.h"
#include "tests/lib/fakeverbs.h"

#define RAIL_RECVS	64u
#define RAIL_SENDS	64u
#define RAIL_QUEUE	64u
#define RAIL_DEVICE	"fake1"
#define RAIL_KEPT	64u

struct fakerail {
	struct fconn	*rc;			/* serves what comes here */
	struct mkv_rdma_dev *dev;
	struct mkv_rdma_hub *hub;
	struct mkv_rdma_qp *qp;
	struct mkv_rdma_qp *target, *other;	/* DC; else NULL */
	struct mkv_rdma_mem *mem;		/* rc->payload */
	pthread_t	thread;
	_Atomic int	quit;
	_Atomic int	broken;
	uint16_t	channel;
	unsigned	out;			/* work requests */
	uint8_t		msg[RAIL_QUEUE][MKV_WIRE_RDMA_BYTES];
	uint32_t	msg_bytes[RAIL_QUEUE];
	uint8_t		msg_by[RAIL_QUEUE];
	_Atomic unsigned head, tail;		/* the tether's thread puts in, too */
	pthread_mutex_t	lock;			/* tail */
	/* datagrams, and what comes twice */
	struct fconn	*tether;
	uint16_t	control;
	int		udp;			/* -1: none */
	struct mkv_window seen;
	uint32_t	luck;
	uint8_t		by;			/* carries the answer of the message in work */
	struct {
		uint64_t	id;
		struct mkv_hdr	h;
		uint8_t		body[MKV_UDP_SAFE];
	} kept[RAIL_KEPT];
	unsigned	n_kept;
	/* of the get in work */
	struct mkv_wire_seg seg[MKV_WIRE_SEGS_MAX];
	unsigned	n_seg;
	uint64_t	get_off;
};

static void
rail_push(struct fakerail *r, uint8_t by, const void *a, size_t a_bytes, const void *b, size_t b_bytes)
{
	(void)pthread_mutex_lock(&r->lock);
	MKV_ASSERT(r->tail - r->head < RAIL_QUEUE && a_bytes + b_bytes <= MKV_WIRE_RDMA_BYTES);
	memcpy(r->msg[r->tail % RAIL_QUEUE], a, a_bytes);
	if (b_bytes > 0)
		memcpy(r->msg[r->tail % RAIL_QUEUE] + a_bytes, b, b_bytes);
	r->msg_bytes[r->tail % RAIL_QUEUE] = (uint32_t)(a_bytes + b_bytes);
	r->msg_by[r->tail % RAIL_QUEUE] = by;
	r->tail++;
	(void)pthread_mutex_unlock(&r->lock);
}

static void
rail_recv(struct mkv_rdma_qp *qp, struct mkv_rdma_rx *rx)
{
	struct fakerail *r = mkv_rdma_qp_owner(qp);

	rail_push(r, MKV_WIRE_CONTROL_RDMA, rx->buf, rx->bytes, NULL, 0);
	mkv_rdma_rx_back(r->hub, rx);
}

static int
rail_luck(struct fakerail *r, unsigned of_1000)
{
	r->luck = r->luck * 1664525u + 1013904223u;
	return ((r->luck >> 8) % 1000 < of_1000);
}

/* Datagrams that the network lets through, signed and new: the others are dropped. */
static void
rail_datagrams(struct fakerail *r)
{
	struct mkv_udp_msg m = { .bytes = 0 };
	_Alignas(8) uint8_t buf[MKV_WIRE_RDMA_BYTES];
	struct mkv_hdr h;

	m.buf = buf;
	while (r->udp >= 0 && r->tail - r->head < RAIL_QUEUE / 2 && mkv_udp_recv(r->udp, &m, 1, sizeof(buf)) == 1) {
		unsigned n = 1 + (unsigned)rail_luck(r, r->rc->f->udp_repeat);

		memcpy(&h, buf, sizeof(h));
		if (r->rc->f->udp_mute || m.bytes < sizeof(h))
			continue;
		for (; n > 0; n--)
			if (!rail_luck(r, r->rc->f->udp_lose) && h.body_bytes == m.bytes - sizeof(h) && h.session_id == SESSION_ID && h.channel == r->channel &&
			    mkv_mac_check(r->rc->in, &h, MKV_WIRE_SIGNED_BYTES, buf + sizeof(h), h.body_bytes, h.mac) == 0 &&
			    mkv_window_take(&r->seen, h.counter)) {
				r->rc->f->udp_messages++;
				rail_push(r, MKV_WIRE_CONTROL_UDP, buf, m.bytes, NULL, 0);
			}
	}
}

static void
rail_done(struct mkv_rdma_qp *qp, void *cookie MKV_UNUSED, int status)
{
	struct fakerail *r = mkv_rdma_qp_owner(qp);

	r->out--;
	r->broken |= status != 0;
}

static void
rail_broken(struct mkv_rdma_qp *qp, const char *why MKV_UNUSED)
{
	((struct fakerail *)mkv_rdma_qp_owner(qp))->broken = 1;
}

static const struct mkv_rdma_qp_ops rail_ops = { .recv = rail_recv, .done = rail_done, .broken = rail_broken };

static void
rail_poll(struct fakerail *r)
{
	mkv_rdma_hub_flush(r->hub);
	rail_datagrams(r);
	if (mkv_rdma_hub_poll(r->hub, 64) == 0)
		(void)usleep(100);
}

/* 0: everything that was posted came back. */
static int
rail_settle(struct fakerail *r)
{
	while (r->out > 0 && !r->quit && !r->broken)
		rail_poll(r);
	return (r->broken || r->out > 0 ? -1 : 0);
}

/* Between payload and the client's segments from `at` on. */
static int
rail_move(struct fakerail *r, uint8_t *p, uint64_t bytes, const struct mkv_wire_seg *s, unsigned n, uint64_t at, int is_read)
{
	uint32_t lkey, rkey;

	MKV_ASSERT(bytes == 0 || mkv_rdma_mem_keys(r->mem, p, &lkey, &rkey) >= bytes);
	for (unsigned i = 0; i < n && bytes > 0; i++) {
		uint64_t step = at >= s[i].bytes ? 0 : MKV_MIN(s[i].bytes - at, bytes);

		if (step > 0 && is_read)
			mkv_rdma_qp_read(r->qp, p, lkey, s[i].addr + at, s[i].rkey, (uint32_t)step, MKV_RDMA_SIGNAL, NULL);
		else if (step > 0)
			mkv_rdma_qp_write(r->qp, p, lkey, s[i].addr + at, s[i].rkey, (uint32_t)step, MKV_RDMA_SIGNAL, NULL);
		r->out += step > 0;
		at -= step > 0 ? at : s[i].bytes;
		p += step;
		bytes -= step;
	}
	MKV_ASSERT(bytes == 0);
	return (is_read ? rail_settle(r) : 0);
}

static void
rail_counter(struct fakerail *r, struct mkv_hdr *h)
{
	const struct fake *f = r->rc->f;
	uint64_t n = ++r->rc->counter_out;

	h->counter = r->target == NULL || !f->dc_swap ? n : n % 2 != 0 ? n + 1 : n - 1;
	if (r->target != NULL && f->dc_leap != 0 && h->op != MKV_WIRE_PING) {
		h->counter += f->dc_leap;
		r->rc->f->dc_leap = 0;
	}
}

/* The first initiator failed for it, says the other. */
static void
rail_say_failed(struct fakerail *r, uint8_t op, uint64_t id)
{
	struct mkv_hdr h = { .version = MKV_WIRE_VERSION, .op = op, .flags = MKV_WIRE_F_REPLY, .session_id = SESSION_ID, .request_id = id,
		.status = (uint16_t)-MKV_E_CLOSED, .reason = (uint16_t)r->rc->f->dc_fail, .counter = ++r->rc->counter_out, .channel = r->channel };
	struct iovec v = { &h, sizeof(h) };

	r->rc->f->dc_failed++;
	if (h.reason <= 1)
		return;
	memcpy(h.magic, "MKV\1", 4);
	(void)mkv_mac_sign(r->rc->out, &h, MKV_WIRE_SIGNED_BYTES, NULL, 0, h.mac);
	mkv_rdma_qp_send(r->other, &v, 1, MKV_RDMA_SIGNAL, NULL);
	r->out++;
	mkv_rdma_hub_flush(r->hub);
}

/* A get's bytes are still on their way when the client hears that they failed; what its NIC refused never comes. */
static int
rail_fail_get(struct fakerail *r, struct mkv_hdr *h, const void *body, const uint8_t *payload)
{
	const struct mkv_wire_object *o = body;

	if (r->rc->f->dc_fail == MKV_REASON_NIC_REFUSED) {
		rail_say_failed(r, h->op, h->request_id);
		return (rail_settle(r));
	}
	fv_hold(1);
	rail_say_failed(r, h->op, h->request_id);		/* the older of the two */
	memcpy(r->rc->payload, payload, h->payload_bytes);
	(void)rail_move(r, r->rc->payload, h->payload_bytes, r->seg, r->n_seg, o->off - r->get_off, 0);
	mkv_rdma_hub_flush(r->hub);
	return (0);
}

static int
rail_datagram_out(struct fakerail *r, struct mkv_hdr *h, const void *body)
{
	uint8_t buf[MKV_UDP_SAFE];

	h->session_id = SESSION_ID;
	h->channel = r->channel;
	h->counter = ++r->rc->counter_out;
	h->credits = 0;
	MKV_ASSERT(sizeof(*h) + h->body_bytes <= sizeof(buf));
	(void)mkv_mac_sign(r->rc->out, h, MKV_WIRE_SIGNED_BYTES, body, h->body_bytes, h->mac);
	memcpy(buf, h, sizeof(*h));
	if (h->body_bytes > 0)
		memcpy(buf + sizeof(*h), body, h->body_bytes);
	for (unsigned n = 1 + (unsigned)rail_luck(r, r->rc->f->udp_repeat); n > 0 && !r->rc->f->udp_mute; n--)
		if (!rail_luck(r, r->rc->f->udp_lose))
			(void)mkv_udp_send(r->udp, buf, (uint32_t)sizeof(*h) + h->body_bytes);
	return (0);
}

/* Not by the queue pair: what was written before is in place, since everything was waited for. */
static int
rail_out(struct fakerail *r, uint8_t by, struct mkv_hdr *h, const void *body)
{
	return (by == MKV_WIRE_CONTROL_UDP ? rail_datagram_out(r, h, body) : fake_reply(r->tether, h, body, NULL));
}

static int
rail_keep_out(struct fakerail *r, struct mkv_hdr *h, const void *body)
{
	unsigned i = r->n_kept++ % RAIL_KEPT;

	r->kept[i].id = h->request_id;
	r->kept[i].h = *h;
	MKV_ASSERT(h->body_bytes <= sizeof(r->kept[i].body));
	if (h->body_bytes > 0)
		memcpy(r->kept[i].body, body, h->body_bytes);
	return (rail_settle(r) != 0 ? -1 : rail_out(r, r->by, h, body));
}

/* 1: a request that has been answered is answered again. */
static int
rail_came_before(struct fakerail *r, const struct mkv_hdr *q)
{
	for (unsigned i = 0; i < RAIL_KEPT && r->by != MKV_WIRE_CONTROL_RDMA; i++)
		if (r->kept[i].id == q->request_id && !(r->kept[i].h.flags & MKV_WIRE_F_MORE)) {
			struct mkv_hdr h = r->kept[i].h;

			r->rc->f->udp_again++;
			(void)rail_out(r, r->by, &h, r->kept[i].body);
			return (1);
		}
	return (0);
}

static int
rail_reply(struct fakerail *r, struct mkv_hdr *h, const void *body, const uint8_t *payload)
{
	const struct mkv_wire_object *o = body;
	struct iovec v[2] = { { h, sizeof(*h) }, { (void *)(uintptr_t)body, h->body_bytes } };

	if (h->payload_bytes > 0 && r->target != NULL && r->rc->f->dc_fail != 0)
		return (rail_fail_get(r, h, body, payload));
	if (h->payload_bytes > 0) {
		if (r->rc->f->rail_hold)
			fv_hold(1);
		memcpy(r->rc->payload, payload, h->payload_bytes);
		if (rail_move(r, r->rc->payload, h->payload_bytes, r->seg, r->n_seg, o->off - r->get_off, 0) != 0)
			return (-1);
		h->flags |= MKV_WIRE_F_REMOTE;
	}
	if (r->by != MKV_WIRE_CONTROL_RDMA)
		return (rail_keep_out(r, h, body));
	h->session_id = SESSION_ID;
	rail_counter(r, h);
	h->channel = r->channel;
	if (r->rc->f->lies > 0 && r->rc->f->lie == FAKE_BAD_COUNTER && h->op != MKV_WIRE_PING) {
		r->rc->f->lies--;
		h->counter += 3;
	}
	(void)mkv_mac_sign(r->rc->out, h, MKV_WIRE_SIGNED_BYTES, body, h->body_bytes, h->mac);
	if (r->rc->f->lies > 0 && r->rc->f->lie == FAKE_BAD_MAC && h->op != MKV_WIRE_PING) {
		r->rc->f->lies--;
		h->mac[5] ^= 1;
	}
	if (!mkv_rdma_qp_ready(r->qp))
		return (-1);
	for (int i = 0; i < 1 + (r->target != NULL && r->rc->f->dc_twice); i++) {
		mkv_rdma_qp_send(r->qp, v, h->body_bytes > 0 ? 2 : 1, MKV_RDMA_SIGNAL, NULL);
		r->out++;
	}
	return (rail_settle(r));
}

/* Segments are the end of a body; what is before them says how many bytes they have. */
static unsigned
rail_segs(struct fakerail *r, const struct mkv_hdr *q, const uint8_t *body, uint32_t before)
{
	r->n_seg = (q->body_bytes - before) / (uint32_t)sizeof(r->seg[0]);
	MKV_ASSERT(r->n_seg <= MKV_WIRE_SEGS_MAX && before + r->n_seg * sizeof(r->seg[0]) == q->body_bytes);
	memcpy(r->seg, body + before, r->n_seg * sizeof(r->seg[0]));
	return (r->n_seg);
}

static int
rail_say_cancelled(struct fakerail *r, const struct mkv_wire_cancel *w)
{
	struct mkv_hdr h = { .version = MKV_WIRE_VERSION, .op = MKV_WIRE_GET, .flags = MKV_WIRE_F_REPLY, .request_id = w->request_id,
		.status = (uint16_t)-MKV_E_CANCELLED };

	memcpy(h.magic, "MKV\1", 4);
	return (rail_reply(r, &h, NULL, NULL));
}

static int
rail_serve(struct fakerail *r, struct mkv_hdr *q, const uint8_t *body)
{
	struct fake *f = r->rc->f;
	struct mkv_wire_put w = { .n_crcs = 0 };
	unsigned replies = r->rc->replies;
	int mute = f->rail_mute, no_ping = f->rail_no_ping, e;	/* as it was when the test sees that the request is here */
	uint32_t before;

	f->rail_requests[q->op % 32]++;
	if (q->op == MKV_WIRE_GET)
		f->rail_turns += atomic_exchange(&f->rail_last, r) != r;
	if (mute == 3 && q->op == MKV_WIRE_CANCEL && rail_say_cancelled(r, (const struct mkv_wire_cancel *)(const void *)body) != 0)
		return (-1);
	if ((mute && !(mute >= 2 && q->op == MKV_WIRE_CANCEL)) || (q->op == MKV_WIRE_PING && no_ping))
		return (0);
	if (q->op == MKV_WIRE_PUT) {
		memcpy(&w, body, sizeof(w));
		if (r->target != NULL && f->dc_fail != 0) {
			rail_say_failed(r, q->op, q->request_id);
			return (rail_settle(r));
		}
		before = (uint32_t)MKV_ALIGN_UP(MKV_ALIGN_UP(sizeof(w) + w.ns_bytes + w.key_bytes + w.parent_bytes, 8) + w.n_crcs * 4, 8);
		if (rail_move(r, r->rc->payload, q->payload_bytes, r->seg, rail_segs(r, q, body, before), 0, 1) != 0)
			return (-1);
		q->body_bytes = before;
	} else if (q->op == MKV_WIRE_GET) {
		struct mkv_wire_get g;

		memcpy(&g, body, sizeof(g));
		r->get_off = g.off;
		q->body_bytes = (uint32_t)MKV_ALIGN_UP(sizeof(g) + g.ns_bytes + g.key_bytes, 8);
		(void)rail_segs(r, &(struct mkv_hdr){ .body_bytes = r->msg_bytes[r->head % RAIL_QUEUE] - MKV_WIRE_HDR_BYTES }, body, q->body_bytes);
	}
	e = fake_serve(r->rc, q, body);
	if (e == 0 && q->op == MKV_WIRE_PUT && (q->flags & MKV_WIRE_F_MORE) && r->rc->replies == replies) {
		struct mkv_hdr h = { .version = MKV_WIRE_VERSION, .op = MKV_WIRE_PUT, .flags = MKV_WIRE_F_REPLY | MKV_WIRE_F_MORE, .request_id = q->request_id };

		memcpy(h.magic, "MKV\1", 4);
		f->acks++;
		e = rail_reply(r, &h, NULL, NULL);
	}
	return (e);
}

static void
rail_drop(struct fakerail *r, struct mkv_rdma_qp **qp)
{
	if (*qp == NULL)
		return;
	mkv_rdma_qp_fail(*qp);
	while (!mkv_rdma_qp_idle(*qp))
		rail_poll(r);
	mkv_rdma_qp_destroy(qp);
}

/* By the queue pair: signed, and in order unless datagrams have their share of the counters. */
static int
rail_is_good(struct fakerail *r, const struct mkv_hdr *q, const uint8_t *body)
{
	if (r->by != MKV_WIRE_CONTROL_RDMA)
		return (1);
	return (mkv_mac_check(r->rc->in, q, MKV_WIRE_SIGNED_BYTES, body, q->body_bytes, q->mac) == 0 && q->channel == r->channel && q->session_id == SESSION_ID &&
	    (r->control == MKV_WIRE_CONTROL_UDP ? mkv_window_take(&r->seen, q->counter) : q->counter == ++r->rc->counter_in));
}

/* There is no such channel any more. */
static int
rail_say_closed(struct fconn *tether, const struct mkv_hdr *q)
{
	struct mkv_hdr h = { .magic = { 'M', 'K', 'V', 1 }, .version = MKV_WIRE_VERSION, .op = q->op, .flags = MKV_WIRE_F_REPLY, .request_id = q->request_id,
		.status = (uint16_t)-MKV_E_CLOSED };

	return (fake_reply(tether, &h, NULL, NULL));
}

static void *
rail_main(void *arg)
{
	struct fakerail *r = arg;

	while (!r->quit && !r->broken) {
		struct mkv_hdr q;
		uint8_t *m;

		rail_poll(r);
		if (r->head == r->tail)
			continue;
		m = r->msg[r->head % RAIL_QUEUE];
		memcpy(&q, m, sizeof(q));
		MKV_ASSERT(r->msg_bytes[r->head % RAIL_QUEUE] == sizeof(q) + q.body_bytes);
		r->by = r->msg_by[r->head % RAIL_QUEUE];
		if (!rail_is_good(r, &q, m + sizeof(q)) || (!rail_came_before(r, &q) && rail_serve(r, &q, m + sizeof(q)) != 0))
			break;
		r->head++;
	}
	for (; r->broken && r->head != r->tail && r->control != MKV_WIRE_CONTROL_RDMA; r->head++)
		(void)rail_say_closed(r->tether, (const struct mkv_hdr *)(const void *)r->msg[r->head % RAIL_QUEUE]);
	rail_drop(r, &r->target);
	rail_drop(r, &r->other);
	rail_drop(r, &r->qp);
	return (NULL);
}

static void
rail_keys(struct fakerail *r, const struct fconn *c)
{
	uint8_t front[32], key[32];

	MKV_ASSERT(mkv_key_front(c->f->p->cred, FRONT_ID, front) == 0);
	MKV_ASSERT(mkv_key_session(front, c->nonce_c, c->nonce_s, MKV_DIR_C2S, r->channel, FRONT_ID, c->transcript, key) == 0);
	MKV_ASSERT(mkv_mac_create(&r->rc->in, key) == 0);
	MKV_ASSERT(mkv_key_session(front, c->nonce_c, c->nonce_s, MKV_DIR_S2C, r->channel, FRONT_ID, c->transcript, key) == 0);
	MKV_ASSERT(mkv_mac_create(&r->rc->out, key) == 0);
}

static struct mkv_rdma_dev *
rail_device(void)
{
	struct mkv_rdma_conf conf = { .device = RAIL_DEVICE, .gid_index = -1, .traffic_class = -1, .service_level = -1 };
	struct mkv_rdma_dev *d;
	char why[256];

	MKV_ASSERT(mkv_rdma_dev_open(&d, fv_verbs(), &conf, why, sizeof(why)) == 0);
	return (d);
}

static void
rail_open(struct fakerail *r)
{
	struct mkv_rdma_hub_conf h = { .recvs = RAIL_RECVS, .recv_bytes = MKV_WIRE_RDMA_BYTES, .sends_max = 2 * RAIL_SENDS };
	char why[256];

	r->dev = rail_device();
	MKV_ASSERT(mkv_rdma_hub_open(&r->hub, r->dev, &h, why, sizeof(why)) == 0);
	MKV_ASSERT(mkv_rdma_mem_add(&r->mem, r->dev, r->rc->payload, MKV_WIRE_PART_MAX, MKV_RDMA_LOCAL, why, sizeof(why)) == 0);
}

static void
rail_connect(struct fakerail *r, const struct mkv_wire_attach *in, struct mkv_wire_attach *out)
{
	struct mkv_rdma_peer p = { .lid = in->lid, .qpn = in->qpn, .psn = in->psn, .mtu_bytes = in->mtu_bytes, .rd_atomic_in = (uint8_t)in->rd_atomic_in,
		.rd_atomic_out = (uint8_t)in->rd_atomic_out };
	struct mkv_rdma_qp_conf q = { .sends = RAIL_SENDS, .send_bytes = MKV_WIRE_RDMA_BYTES, .ops = &rail_ops, .owner = r };

	MKV_ASSERT(mkv_rdma_qp_create(&r->qp, r->hub, &q) == 0);
	memcpy(p.gid, in->gid, sizeof(p.gid));
	MKV_ASSERT(mkv_rdma_qp_connect(r->qp, &p) == 0);
	out->qpn = mkv_rdma_qp_number(r->qp);
	out->psn = mkv_rdma_qp_psn(r->qp);
}

static void
rail_connect_dc(struct fakerail *r, const struct mkv_wire_attach *in, struct mkv_wire_attach *out)
{
	struct mkv_rdma_qp_conf q = { .sends = RAIL_SENDS, .send_bytes = MKV_WIRE_RDMA_BYTES, .ops = &rail_ops, .owner = r };
	struct mkv_rdma_dct to = { .lid = in->lid, .dctn = in->qpn, .key = in->dc_key };
	struct fake *f = r->rc->f;

	MKV_ASSERT(in->psn == 0 && in->mtu_bytes == r->dev->mtu_bytes);
	memcpy(to.gid, in->gid, sizeof(to.gid));
	MKV_ASSERT(mkv_rdma_initiator_create(&r->qp, r->hub, &q) == 0 && mkv_rdma_initiator_aim(r->qp, &to) == 0);
	MKV_ASSERT(mkv_rdma_initiator_create(&r->other, r->hub, &q) == 0 && mkv_rdma_initiator_aim(r->other, &to) == 0);
	q.sends = 0;
	MKV_ASSERT(mkv_rdma_target_create(&r->target, r->hub, &q) == 0);
	out->qpn = mkv_rdma_qp_number(r->target);
	out->dc_key = mkv_rdma_target_key(r->target);
	f->dc_targets[f->dc_attached++ % 8] = in->qpn;
}

static void
rail_end(struct fconn *c)
{
	struct fakerail *r = c->rail;

	if (r == NULL || c->is_rail)
		return;
	c->rail = NULL;
	r->quit = 1;
	(void)pthread_join(r->thread, NULL);
	mkv_rdma_mem_drop(&r->mem);
	mkv_rdma_hub_close(&r->hub);
	mkv_rdma_dev_close(&r->dev);
	if (r->udp >= 0)
		(void)close(r->udp);
	fake_fconn_clean(r->rc);
	free(r);
}

/* A socket on loopback that hears the client alone. Its port. */
static uint16_t
rail_listen(struct fakerail *r, const struct mkv_wire_attach *in)
{
	static const uint8_t loopback[16] = { [10] = 0xff, [11] = 0xff, [12] = 127, [15] = 1 };
	struct mkv_addr own, to;

	mkv_addr_make(&own, loopback, 0);
	mkv_addr_make(&to, loopback, in->udp_port);
	MKV_ASSERT((r->udp = mkv_udp_bind(&own)) >= 0 && mkv_udp_connect(r->udp, &to) == 0);
	return ((uint16_t)mkv_udp_port(r->udp));
}

/* A frame of the tether that is the rail's: its own thread serves it. */
static int
rail_frame(struct fconn *c, const struct mkv_hdr *q, const uint8_t *body)
{
	if (c->rail == NULL)
		return (-1);
	c->f->tether_messages++;
	MKV_ASSERT((q->flags & (MKV_WIRE_F_RESEND | MKV_WIRE_F_MORE)) != (MKV_WIRE_F_RESEND | MKV_WIRE_F_MORE));	/* a part is none that came before */
	if (c->rail->broken)
		return (rail_say_closed(c, q));
	rail_push(c->rail, MKV_WIRE_CONTROL_TCP, q, sizeof(*q), body, q->body_bytes);
	return (0);
}

static int
rail_attach(struct fconn *c, const struct mkv_wire_attach *in, struct mkv_wire_attach *out)
{
	int dc = in->transport == MKV_FEATURE_RDMA_DC;
	struct fakerail *r;

	rail_end(c);
	c->f->dc_asked += (unsigned)dc;
	if (dc && c->f->rail_dc != 1) {
		c->f->dc_refused++;
		return (MKV_E_UNSUPPORTED);
	}
	if (in->control & MKV_WIRE_CONTROL_LOOSE) {
		c->f->loose_refused++;
		return (MKV_E_UNSUPPORTED);
	}
	if (in->control == MKV_WIRE_CONTROL_UDP && c->f->udp_refuse)
		return (MKV_E_UNSUPPORTED);
	r = calloc(1, sizeof(*r));
	MKV_ASSERT(r != NULL && (r->rc = calloc(1, sizeof(*r->rc))) != NULL && (r->rc->payload = malloc(MKV_WIRE_PART_MAX)) != NULL);
	r->rc->f = c->f;
	r->rc->rail = r;
	r->rc->is_rail = 1;
	r->channel = in->channel;
	r->tether = c;
	r->control = in->control;
	r->udp = -1;
	r->luck = in->channel;
	(void)pthread_mutex_init(&r->lock, NULL);
	rail_keys(r, c);
	rail_open(r);
	memset(out, 0, sizeof(*out));
	(dc ? rail_connect_dc : rail_connect)(r, in, out);
	out->transport = c->f->attach_lie == 3 ? MKV_FEATURE_RDMA_RC ^ MKV_FEATURE_RDMA_DC ^ in->transport : in->transport;
	out->channel = in->channel;
	out->mtu_bytes = dc && c->f->attach_mtu != 0 ? c->f->attach_mtu : r->dev->mtu_bytes;
	out->recv_bytes = MKV_WIRE_RDMA_BYTES;
	out->rd_atomic_in = r->dev->rd_atomic_in;
	out->rd_atomic_out = r->dev->rd_atomic_out;
	memcpy(out->gid, r->dev->gid.raw, sizeof(out->gid));
	out->lid = r->dev->lid;
	out->credits = (uint16_t)(c->f->rail_credits == 0 ? 16 : c->f->rail_credits);
	out->control = c->f->attach_lie == 1 ? MKV_WIRE_CONTROL_TCP : in->control;
	out->udp_port = c->f->attach_lie == 2 ? 9 : in->control == MKV_WIRE_CONTROL_UDP ? rail_listen(r, in) : 0;
	c->rail = r;
	c->f->attached++;
	MKV_ASSERT(pthread_create(&r->thread, NULL, rail_main, r) == 0);
	return (0);
}

static unsigned
rail_list(struct fake *f, struct mkv_wire_rail *out)
{
	struct mkv_rdma_dev *d;

	for (unsigned i = 0; i < f->rails; i++) {
		d = rail_device();
		memset(&out[i], 0, sizeof(out[i]));
		out[i].rail = (uint16_t)(i + 1);
		memcpy(out[i].device, RAIL_DEVICE, sizeof(RAIL_DEVICE));
		if ((f->rail_down >> i & 1) != 0) {		/* not up yet: nothing but its name is known */
			mkv_rdma_dev_close(&d);
			continue;
		}
		out[i].state = 1;
		out[i].transports = MKV_FEATURE_RDMA_RC | (f->rail_dc ? MKV_FEATURE_RDMA_DC : 0);
		out[i].mtu = f->rail_mtu;
		memcpy(out[i].gid, d->gid.raw, sizeof(out[i].gid));
		memcpy(out[i].address, (const uint8_t[16]){ [10] = 0xff, [11] = 0xff, [12] = 127, [15] = 1 }, sizeof(out[i].address));
		mkv_rdma_dev_close(&d);
	}
	return (f->rails);
}

static const struct fakerail_ops rail_is = { .attach = rail_attach, .reply = rail_reply, .frame = rail_frame, .end = rail_end, .list = rail_list };

void
fakerail_use(void)
{
	fakerail = &rail_is;
}
