/*
 * memkv-front, loop thread: a connection's life and its receiving half. Owns the receive buffer; lends a part's buffers to the socket while payload
 * comes in. One recv is outstanding at most, so a client that must wait (no buffers, no request context, too many requests) is simply not read.
 *
 *   RX_HDR -> RX_BODY -> RX_FRAME -> [RX_WAIT -> RX_PAYLOAD | RX_DISCARD] -> RX_HDR ...
 *
 * Invariants: no byte of a body is looked at before its MAC fits; payload is received only into buffers that are FRONT's (or a reserved arena run);
 * a connection in CONN_CLOSING is freed when recv and send have ended, never before, since they write to memory that others would get.
 * CONN_LOOSE: a client of DC with datagrams may close its socket and keep its session (docs/internals/rdma.md, Without a tether); what belonged to the stream goes.
 * What can fail: the client (closed, counted), nothing else.
 */
#include "config.h"

#include "worker/front/front_priv.h"

#include <inttypes.h>
#include <string.h>
#include <sys/mman.h>

#include "common/base/assert.h"
#include "common/base/crc.h"
#include "common/base/err.h"
#include "common/base/log.h"

static void	conn_rx_fire(struct mkv_timer *t, uint64_t now_ns);

/* Reads or may still read. */
static int
conn_reads(const struct mkv_conn *c)
{
	return (c->state == CONN_HELLO || c->state == CONN_CONNECT || c->state == CONN_OPEN);
}

int
mkv_conn_alive(const struct mkv_conn *c)
{
	return (conn_reads(c) || c->state == CONN_LOOSE);
}

static void
conn_reset(struct mkv_conn *c)
{
	c->rx = RX_HDR;
	c->kicked = 0;
	c->loose = 0;
	c->local = c->by_region = c->rx_ref = 0;
	c->passed = -1;
	c->rx_head = c->rx_tail = 0;
	c->rx_req = NULL;
	c->rx_part = NULL;
	c->pay_left = 0;
	c->pay_ask = 0;
	c->remote = NULL;
	c->remote_channel = 0;
	c->remote_carrier = 0;
	memset(&c->s, 0, sizeof(c->s));
	memset(&c->rx_io, 0, sizeof(c->rx_io));
	memset(&c->tx_io, 0, sizeof(c->tx_io));
	memset(&c->rx_timer, 0, sizeof(c->rx_timer));
	memset(&c->tx_timer, 0, sizeof(c->tx_timer));
	memset(&c->hs_out, 0, sizeof(c->hs_out));
	c->rx_timer.fire = conn_rx_fire;
	c->tx_timer.fire = mkv_conn_tx_fire;
}

struct mkv_conn *
mkv_conn_open(struct mkv_front *f, int fd, int loopback, int crowded, const struct mkv_drv_writer *who)
{
	struct mkv_conn *c = MKV_CONTAINER_OF(mkv_list_pop(&f->conn_free), struct mkv_conn, link);

	MKV_CHECK_OBJ(c, CONN_MAGIC);
	MKV_ASSERT(c->state == CONN_FREE);
	conn_reset(c);
	c->tr = &mkv_transport_tcp;
	c->fd = fd;
	c->loopback = loopback != 0;
	c->crowded = crowded != 0;
	c->who = *who;
	c->state = CONN_HELLO;
	mkv_list_push_tail(&f->conn_used, &c->link);
	f->n_conns++;
	f->n_crowded += c->crowded;
	mkv_metric_add(f->m, crowded ? MKV_M_front_connections_refused_total : MKV_M_front_connections_accepted_total, 0, 1);
	mkv_timer_arm(f->timers, &c->rx_timer, mkv_now_ns() + f->conf.handshake_ns);
	mkv_conn_kick(c);
	return (c);
}

/* Both halves have ended: the context may serve another client. */
static void
conn_try_free(struct mkv_conn *c)
{
	struct mkv_front *f = c->f;

	if (c->state != CONN_CLOSING || c->rx_busy || c->tx_busy || !mkv_chan_gone(c))
		return;
	MKV_ASSERT(mkv_list_empty(&c->reqs) && mkv_list_empty(&c->txq) && mkv_list_empty(&c->tx_flight));
	if (c->fd >= 0)
		c->tr->close(c);
	if (c->s.id != 0) {
		f->n_sessions--;
		mkv_metric_add(f->m, MKV_M_front_sessions_closed_total, 0, 1);
	}
	mkv_session_close(&c->s);
	c->state = CONN_FREE;
	mkv_list_remove(&c->run_link);
	mkv_list_remove(&c->tx_link);
	mkv_list_remove(&c->wait_link);
	mkv_list_remove(&c->msg_link);
	mkv_list_remove(&c->link);
	mkv_list_push_tail(&f->conn_free, &c->link);
	f->n_conns--;
	f->n_crowded -= c->crowded;
	f->n_loose -= c->loose;
}

/* The payload that was on its way will not come. Its request, for the caller to run; NULL if there is none. */
static struct mkv_req *
conn_drop_payload(struct mkv_conn *c)
{
	struct mkv_req *r = c->rx_req;

	if (r != NULL && c->rx_part->state == PART_RECV) {
		c->rx_part->state = PART_FULL;
		c->rx_part->crc_bad = 1;
	}
	c->rx_req = NULL;
	c->rx_part = NULL;
	c->rx_ref = 0;
	return (r);
}

void
mkv_conn_close(struct mkv_conn *c)
{
	struct mkv_front *f = c->f;
	struct mkv_list *l;

	MKV_CHECK_OBJ(c, CONN_MAGIC);
	if (c->state == CONN_CLOSING || c->state == CONN_FREE)
		return;
	if (c->state == CONN_OPEN || c->state == CONN_LOOSE)
		mkv_log(MKV_EV_SESSION_CLOSED, "session=%" PRIx64, c->s.id);
	c->state = CONN_CLOSING;
	mkv_timer_disarm(f->timers, &c->rx_timer);
	mkv_timer_disarm(f->timers, &c->tx_timer);
	c->tr->stop(c);
	mkv_chan_close(c);
	mkv_regions_close(c);
	/* A recv that is under way still writes into the part's buffers: they go when it has ended. */
	if (!c->rx_busy)
		(void)conn_drop_payload(c);
	mkv_conn_tx_drop(c);
	while ((l = mkv_list_pop(&c->reqs)) != NULL) {
		c->n_reqs--;
		mkv_req_orphan(MKV_CONTAINER_OF(l, struct mkv_req, link));
	}
	/* The caller may still be at work with c: the turn frees it. */
	mkv_conn_kick(c);
}

/* ---- Without a socket ------------------------------------------------------------------------------------------------------ */

/* The buffer's own pages: no stream writes there any more, and the next one finds zeroes. */
static void
conn_give_buffer(struct mkv_conn *c)
{
	const uintptr_t page = 4096, from = MKV_ALIGN_UP((uintptr_t)c->rx_buf, page), to = ((uintptr_t)c->rx_buf + CONN_RX_BYTES) & ~(page - 1);

	(void)madvise((void *)from, to - from, MADV_DONTNEED);	/* refused: it stays */
}

/* recv and send have ended. */
static void
conn_shed(struct mkv_conn *c)
{
	if (c->state != CONN_LOOSE || c->rx_busy || c->tx_busy || c->fd < 0)
		return;
	c->tr->close(c);
	mkv_mac_destroy(&c->s.mac_in);
	mkv_mac_destroy(&c->s.mac_out);
	conn_give_buffer(c);
}

/* What came by the stream ends with it; what came by the channel goes on, and is answered there. */
static void
conn_loosen(struct mkv_conn *c)
{
	struct mkv_front *f = c->f;

	c->state = CONN_LOOSE;
	c->loose = 1;
	f->n_loose++;
	mkv_timer_disarm(f->timers, &c->tx_timer);
	mkv_timer_arm(f->timers, &c->rx_timer, mkv_now_ns() + f->conf.loose_ns);
	c->tr->stop(c);
	if (!c->rx_busy)
		(void)conn_drop_payload(c);
	mkv_conn_tx_drop(c);
	MKV_LIST_FOREACH_SAFE(it, tmp, &c->reqs) {
		struct mkv_req *r = MKV_CONTAINER_OF(it, struct mkv_req, link);

		if (r->channel != 0)
			continue;
		mkv_list_remove(it);
		c->n_reqs--;
		mkv_req_orphan(r);
	}
	mkv_conn_kick(c);
}

void
mkv_conn_lost(struct mkv_conn *c)
{
	if (c->state == CONN_OPEN && !c->f->stopping && mkv_chan_is_loose(c))
		conn_loosen(c);
	else if (c->state != CONN_LOOSE)
		mkv_conn_close(c);
}

static void
conn_loose_fire(struct mkv_conn *c, uint64_t now_ns)
{
	uint64_t until_ns = mkv_chan_heard_ns(c) + c->f->conf.loose_ns;

	if (until_ns > now_ns) {
		mkv_timer_arm(c->f->timers, &c->rx_timer, until_ns);
		return;
	}
	mkv_metric_add(c->f->m, MKV_M_front_sessions_loose_expired_total, 0, 1);
	mkv_conn_close(c);
}

void
mkv_conn_refuse(struct mkv_conn *c, enum mkv_metric why, const char *what)
{
	mkv_metric_add(c->f->m, why, 0, 1);
	mkv_log(why == MKV_M_front_auth_failures_total ? MKV_EV_AUTH_FAILED : MKV_EV_FRAME_BAD, "session=%" PRIx64 " op=%u why=%s",
	    c->s.id, c->hdr.op, what);
	mkv_conn_close(c);
}

void
mkv_conn_kick(struct mkv_conn *c)
{
	if (c->kicked || c->state == CONN_FREE)
		return;
	c->kicked = 1;
	mkv_list_push_tail(&c->f->run, &c->run_link);
}

/* In the next turn. */
static void
conn_kick_later(struct mkv_conn *c)
{
	if (c->kicked)
		return;
	c->kicked = 1;
	mkv_list_push_tail(&c->f->later, &c->run_link);
}

/* ---- Timers ---------------------------------------------------------------------------------------------------------------- */

static void
conn_rx_fire(struct mkv_timer *t, uint64_t now_ns)
{
	struct mkv_conn *c = MKV_CONTAINER_OF(t, struct mkv_conn, rx_timer);

	MKV_CHECK_OBJ(c, CONN_MAGIC);
	if (c->state == CONN_LOOSE) {
		conn_loose_fire(c, now_ns);
		return;
	}
	if (c->state == CONN_OPEN && c->rx == RX_HDR && c->rx_head == c->rx_tail && (c->n_reqs != 0 || c->tx_busy || mkv_chan_heard(c))) {
		/* Silent because it waits for us, or speaks by its channel. */
		mkv_timer_arm(c->f->timers, t, now_ns + c->f->conf.idle_ns);
		return;
	}
	mkv_metric_add(c->f->m, MKV_M_front_timeouts_total, 0, 1);
	mkv_conn_close(c);
}

/* Until when the bytes that we are about to wait for must have come. */
static void
conn_rx_arm(struct mkv_conn *c)
{
	uint64_t now = mkv_now_ns(), at;

	if (c->state != CONN_OPEN)
		return;			/* the handshake's limit stands */
	if (c->rx == RX_HDR)
		at = now + (c->rx_head == c->rx_tail ? c->f->conf.idle_ns : c->f->conf.handshake_ns);
	else if (c->rx == RX_DISCARD)
		at = MKV_MAX(c->frame_until_ns, now + c->f->conf.handshake_ns);
	else {
		/* What a frame has reserved is not kept for a client that sends no more of it. */
		at = c->frame_until_ns;
		if (c->f->conf.stall_ns != 0)
			at = MKV_MIN(at, now + c->f->conf.stall_ns);
	}
	mkv_timer_arm(c->f->timers, &c->rx_timer, at);
}

/* ---- Receive buffer -------------------------------------------------------------------------------------------------------- */

static uint32_t
conn_has(const struct mkv_conn *c)
{
	return (c->rx_tail - c->rx_head);
}

/* Whatever is read from a unix socket: a descriptor that no recv takes would be closed by the kernel, and we might wait for that. */
static unsigned
conn_pass(const struct mkv_conn *c)
{
	return (c->local ? MKV_TR_PASS : 0);
}

/* Read until the buffer holds `want` bytes from rx_head on, and what comes with them. */
static enum mkv_next
conn_read(struct mkv_conn *c, uint32_t want)
{
	uint32_t have = conn_has(c);

	MKV_ASSERT(have < want && want + CONN_AHEAD_BYTES <= CONN_RX_BYTES);
	/* Frames are looked at in place: their structs want alignment, and the rest of this one wants room. */
	if (c->rx_head != 0) {
		memmove(c->rx_buf, c->rx_buf + c->rx_head, have);
		c->rx_head = 0;
		c->rx_tail = have;
	}
	conn_rx_arm(c);
	c->tr->recv(c, c->rx_buf + c->rx_tail, want - have + CONN_AHEAD_BYTES, conn_pass(c));
	return (MKV_NEXT_PARK);
}

/* ---- Frames ---------------------------------------------------------------------------------------------------------------- */

static enum mkv_next
conn_header(struct mkv_conn *c)
{
	int r;

	if (c->f->stopping && c->rx_head == c->rx_tail)
		return (MKV_NEXT_PARK);
	if (conn_has(c) < MKV_WIRE_HDR_BYTES)
		return (conn_read(c, MKV_WIRE_HDR_BYTES));
	if (c->rx_head % 8 != 0) {
		memmove(c->rx_buf, c->rx_buf + c->rx_head, conn_has(c));
		c->rx_tail -= c->rx_head;
		c->rx_head = 0;
	}
	memcpy(&c->hdr, c->rx_buf + c->rx_head, sizeof(c->hdr));
	if ((r = mkv_wire_hdr_check(&c->hdr, 0, c->state == CONN_OPEN)) != 0) {
		mkv_conn_refuse(c, MKV_M_front_bad_frames_total, mkv_err_name(r));
		return (MKV_NEXT_DONE);
	}
	c->hdr_ns = mkv_now_ns();
	c->frame_until_ns = c->hdr_ns + MKV_MIN(c->hdr.deadline_us, MKV_WIRE_DEADLINE_MAX_US) * MKV_NS_PER_US;
	c->rx = RX_BODY;
	return (MKV_NEXT_AGAIN);
}

static enum mkv_next
conn_body(struct mkv_conn *c)
{
	const uint8_t *body = c->rx_buf + c->rx_head + MKV_WIRE_HDR_BYTES;
	uint64_t begin_ns;
	int r;

	if (conn_has(c) < MKV_WIRE_HDR_BYTES + c->hdr.body_bytes)
		return (conn_read(c, MKV_WIRE_HDR_BYTES + c->hdr.body_bytes));
	begin_ns = mkv_now_ns();
	if (c->hdr.payload_bytes == 0)
		mkv_metric_time(c->f->m, MKV_M_front_receive_seconds, begin_ns - c->hdr_ns);
	if (c->state == CONN_OPEN) {
		if ((r = mkv_session_check(c, &c->hdr, body)) != 0) {
			mkv_conn_refuse(c, r == MKV_E_AUTH ? MKV_M_front_auth_failures_total : MKV_M_front_bad_frames_total, mkv_err_name(r));
			return (MKV_NEXT_DONE);
		}
		c->body_ns = mkv_now_ns();
		mkv_metric_time(c->f->m, MKV_M_front_auth_seconds, c->body_ns - begin_ns);
	}
	c->rx = RX_FRAME;
	return (MKV_NEXT_AGAIN);
}

/* The frame's header and body are used; its payload, if any, comes next. */
static void
conn_frame_used(struct mkv_conn *c, enum mkv_take t)
{
	c->rx_head += MKV_WIRE_HDR_BYTES + c->hdr.body_bytes;
	MKV_ASSERT(c->rx_head <= c->rx_tail);
	c->rx_ref = t == MKV_TAKE_PAYLOAD && (c->hdr.flags & MKV_WIRE_F_REMOTE) != 0;
	c->pay_left = (c->hdr.flags & MKV_WIRE_F_REMOTE) != 0 && !c->rx_ref ? 0 : c->hdr.payload_bytes;
	c->pay_pos = 0;
	if (c->hdr.op == MKV_WIRE_REGION)
		mkv_region_forget_passed(c);
	if (t == MKV_TAKE_PAYLOAD)
		c->rx = c->rx_part->state == PART_RECV ? RX_PAYLOAD : RX_WAIT;
	else
		c->rx = c->pay_left != 0 ? RX_DISCARD : RX_HDR;
}

static enum mkv_next
conn_handshake(struct mkv_conn *c, const uint8_t *body)
{
	int r;

	if (c->hs_out.busy)
		return (MKV_NEXT_PARK);		/* the end of that send kicks us */
	r = c->state == CONN_HELLO ? mkv_session_hello(c, &c->hdr, body) : mkv_session_connect(c, &c->hdr, body);
	if (r == MKV_E_PROTO || r == MKV_E_VERSION || r == MKV_E_SYSTEM || r == MKV_E_NOMEM) {
		mkv_conn_refuse(c, MKV_M_front_bad_frames_total, mkv_err_name(r));
		return (MKV_NEXT_DONE);
	}
	if (r == MKV_E_AUTH) {
		mkv_metric_add(c->f->m, MKV_M_front_auth_failures_total, 0, 1);
		mkv_log(MKV_EV_AUTH_FAILED, "key_id=%u", c->hdr.key_id);
		return (MKV_NEXT_DONE);		/* the refusal is on its way, then the end */
	}
	MKV_ASSERT(r == 0);
	conn_frame_used(c, MKV_TAKE_DONE);
	return (MKV_NEXT_AGAIN);
}

static enum mkv_next
conn_frame(struct mkv_conn *c)
{
	const uint8_t *body = c->rx_buf + c->rx_head + MKV_WIRE_HDR_BYTES;
	enum mkv_take t;

	if (c->state != CONN_OPEN)
		return (conn_handshake(c, body));
	mkv_timer_disarm(c->f->timers, &c->rx_timer);
	if ((c->hdr.flags & MKV_WIRE_F_REMOTE) == 0)
		t = mkv_req_dispatch(c, &c->hdr, body);
	else
		t = c->local ? mkv_region_frame(c, &c->hdr, body) : mkv_chan_frame(c, &c->hdr, body);
	if (!conn_reads(c))
		return (MKV_NEXT_DONE);
	switch (t) {
	case MKV_TAKE_HOLD:
		return (MKV_NEXT_PARK);
	case MKV_TAKE_BREAK:
		mkv_conn_refuse(c, MKV_M_front_bad_frames_total, "PROTO");
		return (MKV_NEXT_DONE);
	case MKV_TAKE_PAYLOAD:
		MKV_ASSERT(c->rx_req != NULL && c->rx_part != NULL);
		conn_frame_used(c, t);
		mkv_req_run(c->rx_req);
		return (MKV_NEXT_AGAIN);
	case MKV_TAKE_DONE:
	case MKV_TAKE_DISCARD:
		break;
	}
	conn_frame_used(c, t);
	return (MKV_NEXT_AGAIN);
}

/* ---- Payload --------------------------------------------------------------------------------------------------------------- */

/* CRC of bytes that have just been put in place, while they are in the cache. */
static void
conn_crc(struct mkv_conn *c, const uint8_t *p, uint32_t n)
{
	mkv_part_crc_add(c->rx_part, p, n);
	c->pay_pos += n;
	c->pay_left -= n;
}

static enum mkv_next
conn_payload_done(struct mkv_conn *c)
{
	struct mkv_part *p = c->rx_part;
	struct mkv_req *r = c->rx_req;

	mkv_metric_time(c->f->m, MKV_M_front_receive_seconds, mkv_now_ns() - c->hdr_ns);
	mkv_metric_add(c->f->m, MKV_M_front_received_bytes_total, 0, c->hdr.payload_bytes);
	MKV_ASSERT(p->state == PART_RECV);
	p->state = PART_FULL;
	c->rx_req = NULL;
	c->rx_part = NULL;
	c->rx = RX_HDR;
	mkv_req_run(r);
	return (MKV_NEXT_AGAIN);
}

void
mkv_conn_unread(struct mkv_conn *c)
{
	MKV_ASSERT(c->rx_ref && c->rx == RX_PAYLOAD);
	(void)conn_drop_payload(c);
	c->pay_left = 0;
	c->rx = RX_HDR;
	mkv_conn_kick(c);
}

/* From a region that its drive will read: nothing moves here but what is no whole block. */
static enum mkv_next
conn_payload_direct(struct mkv_conn *c)
{
	struct mkv_req *r = c->rx_req;
	struct mkv_part *p = c->rx_part;

	if (p->n_buf != 0 && !mkv_region_read_rest(c, mkv_buf_ptr(r->f->stage, p->buf[0]))) {
		mkv_conn_unread(c);
		mkv_req_run(r);
		return (MKV_NEXT_AGAIN);
	}
	c->pay_left = 0;
	c->rx_ref = 0;
	return (conn_payload_done(c));
}

/* From a region: a piece, then the others have theirs. What it does not give makes the CRCs wrong. */
static enum mkv_next
conn_payload_ref(struct mkv_conn *c)
{
	struct mkv_req *r = c->rx_req;
	uint32_t room, n;
	uint8_t *to;

	if (c->rx_part->region != NULL)
		return (conn_payload_direct(c));
	MKV_ASSERT(c->pay_left != 0 && mkv_part_seg(r, c->rx_part, c->pay_pos, &to, &room) == 0);
	n = (uint32_t)MKV_MIN((uint64_t)MKV_MIN(room, CONN_PIECE_BYTES - c->pay_pos % MKV_CRC_CHUNK), c->pay_left);
	if ((n = mkv_region_read(c, to, n)) == 0) {
		mkv_conn_unread(c);
		mkv_req_run(r);
		return (MKV_NEXT_AGAIN);
	}
	conn_crc(c, to, n);
	if (c->pay_left == 0) {
		c->rx_ref = 0;
		(void)conn_payload_done(c);
	}
	conn_kick_later(c);
	return (MKV_NEXT_PARK);
}

static enum mkv_next
conn_payload(struct mkv_conn *c)
{
	if (c->rx_ref)
		return (conn_payload_ref(c));
	while (c->pay_left != 0) {
		uint32_t room, n;
		uint8_t *to;

		MKV_ASSERT(mkv_part_seg(c->rx_req, c->rx_part, c->pay_pos, &to, &room) == 0);
		room = MKV_MIN(room, (uint32_t)c->pay_left);
		if (conn_has(c) != 0) {
			n = MKV_MIN(room, conn_has(c));
			memcpy(to, c->rx_buf + c->rx_head, n);
			c->rx_head += n;
			conn_crc(c, to, n);
			continue;
		}
		/* Pieces end on chunks: a CRC is made of bytes of one piece. */
		n = MKV_MIN(room, CONN_PIECE_BYTES - c->pay_pos % MKV_CRC_CHUNK);
		c->pay_to = to;
		c->pay_ask = n;
		conn_rx_arm(c);
		c->tr->recv(c, to, n, MKV_TR_ALL | conn_pass(c));
		return (MKV_NEXT_PARK);
	}
	return (conn_payload_done(c));
}

static enum mkv_next
conn_discard(struct mkv_conn *c)
{
	uint32_t n = (uint32_t)MKV_MIN(c->pay_left, (uint64_t)conn_has(c));

	c->rx_head += n;
	c->pay_left -= n;
	if (c->pay_left == 0) {
		c->rx = RX_HDR;
		return (MKV_NEXT_AGAIN);
	}
	/* All connections share the scratch: what lands there is never read. */
	conn_rx_arm(c);
	c->tr->recv(c, c->f->scratch, (uint32_t)MKV_MIN(c->pay_left, (uint64_t)CONN_PIECE_BYTES), conn_pass(c));
	return (MKV_NEXT_PARK);
}

void
mkv_conn_payload(struct mkv_conn *c)
{
	MKV_ASSERT(c->rx == RX_WAIT && c->rx_part->state == PART_RECV);
	c->rx = RX_PAYLOAD;
	mkv_conn_kick(c);
}

void
mkv_conn_discard(struct mkv_conn *c)
{
	MKV_ASSERT(c->rx_part->state == PART_WAIT || c->rx_part->state == PART_RESERVE);
	MKV_ASSERT(c->rx == RX_WAIT);
	if (c->rx_ref)
		c->pay_left = 0;
	c->rx_ref = 0;
	c->rx_req = NULL;
	c->rx_part = NULL;
	c->rx = c->pay_left != 0 ? RX_DISCARD : RX_HDR;
	mkv_conn_kick(c);
}

/* ---- The machine ----------------------------------------------------------------------------------------------------------- */

void
mkv_conn_run(struct mkv_conn *c)
{
	enum mkv_next nxt = MKV_NEXT_AGAIN;

	MKV_CHECK_OBJ(c, CONN_MAGIC);
	mkv_chan_run(c);
	if (c->state == CONN_LOOSE && !mkv_chan_is_loose(c))
		mkv_conn_close(c);		/* its channel broke */
	conn_shed(c);
	while (nxt == MKV_NEXT_AGAIN && conn_reads(c) && !c->rx_busy) {
		switch ((enum mkv_rx_state)c->rx) {
		case RX_HDR:		nxt = conn_header(c); break;
		case RX_BODY:		nxt = conn_body(c); break;
		case RX_FRAME:		nxt = conn_frame(c); break;
		case RX_WAIT:		nxt = MKV_NEXT_PARK; break;
		case RX_PAYLOAD:	nxt = conn_payload(c); break;
		case RX_DISCARD:	nxt = conn_discard(c); break;
		}
	}
	conn_try_free(c);
}

/* It waits for its frame. 0: where none may come, or a second one before that is taken. */
static int
conn_take_passed(struct mkv_conn *c)
{
	int fd = c->rx_io.passed;

	if (fd < 0)
		return (1);
	c->rx_io.passed = -1;
	if (c->passed >= 0 || c->state != CONN_OPEN || (c->rx != RX_HDR && c->rx != RX_BODY)) {
		mkv_close_stranger(fd);
		return (0);
	}
	c->passed = fd;
	return (1);
}

void
mkv_conn_received(struct mkv_conn *c, int res)
{
	int good;

	c->rx_busy = 0;
	good = !c->local || conn_take_passed(c);
	if (!conn_reads(c)) {
		struct mkv_req *r = conn_drop_payload(c);

		if (r != NULL)
			mkv_req_run(r);
		mkv_region_forget_passed(c);
		conn_shed(c);
		conn_try_free(c);
		return;
	}
	if (!good) {
		mkv_conn_refuse(c, MKV_M_front_bad_frames_total, "descriptor");
		return;
	}
	if (res <= 0) {
		mkv_conn_lost(c);
		return;
	}
	switch ((enum mkv_rx_state)c->rx) {
	case RX_PAYLOAD:
		if ((uint32_t)res != c->pay_ask) {
			mkv_conn_lost(c);	/* end of the stream in the middle */
			return;
		}
		conn_crc(c, c->pay_to, c->pay_ask);
		break;
	case RX_DISCARD:
		c->pay_left -= (uint32_t)res;
		break;
	case RX_HDR:
	case RX_BODY:
		c->rx_tail += (uint32_t)res;
		break;
	case RX_FRAME:
	case RX_WAIT:
		MKV_ASSERT(!"nothing was asked for");
	}
	mkv_conn_run(c);
}
