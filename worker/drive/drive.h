/*
 * The drive process around the engine: its medium, its fronts, its answers. Loop thread; owned by main.c.
 */
#ifndef MKV_DRIVE_DRIVE_H
#define MKV_DRIVE_DRIVE_H

#include "common/base/place.h"
#include "common/base/timer.h"
#include "common/shm/stage.h"
#include "worker/core/core.h"
#include "worker/drive/engine.h"

#define MKV_DRIVE_MAGIC		0xd51e0a11u
#define DRIVE_FRONTS_MAX	64u
#define DRIVE_BACKLOG_MAX	8192u		/* descriptors that wait for the engine, answers that wait for a ring */
#define DRIVE_BUF_SLOTS		256u		/* registered ranges of at most 1 GiB */
#define DRIVE_RANGE_BYTES	(1ull << 30)

struct drive_stage {
	struct mkv_stage *stage;
	uint8_t		*base;
	uint64_t	bytes;
	int		first_buf;		/* registered slot of its first GiB, -1: not registered */
};

/* One incarnation of a front's rings. A dead one stays until its last request is complete. */
struct drive_client {
	struct mkv_peer	*peer;			/* NULL: free */
	uint32_t	epoch;
	int		dying;
};

/* Memory of a client: regions.c. */
struct drive_region {
	uint32_t	client;			/* of which incarnation of a front */
	uint32_t	id;			/* that front's number; 0: free */
	uint8_t		*base;			/* never touched by this process */
	uint64_t	bytes;
	int		first_buf;		/* registered slot of its first GiB; -1: not yet */
	unsigned	refs;			/* requests */
	int		leaving;		/* DROP came: answered when refs is 0 */
};

struct drive_wait {
	uint32_t	client;
	struct mkv_desc	desc;
};

struct drive_backlog {				/* first come, first served */
	struct drive_wait *wait;
	uint32_t	head, count;
};

struct drive {
	uint32_t	magic;
	struct mkv_worker *w;
	struct mkv_engine *e;
	struct mkv_media *media;
	struct mkv_engine_opts opts;
	int		fd, file;		/* medium, and its index in the queue */
	int		is_block;
	int		arena_fd, meta_fd;
	uint64_t	arena_bytes, meta_bytes;
	struct drive_stage stage[DRIVE_FRONTS_MAX];
	unsigned	buf_slots;		/* given out */
	int		buffers;		/* registration works */
	uint8_t		slot_region[DRIVE_BUF_SLOTS];	/* 1: a region's */
	struct drive_region region[MKV_DRV_REGIONS_MAX];
	unsigned	regions;		/* how many there are */
	struct drive_client client[MKV_ENGINE_CLIENTS_MAX];
	uint32_t	drain_epoch[DRIVE_FRONTS_MAX];	/* DRAINED to be said when the last dying client of that front is done; 0: none */
	struct drive_backlog requests, answers;
	struct mkv_timer timer;
	struct mkv_map	map;			/* the last one heard; version 0: none */
	uint64_t	removed_told;		/* rows whose end the engine has heard of */
	int		opening, stopping;
	int		hangs;			/* reported */
	uint64_t	errors_ns, errors_then;	/* the minute in which errors are counted, how many there were before it */
	uint64_t	give_up_ns;		/* it is to be reported as failed or read-only since then; 0: it is not */
	int		give_up_readonly;
	char		give_up_why[160];
	uint64_t	count_ns, enters, bells;
};

/* medium.c: from start(), before the jail. 0, or what mkv_worker_fail() returned. */
int	drive_medium_open(struct drive *d);
int	drive_medium_media(struct drive *d);	/* after the queue is there */
int	drive_medium_punched(const struct drive *d);	/* a file whose free space is given back */

/* stages.c */
int	drive_stage_add(struct drive *d, uint32_t front, int fd, uint64_t bytes, int huge);
void	drive_stages_register(struct drive *d);
void	drive_stages_close(struct drive *d);
void *	drive_buffer(void *arg, uint32_t client, uint64_t off, uint64_t bytes, int *buf_idx);

/* regions.c */
int	drive_region_message(struct drive *d, const Mkv__Ctl__Region *m, int fd);	/* 0; MKV_E_PROTO. fd stays the caller's */
void	drive_regions_start(struct drive *d);	/* the queue and its table are there */
void	drive_regions_gone(struct drive *d, uint32_t client);	/* the last request of this client has ended */
void	drive_regions_close(struct drive *d);
void *	drive_region(void *arg, uint32_t client, uint32_t id, uint64_t off, uint64_t bytes, int *buf_idx);
void	drive_region_done(void *arg, uint32_t client, uint32_t id);

/* pool.c */
int	drive_pool_message(struct drive *d, const Mkv__Ctl__Control *m);
void	drive_map_stored(void *arg, uint64_t version);
void	drive_purged(void *arg, uint64_t id, int err, uint64_t objects, uint64_t bytes);
void	drive_map_ready(struct drive *d);	/* the engine is open */
void	drive_give_up(struct drive *d, int readonly, const char *why);	/* say so when the failure registry is on the medium, or soon */
void	drive_watch(struct drive *d, uint64_t now);	/* does the medium hang, or fail again and again? */
/* What the medium has kept, for READY; rows: room for MKV_MAP_DRIVES_MAX. */
void	drive_map_fill(const struct mkv_map *map, Mkv__Ctl__PoolMap *out, Mkv__Ctl__PoolDrive *rows, Mkv__Ctl__PoolDrive **list);

/* fronts.c */
int	drive_fronts_init(struct drive *d);
void	drive_fronts_fini(struct drive *d);
void	drive_peer_up(struct mkv_worker *w, struct mkv_peer *p);
void	drive_peer_down(struct mkv_worker *w, struct mkv_peer *p, uint32_t epoch, int restarting);
int	drive_desc(struct mkv_worker *w, struct mkv_peer *p, const struct mkv_desc *d);
void	drive_reply(void *arg, const struct mkv_call *call, const struct mkv_drv_rep *rep);
void	drive_client_done(void *arg, uint32_t client);
int	drive_front_client(const struct drive *d, uint32_t front, uint32_t epoch);	/* the living one of this ring; -1: none */
void	drive_peer_send(void *arg, uint32_t drive, const struct mkv_desc *desc);
unsigned drive_fronts_turn(struct drive *d);	/* what waited goes on; how many requests were taken up */

#endif
