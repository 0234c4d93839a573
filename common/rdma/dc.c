/*
 * DC initiators and targets: what their states want, and how their work requests leave. Runs in the hub's thread; README.md has the states.
 *
 * The masks are exactly those that mlx5 takes: it refuses one that has more. The address belongs to every work request. A target has its number only when it
 * listens. What can fail: a device that has no DC (EOPNOTSUPP), one that is going away; an address that leads nowhere.
 */
#include "config.h"
#include "common/rdma/dc.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "common/base/assert.h"
#include "common/base/err.h"
#include "common/rdma/hub_priv.h"

static const uint8_t dc_nowhere[16];

int
dc_create(struct mkv_rdma_qp *qp, uint32_t max_inline)
{
	struct mkv_rdma_hub *h = qp->hub;
	struct mkv_verbs_dc a = { .pd = h->d->pd, .send_cq = h->cq, .recv_cq = h->cq };

	if (qp->kind == QP_TARGET) {
		a.srq = h->srq;
		a.access_key = qp->dc_key;
		qp->qp = h->v->dc_create_target(h->d->ctx, &a);
	} else {
		a.max_send_wr = qp->conf.sends;
		a.max_send_sge = 1;
		a.max_inline = max_inline;
		qp->qp = h->v->dc_create_initiator(h->d->ctx, &a);
	}
	if (qp->qp == NULL)
		return (errno);
	qp->number = qp->qp->qp_num;
	qp->max_inline = max_inline;
	return (0);
}

/* Its far end is named by each work request; the path here is only where it sends from. */
static int
dc_start_initiator(struct mkv_rdma_qp *qp)
{
	const struct mkv_rdma_dev *d = qp->hub->d;
	struct ibv_qp_attr init = { .qp_state = IBV_QPS_INIT, .pkey_index = 0, .port_num = d->port };
	struct ibv_qp_attr rtr = { .qp_state = IBV_QPS_RTR, .path_mtu = d->mtu, .ah_attr = qp_path(d, dc_nowhere, 0) };
	struct ibv_qp_attr rts = { .qp_state = IBV_QPS_RTS, .sq_psn = qp->psn, .timeout = MKV_RDMA_TIMEOUT, .retry_cnt = MKV_RDMA_RETRIES,
		.rnr_retry = MKV_RDMA_RNR_RETRIES, .max_rd_atomic = d->rd_atomic_out };
	int e;

	if ((e = d->v->modify_qp(qp->qp, &init, IBV_QP_STATE | IBV_QP_PKEY_INDEX | IBV_QP_PORT)) != 0 ||
	    (e = d->v->modify_qp(qp->qp, &rtr, IBV_QP_STATE | IBV_QP_PATH_MTU | IBV_QP_AV)) != 0)
		return (e);
	return (d->v->modify_qp(qp->qp, &rts, IBV_QP_STATE | IBV_QP_SQ_PSN | IBV_QP_TIMEOUT | IBV_QP_RETRY_CNT | IBV_QP_RNR_RETRY | IBV_QP_MAX_QP_RD_ATOMIC));
}

static int
dc_start_target(struct mkv_rdma_qp *qp)
{
	const struct mkv_rdma_dev *d = qp->hub->d;
	struct ibv_qp_attr init = { .qp_state = IBV_QPS_INIT, .pkey_index = 0, .port_num = d->port };
	struct ibv_qp_attr rtr = { .qp_state = IBV_QPS_RTR, .path_mtu = d->mtu, .min_rnr_timer = MKV_RDMA_RNR_TIMER, .ah_attr = qp_path(d, dc_nowhere, 0) };
	int e;

	init.qp_access_flags = (qp->conf.remote_read ? IBV_ACCESS_REMOTE_READ : 0) | (qp->conf.remote_write ? IBV_ACCESS_REMOTE_WRITE : 0);
	if ((e = d->v->modify_qp(qp->qp, &init, IBV_QP_STATE | IBV_QP_PKEY_INDEX | IBV_QP_PORT | IBV_QP_ACCESS_FLAGS)) != 0 ||
	    (e = d->v->modify_qp(qp->qp, &rtr, IBV_QP_STATE | IBV_QP_PATH_MTU | IBV_QP_MIN_RNR_TIMER | IBV_QP_AV)) != 0)
		return (e);
	qp->number = qp->qp->qp_num;
	return (0);
}

int
dc_start(struct mkv_rdma_qp *qp)
{
	return (qp->kind == QP_TARGET ? dc_start_target(qp) : dc_start_initiator(qp));
}

int
dc_post(struct mkv_rdma_qp *qp, uint32_t n)
{
	struct mkv_verbs_dc_wr w[QP_BATCH];

	MKV_ASSERT(qp->kind == QP_INITIATOR && qp->ah != NULL && n <= QP_BATCH);
	for (uint32_t i = 0; i < n; i++) {
		const struct ibv_send_wr *from = &qp->wr[i];
		int is_message = from->opcode == IBV_WR_SEND;

		w[i] = (struct mkv_verbs_dc_wr){ .wr_id = from->wr_id, .opcode = from->opcode, .flags = from->send_flags, .sge = from->sg_list, .n_sge = 1,
			.rkey = is_message ? 0 : from->wr.rdma.rkey, .remote = is_message ? 0 : from->wr.rdma.remote_addr, .ah = qp->ah->ah, .dctn = qp->dctn,
			.dc_key = qp->dc_key };
	}
	return (qp->hub->v->dc_post(qp->qp, w, n));
}

int
mkv_rdma_target_create(struct mkv_rdma_qp **out, struct mkv_rdma_hub *h, const struct mkv_rdma_qp_conf *c)
{
	int err;

	return (qp_make(out, h, c, QP_TARGET, &err));
}

uint64_t
mkv_rdma_target_key(const struct mkv_rdma_qp *qp)
{
	MKV_CHECK_OBJ(qp, QP_MAGIC);
	MKV_ASSERT(qp->kind == QP_TARGET);
	return (qp->dc_key);
}

int
mkv_rdma_initiator_create(struct mkv_rdma_qp **out, struct mkv_rdma_hub *h, const struct mkv_rdma_qp_conf *c)
{
	int err;

	return (qp_make(out, h, c, QP_INITIATOR, &err));
}

int
mkv_rdma_initiator_aim(struct mkv_rdma_qp *qp, const struct mkv_rdma_dct *to)
{
	struct mkv_rdma_way *ah;
	int e;

	MKV_CHECK_OBJ(qp, QP_MAGIC);
	MKV_ASSERT(qp->kind == QP_INITIATOR && (qp->state == QP_NEW || qp->state == QP_READY) && qp->tail == qp->head);
	if (to->dctn < 2 || to->dctn > 0xffffff || !qp_address_fits(qp->hub->d, to->gid, to->lid))
		return (MKV_E_PEER);
	if (qp->hub->cq_failed)
		return (MKV_E_SYSTEM);
	if ((e = hub_ah_take(qp->hub, to->gid, to->lid, &ah)) != 0)
		return (e);
	hub_ah_back(qp->hub, &qp->ah);
	qp->ah = ah;
	qp->dctn = to->dctn;
	qp->dc_key = to->key;
	qp->state = QP_READY;
	return (0);
}

int
mkv_rdma_initiator_reset(struct mkv_rdma_qp *qp)
{
	struct ibv_qp_attr a = { .qp_state = IBV_QPS_RESET };

	MKV_CHECK_OBJ(qp, QP_MAGIC);
	MKV_ASSERT(qp->kind == QP_INITIATOR && qp->state == QP_IDLE && qp->tail == qp->head);
	/* RESET takes what lies in the completion queue with it. Nothing does: all came back, or the queue pair is gone and with it what it owed. */
	if (qp->qp == NULL || qp->hub->cq_failed || qp->hub->v->modify_qp(qp->qp, &a, IBV_QP_STATE) != 0 || dc_start(qp) != 0)
		return (MKV_E_SYSTEM);
	hub_ah_back(qp->hub, &qp->ah);
	qp->ok = qp->seen = qp->posted = qp->head;
	qp->unsignalled = qp->staged = 0;
	qp->fault = MKV_RDMA_FAULT_NONE;
	qp->state = QP_NEW;
	return (0);
}

static void
try_on_recv(struct mkv_rdma_qp *qp, struct mkv_rdma_rx *rx)
{
	mkv_rdma_rx_back(mkv_rdma_qp_hub(qp), rx);
}

int
mkv_rdma_dc_try(struct mkv_rdma_hub *h, char *why, size_t why_bytes)
{
	static const struct mkv_rdma_qp_ops ops = { .recv = try_on_recv };
	struct mkv_rdma_qp_conf c = { .sends = 1, .send_bytes = 1, .ops = &ops };
	const struct mkv_rdma_dev *d;
	struct mkv_rdma_qp *in, *to;
	int e, err;

	MKV_CHECK_OBJ(h, HUB_MAGIC);
	d = h->d;
	if (d->v->dc_supported == NULL)
		return (rdma_why(0, why, why_bytes, "memkv was built without mlx5dv, and so without DC"));
	if (!d->v->dc_supported(d->ctx->device))
		return (rdma_why(0, why, why_bytes, "RDMA device %s has no DC: it is none of mlx5", d->name));
	if ((e = qp_make(&in, h, &c, QP_INITIATOR, &err)) != 0)
		return (rdma_why(0, why, why_bytes, "RDMA device %s makes no DC initiator: %s", d->name, err != 0 ? strerror(err) : mkv_err(e)));
	mkv_rdma_qp_destroy(&in);
	c.sends = 0;
	if ((e = qp_make(&to, h, &c, QP_TARGET, &err)) != 0)
		return (rdma_why(0, why, why_bytes, "RDMA device %s makes no DC target: %s", d->name, err != 0 ? strerror(err) : mkv_err(e)));
	mkv_rdma_qp_fail(to);
	mkv_rdma_qp_destroy(&to);
	return (1);
}
