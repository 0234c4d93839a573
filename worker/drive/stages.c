/*
 * The fronts' staging memory as a drive sees it: mapped, and registered with the queue where the system lets us. Drive's loop thread; owns the
 * mappings, which stay until the process ends: I/O may be under way in them at any time.
 */
#include "config.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>

#include "common/base/err.h"
#include "common/base/log.h"
#include "worker/drive/drive.h"

/* What is registered counts as locked memory. The limit cannot be asked for in the jail; the first registration comes before. */
static void
stage_say_unregistered(uint64_t bytes, int r)
{
	struct rlimit limit;
	char has[32] = "unknown";

	if (getrlimit(RLIMIT_MEMLOCK, &limit) == 0)
		(void)snprintf(has, sizeof(has), limit.rlim_cur == RLIM_INFINITY ? "unlimited" : "%" PRIu64, (uint64_t)limit.rlim_cur);
	mkv_log(MKV_EV_BUFFERS_UNREGISTERED, "bytes=%" PRIu64 " limit=%s err=%s text=%s", bytes, has, mkv_err(r),
	    "slower, nothing else: raise the limit of locked memory to these bytes for each drive (ulimit -l, LimitMEMLOCK= of the service)");
}

/* Ranges of at most 1 GiB into free slots of the queue's table. Without: plain I/O. */
static void
stage_register(struct drive *d, struct drive_stage *s)
{
	unsigned n = (unsigned)MKV_DIV_UP(s->bytes, DRIVE_RANGE_BYTES), first = d->buf_slots;

	s->first_buf = -1;
	if (!d->buffers || first + n > DRIVE_BUF_SLOTS || memchr(&d->slot_region[first], 1, n) != NULL)
		return;
	for (unsigned i = 0; i < n; i++) {
		struct iovec iov = { s->base + i * DRIVE_RANGE_BYTES, (size_t)MKV_MIN(DRIVE_RANGE_BYTES, s->bytes - i * DRIVE_RANGE_BYTES) };
		int r = mkv_ioq_set_buffer(d->w->q, first + i, &iov);

		if (r != 0) {
			stage_say_unregistered(s->bytes, r);
			d->buffers = 0;
			return;
		}
	}
	d->buf_slots = first + n;
	s->first_buf = (int)first;
}

int
drive_stage_add(struct drive *d, uint32_t front, int fd, uint64_t bytes, int huge)
{
	struct drive_stage *s = front < DRIVE_FRONTS_MAX ? &d->stage[front] : NULL;
	int r;

	if (s == NULL)
		return (MKV_E_PROTO);
	/* A front that was started again has the same segment, and we have it mapped. */
	if (s->stage != NULL)
		return (s->bytes >= bytes ? 0 : MKV_E_PROTO);
	if ((r = mkv_stage_open(&s->stage, fd, 0, huge)) != 0)
		return (r);
	s->base = mkv_stage_base(s->stage, &s->bytes);
	s->first_buf = -1;
	if (d->w->q != NULL)
		stage_register(d, s);
	return (0);
}

/* The table is made with the segments that are known; later ones go into its empty slots. */
void
drive_stages_register(struct drive *d)
{
	struct iovec iov[DRIVE_BUF_SLOTS];
	unsigned n = 0;
	uint64_t bytes = 0;
	int r;

	for (unsigned i = 0; i < DRIVE_FRONTS_MAX; i++) {
		struct drive_stage *s = &d->stage[i];
		unsigned need = (unsigned)MKV_DIV_UP(s->bytes, DRIVE_RANGE_BYTES);

		if (s->stage == NULL || n + need > DRIVE_BUF_SLOTS)
			continue;
		s->first_buf = (int)n;
		bytes += s->bytes;
		for (unsigned k = 0; k < need; k++) {
			iov[n].iov_base = s->base + k * DRIVE_RANGE_BYTES;
			iov[n++].iov_len = (size_t)MKV_MIN(DRIVE_RANGE_BYTES, s->bytes - k * DRIVE_RANGE_BYTES);
		}
	}
	d->buf_slots = n;
	d->buffers = 1;
	if ((r = mkv_ioq_register_buffers(d->w->q, iov, n, DRIVE_BUF_SLOTS)) == 0)
		return;
	d->buffers = 0;
	for (unsigned i = 0; i < DRIVE_FRONTS_MAX; i++)
		d->stage[i].first_buf = -1;
	if (r != MKV_E_UNSUPPORTED)
		stage_say_unregistered(bytes, r);
}

void
drive_stages_close(struct drive *d)
{
	for (unsigned i = 0; i < DRIVE_FRONTS_MAX; i++)
		mkv_stage_close(&d->stage[i].stage);
}

void *
drive_buffer(void *arg, uint32_t client, uint64_t off, uint64_t bytes, int *buf_idx)
{
	struct drive *d = arg;
	struct drive_stage *s = &d->stage[d->client[client].peer->index];
	uint8_t *p = mkv_stage_data(s->stage, off, bytes);
	uint64_t at;

	*buf_idx = -1;
	if (p == NULL)
		return (NULL);
	at = (uint64_t)(p - s->base);
	if (s->first_buf >= 0 && at / DRIVE_RANGE_BYTES == (at + bytes - 1) / DRIVE_RANGE_BYTES)
		*buf_idx = s->first_buf + (int)(at / DRIVE_RANGE_BYTES);
	return (p);
}
