/*
 * Whose memory a request has, and how the far end gets at it.
 *
 *   a region        registered once with the device
 *   small           through a bounce buffer of the hub: copied, never lent
 *   of a GPU        only from a region, whose device memory was registered; else not at all: it goes by a connection, staged
 *   anything else   registered for this request, piece by piece, and given up with it
 *
 * mem_kind() is the one place that decides. The loop's thread. Owns what is registered for one request. Registrations of
 * memory that is no region are not kept: nobody tells us when it is unmapped, and the old pages would be served under the new address.
 * Fails: no bounce buffer is free (MKV_E_AGAIN: some come back); what cannot be registered, or has too many pieces: the request goes by a connection.
 */
#include "config.h"

#include <stdlib.h>
#include <string.h>

#include "clients/lib/rail_priv.h"

#define ONCE_MOST_BYTES	(256ull << 20)	/* registering more would keep the loop too long */
#define PIECES_MOST	100u		/* of one message: leaves room for a piece that lies in two registrations */
#define SEG_MOST_BYTES	(1ull << 30)

enum mem_kind { MEM_REGION, MEM_BOUNCE, MEM_ONCE, MEM_GPU };

static uint64_t
mem_bytes(const struct op *o, const struct leg *l)
{
	return (l->wire_op == MKV_WIRE_PUT ? o->iov_bytes : mkv_get_room(o));
}

static enum mem_kind
mem_kind(const struct op *o, uint64_t bytes)
{
	if (o->dev != NULL)
		return (mkv_region_holds(o) && o->region->memory.kind == MKV_GPU_DEVICE ? MEM_REGION : MEM_GPU);
	if (mkv_region_holds(o))
		return (MEM_REGION);
	return (bytes <= BOUNCE_BYTES ? MEM_BOUNCE : MEM_ONCE);
}

/* Pieces of each message: of a part of a put, of a get as a whole. */
static int
mem_pieces_fit(const struct op *o, const struct leg *l, uint64_t bytes, uint64_t part_bytes)
{
	return (mkv_op_pieces_fit(o, bytes, l->wire_op == MKV_WIRE_PUT ? part_bytes : UINT64_MAX, PIECES_MOST));
}

int
mkv_rail_mem_fits(const struct op *o, const struct leg *l, uint32_t part_bytes)
{
	uint64_t bytes = mem_bytes(o, l);

	if (l->no_rail)
		return (0);
	switch (mem_kind(o, bytes)) {
	case MEM_GPU:
		if (o->c->cf.transport == MKV_TRANSPORT_RDMA)
			mkv_gpu_failed(o->c, "transport rdma takes memory of a GPU only from a region of device memory (mkv_region_register)");
		return (0);
	case MEM_BOUNCE:
		return (1);
	case MEM_REGION:
		return (mem_pieces_fit(o, l, bytes, part_bytes));
	case MEM_ONCE:
		return (bytes <= ONCE_MOST_BYTES && mem_pieces_fit(o, l, bytes, part_bytes));
	}
	return (0);
}

static int
take_once(struct rail *r, struct rail_slot *s, uint64_t bytes)
{
	unsigned access = s->op == MKV_WIRE_PUT ? MKV_RDMA_READABLE : MKV_RDMA_READABLE | MKV_RDMA_WRITABLE;
	const struct op *o = s->leg->op;
	char why[WHY_BYTES];
	int e = 0;

	if ((s->once = calloc(o->n_iov, sizeof(s->once[0]))) == NULL)
		return (MKV_E_NOMEM);
	s->n_once = o->n_iov;
	for (unsigned i = 0; i < o->n_iov && bytes > 0 && e == 0; i++) {
		uint64_t n = MKV_MIN(o->iov[i].iov_len, bytes);

		if (n > 0)
			e = mkv_rdma_mem_add(&s->once[i], r->hub->dev, o->iov[i].iov_base, n, rail_access(&o->c->cf, access), why, sizeof(why));
		bytes -= n;
	}
	client_count(o->c, e == 0 ? CC_registrations_total : CC_registration_failures_total, 1);
	return (e);
}

int
mkv_rail_mem_take(struct rail *r, struct rail_slot *s)
{
	struct op *o = s->leg->op;
	uint64_t bytes = mem_bytes(o, s->leg);
	struct mkv_list *n;
	int e = 0;

	switch (mem_kind(o, bytes)) {
	case MEM_REGION:
		s->region = mkv_fabric_region(o->c->fabric, o->region, r->hub->idx, &e);
		return (e);
	case MEM_BOUNCE:
		if ((n = mkv_list_pop(&r->hub->bounce_free)) == NULL)
			return (MKV_E_AGAIN);
		s->bounce = MKV_CONTAINER_OF(n, struct bounce, link);
		return (0);
	case MEM_ONCE:
		return (take_once(r, s, bytes));
	case MEM_GPU:
		break;
	}
	return (MKV_E_UNSUPPORTED);
}

/* Registrations go before the caller may. */
void
mkv_rail_mem_drop(struct rail *r, struct rail_slot *s)
{
	for (unsigned i = 0; i < s->n_once; i++)
		mkv_rdma_mem_drop(&s->once[i]);
	free(s->once);
	s->once = NULL;
	s->n_once = 0;
	s->region = NULL;
	if (s->bounce != NULL)
		mkv_list_push_head(&r->hub->bounce_free, &s->bounce->link);
	s->bounce = NULL;
	if (s->lent)
		mkv_op_unlend(s->leg->op);
	s->lent = s->ready = 0;
}

/* Segments of bytes at p, which one registration covers (in chunks). How many; 0: they are not all there, or too many. */
static unsigned
segs_of(const struct mkv_rdma_mem *m, const uint8_t *p, uint64_t bytes, struct mkv_wire_seg *seg, unsigned max)
{
	uint32_t lkey, rkey = 0;
	unsigned n = 0;
	uint64_t step;

	for (; bytes > 0; bytes -= step, p += step) {
		step = MKV_MIN(MKV_MIN(bytes, mkv_rdma_mem_keys(m, p, &lkey, &rkey)), SEG_MOST_BYTES);
		if (step == 0 || n == max)
			return (0);
		seg[n++] = (struct mkv_wire_seg){ .addr = (uintptr_t)p, .bytes = (uint32_t)step, .rkey = rkey };
	}
	return (n);
}

unsigned
mkv_rail_mem_segs(struct rail *r, struct rail_slot *s, uint64_t off, uint64_t bytes, struct mkv_wire_seg *seg, unsigned max)
{
	const struct op *o = s->leg->op;
	unsigned n = 0, k;

	if (s->bounce != NULL)
		return (segs_of(r->hub->bounce_mem, s->bounce->buf, bytes, seg, max));
	for (unsigned i = 0; i < o->n_iov && bytes > 0; i++) {
		uint64_t len = o->iov[i].iov_len, take;

		if (off >= len) {
			off -= len;
			continue;
		}
		take = MKV_MIN(len - off, bytes);
		k = segs_of(s->region != NULL ? s->region : s->once[i], (const uint8_t *)o->iov[i].iov_base + off, take, seg + n, max - n);
		if (k == 0)
			return (0);
		n += k;
		off = 0;
		bytes -= take;
	}
	return (n);
}

void
mkv_rail_mem_fill(struct rail_slot *s, uint64_t bytes)
{
	uint8_t *to = s->bounce->buf;
	struct op *o = s->leg->op;
	struct iovec v;
	uint64_t got;

	for (uint64_t at = 0; at < bytes; at += got) {
		(void)mkv_op_iov_slice(o, at, bytes - at, &v, 1, &got);
		memcpy(to + at, v.iov_base, v.iov_len);
	}
}
