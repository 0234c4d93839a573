/*
 * Process: supervisor, loop thread. The metric pages of all processes as Prometheus text (exposition format 0.0.4).
 * Reads words that children write meanwhile: each sample is whole, samples of one moment may differ by what happened between.
 *
 * Rows come from common/tbl/metrics.def, one series a process (label process="drive:0"). Histograms, kept in fine slots, are put on the fixed
 * ladder below; +Inf and _count are the sum of the slots that were read, so they agree. A row in milliseconds leaves in seconds, the unit of the
 * format. Beside them the names that the product's users know, summed over the processes.
 * What can fail: memory.
 */
#include "config.h"

#include "supervisor/admin/admin_priv.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/assert.h"
#include "common/base/clock.h"
#include "common/base/hist.h"
#include "common/shm/metric.h"
#include "supervisor/sup_priv.h"

static const struct {
	uint64_t	ns;
	const char	*le;
} ladder[] = {
	{ 10000ull, "0.00001" },	{ 25000ull, "0.000025" },	{ 50000ull, "0.00005" },	{ 100000ull, "0.0001" },
	{ 250000ull, "0.00025" },	{ 500000ull, "0.0005" },	{ 1000000ull, "0.001" },	{ 2500000ull, "0.0025" },
	{ 5000000ull, "0.005" },	{ 10000000ull, "0.01" },	{ 25000000ull, "0.025" },	{ 50000000ull, "0.05" },
	{ 100000000ull, "0.1" },	{ 250000000ull, "0.25" },	{ 500000000ull, "0.5" },	{ 1000000000ull, "1" },
	{ 2500000000ull, "2.5" },	{ 5000000000ull, "5" },		{ 10000000000ull, "10" },	{ 30000000000ull, "30" },
};

static uint64_t
metrics_word(const uint64_t *w)
{
	return (__atomic_load_n(w, __ATOMIC_RELAXED));
}

static void
metrics_hist(FILE *f, const char *name, const char *process, const struct mkv_hist *h)
{
	uint64_t sum = 0;
	unsigned slot = 0;

	for (size_t i = 0; i < MKV_ARRAY_LEN(ladder); i++) {
		for (; slot < MKV_HIST_SLOTS && mkv_hist_slot_upper_ns(slot) <= ladder[i].ns; slot++)
			sum += metrics_word(&h->slot[slot]);
		fprintf(f, "%s_bucket{process=\"%s\",le=\"%s\"} %" PRIu64 "\n", name, process, ladder[i].le, sum);
	}
	for (; slot < MKV_HIST_SLOTS; slot++)
		sum += metrics_word(&h->slot[slot]);
	fprintf(f, "%s_bucket{process=\"%s\",le=\"+Inf\"} %" PRIu64 "\n", name, process, sum);
	fprintf(f, "%s_sum{process=\"%s\"} %.9g\n", name, process, (double)metrics_word(&h->sum_ns) / 1e9);
	fprintf(f, "%s_count{process=\"%s\"} %" PRIu64 "\n", name, process, sum);
}

static void
metrics_values(FILE *f, const char *name, const char *process, const struct mkv_metrics *m, enum mkv_metric id, int milli)
{
	enum mkv_metric_label label = mkv_metric_table[id].label;
	const char *value;

	if (label == MKV_METRIC_NONE) {
		if (milli)
			fprintf(f, "%s{process=\"%s\"} %.3f\n", name, process, (double)mkv_metric_get(m, id, 0) / 1e3);
		else
			fprintf(f, "%s{process=\"%s\"} %" PRIu64 "\n", name, process, mkv_metric_get(m, id, 0));
		return;
	}
	for (unsigned i = 0; i < mkv_metric_label_count(label); i++)
		if ((value = mkv_metric_label_value(label, i)) != NULL)
			fprintf(f, "%s{process=\"%s\",%s=\"%s\"} %" PRIu64 "\n", name, process, mkv_metric_label_name(label), value,
			    mkv_metric_get(m, id, i));
}

static void
metrics_process(FILE *f, const char *name, const char *process, const struct mkv_metrics *m, enum mkv_metric id, int milli)
{
	if (m == NULL)
		return;
	if (mkv_metric_table[id].kind == MKV_METRIC_HISTOGRAM)
		metrics_hist(f, name, process, mkv_metric_hist(m, id));
	else
		metrics_values(f, name, process, m, id, milli);
}

/* What a removed drive holds or has left is nobody's any more; what it has done stays done. */
static int
metrics_counts(const struct proc *p, enum mkv_metric id)
{
	return (mkv_metric_table[id].kind != MKV_METRIC_GAUGE || !pool_gone(p));
}

static void
metrics_row(FILE *f, struct mkv_sup *s, enum mkv_metric id)
{
	static const char *const kinds[] = { [MKV_METRIC_COUNTER] = "counter", [MKV_METRIC_GAUGE] = "gauge", [MKV_METRIC_HISTOGRAM] = "histogram" };
	const struct mkv_metric_row *row = &mkv_metric_table[id];
	const char *milli = strstr(row->name, "_milliseconds");
	char name[128];

	snprintf(name, sizeof(name), "%.*s%s", milli != NULL ? (int)(milli - row->name) : (int)strlen(row->name), row->name,
	    milli != NULL ? "_seconds" : "");
	fprintf(f, "# HELP %s %s\n# TYPE %s %s\n", name, row->help, name, kinds[row->kind]);
	if (row->proc == MKV_METRIC_SUPERVISOR) {
		metrics_process(f, name, "supervisor", s->metrics, id, milli != NULL);
		return;
	}
	for (uint32_t i = 0; i < s->proc_count; i++)
		if ((row->proc == MKV_METRIC_DRIVE) == proc_is_drive(&s->proc[i]) && metrics_counts(&s->proc[i], id))
			metrics_process(f, name, s->proc[i].child.name, s->proc[i].metrics, id, milli != NULL);
}

/* ---- the product's names ---- */

static uint64_t
metrics_sum(const struct mkv_sup *s, enum mkv_metric id)
{
	uint64_t sum = 0;

	for (uint32_t i = 0; i < s->proc_count; i++)
		if (metrics_counts(&s->proc[i], id))
			sum += mkv_metric_get(s->proc[i].metrics, id, 0);
	return (sum);
}

/* memkv_blocks_total falls as well as rises: its name is the product's, so it has no type. */
static void
metrics_plain(FILE *f, struct mkv_sup *s)
{
	static const struct {
		const char	*name, *type, *help;
		enum mkv_metric	id;
	} plain[] = {
		{ "memkv_read_total", "counter", "values delivered to clients", MKV_M_front_get_total },
		{ "memkv_read_bytes_total", "counter", "payload bytes sent to clients", MKV_M_front_sent_bytes_total },
		{ "memkv_write_total", "counter", "values stored for clients", MKV_M_front_put_total },
		{ "memkv_write_bytes_total", "counter", "payload bytes received from clients", MKV_M_front_received_bytes_total },
		{ "memkv_blocks_total", "untyped", "objects stored now", MKV_M_drive_objects },
		{ "memkv_storage_used_bytes", "gauge", "bytes that objects hold", MKV_M_drive_used_bytes },
		{ "memkv_storage_usable_bytes", "gauge", "bytes of all data areas", MKV_M_drive_total_bytes },
	};

	for (size_t i = 0; i < MKV_ARRAY_LEN(plain); i++)
		fprintf(f, "# HELP %s %s\n# TYPE %s %s\n%s %" PRIu64 "\n", plain[i].name, plain[i].help, plain[i].name, plain[i].type,
		    plain[i].name, metrics_sum(s, plain[i].id));
	fprintf(f, "# HELP memkv_build_info the version that runs\n# TYPE memkv_build_info gauge\nmemkv_build_info{version=\"%s\"} 1\n",
	    PACKAGE_VERSION);
}

static void
metrics_children(FILE *f, struct mkv_sup *s)
{
	fprintf(f, "# HELP memkv_process_up 1 for a child that serves\n# TYPE memkv_process_up gauge\n");
	for (uint32_t i = 0; i < s->proc_count; i++)
		if (!pool_gone(&s->proc[i]))
			fprintf(f, "memkv_process_up{process=\"%s\"} %d\n", s->proc[i].child.name, s->proc[i].child.state == CHILD_RUNNING);
	fprintf(f, "# HELP memkv_process_restarts_total starts after an unexpected end\n# TYPE memkv_process_restarts_total counter\n");
	for (uint32_t i = 0; i < s->proc_count; i++)
		fprintf(f, "memkv_process_restarts_total{process=\"%s\"} %" PRIu32 "\n", s->proc[i].child.name, s->proc[i].child.restart_count);
}

char *
admin_metrics(struct mkv_sup *s, size_t *bytes)
{
	char *text = NULL;
	FILE *f = open_memstream(&text, bytes);

	if (f == NULL)
		return (NULL);
	/* Counted where it is written, without a look at the pages. */
	mkv_metric_add(s->metrics, MKV_M_supervisor_log_lines_total, 0, s->out.lines);
	s->out.lines = 0;
	metrics_plain(f, s);
	metrics_children(f, s);
	for (unsigned id = 0; id < MKV_M_COUNT; id++)
		metrics_row(f, s, (enum mkv_metric)id);
	if (fclose(f) != 0) {
		free(text);
		return (NULL);
	}
	return (text);
}
