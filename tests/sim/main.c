/*
 * sim_test [-s SEED] [-n COUNT] [-t] [-v] [-l]: worlds of seeds SEED .. SEED + COUNT - 1, one after the other.
 *
 * -t keeps the last events and shows them with a failure, -v shows all, -l makes leaked units a failure. A failure ends the program with 1; the line that says so begins with
 * FAILED seed=N.
 */
#include "config.h"

#include "tests/sim/sim.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define LEAKS_NS	(40 * SEC)
#define PHASE_MAX_NS	(900 * SEC)
#define DEATHS_MAX	100u			/* of one seed */
#define SEED_SECONDS	60u			/* of real time */

static int	strict_leaks;

/* ---- What a seed is about --------------------------------------------------------------------------------------------------- */

static unsigned
maybe(unsigned pct, unsigned max)
{
	return (sim_chance(pct, 100) ? 1 + sim_below(max) : 0);
}

static void
conf_faults(struct sim_conf *c)
{
	struct disk_faults *f = &c->disk;

	f->sector = sim_chance(1, 2) ? 512 : 4096;
	f->lat_min_ns = 5 * US;
	f->lat_max_ns = sim_chance(1, 4) ? sim_between(1 * MS, 30 * MS) : 200 * US;
	f->hang_ns = sim_between(100 * MS, 10 * SEC);
	f->hang = maybe(15, 5000);
	if (sim_chance(1, 12))
		f->read_error = 1 + sim_below(20000);
	if (sim_chance(1, 12))
		f->write_error = 1 + sim_below(5000);
	if (sim_chance(1, 20))
		f->flush_error = 1 + sim_below(5000);
	if (sim_chance(1, 10))
		f->flip = 1 + sim_below(60);
	c->drive_kill = maybe(50, 60);
	c->front_kill = maybe(40, 40);
	c->power_cut = maybe(40, 30);
	c->cut_at_io = maybe(50, 500);
	c->hangups = maybe(40, 60);
	c->vanish = c->drives > 1 ? maybe(6, 5) : 0;
	c->peer_loss_pct = maybe(15, 20);
	/* The last block of a journal, damaged, and the power gone before its successor was flushed: nobody can tell that from a torn one. */
	if (f->flip > 0)
		c->power_cut = 0;
}

static void
conf_draw(struct sim_conf *c)
{
	memset(c, 0, sizeof(*c));
	c->drives = 1 + sim_below(3);
	c->fronts = 1 + sim_below(2);
	c->clients = 1 + sim_below(8);
	c->keys = 4 + sim_below(40);
	c->ops = 40 + sim_below(160);
	c->phases = 1 + sim_below(3);
	c->memory_mode = sim_chance(1, 6);
	c->evict = sim_chance(1, 2);
	c->evict_high = 97;
	c->evict_low = 95;
	c->audit_ns = SEC;
	c->accepted = sim_chance(1, 10);
	c->medium_bytes = (uint64_t)(c->evict ? 6 + sim_below(12) : 16 + sim_below(32)) << 20;
	c->stage_bytes = (uint64_t)(1 + sim_below(6)) << 20;
	c->slots = sim_chance(1, 3) ? 6 + sim_below(10) : 64;
	c->queue_depth = sim_chance(1, 3) ? 2 + sim_below(6) : 32;
	c->objects_max = sim_chance(1, 4) ? 64 : 512;
	c->journal_bytes = sim_chance(1, 2) ? 128 * 4096 : 512 * 4096;
	c->page_cache_bytes = sim_chance(1, 2) ? 1 : 1u << 20;
	c->pct_multi = maybe(60, 15);
	c->pct_large = maybe(80, 30);
	c->value_max = SIM_EXTENT * (2 + sim_below(4));
	c->pct_ttl = maybe(40, 40);
	c->pct_absent = maybe(50, 40);
	c->pct_accepted = maybe(30, 60);
	c->pct_same = maybe(50, 30);
	c->pct_pin = maybe(20, 8);
	c->pct_collide = maybe(40, 80);
	c->restart = sim_below(3);
	c->set_step = c->keys % 2 ? 1 + c->ops % 4 : 0;		/* drawn from what is drawn: seeds keep their meaning */
	conf_faults(c);
	c->trim_wait_ns = sim_chance(2, 3) ? sim_between(1, 100) * MS : 0;
	c->scrub_rate = sim_chance(2, 3) ? 8ull << (20 + sim_below(8)) : 0;
	c->pct_unverified = maybe(30, 50);
	c->pct_lies = c->pct_unverified > 0 ? maybe(30, 20) : 0;
	/* A put of the last group before a crash is believed if its bytes match: one that lies is taken for a torn one, and what was there before is back. */
	if (c->pct_lies > 0)
		c->drive_kill = c->power_cut = c->cut_at_io = c->disk.write_error = c->disk.flush_error = 0;
}

static void
conf_say(const struct sim_conf *c)
{
	sim_trace("%u drives of %llu MiB%s, %u fronts, %u clients, %u keys, %u operations, %u phases, evict %d", c->drives,
	    (unsigned long long)(c->medium_bytes >> 20), c->memory_mode ? " of memory" : "", c->fronts, c->clients, c->keys, c->ops, c->phases, c->evict);
	sim_trace("stage %llu MiB, %u slots, queue %u, kill %u %u power %u cut %u, errors %u %u %u hang %u flip %u", (unsigned long long)(c->stage_bytes >> 20),
	    c->slots, c->queue_depth, c->drive_kill, c->front_kill, c->power_cut, c->cut_at_io, c->disk.read_error, c->disk.write_error,
	    c->disk.flush_error, c->disk.hang, c->disk.flip);
	sim_trace("scrub %llu, unverified %u, lies %u", (unsigned long long)c->scrub_rate, c->pct_unverified, c->pct_lies);
}

/* ---- Harm ------------------------------------------------------------------------------------------------------------------- */

static void	chaos(void *arg, uint64_t n);

static void
chaos_drive(struct sim_drive *d)
{
	/* Not before it is formatted: a medium with something strange on it is refused for good. */
	if (d->disk != NULL && d->state == DRIVE_UP && sim_chance(sim->c.disk.flip, 1000)) {
		model.lossy = 1;
		disk_flip(d->disk);
	}
	if (d->disk != NULL && d->state == DRIVE_UP && sim->drives_gone + 1 < sim->c.drives && sim_chance(sim->c.vanish, 1000)) {
		sim_trace("drive %u: its medium is pulled out", d->index);
		model.lossy = 1;
		d->disk->gone = 1;
		sim->drives_gone++;
	}
	if (sim_chance(sim->c.drive_kill, 1000)) {
		if (d->disk != NULL && d->state == DRIVE_UP && sim_chance(sim->c.cut_at_io, 500))
			d->disk->cut_after = 1 + sim_below(30);
		else
			server_kill_drive(d->index);
	}
}

static void
chaos(void *arg, uint64_t n)
{
	(void)arg;
	(void)n;
	if (sim->resting)
		return;
	if (sim->power && sim->stat_kills < DEATHS_MAX) {
		for (unsigned i = 0; i < sim->c.drives; i++)
			chaos_drive(&sim->drive[i]);
		for (unsigned i = 0; i < sim->c.fronts; i++)
			if (sim_chance(sim->c.front_kill, 1000))
				server_kill_front(i);
		if (sim_chance(sim->c.power_cut, 3000))
			server_power_cut();
	}
	/* Slow media need longer to come up; a server that never does says nothing. */
	sim_in(sim_between(100 * US, 4 * MS + 4 * sim->c.disk.lat_max_ns), chaos, NULL, 0);
}

/* ---- A run ------------------------------------------------------------------------------------------------------------------ */

static void
rest(void)
{
	uint64_t until = sim->now + PHASE_MAX_NS;

	sim->resting = 1;
	if (!sim->power)
		server_start();
	/* What cannot write is what an operator starts again. */
	for (unsigned i = 0; i < sim->c.drives; i++)
		if (sim->drive[i].readonly || (sim->drive[i].disk != NULL && sim->drive[i].disk->gone))
			server_kill_drive(i);
	world_settle(until);
	model_settled();
	/* A set stays open until its put's deadline is some seconds over; the audit after that frees what nobody will name. */
	sim_run_until(sim->now + (strict_leaks ? LEAKS_NS : 0));
	world_settle(until);
	if (sim->c.scrub_rate != 0) {
		scrub_rot();
		scrub_rest(until);
		world_settle(until);
		scrub_audit();
		sim->scrubbed = 1;
	}
	sim_trace("at rest");
	sim->strict = strict_leaks;
	audit_run();
	/* Pieces of a home that is away stay. */
	for (unsigned i = 0; i < sim->c.drives; i++)
		if (sim->drive[i].state != DRIVE_UP)
			sim->leaked_units = 0;
	SIM_CHECK(!strict_leaks || sim->leaked_units == 0, "%llu units leaked", (unsigned long long)sim->leaked_units);
	clients_read_all();
	world_until_done("the reading of all keys");
	sim_run_until(sim->now + SEC);
	sim->scrubbed = 0;
}

static void
between_phases(unsigned how)
{
	if (how == 1 && sim->c.disk.flip == 0 && sim->c.pct_lies == 0)
		server_power_cut();
	else if (how == 2)
		server_stop();
	if (!sim->power)
		server_start();
	rest();
	sim->resting = 0;
}

static void
run_phases(void)
{
	server_start();
	for (unsigned i = 0; i < sim->c.phases; i++) {
		sim_in(sim_between(1 * MS, 10 * MS), chaos, NULL, 0);
		clients_start(sim->c.ops / sim->c.phases);
		world_until_done("the work");
		rest();
		between_phases(sim_below(3));
	}
}

static void
run_seed(uint64_t seed, int trace)
{
	static struct sim world;

	world_init(&world, seed, trace);
	conf_draw(&sim->c);
	conf_say(&sim->c);
	world_begin();
	run_phases();
	world_end();
}

int
main(int argc, char **argv)
{
	uint64_t seed = 1, count = 1, ops = 0, checks = 0, hits = 0, kills = 0, cuts = 0, leaks = 0, pulled = 0;
	int trace = 0, c;

	while ((c = getopt(argc, argv, "s:n:tvl")) != -1) {
		if (c == 's')
			seed = strtoull(optarg, NULL, 0);
		else if (c == 'n')
			count = strtoull(optarg, NULL, 0);
		else if (c == 't')
			trace = 1;
		else if (c == 'v')
			trace = 2;
		else if (c == 'l')
			strict_leaks = 1;
		else
			return (2);
	}
	world_program(trace);
	for (uint64_t i = 0; i < count; i++) {
		alarm(SEED_SECONDS);
		run_seed(seed + i, trace);
		ops += sim->stat_ops;
		checks += sim->stat_checks;
		hits += sim->stat_hits;
		kills += sim->stat_kills;
		cuts += sim->stat_cuts;
		leaks += sim->leaked_units != 0;
		pulled += sim->stat_pulled;
	}
	printf("seeds %" PRIu64 "..%" PRIu64 ": %" PRIu64 " operations, %" PRIu64 " answers checked, %" PRIu64 " values, %" PRIu64 " deaths, %" PRIu64
	    " between transfers, %" PRIu64 " gets of values pulled away, %" PRIu64 " worlds with leaked units\n", seed, seed + count - 1, ops, checks, hits,
	    kills, cuts, pulled, leaks);
	return (0);
}
