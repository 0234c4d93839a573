/*
 * TRIM: telling the medium which space is free. Drive's loop thread; the call itself runs on a thread of the medium, one at a time.
 *
 *   trim_free() -> extent is dirty -> [TRIM_WAIT_NS, or TRIM_EXTENTS of them] -> batch: each dirty extent's free runs, one after the other:
 *   claimed in the allocator -> medium->discard -> its end -> free again
 *
 * A range is taken from the allocator while it is discarded, so nobody can own it: that is the whole of the safety. What is not free is never touched,
 * whoever reads it; what is claimed is small, counts as space that is about to be free, and is given back whatever the medium says.
 *
 * One bit an extent is all that is remembered; a run that was discarded before and lies in a dirty extent is discarded again, together with its new
 * neighbours: a device that forgets only large blocks gets them whole. After a start nobody knows what was discarded: all free space is gone through
 * once, in idle time.
 *
 * Fails: a call that fails is counted and its range stays as it is until something near it is freed. A medium that cannot do it is not asked again.
 */
#include "config.h"

#include <stdlib.h>

#include "common/base/err.h"
#include "common/base/log.h"
#include "worker/drive/engine_priv.h"

#define TRIM_WAIT_NS		(5 * MKV_NS_PER_SEC)
#define TRIM_EXTENTS		1024u
#define TRIM_CALL_BYTES		(32ull << 20)		/* nobody else is at work */
#define TRIM_CALL_BUSY_BYTES	(4ull << 20)
#define TRIM_LOOK_NS		(5 * MKV_NS_PER_MS)	/* foreground was at work: look again */
#define TRIM_PAUSE_MAX_NS	(10 * MKV_NS_PER_SEC)
#define TRIM_FAILED_NS		MKV_NS_PER_SEC
#define TRIM_FIRST_NS		(100 * MKV_NS_PER_MS)	/* of the first pass: a call's worth each time */
#define TRIM_SHARE		4u			/* of the free space may be claimed */

static uint64_t
trim_wait_ns(const struct mkv_engine *e)
{
	return (e->o.trim_wait_ns != 0 ? e->o.trim_wait_ns : TRIM_WAIT_NS);
}

int
trim_init(struct mkv_engine *e)
{
	struct trim *t = &e->trim;

	if (e->o.media->ops->discard == NULL || e->o.look_only || e->o.offline) {
		t->off = 1;
		return (0);
	}
	if ((t->dirty = calloc(MKV_DIV_UP(e->al.extents, 64), sizeof(*t->dirty))) == NULL)
		return (MKV_E_NOMEM);
	return (0);
}

void
trim_fini(struct mkv_engine *e)
{
	free(e->trim.dirty);
}

static void
trim_mark(struct mkv_engine *e, uint32_t x)
{
	struct trim *t = &e->trim;
	uint64_t bit = 1ull << (x & 63);

	if (t->dirty[x / 64] & bit)
		return;
	t->dirty[x / 64] |= bit;
	if (t->extents++ == 0)
		t->since_ns = eng_now(e);
}

/* 1 if it was dirty. */
static int
trim_unmark(struct mkv_engine *e, uint32_t x)
{
	struct trim *t = &e->trim;
	uint64_t bit = 1ull << (x & 63);

	if ((t->dirty[x / 64] & bit) == 0)
		return (0);
	t->dirty[x / 64] &= ~bit;
	t->extents--;
	t->left -= t->left > 0;
	return (1);
}

void
trim_free(struct mkv_engine *e, struct mkv_run run)
{
	mkv_alloc_free(&e->al, run);
	if (e->trim.off || !e->o.trim)
		return;
	ENG_COUNT(e, trim_ranges_in_total, 1);
	trim_mark(e, run.off >> e->al.shift);
}

/* The next dirty extent from the hand on, round the end. There is one. */
static uint32_t
trim_next_dirty(struct trim *t, uint32_t extents)
{
	uint32_t words = MKV_DIV_UP(extents, 64), w = t->hand / 64;
	uint64_t bits = t->dirty[w] & (~0ull << (t->hand & 63));

	for (uint32_t i = 0; bits == 0 && i < words; i++) {
		w = w + 1 < words ? w + 1 : 0;
		bits = t->dirty[w];
	}
	MKV_ASSERT(bits != 0);
	return (w * 64 + (uint32_t)__builtin_ctzll(bits));
}

/* The next free run of the batch, of at most `most` units, across extents as long as they are dirty. 0: the batch is done. */
static int
trim_gather(struct mkv_engine *e, uint32_t most, struct mkv_run *out)
{
	struct trim *t = &e->trim;
	uint32_t per = e->al.per_extent;

	*out = (struct mkv_run){ 0, 0 };
	for (;;) {
		struct mkv_run r;

		if (!t->inside) {
			if (t->left == 0)
				return (out->len > 0);
			t->hand = trim_next_dirty(t, e->al.extents);
			if (out->len > 0 && (uint64_t)t->hand * per != (uint64_t)out->off + out->len)
				return (1);
			/* What is freed in it from here on makes it dirty anew. */
			(void)trim_unmark(e, t->hand);
			t->pos = 0;
			t->inside = 1;
		}
		r = mkv_alloc_peek(&e->al, t->hand, t->pos, most - out->len);
		if (r.len == 0) {
			t->inside = 0;
			t->hand = t->hand + 1 < e->al.extents ? t->hand + 1 : 0;
			if (out->len > 0 && (uint64_t)out->off + out->len != (uint64_t)t->hand * per)
				return (1);
			continue;
		}
		if (out->len > 0 && r.off != out->off + out->len)
			return (1);
		out->off = out->len > 0 ? out->off : r.off;
		out->len += r.len;
		t->pos = r.off + r.len - t->hand * per;
		if (out->len == most)
			return (1);
	}
}

/* Both ways, extent by extent. */
static void
trim_claim(struct mkv_engine *e, int claim)
{
	struct mkv_run all = e->trim.claim;

	while (all.len > 0) {
		uint32_t room = e->al.per_extent - (all.off & (e->al.per_extent - 1));
		struct mkv_run r = { all.off, MKV_MIN(all.len, room) };

		if (claim)
			mkv_alloc_claim(&e->al, r);
		else
			mkv_alloc_free(&e->al, r);
		all.off += r.len;
		all.len -= r.len;
	}
}

static uint64_t
trim_at(const struct mkv_engine *e, uint64_t unit)
{
	return (e->sb.data_off + unit * e->sb.unit_bytes);
}

static void
trim_failed(struct mkv_engine *e, int res)
{
	struct trim *t = &e->trim;
	uint64_t off = trim_at(e, t->claim.off);
	uint32_t bytes = (uint32_t)((uint64_t)t->claim.len * e->sb.unit_bytes);

	if (res == MKV_E_UNSUPPORTED) {
		mkv_log(MKV_EV_DRIVE_TRIM_OFF, "drive=%s", e->o.name);
		t->off = 1;
		return;
	}
	ENG_COUNT(e, trim_errors_total, 1);
	mkv_log(MKV_EV_DRIVE_TRIM_FAILED, "drive=%s off=%llu bytes=%u err=\"%s\"", e->o.name, (unsigned long long)off, bytes, mkv_err(res));
	fail_note(e, MKV_FAIL_TRIM, off, bytes, res, 0);
}

/* It has ended, or did not begin. */
static void
trim_end(struct mkv_engine *e, int res, uint64_t now)
{
	struct trim *t = &e->trim;
	uint64_t took_ns = now - t->begin_ns, pause_ns;

	if (res == 0) {
		ENG_COUNT(e, trim_ranges_out_total, 1);
		ENG_COUNT(e, trim_bytes_total, (uint64_t)t->claim.len * e->sb.unit_bytes);
		mkv_metric_time(e->o.metrics, MKV_M_drive_trim_seconds, took_ns);
	} else
		trim_failed(e, res);
	sched_end(e, MKV_IO_TRIM, 0);
	trim_claim(e, 0);
	t->claim.len = 0;
	/* A device that is slow at this gets less of it: half of the time when idle, a tenth beside requests. */
	pause_ns = MKV_MIN(e->at_work > 0 ? 9 * took_ns : took_ns, TRIM_PAUSE_MAX_NS);
	t->next_ns = now + (res == 0 ? pause_ns : TRIM_FAILED_NS);
	evict_wake(e);
}

/* Units of the next call. 0: not now, for somebody else's sake. */
static uint32_t
trim_may(struct mkv_engine *e)
{
	uint64_t bytes = e->at_work > 0 ? TRIM_CALL_BUSY_BYTES : TRIM_CALL_BYTES;

	if (!mkv_list_empty(&e->space_wait) || e->al.free_units == 0 || !sched_may(e, MKV_IO_TRIM, 0))
		return (0);
	return ((uint32_t)MKV_MIN(MKV_MAX(bytes / e->sb.unit_bytes, 1), MKV_MAX(e->al.free_units / TRIM_SHARE, 1)));
}

/* Is a batch under way, or due? In idle time the first pass makes one of its own. */
static int
trim_due(struct mkv_engine *e, uint64_t now)
{
	struct trim *t = &e->trim;

	if (t->left > 0 || t->inside)
		return (1);
	/* What was freed in this turn is younger than `now`. */
	if (t->extents > 0 && (t->extents >= TRIM_EXTENTS || now >= t->since_ns + trim_wait_ns(e))) {
		t->left = t->extents;
		t->since_ns = now;
		return (1);
	}
	if (t->first >= e->al.extents || e->at_work > 0 || now < t->first_ns)
		return (0);
	t->first_ns = now + TRIM_FIRST_NS;
	t->hand = t->first;
	for (uint64_t bytes = 0; t->first < e->al.extents && bytes < TRIM_CALL_BYTES; t->first++, bytes += e->sb.extent_bytes) {
		if (e->al.free_in[t->first] == 0)
			continue;
		trim_mark(e, t->first);
		t->left++;
	}
	return (t->left > 0);
}

void
trim_step(struct mkv_engine *e, uint64_t now)
{
	struct trim *t = &e->trim;
	struct mkv_media *m = e->o.media;
	uint32_t units;
	int res;

	if (t->claim.len > 0) {
		if (!m->ops->discard_end(m, &res))
			return;
		trim_end(e, res, now);
	}
	if (t->off || !e->o.trim || e->readonly || now < t->next_ns || !trim_due(e, now))
		return;
	if ((units = trim_may(e)) == 0) {
		t->next_ns = now + TRIM_LOOK_NS;
		return;
	}
	if (!trim_gather(e, units, &t->claim))
		return;
	trim_claim(e, 1);
	t->begin_ns = now;
	sched_begin(e, MKV_IO_TRIM, 0);
	if ((res = m->ops->discard(m, trim_at(e, t->claim.off), (uint64_t)t->claim.len * e->sb.unit_bytes)) != 0)
		trim_end(e, res, now);
	trim_gauges(e);				/* nothing turns the loop before its end */
}

uint64_t
trim_next_ns(const struct mkv_engine *e)
{
	const struct trim *t = &e->trim;
	uint64_t at = UINT64_MAX;

	if (t->off || !e->o.trim || e->readonly || t->claim.len > 0)
		return (UINT64_MAX);		/* at the end of a call the loop is woken */
	if (t->left > 0 || t->inside)
		at = t->next_ns;
	else if (t->extents > 0)
		at = t->extents >= TRIM_EXTENTS ? t->next_ns : MKV_MAX(t->since_ns + trim_wait_ns(e), t->next_ns);
	/* Whoever is at work turns the loop when that ends. */
	if (t->first < e->al.extents && e->at_work == 0)
		at = MKV_MIN(at, MKV_MAX(t->first_ns, t->next_ns));
	return (at);
}

int
trim_close(struct mkv_engine *e)
{
	struct trim *t = &e->trim;
	int res;

	t->off = 1;				/* the last checkpoint turns the loop: it begins no other */
	while (t->claim.len > 0 && !e->cancelled) {
		if (e->o.media->ops->discard_end(e->o.media, &res)) {
			trim_end(e, res, eng_now(e));
			break;
		}
		e->cancelled = e->o.ops->pump(e->o.arg) == MKV_E_CANCELLED;
	}
	return (e->cancelled ? MKV_E_CANCELLED : 0);
}

void
trim_gauges(struct mkv_engine *e)
{
	const struct trim *t = &e->trim;

	mkv_metric_set(e->o.metrics, MKV_M_drive_trim_waiting_extents, 0, t->extents);
	mkv_metric_set(e->o.metrics, MKV_M_drive_trim_unknown_extents, 0, t->off || !e->o.trim ? 0 : e->al.extents - t->first);
	mkv_metric_set(e->o.metrics, MKV_M_drive_trim_in_flight_bytes, 0, (uint64_t)t->claim.len * e->sb.unit_bytes);
}
