/*
 * Blocks that cannot be read when a store is opened: each kind costs what docs/internals/format.md says. Nothing old comes up, nothing that may be there
 * is taken for absent: where recovery cannot tell, the open is refused, the medium is left as it is, and when it can be read again all is there.
 *
 *	unreadable_test [-s SEED]
 */
#include "config.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/base/crc.h"
#include "common/base/err.h"
#include "common/base/log.h"
#include "tests/crash/check.h"
#include "tests/crash/rig.h"
#include "worker/drive/failreg.h"
#include "worker/drive/layout.h"

#define KEYS	300u			/* three blocks of a checkpoint */
#define BYTES	(12u << 20)
#define LONG	1000000u		/* reads: until it is written */

static unsigned	failed;

struct world {
	struct rig	*r;
	uint64_t	version[KEYS];		/* 0: deleted */
	uint8_t		*image;
	struct mkv_sb	sb;
	uint32_t	newest;			/* area of the newest checkpoint */
	uint64_t	first, last;		/* journal blocks since then */
};

static void
put(struct world *w, unsigned k, uint64_t version)
{
	char name[16];

	snprintf(name, sizeof(name), "key-%u", k);
	if (version == 0)
		CHECK(rig_op(w->r, MKV_DRV_DELETE, name, NULL) == 0, "delete %u", k);
	else
		CHECK(rig_put(w->r, name, 3000, version, MKV_DRV_F_OVERWRITE) == 0, "put %u", k);
	w->version[k] = version;
}

static void
world_look(struct world *w)
{
	uint64_t id = 0;

	memcpy(w->image, w->r->sim->now, BYTES);
	memcpy(&w->sb, w->image, sizeof(w->sb));
	for (uint32_t a = 0; a < 2; a++) {
		const struct mkv_ckpt_head *h = (const void *)(w->image + w->sb.ckpt_off[a]);

		if (h->magic == MKV_CKPT_HEAD_MAGIC && h->id > id) {
			id = h->id;
			w->newest = a;
			w->first = h->start_seq;
		}
	}
	w->last = w->first - 1;
	for (;; w->last++) {
		const struct mkv_jblock *b = (const void *)(w->image + mkv_sb_journal_at(&w->sb, w->last + 1));

		if (b->magic != MKV_JBLOCK_MAGIC || b->seq != w->last + 1)
			break;
	}
}

/* All keys, an orderly stop; `more` overwrites and deletes behind the checkpoint, quiet or not; then the process dies. */
static struct world *
world_new(uint64_t seed, unsigned stops, unsigned more, int quiet)
{
	struct world *w = calloc(1, sizeof(*w));
	uint64_t version = 0;

	w->r = rig_create(RIG_SIM, BYTES, seed);
	w->r->o.extent_bytes = MKV_EXTENT_MIN;
	w->r->o.journal_bytes = 128 * 4096;
	w->r->o.objects_max = 512;
	w->r->o.evict = 0;
	w->image = malloc(BYTES);
	CHECK(rig_open(w->r) == 0, "%s", w->r->why);
	for (unsigned k = 0; k < KEYS; k++)
		put(w, k, ++version);
	for (unsigned s = 0; s < stops; s++) {
		rig_close(w->r, 0);
		CHECK(rig_open(w->r) == 0, "%s", w->r->why);
		for (unsigned i = 0; i < more; i++)
			put(w, (s + 7 * i) % KEYS, i % 5 == 4 && w->version[(s + 7 * i) % KEYS] ? 0 : ++version);
	}
	w->r->now_ns += quiet ? MKV_NS_PER_SEC : 0;
	for (int i = 0; i < 50 && quiet; i++)
		rig_turn(w->r);
	rig_close(w->r, 1);
	sim_reboot(w->r->sim, SIM_KEEP);
	world_look(w);
	return (w);
}

static void
world_free(struct world **wp)
{
	rig_destroy(&(*wp)->r);
	free((*wp)->image);
	free(*wp);
	*wp = NULL;
}

/* How many are missing. What is there is the last that was acknowledged. */
static unsigned
world_missing(struct world *w, const char *what)
{
	unsigned missing = 0;
	char name[16];

	for (unsigned k = 0; k < KEYS; k++) {
		int err;

		snprintf(name, sizeof(name), "key-%u", k);
		err = rig_get(w->r, name, 0, 4096, w->version[k]);
		CHECK(err == MKV_E_MISS || (err == 0 && w->version[k] != 0), "%s: key %u: %d", what, k, err);
		missing += err == MKV_E_MISS && w->version[k] != 0;
	}
	return (missing);
}

/* It opens, at most so many are missing, and so it stays. Returns how many. */
static unsigned
opens(struct world *w, const char *what, unsigned missing_max, int counted)
{
	struct mkv_engine_info info;
	unsigned missing;

	if (rig_open(w->r) != 0) {
		CHECK(0, "%s: %s", what, w->r->why);
		return (0);
	}
	mkv_engine_info(w->r->e, &info);
	CHECK(!counted || info.damaged_blocks + (uint32_t)info.superblock_bad > 0, "%s: nothing counted", what);
	missing = world_missing(w, what);
	CHECK(missing <= missing_max, "%s: %u missing", what, missing);
	CHECK(rig_put(w->r, "after", 5000, 999, 0) == 0, "%s", what);
	rig_close(w->r, 1);
	memset(w->r->sim->bad, 0, sizeof(w->r->sim->bad));
	CHECK(rig_open(w->r) == 0 && world_missing(w, what) == missing, "%s: the next time: %s", what, w->r->why);
	CHECK(rig_get(w->r, "after", 0, 5000, 999) == 0, "%s: after", what);
	return (missing);
}

static void
refused(struct world *w, const char *what)
{
	int err = rig_open(w->r);

	CHECK(err == MKV_E_IO, "%s: %s", what, err ? mkv_err(err) : "opened");
	CHECK(err == 0 || strstr(w->r->why, "memkv setup --force") != NULL, "%s: %s", what, w->r->why);
	CHECK(memcmp(w->r->sim->now, w->image, BYTES) == 0, "%s: the medium was changed", what);
	if (w->r->e != NULL)
		rig_close(w->r, 1);
	memset(w->r->sim->bad, 0, sizeof(w->r->sim->bad));
	(void)opens(w, what, 0, 0);
}

static void
bad_heads(struct world *w, uint32_t area, unsigned copies, unsigned reads)
{
	for (unsigned c = 0; c < 2; c++) {
		if (copies & (1u << c))
			sim_bad(w->r->sim, w->sb.ckpt_off[area] + (c ? (uint64_t)(w->sb.ckpt_blocks - 1) * MKV_BLOCK : 0), MKV_BLOCK, reads);
	}
}

static void
test_superblocks(struct world *w)
{
	rig_restore(w->r, w->image);
	sim_bad(w->r->sim, MKV_SB_OFF_A, MKV_BLOCK, LONG);
	(void)opens(w, "superblock A", 0, 1);
	rig_restore(w->r, w->image);
	sim_bad(w->r->sim, MKV_SB_OFF_B, MKV_BLOCK, LONG);
	(void)opens(w, "superblock B", 0, 1);
	rig_restore(w->r, w->image);
	sim_bad(w->r->sim, MKV_SB_OFF_A, MKV_BLOCK, LONG);
	sim_bad(w->r->sim, MKV_SB_OFF_B, MKV_BLOCK, LONG);
	refused(w, "both superblocks");
	rig_restore(w->r, w->image);
	memset(w->r->sim->now, 0, MKV_BLOCK);
	sim_bad(w->r->sim, MKV_SB_OFF_B, MKV_BLOCK, LONG);
	CHECK(rig_open(w->r) == MKV_E_IO, "an empty superblock and one that cannot be read are not an empty medium");
}

static void
test_heads(struct world *w, int reaches_back)
{
	static const char *const copy[] = { "no head", "the first head", "the last head", "both heads" };

	for (unsigned c = 1; c <= 2; c++) {
		rig_restore(w->r, w->image);
		bad_heads(w, w->newest, c, LONG);
		(void)opens(w, copy[c], 0, 1);
	}
	rig_restore(w->r, w->image);
	bad_heads(w, w->newest, 3, LONG);
	if (reaches_back)
		(void)opens(w, "both heads, the journal reaches back", 0, 1);
	else
		refused(w, "both heads, the journal does not reach back");
	rig_restore(w->r, w->image);
	bad_heads(w, w->newest ^ 1, 3, LONG);
	(void)opens(w, "both heads of the older", 0, 1);
	rig_restore(w->r, w->image);
	bad_heads(w, 0, 3, LONG);
	bad_heads(w, 1, 3, LONG);
	refused(w, "all heads");
}

static void
test_body(struct world *w)
{
	uint64_t body = w->sb.ckpt_off[w->newest] + MKV_BLOCK;
	unsigned n;

	rig_restore(w->r, w->image);
	sim_bad(w->r->sim, body + MKV_BLOCK, MKV_BLOCK, LONG);
	n = opens(w, "a block of the body", 102, 1);
	CHECK(n > 0, "a block of the body costs something");
	rig_restore(w->r, w->image);
	sim_bad(w->r->sim, body, (uint64_t)(w->sb.ckpt_blocks - 2) * MKV_BLOCK, 2);
	(void)opens(w, "a moment in the body", 0, 0);
}

static void
test_journal(struct world *w, int quiet)
{
	CHECK(w->last >= w->first + 8, "journal %" PRIu64 " to %" PRIu64, w->first, w->last);
	for (uint64_t s = w->first; s + (quiet ? 2 : 3) < w->last; s++) {
		rig_restore(w->r, w->image);
		sim_bad(w->r->sim, mkv_sb_journal_at(&w->sb, s), MKV_BLOCK, LONG);
		(void)opens(w, "a journal block", 100, 1);
	}
	/* The medium is away for a moment: nothing is the end of the journal that is not. */
	for (unsigned reads = 1; reads < 40; reads++) {
		int err;

		rig_restore(w->r, w->image);
		sim_bad(w->r->sim, w->sb.journal_off, (uint64_t)w->sb.journal_blocks * MKV_BLOCK, reads);
		err = rig_open(w->r);
		if (err != 0)
			CHECK(err == MKV_E_IO, "away for %u reads: %s", reads, w->r->why);
		else
			(void)world_missing(w, "away for a moment");
	}
	rig_restore(w->r, w->image);
	sim_bad(w->r->sim, w->sb.journal_off, (uint64_t)w->sb.journal_blocks * MKV_BLOCK, LONG);
	refused(w, "the whole journal");
	rig_restore(w->r, w->image);
	sim_bad(w->r->sim, mkv_sb_journal_at(&w->sb, w->last + 1), MKV_BLOCK, LONG);
	(void)opens(w, "the block behind the journal", 0, 1);
}

static void
test_pool_map(struct world *w)
{
	for (unsigned c = 1; c < 4; c++) {
		rig_restore(w->r, w->image);
		for (unsigned k = 0; k < MKV_POOLMAP_COPIES; k++) {
			if (c & (1u << k))
				sim_bad(w->r->sim, MKV_POOLMAP_OFF + (uint64_t)k * MKV_BLOCK, MKV_BLOCK, LONG);
		}
		(void)opens(w, "pool map", 0, 0);
	}
}

static void
registry(struct world *w, struct mkv_fail_sum *sum)
{
	struct mkv_fail_row *rows = calloc(MKV_FAIL_ROWS, sizeof(*rows));

	mkv_fail_parse(w->r->sim->now + MKV_FAILREG_OFF, mkv_block_tag(w->sb.uuid), rows, sum);
	free(rows);
}

/* A block of the registry costs its own rows; those of the others stay when more is noted. */
static void
test_registry(struct world *w)
{
	struct mkv_fail_sum before, after;

	rig_restore(w->r, w->image);
	w->r->sim->now[MKV_SB_OFF_B + 100] ^= 1;
	CHECK(rig_open(w->r) == 0, "%s", w->r->why);
	rig_close(w->r, 0);
	registry(w, &before);
	CHECK(before.rows > 0, "the superblock was noted");
	sim_bad(w->r->sim, MKV_FAILREG_OFF + 5 * MKV_BLOCK, MKV_BLOCK, LONG);
	CHECK(rig_open(w->r) == 0, "%s", w->r->why);
	w->r->sim->fail_flush = 1;
	CHECK(rig_put(w->r, "x", 100, 1, 0) == MKV_E_READONLY, "the flush failed");
	rig_close(w->r, 0);
	registry(w, &after);
	CHECK(after.rows > before.rows, "%u rows, now %u", before.rows, after.rows);
}

int
main(int argc, char **argv)
{
	uint64_t seed = 1;
	int c;

	while ((c = getopt(argc, argv, "s:")) != -1) {
		if (c != 's')
			return (2);
		seed = strtoull(optarg, NULL, 0);
	}
	mkv_log_init(MKV_LOG_ERROR);
	mkv_log_set_fd(-1);
	mkv_crc_init();
	for (int quiet = 0; quiet < 2; quiet++) {
		struct world *w = world_new(seed, 2, 12, quiet);

		test_superblocks(w);
		test_heads(w, 1);
		test_body(w);
		test_journal(w, quiet);
		test_pool_map(w);
		test_registry(w);
		world_free(&w);
		/* One checkpoint alone, and the ring went over its own beginning. */
		w = world_new(seed, 4, 100, quiet);
		memset(w->image + w->sb.ckpt_off[w->newest ^ 1], 0, (size_t)w->sb.ckpt_blocks * MKV_BLOCK);
		test_heads(w, 0);
		world_free(&w);
	}
	printf("seed %" PRIu64 ": %u failed\n", seed, failed);
	return (failed != 0);
}
