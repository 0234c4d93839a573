/*
 * The supervisor (sim.h): starts, deaths, epochs, the map of drives, and who may use again what a dead process had. The rules are those of
 * supervisor/peers.c: the epoch rises at each start; what was given to a life was given under an epoch below that of the next one.
 */
#include "config.h"

#include "tests/sim/sim.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/base/assert.h"
#include "common/base/os.h"
#include "tests/sim/net.h"

#define DRIVE_TRIES	5		/* starts that fail until it is FAILED */

static struct {
	uint32_t	front_drained[SIM_DRIVES][SIM_FRONTS];
	uint32_t	front_died[SIM_FRONTS];
	uint32_t	front_life_died[SIM_FRONTS];
	uint32_t	drive_died[SIM_DRIVES];
	uint64_t	last_msg[SIM_FRONTS];	/* control messages keep their order */
	int		stopping;
} sv;

/* ---- Messages to fronts ----------------------------------------------------------------------------------------------------- */

enum { MSG_DOWN, MSG_DRAINED, MSG_UP };

struct server_msg {
	unsigned	front, drive, what;
	uint32_t	front_life, drive_life, epoch;
};

static void
server_msg_in(void *arg, uint64_t n)
{
	struct server_msg m = *(struct server_msg *)arg;
	struct sim_front *f = &sim->front[m.front];

	(void)n;
	free(arg);
	if (!f->alive || f->life != m.front_life)
		return;
	switch (m.what) {
	case MSG_DOWN:
		f->ring_life[m.drive] = 0;
		mkv_front_drive_down(f->f, m.drive, m.epoch);
		break;
	case MSG_DRAINED:
		mkv_front_drive_drained(f->f, m.drive, m.epoch);
		break;
	default:
		/* Rings of a life that ended meanwhile: its death is on the way. */
		f->ring_life[m.drive] = m.drive_life;
		mkv_front_drive_up(f->f, m.drive, m.epoch);
		break;
	}
	front_wake(f);
}

static void
server_tell(struct sim_front *f, unsigned drive, unsigned what, uint32_t epoch)
{
	uint64_t at = MKV_MAX(sim->now + sim_between(10 * US, 300 * US), sv.last_msg[f->index]);
	struct server_msg *m;

	if (!f->alive)
		return;
	m = malloc(sizeof(*m));
	SIM_CHECK(m != NULL, "no memory");
	*m = (struct server_msg){ f->index, drive, what, f->life, sim->drive[drive].life, epoch };
	sv.last_msg[f->index] = at;
	sim_at(at, server_msg_in, m, 0);
}

void
server_map(void)
{
	struct mkv_front_drive row[SIM_DRIVES];

	for (unsigned i = 0; i < sim->c.drives; i++) {
		struct sim_drive *d = &sim->drive[i];

		row[i] = (struct mkv_front_drive){ .index = i, .weight = 1.0 };
		memcpy(row[i].uuid, d->uuid, sizeof(d->uuid));
		row[i].state = d->state == DRIVE_FAILED ? MKV_DRIVE_FAILED : d->state == DRIVE_UP ? MKV_DRIVE_ONLINE : MKV_DRIVE_RESTARTING;
	}
	for (unsigned i = 0; i < sim->c.fronts; i++) {
		if (!sim->front[i].alive)
			continue;
		SIM_CHECK(mkv_front_map(sim->front[i].f, sim->map_version, row, sim->c.drives) == 0, "the map is refused");
		front_wake(&sim->front[i]);
	}
}

/* ---- Drained ---------------------------------------------------------------------------------------------------------------- */

void
server_drive_drained_front(unsigned front, unsigned drive, uint32_t life)
{
	uint32_t *have = &sv.front_drained[drive][front];

	/* An older death was told by the newer one's. */
	if (life != sv.front_life_died[front] || *have >= sv.front_died[front])
		return;
	*have = sv.front_died[front];
	sim_trace("drive %u: nothing of front %u is under way", drive, front);
	server_tell(&sim->front[front], drive, MSG_DRAINED, *have);
}

void
server_drained_own(struct sim_drive *d)
{
	for (unsigned i = 0; i < sim->c.fronts; i++) {
		sv.front_drained[d->index][i] = MKV_MAX(sv.front_drained[d->index][i], d->epoch - 1);
		server_tell(&sim->front[i], d->index, MSG_DRAINED, sv.front_drained[d->index][i]);
	}
}

void
server_drive_up(struct sim_drive *d)
{
	for (unsigned i = 0; i < sim->c.fronts; i++) {
		if (!sim->front[i].alive)
			continue;
		drive_front_up(d, &sim->front[i]);
		server_tell(&sim->front[i], d->index, MSG_UP, d->epoch);
	}
}

/* ---- Deaths and starts ------------------------------------------------------------------------------------------------------ */

static void
server_start_drive(void *arg, uint64_t life)
{
	struct sim_drive *d = arg;

	if (sim->power && !sv.stopping && d->state == DRIVE_DOWN && d->life == (uint32_t)life)
		drive_start(d);
}

void
server_kill_drive(unsigned i)
{
	struct sim_drive *d = &sim->drive[i];

	if (d->state == DRIVE_DOWN || d->state == DRIVE_FAILED || !sim->power)
		return;
	sim_trace("drive %u: dies", i);
	sim->harm_ns = MKV_MAX(sim->harm_ns, sim->now);
	sim->stat_kills++;
	drive_die(d);
	model_crashed();
	sv.drive_died[i] = sim->epoch;
	for (unsigned k = 0; k < sim->c.fronts; k++)
		server_tell(&sim->front[k], i, MSG_DOWN, sim->epoch);
	if (d->failures >= DRIVE_TRIES && d->disk != NULL && d->disk->gone) {
		sim_trace("drive %u: has failed", i);
		d->state = DRIVE_FAILED;
		sim->map_version++;
		server_map();
		return;
	}
	sim_in(sim_between(100 * US, d->failures > 3 ? 500 * MS : 20 * MS), server_start_drive, d, d->life);
}

static void
server_start_front(void *arg, uint64_t life)
{
	struct sim_front *f = arg;

	if (!sim->power || sv.stopping || f->alive || f->life != (uint32_t)life)
		return;
	front_start(f);
	server_map();
	for (unsigned i = 0; i < sim->c.drives; i++) {
		struct sim_drive *d = &sim->drive[i];

		if (sv.front_drained[i][f->index] > 0)
			mkv_front_drive_drained(f->f, i, sv.front_drained[i][f->index]);
		if (d->state != DRIVE_UP)
			continue;
		drive_front_up(d, f);
		server_tell(f, i, MSG_UP, f->epoch);
	}
	front_wake(f);
}

static void
server_front_down_in(void *arg, uint64_t n)
{
	struct sim_drive *d = arg;
	unsigned front = n >> 32;
	uint32_t life = (uint32_t)n;

	if (sim->power && (d->state == DRIVE_UP || d->state == DRIVE_STOPPING))
		drive_front_down(d, front, life);
}

static void
server_front_ended(struct sim_front *f)
{
	sv.front_died[f->index] = sim->epoch;
	sv.front_life_died[f->index] = f->life;
	front_die(f);
	net_front_died(f->index);
	for (unsigned i = 0; i < sim->c.drives; i++)
		sim_in(sim_between(10 * US, 300 * US), server_front_down_in, &sim->drive[i],
		    (uint64_t)f->index << 32 | sv.front_life_died[f->index]);
}

void
server_kill_front(unsigned i)
{
	struct sim_front *f = &sim->front[i];

	if (!f->alive || !sim->power)
		return;
	sim_trace("front %u: dies", i);
	sim->harm_ns = MKV_MAX(sim->harm_ns, sim->now);
	sim->stat_kills++;
	server_front_ended(f);
	sim_in(sim_chance(1, 2) ? sim_between(50 * US, 500 * US) : sim_between(1 * MS, 20 * MS), server_start_front, f, f->life);
}

/* ---- All of it -------------------------------------------------------------------------------------------------------------- */

static void
server_arena(struct sim_drive *d)
{
	if (d->arena_fd >= 0)
		close(d->arena_fd);
	if (d->meta_fd >= 0)
		close(d->meta_fd);
	d->arena_bytes = sim->c.medium_bytes;
	d->meta_bytes = 8u << 20;
	d->arena_fd = mkv_os_shm_create("sim-arena", d->arena_bytes, 0);
	d->meta_fd = mkv_os_shm_create("sim-meta", d->meta_bytes, 0);
	SIM_CHECK(d->arena_fd >= 0 && d->meta_fd >= 0, "no memory for an arena");
}

void
server_start(void)
{
	sim->power = 1;
	sv.stopping = 0;
	memset(sv.front_drained, 0, sizeof(sv.front_drained));
	if (sim->c.memory_mode)
		model_wiped();
	for (unsigned i = 0; i < sim->c.drives; i++) {
		if (sim->c.memory_mode)
			server_arena(&sim->drive[i]);
		if (sim->drive[i].state == DRIVE_DOWN)
			drive_start(&sim->drive[i]);
	}
	for (unsigned i = 0; i < sim->c.fronts; i++) {
		front_create(&sim->front[i], i);
		sim_in(sim_between(10 * US, 5 * MS), server_start_front, &sim->front[i], sim->front[i].life);
	}
}

void
server_power_cut(void)
{
	if (!sim->power)
		return;
	sim_trace("the power goes");
	sim->stat_kills++;
	sim->power = 0;
	for (unsigned i = 0; i < sim->c.fronts; i++) {
		if (sim->front[i].alive)
			front_die(&sim->front[i]);
		net_front_died(i);
		front_destroy(&sim->front[i]);
	}
	for (unsigned i = 0; i < sim->c.drives; i++) {
		if (sim->drive[i].state != DRIVE_FAILED)
			drive_die(&sim->drive[i]);
		if (sim->drive[i].disk != NULL)
			disk_power_cut(sim->drive[i].disk);
	}
	model_crashed();
	model_settled();
	sim->on_power();
}

static int
server_all_down(void)
{
	for (unsigned i = 0; i < sim->c.drives; i++)
		if (sim->drive[i].state != DRIVE_DOWN && sim->drive[i].state != DRIVE_FAILED)
			return (0);
	return (1);
}

void
server_stop(void)
{
	uint64_t until = sim->now + 120 * SEC;

	sim_trace("orderly stop");
	sv.stopping = 1;
	for (unsigned i = 0; i < sim->c.fronts; i++)
		if (sim->front[i].alive)
			server_front_ended(&sim->front[i]);
	sim_run_until(sim->now + 5 * MS);
	while (!server_all_down()) {
		for (unsigned i = 0; i < sim->c.drives; i++)
			drive_stop(&sim->drive[i]);
		SIM_CHECK(sim->now < until && sim_run_one(), "the server does not stop");
	}
	sim->power = 0;
	for (unsigned i = 0; i < sim->c.fronts; i++)
		front_destroy(&sim->front[i]);
	model_settled();
}

int
server_all_up(void)
{
	for (unsigned i = 0; i < sim->c.drives; i++)
		if (sim->drive[i].state != DRIVE_UP && sim->drive[i].state != DRIVE_FAILED)
			return (0);
	for (unsigned i = 0; i < sim->c.fronts; i++)
		if (!sim->front[i].alive)
			return (0);
	return (sim->power);
}

void
server_create(void)
{
	memset(&sv, 0, sizeof(sv));
	for (unsigned i = 0; i < sim->c.drives; i++)
		drive_create(&sim->drive[i], i);
	sim->map_version = 1;
}

void
server_destroy(void)
{
	for (unsigned i = 0; i < sim->c.fronts; i++) {
		if (sim->front[i].alive)
			front_die(&sim->front[i]);
		front_destroy(&sim->front[i]);
	}
	for (unsigned i = 0; i < sim->c.drives; i++)
		drive_destroy(&sim->drive[i]);
}
