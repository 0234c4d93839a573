/*
 * The crashing medium (media_sim.h). One thread; owns two images and copies of every write since it became durable.
 */
#include "config.h"

#include "tests/crash/media_sim.h"

#include <stdlib.h>
#include <string.h>

#include "common/base/assert.h"
#include "common/base/err.h"

#define SIM_SECTOR	512u		/* by default */

static struct media_sim *
sim_of(struct mkv_media *m)
{
	return (MKV_CONTAINER_OF(m, struct media_sim, m));
}

/* What is being discarded belongs to nobody, before and until its end. */
static void
sim_check_apart(const struct media_sim *s, int kind, uint64_t off, uint64_t bytes)
{
	for (unsigned i = 0; i < s->ops; i++) {
		const struct sim_op *o = &s->op[i];

		if (o->kind != 2 && (kind == 3 || o->kind == 3))
			MKV_ASSERT(off >= o->off + o->bytes || o->off >= off + bytes);
	}
}

static struct sim_op *
sim_push(struct media_sim *s, struct mkv_mio *mio, int kind, void *buf, uint32_t bytes, uint64_t off)
{
	struct sim_op *o = &s->op[s->ops];

	MKV_ASSERT(s->ops < SIM_OPS_MAX);
	MKV_ASSERT(off + bytes <= s->m.total_bytes && off % 4096 == 0 && bytes % 4096 == 0);
	if (s->discarding != 0)
		sim_check_apart(s, kind, off, bytes);
	s->ops++;
	*o = (struct sim_op){ .mio = mio, .kind = kind, .buf = buf, .off = off, .bytes = bytes };
	return (o);
}

static void
sim_touch(struct media_sim *s, uint64_t off, uint32_t bytes)
{
	if (s->touched != NULL)
		memset(s->touched + off / 4096, 1, bytes / 4096);
}

/* One step of the machine; 1 if it was the last. */
static int
sim_step(struct media_sim *s)
{
	s->steps++;
	if (s->on_step != NULL)
		s->on_step(s->on_step_arg);
	if (s->crash_at != 0 && s->steps >= s->crash_at)
		s->dead = 1;
	return (s->dead);
}

static void
sim_read(struct mkv_media *m, struct mkv_mio *mio, void *buf, uint32_t bytes, uint64_t off, int buf_idx)
{
	(void)buf_idx;
	(void)sim_push(sim_of(m), mio, 0, buf, bytes, off);
}

static void
sim_write_begin(struct media_sim *s, struct mkv_mio *mio, int kind, const void *buf, uint32_t bytes, uint64_t off)
{
	struct sim_op *o = sim_push(s, mio, kind, (void *)(uintptr_t)buf, bytes, off);
	struct sim_write *w = calloc(1, sizeof(*w));

	MKV_ASSERT(w != NULL && (w->data = malloc(bytes)) != NULL);
	/* A write that has begun may reach the medium whether or not it is ever reported. */
	w->off = off;
	w->bytes = bytes;
	w->discard = kind == 3;
	memcpy(w->data, buf, bytes);
	sim_touch(s, off, bytes);
	*s->pending_last = w;
	s->pending_last = &w->next;
	o->w = w;
	(void)sim_step(s);
}

static void
sim_write(struct mkv_media *m, struct mkv_mio *mio, const void *buf, uint32_t bytes, uint64_t off, int buf_idx)
{
	(void)buf_idx;
	sim_write_begin(sim_of(m), mio, 1, buf, bytes, off);
}

static int
sim_discard(struct mkv_media *m, uint64_t off, uint64_t bytes)
{
	struct media_sim *s = sim_of(m);
	uint8_t *rubbish = malloc(bytes);

	MKV_ASSERT(rubbish != NULL && s->discarding == 0);
	rnd_fill(&s->rnd, rubbish, bytes);
	s->discarding = 1;
	s->discards++;
	s->discard_bytes = bytes;
	sim_write_begin(s, NULL, 3, rubbish, (uint32_t)bytes, off);
	free(rubbish);
	return (0);
}

static int
sim_discard_end(struct mkv_media *m, int *res)
{
	struct media_sim *s = sim_of(m);

	MKV_ASSERT(s->discarding != 0);
	if (s->discarding == 1)
		return (0);
	s->discarding = 0;
	*res = s->discard_res;
	return (1);
}

static void
sim_flush(struct mkv_media *m, struct mkv_mio *mio)
{
	struct media_sim *s = sim_of(m);

	sim_push(s, mio, 2, NULL, 0, 0)->covers = s->done_count;
	(void)sim_step(s);
}

static void
sim_make_durable(struct media_sim *s, uint64_t covers)
{
	struct sim_write **pw = &s->pending, *w;

	while ((w = *pw) != NULL) {
		if (w->done == 0 || (uint64_t)w->done > covers) {
			pw = &w->next;
			continue;
		}
		memcpy(s->durable + w->off, w->data, w->bytes);
		sim_touch(s, w->off, w->bytes);
		*pw = w->next;
		free(w->data);
		free(w);
	}
	s->pending_last = pw;
}

void
sim_bad(struct media_sim *s, uint64_t off, uint64_t bytes, unsigned reads)
{
	for (unsigned i = 0; i < SIM_BAD_MAX; i++) {
		if (s->bad[i].bytes == 0) {
			s->bad[i] = (struct sim_bad){ off, bytes, reads };
			return;
		}
	}
	MKV_ASSERT(0);
}

/* Does this read meet a bad place? A write over one heals it. */
static int
sim_meets_bad(struct media_sim *s, const struct sim_op *o)
{
	for (unsigned i = 0; i < SIM_BAD_MAX; i++) {
		struct sim_bad *b = &s->bad[i];

		if (b->bytes == 0 || o->off >= b->off + b->bytes || b->off >= o->off + o->bytes)
			continue;
		if (o->kind == 1 && (o->off > b->off || o->off + o->bytes < b->off + b->bytes))
			continue;
		if (o->kind == 1 || --b->left == 0)
			b->bytes = 0;
		if (o->kind == 0)
			return (1);
	}
	return (0);
}

static int
sim_complete(struct media_sim *s, struct sim_op *o)
{
	int res = 0;

	switch (o->kind) {
	case 0:
		if (sim_meets_bad(s, o))
			return (MKV_E_IO);
		memcpy(o->buf, s->now + o->off, o->bytes);
		return (0);
	case 1:
		MKV_ASSERT(memcmp(o->w->data, o->buf, o->bytes) == 0);	/* nobody touches a buffer under I/O */
		if (s->fail_write > 0 && --s->fail_write == 0)
			return (MKV_E_IO);
		(void)sim_meets_bad(s, o);
		memcpy(s->now + o->off, o->w->data, o->bytes);
		o->w->done = (int)++s->done_count;
		return (0);
	case 3:
		s->discarding = 2;
		s->discard_res = s->fail_discard;
		s->fail_discard = 0;
		memcpy(s->now + o->off, o->w->data, o->bytes);
		o->w->done = (int)++s->done_count;
		return (0);
	default:
		if (s->fail_flush > 0 && --s->fail_flush == 0)
			return (MKV_E_IO);
		sim_make_durable(s, o->covers);
		return (res);
	}
}

static int
sim_pump(struct mkv_media *m, uint64_t until_ns)
{
	struct media_sim *s = sim_of(m);
	unsigned n = s->ops, done = 0;

	(void)until_ns;
	/* What was there at the beginning, in any order. */
	while (n > 0 && !s->dead) {
		unsigned k = rnd_below(&s->rnd, n);
		struct sim_op o = s->op[k];
		int res;

		if (o.kind == 3 && s->discard_hold > 0) {
			s->discard_hold--;
			s->op[k] = s->op[--n];
			s->op[n] = o;
			continue;
		}
		if (o.kind == 0 && s->read_hold) {
			s->op[k] = s->op[--n];
			s->op[n] = o;
			continue;
		}
		s->op[k] = s->op[n - 1];
		s->op[n - 1] = s->op[s->ops - 1];
		s->ops--;
		n--;
		if (o.kind != 0 && sim_step(s))
			break;
		res = sim_complete(s, &o);
		if (o.mio != NULL)
			o.mio->done(o.mio, res);
		done++;
	}
	return ((int)done);
}

static void *
sim_map(struct mkv_media *m, uint64_t off, uint64_t bytes)
{
	(void)bytes;
	return (sim_of(m)->now + off);
}

static void
sim_close(struct mkv_media *m)
{
	(void)m;
}

static const struct mkv_media_ops sim_ops = {
	.read = sim_read, .write = sim_write, .flush = sim_flush, .pump = sim_pump, .map = sim_map, .close = sim_close,
};

static const struct mkv_media_ops sim_discard_ops = {
	.read = sim_read, .write = sim_write, .flush = sim_flush, .pump = sim_pump, .map = sim_map, .close = sim_close,
	.discard = sim_discard, .discard_end = sim_discard_end,
};

void
sim_may_discard(struct media_sim *s)
{
	s->m.ops = &sim_discard_ops;
}

struct media_sim *
sim_create(uint64_t bytes, uint64_t meta_bytes, uint64_t seed)
{
	struct media_sim *s = calloc(1, sizeof(*s));

	MKV_ASSERT(s != NULL);
	s->now = calloc(1, bytes);
	s->durable = calloc(1, bytes);
	MKV_ASSERT(s->now != NULL && s->durable != NULL);
	s->pending_last = &s->pending;
	s->m = (struct mkv_media){ .magic = 0x51a51a51u, .ops = &sim_ops, .name = "sim", .total_bytes = bytes, .meta_bytes = meta_bytes };
	s->rnd.state = seed;
	s->sector = SIM_SECTOR;
	return (s);
}

static void
sim_forget(struct media_sim *s)
{
	struct sim_write *w;

	while ((w = s->pending) != NULL) {
		s->pending = w->next;
		free(w->data);
		free(w);
	}
	s->pending_last = &s->pending;
}

void
sim_destroy(struct media_sim **sp)
{
	struct media_sim *s = *sp;

	if (s == NULL)
		return;
	sim_forget(s);
	free(s->now);
	free(s->durable);
	free(s);
	*sp = NULL;
}

void
sim_reboot(struct media_sim *s, enum sim_policy policy)
{
	for (struct sim_write *w = s->pending; w != NULL; w = w->next) {
		int some = policy == SIM_SOME && rnd_below(&s->rnd, 2) == 0;

		for (uint32_t at = 0; at < w->bytes; at += s->sector) {
			int keep = policy == SIM_KEEP || some || (policy == SIM_TEAR && rnd_below(&s->rnd, 2) == 0) || (policy == SIM_TAIL && at > 0);

			if (keep)
				memcpy(s->durable + w->off + at, w->data + at, s->sector);
		}
	}
	sim_forget(s);
	memcpy(s->now, s->durable, s->m.total_bytes);
	s->ops = 0;
	s->dead = 0;
	s->crash_at = 0;
	s->steps = 0;
	s->done_count = 0;
	s->fail_flush = s->fail_write = 0;
	s->discarding = 0;
	s->fail_discard = 0;
	s->discard_hold = 0;
	s->read_hold = 0;
}
