/*
 * Reading directories, interposed: the real entries that are directories, then the objects directly below.
 *
 * Any thread of the program; a DIR is used by one at a time, as libc wants it. dirs (dirs_mutex) owns the list of names of each open DIR; the DIR is
 * libc's. The names are those of the moment of opendir() or rewinddir(). Fails: opendir() with the store's errno if it cannot be asked, ENOMEM.
 */
#include "config.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "clients/preload/preload_priv.h"

struct dir {
	struct dir	*next;
	DIR		*real;
	struct mkv_pl_name name;
	char		prefix[MEMKV_KEY_MAX + 2];
	size_t		prefix_bytes;
	char		**names;
	size_t		count, room, at;
	bool		failed;		/* memory, while the list was made */
	int		error;		/* of rewinddir(), which cannot say it */
	struct dirent	entry;		/* what readdir() returned last */
};

static struct dir *dirs;
static pthread_mutex_t dirs_mutex = PTHREAD_MUTEX_INITIALIZER;

static void
fork_before(void)
{
	(void)pthread_mutex_lock(&dirs_mutex);
}

static void
fork_after(void)
{
	(void)pthread_mutex_unlock(&dirs_mutex);
}

void
mkv_pl_dir_init(void)
{
	(void)pthread_atfork(fork_before, fork_after, fork_after);
}

static struct dir *
dir_find(DIR *real)
{
	struct dir *d;

	(void)pthread_mutex_lock(&dirs_mutex);
	for (d = dirs; d != NULL && d->real != real; d = d->next)
		;
	(void)pthread_mutex_unlock(&dirs_mutex);
	return (d);
}

static void
names_free(struct dir *d)
{
	while (d->count > 0)
		free(d->names[--d->count]);
	free(d->names);
	d->names = NULL;
	d->room = d->at = 0;
}

static int
names_add(struct dir *d, const char *name, size_t bytes)
{
	size_t room = d->room == 0 ? 64 : 2 * d->room;
	char **more;

	if (d->count == d->room) {
		if ((more = realloc(d->names, room * sizeof(*more))) == NULL)
			return (-1);
		d->names = more;
		d->room = room;
	}
	if ((d->names[d->count] = strndup(name, bytes)) == NULL)
		return (-1);
	d->count++;
	return (0);
}

/* Keys further below lie in directories of their own. */
static int
names_take(void *arg, const struct mkv_list_entry *e)
{
	const char *name = (const char *)e->key + ((struct dir *)arg)->prefix_bytes;
	struct dir *d = arg;
	size_t bytes;

	if (e->key_bytes <= d->prefix_bytes || memcmp(e->key, d->prefix, d->prefix_bytes) != 0)
		return (0);
	bytes = e->key_bytes - d->prefix_bytes;
	if (bytes > NAME_MAX || memchr(name, '/', bytes) != NULL || memchr(name, '\0', bytes) != NULL)
		return (0);
	d->failed = names_add(d, name, bytes) != 0;
	return (d->failed ? 1 : 0);
}

static int
names_read(struct dir *d)
{
	names_free(d);
	d->failed = false;
	if (mkv_pl_store_list(d->prefix, d->prefix_bytes, names_take, d) != 0)
		return (-1);
	if (d->failed)
		errno = ENOMEM;
	return (d->failed ? -1 : 0);
}

/* real is a directory of ours. 0, or -1 with errno: it is the caller's to close. */
static int
dir_add(DIR *real, const struct mkv_pl_name *n)
{
	struct dir *d = calloc(1, sizeof(*d));

	if (d == NULL)
		return (-1);
	d->real = real;
	d->name = *n;
	d->prefix_bytes = (size_t)snprintf(d->prefix, sizeof(d->prefix), "%s%s", n->key, n->key_bytes != 0 ? "/" : "");
	if (names_read(d) != 0) {
		names_free(d);
		free(d);
		return (-1);
	}
	(void)pthread_mutex_lock(&dirs_mutex);
	d->next = dirs;
	dirs = d;
	(void)pthread_mutex_unlock(&dirs_mutex);
	return (0);
}

PL_EXPORT DIR *
opendir(const char *path)
{
	struct mkv_pl_name n;
	enum mkv_pl_what what = mkv_pl_resolve(AT_FDCWD, path, &n);
	DIR *real;
	int e;

	if (what == MKV_PL_ERROR || (real = REAL(opendir)(path)) == NULL)
		return (NULL);
	if (what == MKV_PL_DIR && dir_add(real, &n) != 0) {
		e = errno;
		(void)REAL(closedir)(real);
		errno = e;
		return (NULL);
	}
	return (real);
}

/* fd stays the caller's if this fails. */
PL_EXPORT DIR *
fdopendir(int fd)
{
	struct mkv_pl_name n;
	DIR *real;
	int copy, e;

	if (mkv_pl_resolve(fd, ".", &n) != MKV_PL_DIR)
		return (REAL(fdopendir)(fd));
	if ((copy = REAL(fcntl)(fd, F_DUPFD_CLOEXEC, 0)) < 0)
		return (NULL);
	if ((real = REAL(fdopendir)(fd)) != NULL && dir_add(real, &n) == 0) {
		(void)REAL(close)(copy);
		return (real);
	}
	e = errno;
	if (real != NULL) {		/* closing it takes the number along: it gets the directory back */
		(void)REAL(closedir)(real);
		(void)REAL(dup3)(copy, fd, O_CLOEXEC);
	}
	(void)REAL(close)(copy);
	errno = e;
	return (NULL);
}

/* Files that lie on the disk below a prefix are not there. */
static bool
is_directory(DIR *real, const struct dirent *e)
{
	int saved = errno;		/* at the end of the directory it says whether that is the end */
	struct stat st;
	bool is;

	if (e->d_type != DT_UNKNOWN && e->d_type != DT_LNK)
		return (e->d_type == DT_DIR);
	is = REAL(fstatat)(dirfd(real), e->d_name, &st, 0) == 0 && S_ISDIR(st.st_mode);
	errno = saved;
	return (is);
}

PL_EXPORT struct dirent *
readdir(DIR *real)
{
	struct dir *d = dir_find(real);
	struct mkv_pl_name n;
	struct dirent *e;
	int bytes;

	if (d == NULL)
		return (REAL(readdir)(real));
	while ((e = REAL(readdir)(real)) != NULL)
		if (is_directory(real, e))
			return (e);
	if (d->at >= d->count) {
		if (d->error != 0)
			errno = d->error;
		return (NULL);
	}
	bytes = snprintf(n.key, sizeof(n.key), "%s%s", d->prefix, d->names[d->at]);
	memset(&d->entry, 0, sizeof(d->entry));
	d->entry.d_ino = (ino_t)mkv_pl_name_ino(n.key, (size_t)bytes);
	d->entry.d_reclen = sizeof(d->entry);
	d->entry.d_type = DT_REG;
	(void)snprintf(d->entry.d_name, sizeof(d->entry.d_name), "%s", d->names[d->at++]);
	return (&d->entry);
}

_Static_assert(sizeof(struct dirent64) == sizeof(struct dirent), "one struct");

PL_EXPORT struct dirent64 *
readdir64(DIR *real)
{
	return ((struct dirent64 *)readdir(real));
}

PL_EXPORT void
rewinddir(DIR *real)
{
	struct dir *d = dir_find(real);

	REAL(rewinddir)(real);
	if (d != NULL)
		d->error = names_read(d) != 0 ? errno : 0;
}

PL_EXPORT int
closedir(DIR *real)
{
	struct dir **at, *d;

	(void)pthread_mutex_lock(&dirs_mutex);
	for (at = &dirs; *at != NULL && (*at)->real != real; at = &(*at)->next)
		;
	if ((d = *at) != NULL)
		*at = d->next;
	(void)pthread_mutex_unlock(&dirs_mutex);
	if (d != NULL) {
		names_free(d);
		free(d);
	}
	return (REAL(closedir)(real));
}

/* ---- scandir: libc's own does not come by us --------------------------------------------------------------------------------------------- */

static void
list_free(struct dirent **list, size_t n)
{
	while (n > 0)
		free(list[--n]);
	free(list);
}

/* The entries of dir that want() takes: how many, or -1. */
static ssize_t
scan(DIR *dir, struct dirent ***out, int (*want)(const struct dirent *))
{
	size_t n = 0, room = 0;
	struct dirent **list = NULL, **more, *e;

	while ((e = readdir(dir)) != NULL) {
		if (want != NULL && !want(e))
			continue;
		if (n == room) {
			room = room == 0 ? 64 : 2 * room;
			if ((more = realloc(list, room * sizeof(*list))) == NULL)
				break;
			list = more;
		}
		if ((list[n] = malloc(sizeof(*e))) == NULL)
			break;
		memcpy(list[n++], e, e->d_reclen < sizeof(*e) ? e->d_reclen : sizeof(*e));
	}
	if (e != NULL) {
		list_free(list, n);
		errno = ENOMEM;
		return (-1);
	}
	*out = list;
	return ((ssize_t)n);
}

PL_EXPORT int
scandir(const char *path, struct dirent ***out, int (*want)(const struct dirent *), int (*order)(const struct dirent **, const struct dirent **))
{
	struct dirent **list = NULL;
	DIR *dir = opendir(path);
	ssize_t n;
	int e;

	if (dir == NULL)
		return (-1);
	n = scan(dir, &list, want);
	e = errno;
	(void)closedir(dir);
	errno = e;
	if (n < 0)
		return (-1);
	if (order != NULL && n > 1)
		qsort(list, (size_t)n, sizeof(*list), (int (*)(const void *, const void *))order);
	*out = list;
	return ((int)n);
}
int	scandir64(const char *path, struct dirent64 ***out, int (*want)(const struct dirent64 *), int (*order)(const struct dirent64 **, const struct dirent64 **));
PL_EXPORT int
scandir64(const char *path, struct dirent64 ***out, int (*want)(const struct dirent64 *), int (*order)(const struct dirent64 **, const struct dirent64 **))
{
	return (scandir(path, (struct dirent ***)out, (int (*)(const struct dirent *))want,
	    (int (*)(const struct dirent **, const struct dirent **))order));
}
