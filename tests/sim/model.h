/*
 * What may be read: every write that clients began, when it began and ended, and what became of it. A read is held against all of them. Tests only.
 *
 * A version may be seen unless a later one is sure to have replaced it: one that was acknowledged before the read began, and began when this one was
 * over. Of a write whose end nobody knows (a lost answer, a crash) both are right, until a read shows which.
 */
#ifndef MKV_TESTS_SIM_MODEL_H
#define MKV_TESTS_SIM_MODEL_H

#include <stddef.h>
#include <stdint.h>

#define MODEL_KEYS_MAX		64u
#define MODEL_VERSIONS_MAX	512u
#define MODEL_NS		3u

enum model_state {
	MV_PENDING,			/* its client waits */
	MV_DONE,			/* it happened between start and end */
	MV_UNKNOWN,			/* it happened in that time, or never */
	MV_NOT				/* never */
};

struct model_version {
	uint64_t	seed, bytes;	/* seed 0: absent */
	uint64_t	start, end;	/* end UINT64_MAX: may still happen */
	uint64_t	exp_lo, exp_hi;	/* wall ms; UINT64_MAX: never */
	uint64_t	ttl_ms;
	uint64_t	touched_hi;	/* an end of life that a touch may have given it while it was under way */
	enum model_state state;
	int		accepted;	/* not sure to survive a crash yet */
	int		pin;
	int		if_absent;
	int		fragile;	/* was accepted at a crash: parts of it may be gone */
	uint64_t	lost_at;	/* MV_NOT because of this crash: reads that began before it may have seen it; 0: it never was */
};

struct model_key {
	uint8_t		name[48], ns[16];
	unsigned	name_bytes, ns_bytes;
	unsigned	n, busy;	/* busy: writes pending */
	unsigned	touching;	/* touches with a time to live pending */
	uint64_t	touch_lo, touch_end;
	struct model_version v[MODEL_VERSIONS_MAX];
};

struct model {
	unsigned	keys;
	uint64_t	next_seed;
	int		evicts;		/* anything may be gone at any time */
	int		lossy;		/* the media did harm: anything may be gone, and errors are no surprise */
	uint64_t	crashed_at;	/* the last time */
	struct model_key key[MODEL_KEYS_MAX];
};

extern struct model model;

void	model_init(unsigned keys, int evicts);
/* seed 0: a delete. Returns the version. */
unsigned model_begin(unsigned key, uint64_t seed, uint64_t bytes, uint64_t ttl_ms, int accepted, int pin);
void	model_end(unsigned key, unsigned version, enum model_state state);
/* A put if absent succeeded: it was absent then, and no other such put can say the same of that moment. */
void	model_check_absent(unsigned key, unsigned version);
void	model_deleted(unsigned key, unsigned version, int was_there);
void	model_touch_begin(unsigned key, uint64_t ttl_ms);
void	model_touch_end(unsigned key, uint64_t start, uint64_t ttl_ms, int sure);	/* sure: it found something */

/* A read from `start` until now found nothing; what: for the message. */
void	model_check_miss(unsigned key, uint64_t start, const char *what);
/* It found a value of that size, and of it these bytes. */
void	model_check_hit(unsigned key, uint64_t start, uint64_t value_bytes, uint64_t off, const uint8_t *p, uint64_t len, const char *what);
/* It found a value; nothing is known of it but perhaps its size (UINT64_MAX: not even that). */
void	model_check_there(unsigned key, uint64_t start, uint64_t value_bytes, const char *what);
int	model_may_miss(unsigned key, uint64_t start);
int	model_may_hit(unsigned key, uint64_t start);

void	model_crashed(void);			/* what was accepted and not made durable is in doubt */
void	model_settled(void);			/* nothing is under way any more: what did not happen never will; what is there is durable */
void	model_wiped(void);			/* memory mode: a new beginning */

void	value_fill(uint8_t *p, uint64_t bytes, uint64_t seed);

#endif
