/*
 * The handle's counters as Prometheus text.
 *
 * Any thread: counters are relaxed atomics, histograms add that way too; a scrape sees each value as of some moment.
 * Fails: never; what does not fit is counted but not written, like snprintf().
 */
#include "config.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "clients/lib/client_priv.h"
#include "common/base/clock.h"

static const char *const op_label[OPK_COUNT] = {
	[OPK_PUT] = "put", [OPK_GET] = "get", [OPK_EXISTS] = "exists", [OPK_DELETE] = "delete", [OPK_STAT] = "stat", [OPK_TOUCH] = "touch",
	[OPK_MATCH] = "match", [OPK_LIST] = "list", [OPK_INFO] = "info", [OPK_WARM] = "ping", [OPK_STREAM] = "put_stream"
};
static const char *const outcome_label[OUTCOME_COUNT] = { "ok", "miss", "timeout", "error" };

static const struct {
	const char	*name, *help;
} counter_row[CC_COUNT] = {
#define CLIENT_COUNTER(name, help)	{ #name, help },
#include "clients/lib/client_metrics.def"
#undef CLIENT_COUNTER
};

enum client_gauge {
#define CLIENT_GAUGE(name, labels, help)	GAUGE_##name,
#include "clients/lib/client_metrics.def"
#undef CLIENT_GAUGE
	GAUGE_COUNT
};
static const struct {
	const char	*name, *help;
} gauge_row[GAUGE_COUNT] = {
#define CLIENT_GAUGE(name, labels, help)	{ #name, help },
#include "clients/lib/client_metrics.def"
#undef CLIENT_GAUGE
};

static const char *const stage_label[CS_COUNT] = {
#define CLIENT_STAGE(name, label, help)	label,
#include "clients/lib/client_metrics.def"
#undef CLIENT_STAGE
};

static unsigned
metrics_outcome(int64_t result)
{
	if (result >= 0)
		return (OUTCOME_OK);
	if (result == MKV_E_MISS)
		return (OUTCOME_MISS);
	return (result == MKV_E_TIMEOUT ? OUTCOME_TIMEOUT : OUTCOME_ERROR);
}

void
mkv_metrics_op(struct op *o)
{
	struct counters *k = &o->c->counters;
	unsigned how = metrics_outcome(o->result);

	atomic_fetch_add_explicit(&k->op[o->kind][how], 1, memory_order_relaxed);
	if (how == OUTCOME_MISS && o->object.reason < MKV_REASON_COUNT)
		atomic_fetch_add_explicit(&k->miss[o->object.reason], 1, memory_order_relaxed);
	mkv_hist_add(&k->stage[CS_TOTAL], mkv_now_ns() - o->start_ns);
}

struct text {
	char		*dst;
	size_t		room, used;		/* used may pass room */
};

static void	text_add(struct text *t, const char *fmt, ...) MKV_PRINTF(2, 3);

static void
text_add(struct text *t, const char *fmt, ...)
{
	size_t left = t->used < t->room ? t->room - t->used : 0;
	va_list ap;
	int n;

	va_start(ap, fmt);
	n = vsnprintf(left > 0 ? t->dst + t->used : NULL, left, fmt, ap);
	va_end(ap);
	t->used += n > 0 ? (size_t)n : 0;
}

static void
text_head(struct text *t, const char *name, const char *type, const char *help)
{
	text_add(t, "# HELP memkv_client_%s %s\n# TYPE memkv_client_%s %s\n", name, help, name, type);
}

static void
text_gauge(struct text *t, enum client_gauge g)
{
	text_head(t, gauge_row[g].name, "gauge", gauge_row[g].help);
}

static uint64_t
load(_Atomic uint64_t *v)
{
	return (atomic_load_explicit(v, memory_order_relaxed));
}

static void
text_counters(struct text *t, struct counters *k)
{
	for (unsigned i = 0; i < CC_COUNT; i++) {
		text_head(t, counter_row[i].name, "counter", counter_row[i].help);
		text_add(t, "memkv_client_%s %" PRIu64 "\n", counter_row[i].name, load(&k->value[i]));
	}
	text_head(t, "operations_total", "counter", "Calls that ended, by operation and outcome.");
	for (unsigned i = OPK_PUT; i < OPK_COUNT; i++)
		for (unsigned j = 0; j < OUTCOME_COUNT; j++)
			text_add(t, "memkv_client_operations_total{op=\"%s\",outcome=\"%s\"} %" PRIu64 "\n", op_label[i], outcome_label[j],
			    load(&k->op[i][j]));
	text_head(t, "misses_total", "counter", "Misses by reason.");
	for (unsigned i = 0; i < MKV_REASON_COUNT; i++)
		text_add(t, "memkv_client_misses_total{reason=\"%s\"} %" PRIu64 "\n", mkv_reason_label(i), load(&k->miss[i]));
}

/* A bucket for each power of two from 16 us up. */
static void
text_stage(struct text *t, const struct mkv_hist *h, const char *label)
{
	uint64_t sum = 0, upper = 16000;
	unsigned slot = 0;

	for (; upper < 16000ull << 21; upper <<= 1) {
		for (; slot < MKV_HIST_SLOTS && mkv_hist_slot_upper_ns(slot) <= upper; slot++)
			sum += __atomic_load_n(&h->slot[slot], __ATOMIC_RELAXED);
		text_add(t, "memkv_client_stage_seconds_bucket{stage=\"%s\",le=\"%.6f\"} %" PRIu64 "\n", label, (double)upper / 1e9, sum);
	}
	for (; slot < MKV_HIST_SLOTS; slot++)
		sum += __atomic_load_n(&h->slot[slot], __ATOMIC_RELAXED);
	text_add(t, "memkv_client_stage_seconds_bucket{stage=\"%s\",le=\"+Inf\"} %" PRIu64 "\n", label, sum);
	text_add(t, "memkv_client_stage_seconds_sum{stage=\"%s\"} %.9f\n", label, (double)__atomic_load_n(&h->sum_ns, __ATOMIC_RELAXED) / 1e9);
	text_add(t, "memkv_client_stage_seconds_count{stage=\"%s\"} %" PRIu64 "\n", label, sum);
}

/* Label values: backslash, quote and newline are escaped. */
static const char *
text_label(char dst[600], const char *s)
{
	char *p = dst;

	for (; *s != '\0' && p < dst + 590; s++) {
		if (*s == '\\' || *s == '"')
			*p++ = '\\';
		*p++ = *s == '\n' ? ' ' : *s;
	}
	*p = '\0';
	return (dst);
}

/* Transport in use: by server, and queue pairs by rail. */
static void
text_rails(struct text *t, struct mkv_client *c)
{
	char name[600];

	for (unsigned i = 0; i < c->cf.n_servers; i++)
		text_add(t, "memkv_client_sessions{server=\"%s\",transport=\"rdma\"} %u\n", text_label(name, c->cf.server[i].name),
		    atomic_load_explicit(&c->state[i].live, memory_order_relaxed));
	text_gauge(t, GAUGE_rail_sessions);
	for (unsigned i = 0; i < c->cf.n_servers; i++)
		for (unsigned k = 0; k < 2 * atomic_load_explicit(&c->state[i].n_rails, memory_order_relaxed); k++)
			text_add(t, "memkv_client_rail_sessions{server=\"%s\",rail=\"%u\",transport=\"%s\"} %u\n", text_label(name, c->cf.server[i].name),
			    k / 2 + 1, k % 2 ? "dc" : "rc", atomic_load_explicit(&c->state[i].rail_live[k / 2][k % 2], memory_order_relaxed));
}

static void
text_servers(struct text *t, struct mkv_client *c)
{
	char name[600];

	text_gauge(t, GAUGE_breaker_state);
	for (unsigned i = 0; i < c->cf.n_servers; i++)
		text_add(t, "memkv_client_breaker_state{server=\"%s\"} %u\n", text_label(name, c->cf.server[i].name),
		    atomic_load_explicit(&c->state[i].breaker, memory_order_relaxed));
	text_gauge(t, GAUGE_sessions);
	for (unsigned i = 0; i < c->cf.n_servers; i++) {
		uint32_t local = atomic_load_explicit(&c->state[i].local, memory_order_relaxed);
		uint32_t all = atomic_load_explicit(&c->state[i].sessions, memory_order_relaxed);

		/* Counted one after the other, by threads of their own. */
		text_add(t, "memkv_client_sessions{server=\"%s\",transport=\"tcp\"} %u\n", text_label(name, c->cf.server[i].name), all - MKV_MIN(local, all));
		text_add(t, "memkv_client_sessions{server=\"%s\",transport=\"local\"} %u\n", name, local);
	}
	text_rails(t, c);
	text_gauge(t, GAUGE_server_refused);
	for (unsigned i = 0; i < c->cf.n_servers; i++)
		text_add(t, "memkv_client_server_refused{server=\"%s\"} %u\n", text_label(name, c->cf.server[i].name),
		    atomic_load_explicit(&c->state[i].refused, memory_order_relaxed));
}

size_t
mkv_client_metrics(struct mkv_client *c, char *dst, size_t dst_bytes)
{
	struct text t = { .dst = dst, .room = dst == NULL ? 0 : dst_bytes };
	int saved = errno;

	if (mkv_client_enter(c) != 0)
		return (0);
	text_counters(&t, &c->counters);
	text_servers(&t, c);
	text_head(&t, "stage_seconds", "histogram", "Time of the stages of calls.");
	for (unsigned i = 0; i < CS_COUNT; i++)
		text_stage(&t, &c->counters.stage[i], stage_label[i]);
	errno = saved;
	return (t.used);
}
