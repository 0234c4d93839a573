/*
 * What memkv-front and memkv-drive share: entry, life, control end, loop, peers and their rings. One thread.
 *
 * The room writes `int main(argc, argv) { return (mkv_worker_main(argc, argv, &front_ops)); }` and the callbacks below. Life:
 *
 *	state		who moves it on			what the room may do
 *	SETUP		supervisor: START		keep what message() brings (stages, arenas, listeners, keys, pool map)
 *	STARTING	room: mkv_worker_ready()	start(): open the medium, mkv_worker_pump() while it waits, mkv_worker_open_queue(), register
 *							files and buffers, mkv_worker_jail(); then recover from the loop and say ready
 *	RUNNING		supervisor: STOP, or its end	everything
 *	STOPPING	room: mkv_worker_stopped()	stop(): finish what is in flight, sync; within the grace, then the process ends anyway
 *
 * Core itself does: HELLO, CONFIGURE (params, names), METRICS, BELL, RING, PEER_DIED, PING (from the loop: liveness means that it turns), STOP;
 * checks who may say what and when (ctl.c); opens, polls, rings and closes the rings of all peers.
 */
#ifndef MKV_WORKER_CORE_H
#define MKV_WORKER_CORE_H

#include <stdint.h>

#include "common/base/assert.h"
#include "common/base/ioq.h"
#include "common/base/place.h"
#include "common/base/timer.h"
#include "common/shm/ring.h"
#include "proto/control.pb-c.h"

struct mkv_params;
struct mkv_metrics;
struct mkv_worker;

#define MKV_WORKER_MAGIC	0x3c0a97f1u
#define MKV_PEERS_MAX		256u		/* fronts + drives a worker talks to */
#define MKV_POP_BATCH		64u		/* descriptors of one ring in one turn */

enum mkv_worker_state { MKV_WORKER_SETUP, MKV_WORKER_STARTING, MKV_WORKER_RUNNING, MKV_WORKER_STOPPING, MKV_WORKER_ENDED };

/* A process at the far end of a pair of rings. The struct stays where it is for the life of this process, also while the peer is dead. */
struct mkv_peer {
	uint32_t	magic;
	Mkv__Ctl__PeerKind kind;
	uint32_t	index;		/* of that kind: front index, drive's pool map index */
	uint32_t	epoch;		/* of the present rings; of the last ones while it is down */
	int		up;		/* rings are open: push works */
	void		*room;		/* the room's own, core never looks */
	/* core's */
	struct mkv_ring	out, in;
	struct mkv_bell	bell;
	int		has_bell, rang;
	int		out_bad;	/* MKV_E_* of a push that found its ring unusable */
};

struct mkv_worker_ops {
	const char	*program;	/* "memkv-drive" */
	int		is_drive;
	/*
	 * Every callback: loop thread. An int that is not 0 ends the process with Fail (call mkv_worker_fail() for better words).
	 * After the first CONFIGURE: w->params and the names are there, nothing else is.
	 */
	int		(*init)(struct mkv_worker *w);
	/* KEY STAGE ARENA LISTENER DOOR POOL_MAP PEER_DRAINED REGION REGION_DONE, CONFIGURE on reload. Descriptors: keep one by setting its fds[] to -1; the rest is closed. */
	int		(*message)(struct mkv_worker *w, const Mkv__Ctl__Control *m, int *fds, unsigned n_fds);
	int		(*start)(struct mkv_worker *w);
	/* New rings are open (p->epoch). Comes for a first and for a restarted peer; peer_down came before if there were older ones. */
	void		(*peer_up)(struct mkv_worker *w, struct mkv_peer *p);
	/*
	 * It died (PEER_DIED; epoch: the one it lived in) or broke its ring (epoch: the ring's): nothing of it will be popped any more, pushes
	 * answer MKV_E_CLOSED. Comes twice when it broke its ring and was ended for it. restarting: 0 when it will not come back.
	 */
	void		(*peer_down)(struct mkv_worker *w, struct mkv_peer *p, uint32_t epoch, int restarting);
	/* One descriptor, a copy. 0, or MKV_E_PEER: it is damaged; core then closes that ring, reports it and calls peer_down. */
	int		(*desc)(struct mkv_worker *w, struct mkv_peer *p, const struct mkv_desc *d);
	void		(*turn)(struct mkv_worker *w, uint64_t now_ns);		/* once a turn, after rings and timers; may be NULL */
	/* Before each wait, bells were rung: 0: do not wait, another turn. What else is to wake the queue is asked for here, and only here. May be NULL. */
	int		(*may_sleep)(struct mkv_worker *w);
	void		(*stop)(struct mkv_worker *w, uint64_t grace_ms);
	void		(*fini)(struct mkv_worker *w);	/* last, w->q is gone, no I/O lands any more; not if init was never called; may be NULL */
};

struct mkv_worker {
	uint32_t	magic;
	enum mkv_worker_state state;
	const struct mkv_worker_ops *ops;
	void		*room;			/* the room's own */

	/* from CONFIGURE */
	struct mkv_params *params;
	char		name[64];
	Mkv__Ctl__Kind	kind;
	uint32_t	index, epoch, front_id, front_count, drive_count;
	uint8_t		server_id[16], store_secret[32], drive_uuid[16];
	uint8_t		other_uuid[MKV_MAP_DRIVES_MAX][16];
	uint32_t	other_count;
	int		loopback_only, has_drive_uuid, forget_all;
	char		media[256];
	char		local_path[112];	/* front of KIND_FRONT_TCP: what it tells clients on this host */
	char		device[64];		/* front of KIND_FRONT_RDMA: its device, ... */
	uint32_t	rail;			/* ... its number on the wire; 0: no such front */
	uint64_t	max_size;

	struct mkv_metrics *metrics;		/* NULL until METRICS came; all calls accept NULL */
	struct mkv_ioq	*q;			/* NULL until mkv_worker_open_queue() */
	struct mkv_timers timers;
	uint64_t	now_ns;			/* of this turn */

	/* core's */
	struct mkv_peer	*peer[MKV_PEERS_MAX];
	unsigned	n_peers;
	struct mkv_bell	bell;			/* own: we sleep on it */
	int		has_bell;
	struct mkv_io	bell_io, ctl_io;
	struct mkv_ctl	*ctl;
	struct mkv_timer stop_timer;
	uint64_t	spin_ns, gap8_ns, last_desc_ns;
	int		ctl_file, bell_file;	/* registered */
	uint64_t	turns, bell_calls;	/* counted for the room's metrics */
	unsigned	jail_missing;
	int		readonly, failed;	/* last reported */
	int		exit_code, jailed, orphan, started;
};

int		mkv_worker_main(int argc, char **argv, const struct mkv_worker_ops *ops);

/*
 * The queue and the timers; opts->restricted is set here. The control socket and the own bell are registered with it. From start() only.
 * timers: most that are armed at a time.
 */
int		mkv_worker_open_queue(struct mkv_worker *w, const struct mkv_ioq_opts *opts, uint32_t timers);
/*
 * Close the jail (jail.h) with the queue's restrictions; from start(), after every file and buffer is registered and before the first foreign
 * byte is read. What is not possible here is logged and goes into READY. may: MKV_IOQ_MAY_*, MKV_JAIL_MAY_VERBS, ... (jail.h).
 */
void		mkv_worker_jail(struct mkv_worker *w, unsigned may);
/* Before the queue exists: answer the supervisor until until_ns or until *wake_fd (if not NULL) is readable. 0, or not 0: leave start() with it. */
int		mkv_worker_pump(struct mkv_worker *w, uint64_t until_ns, const int *wake_fd);

/* To the supervisor. They never block: messages that the socket does not take wait (the supervisor that reads nothing is taken for dead). */
void		mkv_worker_ready(struct mkv_worker *w, Mkv__Ctl__Ready *ready);		/* io and jail_missing are filled in here */
void		mkv_worker_drained_own(struct mkv_worker *w);
void		mkv_worker_drained_front(struct mkv_worker *w, uint32_t front, uint32_t epoch);
void		mkv_worker_report(struct mkv_worker *w, int readonly, int failed, const char *detail);	/* State; -1: as last time */
/* State of an RDMA front: its port went down, or came back. What stands in Rail replaces what READY said. */
void		mkv_worker_report_rail(struct mkv_worker *w, Mkv__Ctl__Rail *rail, const char *detail);
void		mkv_worker_report_hang(struct mkv_worker *w, const char *detail);	/* drive: an I/O request does not end */
void		mkv_worker_map_stored(struct mkv_worker *w, uint64_t version);
void		mkv_worker_away_log(struct mkv_worker *w, Mkv__Ctl__AwayLog *part);
void		mkv_worker_purged(struct mkv_worker *w, Mkv__Ctl__Purged *answer);
void		mkv_worker_spaces(struct mkv_worker *w, Mkv__Ctl__Spaces *part);
/* Front of the unix socket: a client's memory to a drive, fd -1: to be dropped. 0; MKV_E_BUSY, MKV_E_NOMEM: try again; MKV_E_CLOSED. fd stays the caller's. */
int		mkv_worker_region(struct mkv_worker *w, Mkv__Ctl__Region *ask, int fd);
void		mkv_worker_region_done(struct mkv_worker *w, Mkv__Ctl__RegionDone *answer);	/* drive: the answer to one of them */
void		mkv_worker_stopped(struct mkv_worker *w);				/* STOPPED, then exit 0 */
/* Cannot serve: logs, sends Fail, ends the loop, exit 1. Returns MKV_E_CANCELLED, so that callbacks can return it. */
int		mkv_worker_fail(struct mkv_worker *w, int final, const char *fmt, ...) MKV_PRINTF(3, 4);
/* An RDMA front: its device is not there, or went away. Started again with a growing pause until it is there; no fault of this process. */
int		mkv_worker_fail_absent(struct mkv_worker *w, const char *fmt, ...) MKV_PRINTF(2, 3);
/* The medium has seen an epoch that is not below ours: start us again with a later one. */
int		mkv_worker_fail_epoch(struct mkv_worker *w, uint32_t epoch_seen);
/* The medium is this server's and another drive than it should be. */
int		mkv_worker_fail_uuid(struct mkv_worker *w, uint8_t uuid_seen[16], char *why);

struct mkv_peer *mkv_worker_peer(struct mkv_worker *w, Mkv__Ctl__PeerKind kind, uint32_t index);	/* NULL: never heard of */
/* Push; the peer's bell is rung once, at the end of the turn. 0; MKV_E_AGAIN full; MKV_E_CLOSED down (also after damage: peer_down follows). */
int		mkv_peer_push(struct mkv_worker *w, struct mkv_peer *p, const struct mkv_desc *d);

#endif
