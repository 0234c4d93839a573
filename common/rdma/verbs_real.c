/*
 * The real verbs: the whole of libmemkv-rdma.so, which fronts, libmemkv and the tools load by mkv_verbs_load(). One symbol is exported, the table.
 *
 * Nothing is decided here: each function is one of rdma-core's under the name of the table. Many of rdma-core's are macros or inline, hence the wrappers.
 * Any thread, as verbs.h says. DC is compiled in where mlx5dv was found.
 */
#include "config.h"
#include "common/rdma/verbs.h"

#include <errno.h>
#include <string.h>

#ifdef HAVE_MLX5DV
#include <infiniband/mlx5dv.h>
#endif

static int
real_query_device(struct ibv_context *c, struct ibv_device_attr *a)
{
	return (ibv_query_device(c, a));
}

static int
real_query_port(struct ibv_context *c, uint8_t port, struct ibv_port_attr *a)
{
	return (ibv_query_port(c, port, a));
}

static ssize_t
real_query_gid_table(struct ibv_context *c, struct ibv_gid_entry *e, size_t max)
{
	return (ibv_query_gid_table(c, e, max, 0));
}

static int
real_odp_caps(struct ibv_context *c, uint32_t *rc_caps)
{
	struct ibv_device_attr_ex a;
	int r;

	*rc_caps = 0;
	memset(&a, 0, sizeof(a));
	if ((r = ibv_query_device_ex(c, NULL, &a)) != 0)
		return (r);
	if ((a.odp_caps.general_caps & IBV_ODP_SUPPORT) != 0)
		*rc_caps = a.odp_caps.per_transport_caps.rc_odp_caps;
	return (0);
}

static struct ibv_mr *
real_reg_mr(struct ibv_pd *pd, void *addr, size_t bytes, int access)
{
	return (ibv_reg_mr(pd, addr, bytes, access));
}

static int
real_req_notify_cq(struct ibv_cq *cq, int solicited)
{
	return (ibv_req_notify_cq(cq, solicited));
}

static int
real_poll_cq(struct ibv_cq *cq, int n, struct ibv_wc *wc)
{
	return (ibv_poll_cq(cq, n, wc));
}

static int
real_post_srq_recv(struct ibv_srq *srq, struct ibv_recv_wr *wr, struct ibv_recv_wr **bad)
{
	return (ibv_post_srq_recv(srq, wr, bad));
}

static int
real_post_send(struct ibv_qp *qp, struct ibv_send_wr *wr, struct ibv_send_wr **bad)
{
	return (ibv_post_send(qp, wr, bad));
}

#ifdef HAVE_MLX5DV

#define DC_INLINE_PIECES	4u		/* of inline data; common/rdma has one */

static int
real_dc_supported(struct ibv_device *d)
{
	return (mlx5dv_is_supported(d) ? 1 : 0);
}

static struct ibv_qp *
real_dc_create_initiator(struct ibv_context *c, const struct mkv_verbs_dc *a)
{
	struct mlx5dv_qp_init_attr dv = { .comp_mask = MLX5DV_QP_INIT_ATTR_MASK_DC, .dc_init_attr.dc_type = MLX5DV_DCTYPE_DCI };
	struct ibv_qp_init_attr_ex x = {
		.qp_type = IBV_QPT_DRIVER,
		.send_cq = a->send_cq,
		.recv_cq = a->recv_cq,
		.cap = { .max_send_wr = a->max_send_wr, .max_send_sge = a->max_send_sge, .max_inline_data = a->max_inline },
		.pd = a->pd,
		.comp_mask = IBV_QP_INIT_ATTR_PD | IBV_QP_INIT_ATTR_SEND_OPS_FLAGS,
		.send_ops_flags = IBV_QP_EX_WITH_RDMA_READ | IBV_QP_EX_WITH_RDMA_WRITE | IBV_QP_EX_WITH_SEND,
	};

	return (mlx5dv_create_qp(c, &x, &dv));
}

static struct ibv_qp *
real_dc_create_target(struct ibv_context *c, const struct mkv_verbs_dc *a)
{
	struct mlx5dv_qp_init_attr dv = { .comp_mask = MLX5DV_QP_INIT_ATTR_MASK_DC,
		.dc_init_attr = { .dc_type = MLX5DV_DCTYPE_DCT, .dct_access_key = a->access_key } };
	struct ibv_qp_init_attr_ex x = {
		.qp_type = IBV_QPT_DRIVER,
		.send_cq = a->send_cq,
		.recv_cq = a->recv_cq,
		.srq = a->srq,
		.pd = a->pd,
		.comp_mask = IBV_QP_INIT_ATTR_PD,
	};

	return (mlx5dv_create_qp(c, &x, &dv));
}

/* Inline data is copied by the setter. */
static void
real_dc_set_data(struct ibv_qp_ex *x, const struct mkv_verbs_dc_wr *w)
{
	struct ibv_data_buf buf[DC_INLINE_PIECES];

	if ((w->flags & IBV_SEND_INLINE) == 0) {
		ibv_wr_set_sge_list(x, w->n_sge, w->sge);
		return;
	}
	for (uint32_t i = 0; i < w->n_sge; i++) {
		buf[i].addr = (void *)(uintptr_t)w->sge[i].addr;
		buf[i].length = w->sge[i].length;
	}
	ibv_wr_set_inline_data_list(x, w->n_sge, buf);
}

static int
real_dc_fits(const struct mkv_verbs_dc_wr *w)
{
	return ((w->opcode == IBV_WR_RDMA_READ || w->opcode == IBV_WR_RDMA_WRITE || w->opcode == IBV_WR_SEND) &&
	    ((w->flags & IBV_SEND_INLINE) == 0 || w->n_sge <= DC_INLINE_PIECES));
}

static int
real_dc_post(struct ibv_qp *qp, const struct mkv_verbs_dc_wr *wr, unsigned n)
{
	struct ibv_qp_ex *x = ibv_qp_to_qp_ex(qp);
	struct mlx5dv_qp_ex *m = x != NULL ? mlx5dv_qp_ex_from_ibv_qp_ex(x) : NULL;

	if (m == NULL)
		return (EINVAL);
	for (unsigned i = 0; i < n; i++)
		if (!real_dc_fits(&wr[i]))
			return (EINVAL);
	ibv_wr_start(x);
	for (unsigned i = 0; i < n; i++) {
		x->wr_id = wr[i].wr_id;
		x->wr_flags = wr[i].flags & ~(unsigned)IBV_SEND_INLINE;	/* the setter says so */
		if (wr[i].opcode == IBV_WR_RDMA_READ)
			ibv_wr_rdma_read(x, wr[i].rkey, wr[i].remote);
		else if (wr[i].opcode == IBV_WR_RDMA_WRITE)
			ibv_wr_rdma_write(x, wr[i].rkey, wr[i].remote);
		else
			ibv_wr_send(x);
		real_dc_set_data(x, &wr[i]);
		mlx5dv_wr_set_dc_addr(m, wr[i].ah, wr[i].dctn, wr[i].dc_key);
	}
	return (ibv_wr_complete(x));
}

#else
#define real_dc_supported	NULL
#define real_dc_create_initiator NULL
#define real_dc_create_target	NULL
#define real_dc_post		NULL
#endif

extern const struct mkv_verbs mkv_verbs_module;

__attribute__((visibility("default"))) const struct mkv_verbs mkv_verbs_module = {
	.abi = MKV_VERBS_ABI,
	.get_device_list = ibv_get_device_list,
	.free_device_list = ibv_free_device_list,
	.get_device_name = ibv_get_device_name,
	.open_device = ibv_open_device,
	.close_device = ibv_close_device,
	.query_device = real_query_device,
	.query_port = real_query_port,
	.query_gid_table = real_query_gid_table,
	.odp_caps = real_odp_caps,
	.alloc_pd = ibv_alloc_pd,
	.dealloc_pd = ibv_dealloc_pd,
	.reg_mr = real_reg_mr,
	.reg_dmabuf_mr = ibv_reg_dmabuf_mr,
	.dereg_mr = ibv_dereg_mr,
	.create_comp_channel = ibv_create_comp_channel,
	.destroy_comp_channel = ibv_destroy_comp_channel,
	.create_cq = ibv_create_cq,
	.destroy_cq = ibv_destroy_cq,
	.get_cq_event = ibv_get_cq_event,
	.ack_cq_events = ibv_ack_cq_events,
	.req_notify_cq = real_req_notify_cq,
	.poll_cq = real_poll_cq,
	.create_srq = ibv_create_srq,
	.modify_srq = ibv_modify_srq,
	.destroy_srq = ibv_destroy_srq,
	.post_srq_recv = real_post_srq_recv,
	.create_qp = ibv_create_qp,
	.modify_qp = ibv_modify_qp,
	.query_qp = ibv_query_qp,
	.destroy_qp = ibv_destroy_qp,
	.post_send = real_post_send,
	.create_ah = ibv_create_ah,
	.destroy_ah = ibv_destroy_ah,
	.get_async_event = ibv_get_async_event,
	.ack_async_event = ibv_ack_async_event,
	.dc_supported = real_dc_supported,
	.dc_create_initiator = real_dc_create_initiator,
	.dc_create_target = real_dc_create_target,
	.dc_post = real_dc_post,
};
