/*
 * The content generator: one multiplication for each 8 bytes, several GB/s, no tables. Any thread; keeps nothing.
 */
#include "config.h"
#include "bench/gen.h"

#include <string.h>

#include "common/base/assert.h"

#define GEN_MAGIC_FULL	0x6b766d2d6c6c7546ull	/* "Full-mvk" */
#define GEN_MAGIC_LIGHT	0x6b766d2d6574694cull	/* "Lite-mvk" */
#define GEN_STEP	0x9e3779b97f4a7c15ull	/* 2^64 / golden ratio: odd, so all words differ */
#define GEN_MIX		0xd6e8feb86659fd93ull
#define GEN_STAMP	sizeof(struct mkv_gen_stamp)

_Static_assert(sizeof(struct mkv_gen_stamp) == 32, "the head of a block");

static uint64_t
gen_mix(uint64_t x)
{
	x ^= x >> 32;
	x *= GEN_MIX;
	x ^= x >> 32;
	x *= GEN_MIX;
	x ^= x >> 32;
	return (x);
}

static uint64_t
gen_base(uint64_t seed, uint64_t key, uint64_t version)
{
	return (gen_mix(gen_mix(gen_mix(seed + GEN_STEP) ^ key) + version));
}

/* Word i of the body. */
static inline uint64_t
gen_word(uint64_t base, uint64_t i)
{
	uint64_t x = (base + i * GEN_STEP) * GEN_MIX;

	return (x ^ (x >> 29));
}

uint64_t
mkv_gen_random(uint64_t *state)
{
	uint64_t x = *state;

	x ^= x << 13;
	x ^= x >> 7;
	x ^= x << 17;
	*state = x;
	return (x * GEN_STEP);
}

static void
gen_body(unsigned char *p, size_t bytes, uint64_t base)
{
	size_t words = bytes / 8;
	uint64_t w;

	for (size_t i = 0; i < words; i++) {
		w = gen_word(base, i);
		memcpy(p + i * 8, &w, 8);
	}
	w = gen_word(base, words);
	memcpy(p + words * 8, &w, bytes % 8);
}

/* Offset of the first word that differs, or `bytes`. */
static size_t
gen_body_check(const unsigned char *p, size_t bytes, uint64_t base)
{
	size_t words = bytes / 8, i = 0;
	uint64_t w[8], diff;

	for (; i + 8 <= words; i += 8) {
		memcpy(w, p + i * 8, sizeof(w));
		diff = 0;
		for (unsigned k = 0; k < 8; k++)
			diff |= w[k] ^ gen_word(base, i + k);
		if (diff != 0)
			break;
	}
	for (; i < words; i++) {
		memcpy(w, p + i * 8, 8);
		if (w[0] != gen_word(base, i))
			return (i * 8);
	}
	w[0] = gen_word(base, words);
	return (memcmp(p + words * 8, w, bytes % 8) == 0 ? bytes : words * 8);
}

static void
gen_head(void *buf, size_t bytes, uint64_t magic, uint64_t seed, uint64_t key, uint64_t version)
{
	struct mkv_gen_stamp s = { magic, key, version, gen_mix(gen_base(seed, key, version) ^ bytes) ^ magic };

	memcpy(buf, &s, sizeof(s));
}

void
mkv_gen_fill(void *buf, size_t bytes, uint64_t seed, uint64_t key, uint64_t version)
{
	if (bytes < GEN_STAMP) {
		gen_body(buf, bytes, gen_base(seed, key, 0));
		return;
	}
	gen_head(buf, bytes, GEN_MAGIC_FULL, seed, key, version);
	gen_body((unsigned char *)buf + GEN_STAMP, bytes - GEN_STAMP, gen_base(seed, key, version));
}

void
mkv_gen_stamp(void *buf, size_t bytes, uint64_t seed, uint64_t key, uint64_t version)
{
	if (bytes < GEN_STAMP)
		gen_body(buf, bytes, gen_base(seed, key, 0));
	else
		gen_head(buf, bytes, GEN_MAGIC_LIGHT, seed, key, version);
}

enum mkv_gen_result
mkv_gen_check(const void *buf, size_t bytes, uint64_t seed, uint64_t key, uint64_t floor, int full, size_t *where)
{
	struct mkv_gen_stamp s, want;
	uint64_t base;
	size_t at = 0;

	if (where == NULL)
		where = &at;
	*where = 0;
	if (bytes < GEN_STAMP) {
		*where = gen_body_check(buf, bytes, gen_base(seed, key, 0));
		return (*where == bytes ? MKV_GEN_GOOD : MKV_GEN_WRONG);
	}
	memcpy(&s, buf, sizeof(s));
	if (s.magic != GEN_MAGIC_FULL && s.magic != GEN_MAGIC_LIGHT)
		return (MKV_GEN_WRONG);
	gen_head(&want, bytes, s.magic, seed, key, s.version);
	if (memcmp(&s, &want, sizeof(s)) != 0)
		return (MKV_GEN_WRONG);
	if (s.magic == GEN_MAGIC_LIGHT)
		return (s.version < floor ? MKV_GEN_STALE : full ? MKV_GEN_LIGHT : MKV_GEN_GOOD);
	if (full) {
		base = gen_base(seed, key, s.version);
		*where = GEN_STAMP + gen_body_check((const unsigned char *)buf + GEN_STAMP, bytes - GEN_STAMP, base);
		if (*where != bytes)
			return (MKV_GEN_WRONG);
	}
	return (s.version < floor ? MKV_GEN_STALE : MKV_GEN_GOOD);
}
