/*
 * Messages out on a queue pair: requests with their segments, CANCEL, PING.
 *
 * The loop's thread. Owns the slots; a message is made in the hub's frame and copied by the queue pair.
 * Invariants: no more requests without an answer than the far end gave credits for, and a CANCEL and a PING beyond them; no more answers can come than the hub
 * has receives; counters rise by one; of a put at most RAIL_PUT_PARTS parts are without an answer.
 * Fails: a request whose memory cannot go this way goes by a connection (transport `rdma`: it ends, MKV_E_UNSUPPORTED).
 */
#include "config.h"

#include <string.h>

#include "clients/lib/rail_priv.h"
#include "common/base/clock.h"

#define OURS_MOST		2u		/* the far end takes so many beyond the credits */

/* ---- slots ---- */

static struct loop *
rail_loop(const struct rail *r)
{
	return (r->c->srv->loop);
}

static struct rail_slot *
slot_take(struct rail *r, struct leg *l, uint8_t op)
{
	struct mkv_list *n = mkv_list_pop(&r->free);
	struct rail_slot *s;

	if (n == NULL)
		return (NULL);
	s = MKV_CONTAINER_OF(n, struct rail_slot, link);
	s->id = ++r->c->sequence << 8 | (uint64_t)(s - r->slot);
	s->leg = l;
	s->op = op;
	s->cancelled = s->overtaken = 0;
	s->ours_for = 0;
	s->unanswered = s->owed = 0;
	s->sent_ns = 0;
	s->cancel_ns = s->fence_ns = s->again_ns = UINT64_MAX;
	s->ended_ns = rail_loop(r)->now_ns;
	mkv_list_push_tail(&r->out, &s->link);
	r->n_out++;
	return (s);
}

struct rail_slot *
mkv_rail_slot(struct rail *r, uint64_t id)
{
	struct rail_slot *s = &r->slot[id % RAIL_SLOTS];

	return (id != 0 && s->id == id ? s : NULL);
}

void
mkv_rail_answered(struct rail *r, struct rail_slot *s, unsigned msgs)
{
	unsigned owed = msgs == s->unanswered ? s->owed : MKV_MIN(msgs, s->owed);

	MKV_ASSERT(msgs <= s->unanswered && r->n_msgs >= msgs && r->hub->owed >= owed);
	s->unanswered -= msgs;
	s->owed -= owed;
	r->n_msgs -= msgs;
	r->n_ours -= s->op == MKV_WIRE_PING || s->op == MKV_WIRE_CANCEL ? msgs : 0;
	r->hub->owed -= owed;
}

struct leg *
mkv_rail_slot_free(struct rail *r, struct rail_slot *s)
{
	struct leg *l = s->leg;

	MKV_ASSERT(s->id != 0 && r->n_out > 0);
	mkv_ctl_forget(r, s);
	mkv_rail_mem_drop(r, s);
	mkv_rail_answered(r, s, s->unanswered);
	mkv_list_remove(&s->cancel);
	mkv_list_remove(&s->link);
	mkv_list_push_tail(&r->free, &s->link);
	r->n_out--;
	if (r->ping == s)
		r->ping = NULL;
	s->id = 0;
	s->leg = NULL;
	if (l != NULL) {
		mkv_list_remove(&l->link);
		l->rslot = NULL;
	}
	return (l);
}

/* ---- sending ---- */

/* The timer of a live rail, no later than that. */
void
mkv_rail_due(struct rail *r, uint64_t at_ns)
{
	if (r->state == RAIL_LIVE && (r->timer.heap_idx == 0 || r->timer.at_ns > at_ns))
		mkv_timer_arm(&rail_loop(r)->timers, &r->timer, at_ns);
}

uint32_t
mkv_rail_ack_below(const struct rail *r, const struct mkv_hdr *h)
{
	const struct mkv_list *oldest = r->out.next;

	return (oldest == &r->out ? (uint32_t)h->request_id : (uint32_t)MKV_CONTAINER_OF(oldest, struct rail_slot, link)->id);
}

/* The first PING goes by the queue pair in any case: it proves that way for the bytes. */
static int
tx_by_ctl(const struct rail *r)
{
	return (r->ctl.by != MKV_WIRE_CONTROL_RDMA && r->state == RAIL_LIVE);
}

static void
tx_message(struct rail *r, struct rail_slot *s, struct mkv_hdr *h, unsigned owed)
{
	struct iovec v = { .iov_base = h, .iov_len = sizeof(*h) + h->body_bytes };

	s->sent_ns = rail_loop(r)->now_ns;
	if (tx_by_ctl(r)) {
		mkv_ctl_send(r, s, h);
		owed = 0;
	} else {
		h->session_id = r->session_id;
		h->channel = r->channel;
		h->counter = ++r->tx_counter;
		h->ack_below = mkv_rail_ack_below(r, h);
		if (mkv_mac_sign(r->mac_tx, h, MKV_WIRE_SIGNED_BYTES, (uint8_t *)(h + 1), h->body_bytes, h->mac) != 0)
			memset(h->mac, 0, sizeof(h->mac));	/* the server refuses it */
		mkv_rdma_qp_send(r->qp, &v, 1, 0, NULL);
	}
	s->unanswered++;
	s->owed += owed;
	r->n_msgs++;
	r->hub->owed += owed;
	rail_loop(r)->dirty = 1;			/* the doorbell */
	mkv_rail_due(r, s->sent_ns + RAIL_QUIET_NS);
}

static int
tx_may(const struct rail *r, unsigned owed)
{
	if (r->n_msgs - r->n_ours >= r->credits || mkv_rdma_qp_send_room(r->qp) <= OURS_MOST || !mkv_ctl_has_room(r))
		return (0);
	return (r->hub->owed == 0 || r->hub->owed + owed + OURS_MOST * HUB_RAILS_MOST <= HUB_RECVS);
}

/* PING, CANCEL. 0: no room. */
static int
tx_ours(struct rail *r, uint8_t op, uint64_t about)
{
	struct mkv_hdr *h = (struct mkv_hdr *)r->hub->frame;
	struct mkv_wire_cancel *w = (struct mkv_wire_cancel *)(h + 1);
	struct rail_slot *s;

	if (r->n_ours >= OURS_MOST || mkv_rdma_qp_send_room(r->qp) == 0 || !mkv_ctl_has_room(r) || (s = slot_take(r, NULL, op)) == NULL)
		return (0);
	s->ours_for = about;
	mkv_conn_header(h, op, s->id, RAIL_OURS_US);
	if (op == MKV_WIRE_CANCEL) {
		h->body_bytes = sizeof(*w);
		memset(w, 0, sizeof(*w));
		w->request_id = about;
	} else {
		r->ping = s;
	}
	r->n_ours++;
	tx_message(r, s, h, 1);
	return (1);
}

void
mkv_rail_ping(struct rail *r)
{
	(void)tx_ours(r, MKV_WIRE_PING, 0);
}

/* Sent now if there is room, else by mkv_rail_tx(). */
void
mkv_rail_cancel(struct rail *r, struct rail_slot *s)
{
	s->cancel_ns = UINT64_MAX;
	if (s->cancelled)
		return;
	s->cancelled = 1;
	if (!tx_ours(r, MKV_WIRE_CANCEL, s->id))
		mkv_list_push_tail(&r->cancels, &s->cancel);
}

/* ---- requests ---- */

/* How many answers a message of it brings. */
static unsigned
tx_owed(const struct rail *r, const struct leg *l)
{
	if (l->wire_op == MKV_WIRE_PUT)
		return (1);
	return ((unsigned)MKV_MIN(mkv_get_room(l->op) / r->c->part_bytes + 2, HUB_RECVS / 2));
}

/* Not this way: by a connection, or not at all. */
static void
tx_refuse(struct rail *r, struct rail_slot *s)
{
	struct leg *l = mkv_rail_slot_free(r, s);

	client_count(l->op->c, CC_rdma_refused_total, 1);
	l->no_rail = 1;
	mkv_leg_elsewhere(l);
}

static unsigned
tx_segs_max(const struct rail *r, const struct mkv_hdr *h)
{
	uint32_t most = MKV_MIN(r->peer_bytes - MKV_WIRE_HDR_BYTES, mkv_wire_op_row(h->op)->body_max);

	return (h->body_bytes >= most ? 0 : MKV_MIN((most - h->body_bytes) / (uint32_t)sizeof(struct mkv_wire_seg), MKV_WIRE_SEGS_MAX));
}

/* The next message of s is made in the frame: 0, or it does not fit. The op is lent. */
static int
tx_encode(struct rail *r, struct rail_slot *s, struct mkv_hdr *h)
{
	struct leg *l = s->leg;
	uint8_t *body = (uint8_t *)(h + 1);
	uint64_t off = l->tx_off, bytes;
	unsigned n;

	mkv_conn_header(h, l->wire_op, s->id, mkv_leg_left_us(l));
	mkv_frame_encode(l, h, body, r->c->part_bytes);
	bytes = l->wire_op == MKV_WIRE_PUT ? l->frame_left : mkv_get_room(l->op);
	if (l->wire_op == MKV_WIRE_PUT && s->bounce != NULL)
		mkv_rail_mem_fill(s, bytes);
	if ((n = mkv_rail_mem_segs(r, s, off, bytes, (struct mkv_wire_seg *)(void *)(body + h->body_bytes), tx_segs_max(r, h))) == 0)
		return (MKV_E_TOOBIG);
	h->flags |= MKV_WIRE_F_REMOTE;			/* a put says how much is there, of a get the segments do */
	h->body_bytes += n * (uint32_t)sizeof(struct mkv_wire_seg);
	if (l->wire_op == MKV_WIRE_PUT)
		mkv_frame_took(l, bytes);
	return (0);
}

/* When CANCEL must go out so that its answer is here by the deadline. */
static void
tx_deadline(struct rail *r, struct rail_slot *s)
{
	const struct op *o = s->leg->op;
	uint64_t margin = MKV_MAX(MKV_MAX(RAIL_MARGIN_NS, 2 * r->srtt_ns), mkv_ctl_margin(r)), left = o->deadline_ns - MKV_MIN(o->deadline_ns, rail_loop(r)->now_ns);

	s->cancel_ns = o->deadline_ns - MKV_MIN(margin, left / 4);
	mkv_rail_due(r, s->cancel_ns);
}

static void
tx_out(struct rail *r, struct rail_slot *s)
{
	struct leg *l = s->leg;

	if (l->sent_ns == 0)
		mkv_hist_add(&l->op->c->counters.stage[CS_QUEUE], l->op->loop->now_ns - l->op->start_ns);
	l->sent_ns = l->op->loop->now_ns;
	if (l->last_begun) {
		mkv_leg_set_state(l, LEG_SENT);
	} else {
		mkv_leg_set_state(l, LEG_QUEUED);
		if (s->unanswered < RAIL_PUT_PARTS)
			mkv_list_push_tail(&r->txq, &l->link);
	}
}

/* One message of l, whose op is lent already if it is not the first. 1: done; 0: nothing more goes now. */
static int
tx_leg(struct rail *r, struct rail_slot *s)
{
	struct mkv_hdr *h = (struct mkv_hdr *)r->hub->frame;
	struct leg *l = s->leg;
	unsigned owed = tx_owed(r, l);
	uint64_t before = l->tx_off;
	int e = 0;

	if (!s->ready && (e = mkv_rail_mem_take(r, s)) == MKV_E_AGAIN)
		return (0);
	else if (!s->ready && e != 0) {
		tx_refuse(r, s);
		return (1);
	}
	s->ready = 1;
	if (tx_encode(r, s, h) != 0 || !mkv_ctl_fits(r, s, h)) {
		tx_refuse(r, s);
		return (1);
	}
	mkv_list_remove(&l->link);
	mkv_leg_set_state(l, LEG_SENDING);
	if (l->wire_op == MKV_WIRE_PUT)
		client_count(l->op->c, CC_sent_bytes_total, l->tx_off - before);
	if (!s->bounce && before == 0)
		tx_deadline(r, s);
	tx_message(r, s, h, owed);
	tx_out(r, s);
	return (1);
}

/* Lend, send, and take the loan back if the bytes went through a bounce buffer. */
static int
tx_lent(struct rail *r, struct rail_slot *s)
{
	struct op *o = s->leg->op;
	uint64_t id = s->id;
	int more;

	s->lent = 1;
	more = tx_leg(r, s);
	if (s->id == id && s->lent && (s->bounce != NULL || s->unanswered == 0)) {
		s->lent = 0;
		mkv_op_unlend(o);
	}
	return (more);
}

/* The next leg whose caller is still there, lent. */
static struct rail_slot *
tx_next(struct rail *r)
{
	MKV_LIST_FOREACH(it, &r->txq) {
		struct leg *l = MKV_CONTAINER_OF(it, struct leg, link);

		if (l->rslot->lent || mkv_op_lend(l->op))
			return (l->rslot);
	}
	return (NULL);
}

static void
tx_leave(struct rail *r)
{
	if (r->alone)
		mkv_rail_tether_down(r->c, MKV_E_CLOSED);
	else
		mkv_conn_fail(r->c, MKV_E_CLOSED);
}

void
mkv_rail_tx(struct rail *r)
{
	struct rail_slot *s;
	struct mkv_list *n;

	if (r->c->leaving && r->n_out == 0 && r->c->n_out == 0)
		tx_leave(r);
	if (r->state != RAIL_LIVE)
		return;
	if (!r->alone && mkv_ctl_may_drop(r)) {
		r->alone = 1;
		mkv_conn_drop(r->c);
		mkv_rail_due(r, rail_loop(r)->now_ns + RAIL_ALIVE_NS);
	}
	while ((n = r->cancels.next) != &r->cancels) {
		s = MKV_CONTAINER_OF(n, struct rail_slot, cancel);
		if (!tx_ours(r, MKV_WIRE_CANCEL, s->id))
			return;
		mkv_list_remove(n);
	}
	while (r->state == RAIL_LIVE && !mkv_list_empty(&r->txq)) {
		const struct leg *first = MKV_CONTAINER_OF(r->txq.next, struct leg, link);

		if (!tx_may(r, tx_owed(r, first)) || (s = tx_next(r)) == NULL || !tx_lent(r, s))
			return;
	}
}

/* ---- for the carrier ---- */

void
mkv_rail_send(struct conn *c, struct leg *l)
{
	struct rail *r = c->rail;

	l->conn = c;
	l->rslot = slot_take(r, l, l->wire_op);
	MKV_ASSERT(l->rslot != NULL && r->state == RAIL_LIVE);
	mkv_leg_set_state(l, LEG_QUEUED);
	mkv_list_push_tail(&r->txq, &l->link);
	rail_loop(r)->dirty = 1;
}

/* The deadline is here, and the far end has not said that it is done: the fence. Where the NIC refuses it, or did so before, the end comes when it has let go. */
static int
detach_fence(struct rail *r, struct rail_slot *s)
{
	int fenced = r->state == RAIL_LIVE && mkv_rail_qp_fence(r);

	if (fenced)
		(void)mkv_rail_slot_free(r, s);
	else
		mkv_list_remove(&s->leg->link);
	if (r->state == RAIL_LIVE) {
		client_count(rail_loop(r)->c, CC_fences_total, 1);
		mkv_rail_break(r, MKV_E_TIMEOUT, "a request was not answered by its deadline");
	}
	return (fenced);
}

/* The answer is nobody's; the server may stop. */
static int
detach_leave(struct rail *r, struct rail_slot *s)
{
	struct leg *l = s->leg;

	mkv_list_remove(&l->link);
	l->rslot = NULL;
	s->leg = NULL;
	s->ended_ns = rail_loop(r)->now_ns;
	mkv_ctl_forget(r, s);
	mkv_rail_cancel(r, s);
	mkv_rail_due(r, s->ended_ns + RAIL_LIMIT_NS);
	return (1);
}

int
mkv_rail_detach(struct leg *l)
{
	struct rail_slot *s = l->rslot;
	struct rail *r = l->conn->rail;
	uint64_t now = rail_loop(r)->now_ns;

	if (s->unanswered == 0 && l->tx_off == 0) {
		(void)mkv_rail_slot_free(r, s);
		return (1);
	}
	if (s->unanswered == 0)
		mkv_rail_mem_drop(r, s);		/* between two parts */
	if (!s->lent)
		return (detach_leave(r, s));
	if (l->op->end_status == MKV_E_TIMEOUT)
		return (detach_fence(r, s));
	mkv_list_remove(&l->link);
	s->fence_ns = MKV_MIN(l->op->deadline_ns, now + RAIL_CANCEL_NS);
	mkv_rail_cancel(r, s);
	mkv_rail_due(r, s->fence_ns);
	return (0);
}
