/*
 * NEW -> READY: the far end's numbers are checked and given to the device. Runs in the hub's thread.
 *
 * The numbers are foreign: they came by the wire. What the device makes of them can fail: no route, no neighbour.
 */
#include "config.h"
#include "common/rdma/qp.h"

#include <errno.h>
#include <string.h>

#include "common/base/assert.h"
#include "common/base/err.h"
#include "common/rdma/hub_priv.h"

#define CONNECT_HOPS	64u

int
qp_address_fits(const struct mkv_rdma_dev *d, const uint8_t gid[16], uint16_t lid)
{
	static const uint8_t zero[16];

	return (d->is_roce ? memcmp(gid, zero, 16) != 0 && gid[0] != 0xff : lid > 0 && lid < 0xc000);
}

static int
connect_numbers_fit(const struct mkv_rdma_dev *d, const struct mkv_rdma_peer *p)
{
	if (p->qpn < 2 || p->qpn > 0xffffff || p->psn > 0xffffff || rdma_mtu_of(p->mtu_bytes) == 0)
		return (0);
	return (qp_address_fits(d, p->gid, p->lid));
}

struct ibv_ah_attr
qp_path(const struct mkv_rdma_dev *d, const uint8_t gid[16], uint16_t lid)
{
	struct ibv_ah_attr a = { .dlid = lid, .sl = d->service_level, .port_num = d->port, .is_global = 1,
		.grh = { .sgid_index = (uint8_t)d->gid_index, .hop_limit = CONNECT_HOPS, .traffic_class = d->traffic_class } };

	memcpy(a.grh.dgid.raw, gid, sizeof(a.grh.dgid.raw));
	return (a);
}

static int
connect_to_rtr(struct mkv_rdma_qp *qp, const struct mkv_rdma_peer *p)
{
	const struct mkv_rdma_dev *d = qp->hub->d;
	struct ibv_qp_attr a = {
		.qp_state = IBV_QPS_RTR,
		.path_mtu = MKV_MIN(d->mtu, rdma_mtu_of(p->mtu_bytes)),
		.dest_qp_num = p->qpn,
		.rq_psn = p->psn,
		.max_dest_rd_atomic = MKV_MIN(d->rd_atomic_in, p->rd_atomic_out),
		.min_rnr_timer = MKV_RDMA_RNR_TIMER,
		.ah_attr = qp_path(d, p->gid, p->lid),
	};

	return (qp->hub->v->modify_qp(qp->qp, &a, IBV_QP_STATE | IBV_QP_AV | IBV_QP_PATH_MTU | IBV_QP_DEST_QPN | IBV_QP_RQ_PSN | IBV_QP_MAX_DEST_RD_ATOMIC |
	    IBV_QP_MIN_RNR_TIMER));
}

static int
connect_to_rts(struct mkv_rdma_qp *qp, const struct mkv_rdma_peer *p)
{
	struct ibv_qp_attr a = {
		.qp_state = IBV_QPS_RTS,
		.sq_psn = qp->psn,
		.timeout = MKV_RDMA_TIMEOUT,
		.retry_cnt = MKV_RDMA_RETRIES,
		.rnr_retry = MKV_RDMA_RNR_RETRIES,
		.max_rd_atomic = MKV_MIN(qp->hub->d->rd_atomic_out, p->rd_atomic_in),
	};

	return (qp->hub->v->modify_qp(qp->qp, &a, IBV_QP_STATE | IBV_QP_SQ_PSN | IBV_QP_TIMEOUT | IBV_QP_RETRY_CNT | IBV_QP_RNR_RETRY |
	    IBV_QP_MAX_QP_RD_ATOMIC));
}

int
qp_path_err(int e)
{
	switch (e) {
	case ENETUNREACH:
	case EHOSTUNREACH:
	case EHOSTDOWN:
	case ENETDOWN:
	case EADDRNOTAVAIL:
	case ETIMEDOUT: return (MKV_E_UNREACHABLE);
	case ENOMEM: return (MKV_E_NOMEM);
	default: return (MKV_E_SYSTEM);
	}
}

int
mkv_rdma_qp_connect(struct mkv_rdma_qp *qp, const struct mkv_rdma_peer *p)
{
	int e;

	MKV_CHECK_OBJ(qp, QP_MAGIC);
	MKV_ASSERT(qp->kind == QP_RC && qp->state == QP_NEW);
	if (!connect_numbers_fit(qp->hub->d, p))
		return (MKV_E_PEER);
	if ((e = connect_to_rtr(qp, p)) != 0 || (e = connect_to_rts(qp, p)) != 0) {
		mkv_rdma_qp_fail(qp);
		return (qp_path_err(e));
	}
	qp->state = QP_READY;
	return (0);
}
