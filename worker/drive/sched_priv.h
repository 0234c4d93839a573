/*
 * Whose turn it is at the medium: the classes of I/O (common/tbl/ioclasses.def) and how they share it. Inside of the engine; see sched.c and
 * docs/internals/io-classes.md.
 *
 * All that the engine asks of its medium while it serves goes through sched_read(), sched_write() and sched_flush(). Background work asks
 * sched_may() first, piece by piece; what does not go through the medium (a thread's call) says sched_begin() and sched_end() itself.
 */
#ifndef MKV_DRIVE_SCHED_PRIV_H
#define MKV_DRIVE_SCHED_PRIV_H

#include <stdint.h>

#include "worker/drive/media.h"

struct mkv_engine;
struct mkv_req;

enum mkv_io_class {
#define MKV_IOCLASS(name, num, label, kind, share, patience_ms, text)	MKV_IO_##name = (num),
#include "common/tbl/ioclasses.def"
#undef MKV_IOCLASS
	MKV_IO_CLASSES
};

struct sched_class {
	uint32_t	in_flight;
	uint64_t	bytes;		/* in flight */
	uint64_t	credit;		/* background: bytes it may add while requests are under way */
	uint64_t	turn_ns;	/* background: its last turn; 0: it asked for none since it had nothing to do */
};

/* Transfers of requests, by how long they keep the medium: the first is served before the others. */
enum sched_queue_no { SCHED_SMALL, SCHED_LARGE, SCHED_WRITE, SCHED_QUEUES };

struct sched_queue {
	struct mkv_list	reqs;		/* by io_link */
	uint32_t	in_flight;	/* pieces */
	int64_t		deficit;	/* bytes of its share that it did not have yet; below 0: more than that */
};

struct sched_pace {			/* how long pieces take, small ones and large ones */
	uint64_t	floor_ns;	/* when nothing is in their way */
	uint64_t	sum_ns, n;	/* in this period */
};

struct sched {
	struct sched_class c[MKV_IO_CLASSES];
	struct sched_queue q[SCHED_QUEUES];
	struct sched_pace pace[2];
	uint32_t	piece_bytes;	/* the longest one of a large transfer */
	uint64_t	window_bytes;	/* requests' bytes under way, from where on large transfers wait */
	uint64_t	period_ns;	/* began */
	int		full;		/* the window made somebody wait in this period */
	uint64_t	front_ns;	/* when a request last had something under way */
	uint64_t	wake_ns;	/* somebody was told to wait: until then at most */
};

/*
 * May background work of this class issue so many bytes now? Asked again in later turns until it may: sched_next_ns() sees to them. Asking takes
 * nothing; what is issued after a yes is counted when it is given to the medium.
 */
int	sched_may(struct mkv_engine *e, enum mkv_io_class c, uint32_t bytes);
/* Work that is not given to the medium: begins, ends. As many bytes at the end as at the beginning. */
void	sched_begin(struct mkv_engine *e, enum mkv_io_class c, uint32_t bytes);
void	sched_end(struct mkv_engine *e, enum mkv_io_class c, uint32_t bytes);
/* The calls of the medium, counted. mio->done is set by the caller and stays set. */
void	sched_read(struct mkv_engine *e, enum mkv_io_class c, struct mkv_mio *mio, void *buf, uint32_t bytes, uint64_t off, int buf_idx);
void	sched_write(struct mkv_engine *e, enum mkv_io_class c, struct mkv_mio *mio, const void *buf, uint32_t bytes, uint64_t off, int buf_idx);
void	sched_flush(struct mkv_engine *e, enum mkv_io_class c, struct mkv_mio *mio);
/* A transfer of a request wants its turn: pieces are given to the medium, now or when others end. */
void	sched_queue(struct mkv_req *r);
void	sched_done(struct mkv_engine *e, const struct mkv_req *r, uint64_t took_ns);	/* one piece */
void	sched_pump(struct mkv_engine *e);
void	sched_init(struct mkv_engine *e);
/* The turn begins: who asks from here on is asked for again at sched_next_ns(). */
void	sched_turn(struct mkv_engine *e);
uint64_t sched_next_ns(const struct mkv_engine *e);
void	sched_gauges(struct mkv_engine *e);

#endif
