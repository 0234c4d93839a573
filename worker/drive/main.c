/*
 * memkv-drive: one process per drive. One thread (the portable back end has helpers).
 *
 *   start: medium open and locked -> DRAINED -> queue, files, buffers -> jail -> [first turn] superblocks, recovery -> READY -> turns
 *   stop:  requests finish, checkpoint, clean mark -> STOPPED
 *   --offline COMMAND: no server, no rings; offline.c instead (`memkv setup`, `memkv drive`)
 *
 * Owns the medium's descriptor and its lock, which nobody else has. Fails: what an operator must change is said once and finally; a flush that failed
 * makes the drive read-only and is reported.
 */
#include "config.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/base/crc.h"
#include "common/base/err.h"
#include "common/base/log.h"
#include "common/base/params.h"
#include "worker/drive/drive.h"
#include "worker/drive/offline_priv.h"

#define DRIVE_COUNT_NS	(100 * MKV_NS_PER_MS)
#define DRIVE_PUMP_NS	(5 * MKV_NS_PER_MS)

static void
drive_readonly(void *arg, const char *why)
{
	struct drive *d = arg;

	if (d->e == NULL)
		mkv_worker_report(d->w, 1, -1, why);
	else
		drive_give_up(d, 1, why);
}

/* Recovery and the last checkpoint: completions, the supervisor's pings, which come by the same queue, and the end of a grace (core's timer). */
static int
drive_pump(void *arg)
{
	struct drive *d = arg;
	int n = 0, r;

	if (d->w->state == MKV_WORKER_ENDED)
		return (MKV_E_CANCELLED);
	if (d->media->shared)
		n = d->media->ops->pump(d->media, 0);
	r = mkv_ioq_run(d->w->q, n > 0 ? 0 : mkv_now_ns() + DRIVE_PUMP_NS);
	(void)mkv_timers_run(&d->w->timers, mkv_now_ns());
	return (r < 0 ? mkv_worker_fail(d->w, 0, "%s: %s", mkv_ioq_name(d->w->q), mkv_err(r)) : n + r);
}

static const struct mkv_engine_ops drive_engine_ops = {
	.reply = drive_reply, .buffer = drive_buffer, .region = drive_region, .region_done = drive_region_done, .peer = drive_peer_send, .client_done = drive_client_done,
	.map_stored = drive_map_stored, .purged = drive_purged,
	.readonly = drive_readonly, .pump = drive_pump,
};

static void
drive_fill_opts(struct drive *d)
{
	struct mkv_worker *w = d->w;
	const struct mkv_params *p = w->params;
	struct mkv_engine_opts *o = &d->opts;

	o->media = d->media;
	o->clock = &mkv_clock_os;
	o->metrics = w->metrics;
	o->ops = &drive_engine_ops;
	o->arg = d;
	o->name = w->media[0] != '\0' ? w->media : w->name;
	o->epoch = w->epoch;
	o->drive_idx = w->index;
	memcpy(o->server_id, w->server_id, 16);
	memcpy(o->store_secret, w->store_secret, 32);
	if (w->has_drive_uuid)
		memcpy(o->drive_uuid, w->drive_uuid, 16);
	o->other_uuid = (const uint8_t (*)[16])w->other_uuid;
	o->other_count = w->other_count;
	o->may_format = 1;
	o->forget_all = w->forget_all;
	o->drain_ns = p->drive_drain_time * MKV_NS_PER_US;
	o->extent_bytes = (uint32_t)p->storage_block_size;
	o->journal_bytes = p->storage_journal_size;
	o->queue_depth = p->drive_queue_depth;
	o->page_cache_bytes = p->storage_page_cache;
	o->accepted_window_ns = p->storage_accepted_window * 1000;
	o->accepted_window_bytes = p->storage_accepted_window_bytes;
	o->audit_interval_ns = p->storage_audit_interval * 1000;
	o->scrub_rate = p->storage_scrub_rate;
	o->scrub_interval_ns = p->storage_scrub_interval * 1000;
	o->trim = d->media != NULL && d->media->ops->discard != NULL;
	o->evict = p->storage_eviction_enabled;
	o->policy = p->storage_eviction_policy;
	o->pin_pct = p->storage_pin_share;
	o->evict_high_pct = p->storage_eviction_high;
	o->evict_low_pct = MKV_MIN(p->storage_eviction_low, p->storage_eviction_high);
}

static void
drive_on_timer(struct mkv_timer *t, uint64_t now_ns)
{
	(void)t;
	(void)now_ns;				/* it only ends the wait: every turn steps the engine */
}

static int
drive_init(struct mkv_worker *w)
{
	struct drive *d = calloc(1, sizeof(*d));

	if (d == NULL)
		return (MKV_E_NOMEM);
	d->magic = MKV_DRIVE_MAGIC;
	d->w = w;
	d->fd = d->arena_fd = d->meta_fd = -1;
	d->timer.fire = drive_on_timer;
	w->room = d;
	mkv_crc_init();
	return (drive_fronts_init(d));
}

static int
drive_on_arena(struct drive *d, const Mkv__Ctl__Arena *a, int *fds, unsigned n_fds)
{
	if (n_fds != 2 || d->arena_fd >= 0)
		return (MKV_E_PROTO);
	d->arena_fd = fds[0];
	d->meta_fd = fds[1];
	fds[0] = fds[1] = -1;
	d->arena_bytes = a->bytes;
	d->meta_bytes = a->meta_bytes;
	return (0);
}

static int
drive_message(struct mkv_worker *w, const Mkv__Ctl__Control *m, int *fds, unsigned n_fds)
{
	struct drive *d = w->room;

	MKV_CHECK_OBJ(d, MKV_DRIVE_MAGIC);
	switch (m->body_case) {
	case MKV__CTL__CONTROL__BODY_STAGE:
		return (n_fds == 1 ? drive_stage_add(d, m->stage->front, fds[0], m->stage->bytes, m->stage->huge) : MKV_E_PROTO);
	case MKV__CTL__CONTROL__BODY_ARENA:
		return (drive_on_arena(d, m->arena, fds, n_fds));
	case MKV__CTL__CONTROL__BODY_REGION:
		return (drive_region_message(d, m->region, n_fds > 0 ? fds[0] : -1));
	case MKV__CTL__CONTROL__BODY_POOL_MAP:
	case MKV__CTL__CONTROL__BODY_AWAY_ASK:
	case MKV__CTL__CONTROL__BODY_FORGET:
	case MKV__CTL__CONTROL__BODY_PURGE:
	case MKV__CTL__CONTROL__BODY_SPACES_ASK:
		return (drive_pool_message(d, m));
	case MKV__CTL__CONTROL__BODY_CONFIGURE:
		drive_fill_opts(d);
		if (d->e != NULL)
			mkv_engine_tune(d->e, &d->opts);
		return (0);
	default:
		return (0);			/* drained peers: nothing here depends on them */
	}
}

static int
drive_start(struct mkv_worker *w)
{
	struct drive *d = w->room;
	uint32_t depth = w->params->drive_queue_depth;
	int kind = w->params->storage_io;
	struct mkv_ioq_opts qo = { .entries = 256, .depth_max = 4 * depth + 256, .threads = 4 };
	int r;

	if ((r = drive_medium_open(d)) != 0)
		return (r);
	qo.kind = kind == MKV_STORAGE_IO_URING ? MKV_IOQ_URING : kind == MKV_STORAGE_IO_THREADS ? MKV_IOQ_POLL : MKV_IOQ_AUTO;
	if ((r = mkv_worker_open_queue(w, &qo, 4)) != 0)
		return (mkv_worker_fail(w, kind == MKV_STORAGE_IO_URING, "no I/O queue (storage.io): %s", mkv_err(r)));
	if ((r = drive_medium_media(d)) != 0)
		return (mkv_worker_fail(w, 0, "%s: %s", w->media, mkv_err(r)));
	drive_stages_register(d);
	drive_regions_start(d);
	mkv_worker_jail(w, MKV_IOQ_MAY_FILE);
	d->opening = 1;
	return (0);
}

static void
drive_say_ready(struct drive *d, uint32_t epoch_seen)
{
	Mkv__Ctl__Ready ready = MKV__CTL__READY__INIT;
	Mkv__Ctl__PoolMap map = MKV__CTL__POOL_MAP__INIT;
	Mkv__Ctl__PoolDrive rows[MKV_MAP_DRIVES_MAX], *list[MKV_MAP_DRIVES_MAX];
	struct mkv_engine_info info;
	char detail[256];

	drive_map_fill(mkv_engine_map_kept(d->e), &map, rows, list);
	ready.map = map.version != 0 ? &map : NULL;
	mkv_engine_info(d->e, &info);
	(void)snprintf(detail, sizeof(detail), "%s: %llu objects, damaged blocks %u, objects lost %u, torn records %u%s%s",
	    info.formatted ? "formatted" : "recovered", (unsigned long long)info.recovered_objects, info.damaged_blocks, info.lost_objects,
	    info.torn_records, info.superblock_bad ? ", one superblock was damaged" : "",
	    drive_medium_punched(d) ? "; free space is given back, not reserved (storage.trim: punch)" : "");
	ready.drive_uuid.data = info.uuid;
	ready.drive_uuid.len = sizeof(info.uuid);
	ready.total_bytes = info.total_bytes;
	ready.used_bytes = info.used_bytes;
	ready.io = (char *)(uintptr_t)d->media->name;
	ready.detail = detail;
	ready.epoch_seen = epoch_seen;
	mkv_metric_set(d->w->metrics, MKV_M_drive_start_time_seconds, 0, mkv_wall_ms() / 1000);
	mkv_worker_ready(d->w, &ready);
	drive_map_ready(d);
}

/* The first turn: nothing else has begun. */
static void
drive_open_store(struct drive *d)
{
	struct mkv_worker *w = d->w;
	static const uint8_t nobody[16];
	uint8_t uuid[16] = { 0 };
	uint32_t seen = 0;
	char why[512];
	int r;

	d->opening = 0;
	drive_fill_opts(d);
	d->opts.uuid_seen = uuid;
	r = mkv_engine_open(&d->e, &d->opts, &seen, why, sizeof(why));
	d->opts.uuid_seen = NULL;
	if (r == 0) {
		drive_say_ready(d, seen);
		return;
	}
	if (r == MKV_E_CANCELLED)
		return;
	mkv_log(MKV_EV_DRIVE_REFUSED, "media=%s why=\"%s\"", w->media, why);
	if (r == MKV_E_STALE)
		(void)mkv_worker_fail_epoch(w, seen);
	else if (memcmp(uuid, nobody, sizeof(uuid)) != 0)
		(void)mkv_worker_fail_uuid(w, uuid, why);
	else
		(void)mkv_worker_fail(w, r == MKV_E_CONFIG || r == MKV_E_VERSION || r == MKV_E_NOSPACE, "%s", why);
}

static void
drive_count(struct drive *d, uint64_t now)
{
	struct mkv_worker *w = d->w;
	uint64_t enters = mkv_ioq_enters(w->q), bells = w->bell_calls;

	if (now < d->count_ns)
		return;
	d->count_ns = now + DRIVE_COUNT_NS;
	drive_watch(d, now);
	mkv_metric_add(w->metrics, MKV_M_drive_loop_enters_total, 0, enters - d->enters);
	mkv_metric_add(w->metrics, MKV_M_drive_bell_calls_total, 0, bells - d->bells);
	d->enters = enters;
	d->bells = bells;
}

/* All answers are out: checkpoint, clean mark, the end. */
static void
drive_end(struct drive *d)
{
	int r = mkv_engine_close(&d->e, 0);

	if (r != 0)
		mkv_log(MKV_EV_DRIVE_WRITE_FAILED, "what=\"last checkpoint\" err=\"%s\"", mkv_err(r));
	mkv_worker_stopped(d->w);
}

static void
drive_turn(struct mkv_worker *w, uint64_t now_ns)
{
	struct drive *d = w->room;
	uint64_t next;

	if (d->opening)
		drive_open_store(d);
	if (w->state == MKV_WORKER_ENDED)
		return;
	if (d->e == NULL) {
		if (d->stopping)
			mkv_worker_stopped(w);
		return;
	}
	(void)drive_fronts_turn(d);
	next = mkv_engine_step(d->e);
	/* What found room only now was not part of that step. */
	if (drive_fronts_turn(d) > 0)
		next = 0;
	drive_count(d, now_ns);
	if (d->stopping && mkv_engine_busy(d->e) == 0 && d->answers.count == 0) {
		drive_end(d);
		return;
	}
	if (next == UINT64_MAX)
		mkv_timer_disarm(&w->timers, &d->timer);
	else
		mkv_timer_arm(&w->timers, &d->timer, next);
}

static void
drive_stop(struct mkv_worker *w, uint64_t grace_ms)
{
	struct drive *d = w->room;

	(void)grace_ms;
	d->stopping = 1;
	if (d->e != NULL)
		mkv_engine_sync(d->e);
}

static void
drive_fini(struct mkv_worker *w)
{
	struct drive *d = w->room;

	if (d == NULL)
		return;
	(void)mkv_engine_close(&d->e, 1);
	mkv_media_close(&d->media);
	drive_regions_close(d);
	drive_stages_close(d);
	drive_fronts_fini(d);
	for (int *fd = (int[]){ d->fd, d->arena_fd, d->meta_fd, -2 }; *fd != -2; fd++) {
		if (*fd >= 0)
			close(*fd);
	}
	d->magic = 0;
	free(d);
	w->room = NULL;
}

static const struct mkv_worker_ops drive_ops = {
	.program = "memkv-drive", .is_drive = 1, .init = drive_init, .message = drive_message, .start = drive_start, .peer_up = drive_peer_up,
	.peer_down = drive_peer_down, .desc = drive_desc, .turn = drive_turn, .stop = drive_stop, .fini = drive_fini,
};

int
main(int argc, char **argv)
{
	if (argc > 1 && strcmp(argv[1], "--offline") == 0)
		return (offline_main(argc - 2, argv + 2));
	return (mkv_worker_main(argc, argv, &drive_ops));
}
