/*
 * Walks over the pieces of a set, in bounded steps (setjob.c). A part of engine_priv.h.
 */
#ifndef MKV_DRIVE_SETJOB_PRIV_H
#define MKV_DRIVE_SETJOB_PRIV_H

#include <stdint.h>

#include "common/base/list.h"
#include "common/shm/drv.h"

struct mkv_engine;
struct mkv_req;

#define SETJOBS_MAX		256u
#define SET_STEP		1024u		/* pieces looked for in a turn, by jobs and again as many by ABORTs */
#define SET_DROP_COST		16u		/* one that is dropped, in looks */

enum setjob_kind { SETJOB_NONE, SETJOB_COMMIT, SETJOB_FREE };

struct setjob {				/* a walk over the pieces of a set */
	struct mkv_set_id set;
	uint64_t	mask;		/* FREE: drives that wait for SET_FREED */
	uint32_t	next, end;
	uint32_t	marked;		/* COMMIT: were provisional */
	uint32_t	kind;
};

struct setjobs {
	struct setjob	job[SETJOBS_MAX];
	uint32_t	count, hand;
	uint32_t	left, left_aborts;	/* looks until the next turn */
	uint32_t	left_replay;
	uint64_t	looks;		/* all there were */
	struct mkv_list	wait;		/* ABORTs that go on in the next turn */
};

#define SETJOB_MORE	1		/* the share of this turn is used up */
void	setjob_init(struct mkv_engine *e);
void	setjob_turn(struct mkv_engine *e);		/* once a turn: what may be done in it, and do it */
int	setjob_next(const struct mkv_engine *e);	/* 1: jobs wait for something */
/* Pieces [0, end) are named by a durable manifest; or leave, then the drives of the mask are told. Begun at once. Table full: it is said again. */
void	setjob_committed(struct mkv_engine *e, struct mkv_set_id set, uint32_t end);
void	setjob_free(struct mkv_engine *e, uint64_t mask, struct mkv_set_id set, uint32_t end);
uint32_t setjob_dropped(struct mkv_engine *e, struct mkv_set_id set);	/* pieces that the job has behind it */
/*
 * Provisional pieces [*from, end) leave, *from says how far it came. 0 done; SETJOB_MORE (r waits for the next turn); MKV_E_AGAIN no journal room;
 * MKV_E_BUSY a put of one is under way; MKV_E_READONLY.
 */
int	setjob_abort(struct mkv_req *r, struct mkv_set_id set, uint32_t *from, uint32_t end);
int	setjob_drop_one(struct mkv_engine *e, struct mkv_set_id set, uint32_t piece_no);	/* as above */
/* Replay: marks [0, end), if that is few enough. What stays provisional is asked for after the open. */
void	setjob_replay_committed(struct mkv_engine *e, struct mkv_set_id set, uint32_t end);

#endif
