/*
 * steps_test: values in pieces, with a death at every step. Short histories in the simulation's world (sim.h): one front, two or three drives, and clients
 * that do what a table says.
 *
 * A step is an event (a message that arrives, a transfer that ends, bytes on a socket, a turn of a process, a timer), or that a process gives something
 * away while it is at one (a write or flush that it begins, a descriptor that it pushes, bytes that it sends). Each history is first run to count them. Then it is
 * run again for each step and each victim: what is to die dies before that event, or with all that it gives away from there on. The server starts it
 * again; one audit interval after the last set can be open the books are read, then values, then the same keys are written again, and deleted: then
 * nothing may be left at all.
 *
 *	steps_test [-h HISTORY] [-s SEED] [-p STEP] [-k VICTIM] [-q STEP2 [-j VICTIM2]] [-e EVERY [-o OFFSET]] [-w PROCESSES] [-f FAILURES] [-t | -v] [-L]
 *
 * -p, -k: only this step, this victim. -q, -j: and a second death, so many steps after the first. -e, -o: every EVERYth point from OFFSET on. -f: go on after so
 * many failures. -t, -v: as sim_test. -L: the histories and how many steps they have. A failure prints what repeats it.
 */
#include "config.h"

#include "tests/sim/sim.h"

#include <getopt.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/base/assert.h"
#include "proto/wire.h"
#include "worker/drive/engine_priv.h"

#define STEPS_MAX	16384u
#define QUIET_MAX_NS	(1500 * MS)		/* after the last answer: SET_FREE is said again after a second */
#define DEADLINE_NS	(2 * SEC)		/* of a request of a script */
#define FORMATTED_NS	(4 * AUDIT_INTERVAL_NS + 2 * SEC)
#define OPEN_GRACE_NS	(10 * SEC)		/* so long a set is open after its put's deadline */
#define RUN_SECONDS	60u			/* of real time, for one point */
#define PROCESSES_MAX	16u
#define DOUBLES		5u			/* each so manieth point is followed by a second death */
#define DOUBLE_STEPS	400u			/* so many steps later at most */

#define E		SIM_EXTENT
#define LEN(a)		(a), MKV_ARRAY_LEN(a)

/* ---- Histories -------------------------------------------------------------------------------------------------------------- */

/* Key 1 is what they are about; it shares its namespace with key 4. Keys 0 (in pieces) and 3 look on, in another one. */
enum { K = 1, MATE = 4, BYSTANDER = 0, SMALL = 3, KEYS = 6 };

struct history {
	const char	*name;
	const struct sim_do *before;
	unsigned	n_before;
	const struct sim_do *script;
	unsigned	n_script;
	unsigned	drives, clients;
	int		evict, memory, accepted;
	uint32_t	set_step;		/* pieces looked for in one turn; 0: all of these few */
};

#define PUT(key_, bytes_, ...)	{ .op = MKV_WIRE_PUT, .key = (key_), .bytes = (bytes_), __VA_ARGS__ }
#define GET(key_, ...)		{ .op = MKV_WIRE_GET, .key = (key_), __VA_ARGS__ }
#define DELETE(key_, ...)	{ .op = MKV_WIRE_DELETE, .key = (key_), __VA_ARGS__ }

static const struct sim_do look_on[] = { PUT(BYSTANDER, 2 * E + 100), PUT(SMALL, 3000) };
static const struct sim_do old_value[] = { PUT(BYSTANDER, 2 * E + 100), PUT(SMALL, 3000), PUT(K, 3 * E + 5000) };
static const struct sim_do old_small[] = { PUT(BYSTANDER, 2 * E + 100), PUT(SMALL, 3000), PUT(K, 7000) };
static const struct sim_do old_mates[] = { PUT(BYSTANDER, 2 * E + 100), PUT(SMALL, 3000), PUT(K, 2 * E + 5000), PUT(MATE, 2 * E) };
static const struct sim_do full[] = { PUT(BYSTANDER, 2 * E + 100), PUT(SMALL, 3000), PUT(K, 3 * E), PUT(MATE, 3 * E + 1) };

static const struct sim_do do_put[] = { PUT(K, 3 * E + 5000) };
static const struct sim_do do_put_parts[] = { PUT(K, 3 * E + 5000, .pause_us = 400) };
static const struct sim_do do_overwrite[] = { PUT(K, 2 * E + 9000) };
static const struct sim_do do_small[] = { PUT(K, 6000) };
static const struct sim_do do_delete[] = { DELETE(K) };
static const struct sim_do do_absent[] = { PUT(K, 2 * E + 9000, .flags = MKV_WIRE_PUT_IF_ABSENT) };
static const struct sim_do do_evict[] = { PUT(2, 3 * E), PUT(5, 3 * E) };
static const struct sim_do do_purge[] = { { .op = DO_PURGE, .key = K }, PUT(K, 5000, .wait_us = 3000) };
static const struct sim_do do_get[] = { GET(K), PUT(K, 2 * E + 9000, .client = 1, .wait_us = 150), GET(K, .wait_us = 400), GET(K, .wait_us = 400) };
static const struct sim_do do_get_delete[] = { GET(K), DELETE(K, .client = 1, .wait_us = 250) };
static const struct sim_do do_hang_up[] = { PUT(K, 3 * E + 5000, .pause_us = 300, .parts = 2, .how = DO_HANG_UP) };
static const struct sim_do do_abort[] = { PUT(K, 3 * E + 5000, .pause_us = 300, .parts = 3, .how = DO_ABORT) };
static const struct sim_do do_deadline[] = { PUT(K, 4 * E + 5000, .pause_us = 1000, .deadline_us = 2600) };
static const struct sim_do do_race[] = { PUT(K, 2 * E + 9000, .pause_us = 200), PUT(K, 3 * E, .client = 1, .pause_us = 150) };
static const struct sim_do do_expire[] = { PUT(K, 2 * E + 9000, .ttl_ms = 30), GET(K, .wait_us = 40000) };

static const struct history history[] = {
	{ "put", LEN(look_on), LEN(do_put), .drives = 2, .clients = 1 },
	{ "put-parts", LEN(look_on), LEN(do_put_parts), .drives = 3, .clients = 1 },
	{ "overwrite", LEN(old_value), LEN(do_overwrite), .drives = 2, .clients = 1 },
	{ "overwrite-small", LEN(old_value), LEN(do_small), .drives = 3, .clients = 1, .set_step = 1 },
	{ "overwrite-large", LEN(old_small), LEN(do_overwrite), .drives = 2, .clients = 1 },
	{ "delete", LEN(old_value), LEN(do_delete), .drives = 2, .clients = 1 },
	{ "delete-slowly", LEN(old_value), LEN(do_delete), .drives = 2, .clients = 1, .set_step = 1 },
	{ "absent", LEN(look_on), LEN(do_absent), .drives = 2, .clients = 1 },
	{ "absent-there", LEN(old_small), LEN(do_absent), .drives = 2, .clients = 1 },
	{ "evict", LEN(full), LEN(do_evict), .drives = 2, .clients = 1, .evict = 1 },
	{ "purge", LEN(old_mates), LEN(do_purge), .drives = 2, .clients = 1 },
	{ "get", LEN(old_value), LEN(do_get), .drives = 2, .clients = 2 },
	{ "get-delete", LEN(old_value), LEN(do_get_delete), .drives = 3, .clients = 2 },
	{ "hang-up", LEN(old_value), LEN(do_hang_up), .drives = 2, .clients = 1, .set_step = 2 },
	{ "abort", LEN(look_on), LEN(do_abort), .drives = 2, .clients = 1 },
	{ "deadline", LEN(old_value), LEN(do_deadline), .drives = 2, .clients = 1 },
	{ "race", LEN(look_on), LEN(do_race), .drives = 2, .clients = 2 },
	{ "expire", LEN(look_on), LEN(do_expire), .drives = 2, .clients = 1 },
	{ "accepted", LEN(old_value), LEN(do_overwrite), .drives = 2, .clients = 1, .accepted = 1 },
	{ "memory-put", LEN(look_on), LEN(do_put_parts), .drives = 2, .clients = 1, .memory = 1 },
	{ "memory-overwrite", LEN(old_value), LEN(do_overwrite), .drives = 2, .clients = 1, .memory = 1 },
	{ "memory-hang-up", LEN(old_value), LEN(do_hang_up), .drives = 2, .clients = 1, .memory = 1 },
};
#define HISTORIES	MKV_ARRAY_LEN(history)

/* Afterwards: each key that it was about once more, in pieces; then all of them deleted. */
static const struct sim_do again[] = { PUT(K, 2 * E + 4000), PUT(MATE, 2 * E), GET(K), GET(MATE) };
static const struct sim_do delete_all[] = { DELETE(0), DELETE(1), DELETE(2), DELETE(3), DELETE(4), DELETE(5) };

enum victim_who { V_FRONT, V_HOME, V_PIECE, V_ALL };

static const struct victim {
	const char	*name;
	enum victim_who	who;
	enum disk_cut	cut;		/* of a drive: CUT_CHANCE: only the process dies, and what it had begun lands */
} victim[] = {
	{ "front", V_FRONT, CUT_CHANCE },
	{ "home", V_HOME, CUT_CHANCE }, { "home-drop", V_HOME, CUT_DROP }, { "home-tear", V_HOME, CUT_TEAR },
	{ "piece", V_PIECE, CUT_CHANCE }, { "piece-drop", V_PIECE, CUT_DROP }, { "piece-tear", V_PIECE, CUT_TEAR },
	{ "power-keep", V_ALL, CUT_KEEP }, { "power-drop", V_ALL, CUT_DROP }, { "power-tear", V_ALL, CUT_TEAR },
};
#define VICTIMS		MKV_ARRAY_LEN(victim)

/* ---- One run ---------------------------------------------------------------------------------------------------------------- */

struct point {
	unsigned	history, victim, victim2;
	uint32_t	step, step2;		/* 0: none */
	uint64_t	seed;
};

/* What a history was like without a death; of the process that began, and all those that it starts. */
struct counted {
	uint32_t	steps;
	unsigned	home, piece;
	int8_t		who[STEPS_MAX];		/* at that step */
};

static struct {
	const struct point *p;
	struct counted	*count;			/* is being counted */
	uint32_t	n, n2;			/* steps so far; after the first death */
	unsigned	home, piece;
	unsigned	struck;
	uint32_t	pieces[SIM_DRIVES];	/* at most, while it is counted */
} run;

static int
victim_drive(const struct victim *v)
{
	return (v->who == V_HOME ? (int)run.home : v->who == V_PIECE ? (int)run.piece : -1);
}

static void
strike_now(void *arg, uint64_t n)
{
	const struct victim *v = &victim[n];
	int d = victim_drive(v);

	(void)arg;
	sim->cut = v->cut;
	if (v->who == V_ALL)
		server_power_cut();
	else if (v->who == V_FRONT)
		server_kill_front(0);
	else {
		int runs = sim->power && sim->drive[d].state != DRIVE_DOWN;

		server_kill_drive((unsigned)d);
		if (runs && v->cut != CUT_CHANCE)
			disk_power_cut(sim->drive[d].disk);
	}
	sim->cut = CUT_CHANCE;
}

/* Is it this one's own death? Then it gives nothing away any more. */
static int
strike_is_of(const struct victim *v, int who)
{
	if (who >= STEP_FRONT)
		return (v->who == V_FRONT);
	return (v->who == V_ALL || who == victim_drive(v));
}

static void
strike(int who, unsigned n)
{
	const struct victim *v = &victim[n];

	sim_trace("STEP: %s", v->name);
	run.struck++;
	if (who == STEP_EVENT) {
		strike_now(NULL, n);
		return;
	}
	if (strike_is_of(v, who) && who >= STEP_FRONT)
		sim->front[who - STEP_FRONT].ending = 1;
	else if (strike_is_of(v, who)) {
		sim->drive[who].ending = 1;
		if (sim->drive[who].disk != NULL)
			sim->drive[who].disk->dead = 1;
	}
	sim_at(sim->now, strike_now, NULL, n);
}

static void
on_step(int who)
{
	run.n++;
	if (run.count != NULL) {
		SIM_CHECK(run.n < STEPS_MAX, "too many steps");
		run.count->who[run.n] = (int8_t)who;
		for (unsigned i = 0; i < sim->c.drives; i++)
			run.pieces[i] = MKV_MAX(run.pieces[i], sim->drive[i].e->pieces);
	} else if (run.struck == 0) {
		if (run.n == run.p->step)
			strike(who, run.p->victim);
	} else if (run.struck == 1 && run.p->step2 != 0 && ++run.n2 == run.p->step2)
		strike(who, run.p->victim2);
}

/* ---- Its world -------------------------------------------------------------------------------------------------------------- */

static void
conf_of(const struct history *h, struct sim_conf *c)
{
	*c = (struct sim_conf){
		.drives = h->drives, .fronts = 1, .clients = h->clients, .keys = KEYS, .phases = 1, .memory_mode = h->memory, .evict = h->evict,
		.accepted = h->accepted, .set_step = h->set_step, .medium_bytes = h->evict ? 5u << 20 : 8u << 20, .stage_bytes = 2u << 20, .slots = 64, .queue_depth = 32, .objects_max = 64,
		.journal_bytes = 128 * 4096, .page_cache_bytes = 1u << 20, .value_max = 5 * E, .evict_high = h->evict ? 30 : 97, .evict_low = h->evict ? 20 : 95,
		.disk = { .sector = 512, .lat_min_ns = 5 * US, .lat_max_ns = 200 * US },
	};
}

/* Nothing is owed to anybody, as far as books can tell. */
static int
world_quiet(void)
{
	if (!world_idle())
		return (0);
	for (unsigned i = 0; i < sim->c.drives; i++) {
		const struct mkv_engine *e = sim->drive[i].e;

		if (e->provisional != 0 || e->setfrees != 0 || e->setacks != 0 || e->pend_count != 0 || e->jn.last_record > e->jn.flushed)
			return (0);
	}
	return (1);
}

static void
until_quiet(void)
{
	uint64_t until = sim->now + QUIET_MAX_NS;

	while (!world_quiet() && sim->now < until && sim_run_one())
		continue;
}

static void
do_script(const struct sim_do *s, unsigned n, const char *what)
{
	clients_script(s, n);
	world_until_done(what);
}

static unsigned
find_home(void)
{
	const struct model_key *k = &model.key[K];
	uint8_t secret[MKV_SECRET_BYTES];

	SIM_CHECK(mkv_digest_secret(sim->secret, k->ns, k->ns_bytes, secret) == 0, "no secret");
	return (front_home(&sim->front[0], mkv_digest(secret, k->name, k->name_bytes)));
}

/* Another drive, with the most pieces that there were at one time. */
static unsigned
find_piece(void)
{
	unsigned best = (run.home + 1) % sim->c.drives;

	for (unsigned i = 0; i < sim->c.drives; i++) {
		if (i != run.home && run.pieces[i] > run.pieces[best])
			best = i;
	}
	SIM_CHECK(run.pieces[best] > 0, "no other drive had a piece: another seed");
	return (best);
}

/* ---- What must hold --------------------------------------------------------------------------------------------------------- */

static void
check_books(const char *when)
{
	sim->strict = 1;
	audit_run();
	SIM_CHECK(sim->leaked_units == 0, "%s: %" PRIu64 " units of pieces that no manifest names", when, sim->leaked_units);
	for (unsigned i = 0; i < sim->c.drives; i++) {
		SIM_CHECK(sim->drive[i].state == DRIVE_UP && !sim->drive[i].readonly, "%s: drive %u is not up", when, i);
		SIM_CHECK(sim->drive[i].e->provisional == 0, "%s: drive %u: %u provisional pieces", when, i, sim->drive[i].e->provisional);
	}
}

static void
check_empty(void)
{
	for (unsigned i = 0; i < sim->c.drives; i++) {
		struct mkv_engine *e = sim->drive[i].e;

		SIM_CHECK(e->ix.linked == 0 && e->manifests == 0 && e->pieces == 0 && eng_used_units(e) == 0,
		    "all is deleted, but drive %u has %u objects, %u of them pieces, %" PRIu64 " units", i, e->ix.linked, e->pieces, (uint64_t)eng_used_units(e));
	}
}

static void
read_all(void)
{
	clients_read_all();
	world_until_done("the reading of all keys");
}

static void
after(void)
{
	uint64_t until = sim->now + 900 * SEC;

	unsigned struck;

	sim->resting = 1;
	world_settle(until);
	model_settled();
	/*
	 * A put that began before the death may keep its set open until its deadline and some seconds more; from then on: one interval. A second death
	 * may come in that time, perhaps between an audit's question and its answer.
	 */
	do {
		struck = run.struck;
		sim_run_until(sim->now + DEADLINE_NS + OPEN_GRACE_NS + AUDIT_INTERVAL_NS + 2 * SEC);
		world_settle(until);
	} while (struck != run.struck);
	sim->on_step = NULL;
	check_books("after one audit interval");
	read_all();
	sim->resting = 0;
	do_script(LEN(again), "a second put");
	sim->resting = 1;
	read_all();
	world_settle(until);
	check_books("after a second put");
	sim->resting = 0;
	do_script(LEN(delete_all), "the deletion of all");
	sim->resting = 1;
	world_settle(until);
	check_books("when all is deleted");
	check_empty();
}

/* c: what counting said; counting: fill it instead of a death. */
static void
run_point(const struct point *p, struct counted *c, int counting, int trace)
{
	static struct sim world;
	const struct history *h = &history[p->history];
	int n;

	alarm(RUN_SECONDS);
	memset(&run, 0, sizeof(run));
	run.p = p;
	run.count = counting ? c : NULL;
	run.piece = c->piece;
	world_init(&world, p->seed, trace);
	n = snprintf(sim->what, sizeof(sim->what), " -h %s", h->name);
	if (p->step != 0)
		n += snprintf(sim->what + n, sizeof(sim->what) - (size_t)n, " -p %u -k %s", p->step, victim[p->victim].name);
	if (p->step2 != 0)
		(void)snprintf(sim->what + n, sizeof(sim->what) - (size_t)n, " -q %u -j %s", p->step2, victim[p->victim2].name);
	conf_of(h, &sim->c);
	world_begin();
	server_start();
	while (!server_all_up())
		SIM_CHECK(sim_run_one(), "the server does not start");
	do_script(h->before, h->n_before, "what was before");
	/* A drive that was just formatted has all pieces looked at for some intervals: that would hide what is not said. */
	sim_run_until(sim->now + FORMATTED_NS);
	SIM_CHECK(world_quiet(), "it is not quiet before it begins");
	run.home = find_home();
	sim_trace("BEGIN: home %u, pieces on %u", run.home, run.piece);
	clients_script(h->script, h->n_script);
	sim->on_step = on_step;
	world_until_done("the history");
	until_quiet();
	if (counting) {
		sim->on_step = NULL;
		c->steps = run.n;
		c->home = run.home;
		c->piece = find_piece();
	}
	after();
	SIM_CHECK(counting || p->step == 0 || run.struck > 0, "there is no step %u", p->step);
	world_end();
}

/* ---- Many runs -------------------------------------------------------------------------------------------------------------- */

struct worker {
	pid_t		pid;
	uint64_t	at;			/* the point under way */
	uint64_t	done, doubles;
	int		over;
};

static struct shared {			/* of all processes */
	struct counted	counted[HISTORIES];
	struct worker	worker[PROCESSES_MAX];
} *all;

static struct options {
	int		history, victim, victim2;	/* -1: all, chance */
	uint64_t	seed;
	uint32_t	step, step2;
	uint64_t	every, offset;
	unsigned	processes, failures;
	int		trace, list;
} opt = { -1, -1, -1, 1, 0, 0, 1, 0, 1, 1, 0, 0 };

static int
victim_fits(const struct point *p)
{
	const struct victim *v = &victim[p->victim];
	int who = all->counted[p->history].who[p->step];

	if (history[p->history].memory && v->cut != CUT_CHANCE && v->cut != CUT_KEEP)
		return (0);
	run.home = all->counted[p->history].home;
	run.piece = all->counted[p->history].piece;
	/* While somebody else is at work: the same as before the next event. */
	return (who == STEP_EVENT || strike_is_of(v, who));
}

/* A second death, of some. */
static void
point_double(struct point *p, uint64_t no)
{
	struct rnd r = { .state = no * 0x9e3779b97f4a7c15ull + p->seed };

	if (opt.step2 != 0) {
		p->step2 = opt.step2;
		p->victim2 = (unsigned)MKV_MAX(opt.victim2, 0);
		return;
	}
	if (opt.step != 0 || rnd_below(&r, DOUBLES) != 0)
		return;
	p->step2 = 1 + rnd_below(&r, DOUBLE_STEPS);
	do
		p->victim2 = rnd_below(&r, VICTIMS);
	while (history[p->history].memory && victim[p->victim2].cut != CUT_CHANCE);
}

/* Points are counted through over all histories, steps and victims. 0: none is left. */
static int
point_next(struct point *p, uint64_t *no)
{
	for (; p->history < HISTORIES; p->history++, p->step = 0, p->victim = 0) {
		if (opt.history >= 0 && p->history != (unsigned)opt.history)
			continue;
		for (;;) {
			if (p->step == 0 || p->victim == VICTIMS) {
				p->step++;
				p->victim = 0;
			}
			if (p->step > all->counted[p->history].steps)
				break;
			for (; p->victim < VICTIMS; p->victim++) {
				if ((opt.step == 0 || p->step == opt.step) && (opt.victim < 0 || p->victim == (unsigned)opt.victim) && victim_fits(p)) {
					++*no;
					return (1);
				}
			}
		}
	}
	return (0);
}

static int
is_mine(uint64_t no, unsigned w)
{
	return ((no + opt.offset) % opt.every == 0 && no / opt.every % opt.processes == w);
}

static void
work(unsigned w)
{
	struct worker *me = &all->worker[w];
	struct point p = { .seed = opt.seed };
	uint64_t no = 0;

	for (; point_next(&p, &no); p.victim++) {
		struct point q = p;

		if (no <= me->at || !is_mine(no, w))
			continue;
		me->at = no;
		q.step2 = 0;
		point_double(&q, no);
		run_point(&q, &all->counted[q.history], 0, opt.trace);
		me->done++;
		me->doubles += q.step2 != 0;
	}
	me->over = 1;
}

static void
worker_start(unsigned w)
{
	pid_t pid;

	fflush(stdout);
	pid = fork();
	SIM_CHECK(pid >= 0, "no process");
	if (pid != 0) {
		all->worker[w].pid = pid;
		return;
	}
	world_program(opt.trace);
	work(w);
	_exit(0);
}

/* Each history once as it is; 0: all came to their end. */
static int
count_steps(void)
{
	pid_t pid = fork();
	int status;

	SIM_CHECK(pid >= 0, "no process");
	if (pid != 0)
		return (waitpid(pid, &status, 0) != pid || status != 0);
	world_program(opt.trace);
	for (unsigned h = 0; h < HISTORIES; h++) {
		struct point p = { .history = h, .seed = opt.seed };

		if (opt.history < 0 || h == (unsigned)opt.history)
			run_point(&p, &all->counted[h], 1, opt.step != 0 ? 0 : opt.trace);
	}
	_exit(0);
}

static unsigned
run_all(void)
{
	unsigned failed = 0, running = opt.processes;
	int status;

	for (unsigned w = 0; w < opt.processes; w++)
		worker_start(w);
	while (running > 0) {
		pid_t pid = wait(&status);
		unsigned w = 0;

		while (w < opt.processes && all->worker[w].pid != pid)
			w++;
		SIM_CHECK(w < opt.processes, "an unknown process ended");
		failed += !all->worker[w].over;
		if (all->worker[w].over || failed >= opt.failures)
			running--;
		else
			worker_start(w);
	}
	return (failed);
}

static int
name_of(const char *what, const char *name, int (*at)(unsigned i, const char *name))
{
	for (unsigned i = 0; ; i++) {
		int r = at(i, name);

		if (r > 0)
			return ((int)i);
		if (r == 0)
			continue;
		fprintf(stderr, "steps_test: no %s %s\n", what, name);
		exit(2);
	}
}

static int
at_history(unsigned i, const char *name)
{
	return (i >= HISTORIES ? -1 : strcmp(history[i].name, name) == 0);
}

static int
at_victim(unsigned i, const char *name)
{
	return (i >= VICTIMS ? -1 : strcmp(victim[i].name, name) == 0);
}

static void
options(int argc, char **argv)
{
	int c;

	while ((c = getopt(argc, argv, "h:s:p:k:q:j:e:o:w:f:tvL")) != -1) {
		switch (c) {
		case 'h':
			opt.history = name_of("history", optarg, at_history);
			break;
		case 'k':
			opt.victim = name_of("victim", optarg, at_victim);
			break;
		case 'j':
			opt.victim2 = name_of("victim", optarg, at_victim);
			break;
		case 's':
			opt.seed = strtoull(optarg, NULL, 0);
			break;
		case 'p':
			opt.step = (uint32_t)strtoul(optarg, NULL, 0);
			break;
		case 'q':
			opt.step2 = (uint32_t)strtoul(optarg, NULL, 0);
			break;
		case 'e':
			opt.every = MKV_MAX(strtoull(optarg, NULL, 0), 1u);
			break;
		case 'o':
			opt.offset = strtoull(optarg, NULL, 0);
			break;
		case 'w':
			opt.processes = (unsigned)MKV_MIN(MKV_MAX(strtoul(optarg, NULL, 0), 1u), PROCESSES_MAX);
			break;
		case 'f':
			opt.failures = (unsigned)strtoul(optarg, NULL, 0);
			break;
		case 't':
		case 'v':
			opt.trace = c == 't' ? 1 : 2;
			break;
		case 'L':
			opt.list = 1;
			break;
		default:
			exit(2);
		}
	}
}

int
main(int argc, char **argv)
{
	uint64_t points = 0, doubles = 0, steps = 0;
	unsigned failed = 0;

	options(argc, argv);
	all = mmap(NULL, sizeof(*all), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (all == MAP_FAILED || count_steps() != 0)
		return (1);
	for (unsigned h = 0; h < HISTORIES; h++) {
		steps += all->counted[h].steps;
		if (opt.list)
			printf("%-18s %u drives, %5u steps\n", history[h].name, history[h].drives, all->counted[h].steps);
	}
	if (!opt.list)
		failed = run_all();
	for (unsigned w = 0; w < opt.processes; w++) {
		points += all->worker[w].done;
		doubles += all->worker[w].doubles;
	}
	printf("seed %" PRIu64 ": %" PRIu64 " steps, %" PRIu64 " deaths at one of them, %" PRIu64 " with a second one after it, %u failed\n", opt.seed, steps,
	    points + failed, doubles, failed);
	return (failed > 0);
}
