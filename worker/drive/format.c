/*
 * Superblocks: reading the pair, formatting an empty medium, writing the pair. Drive's loop thread, during open and close.
 *
 * The good copy with the larger generation wins; the other is written again with the next mount. One is written and flushed before the other, first
 * the one that was not good, so at least one is whole at any time. While a medium is formatted, a mark says so (format_clear()). What is not ours is
 * refused with words that say what was found.
 */
#include "config.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/auth.h"
#include "common/base/err.h"
#include "common/base/log.h"
#include "worker/drive/engine_priv.h"

#define FORMAT_HEAD_BYTES	(1u << 20)
#define FORMAT_CLEAR_BLOCKS	256u

static int
format_is_zero(const uint8_t *id)
{
	static const uint8_t zero[16];

	return (memcmp(id, zero, 16) == 0);
}

/* No superblock is good: may this medium be formatted? */
static int
format_may(struct mkv_engine *e, const uint8_t *head, enum mkv_sb_state a, enum mkv_sb_state b, char *why, size_t n)
{
	char text[MKV_FEATURES_TEXT];
	const char *what;

	if (e->o.may_format && mkv_layout_unfinished(head, FORMAT_HEAD_BYTES))
		return (0);
	if (a == MKV_SB_VERSION || b == MKV_SB_VERSION) {
		snprintf(why, n, "%s was written by another version of memkv: %s", e->o.name,
		    mkv_layout_features((const void *)(head + (a == MKV_SB_VERSION ? MKV_SB_OFF_A : MKV_SB_OFF_B)), text, sizeof(text)));
		return (MKV_E_VERSION);
	}
	if (a == MKV_SB_DAMAGED || b == MKV_SB_DAMAGED) {
		snprintf(why, n, "both superblocks of %s are damaged: restore the first MiB from a copy, or begin anew: memkv setup --force --drives %s",
		    e->o.name, e->o.name);
		return (MKV_E_CONFIG);
	}
	if ((what = mkv_layout_foreign(head, FORMAT_HEAD_BYTES)) != NULL) {
		snprintf(why, n, "%s holds %s: refused; memkv setup --force --drives %s formats it all the same", e->o.name, what, e->o.name);
		return (MKV_E_CONFIG);
	}
	if (!e->o.may_format) {
		snprintf(why, n, "%s is empty and formatting was not asked for", e->o.name);
		return (MKV_E_CONFIG);
	}
	return (0);
}

/*
 * A former store with the same uuid must not shine through: its newest checkpoint is found by its head, its journal by sequence and mount, which begin
 * anew. Until both superblocks are there, a mark in the place of the second says that there is no store: the first may be torn and look like anything.
 */
static int
format_clear(struct mkv_engine *e)
{
	const struct mkv_sb *sb = &e->sb;
	uint64_t *block;
	uint32_t n;
	int r = 0;

	if (posix_memalign((void **)&block, MKV_BLOCK, FORMAT_CLEAR_BLOCKS * MKV_BLOCK) != 0)
		return (MKV_E_NOMEM);
	mkv_layout_mark_unfinished(block);
	r = eng_write(e, block, MKV_BLOCK, MKV_SB_OFF_B);
	memset(block, 0, FORMAT_CLEAR_BLOCKS * MKV_BLOCK);
	for (int i = 0; i < 2 && r == 0; i++) {
		if ((r = eng_write(e, block, MKV_BLOCK, sb->ckpt_off[i])) == 0)
			r = eng_write(e, block, MKV_BLOCK, sb->ckpt_off[i] + (uint64_t)(sb->ckpt_blocks - 1) * MKV_BLOCK);
	}
	for (uint32_t at = 0; at < sb->journal_blocks && r == 0; at += n) {
		n = MKV_MIN(sb->journal_blocks - at, FORMAT_CLEAR_BLOCKS);
		r = eng_write(e, block, n * MKV_BLOCK, sb->journal_off + (uint64_t)at * MKV_BLOCK);
	}
	if (r == 0)
		r = eng_flush(e);
	free(block);
	return (r);
}

static int
format_new(struct mkv_engine *e, char *why, size_t n)
{
	struct mkv_layout_want w = {
		.total_bytes = e->o.media->total_bytes, .meta_bytes = e->o.media->meta_bytes, .extent_bytes = e->o.extent_bytes,
		.journal_bytes = e->o.journal_bytes, .objects_max = e->o.objects_max,
	};
	struct mkv_sb *sb = &e->sb;
	int r;

	memset(sb, 0, sizeof(*sb));
	if ((r = mkv_layout_plan(sb, &w, why, n)) != 0)
		return (r == MKV_E_NOSPACE ? r : MKV_E_CONFIG);
	sb->magic = MKV_SB_MAGIC;
	sb->version = MKV_FORMAT_VERSION;
	sb->created_ms = eng_wall(e);
	memcpy(sb->server_id, e->o.server_id, 16);
	memcpy(sb->uuid, e->o.drive_uuid, 16);
	if (format_is_zero(sb->uuid) && (r = mkv_random(sb->uuid, 16)) != 0)
		return (r);
	e->tag = mkv_block_tag(sb->uuid);
	e->formatted = 1;
	if ((r = format_clear(e)) != 0) {
		snprintf(why, n, "%s cannot be formatted: %s", e->o.name, mkv_err(r));
		return (r);
	}
	mkv_log(MKV_EV_DRIVE_FORMATTED, "drive=%s bytes=%llu data_bytes=%llu objects_max=%u", e->o.name, (unsigned long long)sb->total_bytes,
	    (unsigned long long)sb->data_units * sb->unit_bytes, sb->objects_max);
	return (0);
}

/* Of this server, but the drive that is expected here? */
static int
format_is_it(struct mkv_engine *e, char *why, size_t n)
{
	const uint8_t *uuid = e->sb.uuid;
	int other = !format_is_zero(e->o.drive_uuid) && memcmp(uuid, e->o.drive_uuid, 16) != 0;

	for (uint32_t i = 0; i < e->o.other_count; i++)
		other |= memcmp(uuid, e->o.other_uuid[i], 16) == 0;
	if (!other)
		return (0);
	if (e->o.uuid_seen != NULL)
		memcpy(e->o.uuid_seen, uuid, 16);
	snprintf(why, n, "%s is not the drive that was expected: its uuid is another", e->o.name);
	return (MKV_E_CONFIG);
}

/* Is the store on the medium the one we were told to serve? */
static int
format_fits(struct mkv_engine *e, char *why, size_t n)
{
	struct mkv_sb *sb = &e->sb;

	if (sb->total_bytes != e->o.media->total_bytes) {
		snprintf(why, n, "%s was formatted with %llu bytes and has %llu now: give it its size back, or begin anew with memkv setup --force",
		    e->o.name, (unsigned long long)sb->total_bytes, (unsigned long long)e->o.media->total_bytes);
		return (MKV_E_CONFIG);
	}
	if ((e->o.media->meta_bytes != 0) != (sb->data_off == e->o.media->meta_bytes)) {
		snprintf(why, n, "%s has another division of metadata and data", e->o.name);
		return (MKV_E_CONFIG);
	}
	if (sb->extent_bytes != e->o.extent_bytes) {
		snprintf(why, n, "%s was formatted with storage.block_size %u and the configuration says %u: set it to %u, or begin "
		    "anew with memkv setup --force", e->o.name, sb->extent_bytes, e->o.extent_bytes, sb->extent_bytes);
		return (MKV_E_CONFIG);
	}
	if (!format_is_zero(e->o.server_id) && !format_is_zero(sb->server_id) && memcmp(sb->server_id, e->o.server_id, 16) != 0) {
		snprintf(why, n, "%s belongs to another server: its keys cannot be read here. memkv setup --force --drives %s makes an empty drive of it",
		    e->o.name, e->o.name);
		return (MKV_E_CONFIG);
	}
	return (format_is_it(e, why, n));
}

static int
format_pick(struct mkv_engine *e, const uint8_t *head, char *why, size_t n)
{
	const struct mkv_sb *a = (const void *)(head + MKV_SB_OFF_A), *b = (const void *)(head + MKV_SB_OFF_B);
	enum mkv_sb_state sa = mkv_layout_check_sb(a), sb = mkv_layout_check_sb(b);
	int r;

	if (sa != MKV_SB_GOOD && sb != MKV_SB_GOOD) {
		if ((r = format_may(e, head, sa, sb, why, n)) != 0)
			return (r);
		return (format_new(e, why, n));
	}
	/* The one that does not count is written first: the other may be all there is. */
	e->sb_first = sb != MKV_SB_GOOD;
	if (sa == MKV_SB_GOOD && sb == MKV_SB_GOOD)
		e->sb = a->generation >= b->generation ? *a : *b;
	else
		e->sb = sa == MKV_SB_GOOD ? *a : *b;
	/* Formatted and then cut off before B was written: nothing is damaged. */
	if ((sa != MKV_SB_GOOD || sb != MKV_SB_GOOD) && !mkv_layout_unfinished(head, FORMAT_HEAD_BYTES)) {
		e->rec.superblock_bad = 1;
		mkv_log(MKV_EV_DRIVE_SUPERBLOCK, "drive=%s damaged=%s", e->o.name, sa == MKV_SB_GOOD ? "B" : "A");
	}
	e->tag = mkv_block_tag(e->sb.uuid);
	if ((r = format_fits(e, why, n)) != 0)
		return (r);
	if (format_is_zero(e->sb.server_id))
		memcpy(e->sb.server_id, e->o.server_id, 16);	/* `memkv setup` knew no server */
	e->epoch_seen = e->sb.epoch;
	if (e->o.epoch == 0 || e->o.epoch > e->sb.epoch)
		return (0);
	snprintf(why, n, "%s has seen epoch %u, this process has %u", e->o.name, e->sb.epoch, e->o.epoch);
	return (MKV_E_STALE);
}

/* The first MiB. Where it cannot be read as a whole, a good superblock is enough; but nothing that cannot be read is taken for empty. */
static int
format_read(struct mkv_engine *e, uint8_t *head)
{
	int r = eng_read(e, head, FORMAT_HEAD_BYTES, 0);

	if (r == 0 || r == MKV_E_CANCELLED)
		return (r);
	memset(head, 0xff, FORMAT_HEAD_BYTES);
	if (eng_read_spots(e, head + MKV_SB_OFF_A, 1, MKV_SB_OFF_A) < 0 || eng_read_spots(e, head + MKV_SB_OFF_B, 1, MKV_SB_OFF_B) < 0)
		return (MKV_E_CANCELLED);
	if (mkv_layout_check_sb((const void *)(head + MKV_SB_OFF_A)) == MKV_SB_GOOD || mkv_layout_check_sb((const void *)(head + MKV_SB_OFF_B)) == MKV_SB_GOOD)
		return (0);
	return (MKV_E_IO);
}

int
eng_format_or_load(struct mkv_engine *e, char *why, size_t n)
{
	uint8_t *head;
	int r;

	if (e->o.media->total_bytes < 2 * FORMAT_HEAD_BYTES) {
		snprintf(why, n, "%s: %llu bytes are too few", e->o.name, (unsigned long long)e->o.media->total_bytes);
		return (MKV_E_NOSPACE);
	}
	if (posix_memalign((void **)&head, MKV_BLOCK, FORMAT_HEAD_BYTES) != 0)
		return (MKV_E_NOMEM);
	if ((r = format_read(e, head)) != 0)
		snprintf(why, n, "%s: the superblocks cannot be read: %s. If it stays so, replace the drive or begin anew: memkv setup --force --drives %s",
		    e->o.name, mkv_err(r), e->o.name);
	else
		r = format_pick(e, head, why, n);
	free(head);
	if (r == 0) {
		e->readonly = e->o.look_only || (e->sb.feat_ro_compat & ~MKV_FEAT_RO_COMPAT) != 0;
		e->sb.mount++;
		e->sb.epoch = MKV_MAX(e->sb.epoch, e->o.epoch);
	}
	return (r);
}

int
eng_sb_write(struct mkv_engine *e, int clean)
{
	struct mkv_sb *sb;
	int r = 0;

	if (posix_memalign((void **)&sb, MKV_BLOCK, MKV_BLOCK) != 0)
		return (MKV_E_NOMEM);
	e->sb.clean = (uint32_t)clean;
	e->sb.generation++;
	for (uint32_t i = 0; i < 2 && r == 0; i++) {
		uint32_t copy = i ^ e->sb_first;

		e->sb.copy = copy;
		*sb = e->sb;
		mkv_block_seal(sb, offsetof(struct mkv_sb, crc));
		if ((r = eng_write(e, sb, MKV_BLOCK, copy == 0 ? MKV_SB_OFF_A : MKV_SB_OFF_B)) == 0)
			r = eng_flush(e);
	}
	e->sb_first = 0;
	free(sb);
	return (r);
}
