/*
 * On which NUMA node a process is kept: a made-up machine with two nodes, drives and a NIC on them, media that lie on those drives, and processors that
 * are not ours. The calls that the system would get are seen instead.
 */
#include "config.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "common/base/topo.h"

static char sys[256];

int	fake_cpus_get(struct mkv_os_cpus *out);
int	fake_block_number(const char *path, unsigned *major_no, unsigned *minor_no);

#undef MKV_TOPO_SYS
#define MKV_TOPO_SYS		sys
#define mkv_os_cpus_get		fake_cpus_get
#define mkv_os_block_number	fake_block_number
#include "supervisor/affinity.c"

#include "common/base/err.h"
#include "tests/lib/sysfs.h"

static struct mkv_sup sup;
static struct config conf;
static uint64_t allowed;			/* of the first 64 processors */

int
fake_cpus_get(struct mkv_os_cpus *out)
{
	*out = (struct mkv_os_cpus){ { allowed } };
	return (allowed != 0 ? 0 : MKV_E_SYSTEM);
}

/* "/dev/nvme0n1" is a device; "/data1/x" and "/data1" lie on the second. */
int
fake_block_number(const char *path, unsigned *major_no, unsigned *minor_no)
{
	*major_no = 259;
	*minor_no = strcmp(path, "/dev/nvme0n1") == 0 ? 0 : strcmp(path, "/data1") == 0 || strcmp(path, "/data1/there") == 0 ? 1 : 9;
	return (*minor_no < 9 ? 0 : MKV_E_INVAL);
}

static struct proc *
front(unsigned i)
{
	return (&sup.proc[i]);
}

static struct proc *
drive(unsigned i)
{
	return (&sup.proc[sup.front_count + i]);
}

static int
fresh(void **state MKV_UNUSED)
{
	static const char *const media[] = { "/dev/nvme0n1", "/data1/not-yet", "arena" };

	sysfs_make(sys, sizeof(sys));
	sysfs_write(sys, "devices/system/node/has_cpu", "0-1");
	sysfs_write(sys, "devices/system/node/node0/cpulist", "0-3");
	sysfs_write(sys, "devices/system/node/node1/cpulist", "4-7");
	sysfs_block(sys, "259:0", "devices/pci0000:00/0000:00:04.0/nvme/nvme0/nvme0n1");
	sysfs_write(sys, "devices/pci0000:00/0000:00:04.0/numa_node", "0");
	sysfs_block(sys, "259:1", "devices/pci0000:80/0000:80:04.0/nvme/nvme1/nvme1n1");
	sysfs_write(sys, "devices/pci0000:80/0000:80:04.0/numa_node", "1");
	sysfs_link(sys, "class/infiniband/mlx5_0/device", "devices/pci0000:80/0000:80:05.0");
	sysfs_write(sys, "devices/pci0000:80/0000:80:05.0/numa_node", "1");
	allowed = 0xff;
	memset(&sup, 0, sizeof(sup));
	memset(&conf, 0, sizeof(conf));
	sup.config = &conf;
	sup.params = &conf.params;
	sup.conf = &conf.derived;
	sup.front_count = 2;
	sup.shard_count = 1;
	sup.drive_count = 3;
	conf.params.storage_mode = MKV_STORAGE_FILE;
	conf.params.rdma_devices.count = 1;
	strcpy(conf.params.rdma_devices.item[0], "mlx5_0");
	for (unsigned i = 0; i < 5; i++) {
		sup.proc[i].sup = &sup;
		sup.proc[i].kind = i == 0 ? SUP_FRONT_TCP : i == 1 ? SUP_FRONT_RDMA : SUP_DRIVE;
		sup.proc[i].index = i < 2 ? i : i - 2;
		sup.proc[i].node = -2;
		sup.proc[i].child.owner = &sup.proc[i];
		if (i >= 2) {
			snprintf(sup.proc[i].child.name, sizeof(sup.proc[i].child.name), "drive:%u", i - 2);
			strcpy(conf.derived.drive[i - 2].media, media[i - 2]);
			sup.pool[i - 2].wanted = 1;
		}
	}
	front(1)->rail.number = 1;
	return (0);
}

static int
gone(void **state MKV_UNUSED)
{
	sysfs_remove(sys);
	return (0);
}

static void
placed(struct proc *p, int node, uint64_t cpus)
{
	struct mkv_os_cpus c = { { 0 } };

	affinity_place(p);
	assert_int_equal(p->node, node);
	assert_int_equal(affinity_cpus(p, &c), cpus != 0);
	if (cpus != 0)
		assert_true(c.bit[0] == cpus && c.bit[1] == 0);
}

static void
each_on_the_node_of_its_device(void **state MKV_UNUSED)
{
	placed(drive(0), 0, 0x0f);
	placed(drive(1), 1, 0xf0);		/* its file is not there yet, its directory is */
	placed(drive(2), -1, 0);
	placed(front(0), -1, 0);
	placed(front(1), 1, 0xf0);
	assert_int_equal(affinity_rail_node(&conf.params, 0), 1);
	assert_int_equal(affinity_rail_node(&conf.params, 1), -1);
	strcpy(conf.derived.drive[0].media, "/data1/there");		/* another medium, found before the next life */
	placed(drive(0), 1, 0xf0);
}

static void
nothing_happens_on_one_node(void **state MKV_UNUSED)
{
	sysfs_write(sys, "devices/system/node/has_cpu", "0");
	for (unsigned i = 0; i < 5; i++)
		placed(&sup.proc[i], -1, 0);
	assert_int_equal(affinity_rail_node(&conf.params, 0), -1);
}

static void
nothing_happens_when_off(void **state MKV_UNUSED)
{
	conf.params.server_numa = MKV_NUMA_OFF;
	for (unsigned i = 0; i < 5; i++)
		placed(&sup.proc[i], -1, 0);
	assert_int_equal(affinity_rail_node(&conf.params, 0), -1);
}

static void
arenas_are_nowhere(void **state MKV_UNUSED)
{
	conf.params.storage_mode = MKV_STORAGE_MEMORY;
	placed(drive(0), -1, 0);
	placed(front(1), 1, 0xf0);
}

/* A cpuset, or taskset at the start: what we may not use we do not hand on. */
static void
processors_that_are_not_ours(void **state MKV_UNUSED)
{
	allowed = 0x3c;
	placed(drive(0), 0, 0x0c);
	placed(drive(1), 1, 0x30);
	allowed = 0x0f;
	placed(drive(0), 0, 0x0f);
	placed(drive(1), -1, 0);
	placed(front(1), -1, 0);
	allowed = 0;				/* nobody says */
	placed(drive(0), -1, 0);
}

static void
drives_that_are_far(void **state MKV_UNUSED)
{
	char far[128];

	assert_string_equal(affinity_far(front(1), far, sizeof(far)), "drive:0 (NUMA nodes 1 and 0)");
	assert_string_equal(affinity_far(front(0), far, sizeof(far)), "");
	assert_string_equal(affinity_far(drive(0), far, sizeof(far)), "");
	sysfs_write(sys, "devices/pci0000:00/0000:00:04.0/numa_node", "-1");
	assert_string_equal(affinity_far(front(1), far, sizeof(far)), "");
	sysfs_write(sys, "devices/pci0000:00/0000:00:04.0/numa_node", "0");
	conf.params.server_numa = MKV_NUMA_OFF;			/* it is so, whatever is done about it */
	assert_string_equal(affinity_far(front(1), far, sizeof(far)), "drive:0 (NUMA nodes 1 and 0)");
	strcpy(conf.derived.drive[1].media, "/dev/nvme0n1");
	assert_string_equal(affinity_far(front(1), far, sizeof(far)), "drive:0 (NUMA nodes 1 and 0), drive:1 (NUMA nodes 1 and 0)");
	affinity_far(front(1), far, 20);			/* no room: cut, not more */
	assert_true(strlen(far) == 19);
	sup.pool[0].wanted = 0;					/* removed */
	assert_string_equal(affinity_far(front(1), far, sizeof(far)), "drive:1 (NUMA nodes 1 and 0)");
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(each_on_the_node_of_its_device, fresh, gone),
		cmocka_unit_test_setup_teardown(nothing_happens_on_one_node, fresh, gone),
		cmocka_unit_test_setup_teardown(nothing_happens_when_off, fresh, gone),
		cmocka_unit_test_setup_teardown(arenas_are_nowhere, fresh, gone),
		cmocka_unit_test_setup_teardown(processors_that_are_not_ours, fresh, gone),
		cmocka_unit_test_setup_teardown(drives_that_are_far, fresh, gone),
	};

	return (cmocka_run_group_tests(tests, NULL, NULL));
}
