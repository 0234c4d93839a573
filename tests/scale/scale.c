/*
 * The drive engine with very many objects: memory of the index, flushes of durable puts, what a checkpoint costs, recovery after kill -9, metadata
 * reads of gets.
 *
 *	scale [--objects N] [--rounds N] [--dir DIR] [--full]
 *
 * A child fills a store (values of zeros, their bytes in a hole: hole.h), puts some more durably, makes checkpoints (with nothing else to do, and beside
 * puts, which are compared with puts without one), goes on until the journal is as long as it gets before a checkpoint, and dies by SIGKILL. The parent
 * opens the store as a drive process does, O_DIRECT where the filesystem has it, --rounds times without closing it in order; before each it reads the
 * same journal and checkpoint bytes one after the other: that is the reference. Then random gets with 512 bytes of page cache an object, cold and warm.
 *
 * One JSON object on stdout. What is counted must be within its budget, always; what is timed must be only with --full (--objects 10000000 unless
 * said otherwise), as a sample (200000) is over before a busy machine has noticed. Exit status 0 within, 1 not, 2 wrong usage.
 */
#include "config.h"

#include "tests/scale/hole.h"

#include <fcntl.h>
#include <getopt.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/base/assert.h"
#include "common/base/crc.h"
#include "common/base/err.h"
#include "common/base/log.h"
#include "common/base/os.h"
#include "tests/crash/rig.h"
#include "worker/drive/engine_priv.h"

#define MIB		(1ull << 20)
#define DEPTH		32u			/* requests in flight */
#define VALUE_MAX	4096u
#define READ_BYTES	(1u << 20)		/* of the reference */
#define ROUNDS_MAX	15u
#define SAMPLE		200000u
#define FULL		10000000u
#define CACHE_PER_OBJECT 512u
#define NOTHING_ELSE	MIB			/* page cache while memory is counted */

#define WATCHES		3u			/* checkpoints of each kind */
#define WATCHED_PUTS	(2u << 20)		/* of each kind: of so many the percentiles are known */
#define SILENT_TURNS	1000u			/* some 2 s: a stall, and no slow disk */

/* Puts while no checkpoint is at work, or while one is. */
struct side {
	uint64_t	puts, ns;
	uint64_t	p50_us, p99_us, max_us;	/* from the call to its answer */
	uint64_t	turn_us;		/* the longest turn of the loop */
	uint64_t	silent_turns;		/* the most turns one after the other that answered nothing */
};

struct child {					/* what the child says before it dies */
	uint64_t	rss_empty, rss_full, shadow_bytes, fill_ns, durable_puts, durable_flushes, checkpoints;
	uint64_t	ckpt_bytes, alone_ns, alone_turn_us, beside_ns;	/* alone, beside: the median */
	struct side	quiet, beside;
};

struct round {
	uint64_t	read_bytes, read_ns, index_ns, served_ns, rss_before, rss_after, objects;
};

struct scale {
	uint64_t	objects;
	unsigned	rounds;
	int		full;
	struct rig	*rig;
	struct mkv_sb	sb;
	struct mkv_metrics *metrics;
	uint32_t	crc[VALUE_MAX + 1];	/* of so many zeros */
	struct rnd	rnd;
	struct child	child;
	struct round	round[ROUNDS_MAX];
	uint64_t	gets, cold_reads, warm_reads, close_ns;
	unsigned	bad;
};

static struct scale scale;

static struct {					/* at work where side is not NULL */
	struct side	*side;
	uint32_t	*us;			/* of each put */
	uint64_t	begun_ns[DEPTH], silent_turns;
} watch;

static void
scale_fail(const char *what)
{
	fprintf(stderr, "scale: %s\n", what);
	scale.bad++;
}

static uint64_t
scale_rss(void)
{
	unsigned long long size, resident = 0;
	FILE *f = fopen("/proc/self/statm", "r");

	MKV_ASSERT(f != NULL && fscanf(f, "%llu %llu", &size, &resident) == 2);
	fclose(f);
	return (resident * (uint64_t)sysconf(_SC_PAGESIZE));
}

static uint64_t
scale_bytes_of(uint64_t i)
{
	return (1 + i * 7919 % VALUE_MAX);
}

/* A key as caches have them: a name and a hash. */
static void
scale_key(char *key, size_t bytes, uint64_t i)
{
	snprintf(key, bytes, "model/layer:%016" PRIx64 "%08" PRIx64, (uint64_t)(i * 0x9e3779b97f4a7c15ull), i);
}

static void
scale_submit(unsigned slot, unsigned op, uint64_t i, unsigned flags)
{
	static struct mkv_drv_req q;		/* of one thread; large */
	char key[64];

	scale_key(key, sizeof(key), i);
	rig_req(&q, op, key);
	rig_bufs(&q, slot, VALUE_MAX);
	q.flags = (uint16_t)flags;
	q.len = VALUE_MAX;
	if (op == MKV_DRV_PUT) {
		q.value_bytes = scale_bytes_of(i);
		q.n_crcs = 1;
		q.crcs[0] = scale.crc[q.value_bytes];
		q.bufs[0].bytes = (uint32_t)q.value_bytes;
	}
	rig_submit(scale.rig, slot, &q);
}

static void
scale_answer(unsigned slot, unsigned op, uint64_t i)
{
	const struct mkv_drv_rep *p = &scale.rig->slot[slot].rep;
	uint64_t want = scale_bytes_of(i);

	if (p->status != 0 || (op == MKV_DRV_GET && (p->value_bytes != want || p->len != want || p->n_crcs != 1 || p->crcs[0] != scale.crc[want]))) {
		fprintf(stderr, "scale: op %u of object %" PRIu64 ": %s, %" PRIu64 " bytes of %" PRIu64 "\n", op, i, mkv_err(p->status), p->value_bytes, want);
		scale.bad++;
	}
}

static void
watch_answer(unsigned slot)
{
	struct side *o = watch.side;
	uint64_t us;

	if (o == NULL)
		return;
	watch.silent_turns = 0;
	us = (mkv_now_ns() - watch.begun_ns[slot]) / MKV_NS_PER_US;
	if (o->puts < WATCHED_PUTS)
		watch.us[o->puts] = (uint32_t)us;
	o->puts++;
	o->max_us = MKV_MAX(o->max_us, us);
}

static void
scale_turn(void)
{
	struct side *o = watch.side;
	uint64_t begin;

	if (o == NULL) {
		rig_turn(scale.rig);
		return;
	}
	begin = mkv_now_ns();
	rig_turn(scale.rig);
	o->turn_us = MKV_MAX(o->turn_us, (mkv_now_ns() - begin) / MKV_NS_PER_US);
	o->silent_turns = MKV_MAX(o->silent_turns, ++watch.silent_turns);
}

/* n operations, DEPTH in flight: on objects from `first` on, or random ones below first. */
static void
scale_run(unsigned op, uint64_t first, uint64_t n, int random, unsigned flags)
{
	uint64_t on[DEPTH] = { 0 }, begun = 0, ended = 0;

	while (ended < n && scale.bad < 10) {
		for (unsigned s = 0; s < DEPTH; s++) {
			struct rig_slot *slot = &scale.rig->slot[s];

			if (slot->busy && slot->done) {
				slot->busy = 0;
				ended++;
				scale_answer(s, op, on[s]);
				watch_answer(s);
			}
			if (!slot->busy && begun < n) {
				on[s] = random ? rnd_u64(&scale.rnd) % first : first + begun;
				begun++;
				if (watch.side != NULL)
					watch.begun_ns[s] = mkv_now_ns();
				scale_submit(s, op, on[s], flags);
			}
		}
		scale_turn();
	}
}

static uint64_t
scale_metric(enum mkv_metric id)
{
	return (mkv_metric_get(scale.metrics, id, 0));
}

static struct mkv_media *
scale_wrap(struct rig *r, struct mkv_media *m)
{
	(void)r;
	return (hole_create(m, scale.sb.data_off, m->total_bytes));
}

static int
scale_open(uint64_t cache_bytes)
{
	int err;

	scale.rig->o.page_cache_bytes = cache_bytes;
	if ((err = rig_open(scale.rig)) != 0)
		fprintf(stderr, "scale: open: %s: %s\n", mkv_err(err), scale.rig->why);
	return (err);
}

/* Overwrites, until the journal is nearly as long as the engine lets it grow before it wants a checkpoint (half the ring). */
static void
child_lengthen_journal(void)
{
	uint64_t ring = (uint64_t)scale.sb.journal_blocks * MKV_BLOCK, at, n;

	for (n = scale_metric(MKV_M_drive_checkpoints_total) + 1; scale_metric(MKV_M_drive_checkpoints_total) < n && !scale.bad;)
		scale_run(MKV_DRV_PUT, scale.objects, 1024, 1, MKV_DRV_F_ACCEPTED | MKV_DRV_F_OVERWRITE);
	at = scale_metric(MKV_M_drive_journal_bytes_total);
	while (scale_metric(MKV_M_drive_journal_bytes_total) - at < ring * 4 / 10 && !scale.bad)
		scale_run(MKV_DRV_PUT, scale.objects, 1024, 1, MKV_DRV_F_ACCEPTED | MKV_DRV_F_OVERWRITE);
}

static int
by_number(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return ((x > y) - (x < y));
}

static int
by_us(const void *a, const void *b)
{
	uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

	return ((x > y) - (x < y));
}

static void
side_judge(struct side *o, uint32_t *us)
{
	uint64_t n = MKV_MIN(o->puts, WATCHED_PUTS);

	qsort(us, n, sizeof(*us), by_us);
	o->p50_us = n ? us[n / 2] : 0;
	o->p99_us = n ? us[n * 99 / 100] : 0;
}

/* Overwrites while *go says so. */
static uint64_t
child_watch(struct side *o, uint32_t *us, int (*go)(uint64_t arg), uint64_t arg)
{
	uint64_t begin = mkv_now_ns(), ns;

	watch.side = o;
	watch.us = us;
	watch.silent_turns = 0;
	while (!scale.bad && go(arg))
		scale_run(MKV_DRV_PUT, scale.objects, 1024, 1, MKV_DRV_F_ACCEPTED | MKV_DRV_F_OVERWRITE);
	watch.side = NULL;
	ns = mkv_now_ns() - begin;
	o->ns += ns;
	return (ns);
}

/* The journal would soon want a checkpoint. */
static int
child_quiet(uint64_t puts)
{
	const struct mkv_engine *e = scale.rig->e;

	return (e->ck.state == CK_IDLE && !e->ck.wanted && e->jn.next_seq - e->jn.tail < e->sb.journal_blocks * 3ull / 8 && watch.side->puts < puts);
}

static int
child_beside(uint64_t id)
{
	return (scale.rig->e->ck.id == id);
}

static uint64_t
child_alone(uint64_t *turn_us)
{
	struct mkv_engine *e = scale.rig->e;
	uint64_t begin, turn, id;

	while (e->ck.state != CK_IDLE && !e->readonly)
		rig_turn(scale.rig);
	id = e->ck.id;
	e->ck.wanted = 1;
	for (begin = turn = mkv_now_ns(); e->ck.id == id && !e->readonly;) {
		uint64_t now;

		rig_turn(scale.rig);
		now = mkv_now_ns();
		*turn_us = MKV_MAX(*turn_us, (now - turn) / MKV_NS_PER_US);
		turn = now;
	}
	return (turn - begin);
}

/* What checkpoints take, and what puts notice of them. */
static void
child_checkpoints(void)
{
	struct child *c = &scale.child;
	struct mkv_engine *e = scale.rig->e;
	uint32_t *us = calloc(2ull * WATCHED_PUTS, sizeof(*us));
	uint64_t alone[WATCHES], beside[WATCHES];

	MKV_ASSERT(us != NULL);
	for (unsigned i = 0; i < WATCHES && !scale.bad; i++) {
		alone[i] = child_alone(&c->alone_turn_us);
		c->ckpt_bytes = (e->ck.blocks + 2ull) * MKV_BLOCK;
		(void)child_watch(&c->quiet, us, child_quiet, (i + 1) * (WATCHED_PUTS / WATCHES));
		e->ck.wanted = 1;
		beside[i] = child_watch(&c->beside, us + WATCHED_PUTS, child_beside, e->ck.id);
	}
	side_judge(&c->quiet, us);
	side_judge(&c->beside, us + WATCHED_PUTS);
	free(us);
	qsort(alone, WATCHES, sizeof(alone[0]), by_number);
	qsort(beside, WATCHES, sizeof(beside[0]), by_number);
	c->alone_ns = alone[WATCHES / 2];
	c->beside_ns = beside[WATCHES / 2];
}

/* But for the cache of metadata pages, which has a budget of its own. */
static uint64_t
child_resident(void)
{
	return (scale_rss() - (uint64_t)scale.rig->e->pg.touched * MKV_BLOCK);
}

static void
child_main(int fd)
{
	struct child *c = &scale.child;
	uint64_t durable = MKV_MIN(scale.objects / 8, 65536), begin, flushes;

	if (scale_open(NOTHING_ELSE) != 0)
		_exit(1);
	scale_run(MKV_DRV_PUT, scale.objects, 1, 0, 0);		/* beyond those that are counted: all code has run once */
	c->rss_empty = child_resident();
	begin = mkv_now_ns();
	scale_run(MKV_DRV_PUT, 0, scale.objects - durable, 0, MKV_DRV_F_ACCEPTED);
	c->fill_ns = mkv_now_ns() - begin;
	flushes = scale_metric(MKV_M_drive_flushes_total);
	scale_run(MKV_DRV_PUT, scale.objects - durable, durable, 0, 0);
	c->durable_puts = durable;
	c->durable_flushes = scale_metric(MKV_M_drive_flushes_total) - flushes;
	c->rss_full = child_resident();
	c->shadow_bytes = mkv_adapt_bytes(&scale.rig->e->pol);
	child_checkpoints();
	child_lengthen_journal();
	scale_run(MKV_DRV_PUT, scale.objects, DEPTH, 1, MKV_DRV_F_OVERWRITE);	/* durable, and with them all before */
	c->checkpoints = scale_metric(MKV_M_drive_checkpoints_total);
	if (scale.bad || write(fd, c, sizeof(*c)) != (ssize_t)sizeof(*c))
		_exit(1);
	kill(getpid(), SIGKILL);
}

static void
scale_fill(void)
{
	int fds[2], status;
	pid_t pid;

	MKV_ASSERT(pipe(fds) == 0);
	MKV_ASSERT((pid = fork()) >= 0);
	if (pid == 0) {
		close(fds[0]);
		child_main(fds[1]);
		_exit(1);
	}
	close(fds[1]);
	if (read(fds[0], &scale.child, sizeof(scale.child)) != (ssize_t)sizeof(scale.child))
		scale_fail("the filling process failed");
	close(fds[0]);
	MKV_ASSERT(waitpid(pid, &status, 0) == pid);
	if (!WIFSIGNALED(status) || WTERMSIG(status) != SIGKILL)
		scale_fail("the filling process did not end as it should");
	scale.rig->o.epoch++;			/* the child's */
}

static void
read_range(uint8_t *buf, uint64_t off, uint64_t bytes, struct round *o)
{
	for (uint64_t at = 0, n; at < bytes; at += n) {
		n = MKV_MIN(bytes - at, READ_BYTES);
		MKV_ASSERT(pread(scale.rig->fd, buf, n, (off_t)(off + at)) == (ssize_t)n);
		o->read_bytes += n;
	}
}

/* What a recovery must read, one piece after the other: the newest checkpoint's body, and the journal from where it ends to the newest block. */
static void
scale_read(struct round *o)
{
	const struct mkv_sb *sb = &scale.sb;
	struct mkv_ckpt_head head = { 0 };
	uint32_t area = 0;
	uint64_t begin, blocks = 0, first;
	uint8_t *buf;

	MKV_ASSERT(posix_memalign((void **)&buf, MKV_BLOCK, READ_BYTES) == 0);
	for (uint32_t k = 0; k < 2; k++) {
		const struct mkv_ckpt_head *h = (const void *)buf;

		MKV_ASSERT(pread(scale.rig->fd, buf, MKV_BLOCK, (off_t)sb->ckpt_off[k]) == MKV_BLOCK);
		if (h->magic == MKV_CKPT_HEAD_MAGIC && h->id > head.id) {
			head = *h;
			area = k;
		}
	}
	for (first = head.id ? head.start_seq : 1; blocks < sb->journal_blocks; blocks += 256) {
		const struct mkv_jblock *b = (const void *)buf;

		MKV_ASSERT(pread(scale.rig->fd, buf, MKV_BLOCK, (off_t)mkv_sb_journal_at(sb, first + blocks)) == MKV_BLOCK);
		if (b->magic != MKV_JBLOCK_MAGIC || b->seq != first + blocks)
			break;
	}
	begin = mkv_now_ns();
	read_range(buf, sb->ckpt_off[area] + MKV_BLOCK, (uint64_t)head.blocks * MKV_BLOCK, o);
	first %= sb->journal_blocks;
	read_range(buf, sb->journal_off + first * MKV_BLOCK, MKV_MIN(blocks, sb->journal_blocks - first) * MKV_BLOCK, o);
	if (first + blocks > sb->journal_blocks)
		read_range(buf, sb->journal_off, (first + blocks - sb->journal_blocks) * MKV_BLOCK, o);
	o->read_ns = mkv_now_ns() - begin;
	free(buf);
}

static void
scale_recover(struct round *o)
{
	struct mkv_engine_info info;
	uint64_t begin;

	scale_read(o);
	o->rss_before = scale_rss();
	begin = mkv_now_ns();
	if (scale_open(NOTHING_ELSE) != 0) {
		scale_fail("no recovery");
		return;
	}
	scale_run(MKV_DRV_GET, scale.objects, 1, 1, 0);
	o->served_ns = mkv_now_ns() - begin;
	o->rss_after = scale_rss();
	mkv_engine_info(scale.rig->e, &info);
	o->index_ns = info.recovery_ns;
	o->objects = info.recovered_objects;
	if (o->objects != scale.objects + 1 || info.damaged_blocks != 0 || info.lost_objects != 0)
		scale_fail("not all objects are there");
	scale_run(MKV_DRV_GET, scale.objects, 2000, 1, 0);
	(void)rig_close(scale.rig, 1);
}

static void
scale_gets(void)
{
	uint64_t before;

	scale.gets = MKV_MIN(scale.objects, 1000000);
	if (scale_open(scale.objects * CACHE_PER_OBJECT) != 0) {
		scale_fail("no recovery");
		return;
	}
	before = scale_metric(MKV_M_drive_meta_reads_total);
	scale_run(MKV_DRV_GET, scale.objects, scale.gets, 1, 0);
	scale.cold_reads = scale_metric(MKV_M_drive_meta_reads_total) - before;
	/* Until every page was asked for many times over; then as long as it goes on. */
	scale_run(MKV_DRV_GET, scale.objects, scale.gets, 1, 0);
	before = scale_metric(MKV_M_drive_meta_reads_total);
	scale_run(MKV_DRV_GET, scale.objects, scale.gets, 1, 0);
	scale.warm_reads = scale_metric(MKV_M_drive_meta_reads_total) - before;
	before = mkv_now_ns();
	if (rig_close(scale.rig, 0) != 0)
		scale_fail("no close in order");
	scale.close_ns = mkv_now_ns() - before;
}

static int
by_ratio(const void *a, const void *b)
{
	const struct round *x = a, *y = b;
	double d = (double)x->index_ns / (double)x->read_ns - (double)y->index_ns / (double)y->read_ns;

	return ((d > 0) - (d < 0));
}

static void
report_side(const char *name, const struct side *o)
{
	printf(" \"%s\": {\"puts\": %" PRIu64 ", \"puts_per_s\": %.0f, \"p50_us\": %" PRIu64 ", \"p99_us\": %" PRIu64 ", \"max_us\": %" PRIu64
	    ", \"longest_turn_us\": %" PRIu64 ", \"turns_without_answer\": %" PRIu64 "},\n", name, o->puts, (double)o->puts * 1e9 / (double)MKV_MAX(o->ns, 1),
	    o->p50_us, o->p99_us, o->max_us, o->turn_us, o->silent_turns);
}

static void
report_checkpoint(const struct child *c, double n)
{
	printf(" \"checkpoint\": {\"mib\": %.1f, \"bytes_per_object\": %.1f, \"alone_s\": %.3f, \"alone_longest_turn_us\": %" PRIu64
	    ", \"beside_puts_s\": %.3f, \"close_s\": %.3f},\n", (double)c->ckpt_bytes / (double)MIB, (double)c->ckpt_bytes / n, (double)c->alone_ns / 1e9,
	    c->alone_turn_us, (double)c->beside_ns / 1e9, (double)scale.close_ns / 1e9);
	report_side("puts_without_checkpoint", &c->quiet);
	report_side("puts_beside_checkpoint", &c->beside);
}

static void
scale_report(void)
{
	const struct child *c = &scale.child;
	const struct round *m;
	double n = (double)scale.objects, filled, again, flushes, cold, warm, ratio;

	qsort(scale.round, scale.rounds, sizeof(scale.round[0]), by_ratio);
	m = &scale.round[scale.rounds / 2];
	filled = ((double)c->rss_full - (double)c->rss_empty) / n;
	again = ((double)scale.round[0].rss_after - (double)scale.round[0].rss_before) / n;
	flushes = (double)c->durable_flushes / (double)MKV_MAX(c->durable_puts, 1);
	cold = (double)scale.cold_reads / (double)MKV_MAX(scale.gets, 1);
	warm = (double)scale.warm_reads / (double)MKV_MAX(scale.gets, 1);
	ratio = (double)m->index_ns / (double)MKV_MAX(m->read_ns, 1);
	printf("{\"objects\": %" PRIu64 ", \"fill_s\": %.1f, \"checkpoints\": %" PRIu64 ", \"bytes_per_object\": %.1f, \"shadows_kib\": %" PRIu64 ", \"bytes_per_object_recovered\": %.1f,\n",
	    scale.objects, (double)c->fill_ns / 1e9, c->checkpoints, filled, c->shadow_bytes / 1024, again);
	printf(" \"flushes_per_durable_put\": %.4f, \"meta_reads_per_get_cold\": %.4f, \"meta_reads_per_get\": %.4f,\n", flushes, cold, warm);
	report_checkpoint(c, n);
	printf(" \"recovery\": {\"rounds\": %u, \"read_mib\": %.1f, \"read_s\": %.3f, \"index_s\": %.3f, \"ratio\": %.2f, \"ratio_min\": %.2f, \"ratio_max\": %.2f,"
	    " \"first_get_s\": %.3f}}\n", scale.rounds, (double)m->read_bytes / (double)MIB, (double)m->read_ns / 1e9, (double)m->index_ns / 1e9, ratio,
	    (double)scale.round[0].index_ns / (double)MKV_MAX(scale.round[0].read_ns, 1),
	    (double)scale.round[scale.rounds - 1].index_ns / (double)MKV_MAX(scale.round[scale.rounds - 1].read_ns, 1), (double)m->served_ns / 1e9);
	/* The shadows of the adaptive policy have the same size whatever there is. */
	if (filled > 64 + (double)c->shadow_bytes / n)
		scale_fail("more than 64 bytes of memory an object");
	if ((double)c->ckpt_bytes / n > 56 + (double)MIB / n)
		scale_fail("more than 56 bytes of checkpoint an object");
	if (c->quiet.puts == 0 || c->beside.puts == 0)
		scale_fail("no puts beside the checkpoints");
	if (c->beside.silent_turns > SILENT_TURNS && c->beside.silent_turns > 4 * c->quiet.silent_turns)
		scale_fail("service stopped for a checkpoint");
	if (flushes > 0.2)
		scale_fail("more than 0.2 flushes for each durable put");
	if (warm > 0.05)
		scale_fail("more than 0.05 metadata reads for each get");
	/* The budget is 2 on a quiet machine; others on it, and a host that is slow with memory, make a half more of it. */
	if (scale.full && ratio > 3)
		scale_fail("recovery took more than three times as long as reading its bytes");
	if (scale.full && scale.objects <= 1000000 && m->served_ns > 2 * MKV_NS_PER_SEC)
		scale_fail("the first get was not served within 2 s");
}

static enum rig_kind
scale_kind(void)
{
	struct mkv_ioq_opts o = { .kind = MKV_IOQ_URING, .entries = 8, .depth_max = 8 };
	struct mkv_ioq *q;

	if (mkv_ioq_create(&q, &o) != 0)
		return (RIG_THREADS);
	mkv_ioq_destroy(&q);
	return (RIG_URING);
}

/* The geometry that the engine will choose, so that we know where the hole begins; room for all objects and a quarter more. */
static void
scale_begin(const char *dir)
{
	struct mkv_layout_want w = { .extent_bytes = 4 * MIB, .objects_max = (uint32_t)(scale.objects + scale.objects / 16 + 1024) };
	int direct, fd;
	char why[256];

	w.total_bytes = scale.objects * (VALUE_MAX + VALUE_MAX / 4 + 512) + 256 * MIB;
	w.total_bytes &= ~(4 * MIB - 1);
	MKV_ASSERT(mkv_layout_plan(&scale.sb, &w, why, sizeof(why)) == 0);
	for (uint32_t n = 0; n <= VALUE_MAX; n++) {
		static const uint8_t zero[VALUE_MAX];

		scale.crc[n] = mkv_crc32c(0, zero, n);
	}
	MKV_ASSERT(setenv("TMPDIR", dir, 1) == 0);
	scale.rig = rig_create(scale_kind(), w.total_bytes, 1);
	MKV_ASSERT((fd = mkv_os_medium_open(scale.rig->path, &direct)) >= 0);
	MKV_ASSERT(dup2(fd, scale.rig->fd) >= 0 && close(fd) == 0);
	MKV_ASSERT(mkv_os_preallocate(scale.rig->fd, scale.sb.data_off) == 0);
	MKV_ASSERT(ftruncate(scale.rig->fd, (off_t)w.total_bytes) == 0);
	MKV_ASSERT(mkv_metrics_open_private(&scale.metrics) == 0);
	scale.rig->wrap = scale_wrap;
	scale.rig->o.clock = &mkv_clock_os;
	scale.rig->o.metrics = scale.metrics;
	scale.rig->o.objects_max = w.objects_max;
	scale.rig->o.extent_bytes = w.extent_bytes;
	scale.rig->o.queue_depth = DEPTH;
}

static int
scale_usage(void)
{
	fprintf(stderr, "usage: scale [--objects N] [--rounds N] [--dir DIR] [--full]\n");
	return (2);
}

int
main(int argc, char **argv)
{
	static const struct option opts[] = {
		{ "objects", 1, NULL, 'o' }, { "rounds", 1, NULL, 'r' }, { "dir", 1, NULL, 'd' }, { "full", 0, NULL, 'f' }, { NULL, 0, NULL, 0 },
	};
	const char *dir = getenv("TMPDIR") ? getenv("TMPDIR") : "/tmp";
	int c;

	scale.rounds = 3;
	scale.full = getenv("MKV_FULL") != NULL;
	while ((c = getopt_long(argc, argv, "", opts, NULL)) != -1) {
		if (c == 'o')
			scale.objects = strtoull(optarg, NULL, 10);
		else if (c == 'r')
			scale.rounds = (unsigned)strtoul(optarg, NULL, 10);
		else if (c == 'd')
			dir = optarg;
		else if (c == 'f')
			scale.full = 1;
		else
			return (scale_usage());
	}
	if (scale.objects == 0)
		scale.objects = scale.full ? FULL : SAMPLE;
	if (optind != argc || scale.objects < 1000 || scale.objects > 100000000 || scale.rounds < 1 || scale.rounds > ROUNDS_MAX)
		return (scale_usage());
	mkv_log_init(MKV_LOG_WARN);
	mkv_crc_init();
	scale.rnd.state = 1;
	scale_begin(dir);
	scale_fill();
	for (unsigned i = 0; i < scale.rounds && !scale.bad; i++)
		scale_recover(&scale.round[i]);
	if (!scale.bad)
		scale_gets();
	if (!scale.bad)
		scale_report();
	rig_destroy(&scale.rig);
	mkv_metrics_close(&scale.metrics);
	return (scale.bad != 0);
}
