/*
 * The result of a run: a table for people, one JSON line for scripts (the names are fixed: memkv-bench(1)). Reads, owns nothing.
 */
#include "config.h"
#include "bench/bench_priv.h"

#include <string.h>

#include <jansson.h>

#include "common/base/units.h"

#define GIB	(1024.0 * 1024 * 1024)

static double
report_us(const struct mkv_hist *h, double q)
{
	return ((double)mkv_hist_quantile_ns(h, q) / 1e3);
}

static double
report_rate(uint64_t n, double seconds)
{
	return (seconds > 0 ? (double)n / seconds : 0);
}

static void
report_latency_line(FILE *to, const char *what, const struct mkv_hist *h)
{
	if (h->count == 0)
		return;
	fprintf(to, "  %-10s %10llu  %12.3f %12.3f %12.3f %12.3f %12.3f\n", what, (unsigned long long)h->count, report_us(h, 0.5) / 1e3,
	    report_us(h, 0.9) / 1e3, report_us(h, 0.99) / 1e3, report_us(h, 0.999) / 1e3, (double)h->max_ns / 1e6);
}

static void
report_latency(FILE *to, const struct bench_params *p, const struct bench_result *res)
{
	fprintf(to, "\n  %-10s %10s  %12s %12s %12s %12s %12s\n", "latency ms", "count", "p50", "p90", "p99", "p99.9", "max");
	if (res->replay != NULL) {
		report_latency_line(to, "match", &res->replay->match);
		report_latency_line(to, "get", &res->replay->get);
		report_latency_line(to, "put", &res->replay->put);
		report_latency_line(to, "request", &res->replay->request);
	} else
		report_latency_line(to, bench_mode_name(p->mode), &res->stats->latency);
}

static void
report_counts(FILE *to, const struct bench_result *res)
{
	const struct bench_stats *s = res->stats;

	if (s->hits + s->misses > 0)
		fprintf(to, "  hits         %llu of %llu (%.2f %%)\n", (unsigned long long)s->hits, (unsigned long long)(s->hits + s->misses),
		    100.0 * (double)s->hits / (double)(s->hits + s->misses));
	for (unsigned i = 0; i < BENCH_REASONS_MAX; i++)
		if (s->miss_by[i] > 0)
			fprintf(to, "  misses       %llu %s\n", (unsigned long long)s->miss_by[i],
			    i == BENCH_REASONS_MAX - 1 ? "behind_a_miss" : mkv_miss_label(i));
	for (unsigned i = 0; i < BENCH_ERRORS_MAX; i++)
		if (s->error_by[i] > 0)
			fprintf(to, "  errors       %llu %s (%s)\n", (unsigned long long)s->error_by[i], mkv_status_name(-(int)i),
			    mkv_strerror(-(int)i));
	if (s->verify_failures > 0)
		fprintf(to, "  WRONG BYTES  %llu\n", (unsigned long long)s->verify_failures);
	if (res->first_error[0] != '\0')
		fprintf(to, "  first failure: %s\n", res->first_error);
	if (res->unstarted > 0)
		fprintf(to, "  never started, since the rate was not reached: %llu\n", (unsigned long long)res->unstarted);
}

static void
report_replay(FILE *to, const struct bench_replay_result *rp, double seconds)
{
	char a[32], b[32];

	fprintf(to, "  requests     %llu of %llu\n", (unsigned long long)rp->requests, (unsigned long long)rp->requests_total);
	fprintf(to, "  blocks       %llu, %llu of them distinct\n", (unsigned long long)rp->blocks, (unsigned long long)rp->distinct);
	fprintf(to, "  ceiling      %.2f %% prefix hits in a cache without limit that starts empty\n",
	    rp->blocks ? 100.0 * (double)rp->ceiling_hits / (double)rp->blocks : 0);
	fprintf(to, "  read         %llu blocks, %s, %.3f GiB/s\n", (unsigned long long)rp->got_blocks,
	    mkv_size_human(a, sizeof(a), rp->got_bytes), report_rate(rp->got_bytes, seconds) / GIB);
	fprintf(to, "  written      %llu blocks, %s, %.3f GiB/s\n", (unsigned long long)rp->put_blocks,
	    mkv_size_human(b, sizeof(b), rp->put_bytes), report_rate(rp->put_bytes, seconds) / GIB);
}

void
bench_report_text(FILE *to, const struct bench_params *p, const struct bench_result *res)
{
	const struct bench_stats *s = res->stats;
	struct bench_host h;
	char size[32];

	mkv_size_format(size, sizeof(size), p->mode == MODE_REPLAY ? p->block_bytes : p->size);
	fprintf(to, "%s by %s%s%s: values of %s, %llu in flight%s%s\n", bench_mode_name(p->mode), p->drv->name, res->transport[0] ? " over " : "",
	    res->transport, size, (unsigned long long)p->concurrency, p->verify ? ", every byte verified" : "",
	    res->interrupted ? " (INTERRUPTED)" : "");
	fprintf(to, "  time         %.3f s\n", res->seconds);
	if (res->replay != NULL)
		report_replay(to, res->replay, res->seconds);
	fprintf(to, "  throughput   %.1f ops/s, %.3f GiB/s\n", report_rate(s->ops, res->seconds), report_rate(s->bytes, res->seconds) / GIB);
	report_counts(to, res);
	report_latency(to, p, res);
	bench_host(&h);
	fprintf(to, "\n  CPU          client %.2f s", res->client_cpu_s);
	if (res->server_cpu_s >= 0)
		fprintf(to, ", server %.2f s", res->server_cpu_s);
	fprintf(to, "\n  host         %d cores, %s, %s, load %.2f\n", h.cores, h.cpu, h.kernel, h.load);
}

static json_t *
report_json_latency(const struct mkv_hist *h)
{
	return (json_pack("{s:f, s:f, s:f, s:f, s:f}", "p50", report_us(h, 0.5), "p90", report_us(h, 0.9), "p99", report_us(h, 0.99),
	    "p999", report_us(h, 0.999), "max", (double)h->max_ns / 1e3));
}

static json_t *
report_json_misses(const struct bench_stats *s)
{
	json_t *j = json_object();

	for (unsigned i = 0; i < BENCH_REASONS_MAX; i++)
		if (s->miss_by[i] > 0)
			json_object_set_new(j, i == BENCH_REASONS_MAX - 1 ? "behind_a_miss" : mkv_miss_label(i), json_integer((json_int_t)s->miss_by[i]));
	return (j);
}

static json_t *
report_json_replay(const struct bench_replay_result *rp, const struct bench_stats *s)
{
	double all = (double)(s->hits + s->misses);

	return (json_pack("{s:I, s:I, s:I, s:f, s:f, s:I, s:I, s:I, s:I, s:o, s:o, s:o, s:o}", "requests", (json_int_t)rp->requests,
	    "blocks", (json_int_t)rp->blocks, "distinct", (json_int_t)rp->distinct, "hit_ratio", all > 0 ? (double)s->hits / all : 0.0,
	    "ceiling", rp->blocks > 0 ? (double)rp->ceiling_hits / (double)rp->blocks : 0.0, "read_blocks", (json_int_t)rp->got_blocks,
	    "read_bytes", (json_int_t)rp->got_bytes, "written_blocks", (json_int_t)rp->put_blocks, "written_bytes", (json_int_t)rp->put_bytes,
	    "match_us", report_json_latency(&rp->match), "get_us", report_json_latency(&rp->get), "put_us", report_json_latency(&rp->put),
	    "request_us", report_json_latency(&rp->request)));
}

static json_t *
report_json_host(void)
{
	struct bench_host h;

	bench_host(&h);
	return (json_pack("{s:i, s:s, s:s, s:o}", "cores", h.cores, "kernel", h.kernel, "cpu", h.cpu, "load", h.load < 0 ? json_null() : json_real(h.load)));
}

static json_t *
report_json_cpu(const struct bench_result *res)
{
	return (json_pack("{s:f, s:o}", "client", res->client_cpu_s, "server", res->server_cpu_s < 0 ? json_null() : json_real(res->server_cpu_s)));
}

int
bench_report_json(FILE *to, const struct bench_params *p, const struct bench_result *res)
{
	const struct bench_stats *s = res->stats;
	json_t *j;
	int r;

	j = json_pack("{s:s, s:s, s:s, s:I, s:I, s:I, s:f, s:I, s:I, s:f, s:f, s:o, s:I, s:o, s:I, s:I, s:o, s:o}", "op", bench_mode_name(p->mode),
	    "driver", p->drv->name, "transport", res->transport, "size", (json_int_t)(p->mode == MODE_REPLAY ? p->block_bytes : p->size),
	    "concurrency", (json_int_t)p->concurrency, "batch", (json_int_t)p->batch, "seconds", res->seconds, "ops", (json_int_t)s->ops,
	    "bytes", (json_int_t)s->bytes, "gib_per_s", report_rate(s->bytes, res->seconds) / GIB, "ops_per_s", report_rate(s->ops, res->seconds),
	    "latency_us", report_json_latency(&s->latency), "hits", (json_int_t)s->hits, "misses", report_json_misses(s),
	    "errors", (json_int_t)s->errors, "verify_failures", (json_int_t)s->verify_failures, "cpu_s", report_json_cpu(res),
	    "host", report_json_host());
	if (j == NULL)
		return (-1);
	if (res->unstarted > 0)
		json_object_set_new(j, "unstarted", json_integer((json_int_t)res->unstarted));
	if (res->replay != NULL)
		json_object_set_new(j, "replay", report_json_replay(res->replay, s));
	r = json_dumpf(j, to, JSON_COMPACT | JSON_PRESERVE_ORDER | JSON_REAL_PRECISION(9));
	fputc('\n', to);
	json_decref(j);
	return (r);
}
