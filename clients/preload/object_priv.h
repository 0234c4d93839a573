/*
 * An open object, as the files that look after it see it: object.c (which there are, and their names), bytes.c (what they hold).
 */
#ifndef MKV_CLIENTS_PRELOAD_OBJECT_PRIV_H
#define MKV_CLIENTS_PRELOAD_OBJECT_PRIV_H

#include <time.h>

#include "clients/preload/preload_priv.h"

struct mkv_pl_object {
	struct mkv_pl_object *next;
	unsigned	refs;		/* table_mutex */
	ino_t		ino;		/* of the memfd; constant, as are dev, fd, writable */
	dev_t		dev;
	int		fd;
	bool		writable;
	pthread_mutex_t	mutex;		/* for all below */
	struct mkv_pl_name name;	/* read under table_mutex too, written under both */
	const struct mkv_pl_name *leaving;	/* as name: the old one, while it is renamed */
	bool		gone;		/* unlinked or replaced: nothing is committed any more; written under both */
	bool		filled;		/* the memfd holds the bytes; else only the size is right, and the blocks that there[] names */
	_Atomic bool	shared;		/* with a process that was forked: filled as a whole, and never emptied; never becomes false */
	uint64_t	*there;		/* a bit for each block; NULL: none */
	struct mkv_pl_version version;	/* of those bytes; put_id 0: nobody has seen any yet */
	off_t		next_off;	/* where the last read ended */
	off_t		read_to;	/* all before has been read */
	uint64_t	ahead_blocks;	/* what a reader who goes on from there gets in advance */
	bool		dirty;
	bool		fresh;		/* opened with O_EXCL and never committed */
	bool		loose;		/* committed by a rename or a close: an fsync after it has to put it on the drive */
	bool		foreign;	/* came from the process before fork() or exec(): its own writes are not ours to commit */
	bool		mapped, mapped_writable;
	bool		left;		/* out of the table: no descriptor may be made of it any more */
	_Atomic unsigned streams;	/* FILE * over it, whose writes nobody sees; read without the mutex when the program ends */
	uint64_t	wall_ms;	/* of the put that it was read from */
	struct timespec	seen_mtime;	/* mtime and size when it was last known to be clean */
	off_t		seen_size;
	bool		seen_close;	/* that was within a tick of the mtime */
};

/* Our own descriptor's; -1: the program has closed it by a way that we do not see, and put another file there (EIO). */
int	mkv_pl_inner_stat(const struct mkv_pl_object *o, struct stat *st);
void	mkv_pl_object_lock(struct mkv_pl_object *o);
void	mkv_pl_object_unlock(struct mkv_pl_object *o);

/* o->mutex is held in all of these. */
int	mkv_pl_bytes_fill(struct mkv_pl_object *o);			/* all of them are in the memfd: 0, or -1 */
int	mkv_pl_bytes_commit(struct mkv_pl_object *o, unsigned put_flags);
void	mkv_pl_bytes_seen(struct mkv_pl_object *o);			/* what is there now is what is known of */
void	mkv_pl_bytes_stream_end(struct mkv_pl_object *o);		/* one of libc's own; it has been flushed if it is one of the program's */

#endif
