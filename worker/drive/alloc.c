/*
 * The space map. Runs in the drive's loop thread; owns its arrays.
 *
 * Of the next FITS extents that have room, the tightest free run: the sizes of a store are few, so what leaves makes holes that fit what comes, and
 * large runs stay whole for large objects (first fit cuts them up: 2.6 runs an object after a week instead of 1.2, tests/scale/churn). The cursor stays
 * at the extent that served last, so that what is written together lies together. In memory (`lowest`) it stays at the first extent instead, so that
 * bytes land where others have just been freed: in the cache, on pages that were touched. `longest` is an upper bound: a search writes the true value
 * there, a free raises it to the extent's free count. `mid` and `top` are upper bounds of 64 and 4096 extents: a free raises them, a search that passes
 * by lowers them to what it finds. So a full drive of millions of extents is searched in about a thousand looks.
 * Fails only when there is no room.
 */
#include "config.h"

#include "worker/drive/alloc.h"

#include <stdlib.h>
#include <string.h>

#include "common/base/assert.h"
#include "common/base/err.h"

#define FITS	8u		/* more cost time and gain little */

static int
alloc_get(const struct mkv_alloc *a, uint64_t u)
{
	return ((a->map[u >> 6] >> (u & 63)) & 1);
}

static void
alloc_set(struct mkv_alloc *a, uint64_t u, uint32_t n, int used)
{
	while (n > 0) {
		uint32_t bit = u & 63, k = MKV_MIN(64 - bit, n);
		uint64_t mask = (k == 64 ? ~0ull : ((1ull << k) - 1)) << bit;

		if (used)
			a->map[u >> 6] |= mask;
		else
			a->map[u >> 6] &= ~mask;
		u += k;
		n -= k;
	}
}

/* 1 if every unit of [u, u+n) has the state. */
static int
alloc_all(const struct mkv_alloc *a, uint64_t u, uint32_t n, int used)
{
	while (n > 0) {
		uint32_t bit = u & 63, k = MKV_MIN(64 - bit, n);
		uint64_t mask = (k == 64 ? ~0ull : ((1ull << k) - 1)) << bit;
		uint64_t w = a->map[u >> 6] & mask;

		if (w != (used ? mask : 0))
			return (0);
		u += k;
		n -= k;
	}
	return (1);
}

int
mkv_alloc_init(struct mkv_alloc *a, uint32_t extents, uint32_t per_extent)
{
	memset(a, 0, sizeof(*a));
	if (extents == 0 || per_extent == 0 || (per_extent & (per_extent - 1)) != 0 || per_extent > UINT16_MAX || (uint64_t)extents * per_extent > UINT32_MAX)
		return (MKV_E_INVAL);
	a->extents = extents;
	a->per_extent = per_extent;
	a->shift = (uint32_t)__builtin_ctz(per_extent);
	a->units = a->free_units = (uint64_t)extents * per_extent;
	a->map = calloc((a->units + 63) / 64, 8);
	a->free_in = calloc(extents, sizeof(uint16_t));
	a->longest = calloc(extents, sizeof(uint16_t));
	a->mid = calloc(MKV_DIV_UP(extents, MKV_ALLOC_GROUP), sizeof(uint16_t));
	a->top = calloc(MKV_DIV_UP(extents, MKV_ALLOC_GROUP * MKV_ALLOC_GROUP), sizeof(uint16_t));
	if (a->map == NULL || a->free_in == NULL || a->longest == NULL || a->mid == NULL || a->top == NULL) {
		mkv_alloc_fini(a);
		return (MKV_E_NOMEM);
	}
	for (uint32_t i = 0; i < extents; i++)
		a->free_in[i] = a->longest[i] = a->mid[i / MKV_ALLOC_GROUP] = a->top[i / MKV_ALLOC_GROUP / MKV_ALLOC_GROUP] = (uint16_t)per_extent;
	return (0);
}

void
mkv_alloc_fini(struct mkv_alloc *a)
{
	free(a->map);
	free(a->free_in);
	free(a->longest);
	free(a->mid);
	free(a->top);
	memset(a, 0, sizeof(*a));
}

/* The units are free: the caller has looked. */
static void
alloc_claim(struct mkv_alloc *a, struct mkv_run run)
{
	uint32_t x = run.off >> a->shift;

	MKV_ASSERT(a->free_in[x] >= run.len);
	alloc_set(a, run.off, run.len, 1);
	a->free_in[x] = (uint16_t)(a->free_in[x] - run.len);
	a->longest[x] = MKV_MIN(a->longest[x], a->free_in[x]);
	a->free_units -= run.len;
}

/* First free unit in [u, end), skipping full words. */
static uint64_t
alloc_next_free(const struct mkv_alloc *a, uint64_t u, uint64_t end)
{
	while (u < end) {
		if ((u & 63) == 0 && a->map[u >> 6] == ~0ull) {
			u += 64;
			continue;
		}
		if (!alloc_get(a, u))
			return (u);
		u++;
	}
	return (end);
}

/* The shortest free run of >= n units in extent x, else the longest one (len 0: none). Writes the true longest. */
static struct mkv_run
alloc_search(struct mkv_alloc *a, uint32_t x, uint32_t n)
{
	uint64_t u = (uint64_t)x * a->per_extent, end = u + a->per_extent;
	struct mkv_run longest = { 0, 0 }, fit = { 0, UINT32_MAX };

	while ((u = alloc_next_free(a, u, end)) < end) {
		struct mkv_run r = { .off = (uint32_t)u };

		while (u < end && !alloc_get(a, u))
			u++;
		r.len = (uint32_t)u - r.off;
		if (r.len > longest.len)
			longest = r;
		if (r.len >= n && r.len < fit.len)
			fit = r;
	}
	a->longest[x] = (uint16_t)longest.len;
	return (longest.len >= n ? fit : longest);
}

static uint16_t
alloc_max(const uint16_t *v, uint32_t n)
{
	uint16_t m = 0;

	for (uint32_t i = 0; i < n; i++)
		m = MKV_MAX(m, v[i]);
	return (m);
}

/* The first extent in [x, end) that may have a free run of n units; end: none has. */
static uint32_t
alloc_find(struct mkv_alloc *a, uint32_t x, uint32_t end, uint32_t n)
{
	uint32_t mids = MKV_DIV_UP(a->extents, MKV_ALLOC_GROUP);

	while (x < end) {
		uint32_t m = x / MKV_ALLOC_GROUP, t = m / MKV_ALLOC_GROUP;

		if (x % (MKV_ALLOC_GROUP * MKV_ALLOC_GROUP) == 0) {
			if (a->top[t] >= n)
				a->top[t] = alloc_max(a->mid + m, MKV_MIN(MKV_ALLOC_GROUP, mids - m));
			if (a->top[t] < n) {
				x += MKV_MIN(MKV_ALLOC_GROUP * MKV_ALLOC_GROUP, end - x);
				continue;
			}
		}
		if (x % MKV_ALLOC_GROUP == 0) {
			if (a->mid[m] >= n)
				a->mid[m] = alloc_max(a->longest + x, MKV_MIN(MKV_ALLOC_GROUP, a->extents - x));
			if (a->mid[m] < n) {
				x += MKV_MIN(MKV_ALLOC_GROUP, end - x);
				continue;
			}
		}
		if (a->longest[x] >= n)
			return (x);
		x++;
	}
	return (end);
}

/* The next one behind i steps from the cursor, round the end; *i says how many steps it is away. 0: none. */
static int
alloc_find_round(struct mkv_alloc *a, uint32_t *i, uint32_t n)
{
	uint32_t x;

	if (*i < a->extents - a->cursor) {
		x = alloc_find(a, a->cursor + *i, a->extents, n);
		*i = x - a->cursor;
		if (x < a->extents)
			return (1);
	}
	x = alloc_find(a, *i - (a->extents - a->cursor), a->cursor, n);
	*i = x + (a->extents - a->cursor);
	return (x < a->cursor);
}

/* n units out of up to runs_max runs, largest of each extent first come. Takes nothing unless all fit. */
static unsigned
alloc_gather(struct mkv_alloc *a, uint32_t n, struct mkv_run *runs, unsigned runs_max)
{
	unsigned k = 0;
	uint32_t least;

	for (uint32_t i = 0; n > 0 && k < runs_max; ) {
		struct mkv_run r;

		/* Each run takes its share at least, or the last ones could not take the rest. */
		least = MKV_DIV_UP(n, runs_max - k);
		if (!alloc_find_round(a, &i, least))
			break;
		r = alloc_search(a, (a->cursor + i) % a->extents, n);
		if (r.len < least) {
			i++;
			continue;
		}
		r.len = MKV_MIN(r.len, n);
		MKV_ASSERT(alloc_all(a, r.off, r.len, 0));
		alloc_claim(a, r);
		runs[k++] = r;
		n -= r.len;
	}
	if (n == 0)
		return (k);
	while (k > 0)
		mkv_alloc_free(a, runs[--k]);
	return (0);
}

/* The tightest run of the next FITS extents that have one of n units. len 0: none has. */
static struct mkv_run
alloc_fit(struct mkv_alloc *a, uint32_t n)
{
	struct mkv_run fit = { 0, 0 };
	unsigned fits = 0;

	for (uint32_t i = 0; fits < FITS && fit.len != n && alloc_find_round(a, &i, n); i++) {
		struct mkv_run r = alloc_search(a, (a->cursor + i) % a->extents, n);

		if (r.len < n)
			continue;
		if (fits++ == 0 || r.len < fit.len)
			fit = r;
	}
	return (fit);
}

unsigned
mkv_alloc_take(struct mkv_alloc *a, uint32_t n, struct mkv_run *runs, unsigned runs_max)
{
	struct mkv_run r;

	MKV_ASSERT(n > 0 && n <= a->per_extent);
	if (n > a->free_units)
		return (0);
	r = alloc_fit(a, n);
	if (r.len == 0)
		return (runs_max > 1 ? alloc_gather(a, n, runs, runs_max) : 0);
	r.len = n;
	MKV_ASSERT(alloc_all(a, r.off, r.len, 0));
	alloc_claim(a, r);
	if (!a->lowest)
		a->cursor = r.off >> a->shift;
	runs[0] = r;
	return (1);
}

void
mkv_alloc_free(struct mkv_alloc *a, struct mkv_run run)
{
	uint32_t x = run.off >> a->shift;

	MKV_ASSERT(run.len > 0 && (uint64_t)run.off + run.len <= a->units);
	MKV_ASSERT((run.off + run.len - 1) >> a->shift == x);
	MKV_ASSERT(alloc_all(a, run.off, run.len, 1));
	alloc_set(a, run.off, run.len, 0);
	a->free_in[x] = (uint16_t)(a->free_in[x] + run.len);
	a->longest[x] = a->free_in[x];
	x /= MKV_ALLOC_GROUP;
	a->mid[x] = MKV_MAX(a->mid[x], a->longest[run.off >> a->shift]);
	a->top[x / MKV_ALLOC_GROUP] = MKV_MAX(a->top[x / MKV_ALLOC_GROUP], a->mid[x]);
	a->free_units += run.len;
}

struct mkv_run
mkv_alloc_peek(const struct mkv_alloc *a, uint32_t x, uint32_t from, uint32_t most)
{
	uint64_t u = (uint64_t)x * a->per_extent + from, end = ((uint64_t)x + 1) * a->per_extent, begin;

	if (a->free_in[x] == 0)
		return ((struct mkv_run){ 0, 0 });
	u = begin = alloc_next_free(a, u, end);
	while (u < end && u - begin < most && !alloc_get(a, u))
		u++;
	return ((struct mkv_run){ (uint32_t)begin, (uint32_t)(u - begin) });
}

void
mkv_alloc_claim(struct mkv_alloc *a, struct mkv_run run)
{
	MKV_ASSERT(run.len > 0 && (uint64_t)run.off + run.len <= a->units);
	MKV_ASSERT((run.off + run.len - 1) >> a->shift == run.off >> a->shift);
	MKV_ASSERT(alloc_all(a, run.off, run.len, 0));
	alloc_claim(a, run);
}

/* Most runs lie in one word of the map, and a recovery marks millions: one look, one store. */
int
mkv_alloc_mark(struct mkv_alloc *a, struct mkv_run run)
{
	uint32_t bit = run.off & 63;
	uint64_t mask;

	if (run.len == 0 || run.len > a->per_extent || (uint64_t)run.off + run.len > a->units)
		return (MKV_E_CORRUPT);
	if ((run.off + run.len - 1) >> a->shift != run.off >> a->shift)
		return (MKV_E_CORRUPT);
	if (bit + run.len < 64) {
		mask = ((1ull << run.len) - 1) << bit;
		if ((a->map[run.off >> 6] & mask) != 0)
			return (MKV_E_CORRUPT);
		a->map[run.off >> 6] |= mask;
		return (0);
	}
	if (!alloc_all(a, run.off, run.len, 0))
		return (MKV_E_CORRUPT);
	alloc_set(a, run.off, run.len, 1);
	return (0);
}

void
mkv_alloc_unmark(struct mkv_alloc *a, struct mkv_run run)
{
	MKV_ASSERT(run.len > 0 && (uint64_t)run.off + run.len <= a->units);
	MKV_ASSERT(alloc_all(a, run.off, run.len, 1));
	alloc_set(a, run.off, run.len, 0);
}

void
mkv_alloc_marked(struct mkv_alloc *a)
{
	a->free_units = 0;
	for (uint32_t x = 0; x < a->extents; x++) {
		uint64_t u = (uint64_t)x * a->per_extent;
		uint32_t n = 0;

		if (a->per_extent < 64) {
			for (uint64_t k = 0; k < a->per_extent; k++)
				n += alloc_get(a, u + k) == 0;
		} else {
			for (uint64_t w = u / 64; w < (u + a->per_extent) / 64; w++)
				n += (uint32_t)__builtin_popcountll(~a->map[w]);
		}
		a->free_in[x] = a->longest[x] = (uint16_t)n;
		a->free_units += n;
	}
}
