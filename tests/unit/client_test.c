/*
 * libmemkv against a fake server that behaves: every call, values of all sizes, key lists, streams, regions, the asynchronous core.
 */
#include "config.h"

#include "tests/unit/client_fix.h"

#include <errno.h>
#include <poll.h>

#define PART	(64u * 1024)		/* small, so that most values travel in parts */

static struct fake fake;
static struct mkv_client *cl;

static int
setup(void **state)
{
	struct fake_opts o = { .part_bytes = PART };

	(void)state;
	assert_int_equal(fake_open(&fake, &o), 0);
	cl = fix_client(&fake, 1);
	return (0);
}

static int
teardown(void **state)
{
	(void)state;
	mkv_client_close(cl);
	fake_close(&fake);
	return (0);
}

static void
test_round_trips(void **state)
{
	static const size_t sizes[] = { 0, 1, 7, 4095, 8192, 8193, 65535, 65536, 65537, 200000, 262144, 1000001, 5u << 20 };
	struct mkv_object obj = { .size = sizeof(obj) };
	uint8_t *v, *back;
	char key[32];

	(void)state;
	for (unsigned i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
		(void)snprintf(key, sizeof(key), "size-%zu", sizes[i]);
		v = fix_bytes(sizes[i], i + 1);
		back = calloc(1, sizes[i] + 16);
		assert_int_equal(mkv_put(cl, K(key), v, sizes[i], NULL, 10 * SEC, &obj), 0);
		assert_int_equal(obj.value_bytes, sizes[i]);
		assert_int_equal(mkv_get(cl, K(key), back, sizes[i] + 16, 10 * SEC, &obj), sizes[i]);
		assert_memory_equal(v, back, sizes[i]);
		assert_int_equal(obj.value_bytes, sizes[i]);
		free(v);
		free(back);
	}
}

static void
test_no_verify(void **state)
{
	struct mkv_client_opts o = { .no_verify = 1 };
	struct mkv_client *c;
	uint8_t *v = fix_bytes(300000, 3), *back = malloc(300000);

	(void)state;
	c = fix_client_opts(&o, &fake, 1);
	assert_int_equal(mkv_put(c, K("k"), v, 300000, NULL, 10 * SEC, NULL), 0);
	assert_true(fake.last_flags & MKV_WIRE_PUT_NO_CRC);
	assert_int_equal(mkv_get(c, K("k"), back, 300000, 10 * SEC, NULL), 300000);
	assert_memory_equal(v, back, 300000);
	mkv_client_close(c);
	free(v);
	free(back);
}

static void
test_range(void **state)
{
	static const struct { uint64_t off; size_t len, want; } r[] = {
		{ 0, 10, 10 }, { 1, 200000, 200000 }, { 65535, 2, 2 }, { 299999, 100, 1 }, { 300000, 10, 0 }, { 400000, 10, 0 }, { 70000, 131072, 131072 },
		{ 5, 0, 0 }
	};
	uint8_t *v = fix_bytes(300000, 3), *back = malloc(300000);
	struct mkv_object obj = { .size = sizeof(obj) };

	(void)state;
	fake_store(&fake, "", K("k"), v, 300000);
	for (unsigned i = 0; i < sizeof(r) / sizeof(r[0]); i++) {
		memset(back, 0xee, 300000);
		assert_int_equal(mkv_get_range(cl, K("k"), r[i].off, back, r[i].len, 10 * SEC, &obj), r[i].want);
		assert_int_equal(obj.value_bytes, 300000);
		assert_memory_equal(back, v + r[i].off, r[i].want);
		assert_int_equal(back[r[i].want], 0xee);
	}
	assert_int_equal(mkv_get(cl, K("k"), back, 299999, 10 * SEC, &obj), MKV_ERR_TOOBIG);
	assert_int_equal(obj.value_bytes, 300000);
	free(v);
	free(back);
}

static void
test_iovecs(void **state)
{
	uint8_t *v = fix_bytes(500000, 9), *back = calloc(1, 500000);
	struct iovec iov[1000];
	struct mkv_request rq = { .size = sizeof(rq), .op = MKV_OP_GET, .n_keys = 1, .iov = iov, .n_iov = 1000, .len = MEMKV_SIZE_ANY,
		.deadline_us = 10 * SEC };
	struct mkv_completion k = { .size = sizeof(k) };
	struct mkv_key key = { "k", 1 };

	(void)state;
	rq.keys = &key;
	for (unsigned i = 0; i < 1000; i++)
		iov[i] = (struct iovec){ .iov_base = v + i * 500, .iov_len = i == 500 ? 0 : i == 501 ? 500 : 500 };
	iov[499].iov_len = 1000;
	iov[500].iov_len = 0;
	assert_int_equal(mkv_putv(cl, K("k"), iov, 1000, NULL, 10 * SEC, NULL), 0);
	for (unsigned i = 0; i < 1000; i++)
		iov[i].iov_base = back + ((uint8_t *)iov[i].iov_base - v);
	assert_int_equal(mkv_submit(cl, &rq, NULL), 0);
	assert_int_equal(mkv_wait(cl, 10 * SEC), 1);
	assert_int_equal(mkv_drain(cl, &k, 1), 1);
	assert_int_equal(k.result, 500000);
	assert_memory_equal(v, back, 500000);
	free(v);
	free(back);
}

static void
test_every_get_tells_which_put_it_saw(void **state)
{
	struct mkv_put_opts over = { .size = sizeof(over), .flags = MKV_PUT_OVERWRITE };
	struct mkv_object seen = { .size = sizeof(seen) }, again = { .size = sizeof(again) };
	char buf[8];

	(void)state;
	assert_int_equal(mkv_put(cl, K("twice"), "one", 3, NULL, SEC, NULL), 0);
	assert_int_equal(mkv_stat(cl, K("twice"), SEC, &seen), 0);
	assert_int_not_equal(seen.put_id, 0);
	assert_int_equal(mkv_get_range(cl, K("twice"), 1, buf, 1, SEC, &again), 1);
	assert_int_equal(again.put_id, seen.put_id);
	assert_int_equal(mkv_put(cl, K("twice"), "two", 3, &over, SEC, NULL), 0);
	assert_int_equal(mkv_get(cl, K("twice"), buf, 8, SEC, &again), 3);
	assert_int_not_equal(again.put_id, seen.put_id);
}

static void
test_small_calls(void **state)
{
	struct mkv_put_opts po = { .size = sizeof(po), .flags = MKV_PUT_IF_ABSENT | MKV_PUT_PIN, .ttl_ms = 5000, .parent = "dad", .parent_bytes = 3 };
	struct mkv_object obj = { .size = sizeof(obj) };
	char buf[8], key[512];

	(void)state;
	errno = 4711;
	assert_int_equal(mkv_get(cl, K("nothing"), buf, 8, SEC, &obj), MKV_ERR_MISS);
	assert_int_equal(obj.reason, MKV_REASON_NEVER);
	assert_int_equal(mkv_exists(cl, K("a"), SEC), 0);
	assert_int_equal(mkv_put(cl, K("a"), "v", 1, &po, SEC, &obj), 0);
	assert_int_equal(fake.last_ttl_ms, 5000);
	assert_int_equal(fake.last_parent_bytes, 3);
	assert_int_equal(mkv_put(cl, K("a"), "w", 1, &po, SEC, &obj), MKV_ERR_EXISTS);
	assert_int_equal(mkv_exists(cl, K("a"), SEC), 1);
	assert_int_equal(mkv_stat(cl, K("a"), SEC, &obj), 0);
	assert_int_equal(obj.value_bytes, 1);
	assert_int_equal(obj.flags, MKV_PUT_PIN);
	assert_int_equal(obj.put_wall_ms, 1234567);
	assert_int_equal(mkv_touch(cl, K("a"), 777, SEC), 0);
	assert_int_equal(fake.last_ttl_ms, 777);
	assert_int_equal(mkv_touch(cl, K("b"), 0, SEC), MKV_ERR_MISS);
	assert_int_equal(mkv_delete(cl, K("a"), SEC), 0);
	assert_int_equal(mkv_delete(cl, K("a"), SEC), MKV_ERR_MISS);
	memset(key, 0, sizeof(key));
	assert_int_equal(mkv_put(cl, key, 512, "z", 1, NULL, SEC, NULL), 0);
	assert_int_equal(mkv_get(cl, key, 512, buf, 8, SEC, NULL), 1);
	assert_int_equal(mkv_get(cl, key, 511, buf, 8, SEC, NULL), MKV_ERR_MISS);
	assert_int_equal(errno, 4711);
}

static void
test_namespaces(void **state)
{
	struct mkv_client_opts o = { .namespace_ = "blue" };
	struct mkv_put_opts po = { .size = sizeof(po), .namespace_ = "red" };
	struct mkv_client *c;
	char buf[4];
	int there;

	(void)state;
	c = fix_client_opts(&o, &fake, 1);
	assert_int_equal(mkv_put(c, K("k"), "1", 1, NULL, SEC, NULL), 0);
	assert_int_equal(mkv_put(c, K("k"), "22", 2, &po, SEC, NULL), 0);
	assert_int_equal(fake_load(&fake, "blue", K("k"), buf, 4, &there), 1);
	assert_int_equal(fake_load(&fake, "red", K("k"), buf, 4, &there), 2);
	assert_int_equal(mkv_get(c, K("k"), buf, 4, SEC, NULL), 1);
	assert_int_equal(mkv_get(cl, K("k"), buf, 4, SEC, NULL), MKV_ERR_MISS);
	mkv_client_close(c);
}

static void
test_bad_arguments(void **state)
{
	struct mkv_request rq = { .size = sizeof(rq), .op = 99, .deadline_us = SEC };
	struct mkv_key k = { "k", 1 };
	char buf[4];

	(void)state;
	assert_int_equal(mkv_get(cl, K("k"), buf, 4, 0, NULL), MKV_ERR_INVAL);
	assert_int_equal(mkv_get(cl, K("k"), buf, 4, 3600000001ull, NULL), MKV_ERR_INVAL);
	assert_int_equal(mkv_get(cl, "", 0, buf, 4, SEC, NULL), MKV_ERR_INVAL);
	assert_int_equal(mkv_get(cl, buf, 513, buf, 4, SEC, NULL), MKV_ERR_INVAL);
	assert_int_equal(mkv_get(NULL, K("k"), buf, 4, SEC, NULL), MKV_ERR_INVAL);
	assert_int_equal(mkv_exists_batch(cl, &k, 0, 0, SEC, NULL, NULL), MKV_ERR_INVAL);
	assert_int_equal(mkv_match(cl, &k, 1, 60001, 0, SEC, NULL), MKV_ERR_INVAL);
	rq.keys = &k;
	rq.n_keys = 1;
	assert_int_equal(mkv_submit(cl, &rq, NULL), MKV_ERR_INVAL);
	assert_int_equal(mkv_cancel(cl, 1 << 16 | 5), MKV_ERR_MISS);
	assert_int_equal(mkv_cancel(cl, 0), MKV_ERR_INVAL);
}

/* More keys than fit one frame: the list travels in parts, both ways. */
static void
test_long_lists(void **state)
{
	enum { N = 65536, BYTES = 24 };
	char (*text)[BYTES] = calloc(N, BYTES);
	struct mkv_key *keys = calloc(N, sizeof(*keys));
	uint8_t *present = malloc(N), *reason = malloc(N);
	unsigned why = 99;

	(void)state;
	for (unsigned i = 0; i < N; i++) {
		(void)snprintf(text[i], BYTES, "list-%08u-%08u", i, i);
		keys[i] = (struct mkv_key){ text[i], strlen(text[i]) };
		if (i < 40)
			fake_store(&fake, "", text[i], strlen(text[i]), "x", 1);
	}
	fake_store(&fake, "", text[N - 1], strlen(text[N - 1]), "x", 1);
	assert_int_equal(mkv_exists_batch(cl, keys, N, 0, 30 * SEC, present, reason), 41);
	for (unsigned i = 0; i < N; i++) {
		assert_int_equal(present[i], i < 40 || i == N - 1);
		assert_int_equal(reason[i], present[i] ? 0 : MKV_REASON_NEVER);
	}
	assert_int_equal(mkv_match(cl, keys, 4096, 1000, MKV_NO_TOUCH, 30 * SEC, &why), 40);
	assert_int_equal(why, MKV_REASON_NEVER);
	assert_int_equal(mkv_match(cl, keys, 40, 0, 0, 30 * SEC, &why), 40);
	assert_int_equal(why, MKV_REASON_NONE);
	assert_int_equal(mkv_delete_batch(cl, keys, 50, 30 * SEC, present, NULL), 40);
	assert_int_equal(present[39], 1);
	assert_int_equal(present[40], 0);
	assert_int_equal(mkv_exists_batch(cl, keys, N + 1, 0, SEC, present, reason), MKV_ERR_TOOBIG);
	free(text);
	free(keys);
	free(present);
	free(reason);
}

static void
test_batches(void **state)
{
	enum { N = 700 };
	struct mkv_batch_item *it = calloc(N, sizeof(*it));
	char key[N][16];
	uint8_t *v = fix_bytes(N * 3000, 5), *back = calloc(N, 3000);

	(void)state;
	for (unsigned i = 0; i < N; i++) {
		(void)snprintf(key[i], sizeof(key[i]), "b%u", i);
		it[i] = (struct mkv_batch_item){ .key = { key[i], strlen(key[i]) }, .buf = v + i * 3000, .buf_bytes = 1 + i * 4 };
	}
	it[3].key.bytes = 0;
	assert_int_equal(mkv_put_batch(cl, it, N, NULL, 10 * SEC), N - 1);
	assert_int_equal(it[3].result, MKV_ERR_INVAL);
	it[3].key.bytes = 2;
	for (unsigned i = 0; i < N; i++) {
		it[i].buf = back + i * 3000;
		it[i].buf_bytes = 3000;
	}
	assert_int_equal(mkv_get_batch(cl, it, N, 10 * SEC), N - 1);
	for (unsigned i = 0; i < N; i++) {
		assert_int_equal(it[i].result, i == 3 ? MKV_ERR_MISS : (int)(1 + i * 4));
		if (i != 3)
			assert_memory_equal(back + i * 3000, v + i * 3000, 1 + i * 4);
	}
	assert_int_equal(it[3].reason, MKV_REASON_NEVER);
	free(it);
	free(v);
	free(back);
}

struct listed {
	unsigned	n;
	int		stop_at, word;
	uint64_t	bytes;
};

static int
on_entry(void *arg, const struct mkv_list_entry *e)
{
	struct listed *l = arg;

	assert_memory_equal(e->key, "p/", 2);
	l->n++;
	l->bytes += e->value_bytes;
	return ((int)l->n == l->stop_at ? l->word != 0 ? l->word : 42 : 0);
}

static void
test_list_and_info(void **state)
{
	struct mkv_server_info info = { .size = sizeof(info) };
	struct listed l = { 0 };
	char key[16];

	(void)state;
	for (unsigned i = 0; i < 20; i++) {
		(void)snprintf(key, sizeof(key), "%s/%u", i % 2 == 0 ? "p" : "q", i);
		fake_store(&fake, "", K(key), "12345", 5);
	}
	assert_int_equal(mkv_list(cl, "p/", 2, on_entry, &l, SEC), 0);
	assert_int_equal(l.n, 10);
	assert_int_equal(l.bytes, 50);
	l = (struct listed){ .stop_at = 4 };
	assert_int_equal(mkv_list(cl, "p/", 2, on_entry, &l, SEC), 42);
	assert_int_equal(l.n, 4);
	l = (struct listed){ .stop_at = 2, .word = MKV_ERR_PEER };	/* the callback's word, whatever it is */
	assert_int_equal(mkv_list(cl, "p/", 2, on_entry, &l, SEC), MKV_ERR_PEER);
	assert_int_equal(l.n, 2);
	assert_int_equal(mkv_server_count(cl), 1);
	assert_int_equal(mkv_server_info(cl, 0, SEC, &info), 0);
	assert_string_equal(info.name, "s0");
	assert_string_equal(info.version, "fake");
	assert_string_equal(info.transport, "tcp");
	assert_int_equal(info.objects, 20);
	assert_int_equal(mkv_server_info(cl, 1, SEC, &info), MKV_ERR_INVAL);
	assert_int_equal(mkv_warm(cl, SEC), 0);
}

static void
stream_of(size_t bytes, size_t step, int abort_it)
{
	struct mkv_put_opts po = { .size = sizeof(po), .ttl_ms = 99, .parent = "p", .parent_bytes = 1, .namespace_ = "ns" };
	struct mkv_object obj = { .size = sizeof(obj) };
	uint8_t *v = fix_bytes(bytes, bytes), *back = malloc(bytes + 1);
	struct mkv_put_stream *s;
	int there;

	assert_int_equal(mkv_put_begin(cl, K("stream"), &po, SEC, &s), 0);
	for (size_t at = 0, n; at < bytes; at += n) {
		n = bytes - at < step ? bytes - at : step;
		assert_int_equal(mkv_put_part(s, v + at, n, SEC), 0);
	}
	(void)fake_load(&fake, "ns", K("stream"), back, bytes, &there);
	assert_int_equal(there, 0);
	if (abort_it) {
		mkv_put_abort(s);
	} else {
		assert_int_equal(mkv_put_commit(s, SEC, &obj), 0);
		assert_int_equal(obj.value_bytes, bytes);
		assert_int_equal(fake_load(&fake, "ns", K("stream"), back, bytes, &there), bytes);
		assert_memory_equal(v, back, bytes);
		assert_int_equal(fake.last_ttl_ms, 99);
		assert_int_equal(mkv_get(cl, K("stream"), back, bytes, SEC, NULL), MKV_ERR_MISS);
	}
	free(v);
	free(back);
}

static void
test_stream_small(void **state)
{
	(void)state;
	stream_of(1000, 300, 0);
}

static void
test_stream_parts(void **state)
{
	(void)state;
	stream_of(10 * PART + 77, 50001, 0);
	assert_true(fake.parts >= 11);
}

static void
test_stream_exact(void **state)
{
	(void)state;
	stream_of(4 * PART, 3 * PART, 0);
}

static void
test_stream_empty(void **state)
{
	(void)state;
	stream_of(0, 1, 0);
}

static void
test_stream_abort(void **state)
{
	(void)state;
	stream_of(1000, 300, 1);
	stream_of(5 * PART, 50001, 1);
	assert_true(fix_until(&fake.aborts, 1));
	assert_int_equal(fake_objects(&fake), 0);
	mkv_put_abort(NULL);
}

/* The caller's struct has his size: an older program's is shorter, one without a size has ours. */
static void
test_stream_object(void **state)
{
	struct mkv_object obj[2] = { { .size = offsetof(struct mkv_object, put_wall_ms) }, { .size = 0 } };
	uint8_t *v = fix_bytes(2 * PART, 1);
	struct mkv_put_stream *s;

	(void)state;
	for (unsigned i = 0; i < 2; i++) {
		obj[i].put_wall_ms = 5;
		assert_int_equal(mkv_put_begin(cl, K("stream"), NULL, SEC, &s), 0);
		assert_int_equal(mkv_put_part(s, v, 2 * PART, SEC), 0);
		assert_int_equal(mkv_put_commit(s, SEC, &obj[i]), 0);
		assert_int_equal(obj[i].value_bytes, 2 * PART);
	}
	assert_int_equal(obj[0].size, offsetof(struct mkv_object, put_wall_ms));
	assert_int_equal(obj[0].put_wall_ms, 5);
	assert_int_equal(obj[1].size, sizeof(obj[1]));
	assert_int_equal(mkv_put_begin(cl, K("stream"), NULL, SEC, &s), 0);
	assert_int_equal(mkv_put_part(s, v, 2 * PART, SEC), 0);
	fake.mute = 1;
	assert_int_equal(mkv_put_commit(s, 20000, &obj[1]), MKV_ERR_TIMEOUT);
	assert_int_equal(obj[1].reason, MKV_REASON_TIMED_OUT);
	fake.mute = 0;
	free(v);
}

static void
test_stream_lost(void **state)
{
	uint8_t *v = fix_bytes(8 * PART, 1);
	struct mkv_put_stream *s;
	int r;

	(void)state;
	assert_int_equal(mkv_put_begin(cl, K("stream"), NULL, SEC, &s), 0);
	assert_int_equal(mkv_put_part(s, v, 3 * PART, SEC), 0);
	fake_drop_all(&fake);
	(void)usleep(50000);
	r = mkv_put_part(s, v, 3 * PART, SEC);
	assert_int_equal(r, MKV_ERR_CLOSED);
	assert_int_equal(mkv_put_commit(s, SEC, NULL), MKV_ERR_CLOSED);
	assert_int_equal(fake_objects(&fake), 0);
	/* The handle goes on. */
	stream_of(3 * PART, PART, 0);
	free(v);
}

static void
test_async(void **state)
{
	enum { N = 200 };
	struct mkv_completion k[16];
	uint8_t *v = fix_bytes(N * 1000, 8), *back = calloc(N, 1000);
	char text[N][16];
	struct mkv_key key[N];
	struct iovec iov[N];
	struct pollfd pf = { .events = POLLIN };
	unsigned got = 0;
	uint64_t id, seen = 0;
	int n;

	(void)state;
	pf.fd = mkv_event_fd(cl);
	assert_true(pf.fd >= 0);
	assert_int_equal(poll(&pf, 1, 0), 0);
	for (unsigned i = 0; i < N; i++) {
		struct mkv_request rq = { .size = sizeof(rq), .op = MKV_OP_PUT, .keys = &key[i], .n_keys = 1, .iov = &iov[i], .n_iov = 1,
			.deadline_us = 10 * SEC, .user = &key[i] };

		(void)snprintf(text[i], sizeof(text[i]), "a%u", i);
		key[i] = (struct mkv_key){ text[i], strlen(text[i]) };
		iov[i] = (struct iovec){ v + i * 1000, 1000 };
		assert_int_equal(mkv_submit(cl, &rq, &id), 0);
		assert_true(id > 0 && id != seen);
		seen = id;
	}
	while (got < N) {
		assert_int_equal(poll(&pf, 1, 10000), 1);
		k[0].size = sizeof(k[0]);
		n = mkv_drain(cl, k, 16);
		assert_true(n > 0);
		for (int i = 0; i < n; i++) {
			assert_int_equal(k[i].result, 0);
			assert_true((struct mkv_key *)k[i].user >= key && (struct mkv_key *)k[i].user < key + N);
		}
		got += (unsigned)n;
	}
	assert_int_equal(poll(&pf, 1, 0), 0);
	assert_int_equal(mkv_wait(cl, 1000), 0);
	assert_int_equal(fake_objects(&fake), N);
	free(v);
	free(back);
}

static void
test_inflight_max(void **state)
{
	struct mkv_client_opts o = { .inflight_max = 4 };
	struct mkv_completion k[8] = { { .size = sizeof(k[0]) } };
	struct mkv_key key = { "k", 1 };
	struct mkv_request rq = { .size = sizeof(rq), .op = MKV_OP_EXISTS, .keys = &key, .n_keys = 1, .deadline_us = SEC };
	struct mkv_client *c;
	unsigned got = 0;
	uint8_t there;

	(void)state;
	c = fix_client_opts(&o, &fake, 1);
	rq.present = &there;
	for (int i = 0; i < 4; i++)
		assert_int_equal(mkv_submit(c, &rq, NULL), 0);
	assert_int_equal(mkv_submit(c, &rq, NULL), MKV_ERR_AGAIN);
	while (got < 4) {
		assert_int_equal(mkv_wait(c, SEC), 1);
		got += (unsigned)mkv_drain(c, k, 8);
	}
	assert_int_equal(mkv_submit(c, &rq, NULL), 0);
	mkv_client_close(c);
}

/* More at once than the server gives credits for: the others wait their turn, and nothing but an answer moves them on. */
static void
test_few_credits(void **state)
{
	struct fake_opts o = { .credits = 2 };
	struct mkv_completion k = { .size = sizeof(k) };
	struct mkv_key key = { "k", 1 };
	struct mkv_request rq = { .size = sizeof(rq), .op = MKV_OP_STAT, .keys = &key, .n_keys = 1, .deadline_us = 10 * SEC };

	(void)state;
	mkv_client_close(cl);
	fake_close(&fake);
	assert_int_equal(fake_open(&fake, &o), 0);
	cl = fix_client(&fake, 1);
	for (unsigned i = 0; i < 50; i++)
		assert_int_equal(mkv_submit(cl, &rq, NULL), 0);
	for (unsigned i = 0; i < 50; i++) {
		assert_int_equal(mkv_wait(cl, 20 * SEC), 1);
		assert_int_equal(mkv_drain(cl, &k, 1), 1);
		assert_int_equal(k.result, MKV_ERR_MISS);
	}
}

static void
test_regions(void **state)
{
	struct mkv_key key = { "r", 1 };
	struct iovec iov;
	struct mkv_request rq = { .size = sizeof(rq), .op = MKV_OP_PUT, .keys = &key, .n_keys = 1, .iov = &iov, .n_iov = 1, .deadline_us = SEC };
	struct mkv_completion k = { .size = sizeof(k) };
	struct mkv_region *r, *mine;
	size_t bytes;
	char own[100];
	uint8_t *p;

	(void)state;
	assert_int_equal(mkv_region_alloc(cl, 3u << 20, &r), 0);
	p = mkv_region_base(r, &bytes);
	assert_int_equal(bytes, 3u << 20);
	assert_int_equal((uintptr_t)p % 4096, 0);
	fix_fill(p, bytes, 1);
	iov = (struct iovec){ p + 4096, 1u << 20 };
	fake.mute = 1;
	assert_int_equal(mkv_submit(cl, &rq, NULL), 0);
	assert_int_equal(mkv_region_free(r), MKV_ERR_BUSY);
	assert_int_equal(mkv_wait(cl, 5 * SEC), 1);
	assert_int_equal(mkv_drain(cl, &k, 1), 1);
	assert_int_equal(k.result, MKV_ERR_TIMEOUT);
	assert_int_equal(mkv_region_free(r), 0);
	assert_int_equal(mkv_region_free(NULL), 0);
	assert_int_equal(mkv_region_register(cl, own, sizeof(own), &mine), 0);
	assert_ptr_equal(mkv_region_base(mine, NULL), own);
	assert_int_equal(mkv_region_free(mine), 0);
}

int
main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	const struct CMUnitTest tests[] = {
		T(test_round_trips), T(test_no_verify), T(test_range), T(test_iovecs), T(test_every_get_tells_which_put_it_saw), T(test_small_calls), T(test_namespaces),
		T(test_bad_arguments), T(test_long_lists), T(test_batches), T(test_list_and_info), T(test_stream_small), T(test_stream_parts),
		T(test_stream_exact), T(test_stream_empty), T(test_stream_abort), T(test_stream_object), T(test_stream_lost), T(test_async), T(test_inflight_max),
		T(test_few_credits), T(test_regions),
	};

	return (cmocka_run_group_tests(tests, NULL, NULL));
}
