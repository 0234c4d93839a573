/*
 * The pool map, and what is asked about namespaces, on the way between supervisor and engine; whether the medium hangs or fails. Drive's loop thread.
 * Owns nothing but fields of struct drive.
 *
 * What fails: a map that makes no sense, or no memory for a log, ends the process: the supervisor starts another.
 */
#include "config.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/err.h"
#include "common/base/params.h"
#include "common/shm/metric.h"
#include "worker/drive/drive.h"

#define POOL_ERRORS_NS	(60 * MKV_NS_PER_SEC)
#define POOL_KEEP_NS	MKV_NS_PER_SEC		/* for the failure registry to be written, before the process is ended for what it says */
#define POOL_LOG_PART	2048u			/* digests of one message */
#define POOL_SPACES_PART	256u			/* rows of one message */

/*
 * The last map heard is the engine's. A drive that was removed takes the values with it that it was home of; their pieces here are freed. If it is added again it is
 * the home of others, and may be removed once more.
 */
static void
pool_tell_engine(struct drive *d)
{
	mkv_engine_map(d->e, &d->map);
	for (uint32_t i = 0; i < d->map.n; i++) {
		const struct mkv_map_row *row = &d->map.row[i];
		int removed = row->state == MKV_DRIVE_REMOVED;

		if (!row->known || removed == (int)(d->removed_told >> i & 1))
			continue;
		d->removed_told ^= 1ull << i;
		if (removed)
			mkv_engine_home_removed(d->e, row->uuid);
		else
			mkv_engine_home_back(d->e, row->uuid);
	}
}

static int
pool_take_map(struct drive *d, const Mkv__Ctl__PoolMap *m)
{
	struct mkv_map map = { .version = m->version, .n = (uint32_t)m->n_drives };

	if (m->n_drives > MKV_MAP_DRIVES_MAX || m->version == 0)
		return (MKV_E_PROTO);
	for (uint32_t i = 0; i < map.n; i++) {
		const Mkv__Ctl__PoolDrive *row = m->drives[i];

		if (row->index != i || (row->uuid.len != 0 && row->uuid.len != sizeof(map.row[i].uuid)) || (unsigned)row->state >= MKV_DRIVE_STATES)
			return (MKV_E_PROTO);
		map.row[i].known = row->uuid.len != 0;
		if (map.row[i].known)
			memcpy(map.row[i].uuid, row->uuid.data, row->uuid.len);
		map.row[i].state = (uint8_t)row->state;
		map.row[i].weight = row->weight;
		map.row[i].former = row->former;
		map.row[i].since = row->since;
	}
	d->map = map;
	if (d->e != NULL)
		pool_tell_engine(d);
	return (0);
}

static void
pool_say_log(struct drive *d, uint64_t since)
{
	const struct mkv_digest *log = NULL;
	Mkv__Ctl__AwayLog part = MKV__CTL__AWAY_LOG__INIT;
	size_t n = 0, at = 0, some;
	int whole = 0;

	if (d->e != NULL)
		n = mkv_engine_away(d->e, since, &log, &whole);
	part.since = since;
	part.whole = whole;
	do {
		some = MKV_MIN(n - at, (size_t)POOL_LOG_PART);
		part.digests.len = some * sizeof(*log);
		part.digests.data = (uint8_t *)(uintptr_t)(log + at);
		at += some;
		part.last = at == n;
		mkv_worker_away_log(d->w, &part);
	} while (at < n);
}

/* Before the engine is open there is nobody to ask: the supervisor asks those that are ready. */
static int
pool_purge(struct drive *d, const Mkv__Ctl__Purge *m)
{
	if (m->name.len > MKV_DRV_NS_MAX)
		return (MKV_E_PROTO);
	if (d->e == NULL)
		return (0);				/* it is closing: the supervisor asks its next life */
	mkv_engine_purge(d->e, m->id, m->name.data, m->name.len);
	return (0);
}

void
drive_purged(void *arg, uint64_t id, int err, uint64_t objects, uint64_t bytes)
{
	struct drive *d = arg;
	Mkv__Ctl__Purged answer = MKV__CTL__PURGED__INIT;

	answer.id = id;
	answer.status = err;
	answer.objects = objects;
	answer.bytes = bytes;
	mkv_worker_purged(d->w, &answer);
}

static int
pool_say_spaces(struct drive *d, uint64_t id)
{
	struct mkv_engine_ns *ns = calloc(MKV_DRV_NS_COUNT_MAX, sizeof(*ns));
	Mkv__Ctl__Spaces part = MKV__CTL__SPACES__INIT;
	Mkv__Ctl__Space row[POOL_SPACES_PART], *rows[POOL_SPACES_PART];
	size_t n, at = 0;

	if (ns == NULL || d->e == NULL) {
		free(ns);
		return (ns == NULL ? MKV_E_NOMEM : 0);	/* it is closing: its end is the answer */
	}
	n = mkv_engine_namespaces(d->e, ns, MKV_DRV_NS_COUNT_MAX);
	part.id = id;
	part.rows = rows;
	do {
		for (part.n_rows = 0; part.n_rows < POOL_SPACES_PART && at < n; at++) {
			Mkv__Ctl__Space *r = rows[part.n_rows] = &row[part.n_rows];

			mkv__ctl__space__init(r);
			r->name = (ProtobufCBinaryData){ .len = ns[at].name_bytes, .data = ns[at].name };
			r->objects = ns[at].objects;
			r->bytes = ns[at].bytes;
			part.n_rows++;
		}
		part.last = at == n;
		mkv_worker_spaces(d->w, &part);
	} while (at < n);
	free(ns);
	return (0);
}

int
drive_pool_message(struct drive *d, const Mkv__Ctl__Control *m)
{
	switch (m->body_case) {
	case MKV__CTL__CONTROL__BODY_POOL_MAP:
		return (pool_take_map(d, m->pool_map));
	case MKV__CTL__CONTROL__BODY_AWAY_ASK:
		pool_say_log(d, m->away_ask->since);
		return (0);
	case MKV__CTL__CONTROL__BODY_FORGET:
		if (m->forget->digests.len % sizeof(struct mkv_digest) != 0)
			return (MKV_E_PROTO);
		if (d->e == NULL)
			return (0);			/* it is closing: its next life takes the way back anew */
		return (mkv_engine_forget(d->e, m->forget->digests.data, m->forget->digests.len / sizeof(struct mkv_digest)));
	case MKV__CTL__CONTROL__BODY_PURGE:
		return (pool_purge(d, m->purge));
	case MKV__CTL__CONTROL__BODY_SPACES_ASK:
		return (pool_say_spaces(d, m->spaces_ask->id));
	default:
		return (MKV_E_PROTO);
	}
}

void
drive_map_stored(void *arg, uint64_t version)
{
	struct drive *d = arg;

	mkv_worker_map_stored(d->w, version);
}

void
drive_map_ready(struct drive *d)
{
	if (d->map.version != 0)
		pool_tell_engine(d);
}

void
drive_map_fill(const struct mkv_map *map, Mkv__Ctl__PoolMap *out, Mkv__Ctl__PoolDrive *rows, Mkv__Ctl__PoolDrive **list)
{
	out->version = map->version;
	out->n_drives = map->n;
	out->drives = list;
	for (uint32_t i = 0; i < map->n; i++) {
		const struct mkv_map_row *r = &map->row[i];

		mkv__ctl__pool_drive__init(&rows[i]);
		rows[i].index = i;
		rows[i].uuid = (ProtobufCBinaryData){ .len = r->known ? sizeof(r->uuid) : 0, .data = (uint8_t *)(uintptr_t)r->uuid };
		rows[i].weight = r->weight;
		rows[i].state = (Mkv__Ctl__DriveState)r->state;
		rows[i].former = r->former;
		rows[i].since = r->since;
		list[i] = &rows[i];
	}
}

static void
pool_watch_io(struct drive *d, uint64_t now)
{
	uint64_t oldest = d->media->ops->oldest_ns != NULL ? d->media->ops->oldest_ns(d->media) : UINT64_MAX;
	char detail[96];

	if (d->hangs || oldest >= now || now - oldest < d->w->params->drive_io_timeout * MKV_NS_PER_US)
		return;
	d->hangs = 1;
	(void)snprintf(detail, sizeof(detail), "an I/O request has not ended for %llu s (drive.io_timeout)",
	    (unsigned long long)((now - oldest) / MKV_NS_PER_SEC));
	mkv_worker_report_hang(d->w, detail);
}

/* The supervisor kills a drive that it gives up: what failed is to be read on it afterwards. */
void
drive_give_up(struct drive *d, int readonly, const char *why)
{
	if (d->give_up_ns == 0)
		d->give_up_ns = mkv_now_ns();
	d->give_up_readonly |= readonly;
	(void)snprintf(d->give_up_why, sizeof(d->give_up_why), "%s", why);
}

static void
pool_say_given_up(struct drive *d, uint64_t now)
{
	if (d->give_up_ns == 0 || d->e == NULL || (!mkv_engine_failures_keep(d->e) && now < d->give_up_ns + POOL_KEEP_NS))
		return;
	d->give_up_ns = 0;
	mkv_worker_report(d->w, d->give_up_readonly ? 1 : -1, d->give_up_readonly ? -1 : 1, d->give_up_why);
}

void
drive_watch(struct drive *d, uint64_t now)
{
	uint64_t places = mkv_metric_get(d->w->metrics, MKV_M_drive_bad_places_total, 0);
	char why[sizeof(d->give_up_why)];

	pool_watch_io(d, now);
	if (d->errors_ns == 0 || now - d->errors_ns > POOL_ERRORS_NS) {
		d->errors_ns = now;
		d->errors_then = places;
	}
	if (d->give_up_ns == 0 && !d->w->failed && places - d->errors_then >= d->w->params->drive_error_limit) {
		(void)snprintf(why, sizeof(why), "reads, writes or checksums failed in %" PRIu64 " places in a minute (drive.error_limit); memkv drive info lists them",
		    places - d->errors_then);
		drive_give_up(d, 0, why);
	}
	pool_say_given_up(d, now);
}
