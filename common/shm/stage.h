/*
 * A front's staging segment: control slots and data buffers (docs/internals/shm.md).
 *
 * The supervisor makes the memfd and keeps it; it outlives the front. One front at a time hands out its slots and buffers (single thread);
 * every drive maps it and registers it with io_uring. Layout: header page | owner words, one u64 a unit | control slots of 8 KiB |
 * data, chunks of memory.block_size, 2 MiB aligned. A buffer is a run of units (64 KiB) inside one chunk; small values share a chunk.
 *
 * Owner words are in the segment so that the next front can see what a dead one had given away: FRONT comes back at once (recv and verbs end
 * with the process), DRIVE(d, epoch) is quarantined until DRAINED of that drive or DRAINED(front, epoch) says that no I/O is left; time never
 * frees it. Only the front writes them, from a copy of its own that is the truth while it lives; on adoption a word that makes no sense
 * quarantines its unit for MKV_STAGE_DRIVE_ANY and is counted.
 *
 *	owner word	| epoch : 32 | 0 : 16 | drive : 8 | enum mkv_owner : 8 |	drive and epoch are 0 unless DRIVE or QUARANTINE
 */
#ifndef MKV_SHM_STAGE_H
#define MKV_SHM_STAGE_H

#include <stdint.h>

#include "common/base/list.h"

#define MKV_STAGE_MAGIC		0x57a6e0c3u
#define MKV_STAGE_UNIT		65536u
#define MKV_STAGE_SLOT_BYTES	8192u
#define MKV_STAGE_DRIVES_MAX	64u
#define MKV_STAGE_DRIVE_ANY	255u		/* no one knows which drive has it: free when every drive said DRAINED(front) */
#define MKV_STAGE_CHUNK_MIN	(1u << 20)
#define MKV_STAGE_CHUNK_MAX	(4u << 20)	/* 64 units: the free ones of a chunk are the bits of one word */
#define MKV_STAGE_SLOTS_MAX	65536u
#define MKV_STAGE_DATA_MAX	(1ull << 42)

enum mkv_owner { MKV_OWNER_FREE = 0, MKV_OWNER_FRONT = 1, MKV_OWNER_DRIVE = 2, MKV_OWNER_NIC = 3, MKV_OWNER_QUARANTINE = 4 };

struct mkv_stage;

struct mkv_buf {
	uint32_t	unit_idx;
	uint32_t	unit_count;	/* 0: no buffer */
};

/* Segment size for so many data bytes (rounded up to chunks) and slots; a multiple of 2 MiB. 0: a number is out of its range. */
uint64_t	mkv_stage_bytes(uint64_t data_bytes, uint32_t chunk_bytes, uint32_t slots);
/* Supervisor, once. The segment may be larger than that. huge as in mkv_os_shm_map(). */
int		mkv_stage_format(int fd, uint64_t data_bytes, uint32_t chunk_bytes, uint32_t slots, int huge);
/*
 * Front: takes over what a former front left (see above). Drive: maps, writes data and answers, never owner words. fd stays the caller's.
 * MKV_E_PEER no stage or damaged; MKV_E_NOMEM; MKV_E_SYSTEM.
 */
int		mkv_stage_open(struct mkv_stage **out, int fd, int as_front, int huge);
void		mkv_stage_close(struct mkv_stage **s);
/* The whole mapping, for registration with io_uring or a NIC. */
void *		mkv_stage_base(const struct mkv_stage *s, uint64_t *bytes);
uint32_t	mkv_stage_chunk_bytes(const struct mkv_stage *s);

/* Any process: pointer to [off, off+bytes) if it lies wholly in the data area, else NULL (off is a foreign number). */
void *		mkv_stage_data(const struct mkv_stage *s, uint64_t off, uint64_t bytes);
/* Pointer to control slot, NULL if idx is out of range. */
void *		mkv_stage_slot(const struct mkv_stage *s, uint32_t slot_idx);
uint32_t	mkv_stage_slot_count(const struct mkv_stage *s);

/* Front only, loop thread. bytes <= chunk. 0 or MKV_E_AGAIN (park in order). The buffer is owned by FRONT. */
int		mkv_buf_take(struct mkv_stage *s, uint32_t bytes, struct mkv_buf *b);
/*
 * from -> to; asserts `from`. drive and epoch name the drive when from or to is DRIVE or QUARANTINE, and are ignored otherwise. FREE is
 * reached by mkv_buf_drop() and mkv_stage_release() alone.
 */
void		mkv_buf_give(struct mkv_stage *s, struct mkv_buf b, enum mkv_owner from, enum mkv_owner to, uint32_t drive, uint32_t epoch);
void		mkv_buf_drop(struct mkv_stage *s, struct mkv_buf *b);		/* owner must be FRONT; clears *b */
uint64_t	mkv_buf_off(const struct mkv_stage *s, struct mkv_buf b);	/* offset in the segment */
void *		mkv_buf_ptr(const struct mkv_stage *s, struct mkv_buf b);
uint32_t	mkv_buf_bytes(struct mkv_buf b);

int		mkv_stage_slot_take(struct mkv_stage *s, uint32_t *slot_idx, uint32_t *gen);	/* MKV_E_AGAIN */
void		mkv_stage_slot_drop(struct mkv_stage *s, uint32_t slot_idx);			/* raises its generation */
uint32_t	mkv_stage_slot_gen(const struct mkv_stage *s, uint32_t slot_idx);
/* A slot given to a drive that died is quarantined with its buffers; freed by mkv_stage_release(). */
void		mkv_stage_slot_give(struct mkv_stage *s, uint32_t slot_idx, uint32_t drive, uint32_t epoch);
void		mkv_stage_slot_back(struct mkv_stage *s, uint32_t slot_idx);

/* Drive `drive` died: everything given to it under epochs <= epoch is quarantined; the caller forgets its handles. Returns units. */
uint32_t	mkv_stage_quarantine(struct mkv_stage *s, uint32_t drive, uint32_t epoch);
/* DRAINED: free what was quarantined for drive under epochs <= epoch. Returns units. */
uint32_t	mkv_stage_release(struct mkv_stage *s, uint32_t drive, uint32_t epoch);

struct mkv_stage_stat {
	uint64_t	total_bytes, free_bytes, front_bytes, drive_bytes, quarantined_bytes;
	uint32_t	slots_total, slots_free, slots_quarantined, words_bad;
};
void		mkv_stage_stat(const struct mkv_stage *s, struct mkv_stage_stat *st);

#endif
