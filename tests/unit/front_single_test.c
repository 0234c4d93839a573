/*
 * A front with one drive, by counts (single_test.c: what the drive does): a value of one part is one request and no manifest, and lies in the stage once;
 * a larger one is a set on that drive.
 */
#include "config.h"

#include "tests/unit/front_rig.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "common/base/assert.h"
#include "common/base/err.h"

#define PART	(1u << 20)
#define PARTS	3u

static const struct rig_conf one = { .drives = 1, .kind = MKV_IOQ_AUTO };
static uint8_t value[PARTS * PART], back[PARTS * PART];

/* All requests but releases since the last call. */
static unsigned
requests(struct rig_drive *d)
{
	unsigned n = 0;

	for (unsigned op = 0; op < MKV_ARRAY_LEN(d->count); op++)
		n += op == MKV_DRV_RELEASE ? 0 : d->count[op];
	return (n);
}

static void
forget(struct rig_drive *d)
{
	memset(d->count, 0, sizeof(d->count));
}

static unsigned
objects(const struct rig_drive *d, unsigned flags)
{
	unsigned n = 0;

	for (unsigned i = 0; i < RIG_OBJECTS; i++)
		n += d->obj[i].used && d->obj[i].flags == flags;
	return (n);
}

static void
run_one_part(struct rig *r, struct rig_client *c)
{
	static const size_t sizes[] = { 0, 1, 65536, 65537, 300000, PART - 1, PART };
	struct rig_drive *d = &r->drive[0];

	for (unsigned i = 0; i < MKV_ARRAY_LEN(sizes); i++) {
		char key[16];
		size_t got;

		snprintf(key, sizeof(key), "k%u", i);
		rig_fill(value, sizes[i], i);
		forget(d);
		assert_int_equal(rig_put(c, key, value, sizes[i]), 0);
		assert_int_equal(d->count[MKV_DRV_PUT], 1);
		assert_int_equal(requests(d), 1);
		assert_int_equal(objects(d, 0), i + 1);
		forget(d);
		assert_int_equal(rig_get(c, key, 0, UINT64_MAX, back, &got), 0);
		assert_int_equal(got, sizes[i]);
		assert_memory_equal(value, back, sizes[i]);
		assert_int_equal(requests(d), 1);
	}
	assert_int_equal(objects(d, MKV_DRV_F_MANIFEST) + objects(d, MKV_DRV_F_PIECE), 0);
}

/* While the drive has the request the value is in its buffers and nowhere else in the stage: nobody made a copy on the way. */
static void
run_in_place(struct rig *r, struct rig_client *c)
{
	struct rig_drive *d = &r->drive[0];
	struct mkv_stage_stat st;
	uint8_t body[4096];
	const struct mkv_drv_req *q;
	uint64_t at = 0;

	rig_fill(value, PART, 1);
	d->hold = 1;
	rig_send(c, MKV_WIRE_PUT, 0, 0, body, rig_put_body(body, "held", 4, value, PART, 0, PART, 0), value, PART);
	for (unsigned i = 0; i < RIG_PATIENCE_MS && d->n_held == 0; i++)
		rig_pump_ms(r, 1);
	assert_int_equal(d->n_held, 1);
	q = (const struct mkv_drv_req *)(const void *)mkv_stage_slot(r->stage, d->held[0].slot_idx);
	for (unsigned i = 0; i < q->n_bufs; i++) {
		assert_memory_equal(mkv_stage_data(r->stage, q->bufs[i].off, q->bufs[i].bytes), value + at, q->bufs[i].bytes);
		at += q->bufs[i].bytes;
	}
	assert_int_equal(at, PART);
	mkv_stage_stat(r->stage, &st);
	assert_int_equal(st.drive_bytes, PART);
	assert_int_equal(st.front_bytes, 0);
	rig_drive_answer_held(d);
	assert_int_equal(rig_recv(c, RIG_PATIENCE_MS), 1);
	assert_int_equal(c->f.hdr.status, 0);
}

static void
run_larger(struct rig *r, struct rig_client *c)
{
	struct rig_drive *d = &r->drive[0];
	size_t got;

	rig_fill(value, sizeof(value), 2);
	assert_int_equal(rig_put(c, "large", value, sizeof(value)), 0);
	assert_int_equal(d->count[MKV_DRV_SET_NEW], 1);
	assert_int_equal(d->count[MKV_DRV_PUT], PARTS + 1);		/* the pieces, the manifest */
	assert_int_equal(requests(d), PARTS + 2);
	assert_int_equal(objects(d, MKV_DRV_F_PIECE), PARTS);
	assert_int_equal(objects(d, MKV_DRV_F_MANIFEST), 1);
	forget(d);
	assert_int_equal(rig_get(c, "large", 0, UINT64_MAX, back, &got), 0);
	assert_int_equal(got, sizeof(value));
	assert_memory_equal(value, back, sizeof(value));
	assert_int_equal(d->count[MKV_DRV_GET], PARTS + 1);
	assert_int_equal(requests(d), PARTS + 1);
	rig_pump_ms(r, 1);
	assert_int_equal(d->count[MKV_DRV_RELEASE], 1);
}

static void
test_one_part(void **state)
{
	(void)state;
	rig_with(&one, run_one_part);
}

static void
test_in_place(void **state)
{
	(void)state;
	rig_with(&one, run_in_place);
}

static void
test_larger(void **state)
{
	(void)state;
	rig_with(&one, run_larger);
}

int
main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(test_one_part), cmocka_unit_test(test_in_place), cmocka_unit_test(test_larger) };

	return (cmocka_run_group_tests(tests, NULL, NULL));
}
