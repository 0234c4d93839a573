/*
 * The front's data path when something fails: deadlines, drives that die, lie or never answer, clients that cancel or go (front_stall_test.c: that stall), values that
 * never fit.
 * rig_close() asserts after each test that no buffer, slot, request or hold is left.
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
#include "common/base/crc.h"
#include "common/base/err.h"

static uint8_t *big, *back;
#define BIG	(12u << 20)

static int
answer_of(struct rig_client *c, uint64_t id)
{
	assert_int_equal(rig_recv(c, RIG_PATIENCE_MS), 1);
	assert_int_equal(c->f.hdr.request_id, id);
	return (-(int)c->f.hdr.status);
}

static uint64_t
send_put(struct rig_client *c, const char *key, size_t n, unsigned flags)
{
	uint8_t body[1024];

	return (rig_send(c, MKV_WIRE_PUT, 0, 0, body, rig_put_body(body, key, strlen(key), big, n, 0, n, flags), big, n));
}

static uint64_t
send_get(struct rig_client *c, const char *key)
{
	uint8_t body[1024];

	return (rig_send(c, MKV_WIRE_GET, 0, 0, body, rig_get_body(body, key, strlen(key), 0, 1 << 20), NULL, 0));
}

/* The drive has the n-th request that it holds, however long that takes; then the deadline passes. */
static void
times_out(struct rig *r, struct rig_client *c, uint64_t id, unsigned n)
{
	for (unsigned i = 0; i < RIG_PATIENCE_MS / 4 && r->drive[0].n_held < n; i++)
		rig_pump_ms(r, 1);
	assert_int_equal(r->drive[0].n_held, n);
	r->ahead_ns = c->deadline_us * MKV_NS_PER_US;
	assert_int_equal(answer_of(c, id), MKV_E_TIMEOUT);
	r->ahead_ns = 0;
}

/* The drive never answers: the client hears TIMEOUT, slot and buffers stay the drive's until it does. */
static void
fault_timeout(struct rig *r, struct rig_client *c)
{
	struct mkv_stage_stat st;

	c->deadline_us = RIG_PATIENCE_MS * 1000 / 3;
	r->drive[0].hold = 1;
	rig_fill(big, 300000, 1);
	times_out(r, c, send_put(c, "slow", 300000, 0), 1);
	mkv_stage_stat(r->stage, &st);
	if (!r->conf.memory_mode)
		assert_true(st.drive_bytes >= 300000);
	assert_int_equal(r->f->n_reqs, 1);
	times_out(r, c, send_get(c, "slow"), 2);
	assert_int_equal(c->f.hdr.reason, MKV_REASON_TIMED_OUT);
	rig_drive_answer_held(&r->drive[0]);
	rig_pump_ms(r, 5);
	assert_int_equal(r->f->n_reqs, 0);
	assert_true(mkv_metric_get(r->m, MKV_M_front_answers_late_total, 0) >= 1);
	c->deadline_us = RIG_PATIENCE_MS * 1000;
	rig_put_get(c, "after", 1000);
}

/* A drive that stays away: requests wait for it inside their deadline, and are served by the new process. */
static void
fault_restart(struct rig *r, struct rig_client *c)
{
	struct mkv_stage_stat st;
	uint64_t put, get, get2;

	rig_fill(big, 200000, 1);
	assert_int_equal(rig_put(c, "there", big, 200000), 0);
	r->drive[0].hold = 1;
	put = send_put(c, "lost", 200000, 0);
	get = send_get(c, "there");
	rig_pump_ms(r, 5);
	rig_map(r, 0, MKV_DRIVE_RESTARTING);
	rig_drive_kill(r, 0);
	assert_int_equal(answer_of(c, put), MKV_E_RETRY);
	get2 = send_get(c, "there");
	rig_pump_ms(r, 5);
	mkv_stage_stat(r->stage, &st);
	if (!r->conf.memory_mode)
		assert_true(st.quarantined_bytes >= 400000);
	/* In memory mode the get is still behind the put's bytes, which wait for their run. */
	assert_int_equal(st.slots_quarantined, r->conf.memory_mode ? 1 : 2);
	r->drive[0].hold = 0;
	rig_drive_up(r, 0, 11);
	rig_map(r, 0, MKV_DRIVE_ONLINE);
	assert_int_equal(rig_recv(c, RIG_PATIENCE_MS), 1);
	assert_int_equal(c->f.hdr.status, 0);
	assert_true(c->f.hdr.request_id == get || c->f.hdr.request_id == get2);
	assert_int_equal(rig_recv(c, RIG_PATIENCE_MS), 1);
	assert_int_equal(c->f.hdr.status, 0);
	mkv_front_drive_drained(r->f, 0, 10);
	mkv_stage_stat(r->stage, &st);
	assert_int_equal(st.quarantined_bytes, 0);
	rig_put_get(c, "after", 70000);
}

/* What a dead process still has under I/O: the requests that it held, as they were when it died. */
struct dying {
	struct mkv_drv_req q[2];
	unsigned	n;
	size_t		bytes;			/* of the put's value */
};

static void
dying_begin(struct dying *y, struct rig *r, size_t bytes)
{
	struct rig_drive *d = &r->drive[0];

	assert_int_equal(d->n_held, MKV_ARRAY_LEN(y->q));
	for (y->n = 0; y->n < d->n_held; y->n++)
		memcpy(&y->q[y->n], mkv_stage_slot(r->stage, d->held[y->n].slot_idx), sizeof(y->q[0]));
	y->bytes = bytes;
	d->n_held = 0;
}

/* Its late I/O: reads land as poison where the get's value should have gone, writes send the put's bytes as they lie there now. */
static void
dying_goes_on(const struct dying *y, struct rig *r)
{
	static uint8_t sent[300000];

	rig_fill(sent, y->bytes, 1);
	for (unsigned i = 0; i < y->n; i++) {
		size_t at = 0;

		for (unsigned b = 0; b < y->q[i].n_bufs; b++) {
			size_t n = y->q[i].op == MKV_DRV_PUT ? MKV_MIN((size_t)y->q[i].bufs[b].bytes, y->bytes - at) : y->q[i].bufs[b].bytes;
			uint8_t *p = mkv_stage_data(r->stage, y->q[i].bufs[b].off, n);

			assert_non_null(p);
			if (y->q[i].op == MKV_DRV_PUT)
				assert_memory_equal(p, sent + at, n);
			else
				memset(p, 0xa5, n);
			at += n;
		}
	}
}

/* One put or get whose every moment the dead process's I/O sees. */
static void
dying_beside(const struct dying *y, struct rig *r, struct rig_client *c, uint64_t id)
{
	rig_pump_ms(r, 2);
	dying_goes_on(y, r);
	rig_drive_answer_held(&r->drive[0]);
	dying_goes_on(y, r);
	assert_int_equal(answer_of(c, id), 0);
	r->drive[0].hold = 1;
}

/* The stage is small and used over and over by the next life, while the former one's I/O goes on: neither sees a byte of the other until DRAINED. */
static void
fault_quarantine(struct rig *r, struct rig_client *c)
{
	struct mkv_stage_stat st;
	struct dying y;
	uint64_t put;

	rig_fill(big, 300000, 1);
	assert_int_equal(rig_put(c, "there", big, 300000), 0);
	r->drive[0].hold = 1;
	put = send_put(c, "lost", 300000, 0);
	(void)send_get(c, "there");
	rig_pump_ms(r, 5);
	dying_begin(&y, r, 300000);
	rig_map(r, 0, MKV_DRIVE_RESTARTING);
	rig_drive_kill(r, 0);
	assert_int_equal(answer_of(c, put), MKV_E_RETRY);
	rig_drive_up(r, 0, 11);
	r->drive[0].hold = 0;
	rig_map(r, 0, MKV_DRIVE_ONLINE);
	assert_int_equal(rig_recv(c, RIG_PATIENCE_MS), 1);	/* the get, asked again */
	assert_int_equal(c->f.hdr.status, 0);
	r->drive[0].hold = 1;
	for (unsigned i = 0; i < 20; i++) {
		rig_fill(big, 500000, 100 + i);
		dying_beside(&y, r, c, send_put(c, "next", 500000, 0));
		dying_beside(&y, r, c, send_get(c, "next"));
		assert_int_equal(c->f.hdr.payload_bytes, 500000);
		assert_memory_equal(c->f.payload, big, 500000);
	}
	mkv_stage_stat(r->stage, &st);
	assert_true(st.quarantined_bytes >= 600000 && st.slots_quarantined == 2);
	r->drive[0].hold = 0;
	mkv_front_drive_drained(r->f, 0, 10);
	mkv_stage_stat(r->stage, &st);
	assert_int_equal(st.quarantined_bytes, 0);
	rig_put_get(c, "after", 70000);
}

/* A drive that is given up: what waits for it goes to the others, what it had is a miss with the reason. */
static void
fault_failed(struct rig *r, struct rig_client *c)
{
	unsigned offline = 0, found = 0;

	for (unsigned i = 0; i < 40; i++) {
		char key[32];

		snprintf(key, sizeof(key), "f%u", i);
		assert_int_equal(rig_put(c, key, "0123456789", 10), 0);
	}
	rig_map(r, 1, MKV_DRIVE_RESTARTING);
	rig_drive_kill(r, 1);
	for (unsigned i = 0; i < 40; i++) {
		char key[32];

		snprintf(key, sizeof(key), "f%u", i);
		send_get(c, key);
	}
	rig_pump_ms(r, 5);
	rig_map(r, 1, MKV_DRIVE_FAILED);
	for (unsigned i = 0; i < 40; i++) {
		assert_int_equal(rig_recv(c, RIG_PATIENCE_MS), 1);
		if (c->f.hdr.status == 0)
			found++;
		else {
			assert_int_equal(-(int)c->f.hdr.status, MKV_E_MISS);
			assert_int_equal(c->f.hdr.reason, MKV_REASON_DRIVE_OFFLINE);
			offline++;
		}
	}
	assert_true(found > 0 && offline > 0);
	for (unsigned i = 0; i < 40; i++) {
		char key[32];

		snprintf(key, sizeof(key), "f%u", i);
		rig_put_get(c, key, 10);
	}
}

static void
mangle_gen(struct mkv_desc *d, struct mkv_drv_rep *rep)
{
	(void)rep;
	d->gen++;
}

static void
mangle_slot(struct mkv_desc *d, struct mkv_drv_rep *rep)
{
	(void)rep;
	d->slot_idx = 0x7fffffff;
}

static void
mangle_status(struct mkv_desc *d, struct mkv_drv_rep *rep)
{
	d->status = rep->status = -9999;
}

static void
mangle_magic(struct mkv_desc *d, struct mkv_drv_rep *rep)
{
	(void)d;
	rep->magic = 1;
}

static void
mangle_len(struct mkv_desc *d, struct mkv_drv_rep *rep)
{
	if (d->op == MKV_DRV_GET) {
		rep->len = 4u << 20;
		rep->value_bytes = 4u << 20;
	}
}

static void
mangle_skip(struct mkv_desc *d, struct mkv_drv_rep *rep)
{
	if (d->op == MKV_DRV_GET)
		rep->skip = 0x7fffffff;
}

static void
mangle_manifest(struct mkv_desc *d, struct mkv_drv_rep *rep)
{
	if (d->op == MKV_DRV_GET) {
		rep->flags = MKV_DRV_F_MANIFEST;
		rep->piece_bytes = 3;
		rep->n_stripe = 1;
	}
}

/* Lies of a drive: the ring is closed, or the request ends with PEER; this process goes on, and so does the drive's successor. */
static void
fault_lies(struct rig *r, struct rig_client *c)
{
	void (*const ring[])(struct mkv_desc *, struct mkv_drv_rep *) = { mangle_gen, mangle_slot, mangle_status, mangle_magic };
	void (*const reply[])(struct mkv_desc *, struct mkv_drv_rep *) = { mangle_len, mangle_skip, mangle_manifest };
	uint32_t epoch = 20;

	rig_put_get(c, "v", 200000);
	for (unsigned i = 0; i < MKV_ARRAY_LEN(ring); i++) {
		uint64_t id;

		r->drive[0].mangle = ring[i];
		id = send_get(c, "v");
		rig_pump_ms(r, 5);
		assert_false(r->drive[0].alive);
		r->drive[0].mangle = NULL;
		rig_drive_up(r, 0, epoch);
		assert_int_equal(answer_of(c, id), 0);
		mkv_front_drive_drained(r->f, 0, epoch - 1);
		epoch++;
	}
	for (unsigned i = 0; i < MKV_ARRAY_LEN(reply); i++) {
		r->drive[0].mangle = reply[i];
		assert_int_equal(answer_of(c, send_get(c, "v")), MKV_E_PEER);
		r->drive[0].mangle = NULL;
	}
	rig_put_get(c, "w", 200000);
}

/* A piece is nowhere: a miss, and the home is told with the release of its manifest. */
static void
fault_piece(struct rig *r, struct rig_client *c)
{
	unsigned asked = 0;
	size_t got;

	rig_fill(big, 6u << 20, 1);
	assert_int_equal(rig_put(c, "set", big, 6u << 20), 0);
	assert_int_equal(rig_get(c, "set", 0, UINT64_MAX, back, &got), 0);
	assert_int_equal(r->drive[0].short_releases + r->drive[1].short_releases, 0);
	for (unsigned k = 0; k < 2 * RIG_OBJECTS; k++) {
		struct rig_object *o = &r->drive[k % 2].obj[k / 2];

		if (o->used && (o->flags & MKV_DRV_F_PIECE) && asked++ == 0)
			o->digest.lo ^= 1;
	}
	assert_true(asked > 1);
	assert_int_equal(rig_get(c, "set", 0, UINT64_MAX, back, &got), MKV_E_MISS);
	rig_pump_ms(r, 5);
	assert_int_equal(r->drive[0].short_releases + r->drive[1].short_releases, 1);
}

static int
report(struct rig_client *c, const char *key, uint64_t off, uint64_t len)
{
	uint8_t body[64];

	return (answer_of(c, rig_send(c, MKV_WIRE_REPORT, 0, 0, body, rig_get_body(body, key, strlen(key), off, len), NULL, 0)));
}

static unsigned
looked(struct rig *r)
{
	unsigned n = 0;

	for (unsigned i = 0; i < r->conf.drives; i++) {
		n += r->drive[i].count[MKV_DRV_VERIFY];
		r->drive[i].count[MKV_DRV_VERIFY] = 0;
	}
	return (n);
}

static unsigned
short_releases(const struct rig *r)
{
	unsigned n = 0;

	for (unsigned i = 0; i < r->conf.drives; i++)
		n += r->drive[i].short_releases;
	return (n);
}

static struct rig_object *
piece_of(struct rig *r, uint32_t no)
{
	for (unsigned k = 0; k < r->conf.drives * RIG_OBJECTS; k++) {
		struct rig_object *o = &r->drive[k % r->conf.drives].obj[k / r->conf.drives];

		if (o->used && (o->flags & MKV_DRV_F_PIECE) && mkv_digest_eq(o->digest, mkv_piece_digest(r->f->piece_secret, o->set, no)))
			return (o);
	}
	return (NULL);
}

/* What a reader found damaged is looked at where it lies: those pieces that it names, and what their drives find is the answer. */
static void
fault_report(struct rig *r, struct rig_client *c)
{
	rig_fill(big, 6u << 20, 1);
	assert_int_equal(rig_put(c, "set", big, (5u << 20) + 70000), 0);
	assert_int_equal(rig_put(c, "one", big, 300000), 0);
	assert_int_equal(report(c, "none", 0, 0), MKV_E_MISS);
	assert_int_equal(c->f.hdr.reason, MKV_REASON_NEVER);
	(void)looked(r);
	assert_int_equal(report(c, "set", 0, 0), 0);
	assert_int_equal(looked(r), 1 + 6);
	assert_int_equal(report(c, "set", (2u << 20) + 5, 1u << 20), 0);
	assert_int_equal(looked(r), 1 + 2);
	assert_int_equal(report(c, "set", 5u << 20, UINT64_MAX), 0);
	assert_int_equal(looked(r), 1 + 1);
	assert_int_equal(report(c, "set", 6u << 20, 1), 0);
	assert_int_equal(looked(r), 1);
	/* One of them is bad. Its drive tells the home; the front says what it heard, and asks for no more than it must. */
	piece_of(r, 3)->data[(1u << 20) - 1] ^= 1;
	assert_int_equal(report(c, "set", 3u << 20, 65536), 0);
	assert_int_equal(report(c, "set", (4u << 20) - 65536, 65536), MKV_E_CORRUPT);
	assert_int_equal(c->f.hdr.reason, MKV_REASON_WRITER_CRC);
	assert_null(piece_of(r, 3));
	assert_int_equal(short_releases(r), 0);
	/* It is nowhere now: told with the release, as by a reader. */
	assert_int_equal(report(c, "set", 0, 0), MKV_E_MISS);
	rig_pump_ms(r, 5);
	assert_int_equal(short_releases(r), 1);
	/* A value without pieces. */
	for (unsigned i = 0; i < r->conf.drives; i++)
		for (unsigned k = 0; k < RIG_OBJECTS; k++)
			if (r->drive[i].obj[k].key_bytes == 3 && memcmp(r->drive[i].obj[k].key, "one", 3) == 0)
				r->drive[i].obj[k].data[70000] ^= 1;
	assert_int_equal(report(c, "one", 0, 65536), 0);
	assert_int_equal(report(c, "one", 65536, 65536), MKV_E_CORRUPT);
	assert_int_equal(c->f.hdr.reason, MKV_REASON_WRITER_CRC);
	assert_int_equal(report(c, "one", 65536, 65536), MKV_E_MISS);
}

/* A drive that has too many reports at work, one that dies with one, one that does not answer in time. */
static void
fault_report_late(struct rig *r, struct rig_client *c)
{
	uint8_t body[64];
	uint64_t id;

	rig_fill(big, 6u << 20, 1);
	assert_int_equal(rig_put(c, "set", big, 4u << 20), 0);
	r->drive[0].force[MKV_DRV_VERIFY] = MKV_E_BUSY;
	assert_int_equal(report(c, "set", 0, 0), MKV_E_BUSY);
	r->drive[0].force[MKV_DRV_VERIFY] = 0;
	r->drive[0].hold = 1;
	id = rig_send(c, MKV_WIRE_REPORT, 0, 0, body, rig_get_body(body, "set", 3, 0, 0), NULL, 0);
	rig_pump_ms(r, 20);
	assert_true(r->drive[0].n_held > 0);
	rig_drive_kill(r, 0);
	rig_drive_up(r, 0, 50);
	r->drive[0].hold = 0;
	mkv_front_drive_drained(r->f, 0, 49);
	assert_int_equal(answer_of(c, id), 0);
	r->drive[0].hold = 1;
	c->deadline_us = 50000;
	assert_int_equal(report(c, "set", 0, 0), MKV_E_TIMEOUT);
	assert_int_equal(c->f.hdr.reason, MKV_REASON_TIMED_OUT);
	rig_drive_answer_held(&r->drive[0]);
	rig_pump_ms(r, 20);
}

/* A part of a large value fails at its drive, or the client gives up: the pieces are dropped, and parts that still come are swallowed. */
static void
fault_set(struct rig *r, struct rig_client *c)
{
	uint8_t body[1024];
	unsigned pieces = 0;
	uint64_t id;
	size_t n;

	rig_fill(big, 6u << 20, 1);
	r->drive[0].force[MKV_DRV_PUT] = MKV_E_NOSPACE;
	r->drive[0].force[MKV_DRV_COMMIT] = MKV_E_NOSPACE;
	assert_int_equal(rig_put(c, "set", big, 6u << 20), MKV_E_NOSPACE);
	r->drive[0].force[MKV_DRV_PUT] = r->drive[0].force[MKV_DRV_COMMIT] = 0;
	rig_pump_ms(r, 20);
	id = c->next_id++;
	for (unsigned i = 0; i < 2; i++) {
		n = rig_put_body(body, "set", i == 0 ? 3 : 0, big, 1 << 20, (uint64_t)i << 20, MKV_WIRE_SIZE_UNKNOWN, 0);
		rig_send(c, MKV_WIRE_PUT, MKV_WIRE_F_MORE, id, body, n, big, 1 << 20);
	}
	rig_pump_ms(r, 5);
	rig_send(c, MKV_WIRE_PUT, MKV_WIRE_F_ABORT, id, NULL, 0, NULL, 0);
	assert_int_equal(answer_of(c, id), MKV_E_CANCELLED);
	rig_pump_ms(r, 20);
	for (unsigned d = 0; d < r->conf.drives; d++)
		for (unsigned i = 0; i < RIG_OBJECTS; i++)
			pieces += r->drive[d].obj[i].used;
	assert_int_equal(pieces, 0);
	rig_put_get(c, "set", 5u << 20);
}

static void
fault_bad_crc(struct rig *r, struct rig_client *c)
{
	uint8_t body[1024];
	uint64_t id;
	size_t n;

	(void)r;
	rig_fill(big, 200000, 1);
	n = rig_put_body(body, "crc", 3, big, 200000, 0, 200000, 0);
	big[150000] ^= 1;
	id = rig_send(c, MKV_WIRE_PUT, 0, 0, body, n, big, 200000);
	assert_int_equal(answer_of(c, id), MKV_E_CORRUPT);
	assert_int_equal(answer_of(c, send_get(c, "crc")), MKV_E_MISS);
	/* Without CRCs the front makes them. */
	n = rig_put_body(body, "crc", 3, big, 200000, 0, 200000, MKV_WIRE_PUT_NO_CRC);
	id = rig_send(c, MKV_WIRE_PUT, 0, 0, body, n, big, 200000);
	assert_int_equal(answer_of(c, id), 0);
	assert_int_equal(answer_of(c, send_get(c, "crc")), 0);
	assert_memory_equal(c->f.payload, big, 200000);
}

static void
fault_cancel(struct rig *r, struct rig_client *c)
{
	struct mkv_wire_cancel w = { 0 };
	uint64_t id, cancel;

	r->drive[0].hold = 1;
	id = send_get(c, "x");
	rig_pump_ms(r, 2);
	w.request_id = id;
	cancel = rig_send(c, MKV_WIRE_CANCEL, 0, 0, &w, sizeof(w), NULL, 0);
	assert_int_equal(answer_of(c, id), MKV_E_CANCELLED);
	assert_int_equal(answer_of(c, cancel), 0);
	assert_int_equal(r->f->n_reqs, 1);
	rig_drive_answer_held(&r->drive[0]);
	rig_pump_ms(r, 5);
	assert_int_equal(r->f->n_reqs, 0);
}

/* The client goes while its bytes come in, while a drive works for it, and while its answer waits to be read. */
static void
fault_client_gone(struct rig *r, struct rig_client *c)
{
	static struct rig_client d;

	(void)c;
	for (unsigned how = 0; how < 4; how++) {
		uint8_t body[1024];
		struct mkv_hdr h;
		size_t n;

		rig_client_open(r, &d);
		rig_client_handshake(&d);
		rig_fill(big, 1 << 20, how);
		if (how == 0) {
			n = rig_put_body(body, "gone", 4, big, 1 << 20, 0, 1 << 20, 0);
			rig_frame_make(&d, &h, MKV_WIRE_PUT, 0, 50, body, n, 1 << 20);
			rig_write(&d, &h, sizeof(h));
			rig_write(&d, body, n);
			rig_write(&d, big, 700000);
		} else if (how == 1) {
			r->drive[0].hold = 1;
			send_put(&d, "gone", 1 << 20, 0);
			send_get(&d, "gone");
		} else if (how == 2) {
			assert_int_equal(rig_put(&d, "gone", big, 1 << 20), 0);
			d.deaf = 1;
			for (unsigned i = 0; i < 8; i++)
				send_get(&d, "gone");
		} else {
			n = rig_put_body(body, "gone", 4, big, 1 << 20, 0, MKV_WIRE_SIZE_UNKNOWN, 0);
			rig_send(&d, MKV_WIRE_PUT, MKV_WIRE_F_MORE, 0, body, n, big, 1 << 20);
		}
		rig_pump_ms(r, 10);
		rig_client_close(&d);
		rig_pump_ms(r, 5);
		rig_drive_answer_held(&r->drive[0]);
		rig_pump_ms(r, 10);
		assert_int_equal(r->f->n_conns, 1);
		assert_int_equal(r->f->n_reqs, 0);
	}
}

static void
on_one_and_memory(void (*fn)(struct rig *, struct rig_client *))
{
	const struct rig_conf one = { .drives = 1, .kind = MKV_IOQ_AUTO }, mem = { .drives = 1, .kind = MKV_IOQ_AUTO, .memory_mode = 1 };
	const struct rig_conf poll = { .drives = 1, .kind = MKV_IOQ_POLL };

	rig_with(&one, fn);
	rig_with(&mem, fn);
	rig_with(&poll, fn);
}

/* What else has a limit of time has a longer one than the deadline. */
static void
test_timeout(void **state)
{
	struct rig_conf conf = { .drives = 1, .kind = MKV_IOQ_AUTO, .handshake_ns = RIG_PATIENCE_MS * MKV_NS_PER_MS };

	(void)state;
	rig_with(&conf, fault_timeout);
	conf.memory_mode = 1;
	rig_with(&conf, fault_timeout);
	conf.memory_mode = 0;
	conf.kind = MKV_IOQ_POLL;
	rig_with(&conf, fault_timeout);
}

/* Memory mode: nobody may go on writing to a run whose drive died, since its successor may give it to somebody else. */
static void
fault_arena(struct rig *r, struct rig_client *c)
{
	static struct rig_client d;
	uint8_t body[1024];
	struct mkv_hdr h;
	size_t n;

	rig_put_get(c, "before", 400000);
	rig_client_open(r, &d);
	rig_client_handshake(&d);
	rig_fill(big, 1 << 20, 1);
	n = rig_put_body(body, "half", 4, big, 1 << 20, 0, 1 << 20, 0);
	rig_frame_make(&d, &h, MKV_WIRE_PUT, 0, 50, body, n, 1 << 20);
	rig_write(&d, &h, sizeof(h));
	rig_write(&d, body, n);
	rig_write(&d, big, 700000);
	rig_pump_ms(r, 5);
	assert_int_equal(r->drive[0].count[MKV_DRV_RESERVE], 2);
	rig_map(r, 0, MKV_DRIVE_RESTARTING);
	rig_drive_kill(r, 0);
	assert_int_equal(rig_recv(&d, 500), -1);
	rig_client_close(&d);
	rig_pump_ms(r, 5);
	assert_int_equal(r->f->n_reqs, 0);
	rig_drive_up(r, 0, 11);
	rig_map(r, 0, MKV_DRIVE_ONLINE);
	rig_put_get(c, "after", 400000);
}

static void
test_restart(void **state)
{
	const struct rig_conf one = { .drives = 1, .kind = MKV_IOQ_AUTO }, mem = { .drives = 1, .kind = MKV_IOQ_AUTO, .memory_mode = 1 };
	const struct rig_conf mem_poll = { .drives = 1, .kind = MKV_IOQ_POLL, .memory_mode = 1 };

	(void)state;
	rig_with(&one, fault_restart);
	rig_with(&mem, fault_restart);
	rig_with(&mem, fault_arena);
	rig_with(&mem_poll, fault_arena);
}

static void
test_quarantine(void **state)
{
	const struct rig_conf small = { .drives = 1, .kind = MKV_IOQ_AUTO, .stage_bytes = 4 << 20, .slots = 16 };

	(void)state;
	rig_with(&small, fault_quarantine);
}

static void
test_failed_drive(void **state)
{
	const struct rig_conf three = { .drives = 3, .kind = MKV_IOQ_AUTO };

	(void)state;
	rig_with(&three, fault_failed);
}

static void
test_lies(void **state)
{
	const struct rig_conf one = { .drives = 1, .kind = MKV_IOQ_AUTO };

	(void)state;
	rig_with(&one, fault_lies);
}

static void
test_sets(void **state)
{
	(void)state;
	on_one_and_memory(fault_set);
}

static void
test_piece(void **state)
{
	(void)state;
	on_one_and_memory(fault_piece);
}

static void
test_report(void **state)
{
	const struct rig_conf three = { .drives = 3, .kind = MKV_IOQ_AUTO };

	(void)state;
	on_one_and_memory(fault_report);
	rig_with(&three, fault_report);
	on_one_and_memory(fault_report_late);
}

static void
test_bad_crc(void **state)
{
	(void)state;
	on_one_and_memory(fault_bad_crc);
}

static void
test_cancel(void **state)
{
	(void)state;
	on_one_and_memory(fault_cancel);
}

static void
test_client_gone(void **state)
{
	(void)state;
	on_one_and_memory(fault_client_gone);
}

/* A value that is larger than all drives is refused when that is known: by its declared size, else by the bytes that have come. */
static void
fault_never_fits(struct rig *r, struct rig_client *c)
{
	uint8_t body[1024];
	uint64_t id;
	size_t n;

	r->drive[0].total_bytes = 3u << 20;
	for (unsigned known = 0; known < 2; known++) {
		id = 4000 + known;
		for (unsigned i = 0; i <= (known ? 0 : 3); i++) {
			n = rig_put_body(body, "huge", i == 0 ? 4 : 0, big, 1 << 20, (uint64_t)i << 20, known ? 5u << 20 : MKV_WIRE_SIZE_UNKNOWN, 0);
			(void)rig_send(c, MKV_WIRE_PUT, MKV_WIRE_F_MORE, id, body, n, big, 1 << 20);
		}
		assert_int_equal(answer_of(c, id), MKV_E_NOSPACE);
	}
	rig_put_get(c, "fits", 3u << 20);
}

static void
test_never_fits(void **state)
{
	const struct rig_conf one = { .drives = 1, .kind = MKV_IOQ_AUTO }, mem = { .drives = 1, .kind = MKV_IOQ_AUTO, .memory_mode = 1 };

	(void)state;
	rig_with(&one, fault_never_fits);
	rig_with(&mem, fault_never_fits);
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

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_timeout),
		cmocka_unit_test(test_restart),
		cmocka_unit_test(test_quarantine),
		cmocka_unit_test(test_failed_drive),
		cmocka_unit_test(test_lies),
		cmocka_unit_test(test_sets),
		cmocka_unit_test(test_piece),
		cmocka_unit_test(test_report),
		cmocka_unit_test(test_bad_crc),
		cmocka_unit_test(test_cancel),
		cmocka_unit_test(test_client_gone),
		cmocka_unit_test(test_never_fits),
	};

	return (cmocka_run_group_tests(tests, setup, teardown));
}
