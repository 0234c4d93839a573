/*
 * Ghosts: which digests left, or were turned away, not long ago. Pure memory, no I/O; drive's loop thread.
 *
 * A table of sets of MKV_GHOST_WAYS words: 20 bits of the digest, 12 of the time, which is the number of ghosts made so far in coarse steps. A new ghost
 * takes the place of its own former one, an empty word, or the oldest of its set: nothing grows.
 */
#ifndef MKV_DRIVE_GHOST_H
#define MKV_DRIVE_GHOST_H

#include <stdint.h>

#include "common/base/hash.h"

#define MKV_GHOST_WAYS	4u

struct mkv_ghost {
	uint32_t	*word;
	uint32_t	mask;			/* sets - 1 */
	uint32_t	step;			/* ghosts in a step of time */
	uint64_t	made;
};

int	mkv_ghost_init(struct mkv_ghost *g, uint32_t ghosts);	/* room for so many, rounded up to a power of two. MKV_E_NOMEM */
void	mkv_ghost_fini(struct mkv_ghost *g);
void	mkv_ghost_add(struct mkv_ghost *g, struct mkv_digest d);
/* 1: it was a ghost, made no more than `window` ghosts ago; it is none any more. */
int	mkv_ghost_take(struct mkv_ghost *g, struct mkv_digest d, uint64_t window);

static inline uint64_t
mkv_ghost_room(const struct mkv_ghost *g)
{
	return (MKV_GHOST_WAYS * ((uint64_t)g->mask + 1));
}

#endif
