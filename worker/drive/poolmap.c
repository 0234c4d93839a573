/*
 * The pool map at a drive: keeping it, the fence between two versions, what no longer belongs here, and the log for drives that are away. Drive's loop
 * thread; owns two blocks of the medium. Who decides and why it is right: docs/internals/pool.md.
 *
 *   mkv_engine_map(v): writes asked under an older version are refused from here on
 *     -> the sweep of the kept version is complete, what was to be forgotten is gone durably, older writes have ended
 *     -> block v % 2 written, flushed -> ops->map_stored(v), kept = v -> sweep
 *
 * Invariants: a key's object is here only if this drive is its home by the kept map or was by the placement before it, or the sweep has not come
 * there yet; no version is kept before the sweep of the one before is complete. The log has every key that was written here since log_from, or log_full.
 * What fails: the write or flush of the block makes the drive read-only, as any metadata write. A read-only drive keeps nothing and says so to nobody:
 * its fence holds as long as it runs, and the others keep the version.
 */
#include "config.h"

#include <stdlib.h>
#include <string.h>

#include "common/base/err.h"
#include "common/base/log.h"
#include "worker/drive/engine_priv.h"

#define POOLMAP_STEP		256u			/* entries, digests of one turn */
#define POOLMAP_REST_NS		MKV_NS_PER_MS		/* between two steps of a sweep that nobody waits for */
#define POOLMAP_LOG_MAX		(256u << 10)		/* keys */
#define POOLMAP_FORGET_MAX	(4u << 20)
#define POOLMAP_RECLAIM_NS	(50 * MKV_NS_PER_MS)

_Static_assert(MKV_MAP_DRIVES_MAX == MKV_ARRAY_LEN(((struct mkv_poolmap *)0)->row), "a row for every drive");

/* ---- The blocks ------------------------------------------------------------------------------------------------------------ */

int
poolmap_init(struct mkv_engine *e)
{
	struct poolmap *p = &e->pm;

	if (posix_memalign((void **)&p->block, MKV_BLOCK, MKV_BLOCK) != 0) {
		p->block = NULL;
		return (MKV_E_NOMEM);
	}
	/* Address space until a drive goes away. */
	p->log = calloc(POOLMAP_LOG_MAX, sizeof(*p->log));
	return (p->log == NULL ? MKV_E_NOMEM : 0);
}

void
poolmap_fini(struct mkv_engine *e)
{
	free(e->pm.block);
	free(e->pm.log);
	free(e->pm.forget);
}

static void
poolmap_pack(const struct mkv_engine *e, const struct mkv_map *m, struct mkv_poolmap *b)
{
	memset(b, 0, sizeof(*b));
	b->magic = MKV_POOLMAP_MAGIC;
	b->tag = e->tag;
	b->version = m->version;
	b->n = m->n;
	for (uint32_t i = 0; i < m->n; i++) {
		struct mkv_poolmap_row *r = &b->row[i];

		memcpy(r->uuid, m->row[i].uuid, sizeof(r->uuid));
		memcpy(&r->weight, &m->row[i].weight, sizeof(r->weight));
		memcpy(&r->former, &m->row[i].former, sizeof(r->former));
		r->since = m->row[i].since;
		r->state = m->row[i].state;
		r->known = m->row[i].known;
	}
	mkv_block_seal(b, offsetof(struct mkv_poolmap, crc));
}

/* 0 if the block is no map of this drive. */
static int
poolmap_unpack(const struct mkv_engine *e, const struct mkv_poolmap *b, struct mkv_map *m)
{
	if (b->magic != MKV_POOLMAP_MAGIC || !mkv_block_good(b, offsetof(struct mkv_poolmap, crc)) || b->tag != e->tag || b->n > MKV_MAP_DRIVES_MAX)
		return (0);
	memset(m, 0, sizeof(*m));
	m->version = b->version;
	m->n = b->n;
	for (uint32_t i = 0; i < b->n; i++) {
		struct mkv_map_row *r = &m->row[i];

		memcpy(r->uuid, b->row[i].uuid, sizeof(r->uuid));
		memcpy(&r->weight, &b->row[i].weight, sizeof(r->weight));
		memcpy(&r->former, &b->row[i].former, sizeof(r->former));
		r->since = b->row[i].since;
		r->state = b->row[i].state;
		r->known = b->row[i].known;
		if (r->state >= MKV_DRIVE_STATES || !(r->weight >= 0) || !(r->former >= 0))
			return (0);
	}
	return (1);
}

static uint64_t
poolmap_at(uint64_t version)
{
	return (MKV_POOLMAP_OFF + version % MKV_POOLMAP_COPIES * MKV_BLOCK);
}

/* Another version counts: what is left over from the placement before the former one has to go. */
static void
poolmap_take(struct mkv_engine *e)
{
	struct poolmap *p = &e->pm;
	struct mkv_place home = { 0 }, former = { 0 };
	const struct mkv_map_row *own = e->o.drive_idx < p->kept.n ? &p->kept.row[e->o.drive_idx] : NULL;
	int leaving = own != NULL && own->state == MKV_DRIVE_DRAINING;

	mkv_place_of(&home, &p->kept, 0);
	mkv_place_of(&former, &p->kept, 1);
	if (memcmp(&home, &p->home, sizeof(home)) != 0 || memcmp(&former, &p->former, sizeof(former)) != 0) {
		p->home = home;
		p->former = former;
		p->sweep = 0;
		p->sweeping = home.n > 0;
	}
	if (leaving && !p->leaving) {
		p->leave_began_ns = eng_now(e);
		p->leave_objects = e->ix.linked;
	}
	p->leaving = leaving;
	if (!e->opening)
		whole_walk(e);		/* a drive came back, or will not */
}

uint64_t
poolmap_holders(const struct mkv_engine *e, uint64_t mask, int *sure)
{
	const struct mkv_map *m = &e->pm.kept;

	*sure = 1;
	for (uint32_t i = 0; i < m->n && i < 64; i++) {
		if (((mask >> i) & 1) == 0 || !m->row[i].known)
			continue;
		if (m->row[i].state == MKV_DRIVE_REMOVED)
			mask &= ~(1ull << i);
		else if (mkv_drive_away(m->row[i].state))
			*sure = 0;
	}
	return (mask);
}

/* Which of the drives is this one? Without a server only its own copy of the map knows. */
static void
poolmap_find_self(struct mkv_engine *e)
{
	for (uint32_t i = 0; i < e->pm.kept.n; i++)
		if (e->pm.kept.row[i].known && memcmp(e->pm.kept.row[i].uuid, e->sb.uuid, sizeof(e->sb.uuid)) == 0)
			e->o.drive_idx = i;
}

int
poolmap_load(struct mkv_engine *e)
{
	struct poolmap *p = &e->pm;
	struct mkv_map m;

	for (uint64_t i = 0; i < MKV_POOLMAP_COPIES && !e->formatted; i++) {
		int r = eng_read_spots(e, p->block, 1, poolmap_at(i));

		if (r < 0)
			return (r);
		if (poolmap_unpack(e, p->block, &m) && m.version > p->kept.version)
			p->kept = m;
	}
	if (e->o.offline)
		poolmap_find_self(e);		/* what leaves because of a map is a server's business */
	else if (p->kept.version != 0)
		poolmap_take(e);
	return (0);
}

/* Changes what is under a key. */
static int
poolmap_writes(const struct mkv_drv_req *q)
{
	int may = q->op == MKV_DRV_RESERVE && (q->flags & MKV_DRV_F_IF_SAME) != 0;

	return ((q->op == MKV_DRV_PUT || q->op == MKV_DRV_COMMIT || q->op == MKV_DRV_DELETE || q->op == MKV_DRV_TOUCH || may) &&
	    (q->flags & MKV_DRV_F_PIECE) == 0);
}

/* ---- The log for drives that are away -------------------------------------------------------------------------------------- */

static int
poolmap_any_away(const struct mkv_map *m)
{
	for (uint32_t i = 0; i < m->n; i++)
		if (m->row[i].known && mkv_drive_away(m->row[i].state))
			return (1);
	return (0);
}

/* m counts from here on. What this drive wrote under the first version that a process hears may be another process's, so it is in no log. */
static void
poolmap_log_turn(struct mkv_engine *e, const struct mkv_map *m)
{
	struct poolmap *p = &e->pm;
	int away = poolmap_any_away(m);

	if (away && !p->log_on) {
		p->logs = 0;
		p->log_full = 0;
		p->log_from = p->seen ? m->version : m->version + 1;
	}
	p->log_on = away;
	p->seen = 1;
}

void
poolmap_note(struct mkv_engine *e, const struct mkv_req *r)
{
	const struct mkv_drv_req *q = &r->q;
	struct poolmap *p = &e->pm;

	/* A reservation that was no touch is followed by a write, which says so itself. */
	if (!p->log_on || !poolmap_writes(q) || (q->op == MKV_DRV_RESERVE && !r->p.same))
		return;
	if (p->logs == POOLMAP_LOG_MAX)
		p->log_full = 1;
	else if (p->logs == 0 || !mkv_digest_eq(p->log[p->logs - 1], q->digest))
		p->log[p->logs++] = q->digest;
}

size_t
mkv_engine_away(const struct mkv_engine *e, uint64_t since, const struct mkv_digest **digests, int *whole)
{
	const struct poolmap *p = &e->pm;

	*digests = p->log;
	*whole = p->log_on && !p->log_full && p->log_from <= since;
	return (*whole ? p->logs : 0);
}

/* ---- What leaves ----------------------------------------------------------------------------------------------------------- */

static int
poolmap_belongs(const struct mkv_engine *e, const struct mkv_ent *en)
{
	int me = (int)e->o.drive_idx;

	return (mkv_place_home(&e->pm.home, en->digest.lo) == me || mkv_place_home(&e->pm.former, en->digest.lo) == me);
}

/* An object under a key leaves. 0; MKV_E_AGAIN: not now. */
static int
poolmap_drop(struct mkv_engine *e, uint32_t i, unsigned reason)
{
	int r;

	if (req_locked(e, eng_ent(e, i)->digest))
		return (MKV_E_AGAIN);
	if ((r = evict_one(e, i, reason)) != 0)
		journal_urgent(e);
	return (r);
}

static int
poolmap_is_key(const struct mkv_ent *en)
{
	return ((en->flags & (MKV_ENT_LINKED | MKV_ENT_PIECE)) == MKV_ENT_LINKED);
}

static void
poolmap_sweep(struct mkv_engine *e, uint64_t now)
{
	struct poolmap *p = &e->pm;

	if (now < p->sweep_ns && p->next.version == 0)
		return;
	p->sweep_ns = now + POOLMAP_REST_NS;
	for (unsigned n = 0; n < POOLMAP_STEP && p->sweep < e->ix.ents_high; n++, p->sweep++) {
		struct mkv_ent *en = eng_ent(e, p->sweep);

		if (poolmap_is_key(en) && !poolmap_belongs(e, en) && poolmap_drop(e, p->sweep, MKV_REASON_EVICTED) != 0)
			return;
	}
	if (p->sweep >= e->ix.ents_high)
		p->sweeping = 0;
}

static void
poolmap_forget_step(struct mkv_engine *e)
{
	struct poolmap *p = &e->pm;

	for (unsigned n = 0; n < POOLMAP_STEP && p->forget_at < p->forgets; n++, p->forget_at++) {
		uint32_t i = mkv_index_find(&e->ix, p->forget[p->forget_at]);

		if (i != MKV_ENT_NIL && poolmap_is_key(eng_ent(e, i)) && poolmap_drop(e, i, MKV_REASON_DRIVE_OFFLINE) != 0)
			return;
	}
}

int
mkv_engine_forget(struct mkv_engine *e, const void *digests, size_t n)
{
	struct poolmap *p = &e->pm;
	struct mkv_digest *more;

	MKV_CHECK_OBJ(e, MKV_ENGINE_MAGIC);
	if (n == 0)
		return (0);
	if (p->forgets + n > POOLMAP_FORGET_MAX || (more = realloc(p->forget, (p->forgets + n) * sizeof(*more))) == NULL)
		return (MKV_E_NOMEM);
	p->forget = more;
	memcpy(p->forget + p->forgets, digests, n * sizeof(*more));
	p->forgets += n;
	return (0);
}

/* Drained: so many objects may still be here. Pieces belong to manifests of other drives, which are asked to give these up. */
static void
poolmap_leave(struct mkv_engine *e, uint64_t now)
{
	struct poolmap *p = &e->pm;
	uint64_t gone_ns = MKV_MIN(now - p->leave_began_ns, e->o.drain_ns);
	double left = e->o.drain_ns == 0 ? 0 : 1.0 - (double)gone_ns / (double)e->o.drain_ns;
	uint32_t may = (uint32_t)(left * p->leave_objects);
	struct mkv_desc d = { .op = MKV_DRV_RECLAIM, .arg = { (uint64_t)e->pieces * e->sb.extent_bytes, e->o.drive_idx } };

	for (unsigned look = 0; look < 16 * POOLMAP_STEP && e->ix.linked > may && e->ix.linked > e->pieces; look++) {
		if (++p->leave_hand >= e->ix.ents_high)
			p->leave_hand = 0;
		if (poolmap_is_key(eng_ent(e, p->leave_hand)) && poolmap_drop(e, p->leave_hand, MKV_REASON_EVICTED) != 0)
			break;
	}
	if (e->ix.linked > may && e->pieces > 0 && now >= e->reclaim_ns) {
		e->reclaim_ns = now + POOLMAP_RECLAIM_NS;
		e->o.ops->peer(e->o.arg, MKV_ENGINE_ALL_DRIVES, &d);
	}
}

/* ---- The next version ------------------------------------------------------------------------------------------------------ */

int
poolmap_refuses(const struct mkv_engine *e, const struct mkv_drv_req *q)
{
	uint64_t version = MKV_MAX(e->pm.kept.version, e->pm.next.version);

	return (e->pm.seen && poolmap_writes(q) && q->map_version != (uint32_t)version);
}

/* 1: a write from before the fence is still at work. Those that wait for room are sent back: their deadlines may be far away. */
static int
poolmap_old_writes(struct mkv_engine *e)
{
	int old = 0;

	MKV_LIST_FOREACH(l, &e->all) {
		struct mkv_req *r = MKV_CONTAINER_OF(l, struct mkv_req, all);

		if (r->begin_ns > e->pm.fence_ns)
			break;
		if (!poolmap_writes(&r->q) || r->q.map_version == (uint32_t)e->pm.next.version)
			continue;
		old = 1;
		if (r->parked && r->err == 0) {
			r->err = MKV_E_RETRY;
			req_wake(r);
		}
	}
	return (old);
}

void
mkv_engine_map(struct mkv_engine *e, const struct mkv_map *map)
{
	struct poolmap *p = &e->pm;

	MKV_CHECK_OBJ(e, MKV_ENGINE_MAGIC);
	MKV_ASSERT(map->n <= MKV_MAP_DRIVES_MAX);
	poolmap_log_turn(e, map);
	if (map->version <= p->kept.version) {
		if (map->version == p->kept.version && p->next.version == 0)
			e->o.ops->map_stored(e->o.arg, map->version);
		return;
	}
	p->next = *map;
	p->fence_ns = eng_now(e);
}

static void
poolmap_done(struct mkv_engine *e)
{
	struct poolmap *p = &e->pm;
	struct mkv_map written;

	p->state = PM_IDLE;
	if (!e->readonly) {
		MKV_ASSERT(poolmap_unpack(e, p->block, &written));
		p->kept = written;
		poolmap_take(e);
	}
	if (p->next.version != p->kept.version && !e->readonly)
		return;				/* a newer one came meanwhile */
	p->kept.version = p->next.version;
	p->next.version = 0;
	e->o.ops->map_stored(e->o.arg, p->kept.version);
}

static void
poolmap_on_flush(struct mkv_mio *mio, int res)
{
	struct mkv_engine *e = MKV_CONTAINER_OF(mio, struct mkv_engine, pm.mio);

	if (res != 0)
		eng_readonly(e, "the flush of the pool map failed");
	poolmap_done(e);
}

static void
poolmap_on_write(struct mkv_mio *mio, int res)
{
	struct mkv_engine *e = MKV_CONTAINER_OF(mio, struct mkv_engine, pm.mio);

	if (res != 0) {
		eng_readonly(e, "the pool map could not be written");
		poolmap_done(e);
		return;
	}
	e->pm.state = PM_FLUSH;
	e->pm.mio.done = poolmap_on_flush;
	sched_flush(e, MKV_IO_JOURNAL, &e->pm.mio);
}

/* 1: nothing stands in the way any more. */
static int
poolmap_clear(struct mkv_engine *e)
{
	struct poolmap *p = &e->pm;

	if (p->sweeping || p->forget_at < p->forgets || poolmap_old_writes(e))
		return (0);
	if (p->forgets > 0 && e->jn.flushed < e->jn.last_record) {
		journal_urgent(e);
		return (0);
	}
	free(p->forget);
	p->forget = NULL;
	p->forgets = p->forget_at = 0;
	return (1);
}

int
poolmap_step(struct mkv_engine *e, uint64_t now)
{
	struct poolmap *p = &e->pm;

	if (e->opening)
		return (0);
	if (e->readonly) {
		if (p->next.version != 0 && p->state == PM_IDLE && !poolmap_old_writes(e))
			poolmap_done(e);
		return (0);
	}
	if (p->sweeping)
		poolmap_sweep(e, now);
	if (p->forget_at < p->forgets)
		poolmap_forget_step(e);
	if (p->leaving)
		poolmap_leave(e, now);
	if (p->next.version == 0 || p->state != PM_IDLE)
		return (0);
	if (!poolmap_clear(e))
		return (p->sweeping || p->forget_at < p->forgets);
	poolmap_pack(e, &p->next, p->block);
	p->state = PM_WRITE;
	p->mio.done = poolmap_on_write;
	sched_write(e, MKV_IO_JOURNAL, &p->mio, p->block, MKV_BLOCK, poolmap_at(p->next.version), -1);
	return (0);
}

const struct mkv_map *
mkv_engine_map_kept(const struct mkv_engine *e)
{
	MKV_CHECK_OBJ(e, MKV_ENGINE_MAGIC);
	return (&e->pm.kept);
}
