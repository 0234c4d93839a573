/*
 * Objects leaving: unlinking, the queue of what becomes free when its record is durable, and the clock that makes room. Drive's loop thread.
 *
 *   linked --ent_remove(seq)--> unlinked --record durable--> [readers gone] --> units, side record, page count and slot are free
 *
 * Nothing is used again before the record that freed it is durable: a crash brings the old object back whole or not at all.
 * A key whose put is under way (key lock) is never evicted: the journal would order the eviction behind the new object.
 */
#include "config.h"

#include <string.h>

#include "common/base/err.h"
#include "worker/drive/engine_priv.h"

#define EVICT_STEP_MAX		64u		/* evictions in one turn */
#define EVICT_LOOK_MAX		8192u		/* entries looked at in one turn */
#define EVICT_RECLAIM_NS	(50 * MKV_NS_PER_MS)

void
ent_free(struct mkv_engine *e, uint32_t i)
{
	struct mkv_ent *en = eng_ent(e, i);
	struct mkv_run run[MKV_OBJ_RUNS_MAX];
	unsigned n = mkv_ent_runs(&e->ix, en, run);

	MKV_ASSERT(en->holds == 0);
	if ((en->flags & MKV_ENT_QUARANTINE) == 0) {
		for (unsigned k = 0; k < n; k++)
			mkv_alloc_free(&e->al, run[k]);
	}
	if (en->flags & MKV_ENT_DEAD)
		e->held_units -= en->units;
	else
		e->pend_units -= en->units;
	if (en->flags & (MKV_ENT_MULTI | MKV_ENT_MANIFEST))
		mkv_side_drop(&e->ix, en->run);
	page_dec(e, en->page);
	mkv_index_drop(&e->ix, i);
	evict_wake(e);
}

static void
ent_durable(struct mkv_engine *e, uint32_t i)
{
	struct mkv_ent *en = eng_ent(e, i);

	if (en->holds == 0) {
		ent_free(e, i);
		return;
	}
	/* A reader may take its time: whoever waits for space does not count on these units. */
	en->flags |= MKV_ENT_DEAD;
	e->pend_units -= en->units;
	e->held_units += en->units;
}

void
ent_unhold(struct mkv_engine *e, uint32_t i)
{
	struct mkv_ent *en = eng_ent(e, i);

	MKV_ASSERT(en->holds > 0);
	if (--en->holds == 0 && (en->flags & MKV_ENT_DEAD))
		ent_free(e, i);
}

void
pending_push(struct mkv_engine *e, uint64_t seq, uint32_t ent, uint32_t page)
{
	struct pending *p;

	MKV_ASSERT(e->pend_count < PENDING_MAX);
	p = &e->pend[(e->pend_head + e->pend_count++) % PENDING_MAX];
	p->seq = seq;
	p->ent = ent;
	p->page = page;
}

void
pending_run(struct mkv_engine *e)
{
	while (e->pend_count > 0 && e->pend[e->pend_head].seq <= e->jn.flushed) {
		struct pending p = e->pend[e->pend_head];

		e->pend_head = (e->pend_head + 1) % PENDING_MAX;
		e->pend_count--;
		if (p.ent != MKV_ENT_NIL)
			ent_durable(e, p.ent);
		else
			page_dec(e, p.page);
	}
	evict_wake(e);
}

static void
ent_count(struct mkv_engine *e, const struct mkv_ent *en, int d)
{
	e->pieces += (uint32_t)(en->flags & MKV_ENT_PIECE ? d : 0);
	e->manifests += (uint32_t)(en->flags & MKV_ENT_MANIFEST ? d : 0);
	e->provisional += (uint32_t)(en->flags & MKV_ENT_PROVISIONAL ? d : 0);
}

/* Out of the index; `seq` is the block whose record says so. */
void
ent_remove(struct mkv_engine *e, uint32_t i, uint64_t seq, unsigned reason)
{
	struct mkv_ent *en = eng_ent(e, i);

	mkv_index_unlink(&e->ix, i);
	ent_count(e, en, -1);
	e->pend_units += en->units;
	if (reason != MKV_REASON_NONE)
		eng_ghost(e, en->digest, reason);
	if (en->flags & MKV_ENT_MANIFEST)
		set_manifest_gone(e, &e->ix.side[en->run], seq);
	if (seq <= e->jn.flushed)
		ent_durable(e, i);
	else
		pending_push(e, seq, i, 0);
}

void
ent_publish(struct mkv_engine *e, uint32_t i, uint64_t seq)
{
	uint32_t old = mkv_index_find(&e->ix, eng_ent(e, i)->digest);

	if (old != MKV_ENT_NIL) {
		ENG_COUNT(e, replaced_total, 1);
		ent_remove(e, old, seq, MKV_REASON_NONE);
	}
	mkv_index_link(&e->ix, i);
	ent_count(e, eng_ent(e, i), 1);
	if (eng_ent(e, i)->flags & MKV_ENT_MANIFEST)
		set_committed(e, &e->ix.side[eng_ent(e, i)->run]);
}

int
evict_one(struct mkv_engine *e, uint32_t i, unsigned reason)
{
	struct mkv_ent *en = eng_ent(e, i);
	int r;

	if ((en->flags & MKV_ENT_MANIFEST) && !set_room(e))
		return (MKV_E_AGAIN);
	if ((r = journal_room(e, 0, 0)) != 0)
		return (r);
	if (reason == MKV_REASON_EVICTED) {
		ENG_COUNT(e, evicted_total, 1);
		ENG_COUNT(e, evicted_bytes_total, (uint64_t)en->units * e->sb.unit_bytes);
	} else if (reason == MKV_REASON_EXPIRED)
		ENG_COUNT(e, expired_total, 1);
	ent_remove(e, i, journal_append(e, MKV_J_DROP, en->digest, 0, 0, reason, NULL, 0), reason);
	return (0);
}

/* Somebody waits, and something became free. The first goes first; when it is served it wakes the next. */
void
evict_wake(struct mkv_engine *e)
{
	req_wake_list(&e->space_wait, 1);
}

static uint64_t
evict_pct(const struct mkv_engine *e, uint32_t pct)
{
	return (e->al.units / 100 * pct + e->al.units % 100 * pct / 100);
}

/* Units that should become free beyond those that already will. */
static uint64_t
evict_target(struct mkv_engine *e)
{
	uint64_t used = e->al.units - e->al.free_units, due = e->pend_units + set_units_due(e), want = 0;

	used -= MKV_MIN(used, due);
	if (used > evict_pct(e, e->o.evict_high_pct))
		e->evicting = 1;
	if (used <= evict_pct(e, e->o.evict_low_pct))
		e->evicting = 0;
	if (e->evicting)
		want = used - evict_pct(e, e->o.evict_low_pct);
	if (e->evict_need > due)
		want = MKV_MAX(want, e->evict_need - due);
	return (want);
}

/* Pages and index slots run out as well as units. */
static int
evict_meta_short(const struct mkv_engine *e)
{
	return (e->pg.free < 4 + e->pg.count / 64 || e->ix.linked >= e->sb.objects_max);
}

static int
evict_may(struct mkv_engine *e, struct mkv_ent *en, uint64_t wall, unsigned *reason)
{
	if ((en->flags & (MKV_ENT_USED | MKV_ENT_LINKED)) != (MKV_ENT_USED | MKV_ENT_LINKED))
		return (0);
	if ((en->flags & (MKV_ENT_PIECE | MKV_ENT_PIN)) || req_locked(e, en->digest))
		return (0);
	*reason = MKV_REASON_EXPIRED;
	if (ent_expired(e, en, wall))
		return (1);
	if (en->flags & MKV_ENT_REF) {
		en->flags &= (uint16_t)~MKV_ENT_REF;
		return (0);
	}
	*reason = MKV_REASON_EVICTED;
	return (1);
}

static uint64_t
evict_set_units(const struct mkv_engine *e, const struct mkv_ent *en)
{
	const struct mkv_side *s = &e->ix.side[en->run];

	return ((s->stripe_mask >> e->o.drive_idx) & 1 ? set_units(e, s->stripe_mask, s->piece_count) : 0);
}

/* What fills this drive may be pieces of values that live elsewhere: their homes must choose. */
static void
evict_reclaim(struct mkv_engine *e, uint64_t units)
{
	struct mkv_desc d = { .op = MKV_DRV_RECLAIM, .arg = { units * e->sb.unit_bytes, e->o.drive_idx } };
	uint64_t now = eng_now(e);

	if (e->pieces == 0 || now < e->reclaim_ns)
		return;
	e->reclaim_ns = now + EVICT_RECLAIM_NS;
	e->o.ops->peer(e->o.arg, MKV_ENGINE_ALL_DRIVES, &d);
}

void
evict_step(struct mkv_engine *e)
{
	uint64_t want, got = 0, wall;
	unsigned n = 0, reason, meta;

	if (!e->o.evict || e->ix.ents_high == 0)
		return;
	want = evict_target(e);
	meta = evict_meta_short(e) && e->pend_count < EVICT_STEP_MAX ? EVICT_STEP_MAX / 2 : 0;
	if (want == 0 && meta == 0)
		return;
	wall = eng_wall(e);
	for (unsigned look = 0; look < EVICT_LOOK_MAX && n < EVICT_STEP_MAX && (got < want || n < meta); look++) {
		struct mkv_ent *en;

		if (++e->hand >= e->ix.ents_high)
			e->hand = 0;
		en = eng_ent(e, e->hand);
		if (!evict_may(e, en, wall, &reason))
			continue;
		got += en->flags & MKV_ENT_MANIFEST ? evict_set_units(e, en) : en->units;
		if (evict_one(e, e->hand, reason) != 0)
			break;
		n++;
	}
	if (got < want)
		evict_reclaim(e, want - got);
	/* Those that wait pay with a flush; the watermarks can wait for the next one. */
	if (!mkv_list_empty(&e->space_wait) || !mkv_list_empty(&e->pg.wait) || e->pg.free < 4 + e->pg.count / 64)
		journal_urgent(e);
}
