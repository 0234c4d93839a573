/*
 * In which pages segments lie: what is asked for, what there is, what was got.
 */
#ifndef MKV_SUPERVISOR_PAGES_PRIV_H
#define MKV_SUPERVISOR_PAGES_PRIV_H

#include <stddef.h>
#include <stdint.h>

#include "common/base/params.h"

#define PAGES_SIZES	2u		/* 1 GiB, 2 MiB */
#define PAGES_FIXES_MAX	16u		/* nodes and sizes that are short; more are not said */

struct pages_mem {			/* what a segment lies in */
	uint64_t	bytes;		/* of the segment: whole pages */
	uint64_t	page_bytes;	/* of reserved pages; 0: the system's small ones */
	int		advised;	/* ... of which the kernel may make huge ones */
};

struct pages_seg {			/* a segment that is to be, or is there */
	uint64_t	bytes;
	int		node;		/* NUMA node it is to lie on; -1: any */
	int		held;		/* it is there, in page_bytes */
	uint64_t	page_bytes;	/* pages_plan(): as in struct pages_mem */
	unsigned	part;		/* the caller's */
};

struct pages_fix {			/* that many pages of that size, on that node, would be enough */
	int		node;		/* -1: any */
	uint64_t	page_bytes, count;
};

/* The page of so many bytes that memory.hugepages and memory.hugepage_size allow, best first. Returns how many. */
unsigned	pages_sizes(const struct mkv_params *p, uint64_t bytes, uint64_t size[PAGES_SIZES]);
/* Give each segment that is not held the best pages that are free, in the order of the list. Returns how many got small ones. */
unsigned	pages_plan(const struct mkv_params *p, const char *sys, struct pages_seg *seg, unsigned n);
/*
 * Of those that got small pages: how many huge ones they need and how many are free, for each size and node, and the line that sets aside enough.
 * default_bytes: the size that vm.nr_hugepages counts.
 */
void		pages_say(const struct mkv_params *p, const char *sys, const struct pages_seg *seg, unsigned n, uint64_t default_bytes, char *dst,
		    size_t dst_bytes);
/* The same as numbers: what to set aside so that all of them get huge ones. Returns how many lines that takes. */
unsigned	pages_fixes(const struct mkv_params *p, const char *sys, const struct pages_seg *seg, unsigned n, struct pages_fix fix[PAGES_FIXES_MAX]);
/*
 * A segment of at least so many bytes in the best pages that there are, on that node if it is not -1.
 * Returns: its descriptor; with memory.hugepages require MKV_E_NOMEM or MKV_E_DENIED (as mkv_os_shm_create_huge()) if there are none.
 */
int		pages_create(const struct mkv_params *p, const char *sys, const char *name, uint64_t bytes, int node, struct pages_mem *out);
char *		pages_text(const struct pages_mem *m, char *dst, size_t dst_bytes);	/* "pages of 2 MiB". Returns dst */

#endif
