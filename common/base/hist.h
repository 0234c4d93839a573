/*
 * Log-linear histogram of nanoseconds (HDR-like): 16 linear steps in each power of two, so a value is off by at most 1/16.
 * Plain memory of fixed size, no pointers: lives in metric pages too. mkv_hist_add is one relaxed atomic add, any thread.
 */
#ifndef MKV_BASE_HIST_H
#define MKV_BASE_HIST_H

#include <stdint.h>

#define MKV_HIST_STEPS_LOG2	4
#define MKV_HIST_MAX_LOG2	40			/* 2^40 ns = 18 min; larger values land in the last slot */
#define MKV_HIST_SLOTS		((MKV_HIST_MAX_LOG2 - MKV_HIST_STEPS_LOG2 + 1) << MKV_HIST_STEPS_LOG2)

struct mkv_hist {
	uint64_t	count, sum_ns, max_ns;
	uint64_t	slot[MKV_HIST_SLOTS];
};

void		mkv_hist_add(struct mkv_hist *h, uint64_t ns);
void		mkv_hist_merge(struct mkv_hist *into, const struct mkv_hist *from);
unsigned	mkv_hist_slot(uint64_t ns);
uint64_t	mkv_hist_slot_upper_ns(unsigned slot);		/* largest value that lands in this slot */
uint64_t	mkv_hist_quantile_ns(const struct mkv_hist *h, double q);	/* upper bound of the slot, at most max_ns; 0 if empty */

#endif
