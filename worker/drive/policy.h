/*
 * Which object goes next: queues over the entries of an index, and a table of policies that keep them. Pure memory; drive's loop thread.
 *
 *   young end -> ... -> old end      SMALL: on probation (s3fifo); MAIN: the rest. An entry is in one of them, or in none: pieces, pinned and leased ones.
 *
 * Policies differ in where an object enters, what a hit does and what leaves next; the queues are the same, so a policy is changed while it serves.
 * `adaptive` measures at run time (adapt.c): shadows of the candidates, over a sample of the keys and without data, count what each would hit, and the
 * best one decides.
 *
 * Chains: an object that is named as the parent of another and came (or was hit) just before it stays younger than it, so the end of a prompt leaves
 * before its beginning, without which it is worth nothing.
 */
#ifndef MKV_DRIVE_POLICY_H
#define MKV_DRIVE_POLICY_H

#include <stdint.h>

#include "worker/drive/ghost.h"
#include "worker/drive/index.h"

enum mkv_policy_kind {				/* as in storage.eviction.policy */
	MKV_POLICY_ADAPTIVE,
	MKV_POLICY_CLOCK,
	MKV_POLICY_LRU,
	MKV_POLICY_S3FIFO,
	MKV_POLICY_FIFO,
	MKV_POLICY_NONE,
	MKV_POLICY_KINDS
};

enum { MKV_PQ_SMALL, MKV_PQ_MAIN, MKV_PQ_COUNT };

#define MKV_POLICY_FRESH	1024u		/* entries whose children find them; power of two */

struct mkv_policy;
struct mkv_adapt;

struct mkv_policy_ops {
	const char	*name;
	int		(*enters)(struct mkv_policy *p, struct mkv_digest d);	/* which queue */
	void		(*hit)(struct mkv_policy *p, uint32_t i, uint32_t parent);
	uint32_t	(*victim)(struct mkv_policy *p, unsigned *look);
};
extern const struct mkv_policy_ops mkv_policy_table[MKV_POLICY_KINDS];

struct mkv_policy {
	const struct mkv_policy_ops *ops;	/* what decides now */
	struct mkv_index *ix;			/* not ours */
	struct mkv_ghost ghost;			/* what left from probation, and what was not admitted */
	enum mkv_policy_kind kind;
	struct {
		uint32_t	young, old;	/* entry + 1, or the queue itself: see policy.c */
		uint32_t	count;
	} q[MKV_PQ_COUNT];
	uint32_t	ghost_turns;		/* how long ghosts count: so many times the number of objects */
	uint64_t	ghosts_max;		/* and no longer than so many ghosts */
	int		second_touch;		/* what was not seen before is not admitted */
	uint32_t	cursor;			/* of the ranking: entry + 1, or a queue */
	uint32_t	ranked;
	struct {
		uint32_t	ent, at;
	} fresh[MKV_POLICY_FRESH];
	uint32_t	moves;			/* to a young end */
	struct mkv_adapt *adapt;		/* NULL but for the adaptive one, and where it is watched */
	int		watched;
};

int	mkv_policy_init(struct mkv_policy *p, struct mkv_index *ix, uint32_t ghosts, enum mkv_policy_kind kind);	/* ghosts: room. MKV_E_NOMEM */
void	mkv_policy_fini(struct mkv_policy *p);
int	mkv_policy_set(struct mkv_policy *p, enum mkv_policy_kind kind);	/* while it serves. MKV_E_NOMEM: as it was */

/* An object is about to come: 0: it should not be kept. Asked only when something would have to leave for it. */
int	mkv_policy_admit(struct mkv_policy *p, struct mkv_digest d);
/* It came; it was read. parent: entry of the block before it, or MKV_ENT_NIL. */
void	mkv_policy_insert(struct mkv_policy *p, uint32_t i, uint32_t parent);
void	mkv_policy_hit(struct mkv_policy *p, uint32_t i, uint32_t parent);
/* Somebody asked whether it is there. */
void	mkv_policy_touch(struct mkv_policy *p, uint32_t i);
/* The next to leave, still in its queue: remove it, or keep it (to the young end). MKV_ENT_NIL: nothing, or not within *look steps, which are counted down. */
uint32_t mkv_policy_victim(struct mkv_policy *p, unsigned *look);
void	mkv_policy_keep(struct mkv_policy *p, uint32_t i);
void	mkv_policy_remove(struct mkv_policy *p, uint32_t i);	/* one that is in no queue: nothing */
void	mkv_policy_evict(struct mkv_policy *p, uint32_t i);	/* the same for a victim: if it comes back, it is known */
/* Back into a queue, with its flags as they are and no word to anybody: the end of a lease, recovery. */
void	mkv_policy_restore(struct mkv_policy *p, uint32_t i);

/*
 * Ranks: each entry's place in its queue in 255 steps, 0 the young end, for checkpoints. Begin, then step until it returns 0; entries that come to a young
 * end meanwhile have rank 0.
 */
void	mkv_policy_rank_begin(struct mkv_policy *p);
int	mkv_policy_rank_step(struct mkv_policy *p, unsigned n);
/* Recovery: all linked entries that `in` says belong in a queue enter theirs by rank, the lowest at the young end. Queues are empty. */
void	mkv_policy_rebuild(struct mkv_policy *p, int (*in)(const struct mkv_ent *en));

static inline uint32_t
mkv_policy_count(const struct mkv_policy *p)
{
	return (p->q[MKV_PQ_SMALL].count + p->q[MKV_PQ_MAIN].count);
}

/* Shadows beside a fixed policy, too: they say what others would have hit. MKV_E_NOMEM */
int	mkv_policy_watch(struct mkv_policy *p);

/* adapt.c */
enum mkv_adapt_candidate { MKV_ADAPT_CLOCK, MKV_ADAPT_LRU, MKV_ADAPT_S3FIFO, MKV_ADAPT_SECOND, MKV_ADAPT_CANDIDATES };

int	mkv_adapt_init(struct mkv_policy *p);
void	mkv_adapt_fini(struct mkv_policy *p);
void	mkv_adapt_access(struct mkv_policy *p, struct mkv_digest d);		/* it was read or put */
void	mkv_adapt_follow(struct mkv_policy *p);					/* go by what was best so far */
void	mkv_adapt_pressure(struct mkv_policy *p);				/* something has to leave */
/* Hits of each candidate so far, and how many accesses were looked at. */
uint64_t mkv_adapt_counts(const struct mkv_policy *p, uint64_t hits[MKV_ADAPT_CANDIDATES]);
enum mkv_adapt_candidate mkv_adapt_chosen(const struct mkv_policy *p);
uint64_t mkv_adapt_bytes(const struct mkv_policy *p);

#endif
