/*
 * The verbs that we call, as a table: the real ones of rdma-core (libmemkv-rdma.so), or a test's fakes. Semantics, ownership and errors of each are those of
 * its manual page (ibv_*(3)); a result of -1 or NULL comes with errno, an int that is documented to return errno values does so here too.
 *
 * Any thread, as far as rdma-core allows: post and poll of one queue only by the thread that owns it.
 */
#ifndef MKV_RDMA_VERBS_H
#define MKV_RDMA_VERBS_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include <infiniband/verbs.h>

#define MKV_VERBS_ABI	1u		/* raised when a member changes its meaning or place */

/* mlx5: what a DC initiator or target is made with. */
struct mkv_verbs_dc {
	struct ibv_pd	*pd;
	struct ibv_cq	*send_cq, *recv_cq;
	struct ibv_srq	*srq;			/* target: needed; initiator: NULL */
	uint32_t	max_send_wr, max_send_sge, max_inline;
	uint64_t	access_key;		/* target */
};
/* One work request of an initiator; fields as in struct ibv_send_wr. */
struct mkv_verbs_dc_wr {
	uint64_t	wr_id;
	enum ibv_wr_opcode opcode;		/* RDMA_READ, RDMA_WRITE, SEND */
	unsigned	flags;			/* IBV_SEND_SIGNALED, _FENCE, _INLINE */
	const struct ibv_sge *sge;
	uint32_t	n_sge, rkey;
	uint64_t	remote;
	struct ibv_ah	*ah;
	uint32_t	dctn;
	uint64_t	dc_key;
};

struct mkv_verbs {
	uint32_t	abi;			/* MKV_VERBS_ABI */
	struct ibv_device **(*get_device_list)(int *n);
	void		(*free_device_list)(struct ibv_device **list);
	const char *	(*get_device_name)(struct ibv_device *d);
	struct ibv_context *(*open_device)(struct ibv_device *d);
	int		(*close_device)(struct ibv_context *c);
	int		(*query_device)(struct ibv_context *c, struct ibv_device_attr *a);
	int		(*query_port)(struct ibv_context *c, uint8_t port, struct ibv_port_attr *a);
	ssize_t		(*query_gid_table)(struct ibv_context *c, struct ibv_gid_entry *e, size_t max);
	int		(*odp_caps)(struct ibv_context *c, uint32_t *rc_caps);	/* IBV_ODP_SUPPORT_*; 0 caps: none */
	struct ibv_pd *	(*alloc_pd)(struct ibv_context *c);
	int		(*dealloc_pd)(struct ibv_pd *pd);
	struct ibv_mr *	(*reg_mr)(struct ibv_pd *pd, void *addr, size_t bytes, int access);
	struct ibv_mr *	(*reg_dmabuf_mr)(struct ibv_pd *pd, uint64_t off, size_t bytes, uint64_t iova, int fd, int access);
	int		(*dereg_mr)(struct ibv_mr *mr);
	struct ibv_comp_channel *(*create_comp_channel)(struct ibv_context *c);
	int		(*destroy_comp_channel)(struct ibv_comp_channel *ch);
	struct ibv_cq *	(*create_cq)(struct ibv_context *c, int cqe, void *arg, struct ibv_comp_channel *ch, int vector);
	int		(*destroy_cq)(struct ibv_cq *cq);
	int		(*get_cq_event)(struct ibv_comp_channel *ch, struct ibv_cq **cq, void **arg);
	void		(*ack_cq_events)(struct ibv_cq *cq, unsigned n);
	int		(*req_notify_cq)(struct ibv_cq *cq, int solicited);
	int		(*poll_cq)(struct ibv_cq *cq, int n, struct ibv_wc *wc);
	struct ibv_srq *(*create_srq)(struct ibv_pd *pd, struct ibv_srq_init_attr *a);
	int		(*modify_srq)(struct ibv_srq *srq, struct ibv_srq_attr *a, int mask);
	int		(*destroy_srq)(struct ibv_srq *srq);
	int		(*post_srq_recv)(struct ibv_srq *srq, struct ibv_recv_wr *wr, struct ibv_recv_wr **bad);
	struct ibv_qp *	(*create_qp)(struct ibv_pd *pd, struct ibv_qp_init_attr *a);
	int		(*modify_qp)(struct ibv_qp *qp, struct ibv_qp_attr *a, int mask);
	int		(*query_qp)(struct ibv_qp *qp, struct ibv_qp_attr *a, int mask, struct ibv_qp_init_attr *init);
	int		(*destroy_qp)(struct ibv_qp *qp);
	int		(*post_send)(struct ibv_qp *qp, struct ibv_send_wr *wr, struct ibv_send_wr **bad);
	struct ibv_ah *	(*create_ah)(struct ibv_pd *pd, struct ibv_ah_attr *a);
	int		(*destroy_ah)(struct ibv_ah *ah);
	int		(*get_async_event)(struct ibv_context *c, struct ibv_async_event *e);
	void		(*ack_async_event)(struct ibv_async_event *e);
	/* DC, mlx5 only. NULL: built without mlx5dv. */
	int		(*dc_supported)(struct ibv_device *d);				/* 1: worth trying */
	struct ibv_qp *	(*dc_create_initiator)(struct ibv_context *c, const struct mkv_verbs_dc *a);	/* NULL, errno EOPNOTSUPP: no DC */
	struct ibv_qp *	(*dc_create_target)(struct ibv_context *c, const struct mkv_verbs_dc *a);
	int		(*dc_post)(struct ibv_qp *qp, const struct mkv_verbs_dc_wr *wr, unsigned n);	/* all or none; errno value */
};

/*
 * The real ones: loads libmemkv-rdma.so, once a process. NULL with a sentence in why (no such module: the package is missing; rdma-core is missing; another
 * version). Any thread. Never unloaded: providers of rdma-core do not stand it.
 */
const struct mkv_verbs *mkv_verbs_load(char *why, size_t why_bytes);

#endif
