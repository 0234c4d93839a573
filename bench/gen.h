/*
 * Block contents that can be checked: a function of (seed, key number, version) and the place in the block, so that bytes of another key,
 * another version or another place never pass.
 */
#ifndef MKV_BENCH_GEN_H
#define MKV_BENCH_GEN_H

#include <stddef.h>
#include <stdint.h>

/* The head of every block that has room for it. */
struct mkv_gen_stamp {
	uint64_t	magic;		/* GEN_MAGIC_FULL: the rest is generated; GEN_MAGIC_LIGHT: only this head means anything */
	uint64_t	key;
	uint64_t	version;
	uint64_t	check;		/* over seed, key, version, size and magic */
};

enum mkv_gen_result {
	MKV_GEN_GOOD,
	MKV_GEN_WRONG,		/* not the bytes of this key and seed */
	MKV_GEN_STALE,		/* right bytes of an older version than *floor */
	MKV_GEN_LIGHT		/* right head; the body was written without --verify and cannot be checked */
};

/* The whole block. buf: any alignment. */
void			mkv_gen_fill(void *buf, size_t bytes, uint64_t seed, uint64_t key, uint64_t version);
/* Only the head: the body stays as it is, so two puts of a key differ but cost no generator time. */
void			mkv_gen_stamp(void *buf, size_t bytes, uint64_t seed, uint64_t key, uint64_t version);
/*
 * Check a block of `bytes` that was got for `key`. full: body too. floor: the oldest version allowed. Blocks smaller than the head have
 * no version. where: gets the offset of the first wrong byte (to 8 bytes), may be NULL.
 */
enum mkv_gen_result	mkv_gen_check(const void *buf, size_t bytes, uint64_t seed, uint64_t key, uint64_t floor, int full, size_t *where);
/* Cheap pseudo random numbers; *state must not be 0. */
uint64_t		mkv_gen_random(uint64_t *state);

#endif
