/*
 * How late do calls return when the server is stopped? Threads with handles of their own call put and get with random deadlines against servers that this
 * program stops (SIGSTOP) after the sessions are up; beside them bare threads sleep just as long with clock_nanosleep. Prints one JSON line with both
 * distributions of lateness: quantiles, and how many were at most so late (in us, to the next step of the histogram, 1/16). The pids are continued before
 * exit.
 *
 * usage: deadline_probe SERVERS CALLS PID...
 */
#include "config.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <memkv/memkv.h>

#include "common/base/assert.h"
#include "common/base/clock.h"
#include "common/base/hist.h"

#define THREADS		4
#define PER_HANDLE	2		/* below what opens the breaker: every call waits for its deadline */
#define VALUE_BYTES	(256 * 1024)

struct probe {
	const char	*servers;
	unsigned	calls;
	int		bare;
	unsigned	seed;
	unsigned	early, wrong;
	struct mkv_hist	late;
};

static pthread_barrier_t stopped;

static uint64_t
probe_deadline_us(struct probe *p)
{
	return (5000 + (uint64_t)rand_r(&p->seed) % 30000);
}

static void
probe_note(struct probe *p, uint64_t began_ns, uint64_t deadline_us, int result)
{
	uint64_t took_ns = mkv_now_ns() - began_ns;

	if (result == 0)
		p->wrong++;
	if (took_ns < deadline_us * 1000 && !p->bare)
		p->early++;
	mkv_hist_add(&p->late, took_ns > deadline_us * 1000 ? took_ns - deadline_us * 1000 : 0);
}

static void
probe_bare(struct probe *p)
{
	for (unsigned i = 0; i < p->calls; i++) {
		uint64_t us = probe_deadline_us(p), began = mkv_now_ns(), end = began + us * 1000;
		struct timespec ts = { .tv_sec = (time_t)(end / 1000000000), .tv_nsec = (long)(end % 1000000000) };

		while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &ts, NULL) == EINTR)
			continue;
		probe_note(p, began, us, -1);
	}
}

static void
probe_calls(struct probe *p, struct mkv_client **c, char *value)
{
	for (unsigned i = 0; i < p->calls; i++) {
		struct mkv_client *h = c[i / PER_HANDLE];
		uint64_t us = probe_deadline_us(p), began = mkv_now_ns();
		int r;

		if (i % 2 == 0)
			r = mkv_put(h, "probe", 5, value, VALUE_BYTES, NULL, us, NULL);
		else
			r = mkv_get(h, "probe", 5, value, VALUE_BYTES, us, NULL) > 0 ? 0 : -1;
		probe_note(p, began, us, r);
	}
}

static void *
probe_run(void *arg)
{
	struct probe *p = arg;
	unsigned n = (p->calls + PER_HANDLE - 1) / PER_HANDLE;
	struct mkv_client **c = calloc(n, sizeof(*c));
	struct mkv_client_opts o = { .size = sizeof(o), .servers = p->servers, .transport = "tcp", .connections = 1, .inflight_max = 8 };
	char *value = calloc(1, VALUE_BYTES);
	char why[256] = "";

	for (unsigned i = 0; !p->bare && i < n; i++) {
		if (mkv_client_open(&c[i], &o, why, sizeof(why)) != 0 || mkv_warm(c[i], 20000000) != 0) {
			fprintf(stderr, "deadline_probe: cannot open a handle: %s\n", why);
			exit(1);
		}
	}
	pthread_barrier_wait(&stopped);		/* sessions are up */
	pthread_barrier_wait(&stopped);		/* servers are stopped */
	if (p->bare)
		probe_bare(p);
	else
		probe_calls(p, c, value);
	pthread_barrier_wait(&stopped);		/* all have measured */
	for (unsigned i = 0; !p->bare && i < n; i++)
		mkv_client_close(c[i]);
	free(c);
	free(value);
	return (NULL);
}

static unsigned long long
probe_at_most(const struct mkv_hist *h, uint64_t us)
{
	unsigned long long n = 0;

	for (unsigned i = 0; i <= mkv_hist_slot(us * 1000); i++)
		n += h->slot[i];
	return (n);
}

static void
probe_print(const char *name, const struct mkv_hist *h)
{
	static const unsigned us[] = { 50, 100, 200, 500, 1000, 2000, 5000, 10000, 50000 };

	printf("\"%s\":{\"count\":%llu,\"p50_us\":%.1f,\"p99_us\":%.1f,\"p999_us\":%.1f,\"max_us\":%.1f,\"at_most_us\":{", name,
	    (unsigned long long)h->count, (double)mkv_hist_quantile_ns(h, 0.5) / 1e3, (double)mkv_hist_quantile_ns(h, 0.99) / 1e3,
	    (double)mkv_hist_quantile_ns(h, 0.999) / 1e3, (double)h->max_ns / 1e3);
	for (unsigned i = 0; i < MKV_ARRAY_LEN(us); i++)
		printf("%s\"%u\":%llu", i == 0 ? "" : ",", us[i], probe_at_most(h, us[i]));
	printf("}}");
}

static void
probe_signal(char **pids, int sig)
{
	for (; *pids != NULL; pids++)
		if (kill((pid_t)atoi(*pids), sig) != 0)
			perror("deadline_probe: kill");
}

int
main(int argc, char **argv)
{
	static struct probe p[2 * THREADS];
	pthread_t t[2 * THREADS];
	struct mkv_hist calls = { 0 }, bare = { 0 };
	unsigned early = 0, wrong = 0;

	if (argc < 4) {
		fprintf(stderr, "usage: deadline_probe SERVERS CALLS PID...\n");
		return (2);
	}
	pthread_barrier_init(&stopped, NULL, 2 * THREADS + 1);
	for (int i = 0; i < 2 * THREADS; i++) {
		p[i] = (struct probe){ .servers = argv[1], .calls = (unsigned)atoi(argv[2]) / THREADS, .bare = i >= THREADS, .seed = (unsigned)i + 1 };
		pthread_create(&t[i], NULL, probe_run, &p[i]);
	}
	pthread_barrier_wait(&stopped);
	probe_signal(argv + 3, SIGSTOP);
	pthread_barrier_wait(&stopped);
	pthread_barrier_wait(&stopped);
	probe_signal(argv + 3, SIGCONT);
	for (int i = 0; i < 2 * THREADS; i++) {
		pthread_join(t[i], NULL);
		mkv_hist_merge(p[i].bare ? &bare : &calls, &p[i].late);
		early += p[i].early;
		wrong += p[i].wrong;
	}
	printf("{");
	probe_print("calls", &calls);
	printf(",");
	probe_print("bare", &bare);
	printf(",\"early\":%u,\"wrong\":%u}\n", early, wrong);
	return (wrong != 0);
}
