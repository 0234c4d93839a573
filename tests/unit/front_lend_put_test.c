/*
 * Puts that drives take straight from regions (verify_put off): which bytes, that nobody else looks at them, and how long a client's memory stays out. A front with fake drives
 * (front_rig.h).
 */
#include "config.h"

#include "tests/unit/front_lend_up.h"

#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

#include <cmocka.h>

#include "common/base/crc.h"
#include "common/base/err.h"

static unsigned
direct_puts(const struct rig *r)
{
	return (r->drive[0].direct_puts + r->drive[1].direct_puts);
}

static void
send_part(struct rig_client *c, uint64_t id, const char *key, uint64_t at, uint64_t bytes, uint64_t total, uint64_t off, uint32_t flags)
{
	struct mkv_wire_seg s = { off + at, (uint32_t)bytes, 1 };
	int more = at + bytes < total;
	uint8_t body[2048];
	size_t b = rig_put_body(body, key, at == 0 ? strlen(key) : 0, value + at, bytes, at, more ? MKV_WIRE_SIZE_UNKNOWN : total, flags);

	send_put(c, id, more ? MKV_WIRE_F_MORE : 0, body, b, bytes, &s, 1);
}

/* value[0, n) from region 1, where it lies at off; each part is one segment. */
static uint64_t
begin(struct rig_client *c, const struct memory *m, const char *key, uint64_t n, uint64_t off, uint32_t flags)
{
	uint64_t id = c->next_id++, at = 0;

	memcpy(m->p + off, value, n);
	do {
		send_part(c, id, key, at, MKV_MIN(n - at, (uint64_t)PART), n, off, flags);
		at += MKV_MIN(n - at, (uint64_t)PART);
	} while (at < n);
	return (id);
}

static int
put(struct rig_client *c, const struct memory *m, const char *key, uint64_t n, uint64_t off)
{
	return (answer(c, begin(c, m, key, n, off, 0)));
}

/* By the socket, so that no region has a part in it. */
static void
has(struct rig_client *c, const char *key, uint64_t n)
{
	static uint8_t got[sizeof(value)];
	size_t len = 0;

	assert_int_equal(rig_get(c, key, 0, UINT64_MAX, got, &len), 0);
	assert_int_equal(len, n);
	assert_memory_equal(got, value, n);
}

/* Objects with bytes, and how many of them somebody has checked. */
static unsigned
objects(const struct rig *r, unsigned *verified)
{
	unsigned n = 0;

	*verified = 0;
	for (unsigned d = 0; d < 2; d++)
		for (unsigned i = 0; i < RIG_OBJECTS; i++) {
			const struct rig_object *o = &r->drive[d].obj[i];

			n += (unsigned)o->used;
			*verified += o->used && o->verified;
		}
	return (n);
}

static unsigned
holder(const struct rig *r)
{
	return (r->drive[0].n_held > 0 ? 0 : 1);
}

static void
with(int verify_put, void (*fn)(struct rig *, struct rig_client *))
{
	with_front(0, verify_put, fn);
}

/* The whole blocks of each part by its drive, the rest by the front, and nothing counts as checked: the object, its pieces, nor their manifest. */
static void
run_sizes(struct rig *r, struct rig_client *c)
{
	static const uint64_t sizes[] = { CHUNK, CHUNK + 1, 100000, CHUNK + 4095, PART - 1, PART, PART + CHUNK, 2 * PART, sizeof(value) + CHUNK - 777 - PART, 3 * PART };
	struct memory m = stable(r, c, 1);
	unsigned verified;

	for (unsigned i = 0; i < MKV_ARRAY_LEN(sizes); i++) {
		uint64_t n = sizes[i], copied = metric(r, MKV_M_front_region_put_bytes_total), straight = metric(r, MKV_M_front_region_direct_put_bytes_total);
		unsigned before = direct_puts(r);
		char key[16];

		snprintf(key, sizeof(key), "k%u", i);
		rig_fill(value, n, (uint32_t)n + 1);
		assert_int_equal(put(c, &m, key, n, 4096 * i), 0);
		has(c, key, n);
		assert_int_equal(direct_puts(r) - before, MKV_DIV_UP(n, PART));
		assert_int_equal(metric(r, MKV_M_front_region_direct_put_bytes_total) - straight, n / 4096 * 4096);
		assert_int_equal(metric(r, MKV_M_front_region_put_bytes_total) - copied, n % 4096);
	}
	assert_true(objects(r, &verified) >= MKV_ARRAY_LEN(sizes));
	assert_int_equal(verified, 0);
	assert_int_equal(metric(r, MKV_M_front_errors_total) + metric(r, MKV_M_front_crc_failures_total), 0);
	memory_free(&m);
}

static void
test_sizes(void **state MKV_UNUSED)
{
	with(0, run_sizes);
}

/* The front looks at no whole block: it could not. */
static void
run_untouched(struct rig *r, struct rig_client *c)
{
	const uint64_t whole = 25 * 4096;
	struct memory m = stable(r, c, 1);
	struct mkv_region *g = MKV_CONTAINER_OF(r->f->regions_used.next, struct mkv_region, used);

	rig_fill(value, whole + 77, 1);
	assert_int_equal(mprotect((uint8_t *)g->base + 8192, whole, PROT_NONE), 0);
	assert_int_equal(put(c, &m, "k", whole + 77, 8192), 0);
	has(c, "k", whole + 77);
	assert_int_equal(direct_puts(r), 1);
	memory_free(&m);
}

static void
test_untouched(void **state MKV_UNUSED)
{
	with(0, run_untouched);
}

/* The default: every byte is looked at before a drive has it. */
static void
run_verified(struct rig *r, struct rig_client *c)
{
	struct memory m = stable(r, c, 1);
	unsigned verified, n;
	uint64_t id;

	rig_fill(value, 2 * PART, 5);
	assert_int_equal(put(c, &m, "k", PART, 0), 0);
	assert_int_equal(put(c, &m, "l", 2 * PART, 0), 0);
	has(c, "l", 2 * PART);
	n = objects(r, &verified);
	assert_int_equal(verified, n);
	id = c->next_id++;
	m.p[70000] ^= 1;
	send_part(c, id, "m", 0, PART, PART, 0, 0);
	assert_int_equal(answer(c, id), MKV_E_CORRUPT);
	assert_int_equal(direct_puts(r), 0);
	assert_int_equal(metric(r, MKV_M_front_region_direct_put_bytes_total), 0);
	memory_free(&m);
}

static void
test_verified(void **state MKV_UNUSED)
{
	with(1, run_verified);
}

/* What goes by the stage all the same, and is checked there: addresses on no boundary, several segments, small values, CRCs that the server makes. */
static void
run_copied(struct rig *r, struct rig_client *c)
{
	struct memory m = stable(r, c, 1);
	unsigned verified, n;

	rig_fill(value, 2 * PART, 9);
	for (uint64_t off = 1; off < 4096; off += 1023)
		assert_int_equal(put(c, &m, "edge", PART, off), 0);
	has(c, "edge", PART);
	memcpy(m.p, value, PART);
	assert_int_equal(answer(c, begin_put(c, "cut", value, PART, 0, 1)), 0);
	has(c, "cut", PART);
	assert_int_equal(put(c, &m, "small", CHUNK - 1, 0), 0);
	has(c, "small", CHUNK - 1);
	assert_int_equal(answer(c, begin(c, &m, "no crc", PART, 0, MKV_WIRE_PUT_NO_CRC)), 0);
	has(c, "no crc", PART);
	assert_int_equal(direct_puts(r), 0);
	n = objects(r, &verified);
	assert_int_equal(verified, n);
	memory_free(&m);
}

static void
test_copied(void **state MKV_UNUSED)
{
	with(0, run_copied);
}

/* Memory that a client does not promise to keep still: a put may come from there, no get goes there. Drives are shown it as soon as nobody verifies. */
static void
run_unstable(struct rig *r, struct rig_client *c)
{
	struct memory m = memory_of(ROOM);
	struct mkv_front_conf conf = r->f->conf;

	assert_int_equal(region_with(c, 1, ROOM, m.fd, 0), 0);
	rig_pump_ms(r, 5);
	assert_int_equal(r->drive[0].n_lent + r->drive[0].n_ask, 0);
	conf.verify_put = 0;
	mkv_front_reload(r->f, &conf);
	lent(r, 1);
	rig_fill(value, 2 * PART, 9);
	assert_int_equal(put(c, &m, "k", 2 * PART, 0), 0);
	has(c, "k", 2 * PART);
	assert_int_equal(direct_puts(r), 2);
	memset(m.p, GUARD, ROOM);
	assert_int_equal(end_get(c, get(c, "k", 0, 2 * PART)), 2 * PART);
	only(&m, 0, value, 2 * PART);
	assert_int_equal(direct(r), 0);
	conf.verify_put = 1;
	mkv_front_reload(r->f, &conf);
	assert_int_equal(put(c, &m, "k", 2 * PART, 0), 0);
	assert_int_equal(direct_puts(r), 2);
	memory_free(&m);
}

static void
test_unstable(void **state MKV_UNUSED)
{
	with(1, run_unstable);
}

/* A drive that could not write from there: the client is told to try again, and then it goes by the stage, with that drive. */
static void
run_refused(struct rig *r, struct rig_client *c)
{
	struct memory m = stable(r, c, 1);

	rig_fill(value, PART + 5, 3);
	r->drive[0].force[MKV_DRV_PUT] = r->drive[1].force[MKV_DRV_PUT] = MKV_E_UNSUPPORTED;
	assert_int_equal(put(c, &m, "k", PART, 0), MKV_E_RETRY);
	r->drive[0].force[MKV_DRV_PUT] = r->drive[1].force[MKV_DRV_PUT] = 0;
	assert_int_equal(put(c, &m, "k", PART, 0), 0);
	assert_int_equal(direct_puts(r), 0);
	has(c, "k", PART);
	for (unsigned i = 0; i < 2; i++) {
		rig_drive_kill(r, i);
		rig_drive_up(r, i, 12);
	}
	lent(r, 1);
	assert_int_equal(put(c, &m, "k", PART, 0), 0);	/* another life may be able to */
	assert_int_equal(direct_puts(r), 1);
	memory_free(&m);
}

static void
test_refused(void **state MKV_UNUSED)
{
	with(0, run_refused);
}

/* A drive that hangs: the answer stays away with the memory, whatever the deadline and whatever the client says, and nobody else's does. */
static void
run_hung(struct rig *r, struct rig_client *c)
{
	struct memory m = stable(r, c, 1);
	uint64_t id;

	rig_fill(value, PART, 3);
	hold(r, 1);
	c->deadline_us = 10000000;
	id = begin(c, &m, "k", PART, 0, 0);
	held(r, 1);
	r->ahead_ns += 20 * MKV_NS_PER_SEC;
	assert_int_equal(rig_recv(c, 20), 0);
	assert_int_equal(metric(r, MKV_M_front_expired_total), 1);
	c->deadline_us = 600000000;
	assert_int_equal(answer(c, rig_send(c, MKV_WIRE_PING, 0, 0, NULL, 0, NULL, 0)), 0);
	hold(r, 0);
	assert_int_equal(answer(c, id), MKV_E_TIMEOUT);
	hold(r, 1);
	id = begin(c, &m, "k", PART, 0, 0);
	held(r, 1);
	cancel_held(r, c, id);
	memory_free(&m);
}

static void
test_hung(void **state MKV_UNUSED)
{
	with(0, run_hung);
}

static void
run_dropped(struct rig *r, struct rig_client *c)
{
	struct memory m = stable(r, c, 1);
	uint64_t id, put_id;

	rig_fill(value, PART, 3);
	hold(r, 1);
	put_id = begin(c, &m, "k", PART, 0, 0);
	held(r, 1);
	id = begin_drop(c, 1);
	assert_int_equal(rig_recv(c, 20), 0);
	assert_int_equal(r->f->n_regions, 1);
	hold(r, 0);
	assert_int_equal(answer(c, put_id), 0);
	assert_int_equal(answer(c, id), 0);
	assert_int_equal(r->f->n_regions, 0);
	has(c, "k", PART);
	memory_free(&m);
}

static void
test_dropped(void **state MKV_UNUSED)
{
	with(0, run_dropped);
}

/* A drive dies with a client's memory: the answer waits until its I/O is over. Then the client sends it again, and by whatever way there is. */
static void
run_died(struct rig *r, struct rig_client *c)
{
	struct memory m = stable(r, c, 1);
	unsigned at;
	uint64_t id;

	rig_fill(value, PART, 3);
	hold(r, 1);
	id = begin(c, &m, "k", PART, 0, 0);
	held(r, 1);
	at = holder(r);
	r->drive[0].hold = r->drive[1].hold = 0;
	rig_drive_kill(r, at);
	r->drive[at].lend_hold = 1;
	rig_drive_up(r, at, 12);
	assert_int_equal(rig_recv(c, 20), 0);
	mkv_front_drive_drained(r->f, at, 9);		/* not that life */
	assert_int_equal(rig_recv(c, 20), 0);
	assert_int_equal(r->drive[at].count[MKV_DRV_PUT], 1);
	mkv_front_drive_drained(r->f, at, 11);
	assert_int_equal(answer(c, id), MKV_E_RETRY);
	assert_int_equal(put(c, &m, "k", PART, 0), 0);
	assert_int_equal(direct_puts(r), 0);
	has(c, "k", PART);
	r->drive[at].lend_hold = 0;
	lent(r, 1);
	assert_int_equal(put(c, &m, "k", PART, 0), 0);
	assert_int_equal(direct_puts(r), 1);
	memory_free(&m);
}

static void
test_died(void **state MKV_UNUSED)
{
	with(0, run_died);
}

/* The same with a piece: all of the put ends, and what others have of it is dropped. */
static void
run_died_in_pieces(struct rig *r, struct rig_client *c)
{
	struct memory m = stable(r, c, 1);
	uint64_t id = c->next_id++;
	unsigned at, verified;

	rig_fill(value, 2 * PART, 3);
	memcpy(m.p, value, 2 * PART);
	send_part(c, id, "k", 0, PART, 2 * PART, 0, 0);
	for (unsigned i = 0; i < RIG_PATIENCE_MS && direct_puts(r) == 0; i++)
		rig_pump_ms(r, 1);
	hold(r, 1);
	send_part(c, id, "k", PART, PART, 2 * PART, 0, 0);
	held(r, 1);
	at = holder(r);
	r->drive[0].hold = r->drive[1].hold = 0;
	rig_drive_kill(r, at);
	assert_int_equal(rig_recv(c, 20), 0);
	rig_drive_up(r, at, 12);
	mkv_front_drive_drained(r->f, at, 11);
	assert_int_equal(answer(c, id), MKV_E_RETRY);
	rig_pump_ms(r, 5);
	assert_int_equal(objects(r, &verified), 0);
	assert_int_equal(put(c, &m, "k", 2 * PART, 0), 0);
	has(c, "k", 2 * PART);
	memory_free(&m);
}

static void
test_died_in_pieces(void **state MKV_UNUSED)
{
	with(0, run_died_in_pieces);
}

/* A client that is gone in the middle, then its drive as well: the memory counts, and is lent, until that is over. */
static void
run_killed(struct rig *r, struct rig_client *c)
{
	struct rig_client other;
	struct memory m;

	for (unsigned died = 0; died < 2; died++) {
		unsigned at;

		rig_client_open(r, &other);
		rig_client_handshake(&other);
		m = stable(r, &other, 1);
		rig_fill(value, PART, 3);
		hold(r, 1);
		(void)begin(&other, &m, "k", PART, 0, 0);
		held(r, 1);
		at = holder(r);
		rig_client_close(&other);
		rig_pump_ms(r, 10);
		assert_int_equal(r->f->n_regions, 1);
		assert_int_equal(r->f->regions_bytes, 2 * ROOM);
		if (died) {
			r->drive[0].hold = r->drive[1].hold = 0;
			rig_drive_kill(r, at);
			rig_drive_up(r, at, 12);
			rig_pump_ms(r, 10);
			assert_int_equal(r->f->n_regions, 1);
			mkv_front_drive_drained(r->f, at, 11);
		} else
			hold(r, 0);
		for (unsigned i = 0; i < RIG_PATIENCE_MS && (r->f->n_regions != 0 || r->f->n_reqs != 0); i++)
			rig_pump_ms(r, 1);
		assert_int_equal(r->f->n_regions + r->f->n_reqs, 0);
		rig_put_get(c, "goes on", 100000);
		memory_free(&m);
	}
}

static void
test_killed(void **state MKV_UNUSED)
{
	with(0, run_killed);
}

/* It waits for a buffer for its rest, and its drive dies meanwhile: the next life does not have the memory yet, so it goes by the stage. */
static void
run_parked(struct rig *r, struct rig_client *c)
{
	static struct mkv_buf taken[65536];
	struct memory m = stable(r, c, 1);
	unsigned n = 0;
	uint64_t id;

	while (n < MKV_ARRAY_LEN(taken) && mkv_buf_take(r->f->stage, MKV_STAGE_UNIT, &taken[n]) == 0)
		n++;
	assert_true(n > 0 && n < MKV_ARRAY_LEN(taken));
	rig_fill(value, PART - 1, 3);
	id = begin(c, &m, "k", PART - 1, 0, 0);
	assert_int_equal(rig_recv(c, 20), 0);
	for (unsigned i = 0; i < 2; i++) {
		rig_drive_kill(r, i);
		r->drive[i].lend_hold = 1;
		rig_drive_up(r, i, 12);
	}
	while (n > 0)
		mkv_buf_drop(r->f->stage, &taken[--n]);
	r->f->park_bufs.wake = 1;
	assert_int_equal(answer(c, id), 0);
	has(c, "k", PART - 1);
	assert_int_equal(direct_puts(r), 0);
	r->drive[0].lend_hold = r->drive[1].lend_hold = 0;
	lent(r, 1);
	memory_free(&m);
}

static void
test_parked(void **state MKV_UNUSED)
{
	with(0, run_parked);
}

/* Those that no drive has been given when it dies: the memory is not out, so they need not wait for the others'. */
static void
run_died_unasked(struct rig *r, struct rig_client *c)
{
	struct memory m = stable(r, c, 1);
	unsigned at, out = 0;

	rig_fill(value, PART - 1, 3);
	r->drive[0].stopped = r->drive[1].stopped = 1;
	for (unsigned i = 0; i < 20; i++)
		(void)begin(c, &m, "k", PART - 1, 0, 0);
	rig_pump_ms(r, 5);
	at = mkv_list_empty(&r->f->drive[0].given) ? 1 : 0;
	MKV_LIST_FOREACH(it, &r->f->drive[at].given)
		out++;
	assert_true(out > 0 && out < 20);
	rig_drive_kill(r, at);
	r->drive[at].lend_hold = 1;
	r->drive[0].stopped = r->drive[1].stopped = 0;
	rig_drive_up(r, at, 12);
	for (unsigned i = 0; i < 20; i++) {
		if (i == 20 - out) {
			assert_int_equal(rig_recv(c, 20), 0);
			mkv_front_drive_drained(r->f, at, 11);
		}
		assert_int_equal(rig_recv(c, RIG_PATIENCE_MS), 1);
		assert_int_equal(-(int)c->f.hdr.status, MKV_E_RETRY);
	}
	r->drive[at].lend_hold = 0;
	lent(r, 1);
	assert_int_equal(put(c, &m, "k", PART - 1, 0), 0);
	has(c, "k", PART - 1);
	memory_free(&m);
}

static void
test_died_unasked(void **state MKV_UNUSED)
{
	with(0, run_died_unasked);
}

/* A put that began by the socket: what no drive has been given of its memory is not waited for either. */
static void
run_mixed(struct rig *r, struct rig_client *c)
{
	struct memory m = stable(r, c, 1);
	uint64_t id = c->next_id++;
	struct rig_client other;
	uint8_t body[2048];
	unsigned n = 0;

	rig_client_open(r, &other);
	rig_client_handshake(&other);
	assert_int_equal(region_with(&other, 1, ROOM, m.fd, MKV_WIRE_REGION_STABLE), 0);
	lent(r, 2);
	rig_fill(value, 2 * PART, 3);
	memcpy(m.p, value, 2 * PART);
	c->deadline_us = 10000000;
	(void)rig_send(c, MKV_WIRE_PUT, MKV_WIRE_F_MORE, id, body, rig_put_body(body, "mixed", 5, value, PART, 0, MKV_WIRE_SIZE_UNKNOWN, 0), value, PART);
	for (unsigned i = 0; i < RIG_PATIENCE_MS && r->drive[0].count[MKV_DRV_PUT] + r->drive[1].count[MKV_DRV_PUT] == 0; i++)
		rig_pump_ms(r, 1);
	r->drive[0].stopped = r->drive[1].stopped = 1;
	c->deadline_us = 600000000;
	for (; mkv_list_empty(&r->f->drive[0].pending) || mkv_list_empty(&r->f->drive[1].pending); n++) {
		char key[16];

		assert_true(n < 56);
		snprintf(key, sizeof(key), "k%u", n);
		(void)begin(n % 2 ? c : &other, &m, key, CHUNK, 0, 0);
		rig_pump_ms(r, 1);
	}
	c->deadline_us = 10000000;
	send_part(c, id, "mixed", PART, PART, 2 * PART, 0, 0);
	rig_pump_ms(r, 5);
	r->ahead_ns += 20 * MKV_NS_PER_SEC;
	assert_int_equal(answer(c, id), MKV_E_TIMEOUT);
	c->deadline_us = 600000000;
	r->drive[0].stopped = r->drive[1].stopped = 0;
	for (unsigned i = 0; i < n; i++) {
		struct rig_client *of = i % 2 ? c : &other;

		assert_int_equal(rig_recv(of, RIG_PATIENCE_MS), 1);
		assert_int_equal(of->f.hdr.status, 0);
	}
	rig_client_close(&other);
	memory_free(&m);
}

static void
test_mixed(void **state MKV_UNUSED)
{
	with(0, run_mixed);
}

/* Holes in the last block: its bytes are what is there, zeroes; the drive's own memory of the others is its own matter. Nothing ends. */
static void
run_punched(struct rig *r, struct rig_client *c)
{
	struct memory m = stable(r, c, 1);
	uint64_t id = c->next_id++;
	uint8_t got[CHUNK + 9];
	size_t len;

	rig_fill(value, CHUNK + 9, 3);
	memcpy(m.p, value, CHUNK);
	assert_int_equal(fallocate(m.fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, CHUNK, 4096), 0);
	send_part(c, id, "k", 0, CHUNK + 9, CHUNK + 9, 0, 0);
	assert_int_equal(answer(c, id), 0);
	memset(value + CHUNK, 0, 9);
	assert_int_equal(rig_get(c, "k", 0, UINT64_MAX, got, &len), 0);
	assert_int_equal(len, CHUNK + 9);
	assert_memory_equal(got, value, CHUNK + 9);
	memory_free(&m);
}

static void
test_punched(void **state MKV_UNUSED)
{
	with(0, run_punched);
}

/* Where the pieces go is known when the home has answered; until then nothing else of the session waits. */
static void
run_set_late(struct rig *r, struct rig_client *c)
{
	struct memory m = stable(r, c, 1);
	uint64_t id;

	rig_fill(value, 2 * PART + 5, 3);
	hold(r, 1);
	id = begin(c, &m, "k", 2 * PART + 5, 0, 0);
	held(r, 1);
	assert_int_equal(answer(c, rig_send(c, MKV_WIRE_PING, 0, 0, NULL, 0, NULL, 0)), 0);
	hold(r, 0);
	assert_int_equal(answer(c, id), 0);
	has(c, "k", 2 * PART + 5);
	assert_int_equal(direct_puts(r), 2);
	memory_free(&m);
}

static void
test_set_late(void **state MKV_UNUSED)
{
	with(0, run_set_late);
}

/* One of the drives that it may go to does not have the memory: then by the stage, and it need not be sent again. */
static void
run_set_late_elsewhere(struct rig *r, struct rig_client *c)
{
	struct memory m = stable(r, c, 1);

	rig_drive_kill(r, 1);
	r->drive[1].lend_hold = 1;
	rig_drive_up(r, 1, 12);
	rig_fill(value, 2 * PART, 3);
	for (unsigned i = 0; i < 8; i++) {
		char key[16];
		uint64_t id;

		snprintf(key, sizeof(key), "k%u", i);
		hold(r, 1);
		id = begin(c, &m, key, 2 * PART, 0, 0);
		held(r, 1);
		rig_pump_ms(r, 2);
		hold(r, 0);
		assert_int_equal(answer(c, id), 0);
		has(c, key, 2 * PART);
	}
	r->drive[1].lend_hold = 0;
	lent(r, 1);
	memory_free(&m);
}

static void
test_set_late_elsewhere(void **state MKV_UNUSED)
{
	with(0, run_set_late_elsewhere);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_sizes),
		cmocka_unit_test(test_untouched),
		cmocka_unit_test(test_verified),
		cmocka_unit_test(test_copied),
		cmocka_unit_test(test_unstable),
		cmocka_unit_test(test_refused),
		cmocka_unit_test(test_hung),
		cmocka_unit_test(test_dropped),
		cmocka_unit_test(test_died),
		cmocka_unit_test(test_died_in_pieces),
		cmocka_unit_test(test_killed),
		cmocka_unit_test(test_parked),
		cmocka_unit_test(test_died_unasked),
		cmocka_unit_test(test_mixed),
		cmocka_unit_test(test_punched),
		cmocka_unit_test(test_set_late),
		cmocka_unit_test(test_set_late_elsewhere),
	};

	mkv_crc_init();
	return (cmocka_run_group_tests(tests, NULL, NULL));
}
