/*
 * Crash enumeration (enumerate_test.c): a scripted history over a simulated medium, what may be there at any moment of it, and what a recovery finds.
 * Tests only, one thread.
 */
#ifndef MKV_TESTS_ENUMERATE_H
#define MKV_TESTS_ENUMERATE_H

#include "tests/crash/rig.h"

#define HIST_KEYS	12u			/* key k is in the namespace k / 6: none, "n1" */
#define HIST_CANDS	24u
#define HIST_OPS	16u			/* under way at one time; slots 1 to HIST_OPS */

enum step_op {
	S_END, S_PUT, S_DELETE, S_TOUCH, S_GET,	/* arg: bytes of a put */
	S_SAME,					/* a reservation that asks for what is there: a touch, or nothing */
	S_PURGE,				/* key: number of the namespace */
	S_JOIN,					/* all that is under way ends */
	S_CHECKPOINT,				/* ASYNC: begins */
	S_SYNC,					/* what was accepted is durable */
	S_WAIT,					/* arg ms pass at once, then some turns */
	S_TURNS,				/* arg turns */
	S_HOLD_DISCARD, S_HOLD_READS,		/* arg 0: no more */
	S_RESTART,				/* orderly */
	S_CUT,					/* power is lost here for the history itself; arg: enum sim_policy */
	S_QUIET,				/* arg 1: no points from here on; 0: from here on */
	S_AGE,					/* puts of the key until the journal's next block is number arg of the ring */
};

#define ASYNC	(1u << 16)			/* flags of a step, beside MKV_DRV_F_*: do not wait for the answer */
#define TTL	(1u << 17)			/* of a put or touch: 30 s */

struct step {
	enum step_op	op;
	unsigned	key;
	uint64_t	arg;
	unsigned	flags;
};

struct script {
	const char	*name;
	const struct step *step;
	int		evict, trim;		/* evict: what is not pinned may be gone at any time */
	unsigned	ckpts, discards, reused, evicted, sames;	/* so many of them at least */
};

extern const struct script scripts[];		/* the last has no name */

/* What a key may hold. seed 0: nothing. */
struct state {
	uint64_t	seed, bytes, expires_ms;
	int		pin;
};

struct cand {
	struct state	st;
	uint64_t	begin, end;		/* of its operation, in order; end 0: not answered */
	int		durable;		/* its answer says so */
	unsigned	slot;			/* while it is under way */
};

struct seen {					/* what a recovery found */
	uint64_t	hash, now_ms;
	struct state	key[HIST_KEYS];
	struct seen	*next;
};

struct history {
	const struct script *script;
	uint64_t	seed;
	struct rig	*r;			/* lives through the script */
	struct rig	*check;			/* recovers what it could have left */
	uint8_t		*touched;		/* blocks where the checker's medium is not what is durable on the live one */
	uint64_t	*base_hash, blocks;
	void		(*explore)(struct history *h);

	struct cand	cand[HIST_KEYS][HIST_CANDS];
	unsigned	cands[HIST_KEYS];
	struct {
		unsigned	busy, op, key, accepted;
		uint64_t	seed;		/* get: what it is to find */
	}		slot[HIST_OPS + 1];
	uint64_t	order, next_seed, ckpts_before;
	uint64_t	purge;			/* id of the one under way */
	int		quiet;

	struct seen	*seen[4096];
	uint64_t	points, states, recovered;
	unsigned	failures, writes_max;
	uint8_t		*discarded;		/* blocks */
	unsigned	discards, reused, evicted, ckpts, sames;
};

struct history *history_new(const struct script *s, uint64_t seed, void (*explore)(struct history *h));
void	history_run(struct history *h);
void	history_free(struct history **h);
/* Wall clock of whoever recovers now: that of the history, rounded up to seconds. */
uint64_t history_now_ms(const struct history *h);

/* Take up the answers that were given. */
void	model_answers(struct history *h);
void	model_judge(struct history *h, const struct seen *s, uint64_t now_ms);

const struct seen *seen_find(const struct history *h, uint64_t hash, uint64_t now_ms);
/* Recover the checker's medium, look at everything, let it die, recover it again, use it now and then. NULL: said what was wrong, counted. */
const struct seen *seen_add(struct history *h, uint64_t hash, uint64_t now_ms);
void	seen_free(struct history *h);
/* What a rig's engine has under a key; negative: wrong, and said so. */
int	seen_key(struct history *h, struct rig *r, unsigned k, struct state *st);
void	key_req(struct mkv_drv_req *q, unsigned op, unsigned k);
void	key_put_req(struct rig *r, struct mkv_drv_req *q, unsigned slot, unsigned k, uint64_t bytes, uint64_t seed);

#define HIST_FAIL(h, ...) \
	do { \
		fprintf(stderr, "%s -s %" PRIu64 " point %" PRIu64 ": ", (h)->script->name, (h)->seed, (h)->points); \
		fprintf(stderr, __VA_ARGS__); \
		fputc('\n', stderr); \
		(h)->failures++; \
	} while (0)

#endif
