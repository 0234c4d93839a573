/*
 * The counters of an unordered channel (datagrams, DC): which of the last 1,024 have been seen. Any process; who owns one guards it.
 *
 * A counter is shown only after its MAC has been checked: a forged one must not move the window. What has fallen out below counts as seen, so a
 * message that was overtaken by 1,024 others is dropped like one that is repeated. Zeroed, it is at its beginning; counters go from 1.
 */
#ifndef MKV_COMMON_BASE_WINDOW_H
#define MKV_COMMON_BASE_WINDOW_H

#include <stdint.h>
#include <string.h>

#define MKV_WINDOW_BITS	1024u

struct mkv_window {
	uint64_t	top;				/* the largest that was seen */
	uint64_t	seen[MKV_WINDOW_BITS / 64];	/* bit n % MKV_WINDOW_BITS: of those from top - MKV_WINDOW_BITS + 1 to top */
};

static inline uint64_t
mkv_window_bit(uint64_t n)
{
	return (1ull << n % 64);
}

static inline uint64_t *
mkv_window_word(struct mkv_window *w, uint64_t n)
{
	return (&w->seen[n % MKV_WINDOW_BITS / 64]);
}

/* n is above the top: those between have not been seen. */
static inline void
mkv_window_rise(struct mkv_window *w, uint64_t n)
{
	if (n - w->top >= MKV_WINDOW_BITS)
		memset(w->seen, 0, sizeof(w->seen));
	else
		for (uint64_t i = w->top; i++ != n;)
			*mkv_window_word(w, i) &= ~mkv_window_bit(i);
	w->top = n;
}

/* 1: n is new, and is noted; 0: it has been seen, or is too old to tell. */
static inline int
mkv_window_take(struct mkv_window *w, uint64_t n)
{
	uint64_t *word = mkv_window_word(w, n), bit = mkv_window_bit(n);

	if (n == 0 || (n <= w->top && (w->top - n >= MKV_WINDOW_BITS || (*word & bit) != 0)))
		return (0);
	if (n > w->top)
		mkv_window_rise(w, n);
	*word |= bit;
	return (1);
}

#endif
