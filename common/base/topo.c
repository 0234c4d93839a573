/*
 * What sysfs says of huge pages, NUMA nodes and the place of devices.
 *
 * Process and thread: any; no state, nothing is kept between two calls.
 * Owns: nothing. Reads small files, at start and when a process is started; never on the way of a request.
 * Fails: a file that is missing, or that says what it should not, means "not known". Numbers and names in sysfs are checked like any foreign text.
 */
#include "config.h"
#include "common/base/topo.h"

#include <dirent.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/assert.h"
#include "common/base/err.h"

#define TOPO_DEPTH_MAX	4u		/* devices that stand on devices */
#define TOPO_TEXT	4096u		/* a sysfs file is a page */
#define TOPO_NODES_MAX	1024u

/* ---- files ---- */

/* The first line of dir/name. 0 or -1. */
static int
topo_read(const char *dir, const char *name, char *dst, size_t dst_bytes)
{
	char path[PATH_MAX];
	FILE *f;
	int r = -1;

	if (snprintf(path, sizeof(path), "%s/%s", dir, name) >= (int)sizeof(path) || (f = fopen(path, "re")) == NULL)
		return (-1);
	if (fgets(dst, (int)dst_bytes, f) != NULL) {
		dst[strcspn(dst, "\n")] = '\0';
		r = 0;
	}
	fclose(f);
	return (r);
}

/* missing: what it counts as if it is not there. */
static uint64_t
topo_number(const char *dir, const char *name, uint64_t missing)
{
	unsigned long long v;
	char text[64];

	return (topo_read(dir, name, text, sizeof(text)) == 0 && sscanf(text, "%llu", &v) == 1 ? v : missing);
}

/* ---- huge pages ---- */

static int
topo_pages_dir(const char *sys, int node, uint64_t page_bytes, char *dst, size_t dst_bytes)
{
	unsigned long long kib = page_bytes >> 10;

	if (node < 0)
		return (snprintf(dst, dst_bytes, "%s/kernel/mm/hugepages/hugepages-%llukB", sys, kib));
	return (snprintf(dst, dst_bytes, "%s/devices/system/node/node%d/hugepages/hugepages-%llukB", sys, node, kib));
}

char *
mkv_topo_pages_file(const char *sys, int node, uint64_t page_bytes, char *dst, size_t dst_bytes)
{
	int n = topo_pages_dir(sys, node, page_bytes, dst, dst_bytes);

	if (n >= 0 && (size_t)n < dst_bytes)
		snprintf(dst + n, dst_bytes - (size_t)n, "/nr_hugepages");
	return (dst);
}

int
mkv_topo_pages(const char *sys, int node, uint64_t page_bytes, struct mkv_topo_pages *out)
{
	uint64_t total, surplus, promised, over;
	char dir[PATH_MAX];

	*out = (struct mkv_topo_pages){ 0 };
	if (topo_pages_dir(sys, node, page_bytes, dir, sizeof(dir)) >= (int)sizeof(dir))
		return (MKV_E_UNSUPPORTED);
	if ((total = topo_number(dir, "nr_hugepages", UINT64_MAX)) == UINT64_MAX)
		return (MKV_E_UNSUPPORTED);
	/* Promises and what may be made besides are counted for the whole machine alone. */
	surplus = topo_number(dir, "surplus_hugepages", 0);
	promised = topo_number(dir, "resv_hugepages", 0);
	over = topo_number(dir, "nr_overcommit_hugepages", 0);
	out->free = topo_number(dir, "free_hugepages", 0);
	out->free -= MKV_MIN(promised, out->free);
	out->reserved = total - MKV_MIN(surplus, total);
	out->more = over - MKV_MIN(surplus, over);
	return (0);
}

/* "always within_size [advise] never deny force" */
int
mkv_topo_shmem_huge(const char *sys)
{
	char text[256];

	return (topo_read(sys, "kernel/mm/transparent_hugepage/shmem_enabled", text, sizeof(text)) == 0 && strchr(text, '[') != NULL &&
	    strstr(text, "[never]") == NULL && strstr(text, "[deny]") == NULL);
}

/* ---- nodes ---- */

/* The next range of "0-3,8,10-11"; at moves behind it. 1, 0 at the end, -1 for nonsense. */
static int
topo_range(const char **at, unsigned *first, unsigned *last)
{
	int n = 0;

	*at += strspn(*at, ", ");
	if (**at == '\0')
		return (0);
	if (sscanf(*at, "%u%n", first, &n) != 1)
		return (-1);
	*last = *first;
	*at += n;
	if (**at == '-') {
		if (sscanf(*at, "-%u%n", last, &n) != 1 || *last < *first)
			return (-1);
		*at += n;
	}
	return (1);
}

unsigned
mkv_topo_node_count(const char *sys)
{
	char text[TOPO_TEXT];
	unsigned count = 0, first, last;
	const char *at = text;
	int r;

	if (topo_read(sys, "devices/system/node/has_cpu", text, sizeof(text)) != 0)
		return (1);
	while ((r = topo_range(&at, &first, &last)) == 1 && last < TOPO_NODES_MAX)
		count += last - first + 1;
	return (r == 0 && count > 0 ? count : 1);
}

int
mkv_topo_node_cpus(const char *sys, int node, struct mkv_os_cpus *out)
{
	char name[64], text[TOPO_TEXT];
	unsigned first, last, any = 0;
	const char *at = text;

	*out = (struct mkv_os_cpus){ 0 };
	snprintf(name, sizeof(name), "devices/system/node/node%d/cpulist", node);
	if (node < 0 || topo_read(sys, name, text, sizeof(text)) != 0)
		return (MKV_E_UNSUPPORTED);
	while (topo_range(&at, &first, &last) == 1)
		for (unsigned i = first; i <= last && i < MKV_OS_CPUS_MAX; i++, any = 1)
			out->bit[i / 64] |= 1ull << i % 64;
	return (any ? 0 : MKV_E_UNSUPPORTED);
}

/* Which of those that are online a node is, from 0; -1: it is not. */
static int
topo_node_place(const char *sys, unsigned node)
{
	unsigned first, last, before = 0;
	char text[TOPO_TEXT];
	const char *at = text;

	if (topo_read(sys, "devices/system/node/online", text, sizeof(text)) != 0)
		return (-1);
	while (topo_range(&at, &first, &last) == 1 && last < TOPO_NODES_MAX) {
		if (node >= first && node <= last)
			return ((int)(before + node - first));
		before += last - first + 1;
	}
	return (-1);
}

/* A number for each node that is online, in their order. */
int
mkv_topo_node_distance(const char *sys, int from, int to)
{
	char name[64], text[TOPO_TEXT];
	const char *at = text;
	int place, n = 0, d;

	if (from < 0 || to < 0)
		return (-1);
	snprintf(name, sizeof(name), "devices/system/node/node%d/distance", from);
	if ((place = topo_node_place(sys, (unsigned)to)) < 0 || topo_read(sys, name, text, sizeof(text)) != 0)
		return (-1);
	for (; sscanf(at, "%d%n", &d, &n) == 1 && d > 0; at += n)
		if (place-- == 0)
			return (d);
	return (-1);
}

/* ---- devices ---- */

/* dir is the real path of a device's directory: its own number, or that of the nearest one above. The first "pciDDDD:BB" is the root it hangs on. */
static void
topo_climb(const char *dir, struct mkv_topo_place *out)
{
	char at[PATH_MAX], text[32], *slash;
	unsigned domain;
	int node, n;

	*out = (struct mkv_topo_place){ -1, -1 };
	for (const char *root = dir; out->domain < 0 && (root = strstr(root, "/pci")) != NULL; root++)
		if (n = 0, sscanf(root, "/pci%x:%n", &domain, &n) == 1 && n > 0 && domain <= INT_MAX)
			out->domain = (int)domain;
	snprintf(at, sizeof(at), "%s", dir);
	while ((slash = strrchr(at, '/')) != NULL && slash > at) {
		if (topo_read(at, "numa_node", text, sizeof(text)) == 0 && sscanf(text, "%d", &node) == 1 && node >= 0 && node < (int)TOPO_NODES_MAX) {
			out->node = node;
			return;
		}
		*slash = '\0';
	}
}

/* What both are: a number that they do not share is not known. first: there is nothing to compare with yet. */
static void
topo_join(struct mkv_topo_place *sum, const struct mkv_topo_place *one, int first)
{
	if (first || sum->node != one->node)
		sum->node = first ? one->node : -1;
	if (first || sum->domain != one->domain)
		sum->domain = first ? one->domain : -1;
}

static void topo_device(const char *dir, unsigned depth, struct mkv_topo_place *out);

/* Of the links in dir those that wanted() takes. Returns how many. */
static unsigned
topo_below(const char *dir, int (*wanted)(const char *), unsigned depth, struct mkv_topo_place *out)
{
	char path[PATH_MAX], real[PATH_MAX];
	struct mkv_topo_place one;
	struct dirent *e;
	unsigned n = 0;
	DIR *d = opendir(dir);

	if (d == NULL)
		return (0);
	while ((e = readdir(d)) != NULL) {
		if (e->d_name[0] == '.' || !wanted(e->d_name) || snprintf(path, sizeof(path), "%s/%s", dir, e->d_name) >= (int)sizeof(path) ||
		    realpath(path, real) == NULL)
			continue;
		topo_device(real, depth + 1, &one);
		topo_join(out, &one, n++ == 0);
	}
	closedir(d);
	return (n);
}

static int
topo_any(const char *name MKV_UNUSED)
{
	return (1);
}

/* "nvme0", a controller: not "nvme0n1", what it serves. */
static int
topo_controller(const char *name)
{
	return (strncmp(name, "nvme", 4) == 0 && name[4] != '\0' && name[4 + strspn(name + 4, "0123456789")] == '\0');
}

/* A device of its own, or one on top of others: dm and md name those in slaves/, a namespace that several controllers serve has them beside it. */
static void
topo_device(const char *dir, unsigned depth, struct mkv_topo_place *out)
{
	char below[PATH_MAX], *slash;

	topo_climb(dir, out);
	if (out->node >= 0 || out->domain >= 0 || depth >= TOPO_DEPTH_MAX)
		return;
	if (snprintf(below, sizeof(below), "%s/slaves", dir) >= (int)sizeof(below) || topo_below(below, topo_any, depth, out) > 0)
		return;
	/* A part of a device is a directory in that of the whole, which may be one of these. */
	snprintf(below, sizeof(below), "%s", dir);
	for (unsigned up = 0; up < 2 && (slash = strrchr(below, '/')) != NULL; up++) {
		*slash = '\0';
		if (strstr(below, "/nvme-subsys") != NULL && topo_below(below, topo_controller, depth, out) > 0)
			return;
	}
}

void
mkv_topo_block(const char *sys, unsigned major, unsigned minor, struct mkv_topo_place *out)
{
	char path[PATH_MAX], real[PATH_MAX];

	*out = (struct mkv_topo_place){ -1, -1 };
	if (snprintf(path, sizeof(path), "%s/dev/block/%u:%u", sys, major, minor) < (int)sizeof(path) && realpath(path, real) != NULL)
		topo_device(real, 0, out);
}

void
mkv_topo_rdma(const char *sys, const char *device, struct mkv_topo_place *out)
{
	char path[PATH_MAX], real[PATH_MAX];

	*out = (struct mkv_topo_place){ -1, -1 };
	if (device[0] == '\0' || device[0] == '.' || strchr(device, '/') != NULL)
		return;
	if (snprintf(path, sizeof(path), "%s/class/infiniband/%s/device", sys, device) < (int)sizeof(path) && realpath(path, real) != NULL)
		topo_climb(real, out);
}

char *
mkv_topo_between(const struct mkv_topo_place *a, const struct mkv_topo_place *b, char *dst, size_t dst_bytes)
{
	dst[0] = '\0';
	if (a->node >= 0 && b->node >= 0 && a->node != b->node)
		snprintf(dst, dst_bytes, "NUMA nodes %d and %d", a->node, b->node);
	else if (a->domain >= 0 && b->domain >= 0 && a->domain != b->domain)
		snprintf(dst, dst_bytes, "PCIe domains %04x and %04x", (unsigned)a->domain, (unsigned)b->domain);
	return (dst);
}
