/*
 * BATCH (presence by digest, index only), LIST (keys below a prefix, by pages), INFO, SET_NEW. Drive's loop thread.
 *
 * LIST walks the metadata pages by number: the cursor is page * 256 + record, so a listing that goes on over many calls sees every object that was there all
 * the time at least once, unless a move took it behind the cursor. Its buffer is the front's memory: rows are built here and copied whole.
 */
#include "config.h"

#include <string.h>

#include "common/base/err.h"
#include "worker/drive/engine_priv.h"

#define LIST_PAGES_MAX	512u		/* looked at for one answer */

/* The byte of a key whose look-up gave i. */
static uint8_t
batch_one(struct mkv_req *r, struct mkv_digest d, uint32_t i)
{
	struct mkv_engine *e = r->e;
	struct mkv_ent *en;

	if (i == MKV_ENT_NIL)
		return ((uint8_t)(eng_ghost_reason(e, d) << 1));
	en = eng_ent(e, i);
	if (en->flags & MKV_ENT_PIECE)
		return (MKV_REASON_NEVER << 1);
	if (ns_purged(e, en))
		return (MKV_REASON_DELETED << 1);
	if (ent_expired(e, en, r->wall_ms))
		return (MKV_REASON_EXPIRED << 1);
	if ((r->q.flags & MKV_DRV_F_NO_TOUCH) == 0)
		ent_touch(e, i);
	if (r->q.lease_ms != 0 && !lease_grant(e, i, r->q.lease_ms))
		r->p.lease_ms = 0;
	return (1);
}

/* Answers of n digests at p + 16 i to p + i: in place, digests are copied out first. 1: a match has found its end. */
static int
batch_some(struct mkv_req *r, uint8_t *p, uint32_t i, unsigned n)
{
	struct mkv_digest d[MKV_INDEX_MANY];
	uint32_t found[MKV_INDEX_MANY];
	int match = (r->q.flags & MKV_DRV_F_BATCH_MATCH) != 0;

	memcpy(d, p + (size_t)i * sizeof(d[0]), n * sizeof(d[0]));
	mkv_index_find_many(&r->e->ix, d, n, found);
	for (unsigned k = 0; k < n; k++) {
		p[i + k] = batch_one(r, d[k], found[k]);
		if (match && (p[i + k] & 1) == 0)
			return (1);
	}
	return (0);
}

enum mkv_next
batch_step(struct mkv_req *r)
{
	uint32_t n = r->q.n_digests;
	uint8_t *p = r->buf[0].ptr;
	int err;

	if (r->err != 0)
		return (req_finish(r, r->err, MKV_REASON_NONE));
	if (r->q.n_bufs != 1 || (uint64_t)n * sizeof(struct mkv_digest) > r->room)
		return (req_finish(r, MKV_E_PROTO, MKV_REASON_NONE));
	if (r->q.lease_ms != 0 && r->state != RQ_FLUSH && (err = lease_promise(r, r->q.lease_ms)) != 0) {
		if (err == MKV_E_AGAIN)
			return (MKV_NEXT_PARK);
		r->q.lease_ms = 0;		/* it cannot be kept: no lease, but an answer */
	}
	r->p.lease_ms = r->q.lease_ms;
	for (uint32_t i = 0; i < n; i += MKV_INDEX_MANY)
		if (batch_some(r, p, i, MKV_MIN(n - i, MKV_INDEX_MANY)))
			break;			/* what comes behind the end of a match is not looked at by anybody */
	return (req_finish(r, 0, MKV_REASON_NONE));
}

static int
list_wanted(struct mkv_req *r, const struct mkv_page *pg, const struct mkv_obj_view *v, struct mkv_ent **out)
{
	uint32_t i;

	if (v->o->flags & MKV_OBJ_PIECE)
		return (0);
	if (v->o->ns_bytes != r->q.ns_bytes || memcmp(v->ns, r->q.ns, r->q.ns_bytes) != 0)
		return (0);
	if (v->o->key_bytes < r->q.key_bytes || memcmp(v->key, r->q.key, r->q.key_bytes) != 0)
		return (0);
	i = mkv_index_find(&r->e->ix, v->o->digest);
	if (i == MKV_ENT_NIL)
		return (0);
	*out = eng_ent(r->e, i);
	return ((*out)->page == pg->page_no && !ns_purged(r->e, *out) && !ent_expired(r->e, *out, r->wall_ms));
}

/* The rest of one page. 1 all went in; 0 full: r->scan_piece is the record to go on with. */
static int
list_page(struct mkv_req *r, const struct mkv_page *pg)
{
	struct mkv_obj_view v, own;
	uint32_t pos = 0;

	for (uint32_t k = 0; mkv_page_next(pg, &pos, &v) == 1; k++) {
		struct mkv_drv_list_row row = { 0 };
		struct mkv_ent *en;
		uint64_t bytes = MKV_ALIGN_UP(sizeof(row) + v.o->key_bytes, 8);

		if (k < r->scan_piece || !list_wanted(r, pg, &v, &en) || obj_in_page(r->e, en, pg, &own) != 0 || own.o != v.o)
			continue;
		if (r->p.len + bytes > r->room || r->p.n_rows >= r->q.len) {
			r->scan_piece = k;
			return (0);
		}
		row.row_bytes = (uint16_t)bytes;
		row.key_bytes = v.o->key_bytes;
		row.flags = (en->flags & MKV_ENT_MANIFEST ? MKV_DRV_F_MANIFEST : 0) | (en->flags & MKV_ENT_PIN ? MKV_DRV_F_PIN : 0) |
		    (en->flags & MKV_ENT_VERIFIED ? MKV_DRV_F_VERIFIED : 0);
		row.value_bytes = v.o->value_bytes;
		row.put_wall_ms = v.o->put_wall_ms;
		row.expires_wall_ms = ent_expires_ms(r->e, en);
		memset(r->buf[0].ptr + r->p.len, 0, bytes);
		memcpy(r->buf[0].ptr + r->p.len, &row, sizeof(row));
		memcpy(r->buf[0].ptr + r->p.len + sizeof(row), v.key, v.o->key_bytes);
		r->p.len += bytes;
		r->p.n_rows++;
	}
	r->scan_piece = 0;
	return (1);
}

static enum mkv_next
list_end(struct mkv_req *r, int more)
{
	r->p.cursor = more ? (uint64_t)r->scan_page << 8 | r->scan_piece : 0;
	r->p.len = 0;
	return (req_finish(r, 0, MKV_REASON_NONE));
}

enum mkv_next
list_step(struct mkv_req *r)
{
	struct mkv_engine *e = r->e;
	struct mkv_page *pg;
	int err;

	if (r->state == RQ_START) {
		/* One buffer, which has room for one row at least; the cursor is one of ours or nonsense that reads a wrong page. */
		if (r->q.n_bufs != 1 || r->q.len == 0 || r->q.off >> 8 > e->pg.count)
			return (req_finish(r, MKV_E_PROTO, MKV_REASON_NONE));
		r->scan_page = (uint32_t)(r->q.off >> 8);
		r->scan_piece = (uint32_t)(r->q.off & 0xff);
		r->scan_left = LIST_PAGES_MAX;
		r->state = RQ_SCAN;
	}
	if (r->err != 0)
		return (req_finish(r, r->err, MKV_REASON_NONE));
	for (; r->scan_page < e->pg.count; r->scan_page++, r->scan_piece = 0) {
		if (!e->pg.taken[r->scan_page] || e->pg.live[r->scan_page] == 0)
			continue;
		if (r->scan_left == 0)
			return (list_end(r, 1));
		err = page_get(e, r->scan_page, r, &pg);
		if (err == MKV_E_AGAIN)
			return (MKV_NEXT_PARK);
		r->scan_left--;
		/* A bad page is found and counted by the gets of its objects. */
		if (err == 0 && !list_page(r, pg))
			return (list_end(r, 1));
	}
	return (list_end(r, 0));
}

enum mkv_next
info_step(struct mkv_req *r)
{
	struct mkv_engine *e = r->e;

	r->p.total_bytes = e->al.units * e->sb.unit_bytes;
	r->p.used_bytes = eng_used_units(e) * e->sb.unit_bytes;
	r->p.objects = e->ix.linked - e->pieces;
	r->p.piece_bytes = e->sb.extent_bytes;
	return (req_finish(r, 0, MKV_REASON_NONE));
}

/* Unique for ever: this drive, this mount, counted. With a set: its put goes on longer than its deadline was. */
enum mkv_next
set_new_step(struct mkv_req *r)
{
	if ((r->q.set.lo | r->q.set.hi) != 0)
		return (req_finish(r, openset_renew(r->e, r->q.set, r->call.client, r->q.deadline_ns) ? 0 : MKV_E_BUSY, MKV_REASON_NONE));
	r->p.set.lo = (uint64_t)r->e->sb.mount << 32 | (uint32_t)++r->e->set_next;
	r->p.set.hi = r->e->tag;
	if (r->gone || !openset_add(r->e, r->p.set, r->call.client, r->q.deadline_ns))
		return (req_finish(r, MKV_E_BUSY, MKV_REASON_NONE));
	r->p.total_bytes = r->e->al.units * r->e->sb.unit_bytes;
	r->p.piece_bytes = r->e->sb.extent_bytes;
	return (req_finish(r, 0, MKV_REASON_NONE));
}
