/*
 * The world's clock, its events and its end (sim.h). Also the clock that the code under test reads: mkv_now_ns() and the rest of common/base/clock.h
 * are here and not the system's.
 */
#include "config.h"

#include "tests/sim/sim.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define TRACE_LINES	400u
#define TRACE_BYTES	160u
#define RUN_MAX		20000000u

struct sim *sim;

static char	trace_line[TRACE_LINES][TRACE_BYTES];
static uint64_t	trace_count;

/* ---- The clock -------------------------------------------------------------------------------------------------------------- */

static uint64_t
world_os_ns(clockid_t id)
{
	struct timespec ts;

	(void)clock_gettime(id, &ts);
	return ((uint64_t)ts.tv_sec * SEC + (uint64_t)ts.tv_nsec);
}

uint64_t
mkv_now_ns(void)
{
	return (sim != NULL ? sim->now : world_os_ns(CLOCK_MONOTONIC));
}

uint64_t
mkv_wall_ms(void)
{
	return (sim != NULL ? sim_wall() : world_os_ns(CLOCK_REALTIME) / MS);
}

uint64_t
mkv_cpu_ns(void)
{
	return (world_os_ns(CLOCK_PROCESS_CPUTIME_ID));
}

static uint64_t
world_now(void *arg)
{
	(void)arg;
	return (mkv_now_ns());
}

static uint64_t
world_wall(void *arg)
{
	(void)arg;
	return (mkv_wall_ms());
}

const struct mkv_clock mkv_clock_os = { world_now, world_wall, NULL };

uint64_t
sim_wall(void)
{
	return (sim->wall_ms + sim->now / MS);
}

/* ---- Chance ----------------------------------------------------------------------------------------------------------------- */

unsigned
sim_below(unsigned n)
{
	return (n == 0 ? 0 : rnd_below(&sim->rnd, n));
}

int
sim_chance(unsigned n, unsigned of)
{
	return (n > 0 && rnd_below(&sim->rnd, of) < n);
}

uint64_t
sim_between(uint64_t lo, uint64_t hi)
{
	return (hi <= lo ? lo : lo + rnd_u64(&sim->rnd) % (hi - lo + 1));
}

/* ---- Events ----------------------------------------------------------------------------------------------------------------- */

static int
event_before(const struct sim_event *a, const struct sim_event *b)
{
	return (a->at < b->at || (a->at == b->at && a->seq < b->seq));
}

void
sim_at(uint64_t at, sim_fn *fn, void *arg, uint64_t n)
{
	struct sim_event e = { at < sim->now ? sim->now : at, sim->seq++, fn, arg, n };
	unsigned i = sim->events++;

	SIM_CHECK(i < SIM_EVENTS_MAX, "too many events");
	for (; i > 0 && event_before(&e, &sim->heap[(i - 1) / 2]); i = (i - 1) / 2)
		sim->heap[i] = sim->heap[(i - 1) / 2];
	sim->heap[i] = e;
}

void
sim_in(uint64_t ns, sim_fn *fn, void *arg, uint64_t n)
{
	sim_at(sim->now + ns, fn, arg, n);
}

static struct sim_event
event_pop(void)
{
	struct sim_event top = sim->heap[0], last = sim->heap[--sim->events];
	unsigned i = 0, k;

	while ((k = 2 * i + 1) < sim->events) {
		if (k + 1 < sim->events && event_before(&sim->heap[k + 1], &sim->heap[k]))
			k++;
		if (!event_before(&sim->heap[k], &last))
			break;
		sim->heap[i] = sim->heap[k];
		i = k;
	}
	sim->heap[i] = last;
	return (top);
}

void
sim_step(int who)
{
	if (sim->on_step != NULL)
		sim->on_step(who);
}

int
sim_run_one(void)
{
	struct sim_event e;

	if (sim->events == 0)
		return (0);
	e = event_pop();
	sim->now = e.at;
	SIM_CHECK(++sim->ran < RUN_MAX, "it does not end: %u events are waiting", sim->events);
	sim_step(STEP_EVENT);
	e.fn(e.arg, e.n);
	return (1);
}

void
sim_run_until(uint64_t at)
{
	while (sim->events > 0 && sim->heap[0].at <= at)
		(void)sim_run_one();
	if (sim->now < at)
		sim->now = at;
}

/* ---- What happened ---------------------------------------------------------------------------------------------------------- */

void
sim_trace(const char *fmt, ...)
{
	va_list ap;
	char *line;
	int n;

	if (!sim->trace)
		return;
	line = trace_line[trace_count++ % TRACE_LINES];
	n = snprintf(line, TRACE_BYTES, "%12.6f ", (double)sim->now / (double)SEC);
	va_start(ap, fmt);
	(void)vsnprintf(line + n, TRACE_BYTES - (size_t)n, fmt, ap);
	va_end(ap);
	if (sim->trace > 1)
		fprintf(stderr, "%s\n", line);
}

void
sim_trace_dump(FILE *to)
{
	uint64_t from = trace_count > TRACE_LINES ? trace_count - TRACE_LINES : 0;

	for (; sim->trace == 1 && from < trace_count; from++)
		fprintf(to, "%s\n", trace_line[from % TRACE_LINES]);
	trace_count = 0;
}

void
sim_fail(const char *fmt, ...)
{
	va_list ap;

	fflush(stdout);
	sim_trace_dump(stderr);
	fprintf(stderr, "FAILED seed=%" PRIu64 "%s at %.6f s: ", sim->seed, sim->what, (double)sim->now / (double)SEC);
	va_start(ap, fmt);
	(void)vfprintf(stderr, fmt, ap);
	va_end(ap);
	fputc('\n', stderr);
	_exit(1);
}
