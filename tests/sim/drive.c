/*
 * A drive's process (sim.h): an engine, who talks to it, its starts and ends. What worker/drive/fronts.c and main.c do, without a process.
 *
 * Its medium's lock is modelled by what it is there for: the next process opens the store when no operation of the last one is under way any more.
 * open and close run the world's events while they wait (drive_pump), so all others go on; a death meanwhile ends them with MKV_E_CANCELLED.
 */
#include "config.h"

#include "tests/sim/sim.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/base/assert.h"
#include "common/base/err.h"
#include "common/base/os.h"

/* Sent by or meant for a life that is over? */
static int
drive_is(const struct sim_drive *d, uint64_t life)
{
	return (d->life == (uint32_t)life);
}

static int
drive_ends(const struct sim_drive *d)
{
	return (d->ending || (d->disk != NULL && d->disk->dead));
}

/* ---- The engine's world ----------------------------------------------------------------------------------------------------- */

static void
drive_on_reply(void *arg, const struct mkv_call *call, const struct mkv_drv_rep *rep)
{
	struct sim_drive *d = arg;
	struct sim_client_slot *c = &d->client[call->client];
	struct sim_front *f = &sim->front[c->front];
	struct mkv_desc desc = { .op = rep->op, .slot_idx = call->slot_idx, .gen = call->gen, .status = rep->status };

	sim_step((int)d->index);
	if (drive_ends(d))
		return;
	SIM_CHECK(c->used && !c->dying, "drive %u answers a front that is gone", d->index);
	memcpy((uint8_t *)mkv_stage_slot(f->view, call->slot_idx) + MKV_STAGE_SLOT_BYTES / 2, rep, sizeof(*rep));
	front_desc(f, c->life, d, &desc);
}

static void *
drive_on_buffer(void *arg, uint32_t client, uint64_t off, uint64_t bytes, int *buf_idx)
{
	struct sim_drive *d = arg;

	*buf_idx = -1;
	return (mkv_stage_data(sim->front[d->client[client].front].view, off, bytes));
}

struct drive_peer_msg {
	unsigned	from, to;
	uint32_t	from_life, to_life;
	struct mkv_desc	d;
};

static void
drive_peer_in(void *arg, uint64_t n)
{
	struct drive_peer_msg *m = arg;
	struct sim_drive *to = &sim->drive[m->to];

	(void)n;
	if (drive_is(to, m->to_life) && to->state == DRIVE_UP && drive_is(&sim->drive[m->from], m->from_life)) {
		mkv_engine_peer(to->e, m->from, &m->d);
		drive_wake(to);
	}
	free(m);
}

static void
drive_on_peer(void *arg, uint32_t drive, const struct mkv_desc *desc)
{
	struct sim_drive *d = arg;

	for (unsigned i = 0; i < sim->c.drives; i++) {
		struct drive_peer_msg *m;

		if (i == d->index || (drive != MKV_ENGINE_ALL_DRIVES && drive != i) || sim->drive[i].state != DRIVE_UP || drive_ends(d))
			continue;
		sim_step((int)d->index);
		if (drive_ends(d) || sim_chance(sim->c.peer_loss_pct, 100))
			continue;
		m = malloc(sizeof(*m));
		SIM_CHECK(m != NULL, "no memory");
		*m = (struct drive_peer_msg){ d->index, i, d->life, sim->drive[i].life, *desc };
		sim_in(sim_between(1 * US, 100 * US), drive_peer_in, m, 0);
	}
}

/* Nothing of a front's former lives is under way here: not while one of them still is. */
static void
drive_say_drained(struct sim_drive *d, unsigned front)
{
	if (drive_ends(d))
		return;
	for (unsigned i = 0; i < MKV_ENGINE_CLIENTS_MAX; i++)
		if (d->client[i].used && d->client[i].dying && d->client[i].front == front)
			return;
	server_drive_drained_front(front, d->index, d->front_gone[front]);
}

static void
drive_on_client_done(void *arg, uint32_t client)
{
	struct sim_drive *d = arg;
	unsigned front = d->client[client].front;

	memset(&d->client[client], 0, sizeof(d->client[client]));
	drive_say_drained(d, front);
}

static void
drive_on_readonly(void *arg, const char *why)
{
	struct sim_drive *d = arg;

	d->readonly = 1;
	sim_trace("drive %u: read-only: %s", d->index, why);
}

static void
drive_on_purged(void *arg, uint64_t id, int err, uint64_t objects, uint64_t bytes)
{
	(void)objects;
	(void)bytes;
	purge_answer(arg, id, err);
}

static int
drive_pump(void *arg)
{
	struct sim_drive *d = arg;
	uint32_t life = d->life;
	int n = 0;

	if (drive_ends(d) || d->state == DRIVE_DOWN)
		return (MKV_E_CANCELLED);
	if (d->disk == NULL)
		n = d->media->ops->pump(d->media, 0);
	if (n == 0) {
		SIM_CHECK(sim_run_one(), "drive %u waits and nothing will happen", d->index);
	}
	return (d->life != life || drive_ends(d) ? MKV_E_CANCELLED : 1);
}

static const struct mkv_engine_ops drive_ops = {
	.reply = drive_on_reply, .buffer = drive_on_buffer, .peer = drive_on_peer, .client_done = drive_on_client_done,
	.purged = drive_on_purged, .readonly = drive_on_readonly, .pump = drive_pump,
};

/* ---- Its turn --------------------------------------------------------------------------------------------------------------- */

/* 0, MKV_E_AGAIN: the engine is full. */
static int
drive_submit(struct sim_drive *d, uint32_t client, const struct mkv_desc *desc)
{
	struct mkv_call call = { client, desc->slot_idx, desc->gen };
	struct mkv_drv_req q;

	memcpy(&q, mkv_stage_slot(sim->front[d->client[client].front].view, desc->slot_idx), sizeof(q));
	SIM_CHECK(q.op == desc->op, "slot %u was changed after it had been given to drive %u", desc->slot_idx, d->index);
	scrub_put(&q);
	return (mkv_engine_submit(d->e, &call, &q));
}

/* As drive_fronts_turn(): how many were taken up. */
static unsigned
drive_backlog(struct sim_drive *d)
{
	unsigned n = 0;

	while (d->wait_count > 0) {
		struct sim_wait *w = &d->wait[d->wait_head];

		if (drive_submit(d, w->client, &w->desc) != 0)
			break;
		d->wait_head = (d->wait_head + 1) % SIM_BACKLOG;
		d->wait_count--;
		n++;
	}
	return (n);
}

static void	drive_close(struct sim_drive *d);

static void
drive_step(void *arg, uint64_t gen)
{
	struct sim_drive *d = arg;
	uint64_t next;

	if (gen != d->step_gen || (d->state != DRIVE_UP && d->state != DRIVE_STOPPING) || drive_ends(d))
		return;
	d->step_at = UINT64_MAX;
	(void)drive_backlog(d);
	next = mkv_engine_step(d->e);
	if (drive_backlog(d) > 0)
		next = 0;
	if (drive_ends(d))
		return;
	if (d->state == DRIVE_STOPPING && mkv_engine_busy(d->e) == 0 && d->wait_count == 0) {
		drive_close(d);
		return;
	}
	if (next != UINT64_MAX && next < d->step_at) {
		d->step_at = next < sim->now ? sim->now : next;
		sim_at(d->step_at, drive_step, d, ++d->step_gen);
	}
}

void
drive_wake(struct sim_drive *d)
{
	uint64_t at = sim->now + sim_between(0, 5 * US);

	if ((d->state != DRIVE_UP && d->state != DRIVE_STOPPING) || d->step_at <= at)
		return;
	d->step_at = at;
	sim_at(at, drive_step, d, ++d->step_gen);
}

/* ---- Fronts ----------------------------------------------------------------------------------------------------------------- */

void
drive_front_up(struct sim_drive *d, struct sim_front *f)
{
	for (unsigned i = 0; i < MKV_ENGINE_CLIENTS_MAX; i++) {
		if (d->client[i].used)
			continue;
		d->client[i] = (struct sim_client_slot){ .used = 1, .front = f->index, .life = f->life };
		return;
	}
	sim_fail("no room for another front");
}

static int
drive_client(const struct sim_drive *d, unsigned front, uint32_t life)
{
	for (int i = 0; i < (int)MKV_ENGINE_CLIENTS_MAX; i++)
		if (d->client[i].used && !d->client[i].dying && d->client[i].front == front && d->client[i].life == life)
			return (i);
	return (-1);
}

void
drive_front_down(struct sim_drive *d, unsigned front, uint32_t life)
{
	int i = drive_client(d, front, life);
	unsigned n = d->wait_count, keep = 0;

	d->front_gone[front] = life;
	if (i < 0) {
		drive_say_drained(d, front);
		return;
	}
	for (unsigned k = 0; k < n; k++) {
		struct sim_wait w = d->wait[(d->wait_head + k) % SIM_BACKLOG];

		if (w.client != (uint32_t)i)
			d->wait[(d->wait_head + keep++) % SIM_BACKLOG] = w;
	}
	d->wait_count = keep;
	d->client[i].dying = 1;
	if (d->e != NULL && (d->state == DRIVE_UP || d->state == DRIVE_STOPPING)) {
		mkv_engine_client_gone(d->e, (uint32_t)i);
		drive_wake(d);
	} else
		drive_on_client_done(d, (uint32_t)i);
}

void
drive_desc(struct sim_drive *d, struct sim_front *f, uint32_t front_life, const struct mkv_desc *desc)
{
	int i = drive_client(d, f->index, front_life);

	if (i < 0 || (d->state != DRIVE_UP && d->state != DRIVE_STOPPING) || drive_ends(d))
		return;
	drive_wake(d);
	if (desc->op == MKV_DRV_RELEASE) {
		mkv_engine_release(d->e, (uint32_t)i, desc->arg[0], desc->arg[1]);
		return;
	}
	if (d->wait_count == 0 && drive_submit(d, (uint32_t)i, desc) == 0)
		return;
	SIM_CHECK(d->wait_count < SIM_BACKLOG, "a front has more requests under way than it can");
	d->wait[(d->wait_head + d->wait_count++) % SIM_BACKLOG] = (struct sim_wait){ (uint32_t)i, *desc };
}

int
drive_idle(const struct sim_drive *d)
{
	return (d->state == DRIVE_FAILED || (d->state == DRIVE_UP && mkv_engine_busy(d->e) == 0 && scrub_idle(d) && d->wait_count == 0 &&
	    (d->disk == NULL || d->disk->in_flight == 0)));
}

/* ---- Life ------------------------------------------------------------------------------------------------------------------- */

static void
drive_cut(void *arg, uint64_t life)
{
	struct sim_drive *d = arg;

	if (!drive_is(d, life))
		return;
	if (sim_chance(sim->c.power_cut, sim->c.power_cut + sim->c.drive_kill + 1))
		server_power_cut();
	else
		server_kill_drive(d->index);
}

static void
drive_on_cut(void *arg)
{
	struct sim_drive *d = arg;

	sim->stat_cuts++;
	sim_trace("drive %u: ends between two transfers", d->index);
	sim_at(sim->now, drive_cut, d, d->life);
}

static void	drive_open(void *arg, uint64_t life);

static void
drive_on_idle(void *arg)
{
	struct sim_drive *d = arg;

	if (d->state == DRIVE_LOCK)
		sim_in(sim_between(10 * US, 1 * MS), drive_open, d, d->life);
}

static int
drive_shared(void *arg, const void *p)
{
	(void)arg;
	for (unsigned i = 0; i < sim->c.fronts; i++) {
		uint64_t bytes;
		uint8_t *base = mkv_stage_base(sim->front[i].view, &bytes);

		if ((const uint8_t *)p >= base && (const uint8_t *)p < base + bytes)
			return (1);
	}
	return (0);
}

static void
drive_fill_opts(struct sim_drive *d)
{
	d->o = (struct mkv_engine_opts){
		.media = d->media, .clock = &mkv_clock_os, .ops = &drive_ops, .arg = d, .name = "sim", .epoch = d->epoch, .drive_idx = d->index,
		.may_format = 1, .extent_bytes = SIM_EXTENT, .journal_bytes = sim->c.journal_bytes, .objects_max = sim->c.objects_max,
		.queue_depth = sim->c.queue_depth, .page_cache_bytes = sim->c.page_cache_bytes, .accepted_window_ns = 50 * MS,
		.accepted_window_bytes = 64u << 20, .audit_interval_ns = sim->c.audit_ns, .set_step = sim->c.set_step, .evict = sim->c.evict,
		.evict_high_pct = sim->c.evict_high, .evict_low_pct = sim->c.evict_low,
		.trim = sim->c.trim_wait_ns != 0, .trim_wait_ns = sim->c.trim_wait_ns, .scrub_rate = sim->c.scrub_rate, .scrub_interval_ns = 2 * SEC,
	};
	memcpy(d->o.drive_uuid, d->uuid, sizeof(d->uuid));
	memcpy(d->o.store_secret, sim->secret, sizeof(sim->secret));
}

static void
drive_open(void *arg, uint64_t life)
{
	struct sim_drive *d = arg;
	struct mkv_engine *e;
	uint32_t seen;
	char why[512];
	int r;

	if (!drive_is(d, life) || d->state != DRIVE_LOCK)
		return;
	d->state = DRIVE_OPENING;
	d->readonly = 0;
	server_drained_own(d);
	if (d->disk != NULL)
		d->media = disk_open(d->disk);
	else if (d->media == NULL)
		SIM_CHECK(mkv_media_memory_open(&d->media, d->arena_fd, d->arena_bytes, d->meta_fd, d->meta_bytes) == 0, "no arena");
	drive_fill_opts(d);
	if (d->disk != NULL && sim_chance(sim->c.cut_at_io, 1000) && !sim->resting)
		d->disk->cut_after = 1 + sim_below(40);
	sim_trace("drive %u: opens, life %u", d->index, d->life);
	d->pumping++;
	r = mkv_engine_open(&e, &d->o, &seen, why, sizeof(why));
	d->pumping--;
	sim_trace("drive %u: open of life %u is over: %s", d->index, (unsigned)life, mkv_err(r));
	if (r == MKV_E_CANCELLED || !drive_is(d, life)) {
		SIM_CHECK(r != 0, "drive %u opened its store after its death", d->index);
		return;
	}
	if (r != 0) {
		sim_trace("drive %u: %s (%s)", d->index, why, mkv_err(r));
		SIM_CHECK(d->disk != NULL && d->disk->faults + d->disk->flips > 0, "drive %u cannot open its store: %s", d->index, why);
		d->failures++;
		server_kill_drive(d->index);
		return;
	}
	d->e = e;
	if (drive_ends(d))
		return;				/* its end is an event that is to come */
	d->state = DRIVE_UP;
	d->failures = 0;
	sim->harm_ns = MKV_MAX(sim->harm_ns, sim->now);
	d->step_at = UINT64_MAX;
	sim_trace("drive %u: up, epoch %u", d->index, d->epoch);
	server_drive_up(d);
	drive_wake(d);
}

void
drive_start(struct sim_drive *d)
{
	SIM_CHECK(d->state == DRIVE_DOWN, "drive %u is started twice", d->index);
	d->state = DRIVE_LOCK;
	d->life++;
	d->epoch = ++sim->epoch;
	if (d->disk == NULL || d->disk->orphans == 0)
		sim_in(sim_between(10 * US, 1 * MS), drive_open, d, d->life);
}

/* All answers are out: checkpoint, clean mark, the end. */
static void
drive_close(struct sim_drive *d)
{
	uint32_t life = d->life;
	struct mkv_engine *e = d->e;
	int r;

	d->state = DRIVE_CLOSING;
	d->e = NULL;
	d->pumping++;
	r = mkv_engine_close(&e, 0);
	d->pumping--;
	if (d->life != life || drive_ends(d))
		return;
	SIM_CHECK(r == 0 || (d->disk != NULL && d->disk->faults > 0), "drive %u: last checkpoint: %s", d->index, mkv_err(r));
	sim_trace("drive %u: stopped", d->index);
	if (d->disk != NULL && d->disk->in_flight > 0)
		disk_orphan(d->disk);
	mkv_media_close(d->disk == NULL ? &d->media : &(struct mkv_media *){ NULL });
	memset(d->client, 0, sizeof(d->client));
	d->life++;
	d->state = DRIVE_DOWN;
}

void
drive_stop(struct sim_drive *d)
{
	if (d->state != DRIVE_UP)
		return;
	d->state = DRIVE_STOPPING;
	mkv_engine_sync(d->e);
	d->step_at = sim->now;
	sim_at(sim->now, drive_step, d, ++d->step_gen);
}

void
drive_die(struct sim_drive *d)
{
	sim->died_ns = sim->now;
	d->ending = 0;
	d->life++;
	d->state = DRIVE_DOWN;
	d->step_gen++;
	d->step_at = UINT64_MAX;
	d->wait_head = d->wait_count = 0;
	if (d->disk != NULL)
		disk_orphan(d->disk);
	/* While open or close runs it is theirs, and they see that it is over. */
	if (d->e != NULL)
		(void)mkv_engine_close(&d->e, 1);
	if (d->disk == NULL)
		mkv_media_close(&d->media);
	memset(d->client, 0, sizeof(d->client));
}

void
drive_create(struct sim_drive *d, unsigned i)
{
	memset(d, 0, sizeof(*d));
	d->index = i;
	d->arena_fd = d->meta_fd = -1;
	rnd_fill(&sim->rnd, d->uuid, sizeof(d->uuid));
	if (!sim->c.memory_mode) {
		d->disk = disk_create(sim->c.medium_bytes, &sim->c.disk);
		d->disk->on_cut = drive_on_cut;
		d->disk->on_idle = drive_on_idle;
		d->disk->shared = drive_shared;
		d->disk->arg = d;
		d->disk->may_discard = sim->c.trim_wait_ns != 0;
	}
}

void
drive_destroy(struct sim_drive *d)
{
	if (d->e != NULL)
		(void)mkv_engine_close(&d->e, 1);
	if (d->disk == NULL)
		mkv_media_close(&d->media);
	disk_destroy(&d->disk);
	if (d->arena_fd >= 0)
		close(d->arena_fd);
	if (d->meta_fd >= 0)
		close(d->meta_fd);
}
