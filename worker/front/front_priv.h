/*
 * Inside the front: its structs, all of one loop thread. Who calls whom: the loop calls mkv_front_turn() and the callbacks of ioq and timers; they run
 * connections (conn.c), which make requests (req.c and a file per kind), which use drives (drives.c). Calls go down only; up there are wake-ups
 * that the next round of the turn serves (mkv_conn_kick, mkv_park), so nothing recurses.
 */
#ifndef MKV_WORKER_FRONT_FRONT_PRIV_H
#define MKV_WORKER_FRONT_FRONT_PRIV_H

#include "worker/front/front.h"

#include "common/base/auth.h"
#include "common/base/clock.h"
#include "common/base/hash.h"
#include "common/base/os.h"
#include "common/shm/drv.h"
#include "proto/wire.h"
#include "worker/front/rail.h"
#include "worker/front/req.h"
#include "worker/front/transport.h"

#define FRONT_MAGIC		0x7fe03c51u
#define CONN_MAGIC		0x1c0a77e5u

#define CONN_AHEAD_BYTES	4096u		/* read ahead of a header: saves a call for small frames, costs a copy of as much of a payload */
#define CONN_RX_BYTES		(MKV_WIRE_HDR_BYTES + MKV_WIRE_BODY_MAX + 2 * CONN_AHEAD_BYTES)
#define CONN_PIECE_BYTES	(256u << 10)	/* recv of payload: stays in L2 for the CRC */
#define CONN_TX_IOV		64u
#define CONN_TX_BYTES		(1u << 20)	/* one send takes no further reply beyond this */
#define CONN_TX_GRACE_NS	MKV_NS_PER_SEC	/* an answer gets at least so long to leave */
#define FRONT_TURN_ROUNDS	4u
#define FRONT_RING_BATCH	64u
#define FRONT_NS_CACHE		32u
#define FRONT_SPARE_CONNS	8u		/* beyond connections_max: whose HELLO is answered BUSY */

enum mkv_conn_state {
	CONN_FREE,
	CONN_HELLO,		/* the client's first frame moves it on */
	CONN_CONNECT,		/* its second */
	CONN_OPEN,
	CONN_LOOSE,		/* its client has closed the socket, its channel lives on: 60 s of silence, or what breaks the channel, moves it on */
	CONN_LAST,		/* a last answer leaves, nothing is read: its end moves it on */
	CONN_CLOSING,		/* the ends of recv and send move it on */
};

enum mkv_rx_state {
	RX_HDR,			/* socket */
	RX_BODY,		/* socket */
	RX_FRAME,		/* a whole checked frame; if it cannot be taken now: mkv_conn_kick() */
	RX_WAIT,		/* payload has no buffers yet: mkv_conn_payload() */
	RX_PAYLOAD,		/* socket */
	RX_DISCARD,		/* socket */
};

struct mkv_session {
	uint64_t	id;
	uint32_t	key_id;
	uint8_t		nonce_c[32], nonce_s[32], transcript[32];
	uint64_t	counter_in, counter_out;	/* last seen, last sent */
	struct mkv_mac	*mac_in, *mac_out;
};

struct mkv_hello_frame {
	struct mkv_hdr	hdr;
	struct mkv_wire_hello_reply body;
	struct mkv_wire_rail rail[MKV_WIRE_RAILS_MAX];
	struct mkv_wire_local local;	/* lies behind the last rail that there is */
};
_Static_assert(sizeof(struct mkv_hello_frame) == sizeof(struct mkv_hdr) + sizeof(struct mkv_wire_hello_reply) +
    MKV_WIRE_RAILS_MAX * sizeof(struct mkv_wire_rail) + sizeof(struct mkv_wire_local), "hello reply frame is one run");
_Static_assert(sizeof(struct mkv_hello_frame) - sizeof(struct mkv_hdr) <= MKV_WIRE_HELLO_MAX, "and a body");

struct mkv_conn {
	uint32_t	magic;
	uint32_t	idx;
	struct mkv_front *f;
	const struct mkv_transport *tr;
	int		fd;
	uint8_t		state, rx;
	uint8_t		loopback, rx_busy, tx_busy, kicked;
	uint8_t		crowded;		/* one too many: it is told so and closed */
	uint8_t		loose;			/* has been in CONN_LOOSE */
	uint8_t		local;			/* a unix socket */
	uint8_t		by_region;		/* the frame that is being dispatched has its payload in regions */
	uint8_t		rx_ref;			/* RX_WAIT, RX_PAYLOAD: so has the one whose payload comes */
	struct mkv_list	link;			/* free or used connections */
	struct mkv_list	run_link;		/* front.run or front.later */
	struct mkv_list	tx_link;		/* front.tx_dirty */
	struct mkv_list	wait_link;		/* front.req_wait: no request context */
	struct mkv_list	msg_link;		/* ctl.wait: its stream's frame has no memory for segments. A message of its channel may wait for the former meanwhile */
	struct mkv_list	reqs;
	uint32_t	n_reqs;
	/* receive */
	uint8_t		*rx_buf;
	uint32_t	rx_head, rx_tail;
	struct mkv_io	rx_io, tx_io;
	struct mkv_hdr	hdr;
	uint64_t	hdr_ns, body_ns, frame_until_ns;
	struct mkv_req	*rx_req;		/* payload goes to rx_part of this one */
	struct mkv_part	*rx_part;
	uint64_t	pay_left;
	uint32_t	pay_pos, pay_ask;	/* bytes placed; bytes asked for in the recv under way */
	uint8_t		*pay_to;
	/* regions */
	struct mkv_list	regions;
	int		passed;			/* a descriptor whose frame has not been taken yet; -1: none */
	const struct mkv_wire_seg *rx_seg;	/* with rx_ref: in rx_buf, where nothing is received meanwhile */
	unsigned	rx_n_seg;
	uint64_t	rx_seg_at;		/* how far they have been read */
	/* a message of its channel that is being dispatched; NULL: a frame of the stream */
	struct mkv_remote *remote;
	uint16_t	remote_channel;
	uint8_t		remote_carrier;		/* MKV_WIRE_CONTROL_*: by what its answer leaves */
	/* send */
	struct mkv_list	txq, tx_flight;
	struct iovec	tx_iov[CONN_TX_IOV];
	struct mkv_timer rx_timer, tx_timer;
	struct mkv_session s;
	struct mkv_drv_writer who;		/* address since accept, client since HELLO, session since CONNECT */
	struct mkv_out	hs_out;
	union {
		struct mkv_hello_frame hello;
		struct mkv_wire_connect connect;
	} hs;
};

/*
 * What a session without a socket keeps here (its channel and two MACs beside it: rail_priv.h). Its receive buffer goes back to the kernel but for the ends that share
 * a page with the neighbours'.
 */
_Static_assert(sizeof(struct mkv_conn) <= 6144, "a session is small");

/* One request to a drive. Its index is that of its control slot, so there are as many as slots. */
enum mkv_dop_state {
	DOP_FREE,
	DOP_OURS,		/* taken or back: its request moves it on */
	DOP_PENDING,		/* in the drive's queue: ring space or a new ring moves it on */
	DOP_GIVEN,		/* the drive moves it on, or its death */
	DOP_REFUSED,		/* drive is gone: the turn tells the request */
};

struct mkv_dop {
	struct mkv_list	link;		/* drive.pending, drive.given or front.refused */
	struct mkv_req	*req;		/* NULL: of a spare */
	struct mkv_spare *spare;	/* runs that nobody has asked for yet */
	struct mkv_part	*part;		/* whose buffers go with it; may be NULL */
	uint32_t	gen, epoch;
	uint16_t	op;
	uint8_t		drive, state;
	uint8_t		keep;		/* set by on_dop: the request goes on with this slot */
	uint32_t	tag;		/* the request's own */
	struct mkv_buf	buf[MKV_DRV_BUFS_MAX];
	unsigned	n_buf;
};

#define SPARES_MAX	8u		/* for each drive */

enum mkv_spare_state {
	SPARE_FREE,
	SPARE_ASKED,		/* drive */
	SPARE_HELD,		/* a put takes it, or the timer ends it */
	SPARE_ENDING,		/* drive */
};

struct mkv_spare {		/* a run of an arena that is reserved ahead: spare.c */
	struct mkv_dop	*dop;
	uint8_t		state;
	uint32_t	bytes;
	unsigned	n_run;
	uint64_t	txn;
	struct mkv_drv_run run[MKV_DRV_RUNS_MAX];
};

struct mkv_drive {
	uint32_t	index;
	enum mkv_drive_state state;	/* by the pool map */
	uint8_t		up;		/* has rings of this epoch */
	uint32_t	epoch;
	struct mkv_list	pending, given;
	uint64_t	lend_bytes;	/* of regions that it was shown lately: lend.c */
	uint8_t		*arena;
	uint64_t	arena_bytes;
	uint64_t	uuid_hash;
	double		weight;
	uint32_t	spare_bytes, spare_last;	/* size of the spares, 0: none; size of the last put that found none */
	unsigned	spares_want;
	int		spare_idle;			/* no put since the timer looked */
	struct mkv_spare spare[SPARES_MAX];
};

struct mkv_front_key_row {
	uint32_t	key_id;		/* 0: empty row */
	uint8_t		key[32];
	uint8_t		dev;
};

struct mkv_ns_row {
	uint8_t		ns[64];
	uint16_t	ns_bytes;
	uint8_t		used;
	uint8_t		secret[MKV_SECRET_BYTES];
};

struct mkv_door {
	struct mkv_wire_rail row;	/* as it is listed */
	int		fd;		/* where it is passed; -1: shut */
};

enum mkv_lend {			/* of a region and a drive: lend.c */
	LEND_NONE,
	LEND_WANT,		/* turn: the drive is to be shown it */
	LEND_LATER,		/* timer */
	LEND_ASKED,		/* supervisor: the drive's answer, or its death */
	LEND_HERE,		/* the drive has it */
	LEND_DROP,		/* turn: the drive is to forget it */
	LEND_DROP_LATER,	/* timer */
	LEND_DROPPING,		/* supervisor, likewise */
	LEND_REFUSED,		/* until its next life */
};

struct mkv_region {			/* memory of a client: region.c */
	struct mkv_list	link;		/* front.region_free or conn.regions; none of them when it is retired */
	struct mkv_list	used;		/* front.regions_used */
	uint32_t	number;		/* the client's */
	int		fd;
	void		*base;
	pid_t		pid;		/* who passed it */
	/* lend.c: */
	uint32_t	id;		/* under which drives know it; 0: none does */
	uint8_t		stable;		/* the client keeps its hands off what its gets name */
	uint8_t		retired;	/* its client has dropped it, or is gone: no more requests */
	unsigned	refs, out;	/* parts that go straight; drives that have it, or are asked */
	struct mkv_req	*dropper;	/* its DROP, to be answered at the end */
	uint8_t		at[MKV_FRONT_DRIVES_MAX];	/* enum mkv_lend */
	uint64_t	no_put;		/* drives that could not write from it */
	uint8_t		counts, counts_own;	/* in the sum of all, of its process: one of those of the same memory does */
	struct mkv_os_shm shm;
};

struct mkv_listener {
	struct mkv_io	io;
	struct mkv_timer again;
	struct mkv_front *f;
	int		file, busy;
};

struct mkv_front {
	uint32_t	magic;
	struct mkv_front_conf conf;
	struct mkv_ioq	*q;
	struct mkv_timers *timers;
	struct mkv_stage *stage;
	struct mkv_metrics *m;
	struct mkv_rail	*rail;			/* NULL: sockets only */
	uint8_t		running, stopping;
	uint64_t	start_ns;
	uint64_t	enters_told;
	uint32_t	n_sessions;
	struct mkv_timer stop_timer, spare_timer;
	/* pools */
	struct mkv_conn	*conns;
	uint8_t		*rx_slab, *scratch;
	struct mkv_req	*reqs;
	struct mkv_dop	*dops;
	uint32_t	n_slots, n_conns, n_reqs;	/* n_conns, n_reqs: in use */
	uint32_t	n_crowded, n_loose;		/* of n_conns */
	struct mkv_list	conn_free, conn_used, req_free;
	struct mkv_req	**req_hash;
	uint32_t	req_hash_mask;
	/* wake-ups for the turn */
	struct mkv_list	later;				/* run, from the next turn on */
	struct mkv_list	run, tx_dirty, req_wait, refused, hold_wait;
	struct mkv_park_queue park_bufs, park_slots;
	struct mkv_park_queue park_lists;
	uint32_t	lists_claim, lists_claim_max;	/* stage units that the lists at work may come to hold, and how many these may be */
	/* drives */
	struct mkv_drive drive[MKV_FRONT_DRIVES_MAX];
	struct mkv_place route_serving, route_all, route_former;
	int		has_former;		/* some keys had another home before */
	uint64_t	map_version;
	struct mkv_listener listener[MKV_FRONT_LISTENERS_MAX];
	unsigned	n_listeners;
	/* regions; none with conf.regions_bytes 0 */
	struct mkv_io_pass *passes;		/* of the connections */
	struct mkv_region *regions;
	struct mkv_list	region_free, regions_used;
	uint32_t	n_regions;
	uint64_t	regions_bytes;		/* what they count */
	uint32_t	lend_last;		/* number given to the last one that drives may know */
	unsigned	lends_asked, lends_here;	/* pairs of region and drive */
	int		lend_due;		/* the turn has to look at them */
	struct mkv_timer lend_timer;
	/* rails */
	struct mkv_door	doors[MKV_WIRE_RAILS_MAX];
	unsigned	n_doors;
	int		door, door_file, door_busy;	/* a rail's own front: where connections come from; -1: none */
	struct mkv_io	door_io;
	struct mkv_front_key_row key[MKV_FRONT_KEYS_MAX];
	struct mkv_ns_row ns[FRONT_NS_CACHE];
	unsigned	ns_next;
	uint8_t		piece_secret[MKV_SECRET_BYTES];
};

/* door.c */
void		mkv_doors_init(struct mkv_front *f);
void		mkv_doors_fini(struct mkv_front *f);
void		mkv_doors_start(struct mkv_front *f);
void		mkv_doors_stop(struct mkv_front *f);
unsigned	mkv_doors_list(const struct mkv_front *f, struct mkv_wire_rail list[MKV_WIRE_RAILS_MAX], uint32_t *features);	/* how many */
/* Its HELLO lies at rx_head. 0: another front has it, c is closed here. MKV_E_UNSUPPORTED, _UNREACHABLE, _BUSY: what to answer; MKV_E_CLOSED. */
int		mkv_doors_pass(struct mkv_conn *c, uint16_t rail);
/* front.c */
struct mkv_conn *mkv_front_open(struct mkv_front *f, int fd, const struct sockaddr_storage *from);	/* takes fd; NULL: refused */
/* conn.c */
struct mkv_conn *mkv_conn_open(struct mkv_front *f, int fd, int loopback, int crowded, const struct mkv_drv_writer *who);
void		mkv_conn_close(struct mkv_conn *c);
void		mkv_conn_received(struct mkv_conn *c, int res);
void		mkv_conn_kick(struct mkv_conn *c);			/* look at the held frame again in this turn */
void		mkv_conn_run(struct mkv_conn *c);
void		mkv_conn_payload(struct mkv_conn *c);			/* rx_part has its buffers */
void		mkv_conn_discard(struct mkv_conn *c);			/* the waiting payload is not wanted any more */
void		mkv_conn_lost(struct mkv_conn *c);			/* its socket is worth nothing any more: the end, or CONN_LOOSE */
int		mkv_conn_alive(const struct mkv_conn *c);		/* its requests are at work, and somebody may hear their answers */
/* rail_ctl.c: a frame of the stream whose payload goes by the session's channel */
enum mkv_take	mkv_chan_frame(struct mkv_conn *c, const struct mkv_hdr *h, const uint8_t *body);
void		mkv_conn_unread(struct mkv_conn *c);			/* rx_ref: the rest of its payload is not wanted any more; the caller runs the request */
void		mkv_conn_refuse(struct mkv_conn *c, enum mkv_metric why, const char *what);	/* counts, says why, closes */
/* region.c */
int		mkv_regions_init(struct mkv_front *f);
void		mkv_regions_close(struct mkv_conn *c);			/* all of the session's */
void		mkv_region_forget_passed(struct mkv_conn *c);		/* nobody has taken it */
enum mkv_take	mkv_region_frame(struct mkv_conn *c, const struct mkv_hdr *h, const uint8_t *body);	/* with flag REMOTE */
/* The rest of such a frame's body. 0; MKV_E_PROTO. Put: bytes is what they must be; they are read from rx_buf until conn.c has done with the payload. */
int		mkv_region_take_put(struct mkv_conn *c, struct mkv_wire_in *in, uint64_t bytes);
int		mkv_region_take_get(struct mkv_req *r, struct mkv_wire_in *in);
uint32_t	mkv_region_read(struct mkv_conn *c, uint8_t *to, uint32_t bytes);	/* the next bytes of the put; how many, 0: its memory gives none */
int		mkv_region_read_rest(struct mkv_conn *c, uint8_t *to);	/* what is behind its whole blocks, filled up to one with zeroes. 0: its memory gives none */
int		mkv_region_write(struct mkv_conn *c, struct mkv_out *o);	/* the next piece of the get's part; 0: its memory takes none */
struct mkv_region *mkv_region_named(const struct mkv_conn *c, uint32_t number);	/* NULL: none of that session */
void		mkv_region_ended(struct mkv_front *f, struct mkv_region *g);	/* retired, and nobody has it */
void		mkv_regions_fini(struct mkv_front *f);
/* lend.c */
void		mkv_lend_begin(struct mkv_front *f, struct mkv_region *g);	/* a new one */
int		mkv_lend_retire(struct mkv_front *f, struct mkv_region *g);	/* 1: nobody has it; 0: mkv_region_ended() will be called */
void		mkv_lend_turn(struct mkv_front *f);
void		mkv_lend_drive_up(struct mkv_front *f, unsigned drive);
void		mkv_lend_drive_down(struct mkv_front *f, unsigned drive);
int		mkv_lend_at(const struct mkv_region *g, unsigned drive);	/* 1: this drive may be asked to be at work in it */
int		mkv_lend_take(struct mkv_req *r, struct mkv_part *p, int drive);	/* 1: p goes straight to its region; 0: by the stage */
int		mkv_lend_may_put(const struct mkv_req *r, const struct mkv_part *p);	/* 1: p, whose frame is at hand, could go straight from its region */
int		mkv_lend_take_put(struct mkv_req *r, struct mkv_part *p, int drive);	/* such a p: 1: it does; 0: by the stage */
void		mkv_lend_next(struct mkv_front *f, pid_t pid);			/* one of that process has ended */
void		mkv_lend_reload(struct mkv_front *f);				/* verify_put may have changed */
void		mkv_lend_back(struct mkv_front *f, struct mkv_part *p);		/* its drive is done with it, or was never given it; also a part without */
void		mkv_lend_lost(struct mkv_part *p, unsigned drive, uint32_t epoch);	/* its drive died with it */
void		mkv_lend_drained(struct mkv_front *f, unsigned drive, uint32_t epoch);
int		mkv_lends(const struct mkv_req *r);				/* 1: memory of its client is out: no answer may leave */
int		mkv_lends_lost(const struct mkv_req *r);			/* 1: with a drive that died */
/* guard.c */
int		mkv_guard_init(void);				/* 1; 0: no handler can be set */
int		mkv_guard_copy(void *to, const void *from, uint32_t bytes, const void *foreign);	/* foreign: to or from. 0: its memory is gone */
/* aside.c */
struct mkv_aside {			/* what a region was */
	int		fd;
	void		*base;		/* NULL: not mapped */
	uint64_t	bytes;
};
void		mkv_close_aside(const struct mkv_aside *a);
void		mkv_close_stranger(int fd);			/* what a client passed, or a socket where it may have */
/* conn_tx.c */
void		mkv_conn_send(struct mkv_conn *c, struct mkv_out *o);	/* o->done comes later, never from inside */
void		mkv_conn_sent(struct mkv_conn *c, int res);
void		mkv_conn_tx_begin(struct mkv_conn *c);
void		mkv_conn_tx_drop(struct mkv_conn *c);			/* what is queued and not under way */
void		mkv_conn_tx_fire(struct mkv_timer *t, uint64_t now_ns);
/* session.c */
int		mkv_session_hello(struct mkv_conn *c, const struct mkv_hdr *h, const void *body);
int		mkv_session_connect(struct mkv_conn *c, const struct mkv_hdr *h, const void *body);
int		mkv_session_check(struct mkv_conn *c, const struct mkv_hdr *h, const void *body);
void		mkv_session_close(struct mkv_session *s);
/* auth.c */
const struct mkv_front_key_row *mkv_auth_key(const struct mkv_front *f, uint32_t key_id, int loopback);
const uint8_t *	mkv_ns_secret(struct mkv_front *f, const void *ns, size_t ns_bytes);	/* NULL: crypto library failed */
/* park.c */
void		mkv_park_init(struct mkv_park_queue *q);
int		mkv_park_turn(struct mkv_park_queue *q, struct mkv_req *r);	/* 1: r may try now */
void		mkv_park(struct mkv_front *f, struct mkv_park_queue *q, struct mkv_req *r);
void		mkv_unpark(struct mkv_front *f, struct mkv_req *r);
void		mkv_park_run(struct mkv_front *f, struct mkv_park_queue *q);
/* route.c */
int		mkv_route_home(const struct mkv_front *f, struct mkv_digest d);		/* -1: no drive in service */
int		mkv_route_reason(const struct mkv_front *f, struct mkv_digest d, int reason);	/* NEVER becomes DRIVE_OFFLINE where that is why */
/* Where the key was before the last change of the map, if that is elsewhere and can be asked; -1. */
int		mkv_route_former(const struct mkv_front *f, struct mkv_digest d);
/* Reading r's key: its home first, then, after a miss there, its former home. -1: no drive in service. */
int		mkv_route_read(struct mkv_req *r);
int		mkv_route_read_next(struct mkv_req *r);		/* 1: after this miss there is one more to ask */
unsigned	mkv_route_stripe(const struct mkv_front *f, uint8_t out[MKV_DRV_STRIPE_MAX]);	/* drives that take pieces now */
/* The try_no-th drive of a piece among those of the stripe that are in service; -1: no more. */
int		mkv_route_piece_drive(const struct mkv_front *f, struct mkv_digest d, const uint8_t *stripe, unsigned n, unsigned try_no);
int		mkv_drive_serves(const struct mkv_drive *d);		/* can be asked: ONLINE, RESTARTING, DRAINING */
/* drives.c */
struct mkv_dop *mkv_dop_take(struct mkv_front *f, struct mkv_req *r);	/* NULL: r is parked for a slot */
struct mkv_dop *mkv_dop_take_spare(struct mkv_front *f, struct mkv_spare *s);	/* NULL: requests need the slots */
struct mkv_drv_req *mkv_dop_req(struct mkv_front *f, struct mkv_dop *d);	/* cleared; the slot's memory */
void		mkv_dop_push(struct mkv_front *f, struct mkv_dop *d, int drive, unsigned op);
void		mkv_dops_recall(struct mkv_front *f, struct mkv_req *r);	/* those that no drive has been given yet end as CANCELLED */
void		mkv_dop_drop(struct mkv_front *f, struct mkv_dop *d);
int		mkv_hold_release(struct mkv_front *f, unsigned drive, uint32_t epoch, uint64_t hold, uint64_t flags);	/* 0; MKV_E_AGAIN ring full */
void		mkv_drives_pending(struct mkv_front *f);
void		mkv_drives_refused(struct mkv_front *f);
void		mkv_drives_remap(struct mkv_front *f);				/* the map changed: refuse what waits for a drive that went */
void		mkv_front_arena_lost(struct mkv_front *f, unsigned drive);	/* nobody may write to its reserved runs any more */
void		mkv_drives_fini(struct mkv_front *f);
/* spare.c */
int		mkv_spare_take(struct mkv_req *r, struct mkv_part *p, int drive);	/* 1: p has a slot, a transaction and runs there */
void		mkv_spare_refill(struct mkv_front *f, unsigned drive);			/* beside a push, whose bell serves both */
void		mkv_spare_short(struct mkv_front *f, unsigned drive);			/* the drive has no space: all back */
void		mkv_spare_answer(struct mkv_front *f, struct mkv_dop *d, const struct mkv_drv_rep *rep, int status);
void		mkv_spare_lost(struct mkv_dop *d);
void		mkv_spares_stop(struct mkv_front *f);					/* all back, no more */
int		mkv_spares_none(const struct mkv_front *f);
void		mkv_spares_down(struct mkv_front *f, struct mkv_drive *v);		/* the drive is gone, and its transactions */

/* A value may have so many bytes here: its pieces are counted, too. */
static inline uint64_t
mkv_front_value_max(const struct mkv_front *f)
{
	return (MKV_MIN(MKV_WIRE_VALUE_MAX, (uint64_t)MKV_DRV_PIECES_MAX * f->conf.part_bytes));
}

#endif
