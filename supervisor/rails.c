/*
 * Process: supervisor, loop thread.
 * Owns: each rail's description, as its front (front:rdma) has given it, and the sending end of its door: the pair of sockets by which TCP fronts pass it
 * the connections that ask for it.
 *
 *	its front is configured		a new pair: one end to it before START, the other to all TCP fronts, and to those that start later
 *	READY, STATE			what it says of its port: to all TCP fronts
 *	its death			the doors are shut; TCP fronts hear that the rail is down (their own end tells them, too, when they use it)
 *
 * Invariants: a door belongs to one life of the rail's front; number and device are the configuration's, whatever the front says.
 * What can fail: descriptors, which ends that front's life; a description that cannot be one, likewise.
 */
#include "config.h"

#include "supervisor/sup_priv.h"

#include <inttypes.h>
#include <string.h>
#include <unistd.h>

#include "common/base/assert.h"
#include "common/base/err.h"
#include "common/base/log.h"
#include "common/base/os.h"
#include "proto/wire.h"

#define RAIL_MTU_MAX	65536u

_Static_assert(CONFIG_RAILS_MAX == MKV_WIRE_RAILS_MAX, "all rails fit a HELLO reply");
_Static_assert(CONFIG_DEVICE_BYTES == sizeof(((struct mkv_wire_rail *)0)->device), "names fit, too");

static void
rails_send(struct proc *to, struct proc *rail, int fd)
{
	const struct sup_rail *r = &rail->rail;
	Mkv__Ctl__Rail body = MKV__CTL__RAIL__INIT;
	Mkv__Ctl__Door door = MKV__CTL__DOOR__INIT;
	Mkv__Ctl__Control m = MKV__CTL__CONTROL__INIT;

	m.body_case = MKV__CTL__CONTROL__BODY_DOOR;
	m.door = &door;
	door.rail = &body;
	body.rail = r->number;
	body.device = (char *)(uintptr_t)rail_device(rail);
	body.up = r->up;
	body.transports = r->transports;
	body.speed_mbit = r->speed_mbit;
	body.mtu = r->mtu;
	body.gid = (ProtobufCBinaryData){ .len = sizeof(r->gid), .data = (uint8_t *)(uintptr_t)r->gid };
	body.address = (ProtobufCBinaryData){ .len = sizeof(r->address), .data = (uint8_t *)(uintptr_t)r->address };
	proc_send(to, &m, &fd, fd >= 0);
}

static void
rails_tell(struct proc *rail, int fd)
{
	struct mkv_sup *s = rail->sup;

	for (uint32_t i = 0; i < s->shard_count; i++)
		if (proc_reachable(sup_front(s, i)))
			rails_send(sup_front(s, i), rail, fd);
}

void
rails_tell_all(struct proc *front)
{
	struct mkv_sup *s = front->sup;

	for (uint32_t i = s->shard_count; i < sup_rails_end(s); i++)
		rails_send(front, sup_front(s, i), sup_front(s, i)->rail.door_fd);
}

static void
rails_shut(struct sup_rail *r)
{
	if (r->door_fd >= 0)
		close(r->door_fd);
	*r = (struct sup_rail){ .number = r->number, .door_fd = -1 };
}

int
rails_open_door(struct proc *rail)
{
	int fds[2], r;

	rails_shut(&rail->rail);
	if ((r = mkv_os_ctl_pair(fds)) != 0)
		return (r);
	rail->rail.door_fd = fds[1];
	rails_send(rail, rail, fds[0]);
	close(fds[0]);
	rails_tell(rail, rail->rail.door_fd);
	return (0);
}

static void
rails_say(const struct proc *p, int was_up)
{
	const struct sup_rail *r = &p->rail;

	if (r->up != was_up)
		mkv_log(MKV_EV_RAIL, "child=%s rail=%" PRIu32 " up=%d transports=%" PRIu32 " speed_mbit=%" PRIu32 " mtu=%" PRIu32, p->child.name, r->number,
		    r->up, r->transports, r->speed_mbit, r->mtu);
}

void
rails_on_end(struct proc *rail)
{
	int was_up = rail->rail.up;

	if (rail->rail.door_fd < 0)
		return;
	rails_shut(&rail->rail);
	rails_tell(rail, -1);
	rails_say(rail, was_up);
}

/* Its front shuts the door itself; whoever comes before it does is refused there. */
void
rails_on_stop(struct proc *rail)
{
	int was_up = rail->rail.up;

	rail->rail.up = 0;
	rails_tell(rail, -1);
	rails_say(rail, was_up);
}

/* Its front's words, shown to people. */
static void
rails_take_words(char *to, size_t room, const char *from)
{
	size_t n = 0;

	for (; n + 1 < room && from[n] != '\0'; n++)
		to[n] = from[n] >= ' ' && from[n] <= '~' ? from[n] : '?';
	to[n] = '\0';
}

/* 1: it can be one. */
static int
rails_take(struct sup_rail *have, const Mkv__Ctl__Rail *r)
{
	if (r->rail != have->number || r->gid.len != sizeof(have->gid) || r->address.len != sizeof(have->address) || r->mtu > RAIL_MTU_MAX ||
	    (r->transports & ~(uint32_t)(MKV_FEATURE_RDMA_RC | MKV_FEATURE_RDMA_DC)) != 0)
		return (0);
	have->up = r->up != 0;
	have->transports = r->transports;
	have->speed_mbit = r->speed_mbit;
	have->mtu = r->mtu;
	memcpy(have->gid, r->gid.data, sizeof(have->gid));
	memcpy(have->address, r->address.data, sizeof(have->address));
	rails_take_words(have->without_dc, sizeof(have->without_dc), r->without_dc);
	return (1);
}

int
rails_on_ready(struct proc *p, const Mkv__Ctl__Rail *r)
{
	if (proc_is_rail(p) != (r != NULL) || (r != NULL && !rails_take(&p->rail, r))) {
		proc_break(p, "READY with a rail that is none of it");
		return (0);
	}
	if (r != NULL) {
		rails_tell(p, -1);
		rails_say(p, 0);
	}
	return (1);
}

void
rails_on_state(struct proc *p, const Mkv__Ctl__Rail *r)
{
	int was_up = p->rail.up;

	if (!proc_is_rail(p) || !rails_take(&p->rail, r)) {
		proc_break(p, "STATE with a rail that is none of it");
		return;
	}
	p->rail.up = p->rail.up && p->child.state != CHILD_STOPPING;
	rails_tell(p, -1);
	rails_say(p, was_up);
	sup_on_change(p->sup);
}

unsigned
rails_up(const struct mkv_sup *s)
{
	unsigned n = 0;

	for (uint32_t i = s->shard_count; i < sup_rails_end(s); i++)
		n += s->proc[i].child.state == CHILD_RUNNING && s->proc[i].rail.up;
	return (n);
}
