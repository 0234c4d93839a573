/*
 * PUT, and RESERVE / COMMIT / ABORT of memory mode. Drive's loop thread.
 *
 *   START -> LOCK (if-absent only) -> LOOKUP (is it there, the same?) -> SPACE -> IO -> COMMIT (lock; record into page and journal) -> FLUSH -> APPLY
 *              ^                             |                             accepted: answered here <-/
 *              \---- same bytes: a touch ----/
 *
 * A put of the bytes that are there, all of them verified, is a touch: decided under the key's lock, behind all that the journal has of the key, and answered
 * when what made it so is durable and the object is there still. RESERVE may ask for that before there are any bytes (MKV_DRV_F_IF_SAME).
 *
 * Until COMMIT the request owns units, slot and side record and gives them back at any end; after it the entry does. A failed data write is
 * answered to the requester and its units stay taken until the next start. A failed flush leaves the entry unlinked: nobody knows what it holds.
 * From a region of a client (r->region) the medium writes whole blocks itself, and nobody here reads them: what is stored is unverified. A failed write may be that client's doing:
 * the front brings the bytes by its stage then, and the units are free.
 */
#include "config.h"

#include <string.h>

#include "common/base/crc.h"
#include "common/base/err.h"
#include "worker/drive/engine_priv.h"

static int
put_plain(const struct mkv_req *r)
{
	return ((r->q.flags & (MKV_DRV_F_PIECE | MKV_DRV_F_MANIFEST)) == 0);
}

static uint64_t
put_stripe_mask(const struct mkv_drv_req *q)
{
	uint64_t mask = 0;

	for (unsigned i = 0; i < q->n_stripe; i++)
		mask |= 1ull << q->stripe[i];
	return (mask);
}

static int
put_check_manifest(const struct mkv_drv_req *q)
{
	if (q->piece_count > MKV_DRV_PIECES_MAX || q->value_bytes > MKV_DRV_VALUE_MAX)
		return (MKV_E_TOOBIG);
	if (q->n_bufs != 0 || q->n_crcs != 0 || q->n_stripe == 0 || q->piece_count == 0 || q->piece_bytes == 0)
		return (MKV_E_PROTO);
	return (q->value_bytes <= (uint64_t)q->piece_count * q->piece_bytes ? 0 : MKV_E_PROTO);
}

/* Foreign numbers that belong together. 0, MKV_E_PROTO, MKV_E_TOOBIG. */
static int
put_check(struct mkv_req *r)
{
	struct mkv_drv_req *q = &r->q;

	if ((q->flags & MKV_DRV_F_PIECE) && (q->flags & MKV_DRV_F_MANIFEST))
		return (MKV_E_PROTO);
	/* What is beyond would never be looked for when it is to be freed. */
	if ((q->flags & MKV_DRV_F_PIECE) && q->piece_no >= MKV_DRV_PIECES_MAX)
		return (MKV_E_TOOBIG);
	if (q->flags & MKV_DRV_F_MANIFEST)
		return (put_check_manifest(q));
	if (q->value_bytes > r->e->sb.extent_bytes)
		return (MKV_E_TOOBIG);
	if (q->n_crcs != mkv_crc_chunks(q->value_bytes))
		return (MKV_E_PROTO);
	if ((q->flags & MKV_DRV_F_PIECE) && !mkv_digest_eq(q->digest, mkv_piece_digest(r->e->piece_secret, q->set, q->piece_no)))
		return (MKV_E_PROTO);
	if (q->op == MKV_DRV_PUT && r->room < q->value_bytes)
		return (MKV_E_PROTO);
	return (0);
}

/* Is the stored object what is put, as far as size and CRCs tell? */
static int
put_is_same(const struct mkv_req *r, const struct mkv_obj_view *v)
{
	return (v->o->value_bytes == r->q.value_bytes && v->o->n_crcs == r->q.n_crcs &&
	    (r->q.n_crcs == 0 || memcmp(v->crcs, r->q.crcs, r->q.n_crcs * sizeof(uint32_t)) == 0));
}

/* Bytes that matched their CRCs are there, nobody has found them bad since, and no purge is before this put. */
static int
put_ent_counts(struct mkv_req *r, const struct mkv_ent *en)
{
	return ((en->flags & (MKV_ENT_VERIFIED | MKV_ENT_MANIFEST | MKV_ENT_QUARANTINE)) == MKV_ENT_VERIFIED && !ns_closed(r->e, en));
}

/* Of bytes that came only checked ones count; those that are still with the client are what it says. */
static int
put_may_be_same(struct mkv_req *r, const struct mkv_ent *en)
{
	int checked = (r->q.flags & MKV_DRV_F_VERIFIED) != 0 || r->q.op == MKV_DRV_RESERVE;

	return (checked && put_plain(r) && (r->q.flags & MKV_DRV_F_OVERWRITE) == 0 && en->units == r->units && put_ent_counts(r, en));
}

/* Since it was found, under the lock that keeps puts, deletes and eviction away. */
static int
put_still_same(struct mkv_req *r)
{
	uint32_t i = mkv_index_find(&r->e->ix, r->q.digest);

	return (i != MKV_ENT_NIL && put_ent_counts(r, eng_ent(r->e, i)));
}

/* Its bytes have to be stored. The lock is had again at COMMIT: nobody needs it meanwhile. */
static enum mkv_next
put_differs(struct mkv_req *r)
{
	if (r->lock == 2 && (r->q.flags & MKV_DRV_F_IF_ABSENT) == 0)
		req_unlock(r);
	r->same = 0;
	r->state = RQ_SPACE;
	return (MKV_NEXT_AGAIN);
}

static enum mkv_next
put_touched(struct mkv_req *r)
{
	r->p.same = 1;
	ENG_COUNT(r->e, touches_total, 1);
	return (req_finish(r, 0, MKV_REASON_NONE));
}

static enum mkv_next
put_done_already(struct mkv_req *r)
{
	return (r->same & 1 ? put_touched(r) : req_finish(r, 0, MKV_REASON_NONE));
}

/* Done already, but perhaps only in memory: the answer waits until it is durable. */
static enum mkv_next
put_sync(struct mkv_req *r)
{
	int durable = r->q.flags & MKV_DRV_F_ACCEPTED ? 1 : journal_sync_req(r);

	if (durable < 0)
		return (req_finish(r, durable, MKV_REASON_NONE));
	if (durable)
		return (put_done_already(r));
	r->same |= 2;
	r->state = RQ_FLUSH;
	return (MKV_NEXT_PARK);
}

/* What the whole value takes of this drive. */
static uint64_t
put_units_here(const struct mkv_req *r)
{
	uint64_t mask = put_stripe_mask(&r->q);

	if ((r->q.flags & MKV_DRV_F_MANIFEST) == 0)
		return (r->units);
	return ((mask >> r->e->o.drive_idx) & 1 ? set_units(r->e, mask, r->q.piece_count) : 0);
}

static enum mkv_next
put_start(struct mkv_req *r)
{
	uint32_t unit = r->e->sb.unit_bytes;
	int err = put_check(r);

	if (err != 0)
		return (req_finish(r, err, MKV_REASON_NONE));
	if (r->q.flags & MKV_DRV_F_MANIFEST) {
		if (setmap_has(r->e, r->q.set))
			return (put_sync(r));	/* sent again: another one beside it would free the pieces of both */
		if (!openset_may_commit(r->e, r->q.set))
			return (req_finish(r, MKV_E_BUSY, MKV_REASON_NONE));	/* of a former life, or too late: its pieces may be gone */
	}
	if ((r->q.flags & MKV_DRV_F_MANIFEST) == 0)
		r->units = (uint32_t)MKV_DIV_UP(r->q.value_bytes, unit);
	if (!evict_pin_room(r, put_units_here(r)))
		return (req_finish(r, MKV_E_NOSPACE, MKV_REASON_NONE));
	r->expires_ms = r->q.ttl_ms ? r->wall_ms + MKV_MIN(r->q.ttl_ms, UINT64_MAX / 4) : 0;
	r->state = r->q.flags & MKV_DRV_F_IF_ABSENT ? RQ_LOCK : RQ_LOOKUP;
	return (MKV_NEXT_AGAIN);
}

static enum mkv_next
put_lock(struct mkv_req *r)
{
	if (r->err != 0)
		return (req_finish(r, r->err, MKV_REASON_NONE));
	if (!req_lock(r))
		return (MKV_NEXT_PARK);
	r->state = RQ_LOOKUP;
	return (MKV_NEXT_AGAIN);
}

/* Entry i is the same. Without the lock it was a look: whoever has it may be about to change that, or has, and it is in the journal. */
static enum mkv_next
put_touch(struct mkv_req *r, uint32_t i)
{
	const struct mkv_ent *en = eng_ent(r->e, i);

	if (r->lock != 2) {
		r->state = RQ_LOCK;
		return (MKV_NEXT_AGAIN);
	}
	ent_hit(r->e, i);
	r->same = 1;
	if (eng_ticks(r->e, r->expires_ms) == en->expires && ((r->q.flags & MKV_DRV_F_PIN) == 0 || (en->flags & MKV_ENT_PIN)))
		return (put_sync(r));
	r->state = RQ_COMMIT;
	return (MKV_NEXT_AGAIN);
}

/* Nothing of the key is there. Whether a put is let in is asked once: when its bytes are here. */
static enum mkv_next
put_absent(struct mkv_req *r)
{
	if (r->q.op == MKV_DRV_RESERVE || evict_admit(r))
		return (put_differs(r));
	return (req_finish(r, 0, MKV_REASON_NONE));
}

static enum mkv_next
put_lookup(struct mkv_req *r)
{
	struct mkv_obj_view v;
	unsigned reason;
	uint32_t i;
	int err;

	if (r->err != 0)
		return (req_finish(r, r->err, MKV_REASON_NONE));
	if ((i = req_find(r, &reason)) == MKV_ENT_NIL)
		return (put_absent(r));
	if ((r->q.flags & MKV_DRV_F_IF_ABSENT) == 0 && !put_may_be_same(r, eng_ent(r->e, i)))
		return (put_differs(r));
	if ((err = obj_record(r, i, &v)) == MKV_E_AGAIN)
		return (MKV_NEXT_PARK);
	if (err != 0)
		return (put_differs(r));	/* its record is lost: the put replaces it */
	if (!obj_key_is(&v, &r->q)) {
		ENG_COUNT(r->e, collisions_total, 1);
		return (put_differs(r));
	}
	if (r->q.flags & MKV_DRV_F_IF_ABSENT) {
		if (v.o->put_id != r->q.put_id || r->q.put_id == 0)
			return (req_finish(r, MKV_E_EXISTS, MKV_REASON_NONE));
		return (put_sync(r));
	}
	return (put_is_same(r, &v) ? put_touch(r, i) : put_differs(r));
}

/* Slot, units and side record: all or none. */
static int
put_take(struct mkv_req *r)
{
	struct mkv_engine *e = r->e;
	int manifest = (r->q.flags & MKV_DRV_F_MANIFEST) != 0;

	if (e->ix.linked >= e->sb.objects_max && mkv_index_find(&e->ix, r->q.digest) == MKV_ENT_NIL)
		return (0);
	if (r->ent == MKV_ENT_NIL && (r->ent = mkv_index_take(&e->ix)) == MKV_ENT_NIL)
		return (0);
	if (r->units > 0 && r->n_runs == 0) {
		r->n_runs = mkv_alloc_take(&e->al, r->units, r->run, e->ix.sides_used < e->ix.sides_max ? MKV_OBJ_RUNS_MAX : 1);
		if (r->n_runs == 0)
			return (0);
	}
	if ((r->n_runs > 1 || manifest) && r->side == MKV_ENT_NIL && (r->side = mkv_side_take(&e->ix)) == MKV_ENT_NIL)
		return (0);
	return (1);
}

/*
 * Nothing leaves this store: is a wait worth it? Only for the range that is being discarded at this moment, which is free space and nobody's (what waits
 * to be discarded is there to be taken), and only where it is units that are missing, and not more than come back.
 */
static int
put_trim_helps(const struct mkv_req *r)
{
	const struct mkv_engine *e = r->e;

	return (e->trim.claim.len > 0 && r->ent != MKV_ENT_NIL && r->n_runs == 0 && r->units > 0 && r->units <= e->al.free_units + e->trim.claim.len);
}

/* 1: has it; 0: waits; negative: the end. Who waits already goes first. */
static int
put_space(struct mkv_req *r)
{
	struct mkv_engine *e = r->e;
	int waited = r->tries > 1;

	if (e->readonly)
		return (MKV_E_READONLY);
	if (r->err != 0)
		return (r->err == MKV_E_TIMEOUT ? MKV_E_BUSY : r->err);
	if ((waited || mkv_list_empty(&e->space_wait)) && put_take(r)) {
		e->evict_need -= waited ? MKV_MIN(e->evict_need, r->units) : 0;
		e->taken_units += r->units;
		evict_wake(e);
		r->tries = 0;
		return (1);
	}
	if (!evict_on(e) && !put_trim_helps(r)) {
		evict_wake(e);
		return (MKV_E_NOSPACE);
	}
	if (!waited) {
		ENG_COUNT(e, space_waits_total, 1);
		r->tries = 2;
		e->evict_need += r->units;
	}
	req_park(r, NULL);
	if (waited)
		mkv_list_push_head(&e->space_wait, &r->link);
	else
		mkv_list_push_tail(&e->space_wait, &r->link);
	return (0);
}

static enum mkv_next
put_space_step(struct mkv_req *r, enum req_state next)
{
	int s = put_space(r);

	if (s == 0)
		return (MKV_NEXT_PARK);
	if (s < 0)
		return (req_finish(r, s, MKV_REASON_NONE));
	r->state = next;
	if (next == RQ_IO)
		req_xfer(r, 1, 0, MKV_ALIGN_UP(r->q.value_bytes, MKV_BLOCK), 0, NULL);
	return (MKV_NEXT_AGAIN);
}

static enum mkv_next
put_io(struct mkv_req *r)
{
	if (r->x.in_flight > 0 || r->x.pos < r->x.end)
		return (MKV_NEXT_PARK);
	if (r->x.err != 0 && r->region != 0)
		return (req_finish(r, MKV_E_UNSUPPORTED, MKV_REASON_NONE));
	if (r->x.err != 0) {
		r->quarantine = 1;
		return (req_finish(r, MKV_E_IO, MKV_REASON_NONE));
	}
	if (r->err != 0)
		return (req_finish(r, r->err, MKV_REASON_NONE));	/* late, and not all was written; nothing is under way */
	MKV_CRASH_POINT("put.after_data");
	r->state = RQ_COMMIT;
	return (MKV_NEXT_AGAIN);
}

/* The object record of this put, in e->obj. */
static const struct mkv_obj *
put_build(struct mkv_req *r)
{
	struct mkv_drv_req *q = &r->q;
	struct mkv_obj *o = (struct mkv_obj *)r->e->obj;
	uint8_t *b = (uint8_t *)(o + 1);

	memset(r->e->obj, 0, sizeof(r->e->obj));
	o->flags = (uint16_t)((q->parent.lo | q->parent.hi ? MKV_OBJ_PARENT : 0) | (put_plain(r) ? 0 : MKV_OBJ_SET) |
	    (q->flags & MKV_DRV_F_PIECE ? MKV_OBJ_PIECE : 0) | (q->flags & MKV_DRV_F_MANIFEST ? MKV_OBJ_MANIFEST : 0) |
	    (q->flags & MKV_DRV_F_VERIFIED ? MKV_OBJ_VERIFIED : 0) | (q->flags & MKV_DRV_F_PIN ? MKV_OBJ_PIN : 0));
	o->key_bytes = q->key_bytes;
	o->ns_bytes = (uint8_t)q->ns_bytes;
	o->n_crcs = q->n_crcs;
	o->n_runs = (uint8_t)r->n_runs;
	o->n_stripe = (uint8_t)(q->flags & MKV_DRV_F_MANIFEST ? q->n_stripe : 0);
	o->units = r->units;
	o->digest = q->digest;
	o->value_bytes = q->value_bytes;
	o->put_wall_ms = r->wall_ms;
	o->expires_ms = r->expires_ms;
	o->put_id = q->put_id;
	o->bytes = (uint16_t)mkv_obj_bytes(o);
	if (o->flags & MKV_OBJ_PARENT)
		b = (uint8_t *)memcpy(b, &q->parent, sizeof(q->parent)) + sizeof(q->parent);
	if (o->flags & MKV_OBJ_SET) {
		struct mkv_obj_set s = { q->set, q->piece_no, q->piece_count, q->piece_bytes, q->home_idx };

		b = (uint8_t *)memcpy(b, &s, sizeof(s)) + sizeof(s);
	}
	b = (uint8_t *)memcpy(b, r->run, r->n_runs * sizeof(r->run[0])) + r->n_runs * sizeof(r->run[0]);
	b = (uint8_t *)memcpy(b, q->crcs, q->n_crcs * sizeof(uint32_t)) + q->n_crcs * sizeof(uint32_t);
	b = (uint8_t *)memcpy(b, q->stripe, o->n_stripe) + o->n_stripe;
	b = (uint8_t *)memcpy(b, q->ns, q->ns_bytes) + q->ns_bytes;
	memcpy(b, q->key, q->key_bytes);
	return (o);
}

static void
put_fill_ent(struct mkv_req *r, uint32_t page)
{
	struct mkv_engine *e = r->e;
	struct mkv_ent *en = eng_ent(e, r->ent);

	en->digest = r->q.digest;
	en->page = page;
	en->units = (uint16_t)r->units;
	en->expires = eng_ticks(e, r->expires_ms);
	en->flags |= r->q.flags & MKV_DRV_F_VERIFIED ? MKV_ENT_VERIFIED : 0;
	if (!ent_is_proved(en))
		writer_note(e, &r->q);
	en->flags |= r->q.flags & MKV_DRV_F_PIN ? MKV_ENT_PIN : 0;
	en->flags |= r->q.flags & MKV_DRV_F_PIECE ? MKV_ENT_PIECE | MKV_ENT_PROVISIONAL : 0;
	if (r->q.flags & MKV_DRV_F_MANIFEST) {
		struct mkv_side *s = &e->ix.side[r->side];

		en->flags |= MKV_ENT_MANIFEST;
		en->run = r->side;
		s->set = r->q.set;
		s->stripe_mask = put_stripe_mask(&r->q);
		s->piece_count = r->q.piece_count;
	} else if (r->n_runs > 1) {
		struct mkv_side *s = &e->ix.side[r->side];

		en->flags |= MKV_ENT_MULTI;
		en->run = r->side;
		s->n = r->n_runs;
		memcpy(s->run, r->run, r->n_runs * sizeof(r->run[0]));
	} else
		en->run = r->n_runs ? r->run[0].off : 0;
	r->committed = 1;
}

/* No room in the journal: it is waited for, or there will be none. */
static enum mkv_next
put_no_room(struct mkv_req *r, int err)
{
	if (err != MKV_E_AGAIN)
		return (req_finish(r, err, MKV_REASON_NONE));
	req_park(r, &r->e->jn.wait);
	return (MKV_NEXT_PARK);
}

/* The same bytes are there, only its time to live or pin changes. */
static enum mkv_next
put_commit_touch(struct mkv_req *r)
{
	struct mkv_jtouch t = { .expires_ms = r->expires_ms, .flags = r->q.flags & MKV_DRV_F_PIN };
	int err;

	if (!put_still_same(r))
		return (put_differs(r));
	if ((err = journal_room(r->e, sizeof(t), 0)) != 0)
		return (put_no_room(r, err));
	r->seq = journal_append(r->e, MKV_J_TOUCH, r->q.digest, 0, 0, 0, &t, sizeof(t));
	journal_join(r->e, r);
	r->state = RQ_FLUSH;
	return (MKV_NEXT_PARK);
}

static enum mkv_next
put_commit(struct mkv_req *r)
{
	struct mkv_engine *e = r->e;
	const struct mkv_obj *o;
	uint32_t page, slot = 0;
	uint16_t pos;
	int err;

	if (r->err != 0)
		return (req_finish(r, r->err, MKV_REASON_NONE));
	if (r->lock != 2 && !req_lock(r))
		return (MKV_NEXT_PARK);
	if (r->same)
		return (put_commit_touch(r));
	o = put_build(r);
	if ((err = journal_room(e, o->bytes, 0)) != 0)
		return (put_no_room(r, err));
	if (page_room(e, o->bytes) != 0) {
		if (!evict_on(e) && e->pg.free == 0 && e->pg.writing == 0)
			return (req_finish(r, MKV_E_NOSPACE, MKV_REASON_NONE));
		req_park(r, &e->pg.wait);
		return (MKV_NEXT_PARK);
	}
	if ((r->q.flags & MKV_DRV_F_PIECE) == 0 && (slot = ns_take(e, r->q.ns, r->q.ns_bytes)) == 0) {
		ENG_COUNT(e, namespaces_full_total, 1);
		return (req_finish(r, MKV_E_BUSY, MKV_REASON_NONE));
	}
	page_add(e, o, &page, &pos);
	r->seq = journal_append(e, MKV_J_PUT, r->q.digest, page, pos, 0, o, o->bytes);
	put_fill_ent(r, page);
	ns_expect(e, r->ent, slot);
	e->jn.gather->bytes += r->q.value_bytes;
	if (r->q.flags & MKV_DRV_F_ACCEPTED) {
		r->state = RQ_APPLY;
		return (MKV_NEXT_AGAIN);
	}
	journal_join(e, r);
	r->state = RQ_FLUSH;
	return (MKV_NEXT_PARK);
}

static void
put_apply_touch(struct mkv_req *r)
{
	uint32_t i = mkv_index_find(&r->e->ix, r->q.digest);

	MKV_ASSERT(i != MKV_ENT_NIL);
	eng_ent(r->e, i)->expires = eng_ticks(r->e, r->expires_ms);
	if (r->q.flags & MKV_DRV_F_PIN)
		ent_pin(r->e, i);
}

static enum mkv_next
put_flush(struct mkv_req *r)
{
	if (r->err != 0)
		return (req_finish(r, r->err, MKV_REASON_NONE));
	/* Purged, or found bad by a reader or the scrubber. */
	if ((r->same & 1) && !put_still_same(r))
		return (put_differs(r));
	if (r->same & 2)
		return (put_done_already(r));
	r->state = RQ_APPLY;
	return (MKV_NEXT_AGAIN);
}

static enum mkv_next
put_apply(struct mkv_req *r)
{
	struct mkv_engine *e = r->e;

	if (r->same) {
		put_apply_touch(r);
		return (put_touched(r));
	}
	ent_publish(e, r->ent, r->seq, r->q.parent);
	r->ent = MKV_ENT_NIL;
	e->puts++;
	ENG_COUNT(e, puts_total, 1);
	ENG_COUNT(e, put_bytes_total, r->q.value_bytes);
	return (req_finish(r, 0, MKV_REASON_NONE));
}

enum mkv_next
put_step(struct mkv_req *r)
{
	switch (r->state) {
	case RQ_START:
		return (put_start(r));
	case RQ_LOCK:
		return (put_lock(r));
	case RQ_LOOKUP:
		return (put_lookup(r));
	case RQ_SPACE:
		return (put_space_step(r, r->q.op == MKV_DRV_PUT && r->units > 0 ? RQ_IO : RQ_COMMIT));
	case RQ_IO:
		return (put_io(r));
	case RQ_COMMIT:
		return (put_commit(r));
	case RQ_FLUSH:
		return (put_flush(r));
	case RQ_APPLY:
		return (put_apply(r));
	default:
		MKV_ASSERT(!"a state of put");
	}
	return (MKV_NEXT_DONE);
}

/* Whatever a put that did not come to its end still owns. */
void
put_release(struct mkv_req *r)
{
	struct mkv_engine *e = r->e;

	e->pin_asked -= r->pin_units;
	r->pin_units = 0;
	if (r->tries > 1)
		e->evict_need -= MKV_MIN(e->evict_need, r->units);
	if (r->committed)
		return;
	if (!r->quarantine) {
		for (unsigned k = 0; k < r->n_runs; k++)
			trim_free(e, r->run[k]);
	}
	if (r->side != MKV_ENT_NIL)
		mkv_side_drop(&e->ix, r->side);
	if (r->ent != MKV_ENT_NIL)
		mkv_index_drop(&e->ix, r->ent);
	if (r->n_runs > 0 || r->ent != MKV_ENT_NIL)
		evict_wake(e);
}

static struct txn *
put_txn_at(struct mkv_engine *e, uint32_t client, uint64_t txn)
{
	uint32_t i = (uint32_t)txn, gen = (uint32_t)(txn >> 32);
	struct txn *t = i < TXNS_MAX ? &e->txn[i] : NULL;

	return (t != NULL && t->used && t->gen == gen && t->client == client ? t : NULL);
}

static struct txn *
put_txn(struct mkv_req *r)
{
	return (put_txn_at(r->e, r->call.client, r->q.txn));
}

/* Its number is no more; its runs are the caller's. */
static void
put_txn_end(struct txn *t)
{
	t->used = 0;
	t->gen += t->gen == UINT32_MAX ? 2 : 1;
}

void
put_txn_drop(struct mkv_engine *e, struct txn *t)
{
	for (uint32_t k = 0; k < t->n_runs; k++)
		trim_free(e, t->run[k]);
	put_txn_end(t);
	evict_wake(e);
}

/* A COMMIT ends its transaction whatever the answer is: nobody sends an ABORT after it. */
void
commit_refused(struct mkv_req *r)
{
	struct txn *t = put_txn(r);

	if (t != NULL)
		put_txn_drop(r->e, t);
}

void
mkv_engine_unreserve(struct mkv_engine *e, uint32_t client, uint64_t txn)
{
	struct txn *t;

	MKV_CHECK_OBJ(e, MKV_ENGINE_MAGIC);
	if ((t = put_txn_at(e, client, txn)) != NULL)
		put_txn_drop(e, t);
}

static int
put_txn_new(struct mkv_req *r)
{
	for (uint32_t i = 0; i < TXNS_MAX; i++) {
		struct txn *t = &r->e->txn[i];

		if (t->used)
			continue;
		t->used = 1;
		t->client = r->call.client;
		t->units = r->units;
		t->n_runs = r->n_runs;
		t->value_bytes = r->q.value_bytes;
		memcpy(t->run, r->run, r->n_runs * sizeof(t->run[0]));
		r->p.txn = (uint64_t)t->gen << 32 | i;
		return (1);
	}
	return (0);
}

/* Runs of the arena for a front to receive into; they belong to the transaction until COMMIT, ABORT or the front's death. */
static enum mkv_next
reserve_done(struct mkv_req *r)
{
	uint64_t left = r->q.value_bytes, unit = r->e->sb.unit_bytes;

	if (r->gone || !put_txn_new(r))
		return (req_finish(r, MKV_E_BUSY, MKV_REASON_NONE));
	for (unsigned i = 0; i < r->n_runs; i++) {
		r->p.runs[i].off = r->run[i].off * unit;
		r->p.runs[i].bytes = MKV_MIN(left, r->run[i].len * unit);
		left -= r->p.runs[i].bytes;
	}
	r->p.n_runs = (uint16_t)r->n_runs;
	r->n_runs = 0;
	return (req_finish(r, 0, MKV_REASON_NONE));
}

static enum mkv_next
reserve_start(struct mkv_req *r)
{
	const unsigned never = MKV_DRV_F_IF_ABSENT | MKV_DRV_F_OVERWRITE | MKV_DRV_F_PIECE | MKV_DRV_F_MANIFEST;
	struct mkv_drv_req *q = &r->q;

	if (q->flags & MKV_DRV_F_IF_SAME)
		return ((q->flags & never) || q->key_bytes == 0 ? req_finish(r, MKV_E_PROTO, MKV_REASON_NONE) : put_start(r));
	if (!r->e->o.media->shared)
		return (req_finish(r, MKV_E_UNSUPPORTED, MKV_REASON_NONE));
	if (q->value_bytes > r->e->sb.extent_bytes)
		return (req_finish(r, MKV_E_TOOBIG, MKV_REASON_NONE));
	q->flags &= (uint16_t)~MKV_DRV_F_MANIFEST;
	r->units = (uint32_t)MKV_DIV_UP(q->value_bytes, r->e->sb.unit_bytes);
	r->state = RQ_SPACE;
	return (MKV_NEXT_AGAIN);
}

enum mkv_next
reserve_step(struct mkv_req *r)
{
	switch (r->state) {
	case RQ_START:
		return (reserve_start(r));
	case RQ_SPACE:
		if (!r->e->o.media->shared)
			return (req_finish(r, 0, MKV_REASON_NONE));
		return (put_space_step(r, RQ_COMMIT));
	case RQ_COMMIT:
		return (r->same ? put_commit(r) : reserve_done(r));
	default:
		return (put_step(r));
	}
}

enum mkv_next
commit_step(struct mkv_req *r)
{
	struct txn *t;
	int err;

	if (r->state != RQ_START)
		return (put_step(r));
	if ((t = put_txn(r)) == NULL)
		return (req_finish(r, MKV_E_STALE, MKV_REASON_NONE));
	if ((err = put_check(r)) == 0 && (r->q.value_bytes > t->value_bytes || (r->q.flags & MKV_DRV_F_MANIFEST) ||
	    MKV_DIV_UP(r->q.value_bytes, r->e->sb.unit_bytes) != t->units))
		err = MKV_E_PROTO;
	if (err != 0) {
		put_txn_drop(r->e, t);
		return (req_finish(r, err, MKV_REASON_NONE));
	}
	r->n_runs = t->n_runs;
	memcpy(r->run, t->run, t->n_runs * sizeof(t->run[0]));
	put_txn_end(t);
	return (put_start(r));
}

enum mkv_next
abort_step(struct mkv_req *r)
{
	struct txn *t = put_txn(r);
	int err;

	if (r->err != 0)
		return (req_finish(r, r->err, MKV_REASON_NONE));
	if (r->state == RQ_START && t != NULL)
		put_txn_drop(r->e, t);
	r->state = RQ_SCAN;
	(void)openset_end(r->e, r->q.set);
	if ((r->q.set.lo | r->q.set.hi) == 0 || r->e->readonly)
		return (req_finish(r, 0, MKV_REASON_NONE));
	err = setjob_abort(r, r->q.set, &r->scan_piece, MKV_MIN(r->q.piece_count, MKV_DRV_PIECES_MAX));
	if (err == SETJOB_MORE)
		return (MKV_NEXT_PARK);
	if (err == MKV_E_AGAIN) {
		req_park(r, &r->e->jn.wait);
		journal_urgent(r->e);
		return (MKV_NEXT_PARK);
	}
	return (req_finish(r, err, MKV_REASON_NONE));
}
