/*
 * The fake fabric's queue pairs: their states, and what happens to a work request between two of them. Everything here runs under the fabric's lock.
 */
#include "config.h"
#include "tests/lib/fakeverbs.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/base/assert.h"
#include "tests/lib/fakeverbs_priv.h"

enum fate { FATE_DONE, FATE_WAITS, FATE_FAILED };

static struct fv_qp *
qp_of(struct ibv_qp *qp)
{
	return (MKV_CONTAINER_OF(qp, struct fv_qp, qp));
}

/* Those of all devices, one after the other; the next after q, NULL: from the first. */
static struct fv_qp *
qp_find(int (*is)(const struct fv_qp *q, const void *arg), const void *arg)
{
	for (unsigned i = 0; i < fv.n; i++)
		MKV_LIST_FOREACH(ci, &fv.dev[i].ctxs)
			MKV_LIST_FOREACH(qi, &MKV_CONTAINER_OF(ci, struct fv_ctx, link)->qps)
				if (is(MKV_CONTAINER_OF(qi, struct fv_qp, link), arg))
					return (MKV_CONTAINER_OF(qi, struct fv_qp, link));
	return (NULL);
}

static int
has_number(const struct fv_qp *q, const void *arg)
{
	return (q->qp.qp_num == *(const uint32_t *)arg);
}

struct fv_qp *
fv_find_qp(uint32_t qpn)
{
	return (qp_find(has_number, &qpn));
}

void
fv_told(uint32_t qpn, uint64_t frees)
{
	struct fv_qp *q = fv_find_qp(qpn);

	if (q != NULL && frees > q->freed && frees <= q->posted)
		q->freed = frees;
}

enum ibv_qp_state
fv_qp_state(uint32_t qpn)
{
	struct fv_qp *q;
	enum ibv_qp_state s;

	pthread_mutex_lock(&fv_mutex);
	q = fv_find_qp(qpn);
	s = q != NULL ? q->attr.qp_state : IBV_QPS_UNKNOWN;
	fv_leave();
	return (s);
}

struct ibv_qp_attr
fv_qp_attr(uint32_t qpn)
{
	struct ibv_qp_attr a;
	struct fv_qp *q;

	pthread_mutex_lock(&fv_mutex);
	if ((q = fv_find_qp(qpn)) == NULL)
		FV_DIE("no queue pair %u", (unsigned)qpn);
	a = q->attr;
	fv_leave();
	return (a);
}

/* ---- one work request ---- */

static struct fv_send *
qp_first(struct fv_qp *q)
{
	return (&q->send[q->head % q->init.cap.max_send_wr]);
}

/* The oldest leaves the queue, with a completion if it wants one or failed. */
static void
qp_finish(struct fv_qp *q, enum ibv_wc_status status)
{
	static const enum ibv_wc_opcode opcode[] = { [IBV_WR_RDMA_WRITE] = IBV_WC_RDMA_WRITE, [IBV_WR_RDMA_READ] = IBV_WC_RDMA_READ, [IBV_WR_SEND] = IBV_WC_SEND };
	struct fv_send *s = qp_first(q);
	struct ibv_wc wc = { .wr_id = s->wr_id, .status = status, .opcode = opcode[s->opcode], .qp_num = q->qp.qp_num };

	if (status != IBV_WC_SUCCESS)
		wc.opcode = (enum ibv_wc_opcode)0x77;	/* must not be looked at */
	if (status != IBV_WC_SUCCESS || (s->flags & IBV_SEND_SIGNALED) != 0)
		fv_complete(q->qp.send_cq, &wc, q->posted - q->n + 1);
	free(s->data);
	s->data = NULL;
	if (s->ah != NULL)
		s->ah->users--;
	s->ah = NULL;
	q->head++;
	q->n--;
}

static void
qp_flush(struct fv_qp *q)
{
	if ((fv.quirks & FV_NO_FLUSH) != 0 || fv_dev_of(q->qp.context)->is_gone)
		return;
	while (q->n > 0)
		qp_finish(q, IBV_WC_WR_FLUSH_ERR);
}

static void
qp_to_err(struct fv_qp *q)
{
	if (q->attr.qp_state == IBV_QPS_ERR)
		return;
	q->attr.qp_state = IBV_QPS_ERR;
	qp_flush(q);
}

static enum fate
qp_fails(struct fv_qp *q, enum ibv_wc_status status)
{
	qp_finish(q, status);
	qp_to_err(q);
	return (FATE_FAILED);
}

/* The far end's device found fault with a request: both ends are broken, but for a target, which is there for others too. */
static enum fate
qp_refused(struct fv_qp *q, struct fv_qp *far, enum ibv_wc_status status)
{
	if (far->kind == FV_DCT)
		return (qp_fails(q, status));
	qp_to_err(far);
	fv_push_event(fv_dev_of(far->qp.context), IBV_EVENT_QP_LAST_WQE_REACHED, 0, &far->qp);
	return (qp_fails(q, status));
}

static int
port_is_up(const struct fv_qp *q)
{
	const struct fv_dev *d = fv_dev_of(q->qp.context);

	return (!d->is_gone && d->conf.port[q->attr.port_num - 1].state == IBV_PORT_ACTIVE);
}

int
fv_has_gid(const struct fv_dev *d, const union ibv_gid *g)
{
	for (unsigned i = 0; i < d->conf.n_gids; i++)
		if (memcmp(d->conf.gid[i].gid.raw, g->raw, 16) == 0)
			return (1);
	return (0);
}

/* Whom q's first work request reaches; NULL: nobody answers. */
static struct fv_qp *
qp_far(const struct fv_qp *q)
{
	struct fv_qp *far = q->kind == FV_RC ? fv_find_qp(q->attr.dest_qp_num) : fv_dc_far(q, &q->send[q->head % q->init.cap.max_send_wr]);

	if (q->kind != FV_RC)
		return (far != NULL && port_is_up(q) && port_is_up(far) && far->attr.path_mtu >= q->attr.path_mtu ? far : NULL);
	if (far == NULL || far->kind != FV_RC || !fv_has_gid(fv_dev_of(far->qp.context), &q->attr.ah_attr.grh.dgid) || !port_is_up(q) || !port_is_up(far))
		return (NULL);
	if (far->attr.qp_state != IBV_QPS_RTR && far->attr.qp_state != IBV_QPS_RTS)
		return (NULL);
	if (far->attr.dest_qp_num != q->qp.qp_num || far->attr.rq_psn != q->attr.sq_psn || far->attr.path_mtu < q->attr.path_mtu)
		return (NULL);
	return (far);
}

/* Between the pieces of s and a plain range. 0: a piece is not registered for it. */
static int
send_copy(struct fv_qp *q, struct fv_send *s, uint8_t *range, uint64_t bytes, int into_pieces)
{
	if (s->data != NULL) {
		memcpy(range, s->data, bytes);
		return (1);
	}
	for (unsigned i = 0; i < s->n_sge && bytes > 0; i++) {
		uint64_t n = MKV_MIN(bytes, (uint64_t)s->sge[i].length);

		if (into_pieces)
			memcpy((void *)(uintptr_t)s->sge[i].addr, range, n);
		else
			memcpy(range, (const void *)(uintptr_t)s->sge[i].addr, n);
		range += n;
		bytes -= n;
	}
	(void)q;
	return (1);
}

static int
send_is_ours(struct fv_qp *q, const struct fv_send *s)
{
	int access = s->opcode == IBV_WR_RDMA_READ ? IBV_ACCESS_LOCAL_WRITE : 0;

	for (unsigned i = 0; s->data == NULL && i < s->n_sge; i++)
		if (fv_mr_find(fv_ctx_of(q->qp.context), q->qp.pd, s->sge[i].lkey, s->sge[i].addr, s->sge[i].length, access) == NULL)
			return (0);
	return (1);
}

static enum fate
run_one_sided(struct fv_qp *q, struct fv_qp *far, struct fv_send *s)
{
	int access = s->opcode == IBV_WR_RDMA_READ ? IBV_ACCESS_REMOTE_READ : IBV_ACCESS_REMOTE_WRITE;
	const struct fv_mr *m;

	if ((far->attr.qp_access_flags & (unsigned)access) == 0)
		return (qp_refused(q, far, IBV_WC_REM_ACCESS_ERR));
	if (s->opcode == IBV_WR_RDMA_READ && (q->attr.max_rd_atomic == 0 || (q->kind == FV_RC && far->attr.max_dest_rd_atomic < q->attr.max_rd_atomic)))
		return (qp_refused(q, far, IBV_WC_REM_INV_REQ_ERR));
	if ((m = fv_mr_find(fv_ctx_of(far->qp.context), far->qp.pd, s->rkey, s->remote, s->bytes, access)) == NULL)
		return (qp_refused(q, far, IBV_WC_REM_ACCESS_ERR));
	send_copy(q, s, m->at + (s->remote - m->iova), s->bytes, s->opcode == IBV_WR_RDMA_READ);
	qp_finish(q, IBV_WC_SUCCESS);
	return (FATE_DONE);
}

static void
srq_look(struct fv_srq *srq)
{
	struct fv_ctx *c = MKV_CONTAINER_OF(srq->srq.context, struct fv_ctx, c);
	struct ibv_async_event e = { .event_type = IBV_EVENT_SRQ_LIMIT_REACHED, .element = { .srq = &srq->srq } };

	if (srq->n >= srq->limit)
		return;
	srq->limit = 0;
	if (write(c->async_w, &e, sizeof(e)) != sizeof(e))
		FV_DIE("too many events");
}

static enum fate
run_message(struct fv_qp *q, struct fv_qp *far, struct fv_send *s)
{
	struct fv_srq *srq = far->qp.srq != NULL ? MKV_CONTAINER_OF(far->qp.srq, struct fv_srq, srq) : NULL;
	struct ibv_wc wc = { .opcode = IBV_WC_RECV, .qp_num = far->qp.qp_num, .byte_len = s->bytes };
	struct ibv_sge *g;

	if (srq == NULL || srq->n == 0) {
		if ((fv.quirks & FV_RNR_AT_ONCE) != 0)
			return (qp_fails(q, IBV_WC_RNR_RETRY_EXC_ERR));
		return (FATE_WAITS);
	}
	g = &srq->sge[srq->head];
	wc.wr_id = srq->wr[srq->head].wr_id;
	srq->head = (srq->head + 1) % srq->cap;
	srq->n--;
	srq_look(srq);
	if (s->bytes > g->length) {
		wc.status = IBV_WC_LOC_QP_OP_ERR;
		wc.opcode = (enum ibv_wc_opcode)0x77;
		fv_complete(far->qp.recv_cq, &wc, 0);
		return (qp_refused(q, far, IBV_WC_REM_OP_ERR));
	}
	send_copy(q, s, (uint8_t *)(uintptr_t)g->addr, s->bytes, 0);
	fv_complete(far->qp.recv_cq, &wc, 0);
	qp_finish(q, IBV_WC_SUCCESS);
	return (FATE_DONE);
}

static enum fate
qp_run_first(struct fv_qp *q)
{
	struct fv_send *s = qp_first(q);
	struct fv_qp *far;

	if (fv_dev_of(q->qp.context)->is_gone)
		return (FATE_WAITS);
	if (!send_is_ours(q, s)) {
		if ((fv.quirks & FV_FLUSH_FIRST) == 0)
			return (qp_fails(q, IBV_WC_LOC_PROT_ERR));
		qp_to_err(q);
		return (FATE_FAILED);
	}
	if ((far = qp_far(q)) == NULL)
		return (qp_fails(q, IBV_WC_RETRY_EXC_ERR));
	if (far->kind == FV_DCT && s->dc_key != far->dc_key)
		return (qp_refused(q, far, IBV_WC_REM_ACCESS_ERR));
	return (s->opcode == IBV_WR_SEND ? run_message(q, far, s) : run_one_sided(q, far, s));
}

/* Of all that waits the one that was posted first, on queue pairs that are not stuck. */
static int
is_older(const struct fv_qp *q, const void *arg)
{
	const struct fv_qp **best = *(const struct fv_qp ***)(uintptr_t)arg;

	if (q->n > 0 && q->attr.qp_state == IBV_QPS_RTS && !q->is_stuck &&
	    (*best == NULL || q->send[q->head % q->init.cap.max_send_wr].seq < (*best)->send[(*best)->head % (*best)->init.cap.max_send_wr].seq))
		*best = q;
	return (0);
}

static struct fv_qp *
qp_oldest(void)
{
	const struct fv_qp *best = NULL, **p = &best;

	qp_find(is_older, &p);
	return ((struct fv_qp *)(uintptr_t)best);
}

static int
unstick(const struct fv_qp *q, const void *arg)
{
	(void)arg;
	((struct fv_qp *)(uintptr_t)q)->is_stuck = 0;
	return (0);
}

static unsigned
run(unsigned max)
{
	struct fv_qp *q;
	unsigned n = 0;

	qp_find(unstick, NULL);
	while (n < max && (q = qp_oldest()) != NULL) {
		if (qp_run_first(q) != FATE_WAITS) {
			n++;
			continue;
		}
		q->is_stuck = 1;
		fv.count.rnr_waits++;
	}
	return (n);
}

void
fv_run_all(void)
{
	if (!fv.is_held)
		run(~0u);
}

void
fv_hold(int on)
{
	pthread_mutex_lock(&fv_mutex);
	fv.is_held = on;
	fv_run_all();
	fv_leave();
}

unsigned
fv_step(unsigned n)
{
	unsigned k;

	pthread_mutex_lock(&fv_mutex);
	k = run(n);
	fv_leave();
	return (k);
}

static int
add_waiting(const struct fv_qp *q, const void *arg)
{
	**(unsigned *const *)arg += q->attr.qp_state == IBV_QPS_RTS ? q->n : 0;
	return (0);
}

unsigned
fv_held(void)
{
	unsigned n = 0, *p = &n;

	pthread_mutex_lock(&fv_mutex);
	qp_find(add_waiting, &p);
	fv_leave();
	return (n);
}

/* Of the WRITE that is next: the first bytes go to `into`, or where they belong if that is NULL. Where that is; NULL: there is none that may. */
static uint8_t *
write_begin(uint32_t bytes, const struct fv_qp *towards, uint8_t *into)
{
	struct fv_qp *q, *far;
	const struct fv_mr *m;
	struct fv_send *s;

	qp_find(unstick, NULL);
	if ((q = qp_oldest()) == NULL || (far = qp_far(q)) == NULL || (towards != NULL && far != towards))
		return (NULL);
	s = qp_first(q);
	if (s->opcode != IBV_WR_RDMA_WRITE || bytes > s->bytes || !send_is_ours(q, s) || (far->kind == FV_DCT && s->dc_key != far->dc_key) ||
	    (far->attr.qp_access_flags & IBV_ACCESS_REMOTE_WRITE) == 0 ||
	    (m = fv_mr_find(fv_ctx_of(far->qp.context), far->qp.pd, s->rkey, s->remote, s->bytes, IBV_ACCESS_REMOTE_WRITE)) == NULL)
		return (NULL);
	send_copy(q, s, into != NULL ? into : m->at + (s->remote - m->iova), bytes, 0);
	return (m->at + (s->remote - m->iova));
}

int
fv_part(uint32_t bytes)
{
	int ok;

	pthread_mutex_lock(&fv_mutex);
	ok = write_begin(bytes, NULL, NULL) != NULL;
	fv_leave();
	return (ok);
}

/* q is about to be in ERR. */
static void
qp_in_hand(const struct fv_qp *q)
{
	if ((fv.quirks & FV_IN_HAND) == 0 || (fv.in_hand.to = write_begin(sizeof(fv.in_hand.data), q, fv.in_hand.data)) == NULL)
		return;
	fv.in_hand.qpn = q->qp.qp_num;
	fv.in_hand.bytes = sizeof(fv.in_hand.data);
}

static int
qp_land(const struct fv_qp *q)
{
	if (q == NULL || fv.in_hand.bytes == 0 || fv.in_hand.qpn != q->qp.qp_num)
		return (0);
	memcpy(fv.in_hand.to, fv.in_hand.data, fv.in_hand.bytes);
	fv.in_hand.bytes = 0;
	return (1);
}

int
fv_land(void)
{
	int did;

	pthread_mutex_lock(&fv_mutex);
	did = qp_land(fv_find_qp(fv.in_hand.qpn));
	fv_leave();
	return (did);
}

void
fv_qp_break(uint32_t qpn)
{
	struct fv_qp *q;

	pthread_mutex_lock(&fv_mutex);
	if ((q = fv_find_qp(qpn)) != NULL) {
		qp_to_err(q);
		fv_push_event(fv_dev_of(q->qp.context), IBV_EVENT_QP_FATAL, 0, &q->qp);
	}
	fv_leave();
}

void
fv_refuse_wr(unsigned n)
{
	fv.refuse_wr = n;
}

/* ---- the table's members ---- */

uint32_t
fv_new_number(void)
{
	while (fv.next_qpn < 2 || fv.next_qpn > 0xffffff || fv_find_qp(fv.next_qpn) != NULL)
		fv.next_qpn = fv.next_qpn > 0xffffff ? 2 : fv.next_qpn + 1;
	return (fv.next_qpn++);
}

struct fv_qp *
fv_qp_new(struct ibv_pd *pd, enum fv_kind kind, const struct ibv_qp_init_attr *a)
{
	struct fv_qp *q = fv_calloc(1, sizeof(*q));

	q->kind = kind;
	q->send = fv_calloc(MKV_MAX(a->cap.max_send_wr, 1u), sizeof(*q->send));
	fv.alive++;
	q->init = *a;
	q->attr.qp_state = IBV_QPS_RESET;
	q->qp = (struct ibv_qp){ .context = pd->context, .qp_context = a->qp_context, .pd = pd, .send_cq = a->send_cq, .recv_cq = a->recv_cq, .srq = a->srq,
		.qp_type = a->qp_type };
	MKV_CONTAINER_OF(a->send_cq, struct fv_cq, cq)->users++;
	MKV_CONTAINER_OF(a->recv_cq, struct fv_cq, cq)->users++;
	if (a->srq != NULL)
		MKV_CONTAINER_OF(a->srq, struct fv_srq, srq)->users++;
	MKV_CONTAINER_OF(pd, struct fv_pd, pd)->users++;
	mkv_list_push_tail(&fv_ctx_of(pd->context)->qps, &q->link);
	return (q);
}

struct ibv_qp *
fv_create_qp(struct ibv_pd *pd, struct ibv_qp_init_attr *a)
{
	struct fv_dev *d = fv_dev_of(pd->context);
	struct fv_qp *q;
	int e = fv_enter(FV_CREATE_QP, d);

	if (e == 0 && (a->qp_type != IBV_QPT_RC || a->cap.max_send_wr == 0 || a->cap.max_send_wr > (uint32_t)d->conf.attr.max_qp_wr ||
	    a->cap.max_send_sge > 4 || a->cap.max_inline_data > d->conf.max_inline || a->send_cq == NULL || a->recv_cq == NULL))
		e = EINVAL;
	if (e != 0)
		return (fv_refuse(e));
	q = fv_qp_new(pd, FV_RC, a);
	q->qp.qp_num = fv_new_number();
	fv_leave();
	return (&q->qp);
}

int
fv_destroy_qp(struct ibv_qp *x)
{
	struct fv_qp *q = qp_of(x);

	pthread_mutex_lock(&fv_mutex);
	(void)qp_land(q);
	for (unsigned i = 0; i < q->init.cap.max_send_wr; i++) {
		free(q->send[i].data);
		if (q->send[i].ah != NULL)
			q->send[i].ah->users--;
	}
	MKV_CONTAINER_OF(x->send_cq, struct fv_cq, cq)->users--;
	MKV_CONTAINER_OF(x->recv_cq, struct fv_cq, cq)->users--;
	if (x->srq != NULL)
		MKV_CONTAINER_OF(x->srq, struct fv_srq, srq)->users--;
	MKV_CONTAINER_OF(x->pd, struct fv_pd, pd)->users--;
	fv_drop_events(MKV_CONTAINER_OF(x->context, struct fv_ctx, c), x);
	mkv_list_remove(&q->link);
	free(q->send);
	free(q);
	fv.alive--;
	fv_leave();
	return (0);
}

#define MASK_INIT	(IBV_QP_STATE | IBV_QP_PKEY_INDEX | IBV_QP_PORT | IBV_QP_ACCESS_FLAGS)
#define MASK_RTR	(IBV_QP_STATE | IBV_QP_AV | IBV_QP_PATH_MTU | IBV_QP_DEST_QPN | IBV_QP_RQ_PSN | IBV_QP_MAX_DEST_RD_ATOMIC | IBV_QP_MIN_RNR_TIMER)
#define MASK_RTS	(IBV_QP_STATE | IBV_QP_TIMEOUT | IBV_QP_RETRY_CNT | IBV_QP_RNR_RETRY | IBV_QP_SQ_PSN | IBV_QP_MAX_QP_RD_ATOMIC)

int
fv_has_path(const struct fv_dev *d, const struct ibv_ah_attr *a)
{
	for (unsigned i = 0; a->is_global && i < d->conf.n_gids; i++)
		if (d->conf.gid[i].gid_index == a->grh.sgid_index && d->conf.gid[i].port_num == a->port_num)
			return (1);
	return (0);
}

int
fv_to_init(struct fv_qp *q, const struct ibv_qp_attr *a, int mask)
{
	if (a->port_num < 1 || a->port_num > fv_dev_of(q->qp.context)->conf.attr.phys_port_cnt)
		return (EINVAL);
	q->attr.port_num = a->port_num;
	if ((mask & IBV_QP_ACCESS_FLAGS) != 0)
		q->attr.qp_access_flags = a->qp_access_flags;
	return (0);
}

int
fv_to_path(struct fv_qp *q, const struct ibv_qp_attr *a, int mask)
{
	const struct fv_dev *d = fv_dev_of(q->qp.context);
	int has_av = (mask & IBV_QP_AV) != 0;

	if (a->path_mtu < IBV_MTU_256 || a->path_mtu > d->conf.port[q->attr.port_num - 1].active_mtu || (has_av && !fv_has_path(d, &a->ah_attr)))
		return (EINVAL);
	q->attr.path_mtu = a->path_mtu;
	if (has_av)
		q->attr.ah_attr = a->ah_attr;
	return (0);
}

int
fv_to_rts(struct fv_qp *q, const struct ibv_qp_attr *a)
{
	if (a->retry_cnt > 6 || a->rnr_retry > 6 || a->timeout == 0)
		FV_DIE("retry_cnt %u, rnr_retry %u, timeout %u: a lost peer would never be noticed", a->retry_cnt, a->rnr_retry, a->timeout);
	if (a->sq_psn > 0xffffff || a->max_rd_atomic > fv_dev_of(q->qp.context)->conf.attr.max_qp_init_rd_atom)
		return (EINVAL);
	q->attr.sq_psn = a->sq_psn;
	q->attr.max_rd_atomic = a->max_rd_atomic;
	q->attr.timeout = a->timeout;
	q->attr.retry_cnt = a->retry_cnt;
	q->attr.rnr_retry = a->rnr_retry;
	return (0);
}

static int
qp_to_rtr(struct fv_qp *q, const struct ibv_qp_attr *a)
{
	if (a->rq_psn > 0xffffff || a->dest_qp_num > 0xffffff || a->max_dest_rd_atomic > fv_dev_of(q->qp.context)->conf.attr.max_qp_rd_atom ||
	    fv_to_path(q, a, MASK_RTR) != 0)
		return (EINVAL);
	if (fv_gid_owner(&a->ah_attr.grh.dgid) == NULL)
		return (ENETUNREACH);
	q->attr.dest_qp_num = a->dest_qp_num;
	q->attr.rq_psn = a->rq_psn;
	q->attr.max_dest_rd_atomic = a->max_dest_rd_atomic;
	q->attr.min_rnr_timer = a->min_rnr_timer;
	return (0);
}

static int
qp_change(struct fv_qp *q, const struct ibv_qp_attr *a, int mask)
{
	enum ibv_qp_state from = q->attr.qp_state;
	int e = EINVAL;

	if (q->kind == FV_DCT)
		return (fv_dc_change(q, a, mask));
	if (a->qp_state == IBV_QPS_ERR && mask == IBV_QP_STATE) {
		qp_in_hand(q);
		qp_to_err(q);
		return (0);
	}
	if (q->kind == FV_DCI)
		return (fv_dc_change(q, a, mask));
	if (a->qp_state == IBV_QPS_INIT && from == IBV_QPS_RESET && mask == MASK_INIT)
		e = fv_to_init(q, a, mask);
	else if (a->qp_state == IBV_QPS_RTR && from == IBV_QPS_INIT && mask == MASK_RTR)
		e = qp_to_rtr(q, a);
	else if (a->qp_state == IBV_QPS_RTS && from == IBV_QPS_RTR && mask == MASK_RTS)
		e = fv_to_rts(q, a);
	if (e == 0)
		q->attr.qp_state = a->qp_state;
	return (e);
}

int
fv_modify_qp(struct ibv_qp *qp, struct ibv_qp_attr *a, int mask)
{
	int e = fv_enter(FV_MODIFY_QP, fv_dev_of(qp->context));

	if (e == 0)
		e = qp_change(qp_of(qp), a, mask);
	fv_leave();
	return (e);
}

int
fv_query_qp(struct ibv_qp *qp, struct ibv_qp_attr *a, int mask, struct ibv_qp_init_attr *init)
{
	int e = fv_enter(FV_QUERY_QP, fv_dev_of(qp->context));

	(void)mask;
	*a = qp_of(qp)->attr;
	*init = qp_of(qp)->init;
	fv_leave();
	return (e);
}

static void
qp_note(const struct fv_qp *q, const struct ibv_send_wr *w, uint32_t bytes)
{
	fv.log[fv.logged++ % FV_LOG] = (struct fv_wr){ .qpn = q->qp.qp_num, .wr_id = w->wr_id, .opcode = w->opcode, .flags = w->send_flags, .bytes = bytes,
		.lkey = w->num_sge > 0 ? w->sg_list[0].lkey : 0, .rkey = w->wr.rdma.rkey, .local = w->num_sge > 0 ? w->sg_list[0].addr : 0,
		.remote = w->wr.rdma.remote_addr };
	fv.count.wrs++;
	fv.count.signalled += (w->send_flags & IBV_SEND_SIGNALED) != 0;
}

/* Into the queue. What a NIC takes without a look and answers with nonsense ends the program here. */
int
fv_take(struct fv_qp *q, const struct ibv_send_wr *w, const struct mkv_verbs_dc_wr *dc)
{
	struct fv_send *s = &q->send[(q->head + q->n) % q->init.cap.max_send_wr];
	uint32_t bytes = 0;
	uint8_t *at;

	if (q->posted - q->freed >= q->init.cap.max_send_wr || (fv.refuse_wr != 0 && --fv.refuse_wr == 0))
		return (ENOMEM);
	if (w->opcode != IBV_WR_RDMA_WRITE && w->opcode != IBV_WR_RDMA_READ && w->opcode != IBV_WR_SEND)
		FV_DIE("opcode %d is not used", (int)w->opcode);
	if ((w->send_flags & ~(unsigned)(IBV_SEND_SIGNALED | IBV_SEND_FENCE | IBV_SEND_INLINE)) != 0 ||
	    (w->opcode == IBV_WR_RDMA_READ && (w->send_flags & IBV_SEND_INLINE) != 0))
		FV_DIE("flags %#x", w->send_flags);
	if (w->num_sge < 1 || (uint32_t)w->num_sge > q->init.cap.max_send_sge)
		return (EINVAL);
	for (int i = 0; i < w->num_sge; i++)
		bytes += w->sg_list[i].length;
	if (bytes == 0 || ((w->send_flags & IBV_SEND_INLINE) != 0 && bytes > q->init.cap.max_inline_data))
		return (EINVAL);
	*s = (struct fv_send){ .wr_id = w->wr_id, .seq = fv.next_seq++, .remote = w->wr.rdma.remote_addr, .opcode = w->opcode, .flags = w->send_flags,
		.n_sge = (unsigned)w->num_sge, .rkey = w->wr.rdma.rkey, .bytes = bytes };
	memcpy(s->sge, w->sg_list, (size_t)w->num_sge * sizeof(s->sge[0]));
	if ((w->send_flags & IBV_SEND_INLINE) != 0) {
		s->data = at = fv_calloc(1, bytes);
		for (int i = 0; i < w->num_sge; at += w->sg_list[i++].length)
			memcpy(at, (const void *)(uintptr_t)w->sg_list[i].addr, w->sg_list[i].length);
	}
	q->n++;
	q->posted++;
	qp_note(q, w, bytes);
	if (dc != NULL) {
		struct fv_wr *noted = &fv.log[(fv.logged - 1) % FV_LOG];

		s->ah = MKV_CONTAINER_OF(dc->ah, struct fv_ah, ah);
		s->ah->users++;
		noted->dctn = s->dctn = dc->dctn;
		noted->dc_key = s->dc_key = dc->dc_key;
		memcpy(noted->dgid, s->ah->attr.grh.dgid.raw, sizeof(noted->dgid));
	}
	return (0);
}

void
fv_posted(struct fv_qp *q)
{
	if (q->attr.qp_state == IBV_QPS_ERR)
		qp_flush(q);
	fv_run_all();
}

int
fv_post_send(struct ibv_qp *qp, struct ibv_send_wr *wr, struct ibv_send_wr **bad)
{
	struct fv_qp *q = qp_of(qp);
	int e = fv_enter(FV_POST_SEND, fv_dev_of(qp->context));

	if (q->kind != FV_RC)
		FV_DIE("initiators and targets have a call of their own");
	fv.count.doorbells++;
	if (e == 0 && q->attr.qp_state != IBV_QPS_RTS && q->attr.qp_state != IBV_QPS_ERR)
		e = EINVAL;
	for (; e == 0 && wr != NULL; wr = e == 0 ? wr->next : wr)
		e = fv_take(q, wr, NULL);
	if (e != 0)
		*bad = wr;
	fv_posted(q);
	fv_leave();
	return (e);
}
