/*
 * The index of a drive: one entry of 56 bytes an object, found by digest. Pure memory, no I/O; drive's loop thread.
 *
 * Entries lie in a slab and never move, so a number names an object for its whole life; buckets are heads of 4 bytes, split one at a time as the
 * index grows (linear hashing), so no step is long. Slab, heads and side records are reserved as address space at start and touched as needed.
 * An entry that was unlinked (overwritten, evicted, deleted) stays in the slab until its journal record is durable and its last reader is gone.
 * Two links of each entry are the eviction policy's (policy.h), two are the list of its namespace's objects (nspace.c).
 */
#ifndef MKV_DRIVE_INDEX_H
#define MKV_DRIVE_INDEX_H

#include <pthread.h>
#include <stdint.h>

#include "common/base/hash.h"
#include "common/shm/drv.h"
#include "worker/drive/alloc.h"

#define MKV_ENT_NIL	UINT32_MAX
#define MKV_TICK_MS	100u		/* times in entries */
#define MKV_INDEX_MANY	16u		/* look-ups at once: as many misses of the cache as a core has outstanding, and some */

enum {
	MKV_ENT_USED		= 1,		/* slot is taken */
	MKV_ENT_LINKED		= 2,		/* can be found */
	MKV_ENT_REF		= 4,		/* read since it was looked at: a count of two bits, with REF2 */
	MKV_ENT_MULTI		= 8,		/* run names a side record with several runs */
	MKV_ENT_PIECE		= 16,
	MKV_ENT_MANIFEST	= 32,		/* run names a side record with the set */
	MKV_ENT_PIN		= 64,
	MKV_ENT_VERIFIED	= 128,
	MKV_ENT_PROVISIONAL	= 256,		/* piece whose manifest is not known to be durable */
	MKV_ENT_DEAD		= 512,		/* unlinked and its record is durable: the last reader frees it */
	MKV_ENT_QUARANTINE	= 1024,		/* its bytes are bad: units stay taken until the next start */
	MKV_ENT_REF2		= 2048,		/* (its upper bit) */
	MKV_ENT_SMALL		= 4096,		/* in the queue of those on probation */
	MKV_ENT_LEASED		= 8192,		/* in no queue: q_prev is its lease + 1 */
	/* What a checkpoint carries. */
	MKV_ENT_LASTING = MKV_ENT_REF | MKV_ENT_REF2 | MKV_ENT_SMALL | MKV_ENT_MULTI | MKV_ENT_PIECE | MKV_ENT_MANIFEST | MKV_ENT_PIN | MKV_ENT_VERIFIED | MKV_ENT_PROVISIONAL,
};

struct mkv_ent {
	struct mkv_digest digest;
	uint32_t	next;			/* in the bucket or the free list */
	uint32_t	page;			/* metadata page with its record */
	uint32_t	run;			/* first unit, or a side record */
	uint16_t	units, flags;
	uint32_t	expires;		/* MKV_TICK_MS since the store was made, rounded up; 0: never */
	uint32_t	q_prev, q_next;		/* policy.c: neighbours in a queue; 0: in none */
	uint32_t	ns_prev, ns_next;	/* nspace.c: neighbours in the list of its slot, + 1; 0: none */
	uint32_t	holds : 14;		/* readers of its bytes or record */
	uint32_t	slot : 10;		/* nspace.c: of its namespace; 0: a piece */
	uint32_t	rank : 8;		/* policy.c: how far from its queue's young end, as of the last ranking */
};
_Static_assert(sizeof(struct mkv_ent) == 56, "counted in the memory budget");
#define MKV_ENT_HOLDS_MAX	((1u << 14) - 1)
#define MKV_ENT_SLOT_MAX	((1u << 10) - 1)

struct mkv_side {
	union {
		struct {
			struct mkv_run	run[8];
			uint32_t	n;
		};
		struct {
			struct mkv_set_id set;
			uint64_t	stripe_mask;
			uint32_t	piece_count;
			uint32_t	chain;	/* audit.c */
			uint32_t	ent;	/* its manifest */
		};
		uint32_t	next;		/* free list */
	};
};

struct mkv_index {
	struct mkv_ent	*ent;
	uint32_t	*head;			/* entry number + 1; 0 empty */
	struct mkv_side	*side;
	uint32_t	ents_max, heads_max, sides_max;
	uint32_t	ents_high, sides_high;	/* never used above */
	uint32_t	ent_free, side_free;	/* free lists, MKV_ENT_NIL ends */
	uint32_t	buckets, split;		/* buckets: power of two of this round; split: next to be split */
	uint32_t	linked, used, sides_used;
	int		populating;		/* between mkv_index_expect() and mkv_index_expected(): a thread asks for the heads' and the slab's memory */
	uint64_t	populate_head_bytes, populate_bytes;
	pthread_t	populate;
};

int	mkv_index_init(struct mkv_index *ix, uint32_t ents_max);	/* MKV_E_NOMEM */
void	mkv_index_fini(struct mkv_index *ix);
/*
 * So many entries are about to be linked (n: any number): buckets for them at once, none split on the way; where they are very many, a thread asks for
 * the buckets' and the slab's memory meanwhile (it touches nothing). Only while nothing is linked; mkv_index_expected() ends it. Between the two a
 * digest may be linked that is there already: look-ups find the last one linked, and who unlinks that one finds the one before.
 */
void	mkv_index_expect(struct mkv_index *ix, uint32_t n);
void	mkv_index_expected(struct mkv_index *ix);

uint32_t mkv_index_find(const struct mkv_index *ix, struct mkv_digest d);
/* The next with the digest of linked entry i, behind it in its bucket. MKV_ENT_NIL: none. */
uint32_t mkv_index_find_next(const struct mkv_index *ix, uint32_t i);
/* As many look-ups at once (n <= MKV_INDEX_MANY); out[k] as mkv_index_find() of d[k]. */
void	mkv_index_find_many(const struct mkv_index *ix, const struct mkv_digest *d, unsigned n, uint32_t *out);
/* Ask for the memory of a look-up, or a link, that comes soon: step 0 the bucket, later step 1 its first entry, later step 2 the second, and so on. */
void	mkv_index_prefetch(const struct mkv_index *ix, struct mkv_digest d, unsigned step);
/* Entries whose digest.lo is this: *it starts with 0. MKV_ENT_NIL at the end. The entry returned may be unlinked before the next call. */
uint32_t mkv_index_find_lo(const struct mkv_index *ix, uint64_t lo, uint32_t *it);
uint32_t mkv_index_take(struct mkv_index *ix);			/* slot, zeroed; MKV_ENT_NIL: full */
void	mkv_index_drop(struct mkv_index *ix, uint32_t i);	/* must be unlinked */
void	mkv_index_link(struct mkv_index *ix, uint32_t i);	/* digest must not be there yet */
/* Take, a copy of *en (whose next and state flags do not matter), and link in one. MKV_ENT_NIL: full. */
uint32_t mkv_index_add(struct mkv_index *ix, const struct mkv_ent *en);
void	mkv_index_unlink(struct mkv_index *ix, uint32_t i);
uint32_t mkv_side_take(struct mkv_index *ix);			/* MKV_ENT_NIL: none left */
void	mkv_side_drop(struct mkv_index *ix, uint32_t s);
/* The runs of an entry: returns how many, out has room for 8. */
unsigned mkv_ent_runs(const struct mkv_index *ix, const struct mkv_ent *en, struct mkv_run *out);

#endif
