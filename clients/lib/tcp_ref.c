/*
 * Values by reference: on the unix socket of a server that can (REGIONS, proto/wire.h) large payload does not go through the socket.
 *
 *   get                          the server copies it into a chunk of the connection's window, the loop from there to the caller's memory (tcp_rx.c)
 *   the same, local_get in_place the server copies it into the caller's region (into.c)
 *   put from the caller's region the server copies it out of the region: nobody else touches it
 *   put from other memory        the loop copies it into a chunk, the server from there
 *   of a GPU, a put stream       by the socket; so is what is small, what is more than the window's share, and what comes when there is no room
 *
 * The loop's thread. Owns the window and what of it belongs to which slot. The way is chosen when a request's first frame is made, and holds for all of its frames:
 * a put is answered once, so its chunk comes back once.
 *
 * Why no byte reaches a caller who has returned: a server writes to windows alone (but see into.c), and what is copied out of one is copied while the op is lent. Why no chunk is
 * given to two: it is its slot's until the answer has come, however early the request ended. When the connection ends, nobody knows what the server is
 * still at; so the window ends with it, and another connection has its own.
 *
 * A put by the caller's region has left its memory to the server while the op is not lent, for a caller must be able to leave at his deadline. If he then writes
 * to it, the server sees other bytes than those that the CRCs were made of, and refuses them (CORRUPT): such a put can only fail. A server that does not verify puts stores what it sees
 * with these CRCs, and whoever reads that has a miss (docs/internals/regions.md): the outcome of a put that timed out is open, wrong bytes are none. Where the server would
 * make the CRCs (NO_CRC) it could not tell, so those go through the window, where nobody writes before the answer.
 *
 * Fails: never; what cannot go this way goes by the socket.
 */
#include "config.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "clients/lib/into.h"
#include "clients/lib/tcp_priv.h"
#include "common/base/clock.h"

#define REF_FROM_BYTES	(64u * 1024)		/* measured: here both ways take the same time; less goes into the socket's buffer at once */
#define REF_SHARE	2u			/* one request has this part of the window at most: two of the largest fit */
#define REF_SEND_BYTES	(1024u * 1024)		/* copied for one send: then the server begins with it */

_Static_assert(sizeof(struct mkv_wire_put) + MKV_WIRE_NS_MAX + 2 * MKV_WIRE_KEY_MAX + 8 + 4 * PART_CRCS_MAX + 8 + MKV_WIRE_SEGS_MAX * sizeof(struct mkv_wire_seg) <= 4096,
    "the longest PUT body");

static struct mkv_client *
ref_client(const struct conn *c)
{
	return (c->srv->loop->c);
}

/* ---- choosing ---- */

void
mkv_ref_no_window(struct conn *c)
{
	mkv_shmwin_fini(&c->ref.window);
	c->ref.no_window = 1;
}

static void
window_failed(struct conn *c)
{
	mkv_ref_no_window(c);
	client_count(ref_client(c), CC_local_regions_refused_total, 1);
}

/* Asked for by each request that wants it: it grows with them, and is shown when it is whole. */
static void
window_grow(struct conn *c)
{
	struct shmwin *w = &c->ref.window;
	int r, fd;

	if ((r = mkv_shmwin_step(w, ref_client(c)->cf.local_window)) == 0)
		return;
	if (r < 0 || (fd = fcntl(w->fd, F_DUPFD_CLOEXEC, 3)) < 0)
		window_failed(c);
	else
		mkv_pass_show(c, WINDOW_NUMBER, fd, w->bytes);
}

static int
window_up(struct conn *c)
{
	int r;

	if (c->ref.no_window)
		return (0);
	if ((r = mkv_pass_want(c, WINDOW_NUMBER)) == MKV_E_AGAIN)
		window_grow(c);
	return (r == 1);
}

static int
window_choose(struct conn *c, struct slot *s, uint64_t bytes)
{
	if (bytes > ref_client(c)->cf.local_window / REF_SHARE || !window_up(c))
		return (WAY_SOCKET);
	if (mkv_shmwin_take(&c->ref.window, bytes, &s->chunk) == 0)
		return (WAY_WINDOW);
	client_count(ref_client(c), CC_local_window_full_total, 1);
	return (WAY_SOCKET);
}

/* Shown with its first use, which goes another way. */
static int
region_up(struct conn *c, struct mkv_region *g)
{
	int r = mkv_pass_want(c, g->number), fd;
	uint64_t bytes;

	if (r == MKV_E_AGAIN && (fd = mkv_region_pass(g, &bytes)) >= 0)
		mkv_pass_show(c, g->number, fd, bytes);
	return (r == 1);
}

static int
put_by_region(struct conn *c, const struct op *o)
{
	return (o->region != NULL && o->region->number != 0 && !o->c->cf.no_verify && mkv_region_holds(o) && mkv_into_whole(o) &&
	    mkv_op_pieces_fit(o, o->iov_bytes, c->part_bytes, MKV_WIRE_SEGS_MAX) && region_up(c, o->region));
}

static int
get_by_region(struct conn *c, struct leg *l)
{
	struct op *o = l->op;

	if (!mkv_into_may(o) || !region_up(c, o->region))
		return (0);
	mkv_into_begin(o);
	l->slot->into = o->region->number;
	return (1);
}

static int
ref_way(struct conn *c, struct leg *l)
{
	const struct op *o = l->op;
	uint64_t bytes = l->wire_op == MKV_WIRE_PUT ? o->iov_bytes : mkv_get_room(o);

	if (bytes < REF_FROM_BYTES)
		return (WAY_SOCKET);
	if (l->wire_op == MKV_WIRE_PUT && put_by_region(c, o))
		return (WAY_REGION);
	if (l->wire_op == MKV_WIRE_GET && get_by_region(c, l))
		return (WAY_REGION);
	return (window_choose(c, l->slot, bytes));
}

/* ---- a put ---- */

static void
put_piece(struct op *o, uint64_t off, uint8_t *to, uint64_t bytes)
{
	struct iovec v;
	uint64_t got;

	for (; bytes > 0; bytes -= got, off += got, to += got) {
		(void)mkv_op_iov_slice(o, off, bytes, &v, 1, &got);
		memcpy(to, v.iov_base, v.iov_len);
	}
}

/* The next part, into the window. CRCs are made of the copy, chunk by chunk, while it is in the cache; the first part's are there already. */
static void
put_fill(struct conn *c, struct leg *l)
{
	struct op *o = l->op;
	uint64_t bytes = MKV_MIN(o->iov_bytes - l->tx_off, c->part_bytes);
	uint8_t *to = c->ref.window.base + window_off(&l->slot->chunk) + l->tx_off;
	int crcs = !o->c->cf.no_verify && (l->tx_off > 0 || o->crcs_for != bytes);
	unsigned n = 0;

	for (uint64_t at = 0, step; at < bytes; at += step) {
		step = MKV_MIN(bytes - at, MKV_CRC_CHUNK);
		put_piece(o, l->tx_off + at, to + at, step);
		if (crcs)
			c->ref.crcs[n++] = mkv_crc32c(0, to + at, step);
	}
	if (crcs)
		l->crcs = c->ref.crcs;
	c->ref.copied += bytes;
}

void
mkv_ref_choose(struct conn *c, struct leg *l)
{
	struct op *o = l->op;

	if (!c->ref.on || o->dev != NULL || (o->kind != OPK_PUT && l->wire_op != MKV_WIRE_GET))
		return;
	if (l->tx_off == 0)
		l->slot->way = (uint8_t)ref_way(c, l);
	if (l->wire_op == MKV_WIRE_PUT && l->slot->way == WAY_WINDOW)
		put_fill(c, l);
}

int
mkv_ref_full(const struct conn *c)
{
	return (c->ref.copied >= REF_SEND_BYTES);
}

/* ---- segments ---- */

static unsigned
segs_window(const struct slot *s, uint64_t off, uint64_t bytes, struct mkv_wire_seg *seg)
{
	seg[0] = (struct mkv_wire_seg){ .addr = window_off(&s->chunk) + off, .bytes = (uint32_t)bytes, .rkey = WINDOW_NUMBER };
	return (1);
}

static unsigned
segs_region(struct op *o, uint64_t off, uint64_t bytes, struct mkv_wire_seg *seg)
{
	struct iovec v;
	uint64_t got;
	unsigned n = 0;

	for (; bytes > 0; bytes -= got, off += got) {
		(void)mkv_op_iov_slice(o, off, bytes, &v, 1, &got);
		MKV_ASSERT(n < MKV_WIRE_SEGS_MAX);
		seg[n++] = (struct mkv_wire_seg){ .addr = (uint64_t)((uint8_t *)v.iov_base - o->region->base), .bytes = (uint32_t)got, .rkey = o->region->number };
	}
	return (n);
}

static void
put_counted(struct leg *l, uint64_t bytes)
{
	client_count(l->op->c, CC_sent_bytes_total, bytes);
	client_count(l->op->c, l->slot->way == WAY_REGION ? CC_local_region_put_bytes_total : CC_local_window_put_bytes_total, bytes);
}

void
mkv_ref_frame(struct leg *l, struct mkv_hdr *h, uint8_t *body)
{
	struct mkv_wire_seg *seg = (struct mkv_wire_seg *)(void *)(body + h->body_bytes);
	uint64_t off = l->tx_off, bytes = l->wire_op == MKV_WIRE_PUT ? l->frame_left : mkv_get_room(l->op);
	unsigned n;

	if (l->slot->way == WAY_SOCKET)
		return;
	n = l->slot->way == WAY_WINDOW ? segs_window(l->slot, off, bytes, seg) : segs_region(l->op, off, bytes, seg);
	h->body_bytes += n * (uint32_t)sizeof(seg[0]);
	h->flags |= MKV_WIRE_F_REMOTE;
	l->crcs = NULL;
	if (l->wire_op != MKV_WIRE_PUT)
		return;
	put_counted(l, bytes);
	mkv_frame_took(l, bytes);
}

/* ---- a get ---- */

int
mkv_ref_fits(const struct slot *s, const struct mkv_hdr *h)
{
	return (h->payload_bytes == 0 || ((h->flags & MKV_WIRE_F_REMOTE) != 0) == (s->way != WAY_SOCKET));
}

const uint8_t *
mkv_ref_place(const struct conn *c, const struct slot *s, uint64_t off)
{
	return (c->ref.window.base + window_off(&s->chunk) + off);
}

/* ---- the end ---- */

void
mkv_ref_reset(struct conn *c)
{
	mkv_pass_reset(c);
	mkv_shmwin_fini(&c->ref.window);
	c->ref.on = c->ref.stable = c->ref.no_window = 0;
}
