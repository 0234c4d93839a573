/*
 * A medium before another one: what a test does not watch passes. Tests only, one thread; the one behind it is closed with it.
 *
 *	struct mkv_media *m = media_pass(&p, in);
 *	p.ops.read = my_read;			which calls media_pass_read() for what it lets pass
 */
#ifndef MKV_TESTS_MEDIA_PASS_H
#define MKV_TESTS_MEDIA_PASS_H

#include "common/base/assert.h"
#include "worker/drive/media.h"

struct media_pass {
	struct mkv_media m;
	struct mkv_media_ops ops;
	struct mkv_media *in;
};

static inline struct mkv_media *
media_pass_in(struct mkv_media *m)
{
	return (MKV_CONTAINER_OF(m, struct media_pass, m)->in);
}

static inline void
media_pass_read(struct mkv_media *m, struct mkv_mio *mio, void *buf, uint32_t bytes, uint64_t off, int idx)
{
	media_pass_in(m)->ops->read(media_pass_in(m), mio, buf, bytes, off, idx);
}

static inline void
media_pass_write(struct mkv_media *m, struct mkv_mio *mio, const void *buf, uint32_t bytes, uint64_t off, int idx)
{
	media_pass_in(m)->ops->write(media_pass_in(m), mio, buf, bytes, off, idx);
}

static inline void
media_pass_flush(struct mkv_media *m, struct mkv_mio *mio)
{
	media_pass_in(m)->ops->flush(media_pass_in(m), mio);
}

static inline int
media_pass_pump(struct mkv_media *m, uint64_t until_ns)
{
	return (media_pass_in(m)->ops->pump(media_pass_in(m), until_ns));
}

static inline void *
media_pass_map(struct mkv_media *m, uint64_t off, uint64_t bytes)
{
	return (media_pass_in(m)->ops->map(media_pass_in(m), off, bytes));
}

static inline void
media_pass_close(struct mkv_media *m)
{
	mkv_media_close(&MKV_CONTAINER_OF(m, struct media_pass, m)->in);
}

static inline struct mkv_media *
media_pass(struct media_pass *p, struct mkv_media *in)
{
	p->in = in;
	p->m = *in;
	p->ops = (struct mkv_media_ops){
		.read = media_pass_read, .write = media_pass_write, .flush = media_pass_flush, .pump = media_pass_pump, .map = media_pass_map,
		.close = media_pass_close,
	};
	p->m.ops = &p->ops;
	return (&p->m);
}

#endif
