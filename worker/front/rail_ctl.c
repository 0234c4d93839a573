/*
 * memkv-front, loop thread: messages of a channel that do not go by its queue pair: datagrams, and frames of the tether (mkv_wire_attach.control). The requests are
 * the same, their payload goes by the line; what differs is where a message lies and when its answer may leave.
 *
 *	answer behind data --READ of one byte, posted behind the data, has come back (rail_xfer.c)--> ctl_out(): it leaves
 *	answer without data --> the same at once
 *
 * Datagrams. One socket a rail. Nothing is answered, counted for a session or kept before its MAC fits: who is not known gets no byte. A counter is taken once; a
 * request id has its effect once (answers.h): what comes again is answered from what was kept, or not at all while it is at work. A request that its client
 * sends again by the tether is the same request, and its answer leaves by the tether from then on.
 *
 * Owns: the socket, the buffers of one batch each way, the memory of messages that wait or whose segments are still needed. Fails: the peer's fault, counted; what
 * finds no room is dropped like one that the network lost.
 */
#include "config.h"

#include "worker/front/rail_priv.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/base/err.h"

#define CTL_ANSWERS	8192u
#define CTL_TURN_BATCHES 4u		/* datagrams taken in one turn */
#define CTL_OUT_BYTES	MKV_UDP_SAFE	/* no answer is longer */

struct ctl_batch {
	unsigned	n;
	struct mkv_udp_msg msg[MKV_UDP_BATCH];
	uint8_t		*slab;
};

struct mkv_ctl {
	struct ctl_msg	*msgs;
	uint32_t	n_used;			/* those from there on were never taken */
	struct mkv_list	free;
	uint32_t	n_out;			/* that are taken */
	struct mkv_list	wait;			/* connections that hold a frame until one is free, by msg_link */
	struct mkv_answer_pool answers;
	struct ctl_batch in, out;
	int		fd;			/* -1: no datagrams */
	int		ready;			/* some may wait */
	struct mkv_chan	**bucket;		/* by session */
	uint32_t	mask;
};

/* ---- Opening --------------------------------------------------------------------------------------------------------------- */

static int
batch_open(struct ctl_batch *b, uint32_t bytes)
{
	if ((b->slab = aligned_alloc(64, MKV_ALIGN_UP((size_t)MKV_UDP_BATCH * bytes, 64))) == NULL)
		return (MKV_E_NOMEM);
	for (unsigned i = 0; i < MKV_UDP_BATCH; i++)
		b->msg[i].buf = b->slab + (size_t)i * bytes;
	return (0);
}

int
ctl_open(struct mkv_rail *r)
{
	uint32_t n = 64, conns = r->f->conf.connections_max + FRONT_SPARE_CONNS;
	struct mkv_ctl *k = calloc(1, sizeof(*k));
	int e;

	if ((r->ctl = k) == NULL)
		return (MKV_E_NOMEM);
	k->fd = -1;
	mkv_list_init(&k->free);
	mkv_list_init(&k->wait);
	while (n < conns)
		n *= 2;
	k->mask = n - 1;
	k->msgs = calloc(CTL_MSGS, sizeof(k->msgs[0]));		/* pages that no message ever lay in cost nothing */
	k->bucket = calloc(n, sizeof(k->bucket[0]));
	if (k->msgs == NULL || k->bucket == NULL)
		return (MKV_E_NOMEM);
	if ((e = mkv_answer_pool_open(&k->answers, CTL_ANSWERS)) == 0 && (e = batch_open(&k->in, MKV_WIRE_RDMA_BYTES)) == 0)
		e = batch_open(&k->out, CTL_OUT_BYTES);
	return (e);
}

void
ctl_close(struct mkv_rail *r)
{
	struct mkv_ctl *k = r->ctl;

	if (k == NULL)
		return;
	if (k->fd >= 0)
		(void)close(k->fd);
	mkv_answer_pool_close(&k->answers);
	free(k->in.slab);
	free(k->out.slab);
	free(k->bucket);
	free(k->msgs);
	free(k);
	r->ctl = NULL;
}

int
mkv_rail_listen(struct mkv_rail *r, const uint8_t ip[16], uint16_t port)
{
	struct mkv_addr own;
	int fd;

	mkv_addr_make(&own, ip, port);
	if ((fd = mkv_udp_bind(&own)) < 0)
		return (fd);
	r->ctl->fd = fd;
	return (fd);
}

void
mkv_rail_readable(struct mkv_rail *r)
{
	r->ctl->ready = 1;
}

/* ---- Memory of messages ---------------------------------------------------------------------------------------------------- */

static int
msgs_are_left(const struct mkv_ctl *k)
{
	return (k->n_out < CTL_MSGS);
}

struct ctl_msg *
ctl_msg_take(struct mkv_rail *r)
{
	struct mkv_ctl *k = r->ctl;
	struct mkv_list *l;

	if (!msgs_are_left(k))
		return (NULL);
	k->n_out++;
	if ((l = mkv_list_pop(&k->free)) != NULL)
		return (MKV_CONTAINER_OF(l, struct ctl_msg, link));
	mkv_list_init(&k->msgs[k->n_used].link);
	return (&k->msgs[k->n_used++]);
}

void
ctl_msg_back(struct mkv_rail *r, struct ctl_msg *m)
{
	if (m->ch != NULL) {
		MKV_ASSERT(m->ch->msg_bytes >= m->bytes);
		m->ch->msg_bytes -= m->bytes;
	}
	m->ch = NULL;
	mkv_list_push_head(&r->ctl->free, &m->link);
	r->ctl->n_out--;
}

/* As many as there is memory for: one that was woken before may be gone, or have needed none. */
void
ctl_wake(struct mkv_rail *r)
{
	uint32_t n = CTL_MSGS - r->ctl->n_out;
	struct mkv_list *l;

	for (; n > 0 && (l = mkv_list_pop(&r->ctl->wait)) != NULL; n--)
		mkv_conn_kick(MKV_CONTAINER_OF(l, struct mkv_conn, msg_link));
}

void
ctl_msg_segs(struct ctl_msg *m, struct mkv_remote *to)
{
	if ((const uint8_t *)to->seg >= m->u.buf && (const uint8_t *)to->seg < m->u.buf + sizeof(m->u.buf))
		return;					/* a datagram, which lies there as it is */
	memcpy(m->u.seg, to->seg, to->n_seg * sizeof(to->seg[0]));
	to->seg = m->u.seg;
}

/* ---- Sessions -------------------------------------------------------------------------------------------------------------- */

static struct mkv_chan **
ctl_bucket(struct mkv_ctl *k, uint64_t session)
{
	return (&k->bucket[(session ^ session >> 32) & k->mask]);	/* they are random */
}

struct mkv_chan *
ctl_find(struct mkv_rail *r, uint64_t session, uint16_t channel)
{
	struct mkv_chan *ch = *ctl_bucket(r->ctl, session);

	while (ch != NULL && (ch->c->s.id != session || ch->number != channel))
		ch = ch->next;
	return (ch);
}

/* A unix socket. */
static int
conn_has_no_ip(const struct mkv_conn *c)
{
	static const uint8_t none[sizeof(c->who.addr)];

	return (memcmp(c->who.addr, none, sizeof(none)) == 0);
}

int
ctl_may(const struct mkv_conn *c, const struct mkv_wire_attach *w)
{
	const int udp = mkv_wire_carrier(w) == MKV_WIRE_CONTROL_UDP;

	/* Without a tether: who is found by what a message says, and costs no queue pair. */
	if ((w->control & MKV_WIRE_CONTROL_LOOSE) != 0 && (!udp || w->transport != MKV_FEATURE_RDMA_DC))
		return (0);
	return (!udp || (c->f->rail->ctl->fd >= 0 && !conn_has_no_ip(c)));
}

void
ctl_attach(struct mkv_chan *ch, const struct mkv_wire_attach *w)
{
	struct mkv_ctl *k = ch->rail->ctl;
	struct mkv_chan **b;

	ch->control = (uint8_t)mkv_wire_carrier(w);
	ch->loose = (w->control & MKV_WIRE_CONTROL_LOOSE) != 0;
	ch->heard_ns = mkv_now_ns();
	memset(&ch->window, 0, sizeof(ch->window));
	mkv_answers_init(&ch->answers);
	if (ch->control != MKV_WIRE_CONTROL_UDP && !ch->dc)
		return;
	mkv_addr_make(&ch->peer, ch->c->who.addr, w->udp_port);
	b = ctl_bucket(k, ch->c->s.id);
	ch->next = *b;
	*b = ch;
}

uint16_t
ctl_port(const struct mkv_chan *ch)
{
	int port = ch->control == MKV_WIRE_CONTROL_UDP ? mkv_udp_port(ch->rail->ctl->fd) : 0;

	return ((uint16_t)MKV_MAX(port, 0));
}

void
ctl_detach(struct mkv_chan *ch)
{
	struct mkv_chan **b;
	struct mkv_list *l;

	while ((l = mkv_list_pop(&ch->outs)) != NULL)
		out_end(MKV_CONTAINER_OF(l, struct mkv_out, link), MKV_E_CLOSED);
	mkv_list_remove(&ch->dirty);
	mkv_answers_fini(&ch->answers, &ch->rail->ctl->answers);
	if (ch->control != MKV_WIRE_CONTROL_UDP && !ch->dc)
		return;
	for (b = ctl_bucket(ch->rail->ctl, ch->c->s.id); *b != NULL; b = &(*b)->next)
		if (*b == ch) {
			*b = ch->next;
			return;
		}
}

/* ---- Answers out ----------------------------------------------------------------------------------------------------------- */

static void
ctl_flush(struct mkv_rail *r)
{
	struct ctl_batch *b = &r->ctl->out;

	if (b->n != 0)
		mkv_metric_add(r->f->m, MKV_M_front_datagrams_sent_total, 0, mkv_udp_send_all(r->ctl->fd, b->msg, b->n));
	b->n = 0;
}

static void
ctl_datagram_out(struct mkv_chan *ch, const struct mkv_hdr *from, const void *body)
{
	struct ctl_batch *b = &ch->rail->ctl->out;
	struct mkv_udp_msg *m;
	struct mkv_hdr *h;

	if (b->n == MKV_UDP_BATCH)
		ctl_flush(ch->rail);
	m = &b->msg[b->n++];
	h = m->buf;
	MKV_ASSERT(sizeof(*h) + from->body_bytes <= CTL_OUT_BYTES);
	*h = *from;
	if (h->body_bytes != 0)
		memcpy(h + 1, body, h->body_bytes);
	h->session_id = ch->c->s.id;
	h->counter = ++ch->counter_out;
	h->channel = ch->number;
	h->credits = ch->credits;
	if (mkv_mac_sign(ch->mac_out, h, MKV_WIRE_SIGNED_BYTES, h + 1, h->body_bytes, h->mac) != 0)
		memset(h->mac, 0, sizeof(h->mac));	/* the client drops it */
	m->bytes = (uint32_t)sizeof(*h) + h->body_bytes;
	m->addr = ch->peer;
}

/*
 * By the tether, as that sends its own: o is the stream's until it is done. A client that has given its tether up hears the same by a datagram; if that is lost it
 * asks again, and the answer is kept.
 */
int
ctl_tell(struct mkv_chan *ch, struct mkv_out *o)
{
	o->n_pay = 0;				/* it went by the line */
	o->busy = 0;
	if (ch->c->state == CONN_LOOSE) {
		ctl_datagram_out(ch, &o->hdr, o->body);
		return (0);
	}
	mkv_conn_send(ch->c, o);
	return (1);
}

static void
ctl_tether_out(struct mkv_chan *ch, struct mkv_out *o)
{
	if (!ctl_tell(ch, o))
		out_end(o, 0);
}

void
ctl_keep(struct mkv_chan *ch, const struct mkv_out *o)
{
	if (ch->control == MKV_WIRE_CONTROL_UDP && (o->hdr.flags & MKV_WIRE_F_MORE) == 0)
		mkv_answers_keep(&ch->answers, &ch->rail->ctl->answers, o->hdr.request_id, &o->hdr, o->body);
}

void
ctl_out(struct mkv_chan *ch, struct mkv_out *o)
{
	if (ch->state != CHAN_OPEN || !mkv_conn_alive(ch->c)) {
		out_end(o, MKV_E_CLOSED);
		return;
	}
	ctl_keep(ch, o);
	if (o->carrier == MKV_WIRE_CONTROL_TCP) {
		ctl_tether_out(ch, o);
		return;
	}
	ctl_datagram_out(ch, &o->hdr, o->body);
	out_end(o, 0);
}

/* The line broke in front of it. Its client has to be told: by the tether, since what else there is may be as silent as the line. */
void
ctl_lost(struct mkv_chan *ch, struct mkv_out *o)
{
	if (o->carrier == MKV_WIRE_CONTROL_RDMA || !mkv_conn_alive(ch->c) || (ch->c->state == CONN_LOOSE && ch->state != CHAN_OPEN)) {
		out_end(o, MKV_E_CLOSED);
		return;
	}
	o->hdr.flags = MKV_WIRE_F_REPLY;
	o->hdr.body_bytes = 0;
	o->hdr.payload_bytes = 0;
	o->pay_bytes = 0;
	o->hdr.status = (uint16_t)-MKV_E_CLOSED;
	o->hdr.reason = ch->state == CHAN_OPEN ? MKV_REASON_PATH : MKV_REASON_NONE;	/* DC: an initiator alone */
	if (ch->state == CHAN_OPEN)
		ctl_keep(ch, o);
	ctl_tether_out(ch, o);
}

/* Without data in front of it: in this turn, but not from inside its request's step. */
void
ctl_out_soon(struct mkv_chan *ch, struct mkv_out *o)
{
	mkv_list_push_tail(&ch->outs, &o->link);
	if (mkv_list_empty(&ch->dirty))
		mkv_list_push_tail(&ch->rail->ctl_dirty, &ch->dirty);
}

void
ctl_pump(struct mkv_rail *r)
{
	struct mkv_list *c, *l;

	while ((c = mkv_list_pop(&r->ctl_dirty)) != NULL) {
		struct mkv_chan *ch = MKV_CONTAINER_OF(c, struct mkv_chan, dirty);

		while ((l = mkv_list_pop(&ch->outs)) != NULL)
			ctl_out(ch, MKV_CONTAINER_OF(l, struct mkv_out, link));
	}
	ctl_flush(r);
}

/* ---- What comes again ------------------------------------------------------------------------------------------------------ */

static void
note_sent(struct mkv_out *o, int res MKV_UNUSED)
{
	struct ctl_msg *m = o->owner;

	MKV_ASSERT(m->ch->n_notes > 0);
	m->ch->n_notes--;
	ctl_msg_back(m->rail, m);
}

/*
 * An answer that no request stands behind any more. Without memory for it: lost; a client that hears nothing by the tether ends the channel. One that asks again and
 * again and reads nothing must not have the memory of all.
 */
static void
ctl_say(struct mkv_chan *ch, uint8_t carrier, const struct mkv_hdr *h, const void *body)
{
	struct ctl_msg *m;
	struct mkv_out *o;

	if (carrier == MKV_WIRE_CONTROL_UDP || ch->c->state == CONN_LOOSE) {
		ctl_datagram_out(ch, h, body);
		return;
	}
	if (ch->n_notes == CHAN_NOTES_MAX || (m = ctl_msg_take(ch->rail)) == NULL)
		return;
	ch->n_notes++;
	m->rail = ch->rail;
	m->ch = ch;
	m->bytes = 0;
	o = &m->u.note.out;
	memset(o, 0, sizeof(*o));
	mkv_list_init(&o->link);
	o->hdr = *h;
	MKV_ASSERT(h->body_bytes <= sizeof(m->u.note.body));
	if (h->body_bytes != 0)
		memcpy(m->u.note.body, body, h->body_bytes);
	o->body = m->u.note.body;
	o->owner = m;
	o->done = note_sent;
	o->until_ns = mkv_now_ns() + CONN_TX_GRACE_NS;
	ctl_tether_out(ch, o);
}

void
ctl_ack(struct mkv_chan *ch, const struct mkv_req *r)
{
	const struct mkv_hdr h = { .magic = MKV_WIRE_MAGIC, .version = MKV_WIRE_VERSION, .op = r->op, .flags = MKV_WIRE_F_REPLY | MKV_WIRE_F_MORE,
		.request_id = r->id };

	ctl_say(ch, r->carrier, &h, NULL);
}

static struct mkv_hdr
ctl_end_of(const struct mkv_hdr *q, int status)
{
	struct mkv_hdr h = *q;

	h.flags = MKV_WIRE_F_REPLY;
	h.body_bytes = 0;
	h.payload_bytes = 0;
	h.deadline_us = 0;
	h.status = (uint16_t)-status;
	h.reason = MKV_REASON_NONE;
	return (h);
}

/* It may have been done: the client asks anew, by another number. */
static void
ctl_say_again(struct mkv_chan *ch, uint8_t carrier, const struct mkv_hdr *q)
{
	const struct mkv_hdr h = ctl_end_of(q, MKV_E_RETRY);

	ctl_say(ch, carrier, &h, NULL);
}

/* By the tether, in front of whatever it says of another channel. A client that does not hear it asks by a PING before it has waited long. */
void
ctl_say_broken(struct mkv_chan *ch)
{
	const struct mkv_hdr h = { .magic = MKV_WIRE_MAGIC, .version = MKV_WIRE_VERSION, .op = MKV_WIRE_DETACH, .flags = MKV_WIRE_F_REPLY,
		.status = (uint16_t)-MKV_E_CLOSED };

	if (mkv_conn_alive(ch->c))
		ctl_say(ch, MKV_WIRE_CONTROL_TCP, &h, NULL);
}

void
ctl_say_cancelled(struct mkv_chan *ch, const struct chan_held *m)
{
	const struct mkv_hdr h = ctl_end_of(held_hdr(m), MKV_E_CANCELLED);

	mkv_answers_keep(&ch->answers, &ch->rail->ctl->answers, h.request_id, &h, NULL);
	ctl_say(ch, m->carrier, &h, NULL);
}

/* Its answer is to leave by the tether, also what of it waits for its data. */
static void
ctl_move(struct mkv_req *r)
{
	r->carrier = MKV_WIRE_CONTROL_TCP;
	r->out.carrier = MKV_WIRE_CONTROL_TCP;
	for (unsigned i = 0; i < REQ_PARTS; i++)
		r->part[i].out.carrier = MKV_WIRE_CONTROL_TCP;
}

/* It waits. By the tether it comes once more because its client hears nothing: the answer goes there. */
static int
ctl_is_held(const struct mkv_chan *ch, uint8_t carrier, uint64_t id)
{
	MKV_LIST_FOREACH(it, &ch->held) {
		struct chan_held *m = MKV_CONTAINER_OF(it, struct chan_held, link);

		if (held_hdr(m)->request_id != id || m->over)
			continue;
		m->carrier = carrier;
		return (1);
	}
	return (0);
}

/* Of a value in parts: they have one number, go by the tether alone, and each comes once, also when the client has tried the value before. */
static int
ctl_is_part(const struct mkv_hdr *h, const uint8_t *body)
{
	const struct mkv_wire_put *w = (const struct mkv_wire_put *)(const void *)body;

	if (h->op != MKV_WIRE_PUT)
		return (0);
	return ((h->flags & (MKV_WIRE_F_MORE | MKV_WIRE_F_ABORT)) != 0 || (h->body_bytes >= sizeof(*w) && w->part_off != 0));
}

/* 1: the message has been seen to; 0: it is new. */
static int
ctl_came_before(struct mkv_chan *ch, uint8_t carrier, const struct mkv_hdr *h, const uint8_t *body)
{
	struct mkv_req *r = mkv_req_find(ch->rail->f, ch->c, h->request_id);
	int is_here = r != NULL || ctl_is_held(ch, carrier, h->request_id);
	const struct mkv_answer *a;
	enum mkv_seen seen = mkv_answers_look(&ch->answers, h->request_id, &a);

	if (seen == MKV_SEEN_DONE)
		ctl_say(ch, carrier, &a->h, a->body);
	if (seen == MKV_SEEN_DONE || seen == MKV_SEEN_ACKED)
		return (1);
	/* What is here is not forgotten, whatever became of others that began after it: its client must not take it for done while it moves data. */
	if (seen == MKV_SEEN_FORGOTTEN && !is_here) {
		ctl_say_again(ch, carrier, h);
		return (1);
	}
	if (carrier == MKV_WIRE_CONTROL_TCP && ((h->flags & MKV_WIRE_F_RESEND) == 0 || ctl_is_part(h, body)))
		return (0);
	if (r != NULL && carrier == MKV_WIRE_CONTROL_TCP)
		ctl_move(r);
	return (is_here);
}

void
ctl_over(struct mkv_chan *ch, uint64_t id)
{
	const struct mkv_answer *a;

	if (ch->control == MKV_WIRE_CONTROL_UDP && mkv_answers_look(&ch->answers, id, &a) == MKV_SEEN_NEW)
		mkv_answers_keep(&ch->answers, &ch->rail->ctl->answers, id, NULL, NULL);
}

/* ---- Datagrams in ---------------------------------------------------------------------------------------------------------- */

/* 0 and the channel; or what counts those that are dropped for this. */
static enum mkv_metric
ctl_check(struct mkv_rail *rail, const struct mkv_udp_msg *m, struct mkv_chan **out)
{
	const struct mkv_hdr *h = m->buf;
	struct mkv_chan *ch;

	if (m->bytes < sizeof(*h) || mkv_wire_hdr_check(h, 0, 1) != 0 || h->body_bytes != m->bytes - sizeof(*h) ||
	    ((h->flags & MKV_WIRE_F_REMOTE) == 0 && h->payload_bytes != 0))
		return (MKV_M_front_datagrams_malformed_total);
	if ((ch = ctl_find(rail, h->session_id, h->channel)) == NULL || ch->control != MKV_WIRE_CONTROL_UDP)
		return (MKV_M_front_datagrams_unknown_total);
	if (!mkv_addr_is(&m->addr, &ch->peer))
		return (MKV_M_front_datagrams_foreign_total);
	if (mkv_mac_check(ch->mac_in, h, MKV_WIRE_SIGNED_BYTES, h + 1, h->body_bytes, h->mac) != 0)
		return (MKV_M_front_datagrams_forged_total);
	if (!mkv_window_take(&ch->window, h->counter))
		return (MKV_M_front_datagrams_replayed_total);
	*out = ch;
	return (MKV_M_front_datagrams_received_total);
}

/*
 * Its client has given the channel up, and without a tether that is the session's end. It needs no request, and so waits for nothing that others have; said twice, the
 * second one is of no channel.
 */
static void
ctl_goodbye(struct mkv_chan *ch, const struct mkv_hdr *q)
{
	const struct mkv_hdr h = ctl_end_of(q, 0);

	ctl_datagram_out(ch, &h, NULL);
	chan_break(ch, NULL);
}

static void
ctl_datagram(struct mkv_rail *rail, const struct mkv_udp_msg *m)
{
	const struct mkv_hdr *h = m->buf;
	struct mkv_chan *ch = NULL;
	enum mkv_metric what = ctl_check(rail, m, &ch);
	struct ctl_msg *keep;

	mkv_metric_add(rail->f->m, what, 0, 1);
	if (ch == NULL)
		return;
	ch->heard = 1;
	ch->heard_ns = mkv_now_ns();
	if (h->op == MKV_WIRE_DETACH) {
		ctl_goodbye(ch, h);
		return;
	}
	mkv_answers_ack(&ch->answers, &rail->ctl->answers, h->request_id, h->ack_below);
	if (ctl_came_before(ch, MKV_WIRE_CONTROL_UDP, h, (const uint8_t *)(h + 1))) {
		mkv_metric_add(rail->f->m, MKV_M_front_datagrams_repeated_total, 0, 1);
		return;
	}
	if (ch->n_held == CHAN_HELD_MAX || ch->msg_bytes + m->bytes > CHAN_MSG_BYTES_MAX || (keep = ctl_msg_take(rail)) == NULL) {
		mkv_metric_add(rail->f->m, MKV_M_front_datagrams_crowded_total, 0, 1);
		return;
	}
	memcpy(keep->u.buf, m->buf, m->bytes);
	keep->rail = rail;
	keep->ch = ch;
	keep->bytes = m->bytes;
	ch->msg_bytes += m->bytes;
	chan_take(ch, &(struct chan_held){ .msg = keep, .carrier = MKV_WIRE_CONTROL_UDP });
}

unsigned
ctl_turn(struct mkv_rail *r)
{
	struct mkv_ctl *k = r->ctl;
	unsigned sum = 0;

	for (unsigned i = 0; i < CTL_TURN_BATCHES && k->ready; i++) {
		int n = mkv_udp_recv(k->fd, k->in.msg, MKV_UDP_BATCH, MKV_WIRE_RDMA_BYTES);

		k->ready = n == (int)MKV_UDP_BATCH;
		for (int j = 0; j < n && !r->f->stopping; j++)
			ctl_datagram(r, &k->in.msg[j]);
		sum += n > 0 ? (unsigned)n : 0;
	}
	return (sum);
}

/* 1: more may wait, or somebody who waits need not any more. */
int
ctl_busy(const struct mkv_rail *r)
{
	return (r->ctl->ready || (!mkv_list_empty(&r->ctl->wait) && msgs_are_left(r->ctl)));
}

/* ---- Frames of the tether -------------------------------------------------------------------------------------------------- */

/*
 * The channel broke while it was on its way. A further part of one of its requests, which has its answer and is not gone yet, is nothing any more. To a request
 * of the stream it cannot belong: that would take memory's segments for bytes that have come.
 */
static enum mkv_take
frame_without_channel(struct mkv_conn *c, const struct mkv_hdr *h, const uint8_t *body)
{
	const struct mkv_req *r = mkv_req_find(c->f, c, h->request_id);
	struct mkv_remote none = { .lost = 1 };
	enum mkv_take t;

	if (r != NULL)
		return (r->channel != 0 ? MKV_TAKE_DONE : MKV_TAKE_BREAK);
	c->remote = &none;
	t = mkv_req_dispatch(c, h, body);
	c->remote = NULL;
	return (t);
}

enum mkv_take
mkv_chan_frame(struct mkv_conn *c, const struct mkv_hdr *h, const uint8_t *body)
{
	struct mkv_rail *rail = c->f->rail;
	struct mkv_chan *ch = rail == NULL ? NULL : &rail->chans[c->idx];
	struct mkv_remote remote = { .n_seg = 0 };
	enum mkv_take t;

	if (ch == NULL || (h->op != MKV_WIRE_PUT && h->op != MKV_WIRE_GET && h->op != MKV_WIRE_CANCEL && h->op != MKV_WIRE_PING))
		return (MKV_TAKE_BREAK);
	if (ch->state != CHAN_OPEN)
		return (frame_without_channel(c, h, body));
	if (ch->control == MKV_WIRE_CONTROL_RDMA)
		return (MKV_TAKE_BREAK);
	/* Also for the answer to one that came before: it comes by the tether for the last time. */
	if (!msgs_are_left(rail->ctl)) {
		if (mkv_list_empty(&c->msg_link))
			mkv_list_push_tail(&rail->ctl->wait, &c->msg_link);
		return (MKV_TAKE_HOLD);
	}
	if (ch->control == MKV_WIRE_CONTROL_UDP && ctl_came_before(ch, MKV_WIRE_CONTROL_TCP, h, body))
		return (MKV_TAKE_DONE);
	remote.msg = ctl_msg_take(rail);
	remote.msg->rail = rail;
	c->remote = &remote;
	c->remote_channel = ch->number;
	c->remote_carrier = MKV_WIRE_CONTROL_TCP;
	t = mkv_req_dispatch(c, h, body);
	c->remote = NULL;
	c->remote_channel = 0;
	c->remote_carrier = 0;
	if (remote.line != NULL)
		line_rest(remote.line);
	if (remote.msg != NULL)
		ctl_msg_back(rail, remote.msg);
	return (t);
}
