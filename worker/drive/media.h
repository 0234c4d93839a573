/*
 * What an engine asks of its medium: reads, writes and a flush, all completed from the loop, never from inside the call.
 *
 * media_file.c: a block device or a regular file by a completion queue (io_uring or helper threads, whichever the queue is).
 * media_memory.c: two shared memories, one for data and one for all the rest. Tests: media_sim.c.
 * Offsets and lengths are multiples of 4096 and so are addresses. A struct mkv_mio and the memory it names belong to the medium until `done` runs.
 */
#ifndef MKV_DRIVE_MEDIA_H
#define MKV_DRIVE_MEDIA_H

#include <stdint.h>

#include "common/base/ioq.h"
#include "common/base/list.h"

struct mkv_engine;
struct mkv_media;
struct mkv_mio;
typedef void	mkv_mio_fn(struct mkv_mio *m, int res);

struct mkv_mio {
	mkv_mio_fn	*done;			/* set by the caller; res: 0 or MKV_E_*, all bytes or none */
	/* The engine's scheduler's (sched.c), from the call to the completion. */
	struct mkv_engine *sched;
	mkv_mio_fn	*then;
	uint32_t	sched_bytes;
	unsigned	io_class;
	/* The rest is the medium's. Zero it before first use. */
	struct mkv_media *media;
	struct mkv_mio	*next;
	struct mkv_io	io;
	struct mkv_list	flight;
	uint64_t	begin_ns;
	uint32_t	bytes;
	int		res;
};

struct mkv_media_ops {
	void	(*read)(struct mkv_media *, struct mkv_mio *, void *buf, uint32_t bytes, uint64_t off, int buf_idx);
	void	(*write)(struct mkv_media *, struct mkv_mio *, const void *buf, uint32_t bytes, uint64_t off, int buf_idx);
	void	(*flush)(struct mkv_media *, struct mkv_mio *);
	/* Run completions that are there; may wait until until_ns for one. Returns how many, or MKV_E_*. */
	int	(*pump)(struct mkv_media *, uint64_t until_ns);
	/* Address of a range that processes share (memory medium); NULL otherwise. */
	void *	(*map)(struct mkv_media *, uint64_t off, uint64_t bytes);
	void	(*close)(struct mkv_media *);
	/* When the oldest request under way began, UINT64_MAX: none is. NULL: requests of this medium always end. */
	uint64_t (*oldest_ns)(struct mkv_media *);
	/*
	 * Nobody wants these bytes any more: the medium may forget them, on a thread of its own. Until the end they read as anything. One at a time.
	 * NULL, both: this medium forgets nothing.
	 */
	int	(*discard)(struct mkv_media *, uint64_t off, uint64_t bytes);	/* 0; MKV_E_*: not begun */
	int	(*discard_end)(struct mkv_media *, int *res);	/* 0: under way. 1: it ended, and the loop was woken for that */
};

struct mkv_media {
	uint32_t	magic;
	const struct mkv_media_ops *ops;
	const char	*name;			/* "io_uring", "threads", "memory" */
	uint64_t	total_bytes;
	uint64_t	meta_bytes;		/* memory: where the data begins; 0 elsewhere */
	int		shared;			/* readers may map the data: get answers with runs */
};

/* Regular file or block device: file is an index of ioq's registered files or MKV_FD(fd). Neither the queue nor the file is closed. */
int	mkv_media_file_open(struct mkv_media **out, struct mkv_ioq *q, int file, uint64_t bytes);
/*
 * This medium may discard, by fd: a block device by its own means, a file (punch) by holes, which are not reserved any more. The thread for it is made
 * at the first discard, in the jail of whoever asks; closing the medium waits for the one under way.
 */
void	mkv_media_file_may_discard(struct mkv_media *m, int fd, int punch);
/* Two shared memories; the descriptors stay the caller's. */
int	mkv_media_memory_open(struct mkv_media **out, int data_fd, uint64_t data_bytes, int meta_fd, uint64_t meta_bytes);
void	mkv_media_close(struct mkv_media **m);		/* accepts NULL */

#endif
