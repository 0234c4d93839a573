/*
 * The overlay (overlay.h). One thread; owns its pages. Requests are carried out when they are given and completed by the next pump.
 */
#include "config.h"

#include "tests/lab/overlay.h"

#include <stdlib.h>
#include <string.h>

#include "common/base/assert.h"

static struct overlay *
overlay_of(struct mkv_media *m)
{
	return (MKV_CONTAINER_OF(m, struct overlay, m));
}

static uint8_t *
overlay_own(struct overlay *o, uint64_t no)
{
	uint8_t *p = o->page[no];

	if (p != NULL)
		return (p);
	if (o->n_spare > 0)
		p = o->spare[--o->n_spare];
	else
		p = malloc(OVERLAY_PAGE);
	MKV_ASSERT(p != NULL);
	memcpy(p, o->base + no * OVERLAY_PAGE, OVERLAY_PAGE);
	o->page[no] = p;
	o->dirty[o->n_dirty++] = (uint32_t)no;
	return (p);
}

/* data NULL: the byte. */
static void
overlay_put(struct overlay *o, const uint8_t *data, int byte, uint64_t bytes, uint64_t off)
{
	MKV_ASSERT(off <= o->m.total_bytes && bytes <= o->m.total_bytes - off);
	while (bytes > 0) {
		uint64_t in = off % OVERLAY_PAGE, n = MKV_MIN(bytes, OVERLAY_PAGE - in);
		uint8_t *p = overlay_own(o, off / OVERLAY_PAGE);

		if (data != NULL) {
			memcpy(p + in, data, n);
			data += n;
		} else
			memset(p + in, byte, n);
		off += n;
		bytes -= n;
	}
}

void
overlay_write(struct overlay *o, const void *p, uint64_t bytes, uint64_t off)
{
	if (bytes > 0)
		overlay_put(o, p, 0, bytes, off);
}

void
overlay_fill(struct overlay *o, int byte, uint64_t bytes, uint64_t off)
{
	overlay_put(o, NULL, byte, bytes, off);
}

static void
overlay_queue(struct overlay *o, struct mkv_mio *mio)
{
	mio->next = NULL;
	*o->last = mio;
	o->last = &mio->next;
}

static void
overlay_media_read(struct mkv_media *m, struct mkv_mio *mio, void *buf, uint32_t bytes, uint64_t off, int buf_idx)
{
	struct overlay *o = overlay_of(m);
	uint8_t *to = buf;

	(void)buf_idx;
	MKV_ASSERT(off <= m->total_bytes && bytes <= m->total_bytes - off && off % OVERLAY_PAGE == 0 && bytes % OVERLAY_PAGE == 0);
	for (uint32_t i = 0; i < bytes; i += OVERLAY_PAGE) {
		const uint8_t *p = o->page[(off + i) / OVERLAY_PAGE];

		memcpy(to + i, p != NULL ? p : o->base + off + i, OVERLAY_PAGE);
	}
	overlay_queue(o, mio);
}

static void
overlay_media_write(struct mkv_media *m, struct mkv_mio *mio, const void *buf, uint32_t bytes, uint64_t off, int buf_idx)
{
	(void)buf_idx;
	overlay_write(overlay_of(m), buf, bytes, off);
	overlay_queue(overlay_of(m), mio);
}

static void
overlay_media_flush(struct mkv_media *m, struct mkv_mio *mio)
{
	overlay_queue(overlay_of(m), mio);
}

static int
overlay_media_pump(struct mkv_media *m, uint64_t until_ns)
{
	struct overlay *o = overlay_of(m);
	struct mkv_mio *mio = o->first, *next;
	int n = 0;

	(void)until_ns;
	o->first = NULL;
	o->last = &o->first;
	for (; mio != NULL; mio = next, n++) {
		next = mio->next;
		mio->done(mio, 0);
	}
	return (n);
}

static void
overlay_media_close(struct mkv_media *m)
{
	(void)m;
}

static const struct mkv_media_ops overlay_ops = {
	.read = overlay_media_read, .write = overlay_media_write, .flush = overlay_media_flush, .pump = overlay_media_pump, .close = overlay_media_close,
};

struct overlay *
overlay_create(const uint8_t *base, uint64_t bytes)
{
	struct overlay *o = calloc(1, sizeof(*o));
	uint64_t pages = bytes / OVERLAY_PAGE;

	MKV_ASSERT(o != NULL && bytes % OVERLAY_PAGE == 0);
	o->base = base;
	o->m.ops = &overlay_ops;
	o->m.name = "overlay";
	o->m.total_bytes = bytes;
	o->page = calloc(pages, sizeof(*o->page));
	o->dirty = calloc(pages, sizeof(*o->dirty));
	o->spare = calloc(pages, sizeof(*o->spare));
	MKV_ASSERT(o->page != NULL && o->dirty != NULL && o->spare != NULL);
	o->last = &o->first;
	return (o);
}

void
overlay_reset(struct overlay *o)
{
	overlay_forget_io(o);
	while (o->n_dirty > 0) {
		uint32_t no = o->dirty[--o->n_dirty];

		o->spare[o->n_spare++] = o->page[no];
		o->page[no] = NULL;
	}
}

void
overlay_forget_io(struct overlay *o)
{
	o->first = NULL;
	o->last = &o->first;
}

void
overlay_destroy(struct overlay **op)
{
	struct overlay *o = *op;

	overlay_reset(o);
	while (o->n_spare > 0)
		free(o->spare[--o->n_spare]);
	free(o->page);
	free(o->dirty);
	free(o->spare);
	free(o);
	*op = NULL;
}
