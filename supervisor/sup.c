/*
 * Process: supervisor, loop thread.
 * The server as a whole: when it is ready, how it stops, what a reload changes. run.c makes it and takes it apart.
 *
 *	STARTING ---(fronts run, each drive runs or is settled, one at least runs, rails had their chance)---> SERVING: the ready line
 *	  any    ---(TERM, INT, shutdown)---> STOPPING_FRONTS ---(no front left)---> STOPPING_DRIVES ---(no drive left)---> DONE
 *
 * Fronts end first: what they have in flight still needs the drives. server.stop_timeout covers both; then SIGKILL, and what the kernel still
 * holds is left behind (the next server's drives wait for the locks).
 * What can fail: at start anything, with words on stderr and status 1; later only what the parts say of themselves.
 */
#include "config.h"

#include "supervisor/sup_priv.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/base/assert.h"
#include "common/base/clock.h"
#include "common/base/err.h"
#include "common/base/log.h"
#include "supervisor/operator_priv.h"

/* ---- what the rest asks ---- */

struct proc *
sup_proc_named(struct mkv_sup *s, const char *name)
{
	for (uint32_t i = 0; i < s->proc_count; i++)
		if (strcmp(s->proc[i].child.name, name) == 0)
			return (&s->proc[i]);
	return (NULL);
}

static uint32_t
sup_count(const struct mkv_sup *s, uint32_t first, uint32_t count, enum child_state state)
{
	uint32_t n = 0;

	for (uint32_t i = first; i < first + count; i++)
		n += s->proc[i].child.state == state;
	return (n);
}

int
sup_serving(const struct mkv_sup *s)
{
	return (s->phase == SUP_SERVING && sup_count(s, 0, s->shard_count, CHILD_RUNNING) > 0 && pool_online(s) > 0);
}

static void
sup_gauges(struct mkv_sup *s)
{
	const struct pages_mem *mem;
	uint32_t should = 0;
	uint64_t huge = 0;

	for (uint32_t i = 0; i < s->proc_count; i++) {
		mem = heritage_memory(&s->proc[i]);
		huge += mem != NULL && mem->page_bytes > 0 ? mem->bytes : 0;
		should += child_coming_back(&s->proc[i].child) || s->proc[i].child.state == CHILD_FATAL;
	}
	mkv_metric_set(s->metrics, MKV_M_supervisor_huge_bytes, 0, huge);
	mkv_metric_set(s->metrics, MKV_M_supervisor_children, 0, should);
	mkv_metric_set(s->metrics, MKV_M_supervisor_children_running, 0, sup_count(s, 0, s->proc_count, CHILD_RUNNING));
	mkv_metric_set(s->metrics, MKV_M_supervisor_rails, 0, s->rail_count);
	mkv_metric_set(s->metrics, MKV_M_supervisor_rails_up, 0, rails_up(s));
	mkv_metric_set(s->metrics, MKV_M_supervisor_children_fatal, 0, sup_count(s, 0, s->proc_count, CHILD_FATAL));
}

/* ---- ready ---- */

static void
sup_say_ready(struct mkv_sup *s)
{
	char line[2 * CONFIG_PATH_MAX + 256], data[CONFIG_ADDR_TEXT], admin[CONFIG_ADDR_TEXT] = "-";
	const char *local = s->conf->local_path[0] != '\0' ? s->conf->local_path : "-";
	uint64_t took_ms = (mkv_now_ns() - s->started_ns) / MKV_NS_PER_MS;
	int n;

	config_addr_text(data, s->conf->data.host, s->data_port);
	if (s->admin != NULL)
		config_addr_text(admin, s->conf->admin.host, s->admin_port);
	n = snprintf(line, sizeof(line), "ready data=%s admin=%s local=%s control=%s\n", data, admin, local, s->conf->control_path);
	/* Nobody who closed the reading end shall hurt us; a line of this size is written whole or not at all. */
	if (write(1, line, (size_t)n) != n)
		mkv_log(MKV_EV_NOTE, "text=%s", "standard output did not take the ready line");
	if (s->ready_fd > 1 && write(s->ready_fd, line, (size_t)n) != n)
		mkv_log(MKV_EV_NOTE, "text=%s", "the ready descriptor did not take the ready line");
	if (s->ready_fd > 2)
		close(s->ready_fd);
	s->ready_fd = -1;
	mkv_log(MKV_EV_READY, "data=%s admin=%s local=%s control=%s ms=%" PRIu64, data, admin, local, s->conf->control_path, took_ms);
	notify_ready(s);
}

/* A client that comes with the ready line finds the rails and the local front that there are; one that cannot be had, or is slow, delays nobody. */
static int
sup_others_settled(const struct mkv_sup *s)
{
	if (mkv_now_ns() - s->started_ns >= SUP_RAIL_PATIENCE_NS)
		return (1);
	for (uint32_t i = s->shard_count; i < s->front_count; i++)
		if (s->proc[i].child.state == CHILD_STARTING && s->proc[i].died_epoch == 0)
			return (0);
	return (1);
}

static void
sup_check_ready(struct mkv_sup *s)
{
	uint32_t settled = 0, wanted = 0;

	if (sup_count(s, 0, s->shard_count, CHILD_FATAL) == s->shard_count) {
		sup_fatal(s, sup_front(s, 0)->why);
		return;
	}
	for (uint32_t i = 0; i < s->drive_count; i++)
		wanted += (uint32_t)s->pool[i].wanted;
	if (sup_count(s, s->front_count, s->drive_count, CHILD_FATAL) >= wanted) {
		sup_fatal(s, wanted > 0 ? sup_drive(s, 0)->why : "all drives were removed; memkvctl drive add, or another server.data_dir");
		return;
	}
	for (uint32_t i = 0; i < s->drive_count; i++)
		settled += pool_state(s, i) != MKV_DRIVE_RESTARTING;
	if (settled < s->drive_count || pool_online(s) == 0 || !pool_served(s))
		return;
	if (sup_count(s, 0, s->shard_count, CHILD_RUNNING) + sup_count(s, 0, s->shard_count, CHILD_FATAL) < s->shard_count)
		return;
	if (!sup_others_settled(s))
		return;
	s->phase = SUP_SERVING;
	sup_say_ready(s);
}

/* ---- stop ---- */

static int
sup_all_ended(const struct mkv_sup *s, uint32_t first, uint32_t count)
{
	for (uint32_t i = first; i < first + count; i++)
		if (s->proc[i].life != NULL)
			return (0);
	return (1);
}

static void
sup_stop_range(struct mkv_sup *s, uint32_t first, uint32_t count)
{
	for (uint32_t i = first; i < first + count; i++)
		child_stop(&s->proc[i].child);
}

static void
sup_finish(struct mkv_sup *s)
{
	s->phase = SUP_DONE;
	uv_stop(s->loop);
}

static void
sup_check_stopped(struct mkv_sup *s)
{
	if (s->phase == SUP_STOPPING_FRONTS && sup_all_ended(s, 0, s->front_count)) {
		s->phase = SUP_STOPPING_DRIVES;
		sup_stop_range(s, s->front_count, s->drive_count);
	}
	if (s->phase == SUP_STOPPING_DRIVES && sup_all_ended(s, s->front_count, s->drive_count))
		sup_finish(s);
}

static void
sup_on_stop_timer(uv_timer_t *t)
{
	struct mkv_sup *s = t->data;
	int first = !s->stop_killed;

	s->exit_status = 1;
	s->stop_killed = 1;
	if (!first) {
		sup_finish(s);		/* the kernel holds them; their drives' locks tell the next server when they are gone */
		return;
	}
	for (uint32_t i = 0; i < s->proc_count; i++) {
		child_stop(&s->proc[i].child);
		child_kill(&s->proc[i].child);
	}
	(void)uv_timer_start(t, sup_on_stop_timer, SUP_KILL_LIMIT_MS, 0);
	sup_check_stopped(s);
}

/* The first call drains, the second ends at once. */
void
sup_stop(struct mkv_sup *s)
{
	if (s->stop_asked++ > 0) {
		if (s->stop_asked == 2)
			(void)uv_timer_start(&s->stop_timer, sup_on_stop_timer, 0, 0);
		return;
	}
	mkv_log(MKV_EV_STOP, "limit_ms=%" PRIu64, s->params->server_stop_timeout / 1000);
	notify_stopping();
	s->phase = SUP_STOPPING_FRONTS;
	(void)uv_timer_start(&s->stop_timer, sup_on_stop_timer, s->params->server_stop_timeout / 1000, 0);
	sup_stop_range(s, 0, s->front_count);
	sup_check_stopped(s);
}

void
sup_fatal(struct mkv_sup *s, const char *why)
{
	if (s->stop_asked)
		return;
	fprintf(stderr, "memkv: cannot serve: %s\n", why);
	s->exit_status = 1;
	sup_stop(s);
}

void
sup_on_change(struct mkv_sup *s)
{
	moved_step(s);
	sup_gauges(s);
	if (s->phase == SUP_STARTING)
		sup_check_ready(s);
	else if (s->phase >= SUP_STOPPING_FRONTS)
		sup_check_stopped(s);
	if (s->operator != NULL)
		operator_on_change(s->operator);
}

/* ---- reload ---- */

void
sup_policy(struct mkv_sup *s)
{
	const struct mkv_params *p = s->params;

	s->policy = (struct child_policy){
		.backoff_min_ns = p->server_backoff_min * MKV_NS_PER_US,
		.backoff_max_ns = p->server_backoff_max * MKV_NS_PER_US,
		.crash_window_ns = p->server_crash_window * MKV_NS_PER_US,
		.served_ok_ns = p->server_served_ok * MKV_NS_PER_US,
		.start_limit_ns = SUP_START_LIMIT_NS,
		.stop_limit_ns = p->server_stop_timeout * MKV_NS_PER_US,
		.crash_limit = p->server_crash_limit,
	};
}

/* One row of a fresh configuration into the running one, if it may change; returns 1 if it would need a restart. */
static int
sup_reload_row(struct mkv_sup *s, const struct config *fresh, const struct mkv_param_row *row)
{
	char now[MKV_PARAM_TEXT_BYTES], then[MKV_PARAM_TEXT_BYTES], why[MKV_PARAM_WHY_BYTES];

	if (mkv_params_get_text(s->params, row, now, sizeof(now)) != 0 || mkv_params_get_text(&fresh->params, row, then, sizeof(then)) != 0 ||
	    strcmp(now, then) == 0)
		return (0);
	if (row->scope != MKV_PARAM_RELOAD) {
		mkv_log(MKV_EV_CONFIG_NOTE, "key=%s running=%s configured=%s text=%s", row->key, now, then, "taken at the next start");
		return (1);
	}
	return (mkv_params_set(&s->config->params, row->key, then, why, sizeof(why)) != 0);
}

static void
sup_reload_key(struct mkv_sup *s, const struct config *fresh)
{
	uint32_t before = s->keys.now.id;

	if (keys_set(&s->keys, fresh->params.network_auth_key) != 0 || s->keys.now.id == before)
		return;
	for (uint32_t i = 0; i < s->front_count; i++) {
		if (!proc_reachable(sup_front(s, i)))
			continue;
		heritage_key(sup_front(s, i), &s->keys.now, 0);
		heritage_key(sup_front(s, i), &s->keys.before, 1);
	}
}

int
sup_reload(struct mkv_sup *s, char *why, unsigned why_bytes)
{
	struct config *fresh = malloc(sizeof(*fresh));
	struct config_errors e = { .n = 0 };
	unsigned later = 0;
	int r;

	if (fresh == NULL)
		return (MKV_E_NOMEM);
	if ((r = config_load(fresh, s->args, &e)) != 0) {
		for (unsigned i = 0; i < e.n; i++)
			mkv_log(MKV_EV_CONFIG_BAD, "why=%s", e.line[i]);
		snprintf(why, why_bytes, "%s", e.n > 0 ? e.line[0] : "configuration refused");
	} else {
		for (unsigned i = 0; i < mkv_param_count(); i++)
			later += (unsigned)sup_reload_row(s, fresh, &mkv_param_rows()[i]);
		sup_reload_key(s, fresh);
		sup_policy(s);
		mkv_log_init((enum mkv_log_level)s->params->log_level);
		s->out.json = s->params->log_format == MKV_LOG_FORMAT_JSON;
		(void)uv_timer_set_repeat(&s->ping_timer, s->params->server_ping_interval / 1000);
		for (uint32_t i = 0; i < s->proc_count; i++)
			if (proc_reachable(&s->proc[i]))
				heritage_configure(&s->proc[i]);
		mkv_log(MKV_EV_NOTE, "text=%s keys_for_next_start=%u", "configuration read again", later);
	}
	config_errors_free(&e);
	config_wipe(fresh);
	free(fresh);
	return (r);
}
