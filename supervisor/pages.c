/*
 * Process: supervisor, at start and when a drive is added. In which pages the segments lie that fronts, drives and NICs share.
 *
 *	memory.hugepages  off      small pages
 *	                  auto     1 GiB, else 2 MiB, else small ones with the advice to make huge ones of them
 *	                  require  1 GiB, else 2 MiB, else the server does not start
 *	memory.hugepage_size       which of the two sizes; auto: 1 GiB only where at most 1/16 of the segment is rounded up
 *
 * Huge pages are those that the operator set aside: they stay whole, and nobody else gets them. Planning and making go by the same order, so what
 * budget.c reckoned with is what heritage.c gets, unless somebody else takes pages in between.
 * Owns: nothing. What can fail: memory; see pages_create().
 */
#include "config.h"

#include "supervisor/pages_priv.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "common/base/assert.h"
#include "common/base/err.h"
#include "common/base/os.h"
#include "common/base/topo.h"

#define PAGES_2M	(2ull << 20)
#define PAGES_1G	(1ull << 30)
#define PAGES_WASTE	16u		/* this part of a segment may be rounding, at most */

unsigned
pages_sizes(const struct mkv_params *p, uint64_t bytes, uint64_t size[PAGES_SIZES])
{
	uint64_t waste = MKV_ALIGN_UP(bytes, PAGES_1G) - bytes;
	unsigned n = 0;

	if (p->memory_hugepages == MKV_HUGEPAGES_OFF)
		return (0);
	if (p->memory_hugepage_size == MKV_HUGEPAGE_1G || (p->memory_hugepage_size == MKV_HUGEPAGE_AUTO && waste <= bytes / PAGES_WASTE))
		size[n++] = PAGES_1G;
	if (p->memory_hugepage_size != MKV_HUGEPAGE_1G)
		size[n++] = PAGES_2M;
	return (n);
}

static const char *
pages_size_text(uint64_t page_bytes)
{
	return (page_bytes == PAGES_1G ? "1 GiB" : "2 MiB");
}

/* ---- planning ---- */

static uint64_t
pages_count(uint64_t bytes, uint64_t page_bytes)
{
	return (MKV_DIV_UP(bytes, page_bytes));
}

/* Pages of that size that the plan has given away so far; node -1: on any. */
static uint64_t
pages_taken(const struct pages_seg *seg, unsigned n, int node, uint64_t page_bytes)
{
	uint64_t taken = 0;

	for (unsigned i = 0; i < n; i++)
		if (!seg[i].held && seg[i].page_bytes == page_bytes && (node < 0 || seg[i].node == node))
			taken += pages_count(seg[i].bytes, page_bytes);
	return (taken);
}

static int
pages_fit(const char *sys, const struct pages_seg *seg, unsigned n, int node, uint64_t page_bytes, uint64_t need)
{
	struct mkv_topo_pages have;

	return (mkv_topo_pages(sys, node, page_bytes, &have) == 0 && pages_taken(seg, n, node, page_bytes) + need <= have.free + have.more);
}

unsigned
pages_plan(const struct mkv_params *p, const char *sys, struct pages_seg *seg, unsigned n)
{
	uint64_t size[PAGES_SIZES], need;
	unsigned small = 0, sizes;

	for (unsigned i = 0; i < n; i++) {
		if (seg[i].held)
			continue;
		seg[i].page_bytes = 0;
		sizes = pages_sizes(p, seg[i].bytes, size);
		for (unsigned k = 0; k < sizes && seg[i].page_bytes == 0; k++) {
			need = pages_count(seg[i].bytes, size[k]);
			if (pages_fit(sys, seg, i, -1, size[k], need) && (seg[i].node < 0 || pages_fit(sys, seg, i, seg[i].node, size[k], need)))
				seg[i].page_bytes = size[k];
		}
		small += seg[i].page_bytes == 0;
	}
	return (small);
}

/* ---- what is short ---- */

/* Could it lie in pages of that size? last: and in nothing smaller. */
static int
pages_wants(const struct mkv_params *p, const struct pages_seg *seg, uint64_t page_bytes, int last)
{
	uint64_t size[PAGES_SIZES];
	unsigned n = pages_sizes(p, seg->bytes, size);

	for (unsigned k = last && n > 0 ? n - 1 : 0; k < n; k++)
		if (size[k] == page_bytes)
			return (1);
	return (0);
}

/* Pages of that size on that node that would be enough: those of the plan, and of the segments that it left out. 0: it left none out. */
static uint64_t
pages_needed(const struct mkv_params *p, const struct pages_seg *seg, unsigned n, int node, uint64_t page_bytes, int last)
{
	uint64_t left_out = 0;

	for (unsigned i = 0; i < n; i++)
		if (!seg[i].held && seg[i].page_bytes == 0 && seg[i].node == node && pages_wants(p, &seg[i], page_bytes, last))
			left_out += pages_count(seg[i].bytes, page_bytes);
	return (left_out > 0 ? left_out + pages_taken(seg, n, node, page_bytes) : 0);
}

struct pages_words {
	char		*dst;
	size_t		room;
	unsigned	said, fixed;
};

static void
pages_add(struct pages_words *w, const char *text)
{
	size_t n = strlen(w->dst);

	snprintf(w->dst + n, w->room - n, "%s", text);
}

/* have: NULL, the system knows no such pages. */
static void
pages_say_size(struct pages_words *w, int node, uint64_t page_bytes, uint64_t need, const struct mkv_topo_pages *have)
{
	char text[160], where[40] = "";
	int n;

	if (node >= 0)
		snprintf(where, sizeof(where), " on NUMA node %d", node);
	n = snprintf(text, sizeof(text), "%sof %s%s %" PRIu64 " needed and ", w->said++ > 0 ? ", " : "", pages_size_text(page_bytes), where, need);
	if (have != NULL)
		snprintf(text + n, sizeof(text) - (size_t)n, "%" PRIu64 " free", have->free + have->more);
	else
		snprintf(text + n, sizeof(text) - (size_t)n, "none to be had: this system knows no such pages");
	pages_add(w, text);
}

static void
pages_say_fix(struct pages_words *w, const char *sys, const struct pages_fix *f, uint64_t default_bytes)
{
	char text[512], file[384];

	if (w->fixed++ == 0)
		pages_add(w, "; set them aside with");
	if (f->node < 0 && f->page_bytes == default_bytes)
		snprintf(text, sizeof(text), "\n    sysctl vm.nr_hugepages=%" PRIu64, f->count);
	else
		snprintf(text, sizeof(text), "\n    echo %" PRIu64 " >%s", f->count, mkv_topo_pages_file(sys, f->node, f->page_bytes, file, sizeof(file)));
	pages_add(w, text);
	if (f->page_bytes < PAGES_1G)
		return;
	snprintf(text, sizeof(text), "\nor, where memory is too scattered for that by now, on the kernel's command line\n    hugepagesz=1G hugepages=%" PRIu64, f->count);
	pages_add(w, text);
}

/* For each node and size once: what is needed and free goes to w, if it is not NULL; what mends it to fix. Returns how many of the latter. */
static unsigned
pages_walk(struct pages_words *w, const struct mkv_params *p, const char *sys, const struct pages_seg *seg, unsigned n, struct pages_fix *fix, unsigned room)
{
	static const uint64_t size[PAGES_SIZES] = { PAGES_1G, PAGES_2M };
	unsigned fixes = 0, last = w == NULL;
	struct mkv_topo_pages have;
	uint64_t need;
	int known;

	for (unsigned i = 0; i < n; i++) {
		int again = 0;

		for (unsigned j = 0; j < i; j++)
			again |= seg[j].node == seg[i].node;
		for (unsigned k = 0; k < PAGES_SIZES && !again; k++) {
			if ((need = pages_needed(p, seg, n, seg[i].node, size[k], (int)last)) == 0)
				continue;
			known = mkv_topo_pages(sys, seg[i].node, size[k], &have) == 0;
			if (w != NULL)
				pages_say_size(w, seg[i].node, size[k], need, known ? &have : NULL);
			else if (known && fixes < room)
				fix[fixes++] = (struct pages_fix){ seg[i].node, size[k], have.reserved + need - MKV_MIN(have.free + have.more, need) };
		}
	}
	return (fixes);
}

unsigned
pages_fixes(const struct mkv_params *p, const char *sys, const struct pages_seg *seg, unsigned n, struct pages_fix fix[PAGES_FIXES_MAX])
{
	return (pages_walk(NULL, p, sys, seg, n, fix, PAGES_FIXES_MAX));
}

void
pages_say(const struct mkv_params *p, const char *sys, const struct pages_seg *seg, unsigned n, uint64_t default_bytes, char *dst, size_t dst_bytes)
{
	struct pages_words w = { .dst = dst, .room = dst_bytes };
	struct pages_fix fix[PAGES_FIXES_MAX];
	unsigned fixes;

	dst[0] = '\0';
	(void)pages_walk(&w, p, sys, seg, n, NULL, 0);
	fixes = pages_fixes(p, sys, seg, n, fix);
	for (unsigned i = 0; i < fixes; i++)
		pages_say_fix(&w, sys, &fix[i], default_bytes);
	if (w.said > 0 && w.fixed == 0 && p->memory_hugepages == MKV_HUGEPAGES_REQUIRE)
		pages_add(&w, "; set memory.hugepages to auto");
}

/* ---- making ---- */

static int
pages_create_small(const struct mkv_params *p, const char *sys, const char *name, uint64_t bytes, int node, struct pages_mem *out)
{
	int advise = p->memory_hugepages != MKV_HUGEPAGES_OFF, fd;

	*out = (struct pages_mem){ .bytes = bytes, .advised = advise && mkv_topo_shmem_huge(sys) };
	fd = mkv_os_shm_create(name, bytes, advise);
	if (fd >= 0 && node >= 0)
		(void)mkv_os_shm_prefer(fd, bytes, node);	/* another node's memory is slower, nothing else */
	return (fd);
}

int
pages_create(const struct mkv_params *p, const char *sys, const char *name, uint64_t bytes, int node, struct pages_mem *out)
{
	uint64_t size[PAGES_SIZES];
	unsigned n = pages_sizes(p, bytes, size);
	int fd = MKV_E_NOMEM, r;

	for (unsigned k = 0; k < n; k++) {
		*out = (struct pages_mem){ .bytes = MKV_ALIGN_UP(bytes, size[k]), .page_bytes = size[k] };
		r = mkv_os_shm_create_huge(name, out->bytes, size[k], node);
		if (r >= 0)
			return (r);
		fd = r == MKV_E_UNSUPPORTED ? fd : r;
	}
	return (p->memory_hugepages == MKV_HUGEPAGES_REQUIRE ? fd : pages_create_small(p, sys, name, bytes, node, out));
}

char *
pages_text(const struct pages_mem *m, char *dst, size_t dst_bytes)
{
	if (m->page_bytes > 0)
		snprintf(dst, dst_bytes, "pages of %s", pages_size_text(m->page_bytes));
	else
		snprintf(dst, dst_bytes, "small pages%s", m->advised ? ", huge ones where the kernel finds them" : "");
	return (dst);
}
