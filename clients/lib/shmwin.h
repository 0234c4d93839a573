/*
 * Memory of the library that a server on the same host reads and writes: a memfd, cut into chunks. What may be in it, and when a chunk is free again, is
 * tcp_ref.c's business.
 */
#ifndef MKV_CLIENT_SHMWIN_H
#define MKV_CLIENT_SHMWIN_H

#include <stdint.h>

#define WINDOW_UNIT	65536u			/* chunks begin and end at multiples of it */
#define WINDOW_NUMBER	1u			/* of the window among a session's regions; those of callers come behind it */

struct shmwin {					/* zeroed is none */
	uint8_t		*base;
	uint64_t	bytes, filled;		/* filled: pages up to here are there */
	int		fd;			/* valid while there is a base */
	int		large;			/* huge pages have been had so far */
	uint64_t	*used;			/* a bit for each unit */
};

struct chunk {					/* units 0: none */
	uint32_t	at, units;
};

/*
 * One step towards a window of so many bytes, a multiple of WINDOW_UNIT: its pages are taken a few at a time, since that keeps a loop waiting.
 * 1: it is all there; 0: not yet; MKV_E_*: it cannot be, and nothing is left of it.
 */
int	mkv_shmwin_step(struct shmwin *w, uint64_t bytes);
void	mkv_shmwin_fini(struct shmwin *w);
int	mkv_shmwin_take(struct shmwin *w, uint64_t bytes, struct chunk *out);	/* 0; MKV_E_AGAIN: no room */
void	mkv_shmwin_drop(struct shmwin *w, struct chunk *k);	/* also none */

static inline uint64_t
window_off(const struct chunk *k)
{
	return ((uint64_t)k->at * WINDOW_UNIT);
}

#endif
