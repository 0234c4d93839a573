/*
 * memkv-front, loop thread: the process as a rail. Owns the rail and what it listens to: completions, the device's events, and the directory of device nodes,
 * since a soft device that is deleted says nothing to those who have it open (docs/internals/rdma.md): its node is gone, and the command that deleted it waits.
 *
 *	watched --node gone, or the device says so; its port has another address--> leaving: no new sessions, what is in flight gets 1 s --> FAIL absent, exit: that closes the device
 *
 * The supervisor starts the next life when there is a device again. What fails at start is told in words, with what mends it.
 */
#include "config.h"

#include "worker/front/rail_life.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "common/base/clock.h"
#include "common/base/err.h"
#include "common/base/log.h"
#include "common/base/os.h"
#include "common/base/params.h"
#include "common/rdma/verbs.h"
#include "worker/core/jail.h"
#include "worker/front/rail.h"

#define LIFE_LEAVE_NS	MKV_NS_PER_SEC

static struct {
	struct mkv_worker *w;
	struct mkv_rail	*rail;
	struct mkv_front *f;
	const char	*leaving;		/* NULL; else what its device has met, for the supervisor */
	int		nodes;			/* tells of device nodes that come and go; -1: nothing does */
	int		file, event_file, nodes_file, aside_file;
	struct mkv_io	io, event_io, nodes_io, aside_io;
	int		udp_file;		/* datagrams; below 0: none */
	struct mkv_io	udp_io;
} life = { .nodes = -1, .udp_file = -1 };

static void
life_conf(const struct mkv_worker *w, struct mkv_rail_conf *c)
{
	const struct mkv_params *p = w->params;

	memset(c, 0, sizeof(*c));
	c->rail = w->rail;
	c->device = w->device;
	c->port = p->rdma_port;
	c->gid_index = p->rdma_gid_index;
	c->traffic_class = p->rdma_traffic_class;
	c->service_level = p->rdma_service_level;
	c->mtu = p->rdma_mtu == 0 ? 0 : 128u << p->rdma_mtu;	/* auto, 256, 512, ... */
	c->piece_bytes = (uint32_t)p->rdma_piece_size;
	c->window_bytes = (uint32_t)p->rdma_window;
	c->srq_depth = p->rdma_srq_depth;
	c->num_dcis = p->rdma_num_dcis;
}

static int
life_files(struct mkv_worker *w)
{
	if ((life.file = mkv_ioq_register_file(w->q, mkv_rail_fd(life.rail))) < 0)
		return (life.file);
	if ((life.aside_file = mkv_ioq_register_file(w->q, mkv_rail_aside_fd(life.rail))) < 0)
		return (life.aside_file);
	if ((life.event_file = mkv_ioq_register_file(w->q, mkv_rail_event_fd(life.rail))) < 0)
		return (life.event_file);
	if (life.nodes < 0)
		return (0);
	life.nodes_file = mkv_ioq_register_file(w->q, life.nodes);
	return (life.nodes_file < 0 ? life.nodes_file : 0);
}

/* Messages by datagram come to the device's own address, where it is one of IP, at the port that TCP has. Without it the rail is there all the same. */
static int
life_datagrams(struct mkv_worker *w, const struct mkv_wire_rail *row)
{
	static const uint8_t none[sizeof(row->address)];
	int fd;

	if (memcmp(row->address, none, sizeof(none)) == 0)
		return (0);
	if ((fd = mkv_rail_listen(life.rail, row->address, w->params->network_address.port)) < 0) {
		mkv_log(MKV_EV_RAIL_NO_DATAGRAMS, "device=%s port=%u err=%s", w->device, w->params->network_address.port, mkv_err_name(fd));
		return (0);
	}
	life.udp_file = mkv_ioq_register_file(w->q, fd);
	return (life.udp_file < 0 ? life.udp_file : 0);
}

int
mkv_rail_begin(struct mkv_worker *w, struct mkv_front *f, struct mkv_wire_rail *row)
{
	const struct mkv_verbs *v;
	struct mkv_rail_conf c;
	char why[512] = "";
	int r;

	life.f = f;
	if ((v = mkv_verbs_load(why, sizeof(why))) == NULL)
		return (mkv_worker_fail(w, 1, "%s", why));
	life_conf(w, &c);
	/* Before there is a device: one that is deleted right after it was opened is not missed. Without it none is: in the jail there is no file system to look at. */
	life.nodes = mkv_os_watch_dir("/dev/infiniband");
	r = mkv_rail_open(&life.rail, f, v, &c, why, sizeof(why));
	if (r == MKV_E_UNSUPPORTED)
		return (mkv_worker_fail_absent(w, "%s", why));
	if (r != 0)
		return (mkv_worker_fail(w, r == MKV_E_CONFIG, "%s: %s", w->device, why[0] != '\0' ? why : mkv_err(r)));
	mkv_rail_describe(life.rail, row);
	if ((r = life_files(w)) != 0 || (r = life_datagrams(w, row)) != 0)
		return (mkv_worker_fail(w, 0, "%s: %s", w->device, mkv_err(r)));
	return (0);
}

/* ---- What it hears --------------------------------------------------------------------------------------------------------- */

static void
life_leave(struct mkv_worker *w, const char *why, const char *end)
{
	if (life.leaving != NULL)
		return;
	life.leaving = end;
	mkv_log(MKV_EV_RAIL_LEAVES, "device=%s why=%s", w->device, why);
	mkv_front_stop(life.f, LIFE_LEAVE_NS);
}

/* The turn takes what waits. */
static void
life_on_completions(struct mkv_io *io MKV_UNUSED, int res)
{
	if (res >= 0)
		mkv_rail_woken(life.rail);
}

static void
life_on_aside(struct mkv_io *io MKV_UNUSED, int res MKV_UNUSED)
{
}

static void
life_on_datagrams(struct mkv_io *io MKV_UNUSED, int res)
{
	if (res >= 0)
		mkv_rail_readable(life.rail);
}

static void
life_on_event(struct mkv_io *io MKV_UNUSED, int res)
{
	Mkv__Ctl__Rail m = MKV__CTL__RAIL__INIT;
	struct mkv_wire_rail row;

	if (res < 0)
		return;
	switch (mkv_rail_event(life.rail)) {
	case 1:
		mkv_rail_describe(life.rail, &row);
		mkv_rail_message(&m, &row);
		(void)mkv_front_rail(life.f, &row, -1);
		mkv_worker_report_rail(life.w, &m, mkv_rail_state_text(life.rail));
		break;
	case 2:
		life_leave(life.w, "the device fails or is being removed", "was removed");
		break;
	case 3:
		life_leave(life.w, "its port has another address by now", "has another address by now");
		break;
	}
}

static void
life_on_nodes(struct mkv_io *io MKV_UNUSED, int res)
{
	if (res >= 0 && mkv_os_watch_left(life.nodes, mkv_rail_node(life.rail)))
		life_leave(life.w, "the device is being removed", "was removed");
}

unsigned
mkv_rail_may(void)
{
	return (MKV_JAIL_MAY_VERBS | (mkv_rail_is_soft(life.rail) ? MKV_JAIL_KEEP_CREDENTIALS : 0));
}

void
mkv_rail_watch(struct mkv_worker *w)
{
	life.w = w;
	life.io.done = life_on_completions;
	life.aside_io.done = life_on_aside;
	life.event_io.done = life_on_event;
	life.nodes_io.done = life_on_nodes;
	mkv_ioq_poll(w->q, &life.io, life.file, 1);
	mkv_ioq_poll(w->q, &life.aside_io, life.aside_file, 1);
	mkv_ioq_poll(w->q, &life.event_io, life.event_file, 1);
	if (life.nodes >= 0)
		mkv_ioq_poll(w->q, &life.nodes_io, life.nodes_file, 1);
	life.udp_io.done = life_on_datagrams;
	if (life.udp_file >= 0)
		mkv_ioq_poll(w->q, &life.udp_io, life.udp_file, 1);
}

void
mkv_rail_look(struct mkv_worker *w)
{
	if (life.leaving != NULL && w->state != MKV_WORKER_ENDED && mkv_front_idle(life.f))
		(void)mkv_worker_fail_absent(w, "%s %s", w->device, life.leaving);
}

void
mkv_rail_end(void)
{
	/* What is still at the NIC ends with the process. */
	if (life.rail != NULL && mkv_rail_quiet(life.rail))
		mkv_rail_close(&life.rail);
	if (life.nodes >= 0)
		close(life.nodes);
	life.nodes = -1;
}

void
mkv_rail_message(Mkv__Ctl__Rail *m, struct mkv_wire_rail *row)
{
	m->rail = row->rail;
	m->up = row->state != 0;
	m->transports = row->transports;
	m->speed_mbit = row->speed_mbit;
	m->mtu = row->mtu;
	m->gid = (ProtobufCBinaryData){ .len = sizeof(row->gid), .data = row->gid };
	m->address = (ProtobufCBinaryData){ .len = sizeof(row->address), .data = row->address };
	m->device = row->device;
	if (life.rail != NULL)
		m->without_dc = (char *)(uintptr_t)mkv_rail_without_dc(life.rail);
}
