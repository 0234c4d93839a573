/*
 * The engine's life and turn. Drive's loop thread; owns everything below struct mkv_engine.
 *
 * Completions of the medium only push requests on the ready list; mkv_engine_step() runs them, so nothing recurses. open and close run the loop
 * themselves (ops->pump) and are called from its top.
 */
#include "config.h"

#include "worker/drive/engine_priv.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/auth.h"
#include "common/base/err.h"
#include "common/base/log.h"

#define SWEEP_NS	(5 * MKV_NS_PER_MS)

struct eng_sync {
	struct mkv_mio	mio;
	int		done, res;
};

static void
eng_on_sync(struct mkv_mio *mio, int res)
{
	struct eng_sync *s = MKV_CONTAINER_OF(mio, struct eng_sync, mio);

	s->done = 1;
	s->res = res;
}

static int
eng_wait(struct mkv_engine *e, struct eng_sync *s)
{
	while (!s->done) {
		/* The medium still owns the struct then: who says so never turns the loop again. */
		if (e->o.ops->pump(e->o.arg) == MKV_E_CANCELLED) {
			e->cancelled = 1;
			return (MKV_E_CANCELLED);
		}
	}
	return (s->res);
}

int
eng_read(struct mkv_engine *e, void *buf, uint32_t bytes, uint64_t off)
{
	struct eng_sync s = { .mio = { .done = eng_on_sync } };

	if (e->cancelled)
		return (MKV_E_CANCELLED);
	e->o.media->ops->read(e->o.media, &s.mio, buf, bytes, off, -1);
	return (eng_wait(e, &s));
}

int
eng_read_spots(struct mkv_engine *e, void *buf, uint32_t blocks, uint64_t off)
{
	int bad = 0, r;

	if ((r = eng_read(e, buf, blocks * MKV_BLOCK, off)) == 0 || r == MKV_E_CANCELLED)
		return (r);
	for (uint32_t i = 0; i < blocks; i++, off += MKV_BLOCK) {
		uint8_t *b = (uint8_t *)buf + (size_t)i * MKV_BLOCK;

		/* Where so many cannot be read, each may take seconds: nobody will believe the rest. */
		if ((uint32_t)bad <= ENG_SPOTS_MAX && ((r = eng_read(e, b, MKV_BLOCK, off)) == 0 || (r = eng_read(e, b, MKV_BLOCK, off)) == 0))
			continue;
		if (r == MKV_E_CANCELLED)
			return (r);
		memset(b, 0xff, MKV_BLOCK);
		if (bad++ < 1)
			fail_note(e, MKV_FAIL_READ, off, MKV_BLOCK, r, 0);
	}
	return (bad);
}

int
eng_write(struct mkv_engine *e, const void *buf, uint32_t bytes, uint64_t off)
{
	struct eng_sync s = { .mio = { .done = eng_on_sync } };

	if (e->cancelled)
		return (MKV_E_CANCELLED);
	e->o.media->ops->write(e->o.media, &s.mio, buf, bytes, off, -1);
	return (eng_wait(e, &s));
}

int
eng_flush(struct mkv_engine *e)
{
	struct eng_sync s = { .mio = { .done = eng_on_sync } };

	if (e->cancelled)
		return (MKV_E_CANCELLED);
	e->o.media->ops->flush(e->o.media, &s.mio);
	return (eng_wait(e, &s));
}

static void
eng_gauges(struct mkv_engine *e)
{
	struct mkv_metrics *m = e->o.metrics;

	if (m == NULL)
		return;
	mkv_metric_set(m, MKV_M_drive_objects, 0, e->ix.linked);
	mkv_metric_set(m, MKV_M_drive_total_bytes, 0, e->al.units * e->sb.unit_bytes);
	mkv_metric_set(m, MKV_M_drive_used_bytes, 0, eng_used_units(e) * e->sb.unit_bytes);
	mkv_metric_set(m, MKV_M_drive_pending_free_bytes, 0, (e->pend_units + e->held_units) * e->sb.unit_bytes);
	mkv_metric_set(m, MKV_M_drive_pieces, 0, e->pieces);
	mkv_metric_set(m, MKV_M_drive_provisional_pieces, 0, e->provisional);
	mkv_metric_set(m, MKV_M_drive_manifests, 0, e->manifests);
	mkv_metric_set(m, MKV_M_drive_index_bytes, 0, (uint64_t)e->ix.ents_high * sizeof(struct mkv_ent) +
	    4ull * (e->ix.buckets + e->ix.split) + (uint64_t)e->ix.sides_high * sizeof(struct mkv_side));
	mkv_metric_set(m, MKV_M_drive_page_cache_bytes, 0, (uint64_t)e->pg.touched * MKV_BLOCK);
	mkv_metric_set(m, MKV_M_drive_purged_waiting, 0, e->ns.purged);
	mkv_metric_set(m, MKV_M_drive_in_flight, 0, e->at_work);
	mkv_metric_set(m, MKV_M_drive_unverified_objects, 0, e->unproved);
	evict_gauges(e);
	sched_gauges(e);
	trim_gauges(e);
	mkv_metric_set(m, MKV_M_drive_readonly, 0, (uint64_t)e->readonly);
}

void
eng_readonly(struct mkv_engine *e, const char *why)
{
	if (e->readonly)
		return;
	e->readonly = 1;
	mkv_log(MKV_EV_DRIVE_READONLY, "drive=%s why=\"%s\"", e->o.name, why);
	eng_gauges(e);
	/* Nobody waits for what cannot come. */
	req_wake_list(&e->space_wait, UINT32_MAX);
	req_wake_list(&e->jn.wait, UINT32_MAX);
	req_wake_list(&e->pg.wait, UINT32_MAX);
	journal_readonly(e);
	e->o.ops->readonly(e->o.arg, why);
}

/* A few last bits of what left, in sets of GHOST_WAYS: the digest's upper bits and the reason. */
void
eng_ghost(struct mkv_engine *e, struct mkv_digest d, unsigned reason)
{
	uint64_t *set = &e->ghost[(d.lo & e->ghost_mask) * GHOST_WAYS];
	unsigned way = e->ghost_turn++ % GHOST_WAYS;

	for (unsigned k = 0; k < GHOST_WAYS; k++) {
		if (set[k] == 0 || ((set[k] ^ d.hi) & ~0xffull) == 0)
			way = k;
	}
	set[way] = (d.hi & ~0xffull) | reason;
}

unsigned
eng_ghost_reason(const struct mkv_engine *e, struct mkv_digest d)
{
	const uint64_t *set = &e->ghost[(d.lo & e->ghost_mask) * GHOST_WAYS];

	for (unsigned k = 0; k < GHOST_WAYS; k++) {
		unsigned reason = set[k] & 0xff;

		if (((set[k] ^ d.hi) & ~0xffull) == 0 && reason != MKV_REASON_NONE && reason < MKV_REASON_COUNT)
			return (reason);
	}
	return (MKV_REASON_NEVER);
}

void
eng_run_ready(struct mkv_engine *e)
{
	struct mkv_list *l;

	while ((l = mkv_list_pop(&e->ready)) != NULL) {
		struct mkv_req *r = MKV_CONTAINER_OF(l, struct mkv_req, link);

		MKV_CHECK_OBJ(r, MKV_REQ_MAGIC);
		r->ready = 0;
		req_run(r);
	}
}

static int
eng_alloc_requests(struct mkv_engine *e)
{
	uint32_t n = e->o.queue_depth, dios = n * 2 + 16;

	if ((e->req = calloc(n, sizeof(*e->req))) == NULL || (e->dio = calloc(dios, sizeof(*e->dio))) == NULL)
		return (MKV_E_NOMEM);
	for (uint32_t i = 0; i < n; i++) {
		e->req[i].magic = MKV_REQ_MAGIC;
		e->req[i].e = e;
		mkv_list_push_tail(&e->req_free, &e->req[i].link);
	}
	e->dios = dios;
	for (uint32_t i = 0; i < dios; i++) {
		e->dio[i].next = e->dio_free;
		e->dio_free = &e->dio[i];
	}
	return (0);
}

/* All that is sized by options alone; what the superblock sizes follows in eng_alloc_store(). */
static int
eng_alloc(struct mkv_engine *e)
{
	struct mkv_list *heads[] = { &e->req_free, &e->ready, &e->all, &e->space_wait, &e->bounce_wait };

	for (size_t i = 0; i < MKV_ARRAY_LEN(heads); i++)
		mkv_list_init(heads[i]);
	for (unsigned i = 0; i < LOCK_BUCKETS; i++)
		mkv_list_init(&e->lock[i]);
	for (unsigned i = 0; i < LEAD_BUCKETS; i++)
		mkv_list_init(&e->lead[i]);
	sched_init(e);
	setjob_init(e);
	e->pend = calloc(PENDING_MAX, sizeof(*e->pend));
	e->hold = calloc(HOLDS_MAX, sizeof(*e->hold));
	e->txn = calloc(TXNS_MAX, sizeof(*e->txn));
	e->setfree = calloc(SETFREE_MAX, sizeof(*e->setfree));
	e->setack = calloc(SETACK_MAX, sizeof(*e->setack));
	e->audit.open = calloc(OPENSETS_MAX, sizeof(*e->audit.open));
	e->audit.head = calloc(SETMAP_HEADS, sizeof(*e->audit.head));
	if (posix_memalign((void **)&e->bounce, MKV_BLOCK, CHUNK) != 0)
		e->bounce = NULL;
	if (e->pend == NULL || e->hold == NULL || e->txn == NULL || e->setfree == NULL || e->setack == NULL || e->audit.open == NULL ||
	    e->audit.head == NULL || e->bounce == NULL)
		return (MKV_E_NOMEM);
	for (uint32_t i = 0; i < HOLDS_MAX; i++) {
		e->hold[i].next = i + 1 < HOLDS_MAX ? i + 1 : MKV_ENT_NIL;
		e->hold[i].ent = MKV_ENT_NIL;
		e->hold[i].gen = 1;		/* 0 is no hold, no transaction */
	}
	for (uint32_t i = 0; i < TXNS_MAX; i++)
		e->txn[i].gen = 1;
	if (fail_init(e) != 0 || scrub_init(e) != 0)
		return (MKV_E_NOMEM);
	return (eng_alloc_requests(e));
}

static int
eng_alloc_store(struct mkv_engine *e)
{
	uint32_t per = e->sb.extent_bytes / e->sb.unit_bytes, sets = 1024;
	int r;

	while (sets < e->sb.objects_max / GHOST_WAYS && sets < (1u << GHOST_BITS_MAX) / GHOST_WAYS)
		sets *= 2;
	e->ghost_mask = sets - 1;
	if ((e->ghost = calloc((size_t)sets * GHOST_WAYS, sizeof(*e->ghost))) == NULL)
		return (MKV_E_NOMEM);
	/* Slots beyond objects_max: entries that are gone but still read, and those of puts under way. */
	if ((r = mkv_index_init(&e->ix, e->sb.objects_max + PENDING_MAX + e->o.queue_depth)) != 0)
		return (r);
	if ((r = mkv_policy_init(&e->pol, &e->ix, MKV_MIN(e->sb.objects_max, GHOSTS_MAX / 8) * 8, (enum mkv_policy_kind)e->o.policy)) != 0 ||
	    (r = mkv_policy_watch(&e->pol)) != 0)
		return (r);
	if ((r = writer_init(e)) != 0 || (r = lease_init(e)) != 0)
		return (r);
	if ((r = mkv_alloc_init(&e->al, (uint32_t)(e->sb.data_units / per), per)) != 0)
		return (r);
	e->al.lowest = e->o.media->shared;
	if ((r = trim_init(e)) != 0)
		return (r);
	if ((r = page_init(e)) != 0 || (r = journal_init(e)) != 0 || (r = poolmap_init(e)) != 0 || (r = ns_init(e)) != 0)
		return (r);
	return (ckpt_init(e));
}

static void
eng_free(struct mkv_engine *e)
{
	scrub_fini(e);
	fail_fini(e);
	poolmap_fini(e);
	ns_fini(e);
	ckpt_fini(e);
	journal_fini(e);
	page_fini(e);
	mkv_alloc_fini(&e->al);
	trim_fini(e);
	lease_fini(e);
	mkv_policy_fini(&e->pol);
	mkv_index_fini(&e->ix);
	free(e->ghost);
	free(e->pend);
	free(e->hold);
	free(e->txn);
	free(e->setfree);
	free(e->setack);
	writer_fini(e);
	free(e->audit.open);
	free(e->audit.head);
	free(e->bounce);
	free(e->dio);
	free(e->req);
	e->magic = 0;
	free(e);
}

static void
eng_report_recovery(struct mkv_engine *e)
{
	struct mkv_metrics *m = e->o.metrics;

	mkv_metric_set(m, MKV_M_drive_recovery_milliseconds, 0, e->rec.recovery_ns / MKV_NS_PER_MS);
	mkv_metric_set(m, MKV_M_drive_recovery_read_bytes, 0, e->rec.recovery_read_bytes);
	mkv_metric_set(m, MKV_M_drive_recovered_objects, 0, e->rec.recovered_objects);
	ENG_COUNT(e, journal_damage_total, e->rec.damaged_blocks);
	ENG_COUNT(e, journal_torn_total, e->rec.torn_records);
	ENG_COUNT(e, superblock_bad_total, e->rec.superblock_bad);
	if (e->rec.damaged_blocks || e->rec.lost_objects)
		mkv_log(MKV_EV_DRIVE_JOURNAL_BAD, "drive=%s blocks=%u objects_lost=%u", e->o.name, e->rec.damaged_blocks, e->rec.lost_objects);
	mkv_log(MKV_EV_DRIVE_RECOVERED, "drive=%s objects=%llu read_bytes=%llu ms=%llu torn_records=%u", e->o.name,
	    (unsigned long long)e->rec.recovered_objects, (unsigned long long)e->rec.recovery_read_bytes,
	    (unsigned long long)(e->rec.recovery_ns / MKV_NS_PER_MS), e->rec.torn_records);
}

/* From here on blocks of this mount may appear; the flush also makes durable whatever recovery believed, and did not. */
static int
eng_start_writing(struct mkv_engine *e, char *why, size_t why_bytes)
{
	int r;

	if ((r = journal_wipe(e)) != 0) {
		snprintf(why, why_bytes, "the journal cannot be written: %s", mkv_err(r));
		return (r);
	}
	if ((r = eng_sb_write(e, 0)) != 0) {
		snprintf(why, why_bytes, "superblocks cannot be written: %s", mkv_err(r));
		return (r);
	}
	/* What was dropped without a record must stay dropped: the next recovery would meet the same damage with newer neighbours. */
	if (e->rec.damaged_blocks || e->rec.lost_objects)
		e->ck.wanted = 1;
	if (e->ck.wanted && (r = ckpt_run(e)) != 0)
		snprintf(why, why_bytes, "checkpoint after recovery failed: %s", mkv_err(r));
	return (r);
}

static int
eng_start(struct mkv_engine *e, char *why, size_t why_bytes)
{
	uint64_t begin = eng_now(e);
	int r, clean;

	if ((r = eng_format_or_load(e, why, why_bytes)) != 0)
		return (r);
	clean = e->sb.clean && !e->formatted;
	if ((r = fail_open(e)) == 0)
		r = eng_alloc_store(e);
	if (r != 0) {
		snprintf(why, why_bytes, "no memory for an index of %u objects", e->sb.objects_max);
		return (r);
	}
	if ((r = poolmap_load(e)) != 0) {
		snprintf(why, why_bytes, "%s: the pool map cannot be read: %s", e->o.name, mkv_err(r));
		return (r);
	}
	if ((r = recover_run(e, why, why_bytes)) != 0)
		return (r);
	e->rec.recovery_ns = eng_now(e) - begin;
	e->rec.recovered_objects = e->ix.linked;
	if (e->rec.superblock_bad)
		fail_note(e, MKV_FAIL_SUPERBLOCK, e->sb.copy == 0 ? MKV_SB_OFF_B : MKV_SB_OFF_A, MKV_BLOCK, MKV_E_CORRUPT, 0);
	if (e->rec.damaged_blocks)
		fail_note(e, MKV_FAIL_RECOVERY, e->sb.journal_off, MKV_BLOCK, MKV_E_CORRUPT, e->rec.damaged_blocks);
	if (!e->readonly && (r = eng_start_writing(e, why, why_bytes)) != 0)
		return (r);
	audit_opened(e);
	whole_opened(e, clean);
	scrub_gauges(e);
	eng_report_recovery(e);
	eng_gauges(e);
	return (0);
}

int
mkv_engine_open(struct mkv_engine **out, const struct mkv_engine_opts *opts, uint32_t *epoch_seen, char *why, size_t why_bytes)
{
	struct mkv_engine *e = calloc(1, sizeof(*e));
	char text[MKV_FEATURES_TEXT];
	int r;

	*out = NULL;
	*epoch_seen = 0;
	snprintf(why, why_bytes, "out of memory");
	if (e == NULL)
		return (MKV_E_NOMEM);
	e->magic = MKV_ENGINE_MAGIC;
	e->o = *opts;
	MKV_ASSERT(opts->queue_depth > 0 && opts->queue_depth <= PENDING_MAX / 4);
	e->opening = 1;
	if ((r = mkv_hkdf(opts->store_secret, sizeof(opts->store_secret), NULL, 0, MKV_PIECE_INFO, strlen(MKV_PIECE_INFO), e->piece_secret,
	    sizeof(e->piece_secret))) == 0 && (r = eng_alloc(e)) == 0)
		r = eng_start(e, why, why_bytes);
	e->opening = 0;
	*epoch_seen = e->epoch_seen;
	if (r != 0) {
		eng_free(e);
		return (r);
	}
	*out = e;
	if (e->readonly && !opts->look_only) {
		e->readonly = 0;
		eng_readonly(e, mkv_layout_features(&e->sb, text, sizeof(text)));
	}
	return (0);
}

void
mkv_engine_tune(struct mkv_engine *e, const struct mkv_engine_opts *opts)
{
	MKV_CHECK_OBJ(e, MKV_ENGINE_MAGIC);
	e->o.accepted_window_ns = opts->accepted_window_ns;
	e->o.accepted_window_bytes = opts->accepted_window_bytes;
	e->o.evict = opts->evict;
	e->o.drain_ns = opts->drain_ns;
	e->o.audit_interval_ns = opts->audit_interval_ns;
	e->o.scrub_rate = opts->scrub_rate;
	e->o.scrub_interval_ns = opts->scrub_interval_ns;
	e->o.evict_high_pct = opts->evict_high_pct;
	e->o.evict_low_pct = opts->evict_low_pct;
	e->o.pin_pct = opts->pin_pct;
	e->o.trim = opts->trim;
	/* Without memory for shadows it goes on as it was. */
	if (mkv_policy_set(&e->pol, (enum mkv_policy_kind)opts->policy) == 0)
		e->o.policy = opts->policy;
}

/*
 * What is under way ends; the last checkpoint, which turns the loop, and what that has begun; the clean mark. Once it is cancelled nothing is begun and
 * the loop does not turn again.
 */
static int
eng_end(struct mkv_engine *e)
{
	int r;

	if ((r = trim_close(e)) != 0 || (r = scrub_close(e)) != 0)
		return (r);
	MKV_ASSERT(e->at_work == 0);
	if (!e->readonly)
		r = ckpt_run(e);
	while (e->pm.state != PM_IDLE && !e->cancelled)
		e->cancelled = e->o.ops->pump(e->o.arg) == MKV_E_CANCELLED;
	if (e->cancelled || fail_close(e) != 0)
		return (MKV_E_CANCELLED);
	return (r != 0 || e->readonly ? r : eng_sb_write(e, 1));
}

int
mkv_engine_close(struct mkv_engine **ep, int abandon)
{
	struct mkv_engine *e = *ep;
	int r;

	if (e == NULL)
		return (0);
	MKV_CHECK_OBJ(e, MKV_ENGINE_MAGIC);
	*ep = NULL;
	r = abandon ? 0 : eng_end(e);
	eng_free(e);
	return (r);
}

unsigned
mkv_engine_busy(const struct mkv_engine *e)
{
	return (e->at_work);
}

void
mkv_engine_sync(struct mkv_engine *e)
{
	journal_urgent(e);
}

static void
eng_turn(struct mkv_engine *e, uint64_t now)
{
	sched_turn(e);
	eng_run_ready(e);
	page_journal_written(e);
	e->more |= poolmap_step(e, now);
	e->more |= ns_step(e);
	if (!e->readonly) {
		evict_step(e);
		page_gc(e);
		ckpt_step(e);
	}
	set_step(e, now);
	audit_step(e, now);
	whole_step(e, now);
	journal_step(e, now);
	fail_step(e, now);
	scrub_step(e, now);
	trim_step(e, now);
}

uint64_t
mkv_engine_step(struct mkv_engine *e)
{
	uint64_t now, next;
	int more = 0;

	MKV_CHECK_OBJ(e, MKV_ENGINE_MAGIC);
	now = eng_now(e);
	if (now >= e->sweep_ns) {
		req_sweep(e, now);
		if (!e->readonly)
			evict_expire(e);
		lease_step(e);
		eng_gauges(e);
		e->sweep_ns = now + SWEEP_NS;
	}
	e->more = 0;
	setjob_turn(e);
	eng_turn(e, now);
	/* Memory completes as fast as we ask: bounded, so that the loop turns. */
	for (int i = 0; e->o.media->shared && i < 64; i++) {
		more = e->o.media->ops->pump(e->o.media, 0) > 0;
		if (!more)
			break;
		eng_turn(e, now);
	}
	if (more || e->more || !mkv_list_empty(&e->ready))
		return (0);
	next = MKV_MIN(MKV_MIN(journal_next_ns(e), fail_next_ns(e)), MKV_MIN(audit_next_ns(e), scrub_next_ns(e, now)));
	next = MKV_MIN(next, MKV_MIN(sched_next_ns(e), trim_next_ns(e)));
	next = MKV_MIN(next, whole_next_ns(e));
	if (e->at_work || e->setfrees || setjob_next(e) || e->pm.sweeping || e->pm.leaving || e->pm.next.version != 0 || e->ns.purged > 0 || e->ns.purge.state != NS_IDLE)
		next = MKV_MIN(next, e->sweep_ns);
	return (next);
}

void
mkv_engine_info(const struct mkv_engine *e, struct mkv_engine_info *info)
{
	*info = e->rec;
	memcpy(info->uuid, e->sb.uuid, 16);
	info->total_bytes = e->al.units * e->sb.unit_bytes;
	info->used_bytes = eng_used_units(e) * e->sb.unit_bytes;
	info->pending_free_bytes = (e->pend_units + e->held_units) * e->sb.unit_bytes;
	info->objects = e->ix.linked;
	info->flushes = e->jn.flushes;
	info->puts = e->puts;
	info->extent_bytes = e->sb.extent_bytes;
	info->unit_bytes = e->sb.unit_bytes;
	info->readonly = e->readonly;
	info->formatted = e->formatted;
}
