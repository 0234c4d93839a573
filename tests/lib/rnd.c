/*
 * Random numbers of the unit tests (splitmix64). One thread per struct rnd.
 */
#include "config.h"
#include "tests/lib/rnd.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/assert.h"

void
rnd_init(struct rnd *r, uint64_t seed)
{
	const char *s = getenv("MKV_SEED");

	r->state = s != NULL ? strtoull(s, NULL, 0) : seed;
	printf("MKV_SEED=%" PRIu64 "\n", r->state);
}

uint64_t
rnd_u64(struct rnd *r)
{
	uint64_t z = r->state += 0x9e3779b97f4a7c15ull;

	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9ull;
	z = (z ^ z >> 27) * 0x94d049bb133111ebull;
	return (z ^ z >> 31);
}

uint32_t
rnd_below(struct rnd *r, uint32_t n)
{
	MKV_ASSERT(n > 0);
	return ((uint32_t)((rnd_u64(r) >> 32) * n >> 32));
}

void
rnd_fill(struct rnd *r, void *dst, size_t bytes)
{
	uint8_t *p = dst;
	uint64_t v;
	size_t n;

	for (; bytes > 0; bytes -= n, p += n) {
		v = rnd_u64(r);
		n = MKV_MIN(bytes, sizeof(v));
		memcpy(p, &v, n);
	}
}
