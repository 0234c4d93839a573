/*
 * Timers of one loop thread: a binary heap of intrusive nodes. No allocation after init.
 */
#ifndef MKV_BASE_TIMER_H
#define MKV_BASE_TIMER_H

#include <stdint.h>

struct mkv_timer;
typedef void	mkv_timer_fn(struct mkv_timer *t, uint64_t now_ns);

struct mkv_timer {
	mkv_timer_fn	*fire;
	uint64_t	at_ns;
	uint32_t	heap_idx;		/* 0: not armed */
};

struct mkv_timers {
	struct mkv_timer **heap;
	uint32_t	count, capacity;
};

int		mkv_timers_init(struct mkv_timers *ts, uint32_t capacity);	/* MKV_E_NOMEM */
void		mkv_timers_fini(struct mkv_timers *ts);
void		mkv_timer_arm(struct mkv_timers *ts, struct mkv_timer *t, uint64_t at_ns);	/* re-arms; MKV_ASSERT on overflow */
void		mkv_timer_disarm(struct mkv_timers *ts, struct mkv_timer *t);			/* not armed: no-op */
uint64_t	mkv_timers_next_ns(const struct mkv_timers *ts);				/* UINT64_MAX if none */
unsigned	mkv_timers_run(struct mkv_timers *ts, uint64_t now_ns);				/* fires those due; returns how many */

#endif
