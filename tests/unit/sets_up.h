/*
 * An engine on a simulated medium as home of striped values and as one of the drives of their stripes; the other drives are what a test says they say
 * (drive 5). For one test program each: include it once.
 */
#ifndef MKV_TESTS_UNIT_SETS_UP_H
#define MKV_TESTS_UNIT_SETS_UP_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "common/base/auth.h"
#include "common/base/err.h"
#include "tests/crash/rig.h"

#define MIB	(1ull << 20)

static uint8_t secret[MKV_SECRET_BYTES];	/* of pieces' digests */

static inline struct rig *
up(void)
{
	struct rig *r = rig_create(RIG_SIM, 64 * MIB, 1);
	uint8_t zero[32] = { 0 };

	assert_int_equal(mkv_hkdf(zero, 32, NULL, 0, MKV_PIECE_INFO, strlen(MKV_PIECE_INFO), secret, sizeof(secret)), 0);
	assert_int_equal(rig_open(r), 0);
	return (r);
}

static inline void
turns(struct rig *r, uint64_t seconds)
{
	for (int k = 0; k < 4; k++) {
		r->now_ns += seconds * MKV_NS_PER_SEC / 4;
		for (int i = 0; i < 60; i++)
			rig_turn(r);
	}
}

static inline void
put_pieces(struct rig *r, struct mkv_set_id set, uint32_t from, uint32_t to)
{
	for (uint32_t no = from; no < to; no++)
		assert_int_equal(rig_put_piece(r, set, no, 5000, secret), 0);
}

static inline int
put_manifest(struct rig *r, struct mkv_set_id set, const char *key, uint32_t pieces, unsigned stripe, unsigned flags)
{
	struct mkv_drv_req q;

	rig_req(&q, MKV_DRV_PUT, key);
	q.flags = (uint16_t)(MKV_DRV_F_MANIFEST | flags);
	q.set = set;
	q.value_bytes = pieces * 5000;
	q.piece_count = pieces;
	q.piece_bytes = 5000;
	q.n_stripe = 1;
	q.stripe[0] = (uint8_t)stripe;
	rig_submit(r, 0, &q);
	return (rig_wait(r, 0)->status);
}

static inline struct mkv_set_id
set_new(struct rig *r, uint64_t deadline_ns)
{
	struct mkv_drv_req q;

	rig_req(&q, MKV_DRV_SET_NEW, "v");
	q.deadline_ns = deadline_ns;
	rig_submit(r, 0, &q);
	assert_int_equal(rig_wait(r, 0)->status, 0);
	return (r->slot[0].rep.set);
}

static inline uint64_t
used(struct rig *r)
{
	struct mkv_engine_info info;

	mkv_engine_info(r->e, &info);
	return (info.used_bytes);
}

/* What was said to other drives last, of this kind; NULL: nothing since `from`. */
static inline const struct mkv_desc *
said(struct rig *r, unsigned from, unsigned op)
{
	for (unsigned i = r->peers; i > from && i + 16 > r->peers; i--) {
		if (r->peer[(i - 1) % 16].op == op)
			return (&r->peer[(i - 1) % 16]);
	}
	return (NULL);
}

static inline void
hear(struct rig *r, unsigned op, struct mkv_set_id set, uint32_t count, uint64_t flags)
{
	struct mkv_desc d = { .op = (uint16_t)op, .arg = { set.lo, set.hi, count, flags } };

	mkv_engine_peer(r->e, 5, &d);
	for (int i = 0; i < 60; i++)
		rig_turn(r);
}

static inline int
get_hold(struct rig *r, const char *key, uint64_t *hold)
{
	struct mkv_drv_req q;

	rig_req(&q, MKV_DRV_GET, key);
	q.len = 1;
	rig_submit(r, 0, &q);
	*hold = rig_wait(r, 0)->status == 0 ? r->slot[0].rep.hold : 0;
	return (r->slot[0].rep.status);
}

#endif
