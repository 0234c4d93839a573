/*
 * Inside common/rdma: hub and queue pair. The hub takes completions and hands them to their queue pairs; a queue pair keeps its ring.
 *
 * Work requests carry a number of 64 bits. A receive: bit 63, and its index. A send: bits 62..32 the queue pair's id, which is never used again, bits 31..0 the
 * position in its ring, counted without end. So a completion that comes late, of a queue pair that is gone, meets nobody.
 */
#ifndef MKV_RDMA_HUB_PRIV_H
#define MKV_RDMA_HUB_PRIV_H

#include "common/base/clock.h"
#include "common/rdma/dev_priv.h"
#include "common/rdma/qp.h"

#define HUB_MAGIC	0x1c6ad05fu
#define QP_MAGIC	0x62f7b3e9u
#define HUB_BUCKETS	256u			/* queue pairs are found by their numbers, which are given in turn */
#define HUB_BATCH	32u			/* completions taken by one call */
#define QP_BATCH	64u			/* work requests of one doorbell at most */
#define QP_STAGED	16u			/* of them sends that travel in their work request */
#define QP_SIGNAL_EVERY	16u
#define QP_INLINE_WANT	512u
#define QP_DRAIN_NS	(50 * MKV_NS_PER_MS)	/* a broken queue pair that still owes completions is then destroyed: that ends them too */
#define QP_WHY_BYTES	192u
#define WR_IS_RECV	(1ull << 63)

struct hub_rx {
	struct mkv_rdma_rx rx;
	struct ibv_sge	sge;
	int		is_out;			/* a callback has it */
};

struct mkv_rdma_hub {
	uint32_t	magic;
	struct mkv_rdma_dev *d;
	const struct mkv_verbs *v;
	struct mkv_rdma_hub_conf conf;
	struct ibv_comp_channel *ch;
	struct ibv_cq	*cq;
	uint32_t	cqe;
	struct ibv_srq	*srq;
	uint8_t		*slab;
	size_t		slab_bytes;
	struct ibv_mr	*slab_mr;
	struct hub_rx	*rx;
	struct ibv_recv_wr *back;		/* receives to be posted again: the first n_back, chained when they are posted */
	uint32_t	n_back;
	struct ibv_wc	*stash;			/* completions taken from the queue but not handed on: a ring of cqe */
	uint32_t	stash_head, stash_n;
	struct mkv_list	by_number[HUB_BUCKETS];
	uint32_t	qp_n, next_id, sends_used;
	struct mkv_list	dirty;			/* queue pairs with work requests to be posted */
	struct mkv_list	broken;			/* queue pairs on their way to IDLE */
	int		in_poll, cq_failed;
	struct mkv_rdma_count count;
};

struct qp_slot {
	void		*cookie;
	int		uses_slab;
};

enum qp_state { QP_NEW, QP_READY, QP_BROKEN, QP_IDLE };

struct mkv_rdma_qp {
	uint32_t	magic, id;
	struct mkv_rdma_hub *hub;
	struct mkv_rdma_qp_conf conf;
	struct ibv_qp	*qp;			/* NULL: destroyed early, see QP_DRAIN_NS */
	uint32_t	number, psn, max_inline;
	enum qp_state	state;
	int		say_broken;		/* broken() is still to be called */
	uint64_t	drain_until_ns;
	/*
	 * The ring, counted without end: tail <= ok <= seen <= posted <= head, head - tail <= sends. Done() was called for what is before tail; what is before
	 * ok came back well, what is before seen came back.
	 */
	uint32_t	tail, ok, seen, posted, head;
	uint32_t	unsignalled;
	struct qp_slot	*slot;
	struct ibv_send_wr wr[QP_BATCH];	/* posted..head - 1 */
	struct ibv_sge	sge[QP_BATCH];
	uint8_t		*stage;			/* QP_STAGED times max_inline bytes; free again when the batch is posted */
	uint32_t	staged;
	uint8_t		*slab;			/* of longer sends: a ring of slab_n */
	size_t		slab_bytes, slab_stride;
	uint32_t	slab_n, slab_next, slab_out;
	struct ibv_mr	*slab_mr;
	struct mkv_list	by_number, dirty, broken;
	char		why[QP_WHY_BYTES];
	int		why_is_flush;		/* nothing better is known yet */
};

/* Memory of a hub or queue pair that a device may touch: zeroed, page-aligned, shared with a child of fork() and so never copied for it. NULL: none. */
void *		rdma_slab_take(size_t bytes);
void		rdma_slab_drop(void *p, size_t bytes);

/* Destroy the ibv_qp; what of it waits in the completion queue is counted, receives go back. Nothing of it comes later. */
void		hub_qp_kill(struct mkv_rdma_hub *h, struct mkv_rdma_qp *qp);

void		qp_on_send(struct mkv_rdma_qp *qp, const struct ibv_wc *wc);	/* counts only */
void		qp_on_recv(struct mkv_rdma_qp *qp, struct mkv_rdma_rx *rx, const struct ibv_wc *wc);
void		qp_hand_on(struct mkv_rdma_qp *qp);	/* callbacks for what was counted */
/* READY -> BROKEN, or on: post_send failed, a completion failed. */
void		qp_break(struct mkv_rdma_qp *qp, const char *why, int is_flush);
void		qp_drain(struct mkv_rdma_qp *qp);	/* of a BROKEN one: broken(), done(), IDLE when all is back */
void		qp_post(struct mkv_rdma_qp *qp);	/* ring the doorbell */

#endif
