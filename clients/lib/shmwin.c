/*
 * A window: the memfd, its pages, which units of it are taken.
 *
 * The loop's thread. Owns descriptor, mapping and bitmap. Chunks are taken from the lowest place on, so that few requests stay in memory that the caches know.
 * Invariants: sealed against another size from its first moment, and all pages there before mkv_shmwin_step() says so: a server takes no other memfd.
 * Fails: memory, descriptors (the window is none again); no room for a chunk.
 */
#include "config.h"

#include "clients/lib/shmwin.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/base/assert.h"
#include "common/base/err.h"
#include "common/base/os.h"

#define STEP_BYTES	(4ull << 20)		/* taking as many pages costs about as long as copying so much */
#define HUGE_BYTES	(2ull << 20)

static int
window_open(struct shmwin *w, uint64_t bytes)
{
	int huge = bytes % HUGE_BYTES == 0, r;

	MKV_ASSERT(bytes > 0 && bytes % WINDOW_UNIT == 0);
	if ((w->fd = mkv_os_shm_create("memkv-window", bytes, huge)) < 0)
		return (w->fd);
	if ((r = mkv_os_shm_map(w->fd, bytes, 1, huge, (void **)&w->base)) != 0) {
		w->base = NULL;
		(void)close(w->fd);
		return (r);
	}
	w->bytes = bytes;
	w->filled = 0;
	w->large = huge;
	w->used = calloc(MKV_ALIGN_UP(bytes / WINDOW_UNIT, 64) / 64, sizeof(w->used[0]));
	return (w->used == NULL ? MKV_E_NOMEM : 0);
}

/*
 * By the mapping, which may have huge pages; the last step makes sure of all. Into small ones, which lie anywhere, a device reads far slower: so huge ones are asked for
 * in any case, as long as there are any; step by step, for where memory is in pieces the kernel moves others away to make one, and the loop stands still meanwhile.
 */
static int
window_fill(struct shmwin *w)
{
	uint64_t step = MKV_MIN(STEP_BYTES, w->bytes - w->filled);

	if (w->large)
		w->large = mkv_os_collapse(w->base + w->filled, step);
	mkv_os_populate(w->base + w->filled, step);
	w->filled += step;
	return (w->filled < w->bytes ? 0 : mkv_os_shm_fill(w->fd, w->bytes));
}

int
mkv_shmwin_step(struct shmwin *w, uint64_t bytes)
{
	int r;

	if (w->base != NULL && w->filled == w->bytes)
		return (1);
	if ((w->base == NULL && (r = window_open(w, bytes)) != 0) || (r = window_fill(w)) != 0) {
		mkv_shmwin_fini(w);
		return (r);
	}
	return (w->filled == w->bytes);
}

void
mkv_shmwin_fini(struct shmwin *w)
{
	if (w->base != NULL) {
		mkv_os_shm_unmap(w->base, w->bytes);
		(void)close(w->fd);
	}
	free(w->used);
	memset(w, 0, sizeof(*w));
}

static int
unit_used(const struct shmwin *w, uint64_t i)
{
	return ((int)(w->used[i / 64] >> (i % 64) & 1));
}

static void
units_mark(struct shmwin *w, const struct chunk *k, int used)
{
	for (uint64_t i = k->at; i < (uint64_t)k->at + k->units; i++) {
		MKV_ASSERT(unit_used(w, i) != used);
		w->used[i / 64] ^= 1ull << (i % 64);
	}
}

int
mkv_shmwin_take(struct shmwin *w, uint64_t bytes, struct chunk *out)
{
	uint64_t want = MKV_ALIGN_UP(bytes, WINDOW_UNIT) / WINDOW_UNIT, n = w->bytes / WINDOW_UNIT, run = 0;

	MKV_ASSERT(want > 0);
	for (uint64_t i = 0; i < n; i++) {
		run = unit_used(w, i) ? 0 : run + 1;
		if (run == want) {
			*out = (struct chunk){ .at = (uint32_t)(i + 1 - want), .units = (uint32_t)want };
			units_mark(w, out, 1);
			return (0);
		}
	}
	return (MKV_E_AGAIN);
}

void
mkv_shmwin_drop(struct shmwin *w, struct chunk *k)
{
	units_mark(w, k, 0);
	*k = (struct chunk){ 0 };
}
