/*
 * A front's process (sim.h): the real front with simulated sockets (net.c), its staging memory, the rings to the drives. What worker/front/main.c and
 * worker/core do, without a process.
 *
 * A ring is a queue of descriptors that arrive after a moment, in order; it takes FRONT_RING of them. The slot is read by the drive when the descriptor
 * arrives, as it would be.
 */
#include "config.h"

#include "tests/sim/sim.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/base/assert.h"
#include "common/base/err.h"
#include "common/base/os.h"
#include "tests/sim/net.h"
#include "worker/front/front_priv.h"

#define FRONT_RING	16u

struct front_msg {
	unsigned	front, drive;
	uint32_t	front_life, drive_life;
	struct mkv_desc	d;
};

static struct front_msg *
front_msg_new(struct sim_front *f, uint32_t life, struct sim_drive *d, const struct mkv_desc *desc)
{
	struct front_msg *m = malloc(sizeof(*m));

	SIM_CHECK(m != NULL, "no memory");
	*m = (struct front_msg){ f->index, d->index, life, d->life, *desc };
	return (m);
}

/* ---- Front to drive --------------------------------------------------------------------------------------------------------- */

static void
front_to_drive(void *arg, uint64_t n)
{
	struct front_msg *m = arg;
	struct sim_front *f = &sim->front[m->front];
	struct sim_drive *d = &sim->drive[m->drive];

	(void)n;
	if (f->alive && f->life == m->front_life) {
		f->in_ring[m->drive]--;
		front_wake(f);
	}
	/* What a front pushed before it died is still there for the drive, until that one hears of the death. */
	if (d->life == m->drive_life)
		drive_desc(d, f, m->front_life, &m->d);
	free(m);
}

static int
front_push(void *arg, uint32_t drive, const struct mkv_desc *desc)
{
	struct sim_front *f = arg;
	struct sim_drive *d = &sim->drive[drive];
	uint64_t at = MKV_MAX(sim->now + sim_between(1 * US, 20 * US), f->last_to[drive]);

	if (f->ring_life[drive] != d->life)
		return (MKV_E_CLOSED);
	if (f->in_ring[drive] >= FRONT_RING)
		return (MKV_E_AGAIN);
	sim_step(STEP_FRONT + (int)f->index);
	if (f->ending)
		return (0);
	f->in_ring[drive]++;
	f->last_to[drive] = at;
	sim_at(at, front_to_drive, front_msg_new(f, f->life, d, desc), 0);
	return (0);
}

/* ---- Drive to front --------------------------------------------------------------------------------------------------------- */

static void
front_from_drive(void *arg, uint64_t n)
{
	struct front_msg *m = arg;
	struct sim_front *f = &sim->front[m->front];

	(void)n;
	/* The answers of a drive that died are there as long as its ring. */
	if (f->alive && f->life == m->front_life && f->ring_life[m->drive] == m->drive_life) {
		SIM_CHECK(mkv_front_desc(f->f, m->drive, &m->d) == 0, "front %u refuses an answer of drive %u to op %u", f->index, m->drive, m->d.op);
		front_wake(f);
	}
	free(m);
}

void
front_desc(struct sim_front *f, uint32_t life, struct sim_drive *d, const struct mkv_desc *desc)
{
	uint64_t at = MKV_MAX(sim->now + sim_between(1 * US, 20 * US), f->last_from[d->index]);

	f->last_from[d->index] = at;
	sim_at(at, front_from_drive, front_msg_new(f, life, d, desc), 0);
}

/* ---- Its turn --------------------------------------------------------------------------------------------------------------- */

static void
front_turn(void *arg, uint64_t gen)
{
	struct sim_front *f = arg;
	uint64_t next;

	if (!f->alive || gen != f->turn_gen)
		return;
	f->turn_at = UINT64_MAX;
	(void)net_queue_run(f->q);
	(void)mkv_timers_run(&f->timers, sim->now);
	if (mkv_front_turn(f->f) > 0)
		front_wake(f);
	next = mkv_timers_next_ns(&f->timers);
	if (next < f->turn_at) {
		f->turn_at = MKV_MAX(next, sim->now);
		sim_at(f->turn_at, front_turn, f, ++f->turn_gen);
	}
}

void
front_wake(struct sim_front *f)
{
	uint64_t at = sim->now + sim_between(0, 3 * US);

	if (!f->alive || f->turn_at <= at)
		return;
	f->turn_at = at;
	sim_at(at, front_turn, f, ++f->turn_gen);
}

/* ---- Life ------------------------------------------------------------------------------------------------------------------- */

static void
front_conf(struct sim_front *f)
{
	f->conf = (struct mkv_front_conf){
		.front_id = 5 + f->index, .epoch = f->epoch, .connections_max = 16, .inflight_max = 8, .requests_max = 24, .part_bytes = SIM_EXTENT,
		.handshake_ns = 2 * SEC, .idle_ns = 3600 * SEC, .memory_mode = sim->c.memory_mode, .push = front_push, .arg = f,
		.accepted = sim->c.accepted,
	};
	memcpy(f->conf.store_secret, sim->secret, sizeof(sim->secret));
}

void
front_start(struct sim_front *f)
{
	f->alive = 1;
	f->life++;
	f->epoch = ++sim->epoch;
	f->turn_at = UINT64_MAX;
	memset(f->in_ring, 0, sizeof(f->in_ring));
	memset(f->ring_life, 0, sizeof(f->ring_life));
	front_conf(f);
	SIM_CHECK(mkv_stage_open(&f->stage, f->stage_fd, 1, 0) == 0, "no stage");
	f->q = net_queue_create(f);
	SIM_CHECK(mkv_timers_init(&f->timers, mkv_front_timers(&f->conf)) == 0, "no memory");
	SIM_CHECK(mkv_front_create(&f->f, &f->conf, f->q, &f->timers, f->stage, NULL) == 0, "no front");
	SIM_CHECK(mkv_front_key(f->f, SIM_KEY_ID, sim->key, 0, 0) == 0, "no key");
	for (unsigned i = 0; sim->c.memory_mode && i < sim->c.drives; i++)
		SIM_CHECK(mkv_front_arena(f->f, i, sim->drive[i].arena_fd, sim->drive[i].arena_bytes) == 0, "no arena");
	mkv_front_start(f->f);
	sim_trace("front %u: up, epoch %u", f->index, f->epoch);
	front_wake(f);
}

/* As when the kernel takes a process away: nothing of it runs any more, and its memory goes. */
void
front_die(struct sim_front *f)
{
	f->alive = f->ending = 0;
	f->turn_gen++;
	mkv_timers_fini(&f->timers);
	for (uint32_t i = 0; i < f->conf.connections_max + FRONT_SPARE_CONNS; i++)
		mkv_session_close(&f->f->conns[i].s);
	mkv_front_destroy(&f->f);
	net_queue_destroy(&f->q);
	mkv_stage_close(&f->stage);
}

unsigned
front_home(const struct sim_front *f, struct mkv_digest key)
{
	return ((unsigned)mkv_route_home(f->f, key));
}

void
front_create(struct sim_front *f, unsigned i)
{
	uint32_t life = f->life;
	uint64_t gen = f->turn_gen;

	memset(f, 0, sizeof(*f));
	f->index = i;
	f->life = life + 1;
	f->turn_gen = gen + 1;
	f->stage_fd = mkv_os_shm_create("sim-stage", mkv_stage_bytes(sim->c.stage_bytes, 1u << 20, sim->c.slots), 0);
	SIM_CHECK(f->stage_fd >= 0 && mkv_stage_format(f->stage_fd, sim->c.stage_bytes, 1u << 20, sim->c.slots, 0) == 0, "no stage");
	SIM_CHECK(mkv_stage_open(&f->view, f->stage_fd, 0, 0) == 0, "no stage");
}

void
front_destroy(struct sim_front *f)
{
	if (f->view == NULL)
		return;
	mkv_stage_close(&f->view);
	close(f->stage_fd);
	f->stage_fd = -1;
}
