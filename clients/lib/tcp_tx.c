/*
 * Frames out. One send is on its way at a time; mkv_conn_tx_start() fills the next from the queue of legs.
 *
 * The loop's thread. Owns tx_buf. While tx_lent the kernel reads the caller's memory (struct op is OP_LENT); tx_leg's frame may need several sends.
 * Invariants: frames leave in the order in which they were sealed (counters); a frame that was begun is finished, or the connection ends; ids rise.
 * Fails: a failed send ends the connection.
 */
#include "config.h"

#include <string.h>

#include "clients/lib/tcp_priv.h"
#include "common/base/clock.h"

#define FRAME_ROOM	(MKV_WIRE_HDR_BYTES + MKV_WIRE_BODY_MAX + TX_COPY_MAX)

#define NOTICE_DEADLINE_US 1000000u
#define ATTACH_DEADLINE_US 2000000u		/* the server's kernel may take a second to find our address; as long as the rail waits */

static void	conn_on_sent(struct mkv_io *io, int res);

void
mkv_conn_seal(struct conn *c, struct mkv_hdr *h, const uint8_t *body)
{
	const struct mkv_list *oldest = c->out.next;
	int r;

	h->session_id = c->session_id;
	h->counter = ++c->tx_counter;
	h->ack_below = oldest == &c->out ? (uint32_t)h->request_id : (uint32_t)MKV_CONTAINER_OF(oldest, struct slot, link)->id;
	r = mkv_mac_sign(c->mac_tx, h, MKV_WIRE_SIGNED_BYTES, body, h->body_bytes, h->mac);
	if (r != 0)
		memset(h->mac, 0, sizeof(h->mac));	/* the server refuses it and ends the connection */
}

/* A frame alone, with a descriptor or (-1) none. */
static void
tx_alone(struct conn *c, uint32_t bytes, int fd)
{
	MKV_ASSERT(!c->tx_busy);
	c->tx_busy = 1;
	c->tx_io.done = conn_on_sent;
	c->tx_iov[0] = (struct iovec){ .iov_base = c->tx_buf, .iov_len = bytes };
	c->tx_n = 1;
	if (fd >= 0)
		mkv_ioq_send_fd(c->srv->loop->q, &c->tx_io, MKV_FD(c->fd), c->tx_iov, c->tx_n, fd);
	else
		mkv_ioq_send(c->srv->loop->q, &c->tx_io, MKV_FD(c->fd), c->tx_iov, c->tx_n);
}

void
mkv_conn_tx_raw(struct conn *c, uint32_t bytes)
{
	tx_alone(c, bytes, -1);
}

/* ---- filling a send ---- */

/* Bytes of tx_buf go out in one run with those before them. */
static void
tx_add_buf(struct conn *c, uint32_t bytes)
{
	struct iovec *last = c->tx_n > 0 ? &c->tx_iov[c->tx_n - 1] : NULL;
	uint8_t *at = c->tx_buf + c->tx_used;

	if (last != NULL && (uint8_t *)last->iov_base + last->iov_len == at)
		last->iov_len += bytes;
	else
		c->tx_iov[c->tx_n++] = (struct iovec){ .iov_base = at, .iov_len = bytes };
	c->tx_used += bytes;
}

/* The next frame must be 8-aligned: its structs are made in place. */
static uint8_t *
tx_room(struct conn *c)
{
	uint32_t at = (uint32_t)MKV_ALIGN_UP(c->tx_used, 8);

	if (at + FRAME_ROOM > TX_BUF_BYTES || c->tx_n + 2 > TX_IOV)
		return (NULL);
	c->tx_used = at;
	return (c->tx_buf + at);
}

/* The last part of what ended in the middle: a put is dropped, a list ends here. An answer that still comes is dropped by its number. */
static void
tx_add_end(struct conn *c, struct slot *s, uint8_t *at)
{
	struct mkv_hdr *h = (struct mkv_hdr *)at;
	struct mkv_wire_put *w = (struct mkv_wire_put *)(h + 1);

	mkv_conn_header(h, s->midway, s->id, NOTICE_DEADLINE_US);
	if (s->midway == MKV_WIRE_PUT) {
		h->flags = MKV_WIRE_F_ABORT;
		h->body_bytes = sizeof(*w);
		memset(w, 0, sizeof(*w));
		w->value_bytes = MKV_WIRE_SIZE_UNKNOWN;
	} else {
		h->body_bytes = sizeof(struct mkv_wire_keys);
		memset(w, 0, h->body_bytes);		/* no further keys */
	}
	mkv_conn_seal(c, h, (const uint8_t *)w);
	tx_add_buf(c, (uint32_t)sizeof(*h) + h->body_bytes);
	(void)mkv_slot_release(c, s);
}

/* An answer that nobody waits for and that may be long: ask the server not to send it. */
static void
tx_add_cancel(struct conn *c, struct slot *s, uint8_t *at)
{
	struct mkv_hdr *h = (struct mkv_hdr *)at;
	struct mkv_wire_cancel *w = (struct mkv_wire_cancel *)(h + 1);
	struct slot *own = mkv_slot_take(c, NULL);

	if (own == NULL)
		return;
	mkv_conn_header(h, MKV_WIRE_CANCEL, own->id, NOTICE_DEADLINE_US);
	h->body_bytes = sizeof(*w);
	memset(w, 0, sizeof(*w));
	w->request_id = own->cancels = s->id;
	mkv_conn_seal(c, h, (const uint8_t *)w);
	tx_add_buf(c, sizeof(*h) + sizeof(*w));
}

static void
tx_add_attach(struct conn *c, struct slot *s, uint8_t *at)
{
	struct mkv_hdr *h = (struct mkv_hdr *)at;

	mkv_conn_header(h, MKV_WIRE_ATTACH, s->id, ATTACH_DEADLINE_US);
	h->body_bytes = sizeof(struct mkv_wire_attach);
	mkv_rail_attach_body(c, h + 1);
	mkv_conn_seal(c, h, (const uint8_t *)(h + 1));
	tx_add_buf(c, (uint32_t)sizeof(*h) + h->body_bytes);
}

static void
tx_add_notice(struct conn *c, struct slot *s, uint8_t *at)
{
	mkv_list_remove(&s->notice);
	if (s->attach)
		tx_add_attach(c, s, at);
	else if (s->midway)
		tx_add_end(c, s, at);
	else
		tx_add_cancel(c, s, at);
}

uint64_t
mkv_leg_left_us(const struct leg *l)
{
	const struct op *o = l->op;

	return (o->deadline_ns > o->loop->now_ns ? (o->deadline_ns - o->loop->now_ns) / MKV_NS_PER_US : 1);
}

/* Small payload goes behind the header. The caller's memory is read now, in this thread. */
static int
tx_copy_payload(struct conn *c, struct leg *l)
{
	struct iovec v[TX_IOV];
	unsigned n;
	uint64_t got;

	if (l->frame_left > TX_COPY_MAX)
		return (0);
	if (l->frame_left > 0)
		client_count(l->op->c, CC_sent_bytes_total, l->frame_left);
	while (l->frame_left > 0) {
		n = mkv_frame_payload(l, v, TX_IOV, &got);
		for (unsigned i = 0; i < n; i++) {
			memcpy(c->tx_buf + c->tx_used, v[i].iov_base, v[i].iov_len);
			tx_add_buf(c, (uint32_t)v[i].iov_len);
		}
		mkv_frame_took(l, got);
	}
	return (1);
}

/* What is left of tx_leg's payload, from the caller's memory; the op is lent until the send is over. */
static void
tx_add_payload(struct conn *c)
{
	struct leg *l = c->tx_leg;
	uint64_t got;

	c->tx_n += mkv_frame_payload(l, &c->tx_iov[c->tx_n], TX_IOV - c->tx_n, &got);
	mkv_frame_took(l, got);
	client_count(l->op->c, CC_sent_bytes_total, got);
}

/* One frame of l. 1: the send is full (large payload ends it, or much that was copied into the window). */
static int
tx_add_frame(struct conn *c, struct leg *l, uint8_t *at)
{
	struct mkv_hdr *h = (struct mkv_hdr *)at;
	int small;

	mkv_leg_set_state(l, LEG_SENDING);
	mkv_conn_header(h, l->wire_op, l->slot->id, mkv_leg_left_us(l));
	mkv_ref_choose(c, l);
	mkv_frame_encode(l, h, (uint8_t *)(h + 1), c->part_bytes);
	mkv_ref_frame(l, h, (uint8_t *)(h + 1));
	mkv_conn_seal(c, h, (const uint8_t *)(h + 1));
	tx_add_buf(c, MKV_WIRE_HDR_BYTES + h->body_bytes);
	small = tx_copy_payload(c, l);
	mkv_op_unlend(l->op);
	if (small) {
		mkv_list_push_tail(&c->tx_small, &l->link);
		return (mkv_ref_full(c));
	}
	c->tx_leg = l;
	return (1);
}

/* The next leg whose caller is still there. Encoding reads his memory (CRCs, small payload). */
static struct leg *
tx_lend_next(struct conn *c)
{
	struct leg *l;

	MKV_LIST_FOREACH(it, &c->txq) {
		l = MKV_CONTAINER_OF(it, struct leg, link);
		if (mkv_op_lend(l->op))
			return (l);
	}
	return (NULL);					/* the others' deadline timers fire in this turn or the next */
}

/* What encoding will read is where the CPU can read it. */
static int
tx_stage(struct conn *c, struct leg *l)
{
	struct op *o = l->op;
	uint64_t bytes = MKV_MIN(o->iov_bytes - l->tx_off, c->part_bytes);
	int r;

	if (o->dev == NULL || l->wire_op != MKV_WIRE_PUT || bytes == 0)
		return (0);
	if ((r = mkv_stage_room(&c->tx_stage, o, (uint32_t)bytes)) != 0 || (r = mkv_stage_copy(o, l->tx_off, c->tx_stage.buf, bytes, 0)) != 0)
		return (r);
	l->stage = c->tx_stage.buf;
	l->stage_off = l->tx_off;
	return (0);
}

static struct leg *
tx_next(struct conn *c)
{
	struct leg *l;
	int r;

	while ((l = tx_lend_next(c)) != NULL) {
		if ((r = tx_stage(c, l)) == 0) {
			mkv_list_remove(&l->link);
			return (l);
		}
		mkv_op_unlend(l->op);
		mkv_op_abort(l->op, r);			/* takes it off the queue */
	}
	return (NULL);
}

static void
tx_add_rail_frame(struct conn *c, uint8_t *at)
{
	uint32_t bytes = mkv_ctl_frame(c->rail, at);

	mkv_conn_seal(c, (struct mkv_hdr *)at, at + MKV_WIRE_HDR_BYTES);
	tx_add_buf(c, bytes);
}

static void
tx_fill(struct conn *c)
{
	uint8_t *at;
	struct leg *l;

	while (!mkv_list_empty(&c->notices) && (at = tx_room(c)) != NULL)
		tx_add_notice(c, MKV_CONTAINER_OF(c->notices.next, struct slot, notice), at);
	while (mkv_ctl_has_frames(c) && (at = tx_room(c)) != NULL)
		tx_add_rail_frame(c, at);
	while ((at = tx_room(c)) != NULL && (l = tx_next(c)) != NULL)
		if (tx_add_frame(c, l, at))
			break;
}

void
mkv_conn_tx_start(struct conn *c)
{
	uint32_t bytes;
	int fd;

	if (c->state != CONN_READY || c->tx_busy)
		return;
	if (c->tx_leg == NULL && (bytes = mkv_pass_frame(c, &fd)) > 0) {
		tx_alone(c, bytes, fd);
		return;
	}
	c->tx_n = 0;
	c->tx_used = 0;
	c->ref.copied = 0;
	if (c->tx_leg == NULL)
		tx_fill(c);
	if (c->tx_leg != NULL) {
		if (!mkv_op_lend(c->tx_leg->op)) {
			mkv_conn_fail(c, MKV_E_CLOSED);	/* the caller has left in the middle of his frame */
			return;
		}
		c->tx_lent = 1;
		tx_add_payload(c);
	}
	if (c->tx_n == 0)
		return;
	c->tx_busy = 1;
	c->tx_io.done = conn_on_sent;
	mkv_ioq_send(c->srv->loop->q, &c->tx_io, MKV_FD(c->fd), c->tx_iov, c->tx_n);
}

/* ---- a send is over ---- */

/* A frame of l is in the kernel's hands. */
static void
tx_frame_out(struct conn *c, struct leg *l)
{
	struct op *o = l->op;

	if (l->sent_ns == 0)
		mkv_hist_add(&o->c->counters.stage[CS_QUEUE], o->loop->now_ns - o->start_ns);
	l->sent_ns = o->loop->now_ns;
	l->stage = NULL;
	if (l->early) {
		mkv_conn_early_reply(c, l);
	} else if (!l->last_begun && o->kind == OPK_STREAM) {
		mkv_leg_set_state(l, LEG_PAUSED);
		mkv_op_part_done(o);
	} else if (!l->last_begun) {
		mkv_leg_set_state(l, LEG_QUEUED);
		mkv_list_push_tail(&c->txq, &l->link);
	} else {
		mkv_leg_set_state(l, LEG_SENT);
	}
}

static void
tx_return_memory(struct conn *c)
{
	if (c->tx_lent)
		mkv_op_unlend(c->tx_leg->op);
	c->tx_lent = 0;
}

static void
conn_on_sent(struct mkv_io *io, int res)
{
	struct conn *c = MKV_CONTAINER_OF(io, struct conn, tx_io);
	struct mkv_list *n;
	struct leg *l;

	MKV_CHECK_OBJ(c, CONN_MAGIC);
	c->srv->loop->now_ns = mkv_now_ns();
	c->tx_busy = 0;
	tx_return_memory(c);
	if (c->state == CONN_CLOSING || res < 0) {
		c->peer_ended |= res == MKV_E_CLOSED && c->state != CONN_CLOSING;
		mkv_conn_fail(c, res < 0 ? res : MKV_E_CLOSED);
		return;					/* tcp_flush() closes it */
	}
	while ((n = mkv_list_pop(&c->tx_small)) != NULL)
		tx_frame_out(c, MKV_CONTAINER_OF(n, struct leg, link));
	if ((l = c->tx_leg) != NULL && l->frame_left == 0) {
		c->tx_leg = NULL;
		tx_frame_out(c, l);
	}
}
