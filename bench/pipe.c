/*
 * Pipelined connections to one server, for the drivers redis and memcached. One thread, non-blocking sockets, poll.
 *
 *	c->head -> io -> io -> io        answers come in this order
 *	            ^answer   ^send      a request of many keys is many commands; each end keeps its place
 *
 * Values are sent from and received into the bench's memory; only lines pass through a buffer. When a connection fails, everything on it
 * fails with it, and the next request makes a new one. A head that waits past its deadline fails its connection: in an ordered pipeline
 * nothing behind it could be answered either.
 */
#include "config.h"
#include "bench/pipe.h"

#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#include "common/base/assert.h"
#include "common/base/clock.h"
#include "common/base/os.h"

#define PIPE_UNIX_SCHEME	"unix://"
#define PIPE_CONNS_MAX		64u
#define PIPE_OUT_BYTES		65536u
#define PIPE_IN_BYTES		262144u
#define PIPE_CONNECT_MS		2000u
#define PIPE_TURNS_MAX		64u		/* receive calls in a row on one connection: the others wait */

struct pipe_conn {
	int		fd;			/* -1: none */
	struct bench_io	*head, **tail;		/* head: the next answer is its */
	struct bench_io	*send;			/* first with commands not yet written */
	unsigned	send_key, answer_key, waiting;
	int		prefix_over;		/* of the MATCH at head */
	/* Out: what is ready to go: text, then a value, then CR LF. */
	char		*out;
	size_t		out_have, out_gone;
	const char	*value;
	size_t		value_left, crlf_left;
	/* In. */
	char		*in;
	size_t		in_from, in_have;	/* unread bytes are in[in_from, in_have) */
	uint64_t	body_left, skip_left;	/* of a value that arrives: into memory, or to nowhere (CR LF, or it did not fit) */
	size_t		body_at;
};

struct pipe_drv {
	struct bench_drv	base;
	const struct pipe_protocol *proto;
	char			host[256], port[16];	/* no port: host is the path of a unix socket */
	struct bench_io		*done, **done_tail;
	unsigned		n_conns;
	struct pipe_conn	conn[PIPE_CONNS_MAX];
};

static const char pipe_crlf[2] = { '\r', '\n' };

static void
pipe_done(struct pipe_drv *d, struct bench_io *io)
{
	io->next = NULL;
	*d->done_tail = io;
	d->done_tail = &io->next;
}

/* ---- connections ---- */

static void
pipe_conn_fail(struct pipe_drv *d, struct pipe_conn *c, int status)
{
	struct bench_io *io, *next;

	if (c->fd >= 0)
		close(c->fd);
	c->fd = -1;
	for (io = c->head; io != NULL; io = next) {
		next = io->next;
		io->result = status;
		pipe_done(d, io);
	}
	c->head = c->send = NULL;
	c->tail = &c->head;
	c->send_key = c->answer_key = c->waiting = 0;
	c->out_have = c->out_gone = c->value_left = c->crlf_left = 0;
	c->in_from = c->in_have = 0;
	c->body_left = c->skip_left = 0;
	c->prefix_over = 0;
}

static int
pipe_connect_to(const struct addrinfo *ai)
{
	struct pollfd pfd = { .events = POLLOUT };
	int one = 1, err = 0, fd;
	socklen_t len = sizeof(err);

	fd = socket(ai->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return (MKV_ERR_SYSTEM);
	pfd.fd = fd;
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	if (connect(fd, ai->ai_addr, ai->ai_addrlen) != 0 &&
	    (errno != EINPROGRESS || poll(&pfd, 1, (int)PIPE_CONNECT_MS) != 1 || getsockopt(fd, SOL_SOCKET, SO_ERROR, &err, &len) != 0 || err != 0)) {
		close(fd);
		return (MKV_ERR_UNREACHABLE);
	}
	return (fd);
}

static int
pipe_conn_open(struct pipe_drv *d, struct pipe_conn *c)
{
	struct addrinfo hint = { .ai_socktype = SOCK_STREAM }, *list, *ai;

	if (d->port[0] == '\0') {
		c->fd = mkv_os_connect_unix(d->host, PIPE_CONNECT_MS / 1000);
		return (c->fd >= 0 ? 0 : MKV_ERR_UNREACHABLE);
	}
	if (getaddrinfo(d->host, d->port, &hint, &list) != 0)
		return (MKV_ERR_UNREACHABLE);
	for (ai = list; ai != NULL && c->fd < 0; ai = ai->ai_next)
		c->fd = pipe_connect_to(ai);
	freeaddrinfo(list);
	return (c->fd >= 0 ? 0 : MKV_ERR_UNREACHABLE);
}

/* ---- sending ---- */

/* Make more to send: commands until the buffer is full or a value has to follow. */
static void
pipe_fill_out(struct pipe_drv *d, struct pipe_conn *c)
{
	struct bench_io *io;

	c->out_have = c->out_gone = 0;
	while ((io = c->send) != NULL && c->out_have + PIPE_HEAD_MAX <= PIPE_OUT_BYTES) {
		c->out_have += d->proto->command(c->out + c->out_have, io, &io->keys[c->send_key]);
		if (++c->send_key == io->n_keys) {
			c->send = io->next;
			c->send_key = 0;
		}
		if (io->op == BENCH_PUT) {
			c->value = io->buf;
			c->value_left = io->bytes;
			c->crlf_left = 2;
			return;
		}
	}
}

static void
pipe_sent(struct pipe_conn *c, size_t n)
{
	size_t k = MKV_MIN(n, c->out_have - c->out_gone);

	c->out_gone += k;
	n -= k;
	k = MKV_MIN(n, c->value_left);
	c->value += k;
	c->value_left -= k;
	c->crlf_left -= n - k;
}

static void
pipe_send(struct pipe_drv *d, struct pipe_conn *c)
{
	struct iovec iov[3];
	struct msghdr m = { .msg_iov = iov, .msg_iovlen = 3 };
	ssize_t n;

	for (;;) {
		if (c->out_gone == c->out_have && c->value_left == 0 && c->crlf_left == 0)
			pipe_fill_out(d, c);
		if (c->out_gone == c->out_have && c->value_left == 0 && c->crlf_left == 0)
			return;
		iov[0] = (struct iovec){ c->out + c->out_gone, c->out_have - c->out_gone };
		iov[1] = (struct iovec){ (void *)(uintptr_t)c->value, c->value_left };
		iov[2] = (struct iovec){ (void *)(uintptr_t)(pipe_crlf + 2 - c->crlf_left), c->crlf_left };
		n = sendmsg(c->fd, &m, MSG_NOSIGNAL | MSG_DONTWAIT);
		if (n < 0) {
			if (errno != EAGAIN && errno != EINTR)
				pipe_conn_fail(d, c, MKV_ERR_CLOSED);
			return;
		}
		pipe_sent(c, (size_t)n);
	}
}

/* ---- answers ---- */

static void
pipe_answered(struct pipe_drv *d, struct pipe_conn *c, int64_t value)
{
	struct bench_io *io = c->head;

	if (io->op == BENCH_PUT || io->op == BENCH_GET || (value < 0 && io->result >= 0))
		io->result = value;
	else if (io->result >= 0 && value > 0) {
		if (io->present != NULL)
			io->present[c->answer_key] = 1;
		if (!c->prefix_over)
			io->result++;
	} else if (io->op == BENCH_MATCH)
		c->prefix_over = 1;
	if (++c->answer_key < io->n_keys)
		return;
	c->answer_key = 0;
	c->prefix_over = 0;
	c->waiting--;
	c->head = io->next;
	if (c->head == NULL)
		c->tail = &c->head;
	pipe_done(d, io);
}

/* A value is announced: where does it go? */
static void
pipe_body_begin(struct pipe_conn *c, uint64_t bytes)
{
	struct bench_io *io = c->head;

	c->skip_left = 2;
	c->body_at = 0;
	c->body_left = bytes;
	io->result = (int64_t)bytes;
	if (bytes > io->bytes) {
		c->body_left = 0;
		c->skip_left += bytes;
		io->result = MKV_ERR_TOOBIG;
	}
}

/* Take what is in the buffer for a value in progress. Returns 1 when the value is complete. */
static int
pipe_body_take(struct pipe_conn *c)
{
	size_t n = MKV_MIN(c->body_left, c->in_have - c->in_from);

	if (n > 0)
		memcpy((char *)c->head->buf + c->body_at, c->in + c->in_from, n);
	c->in_from += n;
	c->body_at += n;
	c->body_left -= n;
	n = c->body_left == 0 ? MKV_MIN(c->skip_left, c->in_have - c->in_from) : 0;
	c->in_from += n;
	c->skip_left -= n;
	return (c->body_left == 0 && c->skip_left == 0);
}

/* Everything that the buffer holds. 0, or -1 when the connection has to end. */
static int
pipe_parse(struct pipe_drv *d, struct pipe_conn *c)
{
	const char *line, *end;
	int64_t value = 0;

	while (c->in_from < c->in_have) {
		if (c->body_left > 0 || c->skip_left > 0) {
			if (!pipe_body_take(c))
				break;
			pipe_answered(d, c, c->head->result);
			continue;
		}
		line = c->in + c->in_from;
		end = memchr(line, '\n', c->in_have - c->in_from);
		if (end == NULL)
			return (c->in_have - c->in_from < PIPE_HEAD_MAX ? 0 : -1);
		if (c->head == NULL || (c->head == c->send && c->answer_key >= c->send_key) || end == line)
			return (-1);			/* not asked for, or not yet */
		c->in_from += (size_t)(end - line) + 1;
		switch (d->proto->answer(c->head, line, (size_t)(end - line) - (end[-1] == '\r'), &value)) {
		case PIPE_DONE: pipe_answered(d, c, value); break;
		case PIPE_VALUE: pipe_body_begin(c, (uint64_t)value); break;
		case PIPE_BAD: return (-1);
		}
	}
	return (0);
}

/* A value lands where it belongs, what follows it in the buffer. */
static ssize_t
pipe_recv_once(struct pipe_conn *c)
{
	struct iovec iov[2];
	struct msghdr m = { .msg_iov = iov, .msg_iovlen = 2 };
	size_t body;
	ssize_t n;

	memmove(c->in, c->in + c->in_from, c->in_have - c->in_from);
	c->in_have -= c->in_from;
	c->in_from = 0;
	MKV_ASSERT(c->body_left == 0 || c->in_have == 0);
	iov[0] = (struct iovec){ c->body_left > 0 ? (char *)c->head->buf + c->body_at : NULL, c->body_left };
	iov[1] = (struct iovec){ c->in + c->in_have, PIPE_IN_BYTES - c->in_have };
	n = recvmsg(c->fd, &m, MSG_DONTWAIT);
	if (n <= 0)
		return (n);
	body = MKV_MIN((size_t)n, c->body_left);
	c->body_at += body;
	c->body_left -= body;
	c->in_have += (size_t)n - body;
	return (n);
}

static void
pipe_recv(struct pipe_drv *d, struct pipe_conn *c)
{
	ssize_t n = 1;

	for (unsigned turn = 0; c->fd >= 0 && turn < PIPE_TURNS_MAX && (n = pipe_recv_once(c)) > 0; turn++)
		if (pipe_parse(d, c) != 0) {
			pipe_conn_fail(d, c, MKV_ERR_PROTO);
			return;
		}
	if (n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR))
		pipe_conn_fail(d, c, MKV_ERR_CLOSED);
}

/* ---- the driver's side ---- */

/* HOST:PORT or unix://PATH. 0, or -1 when it is neither. */
static int
pipe_address_parse(struct pipe_drv *d, const char *servers)
{
	const char *path = servers + sizeof(PIPE_UNIX_SCHEME) - 1, *colon = strrchr(servers, ':');
	int is_unix = strncmp(servers, PIPE_UNIX_SCHEME, sizeof(PIPE_UNIX_SCHEME) - 1) == 0;

	if (is_unix && (*path != '/' || strlen(path) >= sizeof(d->host)))
		return (-1);
	if (is_unix) {
		snprintf(d->host, sizeof(d->host), "%s", path);
		return (0);
	}
	if (colon == NULL || strchr(servers, ',') != NULL || (size_t)(colon - servers) >= sizeof(d->host) || colon[1] == '\0' ||
	    strlen(colon + 1) >= sizeof(d->port))
		return (-1);
	snprintf(d->host, sizeof(d->host), "%.*s", (int)(colon - servers), servers);
	snprintf(d->port, sizeof(d->port), "%s", colon + 1);
	return (0);
}

static int
pipe_address(struct pipe_drv *d, const char *servers, char *why, size_t why_bytes)
{
	if (pipe_address_parse(d, servers) == 0)
		return (0);
	snprintf(why, why_bytes, "%s: this driver wants one server as HOST:PORT or unix:///PATH", servers);
	return (MKV_ERR_CONFIG);
}

static int
pipe_conns_make(struct pipe_drv *d, char *why, size_t why_bytes)
{
	int r = 0;

	for (unsigned i = 0; r == 0 && i < d->n_conns; i++) {
		d->conn[i].out = malloc(PIPE_OUT_BYTES);
		d->conn[i].in = malloc(PIPE_IN_BYTES);
		r = d->conn[i].out == NULL || d->conn[i].in == NULL ? MKV_ERR_NOMEM : pipe_conn_open(d, &d->conn[i]);
	}
	if (r != 0)
		snprintf(why, why_bytes, "%s%s%s: %s", d->host, d->port[0] != '\0' ? ":" : "", d->port, mkv_strerror(r));
	return (r);
}

int
pipe_open(struct bench_drv **out, const struct bench_driver *ops, const struct pipe_protocol *proto, const struct bench_drv_opts *o, char *why,
    size_t why_bytes)
{
	struct pipe_drv *d = calloc(1, sizeof(*d));
	int r;

	if (d == NULL)
		return (MKV_ERR_NOMEM);
	d->base.ops = ops;
	d->proto = proto;
	d->done_tail = &d->done;
	d->n_conns = (unsigned)MKV_MIN(MKV_MAX(o->connections, 1), PIPE_CONNS_MAX);
	for (unsigned i = 0; i < d->n_conns; i++) {
		d->conn[i].fd = -1;
		d->conn[i].tail = &d->conn[i].head;
	}
	r = pipe_address(d, o->servers != NULL ? o->servers : proto->servers, why, why_bytes);
	if (r == 0)
		r = pipe_conns_make(d, why, why_bytes);
	if (r != 0) {
		pipe_close(&d->base);
		return (r);
	}
	*out = &d->base;
	return (0);
}

void
pipe_close(struct bench_drv *base)
{
	struct pipe_drv *d = (struct pipe_drv *)base;

	for (unsigned i = 0; i < d->n_conns; i++) {
		if (d->conn[i].fd >= 0)
			close(d->conn[i].fd);
		free(d->conn[i].in);
		free(d->conn[i].out);
	}
	free(d);
}

/* The connection with the least to do takes it. */
int
pipe_submit(struct bench_drv *base, struct bench_io *io)
{
	struct pipe_drv *d = (struct pipe_drv *)base;
	struct pipe_conn *c = &d->conn[0];
	int r;

	for (unsigned i = 1; i < d->n_conns; i++)
		if (d->conn[i].waiting < c->waiting)
			c = &d->conn[i];
	io->next = NULL;
	io->result = 0;
	io->deadline_us += mkv_now_ns() / MKV_NS_PER_US;	/* from here on a point in time */
	if (io->present != NULL)
		memset(io->present, 0, io->n_keys);
	r = c->fd < 0 ? pipe_conn_open(d, c) : 0;
	for (unsigned i = 0; r == 0 && i < io->n_keys; i++)
		if (io->keys[i].bytes > d->proto->key_max)
			r = MKV_ERR_TOOBIG;
	if (r != 0) {
		io->result = r;
		pipe_done(d, io);
		return (0);
	}
	*c->tail = io;
	c->tail = &io->next;
	if (c->send == NULL)
		c->send = io;
	c->waiting++;
	return (0);
}

static void
pipe_poll_set(struct pipe_drv *d, struct pollfd *pfd, uint64_t *until_us)
{
	struct pipe_conn *c;

	for (unsigned i = 0; i < d->n_conns; i++) {
		c = &d->conn[i];
		pfd[i] = (struct pollfd){ .fd = c->head != NULL ? c->fd : -1, .events = POLLIN };
		if (c->send != NULL || c->out_gone < c->out_have || c->value_left + c->crlf_left > 0)
			pfd[i].events |= POLLOUT;
		if (c->head != NULL)
			*until_us = MKV_MIN(*until_us, c->head->deadline_us);
	}
}

void
pipe_wait(struct bench_drv *base, uint64_t timeout_us)
{
	struct pipe_drv *d = (struct pipe_drv *)base;
	struct pollfd pfd[PIPE_CONNS_MAX];
	uint64_t now = mkv_now_ns() / MKV_NS_PER_US, end = now + timeout_us, until;
	struct timespec ts;

	for (;;) {
		for (unsigned i = 0; i < d->n_conns; i++) {
			if (d->conn[i].fd >= 0 && d->conn[i].head != NULL)
				pipe_send(d, &d->conn[i]);
			if (d->conn[i].fd >= 0 && d->conn[i].head != NULL)
				pipe_recv(d, &d->conn[i]);
		}
		now = mkv_now_ns() / MKV_NS_PER_US;
		for (unsigned i = 0; i < d->n_conns; i++)
			if (d->conn[i].head != NULL && d->conn[i].head->deadline_us <= now)
				pipe_conn_fail(d, &d->conn[i], MKV_ERR_TIMEOUT);
		if (d->done != NULL || now >= end)
			return;
		until = end;
		pipe_poll_set(d, pfd, &until);
		until = until > now ? until - now : 0;
		ts = (struct timespec){ (time_t)(until / 1000000), (long)(until % 1000000) * 1000 };
		if (ppoll(pfd, d->n_conns, &ts, NULL) == 0 && end <= now + until)
			return;
	}
}

unsigned
pipe_drain(struct bench_drv *base, struct bench_io **out, unsigned max)
{
	struct pipe_drv *d = (struct pipe_drv *)base;
	unsigned n = 0;

	for (; n < max && d->done != NULL; n++) {
		out[n] = d->done;
		d->done = d->done->next;
	}
	if (d->done == NULL)
		d->done_tail = &d->done;
	return (n);
}
