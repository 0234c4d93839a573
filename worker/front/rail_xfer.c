/*
 * memkv-front, loop thread: payload and answers on a line: pieces of READ and WRITE within the window, SEND behind the data, completions.
 *
 * The requests of a session take turns, a piece each; the parts of one request go one after the other, since its answers have an order. An answer is posted
 * when the last piece of its part is, so nothing but what is in the window (rdma.window) is in front of it. Pieces end where a buffer, an arena run, a
 * registration or a segment of the client ends, and are rdma.piece_size at most.
 *
 *   READ   posted -> came, its CRC made -> all came: [ACK, if more parts follow] -> the part is FULL
 *   WRITE  posted ... SEND posted -> the SEND came back: the part has left
 *
 * Completions are told in the order of posting, so rec[] is a queue: the oldest is what came back. What fails breaks the line, and then everything that
 * is out comes back failed; nothing else ends the NIC's use of a part's memory.
 */
#include "config.h"

#include "worker/front/rail_priv.h"

#include <string.h>

#include "common/base/err.h"

static uint32_t
line_out(const struct mkv_line *line)
{
	return (line->rec_tail - line->rec_head);
}

static int
line_has_room(const struct mkv_line *line)
{
	return (line_out(line) < line->sends && mkv_rdma_qp_room(line->qp) > 0);
}

static struct line_rec *
line_note(struct mkv_line *line, enum line_rec_kind kind, uint32_t bytes, struct mkv_part *p, struct mkv_out *o)
{
	struct line_rec *rec = &line->rec[line->rec_tail % LINE_SENDS_MAX];

	if (line_out(line) == 0)
		line->moved_ns = mkv_now_ns();
	line->rec_tail++;
	rec->kind = (uint8_t)kind;
	rec->bytes = bytes;
	rec->part = p;
	rec->o = o;
	return (rec);
}

/* ---- Answers --------------------------------------------------------------------------------------------------------------- */

int
line_send(struct mkv_line *line, struct mkv_hdr *h, const void *body, struct mkv_out *o)
{
	struct mkv_chan *ch = line->ch;
	struct iovec iov[2] = {
		{ .iov_base = h, .iov_len = sizeof(*h) },
		{ .iov_base = (void *)(uintptr_t)body, .iov_len = h->body_bytes },
	};

	if (!line_has_room(line))
		return (MKV_E_AGAIN);
	MKV_ASSERT(sizeof(*h) + h->body_bytes <= LINE_SEND_BYTES);
	h->session_id = ch->c->s.id;
	h->counter = ++ch->counter_out;
	h->channel = ch->number;
	h->credits = ch->credits;
	if (mkv_mac_sign(ch->mac_out, h, MKV_WIRE_SIGNED_BYTES, body, h->body_bytes, h->mac) != 0)
		memset(h->mac, 0, sizeof(h->mac));	/* the client refuses it and ends the channel */
	(void)line_note(line, REC_SEND, 0, NULL, o);
	/* What READs brought is ours before the client hears that we have done with its memory. */
	mkv_rdma_qp_send(line->qp, iov, h->body_bytes != 0 ? 2 : 1, MKV_RDMA_SIGNAL | (line->reads != 0 ? MKV_RDMA_FENCE : 0), NULL);
	return (0);
}

int
line_word(struct mkv_line *line, uint8_t op, uint64_t id, unsigned flags, int status, unsigned reason)
{
	struct mkv_hdr h = { .magic = MKV_WIRE_MAGIC, .version = MKV_WIRE_VERSION, .op = op, .flags = (uint16_t)(MKV_WIRE_F_REPLY | flags), .request_id = id,
		.status = (uint16_t)-status, .reason = (uint16_t)reason };

	return (line_send(line, &h, NULL, NULL));
}

/* The newest that is out and names memory of the client; NULL: none does, what is out are messages. */
static const struct line_rec *
line_newest(const struct mkv_line *line)
{
	for (uint32_t i = line->rec_tail; i-- != line->rec_head;)
		if (line->rec[i % LINE_SENDS_MAX].kind != REC_SEND)
			return (&line->rec[i % LINE_SENDS_MAX]);
	return (NULL);
}

/*
 * An answer by another way than the line's own must not overtake what the line writes: a READ of one byte that went out before it brings that to an end, also
 * in the client's memory. The byte is one of a request that has no answer yet, so its memory is there: the answer's own, or that of the newest that is out.
 */
static void
line_flush(struct mkv_line *line, struct mkv_out *o, const struct line_rec *newest)
{
	/* Its own may be 0: whoever asks for a byte there gets what his NIC says to it. */
	const int by_own = newest == NULL || o->flush_addr != 0;
	uint64_t addr = by_own ? o->flush_addr : newest->addr;
	uint32_t rkey = by_own ? o->flush_rkey : newest->rkey, lkey, own;
	struct line_rec *rec;

	MKV_ASSERT(mkv_rdma_mem_keys(line->rail->sink_mem, line->rail->sink, &lkey, &own) > 0);
	rec = line_note(line, REC_FLUSH, 0, NULL, o);
	rec->addr = addr;
	rec->rkey = rkey;
	mkv_rdma_qp_read(line->qp, line->rail->sink, lkey, addr, rkey, 1, MKV_RDMA_SIGNAL, NULL);
}

void
out_end(struct mkv_out *o, int res)
{
	o->busy = 0;
	o->done(o, res);		/* touch nothing of o after */
}

/* Of a message of r. One of a channel that there is no more counts for none. */
static void
req_rx_back(const struct mkv_req *r, struct mkv_rdma_rx *rx)
{
	struct mkv_chan *ch = r->c != NULL ? chan_of(r->c) : NULL;

	if (ch != NULL && ch->number == r->channel)
		chan_rx_back(ch, rx);
	else
		mkv_rdma_rx_back(r->f->rail->hub, rx);
}

/* The last word of a request: it needs its segments no more, and the credit that its message had is about to be the client's again. */
void
mkv_chan_req_done(struct mkv_req *r)
{
	if (r->remote.rx != NULL)
		req_rx_back(r, r->remote.rx);
	if (r->remote.msg != NULL)
		ctl_msg_back(r->f->rail, r->remote.msg);
	memset(&r->remote, 0, sizeof(r->remote));
}

void
mkv_chan_part_done(struct mkv_part *p)
{
	if (p->remote.rx != NULL)
		req_rx_back(p->req, p->remote.rx);
	if (p->remote.msg != NULL)
		ctl_msg_back(p->req->f->rail, p->remote.msg);
	memset(&p->remote, 0, sizeof(p->remote));
}

/* ---- Transfers ------------------------------------------------------------------------------------------------------------- */

static struct mkv_part *
xfer_part(struct mkv_xfer *x)
{
	return (MKV_CONTAINER_OF(x, struct mkv_part, x));
}

static const struct mkv_remote *
xfer_remote(const struct mkv_part *p)
{
	return (p->x.kind == XFER_WRITE ? &p->req->remote : &p->remote);
}

/* The next of its request gets its turn. */
static void
xfer_posted(struct mkv_xfer *x)
{
	struct mkv_req *r = xfer_part(x)->req;
	struct mkv_list *l;

	mkv_list_remove(&x->link);
	if (r->xfer_now != x)
		return;
	r->xfer_now = NULL;
	if ((l = mkv_list_pop(&r->xfer_wait)) == NULL)
		return;
	r->xfer_now = MKV_CONTAINER_OF(l, struct mkv_xfer, link);
	mkv_list_push_tail(&x->line->xfers, l);
}

static void
xfer_begin(struct mkv_line *line, struct mkv_part *p, enum mkv_xfer_kind kind, uint64_t at, uint32_t pos)
{
	struct mkv_req *r = p->req;
	struct mkv_xfer *x = &p->x;

	MKV_ASSERT(x->kind == XFER_NONE);
	memset(x, 0, sizeof(*x));
	mkv_list_init(&x->link);
	x->line = line;
	x->kind = (uint8_t)kind;
	x->left = p->bytes;
	x->pos = pos;
	x->begin_ns = mkv_now_ns();
	/* Where in the segments. */
	for (const struct mkv_wire_seg *s = xfer_remote(p)->seg; at >= s[x->seg_i].bytes; at -= s[x->seg_i++].bytes)
		MKV_ASSERT(x->seg_i + 1 < xfer_remote(p)->n_seg);
	x->seg_off = (uint32_t)at;
	if (r->xfer_now != NULL)
		mkv_list_push_tail(&r->xfer_wait, &x->link);
	else {
		r->xfer_now = x;
		mkv_list_push_tail(&line->xfers, &x->link);
	}
	line_touch(line);
}

/* Nothing of it is at the NIC, nothing will be posted: the part goes on by what is noted in it. The caller runs the request. */
static void
xfer_over(struct mkv_part *p)
{
	struct mkv_xfer *x = &p->x;
	enum mkv_xfer_kind kind = (enum mkv_xfer_kind)x->kind;

	MKV_ASSERT(x->out == 0);
	xfer_posted(x);
	x->kind = XFER_NONE;
	if (kind == XFER_WRITE)
		p->out.busy = 0;
	p->state = PART_FULL;
	p->unread = kind == XFER_READ && (x->failed || x->stopped);
	mkv_chan_part_done(p);
}

/* Without the caller's leave: its request may be ended and be gone after this. */
static void
xfer_over_run(struct mkv_part *p)
{
	struct mkv_req *r = p->req;

	xfer_over(p);
	mkv_req_run(r);
}

static void
xfer_stop(struct mkv_part *p)
{
	struct mkv_xfer *x = &p->x;

	if (x->kind == XFER_NONE)
		return;
	x->stopped = 1;
	x->left = 0;
	xfer_posted(x);
	if (x->out == 0)
		xfer_over(p);
}

void
mkv_chan_stop(struct mkv_req *r)
{
	for (unsigned i = 0; i < REQ_PARTS && r->channel != 0; i++)
		if (r->part[i].state == PART_RECV || r->part[i].state == PART_SEND)
			xfer_stop(&r->part[i]);
}

/* Its channel; NULL: that is there no more. */
static struct mkv_chan *
req_chan(const struct mkv_req *r)
{
	struct mkv_chan *ch = r->c != NULL ? chan_of(r->c) : NULL;

	return (ch != NULL && ch->state == CHAN_OPEN && ch->number == r->channel ? ch : NULL);
}

/* Where its payload and its answers go; NULL: there is no such line any more. */
static struct mkv_line *
req_line(const struct mkv_req *r)
{
	const struct mkv_chan *ch = req_chan(r);

	return (ch == NULL ? NULL : ch->dc ? r->line : ch->line);
}

void
mkv_chan_read(struct mkv_req *r, struct mkv_part *p)
{
	struct mkv_line *line = req_line(r);

	MKV_ASSERT(p->state == PART_RECV && line != NULL);
	xfer_begin(line, p, XFER_READ, 0, 0);
}

/* An answer without data, by another way: whether something of its request, or of the one that it ends, may still be on the line. */
static int
reply_waits(const struct mkv_line *line, const struct mkv_req *r, const struct mkv_out *o)
{
	if (r->op != MKV_WIRE_CANCEL && !r->posted)
		return (0);
	if (r->op == MKV_WIRE_PUT && o->hdr.status == 0)
		return (0);				/* its READs are back */
	return (r->wrote || line_out(line) > 0 || !mkv_list_empty(&line->outs));
}

int
mkv_chan_reply(struct mkv_req *r, struct mkv_out *o)
{
	struct mkv_chan *ch = req_chan(r);
	struct mkv_line *line = req_line(r);
	const struct mkv_wire_object *body = o->body;
	struct mkv_part *p;

	if (line == NULL && r->carrier != MKV_WIRE_CONTROL_RDMA && o->hdr.status == -MKV_E_CLOSED) {
		if (ch == NULL && r->c->state == CONN_LOOSE)
			return (0);			/* nobody is left to hear it */
		if (ch != NULL)
			ctl_keep(ch, o);
		(void)ctl_tell(chan_of(r->c), o);	/* no news of the channel comes to its client by the channel */
		return (1);
	}
	/* It gave its line back while it waited for its client. What failed with its line has been told by another. */
	if (ch != NULL && ch->dc && line == NULL && r->carrier == MKV_WIRE_CONTROL_RDMA && o->hdr.status != -MKV_E_CLOSED) {
		o->busy = 1;
		o->carrier = r->carrier;
		mkv_chan_req_done(r);
		dc_reply_late(ch, o);
		return (1);
	}
	/* By another way, and with nothing to be moved, it never had a line of DC. */
	if (ch == NULL || (line == NULL && (r->carrier == MKV_WIRE_CONTROL_RDMA || o->pay_bytes != 0)))
		return (0);
	o->busy = 1;
	o->carrier = r->carrier;
	o->flush_addr = r->wrote ? r->last_addr : 0;
	o->flush_rkey = r->last_rkey;
	if (o->pay_bytes == 0) {
		if ((o->hdr.flags & MKV_WIRE_F_MORE) == 0)
			mkv_chan_req_done(r);
		if (o->carrier != MKV_WIRE_CONTROL_RDMA && (line == NULL || !reply_waits(line, r, o))) {
			ctl_out_soon(ch, o);
			return (1);
		}
		mkv_list_push_tail(&line->outs, &o->link);
		line_touch(line);
		return (1);
	}
	o->hdr.flags |= MKV_WIRE_F_REMOTE;
	p = MKV_CONTAINER_OF(o, struct mkv_part, out);
	xfer_begin(line, p, XFER_WRITE, body->off - r->u.get.off, p->skip);
	return (1);
}

/* ---- Posting --------------------------------------------------------------------------------------------------------------- */

static uint32_t
piece_window(const struct mkv_line *line, uint32_t n)
{
	if (line->window != 0 && line->window + n > line->rail->conf.window_bytes)
		return (0);
	return (n);
}

/* 1: posted; 0: the window is full. */
static int
piece_post(struct mkv_line *line, struct mkv_xfer *x)
{
	struct mkv_part *p = xfer_part(x);
	struct mkv_req *r = p->req;
	const struct mkv_wire_seg *s = &xfer_remote(p)->seg[x->seg_i];
	const struct mkv_rdma_mem *mem = p->n_run != 0 ? line->rail->arena[p->drive] : line->rail->stage;
	uint32_t n, lkey, rkey;
	uint64_t remote = s->addr + x->seg_off;
	struct line_rec *rec;
	uint8_t *at;

	MKV_ASSERT(mkv_part_seg(r, p, x->pos, &at, &n) == 0);
	n = MKV_MIN(MKV_MIN(n, x->left), MKV_MIN(line->rail->conf.piece_bytes, s->bytes - x->seg_off));
	n = (uint32_t)MKV_MIN((uint64_t)n, mkv_rdma_mem_keys(mem, at, &lkey, &rkey));
	MKV_ASSERT(n > 0);
	if (piece_window(line, n) == 0)
		return (0);
	rec = line_note(line, x->kind == XFER_READ ? REC_READ : REC_WRITE, n, p, NULL);
	rec->addr = remote + n - 1;
	rec->rkey = s->rkey;
	r->posted = 1;
	if (x->kind == XFER_READ) {
		line->reads++;
		mkv_rdma_qp_read(line->qp, at, lkey, remote, s->rkey, n, n == x->left ? MKV_RDMA_SIGNAL : 0, NULL);
	} else {
		r->wrote = 1;
		r->last_addr = rec->addr;
		r->last_rkey = s->rkey;
		mkv_rdma_qp_write(line->qp, at, lkey, remote, s->rkey, n, 0, NULL);
	}
	line->window += n;
	x->out++;
	x->pos += n;
	x->left -= n;
	x->seg_off += n;
	if (x->seg_off == s->bytes) {
		x->seg_i++;
		x->seg_off = 0;
	}
	return (1);
}

/* The data of a part is out: its answer behind it. */
static int
xfer_answer(struct mkv_line *line, struct mkv_xfer *x)
{
	struct mkv_part *p = xfer_part(x);

	if (!line_has_room(line))
		return (0);
	if ((p->out.hdr.flags & MKV_WIRE_F_MORE) == 0) {
		mkv_chan_req_done(p->req);
		mkv_req_end_sent(p->req);
	}
	if (p->out.carrier == MKV_WIRE_CONTROL_RDMA)
		(void)line_send(line, &p->out.hdr, p->out.body, &p->out);
	else {
		p->out.flush_addr = p->req->last_addr;
		p->out.flush_rkey = p->req->last_rkey;
		line_flush(line, &p->out, NULL);
	}
	p->req->wrote = 0;
	xfer_posted(x);
	x->kind = XFER_NONE;
	return (1);
}

/* The client may think of the next part. */
static int
xfer_ack(struct mkv_line *line, struct mkv_xfer *x)
{
	struct mkv_part *p = xfer_part(x);

	/* The word finds memory where the part's message lay. */
	if (p->req->carrier != MKV_WIRE_CONTROL_RDMA) {
		mkv_chan_part_done(p);
		ctl_ack(line->ch, p->req);
	} else if (line_word(line, p->req->op, p->req->id, MKV_WIRE_F_MORE, 0, MKV_REASON_NONE) != 0)
		return (0);
	xfer_over_run(p);
	return (1);
}

/* One step of the transfer whose turn it is. 0: nothing more can be posted now. */
static int
pump_xfer(struct mkv_line *line)
{
	struct mkv_xfer *x = MKV_CONTAINER_OF(line->xfers.next, struct mkv_xfer, link);

	if (x->kind == XFER_ACK)
		return (xfer_ack(line, x));
	if (x->left != 0 && !piece_post(line, x))
		return (0);
	if (x->left == 0 && x->kind == XFER_WRITE)
		return (xfer_answer(line, x));
	if (x->left == 0)
		xfer_posted(x);
	else {
		mkv_list_remove(&x->link);
		mkv_list_push_tail(&line->xfers, &x->link);
	}
	return (1);
}

static void
pump_out(struct mkv_line *line)
{
	struct mkv_out *o = MKV_CONTAINER_OF(mkv_list_pop(&line->outs), struct mkv_out, link);
	const struct line_rec *newest = line_newest(line);

	if (o->carrier == MKV_WIRE_CONTROL_RDMA)
		(void)line_send(line, &o->hdr, o->body, o);
	else if (o->flush_addr == 0 && newest == NULL)
		ctl_out(line->ch, o);
	else
		line_flush(line, o, newest);
}

void
xfer_pump(struct mkv_line *line)
{
	int more = 1;

	while (more && line_is_open(line) && line_has_room(line)) {
		if (!mkv_list_empty(&line->outs))
			pump_out(line);
		else
			more = !mkv_list_empty(&line->xfers) && pump_xfer(line);
	}
}

/* ---- Completions ----------------------------------------------------------------------------------------------------------- */

/* n more bytes of p have come. */
static void
read_crc(struct mkv_part *p, uint32_t n)
{
	if (!p->check)
		return;
	while (n != 0) {
		uint32_t room;
		uint8_t *at;

		MKV_ASSERT(mkv_part_seg(p->req, p, p->crc_pos, &at, &room) == 0);
		room = MKV_MIN(room, n);
		mkv_part_crc_add(p, at, room);
		n -= room;
	}
}

/* All of it is there, or nothing more comes. */
static void
read_end(struct mkv_line *line, struct mkv_part *p)
{
	struct mkv_xfer *x = &p->x;
	struct mkv_metrics *m = line->rail->f->m;

	if (!x->failed && !x->stopped) {
		mkv_metric_time(m, MKV_M_front_rdma_transfer_seconds, mkv_now_ns() - x->begin_ns);
		mkv_metric_add(m, MKV_M_front_received_bytes_total, 0, p->bytes);
		if (p->ack && line_is_open(line)) {
			x->kind = XFER_ACK;
			mkv_list_push_head(&line->xfers, &x->link);
			line_touch(line);
			return;
		}
	}
	xfer_over_run(p);
}

static void
done_read(struct mkv_line *line, const struct line_rec *rec, int status)
{
	struct mkv_part *p = rec->part;

	line->window -= rec->bytes;
	line->reads--;
	p->x.out--;
	if (status != 0)
		p->x.failed = 1;
	else if (!p->x.failed && !p->x.stopped)
		read_crc(p, rec->bytes);
	if (p->x.out == 0 && p->x.left == 0)
		read_end(line, p);
}

static void
done_write(struct mkv_line *line, const struct line_rec *rec)
{
	struct mkv_part *p = rec->part;

	line->window -= rec->bytes;
	p->x.out--;
	/* One that goes on ends with its SEND. */
	if (p->x.stopped && p->x.kind == XFER_WRITE && p->x.out == 0)
		xfer_over_run(p);
}

void
xfer_done(struct mkv_rdma_qp *qp, void *cookie MKV_UNUSED, int status)
{
	struct mkv_line *line = mkv_rdma_qp_owner(qp);
	struct line_rec rec;

	MKV_CHECK_OBJ(line, LINE_MAGIC);
	MKV_ASSERT(line_out(line) > 0);
	rec = line->rec[line->rec_head++ % LINE_SENDS_MAX];
	line->moved_ns = mkv_now_ns();
	/* The path is there, whatever came back by it; that the client has receives only a message says. */
	if (status == 0)
		line->ch->n_path = 0;
	switch ((enum line_rec_kind)rec.kind) {
	case REC_READ:
		done_read(line, &rec, status);
		break;
	case REC_WRITE:
		done_write(line, &rec);
		break;
	case REC_SEND:
		if (status == 0)
			line->ch->n_rnr = 0;
		if (rec.o != NULL)
			out_end(rec.o, status);
		break;
	case REC_FLUSH:
		if (status == 0)
			ctl_out(line->ch, rec.o);
		else
			ctl_lost(line->ch, rec.o);
		break;
	}
	if (line_is_open(line) && (!mkv_list_empty(&line->xfers) || !mkv_list_empty(&line->outs)))
		line_touch(line);
	line_rest(line);
}

void
xfer_break(struct mkv_line *line)
{
	struct mkv_list *l;

	while ((l = mkv_list_pop(&line->outs)) != NULL)
		ctl_lost(line->ch, MKV_CONTAINER_OF(l, struct mkv_out, link));
	/* Those of ended requests too: each stop may bring the next one of its request to the list. */
	while (!mkv_list_empty(&line->xfers)) {
		struct mkv_part *p = xfer_part(MKV_CONTAINER_OF(line->xfers.next, struct mkv_xfer, link));

		xfer_stop(p);
		if (p->x.kind == XFER_NONE)
			mkv_req_run(p->req);
	}
	line_rest(line);
}
