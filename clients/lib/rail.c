/*
 * A rail's life on its tether (rail_priv.h has the states).
 *
 * The loop's thread. Owns the channel's keys and the slots; rail_qp.c has the queue pair, or what DC has in its place. ATTACH goes by the tether, with a channel number that is used once on it; the
 * answer's queue pair is connected and proven by a signed PING before any request goes there, since an attach that works says nothing of the path.
 * Invariants: mkv_rail_break() fences before it touches a leg, and where the NIC refuses touches it only when the NIC has let go; a queue pair is destroyed only when nothing of it is out; requests are on it only in LIVE.
 * Fails: anything on the way is one failure of the rail: counted, its sentence kept, tried again after the rail's back-off. The tether stays, and carries
 * requests as any connection.
 */
#include "config.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "clients/lib/rail_priv.h"
#include "common/base/clock.h"

static void	rail_on_timer(struct mkv_timer *t, uint64_t now_ns);
static void	rail_done(struct mkv_rdma_qp *qp, void *cookie, int status);
static void	rail_broken(struct mkv_rdma_qp *qp, const char *why);

static const struct mkv_rdma_qp_ops rail_ops = { .recv = mkv_rail_recv, .done = rail_done, .broken = rail_broken };

static struct loop *
rail_loop(const struct rail *r)
{
	return (r->c->srv->loop);
}

static void
rail_arm(struct rail *r, uint64_t in_ns)
{
	mkv_timer_arm(&rail_loop(r)->timers, &r->timer, rail_loop(r)->now_ns + in_ns);
}

int
mkv_rail_create(struct conn *c)
{
	struct rail *r = calloc(1, sizeof(*r));

	if ((c->rail = r) == NULL)
		return (MKV_E_NOMEM);
	r->magic = RAIL_MAGIC;
	r->c = c;
	r->timer.fire = rail_on_timer;
	mkv_list_init(&r->link);
	mkv_list_init(&r->free);
	mkv_list_init(&r->out);
	mkv_list_init(&r->txq);
	mkv_list_init(&r->cancels);
	mkv_ctl_init(r);
	for (unsigned i = 0; i < RAIL_SLOTS; i++) {
		mkv_list_init(&r->slot[i].cancel);
		mkv_list_push_tail(&r->free, &r->slot[i].link);
	}
	return (0);
}

void
mkv_rail_destroy(struct conn *c)
{
	if (c->rail != NULL)
		mkv_ctl_fini(c->rail);
	free(c->rail);
	c->rail = NULL;
}

int
mkv_rail_is_alone(const struct conn *c)
{
	return (c->rail != NULL && c->rail->alone);
}

int
mkv_rail_is_off(const struct conn *c)
{
	return (c->rail == NULL || (c->rail->state == RAIL_OFF && mkv_ctl_is_off(c->rail)));
}

/* ---- attach ---- */

/* One try came to nothing. */
static void
rail_failed(struct rail *r, int err, const char *why)
{
	mkv_rails_trying(r, 0);
	mkv_rails_failed(r, err, why);
	mkv_rails_backoff(r);
	if (r->state != RAIL_OFF)
		mkv_rail_break(r, err, why);		/* the rest follows when it is quiet */
	else if (r->c->state == CONN_READY)
		rail_arm(r, mkv_rails_wait(r));
	mkv_server_pump(r->c->srv);
}

static int
rail_ask(struct rail *r)
{
	struct slot *s;
	int e;

	if ((s = mkv_slot_take(r->c, NULL)) == NULL)
		return (MKV_E_AGAIN);
	if ((e = mkv_rail_qp_make(r, &rail_ops)) != 0) {
		(void)mkv_slot_release(r->c, s);
		return (e);
	}
	s->attach = ++r->channel;
	mkv_list_push_tail(&r->c->notices, &s->notice);
	rail_loop(r)->dirty = 1;
	return (0);
}

static void
rail_attach(struct rail *r)
{
	struct pool *p = r->c->srv->pool;
	struct loop *l = rail_loop(r);
	char why[WHY_BYTES] = "";
	int dev, e;

	r->soon = r->again = 0;
	if (r->channel == UINT16_MAX) {
		mkv_conn_fail(r->c, MKV_E_CLOSED);	/* numbers are used up: a new tether begins anew */
		return;
	}
	mkv_rails_trying(r, 1);
	dev = mkv_fabric_choose(l->c->fabric, &p->rail[r->c->rail_idx].wire, l->idx + r->c->idx, why);
	if (dev < 0 || (r->hub = mkv_rail_hub(l, (unsigned)dev, why)) == NULL) {
		rail_failed(r, MKV_E_UNSUPPORTED, why);
		return;
	}
	if ((e = rail_ask(r)) != 0) {
		r->hub = NULL;
		rail_failed(r, e, "a queue pair cannot be made");
		return;
	}
	mkv_list_push_tail(&r->hub->list, &r->link);
	r->state = RAIL_ATTACHING;
	rail_arm(r, RAIL_ATTACH_NS);
}

void
mkv_rail_tether_up(struct conn *c)
{
	if (c->rail == NULL)
		return;
	c->rail->channel = 0;
	rail_attach(c->rail);
}

/* What this end has. A try that broke before it was sent goes out with queue pair 0, which the server refuses. */
void
mkv_rail_attach_body(struct conn *c, void *attach)
{
	struct mkv_wire_attach *w = attach;
	struct rail *r = c->rail;

	memset(w, 0, sizeof(*w));
	w->transport = MKV_FEATURE_RDMA_RC;
	w->channel = r->channel;
	if (r->state != RAIL_ATTACHING)
		return;
	mkv_rail_qp_tell(r, w);
	mkv_ctl_ask(r, w);
}

static int
rail_keys(struct rail *r)
{
	const struct conn *c = r->c;
	uint8_t front[MKV_KEY_BYTES], key[MKV_KEY_BYTES];
	int e;

	if ((e = mkv_key_front(rail_loop(r)->c->cf.cred, c->front_id, front)) == 0 &&
	    (e = mkv_key_session(front, c->nonce, c->nonce_s, MKV_DIR_C2S, r->channel, c->front_id, c->transcript, key)) == 0 &&
	    (e = mkv_mac_create(&r->mac_tx, key)) == 0 &&
	    (e = mkv_key_session(front, c->nonce, c->nonce_s, MKV_DIR_S2C, r->channel, c->front_id, c->transcript, key)) == 0)
		e = mkv_mac_create(&r->mac_rx, key);
	mkv_wipe(front, sizeof(front));
	mkv_wipe(key, sizeof(key));
	return (e);
}

static int
rail_connect(struct rail *r, const struct mkv_wire_attach *w)
{
	int e;

	if (w->channel != r->channel || w->credits < 2 || w->recv_bytes < 1024)
		return (MKV_E_PEER);
	r->session_id = r->c->session_id;
	if ((e = mkv_ctl_attached(r, w)) != 0 || (e = rail_keys(r)) != 0 || (e = mkv_rail_qp_connect(r, w)) != 0)
		return (e);
	r->credits = w->credits;
	r->peer_bytes = MKV_MIN(w->recv_bytes, MKV_WIRE_RDMA_BYTES);
	r->tx_counter = r->rx_counter = 0;
	memset(&r->rx_window, 0, sizeof(r->rx_window));
	r->srtt_ns = 0;
	return (0);
}

/* 1: only DC is refused there. No failure of the rail: the same try goes on, by RC on a new session. */
static int
rail_other_kind(struct rail *r, int err)
{
	if (!mkv_ctl_refused(r, err) && !mkv_rail_qp_without_dc(r, err))
		return (0);
	r->again = 1;
	mkv_rail_break(r, err, "");
	return (1);
}

static void
rail_no_way(struct rail *r, int err)
{
	rail_failed(r, err, err == MKV_E_UNREACHABLE ? "no way to the server's address on that network" : "the queue pairs do not fit together");
}

int
mkv_rail_attached(struct conn *c, const struct slot *s, const struct mkv_hdr *h, const uint8_t *body)
{
	struct mkv_wire_attach w;
	struct rail *r = c->rail;
	int e;

	if (h->op != MKV_WIRE_ATTACH || !mkv_err_known(-(int)h->status) || (h->status == 0 && h->body_bytes < sizeof(w)))
		return (MKV_E_PEER);
	if (r->state != RAIL_ATTACHING || s->attach != r->channel)
		return (0);				/* of a try that was given up */
	if (h->status != 0) {
		if (!rail_other_kind(r, -(int)h->status))
			rail_failed(r, -(int)h->status, "the server refuses to attach");
		return (-(int)h->status);		/* who counts the channel's number how is not worth knowing: a new session */
	}
	memcpy(&w, body, sizeof(w));
	if ((e = rail_connect(r, &w)) != 0) {
		if (rail_other_kind(r, e))
			return (e);
		rail_no_way(r, e);
		return (0);
	}
	r->state = RAIL_CONNECTING;
	rail_arm(r, RAIL_ATTACH_NS);
	mkv_rail_connected(r);
	return (0);
}

void
mkv_rail_connected(struct rail *r)
{
	int e = mkv_rail_qp_connected(r);

	if (e == MKV_E_AGAIN)
		return;
	if (e != 0) {
		rail_no_way(r, e);
		return;
	}
	r->state = RAIL_PROVING;
	r->heard_ns = rail_loop(r)->now_ns;
	mkv_rail_ping(r);
	rail_arm(r, RAIL_ATTACH_NS);
}

void
mkv_rail_proven(struct rail *r)
{
	r->state = RAIL_LIVE;
	r->live_ns = rail_loop(r)->now_ns;
	mkv_timer_disarm(&rail_loop(r)->timers, &r->timer);
	mkv_rails_live(r, 1);
	mkv_rails_trying(r, 0);
	client_count(rail_loop(r)->c, CC_rdma_attached_total, 1);
	mkv_rails_level(r);
	if (r->ctl.loose)
		mkv_rail_ping(r);			/* by datagram: is it answered? */
	mkv_server_pump(r->c->srv);
}

/* ---- broken ---- */

static void
rail_lose(struct rail *r, struct rail_slot *s, int err)
{
	struct leg *l = mkv_rail_slot_free(r, s);

	if (l == NULL)
		return;
	if (l->state == LEG_ENDING)
		mkv_leg_detached(l);
	else
		mkv_leg_lost(l, err);
}

/* It has been up: the failures before it are history, unless it lived for a moment only and the way has brought no value for long. */
static void
rail_ended_live(struct rail *r)
{
	struct pool *p = r->c->srv->pool;
	struct rail_known *k = &p->rail[r->c->rail_idx];

	mkv_rails_live(r, 0);
	if (rail_loop(r)->now_ns - r->live_ns < RAIL_PROVEN_NS && rail_loop(r)->now_ns - k->carried_ns >= RAIL_CARRIED_NS) {
		mkv_rails_backoff(r);
		return;
	}
	k->backoff_ns = k->not_before_ns = 0;
	r->soon = 1;
}

static void
rail_lose_all(struct rail *r, int err)
{
	for (unsigned i = 0; i < RAIL_SLOTS; i++)
		if (r->slot[i].id != 0)
			rail_lose(r, &r->slot[i], err);
}

/* Without a fence memory does not go back, whatever the deadlines: its callers wait for the NIC. */
void
mkv_rail_break(struct rail *r, int err, const char *why)
{
	int was_live = r->state == RAIL_LIVE;

	if (r->state == RAIL_OFF || r->state == RAIL_BREAKING)
		return;
	r->unfenced = mkv_rail_qp_fence(r) ? 0 : err;
	r->state = RAIL_BREAKING;
	mkv_timer_disarm(&rail_loop(r)->timers, &r->timer);
	rail_loop(r)->dirty = 1;
	mkv_ctl_bye(r);
	if (was_live) {
		rail_ended_live(r);
		mkv_rails_failed(r, err, why);
	}
	if (!r->unfenced)
		rail_lose_all(r, err);
	if (!r->again)
		mkv_rails_trying(r, 0);
}

/* Its last work request came back. */
void
mkv_rail_idle(struct rail *r)
{
	if (r->unfenced)
		rail_lose_all(r, r->unfenced);
	r->unfenced = 0;
	mkv_list_remove(&r->link);
	mkv_rail_qp_drop(r);
	mkv_mac_destroy(&r->mac_tx);
	mkv_mac_destroy(&r->mac_rx);
	r->hub = NULL;
	r->state = RAIL_OFF;
	if (r->alone)
		mkv_rail_tether_down(r->c, MKV_E_CLOSED);
	if (r->c->state == CONN_READY)
		rail_arm(r, r->soon ? 0 : mkv_rails_wait(r));
	else
		mkv_server_pump(r->c->srv);		/* the connection may begin again */
}

void
mkv_rail_tether_down(struct conn *c, int err)
{
	struct rail *r = c->rail;

	if (r == NULL)
		return;
	r->alone = 0;
	if (r->state == RAIL_ATTACHING || r->state == RAIL_CONNECTING || r->state == RAIL_PROVING) {
		mkv_rails_failed(r, err, "its connection ended before it was attached");
		mkv_rails_backoff(r);
	}
	mkv_rail_break(r, err, "its connection ended");
	mkv_ctl_tether_down(r);
	if (!mkv_ctl_says_bye(r))
		mkv_timer_disarm(&rail_loop(r)->timers, &r->timer);
	r->soon = 0;
}

static void
rail_done(struct mkv_rdma_qp *qp MKV_UNUSED, void *cookie MKV_UNUSED, int status MKV_UNUSED)
{
	/* Messages are copied when they are queued, and a failure comes by broken(). */
}

void
mkv_rail_trouble(struct rail *r, int err, const char *why)
{
	if (r->state == RAIL_LIVE)
		mkv_rail_break(r, err, why);
	else if (r->state != RAIL_BREAKING)
		rail_failed(r, err, why);
}

static void
rail_broken(struct mkv_rdma_qp *qp, const char *why)
{
	struct rail *r = mkv_rdma_qp_owner(qp);

	MKV_CHECK_OBJ(r, RAIL_MAGIC);
	mkv_rail_trouble(r, MKV_E_CLOSED, why);
}

/* ---- time ---- */

static void
rail_on_timer(struct mkv_timer *t, uint64_t now_ns MKV_UNUSED)
{
	struct rail *r = MKV_CONTAINER_OF(t, struct rail, timer);

	MKV_CHECK_OBJ(r, RAIL_MAGIC);
	switch (r->state) {
	case RAIL_OFF:
		if (r->c->state == CONN_READY)
			rail_attach(r);
		return;
	case RAIL_ATTACHING:
		rail_failed(r, MKV_E_TIMEOUT, "the server does not answer to ATTACH");
		mkv_conn_fail(r->c, MKV_E_TIMEOUT);
		return;
	case RAIL_CONNECTING:
		rail_failed(r, MKV_E_TIMEOUT, "the kernel does not find the server's address on that network");
		return;
	case RAIL_PROVING:
		rail_failed(r, MKV_E_TIMEOUT, "attached, but no message gets through: path MTU, flow control or VLAN on the way");
		return;
	case RAIL_LIVE:
		mkv_rail_watch(r);
		return;
	case RAIL_BREAKING:
		mkv_ctl_bye_due(r);
		return;
	}
}

/* What a slot waits for next, in time. */
static uint64_t
slot_due(const struct rail_slot *s)
{
	if (s->leg == NULL)
		return (MKV_MIN(s->again_ns, s->ended_ns + RAIL_LIMIT_NS));
	if (!s->lent)
		return (s->again_ns);			/* or its op's own timer */
	return (MKV_MIN(s->again_ns, MKV_MIN(s->cancel_ns, s->fence_ns)));
}

/* 1: the fence is due. */
static int
slot_look(struct rail *r, struct rail_slot *s)
{
	uint64_t now = rail_loop(r)->now_ns;

	if (s->again_ns <= now && mkv_ctl_again(r, s))
		return (1);
	if (slot_due(s) > now)
		return (0);
	if (s->leg != NULL && s->fence_ns > now) {
		mkv_rail_cancel(r, s);
		return (0);
	}
	if (s->leg != NULL) {
		client_count(rail_loop(r)->c, CC_fences_total, 1);
		return (1);
	}
	if (s->overtaken || r->heard_ns <= s->ended_ns || now - r->heard_ns >= RAIL_LIMIT_NS)
		return (1);				/* silent since it was owed an answer */
	s->ended_ns = now;
	return (0);
}

void
mkv_rail_watch(struct rail *r)
{
	uint64_t now = rail_loop(r)->now_ns, next = UINT64_MAX;

	MKV_LIST_FOREACH(it, &r->out) {
		struct rail_slot *s = MKV_CONTAINER_OF(it, struct rail_slot, link);

		if (slot_look(r, s)) {
			mkv_rail_break(r, MKV_E_TIMEOUT, "no answer in time");
			return;
		}
		next = MKV_MIN(next, slot_due(s));
	}
	if (r->n_out > 0 && r->ping == NULL) {
		if (now - r->heard_ns >= RAIL_QUIET_NS)
			mkv_rail_ping(r);
		next = MKV_MIN(next, MKV_MAX(r->heard_ns, now) + RAIL_QUIET_NS);
	}
	if (r->alone && r->ping == NULL) {
		if (now - r->heard_ns >= RAIL_ALIVE_NS)
			mkv_rail_ping(r);
		next = MKV_MIN(next, MKV_MAX(r->heard_ns + RAIL_ALIVE_NS, now + RAIL_QUIET_NS));
	}
	if (next != UINT64_MAX)
		mkv_timer_arm(&rail_loop(r)->timers, &r->timer, next);
}
