/*
 * A medium in the simulation: completes when the seed says, in any order; loses, keeps or tears what was not flushed when the power goes; reads back
 * wrong, fails, hangs or vanishes by choice. What a dead process had begun still lands. Tests only.
 */
#ifndef MKV_TESTS_SIM_DISK_H
#define MKV_TESTS_SIM_DISK_H

#include "worker/drive/media.h"

#define DISK_OPS_MAX	512u

/* What a power cut leaves of writes that no flush covers: chance says; all; nothing; some sectors of each. */
enum disk_cut { CUT_CHANCE, CUT_KEEP, CUT_DROP, CUT_TEAR };

struct disk_faults {			/* chances in a million operations */
	unsigned	read_error, write_error, flush_error, hang, flip;
	uint64_t	lat_min_ns, lat_max_ns, hang_ns;
	uint32_t	sector;		/* what is written whole: 512 or 4096 */
};

struct disk_write {
	uint64_t	off;
	uint32_t	bytes;
	uint64_t	done;		/* 0: under way; else the how-manieth to complete */
	uint8_t		*data;
	struct disk_write *next;
};

enum disk_kind { DISK_READ, DISK_WRITE, DISK_FLUSH, DISK_DISCARD };	/* a discard is a write of rubbish */

struct disk_op {
	struct disk	*disk;
	struct disk_op	*next;		/* free list */
	struct mkv_mio	*mio;		/* NULL: whoever asked is dead */
	enum disk_kind	kind;
	int		busy;
	void		*buf;
	uint64_t	off, covers;
	uint32_t	bytes, gen;
	struct disk_write *w;
};

struct disk_handle {			/* what one life of a process has of the medium */
	struct mkv_media m;
	struct disk	*disk;
	struct mkv_mio	discard;
	int		discarding, discard_res;	/* 1: under way, 2: ended */
	int		over;		/* it ended: what it still asks for is asked of nobody */
	struct disk_handle *next;
};

struct disk {
	uint64_t	total_bytes;
	struct disk_handle *handles;
	struct disk_faults f;
	uint8_t		*now, *durable;
	struct disk_write *pending, **pending_last;
	struct disk_op	op[DISK_OPS_MAX], *free;
	unsigned	in_flight, orphans;
	uint64_t	done_count;
	uint64_t	cut_after;		/* so many writes and flushes from now the process (or all power) ends; 0: never */
	int		gone;			/* pulled out: every operation fails */
	int		dead;			/* nothing is begun or reported any more: the end is on its way */
	void		(*on_cut)(void *arg);
	void		(*on_idle)(void *arg);	/* the last operation of a dead process is over */
	/* Is this memory still there when its process is dead? NULL: no. */
	int		(*shared)(void *arg, const void *p);
	void		*arg;
	int		may_discard;
	uint64_t	writes, reads, flushes, discards, faults, flips;
};

struct disk *disk_create(uint64_t bytes, const struct disk_faults *f);
void	disk_destroy(struct disk **d);
struct mkv_media *disk_open(struct disk *d);	/* for a new life; the last one's handle ends */
void	disk_orphan(struct disk *d);		/* the process died: what it had begun goes on, nobody hears of it */
void	disk_power_cut(struct disk *d);		/* the content is decided, nothing is in flight */
void	disk_flip(struct disk *d);		/* one bit, anywhere */
void	disk_flip_at(struct disk *d, uint64_t at);

#endif
