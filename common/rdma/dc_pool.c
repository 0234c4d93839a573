/*
 * A pool of initiators. Runs in the hub's thread; owns them. One that is lent is its borrower's until it is back.
 *
 * The free ones stand in a queue, so they take turns. Everything is made at opening.
 * An initiator that broke is made anew when it is back. One that cannot be is out of service: in no list, destroyed with the pool.
 */
#include "config.h"
#include "common/rdma/dc.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/assert.h"
#include "common/base/err.h"
#include "common/rdma/hub_priv.h"

#define POOL_MAGIC	0x4be20c97u

struct mkv_rdma_pool {
	uint32_t	magic, n, free_n, lent_n;
	struct mkv_rdma_hub *hub;
	struct mkv_list	free;
	struct mkv_rdma_qp **qp;		/* all: n */
};

/* Broken, and its user is still being told, or was to be: all that it owed has come, so it is at rest. */
static void
pool_settle(struct mkv_rdma_qp *qp)
{
	MKV_ASSERT(qp->tail == qp->head);
	if (qp->state != QP_BROKEN)
		return;
	qp->say_broken = qp->is_open = 0;
	mkv_list_remove(&qp->broken);
	qp->state = QP_IDLE;
}

/* Ready to be lent, or out of service. */
static void
pool_take_back(struct mkv_rdma_pool *p, struct mkv_rdma_qp *qp)
{
	pool_settle(qp);
	if (qp->state == QP_IDLE && mkv_rdma_initiator_reset(qp) != 0)
		return;
	mkv_list_push_tail(&p->free, &qp->lease);
	p->free_n++;
}

static void
pool_on_recv(struct mkv_rdma_qp *qp, struct mkv_rdma_rx *rx)
{
	mkv_rdma_rx_back(mkv_rdma_qp_hub(qp), rx);
}

static void
pool_on_done(struct mkv_rdma_qp *qp, void *cookie, int status)
{
	(void)qp;
	(void)cookie;
	(void)status;
	MKV_ASSERT(!"nothing is out of a free initiator");
}

/* One that is free: the device failed. */
static void
pool_on_broken(struct mkv_rdma_qp *qp, const char *why)
{
	struct mkv_rdma_pool *p = mkv_rdma_qp_owner(qp);

	(void)why;
	MKV_CHECK_OBJ(p, POOL_MAGIC);
	MKV_ASSERT(!mkv_list_empty(&qp->lease));
	mkv_list_remove(&qp->lease);
	p->free_n--;
	pool_take_back(p, qp);
}

static const struct mkv_rdma_qp_ops pool_ops = { pool_on_recv, pool_on_done, pool_on_broken };

static int
pool_fill(struct mkv_rdma_pool *p, const struct mkv_rdma_qp_conf *c, uint32_t n, char *why, size_t why_bytes)
{
	struct mkv_rdma_qp_conf conf = *c;
	int e, err;

	conf.ops = &pool_ops;
	conf.owner = p;
	if ((p->qp = calloc(n, sizeof(*p->qp))) == NULL)
		return (rdma_why(MKV_E_NOMEM, why, why_bytes, "out of memory"));
	for (; p->n < n; p->n++) {
		if ((e = qp_make(&p->qp[p->n], p->hub, &conf, QP_INITIATOR, &err)) != 0)
			return (rdma_why(e, why, why_bytes, "RDMA device %s makes %" PRIu32 " DC initiators, not %" PRIu32 ": %s", p->hub->d->name, p->n, n,
			    err != 0 ? strerror(err) : mkv_err(e)));
		p->qp[p->n]->pool = p;
		pool_take_back(p, p->qp[p->n]);
	}
	return (0);
}

int
mkv_rdma_pool_open(struct mkv_rdma_pool **out, struct mkv_rdma_hub *h, const struct mkv_rdma_qp_conf *c, uint32_t n, char *why, size_t why_bytes)
{
	struct mkv_rdma_pool *p;
	uint32_t left;
	int e;

	*out = NULL;
	MKV_CHECK_OBJ(h, HUB_MAGIC);
	MKV_ASSERT(n > 0);
	left = h->conf.sends_max - h->sends_used;
	if (c->sends > (uint32_t)h->d->attr.max_qp_wr || (uint64_t)c->sends * n > left)
		return (rdma_why(MKV_E_CONFIG, why, why_bytes, "%" PRIu32 " DC initiators of %" PRIu32 " work requests do not fit RDMA device %s: it takes %d of one, and %"
		    PRIu32 " are left of those that its completion queue is for", n, c->sends, h->d->name, h->d->attr.max_qp_wr, left));
	if ((p = calloc(1, sizeof(*p))) == NULL)
		return (rdma_why(MKV_E_NOMEM, why, why_bytes, "out of memory"));
	p->magic = POOL_MAGIC;
	p->hub = h;
	mkv_list_init(&p->free);
	if ((e = pool_fill(p, c, n, why, why_bytes)) == 0)
		TAKE(*out, p);
	mkv_rdma_pool_close(&p);
	return (e);
}

void
mkv_rdma_pool_close(struct mkv_rdma_pool **pp)
{
	struct mkv_rdma_pool *p = *pp;

	if (p == NULL)
		return;
	MKV_CHECK_OBJ(p, POOL_MAGIC);
	MKV_ASSERT(p->lent_n == 0);
	*pp = NULL;
	for (uint32_t i = 0; i < p->n; i++) {
		mkv_list_remove(&p->qp[i]->lease);
		mkv_rdma_qp_fail(p->qp[i]);
		pool_settle(p->qp[i]);
		mkv_rdma_qp_destroy(&p->qp[i]);
	}
	free(p->qp);
	p->magic = 0;
	free(p);
}

int
mkv_rdma_pool_lease(struct mkv_rdma_pool *p, const struct mkv_rdma_dct *to, uint32_t keep, const struct mkv_rdma_qp_ops *ops, void *owner,
    struct mkv_rdma_qp **out)
{
	struct mkv_rdma_qp *qp;
	int e;

	*out = NULL;
	MKV_CHECK_OBJ(p, POOL_MAGIC);
	if (p->free_n <= keep)
		return (MKV_E_AGAIN);
	qp = MKV_CONTAINER_OF(p->free.next, struct mkv_rdma_qp, lease);
	/* A free one that is broken has not been heard of yet: the next turn sees to it. */
	if (qp->state == QP_BROKEN)
		return (MKV_E_AGAIN);
	if ((e = mkv_rdma_initiator_aim(qp, to)) != 0)
		return (e);
	mkv_list_remove(&qp->lease);
	p->free_n--;
	p->lent_n++;
	mkv_rdma_qp_adopt(qp, ops, owner);
	*out = qp;
	return (0);
}

void
mkv_rdma_pool_back(struct mkv_rdma_pool *p, struct mkv_rdma_qp **qpp)
{
	struct mkv_rdma_qp *qp = *qpp;

	MKV_CHECK_OBJ(p, POOL_MAGIC);
	MKV_CHECK_OBJ(qp, QP_MAGIC);
	MKV_ASSERT(qp->pool == p && mkv_list_empty(&qp->lease) && p->lent_n > 0);
	*qpp = NULL;
	mkv_rdma_qp_adopt(qp, &pool_ops, p);
	p->lent_n--;
	pool_take_back(p, qp);
}

uint32_t
mkv_rdma_pool_free(const struct mkv_rdma_pool *p)
{
	MKV_CHECK_OBJ(p, POOL_MAGIC);
	return (p->free_n);
}

uint32_t
mkv_rdma_pool_size(const struct mkv_rdma_pool *p)
{
	MKV_CHECK_OBJ(p, POOL_MAGIC);
	return (p->free_n + p->lent_n);
}
