/*
 * The progress line: a thread of its own wakes once a second, reads the counters beside the load and redraws one line on stderr. Only
 * where stderr is a terminal. It owns nothing of the run.
 */
#include "config.h"
#include "bench/bench_priv.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "common/base/assert.h"
#include "common/base/clock.h"

#define PROGRESS_BAR	24u

struct bench_progress {
	pthread_t		id;
	pthread_mutex_t		lock;
	pthread_cond_t		wake;
	int			quit;
	const struct bench_stats *stats;
	const uint64_t		*done;
	uint64_t		total, start_ns, last_ns, last_ops, last_bytes;
	struct mkv_hist		last, diff;
};

/* What the histogram gained since the last call, in pr->diff. */
static void
progress_diff(struct bench_progress *pr)
{
	const struct mkv_hist *now = &pr->stats->latency;
	uint64_t v;

	memset(&pr->diff, 0, sizeof(pr->diff));
	for (unsigned i = 0; i < MKV_HIST_SLOTS; i++) {
		v = bench_load(&now->slot[i]);
		pr->diff.slot[i] = v - pr->last.slot[i];
		pr->diff.count += pr->diff.slot[i];
		pr->last.slot[i] = v;
	}
	pr->diff.max_ns = bench_load(&now->max_ns);
}

static void
progress_bar(char *dst, size_t dst_bytes, uint64_t done, uint64_t total)
{
	char bar[PROGRESS_BAR + 1];
	unsigned full = (unsigned)((double)MKV_MIN(done, total) / (double)total * PROGRESS_BAR);

	for (unsigned i = 0; i < PROGRESS_BAR; i++)
		bar[i] = i < full ? '#' : '.';
	bar[PROGRESS_BAR] = '\0';
	snprintf(dst, dst_bytes, "[%s] %3u%% ", bar, (unsigned)(100.0 * (double)MKV_MIN(done, total) / (double)total));
}

static void
progress_draw(struct bench_progress *pr)
{
	const struct bench_stats *s = pr->stats;
	uint64_t now = mkv_now_ns(), ops = bench_load(&s->ops), bytes = bench_load(&s->bytes), hits = bench_load(&s->hits),
	    misses = bench_load(&s->misses), bad = bench_load(&s->errors) + bench_load(&s->verify_failures);
	double span = (double)(now - pr->last_ns) / 1e9;
	char head[64], hit[32] = "", wrong[48] = "";

	progress_diff(pr);
	if (pr->total > 0)
		progress_bar(head, sizeof(head), bench_load(pr->done), pr->total);
	else
		snprintf(head, sizeof(head), "%4.0f s ", (double)(now - pr->start_ns) / 1e9);
	if (hits + misses > 0)
		snprintf(hit, sizeof(hit), "  hits %.1f %%", 100.0 * (double)hits / (double)(hits + misses));
	if (bad > 0)
		snprintf(wrong, sizeof(wrong), "  FAILED %llu", (unsigned long long)bad);
	fprintf(stderr, "\r%s %8.0f ops/s %7.3f GiB/s  p99 %7.2f ms%s%s\033[K", head, (double)(ops - pr->last_ops) / span,
	    (double)(bytes - pr->last_bytes) / span / (1 << 30), (double)mkv_hist_quantile_ns(&pr->diff, 0.99) / 1e6, hit, wrong);
	fflush(stderr);
	pr->last_ns = now;
	pr->last_ops = ops;
	pr->last_bytes = bytes;
}

static void *
progress_loop(void *arg)
{
	struct bench_progress *pr = arg;
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	pthread_mutex_lock(&pr->lock);
	while (!pr->quit) {
		ts.tv_sec++;
		while (!pr->quit && pthread_cond_timedwait(&pr->wake, &pr->lock, &ts) == 0)
			continue;
		if (!pr->quit)
			progress_draw(pr);
	}
	pthread_mutex_unlock(&pr->lock);
	return (NULL);
}

struct bench_progress *
bench_progress_start(const struct bench_stats *stats, const uint64_t *done, uint64_t total, int wanted)
{
	struct bench_progress *pr;
	pthread_condattr_t mono;

	if (!wanted || !isatty(STDERR_FILENO) || (pr = calloc(1, sizeof(*pr))) == NULL)
		return (NULL);
	pr->stats = stats;
	pr->done = done;
	pr->total = total;
	pr->start_ns = pr->last_ns = mkv_now_ns();
	pthread_mutex_init(&pr->lock, NULL);
	pthread_condattr_init(&mono);
	pthread_condattr_setclock(&mono, CLOCK_MONOTONIC);
	pthread_cond_init(&pr->wake, &mono);
	pthread_condattr_destroy(&mono);
	if (pthread_create(&pr->id, NULL, progress_loop, pr) == 0)
		return (pr);
	free(pr);
	return (NULL);
}

void
bench_progress_stop(struct bench_progress *pr)
{
	if (pr == NULL)
		return;
	pthread_mutex_lock(&pr->lock);
	pr->quit = 1;
	pthread_cond_signal(&pr->wake);
	pthread_mutex_unlock(&pr->lock);
	pthread_join(pr->id, NULL);
	fputs("\r\033[K", stderr);
	fflush(stderr);
	pthread_cond_destroy(&pr->wake);
	pthread_mutex_destroy(&pr->lock);
	free(pr);
}
