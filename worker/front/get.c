/*
 * memkv-front, loop thread: GET. The first request goes to the home drive with buffers for what one part can hold; its answer has the bytes, or the
 * manifest of a value in pieces. Those are then read from their drives, REQ_PARTS at a time, and leave in order, each as a part with MORE but the last.
 * Memory mode: the drive's answer names runs of its arena and a hold; they are sent from there and released when they have left.
 * The hold on a manifest, which keeps its pieces whatever becomes of the key, is the request's and ends with it.
 *
 *   part: WAIT -> DRIVE -> FULL -> SEND -> free
 *
 * What fails: a miss (with its reason), a drive's death (asked again, nothing was given away), a piece that is not where it should be (the next
 * drive of the stripe, then a miss, as a last part when others have left already).
 */
#include "config.h"

#include "worker/front/front_priv.h"

#include <string.h>

#include "common/base/assert.h"
#include "common/base/crc.h"
#include "common/base/err.h"

static int
get_start(struct mkv_req *r, const struct mkv_hdr *h, const uint8_t *body)
{
	const struct mkv_wire_get *w;
	int e;

	if ((e = mkv_req_take_get(r, h, body, &w)) != 0)
		return (e);
	r->u.get.off = w->off;
	r->u.get.len = w->len;
	r->u.get.flags = w->flags;
	if (r->channel != 0) {
		r->remote = *r->c->remote;
		r->c->remote->rx = NULL;
		r->c->remote->msg = NULL;
		r->u.get.len = MKV_MIN(w->len, r->remote.bytes);
	}
	if (r->by_region)
		r->u.get.len = MKV_MIN(w->len, r->seg_bytes);
	if (w->off > MKV_WIRE_VALUE_MAX)
		return (MKV_E_INVAL);
	return (0);
}

void
mkv_get_miss(struct mkv_req *r, unsigned reason)
{
	mkv_req_end(r, MKV_E_MISS, (unsigned)mkv_route_reason(r->f, r->digest, (int)reason), NULL, 0);
}

/* ---- Asking ---------------------------------------------------------------------------------------------------------------- */

/* Room for [off, off + len): the drive reads whole chunks, so that it can check the edges. */
static uint32_t
get_room(uint64_t off, uint64_t len)
{
	return ((uint32_t)(MKV_ALIGN_UP(off + len, MKV_CRC_CHUNK) - off / MKV_CRC_CHUNK * MKV_CRC_CHUNK));
}

/* The drive that mkv_get_aim() will say. */
static int
get_drive(struct mkv_req *r, const struct mkv_part *p)
{
	const struct mkv_get *u = &r->u.get;

	return (u->multi ? mkv_route_piece_drive(r->f, mkv_piece_digest(r->f->piece_secret, u->set, p->no), u->stripe, u->n_stripe, p->try_no) : mkv_route_read(r));
}

/*
 * Where its bytes go: straight into the client's region, with a buffer for what is no whole block, or into buffers. 0; MKV_E_AGAIN: parked, or the memory is with a drive
 * that died.
 */
static int
get_memory(struct mkv_req *r, struct mkv_part *p)
{
	int drive;

	if (r->f->conf.memory_mode || p->bytes == 0)
		return (0);
	if (p->lost) {
		mkv_unpark(r->f, r);		/* what it waits for is in no queue, and others do */
		return (MKV_E_AGAIN);
	}
	drive = r->by_region ? get_drive(r, p) : -1;
	if (p->region != NULL && (drive < 0 || !mkv_lend_at(p->region, (unsigned)drive))) {
		mkv_lend_back(r->f, p);		/* the drive that it was for is not to be asked any more */
		mkv_part_drop_bufs(r, p);
	}
	if (p->n_buf != 0)
		return (0);
	if (p->region == NULL)
		(void)mkv_lend_take(r, p, drive);
	return (mkv_part_bufs(r, p, p->region != NULL ? 4096 : get_room(p->off, p->bytes)));
}

/* Whose object part p is, in q, and the drive to be asked; -1: none is in service. */
int
mkv_get_aim(struct mkv_req *r, const struct mkv_part *p, struct mkv_drv_req *q)
{
	const struct mkv_get *u = &r->u.get;

	if (!u->multi) {
		mkv_req_fill(r, q);
		return (mkv_route_read(r));
	}
	q->flags |= MKV_DRV_F_PIECE;
	q->set = u->set;
	q->piece_no = p->no;
	q->piece_bytes = u->piece_bytes;
	q->digest = mkv_piece_digest(r->f->piece_secret, u->set, p->no);
	return (mkv_route_piece_drive(r->f, q->digest, u->stripe, u->n_stripe, p->try_no));
}

/* p->off, p->bytes say what is wanted of its object. 1: pushed; 0: parked; -1: ended. */
static int
get_push(struct mkv_req *r, struct mkv_part *p)
{
	struct mkv_get *u = &r->u.get;
	struct mkv_drv_req *q;
	int drive;

	if (get_memory(r, p) != 0)
		return (0);
	if (p->dop == NULL && (p->dop = mkv_dop_take(r->f, r)) == NULL)
		return (0);
	q = mkv_dop_req(r->f, p->dop);
	q->off = p->off;
	q->len = p->bytes;
	q->flags = u->flags & MKV_WIRE_LIST_NO_TOUCH ? MKV_DRV_F_NO_TOUCH : 0;
	if ((drive = mkv_get_aim(r, p, q)) < 0) {
		mkv_get_miss(r, MKV_REASON_DRIVE_OFFLINE);
		return (-1);
	}
	mkv_part_push(r, p, drive, p->bytes != 0 ? MKV_DRV_GET : MKV_DRV_STAT);
	return (1);
}

/* ---- Answers --------------------------------------------------------------------------------------------------------------- */

/* What the drive says it delivered, against what was asked for and where it can lie. */
static int
get_rep_ok(struct mkv_req *r, struct mkv_part *p, const struct mkv_drv_rep *rep)
{
	uint64_t have = 0, first = p->off / MKV_CRC_CHUNK, chunks;

	if (rep->off != p->off || rep->len > p->bytes || rep->value_bytes > MKV_WIRE_VALUE_MAX)
		return (0);
	if (rep->len == 0)
		return (p->off >= rep->value_bytes || p->bytes == 0);
	if (rep->len != MKV_MIN((uint64_t)p->bytes, rep->value_bytes - MKV_MIN(p->off, rep->value_bytes)))
		return (0);
	chunks = (p->off + rep->len + MKV_CRC_CHUNK - 1) / MKV_CRC_CHUNK - first;
	if (rep->n_crcs != chunks)
		return (0);
	if (r->f->conf.memory_mode)
		return (mkv_part_runs(r, p, rep->runs, rep->n_runs, (uint64_t)rep->skip + rep->len) == 0);
	if (p->direct)
		return (rep->skip == 0);
	for (unsigned i = 0; i < p->n_buf; i++)
		have += mkv_buf_bytes(p->buf[i]);
	return ((uint64_t)rep->skip + rep->len <= have);
}

static int
get_manifest_ok(const struct mkv_drv_rep *rep)
{
	if (rep->piece_bytes < MKV_EXTENT_MIN || rep->piece_bytes > MKV_EXTENT_MAX || (rep->piece_bytes & (rep->piece_bytes - 1)) != 0)
		return (0);
	if (rep->value_bytes > MKV_WIRE_VALUE_MAX || rep->n_stripe == 0)
		return (0);
	return (rep->piece_count >= MKV_DIV_UP(rep->value_bytes, rep->piece_bytes));
}

static void
get_know(struct mkv_get *u, const struct mkv_drv_rep *rep)
{
	uint64_t room = rep->value_bytes - MKV_MIN(u->off, rep->value_bytes);

	u->known = 1;
	u->value_bytes = rep->value_bytes;
	u->put_wall_ms = rep->put_wall_ms;
	u->expires_wall_ms = rep->expires_wall_ms;
	u->put_id = rep->put_id;
	u->end = u->off + MKV_MIN(u->len, room);
	if (rep->flags & MKV_DRV_F_PIN)
		u->obj_flags |= MKV_WIRE_PUT_PIN;
}

/* The value lies in pieces: from here on each part is one of them. */
void
mkv_get_on_manifest(struct mkv_req *r, struct mkv_part *p, const struct mkv_drv_rep *rep)
{
	struct mkv_get *u = &r->u.get;

	if (!get_manifest_ok(rep)) {
		mkv_req_end(r, MKV_E_PEER, MKV_REASON_NONE, NULL, 0);
		return;
	}
	get_know(u, rep);
	u->multi = 1;
	u->has_hold = p->has_hold;
	u->home = p->drive;
	u->epoch = p->epoch;
	u->hold = p->hold;
	p->has_hold = 0;
	u->piece_bytes = rep->piece_bytes;
	u->set = rep->set;
	u->n_stripe = rep->n_stripe;
	memcpy(u->stripe, rep->stripe, rep->n_stripe);
	u->next_no = u->emit_no = u->off / u->piece_bytes;
	u->last_no = u->end > u->off ? (u->end - 1) / u->piece_bytes : u->next_no;
	p->drop = 1;			/* the buffers of the look-up */
	if (u->end == u->off)
		u->nothing = 1;
}

/* One of the drives had the piece and knows why it is gone: that the others never had it says nothing. */
static void
get_why(struct mkv_get *u, const struct mkv_drv_rep *rep)
{
	if (rep != NULL && (u->why == MKV_REASON_NONE || u->why == MKV_REASON_NEVER))
		u->why = rep->reason;
}

void
mkv_get_on_failure(struct mkv_req *r, struct mkv_part *p, const struct mkv_drv_rep *rep, int status)
{
	struct mkv_get *u = &r->u.get;

	if (rep == NULL && mkv_req_again(r, status)) {
		p->state = PART_WAIT;
		return;
	}
	if (status != MKV_E_MISS) {
		mkv_req_end(r, status, rep != NULL ? rep->reason : MKV_REASON_NONE, NULL, 0);
		return;
	}
	if (u->multi) {
		get_why(u, rep);
		if (++p->try_no < u->n_stripe && mkv_route_piece_drive(r->f, mkv_piece_digest(r->f->piece_secret, u->set, p->no), u->stripe,
		    u->n_stripe, p->try_no) >= 0) {
			p->state = PART_WAIT;
			return;
		}
		u->not_whole = 1;
		mkv_get_miss(r, u->why);
		return;
	}
	if (mkv_route_read_next(r))
		p->state = PART_WAIT;
	else
		mkv_get_miss(r, rep != NULL ? rep->reason : MKV_REASON_NONE);
}

void
mkv_get_on_hold(struct mkv_part *p, const struct mkv_dop *d, const struct mkv_drv_rep *rep, int status)
{
	if (rep == NULL || status != 0 || rep->hold == 0)
		return;
	p->has_hold = 1;
	p->hold = rep->hold;
	p->epoch = d->epoch;
}

/*
 * Of a part that went straight to a region: the drive is done there, but for one that died with it. What there is in buffers is for a last block only. 1: the drive does not do
 * it that way; it is asked again for another.
 */
static int
get_back(struct mkv_req *r, struct mkv_part *p, int status)
{
	p->direct = p->region != NULL && status == 0;
	if (p->region == NULL)
		return (0);
	if (!p->lost)
		mkv_lend_back(r->f, p);
	if (status != 0)
		mkv_part_drop_bufs(r, p);
	p->staged |= status == MKV_E_UNSUPPORTED;
	return (status == MKV_E_UNSUPPORTED);
}

static void
get_on_dop(struct mkv_req *r, struct mkv_dop *d, const struct mkv_drv_rep *rep, int status)
{
	struct mkv_get *u = &r->u.get;
	struct mkv_part *p = d->part;
	int again = get_back(r, p, status);

	/* Lost memory is waited for as one waits for a buffer. */
	p->state = p->lost ? PART_WAIT : PART_FULL;
	mkv_get_on_hold(p, d, rep, status);
	if (r->ending)
		return;
	if (again) {
		p->state = PART_WAIT;
		return;
	}
	if (status != 0) {
		mkv_get_on_failure(r, p, rep, status);
		return;
	}
	if (!u->multi && d->op == MKV_DRV_GET && (rep->flags & MKV_DRV_F_MANIFEST) != 0) {
		mkv_get_on_manifest(r, p, rep);
		return;
	}
	if ((d->op == MKV_DRV_GET && !get_rep_ok(r, p, rep)) || (u->multi && rep->len != p->bytes)) {
		mkv_req_end(r, MKV_E_PEER, MKV_REASON_NONE, NULL, 0);
		return;
	}
	if (!u->multi) {
		get_know(u, rep);
		u->end = u->off + (d->op == MKV_DRV_GET ? rep->len : 0);
	}
	p->bytes = d->op == MKV_DRV_GET ? (uint32_t)rep->len : 0;
	p->skip = rep->skip;
	p->n_crcs = p->bytes != 0 ? rep->n_crcs : 0;
	memcpy(p->crc, rep->crcs, p->n_crcs * sizeof(p->crc[0]));
}

/* ---- Sending --------------------------------------------------------------------------------------------------------------- */

/* Its whole blocks are where they belong: of pay[] only what is behind them will be looked at. */
static void
get_payload_rest(const struct mkv_req *r, struct mkv_part *p, uint32_t rest)
{
	struct mkv_out *o = &p->out;

	o->pay[0] = (struct iovec){ .iov_base = NULL, .iov_len = p->bytes - rest };
	o->pay[1] = (struct iovec){ .iov_base = mkv_buf_ptr(r->f->stage, p->buf[0]), .iov_len = rest };
	o->n_pay = 2;
	mkv_metric_add(r->f->m, MKV_M_front_region_direct_get_bytes_total, 0, p->bytes - rest);
}

static void
get_payload(const struct mkv_req *r, struct mkv_part *p)
{
	struct mkv_out *o = &p->out;
	uint32_t pos = p->skip, left = p->bytes;

	o->n_pay = 0;
	o->pay_bytes = p->bytes;
	if (p->direct) {
		get_payload_rest(r, p, left % 4096);
		return;
	}
	while (left != 0) {
		uint32_t room;
		uint8_t *at;

		MKV_ASSERT(o->n_pay < MKV_ARRAY_LEN(o->pay) && mkv_part_seg(r, p, pos, &at, &room) == 0);
		room = MKV_MIN(room, left);
		o->pay[o->n_pay].iov_base = at;
		o->pay[o->n_pay++].iov_len = room;
		pos += room;
		left -= room;
	}
}

static void
get_send(struct mkv_req *r, struct mkv_part *p, int last)
{
	const struct mkv_get *u = &r->u.get;
	struct mkv_wire_object *o = (struct mkv_wire_object *)(void *)p->body;
	uint32_t body_bytes = (uint32_t)MKV_ALIGN_UP(sizeof(*o) + 4 * p->n_crcs, 8);

	memset(p->body, 0, body_bytes);
	o->value_bytes = u->value_bytes;
	o->off = u->multi ? (uint64_t)p->no * u->piece_bytes + p->off : u->off;
	o->put_wall_ms = u->put_wall_ms;
	o->expires_wall_ms = u->expires_wall_ms;
	o->put_id = u->put_id;
	o->flags = u->obj_flags;
	o->n_crcs = p->n_crcs;
	memcpy(o + 1, p->crc, 4 * p->n_crcs);
	get_payload(r, p);
	if (r->by_region && p->bytes != 0) {
		p->out.place = r->seg;
		p->out.place_left = p->direct ? p->bytes % 4096 : p->bytes;
		p->out.place_at = o->off - u->off + p->bytes - p->out.place_left;
	}
	p->state = PART_SEND;
	mkv_req_reply(r, &p->out, last ? 0 : MKV_WIRE_F_MORE, 0, MKV_REASON_NONE, p->body, body_bytes);
	if (last) {
		mkv_metric_add(r->f->m, MKV_M_front_get_total, 0, 1);
		mkv_metric_add(r->f->m, MKV_M_front_hits_total, r->op, 1);
		/* By a channel the data is only queued: until its last piece is posted the request can be cancelled, or time out. */
		if (r->channel == 0 || p->bytes == 0)
			mkv_req_end_sent(r);
	}
}

/* ---- Steps ----------------------------------------------------------------------------------------------------------------- */

static enum mkv_next
get_step_one(struct mkv_req *r)
{
	struct mkv_get *u = &r->u.get;
	struct mkv_part *p = &r->part[0];
	uint32_t part_bytes = r->f->conf.part_bytes;

	if (p->state == PART_FREE) {
		mkv_part_init(r, p, 0, (uint32_t)MKV_MIN(u->len, part_bytes - u->off % part_bytes));
		p->off = u->off;
		p->state = PART_WAIT;
	}
	if (p->state == PART_WAIT)
		return (get_push(r, p) < 0 ? MKV_NEXT_AGAIN : MKV_NEXT_PARK);
	if (p->state == PART_FULL) {
		get_send(r, p, 1);
		return (MKV_NEXT_AGAIN);
	}
	return (MKV_NEXT_PARK);
}

/* The piece that a free part takes next. */
void
mkv_get_next_piece(struct mkv_req *r, struct mkv_part *p)
{
	struct mkv_get *u = &r->u.get;
	uint64_t begin = u->next_no * u->piece_bytes, from = MKV_MAX(begin, u->off), to = MKV_MIN(begin + u->piece_bytes, u->end);

	mkv_part_init(r, p, (uint32_t)u->next_no, (uint32_t)(to - from));
	p->off = from - begin;
	p->state = PART_WAIT;
	u->next_no++;
}

/* Memory mode: a piece that waits for its turn with a drive that has died since. The next process may have given its memory to another value: it is asked for again. */
static void
get_forget_lost(struct mkv_req *r)
{
	for (unsigned i = 0; i < REQ_PARTS; i++) {
		struct mkv_part *p = &r->part[i];
		const struct mkv_drive *v = &r->f->drive[p->drive];

		if (p->state != PART_FULL || !p->has_hold || (v->up && v->epoch == p->epoch))
			continue;
		p->has_hold = 0;
		p->n_run = 0;
		p->state = PART_WAIT;
	}
}

static struct mkv_part *
get_part_no(struct mkv_req *r, uint64_t no)
{
	for (unsigned i = 0; i < REQ_PARTS; i++)
		if (r->part[i].state == PART_FULL && r->part[i].no == no)
			return (&r->part[i]);
	return (NULL);
}

/* A range of no bytes of a value in pieces. */
static enum mkv_next
get_send_nothing(struct mkv_req *r, struct mkv_part *p)
{
	mkv_part_init(r, p, (uint32_t)r->u.get.next_no, 0);
	p->off = r->u.get.off % r->u.get.piece_bytes;
	get_send(r, p, 1);
	return (MKV_NEXT_AGAIN);
}

/*
 * What is asked for next: of the pieces that wait, the first; then the next one, if a part is free for it. Always in this order: a request that held
 * later pieces while it waits for memory for the one that leaves first would keep from others what they wait for, and they from it.
 */
static struct mkv_part *
get_part_to_ask(struct mkv_req *r)
{
	struct mkv_part *wait = NULL, *unused = NULL;

	for (unsigned i = 0; i < REQ_PARTS; i++) {
		struct mkv_part *p = &r->part[i];

		if (p->state == PART_WAIT && (wait == NULL || p->no < wait->no))
			wait = p;
		if (p->state == PART_FREE)
			unused = p;
	}
	if (wait != NULL || unused == NULL || r->u.get.next_no > r->u.get.last_no)
		return (wait);
	mkv_get_next_piece(r, unused);
	return (unused);
}

/* The piece that leaves next has no memory (a drive died with it): those behind it that are here give theirs, and are read again. */
static void
get_give_way(struct mkv_req *r, const struct mkv_part *first)
{
	if ((r->parked != &r->f->park_bufs && !first->lost) || first->no != r->u.get.emit_no)
		return;
	for (unsigned i = 0; i < REQ_PARTS; i++)
		if (r->part[i].state == PART_FULL) {
			mkv_part_drop_bufs(r, &r->part[i]);
			r->part[i].state = PART_WAIT;
		}
}

static enum mkv_next
get_step_multi(struct mkv_req *r)
{
	struct mkv_get *u = &r->u.get;
	struct mkv_part *p;

	if (r->part[0].drop && !mkv_part_clear(r, &r->part[0]))
		return (MKV_NEXT_PARK);
	r->part[0].drop = 0;
	if (u->nothing)
		return (get_send_nothing(r, &r->part[0]));
	get_forget_lost(r);
	while ((p = get_part_no(r, u->emit_no)) != NULL) {
		get_send(r, p, u->emit_no == u->last_no);
		if (r->ending)
			return (MKV_NEXT_AGAIN);
		u->emit_no++;
	}
	while ((p = get_part_to_ask(r)) != NULL)
		switch (get_push(r, p)) {
		case 0:
			get_give_way(r, p);
			return (MKV_NEXT_PARK);
		case -1:
			return (MKV_NEXT_AGAIN);
		}
	return (MKV_NEXT_PARK);
}

/* The manifest is not needed any more. A full ring: called again when there is room. */
enum mkv_next
mkv_get_undo(struct mkv_req *r)
{
	struct mkv_get *u = &r->u.get;

	if (!u->has_hold)
		return (MKV_NEXT_DONE);
	if (mkv_hold_release(r->f, u->home, u->epoch, u->hold, u->not_whole ? MKV_DRV_RELEASE_SHORT : 0) == MKV_E_AGAIN) {
		if (mkv_list_empty(&r->hold_link))
			mkv_list_push_tail(&r->f->hold_wait, &r->hold_link);
		return (MKV_NEXT_PARK);
	}
	u->has_hold = 0;
	return (MKV_NEXT_DONE);
}

static enum mkv_next
get_step(struct mkv_req *r)
{
	return (r->u.get.multi ? get_step_multi(r) : get_step_one(r));
}

const struct mkv_req_ops mkv_get_ops = {
	.op = MKV_WIRE_GET,
	.start = get_start,
	.step = get_step,
	.on_dop = get_on_dop,
	.undo = mkv_get_undo,
};
