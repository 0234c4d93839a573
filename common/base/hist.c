/*
 * Log-linear histograms. Any process, any thread: plain memory, updated by relaxed atomics; a reader that runs beside writers may see
 * a value in `count` before it sees it in a slot, so quantiles count the slots themselves. The memory may be a page that another process
 * writes: nothing here trusts its words.
 */
#include "config.h"
#include "common/base/hist.h"

#include "common/base/assert.h"

#define HIST_STEPS	(1u << MKV_HIST_STEPS_LOG2)

_Static_assert(sizeof(struct mkv_hist) == (3 + MKV_HIST_SLOTS) * sizeof(uint64_t), "no padding: lives in shared pages");

static inline uint64_t
hist_load(const uint64_t *word)
{
	return (__atomic_load_n(word, __ATOMIC_RELAXED));
}

static void
hist_raise(uint64_t *max, uint64_t v)
{
	uint64_t seen = hist_load(max);

	while (v > seen && !__atomic_compare_exchange_n(max, &seen, v, 1, __ATOMIC_RELAXED, __ATOMIC_RELAXED))
		continue;
}

unsigned
mkv_hist_slot(uint64_t ns)
{
	unsigned log2;

	if (ns < HIST_STEPS)
		return ((unsigned)ns);
	log2 = 63u - (unsigned)__builtin_clzll(ns);
	if (log2 >= MKV_HIST_MAX_LOG2)
		return (MKV_HIST_SLOTS - 1);
	return (((log2 - MKV_HIST_STEPS_LOG2 + 1) << MKV_HIST_STEPS_LOG2) +
	    (unsigned)((ns >> (log2 - MKV_HIST_STEPS_LOG2)) & (HIST_STEPS - 1)));
}

uint64_t
mkv_hist_slot_upper_ns(unsigned slot)
{
	unsigned shift;

	MKV_ASSERT(slot < MKV_HIST_SLOTS);
	if (slot < HIST_STEPS)
		return (slot);
	shift = (slot >> MKV_HIST_STEPS_LOG2) - 1;
	return ((((uint64_t)HIST_STEPS + (slot & (HIST_STEPS - 1)) + 1) << shift) - 1);
}

void
mkv_hist_add(struct mkv_hist *h, uint64_t ns)
{
	__atomic_fetch_add(&h->slot[mkv_hist_slot(ns)], 1, __ATOMIC_RELAXED);
	__atomic_fetch_add(&h->count, 1, __ATOMIC_RELAXED);
	__atomic_fetch_add(&h->sum_ns, ns, __ATOMIC_RELAXED);
	hist_raise(&h->max_ns, ns);
}

void
mkv_hist_merge(struct mkv_hist *into, const struct mkv_hist *from)
{
	for (unsigned i = 0; i < MKV_HIST_SLOTS; i++)
		__atomic_fetch_add(&into->slot[i], hist_load(&from->slot[i]), __ATOMIC_RELAXED);
	__atomic_fetch_add(&into->count, hist_load(&from->count), __ATOMIC_RELAXED);
	__atomic_fetch_add(&into->sum_ns, hist_load(&from->sum_ns), __ATOMIC_RELAXED);
	hist_raise(&into->max_ns, hist_load(&from->max_ns));
}

uint64_t
mkv_hist_quantile_ns(const struct mkv_hist *h, double q)
{
	uint64_t total = 0, below = 0, want, max = hist_load(&h->max_ns);
	unsigned i;

	for (i = 0; i < MKV_HIST_SLOTS; i++)
		total += hist_load(&h->slot[i]);
	if (total == 0)
		return (0);
	q = q < 0 ? 0 : q > 1 ? 1 : q;
	want = (uint64_t)(q * (double)total);
	if ((double)want < q * (double)total || want == 0)	/* the smallest rank that covers q */
		want++;
	for (i = 0; i < MKV_HIST_SLOTS - 1; i++) {
		below += hist_load(&h->slot[i]);
		if (below >= want)
			return (MKV_MIN(mkv_hist_slot_upper_ns(i), MKV_MAX(max, 1)));
	}
	return (MKV_MAX(max, mkv_hist_slot_upper_ns(i - 1) + 1));	/* the last slot has no upper end of its own */
}
