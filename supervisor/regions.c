/*
 * Process: supervisor, loop thread.
 * Owns: how many REGIONs each drive has not answered. Passes memory of clients from the front of the unix socket to drives, and their answers back.
 *
 *	front:local --REGION {drive, epoch of their ring, region} + memfd--> here --the same, whose it is--> drive
 *	front:local <--REGION_DONE {drive, ...}------------------------------ here <--REGION_DONE------------ drive
 *
 * Both ends of a ring that was replaced hear of that here, in order with these messages; so what belongs to another ring than the present one is dropped without a
 * word. A descriptor is kept while it is passed on, or waits for room in the drive's socket; never longer.
 * What can fail: a front that brings no descriptor, a drive that answers what it was not asked: ended. Memory that is no region any more: the front hears INVAL. A drive that
 * is not there yet, takes nothing now, or has REGIONS_ASKED_MAX unanswered: RETRY.
 */
#include "config.h"

#include "supervisor/sup_priv.h"

#include <string.h>

#include "common/base/err.h"
#include "common/base/os.h"

#define REGIONS_ASKED_MAX	64u	/* of one drive; a front has 32 in flight at most (worker/front/lend.c) */

static void
regions_answer(struct proc *front, const Mkv__Ctl__RegionDone *answer)
{
	Mkv__Ctl__Control m = MKV__CTL__CONTROL__INIT;

	m.body_case = MKV__CTL__CONTROL__BODY_REGION_DONE;
	m.region_done = (Mkv__Ctl__RegionDone *)(uintptr_t)answer;
	proc_send(front, &m, NULL, 0);
}

static void
regions_refuse(struct proc *front, const Mkv__Ctl__Region *ask, int status)
{
	Mkv__Ctl__RegionDone d = MKV__CTL__REGION_DONE__INIT;

	d.front = front->index;
	d.drive = ask->drive;
	d.epoch = ask->epoch;
	d.region = ask->region;
	d.drop = ask->drop;
	d.status = status;
	regions_answer(front, &d);
}

static int
regions_pass_on(struct proc *front, struct proc *drive, const Mkv__Ctl__Region *ask, int fd)
{
	Mkv__Ctl__Region body = *ask;
	Mkv__Ctl__Control m = MKV__CTL__CONTROL__INIT;

	m.body_case = MKV__CTL__CONTROL__BODY_REGION;
	m.region = &body;
	body.front = front->index;
	return (ctl_send(&drive->life->ctl, &m, &fd, fd != -1 ? 1 : 0));
}

void
regions_on_ask(struct proc *front, const Mkv__Ctl__Region *ask, int fd)
{
	struct mkv_sup *s = front->sup;
	struct proc *drive = ask->drive < s->drive_count ? sup_drive(s, ask->drive) : NULL;
	struct mkv_os_shm shm;

	if (drive == NULL || ask->epoch == 0 || (fd == -1) != (ask->drop != 0)) {
		proc_break(front, "REGION names no drive, or has no memory");
		return;
	}
	if (heritage_ring_epoch(front, drive) != ask->epoch)
		return;				/* that life is over: the front is told */
	/* It was whole when the front looked; its client may punch holes at any time. */
	if (fd != -1 && mkv_os_shm_check(fd, &shm) != 0) {
		regions_refuse(front, ask, MKV_E_INVAL);
		return;
	}
	/* Those of a front's former life count as well, which the drive may still have before it. */
	if (!proc_reachable(drive) || drive->life->regions_asked >= REGIONS_ASKED_MAX) {
		regions_refuse(front, ask, MKV_E_RETRY);
		return;
	}
	switch (regions_pass_on(front, drive, ask, fd)) {
	case 0:
		drive->life->regions_asked++;
		return;
	case MKV_E_CLOSED:
		return;				/* its end comes, and is told */
	default:
		regions_refuse(front, ask, MKV_E_RETRY);
	}
}

void
regions_on_done(struct proc *drive, const Mkv__Ctl__RegionDone *m)
{
	struct mkv_sup *s = drive->sup;
	struct proc *front = m->front < s->front_count ? sup_front(s, m->front) : NULL;
	Mkv__Ctl__RegionDone d = *m;

	if (front == NULL || drive->life->regions_asked == 0) {
		proc_break(drive, "REGION_DONE of nothing that it was asked");
		return;
	}
	drive->life->regions_asked--;
	d.drive = drive->index;
	if (m->epoch != 0 && heritage_ring_epoch(front, drive) == m->epoch && proc_reachable(front))
		regions_answer(front, &d);
}
