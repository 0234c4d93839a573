/*
 * A medium over an image in memory that it does not change: what is written lies in pages of its own and is forgotten by overlay_reset(). Tests only.
 */
#ifndef MKV_TESTS_LAB_OVERLAY_H
#define MKV_TESTS_LAB_OVERLAY_H

#include "worker/drive/media.h"

#define OVERLAY_PAGE	4096u

struct overlay {
	struct mkv_media m;
	const uint8_t	*base;
	uint8_t		**page;			/* NULL: as in base */
	uint32_t	*dirty;			/* pages that are not NULL */
	uint32_t	n_dirty;
	uint8_t		**spare;
	uint32_t	n_spare;
	struct mkv_mio	*first, **last;		/* to be completed by the next pump */
};

struct overlay *overlay_create(const uint8_t *base, uint64_t bytes);
void	overlay_destroy(struct overlay **o);
void	overlay_write(struct overlay *o, const void *p, uint64_t bytes, uint64_t off);
void	overlay_fill(struct overlay *o, int byte, uint64_t bytes, uint64_t off);
void	overlay_reset(struct overlay *o);
/* Requests that were never completed are forgotten: their process died. */
void	overlay_forget_io(struct overlay *o);

#endif
