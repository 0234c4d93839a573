/*
 * The fake fabric's DC: initiators, targets, address handles. Everything here runs under the fabric's lock.
 *
 * By the rules that mlx5's driver has: masks of a change of state are exact, a target has its number when it listens and knows no ERR, an address belongs to every
 * work request. What only hardware can tell (how a wrong key looks, how long a destroyed target drains) is as written down in docs/operate/dc-bringup.md.
 */
#include "config.h"
#include "tests/lib/fakeverbs.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/assert.h"
#include "tests/lib/fakeverbs_priv.h"

/* ---- address handles ---- */

const struct fv_dev *
fv_gid_owner(const union ibv_gid *g)
{
	for (unsigned i = 0; i < fv.n; i++)
		if (fv_has_gid(&fv.dev[i], g))
			return (&fv.dev[i]);
	return (NULL);
}

struct ibv_ah *
fv_create_ah(struct ibv_pd *pd, struct ibv_ah_attr *a)
{
	const struct fv_dev *d = fv_dev_of(pd->context), *far = fv_gid_owner(&a->grh.dgid);
	int e = fv_enter(FV_CREATE_AH, d);
	struct fv_ah *ah;

	if (e == 0 && !fv_has_path(d, a))
		e = EINVAL;
	if (e == 0 && far == NULL)
		e = ETIMEDOUT;
	if (e != 0)
		return (fv_refuse(e));
	ah = fv_calloc(1, sizeof(*ah));
	fv.alive++;
	ah->ah = (struct ibv_ah){ .context = pd->context, .pd = pd };
	ah->attr = *a;
	ah->dev = far;
	MKV_CONTAINER_OF(pd, struct fv_pd, pd)->users++;
	fv_leave();
	return (&ah->ah);
}

int
fv_destroy_ah(struct ibv_ah *x)
{
	struct fv_ah *ah = MKV_CONTAINER_OF(x, struct fv_ah, ah);

	pthread_mutex_lock(&fv_mutex);
	if (ah->users != 0)
		FV_DIE("%u work requests that use it wait", ah->users);
	MKV_CONTAINER_OF(x->pd, struct fv_pd, pd)->users--;
	free(ah);
	fv.alive--;
	fv_leave();
	return (0);
}

/* ---- made ---- */

void
fv_dc(enum fv_dc has)
{
	pthread_mutex_lock(&fv_mutex);
	for (unsigned i = 0; i < FV_DEVICES; i++)
		fv.dev[i].conf.dc = has;
	fv_leave();
}

int
fv_dc_supported(struct ibv_device *d)
{
	return (MKV_CONTAINER_OF(d, struct fv_dev, d)->conf.dc != FV_DC_OTHER_MAKE);
}

struct ibv_qp *
fv_dc_create_initiator(struct ibv_context *c, const struct mkv_verbs_dc *a)
{
	struct fv_dev *d = fv_dev_of(c);
	struct ibv_qp_init_attr x = { .send_cq = a->send_cq, .recv_cq = a->recv_cq, .qp_type = IBV_QPT_DRIVER,
		.cap = { .max_send_wr = a->max_send_wr, .max_send_sge = a->max_send_sge, .max_inline_data = a->max_inline } };
	struct fv_qp *q;
	int e = fv_enter(FV_DC_CREATE_INITIATOR, d);

	if (e == 0 && d->conf.dc != FV_DC_YES)
		e = EOPNOTSUPP;
	if (e == 0 && (a->pd == NULL || a->send_cq == NULL || a->recv_cq == NULL || a->srq != NULL || a->access_key != 0 || a->max_send_wr == 0 ||
	    a->max_send_wr > (uint32_t)d->conf.attr.max_qp_wr || a->max_send_sge == 0 || a->max_send_sge > 4 || a->max_inline > d->conf.max_inline))
		e = EINVAL;
	if (e != 0)
		return (fv_refuse(e));
	q = fv_qp_new(a->pd, FV_DCI, &x);
	q->qp.qp_num = fv_new_number();
	fv_leave();
	return (&q->qp);
}

struct ibv_qp *
fv_dc_create_target(struct ibv_context *c, const struct mkv_verbs_dc *a)
{
	struct fv_dev *d = fv_dev_of(c);
	struct ibv_qp_init_attr x = { .send_cq = a->send_cq, .recv_cq = a->recv_cq, .srq = a->srq, .qp_type = IBV_QPT_DRIVER };
	struct fv_qp *q;
	int e = fv_enter(FV_DC_CREATE_TARGET, d);

	if (e == 0 && d->conf.dc != FV_DC_YES)
		e = EOPNOTSUPP;
	if (e == 0 && (a->pd == NULL || a->send_cq == NULL || a->recv_cq == NULL || a->srq == NULL || a->max_send_wr != 0))
		e = EINVAL;
	if (e != 0)
		return (fv_refuse(e));
	q = fv_qp_new(a->pd, FV_DCT, &x);
	q->dc_key = a->access_key;
	fv_leave();
	return (&q->qp);
}

/* ---- states ---- */

#define DCI_INIT	(IBV_QP_STATE | IBV_QP_PKEY_INDEX | IBV_QP_PORT)
#define DCI_RTR		(IBV_QP_STATE | IBV_QP_PATH_MTU)
#define DCI_RTS		(IBV_QP_STATE | IBV_QP_TIMEOUT | IBV_QP_RETRY_CNT | IBV_QP_RNR_RETRY | IBV_QP_MAX_QP_RD_ATOMIC | IBV_QP_SQ_PSN)
#define DCT_INIT	(IBV_QP_STATE | IBV_QP_PKEY_INDEX | IBV_QP_PORT | IBV_QP_ACCESS_FLAGS)
#define DCT_RTR		(IBV_QP_STATE | IBV_QP_PATH_MTU | IBV_QP_MIN_RNR_TIMER | IBV_QP_AV)

static void
dci_reset(struct fv_qp *q)
{
	fv_cq_forget(q->qp.send_cq, q->qp.qp_num);
	if (q->n != 0)
		FV_DIE("%u work requests of %u are thrown away", q->n, (unsigned)q->qp.qp_num);
	memset(&q->attr, 0, sizeof(q->attr));
	q->head = 0;
	q->posted = q->freed = 0;
}

static int
dci_change(struct fv_qp *q, const struct ibv_qp_attr *a, int mask)
{
	enum ibv_qp_state from = q->attr.qp_state;

	if (a->qp_state == IBV_QPS_RESET && mask == IBV_QP_STATE) {
		dci_reset(q);
		return (0);
	}
	if (a->qp_state == IBV_QPS_INIT && from == IBV_QPS_RESET && mask == DCI_INIT)
		return (fv_to_init(q, a, mask));
	if (a->qp_state == IBV_QPS_RTR && from == IBV_QPS_INIT && (mask & ~(IBV_QP_AV | IBV_QP_PKEY_INDEX)) == DCI_RTR)
		return (fv_to_path(q, a, mask));
	if (a->qp_state == IBV_QPS_RTS && from == IBV_QPS_RTR && (mask & ~IBV_QP_MIN_RNR_TIMER) == DCI_RTS)
		return (fv_to_rts(q, a));
	return (EINVAL);
}

static int
dct_change(struct fv_qp *q, const struct ibv_qp_attr *a, int mask)
{
	enum ibv_qp_state from = q->attr.qp_state;
	int e = EINVAL;

	if (a->qp_state == IBV_QPS_INIT && from == IBV_QPS_RESET && mask == DCT_INIT)
		return (fv_to_init(q, a, mask));
	if (a->qp_state == IBV_QPS_RTR && from == IBV_QPS_INIT && mask == DCT_RTR && (e = fv_to_path(q, a, mask)) == 0) {
		q->attr.min_rnr_timer = a->min_rnr_timer;
		q->qp.qp_num = fv_new_number();
	}
	return (e);
}

int
fv_dc_change(struct fv_qp *q, const struct ibv_qp_attr *a, int mask)
{
	int e = q->kind == FV_DCI ? dci_change(q, a, mask) : dct_change(q, a, mask);

	if (e == 0)
		q->attr.qp_state = a->qp_state;
	return (e);
}

/* ---- posted ---- */

struct fv_qp *
fv_dc_far(const struct fv_qp *q, const struct fv_send *s)
{
	struct fv_qp *far = fv_find_qp(s->dctn);

	if (far == NULL || far->kind != FV_DCT || far->attr.qp_state != IBV_QPS_RTR)
		return (NULL);
	/* The packets go to the hardware address that the handle was made with. */
	if (s->ah->dev != fv_dev_of(far->qp.context) || !fv_has_gid(s->ah->dev, &s->ah->attr.grh.dgid))
		return (NULL);
	(void)q;
	return (far);
}

static int
dc_fits(const struct fv_qp *q, const struct mkv_verbs_dc_wr *wr, unsigned n)
{
	if (q->attr.qp_state != IBV_QPS_RTS && q->attr.qp_state != IBV_QPS_ERR)
		return (EINVAL);
	if (q->posted - q->freed + n > q->init.cap.max_send_wr)
		return (ENOMEM);
	if (fv.refuse_wr != 0 && fv.refuse_wr <= n) {
		fv.refuse_wr = 0;
		return (ENOMEM);
	}
	for (unsigned i = 0; i < n; i++)
		if (wr[i].ah == NULL || wr[i].dctn == 0 || wr[i].dctn > 0xffffff)
			return (EINVAL);
	return (0);
}

int
fv_dc_post(struct ibv_qp *qp, const struct mkv_verbs_dc_wr *wr, unsigned n)
{
	struct fv_qp *q = MKV_CONTAINER_OF(qp, struct fv_qp, qp);
	int e = fv_enter(FV_DC_POST, fv_dev_of(qp->context));

	if (q->kind != FV_DCI)
		FV_DIE("%u is no initiator", (unsigned)qp->qp_num);
	fv.count.doorbells++;
	if (e == 0)
		e = dc_fits(q, wr, n);
	for (unsigned i = 0; e == 0 && i < n; i++) {
		struct ibv_send_wr w = { .wr_id = wr[i].wr_id, .opcode = wr[i].opcode, .send_flags = wr[i].flags, .num_sge = (int)wr[i].n_sge,
			.sg_list = (struct ibv_sge *)(uintptr_t)wr[i].sge, .wr.rdma = { wr[i].remote, wr[i].rkey } };

		if ((e = fv_take(q, &w, &wr[i])) != 0)
			FV_DIE("work request %u: %s", i, strerror(e));
	}
	fv_posted(q);
	fv_leave();
	return (e);
}
