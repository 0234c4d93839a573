/*
 * Between stage.c (the segment, adoption, the drives' view) and pool.c (what the front hands out).
 */
#ifndef MKV_SHM_STAGE_PRIV_H
#define MKV_SHM_STAGE_PRIV_H

#include <stdatomic.h>
#include <stdint.h>

#include "common/shm/stage.h"

#define STAGE_OPEN_MAGIC	0x2f61d5a8u
#define STAGE_OWNERS		5u		/* enum mkv_owner */

struct stage_shm {			/* page 0 of the segment */
	uint32_t	magic, chunk_bytes;
	uint64_t	data_bytes;	/* whole chunks */
	uint32_t	slots, pad;
};

struct stage_layout {			/* computed from the three numbers of the head, never read */
	uint32_t	chunk_bytes, slots, chunks, units, units_per_chunk;
	uint64_t	words_off, slots_off, data_off, data_bytes, total_bytes;
};

struct mkv_stage {
	uint32_t	magic;
	int		is_front;
	uint8_t		*base;
	uint64_t	map_bytes;	/* the whole segment */
	struct stage_layout lay;
	_Atomic uint64_t *word;		/* in the segment: units, then slots; written by the front alone */

	/* Front only. own[] is the truth, word[] its copy for the next front. */
	uint64_t	*own;		/* units, then slots */
	uint64_t	*chunk_free;	/* a bit for each free unit of the chunk */
	uint32_t	chunk_cursor;
	uint32_t	*slot_gen;
	uint32_t	*slot_stack;	/* free slots */
	uint32_t	slots_free;
	uint32_t	units_by_owner[STAGE_OWNERS], slots_by_owner[STAGE_OWNERS];
	uint32_t	words_bad;
};

static inline uint64_t
stage_word(enum mkv_owner owner, uint32_t drive, uint32_t epoch)
{
	if (owner != MKV_OWNER_DRIVE && owner != MKV_OWNER_QUARANTINE)
		return ((uint64_t)owner);
	return ((uint64_t)owner | (uint64_t)(drive & 255) << 8 | (uint64_t)epoch << 32);
}

static inline unsigned
stage_owner(uint64_t word)
{
	return ((unsigned)(word & 255));
}

static inline uint32_t
stage_drive(uint64_t word)
{
	return ((uint32_t)(word >> 8 & 255));
}

static inline uint32_t
stage_epoch(uint64_t word)
{
	return ((uint32_t)(word >> 32));
}

/* Sets one owner word (own and published) and keeps the counts; idx counts units, then slots. */
void	stage_set(struct mkv_stage *s, uint32_t idx, uint64_t word);

/* pool.c: everything that own[] says is free becomes free. Once, at adoption. */
void	stage_pool_fill(struct mkv_stage *s);

#endif
