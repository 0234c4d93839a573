/*
 * memkv-front, loop thread: one part of a value on its way through: its stage buffers or arena runs, its slot at a drive, its reply. Buffers are FRONT's
 * in every state but PART_DRIVE (and PART_RESERVE, which has none).
 */
#include "config.h"

#include "worker/front/front_priv.h"

#include <string.h>

#include "common/base/assert.h"
#include "common/base/crc.h"
#include "common/base/err.h"

void
mkv_part_init(struct mkv_req *r, struct mkv_part *p, uint32_t no, uint32_t bytes)
{
	MKV_ASSERT(p->state == PART_FREE);
	memset(p, 0, offsetof(struct mkv_part, out));
	mkv_list_init(&p->x.link);
	memset(&p->out, 0, offsetof(struct mkv_out, pay));
	p->req = r;
	p->no = no;
	p->bytes = bytes;
	p->out.owner = p;
	p->out.done = mkv_part_sent;
}

/* ---- Buffers --------------------------------------------------------------------------------------------------------------- */

/* One run, by the order of the queue; the caller parks. */
static int
buf_try(struct mkv_req *r, uint32_t bytes, struct mkv_buf *b)
{
	if (!mkv_park_turn(&r->f->park_bufs, r))
		return (MKV_E_AGAIN);
	return (mkv_buf_take(r->f->stage, bytes, b));
}

int
mkv_buf_take_parked(struct mkv_req *r, uint32_t bytes, struct mkv_buf *b)
{
	if (bytes > mkv_stage_chunk_bytes(r->f->stage))
		return (MKV_E_TOOBIG);
	if (buf_try(r, bytes, b) != 0) {
		mkv_park(r->f, &r->f->park_bufs, r);
		return (MKV_E_AGAIN);
	}
	if (r->parked == &r->f->park_bufs)
		mkv_unpark(r->f, r);
	return (0);
}

void
mkv_buf_back(struct mkv_req *r, struct mkv_buf *b)
{
	if (b->unit_count == 0)
		return;
	mkv_buf_drop(r->f->stage, b);
	r->f->park_bufs.wake = 1;
}

void
mkv_part_drop_bufs(struct mkv_req *r, struct mkv_part *p)
{
	while (p->n_buf != 0)
		mkv_buf_back(r, &p->buf[--p->n_buf]);
}

int
mkv_part_bufs(struct mkv_req *r, struct mkv_part *p, uint32_t bytes)
{
	uint32_t piece = mkv_stage_chunk_bytes(r->f->stage), left = bytes;

	MKV_ASSERT(p->n_buf == 0);
	/* Small values share chunks: where no whole one is free, shorter runs do, as many as one request may name. */
	while (left != 0) {
		uint32_t want = MKV_MIN(piece, left);

		if (p->n_buf < MKV_DRV_BUFS_MAX && buf_try(r, want, &p->buf[p->n_buf]) == 0) {
			p->n_buf++;
			left -= want;
			continue;
		}
		if (piece > MKV_STAGE_UNIT && p->n_buf < MKV_DRV_BUFS_MAX && mkv_park_turn(&r->f->park_bufs, r)) {
			piece /= 2;
			continue;
		}
		while (p->n_buf != 0)
			mkv_buf_drop(r->f->stage, &p->buf[--p->n_buf]);
		mkv_park(r->f, &r->f->park_bufs, r);
		return (MKV_E_AGAIN);
	}
	if (r->parked == &r->f->park_bufs)
		mkv_unpark(r->f, r);
	return (0);
}

/* ---- Where bytes lie ------------------------------------------------------------------------------------------------------- */

int
mkv_part_runs(const struct mkv_req *r, struct mkv_part *p, const struct mkv_drv_run *runs, unsigned n, uint64_t bytes)
{
	const struct mkv_drive *v = &r->f->drive[p->drive];
	uint64_t sum = 0;

	if (v->arena == NULL)
		return (MKV_E_PEER);
	for (unsigned i = 0; i < n; i++) {
		const struct mkv_drv_run *run = &runs[i];

		if (run->bytes == 0 || run->bytes > MKV_EXTENT_MAX + 2 * MKV_CRC_CHUNK || run->off > v->arena_bytes ||
		    run->bytes > v->arena_bytes - run->off)
			return (MKV_E_PEER);
		p->run[i] = *run;
		sum += run->bytes;
	}
	p->n_run = n;
	return (sum >= bytes ? 0 : MKV_E_PEER);
}

int
mkv_part_seg(const struct mkv_req *r, const struct mkv_part *p, uint32_t pos, uint8_t **ptr, uint32_t *len)
{
	uint64_t at = pos;

	for (unsigned i = 0; i < p->n_run; at -= p->run[i++].bytes)
		if (at < p->run[i].bytes) {
			*ptr = r->f->drive[p->drive].arena + p->run[i].off + at;
			*len = (uint32_t)(p->run[i].bytes - at);
			return (0);
		}
	for (unsigned i = 0; i < p->n_buf; at -= mkv_buf_bytes(p->buf[i++]))
		if (at < mkv_buf_bytes(p->buf[i])) {
			*ptr = (uint8_t *)mkv_buf_ptr(r->f->stage, p->buf[i]) + at;
			*len = mkv_buf_bytes(p->buf[i]) - (uint32_t)at;
			return (0);
		}
	return (MKV_E_INVAL);
}

static void
part_crc_done(struct mkv_part *p, uint32_t idx, uint32_t crc)
{
	MKV_ASSERT(idx < p->n_crcs);
	if (p->crc_make)
		p->crc[idx] = crc;
	else if (p->crc[idx] != crc)
		p->crc_bad = 1;
}

void
mkv_part_crc_add(struct mkv_part *p, const uint8_t *at, uint32_t bytes)
{
	MKV_ASSERT(bytes <= p->bytes - p->crc_pos);
	for (uint32_t n; bytes != 0; at += n, bytes -= n) {
		n = MKV_MIN(bytes, MKV_CRC_CHUNK - p->crc_pos % MKV_CRC_CHUNK);
		p->crc_run = mkv_crc32c(p->crc_run, at, n);
		p->crc_pos += n;
		if (p->crc_pos % MKV_CRC_CHUNK != 0 && p->crc_pos != p->bytes)
			continue;
		part_crc_done(p, (p->crc_pos - 1) / MKV_CRC_CHUNK, p->crc_run);
		p->crc_run = 0;
	}
}

/* ---- To a drive ------------------------------------------------------------------------------------------------------------ */

/* The rest of the request is filled in; p has its dop. */
void
mkv_part_push(struct mkv_req *r, struct mkv_part *p, int drive, unsigned op)
{
	struct mkv_dop *d = p->dop;
	struct mkv_drv_req *q = mkv_stage_slot(r->f->stage, (uint32_t)(d - r->f->dops));
	uint32_t left = op == MKV_DRV_GET ? UINT32_MAX : p->region != NULL ? p->bytes % 4096 : p->bytes;
	unsigned n = 0;

	d->part = p;
	d->n_buf = p->n_buf;
	if (p->region != NULL) {
		q->flags |= MKV_DRV_F_DIRECT;
		q->bufs[n++] = (struct mkv_drv_buf){ .off = p->region_off, .bytes = p->bytes / 4096 * 4096, .region = p->region->id };
	}
	for (unsigned i = 0; i < p->n_buf; i++) {
		uint32_t room = mkv_buf_bytes(p->buf[i]);

		d->buf[i] = p->buf[i];
		q->bufs[n].off = mkv_buf_off(r->f->stage, p->buf[i]);
		q->bufs[n++].bytes = MKV_MIN(room, left);
		left -= MKV_MIN(room, left);
	}
	q->n_bufs = (uint16_t)n;
	p->state = op == MKV_DRV_RESERVE ? PART_RESERVE : PART_DRIVE;
	if (drive >= 0)
		p->drive = (uint8_t)drive;
	mkv_dop_push(r->f, d, drive, op);
}

/* ---- Back ------------------------------------------------------------------------------------------------------------------ */

static int
part_release(struct mkv_req *r, struct mkv_part *p)
{
	if (!p->has_hold)
		return (1);
	if (mkv_hold_release(r->f, p->drive, p->epoch, p->hold, 0) == MKV_E_AGAIN) {
		if (mkv_list_empty(&r->hold_link))
			mkv_list_push_tail(&r->f->hold_wait, &r->hold_link);
		return (0);
	}
	p->has_hold = 0;
	return (1);
}

/* A reserved run that will not be committed: the slot of the reservation carries its end. 1: nothing to do. */
static int
part_abort(struct mkv_req *r, struct mkv_part *p)
{
	struct mkv_drv_req *q;

	if (!p->has_txn)
		return (1);
	p->has_txn = 0;
	if (!r->f->drive[p->drive].up || r->f->drive[p->drive].epoch != p->epoch)
		return (1);		/* a new process knows nothing of it */
	p->n_run = 0;
	q = mkv_dop_req(r->f, p->dop);
	q->txn = p->txn;
	q->deadline_ns = UINT64_MAX;
	mkv_part_push(r, p, p->drive, MKV_DRV_ABORT);
	return (0);
}

int
mkv_part_clear(struct mkv_req *r, struct mkv_part *p)
{
	switch ((enum mkv_part_state)p->state) {
	case PART_FREE:
		return (1);
	case PART_RECV:
	case PART_DRIVE:
		return (0);
	case PART_RESERVE:
		if (r->c != NULL && r->c->rx_part == p)
			mkv_conn_discard(r->c);
		return (0);
	case PART_WAIT:
		if (p->lost)
			return (0);
		if (r->c != NULL && r->c->rx_part == p)
			mkv_conn_discard(r->c);
		break;
	case PART_SEND:
		if (p->out.busy)
			return (0);
		break;
	case PART_FULL:
		break;
	}
	if (!part_release(r, p) || !part_abort(r, p))
		return (0);
	if (p->dop != NULL) {
		mkv_dop_drop(r->f, p->dop);
		p->dop = NULL;
	}
	mkv_lend_back(r->f, p);
	mkv_part_drop_bufs(r, p);
	mkv_chan_part_done(p);
	p->state = PART_FREE;
	if (r->c != NULL)
		mkv_conn_kick(r->c);
	return (1);
}

void
mkv_part_sent(struct mkv_out *o, int res)
{
	struct mkv_part *p = o->owner;
	struct mkv_req *r = p->req;

	MKV_ASSERT(p->state == PART_SEND);
	if (res == 0)
		mkv_metric_add(r->f->m, MKV_M_front_sent_bytes_total, 0, o->pay_bytes);
	(void)mkv_part_clear(r, p);
	mkv_req_run(r);
}

/* Does it receive into the drive's arena, or send from it? */
static int
part_uses_arena(const struct mkv_conn *c, unsigned drive)
{
	if (c->rx_part != NULL && c->rx_part->state == PART_RECV && c->rx_part->drive == drive)
		return (1);
	MKV_LIST_FOREACH(it, &c->reqs) {
		const struct mkv_req *r = MKV_CONTAINER_OF(it, struct mkv_req, link);

		for (unsigned i = 0; i < REQ_PARTS; i++) {
			const struct mkv_part *p = &r->part[i];

			if (p->drive == drive && ((p->state == PART_SEND && p->has_hold) || (p->state == PART_RECV && p->n_run != 0)))
				return (1);
		}
	}
	return (0);
}

void
mkv_front_arena_lost(struct mkv_front *f, unsigned drive)
{
	if (!f->conf.memory_mode)
		return;
	/*
	 * The next drive process knows no hold of this one and may give the same run to another front at once. A recv ends at once when it is cancelled, and
	 * only the end of the connection is sure to stop it between two pieces; bytes on their way to a client must not change behind their CRCs.
	 */
	MKV_LIST_FOREACH_SAFE(it, tmp, &f->conn_used) {
		struct mkv_conn *c = MKV_CONTAINER_OF(it, struct mkv_conn, link);

		if (part_uses_arena(c, drive))
			mkv_conn_close(c);
	}
}
