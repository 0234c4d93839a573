/*
 * memkv-front, loop thread: PUT. A value of one frame is one object at its home drive. A value that comes in parts is a set: the home gives a set id,
 * each part is a piece at a drive by rendezvous of (set, piece), and the manifest at the home is the commit point, sent when all pieces are acknowledged.
 * At most REQ_PARTS parts are in flight; then the connection is not read, so memory stays bounded whatever the value's size.
 *
 *   part: WAIT (set id, buffers) -> [RESERVE] -> RECV -> FULL -> DRIVE -> free
 *                                       \-> it is there already: FULL -> free
 *
 * Memory mode: the drive reserves a run of its arena first and the bytes are received there; COMMIT publishes them, ABORT gives the run back.
 * A value that would have to be READ from its client is asked for first, in every mode: where its home has it with the CRCs that the client gives, that is the put,
 * and nothing is READ, and no buffer taken.
 * With verify_put off a drive may take a part straight from a region of its client (lend.c): then RECV moves what is no whole block, the CRCs are the client's word, and
 * until the drive has answered the memory is out. What it does not do so is asked for again (RETRY).
 * What fails: bytes that do not match the client's CRCs (CORRUPT, the connection stays), a drive's answer (passed on), a drive's death with the bytes
 * in its hands (RETRY: the client sends them again). Pieces of a put that fails are dropped by ABORT; those of a drive that died by their epoch.
 */
#include "config.h"

#include "worker/front/front_priv.h"

#include <string.h>

#include "common/base/assert.h"
#include "common/base/crc.h"
#include "common/base/err.h"

#define PUT_RENEW_NS	(5 * MKV_NS_PER_SEC)	/* less than what a home waits beyond a deadline */

/* ---- Frames ---------------------------------------------------------------------------------------------------------------- */

/* Sizes of this part against those before it; the rules of parts in proto/wire.h. 0; MKV_E_PROTO; MKV_E_TOOBIG: more than a value can have here. */
static int
put_check_sizes(const struct mkv_req *r, const struct mkv_hdr *h, const struct mkv_wire_put *w)
{
	uint64_t part_bytes = r->f->conf.part_bytes, off = r->u.put.next_no * part_bytes, end = off + h->payload_bytes, most = mkv_front_value_max(r->f);
	int known = w->value_bytes != MKV_WIRE_SIZE_UNKNOWN, more = (h->flags & MKV_WIRE_F_MORE) != 0;

	if (w->part_off != off || h->payload_bytes > part_bytes)
		return (MKV_E_PROTO);
	if (end > most || (known && w->value_bytes > most) || r->u.put.next_no >= MKV_DRV_PIECES_MAX)
		return (MKV_E_TOOBIG);
	if (more)
		return (h->payload_bytes == part_bytes && (!known || w->value_bytes >= end) ? 0 : MKV_E_PROTO);
	return (w->value_bytes == end ? 0 : MKV_E_PROTO);
}

static int
put_crcs_ok(const struct mkv_hdr *h, const struct mkv_wire_put *w)
{
	if ((w->flags & MKV_WIRE_PUT_NO_CRC) != 0)
		return (w->n_crcs == 0);
	return (w->n_crcs == mkv_crc_chunks(h->payload_bytes));
}

/* No waiting and no leaving of others makes room for more bytes than all drives have. */
static int
put_never_fits(const struct mkv_put *u, uint64_t bytes)
{
	return (u->room != 0 && MKV_MAX(bytes, u->declared) > u->room);
}

static uint16_t
put_flags(const struct mkv_front *f, uint32_t wire)
{
	unsigned flags = MKV_DRV_F_VERIFIED;

	if (wire & MKV_WIRE_PUT_IF_ABSENT)
		flags |= MKV_DRV_F_IF_ABSENT;
	if (wire & MKV_WIRE_PUT_OVERWRITE)
		flags |= MKV_DRV_F_OVERWRITE;
	if (wire & MKV_WIRE_PUT_PIN)
		flags |= MKV_DRV_F_PIN;
	if ((wire & MKV_WIRE_PUT_ACCEPTED) || (f->conf.accepted && !(wire & MKV_WIRE_PUT_COMMIT)))
		flags |= MKV_DRV_F_ACCEPTED;
	return ((uint16_t)flags);
}

static int
put_take_parent(struct mkv_req *r, struct mkv_wire_in *in, const struct mkv_wire_put *w)
{
	const void *parent = mkv_wire_take(in, w->parent_bytes);
	const uint8_t *secret;

	if (w->parent_bytes > MKV_WIRE_KEY_MAX)
		return (MKV_E_INVAL);
	if (parent == NULL)
		return (MKV_E_PROTO);
	if (w->parent_bytes == 0)
		return (0);
	if ((secret = mkv_ns_secret(r->f, r->ns, r->ns_bytes)) == NULL)
		return (MKV_E_SYSTEM);
	r->u.put.parent = mkv_digest(secret, parent, w->parent_bytes);
	return (0);
}

static int
put_start(struct mkv_req *r, const struct mkv_hdr *h, const uint8_t *body)
{
	struct mkv_put *u = &r->u.put;
	struct mkv_wire_in in = { body, body + h->body_bytes };
	const struct mkv_wire_put *w = mkv_wire_take(&in, sizeof(*w));
	int e;

	if (w == NULL || (h->flags & MKV_WIRE_F_ABORT) != 0)
		return (MKV_E_PROTO);
	if ((e = put_check_sizes(r, h, w)) != 0 || (e = mkv_req_take_key(r, &in, w->ns_bytes, w->key_bytes)) != 0 || (e = put_take_parent(r, &in, w)) != 0)
		return (e);
	u->multi = u->more = (h->flags & MKV_WIRE_F_MORE) != 0;
	u->put_id = w->put_id;
	u->ttl_ms = w->ttl_ms;
	u->wire_flags = w->flags;
	u->drv_flags = put_flags(r->f, w->flags);
	if (mkv_route_home(r->f, r->digest) < 0)
		return (MKV_E_RETRY);
	if (u->multi)
		u->n_stripe = mkv_route_stripe(r->f, u->stripe);
	return (0);
}

static struct mkv_part *
put_free_part(struct mkv_req *r)
{
	for (unsigned i = 0; i < REQ_PARTS; i++)
		if (r->part[i].state == PART_FREE)
			return (&r->part[i]);
	return (NULL);
}

static enum mkv_take
put_bad_part(struct mkv_req *r, const struct mkv_hdr *h, int status)
{
	mkv_req_end(r, status, MKV_REASON_NONE, NULL, 0);
	mkv_req_run(r);
	return (h->payload_bytes != 0 ? MKV_TAKE_DISCARD : MKV_TAKE_DONE);
}

/* The CRC list of a part whose keys have been passed. */
static int
put_take_crcs(struct mkv_part *p, struct mkv_wire_in *in, const uint8_t *body, const struct mkv_wire_put *w)
{
	const void *crcs;

	if (!mkv_wire_skip_pad(in, body) || (crcs = mkv_wire_take(in, (size_t)w->n_crcs * 4)) == NULL)
		return (MKV_E_PROTO);
	if (!mkv_wire_skip_pad(in, body))
		return (MKV_E_PROTO);
	memcpy(p->crc, crcs, (size_t)w->n_crcs * 4);
	p->n_crcs = mkv_crc_chunks(p->bytes);
	p->crc_make = (w->flags & MKV_WIRE_PUT_NO_CRC) != 0;
	return (0);
}

/* Where a part lies that is not behind its frame. A channel's message is the part's from here on. */
static int
put_take_segs(struct mkv_req *r, struct mkv_part *p, struct mkv_wire_in *in)
{
	struct mkv_remote *m = r->c->remote;
	int e;

	p->check = m == NULL || p->crc_make || r->f->conf.verify_put;
	r->by_region |= r->c->by_region;
	if (r->c->by_region)
		return (mkv_region_take_put(r->c, in, p->bytes));
	if ((e = mkv_chan_take_segs(r->c, in)) != 0 || m == NULL)
		return (e);
	if (m->bytes != p->bytes)
		return (MKV_E_PROTO);
	if (!p->check)
		r->u.put.drv_flags &= (uint16_t)~MKV_DRV_F_VERIFIED;
	p->ack = r->u.put.more;
	p->remote = *m;
	m->rx = NULL;
	m->msg = NULL;
	return (0);
}

/* Each part brings a deadline of its own: a large value takes its time. */
static void
put_extend(struct mkv_req *r)
{
	if (r->c->frame_until_ns <= r->deadline_ns)
		return;
	r->deadline_ns = r->c->frame_until_ns;
	mkv_timer_arm(r->f->timers, &r->timer, r->deadline_ns);
}

static enum mkv_take
put_abort_frame(struct mkv_req *r)
{
	mkv_req_end(r, MKV_E_CANCELLED, MKV_REASON_NONE, NULL, 0);
	mkv_req_run(r);
	return (MKV_TAKE_DONE);
}

static enum mkv_take
put_part(struct mkv_req *r, const struct mkv_hdr *h, const uint8_t *body)
{
	struct mkv_put *u = &r->u.put;
	struct mkv_wire_in in = { body, body + h->body_bytes };
	const struct mkv_wire_put *w = mkv_wire_take(&in, sizeof(*w));
	struct mkv_part *p;
	int e;

	if (r->ending)
		return (h->payload_bytes != 0 ? MKV_TAKE_DISCARD : MKV_TAKE_DONE);
	if (u->next_no != 0 && !u->more)
		return (MKV_TAKE_BREAK);	/* an id in use */
	if (u->next_no != 0 && (h->flags & MKV_WIRE_F_ABORT) != 0)
		return (put_abort_frame(r));
	if (w == NULL || !put_crcs_ok(h, w))
		return (put_bad_part(r, h, MKV_E_PROTO));
	if ((e = put_check_sizes(r, h, w)) != 0)
		return (put_bad_part(r, h, e));
	if (u->next_no == 0)
		(void)mkv_wire_take(&in, (size_t)w->ns_bytes + w->key_bytes + w->parent_bytes);
	else if (w->ns_bytes != 0 || w->key_bytes != 0 || w->parent_bytes != 0)
		return (put_bad_part(r, h, MKV_E_PROTO));
	put_extend(r);
	if (w->value_bytes != MKV_WIRE_SIZE_UNKNOWN)
		u->declared = w->value_bytes;
	if (put_never_fits(u, u->value_bytes + h->payload_bytes))
		return (put_bad_part(r, h, MKV_E_NOSPACE));
	if ((p = put_free_part(r)) == NULL)
		return (MKV_TAKE_HOLD);
	mkv_part_init(r, p, u->next_no, (uint32_t)h->payload_bytes);
	u->more = (h->flags & MKV_WIRE_F_MORE) != 0;
	if ((e = put_take_crcs(p, &in, body, w)) != 0 || (e = put_take_segs(r, p, &in)) != 0)
		return (put_bad_part(r, h, e));
	u->next_no++;
	u->value_bytes += h->payload_bytes;
	if (p->bytes == 0) {
		p->state = PART_FULL;
		mkv_req_run(r);
		return (MKV_TAKE_DONE);
	}
	p->state = PART_WAIT;
	if (r->channel != 0) {
		mkv_req_run(r);
		return (MKV_TAKE_DONE);
	}
	r->c->rx_req = r;
	r->c->rx_part = p;
	return (MKV_TAKE_PAYLOAD);
}

/* ---- Requests to drives ---------------------------------------------------------------------------------------------------- */

static void
put_fill_object(const struct mkv_req *r, struct mkv_drv_req *q)
{
	const struct mkv_put *u = &r->u.put;

	mkv_req_fill(r, q);
	q->flags = u->drv_flags;
	q->put_id = u->put_id;
	q->ttl_ms = u->ttl_ms;
	q->parent = u->parent;
}

/* Where part p goes. */
static int
put_part_drive(const struct mkv_req *r, const struct mkv_part *p)
{
	const struct mkv_put *u = &r->u.put;

	if (!u->multi)
		return (mkv_route_home(r->f, r->digest));
	return (mkv_route_piece_drive(r->f, mkv_piece_digest(r->f->piece_secret, u->set, p->no), u->stripe, u->n_stripe, 0));
}

/* A drive that takes the bytes of part p from its client's memory: nobody sees them before they are stored. */
static void
put_fill_unseen(struct mkv_req *r, const struct mkv_part *p, struct mkv_drv_req *q)
{
	if (p->region == NULL)
		return;
	q->flags &= (uint16_t)~MKV_DRV_F_VERIFIED;
	r->u.put.unseen = 1;
}

/* The object that part p is: the whole value, or a piece. Returns the drive it goes to. */
static int
put_fill_part(struct mkv_req *r, const struct mkv_part *p, struct mkv_drv_req *q)
{
	struct mkv_put *u = &r->u.put;
	int drive;

	q->value_bytes = p->bytes;
	q->writer = r->c->who;
	q->n_crcs = (uint16_t)p->n_crcs;
	memcpy(q->crcs, p->crc, p->n_crcs * sizeof(q->crcs[0]));
	if (!u->multi) {
		put_fill_object(r, q);
		put_fill_unseen(r, p, q);
		return (mkv_route_home(r->f, r->digest));
	}
	q->flags = (uint16_t)(MKV_DRV_F_PIECE | (u->drv_flags & (MKV_DRV_F_ACCEPTED | MKV_DRV_F_VERIFIED)));
	put_fill_unseen(r, p, q);
	q->set = u->set;
	q->piece_no = p->no;
	q->piece_bytes = r->f->conf.part_bytes;
	q->digest = mkv_piece_digest(r->f->piece_secret, u->set, p->no);
	q->home_idx = (uint16_t)u->home;
	q->put_id = u->put_id;
	drive = mkv_route_piece_drive(r->f, q->digest, u->stripe, u->n_stripe, 0);
	if (drive >= 0)
		u->used |= 1ull << drive;
	return (drive);
}

/* Is it worth asking its home before the bytes are fetched? Of a value in parts no more than one part is known, and what has no CRCs yet is not known at all. */
static int
put_may_be_there(const struct mkv_req *r, const struct mkv_part *p)
{
	return (r->channel != 0 && !r->u.put.multi && !p->crc_make && (r->u.put.drv_flags & (MKV_DRV_F_IF_ABSENT | MKV_DRV_F_OVERWRITE)) == 0);
}

/* 1: pushed; 0: parked. */
static int
put_push_part(struct mkv_req *r, struct mkv_part *p, unsigned op)
{
	struct mkv_drv_req *q;
	int drive;

	if (p->dop == NULL && (p->dop = mkv_dop_take(r->f, r)) == NULL)
		return (0);
	q = mkv_dop_req(r->f, p->dop);
	drive = put_fill_part(r, p, q);
	if (op == MKV_DRV_COMMIT) {
		q->txn = p->txn;
		mkv_part_push(r, p, p->drive, op);
		mkv_spare_refill(r->f, p->drive);
		return (1);
	}
	if (op == MKV_DRV_RESERVE && put_may_be_there(r, p)) {
		q->flags |= MKV_DRV_F_IF_SAME;
		r->u.put.asked_version = r->f->map_version;
	}
	mkv_part_push(r, p, drive, op);
	return (1);
}

static int
put_ask_set(struct mkv_req *r)
{
	struct mkv_put *u = &r->u.put;
	struct mkv_drv_req *q;

	if ((u->ctl = mkv_dop_take(r->f, r)) == NULL)
		return (0);
	u->set_asked = 1;
	u->set_until_ns = r->deadline_ns;
	u->home = mkv_route_home(r->f, r->digest);
	q = mkv_dop_req(r->f, u->ctl);
	put_fill_object(r, q);
	mkv_dop_push(r->f, u->ctl, u->home, MKV_DRV_SET_NEW);
	return (1);
}

/* The home holds a set open until the deadline that it knows: it hears of a later one in time. 1: nothing to wait for; 0: parked for a slot. */
static int
put_renew_set(struct mkv_req *r)
{
	struct mkv_put *u = &r->u.put;
	struct mkv_drv_req *q;

	if (!u->set_known || u->ctl != NULL || u->manifest || r->deadline_ns <= u->set_until_ns + PUT_RENEW_NS)
		return (1);
	if ((u->ctl = mkv_dop_take(r->f, r)) == NULL)
		return (0);
	u->renewing = 1;
	u->set_until_ns = r->deadline_ns;
	q = mkv_dop_req(r->f, u->ctl);
	put_fill_object(r, q);
	q->set = u->set;
	mkv_dop_push(r->f, u->ctl, u->home, MKV_DRV_SET_NEW);
	return (1);
}

/*
 * Where the key had another home before, what lies there goes first: else it would come up again when the new value is gone. With if-absent it is
 * looked at instead. 1: nothing is left there; 0: parked or asked.
 */
static int
put_clear_former(struct mkv_req *r)
{
	struct mkv_put *u = &r->u.put;
	int former = u->clear_version == r->f->map_version ? -1 : mkv_route_former(r->f, r->digest);
	struct mkv_drv_req *q;

	if (u->clearing)
		return (0);
	if (former < 0)
		return (1);
	if ((u->ctl = mkv_dop_take(r->f, r)) == NULL)
		return (0);
	u->clearing = 1;
	u->clear_version = r->f->map_version;
	q = mkv_dop_req(r->f, u->ctl);
	mkv_req_fill(r, q);
	q->flags = MKV_DRV_F_NO_TOUCH;
	mkv_dop_push(r->f, u->ctl, former, u->drv_flags & MKV_DRV_F_IF_ABSENT ? MKV_DRV_STAT : MKV_DRV_DELETE);
	return (0);
}

static int
put_send_manifest(struct mkv_req *r)
{
	struct mkv_put *u = &r->u.put;
	struct mkv_drv_req *q;

	if (mkv_route_home(r->f, r->digest) != u->home) {
		mkv_req_end(r, MKV_E_RETRY, MKV_REASON_NONE, NULL, 0);
		return (0);
	}
	if (!put_clear_former(r))
		return (0);
	if ((u->ctl = mkv_dop_take(r->f, r)) == NULL)
		return (0);
	u->manifest = 1;
	q = mkv_dop_req(r->f, u->ctl);
	put_fill_object(r, q);
	q->flags |= MKV_DRV_F_MANIFEST;
	if (u->unseen)
		q->flags &= (uint16_t)~MKV_DRV_F_VERIFIED;
	q->value_bytes = u->value_bytes;
	q->set = u->set;
	q->piece_count = u->next_no;
	q->piece_bytes = r->f->conf.part_bytes;
	q->home_idx = (uint16_t)u->home;
	q->n_stripe = (uint16_t)u->n_stripe;
	memcpy(q->stripe, u->stripe, u->n_stripe);
	mkv_dop_push(r->f, u->ctl, u->home, MKV_DRV_PUT);
	return (1);
}

/* ---- Steps ----------------------------------------------------------------------------------------------------------------- */

static void
put_begin_recv(struct mkv_req *r, struct mkv_part *p)
{
	p->state = PART_RECV;
	if (r->channel != 0)
		mkv_chan_read(r, p);
	else
		mkv_conn_payload(r->c);
}

static void
put_done(struct mkv_req *r, const struct mkv_drv_rep *rep)
{
	struct mkv_wire_object o = {
		.value_bytes = r->u.put.value_bytes,
		.put_wall_ms = rep->put_wall_ms,
		.expires_wall_ms = rep->expires_wall_ms,
		.put_id = r->u.put.put_id,
		.flags = (rep->same ? MKV_WIRE_PUT_SAME : 0) | (r->u.put.wire_flags & MKV_WIRE_PUT_PIN),
	};

	mkv_metric_add(r->f->m, rep->same ? MKV_M_front_put_same_total : MKV_M_front_put_total, 0, 1);
	mkv_req_end(r, 0, MKV_REASON_NONE, &o, sizeof(o));
}

/* Its home has it. 0: parked, or the request has ended; 1: the map is another one meanwhile, and so may its home be: that one is asked. */
static int
put_touched(struct mkv_req *r, struct mkv_part *p)
{
	struct mkv_put *u = &r->u.put;

	if (u->asked_version != r->f->map_version) {
		p->asked = p->same = 0;
		p->state = PART_WAIT;
		return (1);
	}
	if (!put_clear_former(r))
		return (0);
	mkv_chan_part_done(p);
	mkv_metric_add(r->f->m, MKV_M_front_put_unread_total, 0, 1);
	put_done(r, &(struct mkv_drv_rep){ .same = 1 });
	return (0);
}

/* Bytes are in, or need not come. 0: parked, or the request has ended. */
static int
put_full(struct mkv_req *r, struct mkv_part *p)
{
	if (p->same)
		return (put_touched(r, p));
	if (p->unread) {
		mkv_req_end(r, MKV_E_CLOSED, MKV_REASON_NONE, NULL, 0);
		return (0);
	}
	if (p->crc_bad) {
		mkv_metric_add(r->f->m, MKV_M_front_crc_failures_total, 0, 1);
		mkv_req_end(r, MKV_E_CORRUPT, MKV_REASON_NONE, NULL, 0);
		return (0);
	}
	if (!p->has_txn && r->u.put.multi && !r->u.put.set_known)
		return (1);		/* the set id comes first */
	if (p->has_txn && r->f->drive[p->drive].epoch != p->epoch) {
		mkv_req_end(r, MKV_E_RETRY, MKV_REASON_NONE, NULL, 0);
		return (0);
	}
	if (!r->u.put.multi && !put_clear_former(r))
		return (0);
	return (put_push_part(r, p, p->has_txn ? MKV_DRV_COMMIT : MKV_DRV_PUT));
}

/* Its drive takes part p from the client's memory. Before the set is known it may be any of them: then all must be able to, for the frames behind it do not wait for the home. */
static int
put_straight(struct mkv_req *r, struct mkv_part *p)
{
	const struct mkv_put *u = &r->u.put;

	if (!mkv_lend_may_put(r, p))
		return (0);
	if (!u->multi || u->set_known)
		return (mkv_lend_take_put(r, p, put_part_drive(r, p)));
	for (unsigned i = 0; i < u->n_stripe; i++) {
		mkv_lend_back(r->f, p);
		if (!mkv_lend_take_put(r, p, u->stripe[i]))
			return (0);
	}
	return (p->region != NULL);
}

/* What has to come into buffers of part p: all of it, or, where a drive takes it from the client's memory, what is no whole block. */
static uint32_t
put_to_buffer(struct mkv_req *r, struct mkv_part *p)
{
	mkv_lend_back(r->f, p);		/* chosen when it parked: its drive may be another one */
	return (put_straight(r, p) ? p->bytes % 4096 : p->bytes);
}

static int
put_wait(struct mkv_req *r, struct mkv_part *p)
{
	if (put_may_be_there(r, p) && !p->asked)
		return (put_push_part(r, p, MKV_DRV_RESERVE));
	if (r->f->conf.memory_mode && r->u.put.multi && !r->u.put.set_known)
		return (1);
	if (r->f->conf.memory_mode && !mkv_spare_take(r, p, put_part_drive(r, p)))
		return (put_push_part(r, p, MKV_DRV_RESERVE));
	if (p->has_txn) {
		put_begin_recv(r, p);
		return (1);
	}
	if (mkv_part_bufs(r, p, put_to_buffer(r, p)) != 0)
		return (0);
	put_begin_recv(r, p);
	return (1);
}

static enum mkv_next
put_step(struct mkv_req *r)
{
	struct mkv_put *u = &r->u.put;
	int busy = 0;

	if (u->multi && !(u->set_asked ? put_renew_set(r) : put_ask_set(r)))
		return (MKV_NEXT_PARK);
	/* Full ones first: what they wait for frees what others wait for. One resource at a time: a request has one place in one queue. */
	for (unsigned i = 0; i < REQ_PARTS; i++)
		if (r->part[i].state == PART_FULL && !put_full(r, &r->part[i]))
			return (r->ending ? MKV_NEXT_AGAIN : MKV_NEXT_PARK);
	for (unsigned i = 0; i < REQ_PARTS; i++) {
		if (r->part[i].state == PART_WAIT && !put_wait(r, &r->part[i]))
			return (MKV_NEXT_PARK);
		busy |= r->part[i].state != PART_FREE;
	}
	if (u->multi && !busy && !u->more && !u->manifest && !u->renewing)
		(void)put_send_manifest(r);
	else if (u->more && !busy)
		mkv_chan_req_rests(r);
	return (r->ending ? MKV_NEXT_AGAIN : MKV_NEXT_PARK);
}

/* The answer to "is it there?" that names no memory. The slot goes: whoever waits for buffers must not hold one. */
static void
put_on_asked(struct mkv_req *r, struct mkv_part *p, const struct mkv_drv_rep *rep)
{
	const int fits = rep->n_runs == 0 && put_may_be_there(r, p);

	p->asked = 1;
	p->same = fits && rep->same != 0;
	p->state = p->same ? PART_FULL : PART_WAIT;	/* a payload that is on its way to nowhere is told by PART_WAIT */
	if (!fits)
		mkv_req_end(r, MKV_E_PEER, MKV_REASON_NONE, NULL, 0);
}

static void
put_on_reserve(struct mkv_req *r, struct mkv_part *p, struct mkv_dop *d, const struct mkv_drv_rep *rep)
{
	if (rep->same || !r->f->conf.memory_mode) {
		put_on_asked(r, p, rep);
		return;
	}
	p->has_txn = 1;
	p->txn = rep->txn;
	p->epoch = d->epoch;
	d->keep = 1;			/* COMMIT or ABORT goes by the same slot */
	if (r->ending) {
		p->state = PART_FULL;
		return;
	}
	p->state = PART_WAIT;
	if (mkv_part_runs(r, p, rep->runs, rep->n_runs, p->bytes) != 0) {
		mkv_req_end(r, MKV_E_PEER, MKV_REASON_NONE, NULL, 0);
		return;
	}
	put_begin_recv(r, p);
}

/* A COMMIT ends the reservation whatever is answered; one that did not go to its drive leaves it, and its slot carries the end of it. */
static void
put_on_commit(const struct mkv_req *r, struct mkv_part *p, struct mkv_dop *d, const struct mkv_drv_rep *rep)
{
	const struct mkv_drive *v = &r->f->drive[p->drive];

	if (rep == NULL && v->up && v->epoch == p->epoch)
		d->keep = 1;
	else
		p->has_txn = 0;
}

/*
 * Of a part whose drive was to take it from its client's memory: that drive is done there, but for one that died with it. 1: it was such a part. Its bytes are the client's: he sends
 * the frame again where it is to be tried again, by the stage if this drive cannot.
 */
static int
put_back(struct mkv_req *r, struct mkv_part *p, const struct mkv_dop *d, int *status)
{
	if (p->region == NULL)
		return (0);
	if (*status == 0)
		mkv_metric_add(r->f->m, MKV_M_front_region_direct_put_bytes_total, 0, p->bytes - p->bytes % 4096);
	if (*status == MKV_E_UNSUPPORTED) {
		p->region->no_put |= 1ull << d->drive;
		*status = MKV_E_RETRY;
	}
	if (!p->lost)
		mkv_lend_back(r->f, p);
	return (1);
}

/* A part's object is acknowledged, or will not be. */
static void
put_on_part(struct mkv_req *r, struct mkv_part *p, struct mkv_dop *d, const struct mkv_drv_rep *rep, int status)
{
	int reserve = p->state == PART_RESERVE, direct = put_back(r, p, d, &status);

	if (reserve && rep != NULL && status == 0) {
		put_on_reserve(r, p, d, rep);
		return;
	}
	/* A reservation that was refused, or recalled at the request's end, leaves the payload on its way to nowhere: the connection is told by PART_WAIT. */
	p->state = reserve || p->lost ? PART_WAIT : PART_FULL;
	if (d->op == MKV_DRV_COMMIT)
		put_on_commit(r, p, d, rep);
	if (r->ending)
		return;
	/* Refused before it was given away: the bytes are still ours, or still the client's, and the map knows another drive. */
	if (rep == NULL && !p->has_txn && !direct && (reserve ? r->channel != 0 : p->bytes == 0 || p->n_buf != 0) && mkv_req_again(r, status))
		return;
	if (reserve && rep != NULL)
		mkv_spare_short(r->f, d->drive);
	if (status != 0) {
		mkv_req_end(r, status, rep != NULL ? rep->reason : MKV_REASON_NONE, NULL, 0);
		return;
	}
	if (!r->u.put.multi)
		put_done(r, rep);
	else {
		p->dop = NULL;
		d->part = NULL;
		MKV_ASSERT(mkv_part_clear(r, p));
	}
}

/* From the size of the home drive: pieces are shared out by weight, though not evenly to the byte. */
static uint64_t
put_room(const struct mkv_req *r, const struct mkv_drv_rep *rep)
{
	const struct mkv_drive *v = r->f->drive;
	const struct mkv_put *u = &r->u.put;
	double all = 0, home = v[u->home].weight;

	if (u->n_stripe <= 1)
		return (rep->total_bytes);
	for (unsigned i = 0; i < u->n_stripe; i++)
		all += v[u->stripe[i]].weight;
	all = home > 0 ? 1.25 * (double)rep->total_bytes * all / home : 0;
	return (all < (double)MKV_WIRE_VALUE_MAX ? (uint64_t)all : 0);
}

static void
put_on_former(struct mkv_req *r, const struct mkv_drv_rep *rep, int status)
{
	struct mkv_put *u = &r->u.put;
	int absent = (u->drv_flags & MKV_DRV_F_IF_ABSENT) != 0;

	u->clearing = 0;
	if (r->ending || status == MKV_E_MISS || (status == 0 && !absent))
		return;
	u->clear_version = 0;
	if (status != 0 && rep == NULL && mkv_req_again(r, status))
		return;
	if (status == 0 && rep->put_id == u->put_id && u->put_id != 0)
		put_done(r, rep);	/* this very put, done before its key moved */
	else
		mkv_req_end(r, status == 0 ? MKV_E_EXISTS : status, MKV_REASON_NONE, NULL, 0);
}

static void
put_on_ctl(struct mkv_req *r, const struct mkv_drv_rep *rep, int status)
{
	struct mkv_put *u = &r->u.put;

	u->ctl = NULL;
	if (u->clearing) {
		put_on_former(r, rep, status);
		return;
	}
	if (u->renewing) {
		u->renewing = 0;
		if (rep != NULL && status != 0)		/* it is not open any more: its manifest would be refused */
			mkv_req_end(r, status, rep->reason, NULL, 0);
		return;
	}
	if (u->manifest && rep != NULL) {		/* a definite answer */
		u->committed = status == 0;
		u->manifest = u->committed;
	}
	if (r->ending)
		return;
	if (status != 0 && !u->manifest && rep == NULL && mkv_req_again(r, status))
		u->set_asked = 0;
	else if (status != 0)
		mkv_req_end(r, status, rep != NULL ? rep->reason : MKV_REASON_NONE, NULL, 0);
	else if (u->committed)
		put_done(r, rep);
	else {
		u->set_known = 1;
		u->set = rep->set;
		u->room = put_room(r, rep);
		if (put_never_fits(u, u->value_bytes))
			mkv_req_end(r, MKV_E_NOSPACE, MKV_REASON_NONE, NULL, 0);
	}
}

static void
put_on_dop(struct mkv_req *r, struct mkv_dop *d, const struct mkv_drv_rep *rep, int status)
{
	if (d->part != NULL)
		put_on_part(r, d->part, d, rep, status);
	else
		put_on_ctl(r, rep, status);
}

/* Pieces of a put that failed: tell the drives that have some. A manifest whose answer was lost may be there: its pieces stay. */
static enum mkv_next
put_undo(struct mkv_req *r)
{
	struct mkv_put *u = &r->u.put;
	struct mkv_drv_req *q;

	if (!u->multi || u->committed || u->manifest || u->ctl != NULL)
		return (u->ctl != NULL ? MKV_NEXT_PARK : MKV_NEXT_DONE);
	for (unsigned i = 0; i < REQ_PARTS; i++)
		if (r->part[i].state != PART_FREE)
			return (MKV_NEXT_PARK);
	while (u->used != 0) {
		unsigned drive = (unsigned)__builtin_ctzll(u->used);

		if (!r->f->drive[drive].up) {		/* its epoch frees them */
			u->used &= u->used - 1;
			continue;
		}
		if ((u->ctl = mkv_dop_take(r->f, r)) == NULL)
			return (MKV_NEXT_PARK);
		u->used &= u->used - 1;
		q = mkv_dop_req(r->f, u->ctl);
		q->set = u->set;
		q->piece_count = u->next_no;
		q->flags = MKV_DRV_F_PIECE;
		q->deadline_ns = UINT64_MAX;
		mkv_dop_push(r->f, u->ctl, (int)drive, MKV_DRV_ABORT);
		return (MKV_NEXT_PARK);
	}
	return (MKV_NEXT_DONE);
}

const struct mkv_req_ops mkv_put_ops = {
	.op = MKV_WIRE_PUT,
	.start = put_start,
	.part = put_part,
	.step = put_step,
	.on_dop = put_on_dop,
	.undo = put_undo,
};
