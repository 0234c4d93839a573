/*
 * libmemkv: client of memkv, the context-memory store.
 *
 * A handle (struct mkv_client) speaks to all servers of one configuration. It is thread-safe. It has an I/O thread of its own (more by option):
 * deadlines and completions never wait for the caller. The library never prints, never exits and leaves errno alone. After fork() the child's copy of
 * a handle answers every call with MKV_ERR_FORKED and touches nothing of the parent's; mkv_client_close() is safe there too.
 *
 * Every call has a deadline, given in microseconds from now, 1..3,600,000,000; 0 is refused. No call returns later than its deadline by more than a
 * timer's precision, whatever the server does, and no byte is written to the caller's memory after a call or completion has returned.
 *
 * Results: 0 (or a count) for success, negative MKV_ERR_* otherwise. A miss is MKV_ERR_MISS with a reason. Structs with a `size` field are extended
 * at the end in later versions: set size to sizeof(the struct).
 */
#ifndef MEMKV_MEMKV_H
#define MEMKV_MEMKV_H

#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#ifdef __cplusplus
extern "C" {
#endif
#ifdef __GNUC__
#pragma GCC visibility push(default)
#endif

#define MEMKV_KEY_MAX		512u
#define MEMKV_NAMESPACE_MAX	63u
#define MEMKV_VALUE_MAX		(1ull << 48)
#define MEMKV_SIZE_ANY		UINT64_MAX

struct mkv_client;
struct mkv_region;
struct mkv_put_stream;

/* Errors: -1 .. as in `memkv help errors`; stable numbers. */
enum mkv_status {
	MKV_OK			= 0,
	MKV_ERR_INVAL		= -1,	MKV_ERR_NOMEM		= -2,	MKV_ERR_IO		= -3,	MKV_ERR_AGAIN	= -4,
	MKV_ERR_PEER		= -5,	MKV_ERR_TIMEOUT		= -6,	MKV_ERR_UNREACHABLE	= -7,	MKV_ERR_MISS	= -8,
	MKV_ERR_EXISTS		= -9,	MKV_ERR_TOOBIG		= -10,	MKV_ERR_CORRUPT		= -11,	MKV_ERR_NOSPACE	= -12,
	MKV_ERR_BUSY		= -13,	MKV_ERR_RETRY		= -14,	MKV_ERR_AUTH		= -15,	MKV_ERR_DENIED	= -16,
	MKV_ERR_PROTO		= -17,	MKV_ERR_VERSION		= -18,	MKV_ERR_UNSUPPORTED	= -19,	MKV_ERR_CLOSED	= -20,
	MKV_ERR_CANCELLED	= -21,	MKV_ERR_FORKED		= -22,	MKV_ERR_STALE		= -23,	MKV_ERR_READONLY = -24,
	MKV_ERR_LOCKED		= -25,	MKV_ERR_CONFIG		= -26,	MKV_ERR_SYSTEM		= -27
};
const char *	mkv_strerror(int status);			/* never NULL */
const char *	mkv_status_name(int status);			/* "TIMEOUT" */
const char *	mkv_miss_label(unsigned reason);		/* "evicted" */
const char *	mkv_miss_text(unsigned reason);

/* ---- Opening ---------------------------------------------------------------------------------------------------------------- */

enum mkv_transport { MKV_TRANSPORT_AUTO, MKV_TRANSPORT_RDMA, MKV_TRANSPORT_TCP, MKV_TRANSPORT_LOCAL };

/*
 * Told once when a server's values begin to go another way than transport asks for, and once when they go by RDMA, or by its socket on this host, again. text:
 * a sentence that names the server and why, valid inside the call. Comes from an I/O thread: it must not block, nor call this library.
 */
typedef void	mkv_warn_fn(void *arg, const char *text);

/*
 * Options. NULL or 0 fields are taken from the environment (MEMKV_*), then the YAML file named by MEMKV_CONFIG, then the default.
 */
struct mkv_client_opts {
	size_t		size;
	const char	*config_file;	/* instead of MEMKV_CONFIG */
	/*
	 * "host:port,NAME=host:port": names decide placement (docs/internals/placement.md). A server on this host may be given by its unix socket instead:
	 * "local:///run/memkv/memkv.sock". Default 127.0.0.1:9900
	 */
	const char	*servers;
	const char	*namespace_;	/* default of this handle; "" */
	const char	*transport;	/* "auto" "rdma" "tcp" "local" */
	const char	*auth_key;	/* 64 hex digits; default: the dev key of this host */
	const char	*rdma_devices;	/* comma list */
	const char	*prometheus_bind; /* host:port that serves mkv_client_metrics() at /metrics; default off */
	unsigned	io_threads;	/* default 1 */
	unsigned	connections;	/* per server, default 2 */
	unsigned	inflight_max;	/* requests of this handle at once, default 1024; more: MKV_ERR_AGAIN from mkv_submit */
	int		no_verify;	/* 1: neither make nor check CRCs (integrity off) */
	uint64_t	connect_timeout_us;	/* of one attempt, default 2 s, at most 1 h */
	int		rdma_on_demand;	/* 1: regions are not pinned where the RDMA device can page in */
	const char	*rdma_control;	/* what carries the messages about values that go by RDMA: "auto" (rdma) "rdma" "udp" "tcp" */
	const char	*rdma_tether;	/* a rail's TCP connection: "keep" (default) "drop" (with transport auto, rdma_control udp and DC: closed once datagrams are answered) */
	mkv_warn_fn	*warn;		/* default: none; the library itself never prints */
	void		*warn_arg;
};

/*
 * Open a handle. No connection is made yet (mkv_warm() does). why: a sentence for people when it fails, may be NULL. When it returns 0 why is empty,
 * or says what it goes on without: /metrics, when another process has the port of prometheus_bind.
 * Returns 0; MKV_ERR_CONFIG, MKV_ERR_NOMEM, MKV_ERR_SYSTEM, MKV_ERR_UNSUPPORTED (transport).
 */
int		mkv_client_open(struct mkv_client **out, const struct mkv_client_opts *opts, char *why, size_t why_bytes);
/*
 * Ends what is in flight with MKV_ERR_CLOSED, joins the threads, frees. Accepts NULL. No other thread may be inside a call. The handle's regions and
 * put streams must be gone before: mkv_region_free(), mkv_put_commit() or mkv_put_abort(). Waits at most 2 s for what the kernel still has, and for a
 * name that is being looked up.
 */
void		mkv_client_close(struct mkv_client *c);
/* Make sessions with all servers now. 0 if at least one answers; the error of the last one otherwise. */
int		mkv_warm(struct mkv_client *c, uint64_t deadline_us);

/* ---- Operations ------------------------------------------------------------------------------------------------------------- */

enum {
	MKV_PUT_IF_ABSENT	= 1,	/* MKV_ERR_EXISTS if the key is there (a retry of the same put is not) */
	MKV_PUT_OVERWRITE	= 2,	/* write even when the same bytes are there */
	MKV_PUT_PIN		= 4,	/* not evicted */
	MKV_PUT_ACCEPTED	= 8,	/* answered before the flush to the drive: may be lost by a crash, never wrong */
	MKV_PUT_COMMIT		= 16,	/* answered after it */
	MKV_NO_TOUCH		= 256,	/* exists, match, stat: does not count as a use */
};

struct mkv_put_opts {
	size_t		size;
	unsigned	flags;
	uint64_t	ttl_ms;		/* 0: none */
	const void	*parent;	/* key of the block before this one in its chain, or NULL */
	size_t		parent_bytes;
	const char	*namespace_;	/* NULL: the handle's */
};

struct mkv_object {			/* what a get, stat or put learnt */
	size_t		size;
	uint64_t	value_bytes;	/* whole value, also when less was asked for */
	uint64_t	put_wall_ms, expires_wall_ms;
	unsigned	flags;		/* MKV_PUT_PIN */
	unsigned	reason;		/* of a miss */
	int		same;		/* put: the bytes were there already */
	int		server;		/* index in the server list */
	uint64_t	put_id;		/* which put made it: gets that tell the same one saw the same bytes. 0: not known */
};

/* Every call below: key 1..512 bytes, any bytes. obj may be NULL. Blocks until the answer or the deadline. */
int		mkv_put(struct mkv_client *c, const void *key, size_t key_bytes, const void *value, size_t value_bytes,
		    const struct mkv_put_opts *opts, uint64_t deadline_us, struct mkv_object *obj);
int		mkv_putv(struct mkv_client *c, const void *key, size_t key_bytes, const struct iovec *iov, unsigned iov_count,
		    const struct mkv_put_opts *opts, uint64_t deadline_us, struct mkv_object *obj);
/*
 * A get or stat of a server that is down is a miss at once, reason server_down; other calls say MKV_ERR_UNREACHABLE. At its deadline a call is
 * MKV_ERR_TIMEOUT, obj->reason timed_out.
 *
 * Get the whole value into buf. Returns its size; MKV_ERR_MISS (obj->reason); MKV_ERR_TOOBIG if it does not fit (obj->value_bytes says how much room
 * it needs; buf has undefined contents). Bytes are verified before they are reported.
 */
int64_t		mkv_get(struct mkv_client *c, const void *key, size_t key_bytes, void *buf, size_t buf_bytes, uint64_t deadline_us, struct mkv_object *obj);
/* Get [off, off+len) or as much of it as there is; returns how much. */
int64_t		mkv_get_range(struct mkv_client *c, const void *key, size_t key_bytes, uint64_t off, void *buf, size_t len, uint64_t deadline_us,
		    struct mkv_object *obj);
int		mkv_exists(struct mkv_client *c, const void *key, size_t key_bytes, uint64_t deadline_us);		/* 1, 0, or error */
int		mkv_delete(struct mkv_client *c, const void *key, size_t key_bytes, uint64_t deadline_us);		/* 0; MKV_ERR_MISS */
int		mkv_stat(struct mkv_client *c, const void *key, size_t key_bytes, uint64_t deadline_us, struct mkv_object *obj);
int		mkv_touch(struct mkv_client *c, const void *key, size_t key_bytes, uint64_t ttl_ms, uint64_t deadline_us);	/* ttl 0: keep */

/* ---- Batches ---------------------------------------------------------------------------------------------------------------- */

struct mkv_key {
	const void	*data;
	size_t		bytes;
};

/*
 * present[i] becomes 1 or 0, reason[i] (may be NULL) why not. A server that does not answer makes its keys absent with reason server_down or
 * timed_out.
 * Returns how many are present (deleted), or an error when nothing could be asked at all.
 */
int		mkv_exists_batch(struct mkv_client *c, const struct mkv_key *keys, unsigned n, unsigned flags, uint64_t deadline_us,
		    uint8_t *present, uint8_t *reason);
int		mkv_delete_batch(struct mkv_client *c, const struct mkv_key *keys, unsigned n, uint64_t deadline_us, uint8_t *deleted, uint8_t *reason);
/* Length of the longest prefix keys[0..m) that is wholly present, in one round trip a server. lease_ms: keep them from eviction so long (<= 60000). */
int		mkv_match(struct mkv_client *c, const struct mkv_key *keys, unsigned n, unsigned lease_ms, unsigned flags, uint64_t deadline_us, unsigned *reason);

struct mkv_batch_item {
	struct mkv_key	key;
	void		*buf;		/* get: room; put: bytes (not written to) */
	size_t		buf_bytes;
	int64_t		result;		/* out: 0 or the size; negative error */
	unsigned	reason;		/* out */
	unsigned	pad;
};
/*
 * All items pipelined under one deadline; at most inflight_max of them are out at a time. Returns how many succeeded; each item has its own result.
 * What the deadline cut off, or never let begin, is MKV_ERR_TIMEOUT. Any thread. An error: MKV_ERR_INVAL (deadline, items), MKV_ERR_FORKED.
 */
int		mkv_put_batch(struct mkv_client *c, struct mkv_batch_item *items, unsigned n, const struct mkv_put_opts *opts, uint64_t deadline_us);
int		mkv_get_batch(struct mkv_client *c, struct mkv_batch_item *items, unsigned n, uint64_t deadline_us);

/* ---- Put in parts, list, info ------------------------------------------------------------------------------------------------ */

/* A value whose size is not known yet. Each call has its own deadline. Nothing is visible before commit; abort, or a failed call, drops all. */
int		mkv_put_begin(struct mkv_client *c, const void *key, size_t key_bytes, const struct mkv_put_opts *opts, uint64_t deadline_us,
		    struct mkv_put_stream **out);
int		mkv_put_part(struct mkv_put_stream *s, const void *data, size_t bytes, uint64_t deadline_us);
int		mkv_put_commit(struct mkv_put_stream *s, uint64_t deadline_us, struct mkv_object *obj);	/* frees s whatever it returns */
void		mkv_put_abort(struct mkv_put_stream *s);							/* frees s; accepts NULL */

struct mkv_list_entry {
	const void	*key;		/* valid inside the callback */
	size_t		key_bytes;
	uint64_t	value_bytes, put_wall_ms, expires_wall_ms;
	int		server;
};
typedef int	mkv_list_fn(void *arg, const struct mkv_list_entry *e);	/* not 0: stop and return it */
/* Keys below prefix on all servers, in no order. The deadline holds for each page. */
int		mkv_list(struct mkv_client *c, const void *prefix, size_t prefix_bytes, mkv_list_fn *fn, void *arg, uint64_t deadline_us);

struct mkv_server_info {
	size_t		size;
	char		name[256];
	int		status;		/* 0 it answered */
	uint8_t		server_id[16];
	uint64_t	total_bytes, used_bytes, objects, uptime_ms;
	unsigned	drives_total, drives_online;
	char		version[32];
	char		transport[8];	/* "local", "rdma", "tcp": of values, now */
	char		transport_why[160];	/* tcp: why the last attempt at RDMA failed; "" none did */
	char		rails[160];	/* rdma: which rails of it are up, and by what: "1 dc, 2 rc" */
};
unsigned	mkv_server_count(const struct mkv_client *c);
int		mkv_server_info(struct mkv_client *c, unsigned server, uint64_t deadline_us, struct mkv_server_info *out);
/* Which server a key belongs to: index in the list. */
unsigned	mkv_server_of(const struct mkv_client *c, const void *key, size_t key_bytes);

/* ---- Asynchronous core -------------------------------------------------------------------------------------------------------- */

enum mkv_op { MKV_OP_PUT = 1, MKV_OP_GET, MKV_OP_EXISTS, MKV_OP_DELETE, MKV_OP_STAT, MKV_OP_TOUCH, MKV_OP_MATCH };

struct mkv_request {
	size_t		size;
	enum mkv_op	op;
	const struct mkv_key *keys;	/* 1 for PUT GET STAT; any for EXISTS DELETE TOUCH MATCH. Copied by submit */
	unsigned	n_keys;
	const struct iovec *iov;	/* PUT: bytes; GET: room. The array is copied, the memory is the caller's until completion */
	unsigned	n_iov;
	uint64_t	off, len;	/* GET: range; len MEMKV_SIZE_ANY: whole value */
	uint64_t	deadline_us;
	unsigned	flags;
	unsigned	lease_ms;
	uint64_t	ttl_ms;
	const char	*namespace_;
	const void	*parent;
	size_t		parent_bytes;
	uint8_t		*present, *reasons;	/* n_keys bytes each, may be NULL */
	void		*user;		/* comes back */
};

struct mkv_completion {
	size_t		size;
	uint64_t	id;
	void		*user;
	int64_t		result;		/* as the synchronous call would return */
	struct mkv_object object;
};

/* Hand over one request. *id is never reused by this handle. MKV_ERR_AGAIN: inflight_max in flight or not collected yet. Any thread. */
int		mkv_submit(struct mkv_client *c, const struct mkv_request *r, uint64_t *id);
/* Readable while completions wait (an eventfd or pipe; poll it, do not read it). */
int		mkv_event_fd(struct mkv_client *c);
/* Collect up to max completions, without blocking: how many, or an error (MKV_ERR_INVAL: no out); out[0].size holds for all of out. Completions of synchronous calls never appear here. */
int		mkv_drain(struct mkv_client *c, struct mkv_completion *out, unsigned max);
/* Block until at least one completion waits or timeout_us (at most 1 h) passed: 1 or 0. */
int		mkv_wait(struct mkv_client *c, uint64_t timeout_us);
/*
 * The request completes soon, with MKV_ERR_CANCELLED or what came first; after its completion no byte of its memory is touched. Any thread, once
 * mkv_submit() has returned. 0; MKV_ERR_MISS: it has completed already; MKV_ERR_INVAL: no such id.
 */
int		mkv_cancel(struct mkv_client *c, uint64_t id);

/* ---- Regions ------------------------------------------------------------------------------------------------------------------ */

/*
 * Memory for blocks: registered once with every transport that wants it. Any thread; *out belongs to the caller until mkv_region_free(), before the
 * handle is closed.
 *
 * alloc: bytes 1..MEMKV_VALUE_MAX, shared, page aligned, huge pages if possible. With local_get: in_place (MEMKV_LOCAL_GET) a get into whole pages of it that times out
 * or is cancelled leaves other pages there, zeroes: nobody else may hold them. So does one whose session ends, before another brings the value: behind it there may be zeroes, as far as
 * the room that was given. register: the memory stays the caller's, and outlives the region.
 * Return 0; MKV_ERR_INVAL, MKV_ERR_NOMEM, MKV_ERR_SYSTEM.
 */
int		mkv_region_alloc(struct mkv_client *c, size_t bytes, struct mkv_region **out);
int		mkv_region_register(struct mkv_client *c, void *base, size_t bytes, struct mkv_region **out);
/* Where it begins; *bytes (may be NULL): as was asked for. Valid until the region is freed. */
void *		mkv_region_base(const struct mkv_region *r, size_t *bytes);
/* No transfer touches the region after this returns. MKV_ERR_BUSY while requests in flight use it. */
int		mkv_region_free(struct mkv_region *r);

/*
 * Values may lie in memory of an NVIDIA GPU, in a region or not: every call takes such pointers where it takes a value's memory, also among others in one list
 * of iovecs. What the program's own streams write to it must have been waited for before a put, as with any memory. A call of the CUDA driver that fails ends
 * the operation with MKV_ERR_IO; the contents of a get's memory are then undefined. why: what the driver said last, a sentence; "" if nothing.
 */
int		mkv_gpu_why(struct mkv_client *c, char *why, size_t why_bytes);

/* ---- Counters ------------------------------------------------------------------------------------------------------------------ */

/* Prometheus text of this handle's counters (operations, bytes, stages, misses by reason, transport in use per server, breaker). Returns the length that it
 * needs, like snprintf. */
size_t		mkv_client_metrics(struct mkv_client *c, char *dst, size_t dst_bytes);

#ifdef __GNUC__
#pragma GCC visibility pop
#endif
#ifdef __cplusplus
}
#endif
#endif
