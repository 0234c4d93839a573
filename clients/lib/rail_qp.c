/*
 * What a rail has of its device: an RC queue pair, or by DC a target and an initiator. Made, told of, connected, fenced, destroyed.
 *
 * The loop's thread, but that the kernel looks the server's address up, which may take it a second: the hub's threads call it for that, and the loop goes on. Owns them. A target is its rail's alone, never two servers': destroying it is the fence, and would cost the others theirs. It is what the far end
 * reads and writes our memory by, and what answers come to; the initiator carries our messages to the server's target.
 * Which of the two: DC if server and device have it and their path MTUs are the same (nobody negotiates that: packets of the larger one would be lost), but not
 * where regions are paged in on demand, which devices have for each transport apart. A device on which it cannot be made has none until it is opened again; a
 * server that does not take it on a rail is asked for RC there.
 * Fails: memory or the device: the rail's try comes to nothing.
 */
#include "config.h"

#include <string.h>

#include "clients/lib/rail_priv.h"

static struct rail_known *
qp_rail(struct rail *r)
{
	return (&((struct pool *)r->c->srv->pool)->rail[r->c->rail_idx]);
}

static struct mkv_rdma_qp_conf
qp_conf(struct rail *r, const struct mkv_rdma_qp_ops *ops)
{
	return ((struct mkv_rdma_qp_conf){ .sends = RAIL_SENDS, .send_bytes = MKV_WIRE_RDMA_BYTES, .ops = ops, .owner = r });
}

int
mkv_rail_is_dc(const struct rail *r)
{
	return (r->target != NULL);
}

static int
qp_may_dc(struct rail *r)
{
	const struct rail_known *k = qp_rail(r);
	const struct mkv_rdma_dev *d = r->hub->dev;
	const struct mkv_client *c = r->hub->rails->l->c;

	return ((k->wire.transports & MKV_FEATURE_RDMA_DC) && !k->no_dc && (k->wire.mtu == 0 || k->wire.mtu == d->mtu_bytes) &&
	    !(c->cf.rdma_on_demand && d->odp) && mkv_fabric_dc(c->fabric, r->hub->idx));
}

static int
qp_make_dc(struct rail *r, const struct mkv_rdma_qp_ops *ops)
{
	struct mkv_rdma_qp_conf to = qp_conf(r, ops), from = to;
	int e;

	to.sends = to.send_bytes = 0;
	to.remote_read = to.remote_write = 1;
	if ((e = mkv_rdma_target_create(&r->target, r->hub->hub, &to)) == 0 && (e = mkv_rdma_initiator_create(&r->qp, r->hub->hub, &from)) == 0)
		return (0);
	(void)mkv_rail_qp_fence(r);			/* nobody was told of it */
	mkv_rail_qp_drop(r);
	return (e);
}

int
mkv_rail_qp_make(struct rail *r, const struct mkv_rdma_qp_ops *ops)
{
	struct mkv_rdma_qp_conf c = qp_conf(r, ops);

	if (qp_may_dc(r)) {
		if (qp_make_dc(r, ops) == 0)
			return (0);
		mkv_fabric_no_dc(r->hub->rails->l->c->fabric, r->hub->idx);
	}
	c.remote_read = c.remote_write = 1;
	return (mkv_rdma_qp_create(&r->qp, r->hub->hub, &c));
}

void
mkv_rail_qp_tell(const struct rail *r, struct mkv_wire_attach *w)
{
	const struct mkv_rdma_dev *d = r->hub->dev;

	if (r->target != NULL) {
		w->transport = MKV_FEATURE_RDMA_DC;
		w->qpn = mkv_rdma_qp_number(r->target);
		w->dc_key = mkv_rdma_target_key(r->target);
	} else {
		w->transport = MKV_FEATURE_RDMA_RC;
		w->qpn = mkv_rdma_qp_number(r->qp);
		w->psn = mkv_rdma_qp_psn(r->qp);
	}
	w->mtu_bytes = d->mtu_bytes;
	w->recv_bytes = mkv_rdma_hub_recv_bytes(r->hub->hub);
	w->rd_atomic_in = d->rd_atomic_in;
	w->rd_atomic_out = d->rd_atomic_out;
	memcpy(w->gid, d->gid.raw, sizeof(w->gid));
	w->lid = d->lid;
}

static int
qp_find_way(struct rail *r, const struct mkv_wire_attach *w)
{
	if (w->mtu_bytes != r->hub->dev->mtu_bytes)
		return (MKV_E_UNSUPPORTED);
	r->to = (struct mkv_rdma_dct){ .lid = w->lid, .dctn = w->qpn, .key = w->dc_key };
	memcpy(r->to.gid, w->gid, sizeof(r->to.gid));
	return (mkv_rdma_way_take(&r->way, r->hub->hub, &r->to));
}

int
mkv_rail_qp_connect(struct rail *r, const struct mkv_wire_attach *w)
{
	struct mkv_rdma_peer p = { .lid = w->lid, .qpn = w->qpn, .psn = w->psn, .mtu_bytes = w->mtu_bytes, .rd_atomic_in = (uint8_t)MKV_MIN(w->rd_atomic_in, 255),
		.rd_atomic_out = (uint8_t)MKV_MIN(w->rd_atomic_out, 255) };

	if (w->transport != (r->target != NULL ? MKV_FEATURE_RDMA_DC : MKV_FEATURE_RDMA_RC))
		return (MKV_E_PEER);
	if (r->target != NULL)
		return (qp_find_way(r, w));
	memcpy(p.gid, w->gid, sizeof(p.gid));
	return (mkv_rdma_qp_connect(r->qp, &p));
}

int
mkv_rail_qp_connected(struct rail *r)
{
	int e;

	if (r->target == NULL)
		return (mkv_rdma_qp_connected(r->qp));
	return ((e = mkv_rdma_way_known(r->way)) != 0 ? e : mkv_rdma_initiator_aim(r->qp, &r->to));
}

int
mkv_rail_qp_without_dc(struct rail *r, int err)
{
	if (r->target == NULL || err != MKV_E_UNSUPPORTED)
		return (0);
	qp_rail(r)->no_dc = 1;
	return (1);
}

/*
 * What the far end reaches us by is gone from the NIC, or in ERR, when it returns 1: from here on nothing comes to our memory. 0: the NIC does not let go of it;
 * mkv_rail_qp_idle() tells when it has.
 */
int
mkv_rail_qp_fence(struct rail *r)
{
	if (r->target != NULL)
		mkv_rdma_qp_fail(r->target);
	if (r->qp != NULL)
		mkv_rdma_qp_fail(r->qp);
	if (r->target != NULL)
		return (mkv_rdma_qp_fenced(r->target));
	return (r->qp == NULL || mkv_rdma_qp_fenced(r->qp));
}

int
mkv_rail_qp_idle(const struct rail *r)
{
	/* A hub whose threads are still looking for somebody would be waited for when it is closed. */
	if (r->way != NULL && mkv_rdma_way_known(r->way) == MKV_E_AGAIN)
		return (0);
	return (mkv_rdma_qp_idle(r->qp) && (r->target == NULL || mkv_rdma_qp_idle(r->target)));
}

void
mkv_rail_qp_drop(struct rail *r)
{
	mkv_rdma_way_back(&r->way);
	mkv_rdma_qp_destroy(&r->target);
	mkv_rdma_qp_destroy(&r->qp);
}
