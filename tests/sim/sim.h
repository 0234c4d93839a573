/*
 * A whole server in one process from one seed: fronts (the real ones), engines (the real ones), and simulated: clock, media, sockets, rings, the
 * supervisor, clients. One thread; what happens is a function of the seed alone. Tests only.
 *
 * Everything is an event: {when, what}. An event runs to its end, then the next one in order of time. Nothing waits and nothing is polled: a process
 * that nobody wakes stays asleep, so a lost wake-up is found.
 */
#ifndef MKV_TESTS_SIM_H
#define MKV_TESTS_SIM_H

#include <stdint.h>
#include <stdio.h>

#include "common/base/clock.h"
#include "common/base/hash.h"
#include "common/shm/stage.h"
#include "tests/lib/rnd.h"
#include "tests/sim/disk.h"
#include "tests/sim/model.h"
#include "worker/drive/engine.h"
#include "worker/front/front.h"

#define SIM_DRIVES	4u
#define SIM_FRONTS	3u
#define SIM_CLIENTS	10u
#define SIM_EVENTS_MAX	16384u
#define SIM_EXTENT	MKV_EXTENT_MIN
#define US		MKV_NS_PER_US
#define MS		MKV_NS_PER_MS
#define SEC		MKV_NS_PER_SEC

typedef void	sim_fn(void *arg, uint64_t n);

struct sim_event {
	uint64_t	at, seq;
	sim_fn		*fn;
	void		*arg;
	uint64_t	n;
};

/* What a seed is about; drawn from it, or set on the command line. Rates are per 1000 operations of clients. */
struct sim_conf {
	unsigned	drives, fronts, clients, keys;
	unsigned	ops;			/* of all clients together */
	unsigned	phases;			/* work, then rest, then everything is held against the model */
	int		memory_mode, evict, accepted;
	uint64_t	medium_bytes, stage_bytes;
	uint32_t	slots, queue_depth, objects_max;
	uint64_t	journal_bytes, page_cache_bytes;
	uint64_t	value_max;		/* of the large ones */
	uint32_t	set_step;		/* pieces of a set that a drive looks for in a turn; 0: its own number */
	unsigned	pct_large, pct_multi, pct_ttl, pct_absent, pct_accepted, pct_pin, pct_same, pct_collide;
	unsigned	drive_kill, front_kill, power_cut, restart, cut_at_io;	/* rates */
	unsigned	hangups;		/* of connections */
	unsigned	vanish;			/* a medium is pulled out and does not come back */
	unsigned	peer_loss_pct;		/* of messages between drives */
	uint64_t	trim_wait_ns;		/* 0: media cannot discard */
	uint64_t	scrub_rate;		/* 0: no scrubber */
	unsigned	pct_unverified, pct_lies;	/* puts of which the front saw no byte; and those of them that are not what they say */
	uint64_t	audit_ns;		/* 0: the engine's own */
	unsigned	evict_high, evict_low;
	struct disk_faults disk;
};

enum drive_state { DRIVE_DOWN, DRIVE_LOCK, DRIVE_OPENING, DRIVE_UP, DRIVE_STOPPING, DRIVE_CLOSING, DRIVE_FAILED };

struct sim_client_slot {		/* of an engine: one incarnation of a front */
	int		used, dying;
	unsigned	front;
	uint32_t	life;
};

struct sim_wait {
	uint32_t	client;
	struct mkv_desc	desc;
};

#define SIM_BACKLOG	256u

struct sim_drive {
	unsigned	index;
	enum drive_state state;
	uint32_t	epoch, life;		/* life: raised at each start and death */
	struct mkv_engine *e;
	struct mkv_engine_opts o;
	struct disk	*disk;
	struct mkv_media *media;		/* disk's, or the arena */
	int		arena_fd, meta_fd;
	uint64_t	arena_bytes, meta_bytes;
	struct sim_client_slot client[MKV_ENGINE_CLIENTS_MAX];
	struct sim_wait	wait[SIM_BACKLOG];	/* the engine was full */
	unsigned	wait_head, wait_count;
	uint32_t	front_gone[SIM_FRONTS];	/* the last life that it heard the end of */
	uint64_t	step_at;		/* of the step event that is to come; UINT64_MAX: none */
	uint64_t	step_gen;
	int		pumping;		/* inside of open or close */
	int		ending;			/* its end is on its way: nothing of it gets out any more */
	int		readonly, failures;
	uint8_t		uuid[16];
};

struct sim_front {
	unsigned	index;
	int		alive;
	int		ending;			/* as a drive's */
	uint32_t	epoch, life;
	struct mkv_front *f;
	struct mkv_front_conf conf;
	struct mkv_timers timers;
	struct mkv_ioq	*q;
	int		stage_fd;
	struct mkv_stage *stage;		/* the front's; gone with it */
	struct mkv_stage *view;			/* the drives' */
	uint64_t	turn_at, turn_gen;
	uint64_t	drained;		/* drives that are still at work for a former life, as bits */
	uint64_t	last_to[SIM_DRIVES], last_from[SIM_DRIVES];	/* rings keep their order */
	unsigned	in_ring[SIM_DRIVES];
	uint32_t	ring_life[SIM_DRIVES];	/* of the drive that its rings lead to; 0: none */
};

struct sim {
	uint64_t	seed;
	struct rnd	rnd;
	uint64_t	now, wall_ms;
	struct sim_conf	c;
	struct sim_event heap[SIM_EVENTS_MAX];
	unsigned	events;
	uint64_t	seq, ran;
	uint32_t	epoch;
	struct sim_drive drive[SIM_DRIVES];
	struct sim_front front[SIM_FRONTS];
	uint64_t	map_version;
	unsigned	drives_gone;
	uint64_t	harm_ns;		/* until then something was dead or hung */
	uint64_t	died_ns;		/* when a drive did last */
	uint8_t		key[32], secret[32];
	int		power;			/* 0: nothing runs */
	void		(*on_power)(void);	/* it went */
	void		(*on_step)(int who);	/* before each event, and each time that a process gives something away; NULL: nobody counts */
	enum disk_cut	cut;
	int		resting;		/* no new faults, clients have ended */
	int		scrubbed;		/* all was read at rest: no damage is left */
	uint64_t	stat_ops, stat_kills, stat_cuts, stat_checks, stat_hits;
	uint64_t	stat_pulled;		/* gets that missed because their value was replaced and a drive died meanwhile */
	uint64_t	leaked_units;		/* of pieces that no manifest names, at the last rest */
	int		strict;			/* at rest audits have had their time */
	int		trace;
	char		what[128];		/* beside the seed: how a failure is repeated */
};

/* Who is at a step: an event that is to come, or a process that is about to write, flush, push or send. */
enum { STEP_EVENT = -1, STEP_FRONT = (int)SIM_DRIVES };	/* below: drives; from there on: fronts */

extern struct sim *sim;			/* the one world; NULL outside of a run */

/* world.c */
void	sim_at(uint64_t at, sim_fn *fn, void *arg, uint64_t n);
void	sim_in(uint64_t ns, sim_fn *fn, void *arg, uint64_t n);
int	sim_run_one(void);				/* the next event; 0: there is none */
void	sim_run_until(uint64_t at);
unsigned sim_below(unsigned n);				/* 0 for 0 */
int	sim_chance(unsigned n, unsigned of);
uint64_t sim_between(uint64_t lo, uint64_t hi);
uint64_t sim_wall(void);
void	sim_step(int who);
void	sim_trace(const char *fmt, ...) MKV_PRINTF(1, 2);
void	sim_trace_dump(FILE *to);
MKV_NORETURN void	sim_fail(const char *fmt, ...) MKV_PRINTF(1, 2);
#define SIM_CHECK(e, ...)	do { if (!(e)) sim_fail(__VA_ARGS__); } while (0)

/* server.c: the supervisor */
void	server_create(void);
void	server_destroy(void);
void	server_start(void);				/* power is there: everything starts */
void	server_power_cut(void);
void	server_stop(void);				/* orderly: fronts, then drives; runs the world until all is down */
void	server_kill_drive(unsigned i);
void	server_kill_front(unsigned i);
void	server_drive_drained_front(unsigned front, unsigned drive, uint32_t epoch);
void	server_drive_up(struct sim_drive *d);
void	server_drained_own(struct sim_drive *d);	/* it has the lock: nothing of its former lives is under way */
int	server_all_up(void);
void	server_map(void);

/* drive.c */
void	drive_create(struct sim_drive *d, unsigned i);
void	drive_destroy(struct sim_drive *d);
void	drive_start(struct sim_drive *d);
void	drive_stop(struct sim_drive *d);		/* orderly */
void	drive_die(struct sim_drive *d);
void	drive_wake(struct sim_drive *d);		/* step soon */
void	drive_front_up(struct sim_drive *d, struct sim_front *f);
void	drive_front_down(struct sim_drive *d, unsigned front, uint32_t life);
void	drive_desc(struct sim_drive *d, struct sim_front *f, uint32_t front_life, const struct mkv_desc *desc);
int	drive_idle(const struct sim_drive *d);

/* front.c */
void	front_create(struct sim_front *f, unsigned i);
void	front_destroy(struct sim_front *f);
void	front_start(struct sim_front *f);
void	front_die(struct sim_front *f);
void	front_wake(struct sim_front *f);
unsigned front_home(const struct sim_front *f, struct mkv_digest key);	/* the drive */
void	front_desc(struct sim_front *f, uint32_t life, struct sim_drive *d, const struct mkv_desc *desc);

/* client.c */
enum sim_how { DO_ALL, DO_HANG_UP, DO_ABORT };
#define DO_PURGE	0u			/* no request: the key's namespace is purged */

struct sim_do {				/* of a script */
	unsigned	client, op, key;	/* op: MKV_WIRE_*, DO_PURGE */
	uint64_t	bytes, ttl_ms;
	uint32_t	flags;			/* of a put */
	uint64_t	wait_us;		/* before it */
	uint64_t	deadline_us;		/* 0: long */
	uint64_t	pause_us;		/* between parts */
	unsigned	parts;			/* then, if how says so, the rest is not sent */
	enum sim_how	how;
};

void	clients_create(void);
void	clients_destroy(void);
void	clients_start(unsigned ops);
void	clients_read_all(void);			/* every key, whole */
void	clients_script(const struct sim_do *script, unsigned n);	/* kept by the caller; each client does its own, in order */
int	clients_done(void);

/* life.c */
void	world_init(struct sim *world, uint64_t seed, int trace);	/* empty, with its chance; then its conf, then: */
void	world_begin(void);
void	world_end(void);
int	world_idle(void);
void	world_until_done(const char *what);		/* the clients */
void	world_settle(uint64_t until);
void	world_program(int trace);			/* once in a program */

/* scrub.c */
void	scrub_put(struct mkv_drv_req *q);
int	scrub_idle(const struct sim_drive *d);		/* it holds nothing */
void	scrub_rot(void);
void	scrub_rest(uint64_t until);
void	scrub_audit(void);

/* purge.c */
void	purge_begin(unsigned ns);			/* unless one is under way, or a drive is down */
void	purge_answer(struct sim_drive *d, uint64_t id, int err);
int	purge_idle(void);
void	purge_reset(void);

/* audit.c */
void	audit_run(void);				/* at rest: every book holds together */

#endif
