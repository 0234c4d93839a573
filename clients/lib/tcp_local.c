/*
 * The unix socket of a server on this host: the same carrier on another descriptor, and which connections go that way.
 *
 *   transport auto    a TCP session tells of the socket; if it is on this host connections go there, and those of TCP end when nothing is on them. While none is up
 *                     TCP and rails serve, and the socket is tried again after a back-off (100 ms, doubled up to 10 s, with jitter), whatever the breaker does
 *   transport local   the same, but requests go nowhere else: a TCP session only tells where the socket is, and is no sign that the server serves
 *   local://PATH      the socket is known, and there is no TCP
 *
 * The loop's thread. Owns pool->local. What a server says of its socket is believed once it has proven who it is, and who answers there must be the same server.
 * Fails: no socket there, another server behind it: with auto a back-off, else a failure of the server.
 */
#include "config.h"

#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/un.h>

#include "clients/lib/tcp_priv.h"
#include "common/base/clock.h"

#define LOCAL_BACKOFF_NS	(100 * MKV_NS_PER_MS)
#define LOCAL_BACKOFF_MOST_NS	(10000 * MKV_NS_PER_MS)

_Static_assert(sizeof(((struct mkv_wire_local *)0)->path) == LOCAL_PATH_BYTES, "what is told fits");

static int
local_is_named(const struct pool *p)
{
	return (p->srv->conf->path[0] != '\0');
}

int
mkv_local_exact(const struct pool *p)
{
	return (local_is_named(p) || p->srv->loop->c->cf.transport == MKV_TRANSPORT_LOCAL);
}

void
mkv_local_open(struct pool *p)
{
	if (!local_is_named(p))
		return;
	memcpy(p->local.path, p->srv->conf->path, sizeof(p->local.path));
	p->local.known = 1;
}

int
mkv_local_wanted(const struct pool *p)
{
	return (p->local.known && (mkv_local_exact(p) || p->local.not_before_ns <= p->srv->loop->now_ns));
}

int
mkv_local_is_up(const struct pool *p)
{
	return (p->local.n_up > 0);
}

/* ---- making ---- */

void
mkv_local_address(struct conn *c)
{
	struct sockaddr_un *un = (struct sockaddr_un *)&c->sa;
	size_t n = strnlen(conn_pool(c)->local.path, sizeof(un->sun_path) - 1);

	memset(un, 0, sizeof(*un));
	un->sun_family = AF_UNIX;
	memcpy(un->sun_path, conn_pool(c)->local.path, n);
	c->sa_bytes = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + n + 1);
}

/* 1: the path is whole, and an address has room for it. */
static int
local_path_fits(const struct mkv_wire_local *w)
{
	size_t n = strnlen(w->path, sizeof(w->path));

	return (w->path[0] == '/' && n < sizeof(((struct sockaddr_un *)0)->sun_path) && n < sizeof(w->path));
}

void
mkv_local_told(struct conn *c, const struct mkv_wire_local *w)
{
	struct mkv_client *cl = c->srv->loop->c;
	struct pool *p = conn_pool(c);
	struct local *k = &p->local;
	int here = w != NULL && cl->has_host_id && memcmp(w->host_id, cl->host_id, sizeof(w->host_id)) == 0 && local_path_fits(w);

	if (c->local || c->rail != NULL || local_is_named(p) || (cl->cf.transport != MKV_TRANSPORT_AUTO && cl->cf.transport != MKV_TRANSPORT_LOCAL))
		return;
	k->told = 1;
	k->known = here;
	if (!here)
		return;
	memcpy(k->path, w->path, sizeof(k->path));
	memcpy(k->server_id, c->server_id, sizeof(k->server_id));
}

int
mkv_local_only_told(const struct conn *c)
{
	return (!c->local && mkv_local_exact(conn_pool(c)) && conn_pool(c)->local.known);
}

int
mkv_local_check(const struct conn *c)
{
	const struct pool *p = conn_pool(c);

	if (!c->local || local_is_named(p))
		return (0);
	return (memcmp(c->server_id, p->local.server_id, sizeof(c->server_id)) == 0 ? 0 : MKV_E_PEER);
}

/* ---- up and down ---- */

/*
 * It is not down as long as it answers another thread. Looked at under the mutex, so that whoever came up before has the last word. Where it never answered
 * (another container of the host may not see it) nobody misses it.
 */
static void
local_warn(const struct server *s, int down, const char *why)
{
	struct mkv_client *c = s->loop->c;
	struct server_state *st = server_state_of(s);
	char text[2 * WHY_BYTES];
	int news;

	(void)pthread_mutex_lock(&c->mutex);
	st->local_seen |= !down;
	news = st->local_seen && st->local_warned != down && !s->loop->ending && (!down || atomic_load_explicit(&st->local, memory_order_relaxed) == 0);
	if (news)
		st->local_warned = down;
	(void)pthread_mutex_unlock(&c->mutex);
	if (!news || c->cf.warn == NULL)
		return;
	if (down)
		(void)snprintf(text, sizeof(text), "server %s: its socket on this host does not answer (%s); values go another way until it does", s->conf->name, why);
	else
		(void)snprintf(text, sizeof(text), "server %s: values go by its socket on this host again", s->conf->name);
	c->cf.warn(c->cf.warn_arg, text);
}

/* What serves by another way ends when nothing is on it. */
void
mkv_local_up(struct conn *c)
{
	struct pool *p = conn_pool(c);
	struct server *s = c->srv;

	if (!c->local)
		return;
	p->local.backoff_ns = p->local.not_before_ns = 0;
	p->local.n_up++;
	if (atomic_fetch_add_explicit(&server_state_of(s)->local, 1, memory_order_relaxed) == 0)
		client_count(s->loop->c, CC_local_upgrades_total, 1);
	local_warn(s, 0, "");
	for (unsigned i = p->n_plain; i < p->n; i++)
		p->conn[i].leaving = 1;
	s->loop->dirty = 1;
}

void
mkv_local_down(struct conn *c, int err)
{
	struct pool *p = conn_pool(c);
	struct server *s = c->srv;

	MKV_ASSERT(p->local.n_up > 0);
	p->local.n_up--;
	if (atomic_fetch_sub_explicit(&server_state_of(s)->local, 1, memory_order_relaxed) != 1)
		return;
	client_count(s->loop->c, CC_local_downgrades_total, 1);
	if (!mkv_local_exact(p))
		local_warn(s, 1, mkv_err(err));
}

/* It may be elsewhere by now. What told of it has nothing more to say: the next session does. */
static void
local_ask_again(struct pool *p)
{
	p->local.told = p->local.known = 0;
	for (unsigned i = 0; i < p->n_plain; i++)
		if (!p->conn[i].local && p->conn[i].state == CONN_READY)
			mkv_conn_retire(&p->conn[i]);
}

void
mkv_local_failed(struct conn *c, int err)
{
	struct pool *p = conn_pool(c);
	struct server *s = c->srv;
	struct local *k = &p->local;

	if (local_is_named(p))
		return;
	if (mkv_local_exact(p)) {
		local_ask_again(p);
		return;
	}
	if (k->not_before_ns > s->loop->now_ns)
		return;					/* of several the first counts */
	k->backoff_ns = k->backoff_ns == 0 ? LOCAL_BACKOFF_NS : MKV_MIN(2 * k->backoff_ns, LOCAL_BACKOFF_MOST_NS);
	k->not_before_ns = s->loop->now_ns + mkv_server_jitter(s, k->backoff_ns);
	mkv_pool_arm(p, k->not_before_ns);
	local_warn(s, 1, mkv_err(err));
}

/* ---- choosing ---- */

/* What a session said holds as long as one is there: the server may be another one after that. */
int
mkv_local_verdict(const struct pool *p)
{
	if (!mkv_local_exact(p) || !p->local.told || p->local.known)
		return (MKV_E_AGAIN);
	for (unsigned i = 0; i < p->n_plain; i++)
		if (p->conn[i].state == CONN_READY)
			return (MKV_E_UNSUPPORTED);	/* it has no such socket, or is on another host */
	return (MKV_E_AGAIN);
}

int
mkv_local_takes(const struct pool *p, const struct conn *c)
{
	return (c->local || (!mkv_local_is_up(p) && !mkv_local_exact(p)));
}

/* 1: nothing is on it, and nothing more will be. */
int
mkv_local_spares(const struct pool *p, const struct conn *c)
{
	return (!c->local && c->rail == NULL && c->state == CONN_READY && mkv_local_is_up(p) && c->n_out == 0 && !c->tx_busy && mkv_list_empty(&c->notices));
}
