/*
 * memkv-front, loop thread: arena runs that are reserved ahead (memory mode). A put of a size that keeps coming finds its run here and its bytes are received
 * at once; without, each put would first wait for the drive's answer while its connection is not read.
 *
 *   SPARE_FREE -> RESERVE -> SPARE_ASKED -> (answer) SPARE_HELD -> a put takes it: slot, transaction and runs are the part's from then on
 *                                                    or nobody does: ABORT -> SPARE_ENDING -> SPARE_FREE
 *
 * How many: none at first. Each put that finds none makes it one more, up to SPARES_MAX and a share of the arena, for one size a drive: that of two puts in a
 * row. The next ones are asked for when a COMMIT leaves, by the same bell. After SPARE_IDLE_NS without a put, or when space is short, all are given back.
 * What fails: the drive's death (its transactions end with it), the front's (the drive ends those of a client that is gone), a refusal (no spares then).
 */
#include "config.h"

#include "worker/front/front_priv.h"

#include <string.h>

#include "common/base/assert.h"
#include "common/base/err.h"

#define SPARE_IDLE_NS	(100 * MKV_NS_PER_MS)
#define SPARE_LIFE_NS	MKV_NS_PER_SEC		/* the drive looks for space no longer */
#define SPARE_ARENA_PART 32u			/* at most one in so many bytes of the arena */
#define SPARE_SLOTS_PART 16u			/* and of the control slots */

static unsigned
spare_most(const struct mkv_front *f, const struct mkv_drive *v, uint32_t bytes)
{
	uint64_t n = v->arena_bytes / SPARE_ARENA_PART / bytes;

	return ((unsigned)MKV_MIN(MKV_MIN(n, f->n_slots / SPARE_SLOTS_PART), SPARES_MAX));
}

static struct mkv_spare *
spare_in(struct mkv_drive *v, enum mkv_spare_state state)
{
	for (unsigned i = 0; i < SPARES_MAX; i++)
		if (v->spare[i].state == state)
			return (&v->spare[i]);
	return (NULL);
}

static unsigned
spare_count(const struct mkv_drive *v)
{
	unsigned n = 0;

	for (unsigned i = 0; i < SPARES_MAX; i++)
		n += v->spare[i].state == SPARE_ASKED || v->spare[i].state == SPARE_HELD;
	return (n);
}

/* Its slot carries the end of the reservation. */
static void
spare_abort(struct mkv_front *f, struct mkv_spare *s)
{
	struct mkv_drv_req *q = mkv_dop_req(f, s->dop);

	q->txn = s->txn;
	q->deadline_ns = UINT64_MAX;
	s->state = SPARE_ENDING;
	mkv_dop_push(f, s->dop, s->dop->drive, MKV_DRV_ABORT);
}

/* None any more: those that are asked for follow when they come. */
static void
spare_give_back(struct mkv_front *f, struct mkv_drive *v)
{
	struct mkv_spare *s;

	v->spare_bytes = 0;
	v->spares_want = 0;
	while ((s = spare_in(v, SPARE_HELD)) != NULL)
		spare_abort(f, s);
}

static void
spare_fire(struct mkv_timer *t, uint64_t now_ns)
{
	struct mkv_front *f = MKV_CONTAINER_OF(t, struct mkv_front, spare_timer);
	int some = 0;

	MKV_CHECK_OBJ(f, FRONT_MAGIC);
	for (unsigned i = 0; i < MKV_FRONT_DRIVES_MAX; i++) {
		struct mkv_drive *v = &f->drive[i];

		if (v->spare_bytes == 0)
			continue;
		if (v->spare_idle)
			spare_give_back(f, v);
		else
			some = 1;
		v->spare_idle = 1;
	}
	if (some)
		mkv_timer_arm(f->timers, t, now_ns + SPARE_IDLE_NS);
}

static int
spare_ask(struct mkv_front *f, struct mkv_drive *v)
{
	struct mkv_spare *s = spare_in(v, SPARE_FREE);
	struct mkv_drv_req *q;

	if (s == NULL || (s->dop = mkv_dop_take_spare(f, s)) == NULL)
		return (0);
	s->state = SPARE_ASKED;
	s->bytes = v->spare_bytes;
	q = mkv_dop_req(f, s->dop);
	q->value_bytes = s->bytes;
	q->flags = MKV_DRV_F_VERIFIED;
	q->deadline_ns = mkv_now_ns() + SPARE_LIFE_NS;
	mkv_dop_push(f, s->dop, (int)v->index, MKV_DRV_RESERVE);
	return (1);
}

/* A put of so many bytes found none. */
static void
spare_missed(struct mkv_front *f, struct mkv_drive *v, uint32_t bytes)
{
	unsigned most = spare_most(f, v, bytes);

	if (f->stopping || (bytes != v->spare_bytes && (bytes != v->spare_last || most == 0)))
		return;
	if (bytes != v->spare_bytes) {
		spare_give_back(f, v);
		v->spare_bytes = bytes;
	}
	v->spares_want = MKV_MIN(v->spares_want + 1, most);
	if (f->spare_timer.heap_idx == 0) {
		f->spare_timer.fire = spare_fire;
		mkv_timer_arm(f->timers, &f->spare_timer, mkv_now_ns() + SPARE_IDLE_NS);
	}
}

int
mkv_spare_take(struct mkv_req *r, struct mkv_part *p, int drive)
{
	struct mkv_drive *v = drive < 0 ? NULL : &r->f->drive[drive];
	struct mkv_spare *s;

	if (v == NULL || !v->up || !mkv_drive_serves(v) || p->bytes == 0)
		return (0);
	v->spare_idle = 0;
	s = p->bytes == v->spare_bytes ? spare_in(v, SPARE_HELD) : NULL;
	if (s == NULL) {
		spare_missed(r->f, v, p->bytes);
		v->spare_last = p->bytes;
		return (0);
	}
	p->drive = (uint8_t)drive;
	if (mkv_part_runs(r, p, s->run, s->n_run, p->bytes) != 0) {
		p->n_run = 0;
		spare_give_back(r->f, v);
		return (0);
	}
	p->has_txn = 1;
	p->txn = s->txn;
	p->epoch = s->dop->epoch;
	if (p->dop != NULL)
		mkv_dop_drop(r->f, p->dop);
	p->dop = s->dop;
	p->dop->spare = NULL;
	p->dop->req = r;
	p->dop->part = p;
	s->state = SPARE_FREE;
	s->dop = NULL;
	mkv_metric_add(r->f->m, MKV_M_front_reserved_ahead_total, 0, 1);
	return (1);
}

void
mkv_spare_refill(struct mkv_front *f, unsigned drive)
{
	struct mkv_drive *v = &f->drive[drive];

	if (!v->up || !mkv_drive_serves(v) || f->stopping)
		return;
	while (spare_count(v) < v->spares_want && spare_ask(f, v))
		continue;
}

static void
spare_free(struct mkv_spare *s)
{
	s->state = SPARE_FREE;
	s->dop = NULL;
}

void
mkv_spare_answer(struct mkv_front *f, struct mkv_dop *d, const struct mkv_drv_rep *rep, int status)
{
	struct mkv_spare *s = d->spare;
	struct mkv_drive *v = &f->drive[d->drive];

	MKV_ASSERT(s->dop == d && (s->state == SPARE_ASKED || s->state == SPARE_ENDING));
	if (s->state == SPARE_ASKED && rep != NULL && status == 0) {
		s->state = SPARE_HELD;
		s->txn = rep->txn;
		s->n_run = rep->n_runs;
		memcpy(s->run, rep->runs, rep->n_runs * sizeof(s->run[0]));
		if (s->bytes != v->spare_bytes)
			spare_abort(f, s);
		return;
	}
	if (s->state == SPARE_ASKED)
		spare_give_back(f, v);		/* space is short: others need it now */
	mkv_dop_drop(f, d);
	spare_free(s);
}

void
mkv_spare_short(struct mkv_front *f, unsigned drive)
{
	spare_give_back(f, &f->drive[drive]);
}

/* The dop of one that was with the drive when it died: slot and memory are the quarantine's. */
void
mkv_spare_lost(struct mkv_dop *d)
{
	spare_free(d->spare);
}

void
mkv_spares_down(struct mkv_front *f, struct mkv_drive *v)
{
	struct mkv_spare *s;

	v->spare_bytes = v->spares_want = 0;
	while ((s = spare_in(v, SPARE_HELD)) != NULL) {
		mkv_dop_drop(f, s->dop);
		spare_free(s);
	}
}

void
mkv_spares_stop(struct mkv_front *f)
{
	mkv_timer_disarm(f->timers, &f->spare_timer);
	for (unsigned i = 0; i < MKV_FRONT_DRIVES_MAX; i++)
		spare_give_back(f, &f->drive[i]);
}

int
mkv_spares_none(const struct mkv_front *f)
{
	for (unsigned i = 0; i < MKV_FRONT_DRIVES_MAX; i++)
		for (unsigned k = 0; k < SPARES_MAX; k++)
			if (f->drive[i].spare[k].state != SPARE_FREE)
				return (0);
	return (1);
}
