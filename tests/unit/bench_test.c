/*
 * The load generator against a driver that keeps its values in memory and misbehaves when told to: what is counted, what is found wrong, and
 * that a stall is charged to everything that it delayed.
 */
#include "config.h"
#include "bench/bench_priv.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "bench/gen.h"
#include "common/base/assert.h"
#include "common/base/clock.h"
#include "common/base/os.h"
#include "tests/lib/rnd.h"

/* ---- the driver under the test's control ---- */

#define FAKE_VALUES	512u
#define FAKE_BYTES	8192u

static struct fake_value {
	char		key[BENCH_KEY_BYTES];
	size_t		bytes;
	unsigned char	value[FAKE_BYTES], older[FAKE_BYTES];
} fake_value[FAKE_VALUES];

static struct {
	unsigned	n, room;		/* values kept at most `room`: the oldest goes first */
	int		flip, short_by, stale, lie_exists, fail_every;
	uint64_t	stall_at_ns, stall_until_ns, ops, delay_us, next_ns;	/* delay_us: one operation each so often */
} fake;

struct fake_drv {
	struct bench_drv base;
	struct bench_io	*todo, **tail;
};

static const struct bench_driver fake_driver;

static void
fake_reset(void)
{
	memset(&fake, 0, sizeof(fake));
	fake.room = FAKE_VALUES;
}

static struct fake_value *
fake_find(const struct mkv_key *k)
{
	for (unsigned i = 0; i < fake.n; i++)
		if (strlen(fake_value[i].key) == k->bytes && memcmp(fake_value[i].key, k->data, k->bytes) == 0)
			return (&fake_value[i]);
	return (NULL);
}

static void
fake_put(struct bench_io *io)
{
	struct fake_value *v = fake_find(&io->keys[0]);

	assert_true(io->bytes <= FAKE_BYTES);
	if (v == NULL) {
		if (fake.n == fake.room) {
			memmove(fake_value, fake_value + 1, (fake.n - 1) * sizeof(*v));
			fake.n--;
		}
		v = &fake_value[fake.n++];
		snprintf(v->key, sizeof(v->key), "%.*s", (int)io->keys[0].bytes, (const char *)io->keys[0].data);
		memcpy(v->older, io->buf, io->bytes);
	} else
		memcpy(v->older, v->value, v->bytes);
	memcpy(v->value, io->buf, io->bytes);
	v->bytes = io->bytes;
	io->result = 0;
}

static void
fake_get(struct bench_io *io)
{
	const struct fake_value *v = fake_find(&io->keys[0]);

	if (v == NULL) {
		io->result = MKV_ERR_MISS;
		io->reason = 2;			/* evicted */
		return;
	}
	memcpy(io->buf, fake.stale ? v->older : v->value, v->bytes);
	if (fake.flip)
		((unsigned char *)io->buf)[v->bytes - 1] ^= 1;
	io->result = (int64_t)v->bytes - fake.short_by;
}

static void
fake_serve(struct bench_io *io)
{
	int there, gap = 0;

	if (fake.fail_every > 0 && ++fake.ops % (unsigned)fake.fail_every == 0) {
		io->result = MKV_ERR_IO;
		return;
	}
	if (io->op == BENCH_PUT)
		fake_put(io);
	else if (io->op == BENCH_GET)
		fake_get(io);
	else
		for (unsigned i = 0; i < io->n_keys; i++) {
			there = fake_find(&io->keys[i]) != NULL || fake.lie_exists;
			gap |= !there;
			if (io->present != NULL)
				io->present[i] = (uint8_t)there;
			io->result += io->op == BENCH_MATCH ? !gap : there;
			io->reason = 1;
		}
}

static int
fake_open(struct bench_drv **out, const struct bench_drv_opts *o MKV_UNUSED, char *why MKV_UNUSED, size_t why_bytes MKV_UNUSED)
{
	struct fake_drv *d = calloc(1, sizeof(*d));

	assert_non_null(d);
	d->tail = &d->todo;
	*out = &d->base;
	d->base.ops = &fake_driver;
	return (0);
}

static void
fake_close(struct bench_drv *d)
{
	free(d);
}

static int
fake_submit(struct bench_drv *base, struct bench_io *io)
{
	struct fake_drv *d = (struct fake_drv *)base;

	io->next = NULL;
	*d->tail = io;
	d->tail = &io->next;
	return (0);
}

static void
fake_wait(struct bench_drv *base MKV_UNUSED, uint64_t timeout_us)
{
	uint64_t us = MKV_MIN(timeout_us, 100), now = mkv_now_ns();
	struct timespec ts = { 0, (long)us * 1000 };

	if (now >= fake.stall_at_ns && now < fake.stall_until_ns)
		ts.tv_nsec = (long)(fake.stall_until_ns - now);
	nanosleep(&ts, NULL);
}

static unsigned
fake_drain(struct bench_drv *base, struct bench_io **out, unsigned max)
{
	struct fake_drv *d = (struct fake_drv *)base;
	unsigned n = 0;

	if (fake.delay_us > 0 && d->todo != NULL) {
		if (mkv_now_ns() < fake.next_ns)
			return (0);
		fake.next_ns = mkv_now_ns() + fake.delay_us * MKV_NS_PER_US;
		max = 1;
	}
	for (; n < max && d->todo != NULL; n++) {
		out[n] = d->todo;
		d->todo = d->todo->next;
		fake_serve(out[n]);
	}
	if (d->todo == NULL)
		d->tail = &d->todo;
	return (n);
}

static int
fake_info(struct bench_drv *base MKV_UNUSED, struct bench_drv_info *info)
{
	info->total_bytes = (uint64_t)fake.room * 4096;
	snprintf(info->transport, sizeof(info->transport), "fake");
	return (0);
}

static const struct bench_driver fake_driver = {
	.name = "fake", .keeps_values = 1, .open = fake_open, .close = fake_close, .submit = fake_submit, .wait = fake_wait, .drain = fake_drain,
	.info = fake_info
};

/* ---- helpers ---- */

static struct bench_stats	stats;
static struct bench_replay_result replay;
static struct bench_result	res;

static struct bench_params
params(enum bench_mode mode)
{
	struct bench_params p = { .mode = mode, .driver = "fake", .drv = &fake_driver, .deadline_us = 100000, .size = 4096, .keys = 64,
		.concurrency = 8, .batch = 1, .threads = 1, .seed = 3, .block_bytes = 4096, .hit_pct = 100, .read_pct = 50, .verify = 1, .quiet = 1 };

	if (mode != MODE_FILL && mode != MODE_REPLAY)
		p.ops = 400;
	return (p);
}

static int
run(const struct bench_params *p)
{
	char why[256] = "";

	memset(&stats, 0, sizeof(stats));
	memset(&replay, 0, sizeof(replay));
	res = (struct bench_result){ .stats = &stats, .server_cpu_s = -1, .replay = &replay };
	return (p->mode == MODE_REPLAY ? bench_replay(p, &res, why, sizeof(why)) : bench_run(p, &res, why, sizeof(why)));
}

static void
filled(void)
{
	struct bench_params p = params(MODE_FILL);

	fake_reset();
	assert_int_equal(run(&p), 0);
	assert_int_equal(stats.ops, 64);
	assert_int_equal(fake.n, 64);
	assert_int_equal(stats.bytes, 64 * 4096);
}

/* ---- contents ---- */

static void
every_changed_byte_is_found(void **state)
{
	unsigned char buf[5000];
	struct rnd r;
	size_t where, at;

	(void)state;
	rnd_init(&r, 11);
	for (size_t n = 1; n <= sizeof(buf); n = n < 80 ? n + 1 : n * 3 / 2 + 1) {
		mkv_gen_fill(buf, n, 1, 2, 3);
		assert_int_equal(mkv_gen_check(buf, n, 1, 2, 3, 1, NULL), MKV_GEN_GOOD);
		for (int i = 0; i < 50; i++) {
			at = rnd_below(&r, (uint32_t)n);
			buf[at] ^= (unsigned char)(1 + rnd_below(&r, 255));
			assert_int_equal(mkv_gen_check(buf, n, 1, 2, 3, 1, &where), MKV_GEN_WRONG);
			assert_true(where <= at);
			mkv_gen_fill(buf, n, 1, 2, 3);
		}
	}
}

static void
other_keys_seeds_and_sizes_are_wrong(void **state)
{
	unsigned char buf[4096];

	(void)state;
	mkv_gen_fill(buf, sizeof(buf), 1, 2, 3);
	assert_int_equal(mkv_gen_check(buf, sizeof(buf), 1, 9, 0, 0, NULL), MKV_GEN_WRONG);
	assert_int_equal(mkv_gen_check(buf, sizeof(buf), 9, 2, 0, 0, NULL), MKV_GEN_WRONG);
	assert_int_equal(mkv_gen_check(buf, sizeof(buf) - 1, 1, 2, 0, 0, NULL), MKV_GEN_WRONG);
	assert_int_equal(mkv_gen_check(buf, sizeof(buf), 1, 2, 4, 1, NULL), MKV_GEN_STALE);
	memmove(buf + 40, buf + 32, 1000);		/* right bytes in the wrong place */
	assert_int_equal(mkv_gen_check(buf, sizeof(buf), 1, 2, 3, 1, NULL), MKV_GEN_WRONG);
	mkv_gen_stamp(buf, sizeof(buf), 1, 2, 5);
	assert_int_equal(mkv_gen_check(buf, sizeof(buf), 1, 2, 5, 0, NULL), MKV_GEN_GOOD);
	assert_int_equal(mkv_gen_check(buf, sizeof(buf), 1, 2, 5, 1, NULL), MKV_GEN_LIGHT);
}

/* ---- runs ---- */

static void
a_good_store_passes(void **state)
{
	struct bench_params p;

	(void)state;
	for (enum bench_mode m = MODE_PUT; m <= MODE_MATCH; m++)
		for (p = params(m), p.batch = 1; p.batch <= 4; p.batch += 3)
			for (p.threads = 1; p.threads <= 2; p.threads++) {
				if (p.threads == 2 && m != MODE_EXISTS && m != MODE_GET)
					continue;		/* the fake is not for two writers */
				filled();
				assert_int_equal(run(&p), 0);
				assert_int_equal(stats.ops, 400);
				assert_int_equal(stats.errors + stats.verify_failures + stats.misses, 0);
				assert_int_equal(stats.latency.count, 400 / p.batch);
				assert_true(res.seconds > 0);
			}
}

static void
misses_are_counted_by_reason_and_are_no_error(void **state)
{
	struct bench_params p = params(MODE_GET);

	(void)state;
	filled();
	p.hit_pct = 50;
	assert_int_equal(run(&p), 0);
	assert_int_equal(stats.hits + stats.misses, 400);
	assert_in_range(stats.hits, 140, 260);
	assert_int_equal(stats.miss_by[2], stats.misses);
	assert_int_equal(stats.errors + stats.verify_failures, 0);
	p = params(MODE_MATCH);
	p.batch = 10;
	p.hit_pct = 70;
	assert_int_equal(run(&p), 0);
	assert_int_equal(stats.hits, 280);		/* exactly the known head of each chain */
	assert_int_equal(stats.misses, 120);
}

static void
wrong_bytes_are_found(void **state)
{
	struct bench_params p = params(MODE_GET);

	(void)state;
	filled();
	fake.flip = 1;
	assert_int_equal(run(&p), 0);
	assert_int_equal(stats.verify_failures, 400);
	assert_non_null(strstr(res.first_error, "wrong byte"));
	p.verify = 0;					/* the last byte is body: only --verify looks there */
	assert_int_equal(run(&p), 0);
	assert_int_equal(stats.verify_failures, 0);
	fake.flip = 0;
	fake.short_by = 1;
	assert_int_equal(run(&p), 0);
	assert_int_equal(stats.verify_failures, 400);
}

static void
an_older_version_than_acknowledged_is_found(void **state)
{
	struct bench_params p = params(MODE_MIXED);

	(void)state;
	filled();
	p.keys = 8;
	fake.stale = 1;
	assert_int_equal(run(&p), 0);
	assert_true(stats.verify_failures > 100);
	assert_non_null(strstr(res.first_error, "older version"));
}

static void
values_of_nobody_are_found(void **state)
{
	struct bench_params p = params(MODE_EXISTS);

	(void)state;
	filled();
	fake.lie_exists = 1;
	p.hit_pct = 0;
	assert_int_equal(run(&p), 0);
	assert_int_equal(stats.verify_failures, 400);
	p.mode = MODE_MATCH;
	p.batch = 4;
	assert_int_equal(run(&p), 0);
	assert_int_equal(stats.verify_failures, 100);
}

static void
errors_are_counted_and_end_a_dead_run(void **state)
{
	struct bench_params p = params(MODE_GET);
	uint64_t t0;

	(void)state;
	filled();
	fake.fail_every = 4;
	p.ops = 40;
	assert_int_equal(run(&p), 0);
	assert_int_equal(stats.errors, 10);
	assert_int_equal(stats.error_by[3], 10);	/* IO */
	assert_int_equal(stats.ops, 30);
	fake.fail_every = 1;
	p.ops = 0;
	p.duration_us = 60000000;
	t0 = mkv_now_ns();
	assert_int_equal(run(&p), MKV_ERR_UNREACHABLE);
	assert_true(mkv_now_ns() - t0 < 15 * MKV_NS_PER_SEC);
}

/*
 * 1,000 a second, and one stall of 300 ms: about 300 calls were due while it lasted. A generator that forgets them reports one slow call.
 */
static void
a_stall_is_charged_to_all_it_delayed(void **state)
{
	struct bench_params p = params(MODE_GET);
	uint64_t slow = 0;

	(void)state;
	filled();
	p.ops = 0;
	p.duration_us = 1000000;
	p.rate = 1000;
	fake.stall_at_ns = mkv_now_ns() + 300 * MKV_NS_PER_MS;
	fake.stall_until_ns = fake.stall_at_ns + 300 * MKV_NS_PER_MS;
	assert_int_equal(run(&p), 0);
	assert_in_range(stats.ops, 990, 1001);
	assert_int_equal(res.unstarted, 0);
	for (unsigned i = mkv_hist_slot(50 * MKV_NS_PER_MS); i < MKV_HIST_SLOTS; i++)
		slow += stats.latency.slot[i];
	assert_in_range(slow, 150, 700);
	assert_true(mkv_hist_quantile_ns(&stats.latency, 0.99) > 200 * MKV_NS_PER_MS);
}

static void
what_an_open_loop_never_started_is_said(void **state)
{
	struct bench_params p = params(MODE_GET);

	(void)state;
	filled();
	p.ops = 0;
	p.duration_us = 200000;
	p.rate = 10000;
	fake.delay_us = 1000;				/* 1,000 a second is all it does */
	assert_int_equal(run(&p), 0);
	assert_true(res.unstarted > 1000);
	assert_true(stats.ops + res.unstarted >= 1990);
	assert_true(mkv_hist_quantile_ns(&stats.latency, 0.5) > 20 * MKV_NS_PER_MS);
}

static void
what_the_warm_up_does_is_not_counted(void **state)
{
	struct bench_params p = params(MODE_GET);

	(void)state;
	filled();
	p.ops = 0;
	p.rate = 1000;
	p.warmup_us = 300000;
	p.duration_us = 200000;
	assert_int_equal(run(&p), 0);
	assert_in_range(stats.ops, 150, 210);
	assert_int_equal(stats.hits, stats.ops);
	assert_int_equal(stats.bytes, stats.ops * 4096);
}

/* ---- replay ---- */

static char	trace_path[64];

static void
trace_write(void)
{
	FILE *f = fopen(trace_path, "w");

	assert_non_null(f);
	for (int r = 0; r < 30; r++)			/* three conversations that grow by a block each turn */
		for (int i = 0, id = r % 3 * 100; i <= r / 3 + 1; i++)
			fprintf(f, "%s%d%s", i == 0 ? "{\"timestamp\": 0, \"hash_ids\": [" : ", ", id + i, i == r / 3 + 1 ? "]}\n" : "");
	assert_int_equal(fclose(f), 0);
}

static void
a_replay_hits_what_can_be_hit(void **state)
{
	struct bench_params p = params(MODE_REPLAY);

	(void)state;
	fake_reset();
	p.trace = trace_path;
	assert_int_equal(run(&p), 0);
	assert_int_equal(replay.requests, 30);
	assert_int_equal(replay.distinct, 33);
	assert_int_equal(replay.put_blocks, replay.distinct);
	assert_int_equal(stats.hits, replay.ceiling_hits);
	assert_int_equal(stats.hits, replay.got_blocks);
	assert_int_equal(stats.hits + stats.misses, replay.blocks);
	assert_int_equal(stats.errors + stats.verify_failures, 0);
	assert_int_equal(replay.request.count, 30);
	p.requests = 4;
	fake_reset();
	assert_int_equal(run(&p), 0);
	assert_true(stats.hits <= replay.ceiling_hits);
	assert_int_equal(stats.errors + stats.verify_failures, 0);
}

static void
a_small_store_hits_less(void **state)
{
	struct bench_params p = params(MODE_REPLAY);

	(void)state;
	fake_reset();
	fake.room = 10;
	p.trace = trace_path;
	assert_int_equal(run(&p), 0);
	assert_true(stats.hits < replay.ceiling_hits);
	assert_int_equal(stats.hits + stats.misses, replay.blocks);
	assert_int_equal(stats.errors + stats.verify_failures, 0);
}

static void
a_replay_finds_wrong_bytes_and_errors(void **state)
{
	struct bench_params p = params(MODE_REPLAY);

	(void)state;
	fake_reset();
	fake.flip = 1;
	p.trace = trace_path;
	assert_int_equal(run(&p), 0);
	assert_int_equal(stats.verify_failures, replay.got_blocks);
	fake_reset();
	fake.fail_every = 5;
	assert_int_equal(run(&p), 0);
	assert_true(stats.errors > 10);
}

static void
the_capacity_of_a_replay_is_checked(void **state)
{
	struct bench_params p = params(MODE_REPLAY);

	(void)state;
	fake_reset();
	p.trace = trace_path;
	p.capacity_pct = 100;
	assert_int_equal(run(&p), MKV_ERR_CONFIG);
	fake.room = 32;
	assert_int_equal(run(&p), 0);
	assert_int_equal(replay.capacity_bytes, 33 * 4096);
}

static void
an_open_replay_keeps_the_pace(void **state)
{
	struct bench_params p = params(MODE_REPLAY);

	(void)state;
	fake_reset();
	p.trace = trace_path;
	p.speed = 10;					/* 30 requests in one tick of 3 s */
	assert_int_equal(run(&p), 0);
	assert_true(res.seconds > 0.25 && res.seconds < 1.5);
	assert_int_equal(replay.requests, 30);
}

/* ---- options ---- */

struct opts {
	const char	*name, *choice;
	uint64_t	n, size, wait_us;
	double		pct;
	int		flag;
};

static const struct mkv_opt opt_rows[] = {
	{ "name", 'n', MKV_OPT_STR, offsetof(struct opts, name), "TEXT", NULL, NULL, "", 1 },
	{ "choice", 0, MKV_OPT_CHOICE, offsetof(struct opts, choice), "WORD", "red", "red|green|blue", "", 1 },
	{ "count", 'c', MKV_OPT_U64, offsetof(struct opts, n), "N", "4", "2", "", 1 },
	{ "size", 0, MKV_OPT_SIZE, offsetof(struct opts, size), "SIZE", NULL, NULL, "", 1 },
	{ "wait", 0, MKV_OPT_SECONDS, offsetof(struct opts, wait_us), "S", NULL, NULL, "", 1 },
	{ "share", 0, MKV_OPT_PERCENT, offsetof(struct opts, pct), "PCT", NULL, NULL, "", 1 },
	{ "flag", 'f', MKV_OPT_FLAG, offsetof(struct opts, flag), NULL, NULL, NULL, "", 3 },
};

static int
opts(struct opts *o, unsigned mask, const char **words, char why[256], const char *first, ...)
{
	char *argv[16], text[16][32];
	int argc = 0;
	va_list ap;

	memset(o, 0, sizeof(*o));
	va_start(ap, first);
	for (const char *a = first; a != NULL; a = va_arg(ap, const char *), argc++) {
		snprintf(text[argc], sizeof(text[argc]), "%s", a);
		argv[argc] = text[argc];
	}
	va_end(ap);
	return (mkv_opt_parse(opt_rows, MKV_ARRAY_LEN(opt_rows), mask, o, argc, argv, words, why, 256));
}

static void
options_are_read(void **state)
{
	const char *words[17];
	struct opts o;
	char why[256];

	(void)state;
	assert_int_equal(opts(&o, 1, words, why, "a", "--count=7", "-", "--size", "1 MiB", "-f", "--wait", "1.5", "--share", "20%", "--", "--flag", NULL), 3);
	assert_int_equal(o.n, 7);
	assert_int_equal(o.size, 1 << 20);
	assert_int_equal(o.wait_us, 1500000);
	assert_true(o.pct > 19.99 && o.pct < 20.01);
	assert_int_equal(o.flag, 1);
	assert_string_equal(o.choice, "red");
	assert_null(words[3]);
	assert_int_equal(opts(&o, 1, words, why, "-c9", "--wait", "20ms", NULL), 0);
	assert_int_equal(o.n, 9);
	assert_int_equal(o.wait_us, 20000);
}

static void
wrong_options_are_refused_with_a_hint(void **state)
{
	static const struct {
		const char *a, *b, *say;
	} bad[] = {
		{ "--cuont", "3", "nearest known one is --count" }, { "--count", "1", "at least 2" }, { "--count", "x", "whole number" },
		{ "--count", "-3", "whole number" }, { "--count", NULL, "needs a value" }, { "--choice", "pink", "red|green|blue" },
		{ "--choice", "re", "red|green|blue" }, { "--flag=1", NULL, "takes no value" }, { "--size", "12x", "a size" },
		{ "--share", "101", "percentage" }, { "--share", "nan", "percentage" }, { "--wait", "0", "seconds" }, { "-z", NULL, "unknown option" },
	};
	const char *words[17];
	struct opts o;
	char why[256];

	(void)state;
	for (size_t i = 0; i < MKV_ARRAY_LEN(bad); i++) {
		assert_int_equal(opts(&o, 1, words, why, bad[i].a, bad[i].b, NULL), -1);
		assert_non_null(strstr(why, bad[i].say));
	}
	assert_int_equal(opts(&o, 2, words, why, "--count", "3", NULL), -1);	/* another command's */
	assert_int_equal(opts(&o, 2, words, why, "--flag", NULL), 0);
}

/* ---- drivers ---- */

/* One request through a driver, to its end. */
static int64_t
driven(struct bench_drv *d, enum bench_op op, const char *key, void *buf, size_t bytes)
{
	struct mkv_key k = { key, strlen(key) };
	struct bench_io io = { .op = op, .keys = &k, .n_keys = 1, .buf = buf, .bytes = bytes, .deadline_us = 10000000 }, *out = NULL;

	assert_int_equal(d->ops->submit(d, &io), 0);
	while (d->ops->drain(d, &out, 1) == 0)
		d->ops->wait(d, 100000);
	assert_ptr_equal(out, &io);
	return (io.result);
}

static int
driver_open(struct bench_drv **d, const struct bench_driver *ops, const char *servers, char why[256])
{
	const struct bench_drv_opts o = { .servers = servers, .concurrency = 1, .connections = 1, .value_bytes = 8, .keys = 3 };

	why[0] = '\0';
	return (ops->open(d, &o, why, 256));
}

#define REDIS_SET	"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$8\r\n01234567\r\n"
#define REDIS_GET	"*2\r\n$3\r\nGET\r\n$1\r\nk\r\n"

/* What this server is asked must be `want`, then it says `answer`. */
static int
redis_turn(int fd, const char *want, const char *answer)
{
	char got[128];

	return (recv(fd, got, strlen(want), MSG_WAITALL) == (ssize_t)strlen(want) && memcmp(got, want, strlen(want)) == 0 &&
	    write(fd, answer, strlen(answer)) == (ssize_t)strlen(answer));
}

static void
redis_child(int listener)
{
	int fd = accept(listener, NULL, NULL);

	_exit(fd >= 0 && redis_turn(fd, REDIS_SET, "+OK\r\n") && redis_turn(fd, REDIS_GET, "$8\r\nabcdefgh\r\n") ? 0 : 1);
}

static void
redis_is_reached_by_its_unix_socket(void **state)
{
	char path[64], servers[80], why[256], buf[8] = "01234567";
	int listener, status;
	struct bench_drv *d;
	pid_t child;

	(void)state;
	snprintf(path, sizeof(path), "/tmp/memkv-bench-%d.sock", (int)getpid());
	snprintf(servers, sizeof(servers), "unix://%s", path);
	assert_int_equal(driver_open(&d, &bench_driver_redis, servers, why), MKV_ERR_UNREACHABLE);
	assert_non_null(strstr(why, path));
	listener = mkv_os_listen_unix(path, 0600);
	assert_true(listener >= 0 && mkv_os_socket_mode(listener, 0) == 0);
	child = fork();
	assert_true(child >= 0);
	if (child == 0)
		redis_child(listener);
	assert_int_equal(driver_open(&d, &bench_driver_redis, servers, why), 0);
	assert_int_equal(driven(d, BENCH_PUT, "k", buf, sizeof(buf)), 0);
	assert_int_equal(driven(d, BENCH_GET, "k", buf, sizeof(buf)), 8);
	assert_memory_equal(buf, "abcdefgh", 8);
	d->ops->close(d);
	assert_int_equal(waitpid(child, &status, 0), child);
	assert_int_equal(status, 0);
	close(listener);
	unlink(path);
}

static void
addresses_that_are_none_are_refused(void **state)
{
	static const char *const bad[] = { "unix://", "unix://relative", "host", "host:", "a:1,b:2" };
	char why[256], far[400];
	struct bench_drv *d;

	(void)state;
	memset(far, 'x', sizeof(far));
	memcpy(far, "unix:///", 8);
	far[sizeof(far) - 1] = '\0';
	assert_int_equal(driver_open(&d, &bench_driver_redis, far, why), MKV_ERR_CONFIG);
	for (size_t i = 0; i < MKV_ARRAY_LEN(bad); i++) {
		assert_int_equal(driver_open(&d, &bench_driver_memcached, bad[i], why), MKV_ERR_CONFIG);
		assert_non_null(strstr(why, "HOST:PORT"));
	}
}

/* Each key has a place of its own, else it would measure fewer values than it says. */
static void
the_reference_copies_what_a_key_has(void **state)
{
	char why[256], key[BENCH_KEY_BYTES], buf[8];
	struct bench_drv *d;

	(void)state;
	assert_int_equal(driver_open(&d, &bench_driver_memcpy, NULL, why), 0);
	for (uint64_t i = 0; i < 3; i++) {
		bench_key(key, 'k', 1, 98 + i);
		memset(buf, (int)('a' + i), sizeof(buf));
		assert_int_equal(driven(d, BENCH_PUT, key, buf, sizeof(buf)), 0);
	}
	for (uint64_t i = 0; i < 3; i++) {
		bench_key(key, 'k', 1, 98 + i);
		assert_int_equal(driven(d, BENCH_GET, key, buf, sizeof(buf)), sizeof(buf));
		for (size_t at = 0; at < sizeof(buf); at++)
			assert_int_equal(buf[at], 'a' + i);
	}
	d->ops->close(d);
}

/* ---- CPU time ---- */

/* Takes 100 ms of processor time, says so, and waits for the end of its input. */
static void
busy_child(int said, int asked)
{
	char c = 0;

	for (uint64_t end = mkv_cpu_ns() + 100 * MKV_NS_PER_MS; mkv_cpu_ns() < end;)
		c ^= 1;
	_exit(write(said, &c, 1) == 1 && read(asked, &c, 1) == 0 ? 0 : 1);
}

/* Of a child: an emulator's own entry in /proc says zero to itself. */
static void
cpu_time_of_a_process_is_seen(void **state)
{
	pid_t child, none = 0x7ffffff0;
	int said[2], asked[2], status;
	char c;

	(void)state;
	if (access("/proc/self/stat", R_OK) != 0)
		skip();
	assert_int_equal(pipe(said), 0);
	assert_int_equal(pipe(asked), 0);
	child = fork();
	assert_true(child >= 0);
	if (child == 0) {
		close(asked[1]);
		busy_child(said[1], asked[0]);
	}
	close(said[1]);
	close(asked[0]);
	assert_int_equal(read(said[0], &c, 1), 1);
	assert_true(bench_cpu_of(&child, 1) >= 0.05);
	assert_true(bench_cpu_of(&none, 1) < 0);
	assert_true(bench_cpu_of(&child, 0) < 0);
	close(said[0]);
	close(asked[1]);
	assert_int_equal(waitpid(child, &status, 0), child);
	assert_int_equal(status, 0);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_changed_byte_is_found), cmocka_unit_test(other_keys_seeds_and_sizes_are_wrong),
		cmocka_unit_test(a_good_store_passes), cmocka_unit_test(misses_are_counted_by_reason_and_are_no_error),
		cmocka_unit_test(wrong_bytes_are_found), cmocka_unit_test(an_older_version_than_acknowledged_is_found),
		cmocka_unit_test(values_of_nobody_are_found), cmocka_unit_test(errors_are_counted_and_end_a_dead_run),
		cmocka_unit_test(a_stall_is_charged_to_all_it_delayed), cmocka_unit_test(what_an_open_loop_never_started_is_said),
		cmocka_unit_test(what_the_warm_up_does_is_not_counted), cmocka_unit_test(a_replay_hits_what_can_be_hit),
		cmocka_unit_test(a_small_store_hits_less), cmocka_unit_test(a_replay_finds_wrong_bytes_and_errors),
		cmocka_unit_test(the_capacity_of_a_replay_is_checked), cmocka_unit_test(an_open_replay_keeps_the_pace),
		cmocka_unit_test(options_are_read), cmocka_unit_test(wrong_options_are_refused_with_a_hint),
		cmocka_unit_test(redis_is_reached_by_its_unix_socket), cmocka_unit_test(addresses_that_are_none_are_refused),
		cmocka_unit_test(the_reference_copies_what_a_key_has), cmocka_unit_test(cpu_time_of_a_process_is_seen),
	};
	int r, fd;

	snprintf(trace_path, sizeof(trace_path), "/tmp/memkv-bench-XXXXXX");
	if ((fd = mkstemp(trace_path)) < 0)
		return (1);
	close(fd);
	trace_write();
	r = cmocka_run_group_tests(tests, NULL, NULL);
	unlink(trace_path);
	return (r);
}
