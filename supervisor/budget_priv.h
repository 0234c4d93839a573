/*
 * What the server takes of the machine's memory, in which pages, against what there is.
 */
#ifndef MKV_SUPERVISOR_BUDGET_PRIV_H
#define MKV_SUPERVISOR_BUDGET_PRIV_H

#include <stddef.h>
#include <stdint.h>

#include "common/base/os.h"
#include "supervisor/config_priv.h"
#include "supervisor/pages_priv.h"

#define BUDGET_SEGS_MAX	(CONFIG_FRONTS_MAX + CONFIG_DRIVES_MAX + 1u)

struct mkv_sup;

enum budget_part { BUDGET_STAGE, BUDGET_ARENAS, BUDGET_PAGES, BUDGET_PARTS };

struct budget {
	uint64_t	part[BUDGET_PARTS];	/* bytes of small pages: to begin with, what lies in no segment */
	struct pages_seg seg[BUDGET_SEGS_MAX];
	unsigned	n_seg;
	const char	*sys;			/* where sysfs is */
};

/* For the metadata of an arena: records of small objects take about 1/16 of their data. */
uint64_t	budget_arena_meta(uint64_t arena_bytes);
void		budget_fronts(struct budget *b, const struct mkv_params *p, const struct config_derived *d);	/* begins */
void		budget_drive(struct budget *b, const struct mkv_params *p, uint64_t bytes);			/* one more; bytes: of an arena */
uint64_t	budget_bytes(const struct budget *b, enum budget_part part);	/* whatever pages it will lie in; before budget_check() */
/*
 * 0, or MKV_E_CONFIG and words: the sum, what there is, what to lower; or how many huge pages there are, how many are needed, what sets them aside.
 * b is planned then: what lies in small pages is in its parts.
 */
int		budget_check(struct budget *b, const struct mkv_params *p, const struct mkv_os_memory *m, char *why, size_t why_bytes);
/* The shared memory of a plan and its pages, and what would be needed for better ones: "8.0 GiB of staging in pages of 2 MiB". */
void		budget_say_pages(const struct budget *b, const struct mkv_params *p, const struct mkv_os_memory *m, char *dst, size_t dst_bytes);
/* All of it, against this machine. With 0 why says what budget_say_pages() says, or nothing. */
int		budget_config(const struct config *c, char *why, size_t why_bytes);
/* The same with the drives that the pool has, and one more. */
int		budget_pool(const struct mkv_sup *s, uint64_t more_bytes, int more, char *why, size_t why_bytes);

#endif
