/*
 * Damage: one byte of the medium changed while the engine is down, then what issue and format promise:
 *
 *	data             a get with CRCs, or VERIFY, finds it: a miss `corrupt`, counted; the others are whole
 *	metadata page    its objects miss with `corrupt`; the others are whole
 *	journal          counted at recovery; what only that block knew is a miss; nothing is older than it may be
 *	checkpoint       likewise
 *	superblock       one: the other serves; both: refused with words that say what to do
 *	anywhere else    no effect
 *
 *	damage_test [-s SEED] [-n BYTES]	bytes changed in each region (default 40; MKV_FULL: 2000)
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
#include "worker/drive/layout.h"

#define KEYS	40u
#define BYTES	(12u << 20)

static unsigned	failed;

struct world {
	struct rig	*r;
	uint64_t	version[KEYS];		/* 0: deleted */
	uint64_t	bytes[KEYS];
	uint8_t		*image;			/* before the damage */
	struct mkv_sb	sb;
};

static void
world_name(char *s, size_t n, unsigned k)
{
	snprintf(s, n, "key-%u", k);
}

/* Puts, overwrites, deletes; then quiet, so that the idle mark is on the medium; then the process dies. stop: orderly, journal empty. */
static struct world *
world_new(uint64_t seed, int stop)
{
	struct world *w = calloc(1, sizeof(*w));
	struct rnd rnd = { seed };
	char name[16];

	w->r = rig_create(RIG_SIM, BYTES, seed);
	w->r->o.extent_bytes = MKV_EXTENT_MIN;
	w->r->o.journal_bytes = 128 * 4096;
	w->r->o.objects_max = 256;
	if (rig_open(w->r) != 0)
		abort();
	for (unsigned i = 1; i <= 160; i++) {
		unsigned k = rnd_below(&rnd, KEYS);

		world_name(name, sizeof(name), k);
		if (rnd_below(&rnd, 6) == 0) {
			(void)rig_op(w->r, MKV_DRV_DELETE, name, NULL);
			w->version[k] = 0;
			continue;
		}
		w->bytes[k] = rnd_below(&rnd, 3) ? rnd_below(&rnd, 9000) : rnd_below(&rnd, MKV_EXTENT_MIN);
		w->version[k] = i;
		CHECK(rig_put(w->r, name, w->bytes[k], i, MKV_DRV_F_VERIFIED | MKV_DRV_F_OVERWRITE) == 0, "put %u", i);
		/* A checkpoint in the middle, so that both it and the journal know something. */
		if (i == 110) {
			rig_close(w->r, 0);
			CHECK(rig_open(w->r) == 0, "%s", w->r->why);
		}
	}
	w->r->now_ns += MKV_NS_PER_SEC;
	for (int i = 0; i < 50; i++)
		rig_turn(w->r);
	rig_close(w->r, !stop);
	sim_reboot(w->r->sim, SIM_KEEP);
	w->image = malloc(BYTES);
	memcpy(w->image, w->r->sim->now, BYTES);
	memcpy(&w->sb, w->image, sizeof(w->sb));
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

struct seen {
	unsigned	whole, missing, corrupt;
};

/* Read everything as a client with CRCs would: a mismatch is reported, and the drive decides. */
static struct seen
world_read(struct world *w, const char *what, uint64_t at)
{
	struct seen s = { 0, 0, 0 };
	char name[16];

	for (unsigned k = 0; k < KEYS; k++) {
		unsigned reason = 0;
		int err;

		world_name(name, sizeof(name), k);
		err = rig_get(w->r, name, 0, MKV_EXTENT_MIN, w->version[k]);
		if (w->version[k] == 0) {
			CHECK(err == MKV_E_MISS, "%s@%" PRIu64 " key %u: deleted, came back: %d", what, at, k, err);
			continue;
		}
		if (err == 0) {
			CHECK(w->r->slot[0].rep.value_bytes == w->bytes[k], "%s@%" PRIu64 " key %u: size", what, at, k);
			s.whole++;
			continue;
		}
		if (err == 1) {			/* the reader's CRC says so, or nobody does */
			err = rig_op(w->r, MKV_DRV_VERIFY, name, NULL);
			CHECK(err == MKV_E_CORRUPT, "%s@%" PRIu64 " key %u: wrong bytes with good CRCs", what, at, k);
			err = rig_op(w->r, MKV_DRV_STAT, name, &reason);
			CHECK(err == MKV_E_MISS && reason == MKV_REASON_CORRUPT, "%s@%" PRIu64 " key %u: after verify", what, at, k);
			s.corrupt++;
			continue;
		}
		CHECK(err == MKV_E_MISS, "%s@%" PRIu64 " key %u: %s", what, at, k, mkv_err(err));
		if (w->r->slot[0].rep.reason == MKV_REASON_CORRUPT)
			s.corrupt++;
		else
			s.missing++;
	}
	return (s);
}

static unsigned
world_alive(const struct world *w)
{
	unsigned n = 0;

	for (unsigned k = 0; k < KEYS; k++)
		n += w->version[k] != 0;
	return (n);
}

static void
flip(struct world *w, uint64_t at, uint8_t bits)
{
	w->r->sim->now[at] ^= bits;
	w->r->sim->durable[at] ^= bits;
}

enum region { R_DATA, R_PAGES, R_JOURNAL, R_CKPT, R_SB_A, R_SB_B, R_GAP, R_COUNT };

static const char *const region_name[] = { "data", "pages", "journal", "checkpoint", "superblock A", "superblock B", "gap" };

static void
region_bounds(const struct world *w, enum region g, uint64_t *from, uint64_t *to)
{
	const struct mkv_sb *sb = &w->sb;
	const uint64_t bounds[R_COUNT][2] = {
		[R_DATA] = { sb->data_off, sb->data_off + sb->data_units * sb->unit_bytes },
		[R_PAGES] = { sb->page_off, sb->page_off + (uint64_t)sb->page_count * MKV_BLOCK },
		[R_JOURNAL] = { sb->journal_off, sb->journal_off + (uint64_t)sb->journal_blocks * MKV_BLOCK },
		[R_CKPT] = { sb->ckpt_off[0], sb->page_off },
		[R_SB_A] = { MKV_SB_OFF_A, MKV_SB_OFF_A + MKV_BLOCK },
		[R_SB_B] = { MKV_SB_OFF_B, MKV_SB_OFF_B + MKV_BLOCK },
		[R_GAP] = { MKV_BLOCK, MKV_SB_OFF_B },
	};

	*from = bounds[g][0];
	*to = bounds[g][1];
}

/* Most of a region is empty: choose bytes that are not zero nearly always. */
static uint64_t
region_pick(const struct world *w, enum region g, struct rnd *rnd)
{
	uint64_t from, to, at = 0;

	region_bounds(w, g, &from, &to);
	for (int i = 0; i < 200000; i++) {
		at = from + rnd_u64(rnd) % (to - from);
		if (w->image[at] != 0 || rnd_below(rnd, 5000) == 0)
			break;
	}
	return (at);
}

static void
damage_one(struct world *w, enum region g, uint64_t at, uint8_t bits, int stop)
{
	unsigned alive = world_alive(w);
	const char *what = region_name[g];
	struct mkv_engine_info info;
	struct seen s;

	rig_restore(w->r, w->image);
	flip(w, at, bits);
	if (rig_open(w->r) != 0) {
		CHECK(0, "%s@%" PRIu64 ": %s", what, at, w->r->why);
		return;
	}
	mkv_engine_info(w->r->e, &info);
	s = world_read(w, what, at);
	switch (g) {
	case R_DATA:
		CHECK(s.corrupt <= 1 && s.missing == 0, "%s@%" PRIu64 ": %u corrupt, %u missing", what, at, s.corrupt, s.missing);
		break;
	case R_PAGES:
		CHECK(s.missing == 0, "%s@%" PRIu64 ": %u missing", what, at, s.missing);
		break;
	case R_JOURNAL:
	case R_CKPT:
		CHECK(s.corrupt == 0, "%s@%" PRIu64 ": %u corrupt", what, at, s.corrupt);
		CHECK(s.missing == 0 || info.damaged_blocks > 0, "%s@%" PRIu64 ": %u missing, nothing counted", what, at, s.missing);
		CHECK(g == R_JOURNAL && stop ? s.missing == 0 : 1, "%s@%" PRIu64 ": a journal that is not needed", what, at);
		break;
	case R_SB_A:
	case R_SB_B:
		CHECK(info.superblock_bad == 1, "%s@%" PRIu64 ": not counted", what, at);
		CHECK(s.whole == alive, "%s@%" PRIu64 ": %u of %u", what, at, s.whole, alive);
		break;
	default:
		CHECK(s.whole == alive && info.damaged_blocks == 0, "%s@%" PRIu64 ": %u of %u", what, at, s.whole, alive);
		break;
	}
	/* And it goes on. */
	CHECK(rig_put(w->r, "after", 5000, 999, 0) == 0, "%s@%" PRIu64, what, at);
	rig_close(w->r, 1);
	CHECK(rig_open(w->r) == 0, "%s@%" PRIu64 ": second recovery: %s", what, at, w->r->why);
	CHECK(w->r->e != NULL && rig_get(w->r, "after", 0, 5000, 999) == 0, "%s@%" PRIu64 ": after", what, at);
}

static void
damage_both_superblocks(struct world *w)
{
	rig_restore(w->r, w->image);
	flip(w, MKV_SB_OFF_A + 40, 1);
	flip(w, MKV_SB_OFF_B + 40, 1);
	CHECK(rig_open(w->r) == MKV_E_CONFIG, "both superblocks damaged");
	CHECK(strstr(w->r->why, "both superblocks") != NULL && strstr(w->r->why, "memkv setup --force") != NULL, "%s", w->r->why);
	rig_restore(w->r, w->image);
	flip(w, MKV_SB_OFF_A + 8, 4);		/* version: a CRC error as well, so it is damage */
	CHECK(rig_open(w->r) == 0, "one version byte: %s", w->r->why);
}

/* The newest block of the journal on the medium. */
static uint64_t
newest_block(const struct world *w)
{
	uint64_t seq = 0, at = 0;

	for (uint32_t i = 0; i < w->sb.journal_blocks; i++) {
		const struct mkv_jblock *b = (const void *)(w->image + w->sb.journal_off + (uint64_t)i * MKV_BLOCK);

		if (b->magic == MKV_JBLOCK_MAGIC && b->seq > seq) {
			seq = b->seq;
			at = w->sb.journal_off + (uint64_t)i * MKV_BLOCK;
		}
	}
	return (at);
}

/*
 * Whole ranges: several blocks of the journal or a checkpoint. Not those that take the last group together with the mark behind it: garbage at the
 * very end is what a torn write leaves, and is taken for that (docs/internals/format.md).
 */
static void
damage_ranges(struct world *w, struct rnd *rnd)
{
	for (unsigned i = 0; i < 60; i++) {
		enum region g = i % 2 ? R_JOURNAL : R_CKPT;
		uint64_t from, to, len = MKV_BLOCK * (1 + rnd_below(rnd, 12)), at;
		struct mkv_engine_info info;
		struct seen s;

		region_bounds(w, g, &from, &to);
		at = from + rnd_u64(rnd) % (to - from - len);
		if (at <= newest_block(w) + MKV_BLOCK && at + len >= newest_block(w))
			continue;
		rig_restore(w->r, w->image);
		for (uint64_t k = 0; k < len; k++)
			flip(w, at + k, 0xa5);
		CHECK(rig_open(w->r) == 0, "range@%" PRIu64 ": %s", at, w->r->why);
		mkv_engine_info(w->r->e, &info);
		s = world_read(w, "range", at);
		CHECK(s.corrupt == 0, "range@%" PRIu64 ": %u corrupt", at, s.corrupt);
	}
}

int
main(int argc, char **argv)
{
	unsigned n = getenv("MKV_FULL") ? 2000 : 40, tried = 0;
	uint64_t seed = 1;
	int c;

	while ((c = getopt(argc, argv, "s:n:")) != -1) {
		if (c == 's')
			seed = strtoull(optarg, NULL, 0);
		else if (c == 'n')
			n = (unsigned)atoi(optarg);
		else
			return (2);
	}
	mkv_log_init(MKV_LOG_ERROR);
	mkv_log_set_fd(-1);			/* thousands of lines that say what is wanted */
	mkv_crc_init();
	for (int stop = 0; stop < 2; stop++) {
		struct world *w = world_new(seed, stop);
		struct rnd rnd = { seed + 17 };

		for (unsigned g = 0; g < R_COUNT && failed < 10; g++) {
			for (unsigned i = 0; i < n && failed < 10; i++, tried++)
				damage_one(w, (enum region)g, region_pick(w, (enum region)g, &rnd), (uint8_t)(1u << rnd_below(&rnd, 8)), stop);
		}
		damage_both_superblocks(w);
		damage_ranges(w, &rnd);
		world_free(&w);
	}
	printf("seed %" PRIu64 ": %u bytes changed, %u failed\n", seed, tried, failed);
	return (failed != 0);
}
