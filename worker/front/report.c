/*
 * memkv-front, loop thread: REPORT. A reader's bytes did not match their CRCs: the drives that hold them read them again and decide, and what they find
 * is the answer. 0: the bytes there are good. CORRUPT and why: they are not, and the object has left. MISS: it, or a piece of it, is not there.
 *
 * The home is asked first. If it has a manifest, then the drives of those pieces that the range touches, REPORT_PIECES at a time, until one is bad; that
 * piece's drive tells the home, for which the value is a miss then, and which frees the other pieces (worker/drive/whole.c).
 *
 *   part (the object, or a piece): WAIT -> DRIVE -> FULL -> free
 *
 * Nothing is moved but a slot for each part. How much a drive reads for reports is its own affair (worker/drive/get.c): one that has too many answers BUSY.
 */
#include "config.h"

#include "worker/front/front_priv.h"

#include "common/base/err.h"

#define REPORT_PIECES	2u
_Static_assert(REPORT_PIECES <= REQ_PARTS, "each is a part");

static int
report_start(struct mkv_req *r, const struct mkv_hdr *h, const uint8_t *body)
{
	const struct mkv_wire_get *w;
	int e;

	if ((e = mkv_req_take_get(r, h, body, &w)) != 0)
		return (e);
	if (w->off > MKV_WIRE_VALUE_MAX)
		return (MKV_E_INVAL);
	r->u.get.off = w->off;
	r->u.get.len = w->len != 0 ? w->len : UINT64_MAX;
	r->u.get.flags = w->flags;
	return (0);
}

/* 1: pushed; 0: parked; -1: ended. */
static int
report_push(struct mkv_req *r, struct mkv_part *p)
{
	const struct mkv_get *u = &r->u.get;
	struct mkv_drv_req *q;
	int drive;

	if (p->dop == NULL && (p->dop = mkv_dop_take(r->f, r)) == NULL)
		return (0);
	q = mkv_dop_req(r->f, p->dop);
	q->off = u->multi ? p->off : u->off;
	q->len = u->multi ? p->bytes : u->len;
	q->flags = MKV_DRV_F_NO_TOUCH;
	if ((drive = mkv_get_aim(r, p, q)) < 0) {
		mkv_get_miss(r, MKV_REASON_DRIVE_OFFLINE);
		return (-1);
	}
	mkv_part_push(r, p, drive, MKV_DRV_VERIFY);
	return (1);
}

static void
report_on_dop(struct mkv_req *r, struct mkv_dop *d, const struct mkv_drv_rep *rep, int status)
{
	struct mkv_part *p = d->part;

	p->state = PART_FULL;
	mkv_get_on_hold(p, d, rep, status);
	if (r->ending)
		return;
	if (status != 0)
		mkv_get_on_failure(r, p, rep, status);
	else if (r->u.get.multi)
		return;				/* this piece is good */
	else if (rep->flags & MKV_DRV_F_MANIFEST)
		mkv_get_on_manifest(r, p, rep);
	else
		mkv_req_end(r, 0, MKV_REASON_NONE, NULL, 0);
}

/* What is asked next: what is to be asked again, or the next piece. NULL: nothing now. */
static struct mkv_part *
report_next(struct mkv_req *r)
{
	struct mkv_get *u = &r->u.get;
	struct mkv_part *unused = NULL;

	for (unsigned i = 0; i < REPORT_PIECES; i++) {
		if (r->part[i].state == PART_WAIT)
			return (&r->part[i]);
		if (r->part[i].state == PART_FREE)
			unused = &r->part[i];
	}
	if (unused == NULL || u->nothing || u->next_no > u->last_no)
		return (NULL);
	mkv_get_next_piece(r, unused);
	return (unused);
}

static enum mkv_next
report_step_one(struct mkv_req *r)
{
	struct mkv_part *p = &r->part[0];

	if (p->state == PART_FREE) {
		mkv_part_init(r, p, 0, 0);
		p->state = PART_WAIT;
	}
	if (p->state != PART_WAIT)
		return (MKV_NEXT_PARK);
	return (report_push(r, p) < 0 ? MKV_NEXT_AGAIN : MKV_NEXT_PARK);
}

static enum mkv_next
report_step(struct mkv_req *r)
{
	struct mkv_part *p;
	int busy = 0, pushed;

	if (!r->u.get.multi)
		return (report_step_one(r));
	for (unsigned i = 0; i < REPORT_PIECES; i++)
		if (r->part[i].state == PART_FULL && !mkv_part_clear(r, &r->part[i]))
			return (MKV_NEXT_PARK);
	while ((p = report_next(r)) != NULL) {
		if ((pushed = report_push(r, p)) <= 0)
			return (pushed < 0 ? MKV_NEXT_AGAIN : MKV_NEXT_PARK);
	}
	for (unsigned i = 0; i < REPORT_PIECES; i++)
		busy |= r->part[i].state != PART_FREE;
	if (busy)
		return (MKV_NEXT_PARK);
	mkv_req_end(r, 0, MKV_REASON_NONE, NULL, 0);
	return (MKV_NEXT_AGAIN);
}

const struct mkv_req_ops mkv_report_ops = {
	.op = MKV_WIRE_REPORT,
	.start = report_start,
	.step = report_step,
	.on_dop = report_on_dop,
	.undo = mkv_get_undo,
};
