/*
 * Which requests of a session have been answered, and with what: so that a datagram that comes twice has its effect once.
 *
 * Of each session the last MKV_ANSWERS_MAX answers are kept until the client says that it has them (mkv_hdr.ack_below). A request that is neither kept nor at
 * work is new only if it can be: not below what the client has acknowledged (it waits for nothing there, and its memory may serve something else), and not
 * below a number that was forgotten (it may have been answered). All of the loop's thread.
 */
#ifndef MKV_WORKER_FRONT_ANSWERS_H
#define MKV_WORKER_FRONT_ANSWERS_H

#include <stdint.h>

#include "common/base/list.h"
#include "proto/wire.h"

#define MKV_ANSWERS_MAX		64u		/* of one session */
#define MKV_ANSWER_BYTES	512u		/* of one, header and body; what is longer is noted without its bytes */

struct mkv_answer {
	struct mkv_list	link;			/* answers.list, oldest first; or free */
	uint64_t	id;
	uint32_t	bytes;			/* 0: known to be done, what was said is not kept */
	struct mkv_hdr	h;
	uint8_t		body[MKV_ANSWER_BYTES - sizeof(struct mkv_hdr)];
};

struct mkv_answer_pool {			/* of all sessions of a front */
	struct mkv_answer *slab;
	uint32_t	n, used;		/* used: of those that never were taken the first */
	struct mkv_list	free;
};

struct mkv_answers {				/* of one session */
	struct mkv_list	list;
	uint32_t	n;
	uint64_t	acked;			/* everything below has arrived */
	uint64_t	floor;			/* what is not above and not kept may have been done */
};

enum mkv_seen {
	MKV_SEEN_NEW,
	MKV_SEEN_DONE,				/* *out is its answer */
	MKV_SEEN_FORGOTTEN,			/* it may have been answered: the client has to ask anew */
	MKV_SEEN_ACKED,				/* the client has its answer, or has given it up */
};

int	mkv_answer_pool_open(struct mkv_answer_pool *p, uint32_t n);	/* MKV_E_NOMEM */
void	mkv_answer_pool_close(struct mkv_answer_pool *p);
void	mkv_answers_init(struct mkv_answers *a);
void	mkv_answers_fini(struct mkv_answers *a, struct mkv_answer_pool *p);
enum mkv_seen mkv_answers_look(const struct mkv_answers *a, uint64_t id, const struct mkv_answer **out);
/* From the header of a message, in whatever order they come: its id, and mkv_hdr.ack_below. */
void	mkv_answers_ack(struct mkv_answers *a, struct mkv_answer_pool *p, uint64_t id, uint32_t ack_below);
/* h of an answer that is about to leave; NULL: the request id is over without one. */
void	mkv_answers_keep(struct mkv_answers *a, struct mkv_answer_pool *p, uint64_t id, const struct mkv_hdr *h, const void *body);

#endif
