/*
 * Memory of GPUs and RDMA devices: how a region is registered, what the library then sends and checks. CUDA is tests/lib/stubcuda.c, the fabric
 * tests/lib/fakeverbs.c. That a real NIC reaches such memory is not tested anywhere: docs/operate/gpu-bringup.md.
 */
#include "config.h"

#include "tests/unit/client_fix.h"

#include <dlfcn.h>
#include <errno.h>

#include "clients/lib/client_priv.h"
#include "clients/lib/rail_priv.h"
#include "tests/lib/fakeverbs.h"
#include "tests/lib/stubcuda.h"

#define MIB		(1u << 20)
#define BYTES		(8u * MIB)
#define BOTH		(MKV_RDMA_READABLE | MKV_RDMA_WRITABLE)

static struct fake fake;
static struct mkv_client *cl;
static const struct stub_ops *cu;
static struct mkv_rdma_dev *dev;
static struct mkv_region *region;
static uint8_t *d;

static int
setup(void **state)
{
	struct mkv_rdma_conf conf = { .device = "fake0", .gid_index = -1, .traffic_class = -1, .service_level = -1 };
	void *lib = dlopen(STUBCUDA, RTLD_NOW | RTLD_LOCAL), *p;
	const struct stub_ops *(*control)(void);
	char why[256];

	(void)state;
	assert_non_null(lib);
	p = dlsym(lib, "stub_control");
	memcpy(&control, &p, sizeof(p));
	cu = control();
	assert_int_equal(fake_open(&fake, &(struct fake_opts){ 0 }), 0);
	cl = fix_client(&fake, 1);
	fv_start(1);
	assert_int_equal(mkv_rdma_dev_open(&dev, fv_verbs(), &conf, why, sizeof(why)), 0);
	d = cu->alloc(1, BYTES, 0);
	assert_int_equal(mkv_region_register(cl, d, BYTES, &region), 0);
	return (0);
}

static int
teardown(void **state)
{
	(void)state;
	assert_int_equal(mkv_region_free(region), 0);
	mkv_rdma_dev_close(&dev);
	assert_int_equal(fv_alive(), 0);
	mkv_client_close(cl);
	assert_int_equal(cu->s->contexts, 0);
	assert_int_equal(cu->s->streams, 0);
	cu->free(d);
	fake_close(&fake);
	return (0);
}

static int
calm(void **state)
{
	(void)state;
	cu->s->fail_call = STUB_NONE;
	cu->s->no_dmabuf = 0;
	cu->s->ordering = 100;
	cu->s->flush_options = 1;
	return (0);
}

static void
covers(struct mkv_rdma_mem *m, uint8_t *at, uint64_t bytes)
{
	uint32_t lkey, rkey;

	assert_non_null(m);
	assert_int_equal(mkv_rdma_mem_keys(m, at, &lkey, &rkey), bytes);
	assert_int_equal(mkv_rdma_mem_keys(m, at - 1, &lkey, &rkey), 0);
}

/* By dma-buf, and the descriptor is not kept. */
static void
test_dmabuf(void **state)
{
	unsigned plain = fv_calls(FV_REG_MR), buf = fv_calls(FV_REG_DMABUF_MR);
	struct mkv_rdma_mem *m;
	char why[1024];
	int fd = dup(0);

	(void)state;
	(void)close(fd);
	assert_int_equal(mkv_gpu_register(&m, dev, region, BOTH, why, sizeof(why)), 0);
	covers(m, d, BYTES);
	assert_int_equal(fv_calls(FV_REG_DMABUF_MR) - buf, 1);
	assert_int_equal(fv_calls(FV_REG_MR) - plain, 0);
	assert_int_equal(region->flush, 0);
	assert_int_equal(dup(0), fd);
	(void)close(fd);
	mkv_rdma_mem_drop(&m);
}

/* A region that neither begins nor ends with a page: the range asked of the driver does. */
static void
test_odd_range(void **state)
{
	struct mkv_rdma_mem *m;
	struct mkv_region *r;
	char why[1024];

	(void)state;
	assert_int_equal(mkv_region_register(cl, d + 5000, 10001, &r), 0);
	assert_int_equal(mkv_gpu_register(&m, dev, r, BOTH, why, sizeof(why)), 0);
	covers(m, d + 5000, 10001);
	mkv_rdma_mem_drop(&m);
	assert_int_equal(mkv_region_free(r), 0);
}

/* Nothing of a dma-buf: the driver has none, fails, or the NIC takes none. Then as with nvidia-peermem. */
static void
test_peermem(void **state)
{
	struct mkv_rdma_mem *m;
	char why[1024];

	(void)state;
	for (int i = 0; i < 3; i++) {
		unsigned plain = fv_calls(FV_REG_MR);

		(void)calm(NULL);
		if (i == 0)
			cu->s->no_dmabuf = 1;
		cu->s->fail_at = cu->s->calls[STUB_HANDLE] + 1;
		cu->s->fail_call = i == 1 ? STUB_HANDLE : STUB_NONE;
		if (i == 2)
			(void)fv_fail(FV_REG_DMABUF_MR, 1, EOPNOTSUPP);
		assert_int_equal(mkv_gpu_register(&m, dev, region, BOTH, why, sizeof(why)), 0);
		assert_int_equal(fv_calls(FV_REG_MR) - plain, 1);
		covers(m, d, BYTES);
		mkv_rdma_mem_drop(&m);
	}
}

/* Neither: what was tried, what each said, what mends it. */
static void
test_neither(void **state)
{
	struct mkv_rdma_mem *m;
	char why[1024];

	(void)state;
	cu->s->no_dmabuf = 1;
	(void)fv_fail(FV_REG_MR, 1, EFAULT);
	assert_int_equal(mkv_gpu_register(&m, dev, region, BOTH, why, sizeof(why)), MKV_E_UNSUPPORTED);
	assert_null(m);
	print_message("%s\n", why);
	assert_non_null(strstr(why, "GPU 1"));
	assert_non_null(strstr(why, "fake0"));
	assert_non_null(strstr(why, "no dma-buf"));
	assert_non_null(strstr(why, "modprobe nvidia-peermem"));
	(void)calm(NULL);
	cu->s->fail_at = cu->s->calls[STUB_HANDLE] + 1;
	cu->s->fail_call = STUB_HANDLE;
	(void)fv_fail(FV_REG_MR, 1, EFAULT);
	assert_int_equal(mkv_gpu_register(&m, dev, region, BOTH, why, sizeof(why)), MKV_E_UNSUPPORTED);
	assert_non_null(strstr(why, "cuMemGetHandleForAddressRange"));
	assert_non_null(strstr(why, "719"));
}

static void
test_managed(void **state)
{
	uint8_t *u = cu->alloc(0, MIB, 1);
	struct mkv_rdma_mem *m;
	struct mkv_region *r;
	char why[1024];

	(void)state;
	assert_int_equal(mkv_region_register(cl, u, MIB, &r), 0);
	assert_int_equal(mkv_gpu_register(&m, dev, r, BOTH, why, sizeof(why)), MKV_E_UNSUPPORTED);
	assert_non_null(strstr(why, "cudaMalloc"));
	assert_int_equal(mkv_region_free(r), 0);
	cu->free(u);
}

/* A GPU that keeps no order must be flushed; one that cannot be flushed either is not registered. */
static void
test_ordering(void **state)
{
	struct mkv_rdma_mem *m;
	char why[1024];

	(void)state;
	cu->s->ordering = 0;
	assert_int_equal(mkv_gpu_register(&m, dev, region, BOTH, why, sizeof(why)), 0);
	assert_int_equal(region->flush, 1);
	mkv_rdma_mem_drop(&m);
	cu->s->flush_options = 2;
	assert_int_equal(mkv_gpu_register(&m, dev, region, BOTH, why, sizeof(why)), MKV_E_UNSUPPORTED);
	assert_non_null(strstr(why, "neither orders"));
	cu->s->ordering = 200;
	assert_int_equal(mkv_gpu_register(&m, dev, region, BOTH, why, sizeof(why)), 0);
	assert_int_equal(region->flush, 0);
	mkv_rdma_mem_drop(&m);
}

/* ---- an op as it is on a rail ---- */

static struct op *
op_up(enum op_kind kind, void *at, size_t bytes)
{
	struct iovec v = { .iov_base = at, .iov_len = bytes };
	struct op *o;
	int e;

	assert_non_null(o = mkv_op_take(cl, mkv_now_ns() + 20 * MKV_NS_PER_SEC, 1, &e));
	o->kind = kind;
	assert_int_equal(mkv_op_set_key(o, "k", 1), 0);
	assert_int_equal(mkv_op_set_iov(o, &v, 1), 0);
	o->len = bytes;
	o->region = mkv_region_enter(cl, o->iov, o->n_iov);
	mkv_leg_init(&o->one, o, &o->loop->server[0], kind == OPK_PUT ? MKV_WIRE_PUT : MKV_WIRE_GET);
	atomic_store(&o->own, OP_LENT);
	return (o);
}

static void
op_down(struct op *o)
{
	if (o->region != NULL)
		mkv_region_leave(cl, o->region);
	atomic_store(&o->own, OP_DONE);
	mkv_op_put_back(o);
}

/* Only device memory of a region goes by a rail: not beside it, not managed, however small. */
static void
test_what_fits(void **state)
{
	uint8_t *u = cu->alloc(0, MIB, 1), *other = cu->alloc(0, MIB, 0);
	struct mkv_region *managed;
	struct op *o;

	(void)state;
	assert_int_equal(mkv_region_register(cl, u, MIB, &managed), 0);
	o = op_up(OPK_GET, d + 100, 5000);
	assert_int_equal(mkv_rail_mem_fits(o, &o->one, 4 * MIB), 1);
	op_down(o);
	o = op_up(OPK_GET, other, 5000);
	assert_int_equal(mkv_rail_mem_fits(o, &o->one, 4 * MIB), 0);
	op_down(o);
	o = op_up(OPK_PUT, u, 5000);
	assert_int_equal(mkv_rail_mem_fits(o, &o->one, 4 * MIB), 0);
	op_down(o);
	assert_int_equal(mkv_region_free(managed), 0);
	cu->free(u);
	cu->free(other);
}

/* The server makes the CRCs of what it reads from a GPU: nothing here touches the bytes. */
static void
test_put_body(void **state)
{
	uint64_t frame[1024];
	struct mkv_hdr h = { 0 };
	struct mkv_wire_put w;
	struct op *o = op_up(OPK_PUT, d + 4096, 3 * MIB);

	(void)state;
	mkv_frame_encode(&o->one, &h, (uint8_t *)frame, 4 * MIB);
	memcpy(&w, frame, sizeof(w));
	assert_int_equal(w.n_crcs, 0);
	assert_true(w.flags & MKV_WIRE_PUT_NO_CRC);
	assert_int_equal(h.payload_bytes, 3 * MIB);
	op_down(o);
}

/* What a NIC wrote is flushed if need be, and read back: a wrong byte anywhere is found in its chunk. */
static void
test_check(void **state)
{
	static const struct { uint64_t off, rx_off, bytes; } part[] = {
		{ 0, 0, 1 }, { 0, 0, MKV_CRC_CHUNK }, { 0, 0, 3 * MIB + 7 }, { 1000, 0, 2 * MIB }, { 65535, 0, 2 }, { 70000, 300000, 2 * MIB + 1 }, { 0, MIB, MIB },
	};
	uint8_t *v = fix_bytes(BYTES, 77);
	uint32_t crcs[64];
	unsigned flushed;

	(void)state;
	cu->write(d, v, BYTES);
	for (unsigned i = 0; i < sizeof(part) / sizeof(part[0]); i++) {
		struct op *o = op_up(OPK_GET, d, BYTES);
		uint64_t at = part[i].off + part[i].rx_off, bad = at + part[i].bytes - 1;
		uint8_t wrong = (uint8_t)(v[part[i].rx_off + part[i].bytes - 1] ^ 1);
		uint32_t n = 0;

		o->off = part[i].off;
		o->one.rx_off = part[i].rx_off;
		for (uint64_t done = 0, step; done < part[i].bytes; done += step) {
			step = MKV_MIN(part[i].bytes - done, MKV_CRC_CHUNK - (at + done) % MKV_CRC_CHUNK);
			crcs[n++] = mkv_crc32c(0, v + part[i].rx_off + done, step);
		}
		flushed = cu->s->calls[STUB_FLUSH];
		region->flush = i % 2 == 0;
		assert_int_equal(mkv_stage_check(&o->one, part[i].bytes, crcs, n), 0);
		assert_int_equal(o->one.crc_bad, 0);
		assert_int_equal(cu->s->calls[STUB_FLUSH] - flushed, i % 2 == 0);
		cu->write(d + part[i].rx_off + part[i].bytes - 1, &wrong, 1);
		assert_int_equal(mkv_stage_check(&o->one, part[i].bytes, crcs, n), 0);
		assert_int_equal(o->one.crc_bad, 1);
		assert_int_equal(o->one.bad_off, bad / MKV_CRC_CHUNK * MKV_CRC_CHUNK);
		o->one.crc_bad = 0;
		assert_int_equal(mkv_stage_check(&o->one, part[i].bytes, NULL, 0), 0);	/* nobody verifies */
		assert_int_equal(o->one.crc_bad, 0);
		cu->write(d, v, BYTES);
		op_down(o);
	}
	region->flush = 0;
	free(v);
}

/* A flush that fails, or a copy: the get must not be reported as good. */
static void
test_check_fails(void **state)
{
	static const enum stub_call call[] = { STUB_FLUSH, STUB_COPY, STUB_WAIT };
	uint32_t crcs[64] = { 0 };
	char why[1024];

	(void)state;
	for (unsigned i = 0; i < 3; i++) {
		struct op *o = op_up(OPK_GET, d, BYTES);

		region->flush = 1;
		cu->s->fail_at = cu->s->calls[call[i]] + 1;
		cu->s->fail_call = (int)call[i];
		assert_int_equal(mkv_stage_check(&o->one, 2 * MIB, crcs, 32), MKV_E_IO);
		assert_int_equal(mkv_gpu_why(cl, why, sizeof(why)), 0);
		assert_non_null(strstr(why, call[i] == STUB_FLUSH ? "cuFlushGPUDirectRDMAWrites" : "cu"));
		op_down(o);
	}
	region->flush = 0;
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(test_dmabuf, calm),
		cmocka_unit_test_setup(test_odd_range, calm),
		cmocka_unit_test_setup(test_peermem, calm),
		cmocka_unit_test_setup(test_neither, calm),
		cmocka_unit_test_setup(test_managed, calm),
		cmocka_unit_test_setup(test_ordering, calm),
		cmocka_unit_test_setup(test_what_fits, calm),
		cmocka_unit_test_setup(test_put_body, calm),
		cmocka_unit_test_setup(test_check, calm),
		cmocka_unit_test_setup(test_check_fails, calm),
	};

	return (cmocka_run_group_tests(tests, setup, teardown));
}
