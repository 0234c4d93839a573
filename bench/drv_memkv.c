/*
 * Driver "memkv": the asynchronous core of libmemkv, as an engine's plug-in would use it. A request of the bench is one submit; its id is
 * not needed, the completion carries the request back. EXISTS, DELETE and MATCH of many keys are one request each.
 */
#include "config.h"
#include "bench/driver.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/assert.h"
#include "common/base/err.h"

#define MEMKV_DRAIN_MAX	64u

struct memkv_drv {
	struct bench_drv	base;
	struct mkv_client	*client;
	struct mkv_region	*region;
	void			*plain;		/* where a region cannot be had */
	unsigned		put_flags;
	struct bench_io		*refused;	/* by submit, for good: given back by the next drain */
};

/* What a request needs beside the bench's own: the reasons of its keys. Freed when it comes back. */
static int
memkv_reasons(struct bench_io *io)
{
	io->drv = NULL;
	if (io->op != BENCH_EXISTS)
		return (0);
	io->drv = calloc(io->n_keys, 1);
	return (io->drv != NULL ? 0 : MKV_ERR_NOMEM);
}

static void
memkv_close(struct bench_drv *base)
{
	struct memkv_drv *d = (struct memkv_drv *)base;

	if (d->region != NULL)
		mkv_region_free(d->region);
	mkv_client_close(d->client);
	free(d->plain);
	free(d);
}

/* A thread of the library. */
static void
memkv_warn(void *arg, const char *text)
{
	(void)arg;
	fprintf(stderr, "memkv bench: %s\n", text);
}

static int
memkv_open(struct bench_drv **out, const struct bench_drv_opts *o, char *why, size_t why_bytes)
{
	struct mkv_client_opts co = { .size = sizeof(co), .servers = o->servers, .transport = o->transport, .namespace_ = o->namespace_,
		.config_file = o->config_file, .no_verify = o->no_crc, .connections = (unsigned)o->connections, .warn = memkv_warn };
	struct memkv_drv *d = calloc(1, sizeof(*d));
	int r;

	if (d == NULL)
		return (MKV_ERR_NOMEM);
	d->base.ops = &bench_driver_memkv;
	co.inflight_max = (unsigned)o->concurrency;
	if (o->durability != NULL)
		d->put_flags = strcmp(o->durability, "accepted") == 0 ? MKV_PUT_ACCEPTED : MKV_PUT_COMMIT;
	r = mkv_client_open(&d->client, &co, why, why_bytes);
	if (r != 0) {
		free(d);
		return (r);
	}
	r = mkv_warm(d->client, 5000000);		/* sessions are made before the clock starts */
	if (r != 0) {
		snprintf(why, why_bytes, "%s: %s", mkv_strerror(r), r == MKV_ERR_AUTH ?
		    "client and server have different keys: give the server's network.auth_key in MEMKV_AUTH_KEY" :
		    "is a server running, and does --servers name it?");
		memkv_close(&d->base);
		return (r);
	}
	*out = &d->base;
	return (0);
}

static void *
memkv_alloc(struct bench_drv *base, size_t bytes)
{
	struct memkv_drv *d = (struct memkv_drv *)base;

	if (d->region == NULL && mkv_region_alloc(d->client, bytes, &d->region) == 0)
		return (mkv_region_base(d->region, NULL));
	if (d->plain == NULL && posix_memalign(&d->plain, 4096, bytes) != 0)
		d->plain = NULL;
	return (d->plain);
}

static int
memkv_submit(struct bench_drv *base, struct bench_io *io)
{
	static const enum mkv_op op[] = { [BENCH_PUT] = MKV_OP_PUT, [BENCH_GET] = MKV_OP_GET, [BENCH_EXISTS] = MKV_OP_EXISTS,
		[BENCH_DELETE] = MKV_OP_DELETE, [BENCH_MATCH] = MKV_OP_MATCH };
	struct memkv_drv *d = (struct memkv_drv *)base;
	struct iovec iov = { io->buf, io->bytes };
	struct mkv_request r = { .size = sizeof(r), .op = op[io->op], .keys = io->keys, .n_keys = io->n_keys, .iov = &iov,
		.n_iov = io->op == BENCH_PUT || io->op == BENCH_GET, .len = MEMKV_SIZE_ANY, .deadline_us = io->deadline_us,
		.flags = io->op == BENCH_PUT ? d->put_flags : 0, .present = io->present, .user = io };
	uint64_t id;
	int rc;

	if (memkv_reasons(io) != 0)
		return (MKV_ERR_AGAIN);
	r.reasons = io->drv;
	rc = mkv_submit(d->client, &r, &id);
	if (rc == 0)
		return (0);
	free(io->drv);
	io->drv = NULL;
	if (rc == MKV_ERR_AGAIN)
		return (rc);
	io->result = rc;
	io->next = d->refused;
	d->refused = io;
	return (0);
}

static void
memkv_wait(struct bench_drv *base, uint64_t timeout_us)
{
	struct memkv_drv *d = (struct memkv_drv *)base;

	if (d->refused == NULL)
		mkv_wait(d->client, timeout_us);
}

/* The reason of the first key that is not there stands for the request. */
static void
memkv_exists_reason(struct bench_io *io)
{
	const uint8_t *reasons = io->drv;

	for (unsigned i = 0; io->result >= 0 && i < io->n_keys; i++)
		if (io->present != NULL && !io->present[i]) {
			io->reason = reasons[i];
			break;
		}
	free(io->drv);
	io->drv = NULL;
}

static unsigned
memkv_drain(struct bench_drv *base, struct bench_io **out, unsigned max)
{
	struct memkv_drv *d = (struct memkv_drv *)base;
	struct mkv_completion cpl[MEMKV_DRAIN_MAX];
	unsigned refused = 0;
	int n;

	if (d->refused != NULL) {
		for (; refused < max && d->refused != NULL; d->refused = d->refused->next)
			out[refused++] = d->refused;
		return (refused);
	}
	for (unsigned i = 0; i < MEMKV_DRAIN_MAX; i++)
		cpl[i].size = sizeof(cpl[i]);
	n = mkv_drain(d->client, cpl, MKV_MIN(max, MEMKV_DRAIN_MAX));
	for (int i = 0; i < n; i++) {
		out[i] = cpl[i].user;
		out[i]->result = cpl[i].result;
		out[i]->reason = cpl[i].object.reason;
		if (out[i]->op == BENCH_EXISTS)
			memkv_exists_reason(out[i]);
	}
	return (n > 0 ? (unsigned)n : 0);
}

static int
memkv_info(struct bench_drv *base, struct bench_drv_info *info)
{
	struct memkv_drv *d = (struct memkv_drv *)base;
	struct mkv_server_info si;
	int r = MKV_ERR_UNREACHABLE, got;

	for (unsigned i = 0; i < mkv_server_count(d->client); i++) {
		memset(&si, 0, sizeof(si));
		si.size = sizeof(si);
		got = mkv_server_info(d->client, i, 5000000, &si);
		if (got != 0 || si.status != 0)
			continue;
		r = 0;
		info->total_bytes += si.total_bytes;
		info->used_bytes += si.used_bytes;
		snprintf(info->transport, sizeof(info->transport), "%s", si.transport);
		snprintf(info->version, sizeof(info->version), "%s", si.version);
	}
	return (r);
}

const struct bench_driver bench_driver_memkv = {
	.name = "memkv", .keeps_values = 1, .open = memkv_open, .close = memkv_close, .submit = memkv_submit, .wait = memkv_wait,
	.drain = memkv_drain, .alloc = memkv_alloc, .info = memkv_info
};
