/*
 * Memory that the CPU may not touch, carried over a socket: through a bounce buffer of the connection.
 *
 *   put   a part is copied from the device to the buffer before its header is made (which carries the CRCs), and sent from there
 *   get   what comes is received into the buffer, its CRCs compared there, and only chunks that match are copied to the device
 *
 * mkv_stage_look(), mkv_stage_read() run on callers' threads, the rest on the op's loop. Owns the buffers it hands out, until mkv_stage_free(). A connection
 * has at most one for sending (a part, 4 MiB at most) and one for receiving (STAGE_BYTES), made when it first carries such memory: so nothing depends on the
 * size of a value, and no op waits for another's buffer.
 * Invariants: device memory is touched only while the op is lent, in pieces of at most STAGE_BYTES, none of which begins after the op's deadline; nothing of a
 * piece moves any more when mkv_stage_copy() has returned.
 * Fails: memory for a buffer (MKV_E_NOMEM), the driver (MKV_E_IO): the op ends with it, the sentence is the handle's (mkv_gpu_why()).
 */
#include "config.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "clients/lib/client_priv.h"
#include "common/base/clock.h"

#define PAGE_BYTES	4096u

void
mkv_gpu_failed(struct mkv_client *c, const char *why)
{
	client_count(c, CC_gpu_errors_total, 1);
	(void)pthread_mutex_lock(&c->mutex);
	(void)snprintf(c->gpu_why, sizeof(c->gpu_why), "%s", why);
	(void)pthread_mutex_unlock(&c->mutex);
}

int
mkv_gpu_why(struct mkv_client *c, char *why, size_t why_bytes)
{
	int saved = errno, r = mkv_client_enter(c);

	if (r == 0 && (why == NULL || why_bytes == 0))
		r = MKV_E_INVAL;
	if (r == 0) {
		(void)pthread_mutex_lock(&c->mutex);
		(void)snprintf(why, why_bytes, "%s", c->gpu_why);
		(void)pthread_mutex_unlock(&c->mutex);
	}
	errno = saved;
	return (r);
}

/* ---- callers' threads ---- */

static int
look_one(struct mkv_client *c, const void *p, int *device)
{
	char why[MKV_GPU_WHY_BYTES];
	struct mkv_gpu_mem m;
	int r;

	if (!mkv_region_memory(c, p, &m) && (r = mkv_gpu_what(p, &m, why)) != 0) {
		mkv_gpu_failed(c, why);
		return (r);
	}
	*device = m.kind == MKV_GPU_HOST ? -1 : m.device;
	return (0);
}

int
mkv_stage_look(struct op *o)
{
	int device = -1, r;

	if (!mkv_gpu_here())
		return (0);
	for (unsigned i = 0; i < o->n_iov; i++) {
		if (o->iov[i].iov_len == 0)
			continue;
		if ((r = look_one(o->c, o->iov[i].iov_base, &device)) != 0)
			return (r);
		if (device >= 0 && o->dev == NULL) {
			o->dev = o->n_iov <= IOV_INLINE ? o->dev_inline : malloc(o->n_iov * sizeof(o->dev[0]));
			if (o->dev == NULL)
				return (MKV_E_NOMEM);
			for (unsigned k = 0; k < o->n_iov; k++)
				o->dev[k] = -1;
		}
		if (o->dev != NULL)
			o->dev[i] = (int16_t)device;
	}
	return (0);
}

/* Under c->gpu_lock. */
static int
read_device(struct mkv_client *c, int device, void *to, const void *from, size_t bytes, uint64_t until_ns, char *why)
{
	int r = 0, e;

	if (c->gpu_lane == NULL && (c->gpu_lane = calloc(1, sizeof(*c->gpu_lane))) == NULL)
		return (MKV_E_NOMEM);
	for (size_t at = 0, step; at < bytes && r == 0; at += step) {
		step = MKV_MIN(bytes - at, (size_t)STAGE_BYTES);
		if (mkv_now_ns() >= until_ns)
			return (MKV_E_TIMEOUT);
		/* The driver's address is no pointer of ours. */
		r = mkv_gpu_queue(c->gpu_lane, device, (void *)((uintptr_t)from + at), (uint8_t *)to + at, step, 0, why);
		if ((e = mkv_gpu_settle(c->gpu_lane, why)) != 0 && r == 0)
			r = e;
	}
	if (r != 0)
		mkv_gpu_failed(c, why);
	return (r);
}

int
mkv_stage_read(struct mkv_client *c, void *to, const void *from, size_t bytes, uint64_t until_ns)
{
	char why[MKV_GPU_WHY_BYTES];
	int device = -1, r;

	if (mkv_gpu_here() && (r = look_one(c, from, &device)) != 0)
		return (r);
	if (device < 0) {
		memcpy(to, from, bytes);
		return (0);
	}
	(void)pthread_mutex_lock(&c->gpu_lock);
	r = read_device(c, device, to, from, bytes, until_ns, why);
	(void)pthread_mutex_unlock(&c->gpu_lock);
	return (r);
}

/* ---- the loop ---- */

static struct mkv_gpu_lane *
stage_lane(struct loop *l)
{
	if (l->gpu_lane == NULL)
		l->gpu_lane = calloc(1, sizeof(*l->gpu_lane));
	return (l->gpu_lane);
}

static int
stage_device(const struct op *o)
{
	for (unsigned i = 0; i < o->n_iov; i++)
		if (o->dev[i] >= 0)
			return (o->dev[i]);
	return (0);
}

int
mkv_stage_room(struct stage *s, struct op *o, uint32_t bytes)
{
	struct mkv_gpu_lane *lane = stage_lane(o->loop);

	if (s->bytes >= bytes)
		return (0);
	mkv_stage_free(s, o->loop);
	bytes = MKV_ALIGN_UP(bytes, PAGE_BYTES);
	if (lane == NULL || (s->buf = aligned_alloc(PAGE_BYTES, bytes)) == NULL)
		return (MKV_E_NOMEM);
	s->bytes = bytes;
	s->device = stage_device(o);
	s->pinned = mkv_gpu_pin(lane, s->device, s->buf, bytes);
	return (0);
}

void
mkv_stage_free(struct stage *s, struct loop *l)
{
	if (s->pinned)
		mkv_gpu_unpin(l->gpu_lane, s->device, s->buf);
	free(s->buf);
	memset(s, 0, sizeof(*s));
}

/* Queue or make the copies of one piece. */
static int
stage_piece(struct op *o, uint64_t off, uint8_t *buf, uint64_t bytes, int in, char *why)
{
	struct iovec v;
	uint64_t got;
	int r = 0;

	for (; bytes > 0 && r == 0; bytes -= got, off += got, buf += got) {
		(void)mkv_op_iov_slice(o, off, bytes, &v, 1, &got);
		MKV_ASSERT(got > 0);
		if (o->dev[o->iov_at] >= 0)		/* the cursor stands at the slice's iovec */
			r = mkv_gpu_queue(o->loop->gpu_lane, o->dev[o->iov_at], v.iov_base, buf, v.iov_len, in, why);
		else
			memcpy(in ? v.iov_base : buf, in ? buf : v.iov_base, v.iov_len);
	}
	return (r);
}

int
mkv_stage_copy(struct op *o, uint64_t off, uint8_t *buf, uint64_t bytes, int in)
{
	char why[MKV_GPU_WHY_BYTES], later[MKV_GPU_WHY_BYTES];
	int r = 0, e;

	MKV_ASSERT(mkv_op_own(o) == OP_LENT);
	for (uint64_t step; bytes > 0 && r == 0; bytes -= step, off += step, buf += step) {
		step = MKV_MIN(bytes, STAGE_BYTES);
		if (mkv_now_ns() >= o->deadline_ns)
			return (MKV_E_TIMEOUT);
		r = stage_piece(o, off, buf, step, in, why);
		/* Also after a failure: what was queued before it must not move later. */
		if ((e = mkv_gpu_settle(o->loop->gpu_lane, r == 0 ? why : later)) != 0 && r == 0)
			r = e;
		if (r == 0)
			client_count(o->c, CC_gpu_staged_bytes_total, step);
	}
	if (r != 0)
		mkv_gpu_failed(o->c, why);
	return (r);
}

/* ---- what a NIC wrote ---- */

static int
stage_flush(struct op *o)
{
	struct mkv_gpu_lane *lane = stage_lane(o->loop);
	char why[MKV_GPU_WHY_BYTES];
	int r;

	if (o->region == NULL || !o->region->flush)
		return (0);
	if (lane == NULL)
		return (MKV_E_NOMEM);
	if ((r = mkv_gpu_flush(lane, o->region->memory.device, why)) != 0)
		mkv_gpu_failed(o->c, why);
	return (r);
}

/* n bytes at off of the value are at p: one CRC for each chunk that they touch. Returns how many. */
static uint32_t
stage_compare(struct leg *l, const uint8_t *p, uint64_t off, uint64_t n, const uint32_t *crcs)
{
	uint32_t k = 0;

	for (uint64_t step; n > 0; n -= step, off += step, p += step) {
		step = MKV_MIN(n, MKV_CRC_CHUNK - off % MKV_CRC_CHUNK);
		if (mkv_crc32c(0, p, step) == crcs[k++] || l->crc_bad)
			continue;
		l->crc_bad = 1;
		l->bad_off = off / MKV_CRC_CHUNK * MKV_CRC_CHUNK;
	}
	return (k);
}

int
mkv_stage_check(struct leg *l, uint64_t bytes, const uint32_t *crcs, uint32_t n_crcs)
{
	struct op *o = l->op;
	struct loop *lo = o->loop;
	uint64_t off = l->rx_off;
	int r;

	if ((r = stage_flush(o)) != 0 || n_crcs == 0 || bytes == 0)
		return (r);
	if (lo->stage == NULL && (lo->stage = calloc(1, sizeof(*lo->stage))) == NULL)
		return (MKV_E_NOMEM);
	if ((r = mkv_stage_room(lo->stage, o, STAGE_BYTES)) != 0)
		return (r);
	for (uint64_t step; bytes > 0; bytes -= step, off += step) {
		step = MKV_MIN(bytes, STAGE_BYTES - (o->off + off) % MKV_CRC_CHUNK);
		if ((r = mkv_stage_copy(o, off, lo->stage->buf, step, 0)) != 0)
			return (r);
		crcs += stage_compare(l, lo->stage->buf, o->off + off, step, crcs);
	}
	return (0);
}
