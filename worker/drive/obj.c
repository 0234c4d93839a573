/*
 * Records of objects, what is said of their bytes, and the requests that need no data: STAT, DELETE, TOUCH. Drive's loop thread.
 */
#include "config.h"

#include <string.h>

#include "common/base/err.h"
#include "common/base/log.h"
#include "worker/drive/engine_priv.h"

/* Is this the record of the entry, and not one that an overwrite left behind or has not committed yet? */
static int
obj_is_of(const struct mkv_engine *e, const struct mkv_ent *en, const struct mkv_obj_view *v)
{
	struct mkv_run run[MKV_OBJ_RUNS_MAX];
	unsigned n = mkv_ent_runs(&e->ix, en, run);

	if (!mkv_digest_eq(v->o->digest, en->digest) || v->o->units != en->units || v->o->n_runs != n)
		return (0);
	if (!(v->o->flags & MKV_OBJ_MANIFEST) != !(en->flags & MKV_ENT_MANIFEST))
		return (0);
	if (en->flags & MKV_ENT_MANIFEST)
		return (v->set != NULL && memcmp(&v->set->set, &e->ix.side[en->run].set, sizeof(v->set->set)) == 0);
	return (n == 0 || memcmp(v->runs, run, n * sizeof(run[0])) == 0);
}

int
obj_in_page(const struct mkv_engine *e, const struct mkv_ent *en, const struct mkv_page *pg, struct mkv_obj_view *v)
{
	struct mkv_obj_view w;
	uint32_t pos = 0;

	v->o = NULL;
	while (mkv_page_next(pg, &pos, &w) == 1)
		if (obj_is_of(e, en, &w))
			*v = w;		/* the last one: values of no bytes look alike */
	return (v->o != NULL ? 0 : MKV_E_CORRUPT);
}

int
obj_record(struct mkv_req *r, uint32_t i, struct mkv_obj_view *v)
{
	struct mkv_page *pg;
	int err = page_get(r->e, eng_ent(r->e, i)->page, r, &pg);

	return (err != 0 ? err : obj_in_page(r->e, eng_ent(r->e, i), pg, v));
}

int
obj_key_is(const struct mkv_obj_view *v, const struct mkv_drv_req *q)
{
	return (v->o->key_bytes == q->key_bytes && v->o->ns_bytes == q->ns_bytes && memcmp(v->key, q->key, q->key_bytes) == 0 &&
	    memcmp(v->ns, q->ns, q->ns_bytes) == 0);
}

/* From now on it counts as verified. Without journal room it does so until the next start. */
void
obj_proved(struct mkv_engine *e, uint32_t i)
{
	struct mkv_ent *en = eng_ent(e, i);
	struct mkv_jtouch t = { .expires_ms = ent_expires_ms(e, en), .flags = MKV_DRV_F_VERIFIED };

	if ((en->flags & MKV_ENT_LINKED) == 0 || (en->flags & MKV_ENT_VERIFIED))
		return;
	e->unproved -= !ent_is_proved(en);
	en->flags |= MKV_ENT_VERIFIED;
	if (!req_locked(e, en->digest) && journal_room(e, sizeof(t), 0) == 0)
		(void)journal_append(e, MKV_J_TOUCH, en->digest, 0, 0, 0, &t, sizeof(t));
}

/*
 * Bytes that had matched are the drive's fault: noted, and their units stay taken until the next start. Bytes that never did are their writer's, and say
 * nothing about the drive.
 */
unsigned
obj_corrupt(struct mkv_engine *e, uint32_t i, const struct obj_blame *b)
{
	struct mkv_ent *en = eng_ent(e, i);
	int writer = b->data && !ent_is_proved(en), linked = (en->flags & MKV_ENT_LINKED) != 0;
	unsigned reason = writer ? MKV_REASON_WRITER_CRC : MKV_REASON_CORRUPT;
	char who[WRITER_TEXT_BYTES];

	if (writer) {
		ENG_COUNT(e, writer_crc_total, 1);
		writer_text(e, en->digest, b->put_id, who);
		mkv_log(MKV_EV_DRIVE_WRITER_CRC, "drive=%s put_id=%016llx units=%u %s", e->o.name, (unsigned long long)b->put_id, en->units, who);
	} else {
		ENG_COUNT(e, corrupt_total, 1);
		mkv_log(MKV_EV_DRIVE_CORRUPT, "drive=%s page=%u units=%u", e->o.name, en->page, en->units);
		if (b->data)
			fail_note(e, MKV_FAIL_DATA, b->off, b->bytes, MKV_E_CORRUPT, 0);
		if (b->data && linked)
			en->flags |= MKV_ENT_QUARANTINE;
	}
	if (linked && !req_locked(e, en->digest) && evict_one(e, i, reason) == 0 && (en->flags & MKV_ENT_PIECE))
		whole_lost(e, b->set, reason);
	return (reason);
}

/*
 * The record of the request's key. 0; MKV_E_AGAIN parked; MKV_E_MISS: finish with *reason; MKV_E_IO. A bad record drops the object.
 */
static int
obj_find(struct mkv_req *r, uint32_t *i, struct mkv_obj_view *v, unsigned *reason)
{
	int err;

	*i = req_find(r, reason);
	if (*i == MKV_ENT_NIL)
		return (MKV_E_MISS);
	err = obj_record(r, *i, v);
	if (err == MKV_E_CORRUPT) {
		*reason = MKV_REASON_CORRUPT;
		ENG_COUNT(r->e, corrupt_total, 1);
		if (r->lock == 2 || !req_locked(r->e, r->q.digest))
			(void)evict_one(r->e, *i, MKV_REASON_CORRUPT);
		return (MKV_E_MISS);
	}
	if (err == 0 && !obj_key_is(v, &r->q)) {
		ENG_COUNT(r->e, collisions_total, 1);
		*reason = MKV_REASON_NEVER;
		return (MKV_E_MISS);
	}
	return (err);
}

enum mkv_next
stat_step(struct mkv_req *r)
{
	struct mkv_obj_view v;
	struct mkv_ent *en;
	unsigned reason;
	uint32_t i;
	int err;

	if (r->err != 0)
		return (req_finish(r, r->err, MKV_REASON_NONE));
	if ((err = obj_find(r, &i, &v, &reason)) == MKV_E_AGAIN)
		return (MKV_NEXT_PARK);
	if (err != 0)
		return (req_finish(r, err, err == MKV_E_MISS ? reason : MKV_REASON_NONE));
	en = eng_ent(r->e, i);
	if ((r->q.flags & MKV_DRV_F_NO_TOUCH) == 0)
		ent_touch(r->e, i);
	r->p.value_bytes = v.o->value_bytes;
	r->p.put_wall_ms = v.o->put_wall_ms;
	r->p.expires_wall_ms = ent_expires_ms(r->e, en);
	r->p.put_id = v.o->put_id;
	r->p.flags = (en->flags & MKV_ENT_VERIFIED ? MKV_DRV_F_VERIFIED : 0) | (en->flags & MKV_ENT_PIN ? MKV_DRV_F_PIN : 0) |
	    (en->flags & MKV_ENT_MANIFEST ? MKV_DRV_F_MANIFEST : 0);
	if (v.set != NULL) {
		r->p.set = v.set->set;
		r->p.piece_bytes = v.set->piece_bytes;
		r->p.piece_count = v.set->piece_count;
		r->p.n_stripe = v.o->n_stripe;
		memcpy(r->p.stripe, v.stripe, v.o->n_stripe);
	}
	return (req_finish(r, 0, MKV_REASON_NONE));
}

/* "Not there" is a promise as well: what made it so must not be undone by a crash. */
static enum mkv_next
delete_miss(struct mkv_req *r, unsigned reason)
{
	int durable = journal_sync_req(r);

	if (durable < 0)
		return (req_finish(r, durable, MKV_REASON_NONE));
	r->scan_left = reason + 1;
	r->state = RQ_FLUSH;
	return (durable ? MKV_NEXT_AGAIN : MKV_NEXT_PARK);
}

static enum mkv_next
delete_lookup(struct mkv_req *r)
{
	struct mkv_engine *e = r->e;
	struct mkv_obj_view v;
	unsigned reason;
	uint32_t i;
	int err;

	if (r->err != 0)
		return (req_finish(r, r->err, MKV_REASON_NONE));
	if (r->lock != 2 && !req_lock(r))
		return (MKV_NEXT_PARK);
	if ((err = obj_find(r, &i, &v, &reason)) == MKV_E_AGAIN)
		return (MKV_NEXT_PARK);
	if (err == MKV_E_MISS)
		return (delete_miss(r, reason));
	if (err != 0)
		return (req_finish(r, err, MKV_REASON_NONE));
	if ((err = journal_room(e, 0, 0)) == MKV_E_AGAIN) {
		req_park(r, &e->jn.wait);
		return (MKV_NEXT_PARK);
	}
	if (err != 0)
		return (req_finish(r, err, MKV_REASON_NONE));
	r->seq = journal_append(e, MKV_J_DROP, r->q.digest, 0, 0, MKV_REASON_DELETED, NULL, 0);
	journal_join(e, r);
	r->state = RQ_FLUSH;
	return (MKV_NEXT_PARK);
}

static enum mkv_next
delete_flush(struct mkv_req *r)
{
	uint32_t i;

	if (r->err != 0)
		return (req_finish(r, r->err, MKV_REASON_NONE));
	if (r->scan_left != 0)
		return (req_finish(r, MKV_E_MISS, r->scan_left - 1));
	/* The lock kept puts and eviction away: it is the object of the record. */
	i = mkv_index_find(&r->e->ix, r->q.digest);
	if (i != MKV_ENT_NIL)
		ent_remove(r->e, i, r->seq, MKV_REASON_DELETED);
	ENG_COUNT(r->e, deletes_total, 1);
	return (req_finish(r, 0, MKV_REASON_NONE));
}

enum mkv_next
delete_step(struct mkv_req *r)
{
	if (r->state == RQ_FLUSH)
		return (delete_flush(r));
	r->state = RQ_LOOKUP;
	return (delete_lookup(r));
}

static enum mkv_next
touch_lookup(struct mkv_req *r)
{
	struct mkv_engine *e = r->e;
	struct mkv_jtouch t = { .flags = r->q.flags & MKV_DRV_F_PIN };
	int change = r->q.ttl_ms != 0 || (r->q.flags & MKV_DRV_F_PIN);
	struct mkv_obj_view v;
	unsigned reason;
	uint32_t i;
	int err;

	if (r->err != 0)
		return (req_finish(r, r->err, MKV_REASON_NONE));
	if (change && r->lock != 2 && !req_lock(r))
		return (MKV_NEXT_PARK);
	if ((err = obj_find(r, &i, &v, &reason)) == MKV_E_AGAIN)
		return (MKV_NEXT_PARK);
	if (err != 0)
		return (req_finish(r, err, err == MKV_E_MISS ? reason : MKV_REASON_NONE));
	ent_hit(e, i);
	ENG_COUNT(e, touches_total, 1);
	if (!change)
		return (req_finish(r, 0, MKV_REASON_NONE));
	if (r->pin_units == 0 && !evict_pin_room(r, ent_pin_units(e, eng_ent(e, i))))
		return (req_finish(r, MKV_E_NOSPACE, MKV_REASON_NONE));
	if ((err = journal_room(e, sizeof(t), 0)) == MKV_E_AGAIN) {
		req_park(r, &e->jn.wait);
		return (MKV_NEXT_PARK);
	}
	if (err != 0)
		return (req_finish(r, err, MKV_REASON_NONE));
	r->expires_ms = r->q.ttl_ms != 0 ? r->wall_ms + MKV_MIN(r->q.ttl_ms, UINT64_MAX / 4) : ent_expires_ms(e, eng_ent(e, i));
	t.expires_ms = r->expires_ms;
	r->seq = journal_append(e, MKV_J_TOUCH, r->q.digest, 0, 0, 0, &t, sizeof(t));
	journal_join(e, r);
	r->state = RQ_FLUSH;
	return (MKV_NEXT_PARK);
}

enum mkv_next
touch_step(struct mkv_req *r)
{
	uint32_t i;

	if (r->state != RQ_FLUSH) {
		r->state = RQ_LOOKUP;
		return (touch_lookup(r));
	}
	if (r->err != 0)
		return (req_finish(r, r->err, MKV_REASON_NONE));
	i = mkv_index_find(&r->e->ix, r->q.digest);
	if (i != MKV_ENT_NIL) {
		eng_ent(r->e, i)->expires = eng_ticks(r->e, r->expires_ms);
		if (r->q.flags & MKV_DRV_F_PIN)
			ent_pin(r->e, i);
	}
	return (req_finish(r, 0, MKV_REASON_NONE));
}
