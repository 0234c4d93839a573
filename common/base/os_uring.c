/*
 * Completion I/O by io_uring: one ring per loop thread, one io_uring_enter(2) per turn of the loop.
 *
 * Process and thread: fronts, drives, libmemkv's I/O thread. The ring is created disabled and enabled by the thread that first uses it
 * (IORING_SETUP_SINGLE_ISSUER binds it to that one), or by mkv_ioq_jail(), which first registers the restrictions.
 * Owns: the ring, its table of registered files (the last slot is the queue's own wake-up eventfd), the wake-up eventfd.
 * Invariants: user_data is the struct mkv_io, TAG_NONE (cancel) or TAG_WAKE; a completion of an operation belongs to the struct's present
 * use, because a cancel is submitted before anything that its owner submits later. Nothing is queued by SEND_ZC: a dead sender's pages
 * would be read by the peer after they got a new owner.
 * Fails: io_uring refused by the kernel or the container: MKV_E_UNSUPPORTED at creation, never later. When the submission ring is full and
 * the kernel takes nothing (EAGAIN, EBUSY) operations wait in `backlog`.
 *
 * liburing 2.3 neither exports io_uring_register_restrictions() nor io_uring_enable_rings(): called by number here.
 */
#include "config.h"
#include "common/base/ioq_priv.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <liburing.h>

#include "common/base/assert.h"
#include "common/base/clock.h"
#include "common/base/err.h"
#include "common/base/os.h"

#define TAG_NONE	0u
#define TAG_WAKE	1u
#define WAKE_SLOT	(MKV_IOQ_FILES_MAX - 1)
#define REAP_MAX	256		/* completions per turn: timers come to their right */
#define RING_ENTRIES_MIN 8u

struct uring {
	struct mkv_ioq	base;
	struct io_uring	ring;
	struct mkv_list	backlog;	/* busy, but not in the submission ring yet (or a cancel that is not) */
	unsigned	n_files;
	int		wake_fd, ring_fd;	/* the two ends of the wake-up bell */
	int		restricted;	/* waits for mkv_ioq_jail() */
	int		enabled, wake_armed, all_fixed, dying;
};

static struct uring *
uring_of(struct mkv_ioq *q)
{
	return (MKV_CONTAINER_OF(q, struct uring, base));
}

static int
uring_register(struct uring *u, unsigned opcode, const void *arg, unsigned n)
{
	long r = syscall(__NR_io_uring_register, u->ring.ring_fd, opcode, arg, n);

	return (r < 0 ? -errno : (int)r);
}

static int
uring_enable(struct uring *u)
{
	int r;

	if (u->enabled)
		return (0);
	r = uring_register(u, IORING_REGISTER_ENABLE_RINGS, NULL, 0);
	u->enabled = (r == 0);
	return (r);
}

/* A free submission slot, NULL if the kernel takes nothing now. */
static struct io_uring_sqe *
uring_sqe(struct uring *u)
{
	struct io_uring_sqe *sqe = io_uring_get_sqe(&u->ring);

	if (sqe != NULL || (u->restricted && !u->enabled))
		return (sqe);
	if (uring_enable(u) != 0)
		return (NULL);
	u->base.enters++;
	(void)io_uring_submit(&u->ring);	/* what it could not take is seen below */
	return (io_uring_get_sqe(&u->ring));
}

static int
uring_fd(const struct mkv_io *io)
{
	return (io->fd >= 0 ? io->fd : -1 - io->fd);
}

static short
uring_wait_events(const struct mkv_io *io)
{
	return (io->op == IOQ_SEND || io->op == IOQ_CONNECT ? POLLOUT : POLLIN);
}

static void
uring_prep_send(struct mkv_io *io, struct io_uring_sqe *sqe)
{
	mkv_ioq_send_rest(io, &io->msg);
	if (io->msg.msg_iovlen == 1 && io->msg.msg_control == NULL)
		io_uring_prep_send(sqe, uring_fd(io), io->msg.msg_iov->iov_base, io->msg.msg_iov->iov_len,
		    MSG_NOSIGNAL | MSG_WAITALL);
	else
		io_uring_prep_sendmsg(sqe, uring_fd(io), &io->msg, MSG_NOSIGNAL | MSG_WAITALL);
}

static void
uring_prep_recv(struct mkv_io *io, struct io_uring_sqe *sqe)
{
	char *at = (char *)io->buf + io->moved;

	if (io->flags & IOQ_F_PASS) {
		mkv_ioq_recv_pass(io, &io->msg);
		io_uring_prep_recvmsg(sqe, uring_fd(io), &io->msg, MSG_CMSG_CLOEXEC);
	} else {
		io_uring_prep_recv(sqe, uring_fd(io), at, io->bytes - io->moved, io->flags & MKV_IO_ALL ? MSG_WAITALL : 0);
	}
}

static void
uring_prep_rw(struct mkv_io *io, struct io_uring_sqe *sqe)
{
	char *at = (char *)io->buf + io->moved;
	unsigned left = (unsigned)(io->bytes - io->moved);
	uint64_t off = io->off + io->moved;

	if (io->op == IOQ_READ && io->buf_idx >= 0)
		io_uring_prep_read_fixed(sqe, uring_fd(io), at, left, off, io->buf_idx);
	else if (io->op == IOQ_READ)
		io_uring_prep_read(sqe, uring_fd(io), at, left, off);
	else if (io->buf_idx >= 0)
		io_uring_prep_write_fixed(sqe, uring_fd(io), at, left, off, io->buf_idx);
	else
		io_uring_prep_write(sqe, uring_fd(io), at, left, off);
}

static void
uring_prep_poll(struct mkv_io *io, struct io_uring_sqe *sqe)
{
	if (io->multishot)
		io_uring_prep_poll_multishot(sqe, uring_fd(io), POLLIN | EPOLLET);
	else
		io_uring_prep_poll_add(sqe, uring_fd(io), POLLIN);
}

static void
uring_prep(struct mkv_io *io, struct io_uring_sqe *sqe)
{
	if (io->flags & IOQ_F_WAITING) {
		io_uring_prep_poll_add(sqe, uring_fd(io), (unsigned)uring_wait_events(io));
		return;
	}
	switch ((enum ioq_op)io->op) {
	case IOQ_RECV:
		uring_prep_recv(io, sqe);
		break;
	case IOQ_SEND:
		uring_prep_send(io, sqe);
		break;
	case IOQ_ACCEPT:
		io_uring_prep_accept(sqe, uring_fd(io), (struct sockaddr *)&io->addr, &io->addr_bytes, SOCK_CLOEXEC);
		break;
	case IOQ_CONNECT:
		io_uring_prep_connect(sqe, uring_fd(io), (struct sockaddr *)&io->addr, io->addr_bytes);
		break;
	case IOQ_POLL:
		uring_prep_poll(io, sqe);
		break;
	case IOQ_READ:
	case IOQ_WRITE:
		uring_prep_rw(io, sqe);
		break;
	case IOQ_FLUSH:
		io_uring_prep_fsync(sqe, uring_fd(io), IORING_FSYNC_DATASYNC);
		break;
	}
}

/* io->fd's kind goes into the flags; under "fixed files required" also for those that have no file. */
static void
uring_tag(struct uring *u, struct io_uring_sqe *sqe, int fixed, uint64_t tag)
{
	if (fixed || (u->all_fixed && tag == TAG_NONE))
		sqe->flags |= IOSQE_FIXED_FILE;
	sqe->user_data = tag;
}

static int
uring_issue(struct uring *u, struct mkv_io *io)
{
	struct io_uring_sqe *sqe = uring_sqe(u);

	if (sqe == NULL)
		return (0);
	uring_prep(io, sqe);
	uring_tag(u, sqe, io->fd >= 0, (uint64_t)(uintptr_t)io);
	return (1);
}

static void
uring_submit(struct mkv_ioq *q, struct mkv_io *io)
{
	struct uring *u = uring_of(q);

	if (io->op == IOQ_CONNECT && io->fd < 0)
		(void)mkv_os_socket_mode(uring_fd(io), 0);
	if (!mkv_list_empty(&u->backlog) || !uring_issue(u, io))
		mkv_list_push_tail(&u->backlog, &io->link);
}

static int
uring_issue_cancel(struct uring *u, struct mkv_io *io)
{
	struct io_uring_sqe *sqe = uring_sqe(u);

	if (sqe == NULL)
		return (0);
	io_uring_prep_cancel64(sqe, (uint64_t)(uintptr_t)io, 0);
	uring_tag(u, sqe, 0, TAG_NONE);
	return (1);
}

/* In the backlog with IOQ_F_CANCEL: it was issued, the cancel was not (see uring_cancel). */
static void
uring_issue_backlog(struct uring *u)
{
	struct mkv_io *io;

	while (!mkv_list_empty(&u->backlog)) {
		io = MKV_CONTAINER_OF(u->backlog.next, struct mkv_io, link);
		if (!(io->flags & IOQ_F_CANCEL ? uring_issue_cancel(u, io) : uring_issue(u, io)))
			return;
		mkv_list_remove(&io->link);
	}
}

static void
uring_cancel(struct mkv_ioq *q, struct mkv_io *io)
{
	struct uring *u = uring_of(q);

	if (io->flags & IOQ_F_CANCEL)
		return;
	io->flags |= IOQ_F_CANCEL;
	if (!mkv_list_empty(&io->link)) {	/* in the backlog: the kernel has never seen it */
		mkv_list_remove(&io->link);
		mkv_ioq_ready(q, io, MKV_E_CANCELLED);
	} else if (!mkv_list_empty(&u->backlog) || !uring_issue_cancel(u, io)) {
		mkv_list_push_tail(&u->backlog, &io->link);
	}
}

static void
uring_again(struct uring *u, struct mkv_io *io)
{
	if (!uring_issue(u, io))
		mkv_list_push_tail(&u->backlog, &io->link);
}

static void
uring_finish(struct uring *u, struct mkv_io *io, int res)
{
	mkv_list_remove(&io->link);		/* a cancel that is still in the backlog came too late */
	if (io->op == IOQ_ACCEPT && res >= 0 && u->dying)
		(void)close(res);
	mkv_ioq_finish(&u->base, io, res);
}

/* Returns 1 if `done` ran. */
static int
uring_complete_poll(struct uring *u, struct mkv_io *io, int res, unsigned flags)
{
	if (res < 0) {
		uring_finish(u, io, mkv_ioq_errno(-res));
		return (1);
	}
	if (!io->multishot) {
		uring_finish(u, io, res);
		return (1);
	}
	if (!(flags & IORING_CQE_F_MORE)) {	/* the kernel ended it, for instance on overflow: arm it again */
		if (io->flags & IOQ_F_CANCEL) {
			uring_finish(u, io, MKV_E_CANCELLED);
			return (1);
		}
		uring_again(u, io);
	}
	io->done(io, res);
	return (1);
}

static int
uring_complete(struct uring *u, struct mkv_io *io, int raw, unsigned flags)
{
	int res;

	MKV_ASSERT(io->active == IOQ_BUSY);
	if (io->op == IOQ_POLL)
		return (uring_complete_poll(u, io, raw, flags));
	if (io->flags & IOQ_F_WAITING) {
		io->flags &= (uint8_t)~IOQ_F_WAITING;
		if (raw >= 0)
			raw = -EINTR;		/* ready: issue it again, unless a cancel came */
	} else if (raw == -EAGAIN && !IOQ_IS_FILE(io->op) && !(io->flags & IOQ_F_CANCEL)) {
		io->flags |= IOQ_F_WAITING;	/* O_NONBLOCK: nothing waits for us in the kernel */
		raw = -EINTR;
	} else if (raw == -EAGAIN) {
		raw = -EINTR;
	}
	if (raw == -EINTR && (io->flags & IOQ_F_CANCEL))
		raw = -ECANCELED;
	if (mkv_ioq_progress(io, raw, &res)) {
		uring_finish(u, io, res);
		return (1);
	}
	uring_again(u, io);
	return (0);
}

static void
uring_arm_wake(struct uring *u)
{
	struct io_uring_sqe *sqe = uring_sqe(u);

	u->wake_armed = (sqe != NULL);
	if (sqe == NULL)
		return;
	io_uring_prep_poll_multishot(sqe, WAKE_SLOT, POLLIN | EPOLLET);
	uring_tag(u, sqe, 1, TAG_WAKE);
}

static int
uring_cqe(struct uring *u, const struct io_uring_cqe *c)
{
	struct mkv_io *io;

	if (c->user_data == TAG_NONE)
		return (0);
	if (c->user_data == TAG_WAKE) {
		if (!(c->flags & IORING_CQE_F_MORE))
			u->wake_armed = 0;
		return (0);
	}
	io = (struct mkv_io *)(uintptr_t)c->user_data;
	if (!u->dying)
		return (uring_complete(u, io, c->res, c->flags));
	if (!(c->flags & IORING_CQE_F_MORE)) {
		if (io->op == IOQ_ACCEPT && c->res >= 0)
			(void)close(c->res);
		u->base.in_flight--;
	}
	return (0);
}

/* Entries are copied out first: `done` may submit, and a full submission ring makes the kernel write completions. */
static unsigned
uring_reap(struct uring *u)
{
	struct io_uring_cqe *at[32], c[32];
	unsigned n, seen, ran = 0;

	for (seen = 0; seen < REAP_MAX; seen += n) {
		n = io_uring_peek_batch_cqe(&u->ring, at, MKV_ARRAY_LEN(at));
		if (n == 0)
			break;
		for (unsigned i = 0; i < n; i++)
			memcpy(&c[i], at[i], sizeof(c[i]));
		io_uring_cq_advance(&u->ring, n);
		for (unsigned i = 0; i < n; i++)
			ran += (unsigned)uring_cqe(u, &c[i]);
	}
	return (ran);
}

static int
uring_enter(struct uring *u, uint64_t until_ns)
{
	struct __kernel_timespec ts;
	struct io_uring_cqe *cqe;
	uint64_t now;

	u->base.enters++;
	if (until_ns == UINT64_MAX)
		return (io_uring_submit_and_wait(&u->ring, 1));
	now = until_ns == 0 ? 0 : mkv_now_ns();
	if (until_ns <= now)
		return (io_uring_submit_and_get_events(&u->ring));
	ts.tv_sec = (int64_t)((until_ns - now) / MKV_NS_PER_SEC);
	ts.tv_nsec = (long long)((until_ns - now) % MKV_NS_PER_SEC);
	return (io_uring_submit_and_wait_timeout(&u->ring, &cqe, 1, &ts, NULL));
}

static int
uring_run(struct mkv_ioq *q, uint64_t until_ns)
{
	struct uring *u = uring_of(q);
	unsigned ran;
	int r;

	MKV_ASSERT(u->enabled || !u->restricted);
	if (uring_enable(u) != 0)
		return (MKV_E_SYSTEM);
	if (!u->wake_armed)
		uring_arm_wake(u);
	uring_issue_backlog(u);
	if (!mkv_list_empty(&q->ready) || !mkv_list_empty(&u->backlog) || !u->wake_armed)
		until_ns = 0;
	r = uring_enter(u, until_ns);
	ran = mkv_ioq_run_ready(q);
	ran += uring_reap(u);
	if (ran == 0 && r < 0 && r != -ETIME && r != -EINTR && r != -EAGAIN && r != -EBUSY)
		return (mkv_ioq_errno(-r));
	return ((int)ran);
}

static void
uring_wake(struct mkv_ioq *q)
{
	mkv_os_bell_ring(uring_of(q)->ring_fd);
}

static int
uring_register_file(struct mkv_ioq *q, int fd)
{
	struct uring *u = uring_of(q);

	if (u->n_files == WAKE_SLOT)
		return (MKV_E_TOOBIG);
	if (io_uring_register_files_update(&u->ring, u->n_files, &fd, 1) != 1)
		return (MKV_E_SYSTEM);
	return ((int)u->n_files++);
}

static int
uring_set_buffer(struct mkv_ioq *q, unsigned slot, const struct iovec *iov)
{
	struct io_uring_rsrc_update2 up;
	int r;

	memset(&up, 0, sizeof(up));
	up.offset = slot;
	up.data = (uint64_t)(uintptr_t)iov;
	up.nr = 1;
	r = uring_register(uring_of(q), IORING_REGISTER_BUFFERS_UPDATE, &up, sizeof(up));
	return (r == 1 ? 0 : r < 0 ? mkv_ioq_errno(-r) : MKV_E_SYSTEM);
}

/* A sparse table: what is not there yet comes later, even to a jailed ring. */
static int
uring_register_buffers(struct mkv_ioq *q, const struct iovec *iov, unsigned n, unsigned slots)
{
	struct uring *u = uring_of(q);
	struct io_uring_rsrc_register reg;
	int r;

	memset(&reg, 0, sizeof(reg));
	reg.nr = slots;
	reg.flags = IORING_RSRC_REGISTER_SPARSE;
	r = uring_register(u, IORING_REGISTER_BUFFERS2, &reg, sizeof(reg));
	if (r != 0)
		return (mkv_ioq_errno(-r));
	for (unsigned i = 0; i < n; i++)
		if ((r = uring_set_buffer(q, i, &iov[i])) != 0) {
			(void)io_uring_unregister_buffers(&u->ring);
			return (r);
		}
	return (0);
}

static const uint8_t uring_ops_always[] = {
	IORING_OP_NOP, IORING_OP_POLL_ADD, IORING_OP_TIMEOUT, IORING_OP_ASYNC_CANCEL
};
static const uint8_t uring_ops_file[] = {
	IORING_OP_READ_FIXED, IORING_OP_WRITE_FIXED, IORING_OP_READ, IORING_OP_WRITE, IORING_OP_FSYNC, IORING_OP_FALLOCATE
};
static const uint8_t uring_ops_socket[] = {
	IORING_OP_RECV, IORING_OP_SEND, IORING_OP_RECVMSG, IORING_OP_SENDMSG, IORING_OP_ACCEPT, IORING_OP_POLL_REMOVE
};

static unsigned
uring_allow(struct io_uring_restriction *r, unsigned n, const uint8_t *ops, size_t count)
{
	for (size_t i = 0; i < count; i++) {
		r[n].opcode = IORING_RESTRICTION_SQE_OP;
		r[n++].sqe_op = ops[i];
	}
	return (n);
}

/* Files only: every operation must name a registered file, so nothing that is opened by mistake or by force can be used. */
static int
uring_restrict(struct uring *u, unsigned may)
{
	struct io_uring_restriction r[24];
	unsigned n;

	memset(r, 0, sizeof(r));
	n = uring_allow(r, 0, uring_ops_always, sizeof(uring_ops_always));
	if (may & MKV_IOQ_MAY_FILE)
		n = uring_allow(r, n, uring_ops_file, sizeof(uring_ops_file));
	if (may & MKV_IOQ_MAY_SOCKET)
		n = uring_allow(r, n, uring_ops_socket, sizeof(uring_ops_socket));
	r[n].opcode = IORING_RESTRICTION_SQE_FLAGS_ALLOWED;
	r[n++].sqe_flags = IOSQE_FIXED_FILE;
	if (!(may & MKV_IOQ_MAY_SOCKET)) {
		r[n].opcode = IORING_RESTRICTION_SQE_FLAGS_REQUIRED;
		r[n++].sqe_flags = IOSQE_FIXED_FILE;
	}
	r[n].opcode = IORING_RESTRICTION_REGISTER_OP;
	r[n++].register_op = IORING_REGISTER_BUFFERS_UPDATE;
	MKV_ASSERT(n <= MKV_ARRAY_LEN(r));
	return (uring_register(u, IORING_REGISTER_RESTRICTIONS, r, n));
}

static int
uring_jail(struct mkv_ioq *q, unsigned may)
{
	struct uring *u = uring_of(q);
	int r;

	MKV_ASSERT(u->restricted);
	MKV_ASSERT(!u->enabled);
	MKV_ASSERT(q->in_flight == 0);		/* what is queued already was tagged under other rules */
	r = uring_restrict(u, may);
	u->all_fixed = (r == 0 && !(may & MKV_IOQ_MAY_SOCKET));
	if (uring_enable(u) != 0)
		return (MKV_E_SYSTEM);
	return (r == 0 ? 0 : MKV_E_UNSUPPORTED);
}

static void
uring_cancel_all(struct uring *u)
{
	struct io_uring_sqe *sqe = uring_sqe(u);

	if (sqe == NULL)
		return;
	io_uring_prep_cancel64(sqe, 0, IORING_ASYNC_CANCEL_ALL | IORING_ASYNC_CANCEL_ANY);
	uring_tag(u, sqe, 0, TAG_NONE);
}

/* Waits, within limits, for I/O that is at the device: the caller may free its buffers when we return. */
static void
uring_drain(struct uring *u)
{
	uint64_t until = mkv_now_ns() + MKV_IOQ_DESTROY_MS * MKV_NS_PER_MS;
	struct mkv_list *n;

	while ((n = mkv_list_pop(&u->backlog)) != NULL)
		if (!(MKV_CONTAINER_OF(n, struct mkv_io, link)->flags & IOQ_F_CANCEL))
			u->base.in_flight--;
	while (mkv_list_pop(&u->base.ready) != NULL)
		u->base.in_flight--;
	u->dying = 1;
	while (u->base.in_flight > 0 && u->enabled && mkv_now_ns() < until) {
		uring_cancel_all(u);
		(void)uring_enter(u, MKV_MIN(until, mkv_now_ns() + 50 * MKV_NS_PER_MS));
		(void)uring_reap(u);
	}
}

static void
uring_destroy(struct mkv_ioq *q)
{
	struct uring *u = uring_of(q);

	uring_drain(u);
	io_uring_queue_exit(&u->ring);
	(void)close(u->wake_fd);
	(void)close(u->ring_fd);
	free(u);
}

static const struct mkv_ioq_ops uring_ops = {
	.name = "io_uring",
	.register_file = uring_register_file,
	.register_buffers = uring_register_buffers,
	.set_buffer = uring_set_buffer,
	.jail = uring_jail,
	.submit = uring_submit,
	.cancel = uring_cancel,
	.run = uring_run,
	.wake = uring_wake,
	.destroy = uring_destroy,
};

/* Best flags first; an older kernel answers EINVAL to those that it does not know. */
static int
uring_setup(struct uring *u, const struct mkv_ioq_opts *opts)
{
	static const unsigned tries[] = {
		IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN | IORING_SETUP_SUBMIT_ALL,
		IORING_SETUP_COOP_TASKRUN | IORING_SETUP_SUBMIT_ALL,
		0
	};
	struct io_uring_params p;
	int r = -EINVAL;

	for (unsigned i = 0; i < MKV_ARRAY_LEN(tries) && r == -EINVAL; i++) {
		memset(&p, 0, sizeof(p));
		p.flags = tries[i] | IORING_SETUP_R_DISABLED | IORING_SETUP_CLAMP | IORING_SETUP_CQSIZE;
		p.cq_entries = 2 * MKV_MAX(opts->depth_max, MKV_MAX(opts->entries, RING_ENTRIES_MIN));
		r = io_uring_queue_init_params(MKV_MAX(opts->entries, RING_ENTRIES_MIN), &u->ring, &p);
	}
	if (r == 0 && (p.features & IORING_FEAT_EXT_ARG) && (p.features & IORING_FEAT_NODROP))
		return (0);
	if (r == 0)
		io_uring_queue_exit(&u->ring);
	return (r == -ENOMEM ? MKV_E_NOMEM : r == -EMFILE || r == -ENFILE ? MKV_E_SYSTEM : MKV_E_UNSUPPORTED);
}

static int
uring_setup_files(struct uring *u)
{
	int files[MKV_IOQ_FILES_MAX];

	for (unsigned i = 0; i < MKV_ARRAY_LEN(files); i++)
		files[i] = -1;
	files[WAKE_SLOT] = u->wake_fd;
	return (io_uring_register_files(&u->ring, files, MKV_ARRAY_LEN(files)) == 0 ? 0 : MKV_E_UNSUPPORTED);
}

static void
uring_fds_away(struct uring *u)
{
	mkv_os_fd_away(&u->wake_fd);
	mkv_os_fd_away(&u->ring_fd);
	mkv_os_fd_away(&u->ring.ring_fd);
	u->ring.enter_ring_fd = u->ring.ring_fd;
}

int
mkv_ioq_create_uring(struct mkv_ioq **out, const struct mkv_ioq_opts *opts)
{
	struct uring *u = calloc(1, sizeof(*u));
	int r;

	if (u == NULL)
		return (MKV_E_NOMEM);
	mkv_ioq_init(&u->base, &uring_ops, opts);
	mkv_list_init(&u->backlog);
	u->restricted = opts->restricted;
	if ((r = mkv_os_bell_create(&u->wake_fd, &u->ring_fd)) != 0)
		goto free_u;
	if ((r = uring_setup(u, opts)) != 0)
		goto close_bell;
	if (opts->guest)
		uring_fds_away(u);
	if ((r = uring_setup_files(u)) != 0)
		goto exit_ring;
	*out = &u->base;
	return (0);
exit_ring:
	io_uring_queue_exit(&u->ring);
close_bell:
	(void)close(u->wake_fd);
	(void)close(u->ring_fd);
free_u:
	free(u);
	return (r);
}

int
mkv_os_uring_try(void)
{
	struct io_uring ring;
	int r = io_uring_queue_init(RING_ENTRIES_MIN, &ring, 0);

	if (r == 0)
		io_uring_queue_exit(&ring);
	return (r);
}
