/*
 * What sysfs says of huge pages: a made-up tree in a temporary directory, and files that lie.
 */
#include "config.h"
#include "common/base/topo.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "common/base/assert.h"
#include "common/base/err.h"
#include "tests/lib/sysfs.h"

#define MIB2	(2ull << 20)
#define GIB1	(1ull << 30)

static char sys[256];

static int
fresh(void **state MKV_UNUSED)
{
	sysfs_make(sys, sizeof(sys));
	return (0);
}

static int
gone(void **state MKV_UNUSED)
{
	sysfs_remove(sys);
	return (0);
}

static void
pages_of_a_size(void **state MKV_UNUSED)
{
	struct mkv_topo_pages p;
	char file[512], want[512];

	assert_int_equal(mkv_topo_pages(sys, -1, MIB2, &p), MKV_E_UNSUPPORTED);
	assert_int_equal(p.free, 0);
	sysfs_pages(sys, -1, MIB2, 100, 40);
	assert_int_equal(mkv_topo_pages(sys, -1, MIB2, &p), 0);
	assert_true(p.reserved == 100 && p.free == 40 && p.more == 0);
	/* Promised ones are somebody's; what was made besides is not set aside, and uses up what may be made. */
	sysfs_write(sys, "kernel/mm/hugepages/hugepages-2048kB/resv_hugepages", "30");
	sysfs_write(sys, "kernel/mm/hugepages/hugepages-2048kB/nr_overcommit_hugepages", "7");
	sysfs_write(sys, "kernel/mm/hugepages/hugepages-2048kB/surplus_hugepages", "2");
	assert_int_equal(mkv_topo_pages(sys, -1, MIB2, &p), 0);
	assert_true(p.reserved == 98 && p.free == 10 && p.more == 5);
	sysfs_write(sys, "kernel/mm/hugepages/hugepages-2048kB/resv_hugepages", "41");
	assert_int_equal(mkv_topo_pages(sys, -1, MIB2, &p), 0);
	assert_int_equal(p.free, 0);
	assert_int_equal(mkv_topo_pages(sys, -1, GIB1, &p), MKV_E_UNSUPPORTED);
	sysfs_pages(sys, 1, GIB1, 3, 2);
	assert_int_equal(mkv_topo_pages(sys, 1, GIB1, &p), 0);
	assert_true(p.reserved == 3 && p.free == 2);
	assert_int_equal(mkv_topo_pages(sys, 0, GIB1, &p), MKV_E_UNSUPPORTED);
	assert_string_equal(mkv_topo_pages_file("/sys", -1, GIB1, file, sizeof(file)), "/sys/kernel/mm/hugepages/hugepages-1048576kB/nr_hugepages");
	snprintf(want, sizeof(want), "%s/devices/system/node/node1/hugepages/hugepages-2048kB/nr_hugepages", sys);
	assert_string_equal(mkv_topo_pages_file(sys, 1, MIB2, file, sizeof(file)), want);
	sysfs_write(sys, "kernel/mm/hugepages/hugepages-2048kB/nr_hugepages", "many");
	assert_int_equal(mkv_topo_pages(sys, -1, MIB2, &p), MKV_E_UNSUPPORTED);
}

static void
advice_for_shared_memory(void **state MKV_UNUSED)
{
	static const char file[] = "kernel/mm/transparent_hugepage/shmem_enabled";

	assert_false(mkv_topo_shmem_huge(sys));
	sysfs_write(sys, file, "always within_size [advise] never deny force");
	assert_true(mkv_topo_shmem_huge(sys));
	sysfs_write(sys, file, "always within_size advise [never] deny force");
	assert_false(mkv_topo_shmem_huge(sys));
	sysfs_write(sys, file, "");
	assert_false(mkv_topo_shmem_huge(sys));
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(pages_of_a_size, fresh, gone),
		cmocka_unit_test_setup_teardown(advice_for_shared_memory, fresh, gone),
	};

	return (cmocka_run_group_tests(tests, NULL, NULL));
}
