/*
 * memkv-front, loop thread: the rail's device: opened before the jail, described to clients, its events. rail.h has who calls what.
 *
 * Owns all that is one a device: the hub, the registrations of staging and arenas, the table of channels, the pool of what can be held. Everything is made at
 * opening and freed at closing, when no channel is left. What fails at opening is told in words; later the device says so, or its node goes (rail_life.c).
 */
#include "config.h"

#include "worker/front/rail_priv.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/err.h"
#include "common/base/log.h"

#define RAIL_SINK_BYTES	4096u		/* a page, of which the flushes' byte is the first */

static int
rail_memory(struct mkv_rail *r, char *why, size_t why_bytes)
{
	uint64_t bytes;
	void *base = mkv_stage_base(r->f->stage, &bytes);

	int e = mkv_rdma_mem_add(&r->stage, r->dev, base, bytes, MKV_RDMA_LOCAL, why, why_bytes);

	if (e == 0 && (r->sink = aligned_alloc(RAIL_SINK_BYTES, RAIL_SINK_BYTES)) == NULL)
		e = MKV_E_NOMEM;
	return (e != 0 ? e : mkv_rdma_mem_add(&r->sink_mem, r->dev, r->sink, RAIL_SINK_BYTES, MKV_RDMA_LOCAL, why, why_bytes));
}

/* All that can be out is what the completion queue is made for: a device with a small one has fewer and shorter queue pairs. */
static int
rail_hub(struct mkv_rail *r, char *why, size_t why_bytes)
{
	struct mkv_rdma_hub_conf h = { .recvs = r->conf.srq_depth, .recv_bytes = MKV_WIRE_RDMA_BYTES, .aside = 1 };
	uint32_t cqe = (uint32_t)MKV_MAX(r->dev->attr.max_cqe, 0), most = r->f->conf.connections_max * LINE_SENDS_MAX;

	h.recvs = MKV_MIN(h.recvs, MKV_MIN((uint32_t)MKV_MAX(r->dev->attr.max_srq_wr, 0), cqe / 4));
	rail_dc_share(r, cqe - h.recvs);
	h.sends_max = (uint32_t)MKV_MIN((uint64_t)most + (uint64_t)r->dc_n * r->dc_sends, cqe - h.recvs);
	r->recvs = h.recvs;
	r->credits_all = r->credits_left = h.recvs - h.recvs / 8;
	r->sends_all = r->sends_left = h.sends_max;
	return (mkv_rdma_hub_open(&r->hub, r->dev, &h, why, why_bytes));
}

/* Credits keep receives from running out, so this is a client that sends more than it was granted, or a front that keeps up with nothing. */
static void
rail_recvs_low(struct mkv_rail *r)
{
	r->alarm_set = 0;
	mkv_metric_add(r->f->m, MKV_M_front_receives_low_total, 0, 1);
	mkv_log(MKV_EV_RECEIVES_LOW, "device=%s of=%" PRIu32, r->dev->name, r->recvs);
}

/* The alarm is told once; a device that has none takes no more questions than these. */
void
rail_alarm(struct mkv_rail *r)
{
	if (!r->alarm_set)
		r->alarm_set = mkv_rdma_hub_alarm(r->hub, r->recvs / 8) == 0;
}

static int
rail_chans(struct mkv_rail *r)
{
	uint32_t n = r->f->conf.connections_max + FRONT_SPARE_CONNS;

	if ((r->chans = calloc(n, sizeof(*r->chans))) == NULL)
		return (MKV_E_NOMEM);
	for (uint32_t i = 0; i < n; i++) {
		struct mkv_chan *ch = &r->chans[i];

		ch->magic = CHAN_MAGIC;
		ch->rail = r;
		mkv_list_init(&ch->broken);
		mkv_list_init(&ch->opening);
		mkv_list_init(&ch->held);
		mkv_list_init(&ch->lines);
		mkv_list_init(&ch->late);
		mkv_list_init(&ch->wait);
		mkv_list_init(&ch->outs);
		mkv_list_init(&ch->dirty);
		mkv_answers_init(&ch->answers);
	}
	return (0);
}

static int
rail_held(struct mkv_rail *r)
{
	const uint32_t n = r->recvs + CTL_MSGS;

	if ((r->held = calloc(n, sizeof(*r->held))) == NULL)
		return (MKV_E_NOMEM);
	for (uint32_t i = 0; i < n; i++)
		mkv_list_push_tail(&r->held_free, &r->held[i].link);
	return (0);
}

int
mkv_rail_open(struct mkv_rail **out, struct mkv_front *f, const struct mkv_verbs *v, const struct mkv_rail_conf *c, char *why, size_t why_bytes)
{
	struct mkv_rdma_conf d = {
		.device = c->device, .port = c->port, .gid_index = c->gid_index, .traffic_class = c->traffic_class, .service_level = c->service_level,
		.mtu = c->mtu,
	};
	struct mkv_rail *r = calloc(1, sizeof(*r));
	int e;

	*out = NULL;
	if (r == NULL)
		return (MKV_E_NOMEM);
	r->magic = RAIL_MAGIC;
	r->f = f;
	r->conf = *c;
	r->watch.fire = rail_watch;
	mkv_list_init(&r->dirty);
	mkv_list_init(&r->opening);
	mkv_list_init(&r->broken);
	mkv_list_init(&r->held_free);
	mkv_list_init(&r->ctl_dirty);
	mkv_list_init(&r->line_free);
	mkv_list_init(&r->over);
	mkv_list_init(&r->wait);
	if ((e = mkv_rdma_dev_open(&r->dev, v, &d, why, why_bytes)) == 0 && (e = rail_hub(r, why, why_bytes)) == 0 &&
	    (e = rail_memory(r, why, why_bytes)) == 0 && (e = rail_held(r)) == 0 && (e = ctl_open(r)) == 0)
		e = rail_chans(r);
	if (e != 0) {
		mkv_rail_close(&r);
		return (e);
	}
	rail_dc_open(r);
	rail_alarm(r);
	r->up = r->port_up = mkv_rdma_dev_is_up(r->dev);
	f->rail = r;
	*out = r;
	return (0);
}

int
mkv_rail_quiet(const struct mkv_rail *r)
{
	return (r->n_open == 0 && mkv_list_empty(&r->broken));
}

void
mkv_rail_close(struct mkv_rail **rp)
{
	struct mkv_rail *r = *rp;

	if (r == NULL)
		return;
	MKV_CHECK_OBJ(r, RAIL_MAGIC);
	mkv_timer_disarm(r->f->timers, &r->watch);
	for (unsigned i = 0; i < MKV_FRONT_DRIVES_MAX; i++)
		mkv_rdma_mem_drop(&r->arena[i]);
	mkv_rdma_mem_drop(&r->stage);
	mkv_rdma_mem_drop(&r->sink_mem);
	ctl_close(r);
	rail_dc_close(r);
	mkv_rdma_hub_close(&r->hub);
	mkv_rdma_dev_close(&r->dev);
	free(r->chans);
	free(r->held);
	free(r->sink);
	if (r->f->rail == r)
		r->f->rail = NULL;
	r->magic = 0;
	free(r);
	*rp = NULL;
}

int
mkv_rail_arena(struct mkv_rail *r, unsigned drive, void *base, uint64_t bytes)
{
	char why[256];
	int e;

	mkv_rdma_mem_drop(&r->arena[drive]);
	if ((e = mkv_rdma_mem_add(&r->arena[drive], r->dev, base, bytes, MKV_RDMA_LOCAL, why, sizeof(why))) != 0)
		mkv_log(MKV_EV_RAIL_MEMORY, "device=%s drive=%u why=%s", r->dev->name, drive, why);
	return (e);
}

void
mkv_rail_describe(const struct mkv_rail *r, struct mkv_wire_rail *out)
{
	const struct mkv_rdma_dev *d = r->dev;

	memset(out, 0, sizeof(*out));
	out->rail = (uint16_t)r->conf.rail;
	out->state = r->up != 0;
	out->transports = MKV_FEATURE_RDMA_RC | (r->pool != NULL && !r->dc_lost ? MKV_FEATURE_RDMA_DC : 0);
	out->speed_mbit = d->speed_mbit;
	out->mtu = d->mtu_bytes;
	memcpy(out->gid, d->gid.raw, sizeof(out->gid));
	memcpy(out->address, d->address, sizeof(out->address));
	memcpy(out->device, d->name, MKV_MIN(strlen(d->name), sizeof(out->device) - 1));
}

const char *
mkv_rail_without_dc(const struct mkv_rail *r)
{
	return (r->dc_why);
}

const char *
mkv_rail_node(const struct mkv_rail *r)
{
	return (r->dev->ctx->device->dev_name);
}

int
mkv_rail_is_soft(const struct mkv_rail *r)
{
	return (r->dev->is_soft);
}

int
mkv_rail_fd(const struct mkv_rail *r)
{
	return (mkv_rdma_hub_fd(r->hub));
}

int
mkv_rail_aside_fd(const struct mkv_rail *r)
{
	return (mkv_rdma_hub_aside_fd(r->hub));
}

int
mkv_rail_event_fd(const struct mkv_rail *r)
{
	return (mkv_rdma_dev_event_fd(r->dev));
}

const char *
mkv_rail_state_text(const struct mkv_rail *r)
{
	if (r->up)
		return ("port is active");
	return (r->port_up ? "port has lost its address: look at `ip address`" : "port is down: look at the cable, the switch and `ip link`");
}

/*
 * Addresses of its port came or went, or the port did, which may take them along. Without the one that clients were told it is down until that is there again; where
 * another took its place, 3: only a process that opens the device anew has that. Else 1: the description changed.
 */
static int
rail_look_over(struct mkv_rail *r, int was_up, int look)
{
	const struct mkv_rdma_conf d = { .gid_index = r->conf.gid_index };
	enum mkv_rdma_gid gid = look && r->port_up ? mkv_rdma_dev_gid(r->dev, &d) : r->no_gid ? MKV_RDMA_GID_NONE : MKV_RDMA_GID_STANDS;

	r->no_gid = gid != MKV_RDMA_GID_STANDS;
	r->up = r->port_up && !r->no_gid;
	return (gid == MKV_RDMA_GID_OTHER ? 3 : r->up != was_up);
}

int
mkv_rail_event(struct mkv_rail *r)
{
	int was_up = r->up, look = 0;
	uint32_t qpn;

	for (;;)
		switch (mkv_rdma_dev_event(r->dev, &qpn)) {
		case MKV_RDMA_EV_NONE:
			return (rail_look_over(r, was_up, look));
		case MKV_RDMA_EV_PORT_DOWN:
			r->port_up = 0;
			break;
		case MKV_RDMA_EV_PORT_UP:
			r->port_up = look = 1;
			break;
		case MKV_RDMA_EV_GONE:
			return (2);
		case MKV_RDMA_EV_QP:
			mkv_rdma_hub_failed(r->hub, qpn);
			break;
		case MKV_RDMA_EV_SRQ_LIMIT:
			rail_recvs_low(r);
			break;
		case MKV_RDMA_EV_GID_CHANGED:	/* queue pairs that this cuts break by themselves */
			look = 1;
			break;
		case MKV_RDMA_EV_OTHER:
			break;
		}
}
