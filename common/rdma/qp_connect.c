/*
 * NEW -> READY: the far end's numbers are checked and given to the device. Runs in the hub's thread.
 *
 * The numbers are foreign: they came by the wire. What the device makes of them can fail: no route, no neighbour.
 */
#include "config.h"
#include "common/rdma/qp.h"

#include <errno.h>
#include <stdlib.h>
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

static struct ibv_qp_attr
connect_rtr(const struct mkv_rdma_dev *d, const struct mkv_rdma_peer *p)
{
	return ((struct ibv_qp_attr){
		.qp_state = IBV_QPS_RTR,
		.path_mtu = MKV_MIN(d->mtu, rdma_mtu_of(p->mtu_bytes)),
		.dest_qp_num = p->qpn,
		.rq_psn = p->psn,
		.max_dest_rd_atomic = MKV_MIN(d->rd_atomic_in, p->rd_atomic_out),
		.min_rnr_timer = MKV_RDMA_RNR_TIMER,
		.ah_attr = qp_path(d, p->gid, p->lid),
	});
}

/* Here the kernel asks for the far end's hardware address. Any thread. */
static int
connect_to_rtr(const struct mkv_verbs *v, struct ibv_qp *qp, struct ibv_qp_attr *a)
{
	return (v->modify_qp(qp, a, IBV_QP_STATE | IBV_QP_AV | IBV_QP_PATH_MTU | IBV_QP_DEST_QPN | IBV_QP_RQ_PSN | IBV_QP_MAX_DEST_RD_ATOMIC |
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

static int
connect_here(struct mkv_rdma_qp *qp, const struct mkv_rdma_peer *p)
{
	struct ibv_qp_attr a = connect_rtr(qp->hub->d, p);
	int e;

	if ((e = connect_to_rtr(qp->hub->v, qp->qp, &a)) != 0 || (e = connect_to_rts(qp, p)) != 0) {
		mkv_rdma_qp_fail(qp);
		return (qp_path_err(e));
	}
	qp->state = QP_READY;
	return (0);
}

/* ---- By another thread ----------------------------------------------------------------------------------------------------- */

struct qp_connect {
	struct hub_job	job;
	struct mkv_rdma_qp *owner;
	const struct mkv_verbs *v;
	struct ibv_qp	*qp;
	struct ibv_qp_attr attr;
	struct mkv_rdma_peer peer;
	int		err;		/* errno value */
};

static void
connect_call(struct hub_job *j)
{
	struct qp_connect *c = MKV_CONTAINER_OF(j, struct qp_connect, job);

	c->err = connect_to_rtr(c->v, c->qp, &c->attr);
}

/* One that was failed meanwhile has nothing out, and nobody has access by it. */
static void
connect_done(struct hub_job *j)
{
	struct qp_connect *c = MKV_CONTAINER_OF(j, struct qp_connect, job);
	struct mkv_rdma_qp *qp = c->owner;
	int e = c->err;

	qp->connect = NULL;
	if (qp->state != QP_CONNECTING)
		qp->state = QP_IDLE;
	else if ((e = qp->hub->cq_failed ? EIO : e) == 0 && (e = connect_to_rts(qp, &c->peer)) == 0)
		qp->state = QP_READY;
	else {
		qp->connect_err = qp_path_err(e);
		mkv_rdma_qp_fail(qp);
	}
	free(c);
}

static int
connect_aside(struct mkv_rdma_qp *qp, const struct mkv_rdma_peer *p)
{
	struct qp_connect *c;
	int e;

	if ((c = calloc(1, sizeof(*c))) == NULL)
		return (MKV_E_NOMEM);
	mkv_list_init(&c->job.link);
	c->job.call = connect_call;
	c->job.done = connect_done;
	c->owner = qp;
	c->v = qp->hub->v;
	c->qp = qp->qp;
	c->attr = connect_rtr(qp->hub->d, p);
	c->peer = *p;
	c->err = ECANCELED;
	if ((e = hub_aside_give(qp->hub, &c->job)) != 0) {
		free(c);
		return (e);
	}
	qp->connect = c;
	qp->connect_err = MKV_E_CLOSED;
	qp->state = QP_CONNECTING;
	return (0);
}

int
mkv_rdma_qp_connect(struct mkv_rdma_qp *qp, const struct mkv_rdma_peer *p)
{
	MKV_CHECK_OBJ(qp, QP_MAGIC);
	MKV_ASSERT(qp->kind == QP_RC && qp->state == QP_NEW);
	if (!connect_numbers_fit(qp->hub->d, p))
		return (MKV_E_PEER);
	return (qp->hub->conf.aside ? connect_aside(qp, p) : connect_here(qp, p));
}

int
mkv_rdma_qp_connected(const struct mkv_rdma_qp *qp)
{
	MKV_CHECK_OBJ(qp, QP_MAGIC);
	return (qp->state == QP_READY ? 0 : qp->state == QP_CONNECTING ? MKV_E_AGAIN : qp->connect_err);
}
