/*
 * What the server takes of the machine's memory, against what there is.
 */
#ifndef MKV_SUPERVISOR_BUDGET_PRIV_H
#define MKV_SUPERVISOR_BUDGET_PRIV_H

#include <stddef.h>
#include <stdint.h>

#include "common/base/os.h"
#include "supervisor/config_priv.h"

struct mkv_sup;

enum budget_part { BUDGET_STAGE, BUDGET_ARENAS, BUDGET_PAGES, BUDGET_PARTS };

struct budget {
	uint64_t	part[BUDGET_PARTS];	/* bytes */
	uint64_t	segment;		/* of one front, in part[BUDGET_STAGE] */
	int		hugepages;		/* as in memory.hugepages */
};

/* For the metadata of an arena: records of small objects take about 1/16 of their data. */
uint64_t	budget_arena_meta(uint64_t arena_bytes);
void		budget_fronts(struct budget *b, const struct mkv_params *p, const struct config_derived *d);	/* begins */
void		budget_drive(struct budget *b, const struct mkv_params *p, uint64_t bytes);			/* one more; bytes: of an arena */
/* 0, or MKV_E_CONFIG and words: the sum, what there is, what to lower. */
int		budget_check(const struct budget *b, const struct mkv_params *p, const struct mkv_os_memory *m, char *why, size_t why_bytes);
int		budget_config(const struct config *c, char *why, size_t why_bytes);	/* all of it, against this machine */
/* The same with the drives that the pool has, and one more. */
int		budget_pool(const struct mkv_sup *s, uint64_t more_bytes, int more, char *why, size_t why_bytes);

#endif
