/*
 * Driver "null": every request is done at once and nothing is kept. It shows what the bench itself costs.
 */
#include "config.h"
#include "bench/driver.h"

#include <stdlib.h>
#include <string.h>

#include "common/base/assert.h"

struct null_drv {
	struct bench_drv	base;
	struct bench_io		*done, **tail;
};

static int
null_open(struct bench_drv **out, const struct bench_drv_opts *o MKV_UNUSED, char *why MKV_UNUSED, size_t why_bytes MKV_UNUSED)
{
	struct null_drv *d = calloc(1, sizeof(*d));

	if (d == NULL)
		return (MKV_ERR_NOMEM);
	d->base.ops = &bench_driver_null;
	d->tail = &d->done;
	*out = &d->base;
	return (0);
}

static void
null_close(struct bench_drv *base)
{
	free(base);
}

static int
null_submit(struct bench_drv *base, struct bench_io *io)
{
	struct null_drv *d = (struct null_drv *)base;

	io->result = io->op == BENCH_GET ? (int64_t)io->bytes : io->op == BENCH_PUT ? 0 : (int64_t)io->n_keys;
	if (io->present != NULL)
		memset(io->present, 1, io->n_keys);
	io->next = NULL;
	*d->tail = io;
	d->tail = &io->next;
	return (0);
}

static void
null_wait(struct bench_drv *base MKV_UNUSED, uint64_t timeout_us MKV_UNUSED)
{
}

static unsigned
null_drain(struct bench_drv *base, struct bench_io **out, unsigned max)
{
	struct null_drv *d = (struct null_drv *)base;
	unsigned n = 0;

	for (; n < max && d->done != NULL; n++) {
		out[n] = d->done;
		d->done = d->done->next;
	}
	if (d->done == NULL)
		d->tail = &d->done;
	return (n);
}

const struct bench_driver bench_driver_null = {
	.name = "null", .open = null_open, .close = null_close, .submit = null_submit, .wait = null_wait, .drain = null_drain
};
