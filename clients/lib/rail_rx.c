/*
 * Messages in. When the last answer to a request is here, what the far end wrote for it is in our memory: it came by the same queue pair or, by DC, from the
 * same initiator, and those keep order. Between two initiators there is none: answers of different requests overtake each other, and CANCEL's may come before
 * that of its request (or in its place, if the latter was lost with the way that it went by).
 *
 * The loop's thread. Owns nothing: a message lies in a receive of the hub, which goes back when it has been worked off.
 * Invariants: no body is looked at before its MAC fits; a get's bytes are checked in place, in steps that stay in the cache; a slot is freed with the last answer.
 * Fails: what does not fit what was asked breaks the rail (MKV_E_PROTO, MKV_E_AUTH, MKV_E_PEER); the tether stays.
 */
#include "config.h"

#include <string.h>

#include "clients/lib/rail_priv.h"
#include "common/base/clock.h"

static struct loop *
rail_loop(const struct rail *r)
{
	return (r->c->srv->loop);
}

/* ---- the end of a request ---- */

static void
rx_finish(struct rail *r, struct rail_slot *s, int status, unsigned reason, uint64_t retry_after_us)
{
	int stopped = s->cancelled && status == MKV_E_CANCELLED;
	struct leg *l = s->leg;

	if (status == 0 && l->first_ns != 0)
		mkv_hist_add(&l->op->c->counters.stage[CS_TRANSFER], l->op->loop->now_ns - l->first_ns);
	if (status == 0 && s->lent)
		mkv_rails_carried(r);
	(void)mkv_rail_slot_free(r, s);
	if (l->state == LEG_ENDING)
		mkv_leg_detached(l);
	else if (stopped)				/* we asked for it: the deadline is as good as here */
		mkv_leg_over(l, MKV_E_TIMEOUT, MKV_REASON_TIMED_OUT);
	else
		mkv_leg_reply(l, status, reason, retry_after_us);
	rail_loop(r)->dirty = 1;
}

static void
rx_measure(struct rail *r, const struct rail_slot *s)
{
	uint64_t ns = rail_loop(r)->now_ns - s->sent_ns;

	r->srtt_ns = r->srtt_ns == 0 ? ns : (7 * r->srtt_ns + ns) / 8;
}

/*
 * CANCEL's answer: by RC nothing of that request is on its way any more. By DC only its own answer says so, which comes before this one on the same
 * initiator; a request that is still there had no initiator any more, and its answer comes by another, or never: then time decides.
 */
static void
rx_cancelled(struct rail *r, struct rail_slot *cancel)
{
	struct rail_slot *s = mkv_rail_slot(r, cancel->ours_for);

	rx_measure(r, cancel);
	(void)mkv_rail_slot_free(r, cancel);
	if (s == NULL)
		return;
	if (mkv_rail_is_dc(r)) {
		s->overtaken = 1;
		s->ended_ns = rail_loop(r)->now_ns;
		return;
	}
	if (s->leg == NULL)
		(void)mkv_rail_slot_free(r, s);
	else
		rx_finish(r, s, MKV_E_CANCELLED, MKV_REASON_NONE, 0);
}

/*
 * DC: the server's initiator failed in the middle of it, and our NIC did not refuse anything: what was sent of a get may still arrive. 1: that is the
 * answer, the rail was fenced, and s is gone.
 */
static int
rx_path_failed(struct rail *r, const struct rail_slot *s, const struct mkv_hdr *h)
{
	if (!mkv_rail_is_dc(r) || s->op != MKV_WIRE_GET || h->status != (unsigned)-MKV_E_CLOSED || h->reason == MKV_REASON_NIC_REFUSED)
		return (0);
	client_count(rail_loop(r)->c, CC_fences_total, 1);
	mkv_rail_break(r, MKV_E_CLOSED, "the server lost the way to our memory in the middle of a value");
	return (1);
}

/* Our NIC does not let the server at this request's memory, which costs nobody else anything: by another way, if there is one. */
static void
rx_nic_refused(struct rail *r, struct rail_slot *s)
{
	struct leg *l = mkv_rail_slot_free(r, s);

	client_count(rail_loop(r)->c, CC_rdma_refused_total, 1);
	rail_loop(r)->dirty = 1;
	if (l->state == LEG_ENDING) {
		mkv_leg_detached(l);
		return;
	}
	l->no_rail = 1;
	mkv_leg_elsewhere(l);
}

/* One of several answers to one message. */
static void
rx_owed_one(struct rail *r, struct rail_slot *s)
{
	if (s->owed > s->unanswered) {
		s->owed--;
		r->hub->owed--;
	}
}

static int
rx_nobodys(struct rail *r, struct rail_slot *s, const struct mkv_hdr *h)
{
	int last = !(h->flags & MKV_WIRE_F_MORE);

	if (h->op != s->op)
		return (MKV_E_PEER);
	if (rx_path_failed(r, s, h))
		return (0);
	if (s->op == MKV_WIRE_CANCEL) {
		rx_cancelled(r, s);
	} else if (s->op == MKV_WIRE_PING) {
		rx_measure(r, s);
		(void)mkv_rail_slot_free(r, s);
		if (r->state == RAIL_PROVING)
			mkv_rail_proven(r);
	} else {
		client_count(rail_loop(r)->c, CC_late_replies_total, 1);
		client_count(rail_loop(r)->c, CC_dropped_bytes_total, h->payload_bytes);
		if (last)
			(void)mkv_rail_slot_free(r, s);
		else if (s->op == MKV_WIRE_PUT && s->unanswered > 0)
			mkv_rail_answered(r, s, 1);
		else
			rx_owed_one(r, s);
	}
	return (0);
}

/* ---- put ---- */

/* The far end has the bytes of one part. */
static int
rx_part_taken(struct rail *r, struct rail_slot *s, const struct mkv_hdr *h)
{
	struct leg *l = s->leg;

	if (h->status != 0 || h->body_bytes != 0 || h->payload_bytes != 0 || s->unanswered <= (unsigned)l->last_begun)
		return (MKV_E_PEER);
	mkv_rail_answered(r, s, 1);
	if (l->state == LEG_QUEUED && mkv_list_empty(&l->link))
		mkv_list_push_tail(&r->txq, &l->link);
	rail_loop(r)->dirty = 1;
	return (0);
}

/* ---- get ---- */

static void
rx_check(struct leg *l, uint64_t bytes, const uint32_t *crcs, uint32_t n_crcs)
{
	uint64_t off = l->rx_off, at = l->op->off + off, got;
	uint32_t crc = 0;
	struct iovec v;

	for (; bytes > 0 && n_crcs > 0; bytes -= got) {
		(void)mkv_op_iov_slice(l->op, off, MKV_MIN(bytes, MKV_CRC_CHUNK - at % MKV_CRC_CHUNK), &v, 1, &got);
		crc = mkv_crc32c(crc, v.iov_base, v.iov_len);
		off += got;
		at += got;
		if (at % MKV_CRC_CHUNK != 0 && bytes > got)
			continue;
		if (crc != *crcs++ && !l->crc_bad) {
			l->crc_bad = 1;
			l->bad_off = (at - 1) / MKV_CRC_CHUNK * MKV_CRC_CHUNK;
		}
		crc = 0;
		n_crcs--;
	}
}

static void
rx_copy(struct leg *l, const uint8_t *from, uint64_t bytes)
{
	struct iovec v;
	uint64_t got;

	for (uint64_t done = 0; done < bytes; done += got) {
		(void)mkv_op_iov_slice(l->op, l->rx_off + done, bytes - done, &v, 1, &got);
		memcpy(v.iov_base, from + done, v.iov_len);
	}
}

/* The bytes are in the caller's memory, or in the bounce buffer. */
static void
rx_placed(struct rail_slot *s, uint64_t bytes, const uint32_t *crcs, uint32_t n_crcs)
{
	struct leg *l = s->leg;

	if (l->state == LEG_ENDING)
		return;
	if (l->op->dev != NULL) {
		if (l->stage_error == 0)
			l->stage_error = mkv_stage_check(l, bytes, crcs, n_crcs);
	} else if (s->bounce == NULL) {
		rx_check(l, bytes, crcs, n_crcs);
	} else if (mkv_op_lend(l->op)) {
		rx_copy(l, s->bounce->buf + l->rx_off, bytes);
		rx_check(l, bytes, crcs, n_crcs);
		mkv_op_unlend(l->op);
	}						/* else its caller has left, and its timer is about to end it */
	client_count(l->op->c, CC_received_bytes_total, bytes);
}

static int
rx_get(struct rail *r, struct rail_slot *s, const struct mkv_hdr *h, const uint8_t *body)
{
	struct leg *l = s->leg;
	const uint32_t *crcs = NULL;
	uint32_t n_crcs = 0;
	int e;

	if ((e = mkv_frame_decode_part(l, h, body, &crcs, &n_crcs)) != 0)
		return (e);
	rx_placed(s, h->payload_bytes, crcs, n_crcs);
	l->rx_off += h->payload_bytes;
	if (h->flags & MKV_WIRE_F_MORE)
		rx_owed_one(r, s);
	else
		rx_finish(r, s, l->stage_error, MKV_REASON_NONE, 0);
	return (0);
}

static int
rx_reply(struct rail *r, struct rail_slot *s, const struct mkv_hdr *h, const uint8_t *body)
{
	struct leg *l = s->leg;
	int e, status;

	if (l->first_ns == 0) {
		l->first_ns = l->op->loop->now_ns;
		if (l->sent_ns != 0)
			mkv_hist_add(&l->op->c->counters.stage[CS_SERVER], l->first_ns - l->sent_ns);
	}
	if (h->op == MKV_WIRE_PUT && l->wire_op == MKV_WIRE_PUT && (h->flags & MKV_WIRE_F_MORE))
		return (rx_part_taken(r, s, h));
	if (h->status == 0 && l->wire_op == MKV_WIRE_GET)
		return (rx_get(r, s, h, body));
	if (rx_path_failed(r, s, h))
		return (0);
	if ((e = mkv_frame_decode(l, h, body, &status)) != 0)
		return (e < 0 ? e : MKV_E_PEER);
	if (status == MKV_E_CLOSED && h->reason == MKV_REASON_NIC_REFUSED) {
		rx_nic_refused(r, s);
		return (0);
	}
	rx_finish(r, s, status, h->reason < MKV_REASON_COUNT ? h->reason : MKV_REASON_NONE, h->deadline_us);
	return (0);
}

/* ---- frames ---- */

/* As on a connection, but that payload is announced by REMOTE and lies elsewhere. */
int
mkv_rail_hdr_check(const struct mkv_hdr *h)
{
	struct mkv_hdr as_tcp = *h;

	as_tcp.flags = (uint16_t)(h->flags & ~MKV_WIRE_F_REMOTE);
	if ((h->flags & MKV_WIRE_F_REMOTE) && h->payload_bytes != 0)
		as_tcp.flags |= MKV_WIRE_F_PAYLOAD;
	return (mkv_wire_hdr_check(&as_tcp, 1, 1));
}

/* 1: this counter is the next (RC), or has not come yet (DC and datagrams, which have no order; with those a queue pair has its share of the counters only). */
static int
rx_is_new(struct rail *r, uint64_t counter)
{
	if (mkv_rail_is_dc(r) || r->ctl.by == MKV_WIRE_CONTROL_UDP)
		return (mkv_window_take(&r->rx_window, counter));
	if (counter != r->rx_counter + 1)
		return (0);
	r->rx_counter++;
	return (1);
}

static int
rx_frame(struct rail *r, const uint8_t *buf, uint32_t bytes)
{
	const uint8_t *body = buf + MKV_WIRE_HDR_BYTES;
	struct mkv_hdr h;
	int e;

	if (bytes < sizeof(h))
		return (MKV_E_PROTO);
	memcpy(&h, buf, sizeof(h));
	if ((e = mkv_rail_hdr_check(&h)) != 0)
		return (e);
	if (h.body_bytes != bytes - sizeof(h))
		return (MKV_E_PROTO);
	if ((e = mkv_mac_check(r->mac_rx, &h, MKV_WIRE_SIGNED_BYTES, body, h.body_bytes, h.mac)) != 0)
		return (e);
	if (h.session_id != r->session_id || h.channel != r->channel)
		return (MKV_E_AUTH);
	if (!rx_is_new(r, h.counter)) {
		client_count(rail_loop(r)->c, CC_rdma_replayed_total, 1);
		return (mkv_rail_is_dc(r) ? 0 : MKV_E_AUTH);
	}
	return (mkv_rail_answer(r, &h, body));
}

int
mkv_rail_answer(struct rail *r, const struct mkv_hdr *h, const uint8_t *body)
{
	struct rail_slot *s;

	if (h->credits != 0)
		r->credits = MKV_MAX(h->credits, 2u);
	r->heard_ns = rail_loop(r)->now_ns;
	mkv_server_heard(r->c->srv, r->heard_ns);
	if ((s = mkv_rail_slot(r, h->request_id)) == NULL) {
		if (h->request_id == 0 || h->request_id >> 8 > r->c->sequence)
			return (MKV_E_PEER);
		client_count(rail_loop(r)->c, CC_late_replies_total, 1);
		return (0);
	}
	return (s->leg == NULL ? rx_nobodys(r, s, h) : rx_reply(r, s, h, body));
}

void
mkv_rail_recv(struct mkv_rdma_qp *qp, struct mkv_rdma_rx *rx)
{
	struct rail *r = mkv_rdma_qp_owner(qp);
	struct mkv_rdma_hub *hub = mkv_rdma_qp_hub(qp);
	int e = 0;

	MKV_CHECK_OBJ(r, RAIL_MAGIC);
	if (r->state == RAIL_LIVE || r->state == RAIL_PROVING)
		e = rx_frame(r, rx->buf, rx->bytes);
	mkv_rdma_rx_back(hub, rx);
	if (e == 0)
		return;
	client_count(rail_loop(r)->c, CC_protocol_errors_total, 1);
	mkv_rail_trouble(r, e, "a message that breaks the protocol");
}
