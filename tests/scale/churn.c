/*
 * The space map of a drive under a week of cache traffic, alone: objects come in the sizes that engines put, the oldest leave, a part in no order.
 *
 *	churn [--turns N]		how often the drive is rewritten (5; a week of five times a day: 35; MKV_FULL: 35)
 *
 * First 256 GiB in units of 4 KiB and extents of 4 MiB; then the time of a take on 16 TiB in units of 64 KiB that are full but for a few holes.
 * One JSON object on stdout. Fails when the mean of runs an object in the last turn is above 1.5, or has grown by a tenth since half of the turns, more than
 * one take in a thousand finds no room in eight runs while 3 % are free, or a take on the full drive costs more than 100 us.
 */
#include "config.h"

#include <getopt.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/assert.h"
#include "common/base/clock.h"
#include "tests/lib/rnd.h"
#include "worker/drive/alloc.h"

#define GIB		(1ull << 30)
#define UNIT		4096u
#define PER_EXTENT	1024u
#define EXTENTS		((uint32_t)(256 * GIB / UNIT / PER_EXTENT))
#define RUNS_MAX	8u

/* Bytes and weight: blocks and chunks of usual models cut at 4 MiB, and the small ones of a mixed load. */
static const struct { uint32_t bytes, weight; } sizes[] = {
	{ 4096, 10 }, { 65536, 10 }, { 262144, 15 }, { 655360, 10 }, { 658432, 10 }, { 1002240, 10 }, { 1123840, 10 }, { 2097152, 10 }, { 2726298, 5 },
	{ 3271557, 5 }, { 4194304, 5 },
};

struct object {
	struct mkv_run	run[RUNS_MAX];
	unsigned	n;
};

static struct churn {
	struct mkv_alloc a;
	struct rnd	rnd;
	struct object	*o;
	uint64_t	objects, first, last, max;	/* ring of objects by age */
	uint64_t	takes, runs, single, failed, turn_takes, turn_runs;
	double		half, last_turn;		/* runs an object, in the turn at half and in the last one */
	uint64_t	taken_units, used_units, waste_max;
} churn;

static uint32_t
churn_units(void)
{
	uint32_t w = (uint32_t)rnd_below(&churn.rnd, 100), bytes = 0, units;

	for (unsigned i = 0; i < MKV_ARRAY_LEN(sizes) && bytes == 0; i++) {
		if (w < sizes[i].weight)
			bytes = sizes[i].bytes;
		else
			w -= sizes[i].weight;
	}
	units = MKV_DIV_UP(bytes, UNIT);
	churn.waste_max = MKV_MAX(churn.waste_max, (uint64_t)units * UNIT - bytes);
	return (units);
}

static void
churn_drop(uint64_t i)
{
	struct object *o = &churn.o[i % churn.max];

	for (unsigned k = 0; k < o->n; k++) {
		churn.used_units -= o->run[k].len;
		mkv_alloc_free(&churn.a, o->run[k]);
	}
	o->n = 0;
}

/* Below 97 %, as the watermarks keep it: the oldest, and one in five at random (deleted, overwritten, expired, not asked for). */
static void
churn_evict(void)
{
	while (churn.used_units > churn.a.units / 100 * 97) {
		if (rnd_below(&churn.rnd, 5) == 0)
			churn_drop(churn.first + rnd_below(&churn.rnd, (uint32_t)(churn.last - churn.first)));
		else
			churn_drop(churn.first++);
	}
}

static void
churn_put(void)
{
	struct object *o = &churn.o[churn.last % churn.max];
	uint32_t units = churn_units();

	churn_evict();
	churn_drop(churn.last);
	churn.takes++;
	if ((o->n = mkv_alloc_take(&churn.a, units, o->run, RUNS_MAX)) == 0) {
		churn.failed++;
		return;
	}
	churn.runs += o->n;
	churn.turn_takes++;
	churn.turn_runs += o->n;
	churn.single += o->n == 1;
	churn.used_units += units;
	churn.taken_units += units;
	churn.last++;
	if (churn.last - churn.first == churn.max)
		churn_drop(churn.first++);
}

/* ns of a take on a drive that is full but for one extent in a hundred thousand, far away. */
static uint64_t
churn_full_ns(void)
{
	struct mkv_alloc a;
	uint32_t extents = (uint32_t)(16384 * GIB / 65536 / 64), n = 20000;
	struct mkv_run run;
	uint64_t begin;

	MKV_ASSERT(mkv_alloc_init(&a, extents, 64) == 0);
	for (uint32_t i = 0; i < extents; i++)
		MKV_ASSERT(mkv_alloc_take(&a, 64, &run, 1) == 1);
	begin = mkv_now_ns();
	for (uint32_t i = 0; i < n; i++) {
		run = (struct mkv_run){ (uint32_t)((uint64_t)i * 7919 % extents) * 64, 64 };
		mkv_alloc_free(&a, run);
		MKV_ASSERT(mkv_alloc_take(&a, 64, &run, 1) == 1);
		MKV_ASSERT(mkv_alloc_take(&a, 1, &run, 1) == 0);
	}
	begin = (mkv_now_ns() - begin) / n;
	mkv_alloc_fini(&a);
	return (begin);
}

/* Write the whole drive once more. */
static void
churn_turn(uint64_t turn, uint64_t turns)
{
	churn.turn_takes = churn.turn_runs = 0;
	while (churn.taken_units < (turn + 1) * churn.a.units)
		churn_put();
	churn.last_turn = (double)churn.turn_runs / (double)churn.turn_takes;
	if (turn == turns / 2)
		churn.half = churn.last_turn;
}

int
main(int argc, char **argv)
{
	static const struct option opts[] = { { "turns", 1, NULL, 't' }, { NULL, 0, NULL, 0 } };
	uint64_t turns = getenv("MKV_FULL") ? 35 : 5, begin = mkv_now_ns(), ns, full;
	uint32_t longest = 0;
	int c, bad;

	while ((c = getopt_long(argc, argv, "", opts, NULL)) != -1) {
		if (c != 't')
			return (2);
		turns = strtoull(optarg, NULL, 10);
	}
	churn.rnd.state = 1;
	churn.max = 1u << 22;
	churn.o = calloc(churn.max, sizeof(*churn.o));
	MKV_ASSERT(churn.o != NULL && mkv_alloc_init(&churn.a, EXTENTS, PER_EXTENT) == 0);
	for (uint64_t turn = 0; turn < turns; turn++)
		churn_turn(turn, turns);
	ns = (mkv_now_ns() - begin) / churn.takes;
	for (uint32_t x = 0; x < EXTENTS; x++) {
		struct mkv_run r;

		if (churn.a.free_in[x] <= longest)
			continue;
		for (uint32_t n = churn.a.free_in[x]; n > longest; n--) {
			churn.a.cursor = x;
			if (mkv_alloc_take(&churn.a, n, &r, 1) == 1) {
				longest = n;
				mkv_alloc_free(&churn.a, r);
			}
		}
	}
	full = churn_full_ns();
	bad = churn.last_turn > 1.5 || churn.last_turn > 1.1 * churn.half || churn.failed * 1000 > churn.takes || full > 100000 || churn.waste_max >= UNIT;
	printf("{\"turns\": %" PRIu64 ", \"takes\": %" PRIu64 ", \"runs_per_object\": %.3f, \"at_half\": %.3f, \"in_the_last_turn\": %.3f"
	    ", \"in_one_run_pct\": %.2f, \"failed\": %" PRIu64 ", \"largest_free_run_units\": %u, \"waste_max_bytes\": %" PRIu64 ", \"ns_per_object\": %" PRIu64 ", \"full_16TiB_ns_per_take\": %" PRIu64 "}\n", turns,
	    churn.takes, (double)churn.runs / (double)(churn.takes - churn.failed), churn.half, churn.last_turn,
	    100.0 * (double)churn.single / (double)(churn.takes - churn.failed), churn.failed, longest, churn.waste_max, ns, full);
	mkv_alloc_fini(&churn.a);
	free(churn.o);
	return (bad);
}
