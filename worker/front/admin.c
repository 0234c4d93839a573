/*
 * memkv-front, loop thread: the small operations. STAT asks the home drive, INFO all that serve, LIST one drive after the other (a cursor is
 * drive << 56 | the drive's own cursor), PING and CANCEL are answered at once.
 */
#include "config.h"

#include "worker/front/front_priv.h"

#include <stdio.h>
#include <string.h>

#include "common/base/assert.h"
#include "common/base/err.h"

#define LIST_DRIVE_SHIFT	56
#define LIST_CURSOR_MASK	((1ull << LIST_DRIVE_SHIFT) - 1)
#define LIST_BYTES		(MKV_WIRE_BODY_MAX - 4096u)	/* rows of one answer; the fixed part goes before them */

_Static_assert(sizeof(struct mkv_wire_list_row) == sizeof(struct mkv_drv_list_row) &&
    offsetof(struct mkv_wire_list_row, key) == offsetof(struct mkv_drv_list_row, key), "a drive's rows leave as they are");
_Static_assert(sizeof(struct mkv_wire_list_reply) + LIST_BYTES <= MKV_STAGE_UNIT, "an answer fits a unit");

/* ---- STAT ------------------------------------------------------------------------------------------------------------------ */

static int
stat_start(struct mkv_req *r, const struct mkv_hdr *h, const uint8_t *body)
{
	const struct mkv_wire_get *w;
	int e;

	if ((e = mkv_req_take_get(r, h, body, &w)) != 0)
		return (e);
	if (w->off != 0 || w->len != 0)
		return (MKV_E_PROTO);
	r->u.misc.rows = w->flags;
	return (0);
}

static enum mkv_next
stat_step(struct mkv_req *r)
{
	int drive = mkv_route_read(r);
	struct mkv_drv_req *q;
	struct mkv_dop *d;

	if (r->n_dops != 0)
		return (MKV_NEXT_PARK);
	if (drive < 0) {
		mkv_req_end(r, MKV_E_MISS, MKV_REASON_DRIVE_OFFLINE, NULL, 0);
		return (MKV_NEXT_AGAIN);
	}
	if ((d = mkv_dop_take(r->f, r)) == NULL)
		return (MKV_NEXT_PARK);
	q = mkv_dop_req(r->f, d);
	mkv_req_fill(r, q);
	if (r->u.misc.rows & MKV_WIRE_LIST_NO_TOUCH)
		q->flags |= MKV_DRV_F_NO_TOUCH;
	mkv_dop_push(r->f, d, drive, MKV_DRV_STAT);
	return (MKV_NEXT_PARK);
}

/* STAT, LIST: the drive's failure is the answer, unless the drive died. 1: go on. */
static int
one_good(struct mkv_req *r, const struct mkv_drv_rep *rep, int status)
{
	if (r->ending)
		return (0);
	if (rep == NULL && mkv_req_again(r, status))
		return (0);		/* the step asks once more */
	if (status != 0) {
		int reason = rep != NULL ? rep->reason : MKV_REASON_NONE;

		if (status == MKV_E_MISS && r->op != MKV_WIRE_LIST && mkv_route_read_next(r))
			return (0);		/* the step asks its former home */
		if (status == MKV_E_MISS)
			reason = mkv_route_reason(r->f, r->digest, reason);
		mkv_req_end(r, status, (unsigned)reason, NULL, 0);
		return (0);
	}
	return (1);
}

static void
stat_on_dop(struct mkv_req *r, struct mkv_dop *d, const struct mkv_drv_rep *rep, int status)
{
	struct mkv_wire_object o = { 0 };

	(void)d;
	if (!one_good(r, rep, status))
		return;
	o.value_bytes = rep->value_bytes;
	o.put_wall_ms = rep->put_wall_ms;
	o.expires_wall_ms = rep->expires_wall_ms;
	o.put_id = rep->put_id;
	o.flags = rep->flags & MKV_DRV_F_PIN ? MKV_WIRE_PUT_PIN : 0;
	mkv_metric_add(r->f->m, MKV_M_front_hits_total, r->op, 1);
	mkv_req_end(r, 0, MKV_REASON_NONE, &o, sizeof(o));
}

/* ---- LIST ------------------------------------------------------------------------------------------------------------------ */

static int
list_start(struct mkv_req *r, const struct mkv_hdr *h, const uint8_t *body)
{
	struct mkv_wire_in in = { body, body + h->body_bytes };
	const struct mkv_wire_list *w = mkv_wire_take(&in, sizeof(*w));
	const void *ns, *prefix;

	if (w == NULL || w->ns_bytes > MKV_WIRE_NS_MAX || w->prefix_bytes > MKV_WIRE_KEY_MAX)
		return (MKV_E_PROTO);
	ns = mkv_wire_take(&in, w->ns_bytes);
	prefix = mkv_wire_take(&in, w->prefix_bytes);
	if (ns == NULL || prefix == NULL || !mkv_wire_skip_pad(&in, body) || in.p != in.end)
		return (MKV_E_PROTO);
	r->ns_bytes = w->ns_bytes;
	r->key_bytes = w->prefix_bytes;
	memcpy(r->ns, ns, w->ns_bytes);
	memcpy(r->key, prefix, w->prefix_bytes);
	r->u.misc.drive = (uint32_t)(w->cursor >> LIST_DRIVE_SHIFT);
	r->u.misc.cursor = w->cursor & LIST_CURSOR_MASK;
	r->u.misc.rows = w->max_rows != 0 ? w->max_rows : UINT32_MAX;
	if (r->u.misc.drive >= MKV_FRONT_DRIVES_MAX)
		return (MKV_E_INVAL);
	return (0);
}

/* The next drive that serves, from u->drive on; one past the last if there is none. */
static uint32_t
list_drive(const struct mkv_req *r)
{
	uint32_t i = r->u.misc.drive;

	while (i < MKV_FRONT_DRIVES_MAX && !mkv_drive_serves(&r->f->drive[i]))
		i++;
	return (i);
}

static void
list_empty(struct mkv_req *r)
{
	struct mkv_wire_list_reply w = { 0 };

	mkv_req_end(r, 0, MKV_REASON_NONE, &w, sizeof(w));
}

static enum mkv_next
list_step(struct mkv_req *r)
{
	struct mkv_misc *u = &r->u.misc;
	struct mkv_drv_req *q;
	struct mkv_dop *d;
	uint32_t drive;

	if (r->n_dops != 0)
		return (MKV_NEXT_PARK);
	drive = list_drive(r);
	if (drive == MKV_FRONT_DRIVES_MAX) {
		list_empty(r);
		return (MKV_NEXT_AGAIN);
	}
	if (drive != u->drive)
		u->cursor = 0;
	u->drive = drive;
	if (u->buf.unit_count == 0 && mkv_buf_take_parked(r, MKV_STAGE_UNIT, &u->buf) != 0)
		return (MKV_NEXT_PARK);
	if ((d = mkv_dop_take(r->f, r)) == NULL)
		return (MKV_NEXT_PARK);
	q = mkv_dop_req(r->f, d);
	mkv_req_fill(r, q);
	q->digest = (struct mkv_digest){ 0, 0 };
	q->off = u->cursor;
	q->len = u->rows;
	q->n_bufs = 1;
	q->bufs[0].off = mkv_buf_off(r->f->stage, u->buf);
	q->bufs[0].bytes = LIST_BYTES;
	d->buf[0] = u->buf;
	d->n_buf = 1;
	mkv_dop_push(r->f, d, (int)drive, MKV_DRV_LIST);
	return (MKV_NEXT_PARK);
}

/* How many bytes n rows take; 0 if they are not rows. Their flags become those of the wire. */
static uint32_t
list_rows_bytes(uint8_t *p, uint32_t n)
{
	uint32_t at = 0;

	for (uint32_t i = 0; i < n; i++) {
		struct mkv_wire_list_row row;

		if (LIST_BYTES - at < sizeof(row))
			return (0);
		memcpy(&row, p + at, sizeof(row));
		if (row.row_bytes % 8 != 0 || row.row_bytes < sizeof(row) + row.key_bytes || row.row_bytes > LIST_BYTES - at ||
		    row.key_bytes > MKV_WIRE_KEY_MAX)
			return (0);
		row.flags = row.flags & MKV_DRV_F_PIN ? MKV_WIRE_PUT_PIN : 0;
		memcpy(p + at, &row, sizeof(row));
		at += row.row_bytes;
	}
	return (at);
}

static void
list_on_dop(struct mkv_req *r, struct mkv_dop *d, const struct mkv_drv_rep *rep, int status)
{
	struct mkv_misc *u = &r->u.misc;
	struct mkv_part *p = &r->part[0];
	struct mkv_wire_list_reply *w;
	uint32_t bytes;
	uint8_t *base;

	if (d->n_buf == 0)
		u->buf.unit_count = 0;		/* a dead drive has it */
	if (!one_good(r, rep, status))
		return;
	base = mkv_buf_ptr(r->f->stage, u->buf);
	bytes = list_rows_bytes(base, rep->n_rows);
	if ((bytes == 0 && rep->n_rows != 0) || rep->cursor > LIST_CURSOR_MASK) {
		mkv_req_end(r, MKV_E_PEER, MKV_REASON_NONE, NULL, 0);
		return;
	}
	if (rep->cursor != 0)
		u->cursor = rep->cursor;
	else {
		u->drive++;
		u->cursor = 0;
		if (rep->n_rows == 0)
			return;			/* nothing here: the step asks the next */
		u->drive = list_drive(r);
	}
	w = (struct mkv_wire_list_reply *)(void *)base;
	memmove(w + 1, base, bytes);
	w->cursor = u->drive < MKV_FRONT_DRIVES_MAX ? (uint64_t)u->drive << LIST_DRIVE_SHIFT | u->cursor : 0;
	w->n_rows = rep->n_rows;
	w->pad = 0;
	mkv_part_init(r, p, 0, 0);
	p->state = PART_SEND;
	mkv_req_reply(r, &p->out, 0, 0, MKV_REASON_NONE, w, (uint32_t)sizeof(*w) + bytes);
	mkv_req_end_sent(r);
}

static enum mkv_next
list_undo(struct mkv_req *r)
{
	if (r->n_dops != 0 || r->part[0].state != PART_FREE)
		return (MKV_NEXT_PARK);
	mkv_buf_back(r, &r->u.misc.buf);
	return (MKV_NEXT_DONE);
}

/* ---- INFO ------------------------------------------------------------------------------------------------------------------ */

static int
nothing_start(struct mkv_req *r, const struct mkv_hdr *h, const uint8_t *body)
{
	(void)r;
	(void)h;
	(void)body;
	return (0);
}

static int
info_start(struct mkv_req *r, const struct mkv_hdr *h, const uint8_t *body)
{
	(void)h;
	(void)body;
	/* One that restarts is not waited for: INFO tells what is, and the client sees that a drive is missing. */
	for (unsigned i = 0; i < MKV_FRONT_DRIVES_MAX; i++)
		if (r->f->drive[i].up && mkv_drive_serves(&r->f->drive[i]))
			r->u.misc.todo |= 1ull << i;
	return (0);
}

static void
info_on_dop(struct mkv_req *r, struct mkv_dop *d, const struct mkv_drv_rep *rep, int status)
{
	struct mkv_misc *u = &r->u.misc;

	(void)d;
	if (r->ending || rep == NULL || status != 0)
		return;
	u->total_bytes += rep->total_bytes;
	u->used_bytes += rep->used_bytes;
	u->objects += rep->objects;
	u->online++;
}

static void
info_answer(struct mkv_req *r)
{
	const struct mkv_front *f = r->f;
	struct mkv_wire_info w = {
		.total_bytes = r->u.misc.total_bytes, .used_bytes = r->u.misc.used_bytes, .objects = r->u.misc.objects,
		.map_version = f->map_version, .uptime_ms = (mkv_now_ns() - f->start_ns) / MKV_NS_PER_MS,
		.drives_total = f->route_all.n, .drives_online = r->u.misc.online, .part_bytes = f->conf.part_bytes,
	};

	memcpy(w.server_id, f->conf.server_id, sizeof(w.server_id));
	snprintf(w.version, sizeof(w.version), "%s", PACKAGE_VERSION);
	mkv_req_end(r, 0, MKV_REASON_NONE, &w, sizeof(w));
}

static enum mkv_next
info_step(struct mkv_req *r)
{
	struct mkv_misc *u = &r->u.misc;

	while (u->todo != 0) {
		struct mkv_dop *d = mkv_dop_take(r->f, r);

		if (d == NULL)
			return (MKV_NEXT_PARK);
		(void)mkv_dop_req(r->f, d);
		mkv_dop_push(r->f, d, __builtin_ctzll(u->todo), MKV_DRV_INFO);
		u->todo &= u->todo - 1;
	}
	if (r->n_dops != 0)
		return (MKV_NEXT_PARK);
	info_answer(r);
	return (MKV_NEXT_AGAIN);
}

/* ---- PING, CANCEL ---------------------------------------------------------------------------------------------------------- */

static enum mkv_next
ping_step(struct mkv_req *r)
{
	mkv_req_end(r, 0, MKV_REASON_NONE, NULL, 0);
	return (MKV_NEXT_AGAIN);
}

static int
cancel_start(struct mkv_req *r, const struct mkv_hdr *h, const uint8_t *body)
{
	const struct mkv_wire_cancel *w = (const struct mkv_wire_cancel *)(const void *)body;

	if (h->body_bytes != sizeof(*w))
		return (MKV_E_PROTO);
	r->u.misc.cursor = w->request_id;
	return (0);
}

/* What can be stopped is stopped and answered CANCELLED; what is on its way out goes on. Then the CANCEL is answered. */
static enum mkv_next
cancel_step(struct mkv_req *r)
{
	struct mkv_req *o = mkv_req_find(r->f, r->c, r->u.misc.cursor);

	if (o != NULL && o != r && !o->ending) {
		mkv_req_end(o, MKV_E_CANCELLED, MKV_REASON_NONE, NULL, 0);
		mkv_req_run(o);
	}
	if (o == NULL)
		mkv_chan_cancelled(r, r->u.misc.cursor);
	mkv_req_end(r, 0, MKV_REASON_NONE, NULL, 0);
	return (MKV_NEXT_AGAIN);
}

static void
nothing_on_dop(struct mkv_req *r, struct mkv_dop *d, const struct mkv_drv_rep *rep, int status)
{
	(void)d;
	(void)rep;
	(void)status;
	MKV_ASSERT(r == NULL);		/* asks no drive */
}

const struct mkv_req_ops mkv_stat_ops = { .op = MKV_WIRE_STAT, .start = stat_start, .step = stat_step, .on_dop = stat_on_dop };
const struct mkv_req_ops mkv_list_ops = {
	.op = MKV_WIRE_LIST, .start = list_start, .step = list_step, .on_dop = list_on_dop, .undo = list_undo,
};
const struct mkv_req_ops mkv_info_ops = { .op = MKV_WIRE_INFO, .start = info_start, .step = info_step, .on_dop = info_on_dop };
const struct mkv_req_ops mkv_ping_ops = { .op = MKV_WIRE_PING, .start = nothing_start, .step = ping_step, .on_dop = nothing_on_dop };
const struct mkv_req_ops mkv_cancel_ops = { .op = MKV_WIRE_CANCEL, .start = cancel_start, .step = cancel_step, .on_dop = nothing_on_dop };
