/*
 * Drivers "null" and "memcpy": every request is done at once, by the thread that asks. null moves nothing and shows what the bench itself
 * costs. memcpy copies a value into, or out of, memory of as many values as there are keys: no store that keeps its own copy can be faster
 * with one thread. Which bytes a key has does not outlive the process, so neither can be verified.
 */
#include "config.h"
#include "bench/driver.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/assert.h"

struct null_drv {
	struct bench_drv	base;
	struct bench_io		*done, **tail;
	unsigned char		*values;		/* memcpy: n_values of value_bytes; else NULL */
	uint64_t		n_values, value_bytes;
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
	free(((struct null_drv *)base)->values);
	free(base);
}

/* Every page is touched here: the kernel's zeroes are no copy. */
static int
memcpy_open(struct bench_drv **out, const struct bench_drv_opts *o, char *why, size_t why_bytes)
{
	struct null_drv *d;
	size_t bytes;
	void *p;
	int r = null_open(out, o, why, why_bytes);

	if (r != 0)
		return (r);
	d = (struct null_drv *)*out;
	d->base.ops = &bench_driver_memcpy;
	d->n_values = MKV_MAX(o->keys, 1);
	d->value_bytes = MKV_MAX(o->value_bytes, 1);
	if (__builtin_mul_overflow(d->n_values, d->value_bytes, &bytes) || posix_memalign(&p, 4096, bytes) != 0) {
		snprintf(why, why_bytes, "memcpy: no memory for %llu values", (unsigned long long)d->n_values);
		null_close(*out);
		return (MKV_ERR_NOMEM);
	}
	d->values = memset(p, 1, bytes);
	return (0);
}

static void
memcpy_move(const struct null_drv *d, const struct bench_io *io)
{
	const unsigned char *key = io->keys[0].data;
	unsigned char *value;
	uint64_t sum = 0;

	for (size_t i = 0; i < io->keys[0].bytes; i++)
		sum = sum * 10 + key[i];		/* keys of the bench end in their number: neighbours get neighbours */
	value = d->values + sum % d->n_values * d->value_bytes;
	if (io->op == BENCH_PUT)
		memcpy(value, io->buf, MKV_MIN(io->bytes, d->value_bytes));
	else
		memcpy(io->buf, value, MKV_MIN(io->bytes, d->value_bytes));
}

static int
null_submit(struct bench_drv *base, struct bench_io *io)
{
	struct null_drv *d = (struct null_drv *)base;

	if (d->values != NULL && (io->op == BENCH_PUT || io->op == BENCH_GET))
		memcpy_move(d, io);
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

const struct bench_driver bench_driver_memcpy = {
	.name = "memcpy", .open = memcpy_open, .close = null_close, .submit = null_submit, .wait = null_wait, .drain = null_drain
};

const struct bench_driver bench_driver_null = {
	.name = "null", .open = null_open, .close = null_close, .submit = null_submit, .wait = null_wait, .drain = null_drain
};
