/*
 * Process: supervisor, loop thread. /v1/health and /v1/status as JSON.
 *
 * healthy	every drive online and taking writes, every front running
 * degraded	at least one drive online and one front running
 * unhealthy	neither; or not started yet, or stopping
 * What can fail: memory.
 */
#include "config.h"

#include "supervisor/admin/admin_priv.h"

#include <string.h>

#include <jansson.h>

#include "common/base/assert.h"
#include "common/base/clock.h"
#include "common/base/err.h"
#include "common/base/hash.h"
#include "proto/wire.h"
#include "supervisor/sup_priv.h"

static char *
status_text(json_t *j, size_t *bytes)
{
	char *text = json_dumps(j, JSON_INDENT(2));

	json_decref(j);
	*bytes = text != NULL ? strlen(text) : 0;
	return (text);
}

static const char *
status_health(const struct mkv_sup *s)
{
	uint32_t running = 0, gone = pool_removed(s);

	if (!sup_serving(s))
		return ("unhealthy");
	for (uint32_t i = 0; i < s->proc_count; i++)
		running += s->proc[i].child.state == CHILD_RUNNING && !s->proc[i].readonly;
	return (running == s->proc_count - gone && pool_online(s) == s->drive_count - gone ? "healthy" : "degraded");
}

char *
admin_health(struct mkv_sup *s, size_t *bytes, int *unhealthy)
{
	const char *word = status_health(s);
	uint32_t online = pool_online(s), total = s->drive_count - pool_removed(s);

	*unhealthy = strcmp(word, "unhealthy") == 0;
	return (status_text(json_pack("{s:s,s:b,s:i,s:i,s:i}", "status", word, "rdma_active", rails_up(s) > 0, "drives_online", (int)online,
	    "drives_offline", (int)(total - online), "drives_total", (int)total), bytes));
}

static json_t *
status_hex(const uint8_t *p, size_t bytes)
{
	char text[65] = "";

	MKV_ASSERT(bytes <= 32);
	for (size_t i = 0; i < bytes; i++)
		snprintf(text + 2 * i, 3, "%02x", p[i]);
	return (json_string(text));
}

/* Foreign words (a child's, a path) as JSON, whatever bytes they hold. */
static json_t *
status_string(const char *s)
{
	json_t *j = json_string(s);

	return (j != NULL ? j : json_string("(not text)"));
}

static uint64_t
status_used(const struct mkv_sup *s, uint32_t drive)
{
	const struct proc *p = &s->proc[s->front_count + drive];

	return (p->child.state == CHILD_RUNNING ? mkv_metric_get(p->metrics, MKV_M_drive_used_bytes, 0) : s->pool[drive].used_bytes);
}

static uint64_t
status_usable(const struct mkv_sup *s, uint32_t drive)
{
	uint64_t data = mkv_metric_get(s->proc[s->front_count + drive].metrics, MKV_M_drive_total_bytes, 0);

	return (data != 0 ? data : s->pool[drive].total_bytes);
}

static json_t *
status_device(const struct mkv_sup *s, uint32_t i)
{
	const struct mkv_map_row *d = pool_row(s, i);
	const struct proc *p = &s->proc[s->front_count + i];

	return (json_pack("{s:i,s:o,s:o,s:s,s:o,s:b,s:I,s:I,s:I,s:f}", "index", (int)i, "uuid",
	    d->known ? status_hex(d->uuid, sizeof(d->uuid)) : json_null(), "media", status_string(s->conf->drive[i].media), "state",
	    mkv_drive_state_name(pool_state(s, i)), "io", status_string(p->io), "readonly", p->readonly, "raw_bytes", (json_int_t)s->pool[i].total_bytes,
	    "usable_bytes", (json_int_t)status_usable(s, i), "used_bytes", (json_int_t)status_used(s, i), "weight", d->weight));
}

static json_t *
status_storage(const struct mkv_sup *s)
{
	static const char *const modes[] = {
		[MKV_STORAGE_DIRECT] = "direct", [MKV_STORAGE_FILE] = "file", [MKV_STORAGE_MEMORY] = "memory"
	};
	json_t *devices = json_array();
	uint64_t raw = 0, usable = 0, used = 0;

	for (uint32_t i = 0; i < s->drive_count; i++) {
		json_array_append_new(devices, status_device(s, i));
		if (pool_gone(&s->proc[s->front_count + i]))
			continue;
		raw += s->pool[i].total_bytes;
		usable += status_usable(s, i);
		used += status_used(s, i);
	}
	return (json_pack("{s:s,s:I,s:I,s:I,s:I,s:o}", "mode", modes[s->params->storage_mode], "raw_bytes_total", (json_int_t)raw,
	    "usable_bytes_total", (json_int_t)usable, "used_bytes_total", (json_int_t)used, "map_version", (json_int_t)s->state.map_version,
	    "devices", devices));
}

/* The smallest pages that any of them lies in. */
static json_t *
status_pages(const struct mkv_sup *s, uint32_t first, uint32_t count)
{
	const struct pages_mem *least = NULL, *mem;
	char text[64];

	for (uint32_t i = first; i < first + count; i++)
		if ((mem = heritage_memory(&s->proc[i])) != NULL && (least == NULL || mem->page_bytes < least->page_bytes))
			least = mem;
	return (least != NULL ? json_string(pages_text(least, text, sizeof(text))) : json_null());
}

static json_t *
status_memory(const struct mkv_sup *s)
{
	uint64_t total = 0, unused = 0, held = 0, huge = mkv_metric_get(s->metrics, MKV_M_supervisor_huge_bytes, 0);

	for (uint32_t i = 0; i < s->front_count; i++) {
		const struct mkv_metrics *m = s->proc[i].metrics;

		total += s->conf->stage_data_bytes;
		unused += mkv_metric_get(m, MKV_M_front_stage_free_bytes, 0);
		held += mkv_metric_get(m, MKV_M_front_stage_quarantined_bytes, 0);
	}
	return (json_pack("{s:I,s:I,s:I,s:b,s:I,s:o,s:o}", "staging_bytes_total", (json_int_t)total, "staging_bytes_free", (json_int_t)unused,
	    "staging_bytes_quarantined", (json_int_t)held, "huge_pages", huge > 0, "huge_bytes",
	    (json_int_t)huge, "staging_pages", status_pages(s, 0, s->front_count), "arena_pages", status_pages(s, s->front_count, s->drive_count)));
}

static json_t *
status_list(const char *commas)
{
	json_t *a = json_array();
	size_t n;

	for (; *commas != '\0'; commas += n + (commas[n] == ',')) {
		n = strcspn(commas, ",");
		json_array_append_new(a, json_stringn(commas, n));
	}
	return (a);
}

static json_t *
status_process(const struct proc *p)
{
	uint64_t up = p->child.state == CHILD_RUNNING ? (mkv_now_ns() - p->child.ready_ns) / MKV_NS_PER_SEC : 0;
	json_t *words = json_array();
	char far[1024];
	const char *w;

	/* Last words are for a process that is gone: what a living one says is in the log. */
	for (uint32_t i = 0; p->life == NULL && (w = logs_word(&p->words, i)) != NULL; i++)
		json_array_append_new(words, status_string(w));
	return (json_pack("{s:s,s:s,s:i,s:i,s:I,s:I,s:o,s:o,s:o,s:o,s:o,s:o,s:s}", "name", p->child.name, "state", child_state_name(p->child.state),
	    "pid", p->life != NULL ? (int)p->life->pid : 0, "restarts", (int)p->child.restart_count, "uptime_s", (json_int_t)up, "epoch",
	    (json_int_t)p->epoch, "io", status_string(p->io), "jail_missing", status_list(p->jail_missing), "detail",
	    status_string(p->detail), "why", status_string(p->why), "last_words", words, "node", p->node >= 0 ? json_integer(p->node) : json_null(),
	    "far", affinity_far(p, far, sizeof(far))));
}

static json_t *
status_rails(const struct mkv_sup *s)
{
	json_t *a = json_array();

	for (uint32_t i = s->shard_count; i < sup_rails_end(s); i++) {
		const struct sup_rail *r = &s->proc[i].rail;

		json_array_append_new(a, json_pack("{s:i,s:s,s:b,s:b,s:b,s:I,s:I,s:s*}", "rail", (int)r->number, "device", rail_device(&s->proc[i]), "up", r->up,
		    "rc", (r->transports & MKV_FEATURE_RDMA_RC) != 0, "dc", (r->transports & MKV_FEATURE_RDMA_DC) != 0, "speed_mbit",
		    (json_int_t)r->speed_mbit, "mtu", (json_int_t)r->mtu, "without_dc", r->without_dc[0] != '\0' ? r->without_dc : NULL));
	}
	return (a);
}

char *
admin_status(struct mkv_sup *s, size_t *bytes)
{
	json_t *processes = json_array();

	for (uint32_t i = 0; i < s->proc_count; i++)
		if (!pool_gone(&s->proc[i]))
			json_array_append_new(processes, status_process(&s->proc[i]));
	return (status_text(json_pack("{s:s,s:o,s:s,s:I,s:I,s:s,s:o,s:o,s:o,s:o}", "status", status_health(s), "server_id",
	    status_hex(s->state.server_id, sizeof(s->state.server_id)), "version", PACKAGE_VERSION, "epoch", (json_int_t)s->state.epoch,
	    "uptime_s", (json_int_t)((mkv_now_ns() - s->started_ns) / MKV_NS_PER_SEC), "auth_key", s->keys.now.dev ? "dev" : "explicit",
	    "memory", status_memory(s), "storage", status_storage(s), "rails", status_rails(s), "processes", processes), bytes));
}
