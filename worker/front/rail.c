/*
 * memkv-front, loop thread: channels of a rail: ATTACH, messages that come, the end. rail.h has the states and who owns what, rail_dev.c the device.
 *
 * A message is checked when it comes (size, header, MAC, counter: in order, like frames of a stream) and shown to the same dispatch as frames are. One that
 * cannot be taken now is held, and with it those behind it, but for what ends a wait: CANCEL, PING, and the next part of a request that is at work.
 * What fails: the client (its channel breaks, counted; its tether stays), the path (the same), the device (every channel breaks; main.c ends the process).
 */
#include "config.h"

#include "worker/front/rail_priv.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/base/err.h"
#include "common/base/log.h"

static void	chan_recv(struct mkv_rdma_qp *qp, struct mkv_rdma_rx *rx);
static void	line_broken(struct mkv_rdma_qp *qp, const char *why);

static const struct mkv_rdma_qp_ops line_ops = { .recv = chan_recv, .done = xfer_done, .broken = line_broken };

/* ---- A channel's end ------------------------------------------------------------------------------------------------------- */

static void
held_free(struct mkv_rail *rail, struct chan_held *m)
{
	m->rx = NULL;
	m->msg = NULL;
	mkv_list_push_tail(&rail->held_free, &m->link);
}

void
chan_rx_back(struct mkv_chan *ch, struct mkv_rdma_rx *rx)
{
	MKV_ASSERT(ch->n_rx > 0);
	ch->n_rx--;
	mkv_rdma_rx_back(ch->rail->hub, rx);
}

/* Nobody needs its bytes. */
static void
held_back(struct mkv_chan *ch, const struct chan_held *m)
{
	if (m->rx != NULL)
		chan_rx_back(ch, m->rx);
	if (m->msg != NULL)
		ctl_msg_back(ch->rail, m->msg);
}

static void
chan_drop_held(struct mkv_chan *ch)
{
	struct mkv_list *l;

	while ((l = mkv_list_pop(&ch->held)) != NULL) {
		struct chan_held *m = MKV_CONTAINER_OF(l, struct chan_held, link);

		held_back(ch, m);
		held_free(ch->rail, m);
	}
	ch->n_held = 0;
}

/* Their client has lost this channel and asks again by another. */
static void
chan_end_requests(struct mkv_chan *ch)
{
	MKV_LIST_FOREACH_SAFE(it, tmp, &ch->c->reqs) {
		struct mkv_req *r = MKV_CONTAINER_OF(it, struct mkv_req, link);

		if (r->channel != ch->number)
			continue;
		mkv_chan_req_gone(r);
		if (!r->ending)
			mkv_req_end(r, MKV_E_CLOSED, MKV_REASON_NONE, NULL, 0);
		mkv_req_run(r);
	}
}

/* What it had set aside is there again; nothing comes by it any more. */
static void
chan_shut(struct mkv_chan *ch)
{
	ch->state = CHAN_BROKEN;
	if (!ch->dc)
		mkv_rdma_qp_fail(ch->line->qp);
	ch->rail->n_open--;
	ch->rail->n_dc -= ch->dc;
	ch->rail->credits_left += ch->receives;
	mkv_list_push_tail(&ch->rail->broken, &ch->broken);
}

/* Nothing of it has been told the client. Its ATTACH ends, unless that is how it came here. */
static void
chan_give_up(struct mkv_chan *ch)
{
	struct mkv_req *r = ch->attach;

	chan_shut(ch);
	mkv_list_remove(&ch->opening);
	ch->rail->n_opening--;
	ch->attach = NULL;
	if (r != NULL) {
		mkv_req_end(r, ch->dc && ch->rail->dc_lost ? MKV_E_UNSUPPORTED : MKV_E_CLOSED, MKV_REASON_NONE, NULL, 0);
		mkv_req_run(r);
	}
	mkv_conn_kick(ch->c);
}

void
chan_break(struct mkv_chan *ch, const char *why)
{
	if (ch->state == CHAN_OPENING)
		chan_give_up(ch);
	if (ch->state != CHAN_OPEN)
		return;
	chan_shut(ch);
	if (why != NULL) {
		mkv_metric_add(ch->rail->f->m, MKV_M_front_channels_broken_total, 0, 1);
		mkv_log(MKV_EV_CHANNEL_BROKEN, "session=%" PRIx64 " channel=%u why=%s", ch->c->s.id, ch->number, why);
		ctl_say_broken(ch);
	}
	chan_drop_held(ch);
	ctl_detach(ch);
	/* Before their transfers end, which runs them: a put that went on would have nothing to READ by. */
	chan_end_requests(ch);
	if (ch->dc)
		dc_break_lines(ch);
	else
		xfer_break(ch->line);
	mkv_conn_kick(ch->c);			/* without a tether there is nothing left of the session */
}

static void
line_broken(struct mkv_rdma_qp *qp, const char *why)
{
	struct mkv_line *line = mkv_rdma_qp_owner(qp);

	MKV_CHECK_OBJ(line, LINE_MAGIC);
	chan_break(line->ch, why);
}

void
line_init(struct mkv_line *line, struct mkv_rail *r, uint32_t sends)
{
	line->magic = LINE_MAGIC;
	line->rail = r;
	line->sends = sends;
	mkv_list_init(&line->link);
	mkv_list_init(&line->over);
	mkv_list_init(&line->dirty);
	mkv_list_init(&line->xfers);
	mkv_list_init(&line->outs);
}

static int
line_open(struct mkv_chan *ch, uint32_t sends)
{
	struct mkv_line *line = calloc(1, sizeof(*line));

	if (line == NULL)
		return (MKV_E_NOMEM);
	line_init(line, ch->rail, sends);
	line->ch = ch;
	ch->rail->sends_left -= sends;
	ch->line = line;
	return (0);
}

/* Nothing of it is with the NIC. Accepts a channel without one. */
static void
line_close(struct mkv_chan *ch)
{
	struct mkv_line *line = ch->line;

	if (line == NULL)
		return;
	MKV_CHECK_OBJ(line, LINE_MAGIC);
	MKV_ASSERT(line->rec_head == line->rec_tail && line->window == 0 && line->reads == 0);
	MKV_ASSERT(mkv_list_empty(&line->xfers) && mkv_list_empty(&line->outs));
	mkv_list_remove(&line->dirty);
	mkv_rdma_qp_destroy(&line->qp);
	ch->rail->sends_left += line->sends;
	ch->line = NULL;
	line->magic = 0;
	free(line);
}

/* Nothing is with the NIC any more. */
static void
chan_free(struct mkv_chan *ch)
{
	line_close(ch);
	mkv_rdma_way_back(&ch->way);
	mkv_mac_destroy(&ch->mac_in);
	mkv_mac_destroy(&ch->mac_out);
	ch->state = CHAN_NONE;
	mkv_list_remove(&ch->broken);
	mkv_conn_kick(ch->c);
}

void
mkv_chan_close(struct mkv_conn *c)
{
	struct mkv_chan *ch = chan_of(c);

	if (ch != NULL)
		chan_break(ch, NULL);
}

int
mkv_chan_gone(struct mkv_conn *c)
{
	struct mkv_chan *ch = chan_of(c);

	if (ch == NULL)
		return (1);
	if (ch->state != CHAN_NONE)
		return (0);
	ch->number = 0;				/* the next session begins anew */
	return (1);
}

int
mkv_chan_heard(struct mkv_conn *c)
{
	struct mkv_chan *ch = chan_of(c);
	int heard = ch != NULL && ch->state == CHAN_OPEN && ch->heard;

	if (heard)
		ch->heard = 0;
	return (heard);
}

int
mkv_chan_is_loose(const struct mkv_conn *c)
{
	const struct mkv_chan *ch = chan_of(c);

	return (ch != NULL && ch->state == CHAN_OPEN && ch->loose);
}

uint64_t
mkv_chan_heard_ns(const struct mkv_conn *c)
{
	return (chan_of(c)->heard_ns);
}

/* ---- Lines that nothing comes back of --------------------------------------------------------------------------------------- */

static void
line_watch(struct mkv_line *line, uint64_t now_ns)
{
	if (line->rec_head != line->rec_tail && now_ns > line->moved_ns && now_ns - line->moved_ns >= line->rail->f->conf.stall_ns)
		chan_break(line->ch, "nothing of what is under way to it came back for network.stall_timeout");
}

/*
 * What fails comes back within seconds, by the NIC's retries. Who answers just enough to keep them from ending would keep the memory of his requests, whatever
 * their deadlines, and others wait for it.
 */
void
rail_watch(struct mkv_timer *t, uint64_t now_ns)
{
	struct mkv_rail *r = MKV_CONTAINER_OF(t, struct mkv_rail, watch);
	const uint64_t stall_ns = r->f->conf.stall_ns;

	MKV_CHECK_OBJ(r, RAIL_MAGIC);
	for (uint32_t i = 0; stall_ns != 0 && i < r->f->conf.connections_max + FRONT_SPARE_CONNS; i++)
		if (r->chans[i].state == CHAN_OPEN && r->chans[i].line != NULL)
			line_watch(r->chans[i].line, now_ns);
	for (uint32_t i = 0; stall_ns != 0 && r->pool != NULL && i < r->dc_n; i++)
		if (r->lines[i].ch != NULL && !r->lines[i].broken)
			line_watch(&r->lines[i], now_ns);
	if (r->n_open != 0)
		mkv_timer_arm(r->f->timers, t, now_ns + RAIL_WATCH_NS);
}

/* What has come back since: lines, and channels that waited for theirs. Not from a callback of the hub. */
static void
rail_sweep(struct mkv_rail *r)
{
	rail_lines_back(r);
	MKV_LIST_FOREACH_SAFE(it, tmp, &r->broken) {
		struct mkv_chan *ch = MKV_CONTAINER_OF(it, struct mkv_chan, broken);

		if (ch->dc ? mkv_list_empty(&ch->lines) : mkv_rdma_qp_idle(ch->line->qp))
			chan_free(ch);
	}
}

/* ---- ATTACH ---------------------------------------------------------------------------------------------------------------- */

static int
attach_start(struct mkv_req *r, const struct mkv_hdr *h, const uint8_t *body)
{
	if (h->body_bytes != sizeof(struct mkv_wire_attach) || r->channel != 0)
		return (MKV_E_PROTO);
	if (r->f->rail == NULL)
		return (MKV_E_UNSUPPORTED);
	memcpy(r->body, body, sizeof(struct mkv_wire_attach));
	return (0);
}

/* What one session gets of what is left: less where there is little; 0: nothing to give. */
static uint32_t
attach_share(uint32_t left, uint32_t all, uint32_t most, uint32_t least)
{
	uint32_t n = left > all / 2 ? most : left > all / 4 ? MKV_MAX(most / 4, least) : least;

	while (left < n + CHAN_CREDITS_MORE && n > least)
		n = MKV_MAX(n / 4, least);
	return (left >= n + CHAN_CREDITS_MORE ? n : 0);
}

static int
attach_keys(struct mkv_chan *ch)
{
	const struct mkv_session *s = &ch->c->s;
	const struct mkv_front *f = ch->c->f;
	const struct mkv_front_key_row *k = mkv_auth_key(f, s->key_id, ch->c->loopback);
	uint8_t key[MKV_KEY_BYTES];
	int e;

	if (k == NULL)
		return (MKV_E_AUTH);			/* revoked since */
	if ((e = mkv_key_session(k->key, s->nonce_c, s->nonce_s, MKV_DIR_C2S, ch->number, f->conf.front_id, s->transcript, key)) == 0)
		e = mkv_mac_create(&ch->mac_in, key);
	if (e == 0 && (e = mkv_key_session(k->key, s->nonce_c, s->nonce_s, MKV_DIR_S2C, ch->number, f->conf.front_id, s->transcript, key)) == 0)
		e = mkv_mac_create(&ch->mac_out, key);
	mkv_wipe(key, sizeof(key));
	return (e);
}

static int
attach_connect(struct mkv_chan *ch, const struct mkv_wire_attach *w)
{
	struct mkv_rdma_qp_conf q = {
		.sends = ch->line->sends, .send_bytes = LINE_SEND_BYTES, .ops = &line_ops, .owner = ch->line,
	};
	struct mkv_rdma_peer p = {
		.lid = w->lid, .qpn = w->qpn, .psn = w->psn, .mtu_bytes = w->mtu_bytes,
		.rd_atomic_in = (uint8_t)MKV_MIN(w->rd_atomic_in, UINT8_MAX), .rd_atomic_out = (uint8_t)MKV_MIN(w->rd_atomic_out, UINT8_MAX),
	};
	int e;

	memcpy(p.gid, w->gid, sizeof(p.gid));
	if ((e = mkv_rdma_qp_create(&ch->line->qp, ch->rail->hub, &q)) != 0)
		return (e);
	return (mkv_rdma_qp_connect(ch->line->qp, &p));
}

static void
attach_reply(struct mkv_req *r, const struct mkv_chan *ch)
{
	const struct mkv_rdma_dev *d = ch->rail->dev;
	const struct mkv_rdma_qp *qp = ch->dc ? ch->rail->target : ch->line->qp;
	struct mkv_wire_attach a = {
		.transport = ch->dc ? MKV_FEATURE_RDMA_DC : MKV_FEATURE_RDMA_RC, .channel = ch->number, .qpn = mkv_rdma_qp_number(qp),
		.psn = ch->dc ? 0 : mkv_rdma_qp_psn(qp), .dc_key = ch->dc ? mkv_rdma_target_key(qp) : 0, .mtu_bytes = d->mtu_bytes, .recv_bytes = MKV_WIRE_RDMA_BYTES, .rd_atomic_in = d->rd_atomic_in, .rd_atomic_out = d->rd_atomic_out,
		.lid = d->lid, .credits = ch->credits, .control = (uint16_t)(ch->control | (ch->loose ? MKV_WIRE_CONTROL_LOOSE : 0)), .udp_port = ctl_port(ch),
	};

	memcpy(a.gid, d->gid.raw, sizeof(a.gid));
	mkv_req_end(r, 0, MKV_REASON_NONE, &a, sizeof(a));
}

/* Nothing of it has been told the client. */
static void
attach_undo(struct mkv_chan *ch)
{
	if (ch->line != NULL && ch->line->qp != NULL)
		mkv_rdma_qp_fail(ch->line->qp);
	line_close(ch);
	mkv_rdma_way_back(&ch->way);
	mkv_mac_destroy(&ch->mac_in);
	mkv_mac_destroy(&ch->mac_out);
}

static int
attach_begin(struct mkv_req *r, struct mkv_chan *ch, const struct mkv_wire_attach *w)
{
	struct mkv_rail *rail = ch->rail;
	int dc = w->transport == MKV_FEATURE_RDMA_DC, e;
	uint32_t credits, sends;

	if (dc ? !dc_can(rail, w) : w->transport != MKV_FEATURE_RDMA_RC)
		return (MKV_E_UNSUPPORTED);
	/* Without a READ that it answers, some devices let one wait for ever. */
	if (w->channel != ch->number + 1u || w->recv_bytes < LINE_SEND_BYTES || w->rd_atomic_in == 0 || !mkv_wire_control_ok(w))
		return (MKV_E_PROTO);
	if (!ctl_may(r->c, w))
		return (MKV_E_UNSUPPORTED);
	chan_break(ch, NULL);			/* the client has given it up */
	rail_sweep(rail);
	if (ch->state != CHAN_NONE)
		return (MKV_E_BUSY);
	credits = attach_share(rail->credits_left, rail->credits_all, MKV_MIN(CHAN_CREDITS_MAX, r->f->conf.inflight_max), CHAN_CREDITS_MIN);
	sends = attach_share(rail->sends_left, rail->sends_all, LINE_SENDS_MAX, LINE_SENDS_MIN);
	if (credits == 0 || (sends == 0 && !dc) || !rail->up || rail->n_opening == RAIL_OPENING_MOST)
		return (MKV_E_BUSY);
	ch->dc = dc != 0;
	ch->c = r->c;
	ch->number = w->channel;
	ch->credits = (uint16_t)credits;
	ch->counter_in = ch->counter_out = 0;
	ch->n_rx = 0;
	/* What goes another way needs no receive; a PING by the queue pair proves the path in any case. */
	ch->receives = (uint16_t)((mkv_wire_carrier(w) == MKV_WIRE_CONTROL_RDMA ? credits : 0) + CHAN_CREDITS_MORE);
	if ((!dc && (e = line_open(ch, sends)) != 0) || (e = attach_keys(ch)) != 0 || (e = dc ? dc_attach(ch, w) : attach_connect(ch, w)) != 0) {
		attach_undo(ch);
		return (e);
	}
	rail->credits_left -= ch->receives;
	rail->n_open++;
	rail->n_dc += ch->dc;
	rail->n_opening++;
	if (rail->n_open == 1)
		mkv_timer_arm(rail->f->timers, &rail->watch, mkv_now_ns() + RAIL_WATCH_NS);
	ch->state = CHAN_OPENING;
	ch->attach = r;
	r->u.attach = ch;
	mkv_list_push_tail(&rail->opening, &ch->opening);
	return (0);
}

/* 0; MKV_E_AGAIN: rail_openings() runs its request once more. */
static int
attach_end(struct mkv_chan *ch, const struct mkv_wire_attach *w)
{
	int e = ch->dc ? dc_attached(ch) : mkv_rdma_qp_connected(ch->line->qp);

	if (e == MKV_E_AGAIN)
		return (e);
	ch->attach = NULL;
	if (e != 0) {
		chan_give_up(ch);
		return (e);
	}
	mkv_list_remove(&ch->opening);
	ch->rail->n_opening--;
	ctl_attach(ch, w);
	ch->state = CHAN_OPEN;
	mkv_metric_add(ch->rail->f->m, MKV_M_front_channels_opened_total, 0, 1);
	return (0);
}

static enum mkv_next
attach_step(struct mkv_req *r)
{
	struct mkv_chan *ch = chan_of(r->c);
	struct mkv_wire_attach w;
	int e = 0;

	memcpy(&w, r->body, sizeof(w));
	if ((r->u.attach == NULL && (e = attach_begin(r, ch, &w)) != 0) || (e = attach_end(ch, &w)) != 0) {
		if (e == MKV_E_AGAIN)
			return (MKV_NEXT_PARK);
		mkv_req_end(r, e, MKV_REASON_NONE, NULL, 0);
	} else
		attach_reply(r, ch);
	return (MKV_NEXT_AGAIN);
}

/* Its time is over, and the channel is not open. */
static enum mkv_next
attach_over(struct mkv_req *r)
{
	struct mkv_chan *ch = r->u.attach;

	if (ch != NULL && ch->attach == r) {
		ch->attach = NULL;
		chan_give_up(ch);
	}
	return (MKV_NEXT_DONE);
}

/* What the hub's threads have found out. */
static void
rail_openings(struct mkv_rail *r)
{
	MKV_LIST_FOREACH_SAFE(it, tmp, &r->opening) {
		struct mkv_chan *ch = MKV_CONTAINER_OF(it, struct mkv_chan, opening);

		if ((ch->dc ? mkv_rdma_way_known(ch->way) : mkv_rdma_qp_connected(ch->line->qp)) != MKV_E_AGAIN)
			mkv_req_run(ch->attach);
	}
}

static void
attach_on_dop(struct mkv_req *r MKV_UNUSED, struct mkv_dop *d MKV_UNUSED, const struct mkv_drv_rep *rep MKV_UNUSED, int status MKV_UNUSED)
{
	MKV_ASSERT(!"asks no drive");
}

const struct mkv_req_ops mkv_attach_ops = {
	.op = MKV_WIRE_ATTACH, .start = attach_start, .step = attach_step, .on_dop = attach_on_dop, .undo = attach_over,
};

/* ---- Messages -------------------------------------------------------------------------------------------------------------- */

static const struct mkv_hdr *
rx_hdr(const struct mkv_rdma_rx *rx)
{
	return ((const struct mkv_hdr *)(const void *)rx->buf);
}

/* 0; MKV_E_PROTO, MKV_E_VERSION, MKV_E_AUTH; MKV_E_EXISTS: DC: it has come before, or may have. */
static int
message_check(struct mkv_chan *ch, const struct mkv_rdma_rx *rx)
{
	const struct mkv_hdr *h = rx_hdr(rx);
	int e;

	if (rx->bytes < sizeof(*h))
		return (MKV_E_PROTO);
	if ((e = mkv_wire_hdr_check(h, 0, 1)) != 0)
		return (e);
	if (h->body_bytes != rx->bytes - sizeof(*h) || ((h->flags & MKV_WIRE_F_REMOTE) == 0 && h->payload_bytes != 0))
		return (MKV_E_PROTO);
	if ((e = mkv_mac_check(ch->mac_in, h, MKV_WIRE_SIGNED_BYTES, h + 1, h->body_bytes, h->mac)) != 0)
		return (e);
	if (h->session_id != ch->c->s.id || h->channel != ch->number)
		return (MKV_E_AUTH);
	/* With datagrams a channel has no order: their counters and these are of one row. Nor has DC one. */
	if (ch->control == MKV_WIRE_CONTROL_UDP || ch->dc)
		return (mkv_window_take(&ch->window, h->counter) ? 0 : ch->dc ? MKV_E_EXISTS : MKV_E_AUTH);
	if (h->counter != ch->counter_in + 1)
		return (MKV_E_AUTH);
	ch->counter_in++;
	return (0);
}

/* Lists may be longer than a message, and so may their answers: they go by the tether. */
static int
message_may(unsigned op)
{
	return (op == MKV_WIRE_PUT || op == MKV_WIRE_GET || op == MKV_WIRE_STAT || op == MKV_WIRE_REPORT || op == MKV_WIRE_INFO ||
	    op == MKV_WIRE_PING || op == MKV_WIRE_CANCEL);
}

static void
chan_refuse(struct mkv_chan *ch, enum mkv_metric why, const char *what)
{
	mkv_metric_add(ch->rail->f->m, why, 0, 1);
	chan_break(ch, what);
}

/* 1: taken; 0: it has to wait. */
static int
message_dispatch(struct mkv_chan *ch, const struct chan_held *m)
{
	struct mkv_remote remote = { .rx = m->rx, .msg = m->msg };
	const struct mkv_hdr *h = held_hdr(m);
	struct mkv_conn *c = ch->c;
	uint64_t hdr_ns = c->hdr_ns, until_ns = c->frame_until_ns;
	enum mkv_take t;

	if (m->over) {
		held_back(ch, m);
		return (1);
	}
	/* The stream may be in the middle of a frame of its own. */
	c->hdr_ns = m->came_ns;
	c->frame_until_ns = m->until_ns;
	c->remote = &remote;
	c->remote_channel = ch->number;
	c->remote_carrier = m->carrier;
	t = mkv_req_dispatch(c, h, (const uint8_t *)(h + 1));
	c->remote = NULL;
	c->remote_channel = 0;
	c->remote_carrier = 0;
	c->hdr_ns = hdr_ns;
	c->frame_until_ns = until_ns;
	if (remote.line != NULL)		/* not wanted after all */
		line_rest(remote.line);
	if (t == MKV_TAKE_HOLD)
		return (0);
	held_back(ch, &(struct chan_held){ .rx = remote.rx, .msg = remote.msg });
	if (t == MKV_TAKE_BREAK)
		chan_refuse(ch, MKV_M_front_bad_frames_total, "a message that its request does not allow");
	return (1);
}

/* Its request has an earlier message among those in front of `end`. */
static int
held_has_before(const struct mkv_chan *ch, const struct mkv_list *end, uint64_t id)
{
	for (const struct mkv_list *it = ch->held.next; it != end; it = it->next)
		if (held_hdr(MKV_CONTAINER_OF(it, const struct chan_held, link))->request_id == id)
			return (1);
	return (0);
}

/* Need not wait for the messages in front of `end`, which wait: they may do so for what this one ends or completes. */
static int
message_passes(const struct mkv_chan *ch, const struct mkv_hdr *h, const struct mkv_list *end)
{
	if (h->op == MKV_WIRE_CANCEL || h->op == MKV_WIRE_PING)
		return (1);
	return (mkv_req_find(ch->c->f, ch->c, h->request_id) != NULL && !held_has_before(ch, end, h->request_id));
}

static void
chan_hold(struct mkv_chan *ch, const struct chan_held *m)
{
	struct mkv_list *l;

	if (ch->n_held == CHAN_HELD_MAX) {
		held_back(ch, m);
		chan_refuse(ch, MKV_M_front_bad_frames_total, "more messages than were granted");
		return;
	}
	MKV_ASSERT((l = mkv_list_pop(&ch->rail->held_free)) != NULL);
	*MKV_CONTAINER_OF(l, struct chan_held, link) = *m;
	mkv_list_push_tail(&ch->held, l);
	ch->n_held++;
}

void
chan_take(struct mkv_chan *ch, struct chan_held *m)
{
	const struct mkv_hdr *h = held_hdr(m);

	if (!message_may(h->op)) {
		held_back(ch, m);
		chan_refuse(ch, MKV_M_front_bad_frames_total, mkv_err_name(MKV_E_PROTO));
		return;
	}
	ch->heard = 1;
	ch->heard_ns = m->came_ns = mkv_now_ns();
	m->until_ns = m->came_ns + MKV_MIN(h->deadline_us, MKV_WIRE_DEADLINE_MAX_US) * MKV_NS_PER_US;
	if ((ch->n_held > 0 && !message_passes(ch, h, &ch->held)) || !message_dispatch(ch, m))
		chan_hold(ch, m);
}

static enum mkv_metric
message_fault(int e)
{
	switch (e) {
	case MKV_E_AUTH: return (MKV_M_front_auth_failures_total);
	case MKV_E_EXISTS: return (MKV_M_front_messages_stale_total);
	default: return (MKV_M_front_bad_frames_total);
	}
}

void
chan_message(struct mkv_chan *ch, struct mkv_rdma_rx *rx)
{
	struct chan_held m = { .rx = rx };
	int e;

	if (ch->state != CHAN_OPEN || ch->c->f->stopping) {
		mkv_rdma_rx_back(ch->rail->hub, rx);
		return;
	}
	if ((e = message_check(ch, rx)) == 0 && ch->n_rx < ch->receives + CHAN_RECEIVES_OVER) {
		ch->n_rx++;
		chan_take(ch, &m);
		return;
	}
	mkv_rdma_rx_back(ch->rail->hub, rx);
	if (e == 0) {
		chan_refuse(ch, MKV_M_front_bad_frames_total, "more messages than were granted");
		return;
	}
	/* Anybody can send to a target what is no message of this client: he suffers nothing by it. */
	if (ch->dc)
		mkv_metric_add(ch->rail->f->m, message_fault(e), 0, 1);
	else
		chan_refuse(ch, message_fault(e), mkv_err_name(e));
}

static void
chan_recv(struct mkv_rdma_qp *qp, struct mkv_rdma_rx *rx)
{
	const struct mkv_line *line = mkv_rdma_qp_owner(qp);

	MKV_CHECK_OBJ(line, LINE_MAGIC);
	chan_message(line->ch, rx);
}

void
mkv_chan_run(struct mkv_conn *c)
{
	struct mkv_chan *ch = chan_of(c);
	int waits = 0;

	if (ch == NULL || ch->state != CHAN_OPEN)
		return;
	dc_run(ch);
	if (ch->state != CHAN_OPEN)
		return;
	MKV_LIST_FOREACH_SAFE(it, tmp, &ch->held) {
		struct chan_held *m = MKV_CONTAINER_OF(it, struct chan_held, link);

		if (waits && !m->over && !message_passes(ch, held_hdr(m), it))
			continue;
		mkv_list_remove(it);
		ch->n_held--;
		if (message_dispatch(ch, m))
			held_free(ch->rail, m);
		else {
			mkv_list_push_tail(tmp, it);	/* where it was */
			ch->n_held++;
			waits = 1;
		}
		if (ch->state != CHAN_OPEN)
			return;
	}
}

/* What is left of a body are segments; none where the payload comes by the stream. */
int
mkv_chan_take_segs(struct mkv_conn *c, struct mkv_wire_in *in)
{
	struct mkv_remote *m = c->remote;
	size_t left = (size_t)(in->end - in->p);

	if (m == NULL)
		return (left == 0 ? 0 : MKV_E_PROTO);
	m->n_seg = (unsigned)(left / sizeof(*m->seg));
	m->bytes = 0;
	if (left % sizeof(*m->seg) != 0 || m->n_seg > MKV_WIRE_SEGS_MAX)
		return (MKV_E_PROTO);
	m->seg = mkv_wire_take(in, left);
	for (unsigned i = 0; i < m->n_seg; i++) {
		if (m->seg[i].bytes == 0 || m->seg[i].addr > UINT64_MAX - m->seg[i].bytes)
			return (MKV_E_PROTO);
		m->bytes += m->seg[i].bytes;
	}
	if (m->msg != NULL)
		ctl_msg_segs(m->msg, m);
	return (0);
}

/* A message of it that waits is dropped: its client hears that the request is over, and its memory may serve something else. */
void
mkv_chan_cancelled(struct mkv_req *cancel, uint64_t id)
{
	struct mkv_chan *ch = chan_of(cancel->c);
	int said = 0;

	if (ch == NULL || ch->state != CHAN_OPEN)
		return;
	MKV_LIST_FOREACH(it, &ch->held) {
		struct chan_held *m = MKV_CONTAINER_OF(it, struct chan_held, link);

		if (held_hdr(m)->request_id != id || m->over)
			continue;
		m->over = 1;				/* its turn may be now: we may have been called from there */
		if (!said)
			dc_say_cancelled(m, cancel);
		said = 1;
	}
	ctl_over(ch, id);
}

/* ---- The turn -------------------------------------------------------------------------------------------------------------- */

unsigned
mkv_rail_turn(struct mkv_rail *r)
{
	unsigned n = mkv_rdma_hub_poll(r->hub, RAIL_POLL_BATCH) + ctl_turn(r);

	rail_openings(r);
	rail_sweep(r);
	return (n);
}

void
mkv_rail_flush(struct mkv_rail *r)
{
	struct mkv_list *l;

	while ((l = mkv_list_pop(&r->dirty)) != NULL)
		xfer_pump(MKV_CONTAINER_OF(l, struct mkv_line, dirty));
	ctl_pump(r);
	mkv_rdma_hub_flush(r->hub);
}

int
mkv_rail_may_sleep(struct mkv_rail *r)
{
	return (!ctl_busy(r) && !rail_dc_is_due(r) && mkv_rdma_hub_arm(r->hub));
}

void
mkv_rail_woken(struct mkv_rail *r)
{
	mkv_rdma_hub_woken(r->hub);
}

void
mkv_rail_gauges(struct mkv_rail *r)
{
	const struct mkv_rdma_count *n = mkv_rdma_hub_count(r->hub);
	struct mkv_metrics *m = r->f->m;

	rail_alarm(r);
	mkv_metric_set(m, MKV_M_front_channels, 0, r->n_open);
	mkv_metric_set(m, MKV_M_front_channels_dc, 0, r->n_dc);
	if (r->pool != NULL) {
		uint32_t size = mkv_rdma_pool_size(r->pool), idle = mkv_rdma_pool_free(r->pool);

		mkv_metric_set(m, MKV_M_front_dcis_leased, 0, size - idle);
		mkv_metric_set(m, MKV_M_front_dcis_free, 0, idle);
		mkv_metric_set(m, MKV_M_front_dcis_lost, 0, r->dc_n - size);
	}
	mkv_metric_add(m, MKV_M_front_work_requests_total, 0, n->wrs - r->told.wrs);
	mkv_metric_add(m, MKV_M_front_doorbells_total, 0, n->doorbells - r->told.doorbells);
	mkv_metric_add(m, MKV_M_front_completions_total, 0, n->completions - r->told.completions);
	r->told = *n;
}
