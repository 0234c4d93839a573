/*
 * More callers than a server has buffers for. Each caller has a key and puts and gets values of its own under it, one call after the other, each with the same short
 * deadline; every value says which of the key's puts it came from, in each of its words. Runs in the guest of run-lab, by RDMA or as MEMKV_TRANSPORT says.
 *
 * What must hold: a get brings one of the values that were put, whole; no byte comes into memory after its call has returned; nobody waits past his deadline. When
 * the time is over each caller puts a last value, with time enough, and gets that one. Prints one JSON line. With `exit` the program ends instead, under its
 * callers and without closing anything.
 *
 * usage: overload SERVERS HANDLES CALLERS BYTES DEADLINE_MS SECONDS [exit]
 */
#include "config.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <memkv/memkv.h>

#include "common/base/assert.h"
#include "common/base/clock.h"
#include "common/base/hist.h"

#define CALLERS_MAX	64u
#define HANDLES_MAX	16u
#define STATUS_MAX	32u
#define REASON_MAX	16u
#define ENOUGH_US	60000000ull
#define POISON		0xa5u
#define GUARD		4096u

struct caller {
	unsigned	idx;
	struct mkv_client *c;
	struct mkv_region *region;
	uint64_t	*out, *in;		/* GUARD bytes of poison on both sides of each */
	size_t		bytes;
	char		key[16];
	uint64_t	version;		/* of the last put that was begun */
	int		poisoned;		/* nothing may come into `in` */
	unsigned	good, puts, wrong, stray, lost;
	unsigned	heard[2][STATUS_MAX][REASON_MAX];	/* put, get */
	struct mkv_hist	late;
};

static struct caller callers[CALLERS_MAX];
static struct mkv_client *handles[HANDLES_MAX];
static uint64_t deadline_us, until_ns;

static void
give_up(const char *what, const char *why)
{
	fprintf(stderr, "overload: %s: %s\n", what, why);
	exit(1);
}

/* ---- values ---- */

static uint64_t
word_of(const struct caller *p, uint64_t version, size_t i)
{
	return ((version << 40 | (uint64_t)p->idx << 32 | (uint32_t)i) * 0x9e3779b97f4a7c15ull);
}

static void
fill(struct caller *p)
{
	for (size_t i = 0; i < p->bytes / sizeof(uint64_t); i++)
		p->out[i] = word_of(p, p->version, i);
}

/* 1: it is what that put brought, whole. */
static int
is_version(const struct caller *p, uint64_t version)
{
	for (size_t i = 0; i < p->bytes / sizeof(uint64_t); i++)
		if (p->in[i] != word_of(p, version, i))
			return (0);
	return (1);
}

static int
is_any_version(const struct caller *p)
{
	for (uint64_t v = p->version; v > 0; v--)
		if (p->in[0] == word_of(p, v, 0))
			return (is_version(p, v));
	return (0);
}

static int
is_poison(const void *at, size_t bytes)
{
	const uint8_t *b = at;

	return (b[0] == POISON && memcmp(b, b + 1, bytes - 1) == 0);
}

static void
look_for_strays(struct caller *p)
{
	const uint8_t *in = (const uint8_t *)p->in;

	if (p->poisoned)
		p->stray += (unsigned)!is_poison(in - GUARD, p->bytes + 2 * (size_t)GUARD);
	else
		p->stray += (unsigned)(!is_poison(in - GUARD, GUARD) || !is_poison(in + p->bytes, GUARD));
}

static void
poison(struct caller *p)
{
	memset((uint8_t *)p->in - GUARD, POISON, p->bytes + 2 * (size_t)GUARD);
	p->poisoned = 1;
}

/* ---- calls ---- */

/* 1: done. */
static int
note(struct caller *p, int get, int64_t r, unsigned reason, uint64_t began_ns, uint64_t us)
{
	uint64_t took_ns = mkv_now_ns() - began_ns;

	mkv_hist_add(&p->late, took_ns > us * MKV_NS_PER_US ? took_ns - us * MKV_NS_PER_US : 0);
	if (r < 0)
		p->heard[get][MKV_MIN((uint64_t)-r, STATUS_MAX - 1)][MKV_MIN(reason, REASON_MAX - 1)]++;
	return (r >= 0);
}

static int
put(struct caller *p, uint64_t us)
{
	struct mkv_object o = { .size = sizeof(o) };
	uint64_t began;
	int r;

	p->version++;
	fill(p);
	began = mkv_now_ns();
	r = mkv_put(p->c, p->key, strlen(p->key), p->out, p->bytes, NULL, us, &o);
	return (note(p, 0, r, o.reason, began, us));
}

static int
get(struct caller *p, uint64_t us)
{
	struct mkv_object o = { .size = sizeof(o) };
	uint64_t began;
	int64_t r;

	look_for_strays(p);
	p->poisoned = 0;
	began = mkv_now_ns();
	r = mkv_get(p->c, p->key, strlen(p->key), p->in, p->bytes, us, &o);
	if (!note(p, 1, r, o.reason, began, us)) {
		poison(p);
		return (0);
	}
	look_for_strays(p);
	return (1);
}

static void
check_last(struct caller *p)
{
	if (!put(p, ENOUGH_US) || !get(p, ENOUGH_US))
		p->lost++;
	else
		p->wrong += (unsigned)!is_version(p, p->version);
}

static void *
caller_main(void *arg)
{
	struct caller *p = arg;

	poison(p);
	while (mkv_now_ns() < until_ns) {
		if (put(p, deadline_us)) {
			p->good++;
			p->puts++;
		}
		if (get(p, deadline_us)) {
			p->good++;
			p->wrong += (unsigned)!is_any_version(p);
		}
	}
	return (NULL);
}

/* ---- setting up ---- */

static void
open_handle(struct mkv_client **c, const char *servers)
{
	struct mkv_client_opts o = { .size = sizeof(o), .servers = servers, .connections = 1, .inflight_max = 64 };
	char why[256] = "";
	int r;

	if (mkv_client_open(c, &o, why, sizeof(why)) != 0)
		give_up("cannot open a handle", why);
	if ((r = mkv_warm(*c, ENOUGH_US)) != 0)
		give_up("cannot reach the server", mkv_strerror(r));
}

static void
make_caller(struct caller *p, unsigned idx, struct mkv_client *c, size_t bytes)
{
	size_t room = (bytes + GUARD - 1) / GUARD * GUARD + GUARD;
	uint8_t *base;
	int r;

	p->idx = idx;
	p->c = c;
	p->bytes = bytes;
	(void)snprintf(p->key, sizeof(p->key), "overload/%u", idx);
	if ((r = mkv_region_alloc(c, 2 * room + GUARD, &p->region)) != 0)
		give_up("no memory", mkv_strerror(r));
	base = mkv_region_base(p->region, NULL);
	p->out = (uint64_t *)(void *)(base + GUARD);
	p->in = (uint64_t *)(void *)(base + GUARD + room);
}

/* ---- what comes out ---- */

static void
print_heard(unsigned n, int op)
{
	const char *sep = "";

	printf("\"%s\":{", op == 0 ? "put" : "get");
	for (unsigned s = 0; s < STATUS_MAX; s++)
		for (unsigned k = 0; k < REASON_MAX; k++) {
			unsigned sum = 0;

			for (unsigned i = 0; i < n; i++)
				sum += callers[i].heard[op][s][k];
			if (sum == 0)
				continue;
			printf("%s\"%s/%s\":%u", sep, mkv_status_name(-(int)s), mkv_miss_label(k), sum);
			sep = ",";
		}
	printf("}");
}

static void
print_all(unsigned n)
{
	unsigned good = 0, puts = 0, wrong = 0, stray = 0, lost = 0, least = UINT32_MAX, most = 0;
	struct mkv_hist late = { 0 };

	for (unsigned i = 0; i < n; i++) {
		const struct caller *p = &callers[i];

		good += p->good;
		puts += p->puts;
		wrong += p->wrong;
		stray += p->stray;
		lost += p->lost;
		least = MKV_MIN(least, p->good);
		most = MKV_MAX(most, p->good);
		mkv_hist_merge(&late, &p->late);
	}
	printf("{\"good\":%u,\"puts\":%u,\"least\":%u,\"most\":%u,\"wrong\":%u,\"stray\":%u,\"lost\":%u,\"late_ms\":{\"p99\":%.3f,\"max\":%.3f},", good, puts, least, most,
	    wrong, stray, lost, (double)mkv_hist_quantile_ns(&late, 0.99) / 1e6, (double)late.max_ns / 1e6);
	print_heard(n, 0);
	printf(",");
	print_heard(n, 1);
	printf("}\n");
}

static void
run_all(unsigned n, double seconds, int leave)
{
	pthread_t t[CALLERS_MAX];

	until_ns = mkv_now_ns() + (uint64_t)(seconds * 1e9) + (leave ? ENOUGH_US * MKV_NS_PER_US : 0);
	for (unsigned i = 0; i < n; i++)
		if (pthread_create(&t[i], NULL, caller_main, &callers[i]) != 0)
			give_up("no thread", strerror(errno));
	if (leave) {
		(void)usleep((useconds_t)(seconds * 1e6));
		exit(0);
	}
	for (unsigned i = 0; i < n; i++)
		(void)pthread_join(t[i], NULL);
}

int
main(int argc, char **argv)
{
	unsigned n_handles, n;

	if (argc < 7 || (n_handles = (unsigned)atoi(argv[2])) == 0 || n_handles > HANDLES_MAX || (n = (unsigned)atoi(argv[3])) > CALLERS_MAX) {
		fprintf(stderr, "usage: overload SERVERS HANDLES CALLERS BYTES DEADLINE_MS SECONDS [exit]\n");
		return (2);
	}
	for (unsigned i = 0; i < n_handles; i++)
		open_handle(&handles[i], argv[1]);
	for (unsigned i = 0; i < n; i++)
		make_caller(&callers[i], i, handles[i % n_handles], (size_t)atoll(argv[4]) & ~(size_t)7);
	printf("begin\n");
	(void)fflush(stdout);
	deadline_us = (uint64_t)atoll(argv[5]) * 1000;
	run_all(n, atof(argv[6]), argc > 7 && strcmp(argv[7], "exit") == 0);
	printf("over\n");
	(void)fflush(stdout);
	for (unsigned i = 0; i < n; i++) {
		check_last(&callers[i]);
		(void)mkv_region_free(callers[i].region);
	}
	for (unsigned i = 0; i < n_handles; i++)
		mkv_client_close(handles[i]);
	print_all(n);
	return (0);
}
