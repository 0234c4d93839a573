/*
 * Random numbers of the unit tests: a function of one seed, which MKV_SEED in the environment sets and a failing test prints.
 */
#ifndef MKV_TESTS_RND_H
#define MKV_TESTS_RND_H

#include <stddef.h>
#include <stdint.h>

struct rnd {
	uint64_t	state;
};

/* Seeds from MKV_SEED, else with `seed`; prints what was taken. */
void		rnd_init(struct rnd *r, uint64_t seed);
uint64_t	rnd_u64(struct rnd *r);
uint32_t	rnd_below(struct rnd *r, uint32_t n);		/* 0..n-1; n > 0 */
void		rnd_fill(struct rnd *r, void *dst, size_t bytes);

#endif
