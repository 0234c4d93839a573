/*
 * The operating system's clocks. Any process, any thread; owns nothing and cannot fail (a missing clock is our own mistake).
 */
#include "config.h"
#include "common/base/clock.h"

#include <time.h>

#include "common/base/assert.h"

static uint64_t
clock_read_ns(clockid_t id)
{
	struct timespec ts;
	int r = clock_gettime(id, &ts);

	MKV_ASSERT(r == 0);
	return ((uint64_t)ts.tv_sec * MKV_NS_PER_SEC + (uint64_t)ts.tv_nsec);
}

uint64_t
mkv_now_ns(void)
{
	return (clock_read_ns(CLOCK_MONOTONIC));
}

uint64_t
mkv_wall_ms(void)
{
	return (clock_read_ns(CLOCK_REALTIME) / MKV_NS_PER_MS);
}

uint64_t
mkv_cpu_ns(void)
{
	return (clock_read_ns(CLOCK_PROCESS_CPUTIME_ID));
}

static uint64_t
clock_os_now_ns(void *arg MKV_UNUSED)
{
	return (mkv_now_ns());
}

static uint64_t
clock_os_wall_ms(void *arg MKV_UNUSED)
{
	return (mkv_wall_ms());
}

const struct mkv_clock mkv_clock_os = {
	.now_ns = clock_os_now_ns,
	.wall_ms = clock_os_wall_ms,
};
