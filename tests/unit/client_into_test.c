/*
 * libmemkv with local_get: in_place, on the unix socket: gets that the server writes straight into the caller's region, and that no byte of theirs is seen there once the caller
 * has his memory back, whoever ended the request: he, his deadline, a cancel, a session that broke.
 */
#include "config.h"

#include "tests/unit/client_ref_fix.h"

#include <pthread.h>
#include <sys/mman.h>

#include "clients/lib/into.h"

#define UNIT	65536u
#define PAGE	4096u

static struct mkv_region *region;
static uint8_t *base;

static int
setup_in_place(void **state)
{
	assert_int_equal(setenv("MEMKV_LOCAL_GET", "in_place", 1), 0);
	assert_int_equal(setenv("MEMKV_TRANSPORT", "local", 1), 0);
	return (setup(state));
}

static int
teardown_region(void **state)
{
	if (region != NULL)
		assert_int_equal(mkv_region_free(region), 0);
	region = NULL;
	assert_int_equal(teardown(state), 0);
	assert_int_equal(mapped("memkv-region"), 0);
	return (0);
}

static void
make_region(size_t bytes)
{
	region = region_of(bytes, &base, 9);
	if (region->page != PAGE) {
		print_message("this machine has so many huge pages set aside that the region's are of %zu bytes\n", region->page);
		skip();
	}
}

/* Gets until one goes into the region. */
static void
until_into(void)
{
	uint8_t *v = fix_bytes(UNIT, 1);
	unsigned before = fake.into_gets;

	fake_store(&fake, "", K("until"), v, UNIT);
	for (unsigned i = 0; i < 1000 && fake.into_gets == before; i++)
		assert_int_equal(mkv_get(cl, K("until"), base, UNIT, 20 * SEC, NULL), UNIT);
	assert_true(fake.into_gets > before);
	assert_memory_equal(base, v, UNIT);
	free(v);
}

static void
open_region(size_t bytes)
{
	open_one();
	make_region(bytes);
	until_into();
	assert_true(fix_until(&fake.answered[MKV_WIRE_GET], fake.requests[MKV_WIRE_GET]));	/* it counts when it has sent */
}

static void
check_is(const uint8_t *p, int what, size_t bytes)
{
	for (size_t i = 0; i < bytes; i++)
		if (p[i] != what)
			fail_msg("byte %zu is %d", i, p[i]);
}

/* Values of odd sizes into whole pages; what is behind them stays as it is. */
static void
test_sizes(void **state)
{
	static const size_t sizes[] = { UNIT - 1, UNIT, UNIT + 1, MIB - 5, 4 * MIB, 4 * MIB + 1, 9 * MIB + 77 };
	uint64_t sum;

	(void)state;
	open_region(12 * MIB);
	for (unsigned i = 0; i < MKV_ARRAY_LEN(sizes); i++) {
		uint8_t *v = fix_bytes(sizes[i], i);
		size_t room = MKV_ALIGN_UP(sizes[i], PAGE);
		unsigned before = fake.into_gets;

		fake_store(&fake, "", K("k"), v, sizes[i]);
		memset(base, 0xa5, 12 * MIB);
		sum = counter(cl, "local_region_get_bytes_total");
		assert_int_equal(mkv_get(cl, K("k"), base + PAGE, room, 20 * SEC, NULL), (int64_t)sizes[i]);
		assert_memory_equal(base + PAGE, v, sizes[i]);
		check_is(base, 0xa5, PAGE);
		check_is(base + PAGE + sizes[i], 0xa5, 12 * MIB - PAGE - sizes[i]);
		assert_int_equal(fake.into_gets, before + 1);
		assert_int_equal(counter(cl, "local_region_get_bytes_total"), sum + sizes[i]);
		free(v);
	}
	assert_int_equal(mkv_get(cl, K("k"), base, 9 * MIB, 20 * SEC, NULL), MKV_ERR_TOOBIG);
	assert_int_equal(mkv_get(cl, K("none"), base, MIB, 20 * SEC, NULL), MKV_ERR_MISS);
	assert_int_equal(counter(cl, "local_torn_total"), 0);
}

/* Of up to four pieces, in any order; a range; five pieces, pieces that are no pages and memory elsewhere go another way. */
static void
test_pieces(void **state)
{
	uint8_t *v = fix_bytes(MIB, 1), *elsewhere = aligned_alloc(PAGE, MIB);
	struct iovec iov[5], odd;
	unsigned before;

	(void)state;
	open_region(4 * MIB);
	fake_store(&fake, "", K("k"), v, MIB);
	for (unsigned n = 1; n <= 5; n++) {
		for (unsigned i = 0; i < n; i++)
			iov[i] = (struct iovec){ .iov_base = base + (4 - i) * 512 * 1024, .iov_len = i + 1 < n ? 20 * PAGE : MIB - (n - 1) * 20 * PAGE };
		iov[n - 1].iov_base = base + 3 * MIB;
		memset(base, 0, 4 * MIB);
		before = fake.into_gets;
		submit(MKV_OP_GET, "k", iov, n);
		assert_int_equal(completed(), MIB);
		for (unsigned i = 0; i < n; i++)
			assert_memory_equal(iov[i].iov_base, v + (size_t)i * 20 * PAGE, iov[i].iov_len);
		assert_int_equal(fake.into_gets, before + (n < 5));
	}
	before = fake.into_gets;
	assert_int_equal(mkv_get_range(cl, K("k"), 12345, base, 100 * PAGE, 20 * SEC, NULL), 100 * PAGE);
	assert_memory_equal(base, v + 12345, (size_t)100 * PAGE);
	assert_int_equal(fake.into_gets, ++before);
	for (unsigned i = 0; i < 3; i++) {
		odd = (struct iovec){ .iov_base = i == 0 ? base + 8 : i == 1 ? base : elsewhere, .iov_len = MIB + (i == 1) };
		submit(MKV_OP_GET, "k", &odd, 1);
		assert_int_equal(completed(), MIB);
		assert_memory_equal(odd.iov_base, v, MIB);
	}
	assert_int_equal(fake.into_gets, before);
	free(elsewhere);
	free(v);
}

/* Unless it is asked for no server is told of memory to write to but the window. */
static void
test_only_if_asked_for(void **state)
{
	(void)state;
	assert_int_equal(setenv("MEMKV_LOCAL_GET", "window", 1), 0);
	open_one();
	make_region(MIB);
	until_window();
	until_region(base);
	for (unsigned i = 0; i < 10; i++)
		assert_int_equal(mkv_get(cl, K("until"), base, UNIT, 20 * SEC, NULL), UNIT);
	assert_int_equal(fake.into_gets, 0);
}

/* What the caller has at `off` of his region is not what a server has there any more: a get that ended early left it so. */
static void
check_torn(size_t off)
{
	uint8_t *v = fix_bytes(MIB, 77);
	unsigned gets = fake.into_gets, by_window = fake.remote_puts[0], by_region;

	until_window();
	by_window = fake.remote_puts[0];
	fake_store(&fake, "", K("again"), v, MIB);
	assert_int_equal(mkv_get(cl, K("again"), base + off, MIB, 20 * SEC, NULL), MIB);
	assert_memory_equal(base + off, v, MIB);
	assert_int_equal(fake.into_gets, gets);
	assert_int_equal(mkv_put(cl, K("torn"), base + off, MIB, NULL, 20 * SEC, NULL), 0);
	check_stored("torn", v, MIB);
	assert_int_equal(fake.remote_puts[0], by_window + 1);
	by_region = fake.remote_puts[1];
	assert_int_equal(mkv_get(cl, K("again"), base + off + MIB, MIB, 20 * SEC, NULL), MIB);
	assert_memory_equal(base + off + MIB, v, MIB);
	assert_int_equal(fake.into_gets, gets + 1);
	assert_int_equal(mkv_put(cl, K("whole"), base + off + MIB, MIB, NULL, 20 * SEC, NULL), 0);
	check_stored("whole", v, MIB);
	assert_int_equal(fake.remote_puts[1], by_region + 1);
	free(v);
}

enum end { DEADLINE, DEADLINE_OF_A_REQUEST, CANCEL };

/* The request ends while the server is about to write. Its bytes come, and are not seen. */
static void
ends_early(enum end how)
{
	struct mkv_key k = { .data = "k", .bytes = 1 };
	struct iovec iov;
	struct mkv_request q = { .size = sizeof(q), .op = MKV_OP_GET, .keys = &k, .n_keys = 1, .iov = &iov, .n_iov = 1, .len = MEMKV_SIZE_ANY };
	unsigned answered, asked;
	uint64_t id;
	uint8_t *v = fix_bytes(MIB, 1);

	open_region(4 * MIB);
	fake_store(&fake, "", K("k"), v, MIB);
	memset(base, 0x11, 4 * MIB);
	iov = (struct iovec){ .iov_base = base + MIB, .iov_len = MIB };
	q.deadline_us = how == CANCEL ? 60 * SEC : 50 * MS;
	answered = fake.answered[MKV_WIRE_GET];
	asked = fake.into_gets;
	fake.delay_us = 400 * MS;
	if (how == DEADLINE)
		assert_int_equal(mkv_get(cl, K("k"), iov.iov_base, MIB, 50 * MS, NULL), MKV_ERR_TIMEOUT);
	else {
		assert_int_equal(mkv_submit(cl, &q, &id), 0);
		assert_true(fix_until(&fake.into_gets, asked + 1));
		if (how == CANCEL)
			assert_int_equal(mkv_cancel(cl, id), 0);
		assert_int_equal(completed(), how == CANCEL ? MKV_ERR_CANCELLED : MKV_ERR_TIMEOUT);
	}
	assert_int_equal(fake.into_gets, asked + 1);
	memset(base + MIB, 0x22, MIB);
	assert_true(fix_until(&fake.answered[MKV_WIRE_GET], answered + 1));
	check_is(base + MIB, 0x22, MIB);
	check_is(base, 0x11, MIB);
	check_is(base + (size_t)2 * MIB, 0x11, 2 * MIB);
	assert_int_equal(counter(cl, "local_torn_total"), 1);
	fake.delay_us = 0;
	check_torn(MIB);
	assert_int_equal(counter(cl, "sessions_total"), 1);
	free(v);
}

static void
test_caller_leaves(void **state)
{
	(void)state;
	ends_early(DEADLINE);
}

static int
a_frame_is_made(void)
{
	MKV_LIST_FOREACH(it, &cl->loop[0].live)
		if (MKV_CONTAINER_OF(it, struct op, link)->into)
			return (1);
	return (0);
}

/* The I/O thread stands still with the frame in its hand: the caller leaves alone, and what the server is asked afterwards is no longer his. */
static void
test_caller_leaves_a_loop_that_stands(void **state)
{
	uint8_t *v = fix_bytes(MIB, 1);
	unsigned answered, asked;

	(void)state;
	open_region(4 * MIB);
	fake_store(&fake, "", K("k"), v, MIB);
	answered = fake.answered[MKV_WIRE_GET];
	asked = fake.into_gets;
	fake.delay_us = 300 * MS;			/* where there is no io_uring the frame has left by now */
	held = 0;
	hold_if = a_frame_is_made;
	to_hold = 1;
	assert_int_equal(mkv_get(cl, K("k"), base + MIB, MIB, 50 * MS, NULL), MKV_ERR_TIMEOUT);
	assert_int_equal(held, 1);
	memset(base + MIB, 0x44, MIB);
	to_hold = 0;
	hold_if = NULL;
	assert_true(fix_until(&fake.answered[MKV_WIRE_GET], answered + 1));
	assert_int_equal(fake.into_gets, asked + 1);
	check_is(base + MIB, 0x44, MIB);
	fake.delay_us = 0;
	assert_int_equal(counter(cl, "local_torn_total"), 1);
	check_torn(MIB);
	free(v);
}

static void
test_request_times_out(void **state)
{
	(void)state;
	ends_early(DEADLINE_OF_A_REQUEST);
}

static void
test_cancel(void **state)
{
	(void)state;
	ends_early(CANCEL);
}

/* A caller at his deadline stays there, right before he leaves, while he is to. */
static _Atomic unsigned to_stay, stays;

void	__real_mkv_into_hold(struct into *t, const struct op *o, uint32_t own);
void	__wrap_mkv_into_hold(struct into *t, const struct op *o, uint32_t own);

void
__wrap_mkv_into_hold(struct into *t, const struct op *o, uint32_t own)
{
	if (to_stay) {
		stays = 1;
		while (to_stay)
			(void)usleep(100);
	}
	__real_mkv_into_hold(t, o, own);
}

static void *
late_reader(void *arg)
{
	*(int64_t *)arg = mkv_get(cl, K("k"), base, MIB, 50 * MS, NULL);
	return (NULL);
}

/* The loop ends the request while its caller is about to leave it, and another thread frees the region as soon as it may: the caller touches it no more. */
static void
test_region_is_freed_before_its_caller_is_back(void **state)
{
	uint8_t *v = fix_bytes(MIB, 1);
	int64_t r = 0;
	pthread_t t;
	int e;

	(void)state;
	open_region(MIB);
	fake_store(&fake, "", K("k"), v, MIB);
	stays = 0;
	fake.mute = 1;
	hold_if = a_frame_is_made;
	to_hold = to_stay = 1;
	assert_int_equal(pthread_create(&t, NULL, late_reader, &r), 0);
	assert_true(fix_until(&stays, 1));
	to_hold = 0;
	hold_if = NULL;
	while ((e = mkv_region_free(region)) == MKV_ERR_BUSY)
		(void)usleep(MS);
	assert_int_equal(e, 0);
	region = NULL;
	to_stay = 0;
	assert_int_equal(pthread_join(t, NULL), 0);
	assert_int_equal(r, MKV_ERR_TIMEOUT);
	free(v);
}

#define MANY	8u

static void
submit_many(const uint8_t *v)
{
	struct iovec iov;
	unsigned asked = fake.into_gets;

	fake_store(&fake, "", K("k"), v, MIB);
	fake.delay_us = 100 * MS;
	for (unsigned i = 0; i < MANY; i++) {
		iov = (struct iovec){ .iov_base = base + (size_t)i * MIB, .iov_len = MIB };
		submit(MKV_OP_GET, "k", &iov, 1);
	}
	assert_true(fix_until(&fake.into_gets, asked + 1));
}

static void
complete_many(const uint8_t *v)
{
	for (unsigned i = 0; i < MANY; i++)
		assert_int_equal(completed(), MIB);
	fake.delay_us = 0;
	for (unsigned i = 0; i < MANY; i++)
		assert_memory_equal(base + (size_t)i * MIB, v, MIB);
}

/* The client ends a session whose server goes on with what it was asked: those requests are carried out by another, and the old ones' bytes are not seen. */
static void
test_session_is_given_up(void **state)
{
	uint8_t *v = fix_bytes(MIB, 1);
	unsigned asked;

	(void)state;
	open_region(MANY * MIB);
	asked = fake.into_gets;
	fake.lie = FAKE_BAD_MAC;
	fake.lies = 1;
	submit_many(v);
	assert_true(fix_until(&fake.into_gets, asked + 2));	/* the second of the old session, which it is going to answer */
	complete_many(v);
	assert_true(counter(cl, "sessions_total") > 1);
	assert_true(counter(cl, "local_torn_total") > 0);
	memset(base, 0x33, MANY * MIB);
	(void)usleep(200 * MS);
	check_is(base, 0x33, MANY * MIB);
	free(v);
}

/* A server that ends a session writes nothing more for it: the region stays whole. */
static void
test_server_ends_the_session(void **state)
{
	uint8_t *v = fix_bytes(MIB, 1);

	(void)state;
	open_region(MANY * MIB);
	submit_many(v);
	fake_drop_all(&fake);
	complete_many(v);
	assert_true(counter(cl, "sessions_total") > 1);
	assert_int_equal(counter(cl, "local_torn_total"), 0);
	until_into();
	free(v);
}

/* Its drives, which were reading into the region, do not end with it: their bytes come later, and are not seen. */
static void
test_drives_outlive_the_session(void **state)
{
	uint8_t *v = fix_bytes(MIB, 1);
	unsigned asked;

	(void)state;
	fake.regions_stable = 1;
	open_region(MANY * MIB);
	assert_true(fake.stable_shown > 0);
	assert_int_equal(fake.stable_shown, fake.regions_shown);
	asked = fake.into_gets;
	fake.delay_us = 200 * MS;
	submit_many(v);
	assert_true(fix_until(&fake.into_gets, asked + 1));
	fake_drop_all(&fake);
	assert_true(fix_until(&fake.late_gets, 1));
	fake.delay_us = 0;
	complete_many(v);
	assert_true(counter(cl, "sessions_total") > 1);
	memset(base, 0x33, MANY * MIB);
	fakeregion_late();
	check_is(base, 0x33, MANY * MIB);
	assert_true(counter(cl, "local_torn_total") > 0);
	free(v);
}

/* Bytes that do not fit their checksum are reported and asked for again, where they lie. */
static void
test_bad_bytes(void **state)
{
	uint8_t *v = fix_bytes(MIB, 1);
	unsigned asked;

	(void)state;
	open_region(MIB);
	asked = fake.into_gets;
	fake_store(&fake, "", K("k"), v, MIB);
	fake.lie = FAKE_BAD_CRC;
	fake.lies = 1;
	assert_int_equal(mkv_get(cl, K("k"), base, MIB, 20 * SEC, NULL), MIB);
	assert_memory_equal(base, v, MIB);
	assert_int_equal(fake.requests[MKV_WIRE_REPORT], 1);
	assert_int_equal(fake.into_gets, asked + 2);
	fake.lies = 100;
	assert_int_equal(mkv_get(cl, K("k"), base, MIB, 20 * SEC, NULL), MKV_ERR_MISS);
	assert_int_equal(counter(cl, "local_torn_total"), 0);
	free(v);
}

/* More torn ranges than are kept apart: the whole of them goes by the window. */
static void
test_many_are_torn(void **state)
{
	enum { N = REGION_TORN_MAX + 6 };
	uint8_t *v = fix_bytes(UNIT, 1);

	(void)state;
	open_region((size_t)(2 * N + 2) * UNIT);
	fake_store(&fake, "", K("k"), v, UNIT);
	for (unsigned i = 0; i < N; i++) {
		fake.mute = 1;
		assert_int_equal(mkv_get(cl, K("k"), base + (size_t)2 * i * UNIT, UNIT, 10 * MS, NULL), MKV_ERR_TIMEOUT);
		fake.mute = 0;
		assert_int_equal(mkv_get(cl, K("k"), base + (size_t)2 * i * UNIT, UNIT, 20 * SEC, NULL), UNIT);
		assert_memory_equal(base + (size_t)2 * i * UNIT, v, UNIT);
	}
	assert_int_equal(counter(cl, "local_torn_total"), N);
	for (unsigned i = 0; i < 2 * N + 2; i++) {
		memset(base + (size_t)i * UNIT, 0, UNIT);
		assert_int_equal(mkv_get(cl, K("k"), base + (size_t)i * UNIT, UNIT, 20 * SEC, NULL), UNIT);
		assert_memory_equal(base + (size_t)i * UNIT, v, UNIT);
	}
	assert_true(fake.into_gets >= N);
	free(v);
}

#define THREADS		4u
#define ROUNDS		80u
#define SLICE		(2u * MIB)

static _Atomic unsigned timeouts, hits;

static void *
reader(void *arg)
{
	unsigned id = (unsigned)(uintptr_t)arg;
	uint8_t *mine = base + (size_t)id * SLICE, *v = fix_bytes(SLICE, id);
	char key[16];

	(void)snprintf(key, sizeof(key), "r%u", id);
	fake_store(&fake, "", K(key), v, SLICE);
	for (unsigned i = 0; i < ROUNDS; i++) {
		size_t off = (i * 37u + id * 11u) % 16 * UNIT, bytes = UNIT * (1 + i % 15);
		struct mkv_object obj = { .size = sizeof(obj) };
		int64_t r = mkv_get_range(cl, K(key), off, mine + off, bytes, i % 3 == 2 ? 60 * SEC : 20 + 150 * (i % 11), &obj);

		if (r == (int64_t)bytes) {
			hits++;
			assert_memory_equal(mine + off, v + off, bytes);
			continue;
		}
		/* A second session ended, too late for a third; so many did that the server is taken for down. */
		assert_true(r == MKV_ERR_TIMEOUT || r == MKV_ERR_CLOSED || (r == MKV_ERR_MISS && obj.reason == MKV_REASON_SERVER_DOWN));
		timeouts++;
		memset(mine + off, (int)(i & 0xff), bytes);
		(void)usleep(3 * MS);
		check_is(mine + off, (int)(i & 0xff), bytes);
	}
	free(v);
	threads_left--;
	return (arg);
}

static void
end_sessions(unsigned i)
{
	(void)usleep(20 * MS);
	fake.delay_us = i % 3 * 500;
	if (i % 8 == 7)
		fake_drop_all(&fake);
}

/* Many at once, most of whom leave somewhere in the middle, and sessions that end. */
static void
test_threads(void **state)
{
	struct mkv_client_opts o = { .connections = 2, .io_threads = 2 };

	(void)state;
	open_with(&o);
	make_region(THREADS * SLICE);
	until_into();
	with_threads(reader, THREADS, end_sessions);
	assert_true(timeouts > 0 && hits > 0);
	assert_int_equal(counter(cl, "corrupt_total"), 0);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
#define TEST(name)	cmocka_unit_test_setup_teardown(test_##name, setup_in_place, teardown_region)
		TEST(sizes), TEST(pieces), TEST(only_if_asked_for), TEST(caller_leaves), TEST(caller_leaves_a_loop_that_stands),
		TEST(request_times_out), TEST(cancel), TEST(region_is_freed_before_its_caller_is_back), TEST(session_is_given_up),
		TEST(server_ends_the_session), TEST(drives_outlive_the_session), TEST(bad_bytes), TEST(many_are_torn), TEST(threads),
	};

	return (cmocka_run_group_tests_name("client_into", tests, NULL, NULL));
}
