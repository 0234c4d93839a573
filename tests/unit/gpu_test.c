/*
 * Memory of GPUs in libmemkv, over TCP: the CUDA driver is the stub of tests/lib/stubcuda.c, whose device memory ends this program when the CPU touches it.
 */
#include "config.h"

#include "tests/unit/client_fix.h"

#include <dlfcn.h>

#include "clients/lib/gpu.h"
#include "tests/lib/stubcuda.h"

#define PART	(64u * 1024)
#define MIB	(1u << 20)

/* In the place of the C library's: what is asked for. */
static _Atomic unsigned cuda_asked, cuda_loads;

void *
dlopen(const char *name, int flags)
{
	void *(*real)(const char *, int), *p = dlsym(RTLD_NEXT, "dlopen");

	if (name != NULL && strstr(name, "libcuda") != NULL) {
		cuda_asked++;
		cuda_loads += (flags & RTLD_NOLOAD) == 0;
	}
	memcpy(&real, &p, sizeof(p));
	return (real(name, flags));
}

static struct fake fake, big;			/* values travel in small parts; in parts of 4 MiB */
static struct mkv_client *cl, *cl_big;
static const struct stub_ops *cu;

static int
setup(void **state)
{
	struct fake_opts o = { .part_bytes = PART };

	(void)state;
	assert_int_equal(fake_open(&fake, &o), 0);
	assert_int_equal(fake_open(&big, &(struct fake_opts){ 0 }), 0);
	cl = fix_client(&fake, 1);
	cl_big = fix_client(&big, 1);
	return (0);
}

static int
teardown(void **state)
{
	(void)state;
	mkv_client_close(cl);
	mkv_client_close(cl_big);
	fake_close(&fake);
	fake_close(&big);
	return (0);
}

static int
calm(void **state)
{
	(void)state;
	if (cu == NULL)
		return (0);
	cu->s->fail_call = STUB_NONE;
	cu->s->fail_on = 0;
	cu->s->copy_us = 0;
	for (unsigned i = 0; i < STUB_CALLS; i++)
		cu->s->calls[i] = 0;
	return (0);
}

/* ---- before the driver is loaded ---- */

static void
test_no_driver(void **state)
{
	struct mkv_gpu_mem m;
	char why[MKV_GPU_WHY_BYTES], b[32], line[4096];
	uint64_t t;
	FILE *maps;

	(void)state;
	assert_int_equal(mkv_gpu_here(), 0);
	assert_int_equal(mkv_gpu_what(b, &m, why), 0);
	assert_int_equal(m.kind, MKV_GPU_HOST);
	assert_int_equal(mkv_put(cl, K("host"), "abc", 3, NULL, 10 * SEC, NULL), 0);
	assert_int_equal(mkv_get(cl, K("host"), b, sizeof(b), 10 * SEC, NULL), 3);
	assert_int_equal(mkv_gpu_why(cl, why, sizeof(why)), 0);
	assert_string_equal(why, "");
	assert_int_equal(mkv_gpu_why(cl, NULL, 0), MKV_ERR_INVAL);
	assert_true(cuda_asked <= 1);
	t = mkv_now_ns();
	for (int i = 0; i < 100000; i++)
		assert_int_equal(mkv_gpu_here(), 0);
	print_message("a look without a driver: %.0f ns\n", (double)(mkv_now_ns() - t) / 100000);
	assert_true(cuda_asked <= 1);			/* and only whether it is there */
	assert_int_equal(cuda_loads, 0);
	maps = fopen("/proc/self/maps", "r");
	assert_non_null(maps);
	while (fgets(line, sizeof(line), maps) != NULL)
		assert_null(strstr(line, "libcuda"));
	(void)fclose(maps);
}

/* A program loads it when it likes: the handles that are open see it. */
static void
test_driver_comes(void **state)
{
	const struct stub_ops *(*control)(void);
	void *lib, *p;

	(void)state;
	lib = dlopen(STUBCUDA, RTLD_NOW | RTLD_LOCAL);
	if (lib == NULL)
		print_error("%s\n", dlerror());
	assert_non_null(lib);
	p = dlsym(lib, "stub_control");
	assert_non_null(p);
	memcpy(&control, &p, sizeof(p));
	cu = control();
	assert_int_equal(mkv_gpu_here(), 1);
}

/* ---- with it ---- */

static void
test_what(void **state)
{
	uint8_t *d = cu->alloc(3, 10000, 0), *u = cu->alloc(1, 4096, 1), h;
	struct mkv_gpu_mem m;
	char why[MKV_GPU_WHY_BYTES];

	(void)state;
	assert_int_equal(mkv_gpu_what(d + 17, &m, why), 0);
	assert_int_equal(m.kind, MKV_GPU_DEVICE);
	assert_int_equal(m.device, 3);
	assert_int_equal(m.base, (uintptr_t)d);
	assert_int_equal(m.bytes, 10000);
	assert_int_equal(mkv_gpu_what(u, &m, why), 0);
	assert_int_equal(m.kind, MKV_GPU_MANAGED);
	assert_int_equal(m.device, 1);
	assert_int_equal(mkv_gpu_what(&h, &m, why), 0);
	assert_int_equal(m.kind, MKV_GPU_HOST);
	cu->s->fail_call = STUB_POINTER;
	cu->s->fail_at = cu->s->calls[STUB_POINTER] + 1;
	assert_int_equal(mkv_gpu_what(d, &m, why), MKV_E_IO);
	assert_non_null(strstr(why, "cuPointerGetAttributes"));
	assert_non_null(strstr(why, "719"));
	cu->free(d);
	cu->free(u);
}

static void
round_trip(struct mkv_client *c, struct fake *f, size_t bytes, int managed)
{
	uint8_t *v = fix_bytes(bytes, bytes + 1), *back = calloc(1, bytes + 16), *d = cu->alloc(0, bytes + 16, managed);
	uint64_t in = cu->s->in_bytes, out = cu->s->out_bytes;
	int there;

	cu->write(d, v, bytes);
	assert_int_equal(mkv_put(c, K("rt"), d, bytes, NULL, 10 * SEC, NULL), 0);
	assert_int_equal(fake_load(f, "", K("rt"), back, bytes + 16, &there), bytes);
	assert_memory_equal(back, v, bytes);
	assert_int_equal(cu->s->out_bytes - out, bytes);
	memset(back, 0, bytes + 16);
	cu->write(d, back, bytes + 16);
	assert_int_equal(mkv_get(c, K("rt"), d, bytes + 16, 10 * SEC, NULL), bytes);
	assert_int_equal(cu->s->in_bytes - in, bytes);
	cu->read(d, back, bytes + 16);
	assert_memory_equal(back, v, bytes);
	for (unsigned i = 0; i < 16; i++)
		assert_int_equal(back[bytes + i], 0);
	cu->free(d);
	free(v);
	free(back);
}

static void
test_round_trips(void **state)
{
	static const size_t sizes[] = { 0, 1, 7, 4095, 8192, 8193, 65535, 65536, 65537, 200000, 262144, MIB - 1, MIB, MIB + 1, 5u * MIB + 77 };

	(void)state;
	for (unsigned i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
		round_trip(cl, &fake, sizes[i], 0);
		round_trip(cl_big, &big, sizes[i], 0);
	}
	round_trip(cl_big, &big, 300000, 1);
	assert_true(cu->s->most_bytes <= MIB);
	assert_int_equal(cu->s->pushed, 0);
}

static void
test_without_crcs(void **state)
{
	struct mkv_client_opts o = { .no_verify = 1 };
	struct mkv_client *c = fix_client_opts(&o, &big, 1);

	(void)state;
	round_trip(c, &big, 3 * MIB + 5, 0);
	mkv_client_close(c);
}

static void
test_ranges(void **state)
{
	static const struct { uint64_t off; size_t len; } r[] = { { 0, 10 }, { 1, 65536 }, { 65535, 2 }, { 100000, 2 * MIB }, { 3 * MIB - 5, 5 }, { 70000, 3 * MIB } };
	const size_t bytes = 3 * MIB;
	uint8_t *v = fix_bytes(bytes, 9), *back = malloc(bytes), *d = cu->alloc(0, bytes, 0);

	(void)state;
	fake_store(&fake, "", K("range"), v, bytes);
	fake_store(&big, "", K("range"), v, bytes);
	for (unsigned i = 0; i < 2 * sizeof(r) / sizeof(r[0]); i++) {
		struct mkv_client *c = i % 2 ? cl : cl_big;
		size_t want = r[i / 2].len < bytes - r[i / 2].off ? r[i / 2].len : bytes - r[i / 2].off;

		assert_int_equal(mkv_get_range(c, K("range"), r[i / 2].off, d, r[i / 2].len, 10 * SEC, NULL), want);
		cu->read(d, back, want);
		assert_memory_equal(back, v + r[i / 2].off, want);
	}
	cu->free(d);
	free(v);
	free(back);
}

/* Host and two devices in one list, with empty ones between. */
static void
test_mixed(void **state)
{
	const size_t n[] = { 1000, 0, 70000, 2 * MIB, 0, 33, 300000 };
	enum { N = sizeof(n) / sizeof(n[0]) };
	uint8_t *v, *at, *back, *host[N];
	struct iovec iov[N];
	struct mkv_key key = { .data = "mixed", .bytes = 5 };
	struct mkv_request r = { .size = sizeof(r), .op = MKV_OP_GET, .keys = &key, .n_keys = 1, .iov = iov, .n_iov = N, .len = MEMKV_SIZE_ANY,
		.deadline_us = 10 * SEC };
	struct mkv_completion done = { .size = sizeof(done) };
	size_t all = 0;

	(void)state;
	for (unsigned i = 0; i < N; i++)
		all += n[i];
	v = fix_bytes(all, 21);
	back = calloc(1, all);
	at = v;
	for (unsigned i = 0; i < N; i++) {
		iov[i].iov_len = n[i];
		iov[i].iov_base = i % 3 == 0 ? malloc(n[i] + 1) : cu->alloc(i % 2, n[i] + 1, 0);
		host[i] = i % 3 == 0 ? iov[i].iov_base : NULL;
		if (host[i] != NULL)
			memcpy(host[i], at, n[i]);
		else
			cu->write(iov[i].iov_base, at, n[i]);
		at += n[i];
	}
	assert_int_equal(mkv_putv(cl_big, K("mixed"), iov, N, NULL, 10 * SEC, NULL), 0);
	assert_int_equal(mkv_get(cl_big, K("mixed"), back, all, 10 * SEC, NULL), all);
	assert_memory_equal(back, v, all);
	for (unsigned i = 0; i < N; i++) {
		memset(back, 0, n[i]);
		if (host[i] != NULL)
			memset(host[i], 0, n[i]);
		else
			cu->write(iov[i].iov_base, back, n[i]);
	}
	assert_int_equal(mkv_submit(cl_big, &r, NULL), 0);
	assert_int_equal(mkv_wait(cl_big, 10 * SEC), 1);
	assert_int_equal(mkv_drain(cl_big, &done, 1), 1);
	assert_int_equal(done.result, all);
	at = v;
	for (unsigned i = 0; i < N; i++) {
		if (host[i] != NULL)
			memcpy(back, host[i], n[i]);
		else
			cu->read(iov[i].iov_base, back, n[i]);
		assert_memory_equal(back, at, n[i]);
		at += n[i];
		if (host[i] != NULL)
			free(host[i]);
		else
			cu->free(iov[i].iov_base);
	}
	free(v);
	free(back);
}

#define BATCH	40u

static void
test_batch(void **state)
{
	struct mkv_batch_item it[BATCH];
	uint8_t *v[BATCH], back[3000];
	char key[BATCH][16];

	(void)state;
	memset(it, 0, sizeof(it));
	for (unsigned i = 0; i < BATCH; i++) {
		it[i].key.data = key[i];
		it[i].key.bytes = (size_t)snprintf(key[i], sizeof(key[i]), "b%u", i);
		it[i].buf = cu->alloc(0, 3000, 0);
		it[i].buf_bytes = 2500 + i;
		v[i] = fix_bytes(3000, i);
		cu->write(it[i].buf, v[i], 3000);
	}
	assert_int_equal(mkv_put_batch(cl, it, BATCH, NULL, 10 * SEC), BATCH);
	memset(back, 0, sizeof(back));
	for (unsigned i = 0; i < BATCH; i++)
		cu->write(it[i].buf, back, 3000);
	assert_int_equal(mkv_get_batch(cl, it, BATCH, 10 * SEC), BATCH);
	for (unsigned i = 0; i < BATCH; i++) {
		cu->read(it[i].buf, back, 3000);
		assert_memory_equal(back, v[i], 2500 + i);
		assert_int_equal(back[2500 + i], 0);
		cu->free(it[i].buf);
		free(v[i]);
	}
}

static void
test_stream(void **state)
{
	const size_t bytes = 9 * MIB + 11;
	uint8_t *v = fix_bytes(bytes, 5), *back = malloc(bytes), *d = cu->alloc(2, bytes, 0);
	struct mkv_put_stream *s;

	(void)state;
	cu->write(d, v, bytes);
	assert_int_equal(mkv_put_begin(cl_big, K("st"), NULL, 10 * SEC, &s), 0);
	assert_int_equal(mkv_put_part(s, d, 100, 10 * SEC), 0);
	assert_int_equal(mkv_put_part(s, v + 100, 5000, 10 * SEC), 0);
	assert_int_equal(mkv_put_part(s, d + 5100, bytes - 5100, 10 * SEC), 0);
	assert_int_equal(mkv_put_commit(s, 10 * SEC, NULL), 0);
	assert_int_equal(mkv_get(cl_big, K("st"), back, bytes, 10 * SEC, NULL), bytes);
	assert_memory_equal(back, v, bytes);
	/* A copy that fails ends the stream. */
	assert_int_equal(mkv_put_begin(cl_big, K("st2"), NULL, 10 * SEC, &s), 0);
	cu->s->fail_call = STUB_COPY;
	cu->s->fail_at = cu->s->calls[STUB_COPY] + 2;
	assert_int_equal(mkv_put_part(s, d, 3 * MIB, 10 * SEC), MKV_ERR_IO);
	assert_int_equal(mkv_put_part(s, v, 1, 10 * SEC), MKV_ERR_IO);
	assert_int_equal(mkv_put_commit(s, 10 * SEC, NULL), MKV_ERR_IO);
	cu->free(d);
	free(v);
	free(back);
}

/* What a region is made of is asked for once. */
static void
test_region(void **state)
{
	uint8_t *d = cu->alloc(0, 8 * MIB, 0), *v = fix_bytes(MIB, 8), *back = malloc(MIB);
	struct mkv_region *r;
	unsigned asked;

	(void)state;
	cu->write(d + MIB, v, MIB);
	assert_int_equal(mkv_region_register(cl, d, 8 * MIB, &r), 0);
	asked = cu->s->calls[STUB_POINTER];
	assert_int_equal(mkv_put(cl, K("reg"), d + MIB, MIB, NULL, 10 * SEC, NULL), 0);
	assert_int_equal(mkv_get(cl, K("reg"), d + 4 * MIB, MIB, 10 * SEC, NULL), MIB);
	assert_int_equal(cu->s->calls[STUB_POINTER], asked);
	cu->read(d + 4 * MIB, back, MIB);
	assert_memory_equal(back, v, MIB);
	assert_int_equal(mkv_region_free(r), 0);
	cu->free(d);
	free(v);
	free(back);
}

/* Bytes that do not match never reach the device; the repeated get's do. */
static void
test_bad_crc(void **state)
{
	uint8_t *v = fix_bytes(200000, 4), *back = calloc(1, 200000), *d = cu->alloc(0, 200000, 0);
	struct mkv_object obj = { .size = sizeof(obj) };
	uint64_t in = cu->s->in_bytes;

	(void)state;
	fake_store(&big, "", K("crc"), v, 200000);
	cu->write(d, back, 200000);
	big.lie = FAKE_BAD_CRC;
	big.lies = 1;
	assert_int_equal(mkv_get(cl_big, K("crc"), d, 200000, 10 * SEC, &obj), 200000);
	cu->read(d, back, 200000);
	assert_memory_equal(back, v, 200000);
	assert_int_equal(cu->s->in_bytes - in, 200000);
	in = cu->s->in_bytes;
	big.lies = 1;
	big.report_bad = 1;				/* the server finds its copy bad as well */
	assert_int_equal(mkv_get(cl_big, K("crc"), d, 200000, 10 * SEC, &obj), MKV_ERR_MISS);
	assert_int_equal(obj.reason, MKV_REASON_CORRUPT);
	assert_int_equal(cu->s->in_bytes, in);
	big.report_bad = 0;
	cu->free(d);
	free(v);
	free(back);
}

/* Each call of the driver may fail: the op ends with an error in words, the handle goes on. */
static void
test_failing_calls(void **state)
{
	static const struct { enum stub_call call; const char *says; } fail[] = {
		{ STUB_POINTER, "cuPointerGetAttributes" }, { STUB_COPY, "cuMemcpy" }, { STUB_WAIT, "cuStreamSynchronize" },
	};
	uint8_t *v = fix_bytes(6 * MIB, 4), *d = cu->alloc(0, 6 * MIB, 0);
	char why[256];
	unsigned did;

	(void)state;
	cu->write(d, v, 6 * MIB);
	fake_store(&big, "", K("fails"), v, 6 * MIB);
	for (unsigned i = 0; i < sizeof(fail) / sizeof(fail[0]); i++) {
		for (unsigned nth = 1; nth <= (fail[i].call == STUB_POINTER ? 1 : 6); nth++) {
			for (int get = 0; get < 2; get++) {
				did = cu->s->calls[fail[i].call];
				cu->s->fail_at = did + nth;
				cu->s->fail_call = (int)fail[i].call;
				if (get)
					assert_int_equal(mkv_get(cl_big, K("fails"), d, 6 * MIB, 10 * SEC, NULL), MKV_ERR_IO);
				else
					assert_int_equal(mkv_put(cl_big, K("no"), d, 6 * MIB, NULL, 10 * SEC, NULL), MKV_ERR_IO);
				cu->s->fail_call = STUB_NONE;
				assert_true(cu->s->calls[fail[i].call] >= did + nth);
				assert_int_equal(mkv_gpu_why(cl_big, why, sizeof(why)), 0);
				assert_non_null(strstr(why, fail[i].says));
				assert_non_null(strstr(why, "CUDA_ERROR_LAUNCH_FAILED"));
				assert_int_equal(mkv_exists(cl_big, K("no"), 10 * SEC), 0);
				assert_int_equal(cu->s->pushed, 0);
			}
		}
	}
	assert_int_equal(mkv_get(cl_big, K("fails"), d, 6 * MIB, 10 * SEC, NULL), 6 * MIB);
	cu->free(d);
	free(v);
}

/* A driver that answers nothing any more leaves memory of the host alone. */
static void
test_broken_driver(void **state)
{
	uint8_t b[300] = { 7 }, back[300], *d = cu->alloc(0, 300, 0);

	(void)state;
	cu->s->fail_at = 1;
	cu->s->fail_on = 1;
	cu->s->fail_call = STUB_POINTER;
	assert_int_equal(mkv_put(cl, K("broken"), b, sizeof(b), NULL, 10 * SEC, NULL), 0);
	assert_int_equal(mkv_get(cl, K("broken"), back, sizeof(back), 10 * SEC, NULL), sizeof(back));
	assert_memory_equal(b, back, sizeof(b));
	assert_int_equal(mkv_put(cl, K("broken"), d, 300, NULL, 10 * SEC, NULL), MKV_ERR_IO);
	assert_true(cu->s->calls[STUB_POINTER] >= 3);
	cu->free(d);
}

/* Of two copies the second cannot be queued: when the get has ended, the first is over as well. */
static void
test_failing_second_copy(void **state)
{
	uint8_t *a = cu->alloc(0, 1000, 0), *b = cu->alloc(1, 1000, 0), v[2000] = { 1 };
	struct iovec iov[2] = { { a, 1000 }, { b, 1000 } };
	struct mkv_key key = { .data = "two", .bytes = 3 };
	struct mkv_request r = { .size = sizeof(r), .op = MKV_OP_GET, .keys = &key, .n_keys = 1, .iov = iov, .n_iov = 2, .len = MEMKV_SIZE_ANY,
		.deadline_us = 10 * SEC };
	struct mkv_completion done = { .size = sizeof(done) };
	uint64_t in;

	(void)state;
	fake_store(&big, "", K("two"), v, sizeof(v));
	cu->s->fail_at = 2;
	cu->s->fail_call = STUB_COPY;
	assert_int_equal(mkv_submit(cl_big, &r, NULL), 0);
	assert_int_equal(mkv_wait(cl_big, 10 * SEC), 1);
	assert_int_equal(mkv_drain(cl_big, &done, 1), 1);
	assert_int_equal(done.result, MKV_ERR_IO);
	in = cu->s->in_bytes;
	assert_int_equal(mkv_put(cl_big, K("two"), iov[0].iov_base, 1000, NULL, 10 * SEC, NULL), 0);
	assert_int_equal(cu->s->in_bytes, in);
	cu->free(a);
	cu->free(b);
}

/* The context cannot be made current to wait for what was queued in it: when the get has ended, that is over all the same, and the next get moves its own bytes only. */
static void
test_failing_way_to_wait(void **state)
{
	uint8_t *v = fix_bytes(10000, 9), *before = malloc(5000), *after = malloc(5000), *d = cu->alloc(0, 5000, 0), *e = cu->alloc(0, 5000, 0);
	uint64_t in;

	(void)state;
	fake_store(&big, "", K("one"), v, 5000);
	fake_store(&big, "", K("two"), v + 5000, 5000);
	assert_int_equal(mkv_get(cl_big, K("one"), e, 5000, 10 * SEC, NULL), 5000);	/* contexts and buffers are there */
	cu->s->fail_at = cu->s->calls[STUB_PUSH] + 2;
	cu->s->fail_call = STUB_PUSH;
	assert_int_equal(mkv_get(cl_big, K("one"), d, 5000, 10 * SEC, NULL), MKV_ERR_IO);
	cu->s->fail_call = STUB_NONE;
	in = cu->s->in_bytes;
	cu->read(d, before, 5000);
	assert_int_equal(mkv_get(cl_big, K("two"), e, 5000, 10 * SEC, NULL), 5000);
	cu->read(d, after, 5000);
	assert_memory_equal(before, after, 5000);
	assert_int_equal(cu->s->in_bytes - in, 5000);
	cu->free(d);
	cu->free(e);
	free(v);
	free(before);
	free(after);
}

/* No context, no stream: a handle whose loop has neither yet. */
static void
test_failing_first_calls(void **state)
{
	static const enum stub_call call[] = { STUB_RETAIN, STUB_STREAM };
	uint8_t *d = cu->alloc(0, 100000, 0), v[100] = { 1 };
	struct mkv_client *c;
	unsigned contexts = cu->s->contexts, streams = cu->s->streams;

	(void)state;
	cu->write(d, v, sizeof(v));
	for (unsigned i = 0; i < 2; i++) {
		c = fix_client(&big, 1);
		cu->s->fail_at = cu->s->calls[call[i]] + 1;
		cu->s->fail_on = 1;
		cu->s->fail_call = (int)call[i];
		assert_int_equal(mkv_put(c, K("first"), d, 100000, NULL, 10 * SEC, NULL), MKV_ERR_IO);
		cu->s->fail_call = STUB_NONE;
		assert_int_equal(mkv_put(c, K("first"), d, 100000, NULL, 10 * SEC, NULL), 0);
		mkv_client_close(c);
	}
	assert_int_equal(cu->s->contexts, contexts);
	assert_int_equal(cu->s->streams, streams);
	cu->free(d);
}

/* A slow device: the call returns one piece after its deadline at most, and no byte follows. */
static void
test_deadline_in_a_copy(void **state)
{
	uint8_t *v = fix_bytes(32 * MIB, 6), *d = cu->alloc(0, 32 * MIB, 0);
	uint64_t in, t, last;
	unsigned pieces;

	(void)state;
	fake_store(&big, "", K("slow"), v, 32 * MIB);
	cu->s->copy_us = 300000;
	for (int i = 0; i < 2; i++) {
		t = mkv_now_ns();
		pieces = cu->s->calls[STUB_WAIT];
		if (i == 0)
			assert_int_equal(mkv_get(cl_big, K("slow"), d, 32 * MIB, 450000, NULL), MKV_ERR_TIMEOUT);
		else
			assert_int_equal(mkv_put(cl_big, K("slow2"), d, 32 * MIB, NULL, 450000, NULL), MKV_ERR_TIMEOUT);
		last = mkv_now_ns();
		print_message("a deadline of 450 ms, pieces of 300 ms: %.0f ms\n", (double)(last - t) / 1e6);
		assert_true(last - t < 5 * 750 * MKV_NS_PER_MS);
		in = cu->s->in_bytes;
		(void)usleep(700000);
		assert_true(cu->s->calls[STUB_WAIT] - pieces <= 2);	/* begun at 0 and at 300 ms, or later */
		assert_int_equal(cu->s->in_bytes, in);
		assert_true(cu->s->last_in_ns <= last);
	}
	cu->s->copy_us = 0;
	assert_int_equal(mkv_exists(cl_big, K("slow2"), 10 * SEC), 0);
	assert_int_equal(mkv_get(cl_big, K("slow"), d, 32 * MIB, 30 * SEC, NULL), 32 * MIB);
	cu->free(d);
	free(v);
}

/* A cancel, and a server that stops in the middle. */
static void
test_cancel(void **state)
{
	struct mkv_key key = { .data = "stall", .bytes = 5 };
	uint8_t *v = fix_bytes(4 * MIB, 6), *d = cu->alloc(0, 4 * MIB, 0);
	struct iovec iov = { .iov_base = d, .iov_len = 4 * MIB };
	struct mkv_request r = { .size = sizeof(r), .op = MKV_OP_GET, .keys = &key, .n_keys = 1, .iov = &iov, .n_iov = 1, .len = MEMKV_SIZE_ANY,
		.deadline_us = 20 * SEC };
	struct mkv_completion done = { .size = sizeof(done) };
	uint64_t id, in = cu->s->in_bytes;

	(void)state;
	fake_store(&big, "", K("stall"), v, 4 * MIB);
	big.stall_after = 2 * MIB + 100;
	assert_int_equal(mkv_submit(cl_big, &r, &id), 0);
	for (int i = 0; i < 5000 && cu->s->in_bytes - in < 2 * MIB; i++)
		(void)usleep(1000);
	assert_int_equal(cu->s->in_bytes - in, 2 * MIB);
	assert_int_equal(mkv_cancel(cl_big, id), 0);
	assert_int_equal(mkv_wait(cl_big, 10 * SEC), 1);
	assert_int_equal(mkv_drain(cl_big, &done, 1), 1);
	assert_int_equal(done.result, MKV_ERR_CANCELLED);
	big.stall_after = 0;
	(void)usleep(100000);
	assert_int_equal(cu->s->in_bytes - in, 2 * MIB);
	cu->free(d);
	free(v);
}

/* After closing, nothing of the driver's is left. */
static void
test_closed(void **state)
{
	(void)state;
	mkv_client_close(cl);
	mkv_client_close(cl_big);
	cl = cl_big = NULL;
	assert_int_equal(cu->s->contexts, 0);
	assert_int_equal(cu->s->streams, 0);
	assert_int_equal(cu->s->pinned, 0);
	assert_int_equal(cu->s->pushed, 0);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {			/* the order matters: the driver comes once */
		cmocka_unit_test(test_no_driver),
		cmocka_unit_test(test_driver_comes),
		cmocka_unit_test_setup(test_what, calm),
		cmocka_unit_test_setup(test_round_trips, calm),
		cmocka_unit_test_setup(test_without_crcs, calm),
		cmocka_unit_test_setup(test_ranges, calm),
		cmocka_unit_test_setup(test_mixed, calm),
		cmocka_unit_test_setup(test_batch, calm),
		cmocka_unit_test_setup(test_stream, calm),
		cmocka_unit_test_setup(test_region, calm),
		cmocka_unit_test_setup(test_bad_crc, calm),
		cmocka_unit_test_setup(test_failing_calls, calm),
		cmocka_unit_test_setup(test_broken_driver, calm),
		cmocka_unit_test_setup(test_failing_second_copy, calm),
		cmocka_unit_test_setup(test_failing_way_to_wait, calm),
		cmocka_unit_test_setup(test_failing_first_calls, calm),
		cmocka_unit_test_setup(test_deadline_in_a_copy, calm),
		cmocka_unit_test_setup(test_cancel, calm),
		cmocka_unit_test_setup(test_closed, calm),
	};

	return (cmocka_run_group_tests(tests, setup, teardown));
}
