/*
 * Queueing and posting work requests. Runs in the hub's thread.
 *
 * What is queued is a filled work request; mkv_rdma_hub_flush(), or a full batch, posts all of a queue pair by one call. Signalled are every 16th, those asked
 * for and the last of each batch: so everything that was posted is told of. A queue pair that is broken, and whose user has not heard of it yet, takes requests and
 * gives them back as closed.
 */
#include "config.h"
#include "common/rdma/qp.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "common/base/assert.h"
#include "common/base/err.h"
#include "common/rdma/hub_priv.h"

uint32_t
mkv_rdma_qp_room(const struct mkv_rdma_qp *qp)
{
	MKV_CHECK_OBJ(qp, QP_MAGIC);
	return (qp->state == QP_READY ? qp->conf.sends - (qp->head - qp->tail) : 0);
}

uint32_t
mkv_rdma_qp_send_room(const struct mkv_rdma_qp *qp)
{
	uint32_t room = mkv_rdma_qp_room(qp);

	return (qp->slab_n > 0 ? MKV_MIN(room, qp->slab_n - qp->slab_out) : room);
}

void
qp_post(struct mkv_rdma_qp *qp)
{
	uint32_t n = qp->head - qp->posted, taken;
	struct ibv_send_wr *bad = NULL;
	char why[QP_WHY_BYTES];
	int e;

	mkv_list_remove(&qp->dirty);
	MKV_ASSERT(qp->state == QP_READY && n > 0 && n <= QP_BATCH);
	for (uint32_t i = 0; i + 1 < n; i++)
		qp->wr[i].next = &qp->wr[i + 1];
	qp->wr[n - 1].next = NULL;
	qp->wr[n - 1].send_flags |= IBV_SEND_SIGNALED;
	qp->unsignalled = 0;
	qp->staged = 0;
	qp->hub->count.doorbells++;
	e = qp->kind == QP_INITIATOR ? dc_post(qp, n) : qp->hub->v->post_send(qp->qp, qp->wr, &bad);
	taken = e == 0 ? n : bad >= qp->wr && bad < qp->wr + n ? (uint32_t)(bad - qp->wr) : 0;
	qp->posted += taken;
	qp->hub->count.wrs += taken;
	if (e == 0)
		return;
	snprintf(why, sizeof(why), "the device takes no work request: %s", strerror(e));
	qp_break(qp, MKV_RDMA_FAULT_OTHER, why, 0);
}

/* The next of the batch, empty but for its number and its piece. NULL: broken, it will come back as it is. */
static struct ibv_send_wr *
qp_next(struct mkv_rdma_qp *qp, unsigned flags, void *cookie, int uses_slab)
{
	uint32_t i = qp->head - qp->posted, pos = qp->head;
	struct ibv_send_wr *w;

	MKV_ASSERT(pos - qp->tail < qp->conf.sends);
	qp->slot[pos & (qp->conf.sends - 1)] = (struct qp_slot){ cookie, uses_slab };
	qp->head++;
	if (qp->state != QP_READY)
		return (NULL);
	MKV_ASSERT(i < QP_BATCH);
	w = &qp->wr[i];
	*w = (struct ibv_send_wr){ .wr_id = (uint64_t)qp->id << 32 | pos, .sg_list = &qp->sge[i], .num_sge = 1 };
	if (++qp->unsignalled >= QP_SIGNAL_EVERY || (flags & MKV_RDMA_SIGNAL) != 0) {
		w->send_flags |= IBV_SEND_SIGNALED;
		qp->unsignalled = 0;
	}
	if ((flags & MKV_RDMA_FENCE) != 0)
		w->send_flags |= IBV_SEND_FENCE;
	return (w);
}

static void
qp_queued(struct mkv_rdma_qp *qp)
{
	if (qp->head - qp->posted >= QP_BATCH || qp->staged >= QP_STAGED)
		qp_post(qp);
	else if (mkv_list_empty(&qp->dirty))
		mkv_list_push_tail(&qp->hub->dirty, &qp->dirty);
}

static void
qp_one_sided(struct mkv_rdma_qp *qp, enum ibv_wr_opcode op, uintptr_t local, uint32_t lkey, uint64_t remote, uint32_t rkey, uint32_t bytes, unsigned flags,
    void *cookie)
{
	struct ibv_send_wr *w;

	MKV_CHECK_OBJ(qp, QP_MAGIC);
	MKV_ASSERT(bytes > 0 && (qp->state == QP_READY || qp->state == QP_BROKEN));
	if ((w = qp_next(qp, flags, cookie, 0)) == NULL)
		return;
	w->opcode = op;
	w->wr.rdma.remote_addr = remote;
	w->wr.rdma.rkey = rkey;
	*w->sg_list = (struct ibv_sge){ local, bytes, lkey };
	qp_queued(qp);
}

void
mkv_rdma_qp_read(struct mkv_rdma_qp *qp, void *local, uint32_t lkey, uint64_t remote, uint32_t rkey, uint32_t bytes, unsigned flags, void *cookie)
{
	qp_one_sided(qp, IBV_WR_RDMA_READ, (uintptr_t)local, lkey, remote, rkey, bytes, flags, cookie);
}

void
mkv_rdma_qp_write(struct mkv_rdma_qp *qp, const void *local, uint32_t lkey, uint64_t remote, uint32_t rkey, uint32_t bytes, unsigned flags, void *cookie)
{
	qp_one_sided(qp, IBV_WR_RDMA_WRITE, (uintptr_t)local, lkey, remote, rkey, bytes, flags, cookie);
}

static void
qp_gather(uint8_t *to, const struct iovec *iov, unsigned n)
{
	for (unsigned i = 0; i < n; i++) {
		if (iov[i].iov_len > 0)
			memcpy(to, iov[i].iov_base, iov[i].iov_len);
		to += iov[i].iov_len;
	}
}

void
mkv_rdma_qp_send(struct mkv_rdma_qp *qp, const struct iovec *iov, unsigned n, unsigned flags, void *cookie)
{
	struct ibv_send_wr *w;
	uint8_t *to;
	size_t bytes = 0;
	int is_inline;

	MKV_CHECK_OBJ(qp, QP_MAGIC);
	for (unsigned i = 0; i < n; i++)
		bytes += iov[i].iov_len;
	MKV_ASSERT(bytes > 0 && bytes <= qp->conf.send_bytes && (qp->state == QP_READY || qp->state == QP_BROKEN));
	is_inline = bytes <= qp->max_inline;
	if ((w = qp_next(qp, flags, cookie, !is_inline)) == NULL)
		return;
	if (is_inline) {
		to = qp->stage + (size_t)qp->staged++ * qp->max_inline;
		w->send_flags |= IBV_SEND_INLINE;
	} else {
		MKV_ASSERT(qp->slab_out < qp->slab_n);
		to = qp->slab + qp->slab_next * qp->slab_stride;
		qp->slab_next = (qp->slab_next + 1) % qp->slab_n;
		qp->slab_out++;
	}
	qp_gather(to, iov, n);
	w->opcode = IBV_WR_SEND;
	*w->sg_list = (struct ibv_sge){ (uintptr_t)to, (uint32_t)bytes, is_inline ? 0 : qp->slab_mr->lkey };
	qp_queued(qp);
}
