/*
 * A medium that crashes: what was not flushed is kept, dropped or torn at its end, by a seed. Tests only.
 *
 * Every write and flush counts two steps (begin, end). At the chosen step the machine stops: nothing completes any more. sim_reboot() then makes
 * the medium's content as a power loss could leave it: flushed sectors as they were, each unflushed write or sector (512 bytes, or `sector`) by the policy.
 */
#ifndef MKV_TESTS_MEDIA_SIM_H
#define MKV_TESTS_MEDIA_SIM_H

#include "tests/lib/rnd.h"
#include "worker/drive/media.h"

enum sim_policy { SIM_KEEP, SIM_DROP, SIM_SOME, SIM_TEAR, SIM_TAIL, SIM_POLICIES };	/* SOME: each write for itself; TEAR: each sector; TAIL: all but each first */

struct sim_write {
	uint64_t	off;
	uint32_t	bytes;
	int		done;		/* completed; covered by the next flush that begins */
	int		discard;
	int		mark;		/* the test's own */
	uint8_t		*data;
	struct sim_write *next;
};

struct sim_op {
	struct mkv_mio	*mio;
	int		kind;		/* 0 read, 1 write, 2 flush, 3 discard: a write of rubbish */
	void		*buf;
	uint64_t	off;
	uint32_t	bytes;
	struct sim_write *w;		/* write: itself; flush: the last write completed before it began */
	uint64_t	covers;		/* flush: writes with done <= this */
};

#define SIM_OPS_MAX	4096
#define SIM_BAD_MAX	8

struct sim_bad {
	uint64_t	off, bytes;	/* bytes 0: free */
	unsigned	left;		/* so many reads more; a write of a block heals it at once, as drives do */
};

struct media_sim {
	struct mkv_media m;
	uint8_t		*now;		/* what reads see */
	uint8_t		*durable;
	struct sim_write *pending, **pending_last;
	struct sim_op	op[SIM_OPS_MAX];
	unsigned	ops;
	uint64_t	steps;		/* of writes and flushes so far */
	uint64_t	crash_at;	/* 0: never */
	void		(*on_step)(void *arg);	/* not NULL: called at each of them, when it is counted and nothing of it has happened yet */
	void		*on_step_arg;
	uint8_t		*touched;	/* not NULL: 1 for each block of 4096 bytes that was written, or became durable */
	uint64_t	done_count;
	int		dead;
	int		fail_flush, fail_write;	/* the n-th from now on fails, once */
	struct sim_bad	bad[SIM_BAD_MAX];	/* reads of these fail */
	int		discarding, discard_res;	/* 1: under way, 2: ended */
	int		fail_discard;	/* not 0: how the next one ends */
	unsigned	discard_hold;	/* so many turns pass before it does */
	int		read_hold;	/* reads stay under way */
	unsigned	discards;
	uint64_t	discard_bytes;	/* of the last one */
	uint32_t	sector;		/* a write is torn between these */
	struct rnd	rnd;
};

/* Discards leave rubbish behind, which may become durable or not. Off until this; opts.trim says whether the engine makes use of it. */
void	sim_may_discard(struct media_sim *s);
struct media_sim *sim_create(uint64_t bytes, uint64_t meta_bytes, uint64_t seed);
void	sim_destroy(struct media_sim **s);
/* The next `reads` reads that touch [off, off+bytes) fail with MKV_E_IO. A write of all of it ends that. */
void	sim_bad(struct media_sim *s, uint64_t off, uint64_t bytes, unsigned reads);
/* Power is back: the content is decided, nothing is in flight. */
void	sim_reboot(struct media_sim *s, enum sim_policy policy);

#endif
