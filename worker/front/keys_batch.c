/*
 * memkv-front, loop thread: EXISTS and MATCH. Keys become digests as they come; after the last part each drive is sent one batch of those that are its
 * own, and its answers (one byte a key) are merged in the order of the keys. No key is compared in full: index only.
 *
 * u->unit[] has the digests in order, the byte of key i in u->res its drive until the answer replaces it. A drive that dies has its batch sent again;
 * one that went out of service makes its keys misses.
 */
#include "config.h"

#include "worker/front/keys_priv.h"

#include <string.h>

#include "common/base/assert.h"
#include "common/base/err.h"

#define NO_DRIVE	255u

static struct mkv_digest *
batch_digest(const struct mkv_req *r, uint32_t i)
{
	struct mkv_digest *unit = mkv_buf_ptr(r->f->stage, r->u.keys.unit[i / KEYS_DIGESTS_UNIT]);

	return (&unit[i % KEYS_DIGESTS_UNIT]);
}

/* Stage memory for the digests of keys up to n. 0; MKV_E_AGAIN: parked. */
static int
batch_units(struct mkv_req *r, uint32_t n)
{
	struct mkv_keys *u = &r->u.keys;

	while (u->n_units * KEYS_DIGESTS_UNIT < n) {
		MKV_ASSERT(u->n_units < KEYS_UNITS_MAX);
		if (mkv_buf_take_parked(r, MKV_STAGE_UNIT, &u->unit[u->n_units]) != 0)
			return (MKV_E_AGAIN);
		u->n_units++;
	}
	return (0);
}

static int
batch_take(struct mkv_req *r, const struct mkv_hdr *h, const uint8_t *body)
{
	struct mkv_keys *u = &r->u.keys;
	struct mkv_wire_in in = { body, body + h->body_bytes };
	const struct mkv_wire_keys *w = mkv_wire_take(&in, sizeof(*w));
	const uint8_t *secret = mkv_ns_secret(r->f, r->ns, r->ns_bytes);

	if (secret == NULL)
		return (MKV_E_SYSTEM);
	if (batch_units(r, u->n + w->n_keys) != 0)
		return (MKV_E_AGAIN);
	(void)mkv_wire_take(&in, w->ns_bytes);
	for (uint32_t i = 0; i < w->n_keys; i++) {
		size_t bytes;
		const uint8_t *key = mkv_keys_next(&in, &bytes);
		struct mkv_digest d = mkv_digest(secret, key, bytes);
		int drive = mkv_route_home(r->f, d);

		*batch_digest(r, u->n) = d;
		*mkv_keys_byte(r, u->n) = drive >= 0 ? (uint8_t)drive : NO_DRIVE;
		if (drive >= 0) {
			u->count[drive]++;
			u->todo |= 1ull << drive;
		}
		u->n++;
	}
	return (0);
}

static enum mkv_take
batch_part(struct mkv_req *r, const struct mkv_hdr *h, const uint8_t *body)
{
	return (mkv_keys_part(r, h, body, batch_take));
}

/* ---- Asking ---------------------------------------------------------------------------------------------------------------- */

static uint32_t
batch_gather(const struct mkv_req *r, unsigned drive, struct mkv_digest *to)
{
	uint32_t k = 0;

	for (uint32_t i = 0; i < r->u.keys.n; i++)
		if (*mkv_keys_byte(r, i) == drive)
			to[k++] = *batch_digest(r, i);
	return (k);
}

/* 1: pushed; 0: parked. */
static int
batch_push(struct mkv_req *r, unsigned drive)
{
	struct mkv_keys *u = &r->u.keys;
	struct mkv_buf *b = &u->batch[drive];
	uint32_t bytes = u->count[drive] * (uint32_t)sizeof(struct mkv_digest);
	struct mkv_drv_req *q;
	struct mkv_dop *d;

	if (b->unit_count == 0 && mkv_buf_take_parked(r, bytes, b) != 0)
		return (0);
	if ((d = mkv_dop_take(r->f, r)) == NULL)
		return (0);
	q = mkv_dop_req(r->f, d);
	q->n_digests = batch_gather(r, drive, mkv_buf_ptr(r->f->stage, *b));
	MKV_ASSERT(q->n_digests == u->count[drive]);
	q->flags = (uint16_t)((u->flags & MKV_WIRE_LIST_NO_TOUCH ? MKV_DRV_F_NO_TOUCH : 0) |
	    (r->op == MKV_WIRE_MATCH ? MKV_DRV_F_BATCH_MATCH : 0));
	q->n_bufs = 1;
	q->bufs[0].off = mkv_buf_off(r->f->stage, *b);
	q->bufs[0].bytes = bytes;
	d->tag = drive;
	d->buf[0] = *b;
	d->n_buf = 1;
	u->todo &= ~(1ull << drive);
	u->away |= 1ull << drive;
	mkv_dop_push(r->f, d, (int)drive, MKV_DRV_BATCH);
	return (1);
}

static void
batch_on_dop(struct mkv_req *r, struct mkv_dop *d, const struct mkv_drv_rep *rep, int status)
{
	struct mkv_keys *u = &r->u.keys;
	unsigned drive = d->tag;

	u->away &= ~(1ull << drive);
	if (d->n_buf == 0)			/* a dead drive has it */
		u->batch[drive].unit_count = 0;
	if (r->ending || (rep != NULL && status == 0))
		return;
	if (rep == NULL && mkv_drive_serves(&r->f->drive[drive]) && mkv_req_again(r, status)) {
		u->todo |= 1ull << drive;
		return;
	}
	if (rep == NULL && status == MKV_E_RETRY)
		u->gone |= 1ull << drive;
	else
		mkv_req_end(r, status, MKV_REASON_NONE, NULL, 0);
}

/* ---- Merging --------------------------------------------------------------------------------------------------------------- */

static uint8_t
batch_byte(struct mkv_req *r, uint32_t i, const uint8_t *const at[MKV_DRV_STRIPE_MAX], uint32_t used[MKV_DRV_STRIPE_MAX])
{
	unsigned drive = *mkv_keys_byte(r, i), reason;
	uint8_t b;

	if (drive == NO_DRIVE || (r->u.keys.gone & 1ull << drive) != 0)
		return (MKV_REASON_DRIVE_OFFLINE << 1);
	b = at[drive][used[drive]++];
	if (b & 1)
		return (1);
	reason = b >> 1;
	if (reason >= MKV_REASON_COUNT)			/* foreign */
		reason = MKV_REASON_NEVER;
	return ((uint8_t)(mkv_route_reason(r->f, *batch_digest(r, i), (int)reason) << 1));
}

/* All answers are in: the bytes in order of the keys. A match ends at the first that is absent. */
static void
batch_merge(struct mkv_req *r)
{
	struct mkv_keys *u = &r->u.keys;
	const uint8_t *at[MKV_DRV_STRIPE_MAX] = { NULL };
	uint32_t used[MKV_DRV_STRIPE_MAX] = { 0 };
	int match = r->op == MKV_WIRE_MATCH;

	for (unsigned i = 0; i < MKV_DRV_STRIPE_MAX; i++)
		if (u->batch[i].unit_count != 0)
			at[i] = mkv_buf_ptr(r->f->stage, u->batch[i]);
	for (uint32_t i = 0; i < u->n; i++) {
		uint8_t b = batch_byte(r, i, at, used);

		*mkv_keys_byte(r, i) = b;
		u->n_there += b & 1;
		if ((b & 1) != 0)
			continue;
		mkv_keys_count_miss(r, b >> 1);
		if (match) {
			u->first_reason = b >> 1;
			break;
		}
	}
}

static void
batch_match_answer(struct mkv_req *r)
{
	struct mkv_wire_keys_reply w = { .n_there = r->u.keys.n_there, .reason = r->u.keys.first_reason };

	mkv_metric_add(r->f->m, MKV_M_front_hits_total, r->op, w.n_there);
	mkv_req_end(r, 0, MKV_REASON_NONE, &w, sizeof(w));
}

static enum mkv_next
batch_step(struct mkv_req *r)
{
	struct mkv_keys *u = &r->u.keys;

	if (u->held) {
		mkv_conn_kick(r->c);
		return (MKV_NEXT_PARK);
	}
	if (u->more || !u->started)
		return (MKV_NEXT_PARK);
	while (u->todo != 0)
		if (!batch_push(r, (unsigned)__builtin_ctzll(u->todo)))
			return (MKV_NEXT_PARK);
	if (u->away != 0)
		return (MKV_NEXT_PARK);
	batch_merge(r);
	if (r->op == MKV_WIRE_MATCH)
		batch_match_answer(r);
	else
		mkv_keys_answer(r);
	return (MKV_NEXT_AGAIN);
}

const struct mkv_req_ops mkv_exists_ops = {
	.op = MKV_WIRE_EXISTS,
	.start = mkv_keys_start,
	.part = batch_part,
	.step = batch_step,
	.on_dop = batch_on_dop,
	.undo = mkv_keys_undo,
};

const struct mkv_req_ops mkv_match_ops = {
	.op = MKV_WIRE_MATCH,
	.start = mkv_keys_start,
	.part = batch_part,
	.step = batch_step,
	.on_dop = batch_on_dop,
	.undo = mkv_keys_undo,
};
