/*
 * Sockets (net.h). A stream's bytes are all here at once; how many of them the other side can see grows with time, by odd numbers.
 *
 * Also the link-time stand-ins: mkv_ioq_recv() and its like are here and not the system's, and so are close() of our descriptors and mkv_random().
 */
#include "config.h"

#include "tests/sim/net.h"

#include <stdlib.h>
#include <string.h>

#include "common/base/assert.h"
#include "common/base/auth.h"
#include "common/base/err.h"
#include "tests/sim/sim.h"

#define NET_CONNS	64u
#define NET_FD		(1 << 24)		/* no descriptor of the system */

struct net_stream {			/* positions count from the stream's beginning; data begins at base */
	uint8_t		*data;
	size_t		base, bytes, room, seen, taken;
	uint64_t	last_at;
};

struct net_conn {
	int		used;
	uint32_t	gen;
	struct sim_front *f;
	struct net_stream up, down;
	net_fn		*on_news;
	void		*client;
	int		client_closed, front_closed;	/* closed by them */
	int		up_end, down_end;		/* seen by the other side */
	struct mkv_io	*rx, *tx;
	const struct iovec *tx_iov;
	unsigned	tx_n;
	size_t		tx_at;				/* where its bytes begin in `down` */
};

struct mkv_ioq {
	struct sim_front *f;
	struct mkv_list	ready;
};

static struct net_conn net_conn[NET_CONNS];

/* Taken at the link (Makefile.am) in place of the system's. */
void	__wrap_mkv_ioq_recv(struct mkv_ioq *q, struct mkv_io *io, int file, void *buf, uint32_t bytes, unsigned flags);
void	__wrap_mkv_ioq_send(struct mkv_ioq *q, struct mkv_io *io, int file, const struct iovec *iov, unsigned n);
void	__wrap_mkv_ioq_cancel(struct mkv_ioq *q, struct mkv_io *io);
void	__wrap_mkv_ioq_accept(struct mkv_ioq *q, struct mkv_io *io, int file);
uint64_t __wrap_mkv_ioq_enters(const struct mkv_ioq *q);
int	__real_close(int fd);
int	__wrap_close(int fd);
int	__wrap_mkv_random(void *buf, size_t bytes);

/* ---- Queue ------------------------------------------------------------------------------------------------------------------ */

struct mkv_ioq *
net_queue_create(struct sim_front *f)
{
	struct mkv_ioq *q = calloc(1, sizeof(*q));

	SIM_CHECK(q != NULL, "no memory");
	q->f = f;
	mkv_list_init(&q->ready);
	return (q);
}

void
net_queue_destroy(struct mkv_ioq **q)
{
	free(*q);
	*q = NULL;
}

unsigned
net_queue_run(struct mkv_ioq *q)
{
	struct mkv_list now, *l;
	unsigned n = 0;

	mkv_list_init(&now);
	while ((l = mkv_list_pop(&q->ready)) != NULL)
		mkv_list_push_tail(&now, l);
	while ((l = mkv_list_pop(&now)) != NULL) {
		struct mkv_io *io = MKV_CONTAINER_OF(l, struct mkv_io, link);

		io->active = 0;
		io->done(io, io->res);
		n++;
	}
	return (n);
}

static void
net_complete(struct net_conn *c, struct mkv_io **io, int res)
{
	struct mkv_io *o = *io;

	*io = NULL;
	o->res = res;
	mkv_list_push_tail(&c->f->q->ready, &o->link);
	front_wake(c->f);
}

static struct net_conn *
net_of(int file)
{
	int idx = -1 - file - NET_FD;

	SIM_CHECK(idx >= 0 && idx < (int)NET_CONNS && net_conn[idx].used, "a front uses a socket that is none");
	return (&net_conn[idx]);
}

static void
net_try_recv(struct net_conn *c)
{
	struct mkv_io *io = c->rx;
	size_t have = c->up.seen - c->up.taken, n;

	if (io == NULL || (have == 0 && !c->up_end) || (io->flags == MKV_IO_ALL && have < io->bytes && !c->up_end))
		return;
	n = MKV_MIN(have, io->bytes);
	memcpy(io->buf, c->up.data + (c->up.taken - c->up.base), n);
	c->up.taken += n;
	net_complete(c, &c->rx, (int)n);
}

void
__wrap_mkv_ioq_recv(struct mkv_ioq *q, struct mkv_io *io, int file, void *buf, uint32_t bytes, unsigned flags)
{
	struct net_conn *c = net_of(file);

	SIM_CHECK(c->rx == NULL && c->f->q == q, "two recvs at one time");
	mkv_list_init(&io->link);
	io->active = 1;
	io->buf = buf;
	io->bytes = bytes;
	io->flags = flags & MKV_IO_ALL;
	io->fd = (int)(c - net_conn);
	c->rx = io;
	net_try_recv(c);
}

/* ---- Streams ---------------------------------------------------------------------------------------------------------------- */

static void
stream_add(struct net_stream *s, const void *p, size_t n)
{
	if (s->taken == s->bytes)
		s->base = s->bytes;
	if (s->bytes - s->base + n > s->room) {
		s->room = 2 * (s->bytes - s->base + n);
		s->data = realloc(s->data, s->room);
		SIM_CHECK(s->data != NULL, "no memory");
	}
	memcpy(s->data + (s->bytes - s->base), p, n);
	s->bytes += n;
}

static void
net_up_seen(void *arg, uint64_t n)
{
	struct net_conn *c = arg;

	if (!c->used || c->gen != (uint32_t)(n >> 32))
		return;
	c->up.seen = MKV_MAX(c->up.seen, (uint32_t)n);
	if ((uint32_t)n == UINT32_MAX) {
		c->up.seen = c->up.bytes;
		c->up_end = 1;
	}
	net_try_recv(c);
}

static void
net_down_seen(void *arg, uint64_t n)
{
	struct net_conn *c = arg;

	if (!c->used || c->gen != (uint32_t)(n >> 32) || c->client_closed)
		return;
	if ((uint32_t)n == UINT32_MAX) {
		c->down.seen = c->down.bytes;
		c->down_end = 1;
	} else
		c->down.seen = MKV_MAX(c->down.seen, (uint32_t)n);
	c->on_news(c->client);
}

/* The bytes that were just added arrive in up to three pieces; end: and nothing after them. */
static void
net_arrive(struct net_conn *c, struct net_stream *s, size_t from, sim_fn *seen, int end)
{
	unsigned cuts = sim_below(3);
	uint64_t at = MKV_MAX(s->last_at, sim->now + sim_between(5 * US, 200 * US));

	SIM_CHECK(s->bytes < UINT32_MAX, "a stream is too long");
	for (unsigned i = 0; i < cuts && !end; i++) {
		from = sim_between(from, s->bytes);
		sim_at(at, seen, c, (uint64_t)c->gen << 32 | (uint32_t)from);
		at += sim_between(0, 100 * US);
	}
	s->last_at = at;
	sim_at(at, seen, c, (uint64_t)c->gen << 32 | (end ? UINT32_MAX : (uint32_t)s->bytes));
}

static void
net_sent(void *arg, uint64_t gen)
{
	struct net_conn *c = arg;
	size_t at = c->tx_at;

	if (!c->used || c->gen != (uint32_t)gen || c->tx == NULL)
		return;
	for (unsigned i = 0; i < c->tx_n; at += c->tx_iov[i++].iov_len)
		SIM_CHECK(memcmp(c->down.data + (at - c->down.base), c->tx_iov[i].iov_base, c->tx_iov[i].iov_len) == 0, "a front changed bytes that it sends");
	if (!c->client_closed)
		net_arrive(c, &c->down, c->tx_at, net_down_seen, 0);
	net_complete(c, &c->tx, c->client_closed ? MKV_E_CLOSED : (int)(at - c->tx_at));
}

void
__wrap_mkv_ioq_send(struct mkv_ioq *q, struct mkv_io *io, int file, const struct iovec *iov, unsigned n)
{
	struct net_conn *c = net_of(file);

	SIM_CHECK(c->tx == NULL && c->f->q == q, "two sends at one time");
	mkv_list_init(&io->link);
	io->active = 1;
	io->fd = (int)(c - net_conn);
	c->tx = io;
	c->tx_n = 0;
	c->tx_at = c->down.bytes;
	sim_step(STEP_FRONT + (int)c->f->index);
	if (c->f->ending)
		return;
	c->tx_iov = iov;
	c->tx_n = n;
	for (unsigned i = 0; i < n; i++)
		stream_add(&c->down, iov[i].iov_base, iov[i].iov_len);
	/* A slow reader now and then. */
	sim_in(sim_chance(1, 100) ? sim_between(1 * MS, 300 * MS) : sim_between(1 * US, 50 * US), net_sent, c, c->gen);
}

void
__wrap_mkv_ioq_cancel(struct mkv_ioq *q, struct mkv_io *io)
{
	struct net_conn *c = &net_conn[io->fd];

	(void)q;
	if (c->rx == io)
		net_complete(c, &c->rx, MKV_E_CANCELLED);
	else if (c->tx == io) {
		/* What left until now is part of the stream, or nothing is. */
		c->down.bytes = c->tx_at + sim_between(0, c->down.bytes - c->tx_at);
		net_complete(c, &c->tx, MKV_E_CANCELLED);
	}
}

void
__wrap_mkv_ioq_accept(struct mkv_ioq *q, struct mkv_io *io, int file)
{
	(void)q;
	(void)io;
	sim_fail("a front accepts on %d", file);
}

uint64_t
__wrap_mkv_ioq_enters(const struct mkv_ioq *q)
{
	(void)q;
	return (0);
}

/* ---- Life ------------------------------------------------------------------------------------------------------------------- */

static void
net_free(struct net_conn *c)
{
	if (!c->client_closed || !c->front_closed)
		return;
	free(c->up.data);
	free(c->down.data);
	*c = (struct net_conn){ .gen = c->gen + 1 };
}

static void
net_end_down(struct net_conn *c)
{
	c->front_closed = 1;
	c->rx = c->tx = NULL;
	if (!c->client_closed)
		net_arrive(c, &c->down, c->down.bytes, net_down_seen, 1);
	net_free(c);
}

int
__wrap_close(int fd)
{
	if (fd < NET_FD)
		return (__real_close(fd));
	SIM_CHECK((unsigned)(fd - NET_FD) < NET_CONNS && net_conn[fd - NET_FD].used && !net_conn[fd - NET_FD].front_closed,
	    "a front closes a socket twice");
	net_end_down(&net_conn[fd - NET_FD]);
	return (0);
}

int
__wrap_mkv_random(void *buf, size_t bytes)
{
	rnd_fill(&sim->rnd, buf, bytes);
	return (0);
}

int
net_connect(unsigned front, net_fn *on_news, void *client)
{
	struct sim_front *f = &sim->front[front];
	unsigned i = 0;

	if (!f->alive)
		return (-1);
	while (net_conn[i].used)
		SIM_CHECK(++i < NET_CONNS, "too many connections");
	net_conn[i].used = 1;
	net_conn[i].f = f;
	net_conn[i].on_news = on_news;
	net_conn[i].client = client;
	if (mkv_front_adopt(f->f, NET_FD + (int)i, NULL) != 0) {
		net_close((int)i);
		return (-1);
	}
	front_wake(f);
	return ((int)i);
}

void
net_send(int conn, const void *p, size_t n)
{
	struct net_conn *c = &net_conn[conn];
	size_t from = c->up.bytes;

	stream_add(&c->up, p, n);
	net_arrive(c, &c->up, from, net_up_seen, 0);
}

size_t
net_has(int conn)
{
	return (net_conn[conn].down.seen - net_conn[conn].down.taken);
}

const uint8_t *
net_peek(int conn)
{
	return (net_conn[conn].down.data + (net_conn[conn].down.taken - net_conn[conn].down.base));
}

void
net_take(int conn, size_t n)
{
	net_conn[conn].down.taken += n;
}

int
net_ended(int conn)
{
	return (net_conn[conn].down_end);
}

void
net_close(int conn)
{
	struct net_conn *c = &net_conn[conn];

	c->client_closed = 1;
	if (!c->front_closed)
		net_arrive(c, &c->up, c->up.bytes, net_up_seen, 1);
	net_free(c);
}

void
net_front_died(unsigned front)
{
	for (unsigned i = 0; i < NET_CONNS; i++)
		if (net_conn[i].used && net_conn[i].f == &sim->front[front] && !net_conn[i].front_closed)
			net_end_down(&net_conn[i]);
}

void
net_fini(void)
{
	for (unsigned i = 0; i < NET_CONNS; i++) {
		free(net_conn[i].up.data);
		free(net_conn[i].down.data);
		net_conn[i] = (struct net_conn){ .gen = 0 };
	}
}
