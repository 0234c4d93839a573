/*
 * A front and values of terabytes: positions beyond 4 GiB, 1 TiB and at the end of the largest value there can be, refusals beyond it, and puts that take
 * longer than the deadline of their first part. The fake drive has of such a value what the test put there.
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
#include "common/base/clock.h"
#include "common/base/err.h"

#define PART	(4u << 20)
#define LARGEST	(1ull << 48)

static const struct rig_conf one = { .drives = 1, .kind = MKV_IOQ_AUTO, .part_bytes = PART, .stage_bytes = 64ull << 20 };
static const struct rig_conf small = { .drives = 1, .kind = MKV_IOQ_AUTO, .part_bytes = 256u << 10 };
static uint8_t value[2 * PART], back[2 * PART], body[8192];

static struct rig_object *
manifest_of(struct rig_drive *d)
{
	for (unsigned i = 0; i < RIG_OBJECTS; i++)
		if (d->obj[i].used && d->obj[i].flags == MKV_DRV_F_MANIFEST)
			return (&d->obj[i]);
	return (NULL);
}

/* Piece no of a set is there, filled by its number. */
static void
plant(struct rig *r, struct mkv_set_id set, uint32_t no, uint64_t bytes)
{
	struct rig_object *o = NULL;

	for (unsigned i = 0; i < RIG_OBJECTS && o == NULL; i++)
		o = r->drive[0].obj[i].used ? NULL : &r->drive[0].obj[i];
	assert_non_null(o);
	*o = (struct rig_object){ .used = 1, .digest = mkv_piece_digest(r->f->piece_secret, set, no), .flags = MKV_DRV_F_PIECE, .bytes = bytes, .set = set };
	o->data = malloc(bytes);
	assert_non_null(o->data);
	rig_fill(o->data, bytes, no);
}

static void
read_at(struct rig_client *c, uint64_t off, uint64_t len)
{
	static uint8_t piece[PART];
	uint64_t at = off, want = MKV_MIN(len, LARGEST - off);
	size_t got;

	assert_int_equal(rig_get(c, "v", off, len, back, &got), 0);
	assert_int_equal(got, want);
	while (at < off + want) {
		uint64_t in = at % PART, n = MKV_MIN(PART - in, off + want - at);

		rig_fill(piece, sizeof(piece), (uint32_t)(at / PART));
		assert_memory_equal(back + (at - off), piece + in, n);
		at += n;
	}
	assert_true(((struct mkv_wire_object *)(void *)c->f.body)->value_bytes == LARGEST);
}

/* Ranges of the largest value, also across pieces. */
static void
run_read(struct rig *r, struct rig_client *c)
{
	static const uint32_t there[] = { 0, 1023, 1024, 1025, (1u << 18) - 1, 1u << 18, 1u << 25, (1u << 26) - 2, (1u << 26) - 1 };
	struct rig_object *m;
	size_t got;

	rig_fill(value, sizeof(value), 1);
	assert_int_equal(rig_put(c, "v", value, PART + 1), 0);
	m = manifest_of(&r->drive[0]);
	assert_non_null(m);
	m->bytes = LARGEST;
	m->piece_count = 1u << 26;
	m->set.lo = 4711;			/* whose pieces are not those that were put */
	for (unsigned i = 0; i < MKV_ARRAY_LEN(there); i++)
		plant(r, m->set, there[i], PART);
	read_at(c, 0, 1000);
	read_at(c, 1ull << 32, 100000);
	read_at(c, (1ull << 32) - 7, 14);
	read_at(c, (1ull << 32) - 70000, PART + 140000);
	read_at(c, (1ull << 40) - 1, 2);
	read_at(c, (1ull << 40) + 65535, 65537);
	read_at(c, 1ull << 47, 1);
	read_at(c, LARGEST - PART - 5, PART + 5);
	read_at(c, LARGEST - 100, UINT64_MAX);
	read_at(c, LARGEST - 1, 1);
	assert_int_equal(rig_get(c, "v", LARGEST, 1, back, &got), 0);
	assert_int_equal(got, 0);
	assert_int_equal(rig_get(c, "v", LARGEST + 1, 1, back, &got), MKV_E_INVAL);
	(void)rig_send(c, MKV_WIRE_STAT, 0, 0, body, rig_get_body(body, "v", 1, 0, 0), NULL, 0);
	assert_int_equal(rig_recv(c, RIG_PATIENCE_MS), 1);
	assert_true(((struct mkv_wire_object *)(void *)c->f.body)->value_bytes == LARGEST);
}

static struct mkv_req *
request(struct rig *r, uint64_t id)
{
	struct mkv_req *q = NULL;

	for (int i = 0; i < 100000 && q == NULL; i++) {
		rig_pump(r);
		MKV_LIST_FOREACH(it, &r->f->conn_used)
			q = q == NULL ? mkv_req_find(r->f, MKV_CONTAINER_OF(it, struct mkv_conn, link), id) : q;
	}
	assert_non_null(q);
	return (q);
}

/* So many pieces went to the drive. */
static void
until_put(struct rig *r, unsigned puts)
{
	for (int i = 0; i < 1000000 && r->drive[0].count[MKV_DRV_PUT] < puts; i++)
		rig_pump(r);
	assert_int_equal(r->drive[0].count[MKV_DRV_PUT], puts);
}

static void
send_part(struct rig_client *c, uint64_t id, uint64_t off, uint64_t bytes, uint64_t total, int more)
{
	size_t n = rig_put_body(body, "w", off == 0 ? 1 : 0, value, bytes, off, total, 0);

	(void)rig_send(c, MKV_WIRE_PUT, more ? MKV_WIRE_F_MORE : 0, id, body, n, value, bytes);
}

static int
answer(struct rig_client *c)
{
	assert_int_equal(rig_recv(c, RIG_PATIENCE_MS), 1);
	return (-(int)c->f.hdr.status);
}

/* The first part of a put is there; then all but the last part of the largest value is said to be. */
static struct mkv_req *
nearly(struct rig *r, struct rig_client *c, uint64_t id)
{
	uint64_t part = r->f->conf.part_bytes;
	unsigned puts = r->drive[0].count[MKV_DRV_PUT];
	struct mkv_req *q;

	send_part(c, id, 0, part, MKV_WIRE_SIZE_UNKNOWN, 1);
	until_put(r, puts + 1);
	q = request(r, id);
	q->u.put.next_no = (1u << 26) - 1;
	q->u.put.value_bytes = q->u.put.next_no * part;
	return (q);
}

/* The last part of the largest value, and one that goes beyond; sizes that are too large as soon as they are known. */
static void
run_put(struct rig *r, struct rig_client *c)
{
	struct rig_drive *d = &r->drive[0];
	uint64_t part = r->f->conf.part_bytes, most = part << 26;
	unsigned puts;

	assert_true(mkv_front_value_max(r->f) == most);
	rig_fill(value, sizeof(value), 1);
	nearly(r, c, 100);
	send_part(c, 100, most - part, part, most, 0);
	assert_int_equal(answer(c), 0);
	assert_true(manifest_of(d)->bytes == most && manifest_of(d)->piece_count == 1u << 26 && manifest_of(d)->piece_bytes == part);
	nearly(r, c, 101);
	send_part(c, 101, most - part, part, MKV_WIRE_SIZE_UNKNOWN, 1);
	send_part(c, 101, most, 1, most + 1, 0);
	assert_int_equal(answer(c), MKV_E_TOOBIG);
	nearly(r, c, 102);
	send_part(c, 102, most - part, part, MKV_WIRE_SIZE_UNKNOWN, 1);
	send_part(c, 102, most, 0, most, 0);		/* a piece more, of nothing */
	assert_int_equal(answer(c), MKV_E_TOOBIG);
	puts = d->count[MKV_DRV_PUT];
	send_part(c, 103, 0, part, most + 1, 1);
	assert_int_equal(answer(c), MKV_E_TOOBIG);
	assert_int_equal(d->count[MKV_DRV_PUT], puts);
	assert_true(manifest_of(d)->bytes == most);
	rig_put_get(c, "another", 3 * part / 2);
}

/* Each part has a deadline of its own: the put's is the latest one, and the home that keeps the set open hears of it. */
static void
run_long(struct rig *r, struct rig_client *c)
{
	struct rig_drive *d = &r->drive[0];
	uint64_t part = r->f->conf.part_bytes, first, later;
	struct mkv_req *q;

	rig_fill(value, sizeof(value), 1);
	c->deadline_us = 100 * 1000 * 1000;
	send_part(c, 200, 0, part, MKV_WIRE_SIZE_UNKNOWN, 1);
	until_put(r, 1);
	q = request(r, 200);
	first = q->deadline_ns;
	send_part(c, 200, part, part, MKV_WIRE_SIZE_UNKNOWN, 1);
	until_put(r, 2);
	assert_int_equal(d->count[MKV_DRV_SET_NEW], 1);		/* hardly later */
	c->deadline_us = 1000 * 1000 * 1000;
	send_part(c, 200, 2 * part, part, MKV_WIRE_SIZE_UNKNOWN, 1);
	until_put(r, 3);
	later = q->deadline_ns;
	assert_true(later > first + 800 * MKV_NS_PER_SEC && q->timer.at_ns == later);
	rig_pump_ms(r, 1);
	assert_int_equal(d->count[MKV_DRV_SET_NEW], 2);
	assert_int_equal(d->next_set, 1);
	assert_true(d->renewed_until == later);
	c->deadline_us = 10 * 1000 * 1000;
	send_part(c, 200, 3 * part, part, MKV_WIRE_SIZE_UNKNOWN, 1);
	until_put(r, 4);
	assert_true(q->deadline_ns == later);
	send_part(c, 200, 4 * part, part, 5 * part, 0);
	assert_int_equal(answer(c), 0);
	assert_true(manifest_of(d)->bytes == 5 * part);
}

/* The home does not have the set any more: the put ends. */
static void
run_too_late(struct rig *r, struct rig_client *c)
{
	uint64_t part = r->f->conf.part_bytes;

	c->deadline_us = 10 * 1000 * 1000;
	send_part(c, 300, 0, part, MKV_WIRE_SIZE_UNKNOWN, 1);
	until_put(r, 1);
	r->drive[0].force[MKV_DRV_SET_NEW] = MKV_E_BUSY;
	c->deadline_us = 1000 * 1000 * 1000;
	send_part(c, 300, part, part, MKV_WIRE_SIZE_UNKNOWN, 1);
	assert_int_equal(answer(c), MKV_E_BUSY);
	r->drive[0].force[MKV_DRV_SET_NEW] = 0;
	rig_put_get(c, "another", 3 * part / 2);
}

static void
test_read(void **state)
{
	(void)state;
	rig_with(&one, run_read);
}

static void
test_put(void **state)
{
	(void)state;
	rig_with(&one, run_put);
	rig_with(&small, run_put);
}

static void
test_long(void **state)
{
	(void)state;
	rig_with(&small, run_long);
	rig_with(&small, run_too_late);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_read), cmocka_unit_test(test_put), cmocka_unit_test(test_long),
	};

	return (cmocka_run_group_tests(tests, NULL, NULL));
}
