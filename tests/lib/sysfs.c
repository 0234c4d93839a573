/*
 * A made-up sysfs: plain files and absolute links.
 */
#include "config.h"
#include "tests/lib/sysfs.h"

#include <errno.h>
#include <ftw.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/base/assert.h"

void
sysfs_make(char *sys, size_t sys_bytes)
{
	char made[] = "/tmp/memkv-sysfs-XXXXXX", real[PATH_MAX];

	MKV_ASSERT(mkdtemp(made) != NULL && realpath(made, real) != NULL && strlen(real) < sys_bytes);
	snprintf(sys, sys_bytes, "%s", real);
}

static int
sysfs_unlink(const char *path, const struct stat *st MKV_UNUSED, int flag MKV_UNUSED, struct FTW *ftw MKV_UNUSED)
{
	return (remove(path));
}

void
sysfs_remove(const char *sys)
{
	MKV_ASSERT(nftw(sys, sysfs_unlink, 16, FTW_DEPTH | FTW_PHYS) == 0);
}

/* All directories of path up to its last '/'. */
static void
sysfs_dirs(char *path)
{
	for (char *at = strchr(path + 1, '/'); at != NULL; at = strchr(at + 1, '/')) {
		*at = '\0';
		MKV_ASSERT(mkdir(path, 0755) == 0 || errno == EEXIST);
		*at = '/';
	}
}

static void
sysfs_path(char path[PATH_MAX], const char *sys, const char *name)
{
	MKV_ASSERT(snprintf(path, PATH_MAX, "%s/%s", sys, name) < PATH_MAX - 1);
	sysfs_dirs(path);
}

void
sysfs_write(const char *sys, const char *name, const char *line)
{
	char path[PATH_MAX];
	FILE *f;

	sysfs_path(path, sys, name);
	f = fopen(path, "we");
	MKV_ASSERT(f != NULL && fprintf(f, "%s\n", line) > 0 && fclose(f) == 0);
}

void
sysfs_link(const char *sys, const char *name, const char *to)
{
	char path[PATH_MAX], target[PATH_MAX];

	sysfs_path(target, sys, to);
	MKV_ASSERT(mkdir(target, 0755) == 0 || errno == EEXIST);
	sysfs_path(path, sys, name);
	MKV_ASSERT(symlink(target, path) == 0);
}

void
sysfs_pages(const char *sys, int node, uint64_t page_bytes, uint64_t reserved, uint64_t free)
{
	char dir[128], name[192], n[32];

	if (node < 0)
		snprintf(dir, sizeof(dir), "kernel/mm/hugepages/hugepages-%llukB", (unsigned long long)(page_bytes >> 10));
	else
		snprintf(dir, sizeof(dir), "devices/system/node/node%d/hugepages/hugepages-%llukB", node, (unsigned long long)(page_bytes >> 10));
	snprintf(name, sizeof(name), "%s/nr_hugepages", dir);
	snprintf(n, sizeof(n), "%llu", (unsigned long long)reserved);
	sysfs_write(sys, name, n);
	snprintf(name, sizeof(name), "%s/free_hugepages", dir);
	snprintf(n, sizeof(n), "%llu", (unsigned long long)free);
	sysfs_write(sys, name, n);
}

void
sysfs_block(const char *sys, const char *number, const char *dir)
{
	char name[64];

	snprintf(name, sizeof(name), "dev/block/%s", number);
	sysfs_link(sys, name, dir);
}
