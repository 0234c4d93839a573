/*
 * `memkv bench`: options, checks that a run makes sense, exit status. One run a process.
 */
#include "config.h"
#include "bench/bench.h"

#include <signal.h>
#include <stdlib.h>
#include <string.h>

#include <jansson.h>
#include <memkv/memkv.h>

#include "bench/bench_priv.h"
#include "common/base/assert.h"
#include "common/base/err.h"

static const char *const main_modes[MODE_COUNT] = {
	[MODE_FILL] = "fill", [MODE_PUT] = "put", [MODE_GET] = "get", [MODE_MIXED] = "mixed", [MODE_EXISTS] = "exists", [MODE_MATCH] = "match",
	[MODE_REPLAY] = "replay"
};

static const char *const main_modes_help[MODE_COUNT] = {
	[MODE_FILL] = "put each of --keys keys once", [MODE_PUT] = "put random keys again and again", [MODE_GET] = "get random keys",
	[MODE_MIXED] = "gets and puts, --read-percent of them gets", [MODE_EXISTS] = "ask for --batch keys in one request",
	[MODE_MATCH] = "ask how long the known head of a chain of --batch keys is",
	[MODE_REPLAY] = "requests of an inference service: match, get what is there, put the rest"
};

const struct mkv_opt bench_options[] = {
#define BENCH_OPT(name, letter, type, field, arg, deflt, limits, ops, help) \
	{ name, letter, MKV_OPT_##type, offsetof(struct bench_params, field), arg, deflt, limits, help, ops },
#include "bench/options.def"
#undef BENCH_OPT
};
const unsigned bench_options_count = MKV_ARRAY_LEN(bench_options);

static const struct bench_driver *const main_drivers[] = {
	&bench_driver_memkv, &bench_driver_redis, &bench_driver_memcached, &bench_driver_files, &bench_driver_memcpy,
	&bench_driver_null
};

static volatile sig_atomic_t main_signal;

static void
main_on_signal(int sig)
{
	main_signal = sig;
}

int
bench_interrupted(void)
{
	return (main_signal != 0);
}

const char *
bench_mode_name(enum bench_mode m)
{
	return (main_modes[m]);
}

const struct bench_driver *
bench_driver_find(const char *name)
{
	for (unsigned i = 0; i < MKV_ARRAY_LEN(main_drivers); i++)
		if (strcmp(main_drivers[i]->name, name) == 0)
			return (main_drivers[i]);
	return (NULL);
}

/* Digits of v, at least `least` of them. */
static char *
main_digits(char *to, uint64_t v, unsigned least)
{
	char text[24];
	unsigned n = sizeof(text);

	do
		text[--n] = (char)('0' + v % 10);
	while ((v /= 10) > 0 || sizeof(text) - n < least);
	memcpy(to, text + n, sizeof(text) - n);
	return (to + sizeof(text) - n);
}

/* By hand: printf would be most of the time of a batch of thousands of keys. */
size_t
bench_key(char dst[BENCH_KEY_BYTES], char space, uint64_t seed, uint64_t number)
{
	char *p = dst;

	memcpy(p, "bench:", 6);
	p = main_digits(p + 6, seed, 1);
	*p++ = ':';
	*p++ = space;
	*p++ = ':';
	p = main_digits(p, number, 12);
	*p = '\0';
	return ((size_t)(p - dst));
}

void
bench_drv_opts(const struct bench_params *p, struct bench_drv_opts *o, uint64_t concurrency, uint64_t value_bytes)
{
	*o = (struct bench_drv_opts){ .servers = p->servers, .transport = p->transport, .namespace_ = p->namespace_, .config_file = p->config_file,
		.concurrency = concurrency, .connections = p->connections, .value_bytes = value_bytes, .keys = p->keys, .no_crc = p->no_crc,
		.durability = p->durability, .files_direct = p->files_direct, .files_sync = p->files_sync };
	if (o->connections == 0)
		o->connections = (uint64_t)p->drv->default_connections;
}

/* The caller keeps others out. */
void
bench_count_error(struct bench_result *res, int status, const char *what, const char *key)
{
	unsigned i = status < 0 && status > -(int)BENCH_ERRORS_MAX ? (unsigned)-status : 0;

	bench_add(&res->stats->errors, 1);
	bench_add(&res->stats->error_by[i], 1);
	if (res->first_error[0] == '\0')
		snprintf(res->first_error, sizeof(res->first_error), "%s of key %s: %s", what, key, mkv_strerror(status));
}

static int
main_wrong(char *why, size_t why_bytes, const char *text)
{
	snprintf(why, why_bytes, "%s", text);
	return (-1);
}

/* Combinations that the option table cannot refuse by itself. 0 or -1. */
static int
main_check(struct bench_params *p, char *why, size_t why_bytes)
{
	if (p->threads > BENCH_THREADS_MAX || p->threads > p->concurrency)
		return (main_wrong(why, why_bytes, "--threads: at most 64, and not more than --concurrency"));
	if (p->concurrency > BENCH_INFLIGHT_MAX || p->batch > BENCH_INFLIGHT_MAX || p->concurrency * p->batch > BENCH_INFLIGHT_MAX * 16)
		return (main_wrong(why, why_bytes, "--concurrency times --batch: too many keys in flight at once"));
	if ((p->mode == MODE_PUT || p->mode == MODE_MIXED) && p->keys < p->concurrency * p->batch)
		return (main_wrong(why, why_bytes, "--keys: puts in flight need a key each, so at least --concurrency times --batch"));
	if (p->verify && !p->drv->keeps_values)
		return (main_wrong(why, why_bytes, "--verify: this driver keeps no values"));
	if (p->keys > 1ull << 34 || p->size > 1ull << 40 || p->block_bytes > 1ull << 40)
		return (main_wrong(why, why_bytes, "--keys up to 2^34, --size and --block-bytes up to 1TiB"));
	if (p->mode == MODE_REPLAY && p->trace == NULL)
		return (main_wrong(why, why_bytes, "replay needs --trace FILE"));
	if (p->duration_us == 0 && p->ops == 0 && p->mode != MODE_FILL)
		p->duration_us = 10000000;
	return (0);
}

/* 0; -1 wrong usage with why; 1 help was asked for. */
static int
main_parse(struct bench_params *p, int argc, char **argv, const char **words, char *why, size_t why_bytes)
{
	unsigned mode = 0;

	if (argc < 2 || strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0)
		return (argc < 2 ? main_wrong(why, why_bytes, "an operation is missing: memkv bench --help lists them") : 1);
	while (mode < MODE_COUNT && strcmp(argv[1], main_modes[mode]) != 0)
		mode++;
	if (mode == MODE_COUNT) {
		snprintf(why, why_bytes, "unknown operation %s: fill, put, get, mixed, exists, match or replay", argv[1]);
		return (-1);
	}
	p->mode = mode;
	if (mkv_opt_parse(bench_options, bench_options_count, 1u << mode, p, argc - 2, argv + 2, words, why, why_bytes) < 0)
		return (-1);
	if (p->help)
		return (1);
	if (words[0] != NULL) {
		snprintf(why, why_bytes, "%s is no option", words[0]);
		return (-1);
	}
	if (p->threads == 0)
		p->threads = p->batch = p->keys = 1;		/* replay does not know these */
	p->drv = bench_driver_find(p->driver);
	MKV_ASSERT(p->drv != NULL);
	return (main_check(p, why, why_bytes));
}

void
mkv_bench_list_ops(FILE *to)
{
	for (unsigned i = 0; i < MODE_COUNT; i++)
		fprintf(to, "%s\t%s\n", main_modes[i], main_modes_help[i]);
}

void
mkv_bench_list_options(FILE *to, const char *op)
{
	for (unsigned i = 0; i < MODE_COUNT; i++)
		if (strcmp(op, main_modes[i]) == 0)
			mkv_opt_list(to, bench_options, bench_options_count, 1u << i);
}

void
mkv_bench_help(FILE *to)
{
	fprintf(to, "usage: memkv bench OPERATION [OPTION]...\n\nLoad for a store, and for what it is compared with.\n\n");
	for (unsigned i = 0; i < MODE_COUNT; i++)
		fprintf(to, "  %-8s %s\n", main_modes[i], main_modes_help[i]);
	fprintf(to, "\nOptions (not every operation knows all of them: memkv bench OPERATION --help):\n");
	mkv_opt_help(to, bench_options, bench_options_count, O_ALL);
	fprintf(to, "\nThe exit status is 0 only when no operation failed and no byte was wrong; misses are no failure.\n");
}

static void
main_help(FILE *to, const struct bench_params *p, int argc)
{
	if (argc < 3) {
		mkv_bench_help(to);
		return;
	}
	fprintf(to, "usage: memkv bench %s [OPTION]...: %s\n\n", main_modes[p->mode], main_modes_help[p->mode]);
	mkv_opt_help(to, bench_options, bench_options_count, 1u << p->mode);
}

static int
main_status(const struct bench_result *res, int rc)
{
	if (res->stats->verify_failures > 0)
		return (6);
	if (rc != 0)
		return (mkv_err_exit(rc));
	return (res->stats->errors > 0 || res->interrupted ? 1 : 0);
}

/* The standard error has it in words; with --json it is the one object as well. */
static void
main_complain(const char *why, int status, int json)
{
	json_t *j;

	fprintf(stderr, "memkv bench: %s\n", why);
	if (!json)
		return;
	j = json_pack("{s:s}", "status", mkv_status_name(status));
	json_object_set_new(j, "error", json_string(why));	/* not there if it is no UTF-8 */
	json_dumpf(j, stdout, JSON_COMPACT);
	fputc('\n', stdout);
	json_decref(j);
}

static int
main_run(const struct bench_params *p)
{
	struct sigaction sa = { .sa_handler = main_on_signal, .sa_flags = (int)SA_RESETHAND };
	static struct bench_stats stats;
	static struct bench_replay_result replay;
	struct bench_result res = { .stats = &stats, .server_cpu_s = -1, .replay = p->mode == MODE_REPLAY ? &replay : NULL };
	char why[512] = "";
	int rc;

	sigaction(SIGINT, &sa, NULL);			/* a second one ends us at once */
	sigaction(SIGTERM, &sa, NULL);
	rc = p->mode == MODE_REPLAY ? bench_replay(p, &res, why, sizeof(why)) : bench_run(p, &res, why, sizeof(why));
	if (rc != 0)
		main_complain(why[0] != '\0' ? why : mkv_strerror(rc), rc, p->json && res.seconds <= 0);
	if (rc == 0 || res.seconds > 0) {
		bench_report_text(stdout, p, &res);
		if (p->json)
			bench_report_json(stdout, p, &res);
	}
	if (fflush(stdout) != 0)
		return (1);
	return (main_status(&res, rc));
}

int
mkv_bench_main(int argc, char **argv)
{
	struct bench_params p = { 0 };
	const char **words = calloc((size_t)argc + 1, sizeof(*words));
	char why[512] = "";
	int r;

	if (words == NULL)
		return (1);
	r = main_parse(&p, argc, argv, words, why, sizeof(why));
	free(words);
	if (r == 0)
		return (main_run(&p));
	if (r == 1) {
		main_help(stdout, &p, argc);
		return (0);
	}
	main_complain(why, MKV_ERR_INVAL, mkv_opt_given(argc, argv, "json", 'j'));
	return (2);
}
