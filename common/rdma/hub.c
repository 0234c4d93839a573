/*
 * A hub: what one loop thread has of a device. Runs in that thread alone.
 *
 * Owns the completion queue, its channel, the shared receive queue and the receives' memory. Invariants: the completion queue holds whatever can complete,
 * all receives and the sends that were promised to queue pairs, so it never overruns; a receive is posted, in a callee's hands, or about to be posted again.
 * Completions are taken into a stash first and handed on from there: so a queue pair can be destroyed and nothing of it is left anywhere.
 * What can fail after opening: the device goes away; then its queue pairs break.
 */
#include "config.h"
#include "common/rdma/hub.h"

#include <sys/mman.h>

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/assert.h"
#include "common/base/err.h"
#include "common/rdma/hub_priv.h"

void *
rdma_slab_take(size_t bytes)
{
	void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	return (p == MAP_FAILED ? NULL : p);
}

void
rdma_slab_drop(void *p, size_t bytes)
{
	if (p != NULL)
		munmap(p, bytes);
}

static size_t
hub_stride(const struct mkv_rdma_hub *h)
{
	return ((size_t)MKV_ALIGN_UP(h->conf.recv_bytes, 64));
}

/* Post what is to be posted again, by one call. What the device does not take stays for the next time. */
static int
hub_post_back(struct mkv_rdma_hub *h)
{
	struct ibv_recv_wr *bad = NULL;
	uint32_t taken;
	int e;

	if (h->n_back == 0)
		return (0);
	for (uint32_t i = 0; i < h->n_back; i++)
		h->back[i].next = i + 1 < h->n_back ? &h->back[i + 1] : NULL;
	if ((e = h->v->post_srq_recv(h->srq, h->back, &bad)) == 0) {
		h->n_back = 0;
		return (0);
	}
	taken = bad >= h->back && bad < h->back + h->n_back ? (uint32_t)(bad - h->back) : 0;
	memmove(h->back, h->back + taken, (h->n_back - taken) * sizeof(h->back[0]));
	h->n_back -= taken;
	return (e);
}

static void
hub_back(struct mkv_rdma_hub *h, struct hub_rx *r)
{
	uint32_t i = (uint32_t)(r - h->rx);

	MKV_ASSERT(i < h->conf.recvs && h->n_back < h->conf.recvs);
	r->is_out = 0;
	h->back[h->n_back++] = (struct ibv_recv_wr){ .wr_id = WR_IS_RECV | i, .sg_list = &r->sge, .num_sge = 1 };
}

void
mkv_rdma_rx_back(struct mkv_rdma_hub *h, struct mkv_rdma_rx *rx)
{
	struct hub_rx *r = MKV_CONTAINER_OF(rx, struct hub_rx, rx);

	MKV_CHECK_OBJ(h, HUB_MAGIC);
	MKV_ASSERT(r->is_out);
	hub_back(h, r);
}

static int
hub_open_recvs(struct mkv_rdma_hub *h)
{
	uint32_t n = h->conf.recvs;

	h->slab_bytes = hub_stride(h) * n;
	if ((h->rx = calloc(n, sizeof(*h->rx))) == NULL || (h->back = calloc(n, sizeof(*h->back))) == NULL ||
	    (h->slab = rdma_slab_take(h->slab_bytes)) == NULL)
		return (ENOMEM);
	if ((h->slab_mr = h->v->reg_mr(h->d->pd, h->slab, h->slab_bytes, IBV_ACCESS_LOCAL_WRITE)) == NULL)
		return (errno);
	for (uint32_t i = 0; i < n; i++) {
		h->rx[i].rx.buf = h->slab + i * hub_stride(h);
		h->rx[i].sge = (struct ibv_sge){ (uintptr_t)h->rx[i].rx.buf, h->conf.recv_bytes, h->slab_mr->lkey };
		hub_back(h, &h->rx[i]);
	}
	return (hub_post_back(h));
}

static int
hub_open_queues(struct mkv_rdma_hub *h)
{
	struct ibv_srq_init_attr a = { .attr = { .max_wr = h->conf.recvs, .max_sge = 1 } };
	int fl;

	if ((h->stash = calloc(h->cqe, sizeof(*h->stash))) == NULL)
		return (ENOMEM);
	if ((h->ch = h->v->create_comp_channel(h->d->ctx)) == NULL)
		return (errno);
	if ((fl = fcntl(h->ch->fd, F_GETFL)) < 0 || fcntl(h->ch->fd, F_SETFL, fl | O_NONBLOCK) != 0)
		return (errno);
	if ((h->cq = h->v->create_cq(h->d->ctx, (int)h->cqe, h, h->ch, 0)) == NULL || (h->srq = h->v->create_srq(h->d->pd, &a)) == NULL)
		return (errno);
	return (hub_open_recvs(h));
}

static int
hub_fits(const struct mkv_rdma_dev *d, const struct mkv_rdma_hub_conf *c, char *why, size_t why_bytes)
{
	uint64_t cqe = (uint64_t)c->recvs + c->sends_max;

	MKV_ASSERT(c->recvs > 0 && c->recv_bytes > 0 && c->sends_max > 0);
	if (cqe > (uint64_t)d->attr.max_cqe)
		return (rdma_why(MKV_E_CONFIG, why, why_bytes, "%" PRIu32 " receives and %" PRIu32 " work requests do not fit the completion queue of RDMA device "
		    "%s, which takes %d", c->recvs, c->sends_max, d->name, d->attr.max_cqe));
	if (c->recvs > (uint64_t)d->attr.max_srq_wr)
		return (rdma_why(MKV_E_CONFIG, why, why_bytes, "%" PRIu32 " receives do not fit the shared receive queue of RDMA device %s, which takes %d",
		    c->recvs, d->name, d->attr.max_srq_wr));
	return (0);
}

int
mkv_rdma_hub_open(struct mkv_rdma_hub **out, struct mkv_rdma_dev *d, const struct mkv_rdma_hub_conf *c, char *why, size_t why_bytes)
{
	struct mkv_rdma_hub *h;
	int e;

	*out = NULL;
	if ((e = hub_fits(d, c, why, why_bytes)) != 0)
		return (e);
	if ((h = calloc(1, sizeof(*h))) == NULL)
		return (rdma_why(MKV_E_NOMEM, why, why_bytes, "out of memory"));
	h->magic = HUB_MAGIC;
	h->d = d;
	h->v = d->v;
	h->conf = *c;
	h->cqe = c->recvs + c->sends_max;
	mkv_list_init(&h->dirty);
	mkv_list_init(&h->broken);
	for (unsigned i = 0; i < HUB_BUCKETS; i++)
		mkv_list_init(&h->by_number[i]);
	hub_ah_init(h);
	if ((e = hub_aside_init(h) != 0 ? EMFILE : hub_open_queues(h)) == 0)
		TAKE(*out, h);
	else
		e = rdma_why(e == ENOMEM ? MKV_E_NOMEM : MKV_E_SYSTEM, why, why_bytes, "RDMA device %s gives no queues for %" PRIu32 " receives of %" PRIu32
		    " bytes and %" PRIu32 " work requests: %s%s", d->name, c->recvs, c->recv_bytes, c->sends_max, strerror(e),
		    e == ENOMEM ? " (or more locked memory than this process may have: LimitMEMLOCK=)" : "");
	mkv_rdma_hub_close(&h);
	return (e);
}

void
mkv_rdma_hub_close(struct mkv_rdma_hub **hp)
{
	struct mkv_rdma_hub *h = *hp;

	if (h == NULL)
		return;
	MKV_CHECK_OBJ(h, HUB_MAGIC);
	MKV_ASSERT(h->qp_n == 0 && !h->in_poll);
	*hp = NULL;
	hub_aside_fini(h);
	hub_ah_fini(h);
	if (h->srq != NULL)
		h->v->destroy_srq(h->srq);
	if (h->cq != NULL)
		h->v->destroy_cq(h->cq);
	if (h->ch != NULL)
		h->v->destroy_comp_channel(h->ch);
	if (h->slab_mr != NULL)
		h->v->dereg_mr(h->slab_mr);
	rdma_slab_drop(h->slab, h->slab_bytes);
	free(h->rx);
	free(h->back);
	free(h->stash);
	h->magic = 0;
	free(h);
}

int
mkv_rdma_hub_fd(const struct mkv_rdma_hub *h)
{
	MKV_CHECK_OBJ(h, HUB_MAGIC);
	return (h->ch->fd);
}

const struct mkv_rdma_count *
mkv_rdma_hub_count(const struct mkv_rdma_hub *h)
{
	MKV_CHECK_OBJ(h, HUB_MAGIC);
	return (&h->count);
}

uint32_t
mkv_rdma_hub_recv_bytes(const struct mkv_rdma_hub *h)
{
	MKV_CHECK_OBJ(h, HUB_MAGIC);
	return (h->conf.recv_bytes);
}

static struct mkv_rdma_qp *
hub_find(const struct mkv_rdma_hub *h, uint32_t number)
{
	const struct mkv_list *head = &h->by_number[number % HUB_BUCKETS];

	MKV_LIST_FOREACH(it, head) {
		struct mkv_rdma_qp *qp = MKV_CONTAINER_OF(it, struct mkv_rdma_qp, by_number);

		if (qp->number == number)
			return (qp);
	}
	return (NULL);
}

/* A completion that comes meanwhile knows more of the why. A target is there for others too, an initiator hears by what it has under way. */
void
mkv_rdma_hub_failed(struct mkv_rdma_hub *h, uint32_t qpn)
{
	struct mkv_rdma_qp *qp;

	MKV_CHECK_OBJ(h, HUB_MAGIC);
	if ((qp = hub_find(h, qpn)) != NULL && qp->kind == QP_RC)
		qp_break(qp, MKV_RDMA_FAULT_OTHER, "the device ended it: the far end did what it may not, or the device failed", 1);
}

int
mkv_rdma_hub_alarm(struct mkv_rdma_hub *h, uint32_t recvs)
{
	struct ibv_srq_attr a = { .srq_limit = recvs };

	MKV_CHECK_OBJ(h, HUB_MAGIC);
	MKV_ASSERT(recvs < h->conf.recvs);
	return (h->v->modify_srq(h->srq, &a, IBV_SRQ_LIMIT) == 0 ? 0 : MKV_E_UNSUPPORTED);
}

/* The completion queue does not work any more: nothing would come back. */
static void
hub_break_all(struct mkv_rdma_hub *h)
{
	for (unsigned i = 0; i < HUB_BUCKETS; i++)
		MKV_LIST_FOREACH_SAFE(it, tmp, &h->by_number[i])
			qp_break(MKV_CONTAINER_OF(it, struct mkv_rdma_qp, by_number), MKV_RDMA_FAULT_OTHER, "the device's completion queue failed", 0);
}

/* Take one batch off the completion queue. How many. */
static unsigned
hub_take(struct mkv_rdma_hub *h)
{
	uint32_t at = (h->stash_head + h->stash_n) % h->cqe, space = MKV_MIN(h->cqe - h->stash_n, h->cqe - at);
	int n;

	if (space == 0 || h->cq_failed)
		return (0);
	if ((n = h->v->poll_cq(h->cq, (int)MKV_MIN(space, HUB_BATCH), &h->stash[at])) < 0) {
		h->cq_failed = 1;
		hub_break_all(h);
		return (0);
	}
	h->stash_n += (uint32_t)n;
	h->count.completions += (uint32_t)n;
	return ((unsigned)n);
}

/* Whose it is; NULL: nobody's any more. */
static struct mkv_rdma_qp *
hub_owner(const struct mkv_rdma_hub *h, const struct ibv_wc *wc)
{
	struct mkv_rdma_qp *qp = hub_find(h, wc->qp_num);

	return (qp != NULL && ((wc->wr_id & WR_IS_RECV) != 0 || wc->wr_id >> 32 == qp->id) ? qp : NULL);
}

static struct hub_rx *
hub_rx_of(struct mkv_rdma_hub *h, const struct ibv_wc *wc)
{
	uint64_t i = wc->wr_id & ~WR_IS_RECV;

	MKV_ASSERT(i < h->conf.recvs && !h->rx[i].is_out);
	return (&h->rx[i]);
}

static void
hub_hand_on(struct mkv_rdma_hub *h, const struct ibv_wc *wc)
{
	struct mkv_rdma_qp *qp = hub_owner(h, wc);
	struct hub_rx *r;

	if ((wc->wr_id & WR_IS_RECV) != 0) {
		r = hub_rx_of(h, wc);
		r->is_out = 1;
		h->count.recvs++;
		if (qp != NULL)
			qp_on_recv(qp, &r->rx, wc);
		else
			hub_back(h, r);
	} else if (qp != NULL) {
		qp_on_send(qp, wc);
		qp_hand_on(qp);
	}
}

/* Those that are broken now, each once. Callbacks take others off these lists (a pool's are made anew), and break more. */
static void
hub_drain(struct mkv_rdma_hub *h)
{
	struct mkv_list now, *it;

	mkv_list_init(&now);
	while ((it = mkv_list_pop(&h->broken)) != NULL)
		mkv_list_push_tail(&now, it);
	while ((it = mkv_list_pop(&now)) != NULL) {
		struct mkv_rdma_qp *qp = MKV_CONTAINER_OF(it, struct mkv_rdma_qp, broken);

		qp_drain(qp);
		if (qp->state == QP_BROKEN && mkv_list_empty(&qp->broken))
			mkv_list_push_tail(&h->broken, &qp->broken);
	}
}

unsigned
mkv_rdma_hub_poll(struct mkv_rdma_hub *h, unsigned max)
{
	struct ibv_wc wc;
	unsigned n;

	MKV_CHECK_OBJ(h, HUB_MAGIC);
	MKV_ASSERT(!h->in_poll);
	hub_aside_turn(h);
	h->in_poll = 1;
	for (n = 0; n < max && (h->stash_n > 0 || hub_take(h) > 0); n++) {
		wc = h->stash[h->stash_head];
		h->stash_head = (h->stash_head + 1) % h->cqe;
		h->stash_n--;
		hub_hand_on(h, &wc);
	}
	hub_drain(h);
	h->in_poll = 0;
	h->count.empty_polls += n == 0;
	hub_post_back(h);
	return (n);
}

void
mkv_rdma_hub_woken(struct mkv_rdma_hub *h)
{
	MKV_CHECK_OBJ(h, HUB_MAGIC);
	h->is_woken = 1;
}

/* Each request brings one event, and the next is made only when that was taken: so there is never more than one. */
static void
hub_take_event(struct mkv_rdma_hub *h)
{
	struct ibv_cq *cq;
	void *arg;

	h->is_woken = 0;
	if (h->v->get_cq_event(h->ch, &cq, &arg) == 0) {
		h->v->ack_cq_events(h->cq, 1);
		h->count.events++;
		h->is_armed = 0;
	} else if (errno != EAGAIN && errno != EINTR)
		h->is_armed = 0;		/* a device that fails: as if nothing had been asked for */
}

int
mkv_rdma_hub_arm(struct mkv_rdma_hub *h)
{
	MKV_CHECK_OBJ(h, HUB_MAGIC);
	if (h->stash_n > 0 || !mkv_list_empty(&h->broken) || hub_aside_due(h))
		return (0);
	if (h->is_woken)
		hub_take_event(h);
	if (!h->is_armed)
		h->is_armed = h->v->req_notify_cq(h->cq, 0) == 0;
	/* What came before the request for a wake-up wakes nobody: look once more. */
	return (hub_take(h) == 0 && mkv_list_empty(&h->broken));
}

void
mkv_rdma_hub_flush(struct mkv_rdma_hub *h)
{
	MKV_CHECK_OBJ(h, HUB_MAGIC);
	hub_post_back(h);
	/* Posting takes one off. A device that refuses may be found to have lost its completion queue, too: then all the others are off as well. */
	while (!mkv_list_empty(&h->dirty))
		qp_post(MKV_CONTAINER_OF(h->dirty.next, struct mkv_rdma_qp, dirty));
}

/* Leave in the stash what is of others. */
static void
hub_sift(struct mkv_rdma_hub *h, struct mkv_rdma_qp *qp)
{
	uint32_t n = h->stash_n, to = h->stash_head;

	for (uint32_t i = 0; i < n; i++) {
		struct ibv_wc wc = h->stash[(h->stash_head + i) % h->cqe];

		if (wc.qp_num != qp->number) {
			h->stash[to] = wc;
			to = (to + 1) % h->cqe;
			continue;
		}
		h->stash_n--;
		if ((wc.wr_id & WR_IS_RECV) != 0)
			hub_back(h, hub_rx_of(h, &wc));
		else if (hub_owner(h, &wc) == qp)
			qp_on_send(qp, &wc);
	}
}

/* EIO is a device that was taken out: the kernel has ended all that it had. Other errors leave the queue pair alive (mlx5: a target that could not be drained). */
static int
hub_destroy(struct mkv_rdma_hub *h, struct ibv_qp *qp)
{
	int e = 0;

	for (unsigned i = 0; i < QP_KILL_TRIES; i++)
		if ((e = h->v->destroy_qp(qp)) == 0 || e == EIO)
			return (0);
	return (e);
}

int
hub_qp_kill(struct mkv_rdma_hub *h, struct mkv_rdma_qp *qp)
{
	int e;

	MKV_ASSERT(qp->qp != NULL);
	/* Before: some drivers drop a destroyed queue pair's completions, and the receives in them would be lost. After: others leave them lying. */
	while (hub_take(h) > 0)
		;
	if ((e = hub_destroy(h, qp->qp)) != 0)
		return (e);
	qp->qp = NULL;
	while (hub_take(h) > 0)
		;
	hub_sift(h, qp);
	mkv_list_remove(&qp->by_number);
	return (0);
}
