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
#define HUGE_2M		(UINT64_C(2) << 20)
#define HUGE_1G		(UINT64_C(1) << 30)
#define HUGE_FILE	"/sys/kernel/mm/hugepages/hugepages-%ukB/nr_hugepages"
#define HUGE_WASTE	16u			/* this part of the memory may be rounding, at most */
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

/* Lines are "0::PATH" (version 2) and "N:CONTROLLER,...:PATH" (version 1). The limit's file has a name in each; controller: of the second. */
static uint64_t
cgroup_limit(struct doctor *d, const char *file2, const char *controller, const char *file1)
{
	char top[64];
	char *text = doctor_load(d, 65536, NULL, "/proc/self/cgroup"), *next = text, *line, *kind, *path;
	uint64_t least = UINT64_MAX;

	while ((line = strsep(&next, "\n")) != NULL) {
		if ((kind = strchr(line, ':')) == NULL || (path = strchr(++kind, ':')) == NULL)
			continue;
		*path++ = '\0';
		if (*kind == '\0')
			cgroup_least(d, "/sys/fs/cgroup", path, file2, &least);
		else if (strcmp(kind, controller) == 0) {
			snprintf(top, sizeof(top), "/sys/fs/cgroup/%s", controller);
			cgroup_least(d, top, path, file1, &least);
		}
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

	if (doctor_number(d, &p.total, HUGE_FILE, kib) != 0 || p.total < 0)
		return ((struct pool){ 0, 0 });
	(void)doctor_number(d, &p.free, "/sys/kernel/mm/hugepages/hugepages-%ukB/free_hugepages", kib);
	(void)doctor_number(d, &promised, "/sys/kernel/mm/hugepages/hugepages-%ukB/resv_hugepages", kib);
	p.total = MKV_MIN(p.total, HUGE_COUNT_MAX);
	p.free = MKV_MAX(MKV_MIN(p.free, p.total), 0);
	p.free -= MKV_MIN(MKV_MAX(promised, 0), p.free);
	return (p);
}

/* Which sizes would a server take? Of 1 GiB only as asked for, or where at most 1/16 is lost to rounding up. */
static int
huge_wanted(const struct doctor *d, uint64_t page_bytes)
{
	uint64_t waste = MKV_ALIGN_UP(d->shared_bytes, HUGE_1G) - d->shared_bytes;

	if (d->params.memory_hugepages == MKV_HUGEPAGES_OFF)
		return (0);
	if (page_bytes == HUGE_2M)
		return (d->params.memory_hugepage_size != MKV_HUGEPAGE_1G);
	return (d->params.memory_hugepage_size == MKV_HUGEPAGE_1G || (d->params.memory_hugepage_size == MKV_HUGEPAGE_AUTO && waste <= d->shared_bytes / HUGE_WASTE));
}

/* Bytes of shared memory that lie in huge pages. A server that runs has taken its pages: those that there are count, not those that are left. */
static uint64_t
huge_bytes(const struct doctor *d, const struct pool *small, const struct pool *large)
{
	uint64_t sum = 0;

	if (d->huge_short != NULL && !d->server_runs)
		return (d->huge_bytes);
	if (huge_wanted(d, HUGE_2M))
		sum += (uint64_t)(d->server_runs ? small->total : small->free) * HUGE_2M;
	if (huge_wanted(d, HUGE_1G))
		sum += (uint64_t)(d->server_runs ? large->total : large->free) * HUGE_1G;
	return (MKV_MIN(sum, d->shared_bytes));
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
	uint64_t limit = cgroup_limit(d, "memory.max", "memory", "memory.limit_in_bytes"), takes = d->memory_bytes - MKV_MIN(d->memory_bytes, huge_bytes(d, &small, &large));

	d->ram_bytes = (uint64_t)MKV_MAX(total, 0);
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
	else if (total >= 0 && free_now < 0)
		doctor_ok(d, "this machine has %s, the server takes %s", mkv_size_human(fits, sizeof(fits), (uint64_t)total), need);
	else if (total >= 0)
		doctor_ok(d, "%s of %s are free, the server takes %s", mkv_size_human(have, sizeof(have), (uint64_t)free_now),
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

/* What sets aside so many pages of that size, of those that are reserved by anybody. */
static void
huge_say(struct doctor *d, enum doctor_id id, const struct pool *small, const struct pool *large, const char *saw)
{
	int of_1g = d->params.memory_hugepage_size == MKV_HUGEPAGE_1G;
	const struct pool *p = of_1g ? large : small;
	char pages[24], file[96];

	snprintf(pages, sizeof(pages), "%" PRIu64, (uint64_t)(p->total - p->free) * !d->server_runs + MKV_DIV_UP(d->shared_bytes, of_1g ? HUGE_1G : HUGE_2M));
	snprintf(file, sizeof(file), HUGE_FILE, of_1g ? 1048576u : 2048u);
	doctor_say(d, id, DOCTOR_ARGS(pages, file), "%s", saw);
}

static void
huge_say_shmem(struct doctor *d, const struct pool *small, const struct pool *large, const char *saw, const char *shmem)
{
	char text[DOCTOR_TEXT_BYTES + 512];

	snprintf(text, sizeof(text), "%.400s; shmem_enabled: %.255s", saw, shmem);
	huge_say(d, DOCTOR_HUGEPAGES_SHMEM, small, large, text);
}

/* The server's own plan is short of pages: a line for each place where some are to be set aside. */
static void
huge_say_fixes(struct doctor *d, enum doctor_id id)
{
	json_t *fix, *list = json_object_get(d->answer, "huge_fixes");
	char pages[24];
	size_t i;

	json_array_foreach(list, i, fix) {
		const char *file = json_string_value(json_object_get(fix, "file"));

		snprintf(pages, sizeof(pages), "%lld", (long long)json_integer_value(json_object_get(fix, "pages")));
		doctor_say(d, id, DOCTOR_ARGS(pages, file != NULL ? file : "FILE"), "%s", d->huge_short);
	}
}

/* A limit on them stands beside the pool, and the kernel says nothing of it before they are taken. 1: it is in the way. */
static int
huge_withheld(struct doctor *d, const struct pool *p, uint64_t page_bytes, const char *size)
{
	char file2[32], file1[40], bytes[24], has[32], takes[32];
	uint64_t need = MKV_ALIGN_UP(d->shared_bytes, page_bytes), limit;

	snprintf(file2, sizeof(file2), "hugetlb.%s.max", size);
	snprintf(file1, sizeof(file1), "hugetlb.%s.limit_in_bytes", size);
	if (p->total == 0 || !huge_wanted(d, page_bytes) || (limit = cgroup_limit(d, file2, "hugetlb", file1)) >= need)
		return (0);
	d->at_most = d->params.memory_hugepages == MKV_HUGEPAGES_REQUIRE ? DOCTOR_FAIL : DOCTOR_WARN;
	snprintf(bytes, sizeof(bytes), "%" PRIu64, need);
	doctor_say(d, DOCTOR_HUGEPAGES_CGROUP, DOCTOR_ARGS(file2, bytes), "the limit of this container or group is %s of such pages, the server takes %s",
	    mkv_size_human(has, sizeof(has), limit), mkv_size_human(takes, sizeof(takes), need));
	d->at_most = DOCTOR_FAIL;
	return (1);
}

/* What a server that starts now would find, in its own words. */
static void
huge_planned(struct doctor *d, const struct pool *small, const struct pool *large, const char *saw)
{
	int fixes = json_array_size(json_object_get(d->answer, "huge_fixes")) > 0, advised;
	char shmem[DOCTOR_TEXT_BYTES] = "";

	advised = huge_shmem(d, shmem);
	if (d->huge_short[0] == '\0')
		doctor_ok(d, "%s", saw);
	else if (d->params.memory_hugepages == MKV_HUGEPAGES_REQUIRE && !fixes)
		doctor_say(d, DOCTOR_HUGEPAGES_NONE, NULL, "%s", d->huge_short);
	else if (d->params.memory_hugepages == MKV_HUGEPAGES_REQUIRE)
		huge_say_fixes(d, DOCTOR_HUGEPAGES_REQUIRED);
	else if (advised)
		doctor_ok(d, "%s; the kernel gives huge pages to who asks (shmem_enabled: %s)", d->huge_short, shmem);
	else if (!fixes && shmem[0] == '\0')
		doctor_ok(d, "this kernel has no huge pages, and memory.hugepages is auto");
	else if (fixes && (small->total + large->total > 0 || shmem[0] == '\0'))
		huge_say_fixes(d, DOCTOR_HUGEPAGES_SHORT);
	else
		huge_say_shmem(d, small, large, d->huge_short, shmem);
}

void
doctor_hugepages(struct doctor *d)
{
	struct pool small = huge_pool(d, 2048), large = huge_pool(d, 1048576);
	int mode = d->params.memory_hugepages, of_1g = d->params.memory_hugepage_size == MKV_HUGEPAGE_1G;
	char saw[256], shmem[DOCTOR_TEXT_BYTES] = "", file[96];

	snprintf(saw, sizeof(saw), "of 2 MiB %" PRId64 " of %" PRId64 " are free, of 1 GiB %" PRId64 " of %" PRId64 "; the server takes %" PRIu64 " of %s",
	    small.free, small.total, large.free, large.total, MKV_DIV_UP(d->shared_bytes, of_1g ? HUGE_1G : HUGE_2M), of_1g ? "1 GiB" : "2 MiB");
	snprintf(file, sizeof(file), HUGE_FILE, small.total > 0 ? 2048u : 1048576u);
	if (d->ram_bytes > 0 && d->memory_bytes > d->ram_bytes)
		return;				/* memory.short: to set aside so much would leave the machine with nothing */
	if (!d->server_runs && (huge_withheld(d, &small, HUGE_2M, "2MB") || huge_withheld(d, &large, HUGE_1G, "1GB")))
		return;
	if (mode == MKV_HUGEPAGES_OFF && small.total + large.total > 0)
		doctor_say(d, DOCTOR_HUGEPAGES_IDLE, DOCTOR_ARGS(file), "%s", saw);
	else if (mode != MKV_HUGEPAGES_OFF && d->huge_short != NULL && !d->server_runs)
		huge_planned(d, &small, &large, saw);
	else if (mode == MKV_HUGEPAGES_OFF || huge_bytes(d, &small, &large) >= d->shared_bytes)
		doctor_ok(d, "%s", saw);
	else if (mode == MKV_HUGEPAGES_REQUIRE)
		huge_say(d, DOCTOR_HUGEPAGES_REQUIRED, &small, &large, saw);
	else if (huge_shmem(d, shmem))
		doctor_ok(d, "%s; the kernel gives huge pages to who asks (shmem_enabled: %s)", saw, shmem);
	else if (shmem[0] == '\0' && doctor_mode(d, "/sys/kernel/mm/hugepages") == 0)
		doctor_ok(d, "this kernel has no huge pages, and memory.hugepages is auto");
	else if (small.total > 0 || shmem[0] == '\0')
		huge_say(d, DOCTOR_HUGEPAGES_SHORT, &small, &large, saw);
	else
		huge_say_shmem(d, &small, &large, saw, shmem);
}
