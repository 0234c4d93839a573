/*
 * Geometry and checks of what lies on a drive. No I/O; any thread; owns nothing. Everything read here came from a medium and may be anything.
 */
#include "config.h"

#include "worker/drive/layout.h"

#include <stdio.h>
#include <string.h>

#include "common/base/assert.h"
#include "common/base/crc.h"
#include "common/base/err.h"

#define LAYOUT_UNIT_SMALL_MAX	(1ull << 40)	/* media up to this use units of 4 KiB */
#define LAYOUT_OBJECT_BYTES	16384u		/* one object is expected for so much data, when nobody says better */
#define LAYOUT_OBJECTS_MIN	1024u
#define LAYOUT_PER_PAGE		12u		/* pages are counted for so many objects each */
#define LAYOUT_JOURNAL_MIN	128u		/* blocks */
#define LAYOUT_JOURNAL_MAX	65536u
/* Checkpoint items are 40 bytes; one object in eight, and a fixed number beyond, may have a side record of up to 64; sets to be freed come on top. */
#define LAYOUT_ITEM_BYTES	48u
#define LAYOUT_CKPT_EXTRA	96u
/* Part of the format: a checkpoint has slots up to this number, and one that is beyond the count is not believed (ns_replay_known()). */
#define LAYOUT_SLOTS_MIN	64u
#define LAYOUT_SLOTS_PER_BLOCK	39u		/* items with the longest names */
#define LAYOUT_SLOT_OBJECTS	64u		/* a namespace is expected for so many objects */

_Static_assert(LAYOUT_SLOTS_PER_BLOCK * (sizeof(struct mkv_ckpt_item) + MKV_ALIGN_UP(MKV_DRV_NS_MAX, 8)) <= sizeof(((struct mkv_ckpt_block *)0)->data),
    "names fit");

uint32_t
mkv_layout_slots(uint32_t objects)
{
	uint32_t n = objects / LAYOUT_SLOT_OBJECTS;

	return (n < LAYOUT_SLOTS_MIN ? LAYOUT_SLOTS_MIN : n > MKV_DRV_NS_COUNT_MAX ? MKV_DRV_NS_COUNT_MAX : n);
}

static uint32_t
layout_ckpt_blocks(uint32_t objects)
{
	uint32_t names = MKV_DIV_UP(mkv_layout_slots(objects), LAYOUT_SLOTS_PER_BLOCK) + 1;

	/* The names are there twice. */
	return ((uint32_t)(2 + MKV_DIV_UP((uint64_t)objects * LAYOUT_ITEM_BYTES, 3900) + LAYOUT_CKPT_EXTRA + 2 * names));
}

static uint32_t
layout_pages(uint32_t objects)
{
	return (objects / LAYOUT_PER_PAGE + 64);
}

static uint64_t
layout_meta(uint32_t journal_blocks, uint32_t objects)
{
	return (MKV_JOURNAL_OFF + MKV_BLOCK * ((uint64_t)journal_blocks + 2ull * layout_ckpt_blocks(objects) + layout_pages(objects)));
}

static uint32_t
layout_clamp(uint64_t v, uint32_t lo, uint32_t hi)
{
	return ((uint32_t)(v < lo ? lo : v > hi ? hi : v));
}

/* Memory mode: the metadata memfd has a given size; as many objects as fit. */
static int
layout_fit_meta(const struct mkv_layout_want *w, uint32_t *journal_blocks, uint32_t *objects)
{
	uint32_t lo = 64, hi = 1u << 30;

	if (w->journal_bytes == 0)
		*journal_blocks = layout_clamp(w->meta_bytes / 8 / MKV_BLOCK, LAYOUT_JOURNAL_MIN, LAYOUT_JOURNAL_MAX);
	if (layout_meta(*journal_blocks, lo) > w->meta_bytes)
		return (MKV_E_NOSPACE);
	while (lo + 1 < hi) {
		uint32_t mid = lo + (hi - lo) / 2;

		if (layout_meta(*journal_blocks, mid) <= w->meta_bytes)
			lo = mid;
		else
			hi = mid;
	}
	if (w->objects_max == 0 || w->objects_max > lo)
		*objects = lo;
	return (0);
}

int
mkv_layout_plan(struct mkv_sb *sb, const struct mkv_layout_want *w, char *why, size_t why_bytes)
{
	uint64_t data = w->meta_bytes ? w->total_bytes - w->meta_bytes : w->total_bytes;
	uint32_t objects = w->objects_max ? w->objects_max : layout_clamp(data / LAYOUT_OBJECT_BYTES, LAYOUT_OBJECTS_MIN, 1u << 30);
	uint32_t jb = layout_clamp((w->journal_bytes ? w->journal_bytes : w->total_bytes / 128) / MKV_BLOCK, LAYOUT_JOURNAL_MIN,
	    LAYOUT_JOURNAL_MAX);
	uint64_t align, extents;

	if (w->extent_bytes < MKV_EXTENT_MIN || w->extent_bytes > MKV_EXTENT_MAX || (w->extent_bytes & (w->extent_bytes - 1)) != 0) {
		snprintf(why, why_bytes, "block size %u: a power of two from %u to %u is needed", w->extent_bytes, MKV_EXTENT_MIN, MKV_EXTENT_MAX);
		return (MKV_E_INVAL);
	}
	sb->unit_bytes = data <= LAYOUT_UNIT_SMALL_MAX ? 4096 : data <= 16 * LAYOUT_UNIT_SMALL_MAX ? 16384 : 65536;
	sb->extent_bytes = w->extent_bytes;
	if (w->meta_bytes != 0 && layout_fit_meta(w, &jb, &objects) != 0) {
		snprintf(why, why_bytes, "%llu bytes are too few for metadata and journal", (unsigned long long)w->meta_bytes);
		return (MKV_E_NOSPACE);
	}
	sb->total_bytes = w->total_bytes;
	sb->objects_max = objects;
	sb->journal_off = MKV_JOURNAL_OFF;
	sb->journal_blocks = jb;
	sb->ckpt_blocks = layout_ckpt_blocks(objects);
	sb->ckpt_off[0] = sb->journal_off + (uint64_t)jb * MKV_BLOCK;
	sb->ckpt_off[1] = sb->ckpt_off[0] + (uint64_t)sb->ckpt_blocks * MKV_BLOCK;
	sb->page_off = sb->ckpt_off[1] + (uint64_t)sb->ckpt_blocks * MKV_BLOCK;
	sb->page_count = layout_pages(objects);
	align = w->total_bytes >= (1ull << 28) ? w->extent_bytes : 65536;
	sb->data_off = w->meta_bytes ? w->meta_bytes : MKV_ALIGN_UP(sb->page_off + (uint64_t)sb->page_count * MKV_BLOCK, align);
	extents = w->total_bytes > sb->data_off ? (w->total_bytes - sb->data_off) / w->extent_bytes : 0;
	if (extents < 2) {
		snprintf(why, why_bytes, "%llu bytes are too few: at least %llu are needed with blocks of %u", (unsigned long long)w->total_bytes,
		    (unsigned long long)(sb->data_off + 2ull * w->extent_bytes), w->extent_bytes);
		return (MKV_E_NOSPACE);
	}
	sb->data_units = extents * (w->extent_bytes / sb->unit_bytes);
	return (0);
}

void
mkv_block_seal(void *block, size_t crc_off)
{
	uint32_t crc;

	memset((uint8_t *)block + crc_off, 0, 4);
	crc = mkv_crc32c(0, block, MKV_BLOCK);
	memcpy((uint8_t *)block + crc_off, &crc, 4);
}

int
mkv_block_good(const void *block, size_t crc_off)
{
	const uint8_t *b = block;
	static const uint8_t zero[4];
	uint32_t crc, stored;

	memcpy(&stored, b + crc_off, 4);
	crc = mkv_crc32c(0, b, crc_off);
	crc = mkv_crc32c(crc, zero, 4);
	crc = mkv_crc32c(crc, b + crc_off + 4, MKV_BLOCK - crc_off - 4);
	return (crc == stored);
}

uint64_t
mkv_block_tag(const uint8_t uuid[16])
{
	return (mkv_hash64(uuid, 16, MKV_SB_MAGIC));
}

/* Do the numbers of a superblock with a good CRC hold together? A program with another idea of the layout may have written it. */
static int
layout_sane(const struct mkv_sb *sb)
{
	uint64_t end;

	if (sb->unit_bytes < MKV_BLOCK || sb->unit_bytes > 65536 || (sb->unit_bytes & (sb->unit_bytes - 1)) != 0)
		return (0);
	if (sb->extent_bytes < MKV_EXTENT_MIN || sb->extent_bytes > MKV_EXTENT_MAX || (sb->extent_bytes & (sb->extent_bytes - 1)) != 0)
		return (0);
	if (sb->journal_blocks < LAYOUT_JOURNAL_MIN || sb->journal_blocks > LAYOUT_JOURNAL_MAX || sb->page_count == 0 || sb->objects_max == 0 ||
	    sb->objects_max > (1u << 30) || sb->ckpt_blocks < 3)
		return (0);
	if (sb->journal_off != MKV_JOURNAL_OFF)
		return (0);
	end = sb->journal_off + (uint64_t)sb->journal_blocks * MKV_BLOCK;
	for (int i = 0; i < 2; i++) {
		if (sb->ckpt_off[i] < end || sb->ckpt_off[i] % MKV_BLOCK || sb->ckpt_off[i] > sb->total_bytes)
			return (0);
		end = sb->ckpt_off[i] + (uint64_t)sb->ckpt_blocks * MKV_BLOCK;
	}
	if (sb->page_off < end || sb->page_off % MKV_BLOCK || sb->page_off > sb->total_bytes)
		return (0);
	if (sb->data_off < sb->page_off + (uint64_t)sb->page_count * MKV_BLOCK || sb->data_off % MKV_BLOCK || sb->data_off > sb->total_bytes)
		return (0);
	if (sb->data_units == 0 || sb->data_units > UINT32_MAX || sb->data_units % (sb->extent_bytes / sb->unit_bytes) != 0)
		return (0);
	return (sb->data_units <= (sb->total_bytes - sb->data_off) / sb->unit_bytes);
}

enum mkv_sb_state
mkv_layout_check_sb(const struct mkv_sb *sb)
{
	static const uint8_t zero[MKV_BLOCK];

	if (memcmp(sb, zero, MKV_BLOCK) == 0)
		return (MKV_SB_ZERO);
	if (sb->magic != MKV_SB_MAGIC)
		return (MKV_SB_FOREIGN);
	if (!mkv_block_good(sb, offsetof(struct mkv_sb, crc)))
		return (MKV_SB_DAMAGED);
	if (sb->version != MKV_FORMAT_VERSION || (sb->feat_incompat & ~MKV_FEAT_INCOMPAT) != 0)
		return (MKV_SB_VERSION);
	return (layout_sane(sb) ? MKV_SB_GOOD : MKV_SB_DAMAGED);
}

static void
layout_bits(uint64_t bits, char *s, size_t n)
{
	size_t used = (size_t)snprintf(s, n, bits & (bits - 1) ? "bits " : "bit ");
	const char *sep = "";

	for (unsigned i = 0; i < 64 && used < n; i++) {
		if ((bits >> i & 1) == 0)
			continue;
		used += (size_t)snprintf(s + used, n - used, "%s%u", sep, i);
		sep = ", ";
	}
}

const char *
mkv_layout_features(const struct mkv_sb *sb, char *s, size_t n)
{
	char bits[MKV_FEATURES_TEXT - 32];

	if (sb->version != MKV_FORMAT_VERSION) {
		snprintf(s, n, "its format is %u, this one reads format %u", sb->version, MKV_FORMAT_VERSION);
		return (s);
	}
	if (sb->feat_incompat & ~MKV_FEAT_INCOMPAT) {
		layout_bits(sb->feat_incompat & ~MKV_FEAT_INCOMPAT, bits, sizeof(bits));
		snprintf(s, n, "unknown incompatible features, %s", bits);
		return (s);
	}
	layout_bits(sb->feat_ro_compat & ~MKV_FEAT_RO_COMPAT, bits, sizeof(bits));
	snprintf(s, n, "unknown read-only compatible features, %s", bits);
	return (s);
}

static const struct layout_sign {
	uint32_t	off;
	uint8_t		bytes;
	const char	*sign, *what;
} layout_signs[] = {
	{ 1080,		2, "\x53\xef",	"an ext2, ext3 or ext4 filesystem" },
	{ 0,		4, "XFSB",	"an XFS filesystem" },
	{ 0x10040,	8, "_BHRfS_M",	"a btrfs filesystem" },
	{ 512,		8, "EFI PART",	"a GPT partition table" },
	{ 0,		6, "LUKS\xba\xbe", "a LUKS volume" },
	{ 536,		8, "LVM2 001",	"an LVM physical volume" },
	{ 4096,		4, "\xfc\x4e\x2b\xa9", "a Linux RAID member" },
	{ 3,		4, "NTFS",	"an NTFS filesystem" },
	{ 510,		2, "\x55\xaa",	"a partition table or boot sector" },
};

const char *
mkv_layout_foreign(const uint8_t *head, size_t bytes)
{
	for (size_t i = 0; i < MKV_ARRAY_LEN(layout_signs); i++) {
		const struct layout_sign *s = &layout_signs[i];

		if (s->off + s->bytes <= bytes && memcmp(head + s->off, s->sign, s->bytes) == 0)
			return (s->what);
	}
	for (size_t i = 0; i < bytes; i++) {
		if (head[i] != 0)
			return ("unknown data");
	}
	return (NULL);
}

void
mkv_layout_mark_unfinished(uint64_t block[MKV_BLOCK / 8])
{
	for (size_t i = 0; i < MKV_BLOCK / 8; i++)
		block[i] = MKV_UNFINISHED_MAGIC;
}

/* The mark may be torn, then nothing else was written yet; behind a whole one superblock A may be torn. */
int
mkv_layout_unfinished(const uint8_t *head, size_t bytes)
{
	size_t words = 0, n = MKV_BLOCK / 8;
	uint64_t w;

	if (bytes < MKV_SB_OFF_B + MKV_BLOCK)
		return (0);
	for (size_t i = 0; i < n; i++) {
		memcpy(&w, head + MKV_SB_OFF_B + 8 * i, 8);
		if (w != 0 && w != MKV_UNFINISHED_MAGIC)
			return (0);
		words += w != 0;
	}
	for (size_t i = words == n ? MKV_BLOCK : 0; i < MKV_SB_OFF_B; i++) {
		if (head[i] != 0)
			return (0);
	}
	return (words > 0);
}

size_t
mkv_obj_bytes(const struct mkv_obj *o)
{
	size_t n = sizeof(*o);

	n += o->flags & MKV_OBJ_PARENT ? sizeof(struct mkv_digest) : 0;
	n += o->flags & MKV_OBJ_SET ? sizeof(struct mkv_obj_set) : 0;
	n += o->n_runs * sizeof(struct mkv_run) + o->n_crcs * sizeof(uint32_t) + o->n_stripe + o->ns_bytes + o->key_bytes;
	return (MKV_ALIGN_UP(n, 8));
}

int
mkv_obj_parse(const void *p, size_t room, struct mkv_obj_view *v)
{
	const struct mkv_obj *o = p;
	const uint8_t *b = p;

	memset(v, 0, sizeof(*v));
	if (room < sizeof(*o) || o->bytes > room || o->bytes > MKV_OBJ_BYTES_MAX)
		return (MKV_E_CORRUPT);
	if (o->key_bytes > MKV_DRV_KEY_MAX || o->ns_bytes > MKV_DRV_NS_MAX || o->n_runs > MKV_OBJ_RUNS_MAX || o->n_crcs > MKV_DRV_CRCS_MAX ||
	    o->n_stripe > MKV_DRV_STRIPE_MAX)
		return (MKV_E_CORRUPT);
	if (mkv_obj_bytes(o) != o->bytes)
		return (MKV_E_CORRUPT);
	v->o = o;
	b += sizeof(*o);
	if (o->flags & MKV_OBJ_PARENT) {
		v->parent = (const void *)b;
		b += sizeof(*v->parent);
	}
	if (o->flags & MKV_OBJ_SET) {
		v->set = (const void *)b;
		b += sizeof(*v->set);
	}
	v->runs = (const void *)b;
	b += o->n_runs * sizeof(struct mkv_run);
	v->crcs = (const void *)b;
	b += o->n_crcs * sizeof(uint32_t);
	v->stripe = b;
	v->ns = v->stripe + o->n_stripe;
	v->key = v->ns + o->ns_bytes;
	return (0);
}

int
mkv_page_next(const struct mkv_page *pg, uint32_t *pos, struct mkv_obj_view *v)
{
	uint32_t used = MKV_MIN((uint32_t)pg->used, (uint32_t)sizeof(pg->data));

	while (*pos + 8 <= used) {
		uint64_t w;

		memcpy(&w, pg->data + *pos, 8);
		if (w == 0) {
			*pos += 8;
			continue;
		}
		if (mkv_obj_parse(pg->data + *pos, used - *pos, v) != 0)
			return (MKV_E_CORRUPT);
		*pos += v->o->bytes;
		return (1);
	}
	return (0);
}
