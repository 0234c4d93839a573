/*
 * Time. Monotonic for every decision, wall clock only for what leaves the process. Injected where a run must be a function of its
 * seed: pass a struct mkv_clock, never call mkv_now_ns() below worker/drive's engine.
 */
#ifndef MKV_BASE_CLOCK_H
#define MKV_BASE_CLOCK_H

#include <stdint.h>

#define MKV_NS_PER_US	1000ull
#define MKV_NS_PER_MS	1000000ull
#define MKV_NS_PER_SEC	1000000000ull

struct mkv_clock {
	uint64_t	(*now_ns)(void *arg);		/* monotonic */
	uint64_t	(*wall_ms)(void *arg);		/* since 1970 */
	void		*arg;
};

extern const struct mkv_clock mkv_clock_os;

uint64_t	mkv_now_ns(void);			/* CLOCK_MONOTONIC */
uint64_t	mkv_wall_ms(void);
uint64_t	mkv_cpu_ns(void);			/* CPU time of this process, user + system */

#endif
