/*
 * GET /metrics, where prometheus_bind says: a few connections, one request each.
 *
 * The first I/O thread. Owns the listening socket, its connections and their texts (malloced for a reply; this is no data path).
 * Foreign bytes: a request line of at most REQ_BYTES; anything but GET /metrics is 404, anything that is no request ends the connection. A peer that
 * does not finish within LIMIT_NS is cut off. Without a descriptor for it a connection waits in the backlog: accepting is tried again after AGAIN_NS.
 */
#include "config.h"

#include <netdb.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "clients/lib/client_priv.h"
#include "common/base/clock.h"
#include "common/base/os.h"

#define PEERS_MAX	4u
#define REQ_BYTES	2048u
#define LIMIT_NS	(5000 * MKV_NS_PER_MS)
#define AGAIN_NS	(100 * MKV_NS_PER_MS)

struct peer {
	struct http	*h;
	int		fd;			/* -1: free */
	struct mkv_io	io;
	struct mkv_timer limit;
	char		req[REQ_BYTES];
	uint32_t	have;
	char		head[160], *text;
	struct iovec	iov[2];
};

struct http {
	struct loop	*loop;
	int		fd, accepting, stopping;
	struct mkv_io	io;
	struct mkv_timer again;
	struct peer	peer[PEERS_MAX];
};

static void	http_accept(struct http *h);
static void	peer_recv(struct peer *p);

static void
peer_close(struct peer *p)
{
	mkv_timer_disarm(&p->h->loop->timers, &p->limit);
	(void)close(p->fd);
	p->fd = -1;
	free(p->text);
	p->text = NULL;
	http_accept(p->h);
}

static void
peer_on_sent(struct mkv_io *io, int res MKV_UNUSED)
{
	peer_close(MKV_CONTAINER_OF(io, struct peer, io));
}

static void
peer_reply(struct peer *p)
{
	static const char want[] = "GET /metrics";
	size_t n = 0, got = 0;
	int good = strncmp(p->req, want, sizeof(want) - 1) == 0 && strchr(" ?", p->req[sizeof(want) - 1]) != NULL;

	if (good) {
		n = mkv_client_metrics(p->h->loop->c, NULL, 0) + 4096;	/* counters move on between the two calls */
		if ((p->text = malloc(n)) == NULL) {
			peer_close(p);
			return;
		}
		got = mkv_client_metrics(p->h->loop->c, p->text, n);
		got = MKV_MIN(got, n - 1);
	}
	(void)snprintf(p->head, sizeof(p->head), "HTTP/1.1 %s\r\nContent-Type: text/plain; version=0.0.4; charset=utf-8\r\n"
	    "Content-Length: %zu\r\nConnection: close\r\n\r\n", good ? "200 OK" : "404 Not Found", got);
	p->iov[0] = (struct iovec){ .iov_base = p->head, .iov_len = strlen(p->head) };
	p->iov[1] = (struct iovec){ .iov_base = p->text, .iov_len = got };
	p->io.done = peer_on_sent;
	mkv_ioq_send(p->h->loop->q, &p->io, MKV_FD(p->fd), p->iov, got > 0 ? 2 : 1);
}

static void
peer_on_recv(struct mkv_io *io, int res)
{
	struct peer *p = MKV_CONTAINER_OF(io, struct peer, io);

	if (res <= 0 || p->h->stopping) {
		peer_close(p);
		return;
	}
	p->have += (uint32_t)res;
	p->req[p->have] = '\0';
	if (strstr(p->req, "\r\n\r\n") != NULL)
		peer_reply(p);
	else if (p->have == REQ_BYTES - 1)
		peer_close(p);
	else
		peer_recv(p);
}

static void
peer_recv(struct peer *p)
{
	p->io.done = peer_on_recv;
	mkv_ioq_recv(p->h->loop->q, &p->io, MKV_FD(p->fd), p->req + p->have, REQ_BYTES - 1 - p->have, 0);
}

static void
peer_on_limit(struct mkv_timer *t, uint64_t now_ns MKV_UNUSED)
{
	struct peer *p = MKV_CONTAINER_OF(t, struct peer, limit);

	mkv_ioq_cancel(p->h->loop->q, &p->io);
}

static struct peer *
http_free_peer(struct http *h)
{
	for (unsigned i = 0; i < PEERS_MAX; i++)
		if (h->peer[i].fd < 0)
			return (&h->peer[i]);
	return (NULL);
}

static void
http_on_accept(struct mkv_io *io, int res)
{
	struct http *h = MKV_CONTAINER_OF(io, struct http, io);
	struct peer *p = http_free_peer(h);

	h->accepting = 0;
	if (res < 0) {
		if (!h->stopping)
			mkv_timer_arm(&h->loop->timers, &h->again, mkv_now_ns() + AGAIN_NS);
		return;
	}
	if (p == NULL || h->stopping) {
		(void)close(res);
		return;
	}
	p->fd = res;
	p->have = 0;
	mkv_timer_arm(&h->loop->timers, &p->limit, mkv_now_ns() + LIMIT_NS);
	peer_recv(p);
	http_accept(h);
}

static void
http_accept(struct http *h)
{
	if (h->accepting || h->stopping || http_free_peer(h) == NULL)
		return;
	h->accepting = 1;
	h->io.done = http_on_accept;
	mkv_ioq_accept(h->loop->q, &h->io, MKV_FD(h->fd));
}

static void
http_on_again(struct mkv_timer *t, uint64_t now_ns MKV_UNUSED)
{
	http_accept(MKV_CONTAINER_OF(t, struct http, again));
}

void
mkv_http_start(struct http *h)
{
	http_accept(h);
}

void
mkv_http_stop(struct http *h)
{
	h->stopping = 1;
	mkv_timer_disarm(&h->loop->timers, &h->again);
	if (h->accepting)
		mkv_ioq_cancel(h->loop->q, &h->io);
	for (unsigned i = 0; i < PEERS_MAX; i++)
		if (h->peer[i].fd >= 0)
			mkv_ioq_cancel(h->loop->q, &h->peer[i].io);
}

int
mkv_http_open(struct http **out, struct loop *l, const char *host, const char *port, char *why)
{
	struct http *h = calloc(1, sizeof(*h));
	uint16_t bound;
	int r;

	*out = NULL;
	if (h == NULL)
		return (MKV_E_NOMEM);
	h->loop = l;
	h->again.fire = http_on_again;
	for (unsigned i = 0; i < PEERS_MAX; i++) {
		h->peer[i].h = h;
		h->peer[i].fd = -1;
		h->peer[i].limit.fire = peer_on_limit;
	}
	h->fd = mkv_os_listen_tcp(host, (uint16_t)atoi(port), 0, &bound);
	if ((r = h->fd) < 0) {
		free(h);
		if (r == MKV_E_INVAL)
			(void)snprintf(why, WHY_BYTES, "prometheus_bind: \"%s\" is no address", host);
		else
			(void)snprintf(why, WHY_BYTES, "prometheus_bind: cannot listen on %s:%s (%s), so /metrics is not served here", host, port,
			    mkv_err(r));
		return (r == MKV_E_INVAL ? MKV_E_CONFIG : r);
	}
	*out = h;
	return (0);
}

void
mkv_http_close(struct http **hp)
{
	struct http *h;

	if (*hp == NULL)
		return;
	TAKE(h, *hp);
	for (unsigned i = 0; i < PEERS_MAX; i++) {
		if (h->peer[i].fd >= 0)
			(void)close(h->peer[i].fd);
		free(h->peer[i].text);
	}
	(void)close(h->fd);
	free(h);
}
