/*
 * Who do these pieces belong to? Drive's loop thread; owns the table of open sets, the map from set ids to manifests, and one walk over the pieces.
 *
 *   any:   every audit interval, and soon after open: walk the pieces (provisional ones; all of them after an open, or when a home says so), read
 *          their records, ask all drives once for each set: SET_ASK
 *   home:  the drive whose tag the set has. A manifest names it -> SET_COMMITTED. It is open (given by SET_NEW under this mount, its front is alive, its
 *          deadline not over, or its manifest is at work) or SET_FREE is under way -> silence. Neither -> SET_FREE
 *
 * A set that is not open is never opened again and its manifest is refused, so what is freed can never be named. Both answers wait until
 * everything appended so far is durable. Who gets no answer keeps its pieces and asks again: a home that is away loses nothing. A home that may have lost
 * manifests (damage, a full table) says SET_AUDIT to all. Messages may be lost: everything is said again.
 */
#include "config.h"

#include <string.h>

#include "common/base/err.h"
#include "worker/drive/engine_priv.h"

#define AUDIT_FIRST_NS		MKV_NS_PER_SEC	/* after open */
#define AUDIT_OPEN_GRACE_NS	(10 * MKV_NS_PER_SEC)
#define AUDIT_STEP		2048u		/* entries looked at in one turn */
#define AUDIT_PAGES		16u		/* records read in one turn */
#define AUDIT_ASK_PIECES	1024u
#define AUDIT_TELL		3u		/* times that SET_AUDIT is said: it may be lost */

enum { ASK_ALL = 1 };			/* of SET_ASK: the pieces are not provisional, only SET_FREE is news */

static uint32_t *
setmap_head(struct mkv_engine *e, struct mkv_set_id set)
{
	return (&e->audit.head[(set.lo ^ set.lo >> 32) % SETMAP_HEADS]);
}

void
setmap_add(struct mkv_engine *e, uint32_t i)
{
	struct mkv_side *s = &e->ix.side[eng_ent(e, i)->run];
	uint32_t *h = setmap_head(e, s->set);

	s->ent = i;
	s->chain = *h;
	*h = eng_ent(e, i)->run + 1;
}

void
setmap_del(struct mkv_engine *e, uint32_t side)
{
	uint32_t *p = setmap_head(e, e->ix.side[side].set);

	while (*p != 0 && *p != side + 1)
		p = &e->ix.side[*p - 1].chain;
	MKV_ASSERT(*p == side + 1);
	*p = e->ix.side[side].chain;
}

static int
set_same(struct mkv_set_id a, struct mkv_set_id b)
{
	return (a.lo == b.lo && a.hi == b.hi);
}

static const struct mkv_side *
setmap_find(struct mkv_engine *e, struct mkv_set_id set)
{
	for (uint32_t i = *setmap_head(e, set); i != 0; i = e->ix.side[i - 1].chain) {
		if (set_same(e->ix.side[i - 1].set, set))
			return (&e->ix.side[i - 1]);
	}
	return (NULL);
}

int
setmap_has(struct mkv_engine *e, struct mkv_set_id set)
{
	return (setmap_find(e, set) != NULL);
}

uint32_t
setmap_ent(struct mkv_engine *e, struct mkv_set_id set)
{
	const struct mkv_side *s = setmap_find(e, set);

	return (s != NULL ? s->ent : MKV_ENT_NIL);
}

static uint64_t
openset_until(uint64_t deadline_ns)
{
	return (deadline_ns != 0 && deadline_ns < UINT64_MAX - AUDIT_OPEN_GRACE_NS ? deadline_ns + AUDIT_OPEN_GRACE_NS : UINT64_MAX);
}

/* A set for a put that begins. 0: too many are open. */
int
openset_add(struct mkv_engine *e, struct mkv_set_id set, uint32_t client, uint64_t deadline_ns)
{
	uint64_t now = eng_now(e);

	for (uint32_t i = 0; i < OPENSETS_MAX; i++) {
		struct openset *o = &e->audit.open[i];

		if (o->used && now < o->until_ns)
			continue;
		*o = (struct openset){ .set = set, .client = client, .used = 1, .until_ns = openset_until(deadline_ns) };
		return (1);
	}
	return (0);
}

static struct openset *
openset_find(struct mkv_engine *e, struct mkv_set_id set)
{
	uint64_t now = eng_now(e);

	for (uint32_t i = 0; i < OPENSETS_MAX; i++) {
		struct openset *o = &e->audit.open[i];

		if (o->used && set_same(o->set, set) && now < o->until_ns)
			return (o);
	}
	return (NULL);
}

/* Its put has a later deadline. 0: it is not open, and will not be again. */
int
openset_renew(struct mkv_engine *e, struct mkv_set_id set, uint32_t client, uint64_t deadline_ns)
{
	struct openset *o = openset_find(e, set);

	if (o == NULL || o->client != client)
		return (0);
	o->until_ns = MKV_MAX(o->until_ns, openset_until(deadline_ns));
	return (1);
}

/* May a manifest of this set be put now? */
int
openset_may_commit(struct mkv_engine *e, struct mkv_set_id set)
{
	return (openset_find(e, set) != NULL);
}

unsigned
openset_end(struct mkv_engine *e, struct mkv_set_id set)
{
	struct openset *o = openset_find(e, set);

	if (o == NULL)
		return (MKV_REASON_NONE);
	o->used = 0;
	return (o->lost);
}

void
openset_lost(struct mkv_engine *e, struct mkv_set_id set, unsigned reason)
{
	for (uint32_t i = 0; i < OPENSETS_MAX; i++) {
		struct openset *o = &e->audit.open[i];

		if ((set.lo | set.hi) == 0 || set_same(o->set, set))
			o->lost = reason;
	}
}

void
openset_client_gone(struct mkv_engine *e, uint32_t client)
{
	for (uint32_t i = 0; i < OPENSETS_MAX; i++) {
		if (e->audit.open[i].client == client)
			e->audit.open[i].used = 0;
	}
}

/* Its manifest may still come to be. */
static int
openset_is(struct mkv_engine *e, struct mkv_set_id set)
{
	if (openset_find(e, set) != NULL)
		return (1);
	MKV_LIST_FOREACH(l, &e->all) {
		const struct mkv_req *r = MKV_CONTAINER_OF(l, struct mkv_req, all);

		if ((r->q.flags & MKV_DRV_F_MANIFEST) && set_same(r->q.set, set))
			return (1);
	}
	return (0);
}

/* Somebody has pieces of a set; it may be ours. */
void
audit_on_ask(struct mkv_engine *e, uint32_t drive, struct mkv_set_id set, uint32_t piece_count, unsigned flags)
{
	const struct mkv_side *s = setmap_find(e, set);

	if (set.hi != e->tag || e->readonly)
		return;
	if (s != NULL) {
		if ((flags & ASK_ALL) == 0)
			set_answer(e, 1ull << drive, MKV_DRV_SET_COMMITTED, set, s->piece_count, e->jn.last_record);
		return;
	}
	if (!openset_is(e, set) && !set_is_going(e, set))
		set_answer(e, 1ull << drive, MKV_DRV_SET_FREE, set, piece_count, e->jn.last_record);
}

/* A home may have lost manifests: look at all pieces, soon. */
void
audit_on_audit(struct mkv_engine *e)
{
	e->audit.all = 1;
	e->audit.next_ns = MKV_MIN(e->audit.next_ns, eng_now(e) + AUDIT_FIRST_NS);
}

/* Manifests of ours may be gone without anybody having been told. */
void
audit_tell(struct mkv_engine *e)
{
	e->audit.tell = AUDIT_TELL;
	audit_on_audit(e);
}

void
mkv_engine_home_removed(struct mkv_engine *e, const uint8_t uuid[16])
{
	struct set_audit *a = &e->audit;

	MKV_CHECK_OBJ(e, MKV_ENGINE_MAGIC);
	if (a->removed_count == AUDIT_REMOVED_MAX)
		memmove(a->removed, a->removed + 1, --a->removed_count * sizeof(a->removed[0]));
	a->removed[a->removed_count++] = mkv_block_tag(uuid);
	audit_on_audit(e);
}

/* From here on its pieces are asked for like any home's: those of its former life it knows nothing of. */
void
mkv_engine_home_back(struct mkv_engine *e, const uint8_t uuid[16])
{
	struct set_audit *a = &e->audit;
	uint32_t keep = 0;

	MKV_CHECK_OBJ(e, MKV_ENGINE_MAGIC);
	for (uint32_t i = 0; i < a->removed_count; i++)
		if (a->removed[i] != mkv_block_tag(uuid))
			a->removed[keep++] = a->removed[i];
	a->removed_count = keep;
	audit_on_audit(e);
}

static int
audit_is_removed(const struct mkv_engine *e, uint64_t tag)
{
	for (uint32_t i = 0; i < e->audit.removed_count; i++) {
		if (e->audit.removed[i] == tag && tag != e->tag)
			return (1);
	}
	return (0);
}

/*
 * One question for many pieces of a set, as far as a small table remembers. A piece does not know how many there will be: twice its number, so that few
 * questions are enough.
 */
static void
audit_ask(struct mkv_engine *e, const struct mkv_obj_set *s, int provisional)
{
	struct asked *last = &e->audit.asked[s->set.lo % AUDIT_ASKED];
	uint32_t count = MKV_MAX(AUDIT_ASK_PIECES, 2 * MKV_MIN(s->piece_no + 1, MKV_DRV_PIECES_MAX / 2));
	struct mkv_desc d = { .op = MKV_DRV_SET_ASK, .arg = { s->set.lo, s->set.hi, count, provisional ? 0 : ASK_ALL } };

	if (set_same(last->set, s->set) && s->piece_no < last->count)
		return;
	*last = (struct asked){ s->set, count };
	ENG_COUNT(e, sets_asked_total, 1);
	if (s->set.hi == e->tag)
		audit_on_ask(e, e->o.drive_idx, s->set, count, (unsigned)d.arg[3]);
	else
		e->o.ops->peer(e->o.arg, MKV_ENGINE_ALL_DRIVES, &d);
}

/* A piece whose record is bad: its home is told, though not of which set it was. */
static int
audit_drop(struct mkv_engine *e, uint32_t i)
{
	int r = evict_one(e, i, MKV_REASON_CORRUPT);

	if (r == 0)
		whole_lost(e, (struct mkv_set_id){ 0, 0 }, MKV_REASON_LOST);
	return (r == MKV_E_AGAIN ? r : 0);
}

/* The piece in entry i. 0 done with it; MKV_E_AGAIN: its page is on the way, or no room. */
static int
audit_piece(struct mkv_engine *e, uint32_t i)
{
	struct mkv_ent *en = eng_ent(e, i);
	struct mkv_obj_view v;
	struct mkv_page *pg;
	int r;

	if (req_locked(e, en->digest))
		return (0);
	if ((r = page_get(e, en->page, NULL, &pg)) == MKV_E_AGAIN)
		return (r);
	/* Nobody can say whose it is: its value is damaged anyway. */
	if (r == MKV_E_CORRUPT || (r == 0 && (obj_in_page(e, en, pg, &v) != 0 || v.set == NULL)))
		return (audit_drop(e, i));
	if (r != 0)
		return (0);
	if (audit_is_removed(e, v.set->set.hi))
		return (setjob_drop_one(e, v.set->set, v.set->piece_no) == MKV_E_AGAIN ? MKV_E_AGAIN : 0);
	audit_ask(e, v.set, (en->flags & MKV_ENT_PROVISIONAL) != 0);
	return (0);
}

static void
audit_walk(struct mkv_engine *e)
{
	struct set_audit *a = &e->audit;
	unsigned pages = 0;

	for (unsigned n = 0; n < AUDIT_STEP && a->hand < e->ix.ents_high; n++, a->hand++) {
		const struct mkv_ent *en = eng_ent(e, a->hand);

		if ((en->flags & (MKV_ENT_LINKED | MKV_ENT_PIECE)) != (MKV_ENT_LINKED | MKV_ENT_PIECE) ||
		    (!a->walk_all && (en->flags & MKV_ENT_PROVISIONAL) == 0))
			continue;
		if (pages++ == AUDIT_PAGES || audit_piece(e, a->hand) != 0)
			return;
	}
	a->walking = a->hand < e->ix.ents_high;
}

static void
audit_begin(struct mkv_engine *e, uint64_t now)
{
	struct set_audit *a = &e->audit;
	struct mkv_desc d = { .op = MKV_DRV_SET_AUDIT };

	a->next_ns = now + (e->o.audit_interval_ns ? e->o.audit_interval_ns : AUDIT_INTERVAL_NS);
	a->walking = a->all ? e->pieces > 0 : e->provisional > 0;
	a->walk_all = a->all;
	a->all = 0;
	a->hand = 0;
	memset(a->asked, 0, sizeof(a->asked));
	if (a->tell > 0) {
		a->tell--;
		a->all = a->tell > 0;
		e->o.ops->peer(e->o.arg, MKV_ENGINE_ALL_DRIVES, &d);
	}
}

void
audit_opened(struct mkv_engine *e)
{
	e->audit.next_ns = eng_now(e) + AUDIT_FIRST_NS;
	e->audit.all = 1;
	if (e->rec.lost_objects || e->rec.damaged_blocks || e->formatted)
		e->audit.tell = AUDIT_TELL;
}

void
audit_step(struct mkv_engine *e, uint64_t now)
{
	if (e->readonly || e->o.offline || e->opening)	/* nobody to ask */
		return;
	if (!e->audit.walking && now >= e->audit.next_ns)
		audit_begin(e, now);
	if (e->audit.walking)
		audit_walk(e);
}

/* When the next step has something to do, though nothing else happens. */
uint64_t
audit_next_ns(const struct mkv_engine *e)
{
	if (e->readonly || e->o.offline || (e->pieces == 0 && e->audit.tell == 0))
		return (UINT64_MAX);
	return (e->audit.walking ? eng_now(e) + MKV_NS_PER_MS : e->audit.next_ns);
}
