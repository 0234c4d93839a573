/*
 * Registered memory: chunks and their keys, what the far end may do, the sentences where it cannot be registered; nothing is left when it fails half-way.
 */
#include "config.h"
#include "common/rdma/mem.h"

#include <sys/mman.h>
#include <sys/resource.h>

#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

#include "common/base/assert.h"
#include "tests/lib/fail.h"
#include "tests/unit/rdma_up.h"

static struct mkv_rdma_dev *
open_device(uint64_t max_mr_size)
{
	struct mkv_rdma_conf c = { .device = "fake0", .gid_index = -1, .traffic_class = -1, .service_level = -1 };
	struct mkv_rdma_dev *d;
	char why[256];

	fv_start(1);
	if (max_mr_size != 0)
		fv_device(0)->attr.max_mr_size = max_mr_size;
	assert_int_equal(mkv_rdma_dev_open(&d, fv_verbs(), &c, why, sizeof(why)), 0);
	return (d);
}

static void
close_device(struct mkv_rdma_dev *d)
{
	mkv_rdma_dev_close(&d);
	assert_int_equal(fv_alive(), 0);
}

/* Keys of each byte that matters: chunks are as large as a power of two allows, and end where the range does. */
static void
chunks(uint64_t max_mr_size, uint64_t bytes, uint64_t chunk)
{
	struct mkv_rdma_dev *d = open_device(max_mr_size);
	uint8_t *base = (uint8_t *)(uintptr_t)0x7000000000;	/* nobody looks at it */
	unsigned n = (unsigned)MKV_DIV_UP(bytes, chunk), before = fv_calls(FV_REG_MR);
	uint32_t l, r, l0 = 0;
	struct mkv_rdma_mem *m;
	char why[256];

	assert_int_equal(mkv_rdma_mem_add(&m, d, base, bytes, MKV_RDMA_READABLE, why, sizeof(why)), 0);
	assert_int_equal(fv_calls(FV_REG_MR) - before, n);
	for (uint64_t at = 0; at < bytes; at += chunk) {
		uint64_t len = MKV_MIN(chunk, bytes - at);

		assert_int_equal(mkv_rdma_mem_keys(m, base + at, &l, &r), len);
		assert_int_not_equal(l, l0);
		l0 = l;
		assert_int_equal(mkv_rdma_mem_keys(m, base + at + len - 1, &l, &r), 1);
		assert_int_equal(l, l0);
		assert_int_equal(mkv_rdma_mem_keys(m, base + at + len / 2, &l, &r), len - len / 2);
	}
	assert_int_equal(mkv_rdma_mem_keys(m, base - 1, &l, &r), 0);
	assert_int_equal(mkv_rdma_mem_keys(m, base + bytes, &l, &r), 0);
	mkv_rdma_mem_drop(&m);
	assert_null(m);
	mkv_rdma_mem_drop(&m);
	close_device(d);
}

static void
ranges_are_cut(void **state)
{
	const uint64_t gib = 1ull << 30;

	(void)state;
	chunks(0, 1, gib);
	chunks(0, gib, gib);
	chunks(0, gib + 1, gib);
	chunks(0, 700 * gib + 12345, gib);
	chunks(4 * gib, 5 * gib, gib);
	chunks(gib - 1, gib, gib / 2);
	chunks(65536, 65536 * 3 + 1, 65536);
	chunks(4096, 100000, 4096);
}

static void
what_cannot_be_registered(void **state)
{
	struct mkv_rdma_dev *d = open_device(0);
	uint8_t *base = (uint8_t *)(uintptr_t)0x7000000000;
	struct rlimit lim, was;
	struct mkv_rdma_mem *m;
	unsigned alive = fv_alive();
	char why[512], want[128];
	static const struct {
		int	no, err;
		const char *word;
	} row[] = { { ENOMEM, MKV_E_NOMEM, "RLIMIT_MEMLOCK" }, { EAGAIN, MKV_E_NOMEM, "RLIMIT_MEMLOCK" }, { EFAULT, MKV_E_INVAL, "a mapping of a file on a disk" },
		{ EOPNOTSUPP, MKV_E_UNSUPPORTED, "cannot register" }, { EIO, MKV_E_SYSTEM, "Input/output error" } };

	(void)state;
	for (unsigned i = 0; i < MKV_ARRAY_LEN(row); i++)
		for (unsigned n = 1; n <= 3; n++) {		/* the first, the second, the last chunk */
			fv_fail(FV_REG_MR, n, row[i].no);
			assert_int_equal(mkv_rdma_mem_add(&m, d, base, 3ull << 30, 0, why, sizeof(why)), row[i].err);
			assert_null(m);
			assert_non_null(strstr(why, row[i].word));
			assert_non_null(strstr(why, "fake0"));
			assert_int_equal(fv_alive(), alive);
		}
	/* The limit's number is said. */
	assert_int_equal(getrlimit(RLIMIT_MEMLOCK, &was), 0);
	lim = was;
	lim.rlim_cur = 1234567 < was.rlim_max ? 1234567 : was.rlim_max;
	assert_int_equal(setrlimit(RLIMIT_MEMLOCK, &lim), 0);
	fv_fail(FV_REG_MR, 1, ENOMEM);
	assert_int_equal(mkv_rdma_mem_add(&m, d, base, 1ull << 31, 0, why, sizeof(why)), MKV_E_NOMEM);
	snprintf(want, sizeof(want), "2147483648 bytes cannot be locked for RDMA device fake0: this process may lock %llu bytes", (unsigned long long)lim.rlim_cur);
	assert_non_null(strstr(why, want));
	assert_int_equal(setrlimit(RLIMIT_MEMLOCK, &was), 0);
	assert_int_equal(mkv_rdma_mem_add(&m, d, base, 0, 0, why, sizeof(why)), MKV_E_INVAL);
	assert_int_equal(mkv_rdma_mem_add(&m, d, base, UINT64_MAX - 4096, 0, why, sizeof(why)), MKV_E_INVAL);
	assert_int_equal(mkv_rdma_mem_add(&m, d, base, 4096, MKV_RDMA_ON_DEMAND, why, sizeof(why)), MKV_E_UNSUPPORTED);
	assert_non_null(strstr(why, "on demand"));
	fail_alloc(1);
	assert_int_equal(mkv_rdma_mem_add(&m, d, base, 4096, 0, why, sizeof(why)), MKV_E_NOMEM);
	assert_int_equal(fail_alloc(0), 1);
	close_device(d);
	d = open_device(4095);
	assert_int_equal(mkv_rdma_mem_add(&m, d, base, 4096, 0, why, sizeof(why)), MKV_E_UNSUPPORTED);
	close_device(d);
}

/* What the flags of a registration are, by what the device was asked. */
static void
flags_are_as_asked(void **state)
{
	static const struct {
		unsigned access;
		int	want;
	} row[] = { { MKV_RDMA_LOCAL, IBV_ACCESS_RELAXED_ORDERING }, { MKV_RDMA_READABLE, IBV_ACCESS_REMOTE_READ | IBV_ACCESS_RELAXED_ORDERING },
		{ MKV_RDMA_WRITABLE, IBV_ACCESS_REMOTE_WRITE | IBV_ACCESS_RELAXED_ORDERING },
		{ MKV_RDMA_READABLE | MKV_RDMA_WRITABLE, IBV_ACCESS_REMOTE_READ | IBV_ACCESS_REMOTE_WRITE | IBV_ACCESS_RELAXED_ORDERING },
		{ MKV_RDMA_WRITABLE | MKV_RDMA_ON_DEMAND, IBV_ACCESS_REMOTE_WRITE | IBV_ACCESS_ON_DEMAND } };
	struct mkv_rdma_dev *d;
	struct mkv_rdma_mem *m;
	uint8_t area[4096];
	uint32_t l, r;
	char why[256];

	(void)state;
	fv_start(1);
	fv_device(0)->odp_caps = IBV_ODP_SUPPORT_READ | IBV_ODP_SUPPORT_WRITE;
	assert_int_equal(mkv_rdma_dev_open(&d, fv_verbs(), &(struct mkv_rdma_conf){ .device = "fake0", .gid_index = -1 }, why, sizeof(why)), 0);
	assert_int_equal(d->odp, 1);
	for (unsigned i = 0; i < MKV_ARRAY_LEN(row); i++) {
		assert_int_equal(mkv_rdma_mem_add(&m, d, area, sizeof(area), row[i].access, why, sizeof(why)), 0);
		assert_int_equal(mkv_rdma_mem_keys(m, area, &l, &r), sizeof(area));
		assert_int_equal(fv_access(r), row[i].want | IBV_ACCESS_LOCAL_WRITE);
		mkv_rdma_mem_drop(&m);
		assert_int_equal(fv_access(r), -1);
	}
	/* Refused with relaxed ordering: asked again without. */
	fv_fail(FV_REG_MR, 1, EINVAL);
	assert_int_equal(mkv_rdma_mem_add(&m, d, area, sizeof(area), MKV_RDMA_READABLE, why, sizeof(why)), 0);
	assert_int_equal(mkv_rdma_mem_keys(m, area, &l, &r), sizeof(area));
	assert_int_equal(fv_access(r), IBV_ACCESS_REMOTE_READ | IBV_ACCESS_LOCAL_WRITE);
	mkv_rdma_mem_drop(&m);
	close_device(d);
}

static void
dmabufs_are_cut_too(void **state)
{
	struct mkv_rdma_dev *d = open_device(65536);
	int fd = memfd_create("dmabuf", MFD_CLOEXEC);
	uint8_t *base = (uint8_t *)(uintptr_t)0x7000001000;
	struct mkv_rdma_mem *m;
	uint32_t l, r;
	char why[256];

	(void)state;
	assert_true(fd >= 0);
	assert_int_equal(mkv_rdma_mem_add_dmabuf(&m, d, fd, 8192, base, 200000, MKV_RDMA_WRITABLE, why, sizeof(why)), 0);
	assert_int_equal(fv_calls(FV_REG_DMABUF_MR), 4);
	assert_int_equal(mkv_rdma_mem_keys(m, base + 65535, &l, &r), 1);
	assert_int_equal(mkv_rdma_mem_keys(m, base + 65536 * 3, &l, &r), 200000 - 65536 * 3);
	mkv_rdma_mem_drop(&m);
	fv_fail(FV_REG_DMABUF_MR, 2, EOPNOTSUPP);
	assert_int_equal(mkv_rdma_mem_add_dmabuf(&m, d, fd, 0, base, 200000, MKV_RDMA_WRITABLE, why, sizeof(why)), MKV_E_UNSUPPORTED);
	assert_non_null(strstr(why, "dma-buf"));
	close(fd);
	close_device(d);
}

/* Withdrawn in the middle: the rest does not arrive, and both ends break. */
static void
dropping_is_a_fence(void **state)
{
	struct up a, b;

	(void)state;
	up_both(&a, &b);
	up_pair(&a, &b);
	fv_hold(1);
	memset(a.area, 1, UP_AREA);
	for (unsigned i = 0; i < 4; i++)
		up_write(&a, &b, i * 4096, 4096, MKV_RDMA_SIGNAL);
	mkv_rdma_hub_flush(a.hub);
	fv_step(2);
	mkv_rdma_mem_drop(&b.mem);
	fv_hold(0);
	up_turn(&a, &b);
	up_rest(&a);
	assert_int_equal(a.good, 2);
	assert_int_equal(a.closed, 2);
	assert_int_equal(b.area[8191], 1);
	assert_int_equal(b.area[8192], 0);
	assert_non_null(strstr(a.why, "withdrawn"));
	assert_int_equal(fv_qp_state(mkv_rdma_qp_number(b.qp)), IBV_QPS_ERR);
	up_end(&a, &b);
	up_none(&a, &b);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(ranges_are_cut),
		cmocka_unit_test(what_cannot_be_registered),
		cmocka_unit_test(flags_are_as_asked),
		cmocka_unit_test(dmabufs_are_cut_too),
		cmocka_unit_test(dropping_is_a_fence),
	};

	return (cmocka_run_group_tests(tests, NULL, NULL));
}
