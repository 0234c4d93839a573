/*
 * What sysfs says of huge pages, nodes and devices: a made-up tree in a temporary directory, with two nodes, drives on both, and files that lie.
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

static void
nodes_and_their_processors(void **state MKV_UNUSED)
{
	struct mkv_os_cpus c;

	assert_int_equal(mkv_topo_node_count(sys), 1);		/* nobody says */
	sysfs_write(sys, "devices/system/node/has_cpu", "0");
	assert_int_equal(mkv_topo_node_count(sys), 1);
	sysfs_write(sys, "devices/system/node/has_cpu", "0-1,4,6-7");
	assert_int_equal(mkv_topo_node_count(sys), 5);
	for (unsigned i = 0; i < 4; i++) {
		sysfs_write(sys, "devices/system/node/has_cpu", ((const char *[]){ "", "x", "3-1", "0-4294967295" })[i]);
		assert_int_equal(mkv_topo_node_count(sys), 1);
	}
	assert_int_equal(mkv_topo_node_cpus(sys, 0, &c), MKV_E_UNSUPPORTED);
	sysfs_write(sys, "devices/system/node/node0/cpulist", "0-2,64,1023,1024-1030");
	assert_int_equal(mkv_topo_node_cpus(sys, 0, &c), 0);
	assert_true(c.bit[0] == 7 && c.bit[1] == 1 && c.bit[15] == 1ull << 63);
	sysfs_write(sys, "devices/system/node/node0/cpulist", "");
	assert_int_equal(mkv_topo_node_cpus(sys, 0, &c), MKV_E_UNSUPPORTED);
	assert_int_equal(mkv_topo_node_cpus(sys, -1, &c), MKV_E_UNSUPPORTED);
}

static void
nodes_and_their_distances(void **state MKV_UNUSED)
{
	static const char *const nonsense[] = { "", "10", "10 far", "10 -21 31" };

	assert_int_equal(mkv_topo_node_distance(sys, 0, 0), -1);	/* nobody says */
	sysfs_write(sys, "devices/system/node/online", "0,2-3");
	sysfs_write(sys, "devices/system/node/node0/distance", "10 21 31");
	assert_int_equal(mkv_topo_node_distance(sys, 0, 0), 10);
	assert_int_equal(mkv_topo_node_distance(sys, 0, 2), 21);	/* the second that is online */
	assert_int_equal(mkv_topo_node_distance(sys, 0, 3), 31);
	assert_int_equal(mkv_topo_node_distance(sys, 0, 1), -1);
	assert_int_equal(mkv_topo_node_distance(sys, 0, 4), -1);
	assert_int_equal(mkv_topo_node_distance(sys, 2, 0), -1);
	assert_int_equal(mkv_topo_node_distance(sys, -1, 0), -1);
	assert_int_equal(mkv_topo_node_distance(sys, 0, -1), -1);
	for (unsigned i = 0; i < MKV_ARRAY_LEN(nonsense); i++) {
		sysfs_write(sys, "devices/system/node/node0/distance", nonsense[i]);
		assert_int_equal(mkv_topo_node_distance(sys, 0, 2), -1);
	}
}

static void
at(const char *number, int node, int domain)
{
	struct mkv_topo_place p;
	unsigned major, minor;

	assert_int_equal(sscanf(number, "%u:%u", &major, &minor), 2);
	mkv_topo_block(sys, major, minor, &p);
	if (p.node != node || p.domain != domain)
		fail_msg("%s: node %d domain %x, expected %d %x", number, p.node, (unsigned)p.domain, node, (unsigned)domain);
}

#define NVME0	"devices/pci0000:00/0000:00:04.0/nvme/nvme0/nvme0n1"
#define NVME1	"devices/pci0001:80/0001:80:01.0/0001:81:00.0/nvme/nvme1/nvme1n1"

static void
two_drives(void)
{
	sysfs_block(sys, "259:0", NVME0);
	sysfs_write(sys, "devices/pci0000:00/0000:00:04.0/numa_node", "0");
	sysfs_block(sys, "259:1", NVME1);
	sysfs_write(sys, "devices/pci0001:80/0001:80:01.0/numa_node", "-1");
	sysfs_write(sys, "devices/pci0001:80/0001:80:01.0/0001:81:00.0/numa_node", "1");
}

static void
drives_and_their_parts(void **state MKV_UNUSED)
{
	at("259:0", -1, -1);			/* no such device */
	two_drives();
	at("259:0", 0, 0);
	at("259:1", 1, 1);
	sysfs_block(sys, "259:2", NVME1 "/nvme1n1p1");
	at("259:2", 1, 1);
	sysfs_write(sys, "devices/pci0000:00/0000:00:04.0/numa_node", "-1");	/* a machine with one node says so */
	at("259:0", -1, 0);
	sysfs_write(sys, "devices/pci0000:00/0000:00:04.0/numa_node", "99999");
	at("259:0", -1, 0);
	sysfs_block(sys, "7:0", "devices/virtual/block/loop0");
	at("7:0", -1, -1);
}

/* A mapped device is where what it stands on is, if that is one place; also on top of another one. */
static void
devices_on_devices(void **state MKV_UNUSED)
{
	two_drives();
	sysfs_block(sys, "253:0", "devices/virtual/block/dm-0");
	sysfs_link(sys, "devices/virtual/block/dm-0/slaves/nvme0n1", NVME0);
	at("253:0", 0, 0);
	sysfs_block(sys, "253:1", "devices/virtual/block/dm-1");
	sysfs_link(sys, "devices/virtual/block/dm-1/slaves/dm-0", "devices/virtual/block/dm-0");
	at("253:1", 0, 0);
	sysfs_link(sys, "devices/virtual/block/dm-1/slaves/nvme1n1", NVME1);
	at("253:1", -1, -1);
	sysfs_block(sys, "253:2", "devices/virtual/block/dm-2");
	sysfs_link(sys, "devices/virtual/block/dm-2/slaves/dm-2", "devices/virtual/block/dm-2");	/* stands on itself */
	at("253:2", -1, -1);
}

/* A namespace that may have several controllers lies in their subsystem, the controllers beside it. */
static void
namespaces_of_several_controllers(void **state MKV_UNUSED)
{
	two_drives();
	sysfs_block(sys, "259:5", "devices/virtual/nvme-subsystem/nvme-subsys1/nvme1n1");
	sysfs_block(sys, "259:6", "devices/virtual/nvme-subsystem/nvme-subsys1/nvme1n1/nvme1n1p1");
	at("259:5", -1, -1);
	sysfs_link(sys, "devices/virtual/nvme-subsystem/nvme-subsys1/nvme1", "devices/pci0001:80/0001:80:01.0/0001:81:00.0/nvme/nvme1");
	at("259:5", 1, 1);
	at("259:6", 1, 1);
	sysfs_link(sys, "devices/virtual/nvme-subsystem/nvme-subsys1/nvme0", "devices/pci0000:00/0000:00:04.0/nvme/nvme0");
	at("259:5", -1, -1);
}

static void
rdma_devices(void **state MKV_UNUSED)
{
	struct mkv_topo_place p;

	sysfs_write(sys, "devices/pci0000:00/0000:00:05.0/numa_node", "1");
	sysfs_link(sys, "class/infiniband/mlx5_0/device", "devices/pci0000:00/0000:00:05.0");
	mkv_topo_rdma(sys, "mlx5_0", &p);
	assert_true(p.node == 1 && p.domain == 0);
	mkv_topo_rdma(sys, "mlx5_1", &p);
	assert_true(p.node == -1 && p.domain == -1);
	for (unsigned i = 0; i < 3; i++) {
		mkv_topo_rdma(sys, ((const char *[]){ "", "..", "../infiniband/mlx5_0" })[i], &p);
		assert_int_equal(p.node, -1);
	}
}

static void
between(struct mkv_topo_place a, struct mkv_topo_place b, const char *words)
{
	char text[64];

	assert_string_equal(mkv_topo_between(&a, &b, text, sizeof(text)), words);
}

static void
what_lies_between(void **state MKV_UNUSED)
{
	between((struct mkv_topo_place){ 0, 0 }, (struct mkv_topo_place){ 0, 0 }, "");
	between((struct mkv_topo_place){ 0, 0 }, (struct mkv_topo_place){ 1, 1 }, "NUMA nodes 0 and 1");
	between((struct mkv_topo_place){ 1, 0 }, (struct mkv_topo_place){ 1, 0x10000 }, "PCIe domains 0000 and 10000");
	between((struct mkv_topo_place){ -1, 0 }, (struct mkv_topo_place){ 1, 0 }, "");
	between((struct mkv_topo_place){ 0, -1 }, (struct mkv_topo_place){ 0, 1 }, "");
	between((struct mkv_topo_place){ -1, 2 }, (struct mkv_topo_place){ 1, 1 }, "PCIe domains 0002 and 0001");
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(pages_of_a_size, fresh, gone),
		cmocka_unit_test_setup_teardown(advice_for_shared_memory, fresh, gone),
		cmocka_unit_test_setup_teardown(nodes_and_their_processors, fresh, gone),
		cmocka_unit_test_setup_teardown(nodes_and_their_distances, fresh, gone),
		cmocka_unit_test_setup_teardown(drives_and_their_parts, fresh, gone),
		cmocka_unit_test_setup_teardown(devices_on_devices, fresh, gone),
		cmocka_unit_test_setup_teardown(namespaces_of_several_controllers, fresh, gone),
		cmocka_unit_test_setup_teardown(rdma_devices, fresh, gone),
		cmocka_unit_test(what_lies_between),
	};

	return (cmocka_run_group_tests(tests, NULL, NULL));
}
