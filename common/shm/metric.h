/*
 * Metric pages: one memfd per process, kept by the supervisor, so a restart resets nothing. Rows are in common/tbl/metrics.def:
 * MKV_METRIC(name, kind, proc, label, help): kind COUNTER GAUGE HISTOGRAM (nanoseconds, exported in seconds); proc FRONT DRIVE SUPERVISOR; label NONE
 * REASON OP CLASS (one slot per value of the label). Children write with relaxed atomics, the supervisor reads while they write; a page of another
 * build is refused.
 */
#ifndef MKV_SHM_METRIC_H
#define MKV_SHM_METRIC_H

#include <stddef.h>
#include <stdint.h>

#include "common/base/hist.h"

enum mkv_metric_kind { MKV_METRIC_COUNTER, MKV_METRIC_GAUGE, MKV_METRIC_HISTOGRAM };
enum mkv_metric_proc { MKV_METRIC_FRONT = 1, MKV_METRIC_DRIVE, MKV_METRIC_SUPERVISOR };
enum mkv_metric_label { MKV_METRIC_NONE, MKV_METRIC_REASON, MKV_METRIC_OP, MKV_METRIC_CLASS };

enum mkv_metric {
#define MKV_METRIC(name, kind, proc, label, help)	MKV_M_##name,
#include "common/tbl/metrics.def"
#undef MKV_METRIC
	MKV_M_COUNT
};

struct mkv_metrics;			/* one process's page, mapped */

struct mkv_metric_row {
	const char	*name;		/* "memkv_front_requests_total" */
	enum mkv_metric_kind kind;
	enum mkv_metric_proc proc;
	enum mkv_metric_label label;
	const char	*help;
};
extern const struct mkv_metric_row mkv_metric_table[MKV_M_COUNT];

size_t	mkv_metrics_bytes(void);
int	mkv_metrics_format(int fd);						/* supervisor, once: the segment is zeroed */
int	mkv_metrics_open(struct mkv_metrics **out, int fd, int writable);	/* MKV_E_VERSION for another table; fd stays the caller's */
int	mkv_metrics_open_private(struct mkv_metrics **out);			/* a page of this process alone: supervisor, tests */
void	mkv_metrics_close(struct mkv_metrics **m);

/*
 * Hot path: one relaxed atomic. label: 0 where the row has none; REASON: enum mkv_reason; OP: number on the wire; CLASS: number in ioclasses.def. A
 * label that has no name counts in the last slot (of OP: "other"). m may be NULL (no-op).
 */
void	mkv_metric_add(struct mkv_metrics *m, enum mkv_metric id, unsigned label, uint64_t n);
void	mkv_metric_set(struct mkv_metrics *m, enum mkv_metric id, unsigned label, uint64_t v);
void	mkv_metric_time(struct mkv_metrics *m, enum mkv_metric id, uint64_t ns);

unsigned	mkv_metric_label_count(enum mkv_metric_label l);
const char *	mkv_metric_label_name(enum mkv_metric_label l);			/* "reason" */
const char *	mkv_metric_label_value(enum mkv_metric_label l, unsigned i);	/* "evicted"; NULL: no such label, nothing counts there */
/* Reader, any process: 0 if m is NULL. A histogram's value is its count. */
uint64_t	mkv_metric_get(const struct mkv_metrics *m, enum mkv_metric id, unsigned label);
const struct mkv_hist *mkv_metric_hist(const struct mkv_metrics *m, enum mkv_metric id);

#endif
