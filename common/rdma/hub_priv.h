/*
 * Inside common/rdma: hub and queue pair. The hub takes completions and hands them to their queue pairs; a queue pair keeps its ring.
 *
 * Work requests carry a number of 64 bits. A receive: bit 63, and its index. A send: bits 62..32 the queue pair's id, which is never used again, bits 31..0 the
 * position in its ring, counted without end. So a completion that comes late, of a queue pair that is gone, meets nobody.
 */
#ifndef MKV_RDMA_HUB_PRIV_H
#define MKV_RDMA_HUB_PRIV_H

#include <pthread.h>
#include <stdatomic.h>

#include "common/base/clock.h"
#include "common/rdma/dc.h"
#include "common/rdma/dev_priv.h"

#define HUB_MAGIC	0x1c6ad05fu
#define QP_MAGIC	0x62f7b3e9u
#define HUB_BUCKETS	256u			/* queue pairs are found by their numbers, which are given in turn */
#define AH_BUCKETS	256u
#define AH_IDLE_MAX	1024u			/* address handles that nobody uses are kept up to this many */
#define HUB_BATCH	32u			/* completions taken by one call */
#define QP_BATCH	64u			/* work requests of one doorbell at most */
#define QP_STAGED	16u			/* of them sends that travel in their work request */
#define QP_SIGNAL_EVERY	16u
#define QP_INLINE_WANT	512u
#define QP_DRAIN_NS	(50 * MKV_NS_PER_MS)	/* a broken queue pair that still owes completions is then destroyed: that ends them too */
#define QP_KILL_TRIES	3u
#define QP_WHY_BYTES	192u
#define WR_IS_RECV	(1ull << 63)
#define ASIDE_THREADS	4u
#define ASIDE_JOBS_MOST	64u			/* that are not done */

struct hub_rx {
	struct mkv_rdma_rx rx;
	struct ibv_sge	sge;
	int		is_out;			/* a callback has it */
};

/* A call that may sleep, and is made by another thread: aside.c. */
struct hub_job {
	struct mkv_list	link;
	void		(*call)(struct hub_job *j);	/* there: looks at nothing that changes meanwhile */
	void		(*done)(struct hub_job *j);	/* in the hub's thread; may free it */
};

struct hub_aside {
	int		fd, ring_fd;		/* a bell; -1: none */
	unsigned	out;			/* jobs; the hub's thread's own count */
	_Atomic int	news;			/* 1: there is something in done */
	pthread_mutex_t	mutex;			/* of what follows */
	pthread_cond_t	more;
	struct mkv_list	todo, done;
	unsigned	n_threads, idle;
	int		stop;
	pthread_t	thread[ASIDE_THREADS];	/* the hub's thread's own */
};

/*
 * An address handle of the hub's cache: what packets to one GID (and LID) need. One that turned out to be of no use is in no bucket, and goes with its last user. In a
 * hub with threads for it: one whose handle is being made is found, but of no use yet; one that is to be renewed serves on until there is another.
 */
struct mkv_rdma_way {
	struct mkv_list	link;			/* of its bucket */
	struct mkv_list	idle;			/* nobody uses it: the longest first */
	struct mkv_rdma_hub *hub;
	struct ibv_ah	*ah;			/* NULL: being made, or err */
	uint32_t	users;			/* initiators that are aimed there, and others who keep it */
	uint8_t		gid[16];
	uint16_t	lid;
	int		is_old;
	int		is_made;		/* by another thread, now */
	int		err;			/* MKV_E_*: there is no way */
	struct mkv_rdma_way *in_place;		/* of this one, if it can be made */
	int		is_renewed;		/* one is being made in its place */
	struct mkv_rdma_way *heir;		/* one was */
	struct hub_job	job;
	struct ibv_ah_attr attr;
	int		errno_there;
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
	int		is_armed;		/* a wake-up was asked for, and its event has not been taken */
	int		is_woken;		/* there may be one */
	struct mkv_list	ah[AH_BUCKETS], ah_idle;
	uint32_t	ah_idle_n, ah_gids;	/* the device's count of changed GIDs when the handles were made */
	struct hub_aside aside;
	struct mkv_rdma_count count;
};

struct qp_slot {
	void		*cookie;
	int		uses_slab;
};

enum qp_kind { QP_RC, QP_INITIATOR, QP_TARGET };
enum qp_state { QP_NEW, QP_CONNECTING, QP_READY, QP_BROKEN, QP_IDLE };

struct mkv_rdma_qp {
	uint32_t	magic, id;
	struct mkv_rdma_hub *hub;
	struct mkv_rdma_qp_conf conf;
	struct ibv_qp	*qp;			/* NULL: destroyed early, see QP_DRAIN_NS */
	uint32_t	number, psn, max_inline;
	enum qp_kind	kind;
	enum qp_state	state;
	enum mkv_rdma_fault fault;
	int		say_broken;		/* broken() is still to be called */
	int		is_open;		/* BROKEN, but the device gave neither ERR nor its end: the far end may still get through */
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
	struct mkv_rdma_way *ah;		/* initiator: where it is aimed */
	uint32_t	dctn;
	uint64_t	dc_key;			/* the far end's; of a target its own */
	struct mkv_rdma_pool *pool;		/* initiator: whose it is; NULL: nobody's */
	struct mkv_list	lease;			/* of the pool's free ones */
	struct qp_connect *connect;		/* a thread beside ours is at it: the ibv_qp is its until it is done */
	int		connect_err;		/* MKV_E_*: what came of it */
	char		why[QP_WHY_BYTES];
	int		why_is_flush;		/* nothing better is known yet */
};

/* Memory of a hub or queue pair that a device may touch: zeroed, page-aligned, shared with a child of fork() and so never copied for it. NULL: none. */
void *		rdma_slab_take(size_t bytes);
void		rdma_slab_drop(void *p, size_t bytes);

/* Destroy the ibv_qp; what of it waits in the completion queue is counted, receives go back. Nothing of it comes later. Else it is as it was, and the errno value. */
int		hub_qp_kill(struct mkv_rdma_hub *h, struct mkv_rdma_qp *qp);

void		qp_on_send(struct mkv_rdma_qp *qp, const struct ibv_wc *wc);	/* counts only */
void		qp_on_recv(struct mkv_rdma_qp *qp, struct mkv_rdma_rx *rx, const struct ibv_wc *wc);
void		qp_hand_on(struct mkv_rdma_qp *qp);	/* callbacks for what was counted */
/* READY -> BROKEN, or on: post_send failed, a completion failed. */
void		qp_break(struct mkv_rdma_qp *qp, enum mkv_rdma_fault fault, const char *why, int is_flush);
void		qp_drain(struct mkv_rdma_qp *qp);	/* of a BROKEN one: broken(), done(), IDLE when all is back */
void		qp_post(struct mkv_rdma_qp *qp);	/* ring the doorbell */

/* One of any kind: NEW, a target READY. As mkv_rdma_qp_create(); *err: the errno value behind it, 0: none. */
int		qp_make(struct mkv_rdma_qp **out, struct mkv_rdma_hub *h, const struct mkv_rdma_qp_conf *c, enum qp_kind kind, int *err);
int		qp_address_fits(const struct mkv_rdma_dev *d, const uint8_t gid[16], uint16_t lid);	/* one that can be sent to */
struct ibv_ah_attr qp_path(const struct mkv_rdma_dev *d, const uint8_t gid[16], uint16_t lid);	/* from our port to there */
int		qp_path_err(int e);		/* errno of a verb that looks up an address, as MKV_E_* */

/* The part of qp.c that is DC's; both return errno values. */
int		dc_create(struct mkv_rdma_qp *qp, uint32_t max_inline);
int		dc_start(struct mkv_rdma_qp *qp);	/* RESET to the last state of its kind; a target's number is known then */
int		dc_post(struct mkv_rdma_qp *qp, uint32_t n);	/* the first n of wr[]; all or none */

void		hub_ah_init(struct mkv_rdma_hub *h);
void		hub_ah_fini(struct mkv_rdma_hub *h);
/* Found or made; with conf.aside only found, else MKV_E_BUSY. 0; MKV_E_UNREACHABLE, MKV_E_NOMEM, MKV_E_SYSTEM. Given back by hub_ah_back(), which accepts NULL and clears the pointer. */
int		hub_ah_take(struct mkv_rdma_hub *h, const uint8_t gid[16], uint16_t lid, struct mkv_rdma_way **out);
void		hub_ah_back(struct mkv_rdma_hub *h, struct mkv_rdma_way **ah);
void		hub_ah_forget(struct mkv_rdma_hub *h, struct mkv_rdma_way *ah);	/* the next who goes there gets another */

int		hub_aside_init(struct mkv_rdma_hub *h);			/* 0; MKV_E_* */
void		hub_aside_fini(struct mkv_rdma_hub *h);
int		hub_aside_give(struct mkv_rdma_hub *h, struct hub_job *j);	/* 0; MKV_E_BUSY, MKV_E_NOMEM: not taken */
void		hub_aside_turn(struct mkv_rdma_hub *h);			/* done() of those that are */
static inline int
hub_aside_due(const struct mkv_rdma_hub *h)
{
	return (atomic_load_explicit(&h->aside.news, memory_order_relaxed));	/* a hint: hub_aside_turn() orders */
}

#endif
