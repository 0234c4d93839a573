/*
 * Memory of GPUs by RDMA, from call to completion: a fake server (tests/lib/fakerail.c), a fabric in the process that reaches device memory by its dma-buf
 * (tests/lib/fakeverbs.c), and a driver whose device memory the CPU may not touch (tests/lib/stubcuda.c).
 */
#include "config.h"

#include "tests/unit/client_fix.h"

#include <dlfcn.h>
#include <errno.h>

#include "clients/lib/rail.h"
#include "tests/lib/fakeverbs.h"
#include "tests/lib/stubcuda.h"

#define PART	(256u * 1024)
#define MIB	(1u << 20)
#define BYTES	(4u * MIB)

static struct fake f;
static const struct stub_ops *cu;
static struct mkv_client *c;
static struct mkv_region *region;
static uint8_t *d, *v, *back;

static int
load(void **state)
{
	void *lib = dlopen(STUBCUDA, RTLD_NOW | RTLD_LOCAL), *p;
	const struct stub_ops *(*control)(void);

	(void)state;
	assert_non_null(lib);
	p = dlsym(lib, "stub_control");
	memcpy(&control, &p, sizeof(p));
	cu = control();
	return (0);
}

static void
up(const char *transport, int ordering)
{
	struct mkv_client_opts o = { .size = sizeof(o), .transport = transport, .rdma_devices = "fake0", .connections = 1 };
	struct mkv_server_info si = { .size = sizeof(si) };
	struct fake_opts fo = { .part_bytes = PART };

	fv_start(2);
	mkv_client_verbs = fv_verbs();
	fakerail_use();
	assert_int_equal(fake_open(&f, &fo), 0);
	f.rails = 1;
	cu->s->fail_call = STUB_NONE;
	cu->s->no_dmabuf = 0;
	cu->s->ordering = ordering;
	for (unsigned i = 0; i < STUB_CALLS; i++)
		cu->s->calls[i] = 0;
	cu->s->in_bytes = cu->s->out_bytes = 0;
	c = fix_client_opts(&o, &f, 1);
	assert_int_equal(mkv_warm(c, 10 * SEC), 0);
	assert_int_equal(mkv_server_info(c, 0, 5 * SEC, &si), 0);
	assert_string_equal(si.transport, "rdma");
	d = cu->alloc(0, BYTES, 0);
	v = fix_bytes(BYTES, 3);
	back = calloc(1, BYTES);
	region = NULL;
}

static void
down(void)
{
	assert_int_equal(mkv_region_free(region), 0);
	mkv_client_close(c);
	fake_close(&f);
	assert_int_equal(fv_alive(), 0);
	assert_int_equal(cu->s->contexts, 0);
	assert_int_equal(cu->s->pinned, 0);
	cu->free(d);
	free(v);
	free(back);
}

static void
round_trip(uint8_t *at, size_t n)
{
	int there;

	cu->write(at, v, n);
	assert_int_equal(mkv_put(c, K("k"), at, n, NULL, 10 * SEC, NULL), 0);
	assert_int_equal(fake_load(&f, "", K("k"), back, n, &there), n);
	assert_memory_equal(back, v, n);
	memset(back, 0, n);
	cu->write(at, back, n);
	assert_int_equal(mkv_get(c, K("k"), at, n, 10 * SEC, NULL), n);
	cu->read(at, back, n);
	assert_memory_equal(back, v, n);
}

/* Straight: nothing is copied to the device, and from it only what is checked. */
static void
test_straight(void **state)
{
	static const size_t sizes[] = { 1, 5000, 65536, 65537, PART, PART + 1, 5 * PART - 3 };
	uint64_t all = 0;

	(void)state;
	up("rdma", 100);
	assert_int_equal(mkv_region_register(c, d, BYTES, &region), 0);
	assert_int_equal(fv_calls(FV_REG_DMABUF_MR), 1);
	for (unsigned i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
		round_trip(d + 4096 * i + i, sizes[i]);
		all += sizes[i];
	}
	assert_int_equal(cu->s->in_bytes, 0);
	assert_int_equal(cu->s->out_bytes, all);
	assert_int_equal(cu->s->calls[STUB_FLUSH], 0);
	assert_int_equal(fv_calls(FV_REG_DMABUF_MR), 1);
	assert_int_equal(f.rail_requests[MKV_WIRE_GET], sizeof(sizes) / sizeof(sizes[0]));
	down();
}

/* A GPU that keeps no order is flushed before a get is over; if that fails, so does the get. */
static void
test_flush(void **state)
{
	char why[1024];

	(void)state;
	up("rdma", 0);
	assert_int_equal(mkv_region_register(c, d, BYTES, &region), 0);
	round_trip(d, 100000);
	assert_true(cu->s->calls[STUB_FLUSH] >= 1);
	cu->s->fail_at = cu->s->calls[STUB_FLUSH] + 1;
	cu->s->fail_call = STUB_FLUSH;
	assert_int_equal(mkv_get(c, K("k"), d, 100000, 10 * SEC, NULL), MKV_ERR_IO);
	assert_int_equal(mkv_gpu_why(c, why, sizeof(why)), 0);
	assert_non_null(strstr(why, "cuFlushGPUDirectRDMAWrites"));
	assert_int_equal(mkv_get(c, K("k"), d, 100000, 10 * SEC, NULL), 100000);
	down();
}

/* What came is compared although the CPU cannot see it. */
static void
test_wrong_bytes(void **state)
{
	(void)state;
	up("rdma", 100);
	assert_int_equal(mkv_region_register(c, d, BYTES, &region), 0);
	cu->write(d, v, 300000);
	assert_int_equal(mkv_put(c, K("w"), d, 300000, NULL, 10 * SEC, NULL), 0);
	memset(back, 0, 300000);
	cu->write(d, back, 300000);
	f.lie = FAKE_BAD_CRC;
	f.lies = 1;
	assert_int_equal(mkv_get(c, K("w"), d, 300000, 10 * SEC, NULL), 300000);
	assert_true(f.lies <= 0);
	assert_int_equal(f.requests[MKV_WIRE_REPORT], 1);
	cu->read(d, back, 300000);
	assert_memory_equal(back, v, 300000);
	down();
}

/* Memory of no region: auto stages it, rdma refuses it and says so. */
static void
test_no_region(void **state)
{
	char why[1024];

	(void)state;
	up("auto", 100);
	round_trip(d, 300000);
	round_trip(d, 100);
	assert_int_equal(f.rail_requests[MKV_WIRE_GET] + f.rail_requests[MKV_WIRE_PUT], 0);
	assert_int_equal(cu->s->in_bytes, 300100);
	down();
	up("rdma", 100);
	assert_int_equal(mkv_put(c, K("k"), d, 1000, NULL, 10 * SEC, NULL), MKV_ERR_UNSUPPORTED);
	assert_int_equal(mkv_get(c, K("k"), d, 1000, 10 * SEC, NULL), MKV_ERR_UNSUPPORTED);
	assert_int_equal(mkv_gpu_why(c, why, sizeof(why)), 0);
	assert_non_null(strstr(why, "mkv_region_register"));
	down();
}

/* A region that neither way registers: the same, and the sentence says what was tried. */
static void
test_neither(void **state)
{
	char why[1024];

	(void)state;
	for (int exact = 0; exact < 2; exact++) {
		up(exact ? "rdma" : "auto", 100);
		cu->s->no_dmabuf = 1;
		(void)fv_fail(FV_REG_MR, 1, EFAULT);
		assert_int_equal(mkv_region_register(c, d, BYTES, &region), 0);
		assert_int_equal(fv_fail(FV_REG_MR, 0, 0), 1);
		assert_int_equal(mkv_gpu_why(c, why, sizeof(why)), 0);
		assert_non_null(strstr(why, "modprobe nvidia-peermem"));
		if (exact)
			assert_int_equal(mkv_put(c, K("k"), d, 1000, NULL, 10 * SEC, NULL), MKV_ERR_UNSUPPORTED);
		else
			round_trip(d + 10, 300000);
		down();
	}
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_straight),
		cmocka_unit_test(test_flush),
		cmocka_unit_test(test_wrong_bytes),
		cmocka_unit_test(test_no_region),
		cmocka_unit_test(test_neither),
	};

	return (cmocka_run_group_tests(tests, load, NULL));
}
