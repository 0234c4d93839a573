/*
 * libmemkv against a fake server that stalls, delays, lies, refuses and dies: deadlines, the promise that no byte lands after completion, retries,
 * cancel. Every test runs once with io_uring (where the kernel has it) and once with poll.
 */
#include "config.h"

#include "tests/unit/client_counter.h"
#include "tests/unit/client_fix.h"

#include <pthread.h>
#include <sys/mman.h>

#define MS	1000u

static struct fake fake;
static struct mkv_client *cl;

static int
setup_part(uint32_t part_bytes)
{
	struct fake_opts o = { .part_bytes = part_bytes };

	assert_int_equal(fake_open(&fake, &o), 0);
	cl = fix_client(&fake, 1);
	return (0);
}

static int
setup(void **state)
{
	(void)state;
	return (setup_part(0));
}

static int
setup_parts(void **state)
{
	(void)state;
	return (setup_part(256 * 1024));
}

static int
teardown(void **state)
{
	(void)state;
	mkv_client_close(cl);
	fake_close(&fake);
	return (0);
}

static uint64_t
since_us(uint64_t began_ns)
{
	return ((mkv_now_ns() - began_ns) / 1000);
}

/*
 * Not before the deadline, and not long after. A machine that builds beside it was 60 ms late, and what a call could wait for by mistake takes a second, so 250 ms
 * are "not long" here; the histogram is below.
 */
#define LATE_MOST_US	(250 * MS)
#define ASSERT_ON_TIME(began, deadline_us) do {					\
	uint64_t took_ = since_us(began);					\
	assert_true(took_ >= (deadline_us) && took_ < (deadline_us) + LATE_MOST_US); \
} while (0)

static int
on_none(void *arg, const struct mkv_list_entry *e)
{
	(void)arg;
	(void)e;
	return (1);
}

static void
test_deadlines(void **state)
{
	struct mkv_object obj = { .size = sizeof(obj) };
	struct mkv_key keys[2] = { { "a", 1 }, { "b", 1 } };
	uint8_t present[2] = { 9, 9 }, reason[2] = { 9, 9 };
	char buf[64];
	uint64_t t;

	(void)state;
	assert_int_equal(mkv_warm(cl, 5 * SEC), 0);
	fake.mute = 1;
	t = mkv_now_ns();
	assert_int_equal(mkv_get(cl, K("k"), buf, sizeof(buf), 20 * MS, &obj), MKV_ERR_TIMEOUT);
	ASSERT_ON_TIME(t, 20 * MS);
	assert_int_equal(obj.reason, MKV_REASON_TIMED_OUT);
	t = mkv_now_ns();
	assert_int_equal(mkv_put(cl, K("k"), buf, sizeof(buf), NULL, 30 * MS, NULL), MKV_ERR_TIMEOUT);
	ASSERT_ON_TIME(t, 30 * MS);
	t = mkv_now_ns();
	assert_int_equal(mkv_exists_batch(cl, keys, 2, 0, 25 * MS, present, reason), MKV_ERR_TIMEOUT);
	ASSERT_ON_TIME(t, 25 * MS);
	assert_int_equal(present[0] + present[1], 0);
	assert_int_equal(reason[1], MKV_REASON_TIMED_OUT);
	fake.mute = 0;
	assert_int_equal(mkv_exists(cl, K("k"), SEC), 0);	/* an answer: the count of silent deadlines begins anew */
	fake.mute = 1;
	t = mkv_now_ns();
	assert_int_equal(mkv_list(cl, NULL, 0, on_none, NULL, 20 * MS), MKV_ERR_TIMEOUT);
	ASSERT_ON_TIME(t, 20 * MS);
}

/* A round of large values has more bytes to make CRCs of than the deadline has time for. */
static void
test_batch_deadline(void **state)
{
	enum { ITEMS = 1000, BYTES = 4 << 20 };
	struct mkv_batch_item *it = calloc(ITEMS, sizeof(*it));
	uint8_t *v = calloc(1, BYTES);

	(void)state;
	assert_true(it != NULL && v != NULL);
	assert_int_equal(mkv_warm(cl, 5 * SEC), 0);
	for (unsigned i = 0; i < ITEMS; i++)
		it[i] = (struct mkv_batch_item){ .key = { "k", 1 }, .buf = v, .buf_bytes = BYTES };
	fake.mute = 1;
	assert_int_equal(mkv_put_batch(cl, it, ITEMS, NULL, 20 * MS), 0);
	for (unsigned i = 0; i < ITEMS; i++)		/* the first of so many silent ones may have opened the breaker */
		assert_true(it[i].result == MKV_ERR_TIMEOUT || it[i].result == MKV_ERR_UNREACHABLE);
	assert_int_equal(it[ITEMS - 1].result, MKV_ERR_TIMEOUT);
	assert_int_equal(it[ITEMS - 1].reason, MKV_REASON_TIMED_OUT);
	/* Not by the clock, which a busy machine bends: what was never begun was counted nowhere. */
	(void)usleep(100 * MS);
	assert_true(counter(cl, "operations_total{op=\"put\",outcome=\"timeout\"}") + counter(cl, "operations_total{op=\"put\",outcome=\"error\"}") < ITEMS);
	free(it);
	free(v);
}

static void
test_late_reply_is_dropped(void **state)
{
	uint8_t *v = fix_bytes(100000, 1), *buf = malloc(100000);

	(void)state;
	fake_store(&fake, "", K("k"), v, 100000);
	assert_int_equal(mkv_warm(cl, 5 * SEC), 0);
	fake.delay_us = 100 * MS;
	assert_int_equal(mkv_get(cl, K("k"), buf, 100000, 30 * MS, NULL), MKV_ERR_TIMEOUT);
	memset(buf, 0xa5, 100000);
	fake.delay_us = 0;
	(void)usleep(150 * MS);
	for (int i = 0; i < 100000; i++)
		assert_int_equal(buf[i], 0xa5);
	assert_int_equal(mkv_get(cl, K("k"), buf, 100000, 5 * SEC, NULL), 100000);
	assert_memory_equal(v, buf, 100000);
	assert_int_equal(counter(cl, "late_replies_total"), 1);
	assert_int_equal(counter(cl, "sessions_lost_total"), 0);
	free(v);
	free(buf);
}

/* ---- no byte lands after completion ---- */

#define BIG	(4u << 20)

static void
expect_poison(const uint8_t *buf, size_t n)
{
	for (size_t i = 0; i < n; i++)
		if (buf[i] != 0xa5)
			fail_msg("byte %zu was written after completion", i);
}

/* The server goes on sending slowly; the buffer is poisoned as soon as the call returned, and must stay so. */
static void
test_poison_sync(void **state)
{
	uint8_t *v = fix_bytes(BIG, 1), *buf = malloc(BIG);

	(void)state;
	fake_store(&fake, "", K("k"), v, BIG);
	assert_int_equal(mkv_warm(cl, 5 * SEC), 0);
	fake.piece_bytes = 64 * 1024;
	fake.piece_us = 2 * MS;
	for (unsigned i = 0; i < 5; i++) {
		assert_int_equal(mkv_get(cl, K("k"), buf, BIG, 20 * MS + i * 7 * MS, NULL), MKV_ERR_TIMEOUT);
		memset(buf, 0xa5, BIG);
		(void)usleep(30 * MS);
		expect_poison(buf, BIG);
	}
	(void)usleep(300 * MS);
	expect_poison(buf, BIG);
	fake.piece_bytes = 0;
	assert_int_equal(mkv_get(cl, K("k"), buf, BIG, 10 * SEC, NULL), BIG);
	assert_memory_equal(v, buf, BIG);
	assert_true(counter(cl, "dropped_bytes_total") > 0);
	free(v);
	free(buf);
}

/* One get that is cancelled: nothing of it lands any more although the rest of its answer comes then. How long cancelling took. */
static uint64_t
cancel_in_the_middle(const struct mkv_request *rq, uint8_t *buf)
{
	unsigned seen = fake.requests[MKV_WIRE_GET], answered = fake.answered[MKV_WIRE_GET];
	struct mkv_completion k = { .size = sizeof(k) };
	uint64_t id, t;

	assert_int_equal(mkv_submit(cl, rq, &id), 0);
	assert_true(fix_until(&fake.requests[MKV_WIRE_GET], seen + 1));
	(void)usleep(10 * MS + seen % 5 * 5 * MS);
	t = mkv_now_ns();
	assert_int_equal(mkv_cancel(cl, id), 0);
	assert_int_equal(mkv_wait(cl, 50 * SEC), 1);
	t = since_us(t);
	assert_int_equal(mkv_drain(cl, &k, 1), 1);
	assert_int_equal(k.result, MKV_ERR_CANCELLED);
	assert_int_equal(k.id, id);
	memset(buf, 0xa5, BIG);
	fake.stall_after = 0;
	assert_true(fix_until(&fake.answered[MKV_WIRE_GET], answered + 1));
	expect_poison(buf, BIG);
	assert_int_equal(mkv_cancel(cl, id), MKV_ERR_MISS);
	return (t);
}

/*
 * The server is in the middle of the answer and stands still before its end: so whatever the machine does meanwhile, it is cancelling that ends the
 * request. That it does so at once is shown by any one round; a busy machine may take its time in the others.
 */
static void
test_poison_cancel(void **state)
{
	uint8_t *v = fix_bytes(BIG, 1), *buf = malloc(BIG);
	struct iovec iov[2] = { { buf, 100001 }, { buf + 100001, BIG - 100001 } };
	struct mkv_key key = { "k", 1 };
	struct mkv_request rq = { .size = sizeof(rq), .op = MKV_OP_GET, .keys = &key, .n_keys = 1, .iov = iov, .n_iov = 2, .len = MEMKV_SIZE_ANY,
		.deadline_us = 100 * SEC };
	uint64_t least = UINT64_MAX;

	(void)state;
	fake_store(&fake, "", K("k"), v, BIG);
	fake.piece_bytes = 32 * 1024;
	fake.piece_us = 1 * MS;
	for (unsigned i = 0; i < 100 && (i < 5 || least >= 50 * MS); i++) {
		fake.stall_after = 1 + i % 5 * 50000;
		least = MKV_MIN(least, cancel_in_the_middle(&rq, buf));
	}
	assert_true(least < 50 * MS);
	free(v);
	free(buf);
}

/* The server stops in the middle of a value: the deadline holds, and so does the promise when it goes on. */
static void
test_stall_in_payload(void **state)
{
	uint8_t *v = fix_bytes(BIG, 1), *buf = malloc(BIG);
	uint64_t t;

	(void)state;
	fake_store(&fake, "", K("k"), v, BIG);
	assert_int_equal(mkv_warm(cl, 5 * SEC), 0);
	fake.stall_after = 1000000;
	t = mkv_now_ns();
	assert_int_equal(mkv_get(cl, K("k"), buf, BIG, 100 * MS, NULL), MKV_ERR_TIMEOUT);
	ASSERT_ON_TIME(t, 100 * MS);
	memset(buf, 0xa5, BIG);
	fake.stall_after = 0;
	(void)usleep(100 * MS);
	expect_poison(buf, BIG);
	assert_int_equal(mkv_get(cl, K("k"), buf, BIG, 10 * SEC, NULL), BIG);
	assert_memory_equal(v, buf, BIG);
	free(v);
	free(buf);
}

/* A connection that owes an answer and stays silent is given up; the others go on. */
static void
test_silent_connection_ends(void **state)
{
	char buf[8];

	(void)state;
	assert_int_equal(mkv_warm(cl, 5 * SEC), 0);
	fake.mute = 1;
	assert_int_equal(mkv_get(cl, K("k"), buf, 8, 20 * MS, NULL), MKV_ERR_TIMEOUT);
	fake.mute = 0;
	(void)usleep(1500 * MS);
	assert_int_equal(counter(cl, "sessions_lost_total"), 1);
	assert_int_equal(mkv_get(cl, K("k"), buf, 8, 5 * SEC, NULL), MKV_ERR_MISS);
}

/* A put that ends in the middle of its bytes: the memory is the caller's again at once, even to unmap it. */
static void
test_put_memory_after_deadline(void **state)
{
	size_t bytes = 64u << 20;
	uint64_t t;
	uint8_t *p;

	(void)state;
	assert_int_equal(mkv_warm(cl, 5 * SEC), 0);
	fake.frozen = 1;
	for (int i = 0; i < 3; i++) {
		p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		assert_true(p != MAP_FAILED);
		t = mkv_now_ns();
		assert_int_equal(mkv_put(cl, K("k"), p, bytes, NULL, 60 * MS, NULL), MKV_ERR_TIMEOUT);
		ASSERT_ON_TIME(t, 60 * MS);
		assert_int_equal(munmap(p, bytes), 0);
	}
	fake.frozen = 0;
	assert_int_equal(mkv_put(cl, K("k2"), "x", 1, NULL, 10 * SEC, NULL), 0);
	assert_int_equal(fake_objects(&fake), 1);
}

/* ---- retries ---- */

static void
test_retry_statuses(void **state)
{
	struct mkv_object obj = { .size = sizeof(obj) };
	char buf[8];
	uint64_t t;
	int r = 0;

	(void)state;
	fake_store(&fake, "", K("k"), "1", 1);
	fake.status = MKV_E_RETRY;
	fake.statuses = 3;
	assert_int_equal(mkv_get(cl, K("k"), buf, 8, 5 * SEC, NULL), 1);
	assert_true(fake.resends >= 3);
	fake.status = MKV_E_DENIED;
	fake.statuses = 1;
	assert_int_equal(mkv_get(cl, K("k"), buf, 8, 5 * SEC, NULL), MKV_ERR_DENIED);
	assert_int_equal(fake.statuses, 0);
	/* Busy for longer than the deadline: the server's word, unless the deadline comes between a last try and its answer. */
	fake.status = MKV_E_BUSY;
	fake.statuses = 1000000;
	for (unsigned i = 0; i < 10 && r != MKV_ERR_BUSY; i++) {
		t = mkv_now_ns();
		r = mkv_put(cl, K("k"), "2", 1, NULL, 300 * MS, &obj);
		assert_true(r == MKV_ERR_BUSY || r == MKV_ERR_TIMEOUT);
		assert_true(since_us(t) < 300 * MS + LATE_MOST_US);
	}
	assert_int_equal(r, MKV_ERR_BUSY);
	/* A hint is kept. */
	fake.status = MKV_E_BUSY;
	fake.hint_us = 80 * MS;
	fake.statuses = 1;
	t = mkv_now_ns();
	assert_int_equal(mkv_get(cl, K("k"), buf, 8, 5 * SEC, NULL), 1);
	assert_true(since_us(t) >= 80 * MS);
	fake.status = -999;				/* no such error: the session is not to be trusted */
	fake.hint_us = 0;
	fake.statuses = 1;
	assert_int_equal(mkv_get(cl, K("k"), buf, 8, 5 * SEC, NULL), 1);
	assert_int_equal(counter(cl, "protocol_errors_total"), 1);
}

static void
test_retry_lost_sessions(void **state)
{
	struct mkv_put_opts po = { .size = sizeof(po), .flags = MKV_PUT_IF_ABSENT };
	uint8_t *v = fix_bytes(BIG, 4), *buf = malloc(BIG);
	unsigned long long id;

	(void)state;
	fake.hang_up = 2;
	assert_int_equal(mkv_put(cl, K("k"), v, BIG, &po, 10 * SEC, NULL), 0);
	id = fake.last_put_id;
	assert_true(fake.resends >= 1);
	fake.hang_up = 1;
	assert_int_equal(mkv_get(cl, K("k"), buf, BIG, 10 * SEC, NULL), BIG);
	assert_memory_equal(v, buf, BIG);
	/* Stored, but the answer was lost: the same put is no conflict, another one is. */
	assert_int_equal(mkv_put(cl, K("k"), v, BIG, &po, 10 * SEC, NULL), MKV_ERR_EXISTS);
	assert_true(fake.last_put_id != id);
	free(v);
	free(buf);
}

static void
test_lies(void **state)
{
	uint8_t *v = fix_bytes(700000, 1), *buf = malloc(800000);

	(void)state;
	fake_store(&fake, "", K("k"), v, 700000);
	for (int lie = FAKE_BAD_MAC; lie < FAKE_LIES; lie++) {
		if (lie == FAKE_BAD_CRC)
			continue;			/* below */
		assert_int_equal(mkv_warm(cl, 5 * SEC), 0);
		memset(buf, 0, 700000);
		fake.lie = lie;
		fake.lies = 1;
		assert_int_equal(mkv_get(cl, K("k"), buf, 800000, 10 * SEC, NULL), 700000);
		assert_memory_equal(v, buf, 700000);
		assert_true(fake.lies <= 0);
	}
	assert_true(counter(cl, "sessions_lost_total") >= FAKE_LIES - 3);
	assert_int_equal(counter(cl, "corrupt_total"), 0);
	free(v);
	free(buf);
}

static void
test_corrupt(void **state)
{
	struct mkv_object obj = { .size = sizeof(obj) };
	uint8_t *v = fix_bytes(700000, 1), *buf = malloc(700000);

	(void)state;
	fake_store(&fake, "", K("k"), v, 700000);
	assert_int_equal(mkv_warm(cl, 5 * SEC), 0);
	fake.lie = FAKE_BAD_CRC;
	fake.lies = 1;					/* damaged once on the way: asked for again */
	assert_int_equal(mkv_get(cl, K("k"), buf, 700000, 10 * SEC, NULL), 700000);
	assert_memory_equal(v, buf, 700000);
	assert_int_equal(fake.requests[MKV_WIRE_REPORT], 1);
	/* Only what did not match is reported. */
	assert_int_equal(fake.report_len, 65536);
	assert_true(fake.report_off > 0 && fake.report_off < 700000 && fake.report_off % 65536 == 0);
	fake.lies = 1;
	fake.report_bad = 2;				/* the server finds that they never matched, and says whose fault that is */
	assert_int_equal(mkv_get(cl, K("k"), buf, 700000, 10 * SEC, &obj), MKV_ERR_MISS);
	assert_int_equal(obj.reason, MKV_REASON_WRITER_CRC);
	fake.lies = 1;
	fake.report_bad = 1;				/* the server finds its copy bad */
	assert_int_equal(mkv_get(cl, K("k"), buf, 700000, 10 * SEC, &obj), MKV_ERR_MISS);
	assert_int_equal(obj.reason, MKV_REASON_CORRUPT);
	fake.report_bad = 0;
	fake.lies = 1000;				/* it says the copy is good, and it never arrives so */
	assert_int_equal(mkv_get(cl, K("k"), buf, 700000, 10 * SEC, &obj), MKV_ERR_MISS);
	assert_int_equal(obj.reason, MKV_REASON_CORRUPT);
	fake.lies = 0;
	assert_true(counter(cl, "corrupt_total") >= 5);
	free(v);
	free(buf);
}

static void
test_early_error(void **state)
{
	uint8_t *v = fix_bytes(3u << 20, 4);

	(void)state;
	fake.early = MKV_E_DENIED;
	assert_int_equal(mkv_put(cl, K("k"), v, 3u << 20, NULL, 10 * SEC, NULL), MKV_ERR_DENIED);
	fake.early = 0;
	assert_int_equal(mkv_put(cl, K("k"), v, 3u << 20, NULL, 10 * SEC, NULL), 0);
	assert_int_equal(counter(cl, "sessions_lost_total"), 0);
	assert_int_equal(fake_objects(&fake), 1);
	free(v);
}

/* ---- close, fork ---- */

static void
test_close_in_flight(void **state)
{
	struct mkv_client *c = fix_client(&fake, 1);
	uint8_t *v = fix_bytes(BIG, 4), *buf = malloc(BIG);
	struct mkv_key key = { "k", 1 };
	struct iovec in = { buf, BIG }, out = { v, BIG };
	struct mkv_request get = { .size = sizeof(get), .op = MKV_OP_GET, .keys = &key, .n_keys = 1, .iov = &in, .n_iov = 1, .len = MEMKV_SIZE_ANY,
		.deadline_us = 100 * SEC };
	struct mkv_request put = get;
	uint64_t t;

	(void)state;
	put.op = MKV_OP_PUT;
	put.iov = &out;
	fake_store(&fake, "", K("k"), v, BIG);
	fake.piece_bytes = 8192;
	fake.piece_us = 2 * MS;
	for (int i = 0; i < 6; i++)
		assert_int_equal(mkv_submit(c, i % 2 == 0 ? &get : &put, NULL), 0);
	(void)usleep(50 * MS);
	t = mkv_now_ns();
	mkv_client_close(c);
	assert_true(since_us(t) < SEC);
	memset(buf, 0xa5, BIG);
	(void)usleep(50 * MS);
	expect_poison(buf, BIG);
	free(v);
	free(buf);
}

/* ---- many threads ---- */

#define THREADS	6
#define ROUNDS	60
#define DROPS	10

static _Atomic unsigned stress_rounds;

/* The server was out of service, says the breaker: short deadlines that pass while a busy machine lets it wait are failures of the server, too. */
static int
stress_again(int64_t result, const struct mkv_object *obj, uint64_t until_ns)
{
	if (result != MKV_ERR_UNREACHABLE && (result != MKV_ERR_MISS || obj->reason != MKV_REASON_SERVER_DOWN))
		return (0);
	(void)usleep(10 * MS);
	return (mkv_now_ns() < until_ns);
}

static int64_t
stress_put(const char *key, const uint8_t *v, size_t n)
{
	uint64_t until = mkv_now_ns() + 20 * MKV_NS_PER_SEC;
	struct mkv_object obj = { .size = sizeof(obj) };
	int64_t r;

	do
		r = mkv_put(cl, K(key), v, n, NULL, 20 * SEC, &obj);
	while (stress_again(r, &obj, until));
	return (r);
}

static int64_t
stress_get(const char *key, uint8_t *buf, size_t room)
{
	uint64_t until = mkv_now_ns() + 20 * MKV_NS_PER_SEC;
	struct mkv_object obj = { .size = sizeof(obj) };
	int64_t r;

	do
		r = mkv_get(cl, K(key), buf, room, 20 * SEC, &obj);
	while (stress_again(r, &obj, until));
	return (r);
}

static int64_t
stress_exists(const char *key)
{
	uint64_t until = mkv_now_ns() + 20 * MKV_NS_PER_SEC;
	struct mkv_object none = { .size = sizeof(none) };
	int64_t r;

	do
		r = mkv_exists(cl, K(key), 20 * SEC);
	while (stress_again(r, &none, until));
	return (r);
}

static void *
stress_main(void *arg)
{
	unsigned me = (unsigned)(uintptr_t)arg, bad = 0, seed = me * 77;
	uint8_t *v = malloc(300000), *buf = malloc(300000);
	char key[32];

	for (unsigned i = 0; i < ROUNDS; i++) {
		size_t n = (size_t)rand_r(&seed) % 300000;
		int64_t r;

		(void)snprintf(key, sizeof(key), "t%u-%u", me, i % 7);
		fix_fill(v, n, me * 1000 + i);
		bad += stress_put(key, v, n) != 0;
		r = stress_get(key, buf, 300000);
		bad += r != (int64_t)n || memcmp(v, buf, n) != 0;
		if (i % 5 == 0)
			(void)mkv_get(cl, K(key), buf, 300000, 1 + (uint64_t)rand_r(&seed) % 500, NULL);
		if (i % 11 == 0)
			bad += stress_exists(key) != 1;
		stress_rounds++;
	}
	free(v);
	free(buf);
	return ((void *)(uintptr_t)bad);
}

static void
test_threads(void **state)
{
	struct mkv_client_opts o = { .io_threads = 3, .connections = 3 };
	unsigned bad = 0;
	pthread_t t[THREADS];
	void *n;

	(void)state;
	mkv_client_close(cl);
	cl = fix_client_opts(&o, &fake, 1);
	stress_rounds = 0;
	for (unsigned i = 0; i < THREADS; i++)
		assert_int_equal(pthread_create(&t[i], NULL, stress_main, (void *)(uintptr_t)(i + 1)), 0);
	/* Between two drops something gets done, however slow the machine: an operation that loses every attempt may fail. */
	for (unsigned i = 0; i < DROPS; i++) {
		do
			(void)usleep(30 * MS);
		while (stress_rounds < i * THREADS * ROUNDS / DROPS);
		fake_drop_all(&fake);
	}
	/* Nothing is judged before the last thread is out of the library: a failure here closes the handle. */
	for (unsigned i = 0; i < THREADS; i++) {
		(void)pthread_join(t[i], &n);
		bad += (unsigned)(uintptr_t)n;
	}
	assert_int_equal(bad, 0);
}

int
main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
#define P(name) cmocka_unit_test_setup_teardown(name, setup_parts, teardown)
	const struct CMUnitTest tests[] = {
		T(test_deadlines), T(test_batch_deadline), T(test_late_reply_is_dropped), T(test_poison_sync), P(test_poison_sync), T(test_poison_cancel),
		P(test_poison_cancel), T(test_stall_in_payload), T(test_silent_connection_ends), T(test_put_memory_after_deadline),
		T(test_retry_statuses), T(test_retry_lost_sessions), P(test_retry_lost_sessions), T(test_lies), P(test_lies), T(test_corrupt),
		P(test_corrupt), P(test_early_error), T(test_close_in_flight), T(test_threads),
	};
	int r;

	(void)setenv("MEMKV_IO", "auto", 1);
	r = cmocka_run_group_tests_name("auto", tests, NULL, NULL);
	(void)setenv("MEMKV_IO", "poll", 1);
	return (r + cmocka_run_group_tests_name("poll", tests, NULL, NULL));
}
