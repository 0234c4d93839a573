/*
 * What sysfs says of huge pages.
 *
 * Process and thread: any; no state, nothing is kept between two calls.
 * Owns: nothing. Reads small files, at start and when a process is started; never on the way of a request.
 * Fails: a file that is missing, or that says what it should not, means "not known". Numbers and names in sysfs are checked like any foreign text.
 */
#include "config.h"
#include "common/base/topo.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/assert.h"
#include "common/base/err.h"

#define TOPO_SYS	"/sys"

const char *
mkv_topo_sys(void)
{
#ifdef MKV_WITH_CRASH_POINTS
	const char *dir = getenv("MKV_SYSFS");

	if (dir != NULL && dir[0] == '/')
		return (dir);
#endif
	return (TOPO_SYS);
}

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
