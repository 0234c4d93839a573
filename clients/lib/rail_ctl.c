/*
 * Messages of a rail that do not go by its queue pair: datagrams to the server's rail, or frames of the tether (rdma_control).
 *
 *   message --fits, and one answer belongs to it--> datagram --no answer: again, twice, later each time--> the tether
 *                                    '--anything else--> the tether
 *
 * rdma_tether drop: where the server agrees (LOOSE in ATTACH: DC alone) the tether is closed as soon as a datagram was answered and nothing is on it. Then a
 * message goes again by datagram until it is answered, what does not fit goes by another connection, and a PING each 20 s says that we are here; one that
 * is not answered breaks the rail, which begins anew with a tether. When such a rail ends, for whatever reason, it fences and then says DETACH, three times at most:
 * the server would keep the session for a minute.
 *
 * The loop's thread. Owns the socket, which is the tether's for its life, and the copies of messages: of a datagram until its request is answered, of a frame
 * until the tether has it. A request that is sent again has the same id and a new counter; the server does it once.
 * Invariants: what comes by datagram is looked at only when it is signed and its counter is new; nothing that is wrong with one breaks anything: it is dropped.
 * Fails: no socket, or no datagram that is answered: the tether carries all. After datagrams that nobody answered it does so for a while.
 */
#include "config.h"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "clients/lib/rail_priv.h"
#include "common/base/clock.h"

#define COPY_BYTES	(size_t)MKV_WIRE_RDMA_BYTES
#define ANSWER_BYTES	MKV_ALIGN_UP(MKV_UDP_SAFE, 64u)	/* no answer by datagram is longer than UDP_SAFE */
#define AGAIN_LEAST_NS	MKV_NS_PER_MS
#define AGAIN_FIRST_NS	(20 * MKV_NS_PER_MS)	/* before anything was measured */
#define AGAIN_TIMES	2u			/* then the tether */
#define AGAIN_MOST_NS	(200 * MKV_NS_PER_MS)	/* without a tether, between two of them */
#define MARGIN_NS	(5 * MKV_NS_PER_MS)
#define DUMB_NS		MKV_NS_PER_SEC		/* so long all goes by the tether when nobody answered */
#define BYE_TIMES	3u

static struct loop *
rail_loop(const struct rail *r)
{
	return (r->c->srv->loop);
}

static struct mkv_hdr *
copy_hdr(const struct rail_copy *m)
{
	return ((struct mkv_hdr *)(void *)m->buf);
}

/* ---- copies ---- */

void
mkv_ctl_init(struct rail *r)
{
	r->ctl.fd = -1;
	mkv_list_init(&r->ctl.free);
	mkv_list_init(&r->ctl.frames);
}

static int
ctl_copies(struct rail *r)
{
	struct rail_ctl *k = &r->ctl;

	if (k->slab != NULL)
		return (0);
	if ((k->slab = aligned_alloc(64, RAIL_COPIES * COPY_BYTES + (size_t)MKV_UDP_BATCH * ANSWER_BYTES)) == NULL)
		return (MKV_E_NOMEM);
	for (unsigned i = 0; i < RAIL_COPIES; i++) {
		k->copy[i].buf = k->slab + (size_t)i * COPY_BYTES;
		mkv_list_push_tail(&k->free, &k->copy[i].link);
	}
	return (0);
}

void
mkv_ctl_fini(struct rail *r)
{
	free(r->ctl.slab);
	r->ctl.slab = NULL;
}

int
mkv_ctl_has_room(const struct rail *r)
{
	return (r->ctl.by == MKV_WIRE_CONTROL_RDMA || !mkv_list_empty(&r->ctl.free));
}

static void
copy_back(struct rail *r, struct rail_copy *m)
{
	mkv_list_remove(&m->link);
	mkv_list_push_tail(&r->ctl.free, &m->link);
}

/* What the tether has not been given yet it is not given any more. */
void
mkv_ctl_forget(struct rail *r, struct rail_slot *s)
{
	if (s->copy != NULL)
		copy_back(r, s->copy);
	s->copy = NULL;
	s->again_ns = UINT64_MAX;
	MKV_LIST_FOREACH_SAFE(it, tmp, &r->ctl.frames) {
		struct rail_copy *m = MKV_CONTAINER_OF(it, struct rail_copy, link);

		if (copy_hdr(m)->request_id == s->id)
			copy_back(r, m);
	}
}

/* ---- the socket ---- */

/* Of a path's MTU what is left for one datagram; 0: nothing. */
static uint32_t
ctl_room(const struct rail *r, uint32_t mtu)
{
	const uint32_t over = r->c->sa.ss_family == AF_INET6 ? MKV_UDP_OVERHEAD6 : MKV_UDP_OVERHEAD;

	return (mtu > over ? mtu - over : 0);
}

/* What one datagram may have: of the path that the tether goes. */
static uint32_t
ctl_most(const struct rail *r)
{
	struct tcp_info ti;
	socklen_t n = sizeof(ti);
	uint32_t room;

	memset(&ti, 0, sizeof(ti));
	if (getsockopt(r->c->fd, IPPROTO_TCP, TCP_INFO, &ti, &n) != 0 || (room = ctl_room(r, ti.tcpi_pmtu)) == 0)
		return (MKV_UDP_SAFE);
	return (room);
}

static void
ctl_close(struct rail_ctl *k)
{
	k->leaving = 0;
	if (k->fd >= 0)
		(void)close(k->fd);
	k->fd = -1;
}

static void
ctl_on_readable(struct mkv_io *io, int res)
{
	struct rail_ctl *k = MKV_CONTAINER_OF(io, struct rail_ctl, io);
	struct rail *r = MKV_CONTAINER_OF(k, struct rail, ctl);

	k->waits = 0;
	if (!k->leaving) {
		k->ready |= res >= 0;
		return;
	}
	ctl_close(k);
	mkv_server_pump(r->c->srv);			/* the connection may begin again */
}

/* 1: there is one, bound to the address that the tether has here. */
static int
ctl_socket(struct rail *r)
{
	struct mkv_addr own = { .bytes = sizeof(own.ss) };
	struct rail_ctl *k = &r->ctl;

	if (k->fd >= 0)
		return (1);
	if (getsockname(r->c->fd, (struct sockaddr *)&own.ss, &own.bytes) != 0)
		return (0);
	mkv_addr_set_port(&own, 0);
	k->fd = mkv_udp_bind(&own);
	k->io.done = ctl_on_readable;
	return (k->fd >= 0);
}

/* ---- attaching ---- */

/* What goes by RDMA or not at all may be longer than what goes without a tether. */
static int
ctl_wants_loose(struct rail *r)
{
	const struct conf *cf = &rail_loop(r)->c->cf;
	const struct pool *p = r->c->srv->pool;

	return (cf->rdma_drop && cf->transport == MKV_TRANSPORT_AUTO && mkv_rail_is_dc(r) && !p->rail[r->c->rail_idx].no_loose);
}

void
mkv_ctl_ask(struct rail *r, struct mkv_wire_attach *w)
{
	const struct pool *p = r->c->srv->pool;
	struct rail_ctl *k = &r->ctl;
	int port = 0;

	k->by = rail_loop(r)->c->cf.rdma_control;
	if (k->by != MKV_WIRE_CONTROL_RDMA && ctl_copies(r) != 0)
		k->by = MKV_WIRE_CONTROL_RDMA;
	if (k->by == MKV_WIRE_CONTROL_UDP && (p->rail[r->c->rail_idx].no_udp || !ctl_socket(r) || (port = mkv_udp_port(k->fd)) <= 0))
		k->by = MKV_WIRE_CONTROL_TCP;
	w->control = k->by;
	k->loose = k->by == MKV_WIRE_CONTROL_UDP && ctl_wants_loose(r);
	if (k->loose)
		w->control |= MKV_WIRE_CONTROL_LOOSE;
	if (k->by == MKV_WIRE_CONTROL_UDP)
		w->udp_port = (uint16_t)port;
}

int
mkv_ctl_refused(struct rail *r, int err)
{
	struct pool *p = r->c->srv->pool;

	if (r->ctl.by != MKV_WIRE_CONTROL_UDP || err != MKV_E_UNSUPPORTED || p->rail[r->c->rail_idx].no_udp)
		return (0);
	if (r->ctl.loose) {
		p->rail[r->c->rail_idx].no_loose = 1;
		return (1);
	}
	p->rail[r->c->rail_idx].no_udp = 1;
	return (1);
}

int
mkv_ctl_attached(struct rail *r, const struct mkv_wire_attach *w)
{
	const struct pool *p = r->c->srv->pool;
	struct rail_ctl *k = &r->ctl;
	struct mkv_addr to;

	if (w->control != (k->by | (k->loose ? MKV_WIRE_CONTROL_LOOSE : 0)) || !mkv_wire_control_ok(w))
		return (MKV_E_PEER);				/* not what was asked for */
	k->srtt_ns = k->dumb_ns = k->heard_ns = 0;
	k->most = ctl_most(r);
	if (k->loose && p->rail[r->c->rail_idx].loose_most != 0)
		k->most = MKV_MIN(k->most, p->rail[r->c->rail_idx].loose_most);
	if (k->by != MKV_WIRE_CONTROL_UDP)
		return (0);
	mkv_addr_make(&to, p->rail[r->c->rail_idx].wire.address, w->udp_port);
	if (mkv_udp_connect(k->fd, &to) != 0)
		k->dumb_ns = UINT64_MAX;			/* another kind of address, no route: never */
	return (0);
}

void
mkv_ctl_tether_down(struct rail *r)
{
	struct rail_ctl *k = &r->ctl;

	if ((k->down = mkv_ctl_says_bye(r)) != 0)
		return;
	k->ready = 0;
	if (k->waits) {
		k->leaving = 1;
		mkv_ioq_cancel(rail_loop(r)->q, &k->io);
	} else {
		ctl_close(k);
	}
}

/* ---- the end ---- */

int
mkv_ctl_says_bye(const struct rail *r)
{
	return (r->ctl.bye_id != 0);
}

static void
bye_end(struct rail *r)
{
	r->ctl.bye_id = 0;
	rail_loop(r)->dirty = 1;
	mkv_timer_disarm(&rail_loop(r)->timers, &r->timer);
	if (r->ctl.down)
		mkv_ctl_tether_down(r);
}

/* How long its answer takes is not worth knowing better: what is lost costs the server a minute of one session. */
static void
bye_say(struct rail *r)
{
	struct rail_ctl *k = &r->ctl;
	struct mkv_hdr h;
	int e;

	mkv_conn_header(&h, MKV_WIRE_DETACH, k->bye_id, RAIL_OURS_US);
	h.session_id = r->session_id;
	h.channel = r->channel;
	h.counter = ++r->tx_counter;
	h.ack_below = (uint32_t)k->bye_id;
	e = mkv_mac_sign(r->mac_tx, &h, MKV_WIRE_SIGNED_BYTES, NULL, 0, h.mac);
	if (e != 0 || ((e = mkv_udp_send(k->fd, &h, sizeof(h))) != 0 && e != MKV_E_AGAIN)) {
		bye_end(r);
		return;
	}
	client_count(rail_loop(r)->c, CC_datagrams_sent_total, 1);
	k->bye_tries++;
	k->bye_ns = rail_loop(r)->now_ns + AGAIN_FIRST_NS;
	mkv_timer_arm(&rail_loop(r)->timers, &r->timer, k->bye_ns);
}

/* Also where the tether has not gone yet: where LOOSE was agreed on, its end alone ends nothing. */
void
mkv_ctl_bye(struct rail *r)
{
	struct rail_ctl *k = &r->ctl;

	if (!k->loose || k->fd < 0 || k->leaving || r->mac_rx == NULL)
		return;
	k->bye_id = ++r->c->sequence << 8;
	k->bye_tries = 0;
	k->down = 0;
	bye_say(r);
}

void
mkv_ctl_bye_due(struct rail *r)
{
	if (!mkv_ctl_says_bye(r) || r->ctl.bye_ns > rail_loop(r)->now_ns)
		return;
	if (r->ctl.bye_tries == BYE_TIMES)
		bye_end(r);
	else
		bye_say(r);
}

/* ---- out ---- */

static int
ctl_is_dumb(struct rail *r)
{
	struct rail_ctl *k = &r->ctl;

	if (k->dumb_ns == UINT64_MAX || rail_loop(r)->now_ns < k->dumb_ns)
		return (1);
	k->dumb_ns = 0;
	return (0);
}

/* One message, one answer. */
static int
ctl_is_single(const struct rail *r, const struct rail_slot *s, const struct mkv_hdr *h)
{
	const struct op *o;

	if (h->op == MKV_WIRE_PUT)
		return ((h->flags & MKV_WIRE_F_MORE) == 0 && ((const struct mkv_wire_put *)(const void *)(h + 1))->part_off == 0);
	if (h->op != MKV_WIRE_GET)
		return (1);
	o = s->leg->op;
	return (mkv_get_room(o) <= r->c->part_bytes - o->off % r->c->part_bytes);
}

static void
ctl_by_tether(struct rail *r, struct rail_copy *m)
{
	mkv_list_remove(&m->link);
	mkv_list_push_tail(&r->ctl.frames, &m->link);
	rail_loop(r)->dirty = 1;
}

/* No further answer is expected by datagram: the request's one copy goes to the tether. */
static void
ctl_fall_over(struct rail *r, struct rail_slot *s)
{
	struct rail_copy *m = s->copy;

	client_count(rail_loop(r)->c, CC_control_fallovers_total, 1);
	s->copy = NULL;
	s->again_ns = UINT64_MAX;
	ctl_by_tether(r, m);
}

/* The path takes less than was thought. */
static void
ctl_shrink(struct rail *r, uint32_t bytes)
{
	const int v6 = r->c->sa.ss_family == AF_INET6;
	int mtu = 0;
	socklen_t n = sizeof(mtu);
	uint32_t room;

	r->ctl.most = MKV_MIN(r->ctl.most, bytes - 1);
	if (getsockopt(r->ctl.fd, v6 ? IPPROTO_IPV6 : IPPROTO_IP, v6 ? IPV6_MTU : IP_MTU, &mtu, &n) == 0 && mtu > 0 && (room = ctl_room(r, (uint32_t)mtu)) != 0)
		r->ctl.most = MKV_MIN(r->ctl.most, room);
	if (r->alone)
		((struct pool *)r->c->srv->pool)->rail[r->c->rail_idx].loose_most = r->ctl.most;	/* it costs the rail, but once */
}

/* 0: it left, or is lost as anything may be. */
static int
ctl_datagram(struct rail *r, struct rail_slot *s)
{
	struct mkv_hdr *h = copy_hdr(s->copy);
	uint32_t bytes = (uint32_t)sizeof(*h) + h->body_bytes;
	int e;

	h->counter = ++r->tx_counter;
	h->ack_below = mkv_rail_ack_below(r, h);
	h->deadline_us = (uint32_t)MKV_MIN(s->leg != NULL ? mkv_leg_left_us(s->leg) : RAIL_OURS_US, MKV_WIRE_DEADLINE_MAX_US);
	if (mkv_mac_sign(r->mac_tx, h, MKV_WIRE_SIGNED_BYTES, (uint8_t *)(h + 1), h->body_bytes, h->mac) != 0)
		return (MKV_E_SYSTEM);
	e = mkv_udp_send(r->ctl.fd, h, bytes);
	if (e == MKV_E_TOOBIG)
		ctl_shrink(r, bytes);
	client_count(rail_loop(r)->c, CC_datagrams_sent_total, e == 0);
	return (e == MKV_E_AGAIN ? 0 : e);
}

void
mkv_ctl_send(struct rail *r, struct rail_slot *s, const struct mkv_hdr *h)
{
	struct rail_copy *m = MKV_CONTAINER_OF(mkv_list_pop(&r->ctl.free), struct rail_copy, link);
	struct rail_ctl *k = &r->ctl;

	MKV_ASSERT(sizeof(*h) + h->body_bytes <= COPY_BYTES);
	memcpy(m->buf, h, sizeof(*h) + h->body_bytes);
	copy_hdr(m)->session_id = r->session_id;
	copy_hdr(m)->flags &= (uint16_t)~MKV_WIRE_F_RESEND;	/* here it means this id, and parts have one, too */
	if (k->by == MKV_WIRE_CONTROL_TCP) {
		ctl_by_tether(r, m);
		return;
	}
	copy_hdr(m)->channel = r->channel;
	s->copy = m;
	s->tries = 0;
	s->wait_ns = k->srtt_ns == 0 ? AGAIN_FIRST_NS : MKV_MAX(AGAIN_LEAST_NS, 2 * k->srtt_ns);
	s->again_ns = rail_loop(r)->now_ns + s->wait_ns;
	if (r->alone) {
		(void)ctl_datagram(r, s);		/* what cannot leave breaks the rail when it is due again: not from in here */
		mkv_rail_due(r, s->again_ns);
	} else if (ctl_is_dumb(r) || !ctl_is_single(r, s, h) || sizeof(*h) + h->body_bytes > k->most || ctl_datagram(r, s) != 0)
		ctl_fall_over(r, s);
	else
		mkv_rail_due(r, s->again_ns);
}

int
mkv_ctl_fits(const struct rail *r, const struct rail_slot *s, const struct mkv_hdr *h)
{
	return (!r->alone || (ctl_is_single(r, s, h) && sizeof(*h) + h->body_bytes <= r->ctl.most));
}

/* A message that went to the tether has no copy any more, and its answer comes there. */
int
mkv_ctl_may_drop(const struct rail *r)
{
	const struct conn *c = r->c;

	if (!r->ctl.loose || r->ctl.heard_ns == 0 || r->ctl.dumb_ns != 0 || c->state != CONN_READY || c->leaving || c->n_out != 0 || c->tx_busy ||
	    !mkv_list_empty(&c->txq) || !mkv_list_empty(&c->notices) || mkv_ctl_has_frames(c))
		return (0);
	MKV_LIST_FOREACH(it, &r->out) {
		const struct rail_slot *s = MKV_CONTAINER_OF(it, const struct rail_slot, link);

		if (s->unanswered > 0 && s->copy == NULL)
			return (0);
	}
	return (1);
}

int
mkv_ctl_again(struct rail *r, struct rail_slot *s)
{
	uint64_t now = rail_loop(r)->now_ns;

	if (s->tries++ == AGAIN_TIMES && !r->alone) {
		if (r->ctl.heard_ns < s->sent_ns)
			r->ctl.dumb_ns = MKV_MAX(r->ctl.dumb_ns, now + DUMB_NS);
		copy_hdr(s->copy)->flags |= MKV_WIRE_F_RESEND;
		ctl_fall_over(r, s);
		return (0);
	}
	copy_hdr(s->copy)->flags |= MKV_WIRE_F_RESEND;
	client_count(rail_loop(r)->c, CC_datagrams_repeated_total, 1);
	s->wait_ns = r->alone ? MKV_MIN(2 * s->wait_ns, MKV_MAX(AGAIN_MOST_NS, s->wait_ns)) : 2 * s->wait_ns;
	s->again_ns = now + s->wait_ns;
	if (ctl_datagram(r, s) == 0)
		return (0);
	if (r->alone)
		return (1);
	ctl_fall_over(r, s);
	return (0);
}

/* A socket's round trip, and for a datagram time to be sent once more. */
uint64_t
mkv_ctl_margin(const struct rail *r)
{
	return (r->ctl.by == MKV_WIRE_CONTROL_RDMA ? 0 : MARGIN_NS);
}

/* The tether has room: one frame, unsealed. Its bytes; 0: none waits. */
uint32_t
mkv_ctl_frame(struct rail *r, uint8_t *to)
{
	struct mkv_list *l = mkv_list_pop(&r->ctl.frames);
	struct rail_copy *m;
	struct mkv_hdr *h;
	uint32_t bytes;

	if (l == NULL)
		return (0);
	m = MKV_CONTAINER_OF(l, struct rail_copy, link);
	h = copy_hdr(m);
	bytes = (uint32_t)sizeof(*h) + h->body_bytes;
	h->channel = 0;
	h->flags |= MKV_WIRE_F_REMOTE;			/* of the channel: CANCEL is answered behind what it ends, PING says that there is one */
	memcpy(to, h, bytes);
	mkv_list_push_tail(&r->ctl.free, &m->link);
	return (bytes);
}

int
mkv_ctl_has_frames(const struct conn *c)
{
	return (c->rail != NULL && !mkv_list_empty(&c->rail->ctl.frames));
}

/* ---- in ---- */

static void
ctl_measure(struct rail *r, uint64_t id)
{
	const struct rail_slot *s = mkv_rail_slot(r, id);
	struct rail_ctl *k = &r->ctl;
	uint64_t ns;

	if (s == NULL || s->copy == NULL || s->tries != 0)
		return;					/* whose answer is it: the first one's or a later one's? */
	ns = rail_loop(r)->now_ns - s->sent_ns;
	k->srtt_ns = k->srtt_ns == 0 ? ns : (7 * k->srtt_ns + ns) / 8;
}

/* The channel is there no more, says the answer to one of its requests; with a reason (DC) it is that request alone that was lost. */
static int
ctl_is_closed(struct rail *r, const struct mkv_hdr *h)
{
	return (h->status == (uint16_t)-MKV_E_CLOSED && h->reason == MKV_REASON_NONE && mkv_rail_slot(r, h->request_id) != NULL);
}

/* Nothing that was asked for: the server has given the channel up, and says so at once. */
static int
ctl_is_over(const struct mkv_hdr *h)
{
	return (h->op == MKV_WIRE_DETACH && h->request_id == 0);
}

/* A rail that is given up waits for one answer. */
static void
ctl_take_bye(struct rail *r, const struct mkv_hdr *h)
{
	if (mkv_ctl_says_bye(r) && h->op == MKV_WIRE_DETACH && h->request_id == r->ctl.bye_id)
		bye_end(r);
}

static void
ctl_take(struct rail *r, const uint8_t *buf, uint32_t bytes)
{
	const struct mkv_hdr *h = (const struct mkv_hdr *)(const void *)buf;
	struct loop *l = rail_loop(r);
	int e;

	if (bytes < sizeof(*h) || mkv_rail_hdr_check(h) != 0 || h->body_bytes != bytes - sizeof(*h) ||
	    h->session_id != r->session_id || h->channel != r->channel ||
	    mkv_mac_check(r->mac_rx, h, MKV_WIRE_SIGNED_BYTES, h + 1, h->body_bytes, h->mac) != 0 || !mkv_window_take(&r->rx_window, h->counter)) {
		client_count(l->c, CC_datagrams_dropped_total, 1);
		return;
	}
	client_count(l->c, CC_datagrams_received_total, 1);
	if (r->state == RAIL_BREAKING) {
		ctl_take_bye(r, h);
		return;
	}
	r->ctl.heard_ns = l->now_ns;
	ctl_measure(r, h->request_id);
	if (ctl_is_over(h) || ctl_is_closed(r, h))
		e = MKV_E_CLOSED;
	else
		e = mkv_rail_answer(r, h, (const uint8_t *)(h + 1));
	if (e == 0)
		return;
	client_count(l->c, CC_protocol_errors_total, e != MKV_E_CLOSED);
	mkv_rail_trouble(r, e, e == MKV_E_CLOSED ? "the server has lost the queue pair" : "a message that breaks the protocol");
}

void
mkv_ctl_poll(struct rail *r)
{
	struct mkv_udp_msg m[MKV_UDP_BATCH];
	struct rail_ctl *k = &r->ctl;
	int n;

	mkv_ctl_bye_due(r);
	k->ready |= mkv_ctl_says_bye(r);			/* a loop that ends is not woken any more */
	while (k->ready && !k->leaving) {
		for (unsigned i = 0; i < MKV_UDP_BATCH; i++)
			m[i].buf = k->slab + RAIL_COPIES * COPY_BYTES + (size_t)i * ANSWER_BYTES;
		n = mkv_udp_recv(k->fd, m, MKV_UDP_BATCH, ANSWER_BYTES);
		k->ready = n == (int)MKV_UDP_BATCH;
		for (int i = 0; i < n && (r->state == RAIL_LIVE || r->state == RAIL_PROVING || mkv_ctl_says_bye(r)); i++)
			ctl_take(r, m[i].buf, m[i].bytes);
		rail_loop(r)->dirty |= n > 0;
	}
}

/* Before the loop sleeps: what comes will wake it. */
void
mkv_ctl_wait(struct rail *r)
{
	struct rail_ctl *k = &r->ctl;

	if (k->fd < 0 || k->waits || k->leaving || k->by != MKV_WIRE_CONTROL_UDP)
		return;
	k->waits = 1;
	mkv_ioq_poll(rail_loop(r)->q, &k->io, MKV_FD(k->fd), 0);
}

int
mkv_ctl_is_off(const struct rail *r)
{
	return (!r->ctl.waits && !r->ctl.leaving);
}

int
mkv_ctl_tether_frame(struct conn *c, const struct mkv_hdr *h, const uint8_t *body, int *taken)
{
	struct rail *r = c->rail;
	struct mkv_hdr as_channel = *h;
	int e;

	*taken = r != NULL && (ctl_is_over(h) || (h->flags & MKV_WIRE_F_REMOTE) || mkv_rail_slot(r, h->request_id) != NULL);
	/* Of the channel before this one it would have come before the answer to ATTACH. */
	if (*taken && ctl_is_over(h) && (r->state == RAIL_LIVE || r->state == RAIL_PROVING)) {
		mkv_rail_trouble(r, MKV_E_CLOSED, "the server has lost the queue pair");
		return (0);
	}
	if (!*taken || r->state != RAIL_LIVE)
		return (0);				/* of a channel that is given up */
	as_channel.credits = 0;				/* the tether's */
	if (ctl_is_closed(r, h)) {
		mkv_rail_trouble(r, MKV_E_CLOSED, "the server has lost the queue pair");
		return (0);
	}
	if ((e = mkv_rail_answer(r, &as_channel, body)) != 0) {
		client_count(rail_loop(r)->c, CC_protocol_errors_total, 1);
		mkv_rail_trouble(r, e, "a message that breaks the protocol");
	}
	return (0);
}
