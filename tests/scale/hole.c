/*
 * The medium with a hole (hole.h). What goes to the hole completes in the next pump, never inside the call; a close forgets those that did not.
 */
#include "config.h"

#include "tests/scale/hole.h"

#include <stdlib.h>
#include <string.h>

#include "common/base/assert.h"

#define HOLE_MAGIC	0x401e401eu

struct hole {
	struct mkv_media m;
	struct mkv_media *under;
	uint64_t	data_off;
	struct mkv_mio	*done, **done_last;	/* to be completed */
};

static struct hole *
hole_of(struct mkv_media *m)
{
	MKV_CHECK_OBJ(m, HOLE_MAGIC);
	return (MKV_CONTAINER_OF(m, struct hole, m));
}

static void
hole_done(struct hole *h, struct mkv_mio *mio)
{
	mio->next = NULL;
	*h->done_last = mio;
	h->done_last = &mio->next;
}

static void
hole_read(struct mkv_media *m, struct mkv_mio *mio, void *buf, uint32_t bytes, uint64_t off, int buf_idx)
{
	struct hole *h = hole_of(m);
	struct mkv_media *u = h->under;

	if (off < u->total_bytes) {
		u->ops->read(u, mio, buf, bytes, off, buf_idx);
		return;
	}
	memset(buf, 0, bytes);
	hole_done(h, mio);
}

static void
hole_write(struct mkv_media *m, struct mkv_mio *mio, const void *buf, uint32_t bytes, uint64_t off, int buf_idx)
{
	struct hole *h = hole_of(m);

	if (off < h->data_off) {
		h->under->ops->write(h->under, mio, buf, bytes, off, buf_idx);
		return;
	}
	hole_done(h, mio);
}

static void
hole_flush(struct mkv_media *m, struct mkv_mio *mio)
{
	struct mkv_media *u = hole_of(m)->under;

	u->ops->flush(u, mio);
}

static int
hole_pump(struct mkv_media *m, uint64_t until_ns)
{
	struct hole *h = hole_of(m);
	struct mkv_mio *mio = h->done;
	int n = h->under->ops->pump(h->under, mio != NULL ? 0 : until_ns);

	h->done = NULL;
	h->done_last = &h->done;
	while (mio != NULL) {
		struct mkv_mio *next = mio->next;

		mio->done(mio, 0);
		mio = next;
		n++;
	}
	return (n);
}

static void *
hole_map(struct mkv_media *m, uint64_t off, uint64_t bytes)
{
	(void)m;
	(void)off;
	(void)bytes;
	return (NULL);
}

static void
hole_close(struct mkv_media *m)
{
	struct hole *h = hole_of(m);

	mkv_media_close(&h->under);
	m->magic = 0;
	free(h);
}

static const struct mkv_media_ops hole_ops = {
	.read = hole_read, .write = hole_write, .flush = hole_flush, .pump = hole_pump, .map = hole_map, .close = hole_close,
};

struct mkv_media *
hole_create(struct mkv_media *under, uint64_t data_off, uint64_t total_bytes)
{
	struct hole *h = calloc(1, sizeof(*h));

	MKV_ASSERT(h != NULL);
	h->m = (struct mkv_media){ .magic = HOLE_MAGIC, .ops = &hole_ops, .name = "hole", .total_bytes = total_bytes };
	h->under = under;
	h->data_off = data_off;
	h->done_last = &h->done;
	return (&h->m);
}
