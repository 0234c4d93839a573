/*
 * The rails of a server: which there are, connections to them, and which carrier takes a request.
 *
 * The loop's thread, but for mkv_rails_settle(). Connections behind pool->n_plain are for rails; they share a server's rails round-robin, so that sessions spread and
 * a rail that fails leaves the others. A rail that failed is tried again after a back-off (100 ms, doubled up to 10 s, with jitter), whatever the breaker of
 * the server does: connections to rails count for nothing there. One connection more than asked for is there to try a rail that has none while another has two:
 * once its queue pair is up, one of those two leaves as soon as nothing is on it.
 */
#include "config.h"

#include <stdio.h>
#include <string.h>

#include "clients/lib/rail_priv.h"
#include "common/base/clock.h"

#define HOPELESS_NS	(4 * RAIL_BACKOFF_NS)	/* three failures in a row: requests that must go by RDMA do not wait for the next try */

unsigned
mkv_rails_conns(const struct conf *cf)
{
	return (mkv_rail_wanted(cf) ? cf->connections + 1 : 0);
}

uint16_t
mkv_rails_number(const struct conn *c)
{
	return (c->rail == NULL ? 0 : conn_pool(c)->rail[c->rail_idx].wire.rail);
}

/* ---- what callers and metrics see ---- */

static void
rails_tell(const struct server *s, const char *why)
{
	struct mkv_client *c = s->loop->c;

	(void)pthread_mutex_lock(&c->mutex);
	if (why != NULL)
		(void)snprintf(c->state[s->idx].rail_why, WHY_BYTES, "%s", why);
	(void)pthread_cond_broadcast(&c->rails_changed);
	(void)pthread_mutex_unlock(&c->mutex);
}

/* Whoever runs the program hears of each change once, and of nothing that its end brings. */
static void
rails_warn(const struct server *s, int down, const char *why)
{
	struct mkv_client *c = s->loop->c;
	struct server_state *st = server_state_of(s);
	char text[2 * WHY_BYTES];
	int news;

	(void)pthread_mutex_lock(&c->mutex);
	news = st->rail_warned != down && !s->loop->ending;
	if (news)
		st->rail_warned = down;
	(void)pthread_mutex_unlock(&c->mutex);
	if (!news || c->cf.warn == NULL)
		return;
	if (!down)
		(void)snprintf(text, sizeof(text), "server %s: values go by RDMA again", s->conf->name);
	else
		(void)snprintf(text, sizeof(text), "server %s: %s; %s", s->conf->name, c->cf.transport == MKV_TRANSPORT_RDMA ?
		    "no rail is up, and by transport rdma its values go no other way" : "values go by TCP until a rail is up", why);
	c->cf.warn(c->cf.warn_arg, text);
}

void
mkv_rails_trying(struct rail *r, int on)
{
	struct server *s = r->c->srv;

	if (r->trying == on)
		return;
	r->trying = on;
	if (on) {
		atomic_fetch_add_explicit(&server_state_of(s)->rail_tries, 1, memory_order_relaxed);
		return;
	}
	atomic_fetch_sub_explicit(&server_state_of(s)->rail_tries, 1, memory_order_relaxed);
	rails_tell(s, NULL);
}

void
mkv_rails_live(struct rail *r, int up)
{
	struct server *s = r->c->srv;
	struct server_state *st = server_state_of(s);

	if (up) {
		atomic_fetch_add_explicit(&st->rail_live[r->c->rail_idx][mkv_rail_is_dc(r)], 1, memory_order_relaxed);
		if (atomic_fetch_add_explicit(&st->live, 1, memory_order_relaxed) == 0)
			client_count(s->loop->c, CC_rdma_upgrades_total, 1);
		rails_tell(s, "");
		rails_warn(s, 0, "");
	} else {
		atomic_fetch_sub_explicit(&st->rail_live[r->c->rail_idx][mkv_rail_is_dc(r)], 1, memory_order_relaxed);
		if (atomic_fetch_sub_explicit(&st->live, 1, memory_order_relaxed) == 1)
			client_count(s->loop->c, CC_rdma_downgrades_total, 1);
	}
}

/* ---- rails and their back-off ---- */

/* A rail knows itself best: when the server told of it, it may not have been up. */
static void
rails_told_by_rail(struct conn *c, const uint8_t *rails, unsigned n)
{
	struct rail_known *k = &conn_pool(c)->rail[c->rail_idx];
	struct mkv_wire_rail w;

	for (unsigned i = 0; i < n; i++) {
		memcpy(&w, rails + i * sizeof(w), sizeof(w));
		if (w.rail == k->wire.rail && w.state == 1)
			k->wire = w;
	}
}

void
mkv_rails_told(struct conn *c, const void *rails, unsigned n)
{
	struct pool *p = conn_pool(c);

	if (p->n == p->n_plain)
		return;
	if (c->rail != NULL) {
		rails_told_by_rail(c, rails, n);
		return;
	}
	p->told = 1;
	p->n_rails = n;
	for (unsigned i = 0; i < n; i++) {
		memcpy(&p->rail[i].wire, (const uint8_t *)rails + i * sizeof(p->rail[i].wire), sizeof(p->rail[i].wire));
		p->rail[i].no_dc = p->rail[i].no_udp = p->rail[i].no_loose = 0;
		p->rail[i].loose_most = 0;
	}
	atomic_store_explicit(&server_state_of(c->srv)->n_rails, n, memory_order_relaxed);
	rails_tell(c->srv, n == 0 ? "the server has no rails" : NULL);
}

static uint64_t
known_backoff(struct server *s, struct rail_known *k)
{
	uint64_t now = s->loop->now_ns;

	if (k->not_before_ns > now)
		return (k->not_before_ns - now);	/* of several connections to it the first that failed counts */
	k->backoff_ns = k->backoff_ns == 0 ? RAIL_BACKOFF_NS : MKV_MIN(2 * k->backoff_ns, RAIL_BACKOFF_MOST_NS);
	k->not_before_ns = now + mkv_server_jitter(s, k->backoff_ns);
	return (k->not_before_ns - now);
}

void
mkv_rails_carried(struct rail *r)
{
	conn_pool(r->c)->rail[r->c->rail_idx].carried_ns = r->c->srv->loop->now_ns;
}

void
mkv_rails_backoff(struct rail *r)
{
	(void)known_backoff(r->c->srv, &conn_pool(r->c)->rail[r->c->rail_idx]);
}

uint64_t
mkv_rails_wait(const struct rail *r)
{
	uint64_t now = r->c->srv->loop->now_ns, at = conn_pool(r->c)->rail[r->c->rail_idx].not_before_ns;

	return (at > now ? at - now : 0);
}

void
mkv_rails_failed(struct rail *r, int err, const char *why)
{
	struct server *s = r->c->srv;
	char text[WHY_BYTES];

	client_count(s->loop->c, CC_rdma_failures_total, 1);
	(void)snprintf(text, sizeof(text), "rail %u: %s", mkv_rails_number(r->c), why[0] != '\0' ? why : mkv_err(err));
	rails_tell(s, text);
	/* A host without a device goes by TCP as it always did; by the unix socket of this host rails are not missed. */
	if (atomic_load_explicit(&server_state_of(s)->live, memory_order_relaxed) == 0 && atomic_load_explicit(&server_state_of(s)->local, memory_order_relaxed) == 0 &&
	    mkv_fabric_is_there(s->loop->c))
		rails_warn(s, 1, text);
}

void
mkv_rails_dial_failed(struct conn *c, int err)
{
	struct pool *p = conn_pool(c);
	char text[64];

	if (p->rail[c->rail_idx].wire.state == 1)
		(void)snprintf(text, sizeof(text), "no session with it (%s)", mkv_err(err));
	else
		(void)snprintf(text, sizeof(text), "the server says that it is not up");
	mkv_rails_trying(c->rail, 0);
	mkv_rails_failed(c->rail, err, text);
	mkv_pool_arm(p, c->srv->loop->now_ns + known_backoff(c->srv, &p->rail[c->rail_idx]));
}

/* ---- making connections ---- */

static int
conn_counts(const struct conn *c)
{
	return (!c->leaving && (c->state != CONN_IDLE || !mkv_rail_is_off(c)));
}

static int
conn_is_live(const struct conn *c)
{
	return (!c->leaving && c->rail->state == RAIL_LIVE);
}

typedef int	conn_is_fn(const struct conn *c);

static unsigned
rail_conns_of(const struct pool *p, unsigned k, conn_is_fn *is)
{
	unsigned n = 0;

	for (unsigned i = p->n_plain; i < p->n; i++)
		n += is(&p->conn[i]) && p->conn[i].rail_idx == k;
	return (n);
}

static unsigned
rail_conns(const struct pool *p, conn_is_fn *is)
{
	unsigned n = 0;

	for (unsigned i = p->n_plain; i < p->n; i++)
		n += (unsigned)is(&p->conn[i]);
	return (n);
}

/* A connection of the rail that has most, if that is more than one. */
static struct conn *
rails_crowded(struct pool *p, conn_is_fn *is)
{
	unsigned most = 1, n;
	struct conn *c = NULL;

	for (unsigned i = p->n_plain; i < p->n; i++) {
		if (!is(&p->conn[i]) || (n = rail_conns_of(p, p->conn[i].rail_idx, is)) <= most)
			continue;
		most = n;
		c = &p->conn[i];
	}
	return (c);
}

/* One more than asked for is up: its rail works again. What is only being tried may come to nothing, and those that are up would be too few. */
void
mkv_rails_level(struct rail *r)
{
	struct pool *p = conn_pool(r->c);
	struct conn *c;

	if (rail_conns(p, conn_is_live) > r->c->srv->loop->c->cf.connections && (c = rails_crowded(p, conn_is_live)) != NULL)
		c->leaving = 1;
}

/* RDMA may be had of it: it can, or it was not up when the server told of it, and then what it can is not known. */
static int
rails_may(const struct rail_known *k)
{
	return ((k->wire.transports & MKV_FEATURE_RDMA_RC) != 0 || k->wire.state != 1);
}

/* The rail with the fewest connections that is not in its back-off; -1: none, *at_ns when. */
static int
rails_next(struct pool *p, uint64_t *at_ns)
{
	unsigned least = UINT32_MAX, n;
	int best = -1;

	*at_ns = UINT64_MAX;
	for (unsigned i = 0; i < p->n_rails; i++) {
		unsigned k = (p->next_rail + i) % p->n_rails;

		if (!rails_may(&p->rail[k]))
			continue;
		if (p->rail[k].not_before_ns > p->srv->loop->now_ns) {
			*at_ns = MKV_MIN(*at_ns, p->rail[k].not_before_ns);
		} else if ((n = rail_conns_of(p, k, conn_counts)) < least) {
			least = n;
			best = (int)k;
		}
	}
	if (best >= 0)
		p->next_rail = (unsigned)best + 1;
	return (best);
}

/* A plain session shows that the server is there, and what rails it has. */
static int
pool_is_up(const struct pool *p)
{
	for (unsigned i = 0; i < p->n_plain; i++)
		if (p->conn[i].state == CONN_READY)
			return (1);
	return (0);
}

/* For what is missing; or, with nothing missing, for a rail that has nothing while another has two. */
static int
rails_wanted(struct pool *p, uint64_t *at_ns)
{
	unsigned have = rail_conns(p, conn_counts), asked = p->srv->loop->c->cf.connections;
	int k = -1;

	*at_ns = UINT64_MAX;
	if (have < asked || (have == asked && rails_crowded(p, conn_counts) != NULL))
		k = rails_next(p, at_ns);
	return (have < asked || k < 0 || rail_conns_of(p, (unsigned)k, conn_counts) == 0 ? k : -1);
}

/* Connections that nothing is tried with: also one that was to begin anew at once, and is not wanted any more. */
static void
rails_rest(struct pool *p)
{
	for (unsigned i = p->n_plain; i < p->n; i++)
		if (p->conn[i].state == CONN_IDLE && mkv_rail_is_off(&p->conn[i]))
			mkv_rails_trying(p->conn[i].rail, 0);
}

void
mkv_rails_want(struct server *s)
{
	struct pool *p = s->pool;
	uint64_t at_ns;
	int k;

	if (p->n_rails == 0 || !pool_is_up(p) || mkv_local_wanted(p)) {
		rails_rest(p);
		return;
	}
	for (unsigned i = p->n_plain; i < p->n; i++) {
		struct conn *c = &p->conn[i];

		if (c->state != CONN_IDLE || !mkv_rail_is_off(c))
			continue;
		if ((k = rails_wanted(p, &at_ns)) < 0) {
			rails_rest(p);
			if (at_ns != UINT64_MAX)
				mkv_pool_arm(p, at_ns);
			return;
		}
		c->leaving = 0;
		c->rail_idx = (unsigned)k;
		mkv_rails_trying(c->rail, 1);
		mkv_conn_begin(c);
	}
}

/* ---- choosing ---- */

static int
leg_has_payload(const struct leg *l)
{
	const struct op *o = l->op;

	if (o->kind == OPK_STREAM)
		return (0);
	return ((l->wire_op == MKV_WIRE_GET && mkv_get_room(o) > 0) || (l->wire_op == MKV_WIRE_PUT && o->iov_bytes > 0));
}

/* One message and one answer: what a rail can do that has no tether. */
static int
leg_is_single(const struct conn *c, const struct leg *l)
{
	const struct op *o = l->op;

	if (l->wire_op == MKV_WIRE_PUT)
		return (o->iov_bytes <= c->part_bytes);
	return (mkv_get_room(o) <= c->part_bytes - o->off % c->part_bytes);
}

/* Of those that have equally little to do they take turns: whoever asks for one value after the other has all rails. */
static struct conn *
rails_least(struct pool *p, const struct leg *l, int *full)
{
	unsigned n = p->n - p->n_plain;
	struct conn *best = NULL;

	*full = 0;
	for (unsigned i = 0; i < n; i++) {
		struct conn *c = &p->conn[p->n_plain + (p->turn + 1 + i) % n];

		if (c->rail->state != RAIL_LIVE || c->leaving || (c->rail->ctl.loose && !leg_is_single(c, l)))
			continue;
		*full |= mkv_list_empty(&c->rail->free);
		if (!mkv_list_empty(&c->rail->free) && (best == NULL || c->rail->n_out < best->rail->n_out))
			best = c;
	}
	if (best != NULL)
		p->turn = (unsigned)(best - p->conn) - p->n_plain;
	return (best);
}

/* A rail that has not failed often enough to be given up by those who have nothing else. */
static int
rails_hope(const struct pool *p)
{
	for (unsigned i = 0; i < p->n_rails; i++)
		if (rails_may(&p->rail[i]) && p->rail[i].backoff_ns < HOPELESS_NS)
			return (1);
	return (0);
}

/* No rail is live. */
static int
rails_verdict(const struct pool *p)
{
	if (!p->told)
		return (MKV_E_AGAIN);			/* no session yet: the server's breaker decides */
	if (p->n_rails == 0)
		return (MKV_E_UNSUPPORTED);
	for (unsigned i = p->n_plain; i < p->n; i++) {
		const struct conn *c = &p->conn[i];

		if (c->rail->trying || c->rail->soon)
			return (MKV_E_AGAIN);
	}
	return (rails_hope(p) ? MKV_E_AGAIN : MKV_E_UNREACHABLE);
}

/* A put in parts goes by a connection; where values must go by RDMA, it begins only where others could. */
static int
rails_let_stream(const struct pool *p)
{
	for (unsigned i = p->n_plain; i < p->n; i++)
		if (p->conn[i].rail->state == RAIL_LIVE)
			return (0);
	return (rails_verdict(p));
}

struct conn *
mkv_rails_choose(struct server *s, const struct leg *l, int *err)
{
	int exact = s->loop->c->cf.transport == MKV_TRANSPORT_RDMA, full;
	struct pool *p = s->pool;
	struct conn *c;

	*err = 0;
	if (p->n == p->n_plain || !leg_has_payload(l) || mkv_local_is_up(p) || mkv_local_exact(p)) {
		if (exact && l->op->kind == OPK_STREAM)
			*err = rails_let_stream(p);
		return (NULL);
	}
	if (!mkv_rail_mem_fits(l->op, l, s->part_bytes)) {
		*err = exact ? MKV_E_UNSUPPORTED : 0;
		return (NULL);
	}
	if ((c = rails_least(p, l, &full)) == NULL && (full || exact))
		*err = full ? MKV_E_AGAIN : rails_verdict(p);
	return (c);
}

/* ---- any thread ---- */

static int
rails_settled(struct mkv_client *c)
{
	for (unsigned i = 0; i < c->cf.n_servers; i++)
		if (atomic_load_explicit(&c->state[i].rail_tries, memory_order_relaxed) > 0)
			return (0);
	return (1);
}

int
mkv_rails_settle(struct mkv_client *c, uint64_t until_ns)
{
	struct timespec ts = { .tv_sec = (time_t)(until_ns / MKV_NS_PER_SEC), .tv_nsec = (long)(until_ns % MKV_NS_PER_SEC) };
	int live = 0, r = 0;

	if (c->fabric == NULL)
		return (0);
	(void)pthread_mutex_lock(&c->mutex);
	while (!rails_settled(c) && r == 0)
		r = pthread_cond_timedwait(&c->rails_changed, &c->mutex, &ts);
	for (unsigned i = 0; i < c->cf.n_servers; i++)
		live |= atomic_load_explicit(&c->state[i].live, memory_order_relaxed) > 0;
	(void)pthread_mutex_unlock(&c->mutex);
	return (live || c->cf.transport != MKV_TRANSPORT_RDMA ? 0 : MKV_E_UNREACHABLE);
}
