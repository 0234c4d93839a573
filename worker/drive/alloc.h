/*
 * Space of a drive: a bitmap of units with a free count and a bound of the longest free run for each extent.
 * Pure memory, no I/O; drive's loop thread. A run never crosses an extent.
 */
#ifndef MKV_DRIVE_ALLOC_H
#define MKV_DRIVE_ALLOC_H

#include <stdint.h>

#define MKV_ALLOC_GROUP	64u

struct mkv_run {			/* also on the medium */
	uint32_t	off, len;	/* units */
};

struct mkv_alloc {
	uint64_t	*map;		/* 1: in use */
	uint16_t	*free_in;	/* per extent */
	uint16_t	*longest;	/* per extent: no free run is longer than this */
	uint16_t	*mid, *top;	/* the same of MKV_ALLOC_GROUP extents, of as many groups */
	uint32_t	extents, per_extent, shift, cursor;	/* per_extent: 1 << shift */
	uint64_t	units, free_units;
	int		lowest;		/* set once after init: each search begins at the lowest extent */
};

int	mkv_alloc_init(struct mkv_alloc *a, uint32_t extents, uint32_t per_extent);	/* MKV_E_NOMEM; MKV_E_INVAL */
void	mkv_alloc_fini(struct mkv_alloc *a);
/* Take n units: one run if an extent has it, else up to `runs_max` runs. Returns how many runs, 0 if there is no room; then nothing is taken. */
unsigned mkv_alloc_take(struct mkv_alloc *a, uint32_t n, struct mkv_run *runs, unsigned runs_max);
void	mkv_alloc_free(struct mkv_alloc *a, struct mkv_run run);	/* must be in use: asserted */
/* The first free run of extent x that begins at or behind its unit `from`, cut to `most` units. len 0: there is none. */
struct mkv_run mkv_alloc_peek(const struct mkv_alloc *a, uint32_t x, uint32_t from, uint32_t most);
void	mkv_alloc_claim(struct mkv_alloc *a, struct mkv_run run);	/* a run that was peeked at, or a part of it: must be free, within one extent: asserted */
/*
 * Recovery: claim a run read from the medium. MKV_E_CORRUPT: outside, across extents, or (partly) taken; then nothing is claimed. Unmark takes one back.
 * Both see to the bitmap only; when all are in, mkv_alloc_marked() counts what is left. Nothing is taken or freed before that.
 */
int	mkv_alloc_mark(struct mkv_alloc *a, struct mkv_run run);
void	mkv_alloc_unmark(struct mkv_alloc *a, struct mkv_run run);	/* must be marked: asserted */
void	mkv_alloc_marked(struct mkv_alloc *a);

#endif
