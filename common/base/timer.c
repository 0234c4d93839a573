/*
 * Timers of one loop thread: a binary heap, root at index 1, so that index 0 means "not armed".
 *
 * Process and thread: any; every call on one struct mkv_timers comes from its loop thread.
 * Owns: the heap array. The nodes are the callers', each in at most one heap.
 * Invariants: heap[t->heap_idx] == t for every armed t; no child is earlier than its parent.
 * Fails: only mkv_timers_init() (memory). More timers than announced is our mistake: asserted.
 */
#include "config.h"
#include "common/base/timer.h"

#include <stdlib.h>

#include "common/base/assert.h"
#include "common/base/err.h"

int
mkv_timers_init(struct mkv_timers *ts, uint32_t capacity)
{
	MKV_ASSERT(capacity > 0 && capacity < UINT32_MAX);
	ts->count = 0;
	ts->capacity = capacity;
	ts->heap = calloc((size_t)capacity + 1, sizeof(*ts->heap));
	return (ts->heap == NULL ? MKV_E_NOMEM : 0);
}

/* Armed timers are forgotten, not fired; init and fini pair up even when init failed. */
void
mkv_timers_fini(struct mkv_timers *ts)
{
	for (uint32_t i = 1; ts->heap != NULL && i <= ts->count; i++)
		ts->heap[i]->heap_idx = 0;
	free(ts->heap);
	ts->heap = NULL;
	ts->count = ts->capacity = 0;
}

static void
timer_place(struct mkv_timers *ts, uint32_t i, struct mkv_timer *t)
{
	ts->heap[i] = t;
	t->heap_idx = i;
}

static void
timer_up(struct mkv_timers *ts, uint32_t i, struct mkv_timer *t)
{
	for (; i > 1 && t->at_ns < ts->heap[i / 2]->at_ns; i /= 2)
		timer_place(ts, i, ts->heap[i / 2]);
	timer_place(ts, i, t);
}

static void
timer_down(struct mkv_timers *ts, uint32_t i, struct mkv_timer *t)
{
	uint64_t child;

	for (; (child = 2 * (uint64_t)i) <= ts->count; i = (uint32_t)child) {
		if (child < ts->count && ts->heap[child + 1]->at_ns < ts->heap[child]->at_ns)
			child++;
		if (t->at_ns <= ts->heap[child]->at_ns)
			break;
		timer_place(ts, i, ts->heap[child]);
	}
	timer_place(ts, i, t);
}

void
mkv_timer_arm(struct mkv_timers *ts, struct mkv_timer *t, uint64_t at_ns)
{
	MKV_ASSERT(t->fire != NULL);
	mkv_timer_disarm(ts, t);
	MKV_ASSERT(ts->count < ts->capacity);
	t->at_ns = at_ns;
	ts->count++;
	timer_up(ts, ts->count, t);
}

void
mkv_timer_disarm(struct mkv_timers *ts, struct mkv_timer *t)
{
	struct mkv_timer *last;
	uint32_t i = t->heap_idx;

	if (i == 0)
		return;
	MKV_ASSERT(i <= ts->count);
	MKV_ASSERT(ts->heap[i] == t);
	t->heap_idx = 0;
	last = ts->heap[ts->count];
	ts->heap[ts->count--] = NULL;
	if (last == t)
		return;
	if (i > 1 && last->at_ns < ts->heap[i / 2]->at_ns)
		timer_up(ts, i, last);
	else
		timer_down(ts, i, last);
}

uint64_t
mkv_timers_next_ns(const struct mkv_timers *ts)
{
	return (ts->count == 0 ? UINT64_MAX : ts->heap[1]->at_ns);
}

/*
 * A timer that is armed again for the same moment by its own fire() waits for the next call: at most as many fire as were armed
 * at the start, so that a mistake of a caller cannot hold the loop.
 */
unsigned
mkv_timers_run(struct mkv_timers *ts, uint64_t now_ns)
{
	struct mkv_timer *t;
	unsigned ran, most = ts->count;

	for (ran = 0; ran < most && ts->count > 0 && ts->heap[1]->at_ns <= now_ns; ran++) {
		t = ts->heap[1];
		mkv_timer_disarm(ts, t);
		t->fire(t, now_ns);		/* may arm, disarm, free t */
	}
	return (ran);
}
