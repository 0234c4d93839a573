/*
 * Completion I/O without io_uring: poll(2) for sockets and readiness, helper threads for files.
 *
 * Process and thread: as os_uring.c; plus `threads` helpers, started by the first file operation (so that they are born in the jail), which
 * block every signal and touch nothing but the job list and the struct mkv_io they took.
 * Owns: the poll set (slot 0 is the wake-up bell), the table of registered files, the helpers.
 * Invariants: pfd[i] and pio[i] belong together, pio[i]->buf_idx == i for what is in the set; a file operation is in `todo` (the loop may
 * take it back), with a helper (nobody may touch it), or in `over`.
 *
 *   field        written by       read by     order
 *   todo, over   loop, helpers    both        under `lock`
 *   io (file)    helper           loop        lock release after `over` push; pairs with the lock in poll_take_over()
 *
 * Fails: memory or threads at creation; when no helper can be started, file operations end with MKV_E_NOMEM.
 */
#include "config.h"
#include "common/base/ioq_priv.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <unistd.h>

#include "common/base/assert.h"
#include "common/base/clock.h"
#include "common/base/err.h"
#include "common/base/os.h"

#define POLL_THREADS_MAX 64

struct pollq {
	struct mkv_ioq	base;
	struct pollfd	*pfd;			/* 1 + depth_max */
	struct mkv_io	**pio;
	unsigned	n;			/* slots in use, the bell included */
	int		file[MKV_IOQ_FILES_MAX];
	unsigned	n_files;
	int		wake_fd, ring_fd;

	pthread_mutex_t	lock;
	pthread_cond_t	more;
	struct mkv_list	todo, over;		/* under lock */
	int		stop;			/* under lock */
	pthread_t	thread[POLL_THREADS_MAX];
	unsigned	threads_want, threads;
};

static struct pollq *
pollq_of(struct mkv_ioq *q)
{
	return (MKV_CONTAINER_OF(q, struct pollq, base));
}

static int
poll_fd(const struct pollq *p, const struct mkv_io *io)
{
	if (io->fd < 0)
		return (-1 - io->fd);
	MKV_ASSERT((unsigned)io->fd < p->n_files);
	return (p->file[io->fd]);
}

/* ---- helper threads ---- */

static int
poll_file_try(const struct mkv_io *io, int fd)
{
	char *at = (char *)io->buf + io->moved;
	size_t left = io->bytes - io->moved;
	off_t off = (off_t)(io->off + io->moved);
	ssize_t n;

	if (io->op == IOQ_FLUSH)
		return (mkv_os_flush(fd));
	n = io->op == IOQ_READ ? pread(fd, at, left, off) : pwrite(fd, at, left, off);
	return (n < 0 ? -errno : (int)n);
}

static void
poll_file_do(const struct pollq *p, struct mkv_io *io)
{
	int fd = poll_fd(p, io), res;

	while (!mkv_ioq_progress(io, poll_file_try(io, fd), &res))
		continue;
	io->res = res;
}

static void *
poll_helper(void *arg)
{
	struct pollq *p = arg;
	struct mkv_list *n;
	int first;

	pthread_mutex_lock(&p->lock);
	while (!p->stop) {
		if ((n = mkv_list_pop(&p->todo)) == NULL) {
			pthread_cond_wait(&p->more, &p->lock);
			continue;
		}
		pthread_mutex_unlock(&p->lock);
		poll_file_do(p, MKV_CONTAINER_OF(n, struct mkv_io, link));
		pthread_mutex_lock(&p->lock);
		first = mkv_list_empty(&p->over);
		mkv_list_push_tail(&p->over, n);
		if (first)
			mkv_os_bell_ring(p->ring_fd);
	}
	pthread_mutex_unlock(&p->lock);
	return (NULL);
}

/* Signals are the loop thread's business. */
static int
poll_start_helpers(struct pollq *p)
{
	sigset_t all, old;

	MKV_ASSERT(p->threads_want > 0);	/* file I/O on a queue that was made without */
	if (p->threads == p->threads_want)
		return (1);
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	while (p->threads < p->threads_want && pthread_create(&p->thread[p->threads], NULL, poll_helper, p) == 0)
		p->threads++;
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	return (p->threads > 0);
}

static void
poll_file_submit(struct pollq *p, struct mkv_io *io)
{
	if (!poll_start_helpers(p)) {
		mkv_ioq_ready(&p->base, io, MKV_E_NOMEM);
		return;
	}
	pthread_mutex_lock(&p->lock);
	mkv_list_push_tail(&p->todo, &io->link);
	pthread_cond_signal(&p->more);
	pthread_mutex_unlock(&p->lock);
}

/* Only what no helper has taken yet can be recalled. */
static void
poll_file_cancel(struct pollq *p, struct mkv_io *io)
{
	int found = 0;

	pthread_mutex_lock(&p->lock);
	MKV_LIST_FOREACH(n, &p->todo)
		found |= (n == &io->link);
	if (found)
		mkv_list_remove(&io->link);
	pthread_mutex_unlock(&p->lock);
	if (found)
		mkv_ioq_ready(&p->base, io, MKV_E_CANCELLED);
}

static void
poll_take_over(struct pollq *p)
{
	struct mkv_list *n;
	struct mkv_io *io;

	pthread_mutex_lock(&p->lock);
	while ((n = mkv_list_pop(&p->over)) != NULL) {
		io = MKV_CONTAINER_OF(n, struct mkv_io, link);
		mkv_ioq_ready(&p->base, io, io->res);
	}
	pthread_mutex_unlock(&p->lock);
}

/* ---- descriptors ---- */

static void
poll_set_add(struct pollq *p, struct mkv_io *io)
{
	MKV_ASSERT(p->n <= p->base.depth_max);
	p->pfd[p->n].fd = poll_fd(p, io);
	p->pfd[p->n].events = io->op == IOQ_SEND || io->op == IOQ_CONNECT ? POLLOUT : POLLIN;
	p->pfd[p->n].revents = 0;
	p->pio[p->n] = io;
	io->buf_idx = (int)p->n++;
}

static void
poll_set_remove(struct pollq *p, struct mkv_io *io)
{
	unsigned i = (unsigned)io->buf_idx, last = --p->n;

	MKV_ASSERT(i > 0 && i <= last);
	MKV_ASSERT(p->pio[i] == io);
	p->pfd[i] = p->pfd[last];
	p->pio[i] = p->pio[last];
	p->pio[i]->buf_idx = (int)i;
	io->buf_idx = -1;
}

static int
poll_connect_try(struct mkv_io *io, int fd)
{
	int e = 0;
	socklen_t len = sizeof(e);

	if (!(io->flags & IOQ_F_WAITING)) {
		io->flags |= IOQ_F_WAITING;
		if (connect(fd, (struct sockaddr *)&io->addr, io->addr_bytes) == 0)
			return (0);
		return (errno == EINPROGRESS ? -EAGAIN : -errno);
	}
	if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &e, &len) != 0)
		e = errno;
	return (-e);
}

static int
poll_send_try(struct mkv_io *io, int fd)
{
	ssize_t n;

	mkv_ioq_send_rest(io, &io->msg);
	n = sendmsg(fd, &io->msg, MSG_DONTWAIT | mkv_os_msg_nosignal);
	return (n < 0 ? -errno : (int)n);
}

static int
poll_recv_try(struct mkv_io *io, int fd)
{
	ssize_t n;

	if (io->flags & IOQ_F_PASS) {
		mkv_ioq_recv_pass(io, &io->msg);
		n = recvmsg(fd, &io->msg, MSG_DONTWAIT | mkv_os_msg_cloexec);
	} else {
		n = recv(fd, (char *)io->buf + io->moved, io->bytes - io->moved, MSG_DONTWAIT);
	}
	return (n < 0 ? -errno : (int)n);
}

/* One attempt: a count, a descriptor, or -errno. -EAGAIN: wait for readiness. */
static int
poll_try(const struct pollq *p, struct mkv_io *io)
{
	int fd = poll_fd(p, io);

	switch ((enum ioq_op)io->op) {
	case IOQ_RECV:
		return (poll_recv_try(io, fd));
	case IOQ_SEND:
		return (poll_send_try(io, fd));
	case IOQ_ACCEPT:
		return (mkv_os_accept(fd, &io->addr, &io->addr_bytes));
	case IOQ_CONNECT:
		return (poll_connect_try(io, fd));
	default:
		MKV_ASSERT(!"not a descriptor operation");
		return (-EINVAL);
	}
}

/* 1: *res is the result. 0: wait for readiness. */
static int
poll_advance(struct pollq *p, struct mkv_io *io, int *res)
{
	int raw;

	do {
		raw = poll_try(p, io);
		if (raw == -EAGAIN || raw == -EWOULDBLOCK)
			return (0);
	} while (!mkv_ioq_progress(io, raw, res));
	return (1);
}

static void
poll_submit(struct mkv_ioq *q, struct mkv_io *io)
{
	struct pollq *p = pollq_of(q);
	int res;

	if (IOQ_IS_FILE(io->op)) {
		poll_file_submit(p, io);
		return;
	}
	if (io->op == IOQ_CONNECT || io->op == IOQ_ACCEPT)
		(void)mkv_os_socket_mode(poll_fd(p, io), 1);
	if ((io->op == IOQ_SEND || io->op == IOQ_CONNECT) && poll_advance(p, io, &res))
		mkv_ioq_ready(q, io, res);
	else
		poll_set_add(p, io);
}

static void
poll_cancel(struct mkv_ioq *q, struct mkv_io *io)
{
	struct pollq *p = pollq_of(q);

	if (IOQ_IS_FILE(io->op)) {
		poll_file_cancel(p, io);
		return;
	}
	poll_set_remove(p, io);
	if (io->active == IOQ_READY)
		io->res = MKV_E_CANCELLED;	/* a multishot poll that has fired */
	else
		mkv_ioq_ready(q, io, MKV_E_CANCELLED);
}

/* A bell is cleared for its owner, who under io_uring (edge triggered) does not read it either. */
static void
poll_fired(struct pollq *p, struct mkv_io *io, int revents)
{
	if (revents & POLLNVAL) {
		poll_set_remove(p, io);
		mkv_ioq_ready(&p->base, io, mkv_ioq_errno(EBADF));
		return;
	}
	if (!io->multishot)
		poll_set_remove(p, io);
	else if (!mkv_os_is_socket(poll_fd(p, io)))
		mkv_os_bell_clear(poll_fd(p, io));
	mkv_ioq_ready(&p->base, io, revents);
}

/* Downwards: what is removed from slot i is replaced by the last one, which has been looked at. */
static void
poll_collect(struct pollq *p)
{
	struct mkv_io *io;
	int revents, res;

	for (unsigned i = p->n; i-- > 1;) {
		io = p->pio[i];
		revents = p->pfd[i].revents;
		p->pfd[i].revents = 0;
		if (revents == 0)
			continue;
		if (io->op == IOQ_POLL) {
			poll_fired(p, io, revents);
		} else if (poll_advance(p, io, &res)) {
			poll_set_remove(p, io);
			mkv_ioq_ready(&p->base, io, res);
		}
	}
}

static int
poll_run(struct mkv_ioq *q, uint64_t until_ns)
{
	struct pollq *p = pollq_of(q);
	uint64_t now, wait_ns;
	int r;

	poll_take_over(p);
	now = until_ns == 0 || until_ns == UINT64_MAX ? 0 : mkv_now_ns();
	wait_ns = until_ns == UINT64_MAX ? until_ns : until_ns > now ? until_ns - now : 0;
	if (!mkv_list_empty(&q->ready))
		wait_ns = 0;
	q->enters++;
	r = mkv_os_poll(p->pfd, p->n, wait_ns);
	if (r < 0)
		return (r);
	if (p->pfd[0].revents != 0)
		mkv_os_bell_clear(p->wake_fd);
	poll_collect(p);
	poll_take_over(p);
	return ((int)mkv_ioq_run_ready(q));
}

static void
poll_wake(struct mkv_ioq *q)
{
	mkv_os_bell_ring(pollq_of(q)->ring_fd);
}

static int
poll_register_file(struct mkv_ioq *q, int fd)
{
	struct pollq *p = pollq_of(q);

	if (p->n_files == MKV_IOQ_FILES_MAX)
		return (MKV_E_TOOBIG);
	p->file[p->n_files] = fd;
	return ((int)p->n_files++);
}

/* Nothing to register: buf_idx is not looked at. */
static int
poll_register_buffers(struct mkv_ioq *q MKV_UNUSED, const struct iovec *iov MKV_UNUSED, unsigned n MKV_UNUSED,
    unsigned slots MKV_UNUSED)
{
	return (0);
}

static int
poll_set_buffer(struct mkv_ioq *q MKV_UNUSED, unsigned slot MKV_UNUSED, const struct iovec *iov MKV_UNUSED)
{
	return (0);
}

static int
poll_jail(struct mkv_ioq *q MKV_UNUSED, unsigned may MKV_UNUSED)
{
	return (0);				/* no ring: seccomp sees every call */
}

static void
poll_free(struct pollq *p)
{
	(void)close(p->wake_fd);
	(void)close(p->ring_fd);
	pthread_cond_destroy(&p->more);
	pthread_mutex_destroy(&p->lock);
	free(p->pfd);
	free(p->pio);
	free(p);
}

/* Helpers finish the call they are in: their buffers are free afterwards. */
static void
poll_destroy(struct mkv_ioq *q)
{
	struct pollq *p = pollq_of(q);

	pthread_mutex_lock(&p->lock);
	p->stop = 1;
	pthread_cond_broadcast(&p->more);
	pthread_mutex_unlock(&p->lock);
	for (unsigned i = 0; i < p->threads; i++)
		pthread_join(p->thread[i], NULL);
	poll_free(p);
}

static const struct mkv_ioq_ops poll_ops = {
	.name = "poll",
	.register_file = poll_register_file,
	.register_buffers = poll_register_buffers,
	.set_buffer = poll_set_buffer,
	.jail = poll_jail,
	.submit = poll_submit,
	.cancel = poll_cancel,
	.run = poll_run,
	.wake = poll_wake,
	.destroy = poll_destroy,
};

int
mkv_ioq_create_poll(struct mkv_ioq **out, const struct mkv_ioq_opts *opts)
{
	struct pollq *p = calloc(1, sizeof(*p));
	int r;

	if (p == NULL)
		return (MKV_E_NOMEM);
	mkv_ioq_init(&p->base, &poll_ops, opts);
	if ((r = mkv_os_bell_create(&p->wake_fd, &p->ring_fd)) != 0) {
		free(p);
		return (r);
	}
	if (opts->guest) {
		mkv_os_fd_away(&p->wake_fd);
		mkv_os_fd_away(&p->ring_fd);
	}
	pthread_mutex_init(&p->lock, NULL);
	pthread_cond_init(&p->more, NULL);
	mkv_list_init(&p->todo);
	mkv_list_init(&p->over);
	p->threads_want = MKV_MIN(opts->threads, POLL_THREADS_MAX);
	p->pfd = calloc((size_t)opts->depth_max + 1, sizeof(*p->pfd));
	p->pio = calloc((size_t)opts->depth_max + 1, sizeof(*p->pio));
	if (p->pfd == NULL || p->pio == NULL) {
		poll_free(p);
		return (MKV_E_NOMEM);
	}
	p->pfd[0].fd = p->wake_fd;
	p->pfd[0].events = POLLIN;
	p->n = 1;
	*out = &p->base;
	return (0);
}
