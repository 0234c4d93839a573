/*
 * The platform: macOS (what POSIX has is in os_posix.c). shm_open for memfd, a pipe for eventfd, kqueue for pidfd, F_PREALLOCATE, F_FULLFSYNC.
 *
 * Never compiled or run where this project is developed: written from the manuals, kept small. File and memory mode over TCP is all that it has
 * to carry; there is no jail, and io_uring is refused, so that queues are the portable ones.
 *
 * Process and thread: any; a counter for names is all the state.
 * Owns: nothing; descriptors and mappings are the caller's, all close-on-exec (set after the fact: the supervisor forks from one thread).
 * Fails: as os.h says. Shared memory is not sealed here: whoever holds the descriptor could shrink it.
 */
#include "config.h"
#include "common/base/os.h"

#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/disk.h>
#include <sys/event.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#include "common/base/assert.h"
#include "common/base/clock.h"
#include "common/base/err.h"
#include "common/base/ioq_priv.h"
#include "common/base/os_priv.h"

#define CTL_SEND_MS	1000u		/* a message that is half out has to get out */

const int mkv_os_msg_nosignal = 0, mkv_os_msg_cloexec = 0;	/* SO_NOSIGPIPE, see mkv_os_socket_mode() */

static int
os_cloexec(int fd)
{
	return (fcntl(fd, F_SETFD, FD_CLOEXEC));
}

int
mkv_ioq_create_uring(struct mkv_ioq **out, const struct mkv_ioq_opts *opts MKV_UNUSED)
{
	*out = NULL;
	return (MKV_E_UNSUPPORTED);
}

/* ---- shared memory ---- */

/* The name exists for the moment between open and unlink only. Darwin limits it to 31 bytes: the caller's name does not fit. */
int
mkv_os_shm_create(const char *name MKV_UNUSED, uint64_t bytes, int huge)
{
	static _Atomic unsigned count;
	char path[32];
	int fd;

	MKV_ASSERT(bytes > 0);
	if (huge == 2)
		return (MKV_E_UNSUPPORTED);
	(void)snprintf(path, sizeof(path), "/memkv.%d.%u", (int)getpid(), atomic_fetch_add(&count, 1));
	fd = shm_open(path, O_RDWR | O_CREAT | O_EXCL, 0600);
	if (fd < 0)
		return (os_err());
	(void)shm_unlink(path);
	if (os_cloexec(fd) != 0 || ftruncate(fd, (off_t)bytes) != 0)
		return (os_close_err(fd, os_err()));
	return (fd);
}

void
mkv_os_pass_rights(int fd MKV_UNUSED, int on MKV_UNUSED)
{
}

int
mkv_os_shm_check(int fd MKV_UNUSED, struct mkv_os_shm *out MKV_UNUSED)
{
	return (MKV_E_UNSUPPORTED);
}

int
mkv_os_shm_fill(int fd MKV_UNUSED, uint64_t bytes MKV_UNUSED)
{
	return (MKV_E_UNSUPPORTED);
}

int
mkv_os_shm_create_huge(const char *name MKV_UNUSED, uint64_t bytes MKV_UNUSED, uint64_t page_bytes MKV_UNUSED, int node MKV_UNUSED)
{
	return (MKV_E_UNSUPPORTED);
}

int
mkv_os_shm_prefer(int fd MKV_UNUSED, uint64_t bytes MKV_UNUSED, int node MKV_UNUSED)
{
	return (MKV_E_UNSUPPORTED);
}

int
mkv_os_replace_pages(void *p, uint64_t bytes, void **old)
{
	*old = NULL;
	return (mmap(p, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == MAP_FAILED ? MKV_E_NOMEM : 0);
}

void
mkv_os_populate(void *p, uint64_t bytes)
{
	(void)p;
	(void)bytes;
}

int
mkv_os_collapse(void *p MKV_UNUSED, uint64_t bytes MKV_UNUSED)
{
	return (0);
}

int
mkv_os_shm_map(int fd, uint64_t bytes, int writable, int huge MKV_UNUSED, void **out)
{
	struct stat st;
	void *p;

	*out = NULL;
	if (fstat(fd, &st) != 0)
		return (os_err());
	if (bytes == 0 || st.st_size < 0 || (uint64_t)st.st_size < bytes)
		return (MKV_E_INVAL);
	p = mmap(NULL, bytes, PROT_READ | (writable ? PROT_WRITE : 0), MAP_SHARED, fd, 0);
	if (p == MAP_FAILED)
		return (os_err());
	*out = p;
	return (0);
}

/* ---- bells ---- */

static int
bell_prepare(int fd)
{
	if (os_cloexec(fd) != 0 || fcntl(fd, F_SETFL, O_NONBLOCK) != 0)
		return (os_err());
	return (0);
}

int
mkv_os_bell_create(int *wait_fd, int *ring_fd)
{
	int fds[2], r;

	if (pipe(fds) != 0)
		return (os_err());
	if ((r = bell_prepare(fds[0])) == 0 && (r = bell_prepare(fds[1])) == 0 && fcntl(fds[1], F_SETNOSIGPIPE, 1) != 0)
		r = os_err();
	if (r != 0) {
		(void)close(fds[0]);
		return (os_close_err(fds[1], r));
	}
	*wait_fd = fds[0];
	*ring_fd = fds[1];
	return (0);
}

/* EAGAIN: the pipe is full, so it rings already. */
void
mkv_os_bell_ring(int ring_fd)
{
	int saved = errno;

	while (write(ring_fd, "", 1) < 0 && errno == EINTR)
		continue;
	errno = saved;
}

void
mkv_os_bell_clear(int wait_fd)
{
	char buf[512];
	ssize_t n;
	int saved = errno;

	do
		n = read(wait_fd, buf, sizeof(buf));
	while (n == (ssize_t)sizeof(buf) || (n < 0 && errno == EINTR));
	errno = saved;
}

/* ---- control sockets: a byte stream, so each message goes with its length in front ---- */

struct ctl_head {
	uint32_t	bytes;
};

int
mkv_os_ctl_pair(int fds[2])
{
	if (socketpair(AF_UNIX, SOCK_STREAM, 0, fds) != 0)
		return (os_err());
	for (int i = 0; i < 2; i++)
		if (os_cloexec(fds[i]) != 0 || mkv_os_socket_mode(fds[i], 1) != 0) {
			(void)close(fds[0]);
			return (os_close_err(fds[1], MKV_E_SYSTEM));
		}
	return (0);
}

static int
ctl_send_error(void)
{
	if (errno == EAGAIN || errno == EWOULDBLOCK || errno == ENOBUFS)
		return (MKV_E_AGAIN);
	if (errno == EPIPE || errno == ECONNRESET || errno == ENOTCONN)
		return (MKV_E_CLOSED);
	return (MKV_E_SYSTEM);
}

/* The rest of a message whose beginning is out: it cannot be taken back. */
static int
ctl_send_rest(int fd, const char *p, size_t left)
{
	uint64_t until = mkv_now_ns() + CTL_SEND_MS * MKV_NS_PER_MS;
	struct pollfd pfd = { .fd = fd, .events = POLLOUT };
	ssize_t n;

	while (left > 0) {
		n = send(fd, p, left, MSG_DONTWAIT);
		if (n >= 0) {
			p += n;
			left -= (size_t)n;
		} else if (errno != EINTR && ctl_send_error() != MKV_E_AGAIN) {
			return (ctl_send_error());
		} else if (mkv_now_ns() >= until) {
			return (MKV_E_CLOSED);
		} else {
			(void)poll(&pfd, 1, 10);
		}
	}
	return (0);
}

int
mkv_os_ctl_send(int fd, const void *msg, size_t bytes, const int *fds, unsigned n_fds)
{
	struct ctl_head head = { .bytes = (uint32_t)bytes };
	struct iovec iov[2] = { { &head, sizeof(head) }, { (void *)(uintptr_t)msg, bytes } };
	struct msghdr m = { .msg_iov = iov, .msg_iovlen = 2 };
	union os_ctl_buf c;
	ssize_t n;

	MKV_ASSERT(bytes > 0 && bytes <= UINT32_MAX);
	os_ctl_attach(&m, &c, fds, n_fds);
	do
		n = sendmsg(fd, &m, MSG_DONTWAIT);
	while (n < 0 && errno == EINTR);
	if (n < 0)
		return (ctl_send_error());
	if ((size_t)n < sizeof(head)) {
		int r = ctl_send_rest(fd, (const char *)&head + n, sizeof(head) - (size_t)n);

		return (r != 0 ? r : ctl_send_rest(fd, msg, bytes));
	}
	return (ctl_send_rest(fd, (const char *)msg + ((size_t)n - sizeof(head)), bytes - ((size_t)n - sizeof(head))));
}

/* How long the next message is, or 0 end, or an error; MKV_E_AGAIN until all of it is there. */
static ssize_t
ctl_peek(int fd, size_t room)
{
	struct ctl_head head;
	int queued = 0;
	ssize_t n;

	do
		n = recv(fd, &head, sizeof(head), MSG_PEEK | MSG_DONTWAIT);
	while (n < 0 && errno == EINTR);
	if (n < 0)
		return (errno == EAGAIN || errno == EWOULDBLOCK ? MKV_E_AGAIN : errno == ECONNRESET ? 0 : MKV_E_SYSTEM);
	if (n == 0)
		return (0);
	if ((size_t)n < sizeof(head))
		return (MKV_E_AGAIN);
	if (head.bytes == 0 || head.bytes > room)
		return (MKV_E_PROTO);
	if (ioctl(fd, FIONREAD, &queued) != 0)
		return (MKV_E_SYSTEM);
	return ((size_t)queued < sizeof(head) + head.bytes ? MKV_E_AGAIN : (ssize_t)head.bytes);
}

ssize_t
mkv_os_ctl_recv(int fd, void *msg, size_t bytes, int *fds, unsigned *n_fds)
{
	struct ctl_head head;
	struct iovec iov[2] = { { &head, sizeof(head) }, { msg, 0 } };
	union os_ctl_buf c;
	struct msghdr m = { .msg_iov = iov, .msg_iovlen = 2, .msg_control = c.buf, .msg_controllen = sizeof(c.buf) };
	unsigned room = *n_fds;
	ssize_t want, n;

	*n_fds = 0;
	if ((want = ctl_peek(fd, bytes)) <= 0)
		return (want);
	iov[1].iov_len = (size_t)want;
	do
		n = recvmsg(fd, &m, MSG_DONTWAIT);
	while (n < 0 && errno == EINTR);
	if (n < 0)
		return (MKV_E_SYSTEM);
	*n_fds = room;
	if (os_ctl_detach(&m, !(m.msg_flags & MSG_CTRUNC) && n == (ssize_t)sizeof(head) + want, fds, n_fds) != 0)
		return (MKV_E_PROTO);
	for (unsigned i = 0; i < *n_fds; i++)
		(void)os_cloexec(fds[i]);	/* fails for no descriptor that is open */
	return (want);
}

int
mkv_os_peer(int fd, uid_t *uid, pid_t *pid)
{
	socklen_t bytes = sizeof(*pid);
	gid_t gid;

	if (getpeereid(fd, uid, &gid) != 0 || (pid != NULL && getsockopt(fd, SOL_LOCAL, LOCAL_PEERPID, pid, &bytes) != 0))
		return (MKV_E_SYSTEM);
	return (0);
}

/* ---- processes and rights ---- */

int
mkv_os_proc_watch(pid_t pid)
{
	struct kevent ev;
	int kq = kqueue();

	if (kq < 0)
		return (os_err());
	EV_SET(&ev, pid, EVFILT_PROC, EV_ADD, NOTE_EXIT, 0, NULL);
	if (os_cloexec(kq) != 0 || kevent(kq, &ev, 1, NULL, 0, NULL) != 0)
		return (os_close_err(kq, os_err()));
	return (kq);
}

int
mkv_os_no_new_privs(void)
{
	return (MKV_E_UNSUPPORTED);
}

int
mkv_os_landlock_deny_all(void)
{
	return (0);
}

/* ---- media ---- */

int
mkv_os_medium_query(int fd, struct mkv_os_medium *out)
{
	struct stat st;
	uint64_t blocks;
	uint32_t sector;

	memset(out, 0, sizeof(*out));
	if (fstat(fd, &st) != 0)
		return (os_err());
	if (S_ISREG(st.st_mode)) {
		out->bytes = (uint64_t)st.st_size;
		out->sector_bytes = 4096;
		return (0);
	}
	if (!S_ISBLK(st.st_mode) && !S_ISCHR(st.st_mode))
		return (MKV_E_INVAL);
	if (ioctl(fd, DKIOCGETBLOCKCOUNT, &blocks) != 0 || ioctl(fd, DKIOCGETBLOCKSIZE, &sector) != 0)
		return (os_err());
	out->bytes = blocks * sector;
	out->sector_bytes = sector;
	out->is_block = 1;
	return (0);
}

int
mkv_os_block_number(const char *path MKV_UNUSED, unsigned *major_no MKV_UNUSED, unsigned *minor_no MKV_UNUSED)
{
	return (MKV_E_UNSUPPORTED);
}

/* F_NOCACHE is the nearest thing to O_DIRECT. */
int
mkv_os_medium_open(const char *path, int *direct)
{
	struct stat st;
	int fd;

	*direct = 0;
	if (stat(path, &st) != 0)
		return (os_err());
	if (!S_ISREG(st.st_mode) && !S_ISBLK(st.st_mode))
		return (MKV_E_INVAL);
	fd = open(path, O_RDWR | O_CLOEXEC | O_NOCTTY);
	if (fd < 0)
		return (errno == EBUSY ? MKV_E_LOCKED : os_err());
	*direct = (fcntl(fd, F_NOCACHE, 1) == 0);
	return (fd);
}

int
mkv_os_preallocate(int fd, uint64_t bytes)
{
	fstore_t want = { .fst_flags = F_ALLOCATECONTIG | F_ALLOCATEALL, .fst_posmode = F_PEOFPOSMODE };
	struct stat st;
	int e;

	if (fstat(fd, &st) != 0)
		return (os_err());
	if ((uint64_t)st.st_size >= bytes)
		return (0);
	want.fst_length = (off_t)(bytes - (uint64_t)st.st_size);
	if (fcntl(fd, F_PREALLOCATE, &want) != 0) {
		want.fst_flags = F_ALLOCATEALL;		/* in several pieces, but all of it */
		if (fcntl(fd, F_PREALLOCATE, &want) != 0) {
			e = errno;
			return (e == ENOSPC || e == EDQUOT || e == EFBIG ? MKV_E_NOSPACE : e == ENOTSUP ? MKV_E_UNSUPPORTED :
			    mkv_err_from_errno(e));
		}
	}
	return (ftruncate(fd, (off_t)bytes) == 0 ? 0 : os_err());
}

int
mkv_os_punch(int fd MKV_UNUSED, uint64_t off MKV_UNUSED, uint64_t bytes MKV_UNUSED)
{
	return (MKV_E_UNSUPPORTED);
}

int
mkv_os_zero(int fd MKV_UNUSED, uint64_t off MKV_UNUSED, uint64_t bytes MKV_UNUSED)
{
	return (MKV_E_UNSUPPORTED);
}

int
mkv_os_discard(int fd MKV_UNUSED, uint64_t off MKV_UNUSED, uint64_t bytes MKV_UNUSED)
{
	return (MKV_E_UNSUPPORTED);
}

/* fsync alone leaves the bytes in the drive's cache. */
int
mkv_os_flush(int fd)
{
	if (fcntl(fd, F_FULLFSYNC) == 0)
		return (0);
	if (errno != ENOTSUP && errno != ENOTTY && errno != EINVAL)
		return (-errno);
	return (fsync(fd) == 0 ? 0 : -errno);
}

/* ---- machine, sockets, descriptors ---- */

int
mkv_os_memory(struct mkv_os_memory *out)
{
	long pages = sysconf(_SC_PHYS_PAGES), bytes = sysconf(_SC_PAGESIZE);

	*out = (struct mkv_os_memory){ .limit = UINT64_MAX };
	if (pages <= 0 || bytes <= 0)
		return (MKV_E_SYSTEM);
	out->total = (uint64_t)pages * (uint64_t)bytes;
	return (0);
}

/* There is no CUDA here to look for. */
uint64_t
mkv_os_libs_loaded(void)
{
	return (0);
}

int
mkv_os_clock_synchronised(void)
{
	return (-ENOTSUP);
}

int
mkv_os_dcb(const char *netdev MKV_UNUSED, struct mkv_os_dcb *out MKV_UNUSED)
{
	return (-EOPNOTSUPP);
}

int
mkv_os_uring_try(void)
{
	return (-ENOTSUP);
}

int
mkv_os_cpu_count(void)
{
	long n = sysconf(_SC_NPROCESSORS_ONLN);

	return (n > 0 ? (int)n : 1);
}

int
mkv_os_watch_dir(const char *path MKV_UNUSED)
{
	return (MKV_E_UNSUPPORTED);
}

int
mkv_os_watch_left(int fd MKV_UNUSED, const char *name MKV_UNUSED)
{
	return (0);
}

int
mkv_os_cpus_get(struct mkv_os_cpus *out)
{
	*out = (struct mkv_os_cpus){ 0 };
	return (MKV_E_UNSUPPORTED);
}

int
mkv_os_cpus_set(const struct mkv_os_cpus *cpus MKV_UNUSED)
{
	return (MKV_E_UNSUPPORTED);
}

int
mkv_os_close_from(int lowest)
{
	MKV_ASSERT(lowest >= 0);
	for (int fd = lowest; fd < getdtablesize(); fd++)
		(void)close(fd);
	return (0);
}

int
mkv_os_fds_inherited(void)
{
	int n = 0, flags;

	for (int fd = 3; fd < getdtablesize(); fd++) {
		flags = fcntl(fd, F_GETFD);
		n += (flags >= 0 && !(flags & FD_CLOEXEC));
	}
	return (n);
}

/* Milliseconds, rounded up: never early. */
int
mkv_os_poll(struct pollfd *fds, unsigned n, uint64_t wait_ns)
{
	uint64_t ms = wait_ns / MKV_NS_PER_MS + (wait_ns % MKV_NS_PER_MS != 0);
	int r = poll(fds, n, wait_ns == UINT64_MAX ? -1 : (int)MKV_MIN(ms, 1000000u));

	if (r >= 0)
		return (r);
	for (unsigned i = 0; i < n; i++)
		fds[i].revents = 0;
	return (errno == EINTR ? 0 : os_err());
}

int
mkv_os_accept(int fd, struct sockaddr_storage *addr, socklen_t *bytes)
{
	int r;

	*bytes = sizeof(*addr);
	r = accept(fd, (struct sockaddr *)addr, bytes);
	if (r < 0)
		return (-errno);
	if (os_cloexec(r) != 0 || mkv_os_socket_mode(r, 1) != 0) {
		(void)close(r);
		return (-ECONNABORTED);
	}
	return (r);
}

int
mkv_os_socket_mode(int fd, int nonblocking)
{
	int flags = fcntl(fd, F_GETFL), want, one = 1;

	if (flags < 0)
		return (os_err());
	want = nonblocking ? flags | O_NONBLOCK : flags & ~O_NONBLOCK;
	if (want != flags && fcntl(fd, F_SETFL, want) != 0)
		return (os_err());
	(void)setsockopt(fd, SOL_SOCKET, SO_NOSIGPIPE, &one, sizeof(one));
	return (0);
}
