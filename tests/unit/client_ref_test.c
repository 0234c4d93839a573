/*
 * libmemkv and values by reference on the unix socket: what goes that way and what does not, whose memory is touched when, and when a chunk of the window is
 * free again, whatever the server does.
 */
#include "config.h"

#include "tests/unit/client_ref_fix.h"

#include <dirent.h>
#include <pthread.h>
#include <sys/mman.h>

#include "common/base/os.h"

/* Values of all sizes about the edges of chunks and parts; ranges at odd places. */
static void
test_all_sizes(void **state)
{
	static const size_t sizes[] = { 0, 1, 4096, 65535, 65536, 65537, 131072, 300001, MIB, MIB + 1, 4 * MIB - 1, 4 * MIB, 4 * MIB + 1, 9 * MIB };
	static const size_t offs[] = { 0, 1, 65535, 65536, 200000, MIB };
	uint8_t *v, *g;

	(void)state;
	open_one();
	until_window();
	for (unsigned i = 0; i < MKV_ARRAY_LEN(sizes); i++)
		put_and_get("k", sizes[i], i);
	assert_true(fake.remote_puts[0] > 0);
	assert_int_equal(fake.remote_puts[1], 0);
	v = fix_bytes(3 * MIB, 5);
	g = malloc(3 * MIB);
	fake_store(&fake, "", K("r"), v, 3 * MIB);
	for (unsigned i = 0; i < MKV_ARRAY_LEN(offs); i++) {
		memset(g, 0, 3 * MIB);
		assert_int_equal(mkv_get_range(cl, K("r"), offs[i], g, 1500000, 20 * SEC, NULL), 1500000);
		assert_memory_equal(g, v + offs[i], 1500000);
		assert_int_equal(g[1500000], 0);
	}
	assert_int_equal(mkv_get_range(cl, K("r"), 3 * MIB - 10, g, MIB, 20 * SEC, NULL), 10);
	assert_int_equal(mkv_get_range(cl, K("r"), 4 * MIB, g, MIB, 20 * SEC, NULL), 0);
	assert_int_equal(mkv_get(cl, K("none"), g, MIB, 20 * SEC, NULL), MKV_ERR_MISS);
	assert_true(counter(cl, "local_window_put_bytes_total") > 9u * MIB);
	assert_true(counter(cl, "local_window_get_bytes_total") > 9u * MIB);
	assert_int_equal(counter(cl, "local_window_full_total"), 0);
	assert_int_equal(counter(cl, "local_regions_refused_total"), 0);
	free(v);
	free(g);
}

/* Small parts: a value has many, each by reference, and the next one's place is where it belongs. */
static void
test_parts(void **state)
{
	struct fake_opts o = { .local_path = path, .part_bytes = 128 * 1024 };

	fake_close(&fake);
	(void)state;
	assert_int_equal(fake_open(&fake, &o), 0);
	fake.regions = 1;
	open_one();
	until_window();
	put_and_get("k", 4 * MIB, 1);
	put_and_get("k", 4 * MIB - 77777, 2);
	assert_true(fake.remote_puts[0] >= 64);
	put_and_get("k", 4 * MIB + 1, 3);		/* more than its share of the window */
	assert_int_equal(counter(cl, "protocol_errors_total"), 0);
}

/* What is asked for in pieces comes in pieces; memory around them stays as it is. */
static void
test_guard_pages(void **state)
{
	size_t page = (size_t)sysconf(_SC_PAGESIZE), bytes = 64 * page;
	uint8_t *m = mmap(NULL, bytes + 2 * page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0), *v = fix_bytes(bytes, 3);
	struct iovec iov[3];

	(void)state;
	assert_true(m != MAP_FAILED && mprotect(m, page, PROT_NONE) == 0 && mprotect(m + page + bytes, page, PROT_NONE) == 0);
	open_one();
	until_window();
	fake_store(&fake, "", K("k"), v, bytes);
	iov[0] = (struct iovec){ .iov_base = m + page, .iov_len = 1 };
	iov[1] = (struct iovec){ .iov_base = m + page + 1, .iov_len = 70000 };
	iov[2] = (struct iovec){ .iov_base = m + page + 70001, .iov_len = bytes - 70001 };
	submit(MKV_OP_GET, "k", iov, 3);
	assert_int_equal(completed(), (int64_t)bytes);
	assert_memory_equal(m + page, v, bytes);
	assert_int_equal(mkv_putv(cl, K("k2"), iov, 3, NULL, 20 * SEC, NULL), 0);
	memset(m + page, 0, bytes);
	assert_int_equal(mkv_get(cl, K("k2"), m + page, bytes, 20 * SEC, NULL), (int64_t)bytes);
	assert_memory_equal(m + page, v, bytes);
	assert_int_equal(munmap(m, bytes + 2 * page), 0);
	free(v);
}

/* Of any size, from the caller's region, in pieces; too many pieces in a part go another way, and so does memory of two regions. */
static void
test_region_put(void **state)
{
	struct iovec iov[300];
	struct mkv_region *r, *r2;
	uint8_t *base, *base2, *all;
	unsigned before;

	(void)state;
	open_one();
	r = region_of(20 * MIB, &base, 1);
	r2 = region_of(MIB, &base2, 2);
	until_region(base);
	until_window();
	before = fake.remote_puts[1];
	assert_int_equal(mkv_put(cl, K("k"), base + 12345, 18 * MIB, NULL, 20 * SEC, NULL), 0);
	check_stored("k", base + 12345, 18 * MIB);
	assert_int_equal(fake.remote_puts[1], before + 5);
	for (unsigned i = 0; i < 100; i++)
		iov[i] = (struct iovec){ .iov_base = base + 20000 * (99 - i), .iov_len = 10000 };
	assert_int_equal(mkv_putv(cl, K("v"), iov, 100, NULL, 20 * SEC, NULL), 0);
	assert_int_equal(fake.remote_puts[1], before + 6);
	all = malloc(1000000);
	for (unsigned i = 0; i < 100; i++)
		memcpy(all + 10000 * i, iov[i].iov_base, 10000);
	check_stored("v", all, 1000000);
	for (unsigned i = 0; i < 300; i++)
		iov[i] = (struct iovec){ .iov_base = base + 20000 * i, .iov_len = 1000 };
	assert_int_equal(mkv_putv(cl, K("m"), iov, 300, NULL, 20 * SEC, NULL), 0);
	iov[1] = (struct iovec){ .iov_base = base2, .iov_len = 300000 };
	assert_int_equal(mkv_putv(cl, K("2"), iov, 2, NULL, 20 * SEC, NULL), 0);
	assert_int_equal(fake.remote_puts[1], before + 6);
	assert_true(counter(cl, "local_region_put_bytes_total") >= 19u * MIB);
	assert_int_equal(mkv_get(cl, K("k"), base, 18 * MIB, 20 * SEC, NULL), 18 * MIB);
	check_stored("k", base, 18 * MIB);
	assert_int_equal(mkv_region_free(r), 0);
	assert_int_equal(mkv_region_free(r2), 0);
	free(all);
}

/* Freed memory is given back by the server, too, and a new region has a number of its own. */
static void
test_region_is_dropped(void **state)
{
	struct mkv_region *r;
	uint8_t *base;

	(void)state;
	open_one();
	for (unsigned i = 0; i < 100; i++) {		/* more than a connection keeps at once */
		r = region_of(MIB, &base, i);
		until_region(base);
		assert_int_equal(mkv_region_free(r), 0);
		assert_true(fix_until(&fake.regions_dropped, i + 1));
	}
	assert_int_equal(counter(cl, "sessions_total"), 1);
}

/* Freed between the loop's last look and its sleep: the server hears of it all the same, with no request that wakes the loop. */
static void
test_region_is_freed_before_a_sleep(void **state)
{
	struct mkv_region *r;
	uint8_t *base;

	(void)state;
	open_one();
	r = region_of(MIB, &base, 1);
	until_region(base);
	held = 0;
	to_hold = 1;
	mkv_loop_wake(&cl->loop[0]);
	assert_true(fix_until(&held, 1));
	assert_int_equal(mkv_region_free(r), 0);
	assert_int_equal(fake.regions_dropped, 0);
	to_hold = 0;
	assert_true(fix_until(&fake.regions_dropped, 1));
}

/* Too large to have its pages taken at once: no server is asked to take it while pages are missing, and its values go through the window. */
static void
test_sparse_region(void **state)
{
	const size_t bytes = (1ull << 30) + 4096;
	struct mkv_os_shm shm;
	struct mkv_region *r;
	uint8_t *base;

	(void)state;
	open_one();
	assert_int_equal(mkv_region_alloc(cl, bytes, &r), 0);
	if (mkv_os_shm_check(r->fd, &shm) == 0) {
		assert_int_equal(mkv_region_free(r), 0);
		print_message("this machine has so many huge pages set aside that the region is not sparse\n");
		skip();
	}
	base = mkv_region_base(r, NULL);
	fix_fill(base, MIB, 1);
	until_window();
	for (unsigned i = 0; i < 5; i++)
		assert_int_equal(mkv_put(cl, K("k"), base, MIB, NULL, 20 * SEC, NULL), 0);
	check_stored("k", base, MIB);
	assert_int_equal(fake.regions_shown, 1);
	assert_int_equal(fake.remote_puts[1], 0);
	assert_true(fake.remote_puts[0] >= 5);
	assert_int_equal(counter(cl, "local_regions_refused_total"), 0);
	assert_int_equal(mkv_region_free(r), 0);
}

/* All at once, more than are shown: the others go through the window. */
static void
test_many_regions(void **state)
{
	struct mkv_region *r[100];
	uint8_t *base[100];

	(void)state;
	open_one();
	until_window();
	for (unsigned i = 0; i < 100; i++) {
		r[i] = region_of(MIB, &base[i], i);
		for (unsigned k = 0; k < 2; k++)
			assert_int_equal(mkv_put(cl, K("k"), base[i], MIB, NULL, 20 * SEC, NULL), 0);
		check_stored("k", base[i], MIB);
	}
	assert_int_equal(fake.regions_shown, 64);
	for (unsigned i = 0; i < 100; i++)
		assert_int_equal(mkv_region_free(r[i]), 0);
	assert_true(fix_until(&fake.regions_dropped, 63));
	r[0] = region_of(MIB, &base[0], 7);
	until_region(base[0]);
	assert_int_equal(mkv_region_free(r[0]), 0);
}

/* In use it cannot be freed; the caller's own memory is never shown. */
static void
test_region_in_use(void **state)
{
	struct mkv_region *r;
	uint8_t *base, *own = fix_bytes(MIB, 4);
	struct iovec v;
	unsigned shown;

	(void)state;
	open_one();
	r = region_of(MIB, &base, 1);
	until_region(base);
	until_window();
	fake.remote_us = 100 * MS;
	v = (struct iovec){ .iov_base = base, .iov_len = MIB };
	submit(MKV_OP_PUT, "k", &v, 1);
	assert_int_equal(mkv_region_free(r), MKV_ERR_BUSY);
	assert_int_equal(completed(), 0);
	check_stored("k", base, MIB);
	assert_int_equal(mkv_region_free(r), 0);
	fake.remote_us = 0;
	shown = fake.regions_shown;
	assert_int_equal(mkv_region_register(cl, own, MIB, &r), 0);
	for (unsigned i = 0; i < 10; i++)
		assert_int_equal(mkv_put(cl, K("o"), own, MIB, NULL, 20 * SEC, NULL), 0);
	check_stored("o", own, MIB);
	assert_int_equal(fake.regions_shown, shown);
	assert_int_equal(mkv_region_free(r), 0);
	free(own);
}

/* Who leaves a put of his region and writes to it has not put anything; through the window the value was whole when he left. */
static void
test_left_put(void **state)
{
	uint8_t *base, *v = fix_bytes(MIB, 8);
	struct mkv_region *r;
	int there;

	(void)state;
	open_one();
	r = region_of(MIB, &base, 1);
	until_region(base);
	until_window();
	fake.remote_us = 300 * MS;
	assert_int_equal(mkv_put(cl, K("k"), base, MIB, NULL, 30 * MS, NULL), MKV_ERR_TIMEOUT);
	memset(base + 500000, 0xcc, 10);
	assert_true(mkv_exists(cl, K("x"), 20 * SEC) >= 0);		/* behind it */
	(void)fake_load(&fake, "", K("k"), NULL, 0, &there);
	assert_false(there);
	assert_int_equal(mkv_put(cl, K("w"), v, MIB, NULL, 30 * MS, NULL), MKV_ERR_TIMEOUT);
	memset(v + 500000, 0xcc, 10);
	assert_true(mkv_exists(cl, K("x"), 20 * SEC) >= 0);
	fix_fill(v, MIB, 8);
	check_stored("w", v, MIB);
	assert_int_equal(mkv_region_free(r), 0);
	free(v);
}

/* Without checksums nobody could tell that it changed: not by reference from the caller's memory. */
static void
test_no_verify(void **state)
{
	struct mkv_client_opts o = { .connections = 1, .no_verify = 1 };
	struct mkv_region *r;
	uint8_t *base;

	(void)state;
	open_with(&o);
	r = region_of(9 * MIB, &base, 1);
	until_window();
	for (unsigned i = 0; i < 5; i++)
		assert_int_equal(mkv_put(cl, K("k"), base, 4 * MIB, NULL, 20 * SEC, NULL), 0);
	check_stored("k", base, 4 * MIB);
	put_and_get("g", 3 * MIB, 2);
	assert_int_equal(fake.remote_puts[1], 0);
	assert_true(fake.remote_puts[0] >= 5);
	assert_int_equal(mkv_region_free(r), 0);
}

/* Refused: as if it were not there, for as long as the connection lasts, and its memory is given back. Not now: later. */
static void
test_refused(void **state)
{
	struct mkv_region *r;
	uint8_t *base;

	(void)state;
	fake.region_status = MKV_E_NOSPACE;
	open_one();
	r = region_of(MIB, &base, 1);
	for (unsigned i = 0; i < 20; i++) {
		put_and_get("k", MIB, i);
		assert_int_equal(mkv_put(cl, K("r"), base, MIB, NULL, 20 * SEC, NULL), 0);
	}
	assert_int_equal(counter(cl, "local_regions_refused_total"), 2);
	assert_int_equal(fake.requests[MKV_WIRE_REGION], 2);
	assert_int_equal(fake.remote_gets + fake.remote_puts[0] + fake.remote_puts[1], 0);
	assert_int_equal(mapped("memkv-window"), 0);
	fake.region_status = MKV_E_RETRY;
	fake_drop_all(&fake);
	for (unsigned i = 0; i < 1000 && fake.requests[MKV_WIRE_REGION] < 8; i++) {
		put_and_get("k", 65536, i);
		(void)usleep(MS);
	}
	assert_true(fake.requests[MKV_WIRE_REGION] >= 8);
	fake.region_status = 0;
	for (unsigned i = 0; i < 1000 && fake.remote_gets == 0; i++) {
		put_and_get("k", 65536, i);
		(void)usleep(MS);
	}
	assert_true(fake.remote_gets > 0);
	assert_true(mapped("memkv-window") > 0);
	assert_int_equal(counter(cl, "local_regions_refused_total"), 2);
	assert_int_equal(mkv_region_free(r), 0);
}

/* No answer to REGION, or a server that knows nothing of it, or nobody wants it: nothing waits. */
static void
test_without(void **state)
{
	struct mkv_region *r;
	uint8_t *base;

	(void)state;
	fake.region_mute = 1;
	open_one();
	r = region_of(MIB, &base, 1);
	for (unsigned i = 0; i < 10; i++) {
		put_and_get("k", MIB, i);
		assert_int_equal(mkv_put(cl, K("r"), base, MIB, NULL, 20 * SEC, NULL), 0);
	}
	assert_int_equal(fake.requests[MKV_WIRE_REGION], 2);
	assert_int_equal(mkv_region_free(r), 0);		/* before the server has answered that it has it */
	mkv_client_close(cl);
	fake.region_mute = fake.regions = 0;
	open_one();
	put_and_get("k", MIB, 1);
	mkv_client_close(cl);
	fake.regions = 1;
	assert_int_equal(setenv("MEMKV_LOCAL_WINDOW", "0", 1), 0);
	open_one();
	r = region_of(MIB, &base, 1);
	for (unsigned i = 0; i < 10; i++)
		assert_int_equal(mkv_put(cl, K("r"), base, MIB, NULL, 20 * SEC, NULL), 0);
	put_and_get("k", MIB, 1);
	assert_int_equal(mkv_region_free(r), 0);
	assert_int_equal(fake.requests[MKV_WIRE_REGION], 2);
	assert_int_equal(fake.remote_gets + fake.remote_puts[0] + fake.remote_puts[1], 0);
}

/* 1: the i-th get and the k-th by reference had no byte of the window in common. */
static int
apart(unsigned i, unsigned k)
{
	return (fake.seg_end[i] <= fake.seg_at[k] || fake.seg_end[k] <= fake.seg_at[i]);
}

/* The caller has gone: what comes late reaches his memory never, and its chunk is nobody else's until it has come. */
static void
test_late_answer(void **state)
{
	uint8_t *v = fix_bytes(MIB, 1), *g = calloc(1, MIB), *zero = calloc(1, MIB);
	unsigned first, answered;

	(void)state;
	open_one();
	until_window();
	fake_store(&fake, "", K("k"), v, MIB);
	first = fake.remote_gets % FAKE_SEGS_MAX;
	answered = fake.answered[MKV_WIRE_GET];
	fake.delay_us = 300 * MS;
	assert_int_equal(mkv_get(cl, K("k"), g, MIB, 30 * MS, NULL), MKV_ERR_TIMEOUT);
	assert_memory_equal(g, zero, MIB);
	assert_int_equal(mkv_get(cl, K("k"), zero, MIB, 20 * SEC, NULL), MIB);	/* asked before the first is answered */
	assert_true(apart(first, (first + 1) % FAKE_SEGS_MAX));
	assert_true(fix_until(&fake.answered[MKV_WIRE_GET], answered + 2));
	assert_memory_equal(zero, v, MIB);
	memset(zero, 0, MIB);
	assert_memory_equal(g, zero, MIB);
	fake.delay_us = 0;
	for (unsigned i = 0; i < 2; i++)
		assert_int_equal(mkv_get(cl, K("k"), g, MIB, 20 * SEC, NULL), MIB);
	assert_int_equal(fake.seg_at[(first + 3) % FAKE_SEGS_MAX], fake.seg_at[first]);	/* free again */
	assert_int_equal(counter(cl, "sessions_total"), 1);
	free(v);
	free(g);
	free(zero);
}

/* An answer to CANCEL is no answer: the chunk stays out, until the connection ends that owes it. */
static void
test_no_answer(void **state)
{
	uint8_t *v = fix_bytes(3 * MIB, 1), *g = calloc(1, 3 * MIB);
	unsigned first;

	(void)state;
	open_one();
	until_window();
	fake_store(&fake, "", K("k"), v, 3 * MIB);
	first = fake.remote_gets % FAKE_SEGS_MAX;
	fake.mute = 1;
	assert_int_equal(mkv_get(cl, K("k"), g, 3 * MIB, 30 * MS, NULL), MKV_ERR_TIMEOUT);
	fake.mute = 0;
	for (unsigned i = 0; i < 5; i++)		/* CANCEL has been answered by the second */
		assert_int_equal(mkv_get(cl, K("k"), g, 3 * MIB, 20 * SEC, NULL), 3 * MIB);
	assert_true(fake.requests[MKV_WIRE_CANCEL] > 0);
	for (unsigned i = 1; i <= 5; i++)
		assert_true(apart(first, (first + i) % FAKE_SEGS_MAX));
	assert_memory_equal(g, v, 3 * MIB);
	free(v);
	free(g);
}

/* When there is no room values go by the socket; nobody waits. */
static void
test_full(void **state)
{
	uint8_t *v = fix_bytes(4 * MIB, 1), *g = calloc(1, 4 * MIB);
	unsigned before;

	(void)state;
	open_one();
	until_window();
	fake_store(&fake, "", K("k"), v, 4 * MIB);
	fake.mute = 1;
	for (unsigned i = 0; i < 2; i++)
		assert_int_equal(mkv_get(cl, K("k"), g, 4 * MIB, 30 * MS, NULL), MKV_ERR_TIMEOUT);
	fake.mute = 0;
	before = fake.remote_gets + fake.remote_puts[0];
	put_and_get("p", 4 * MIB, 2);
	put_and_get("q", 65536, 3);
	assert_int_equal(fake.remote_gets + fake.remote_puts[0], before);
	assert_true(counter(cl, "local_window_full_total") >= 4);
	assert_int_equal(counter(cl, "sessions_total"), 1);
	free(v);
	free(g);
}

/* The connection ends with chunks out: what they were for is asked again, by another with a window of its own. */
static void
test_connection_ends(void **state)
{
	enum { N = 24 };
	uint8_t *v = fix_bytes(MIB, 1), *g = calloc(N, MIB);
	struct iovec iov;
	unsigned shown;
	int64_t r;

	(void)state;
	open_one();
	until_window();
	fake_store(&fake, "", K("k"), v, MIB);
	shown = fake.regions_shown;
	fake.delay_us = 20 * MS;
	for (unsigned i = 0; i < N; i++) {
		iov = (struct iovec){ .iov_base = i % 3 ? g + (size_t)i * MIB : v, .iov_len = MIB };
		submit(i % 3 ? MKV_OP_GET : MKV_OP_PUT, i % 3 ? "k" : "p", &iov, 1);
	}
	(void)usleep(60 * MS);
	fake_drop_all(&fake);
	(void)usleep(60 * MS);
	fake_drop_all(&fake);
	fake.delay_us = 0;
	for (unsigned i = 0; i < N; i++) {
		r = completed();
		assert_true(r == 0 || r == MIB);
	}
	for (unsigned i = 0; i < N; i++)
		if (i % 3)
			assert_memory_equal(g + (size_t)i * MIB, v, MIB);
	until_window();
	assert_true(fake.regions_shown > shown);
	free(v);
	free(g);
}

/* A server that says what cannot be loses its session, and what it wrote is nobody's. */
static void
test_lies(void **state)
{
	static const int lie[] = { FAKE_BAD_OFFSET, FAKE_TOO_MANY_BYTES, FAKE_TOO_FEW_BYTES, FAKE_BAD_ID, FAKE_BAD_MAC, FAKE_CUT_HEADER };
	uint8_t *v = fix_bytes(MIB + 5, 1), *g = calloc(1, 2 * MIB);
	unsigned lost = 0;

	(void)state;
	open_one();
	fake_store(&fake, "", K("k"), v, MIB + 5);
	for (unsigned i = 0; i < MKV_ARRAY_LEN(lie); i++) {
		until_window();
		fake.lies = 1;
		fake.lie = lie[i];
		assert_int_equal(mkv_get(cl, K("k"), g, 2 * MIB, 20 * SEC, NULL), MIB + 5);
		assert_memory_equal(g, v, MIB + 5);
		memset(g, 0, MIB + 5);
		fake.lie = FAKE_TRUTH;
		assert_int_equal(counter(cl, "sessions_lost_total"), ++lost);
	}
	for (int how = 2; how <= 3; how++) {
		until_window();
		fake.regions = how;
		if (how == 2)
			assert_int_equal(mkv_get(cl, K("k"), g, MIB + 5, 20 * SEC, NULL), MIB + 5);	/* asked again by a connection that has no window yet */
		else
			assert_true(mkv_get(cl, K("k"), g, 1000, 100 * MS, NULL) < 0);
		assert_true(counter(cl, "sessions_lost_total") > lost);
		lost = (unsigned)counter(cl, "sessions_lost_total");
		fake.regions = 1;
		for (int i = 0; i < 600 && mkv_exists(cl, K("k"), SEC) < 0; i++)
			(void)usleep(10 * MS);
		lost = (unsigned)counter(cl, "sessions_lost_total");
	}
	free(v);
	free(g);
}

/* Bytes in the window that do not fit their checksum: reported, asked again, and never returned. */
static void
test_bad_bytes(void **state)
{
	uint8_t *v = fix_bytes(MIB, 1), *g = calloc(1, MIB);

	(void)state;
	open_one();
	until_window();
	fake_store(&fake, "", K("k"), v, MIB);
	fake.lie = FAKE_BAD_CRC;
	fake.lies = 1;
	assert_int_equal(mkv_get(cl, K("k"), g, MIB, 20 * SEC, NULL), MIB);
	assert_memory_equal(g, v, MIB);
	assert_int_equal(fake.requests[MKV_WIRE_REPORT], 1);
	assert_int_equal(fake.report_off, 8 * 65536);
	fake.lies = 100;
	assert_int_equal(mkv_get(cl, K("k"), g, MIB, 20 * SEC, NULL), MKV_ERR_MISS);
	fake.lie = FAKE_TRUTH;
	fake.lies = 0;
	/* After its answer a server has no business there; what it does has no effect. */
	memset(g, 0, MIB);
	assert_int_equal(mkv_get(cl, K("k"), g, MIB, 20 * SEC, NULL), MIB);
	fakeregion_scribble(&fake);
	assert_memory_equal(g, v, MIB);
	put_and_get("s", 2 * MIB, 3);
	free(v);
	free(g);
}

static void *
busy(void *arg)
{
	for (unsigned i = 0; fake.remote_gets == 0 && i < 3000; i++)
		put_and_get(arg, 65536, i);
	return (NULL);
}

/* Requests for more than all credits of the connection: the window is shown to the server all the same. */
static void
test_few_credits(void **state)
{
	struct fake_opts o = { .local_path = path, .credits = 1 };
	pthread_t t[4];

	(void)state;
	fake_close(&fake);
	assert_int_equal(fake_open(&fake, &o), 0);
	fake.regions = 1;
	open_one();
	for (unsigned i = 0; i < MKV_ARRAY_LEN(t); i++)
		assert_int_equal(pthread_create(&t[i], NULL, busy, (void *)(uintptr_t)&"a\0b\0c\0d"[2 * i]), 0);
	for (unsigned i = 0; i < MKV_ARRAY_LEN(t); i++)
		assert_int_equal(pthread_join(t[i], NULL), 0);
	assert_true(fake.remote_gets > 0);
}

static void *
worker(void *arg)
{
	unsigned id = (unsigned)(uintptr_t)arg;
	uint8_t *v = malloc(2 * MIB), *g = malloc(2 * MIB);
	char key[32];

	for (unsigned i = 0; i < 60; i++) {
		size_t bytes = 1 + (i * 7919u + id * 104729u) * 97u % (2 * MIB);
		int64_t r;

		fix_fill(v, bytes, id * 1000 + i);
		(void)snprintf(key, sizeof(key), "w%u-%u", id, i);
		assert_int_equal(mkv_put(cl, K(key), v, bytes, NULL, 60 * SEC, NULL), 0);
		if (i % 4 == 3)					/* left in the middle, or not */
			(void)mkv_get(cl, K(key), g, bytes, 50 + 100 * (i % 7), NULL);
		memset(g, 0, bytes);
		r = mkv_get(cl, K(key), g, bytes, 60 * SEC, NULL);
		assert_int_equal(r, (int64_t)bytes);
		assert_memory_equal(v, g, bytes);
	}
	free(v);
	free(g);
	threads_left--;
	return (arg);
}

static void
end_sessions(unsigned i)
{
	(void)usleep(50 * MS);
	if (i % 4 == 3)
		fake_drop_all(&fake);
}

/* Threads that put and get, some leaving early, while connections end. */
static void
test_threads(void **state)
{
	struct mkv_client_opts o = { .connections = 2, .io_threads = 2 };

	(void)state;
	open_with(&o);
	with_threads(worker, 4, end_sessions);
	assert_true(fake.remote_gets > 0 && fake.remote_puts[0] > 0);
	assert_int_equal(counter(cl, "corrupt_total"), 0);
}

static unsigned
open_fds(void)
{
	DIR *d = opendir("/proc/self/fd");
	unsigned n = 0;

	while (d != NULL && readdir(d) != NULL)
		n++;
	assert_non_null(d);
	assert_int_equal(closedir(d), 0);
	return (n);
}

/* Connections come and go with their windows and regions, and leave no descriptor behind. */
static void
test_nothing_is_left(void **state)
{
	struct mkv_region *r;
	unsigned before;
	uint8_t *base;

	(void)state;
	open_one();
	r = region_of(MIB, &base, 1);
	until_region(base);
	until_window();
	before = open_fds();
	for (unsigned i = 0; i < 10; i++) {
		fake_drop_all(&fake);
		until_region(base);
		until_window();
		assert_in_range(open_fds(), 1, before + 2);	/* the server's end of the connection before may still be there */
	}
	assert_int_equal(mkv_region_free(r), 0);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
#define TEST(name)	cmocka_unit_test_setup_teardown(test_##name, setup, teardown)
		TEST(all_sizes), TEST(parts), TEST(guard_pages), TEST(region_put), TEST(region_is_dropped), TEST(region_is_freed_before_a_sleep),
		TEST(sparse_region), TEST(many_regions), TEST(region_in_use), TEST(left_put), TEST(no_verify), TEST(refused), TEST(without), TEST(late_answer),
		TEST(no_answer), TEST(full), TEST(connection_ends), TEST(lies), TEST(bad_bytes), TEST(few_credits), TEST(threads), TEST(nothing_is_left),
	};

	return (cmocka_run_group_tests_name("client_ref", tests, NULL, NULL));
}
