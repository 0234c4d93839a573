/*
 * What the files of the preload library share. All of it runs in the threads of somebody else's program, between a call of his and libc.
 */
#ifndef MKV_CLIENTS_PRELOAD_PRELOAD_PRIV_H
#define MKV_CLIENTS_PRELOAD_PRELOAD_PRIV_H

#include <dirent.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/statvfs.h>
#include <sys/types.h>
#include <sys/uio.h>

#include <memkv/memkv.h>

/* A name that programs find instead of libc's. */
#define PL_EXPORT	__attribute__((visibility("default")))
/* X64 is X: off_t has 64 bits wherever this is built. */
#define PL_ALIAS(name)	__attribute__((visibility("default"), alias(#name)))
_Static_assert(sizeof(off_t) == 8, "open64 and open are one");

/* The functions of libc behind ours. */
struct mkv_pl_real {
#define PL_CALL(ret, name, params)	ret (*name) params;
#include "clients/preload/calls.def"
#undef PL_CALL
};
const struct mkv_pl_real *mkv_pl_real(void);
#define REAL(name)	(mkv_pl_real()->name)

/* libc's headers promise that no path is NULL; its callers did not. */
static inline bool
mkv_pl_is_null(const char *path)
{
	const char *volatile p = path;

	return (p == NULL);
}

/* ---- Names (path.c) ---------------------------------------------------------------------------------------------------------- */

enum mkv_pl_what {
	MKV_PL_OUTSIDE,		/* not ours: the real call, which also says what is wrong with it */
	MKV_PL_DIR,		/* a real directory at or below a prefix; key: what its objects' keys begin with, without the slash */
	MKV_PL_KEY,		/* an object's name, whether the object is there or not */
	MKV_PL_ERROR,		/* errno says why */
};

struct mkv_pl_name {
	size_t	key_bytes;
	char	key[MEMKV_KEY_MAX + 1];
	dev_t	dev;		/* of the anchor: what a stat of the object says */
};

/* Reads the colon list; before anything else, once. text NULL: nothing is ours. */
void	mkv_pl_path_init(const char *text);
bool	mkv_pl_path_any(void);
enum mkv_pl_what mkv_pl_resolve(int dirfd, const char *path, struct mkv_pl_name *out);
uint64_t mkv_pl_name_ino(const char *key, size_t key_bytes);

/* ---- The store (store.c) ------------------------------------------------------------------------------------------------------ */

/* Which one of those that were ever put under a name. */
struct mkv_pl_version {
	uint64_t bytes, put_id;
};

/* All return 0, or -1 with errno; never later than the deadline of MEMKV_PRELOAD_DEADLINE (a list: for each page). */
int	mkv_pl_store_stat(const struct mkv_pl_name *n, struct mkv_object *obj);
/* All of [off, off + bytes) of the object that v tells of; ESTALE: it is another by now. put_id 0 is any, and is told then. */
int	mkv_pl_store_get(const struct mkv_pl_name *n, struct mkv_pl_version *v, uint64_t off, void *to, size_t bytes);
int	mkv_pl_store_put(const struct mkv_pl_name *n, const void *from, size_t bytes, unsigned flags);
int	mkv_pl_store_delete(const struct mkv_pl_name *n);
int	mkv_pl_store_list(const char *prefix, size_t prefix_bytes, mkv_list_fn *fn, void *arg);
int	mkv_pl_store_space(uint64_t *total_bytes, uint64_t *used_bytes);
int	mkv_pl_store_ready(void);		/* there is a handle; it need not be connected */
bool	mkv_pl_store_inside(void);		/* this thread is in a call of libmemkv: its calls are not looked at */
void	mkv_pl_store_init(void);
void	mkv_pl_store_forked(void);		/* in the child: the next call makes a handle of its own */
void	mkv_pl_stats_write(void);

/* ---- Open objects (object.c) -------------------------------------------------------------------------------------------------- */

struct mkv_pl_object;

/* The object behind a descriptor, held until mkv_pl_object_drop(); NULL: not ours. Keeps errno. */
struct mkv_pl_object *mkv_pl_object_of(int fd);
struct mkv_pl_object *mkv_pl_object_written(int fd);		/* the same for a write, also of a signal handler within a call of libmemkv */
/* The object that a writer of this process has open under a name; NULL: none. */
struct mkv_pl_object *mkv_pl_object_named(const struct mkv_pl_name *n);
void	mkv_pl_object_drop(struct mkv_pl_object *o);
bool	mkv_pl_object_mine(void);		/* false: a child of vfork(), in its parent's memory */
bool	mkv_pl_object_streams(void);		/* some object has a FILE * of libc's own over it */
bool	mkv_pl_object_none(void);		/* no descriptor of this process can be ours */

int	mkv_pl_object_open(const struct mkv_pl_name *n, int flags);		/* a descriptor, or -1 */
int	mkv_pl_object_standard(struct mkv_pl_object *o, int fd);		/* it has got this number; 0, or -1 with errno */
int	mkv_pl_object_fill(struct mkv_pl_object *o);				/* its bytes are in the memfd: 0, or -1 */
/* A read by a descriptor of it: as preadv(), or readv() with off -1. Fetches no more than a reader needs. */
ssize_t	mkv_pl_object_read(struct mkv_pl_object *o, int fd, const struct iovec *iov, int n, off_t off);
void	mkv_pl_object_settle(struct mkv_pl_object *o);		/* a commit after it leaves no doubt, for who closes it when the client has ended */
int	mkv_pl_object_commit(struct mkv_pl_object *o, unsigned put_flags);	/* what is dirty is in the store */
void	mkv_pl_object_hold(struct mkv_pl_object *o, bool *already);		/* nothing of it is on the way, until it is released */
void	mkv_pl_object_release(struct mkv_pl_object *o, bool already, bool changed);
void	mkv_pl_object_mapped(struct mkv_pl_object *o, bool writable);
void	mkv_pl_object_stream(struct mkv_pl_object *o, int plus);		/* a FILE * of libc's own over it began or ends */
void	mkv_pl_object_forget_bytes(struct mkv_pl_object *o);			/* clean bytes are dropped, and fetched again when they are read */
int	mkv_pl_object_truncate(struct mkv_pl_object *o, int fd, off_t size);	/* never while its bytes are on the way */
/* At the store too. 0, or -1 with errno: nothing has changed, or both names are there; 1: it has not that name any more. */
int	mkv_pl_object_rename(struct mkv_pl_object *o, const struct mkv_pl_name *from, const struct mkv_pl_name *to);
/* The name is about to be removed or replaced: who reads it in this process goes on with what he began with. */
void	mkv_pl_object_keep(const struct mkv_pl_name *n);
int	mkv_pl_object_unlink(struct mkv_pl_object *o, const struct mkv_pl_name *n);	/* and it will not be committed any more */
int	mkv_pl_object_stat(struct mkv_pl_object *o, struct stat *st);
/*
 * fd is about to end, by end(arg): if it is the last one, what is dirty is committed first and the object is forgotten after.
 * *result is end()'s. Returns 0, or -1 with errno: the commit failed; end() has been called all the same.
 */
int	mkv_pl_object_leave(struct mkv_pl_object *o, int fd, int (*end)(void *), void *arg, int *result);
bool	mkv_pl_object_is_inner(struct mkv_pl_object *o, int fd);		/* the library's own descriptor of it */
void	mkv_pl_object_stat_of(const struct mkv_pl_name *n, uint64_t bytes, uint64_t wall_ms, struct stat *st);
void	mkv_pl_object_end_all(void);						/* the process ends: what is dirty is committed */
void	mkv_pl_object_adopt_all(void);						/* what the program before exec() left open */

void	mkv_pl_end(bool flush);							/* the program ends: commit what is dirty, say what was counted */

/* ---- memfd (memfd.c) ---------------------------------------------------------------------------------------------------------- */

#define MKV_PL_MEMFD_HEAD	"memkv:"
/* The kernel's limit for the name of a memfd, less our head and its mark. */
#define MKV_PL_MEMFD_KEY_MAX	224u	/* and in object_make() */
int	mkv_pl_memfd(const char *name);			/* a high number, close-on-exec; -1 with errno */
bool	mkv_pl_memfd_is_adopted(const struct stat *st);	/* a program after exec() has it too */
void	mkv_pl_memfd_adopt(int fd);			/* and this is one */
bool	mkv_pl_memfd_key(const char *link, struct mkv_pl_name *n, bool *writable, uint64_t *put_id);	/* of the link in /proc; false: not ours */

/* ---- Between the hooks --------------------------------------------------------------------------------------------------------- */

void	mkv_pl_dir_init(void);
void	mkv_pl_stream_init(void);
bool	mkv_pl_stream_any(void);	/* a stream of ours is open: it may have what is not written yet */
/* 0, or -1 with errno, of any name below a prefix. */
int	mkv_pl_name_stat(const struct mkv_pl_name *n, struct stat *st);

#endif
