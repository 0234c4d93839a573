/*
 * Inside of the engine. Rooms: engine.c (life, turn), format.c (superblocks), req.c (requests, locks, transfers), put.c, get.c, obj.c (delete,
 * touch, stat, wrong bytes), list.c (batch, list, info), page.c (metadata pages and their cache), journal.c (groups), evict.c (space), lease.c,
 * set.c, setjob.c, audit.c and whole.c (striped values), nspace.c (namespaces), poolmap.c (drives that come and go), ckpt.c, recover.c, replay.c, fail.c
 * (failure registry), sched.c and follow.c (turns at the medium, reads of the same bytes), trim.c (what the medium may forget), scrub.c (reading what
 * nobody reads), writer.c (who put what nobody proved), inspect.c (offline check).
 *
 * Order of a put: data write -> key lock -> record into the open page and the journal buffer -> group written -> flush -> index -> answer.
 */
#ifndef MKV_DRIVE_ENGINE_PRIV_H
#define MKV_DRIVE_ENGINE_PRIV_H

#include "common/base/assert.h"
#include "common/base/list.h"
#include "worker/drive/alloc.h"
#include "worker/drive/engine.h"
#include "worker/drive/failreg.h"
#include "worker/drive/index.h"
#include "worker/drive/layout.h"
#include "worker/drive/policy.h"
#include "worker/drive/sched_priv.h"
#include "worker/drive/setjob_priv.h"

#define MKV_ENGINE_MAGIC	0xe1613e01u
#define MKV_REQ_MAGIC		0x5ec0e571u

#define JOURNAL_BUF_BLOCKS	64u		/* of one group */
#define PENDING_MAX		16384u		/* records of two groups that free something */
#define LOCK_BUCKETS		256u
#define LEAD_BUCKETS		256u
#define CKPT_CHUNK_BLOCKS	16u
#define CKPT_RANK_STEP		1024u		/* entries in a turn */
#define CKPT_SCAN_STEP		8192u		/* the same, of the slab: cheap ones, most of them beside each other */
#define CKPT_RUN_STEPS		256u		/* turns between two pumps while a checkpoint has only memory to look at */
#define HOLDS_MAX		1024u
#define HOLDS_SETS_MAX		(HOLDS_MAX / 2)	/* of manifests: in memory mode a get without a hold is refused */
_Static_assert(PENDING_MAX / 4 + HOLDS_MAX + 1 < MKV_ENT_HOLDS_MAX, "requests at work, holds and the scrubber on one entry");
#define TXNS_MAX		256u
#define SETFREE_MAX		1024u
#define SETACK_MAX		1024u
#define OPENSETS_MAX		1024u
#define SETMAP_HEADS		65536u
#define AUDIT_ASKED		256u
#define AUDIT_REMOVED_MAX	64u
#define AUDIT_INTERVAL_NS	(60 * MKV_NS_PER_SEC)
#define PAGES_WRITING_MAX	32u
#define FRAME_NIL		UINT32_MAX
#define PAGE_NIL		UINT32_MAX
#define CHUNK			65536u
#define VERIFY_MAX		8u		/* at work and waiting: reports of clients */

enum mkv_next { MKV_NEXT_AGAIN, MKV_NEXT_PARK, MKV_NEXT_DONE };

/* Who moves a parked request on is said beside each state. */
enum req_state {
	RQ_FREE,
	RQ_START,		/* engine */
	RQ_LOCK,		/* the request that has the key lock */
	RQ_LOOKUP,		/* a page read; page.c when a frame is free, or the deadline */
	RQ_SPACE,		/* evict.c when space was freed, or the deadline */
	RQ_IO,			/* last data transfer */
	RQ_COMMIT,		/* journal.c when there is room, or the deadline */
	RQ_FLUSH,		/* journal.c when the group is durable or failed */
	RQ_APPLY,
	RQ_CHECK,		/* last data transfer of a re-read */
	RQ_SCAN,		/* list: page read; set: journal room */
	RQ_REPLY,
	RQ_STATES
};

struct dio {				/* one transfer of a request */
	struct mkv_mio	mio;
	struct mkv_req	*r;
	struct dio	*next;
	uint64_t	begin_ns, off;
	uint32_t	bytes;
	int		slow;		/* noted as such, while it is still under way */
};

struct xfer {				/* bytes between object and memory; all multiples of 4096 but for the object's end */
	int		write;
	uint64_t	pos, end;	/* in the object; begun up to pos */
	uint64_t	base;		/* object offset that lies at buffer position 0; a get begins there */
	uint8_t		*one;		/* not NULL: memory instead of the request's buffers */
	unsigned	in_flight;
	int		err;
	unsigned	queue;		/* enum sched_queue_no */
	uint64_t	queued_ns;	/* waits for its turn since */
};

struct req_buf {
	uint8_t		*ptr;
	uint32_t	bytes;
	int		idx;
};

struct mkv_req {
	uint32_t	magic;
	enum req_state	state;
	struct mkv_engine *e;
	struct mkv_list	link;		/* free, ready or a waiting list */
	struct mkv_list	all;		/* all at work */
	struct mkv_list	lock_link;
	struct mkv_list	group_link;
	struct mkv_list	io_link;	/* waits for its turn at the medium, whatever else the request waits for */
	/* follow.c: */
	struct mkv_list	lead_link;	/* its data is being read: others may have it, too */
	struct mkv_list	followers;
	struct mkv_list	follow_link;	/* follows another */
	struct mkv_req	*leader;
	uint64_t	follow_bytes;	/* of followers */
	int		lock;		/* 0 none, 1 waiting, 2 has it */
	int		parked;		/* link is on a waiting list that a deadline may end */
	int		ready;		/* link is on the ready list */
	int		gone;		/* its client is dead: no reply */
	int		err;		/* set from outside: deadline, flush failed, client gone */
	struct mkv_call	call;
	enum mkv_next	(*step)(struct mkv_req *);
	uint64_t	begin_ns;

	struct req_buf	buf[MKV_DRV_BUFS_MAX];
	uint64_t	room;		/* bytes in buf, each rounded up to 4096 */
	uint32_t	region;		/* in which buf[0] lies: not ours to look at; 0: none */
	struct mkv_run	run[MKV_OBJ_RUNS_MAX];
	unsigned	n_runs;
	uint32_t	units;
	struct xfer	x;

	uint32_t	ent;		/* get, verify: held; put: the new one */
	uint32_t	side;		/* put: reserved side record */
	uint32_t	page;		/* put: where the record went */
	uint64_t	seq;		/* its journal block */
	int		committed;	/* runs belong to the entry */
	int		quarantine;	/* a data write failed: units stay taken */
	int		same;
	int		tries;
	int		spec;		/* get: data read started before the page was there */
	int		begun;		/* has had a transfer */
	int		verifies;	/* is one of engine.verifies */
	uint64_t	expires_ms, wall_ms;
	uint32_t	scan_page, scan_left, scan_piece;
	uint64_t	pin_units;	/* put, touch: asked for */
	struct mkv_drv_req q;
	struct mkv_drv_rep p;
};

enum frame_state { FR_FREE, FR_READING, FR_CLEAN, FR_OPEN, FR_WRITING, FR_BAD };

struct frame {
	uint32_t	page;
	uint8_t		state, ref, tries;
	uint8_t		back;		/* read for no request */
	struct mkv_page	*pg;
	struct mkv_list	waiters;	/* requests */
	struct mkv_list	dirty;		/* written, PAGE_WRITTEN not in the journal yet */
	struct mkv_mio	mio;
	struct mkv_engine *e;
};

struct pages {
	uint8_t		*live;		/* objects (linked or dying) in each page */
	uint8_t		*total;		/* records in it, dead ones included; 255: many */
	uint8_t		*taken;		/* 1: in use */
	uint32_t	*frame_of;	/* page -> frame + 1 */
	struct frame	*frame;
	uint8_t		*mem;
	uint32_t	frames, hand, count, free, cursor, gc_hand;
	uint32_t	touched;	/* frames that ever held a page: the hand takes them in order, so the memory that they take */
	uint32_t	open;		/* frame being filled, or FRAME_NIL */
	uint32_t	writing;
	uint32_t	held;		/* the scrubber reads it, or PAGE_NIL */
	struct mkv_list	written;	/* frames whose write is done: a record is due */
	struct mkv_list	wait;		/* requests that wait for a frame or a page */
	int		gc;		/* a move is under way: its page read */
	uint32_t	gc_page;
	uint8_t		*gc_mem;	/* its copy */
};

struct jbuf {
	uint8_t		*mem;		/* JOURNAL_BUF_BLOCKS blocks */
	uint32_t	blocks;		/* begun */
	uint64_t	first_seq;
	struct mkv_list	reqs;		/* answered when it is durable */
	uint64_t	bytes;		/* payload of accepted puts */
	uint64_t	begin_ns;
	int		urgent;		/* somebody waits: no window */
	unsigned	records;
};

enum journal_state { JN_IDLE, JN_WRITING, JN_FLUSHING };

struct journal {
	struct jbuf	buf[2];
	struct jbuf	*gather, *flight;
	enum journal_state state;
	uint64_t	next_seq;	/* of the next block begun */
	uint64_t	flushed;	/* highest durable block */
	uint64_t	mark_max;	/* blocks claim no more than this as durable, until the checkpoint that recovery asked for */
	uint64_t	last_record;	/* newest block with records */
	uint64_t	tail;		/* replay begins here: older blocks may be overwritten */
	uint32_t	limit;		/* blocks of a group */
	uint64_t	touched[MKV_TOUCHED_MAX];	/* of the block being filled */
	unsigned	n_touched;
	int		closed;		/* the block being filled takes no more */
	int		last_idle;	/* the newest block on the medium is an idle mark */
	int		remains;	/* open: where the next block goes lies part of one that a crash cut off */
	int		no_flush;	/* flight is an idle mark */
	uint64_t	idle_at;	/* when to write one */
	struct mkv_mio	mio[2];
	unsigned	ios;
	int		err;
	uint64_t	io_begin_ns;
	struct mkv_list	wait;		/* requests that wait for room */
	uint64_t	flushes;
};

struct pending {			/* what a durable record frees */
	uint64_t	seq;
	uint32_t	ent;		/* or MKV_ENT_NIL */
	uint32_t	page;		/* one live record less */
};

struct writer {				/* of a put that nobody has proved */
	struct mkv_digest digest;
	uint64_t	put_id;
	struct mkv_drv_writer who;
};

struct hold {
	uint32_t	ent, client, gen, next;
};

struct txn {
	uint32_t	client, gen, units, n_runs;
	int		used;
	uint64_t	value_bytes;
	struct mkv_run	run[MKV_OBJ_RUNS_MAX];
};

struct setfree {			/* pieces of a manifest that is gone, until every drive has freed them */
	struct mkv_set_id set;
	uint64_t	mask;		/* drives that have not answered */
	uint32_t	piece_count;
	uint32_t	used;
	uint64_t	again_ns;
	uint64_t	seq;		/* the record that made it so: send nothing before it is durable */
	int		held;		/* nor before the last reader of the manifest is gone */
};

struct setack {				/* said to the drives of the mask when block seq is durable */
	uint64_t	seq, mask;
	uint16_t	op;
	uint32_t	piece_count;
	struct mkv_set_id set;
};

struct openset {			/* given by SET_NEW, no manifest yet */
	struct mkv_set_id set;
	uint64_t	until_ns;
	uint32_t	client;
	int		used;
	unsigned	lost;		/* a piece of it is said to be gone already: why */
};

struct asked {
	struct mkv_set_id set;
	uint32_t	count;
};

struct set_audit {
	uint64_t	next_ns;
	uint32_t	hand;		/* of the walk */
	int		walking, walk_all, all;	/* under way; this one, the next one looks at all pieces */
	unsigned	tell;		/* so often SET_AUDIT is still to be said */
	struct asked	asked[AUDIT_ASKED];	/* in this walk */
	uint64_t	removed[AUDIT_REMOVED_MAX];	/* tags of homes that were removed, the oldest first */
	uint32_t	removed_count;
	struct openset	*open;
	uint32_t	*head;		/* set id -> side record + 1 of its manifest */
};

#define WHOLE_PIECES	64u		/* of one question */
#define WHOLE_CHECKS	8u

struct whole {				/* are all pieces of a manifest there? */
	struct mkv_set_id set;
	uint64_t	mask, silent;	/* drives that may have pieces; those that have not answered */
	uint64_t	bits;		/* of the pieces from first on: seen */
	uint64_t	again_ns;
	uint32_t	ent, piece_count, first;
	unsigned	tries, reason;	/* reason: for the misses, if it is not whole */
	int		used;
	int		again;		/* a piece may have left since it was seen: once more from the first */
};

struct set_whole {
	struct whole	check[WHOLE_CHECKS];
	unsigned	checks;
	int		wanted, walking;	/* a walk over all manifests */
	uint32_t	hand;
	unsigned	tell;		/* so often SET_LOST is still to be said */
	uint64_t	next_ns, turn_ns;
};

#define LEASES_MAX	65536u

struct lease {
	uint64_t	end;		/* tick */
	uint64_t	units;
	uint32_t	ent;
	uint32_t	prev, next;	/* record + 1; next also of the free list */
};

struct leases {
	struct lease	*rec;
	uint32_t	*wheel;		/* record + 1 by end */
	uint32_t	free, count;
	uint64_t	tick;		/* not ended yet */
	uint64_t	units;
	uint64_t	until_ms, seq;	/* wall clock: what the journal says, and where */
	uint64_t	barrier_ms;	/* of an earlier life */
};

enum ckpt_state { CK_IDLE, CK_DRAIN, CK_RANK, CK_SCAN, CK_SYNC, CK_FLUSH, CK_HEAD, CK_HEAD_FLUSH };

struct ckpt {
	enum ckpt_state	state;
	uint64_t	id;		/* of the newest complete one */
	uint64_t	start_seq, end_seq;
	uint32_t	area;		/* the next one goes here */
	uint32_t	next_ent, next_set, next_slot[2];	/* names are written twice: first and last */
	uint32_t	blocks;		/* body blocks written */
	uint64_t	items;
	uint8_t		*mem;		/* CKPT_CHUNK_BLOCKS blocks */
	uint32_t	filled;
	struct mkv_mio	mio[2];
	unsigned	ios;
	int		err, wanted, last;
	int		cut;		/* the chunk is not full, the turn was over */
	int		hurry;		/* not in turns: the next complete one */
	int		hidden;		/* recovery could not read the heads of area; there may be a newer checkpoint */
};

#define NS_HEADS	256u

struct nspace {				/* a slot: a namespace with objects, or what is left of a purged one */
	uint32_t	first;		/* entry + 1 of its list */
	uint32_t	objects, coming;	/* in the list; with a record in the journal and not linked yet */
	uint64_t	units, bytes;	/* on this drive; of the values */
	uint64_t	purge_seq;	/* block of the record that purges it; 0: it is open */
	uint16_t	next;		/* open: with the same hash */
	uint8_t		used, condemned;	/* condemned: recovery: the reason for which its objects leave; 0: they stay */
	uint8_t		name_bytes, name[MKV_DRV_NS_MAX];
};

enum ns_state { NS_IDLE, NS_ASKED, NS_FLUSH };

struct ns_purge {			/* the one under way */
	enum ns_state	state;
	uint64_t	id, seq, objects, bytes;
	uint8_t		name_bytes, name[MKV_DRV_NS_MAX];
};

struct nspaces {
	struct nspace	*slot;		/* 1 to count */
	uint32_t	count, hand;
	uint32_t	listed;		/* entries below it are in their lists; during recovery not all are */
	uint32_t	condemned;	/* recovery: slots whose objects leave */
	uint32_t	purged;		/* objects of closed slots */
	uint64_t	purged_units;
	uint16_t	head[NS_HEADS];	/* open slots by name */
	struct ns_purge	purge;
};

enum poolmap_state { PM_IDLE, PM_WRITE, PM_FLUSH };

struct poolmap {
	struct mkv_map	kept;		/* on the medium */
	struct mkv_map	next;		/* to be kept; version 0: none */
	uint64_t	fence_ns;	/* of what came up to then nothing may be at work when `next` is written */
	enum poolmap_state state;
	struct mkv_mio	mio;
	struct mkv_poolmap *block;
	/* Objects that no front finds here by the kept map leave. */
	struct mkv_place home, former;
	uint32_t	sweep;		/* next entry */
	int		sweeping;
	uint64_t	sweep_ns;
	/* This drive is drained: its objects leave one by one. */
	int		leaving;
	uint64_t	leave_began_ns;
	uint32_t	leave_objects;	/* when it began */
	uint32_t	leave_hand;
	/* A drive that comes back: keys to be dropped. */
	struct mkv_digest *forget;
	size_t		forgets, forget_at;
	/* While another drive is away: keys that were written here. */
	struct mkv_digest *log;
	uint32_t	logs;
	int		log_on, log_full;
	uint64_t	log_from;	/* whatever was written under this version or a later one is in the log */
	int		seen;		/* this process has had a map */
};

#define GHOST_BITS_MAX	20
#define GHOST_WAYS	4u
#define GHOSTS_MAX	(1u << 20)	/* of the policy: 4 MiB */

struct fails {				/* the failure registry */
	struct mkv_fail_row *row;	/* MKV_FAIL_ROWS */
	struct mkv_fail_sum sum;
	uint32_t	due;		/* blocks to be written */
	int		writing, never_write;
	int		hurry;		/* no pauses between blocks */
	uint64_t	next_ns, watch_ns;
	uint64_t	slow_seq;	/* journal group that was noted as slow */
	uint8_t		*mem;		/* one block */
	struct mkv_mio	mio;
};
_Static_assert(MKV_FAILREG_BLOCKS == 32, "bits of due");

enum scrub_state {
	SC_NEXT,		/* between two visits */
	SC_PAGE,		/* its read */
	SC_VISIT,		/* the next record, when it may */
	SC_DATA,		/* the last of its reads */
	SC_LOST,		/* the page is damaged: its objects leave */
};

struct scrub_io {
	struct mkv_mio	mio;
	struct mkv_engine *e;
	uint64_t	off;
};

struct scrub {
	enum scrub_state state;
	uint8_t		*mem;		/* of one read */
	struct mkv_page	*pg;		/* copy of the page that is visited */
	struct scrub_io	io[MKV_OBJ_RUNS_MAX];
	unsigned	ios, tries;
	int		err;		/* of the reads under way */
	uint64_t	err_off;
	uint32_t	bytes;		/* they read */
	int		stop;
	/* The visit. */
	uint32_t	page;
	int		only;		/* what was never proved */
	int		grows;		/* the page is not written yet */
	uint32_t	rec, pos;	/* the record, and the next one */
	uint64_t	at;		/* in the object */
	uint32_t	ent;		/* held while it is read, or MKV_ENT_NIL */
	uint32_t	lost;		/* next entry to be looked at */
	/* The walk to what was never proved. */
	uint32_t	hand;
	unsigned	progress;
	int		unread;		/* something could not be read in it */
	uint32_t	unread_page;	/* of the last such thing, or PAGE_NIL */
	uint64_t	again_ns;
	/* The pass. */
	int		passing;
	uint32_t	pass, next_page;
	uint64_t	began_ms, ended_ms, pass_bytes;	/* wall clock; ended: the last whole one */
	uint64_t	next_ns, busy_ns;		/* by the rate; last seen with requests */
	int		waits;			/* for its turn at the medium: sched_next_ns() */
};

struct trim {				/* trim.c */
	uint64_t	*dirty;		/* an extent each: something in it was freed since it was discarded */
	uint32_t	extents;	/* dirty ones */
	uint32_t	left;		/* of them, what the batch under way has not come to */
	uint32_t	hand, pos;	/* extent, and unit in it, that the batch is at */
	uint32_t	first;		/* extents from here on have not been looked at since the start */
	int		inside;		/* the batch is in the middle of an extent */
	int		off;		/* this medium forgets nothing, or the end is near */
	struct mkv_run	claim;		/* being discarded, across extents; len 0: nothing is */
	uint64_t	since_ns;	/* the oldest of what waits, or the last batch */
	uint64_t	begin_ns;	/* of the last call */
	uint64_t	next_ns, first_ns;
};

struct mkv_engine {
	uint32_t	magic;
	struct mkv_engine_opts o;
	struct mkv_sb	sb;
	uint64_t	tag;
	uint8_t		piece_secret[MKV_SECRET_BYTES];
	struct mkv_index ix;
	struct mkv_policy pol;
	struct mkv_alloc al;
	struct pages	pg;
	struct journal	jn;
	struct ckpt	ck;
	struct fails	fl;
	struct poolmap	pm;
	struct sched	sched;
	struct scrub	scrub;
	uint32_t	unproved;	/* linked objects that ent_is_proved() denies */
	struct nspaces	ns;
	struct trim	trim;

	struct mkv_req	*req;
	struct dio	*dio, *dio_free;
	uint32_t	dios, dios_used;
	struct mkv_list	lead[LEAD_BUCKETS];	/* reads under way, by entry */
	struct mkv_list	req_free, ready, all, space_wait;
	unsigned	at_work;
	uint32_t	active[MKV_ENGINE_CLIENTS_MAX];
	uint8_t		gone[MKV_ENGINE_CLIENTS_MAX];
	struct mkv_list	lock[LOCK_BUCKETS];

	struct pending	*pend;
	uint32_t	pend_head, pend_count;
	uint64_t	pend_units, held_units;	/* gone: free after a flush; free after a reader */

	uint64_t	*ghost;
	uint32_t	ghost_mask, ghost_turn;
	uint64_t	expire_ns;
	uint32_t	hand, expire_hand;	/* over all entries: for manifests to reclaim, for those whose time is over */
	uint64_t	evict_need;	/* units that waiters miss */
	uint32_t	evicting;	/* between the watermarks */
	uint64_t	taken_units;	/* by puts, since rate_ns */
	uint64_t	rate_ns, ahead_units;	/* units that should be free for the puts to come */
	struct leases	lease;
	uint64_t	pin_units, pin_asked;	/* pinned; asked for by puts at work */
	struct writer	*writer;
	struct hold	*hold;
	uint32_t	hold_free, set_holds;
	struct txn	*txn;
	struct setfree	*setfree;
	uint32_t	setfrees;
	struct setack	*setack;
	uint32_t	setacks;
	struct setjobs	setjobs;
	struct set_audit	audit;
	struct set_whole	whole;
	uint64_t	set_next;

	int		more;		/* a step has more to do at once */
	int		readonly, opening, formatted, cancelled;
	uint64_t	sweep_ns, reclaim_ns;
	uint64_t	puts;
	uint32_t	pieces, manifests, provisional, epoch_seen;
	struct mkv_engine_info rec;	/* what recovery found */
	uint32_t	sb_first;	/* superblock to be written before the other */
	uint32_t	unreadable;	/* blocks that recovery asked for */
	uint8_t		*bounce;	/* one chunk, for verify */
	struct mkv_req	*bounce_of;
	unsigned	verifies;
	struct mkv_list	bounce_wait;
	uint64_t	obj[MKV_OBJ_BYTES_MAX / 8];	/* scratch: the record being built */
};

static inline uint64_t
eng_now(const struct mkv_engine *e)
{
	return (e->o.clock->now_ns(e->o.clock->arg));
}

/* What objects have, or will: a range that is being discarded is taken for a moment only. */
static inline uint64_t
eng_used_units(const struct mkv_engine *e)
{
	return (e->al.units - e->al.free_units - e->trim.claim.len);
}

static inline uint64_t
eng_wall(const struct mkv_engine *e)
{
	return (e->o.clock->wall_ms(e->o.clock->arg));
}

static inline struct mkv_ent *
eng_ent(struct mkv_engine *e, uint32_t i)
{
	return (&e->ix.ent[i]);
}

/* Wall clock as entries keep it, rounded up: nothing expires before its time. 0 stays 0. */
static inline uint32_t
eng_ticks(const struct mkv_engine *e, uint64_t wall_ms)
{
	uint64_t ticks;

	if (wall_ms == 0)
		return (0);
	ticks = wall_ms > e->sb.created_ms ? MKV_DIV_UP(wall_ms - e->sb.created_ms, MKV_TICK_MS) : 0;
	if (ticks == 0)
		return (1);
	return (ticks > UINT32_MAX ? UINT32_MAX : (uint32_t)ticks);
}

static inline uint64_t
ent_expires_ms(const struct mkv_engine *e, const struct mkv_ent *en)
{
	return (en->expires ? e->sb.created_ms + (uint64_t)en->expires * MKV_TICK_MS : 0);
}

static inline int
ent_expired(const struct mkv_engine *e, const struct mkv_ent *en, uint64_t wall_ms)
{
	return (en->expires != 0 && ent_expires_ms(e, en) <= wall_ms);
}

/* Its bytes matched its CRCs once, as somebody of us saw; or there are none. */
static inline int
ent_is_proved(const struct mkv_ent *en)
{
	return ((en->flags & MKV_ENT_VERIFIED) != 0 || en->units == 0);
}

#define ENG_COUNT(e, name, n)	mkv_metric_add((e)->o.metrics, MKV_M_drive_##name, 0, (n))

/* engine.c */
void	eng_readonly(struct mkv_engine *e, const char *why);
/* Synchronous I/O for open and close: run the loop until done. */
int	eng_read(struct mkv_engine *e, void *buf, uint32_t bytes, uint64_t off);
/* Block by block where it cannot be read at once, each twice; what cannot be read is 0xff: neither good nor empty. How many; MKV_E_CANCELLED. */
#define ENG_SPOTS_MAX	JOURNAL_BUF_BLOCKS	/* more of them are no spot: the drive, or the way to it */
int	eng_read_spots(struct mkv_engine *e, void *buf, uint32_t blocks, uint64_t off);
int	eng_write(struct mkv_engine *e, const void *buf, uint32_t bytes, uint64_t off);
int	eng_flush(struct mkv_engine *e);
void	eng_run_ready(struct mkv_engine *e);
void	eng_ghost(struct mkv_engine *e, struct mkv_digest d, unsigned reason);
unsigned eng_ghost_reason(const struct mkv_engine *e, struct mkv_digest d);

/* format.c */
int	eng_format_or_load(struct mkv_engine *e, char *why, size_t why_bytes);
int	eng_sb_write(struct mkv_engine *e, int clean);

/* req.c */
void	req_wake(struct mkv_req *r);
void	req_park(struct mkv_req *r, struct mkv_list *on);
void	req_wake_list(struct mkv_list *l, unsigned max);
void	req_run(struct mkv_req *r);
enum mkv_next req_finish(struct mkv_req *r, int status, unsigned reason);
int	req_lock(struct mkv_req *r);			/* 1 has it; 0 parked */
void	req_unlock(struct mkv_req *r);
int	req_locked(struct mkv_engine *e, struct mkv_digest d);
void	req_xfer(struct mkv_req *r, int write, uint64_t pos, uint64_t end, uint64_t base, uint8_t *one);
uint32_t req_piece(struct mkv_req *r, uint32_t most);	/* give the medium the next bytes of the transfer, `most` or less: how many; needs a free dio */
void	req_xfer_cut(struct mkv_req *r, int err);	/* what has not begun does not begin any more */
uint8_t *req_at(struct mkv_req *r, uint64_t pos, uint64_t *len);	/* memory at a buffer position, and how much of it */
void	req_sweep(struct mkv_engine *e, uint64_t now);
/* Entry under the request's digest that is alive and of its kind, or MKV_ENT_NIL with the reason. */
uint32_t req_find(struct mkv_req *r, unsigned *reason);
uint64_t req_phys(const struct mkv_engine *e, const struct mkv_run *run, unsigned n, uint64_t pos, uint64_t *left);

/* follow.c */
int	follow_join(struct mkv_req *r, uint64_t pos, uint64_t end);	/* 1: another request reads these bytes, r gets them from it */
void	follow_lead(struct mkv_req *r);		/* r's read begins: others may follow */
void	follow_end(struct mkv_req *r);		/* it has ended, whatever its result is */
void	follow_leave(struct mkv_req *r, int err);	/* r does not wait any more */

/* put.c get.c obj.c list.c */
enum mkv_next put_step(struct mkv_req *r);
enum mkv_next reserve_step(struct mkv_req *r);
enum mkv_next commit_step(struct mkv_req *r);
enum mkv_next abort_step(struct mkv_req *r);
void	commit_refused(struct mkv_req *r);	/* before its first step */
void	put_txn_drop(struct mkv_engine *e, struct txn *t);
void	put_release(struct mkv_req *r);
enum mkv_next get_step(struct mkv_req *r);
enum mkv_next verify_step(struct mkv_req *r);
void	get_release(struct mkv_req *r);
void	hold_drop(struct mkv_engine *e, uint32_t h);
enum mkv_next stat_step(struct mkv_req *r);
enum mkv_next delete_step(struct mkv_req *r);
enum mkv_next touch_step(struct mkv_req *r);
enum mkv_next batch_step(struct mkv_req *r);
enum mkv_next list_step(struct mkv_req *r);
enum mkv_next info_step(struct mkv_req *r);
enum mkv_next set_new_step(struct mkv_req *r);
/* The record of this very entry: a page may also hold an older one of its key, or the next one, whose put is not committed yet. 0 or MKV_E_CORRUPT. */
int	obj_in_page(const struct mkv_engine *e, const struct mkv_ent *en, const struct mkv_page *pg, struct mkv_obj_view *v);
/* The record of entry i, its page read if need be. 0; MKV_E_AGAIN parked; MKV_E_CORRUPT, MKV_E_IO. Valid until the next page_* call. */
int	obj_record(struct mkv_req *r, uint32_t i, struct mkv_obj_view *v);
int	obj_key_is(const struct mkv_obj_view *v, const struct mkv_drv_req *q);
void	obj_proved(struct mkv_engine *e, uint32_t i);	/* all its bytes matched */
struct obj_blame {
	int		data;		/* its bytes; 0: its record */
	uint64_t	put_id;
	uint64_t	off;		/* data: where on the medium */
	uint32_t	bytes;
	struct mkv_set_id set;	/* of a piece, if its record could be read: its home is told */
};
/* Entry i is bad, it was read twice: it leaves, unless somebody replaces it. Who held it still does. The reason for a miss. */
unsigned obj_corrupt(struct mkv_engine *e, uint32_t i, const struct obj_blame *b);

/* writer.c */
#define WRITER_TEXT_BYTES	192u
int	writer_init(struct mkv_engine *e);
void	writer_fini(struct mkv_engine *e);
void	writer_note(struct mkv_engine *e, const struct mkv_drv_req *q);
/* For a log line: who put this object, as far as that is remembered. */
void	writer_text(struct mkv_engine *e, struct mkv_digest d, uint64_t put_id, char dst[WRITER_TEXT_BYTES]);

/* page.c */
int	page_init(struct mkv_engine *e);
void	page_fini(struct mkv_engine *e);
/* A page in memory: 0, MKV_E_AGAIN (r parked; NULL r: read begun or no frame), MKV_E_CORRUPT, MKV_E_IO. */
int	page_get(struct mkv_engine *e, uint32_t page, struct mkv_req *r, struct mkv_page **out);
/* Room for a record of so many bytes in the open page, turning to a new one. 0 or MKV_E_AGAIN. */
int	page_room(struct mkv_engine *e, uint32_t bytes);
void	page_add(struct mkv_engine *e, const struct mkv_obj *o, uint32_t *page, uint16_t *pos);
void	page_close_open(struct mkv_engine *e);
void	page_dec(struct mkv_engine *e, uint32_t page);
void	page_journal_written(struct mkv_engine *e);
void	page_gc(struct mkv_engine *e);
int	page_good(struct mkv_engine *e, const struct mkv_page *pg, uint32_t page);
void	page_hold(struct mkv_engine *e, uint32_t page);		/* one at a time */
void	page_unhold(struct mkv_engine *e);			/* not held: nothing */
void	page_move_soon(struct mkv_engine *e, uint32_t page);
/* Replay: put a record at its place in the image of a page; forget the image. */
int	page_replay(struct mkv_engine *e, uint32_t page, uint16_t pos, const struct mkv_obj *o);
void	page_replay_written(struct mkv_engine *e, uint32_t page);
int	page_replay_end(struct mkv_engine *e);

/* journal.c */
int	journal_init(struct mkv_engine *e);
void	journal_fini(struct mkv_engine *e);
/* Open, before the superblocks are written: what a crash left where the next block goes is made nothing. 0 or MKV_E_*. */
int	journal_wipe(struct mkv_engine *e);
int	journal_room(struct mkv_engine *e, uint32_t body_bytes, int internal);
uint64_t journal_append(struct mkv_engine *e, enum mkv_jtype type, struct mkv_digest d, uint32_t page, uint16_t pos, uint32_t arg,
	    const void *body, uint32_t body_bytes);
void	journal_join(struct mkv_engine *e, struct mkv_req *r);	/* answer r with the group being gathered, at once */
/* 1: everything appended is durable; 0: r joined the group that will make it so; MKV_E_READONLY: it never will be. */
int	journal_sync_req(struct mkv_req *r);
void	journal_urgent(struct mkv_engine *e);
void	journal_readonly(struct mkv_engine *e);			/* what gathers will not be written: its requests are told */
void	journal_step(struct mkv_engine *e, uint64_t now);
uint64_t journal_next_ns(const struct mkv_engine *e);
void	journal_close_block(struct mkv_engine *e);

/* evict.c */
void	ent_remove(struct mkv_engine *e, uint32_t i, uint64_t seq, unsigned reason);
void	ent_publish(struct mkv_engine *e, uint32_t i, uint64_t seq, struct mkv_digest parent);	/* link, replacing what is there */
void	ent_hit(struct mkv_engine *e, uint32_t i);	/* it was read */
void	ent_touch(struct mkv_engine *e, uint32_t i);	/* somebody asked for it */
void	ent_pin(struct mkv_engine *e, uint32_t i);
void	ent_count(struct mkv_engine *e, const struct mkv_ent *en, int d);	/* in the sums over all linked entries: 1 or -1 more */
int	ent_queued(const struct mkv_ent *en);		/* may be evicted singly */
uint64_t ent_pin_units(const struct mkv_engine *e, const struct mkv_ent *en);
uint64_t ent_units_here(const struct mkv_engine *e, const struct mkv_ent *en);	/* of its value, on this drive */
void	ent_free(struct mkv_engine *e, uint32_t i);
void	ent_unhold(struct mkv_engine *e, uint32_t i);
void	pending_push(struct mkv_engine *e, uint64_t seq, uint32_t ent, uint32_t page);
void	pending_run(struct mkv_engine *e);
int	evict_one(struct mkv_engine *e, uint32_t i, unsigned reason);	/* journal and remove; MKV_E_AGAIN */
void	evict_step(struct mkv_engine *e);
void	evict_wake(struct mkv_engine *e);
int	evict_on(const struct mkv_engine *e);		/* 0: whatever is full stays full */
int	evict_admit(struct mkv_req *r);			/* 0: the put is answered, nothing is stored */
int	evict_pin_room(struct mkv_req *r, uint64_t units);	/* 0: the share of pins is used up */
void	evict_gauges(struct mkv_engine *e);
void	evict_expire(struct mkv_engine *e);

/* trim.c */
int	trim_init(struct mkv_engine *e);
void	trim_fini(struct mkv_engine *e);
void	trim_free(struct mkv_engine *e, struct mkv_run run);	/* as mkv_alloc_free(), and it is to be discarded */
void	trim_step(struct mkv_engine *e, uint64_t now);
uint64_t trim_next_ns(const struct mkv_engine *e);
int	trim_close(struct mkv_engine *e);			/* waits for the one under way. 0; MKV_E_CANCELLED */
void	trim_gauges(struct mkv_engine *e);

/* lease.c */
int	lease_init(struct mkv_engine *e);
void	lease_fini(struct mkv_engine *e);
int	lease_grant(struct mkv_engine *e, uint32_t i, uint32_t ms);	/* 0: no room */
void	lease_drop(struct mkv_engine *e, uint32_t i);			/* not leased: nothing */
int	lease_promise(struct mkv_req *r, uint32_t ms);			/* 0; MKV_E_AGAIN parked; what the journal says */
void	lease_recovered(struct mkv_engine *e, uint64_t until_ms);
void	lease_barrier(struct mkv_engine *e);
int	lease_evict_ok(const struct mkv_engine *e);
void	lease_step(struct mkv_engine *e);

/* audit.c */
void	setmap_add(struct mkv_engine *e, uint32_t i);	/* the manifest in this entry can be found; until setmap_del() of its side record */
void	setmap_del(struct mkv_engine *e, uint32_t side);
int	setmap_has(struct mkv_engine *e, struct mkv_set_id set);
uint32_t setmap_ent(struct mkv_engine *e, struct mkv_set_id set);	/* MKV_ENT_NIL: there is none */
int	openset_add(struct mkv_engine *e, struct mkv_set_id set, uint32_t client, uint64_t deadline_ns);
int	openset_renew(struct mkv_engine *e, struct mkv_set_id set, uint32_t client, uint64_t deadline_ns);
int	openset_may_commit(struct mkv_engine *e, struct mkv_set_id set);
unsigned openset_end(struct mkv_engine *e, struct mkv_set_id set);	/* MKV_REASON_NONE, or why a piece of it was lost meanwhile */
void	openset_lost(struct mkv_engine *e, struct mkv_set_id set, unsigned reason);	/* a set of zeros: perhaps of any */
void	openset_client_gone(struct mkv_engine *e, uint32_t client);
void	audit_on_ask(struct mkv_engine *e, uint32_t drive, struct mkv_set_id set, uint32_t piece_count, unsigned flags);
void	audit_on_audit(struct mkv_engine *e);
void	audit_tell(struct mkv_engine *e);
void	audit_opened(struct mkv_engine *e);
void	audit_step(struct mkv_engine *e, uint64_t now);
uint64_t audit_next_ns(const struct mkv_engine *e);

/* scrub.c */
int	scrub_init(struct mkv_engine *e);
void	scrub_fini(struct mkv_engine *e);
void	scrub_recovered(struct mkv_engine *e, const struct mkv_ckpt_head *h);
void	scrub_save(const struct mkv_engine *e, struct mkv_ckpt_head *h);
void	scrub_gauges(struct mkv_engine *e);
void	scrub_step(struct mkv_engine *e, uint64_t now);
uint64_t scrub_next_ns(const struct mkv_engine *e, uint64_t now);
int	scrub_close(struct mkv_engine *e);

/* whole.c */
void	whole_opened(struct mkv_engine *e, int clean);	/* clean: the last end was orderly */
void	whole_walk(struct mkv_engine *e);		/* check every manifest, soon */
void	whole_suspect(struct mkv_engine *e, uint32_t i, unsigned reason);	/* check this one, if it is a manifest that is there; why it leaves then */
/* A piece of this set that was here left without its home knowing (damage), and why; a set of zeros: some pieces, of whatever sets. */
void	whole_lost(struct mkv_engine *e, struct mkv_set_id set, unsigned reason);
void	whole_on_look(struct mkv_engine *e, uint32_t drive, struct mkv_set_id set, uint64_t first, uint64_t n);
void	whole_on_seen(struct mkv_engine *e, uint32_t drive, struct mkv_set_id set, uint64_t first, uint64_t bits);
void	whole_on_lost(struct mkv_engine *e, struct mkv_set_id set, uint64_t reason);
void	whole_step(struct mkv_engine *e, uint64_t now);
uint64_t whole_next_ns(const struct mkv_engine *e);

/* set.c */
/* Say op to the drives of the mask, once block seq is durable. May be forgotten when too much is to be said. */
void	set_answer(struct mkv_engine *e, uint64_t mask, enum mkv_drv_op op, struct mkv_set_id set, uint32_t piece_count, uint64_t seq);
int	set_is_going(struct mkv_engine *e, struct mkv_set_id set);	/* SET_FREE is under way */
uint64_t set_units(const struct mkv_engine *e, uint64_t mask, uint32_t piece_count);
uint64_t set_units_due(struct mkv_engine *e);
void	set_manifest_gone(struct mkv_engine *e, const struct mkv_side *s, uint64_t seq);	/* its entry stays until set_unread() */
void	set_unread(struct mkv_engine *e, struct mkv_set_id set);	/* durably gone, and nobody reads it any more */
void	set_committed(struct mkv_engine *e, const struct mkv_side *s, uint64_t seq);
int	set_room(const struct mkv_engine *e);
void	set_step(struct mkv_engine *e, uint64_t now);
void	set_flushed(struct mkv_engine *e);
void	set_replay_gone(struct mkv_engine *e, const struct mkv_jset *s);
void	set_replay_freed(struct mkv_engine *e, struct mkv_set_id set);

/* nspace.c */
int	ns_init(struct mkv_engine *e);
void	ns_fini(struct mkv_engine *e);
uint32_t ns_take(struct mkv_engine *e, const void *name, size_t bytes);		/* the open slot of a name; 0: all are taken */
void	ns_expect(struct mkv_engine *e, uint32_t i, uint32_t slot);		/* put: its record goes into the journal */
void	ns_came(struct mkv_engine *e, uint32_t i);				/* and its object is linked */
void	ns_add(struct mkv_engine *e, uint32_t i);
void	ns_remove(struct mkv_engine *e, uint32_t i);
int	ns_closed(const struct mkv_engine *e, const struct mkv_ent *en);	/* a record that purges it is in the journal */
int	ns_purged(const struct mkv_engine *e, const struct mkv_ent *en);	/* and durable: it is not there any more */
int	ns_step(struct mkv_engine *e);						/* 1: more to do at once */
int	ns_ckpt_item(const struct mkv_engine *e, uint32_t slot, struct mkv_ckpt_item *it, uint8_t name[MKV_DRV_NS_MAX + 1]);	/* 0: not in use */
/* Recovery: a name of the checkpoint; may an object have this slot; all are read; a purge; a hash that a damaged block named. */
void	ns_replay_item(struct mkv_engine *e, const struct mkv_ckpt_item *it);
int	ns_replay_known(const struct mkv_engine *e, uint32_t slot, int piece);
int	ns_replay_sweep(struct mkv_engine *e);
int	ns_replay_settle(struct mkv_engine *e, uint32_t i);
void	ns_replay_settled(struct mkv_engine *e);
void	ns_replay_named(struct mkv_engine *e);
void	ns_replay_purge(struct mkv_engine *e, const void *name, size_t bytes);
void	ns_replay_touched(struct mkv_engine *e, uint64_t lo);

/* poolmap.c */
int	poolmap_init(struct mkv_engine *e);
void	poolmap_fini(struct mkv_engine *e);
int	poolmap_load(struct mkv_engine *e);
int	poolmap_refuses(const struct mkv_engine *e, const struct mkv_drv_req *q);	/* 1: asked under an older map */
/* Drives of a stripe that can still have pieces: not those that were removed for good. *sure 0: one of them is away, and may come back. */
uint64_t poolmap_holders(const struct mkv_engine *e, uint64_t mask, int *sure);
void	poolmap_note(struct mkv_engine *e, const struct mkv_req *r);			/* a write has ended */
int	poolmap_step(struct mkv_engine *e, uint64_t now);				/* 1: more to do at once */

/* ckpt.c */
int	ckpt_init(struct mkv_engine *e);
void	ckpt_fini(struct mkv_engine *e);
void	ckpt_step(struct mkv_engine *e);
int	ckpt_run(struct mkv_engine *e);			/* open and close: pump until one is complete */

/* fail.c */
#define FAIL_SLOW_NS	(5 * MKV_NS_PER_SEC)	/* an I/O that took longer is noted */
int	fail_init(struct mkv_engine *e);
void	fail_fini(struct mkv_engine *e);
int	fail_open(struct mkv_engine *e);		/* when the superblock is known. 0, MKV_E_NOMEM, MKV_E_CANCELLED */
/* Note a failure; may be called from a completion. off and bytes: on the medium; arg: see struct mkv_fail_row. */
void	fail_note(struct mkv_engine *e, enum mkv_failure what, uint64_t off, uint32_t bytes, int err, uint64_t arg);
void	fail_slow(struct mkv_engine *e, struct dio *d, int err, uint64_t now);	/* d ends; it may have taken long */
void	fail_watch(struct mkv_engine *e, uint64_t now);		/* from the sweep: what does not end is noted as well */
void	fail_step(struct mkv_engine *e, uint64_t now);
uint64_t fail_next_ns(const struct mkv_engine *e);
int	fail_close(struct mkv_engine *e);

/* recover.c */
int	recover_run(struct mkv_engine *e, char *why, size_t why_bytes);
void	recover_drop(struct mkv_engine *e, uint32_t i, unsigned reason);	/* no journal, no reader, units not claimed yet */
int	recover_ent(struct mkv_engine *e, const struct mkv_obj_view *v, uint32_t page);
void	recover_drop_all(struct mkv_engine *e);
/* As eng_read_spots(). 0; MKV_E_IO when all in all more could not be read than a spot has; MKV_E_CANCELLED. */
int	recover_read_spots(struct mkv_engine *e, uint8_t *to, uint32_t blocks, uint64_t off);

/* replay.c */
int	replay_run(struct mkv_engine *e, uint64_t start_seq, uint32_t mount, int fresh);

#endif
