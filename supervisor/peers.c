/*
 * Process: supervisor, loop thread.
 * Owns: who still has I/O for whom, the epoch. Tells neighbours of deaths and of their end.
 *
 * The epoch rises at each start of a child; all that was given to a process that died was given under an epoch below that of its next life.
 *
 *	a drive died	PEER_DIED to fronts and drives: fronts quarantine what it holds. Its next life takes the medium's lock, says DRAINED(own):
 *			PEER_DRAINED to all fronts. A life that is there to take the lock and does not get it in drive.drain_timeout: FAILED in the
 *			map, and nothing is freed until it comes. While nobody tries (BACKOFF) it stays RESTARTING: requests wait.
 *	a front died	PEER_DIED to all drives. Each says DRAINED(front, epoch): PEER_DRAINED(that drive) to the front's next life, at once or
 *			when it is configured. A drive that dies before it answered is covered by DRAINED(own) of its next life.
 *
 *	a ring is bad	RING_BAD of one end ends the process at the other, within limits. What follows is its death.
 *
 * Invariants: time never sends PEER_DRAINED.
 * What can fail: the state file. The epoch is reserved in steps, and no child is started without one, so none is used twice; who waits for one is
 * BACKOFF until there is room, and that counts as no death.
 */
#include "config.h"

#include "supervisor/sup_priv.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "common/base/assert.h"
#include "common/base/clock.h"
#include "common/base/err.h"
#include "common/base/log.h"

#define EPOCH_RESERVE	64u
#define PEERS_WHY_MAX	640u
#define DRAIN_WORD_MS	1000u	/* a drive without its lock for so long is told of */

/* ---- epoch ---- */

/* Told once until it works again: a full disk is tried every second, and by every child that waits for an epoch. */
int
peers_save(struct mkv_sup *s, char *why, unsigned why_bytes)
{
	int r = state_save(&s->state, why, why_bytes);

	if (r != 0 && !s->state_late)
		mkv_log(MKV_EV_STATE_FAILED, "text=%s", why);
	else if (r == 0 && s->state_late)
		mkv_log(MKV_EV_NOTE, "text=%s", "the state file is written again");
	s->state_late = r != 0;
	return (r);
}

void
peers_save_late(struct mkv_sup *s)
{
	char why[PEERS_WHY_MAX];

	if (s->state_late)
		(void)peers_save(s, why, sizeof(why));
}

static int
peers_reserve_epoch(struct mkv_sup *s, uint32_t upto, char *why, unsigned why_bytes)
{
	uint32_t before = s->state.epoch_saved;
	int r;

	if (upto <= before)
		return (0);
	s->state.epoch_saved = upto + EPOCH_RESERVE;
	if ((r = peers_save(s, why, why_bytes)) != 0)
		s->state.epoch_saved = before;
	return (r);
}

int
peers_raise_epoch(struct mkv_sup *s, char *why, unsigned why_bytes)
{
	int r;

	if (s->state.epoch >= UINT32_MAX - EPOCH_RESERVE - 1) {
		snprintf(why, why_bytes, "a medium has brought the last epoch there is");
		return (MKV_E_STALE);
	}
	if ((r = peers_reserve_epoch(s, s->state.epoch + 1, why, why_bytes)) != 0)
		return (r);
	s->state.epoch++;
	mkv_metric_set(s->metrics, MKV_M_supervisor_epoch, 0, s->state.epoch);
	return (0);
}

void
peers_saw_epoch(struct mkv_sup *s, uint32_t seen)
{
	char why[PEERS_WHY_MAX];

	if (seen <= s->state.epoch || seen >= UINT32_MAX - 2 * EPOCH_RESERVE)
		return;
	mkv_log(MKV_EV_NOTE, "epoch=%" PRIu32 " on_medium=%" PRIu32 " text=%s", s->state.epoch, seen, "the medium was used later than this state file");
	if (peers_reserve_epoch(s, seen, why, sizeof(why)) == 0)
		s->state.epoch = seen;
}

/* ---- messages ---- */

static int
peers_neighbours(const struct proc *a, const struct proc *b)
{
	return (a != b && (proc_is_drive(a) || proc_is_drive(b)));
}

static void
peers_tell_died(struct proc *p, uint32_t epoch)
{
	struct mkv_sup *s = p->sup;
	Mkv__Ctl__PeerDied body = MKV__CTL__PEER_DIED__INIT;
	Mkv__Ctl__Control m = MKV__CTL__CONTROL__INIT;

	m.body_case = MKV__CTL__CONTROL__BODY_PEER_DIED;
	m.peer_died = &body;
	body.peer = proc_is_drive(p) ? MKV__CTL__PEER_KIND__PEER_DRIVE : MKV__CTL__PEER_KIND__PEER_FRONT;
	body.index = p->index;
	body.epoch = epoch;
	body.restarting = child_coming_back(&p->child);
	for (uint32_t i = 0; i < s->proc_count; i++)
		if (peers_neighbours(p, &s->proc[i]) && proc_reachable(&s->proc[i]))
			proc_send(&s->proc[i], &m, NULL, 0);
}

static void
peers_tell_drained(struct proc *front, uint32_t drive, uint32_t epoch)
{
	Mkv__Ctl__PeerDrained body = MKV__CTL__PEER_DRAINED__INIT;
	Mkv__Ctl__Control m = MKV__CTL__CONTROL__INIT;

	m.body_case = MKV__CTL__CONTROL__BODY_PEER_DRAINED;
	m.peer_drained = &body;
	body.peer = MKV__CTL__PEER_KIND__PEER_DRIVE;
	body.index = drive;
	body.epoch = epoch;
	if (proc_reachable(front))
		proc_send(front, &m, NULL, 0);
}

/* ---- drained ---- */

static void
peers_drained_own(struct proc *drive, uint32_t epoch)
{
	struct mkv_sup *s = drive->sup;
	struct pool_drive *d = &s->pool[drive->index];

	uv_timer_stop(&d->drain_timer);
	mkv_log(MKV_EV_DRAINED, "child=%s epoch=%" PRIu32 " late=%d", drive->child.name, epoch, d->drain_late);
	d->drain_late = 0;
	d->drained_epoch = MKV_MAX(d->drained_epoch, epoch);
	for (uint32_t f = 0; f < s->front_count; f++) {
		d->front_drained[f] = MKV_MAX(d->front_drained[f], epoch);
		peers_tell_drained(sup_front(s, f), drive->index, epoch);
	}
}

static void
peers_drained_front(struct proc *drive, uint32_t front, uint32_t epoch)
{
	struct mkv_sup *s = drive->sup;
	uint32_t *have = &s->pool[drive->index].front_drained[front];

	/* Never more than was asked: the front's present life is not the drive's to declare finished. */
	epoch = MKV_MIN(epoch, sup_front(s, front)->died_epoch);
	if (epoch <= *have)
		return;
	*have = epoch;
	peers_tell_drained(sup_front(s, front), drive->index, epoch);
}

void
peers_on_drained(struct proc *drive, const Mkv__Ctl__Drained *d)
{
	if (d->own)
		peers_drained_own(drive, drive->epoch - 1);
	else if (d->front < drive->sup->front_count)
		peers_drained_front(drive, d->front, d->epoch);
	else
		proc_break(drive, "DRAINED names a front that is none");
}

static void
peers_on_drain_timer(uv_timer_t *t)
{
	struct pool_drive *d = MKV_CONTAINER_OF(t, struct pool_drive, drain_timer);
	struct mkv_sup *s = t->data;
	uint32_t idx = (uint32_t)(d - s->pool);

	d->drain_late = 1;
	mkv_log(MKV_EV_DRAIN_LATE, "child=%s limit_ms=%" PRIu64, sup_drive(s, idx)->child.name, s->params->drive_drain_timeout / 1000);
	pool_out(s, idx, MKV_DRIVE_FAILED);
	pool_step(s);
	sup_on_change(s);
}

/* Long before the limit: who waits for a server to be ready, or looks at its status, shall see for what it waits. */
static void
peers_on_drain_wait(uv_timer_t *t)
{
	struct pool_drive *d = MKV_CONTAINER_OF(t, struct pool_drive, drain_timer);
	struct mkv_sup *s = t->data;
	struct proc *p = sup_drive(s, (uint32_t)(d - s->pool));
	uint64_t limit_ms = s->params->drive_drain_timeout / 1000;

	(void)uv_timer_start(t, peers_on_drain_timer, limit_ms - MKV_MIN(limit_ms, DRAIN_WORD_MS), 0);
	if (p->life == NULL || p->life->broken || p->child.state != CHILD_STARTING)
		return;				/* it is its own end that is waited for, and why is known */
	snprintf(p->detail, sizeof(p->detail), "waits for the lock of its medium: another server, a memkv drive command or I/O of its former process has it");
	mkv_log(MKV_EV_DRIVE_LOCKED, "child=%s media=%s text=\"%s\" limit_ms=%" PRIu64, p->child.name, s->conf->drive[p->index].media, p->detail,
	    limit_ms);
}

static void
peers_arm_drain(struct proc *drive)
{
	struct mkv_sup *s = drive->sup;
	struct pool_drive *d = &s->pool[drive->index];
	uint64_t limit_ms = s->params->drive_drain_timeout / 1000;

	if (d->drain_late)
		return;
	if (limit_ms > DRAIN_WORD_MS)
		(void)uv_timer_start(&d->drain_timer, peers_on_drain_wait, DRAIN_WORD_MS, 0);
	else
		(void)uv_timer_start(&d->drain_timer, peers_on_drain_timer, limit_ms, 0);
}

/* ---- damaged rings ---- */

static struct proc *
peers_named(struct mkv_sup *s, Mkv__Ctl__PeerKind kind, uint32_t index)
{
	if (kind == MKV__CTL__PEER_KIND__PEER_DRIVE)
		return (index < s->drive_count ? sup_drive(s, index) : NULL);
	return (kind == MKV__CTL__PEER_KIND__PEER_FRONT && index < s->front_count ? sup_front(s, index) : NULL);
}

/* Its word ends one more neighbour, unless it ended PROC_ACCUSE_MAX of them within the window. */
static int
peers_believe(struct proc *p, uint64_t now_ns)
{
	unsigned oldest = 0;

	for (unsigned i = 1; i < PROC_ACCUSE_MAX; i++)
		if (p->accuse_ns[i] < p->accuse_ns[oldest])
			oldest = i;
	if (p->accuse_ns[oldest] != 0 && now_ns - p->accuse_ns[oldest] < p->sup->policy.crash_window_ns)
		return (0);
	p->accuse_ns[oldest] = now_ns;
	return (1);
}

/*
 * The far end is ended: by its own words it would not be found out, and without a new ring the pair stays cut. But it is one's word against the
 * other's, so whoever accuses too often goes itself; its deaths then make it FATAL, while the accused are left with too few of them for that
 * (server.crash_limit above PROC_ACCUSE_MAX). Others who suffer from the same neighbour have a word of their own.
 */
void
peers_on_ring_bad(struct proc *p, const Mkv__Ctl__RingBad *b)
{
	struct proc *q = peers_named(p->sup, b->peer, b->index);

	if (q == NULL || !peers_neighbours(p, q)) {
		proc_break(p, "RING_BAD names no neighbour of it");
		return;
	}
	if (b->epoch == 0 || heritage_ring_epoch(p, q) != b->epoch)
		return;				/* retired: its far end is dead, both are told */
	if (q->life == NULL || q->life->broken || q->child.state == CHILD_STOPPING)
		return;				/* on its way out, and the ring with it */
	if (peers_believe(p, mkv_now_ns()))
		proc_break_ring(q, p, "damaged a ring");
	else
		proc_break_ring(p, q, "calls too many rings damaged");
}

/* ---- life and death of a neighbour ---- */

void
peers_on_death(struct proc *p, uint32_t epoch_died, int clean)
{
	p->died_epoch = epoch_died;
	heritage_drop_rings(p);
	peers_tell_died(p, epoch_died);
	if (proc_is_rail(p))
		rails_on_end(p);
	if (!proc_is_drive(p))
		return;
	uv_timer_stop(&p->sup->pool[p->index].drain_timer);	/* nobody asks for the lock until its next life is configured */
	if (clean)
		peers_drained_own(p, epoch_died);	/* it finished what it had before it said STOPPED */
}

void
peers_on_state(struct proc *p, enum child_state from MKV_UNUSED)
{
	if (proc_is_rail(p) && p->child.state == CHILD_STOPPING)
		rails_on_stop(p);
	if (proc_is_drive(p))
		pool_on_state(p);
}

/* The kernel may keep it as long as its medium hangs; the others do not wait so long. */
void
peers_on_broken(struct proc *p)
{
	if (proc_is_rail(p))
		rails_on_end(p);
	if (!proc_is_drive(p))
		return;
	p->died_epoch = p->sup->state.epoch;
	heritage_drop_rings(p);
	peers_tell_died(p, p->died_epoch);	/* whose requests it has shall ask again; told once more when it has ended */
	pool_on_death(p->sup, p->index);
	peers_arm_drain(p);
}

int
peers_on_ready(struct proc *drive, const Mkv__Ctl__Ready *r)
{
	struct mkv_sup *s = drive->sup;

	if (r->drive_uuid.len != 16 || r->total_bytes == 0) {
		proc_break(drive, "READY without uuid or size");
		return (0);
	}
	/* A copied drive would be two places for the same keys. Known ones are refused before they are opened; these two are new. */
	if (moved_taken(drive, r->drive_uuid.data)) {
		char why[sizeof(drive->why)];

		memcpy(why, drive->why, sizeof(why));
		drive->child.final = 1;
		proc_break(drive, why);
		return (0);
	}
	peers_saw_epoch(s, r->epoch_seen);
	return (1);
}

void
peers_catch_up(struct proc *p)
{
	struct mkv_sup *s = p->sup;

	pool_catch_up(p);
	if (proc_is_drive(p)) {
		peers_arm_drain(p);
		return;
	}
	for (uint32_t i = 0; i < s->drive_count; i++)
		if (s->pool[i].front_drained[p->index] > 0)
			peers_tell_drained(p, i, s->pool[i].front_drained[p->index]);
}

void
peers_init_drive(struct mkv_sup *s, uint32_t drive)
{
	(void)uv_timer_init(s->loop, &s->pool[drive].drain_timer);
	s->pool[drive].drain_timer.data = s;
}

void
peers_init(struct mkv_sup *s)
{
	for (uint32_t i = 0; i < s->drive_count; i++)
		peers_init_drive(s, i);
}

void
peers_close(struct mkv_sup *s)
{
	for (uint32_t i = 0; i < s->drive_count; i++)
		if (s->pool[i].drain_timer.data != NULL)
			uv_close((uv_handle_t *)&s->pool[i].drain_timer, NULL);
}
