/*
 * DC, the transport of mlx5 that needs no queue pair for each far end: initiators, which reach one target after the other, and targets. Both are queue pairs of
 * a hub (qp.h): the same ring, callbacks and states. All calls from the hub's thread.
 *
 * An initiator is aimed at a target and then carries what it is given; an error breaks it alone, and it can be made anew. A pool lends them out.
 * A target receives from whoever has its number and key, and answers READs and WRITEs as its conf says. It sends nothing.
 */
#ifndef MKV_RDMA_DC_H
#define MKV_RDMA_DC_H

#include "common/rdma/qp.h"

struct mkv_rdma_dct {				/* a target, as the wire told it */
	uint8_t		gid[16];
	uint16_t	lid;
	uint32_t	dctn;			/* 24 bits */
	uint64_t	key;
};

/*
 * Can this device do it? There is no capability bit: one initiator and one target are made and destroyed. Wants one free work request of the hub. 1; 0 with a
 * sentence in why.
 */
int		mkv_rdma_dc_try(struct mkv_rdma_hub *h, char *why, size_t why_bytes);

/*
 * A target, READY at once; mkv_rdma_qp_number() is its number. c->sends is 0; remote_read and remote_write hold for all who know its key. recv() gets
 * the hub's receives, it does not say whose they were. What a sender does wrong breaks him, not the target. MKV_E_NOMEM, MKV_E_SYSTEM.
 * mkv_rdma_qp_fail() destroys it in the NIC before it returns, which is the fence, and it is IDLE then: not idle, no fence.
 */
int		mkv_rdma_target_create(struct mkv_rdma_qp **out, struct mkv_rdma_hub *h, const struct mkv_rdma_qp_conf *c);
uint64_t	mkv_rdma_target_key(const struct mkv_rdma_qp *qp);	/* 64 random bits, for those who shall reach it */

/* An initiator: NEW, aimed at nothing. Nobody has remote access by it. MKV_E_NOMEM, MKV_E_SYSTEM. */
int		mkv_rdma_initiator_create(struct mkv_rdma_qp **out, struct mkv_rdma_hub *h, const struct mkv_rdma_qp_conf *c);
/*
 * What it sends from now on goes there; nothing may be out. NEW or READY -> READY. 0; MKV_E_PEER: a number of the target makes no sense; MKV_E_UNREACHABLE: no
 * way to that address; MKV_E_NOMEM; MKV_E_SYSTEM. After an error it is as it was.
 */
int		mkv_rdma_initiator_aim(struct mkv_rdma_qp *qp, const struct mkv_rdma_dct *to);
/* IDLE -> NEW: after an error it is usable again. 0; MKV_E_SYSTEM: it stays IDLE, and there is nothing to be done with it but to destroy it. */
int		mkv_rdma_initiator_reset(struct mkv_rdma_qp *qp);

/*
 * Of a hub with threads for it (conf.aside): the way to a far end's address, which the kernel may take a second to look up. It is kept by who takes it, and only who has
 * one that is known may aim at that address, or lease for it (else MKV_E_BUSY). Where it may have changed it is looked up anew by itself, while the former one serves on.
 * MKV_E_PEER: the address makes no sense; MKV_E_BUSY: too many are looked up; MKV_E_NOMEM.
 */
struct mkv_rdma_way;
int		mkv_rdma_way_take(struct mkv_rdma_way **out, struct mkv_rdma_hub *h, const struct mkv_rdma_dct *to);
/* 0; MKV_E_AGAIN: not yet, mkv_rdma_hub_poll() may change that; MKV_E_UNREACHABLE, MKV_E_NOMEM, MKV_E_SYSTEM: there is none. */
int		mkv_rdma_way_known(const struct mkv_rdma_way *w);
/* Another may have taken its place: that one is kept from now on. Accepts NULL. */
void		mkv_rdma_way_follow(struct mkv_rdma_way **w);
void		mkv_rdma_way_back(struct mkv_rdma_way **w);	/* accepts NULL, clears the pointer */

struct mkv_rdma_pool;				/* initiators, lent out in turn: the one that was back first is the next */

/* n of them, made as c says but for ops and owner, which come with a lease. 0; MKV_E_CONFIG: more than the hub was opened for; MKV_E_NOMEM, MKV_E_SYSTEM. */
int		mkv_rdma_pool_open(struct mkv_rdma_pool **out, struct mkv_rdma_hub *h, const struct mkv_rdma_qp_conf *c, uint32_t n, char *why, size_t why_bytes);
/* All of them must be back. Accepts NULL. Not from a callback. */
void		mkv_rdma_pool_close(struct mkv_rdma_pool **p);
/*
 * One that is READY and aimed at `to`, unless only `keep` are free: those are for who asks with a smaller keep. 0; MKV_E_AGAIN: none; else as
 * mkv_rdma_initiator_aim() says, and none is lent.
 */
int		mkv_rdma_pool_lease(struct mkv_rdma_pool *p, const struct mkv_rdma_dct *to, uint32_t keep, const struct mkv_rdma_qp_ops *ops, void *owner,
		    struct mkv_rdma_qp **out);
/*
 * Back; done() was called for all that it was given. A broken one is made anew at once; one that cannot be is out of service, and is missing from
 * mkv_rdma_pool_size(). Also from a callback of that initiator: it hears nothing of this lease any more. Clears the pointer.
 */
void		mkv_rdma_pool_back(struct mkv_rdma_pool *p, struct mkv_rdma_qp **qp);
uint32_t	mkv_rdma_pool_free(const struct mkv_rdma_pool *p);
uint32_t	mkv_rdma_pool_size(const struct mkv_rdma_pool *p);	/* that work, lent or not */

#endif
