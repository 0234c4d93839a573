/*
 * Process: supervisor. From a configuration to a running loop and back: sup_run().
 * Owns: the struct mkv_sup. Each step of run_open() has its counterpart in run_close(), which accepts what was never opened.
 * What can fail: every step at start; the reason is said on stderr in one line and nothing is left behind.
 */
#include "config.h"

#include "supervisor/sup_priv.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "common/base/assert.h"
#include "common/base/clock.h"
#include "common/base/crc.h"
#include "common/base/err.h"
#include "common/base/log.h"
#include "supervisor/admin/admin_priv.h"
#include "supervisor/budget_priv.h"
#include "supervisor/operator_priv.h"

#define WHY_MAX		1024u
#define RUN_LATE_NS	(1 * MKV_NS_PER_SEC)	/* a timer that is later than this: the whole process stood still */

/* ---- what is set up before anything else ---- */

/* Children inherit these. Locked memory: what io_uring may register; descriptors: connections and segments. */
static void
run_limits(void)
{
	struct rlimit all = { RLIM_INFINITY, RLIM_INFINITY }, files;

	/* Refused without privileges: then as much as there may be. Buffers stay unregistered; an RDMA front says what it lacks. */
	if (setrlimit(RLIMIT_MEMLOCK, &all) != 0 && getrlimit(RLIMIT_MEMLOCK, &all) == 0) {
		all.rlim_cur = all.rlim_max;
		(void)setrlimit(RLIMIT_MEMLOCK, &all);
	}
	if (getrlimit(RLIMIT_NOFILE, &files) == 0) {
		files.rlim_cur = files.rlim_max;
		(void)setrlimit(RLIMIT_NOFILE, &files);
	}
}

/* Where the children's programs are: MEMKV_LIBEXEC, else beside our own. */
static int
run_libexec(struct mkv_sup *s, char *why)
{
	const char *dir = getenv("MEMKV_LIBEXEC");
	size_t n = sizeof(s->libexec);
	char *slash;

	if (dir != NULL && dir[0] == '/') {
		snprintf(s->libexec, sizeof(s->libexec), "%s", dir);
		return (0);
	}
	if (uv_exepath(s->libexec, &n) != 0 || (slash = strrchr(s->libexec, '/')) == NULL) {
		snprintf(why, WHY_MAX, "cannot tell where my own program is; set MEMKV_LIBEXEC to the directory of memkv-front and memkv-drive");
		return (MKV_E_SYSTEM);
	}
	*slash = '\0';
	return (0);
}

/* Our own lines take the way of the children's: through a pipe, dressed by logs.c. It never waits, so a full pipe loses lines. */
static int
run_log(struct mkv_sup *s, char *why)
{
	int fds[2], r;

	mkv_log_init((enum mkv_log_level)s->params->log_level);
	logs_out_open(&s->out, s->params->log_format == MKV_LOG_FORMAT_JSON);
	if (pipe2(fds, O_CLOEXEC | O_NONBLOCK) != 0) {
		snprintf(why, WHY_MAX, "cannot make a pipe: %s", strerror(errno));
		return (MKV_E_SYSTEM);
	}
	r = logs_open(&s->own_log, s->loop, fds[0], &s->out, &s->own_words, "supervisor", (int)getpid());
	if (r != 0) {
		close(fds[1]);
		snprintf(why, WHY_MAX, "log: %s", mkv_err(r));
		return (r);
	}
	s->own_log_fd = fds[1];
	mkv_log_set_fd(fds[1]);
	return (0);
}

static void
run_log_end(struct mkv_sup *s)
{
	mkv_log_set_fd(2);
	if (s->own_log_fd > 0)
		close(s->own_log_fd);
	logs_close(&s->own_log);
	logs_out_close(&s->out);
}

static int
run_state(struct mkv_sup *s, char *why)
{
	int r;

	if ((r = state_open(&s->state, s->conf->data_dir, why, WHY_MAX)) != 0)
		return (r);
	if ((r = keys_set(&s->keys, s->params->network_auth_key)) != 0) {
		snprintf(why, WHY_MAX, "network.auth_key: %s", mkv_err(r));
		return (r);
	}
	mkv_params_wipe(&s->config->params);
	return (peers_raise_epoch(s, why, WHY_MAX));
}

static int
run_procs(struct mkv_sup *s, char *why)
{
	uint32_t n = 0;
	int r;

	if ((r = pool_init(s, why, WHY_MAX)) != 0)
		return (r);
	/* Those that memkvctl added count, too; main.c knew the configuration alone. */
	if ((r = budget_pool(s, 0, 0, why, WHY_MAX)) != 0)
		return (r);
	s->front_count = s->conf->front_count;
	s->shard_count = s->conf->shard_count;
	s->rail_count = s->conf->rail_count;
	for (uint32_t i = 0; i < s->front_count; i++)
		proc_init(s, n++, i < s->shard_count ? SUP_FRONT_TCP : i < sup_rails_end(s) ? SUP_FRONT_RDMA : SUP_FRONT_LOCAL, i);
	for (uint32_t i = 0; i < s->drive_count; i++)
		proc_init(s, n++, SUP_DRIVE, i);
	s->proc_count = n;
	peers_init(s);
	pool_begin(s);
	return (0);
}

/* ---- signals and the clock ---- */

static void
run_on_signal(uv_signal_t *h, int signo)
{
	struct mkv_sup *s = h->data;
	char why[WHY_MAX];

	if (signo == SIGHUP)
		(void)sup_reload(s, why, sizeof(why));
	else
		sup_stop(s);
}

static void
run_on_ping(uv_timer_t *t)
{
	struct mkv_sup *s = t->data;
	uint64_t now = mkv_now_ns(), late = s->params->server_ping_interval * MKV_NS_PER_US + RUN_LATE_NS;

	for (uint32_t i = 0; i < s->proc_count; i++) {
		if (s->pinged_ns != 0 && now - s->pinged_ns > late)
			proc_ping_anew(&s->proc[i], now);
		proc_ping(&s->proc[i], now);
	}
	s->pinged_ns = now;
	pool_tick(s);
	peers_save_late(s);
	if (s->phase == SUP_STARTING)
		sup_on_change(s);		/* time alone makes it ready: a rail is not waited for for ever */
}

static void
run_watch(struct mkv_sup *s)
{
	const struct {
		uv_signal_t	*h;
		int		signo;
	} sig[] = { { &s->sig_term, SIGTERM }, { &s->sig_int, SIGINT }, { &s->sig_hup, SIGHUP } };
	uint64_t every_ms = MKV_MAX(s->params->server_ping_interval / 1000, 1);

	for (size_t i = 0; i < MKV_ARRAY_LEN(sig); i++) {
		(void)uv_signal_init(s->loop, sig[i].h);
		sig[i].h->data = s;
		(void)uv_signal_start(sig[i].h, run_on_signal, sig[i].signo);
	}
	(void)uv_timer_init(s->loop, &s->ping_timer);
	(void)uv_timer_init(s->loop, &s->stop_timer);
	s->ping_timer.data = s->stop_timer.data = s;
	(void)uv_timer_start(&s->ping_timer, run_on_ping, every_ms, every_ms);
}

static void
run_unwatch(struct mkv_sup *s)
{
	uv_handle_t *h[] = { (uv_handle_t *)&s->sig_term, (uv_handle_t *)&s->sig_int, (uv_handle_t *)&s->sig_hup,
		(uv_handle_t *)&s->ping_timer, (uv_handle_t *)&s->stop_timer };

	for (size_t i = 0; i < MKV_ARRAY_LEN(h); i++)
		if (h[i]->data != NULL)
			uv_close(h[i], NULL);
}

/* ---- all of it ---- */

static int
run_open(struct mkv_sup *s, char *why)
{
	int r;

	if ((r = run_libexec(s, why)) != 0 || (r = run_log(s, why)) != 0)
		return (r);
	if ((r = mkv_metrics_open_private(&s->metrics)) != 0 || (r = mkv_auth_init()) != 0) {
		snprintf(why, WHY_MAX, "cannot start: %s", mkv_err(r));
		return (r);
	}
	mkv_metric_set(s->metrics, MKV_M_supervisor_start_time_seconds, 0, s->started_wall_ms / 1000);
	if ((r = run_state(s, why)) != 0)
		return (r);
	if ((r = run_procs(s, why)) != 0)
		return (r);
	run_watch(s);
	if ((r = heritage_create(s, why, WHY_MAX)) != 0)
		return (r);
	if ((r = operator_open(&s->operator, s, s->conf->control_path, why, WHY_MAX)) != 0)
		return (r);
	return (s->params->admin_enabled ? admin_open(&s->admin, s, why, WHY_MAX) : 0);
}

static void
run_say_notes(const struct config *c)
{
	char why[256];

	for (unsigned i = 0; i < c->n_notes; i++)
		mkv_log(MKV_EV_CONFIG_NOTE, "key=%s text=%s", c->note[i]->key, c->note[i]->help);
	for (unsigned i = 0; i < c->n_stray; i++) {
		config_stray_text(&c->stray[i], why, sizeof(why));
		mkv_log(MKV_EV_CONFIG_NOTE, "text=%s", why);
	}
}

static void
run_start(struct mkv_sup *s)
{
	mkv_log(MKV_EV_START, "version=%s epoch=%" PRIu32 " data_dir=%s config=%s key=%s fronts=%u rails=%u local=%s drives=%u", PACKAGE_VERSION, s->state.epoch,
	    s->conf->data_dir, s->config->file[0] != '\0' ? s->config->file : "-", s->keys.now.dev ? "dev" : "explicit", s->front_count,
	    s->rail_count, s->conf->local_path[0] != '\0' ? s->conf->local_path : "-", s->drive_count);
	run_say_notes(s->config);
	/* Drives first: they have more to do before they are ready. */
	for (uint32_t i = 0; i < s->drive_count; i++)
		if (s->pool[i].wanted)
			(void)child_start(&sup_drive(s, i)->child);
	for (uint32_t i = 0; i < s->front_count; i++)
		(void)child_start(&sup_front(s, i)->child);
	sup_on_change(s);
}

static void
run_save_epoch(struct mkv_sup *s)
{
	char why[WHY_MAX];

	if (s->state.lock_fd == -1 || s->state.epoch == 0)
		return;
	s->state.epoch_saved = s->state.epoch;
	if (state_save(&s->state, why, sizeof(why)) != 0)
		mkv_log(MKV_EV_STATE_FAILED, "text=%s", why);
}

static void
run_close(struct mkv_sup *s)
{
	admin_close(s->admin);
	operator_close(&s->operator);
	run_unwatch(s);
	if (s->proc_count > 0)
		peers_close(s);
	s->clean = !s->state.unclean || s->phase == SUP_DONE;
	for (uint32_t i = 0; i < s->proc_count; i++) {
		s->clean = s->clean && s->proc[i].life == NULL;
		proc_close(&s->proc[i]);
	}
	notify_close();
	heritage_destroy(s);
	run_save_epoch(s);
	run_log_end(s);
	/* Closing callbacks free what libuv still held. Nothing is left that could wait. */
	(void)uv_run(s->loop, UV_RUN_DEFAULT);
	admin_free(&s->admin);
	(void)uv_run(s->loop, UV_RUN_DEFAULT);
	(void)uv_loop_close(s->loop);
	keys_wipe(&s->keys);
	state_close(&s->state, s->clean);
	mkv_metrics_close(&s->metrics);
}

static struct mkv_sup *
run_alloc(const struct config_args *args, struct config *config)
{
	static uv_loop_t loop;
	struct mkv_sup *s = calloc(1, sizeof(*s));

	if (s == NULL || uv_loop_init(&loop) != 0) {
		free(s);
		return (NULL);
	}
	s->magic = SUP_MAGIC;
	s->loop = &loop;
	s->args = args;
	s->config = config;
	s->params = &config->params;
	s->conf = &config->derived;
	s->ready_fd = args->ready_fd;
	s->started_ns = mkv_now_ns();
	s->started_wall_ms = mkv_wall_ms();
	s->state.dir_fd = s->state.lock_fd = -1;
	sup_policy(s);
	return (s);
}

int
sup_run(const struct config_args *args, struct config *config)
{
	char why[WHY_MAX] = "unknown";
	struct mkv_sup *s;
	int status, r;

	(void)signal(SIGPIPE, SIG_IGN);
	mkv_crc_init();
	run_limits();
	if ((s = run_alloc(args, config)) == NULL) {
		fprintf(stderr, "memkv: out of memory\n");
		return (1);
	}
	if ((r = run_open(s, why)) == 0) {
		run_start(s);
		(void)uv_run(s->loop, UV_RUN_DEFAULT);
	} else if (s->stop_asked) {
		s->phase = SUP_STARTING;	/* what the former server left behind was not seen to its end */
	} else {
		fprintf(stderr, "memkv: %s\n", why);
		s->exit_status = r == MKV_E_CONFIG ? 2 : 1;
	}
	status = s->exit_status;
	run_close(s);
	free(s);
	return (status);
}
