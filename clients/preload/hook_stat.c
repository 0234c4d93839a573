/*
 * What a program asks about a name or a descriptor, interposed: stat in all its names, access, statvfs; and times, modes and attributes.
 *
 * Any thread of the program. Owns nothing. An object is a regular file of the program's user, mode 0644, inode and time of its own.
 * Modes and owners are taken and forgotten, attributes are not supported. Fails: as the call, and with the store's errno.
 */
#include "config.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <string.h>
#include <sys/sysmacros.h>
#include <sys/time.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "clients/preload/preload_priv.h"

#define SPACE_BLOCK	4096u

void
mkv_pl_object_stat_of(const struct mkv_pl_name *n, uint64_t bytes, uint64_t wall_ms, struct stat *st)
{
	memset(st, 0, sizeof(*st));
	st->st_dev = n->dev;
	st->st_ino = (ino_t)mkv_pl_name_ino(n->key, n->key_bytes);
	st->st_mode = S_IFREG | 0644;
	st->st_nlink = 1;
	st->st_uid = geteuid();
	st->st_gid = getegid();
	st->st_size = (off_t)bytes;
	st->st_blksize = 65536;
	st->st_blocks = (blkcnt_t)((bytes + 511) / 512);
	st->st_mtim.tv_sec = (time_t)(wall_ms / 1000);
	st->st_mtim.tv_nsec = (long)(wall_ms % 1000) * 1000000;
	st->st_atim = st->st_ctim = st->st_mtim;
}

int
mkv_pl_name_stat(const struct mkv_pl_name *n, struct stat *st)
{
	struct mkv_pl_object *o = mkv_pl_object_named(n);
	struct mkv_object obj;
	int r;

	if (o != NULL) {
		r = mkv_pl_object_stat(o, st);
		mkv_pl_object_drop(o);
		return (r);
	}
	if ((r = mkv_pl_store_stat(n, &obj)) == 0)
		mkv_pl_object_stat_of(n, obj.value_bytes, obj.put_wall_ms, st);
	return (r);
}

/* ---- stat -------------------------------------------------------------------------------------------------------------------------- */

static int
stat_fd(int fd, struct stat *st)
{
	struct mkv_pl_object *o = mkv_pl_object_of(fd);
	int r;

	if (o == NULL)
		return (REAL(fstat)(fd, st));
	r = mkv_pl_object_stat(o, st);
	mkv_pl_object_drop(o);
	return (r);
}

static int
stat_at(int dirfd, const char *path, struct stat *st, int flags)
{
	struct mkv_pl_name n;

	if (!mkv_pl_is_null(path) && path[0] == '\0' && (flags & AT_EMPTY_PATH) != 0 && dirfd != AT_FDCWD)
		return (stat_fd(dirfd, st));
	switch (mkv_pl_resolve(dirfd, path, &n)) {
	case MKV_PL_KEY:
		return (mkv_pl_name_stat(&n, st));
	case MKV_PL_ERROR:
		return (-1);
	default:
		return (REAL(fstatat)(dirfd, path, st, flags));
	}
}

PL_EXPORT int
stat(const char *path, struct stat *st)
{
	return (stat_at(AT_FDCWD, path, st, 0));
}

PL_EXPORT int
lstat(const char *path, struct stat *st)
{
	return (stat_at(AT_FDCWD, path, st, AT_SYMLINK_NOFOLLOW));
}

PL_EXPORT int
fstat(int fd, struct stat *st)
{
	return (stat_fd(fd, st));
}

PL_EXPORT int
fstatat(int dirfd, const char *path, struct stat *st, int flags)
{
	return (stat_at(dirfd, path, st, flags));
}

/* struct stat64 is struct stat, under another name. */
_Static_assert(sizeof(struct stat64) == sizeof(struct stat) && offsetof(struct stat64, st_size) == offsetof(struct stat, st_size), "one struct");

PL_EXPORT int
stat64(const char *path, struct stat64 *st)
{
	return (stat_at(AT_FDCWD, path, (struct stat *)st, 0));
}

PL_EXPORT int
lstat64(const char *path, struct stat64 *st)
{
	return (stat_at(AT_FDCWD, path, (struct stat *)st, AT_SYMLINK_NOFOLLOW));
}

PL_EXPORT int
fstat64(int fd, struct stat64 *st)
{
	return (stat_fd(fd, (struct stat *)st));
}

PL_EXPORT int
fstatat64(int dirfd, const char *path, struct stat64 *st, int flags)
{
	return (stat_at(dirfd, path, (struct stat *)st, flags));
}

/* The names of programs that were linked with a libc before 2.33; the version is that of the struct, of which there is one. */
PL_EXPORT int	__xstat(int version, const char *path, struct stat *st);
PL_EXPORT int
__xstat(int version, const char *path, struct stat *st)
{
	(void)version;
	return (stat_at(AT_FDCWD, path, st, 0));
}
int	__xstat64(int version, const char *path, struct stat *st) PL_ALIAS(__xstat);

PL_EXPORT int	__lxstat(int version, const char *path, struct stat *st);
PL_EXPORT int
__lxstat(int version, const char *path, struct stat *st)
{
	(void)version;
	return (stat_at(AT_FDCWD, path, st, AT_SYMLINK_NOFOLLOW));
}
int	__lxstat64(int version, const char *path, struct stat *st) PL_ALIAS(__lxstat);

PL_EXPORT int	__fxstat(int version, int fd, struct stat *st);
PL_EXPORT int
__fxstat(int version, int fd, struct stat *st)
{
	(void)version;
	return (stat_fd(fd, st));
}
int	__fxstat64(int version, int fd, struct stat *st) PL_ALIAS(__fxstat);

PL_EXPORT int	__fxstatat(int version, int dirfd, const char *path, struct stat *st, int flags);
PL_EXPORT int
__fxstatat(int version, int dirfd, const char *path, struct stat *st, int flags)
{
	(void)version;
	return (stat_at(dirfd, path, st, flags));
}
int	__fxstatat64(int version, int dirfd, const char *path, struct stat *st, int flags) PL_ALIAS(__fxstatat);

static struct statx_timestamp
statx_time(struct timespec t)
{
	return ((struct statx_timestamp){ .tv_sec = t.tv_sec, .tv_nsec = (uint32_t)t.tv_nsec });
}

static void
statx_of(const struct stat *st, struct statx *x)
{
	memset(x, 0, sizeof(*x));
	x->stx_mask = STATX_BASIC_STATS;
	x->stx_blksize = (uint32_t)st->st_blksize;
	x->stx_nlink = (uint32_t)st->st_nlink;
	x->stx_uid = st->st_uid;
	x->stx_gid = st->st_gid;
	x->stx_mode = (uint16_t)st->st_mode;
	x->stx_ino = st->st_ino;
	x->stx_size = (uint64_t)st->st_size;
	x->stx_blocks = (uint64_t)st->st_blocks;
	x->stx_atime = statx_time(st->st_atim);
	x->stx_mtime = statx_time(st->st_mtim);
	x->stx_ctime = statx_time(st->st_ctim);
	x->stx_dev_major = major(st->st_dev);
	x->stx_dev_minor = minor(st->st_dev);
}

PL_EXPORT int
statx(int dirfd, const char *path, int flags, unsigned mask, struct statx *x)
{
	struct mkv_pl_object *o = NULL;
	struct mkv_pl_name n;
	struct stat st;
	int r;

	if (!mkv_pl_is_null(path) && path[0] == '\0' && (o = mkv_pl_object_of(dirfd)) != NULL) {
		r = mkv_pl_object_stat(o, &st);
		mkv_pl_object_drop(o);
	} else {
		switch (mkv_pl_resolve(dirfd, path, &n)) {
		case MKV_PL_KEY:
			r = mkv_pl_name_stat(&n, &st);
			break;
		case MKV_PL_ERROR:
			return (-1);
		default:
			return (REAL(statx)(dirfd, path, flags, mask, x));
		}
	}
	if (r == 0)
		statx_of(&st, x);
	return (r);
}

/* ---- What may be done with a name ---------------------------------------------------------------------------------------------------- */

/* 1: not ours, do the real call. 0: it is there, or -1 with errno. */
static int
there_at(int dirfd, const char *path)
{
	struct mkv_pl_name n;
	struct stat st;

	switch (mkv_pl_resolve(dirfd, path, &n)) {
	case MKV_PL_KEY:
		return (mkv_pl_name_stat(&n, &st));
	case MKV_PL_ERROR:
		return (-1);
	default:
		return (1);
	}
}

PL_EXPORT int
faccessat(int dirfd, const char *path, int mode, int flags)
{
	int r = there_at(dirfd, path);

	if (r > 0)
		return (REAL(faccessat)(dirfd, path, mode, flags));
	if (r == 0 && (mode & X_OK) != 0) {
		errno = EACCES;
		return (-1);
	}
	return (r);
}

PL_EXPORT int
access(const char *path, int mode)
{
	return (faccessat(AT_FDCWD, path, mode, 0));
}

PL_EXPORT int
eaccess(const char *path, int mode)
{
	return (faccessat(AT_FDCWD, path, mode, AT_EACCESS));
}
int	euidaccess(const char *path, int mode) PL_ALIAS(eaccess);

/* The time of an object is that of its put. */
PL_EXPORT int
utimensat(int dirfd, const char *path, const struct timespec ts[2], int flags)
{
	struct mkv_pl_object *o;
	int r;

	if (mkv_pl_is_null(path) && (o = mkv_pl_object_of(dirfd)) != NULL) {
		mkv_pl_object_drop(o);
		return (0);
	}
	r = there_at(dirfd, path);
	return (r > 0 ? REAL(utimensat)(dirfd, path, ts, flags) : r);
}

PL_EXPORT int
futimens(int fd, const struct timespec ts[2])
{
	struct mkv_pl_object *o = mkv_pl_object_of(fd);

	if (o == NULL)
		return (REAL(futimens)(fd, ts));
	mkv_pl_object_drop(o);
	return (0);
}

PL_EXPORT int
utimes(const char *path, const struct timeval tv[2])
{
	int r = there_at(AT_FDCWD, path);

	return (r > 0 ? REAL(utimes)(path, tv) : r);
}

PL_EXPORT int
fchmodat(int dirfd, const char *path, mode_t mode, int flags)
{
	int r = there_at(dirfd, path);

	return (r > 0 ? REAL(fchmodat)(dirfd, path, mode, flags) : r);
}

PL_EXPORT int
fchmod(int fd, mode_t mode)
{
	struct mkv_pl_object *o = mkv_pl_object_of(fd);

	if (o == NULL)
		return (REAL(fchmod)(fd, mode));
	mkv_pl_object_drop(o);
	return (0);
}

PL_EXPORT int
chmod(const char *path, mode_t mode)
{
	return (fchmodat(AT_FDCWD, path, mode, 0));
}

PL_EXPORT int
fchownat(int dirfd, const char *path, uid_t uid, gid_t gid, int flags)
{
	int r = there_at(dirfd, path);

	return (r > 0 ? REAL(fchownat)(dirfd, path, uid, gid, flags) : r);
}

PL_EXPORT int
chown(const char *path, uid_t uid, gid_t gid)
{
	return (fchownat(AT_FDCWD, path, uid, gid, 0));
}

PL_EXPORT int
lchown(const char *path, uid_t uid, gid_t gid)
{
	return (fchownat(AT_FDCWD, path, uid, gid, AT_SYMLINK_NOFOLLOW));
}

static ssize_t
no_attributes(const char *path)
{
	int r = there_at(AT_FDCWD, path);

	if (r == 0) {
		errno = ENOTSUP;
		return (-1);
	}
	return (r);
}

PL_EXPORT ssize_t
getxattr(const char *path, const char *name, void *value, size_t bytes)
{
	ssize_t r = no_attributes(path);

	return (r > 0 ? REAL(getxattr)(path, name, value, bytes) : r);
}

PL_EXPORT ssize_t
lgetxattr(const char *path, const char *name, void *value, size_t bytes)
{
	ssize_t r = no_attributes(path);

	return (r > 0 ? REAL(lgetxattr)(path, name, value, bytes) : r);
}

PL_EXPORT ssize_t
listxattr(const char *path, char *list, size_t bytes)
{
	ssize_t r = no_attributes(path);

	return (r > 0 ? REAL(listxattr)(path, list, bytes) : r);
}

PL_EXPORT ssize_t
llistxattr(const char *path, char *list, size_t bytes)
{
	ssize_t r = no_attributes(path);

	return (r > 0 ? REAL(llistxattr)(path, list, bytes) : r);
}

/* ---- Room ---------------------------------------------------------------------------------------------------------------------------- */

/* Of all servers that answer. */
static int
space(uint64_t *blocks, uint64_t *free_blocks)
{
	uint64_t total, used;

	if (mkv_pl_store_space(&total, &used) != 0)
		return (-1);
	*blocks = total / SPACE_BLOCK;
	*free_blocks = used < total ? (total - used) / SPACE_BLOCK : 0;
	return (0);
}

static int
space_statvfs(struct statvfs *st)
{
	uint64_t blocks, free_blocks;

	if (space(&blocks, &free_blocks) != 0)
		return (-1);
	memset(st, 0, sizeof(*st));
	st->f_bsize = st->f_frsize = SPACE_BLOCK;
	st->f_blocks = blocks;
	st->f_bfree = st->f_bavail = free_blocks;
	st->f_namemax = 255;
	return (0);
}

static int
space_statfs(struct statfs *st)
{
	uint64_t blocks, free_blocks;

	if (space(&blocks, &free_blocks) != 0)
		return (-1);
	memset(st, 0, sizeof(*st));
	st->f_type = TMPFS_MAGIC;
	st->f_bsize = st->f_frsize = SPACE_BLOCK;
	st->f_blocks = blocks;
	st->f_bfree = st->f_bavail = free_blocks;
	st->f_namelen = 255;
	return (0);
}

static bool
space_is_ours(const char *path)
{
	struct mkv_pl_name n;
	enum mkv_pl_what what = mkv_pl_resolve(AT_FDCWD, path, &n);

	return (what == MKV_PL_DIR || what == MKV_PL_KEY);
}

PL_EXPORT int
statvfs(const char *path, struct statvfs *st)
{
	return (space_is_ours(path) ? space_statvfs(st) : REAL(statvfs)(path, st));
}

PL_EXPORT int
statfs(const char *path, struct statfs *st)
{
	return (space_is_ours(path) ? space_statfs(st) : REAL(statfs)(path, st));
}

static bool
space_is_of(int fd)
{
	struct mkv_pl_object *o = mkv_pl_object_of(fd);

	struct mkv_pl_name n;

	if (o != NULL)
		mkv_pl_object_drop(o);
	return (o != NULL || (fd >= 0 && mkv_pl_resolve(fd, ".", &n) == MKV_PL_DIR));
}

PL_EXPORT int
fstatvfs(int fd, struct statvfs *st)
{
	return (space_is_of(fd) ? space_statvfs(st) : REAL(fstatvfs)(fd, st));
}

PL_EXPORT int
fstatfs(int fd, struct statfs *st)
{
	return (space_is_of(fd) ? space_statfs(st) : REAL(fstatfs)(fd, st));
}

_Static_assert(sizeof(struct statvfs64) == sizeof(struct statvfs) && sizeof(struct statfs64) == sizeof(struct statfs), "one struct each");

PL_EXPORT int
statvfs64(const char *path, struct statvfs64 *st)
{
	return (statvfs(path, (struct statvfs *)st));
}

PL_EXPORT int
statfs64(const char *path, struct statfs64 *st)
{
	return (statfs(path, (struct statfs *)st));
}

PL_EXPORT int
fstatvfs64(int fd, struct statvfs64 *st)
{
	return (fstatvfs(fd, (struct statvfs *)st));
}

PL_EXPORT int
fstatfs64(int fd, struct statfs64 *st)
{
	return (fstatfs(fd, (struct statfs *)st));
}
