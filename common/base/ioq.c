/*
 * Completion I/O: the part that both back ends share.
 *
 * Process and thread: fronts, drives, libmemkv; the loop thread that owns the queue (mkv_ioq_wake(): any).
 * Owns: nothing but the queue's head; struct mkv_io is on loan from submit to done.
 * Invariants: an operation is in exactly one state of enum ioq_active; in_flight counts those that are not idle, <= depth_max;
 * `done` runs once (a multishot poll: once at the end), from mkv_ioq_run() only.
 * Fails: as the operation's result. Misuse (submitting a busy struct, too many in flight) is asserted.
 */
#include "config.h"
#include "common/base/ioq.h"

#include <errno.h>
#include <limits.h>
#include <string.h>

#include "common/base/assert.h"
#include "common/base/err.h"
#include "common/base/ioq_priv.h"
#include "common/base/os_priv.h"

int
mkv_ioq_create(struct mkv_ioq **out, const struct mkv_ioq_opts *opts)
{
	int r = MKV_E_UNSUPPORTED;

	*out = NULL;
	MKV_ASSERT(opts->depth_max > 0);
	if (opts->kind != MKV_IOQ_POLL)
		r = mkv_ioq_create_uring(out, opts);
	if (opts->kind == MKV_IOQ_POLL || (opts->kind == MKV_IOQ_AUTO && r != 0))
		r = mkv_ioq_create_poll(out, opts);
	return (r);
}

void
mkv_ioq_init(struct mkv_ioq *q, const struct mkv_ioq_ops *ops, const struct mkv_ioq_opts *opts)
{
	q->magic = MKV_IOQ_MAGIC;
	q->ops = ops;
	q->depth_max = opts->depth_max;
	mkv_list_init(&q->ready);
}

void
mkv_ioq_destroy(struct mkv_ioq **qp)
{
	struct mkv_ioq *q;

	if (*qp == NULL)
		return;
	TAKE(q, *qp);
	MKV_CHECK_OBJ(q, MKV_IOQ_MAGIC);
	q->magic = 0;
	q->ops->destroy(q);			/* frees q */
}

const char *
mkv_ioq_name(const struct mkv_ioq *q)
{
	return (q->ops->name);
}

unsigned
mkv_ioq_in_flight(const struct mkv_ioq *q)
{
	return (q->in_flight);
}

uint64_t
mkv_ioq_enters(const struct mkv_ioq *q)
{
	return (q->enters);
}

int
mkv_ioq_register_file(struct mkv_ioq *q, int fd)
{
	MKV_CHECK_OBJ(q, MKV_IOQ_MAGIC);
	MKV_ASSERT(fd >= 0);
	return (q->ops->register_file(q, fd));
}

int
mkv_ioq_register_buffers(struct mkv_ioq *q, const struct iovec *iov, unsigned n, unsigned slots)
{
	MKV_CHECK_OBJ(q, MKV_IOQ_MAGIC);
	MKV_ASSERT(n <= slots);
	MKV_ASSERT(slots > 0);
	return (q->ops->register_buffers(q, iov, n, slots));
}

int
mkv_ioq_set_buffer(struct mkv_ioq *q, unsigned slot, const struct iovec *iov)
{
	MKV_CHECK_OBJ(q, MKV_IOQ_MAGIC);
	return (q->ops->set_buffer(q, slot, iov));
}

int
mkv_ioq_jail(struct mkv_ioq *q, unsigned may)
{
	MKV_CHECK_OBJ(q, MKV_IOQ_MAGIC);
	MKV_ASSERT(may != 0);
	return (q->ops->jail(q, may));
}

static void
ioq_start(struct mkv_ioq *q, struct mkv_io *io, enum ioq_op op, int file)
{
	MKV_CHECK_OBJ(q, MKV_IOQ_MAGIC);
	MKV_ASSERT(io->done != NULL);
	MKV_ASSERT(io->active == IOQ_IDLE);
	MKV_ASSERT(q->in_flight < q->depth_max);
	q->in_flight++;
	mkv_list_init(&io->link);
	io->op = (uint8_t)op;
	io->active = IOQ_BUSY;
	io->flags = io->multishot = 0;
	io->fd = file;
	io->buf_idx = -1;
	io->buf = NULL;
	io->off = io->bytes = io->moved = 0;
	io->passed = -1;
}

static void
ioq_start_bytes(struct mkv_ioq *q, struct mkv_io *io, enum ioq_op op, int file, void *buf, uint32_t bytes)
{
	MKV_ASSERT(bytes > 0 && bytes <= INT_MAX);
	ioq_start(q, io, op, file);
	io->buf = buf;
	io->bytes = bytes;
}

void
mkv_ioq_recv(struct mkv_ioq *q, struct mkv_io *io, int file, void *buf, uint32_t bytes, unsigned flags)
{
	MKV_ASSERT((flags & ~(unsigned)MKV_IO_ALL) == 0);
	ioq_start_bytes(q, io, IOQ_RECV, file, buf, bytes);
	io->flags = (uint8_t)flags;
	q->ops->submit(q, io);
}

void
mkv_ioq_recv_fd(struct mkv_ioq *q, struct mkv_io *io, int file, void *buf, uint32_t bytes, unsigned flags, struct mkv_io_pass *pass)
{
	MKV_ASSERT((flags & ~(unsigned)MKV_IO_ALL) == 0 && pass->stray != NULL);
	ioq_start_bytes(q, io, IOQ_RECV, file, buf, bytes);
	io->flags = (uint8_t)(IOQ_F_PASS | flags);
	io->pass = pass;
	q->ops->submit(q, io);
}

static void
ioq_start_send(struct mkv_ioq *q, struct mkv_io *io, int file, const struct iovec *iov, unsigned n)
{
	ioq_start(q, io, IOQ_SEND, file);
	MKV_ASSERT(n <= IOV_MAX);
	for (unsigned i = 0; i < n; i++)
		io->bytes += iov[i].iov_len;
	MKV_ASSERT(io->bytes <= INT_MAX);
	io->buf = (void *)(uintptr_t)iov;	/* read only */
	io->off = n;
}

void
mkv_ioq_send_fd(struct mkv_ioq *q, struct mkv_io *io, int file, const struct iovec *iov, unsigned n, int fd)
{
	ioq_start_send(q, io, file, iov, n);
	MKV_ASSERT(io->bytes > 0 && fd >= 0);
	io->flags = IOQ_F_PASS;
	io->passed = fd;
	q->ops->submit(q, io);
}

void
mkv_ioq_send(struct mkv_ioq *q, struct mkv_io *io, int file, const struct iovec *iov, unsigned n)
{
	ioq_start_send(q, io, file, iov, n);
	if (io->bytes == 0)
		mkv_ioq_ready(q, io, 0);
	else
		q->ops->submit(q, io);
}

void
mkv_ioq_accept(struct mkv_ioq *q, struct mkv_io *io, int file)
{
	ioq_start(q, io, IOQ_ACCEPT, file);
	io->addr_bytes = sizeof(io->addr);
	q->ops->submit(q, io);
}

void
mkv_ioq_connect(struct mkv_ioq *q, struct mkv_io *io, int file, const struct sockaddr *sa, socklen_t bytes)
{
	MKV_ASSERT(bytes <= sizeof(io->addr));
	ioq_start(q, io, IOQ_CONNECT, file);
	memcpy(&io->addr, sa, bytes);
	io->addr_bytes = bytes;
	q->ops->submit(q, io);
}

void
mkv_ioq_poll(struct mkv_ioq *q, struct mkv_io *io, int file, int multishot)
{
	ioq_start(q, io, IOQ_POLL, file);
	io->multishot = (uint8_t)(multishot != 0);
	q->ops->submit(q, io);
}

void
mkv_ioq_read(struct mkv_ioq *q, struct mkv_io *io, int file, void *buf, uint32_t bytes, uint64_t off, int buf_idx)
{
	ioq_start_bytes(q, io, IOQ_READ, file, buf, bytes);
	io->off = off;
	io->buf_idx = buf_idx;
	q->ops->submit(q, io);
}

void
mkv_ioq_write(struct mkv_ioq *q, struct mkv_io *io, int file, const void *buf, uint32_t bytes, uint64_t off, int buf_idx)
{
	ioq_start_bytes(q, io, IOQ_WRITE, file, (void *)(uintptr_t)buf, bytes);
	io->off = off;
	io->buf_idx = buf_idx;
	q->ops->submit(q, io);
}

void
mkv_ioq_flush(struct mkv_ioq *q, struct mkv_io *io, int file)
{
	ioq_start(q, io, IOQ_FLUSH, file);
	q->ops->submit(q, io);
}

/* Idle: it has ended already. Ready: the result stands, but a multishot poll has to end. */
void
mkv_ioq_cancel(struct mkv_ioq *q, struct mkv_io *io)
{
	MKV_CHECK_OBJ(q, MKV_IOQ_MAGIC);
	if (io->active == IOQ_BUSY || (io->active == IOQ_READY && io->multishot && io->res >= 0))
		q->ops->cancel(q, io);
}

int
mkv_ioq_run(struct mkv_ioq *q, uint64_t until_ns)
{
	MKV_CHECK_OBJ(q, MKV_IOQ_MAGIC);
	return (q->ops->run(q, until_ns));
}

void
mkv_ioq_wake(struct mkv_ioq *q)
{
	q->ops->wake(q);
}

int
mkv_ioq_errno(int e)
{
	switch (e) {
	case ECANCELED:
		return (MKV_E_CANCELLED);
	case ECONNRESET:
	case ECONNABORTED:
	case ENOTCONN:
	case EPIPE:
	case ESHUTDOWN:
		return (MKV_E_CLOSED);
	case ECONNREFUSED:
	case EHOSTUNREACH:
	case ENETUNREACH:
	case ENETDOWN:
	case EADDRNOTAVAIL:
		return (MKV_E_UNREACHABLE);
	case ETIMEDOUT:
		return (MKV_E_TIMEOUT);
	default:
		return (mkv_err_from_errno(e));
	}
}

/*
 * O_DIRECT refuses to go on from an odd offset, and an odd offset after a short read is the end of the file: EINVAL there is the
 * end, not an error.
 */
static int
ioq_failed(const struct mkv_io *io, int e, int *res)
{
	if (e == EINTR && !(io->flags & IOQ_F_CANCEL))
		return (0);
	if (e == EINVAL && io->op == IOQ_READ && io->moved > 0)
		*res = (int)io->moved;
	else
		*res = mkv_ioq_errno(e);
	return (1);
}

static void
ioq_take_one(struct mkv_io *io, int fd)
{
	if (io->passed < 0)
		io->passed = fd;
	else
		io->pass->stray(fd);
}

static void
ioq_take_passed(struct mkv_io *io)
{
	struct msghdr *m = &io->msg;
	int fd;

	for (struct cmsghdr *h = CMSG_FIRSTHDR(m); h != NULL; h = CMSG_NXTHDR(m, h)) {
		if (h->cmsg_level != SOL_SOCKET || h->cmsg_type != SCM_RIGHTS)
			continue;
		for (size_t at = 0; at + sizeof(fd) <= h->cmsg_len - CMSG_LEN(0); at += sizeof(fd)) {
			memcpy(&fd, (char *)CMSG_DATA(h) + at, sizeof(fd));
			ioq_take_one(io, fd);
		}
	}
}

static int
ioq_moved(struct mkv_io *io, int n, int *res)
{
	if (io->op == IOQ_RECV && (io->flags & IOQ_F_PASS))
		ioq_take_passed(io);
	io->moved += (uint64_t)n;
	MKV_ASSERT(io->moved <= io->bytes);
	if (n == 0 && (io->op == IOQ_RECV || io->op == IOQ_READ))
		*res = (int)io->moved;			/* end of stream, end of file */
	else if (n == 0)
		*res = io->op == IOQ_SEND ? MKV_E_CLOSED : MKV_E_IO;
	else if (io->moved == io->bytes || (io->op == IOQ_RECV && !(io->flags & MKV_IO_ALL)))
		*res = (int)io->moved;
	else if (io->flags & IOQ_F_CANCEL)
		*res = MKV_E_CANCELLED;
	else
		return (0);
	return (1);
}

int
mkv_ioq_progress(struct mkv_io *io, int raw, int *res)
{
	if (raw < 0)
		return (ioq_failed(io, -raw, res));
	switch ((enum ioq_op)io->op) {
	case IOQ_RECV:
	case IOQ_SEND:
	case IOQ_READ:
	case IOQ_WRITE:
		return (ioq_moved(io, raw, res));
	case IOQ_ACCEPT:
	case IOQ_POLL:
		*res = raw;
		return (1);
	case IOQ_CONNECT:
	case IOQ_FLUSH:
		*res = 0;
		return (1);
	}
	MKV_ASSERT(!"operation out of range");
	return (1);
}

void
mkv_ioq_recv_pass(struct mkv_io *io, struct msghdr *m)
{
	memset(m, 0, sizeof(*m));
	io->one.iov_base = (char *)io->buf + io->moved;
	io->one.iov_len = io->bytes - io->moved;
	m->msg_iov = &io->one;
	m->msg_iovlen = 1;
	m->msg_control = io->pass->ctl;
	m->msg_controllen = sizeof(io->pass->ctl);
}

void
mkv_ioq_send_rest(struct mkv_io *io, struct msghdr *m)
{
	struct iovec *iov = io->buf;
	uint64_t skip = io->moved;
	size_t i = 0;

	while (skip >= iov[i].iov_len)
		skip -= iov[i++].iov_len;
	MKV_ASSERT(i < io->off);
	memset(m, 0, sizeof(*m));
	m->msg_iov = &iov[i];
	m->msg_iovlen = io->off - i;
	if (skip > 0) {
		io->one.iov_base = (char *)iov[i].iov_base + skip;
		io->one.iov_len = iov[i].iov_len - skip;
		m->msg_iov = &io->one;
		m->msg_iovlen = 1;
	}
	if ((io->flags & IOQ_F_PASS) && io->moved == 0)
		os_ctl_attach(m, io->ctl, &io->passed, 1);
}

void
mkv_ioq_ready(struct mkv_ioq *q, struct mkv_io *io, int res)
{
	MKV_ASSERT(io->active == IOQ_BUSY);
	io->active = IOQ_READY;
	io->res = res;
	mkv_list_push_tail(&q->ready, &io->link);
}

void
mkv_ioq_finish(struct mkv_ioq *q, struct mkv_io *io, int res)
{
	MKV_ASSERT(io->active != IOQ_IDLE);
	MKV_ASSERT(q->in_flight > 0);
	q->in_flight--;
	io->active = IOQ_IDLE;
	io->res = res;
	io->done(io, res);			/* may submit io again, may free it */
}

/* Only those that are ready now: what their `done` makes ready waits for the next turn. */
unsigned
mkv_ioq_run_ready(struct mkv_ioq *q)
{
	struct mkv_list batch, *n;
	struct mkv_io *io;
	unsigned ran = 0;

	mkv_list_init(&batch);
	while ((n = mkv_list_pop(&q->ready)) != NULL)
		mkv_list_push_tail(&batch, n);
	while ((n = mkv_list_pop(&batch)) != NULL) {
		io = MKV_CONTAINER_OF(n, struct mkv_io, link);
		ran++;
		if (io->multishot && io->res >= 0) {
			io->active = IOQ_BUSY;		/* goes on */
			io->done(io, io->res);
		} else {
			mkv_ioq_finish(q, io, io->res);
		}
	}
	return (ran);
}
