/*
 * A world from its beginning to its end, for programs that run many (sim.h): what they share beyond what is simulated.
 */
#include "config.h"

#include "tests/sim/sim.h"

#include <fcntl.h>
#include <inttypes.h>
#include <malloc.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/base/auth.h"
#include "common/base/crc.h"
#include "common/base/log.h"
#include "tests/sim/net.h"

#define REST_NS		(4 * SEC)
#define DONE_MAX_NS	(900 * SEC)

static void
on_abort(int sig)
{
	sim_trace_dump(stderr);
	fprintf(stderr, "FAILED seed=%" PRIu64 "%s: %s\n", sim != NULL ? sim->seed : 0, sim != NULL ? sim->what : "",
	    sig == SIGALRM ? "it takes too long" : "an assert or a fault");
	_exit(1);
}

void
world_program(int trace)
{
	/* Memory goes from world to world; the kernel is not asked for it again. */
	(void)mallopt(M_MMAP_THRESHOLD, 1 << 30);
	(void)mallopt(M_TRIM_THRESHOLD, 1 << 30);
	mkv_crc_init();
	if (mkv_auth_init() != 0)
		exit(2);
	mkv_log_init(MKV_LOG_ERROR);
	mkv_log_set_fd(trace > 1 ? STDERR_FILENO : open("/dev/null", O_WRONLY | O_CLOEXEC));
	for (int *sig = (int[]){ SIGABRT, SIGSEGV, SIGBUS, SIGALRM, 0 }; *sig != 0; sig++)
		(void)signal(*sig, on_abort);
}

void
world_init(struct sim *world, uint64_t seed, int trace)
{
	memset(world, 0, sizeof(*world));
	sim = world;
	sim->seed = seed;
	/* Seeds that are neighbours have nothing in common. */
	sim->rnd.state = seed;
	sim->rnd.state = rnd_u64(&sim->rnd) * 0xd1342543de82ef95ull;
	sim->now = SEC;
	sim->wall_ms = 1700000000000ull;
	sim->trace = trace;
}

static void
power_back(void *arg, uint64_t n)
{
	(void)arg;
	(void)n;
	if (!sim->power)
		server_start();
}

static void
on_power(void)
{
	sim_in(sim_between(1 * MS, 50 * MS), power_back, NULL, 0);
}

void
world_begin(void)
{
	rnd_fill(&sim->rnd, sim->key, sizeof(sim->key));
	rnd_fill(&sim->rnd, sim->secret, sizeof(sim->secret));
	model_init(sim->c.keys, sim->c.evict);
	purge_reset();
	model.lossy = !sim->c.memory_mode && sim->c.disk.read_error + sim->c.disk.write_error + sim->c.disk.flush_error > 0;
	clients_create();
	sim->on_power = on_power;
	server_create();
}

void
world_end(void)
{
	clients_destroy();
	server_destroy();
	net_fini();
}

int
world_idle(void)
{
	if (!server_all_up() || !clients_done() || !purge_idle())
		return (0);
	for (unsigned i = 0; i < sim->c.drives; i++)
		if (!drive_idle(&sim->drive[i]))
			return (0);
	return (1);
}

void
world_until_done(const char *what)
{
	uint64_t until = sim->now + DONE_MAX_NS;

	while (!clients_done()) {
		SIM_CHECK(sim->now < until, "%s does not end", what);
		SIM_CHECK(sim_run_one(), "%s waits for something that will not happen", what);
	}
}

/*
 * Until all are idle and have been for a while: requests of clients that left may wait until their deadlines, and a death that was due at some transfer
 * may come with the last ones; what a drive has to free then is said when it is up again.
 */
void
world_settle(uint64_t until)
{
	do {
		while (!world_idle())
			SIM_CHECK(sim->now < until && sim_run_one(), "the server does not come to rest");
		sim_run_until(sim->now + REST_NS);
	} while (!world_idle());
}
