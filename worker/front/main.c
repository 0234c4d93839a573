/*
 * memkv-front: the process. Joins worker/core (control end, loop, jail, rings) with the front (front.h). One thread.
 *
 * SETUP only keeps what the supervisor sends: the front needs its queue, its staging segment and its parameters first. start() makes it, closes the jail
 * and accepts. Owns the staging mapping, the listening sockets' descriptors and the front. What fails at start is told to the supervisor in words.
 */
#include "config.h"

#include "worker/front/front.h"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/base/assert.h"
#include "common/base/auth.h"
#include "common/base/clock.h"
#include "common/base/crc.h"
#include "common/base/err.h"
#include "common/base/params.h"
#include "common/shm/drv.h"
#include "proto/wire.h"
#include "worker/core/core.h"
#include "worker/front/rail_life.h"

#define ROOM_GAUGES_NS		(500 * MKV_NS_PER_MS)
#define ROOM_LOOPBACK_RCVBUF	(1 << 20)
#define ROOM_NEVER_NS		(100ull * 365 * 86400 * MKV_NS_PER_SEC)

struct room_arena {
	int		fd;			/* -1: none */
	uint64_t	bytes;
};

struct room_key {
	uint32_t	id;
	uint8_t		key[MKV_KEY_BYTES];
	int		dev;
};

struct room_rail {
	struct mkv_wire_rail row;
	int		door;			/* -1: none */
};

struct room {
	struct mkv_front *f;			/* NULL until start() */
	struct mkv_stage *stage;
	int		stage_fd, stage_huge;
	int		listener[MKV_FRONT_LISTENERS_MAX];
	unsigned	n_listeners;
	int		is_local;		/* they are unix sockets */
	struct room_arena arena[MKV_FRONT_DRIVES_MAX];
	struct room_key	key[MKV_FRONT_KEYS_MAX];
	unsigned	n_keys;
	struct mkv_front_drive map[MKV_FRONT_DRIVES_MAX];
	unsigned	n_map;
	uint64_t	map_version;
	uint32_t	drained[MKV_FRONT_DRIVES_MAX];	/* epoch, before start(); 0: none */
	struct room_rail rail[MKV_WIRE_RAILS_MAX];
	unsigned	n_rails;
	int		door;			/* of an RDMA front: where connections come from; -1: none yet */
	uint64_t	gauges_ns, bell_calls_told;
	int		more;			/* the last turn left something to do */
};

static struct room room;

/* ---- What the supervisor says ---------------------------------------------------------------------------------------------- */

static int
room_key_message(struct room *m, const Mkv__Ctl__Key *k)
{
	if (!k->revoked && k->front_key.len != MKV_KEY_BYTES)
		return (MKV_E_PROTO);
	if (m->f != NULL)
		return (mkv_front_key(m->f, k->key_id, k->front_key.data, k->dev, k->revoked));
	if (k->revoked)
		return (0);			/* nothing to take back yet */
	if (m->n_keys == MKV_FRONT_KEYS_MAX)
		return (MKV_E_NOSPACE);
	m->key[m->n_keys].id = k->key_id;
	m->key[m->n_keys].dev = k->dev;
	memcpy(m->key[m->n_keys++].key, k->front_key.data, MKV_KEY_BYTES);
	return (0);
}

static int
room_stage_message(struct room *m, struct mkv_worker *w, const Mkv__Ctl__Stage *s, int *fd)
{
	if (s->front != w->index || m->stage_fd >= 0)
		return (MKV_E_PROTO);
	m->stage_fd = *fd;
	m->stage_huge = s->huge;
	*fd = -1;
	return (0);
}

static int
room_arena_message(struct room *m, const Mkv__Ctl__Arena *a, int *fd)
{
	if (a->drive >= MKV_FRONT_DRIVES_MAX || a->bytes == 0)
		return (MKV_E_PROTO);
	if (m->f != NULL)
		return (mkv_front_arena(m->f, a->drive, *fd, a->bytes));
	if (m->arena[a->drive].fd >= 0)
		return (MKV_E_PROTO);
	m->arena[a->drive].fd = *fd;
	m->arena[a->drive].bytes = a->bytes;
	*fd = -1;
	return (0);
}

static int
listener_is_unix(int fd)
{
	struct sockaddr_storage ss = { .ss_family = AF_UNSPEC };
	socklen_t n = sizeof(ss);

	return (getsockname(fd, (struct sockaddr *)&ss, &n) == 0 && ss.ss_family == AF_UNIX);
}

/*
 * Accepted sockets inherit it; in the jail there is no setsockopt. On the loopback nothing is on its way for long: what waits in the receive queue
 * only goes cold in the cache, and the kernel would let it grow to tens of megabytes (docs/internals/tcp-path.md). A network needs its window.
 */
static void
listener_prepare(int fd)
{
	struct sockaddr_storage ss = { .ss_family = AF_UNSPEC };
	socklen_t n = sizeof(ss);
	int on = 1, bytes = ROOM_LOOPBACK_RCVBUF;

	(void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
	(void)setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof(on));
	if (getsockname(fd, (struct sockaddr *)&ss, &n) == 0 && ss.ss_family != AF_UNIX && mkv_front_is_loopback(&ss))
		(void)setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &bytes, sizeof(bytes));
}

static int
room_listener_message(struct room *m, int *fd)
{
	int r;

	if (m->n_listeners == MKV_FRONT_LISTENERS_MAX)
		return (MKV_E_PROTO);
	listener_prepare(*fd);
	m->is_local |= listener_is_unix(*fd);
	if (m->f != NULL && (r = mkv_front_listen(m->f, MKV_FD(*fd))) != 0)
		return (r);
	m->listener[m->n_listeners++] = *fd;
	*fd = -1;
	return (0);
}

static int
room_map_message(struct room *m, const Mkv__Ctl__PoolMap *map)
{
	if (map->n_drives > MKV_FRONT_DRIVES_MAX)
		return (MKV_E_PROTO);
	m->n_map = 0;
	for (size_t i = 0; i < map->n_drives; i++) {
		const Mkv__Ctl__PoolDrive *d = map->drives[i];
		struct mkv_front_drive *row = &m->map[m->n_map];

		if (d->uuid.len == 0 && d->state != MKV__CTL__DRIVE_STATE__DRIVE_ONLINE && d->state != MKV__CTL__DRIVE_STATE__DRIVE_RESTARTING)
			continue;		/* never came up: no key was ever placed there */
		if (d->uuid.len != sizeof(row->uuid) || d->index >= MKV_FRONT_DRIVES_MAX || (unsigned)d->state >= MKV_DRIVE_STATES)
			return (MKV_E_PROTO);
		row->index = d->index;
		memcpy(row->uuid, d->uuid.data, sizeof(row->uuid));
		row->weight = d->weight > 0 ? d->weight : 1.0;
		row->former = d->former > 0 ? d->former : 0;
		row->state = (enum mkv_drive_state)d->state;
		m->n_map++;
	}
	m->map_version = map->version;
	return (m->f != NULL ? mkv_front_map(m->f, m->map_version, m->map, m->n_map) : 0);
}

static int
room_drained_message(struct room *m, const Mkv__Ctl__PeerDrained *d)
{
	if (d->peer != MKV__CTL__PEER_KIND__PEER_DRIVE || d->index >= MKV_FRONT_DRIVES_MAX)
		return (MKV_E_PROTO);
	if (m->f != NULL)
		mkv_front_drive_drained(m->f, d->index, d->epoch);
	else
		m->drained[d->index] = MKV_MAX(m->drained[d->index], d->epoch);
	return (0);
}

static int
rail_row(struct mkv_wire_rail *row, const Mkv__Ctl__Rail *r)
{
	if (r == NULL || r->rail == 0 || r->rail > UINT16_MAX || r->gid.len != sizeof(row->gid) || r->address.len != sizeof(row->address) ||
	    strlen(r->device) >= sizeof(row->device))
		return (MKV_E_PROTO);
	memset(row, 0, sizeof(*row));
	row->rail = (uint16_t)r->rail;
	row->state = r->up != 0;
	row->transports = r->transports;
	row->speed_mbit = r->speed_mbit;
	row->mtu = r->mtu;
	memcpy(row->gid, r->gid.data, sizeof(row->gid));
	memcpy(row->address, r->address.data, sizeof(row->address));
	(void)snprintf(row->device, sizeof(row->device), "%s", r->device);
	return (0);
}

/* Before start() the latest word about each rail is kept. */
static int
room_rail_keep(struct room *m, const struct mkv_wire_rail *row, int *fd)
{
	struct room_rail *r = m->rail;

	while (r < m->rail + m->n_rails && r->row.rail != row->rail)
		r++;
	if (r == m->rail + MKV_WIRE_RAILS_MAX)
		return (MKV_E_PROTO);
	if (r == m->rail + m->n_rails) {
		m->n_rails++;
		r->door = -1;
	}
	r->row = *row;
	if (*fd < 0)
		return (0);
	if (r->door >= 0)
		close(r->door);
	r->door = *fd;
	*fd = -1;
	return (0);
}

static int
room_door_message(struct room *m, struct mkv_worker *w, const Mkv__Ctl__Door *d, int *fd)
{
	struct mkv_wire_rail row;
	int r, given;

	if ((r = rail_row(&row, d->rail)) != 0)
		return (r);
	if (w->rail != 0) {			/* its own, once */
		if (row.rail != w->rail || m->door >= 0 || m->f != NULL || *fd < 0)
			return (MKV_E_PROTO);
		m->door = *fd;
		*fd = -1;
		return (0);
	}
	if (m->f == NULL)
		return (room_rail_keep(m, &row, fd));
	given = *fd;
	*fd = -1;
	return (mkv_front_rail(m->f, &row, given));
}

static void
conf_times(const struct mkv_params *p, struct mkv_front_conf *c)
{
	c->handshake_ns = p->network_handshake_timeout * MKV_NS_PER_US;
	c->idle_ns = p->network_idle_timeout != 0 ? p->network_idle_timeout * MKV_NS_PER_US : ROOM_NEVER_NS;
	c->stall_ns = p->network_stall_timeout * MKV_NS_PER_US;
	c->accepted = p->storage_durability == MKV_DURABILITY_ACCEPTED;
	c->verify_put = p->integrity_verify_put != MKV_VERIFY_PUT_OFF;
}

static int
room_reload(struct room *m, struct mkv_worker *w)
{
	struct mkv_front_conf c = { 0 };

	conf_times(w->params, &c);
	if (m->f != NULL)
		mkv_front_reload(m->f, &c);
	return (0);
}

static int
front_message(struct mkv_worker *w, const Mkv__Ctl__Control *c, int *fds, unsigned n_fds)
{
	struct room *m = w->room;
	int none = -1;

	switch (c->body_case) {
	case MKV__CTL__CONTROL__BODY_KEY:
		return (room_key_message(m, c->key));
	case MKV__CTL__CONTROL__BODY_STAGE:
		return (room_stage_message(m, w, c->stage, &fds[0]));
	case MKV__CTL__CONTROL__BODY_ARENA:
		return (room_arena_message(m, c->arena, &fds[0]));
	case MKV__CTL__CONTROL__BODY_LISTENER:
		return (room_listener_message(m, &fds[0]));
	case MKV__CTL__CONTROL__BODY_DOOR:	/* core has checked for each message how many come with it; this one has one or none */
		return (room_door_message(m, w, c->door, n_fds > 0 ? &fds[0] : &none));
	case MKV__CTL__CONTROL__BODY_POOL_MAP:
		return (room_map_message(m, c->pool_map));
	case MKV__CTL__CONTROL__BODY_PEER_DRAINED:
		return (room_drained_message(m, c->peer_drained));
	case MKV__CTL__CONTROL__BODY_REGION_DONE:
		if (m->f != NULL)
			mkv_front_lent(m->f, c->region_done->drive, c->region_done->epoch, c->region_done->region, c->region_done->drop, c->region_done->status);
		return (0);
	case MKV__CTL__CONTROL__BODY_CONFIGURE:
		return (room_reload(m, w));
	default:
		return (MKV_E_PROTO);
	}
}

/* ---- Drives ---------------------------------------------------------------------------------------------------------------- */

static int
front_push(void *arg, uint32_t drive, const struct mkv_desc *d)
{
	struct mkv_worker *w = arg;
	struct mkv_peer *p = mkv_worker_peer(w, MKV__CTL__PEER_KIND__PEER_DRIVE, drive);

	return (p != NULL ? mkv_peer_push(w, p, d) : MKV_E_CLOSED);
}

static int
front_lend(void *arg, uint32_t drive, uint32_t epoch, uint32_t region, uint64_t bytes, int fd)
{
	Mkv__Ctl__Region m = MKV__CTL__REGION__INIT;

	m.drive = drive;
	m.epoch = epoch;
	m.region = region;
	m.bytes = bytes;
	m.drop = fd < 0;
	return (mkv_worker_region(arg, &m, fd));
}

static int
peer_is_drive(const struct mkv_peer *p)
{
	return (p->kind == MKV__CTL__PEER_KIND__PEER_DRIVE && p->index < MKV_FRONT_DRIVES_MAX);
}

static void
front_peer_up(struct mkv_worker *w, struct mkv_peer *p)
{
	struct room *m = w->room;

	if (m->f != NULL && peer_is_drive(p))
		mkv_front_drive_up(m->f, p->index, p->epoch);
}

static void
front_peer_down(struct mkv_worker *w, struct mkv_peer *p, uint32_t epoch, int restarting)
{
	struct room *m = w->room;

	(void)restarting;	/* the pool map says where requests go */
	if (m->f != NULL && peer_is_drive(p))
		mkv_front_drive_down(m->f, p->index, epoch);
}

static int
front_desc(struct mkv_worker *w, struct mkv_peer *p, const struct mkv_desc *d)
{
	struct room *m = w->room;

	return (m->f != NULL && peer_is_drive(p) ? mkv_front_desc(m->f, p->index, d) : MKV_E_PEER);
}

/* ---- Life ------------------------------------------------------------------------------------------------------------------ */

static int
front_init(struct mkv_worker *w)
{
	w->room = &room;
	room.stage_fd = room.door = -1;
	for (unsigned i = 0; i < MKV_FRONT_DRIVES_MAX; i++)
		room.arena[i].fd = -1;
	mkv_crc_init();
	if (mkv_auth_init() != 0)
		return (mkv_worker_fail(w, 1, "OpenSSL has no usable HMAC-SHA256"));
	return (0);
}

static void
front_conf(struct mkv_worker *w, const struct room *m, struct mkv_front_conf *c)
{
	const struct mkv_params *p = w->params;
	uint32_t slots = mkv_stage_slot_count(m->stage);

	memset(c, 0, sizeof(*c));
	c->front_id = w->front_id;
	c->rail = (uint16_t)w->rail;
	c->epoch = w->epoch;
	memcpy(c->server_id, w->server_id, sizeof(c->server_id));
	memcpy(c->store_secret, w->store_secret, sizeof(c->store_secret));
	if (mkv_key_host(c->host_id) == 0)	/* else nobody can tell that he is on this host */
		memcpy(c->local_path, w->local_path, sizeof(c->local_path));
	c->connections_max = p->network_max_connections;
	c->inflight_max = p->network_max_inflight;
	/* Twice: while some receive or are answered, others have the slots. */
	c->requests_max = 2 * slots;
	c->regions_bytes = m->is_local ? p->local_region_max : 0;
	c->part_bytes = (uint32_t)MKV_MIN(p->storage_block_size, (uint64_t)MKV_EXTENT_MAX);
	conf_times(p, c);
	c->memory_mode = p->storage_mode == MKV_STORAGE_MEMORY;
	c->push = front_push;
	c->lend = w->kind == MKV__CTL__KIND__KIND_FRONT_LOCAL ? front_lend : NULL;
	c->arg = w;
}

/* What came before there was a front. */
static int
front_catch_up(struct mkv_worker *w, struct room *m)
{
	int r = 0;

	for (unsigned i = 0; i < m->n_keys && r == 0; i++)
		r = mkv_front_key(m->f, m->key[i].id, m->key[i].key, m->key[i].dev, 0);
	mkv_wipe(m->key, sizeof(m->key));
	for (uint32_t i = 0; i < MKV_FRONT_DRIVES_MAX && r == 0; i++) {
		if (m->arena[i].fd >= 0) {
			r = mkv_front_arena(m->f, i, m->arena[i].fd, m->arena[i].bytes);
			close(m->arena[i].fd);
			m->arena[i].fd = -1;
		}
		if (m->drained[i] != 0)
			mkv_front_drive_drained(m->f, i, m->drained[i]);
	}
	for (unsigned i = 0; i < w->n_peers && r == 0; i++)
		if (peer_is_drive(w->peer[i]) && w->peer[i]->up)
			mkv_front_drive_up(m->f, w->peer[i]->index, w->peer[i]->epoch);
	if (r == 0)
		r = mkv_front_map(m->f, m->map_version, m->map, m->n_map);
	for (unsigned i = 0; i < m->n_listeners && r == 0; i++)
		r = mkv_front_listen(m->f, MKV_FD(m->listener[i]));
	for (unsigned i = 0; i < m->n_rails; i++) {
		r = r != 0 ? r : mkv_front_rail(m->f, &m->rail[i].row, m->rail[i].door);
		m->rail[i].door = -1;
	}
	return (r);
}

/* Of an RDMA front: its device is opened, its port described. Clients are told what stands in *row when the supervisor has it from READY. */
static int
room_rail_open(struct mkv_worker *w, struct room *m, struct mkv_wire_rail *row)
{
	int file, r;

	if (m->door < 0)
		return (mkv_worker_fail(w, 1, "no door came"));
	if ((r = mkv_rail_begin(w, m->f, row)) != 0 || (r = mkv_front_rail(m->f, row, -1)) != 0)
		return (r);
	if ((file = mkv_ioq_register_file(w->q, m->door)) < 0)
		return (file);
	mkv_front_door(m->f, m->door, file);
	m->door = -1;
	return (0);
}

static int
front_start(struct mkv_worker *w)
{
	struct mkv_ioq_opts q = { .kind = MKV_IOQ_AUTO, .entries = 1024 };
	Mkv__Ctl__Ready ready = MKV__CTL__READY__INIT;
	Mkv__Ctl__Rail rail = MKV__CTL__RAIL__INIT;
	struct mkv_wire_rail row = { 0 };
	struct room *m = w->room;
	struct mkv_front_conf c;
	int r;

	if (m->stage_fd < 0)
		return (mkv_worker_fail(w, 1, "no staging segment came"));
	if ((r = mkv_stage_open(&m->stage, m->stage_fd, 1, m->stage_huge)) != 0)
		return (mkv_worker_fail(w, 0, "staging segment: %s", mkv_err(r)));
	front_conf(w, m, &c);
	q.depth_max = mkv_front_depth(&c);
	if (w->params->storage_io == MKV_STORAGE_IO_THREADS)
		q.kind = MKV_IOQ_POLL;
	if ((r = mkv_worker_open_queue(w, &q, mkv_front_timers(&c))) != 0)
		return (mkv_worker_fail(w, 0, "queue: %s", mkv_err(r)));
	if ((r = mkv_front_create(&m->f, &c, w->q, &w->timers, m->stage, w->metrics)) != 0)
		return (mkv_worker_fail(w, 0, "front: %s", mkv_err(r)));
	mkv_wipe(&c, sizeof(c));
	if (w->rail != 0) {
		if ((r = room_rail_open(w, m, &row)) != 0)
			return (w->state == MKV_WORKER_ENDED ? r : mkv_worker_fail(w, 0, "%s: %s", w->device, mkv_err(r)));
		mkv_rail_message(&rail, &row);
		ready.rail = &rail;
	}
	if ((r = front_catch_up(w, m)) != 0)
		return (mkv_worker_fail(w, 0, "front: %s", mkv_err(r)));
	mkv_metric_set(w->metrics, MKV_M_front_start_time_seconds, 0, mkv_wall_ms() / 1000);
	mkv_worker_jail(w, MKV_IOQ_MAY_SOCKET | (w->rail != 0 ? mkv_rail_may() : 0));
	if (w->rail != 0)
		mkv_rail_watch(w);
	mkv_front_start(m->f);
	mkv_worker_ready(w, &ready);
	return (0);
}

static void
front_turn(struct mkv_worker *w, uint64_t now_ns)
{
	struct room *m = w->room;

	m->more = mkv_front_turn(m->f) != 0;
	if (now_ns - m->gauges_ns >= ROOM_GAUGES_NS) {
		m->gauges_ns = now_ns;
		mkv_front_gauges(m->f);
		mkv_metric_add(w->metrics, MKV_M_front_bell_calls_total, 0, w->bell_calls - m->bell_calls_told);
		m->bell_calls_told = w->bell_calls;
	}
	if (w->rail != 0)
		mkv_rail_look(w);
	if (w->state == MKV_WORKER_STOPPING && mkv_front_idle(m->f)) {
		mkv_front_gauges(m->f);
		mkv_worker_stopped(w);
	}
}

/* More to do than one turn should take: come back at once. */
static int
front_may_sleep(struct mkv_worker *w)
{
	struct room *m = w->room;

	return (!m->more && mkv_front_may_sleep(m->f));
}

/* The supervisor, if it is there, still has them for our next life; if it is not, the next server wants the port. */
static void
room_close_listeners(struct room *m)
{
	for (unsigned i = 0; i < m->n_listeners; i++)
		close(m->listener[i]);
	m->n_listeners = 0;
}

static void
front_stop(struct mkv_worker *w, uint64_t grace_ms)
{
	struct room *m = w->room;

	mkv_front_stop(m->f, grace_ms * MKV_NS_PER_MS);	/* takes back what waits on them */
	room_close_listeners(m);
}

static void
front_fini(struct mkv_worker *w)
{
	struct room *m = w->room;

	mkv_rail_end();
	mkv_front_destroy(&m->f);
	mkv_stage_close(&m->stage);
	room_close_listeners(m);
	for (unsigned i = 0; i < m->n_rails; i++)
		if (m->rail[i].door >= 0)
			close(m->rail[i].door);
	if (m->door >= 0)
		close(m->door);
	if (m->stage_fd >= 0)
		close(m->stage_fd);
}

static const struct mkv_worker_ops front_ops = {
	.program = "memkv-front",
	.init = front_init,
	.message = front_message,
	.start = front_start,
	.peer_up = front_peer_up,
	.peer_down = front_peer_down,
	.desc = front_desc,
	.turn = front_turn,
	.may_sleep = front_may_sleep,
	.stop = front_stop,
	.fini = front_fini,
};

int
main(int argc, char **argv)
{
	return (mkv_worker_main(argc, argv, &front_ops));
}
