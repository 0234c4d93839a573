/*
 * The front-end between clients and drives, without its process: a loop thread's worth of connections, requests and rings.
 *
 * main.c joins it with the control socket and the jail; the unit tests join it with a drive made of the same rings in the same process. Everything
 * here belongs to one thread. All memory is taken in mkv_front_create() (and when a session opens: its two MAC contexts).
 */
#ifndef MKV_WORKER_FRONT_FRONT_H
#define MKV_WORKER_FRONT_FRONT_H

#include <stdint.h>
#include <sys/socket.h>

#include "common/base/ioq.h"
#include "common/base/place.h"
#include "common/base/timer.h"
#include "common/shm/metric.h"
#include "common/shm/ring.h"
#include "common/shm/stage.h"

struct mkv_wire_rail;

#define MKV_FRONT_DRIVES_MAX	MKV_MAP_DRIVES_MAX	/* pool map indexes: 0..63 */
#define MKV_FRONT_LISTENERS_MAX	8u
#define MKV_FRONT_KEYS_MAX	16u

#define MKV_FRONT_LOOSE_NS	(60 * 1000000000ull)

struct mkv_front;

struct mkv_front_conf {
	uint32_t	front_id;		/* on the wire: in key derivation */
	uint16_t	rail;			/* of an RDMA front: its own; HELLO must ask for it. 0: a TCP front */
	uint32_t	epoch;
	uint8_t		server_id[16];
	uint8_t		store_secret[32];
	uint8_t		host_id[16];		/* mkv_key_host(), ... */
	char		local_path[112];	/* ... what clients on this host are told: the unix socket of another front; "": none */
	uint32_t	connections_max;
	uint32_t	inflight_max;		/* requests of one session */
	uint32_t	requests_max;		/* of all sessions */
	uint64_t	regions_bytes;		/* what regions of clients on unix sockets may count, twice their bytes each; 0: no regions */
	uint32_t	part_bytes;		/* extent: power of two, MKV_EXTENT_MIN..MKV_EXTENT_MAX */
	uint64_t	handshake_ns, idle_ns;
	uint64_t	loose_ns;		/* a session without a connection ends after so long without a message; 0: MKV_FRONT_LOOSE_NS */
	uint64_t	stall_ns;		/* for the next piece of a frame; 0: its deadline is the limit */
	int		accepted;		/* storage.durability: accepted */
	int		memory_mode;		/* drives are arenas */
	int		verify_put;		/* bytes that RDMA brought, or that lie in regions, are checked against the writer's CRCs, as those of a stream always are */
	/* To a drive; its bell is rung once a turn. 0; MKV_E_AGAIN full; MKV_E_CLOSED down. */
	int		(*push)(void *arg, uint32_t drive, const struct mkv_desc *d);
	/*
	 * To a drive, by way of the supervisor: a client's memory, fd -1: to be dropped; answered by mkv_front_lent(). epoch: of its rings. 0; MKV_E_*: try again. NULL:
	 * drives move nothing themselves.
	 */
	int		(*lend)(void *arg, uint32_t drive, uint32_t epoch, uint32_t region, uint64_t bytes, int fd);
	void		*arg;
};

struct mkv_front_drive {			/* a row of the pool map */
	uint32_t	index;
	uint8_t		uuid[16];
	double		weight;
	double		former;			/* in the placement before; 0: took no part */
	enum mkv_drive_state state;
};

/* 0; MKV_E_NOMEM; MKV_E_INVAL. q, timers, stage and m stay the caller's and must outlive the front. m may be NULL. */
int		mkv_front_create(struct mkv_front **out, const struct mkv_front_conf *conf, struct mkv_ioq *q, struct mkv_timers *timers,
		    struct mkv_stage *stage, struct mkv_metrics *m);
/* When nothing of it is with the queue any more: mkv_front_idle(), or the queue is gone. Accepts NULL. */
void		mkv_front_destroy(struct mkv_front **f);
/* How many timers a front of this configuration may have armed, and how many operations with its queue. */
uint32_t	mkv_front_timers(const struct mkv_front_conf *conf);
uint32_t	mkv_front_depth(const struct mkv_front_conf *conf);

/* From the control socket. */
int		mkv_front_key(struct mkv_front *f, uint32_t key_id, const uint8_t key[32], int dev, int revoked);	/* MKV_E_NOSPACE */
int		mkv_front_map(struct mkv_front *f, uint64_t version, const struct mkv_front_drive *d, unsigned n);	/* MKV_E_INVAL */
int		mkv_front_arena(struct mkv_front *f, uint32_t drive, int fd, uint64_t bytes);
void		mkv_front_drive_up(struct mkv_front *f, uint32_t drive, uint32_t epoch);	/* new rings are open */
/* It died or damaged its ring: what it was given under epochs <= epoch is quarantined, its requests are told. */
void		mkv_front_drive_down(struct mkv_front *f, uint32_t drive, uint32_t epoch);
void		mkv_front_drive_drained(struct mkv_front *f, uint32_t drive, uint32_t epoch);
/* What a drive says about a region that it was asked to take or drop. */
void		mkv_front_lent(struct mkv_front *f, uint32_t drive, uint32_t epoch, uint32_t region, int drop, int status);
/* A copy of what came on its ring. 0, or MKV_E_PEER: it cannot be an answer; close that ring. */
int		mkv_front_desc(struct mkv_front *f, uint32_t drive, const struct mkv_desc *d);
/* file: as for mkv_ioq_accept(). Accepting begins with mkv_front_start(). */
int		mkv_front_listen(struct mkv_front *f, int file);
void		mkv_front_start(struct mkv_front *f);
/*
 * A rail as clients are told of it: new, or what stands there now replaces what stood there. door: where connections that ask for it are passed, taken in
 * any case; -1: as before. An RDMA front tells its own rail here as well, without a door. 0; MKV_E_INVAL.
 */
int		mkv_front_rail(struct mkv_front *f, const struct mkv_wire_rail *row, int door);
/* An RDMA front, before mkv_front_start(): where passed connections come from. fd is taken; file: the same for mkv_ioq_poll(). */
void		mkv_front_door(struct mkv_front *f, int fd, int file);
/* No new connections or requests; what is in flight goes on until it is done or grace_ns from now, then connections are closed. */
void		mkv_front_stop(struct mkv_front *f, uint64_t grace_ns);
int		mkv_front_idle(const struct mkv_front *f);	/* 1: stopped, and no connection, request or answer of a drive is left */

void		mkv_front_reload(struct mkv_front *f, const struct mkv_front_conf *c);		/* times, durability and checks of it */

int		mkv_front_is_loopback(const struct sockaddr_storage *ss);			/* also of a unix socket */

/*
 * Serve a connected, non-blocking socket. The descriptor is taken in any case. from: the peer's address; NULL: this host, without one. 0; MKV_E_BUSY: one too many; if a spare context is free, its HELLO
 * is answered with that, else it is closed.
 */
int		mkv_front_adopt(struct mkv_front *f, int fd, const struct sockaddr_storage *from);

/* The same for one that another front has read n bytes of, HELLO first (pass.h). */
int		mkv_front_adopt_passed(struct mkv_front *f, int fd, const struct sockaddr_storage *from, const void *bytes, uint32_t n);

/*
 * One turn: move what rings, sockets and timers woke, begin the sends. To be called after every mkv_ioq_run() and its rings, before the next.
 * Returns 0 when nothing of it could do more now. Never blocks.
 */
unsigned	mkv_front_turn(struct mkv_front *f);
/* After a turn that returned 0, when the bells of drives were rung: 1: whatever comes will wake the queue; 0: one more turn. */
int		mkv_front_may_sleep(struct mkv_front *f);
/* Gauges into the metric page. */
void		mkv_front_gauges(struct mkv_front *f);

#endif
