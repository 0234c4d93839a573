/*
 * The front's data path against fake drives: round trips, lists, back-pressure (front_fault_test.c: what fails). rig_close() asserts after each test that no buffer,
 * slot, request or hold is left.
 */
#include "config.h"

#include "tests/unit/front_rig.h"

#include <netinet/in.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "common/base/assert.h"
#include "common/base/crc.h"
#include "common/base/err.h"

static uint8_t *big, *back;
#define BIG	(12u << 20)

static const struct rig_conf confs[] = {
	{ .drives = 1, .kind = MKV_IOQ_POLL },
	{ .drives = 1, .kind = MKV_IOQ_AUTO },
	{ .drives = 4, .kind = MKV_IOQ_AUTO },
	{ .drives = 3, .kind = MKV_IOQ_AUTO, .memory_mode = 1 },
};

static void
test_round_trips(void **state)
{
	static const size_t sizes[] = { 0, 1, 4095, 65536, 65537, 300000, 1 << 20, (1 << 20) + 1, (8 << 20) + 77, BIG };

	(void)state;
	for (unsigned k = 0; k < MKV_ARRAY_LEN(confs); k++) {
		struct rig r;
		struct rig_client c;

		rig_open(&r, &confs[k]);
		rig_client_open(&r, &c);
		rig_client_handshake(&c);
		for (unsigned i = 0; i < MKV_ARRAY_LEN(sizes); i++) {
			char key[32];

			snprintf(key, sizeof(key), "key-%u", i);
			rig_put_get(&c, key, sizes[i]);
		}
		rig_client_close(&c);
		rig_close(&r);
	}
}

static void
test_ranges(void **state)
{
	static const struct { uint64_t off, len; } ranges[] = {
		{ 0, 1 }, { 1, 1 }, { 65535, 2 }, { 65536, 65536 }, { 100, 200000 }, { 1048575, 2 }, { 1048576, 1048576 },
		{ 3 * 1048576 - 5, 2 * 1048576 }, { 0, 0 }, { 5000000, 100 }, { 4999999, 100 }, { 6000000, 10 },
	};

	(void)state;
	for (unsigned k = 0; k < MKV_ARRAY_LEN(confs); k++) {
		const size_t sizes[] = { 1000000, 5000000 };
		struct rig r;
		struct rig_client c;

		rig_open(&r, &confs[k]);
		rig_client_open(&r, &c);
		rig_client_handshake(&c);
		for (unsigned s = 0; s < 2; s++) {
			rig_fill(big, sizes[s], 5);
			assert_int_equal(rig_put(&c, "v", big, sizes[s]), 0);
			for (unsigned i = 0; i < MKV_ARRAY_LEN(ranges); i++) {
				uint64_t off = ranges[i].off, want = off < sizes[s] ? MKV_MIN(ranges[i].len, sizes[s] - off) : 0;
				size_t got;

				assert_int_equal(rig_get(&c, "v", off, ranges[i].len, back, &got), 0);
				assert_int_equal(got, want);
				assert_memory_equal(big + MKV_MIN(off, sizes[s]), back, want);
			}
		}
		rig_client_close(&c);
		rig_close(&r);
	}
}

/* ---- Lists ----------------------------------------------------------------------------------------------------------------- */

static void
lists(struct rig *r, struct rig_client *c)
{
	static uint8_t body[MKV_WIRE_BODY_MAX];
	struct mkv_wire_keys_reply *w = (void *)c->f.body;
	const uint8_t *b = c->f.body + sizeof(*w);
	size_t n;

	for (unsigned i = 0; i < 100; i += 1)
		if (i % 10 != 7) {
			char key[32];

			snprintf(key, sizeof(key), "k%05u", i);
			assert_int_equal(rig_put(c, key, "x", 1), 0);
		}
	n = rig_keys_body(body, "k%05u", 0, 100);
	rig_send(c, MKV_WIRE_EXISTS, 0, 0, body, n, NULL, 0);
	assert_int_equal(rig_recv(c, RIG_PATIENCE_MS), 1);
	assert_int_equal(c->f.hdr.status, 0);
	assert_int_equal(w->n_keys, 100);
	assert_int_equal(w->n_there, 90);
	for (unsigned i = 0; i < 100; i++)
		assert_int_equal(b[i], i % 10 != 7 ? 1 : MKV_REASON_EVICTED << 1);

	rig_send(c, MKV_WIRE_MATCH, 0, 0, body, n, NULL, 0);
	assert_int_equal(rig_recv(c, RIG_PATIENCE_MS), 1);
	assert_int_equal(w->n_there, 7);
	assert_int_equal(w->reason, MKV_REASON_EVICTED);
	assert_int_equal(w->lease_ms, 0);

	/* A lease is what all drives gave. */
	for (int full = 0; full < 2; full++) {
		((struct mkv_wire_keys *)(void *)body)->lease_ms = 5000;
		r->drive[0].lease_full = full;
		rig_send(c, MKV_WIRE_MATCH, 0, 0, body, n, NULL, 0);
		assert_int_equal(rig_recv(c, RIG_PATIENCE_MS), 1);
		assert_int_equal(w->n_there, 7);
		assert_int_equal(w->lease_ms, full ? 0 : 5000);
	}
	r->drive[0].lease_full = 0;
	((struct mkv_wire_keys *)(void *)body)->lease_ms = 0;

	rig_send(c, MKV_WIRE_TOUCH, 0, 0, body, n, NULL, 0);
	assert_int_equal(rig_recv(c, RIG_PATIENCE_MS), 1);
	assert_int_equal(w->n_there, 90);
	rig_send(c, MKV_WIRE_DELETE, 0, 0, body, n, NULL, 0);
	assert_int_equal(rig_recv(c, RIG_PATIENCE_MS), 1);
	assert_int_equal(w->n_there, 90);
	assert_int_equal(b[7], MKV_REASON_NEVER << 1);
	rig_send(c, MKV_WIRE_EXISTS, 0, 0, body, n, NULL, 0);
	assert_int_equal(rig_recv(c, RIG_PATIENCE_MS), 1);
	assert_int_equal(w->n_there, 0);

	n = rig_keys_body(body, "k%05u", 0, 0);
	rig_send(c, MKV_WIRE_EXISTS, 0, 0, body, n, NULL, 0);
	assert_int_equal(rig_recv(c, RIG_PATIENCE_MS), 1);
	assert_int_equal(w->n_keys, 0);
	rig_send(c, MKV_WIRE_DELETE, 0, 0, body, n, NULL, 0);
	assert_int_equal(rig_recv(c, RIG_PATIENCE_MS), 1);
	assert_int_equal(c->f.hdr.status, 0);
}

static void
long_lists(struct rig *r, struct rig_client *c)
{
	static uint8_t body[MKV_WIRE_BODY_MAX];
	struct mkv_wire_keys_reply *w = (void *)c->f.body;
	static const unsigned ops[] = { MKV_WIRE_EXISTS, MKV_WIRE_DELETE };

	(void)r;
	assert_int_equal(rig_put(c, "q65535", "x", 1), 0);
	assert_int_equal(rig_put(c, "q00000", "x", 1), 0);
	for (unsigned o = 0; o < 2; o++) {
		uint64_t id = c->next_id++;
		unsigned got = 0, there = 0;

		for (unsigned i = 0; i < 65536; i += 4096)
			rig_send(c, ops[o], i + 4096 < 65536 ? MKV_WIRE_F_MORE : 0, id, body, rig_keys_body(body, "q%05u", i, 4096), NULL, 0);
		do {
			assert_int_equal(rig_recv(c, RIG_PATIENCE_MS), 1);
			assert_int_equal(c->f.hdr.status, 0);
			assert_int_equal(c->f.hdr.request_id, id);
			for (unsigned i = 0; i < w->n_keys; i++)
				there += c->f.body[sizeof(*w) + i] & 1;
			got += w->n_keys;
			assert_int_equal(w->n_there, 2);
		} while (c->f.hdr.flags & MKV_WIRE_F_MORE);
		assert_int_equal(got, 65536);
		assert_int_equal(there, 2);
	}
	/* One key too many: an error, and its other parts are swallowed. */
	for (unsigned i = 0; i < 17; i++)
		rig_send(c, MKV_WIRE_EXISTS, i < 16 ? MKV_WIRE_F_MORE : 0, 70000, body, rig_keys_body(body, "q%05u", i, 4096), NULL, 0);
	assert_int_equal(rig_recv(c, RIG_PATIENCE_MS), 1);
	assert_int_equal(-(int)c->f.hdr.status, MKV_E_PROTO);
	rig_send(c, MKV_WIRE_PING, 0, 0, NULL, 0, NULL, 0);
	assert_int_equal(rig_recv(c, RIG_PATIENCE_MS), 1);
	assert_int_equal(c->f.hdr.op, MKV_WIRE_PING);
}

static void
small_ops(struct rig *r, struct rig_client *c)
{
	struct mkv_wire_info *info = (void *)c->f.body;
	struct mkv_wire_object *o = (void *)c->f.body;
	struct mkv_wire_list_reply *l = (void *)c->f.body;
	struct mkv_wire_list list = { .max_rows = 7, .prefix_bytes = 2 };
	uint8_t body[64];
	unsigned rows = 0, pages = 0;
	size_t n;

	for (unsigned i = 0; i < 50; i++) {
		char key[32];

		snprintf(key, sizeof(key), "p-%u", i);
		assert_int_equal(rig_put(c, key, "abc", 3), 0);
	}
	assert_int_equal(rig_put(c, "other", "abc", 3), 0);
	n = rig_get_body(body, "p-3", 3, 0, 0);
	rig_send(c, MKV_WIRE_STAT, 0, 0, body, n, NULL, 0);
	assert_int_equal(rig_recv(c, RIG_PATIENCE_MS), 1);
	assert_int_equal(c->f.hdr.status, 0);
	assert_int_equal(o->value_bytes, 3);
	rig_send(c, MKV_WIRE_REPORT, 0, 0, body, n, NULL, 0);
	assert_int_equal(rig_recv(c, RIG_PATIENCE_MS), 1);
	assert_int_equal(c->f.hdr.status, 0);
	rig_send(c, MKV_WIRE_STAT, 0, 0, body, rig_get_body(body, "nono", 4, 0, 0), NULL, 0);
	assert_int_equal(rig_recv(c, RIG_PATIENCE_MS), 1);
	assert_int_equal(-(int)c->f.hdr.status, MKV_E_MISS);
	assert_int_equal(c->f.hdr.reason, MKV_REASON_NEVER);
	rig_send(c, MKV_WIRE_INFO, 0, 0, NULL, 0, NULL, 0);
	assert_int_equal(rig_recv(c, RIG_PATIENCE_MS), 1);
	assert_int_equal(info->drives_online, r->conf.drives);
	assert_int_equal(info->total_bytes, 1000 * r->conf.drives);
	do {
		memcpy(body, &list, sizeof(list));
		memcpy(body + sizeof(list), "p-\0\0\0\0\0\0", 8);
		rig_send(c, MKV_WIRE_LIST, 0, 0, body, sizeof(list) + 8, NULL, 0);
		assert_int_equal(rig_recv(c, RIG_PATIENCE_MS), 1);
		assert_int_equal(c->f.hdr.status, 0);
		rows += l->n_rows;
		list.cursor = l->cursor;
		assert_true(++pages < 100);
	} while (list.cursor != 0);
	assert_int_equal(rows, 50);
}

static struct mkv_drv_writer
writer_of(struct rig *r, struct rig_client *c, size_t bytes)
{
	r->drive[0].writer_seen.session = 0;
	rig_fill(big, (uint32_t)bytes, 3);
	assert_int_equal(rig_put(c, "w", big, bytes), 0);
	assert_true(c->session != 0);
	assert_true(r->drive[0].writer_seen.session == c->session);
	assert_int_equal(r->drive[0].writer_seen.key_id, RIG_KEY_ID);
	return (r->drive[0].writer_seen);
}

/* Drives hear whose connection a put came by, whole and in parts. */
static void
writers(struct rig *r, struct rig_client *c)
{
	static const uint8_t none[16], four[16] = { [10] = 0xff, 0xff, 10, 1, 2, 3 };
	static struct rig_client other;
	struct sockaddr_storage from = { 0 };
	struct sockaddr_in *in = (struct sockaddr_in *)&from;
	struct sockaddr_in6 *in6 = (struct sockaddr_in6 *)&from;
	struct mkv_drv_writer w = writer_of(r, c, 5000);

	assert_memory_equal(w.addr, none, 16);
	assert_int_equal(w.port, 0);
	in->sin_family = AF_INET;
	in->sin_port = htons(4000);
	in->sin_addr.s_addr = htonl(0x0a010203);
	r->from = &from;
	rig_client_open(r, &other);
	rig_client_handshake(&other);
	w = writer_of(r, &other, 3u << 20);
	assert_memory_equal(w.addr, four, 16);
	assert_int_equal(w.port, 4000);
	rig_client_close(&other);
	memset(&from, 0, sizeof(from));
	in6->sin6_family = AF_INET6;
	in6->sin6_port = htons(4001);
	in6->sin6_addr.s6_addr[0] = 0x20;
	rig_client_open(r, &other);
	rig_client_handshake(&other);
	w = writer_of(r, &other, 5000);
	assert_memory_equal(w.addr, &in6->sin6_addr, 16);
	assert_int_equal(w.port, 4001);
	rig_client_close(&other);
	r->from = NULL;
}

/* Many in flight, answers in any order; more requests than contexts, slots or ring slots: all are answered. */
static void
many_in_flight(struct rig *r, struct rig_client *c)
{
	uint8_t body[64];
	unsigned seen = 0;

	(void)r;
	for (unsigned i = 0; i < 20; i++) {
		char key[32];

		snprintf(key, sizeof(key), "m%u", i);
		rig_fill(big, 5000, i);
		assert_int_equal(rig_put(c, key, big, 5000), 0);
	}
	for (unsigned i = 0; i < 500; i++) {
		char key[32];

		snprintf(key, sizeof(key), "m%u", i % 25);
		rig_send(c, MKV_WIRE_GET, 0, 1000 + i, body, rig_get_body(body, key, strlen(key), 0, 5000), NULL, 0);
	}
	while (seen < 500) {
		unsigned i;

		assert_int_equal(rig_recv(c, RIG_PATIENCE_MS), 1);
		i = (unsigned)(c->f.hdr.request_id - 1000) % 25;
		assert_int_equal(-(int)c->f.hdr.status, i < 20 ? 0 : MKV_E_MISS);
		if (i < 20) {
			rig_fill(big, 5000, i);
			assert_memory_equal(big, c->f.payload, 5000);
		}
		seen++;
	}
}

static void
run_on_all(void (*fn)(struct rig *, struct rig_client *))
{
	for (unsigned k = 0; k < MKV_ARRAY_LEN(confs); k++)
		rig_with(&confs[k], fn);
}

static void
test_lists(void **state)
{
	(void)state;
	run_on_all(lists);
	run_on_all(long_lists);
}

static void
test_small_ops(void **state)
{
	(void)state;
	run_on_all(small_ops);
}

static void
test_many_in_flight(void **state)
{
	const struct rig_conf tight = { .drives = 2, .kind = MKV_IOQ_AUTO, .slots = 3, .requests = 5, .stage_bytes = 1 << 20 };

	(void)state;
	run_on_all(many_in_flight);
	rig_with(&tight, many_in_flight);
}

static int
setup(void **state)
{
	(void)state;
	big = malloc(BIG);
	back = malloc(BIG);
	return (0);
}

static int
teardown(void **state)
{
	(void)state;
	free(big);
	free(back);
	return (0);
}

/* A drive was added: what its keys' former home lacks says nothing about the next key that the same slot of a request is used for. */
static void
misses_between(struct rig *r, struct rig_client *c)
{
	char key[32];
	size_t got;

	r->map[0].former = 1;
	assert_int_equal(mkv_front_map(r->f, 2, r->map, r->conf.drives), 0);
	assert_true(r->f->has_former);
	for (unsigned i = 0; i < 16; i++) {
		snprintf(key, sizeof(key), "there-%u", i);
		assert_int_equal(rig_put(c, key, big, 100), 0);
	}
	/* Slots are used in turn, and their number is no multiple of three. */
	for (unsigned i = 0; i < 160; i++) {
		for (unsigned k = 0; k < 2; k++) {
			snprintf(key, sizeof(key), "not-there-%u", 2 * i + k);
			assert_int_equal(rig_get(c, key, 0, 100, back, &got), MKV_E_MISS);
		}
		snprintf(key, sizeof(key), "there-%u", i % 16);
		assert_int_equal(rig_get(c, key, 0, 100, back, &got), 0);
	}
}

static void
test_misses_at_former_homes(void **state)
{
	static const struct rig_conf conf = { .drives = 2, .kind = MKV_IOQ_AUTO, .requests = 8 };

	(void)state;
	rig_with(&conf, misses_between);
}

static void
test_writers(void **state)
{
	static const struct rig_conf one = { .drives = 1, .kind = MKV_IOQ_AUTO }, mem = { .drives = 1, .kind = MKV_IOQ_AUTO, .memory_mode = 1 };

	(void)state;
	rig_with(&one, writers);
	rig_with(&mem, writers);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_round_trips),
		cmocka_unit_test(test_ranges),
		cmocka_unit_test(test_lists),
		cmocka_unit_test(test_small_ops),
		cmocka_unit_test(test_writers),
		cmocka_unit_test(test_many_in_flight),
		cmocka_unit_test(test_misses_at_former_homes),
	};

	return (cmocka_run_group_tests(tests, setup, teardown));
}
