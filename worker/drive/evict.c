/*
 * Objects leaving: unlinking, the queue of what becomes free when its record is durable, and making room ahead of need. Drive's loop thread.
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
#define EXPIRE_NS		(50 * MKV_NS_PER_MS)
#define EXPIRE_LOOK_MAX		640u		/* each time: one flush for all that it finds */
#define EVICT_RATE_NS		(20 * MKV_NS_PER_MS)
#define EVICT_AHEAD_NS		(250.0 * MKV_NS_PER_MS)	/* of puts find their room made */
#define EVICT_AHEAD_PART	16u		/* and no more than such a part of the drive */
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
			trim_free(e, run[k]);
	}
	if (en->flags & MKV_ENT_DEAD)
		e->held_units -= en->units;
	else
		e->pend_units -= en->units;
	if (en->flags & MKV_ENT_MANIFEST)
		set_unread(e, e->ix.side[en->run].set);
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

void
ent_count(struct mkv_engine *e, const struct mkv_ent *en, int d)
{
	e->pieces += (uint32_t)(en->flags & MKV_ENT_PIECE ? d : 0);
	e->manifests += (uint32_t)(en->flags & MKV_ENT_MANIFEST ? d : 0);
	e->provisional += (uint32_t)(en->flags & MKV_ENT_PROVISIONAL ? d : 0);
	e->unproved += (uint32_t)(ent_is_proved(en) ? 0 : d);
	if (en->flags & MKV_ENT_PIN)
		e->pin_units += (uint64_t)d * ent_pin_units(e, en);
}

/* Pieces leave with their manifest, pinned objects do not. */
int
ent_queued(const struct mkv_ent *en)
{
	return ((en->flags & (MKV_ENT_PIECE | MKV_ENT_PIN)) == 0);
}

uint64_t
ent_units_here(const struct mkv_engine *e, const struct mkv_ent *en)
{
	const struct mkv_side *s = &e->ix.side[en->run];

	if ((en->flags & MKV_ENT_MANIFEST) == 0)
		return (en->units);
	return ((s->stripe_mask >> e->o.drive_idx) & 1 ? set_units(e, s->stripe_mask, s->piece_count) : 0);
}

uint64_t
ent_pin_units(const struct mkv_engine *e, const struct mkv_ent *en)
{
	return (ent_units_here(e, en));
}

void
ent_hit(struct mkv_engine *e, uint32_t i)
{
	if (ent_queued(eng_ent(e, i)))
		mkv_policy_hit(&e->pol, i, MKV_ENT_NIL);
}

void
ent_touch(struct mkv_engine *e, uint32_t i)
{
	if (ent_queued(eng_ent(e, i)))
		mkv_policy_touch(&e->pol, i);
}

void
ent_pin(struct mkv_engine *e, uint32_t i)
{
	struct mkv_ent *en = eng_ent(e, i);

	if (en->flags & MKV_ENT_PIN)
		return;
	lease_drop(e, i);
	mkv_policy_remove(&e->pol, i);
	en->flags |= MKV_ENT_PIN;
	e->pin_units += ent_pin_units(e, en);
}

/* Out of the index; `seq` is the block whose record says so. */
void
ent_remove(struct mkv_engine *e, uint32_t i, uint64_t seq, unsigned reason)
{
	struct mkv_ent *en = eng_ent(e, i);

	mkv_index_unlink(&e->ix, i);
	ns_remove(e, i);
	lease_drop(e, i);
	if (reason == MKV_REASON_EVICTED)
		mkv_policy_evict(&e->pol, i);
	else
		mkv_policy_remove(&e->pol, i);
	ent_count(e, en, -1);
	e->pend_units += en->units;
	if (reason != MKV_REASON_NONE)
		eng_ghost(e, en->digest, reason);
	if (en->flags & MKV_ENT_MANIFEST) {
		setmap_del(e, en->run);
		set_manifest_gone(e, &e->ix.side[en->run], seq);
	}
	if (seq <= e->jn.flushed)
		ent_durable(e, i);
	else
		pending_push(e, seq, i, 0);
}

void
ent_publish(struct mkv_engine *e, uint32_t i, uint64_t seq, struct mkv_digest parent)
{
	struct mkv_ent *en = eng_ent(e, i);
	uint32_t old = mkv_index_find(&e->ix, en->digest);
	unsigned lost;

	if (old != MKV_ENT_NIL) {
		ENG_COUNT(e, replaced_total, 1);
		ent_remove(e, old, seq, MKV_REASON_NONE);
	}
	mkv_index_link(&e->ix, i);
	ns_came(e, i);
	ent_count(e, en, 1);
	if (ent_queued(en))
		mkv_policy_insert(&e->pol, i, parent.lo | parent.hi ? mkv_index_find(&e->ix, parent) : MKV_ENT_NIL);
	if (en->flags & MKV_ENT_MANIFEST) {
		setmap_add(e, i);
		if ((lost = openset_end(e, e->ix.side[en->run].set)) != MKV_REASON_NONE)
			whole_suspect(e, i, lost);
		set_committed(e, &e->ix.side[en->run], seq);
	}
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

/* The puts of the next EVICT_AHEAD_NS, as far as the last ones tell: more at once, less after a while. */
static void
evict_rate(struct mkv_engine *e)
{
	uint64_t now = eng_now(e), past = now - e->rate_ns, units;

	if (past < EVICT_RATE_NS)
		return;
	units = (uint64_t)((double)e->taken_units * EVICT_AHEAD_NS / (double)past);
	if (units < e->ahead_units)
		units = e->ahead_units - (e->ahead_units - units + 7) / 8;
	e->ahead_units = MKV_MIN(units, e->al.units / EVICT_AHEAD_PART);
	e->taken_units = 0;
	e->rate_ns = now;
}

/* Units that should become free beyond those that already will. */
static uint64_t
evict_target(struct mkv_engine *e)
{
	uint64_t used = eng_used_units(e), due = e->pend_units + set_units_due(e) + e->ns.purged_units, want = 0, spare;

	used -= MKV_MIN(used, due);
	spare = e->al.units - used;
	if (used > evict_pct(e, e->o.evict_high_pct))
		e->evicting = 1;
	if (used <= evict_pct(e, e->o.evict_low_pct))
		e->evicting = 0;
	if (e->evicting)
		want = used - evict_pct(e, e->o.evict_low_pct);
	if (e->ahead_units > spare)
		want = MKV_MAX(want, e->ahead_units - spare);
	due += e->trim.claim.len;
	if (e->evict_need > due)
		want = MKV_MAX(want, e->evict_need - due);
	return (want);
}

int
evict_on(const struct mkv_engine *e)
{
	return (e->o.evict && e->o.policy != MKV_POLICY_NONE);
}

/* Pages and index slots run out as well as units. */
static int
evict_meta_short(const struct mkv_engine *e)
{
	return (e->pg.free < 4 + e->pg.count / 64 || e->ix.linked >= e->sb.objects_max);
}

int
evict_admit(struct mkv_req *r)
{
	struct mkv_engine *e = r->e;

	if ((r->q.flags & (MKV_DRV_F_PIECE | MKV_DRV_F_MANIFEST | MKV_DRV_F_PIN | MKV_DRV_F_IF_ABSENT)) || !evict_on(e) ||
	    (!e->evicting && !evict_meta_short(e) && mkv_list_empty(&e->space_wait)))
		return (1);
	if (mkv_policy_admit(&e->pol, r->q.digest))
		return (1);
	eng_ghost(e, r->q.digest, MKV_REASON_NOT_ADMITTED);
	ENG_COUNT(e, not_admitted_total, 1);
	return (0);
}

/* What is asked for is counted until the put's end, when the object counts or nothing does. */
int
evict_pin_room(struct mkv_req *r, uint64_t units)
{
	struct mkv_engine *e = r->e;
	uint64_t most = evict_pct(e, e->o.pin_pct);
	uint32_t i;

	if ((r->q.flags & MKV_DRV_F_PIN) == 0 || e->o.pin_pct == 0)
		return (1);
	i = mkv_index_find(&e->ix, r->q.digest);
	if (i != MKV_ENT_NIL && (eng_ent(e, i)->flags & MKV_ENT_PIN) && !ns_closed(e, eng_ent(e, i)))
		return (1);
	if (e->pin_units + e->pin_asked + units > most)
		return (0);
	r->pin_units = units;
	e->pin_asked += units;
	return (1);
}

/* A bounded look at entries in turn: those whose time is over leave, wherever they are queued. */
void
evict_expire(struct mkv_engine *e)
{
	uint64_t wall = eng_wall(e), now = eng_now(e);
	unsigned n = 0;

	if (now < e->expire_ns)
		return;
	e->expire_ns = now + EXPIRE_NS;
	for (unsigned look = 0; look < EXPIRE_LOOK_MAX && look < e->ix.ents_high; look++) {
		struct mkv_ent *en;

		if (++e->expire_hand >= e->ix.ents_high)
			e->expire_hand = 0;
		en = eng_ent(e, e->expire_hand);
		if ((en->flags & MKV_ENT_LINKED) == 0 || (en->flags & MKV_ENT_PIECE) || !ent_expired(e, en, wall) || req_locked(e, en->digest))
			continue;
		if (evict_one(e, e->expire_hand, MKV_REASON_EXPIRED) != 0)
			break;
		n++;
	}
	/* Perhaps nobody else has anything to flush, and somebody may wait for the space. */
	if (n > 0)
		journal_urgent(e);
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

/* The next victim, or MKV_ENT_NIL. Keys with a put under way stay: the journal would order the eviction behind the new object. */
static uint32_t
evict_next(struct mkv_engine *e, unsigned *look)
{
	uint32_t i;

	while ((i = mkv_policy_victim(&e->pol, look)) != MKV_ENT_NIL) {
		if (!req_locked(e, eng_ent(e, i)->digest))
			return (i);
		mkv_policy_keep(&e->pol, i);
	}
	return (i);
}

void
evict_step(struct mkv_engine *e)
{
	uint64_t want, got = 0, wall;
	unsigned n = 0, meta, look = EVICT_LOOK_MAX;
	uint32_t i;

	evict_rate(e);
	if (!evict_on(e) || e->ix.ents_high == 0 || !lease_evict_ok(e))
		return;
	want = evict_target(e);
	meta = evict_meta_short(e) && e->pend_count < EVICT_STEP_MAX && e->ns.purged == 0 ? EVICT_STEP_MAX / 2 : 0;
	if (want == 0 && meta == 0)
		return;
	wall = eng_wall(e);
	while (n < EVICT_STEP_MAX && (got < want || n < meta) && (i = evict_next(e, &look)) != MKV_ENT_NIL) {
		const struct mkv_ent *en = eng_ent(e, i);
		uint64_t units = ent_units_here(e, en);

		if (evict_one(e, i, ent_expired(e, en, wall) ? MKV_REASON_EXPIRED : MKV_REASON_EVICTED) != 0)
			break;
		got += units;
		n++;
	}
	if (got < want)
		evict_reclaim(e, want - got);
	/* Those that wait pay with a flush; the watermarks can wait for the next one. */
	if (!mkv_list_empty(&e->space_wait) || !mkv_list_empty(&e->pg.wait) || e->pg.free < 4 + e->pg.count / 64)
		journal_urgent(e);
}

void
evict_gauges(struct mkv_engine *e)
{
	struct mkv_metrics *m = e->o.metrics;
	uint64_t hits[MKV_ADAPT_CANDIDATES], looked = mkv_adapt_counts(&e->pol, hits);

	mkv_metric_set(m, MKV_M_drive_pinned_bytes, 0, e->pin_units * e->sb.unit_bytes);
	mkv_metric_set(m, MKV_M_drive_leases, 0, e->lease.count);
	mkv_metric_set(m, MKV_M_drive_evict_ahead_bytes, 0, e->ahead_units * e->sb.unit_bytes);
	mkv_metric_set(m, MKV_M_drive_policy_chosen, 0, mkv_adapt_chosen(&e->pol));
	mkv_metric_set(m, MKV_M_drive_shadow_bytes, 0, mkv_adapt_bytes(&e->pol));
	mkv_metric_set(m, MKV_M_drive_shadow_accesses, 0, looked);
	mkv_metric_set(m, MKV_M_drive_shadow_clock_hits, 0, hits[MKV_ADAPT_CLOCK]);
	mkv_metric_set(m, MKV_M_drive_shadow_lru_hits, 0, hits[MKV_ADAPT_LRU]);
	mkv_metric_set(m, MKV_M_drive_shadow_s3fifo_hits, 0, hits[MKV_ADAPT_S3FIFO]);
	mkv_metric_set(m, MKV_M_drive_shadow_second_touch_hits, 0, hits[MKV_ADAPT_SECOND]);
}
