/*
 * A queue pair's life: made, broken, drained, destroyed. README.md has the states. Runs in the hub's thread.
 *
 * Owns the ibv_qp, the ring of what is out, and the memory of messages that are too long to travel in their work request. Invariants: see struct mkv_rdma_qp.
 * Every work request that was posted is followed by a signalled one of the same call, so whatever is out is told of by a completion, be it a flushed one;
 * should one not come (a device that went away), the ibv_qp is destroyed, after which nothing of it can be out.
 */
#include "config.h"
#include "common/rdma/qp.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/assert.h"
#include "common/base/auth.h"
#include "common/base/err.h"
#include "common/rdma/hub_priv.h"

static int
qp_try_create(struct mkv_rdma_qp *qp, uint32_t max_inline)
{
	struct ibv_qp_init_attr a = {
		.qp_context = qp,
		.send_cq = qp->hub->cq,
		.recv_cq = qp->hub->cq,
		.srq = qp->hub->srq,
		.cap = { .max_send_wr = qp->conf.sends, .max_send_sge = 1, .max_inline_data = max_inline },
		.qp_type = IBV_QPT_RC,
		.sq_sig_all = 0,
	};

	if ((qp->qp = qp->hub->v->create_qp(qp->hub->d->pd, &a)) == NULL)
		return (errno);
	qp->number = qp->qp->qp_num;
	qp->max_inline = MKV_MIN(a.cap.max_inline_data, max_inline);
	return (0);
}

/* The largest inline size that the device takes: it does not say which. */
static int
qp_create_verbs(struct mkv_rdma_qp *qp)
{
	int (*try)(struct mkv_rdma_qp *qp, uint32_t max_inline) = qp->kind == QP_RC ? qp_try_create : dc_create;
	int e = 0;

	for (uint32_t want = qp->kind == QP_TARGET ? 0 : QP_INLINE_WANT; want > 0; want /= 2)
		if ((e = try(qp, want)) == 0 || (e != EINVAL && e != ENOMEM && (e != EOPNOTSUPP || qp->kind != QP_RC)))
			return (e);
	return (try(qp, 0));
}

static int
qp_to_init(struct mkv_rdma_qp *qp)
{
	struct ibv_qp_attr a = { .qp_state = IBV_QPS_INIT, .pkey_index = 0, .port_num = qp->hub->d->port };

	a.qp_access_flags = (qp->conf.remote_read ? IBV_ACCESS_REMOTE_READ : 0) | (qp->conf.remote_write ? IBV_ACCESS_REMOTE_WRITE : 0);
	return (qp->hub->v->modify_qp(qp->qp, &a, IBV_QP_STATE | IBV_QP_PKEY_INDEX | IBV_QP_PORT | IBV_QP_ACCESS_FLAGS));
}

/* Memory for messages. Without inline data even the shortest needs registered memory. */
static int
qp_open_memory(struct mkv_rdma_qp *qp)
{
	struct mkv_rdma_hub *h = qp->hub;

	if (qp->kind == QP_TARGET)
		return (0);
	if ((qp->slot = calloc(qp->conf.sends, sizeof(*qp->slot))) == NULL ||
	    (qp->max_inline > 0 && (qp->stage = malloc((size_t)QP_STAGED * qp->max_inline)) == NULL))
		return (ENOMEM);
	if (qp->conf.send_bytes <= qp->max_inline)
		return (0);
	qp->slab_n = qp->conf.msgs != 0 ? MKV_MIN(qp->conf.msgs, qp->conf.sends) : qp->conf.sends;
	qp->slab_stride = (size_t)MKV_ALIGN_UP(qp->conf.send_bytes, 64);
	qp->slab_bytes = qp->slab_n * qp->slab_stride;
	if ((qp->slab = rdma_slab_take(qp->slab_bytes)) == NULL)
		return (ENOMEM);
	return ((qp->slab_mr = h->v->reg_mr(h->d->pd, qp->slab, qp->slab_bytes, IBV_ACCESS_LOCAL_WRITE)) == NULL ? errno : 0);
}

static int
qp_fill(struct mkv_rdma_qp *qp, int *err)
{
	struct { uint64_t key; uint32_t psn; } r;
	int e;

	if ((e = mkv_random(&r, sizeof(r))) != 0)
		return (e);
	qp->psn = r.psn & 0xffffff;
	qp->dc_key = qp->kind == QP_TARGET ? r.key : 0;
	if ((e = qp_create_verbs(qp)) == 0 && (e = qp_open_memory(qp)) == 0)
		e = qp->kind == QP_RC ? qp_to_init(qp) : dc_start(qp);
	*err = e;
	return (e == 0 ? 0 : e == ENOMEM ? MKV_E_NOMEM : MKV_E_SYSTEM);
}

/* Ids have 31 bits; one that is still in use after so many is passed over. */
static uint32_t
qp_new_id(struct mkv_rdma_hub *h)
{
	int taken;

	do {
		h->next_id = (h->next_id + 1) & 0x7fffffff;
		taken = 0;
		for (unsigned i = 0; i < HUB_BUCKETS; i++)
			MKV_LIST_FOREACH(it, &h->by_number[i])
				taken |= MKV_CONTAINER_OF(it, struct mkv_rdma_qp, by_number)->id == h->next_id;
	} while (taken);
	return (h->next_id);
}

static void
qp_free(struct mkv_rdma_qp *qp)
{
	struct mkv_rdma_hub *h = qp->hub;

	/* What the device does not destroy is the kernel's, until this process ends. */
	if (qp->qp != NULL)
		(void)hub_qp_kill(h, qp);
	mkv_list_remove(&qp->by_number);
	mkv_list_remove(&qp->dirty);
	mkv_list_remove(&qp->broken);
	hub_ah_back(h, &qp->ah);
	if (qp->slab_mr != NULL)
		h->v->dereg_mr(qp->slab_mr);
	rdma_slab_drop(qp->slab, qp->slab_bytes);
	free(qp->stage);
	free(qp->slot);
	h->sends_used -= qp->conf.sends;
	h->qp_n--;
	qp->magic = 0;
	free(qp);
}

int
qp_make(struct mkv_rdma_qp **out, struct mkv_rdma_hub *h, const struct mkv_rdma_qp_conf *c, enum qp_kind kind, int *err)
{
	struct mkv_rdma_qp *qp;
	int e;

	*out = NULL;
	*err = 0;
	MKV_CHECK_OBJ(h, HUB_MAGIC);
	MKV_ASSERT(c->ops != NULL && (kind == QP_TARGET ? c->sends == 0 : c->sends > 0 && (c->sends & (c->sends - 1)) == 0 && c->send_bytes > 0));
	if (c->sends > (uint32_t)h->d->attr.max_qp_wr || c->sends > h->conf.sends_max - h->sends_used || (qp = calloc(1, sizeof(*qp))) == NULL)
		return (MKV_E_NOMEM);
	qp->magic = QP_MAGIC;
	qp->hub = h;
	qp->conf = *c;
	qp->kind = kind;
	qp->id = qp_new_id(h);
	mkv_list_init(&qp->by_number);
	mkv_list_init(&qp->dirty);
	mkv_list_init(&qp->broken);
	mkv_list_init(&qp->lease);
	h->sends_used += c->sends;
	h->qp_n++;
	if ((e = qp_fill(qp, err)) != 0) {
		qp_free(qp);
		return (e);
	}
	mkv_list_push_tail(&h->by_number[qp->number % HUB_BUCKETS], &qp->by_number);
	qp->state = kind == QP_TARGET ? QP_READY : QP_NEW;
	*out = qp;
	return (0);
}

int
mkv_rdma_qp_create(struct mkv_rdma_qp **out, struct mkv_rdma_hub *h, const struct mkv_rdma_qp_conf *c)
{
	int err;

	return (qp_make(out, h, c, QP_RC, &err));
}

void
mkv_rdma_qp_destroy(struct mkv_rdma_qp **qpp)
{
	struct mkv_rdma_qp *qp = *qpp;

	if (qp == NULL)
		return;
	MKV_CHECK_OBJ(qp, QP_MAGIC);
	MKV_ASSERT(qp->state == QP_NEW || qp->state == QP_IDLE || (qp->is_open && qp->tail == qp->head));
	MKV_ASSERT(!qp->hub->in_poll);
	*qpp = NULL;
	qp_free(qp);
}

/* 1: it is in ERR, and that is the fence. A target has no such state; a soft device sets it beside the packet that it is just writing, or reading for us. */
static int
qp_to_err(struct mkv_rdma_qp *qp)
{
	struct ibv_qp_attr a = { .qp_state = IBV_QPS_ERR };

	return (qp->kind != QP_TARGET && qp->hub->v->modify_qp(qp->qp, &a, IBV_QP_STATE) == 0 && !qp->hub->d->is_soft);
}

/* In ERR, or destroyed, when it returns: nothing of the far end gets through. Destroying waits for the packet in hand. */
static void
qp_shut(struct mkv_rdma_qp *qp)
{
	qp->state = QP_BROKEN;
	qp->drain_until_ns = mkv_now_ns() + QP_DRAIN_NS;
	mkv_list_remove(&qp->dirty);
	if (qp->qp != NULL && !qp_to_err(qp))
		qp->is_open = hub_qp_kill(qp->hub, qp) != 0;
}

static void
qp_blame(struct mkv_rdma_qp *qp, enum mkv_rdma_fault fault, const char *why, int is_flush)
{
	snprintf(qp->why, sizeof(qp->why), "%s", why);
	qp->why_is_flush = is_flush;
	qp->fault = fault;
	/* The neighbour may have another address by now: it is looked up anew. */
	if (fault == MKV_RDMA_FAULT_PATH && qp->ah != NULL)
		hub_ah_forget(qp->hub, qp->ah);
}

void
qp_break(struct mkv_rdma_qp *qp, enum mkv_rdma_fault fault, const char *why, int is_flush)
{
	if (qp->state == QP_BROKEN && qp->say_broken && qp->why_is_flush && !is_flush)
		qp_blame(qp, fault, why, 0);
	if (qp->state != QP_READY)
		return;
	/* First: what its end brings to light may know more of the why. */
	qp_blame(qp, fault, why, is_flush);
	qp->say_broken = 1;
	qp_shut(qp);
	mkv_list_push_tail(&qp->hub->broken, &qp->broken);
}

void
mkv_rdma_qp_fail(struct mkv_rdma_qp *qp)
{
	MKV_CHECK_OBJ(qp, QP_MAGIC);
	qp->say_broken = 0;
	/* The other thread has it still: connect_done() goes on. */
	if (qp->state == QP_CONNECTING && qp->connect != NULL)
		qp->state = QP_BROKEN;
	if (qp->state != QP_NEW && qp->state != QP_READY && qp->state != QP_CONNECTING)
		return;
	qp_shut(qp);
	if (qp->tail == qp->head && !qp->is_open)
		qp->state = QP_IDLE;
	else
		mkv_list_push_tail(&qp->hub->broken, &qp->broken);
}

static enum mkv_rdma_fault
qp_fault_of(enum ibv_wc_status s)
{
	switch (s) {
	case IBV_WC_RETRY_EXC_ERR:
	case IBV_WC_RESP_TIMEOUT_ERR: return (MKV_RDMA_FAULT_PATH);
	case IBV_WC_RNR_RETRY_EXC_ERR: return (MKV_RDMA_FAULT_RNR);
	/* Both are a refusal by the far NIC, after which it takes nothing more of this one. With DC the second was seen for what is the first with RC (openucx/ucx#1770). */
	case IBV_WC_REM_ACCESS_ERR:
	case IBV_WC_REM_INV_REQ_ERR: return (MKV_RDMA_FAULT_ACCESS);
	default: return (MKV_RDMA_FAULT_OTHER);
	}
}

/* Only counts: callbacks are made by qp_hand_on(). What came unsignalled before a failed one may have failed too: it is not reported as good. */
void
qp_on_send(struct mkv_rdma_qp *qp, const struct ibv_wc *wc)
{
	uint32_t pos = (uint32_t)wc->wr_id;
	char why[QP_WHY_BYTES];

	if (pos - qp->seen >= qp->posted - qp->seen)
		return;
	if (wc->status == IBV_WC_SUCCESS && qp->ok == qp->seen) {
		qp->ok = qp->seen = pos + 1;
		return;
	}
	qp->seen = pos + 1;
	if (wc->status == IBV_WC_SUCCESS)
		return;
	snprintf(why, sizeof(why), "%s (status %d, vendor 0x%" PRIx32 ")", rdma_wc_text(wc->status), (int)wc->status, wc->vendor_err);
	qp_break(qp, qp_fault_of(wc->status), why, wc->status == IBV_WC_WR_FLUSH_ERR);
}

void
qp_on_recv(struct mkv_rdma_qp *qp, struct mkv_rdma_rx *rx, const struct ibv_wc *wc)
{
	char why[QP_WHY_BYTES];

	if (wc->status == IBV_WC_SUCCESS && wc->byte_len <= qp->hub->conf.recv_bytes && qp->state == QP_READY) {
		rx->bytes = wc->byte_len;
		qp->conf.ops->recv(qp, rx);
		return;
	}
	mkv_rdma_rx_back(qp->hub, rx);
	if (wc->status == IBV_WC_SUCCESS)
		return;
	qp->hub->count.bad_recvs++;
	/* A target is there for many: what one of them does wrong is his. */
	if (qp->kind == QP_TARGET)
		return;
	snprintf(why, sizeof(why), "%s (receive, status %d, vendor 0x%" PRIx32 ")", rdma_wc_text(wc->status), (int)wc->status, wc->vendor_err);
	qp_break(qp, MKV_RDMA_FAULT_OTHER, why, wc->status == IBV_WC_WR_FLUSH_ERR);
}

void
qp_hand_on(struct mkv_rdma_qp *qp)
{
	while (qp->tail != (qp->state == QP_READY || qp->say_broken ? qp->ok : qp->seen)) {
		struct qp_slot *s = &qp->slot[qp->tail & (qp->conf.sends - 1)];
		int good = qp->ok - qp->tail - 1 < qp->conf.sends;	/* tail is before ok */

		qp->slab_out -= (uint32_t)s->uses_slab;
		qp->tail++;
		qp->conf.ops->done(qp, s->cookie, good ? 0 : MKV_E_CLOSED);
	}
}

void
qp_drain(struct mkv_rdma_qp *qp)
{
	MKV_ASSERT(qp->state == QP_BROKEN);
	if ((qp->is_open || qp->seen != qp->posted) && qp->qp != NULL && mkv_now_ns() >= qp->drain_until_ns) {
		if (hub_qp_kill(qp->hub, qp) == 0)
			qp->is_open = 0;
		else
			qp->drain_until_ns = mkv_now_ns() + QP_DRAIN_NS;
	}
	if (qp->qp == NULL)
		qp->seen = qp->posted;
	if (qp->say_broken && (!qp->why_is_flush || qp->seen == qp->posted)) {
		qp_hand_on(qp);
		if (qp->say_broken) {		/* a callback may have failed it */
			qp->say_broken = 0;
			qp->conf.ops->broken(qp, qp->why);
		}
	}
	/* An initiator may have been given back by a callback, and be another user's by now. What the device may still touch does not come back. */
	if (qp->say_broken || qp->state != QP_BROKEN || qp->is_open)
		return;
	if (qp->seen == qp->posted)
		qp->seen = qp->posted = qp->head;
	qp_hand_on(qp);
	if (qp->state == QP_BROKEN && !qp->say_broken && qp->tail == qp->head) {
		qp->state = QP_IDLE;
		mkv_list_remove(&qp->broken);
	}
}

uint32_t
mkv_rdma_qp_number(const struct mkv_rdma_qp *qp)
{
	MKV_CHECK_OBJ(qp, QP_MAGIC);
	return (qp->number);
}

uint32_t
mkv_rdma_qp_psn(const struct mkv_rdma_qp *qp)
{
	MKV_CHECK_OBJ(qp, QP_MAGIC);
	return (qp->psn);
}

enum mkv_rdma_fault
mkv_rdma_qp_fault(const struct mkv_rdma_qp *qp)
{
	MKV_CHECK_OBJ(qp, QP_MAGIC);
	return (qp->fault);
}

void
mkv_rdma_qp_adopt(struct mkv_rdma_qp *qp, const struct mkv_rdma_qp_ops *ops, void *owner)
{
	MKV_CHECK_OBJ(qp, QP_MAGIC);
	MKV_ASSERT(ops != NULL && qp->tail == qp->head);
	qp->conf.ops = ops;
	qp->conf.owner = owner;
}

int
mkv_rdma_qp_ready(const struct mkv_rdma_qp *qp)
{
	MKV_CHECK_OBJ(qp, QP_MAGIC);
	return (qp->state == QP_READY);
}

int
mkv_rdma_qp_idle(const struct mkv_rdma_qp *qp)
{
	MKV_CHECK_OBJ(qp, QP_MAGIC);
	return (qp->state == QP_IDLE);
}

int
mkv_rdma_qp_fenced(const struct mkv_rdma_qp *qp)
{
	MKV_CHECK_OBJ(qp, QP_MAGIC);
	return ((qp->state == QP_BROKEN || qp->state == QP_IDLE) && !qp->is_open);
}

void *
mkv_rdma_qp_owner(const struct mkv_rdma_qp *qp)
{
	MKV_CHECK_OBJ(qp, QP_MAGIC);
	return (qp->conf.owner);
}

struct mkv_rdma_hub *
mkv_rdma_qp_hub(const struct mkv_rdma_qp *qp)
{
	MKV_CHECK_OBJ(qp, QP_MAGIC);
	return (qp->hub);
}
