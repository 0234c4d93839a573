/*
 * The store engine of one drive: index, allocator, journal, metadata pages, eviction, recovery. One loop thread.
 *
 * The engine knows no process: it has a medium, a clock and requests that come by mkv_engine_submit() and are answered by ops->reply. So unit
 * tests and simulations run it as a function of its inputs. All memory that requests need is taken in mkv_engine_open().
 *
 * Durability: a PUT or DELETE is answered after the flush that covers its data and its journal record (MKV_DRV_F_ACCEPTED: after the data write,
 * the record follows within the window). One flush at a time; what arrives meanwhile is the next group. A failed flush makes the engine read-only
 * for good and fails what it should have covered.
 */
#ifndef MKV_DRIVE_ENGINE_H
#define MKV_DRIVE_ENGINE_H

#include <stdint.h>

#include "common/base/clock.h"
#include "common/base/place.h"
#include "common/shm/drv.h"
#include "common/shm/metric.h"
#include "common/shm/ring.h"
#include "worker/drive/media.h"

struct mkv_engine;

#define MKV_ENGINE_CLIENTS_MAX	256u		/* ring incarnations that may have requests here at one time */

#define MKV_ENGINE_ALL_DRIVES	UINT32_MAX

struct mkv_call {				/* copied by mkv_engine_submit() */
	uint32_t	client;			/* < MKV_ENGINE_CLIENTS_MAX */
	uint32_t	slot_idx, gen;		/* the caller's, given back with the reply */
};

struct mkv_engine_ops {
	/* The answer of a submitted request; rep is valid during the call only. Never runs from inside mkv_engine_submit(). */
	void	(*reply)(void *arg, const struct mkv_call *call, const struct mkv_drv_rep *rep);
	/* Address of [off, off+bytes) in that client's staging memory, NULL if there is no such range; *buf_idx: registered buffer or -1. */
	void *	(*buffer)(void *arg, uint32_t client, uint64_t off, uint64_t bytes, int *buf_idx);
	/*
	 * The same in memory of a client, which the medium alone may touch (MKV_DRV_F_DIRECT): always with a registered buffer. The engine has it until region_done(),
	 * when no I/O of its request is left. NULL, both: there is none. region NULL: that is no such memory.
	 */
	void *	(*region)(void *arg, uint32_t client, uint32_t id, uint64_t off, uint64_t bytes, int *buf_idx);
	void	(*region_done)(void *arg, uint32_t client, uint32_t id);
	/* To another drive (pool map index, or all others): op and args of d. May be lost: what matters is said again. */
	void	(*peer)(void *arg, uint32_t drive, const struct mkv_desc *d);
	/* The last request of a client that mkv_engine_client_gone() named is complete. */
	void	(*client_done)(void *arg, uint32_t client);
	/* The map that mkv_engine_map() gave is kept, and nothing asked under an older one is at work. NULL: nobody gives one. */
	void	(*map_stored)(void *arg, uint64_t version);
	/* What mkv_engine_purge() of this id did. err: 0: durable; MKV_E_READONLY. NULL: nobody asks. */
	void	(*purged)(void *arg, uint64_t id, int err, uint64_t objects, uint64_t bytes);
	/* Once: no more writes. */
	void	(*readonly)(void *arg, const char *why);
	/*
	 * Let the loop turn once, waiting at most some milliseconds: during open and close only. MKV_E_CANCELLED: the process is to end; open or
	 * close then return that at once, with I/O in flight, and the loop must not turn again.
	 */
	int	(*pump)(void *arg);
};

struct mkv_engine_opts {
	struct mkv_media *media;		/* stays the caller's */
	const struct mkv_clock *clock;
	struct mkv_metrics *metrics;		/* NULL: none */
	const struct mkv_engine_ops *ops;
	void		*arg;
	const char	*name;			/* for log lines */

	uint32_t	epoch, drive_idx;	/* epoch: larger than any the medium has seen; 0: not checked */
	uint8_t		server_id[16];		/* zero: not checked */
	uint8_t		store_secret[32];	/* names the pieces of striped values */
	uint8_t		drive_uuid[16];		/* zero: any; else the medium must have it, or gets it when it is formatted */
	const uint8_t	(*other_uuid)[16];	/* what the medium must not have: those of other drives */
	uint32_t	other_count;
	uint8_t		*uuid_seen;		/* not NULL: gets the uuid of this server's store that is refused for it */
	int		may_format;		/* an empty medium is formatted */
	int		offline;		/* no server: drive_idx is the kept pool map's, nothing leaves because of that map, no piece for its age */
	int		look_only;		/* recovery in memory, not one byte is written; the engine is read-only */
	int		forget_all;		/* the drive was away: what it holds under keys may be stale, so it goes; pieces stay */

	uint32_t	extent_bytes;		/* for formatting */
	uint64_t	journal_bytes;		/* 0: by size */
	uint32_t	objects_max;		/* 0: by size */

	uint32_t	queue_depth;		/* requests at work */
	uint64_t	page_cache_bytes;
	uint64_t	accepted_window_ns, accepted_window_bytes;
	uint64_t	drain_ns;		/* a drive that is drained gives up its objects over so long */
	uint64_t	audit_interval_ns;	/* 0: 60 s */
	uint32_t	set_step;		/* tests: pieces of a set that are looked for in a turn; 0: as many as are good */
	uint64_t	scrub_rate, scrub_interval_ns;	/* bytes a second that the scrubber reads at most, 0: none; from pass to pass at least */
	int		trim;			/* free space is discarded, where the medium can */
	uint64_t	trim_wait_ns;		/* until a freed range is, at the latest; 0: 5 s */
	int		evict;			/* 0: a full drive answers MKV_E_NOSPACE */
	int		policy;			/* enum mkv_policy_kind; 0: adaptive */
	uint32_t	pin_pct;		/* of the data area may be pinned; 0: as much as there is */
	uint32_t	evict_high_pct, evict_low_pct;
};

struct mkv_engine_info {
	uint8_t		uuid[16];
	uint64_t	total_bytes, used_bytes, objects, pending_free_bytes;
	uint64_t	flushes, puts;
	uint32_t	extent_bytes, unit_bytes;
	int		readonly, formatted;
	/* What the last recovery found. */
	uint64_t	recovered_objects, recovery_ns, recovery_read_bytes;
	uint32_t	damaged_blocks, torn_records, lost_objects, superblock_bad;
};

/* What a reload may change: fields of opts, the rest is ignored. */
void	mkv_engine_tune(struct mkv_engine *e, const struct mkv_engine_opts *opts);

/*
 * Open the store: superblocks, formatting if allowed, recovery. Runs the loop by ops->pump.
 * Returns 0; MKV_E_CONFIG: the medium is not ours to use (foreign content, other store, both superblocks damaged, size changed): final;
 * MKV_E_STALE: the medium has seen *epoch_seen, which is not below ours; MKV_E_VERSION; MKV_E_NOSPACE; MKV_E_IO; MKV_E_NOMEM; MKV_E_CANCELLED (see
 * pump). why: the words an operator needs.
 */
int	mkv_engine_open(struct mkv_engine **out, const struct mkv_engine_opts *opts, uint32_t *epoch_seen, char *why, size_t why_bytes);
/*
 * Checkpoint, clean mark, release. No request may be at work (mkv_engine_busy() == 0). abandon: no I/O, as after a crash. Accepts NULL.
 * 0; MKV_E_READONLY, MKV_E_IO, MKV_E_NOMEM: all is released, but there is no clean mark; MKV_E_CANCELLED (see pump).
 */
int	mkv_engine_close(struct mkv_engine **e, int abandon);

/*
 * Look over the whole store: between open and close, with no request at work. data: also every byte; repair: drop what is bad (close makes it durable).
 * bad: each damage with the key it concerns, NULL where none is known. 0; MKV_E_NOMEM; MKV_E_READONLY; MKV_E_CANCELLED.
 */
struct mkv_inspect {
	int		data, repair;
	void		(*progress)(void *arg, uint64_t done, uint64_t of);	/* objects */
	void		(*bad)(void *arg, const char *what, const uint8_t *key, size_t key_bytes, uint64_t off);
	void		*arg;
	/* Found. */
	uint64_t	objects, pieces, pages, data_bytes;
	uint64_t	bad_pages, bad_records, bad_data, dropped;
};
int	mkv_engine_inspect(struct mkv_engine *e, struct mkv_inspect *in);

/* Take up a request (copied; checked as foreign bytes). 0; MKV_E_AGAIN: no room, offer it again after a reply. Everything else is in the reply. */
int	mkv_engine_submit(struct mkv_engine *e, const struct mkv_call *call, const struct mkv_drv_req *req);
/* End of a get's hold. Foreign number: unknown ones are counted and ignored. flags: MKV_DRV_RELEASE_*. */
void	mkv_engine_release(struct mkv_engine *e, uint32_t client, uint64_t hold, uint64_t flags);
/* A COMMIT of this transaction was refused before it came here: its runs are free again. Foreign number: unknown ones are ignored. */
void	mkv_engine_unreserve(struct mkv_engine *e, uint32_t client, uint64_t txn);
/* From another drive. */
void	mkv_engine_peer(struct mkv_engine *e, uint32_t drive, const struct mkv_desc *d);
/* A drive of the pool was removed: pieces of values homed there are freed, whenever they come, until it is added again. */
void	mkv_engine_home_removed(struct mkv_engine *e, const uint8_t uuid[16]);
void	mkv_engine_home_back(struct mkv_engine *e, const uint8_t uuid[16]);
/* A client is gone: parked requests end, holds and transactions are given back, no more replies; ops->client_done follows (maybe at once). */
void	mkv_engine_client_gone(struct mkv_engine *e, uint32_t client);

/*
 * A newer pool map, copied. From here on a write that was asked under an older version is refused (RETRY). When those at work are done, what the
 * former map left over is gone and what mkv_engine_forget() named as well, it is written and ops->map_stored follows; also for a version that is
 * kept already.
 */
void	mkv_engine_map(struct mkv_engine *e, const struct mkv_map *map);
const struct mkv_map *mkv_engine_map_kept(const struct mkv_engine *e);	/* version 0: none */
/* Written elsewhere while this drive was away. 0; MKV_E_NOMEM. */
int	mkv_engine_forget(struct mkv_engine *e, const void *digests, size_t n);
/* What was written or deleted here while a drive was away. *whole 0: there was more than this, or it began after version `since`. */
size_t	mkv_engine_away(const struct mkv_engine *e, uint64_t since, const struct mkv_digest **digests, int *whole);

/*
 * All objects of a namespace are gone, whatever pins or leases they have: ops->purged when that is durable. Puts that are under way fall on one side or the
 * other. One at a time: one that is asked for while another is under way takes its place, and that other's answer is not given (it may be done all the same).
 * name: at most MKV_DRV_NS_MAX bytes.
 */
void	mkv_engine_purge(struct mkv_engine *e, uint64_t id, const void *name, size_t bytes);

struct mkv_engine_ns {
	uint8_t		name_bytes, name[MKV_DRV_NS_MAX];
	uint64_t	objects, bytes;			/* bytes: space; of a value in pieces all of it, at its home */
};
/* Namespaces that have objects here, in no order. How many, at most max. */
size_t	mkv_engine_namespaces(const struct mkv_engine *e, struct mkv_engine_ns *out, size_t max);

/* The end may be near: write the failure registry without pauses from now on. 1: there is nothing left to be written. */
int	mkv_engine_failures_keep(struct mkv_engine *e);

/*
 * One turn: run what is ready, start the next group, evict, checkpoint, expire. Call it in every loop turn, after completions ran.
 * Returns when to call again at the latest (monotonic ns; 0: at once).
 */
uint64_t mkv_engine_step(struct mkv_engine *e);
unsigned mkv_engine_busy(const struct mkv_engine *e);
/* Answers may wait for no window: commit what was accepted (orderly stop, tests). */
void	mkv_engine_sync(struct mkv_engine *e);
void	mkv_engine_info(const struct mkv_engine *e, struct mkv_engine_info *info);

#endif
