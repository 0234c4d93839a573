/*
 * Metric pages. A child writes its page from any of its threads; the supervisor keeps the segment, reads it while the child runs and
 * after its end, and renders it.
 *
 *	| magic, bytes, hash of the table | value words and histograms, in the table's order, one per value of the row's label |
 *
 * A struct mkv_metrics owns its mapping. Every page has room for all rows, so one layout serves all processes. The reader trusts no
 * word: values are numbers and nothing is an offset or a length. The table's hash (names, kinds, processes, labels, label values) keeps two builds
 * apart.
 */
#include "config.h"
#include "common/shm/metric.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "common/base/assert.h"
#include "common/base/err.h"
#include "common/base/hash.h"
#include "common/base/os.h"
#include "proto/wire.h"

#define METRIC_MAGIC		0x6d37a1c9u
#define METRIC_OPEN_MAGIC	0x40be81f5u
#define METRIC_ALIGN		4096u
#define METRIC_OP_MAX		64u

const struct mkv_metric_row mkv_metric_table[MKV_M_COUNT] = {
#define MKV_METRIC(name, kind, proc, label, help) \
	[MKV_M_##name] = { "memkv_" #name, MKV_METRIC_##kind, MKV_METRIC_##proc, MKV_METRIC_##label, help },
#include "common/tbl/metrics.def"
#undef MKV_METRIC
};

static const char *const metric_reasons[MKV_REASON_COUNT + 1] = {
#define MKV_REASON(name, num, label, text)	[num] = label,
#include "common/tbl/reasons.def"
#undef MKV_REASON
	[MKV_REASON_COUNT] = "other",
};

enum {				/* the largest number of an operation */
#define MKV_OP(name, num, label, flags, body_max)	METRIC_SEEN_##name = (num),
#include "proto/wire_ops.def"
#undef MKV_OP
	METRIC_OP_COUNT		/* one more than the last row's */
};
_Static_assert(METRIC_OP_COUNT < METRIC_OP_MAX, "room for the operations");

static const char *const metric_ops[METRIC_OP_COUNT + 1] = {
#define MKV_OP(name, num, label, flags, body_max)	[num] = label,
#include "proto/wire_ops.def"
#undef MKV_OP
	[METRIC_OP_COUNT] = "other",
};

static const char *const metric_classes[] = {
#define MKV_IOCLASS(name, num, label, kind, share, patience_ms, text)	[num] = label,
#include "common/tbl/ioclasses.def"
#undef MKV_IOCLASS
};

struct metric_page {
	uint32_t	magic, bytes;
	uint64_t	table_hash;
};

struct mkv_metrics {
	uint32_t	magic;
	int		writable, is_private;
	uint8_t		*base;
	uint64_t	map_bytes;
};

static uint32_t metric_off[MKV_M_COUNT];	/* where a row begins in a page; like the two below set once, by metric_lay_out() */
static uint32_t metric_bytes;
static uint64_t metric_hash;
static pthread_once_t metric_once = PTHREAD_ONCE_INIT;

unsigned
mkv_metric_label_count(enum mkv_metric_label l)
{
	switch (l) {
	case MKV_METRIC_REASON:
		return (MKV_ARRAY_LEN(metric_reasons));
	case MKV_METRIC_OP:
		return (MKV_ARRAY_LEN(metric_ops));
	case MKV_METRIC_CLASS:
		return (MKV_ARRAY_LEN(metric_classes));
	case MKV_METRIC_NONE:
	default:
		return (1);
	}
}

const char *
mkv_metric_label_name(enum mkv_metric_label l)
{
	return (l == MKV_METRIC_REASON ? "reason" : l == MKV_METRIC_OP ? "op" : l == MKV_METRIC_CLASS ? "class" : "");
}

const char *
mkv_metric_label_value(enum mkv_metric_label l, unsigned i)
{
	if (i >= mkv_metric_label_count(l))
		return (NULL);
	return (l == MKV_METRIC_REASON ? metric_reasons[i] : l == MKV_METRIC_OP ? metric_ops[i] : l == MKV_METRIC_CLASS ? metric_classes[i] : "");
}

static uint64_t
metric_hash_text(uint64_t h, const char *s)
{
	return (mkv_hash64(s, strlen(s) + 1, h));
}

static void
metric_lay_out(void)
{
	const struct mkv_metric_row *row;
	const char *value;
	uint64_t h = METRIC_MAGIC;
	uint32_t off = sizeof(struct metric_page);
	unsigned n;

	for (unsigned id = 0; id < MKV_M_COUNT; id++) {
		row = &mkv_metric_table[id];
		n = mkv_metric_label_count(row->label);
		MKV_ASSERT(row->kind != MKV_METRIC_HISTOGRAM || row->label == MKV_METRIC_NONE);
		metric_off[id] = off;
		off += row->kind == MKV_METRIC_HISTOGRAM ? (uint32_t)sizeof(struct mkv_hist) : n * (uint32_t)sizeof(uint64_t);
		h = metric_hash_text(h + (unsigned)row->kind * 64 + (unsigned)row->proc * 8 + (unsigned)row->label, row->name);
		for (unsigned i = 0; i < n; i++)
			if ((value = mkv_metric_label_value(row->label, i)) != NULL)
				h = metric_hash_text(h + i, value);
	}
	metric_bytes = (uint32_t)MKV_ALIGN_UP(off, METRIC_ALIGN);
	metric_hash = mkv_hash64(&metric_bytes, sizeof(metric_bytes), h + sizeof(struct mkv_hist));
}

size_t
mkv_metrics_bytes(void)
{
	pthread_once(&metric_once, metric_lay_out);
	return (metric_bytes);
}

int
mkv_metrics_format(int fd)
{
	struct metric_page *page;
	void *p;
	int r;

	if ((r = mkv_os_shm_map(fd, mkv_metrics_bytes(), 1, 0, &p)) != 0)
		return (r);
	page = p;
	page->bytes = metric_bytes;
	page->table_hash = metric_hash;
	page->magic = METRIC_MAGIC;
	mkv_os_shm_unmap(p, metric_bytes);
	return (0);
}

int
mkv_metrics_open(struct mkv_metrics **out, int fd, int writable)
{
	const struct metric_page *page;
	struct mkv_metrics *m;
	struct stat st;
	void *p;
	int r;

	*out = NULL;
	if (fstat(fd, &st) != 0)
		return (MKV_E_SYSTEM);
	if (st.st_size < (off_t)mkv_metrics_bytes())
		return (MKV_E_VERSION);
	if ((m = calloc(1, sizeof(*m))) == NULL)
		return (MKV_E_NOMEM);
	*m = (struct mkv_metrics){ .magic = METRIC_OPEN_MAGIC, .writable = writable, .map_bytes = metric_bytes };
	if ((r = mkv_os_shm_map(fd, metric_bytes, writable, 0, &p)) != 0)
		goto out;
	m->base = p;
	page = p;
	if (page->magic != METRIC_MAGIC || page->bytes != metric_bytes || page->table_hash != metric_hash) {
		r = MKV_E_VERSION;
		goto out;
	}
	TAKE(*out, m);
out:
	mkv_metrics_close(&m);
	return (r);
}

int
mkv_metrics_open_private(struct mkv_metrics **out)
{
	struct mkv_metrics *m;

	*out = NULL;
	if ((m = calloc(1, sizeof(*m))) == NULL)
		return (MKV_E_NOMEM);
	*m = (struct mkv_metrics){ .magic = METRIC_OPEN_MAGIC, .writable = 1, .is_private = 1 };
	if ((m->base = calloc(1, mkv_metrics_bytes())) == NULL) {
		mkv_metrics_close(&m);
		return (MKV_E_NOMEM);
	}
	TAKE(*out, m);
	return (0);
}

void
mkv_metrics_close(struct mkv_metrics **mp)
{
	struct mkv_metrics *m = *mp;

	*mp = NULL;
	if (m == NULL)
		return;
	MKV_CHECK_OBJ(m, METRIC_OPEN_MAGIC);
	if (m->is_private)
		free(m->base);
	else if (m->base != NULL)
		mkv_os_shm_unmap(m->base, m->map_bytes);
	m->magic = 0;
	free(m);
}

/* The word of one value. Labels without a name count in the last one. */
static uint64_t *
metric_word(const struct mkv_metrics *m, enum mkv_metric id, unsigned label)
{
	enum mkv_metric_label l;

	MKV_CHECK_OBJ(m, METRIC_OPEN_MAGIC);
	MKV_ASSERT((unsigned)id < MKV_M_COUNT);
	l = mkv_metric_table[id].label;
	if (mkv_metric_label_value(l, label) == NULL)
		label = mkv_metric_label_count(l) - 1;
	return ((uint64_t *)(m->base + metric_off[id]) + label);
}

void
mkv_metric_add(struct mkv_metrics *m, enum mkv_metric id, unsigned label, uint64_t n)
{
	if (m == NULL)
		return;
	MKV_ASSERT(m->writable && mkv_metric_table[id].kind != MKV_METRIC_HISTOGRAM);
	__atomic_fetch_add(metric_word(m, id, label), n, __ATOMIC_RELAXED);
}

void
mkv_metric_set(struct mkv_metrics *m, enum mkv_metric id, unsigned label, uint64_t v)
{
	if (m == NULL)
		return;
	MKV_ASSERT(m->writable && mkv_metric_table[id].kind == MKV_METRIC_GAUGE);
	__atomic_store_n(metric_word(m, id, label), v, __ATOMIC_RELAXED);
}

void
mkv_metric_time(struct mkv_metrics *m, enum mkv_metric id, uint64_t ns)
{
	if (m == NULL)
		return;
	MKV_ASSERT(m->writable && mkv_metric_table[id].kind == MKV_METRIC_HISTOGRAM);
	mkv_hist_add((struct mkv_hist *)metric_word(m, id, 0), ns);
}

uint64_t
mkv_metric_get(const struct mkv_metrics *m, enum mkv_metric id, unsigned label)
{
	if (m == NULL)
		return (0);
	if (mkv_metric_table[id].kind == MKV_METRIC_HISTOGRAM)
		return (__atomic_load_n(&mkv_metric_hist(m, id)->count, __ATOMIC_RELAXED));
	return (__atomic_load_n(metric_word(m, id, label), __ATOMIC_RELAXED));
}

const struct mkv_hist *
mkv_metric_hist(const struct mkv_metrics *m, enum mkv_metric id)
{
	MKV_ASSERT(mkv_metric_table[id].kind == MKV_METRIC_HISTOGRAM);
	return ((const struct mkv_hist *)metric_word(m, id, 0));
}
