/*
 * The connections of one server: making them, choosing one for a request, ending them.
 *
 * The loop's thread. Owns the descriptors, the sessions' keys and the slots.
 * Invariants: a connection in CONN_CLOSING keeps the legs whose memory the kernel still has (tx_lent, rx_lent) until recv and send have ended; the
 * descriptor is closed after that and never before. A slot is out from the moment its leg is queued until its last answer came, so credits are never
 * exceeded.
 * Fails: no descriptor, no route, no name: mkv_server_failed().
 */
#include "config.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "clients/lib/into.h"
#include "clients/lib/tcp_priv.h"
#include "common/base/clock.h"
#include "common/base/os.h"

#define CONN_UNSENT_BYTES	(256 << 10)
#define ENDED_MOST_NS	(30000 * MKV_NS_PER_MS)		/* no answer to an ended request for so long: the server has lost it */
#define CANCEL_FROM_BYTES (1u << 20)			/* ended gets of more than this are cancelled at the server */

static void	conn_on_timer(struct mkv_timer *t, uint64_t now_ns);

static struct pool *
pool_of(const struct server *s)
{
	return (s->pool);
}

/* ---- slots ---- */

struct slot *
mkv_slot_take(struct conn *c, struct leg *l)
{
	struct mkv_list *n;
	struct slot *s;

	if (c->n_out >= c->credits || (n = mkv_list_pop(&c->slot_free)) == NULL)
		return (NULL);
	s = MKV_CONTAINER_OF(n, struct slot, link);
	s->id = ++c->sequence << 8 | (uint64_t)(s - c->slot);
	s->leg = l;
	s->ended_ns = l == NULL ? c->srv->loop->now_ns : 0;
	s->drained = 0;
	s->cancels = 0;
	s->midway = 0;
	s->attach = 0;
	s->way = WAY_SOCKET;
	s->region = s->into = 0;
	s->large = l != NULL && l->wire_op == MKV_WIRE_GET && mkv_get_room(l->op) >= RX_LARGE_BYTES;
	c->n_large += (unsigned)s->large;
	c->n_out++;
	mkv_list_push_tail(&c->out, &s->link);
	return (s);
}

struct slot *
mkv_conn_slot(struct conn *c, uint64_t id)
{
	struct slot *s = &c->slot[id % CONN_SLOTS];

	return (id != 0 && s->id == id ? s : NULL);	/* 0 is what free ones have */
}

struct leg *
mkv_slot_release(struct conn *c, struct slot *s)
{
	struct leg *l = s->leg;

	MKV_ASSERT(s->id != 0 && c->n_out > 0);
	mkv_list_remove(&s->link);
	mkv_list_remove(&s->notice);
	mkv_list_push_tail(&c->slot_free, &s->link);
	c->n_out--;
	c->n_large -= (unsigned)s->large;
	s->id = 0;
	s->leg = NULL;
	s->large = 0;
	if (s->chunk.units > 0)
		mkv_shmwin_drop(&c->ref.window, &s->chunk);
	if (c->rx_slot == s)
		c->rx_slot = NULL;
	return (l);
}

void
mkv_conn_ended(struct conn *c, struct slot *s)
{
	MKV_ASSERT(s->leg != NULL);
	s->leg = NULL;
	s->ended_ns = c->srv->loop->now_ns;
	if (c->timer.heap_idx == 0)
		mkv_timer_arm(&c->srv->loop->timers, &c->timer, s->ended_ns + SILENCE_NS);
}

/* ---- ending ---- */

/* What the kernel still has stays: its memory comes back with the end of send or recv. */
static int
conn_holds(const struct conn *c, const struct slot *s)
{
	return ((c->tx_lent && c->tx_leg == s->leg) || (c->rx_lent && c->rx_slot == s));
}

/*
 * A front ends a session when it copies nothing more for it, and a front that has died copies nothing at all. A drive that it had read into the client's memory does not
 * stop with either.
 */
static void
conn_take_back(const struct conn *c, struct op *o)
{
	if (c->peer_ended && !c->ref.stable)
		mkv_into_over(o);
	else
		mkv_into_tear(o);
}

static void
conn_lose(struct conn *c, struct slot *s)
{
	struct leg *l = mkv_slot_release(c, s);

	if (l == NULL)
		return;
	if (c->tx_leg == l)
		c->tx_leg = NULL;
	mkv_list_remove(&l->link);
	if (l->state == LEG_ENDING)
		mkv_leg_detached(l);
	else if (l->early)
		mkv_leg_reply(l, l->status, l->reason, l->retry_after_us);
	else {
		conn_take_back(c, l->op);
		mkv_leg_lost(l, c->error);
	}
}

static void
conn_lose_all(struct conn *c)
{
	for (unsigned i = 0; i < CONN_SLOTS; i++)
		if (c->slot[i].id != 0 && !conn_holds(c, &c->slot[i]))
			conn_lose(c, &c->slot[i]);
}

static void
conn_reset(struct conn *c)
{
	mkv_mac_destroy(&c->mac_tx);
	mkv_mac_destroy(&c->mac_rx);
	mkv_ref_reset(c);
	c->state = CONN_IDLE;
	c->local = 0;
	c->fd = -1;
	c->session_id = c->tx_counter = c->rx_counter = 0;
	c->rx = RX_FRAME;
	c->rx_head = c->rx_tail = 0;
	c->rx_left = 0;
	c->was_ready = c->peer_ended = 0;
	mkv_list_init(&c->tx_small);
	MKV_ASSERT(c->n_out == 0 && c->tx_leg == NULL && mkv_list_empty(&c->txq) && mkv_list_empty(&c->notices));
}

static int
pool_serves(const struct pool *p)
{
	for (unsigned i = 0; i < p->n; i++)
		if (p->conn[i].state == CONN_READY)
			return (1);
	return (0);
}

/* A connection that was never up. */
static void
conn_failed(struct conn *c, int local, int err)
{
	struct server *s = c->srv;
	struct pool *p = pool_of(s);

	client_count(s->loop->c, CC_connect_failures_total, 1);
	if (c->rail != NULL) {
		mkv_rails_dial_failed(c, err);
		return;
	}
	if (local && mkv_local_is_up(p) && s->breaker != BREAKER_PROBING) {
		mkv_server_crowded(s, err);			/* one more than it takes */
		return;
	}
	if (local) {
		mkv_local_failed(c, err);
		if (!mkv_local_exact(p)) {
			if (s->breaker == BREAKER_PROBING)
				s->tr->probe(s);		/* the other way */
			return;
		}
	} else
		mkv_resolver_forget(s->loop->c->resolver, s->idx);
	if ((err == MKV_E_CLOSED || err == MKV_E_UNREACHABLE || err == MKV_E_BUSY) && pool_serves(p))
		mkv_server_crowded(s, err);
	else
		mkv_server_failed(s, err);
}

void
mkv_conn_check_closed(struct conn *c)
{
	struct server *s = c->srv;
	int was_ready = c->was_ready, local = c->local, err = c->error;

	if (c->state != CONN_CLOSING || c->tx_busy || c->rx_busy)
		return;
	conn_lose_all(c);
	if (c->fd >= 0)
		(void)close(c->fd);
	conn_reset(c);
	if (!was_ready)
		conn_failed(c, local, err);
	else {
		atomic_fetch_sub_explicit(&server_state_of(s)->sessions, 1, memory_order_relaxed);
		if (!pool_serves(pool_of(s)))
			mkv_server_alone(s);
	}
	mkv_server_pump(s);
}

static void
conn_end(struct conn *c, int err)
{
	struct loop *l = c->srv->loop;

	c->state = CONN_CLOSING;
	c->error = err;
	l->dirty = 1;					/* tcp_flush() closes it: our caller may be at work with it */
	mkv_timer_disarm(&l->timers, &c->timer);
	if (c->fd >= 0)
		(void)shutdown(c->fd, SHUT_RDWR);	/* also where a forked child holds a copy */
	if (c->tx_busy)
		mkv_ioq_cancel(l->q, &c->tx_io);
	if (c->rx_busy)
		mkv_ioq_cancel(l->q, &c->rx_io);
}

void
mkv_conn_fail(struct conn *c, int err)
{
	struct loop *l = c->srv->loop;

	if (c->state == CONN_CLOSING || c->state == CONN_IDLE)
		return;
	if (err == MKV_E_PEER || err == MKV_E_PROTO)
		client_count(l->c, CC_protocol_errors_total, 1);
	if (c->state == CONN_READY) {
		client_count(l->c, CC_sessions_lost_total, 1);
		if (c->local)
			mkv_local_down(c, err);
	}
	conn_end(c, err);
	mkv_rail_tether_down(c, err);
	conn_lose_all(c);
}

/* It is good, and not wanted any more. */
void
mkv_conn_retire(struct conn *c)
{
	MKV_ASSERT(c->state == CONN_READY && c->n_out == 0);
	conn_end(c, MKV_E_CLOSED);
}

void
mkv_conn_drop(struct conn *c)
{
	MKV_ASSERT(!c->tx_busy);
	client_count(c->srv->loop->c, CC_tethers_dropped_total, 1);
	mkv_conn_retire(c);
}

/* ---- making ---- */

void
mkv_conn_ready(struct conn *c)
{
	struct server *s = c->srv;

	c->state = CONN_READY;
	c->was_ready = 1;
	c->heard_ns = s->loop->now_ns;
	s->part_bytes = c->part_bytes;
	mkv_timer_disarm(&s->loop->timers, &c->timer);
	client_count(s->loop->c, CC_sessions_total, 1);
	atomic_fetch_add_explicit(&server_state_of(s)->sessions, 1, memory_order_relaxed);
	mkv_local_up(c);
	if (!mkv_local_only_told(c))
		mkv_server_session_up(s);
	else if (s->breaker == BREAKER_PROBING)
		s->tr->probe(s);
	else
		mkv_server_pump(s);
	mkv_rail_tether_up(c);
}

static void
conn_on_connected(struct mkv_io *io, int res)
{
	struct conn *c = MKV_CONTAINER_OF(io, struct conn, tx_io);

	MKV_CHECK_OBJ(c, CONN_MAGIC);
	c->srv->loop->now_ns = mkv_now_ns();
	c->tx_busy = 0;
	if (c->state == CONN_CLOSING)
		return;
	if (res < 0)
		mkv_conn_fail(c, res);
	else
		mkv_conn_say_hello(c);
}

/* Unsent bytes in the kernel are copied early and go cold; what is sent and not acknowledged is not limited (docs/internals/tcp-path.md). */
static int
conn_socket(int family)
{
	int fd = socket(family, SOCK_STREAM | SOCK_CLOEXEC, 0), on = 1, unsent = CONN_UNSENT_BYTES;

	if (fd < 0)
		return (mkv_err_from_errno(errno));
	mkv_os_fd_away(&fd);
	(void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
	(void)setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof(on));
	(void)setsockopt(fd, IPPROTO_TCP, TCP_NOTSENT_LOWAT, &unsent, sizeof(unsent));
	return (fd);
}

/* 0; MKV_E_AGAIN; MKV_E_UNREACHABLE. */
static int
conn_address(struct conn *c)
{
	if (!c->local)
		return (mkv_resolver_ask(c->srv->loop->c->resolver, c->srv->idx, &c->sa, &c->sa_bytes));
	mkv_local_address(c);
	return (0);
}

/* The name is asked for, or known: go on. */
static void
conn_dial(struct conn *c)
{
	struct loop *l = c->srv->loop;
	int r = conn_address(c);

	if (r == MKV_E_AGAIN)
		return;					/* mkv_loop_names() comes, or the limit */
	if (r == 0)
		r = c->fd = conn_socket(c->sa.ss_family);
	if (r < 0) {
		c->fd = -1;
		mkv_conn_fail(c, r);
		return;
	}
	c->state = CONN_CONNECTING;
	c->tx_busy = 1;
	c->tx_io.done = conn_on_connected;
	mkv_ioq_connect(l->q, &c->tx_io, MKV_FD(c->fd), (struct sockaddr *)&c->sa, c->sa_bytes);
}

void
mkv_conn_begin(struct conn *c)
{
	struct loop *l = c->srv->loop;

	MKV_ASSERT(c->state == CONN_IDLE);
	client_count(l->c, CC_connects_total, 1);
	c->state = CONN_NAMING;
	mkv_timer_arm(&l->timers, &c->timer, l->now_ns + l->c->cf.connect_timeout_ns);
	conn_dial(c);
}

static uint64_t
conn_oldest_ended(const struct conn *c)
{
	MKV_LIST_FOREACH(it, &c->out) {
		const struct slot *s = MKV_CONTAINER_OF(it, struct slot, link);

		if (s->leg == NULL)
			return (s->ended_ns);
	}
	return (UINT64_MAX);
}

/* Not ready: the limit of making it. Ready: does the server still answer what it owes? */
static void
conn_on_timer(struct mkv_timer *t, uint64_t now_ns)
{
	struct conn *c = MKV_CONTAINER_OF(t, struct conn, timer);
	uint64_t oldest;

	MKV_CHECK_OBJ(c, CONN_MAGIC);
	if (c->state != CONN_READY) {
		mkv_conn_fail(c, MKV_E_TIMEOUT);
		return;
	}
	if ((oldest = conn_oldest_ended(c)) == UINT64_MAX)
		return;
	if (now_ns - MKV_MAX(oldest, c->heard_ns) >= SILENCE_NS || now_ns - oldest >= ENDED_MOST_NS)
		mkv_conn_fail(c, MKV_E_TIMEOUT);
	else
		mkv_timer_arm(&c->srv->loop->timers, t, now_ns + SILENCE_NS / 4);
}

static void
pool_on_timer(struct mkv_timer *t, uint64_t now_ns MKV_UNUSED)
{
	mkv_server_pump(MKV_CONTAINER_OF(t, struct pool, timer)->srv);
}

void
mkv_pool_arm(struct pool *p, uint64_t at_ns)
{
	p->timer.fire = pool_on_timer;
	if (p->timer.heap_idx == 0 || p->timer.at_ns > at_ns)
		mkv_timer_arm(&p->srv->loop->timers, &p->timer, at_ns);
}

/* ---- the carrier's ops ---- */

static void
conn_init(struct conn *c, struct server *s, unsigned idx)
{
	c->magic = CONN_MAGIC;
	c->srv = s;
	c->idx = idx;
	c->fd = -1;
	c->timer.fire = conn_on_timer;
	mkv_list_init(&c->slot_free);
	mkv_list_init(&c->out);
	mkv_list_init(&c->notices);
	mkv_list_init(&c->txq);
	mkv_list_init(&c->tx_small);
	for (unsigned i = 0; i < CONN_SLOTS; i++) {
		mkv_list_init(&c->slot[i].notice);
		mkv_list_push_tail(&c->slot_free, &c->slot[i].link);
	}
}

/* One more than asked for: the breaker's probe must not wait for a connection that hangs. Behind them those to rails. */
static int
tcp_open(struct server *s)
{
	unsigned plain = s->loop->c->cf.connections + 1, n = plain + mkv_rails_conns(&s->loop->c->cf);
	struct pool *p = calloc(1, sizeof(*p) + n * sizeof(p->conn[0]));

	if ((s->pool = p) == NULL)
		return (MKV_E_NOMEM);
	p->srv = s;
	mkv_local_open(p);
	p->n_plain = plain;
	for (p->n = 0; p->n < n; p->n++) {
		struct conn *c = &p->conn[p->n];

		conn_init(c, s, p->n);
		c->tx_buf = aligned_alloc(64, TX_BUF_BYTES);
		c->rx_buf = aligned_alloc(64, MKV_ALIGN_UP(RX_BUF_BYTES, 64));
		if (c->tx_buf == NULL || c->rx_buf == NULL || (p->n >= plain && mkv_rail_create(c) != 0)) {
			p->n++;
			return (MKV_E_NOMEM);
		}
	}
	return (0);
}

static void
tcp_stop(struct server *s)
{
	struct pool *p = pool_of(s);

	for (unsigned i = 0; i < p->n; i++) {
		mkv_conn_fail(&p->conn[i], MKV_E_CLOSED);
		if (mkv_rail_is_alone(&p->conn[i]))
			mkv_rail_tether_down(&p->conn[i], MKV_E_CLOSED);
	}
}

static void
tcp_close(struct server *s)
{
	struct pool *p = pool_of(s);

	for (unsigned i = 0; p != NULL && i < p->n; i++) {
		struct conn *c = &p->conn[i];

		if (c->fd >= 0)
			(void)close(c->fd);
		mkv_mac_destroy(&c->mac_tx);
		mkv_mac_destroy(&c->mac_rx);
		mkv_ref_reset(c);
		mkv_stage_free(&c->tx_stage, s->loop);
		mkv_stage_free(&c->rx_stage, s->loop);
		free(c->tx_buf);
		free(c->rx_buf);
		mkv_rail_destroy(c);
	}
	free(p);
	s->pool = NULL;
}

/* A stream cuts its value as the server said when it began. */
static int
conn_suits(const struct conn *c, const struct leg *l)
{
	return (l->op->kind != OPK_STREAM || c->part_bytes == l->op->part_bytes);
}

/* What the server is to be shown must not wait for ever for a credit. */
static int
conn_has_room(const struct conn *c)
{
	return (c->n_out + (c->ref.due > 0) < MKV_MIN(c->credits, CONN_SLOTS));
}

static struct conn *
tcp_choose(struct server *s, const struct leg *l)
{
	struct pool *p = pool_of(s);
	struct conn *best = NULL;

	for (unsigned i = 0; i < p->n; i++) {
		struct conn *c = &p->conn[i];

		if (i == p->n_plain && best != NULL)
			break;				/* tethers are for what comes when no other has room */
		if (c->state == CONN_READY && conn_has_room(c) && (best == NULL || c->n_out < best->n_out) &&
		    conn_suits(c, l) && mkv_local_takes(p, c))
			best = c;
	}
	return (best);
}

static int
tcp_send(struct server *s, struct leg *l)
{
	struct conn *c;
	int err;

	if ((c = mkv_rails_choose(s, l, &err)) != NULL) {
		mkv_rail_send(c, l);
		return (0);
	}
	if (err != 0)
		return (err);
	if ((c = tcp_choose(s, l)) == NULL)
		return (mkv_local_verdict(pool_of(s)));
	l->conn = c;
	l->slot = mkv_slot_take(c, l);
	MKV_ASSERT(l->slot != NULL);
	mkv_leg_set_state(l, LEG_QUEUED);
	mkv_list_push_tail(&c->txq, &l->link);
	s->loop->dirty = 1;
	return (0);
}

static struct conn *
tcp_idle(struct server *s)
{
	struct pool *p = pool_of(s);

	for (unsigned i = 0; i < p->n_plain; i++)
		if (p->conn[i].state == CONN_IDLE)
			return (&p->conn[i]);
	return (NULL);
}

/* Connections by the unix socket, or others, as many as are asked for. */
static void
pool_want(struct pool *p, int local, int waiting)
{
	unsigned ready = 0, making = 0, idle = 0;
	struct conn *c;

	for (unsigned i = 0; i < p->n_plain; i++) {
		c = &p->conn[i];
		if (c->local != local)
			continue;
		ready += c->state == CONN_READY;
		making += c->state > CONN_IDLE && c->state < CONN_READY;
		idle += c->state == CONN_READY && c->n_out == 0;
	}
	if (making > 0 || idle > 0 || ready >= p->srv->loop->c->cf.connections || (ready == 0 && !waiting))
		return;
	if ((c = tcp_idle(p->srv)) != NULL) {
		c->local = local;
		mkv_conn_begin(c);
	}
}

/* Whoever is served another way goes over to the unix socket unasked. Until one is up both ways are tried. */
static void
tcp_want(struct server *s, int waiting)
{
	struct pool *p = pool_of(s);
	int local = mkv_local_wanted(p);

	mkv_rails_want(s);
	if (!s->may_connect)
		return;
	if (local)
		pool_want(p, 1, waiting || pool_serves(p));
	if (!local || (!mkv_local_exact(p) && !pool_serves(p)))
		pool_want(p, 0, waiting);
}

static void
tcp_probe(struct server *s)
{
	struct conn *c = tcp_idle(s);

	if (c != NULL) {
		c->local = mkv_local_wanted(pool_of(s));
		mkv_conn_begin(c);
	} else
		mkv_server_failed(s, MKV_E_TIMEOUT);	/* all hang: their limits free one */
}

static void
tcp_notice(struct conn *c, struct slot *s, uint8_t midway)
{
	s->midway = midway;
	mkv_list_push_tail(&c->notices, &s->notice);
	c->srv->loop->dirty = 1;
}

/* It is in the frame in work, which cannot be taken back: the connection ends with it. */
static int
tcp_detach_frame(struct conn *c, struct leg *l)
{
	if (c->tx_lent) {
		mkv_conn_fail(c, MKV_E_CANCELLED);
		return (0);
	}
	c->tx_leg = NULL;
	mkv_conn_ended(c, l->slot);
	mkv_conn_fail(c, MKV_E_CANCELLED);
	return (1);
}

static int
tcp_detach(struct leg *l)
{
	struct conn *c = l->conn;
	struct slot *s = l->slot;
	int untouched = l->state == LEG_QUEUED && l->tx_off == 0 && l->tx_key == 0;
	uint8_t midway = !untouched && !l->last_begun ? l->wire_op : 0;

	if (l->rslot != NULL)
		return (mkv_rail_detach(l));
	if (c->tx_leg == l)
		return (tcp_detach_frame(c, l));
	if (!mkv_conn_rx_detach(c, l))
		return (0);
	mkv_list_remove(&l->link);
	if (untouched) {
		(void)mkv_slot_release(c, s);
		return (1);
	}
	mkv_conn_ended(c, s);
	if (midway || (s->large && mkv_get_room(l->op) - l->rx_off > CANCEL_FROM_BYTES) || l->op->end_status == MKV_E_CANCELLED)
		tcp_notice(c, s, midway);
	return (1);
}

void
mkv_conn_early_reply(struct conn *c, struct leg *l)
{
	struct slot *s = l->slot;
	int status = l->status;

	mkv_list_remove(&l->link);
	if (l->last_begun)
		(void)mkv_slot_release(c, s);
	else {
		mkv_conn_ended(c, s);
		tcp_notice(c, s, l->wire_op);
	}
	mkv_leg_reply(l, status, l->reason, l->retry_after_us);
}

static void
tcp_part(struct leg *l)
{
	mkv_leg_set_state(l, LEG_QUEUED);
	mkv_list_push_tail(&l->conn->txq, &l->link);
	l->srv->loop->dirty = 1;
}

/* What is left to be copied goes on, once a turn. */
static void
tcp_flush_ref(struct conn *c)
{
	mkv_pass_sweep(c);
	if (c->rx == RX_WINDOW && c->ref.rx_turn != c->srv->loop->turn)
		mkv_conn_rx_start(c);
}

static void
tcp_flush(struct server *s)
{
	struct pool *p = pool_of(s);

	if (!mkv_list_empty(&s->waiting))
		mkv_server_pump(s);			/* an answer may have made room */
	for (unsigned i = 0; i < p->n; i++) {
		struct conn *c = &p->conn[i];

		if (c->rail != NULL && (c->state != CONN_CLOSING || mkv_rail_is_alone(c)))
			mkv_rail_tx(c->rail);
		if (c->state == CONN_READY && c->ref.on)
			tcp_flush_ref(c);
		if (c->state == CONN_READY && (c->ref.due > 0 || c->tx_leg != NULL || !mkv_list_empty(&c->txq) || !mkv_list_empty(&c->notices) || mkv_ctl_has_frames(c)))
			mkv_conn_tx_start(c);
		if (mkv_local_spares(p, c))
			mkv_conn_retire(c);
		if (c->state == CONN_CLOSING)
			mkv_conn_check_closed(c);
	}
}

static void
tcp_names(struct server *s)
{
	struct pool *p = pool_of(s);

	for (unsigned i = 0; i < p->n; i++)
		if (p->conn[i].state == CONN_NAMING)
			conn_dial(&p->conn[i]);
}

const struct transport_ops mkv_client_tcp = {
	.name = "tcp",
	.open = tcp_open,
	.stop = tcp_stop,
	.close = tcp_close,
	.send = tcp_send,
	.want = tcp_want,
	.probe = tcp_probe,
	.detach = tcp_detach,
	.part = tcp_part,
	.flush = tcp_flush,
	.names = tcp_names,
};
