/*
 * What fronts say to drives, and drives to drives: the language of the rings.
 *
 * Front -> drive: a descriptor {op, slot_idx, gen} plus a struct mkv_drv_req in the first 4 KiB of the control slot. Drive -> front: the same op,
 * slot_idx and gen with status, plus a struct mkv_drv_rep in the second 4 KiB. The slot and all buffers it names belong to the drive from push to
 * pop. The drive copies the request out before checking it; the front copies the answer out: both are foreign bytes.
 * Drive -> drive: everything is in the descriptor's args.
 *
 * PUT  of up to one extent: buffers already hold the bytes; the drive reserves, writes, journals, answers when durable (or accepted).
 * PUT  in memory mode: RESERVE answers with runs of the arena, the front receives into them, COMMIT publishes, ABORT gives them back, and so does a
 *      COMMIT that is refused.
 * PUT  whose bytes the front would have to fetch: RESERVE with MKV_DRV_F_IF_SAME, in every mode, with key, size, CRCs and all else that the put says. If the
 *      object is there, verified, with this size and these CRCs, that is the put: a touch, answered when it is durable, with `same` and nothing reserved.
 *      Else as without the flag; where that reserves nothing, status 0: bring the bytes.
 * PUT  of more than one extent: SET_NEW at the home drive gives a set id and nothing else; pieces are PUTs with MKV_DRV_F_PIECE (key = set id, piece_no)
 *      at drives by rendezvous of (set id, piece_no); when all are acknowledged the manifest is a PUT with MKV_DRV_F_MANIFEST at the home: the commit point.
 * GET  buffers are given with the request; the drive fills as much of [off, off+len) as there is and answers with size and CRCs. A range that does
 *      not begin or end on a chunk is read from the chunk's beginning to the chunk's end, so that the drive can check the edge chunks itself: the bytes
 *      asked for begin at rep.skip in the buffers, which have room for len + 2 chunks. rep.crcs[i] is the CRC of exactly the delivered bytes that
 *      lie in the i-th chunk touched (whole chunks: the stored CRC; edges: made by the drive after it checked the chunk).
 *      Memory mode: no buffers; the answer has runs of the arena and a hold, which RELEASE ends.
 *      A manifest has a hold in every mode, as long as there are enough: until RELEASE its pieces stay, though it is replaced or deleted.
 */
#ifndef MKV_SHM_DRV_H
#define MKV_SHM_DRV_H

#include <stdint.h>
#include <string.h>

#include "common/base/hash.h"

#define MKV_DRV_REQ_MAGIC	0xd21e5e01u
#define MKV_DRV_REP_MAGIC	0xd21e5e02u
#define MKV_DRV_BUFS_MAX	16u		/* buffers of one request */
#define MKV_DRV_REGIONS_MAX	128u		/* memories of clients that a drive has, and a front shows */
#define MKV_DRV_RUNS_MAX	16u		/* arena runs of one answer */
#define MKV_DRV_CRCS_MAX	64u		/* one extent: 4 MiB / 64 KiB */
#define MKV_DRV_KEY_MAX		512u
#define MKV_DRV_NS_MAX		63u
#define MKV_DRV_NS_COUNT_MAX	1023u		/* namespaces with objects on one drive */
#define MKV_DRV_VALUE_MAX	(1ull << 48)
#define MKV_DRV_PIECES_MAX	(1u << 26)	/* of one value: 2^48 bytes in extents of 4 MiB */
#define MKV_DRV_STRIPE_MAX	64u		/* drives of one server */
#define MKV_EXTENT_MAX		(4u << 20)
#define MKV_EXTENT_MIN		(256u << 10)

enum mkv_drv_op {
	MKV_DRV_PUT = 1,
	MKV_DRV_RESERVE,	/* memory medium; IF_SAME: any */
	MKV_DRV_COMMIT,		/* memory medium; txn */
	MKV_DRV_ABORT,		/* txn; also drops the provisional pieces of `set` (piece_count of them) at this drive */
	MKV_DRV_GET,
	MKV_DRV_RELEASE,	/* arg[0] = hold, arg[1] = MKV_DRV_RELEASE_*; no slot, no answer */
	MKV_DRV_STAT,		/* exists, size, times */
	MKV_DRV_DELETE,
	MKV_DRV_TOUCH,		/* reference bit, new ttl if given */
	MKV_DRV_BATCH,		/* digests in buffer 0 -> presence bytes (0/1 + reason << 1) in the same buffer; index only */
	MKV_DRV_LIST,		/* keys below prefix -> struct mkv_drv_list_row in buffer 0 */
	MKV_DRV_INFO,
	MKV_DRV_SET_NEW,	/* a set id; with `set`: that one stays open until this request's deadline, status 0 or MKV_E_BUSY */
	MKV_DRV_VERIFY,		/* report_corrupt: re-read [off, off + len) (len 0: to the end) and decide; status 0 that is good, MKV_E_CORRUPT the object was
				   dropped, with why. A manifest is answered as by GET, with a hold: its pieces are asked for one by one */
	/* drive -> drive: args only */
	MKV_DRV_SET_COMMITTED = 64,	/* arg0 set id lo, arg1 hi, arg2 piece count: pieces are named by a durable manifest */
	MKV_DRV_SET_FREE,		/* arg0, arg1, arg2 likewise: manifest is gone: free the pieces; answered by SET_FREED */
	MKV_DRV_SET_FREED,
	MKV_DRV_RECLAIM,		/* arg0 bytes: short of space, give up victims homed at you with pieces at me (arg1 = my drive idx) */
	MKV_DRV_SET_ASK,		/* to all; arg0, arg1, arg2 likewise, arg3 1: only SET_FREE is news. Its home answers SET_COMMITTED, SET_FREE or nothing */
	MKV_DRV_SET_AUDIT,		/* to all: manifests of mine may be lost: ask for all sets */
	MKV_DRV_SET_LOOK,		/* arg0, arg1 set id, arg2 first piece, arg3 how many, 64 at most: which of them are yours? Answered by SET_SEEN */
	MKV_DRV_SET_SEEN,		/* arg0 to arg2 likewise, arg3 a bit for each that is here */
	MKV_DRV_SET_LOST,		/* to all: arg0, arg1 a set of which a piece is lost, arg2 why; zero: not known which: look at all manifests */
};

enum {
	MKV_DRV_RELEASE_SHORT	= 1,	/* a piece of the value was nowhere: is it whole? */
};

enum {
	MKV_DRV_F_IF_ABSENT	= 1,
	MKV_DRV_F_OVERWRITE	= 2,	/* never take a put of the same bytes as a touch */
	MKV_DRV_F_ACCEPTED	= 4,	/* answer before the flush */
	MKV_DRV_F_PIN		= 8,
	MKV_DRV_F_PIECE		= 16,
	MKV_DRV_F_MANIFEST	= 32,
	MKV_DRV_F_VERIFIED	= 64,	/* the front saw the bytes match the CRCs */
	MKV_DRV_F_NO_TOUCH	= 128,	/* stat, batch: leave the reference bit */
	MKV_DRV_F_BATCH_MATCH	= 256,	/* batch: may stop at the first absent one */
	MKV_DRV_F_IF_SAME	= 512,	/* reserve: the put may be a touch; not with IF_ABSENT, OVERWRITE, PIECE, MANIFEST */
	MKV_DRV_F_DIRECT	= 1024,	/* get: into a region, put: from one; see struct mkv_drv_buf */
};

struct mkv_set_id {			/* of a striped value: given by the home drive, never twice */
	uint64_t	lo, hi;
};

/*
 * Under which digest a piece is known: the same at fronts and drives, so that a drive finds the pieces of a set by counting.
 * secret: mkv_hkdf(store secret, no salt, MKV_PIECE_INFO), MKV_SECRET_BYTES of it.
 */
#define MKV_PIECE_INFO	"memkv1 pieces"

static inline struct mkv_digest
mkv_piece_digest(const uint8_t secret[MKV_SECRET_BYTES], struct mkv_set_id set, uint32_t piece_no)
{
	uint8_t b[20];

	memcpy(b, &set.lo, 8);
	memcpy(b + 8, &set.hi, 8);
	memcpy(b + 16, &piece_no, 4);
	return (mkv_digest(secret, b, sizeof(b)));
}

/*
 * With MKV_DRV_F_DIRECT buffer 0 lies in a region, memory of a client that the drive has been shown (REGION, proto/control.proto), and buffer 1 in the stage, of 4096 bytes at
 * least. The whole blocks of 4096 bytes that are delivered go to the region, nothing else does; the rest of the last one, with what lies behind the value's end, to buffer 1.
 * The range begins on a chunk; where it ends inside of one that goes on, or the region is not known or would be touched by more than the medium's I/O: MKV_E_UNSUPPORTED.
 * Of a PUT buffer 0 has the value's whole blocks, buffer 1 its other bytes, if there are any; it is not VERIFIED. MKV_E_UNSUPPORTED also where the medium could not write them:
 * that may be the region's fault, so it is tried without.
 */
struct mkv_drv_buf {
	uint64_t	off;		/* in the front's stage; in the region */
	uint32_t	bytes;		/* multiple of 4096 but for the last one's content; room is rounded up to 4096 */
	uint32_t	region;		/* 0: the stage */
};

struct mkv_drv_writer {			/* PUT, COMMIT: whose connection it came by; for the log, should its bytes turn out to be wrong */
	uint64_t	session;	/* 0: not told */
	uint32_t	key_id;		/* the credential it proved */
	uint16_t	port, pad;
	uint8_t		addr[16];	/* IPv6, or IPv4 mapped; 0: this host, without one */
	uint8_t		client[16];	/* id of its handle, by its own word */
};
_Static_assert(sizeof(struct mkv_drv_writer) == 48, "pinned");

struct mkv_drv_req {
	uint32_t	magic;
	uint16_t	op, flags;
	uint64_t	deadline_ns;	/* monotonic, same host */
	struct mkv_digest digest;	/* of (namespace, key), or mkv_piece_digest() */
	uint64_t	put_id;
	uint64_t	ttl_ms;		/* 0: none */
	uint64_t	value_bytes;	/* PUT: bytes of this object; MANIFEST: of the whole value */
	uint64_t	off, len;	/* GET, VERIFY: range; LIST: cursor in off, rows in len */
	uint64_t	txn;		/* COMMIT, ABORT */
	struct mkv_set_id set;		/* PIECE, MANIFEST, ABORT, SET_NEW */
	struct mkv_digest parent;	/* chain: digest of the previous block's key, 0 if none */
	uint32_t	piece_no, piece_count, piece_bytes;
	uint32_t	n_digests;	/* BATCH */
	uint16_t	ns_bytes, key_bytes, n_bufs, n_crcs, n_stripe, home_idx;
	uint32_t	map_version;	/* lower half: the pool map that the front went by */
	uint32_t	lease_ms, pad;	/* BATCH: keep what is there from eviction for so long; 0: no lease */
	struct mkv_drv_writer writer;
	uint8_t		ns[64];
	uint8_t		key[MKV_DRV_KEY_MAX];
	struct mkv_drv_buf bufs[MKV_DRV_BUFS_MAX];
	uint32_t	crcs[MKV_DRV_CRCS_MAX];
	uint8_t		stripe[MKV_DRV_STRIPE_MAX];	/* MANIFEST: drives (pool map indexes) that may hold pieces, in rendezvous order */
};
_Static_assert(sizeof(struct mkv_drv_req) <= 4096, "first half of a control slot");

struct mkv_drv_run {
	uint64_t	off;		/* in the drive's arena */
	uint64_t	bytes;
};

struct mkv_drv_rep {
	uint32_t	magic;
	uint16_t	op, reason;	/* enum mkv_reason for misses */
	int32_t		status;
	uint32_t	flags;		/* MKV_DRV_F_MANIFEST, _VERIFIED, _PIN of the object */
	uint64_t	value_bytes;	/* whole object or value */
	uint64_t	off, len;	/* GET: what was delivered */
	uint64_t	hold, txn;
	uint64_t	put_wall_ms, expires_wall_ms, put_id;
	struct mkv_set_id set;		/* MANIFEST, SET_NEW */
	uint32_t	piece_bytes, piece_count;
	uint64_t	total_bytes, used_bytes, objects;	/* INFO; SET_NEW: total_bytes of this drive */
	uint64_t	cursor;		/* LIST: where to go on; 0 at the end */
	uint32_t	n_rows;
	uint16_t	n_runs, n_crcs, n_stripe, same;	/* same: PUT, COMMIT or RESERVE was taken as a touch */
	uint32_t	lease_ms;	/* BATCH: granted to all that are there: as asked, or 0 */
	uint32_t	pad;
	uint32_t	skip;		/* GET: where the first delivered byte lies in the buffers (runs) */
	struct mkv_drv_run runs[MKV_DRV_RUNS_MAX];
	uint32_t	crcs[MKV_DRV_CRCS_MAX + 1];	/* of exactly the delivered bytes, cut at the object's chunk boundaries */
	uint8_t		stripe[MKV_DRV_STRIPE_MAX];
};
_Static_assert(sizeof(struct mkv_drv_rep) <= 4096, "second half of a control slot");

struct mkv_drv_list_row {		/* LIST, packed one after another, 8-aligned */
	uint16_t	row_bytes, key_bytes;
	uint32_t	flags;
	uint64_t	value_bytes, put_wall_ms, expires_wall_ms;
	uint8_t		key[];
};

#endif
