/*
 * Striped values: what drives say to each other. Drive's loop thread; owns the table of sets to be freed and the answers owed.
 *
 *   home: manifest durable -> SET_COMMITTED to every drive of its stripe
 *   home: manifest gone, durably, and its last reader with it -> SET_FREE to every drive of its stripe, again every second, until each said SET_FREED;
 *         then SET_FREED is journaled
 *   any:  SET_FREE -> drop records of the pieces (setjob.c), flush, SET_FREED
 *
 * The list of sets to be freed is rebuilt by replay, so a restart goes on asking. A table that is full stops evictions of manifests, nothing else.
 * Pieces that no manifest will name, and messages that were lost: audit.c.
 */
#include "config.h"

#include <string.h>

#include "common/base/err.h"
#include "worker/drive/engine_priv.h"

#define SET_AGAIN_NS		MKV_NS_PER_SEC

/* About how many units of a set's pieces lie on one drive of its stripe. */
uint64_t
set_units(const struct mkv_engine *e, uint64_t mask, uint32_t piece_count)
{
	return ((uint64_t)piece_count * (e->sb.extent_bytes / e->sb.unit_bytes) / (uint64_t)MKV_MAX(__builtin_popcountll(mask), 1));
}

int
set_room(const struct mkv_engine *e)
{
	return (e->setfrees < SETFREE_MAX - 64);
}

/* Units that will be free here when what was asked for is done. */
uint64_t
set_units_due(struct mkv_engine *e)
{
	uint64_t units = 0;

	for (uint32_t i = 0; e->setfrees > 0 && i < SETFREE_MAX; i++) {
		const struct setfree *s = &e->setfree[i];
		uint32_t gone;

		/* A reader may take its time: whoever waits for space does not count on these units. */
		if (!s->used || ((s->mask >> e->o.drive_idx) & 1) == 0 || (s->held && s->seq <= e->jn.flushed))
			continue;
		gone = s->piece_count > SET_STEP ? MKV_MIN(setjob_dropped(e, s->set), s->piece_count) : 0;
		units += set_units(e, s->mask, s->piece_count - gone);
	}
	return (units);
}

static struct setfree *
set_find(struct mkv_engine *e, struct mkv_set_id set)
{
	for (uint32_t i = 0; e->setfrees > 0 && i < SETFREE_MAX; i++) {
		struct setfree *s = &e->setfree[i];

		if (s->used && s->set.lo == set.lo && s->set.hi == set.hi)
			return (s);
	}
	return (NULL);
}

static void
set_add(struct mkv_engine *e, struct mkv_set_id set, uint64_t mask, uint32_t piece_count, uint64_t seq, int held)
{
	struct setfree *s = NULL;

	if (mask == 0 || set_find(e, set) != NULL)
		return;
	for (uint32_t i = 0; i < SETFREE_MAX && s == NULL; i++)
		s = e->setfree[i].used ? NULL : &e->setfree[i];
	if (s == NULL) {			/* set_room() leaves 64 for overwrites and deletes; what is beyond is found by an audit */
		audit_tell(e);
		return;
	}
	*s = (struct setfree){ .set = set, .mask = mask, .piece_count = piece_count, .used = 1, .seq = seq, .held = held };
	e->setfrees++;
}

void
set_manifest_gone(struct mkv_engine *e, const struct mkv_side *s, uint64_t seq)
{
	set_add(e, s->set, s->stripe_mask, s->piece_count, seq, 1);
}

void
set_unread(struct mkv_engine *e, struct mkv_set_id set)
{
	struct setfree *s = set_find(e, set);

	if (s != NULL)
		s->held = 0;
}

void
set_replay_gone(struct mkv_engine *e, const struct mkv_jset *s)
{
	set_add(e, s->set, s->stripe_mask, s->piece_count, 0, 0);
}

void
set_replay_freed(struct mkv_engine *e, struct mkv_set_id set)
{
	struct setfree *s = set_find(e, set);

	if (s == NULL)
		return;
	s->used = 0;
	e->setfrees--;
}

int
set_is_going(struct mkv_engine *e, struct mkv_set_id set)
{
	return (set_find(e, set) != NULL);
}

static void
set_send(struct mkv_engine *e, uint32_t drive, enum mkv_drv_op op, struct mkv_set_id set, uint32_t piece_count)
{
	struct mkv_desc d = { .op = (uint16_t)op, .arg = { set.lo, set.hi, piece_count } };

	if (drive == e->o.drive_idx)
		mkv_engine_peer(e, drive, &d);
	else
		e->o.ops->peer(e->o.arg, drive, &d);
}

static void
set_say(struct mkv_engine *e, const struct setack *a)
{
	for (uint32_t i = 0; i < MKV_DRV_STRIPE_MAX; i++) {
		if ((a->mask >> i) & 1)
			set_send(e, i, (enum mkv_drv_op)a->op, a->set, a->piece_count);
	}
}

void
set_answer(struct mkv_engine *e, uint64_t mask, enum mkv_drv_op op, struct mkv_set_id set, uint32_t piece_count, uint64_t seq)
{
	struct setack a = { .seq = seq, .mask = mask, .op = (uint16_t)op, .set = set, .piece_count = piece_count };

	if (seq <= e->jn.flushed) {
		set_say(e, &a);
		return;
	}
	if (e->setacks < SETACK_MAX)
		e->setack[e->setacks++] = a;
	journal_urgent(e);
}

/* A manifest that was accepted only may still be lost: its pieces stay provisional until it is durable. */
void
set_committed(struct mkv_engine *e, const struct mkv_side *s, uint64_t seq)
{
	struct setack a = { .seq = seq, .mask = s->stripe_mask, .op = MKV_DRV_SET_COMMITTED, .set = s->set, .piece_count = s->piece_count };

	if (e->opening)
		return;
	if (seq <= e->jn.flushed)
		set_say(e, &a);
	else if (e->setacks < SETACK_MAX)
		e->setack[e->setacks++] = a;	/* no room: it is asked for */
}

/* These have no pieces of it any more. The last ones: done, if the journal has room; else they are asked again, and answer again. */
static void
set_freed(struct mkv_engine *e, struct setfree *s, uint64_t drives)
{
	static const struct mkv_digest none;
	struct mkv_jset body = { .set = s->set };

	if ((s->mask & ~drives) != 0) {
		s->mask &= ~drives;
		return;
	}
	if (journal_room(e, sizeof(body), 0) != 0)
		return;
	(void)journal_append(e, MKV_J_SET_FREED, none, 0, 0, 0, &body, sizeof(body));
	s->used = 0;
	e->setfrees--;
}

static void
set_on_freed(struct mkv_engine *e, uint32_t drive, struct mkv_set_id set)
{
	struct setfree *s = set_find(e, set);

	if (s != NULL && drive < 64)
		set_freed(e, s, 1ull << drive);
}

/* A group is durable: answers that waited for it go out. */
void
set_flushed(struct mkv_engine *e)
{
	uint32_t n = e->setacks, keep = 0;
	struct setack due[SETACK_MAX];
	uint32_t dues = 0;

	for (uint32_t i = 0; i < n; i++) {
		if (!e->readonly && e->setack[i].seq <= e->jn.flushed)
			due[dues++] = e->setack[i];
		else if (!e->readonly)
			e->setack[keep++] = e->setack[i];
	}
	e->setacks = keep;
	for (uint32_t i = 0; i < dues; i++)
		set_say(e, &due[i]);
}

void
set_step(struct mkv_engine *e, uint64_t now)
{
	for (uint32_t i = 0; e->setfrees > 0 && i < SETFREE_MAX; i++) {
		struct setfree *s = &e->setfree[i];
		uint64_t mask;
		int sure;

		if (!s->used || s->held || now < s->again_ns)
			continue;
		if (s->seq > e->jn.flushed) {
			journal_urgent(e);
			continue;
		}
		s->again_ns = now + SET_AGAIN_NS;
		mask = poolmap_holders(e, s->mask, &sure);
		if (mask != s->mask && !e->readonly)
			set_freed(e, s, s->mask & ~mask);
		for (uint32_t d = 0; d < 64 && s->used; d++) {
			if ((mask >> d) & 1)
				set_send(e, d, MKV_DRV_SET_FREE, s->set, s->piece_count);
		}
	}
}

/* Another drive is short of space because of pieces homed here: give up manifests with pieces there, oldest unread first. */
static void
set_on_reclaim(struct mkv_engine *e, uint32_t drive, uint64_t bytes)
{
	uint64_t got = 0;

	if (!evict_on(e) || !lease_evict_ok(e))
		return;
	for (uint32_t look = 0; look < 8192 && got < bytes && e->manifests > 0 && e->ix.ents_high > 0; look++) {
		struct mkv_ent *en;
		const struct mkv_side *s;

		if (++e->hand >= e->ix.ents_high)
			e->hand = 0;
		en = eng_ent(e, e->hand);
		if ((en->flags & (MKV_ENT_LINKED | MKV_ENT_MANIFEST)) != (MKV_ENT_LINKED | MKV_ENT_MANIFEST) ||
		    (en->flags & (MKV_ENT_PIN | MKV_ENT_LEASED)) || req_locked(e, en->digest))
			continue;
		s = &e->ix.side[en->run];
		if (((s->stripe_mask >> drive) & 1) == 0)
			continue;
		if (en->flags & (MKV_ENT_REF | MKV_ENT_REF2)) {
			en->flags &= (uint16_t)~(MKV_ENT_REF | MKV_ENT_REF2);
			continue;
		}
		got += set_units(e, s->stripe_mask, s->piece_count) * e->sb.unit_bytes;
		if (evict_one(e, e->hand, MKV_REASON_EVICTED) != 0)
			break;
	}
	journal_urgent(e);
}

void
mkv_engine_peer(struct mkv_engine *e, uint32_t drive, const struct mkv_desc *d)
{
	struct mkv_set_id set = { d->arg[0], d->arg[1] };
	uint32_t count = (uint32_t)MKV_MIN(d->arg[2], MKV_DRV_PIECES_MAX);

	MKV_CHECK_OBJ(e, MKV_ENGINE_MAGIC);
	if (drive >= MKV_DRV_STRIPE_MAX) {
		ENG_COUNT(e, requests_bad_total, 1);
		return;
	}
	switch (d->op) {
	case MKV_DRV_SET_COMMITTED:
		setjob_committed(e, set, count);
		break;
	case MKV_DRV_SET_FREE:
		setjob_free(e, 1ull << drive, set, count);
		break;
	case MKV_DRV_SET_FREED:
		set_on_freed(e, drive, set);
		break;
	case MKV_DRV_SET_ASK:
		audit_on_ask(e, drive, set, count, (unsigned)d->arg[3]);
		break;
	case MKV_DRV_SET_AUDIT:
		audit_on_audit(e);
		break;
	case MKV_DRV_SET_LOOK:
		whole_on_look(e, drive, set, d->arg[2], d->arg[3]);
		break;
	case MKV_DRV_SET_SEEN:
		whole_on_seen(e, drive, set, d->arg[2], d->arg[3]);
		break;
	case MKV_DRV_SET_LOST:
		whole_on_lost(e, set, d->arg[2]);
		break;
	case MKV_DRV_RECLAIM:
		if (e->o.evict && !e->readonly)
			set_on_reclaim(e, drive, d->arg[0]);
		break;
	default:				/* foreign: another build, or damage */
		ENG_COUNT(e, requests_bad_total, 1);
		break;
	}
}
