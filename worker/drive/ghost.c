/*
 * Ghosts (see ghost.h). Drive's loop thread; owns one table. Fails only when it is made.
 */
#include "config.h"

#include "worker/drive/ghost.h"

#include <stdlib.h>
#include <string.h>

#include "common/base/assert.h"
#include "common/base/err.h"

#define GHOST_TIME_MASK	0xfffu
#define GHOST_TURNS	2u			/* of the table, in all steps: what is older than that was replaced long ago */

int
mkv_ghost_init(struct mkv_ghost *g, uint32_t ghosts)
{
	uint32_t sets = 16;

	memset(g, 0, sizeof(*g));
	while (MKV_GHOST_WAYS * (uint64_t)sets < ghosts && sets < 1u << 28)
		sets *= 2;
	if ((g->word = calloc((size_t)sets * MKV_GHOST_WAYS, sizeof(*g->word))) == NULL)
		return (MKV_E_NOMEM);
	g->mask = sets - 1;
	g->step = (uint32_t)MKV_MAX(GHOST_TURNS * mkv_ghost_room(g) / GHOST_TIME_MASK, 1ull);
	return (0);
}

void
mkv_ghost_fini(struct mkv_ghost *g)
{
	free(g->word);
	memset(g, 0, sizeof(*g));
}

static uint32_t *
ghost_set(const struct mkv_ghost *g, struct mkv_digest d)
{
	return (&g->word[(d.lo & g->mask) * MKV_GHOST_WAYS]);
}

/* Its upper bits, never 0: a word of 0 is empty. */
static uint32_t
ghost_name(struct mkv_digest d)
{
	return ((uint32_t)(d.hi >> 44) | 1u);
}

static uint32_t
ghost_age(const struct mkv_ghost *g, uint32_t word)
{
	return (((uint32_t)(g->made / g->step) - word) & GHOST_TIME_MASK);
}

void
mkv_ghost_add(struct mkv_ghost *g, struct mkv_digest d)
{
	uint32_t *set = ghost_set(g, d), *to = &set[0];

	for (unsigned k = 0; k < MKV_GHOST_WAYS; k++) {
		if (set[k] == 0 || set[k] >> 12 == ghost_name(d)) {
			to = &set[k];
			break;
		}
		if (ghost_age(g, set[k]) > ghost_age(g, *to))
			to = &set[k];
	}
	g->made++;
	*to = ghost_name(d) << 12 | ((uint32_t)(g->made / g->step) & GHOST_TIME_MASK);
}

int
mkv_ghost_take(struct mkv_ghost *g, struct mkv_digest d, uint64_t window)
{
	uint32_t *set = ghost_set(g, d);

	for (unsigned k = 0; k < MKV_GHOST_WAYS; k++) {
		int young = (uint64_t)ghost_age(g, set[k]) * g->step <= window;

		if (set[k] >> 12 != ghost_name(d))
			continue;
		set[k] = 0;
		return (young);
	}
	return (0);
}
