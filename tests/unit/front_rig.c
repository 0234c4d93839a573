/*
 * See front_rig.h. The fake drive answers as drv.h says, from memory, and can be told to stop, hold, refuse or lie.
 */
#include "config.h"

#include "tests/unit/front_rig.h"

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "common/base/assert.h"
#include "common/base/crc.h"
#include "common/base/err.h"
#include "common/base/log.h"
#include "common/base/os.h"

/* ---- Fake drive ------------------------------------------------------------------------------------------------------------ */

static struct rig_object *
drive_find(struct rig_drive *d, struct mkv_digest g)
{
	for (unsigned i = 0; i < RIG_OBJECTS; i++)
		if (d->obj[i].used && mkv_digest_eq(d->obj[i].digest, g))
			return (&d->obj[i]);
	return (NULL);
}

static struct rig_object *
drive_new(struct rig_drive *d, struct mkv_digest g)
{
	struct rig_object *o = drive_find(d, g);

	for (unsigned i = 0; i < RIG_OBJECTS && o == NULL; i++)
		if (!d->obj[i].used)
			o = &d->obj[i];
	assert_non_null(o);
	free(o->data);
	memset(o, 0, sizeof(*o));
	o->used = 1;
	o->digest = g;
	return (o);
}

static void
drive_drop(struct rig_object *o)
{
	free(o->data);
	memset(o, 0, sizeof(*o));
}

static void
object_from(struct rig_object *o, const struct mkv_drv_req *q)
{
	memcpy(o->key, q->key, q->key_bytes);
	o->key_bytes = q->key_bytes;
	o->flags = q->flags & (MKV_DRV_F_MANIFEST | MKV_DRV_F_PIECE);
	o->verified = (q->flags & MKV_DRV_F_VERIFIED) != 0;
	o->bytes = q->value_bytes;
	o->put_id = q->put_id;
	o->set = q->set;
	o->piece_bytes = q->piece_bytes;
	o->piece_count = q->piece_count;
	o->n_stripe = q->n_stripe;
	memcpy(o->stripe, q->stripe, q->n_stripe);
	memcpy(o->crcs, q->crcs, sizeof(o->crcs));
}

static struct rig_lent *
drive_lent(struct rig_drive *d, uint32_t id)
{
	for (unsigned i = 0; i < d->n_lent; i++)
		if (d->lent[i].id == id)
			return (&d->lent[i]);
	fail();
	return (NULL);
}

/* Its whole blocks; the rest of the last one is in the stage, and zeroes behind it. */
static const uint8_t *
put_from_region(struct rig_drive *d, const struct mkv_drv_req *q)
{
	const struct rig_lent *l = drive_lent(d, q->bufs[0].region);
	const uint64_t whole = q->value_bytes / 4096 * 4096, rest = q->value_bytes - whole;

	assert_int_equal(q->flags & (MKV_DRV_F_VERIFIED | MKV_DRV_F_MANIFEST), 0);
	assert_int_equal(q->bufs[0].off % 4096, 0);
	assert_int_equal(q->bufs[0].bytes, whole);
	assert_true(whole > 0 && q->bufs[0].off + whole <= l->bytes);
	assert_int_equal(q->n_bufs, rest != 0 ? 2 : 1);
	if (rest != 0) {
		const uint8_t *p = mkv_stage_data(d->rig->stage, q->bufs[1].off, 4096);

		assert_non_null(p);
		assert_int_equal(q->bufs[1].region, 0);
		for (uint64_t i = rest; i < 4096; i++)
			assert_int_equal(p[i], 0);
	}
	d->direct_puts++;
	return (l->p + q->bufs[0].off);
}

static int
do_put(struct rig_drive *d, const struct mkv_drv_req *q, struct mkv_drv_rep *rep)
{
	struct rig_object *o = drive_find(d, q->digest);
	uint64_t left = q->value_bytes;

	if (o != NULL && (q->flags & MKV_DRV_F_IF_ABSENT) && o->put_id != q->put_id)
		return (MKV_E_EXISTS);
	o = drive_new(d, q->digest);
	object_from(o, q);
	rep->put_wall_ms = 1234;
	if (q->flags & MKV_DRV_F_MANIFEST)
		return (0);
	o->data = malloc(left + 1);
	for (unsigned i = 0; i < q->n_bufs; i++) {
		const void *p = i == 0 && (q->flags & MKV_DRV_F_DIRECT) ? put_from_region(d, q) : mkv_stage_data(d->rig->stage, q->bufs[i].off, q->bufs[i].bytes);

		assert_non_null(p);
		assert_true(q->bufs[i].bytes <= left);
		memcpy(o->data + (q->value_bytes - left), p, q->bufs[i].bytes);
		left -= q->bufs[i].bytes;
	}
	assert_int_equal(left, 0);
	assert_int_equal(q->n_crcs, mkv_crc_chunks(q->value_bytes));
	return (0);
}

static void
range_crcs(const struct rig_object *o, uint64_t off, uint64_t len, struct mkv_drv_rep *rep)
{
	uint64_t at = off;

	while (at < off + len) {
		uint64_t end = MKV_MIN((at / MKV_CRC_CHUNK + 1) * MKV_CRC_CHUNK, off + len);

		rep->crcs[rep->n_crcs++] = mkv_crc32c(0, o->data + at, end - at);
		at = end;
	}
}

static void
get_into_bufs(struct rig_drive *d, const struct mkv_drv_req *q, const struct rig_object *o, struct mkv_drv_rep *rep)
{
	uint64_t at = rep->off - rep->skip, end = MKV_MIN(MKV_ALIGN_UP(rep->off + rep->len, MKV_CRC_CHUNK), o->bytes);

	for (unsigned i = 0; i < q->n_bufs && at < end; i++) {
		uint64_t n = MKV_MIN(end - at, (uint64_t)q->bufs[i].bytes);
		void *p = mkv_stage_data(d->rig->stage, q->bufs[i].off, n);

		assert_non_null(p);
		memcpy(p, o->data + at, n);
		at += n;
	}
	assert_true(at >= end);
}

/* Whole blocks to the region, the rest of the last one to the buffer, and there what a medium has behind the value's end. */
static int
get_into_region(struct rig_drive *d, const struct mkv_drv_req *q, const struct rig_object *o, struct mkv_drv_rep *rep)
{
	uint64_t whole = rep->len / 4096 * 4096, end = rep->off + rep->len;
	struct rig_lent *l;
	uint8_t *rest;

	if (q->off % MKV_CRC_CHUNK != 0 || (end % MKV_CRC_CHUNK != 0 && end != o->bytes))
		return (MKV_E_UNSUPPORTED);
	l = drive_lent(d, q->bufs[0].region);
	assert_int_equal(q->n_bufs, 2);
	assert_int_equal(q->bufs[0].off % 4096, 0);
	assert_true(q->bufs[0].bytes >= whole && q->bufs[0].off + q->bufs[0].bytes <= l->bytes);
	rest = mkv_stage_data(d->rig->stage, q->bufs[1].off, 4096);
	assert_non_null(rest);
	assert_true(q->bufs[1].region == 0 && q->bufs[1].bytes >= 4096);
	memset(rest, 0xee, 4096);
	memcpy(l->p + q->bufs[0].off, o->data + rep->off, whole);
	memcpy(rest, o->data + rep->off + whole, rep->len - whole);
	d->direct++;
	return (0);
}

static int
do_get(struct rig_drive *d, const struct mkv_drv_req *q, struct mkv_drv_rep *rep)
{
	struct rig_object *o = drive_find(d, q->digest);

	if (o == NULL) {
		rep->reason = MKV_REASON_NEVER;
		return (MKV_E_MISS);
	}
	if (!(q->flags & MKV_DRV_F_PIECE) && (o->key_bytes != q->key_bytes || memcmp(o->key, q->key, q->key_bytes) != 0)) {
		rep->reason = MKV_REASON_NEVER;
		return (MKV_E_MISS);
	}
	rep->value_bytes = o->bytes;
	rep->flags = o->flags & MKV_DRV_F_MANIFEST;
	rep->put_id = o->put_id;
	rep->off = q->off;
	if (o->flags & MKV_DRV_F_MANIFEST) {
		rep->set = o->set;
		rep->piece_bytes = o->piece_bytes;
		rep->piece_count = o->piece_count;
		rep->n_stripe = o->n_stripe;
		memcpy(rep->stripe, o->stripe, o->n_stripe);
		if (q->op == MKV_DRV_GET) {
			rep->hold = 1 + d->next_txn++;
			d->holds++;
		}
		return (0);
	}
	rep->len = q->off < o->bytes ? MKV_MIN(q->len, o->bytes - q->off) : 0;
	if (rep->len == 0)
		return (0);
	range_crcs(o, rep->off, rep->len, rep);
	if (q->flags & MKV_DRV_F_DIRECT)
		return (get_into_region(d, q, o, rep));
	rep->skip = (uint32_t)(q->off % MKV_CRC_CHUNK);
	if (!d->rig->conf.memory_mode) {
		get_into_bufs(d, q, o, rep);
		return (0);
	}
	rep->skip = 0;
	rep->n_runs = 2;
	rep->runs[0].off = o->arena_off + q->off;
	rep->runs[0].bytes = (rep->len + 1) / 2;
	rep->runs[1].off = rep->runs[0].off + rep->runs[0].bytes;
	rep->runs[1].bytes = rep->len - rep->runs[0].bytes;
	if (rep->runs[1].bytes == 0)
		rep->n_runs = 1;
	rep->hold = 1 + d->next_txn++;
	d->holds++;
	return (0);
}

/* Verified, with this size and these CRCs. */
static int
drive_has(struct rig_drive *d, const struct mkv_drv_req *q)
{
	const struct rig_object *o = drive_find(d, q->digest);

	assert_int_equal(q->flags & (MKV_DRV_F_IF_ABSENT | MKV_DRV_F_OVERWRITE | MKV_DRV_F_PIECE | MKV_DRV_F_MANIFEST), 0);
	assert_true(q->key_bytes != 0 && q->n_crcs == mkv_crc_chunks(q->value_bytes));
	return (o != NULL && o->verified && (o->flags & MKV_DRV_F_MANIFEST) == 0 && o->bytes == q->value_bytes &&
	    memcmp(o->crcs, q->crcs, q->n_crcs * sizeof(q->crcs[0])) == 0);
}

static int
do_reserve(struct rig_drive *d, const struct mkv_drv_req *q, struct mkv_drv_rep *rep)
{
	uint64_t half = MKV_MIN(q->value_bytes, 100000u);

	assert_int_equal(q->n_bufs, 0);
	if (q->flags & MKV_DRV_F_IF_SAME) {
		rep->same = (uint16_t)drive_has(d, q);
		if (rep->same || !d->rig->conf.memory_mode)
			return (0);
	}
	assert_int_equal(d->rig->conf.memory_mode, 1);
	if (d->arena_at + q->value_bytes > RIG_ARENA)
		d->arena_at = 0;
	rep->txn = d->arena_at + 1;
	/* In two runs, the second not on a chunk of the value. */
	rep->runs[0] = (struct mkv_drv_run){ d->arena_at, half };
	rep->runs[1] = (struct mkv_drv_run){ d->arena_at + half, q->value_bytes - half };
	rep->n_runs = q->value_bytes > half ? 2 : 1;
	d->arena_at += MKV_ALIGN_UP(q->value_bytes, 4096);
	return (0);
}

static int
do_commit(struct rig_drive *d, const struct mkv_drv_req *q, struct mkv_drv_rep *rep)
{
	struct rig_object *o = drive_new(d, q->digest);

	(void)rep;
	object_from(o, q);
	o->arena_off = q->txn - 1;
	o->data = malloc(q->value_bytes + 1);
	memcpy(o->data, d->arena + o->arena_off, q->value_bytes);
	return (0);
}

static int
do_batch(struct rig_drive *d, const struct mkv_drv_req *q)
{
	uint8_t *b = mkv_stage_data(d->rig->stage, q->bufs[0].off, q->bufs[0].bytes);
	struct mkv_digest *g = (struct mkv_digest *)(void *)b;

	assert_non_null(b);
	assert_int_equal(q->n_digests * sizeof(*g), q->bufs[0].bytes);
	for (uint32_t i = 0; i < q->n_digests; i++) {
		struct mkv_digest one = g[i];		/* read before its place is overwritten: i <= 16 i */

		b[i] = drive_find(d, one) != NULL ? 1 : MKV_REASON_EVICTED << 1;
	}
	return (0);
}

static int
do_list(struct rig_drive *d, const struct mkv_drv_req *q, struct mkv_drv_rep *rep)
{
	uint8_t *b = mkv_stage_data(d->rig->stage, q->bufs[0].off, q->bufs[0].bytes);
	uint32_t at = 0;

	for (unsigned i = (unsigned)q->off; i < RIG_OBJECTS; i++) {
		struct rig_object *o = &d->obj[i];
		struct mkv_drv_list_row row = { .value_bytes = o->bytes };

		if (!o->used || (o->flags & MKV_DRV_F_PIECE) || o->key_bytes < q->key_bytes || memcmp(o->key, q->key, q->key_bytes) != 0)
			continue;
		if (rep->n_rows == q->len || at + 64 + o->key_bytes > q->bufs[0].bytes) {
			rep->cursor = i;
			return (0);
		}
		row.row_bytes = (uint16_t)MKV_ALIGN_UP(sizeof(row) + o->key_bytes, 8);
		row.key_bytes = o->key_bytes;
		memcpy(b + at, &row, sizeof(row));
		memcpy(b + at + sizeof(row), o->key, o->key_bytes);
		at += row.row_bytes;
		rep->n_rows++;
	}
	return (0);
}

static int
do_delete(struct rig_drive *d, const struct mkv_drv_req *q, struct mkv_drv_rep *rep)
{
	struct rig_object *o = drive_find(d, q->digest);

	if (o == NULL) {
		rep->reason = MKV_REASON_NEVER;
		return (MKV_E_MISS);
	}
	if (q->op == MKV_DRV_DELETE)
		drive_drop(o);
	return (0);
}

/* Bytes that do not match the CRCs of their put, in the chunks of the range: gone, and their writer's fault. */
static int
do_verify(struct rig_drive *d, const struct mkv_drv_req *q, struct mkv_drv_rep *rep)
{
	struct rig_object *o = drive_find(d, q->digest);
	struct mkv_drv_req get = *q;
	uint64_t end;

	if (o == NULL || (o->flags & MKV_DRV_F_MANIFEST) != 0) {
		get.op = MKV_DRV_GET;
		return (do_get(d, &get, rep));
	}
	end = q->len == 0 || q->off > o->bytes || q->len > o->bytes - q->off ? o->bytes : q->off + q->len;
	for (uint64_t at = q->off / MKV_CRC_CHUNK * MKV_CRC_CHUNK; at < end; at += MKV_CRC_CHUNK) {
		if (mkv_crc32c(0, o->data + at, MKV_MIN(o->bytes - at, MKV_CRC_CHUNK)) == o->crcs[at / MKV_CRC_CHUNK])
			continue;
		drive_drop(o);
		rep->reason = MKV_REASON_WRITER_CRC;
		return (MKV_E_CORRUPT);
	}
	return (0);
}

static void
drop_set(struct rig_drive *d, struct mkv_set_id set)
{
	for (unsigned i = 0; i < RIG_OBJECTS; i++)
		if (d->obj[i].used && (d->obj[i].flags & MKV_DRV_F_PIECE) && d->obj[i].set.lo == set.lo)
			drive_drop(&d->obj[i]);
}

static int
do_set_new(struct rig_drive *d, const struct mkv_drv_req *q, struct mkv_drv_rep *rep)
{
	if (q->set.lo != 0) {
		d->renewed_until = q->deadline_ns;
		return (0);
	}
	rep->set.lo = ++d->next_set;
	rep->set.hi = d->index;
	rep->total_bytes = d->total_bytes;
	return (0);
}

static int
drive_do(struct rig_drive *d, const struct mkv_drv_req *q, struct mkv_drv_rep *rep)
{
	switch (q->op) {
	case MKV_DRV_PUT:	return (do_put(d, q, rep));
	case MKV_DRV_GET:	return (do_get(d, q, rep));
	case MKV_DRV_STAT: {
		struct mkv_drv_req s = *q;

		s.len = 0;
		return (do_get(d, &s, rep));
	}
	case MKV_DRV_RESERVE:	return (do_reserve(d, q, rep));
	case MKV_DRV_COMMIT:	return (do_commit(d, q, rep));
	case MKV_DRV_ABORT:	drop_set(d, q->set); return (0);
	case MKV_DRV_BATCH:	rep->lease_ms = d->lease_full ? 0 : q->lease_ms; return (do_batch(d, q));
	case MKV_DRV_LIST:	return (do_list(d, q, rep));
	case MKV_DRV_DELETE:
	case MKV_DRV_TOUCH:	return (do_delete(d, q, rep));
	case MKV_DRV_VERIFY:	return (do_verify(d, q, rep));
	case MKV_DRV_SET_NEW:	return (do_set_new(d, q, rep));
	case MKV_DRV_INFO:	rep->total_bytes = 1000; rep->used_bytes = 10; rep->objects = 1; return (0);
	}
	return (MKV_E_PROTO);
}

static void
drive_answer(struct rig_drive *d, struct mkv_desc *desc)
{
	uint8_t *slot = mkv_stage_slot(d->rig->stage, desc->slot_idx);
	struct mkv_drv_req q;
	struct mkv_drv_rep rep;

	memcpy(&q, slot, sizeof(q));
	assert_int_equal(q.magic, MKV_DRV_REQ_MAGIC);
	assert_int_equal(q.op, desc->op);
	memset(&rep, 0, sizeof(rep));
	rep.magic = MKV_DRV_REP_MAGIC;
	rep.op = q.op;
	d->deadline_seen = q.deadline_ns;
	if ((q.op == MKV_DRV_PUT || q.op == MKV_DRV_COMMIT) && (q.flags & MKV_DRV_F_MANIFEST) == 0)
		d->writer_seen = q.writer;
	rep.status = d->force[q.op] != 0 ? d->force[q.op] : drive_do(d, &q, &rep);
	desc->status = rep.status;
	if (d->mangle != NULL)
		d->mangle(desc, &rep);
	memcpy(slot + 4096, &rep, sizeof(rep));
	assert_int_equal(mkv_ring_push(&d->out, desc), 0);
}

void
rig_drive_answer_held(struct rig_drive *d)
{
	for (unsigned i = 0; i < d->n_held; i++)
		drive_answer(d, &d->held[i]);
	d->n_held = 0;
	d->hold = 0;
}

static int
drive_pump(struct rig_drive *d)
{
	struct mkv_desc desc;
	int n = 0;

	while (d->alive && !d->stopped && mkv_ring_pop(&d->in, &desc) == 1) {
		n++;
		assert_true(desc.op < 32);
		d->count[desc.op]++;
		if (desc.op == MKV_DRV_RELEASE) {
			assert_true(d->holds > 0);
			d->holds--;
			d->short_releases += desc.arg[1] == MKV_DRV_RELEASE_SHORT;
		} else if (d->hold) {
			assert_true(d->n_held < MKV_ARRAY_LEN(d->held));
			d->held[d->n_held++] = desc;
		} else
			drive_answer(d, &desc);
	}
	return (n);
}

/* ---- The rest of the process ----------------------------------------------------------------------------------------------- */

static int
rig_push(void *arg, uint32_t drive, const struct mkv_desc *desc)
{
	struct rig *r = arg;

	return (r->drive[drive].alive ? mkv_ring_push(&r->drive[drive].to, desc) : MKV_E_CLOSED);
}

static int
rig_lend(void *arg, uint32_t drive, uint32_t epoch, uint32_t region, uint64_t bytes, int fd)
{
	struct rig_drive *d = &((struct rig *)arg)->drive[drive];

	if (d->n_ask == MKV_ARRAY_LEN(d->ask))
		return (MKV_E_BUSY);
	assert_true(region != 0 && epoch == d->epoch);
	d->n_shown += fd >= 0;
	d->ask[d->n_ask++] = (struct rig_lent){ .id = region, .epoch = epoch, .bytes = bytes, .drop = fd < 0, .fd = fd < 0 ? -1 : dup(fd) };
	return (0);
}

static void
lent_drop(struct rig_drive *d, uint32_t id)
{
	for (unsigned i = 0; i < d->n_lent; i++)
		if (d->lent[i].id == id) {
			mkv_os_shm_unmap(d->lent[i].p, d->lent[i].bytes);
			d->lent[i] = d->lent[--d->n_lent];
			return;
		}
	fail();
}

static void
lent_add(struct rig_drive *d, const struct rig_lent *a)
{
	struct rig_lent *l = &d->lent[d->n_lent++];
	void *p;

	assert_true(d->n_lent < MKV_ARRAY_LEN(d->lent));
	assert_int_equal(mkv_os_shm_map(a->fd, a->bytes, 1, 0, &p), 0);
	*l = *a;
	l->p = p;
}

static int
lend_pump(struct rig_drive *d)
{
	int n = 0;

	while (d->alive && !d->lend_hold && d->n_ask > 0) {
		struct rig_lent a = d->ask[0];
		int status = d->lend_status;

		memmove(d->ask, d->ask + 1, --d->n_ask * sizeof(d->ask[0]));
		if (a.drop && status == 0)
			lent_drop(d, a.id);
		else if (status == 0)
			lent_add(d, &a);
		if (a.fd >= 0)
			close(a.fd);
		mkv_front_lent(d->rig->f, d->index, a.epoch, a.id, a.drop, status);
		n++;
	}
	return (n);
}

static void
rings_close(struct rig_drive *d)
{
	mkv_ring_close(&d->to);
	mkv_ring_close(&d->from);
	mkv_ring_close(&d->in);
	mkv_ring_close(&d->out);
	d->alive = 0;
	d->n_held = 0;
	while (d->n_lent > 0)
		lent_drop(d, d->lent[0].id);
	while (d->n_ask > 0)
		if (d->ask[--d->n_ask].fd >= 0)
			close(d->ask[d->n_ask].fd);
}

void
rig_drive_up(struct rig *r, unsigned i, uint32_t epoch)
{
	struct rig_drive *d = &r->drive[i];
	int a = mkv_os_shm_create("rig-ring", mkv_ring_bytes(16), 0), b = mkv_os_shm_create("rig-ring", mkv_ring_bytes(16), 0);

	assert_true(a >= 0 && b >= 0);
	assert_int_equal(mkv_ring_format(a, 16, epoch), 0);
	assert_int_equal(mkv_ring_format(b, 16, epoch), 0);
	assert_int_equal(mkv_ring_open(&d->to, a, epoch, 1), 0);
	assert_int_equal(mkv_ring_open(&d->in, a, epoch, 0), 0);
	assert_int_equal(mkv_ring_open(&d->out, b, epoch, 1), 0);
	assert_int_equal(mkv_ring_open(&d->from, b, epoch, 0), 0);
	close(a);
	close(b);
	d->alive = 1;
	d->epoch = epoch;
	mkv_front_drive_up(r->f, i, epoch);
}

void
rig_drive_kill(struct rig *r, unsigned i)
{
	rings_close(&r->drive[i]);
	mkv_front_drive_down(r->f, i, r->drive[i].epoch);
}

void
rig_map(struct rig *r, unsigned i, enum mkv_drive_state st)
{
	r->map[i].state = st;
	assert_int_equal(mkv_front_map(r->f, 2, r->map, r->conf.drives), 0);
}

static int
from_pump(struct rig *r, unsigned i)
{
	struct rig_drive *d = &r->drive[i];
	struct mkv_desc desc;
	int n = 0, e;

	while (d->alive && (e = mkv_ring_pop(&d->from, &desc)) != 0) {
		n++;
		if (e < 0 || mkv_front_desc(r->f, i, &desc) != 0) {
			rings_close(d);			/* as worker/core does */
			mkv_front_drive_down(r->f, i, d->epoch);
		}
	}
	return (n);
}

int
rig_turn(struct rig *r)
{
	int busy = mkv_ioq_run(r->q, 0) > 0;

	busy |= mkv_timers_run(&r->timers, mkv_now_ns() + r->ahead_ns) > 0;
	for (unsigned i = 0; i < r->conf.drives; i++)
		busy |= drive_pump(&r->drive[i]) | from_pump(r, i) | lend_pump(&r->drive[i]);
	busy |= mkv_front_turn(r->f) > 0 || !mkv_front_may_sleep(r->f);
	return (busy | rig_clients_pump(r));
}

void
rig_pump(struct rig *r)
{
	for (unsigned round = 0; round < 64; round++)
		if (!rig_turn(r))
			return;
}

void
rig_pump_ms(struct rig *r, unsigned ms)
{
	uint64_t until = mkv_now_ns() + ms * MKV_NS_PER_MS;

	do {
		rig_pump(r);
		usleep(200);
	} while (mkv_now_ns() < until);
	rig_pump(r);
}

static void
rig_stage(struct rig *r)
{
	uint64_t data = r->conf.stage_bytes != 0 ? r->conf.stage_bytes : 32 << 20;
	uint32_t slots = r->conf.slots != 0 ? r->conf.slots : 64;

	r->stage_fd = mkv_os_shm_create("rig-stage", mkv_stage_bytes(data, 1 << 20, slots), 0);
	assert_true(r->stage_fd >= 0);
	assert_int_equal(mkv_stage_format(r->stage_fd, data, 1 << 20, slots, 0), 0);
	assert_int_equal(mkv_stage_open(&r->stage, r->stage_fd, 1, 0), 0);
}

static void
rig_drives(struct rig *r)
{
	for (unsigned i = 0; i < r->conf.drives; i++) {
		struct rig_drive *d = &r->drive[i];

		d->rig = r;
		d->index = i;
		r->map[i] = (struct mkv_front_drive){ .index = i, .weight = 1.0, .state = MKV_DRIVE_ONLINE };
		r->map[i].uuid[0] = (uint8_t)(i + 1);
		if (r->conf.memory_mode) {
			void *p;

			d->arena_fd = mkv_os_shm_create("rig-arena", RIG_ARENA, 0);
			assert_int_equal(mkv_os_shm_map(d->arena_fd, RIG_ARENA, 1, 0, &p), 0);
			d->arena = p;
			assert_int_equal(mkv_front_arena(r->f, i, d->arena_fd, RIG_ARENA), 0);
			close(d->arena_fd);
		}
		rig_drive_up(r, i, 10);
	}
	assert_int_equal(mkv_front_map(r->f, 1, r->map, r->conf.drives), 0);
}

void
rig_open(struct rig *r, const struct rig_conf *conf)
{
	struct mkv_ioq_opts opts = { .kind = conf->kind, .entries = 256, .depth_max = 1024 };
	struct mkv_front_conf fc = { .front_id = 5, .epoch = 9 };
	static int log_fd = -1;

	mkv_crc_init();
	mkv_log_init(MKV_LOG_DEBUG);		/* every line is made, nobody reads it */
	if (log_fd < 0)
		log_fd = open("/dev/null", O_WRONLY | O_CLOEXEC);
	mkv_log_set_fd(log_fd);
	assert_int_equal(mkv_auth_init(), 0);
	memset(r, 0, sizeof(*r));
	r->conf = *conf;
	if (r->conf.drives == 0)
		r->conf.drives = 1;
	rig_stage(r);
	fc.connections_max = conf->connections != 0 ? conf->connections : 16;
	fc.requests_max = conf->requests != 0 ? conf->requests : 64;
	fc.inflight_max = conf->inflight != 0 ? conf->inflight : 32;
	fc.part_bytes = conf->part_bytes != 0 ? conf->part_bytes : 1 << 20;
	fc.handshake_ns = conf->handshake_ns != 0 ? conf->handshake_ns : 2 * MKV_NS_PER_SEC;
	fc.stall_ns = conf->stall_ns;
	fc.idle_ns = conf->idle_ns != 0 ? conf->idle_ns : 60 * MKV_NS_PER_SEC;
	fc.memory_mode = conf->memory_mode;
	fc.regions_bytes = conf->regions_bytes;
	fc.rail = conf->rail;
	fc.push = rig_push;
	fc.lend = conf->lend ? rig_lend : NULL;
	fc.arg = r;
	memset(fc.store_secret, 3, sizeof(fc.store_secret));
	assert_int_equal(mkv_ioq_create(&r->q, &opts), 0);
	assert_int_equal(mkv_timers_init(&r->timers, mkv_front_timers(&fc)), 0);
	assert_int_equal(mkv_metrics_open_private(&r->m), 0);
	assert_int_equal(mkv_front_create(&r->f, &fc, r->q, &r->timers, r->stage, r->m), 0);
	memset(r->key, 0x5a, sizeof(r->key));
	assert_int_equal(mkv_front_key(r->f, RIG_KEY_ID, r->key, 0, 0), 0);
	rig_drives(r);
	if (conf->door > 0)
		mkv_front_door(r->f, conf->door, MKV_FD(conf->door));
	mkv_front_start(r->f);
}

void
rig_close(struct rig *r)
{
	struct mkv_stage_stat st;

	mkv_front_stop(r->f, 100 * MKV_NS_PER_MS);
	for (unsigned i = 0; i < 400 && !mkv_front_idle(r->f); i++)
		rig_pump_ms(r, 1);
	assert_true(mkv_front_idle(r->f));
	mkv_front_gauges(r->f);
	mkv_stage_stat(r->stage, &st);
	assert_int_equal(st.front_bytes, 0);
	assert_int_equal(st.drive_bytes, 0);
	assert_int_equal(st.slots_free + st.slots_quarantined, st.slots_total);
	for (unsigned i = 0; i < r->conf.drives; i++) {
		struct rig_drive *d = &r->drive[i];

		assert_int_equal(d->holds, 0);
		if (d->alive)
			rings_close(d);
		for (unsigned k = 0; k < RIG_OBJECTS; k++)
			free(d->obj[k].data);
		if (d->arena != NULL)
			mkv_os_shm_unmap(d->arena, RIG_ARENA);
	}
	mkv_front_destroy(&r->f);
	mkv_ioq_destroy(&r->q);
	mkv_timers_fini(&r->timers);
	mkv_metrics_close(&r->m);
	mkv_stage_close(&r->stage);
	close(r->stage_fd);
}
