/*
 * GET and VERIFY. Drive's loop thread. The entry is held from lookup to the end, so its units and its page stay what they are.
 *
 *   GET: START -> LOOKUP (page; where the range allows it the data is read at the same time) -> IO -> edges checked -> answer
 *
 * Whole chunks are not touched here: their stored CRCs go with the answer and the reader checks. A range that begins or ends inside a chunk is
 * read with the whole chunk; the chunk is checked, then the CRC of its delivered part is made. VERIFY reads the chunks that its range touches and decides.
 * A mismatch is read once more; then the object leaves (obj_corrupt()).
 * Into a region of a client (r->region) nothing is read but whole blocks of what is delivered: so its page comes first, no other request follows it or is followed,
 * and a range that ends inside of a chunk is refused, as its CRC would be made of bytes that the client can change.
 *
 * Clients may ask for VERIFY as often as they like. All of them together have one chunk under way at a time, so they are never more than one read among
 * those of others; VERIFY_MAX wait for that, further ones are BUSY at once, so that they do not take the places of requests that make progress.
 */
#include "config.h"

#include <string.h>

#include "common/base/crc.h"
#include "common/base/err.h"
#include "worker/drive/engine_priv.h"

/* The range of chunks that a get covers, once the record is known. */
struct cover {
	uint64_t	begin, end;		/* chunk boundaries, or the object's end */
};

static struct cover
get_cover(const struct mkv_req *r)
{
	struct cover c;

	c.begin = r->p.off / CHUNK * CHUNK;
	c.end = MKV_MIN(MKV_ALIGN_UP(r->p.off + r->p.len, CHUNK), r->p.value_bytes);
	return (c);
}

static void
get_hold(struct mkv_req *r, uint32_t i)
{
	struct mkv_ent *en = eng_ent(r->e, i);

	r->ent = i;
	MKV_ASSERT(en->holds < MKV_ENT_HOLDS_MAX);
	en->holds++;
	r->units = en->units;
	r->n_runs = mkv_ent_runs(&r->e->ix, en, r->run);
	if (r->q.op == MKV_DRV_GET && (r->q.flags & MKV_DRV_F_NO_TOUCH) == 0)
		ent_hit(r->e, i);
}

void
get_release(struct mkv_req *r)
{
	if (r->ent != MKV_ENT_NIL)
		ent_unhold(r->e, r->ent);
	r->ent = MKV_ENT_NIL;
	r->e->verifies -= (unsigned)r->verifies;
	r->verifies = 0;
}

/* Into the buffers; where another request is just reading the same, from there. */
static void
get_read(struct mkv_req *r, uint64_t pos, uint64_t end)
{
	if (r->region == 0) {
		if (follow_join(r, pos, end))
			return;
		/* First: a read that is late already ends in here, and leads nobody then. */
		follow_lead(r);
	}
	req_xfer(r, 0, pos, end, pos, NULL);
}

/* Whole chunks only, and the page is not in memory: read both at once. How long the object is will be known from the page. */
static void
get_start_both(struct mkv_req *r)
{
	struct mkv_engine *e = r->e;
	uint64_t room = (uint64_t)r->units * e->sb.unit_bytes, end;
	uint32_t page = eng_ent(e, r->ent)->page;

	if (e->o.media->shared || r->n_runs == 0 || r->q.off % CHUNK != 0 || r->q.off >= room || e->pg.frame_of[page] != 0)
		return;
	end = r->q.len > room - r->q.off ? room : r->q.off + r->q.len;
	if (end != room && end % CHUNK != 0)
		return;
	end = MKV_MIN(end, r->q.off + r->room);
	if (end <= r->q.off)
		return;
	r->spec = 1;
	get_read(r, r->q.off, end);
}

static int
verify_may(struct mkv_req *r)
{
	if (r->e->verifies >= VERIFY_MAX) {
		ENG_COUNT(r->e, reports_busy_total, 1);
		return (0);
	}
	ENG_COUNT(r->e, reports_total, 1);
	r->e->verifies++;
	r->verifies = 1;
	return (1);
}

static enum mkv_next
get_start(struct mkv_req *r)
{
	unsigned reason;
	uint32_t i = req_find(r, &reason);

	if (r->q.op == MKV_DRV_GET)
		ENG_COUNT(r->e, gets_total, 1);
	if (i == MKV_ENT_NIL)
		return (req_finish(r, MKV_E_MISS, reason));
	if (r->q.op == MKV_DRV_VERIFY && !verify_may(r))
		return (req_finish(r, MKV_E_BUSY, MKV_REASON_NONE));
	get_hold(r, i);
	r->state = RQ_LOOKUP;
	if (r->q.op == MKV_DRV_GET && r->region == 0)
		get_start_both(r);
	return (MKV_NEXT_AGAIN);
}

static int
get_moving(const struct mkv_req *r)
{
	return (r->x.in_flight > 0 || r->x.pos < r->x.end);
}

/* Its record, or the chunk at `at`. */
static enum mkv_next
get_corrupt(struct mkv_req *r, uint64_t at)
{
	struct obj_blame b = { .data = r->state != RQ_LOOKUP, .put_id = r->p.put_id, .set = r->p.set };
	unsigned reason;
	uint64_t left;

	if (b.data) {
		b.off = req_phys(r->e, r->run, r->n_runs, at, &left);
		b.bytes = CHUNK;
	}
	reason = obj_corrupt(r->e, r->ent, &b);
	return (req_finish(r, r->q.op == MKV_DRV_VERIFY ? MKV_E_CORRUPT : MKV_E_MISS, reason));
}

static void
get_fill(struct mkv_req *r, const struct mkv_obj_view *v)
{
	struct mkv_drv_rep *p = &r->p;
	const struct mkv_ent *en = eng_ent(r->e, r->ent);

	p->value_bytes = v->o->value_bytes;
	p->put_wall_ms = v->o->put_wall_ms;
	p->expires_wall_ms = ent_expires_ms(r->e, en);
	p->put_id = v->o->put_id;
	p->flags = (en->flags & MKV_ENT_VERIFIED ? MKV_DRV_F_VERIFIED : 0) | (en->flags & MKV_ENT_PIN ? MKV_DRV_F_PIN : 0);
	if (v->o->flags & MKV_OBJ_MANIFEST) {
		p->flags |= MKV_DRV_F_MANIFEST;
		p->n_stripe = v->o->n_stripe;
		memcpy(p->stripe, v->stripe, v->o->n_stripe);
	}
	if (v->set != NULL) {
		p->set = v->set->set;
		p->piece_bytes = v->set->piece_bytes;
		p->piece_count = v->set->piece_count;
	}
}

/* What is delivered: no more than asked for, than there is, than fits. MKV_E_PROTO: not even one chunk fits. */
static int
get_plan(struct mkv_req *r, const struct mkv_obj_view *v)
{
	struct mkv_drv_rep *p = &r->p;
	uint64_t off = r->q.off, end, room = r->e->o.media->shared ? UINT64_MAX / 2 : r->room;
	struct cover c;

	p->off = off;
	p->len = 0;
	if (off >= v->o->value_bytes || r->q.len == 0)
		return (0);
	end = r->q.len > v->o->value_bytes - off ? v->o->value_bytes : off + r->q.len;
	p->len = end - off;
	c = get_cover(r);
	if (c.end - c.begin > room) {
		end = MKV_MIN(end, c.begin + room / CHUNK * CHUNK);
		if (end <= off)
			return (MKV_E_PROTO);
		p->len = end - off;
		c = get_cover(r);
	}
	p->skip = (uint32_t)(off - c.begin);
	p->n_crcs = (uint16_t)mkv_crc_chunks(c.end - c.begin);
	memcpy(p->crcs, v->crcs + c.begin / CHUNK, p->n_crcs * sizeof(uint32_t));
	return (0);
}

/* The bytes behind the last whole block go to the stage, which buf[1] is. */
static int
get_plan_direct(struct mkv_req *r, const struct mkv_obj_view *v)
{
	uint64_t value = v->o->value_bytes, off = r->q.off, end;
	int err;

	end = off >= value ? off : r->q.len > value - off ? value : off + r->q.len;
	if (end % CHUNK != 0 && end < value)
		return (MKV_E_UNSUPPORTED);
	if ((err = get_plan(r, v)) == 0)
		r->buf[0].bytes = (uint32_t)(r->p.len / MKV_BLOCK * MKV_BLOCK);
	return (err);
}

static int
get_shape_good(const struct mkv_req *r, const struct mkv_obj_view *v)
{
	if (v->o->flags & MKV_OBJ_MANIFEST)
		return (v->set != NULL);
	return (v->o->n_crcs == mkv_crc_chunks(v->o->value_bytes) && v->o->value_bytes <= (uint64_t)r->units * r->e->sb.unit_bytes &&
	    v->o->n_runs == r->n_runs && (r->n_runs == 0 || memcmp(v->runs, r->run, r->n_runs * sizeof(r->run[0])) == 0));
}

/* For the requester, until its RELEASE or its end. 0: none is free. */
static int
hold_take(struct mkv_req *r)
{
	struct mkv_engine *e = r->e;
	struct mkv_ent *en = eng_ent(e, r->ent);
	uint32_t h = e->hold_free;

	if (h == MKV_ENT_NIL || (en->flags & MKV_ENT_MANIFEST && e->set_holds == HOLDS_SETS_MAX))
		return (0);
	e->hold_free = e->hold[h].next;
	e->hold[h].ent = r->ent;
	e->hold[h].client = r->call.client;
	e->set_holds += (en->flags & MKV_ENT_MANIFEST) != 0;
	en->holds++;
	r->p.hold = (uint64_t)e->hold[h].gen << 32 | h;
	return (1);
}

/* Who reads a value in pieces finishes on them: they stay until it says so. Without a hold it may find them gone, and misses. */
static enum mkv_next
get_manifest(struct mkv_req *r)
{
	if (!r->gone && !hold_take(r))
		ENG_COUNT(r->e, holds_short_total, 1);
	return (req_finish(r, 0, MKV_REASON_NONE));
}

/* Arena runs of the cover, for readers that map the arena. */
static enum mkv_next
get_shared(struct mkv_req *r)
{
	struct mkv_engine *e = r->e;
	struct cover c = get_cover(r);
	uint64_t left;

	r->state = RQ_IO;
	for (uint64_t pos = c.begin; pos < c.end; pos += left) {
		struct mkv_drv_run *run = &r->p.runs[r->p.n_runs++];

		run->off = req_phys(e, r->run, r->n_runs, pos, &left) - e->sb.data_off;
		run->bytes = left = MKV_MIN(left, c.end - pos);
	}
	if (r->gone)
		return (req_finish(r, MKV_E_CANCELLED, MKV_REASON_NONE));
	return (hold_take(r) ? MKV_NEXT_AGAIN : req_finish(r, MKV_E_BUSY, MKV_REASON_NONE));
}

static enum mkv_next
get_lookup(struct mkv_req *r)
{
	struct mkv_obj_view v;
	struct cover c;
	int err = r->err;

	if (err == 0)
		err = obj_record(r, r->ent, &v);
	/* Buffers under I/O are not given back, whatever the page, or the deadline, says. */
	if (err == MKV_E_AGAIN || get_moving(r))
		return (MKV_NEXT_PARK);
	if (r->err != 0)
		return (req_finish(r, r->err, MKV_REASON_NONE));
	if (err == MKV_E_IO)
		return (req_finish(r, err, MKV_REASON_NONE));
	if (err != 0 || !get_shape_good(r, &v))
		return (get_corrupt(r, 0));
	if (!obj_key_is(&v, &r->q)) {
		ENG_COUNT(r->e, collisions_total, 1);
		return (req_finish(r, MKV_E_MISS, MKV_REASON_NEVER));
	}
	get_fill(r, &v);
	if (v.o->flags & MKV_OBJ_MANIFEST)
		return (get_manifest(r));
	if (r->q.op == MKV_DRV_VERIFY) {
		r->p.n_crcs = v.o->n_crcs;
		memcpy(r->p.crcs, v.crcs, v.o->n_crcs * sizeof(uint32_t));
		r->scan_piece = (uint32_t)(MKV_MIN(r->q.off, v.o->value_bytes) / CHUNK);
		r->state = RQ_CHECK;
		return (MKV_NEXT_AGAIN);
	}
	if ((err = r->region != 0 ? get_plan_direct(r, &v) : get_plan(r, &v)) != 0 || r->p.len == 0)
		return (req_finish(r, err, MKV_REASON_NONE));
	if (r->e->o.media->shared)
		return (get_shared(r));
	r->state = RQ_IO;
	if (!r->spec) {
		c = get_cover(r);
		get_read(r, c.begin, MKV_ALIGN_UP(c.end, MKV_BLOCK));
	}
	return (MKV_NEXT_AGAIN);
}

/* CRC of bytes [pos, end) of the object, which lie in the buffers (or the arena) from the cover's beginning on. */
static uint32_t
get_crc(struct mkv_req *r, uint64_t pos, uint64_t end)
{
	struct mkv_engine *e = r->e;
	uint64_t begin = get_cover(r).begin, len;
	uint32_t crc = 0;

	for (; pos < end; pos += len) {
		const uint8_t *p;

		if (e->o.media->shared) {
			uint64_t at = req_phys(e, r->run, r->n_runs, pos, &len);

			p = e->o.media->ops->map(e->o.media, at, MKV_MIN(len, end - pos));
		} else
			p = req_at(r, pos - begin, &len);
		len = MKV_MIN(len, end - pos);
		crc = mkv_crc32c(crc, p, len);
	}
	return (crc);
}

/* One chunk that is delivered in part. 1 good, and its CRC in the answer is that of the delivered part. */
static int
get_edge(struct mkv_req *r, uint64_t chunk)
{
	struct cover c = get_cover(r);
	uint32_t *crc = &r->p.crcs[(chunk - c.begin) / CHUNK];
	uint64_t end = MKV_MIN(chunk + CHUNK, r->p.value_bytes);

	if (get_crc(r, chunk, end) != *crc)
		return (0);
	*crc = get_crc(r, MKV_MAX(chunk, r->p.off), MKV_MIN(end, r->p.off + r->p.len));
	return (1);
}

static enum mkv_next
get_io(struct mkv_req *r)
{
	uint64_t end = r->p.off + r->p.len, first = r->p.off / CHUNK * CHUNK, last = end / CHUNK * CHUNK;
	uint64_t bad = first;
	int good = 1;
	struct cover c;

	if (get_moving(r))
		return (MKV_NEXT_PARK);
	if (r->err != 0)
		return (req_finish(r, r->err, MKV_REASON_NONE));	/* late, and not all was read */
	if (r->x.err != 0)
		return (req_finish(r, MKV_E_IO, MKV_REASON_NONE));
	if (r->p.off % CHUNK != 0)
		good = get_edge(r, first);
	if (good && end % CHUNK != 0 && end != r->p.value_bytes && (r->p.off % CHUNK == 0 || last != first))
		good = get_edge(r, bad = last);
	if (good) {
		ENG_COUNT(r->e, get_bytes_total, r->p.len);
		return (req_finish(r, 0, MKV_REASON_NONE));
	}
	if (r->tries++ > 0 || r->e->o.media->shared)
		return (get_corrupt(r, bad));
	/* Read it all again; the record tells the stored CRCs once more. */
	c = get_cover(r);
	r->spec = 1;
	r->state = RQ_LOOKUP;
	req_xfer(r, 0, c.begin, MKV_ALIGN_UP(c.end, MKV_BLOCK), c.begin, NULL);
	return (MKV_NEXT_AGAIN);
}

enum mkv_next
get_step(struct mkv_req *r)
{
	enum mkv_next nxt;

	switch (r->state) {
	case RQ_START:
		return (get_start(r));
	case RQ_LOOKUP:
		return (get_lookup(r));
	case RQ_IO:
		nxt = get_io(r);
		if (nxt == MKV_NEXT_DONE && r->p.status != 0 && r->p.hold != 0) {
			hold_drop(r->e, (uint32_t)r->p.hold);
			r->p.hold = 0;
		}
		return (nxt);
	default:
		MKV_ASSERT(!"a state of get");
	}
	return (MKV_NEXT_DONE);
}

void
hold_drop(struct mkv_engine *e, uint32_t h)
{
	struct hold *o = &e->hold[h];

	e->set_holds -= (eng_ent(e, o->ent)->flags & MKV_ENT_MANIFEST) != 0;
	ent_unhold(e, o->ent);
	o->ent = MKV_ENT_NIL;
	o->gen += o->gen == UINT32_MAX ? 2 : 1;
	o->next = e->hold_free;
	e->hold_free = h;
}

void
mkv_engine_release(struct mkv_engine *e, uint32_t client, uint64_t hold, uint64_t flags)
{
	uint32_t h = (uint32_t)hold;

	MKV_CHECK_OBJ(e, MKV_ENGINE_MAGIC);
	if (h >= HOLDS_MAX || e->hold[h].ent == MKV_ENT_NIL || e->hold[h].gen != (uint32_t)(hold >> 32) || e->hold[h].client != client) {
		ENG_COUNT(e, requests_bad_total, 1);
		return;
	}
	if (flags & MKV_DRV_RELEASE_SHORT)
		whole_suspect(e, e->hold[h].ent, MKV_REASON_LOST);
	hold_drop(e, h);
}

/* The object's bytes that are read: to the end of the range's last chunk. len 0: to the object's end. */
static uint64_t
verify_end(const struct mkv_req *r)
{
	const struct mkv_drv_req *q = &r->q;
	uint64_t all = r->p.value_bytes;

	if (q->len == 0 || q->off >= all || q->len > all - q->off)
		return (all);
	return (MKV_MIN(MKV_ALIGN_UP(q->off + q->len, CHUNK), all));
}

static enum mkv_next
verify_good(struct mkv_req *r)
{
	if (r->q.off < CHUNK && verify_end(r) == r->p.value_bytes) {
		obj_proved(r->e, r->ent);
		r->p.flags |= MKV_DRV_F_VERIFIED;
	}
	return (req_finish(r, 0, MKV_REASON_NONE));
}

/* Chunk by chunk through the one bounce buffer. */
static enum mkv_next
verify_check(struct mkv_req *r)
{
	struct mkv_engine *e = r->e;
	uint64_t pos, bytes;

	if (r->err != 0)
		return (req_finish(r, r->err, MKV_REASON_NONE));
	if (e->bounce_of != NULL && e->bounce_of != r) {
		req_park(r, &e->bounce_wait);
		return (MKV_NEXT_PARK);
	}
	e->bounce_of = r;
	if (get_moving(r))
		return (MKV_NEXT_PARK);
	if (r->x.err != 0)
		return (req_finish(r, MKV_E_IO, MKV_REASON_NONE));
	pos = (uint64_t)r->scan_piece * CHUNK;
	if (r->x.end != 0) {
		bytes = MKV_MIN(r->p.value_bytes - pos, CHUNK);
		if (mkv_crc32c(0, e->bounce, bytes) == r->p.crcs[r->scan_piece]) {
			r->scan_piece++;
			r->tries = 0;
			pos += bytes;
		} else if (r->tries++ > 0)
			return (get_corrupt(r, pos));
	}
	if (pos >= verify_end(r))
		return (verify_good(r));
	bytes = MKV_ALIGN_UP(MKV_MIN(r->p.value_bytes - pos, CHUNK), MKV_BLOCK);
	req_xfer(r, 0, pos, pos + bytes, pos, e->bounce);
	return (MKV_NEXT_PARK);
}

enum mkv_next
verify_step(struct mkv_req *r)
{
	switch (r->state) {
	case RQ_START:
		return (get_start(r));
	case RQ_LOOKUP:
		return (get_lookup(r));
	case RQ_CHECK:
		return (verify_check(r));
	default:
		MKV_ASSERT(!"a state of verify");
	}
	return (MKV_NEXT_DONE);
}
