/*
 * The supervisor's own structs: the table of processes, what it keeps for each of them, and who does what with it.
 *
 *	main.c		command line; run.c: start and end; sup.c: ready, reload, orderly stop
 *	proc.c		one row of the table: process, control socket, log pipe, liveness		(child.c: its states)
 *	spawn.c		fork and exec							heritage.c: segments (pages.c: in which pages; affinity.c: on which NUMA node), and what a child is given
 *	peers.c		deaths told to the neighbours, DRAINED, the epoch		pool.c: the pool map	moved.c: drives at another path
 *	operator.c	memkvctl's socket						admin/: HTTP
 *
 * Everything here is touched by the loop thread alone. The supervisor holds every segment and never reads a block.
 */
#ifndef MKV_SUPERVISOR_SUP_PRIV_H
#define MKV_SUPERVISOR_SUP_PRIV_H

#include <stdint.h>
#include <sys/types.h>

#include <uv.h>

#include "common/base/os.h"
#include "common/shm/metric.h"
#include "proto/control.pb-c.h"
#include "supervisor/child_priv.h"
#include "supervisor/config_priv.h"
#include "supervisor/control_priv.h"
#include "supervisor/keys_priv.h"
#include "supervisor/logs_priv.h"
#include "supervisor/pages_priv.h"
#include "supervisor/state_priv.h"

#define SUP_MAGIC		0xe7035a41u
#define SUP_PROCS_MAX		(CONFIG_FRONTS_MAX + CONFIG_DRIVES_MAX)
#define SUP_RING_CAPACITY	1024u
#define SUP_START_LIMIT_NS	(20 * MKV_NS_PER_SEC)	/* exec to HELLO */
#define PROC_FORGIVEN_MAX	3u
#define PROC_ACCUSE_MAX		3u			/* neighbours that a child's word ends within server.crash_window */
#define PROC_START_PATIENCE	6u			/* times server.ping_timeout, until it is ready */
#define SUP_RAIL_PATIENCE_NS	(3 * MKV_NS_PER_SEC)	/* the start does not wait longer for other fronts than those for TCP */
#define SUP_KILL_LIMIT_MS	2000u			/* at the end: SIGKILL to giving up on a process that the kernel holds */

struct mkv_sup;
struct admin;
struct operator;

enum sup_kind {
#define MKV_PROC(KIND, name, program, ctl)	SUP_##KIND,
#include "common/tbl/procs.def"
#undef MKV_PROC
	SUP_KIND_COUNT
};

/* One process: from fork until it was reaped. On the heap, because libuv gives its handles back late. */
struct life {
	struct proc	*proc;
	pid_t		pid;
	int		pidfd;
	uv_poll_t	*watch;
	struct ctl	ctl;
	struct logs_src	log;
	int		hello, configured, ready, stopped;
	int		forget_all;		/* drive: told to begin empty */
	int		reaped;			/* its pid may be another's by now */
	int		broken;			/* its control socket ended or it talked nonsense: SIGKILL is on its way */
	uint64_t	ping_nonce, ping_sent_ns, pong_ns;	/* ping_sent_ns 0: none is open */
	unsigned	regions_asked;		/* drive: REGIONs that it has not answered */
};

/* Of a front:rdma: rails.c. */
struct sup_rail {
	uint32_t	number;			/* on the wire, from 1; 0: this process is no rail */
	int		door_fd;		/* the end that TCP fronts send to, of the present life; -1: none */
	int		up;			/* what follows is from its own words in this life */
	uint32_t	transports, speed_mbit, mtu;
	uint8_t		gid[16], address[16];
	char		without_dc[256];	/* why it has no DC; "": it has, or says nothing */
};

/* One row of the table of processes: as long as the supervisor lives. */
struct proc {
	struct child	child;
	struct mkv_sup	*sup;
	enum sup_kind	kind;
	uint32_t	index;			/* among its kind: front index, pool map index */
	uint32_t	number;			/* in sup->proc[] */
	uint32_t	epoch;			/* of the present life, or of the last */
	int		node;			/* NUMA node that it and its memory are kept on; -1: none */
	uint32_t	died_epoch;		/* the server's epoch when the last life ended; 0: none did */
	uv_timer_t	timer;
	struct life	*life;
	struct logs_words words;
	char		why[640];		/* its own words for its end, or ours */
	char		io[16];			/* from READY */
	char		jail_missing[256];
	char		detail[640];
	int		absent;			/* front:rdma: its device was not there in the last life: no further word of that until it is */
	int		readonly;
	uint64_t	accuse_ns[PROC_ACCUSE_MAX];	/* when its word ended a neighbour last, over all its lives; 0: never */
	unsigned	forgiven_count;		/* starts in a row that failed over a later epoch on the medium */
	/* Kept for its life and the next. -1: none. */
	int		bell_shm, bell_wait, bell_ring;
	int		metrics_fd;
	struct mkv_metrics *metrics;
	int		stage_fd;		/* front */
	struct pages_mem stage;
	uint32_t	stage_epoch;
	int		listen_fd;		/* front:tcp, front:local */
	struct sup_rail	rail;			/* front:rdma */
	int		arena_fd, arena_meta_fd;	/* drive, memory mode */
	struct pages_mem arena;
	uint64_t	arena_meta_bytes;
};

/* Ring pair of two processes a < b (numbers): fd[0] a to b, fd[1] b to a. epoch 0: none. */
struct sup_ring {
	int		fd[2];
	uint32_t	epoch;
};

/* A drive beside its row in the map (state.drive[].row). */
struct pool_drive {
	int		wanted;			/* has a process, or should have */
	int		ready;			/* its present process has said READY and is spoken to */
	int		forgot;			/* ... and began empty */
	uint64_t	stored;			/* version that its present process has kept; 0: none yet */
	uint64_t	kept;			/* that it is known to have kept in any life */
	int		log_lost;		/* away: what was written meanwhile is not known to the others */
	int		asked;			/* its log is waited for */
	uint32_t	found;			/* row + 1 of the drive that its medium turned out to be; 0: nothing known (moved.c) */
	uint32_t	replaces;		/* row + 1 of the drive that is drained when this one is online */
	uint64_t	total_bytes, used_bytes;
	uint32_t	drained_epoch;		/* no I/O of it is left up to here, whoever it was for */
	uv_timer_t	drain_timer;		/* armed from START of a life to its DRAINED, and from SIGKILL to the end */
	int		drain_late;
	/* For each front: the same, for that front's buffers alone. */
	uint32_t	front_drained[CONFIG_FRONTS_MAX];
};

enum pool_join { POOL_JOIN_NONE, POOL_JOIN_FENCE, POOL_JOIN_LOGS, POOL_JOIN_APPLY };	/* pool.c */

enum sup_phase {
	SUP_STARTING,			/* until everything runs or is settled */
	SUP_SERVING,
	SUP_STOPPING_FRONTS,
	SUP_STOPPING_DRIVES,
	SUP_DONE
};

struct mkv_sup {
	uint32_t	magic;
	enum sup_phase	phase;
	uv_loop_t	*loop;
	const struct config_args *args;
	struct config	*config;
	const struct mkv_params *params;	/* of config */
	const struct config_derived *conf;	/* of config */
	struct child_policy policy;
	struct state	state;
	int		state_late;		/* the file lacks what state has: the disk refused it */
	struct keys	keys;
	char		libexec[512];
	uint64_t	started_ns, started_wall_ms;
	int		exit_status;
	uint16_t	data_port, admin_port;	/* as bound */
	uint32_t	front_count, drive_count, proc_count;
	uint32_t	shard_count, rail_count;	/* of the fronts: those for TCP, which come first; for RDMA devices, behind them; then front:local */
	struct proc	proc[SUP_PROCS_MAX];	/* fronts first */
	struct sup_ring	*ring;			/* [a * SUP_PROCS_MAX + b], a < b */
	struct pool_drive pool[CONFIG_DRIVES_MAX];
	struct mkv_map	served;			/* what fronts go by; at start: what they went by in the last life */
	int		pool_open;		/* fronts of this life go by it */
	int		pool_changed;		/* since the last life */
	int		map_adopted;		/* a medium's map was later than the state file's */
	uint64_t	place_version;		/* of the first version with the present placement */
	enum pool_join	join;
	uint32_t	joiner;
	struct mkv_metrics *metrics;		/* the supervisor's own */
	struct logs_out	out;
	struct logs_src	own_log;
	int		own_log_fd;		/* its writing end; 0: none */
	struct logs_words own_words;
	uv_signal_t	sig_term, sig_int, sig_hup;
	uv_timer_t	ping_timer, stop_timer;
	uint64_t	pinged_ns;		/* when the ping timer last ran */
	struct admin	*admin;
	struct operator	*operator;
	int		ready_fd;
	int		stop_asked, stop_killed;
	int		clean;			/* at the end: no child was left behind */
};

/* sup.c */
int		sup_run(const struct config_args *args, struct config *config);	/* exit status */
void		sup_policy(struct mkv_sup *s);		/* what child.c goes by, from the parameters */
void		sup_stop(struct mkv_sup *s);
int		sup_reload(struct mkv_sup *s, char *why, unsigned why_bytes);
void		sup_on_change(struct mkv_sup *s);	/* a child changed its state: perhaps we are ready, or may go on stopping */
int		sup_serving(const struct mkv_sup *s);	/* a front and a drive can answer */
struct proc *	sup_proc_named(struct mkv_sup *s, const char *name);
void		sup_fatal(struct mkv_sup *s, const char *why);	/* nothing can serve: end with status 1 */

static inline struct proc *
sup_front(struct mkv_sup *s, uint32_t idx)
{
	return (&s->proc[idx]);
}

static inline struct proc *
sup_drive(struct mkv_sup *s, uint32_t idx)
{
	return (&s->proc[s->front_count + idx]);
}

static inline struct mkv_map_row *
pool_row(const struct mkv_sup *s, uint32_t i)
{
	return ((struct mkv_map_row *)(uintptr_t)&s->state.drive[i].row);
}

/* The number behind that of the last rail. */
static inline uint32_t
sup_rails_end(const struct mkv_sup *s)
{
	return (s->shard_count + s->rail_count);
}

static inline int
proc_is_rail(const struct proc *p)
{
	return (p->kind == SUP_FRONT_RDMA);
}

/* Its name in rdma.devices. */
static inline const char *
rail_device(const struct proc *p)
{
	return (p->sup->params->rdma_devices.item[p->rail.number - 1]);
}

static inline int
proc_is_drive(const struct proc *p)
{
	return (p->kind == SUP_DRIVE);
}

/* What there is to say of it now: of its service or of what it waits for, else of its end. */
static inline const char *
proc_words(const struct proc *p)
{
	if (p->child.state == CHILD_STOPPED && p->child.parked)
		return ("stopped by its name, and started by its name alone");
	return (p->child.state == CHILD_RUNNING || (p->child.state == CHILD_STARTING && p->why[0] == '\0') ? p->detail : p->why);
}

/* Configured in this life and not known to be broken: messages may go there. */
static inline int
proc_reachable(const struct proc *p)
{
	return (p->life != NULL && p->life->configured && !p->life->broken);
}

/* proc.c */
void		proc_init(struct mkv_sup *s, uint32_t number, enum sup_kind kind, uint32_t index);
void		proc_close(struct proc *p);
void		proc_ping(struct proc *p, uint64_t now_ns);
void		proc_ping_anew(struct proc *p, uint64_t now_ns);
Mkv__Ctl__Kind	proc_ctl_kind(enum sup_kind kind);
/* Send to the child, if it is there; a child that does not take it is ended. */
void		proc_send(struct proc *p, const Mkv__Ctl__Control *m, const int *fds, unsigned n_fds);
void		proc_break(struct proc *p, const char *why);	/* protocol broken or hung: SIGKILL */
void		proc_break_ring(struct proc *p, const struct proc *with, const char *why);	/* it damaged that ring: SIGKILL; has a life that is not broken */

/* affinity.c */
int		affinity_rail_node(const struct mkv_params *p, uint32_t rail);	/* of the device of that place in rdma.devices; -1: none */
void		affinity_place(struct proc *p);				/* finds p->node */
int		affinity_cpus(const struct proc *p, struct mkv_os_cpus *out);	/* those it is to stay on; 0: wherever the system puts it */
/* The drives that a rail reaches across NUMA nodes or PCIe domains: "drive:0 (NUMA nodes 0 and 1)"; "": none, or p is no rail. Returns dst. */
char *		affinity_far(const struct proc *p, char *dst, size_t dst_bytes);

/* spawn.c: exec of program with its four descriptors, on those processors (NULL: any). 0 and the parent's ends; MKV_E_SYSTEM. */
struct spawned {
	pid_t		pid;
	int		pidfd, ctl_fd, log_fd;
};
int		spawn_child(const char *path, const char *name, int first_life, const struct mkv_os_cpus *cpus, struct spawned *out);
const char *	spawn_program(enum sup_kind kind);

/* heritage.c */
int		heritage_create(struct mkv_sup *s, char *why, unsigned why_bytes);	/* segments, listeners: at start */
void		heritage_destroy(struct mkv_sup *s);
int		heritage_add(struct proc *p, char *why, unsigned why_bytes);	/* of a drive that comes while the server runs */
const struct pages_mem *heritage_memory(const struct proc *p);		/* what others map of it; NULL: nothing */
int		heritage_rings(struct proc *p);				/* fresh rings with all living neighbours, told to those configured */
void		heritage_drop_rings(struct proc *p);
uint32_t	heritage_ring_epoch(const struct proc *a, const struct proc *b);	/* of their present ring; 0: there is none */
void		heritage_give(struct proc *p);				/* CONFIGURE ... START */
void		heritage_configure(struct proc *p);			/* CONFIGURE alone: reload */
void		heritage_key(struct proc *p, const struct key *k, int revoked);

/* regions.c */
void		regions_on_ask(struct proc *front, const Mkv__Ctl__Region *m, int fd);
void		regions_on_done(struct proc *drive, const Mkv__Ctl__RegionDone *m);

/* rails.c */
int		rails_open_door(struct proc *rail);			/* of the life that is being configured; the front's end goes to it. MKV_E_* */
void		rails_tell_all(struct proc *front);			/* a TCP front that is being configured */
int		rails_on_ready(struct proc *p, const Mkv__Ctl__Rail *r);	/* 0: it is refused. Of every front; r may be NULL */
void		rails_on_state(struct proc *p, const Mkv__Ctl__Rail *r);
void		rails_on_end(struct proc *rail);			/* it died, or is about to: SIGKILL is on its way */
void		rails_on_stop(struct proc *rail);			/* it was told to stop */
unsigned	rails_up(const struct mkv_sup *s);

/* peers.c */
int		peers_raise_epoch(struct mkv_sup *s, char *why, unsigned why_bytes);	/* durable when it returns 0 */
void		peers_save_late(struct mkv_sup *s);			/* the state file, if it could not be written */
void		peers_saw_epoch(struct mkv_sup *s, uint32_t seen);	/* a medium carries a later one */
void		peers_init(struct mkv_sup *s);
void		peers_close(struct mkv_sup *s);
void		peers_on_death(struct proc *p, uint32_t epoch_died, int clean);
void		peers_on_drained(struct proc *drive, const Mkv__Ctl__Drained *d);
void		peers_on_ring_bad(struct proc *p, const Mkv__Ctl__RingBad *b);
int		peers_save(struct mkv_sup *s, char *why, unsigned why_bytes);
void		peers_on_broken(struct proc *p);			/* SIGKILL is on its way */
int		peers_on_ready(struct proc *drive, const Mkv__Ctl__Ready *r);	/* 0: it is refused */
void		peers_init_drive(struct mkv_sup *s, uint32_t drive);
void		peers_on_state(struct proc *p, enum child_state from);
void		peers_catch_up(struct proc *p);				/* just configured: map, what was drained meanwhile */

/* operator_space.c */
void		operator_space_purged(struct proc *p, const Mkv__Ctl__Purged *m);
void		operator_space_rows(struct proc *p, const Mkv__Ctl__Spaces *m);

/* pool.c */
int		pool_init(struct mkv_sup *s, char *why, unsigned why_bytes);	/* rows and their configuration; before the table of processes */
void		pool_begin(struct mkv_sup *s);
void		pool_configure(struct mkv_sup *s, uint32_t i);
void		pool_catch_up(struct proc *p);
void		pool_step(struct mkv_sup *s);
void		pool_tick(struct mkv_sup *s);
void		pool_out(struct mkv_sup *s, uint32_t i, enum mkv_drive_state state);	/* FAILED, ABSENT, REMOVED */
void		pool_on_state(struct proc *p);
void		pool_on_death(struct mkv_sup *s, uint32_t i);
void		pool_on_ready(struct proc *drive, const Mkv__Ctl__Ready *r);
void		pool_on_stored(struct proc *drive, uint64_t version);
void		pool_on_log(struct proc *drive, const Mkv__Ctl__AwayLog *l);
int		pool_forgets(const struct mkv_sup *s, uint32_t i);
void		pool_purged(struct mkv_sup *s, uint32_t i);		/* a namespace, while i is away: what i has of it is in no log */
enum mkv_drive_state pool_state(const struct mkv_sup *s, uint32_t i);	/* for eyes: RESTARTING as well */
uint32_t	pool_online(const struct mkv_sup *s);
int		pool_gone(const struct proc *p);			/* of a drive that was removed */
uint32_t	pool_removed(const struct mkv_sup *s);
int		pool_others(const struct mkv_sup *s, uint32_t drive);
int		pool_served(const struct mkv_sup *s);			/* fronts go by what is decided */
void		pool_remove(struct mkv_sup *s, uint32_t i);
const char *	pool_drain(struct mkv_sup *s, uint32_t i);		/* NULL, or why not */
int		pool_add(struct mkv_sup *s, const char *media, uint64_t max_size, double factor, uint32_t *idx, const char **why);
void		pool_bring_back(struct mkv_sup *s, uint32_t i);		/* one that was removed, or is new: it is to be started, and begins empty */
int		pool_locate(const struct mkv_sup *s, const char *ns, const char *key, int *former);	/* row, -1: nowhere */

/* moved.c: media that turn out to be another row's drive */
int		moved_taken(struct proc *p, const uint8_t *uuid);	/* another row has it: then why says so */
void		moved_found(struct proc *p, const uint8_t *uuid);	/* its process says so and ends */
void		moved_step(struct mkv_sup *s);

/* notify_*.c: the service manager, if there is one */
void		notify_ready(struct mkv_sup *s);
void		notify_stopping(void);
void		notify_close(void);

#endif
