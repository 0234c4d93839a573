/*
 * Namespaces at a drive: a slot for each that has objects, the list of these, and purging one in a moment. Drive's loop thread; owns the table of slots.
 *
 *   open --PURGE(name) appended--> closed --durable--> purged: its objects are misses --ns_step()--> empty --no checkpoint writes--> free
 *
 * A put takes the open slot of its namespace's name when its record goes into the journal, so what was put before the purge and what after it is told apart
 * by the journal's order, however late a put is applied. Objects of a purged slot leave some at a time without a record each: the purge's covers them all.
 * On the medium a purge is a name: replay drops what bears it. Numbers of slots mean something within one checkpoint only, which has the names as well; so
 * no slot gets another name while a checkpoint is written.
 *
 * Invariants: an open slot is found by its name, a closed one is not; each linked object but pieces is in the list of one slot, except while a recovery reads;
 * pieces have slot 0.
 * What fails: a put of yet another namespace when all slots are taken (busy).
 */
#include "config.h"

#include <stdlib.h>
#include <string.h>

#include "common/base/err.h"
#include "worker/drive/engine_priv.h"

#define NS_STEP		256u			/* objects in a turn */
#define NS_SEED		0x6e616d6573706163ull

_Static_assert(MKV_DRV_NS_COUNT_MAX <= MKV_ENT_SLOT_MAX, "an entry can have any slot");

static uint64_t
ns_hash(const void *name, size_t bytes)
{
	return (mkv_hash64(name, bytes, NS_SEED));
}

int
ns_init(struct mkv_engine *e)
{
	e->ns.count = mkv_layout_slots(e->sb.objects_max);
	e->ns.slot = calloc((size_t)e->ns.count + 1, sizeof(*e->ns.slot));
	return (e->ns.slot == NULL ? MKV_E_NOMEM : 0);
}

void
ns_fini(struct mkv_engine *e)
{
	free(e->ns.slot);
}

/* ---- Slots ----------------------------------------------------------------------------------------------------------------- */

static uint16_t *
ns_head(struct mkv_engine *e, const struct nspace *s)
{
	return (&e->ns.head[ns_hash(s->name, s->name_bytes) % NS_HEADS]);
}

static void
ns_unname(struct mkv_engine *e, uint32_t slot)
{
	struct nspace *s = &e->ns.slot[slot];
	uint16_t *p = ns_head(e, s);

	while (*p != slot)
		p = &e->ns.slot[*p].next;
	*p = s->next;
	s->next = 0;
}

/* It is found by its name from now on. */
static void
ns_open(struct mkv_engine *e, uint32_t slot)
{
	struct nspace *s = &e->ns.slot[slot];
	uint16_t *head = ns_head(e, s);

	s->next = *head;
	*head = (uint16_t)slot;
}

static void
ns_name(struct nspace *s, const void *name, size_t bytes)
{
	memcpy(s->name, name, bytes);
	s->name_bytes = (uint8_t)bytes;
	s->used = 1;
}

/* The open slot of a name; 0: none. */
static uint32_t
ns_find(struct mkv_engine *e, const void *name, size_t bytes)
{
	uint32_t i = e->ns.head[ns_hash(name, bytes) % NS_HEADS];

	for (; i != 0; i = e->ns.slot[i].next) {
		const struct nspace *s = &e->ns.slot[i];

		if (s->name_bytes == bytes && memcmp(s->name, name, bytes) == 0)
			break;
	}
	return (i);
}

/* A checkpoint that is being written may know objects that were in it: then it keeps its name. */
static int
ns_release(struct mkv_engine *e, uint32_t slot)
{
	struct nspace *s = &e->ns.slot[slot];

	if (s->objects > 0 || s->coming > 0 || e->ck.state == CK_SCAN || (s->purge_seq != 0 && s->purge_seq > e->jn.flushed))
		return (0);
	if (s->condemned != 0)
		e->ns.condemned--;
	else if (s->purge_seq == 0 && s->used)
		ns_unname(e, slot);
	memset(s, 0, sizeof(*s));
	return (1);
}

uint32_t
ns_take(struct mkv_engine *e, const void *name, size_t bytes)
{
	uint32_t i = ns_find(e, name, bytes);

	MKV_ASSERT(bytes <= MKV_DRV_NS_MAX);
	if (i != 0)
		return (i);
	for (i = 1; i <= e->ns.count && e->ns.slot[i].used; i++)
		continue;
	if (i > e->ns.count)
		(void)ns_replay_sweep(e);
	for (uint32_t k = 1; i > e->ns.count && k <= e->ns.count; k++)
		if (ns_release(e, k))
			i = k;
	if (i > e->ns.count)
		return (0);
	ns_name(&e->ns.slot[i], name, bytes);
	ns_open(e, i);
	return (i);
}

/* ---- Their objects --------------------------------------------------------------------------------------------------------- */

static uint64_t
ns_bytes(const struct mkv_engine *e, const struct mkv_ent *en)
{
	if (en->flags & MKV_ENT_MANIFEST)
		return ((uint64_t)e->ix.side[en->run].piece_count * e->sb.extent_bytes);
	return ((uint64_t)en->units * e->sb.unit_bytes);
}

static void
ns_count(struct mkv_engine *e, struct nspace *s, const struct mkv_ent *en, int d)
{
	s->objects += (uint32_t)d;
	s->units += (uint64_t)d * ent_units_here(e, en);
	s->bytes += (uint64_t)d * ns_bytes(e, en);
	if (s->purge_seq != 0) {
		e->ns.purged += (uint32_t)d;
		e->ns.purged_units += (uint64_t)d * ent_units_here(e, en);
	}
}

static void
ns_list(struct mkv_engine *e, uint32_t i)
{
	struct mkv_ent *en = eng_ent(e, i);
	struct nspace *s = &e->ns.slot[en->slot];

	en->ns_prev = 0;
	en->ns_next = s->first;
	if (s->first != 0)
		eng_ent(e, s->first - 1)->ns_prev = i + 1;
	s->first = i + 1;
}

static void
ns_unlist(struct mkv_engine *e, uint32_t i)
{
	struct mkv_ent *en = eng_ent(e, i);

	if (en->ns_prev != 0)
		eng_ent(e, en->ns_prev - 1)->ns_next = en->ns_next;
	else
		e->ns.slot[en->slot].first = en->ns_next;
	if (en->ns_next != 0)
		eng_ent(e, en->ns_next - 1)->ns_prev = en->ns_prev;
	en->ns_prev = en->ns_next = 0;
}

void
ns_add(struct mkv_engine *e, uint32_t i)
{
	struct mkv_ent *en = eng_ent(e, i);
	struct nspace *s = &e->ns.slot[en->slot];

	if (en->slot == 0)
		return;
	ns_count(e, s, en, 1);
	if (i < e->ns.listed)
		ns_list(e, i);
}

void
ns_remove(struct mkv_engine *e, uint32_t i)
{
	struct mkv_ent *en = eng_ent(e, i);
	struct nspace *s = &e->ns.slot[en->slot];

	if (en->slot == 0)
		return;
	if (i < e->ns.listed)
		ns_unlist(e, i);
	ns_count(e, s, en, -1);
}

/* The record of a put is in the journal; its object comes when that is durable. */
void
ns_expect(struct mkv_engine *e, uint32_t i, uint32_t slot)
{
	eng_ent(e, i)->slot = slot & MKV_ENT_SLOT_MAX;
	e->ns.slot[slot].coming += slot != 0;
}

void
ns_came(struct mkv_engine *e, uint32_t i)
{
	struct mkv_ent *en = eng_ent(e, i);

	if (en->slot != 0) {
		MKV_ASSERT(e->ns.slot[en->slot].coming > 0);
		e->ns.slot[en->slot].coming--;
	}
	ns_add(e, i);
}

int
ns_closed(const struct mkv_engine *e, const struct mkv_ent *en)
{
	return (en->slot != 0 && e->ns.slot[en->slot].purge_seq != 0);
}

int
ns_purged(const struct mkv_engine *e, const struct mkv_ent *en)
{
	return (ns_closed(e, en) && e->ns.slot[en->slot].purge_seq <= e->jn.flushed);
}

/* ---- Purging --------------------------------------------------------------------------------------------------------------- */

static void
ns_say(struct mkv_engine *e, int err)
{
	struct ns_purge *p = &e->ns.purge;

	p->state = NS_IDLE;
	if (err == 0)
		ENG_COUNT(e, purges_total, 1);
	if (e->o.ops->purged != NULL)
		e->o.ops->purged(e->o.arg, p->id, err, p->objects, p->bytes);
}

void
mkv_engine_purge(struct mkv_engine *e, uint64_t id, const void *name, size_t bytes)
{
	struct ns_purge *p = &e->ns.purge;

	MKV_CHECK_OBJ(e, MKV_ENGINE_MAGIC);
	MKV_ASSERT(bytes <= MKV_DRV_NS_MAX);
	*p = (struct ns_purge){ .state = NS_ASKED, .id = id, .name_bytes = (uint8_t)bytes };
	memcpy(p->name, name, bytes);
	/* A drive that comes back has objects of this name that no list of keys names: it must begin empty. */
	e->pm.log_full |= e->pm.log_on;
}

/* The record, or nothing where there is nothing to purge: that is a promise as well, and waits for what made it so. */
static int
ns_begin(struct mkv_engine *e, struct ns_purge *p)
{
	const struct mkv_digest d = { .lo = ns_hash(p->name, p->name_bytes) };
	uint32_t slot = ns_find(e, p->name, p->name_bytes);
	struct nspace *s = &e->ns.slot[slot];
	int r;

	p->seq = e->jn.last_record;
	if (slot == 0 || s->objects + s->coming == 0)
		return (0);
	if ((r = journal_room(e, p->name_bytes, 0)) != 0)
		return (r);
	p->seq = journal_append(e, MKV_J_PURGE, d, 0, 0, p->name_bytes, p->name, p->name_bytes);
	p->objects = s->objects + s->coming;
	p->bytes = s->bytes;
	ns_unname(e, slot);
	s->purge_seq = p->seq;
	e->ns.purged += s->objects;
	e->ns.purged_units += s->units;
	return (0);
}

/* The next purged slot that has objects; 0: none. */
static uint32_t
ns_next(struct mkv_engine *e)
{
	for (uint32_t n = 0; n < e->ns.count; n++) {
		const struct nspace *s = &e->ns.slot[e->ns.hand];

		if (e->ns.hand != 0 && s->purge_seq != 0 && s->purge_seq <= e->jn.flushed && s->first != 0)
			return (e->ns.hand);
		e->ns.hand = e->ns.hand % e->ns.count + 1;
	}
	return (0);
}

/* Objects of purged slots leave. 1: more at once. */
static int
ns_reap(struct mkv_engine *e)
{
	uint32_t slot = 0;

	for (unsigned n = 0; n < NS_STEP; n++) {
		uint32_t i;

		if (e->ns.purged == 0 || (slot = ns_next(e)) == 0)
			return (0);
		i = e->ns.slot[slot].first - 1;
		if ((eng_ent(e, i)->flags & MKV_ENT_MANIFEST) && !set_room(e))
			return (0);			/* the pieces of others must go first */
		ent_remove(e, i, e->ns.slot[slot].purge_seq, MKV_REASON_DELETED);
		ENG_COUNT(e, purged_objects_total, 1);
	}
	return (1);
}

int
ns_step(struct mkv_engine *e)
{
	struct ns_purge *p = &e->ns.purge;
	int r;

	if (p->state != NS_IDLE && e->readonly)
		ns_say(e, MKV_E_READONLY);
	if (p->state == NS_ASKED && (r = ns_begin(e, p)) != MKV_E_AGAIN) {
		p->state = NS_FLUSH;
		if (r != 0)
			ns_say(e, r);
	}
	if (p->state == NS_FLUSH && p->seq <= e->jn.flushed)
		ns_say(e, 0);
	if (p->state != NS_IDLE)
		journal_urgent(e);
	return (e->ns.purged > 0 && !e->readonly ? ns_reap(e) : 0);
}

size_t
mkv_engine_namespaces(const struct mkv_engine *e, struct mkv_engine_ns *out, size_t max)
{
	size_t n = 0;

	MKV_CHECK_OBJ(e, MKV_ENGINE_MAGIC);
	for (uint32_t i = 1; i <= e->ns.count && n < max; i++) {
		const struct nspace *s = &e->ns.slot[i];

		if (s->objects == 0 || s->purge_seq != 0)
			continue;
		out[n].name_bytes = s->name_bytes;
		memcpy(out[n].name, s->name, s->name_bytes);
		out[n].objects = s->objects;
		out[n++].bytes = s->bytes;
	}
	return (n);
}

/* ---- Checkpoint and recovery ----------------------------------------------------------------------------------------------- */

int
ns_ckpt_item(const struct mkv_engine *e, uint32_t slot, struct mkv_ckpt_item *it, uint8_t name[MKV_DRV_NS_MAX + 1])
{
	const struct nspace *s = &e->ns.slot[slot];

	if (!s->used)
		return (0);
	memset(it, 0, sizeof(*it));
	it->kind = MKV_CI_SLOT;
	it->slot = (uint16_t)slot;
	it->units = s->name_bytes;
	it->flags = s->purge_seq != 0 ? MKV_SLOT_PURGED : 0;
	it->bytes = (uint16_t)(sizeof(*it) + MKV_ALIGN_UP(s->name_bytes, 8u));
	memset(name, 0, MKV_DRV_NS_MAX + 1);
	memcpy(name, s->name, s->name_bytes);
	return (1);
}

/*
 * While a recovery reads, no entry is in a list: most of them would leave it again, each time with three misses. A purge condemns its slot; the objects of it
 * leave at the end, in the pass that lists the others (ns_replay_settle()), or when somebody needs their room before (ns_replay_sweep()).
 */

static void
ns_condemn(struct mkv_engine *e, uint32_t slot, unsigned reason)
{
	struct nspace *s = &e->ns.slot[slot];

	if (s->condemned != 0)
		return;
	if (ns_find(e, s->name, s->name_bytes) == slot)
		ns_unname(e, slot);
	s->condemned = (uint8_t)reason;
	e->ns.condemned++;
}

/* Twice in a checkpoint: before its objects and behind them. What was purged in between is so for good. */
void
ns_replay_item(struct mkv_engine *e, const struct mkv_ckpt_item *it)
{
	struct nspace *s = &e->ns.slot[it->slot];

	if (it->slot == 0 || it->slot > e->ns.count || it->units > MKV_DRV_NS_MAX || it->bytes < sizeof(*it) + it->units)
		return;
	if (!s->used)
		ns_name(s, it->body, it->units);
	if (it->flags & MKV_SLOT_PURGED)
		ns_condemn(e, it->slot, MKV_REASON_DELETED);
}

int
ns_replay_known(const struct mkv_engine *e, uint32_t slot, int piece)
{
	return (piece ? slot == 0 : slot != 0 && slot <= e->ns.count);
}

/* The checkpoint has been read. Objects of slots whose name is lost cannot be purged any more: they go. */
void
ns_replay_named(struct mkv_engine *e)
{
	for (uint32_t i = 1; i <= e->ns.count; i++) {
		struct nspace *s = &e->ns.slot[i];

		if (s->condemned != 0)
			continue;
		if (s->used && ns_find(e, s->name, s->name_bytes) == 0)
			ns_open(e, i);
		else if (s->used || s->objects > 0) {
			s->used = 1;
			ns_condemn(e, i, MKV_REASON_LOST);
		}
	}
}

void
ns_replay_purge(struct mkv_engine *e, const void *name, size_t bytes)
{
	uint32_t slot = ns_find(e, name, bytes);

	if (slot != 0)
		ns_condemn(e, slot, MKV_REASON_DELETED);
}

/* A damaged block named something with this hash: perhaps it purged one of these. */
void
ns_replay_touched(struct mkv_engine *e, uint64_t lo)
{
	for (uint32_t i = 1; i <= e->ns.count; i++) {
		const struct nspace *s = &e->ns.slot[i];

		if (s->used && ns_hash(s->name, s->name_bytes) == lo)
			ns_condemn(e, i, MKV_REASON_LOST);
	}
}

/* 1: an object of a condemned slot; it is gone. */
static int
ns_replay_drop(struct mkv_engine *e, uint32_t i)
{
	unsigned reason = e->ns.slot[eng_ent(e, i)->slot].condemned;

	if (reason == 0)
		return (0);
	recover_drop(e, i, reason);
	e->rec.lost_objects += reason == MKV_REASON_LOST;
	return (1);
}

/* Slots of which no object is left. */
static void
ns_replay_pardon(struct mkv_engine *e)
{
	for (uint32_t i = 1; i <= e->ns.count && e->ns.condemned > 0; i++)
		if (e->ns.slot[i].condemned != 0)
			(void)ns_release(e, i);
}

/* In the middle of a replay: room is wanted. 1: objects of condemned slots gave theirs. */
int
ns_replay_sweep(struct mkv_engine *e)
{
	if (e->ns.condemned == 0)
		return (0);
	for (uint32_t i = 0; i < e->ix.ents_high; i++)
		if (eng_ent(e, i)->flags & MKV_ENT_LINKED)
			(void)ns_replay_drop(e, i);
	ns_replay_pardon(e);
	return (1);
}

/* Entry i of the final index, in order; those below it are listed. 1: it was of a condemned slot and is gone. */
int
ns_replay_settle(struct mkv_engine *e, uint32_t i)
{
	if (e->ns.condemned != 0 && ns_replay_drop(e, i))
		return (1);
	e->ns.listed = i + 1;
	if (eng_ent(e, i)->slot != 0)
		ns_list(e, i);
	return (0);
}

void
ns_replay_settled(struct mkv_engine *e)
{
	e->ns.listed = UINT32_MAX;
	ns_replay_pardon(e);
}
