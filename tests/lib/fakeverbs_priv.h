/*
 * Inside the fake fabric: its objects. fakeverbs.c has devices, memory and queues, fakeverbs_qp.c queue pairs and what they carry,
 * fakeverbs_dc.c what is other with DC.
 */
#ifndef MKV_TESTS_FAKEVERBS_PRIV_H
#define MKV_TESTS_FAKEVERBS_PRIV_H

#include <pthread.h>

#include "common/base/list.h"
#include "tests/lib/fakeverbs.h"

struct fv_dev;

struct fv_ctx {
	struct ibv_context c;
	struct fv_dev	*dev;
	int		async_w;		/* the other end of c.async_fd */
	struct mkv_list	link, qps, mrs;
};
struct fv_pd {
	struct ibv_pd	pd;
	unsigned	users;
};
struct fv_mr {
	struct ibv_mr	mr;
	uint64_t	iova;
	uint8_t		*at;		/* where its bytes are: at addr, or what a dma-buf stands for */
	void		*map;		/* of the dma-buf; NULL: none */
	size_t		map_bytes;
	int		access;
	struct mkv_list	link;
};
struct fv_channel {
	struct ibv_comp_channel ch;
	int		w;
	unsigned	users;
};
struct fv_cqe {
	struct ibv_wc	wc;
	uint64_t	frees;		/* of a send: its queue pair's slots up to this count */
};
struct fv_cq {
	struct ibv_cq	cq;
	struct fv_cqe	*e;
	unsigned	n, visible, cap, users, unacked;
	int		armed;
};
struct fv_srq {
	struct ibv_srq	srq;
	struct ibv_recv_wr *wr;
	struct ibv_sge	*sge;
	unsigned	head, n, cap, users;
	unsigned	limit;		/* said once when fewer are posted; 0: not */
};
struct fv_ah {
	struct ibv_ah	ah;
	struct ibv_ah_attr attr;
	const struct fv_dev *dev;	/* whose hardware address was found when it was made */
	unsigned	users;		/* work requests that wait */
};
struct fv_send {			/* a work request in a queue pair */
	uint64_t	wr_id, seq, remote;
	enum ibv_wr_opcode opcode;
	unsigned	flags, n_sge;
	uint32_t	rkey, bytes;
	struct ibv_sge	sge[4];
	uint8_t		*data;		/* inline */
	struct fv_ah	*ah;		/* DC */
	uint32_t	dctn;
	uint64_t	dc_key;
};
enum fv_kind { FV_RC, FV_DCI, FV_DCT };
struct fv_qp {
	struct ibv_qp	qp;
	enum fv_kind	kind;
	uint64_t	dc_key;
	struct ibv_qp_attr attr;
	struct ibv_qp_init_attr init;
	struct fv_send	*send;		/* waiting: a ring of init.cap.max_send_wr */
	unsigned	head, n;
	int		is_stuck;	/* its first waits for a receive */
	uint64_t	posted, freed;	/* a slot is in use until a completion of it, or of a later one, was polled */
	struct mkv_list	link;
};
struct fv_dev {
	struct ibv_device d;
	struct fv_device conf;
	char		name[16];
	int		is_gone;
	struct mkv_list	ctxs;
};
struct fv_fabric {
	unsigned	n, alive, quirks;
	struct fv_dev	dev[FV_DEVICES];
	unsigned	calls[FV_VERBS], fail_at[FV_VERBS];
	int		fail_errno[FV_VERBS], did_fail[FV_VERBS];
	uint32_t	next_key, next_qpn;
	uint64_t	next_seq;
	unsigned	refuse_wr;
	int		is_held, wc_held;
	struct fv_count	count;
	struct {
		uint32_t	qpn, bytes;	/* 0 bytes: none */
		uint8_t		*to, data[4096];
	} in_hand;
	struct fv_wr	log[FV_LOG];
	uint64_t	logged;
};

extern struct fv_fabric fv;
extern pthread_mutex_t fv_mutex;

#define FV_DIE(...)	fv_die(__func__, __VA_ARGS__)
void		fv_die(const char *where, const char *fmt, ...) __attribute__((noreturn, format(printf, 2, 3)));
void *		fv_calloc(size_t n, size_t bytes);
/* Begin of a verb that can fail: takes the lock. An errno value if it is to fail. End with fv_leave(). */
int		fv_enter(enum fv_verb verb, const struct fv_dev *d);
void		fv_leave(void);
void *		fv_refuse(int e);	/* the same, of one that fails: NULL and errno */
struct fv_dev *	fv_dev_of(struct ibv_context *c);
struct fv_ctx *	fv_ctx_of(struct ibv_context *c);
void		fv_push_event(struct fv_dev *d, enum ibv_event_type type, unsigned port, struct ibv_qp *qp);
void		fv_drop_events(struct fv_ctx *c, const struct ibv_qp *qp);
void		fv_complete(struct ibv_cq *cq, const struct ibv_wc *wc, uint64_t frees);
/* Who has this key, and may one do this with the bytes: NULL: no. key 0 is nobody's. */
struct fv_mr *	fv_mr_find(struct fv_ctx *c, struct ibv_pd *pd, uint32_t key, uint64_t addr, uint64_t bytes, int access);
void		fv_run_all(void);	/* carry out what can be */

struct ibv_qp *	fv_create_qp(struct ibv_pd *pd, struct ibv_qp_init_attr *a);
int		fv_modify_qp(struct ibv_qp *qp, struct ibv_qp_attr *a, int mask);
int		fv_query_qp(struct ibv_qp *qp, struct ibv_qp_attr *a, int mask, struct ibv_qp_init_attr *init);
int		fv_destroy_qp(struct ibv_qp *qp);
int		fv_post_send(struct ibv_qp *qp, struct ibv_send_wr *wr, struct ibv_send_wr **bad);
void		fv_told(uint32_t qpn, uint64_t frees);	/* a completion was polled: slots up to it are free */
struct fv_qp *	fv_find_qp(uint32_t qpn);
/* Made and put into its context's list: RESET, without a number. */
struct fv_qp *	fv_qp_new(struct ibv_pd *pd, enum fv_kind kind, const struct ibv_qp_init_attr *a);
uint32_t	fv_new_number(void);
int		fv_has_gid(const struct fv_dev *d, const union ibv_gid *g);
int		fv_has_path(const struct fv_dev *d, const struct ibv_ah_attr *a);	/* it may send with this: a GID and a port of its own */
const struct fv_dev *fv_gid_owner(const union ibv_gid *g);	/* who answers for it now; NULL: nobody */
/* What a change of state brings, where queue pairs of all kinds have the same: 0 or an errno value. */
int		fv_to_init(struct fv_qp *q, const struct ibv_qp_attr *a, int mask);
int		fv_to_path(struct fv_qp *q, const struct ibv_qp_attr *a, int mask);	/* RTR: path MTU, and the address if it has one */
int		fv_to_rts(struct fv_qp *q, const struct ibv_qp_attr *a);
/* Into the queue: 0 or an errno value. dc: its address, for an initiator. */
int		fv_take(struct fv_qp *q, const struct ibv_send_wr *w, const struct mkv_verbs_dc_wr *dc);
void		fv_posted(struct fv_qp *q);	/* what follows a call that posts */
void		fv_cq_forget(struct ibv_cq *cq, uint32_t qpn);	/* RESET; ends the program if completions would be lost */

int		fv_dc_supported(struct ibv_device *d);
struct ibv_qp *	fv_dc_create_initiator(struct ibv_context *c, const struct mkv_verbs_dc *a);
struct ibv_qp *	fv_dc_create_target(struct ibv_context *c, const struct mkv_verbs_dc *a);
int		fv_dc_post(struct ibv_qp *qp, const struct mkv_verbs_dc_wr *wr, unsigned n);
int		fv_dc_change(struct fv_qp *q, const struct ibv_qp_attr *a, int mask);	/* of their states; to ERR an initiator goes as others do */
struct fv_qp *	fv_dc_far(const struct fv_qp *q, const struct fv_send *s);	/* the target that s reaches, whatever its key; NULL: nobody answers */
struct ibv_ah *	fv_create_ah(struct ibv_pd *pd, struct ibv_ah_attr *a);
int		fv_destroy_ah(struct ibv_ah *ah);

#endif
