/*
 * The platform: Linux (what POSIX has is in os_posix.c). memfd, eventfd, pidfd, Landlock and block-device ioctls are called here and nowhere else.
 *
 * Process and thread: any; no state, every call stands alone.
 * Owns: nothing; descriptors and mappings are the caller's, all close-on-exec.
 * Fails: as os.h says; what the kernel lacks is MKV_E_UNSUPPORTED (Landlock: 0).
 */
#include "config.h"
#include "common/base/os.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <link.h>
#include <linux/fs.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/inotify.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/timex.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#include "common/base/assert.h"
#include "common/base/clock.h"
#include "common/base/err.h"
#include "common/base/os_priv.h"

#define HUGE_BYTES	(2ull << 20)
#define COLLAPSE_PAGES	25		/* MADV_COLLAPSE */

/* Younger than some headers. */
#ifdef SO_PASSRIGHTS
#define SOCKET_PASSRIGHTS	SO_PASSRIGHTS
#else
#define SOCKET_PASSRIGHTS	83
#endif
#ifdef F_SEAL_FUTURE_WRITE
#define SEAL_FUTURE_WRITE	F_SEAL_FUTURE_WRITE
#else
#define SEAL_FUTURE_WRITE	0x0010
#endif

/* Younger than the headers of Debian 12. */
#ifndef STATX_DIOALIGN
#define STATX_DIOALIGN	0x2000u
#endif

const int mkv_os_msg_nosignal = MSG_NOSIGNAL, mkv_os_msg_cloexec = MSG_CMSG_CLOEXEC;

/* ---- shared memory ---- */

#define POLICY_PREFERRED	1		/* of linux/mempolicy.h */
#define POLICY_BIND		2
#define POLICY_NODES		1024u		/* that a mask has room for; the kernel reads one bit less than it is told */
#define HUGE_SHIFT		26		/* MFD_HUGE_SHIFT: there stands the logarithm of the page's size */

static int
shm_policy(void *p, uint64_t bytes, int mode, int node)
{
	unsigned long mask[POLICY_NODES / (8 * sizeof(unsigned long))] = { 0 };

	if (node < 0 || (unsigned)node >= POLICY_NODES)
		return (MKV_E_INVAL);
	mask[(unsigned)node / (8 * sizeof(mask[0]))] = 1ul << (unsigned)node % (8 * sizeof(mask[0]));
	if (syscall(SYS_mbind, p, (unsigned long)bytes, mode, mask, (unsigned long)POLICY_NODES + 1, 0u) == 0)
		return (0);
	return (errno == ENOSYS || errno == EPERM ? MKV_E_UNSUPPORTED : os_err());
}

/* Kernels before 5.14 do not know it: there the promise has to do. */
static int
shm_touch(void *p, uint64_t bytes)
{
	int r;

	do
		r = madvise(p, bytes, MADV_POPULATE_WRITE);
	while (r != 0 && errno == EINTR);
	return (r == 0 || errno == EINVAL ? 0 : MKV_E_DENIED);
}

/*
 * Mapping promises the pages, touching them gets them: by the kernel's hand, for which a limit of the cgroup is an error (EFAULT) and no signal. Where
 * memory policy is out of reach (containers, cpusets) pages come from any node.
 */
static int
shm_take_huge(int fd, uint64_t bytes, uint64_t page_bytes, int node)
{
	uint8_t *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	int r = 0;

	if (p == MAP_FAILED)
		return (MKV_E_NOMEM);
	if (node >= 0)
		(void)shm_policy(p, bytes, POLICY_BIND, node);
	for (uint64_t at = 0; at < bytes && r == 0; at += page_bytes)
		r = shm_touch(p + at, page_bytes);
	(void)munmap(p, bytes);
	return (r);
}

/* Its size is final, and so is whatever it holds. fd is closed if that fails. */
static int
shm_seal(int fd)
{
	if (fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) != 0)
		return (os_close_err(fd, os_err()));
	return (fd);
}

int
mkv_os_shm_create_huge(const char *name, uint64_t bytes, uint64_t page_bytes, int node)
{
	int fd, r;

	MKV_ASSERT(bytes > 0);
	if (page_bytes < HUGE_BYTES || (page_bytes & (page_bytes - 1)) != 0 || bytes % page_bytes != 0)
		return (MKV_E_INVAL);
	fd = memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING | MFD_HUGETLB | (unsigned)__builtin_ctzll(page_bytes) << HUGE_SHIFT);
	if (fd < 0)
		return (errno == EMFILE || errno == ENFILE ? os_err() : errno == ENOMEM ? MKV_E_NOMEM : MKV_E_UNSUPPORTED);
	if (ftruncate(fd, (off_t)bytes) != 0)
		return (os_close_err(fd, os_err()));
	if ((r = shm_take_huge(fd, bytes, page_bytes, node)) != 0)
		return (os_close_err(fd, r));
	return (shm_seal(fd));
}

int
mkv_os_shm_create(const char *name, uint64_t bytes, int huge)
{
	int fd;

	MKV_ASSERT(bytes > 0);
	if (huge == 2)
		return (mkv_os_shm_create_huge(name, bytes, HUGE_BYTES, -1));
	fd = memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING);
	if (fd < 0)
		return (os_err());
	if (ftruncate(fd, (off_t)bytes) != 0)
		return (os_close_err(fd, os_err()));
	return (shm_seal(fd));
}

void
mkv_os_pass_rights(int fd, int on)
{
	(void)setsockopt(fd, SOL_SOCKET, SOCKET_PASSRIGHTS, &on, sizeof(on));
}

int
mkv_os_shm_check(int fd, struct mkv_os_shm *out)
{
	const int must = F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL, must_not = F_SEAL_WRITE | SEAL_FUTURE_WRITE;
	int seals = fcntl(fd, F_GET_SEALS), mode = fcntl(fd, F_GETFL);
	struct stat st;

	/* What is no memfd has no seals, or (a file in tmpfs) SEAL alone. */
	if (seals < 0 || (seals & must) != must || (seals & must_not) != 0 || mode < 0 || (mode & O_ACCMODE) != O_RDWR)
		return (MKV_E_INVAL);
	if (fstat(fd, &st) != 0 || st.st_size <= 0 || (uint64_t)st.st_blocks * 512 < (uint64_t)st.st_size)
		return (MKV_E_INVAL);
	*out = (struct mkv_os_shm){ .bytes = (uint64_t)st.st_size, .dev = st.st_dev, .ino = st.st_ino };
	return (0);
}

int
mkv_os_shm_fill(int fd, uint64_t bytes)
{
	int r;

	do
		r = fallocate(fd, 0, 0, (off_t)bytes);
	while (r != 0 && errno == EINTR);
	return (r == 0 ? 0 : os_err());
}

/* The policy stays with the memory, whoever maps it. */
int
mkv_os_shm_prefer(int fd, uint64_t bytes, int node)
{
	void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	int r;

	if (p == MAP_FAILED)
		return (os_err());
	r = shm_policy(p, bytes, POLICY_PREFERRED, node);
	(void)munmap(p, bytes);
	return (r);
}

/* Address space for a mapping that begins at a multiple of a huge page: else the kernel has no place for them. */
static void *
shm_reserve_aligned(uint64_t bytes, uint64_t align)
{
	uint64_t total = bytes + align;
	char *p = mmap(NULL, total, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	char *at;

	if (p == MAP_FAILED)
		return (NULL);
	at = (char *)(uintptr_t)MKV_ALIGN_UP((uintptr_t)p, align);
	if (at > p)
		(void)munmap(p, (size_t)(at - p));
	if (at + bytes < p + total)
		(void)munmap(at + bytes, (size_t)(p + total - (at + bytes)));
	return (at);
}

int
mkv_os_shm_map(int fd, uint64_t bytes, int writable, int huge, void **out)
{
	int prot = PROT_READ | (writable ? PROT_WRITE : 0), flags = MAP_SHARED;
	struct stat st;
	void *at = NULL, *p;

	*out = NULL;
	if (fstat(fd, &st) != 0)
		return (os_err());
	if (bytes == 0 || st.st_size < 0 || (uint64_t)st.st_size < bytes)
		return (MKV_E_INVAL);
	/* Of reserved pages st_blksize is the size. */
	if (huge == 1 && bytes % HUGE_BYTES == 0 && (at = shm_reserve_aligned(bytes, MKV_MAX(HUGE_BYTES, (uint64_t)st.st_blksize))) != NULL)
		flags |= MAP_FIXED;
	p = mmap(at, bytes, prot, flags, fd, 0);
	if (p == MAP_FAILED) {
		int r = os_err();

		if (at != NULL)
			(void)munmap(at, bytes);
		return (r);
	}
	if (huge == 1)
		(void)madvise(p, bytes, MADV_HUGEPAGE);	/* advice: slower without */
	*out = p;
	return (0);
}

/*
 * The new ones are there before the old ones go, so nobody's mapping gets in between and a failure changes nothing. The old ones are moved away first, since moving them costs far less than taking
 * them out of the page table one by one, and whoever waits for this has a deadline; where they cannot be (before Linux 5.13, of more than one mapping) they are taken out.
 */
int
mkv_os_replace_pages(void *p, uint64_t bytes, void **old)
{
	/* Shared, as what it replaces: children of a fork go on to see the same. */
	void *fresh = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	*old = NULL;
	if (fresh == MAP_FAILED)
		return (MKV_E_NOMEM);
	if ((*old = mremap(p, bytes, bytes, MREMAP_MAYMOVE | MREMAP_DONTUNMAP, NULL)) == MAP_FAILED)
		*old = NULL;
	if (mremap(fresh, bytes, bytes, MREMAP_MAYMOVE | MREMAP_FIXED, p) != MAP_FAILED)
		return (0);
	if (*old != NULL)
		(void)munmap(*old, bytes);
	*old = NULL;
	(void)munmap(fresh, bytes);
	return (MKV_E_NOMEM);
}

/* In steps, so that others get at the address space between them. Kernels before 5.14 do not know it. */
void
mkv_os_populate(void *p, uint64_t bytes)
{
	uint8_t *at = p;
	uint64_t n;

	for (; bytes > 0; at += n, bytes -= n) {
		n = MKV_MIN(bytes, (uint64_t)HUGE_BYTES);
		if (madvise(at, n, MADV_POPULATE_WRITE) != 0)
			return;
	}
}

/*
 * Also where the system makes no huge pages of shared memory by itself (shmem_enabled). It has to find a page in each; the others are made where they are to lie: sooner than
 * small ones. Much of its time is for a call, however large. Kernels before 6.1 do not know it.
 */
int
mkv_os_collapse(void *p, uint64_t bytes)
{
	for (uint64_t at = 0; at < bytes; at += HUGE_BYTES)
		if (madvise((uint8_t *)p + at, 4096, MADV_POPULATE_WRITE) != 0)
			return (0);
	return (madvise(p, bytes, COLLAPSE_PAGES) == 0);
}

/* ---- bells ---- */

int
mkv_os_bell_create(int *wait_fd, int *ring_fd)
{
	int fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK), fd2;

	if (fd < 0)
		return (os_err());
	fd2 = fcntl(fd, F_DUPFD_CLOEXEC, 3);
	if (fd2 < 0)
		return (os_close_err(fd, os_err()));
	*wait_fd = fd;
	*ring_fd = fd2;
	return (0);
}

/* EAGAIN: the counter is full, so it rings already. errno is kept: libmemkv's callers look at it. */
void
mkv_os_bell_ring(int ring_fd)
{
	uint64_t one = 1;
	int saved = errno;

	while (write(ring_fd, &one, sizeof(one)) < 0 && errno == EINTR)
		continue;
	errno = saved;
}

void
mkv_os_bell_clear(int wait_fd)
{
	uint64_t count;
	int saved = errno;

	while (read(wait_fd, &count, sizeof(count)) < 0 && errno == EINTR)
		continue;
	errno = saved;
}

/* ---- control sockets ---- */

int
mkv_os_ctl_pair(int fds[2])
{
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, fds) != 0)
		return (os_err());
	return (0);
}

int
mkv_os_ctl_send(int fd, const void *msg, size_t bytes, const int *fds, unsigned n_fds)
{
	struct iovec iov = { .iov_base = (void *)(uintptr_t)msg, .iov_len = bytes };
	struct msghdr m = { .msg_iov = &iov, .msg_iovlen = 1 };
	union os_ctl_buf c;
	ssize_t n;

	MKV_ASSERT(bytes > 0);			/* an empty message would look like the end */
	os_ctl_attach(&m, &c, fds, n_fds);
	do
		n = sendmsg(fd, &m, MSG_NOSIGNAL | MSG_DONTWAIT);
	while (n < 0 && errno == EINTR);
	if (n >= 0)
		return (0);
	if (errno == EAGAIN || errno == EWOULDBLOCK || errno == ENOBUFS)
		return (MKV_E_AGAIN);
	if (errno == EPIPE || errno == ECONNRESET || errno == ENOTCONN)
		return (MKV_E_CLOSED);
	return (errno == EMSGSIZE ? MKV_E_TOOBIG : MKV_E_SYSTEM);
}

ssize_t
mkv_os_ctl_recv(int fd, void *msg, size_t bytes, int *fds, unsigned *n_fds)
{
	struct iovec iov = { .iov_base = msg, .iov_len = bytes };
	union os_ctl_buf c;
	struct msghdr m = { .msg_iov = &iov, .msg_iovlen = 1, .msg_control = c.buf, .msg_controllen = sizeof(c.buf) };
	unsigned room = *n_fds, resets = 0;
	ssize_t n;

	*n_fds = 0;
	/* A peer that ended without having read all shows as one reset, ahead of its own last messages. */
	do
		n = recvmsg(fd, &m, MSG_CMSG_CLOEXEC | MSG_DONTWAIT);
	while (n < 0 && (errno == EINTR || (errno == ECONNRESET && resets++ == 0)));
	if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
		return (MKV_E_AGAIN);
	if (n < 0)
		return (errno == ECONNRESET ? 0 : MKV_E_SYSTEM);
	*n_fds = room;
	return (os_ctl_detach(&m, !(m.msg_flags & (MSG_TRUNC | MSG_CTRUNC)), fds, n_fds) != 0 ? MKV_E_PROTO : n);
}

int
mkv_os_peer(int fd, uid_t *uid, pid_t *pid)
{
	struct ucred cred;
	socklen_t bytes = sizeof(cred);

	if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &cred, &bytes) != 0 || bytes != sizeof(cred))
		return (MKV_E_SYSTEM);
	*uid = cred.uid;
	if (pid != NULL)
		*pid = cred.pid;
	return (0);
}

/* ---- processes and rights ---- */

int
mkv_os_proc_watch(pid_t pid)
{
	long fd = syscall(SYS_pidfd_open, pid, 0);	/* close-on-exec by itself */

	return (fd < 0 ? os_err() : (int)fd);
}

int
mkv_os_no_new_privs(void)
{
	return (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 ? 0 : os_err());
}

/* The kernel's interface by number: the header of Debian 12 ends at ABI 2. */
struct landlock_attr {
	uint64_t	access_fs, access_net, scoped;
};

static const struct {
	unsigned	fs_bits, net_bits, scope_bits;
	size_t		bytes;
} landlock_abi[] = {
	{ 0, 0, 0, 0 },
	{ 13, 0, 0, 8 },		/* 1: 5.13 files */
	{ 14, 0, 0, 8 },		/* 2: 5.19 rename between directories */
	{ 15, 0, 0, 8 },		/* 3: 6.2 truncate */
	{ 15, 2, 0, 16 },		/* 4: 6.7 TCP bind and connect */
	{ 16, 2, 0, 16 },		/* 5: 6.10 ioctl on devices opened later */
	{ 16, 2, 2, 24 },		/* 6: 6.12 signals and abstract sockets beyond this process */
};

int
mkv_os_landlock_deny_all(void)
{
	struct landlock_attr a;
	long abi = syscall(444, NULL, 0, 1u /* version */), fd;
	unsigned i;
	int r = 0;

	if (abi < 1)
		return (errno == ENOSYS || errno == EOPNOTSUPP ? 0 : os_err());
	i = MKV_MIN((unsigned)abi, (unsigned)MKV_ARRAY_LEN(landlock_abi) - 1);
	a.access_fs = (1ull << landlock_abi[i].fs_bits) - 1;
	a.access_net = (1ull << landlock_abi[i].net_bits) - 1;
	a.scoped = (1ull << landlock_abi[i].scope_bits) - 1;
	if ((fd = syscall(444, &a, landlock_abi[i].bytes, 0)) < 0)
		return (os_err());
	if (syscall(446, (int)fd, 0) != 0)
		r = os_err();
	(void)close((int)fd);
	return (r != 0 ? r : (int)i);
}

/* ---- media ---- */

static uint32_t
medium_file_sector(int fd)
{
	struct statx stx;

	/* The alignment words of STATX_DIOALIGN lie in what older headers call spare. */
	if (statx(fd, "", AT_EMPTY_PATH, STATX_DIOALIGN, &stx) == 0 && (stx.stx_mask & STATX_DIOALIGN)) {
		uint32_t align[2];

		memcpy(align, (const char *)&stx + 0x98, sizeof(align));
		if (align[1] >= 512)
			return (align[1]);
	}
	return (4096);
}

int
mkv_os_medium_query(int fd, struct mkv_os_medium *out)
{
	struct stat st;
	int sector = 512;

	memset(out, 0, sizeof(*out));
	if (fstat(fd, &st) != 0)
		return (os_err());
	if (S_ISREG(st.st_mode)) {
		out->bytes = (uint64_t)st.st_size;
		out->sector_bytes = medium_file_sector(fd);
		return (0);
	}
	if (!S_ISBLK(st.st_mode))
		return (MKV_E_INVAL);
	if (ioctl(fd, BLKGETSIZE64, &out->bytes) != 0 || ioctl(fd, BLKSSZGET, &sector) != 0)
		return (os_err());
	out->sector_bytes = (uint32_t)sector;
	out->is_block = 1;
	return (0);
}

int
mkv_os_block_number(const char *path, unsigned *major_no, unsigned *minor_no)
{
	struct stat st;
	dev_t dev;

	if (stat(path, &st) != 0)
		return (os_err());
	dev = S_ISBLK(st.st_mode) ? st.st_rdev : st.st_dev;
	*major_no = major(dev);
	*minor_no = minor(dev);
	return (0);
}

/* O_EXCL on a block device without O_CREAT means: nobody else has it mounted or opened so. */
int
mkv_os_medium_open(const char *path, int *direct)
{
	int flags = O_RDWR | O_CLOEXEC | O_NOCTTY, fd;
	struct stat st;

	*direct = 0;
	if (stat(path, &st) != 0)
		return (os_err());
	if (!S_ISREG(st.st_mode) && !S_ISBLK(st.st_mode))
		return (MKV_E_INVAL);
	flags |= S_ISBLK(st.st_mode) ? O_EXCL : 0;
	fd = open(path, flags | O_DIRECT);
	*direct = (fd >= 0);
	if (fd < 0 && errno == EINVAL)
		fd = open(path, flags);
	if (fd < 0)
		return (errno == EBUSY ? MKV_E_LOCKED : os_err());
	return (fd);
}

int
mkv_os_preallocate(int fd, uint64_t bytes)
{
	struct stat st;
	int r, e;

	if (fstat(fd, &st) != 0)
		return (os_err());
	do
		r = fallocate(fd, 0, 0, (off_t)bytes);
	while (r != 0 && errno == EINTR);
	if (r == 0)
		return (0);
	e = errno;
	if (ftruncate(fd, st.st_size) != 0)	/* give back what it got so far */
		return (os_err());
	if (e == EOPNOTSUPP || e == ENOSYS)
		return (MKV_E_UNSUPPORTED);
	return (e == ENOSPC || e == EDQUOT || e == EFBIG ? MKV_E_NOSPACE : mkv_err_from_errno(e));
}

int
mkv_os_discard(int fd, uint64_t off, uint64_t bytes)
{
	uint64_t range[2] = { off, bytes };

	if (ioctl(fd, BLKDISCARD, range) == 0)
		return (0);
	return (errno == EOPNOTSUPP || errno == ENOTTY ? MKV_E_UNSUPPORTED : os_err());
}

int
mkv_os_punch(int fd, uint64_t off, uint64_t bytes)
{
	if (fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)off, (off_t)bytes) == 0)
		return (0);
	return (errno == EOPNOTSUPP || errno == ENOSYS ? MKV_E_UNSUPPORTED : os_err());
}

int
mkv_os_zero(int fd, uint64_t off, uint64_t bytes)
{
	int r;

	if (fallocate(fd, FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE, (off_t)off, (off_t)bytes) == 0)
		return (0);
	if (errno != EOPNOTSUPP && errno != ENOSYS)
		return (os_err());
	/* tmpfs: a hole, and blocks for it anew. */
	if ((r = mkv_os_punch(fd, off, bytes)) != 0)
		return (r);
	if (fallocate(fd, FALLOC_FL_KEEP_SIZE, (off_t)off, (off_t)bytes) == 0)
		return (0);
	return (errno == ENOSPC || errno == EDQUOT ? MKV_E_NOSPACE : os_err());
}

int
mkv_os_flush(int fd)
{
	return (fdatasync(fd) == 0 ? 0 : -errno);
}

/* ---- memory ---- */

/* The number behind `name` in a file of lines; 0: not there. */
static uint64_t
memory_field(FILE *f, const char *name)
{
	unsigned long long v = 0;
	char line[256];

	rewind(f);
	while (fgets(line, sizeof(line), f) != NULL)
		if (strncmp(line, name, strlen(name)) == 0)
			return (sscanf(line + strlen(name), "%llu", &v) == 1 ? v : 0);
	return (0);
}

/* The least limit of a group and of those above it. "max", a limit beyond all memory, or no file: none. path is cut from its end. */
static uint64_t
memory_group(const char *root, char *path, const char *file)
{
	uint64_t least = UINT64_MAX;
	char name[PATH_MAX], *slash;
	unsigned long long v;
	FILE *f;

	for (;;) {
		if (snprintf(name, sizeof(name), "%s%s/%s", root, path, file) < (int)sizeof(name) && (f = fopen(name, "re")) != NULL) {
			if (fscanf(f, "%llu", &v) == 1)
				least = MKV_MIN(least, (uint64_t)v);
			fclose(f);
		}
		if ((slash = strrchr(path, '/')) == NULL)
			return (least);
		*slash = '\0';
	}
}

/* Lines are "0::PATH" (version 2) and "N:CONTROLLER,...:PATH" (version 1). In a container the path may be that of the host: then its root counts. */
static uint64_t
memory_limit(void)
{
	FILE *f = fopen("/proc/self/cgroup", "re");
	uint64_t least = UINT64_MAX, v;
	char line[PATH_MAX], *kind, *path;

	if (f == NULL)
		return (least);
	while (fgets(line, sizeof(line), f) != NULL) {
		line[strcspn(line, "\n")] = '\0';
		if ((kind = strchr(line, ':')) == NULL || (path = strchr(++kind, ':')) == NULL)
			continue;
		*path++ = '\0';
		if (*kind == '\0')
			v = memory_group("/sys/fs/cgroup", path, "memory.max");
		else if (strcmp(kind, "memory") == 0)
			v = memory_group("/sys/fs/cgroup/memory", path, "memory.limit_in_bytes");
		else
			continue;
		least = MKV_MIN(least, v);
	}
	fclose(f);
	return (least);
}

int
mkv_os_memory(struct mkv_os_memory *out)
{
	FILE *f = fopen("/proc/meminfo", "re");

	*out = (struct mkv_os_memory){ .limit = UINT64_MAX };
	if (f == NULL)
		return (MKV_E_SYSTEM);
	out->total = memory_field(f, "MemTotal:") << 10;
	out->huge_total = memory_field(f, "Hugetlb:") << 10;
	out->huge_page_bytes = memory_field(f, "Hugepagesize:") << 10;
	fclose(f);
	out->limit = memory_limit();
	return (out->total > 0 ? 0 : MKV_E_SYSTEM);
}

/* ---- machine, sockets, descriptors ---- */

/* The first object has the number, too. */
static int
libs_of_first(struct dl_phdr_info *info, size_t bytes, void *out)
{
	if (bytes >= offsetof(struct dl_phdr_info, dlpi_subs))
		*(uint64_t *)out = info->dlpi_adds;
	return (1);
}

uint64_t
mkv_os_libs_loaded(void)
{
	uint64_t n = 0;

	(void)dl_iterate_phdr(libs_of_first, &n);
	return (n);
}

int
mkv_os_clock_synchronised(void)
{
	struct timex t = { .modes = 0 };
	int state = adjtimex(&t);

	if (state < 0)
		return (-errno);
	return (state != TIME_ERROR && (t.status & STA_UNSYNC) == 0);
}

int
mkv_os_cpu_count(void)
{
	cpu_set_t set;
	long n;

	if (sched_getaffinity(0, sizeof(set), &set) == 0 && CPU_COUNT(&set) > 0)
		return (CPU_COUNT(&set));
	n = sysconf(_SC_NPROCESSORS_ONLN);	/* more CPUs than the set has room for */
	return (n > 0 ? (int)n : 1);
}

int
mkv_os_watch_dir(const char *path)
{
	int fd = inotify_init1(IN_NONBLOCK | IN_CLOEXEC), e;

	if (fd < 0)
		return (mkv_err_from_errno(errno));
	if (inotify_add_watch(fd, path, IN_DELETE | IN_MOVED_FROM | IN_ONLYDIR) >= 0)
		return (fd);
	e = mkv_err_from_errno(errno);
	close(fd);
	return (e);
}

int
mkv_os_watch_left(int fd, const char *name)
{
	_Alignas(struct inotify_event) char buf[4096];
	int left = 0;
	ssize_t n;

	while ((n = read(fd, buf, sizeof(buf))) > 0)
		for (const char *p = buf; p < buf + n;) {
			const struct inotify_event *ev = (const struct inotify_event *)(const void *)p;

			left |= ev->len > 0 && strcmp(ev->name, name) == 0;
			p += sizeof(*ev) + ev->len;
		}
	return (left);
}

_Static_assert(CPU_SETSIZE >= MKV_OS_CPUS_MAX, "a set has room for ours");

int
mkv_os_cpus_get(struct mkv_os_cpus *out)
{
	cpu_set_t set;

	*out = (struct mkv_os_cpus){ 0 };
	if (sched_getaffinity(0, sizeof(set), &set) != 0)
		return (os_err());
	for (unsigned i = 0; i < MKV_OS_CPUS_MAX; i++)
		if (CPU_ISSET(i, &set))
			out->bit[i / 64] |= 1ull << i % 64;
	return (0);
}

int
mkv_os_cpus_set(const struct mkv_os_cpus *cpus)
{
	cpu_set_t set;

	CPU_ZERO(&set);
	for (unsigned i = 0; i < MKV_OS_CPUS_MAX; i++)
		if (cpus->bit[i / 64] >> i % 64 & 1)
			CPU_SET(i, &set);
	return (sched_setaffinity(0, sizeof(set), &set) == 0 ? 0 : os_err());
}

int
mkv_os_close_from(int lowest)
{
	MKV_ASSERT(lowest >= 0);
	return (syscall(SYS_close_range, (unsigned)lowest, ~0u, 0) == 0 ? 0 : os_err());
}

int
mkv_os_fds_inherited(void)
{
	DIR *d = opendir("/proc/self/fd");
	struct dirent *e;
	int n = 0, fd, flags;

	if (d == NULL)
		return (os_err());
	while ((e = readdir(d)) != NULL) {
		fd = atoi(e->d_name);
		if (e->d_name[0] == '.' || fd <= 2 || fd == dirfd(d))
			continue;
		flags = fcntl(fd, F_GETFD);
		n += (flags >= 0 && !(flags & FD_CLOEXEC));
	}
	(void)closedir(d);
	return (n);
}

int
mkv_os_poll(struct pollfd *fds, unsigned n, uint64_t wait_ns)
{
	struct timespec ts = {
		.tv_sec = (time_t)(wait_ns / MKV_NS_PER_SEC),
		.tv_nsec = (long)(wait_ns % MKV_NS_PER_SEC)
	};
	int r = ppoll(fds, n, wait_ns == UINT64_MAX ? NULL : &ts, NULL);

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
	r = accept4(fd, (struct sockaddr *)addr, bytes, SOCK_CLOEXEC | SOCK_NONBLOCK);
	return (r < 0 ? -errno : r);
}

int
mkv_os_socket_mode(int fd, int nonblocking)
{
	int flags = fcntl(fd, F_GETFL), want;

	if (flags < 0)
		return (os_err());
	want = nonblocking ? flags | O_NONBLOCK : flags & ~O_NONBLOCK;
	if (want != flags && fcntl(fd, F_SETFL, want) != 0)
		return (os_err());
	return (0);
}
