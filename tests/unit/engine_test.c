/*
 * The engine on every medium: what goes in comes back, in order, and survives. Crashes and damage: tests/crash.
 */
#include "config.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "common/base/auth.h"
#include "common/base/crc.h"
#include "common/base/err.h"
#include "tests/crash/rig.h"
#include "tests/unit/engine_up.h"
#include "worker/drive/layout.h"

#define MIB	(1ull << 20)

static enum rig_kind kinds[] = { RIG_SIM, RIG_URING, RIG_THREADS, RIG_MEMORY };

static enum rig_kind
kind_of(void **state)
{
	return (*(enum rig_kind *)*state);
}

static const uint64_t sizes[] = { 0, 1, 4095, 4096, 4097, 65535, 65536, 65537, 300000, MIB - 1, MIB };

static void
test_round_trip(void **state)
{
	struct rig *r = eng_up(kind_of(state), 32 * MIB);
	char key[32];

	for (unsigned pass = 0; pass < 2; pass++) {
		for (unsigned i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
			snprintf(key, sizeof(key), "key%u", i);
			if (pass == 0)
				assert_int_equal(rig_put(r, key, sizes[i], i + 7, 0), 0);
			assert_int_equal(rig_get(r, key, 0, 2 * MIB, i + 7), 0);
			assert_int_equal(rig_op(r, MKV_DRV_STAT, key, NULL), 0);
			assert_int_equal(r->slot[0].rep.value_bytes, sizes[i]);
		}
		assert_int_equal(rig_close(r, pass), 0);
		assert_int_equal(rig_open(r), 0);
	}
	/* After an orderly stop and after none. */
	for (unsigned i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
		snprintf(key, sizeof(key), "key%u", i);
		assert_int_equal(rig_get(r, key, 0, 2 * MIB, i + 7), 0);
	}
	rig_destroy(&r);
}

static void
test_ranges(void **state)
{
	struct rig *r = eng_up(kind_of(state), 32 * MIB);
	uint64_t n = 5 * 65536 + 777;
	uint64_t at[] = { 0, 1, 4096, 65535, 65536, 65537, 131072, 200000, n - 1, n, n + 5 };
	uint64_t len[] = { 0, 1, 100, 4096, 65536, 65537, 200000, 1u << 20 };

	assert_int_equal(rig_put(r, "k", n, 3, 0), 0);
	for (int pass = 0; pass < 2; pass++) {
		for (unsigned i = 0; i < sizeof(at) / sizeof(at[0]); i++) {
			for (unsigned k = 0; k < sizeof(len) / sizeof(len[0]); k++) {
				uint64_t want = at[i] >= n ? 0 : MKV_MIN(len[k], n - at[i]);

				assert_int_equal(rig_get(r, "k", at[i], len[k], 3), 0);
				assert_int_equal(r->slot[0].rep.len, want);
				assert_int_equal(r->slot[0].rep.value_bytes, n);
			}
		}
		/* Again with a cold page cache: page and data are read together. */
		rig_close(r, 0);
		assert_int_equal(rig_open(r), 0);
	}
	rig_destroy(&r);
}

static void
test_overwrite_delete(void **state)
{
	struct rig *r = eng_up(kind_of(state), 32 * MIB);
	unsigned reason;

	assert_int_equal(rig_put(r, "a", 100000, 1, 0), 0);
	assert_int_equal(rig_put(r, "a", 50000, 2, 0), 0);
	assert_int_equal(rig_get(r, "a", 0, MIB, 2), 0);
	assert_int_equal(rig_op(r, MKV_DRV_DELETE, "a", NULL), 0);
	assert_int_equal(rig_op(r, MKV_DRV_STAT, "a", &reason), MKV_E_MISS);
	assert_int_equal(reason, MKV_REASON_DELETED);
	assert_int_equal(rig_op(r, MKV_DRV_DELETE, "a", NULL), MKV_E_MISS);
	assert_int_equal(rig_op(r, MKV_DRV_STAT, "never", &reason), MKV_E_MISS);
	assert_int_equal(reason, MKV_REASON_NEVER);
	assert_int_equal(rig_put(r, "a", 60000, 3, 0), 0);
	rig_close(r, 1);
	assert_int_equal(rig_open(r), 0);
	assert_int_equal(rig_get(r, "a", 0, MIB, 3), 0);
	assert_int_equal(rig_op(r, MKV_DRV_DELETE, "a", NULL), 0);
	rig_close(r, 1);
	assert_int_equal(rig_open(r), 0);
	assert_int_equal(rig_op(r, MKV_DRV_STAT, "a", &reason), MKV_E_MISS);
	rig_destroy(&r);
}

static void
test_no_units_leak(void **state)
{
	struct rig *r = eng_up(kind_of(state), 32 * MIB);
	struct mkv_engine_info a, b;

	mkv_engine_info(r->e, &a);
	for (int i = 0; i < 200; i++) {
		char key[16];

		snprintf(key, sizeof(key), "k%d", i % 10);
		assert_int_equal(rig_put(r, key, (uint64_t)(i * 7919 % 900000), (uint64_t)i, 0), 0);
	}
	for (int i = 0; i < 10; i++) {
		char key[16];

		snprintf(key, sizeof(key), "k%d", i);
		assert_int_equal(rig_op(r, MKV_DRV_DELETE, key, NULL), 0);
	}
	for (int i = 0; i < 100; i++)
		rig_turn(r);
	mkv_engine_info(r->e, &b);
	assert_int_equal(b.used_bytes, a.used_bytes);
	assert_int_equal(b.objects, 0);
	assert_int_equal(b.pending_free_bytes, 0);
	rig_destroy(&r);
}

static void
test_if_absent(void **state)
{
	struct rig *r = eng_up(kind_of(state), 32 * MIB);
	struct mkv_drv_req q;

	for (int i = 0; i < 3; i++) {
		rig_put_req(r, &q, 0, "a", 70000, 1);
		q.flags = MKV_DRV_F_IF_ABSENT;
		q.put_id = i == 2 ? 78 : 77;
		rig_submit(r, 0, &q);
		assert_int_equal(rig_wait(r, 0)->status, i == 2 ? MKV_E_EXISTS : 0);
	}
	/* Two at once: one wins, the other sees it. */
	rig_put_req(r, &q, 1, "b", 70000, 1);
	q.flags = MKV_DRV_F_IF_ABSENT;
	q.put_id = 1;
	rig_submit(r, 1, &q);
	rig_put_req(r, &q, 2, "b", 70000, 2);
	q.flags = MKV_DRV_F_IF_ABSENT;
	q.put_id = 2;
	rig_submit(r, 2, &q);
	assert_int_equal(rig_wait(r, 1)->status + rig_wait(r, 2)->status, MKV_E_EXISTS);
	rig_destroy(&r);
}

static void
test_touch(void **state)
{
	struct rig *r = eng_up(kind_of(state), 32 * MIB);
	struct mkv_drv_req q;
	unsigned reason;

	assert_int_equal(rig_put(r, "a", 70000, 1, MKV_DRV_F_VERIFIED), 0);
	assert_int_equal(r->slot[0].rep.same, 0);
	assert_int_equal(rig_put(r, "a", 70000, 1, MKV_DRV_F_VERIFIED), 0);
	assert_int_equal(r->slot[0].rep.same, 1);
	assert_int_equal(rig_put(r, "a", 70000, 1, MKV_DRV_F_VERIFIED | MKV_DRV_F_OVERWRITE), 0);
	assert_int_equal(r->slot[0].rep.same, 0);
	assert_int_equal(rig_put(r, "a", 70000, 2, MKV_DRV_F_VERIFIED), 0);
	assert_int_equal(r->slot[0].rep.same, 0);
	assert_int_equal(rig_get(r, "a", 0, MIB, 2), 0);
	/* A time to live that a touch sets survives, and ends. */
	rig_req(&q, MKV_DRV_TOUCH, "a");
	q.ttl_ms = 5000;
	rig_submit(r, 0, &q);
	assert_int_equal(rig_wait(r, 0)->status, 0);
	rig_close(r, 1);
	assert_int_equal(rig_open(r), 0);
	assert_int_equal(rig_get(r, "a", 0, MIB, 2), 0);
	r->wall_ms += 6000;
	assert_int_equal(rig_op(r, MKV_DRV_STAT, "a", &reason), MKV_E_MISS);
	assert_int_equal(reason, MKV_REASON_EXPIRED);
	assert_int_equal(rig_put(r, "a", 10, 9, 0), 0);
	assert_int_equal(rig_get(r, "a", 0, 10, 9), 0);
	rig_destroy(&r);
}

static void
test_group_commit(void **state)
{
	struct rig *r = eng_up(kind_of(state), 64 * MIB);
	struct mkv_engine_info a, b;
	struct mkv_drv_req q;
	char key[16];

	mkv_engine_info(r->e, &a);
	for (unsigned round = 0; round < 8; round++) {
		for (unsigned i = 0; i < 32; i++) {
			snprintf(key, sizeof(key), "g%u.%u", round, i);
			rig_put_req(r, &q, i, key, 65536, round * 100 + i);
			rig_submit(r, i, &q);
		}
		for (unsigned i = 0; i < 32; i++)
			assert_int_equal(rig_wait(r, i)->status, 0);
	}
	mkv_engine_info(r->e, &b);
	printf("%d: %llu flushes for %llu puts\n", kind_of(state), (unsigned long long)(b.flushes - a.flushes),
	    (unsigned long long)(b.puts - a.puts));
	if (kind_of(state) == RIG_SIM || kind_of(state) == RIG_MEMORY)
		assert_true((b.flushes - a.flushes) * 5 <= b.puts - a.puts);
	rig_destroy(&r);
}

static void
test_evict(void **state)
{
	struct rig *r = eng_up(kind_of(state), 24 * MIB);
	struct mkv_drv_req q;
	unsigned reason, evicted = 0;
	char key[16];

	r->get_flags = MKV_DRV_F_NO_TOUCH;
	for (unsigned i = 0; i < 300; i++) {
		snprintf(key, sizeof(key), "e%u", i);
		rig_put_req(r, &q, 0, key, 200000 + i * 37 % 700000, i);
		q.deadline_ns = r->now_ns + 10 * MKV_NS_PER_SEC;
		rig_submit(r, 0, &q);
		assert_int_equal(rig_wait(r, 0)->status, 0);
		assert_int_equal(rig_get(r, key, 0, MIB, i), 0);
		assert_int_equal(rig_op(r, MKV_DRV_TOUCH, "e0", NULL), 0);	/* read all the time: stays */
	}
	for (unsigned i = 0; i < 300; i++) {
		int err;

		snprintf(key, sizeof(key), "e%u", i);
		if ((err = rig_get(r, key, 0, MIB, i)) == MKV_E_MISS) {
			assert_int_equal(rig_op(r, MKV_DRV_STAT, key, &reason), MKV_E_MISS);
			assert_int_equal(reason, MKV_REASON_EVICTED);
			evicted++;
		} else
			assert_int_equal(err, 0);
	}
	assert_in_range(evicted, 150, 299);
	rig_destroy(&r);
}

static void
test_full_without_eviction(void **state)
{
	struct rig *r = rig_create(kind_of(state), 16 * MIB, 1);
	int err = 0, n = 0;
	char key[16];

	r->o.evict = 0;
	eng_opened(r);
	for (n = 0; n < 100 && err == 0; n++) {
		snprintf(key, sizeof(key), "f%d", n);
		err = rig_put(r, key, MIB, 1, 0);
	}
	assert_int_equal(err, MKV_E_NOSPACE);
	assert_in_range(n, 5, 17);
	assert_int_equal(rig_get(r, "f0", 0, MIB, 1), 0);
	assert_int_equal(rig_put(r, "big", 2 * MIB, 1, 0), MKV_E_TOOBIG);
	rig_destroy(&r);
}

static void
test_busy_at_deadline(void **state)
{
	struct rig *r = eng_up(kind_of(state), 16 * MIB);
	struct mkv_drv_req q;
	char key[16];
	int err = 0;

	/* Pinned objects cannot be evicted: the put waits, then says so. */
	for (int n = 0; n < 100 && err == 0; n++) {
		snprintf(key, sizeof(key), "f%d", n);
		rig_put_req(r, &q, 0, key, MIB, 1);
		q.flags = MKV_DRV_F_PIN;
		q.deadline_ns = r->now_ns + 50 * MKV_NS_PER_MS;
		rig_submit(r, 0, &q);
		err = rig_wait(r, 0)->status;
	}
	assert_int_equal(err, MKV_E_BUSY);
	rig_destroy(&r);
}

static void
test_batch_list_info(void **state)
{
	struct rig *r = eng_up(kind_of(state), 32 * MIB);
	struct mkv_drv_req q;
	struct mkv_digest *d = (struct mkv_digest *)rig_mem(r, 0);
	char key[32];
	unsigned seen = 0, calls = 0;
	uint64_t cursor = 0;

	for (int i = 0; i < 120; i++) {
		snprintf(key, sizeof(key), "%s/%d", i % 3 ? "list" : "other", i);
		assert_int_equal(rig_put(r, key, 100, (uint64_t)i, 0), 0);
	}
	rig_req(&q, MKV_DRV_BATCH, NULL);
	q.n_digests = 240;
	for (unsigned i = 0; i < 240; i++) {
		struct mkv_drv_req k;

		snprintf(key, sizeof(key), "%s/%d", i % 3 ? "list" : "other", i);
		rig_req(&k, MKV_DRV_STAT, key);
		d[i] = k.digest;
	}
	q.n_bufs = 1;
	q.bufs[0].bytes = 240 * 16;
	rig_submit(r, 0, &q);
	assert_int_equal(rig_wait(r, 0)->status, 0);
	for (unsigned i = 0; i < 240; i++)
		assert_int_equal(rig_mem(r, 0)[i], i < 120 ? 1 : MKV_REASON_NEVER << 1);
	do {
		const struct mkv_drv_rep *p;
		uint64_t at = 0;

		rig_req(&q, MKV_DRV_LIST, "list/");
		q.off = cursor;
		q.len = 7;
		q.n_bufs = 1;
		q.bufs[0].bytes = 65536;
		rig_submit(r, 0, &q);
		p = rig_wait(r, 0);
		assert_int_equal(p->status, 0);
		assert_true(p->n_rows <= 7);
		for (unsigned i = 0; i < p->n_rows; i++) {
			struct mkv_drv_list_row *row = (void *)(rig_mem(r, 0) + at);

			assert_memory_equal(row->key, "list/", 5);
			assert_int_equal(row->value_bytes, 100);
			at += row->row_bytes;
			seen++;
		}
		cursor = p->cursor;
	} while (cursor != 0 && ++calls < 100);
	assert_int_equal(seen, 80);
	assert_int_equal(rig_op(r, MKV_DRV_INFO, NULL, NULL), 0);
	assert_int_equal(r->slot[0].rep.objects, 120);
	rig_destroy(&r);
}

static void
test_verify(void **state)
{
	struct rig *r = eng_up(kind_of(state), 32 * MIB);
	struct mkv_drv_req q;
	unsigned reason;

	assert_int_equal(rig_put(r, "good", 300000, 1, 0), 0);
	assert_int_equal(rig_op(r, MKV_DRV_VERIFY, "good", NULL), 0);
	assert_int_equal(rig_get(r, "good", 0, MIB, 1), 0);
	assert_true(r->slot[0].rep.flags & MKV_DRV_F_VERIFIED);
	/* A writer whose CRC is wrong. */
	rig_put_req(r, &q, 0, "bad", 300000, 1);
	q.crcs[3] ^= 1;
	rig_submit(r, 0, &q);
	assert_int_equal(rig_wait(r, 0)->status, 0);
	assert_int_equal(rig_get(r, "bad", 10, 65536, 1), 0);		/* other chunks are good */
	assert_int_equal(rig_op(r, MKV_DRV_VERIFY, "bad", &reason), MKV_E_CORRUPT);
	assert_int_equal(rig_op(r, MKV_DRV_STAT, "bad", &reason), MKV_E_MISS);
	assert_int_equal(reason, MKV_REASON_WRITER_CRC);
	/* The edge of a range is checked by the drive. */
	rig_put_req(r, &q, 0, "bad", 300000, 1);
	q.crcs[3] ^= 1;
	rig_submit(r, 0, &q);
	assert_int_equal(rig_wait(r, 0)->status, 0);
	assert_int_equal(rig_get(r, "bad", 3 * 65536 + 5, 10, 1), MKV_E_MISS);
	assert_int_equal(r->slot[0].rep.reason, MKV_REASON_WRITER_CRC);
	rig_destroy(&r);
}

/* Garbage in requests: an answer every time, and the engine lives on. */
static void
test_hostile(void **state)
{
	struct rig *r = eng_up(kind_of(state), 32 * MIB);
	struct mkv_drv_req q;
	struct rnd rnd = { 99 };

	assert_int_equal(rig_put(r, "k", 100000, 5, MKV_DRV_F_VERIFIED), 0);
	for (unsigned i = 0; i < 3000; i++) {
		uint8_t *b = (uint8_t *)&q;

		rig_put_req(r, &q, 1, "k", 1000, 5);
		q.op = (uint16_t)rnd_below(&rnd, 16);
		q.deadline_ns = r->now_ns + 20 * MKV_NS_PER_MS;
		for (unsigned n = 1 + rnd_below(&rnd, 4); n > 0; n--) {
			unsigned at = rnd_below(&rnd, 200);

			b[at < 160 ? at : rnd_below(&rnd, sizeof(q))] = (uint8_t)rnd_u64(&rnd);
		}
		rig_submit(r, 1, &q);
		assert_non_null(rig_wait(r, 1));
		mkv_engine_release(r->e, 0, rnd_u64(&rnd) & 0x3ff, 0);
	}
	assert_int_equal(rig_put(r, "z", 100000, 6, 0), 0);
	assert_int_equal(rig_get(r, "z", 0, MIB, 6), 0);
	rig_destroy(&r);
}

static void
test_accepted(void **state)
{
	struct rig *r = eng_up(kind_of(state), 32 * MIB);
	struct mkv_engine_info a, b;

	mkv_engine_info(r->e, &a);
	for (unsigned i = 0; i < 50; i++) {
		char key[16];

		snprintf(key, sizeof(key), "a%u", i);
		assert_int_equal(rig_put(r, key, 1000, i, MKV_DRV_F_ACCEPTED), 0);
		assert_int_equal(rig_get(r, key, 0, MIB, i), 0);
	}
	mkv_engine_info(r->e, &b);
	assert_int_equal(b.flushes, a.flushes);
	r->now_ns += 2 * MKV_NS_PER_SEC;
	for (int i = 0; i < 100; i++)
		rig_turn(r);
	mkv_engine_info(r->e, &b);
	assert_int_equal(b.flushes, a.flushes + 1);
	rig_close(r, 1);
	assert_int_equal(rig_open(r), 0);
	assert_int_equal(rig_get(r, "a49", 0, MIB, 49), 0);
	rig_destroy(&r);
}

/* Many small objects through a small journal: checkpoints, page turnover, moves. */
static void
test_churn(void **state)
{
	struct rig *r = rig_create(kind_of(state), 32 * MIB, 5);
	struct rnd rnd = { 4 };
	uint32_t version[400] = { 0 };
	char key[16];

	r->o.journal_bytes = 128 * 4096;
	r->o.objects_max = 1024;
	eng_opened(r);
	for (unsigned i = 1; i <= 6000; i++) {
		unsigned k = rnd_below(&rnd, 400);

		snprintf(key, sizeof(key), "c%u", k);
		if (rnd_below(&rnd, 5) == 0) {
			int err = rig_op(r, MKV_DRV_DELETE, key, NULL);

			assert_int_equal(err, version[k] ? 0 : MKV_E_MISS);
			version[k] = 0;
		} else {
			assert_int_equal(rig_put(r, key, rnd_below(&rnd, 9000), i, 0), 0);
			version[k] = i;
		}
		if (i % 1500 == 0) {
			assert_int_equal(rig_close(r, i % 3000 != 0), 0);
			assert_int_equal(rig_open(r), 0);
		}
	}
	for (unsigned k = 0; k < 400; k++) {
		snprintf(key, sizeof(key), "c%u", k);
		assert_int_equal(rig_get(r, key, 0, MIB, version[k]), version[k] ? 0 : MKV_E_MISS);
	}
	rig_destroy(&r);
}

/* Gets while the key is overwritten: the old bytes or the new ones, never a miss. The next record lies in the page before its put is committed. */
static void
test_get_while_overwritten(void **state)
{
	struct rig *r = eng_up(kind_of(state), 64 * MIB);
	struct mkv_drv_req q;

	assert_int_equal(rig_put(r, "a", 70000, 1, 0), 0);
	for (unsigned v = 2; v < 60; v++) {
		rig_put_req(r, &q, 1, "a", 70000, v);
		rig_submit(r, 1, &q);
		while (!r->slot[1].done) {
			int err = rig_get(r, "a", 0, MIB, v - 1);

			if (err == 1)		/* other bytes: then the new ones */
				err = rig_get(r, "a", 0, MIB, v);
			assert_int_equal(err, 0);
		}
		assert_int_equal(rig_wait(r, 1)->status, 0);
	}
	rig_destroy(&r);
}

/* Two records of one key in one page, then the page is emptied to make room: the newer one has to move. */
static void
test_moved_record_is_the_newest(void **state)
{
	struct rig *r = rig_create(kind_of(state), 32 * MIB, 5);
	struct rnd rnd = { 7 };
	uint32_t version[300] = { 0 };
	char key[16];

	r->o.objects_max = 1024;
	eng_opened(r);
	for (unsigned i = 1; i <= 5000; i += 2) {
		unsigned k = rnd_below(&rnd, 300);

		snprintf(key, sizeof(key), "m%u", k);
		for (unsigned twice = 0; twice < 2; twice++)
			assert_int_equal(rig_put(r, key, 1000 + rnd_below(&rnd, 6) * 5000, version[k] = i + twice, 0), 0);
	}
	for (unsigned k = 0; k < 300; k++) {
		snprintf(key, sizeof(key), "m%u", k);
		assert_int_equal(rig_get(r, key, 0, MIB, version[k]), version[k] ? 0 : MKV_E_MISS);
	}
	rig_destroy(&r);
}

static void
put_manifest(struct rig *r, struct mkv_set_id set, const char *key)
{
	struct mkv_drv_req q;

	rig_req(&q, MKV_DRV_PUT, key);
	q.flags = MKV_DRV_F_MANIFEST;
	q.set = set;
	q.value_bytes = 3 * 500000;
	q.piece_count = 3;
	q.piece_bytes = 500000;
	q.n_stripe = 2;
	q.stripe[0] = 0;
	q.stripe[1] = 5;
	rig_submit(r, 0, &q);
	assert_int_equal(rig_wait(r, 0)->status, 0);
}

static void
test_set(void **state)
{
	struct rig *r = eng_up(kind_of(state), 32 * MIB);
	uint8_t secret[MKV_SECRET_BYTES], zero[32] = { 0 };
	struct mkv_engine_info info;
	struct mkv_desc freed = { .op = MKV_DRV_SET_FREED };
	struct mkv_set_id set;
	unsigned before;

	assert_int_equal(mkv_hkdf(zero, 32, NULL, 0, MKV_PIECE_INFO, strlen(MKV_PIECE_INFO), secret, sizeof(secret)), 0);
	assert_int_equal(rig_op(r, MKV_DRV_SET_NEW, "v", NULL), 0);
	set = r->slot[0].rep.set;
	for (uint32_t i = 0; i < 3; i++)
		assert_int_equal(rig_put_piece(r, set, i, 500000, secret), 0);
	put_manifest(r, set, "v");
	assert_int_equal(r->peers, 1);
	assert_int_equal(r->peer[0].op, MKV_DRV_SET_COMMITTED);
	assert_int_equal(r->peer_drive[0], 5);
	assert_int_equal(rig_get(r, "v", 0, 10, 0), 0);
	assert_true(r->slot[0].rep.flags & MKV_DRV_F_MANIFEST);
	assert_int_equal(r->slot[0].rep.piece_count, 3);
	assert_int_equal(rig_op(r, MKV_DRV_DELETE, "v", NULL), 0);
	rig_close(r, 1);
	before = r->peers;
	assert_int_equal(rig_open(r), 0);		/* asks again after a restart */
	for (int i = 0; i < 200; i++)
		rig_turn(r);
	assert_true(r->peers > before);
	assert_int_equal(r->peer[before].op, MKV_DRV_SET_FREE);
	mkv_engine_info(r->e, &info);
	assert_int_equal(info.used_bytes, 0);		/* our own pieces are free */
	freed.arg[0] = set.lo;
	freed.arg[1] = set.hi;
	mkv_engine_peer(r->e, 5, &freed);
	before = r->peers;
	r->now_ns += 5 * MKV_NS_PER_SEC;
	for (int i = 0; i < 200; i++)
		rig_turn(r);
	for (; before < r->peers; before++)		/* all have answered: of the set nobody hears any more */
		assert_int_equal(r->peer[before % 16].op, MKV_DRV_SET_LOST);
	rig_destroy(&r);
}

static void
test_client_gone(void **state)
{
	struct rig *r = eng_up(kind_of(state), 32 * MIB);
	struct mkv_drv_req q;
	char key[16];

	for (unsigned i = 0; i < 16; i++) {
		snprintf(key, sizeof(key), "g%u", i);
		rig_put_req(r, &q, i, key, 300000, i);
		rig_submit(r, i, &q);
	}
	mkv_engine_client_gone(r->e, 0);
	for (int i = 0; i < 2000 && !r->client_done; i++)
		rig_turn(r);
	assert_int_equal(r->client_done, 1);
	assert_int_equal(mkv_engine_busy(r->e), 0);
	for (unsigned i = 0; i < 16; i++)
		assert_false(r->slot[i].done);
	rig_destroy(&r);
}

#define EACH(f)	{ #f, f, NULL, NULL, &kinds[k] }

int
main(void)
{
	int bad = 0;

	for (unsigned k = 0; k < sizeof(kinds) / sizeof(kinds[0]); k++) {
		const struct CMUnitTest tests[] = {
			EACH(test_round_trip), EACH(test_ranges), EACH(test_overwrite_delete), EACH(test_no_units_leak), EACH(test_if_absent),
			EACH(test_touch), EACH(test_group_commit), EACH(test_evict), EACH(test_full_without_eviction),
			EACH(test_busy_at_deadline), EACH(test_batch_list_info), EACH(test_verify), EACH(test_hostile), EACH(test_accepted),
			EACH(test_churn), EACH(test_get_while_overwritten), EACH(test_moved_record_is_the_newest), EACH(test_set), EACH(test_client_gone),
		};

		bad += cmocka_run_group_tests(tests, NULL, NULL);
	}
	return (bad);
}
