/*
 * libc's calls on descriptors, interposed.
 *
 * Any thread of the program. A descriptor that is not ours costs one load while no object is open, else one fstat. A read fetches what it asks for, a
 * write marks the object, fsync and the last close commit it; the bytes move by the kernel's own call on the memfd, but for long reads. Fails: as the
 * call does, and with the store's errno where bytes are fetched or committed.
 */
#include "config.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "clients/preload/preload_priv.h"

/* ---- Reading: fetched before ------------------------------------------------------------------------------------------------------- */

static int
fill(int fd)
{
	struct mkv_pl_object *o = mkv_pl_object_of(fd);
	int r;

	if (o == NULL)
		return (0);
	r = mkv_pl_object_fill(o);
	mkv_pl_object_drop(o);
	return (r);
}

/* off -1: at the descriptor's own offset. */
static ssize_t
read_object(struct mkv_pl_object *o, int fd, const struct iovec *iov, int n, off_t off)
{
	ssize_t r = mkv_pl_object_read(o, fd, iov, n, off);

	mkv_pl_object_drop(o);
	return (r);
}

PL_EXPORT ssize_t
read(int fd, void *buf, size_t n)
{
	struct mkv_pl_object *o = mkv_pl_object_of(fd);

	return (o == NULL ? REAL(read)(fd, buf, n) : read_object(o, fd, &(struct iovec){ buf, n }, 1, -1));
}

PL_EXPORT ssize_t	__read_chk(int fd, void *buf, size_t n, size_t room);
PL_EXPORT ssize_t
__read_chk(int fd, void *buf, size_t n, size_t room)
{
	if (n > room)
		abort();
	return (read(fd, buf, n));
}

PL_EXPORT ssize_t
pread(int fd, void *buf, size_t n, off_t off)
{
	struct mkv_pl_object *o = off < 0 ? NULL : mkv_pl_object_of(fd);

	return (o == NULL ? REAL(pread)(fd, buf, n, off) : read_object(o, fd, &(struct iovec){ buf, n }, 1, off));
}
ssize_t	pread64(int fd, void *buf, size_t n, off_t off) PL_ALIAS(pread);

PL_EXPORT ssize_t	__pread_chk(int fd, void *buf, size_t n, off_t off, size_t room);
PL_EXPORT ssize_t
__pread_chk(int fd, void *buf, size_t n, off_t off, size_t room)
{
	if (n > room)
		abort();
	return (pread(fd, buf, n, off));
}
ssize_t	__pread64_chk(int fd, void *buf, size_t n, off_t off, size_t room) PL_ALIAS(__pread_chk);

PL_EXPORT ssize_t
readv(int fd, const struct iovec *iov, int n)
{
	struct mkv_pl_object *o = mkv_pl_object_of(fd);

	return (o == NULL ? REAL(readv)(fd, iov, n) : read_object(o, fd, iov, n, -1));
}

PL_EXPORT ssize_t
preadv(int fd, const struct iovec *iov, int n, off_t off)
{
	struct mkv_pl_object *o = off < 0 ? NULL : mkv_pl_object_of(fd);

	return (o == NULL ? REAL(preadv)(fd, iov, n, off) : read_object(o, fd, iov, n, off));
}
ssize_t	preadv64(int fd, const struct iovec *iov, int n, off_t off) PL_ALIAS(preadv);

PL_EXPORT ssize_t
preadv2(int fd, const struct iovec *iov, int n, off_t off, int flags)
{
	struct mkv_pl_object *o = off < -1 || flags != 0 ? NULL : mkv_pl_object_of(fd);

	if (o != NULL)
		return (read_object(o, fd, iov, n, off));
	return (flags != 0 && fill(fd) != 0 ? -1 : REAL(preadv2)(fd, iov, n, off, flags));
}
ssize_t	preadv64v2(int fd, const struct iovec *iov, int n, off_t off, int flags) PL_ALIAS(preadv2);

/* Where the bytes lie only who has them knows. */
PL_EXPORT off_t
lseek(int fd, off_t off, int whence)
{
	return ((whence == SEEK_DATA || whence == SEEK_HOLE) && fill(fd) != 0 ? -1 : REAL(lseek)(fd, off, whence));
}
off_t	lseek64(int fd, off_t off, int whence) PL_ALIAS(lseek);

/* ---- Writing: marked, and never into bytes that are on the way -------------------------------------------------------------------------------------------------------- */

static ssize_t
marked(int fd, ssize_t r)
{
	struct mkv_pl_object *o;
	int e = errno;
	bool already;

	if (r > 0 && (o = mkv_pl_object_of(fd)) != NULL) {
		mkv_pl_object_hold(o, &already);
		mkv_pl_object_release(o, already, true);
		mkv_pl_object_drop(o);
	}
	errno = e;
	return (r);
}

/* The same for a call that returns 0 when it has changed something. */
static int
changed(int fd, int r)
{
	return (r == 0 ? (int)marked(fd, 1) - 1 : r);
}

/* A write, which does not wait for anybody, and the object that it goes to. */
struct writing {
	struct mkv_pl_object *o;
	bool	already;
};

static struct writing
writing_begin(int fd)
{
	struct writing w = { .o = mkv_pl_object_written(fd) };

	if (w.o != NULL)
		mkv_pl_object_hold(w.o, &w.already);
	return (w);
}

static ssize_t
writing_end(const struct writing *w, ssize_t r)
{
	if (w->o != NULL) {
		mkv_pl_object_release(w->o, w->already, r > 0);
		mkv_pl_object_drop(w->o);
	}
	return (r);
}

PL_EXPORT ssize_t
write(int fd, const void *buf, size_t n)
{
	struct writing w = writing_begin(fd);

	return (writing_end(&w, REAL(write)(fd, buf, n)));
}

PL_EXPORT ssize_t
pwrite(int fd, const void *buf, size_t n, off_t off)
{
	struct writing w = writing_begin(fd);

	return (writing_end(&w, REAL(pwrite)(fd, buf, n, off)));
}
ssize_t	pwrite64(int fd, const void *buf, size_t n, off_t off) PL_ALIAS(pwrite);

PL_EXPORT ssize_t
writev(int fd, const struct iovec *iov, int n)
{
	struct writing w = writing_begin(fd);

	return (writing_end(&w, REAL(writev)(fd, iov, n)));
}

PL_EXPORT ssize_t
pwritev(int fd, const struct iovec *iov, int n, off_t off)
{
	struct writing w = writing_begin(fd);

	return (writing_end(&w, REAL(pwritev)(fd, iov, n, off)));
}
ssize_t	pwritev64(int fd, const struct iovec *iov, int n, off_t off) PL_ALIAS(pwritev);

PL_EXPORT ssize_t
pwritev2(int fd, const struct iovec *iov, int n, off_t off, int flags)
{
	struct writing w = writing_begin(fd);

	return (writing_end(&w, REAL(pwritev2)(fd, iov, n, off, flags)));
}
ssize_t	pwritev64v2(int fd, const struct iovec *iov, int n, off_t off, int flags) PL_ALIAS(pwritev2);

PL_EXPORT int
ftruncate(int fd, off_t size)
{
	struct mkv_pl_object *o = mkv_pl_object_of(fd);
	int r;

	if (o == NULL)
		return (REAL(ftruncate)(fd, size));
	r = mkv_pl_object_truncate(o, fd, size);
	mkv_pl_object_drop(o);
	return (r);
}
int	ftruncate64(int fd, off_t size) PL_ALIAS(ftruncate);

/* NumPy announces sizes so: it has changed nothing that a reader sees, but in doubt it has. */
PL_EXPORT int
fallocate(int fd, int mode, off_t off, off_t bytes)
{
	int r = REAL(fallocate)(fd, mode, off, bytes);

	return (mode == FALLOC_FL_KEEP_SIZE ? r : changed(fd, r));
}
int	fallocate64(int fd, int mode, off_t off, off_t bytes) PL_ALIAS(fallocate);

PL_EXPORT int
posix_fallocate(int fd, off_t off, off_t bytes)
{
	return (changed(fd, REAL(posix_fallocate)(fd, off, bytes)));
}
int	posix_fallocate64(int fd, off_t off, off_t bytes) PL_ALIAS(posix_fallocate);

/* ---- From one to the other ---------------------------------------------------------------------------------------------------------- */

PL_EXPORT ssize_t
sendfile(int to, int from, off_t *off, size_t n)
{
	return (fill(from) != 0 ? -1 : marked(to, REAL(sendfile)(to, from, off, n)));
}
ssize_t	sendfile64(int to, int from, off_t *off, size_t n) PL_ALIAS(sendfile);

PL_EXPORT ssize_t
copy_file_range(int from, off_t *from_off, int to, off_t *to_off, size_t n, unsigned flags)
{
	return (fill(from) != 0 ? -1 : marked(to, REAL(copy_file_range)(from, from_off, to, to_off, n, flags)));
}

PL_EXPORT ssize_t
splice(int from, off_t *from_off, int to, off_t *to_off, size_t n, unsigned flags)
{
	return (fill(from) != 0 ? -1 : marked(to, REAL(splice)(from, from_off, to, to_off, n, flags)));
}

PL_EXPORT void *
mmap(void *at, size_t bytes, int prot, int flags, int fd, off_t off)
{
	struct mkv_pl_object *o = (flags & MAP_ANONYMOUS) != 0 ? NULL : mkv_pl_object_of(fd);
	void *r;

	if (o == NULL)
		return (REAL(mmap)(at, bytes, prot, flags, fd, off));
	r = mkv_pl_object_fill(o) != 0 ? MAP_FAILED : REAL(mmap)(at, bytes, prot, flags, fd, off);
	if (r != MAP_FAILED)
		mkv_pl_object_mapped(o, (flags & MAP_SHARED) != 0 && (fcntl(fd, F_GETFL) & O_ACCMODE) == O_RDWR);
	mkv_pl_object_drop(o);
	return (r);
}
void *	mmap64(void *at, size_t bytes, int prot, int flags, int fd, off_t off) PL_ALIAS(mmap);

/* ---- Committing ------------------------------------------------------------------------------------------------------------------ */

static int
synced(int fd, int (*real)(int))
{
	struct mkv_pl_object *o = mkv_pl_object_of(fd);
	int r;

	if (o == NULL)
		return (real(fd));
	r = mkv_pl_object_commit(o, MKV_PUT_COMMIT);
	mkv_pl_object_drop(o);
	return (r);
}

PL_EXPORT int
fsync(int fd)
{
	return (synced(fd, REAL(fsync)));
}

PL_EXPORT int
fdatasync(int fd)
{
	return (synced(fd, REAL(fdatasync)));
}

PL_EXPORT int
posix_fadvise(int fd, off_t off, off_t bytes, int advice)
{
	struct mkv_pl_object *o = mkv_pl_object_of(fd);

	if (o == NULL)
		return (REAL(posix_fadvise)(fd, off, bytes, advice));
	if (advice == POSIX_FADV_DONTNEED)
		mkv_pl_object_forget_bytes(o);
	mkv_pl_object_drop(o);
	return (0);
}
int	posix_fadvise64(int fd, off_t off, off_t bytes, int advice) PL_ALIAS(posix_fadvise);

/* ---- Descriptors come and go --------------------------------------------------------------------------------------------------------- */

/* A new number for what may be an object. What cannot be fetched for a standard one shows when it is read. */
static int
numbered(int fd)
{
	struct mkv_pl_object *o = fd >= 0 && fd <= STDERR_FILENO ? mkv_pl_object_of(fd) : NULL;

	if (o != NULL) {
		(void)mkv_pl_object_standard(o, fd);
		mkv_pl_object_drop(o);
	}
	return (fd);
}

PL_EXPORT int
dup(int fd)
{
	return (numbered(REAL(dup)(fd)));
}

static int
end_close(void *arg)
{
	return (REAL(close)(*(int *)arg));
}

PL_EXPORT int
close(int fd)
{
	struct mkv_pl_object *o = mkv_pl_object_of(fd);
	int r, result = 0;

	if (o == NULL)
		return (REAL(close)(fd));
	/* Who closes every number below some limit means his own. */
	r = mkv_pl_object_is_inner(o, fd) ? 0 : mkv_pl_object_leave(o, fd, end_close, &fd, &result);
	mkv_pl_object_drop(o);
	return (r != 0 ? -1 : result);
}

struct dup_call {
	int	from, to, flags;
	bool	three;
};

static int
end_dup(void *arg)
{
	struct dup_call *d = arg;

	return (d->three ? REAL(dup3)(d->from, d->to, d->flags) : REAL(dup2)(d->from, d->to));
}

/* The number that is taken is closed by it; a commit that fails is told although the number has changed hands, as close() would. */
static int
dup_over(struct dup_call *d)
{
	struct mkv_pl_object *o;
	int r, result = -1;

	/* What reads a standard number may be anything, with this library or without. */
	if (d->to >= STDIN_FILENO && d->to <= STDERR_FILENO && fill(d->from) != 0)
		return (-1);
	if (d->from == d->to)
		return (end_dup(d));
	if ((o = mkv_pl_object_of(d->to)) == NULL)
		return (numbered(end_dup(d)));
	if (mkv_pl_object_is_inner(o, d->to)) {
		mkv_pl_object_drop(o);
		errno = EBUSY;
		return (-1);
	}
	r = mkv_pl_object_leave(o, d->to, end_dup, d, &result);
	mkv_pl_object_drop(o);
	(void)numbered(result);
	return (r != 0 ? -1 : result);
}

PL_EXPORT int
dup2(int from, int to)
{
	return (dup_over(&(struct dup_call){ .from = from, .to = to }));
}

PL_EXPORT int
dup3(int from, int to, int flags)
{
	return (dup_over(&(struct dup_call){ .from = from, .to = to, .flags = flags, .three = true }));
}

PL_EXPORT int
fcntl(int fd, int cmd, ...)
{
	va_list ap;
	void *arg;

	va_start(ap, cmd);
	arg = va_arg(ap, void *);
	va_end(ap);
	if (cmd == F_DUPFD || cmd == F_DUPFD_CLOEXEC)
		return (numbered(REAL(fcntl)(fd, cmd, arg)));
	return (REAL(fcntl)(fd, cmd, arg));
}
int	fcntl64(int fd, int cmd, ...) PL_ALIAS(fcntl);

/* Number by number where an object may be among them: nothing else says which ones were. */
PL_EXPORT int
close_range(unsigned first, unsigned last, int flags)
{
	struct dirent *d;
	DIR *dir;

	if (flags != 0 || first > last || mkv_pl_object_none() || (dir = REAL(opendir)("/proc/thread-self/fd")) == NULL)
		return (REAL(close_range)(first, last, flags));
	while ((d = REAL(readdir)(dir)) != NULL) {
		unsigned n = (unsigned)atoi(d->d_name);

		if (d->d_name[0] != '.' && n >= first && n <= last && (int)n != dirfd(dir))
			(void)close((int)n);
	}
	(void)REAL(closedir)(dir);
	return (0);
}

PL_EXPORT void
closefrom(int first)
{
	(void)close_range((unsigned)(first < 0 ? 0 : first), ~0u, 0);
}
