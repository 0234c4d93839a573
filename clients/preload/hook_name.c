/*
 * Calls that change names, interposed: unlink, rename, truncate, mkdir, rmdir, link.
 *
 * Any thread of the program. Owns nothing beyond a call. Directories are real; a name moves between the store and the disk only by copying (EXDEV).
 * A rename of an object is a put under the new name, then a delete of the old one: the new name appears whole; if the delete fails both are there.
 * Fails: as the call, and with the store's errno.
 */
#include "config.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "clients/preload/preload_priv.h"

/* ---- Removing ------------------------------------------------------------------------------------------------------------------------- */

/* What a writer of this process has open under the name is never committed after. */
static int
unlink_key(const struct mkv_pl_name *n)
{
	struct mkv_pl_object *o;
	int r = 1;

	while (r > 0 && (o = mkv_pl_object_named(n)) != NULL) {
		r = mkv_pl_object_unlink(o, n);
		mkv_pl_object_drop(o);
	}
	if (r <= 0)
		return (r);
	mkv_pl_object_keep(n);
	return (mkv_pl_store_delete(n));
}

static int
list_any(void *arg, const struct mkv_list_entry *e)
{
	(void)e;
	*(int *)arg = 1;
	return (1);
}

/* A real directory that has objects below it is not empty. */
static int
rmdir_at(int dirfd, const char *path, const struct mkv_pl_name *n)
{
	char prefix[MEMKV_KEY_MAX + 2];
	int any = 0, bytes = snprintf(prefix, sizeof(prefix), "%s%s", n->key, n->key_bytes != 0 ? "/" : "");

	if (mkv_pl_store_list(prefix, (size_t)bytes, list_any, &any) != 0)
		return (-1);
	if (any) {
		errno = ENOTEMPTY;
		return (-1);
	}
	return (REAL(unlinkat)(dirfd, path, AT_REMOVEDIR));
}

PL_EXPORT int
unlinkat(int dirfd, const char *path, int flags)
{
	struct mkv_pl_name n;

	switch (mkv_pl_resolve(dirfd, path, &n)) {
	case MKV_PL_KEY:
		if ((flags & AT_REMOVEDIR) == 0)
			return (unlink_key(&n));
		break;
	case MKV_PL_DIR:
		if ((flags & AT_REMOVEDIR) != 0)
			return (rmdir_at(dirfd, path, &n));
		break;
	case MKV_PL_ERROR:
		return (-1);
	case MKV_PL_OUTSIDE:
		break;
	}
	return (REAL(unlinkat)(dirfd, path, flags));
}

PL_EXPORT int
unlink(const char *path)
{
	return (unlinkat(AT_FDCWD, path, 0));
}

PL_EXPORT int
rmdir(const char *path)
{
	return (unlinkat(AT_FDCWD, path, AT_REMOVEDIR));
}

PL_EXPORT int
remove(const char *path)
{
	struct mkv_pl_name n;

	switch (mkv_pl_resolve(AT_FDCWD, path, &n)) {
	case MKV_PL_KEY:
		return (unlink_key(&n));
	case MKV_PL_DIR:
		return (rmdir_at(AT_FDCWD, path, &n));
	case MKV_PL_ERROR:
		return (-1);
	default:
		return (REAL(remove)(path));
	}
}

/* ---- Renaming ------------------------------------------------------------------------------------------------------------------------- */

/* Nobody has it open: an object is made of what the store has. */
static int
rename_stored(const struct mkv_pl_name *from, const struct mkv_pl_name *to)
{
	int fd = mkv_pl_object_open(from, O_RDWR | O_CLOEXEC), r = -1, e;
	struct mkv_pl_object *o;

	if (fd < 0)
		return (-1);
	if ((o = mkv_pl_object_of(fd)) != NULL) {
		if ((r = mkv_pl_object_rename(o, from, to)) > 0) {
			errno = ENOENT;
			r = -1;
		}
		mkv_pl_object_drop(o);
	}
	e = errno;
	(void)close(fd);
	errno = e;
	return (r);
}

static int
rename_key(const struct mkv_pl_name *from, const struct mkv_pl_name *to)
{
	struct mkv_pl_object *o;
	int r = 1;

	while (r > 0 && (o = mkv_pl_object_named(from)) != NULL) {
		r = mkv_pl_object_rename(o, from, to);
		mkv_pl_object_drop(o);
	}
	return (r > 0 ? rename_stored(from, to) : r);
}

/* flags: of renameat2(). */
static int
rename_keys(const struct mkv_pl_name *from, const struct mkv_pl_name *to, unsigned flags)
{
	struct stat st;

	if ((flags & ~(unsigned)RENAME_NOREPLACE) != 0) {
		errno = EINVAL;
		return (-1);
	}
	if (from->key_bytes == to->key_bytes && memcmp(from->key, to->key, from->key_bytes) == 0)
		return (mkv_pl_name_stat(from, &st));
	if ((flags & RENAME_NOREPLACE) != 0) {
		if (mkv_pl_name_stat(to, &st) == 0)
			errno = EEXIST;
		if (errno != ENOENT)
			return (-1);
	}
	return (rename_key(from, to));
}

PL_EXPORT int
renameat2(int from_fd, const char *from, int to_fd, const char *to, unsigned flags)
{
	struct mkv_pl_name n_from, n_to;
	enum mkv_pl_what what_from = mkv_pl_resolve(from_fd, from, &n_from), what_to;

	if (what_from == MKV_PL_ERROR || (what_to = mkv_pl_resolve(to_fd, to, &n_to)) == MKV_PL_ERROR)
		return (-1);
	if (what_from == MKV_PL_OUTSIDE && what_to == MKV_PL_OUTSIDE)
		return (REAL(renameat2)(from_fd, from, to_fd, to, flags));
	if (what_from == MKV_PL_KEY && what_to == MKV_PL_KEY)
		return (rename_keys(&n_from, &n_to, flags));
	errno = what_from == MKV_PL_KEY && what_to == MKV_PL_DIR ? EISDIR : EXDEV;
	return (-1);
}

PL_EXPORT int
renameat(int from_fd, const char *from, int to_fd, const char *to)
{
	return (renameat2(from_fd, from, to_fd, to, 0));
}

PL_EXPORT int
rename(const char *from, const char *to)
{
	return (renameat2(AT_FDCWD, from, AT_FDCWD, to, 0));
}

/* ---- The rest --------------------------------------------------------------------------------------------------------------------------- */

/* An object has one name. */
PL_EXPORT int
linkat(int from_fd, const char *from, int to_fd, const char *to, int flags)
{
	struct mkv_pl_name n;

	if (mkv_pl_resolve(from_fd, from, &n) == MKV_PL_OUTSIDE && mkv_pl_resolve(to_fd, to, &n) == MKV_PL_OUTSIDE)
		return (REAL(linkat)(from_fd, from, to_fd, to, flags));
	errno = EPERM;
	return (-1);
}

PL_EXPORT int
link(const char *from, const char *to)
{
	return (linkat(AT_FDCWD, from, AT_FDCWD, to, 0));
}

PL_EXPORT int
truncate(const char *path, off_t size)
{
	struct mkv_pl_name n;
	int fd, r, e;

	switch (mkv_pl_resolve(AT_FDCWD, path, &n)) {
	case MKV_PL_KEY:
		break;
	case MKV_PL_ERROR:
		return (-1);
	default:
		return (REAL(truncate)(path, size));
	}
	if ((fd = mkv_pl_object_open(&n, O_WRONLY | O_CLOEXEC)) < 0)
		return (-1);
	r = ftruncate(fd, size);
	e = errno;
	if (close(fd) != 0 && r == 0)
		return (-1);
	errno = e;
	return (r);
}
int	truncate64(const char *path, off_t size) PL_ALIAS(truncate);

/* A directory cannot take the name of an object. */
PL_EXPORT int
mkdirat(int dirfd, const char *path, mode_t mode)
{
	struct mkv_pl_name n;
	struct stat st;

	switch (mkv_pl_resolve(dirfd, path, &n)) {
	case MKV_PL_KEY:
		if (mkv_pl_name_stat(&n, &st) != 0)
			break;
		errno = EEXIST;
		return (-1);
	case MKV_PL_ERROR:
		return (-1);
	default:
		break;
	}
	return (REAL(mkdirat)(dirfd, path, mode));
}

PL_EXPORT int
mkdir(const char *path, mode_t mode)
{
	return (mkdirat(AT_FDCWD, path, mode));
}

static void
end(int status)
{
	mkv_pl_end(false);
	REAL(_exit)(status);
	abort();
}

/* Ends without destructors: what is dirty would be lost. */
PL_EXPORT void
_exit(int status)
{
	end(status);
	__builtin_unreachable();
}

PL_EXPORT void
_Exit(int status)
{
	end(status);
	__builtin_unreachable();
}
