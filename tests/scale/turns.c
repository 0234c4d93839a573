/*
 * What background work costs readers: one engine on a file (O_DIRECT where the filesystem has it) under full load of gets and puts, with and without
 * background work, in turns.
 *
 *	turns [--pairs N] [--slice-ms N] [--bytes N] [--dir DIR] [--quick]
 *
 * A round has five slices, their order turned from round to round: two without background work (off, off2: their ratio is the noise), two with it
 * (on: checkpoints, ten a second, and a reader of the data area, both by their turns), and one with the same work that asks nobody (raw: what it would
 * cost). Load: 12 gets of 64 KiB, 2 gets and 2 puts of 1 MiB are always under way; puts evict. What is compared is the p99 of the gets of 64 KiB.
 *
 * One JSON object on stdout. Exit status 0; 1: a get or put failed, or, without --quick, the ratio on/off is above its budget; 2 wrong usage.
 */
#include "config.h"

#include <fcntl.h>
#include <getopt.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/base/assert.h"
#include "common/base/crc.h"
#include "common/base/err.h"
#include "common/base/hist.h"
#include "common/base/os.h"
#include "tests/crash/rig.h"
#include "worker/drive/engine_priv.h"

#define KIB		1024u
#define MIB		(1ull << 20)
#define SMALL		(64 * KIB)
#define LARGE		(1u << 20)
#define SLOTS		16u
#define SMALL_GETS	12u
#define LARGE_GETS	2u		/* slots behind; the rest are puts */
#define BACK_IOS	4u
#define BACK_BYTES	(64 * KIB)
#define RAW_BYTES	(256 * KIB)
#define CKPT_NS		(100 * MKV_NS_PER_MS)
#define PAIRS_MAX	31u
#define BUDGET		1.2

enum arm { OFF, ON, OFF2, RAW, ARMS };
static const char *const arm_name[ARMS] = { "off", "on", "off2", "raw" };

struct back {
	struct mkv_mio	mio;
	int		busy;
	uint8_t		*mem;
};

struct slice {
	double		p50_us, p99_us, get_bytes, put_bytes, back_bytes, checkpoints;
};

static struct {
	struct rig	*r;
	struct mkv_metrics *m;
	char		path[256];
	const char	*dir;
	uint64_t	bytes, smalls, larges, next_put;
	unsigned	pairs, slice_ms;
	int		quick, direct;
	uint32_t	crcs[LARGE / SMALL];
	uint64_t	begin[SLOTS];
	struct mkv_hist	hist;
	struct back	back[BACK_IOS];
	uint64_t	back_bytes, ckpt_ns;
	struct rnd	rnd;
	struct slice	s[ARMS][PAIRS_MAX];
	unsigned	bad;
} t;

/* The engine's own medium is a file in the page cache: here it is one that is written and read directly. */
static struct mkv_media *
turns_media(struct rig *r, struct mkv_media *in)
{
	struct mkv_media *m;
	int fd = open(t.path, O_RDWR | O_CREAT | O_TRUNC | O_DIRECT, 0600);

	t.direct = fd >= 0;
	if (fd < 0)
		fd = open(t.path, O_RDWR | O_CREAT | O_TRUNC, 0600);
	MKV_ASSERT(fd >= 0 && ftruncate(fd, (off_t)t.bytes) == 0);
	unlink(t.path);
	mkv_media_close(&in);
	MKV_ASSERT(mkv_media_file_open(&m, r->q, MKV_FD(fd), t.bytes) == 0);
	return (m);
}

static void
turns_submit(unsigned slot, unsigned op, uint64_t key_no, uint32_t bytes)
{
	static struct mkv_drv_req q;
	char key[32];

	snprintf(key, sizeof(key), "%c%" PRIu64, bytes == SMALL ? 's' : 'l', key_no);
	rig_req(&q, op, key);
	rig_bufs(&q, slot, bytes);
	q.len = bytes;
	if (op == MKV_DRV_PUT) {
		q.value_bytes = bytes;
		q.n_crcs = (uint16_t)mkv_crc_chunks(bytes);
		memcpy(q.crcs, t.crcs, q.n_crcs * sizeof(t.crcs[0]));
		q.flags = MKV_DRV_F_OVERWRITE | (bytes == SMALL ? MKV_DRV_F_PIN : 0);
	}
	t.begin[slot] = mkv_now_ns();
	rig_submit(t.r, slot, &q);
}

/* The next operation of a slot under load. Large ones are replaced all the time, so some are gone when they are asked for. */
static void
turns_next(unsigned slot)
{
	if (slot < SMALL_GETS)
		turns_submit(slot, MKV_DRV_GET, rnd_below(&t.rnd, (uint32_t)t.smalls), SMALL);
	else if (slot < SMALL_GETS + LARGE_GETS)
		turns_submit(slot, MKV_DRV_GET, t.next_put - 1 - rnd_below(&t.rnd, (uint32_t)(t.larges / 2)), LARGE);
	else
		turns_submit(slot, MKV_DRV_PUT, t.next_put++, LARGE);
}

static void
turns_on_back(struct mkv_mio *mio, int res)
{
	struct back *b = MKV_CONTAINER_OF(mio, struct back, mio);

	b->busy = 0;
	t.bad += res != 0;
}

static void
turns_back(enum arm a)
{
	struct mkv_engine *e = t.r->e;
	uint32_t bytes = a == RAW ? RAW_BYTES : BACK_BYTES;
	uint64_t now = mkv_now_ns();

	if (a == OFF || a == OFF2)
		return;
	e->ck.hurry = a == RAW;
	if (now >= t.ckpt_ns) {
		t.ckpt_ns = now + CKPT_NS;
		e->ck.wanted = 1;
	}
	for (unsigned i = 0; i < BACK_IOS; i++) {
		struct back *b = &t.back[i];
		uint64_t off = e->sb.data_off + (uint64_t)rnd_below(&t.rnd, (uint32_t)(e->sb.data_units - RAW_BYTES / e->sb.unit_bytes)) * e->sb.unit_bytes;

		if (b->busy || (a == ON && !sched_may(e, MKV_IO_SCRUB, bytes)))
			continue;
		b->busy = 1;
		b->mio.done = turns_on_back;
		t.back_bytes += bytes;
		if (a == RAW)
			e->o.media->ops->read(e->o.media, &b->mio, b->mem, bytes, off, -1);
		else
			sched_read(e, MKV_IO_SCRUB, &b->mio, b->mem, bytes, off, -1);
	}
}

/* Turn once; answered slots go on if `more`. How many are at work. */
static unsigned
turns_step(int more, int count)
{
	unsigned busy = 0;

	rig_turn(t.r);
	for (unsigned i = 0; i < SLOTS; i++) {
		struct rig_slot *s = &t.r->slot[i];

		if (s->busy && s->done) {
			s->busy = 0;
			if (s->rep.status != 0 && !(s->rep.status == MKV_E_MISS && i >= SMALL_GETS)) {
				fprintf(stderr, "turns: slot %u: %s\n", i, mkv_err(s->rep.status));
				t.bad++;
			}
			if (count && i < SMALL_GETS)
				mkv_hist_add(&t.hist, mkv_now_ns() - t.begin[i]);
		}
		if (!s->busy && more)
			turns_next(i);
		busy += s->busy != 0;
	}
	return (busy);
}

static void
turns_fill(void)
{
	uint64_t n = 0;

	while (n < t.smalls || turns_step(0, 0) > 0) {
		for (unsigned i = 0; i < SLOTS && n < t.smalls; i++) {
			if (!t.r->slot[i].busy)
				turns_submit(i, MKV_DRV_PUT, n++, SMALL);
		}
		turns_step(0, 0);
	}
	/* Twice what there is room for: every block was written once. */
	while (t.next_put < 2 * t.larges || turns_step(0, 0) > 0) {
		for (unsigned i = 0; i < SLOTS && t.next_put < 2 * t.larges; i++) {
			if (!t.r->slot[i].busy)
				turns_submit(i, MKV_DRV_PUT, t.next_put++, LARGE);
		}
		turns_step(0, 0);
	}
}

static struct slice
turns_slice(enum arm a)
{
	uint64_t end, get0, put0, ckpt0;
	double s = t.slice_ms / 1e3;
	struct slice r;

	for (end = mkv_now_ns() + t.slice_ms * MKV_NS_PER_MS / 5; mkv_now_ns() < end;) {
		turns_back(a);
		turns_step(1, 0);
	}
	memset(&t.hist, 0, sizeof(t.hist));
	t.back_bytes = 0;
	get0 = mkv_metric_get(t.m, MKV_M_drive_get_bytes_total, 0);
	put0 = mkv_metric_get(t.m, MKV_M_drive_put_bytes_total, 0);
	ckpt0 = mkv_metric_get(t.m, MKV_M_drive_checkpoints_total, 0);
	for (end = mkv_now_ns() + t.slice_ms * MKV_NS_PER_MS; mkv_now_ns() < end;) {
		turns_back(a);
		turns_step(1, 1);
	}
	r = (struct slice){
		.p50_us = (double)mkv_hist_quantile_ns(&t.hist, 0.5) / 1e3, .p99_us = (double)mkv_hist_quantile_ns(&t.hist, 0.99) / 1e3,
		.get_bytes = (double)(mkv_metric_get(t.m, MKV_M_drive_get_bytes_total, 0) - get0) / s,
		.put_bytes = (double)(mkv_metric_get(t.m, MKV_M_drive_put_bytes_total, 0) - put0) / s, .back_bytes = (double)t.back_bytes / s,
		.checkpoints = (double)(mkv_metric_get(t.m, MKV_M_drive_checkpoints_total, 0) - ckpt0) / s,
	};
	for (unsigned i = 0; i < BACK_IOS; i++) {
		while (t.back[i].busy)
			turns_step(1, 0);
	}
	return (r);
}

static int
turns_cmp(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x < y ? -1 : x > y);
}

/* Smallest, median, largest of the ratios of pairs. */
static double
turns_ratio(enum arm a, enum arm b, double lim[2])
{
	double v[PAIRS_MAX];

	for (unsigned i = 0; i < t.pairs; i++)
		v[i] = t.s[a][i].p99_us / t.s[b][i].p99_us;
	qsort(v, t.pairs, sizeof(v[0]), turns_cmp);
	lim[0] = v[0];
	lim[1] = v[t.pairs - 1];
	return (v[t.pairs / 2]);
}

static double
turns_median(enum arm a, size_t field)
{
	double v[PAIRS_MAX];

	for (unsigned i = 0; i < t.pairs; i++)
		v[i] = *(const double *)((const char *)&t.s[a][i] + field);
	qsort(v, t.pairs, sizeof(v[0]), turns_cmp);
	return (v[t.pairs / 2]);
}

static int
turns_report(void)
{
	double on[2], off[2], raw[2], r = turns_ratio(ON, OFF, on), noise = turns_ratio(OFF2, OFF, off), asks_nobody = turns_ratio(RAW, OFF, raw);

	printf("{\"pairs\": %u, \"slice_ms\": %u, \"direct\": %d, \"on_off\": [%.3f, %.3f, %.3f]", t.pairs, t.slice_ms, t.direct, on[0], r, on[1]);
	printf(", \"off_off\": [%.3f, %.3f, %.3f]", off[0], noise, off[1]);
	printf(", \"raw_off\": [%.3f, %.3f, %.3f]", raw[0], asks_nobody, raw[1]);
	for (unsigned a = 0; a < ARMS; a++)
		printf(", \"%s\": {\"p50_us\": %.0f, \"p99_us\": %.0f, \"get_mb_s\": %.0f, \"put_mb_s\": %.0f, \"background_mb_s\": %.1f, \"checkpoints_s\": %.1f}",
		    arm_name[a], turns_median(a, offsetof(struct slice, p50_us)), turns_median(a, offsetof(struct slice, p99_us)),
		    turns_median(a, offsetof(struct slice, get_bytes)) / 1e6, turns_median(a, offsetof(struct slice, put_bytes)) / 1e6,
		    turns_median(a, offsetof(struct slice, back_bytes)) / 1e6, turns_median(a, offsetof(struct slice, checkpoints)));
	printf(", \"failed\": %u}\n", t.bad);
	if (!t.quick && r > BUDGET)
		fprintf(stderr, "turns: on/off %.2f is above %.2f\n", r, BUDGET);
	return (t.bad != 0 || (!t.quick && r > BUDGET));
}

static void
turns_open(void)
{
	struct rig *r = rig_create(RIG_URING, t.bytes, 1);
	uint8_t *zero = calloc(1, LARGE);
	int err;

	MKV_ASSERT(zero != NULL);
	mkv_crc_chunk_list(zero, LARGE, t.crcs);
	free(zero);
	memset(r->stage, 0, (size_t)SLOTS * RIG_SLOT_BYTES);
	MKV_ASSERT(mkv_metrics_open_private(&t.m) == 0);
	snprintf(t.path, sizeof(t.path), "%s/memkv-turns.%d", t.dir, (int)getpid());
	t.r = r;
	r->wrap = turns_media;
	r->o.clock = &mkv_clock_os;
	r->o.metrics = t.m;
	r->o.extent_bytes = 4u << 20;
	r->o.queue_depth = 64;
	r->o.journal_bytes = 16u << 20;
	r->o.objects_max = 65536;
	r->o.page_cache_bytes = 64u << 20;
	r->o.policy = MKV_POLICY_FIFO;
	if ((err = rig_open(r)) != 0) {
		fprintf(stderr, "turns: %s: %s\n", mkv_err(err), r->why);
		exit(err == MKV_E_UNSUPPORTED ? 77 : 1);
	}
	for (unsigned i = 0; i < BACK_IOS; i++)
		MKV_ASSERT(posix_memalign((void **)&t.back[i].mem, 4096, RAW_BYTES) == 0);
	t.smalls = t.bytes / 4 / SMALL;
	t.larges = t.bytes / 2 / LARGE;
}

static void
turns_usage(void)
{
	fprintf(stderr, "usage: turns [--pairs N] [--slice-ms N] [--bytes N] [--dir DIR] [--quick]\n");
	exit(2);
}

static void
turns_options(int argc, char **argv)
{
	static const struct option longs[] = {
		{ "pairs", 1, NULL, 'p' }, { "slice-ms", 1, NULL, 's' }, { "bytes", 1, NULL, 'b' }, { "dir", 1, NULL, 'd' }, { "quick", 0, NULL, 'q' },
		{ NULL, 0, NULL, 0 },
	};
	int c;

	t.pairs = 9;
	t.slice_ms = 1000;
	t.bytes = 2048 * MIB;
	t.dir = getenv("TMPDIR") != NULL ? getenv("TMPDIR") : "/tmp";
	/* In plain `make check` it only shows that it works. */
	t.quick = argc == 1 && getenv("MKV_FULL") == NULL;
	while ((c = getopt_long(argc, argv, "", longs, NULL)) != -1) {
		if (c == 'p')
			t.pairs = (unsigned)atoi(optarg);
		else if (c == 's')
			t.slice_ms = (unsigned)atoi(optarg);
		else if (c == 'b')
			t.bytes = strtoull(optarg, NULL, 10);
		else if (c == 'd')
			t.dir = optarg;
		else if (c == 'q')
			t.quick = 1;
		else
			turns_usage();
	}
	if (t.quick) {
		t.pairs = 1;
		t.slice_ms = 100;
		t.bytes = 256 * MIB;
	}
	if (t.pairs < 1 || t.pairs > PAIRS_MAX || t.slice_ms < 10 || t.bytes < 128 * MIB || t.bytes > 64 * 1024 * MIB || optind != argc)
		turns_usage();
}

int
main(int argc, char **argv)
{
	int status;

	turns_options(argc, argv);
	turns_open();
	turns_fill();
	for (unsigned i = 0; i < t.pairs; i++) {
		for (unsigned k = 0; k < ARMS; k++) {
			enum arm a = (enum arm)((i + k) % ARMS);

			t.s[a][i] = turns_slice(a);
		}
	}
	while (turns_step(0, 0) > 0)
		;
	status = turns_report();
	rig_destroy(&t.r);
	mkv_metrics_close(&t.m);
	return (status);
}
