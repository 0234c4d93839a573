/*
 * How late do calls return when the server is stopped, or dies? Threads with a handle each call put and get with random deadlines; beside them bare threads sleep just
 * as long with clock_nanosleep. Prints one JSON line with both distributions of lateness: quantiles, and how many were at most so late (in us, to the next step of the
 * histogram, 1/16). The way of the calls is MEMKV_TRANSPORT's, their memory registered where that is RDMA.
 *
 *   stop   rounds: sessions are up, the pids get SIGSTOP, everybody makes PER_ROUND calls, the pids go on. A request without an answer ends its queue pair (the
 *          fence), so by RDMA there are as many of them as calls in a round, and they are attached again in the next.
 *   kill   one round: the pids get SIGSTOP, everybody begins his calls, and while the first of them wait the pids get SIGKILL
 *
 * usage: deadline_probe stop|kill SERVERS CALLS PID...
 */
#include "config.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <memkv/memkv.h>

#include "common/base/assert.h"
#include "common/base/clock.h"
#include "common/base/hist.h"

#define THREADS		4u
#define PER_ROUND	3u		/* below what opens the breaker: every call waits for its deadline */
#define VALUE_BYTES	(256u * 1024)
#define WARM_US		30000000u
#define PROVEN_US	1100000u	/* a queue pair that lived shorter is attached again after a back-off only */
#define KILL_US		15000u

struct probe {
	int		bare;
	unsigned	seed, calls;		/* in a round */
	struct mkv_client *c;
	struct mkv_region *region;
	void		*value;
	unsigned	early, wrong, fences;
	struct mkv_hist	late;
};

static struct probe probes[2 * THREADS];
static pthread_barrier_t step;
static const char *servers;
static unsigned rounds;
static int by_rdma;

static void
give_up(const char *what, const char *why)
{
	fprintf(stderr, "deadline_probe: %s: %s\n", what, why);
	exit(1);
}

/* ---- calls ---- */

/* By RDMA longer ones: on the lab's emulated processors a request that has less is over before it has left, and then there is nothing to be fenced. */
static uint64_t
probe_deadline_us(struct probe *p)
{
	return (by_rdma ? 100000 + (uint64_t)rand_r(&p->seed) % 60000 : 5000 + (uint64_t)rand_r(&p->seed) % 30000);
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
probe_calls(struct probe *p)
{
	for (unsigned i = 0; i < p->calls; i++) {
		uint64_t us = probe_deadline_us(p), began = mkv_now_ns();
		int r;

		if (i % 2 == 0)
			r = mkv_put(p->c, "probe", 5, p->value, VALUE_BYTES, NULL, us, NULL);
		else
			r = mkv_get(p->c, "probe", 5, p->value, VALUE_BYTES, us, NULL) > 0 ? 0 : -1;
		probe_note(p, began, us, r);
	}
}

/* ---- a handle ---- */

static void
probe_open(struct probe *p)
{
	struct mkv_client_opts o = { .size = sizeof(o), .servers = servers, .connections = by_rdma ? PER_ROUND : 1, .inflight_max = 8 };
	char why[256] = "";
	int r;

	if (mkv_client_open(&p->c, &o, why, sizeof(why)) != 0)
		give_up("cannot open a handle", why);
	if ((r = mkv_region_alloc(p->c, VALUE_BYTES, &p->region)) != 0)
		give_up("no memory", mkv_strerror(r));
	p->value = mkv_region_base(p->region, NULL);
	memset(p->value, 0, VALUE_BYTES);
}

/* Sum of the handle's samples of that name. */
static unsigned
probe_metric(struct probe *p, const char *name)
{
	size_t n = mkv_client_metrics(p->c, NULL, 0) + 4096, bytes = strlen(name);
	char *text = calloc(1, n), *line, *rest = NULL;
	unsigned sum = 0;

	if (text == NULL)
		give_up("no memory", name);
	(void)mkv_client_metrics(p->c, text, n);
	for (line = strtok_r(text, "\n", &rest); line != NULL; line = strtok_r(NULL, "\n", &rest))
		if (strncmp(line, name, bytes) == 0 && (line[bytes] == ' ' || line[bytes] == '{'))
			sum += (unsigned)strtoul(strrchr(line, ' '), NULL, 10);
	free(text);
	return (sum);
}

/* Sessions are up, and have been long enough. */
static void
probe_warm(struct probe *p)
{
	uint64_t until = mkv_now_ns() + WARM_US * MKV_NS_PER_US;
	int r;

	while ((r = mkv_warm(p->c, WARM_US)) != 0 || (by_rdma && probe_metric(p, "memkv_client_rail_sessions") < PER_ROUND)) {
		if (mkv_now_ns() > until)
			give_up("the server cannot be reached", mkv_strerror(r));
		(void)usleep(10000);
	}
	if (by_rdma)
		(void)usleep(PROVEN_US);
}

static void *
probe_run(void *arg)
{
	struct probe *p = arg;

	if (!p->bare)
		probe_open(p);
	for (unsigned i = 0; i < rounds; i++) {
		if (!p->bare)
			probe_warm(p);
		(void)pthread_barrier_wait(&step);	/* sessions are up */
		(void)pthread_barrier_wait(&step);	/* servers are stopped */
		if (p->bare)
			probe_bare(p);
		else
			probe_calls(p);
		(void)pthread_barrier_wait(&step);	/* all have measured */
	}
	if (p->bare)
		return (NULL);
	p->fences = probe_metric(p, "memkv_client_fences_total");
	(void)mkv_region_free(p->region);
	mkv_client_close(p->c);
	return (NULL);
}

/* ---- what comes out ---- */

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

static int
print_all(void)
{
	struct mkv_hist calls = { 0 }, bare = { 0 };
	unsigned early = 0, wrong = 0, fences = 0;

	for (unsigned i = 0; i < 2 * THREADS; i++) {
		mkv_hist_merge(probes[i].bare ? &bare : &calls, &probes[i].late);
		early += probes[i].early;
		wrong += probes[i].wrong;
		fences += probes[i].fences;
	}
	printf("{");
	probe_print("calls", &calls);
	printf(",");
	probe_print("bare", &bare);
	printf(",\"early\":%u,\"wrong\":%u,\"fences\":%u}\n", early, wrong, fences);
	return (wrong != 0);
}

/* ---- running ---- */

static void
probe_signal(char **pids, int sig)
{
	for (; *pids != NULL; pids++)
		if (kill((pid_t)atoi(*pids), sig) != 0)
			perror("deadline_probe: kill");
}

static void
run_rounds(char **pids, int dies)
{
	for (unsigned i = 0; i < rounds; i++) {
		(void)pthread_barrier_wait(&step);
		probe_signal(pids, SIGSTOP);
		(void)pthread_barrier_wait(&step);
		if (dies) {
			(void)usleep(KILL_US);
			probe_signal(pids, SIGKILL);
		}
		(void)pthread_barrier_wait(&step);
		if (!dies)
			probe_signal(pids, SIGCONT);
	}
}

int
main(int argc, char **argv)
{
	const char *transport = getenv("MEMKV_TRANSPORT");
	pthread_t t[2 * THREADS];
	unsigned calls;
	int dies;

	if (argc < 5 || (strcmp(argv[1], "stop") != 0 && strcmp(argv[1], "kill") != 0)) {
		fprintf(stderr, "usage: deadline_probe stop|kill SERVERS CALLS PID...\n");
		return (2);
	}
	dies = strcmp(argv[1], "kill") == 0;
	servers = argv[2];
	by_rdma = transport != NULL && strcmp(transport, "rdma") == 0;
	calls = ((unsigned)atoi(argv[3]) + THREADS - 1) / THREADS;
	rounds = dies ? 1 : (calls + PER_ROUND - 1) / PER_ROUND;
	(void)pthread_barrier_init(&step, NULL, 2 * THREADS + 1);
	for (unsigned i = 0; i < 2 * THREADS; i++) {
		probes[i] = (struct probe){ .bare = i >= THREADS, .seed = i + 1, .calls = dies ? calls : PER_ROUND };
		if (pthread_create(&t[i], NULL, probe_run, &probes[i]) != 0)
			give_up("no thread", strerror(errno));
	}
	run_rounds(argv + 4, dies);
	for (unsigned i = 0; i < 2 * THREADS; i++)
		(void)pthread_join(t[i], NULL);
	return (print_all());
}
