/*
 * libc's streams, interposed.
 *
 * Any thread of the program. A stream over an object that is opened for bytes ("b") or for both ways ("+") is one whose reads, writes, seeks and close
 * come back to us as calls on its descriptor: so a long fread goes from the store to the program's memory, and what it writes is known. All others are
 * libc's own, which calls the kernel inside itself: their object is filled before, and looked at for changes after. Owns the list of its own streams.
 * Fails: as the call, and with the store's errno; a read that failed is the stream's error.
 */
#include "config.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio_ext.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "clients/preload/preload_priv.h"

/* Less than this a stream's buffer does as well. */
#define LONG_BYTES	65536u
/* In libc's struct: it asks for the offset when it needs it. */
#define OFFSET_UNKNOWN	(-1)

struct stream {
	struct stream *next;
	FILE	*f;
	int	fd;
};

static struct stream *streams;
static _Atomic unsigned stream_count;
static pthread_mutex_t stream_mutex = PTHREAD_MUTEX_INITIALIZER;

/* ---- Ours -------------------------------------------------------------------------------------------------------------------------- */

/* -1: it is not. */
static int
stream_fd(const FILE *f)
{
	struct stream *s;
	int fd;

	if (atomic_load_explicit(&stream_count, memory_order_relaxed) == 0)
		return (-1);
	(void)pthread_mutex_lock(&stream_mutex);
	for (s = streams; s != NULL && s->f != f; s = s->next)
		;
	fd = s == NULL ? -1 : s->fd;
	(void)pthread_mutex_unlock(&stream_mutex);
	return (fd);
}

bool
mkv_pl_stream_any(void)
{
	return (atomic_load(&stream_count) != 0);
}

static ssize_t
stream_read(void *arg, char *to, size_t n)
{
	return (read(((struct stream *)arg)->fd, to, n));
}

/* All of it, or libc says that it failed. What libc remembers of the offset it moves by its own writes alone, so it must not. */
static ssize_t
stream_write(void *arg, const char *from, size_t n)
{
	struct stream *s = arg;
	size_t done = 0;
	ssize_t r = 1;

	for (; done < n && r > 0; done += (size_t)(r > 0 ? r : 0))
		r = write(s->fd, from + done, n - done);
	s->f->_offset = OFFSET_UNKNOWN;
	return ((ssize_t)done);
}

static int
stream_seek(void *arg, off64_t *off, int whence)
{
	off_t r = REAL(lseek)(((struct stream *)arg)->fd, *off, whence);

	*off = r;
	return (r < 0 ? -1 : 0);
}

static int
stream_close(void *arg)
{
	struct stream *s = arg, **at;
	int fd = s->fd;

	(void)pthread_mutex_lock(&stream_mutex);
	for (at = &streams; *at != s; at = &(*at)->next)
		;
	*at = s->next;
	atomic_fetch_sub(&stream_count, 1);
	(void)pthread_mutex_unlock(&stream_mutex);
	free(s);
	return (close(fd));
}

/* Where who only appends begins. */
static void
seek_for(int fd, const char *mode)
{
	if (mode[0] == 'a' && strchr(mode, '+') == NULL)
		(void)REAL(lseek)(fd, 0, SEEK_END);
}

/* As fdopen() has it of the descriptor's own mode. */
static bool
mode_fits(int fd, const char *mode)
{
	int flags = REAL(fcntl)(fd, F_GETFL), way = flags & O_ACCMODE;
	bool fits;

	if (flags < 0)
		return (false);
	fits = strchr(mode, '+') != NULL ? way == O_RDWR : mode[0] == 'r' ? way != O_WRONLY : (mode[0] == 'w' || mode[0] == 'a') && way != O_RDONLY;
	if (!fits)
		errno = EINVAL;
	else if (mode[0] == 'a' && (flags & O_APPEND) == 0 && (fits = REAL(fcntl)(fd, F_SETFL, flags | O_APPEND) == 0))
		seek_for(fd, mode);
	return (fits);
}

static FILE *
stream_open(int fd, const char *mode)
{
	cookie_io_functions_t calls = { .read = stream_read, .write = stream_write, .seek = stream_seek, .close = stream_close };
	char way[3] = { mode[0], strchr(mode, '+') != NULL ? '+' : '\0', '\0' };
	struct stream *s;

	if (!mode_fits(fd, mode) || (s = malloc(sizeof(*s))) == NULL)
		return (NULL);
	s->fd = fd;
	if ((s->f = fopencookie(s, way, calls)) == NULL) {
		free(s);
		return (NULL);
	}
	s->f->_fileno = fd;
	(void)pthread_mutex_lock(&stream_mutex);
	s->next = streams;
	streams = s;
	atomic_fetch_add(&stream_count, 1);
	(void)pthread_mutex_unlock(&stream_mutex);
	return (s->f);
}

static void
fork_before(void)
{
	(void)pthread_mutex_lock(&stream_mutex);
}

static void
fork_parent(void)
{
	(void)pthread_mutex_unlock(&stream_mutex);
}

static void
fork_child(void)
{
	(void)pthread_mutex_init(&stream_mutex, NULL);
}

void
mkv_pl_stream_init(void)
{
	(void)pthread_atfork(fork_before, fork_parent, fork_child);
}

/* ---- Long reads --------------------------------------------------------------------------------------------------------------------- */

/*
 * What the buffer has, then the rest by one read to the caller's memory: then the buffer is empty, and the descriptor's offset is the stream's. Returns
 * how much that was; the end of the file and errors libc finds by itself when it is asked for what is missing.
 */
static size_t
read_long(FILE *f, int fd, char *to, size_t n)
{
	size_t have;
	ssize_t r;

	if (feof_unlocked(f) || __fwriting(f) || f->_IO_save_base != NULL)
		return (0);
	have = (size_t)(f->_IO_read_end - f->_IO_read_ptr);
	if (have >= n || (have > 0 && REAL(fread_unlocked)(to, 1, have, f) != have))
		return (0);
	/* What libc remembers of the offset is that of its own reads. */
	f->_offset = OFFSET_UNKNOWN;
	r = read(fd, to + have, n - have);
	return (have + (size_t)(r > 0 ? r : 0));
}

static size_t
read_items(void *to, size_t size, size_t n, FILE *f, bool lock)
{
	size_t bytes, done;
	int fd;

	if (__builtin_mul_overflow(size, n, &bytes) || bytes < LONG_BYTES || (fd = stream_fd(f)) < 0)
		return (lock ? REAL(fread)(to, size, n, f) : REAL(fread_unlocked)(to, size, n, f));
	if (lock)
		flockfile(f);
	done = read_long(f, fd, to, bytes);
	if (done < bytes)
		done += REAL(fread_unlocked)((char *)to + done, 1, bytes - done, f);
	if (lock)
		funlockfile(f);
	return (done / size);
}

PL_EXPORT size_t
fread(void *to, size_t size, size_t n, FILE *f)
{
	return (read_items(to, size, n, f, true));
}

#undef fread_unlocked
PL_EXPORT size_t
fread_unlocked(void *to, size_t size, size_t n, FILE *f)
{
	return (read_items(to, size, n, f, false));
}

static void
check_room(size_t room, size_t size, size_t n)
{
	size_t bytes;

	if (__builtin_mul_overflow(size, n, &bytes) || bytes > room)
		abort();
}

PL_EXPORT size_t	__fread_chk(void *to, size_t room, size_t size, size_t n, FILE *f);
PL_EXPORT size_t
__fread_chk(void *to, size_t room, size_t size, size_t n, FILE *f)
{
	check_room(room, size, n);
	return (read_items(to, size, n, f, true));
}

PL_EXPORT size_t	__fread_unlocked_chk(void *to, size_t room, size_t size, size_t n, FILE *f);
PL_EXPORT size_t
__fread_unlocked_chk(void *to, size_t room, size_t size, size_t n, FILE *f)
{
	check_room(room, size, n);
	return (read_items(to, size, n, f, false));
}

/* ---- They come and go ----------------------------------------------------------------------------------------------------------------- */

/* Wide characters ("r", "w") and character sets (",ccs=") libc does on its own streams alone. */
static bool
is_for_bytes(const char *mode)
{
	return ((strchr(mode, 'b') != NULL || strchr(mode, '+') != NULL) && strchr(mode, ',') == NULL);
}

PL_EXPORT FILE *
fdopen(int fd, const char *mode)
{
	struct mkv_pl_object *o = mkv_pl_object_of(fd);
	FILE *f = NULL;

	if (o == NULL)
		return (REAL(fdopen)(fd, mode));
	if (is_for_bytes(mode))
		f = stream_open(fd, mode);
	else if (mkv_pl_object_fill(o) == 0 && (f = REAL(fdopen)(fd, mode)) != NULL)
		mkv_pl_object_stream(o, 1);
	mkv_pl_object_drop(o);
	return (f);
}

static int
end_fclose(void *arg)
{
	return (REAL(fclose)(arg));
}

PL_EXPORT int
fclose(FILE *f)
{
	struct mkv_pl_object *o = f == NULL ? NULL : mkv_pl_object_of(fileno(f));
	int r, flushed, result = EOF, e;

	/* Ours says close() itself. */
	if (o != NULL && stream_fd(f) >= 0) {
		mkv_pl_object_drop(o);
		o = NULL;
	}
	if (o == NULL)
		return (REAL(fclose)(f));
	flushed = fflush(f);
	e = errno;
	mkv_pl_object_stream(o, -1);
	r = mkv_pl_object_leave(o, fileno(f), end_fclose, f, &result);
	mkv_pl_object_drop(o);
	if (r == 0 && flushed != 0)
		errno = e;
	return (r != 0 || flushed != 0 ? EOF : result);
}

/* "r", "w+be", ...: as open() has it. -1: no such mode. */
static int
mode_flags(const char *mode)
{
	int flags;

	switch (mode[0]) {
	case 'r':
		flags = O_RDONLY;
		break;
	case 'w':
		flags = O_WRONLY | O_CREAT | O_TRUNC;
		break;
	case 'a':
		flags = O_WRONLY | O_CREAT | O_APPEND;
		break;
	default:
		return (-1);
	}
	if (strchr(mode, '+') != NULL)
		flags = (flags & ~O_ACCMODE) | O_RDWR;
	return (flags | (strchr(mode, 'x') != NULL ? O_EXCL : 0) | (strchr(mode, 'e') != NULL ? O_CLOEXEC : 0));
}

PL_EXPORT FILE *
fopen(const char *path, const char *mode)
{
	struct mkv_pl_name n;
	int flags, fd, e;
	FILE *f;

	switch (mkv_pl_resolve(AT_FDCWD, path, &n)) {
	case MKV_PL_KEY:
		break;
	case MKV_PL_ERROR:
		return (NULL);
	default:
		return (REAL(fopen)(path, mode));
	}
	if ((flags = mode_flags(mode)) < 0) {
		errno = EINVAL;
		return (NULL);
	}
	if ((fd = mkv_pl_object_open(&n, flags)) < 0)
		return (NULL);
	seek_for(fd, mode);
	if ((f = fdopen(fd, mode)) == NULL) {
		e = errno;
		(void)close(fd);
		errno = e;
	}
	return (f);
}
FILE *	fopen64(const char *path, const char *mode) PL_ALIAS(fopen);

/* A stream that becomes another file: not for objects, and better refused than on the disk. */
PL_EXPORT FILE *
freopen(const char *path, const char *mode, FILE *f)
{
	struct mkv_pl_name n;
	enum mkv_pl_what what = path == NULL ? MKV_PL_OUTSIDE : mkv_pl_resolve(AT_FDCWD, path, &n);
	struct mkv_pl_object *o = f == NULL ? NULL : mkv_pl_object_of(fileno(f));

	if (o == NULL && what != MKV_PL_KEY && what != MKV_PL_ERROR)
		return (REAL(freopen)(path, mode, f));
	if (o != NULL)
		mkv_pl_object_drop(o);
	if (what != MKV_PL_ERROR)
		errno = ENOTSUP;
	return (NULL);
}
FILE *	freopen64(const char *path, const char *mode, FILE *f) PL_ALIAS(freopen);
