/*
 * Digests of keys and placement. XXH3; not a MAC: whoever knows the secret can make collisions, so the secret stays on the server.
 */
#ifndef MKV_BASE_HASH_H
#define MKV_BASE_HASH_H

#include <stddef.h>
#include <stdint.h>

struct mkv_digest {
	uint64_t	lo, hi;
};

#define MKV_SECRET_BYTES	192		/* XXH3 secret; from mkv_hkdf over the store's 32-byte secret */

static inline int
mkv_digest_eq(struct mkv_digest a, struct mkv_digest b)
{
	return (a.lo == b.lo && a.hi == b.hi);
}

/* Expand the store's secret for one namespace (name of 0..63 bytes) into the XXH3 secret. */
int			mkv_digest_secret(const uint8_t store_secret[32], const void *ns, size_t ns_bytes, uint8_t out[MKV_SECRET_BYTES]);
struct mkv_digest	mkv_digest(const uint8_t secret[MKV_SECRET_BYTES], const void *key, size_t key_bytes);
uint64_t		mkv_hash64(const void *p, size_t bytes, uint64_t seed);	/* unkeyed XXH3 */

/*
 * Weighted rendezvous hashing (docs/internals/placement.md): score(i) = -weight_i / ln(u), u in (0,1) from hash64(node_i) mixed with hash64(key); the largest
 * score wins, ties go to the smaller node hash. Documented in docs/internals/placement.md so that any client can repeat it.
 * node_hash[i]: mkv_hash64(name or uuid, bytes, 0), computed once. weight 0 excludes a node. Returns the index, -1 if none.
 */
int			mkv_rendezvous(const uint64_t *node_hash, const double *weight, unsigned n, uint64_t key_hash);
#define MKV_RENDEZVOUS_TOP_MAX	64u
/* The best `want` (<= MKV_RENDEZVOUS_TOP_MAX) nodes in order of score; returns how many. */
unsigned		mkv_rendezvous_top(const uint64_t *node_hash, const double *weight, unsigned n, uint64_t key_hash, unsigned *out, unsigned want);

#endif
