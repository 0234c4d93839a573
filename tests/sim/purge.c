/*
 * Purges of a namespace (sim.h): what memkvctl and the supervisor do, without them. One at a time, asked of every drive at once; for the model it is a delete of
 * every key of that namespace, which happened if all drives said so, and of which nobody knows if one of them died.
 */
#include "config.h"

#include "tests/sim/sim.h"

#include <string.h>

#include "common/base/err.h"

#define PURGE_LOOK_NS	MS
#define PURGE_MAX_NS	(20 * SEC)

static struct {
	int		on;
	uint64_t	id, until;
	unsigned	ns;
	unsigned	version[MODEL_KEYS_MAX];
	uint32_t	life[SIM_DRIVES];	/* that was asked */
	int		done[SIM_DRIVES];
} purge;

static void
purge_end(enum model_state state)
{
	sim_trace("purge of namespace %u: %s", purge.ns, state == MV_DONE ? "done" : "nobody knows");
	for (unsigned k = purge.ns; k < model.keys; k += MODEL_NS)
		model_end(k, purge.version[k], state);
	purge.on = 0;
}

static void
purge_look(void *arg, uint64_t id)
{
	int done = 1;

	if (!purge.on || id != purge.id)
		return;
	for (unsigned i = 0; i < sim->c.drives; i++) {
		if (!purge.done[i] && (sim->drive[i].life != purge.life[i] || sim->drive[i].state != DRIVE_UP)) {
			purge_end(MV_UNKNOWN);
			return;
		}
		done &= purge.done[i];
	}
	if (done) {
		purge_end(MV_DONE);
		return;
	}
	SIM_CHECK(sim->now < purge.until || sim->harm_ns + 2 * SEC > sim->now, "a purge does not end");
	sim_in(PURGE_LOOK_NS, purge_look, arg, id);
}

void
purge_answer(struct sim_drive *d, uint64_t id, int err)
{
	if (!purge.on || id != purge.id || purge.life[d->index] != d->life)
		return;
	SIM_CHECK(err == 0 || err == MKV_E_READONLY, "drive %u: purge: %s", d->index, mkv_err(err));
	if (err == 0)
		purge.done[d->index] = 1;
	else
		purge_end(MV_UNKNOWN);
}

void
purge_begin(unsigned ns)
{
	if (purge.on || sim->resting || !server_all_up())
		return;
	for (unsigned i = 0; i < sim->c.drives; i++)
		if (sim->drive[i].state != DRIVE_UP || sim->drive[i].e == NULL)
			return;
	for (unsigned k = ns; k < model.keys; k += MODEL_NS)
		if (model.key[k].n + 32 > MODEL_VERSIONS_MAX)
			return;
	purge.on = 1;
	purge.id++;
	purge.ns = ns;
	purge.until = sim->now + PURGE_MAX_NS;
	sim_trace("purge of namespace %u begins", ns);
	for (unsigned k = ns; k < model.keys; k += MODEL_NS)
		purge.version[k] = model_begin(k, 0, 0, 0, 0, 0);
	for (unsigned i = 0; i < sim->c.drives; i++) {
		struct sim_drive *d = &sim->drive[i];

		purge.life[i] = d->life;
		purge.done[i] = 0;
		mkv_engine_purge(d->e, purge.id, model.key[ns].ns, model.key[ns].ns_bytes);
		drive_wake(d);
	}
	sim_in(PURGE_LOOK_NS, purge_look, NULL, purge.id);
}

int
purge_idle(void)
{
	return (!purge.on);
}

void
purge_reset(void)
{
	memset(&purge, 0, sizeof(purge));
}
