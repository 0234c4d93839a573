/*
 * The first format: the medium stops at every write and flush of the first open and close, what was not flushed is kept, dropped or torn, between sectors
 * or between words (memory mode: a process that is killed in the middle of a copy). Nothing was acknowledged yet, so the medium must be formatted again
 * or opened, and serve; also when the second formatting stops, too. Once more over what a former store with the same uuid left behind.
 *
 *	format_test [-s SEED]
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

#define BYTES	(6u << 20)

static unsigned	failed;

static struct rig *
fresh(uint64_t seed)
{
	struct rig *r = rig_create(RIG_SIM, BYTES, seed);

	r->o.extent_bytes = MKV_EXTENT_MIN;
	r->o.journal_bytes = 128 * 4096;
	r->o.objects_max = 64;
	return (r);
}

/* Open, and close in order, with a stop at boundary `at`. 1: it stopped there. */
static int
life(struct rig *r, uint64_t at, enum sim_policy policy)
{
	int died;

	r->dead = 0;
	r->sim->steps = 0;
	r->sim->crash_at = at;
	if (rig_open(r) == 0 && !r->dead)
		(void)rig_close(r, 0);
	else if (!r->dead)
		CHECK(0, "at %" PRIu64 ": %s", at, r->why);
	died = r->dead;
	if (r->e != NULL)
		rig_close(r, 1);
	sim_reboot(r->sim, policy);
	r->dead = 0;
	return (died);
}

static void
serves(struct rig *r, const char *what, uint64_t at, int policy)
{
	if (rig_open(r) != 0) {
		CHECK(0, "%s at %" PRIu64 " policy %d: %s", what, at, policy, r->why);
		return;
	}
	CHECK(rig_op(r, MKV_DRV_STAT, "before", NULL) == MKV_E_MISS, "%s at %" PRIu64 ": it was never put", what, at);
	CHECK(rig_put(r, "after", 5000, 7, 0) == 0, "%s at %" PRIu64, what, at);
	rig_close(r, 1);
	CHECK(rig_open(r) == 0 && rig_get(r, "after", 0, 5000, 7) == 0, "%s at %" PRIu64 ": %s", what, at, r->why);
	CHECK(r->e == NULL || rig_op(r, MKV_DRV_STAT, "before", NULL) == MKV_E_MISS, "%s at %" PRIu64 ": later", what, at);
}

static uint64_t
every_boundary(uint64_t seed, uint32_t sector)
{
	uint64_t at = 1;
	int died = 1;

	for (; died && failed < 10; at++) {
		died = 0;
		for (int policy = SIM_KEEP; policy < SIM_POLICIES; policy++) {
			for (unsigned again = 0; again < (policy == SIM_TEAR ? 6 : 2); again++) {
				struct rig *r = fresh(seed + 16 * at + again);

				r->sim->sector = sector;
				died |= life(r, at, (enum sim_policy)policy);
				if (again % 2)
					(void)life(r, 1 + rnd_below(&r->sim->rnd, 30), (enum sim_policy)policy);
				serves(r, sector == 512 ? "sectors" : "words", at, policy);
				rig_destroy(&r);
			}
		}
	}
	return (at - 1);
}

/* Somebody zeroes the first MiB of a store; the server knows its uuid and gives it again. Nothing of the former store may come up. */
static void
former_store(uint64_t seed)
{
	struct rig *r = fresh(seed);

	memset(r->o.drive_uuid, 0x42, sizeof(r->o.drive_uuid));
	CHECK(rig_open(r) == 0, "%s", r->why);
	for (unsigned i = 0; i < 12; i++)
		CHECK(rig_put(r, "before", 3000, i, MKV_DRV_F_OVERWRITE) == 0, "put %u", i);
	rig_close(r, 1);
	sim_reboot(r->sim, SIM_KEEP);
	memset(r->sim->now, 0, 1 << 20);
	memset(r->sim->durable, 0, 1 << 20);
	serves(r, "a former store", 0, 0);
	rig_destroy(&r);
}

int
main(int argc, char **argv)
{
	uint64_t seed = 1, n = 0;
	int c;

	while ((c = getopt(argc, argv, "s:")) != -1) {
		if (c != 's')
			return (2);
		seed = strtoull(optarg, NULL, 0);
	}
	mkv_log_init(MKV_LOG_ERROR);
	mkv_crc_init();
	former_store(seed);
	n += every_boundary(seed, 512);
	n += every_boundary(seed, 8);
	printf("seed %" PRIu64 ": %" PRIu64 " boundaries, %u failed\n", seed, n, failed);
	return (failed != 0);
}
