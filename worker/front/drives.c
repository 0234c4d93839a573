/*
 * memkv-front, loop thread: the drives as the front sees them, and what it has asked them (one struct mkv_dop per control slot). Owns the mappings of
 * arenas; rings and bells are worker/core's.
 *
 * A dop's slot and buffers are FRONT's until it is pushed, the drive's from then until its completion, and quarantined if the drive dies first: the
 * stage gives them back when the supervisor says that no I/O is left, and their request hears MKV_E_RETRY at once.
 * Everything in an answer is foreign bytes: what does not fit is MKV_E_PEER, for which core closes the ring, tells the supervisor and says peer_down.
 */
#include "config.h"

#include "worker/front/front_priv.h"

#include <string.h>

#include "common/base/assert.h"
#include "common/base/err.h"
#include "common/base/os.h"

/* ---- Dops ------------------------------------------------------------------------------------------------------------------ */

static uint32_t
dop_slot(const struct mkv_front *f, const struct mkv_dop *d)
{
	return ((uint32_t)(d - f->dops));
}

static void
dop_init(struct mkv_dop *d, uint32_t gen)
{
	MKV_ASSERT(d->state == DOP_FREE);
	d->state = DOP_OURS;
	d->req = NULL;
	d->spare = NULL;
	d->part = NULL;
	d->gen = gen;
	d->n_buf = 0;
	d->tag = 0;
}

struct mkv_dop *
mkv_dop_take(struct mkv_front *f, struct mkv_req *r)
{
	struct mkv_dop *d;
	uint32_t idx, gen;

	if (!mkv_park_turn(&f->park_slots, r) || mkv_stage_slot_take(f->stage, &idx, &gen) != 0) {
		mkv_park(f, &f->park_slots, r);
		return (NULL);
	}
	if (r->parked == &f->park_slots)
		mkv_unpark(f, r);
	d = &f->dops[idx];
	dop_init(d, gen);
	d->req = r;
	return (d);
}

struct mkv_dop *
mkv_dop_take_spare(struct mkv_front *f, struct mkv_spare *s)
{
	struct mkv_dop *d;
	uint32_t idx, gen;

	if (!mkv_list_empty(&f->park_slots.head) || mkv_stage_slot_take(f->stage, &idx, &gen) != 0)
		return (NULL);
	d = &f->dops[idx];
	dop_init(d, gen);
	d->spare = s;
	return (d);
}

struct mkv_drv_req *
mkv_dop_req(struct mkv_front *f, struct mkv_dop *d)
{
	struct mkv_drv_req *q = mkv_stage_slot(f->stage, dop_slot(f, d));

	MKV_ASSERT(d->state == DOP_OURS && q != NULL);
	memset(q, 0, sizeof(*q));
	q->magic = MKV_DRV_REQ_MAGIC;
	q->deadline_ns = d->req != NULL ? d->req->deadline_ns : UINT64_MAX;
	return (q);
}

/* Forget a dop whose slot is not ours any more. */
static void
dop_clear(struct mkv_dop *d)
{
	mkv_list_remove(&d->link);
	d->state = DOP_FREE;
	d->req = NULL;
	d->spare = NULL;
	d->part = NULL;
	d->n_buf = 0;
}

void
mkv_dop_drop(struct mkv_front *f, struct mkv_dop *d)
{
	MKV_ASSERT(d->state == DOP_OURS);
	mkv_stage_slot_drop(f->stage, dop_slot(f, d));
	dop_clear(d);
	f->park_slots.wake = 1;
}

static void
dop_give(struct mkv_front *f, struct mkv_dop *d)
{
	mkv_stage_slot_give(f->stage, dop_slot(f, d), d->drive, d->epoch);
	for (unsigned i = 0; i < d->n_buf; i++)
		mkv_buf_give(f->stage, d->buf[i], MKV_OWNER_FRONT, MKV_OWNER_DRIVE, d->drive, d->epoch);
}

static void
dop_back(struct mkv_front *f, struct mkv_dop *d)
{
	mkv_stage_slot_back(f->stage, dop_slot(f, d));
	for (unsigned i = 0; i < d->n_buf; i++)
		mkv_buf_give(f->stage, d->buf[i], MKV_OWNER_DRIVE, MKV_OWNER_FRONT, d->drive, d->epoch);
	mkv_list_remove(&d->link);
	d->state = DOP_OURS;
}

/* 0, or why not now: the ring is full, or just closed and its end will be told. */
static int
dop_try_push(struct mkv_front *f, struct mkv_drive *v, struct mkv_dop *d)
{
	struct mkv_desc desc = { .op = d->op, .slot_idx = dop_slot(f, d), .gen = d->gen };
	int r;

	/* What it was to read into is not with this life of the drive: its request asks again, by another way. */
	if (d->part != NULL && d->part->region != NULL && !mkv_lend_at(d->part->region, v->index)) {
		mkv_list_remove(&d->link);
		d->state = DOP_REFUSED;
		mkv_list_push_tail(&f->refused, &d->link);
		return (0);
	}
	/* Given before the push: from the push on the drive may be at work with them. */
	d->epoch = v->epoch;
	dop_give(f, d);
	r = f->conf.push(f->conf.arg, v->index, &desc);
	if (r == 0) {
		mkv_list_remove(&d->link);
		mkv_list_push_tail(&v->given, &d->link);
		d->state = DOP_GIVEN;
		return (0);
	}
	dop_back(f, d);
	d->state = DOP_PENDING;
	mkv_list_push_head(&v->pending, &d->link);
	if (r == MKV_E_AGAIN)
		mkv_metric_add(f->m, MKV_M_front_ring_full_total, 0, 1);
	return (r);
}

static void
drive_push_pending(struct mkv_front *f, struct mkv_drive *v)
{
	while (v->up && !mkv_list_empty(&v->pending))
		if (dop_try_push(f, v, MKV_CONTAINER_OF(v->pending.next, struct mkv_dop, link)) != 0)
			break;
}

void
mkv_drives_pending(struct mkv_front *f)
{
	for (unsigned i = 0; i < MKV_FRONT_DRIVES_MAX; i++)
		drive_push_pending(f, &f->drive[i]);
}

void
mkv_dop_push(struct mkv_front *f, struct mkv_dop *d, int drive, unsigned op)
{
	struct mkv_drv_req *q = mkv_stage_slot(f->stage, dop_slot(f, d));
	struct mkv_drive *v;

	MKV_ASSERT(d->state == DOP_OURS && d->n_buf <= MKV_DRV_BUFS_MAX);
	q->op = (uint16_t)op;
	q->map_version = (uint32_t)f->map_version;
	d->op = (uint16_t)op;
	if (d->req != NULL)
		d->req->n_dops++;
	mkv_list_remove(&d->link);
	if (drive < 0 || drive >= (int)MKV_FRONT_DRIVES_MAX || (!mkv_drive_serves(&f->drive[drive]) && op != MKV_DRV_ABORT)) {
		d->state = DOP_REFUSED;
		mkv_list_push_tail(&f->refused, &d->link);
		return;
	}
	v = &f->drive[drive];
	d->drive = (uint8_t)drive;
	d->state = DOP_PENDING;
	mkv_list_push_tail(&v->pending, &d->link);
	drive_push_pending(f, v);
}

void
mkv_dops_recall(struct mkv_front *f, struct mkv_req *r)
{
	for (uint32_t i = 0; i < f->n_slots && r->n_dops != 0; i++) {
		struct mkv_dop *d = &f->dops[i];

		if (d->req != r || (d->state != DOP_PENDING && d->state != DOP_REFUSED))
			continue;
		mkv_list_remove(&d->link);
		d->state = DOP_OURS;
		r->n_dops--;
		mkv_req_on_dop(r, d, NULL, MKV_E_CANCELLED);
	}
}

/* The request hears it. It may be gone afterwards. */
static void
dop_answer(struct mkv_front *f, struct mkv_dop *d, const struct mkv_drv_rep *rep, int status)
{
	struct mkv_req *r = d->req;

	if (r == NULL) {
		mkv_spare_answer(f, d, rep, status);
		return;
	}
	MKV_CHECK_OBJ(r, REQ_MAGIC);
	MKV_ASSERT(r->n_dops > 0);
	r->n_dops--;
	if (r->ending && rep != NULL)
		mkv_metric_add(f->m, MKV_M_front_answers_late_total, 0, 1);
	mkv_req_on_dop(r, d, rep, status);
	mkv_req_run(r);
}

void
mkv_drives_refused(struct mkv_front *f)
{
	struct mkv_list *l, now;

	mkv_list_init(&now);
	while ((l = mkv_list_pop(&f->refused)) != NULL)
		mkv_list_push_tail(&now, l);
	while ((l = mkv_list_pop(&now)) != NULL) {
		struct mkv_dop *d = MKV_CONTAINER_OF(l, struct mkv_dop, link);

		d->state = DOP_OURS;
		dop_answer(f, d, NULL, MKV_E_RETRY);
	}
}

/* ---- Answers --------------------------------------------------------------------------------------------------------------- */

/* What a descriptor names, if it can be an answer of this drive. */
static struct mkv_dop *
drive_find(struct mkv_front *f, const struct mkv_drive *v, const struct mkv_desc *desc)
{
	struct mkv_dop *d;

	if (desc->slot_idx >= f->n_slots)
		return (NULL);
	d = &f->dops[desc->slot_idx];
	if (d->state != DOP_GIVEN || !v->up || d->drive != v->index || d->epoch != v->epoch || d->gen != desc->gen || d->op != desc->op)
		return (NULL);
	return (d);
}

static int
rep_ok(const struct mkv_desc *desc, const struct mkv_drv_rep *rep)
{
	if (desc->status > 0 || !mkv_err_known(desc->status) || rep->magic != MKV_DRV_REP_MAGIC || rep->op != desc->op)
		return (0);
	return (rep->status == desc->status && rep->reason < MKV_REASON_COUNT && rep->n_runs <= MKV_DRV_RUNS_MAX &&
	    rep->n_crcs <= MKV_DRV_CRCS_MAX + 1 && rep->n_stripe <= MKV_DRV_STRIPE_MAX);
}

int
mkv_front_desc(struct mkv_front *f, uint32_t drive, const struct mkv_desc *desc)
{
	struct mkv_drv_rep rep;
	struct mkv_dop *d;

	MKV_CHECK_OBJ(f, FRONT_MAGIC);
	MKV_ASSERT(drive < MKV_FRONT_DRIVES_MAX);
	if ((d = drive_find(f, &f->drive[drive], desc)) == NULL)
		return (MKV_E_PEER);
	/* Copied out, then checked: the drive could still write to it. */
	memcpy(&rep, (const uint8_t *)mkv_stage_slot(f->stage, desc->slot_idx) + 4096, sizeof(rep));
	if (!rep_ok(desc, &rep))
		return (MKV_E_PEER);
	dop_back(f, d);
	dop_answer(f, d, &rep, rep.status);
	return (0);
}

int
mkv_hold_release(struct mkv_front *f, unsigned drive, uint32_t epoch, uint64_t hold, uint64_t flags)
{
	struct mkv_desc desc = { .op = MKV_DRV_RELEASE, .arg = { hold, flags } };
	struct mkv_drive *v = &f->drive[drive];

	/* The process that gave the hold is gone, and the hold with it. */
	if (!v->up || v->epoch != epoch)
		return (0);
	return (f->conf.push(f->conf.arg, drive, &desc) == MKV_E_AGAIN ? MKV_E_AGAIN : 0);
}

/* ---- Life ------------------------------------------------------------------------------------------------------------------ */

void
mkv_front_drive_up(struct mkv_front *f, uint32_t drive, uint32_t epoch)
{
	struct mkv_drive *v = &f->drive[drive];

	MKV_CHECK_OBJ(f, FRONT_MAGIC);
	MKV_ASSERT(drive < MKV_FRONT_DRIVES_MAX);
	if (v->up)
		mkv_front_drive_down(f, drive, v->epoch);
	v->epoch = epoch;
	v->up = 1;
	mkv_lend_drive_up(f, drive);
	drive_push_pending(f, v);
}

/* What waits for room in the ring and names a transaction of the process that died: the next one may have given the same number to another put. */
static void
dops_of_txns_refuse(struct mkv_front *f, struct mkv_drive *v)
{
	MKV_LIST_FOREACH_SAFE(it, tmp, &v->pending) {
		struct mkv_dop *d = MKV_CONTAINER_OF(it, struct mkv_dop, link);

		if ((d->op != MKV_DRV_COMMIT && d->op != MKV_DRV_ABORT) || (d->part == NULL && d->spare == NULL))
			continue;
		mkv_list_remove(it);
		d->state = DOP_REFUSED;
		mkv_list_push_tail(&f->refused, it);
	}
}

void
mkv_front_drive_down(struct mkv_front *f, uint32_t drive, uint32_t epoch)
{
	struct mkv_drive *v = &f->drive[drive];
	struct mkv_list lost, *l;

	MKV_CHECK_OBJ(f, FRONT_MAGIC);
	MKV_ASSERT(drive < MKV_FRONT_DRIVES_MAX);
	v->up = 0;
	mkv_lend_drive_down(f, drive);
	mkv_spares_down(f, v);
	dops_of_txns_refuse(f, v);
	mkv_stage_quarantine(f->stage, drive, MKV_MAX(epoch, v->epoch));
	mkv_list_init(&lost);
	while ((l = mkv_list_pop(&v->given)) != NULL)
		mkv_list_push_tail(&lost, l);
	while ((l = mkv_list_pop(&lost)) != NULL) {
		struct mkv_dop *d = MKV_CONTAINER_OF(l, struct mkv_dop, link);
		struct mkv_req *r = d->req;

		/* Slot and buffers are the quarantine's: the part forgets them. */
		d->n_buf = 0;
		if (d->part != NULL) {
			d->part->n_buf = 0;
			mkv_lend_lost(d->part, drive, MKV_MAX(epoch, v->epoch));
		}
		d->state = DOP_OURS;
		if (r == NULL) {
			mkv_spare_lost(d);
			dop_clear(d);
			continue;
		}
		MKV_ASSERT(r->n_dops > 0);
		r->n_dops--;
		mkv_req_on_dop_lost(r, d);
		dop_clear(d);
		mkv_req_run(r);
	}
	mkv_front_arena_lost(f, drive);
}

void
mkv_front_drive_drained(struct mkv_front *f, uint32_t drive, uint32_t epoch)
{
	MKV_CHECK_OBJ(f, FRONT_MAGIC);
	if (drive >= MKV_FRONT_DRIVES_MAX)
		return;
	mkv_stage_release(f->stage, drive, epoch);
	mkv_lend_drained(f, drive, epoch);
	f->park_bufs.wake = f->park_slots.wake = 1;
}

void
mkv_drives_remap(struct mkv_front *f)
{
	for (unsigned i = 0; i < MKV_FRONT_DRIVES_MAX; i++) {
		struct mkv_drive *v = &f->drive[i];
		struct mkv_list *l;

		if (mkv_drive_serves(v))
			continue;
		mkv_spare_short(f, i);
		while ((l = mkv_list_pop(&v->pending)) != NULL) {
			MKV_CONTAINER_OF(l, struct mkv_dop, link)->state = DOP_REFUSED;
			mkv_list_push_tail(&f->refused, l);
		}
	}
}

int
mkv_front_arena(struct mkv_front *f, uint32_t drive, int fd, uint64_t bytes)
{
	struct mkv_drive *v;
	void *p;
	int r;

	MKV_CHECK_OBJ(f, FRONT_MAGIC);
	if (drive >= MKV_FRONT_DRIVES_MAX || bytes == 0)
		return (MKV_E_INVAL);
	v = &f->drive[drive];
	if (v->arena != NULL)
		return (0);		/* the same one again: the supervisor keeps it for its life */
	if ((r = mkv_os_shm_map(fd, bytes, 1, 1, &p)) != 0)
		return (r);
	if (f->rail != NULL && (r = mkv_rail_arena(f->rail, drive, p, bytes)) != 0) {
		mkv_os_shm_unmap(p, bytes);
		return (r);
	}
	v->arena = p;
	v->arena_bytes = bytes;
	return (0);
}

void
mkv_drives_fini(struct mkv_front *f)
{
	for (unsigned i = 0; i < MKV_FRONT_DRIVES_MAX; i++) {
		struct mkv_drive *v = &f->drive[i];

		if (v->arena != NULL)
			mkv_os_shm_unmap(v->arena, v->arena_bytes);
	}
}
