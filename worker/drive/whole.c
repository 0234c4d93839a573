/*
 * Are the values whose manifests lie here still whole? Drive's loop thread; owns the table of checks, and one walk over the manifests.
 *
 *   a check:  64 pieces at a time: SET_LOOK to each drive of the stripe, SET_SEEN from each of them: which of the pieces it has. One that nobody has: the
 *             manifest leaves (reason `lost`, or what SET_LOST said), durably, and what is left of its pieces is freed as for any manifest that is gone
 *   a walk:   a check of every manifest: soon after open, when the pool map changes, when a drive says that it may have lost pieces (SET_LOST)
 *   alone:    one set, when a reader missed a piece of it, or when SET_LOST names it (or named it before its manifest came) and says why; what was seen
 *             before that is looked for once more
 *
 * Pieces of a set that has a manifest come into being no more. So "not there" is true for ever, whenever it was said, and a message may be lost, late or
 * come twice. Who is silent decides nothing: a drive that is away (FAILED, ABSENT) may come back with its pieces; one that should answer and does not is
 * asked again after the next interval. A drive that was removed for good has none.
 */
#include "config.h"

#include "common/base/err.h"
#include "worker/drive/engine_priv.h"

#define WHOLE_FIRST_NS		MKV_NS_PER_SEC	/* after open, after a message */
#define WHOLE_TURN_NS		MKV_NS_PER_MS	/* a look at the checks: no more than one question each in that time */
#define WHOLE_AGAIN_NS		(200 * MKV_NS_PER_MS)
#define WHOLE_TRIES		5u
#define WHOLE_STEP		2048u		/* entries looked at in one turn */
#define WHOLE_TELL		3u		/* times that SET_LOST is said: it may be lost */

static uint64_t
whole_interval(const struct mkv_engine *e)
{
	return (e->o.audit_interval_ns ? e->o.audit_interval_ns : AUDIT_INTERVAL_NS);
}

static void
whole_soon(struct mkv_engine *e)
{
	e->whole.next_ns = MKV_MIN(e->whole.next_ns, eng_now(e) + WHOLE_FIRST_NS);
}

void
whole_walk(struct mkv_engine *e)
{
	e->whole.wanted = 1;
	whole_soon(e);
}

/* ---- Pieces here ------------------------------------------------------------------------------------------------------------ */

/* Which of the pieces [first, first + n) are here. */
static uint64_t
whole_here(struct mkv_engine *e, struct mkv_set_id set, uint32_t first, unsigned n)
{
	struct mkv_digest d[WHOLE_PIECES];
	uint32_t found[WHOLE_PIECES];
	uint64_t bits = 0;

	for (unsigned k = 0; k < n; k++)
		d[k] = mkv_piece_digest(e->piece_secret, set, first + k);
	for (unsigned k = 0; k < n; k += MKV_INDEX_MANY)
		mkv_index_find_many(&e->ix, d + k, MKV_MIN(n - k, MKV_INDEX_MANY), found + k);
	for (unsigned k = 0; k < n; k++) {
		if (found[k] != MKV_ENT_NIL && (eng_ent(e, found[k])->flags & MKV_ENT_PIECE))
			bits |= 1ull << k;
	}
	return (bits);
}

void
whole_on_look(struct mkv_engine *e, uint32_t drive, struct mkv_set_id set, uint64_t first, uint64_t n)
{
	struct mkv_desc d = { .op = MKV_DRV_SET_SEEN, .arg = { set.lo, set.hi, first } };

	if (first > UINT32_MAX - WHOLE_PIECES || n > WHOLE_PIECES) {
		ENG_COUNT(e, requests_bad_total, 1);
		return;
	}
	d.arg[3] = whole_here(e, set, (uint32_t)first, (unsigned)n);
	e->o.ops->peer(e->o.arg, drive, &d);
}

/* Pieces that were here are not any more; a set of zeros: which ones is not known. */
void
whole_lost(struct mkv_engine *e, struct mkv_set_id set, unsigned reason)
{
	struct mkv_desc d = { .op = MKV_DRV_SET_LOST, .arg = { set.lo, set.hi, reason } };

	if (e->o.offline)
		return;
	if ((set.lo | set.hi) == 0) {
		e->whole.tell = WHOLE_TELL;
		openset_lost(e, set, reason);
		whole_walk(e);
	} else if (set.hi == e->tag)
		whole_on_lost(e, set, reason);
	else
		e->o.ops->peer(e->o.arg, MKV_ENGINE_ALL_DRIVES, &d);
}

/* ---- Checks ----------------------------------------------------------------------------------------------------------------- */

static unsigned
whole_count(const struct whole *c)
{
	return (MKV_MIN(c->piece_count - c->first, WHOLE_PIECES));
}

static int
whole_is_manifest(const struct mkv_ent *en)
{
	return ((en->flags & (MKV_ENT_LINKED | MKV_ENT_MANIFEST)) == (MKV_ENT_LINKED | MKV_ENT_MANIFEST));
}

/* Its manifest, unless it is gone. */
static struct mkv_ent *
whole_ent(struct mkv_engine *e, const struct whole *c)
{
	struct mkv_ent *en = eng_ent(e, c->ent);
	const struct mkv_side *s = &e->ix.side[en->run];

	if (!whole_is_manifest(en))
		return (NULL);
	return (s->set.lo == c->set.lo && s->set.hi == c->set.hi ? en : NULL);
}

/* The next pieces: ask everybody. */
static void
whole_begin(struct mkv_engine *e, struct whole *c)
{
	c->bits = 0;
	c->tries = 0;
	c->again_ns = 0;
	c->silent = c->mask;
	if ((c->mask >> e->o.drive_idx) & 1) {
		c->bits = whole_here(e, c->set, c->first, whole_count(c));
		c->silent &= ~(1ull << e->o.drive_idx);
	}
}

/* news: a piece has left. reason: why, MKV_REASON_LOST if that is not known. 0: the table is full. */
static int
whole_check(struct mkv_engine *e, uint32_t i, int news, unsigned reason)
{
	const struct mkv_side *s = &e->ix.side[eng_ent(e, i)->run];
	struct whole *c = NULL;
	int sure;
	uint64_t mask = poolmap_holders(e, s->stripe_mask, &sure);

	if (!sure || e->readonly || e->o.offline)
		return (1);
	for (unsigned k = 0; k < WHOLE_CHECKS; k++) {
		struct whole *w = &e->whole.check[k];

		if (w->used && w->ent == i && w->set.lo == s->set.lo) {
			w->again |= news;
			if (reason != MKV_REASON_LOST)
				w->reason = reason;
			return (1);
		}
		if (!w->used)
			c = w;
	}
	if (c == NULL)
		return (0);
	*c = (struct whole){ .used = 1, .set = s->set, .ent = i, .piece_count = s->piece_count, .mask = mask, .reason = reason };
	e->whole.checks++;
	whole_begin(e, c);
	return (1);
}

static void
whole_end(struct mkv_engine *e, struct whole *c)
{
	c->used = 0;
	e->whole.checks--;
}

void
whole_suspect(struct mkv_engine *e, uint32_t i, unsigned reason)
{
	if (whole_is_manifest(eng_ent(e, i)) && !whole_check(e, i, 1, reason))
		whole_walk(e);
}

/* The reason is a neighbour's number. */
void
whole_on_lost(struct mkv_engine *e, struct mkv_set_id set, uint64_t reason)
{
	unsigned why = reason == MKV_REASON_CORRUPT || reason == MKV_REASON_WRITER_CRC ? (unsigned)reason : MKV_REASON_LOST;
	uint32_t i;

	openset_lost(e, set, why);			/* its manifest may come yet */
	if ((set.lo | set.hi) == 0)
		whole_walk(e);
	else if ((i = setmap_ent(e, set)) != MKV_ENT_NIL)
		whole_suspect(e, i, why);
}

void
whole_on_seen(struct mkv_engine *e, uint32_t drive, struct mkv_set_id set, uint64_t first, uint64_t bits)
{
	for (unsigned k = 0; k < WHOLE_CHECKS; k++) {
		struct whole *c = &e->whole.check[k];

		if (!c->used || c->set.lo != set.lo || c->set.hi != set.hi || c->first != first)
			continue;
		c->bits |= bits;
		c->silent &= ~(1ull << drive);
	}
}

/* Again and again, for a while; then it is left for the next interval. */
static void
whole_ask(struct mkv_engine *e, struct whole *c, uint64_t now)
{
	struct mkv_desc d = { .op = MKV_DRV_SET_LOOK, .arg = { c->set.lo, c->set.hi, c->first, whole_count(c) } };

	if (now < c->again_ns)
		return;
	if (c->tries++ == WHOLE_TRIES) {
		e->whole.wanted = 1;
		e->whole.next_ns = MKV_MIN(e->whole.next_ns, now + whole_interval(e));
		whole_end(e, c);
		return;
	}
	c->again_ns = now + WHOLE_AGAIN_NS;
	for (uint32_t i = 0; i < 64; i++) {
		if ((c->silent >> i) & 1)
			e->o.ops->peer(e->o.arg, i, &d);
	}
}

/* A piece is nowhere. A key that somebody writes, or no room: a moment later. */
static void
whole_drop(struct mkv_engine *e, struct whole *c, const struct mkv_ent *en)
{
	if (req_locked(e, en->digest) || evict_one(e, c->ent, c->reason) != 0)
		return;
	ENG_COUNT(e, values_lost_total, 1);
	journal_urgent(e);
	whole_end(e, c);
}

static void
whole_one(struct mkv_engine *e, struct whole *c, uint64_t now)
{
	const struct mkv_ent *en = whole_ent(e, c);
	unsigned n = whole_count(c);

	if (en == NULL)
		whole_end(e, c);
	else if (c->silent != 0)
		whole_ask(e, c, now);
	else if (c->bits != (n == WHOLE_PIECES ? UINT64_MAX : (1ull << n) - 1))
		whole_drop(e, c, en);
	else if (c->piece_count - c->first <= WHOLE_PIECES && !c->again)
		whole_end(e, c);
	else {
		c->first = c->piece_count - c->first <= WHOLE_PIECES ? 0 : c->first + WHOLE_PIECES;
		if (c->first == 0)
			c->again = 0;
		whole_begin(e, c);
	}
}

/* ---- The walk --------------------------------------------------------------------------------------------------------------- */

static void
whole_walk_step(struct mkv_engine *e)
{
	struct set_whole *w = &e->whole;

	for (unsigned n = 0; n < WHOLE_STEP && w->hand < e->ix.ents_high; n++, w->hand++) {
		if (!whole_is_manifest(eng_ent(e, w->hand)))
			continue;
		if (!whole_check(e, w->hand, 0, MKV_REASON_LOST))
			return;
	}
	w->walking = w->hand < e->ix.ents_high;
}

static void
whole_tick(struct mkv_engine *e, uint64_t now)
{
	struct set_whole *w = &e->whole;
	struct mkv_desc d = { .op = MKV_DRV_SET_LOST };

	w->next_ns = UINT64_MAX;
	if (w->wanted) {
		w->wanted = 0;
		w->walking = e->manifests > 0;
		w->hand = 0;
	}
	if (w->tell > 0) {
		e->o.ops->peer(e->o.arg, MKV_ENGINE_ALL_DRIVES, &d);
		w->tell--;
		w->next_ns = w->tell > 0 ? now + whole_interval(e) : UINT64_MAX;
	}
}

/* After a crash pieces that were only accepted may be gone without a trace. */
void
whole_opened(struct mkv_engine *e, int clean)
{
	e->whole.next_ns = UINT64_MAX;
	if (e->manifests > 0)
		whole_walk(e);
	if (!clean || e->rec.lost_objects || e->rec.damaged_blocks)
		whole_lost(e, (struct mkv_set_id){ 0, 0 }, MKV_REASON_LOST);
}

void
whole_step(struct mkv_engine *e, uint64_t now)
{
	struct set_whole *w = &e->whole;

	if (e->readonly || e->o.offline || e->opening)
		return;
	if (now >= w->next_ns && !w->walking)
		whole_tick(e, now);
	if ((w->checks == 0 && !w->walking) || now < w->turn_ns)
		return;
	w->turn_ns = now + WHOLE_TURN_NS;
	for (unsigned k = 0; k < WHOLE_CHECKS; k++) {
		if (w->check[k].used)
			whole_one(e, &w->check[k], now);
	}
	if (w->walking)
		whole_walk_step(e);
}

/* When the next step has something to do, though nothing else happens. */
uint64_t
whole_next_ns(const struct mkv_engine *e)
{
	const struct set_whole *w = &e->whole;

	if (e->readonly || e->o.offline)
		return (UINT64_MAX);
	return (w->checks > 0 || w->walking ? w->turn_ns : w->next_ns);
}
