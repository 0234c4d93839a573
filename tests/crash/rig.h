/*
 * An engine in a test: a medium of any kind, staging memory, requests that are waited for. Tests only, one thread.
 */
#ifndef MKV_TESTS_RIG_H
#define MKV_TESTS_RIG_H

#include "common/base/ioq.h"
#include "tests/crash/media_sim.h"
#include "worker/drive/engine.h"

#define RIG_SLOTS	64u			/* with staging memory; slots beyond are for requests without buffers */
#define RIG_CALLS	256u
#define RIG_SLOT_BYTES	(4u << 20)		/* staging memory of a slot */

enum rig_kind { RIG_SIM, RIG_URING, RIG_THREADS, RIG_MEMORY };

struct rig_slot {
	int		busy, done;
	uint32_t	gen;
	struct mkv_drv_rep rep;
};

struct rig {
	enum rig_kind	kind;
	struct mkv_engine *e;
	struct mkv_engine_opts o;
	struct mkv_media *media;
	struct media_sim *sim;
	struct mkv_ioq	*q;
	int		fd, meta_fd;
	char		path[64];
	uint64_t	bytes, meta_bytes;
	uint8_t		*stage;
	struct rig_slot	slot[RIG_CALLS];
	uint64_t	now_ns, wall_ms;	/* virtual: moved by rig_turn() and the test */
	uint64_t	look_ns;		/* time that a look at the clock takes; 0: a turn is a moment */
	int		readonly, client_done, dead;
	unsigned	peers;			/* messages to other drives */
	struct mkv_desc	peer[16];
	uint32_t	peer_drive[16];
	unsigned	get_flags;		/* of rig_get() */
	uint32_t	epoch_seen;
	uint64_t	map_stored;
	uint64_t	purged_id, purged_objects;	/* the last purge that was answered */
	int		purged_err;
	char		why[512];
	struct mkv_media *(*wrap)(struct rig *r, struct mkv_media *m);	/* not NULL: what the engine gets instead of m, which it closes */
};

struct rig *rig_create(enum rig_kind kind, uint64_t bytes, uint64_t seed);
void	rig_destroy(struct rig **r);
/* Open or open again; abandon: as after a crash (files: the process died; sim: call sim_reboot() between). 0 or what open said. */
int	rig_open(struct rig *r);
int	rig_close(struct rig *r, int abandon);
/* RIG_SIM: the engine is gone, without an end if it was open; the medium has `image` (r->bytes), all of it durable, and is bad nowhere. */
void	rig_restore(struct rig *r, const uint8_t *image);
void	rig_turn(struct rig *r);

uint8_t *rig_mem(struct rig *r, unsigned slot);
/* Fill a request; key digest by an unkeyed hash. */
void	rig_req(struct mkv_drv_req *q, unsigned op, const char *key);
/* Give the slot's memory as buffers of the request. */
void	rig_bufs(struct mkv_drv_req *q, unsigned slot, uint64_t bytes);
void	rig_submit(struct rig *r, unsigned slot, const struct mkv_drv_req *q);
/* Until the slot is answered; NULL if the medium died. */
const struct mkv_drv_rep *rig_wait(struct rig *r, unsigned slot);

/* Deterministic bytes of a value. */
void	rig_value(uint8_t *p, uint64_t bytes, uint64_t seed);
int	rig_value_is(const uint8_t *p, uint64_t off, uint64_t bytes, uint64_t seed);

/* Whole operations in slot 0: status. */
void	rig_put_req(struct rig *r, struct mkv_drv_req *q, unsigned slot, const char *key, uint64_t bytes, uint64_t seed);
int	rig_put(struct rig *r, const char *key, uint64_t bytes, uint64_t seed, unsigned flags);
/* A piece of a set, its bytes in `slot`: filled; put and waited for, in slot 0. secret: of pieces' digests. */
void	rig_piece_req(struct rig *r, struct mkv_drv_req *q, unsigned slot, struct mkv_set_id set, uint32_t no, uint64_t bytes, const uint8_t *secret);
int	rig_put_piece(struct rig *r, struct mkv_set_id set, uint32_t no, uint64_t bytes, const uint8_t *secret);
/* The range [off, off+len) is there, byte for byte and by its CRCs; returns status, 1 for wrong bytes. */
int	rig_get(struct rig *r, const char *key, uint64_t off, uint64_t len, uint64_t seed);
/* Purge and wait: what it answered; MKV_E_TIMEOUT: the medium died. */
int	rig_purge(struct rig *r, const char *ns);
int	rig_op(struct rig *r, unsigned op, const char *key, unsigned *reason);

#endif
