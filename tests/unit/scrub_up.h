/*
 * An engine on a simulated medium (or in memory), its metrics, and objects whose bytes on the medium can be changed: for the programs about damage. Once each.
 */
#ifndef MKV_TESTS_UNIT_SCRUB_UP_H
#define MKV_TESTS_UNIT_SCRUB_UP_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

#include "common/shm/metric.h"
#include "tests/crash/rig.h"
#include "worker/drive/engine_priv.h"

#define MIB	(1ull << 20)

#define COUNTED(r, name)	((int)mkv_metric_get((r)->o.metrics, MKV_M_drive_##name, 0))

static struct mkv_metrics *metrics;

static inline struct rig *
up(enum rig_kind kind, uint64_t bytes, uint64_t seed)
{
	struct rig *r = rig_create(kind, bytes, seed);

	mkv_metrics_close(&metrics);		/* of the test before; NULL at first */
	assert_int_equal(mkv_metrics_open_private(&metrics), 0);
	r->o.metrics = metrics;
	r->o.scrub_interval_ns = 24ull * 3600 * MKV_NS_PER_SEC;
	assert_int_equal(rig_open(r), 0);
	return (r);
}

static inline void
put(struct rig *r, const char *key, uint64_t bytes, uint64_t seed)
{
	assert_int_equal(rig_put(r, key, bytes, seed, MKV_DRV_F_VERIFIED), 0);
}

static inline void
put_many(struct rig *r, unsigned n, uint64_t bytes)
{
	char key[16];

	for (unsigned i = 0; i < n; i++) {
		snprintf(key, sizeof(key), "k%u", i);
		put(r, key, bytes, i);
	}
}

static inline uint32_t
entry(struct rig *r, const char *key)
{
	struct mkv_drv_req q;
	uint32_t i;

	rig_req(&q, MKV_DRV_GET, key);
	i = mkv_index_find(&r->e->ix, q.digest);
	assert_int_not_equal(i, MKV_ENT_NIL);
	return (i);
}

/* Where byte `at` of the object lies on the medium. */
static inline uint64_t
place(struct rig *r, const char *key, uint64_t at)
{
	struct mkv_run run[MKV_OBJ_RUNS_MAX];
	unsigned n = mkv_ent_runs(&r->e->ix, eng_ent(r->e, entry(r, key)), run);
	uint64_t left;

	return (req_phys(r->e, run, n, at, &left));
}

static inline void
flip(struct rig *r, uint64_t at)
{
	if (r->kind == RIG_MEMORY)
		((uint8_t *)r->media->ops->map(r->media, at, 1))[0] ^= 1;
	else
		r->sim->now[at] ^= 1;
}

/* Bytes that never matched: their writer's fault, not the drive's. */
static inline void
lie(struct rig *r, const char *key, uint64_t bytes, unsigned flags)
{
	struct mkv_drv_req q;

	rig_put_req(r, &q, 0, key, bytes, 9);
	q.flags = (uint16_t)flags;
	q.put_id = 77;
	q.crcs[q.n_crcs - 1] ^= 4;
	rig_submit(r, 0, &q);
	assert_int_equal(rig_wait(r, 0)->status, 0);
}

#endif
