/*
 * memkv-front in a build without RDMA: no front has a rail, so no connection ever has a channel.
 */
#include "config.h"

#include "worker/front/rail.h"

#include "common/base/assert.h"
#include "common/base/err.h"
#include "worker/front/front_priv.h"

int
mkv_rail_arena(struct mkv_rail *r MKV_UNUSED, unsigned drive MKV_UNUSED, void *base MKV_UNUSED, uint64_t bytes MKV_UNUSED)
{
	return (0);
}

unsigned
mkv_rail_turn(struct mkv_rail *r MKV_UNUSED)
{
	return (0);
}

void
mkv_rail_flush(struct mkv_rail *r MKV_UNUSED)
{
}

int
mkv_rail_may_sleep(struct mkv_rail *r MKV_UNUSED)
{
	return (1);
}

void
mkv_rail_wake(struct mkv_rail *r MKV_UNUSED)
{
}

void
mkv_rail_gauges(struct mkv_rail *r MKV_UNUSED)
{
}

void
mkv_chan_run(struct mkv_conn *c MKV_UNUSED)
{
}

void
mkv_chan_close(struct mkv_conn *c MKV_UNUSED)
{
}

int
mkv_chan_gone(struct mkv_conn *c MKV_UNUSED)
{
	return (1);
}

int
mkv_chan_heard(struct mkv_conn *c MKV_UNUSED)
{
	return (0);
}

int
mkv_chan_is_loose(const struct mkv_conn *c MKV_UNUSED)
{
	return (0);
}

uint64_t
mkv_chan_heard_ns(const struct mkv_conn *c MKV_UNUSED)
{
	return (0);
}

int
mkv_chan_lease(struct mkv_conn *c MKV_UNUSED, const struct mkv_hdr *h MKV_UNUSED, const uint8_t *body MKV_UNUSED)
{
	return (0);
}

void
mkv_chan_req_begins(struct mkv_req *r MKV_UNUSED)
{
}

void
mkv_chan_req_gone(struct mkv_req *r MKV_UNUSED)
{
}

void
mkv_chan_req_rests(struct mkv_req *r MKV_UNUSED)
{
}

int
mkv_chan_lease_again(struct mkv_req *r MKV_UNUSED)
{
	return (0);
}

int
mkv_chan_reply(struct mkv_req *r MKV_UNUSED, struct mkv_out *o MKV_UNUSED)
{
	return (0);
}

void
mkv_chan_stop(struct mkv_req *r MKV_UNUSED)
{
}

void
mkv_chan_req_done(struct mkv_req *r MKV_UNUSED)
{
}

void
mkv_chan_read(struct mkv_req *r MKV_UNUSED, struct mkv_part *p MKV_UNUSED)
{
	MKV_ASSERT(!"no frame comes by a channel");
}

void
mkv_chan_part_done(struct mkv_part *p MKV_UNUSED)
{
}

enum mkv_take
mkv_chan_frame(struct mkv_conn *c MKV_UNUSED, const struct mkv_hdr *h MKV_UNUSED, const uint8_t *body MKV_UNUSED)
{
	return (MKV_TAKE_BREAK);
}

void
mkv_chan_cancelled(struct mkv_req *cancel MKV_UNUSED, uint64_t id MKV_UNUSED)
{
}

int
mkv_chan_take_segs(struct mkv_conn *c MKV_UNUSED, struct mkv_wire_in *in)
{
	return (in->p == in->end ? 0 : MKV_E_PROTO);
}

static enum mkv_next
attach_step(struct mkv_req *r)
{
	mkv_req_end(r, MKV_E_UNSUPPORTED, MKV_REASON_NONE, NULL, 0);
	return (MKV_NEXT_AGAIN);
}

static int
attach_start(struct mkv_req *r MKV_UNUSED, const struct mkv_hdr *h MKV_UNUSED, const uint8_t *body MKV_UNUSED)
{
	return (MKV_E_UNSUPPORTED);
}

static void
attach_on_dop(struct mkv_req *r MKV_UNUSED, struct mkv_dop *d MKV_UNUSED, const struct mkv_drv_rep *rep MKV_UNUSED, int status MKV_UNUSED)
{
	MKV_ASSERT(!"asks no drive");
}

const struct mkv_req_ops mkv_attach_ops = { .op = MKV_WIRE_ATTACH, .start = attach_start, .step = attach_step, .on_dop = attach_on_dop };
