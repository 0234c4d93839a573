/*
 * Digests of keys (XXH3 under a secret) and weighted rendezvous hashing. docs/internals/placement.md has the arithmetic.
 *
 * Any process, any thread; no state. Only mkv_digest_secret() can fail (no memory, no SHA-256).
 */
#include "config.h"
#include "common/base/hash.h"

#include <math.h>
#include <string.h>

#define XXH_INLINE_ALL		/* lists of keys make thousands of digests: the call and its dispatch cost more than the hash of a short key */
#include <xxhash.h>

#include "common/base/assert.h"
#include "common/base/auth.h"
#include "common/base/err.h"

#define HASH_NS_MAX	63u

_Static_assert(MKV_SECRET_BYTES >= XXH3_SECRET_SIZE_MIN, "XXH3 takes no shorter secret");

int
mkv_digest_secret(const uint8_t store_secret[32], const void *ns, size_t ns_bytes, uint8_t out[MKV_SECRET_BYTES])
{
	static const char label[] = "memkv1 digest";
	uint8_t info[sizeof(label) - 1 + HASH_NS_MAX];

	if (ns_bytes > HASH_NS_MAX)
		return (MKV_E_INVAL);
	memcpy(info, label, sizeof(label) - 1);
	if (ns_bytes != 0)
		memcpy(info + sizeof(label) - 1, ns, ns_bytes);
	return (mkv_hkdf(store_secret, 32, NULL, 0, info, sizeof(label) - 1 + ns_bytes, out, MKV_SECRET_BYTES));
}

struct mkv_digest
mkv_digest(const uint8_t secret[MKV_SECRET_BYTES], const void *key, size_t key_bytes)
{
	XXH128_hash_t h = XXH3_128bits_withSecret(key, key_bytes, secret, MKV_SECRET_BYTES);

	return ((struct mkv_digest){ .lo = h.low64, .hi = h.high64 });
}

uint64_t
mkv_hash64(const void *p, size_t bytes, uint64_t seed)
{
	return (XXH3_64bits_withSeed(p, bytes, seed));
}

/* A bijection that spreads every input bit over the whole word. */
static uint64_t
hash_mix(uint64_t x)
{
	x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9ull;
	x = (x ^ x >> 27) * 0x94d049bb133111ebull;
	return (x ^ x >> 31);
}

static double
hash_score(uint64_t node_hash, double weight, uint64_t key_hash)
{
	uint64_t mixed = hash_mix(node_hash ^ hash_mix(key_hash));
	double u = ((double)(mixed >> 11) + 0.5) * 0x1p-53;	/* never 0, never 1 */

	return (-weight / log(u));
}

/* 1 if node a, with its score, comes before node b. */
static int
hash_before(double score_a, uint64_t node_a, double score_b, uint64_t node_b)
{
	return (score_a > score_b || (score_a == score_b && node_a < node_b));
}

int
mkv_rendezvous(const uint64_t *node_hash, const double *weight, unsigned n, uint64_t key_hash)
{
	double score, best_score = 0;
	int best = -1;

	for (unsigned i = 0; i < n; i++) {
		if (!(weight[i] > 0))
			continue;
		score = hash_score(node_hash[i], weight[i], key_hash);
		if (best < 0 || hash_before(score, node_hash[i], best_score, node_hash[best])) {
			best_score = score;
			best = (int)i;
		}
	}
	return (best);
}

unsigned
mkv_rendezvous_top(const uint64_t *node_hash, const double *weight, unsigned n, uint64_t key_hash, unsigned *out, unsigned want)
{
	double score[MKV_RENDEZVOUS_TOP_MAX], s;
	unsigned found = 0, at;

	MKV_ASSERT(want <= MKV_RENDEZVOUS_TOP_MAX);
	for (unsigned i = 0; i < n; i++) {
		if (!(weight[i] > 0))
			continue;
		s = hash_score(node_hash[i], weight[i], key_hash);
		for (at = found; at > 0 && hash_before(s, node_hash[i], score[at - 1], node_hash[out[at - 1]]); at--)
			continue;
		if (at == want)
			continue;
		found = MKV_MIN(found + 1, want);
		memmove(&score[at + 1], &score[at], (found - at - 1) * sizeof(score[0]));
		memmove(&out[at + 1], &out[at], (found - at - 1) * sizeof(out[0]));
		score[at] = s;
		out[at] = i;
	}
	return (found);
}
