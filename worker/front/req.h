/*
 * A client's request inside the front: one struct, one state enum, one function that moves it.
 *
 * Facts are noted by callbacks (payload is in, a drive answered, an answer left, the deadline passed), then mkv_req_run() lets the op's step do
 * all that can be done now. A step works on what it finds in the request, so it may be called once too often but never wrongly. mkv_req_end() decides
 * the answer; from then on the common ending gives back what is still held, and the context is free when nothing outside knows it any more.
 */
#ifndef MKV_WORKER_FRONT_REQ_H
#define MKV_WORKER_FRONT_REQ_H

#include <stdint.h>
#include <sys/uio.h>

#include "common/base/hash.h"
#include "common/base/list.h"
#include "common/base/timer.h"
#include "common/shm/drv.h"
#include "common/shm/stage.h"
#include "proto/wire.h"
#include "worker/front/rail.h"

#define REQ_MAGIC		0x3e91c07bu
#define REQ_PARTS		4u		/* parts of one value in flight */
#define REQ_TRIES_MAX		8u		/* after deaths of drives */
#define REQ_BODY_BYTES		128u		/* of an answer without lists */
#define PART_BODY_BYTES		(sizeof(struct mkv_wire_object) + 4 * (MKV_DRV_CRCS_MAX + 2))
#define KEYS_DIGESTS_UNIT	(MKV_STAGE_UNIT / sizeof(struct mkv_digest))
#define KEYS_UNITS_MAX		(MKV_WIRE_KEYS_MAX / KEYS_DIGESTS_UNIT)
#define KEYS_EARLY		512u		/* keys of a drive for which it is worth to be asked before the rest of the list has come */
#define KEYS_EARLY_MAX		8u		/* such slices of one list */
#define KEYS_SLICES_MAX		(KEYS_UNITS_MAX + KEYS_EARLY_MAX + MKV_DRV_STRIPE_MAX)	/* full ones, early ones, the last of each drive */
#define KEYS_BODIES_MAX		4u		/* bodies of a delete or touch list kept at once */
#define KEYS_DOPS_MAX		32u		/* deletes or touches of one request in flight */
#define KEYS_PER_REPLY		(MKV_WIRE_BODY_MAX - sizeof(struct mkv_wire_keys_reply))

struct mkv_conn;
struct mkv_dop;
struct mkv_front;
struct mkv_req;
struct mkv_out;
struct mkv_region;

enum mkv_next { MKV_NEXT_AGAIN, MKV_NEXT_PARK, MKV_NEXT_DONE };

/* A reply on its way out. Belongs to the connection from mkv_conn_send() until done. */
typedef void	mkv_out_fn(struct mkv_out *o, int res);
struct mkv_out {
	struct mkv_list	link;
	mkv_out_fn	*done;
	void		*owner;
	uint64_t	until_ns;		/* the client must have taken it by then */
	uint8_t		busy;
	uint8_t		sealed;			/* header is final: no counter, no MAC of ours */
	uint8_t		carrier;		/* of a channel: MKV_WIRE_CONTROL_* */
	uint32_t	flush_rkey;		/* of a channel: a byte with the client that must have come back before it leaves; address 0: any that is out */
	uint64_t	flush_addr;
	/* Payload that goes to regions, not behind the body. */
	const struct mkv_wire_seg *place;	/* of the request; NULL: it goes behind the body */
	uint64_t	place_at, place_left;	/* where in the segments the next byte of pay[] goes; bytes not copied yet */
	unsigned	n_pay;
	uint64_t	pay_bytes;
	const void	*body;
	struct mkv_hdr	hdr;
	struct iovec	pay[MKV_DRV_BUFS_MAX + 1];
};

enum mkv_part_state {
	PART_FREE,
	PART_WAIT,		/* park (buffers, slots) or the set id moves it on */
	PART_RESERVE,		/* drive (memory mode; a value that may be there: any) */
	PART_RECV,		/* socket */
	PART_FULL,		/* step: bytes are in (put), or drive's answer is (get) */
	PART_DRIVE,		/* drive */
	PART_SEND,		/* socket */
};

struct mkv_part {			/* of a value, up to one extent */
	struct mkv_req	*req;
	uint8_t		state;
	uint8_t		crc_bad, crc_make, has_txn, has_hold, drive, try_no, drop;
	uint8_t		check;		/* put: its CRCs are made of what came */
	uint8_t		ack, unread;	/* put by a channel: the client waits for a word before it goes on; the bytes did not come */
	uint8_t		direct;		/* get: its whole blocks are in the region; of the rest buffers have the copy */
	uint8_t		staged;		/* get: its drive does not read it straight into the region */
	uint8_t		lost, lost_drive;	/* region is with a drive that died, ... */
	uint32_t	lost_epoch;	/* ... until this epoch of it is drained */
	struct mkv_region *region;	/* goes straight there (get) or from there (put); refers to it */
	uint64_t	region_off;
	uint8_t		asked, same;	/* the same: its home has said whether it is there; it is */
	uint32_t	no;
	uint32_t	bytes;
	uint32_t	skip;		/* get: first byte in the buffers */
	uint32_t	n_crcs;
	uint64_t	off;		/* get: in the piece */
	struct mkv_dop	*dop;		/* its slot, while it has one */
	unsigned	n_buf, n_run;
	struct mkv_buf	buf[MKV_DRV_BUFS_MAX];
	struct mkv_drv_run run[MKV_DRV_RUNS_MAX];
	uint32_t	epoch;		/* of txn and hold */
	uint64_t	txn, hold;
	uint32_t	crc_run, crc_pos;	/* put: CRC of the chunk that is coming; bytes that have come */
	struct mkv_remote remote;	/* put by a channel: where the payload lies */
	struct mkv_xfer	x;
	uint32_t	crc[MKV_DRV_CRCS_MAX + 2];
	struct mkv_out	out;
	_Alignas(8) uint8_t body[PART_BODY_BYTES];
};

struct mkv_park_queue {
	struct mkv_list	head;
	int		wake;		/* something was given back */
};

enum mkv_req_state {
	REQ_FREE,
	REQ_RECEIVE,		/* socket: payload, or more parts of a list or value */
	REQ_WAIT,		/* park: stage buffers or a control slot */
	REQ_DRIVE,		/* drives' answers, or a drive's return */
	REQ_REPLY,		/* socket */
	REQ_STATES
};

struct mkv_put {
	uint64_t	value_bytes, put_id, ttl_ms;
	uint64_t	declared;	/* size that the client gave; 0: none yet */
	uint64_t	room;		/* what the drives of the stripe could hold if they were empty; 0: not known yet */
	struct mkv_digest parent;
	struct mkv_set_id set;
	struct mkv_dop	*ctl;		/* SET_NEW, the manifest, an ABORT, a question to the former home */
	uint64_t	used;		/* drives that were given pieces, still to be told of an abort */
	uint64_t	put_wall_ms;
	uint16_t	drv_flags;
	uint8_t		multi, more, set_asked, set_known, manifest, committed;
	uint8_t		unseen;			/* of some parts nobody has seen the bytes */
	uint8_t		clearing;		/* ctl asks the former home */
	uint8_t		renewing;		/* ctl tells the home of a later deadline */
	uint64_t	set_until_ns;		/* the deadline that it knows */
	uint64_t	clear_version;		/* map by which nothing is left there; 0: not asked yet */
	uint64_t	asked_version;		/* map by which it was asked whether the value is there */
	int		home;
	uint32_t	next_no;
	uint32_t	wire_flags;
	unsigned	n_stripe;
	uint8_t		stripe[MKV_DRV_STRIPE_MAX];
};

struct mkv_get {			/* get, report */
	uint64_t	off, len, end;	/* asked for; end: of what is delivered */
	uint64_t	value_bytes, put_wall_ms, expires_wall_ms, put_id;
	uint32_t	flags;
	uint8_t		known, multi, nothing;
	uint32_t	obj_flags;
	uint32_t	piece_bytes;
	uint64_t	next_no, emit_no, last_no;
	uint8_t		has_hold, home;		/* multi: on the manifest, at that drive */
	uint8_t		not_whole;		/* a piece was nowhere: its home is told with the release */
	uint16_t	why;			/* and why, enum mkv_reason */
	uint32_t	epoch;
	uint64_t	hold;
	struct mkv_set_id set;
	unsigned	n_stripe;
	uint8_t		stripe[MKV_DRV_STRIPE_MAX];
};

struct mkv_keys_body {			/* body of a delete or touch part, in a stage unit */
	struct mkv_buf	buf;
	uint32_t	bytes, at;
	uint32_t	left;		/* keys not given out yet */
};

enum mkv_slice_state {
	SLICE_FREE,
	SLICE_READY,		/* step: to its drive, when there is a slot (and a buffer: the first may be lost with a drive) */
	SLICE_AWAY,		/* drive */
};

struct mkv_keys_slice {			/* exists, match: a unit of digests for one drive, then its answers */
	struct mkv_buf	buf;
	uint32_t	first;		/* key from which on its keys are found */
	uint16_t	n;
	uint8_t		drive, state;
};
_Static_assert(KEYS_DIGESTS_UNIT <= UINT16_MAX, "n of a slice");

struct mkv_keys {
	uint32_t	n;		/* keys so far */
	uint32_t	n_out, n_back;	/* delete, touch: given to drives; answered */
	uint32_t	n_there;
	uint64_t	ttl_ms;
	uint32_t	flags, first_reason;
	uint32_t	lease_ms, granted_ms;	/* match: asked for; given by all drives so far */
	uint8_t		more, started;
	uint8_t		held;		/* a part waits in the receive buffer */
	uint8_t		twice;		/* 1: what its home lacks is to be asked of the former home; 2: it is being asked */
	uint32_t	claim;		/* its share of front.lists_claim; 0: not admitted yet */
	struct mkv_buf	res;		/* one byte a key, behind room for the reply's fixed part */
	unsigned	n_units;
	struct mkv_buf	unit[KEYS_UNITS_MAX];	/* digests in order of the keys (exists, match) */
	unsigned	n_bodies;
	struct mkv_keys_body body[KEYS_BODIES_MAX];
	uint32_t	count[MKV_DRV_STRIPE_MAX];	/* keys of each drive that no slice has yet */
	uint32_t	from[MKV_DRV_STRIPE_MAX];	/* before the first of them there is none */
	uint64_t	has;		/* drives with such keys */
	uint32_t	lost_epoch;	/* life of a drive that took slices with it */
	uint32_t	n_early, n_away;	/* slices: cut before the end of the list; at their drives */
	struct mkv_keys_slice slice[KEYS_SLICES_MAX];
};

struct mkv_misc {			/* list, info, stat */
	uint64_t	cursor;
	uint32_t	rows;
	uint32_t	drive;
	uint64_t	todo;
	struct mkv_buf	buf;
	uint64_t	total_bytes, used_bytes, objects;
	uint32_t	online;
};

struct mkv_req {
	uint32_t	magic;
	uint8_t		op, state;
	uint8_t		late;		/* its answer is decided, and waits for memory of the client that is out */
	uint8_t		ending;		/* 1: the answer is decided; 2: and nothing is waited for but by the ending itself */
	struct mkv_front *f;
	struct mkv_conn	*c;		/* NULL: the client is gone */
	struct mkv_list	link;		/* conn.reqs or front.req_free */
	struct mkv_req	*hash_next;
	struct mkv_list	park_link;
	struct mkv_list	hold_link;	/* front.hold_wait: a full ring takes no RELEASE */
	struct mkv_park_queue *parked;
	uint64_t	id;
	uint16_t	channel;	/* of its payload; 0: the stream */
	struct mkv_line	*line;		/* of a DC channel: leased for it; NULL: it broke */
	uint8_t		carrier;	/* with a channel: MKV_WIRE_CONTROL_*, what it came by and its answers leave by */
	uint8_t		posted, wrote;	/* pieces have been posted; WRITEs since the last flush */
	uint32_t	last_rkey;	/* of the last WRITE, with the client */
	uint64_t	last_addr;
	struct mkv_remote remote;	/* get by a channel: where the payload is wanted */
	uint8_t		by_region;	/* put: a part of it lay in a region; get: the payload is wanted in regions: */
	unsigned	n_seg;
	uint64_t	seg_bytes;
	struct mkv_wire_seg seg[MKV_WIRE_GET_SEGS_MAX];
	struct mkv_xfer	*xfer_now;	/* of its parts: the one whose turn it is; those behind it */
	struct mkv_list	xfer_wait;
	uint64_t	born_ns, stage_ns, deadline_ns;
	struct mkv_timer timer;
	unsigned	n_dops;		/* with drives or on their way there */
	unsigned	tries;
	uint64_t	former_version;	/* of the map by which its former home is being asked */
	int		former;
	int		status;
	unsigned	reason;
	uint16_t	ns_bytes, key_bytes;
	uint8_t		ns[64];
	uint8_t		key[MKV_WIRE_KEY_MAX];
	struct mkv_digest digest;
	struct mkv_out	out;
	_Alignas(8) uint8_t body[REQ_BODY_BYTES];
	union {
		struct mkv_put	put;
		struct mkv_get	get;
		struct mkv_keys	keys;
		struct mkv_misc	misc;
		struct mkv_chan	*attach;	/* that it has begun */
		struct mkv_region *region;	/* DROP: nobody may have it when this is answered */
	} u;
	struct mkv_part	part[REQ_PARTS];
};

/* What dispatch does with the frame that it was shown. */
enum mkv_take {
	MKV_TAKE_DONE,		/* all of it is used */
	MKV_TAKE_HOLD,		/* show it again after mkv_conn_kick() */
	MKV_TAKE_PAYLOAD,	/* c->rx_part will say where the payload goes */
	MKV_TAKE_DISCARD,	/* read its payload and forget it */
	MKV_TAKE_BREAK,		/* close the connection: the client breaks the protocol */
};

struct mkv_req_ops {
	uint8_t		op;
	/* First frame: 0 or why it is refused. */
	int		(*start)(struct mkv_req *r, const struct mkv_hdr *h, const uint8_t *body);
	/* Any frame of it, after start; NULL: nothing more to take. */
	enum mkv_take	(*part)(struct mkv_req *r, const struct mkv_hdr *h, const uint8_t *body);
	enum mkv_next	(*step)(struct mkv_req *r);
	/*
	 * An answer; rep NULL: there will be none. Comes also when the request has ended. The slot is dropped afterwards unless d->keep is set
	 * (never when its drive died with it); buffers that a dead drive has kept are out of the part and of d already.
	 */
	void		(*on_dop)(struct mkv_req *r, struct mkv_dop *d, const struct mkv_drv_rep *rep, int status);
	/* The request ends: give back what only the op knows. DONE: nothing is left; PARK: something is waited for. May be NULL. */
	enum mkv_next	(*undo)(struct mkv_req *r);
};

extern const struct mkv_req_ops mkv_put_ops, mkv_get_ops, mkv_exists_ops, mkv_match_ops, mkv_delete_ops, mkv_touch_ops;
extern const struct mkv_req_ops mkv_list_ops, mkv_info_ops, mkv_stat_ops, mkv_report_ops, mkv_ping_ops, mkv_cancel_ops, mkv_attach_ops, mkv_region_ops;

enum mkv_take	mkv_req_dispatch(struct mkv_conn *c, const struct mkv_hdr *h, const uint8_t *body);
void		mkv_req_run(struct mkv_req *r);
/* Decide the answer. Later decisions are ignored. body may be NULL; it is copied (at most REQ_BODY_BYTES). */
void		mkv_req_end(struct mkv_req *r, int status, unsigned reason, const void *body, uint32_t body_bytes);
/* As mkv_req_end(), when the answer is on its way already. */
void		mkv_req_end_sent(struct mkv_req *r);
void		mkv_req_orphan(struct mkv_req *r);		/* the connection goes */
void		mkv_req_reply(struct mkv_req *r, struct mkv_out *o, unsigned flags, int status, unsigned reason, const void *body, uint32_t body_bytes);
struct mkv_req *mkv_req_find(const struct mkv_front *f, const struct mkv_conn *c, uint64_t id);
void		mkv_req_pool_init(struct mkv_front *f);
void		mkv_req_releases(struct mkv_front *f);		/* holds that found a ring full */
void		mkv_req_contexts(struct mkv_front *f);		/* who waits for a request context */
/* What drives.c found: note it. The caller runs r. Lost: d, its slot and its buffers are not ours any more. */
void		mkv_req_on_dop(struct mkv_req *r, struct mkv_dop *d, const struct mkv_drv_rep *rep, int status);
void		mkv_req_on_dop_lost(struct mkv_req *r, struct mkv_dop *d);
/* A try failed because a drive died: 1 and the op may begin again, 0: answer RETRY. */
int		mkv_req_again(struct mkv_req *r, int status);

/* ns | key of a body into r, and the digest. 0, MKV_E_PROTO, MKV_E_INVAL, MKV_E_SYSTEM. */
int		mkv_req_take_key(struct mkv_req *r, struct mkv_wire_in *in, size_t ns_bytes, size_t key_bytes);
/* A whole body of GET, STAT or REPORT: its key into r, its struct to *out, in the body. Errors as above. */
int		mkv_req_take_get(struct mkv_req *r, const struct mkv_hdr *h, const uint8_t *body, const struct mkv_wire_get **out);
/* Common fields of a drive request for r's key. */
void		mkv_req_fill(const struct mkv_req *r, struct mkv_drv_req *q);

int		mkv_keys_unfinished(const struct mkv_req *r);		/* a list whose last part has not come */

/* get.c, also for report.c: both begin at the home and go on with the pieces, if it has a manifest. */
int		mkv_get_aim(struct mkv_req *r, const struct mkv_part *p, struct mkv_drv_req *q);
void		mkv_get_miss(struct mkv_req *r, unsigned reason);
void		mkv_get_on_hold(struct mkv_part *p, const struct mkv_dop *d, const struct mkv_drv_rep *rep, int status);
void		mkv_get_on_manifest(struct mkv_req *r, struct mkv_part *p, const struct mkv_drv_rep *rep);	/* from here on each part is a piece */
void		mkv_get_on_failure(struct mkv_req *r, struct mkv_part *p, const struct mkv_drv_rep *rep, int status);	/* asked again, or ended */
void		mkv_get_next_piece(struct mkv_req *r, struct mkv_part *p);	/* that a free part takes */
enum mkv_next	mkv_get_undo(struct mkv_req *r);

/* part.c */
void		mkv_part_init(struct mkv_req *r, struct mkv_part *p, uint32_t no, uint32_t bytes);
int		mkv_part_bufs(struct mkv_req *r, struct mkv_part *p, uint32_t bytes);	/* 0; MKV_E_AGAIN: r is parked */
void		mkv_part_drop_bufs(struct mkv_req *r, struct mkv_part *p);
int		mkv_part_clear(struct mkv_req *r, struct mkv_part *p);	/* 1: it is free now; 0: its drive's answer or a ring is waited for */
void		mkv_part_sent(struct mkv_out *o, int res);
int		mkv_part_seg(const struct mkv_req *r, const struct mkv_part *p, uint32_t pos, uint8_t **ptr, uint32_t *len);
void		mkv_part_crc_add(struct mkv_part *p, const uint8_t *at, uint32_t bytes);	/* the next bytes of it have come, and lie here */
int		mkv_part_runs(const struct mkv_req *r, struct mkv_part *p, const struct mkv_drv_run *runs, unsigned n, uint64_t bytes);	/* 0; MKV_E_PEER */
void		mkv_part_push(struct mkv_req *r, struct mkv_part *p, int drive, unsigned op);
int		mkv_buf_take_parked(struct mkv_req *r, uint32_t bytes, struct mkv_buf *b);	/* one run; 0; MKV_E_AGAIN: r is parked; MKV_E_TOOBIG */
void		mkv_buf_back(struct mkv_req *r, struct mkv_buf *b);

#endif
