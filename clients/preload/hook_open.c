/*
 * open() in all its names, interposed.
 *
 * Any thread of the program. A path outside the prefixes, and a directory below them, goes to libc. The descriptor belongs to the program.
 * Fails: as open(2), and with the store's errno.
 */
#include "config.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "clients/preload/preload_priv.h"

static int
open_at(int dirfd, const char *path, int flags, mode_t mode)
{
	struct mkv_pl_name n;

	/* A file without a name is nobody's object. */
	if ((flags & O_TMPFILE) == O_TMPFILE)
		return (REAL(openat)(dirfd, path, flags, mode));
	switch (mkv_pl_resolve(dirfd, path, &n)) {
	case MKV_PL_KEY:
		return (mkv_pl_object_open(&n, flags));
	case MKV_PL_ERROR:
		return (-1);
	default:
		return (REAL(openat)(dirfd, path, flags, mode));
	}
}

/* The mode is there only if flags say so. */
#define MODE_OF(last)	__extension__({						\
	mode_t mode_ = 0;							\
	va_list ap_;								\
	if ((last & O_CREAT) != 0 || (last & O_TMPFILE) == O_TMPFILE) {		\
		va_start(ap_, last);						\
		mode_ = va_arg(ap_, mode_t);					\
		va_end(ap_);							\
	}									\
	mode_;									\
})

PL_EXPORT int
open(const char *path, int flags, ...)
{
	return (open_at(AT_FDCWD, path, flags, MODE_OF(flags)));
}
int	open64(const char *path, int flags, ...) PL_ALIAS(open);

PL_EXPORT int
openat(int dirfd, const char *path, int flags, ...)
{
	return (open_at(dirfd, path, flags, MODE_OF(flags)));
}
int	openat64(int dirfd, const char *path, int flags, ...) PL_ALIAS(openat);

PL_EXPORT int
creat(const char *path, mode_t mode)
{
	return (open_at(AT_FDCWD, path, O_WRONLY | O_CREAT | O_TRUNC, mode));
}
int	creat64(const char *path, mode_t mode) PL_ALIAS(creat);

/* What a fortified program calls where it gives no mode. */
PL_EXPORT int	__open_2(const char *path, int flags);
PL_EXPORT int
__open_2(const char *path, int flags)
{
	if ((flags & O_CREAT) != 0)
		abort();
	return (open_at(AT_FDCWD, path, flags, 0));
}
int	__open64_2(const char *path, int flags) PL_ALIAS(__open_2);

PL_EXPORT int	__openat_2(int dirfd, const char *path, int flags);
PL_EXPORT int
__openat_2(int dirfd, const char *path, int flags)
{
	if ((flags & O_CREAT) != 0)
		abort();
	return (open_at(dirfd, path, flags, 0));
}
int	__openat64_2(int dirfd, const char *path, int flags) PL_ALIAS(__openat_2);

/* ---- Names of the system's choice: libc's own mkstemp() does not come by open() ------------------------------------------------------------ */

#define TEMP_LETTERS	6u
#define TEMP_TRIES_MAX	100u

static void
temp_name(char *six)
{
	static const char letter[] = "abcdefghijklmnopqrstuvwxyz0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ";
	static _Atomic unsigned count;
	struct timespec now;
	uint64_t v;
	unsigned i;

	(void)clock_gettime(CLOCK_MONOTONIC, &now);
	v = (uint64_t)now.tv_nsec * 0x9e3779b97f4a7c15ull + (uint64_t)getpid() * 0xbf58476d1ce4e5b9ull + atomic_fetch_add(&count, 1) * 0x94d049bb133111ebull;
	v ^= v >> 31;
	for (i = 0; i < TEMP_LETTERS; i++, v /= sizeof(letter) - 1)
		six[i] = letter[v % (sizeof(letter) - 1)];
}

PL_EXPORT int
mkostemps(char *path, int suffix, int flags)
{
	size_t n = strlen(path);
	struct mkv_pl_name name;
	enum mkv_pl_what what = mkv_pl_resolve(AT_FDCWD, path, &name);
	unsigned i;
	char *six;
	int fd;

	if (what == MKV_PL_ERROR)
		return (-1);
	if (suffix < 0 || n < TEMP_LETTERS + (size_t)suffix || what != MKV_PL_KEY)
		return (REAL(mkostemps)(path, suffix, flags));
	six = path + n - (size_t)suffix - TEMP_LETTERS;
	if (strncmp(six, "XXXXXX", TEMP_LETTERS) != 0) {
		errno = EINVAL;
		return (-1);
	}
	for (i = 0; i < TEMP_TRIES_MAX; i++) {
		temp_name(six);
		fd = open_at(AT_FDCWD, path, (flags & ~O_ACCMODE) | O_RDWR | O_CREAT | O_EXCL, 0600);
		if (fd >= 0 || errno != EEXIST)
			return (fd);
	}
	return (-1);
}
int	mkostemps64(char *path, int suffix, int flags) PL_ALIAS(mkostemps);

PL_EXPORT int
mkstemps(char *path, int suffix)
{
	return (mkostemps(path, suffix, 0));
}
int	mkstemps64(char *path, int suffix) PL_ALIAS(mkstemps);

PL_EXPORT int
mkostemp(char *path, int flags)
{
	return (mkostemps(path, 0, flags));
}
int	mkostemp64(char *path, int flags) PL_ALIAS(mkostemp);

PL_EXPORT int
mkstemp(char *path)
{
	return (mkostemps(path, 0, 0));
}
int	mkstemp64(char *path) PL_ALIAS(mkstemp);
