/*
 * The life of a worker: entry, what the supervisor says, the end.
 *
 * Process and thread: front, drive; the main thread.
 * Owns: struct mkv_worker, the control end (descriptor 3), the parameters, the metric page.
 * Invariants: `state` only moves forward; phases of the control conversation follow what was received, so both ends agree on them.
 *
 *	SETUP --START--> STARTING --mkv_worker_ready()--> RUNNING --STOP, end of the supervisor--> STOPPING --mkv_worker_stopped()--> ENDED
 *	  \---------------------- STOP before START, mkv_worker_fail(), a broken conversation, the grace is over --------------------/
 *
 * Fails: every failure to serve ends in mkv_worker_fail(): the words go to the supervisor, which starts another or not. The end of the supervisor
 * is an orderly stop with a grace of our own. SIGTERM and SIGINT are ignored: an operator's signal reaches the whole group, but it is the
 * supervisor that stops the fronts first and then the drives.
 */
#include "config.h"
#include "worker/core/core_priv.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/base/auth.h"
#include "common/base/clock.h"
#include "common/base/err.h"
#include "common/base/log.h"
#include "common/base/os.h"
#include "common/base/params.h"
#include "common/shm/metric.h"
#include "worker/core/jail.h"

static enum mkv_ctl_phase
life_phase(const struct mkv_worker *w)
{
	switch (w->state) {
	case MKV_WORKER_SETUP:
		return (w->params == NULL ? MKV_CTL_NEW : MKV_CTL_SETUP);
	case MKV_WORKER_STARTING:
	case MKV_WORKER_RUNNING:
		return (MKV_CTL_SERVE);
	case MKV_WORKER_STOPPING:
	case MKV_WORKER_ENDED:
		return (MKV_CTL_STOPPING);
	}
	MKV_ASSERT(!"state out of range");
	return (MKV_CTL_STOPPING);
}

static void
life_set_state(struct mkv_worker *w, enum mkv_worker_state to)
{
	MKV_ASSERT(to > w->state);
	w->state = to;
}

void
mkv_worker_end(struct mkv_worker *w, int exit_code)
{
	if (w->state == MKV_WORKER_ENDED)
		return;
	w->exit_code = exit_code;
	life_set_state(w, MKV_WORKER_ENDED);
}

/* ---- to the supervisor ---- */

void
mkv_worker_say(struct mkv_worker *w, const Mkv__Ctl__Control *m)
{
	int r;

	if (w->orphan || (r = mkv_ctl_send(w->ctl, m)) == 0)
		return;
	if (r != MKV_E_CLOSED)			/* its end is seen where we read */
		mkv_log(MKV_EV_CTL_BAD, "what=send err=%s", mkv_err_name(r));
	if (r == MKV_E_BUSY)
		mkv_worker_end(w, 1);
}

void
mkv_worker_ready(struct mkv_worker *w, Mkv__Ctl__Ready *ready)
{
	char *missing[8];
	MKV_CTL_MESSAGE(m, READY, ready, ready);

	if (w->state != MKV_WORKER_STARTING)
		return;					/* STOP came first */
	if (ready->io == NULL || ready->io[0] == '\0')
		ready->io = (char *)(uintptr_t)mkv_ioq_name(w->q);
	ready->jail_missing = missing;
	ready->n_jail_missing = 0;
	for (unsigned bit = 1; bit <= MKV_JAIL_ALL; bit <<= 1)
		if (w->jail_missing & bit)
			missing[ready->n_jail_missing++] = (char *)(uintptr_t)mkv_jail_part_name(bit);
	life_set_state(w, MKV_WORKER_RUNNING);
	mkv_worker_say(w, &m);
	ready->jail_missing = NULL;
	ready->n_jail_missing = 0;
}

static void
life_drained(struct mkv_worker *w, int own, uint32_t front, uint32_t epoch)
{
	Mkv__Ctl__Drained d = MKV__CTL__DRAINED__INIT;
	MKV_CTL_MESSAGE(m, DRAINED, drained, &d);

	d.own = own;
	d.front = front;
	d.epoch = epoch;
	mkv_worker_say(w, &m);
}

void
mkv_worker_drained_own(struct mkv_worker *w)
{
	life_drained(w, 1, 0, w->epoch);
}

void
mkv_worker_drained_front(struct mkv_worker *w, uint32_t front, uint32_t epoch)
{
	life_drained(w, 0, front, epoch);
}

void
mkv_worker_report(struct mkv_worker *w, int readonly, int failed, const char *detail)
{
	Mkv__Ctl__State s = MKV__CTL__STATE__INIT;
	MKV_CTL_MESSAGE(m, STATE, state, &s);

	if (readonly >= 0)
		w->readonly = readonly;
	if (failed >= 0)
		w->failed = failed;
	s.readonly = w->readonly;
	s.failed = w->failed;
	s.detail = (char *)(uintptr_t)detail;
	mkv_worker_say(w, &m);
}

void
mkv_worker_report_hang(struct mkv_worker *w, const char *detail)
{
	Mkv__Ctl__State s = MKV__CTL__STATE__INIT;
	MKV_CTL_MESSAGE(m, STATE, state, &s);

	s.readonly = w->readonly;
	s.failed = w->failed;
	s.hangs = 1;
	s.detail = (char *)(uintptr_t)detail;
	mkv_worker_say(w, &m);
}

void
mkv_worker_report_rail(struct mkv_worker *w, Mkv__Ctl__Rail *rail, const char *detail)
{
	Mkv__Ctl__State s = MKV__CTL__STATE__INIT;
	MKV_CTL_MESSAGE(m, STATE, state, &s);

	s.detail = (char *)(uintptr_t)detail;
	s.rail = rail;
	mkv_worker_say(w, &m);
}

void
mkv_worker_map_stored(struct mkv_worker *w, uint64_t version)
{
	Mkv__Ctl__MapStored s = MKV__CTL__MAP_STORED__INIT;
	MKV_CTL_MESSAGE(m, MAP_STORED, map_stored, &s);

	s.version = version;
	mkv_worker_say(w, &m);
}

void
mkv_worker_away_log(struct mkv_worker *w, Mkv__Ctl__AwayLog *part)
{
	MKV_CTL_MESSAGE(m, AWAY_LOG, away_log, part);

	mkv_worker_say(w, &m);
}

void
mkv_worker_purged(struct mkv_worker *w, Mkv__Ctl__Purged *answer)
{
	MKV_CTL_MESSAGE(m, PURGED, purged, answer);

	mkv_worker_say(w, &m);
}

void
mkv_worker_spaces(struct mkv_worker *w, Mkv__Ctl__Spaces *part)
{
	MKV_CTL_MESSAGE(m, SPACES, spaces, part);

	mkv_worker_say(w, &m);
}

int
mkv_worker_region(struct mkv_worker *w, Mkv__Ctl__Region *ask, int fd)
{
	MKV_CTL_MESSAGE(m, REGION, region, ask);

	return (w->orphan ? MKV_E_CLOSED : mkv_ctl_send_fd(w->ctl, &m, fd));
}

void
mkv_worker_region_done(struct mkv_worker *w, Mkv__Ctl__RegionDone *answer)
{
	MKV_CTL_MESSAGE(m, REGION_DONE, region_done, answer);

	mkv_worker_say(w, &m);
}

void
mkv_worker_stopped(struct mkv_worker *w)
{
	Mkv__Ctl__Stopped s = MKV__CTL__STOPPED__INIT;
	MKV_CTL_MESSAGE(m, STOPPED, stopped, &s);

	if (w->state == MKV_WORKER_ENDED)
		return;
	mkv_worker_say(w, &m);
	mkv_worker_end(w, 0);
}

static int
life_fail(struct mkv_worker *w, Mkv__Ctl__Fail *f)
{
	MKV_CTL_MESSAGE(m, FAIL, fail, f);

	if (w->state == MKV_WORKER_ENDED)
		return (MKV_E_CANCELLED);
	if (!f->absent)				/* may be so for days: the supervisor says it once */
		mkv_log(MKV_EV_WORKER_FAILED, "final=%d why=\"%s\"", f->final, f->why);
	mkv_worker_say(w, &m);
	mkv_worker_end(w, 1);
	return (MKV_E_CANCELLED);
}

int
mkv_worker_fail(struct mkv_worker *w, int final, const char *fmt, ...)
{
	Mkv__Ctl__Fail f = MKV__CTL__FAIL__INIT;
	char why[512];
	va_list ap;

	va_start(ap, fmt);
	(void)vsnprintf(why, sizeof(why), fmt, ap);
	va_end(ap);
	f.why = why;
	f.final = final;
	return (life_fail(w, &f));
}

int
mkv_worker_fail_absent(struct mkv_worker *w, const char *fmt, ...)
{
	Mkv__Ctl__Fail f = MKV__CTL__FAIL__INIT;
	char why[512];
	va_list ap;

	va_start(ap, fmt);
	(void)vsnprintf(why, sizeof(why), fmt, ap);
	va_end(ap);
	f.why = why;
	f.absent = 1;
	return (life_fail(w, &f));
}

int
mkv_worker_fail_epoch(struct mkv_worker *w, uint32_t epoch_seen)
{
	Mkv__Ctl__Fail f = MKV__CTL__FAIL__INIT;
	char why[96];

	(void)snprintf(why, sizeof(why), "the medium has seen epoch %" PRIu32 ", this process got %" PRIu32, epoch_seen, w->epoch);
	f.why = why;
	f.epoch_seen = epoch_seen;
	return (life_fail(w, &f));
}

int
mkv_worker_fail_uuid(struct mkv_worker *w, uint8_t uuid_seen[16], char *why)
{
	Mkv__Ctl__Fail f = MKV__CTL__FAIL__INIT;

	f.why = why;
	f.final = 1;
	f.uuid_seen = (ProtobufCBinaryData){ .len = 16, .data = uuid_seen };
	return (life_fail(w, &f));
}

/* ---- from the supervisor ---- */

static void
life_grace_over(struct mkv_timer *t, uint64_t now_ns MKV_UNUSED)
{
	struct mkv_worker *w = MKV_CONTAINER_OF(t, struct mkv_worker, stop_timer);

	mkv_log(MKV_EV_STOP, "what=\"the grace is over\"");
	mkv_worker_end(w, 1);
}

static void
life_stop(struct mkv_worker *w, uint64_t grace_ms)
{
	int serving = w->started;

	if (w->state >= MKV_WORKER_STOPPING)
		return;
	mkv_log(MKV_EV_STOP, "grace_ms=%" PRIu64, grace_ms);
	life_set_state(w, MKV_WORKER_STOPPING);
	if (!serving)
		return;					/* start() returns, then the end: see mkv_worker_main() */
	w->stop_timer.fire = life_grace_over;
	mkv_timer_arm(&w->timers, &w->stop_timer, mkv_now_ns() + (grace_ms + MKV_WORKER_LATE_MS) * MKV_NS_PER_MS);
	w->ops->stop(w, grace_ms);
}

static void
life_orphan_stop(struct mkv_timer *t, uint64_t now_ns MKV_UNUSED)
{
	life_stop(MKV_CONTAINER_OF(t, struct mkv_worker, stop_timer), MKV_WORKER_ORPHAN_MS);
}

/* No supervisor: what is in flight is finished and synced all the same, and drives end after their fronts. */
static void
life_orphan(struct mkv_worker *w)
{
	if (w->orphan)
		return;
	w->orphan = 1;
	if (w->ctl_io.active)
		mkv_ioq_cancel(w->q, &w->ctl_io);
	mkv_log(MKV_EV_SUPERVISOR_GONE, "state=%d", (int)w->state);
	if (w->ops->is_drive && w->state == MKV_WORKER_RUNNING) {
		w->stop_timer.fire = life_orphan_stop;
		mkv_timer_arm(&w->timers, &w->stop_timer, mkv_now_ns() + MKV_WORKER_ORPHAN_SERVE_MS * MKV_NS_PER_MS);
		return;
	}
	life_stop(w, w->ops->is_drive ? MKV_WORKER_ORPHAN_MS : MKV_WORKER_ORPHAN_FRONT_MS);
}

static int
life_copy(uint8_t *dst, size_t want, const ProtobufCBinaryData *b)
{
	if (b->len != want)
		return (MKV_E_PROTO);
	memcpy(dst, b->data, want);
	return (0);
}

static int
life_params(struct mkv_worker *w, const Mkv__Ctl__Configure *c)
{
	char why[MKV_PARAM_WHY_BYTES];

	for (size_t i = 0; i < c->n_params; i++)
		if (mkv_params_set(w->params, c->params[i]->key, c->params[i]->value, why, sizeof(why)) != 0)
			return (mkv_worker_fail(w, 1, "configuration: %s", why));
	mkv_log_init((enum mkv_log_level)w->params->log_level);
	return (0);
}

static int
life_others(struct mkv_worker *w, const Mkv__Ctl__Configure *c)
{
	int r = c->n_other_uuids > MKV_ARRAY_LEN(w->other_uuid) ? MKV_E_PROTO : 0;

	for (size_t i = 0; i < c->n_other_uuids && r == 0; i++)
		r = life_copy(w->other_uuid[w->other_count++], sizeof(w->other_uuid[0]), &c->other_uuids[i]);
	return (r);
}

static int
life_configure_first(struct mkv_worker *w, const Mkv__Ctl__Configure *c)
{
	int r;

	if ((w->params = calloc(1, sizeof(*w->params))) == NULL)
		return (MKV_E_NOMEM);
	mkv_params_defaults(w->params);
	if ((c->kind == MKV__CTL__KIND__KIND_DRIVE) != (w->ops->is_drive != 0) || strlen(c->name) >= sizeof(w->name) ||
	    strlen(c->media) >= sizeof(w->media) || strlen(c->device) >= sizeof(w->device) || strlen(c->local_path) >= sizeof(w->local_path) ||
	    (c->kind == MKV__CTL__KIND__KIND_FRONT_RDMA) != (c->rail != 0))
		return (MKV_E_PROTO);
	(void)snprintf(w->name, sizeof(w->name), "%s", c->name);
	(void)snprintf(w->media, sizeof(w->media), "%s", c->media);
	(void)snprintf(w->device, sizeof(w->device), "%s", c->device);
	(void)snprintf(w->local_path, sizeof(w->local_path), "%s", c->local_path);
	w->rail = c->rail;
	w->kind = c->kind;
	w->index = c->index;
	w->epoch = c->epoch;
	w->front_id = c->front_id;
	w->front_count = c->front_count;
	w->drive_count = c->drive_count;
	w->max_size = c->max_size;
	w->loopback_only = c->loopback_only;
	w->has_drive_uuid = c->drive_uuid.len > 0;
	w->forget_all = c->forget_all;
	if ((r = life_copy(w->server_id, sizeof(w->server_id), &c->server_id)) != 0 ||
	    (r = life_copy(w->store_secret, sizeof(w->store_secret), &c->store_secret)) != 0 ||
	    (w->has_drive_uuid && (r = life_copy(w->drive_uuid, sizeof(w->drive_uuid), &c->drive_uuid)) != 0) || (r = life_others(w, c)) != 0 ||
	    (r = life_params(w, c)) != 0)
		return (r);
	return (w->ops->init(w));
}

static int
life_start_allowed(struct mkv_worker *w)
{
	if (!w->has_bell || w->metrics == NULL)
		return (MKV_E_PROTO);
	life_set_state(w, MKV_WORKER_STARTING);
	return (0);
}

static int
life_pong(struct mkv_worker *w, uint64_t nonce)
{
	Mkv__Ctl__Pong p = MKV__CTL__PONG__INIT;
	MKV_CTL_MESSAGE(m, PONG, pong, &p);

	p.nonce = nonce;
	mkv_worker_say(w, &m);
	return (0);
}

static int
life_configure(struct mkv_worker *w, const Mkv__Ctl__Control *m, int *fds)
{
	int r;

	if (w->params == NULL)
		return (life_configure_first(w, m->configure));
	if ((r = life_params(w, m->configure)) != 0)
		return (r);
	return (w->ops->message(w, m, fds, 0));
}

static int
life_dispatch(struct mkv_worker *w, const Mkv__Ctl__Control *m, int *fds, unsigned n_fds)
{
	switch (m->body_case) {
	case MKV__CTL__CONTROL__BODY_CONFIGURE:
		return (life_configure(w, m, fds));
	case MKV__CTL__CONTROL__BODY_METRICS:
		return (w->metrics != NULL ? MKV_E_PROTO : mkv_metrics_open(&w->metrics, fds[0], 1));
	case MKV__CTL__CONTROL__BODY_BELL:
		return (mkv_peers_bell(w, m->bell, fds));
	case MKV__CTL__CONTROL__BODY_RING:
		return (mkv_peers_ring(w, m->ring, fds));
	case MKV__CTL__CONTROL__BODY_PEER_DIED:
		return (mkv_peers_died(w, m->peer_died));
	case MKV__CTL__CONTROL__BODY_START:
		return (life_start_allowed(w));
	case MKV__CTL__CONTROL__BODY_PING:
		return (life_pong(w, m->ping->nonce));
	case MKV__CTL__CONTROL__BODY_STOP:
		life_stop(w, m->stop->grace_ms);
		return (0);
	default:
		return (w->ops->message(w, m, fds, n_fds));
	}
}

static void
life_message(struct mkv_worker *w, const Mkv__Ctl__Control *m, int *fds, unsigned n_fds)
{
	const char *name = mkv_ctl_name((int)m->body_case);
	int r;

	if (!mkv_ctl_allowed((int)m->body_case, life_phase(w), w->ops->is_drive, n_fds)) {
		mkv_log(MKV_EV_CTL_BAD, "body=%s number=%d fds=%u state=%d", name, (int)m->body_case, n_fds, (int)w->state);
		(void)mkv_worker_fail(w, 0, "control message %s is not allowed here", name);
	} else if ((r = life_dispatch(w, m, fds, n_fds)) != 0) {
		(void)mkv_worker_fail(w, 0, "control message %s: %s", name, mkv_err(r));
	}
	for (unsigned i = 0; i < n_fds; i++)
		if (fds[i] >= 0)
			(void)close(fds[i]);
}

int
mkv_worker_messages(struct mkv_worker *w)
{
	Mkv__Ctl__Control *m;
	int fds[MKV_CTL_FDS_MAX], r;
	unsigned n_fds;

	while (w->state != MKV_WORKER_ENDED && !w->orphan) {
		r = mkv_ctl_recv(w->ctl, &m, fds, &n_fds);
		if (r == MKV_E_AGAIN)
			return (0);
		if (r == 0) {
			life_orphan(w);
		} else if (r < 0) {
			mkv_log(MKV_EV_CTL_BAD, "what=receive err=%s", mkv_err_name(r));
			(void)mkv_worker_fail(w, 0, "control message: %s", mkv_err(r));
		} else {
			life_message(w, m, fds, n_fds);
			mkv_ctl_free(&m);
		}
	}
	return (w->state == MKV_WORKER_ENDED ? MKV_E_CANCELLED : 0);
}

int
mkv_worker_pump(struct mkv_worker *w, uint64_t until_ns, const int *wake_fd)
{
	enum mkv_worker_state state = w->state;
	struct pollfd pfd[2] = { { .events = POLLIN }, { .fd = -1, .events = POLLIN } };
	uint64_t now, wait_ns;

	MKV_ASSERT(w->q == NULL);
	pfd[0].fd = mkv_ctl_fd(w->ctl);
	if (wake_fd != NULL)
		pfd[1].fd = *wake_fd;
	for (;;) {
		now = mkv_now_ns();
		if (w->state != state || w->orphan)
			return (w->state >= MKV_WORKER_STOPPING ? MKV_E_CANCELLED : 0);
		if (now >= until_ns || pfd[1].revents != 0)
			return (0);
		wait_ns = until_ns == UINT64_MAX ? UINT64_MAX : until_ns - now;
		if (mkv_ctl_flush(w->ctl) == MKV_E_AGAIN)
			wait_ns = MKV_MIN(wait_ns, 10 * MKV_NS_PER_MS);
		if (mkv_os_poll(pfd, 2, wait_ns) < 0)
			return (mkv_worker_fail(w, 0, "cannot wait for the control socket"));
		if (pfd[0].revents != 0)
			(void)mkv_worker_messages(w);
	}
}

/* ---- entry and end ---- */

static void
life_hello(struct mkv_worker *w)
{
	Mkv__Ctl__Hello h = MKV__CTL__HELLO__INIT;
	MKV_CTL_MESSAGE(m, HELLO, hello, &h);

	h.kind = w->ops->is_drive ? MKV__CTL__KIND__KIND_DRIVE : MKV__CTL__KIND__KIND_NONE;	/* which front: CONFIGURE says it */
	h.pid = (int32_t)getpid();
	h.version = (char *)(uintptr_t)PACKAGE_VERSION;
	mkv_worker_say(w, &m);
}

static void
life_signals(void)
{
	struct sigaction sa;

	memset(&sa, 0, sizeof(sa));
	sa.sa_handler = SIG_IGN;
	(void)sigaction(SIGTERM, &sa, NULL);
	(void)sigaction(SIGINT, &sa, NULL);
	(void)sigaction(SIGHUP, &sa, NULL);
	(void)sigaction(SIGPIPE, &sa, NULL);
}

static void
life_start(struct mkv_worker *w)
{
	int r = w->ops->start(w);

	if (r != 0 && w->state == MKV_WORKER_STARTING)
		(void)mkv_worker_fail(w, 0, "start: %s", mkv_err(r));
	if (r == 0 && w->state == MKV_WORKER_STOPPING)
		r = MKV_E_CANCELLED;			/* STOP came while it started */
	if (r == 0) {
		MKV_ASSERT(w->q != NULL);
		w->started = 1;
	}
}

/* Last words leave if the socket takes them within a second. */
static void
life_flush(struct mkv_worker *w)
{
	for (int i = 0; i < 100 && !w->orphan && mkv_ctl_flush(w->ctl) == MKV_E_AGAIN; i++)
		(void)mkv_os_poll(NULL, 0, 10 * MKV_NS_PER_MS);
}

static void
life_fini(struct mkv_worker *w)
{
	mkv_ioq_destroy(&w->q);				/* first: no I/O lands in what fini() frees */
	if (w->params != NULL && w->ops->fini != NULL)
		w->ops->fini(w);
	mkv_timers_fini(&w->timers);
	mkv_peers_close(w);
	mkv_metrics_close(&w->metrics);
	mkv_ctl_close(&w->ctl);
	if (w->params != NULL)
		mkv_params_wipe(w->params);
	free(w->params);
	mkv_wipe(w, sizeof(*w));
	free(w);
}

/* Split from mkv_worker_main() for tests, which run it in a thread or a forked child. */
int
mkv_worker_run(int ctl_fd, const struct mkv_worker_ops *ops)
{
	struct mkv_worker *w = calloc(1, sizeof(*w));
	int code;

	if (w == NULL || mkv_ctl_open(&w->ctl, ctl_fd) != 0) {
		free(w);
		return (1);
	}
	w->magic = MKV_WORKER_MAGIC;
	w->ops = ops;
	life_hello(w);
	while (w->state == MKV_WORKER_SETUP && mkv_worker_pump(w, UINT64_MAX, NULL) == 0)
		continue;
	if (w->state == MKV_WORKER_STARTING)
		life_start(w);
	if (!w->started)
		mkv_worker_stopped(w);			/* nothing is in flight */
	mkv_worker_loop(w);
	life_flush(w);
	code = w->exit_code;
	life_fini(w);
	return (code);
}

int
mkv_worker_main(int argc MKV_UNUSED, char **argv MKV_UNUSED, const struct mkv_worker_ops *ops)
{
	mkv_log_init(MKV_LOG_INFO);
	mkv_assert_prepare();
	life_signals();
	if (fcntl(MKV_CTL_FD, F_SETFD, FD_CLOEXEC) != 0) {
		(void)fprintf(stderr, "%s is started by memkv-supervisor (`memkv start`)\n", ops->program);
		return (2);
	}
	return (mkv_worker_run(MKV_CTL_FD, ops));
}
