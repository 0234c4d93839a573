/*
 * Objects that the program has open: which there are, under which names, and when they come and go.
 *
 * Any thread of the program. The table (table_mutex) owns an object until its last descriptor is closed; whoever uses it meanwhile holds a reference.
 * o->mutex is held over a transfer of that object, table_mutex never. An object is known by the inode of its memfd: descriptor numbers are the
 * program's, and duplicates of them arise where nobody tells us.
 * Fails: memory and descriptors (errno of the kernel), the store's errors. A commit that fails leaves the object dirty.
 */
#include "config.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "clients/preload/object_priv.h"

/* Others may come between each time; servers that do not agree never end. */
#define OPEN_TRIES_MAX	100u

static struct mkv_pl_object *table;
static _Atomic unsigned table_count;
static pthread_mutex_t table_mutex = PTHREAD_MUTEX_INITIALIZER;
static pid_t table_pid;

/* ---- The table ---------------------------------------------------------------------------------------------------------------- */

/* Our own descriptor, unless the program has closed it by a way that we do not see and put another file there. */
int
mkv_pl_inner_stat(const struct mkv_pl_object *o, struct stat *st)
{
	if (REAL(fstat)(o->fd, st) == 0 && st->st_ino == o->ino && st->st_dev == o->dev)
		return (0);
	errno = EIO;
	return (-1);
}

static void
object_free(struct mkv_pl_object *o)
{
	struct stat st;

	if (mkv_pl_inner_stat(o, &st) == 0)
		(void)REAL(close)(o->fd);
	(void)pthread_mutex_destroy(&o->mutex);
	free(o->there);
	free(o);
}

void
mkv_pl_object_drop(struct mkv_pl_object *o)
{
	int e = errno;
	bool last;

	(void)pthread_mutex_lock(&table_mutex);
	last = --o->refs == 0;
	(void)pthread_mutex_unlock(&table_mutex);
	if (last)
		object_free(o);
	errno = e;
}

/* After vfork() a child runs in our memory until it calls exec: its descriptors are not ours. */
static bool
table_is_ours(void)
{
	return (atomic_load_explicit(&table_count, memory_order_relaxed) != 0 && !mkv_pl_store_inside() && getpid() == table_pid);
}

bool
mkv_pl_object_mine(void)
{
	return (getpid() == table_pid);
}

bool
mkv_pl_object_none(void)
{
	return (!table_is_ours());
}

struct mkv_pl_object *
mkv_pl_object_of(int fd)
{
	return (mkv_pl_store_inside() ? NULL : mkv_pl_object_written(fd));
}

struct mkv_pl_object *
mkv_pl_object_written(int fd)
{
	struct mkv_pl_object *o = NULL;
	int e = errno;
	struct stat st;

	if (fd < 0 || atomic_load_explicit(&table_count, memory_order_relaxed) == 0 || getpid() != table_pid)
		return (NULL);
	if (REAL(fstat)(fd, &st) == 0 && S_ISREG(st.st_mode)) {
		(void)pthread_mutex_lock(&table_mutex);
		for (o = table; o != NULL && (o->ino != st.st_ino || o->dev != st.st_dev); o = o->next)
			;
		if (o != NULL)
			o->refs++;
		(void)pthread_mutex_unlock(&table_mutex);
	}
	errno = e;
	return (o);
}

static bool
is_same(const struct mkv_pl_name *a, const struct mkv_pl_name *b)
{
	return (a->key_bytes == b->key_bytes && memcmp(a->key, b->key, b->key_bytes) == 0);
}

static bool
is_named(const struct mkv_pl_object *o, const struct mkv_pl_name *n)
{
	return (!o->gone && (is_same(&o->name, n) || (o->leaving != NULL && is_same(o->leaving, n))));
}

struct mkv_pl_object *
mkv_pl_object_named(const struct mkv_pl_name *n)
{
	struct mkv_pl_object *o;

	if (!table_is_ours())
		return (NULL);
	(void)pthread_mutex_lock(&table_mutex);
	for (o = table; o != NULL && !(o->writable && is_named(o, n)); o = o->next)
		;
	if (o != NULL)
		o->refs++;
	(void)pthread_mutex_unlock(&table_mutex);
	return (o);
}

/* false: a writer of this process has opened the name meanwhile, and there is one memfd for all of them; o stays the caller's. */
static bool
table_add(struct mkv_pl_object *o)
{
	struct mkv_pl_object *other;

	(void)pthread_mutex_lock(&table_mutex);
	for (other = o->writable && !o->foreign ? table : NULL; other != NULL && !(other->writable && is_named(other, &o->name)); other = other->next)
		;
	if (other == NULL) {
		o->refs = 2;		/* the table's and the caller's */
		o->next = table;
		table = o;
		atomic_fetch_add(&table_count, 1);
	}
	(void)pthread_mutex_unlock(&table_mutex);
	return (other == NULL);
}

/* The last descriptor is closed. o->mutex is held. */
static void
table_remove(struct mkv_pl_object *o)
{
	struct mkv_pl_object **at;

	(void)pthread_mutex_lock(&table_mutex);
	for (at = &table; *at != NULL && *at != o; at = &(*at)->next)
		;
	if (*at == o) {
		*at = o->next;
		o->refs--;		/* the caller has another */
		o->left = true;
		atomic_fetch_sub(&table_count, 1);
	}
	(void)pthread_mutex_unlock(&table_mutex);
}

/* What this thread has locked; set before and cleared after, for its signal handlers. It cannot be cancelled meanwhile: nobody would unlock. */
static __thread const struct mkv_pl_object *held;
static __thread unsigned held_depth;	/* a handler may lock another */
static __thread int held_cancel;

static void
held_begin(const struct mkv_pl_object *o)
{
	if (held_depth++ == 0)
		(void)pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &held_cancel);
	held = o;
}

void
mkv_pl_object_lock(struct mkv_pl_object *o)
{
	held_begin(o);
	(void)pthread_mutex_lock(&o->mutex);
}

void
mkv_pl_object_unlock(struct mkv_pl_object *o)
{
	(void)pthread_mutex_unlock(&o->mutex);
	held = NULL;
	if (held_depth == 1)
		(void)pthread_setcancelstate(held_cancel, NULL);
	held_depth--;
}

/*
 * A signal handler may write to what its thread was about to commit, or while it is in a call of the client, whose locks it may hold: then nothing is
 * waited for. *already: what release wants back.
 */
void
mkv_pl_object_hold(struct mkv_pl_object *o, bool *already)
{
	*already = mkv_pl_store_inside() || held == o;
	if (!*already)
		mkv_pl_object_lock(o);
}

void
mkv_pl_object_release(struct mkv_pl_object *o, bool already, bool changed)
{
	o->dirty = o->dirty || changed;
	if (!already)
		mkv_pl_object_unlock(o);
}

/* All that are open now, each held, or those that only read the name n. NULL: none, or no memory. */
static struct mkv_pl_object **
table_all(const struct mkv_pl_name *n, unsigned *count)
{
	struct mkv_pl_object **all = NULL, *o;

	*count = 0;
	(void)pthread_mutex_lock(&table_mutex);
	for (o = table; o != NULL; o = o->next) {
		if (n != NULL && (o->writable || !is_named(o, n)))
			continue;
		if (all == NULL && (all = calloc(atomic_load(&table_count), sizeof(struct mkv_pl_object *))) == NULL)
			break;
		o->refs++;
		all[(*count)++] = o;
	}
	(void)pthread_mutex_unlock(&table_mutex);
	return (all);
}

/*
 * One that was not read to its end; if the rest cannot be fetched, that shows when it is read. held stays what it is: the object that is put or
 * renamed, which a signal handler may write to, as it cannot to this one.
 */
static void
keep(struct mkv_pl_object *o)
{
	(void)pthread_mutex_lock(&o->mutex);
	if ((uint64_t)o->read_to < o->version.bytes)
		(void)mkv_pl_bytes_fill(o);
	(void)pthread_mutex_unlock(&o->mutex);
}

void
mkv_pl_object_keep(const struct mkv_pl_name *n)
{
	struct mkv_pl_object **all;
	int e = errno, cancel;
	unsigned i, count;

	(void)pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &cancel);
	if ((all = table_all(n, &count)) != NULL)
		for (i = 0; i < count; i++) {
			keep(all[i]);
			mkv_pl_object_drop(all[i]);
		}
	free(all);
	(void)pthread_setcancelstate(cancel, NULL);
	errno = e;
}

/* ---- Names ---------------------------------------------------------------------------------------------------------------------- */

static void
name_change(struct mkv_pl_object *o, const struct mkv_pl_name *to, const struct mkv_pl_name *leaving)
{
	(void)pthread_mutex_lock(&table_mutex);
	o->name = *to;
	o->leaving = leaving;
	(void)pthread_mutex_unlock(&table_mutex);
}

static void
set_gone(struct mkv_pl_object *o)
{
	(void)pthread_mutex_lock(&table_mutex);
	o->gone = true;
	(void)pthread_mutex_unlock(&table_mutex);
}

/* A delete of what was never committed has nothing to do. */
static int
store_delete(const struct mkv_pl_name *n)
{
	int r, e = errno;

	mkv_pl_object_keep(n);
	if ((r = mkv_pl_store_delete(n)) != 0 && errno == ENOENT) {
		errno = e;
		r = 0;
	}
	return (r);
}

/* The mutexes of o and of what is replaced (or NULL) are held: nobody commits, or begins anew, under one of the names before both are right. */
static int
rename_held(struct mkv_pl_object *o, const struct mkv_pl_name *from, const struct mkv_pl_name *to, struct mkv_pl_object *replaced)
{
	bool fresh = o->fresh;
	int r;

	name_change(o, to, from);
	o->dirty = true;
	o->fresh = false;
	if ((r = mkv_pl_bytes_commit(o, 0)) != 0) {
		o->fresh = fresh;
	} else {
		if (replaced != NULL && is_named(replaced, to))
			set_gone(replaced);
		r = store_delete(from);
	}
	name_change(o, o->dirty ? from : to, NULL);
	return (r);
}

int
mkv_pl_object_rename(struct mkv_pl_object *o, const struct mkv_pl_name *from, const struct mkv_pl_name *to)
{
	struct mkv_pl_object *replaced = mkv_pl_object_named(to), *first = replaced != NULL && replaced < o ? replaced : o;
	int r = 1;

	/* In the order of their addresses: another thread may rename the other way. */
	held_begin(o);
	(void)pthread_mutex_lock(&first->mutex);
	if (replaced != NULL && replaced != o)
		(void)pthread_mutex_lock(&(first == o ? replaced : o)->mutex);
	if (!o->left && replaced != o && is_named(o, from))
		r = rename_held(o, from, to, replaced);
	if (replaced != NULL && replaced != o)
		(void)pthread_mutex_unlock(&replaced->mutex);
	mkv_pl_object_unlock(o);
	if (replaced != NULL)
		mkv_pl_object_drop(replaced);
	return (r);
}

int
mkv_pl_object_unlink(struct mkv_pl_object *o, const struct mkv_pl_name *n)
{
	int r = 1;

	mkv_pl_object_lock(o);
	if (!o->left && is_named(o, n) && (r = store_delete(n)) == 0)
		set_gone(o);
	mkv_pl_object_unlock(o);
	return (r);
}

/* ---- Opening -------------------------------------------------------------------------------------------------------------------- */

static struct mkv_pl_object *
object_new(const struct mkv_pl_name *n, int fd, bool writable)
{
	struct mkv_pl_object *o = calloc(1, sizeof(*o));
	struct stat st;

	if (o == NULL || REAL(fstat)(fd, &st) != 0) {
		free(o);
		return (NULL);
	}
	(void)pthread_mutex_init(&o->mutex, NULL);
	o->fd = fd;
	o->ino = st.st_ino;
	o->dev = st.st_dev;
	o->writable = writable;
	o->name = *n;
	return (o);
}

/* The key is in the memfd's name, and which put it was opened as: so a program after exec() knows what it has been given. */
static struct mkv_pl_object *
object_make(const struct mkv_pl_name *n, bool writable, uint64_t put_id)
{
	struct mkv_pl_object *o;
	char name[256];
	int fd;

	(void)snprintf(name, sizeof(name), MKV_PL_MEMFD_HEAD "%c%016llx:%.224s", n->key_bytes > MKV_PL_MEMFD_KEY_MAX ? '-' : writable ? 'w' : 'r',
	    (unsigned long long)put_id, n->key);
	if ((fd = mkv_pl_memfd(name)) < 0)
		return (NULL);
	if ((o = object_new(n, fd, writable)) == NULL)
		(void)REAL(close)(fd);
	return (o);
}

/* A descriptor with an offset and an access mode of its own. */
static int
object_fd(const struct mkv_pl_object *o, int flags)
{
	char path[64];
	struct stat st;

	if (mkv_pl_inner_stat(o, &st) != 0)
		return (-1);
	(void)snprintf(path, sizeof(path), "/proc/thread-self/fd/%d", o->fd);
	return (REAL(open)(path, flags & (O_ACCMODE | O_CLOEXEC | O_APPEND | O_NONBLOCK)));
}

/* What the store says of the name, against what open() was asked to do. 1: it is there. */
static int
open_look(const struct mkv_pl_name *n, int flags, struct mkv_object *obj)
{
	int r = mkv_pl_store_stat(n, obj);

	if (r != 0 && (errno != ENOENT || (flags & O_CREAT) == 0))
		return (-1);
	if (r == 0 && (flags & O_CREAT) != 0 && (flags & O_EXCL) != 0) {
		errno = EEXIST;
		return (-1);
	}
	return (r == 0);
}

/* The object's first state: empty and dirty, or the size of what is in the store. */
static int
object_begin(struct mkv_pl_object *o, int flags, bool there, const struct mkv_object *obj)
{
	o->dirty = o->writable && (!there || (flags & O_TRUNC) != 0);
	o->fresh = o->writable && !there && (flags & O_EXCL) != 0;
	o->filled = o->dirty;
	if (o->dirty)
		return (0);
	o->wall_ms = obj->put_wall_ms;
	o->version.bytes = obj->value_bytes;
	if (REAL(ftruncate)(o->fd, (off_t)obj->value_bytes) != 0)
		return (-1);
	/* A program after exec() could not say which object it has: its bytes are there from the start. */
	return (o->writable || o->name.key_bytes > MKV_PL_MEMFD_KEY_MAX ? mkv_pl_bytes_fill(o) : 0);
}

/* false: as table_add(), or another client has replaced it between the look and the get. */
static bool
open_new(const struct mkv_pl_name *n, int flags, int *opened)
{
	bool writable = (flags & O_ACCMODE) != O_RDONLY;
	struct mkv_object obj = { .size = sizeof(obj) };
	struct mkv_pl_object *o;
	int there = 0, fd = -1;

	*opened = -1;
	/* Whether something lies there matters to all but who replaces it whole. */
	if ((!writable || (flags & O_TRUNC) == 0 || (flags & O_CREAT) == 0 || (flags & O_EXCL) != 0) && (there = open_look(n, flags, &obj)) < 0)
		return (true);
	/* open(O_CREAT | O_RDONLY) of what is not there makes it, and that is a write. */
	if ((o = object_make(n, writable || !there, obj.put_id)) == NULL)
		return (true);
	if (object_begin(o, flags, there != 0, &obj) == 0)
		fd = object_fd(o, flags);
	if (fd < 0 || !table_add(o)) {
		int e = errno;

		if (fd >= 0)
			(void)REAL(close)(fd);
		object_free(o);
		errno = e;
		return (fd < 0 && e != ESTALE);
	}
	mkv_pl_object_drop(o);
	*opened = fd;
	return (true);
}

/* Another descriptor of what a writer of this process has open. false: he has closed, renamed or removed it meanwhile. */
static bool
open_again(struct mkv_pl_object *o, const struct mkv_pl_name *n, int flags, int *fd)
{
	bool left;

	*fd = -1;
	mkv_pl_object_lock(o);
	left = o->left || !is_named(o, n);
	if (!left && (flags & O_CREAT) != 0 && (flags & O_EXCL) != 0) {
		errno = EEXIST;
	} else if (!left && (*fd = object_fd(o, flags)) >= 0 && (flags & O_TRUNC) != 0 && REAL(ftruncate)(o->fd, 0) == 0) {
		o->dirty = true;
	}
	mkv_pl_object_unlock(o);
	return (!left);
}

/* fd has become one of the standard numbers: libc's own streams read and write it without our knowing. */
int
mkv_pl_object_standard(struct mkv_pl_object *o, int fd)
{
	if (fd < STDIN_FILENO || fd > STDERR_FILENO)
		return (0);
	mkv_pl_object_stream(o, 1);
	return (mkv_pl_object_fill(o));
}

static int
opened(int fd)
{
	struct mkv_pl_object *o = fd >= 0 && fd <= STDERR_FILENO ? mkv_pl_object_of(fd) : NULL;
	int r, e;

	if (o == NULL)
		return (fd);
	if ((r = mkv_pl_object_standard(o, fd)) != 0) {
		e = errno;
		(void)close(fd);
		errno = e;
	}
	mkv_pl_object_drop(o);
	return (r == 0 ? fd : -1);
}

int
mkv_pl_object_open(const struct mkv_pl_name *n, int flags)
{
	struct mkv_pl_object *o;
	unsigned tries = 0;
	bool done;
	int fd;

	/* A child that nobody told us of (vfork, clone) shares our memory, or has no thread of the client: it would read what nobody fills. */
	if ((flags & O_DIRECTORY) != 0 || !mkv_pl_object_mine()) {
		errno = (flags & O_DIRECTORY) != 0 ? ENOTDIR : ENOTSUP;
		return (-1);
	}
	if (mkv_pl_store_ready() != 0)
		return (-1);
	do {
		if ((o = mkv_pl_object_named(n)) == NULL) {
			done = open_new(n, flags, &fd);
			continue;
		}
		done = open_again(o, n, flags, &fd);
		mkv_pl_object_drop(o);
	} while (!done && ++tries < OPEN_TRIES_MAX);
	return (opened(fd));
}

/* ---- Stat ----------------------------------------------------------------------------------------------------------------------- */

int
mkv_pl_object_stat(struct mkv_pl_object *o, struct stat *st)
{
	struct mkv_pl_name n;
	struct stat raw;

	if (mkv_pl_inner_stat(o, &raw) != 0)
		return (-1);
	(void)pthread_mutex_lock(&table_mutex);
	n = o->name;
	(void)pthread_mutex_unlock(&table_mutex);
	mkv_pl_object_stat_of(&n, (uint64_t)raw.st_size, o->wall_ms, st);
	if (o->writable)
		st->st_mtim = st->st_ctim = st->st_atim = raw.st_mtim;
	return (0);
}

/* ---- Closing -------------------------------------------------------------------------------------------------------------------- */

bool
mkv_pl_object_is_inner(struct mkv_pl_object *o, int fd)
{
	return (o->fd == fd);
}

/* Is there no descriptor of it in this process but fd and our own? In doubt there is. */
static bool
is_last(const struct mkv_pl_object *o, int fd)
{
	struct dirent *d;
	struct stat st;
	bool last = true;
	DIR *dir;

	if ((dir = REAL(opendir)("/proc/thread-self/fd")) == NULL)
		return (false);
	while (last && (d = REAL(readdir)(dir)) != NULL) {
		int n = atoi(d->d_name);

		if (d->d_name[0] == '.' || n == fd || n == o->fd)
			continue;
		last = REAL(fstat)(n, &st) != 0 || st.st_ino != o->ino || st.st_dev != o->dev;
	}
	(void)REAL(closedir)(dir);
	return (last);
}

int
mkv_pl_object_leave(struct mkv_pl_object *o, int fd, int (*end)(void *), void *arg, int *result)
{
	int r = 0, e = errno;
	bool last;

	mkv_pl_object_lock(o);
	last = is_last(o, fd);
	if (fd >= STDIN_FILENO && fd <= STDERR_FILENO)
		mkv_pl_bytes_stream_end(o);
	if (last && (r = mkv_pl_bytes_commit(o, 0)) != 0)
		e = errno;
	*result = end(arg);
	if (*result < 0 && r == 0)
		e = errno;
	if (last && is_last(o, -1))		/* dup2() may have failed */
		table_remove(o);
	mkv_pl_object_unlock(o);
	errno = e;
	return (r);
}

bool
mkv_pl_object_streams(void)
{
	struct mkv_pl_object *o;

	(void)pthread_mutex_lock(&table_mutex);
	for (o = table; o != NULL && o->streams == 0; o = o->next)
		;
	(void)pthread_mutex_unlock(&table_mutex);
	return (o != NULL);
}

void
mkv_pl_object_end_all(void)
{
	struct mkv_pl_object **all;
	unsigned i, count;

	if (!table_is_ours() || (all = table_all(NULL, &count)) == NULL)
		return;
	for (i = 0; i < count; i++) {
		mkv_pl_object_settle(all[i]);
		(void)mkv_pl_object_commit(all[i], 0);
		mkv_pl_object_drop(all[i]);
	}
	free(all);
}

/* ---- Other processes -------------------------------------------------------------------------------------------------------------- */

static void
fork_before(void)
{
	(void)pthread_mutex_lock(&table_mutex);
}

/* Offsets are shared from now on, and the other may read what this one has not fetched. */
static void
share_all(void)
{
	struct mkv_pl_object *o;

	for (o = table; o != NULL; o = o->next)
		o->shared = true;
}

static void
fork_parent(void)
{
	share_all();
	(void)pthread_mutex_unlock(&table_mutex);
}

/* Alone, with a copy of everything: what the parent has written is the parent's to commit. */
static void
fork_child(void)
{
	struct mkv_pl_object *o;

	(void)pthread_mutex_init(&table_mutex, NULL);
	table_pid = getpid();
	share_all();
	for (o = table; o != NULL; o = o->next) {
		(void)pthread_mutex_init(&o->mutex, NULL);
		o->foreign = true;
		o->dirty = false;
		o->streams = 0;		/* what goes by them the parent sees and commits */
	}
	mkv_pl_store_forked();
}

/* libc's own streams would read zeros. */
static void
unreadable(int fd)
{
	int none = REAL(open)("/dev/null", O_WRONLY | O_CLOEXEC);

	if (none < 0 || REAL(dup2)(none, fd) < 0)
		(void)REAL(close)(fd);
	if (none >= 0)
		(void)REAL(close)(none);
}

/*
 * A memfd of ours that the program before exec() left open. It was filled when it was duplicated onto its number; one with holes was not (by a child of
 * vfork, which has no client), and is filled when it is read, or now if libc has a stream for its number.
 */
static void
adopt(const char *path, int fd, const char *link)
{
	struct mkv_pl_name n = { .key_bytes = 0 };
	struct mkv_pl_object *o;
	uint64_t put_id;
	struct stat st;
	bool writable;
	int inner;

	if (!mkv_pl_memfd_key(link, &n, &writable, &put_id))
		return;
	if ((o = mkv_pl_object_of(fd)) != NULL) {
		mkv_pl_object_drop(o);
		return;
	}
	if ((inner = REAL(open)(path, O_RDWR | O_CLOEXEC)) < 0)
		return;
	if (REAL(fstat)(inner, &st) != 0 || (o = object_new(&n, inner, writable)) == NULL) {
		(void)REAL(close)(inner);
		return;
	}
	mkv_pl_memfd_adopt(inner);		/* before the look for holes: none is made after */
	o->foreign = true;
	o->shared = true;
	o->version = (struct mkv_pl_version){ .bytes = (uint64_t)st.st_size, .put_id = put_id };
	o->filled = writable || REAL(lseek)(inner, 0, SEEK_HOLE) >= st.st_size;
	o->streams = 1;
	mkv_pl_bytes_seen(o);
	(void)table_add(o);
	if (fd <= STDERR_FILENO && mkv_pl_object_fill(o) != 0)
		unreadable(fd);
	mkv_pl_object_drop(o);
}

void
mkv_pl_object_adopt_all(void)
{
	char path[64], link[512];
	struct dirent *d;
	ssize_t n;
	DIR *dir;

	table_pid = getpid();
	(void)pthread_atfork(fork_before, fork_parent, fork_child);
	if (!mkv_pl_path_any() || (dir = REAL(opendir)("/proc/self/fd")) == NULL)
		return;
	while ((d = REAL(readdir)(dir)) != NULL) {
		(void)snprintf(path, sizeof(path), "/proc/self/fd/%.20s", d->d_name);
		if ((n = readlink(path, link, sizeof(link) - 1)) <= 0)
			continue;
		link[n] = '\0';
		adopt(path, atoi(d->d_name), link);
	}
	(void)REAL(closedir)(dir);
}
