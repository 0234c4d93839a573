/*
 * memkv doctor: memory and huge pages against what the server's configuration takes. Keeps nothing.
 */
#include "config.h"
#include "clients/cli/doctor_priv.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/units.h"

#define MEMINFO_BYTES	65536u
#define HUGE_2M		(2ull << 20)
#define HUGE_1G		(1ull << 30)
#define HUGE_COUNT_MAX	(1 << 24)		/* pages; more is no machine */

/* ---- the container ---- */

/* The least limit of a group and of those above it; path is cut from its end. */
static void
cgroup_least(struct doctor *d, const char *top, char *path, const char *file, uint64_t *least)
{
	char *slash;
	int64_t v;

	for (;;) {
		if (doctor_number(d, &v, "%s%s/%s", top, path, file) == 0 && v >= 0 && (uint64_t)v < *least)
			*least = (uint64_t)v;
		if ((slash = strrchr(path, '/')) == NULL)
			return;
		*slash = '\0';
	}
}

/* Lines are "0::PATH" (version 2) and "N:CONTROLLER,...:PATH" (version 1). */
static uint64_t
cgroup_limit(struct doctor *d)
{
	char *text = doctor_load(d, 65536, NULL, "/proc/self/cgroup"), *next = text, *line, *kind, *path;
	uint64_t least = UINT64_MAX;

	while ((line = strsep(&next, "\n")) != NULL) {
		if ((kind = strchr(line, ':')) == NULL || (path = strchr(++kind, ':')) == NULL)
			continue;
		*path++ = '\0';
		if (*kind == '\0')
			cgroup_least(d, "/sys/fs/cgroup", path, "memory.max", &least);
		else if (strcmp(kind, "memory") == 0)
			cgroup_least(d, "/sys/fs/cgroup/memory", path, "memory.limit_in_bytes", &least);
	}
	free(text);
	return (least);
}

struct pool {
	int64_t		total, free;		/* pages; free: that nobody was promised */
};

static struct pool
huge_pool(struct doctor *d, unsigned kib)
{
	struct pool p = { 0, 0 };
	int64_t promised = 0;

	if (doctor_number(d, &p.total, "/sys/kernel/mm/hugepages/hugepages-%ukB/nr_hugepages", kib) != 0 || p.total < 0)
		return ((struct pool){ 0, 0 });
	(void)doctor_number(d, &p.free, "/sys/kernel/mm/hugepages/hugepages-%ukB/free_hugepages", kib);
	(void)doctor_number(d, &promised, "/sys/kernel/mm/hugepages/hugepages-%ukB/resv_hugepages", kib);
	p.total = MKV_MIN(p.total, HUGE_COUNT_MAX);
	p.free = MKV_MAX(MKV_MIN(p.free, p.total), 0);
	p.free -= MKV_MIN(MKV_MAX(promised, 0), p.free);
	return (p);
}

/* Bytes of huge pages that a server could have now and would take. */
static uint64_t
huge_free(struct doctor *d, const struct pool *small, const struct pool *large)
{
	uint64_t sum = 0;

	if (d->params.memory_hugepages == MKV_HUGEPAGES_OFF)
		return (0);
	/* A server that runs has taken its pages: those that there are count, not those that are left. */
	if (d->params.memory_hugepage_size != MKV_HUGEPAGE_1G)
		sum += (uint64_t)(d->server_runs ? small->total : small->free) * HUGE_2M;
	if (d->params.memory_hugepage_size != MKV_HUGEPAGE_2M)
		sum += (uint64_t)(d->server_runs ? large->total : large->free) * HUGE_1G;
	return (sum);
}

/* ---- memory ---- */

static void
memory_commit(struct doctor *d, const char *info, uint64_t takes)
{
	int64_t mode, limit = doctor_field(info, "CommitLimit"), taken = doctor_field(info, "Committed_AS");
	char left[32], need[32];

	if (doctor_number(d, &mode, "/proc/sys/vm/overcommit_memory") != 0 || mode != 2 || limit < 0 || taken < 0)
		return;
	if ((uint64_t)MKV_MAX(limit - taken, 0) < takes)
		doctor_say(d, DOCTOR_MEMORY_COMMIT, NULL, "%s may still be taken, the server takes %s",
		    mkv_size_human(left, sizeof(left), (uint64_t)MKV_MAX(limit - taken, 0)), mkv_size_human(need, sizeof(need), takes));
}

void
doctor_memory(struct doctor *d)
{
	char *info = doctor_load(d, MEMINFO_BYTES, NULL, "/proc/meminfo"), need[32], have[32], fits[32], bytes[24];
	int64_t total = info != NULL ? doctor_field(info, "MemTotal") : -1, free_now = info != NULL ? doctor_field(info, "MemAvailable") : -1;
	struct pool small = huge_pool(d, 2048), large = huge_pool(d, 1048576);
	/* What lies in huge pages is taken already, and no limit of a group counts it. */
	uint64_t limit = cgroup_limit(d), takes = d->memory_bytes - MKV_MIN(MKV_MIN(d->shared_bytes, d->memory_bytes), huge_free(d, &small, &large));

	mkv_size_human(need, sizeof(need), takes);
	snprintf(bytes, sizeof(bytes), "%" PRIu64, takes + takes / 8);
	if (limit < takes)
		doctor_say(d, DOCTOR_MEMORY_CGROUP, DOCTOR_ARGS(bytes), "the limit of this container or group is %s, the server takes %s",
		    mkv_size_human(have, sizeof(have), limit), need);
	else if (total >= 0 && (uint64_t)total < takes)
		doctor_say(d, DOCTOR_MEMORY_SHORT, DOCTOR_ARGS(mkv_size_format(fits, sizeof(fits), ((uint64_t)total / 2) >> 20 << 20)),
		    "this machine has %s, the server takes %s", mkv_size_human(have, sizeof(have), (uint64_t)total), need);
	else if (d->budget != NULL && !d->server_runs && strstr(d->budget, "memory.hugepages") == NULL)
		doctor_say(d, DOCTOR_MEMORY_REFUSED, NULL, "%s", d->budget);
	else if (free_now >= 0 && (uint64_t)free_now < takes && !d->server_runs)
		doctor_say(d, DOCTOR_MEMORY_BUSY, NULL, "%s are free, the server takes %s", mkv_size_human(have, sizeof(have), (uint64_t)free_now), need);
	else if (total >= 0)
		doctor_ok(d, "%s of %s are free, the server takes %s", mkv_size_human(have, sizeof(have), (uint64_t)MKV_MAX(free_now, 0)),
		    mkv_size_human(fits, sizeof(fits), (uint64_t)total), need);
	if (info != NULL)
		memory_commit(d, info, takes);
	free(info);
}

/* ---- huge pages ---- */

/* Would memory that only asks for huge pages get them? */
static int
huge_shmem(struct doctor *d, char text[DOCTOR_TEXT_BYTES])
{
	if (doctor_text(d, text, DOCTOR_TEXT_BYTES, "/sys/kernel/mm/transparent_hugepage/shmem_enabled") != 0)
		return (0);
	return (doctor_chosen(text, "always") || doctor_chosen(text, "advise") || doctor_chosen(text, "within_size") || doctor_chosen(text, "force"));
}

void
doctor_hugepages(struct doctor *d)
{
	struct pool small = huge_pool(d, 2048), large = huge_pool(d, 1048576);
	uint64_t have = huge_free(d, &small, &large), need = MKV_DIV_UP(d->shared_bytes, HUGE_2M);
	char saw[256], pages[24], shmem[DOCTOR_TEXT_BYTES] = "";
	int mode = d->params.memory_hugepages;

	snprintf(saw, sizeof(saw), "of 2 MiB %" PRId64 " of %" PRId64 " are free, of 1 GiB %" PRId64 " of %" PRId64 "; the server takes %" PRIu64 " of 2 MiB",
	    small.free, small.total, large.free, large.total, need);
	snprintf(pages, sizeof(pages), "%" PRIu64, (uint64_t)(small.total - small.free) * !d->server_runs + need);
	if (mode == MKV_HUGEPAGES_OFF && small.total + large.total > 0)
		doctor_say(d, DOCTOR_HUGEPAGES_IDLE, NULL, "%s", saw);
	else if (mode == MKV_HUGEPAGES_REQUIRE && d->budget != NULL && !d->server_runs && strstr(d->budget, "memory.hugepages") != NULL)
		doctor_say(d, DOCTOR_HUGEPAGES_REQUIRED, DOCTOR_ARGS(pages), "%s", d->budget);
	else if (mode == MKV_HUGEPAGES_OFF || have >= need * HUGE_2M)
		doctor_ok(d, "%s", saw);
	else if (mode == MKV_HUGEPAGES_REQUIRE)
		doctor_say(d, DOCTOR_HUGEPAGES_REQUIRED, DOCTOR_ARGS(pages), "%s", saw);
	else if (huge_shmem(d, shmem))
		doctor_ok(d, "%s; the kernel gives huge pages to who asks (shmem_enabled: %s)", saw, shmem);
	else if (small.total > 0)
		doctor_say(d, DOCTOR_HUGEPAGES_SHORT, DOCTOR_ARGS(pages), "%s", saw);
	else
		doctor_say(d, DOCTOR_HUGEPAGES_SHMEM, DOCTOR_ARGS(pages), "%s; shmem_enabled: %s", saw, shmem[0] != '\0' ? shmem : "not there");
}
