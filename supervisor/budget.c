/*
 * What the configuration takes of the machine's memory, added up before anything is taken. Supervisor; owns nothing.
 *
 *   counted       staging segments (touched at start), page caches, arenas of memory mode with the place for their metadata; segments that lie in
 *                 huge pages against those that are free, all else against the memory that is not set aside for them
 *   not counted   the index of a drive. It grows with what is stored, and by how much hangs on the size of values: for the least that a drive is laid
 *                 out for (16 KiB) it would be 1/256 of the capacity, which no server with values of megabytes ever takes, and no key could lower it.
 *
 * Without this a server that asks for more than there is gets ready and is then ended by the kernel, in the middle of anything.
 * What can fail: the sum does not fit: MKV_E_CONFIG with the sum, what there is, and the line that fixes it.
 */
#include "config.h"

#include "supervisor/budget_priv.h"

#include <stdio.h>
#include <string.h>

#include "common/base/assert.h"
#include "common/base/err.h"
#include "common/base/topo.h"
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

static void
budget_segment(struct budget *b, enum budget_part part, uint64_t bytes, int node)
{
	MKV_ASSERT(b->n_seg < BUDGET_SEGS_MAX);
	b->seg[b->n_seg++] = (struct pages_seg){ .bytes = bytes, .node = node, .part = part };
}

void
budget_fronts(struct budget *b, const struct mkv_params *p, const struct config_derived *d)
{
	*b = (struct budget){ .sys = MKV_TOPO_SYS };
	for (uint32_t i = 0; i < d->front_count; i++)
		budget_segment(b, BUDGET_STAGE, mkv_stage_bytes(d->stage_data_bytes, (uint32_t)p->memory_block_size, p->memory_slots),
		    i < d->shard_count || i >= d->shard_count + d->rail_count ? -1 : affinity_rail_node(p, i - d->shard_count));
}

void
budget_drive(struct budget *b, const struct mkv_params *p, uint64_t bytes)
{
	b->part[BUDGET_PAGES] += p->storage_page_cache;
	if (p->storage_mode != MKV_STORAGE_MEMORY)
		return;
	b->part[BUDGET_ARENAS] += budget_arena_meta(bytes);
	budget_segment(b, BUDGET_ARENAS, bytes, -1);
}

uint64_t
budget_bytes(const struct budget *b, enum budget_part part)
{
	uint64_t sum = b->part[part];

	for (unsigned i = 0; i < b->n_seg; i++)
		sum += b->seg[i].part == part ? b->seg[i].bytes : 0;
	return (sum);
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

/* What there is too little of: huge pages. 0: of nothing that is asked for. */
static int
budget_check_huge(const struct budget *b, const struct mkv_params *p, const struct mkv_os_memory *m, char *why, size_t why_bytes)
{
	char words[768];

	if (p->memory_hugepages != MKV_HUGEPAGES_REQUIRE)
		return (0);
	pages_say(p, b->sys, b->seg, b->n_seg, m->huge_page_bytes, words, sizeof(words));
	if (words[0] == '\0')
		return (0);
	snprintf(why, why_bytes, "key \"memory.hugepages\": is require and too few huge pages are free: %s", words);
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

/* Huge pages that are required, more of them than this machine has memory: the line that sets them aside would take all there is from everybody. */
static int
budget_check_beyond(struct budget *b, const struct mkv_params *p, const struct mkv_os_memory *m, char *why, size_t why_bytes)
{
	struct mkv_os_memory whole = { .total = m->total, .limit = UINT64_MAX };
	uint64_t shared = 0, all = 0;

	for (unsigned i = 0; i < b->n_seg; i++)
		shared += b->seg[i].bytes;
	if (p->memory_hugepages != MKV_HUGEPAGES_REQUIRE || shared <= budget_have(&whole))
		return (0);
	for (unsigned i = 0; i < b->n_seg; i++)
		b->part[b->seg[i].part] += b->seg[i].bytes;
	for (unsigned i = 0; i < BUDGET_PARTS; i++)
		all += b->part[i];
	budget_say(b, p, &whole, all, budget_have(&whole), why, why_bytes);
	return (MKV_E_CONFIG);
}

int
budget_check(struct budget *b, const struct mkv_params *p, const struct mkv_os_memory *m, char *why, size_t why_bytes)
{
	uint64_t have = budget_have(m), need = 0;

	if (budget_check_beyond(b, p, m, why, why_bytes) != 0)
		return (MKV_E_CONFIG);
	(void)pages_plan(p, b->sys, b->seg, b->n_seg);
	if (budget_check_huge(b, p, m, why, why_bytes) != 0)
		return (MKV_E_CONFIG);
	for (unsigned i = 0; i < b->n_seg; i++)
		b->part[b->seg[i].part] += b->seg[i].page_bytes == 0 ? b->seg[i].bytes : 0;
	for (unsigned i = 0; i < BUDGET_PARTS; i++)
		need += b->part[i];
	if (need <= have)
		return (0);
	budget_say(b, p, m, need, have, why, why_bytes);
	return (MKV_E_CONFIG);
}

/* One part: ", 16.0 GiB of arenas in pages of 2 MiB and 1 GiB". dst has words already. */
static void
budget_say_part(const struct budget *b, enum budget_part part, const char *what, char *dst, size_t room)
{
	struct pages_mem m = { 0 };
	char text[64], size[32];
	unsigned kinds = 0;
	uint64_t sum = 0;
	size_t n;

	for (unsigned i = 0; i < b->n_seg; i++) {
		if (b->seg[i].part != part)
			continue;
		kinds += sum == 0 || b->seg[i].page_bytes != m.page_bytes;
		m.page_bytes = b->seg[i].page_bytes;
		sum += b->seg[i].bytes;
	}
	if (sum == 0)
		return;
	n = strlen(dst);
	snprintf(dst + n, room - n, "%s%s of %s in %s", n > 0 ? ", " : "", mkv_size_human(size, sizeof(size), sum), what,
	    kinds > 1 ? "pages of several sizes" : pages_text(&m, text, sizeof(text)));
}

void
budget_say_pages(const struct budget *b, const struct mkv_params *p, const struct mkv_os_memory *m, char *dst, size_t dst_bytes)
{
	char words[768];
	size_t n;

	dst[0] = '\0';
	budget_say_part(b, BUDGET_STAGE, "staging", dst, dst_bytes);
	budget_say_part(b, BUDGET_ARENAS, "arenas", dst, dst_bytes);
	pages_say(p, b->sys, b->seg, b->n_seg, m->huge_page_bytes, words, sizeof(words));
	n = strlen(dst);
	if (words[0] != '\0')
		snprintf(dst + n, dst_bytes - n, "; of huge pages %s", words);
}

int
budget_config(const struct config *c, char *why, size_t why_bytes)
{
	struct mkv_os_memory m;
	struct budget b;

	why[0] = '\0';
	if (mkv_os_memory(&m) != 0)
		return (0);			/* a system that does not tell: its word is the one that counts, later */
	budget_fronts(&b, &c->params, &c->derived);
	for (uint32_t i = 0; i < c->derived.drive_count; i++)
		budget_drive(&b, &c->params, c->derived.drive[i].max_size);
	if (budget_check(&b, &c->params, &m, why, why_bytes) != 0)
		return (MKV_E_CONFIG);
	budget_say_pages(&b, &c->params, &m, why, why_bytes);
	return (0);
}

/* What has a descriptor is there, and takes no more. */
static void
budget_held(struct pages_seg *seg, int fd, const struct pages_mem *mem)
{
	seg->held = fd >= 0;
	seg->page_bytes = mem->page_bytes;
}

int
budget_pool(const struct mkv_sup *s, uint64_t more_bytes, int more, char *why, size_t why_bytes)
{
	int memory = s->params->storage_mode == MKV_STORAGE_MEMORY, made = s->proc_count > 0;
	struct mkv_os_memory m;
	struct budget b;

	if (mkv_os_memory(&m) != 0)
		return (0);
	budget_fronts(&b, s->params, s->conf);
	for (uint32_t i = 0; i < s->front_count && made; i++)
		budget_held(&b.seg[i], s->proc[i].stage_fd, &s->proc[i].stage);
	for (uint32_t i = 0; i < s->drive_count; i++) {
		if (!s->pool[i].wanted)
			continue;
		budget_drive(&b, s->params, s->conf->drive[i].max_size);
		if (made && memory)
			budget_held(&b.seg[b.n_seg - 1], s->proc[s->front_count + i].arena_fd, &s->proc[s->front_count + i].arena);
	}
	if (more)
		budget_drive(&b, s->params, more_bytes);
	return (budget_check(&b, s->params, &m, why, why_bytes));
}
