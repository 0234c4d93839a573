/*
 * Process: supervisor, loop thread. On which NUMA node a process and its memory are kept: a drive's process on that of its medium, an RDMA front and
 * its staging segment on that of its device. Fronts for TCP are left to the scheduler: nobody knows which card their clients come by.
 * Owns: nothing; proc.node is found at start and before each life, since a drive may have another medium by then.
 * What can fail: to know. Then nothing is done, as on a machine of one node, with server.numa off, and where a node's processors are not ours to use.
 */
#include "config.h"

#include "supervisor/sup_priv.h"

#include <stdio.h>
#include <string.h>

#include "common/base/topo.h"

/* Of the block device, or of that which the file lies on. One that is not there yet will lie where its directory does. */
static void
affinity_medium(const char *media, struct mkv_topo_place *out)
{
	char dir[CONFIG_PATH_MAX], *slash;
	unsigned major, minor;
	int r;

	*out = (struct mkv_topo_place){ -1, -1 };
	snprintf(dir, sizeof(dir), "%s", media);
	r = mkv_os_block_number(dir, &major, &minor);
	if (r != 0 && (slash = strrchr(dir, '/')) != NULL) {
		slash[slash == dir] = '\0';
		r = mkv_os_block_number(dir, &major, &minor);
	}
	if (r == 0)
		mkv_topo_block(MKV_TOPO_SYS, major, minor, out);
}

static void
affinity_where(const struct proc *p, struct mkv_topo_place *out)
{
	*out = (struct mkv_topo_place){ -1, -1 };
	if (proc_is_rail(p))
		mkv_topo_rdma(MKV_TOPO_SYS, rail_device(p), out);
	else if (proc_is_drive(p) && p->sup->params->storage_mode != MKV_STORAGE_MEMORY)
		affinity_medium(p->sup->conf->drive[p->index].media, out);
}

/* The processors of that node that we may use. 0: none. */
static int
affinity_ours(int node, struct mkv_os_cpus *out)
{
	struct mkv_os_cpus may;
	uint64_t any = 0;

	if (mkv_topo_node_cpus(MKV_TOPO_SYS, node, out) != 0 || mkv_os_cpus_get(&may) != 0)
		return (0);
	for (unsigned i = 0; i < MKV_OS_CPUS_MAX / 64; i++)
		any |= out->bit[i] &= may.bit[i];
	return (any != 0);
}

/* -1: there is nothing to choose from, or it may not be chosen. */
static int
affinity_node(const struct mkv_params *p, const struct mkv_topo_place *where)
{
	struct mkv_os_cpus cpus;

	if (p->server_numa == MKV_NUMA_OFF || where->node < 0 || mkv_topo_node_count(MKV_TOPO_SYS) < 2)
		return (-1);
	return (affinity_ours(where->node, &cpus) ? where->node : -1);
}

int
affinity_rail_node(const struct mkv_params *p, uint32_t rail)
{
	struct mkv_topo_place where;

	if (rail >= p->rdma_devices.count)
		return (-1);
	mkv_topo_rdma(MKV_TOPO_SYS, p->rdma_devices.item[rail], &where);
	return (affinity_node(p, &where));
}

void
affinity_place(struct proc *p)
{
	struct mkv_topo_place where;

	affinity_where(p, &where);
	p->node = affinity_node(p->sup->params, &where);
}

int
affinity_cpus(const struct proc *p, struct mkv_os_cpus *out)
{
	return (p->node >= 0 && affinity_ours(p->node, out));
}

char *
affinity_far(const struct proc *p, char *dst, size_t dst_bytes)
{
	struct mkv_topo_place here, there;
	struct mkv_sup *s = p->sup;
	char between[64];
	size_t n = 0;

	dst[0] = '\0';
	if (!proc_is_rail(p))
		return (dst);
	affinity_where(p, &here);
	for (uint32_t i = 0; i < s->drive_count && n < dst_bytes; i++) {
		if (!s->pool[i].wanted)
			continue;
		affinity_where(sup_drive(s, i), &there);
		if (mkv_topo_between(&here, &there, between, sizeof(between))[0] != '\0')
			n += (size_t)snprintf(dst + n, dst_bytes - n, "%s%s (%s)", n > 0 ? ", " : "", sup_drive(s, i)->child.name, between);
	}
	return (dst);
}
