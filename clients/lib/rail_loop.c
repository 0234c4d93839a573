/*
 * Hubs: what a loop has of each device in use, and how it sleeps without missing a completion.
 *
 * The loop's thread. Owns hubs, their bounce buffers and the frame that messages are made in. A hub is opened by the first queue pair on its device; it is closed with
 * the loop, or when the device is gone and its last queue pair has become quiet.
 * Invariants: a hub that is armed wakes the queue by cq_io; its ios are with the queue only while the hub is open, and the hub is closed only after all have
 * come back.
 */
#include "config.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "clients/lib/rail_priv.h"
#include "common/base/clock.h"
#include "common/base/os.h"

#define NODES		"/dev/infiniband"
#define POLL_MOST	256u
#define CQ_SENDS_MOST	8192u		/* work requests that one completion queue is made for */

static void
hub_on_cq(struct mkv_io *io, int res MKV_UNUSED)
{
	struct rail_hub *h = MKV_CONTAINER_OF(io, struct rail_hub, cq_io);

	h->cq_waits = 0;
	mkv_rdma_hub_woken(h->hub);
}

/* mkv_rails_poll() takes what it tells of. */
static void
hub_on_aside(struct mkv_io *io, int res MKV_UNUSED)
{
	MKV_CONTAINER_OF(io, struct rail_hub, aside_io)->aside_waits = 0;
}

static void
hub_on_event(struct mkv_io *io, int res)
{
	struct rail_hub *h = MKV_CONTAINER_OF(io, struct rail_hub, ev_io);

	h->ev_waits = 0;
	if (res >= 0 && !h->leaving)
		mkv_fabric_events(h->rails->l->c->fabric, h->idx);
}

/* A soft device that is deleted while it is open says nothing but this, and its deletion waits for us to close it. */
static void
hub_on_node(struct mkv_io *io, int res)
{
	struct rail_hub *h = MKV_CONTAINER_OF(io, struct rail_hub, node_io);

	h->node_waits = 0;
	if (res >= 0 && !h->leaving && mkv_os_watch_left(h->nodes, h->dev->ctx->device->dev_name))
		mkv_fabric_gone(h->rails->l->c->fabric, h->idx);
}

/* ---- opening ---- */

static int
hub_bounces(struct rail_hub *h, char *why)
{
	int r;

	h->bounce_buf = aligned_alloc(4096, BOUNCES * (size_t)BOUNCE_BYTES);
	h->frame = aligned_alloc(64, FRAME_BYTES);
	if (h->bounce_buf == NULL || h->frame == NULL)
		return (MKV_E_NOMEM);
	r = mkv_rdma_mem_add(&h->bounce_mem, h->dev, h->bounce_buf, BOUNCES * (uint64_t)BOUNCE_BYTES,
	    rail_access(&h->rails->l->c->cf, MKV_RDMA_READABLE | MKV_RDMA_WRITABLE), why, WHY_BYTES);
	mkv_list_init(&h->bounce_free);
	for (unsigned i = 0; i < BOUNCES; i++) {
		h->bounce[i].buf = h->bounce_buf + i * (size_t)BOUNCE_BYTES;
		mkv_list_push_tail(&h->bounce_free, &h->bounce[i].link);
	}
	return (r);
}

static void
hub_free(struct rail_hub *h)
{
	mkv_rdma_mem_drop(&h->bounce_mem);
	mkv_rdma_hub_close(&h->hub);
	if (h->nodes >= 0)
		(void)close(h->nodes);
	h->nodes = -1;
	free(h->bounce_buf);
	free(h->frame);
	h->bounce_buf = h->frame = NULL;
	h->dev = NULL;
	h->leaving = 0;
	h->owed = 0;
	mkv_fabric_leave(h->rails->l->c->fabric, h->idx);
}

static int
hub_open(struct rail_hub *h, char *why)
{
	const struct conf *cf = &h->rails->l->c->cf;
	struct fabric *f = h->rails->l->c->fabric;
	struct mkv_rdma_hub_conf conf = { .recvs = HUB_RECVS, .recv_bytes = MKV_WIRE_RDMA_BYTES, .aside = 1,
		.sends_max = MKV_MIN(2 * RAIL_SENDS * mkv_rails_conns(cf) * cf->n_servers, CQ_SENDS_MOST) };
	int r;

	if ((h->dev = mkv_fabric_take(f, h->idx)) == NULL) {
		(void)snprintf(why, WHY_BYTES, "the RDMA device has gone");
		return (MKV_E_UNSUPPORTED);
	}
	h->news = atomic_load_explicit(&f->d[h->idx].news, memory_order_acquire);
	h->nodes = mkv_os_watch_dir(NODES);
	if ((r = hub_bounces(h, why)) != 0 || (r = mkv_rdma_hub_open(&h->hub, h->dev, &conf, why, WHY_BYTES)) != 0)
		hub_free(h);
	else
		mkv_fabric_try_dc(f, h->idx, h->hub);
	return (r);
}

struct rail_hub *
mkv_rail_hub(struct loop *l, unsigned dev, char *why)
{
	struct rail_hub *h = &l->rails->hub[dev];

	(void)snprintf(why, WHY_BYTES, "%s", l->rails->stopping || h->leaving ? "former queue pairs on its device are still ending" : "no memory");
	if (l->rails->stopping || h->leaving || (h->hub == NULL && hub_open(h, why) != 0))
		return (NULL);
	if (!mkv_rdma_dev_is_up(h->dev)) {
		(void)snprintf(why, WHY_BYTES, "the port of %s is down", h->dev->name);
		return (NULL);
	}
	return (h);
}

int
mkv_rails_open(struct loop *l)
{
	struct rails *rs;

	if (l->c->fabric == NULL)
		return (0);
	if ((rs = calloc(1, sizeof(*rs))) == NULL)
		return (MKV_E_NOMEM);
	rs->l = l;
	for (unsigned i = 0; i < RDMA_DEVS_MAX; i++) {
		rs->hub[i].rails = rs;
		rs->hub[i].idx = i;
		rs->hub[i].cq_io.done = hub_on_cq;
		rs->hub[i].aside_io.done = hub_on_aside;
		rs->hub[i].ev_io.done = hub_on_event;
		rs->hub[i].node_io.done = hub_on_node;
		rs->hub[i].nodes = -1;
		mkv_list_init(&rs->hub[i].list);
	}
	l->rails = rs;
	return (0);
}

unsigned
mkv_rails_ios(const struct conf *cf)
{
	return (mkv_rail_wanted(cf) ? 4 * RDMA_DEVS_MAX + mkv_rails_conns(cf) * cf->n_servers : 0);
}

/* ---- a turn ---- */

/* The port went down, or the device: what is on it breaks now and not when packets have been repeated often enough. */
static void
hub_look(struct rail_hub *h)
{
	unsigned news = atomic_load_explicit(&h->rails->l->c->fabric->d[h->idx].news, memory_order_acquire);	/* pairs with fabric_tell() */

	if (news == h->news)
		return;
	h->news = news;
	h->leaving = 1;
	MKV_LIST_FOREACH_SAFE(it, next, &h->list)
		mkv_rail_break(MKV_CONTAINER_OF(it, struct rail, link), MKV_E_CLOSED, "the port of its device went down");
}

/* What has become of its rails' queue pairs. */
static void
hub_reap(struct rail_hub *h)
{
	MKV_LIST_FOREACH_SAFE(it, next, &h->list) {
		struct rail *r = MKV_CONTAINER_OF(it, struct rail, link);

		if (r->state == RAIL_CONNECTING)
			mkv_rail_connected(r);
		if (r->state == RAIL_BREAKING && mkv_rail_qp_idle(r) && !mkv_ctl_says_bye(r))
			mkv_rail_idle(r);
	}
}

static void
hub_leave(struct rail_hub *h)
{
	struct mkv_ioq *q = h->rails->l->q;

	if (!mkv_list_empty(&h->list))
		return;
	if (h->cq_waits)
		mkv_ioq_cancel(q, &h->cq_io);
	if (h->aside_waits)
		mkv_ioq_cancel(q, &h->aside_io);
	if (h->ev_waits)
		mkv_ioq_cancel(q, &h->ev_io);
	if (h->node_waits)
		mkv_ioq_cancel(q, &h->node_io);
	if (!h->cq_waits && !h->aside_waits && !h->ev_waits && !h->node_waits)
		hub_free(h);
}

void
mkv_rails_poll(struct loop *l)
{
	struct rails *rs = l->rails;
	unsigned n;

	for (unsigned i = 0; rs != NULL && i < RDMA_DEVS_MAX; i++) {
		struct rail_hub *h = &rs->hub[i];

		if (h->hub == NULL)
			continue;
		hub_look(h);
		while ((n = mkv_rdma_hub_poll(h->hub, POLL_MOST)) == POLL_MOST)
			continue;
		l->dirty |= n > 0;
		MKV_LIST_FOREACH(it, &h->list)
			mkv_ctl_poll(MKV_CONTAINER_OF(it, struct rail, link));
		hub_reap(h);
		if (h->leaving)
			hub_leave(h);
	}
}

void
mkv_rails_flush(struct loop *l)
{
	for (unsigned i = 0; l->rails != NULL && i < RDMA_DEVS_MAX; i++)
		if (l->rails->hub[i].hub != NULL)
			mkv_rdma_hub_flush(l->rails->hub[i].hub);
}

static void
hub_wait(struct rail_hub *h)
{
	struct mkv_ioq *q = h->rails->l->q;

	if (!h->cq_waits) {
		h->cq_waits = 1;
		mkv_ioq_poll(q, &h->cq_io, MKV_FD(mkv_rdma_hub_fd(h->hub)), 0);
	}
	if (!h->aside_waits) {
		h->aside_waits = 1;
		mkv_ioq_poll(q, &h->aside_io, MKV_FD(mkv_rdma_hub_aside_fd(h->hub)), 0);
	}
	if (!h->ev_waits) {
		h->ev_waits = 1;
		mkv_ioq_poll(q, &h->ev_io, MKV_FD(mkv_rdma_dev_event_fd(h->dev)), 0);
	}
	if (!h->node_waits && h->nodes >= 0) {
		h->node_waits = 1;
		mkv_ioq_poll(q, &h->node_io, MKV_FD(h->nodes), 0);
	}
}

/* A rail was broken after the last look and owes nothing: no completion will tell. Or its hub is being given up, and nothing wakes us for it. */
static int
hub_must_reap(const struct rail_hub *h)
{
	MKV_LIST_FOREACH(it, &h->list) {
		const struct rail *r = MKV_CONTAINER_OF(it, struct rail, link);

		if (h->leaving || (r->state == RAIL_BREAKING && mkv_rail_qp_idle(r) && !mkv_ctl_says_bye(r)))
			return (1);
	}
	return (0);
}

int
mkv_rails_may_sleep(struct loop *l)
{
	for (unsigned i = 0; l->rails != NULL && i < RDMA_DEVS_MAX; i++) {
		struct rail_hub *h = &l->rails->hub[i];

		if (h->hub == NULL)
			continue;
		if (hub_must_reap(h))
			return (0);
		if (h->leaving)
			continue;
		if (!mkv_rdma_hub_arm(h->hub))
			return (0);
		hub_wait(h);
		MKV_LIST_FOREACH(it, &h->list)
			mkv_ctl_wait(MKV_CONTAINER_OF(it, struct rail, link));
	}
	return (1);
}

/* ---- the end ---- */

void
mkv_rails_stop(struct loop *l)
{
	if (l->rails == NULL)
		return;
	l->rails->stopping = 1;
	for (unsigned i = 0; i < RDMA_DEVS_MAX; i++)
		l->rails->hub[i].leaving = l->rails->hub[i].hub != NULL;
	mkv_rails_poll(l);
}

int
mkv_rails_busy(const struct loop *l)
{
	for (unsigned i = 0; l->rails != NULL && i < RDMA_DEVS_MAX; i++)
		if (l->rails->hub[i].hub != NULL)
			return (1);
	return (0);
}

/* A hub that is still open has a queue pair that never became quiet: it is left to the end of the process rather than freed under the NIC. */
void
mkv_rails_close(struct loop *l)
{
	free(l->rails);
	l->rails = NULL;
}
