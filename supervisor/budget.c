/*
 * What the configuration takes of the machine's memory, added up before anything is taken. Supervisor; owns nothing.
 *
 *   counted       staging segments (touched at start), page caches, arenas of memory mode with the place for their metadata
 *   not counted   the index of a drive. It grows with what is stored, and by how much hangs on the size of values: for the least that a drive is laid
 *                 out for (16 KiB) it would be 1/256 of the capacity, which no server with values of megabytes ever takes, and no key could lower it.
 *
 * Without this a server that asks for more than there is gets ready and is then ended by the kernel, in the middle of anything.
 * What can fail: the sum does not fit: MKV_E_CONFIG with the sum, what there is, and the line that fixes it.
 */
#include "config.h"

#include "supervisor/budget_priv.h"

#include <stdio.h>

#include "common/base/assert.h"
#include "common/base/err.h"
#include "common/base/units.h"
#include "common/shm/stage.h"
#include "supervisor/sup_priv.h"

#define BUDGET_SPARE_SHARE	16u			/* this part of the memory stays for the system and for the processes themselves, ... */
#define BUDGET_SPARE_MAX	(1ull << 30)		/* ... but no more than so much */
#define BUDGET_META_SPARE	(64ull << 20)
#define BUDGET_META_ALIGN	(2ull << 20)

uint64_t
budget_arena_meta(uint64_t arena_bytes)
{
	return (MKV_ALIGN_UP(arena_bytes / 8 + BUDGET_META_SPARE, BUDGET_META_ALIGN));
}

void
budget_fronts(struct budget *b, const struct mkv_params *p, const struct config_derived *d)
{
	*b = (struct budget){ .hugepages = p->memory_hugepages };
	b->segment = mkv_stage_bytes(d->stage_data_bytes, (uint32_t)p->memory_block_size, p->memory_slots);
	b->part[BUDGET_STAGE] = d->front_count * b->segment;
}

void
budget_drive(struct budget *b, const struct mkv_params *p, uint64_t bytes)
{
	b->part[BUDGET_PAGES] += p->storage_page_cache;
	if (p->storage_mode == MKV_STORAGE_MEMORY)
		b->part[BUDGET_ARENAS] += bytes + budget_arena_meta(bytes);
}

/* What of the segments does not come from reserved pages: each is there or here. */
static uint64_t
budget_stage(const struct budget *b, const struct mkv_os_memory *m)
{
	uint64_t there = b->hugepages == MKV_HUGEPAGES_OFF ? 0 : m->huge_free / b->segment * b->segment;

	return (b->hugepages == MKV_HUGEPAGES_REQUIRE ? 0 : b->part[BUDGET_STAGE] - MKV_MIN(b->part[BUDGET_STAGE], there));
}

static uint64_t
budget_have(const struct mkv_os_memory *m)
{
	uint64_t have = MKV_MIN(m->total - MKV_MIN(m->huge_total, m->total), m->limit);

	return (have - MKV_MIN(have / BUDGET_SPARE_SHARE, BUDGET_SPARE_MAX));
}

/* "120.3 GiB: 100.0 GiB of staging (memory.max_size), ..." */
static void
budget_say_parts(const struct budget *b, uint64_t need, char *dst, size_t room)
{
	static const char *const what[BUDGET_PARTS] = {
		"staging (memory.max_size)", "arenas and their metadata (storage.drives)", "page caches (storage.page_cache, for each drive)"
	};
	char t[32];
	int n = snprintf(dst, room, "%s: ", mkv_size_human(t, sizeof(t), need));

	for (unsigned i = 0, said = 0; i < BUDGET_PARTS; i++)
		if (b->part[i] > 0)
			n += snprintf(dst + n, room - (size_t)n, "%s%s of %s", said++ > 0 ? ", " : "", mkv_size_human(t, sizeof(t), b->part[i]), what[i]);
}

/* Lower what takes most; how far, if that is enough. */
static void
budget_say_fix(const struct budget *b, const struct mkv_params *p, unsigned most, uint64_t left, char *dst, size_t room)
{
	static const char *const key[BUDGET_PARTS] = { "memory.max_size", "max_size in storage.drives", "storage.page_cache" };
	uint64_t now = b->part[most], fits = left;
	char t[32];

	if (most == BUDGET_STAGE)		/* what of a segment is no data stays as large */
		fits -= MKV_MIN(now - MKV_MIN(now, p->memory_max_size), left);
	else if (most == BUDGET_PAGES)
		fits = left / (now / p->storage_page_cache);
	fits = fits >> 20 << 20;
	if (fits < (16ull << 20))
		snprintf(dst, room, "lower %s and the others", key[most]);
	else if (most == BUDGET_STAGE)
		snprintf(dst, room, "lower it with\n    memory:\n      max_size: %s", mkv_size_format(t, sizeof(t), fits));
	else if (most == BUDGET_PAGES)
		snprintf(dst, room, "lower it with\n    storage:\n      page_cache: %s", mkv_size_format(t, sizeof(t), fits));
	else
		snprintf(dst, room, "lower max_size in storage.drives: all arenas together can have %s",
		    mkv_size_format(t, sizeof(t), fits / 10 * 8 >> 20 << 20));
}

static int
budget_check_huge(const struct budget *b, const struct mkv_os_memory *m, char *why, size_t why_bytes)
{
	char need[32], have[32];

	if (b->hugepages != MKV_HUGEPAGES_REQUIRE || b->part[BUDGET_STAGE] <= m->huge_free)
		return (0);
	snprintf(why, why_bytes, "key \"memory.max_size\": staging takes %s of huge pages (memory.hugepages is require) and %s of them are free; lower it, or "
	    "reserve more with\n    sysctl vm.nr_hugepages=N", mkv_size_human(need, sizeof(need), b->part[BUDGET_STAGE]),
	    mkv_size_human(have, sizeof(have), m->huge_free));
	return (MKV_E_CONFIG);
}

static void
budget_say(const struct budget *b, const struct mkv_params *p, const struct mkv_os_memory *m, uint64_t need, uint64_t have, char *why, size_t why_bytes)
{
	static const char *const first[BUDGET_PARTS] = { "memory.max_size", "storage.drives", "storage.page_cache" };
	char parts[256], fix[128], limits[128], t[32];
	unsigned most = 0;
	int n = 0;

	for (unsigned i = 1; i < BUDGET_PARTS; i++)
		most = b->part[i] > b->part[most] ? i : most;
	budget_say_parts(b, need, parts, sizeof(parts));
	budget_say_fix(b, p, most, have - MKV_MIN(need - b->part[most], have), fix, sizeof(fix));
	limits[0] = '\0';
	if (m->huge_total > 0)
		n = snprintf(limits, sizeof(limits), ", of it %s reserved as huge pages", mkv_size_human(t, sizeof(t), m->huge_total));
	if (m->limit < m->total)
		snprintf(limits + n, sizeof(limits) - (size_t)n, ", its memory cgroup allows %s", mkv_size_human(t, sizeof(t), m->limit));
	n = snprintf(why, why_bytes, "key \"%s\": the server would take %s; this machine has %s of memory%s, ", first[most], parts,
	    mkv_size_human(t, sizeof(t), m->total), limits);
	if (n < (int)why_bytes)
		snprintf(why + n, why_bytes - (size_t)n, "%s can be used: %s", mkv_size_human(t, sizeof(t), have), fix);
}

int
budget_check(const struct budget *given, const struct mkv_params *p, const struct mkv_os_memory *m, char *why, size_t why_bytes)
{
	struct budget b = *given;
	uint64_t have = budget_have(m), need = 0;

	if (budget_check_huge(&b, m, why, why_bytes) != 0)
		return (MKV_E_CONFIG);
	b.part[BUDGET_STAGE] = budget_stage(&b, m);
	for (unsigned i = 0; i < BUDGET_PARTS; i++)
		need += b.part[i];
	if (need <= have)
		return (0);
	budget_say(&b, p, m, need, have, why, why_bytes);
	return (MKV_E_CONFIG);
}

int
budget_config(const struct config *c, char *why, size_t why_bytes)
{
	struct mkv_os_memory m;
	struct budget b;

	if (mkv_os_memory(&m) != 0)
		return (0);			/* a system that does not tell: its word is the one that counts, later */
	budget_fronts(&b, &c->params, &c->derived);
	for (uint32_t i = 0; i < c->derived.drive_count; i++)
		budget_drive(&b, &c->params, c->derived.drive[i].max_size);
	return (budget_check(&b, &c->params, &m, why, why_bytes));
}

int
budget_pool(const struct mkv_sup *s, uint64_t more_bytes, int more, char *why, size_t why_bytes)
{
	struct mkv_os_memory m;
	struct budget b;

	if (mkv_os_memory(&m) != 0)
		return (0);
	budget_fronts(&b, s->params, s->conf);
	for (uint32_t i = 0; i < s->drive_count; i++)
		if (s->pool[i].wanted)
			budget_drive(&b, s->params, s->conf->drive[i].max_size);
	if (more)
		budget_drive(&b, s->params, more_bytes);
	return (budget_check(&b, s->params, &m, why, why_bytes));
}
