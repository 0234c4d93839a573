/*
 * memkv-front, loop thread: EXISTS and MATCH. Keys become digests as they come. Those of a drive are sent to it in slices of one stage unit, the first of
 * them while the rest of the list is still on its way, and its answers (one byte a key) take their places at once. No key is compared in full: index only.
 *
 * u->unit[] has the digests in order and stays ours, so a slice can be made again when its drive dies with it. The byte of key i in u->res is BYTE_DRIVE and
 * its drive until the answer replaces it; keys of a drive that went out of service are misses.
 */
#include "config.h"

#include "worker/front/keys_priv.h"

#include <string.h>

#include "common/base/assert.h"
#include "common/base/err.h"

#define BYTE_DRIVE	0x80u		/* not answered yet, drive in the other bits */

_Static_assert(MKV_FRONT_DRIVES_MAX <= BYTE_DRIVE && MKV_REASON_COUNT <= BYTE_DRIVE / 2, "a byte is an answer or a drive");
_Static_assert(MKV_FRONT_DRIVES_MAX <= MKV_DRV_STRIPE_MAX, "tables by drive");

/* Where things lie, looked up once for many keys. */
struct batch_view {
	uint8_t		*res;
	struct mkv_digest *unit[KEYS_UNITS_MAX];
};

static void
batch_view(const struct mkv_req *r, struct batch_view *v)
{
	v->res = mkv_buf_ptr(r->f->stage, r->u.keys.res);
	for (unsigned i = 0; i < r->u.keys.n_units; i++)
		v->unit[i] = mkv_buf_ptr(r->f->stage, r->u.keys.unit[i]);
}

static inline struct mkv_digest *
view_digest(const struct batch_view *v, uint32_t i)
{
	return (&v->unit[i / KEYS_DIGESTS_UNIT][i % KEYS_DIGESTS_UNIT]);
}

static inline uint8_t *
view_byte(const struct batch_view *v, uint32_t i)
{
	return (v->res + mkv_keys_byte_off(i));
}

/* ---- Taking ---------------------------------------------------------------------------------------------------------------- */

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

static inline void
batch_key(struct mkv_req *r, const struct batch_view *v, struct mkv_digest d)
{
	struct mkv_keys *u = &r->u.keys;
	int drive = mkv_route_home(r->f, d);

	*view_digest(v, u->n) = d;
	if (drive < 0)
		*view_byte(v, u->n) = MKV_REASON_DRIVE_OFFLINE << 1;
	else {
		*view_byte(v, u->n) = (uint8_t)(BYTE_DRIVE | (unsigned)drive);
		u->count[drive]++;
		u->has |= 1ull << drive;
	}
	u->n++;
}

static int
batch_take(struct mkv_req *r, const struct mkv_hdr *h, const uint8_t *body)
{
	struct mkv_wire_in in = { body, body + h->body_bytes };
	const struct mkv_wire_keys *w = mkv_wire_take(&in, sizeof(*w));
	const uint8_t *secret = mkv_ns_secret(r->f, r->ns, r->ns_bytes), *key;
	struct batch_view v;
	size_t bytes;

	if (secret == NULL)
		return (MKV_E_SYSTEM);
	if (batch_units(r, r->u.keys.n + w->n_keys) != 0)
		return (MKV_E_AGAIN);
	if (r->u.keys.n == 0)
		r->u.keys.twice = (uint8_t)r->f->has_former;
	batch_view(r, &v);
	(void)mkv_wire_take(&in, w->ns_bytes);
	for (uint32_t i = 0; i < w->n_keys; i++) {
		if ((key = mkv_keys_next(&in, &bytes)) == NULL)
			return (MKV_E_PROTO);
		batch_key(r, &v, mkv_digest(secret, key, bytes));
	}
	return (mkv_wire_skip_pad(&in, body) && in.p == in.end ? 0 : MKV_E_PROTO);
}

static enum mkv_take
batch_part(struct mkv_req *r, const struct mkv_hdr *h, const uint8_t *body)
{
	return (mkv_keys_part(r, h, body, batch_take));
}

/* ---- Slices ---------------------------------------------------------------------------------------------------------------- */

/* Copy what the slice asks for to its buffer. Returns the key behind its last. */
static uint32_t
slice_gather(const struct mkv_req *r, const struct mkv_keys_slice *s)
{
	struct mkv_digest *to = mkv_buf_ptr(r->f->stage, s->buf);
	uint8_t mine = (uint8_t)(BYTE_DRIVE | s->drive);
	uint32_t i = s->first;
	struct batch_view v;

	batch_view(r, &v);
	for (unsigned k = 0; k < s->n; i++) {
		MKV_ASSERT(i < r->u.keys.n);
		if (*view_byte(&v, i) == mine)
			to[k++] = *view_digest(&v, i);
	}
	return (i);
}

static struct mkv_keys_slice *
slice_free(struct mkv_keys *u)
{
	for (unsigned i = 0; i < KEYS_SLICES_MAX; i++)
		if (u->slice[i].state == SLICE_FREE)
			return (&u->slice[i]);
	return (NULL);
}

/* How many keys of this drive are to be cut off now; 0: more are waited for. */
static uint32_t
slice_due(const struct mkv_keys *u, unsigned drive)
{
	uint32_t n = u->count[drive];

	if (n >= KEYS_DIGESTS_UNIT)
		return (KEYS_DIGESTS_UNIT);
	return (!u->more || (n >= KEYS_EARLY && u->n_early < KEYS_EARLY_MAX) ? n : 0);
}

/* Cut the next slice of a drive. 1; 0: parked. */
static int
slice_cut(struct mkv_req *r, unsigned drive, uint32_t n)
{
	struct mkv_keys *u = &r->u.keys;
	struct mkv_keys_slice *s = slice_free(u);

	MKV_ASSERT(s != NULL);
	if (mkv_buf_take_parked(r, MKV_STAGE_UNIT, &s->buf) != 0)
		return (0);
	s->first = u->from[drive];
	s->n = (uint16_t)n;
	s->drive = (uint8_t)drive;
	s->state = SLICE_READY;
	u->from[drive] = slice_gather(r, s);
	u->n_early += u->more && n < KEYS_DIGESTS_UNIT;
	if ((u->count[drive] -= n) == 0)
		u->has &= ~(1ull << drive);
	return (1);
}

/* 1: pushed; 0: parked. */
static int
slice_push(struct mkv_req *r, struct mkv_keys_slice *s)
{
	struct mkv_keys *u = &r->u.keys;
	struct mkv_drv_req *q;
	struct mkv_dop *d;

	if (s->buf.unit_count == 0) {
		if (mkv_buf_take_parked(r, MKV_STAGE_UNIT, &s->buf) != 0)
			return (0);
		(void)slice_gather(r, s);
	}
	if ((d = mkv_dop_take(r->f, r)) == NULL)
		return (0);
	q = mkv_dop_req(r->f, d);
	q->n_digests = s->n;
	q->flags = (uint16_t)((u->flags & MKV_WIRE_LIST_NO_TOUCH ? MKV_DRV_F_NO_TOUCH : 0) |
	    (r->op == MKV_WIRE_MATCH && !u->twice ? MKV_DRV_F_BATCH_MATCH : 0));
	q->lease_ms = u->lease_ms;
	q->n_bufs = 1;
	q->bufs[0].off = mkv_buf_off(r->f->stage, s->buf);
	q->bufs[0].bytes = s->n * (uint32_t)sizeof(struct mkv_digest);
	d->tag = (uint32_t)(s - u->slice);
	d->buf[0] = s->buf;
	d->n_buf = 1;
	s->state = SLICE_AWAY;
	u->n_away++;
	mkv_dop_push(r->f, d, s->drive, MKV_DRV_BATCH);
	return (1);
}

/* Cut and send what is due. 1: all of it; 0: parked. */
static int
slices_push(struct mkv_req *r)
{
	struct mkv_keys *u = &r->u.keys;
	uint32_t n;

	for (unsigned i = 0; i < KEYS_SLICES_MAX; i++)
		if (u->slice[i].state == SLICE_READY && !slice_push(r, &u->slice[i]))
			return (0);
	for (uint64_t left = u->has; left != 0; left &= left - 1) {
		unsigned drive = (unsigned)__builtin_ctzll(left);

		while ((n = slice_due(u, drive)) != 0) {
			struct mkv_keys_slice *s = slice_free(u);

			if (!slice_cut(r, drive, n) || !slice_push(r, s))
				return (0);
		}
	}
	return (1);
}

/* ---- Answers --------------------------------------------------------------------------------------------------------------- */

/* The byte that the client gets for a drive's byte, which is foreign. */
static inline uint8_t
slice_byte(const struct mkv_req *r, uint8_t b, const struct mkv_digest *d)
{
	unsigned reason = b >> 1;

	if (b & 1)
		return (1);
	if (reason >= MKV_REASON_COUNT)
		reason = MKV_REASON_NEVER;
	return ((uint8_t)(mkv_route_reason(r->f, *d, (int)reason) << 1));
}

/* Its keys are answered: by its bytes, or, gone, by none. */
static void
slice_merge(struct mkv_req *r, const struct mkv_keys_slice *s, int gone)
{
	const uint8_t *from = gone ? NULL : mkv_buf_ptr(r->f->stage, s->buf);
	uint8_t mine = (uint8_t)(BYTE_DRIVE | s->drive);
	struct batch_view v;
	unsigned k = 0;

	batch_view(r, &v);
	for (uint32_t i = s->first; k < s->n; i++) {
		uint8_t *b = view_byte(&v, i);

		MKV_ASSERT(i < r->u.keys.n);
		if (*b != mine)
			continue;
		*b = gone ? MKV_REASON_DRIVE_OFFLINE << 1 : slice_byte(r, from[k], view_digest(&v, i));
		k++;
	}
}

/* All slices that died with one life of a drive are one try. */
static void
batch_again(struct mkv_req *r, const struct mkv_dop *d)
{
	if (r->u.keys.lost_epoch == d->epoch)
		return;
	r->u.keys.lost_epoch = d->epoch;
	if (!mkv_req_again(r, MKV_E_RETRY))
		mkv_req_end(r, MKV_E_RETRY, MKV_REASON_NONE, NULL, 0);
}

static void
batch_on_dop(struct mkv_req *r, struct mkv_dop *d, const struct mkv_drv_rep *rep, int status)
{
	struct mkv_keys_slice *s = &r->u.keys.slice[d->tag];

	MKV_ASSERT(d->tag < KEYS_SLICES_MAX && s->state == SLICE_AWAY);
	r->u.keys.n_away--;
	s->state = SLICE_READY;
	if (d->n_buf == 0)			/* a dead drive has it */
		s->buf.unit_count = 0;
	if (r->ending)
		return;
	if (rep == NULL && status == MKV_E_RETRY && mkv_drive_serves(&r->f->drive[s->drive])) {
		batch_again(r, d);
		return;
	}
	if (status != 0 && (rep != NULL || status != MKV_E_RETRY)) {
		mkv_req_end(r, status, MKV_REASON_NONE, NULL, 0);
		return;
	}
	if (rep != NULL)
		r->u.keys.granted_ms = MKV_MIN(r->u.keys.granted_ms, rep->lease_ms);
	slice_merge(r, s, rep == NULL);
	mkv_buf_back(r, &s->buf);
	s->state = SLICE_FREE;
}

/* All homes have answered: what they lack is asked of the former homes, where there are any. Returns how many keys. */
static uint32_t
batch_second(struct mkv_req *r)
{
	struct mkv_keys *u = &r->u.keys;
	struct batch_view v;
	uint32_t n = 0;
	int drive;

	if (u->twice != 1)
		return (0);
	u->twice = 2;
	memset(u->from, 0, sizeof(u->from));
	batch_view(r, &v);
	for (uint32_t i = 0; i < u->n; i++) {
		uint8_t *b = view_byte(&v, i);

		if ((*b & 1) || (drive = mkv_route_former(r->f, *view_digest(&v, i))) < 0)
			continue;
		*b = (uint8_t)(BYTE_DRIVE | (unsigned)drive);
		if (u->count[drive]++ == 0)
			u->from[drive] = i;
		u->has |= 1ull << drive;
		n++;
	}
	return (n);
}

/* All bytes are answers: count them. A match ends at the first that is absent. */
static void
batch_count(struct mkv_req *r)
{
	uint32_t missing[MKV_REASON_COUNT] = { 0 };
	struct mkv_keys *u = &r->u.keys;
	struct batch_view v;

	batch_view(r, &v);
	for (uint32_t i = 0; i < u->n; i++) {
		uint8_t b = *view_byte(&v, i);

		if (b & 1) {
			u->n_there++;
			continue;
		}
		MKV_ASSERT(b < BYTE_DRIVE);
		missing[b >> 1]++;
		if (r->op == MKV_WIRE_MATCH) {
			u->first_reason = b >> 1;
			break;
		}
	}
	for (unsigned i = 0; i < MKV_REASON_COUNT; i++)
		if (missing[i] != 0)
			mkv_keys_count_miss(r, i, missing[i]);
}

static void
batch_match_answer(struct mkv_req *r)
{
	struct mkv_wire_keys_reply w = { .n_there = r->u.keys.n_there, .reason = r->u.keys.first_reason };

	w.lease_ms = w.n_there > 0 ? r->u.keys.granted_ms : 0;
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
	if (!u->started || !slices_push(r) || u->more || u->n_away != 0)
		return (MKV_NEXT_PARK);
	if (batch_second(r) != 0)
		return (MKV_NEXT_AGAIN);
	batch_count(r);
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
