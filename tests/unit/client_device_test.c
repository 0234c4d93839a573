/*
 * Which RDMA device of a host libmemkv takes, and how regions are registered with it: devices are of the fake fabric (tests/lib/fakeverbs.c), NUMA nodes of a
 * made-up sysfs. What a NIC makes of memory that is paged in on demand is not shown here.
 */
#include "config.h"

#include "tests/unit/client_fix.h"

#include <sched.h>

#include "clients/lib/client_priv.h"
#include "clients/lib/rail_priv.h"
#include "common/base/topo.h"
#include "tests/lib/fakeverbs.h"
#include "tests/lib/sysfs.h"

#define SPREADS	64u

static char sys[256];
static unsigned here;				/* the node that this thread stays on */
static struct mkv_client *cl;
static char why[WHY_BYTES];

static int
setup(void **state)
{
	unsigned cpu;
	cpu_set_t one;

	(void)state;
	assert_int_equal(getcpu(&cpu, &here), 0);
	CPU_ZERO(&one);
	CPU_SET(cpu, &one);
	assert_int_equal(sched_setaffinity(0, sizeof(one), &one), 0);
	sysfs_make(sys, sizeof(sys));
	mkv_client_sys = sys;
	fv_start(3);
	mkv_client_verbs = fv_verbs();
	why[0] = '\0';
	return (0);
}

static int
teardown(void **state)
{
	(void)state;
	mkv_client_close(cl);
	cl = NULL;
	mkv_client_sys = MKV_TOPO_SYS;
	sysfs_remove(sys);
	assert_int_equal(fv_alive(), 0);
	return (0);
}

static int
open_with(const char *transport, const char *devices, int on_demand)
{
	struct mkv_client_opts o = { .size = sizeof(o), .servers = "127.0.0.1:1", .transport = transport, .rdma_devices = devices, .rdma_on_demand = on_demand };

	return (mkv_client_open(&cl, &o, why, sizeof(why)));
}

/* ---- which ---- */

/* May be said again: the device moves. */
static void
device_on(unsigned i, int node)
{
	char dir[64], name[96], path[384], line[16];

	(void)snprintf(dir, sizeof(dir), "devices/pci0000:00/0000:0%u:00.0", i);
	(void)snprintf(name, sizeof(name), "%s/numa_node", dir);
	(void)snprintf(line, sizeof(line), "%d", node);
	sysfs_write(sys, name, line);
	(void)snprintf(name, sizeof(name), "class/infiniband/fake%u/device", i);
	(void)snprintf(path, sizeof(path), "%s/%s", sys, name);
	if (access(path, F_OK) != 0)
		sysfs_link(sys, name, dir);
}

/* Distances from here: to here 10, to the next three nodes as said. */
static void
distances(unsigned a, unsigned b, unsigned c)
{
	char name[64], line[64];

	(void)snprintf(line, sizeof(line), "%u-%u", here, here + 3);
	sysfs_write(sys, "devices/system/node/online", line);
	(void)snprintf(name, sizeof(name), "devices/system/node/node%u/distance", here);
	(void)snprintf(line, sizeof(line), "10 %u %u %u", a, b, c);
	sysfs_write(sys, name, line);
}

/* Bit i: device i is taken for some client. */
static unsigned
taken(void)
{
	const struct fv_device *d = fv_device(1);
	struct mkv_wire_rail w = { .rail = 1, .state = 1, .transports = MKV_FEATURE_RDMA_RC };
	unsigned all = 0;
	int i;

	memcpy(w.gid, d->gid[3].gid.raw, sizeof(w.gid));
	for (unsigned k = 0; k < SPREADS; k++) {
		if ((i = mkv_fabric_choose(cl->fabric, &w, k, why)) < 0)
			fail_msg("%d: %s", i, why);
		all |= 1u << i;
	}
	return (all);
}

static void
test_near_and_far(void **state)
{
	(void)state;
	distances(12, 21, 32);
	device_on(0, (int)here + 3);
	device_on(1, (int)here + 1);
	device_on(2, (int)here + 2);
	assert_int_equal(open_with("rdma", NULL, 0), 0);
	assert_int_equal(taken(), 1u << 1);
	mkv_fabric_gone(cl->fabric, 1);
	assert_int_equal(taken(), 1u << 2);
	mkv_fabric_gone(cl->fabric, 2);
	assert_int_equal(taken(), 1u << 0);
}

static void
test_own_node_first(void **state)
{
	(void)state;
	distances(11, 11, 11);
	device_on(0, (int)here + 1);
	device_on(1, (int)here + 2);
	device_on(2, (int)here);
	assert_int_equal(open_with("rdma", NULL, 0), 0);
	assert_int_equal(taken(), 1u << 2);
}

/* Equally near: clients spread over them, and over no other. */
static void
test_equals_share(void **state)
{
	(void)state;
	distances(21, 21, 32);
	device_on(0, (int)here + 1);
	device_on(1, (int)here + 3);
	device_on(2, (int)here + 2);
	assert_int_equal(open_with("rdma", NULL, 0), 0);
	assert_int_equal(taken(), 1u << 0 | 1u << 2);
}

/* Nothing is known of one: it comes after those of this node, before those of another. */
static void
test_unknown_node(void **state)
{
	(void)state;
	distances(20, 20, 20);
	device_on(0, (int)here + 1);
	device_on(1, -1);
	device_on(2, (int)here + 1);
	assert_int_equal(open_with("rdma", NULL, 0), 0);
	assert_int_equal(taken(), 1u << 1);
	mkv_client_close(cl);
	device_on(2, (int)here);
	assert_int_equal(open_with("rdma", NULL, 0), 0);
	assert_int_equal(taken(), 1u << 2);
}

/* No sysfs at all: all are equal. A kernel that tells nodes but no distances: the own one, then the others. */
static void
test_without_distances(void **state)
{
	(void)state;
	assert_int_equal(open_with("rdma", NULL, 0), 0);
	assert_int_equal(taken(), 7);
	mkv_client_close(cl);
	device_on(0, (int)here + 1);
	device_on(1, (int)here);
	device_on(2, (int)here + 2);
	assert_int_equal(open_with("rdma", NULL, 0), 0);
	assert_int_equal(taken(), 1u << 1);
}

static void
test_named_only(void **state)
{
	(void)state;
	distances(20, 20, 20);
	device_on(0, (int)here);
	assert_int_equal(open_with("rdma", "fake2, fake1,fake2", 0), 0);
	assert_int_equal(cl->fabric->n, 2);
	assert_int_equal(taken(), 3);
	assert_string_equal(cl->fabric->d[0].name, "fake2");
}

/* ---- which not ---- */

static void
refused(const char *transport, const char *devices, int status, const char *what, const char *besides)
{
	assert_int_equal(open_with(transport, devices, 0), status);
	assert_null(cl);
	if (strstr(why, what) == NULL || strstr(why, besides) == NULL)
		fail_msg("\"%s\" does not say \"%s\" and \"%s\"", why, what, besides);
}

/* A name that is not there: with `rdma` the handle does not open, also if others would do; the sentence says which there are. */
static void
test_name_of_nothing(void **state)
{
	(void)state;
	refused("rdma", "mlx5_7", MKV_ERR_UNSUPPORTED, "mlx5_7", "fake0, fake1, fake2");
	refused("rdma", "fake0,mlx5_7", MKV_ERR_UNSUPPORTED, "mlx5_7", "MEMKV_RDMA_DEVICES");
	fv_device(0)->is_absent = fv_device(1)->is_absent = fv_device(2)->is_absent = 1;
	refused("rdma", "fake0", MKV_ERR_UNSUPPORTED, "fake0", "there is: none");
	refused("rdma", NULL, MKV_ERR_UNSUPPORTED, "no RDMA device", "this host");
}

/* Any transport that may be RDMA: a list that cannot be meant so. */
static void
test_list_of_nonsense(void **state)
{
	char name[100];

	(void)state;
	memset(name, 'x', sizeof(name) - 1);
	name[sizeof(name) - 1] = '\0';
	refused("auto", name, MKV_ERR_CONFIG, "so long a name", "xxx");
	refused("auto", "a,b,c,d,e,f,g,h,i", MKV_ERR_CONFIG, "\"i\"", "8");
	assert_int_equal(open_with("tcp", name, 0), 0);
}

/* A named one whose port is down is there. */
static void
test_port_down(void **state)
{
	(void)state;
	fv_port(2, 1, 0);
	assert_int_equal(open_with("rdma", "fake0,fake2", 0), 0);
	mkv_client_close(cl);
	cl = NULL;
	refused("rdma", "fake2", MKV_ERR_UNSUPPORTED, "fake2", "down");
}

/* ---- paged in on demand ---- */

static int
region_access(int on_demand, uint32_t caps)
{
	struct mkv_region *r;
	uint32_t lkey, rkey;
	int access;

	for (unsigned i = 0; i < 3; i++)
		fv_device(i)->odp_caps = caps;
	assert_int_equal(open_with("rdma", "fake0", on_demand), 0);
	assert_int_equal(mkv_region_alloc(cl, 1 << 20, &r), 0);
	assert_true(mkv_rdma_mem_keys(r->mem[0], r->base, &lkey, &rkey) >= 1u << 20);
	access = fv_access(rkey);
	assert_int_equal(mkv_region_free(r), 0);
	mkv_client_close(cl);
	cl = NULL;
	return (access);
}

static void
test_on_demand(void **state)
{
	const int both = IBV_ACCESS_REMOTE_READ | IBV_ACCESS_REMOTE_WRITE;
	int a;

	(void)state;
	a = region_access(1, IBV_ODP_SUPPORT_READ | IBV_ODP_SUPPORT_WRITE);
	assert_true((a & IBV_ACCESS_ON_DEMAND) != 0 && (a & both) == both);
	/* Nobody asked, or the device pages in for one direction only: pinned, and no failure. */
	a = region_access(0, IBV_ODP_SUPPORT_READ | IBV_ODP_SUPPORT_WRITE);
	assert_true((a & IBV_ACCESS_ON_DEMAND) == 0 && (a & both) == both);
	for (unsigned i = 0; i < 3; i++) {
		a = region_access(1, ((const uint32_t[]){ 0, IBV_ODP_SUPPORT_READ, IBV_ODP_SUPPORT_WRITE })[i]);
		assert_true((a & IBV_ACCESS_ON_DEMAND) == 0 && (a & both) == both);
	}
}

/* The device said that it can and does not: the region is as one that cannot be registered, its requests go another way. */
static void
test_on_demand_fails(void **state)
{
	struct mkv_region *r;
	int err;

	(void)state;
	fv_device(0)->odp_caps = IBV_ODP_SUPPORT_READ | IBV_ODP_SUPPORT_WRITE;
	assert_int_equal(open_with("rdma", "fake0", 1), 0);
	fv_fail(FV_REG_MR, 1, EOPNOTSUPP);
	assert_int_equal(mkv_region_alloc(cl, 1 << 20, &r), 0);
	assert_null(mkv_fabric_region(cl->fabric, r, 0, &err));
	assert_int_equal(err, MKV_E_UNSUPPORTED);
	assert_int_equal(mkv_region_free(r), 0);
}

/* ---- while pages are pinned, or given back ---- */

static unsigned regs, deregs, kept_waiting;

static void
is_free(pthread_mutex_t *m)
{
	if (pthread_mutex_trylock(m) == 0)
		(void)pthread_mutex_unlock(m);
	else
		kept_waiting++;
}

static struct ibv_mr *
slow_reg(struct ibv_pd *pd, void *p, size_t n, int access)
{
	regs++;
	is_free(&cl->mutex);
	is_free(&cl->fabric->mutex);
	return (fv_verbs()->reg_mr(pd, p, n, access));
}

static int
slow_dereg(struct ibv_mr *mr)
{
	deregs++;
	is_free(&cl->mutex);
	return (fv_verbs()->dereg_mr(mr));
}

/* A large region takes seconds, and calls on other memory have deadlines: what they lock, and what loops lock to make and end queue pairs, is free meanwhile. */
static void
test_regions_keep_nobody_waiting(void **state)
{
	struct mkv_verbs v = *fv_verbs();
	struct mkv_region *r;

	(void)state;
	v.reg_mr = slow_reg;
	v.dereg_mr = slow_dereg;
	mkv_client_verbs = &v;
	assert_int_equal(open_with("rdma", "fake0", 0), 0);
	assert_int_equal(mkv_region_alloc(cl, 1 << 20, &r), 0);
	assert_int_equal(regs, 1);
	mkv_fabric_forget_device(cl->fabric, 0);
	assert_int_equal(deregs, 1);
	mkv_fabric_warm(cl);
	assert_int_equal(regs, 2);
	assert_non_null(mkv_fabric_take(cl->fabric, 0));
	mkv_fabric_gone(cl->fabric, 0);
	assert_int_equal(deregs, 1);
	mkv_fabric_leave(cl->fabric, 0);
	assert_int_equal(deregs, 2);
	assert_int_equal(mkv_region_free(r), 0);
	assert_int_equal(kept_waiting, 0);
	mkv_client_close(cl);
	cl = NULL;
}

int
main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	const struct CMUnitTest tests[] = {
		T(test_near_and_far), T(test_own_node_first), T(test_equals_share), T(test_unknown_node), T(test_without_distances), T(test_named_only),
		T(test_name_of_nothing), T(test_list_of_nonsense), T(test_port_down), T(test_on_demand), T(test_on_demand_fails),
		T(test_regions_keep_nobody_waiting),
	};

	return (cmocka_run_group_tests(tests, NULL, NULL));
}
