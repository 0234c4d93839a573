/*
 * Frames in. One recv is on its way at a time.
 *
 *   RX_FRAME    header and body into rx_buf (with some bytes beyond), checked there in place
 *   RX_PAYLOAD  of one GET part: what rx_buf has of it is copied, the rest is received straight into the caller's memory, in pieces, and its CRC made while
 *               the bytes are in the cache; if nobody waits for it, into the loop's scratch
 *   RX_WINDOW   the same of a part that the server has put into the window: copied from there, some at a turn of the loop
 *
 * The loop's thread. Owns rx_buf. While rx_lent the kernel may write to the caller's memory (struct op is OP_LENT): a leg that ends then waits for
 * the recv to be cancelled (mkv_conn_rx_detach()), so that no byte lands after its completion.
 * Invariants: no body is looked at before its MAC fits; rx_left bytes of payload are still to come, whatever became of the request.
 * Fails: anything that does not fit ends the connection (MKV_E_PROTO, MKV_E_AUTH, MKV_E_PEER).
 */
#include "config.h"

#include <string.h>

#include "clients/lib/tcp_priv.h"
#include "common/base/clock.h"

static void	conn_on_recv(struct mkv_io *io, int res);

static int
conn_listens(const struct conn *c)
{
	return (c->state == CONN_HELLO || c->state == CONN_AUTH || c->state == CONN_READY);
}

static uint32_t
rx_has(const struct conn *c)
{
	return (c->rx_tail - c->rx_head);
}

static void
rx_recv(struct conn *c, void *to, uint32_t bytes)
{
	c->rx_busy = 1;
	c->rx_to = to;
	c->rx_io.done = conn_on_recv;
	mkv_ioq_recv(c->srv->loop->q, &c->rx_io, MKV_FD(c->fd), to, bytes, 0);
}

/* Until the buffer holds `want` bytes from rx_head on, and what comes with them. */
static void
rx_more(struct conn *c, uint32_t want)
{
	uint32_t have = rx_has(c), room;

	MKV_ASSERT(have < want && want <= MKV_WIRE_HDR_BYTES + MKV_WIRE_BODY_MAX);
	if (c->rx_head != 0)
		memmove(c->rx_buf, c->rx_buf + c->rx_head, have);
	c->rx_head = 0;
	c->rx_tail = have;
	room = RX_BUF_BYTES - have;
	if (c->n_large > 0)
		room = MKV_MIN(room, want - have + RX_AHEAD_BYTES);
	rx_recv(c, c->rx_buf + have, room);
}

/* ---- payload ---- */

static struct leg *
rx_leg(const struct conn *c)
{
	return (c->rx_slot == NULL ? NULL : c->rx_slot->leg);
}

static uint32_t
rx_chunk_left(uint64_t off)
{
	return ((uint32_t)(MKV_CRC_CHUNK - off % MKV_CRC_CHUNK));
}

/* n bytes at p are in place: fold them into the CRC, compare at each chunk's end. */
static void
rx_crc(struct conn *c, struct leg *l, const uint8_t *p, uint32_t n)
{
	uint64_t at = l->op->off + l->rx_off;

	while (n > 0 && c->rx_crcs_n > 0) {
		uint32_t step = MKV_MIN(n, c->rx_crc_left);

		c->rx_crc = mkv_crc32c(c->rx_crc, p, step);
		c->rx_crc_left -= step;
		c->rx_left -= step;
		p += step;
		n -= step;
		at += step;
		if (c->rx_crc_left > 0 && c->rx_left > 0)
			continue;
		if (c->rx_crc != c->rx_crcs[c->rx_crc_at++] && !l->crc_bad) {
			l->crc_bad = 1;
			l->bad_off = (at - 1) / MKV_CRC_CHUNK * MKV_CRC_CHUNK;
		}
		c->rx_crc = 0;
		c->rx_crc_left = MKV_CRC_CHUNK;
	}
	c->rx_left -= n;				/* nobody checks */
}

/* n bytes have reached the caller's memory at p (which is still lent). */
static void
rx_placed(struct conn *c, struct leg *l, const uint8_t *p, uint32_t n)
{
	rx_crc(c, l, p, n);
	l->rx_off += n;
	client_count(l->op->c, CC_received_bytes_total, n);
}

static void
rx_dropped(struct conn *c, uint32_t n)
{
	struct leg *l = rx_leg(c);

	c->rx_left -= n;
	client_count(c->srv->loop->c, CC_dropped_bytes_total, n);
	if (l != NULL)
		l->rx_off += n;				/* its caller has left; its timer is about to end it */
	else if (c->rx_slot != NULL && (c->rx_slot->drained += n) > DRAIN_MOST_BYTES)
		mkv_conn_fail(c, MKV_E_TIMEOUT);
}

/* ---- payload for a GPU ---- */

/* A place for the next bytes, and how many; NULL: they are for nobody, since the get has failed. */
static uint8_t *
rx_stage_place(struct conn *c, struct leg *l, uint64_t *room)
{
	int r;

	if (l->stage_error != 0)
		return (NULL);
	if ((r = mkv_stage_room(&c->rx_stage, l->op, STAGE_BYTES)) != 0) {
		l->stage_error = r;
		return (NULL);
	}
	if (c->rx_staged == 0)				/* full where a chunk ends: what is copied has been compared */
		c->rx_stage_room = STAGE_BYTES - (uint32_t)((l->op->off + l->rx_off) % MKV_CRC_CHUNK);
	*room = c->rx_stage_room - c->rx_staged;
	return (c->rx_stage.buf + c->rx_staged);
}

/* To the device, if they are good and somebody waits. */
static void
rx_stage_out(struct conn *c, struct leg *l)
{
	uint64_t bytes = c->rx_staged;

	c->rx_staged = 0;
	if (l->crc_bad || !mkv_op_lend(l->op))
		return;
	l->stage_error = mkv_stage_copy(l->op, l->rx_off - bytes, c->rx_stage.buf, bytes, 1);
	mkv_op_unlend(l->op);
}

/* n bytes have come to rx_stage_place(). */
static void
rx_stage_took(struct conn *c, struct leg *l, uint32_t n)
{
	rx_placed(c, l, c->rx_stage.buf + c->rx_staged, n);
	c->rx_staged += n;
	if (c->rx_staged > 0 && (c->rx_left == 0 || c->rx_staged == c->rx_stage_room))
		rx_stage_out(c, l);
}

static void
rx_stage_copy(struct conn *c, struct leg *l, uint32_t n)
{
	uint64_t room;
	uint32_t step;
	uint8_t *to;

	for (; n > 0; n -= step) {
		if ((to = rx_stage_place(c, l, &room)) == NULL) {
			c->rx_head += n;
			rx_dropped(c, n);
			return;
		}
		step = (uint32_t)MKV_MIN(n, room);
		memcpy(to, c->rx_buf + c->rx_head, step);
		c->rx_head += step;
		rx_stage_took(c, l, step);
	}
}

/* 1: a recv is on its way. The op is not lent: a caller that leaves need not wait for it. */
static int
rx_stage_piece(struct conn *c, struct leg *l, uint64_t want)
{
	uint64_t room;
	uint8_t *to;

	if ((to = rx_stage_place(c, l, &room)) == NULL)
		return (0);
	c->rx_staging = 1;
	rx_recv(c, to, (uint32_t)MKV_MIN(want, room));
	return (1);
}

/* ---- */

/* Payload that came with the header. */
static void
rx_copy(struct conn *c)
{
	uint32_t n = (uint32_t)MKV_MIN(c->rx_left, rx_has(c));
	struct leg *l = rx_leg(c);
	struct iovec v;
	uint64_t got;

	if (l == NULL || !mkv_op_lend(l->op)) {
		c->rx_head += n;
		rx_dropped(c, n);
		return;
	}
	if (l->op->dev != NULL) {
		mkv_op_unlend(l->op);
		rx_stage_copy(c, l, n);
		return;
	}
	while (n > 0) {
		(void)mkv_op_iov_slice(l->op, l->rx_off, n, &v, 1, &got);
		memcpy(v.iov_base, c->rx_buf + c->rx_head, v.iov_len);
		c->rx_head += (uint32_t)v.iov_len;
		rx_placed(c, l, v.iov_base, (uint32_t)v.iov_len);
		n -= (uint32_t)v.iov_len;
	}
	mkv_op_unlend(l->op);
}

static void
rx_piece(struct conn *c)
{
	uint64_t want = MKV_MIN(c->rx_left, RX_PIECE_BYTES), got;
	struct leg *l = rx_leg(c);
	struct iovec v;

	if (l != NULL && l->op->dev != NULL && rx_stage_piece(c, l, want))
		return;
	if (l == NULL || l->op->dev != NULL || !mkv_op_lend(l->op)) {
		rx_recv(c, c->srv->loop->scratch, (uint32_t)MKV_MIN(want, SCRATCH_BYTES));
		return;
	}
	c->rx_lent = 1;
	(void)mkv_op_iov_slice(l->op, l->rx_off, want, &v, 1, &got);
	rx_recv(c, v.iov_base, (uint32_t)v.iov_len);
}

/* ---- payload in the window ---- */

/* 0: they are for nobody. What lies in the caller's region is checked where it is. */
static int
rx_window_piece(struct conn *c, struct leg *l)
{
	int there = c->rx_slot != NULL && c->rx_slot->way == WAY_REGION;
	struct iovec v;
	uint64_t got;

	if (l == NULL || !mkv_op_lend(l->op))
		return (0);
	(void)mkv_op_iov_slice(l->op, l->rx_off, MKV_MIN(c->rx_left, RX_PIECE_BYTES), &v, 1, &got);
	/* Between its chunks a caller may leave: what is lent once is no more than a piece. */
	for (uint64_t at = 0, step; at < got; at += step) {
		step = MKV_MIN(got - at, rx_chunk_left(l->op->off + l->rx_off));
		if (!there)
			memcpy((uint8_t *)v.iov_base + at, mkv_ref_place(c, c->rx_slot, l->rx_off), step);
		rx_placed(c, l, (uint8_t *)v.iov_base + at, (uint32_t)step);
	}
	client_count(l->op->c, there ? CC_local_region_get_bytes_total : CC_local_window_get_bytes_total, got);
	mkv_op_unlend(l->op);
	return (1);
}

/* 1: the rest in another turn; tcp_flush() comes back to it. */
static int
rx_window(struct conn *c)
{
	struct leg *l = rx_leg(c);
	uint64_t until = c->rx_left - MKV_MIN(c->rx_left, RX_TURN_BYTES);

	while (c->rx_left > until) {
		if (rx_window_piece(c, l))
			continue;
		client_count(c->srv->loop->c, CC_dropped_bytes_total, c->rx_left);
		if (l != NULL)
			l->rx_off += c->rx_left;	/* its caller has left; its timer is about to end it */
		c->rx_left = 0;
		return (0);
	}
	c->ref.rx_turn = c->srv->loop->turn;
	c->srv->loop->again |= c->rx_left > 0;
	return (c->rx_left > 0);
}

static void
rx_finish(struct conn *c, struct leg *l, struct slot *s, int status, const struct mkv_hdr *h)
{
	unsigned reason = h->reason < MKV_REASON_COUNT ? h->reason : MKV_REASON_NONE;

	if (status == 0)
		status = l->stage_error;
	if (status == 0 && l->first_ns != 0)
		mkv_hist_add(&l->op->c->counters.stage[CS_TRANSFER], l->op->loop->now_ns - l->first_ns);
	mkv_list_remove(&l->link);
	(void)mkv_slot_release(c, s);
	mkv_leg_reply(l, status, reason, h->deadline_us);
}

static void
rx_payload_done(struct conn *c)
{
	struct slot *s = c->rx_slot;

	c->rx = RX_FRAME;
	c->rx_slot = NULL;
	if (s == NULL || (c->rx_hdr.flags & MKV_WIRE_F_MORE))
		return;
	if (s->leg == NULL)
		(void)mkv_slot_release(c, s);
	else
		rx_finish(c, s->leg, s, 0, &c->rx_hdr);
}

int
mkv_conn_rx_detach(struct conn *c, struct leg *l)
{
	if (!c->rx_lent || rx_leg(c) != l)
		return (1);
	mkv_ioq_cancel(c->srv->loop->q, &c->rx_io);
	return (0);
}

/* ---- frames ---- */

static void
rx_begin_payload(struct conn *c, struct slot *s, const struct mkv_hdr *h, const uint32_t *crcs, uint32_t n_crcs)
{
	struct leg *l = s == NULL ? NULL : s->leg;

	c->rx = h->flags & MKV_WIRE_F_REMOTE ? RX_WINDOW : RX_PAYLOAD;
	c->rx_hdr = *h;
	c->rx_slot = s;
	c->rx_left = h->payload_bytes;
	c->rx_staged = 0;
	c->rx_crcs_n = n_crcs;
	c->rx_crc = c->rx_crc_at = 0;
	if (n_crcs > 0)
		memcpy(c->rx_crcs, crcs, n_crcs * sizeof(crcs[0]));
	c->rx_crc_left = l == NULL ? MKV_CRC_CHUNK : rx_chunk_left(l->op->off + l->rx_off);
}

/*
 * The server knows that the request has ended: no answer is owed any more, and one that comes all the same is dropped by its number. But a chunk of the
 * window is free only when an answer says so.
 */
static void
conn_cancelled(struct conn *c, const struct slot *cancel)
{
	struct slot *s = mkv_conn_slot(c, cancel->cancels);

	if (s != NULL && s->leg == NULL && s->way != WAY_WINDOW)
		(void)mkv_slot_release(c, s);
}

/* An answer that nobody waits for. */
static int
rx_late(struct conn *c, struct slot *s, const struct mkv_hdr *h)
{
	client_count(c->srv->loop->c, CC_late_replies_total, 1);
	if (h->op == MKV_WIRE_CANCEL && s != NULL)
		conn_cancelled(c, s);
	if (h->payload_bytes > 0)
		rx_begin_payload(c, s, h, NULL, 0);
	else if (s != NULL && !(h->flags & MKV_WIRE_F_MORE) && s->midway == 0)
		(void)mkv_slot_release(c, s);		/* else when the server was told that no further parts come */
	return (0);
}

static int
rx_get(struct conn *c, struct slot *s, const struct mkv_hdr *h, const uint8_t *body)
{
	const uint32_t *crcs = NULL;
	uint32_t n_crcs = 0;
	int r;

	if (!mkv_ref_fits(s, h))
		return (MKV_E_PEER);
	if ((r = mkv_frame_decode_part(s->leg, h, body, &crcs, &n_crcs)) != 0)
		return (r);
	if (h->payload_bytes > 0)
		rx_begin_payload(c, s, h, crcs, n_crcs);
	else
		rx_finish(c, s->leg, s, 0, h);
	return (0);
}

/* Answered while parts of it are still to be sent (an error), or before the end of its send was seen. */
static int
rx_early(struct conn *c, struct leg *l, const struct mkv_hdr *h, int status)
{
	if (l->early)
		return (MKV_E_PEER);
	l->early = 1;
	l->status = status;
	l->reason = h->reason < MKV_REASON_COUNT ? h->reason : MKV_REASON_NONE;
	l->retry_after_us = h->deadline_us;
	if (c->tx_leg != l && l->state != LEG_SENDING)
		mkv_conn_early_reply(c, l);			/* else when its frame is out: conn_on_sent() */
	return (0);
}

static int
rx_reply(struct conn *c, struct slot *s, const struct mkv_hdr *h, const uint8_t *body)
{
	struct leg *l = s->leg;
	int r, status;

	if (l->first_ns == 0) {
		l->first_ns = l->op->loop->now_ns;
		if (l->sent_ns != 0)
			mkv_hist_add(&l->op->c->counters.stage[CS_SERVER], l->first_ns - l->sent_ns);
	}
	if (h->status == 0 && l->wire_op == MKV_WIRE_GET)
		return (rx_get(c, s, h, body));
	if ((r = mkv_frame_decode(l, h, body, &status)) < 0)
		return (r);
	if (r > 0)
		return (0);
	if (c->tx_leg == l || !l->last_begun)
		return (rx_early(c, l, h, status));
	rx_finish(c, l, s, status, h);
	return (0);
}

static int
rx_attached(struct conn *c, struct slot *s, const struct mkv_hdr *h, const uint8_t *body)
{
	int r = mkv_rail_attached(c, s, h, body);

	if (r == 0)
		(void)mkv_slot_release(c, s);
	return (r);
}

static int
rx_session_frame(struct conn *c, const struct mkv_hdr *h, const uint8_t *body)
{
	struct slot *s;
	int r, taken;

	if ((r = mkv_mac_check(c->mac_rx, h, MKV_WIRE_SIGNED_BYTES, body, h->body_bytes, h->mac)) != 0)
		return (r);
	if (h->counter != c->rx_counter + 1 || h->session_id != c->session_id || h->channel != 0)
		return (MKV_E_AUTH);
	c->rx_counter++;
	if (h->credits != 0)
		c->credits = h->credits;
	mkv_server_heard(c->srv, c->srv->loop->now_ns);
	r = mkv_ctl_tether_frame(c, h, body, &taken);
	if (r != 0 || taken)
		return (r);
	s = mkv_conn_slot(c, h->request_id);
	if (s == NULL && (h->request_id == 0 || h->request_id >> 8 > c->sequence))
		return (MKV_E_PEER);			/* an answer to what was never asked */
	if (s != NULL && s->attach != 0)
		return (rx_attached(c, s, h, body));
	if (s != NULL && s->region != 0)
		return (mkv_pass_answered(c, s, h));
	if (s == NULL || s->leg == NULL)
		return (rx_late(c, s, h));
	return (rx_reply(c, s, h, body));
}

static int
rx_dispatch(struct conn *c, const struct mkv_hdr *h, const uint8_t *body)
{
	switch (c->state) {
	case CONN_HELLO:
		return (mkv_conn_heard_hello(c, h, body));
	case CONN_AUTH:
		return (mkv_conn_heard_auth(c, h, body));
	default:
		return (rx_session_frame(c, h, body));
	}
}

/* 1: a frame was taken from the buffer; 0: it needs more bytes, which are asked for; or an error. */
static int
rx_frame(struct conn *c)
{
	struct mkv_hdr h;
	uint32_t bytes;
	int r;

	if (c->rx_head % 8 != 0) {			/* after a payload: bodies are read in place */
		memmove(c->rx_buf, c->rx_buf + c->rx_head, rx_has(c));
		c->rx_tail -= c->rx_head;
		c->rx_head = 0;
	}
	if (rx_has(c) < MKV_WIRE_HDR_BYTES) {
		rx_more(c, MKV_WIRE_HDR_BYTES);
		return (0);
	}
	memcpy(&h, c->rx_buf + c->rx_head, sizeof(h));
	if ((r = mkv_wire_hdr_check(&h, 1, c->state == CONN_READY)) != 0)
		return (r);
	bytes = MKV_WIRE_HDR_BYTES + h.body_bytes;
	if (rx_has(c) < bytes) {
		rx_more(c, bytes);
		return (0);
	}
	c->rx_head += bytes;
	r = rx_dispatch(c, &h, c->rx_buf + c->rx_head - h.body_bytes);
	return (r == 0 ? 1 : r);
}

/* Work off what the buffer has; ends with a recv on its way, or the connection failed. */
static void
rx_run(struct conn *c)
{
	int r = 1;

	while (r > 0 && conn_listens(c)) {
		if (c->rx == RX_FRAME) {
			r = rx_frame(c);
		} else if (c->rx_left == 0) {
			rx_payload_done(c);
		} else if (c->rx == RX_WINDOW) {
			if (rx_window(c))
				return;
		} else if (rx_has(c) > 0) {
			rx_copy(c);
		} else {
			rx_piece(c);
			return;
		}
	}
	if (r < 0)
		mkv_conn_fail(c, r);
}

void
mkv_conn_rx_start(struct conn *c)
{
	if (conn_listens(c) && !c->rx_busy)
		rx_run(c);
}

/* Bytes of payload have come, to the caller's memory or to the scratch. */
static void
rx_payload_came(struct conn *c, int was_lent, int was_staging, int res)
{
	struct leg *l = rx_leg(c);
	uint32_t n = res > 0 ? (uint32_t)res : 0;

	if (was_staging && l != NULL) {
		rx_stage_took(c, l, n);
		return;
	}
	if (!was_lent) {
		rx_dropped(c, n);
		return;
	}
	rx_placed(c, l, c->rx_to, n);
	mkv_op_unlend(l->op);
	if (l->state == LEG_ENDING) {			/* it waited for this recv to end; the rest goes to the scratch */
		mkv_conn_ended(c, c->rx_slot);
		if (mkv_get_room(l->op) - l->rx_off > SCRATCH_BYTES)
			mkv_list_push_tail(&c->notices, &c->rx_slot->notice);
		c->rx_crcs_n = 0;
		mkv_leg_detached(l);
	}
}

static void
conn_on_recv(struct mkv_io *io, int res)
{
	struct conn *c = MKV_CONTAINER_OF(io, struct conn, rx_io);
	int was_lent = c->rx_lent, was_staging = c->rx_staging;

	MKV_CHECK_OBJ(c, CONN_MAGIC);
	c->srv->loop->now_ns = mkv_now_ns();
	c->rx_busy = 0;
	c->rx_lent = c->rx_staging = 0;
	if (res > 0)
		c->heard_ns = c->srv->loop->now_ns;
	if (c->state == CONN_CLOSING) {
		if (was_lent)
			mkv_op_unlend(rx_leg(c)->op);
		return;					/* tcp_flush() closes it */
	}
	if (c->rx == RX_PAYLOAD)
		rx_payload_came(c, was_lent, was_staging, res);
	else if (res > 0)
		c->rx_tail += (uint32_t)res;
	c->peer_ended |= res == 0 || res == MKV_E_CLOSED;
	if (res <= 0 && res != MKV_E_CANCELLED)
		mkv_conn_fail(c, res == 0 ? MKV_E_CLOSED : res);
	else
		mkv_conn_rx_start(c);
}
