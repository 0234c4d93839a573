/*
 * libmemkv inside: who owns what.
 *
 *   caller's threads                     I/O threads (struct loop)
 *   mkv_get() ---- struct op ---inbox--> mkv_op_start() -> one struct leg a server -> server.c (queue, breaker) -> transport.h (tcp_*.c)
 *             <--- sink / done list ---- op_complete()  <- mkv_leg_reply(), mkv_leg_lost() <-----------------------------/
 *
 * A struct op is taken from the handle's pool by a caller, belongs to one loop from the inbox to its completion, and goes back to the pool when the
 * caller has read its result, or by the loop itself if the caller has left. Everything below struct loop is touched by its thread alone.
 *
 * op->own says who may touch the caller's memory (values, present[], reasons[]):
 *
 *   state     set by             meaning
 *   OP_FREE   who puts it back   in the pool
 *   OP_NEW    caller             being filled
 *   OP_LOOP   loop               the op is in work, nobody touches the caller's memory: a caller whose deadline passes may leave (-> OP_LEFT)
 *   OP_LENT   loop               the loop, or the kernel for it, may touch it now: the caller has to wait for OP_DONE
 *   OP_LEFT   caller             the caller has returned: his memory is gone, the loop ends the op and puts it back
 *   OP_DONE   loop               the result stands
 *
 * Above the state own carries a count of loans: a caller that leaves with part of an answer (key lists) reads o->partial and leaves only if there was
 * no loan in between.
 */
#ifndef MKV_CLIENT_PRIV_H
#define MKV_CLIENT_PRIV_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <sys/socket.h>
#include <sys/types.h>
#include <sys/uio.h>

#include <memkv/memkv.h>

#include "clients/lib/gpu.h"
#include "common/base/assert.h"
#include "common/base/auth.h"
#include "common/base/crc.h"
#include "common/base/err.h"
#include "common/base/hist.h"
#include "common/base/ioq.h"
#include "common/base/list.h"
#include "common/base/timer.h"
#include "proto/wire.h"

#define CLIENT_MAGIC		0x6d31c07eu
#define OP_MAGIC		0x51f2a9c4u
#define REGION_MAGIC		0x27ce5b18u
#define STREAM_MAGIC		0x0b64d3f1u

#define SERVERS_MAX		64u
#define THREADS_MAX		16u
#define CONNECTIONS_MAX		16u		/* of one server */
#define INFLIGHT_MAX		65536u
#define INFLIGHT_DEFAULT	1024u
#define LOCAL_SCHEME		"local://"
#define LOCAL_PATH_BYTES	112u		/* of a unix socket's path, the 0 behind it counted: mkv_wire_local */
#define IOV_INLINE		4u
#define IOV_MOST		65536u		/* iovecs of one request */
#define ATTEMPTS_MAX		1000u		/* of one request; its deadline comes first */
#define CONNECT_TIMEOUT_US	2000000ull
#define WHY_BYTES		512u
#define PART_CRCS_MAX		(MKV_WIRE_PART_MAX / MKV_CRC_CHUNK)

/* ---- configuration: config.c ---- */

struct server_conf {
	char		name[256];		/* as written: decides placement */
	char		host[256];		/* "": local://, ... */
	char		port[8];
	char		path[LOCAL_PATH_BYTES];	/* ... the unix socket; else "" */
	uint64_t	hash;
};

struct conf {
	struct server_conf server[SERVERS_MAX];
	unsigned	n_servers;
	char		ns[MEMKV_NAMESPACE_MAX + 1];
	char		http_host[256], http_port[8];	/* "" off */
	enum mkv_transport transport;
	uint8_t		cred[MKV_KEY_BYTES];
	uint32_t	key_id;
	unsigned	io_threads, connections, inflight_max;
	int		no_verify;
	char		rdma_devices[512];	/* "" all that are up */
	uint8_t		rdma_control;		/* MKV_WIRE_CONTROL_* */
	uint8_t		rdma_drop;		/* 1: tethers are given up where that can be (rail_ctl.c) */
	int		rdma_on_demand;
	enum mkv_ioq_kind io;
	uint64_t	connect_timeout_ns;
	uint64_t	local_window;		/* bytes; 0: nothing goes by reference */
	int		local_in_place;		/* gets may go straight into the caller's regions */
	mkv_warn_fn	*warn;			/* NULL: nobody wants to hear */
	void		*warn_arg;
};

/* 0; MKV_E_CONFIG, MKV_E_UNSUPPORTED, MKV_E_SYSTEM with a sentence in why[WHY_BYTES]. */
int	mkv_conf_load(struct conf *cf, const struct mkv_client_opts *opts, char *why);

/* What may come from the file as well as from elsewhere; strings are NULL where nothing was said. config_yaml.c reads the file. */
enum conf_key {
	CONF_SERVERS, CONF_TRANSPORT, CONF_AUTH_KEY, CONF_RDMA_DEVICES, CONF_NAMESPACE, CONF_PROMETHEUS_BIND, CONF_CONNECTIONS, CONF_IO_THREADS,
	CONF_LICENSE, CONF_RDMA_CONTROL, CONF_RDMA_TETHER, CONF_LOCAL_WINDOW, CONF_LOCAL_GET, CONF_KEYS
};
struct conf_text {
	char		*value[CONF_KEYS];	/* malloced; lists joined by commas */
};
extern const char *const mkv_conf_key_names[CONF_KEYS];
int	mkv_conf_yaml_read(struct conf_text *t, const char *path, char *why);
void	mkv_conf_text_fini(struct conf_text *t);

/* ---- counters: metrics.c ---- */

enum client_counter {
#define CLIENT_COUNTER(name, help)	CC_##name,
#include "clients/lib/client_metrics.def"
#undef CLIENT_COUNTER
	CC_COUNT
};
enum client_stage {
#define CLIENT_STAGE(name, label, help)	CS_##name,
#include "clients/lib/client_metrics.def"
#undef CLIENT_STAGE
	CS_COUNT
};

enum op_kind {				/* the public ones keep their numbers */
	OPK_PUT = MKV_OP_PUT, OPK_GET = MKV_OP_GET, OPK_EXISTS = MKV_OP_EXISTS, OPK_DELETE = MKV_OP_DELETE, OPK_STAT = MKV_OP_STAT,
	OPK_TOUCH = MKV_OP_TOUCH, OPK_MATCH = MKV_OP_MATCH,
	OPK_LIST, OPK_INFO, OPK_WARM, OPK_STREAM, OPK_COUNT
};

enum { OUTCOME_OK, OUTCOME_MISS, OUTCOME_TIMEOUT, OUTCOME_ERROR, OUTCOME_COUNT };

struct counters {			/* relaxed adds by any thread */
	_Atomic uint64_t value[CC_COUNT];
	_Atomic uint64_t op[OPK_COUNT][OUTCOME_COUNT];
	_Atomic uint64_t miss[MKV_REASON_COUNT];
	struct mkv_hist	stage[CS_COUNT];
};

/* ---- an operation of a caller: op.c ---- */

enum op_own { OP_FREE, OP_NEW, OP_LOOP, OP_LENT, OP_LEFT, OP_DONE };
#define OP_STATE	0xffu			/* of own; above it the count of loans */

struct sink {				/* where a synchronous caller waits; on its stack */
	pthread_mutex_t	mutex;
	pthread_cond_t	cond;
	unsigned	left;			/* ops not done yet; under mutex */
	int64_t		partial;		/* of the op that was left last */
	unsigned	partial_reason;
};

enum leg_state {			/* who moves it on */
	LEG_IDLE,			/* not begun, or over */
	LEG_WAITING,			/* mkv_server_pump(): a session with room, or the breaker */
	LEG_QUEUED,			/* the transport: its turn to send (again: next part) */
	LEG_SENDING,			/* the transport: the send that carries its frame */
	LEG_SENT,			/* the reply, or the end of the session */
	LEG_BACKOFF,			/* the retry timer */
	LEG_PAUSED,			/* put stream: the caller's next part */
	LEG_ENDING			/* the transport: takes the caller's memory back, then mkv_leg_detached() */
};

struct op;
struct server;
struct conn;
struct slot;
struct rail_slot;
struct rails;
struct fabric;
struct mkv_rdma_mem;
struct mkv_rdma_dev;
struct stage;

struct leg {				/* what one server has to do for an op */
	struct op	*op;
	struct server	*srv;
	enum leg_state	state;
	uint8_t		wire_op;		/* enum mkv_wire_op of the frame to send: REPORT in the middle of a get */
	uint8_t		reported, crc_bad, early, answered;
	unsigned	attempts;
	int		status;			/* once over: 0 or MKV_E_* */
	unsigned	reason;
	struct mkv_list	link;			/* srv->waiting, or the transport's queue */
	struct mkv_timer retry;
	uint64_t	began_ns, sent_ns, first_ns;	/* handed to the server; last frame sent; first answer */
	uint64_t	retry_after_us;		/* of an early answer */
	/* the transport's */
	struct conn	*conn;
	struct slot	*slot;			/* on the connection; or */
	struct rail_slot *rslot;		/* on its queue pair */
	int		no_rail;		/* its memory cannot go by a queue pair */
	uint64_t	tx_off;			/* PUT: bytes of the value in frames that were begun */
	uint64_t	frame_left;		/* of the frame in work: payload that no send has taken yet */
	int		last_begun;		/* the frame in work is the last of the request */
	uint64_t	rx_off;			/* GET: bytes received */
	uint64_t	bad_off;		/* crc_bad: the first chunk, in the value, that did not match: what REPORT is about */
	int		rx_begun;		/* first part seen */
	const uint8_t	*stage;			/* PUT of a GPU's memory: where the frame in work lies, and which byte of the value is its first */
	uint64_t	stage_off;
	const uint32_t	*crcs;			/* PUT: those of the frame in work, if they have been made; else NULL */
	int		stage_error;		/* GET into a GPU's memory: why what came did not get there */
	/* key lists: this server's share of op->keys */
	uint32_t	*idx;			/* NULL: all of them, in order */
	uint32_t	n_idx, tx_key, rx_key, n_there;
	uint32_t	end_reason;		/* MATCH: why the prefix ends */
};

struct keyset {				/* copy of a caller's keys, as they go out: one allocation */
	uint32_t	n;
	uint32_t	*off;			/* n + 1: where each begins */
	const uint8_t	*wire;			/* n x (u16 length, bytes) */
};
#define KEY_LEN_BYTES	2u

struct op {
	uint32_t	magic;
	_Atomic uint32_t own;			/* enum op_own */
	struct mkv_list	link;			/* pool, inbox, live, done */
	struct mkv_list	poke;			/* loop->pokes, or its share of this turn; this and the next three under loop->mutex: */
	int		over;			/* not handed in yet, or completed: nothing to poke */
	int		want_cancel, part_ready;
	struct mkv_client *c;
	struct loop	*loop;
	struct sink	*sink;			/* NULL: the handle's done list */
	enum op_kind	kind;
	_Atomic uint64_t id;			/* sequence << 16 | place in the pool; 0 while free */
	uint64_t	sequence;
	void		*user;
	uint64_t	start_ns, deadline_ns;
	struct mkv_timer timer;
	/* arguments */
	unsigned	flags, lease_ms;
	uint64_t	ttl_ms, off, len, put_id;
	int		whole;			/* GET: a value that does not fit is an error */
	uint8_t		ns_bytes;
	uint16_t	key_bytes, parent_bytes;
	char		ns[MEMKV_NAMESPACE_MAX + 1];
	uint8_t		key[MEMKV_KEY_MAX], parent[MEMKV_KEY_MAX];
	struct iovec	iov_inline[IOV_INLINE];
	struct iovec	*iov;
	unsigned	n_iov, iov_at;		/* iov_at, iov_at_off: cursor of mkv_op_iov_slice() */
	uint64_t	iov_bytes, iov_at_off;
	int16_t		dev_inline[IOV_INLINE];
	int16_t		*dev;			/* NULL: the host's memory; else of each iovec: the GPU whose memory it is, -1 none */
	struct keyset	*keys;
	uint8_t		*present, *reasons;	/* the caller's, only while OP_LENT */
	uint32_t	crcs[PART_CRCS_MAX];	/* of the first part, made by the caller's thread */
	uint64_t	crcs_for;		/* bytes that crcs[] covers; 0: none */
	struct mkv_region *region;		/* counted in flight there */
	_Atomic int	into;			/* a server may be writing to the caller's memory: into.c */
	/* progress: the loop's */
	struct leg	one, *legs;
	unsigned	n_legs, legs_left;
	uint32_t	*idx;			/* shares of the legs: one allocation */
	int		end_status;		/* 0, or why it ends early */
	unsigned	server;			/* LIST, INFO, WARM, STREAM: which one */
	struct put_part	*part;			/* STREAM: the caller's, only while OP_LENT */
	uint32_t	part_bytes;		/* STREAM: of each part but the last */
	_Atomic int64_t	partial;		/* key lists: the result if it ended now */
	_Atomic uint32_t partial_reason;
	/* result: valid in OP_DONE */
	int64_t		result;
	struct mkv_object object;
	void		*reply;			/* LIST, INFO: body, malloced */
	size_t		reply_bytes;
};

/* ---- a server as one loop sees it: server.c ---- */

enum breaker { BREAKER_CLOSED, BREAKER_OPEN, BREAKER_PROBING, BREAKER_RAMP };

struct transport_ops;

struct server {
	struct loop	*loop;
	unsigned	idx;
	const struct server_conf *conf;
	const struct transport_ops *tr;
	void		*pool;			/* the transport's */
	struct mkv_list	waiting;		/* legs in LEG_WAITING, first come first served */
	enum breaker	breaker;
	unsigned	fails;			/* failures since the last answer */
	int		last_error;
	uint64_t	backoff_ns, ramp_ns;	/* of the next failure; when the ramp began */
	uint64_t	heard_ns;		/* last frame that was good */
	uint64_t	asked_ns;		/* later than heard_ns: the first request since that was not answered in time */
	uint64_t	crowd_ns;		/* pause after the last further session that was refused; 0: none was */
	int		may_connect;		/* no back-off runs */
	struct mkv_timer timer;
	uint32_t	part_bytes;		/* of the last session; 0: never had one */
	uint64_t	seed;
};

void	mkv_server_init(struct server *s, struct loop *l, unsigned idx);
void	mkv_server_fini(struct server *s);
void	mkv_server_submit(struct server *s, struct leg *l);	/* -> LEG_WAITING, or mkv_leg_down() at once */
void	mkv_server_pump(struct server *s);
uint64_t mkv_server_jitter(struct server *s, uint64_t ns);	/* a pause of about so long: three quarters of it at least */
void	mkv_server_heard(struct server *s, uint64_t now_ns);	/* a good frame came */
void	mkv_server_session_up(struct server *s);
void	mkv_server_failed(struct server *s, int err);		/* an attempt to connect, or a session, failed */
void	mkv_server_crowded(struct server *s, int err);		/* a further session was refused while others serve */
void	mkv_server_alone(struct server *s);			/* the last session ended */
void	mkv_server_timed_out(struct server *s, const struct leg *l);	/* a deadline passed: was the server silent? */

/* ---- legs: leg.c ---- */

void	mkv_leg_init(struct leg *l, struct op *o, struct server *s, uint8_t wire_op);
void	mkv_leg_set_state(struct leg *l, enum leg_state to);
void	mkv_leg_begin(struct leg *l);
void	mkv_leg_end(struct leg *l, int status);			/* deadline, cancel: over now or after mkv_leg_detached() */
/* From the transport. The leg is no longer the transport's in any of them. */
void	mkv_leg_reply(struct leg *l, int status, unsigned reason, uint64_t retry_after_us);
void	mkv_leg_lost(struct leg *l, int err);			/* the session ended */
void	mkv_leg_detached(struct leg *l);				/* after detach() said 0 */
void	mkv_leg_down(struct leg *l);				/* the breaker is open */
void	mkv_leg_elsewhere(struct leg *l);				/* this way it cannot go: from the beginning, by another */
void	mkv_leg_over(struct leg *l, int status, unsigned reason);

struct op *mkv_op_take(struct mkv_client *c, uint64_t deadline_ns, int may_wait, int *err);
void	mkv_op_put_back(struct op *o);				/* by the owner of a finished op, or of one never submitted */
int	mkv_op_set_iov(struct op *o, const struct iovec *iov, unsigned n);
int	mkv_op_set_key(struct op *o, const void *key, size_t key_bytes);
int	mkv_op_set_ns(struct op *o, const char *ns);
int	mkv_op_set_put(struct op *o, const struct mkv_put_opts *opts);
void	mkv_op_submit(struct op *o, struct sink *sink);
void	mkv_op_start(struct op *o);					/* loop */
void	mkv_op_leg_over(struct op *o);				/* loop */
void	mkv_op_abort(struct op *o, int status);			/* loop: deadline, cancel, close */
int	mkv_op_lend(struct op *o);					/* loop: 1; 0: the caller has left */
void	mkv_op_unlend(struct op *o);
enum op_own mkv_op_own(const struct op *o);
void	mkv_op_part_done(struct op *o);				/* loop: a stream's part is out */
unsigned mkv_op_iov_slice(struct op *o, uint64_t off, uint64_t bytes, struct iovec *out, unsigned max, uint64_t *got);
/* 1: each run of part_bytes of the first `bytes` has at most so many pieces; 0 part_bytes: there are no parts yet. */
int	mkv_op_pieces_fit(const struct op *o, uint64_t bytes, uint64_t part_bytes, unsigned most);

void	mkv_sink_init(struct sink *s, unsigned n);
void	mkv_sink_add(struct sink *s);				/* before one more is submitted */
void	mkv_sink_fini(struct sink *s);
/* Wait until all of ops[] are done, or left behind at the deadline: after it each is OP_DONE (the caller's to read and put back) or NULL (left). */
void	mkv_sink_wait(struct sink *s, struct op **ops, unsigned n, uint64_t deadline_ns);
/* To a caller's struct, which may be NULL or an older program's: of its size, 0 meaning this version's. */
void	mkv_op_tell_object(struct mkv_object *to, const struct mkv_object *from);
int64_t	mkv_op_run(struct op *o, struct mkv_object *obj);		/* submit, wait, copy the result, put back */
/* Submit, wait: the op, done and to be put back; NULL at the deadline, with what there was by then. */
struct op *mkv_op_run_keep(struct op *o, int64_t *partial, unsigned *reason);
void	mkv_op_next_part(struct op *o);				/* loop */

/* ---- key lists: keys.c ---- */

int	mkv_keys_set(struct op *o, const struct mkv_key *keys, unsigned n);
int	mkv_keys_legs(struct op *o);				/* share them out over the servers: o->legs */
int	mkv_keys_reply(struct leg *l, const struct mkv_wire_keys_reply *kr, const uint8_t *bytes, int last);	/* 0, MKV_E_PEER */
void	mkv_keys_forget(struct leg *l);
void	mkv_keys_finish(struct op *o);
void	mkv_keys_free(struct op *o);

/* ---- frames: encode.c, decode.c ---- */

/* Body of the leg's next frame into dst (8-aligned, MKV_WIRE_BODY_MAX); sets op, flags, body_bytes, payload_bytes of *h and advances the leg. */
void	mkv_frame_encode(struct leg *l, struct mkv_hdr *h, uint8_t *dst, uint32_t part_bytes);
/* Iovecs of payload that the frame in work has still to send; mkv_frame_took() says how much of it was taken. */
unsigned mkv_frame_payload(struct leg *l, struct iovec *out, unsigned max, uint64_t *got);
void	mkv_frame_took(struct leg *l, uint64_t bytes);
/* A reply that carries no payload: 0 it was the last, 1 more follow, MKV_E_PEER (close the session). *status: what it says. */
int	mkv_frame_decode(struct leg *l, const struct mkv_hdr *h, const uint8_t *body, int *status);
/* A good GET part, checked against what was asked: 0 with its CRCs (none if nobody checks them); MKV_E_PEER. */
int	mkv_frame_decode_part(struct leg *l, const struct mkv_hdr *h, const uint8_t *body, const uint32_t **crcs, uint32_t *n_crcs);
uint64_t mkv_get_room(const struct op *o);				/* bytes that a GET may bring at most */

/* ---- I/O thread: loop.c ---- */

struct loop {
	struct mkv_client *c;
	unsigned	idx;
	pthread_t	thread;
	int		started;
	struct mkv_ioq	*q;
	struct mkv_timers timers;
	struct server	*server;		/* c->cf.n_servers */
	struct http	*http;			/* first loop, if asked for */
	uint8_t		*scratch;		/* bytes nobody wants are received here */
	struct rails	*rails;			/* rail.h; NULL: none wanted */
	struct mkv_gpu_lane *gpu_lane;		/* NULL until a GPU's memory comes */
	struct stage	*stage;			/* the same: what RDMA wrote to a GPU is checked here */
	uint64_t	now_ns;			/* of this turn, of this completion */
	unsigned	turn;			/* counts them */
	int		dirty;			/* flush() has something to do */
	int		again;			/* it stopped in the middle: no sleep before the next turn */
	int		ending;			/* the handle is being closed */
	struct mkv_list	live;			/* ops in work, by op->link */
	pthread_mutex_t	mutex;			/* what other threads hand in: */
	struct mkv_list	inbox, pokes;
	int		asleep, quit, names_new, woken;
};
#define SCRATCH_BYTES	(256u * 1024)

int	mkv_loop_open(struct loop *l, struct mkv_client *c, unsigned idx);
int	mkv_loop_start(struct loop *l);
void	mkv_loop_stop(struct loop *l);				/* ends everything in work, joins the thread */
void	mkv_loop_close(struct loop *l);				/* of a stopped one */
void	mkv_loop_hand_in(struct loop *l, struct op *o);
int	mkv_loop_poke(struct loop *l, struct op *o, int cancel);	/* cancel, or a stream's next part; 0: over already */
void	mkv_loop_names(struct loop *l);				/* the resolver has news */
void	mkv_loop_wake(struct loop *l);				/* one turn, whatever for */

/* ---- names: resolve.c ---- */

struct resolver;
int	mkv_resolver_open(struct resolver **out, struct mkv_client *c);
void	mkv_resolver_close(struct resolver **r);
/* Address of server idx: 0; MKV_E_AGAIN: asked for, mkv_loop_names() follows; MKV_E_UNREACHABLE: no such name. */
int	mkv_resolver_ask(struct resolver *r, unsigned idx, struct sockaddr_storage *sa, socklen_t *bytes);
void	mkv_resolver_forget(struct resolver *r, unsigned idx);	/* the address did not work: ask again next time */

/* ---- /metrics: http.c ---- */

int	mkv_http_open(struct http **out, struct loop *l, const char *host, const char *port, char *why);
void	mkv_http_start(struct http *h);
void	mkv_http_stop(struct http *h);				/* loop: cancel everything; mkv_http_close() after the queue ended */
void	mkv_http_close(struct http **h);

/* ---- the handle: client.c ---- */

struct server_state {			/* what callers may see; written by loops */
	_Atomic uint32_t breaker;		/* of the loop that changed it last */
	_Atomic uint32_t sessions;		/* by sockets, ... */
	_Atomic uint32_t local;			/* ... of those by the unix socket */
	_Atomic uint32_t refused;		/* the same server as an earlier name */
	_Atomic uint32_t n_rails;		/* that it has */
	_Atomic uint32_t live;			/* rails that are up, all together; */
	_Atomic uint32_t rail_live[MKV_WIRE_RAILS_MAX][2];	/* each, by RC and by DC */
	_Atomic uint32_t rail_tries;		/* on the way to one */
	char		rail_why[WHY_BYTES];	/* why the last try failed; under c->mutex */
	int		local_seen;		/* its socket has answered once; under c->mutex */
	int		local_warned;		/* that its socket does not answer, and not yet that it does again; under c->mutex */
	int		rail_warned;		/* that no rail is up, and not yet that one is again; under c->mutex */
	int		known;			/* id is valid; under c->mutex */
	uint8_t		id[16];
};

struct mkv_client {
	uint32_t	magic;
	pid_t		pid;
	struct conf	cf;
	uint64_t	node_hash[SERVERS_MAX];
	double		node_weight[SERVERS_MAX];
	uint8_t		client_id[16];
	uint8_t		host_id[16];
	int		has_host_id;		/* 0: nobody can tell who is on this host */
	struct server_state state[SERVERS_MAX];
	struct loop	*loop;			/* cf.io_threads */
	_Atomic unsigned next_loop;
	struct resolver	*resolver;
	struct counters	counters;

	struct fabric	*fabric;		/* rail.h; NULL: no RDMA wanted */

	pthread_mutex_t	mutex;			/* the pool, done, regions, ids: */
	pthread_cond_t	freed, completed;	/* an op went back; one is in done */
	pthread_cond_t	rails_changed;
	struct op	*pool;
	struct mkv_list	free;
	struct mkv_list	done;
	int		bell_wait, bell_ring, bell_rung;	/* -1 until somebody asks */
	struct mkv_list	regions;
	_Atomic unsigned n_regions;
	uint32_t	last_region;		/* how many numbers were given; under mutex */
	_Atomic unsigned regions_gone;		/* changes when one that a server may have is freed */
	char		gpu_why[2 * WHY_BYTES];		/* what the CUDA driver said when it failed last */

	pthread_mutex_t	gpu_lock;		/* callers' own copies: */
	struct mkv_gpu_lane *gpu_lane;		/* NULL until there is one */
};

/* Entry of every public call: 0; MKV_ERR_INVAL no handle; MKV_ERR_FORKED. */
int	mkv_client_enter(const struct mkv_client *c);
uint64_t mkv_client_deadline(uint64_t deadline_us);			/* absolute; 0: out of range */
unsigned mkv_client_server_of(const struct mkv_client *c, const void *key, size_t key_bytes);
/* The session says who it is: 0; MKV_E_CONFIG: another name in the list means the same server. */
int	mkv_client_identity(struct mkv_client *c, unsigned server, const uint8_t id[16]);
void	mkv_client_done(struct mkv_client *c, struct op *o);	/* loop: an asynchronous op is over */
static inline void
client_count(struct mkv_client *c, enum client_counter what, uint64_t n)
{
	atomic_fetch_add_explicit(&c->counters.value[what], n, memory_order_relaxed);
}

static inline struct server_state *
server_state_of(const struct server *s)
{
	return (&s->loop->c->state[s->idx]);
}

#define RDMA_DEVS_MAX		8u
#define REGION_TORN_MAX		64u

struct torn {
	uint8_t		*from;
	size_t		bytes;
};

struct mkv_region {
	uint32_t	magic;
	struct mkv_list	link;			/* c->regions */
	struct mkv_client *c;
	uint8_t		*base;
	size_t		bytes, mapped;		/* mapped 0: the memory is the caller's */
	int		fd;
	size_t		page;			/* bytes of one of its pages; 0: the memory is the caller's */
	unsigned	in_flight;
	struct torn	torn[REGION_TORN_MAX];	/* under c->mutex: ranges whose pages are not the memfd's any more (into.c) */
	_Atomic unsigned n_torn;		/* changed under it */
	unsigned	n_away;
	struct torn	away[REGION_TORN_MAX];	/* the same: where pages that were replaced are mapped until the region is freed */
	uint32_t	number;			/* to servers on this host, never given again; 0: it is not for them */
	_Atomic int	passed;			/* one of them was shown it */
	struct mkv_gpu_mem memory;		/* what it is made of: asked for once */
	int		flush;			/* of a GPU that keeps no order: 1. Set before mem[] */
	/* By device; set once under the fabric's lock of registrations, read by loops that have the device. */
	_Atomic(struct mkv_rdma_mem *) mem[RDMA_DEVS_MAX];
	_Atomic int	mem_error[RDMA_DEVS_MAX];
};

struct mkv_region *mkv_region_enter(struct mkv_client *c, const struct iovec *iov, unsigned n);	/* NULL: memory of none */
void	mkv_region_leave(struct mkv_client *c, struct mkv_region *r);
int	mkv_region_holds(const struct op *o);			/* 1: all memory of the op lies in its region */
int	mkv_region_alive(struct mkv_client *c, uint32_t number);	/* 1: it is not freed yet */
/* Of a region in use: a descriptor of its memory, the caller's, and its bytes. MKV_E_AGAIN: not all pages are there yet; MKV_E_*. */
int	mkv_region_pass(struct mkv_region *r, uint64_t *bytes);
int	mkv_region_memory(struct mkv_client *c, const void *p, struct mkv_gpu_mem *m);	/* 1: p lies in a region, *m is what it is made of */

/* ---- memory that the CPU may not touch: stage.c ---- */

#define STAGE_BYTES	(1u << 20)		/* copied at once at most: what a deadline may be kept waiting for. A multiple of MKV_CRC_CHUNK */

struct stage {				/* a bounce buffer; zeroed is none */
	uint8_t		*buf;
	uint32_t	bytes;
	int		device, pinned;
};

/* Caller: which of the op's iovecs are a GPU's: o->dev. 0; MKV_E_IO, MKV_E_NOMEM. */
int	mkv_stage_look(struct op *o);
/* Caller: memcpy, whatever memory `from` is. 0; MKV_E_IO, MKV_E_NOMEM, MKV_E_TIMEOUT. */
int	mkv_stage_read(struct mkv_client *c, void *to, const void *from, size_t bytes, uint64_t until_ns);
/* Loop: at least so many bytes in s. 0 or MKV_E_NOMEM. Free: also of none. */
int	mkv_stage_room(struct stage *s, struct op *o, uint32_t bytes);
void	mkv_stage_free(struct stage *s, struct loop *l);
/* Loop, the op lent: [off, off + bytes) of the caller's memory to buf, or (in) from it. 0; MKV_E_IO; MKV_E_TIMEOUT: the deadline came before the end. */
int	mkv_stage_copy(struct op *o, uint64_t off, uint8_t *buf, uint64_t bytes, int in);
/* Loop, the op lent: a NIC has written the next bytes of l to a GPU. Flush if need be, then read them back and compare: l->crc_bad. 0 or as above. */
int	mkv_stage_check(struct leg *l, uint64_t bytes, const uint32_t *crcs, uint32_t n_crcs);
void	mkv_gpu_failed(struct mkv_client *c, const char *why);
/* Register a region of a GPU's memory: gpu_rdma.c. 0; MKV_E_UNSUPPORTED, MKV_E_NOMEM with a sentence. */
int	mkv_gpu_register(struct mkv_rdma_mem **out, struct mkv_rdma_dev *d, struct mkv_region *r, unsigned access, char *why, size_t why_bytes);

void	mkv_metrics_op(struct op *o);				/* count a finished op */

/* ---- put streams: stream.c ---- */

struct put_part {			/* what the caller hands to the loop */
	uint8_t		*buf;
	uint32_t	bytes, part_bytes;
	int		last;
	uint64_t	total;			/* bytes of the value so far, this part included */
};

#endif
