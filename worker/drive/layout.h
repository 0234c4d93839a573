/*
 * What lies on a drive: every struct that reaches the medium, versioned, sizes and offsets pinned. Little endian. docs/internals/format.md is the prose.
 *
 *   block 0        superblock A                                   (4 KiB)
 *   block 1, 2     pool map, two copies
 *   block 8 to 39  failure registry
 *   1 MiB - 4 KiB  superblock B
 *   1 MiB          journal ring                                   (journal_blocks blocks)
 *                  checkpoint area 0, checkpoint area 1           (ckpt_blocks blocks each)
 *                  metadata pages                                 (page_count blocks)
 *   data_off       data, data_units units of unit_bytes in extents of extent_bytes
 *
 * What lies between the superblocks and has no name here is zero. All numbers read from a medium are foreign bytes: mkv_layout_check_sb() and the readers
 * of each block check them, nothing is asserted.
 * Every block carries a CRC32C over its 4096 bytes with the crc field as zero, and a tag made of the drive's uuid, so a block of another
 * store never passes for ours.
 */
#ifndef MKV_DRIVE_LAYOUT_H
#define MKV_DRIVE_LAYOUT_H

#include <stddef.h>
#include <stdint.h>

#include "common/base/hash.h"
#include "common/shm/drv.h"
#include "worker/drive/alloc.h"

#define MKV_BLOCK		4096u
#define MKV_FORMAT_VERSION	3u
/* Features that this program knows. Unknown bits: compat: nothing; ro_compat: the store is read and never written; incompat: refused. */
#define MKV_FEAT_COMPAT		0ull
#define MKV_FEAT_RO_COMPAT	0ull
#define MKV_FEAT_INCOMPAT	0ull
#define MKV_SB_MAGIC		0x3145564952444b4dull	/* "MKDRIVE1" */
#define MKV_UNFINISHED_MAGIC	0x9e5b1fd3c47a6281ull
#define MKV_JBLOCK_MAGIC	0x4a8c61d3u
#define MKV_PAGE_MAGIC		0x7d10e5b9u
#define MKV_CKPT_MAGIC		0xc51e0f27u
#define MKV_CKPT_HEAD_MAGIC	0xc51e0f28u
#define MKV_POOLMAP_MAGIC	0x90a1b3c7u
#define MKV_SB_OFF_A		0ull
#define MKV_POOLMAP_OFF		(1ull * MKV_BLOCK)
#define MKV_POOLMAP_COPIES	2u			/* a block each */
#define MKV_FAILREG_OFF		(8ull * MKV_BLOCK)
#define MKV_FAILREG_BLOCKS	32u
#define MKV_SB_OFF_B		((1ull << 20) - MKV_BLOCK)
#define MKV_JOURNAL_OFF		(1ull << 20)
#define MKV_OBJ_RUNS_MAX	8u
#define MKV_OBJ_BYTES_MAX	1072u			/* largest object record, see the assert below */

struct mkv_sb {
	uint64_t	magic;
	uint32_t	version;
	uint32_t	crc;
	uint64_t	feat_compat, feat_ro_compat, feat_incompat;
	uint8_t		uuid[16];
	uint8_t		server_id[16];
	uint64_t	generation;			/* the larger of two good copies wins */
	uint32_t	mount, epoch;			/* mount: raised at each open; epoch: the store's, largest wins */
	uint32_t	clean, copy;
	uint64_t	created_ms;
	uint64_t	total_bytes;
	uint32_t	unit_bytes, extent_bytes;
	uint32_t	journal_blocks, ckpt_blocks, page_count, objects_max;
	uint64_t	journal_off, ckpt_off[2], page_off, data_off, data_units;
	uint8_t		zero[4096 - 184];
};
_Static_assert(sizeof(struct mkv_sb) == MKV_BLOCK, "one block");
_Static_assert(offsetof(struct mkv_sb, crc) == 12 && offsetof(struct mkv_sb, uuid) == 40 && offsetof(struct mkv_sb, journal_off) == 136, "pinned");
_Static_assert(MKV_POOLMAP_OFF + MKV_POOLMAP_COPIES * MKV_BLOCK <= MKV_FAILREG_OFF && MKV_FAILREG_OFF + MKV_FAILREG_BLOCKS * MKV_BLOCK <= MKV_SB_OFF_B,
    "apart");

/* The pool map as this drive knows it: version v in copy v % MKV_POOLMAP_COPIES; the good copy with the larger version counts. */
struct mkv_poolmap_row {
	uint8_t		uuid[16];
	uint64_t	weight, former;			/* IEEE double */
	uint64_t	since;
	uint8_t		state, known, pad[6];		/* enum mkv_drive_state */
};
_Static_assert(sizeof(struct mkv_poolmap_row) == 48, "pinned");

struct mkv_poolmap {
	uint32_t	magic, crc;
	uint64_t	tag;
	uint64_t	version;
	uint32_t	n, pad;
	struct mkv_poolmap_row row[64];
	uint8_t		zero[4096 - 32 - 64 * 48];
};
_Static_assert(sizeof(struct mkv_poolmap) == MKV_BLOCK && offsetof(struct mkv_poolmap, row) == 32, "pinned");

/* Journal block: header, touched[n_touched] (digest.lo of what the block before it names), records. */
struct mkv_jblock {
	uint32_t	magic, crc;
	uint64_t	tag;
	uint64_t	seq;				/* position in the ring: seq % journal_blocks */
	uint64_t	flushed;			/* every block up to this one was durable when this one was made */
	uint32_t	mount, epoch;
	uint16_t	n_touched, n_records, used, pad;	/* used: bytes of data[] */
	uint8_t		data[4096 - 48];
};
_Static_assert(sizeof(struct mkv_jblock) == MKV_BLOCK && offsetof(struct mkv_jblock, data) == 48, "pinned");

enum mkv_jtype {
	MKV_J_PUT = 1,		/* body: object record; page, pos: where it goes */
	MKV_J_MOVE,		/* the same, from another page (arg = old page); holds only if the object is still there */
	MKV_J_DROP,		/* arg: enum mkv_reason */
	MKV_J_TOUCH,		/* body: struct mkv_jtouch */
	MKV_J_PAGE_WRITTEN,	/* page: its image is on the medium */
	MKV_J_SET_COMMITTED,	/* body: struct mkv_jset */
	MKV_J_SET_FREED,	/* body: struct mkv_jset: no drive has pieces of it any more */
	MKV_J_LEASE,		/* body: struct mkv_jlease */
	MKV_J_PURGE,		/* body: a namespace's name of arg bytes, digest: of that; all its objects so far are gone */
};

/* Its digest belongs in the touched list: if its block is damaged, what it named is not believed any more. */
static inline int
mkv_jtype_touches(unsigned type)
{
	return (type <= MKV_J_TOUCH || type == MKV_J_PURGE);
}

struct mkv_jrec {
	uint8_t		type, pad;
	uint16_t	bytes;				/* whole record, multiple of 8 */
	uint32_t	page;
	uint16_t	pos;				/* in the page's data */
	uint16_t	pad2;
	uint32_t	arg;
	struct mkv_digest digest;
	uint8_t		body[];
};
_Static_assert(sizeof(struct mkv_jrec) == 32, "pinned");

struct mkv_jtouch {
	uint64_t	expires_ms;
	uint32_t	flags, pad;			/* MKV_DRV_F_PIN, MKV_DRV_F_VERIFIED to set */
};

struct mkv_jlease {
	uint64_t	until_ms;			/* wall clock: leases were given that end no later */
};
_Static_assert(sizeof(struct mkv_jlease) == 8, "pinned");

struct mkv_jset {
	struct mkv_set_id set;
	uint64_t	stripe_mask;
	uint32_t	piece_count, pad;
};

enum { MKV_OBJ_PARENT = 1, MKV_OBJ_SET = 2, MKV_OBJ_PIECE = 4, MKV_OBJ_MANIFEST = 8, MKV_OBJ_VERIFIED = 16, MKV_OBJ_PIN = 32 };

/* Object record: fixed part, then by flags and counts: parent, struct mkv_obj_set, runs, CRCs, stripe, namespace, key; padded to 8. */
struct mkv_obj {
	uint16_t	bytes, flags;
	uint16_t	key_bytes, n_crcs;
	uint8_t		ns_bytes, n_runs, n_stripe, pad;
	uint32_t	units;
	struct mkv_digest digest;
	uint64_t	value_bytes, put_wall_ms, expires_ms, put_id;
};
_Static_assert(sizeof(struct mkv_obj) == 64, "pinned");

struct mkv_obj_set {
	struct mkv_set_id set;
	uint32_t	piece_no, piece_count, piece_bytes, home_idx;
};
_Static_assert(sizeof(struct mkv_obj_set) == 32, "pinned");
_Static_assert(64 + 16 + 32 + 8 * MKV_OBJ_RUNS_MAX + 4 * MKV_DRV_CRCS_MAX + MKV_DRV_STRIPE_MAX + MKV_DRV_NS_MAX + MKV_DRV_KEY_MAX + 1 == MKV_OBJ_BYTES_MAX,
    "largest record");

struct mkv_page {
	uint32_t	magic, crc;
	uint64_t	tag;
	uint32_t	page_no;
	uint16_t	used, pad;
	uint64_t	pad2;
	uint8_t		data[4096 - 32];		/* object records; a zero word is filling */
};
_Static_assert(sizeof(struct mkv_page) == MKV_BLOCK && offsetof(struct mkv_page, data) == 32, "pinned");
/* The largest record fits a journal block behind the longest touched list, and a page. */
#define MKV_TOUCHED_MAX	((4096u - 48u) / sizeof(struct mkv_jrec))
_Static_assert(8 * MKV_TOUCHED_MAX + sizeof(struct mkv_jrec) + MKV_OBJ_BYTES_MAX <= 4096 - 48, "a record always fits a fresh block");

struct mkv_ckpt_block {
	uint32_t	magic, crc;
	uint64_t	tag;
	uint64_t	id;
	uint32_t	block_no;
	uint16_t	used, n_items;
	uint8_t		data[4096 - 32];
};
_Static_assert(sizeof(struct mkv_ckpt_block) == MKV_BLOCK, "one block");

enum { MKV_CI_OBJECT = 1, MKV_CI_SETFREE = 2, MKV_CI_SLOT = 3 };
enum { MKV_SLOT_PURGED = 1 };			/* flags of a SLOT item */

struct mkv_ckpt_item {
	uint8_t		kind, n_runs;
	uint16_t	bytes;				/* whole item, multiple of 8 */
	uint16_t	flags, units;			/* flags of struct mkv_ent that live on; SLOT: bytes of the name */
	struct mkv_digest digest;
	uint32_t	page, run;
	uint32_t	expires;			/* as in struct mkv_ent */
	uint8_t		rank, zero;
	uint16_t	slot;				/* of the namespace; means something within this checkpoint only */
	uint8_t		body[];				/* MULTI: runs; MANIFEST, SETFREE: struct mkv_jset; SLOT: the name */
};
_Static_assert(sizeof(struct mkv_ckpt_item) == 40 && offsetof(struct mkv_ckpt_item, slot) == 38, "pinned");

/* First and last block of a checkpoint area, the same but for `copy`; written when everything between them is durable. */
struct mkv_ckpt_head {
	uint32_t	magic, crc;
	uint64_t	tag;
	uint64_t	id;
	uint64_t	start_seq;			/* replay begins here */
	uint32_t	blocks, copy;			/* body blocks, from block 1 of the area */
	uint64_t	items;
	uint32_t	mount, pad;
	uint64_t	lease_until_ms;			/* as in struct mkv_jlease; 0: none */
	/* The scrubber: passes begun; 1 + the page where this one goes on, 0: none is under way; wall clock of the last begin and the last end; bytes. */
	uint32_t	scrub_pass, scrub_page;
	uint64_t	scrub_began_ms, scrub_ended_ms, scrub_bytes;
	uint8_t		zero[4096 - 96];
};
_Static_assert(sizeof(struct mkv_ckpt_head) == MKV_BLOCK && offsetof(struct mkv_ckpt_head, lease_until_ms) == 56 &&
    offsetof(struct mkv_ckpt_head, scrub_bytes) == 88, "pinned");

struct mkv_layout_want {
	uint64_t	total_bytes;			/* of the medium */
	uint64_t	meta_bytes;			/* not 0: all but the data has exactly so much room (memory mode) */
	uint32_t	extent_bytes;
	uint64_t	journal_bytes;			/* 0: by size */
	uint32_t	objects_max;			/* 0: by size */
};

/* Namespaces that a store with so many objects can have at one time. */
uint32_t mkv_layout_slots(uint32_t objects);
/* Fill the geometry of sb. 0; MKV_E_NOSPACE too small; MKV_E_INVAL extent. why: words for an operator. */
int	mkv_layout_plan(struct mkv_sb *sb, const struct mkv_layout_want *want, char *why, size_t why_bytes);
/* CRC of a block whose crc field lies at crc_off; set or check. */
void	mkv_block_seal(void *block, size_t crc_off);
int	mkv_block_good(const void *block, size_t crc_off);
uint64_t mkv_block_tag(const uint8_t uuid[16]);

enum mkv_sb_state { MKV_SB_GOOD, MKV_SB_ZERO, MKV_SB_DAMAGED, MKV_SB_FOREIGN, MKV_SB_VERSION };
/* Look at one superblock block: magic, crc, version, features, and that its geometry holds together. */
enum mkv_sb_state mkv_layout_check_sb(const struct mkv_sb *sb);
/* Why this superblock, whose CRC is right, is of another version, or may only be read: words, in s. */
#define MKV_FEATURES_TEXT	320u
const char *	mkv_layout_features(const struct mkv_sb *sb, char *s, size_t n);
/* What the first MiB of a medium looks like to a human: "an ext4 filesystem", "a partition table", "unknown data". NULL if all zero. */
const char *	mkv_layout_foreign(const uint8_t *head, size_t bytes);

/* A block in the place of superblock B until a medium is formatted. 1: this first MiB was empty, and its formatting was cut off. */
void	mkv_layout_mark_unfinished(uint64_t block[MKV_BLOCK / 8]);
int	mkv_layout_unfinished(const uint8_t *head, size_t bytes);

/* Geometry as offsets. */
static inline uint64_t
mkv_sb_journal_at(const struct mkv_sb *sb, uint64_t seq)
{
	return (sb->journal_off + (seq % sb->journal_blocks) * MKV_BLOCK);
}

static inline uint64_t
mkv_sb_page_at(const struct mkv_sb *sb, uint32_t page)
{
	return (sb->page_off + (uint64_t)page * MKV_BLOCK);
}

/* Object records. All return NULL or 0 on bytes that do not hold together. */
struct mkv_obj_view {
	const struct mkv_obj *o;
	const struct mkv_digest *parent;		/* NULL */
	const struct mkv_obj_set *set;			/* NULL */
	const struct mkv_run *runs;
	const uint32_t	*crcs;
	const uint8_t	*stripe, *ns, *key;
};
size_t	mkv_obj_bytes(const struct mkv_obj *o);		/* from flags and counts, padded */
int	mkv_obj_parse(const void *p, size_t room, struct mkv_obj_view *v);	/* 0 or MKV_E_CORRUPT */
/* Walk a page's data. pos: in/out, start with 0. 1 a record, 0 end, MKV_E_CORRUPT. */
int	mkv_page_next(const struct mkv_page *pg, uint32_t *pos, struct mkv_obj_view *v);

#endif
