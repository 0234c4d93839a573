/*
 * Process: supervisor, loop thread.
 * Owns: the processes. Ties child.c's states to fork, pidfd, control socket, log pipe and the liveness ping.
 *
 * A process ends for us when its pidfd fires and waitpid(WNOHANG) names it; until then its row has a life, whatever its socket says. A process
 * whose socket ended, that breaks the protocol or does not answer the ping gets SIGKILL and is not spoken to any more (life.broken); one that the
 * kernel holds in an uninterruptible wait may stay as long as it likes.
 * What can fail: spawn (counts as a death); anything a child does.
 */
#include "config.h"

#include "supervisor/sup_priv.h"

#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/base/assert.h"
#include "common/base/clock.h"
#include "common/base/err.h"
#include "common/base/log.h"

static const char *const proc_names[SUP_KIND_COUNT] = {
#define MKV_PROC(KIND, name, program, ctl)	[SUP_##KIND] = name,
#include "common/tbl/procs.def"
#undef MKV_PROC
};

Mkv__Ctl__Kind
proc_ctl_kind(enum sup_kind kind)
{
	static const Mkv__Ctl__Kind kinds[SUP_KIND_COUNT] = {
#define MKV_PROC(KIND, name, program, ctl)	[SUP_##KIND] = MKV__CTL__KIND__KIND_##ctl,
#include "common/tbl/procs.def"
#undef MKV_PROC
	};

	MKV_ASSERT(kind < SUP_KIND_COUNT);
	return (kinds[kind]);
}

/* ---- ends ---- */

static void
proc_on_watch_closed(uv_handle_t *h)
{
	free(h);
}

/* Descriptors and handles of a process that is gone, or that could not be set up. */
static void
life_free(struct life *l)
{
	ctl_close(&l->ctl);
	logs_close(&l->log);
	if (l->watch != NULL) {
		uv_poll_stop(l->watch);
		l->watch->data = NULL;
		uv_close((uv_handle_t *)l->watch, proc_on_watch_closed);
	}
	close(l->pidfd);
	free(l);
}

static void
proc_say_end(struct proc *p, const struct life *l, int status)
{
	enum mkv_event ev = p->child.state == CHILD_STOPPED ? MKV_EV_CHILD_STOPPED : MKV_EV_CHILD_DIED;
	const char *last = logs_word(&p->words, p->words.count - 1);

	if (WIFSIGNALED(status) && p->why[0] == '\0')
		snprintf(p->why, sizeof(p->why), "ended by signal %d (%s)", WTERMSIG(status), strsignal(WTERMSIG(status)));
	else if (WIFEXITED(status) && p->why[0] == '\0')
		snprintf(p->why, sizeof(p->why), "exit status %d", WEXITSTATUS(status));
	if (!p->child.held || !p->absent)
		mkv_log(ev, "child=%s child_pid=%d why=%s last=%s", p->child.name, (int)l->pid, p->why, last != NULL ? last : "");
	p->absent = p->child.held;
	if (p->child.state == CHILD_FATAL)
		mkv_log(MKV_EV_CHILD_FATAL, "child=%s why=%s", p->child.name, p->why);
	if (ev == MKV_EV_CHILD_DIED && !p->child.held)
		mkv_metric_add(p->sup->metrics, MKV_M_supervisor_child_deaths_total, 0, 1);
}

/* The process was reaped. What it said before its end is heard first: STOPPED and FAIL matter. */
static void
proc_on_end(struct proc *p, int status)
{
	struct mkv_sup *s = p->sup;
	struct life *l = p->life;
	int clean;

	l->reaped = 1;
	if (!l->broken)
		ctl_drain(&l->ctl);
	clean = l->stopped && WIFEXITED(status) && WEXITSTATUS(status) == 0;
	p->life = NULL;
	logs_close(&l->log);			/* its last words, before they are quoted */
	child_on_end(&p->child);
	proc_say_end(p, l, status);
	peers_on_death(p, s->state.epoch, clean);
	life_free(l);
	sup_on_change(s);
}

static void
proc_on_watch(uv_poll_t *h, int status MKV_UNUSED, int events MKV_UNUSED)
{
	struct life *l = h->data;
	int st;
	pid_t pid;

	if (l == NULL)
		return;
	pid = waitpid(l->pid, &st, WNOHANG);
	if (pid == 0 || (pid == -1 && errno == EINTR))
		return;
	proc_on_end(l->proc, pid == l->pid ? st : 0);
}

void
proc_break(struct proc *p, const char *why)
{
	if (p->life == NULL || p->life->broken)
		return;
	p->life->broken = 1;
	snprintf(p->why, sizeof(p->why), "%s", why);
	mkv_metric_add(p->sup->metrics, MKV_M_supervisor_control_bad_total, 0, 1);
	mkv_log(MKV_EV_CHILD_PROTOCOL, "child=%s child_pid=%d why=%s", p->child.name, (int)p->life->pid, why);
	child_kill(&p->child);
	peers_on_broken(p);
}

void
proc_break_ring(struct proc *p, const struct proc *with, const char *why)
{
	MKV_ASSERT(p->life != NULL && !p->life->broken);
	p->life->broken = 1;
	snprintf(p->why, sizeof(p->why), "%s (ring with %s)", why, with->child.name);
	mkv_metric_add(p->sup->metrics, MKV_M_supervisor_ring_bad_total, 0, 1);
	mkv_log(MKV_EV_CHILD_RING, "child=%s child_pid=%d with=%s why=%s", p->child.name, (int)p->life->pid, with->child.name, why);
	child_kill(&p->child);
}

/* ---- what a child says ---- */

static void
proc_on_hello(struct proc *p, const Mkv__Ctl__Hello *h)
{
	struct life *l = p->life;

	/* A front learns from CONFIGURE which front it is: its program is the same for all of them. */
	int is_drive = proc_ctl_kind(p->kind) == MKV__CTL__KIND__KIND_DRIVE;

	if (strcmp(h->version, PACKAGE_VERSION) != 0 || (h->kind == MKV__CTL__KIND__KIND_DRIVE) != is_drive) {
		p->child.final = 1;
		proc_break(p, "its program is of another version or kind");
		return;
	}
	l->hello = 1;
	child_on_hello(&p->child);
	heritage_give(p);
	l->configured = 1;
	peers_catch_up(p);
}

static void
proc_on_ready(struct proc *p, const Mkv__Ctl__Ready *r)
{
	size_t n = 0;

	p->life->ready = 1;
	proc_ping_anew(p, mkv_now_ns());	/* the patience ends: its answer may be right behind */
	p->forgiven_count = 0;
	p->absent = 0;
	snprintf(p->io, sizeof(p->io), "%s", r->io);
	snprintf(p->detail, sizeof(p->detail), "%s", r->detail);
	p->jail_missing[0] = '\0';
	p->readonly = 0;
	for (size_t i = 0; i < r->n_jail_missing && n < sizeof(p->jail_missing); i++)
		n += (size_t)snprintf(p->jail_missing + n, sizeof(p->jail_missing) - n, "%s%s", i > 0 ? "," : "", r->jail_missing[i]);
	if (p->child.state != CHILD_STARTING)
		return;				/* it was asked to stop meanwhile */
	mkv_log(MKV_EV_CHILD_READY, "child=%s child_pid=%d io=%s jail_missing=%s detail=%s", p->child.name, (int)p->life->pid, p->io,
	    p->jail_missing, p->detail);
	if (proc_is_drive(p) ? !peers_on_ready(p, r) : !rails_on_ready(p, r->rail))
		return;
	child_on_ready(&p->child);
	if (proc_is_drive(p))
		pool_on_ready(p, r);
	sup_on_change(p->sup);
}

static void
proc_on_fail(struct proc *p, const Mkv__Ctl__Fail *f)
{
	snprintf(p->why, sizeof(p->why), "%s", f->why);
	p->child.final = f->final && f->epoch_seen == 0;
	if (proc_is_drive(p) && f->uuid_seen.len == 16)
		moved_found(p, f->uuid_seen.data);
	if (f->epoch_seen != 0 && f->epoch_seen >= p->epoch && p->forgiven_count++ < PROC_FORGIVEN_MAX) {
		peers_saw_epoch(p->sup, f->epoch_seen);
		p->child.forgiven = 1;
	}
	if (f->absent && proc_is_rail(p) && !f->final)
		p->child.held = 1;
}

/*
 * One that hangs is ended and waited for: its I/O may end, and it comes back. One that fails, or takes no more writes, stays out until an operator
 * starts it, but where no other drive can take its place it goes on as well as it can.
 */
static void
proc_on_drive_bad(struct proc *p, const Mkv__Ctl__State *st)
{
	struct mkv_sup *s = p->sup;
	char why[sizeof(p->why)];

	if (pool_row(s, p->index)->state == MKV_DRIVE_FAILED || (!st->hangs && !pool_others(s, p->index)))
		return;
	mkv_log(MKV_EV_DRIVE_FAILED, "child=%s detail=%s", p->child.name, p->detail);
	p->child.final = !st->hangs;
	snprintf(why, sizeof(why), "%s", p->detail);
	if (!st->hangs)
		snprintf(why, sizeof(why), "%.400s; memkvctl start %.32s tries it again, memkvctl drive replace %.32s MEDIA puts another in its place",
		    p->detail, p->child.name, p->child.name);
	proc_break(p, why);
	snprintf(p->detail, sizeof(p->detail), "%s", why);	/* status until its process has ended */
	pool_out(s, p->index, MKV_DRIVE_FAILED);
}

static void
proc_on_state(struct proc *p, const Mkv__Ctl__State *st)
{
	p->readonly = st->readonly;
	snprintf(p->detail, sizeof(p->detail), "%s", st->detail);
	if (proc_is_drive(p) && (st->failed || st->hangs || st->readonly))
		proc_on_drive_bad(p, st);
	if (st->rail != NULL)
		rails_on_state(p, st->rail);
}

static void
proc_on_pong(struct proc *p, uint64_t nonce)
{
	struct life *l = p->life;

	if (l->ping_sent_ns == 0 || nonce != l->ping_nonce)
		return;				/* late, after it was asked again */
	l->pong_ns = mkv_now_ns();
	l->ping_sent_ns = 0;
}

static enum ctl_phase
proc_phase(const struct proc *p)
{
	if (!p->life->hello)
		return (CTL_NEW);
	if (p->child.state == CHILD_STOPPING)
		return (CTL_STOPPING);
	return (p->life->ready ? CTL_RUNNING : CTL_STARTING);
}

static unsigned
proc_ctl_kinds(const struct proc *p)
{
	return (proc_is_drive(p) ? CTL_DRIVE : p->kind == SUP_FRONT_LOCAL ? CTL_FRONT | CTL_LOCAL : CTL_FRONT);
}

static int
proc_on_msg(void *arg, const Mkv__Ctl__Control *m, int fd)
{
	struct life *l = arg;
	struct proc *p = l->proc;

	if (l->broken)
		return (0);
	if (!ctl_allowed((int)m->body_case, proc_ctl_kinds(p), proc_phase(p))) {
		proc_break(p, "a message that is not allowed in its state");
		return (0);
	}
	if (fd != -1 && m->body_case != MKV__CTL__CONTROL__BODY_REGION) {
		proc_break(p, "a descriptor with a message that has none");
		return (0);
	}
	switch (m->body_case) {
	case MKV__CTL__CONTROL__BODY_HELLO:
		proc_on_hello(p, m->hello);
		break;
	case MKV__CTL__CONTROL__BODY_DRAINED:
		peers_on_drained(p, m->drained);
		break;
	case MKV__CTL__CONTROL__BODY_READY:
		proc_on_ready(p, m->ready);
		break;
	case MKV__CTL__CONTROL__BODY_STATE:
		proc_on_state(p, m->state);
		break;
	case MKV__CTL__CONTROL__BODY_RING_BAD:
		peers_on_ring_bad(p, m->ring_bad);
		break;
	case MKV__CTL__CONTROL__BODY_MAP_STORED:
		pool_on_stored(p, m->map_stored->version);
		break;
	case MKV__CTL__CONTROL__BODY_AWAY_LOG:
		pool_on_log(p, m->away_log);
		break;
	case MKV__CTL__CONTROL__BODY_PURGED:
		operator_space_purged(p, m->purged);
		break;
	case MKV__CTL__CONTROL__BODY_SPACES:
		operator_space_rows(p, m->spaces);
		break;
	case MKV__CTL__CONTROL__BODY_PONG:
		proc_on_pong(p, m->pong->nonce);
		break;
	case MKV__CTL__CONTROL__BODY_STOPPED:
		l->stopped = 1;
		break;
	case MKV__CTL__CONTROL__BODY_FAIL:
		proc_on_fail(p, m->fail);
		break;
	case MKV__CTL__CONTROL__BODY_REGION:
		regions_on_ask(p, m->region, fd);
		break;
	case MKV__CTL__CONTROL__BODY_REGION_DONE:
		regions_on_done(p, m->region_done);
		break;
	default:
		break;
	}
	return (0);
}

/* The socket is at its end: the process is about to be as well, or is broken and gets help. */
static void
proc_on_ctl_end(void *arg, const char *why)
{
	struct life *l = arg;
	struct proc *p = l->proc;

	ctl_close(&l->ctl);
	if (why != NULL)
		proc_break(p, why);
	else if (p->life == l && !l->broken) {
		l->broken = 1;
		if (p->child.state != CHILD_STOPPING)
			child_kill(&p->child);
	}
}

/* ---- what a child is told ---- */

void
proc_send(struct proc *p, const Mkv__Ctl__Control *m, const int *fds, unsigned n_fds)
{
	int r;

	if (p->life == NULL || p->life->broken)
		return;
	r = ctl_send(&p->life->ctl, m, fds, n_fds);
	if (r == 0 || r == MKV_E_CLOSED)
		return;				/* closed: the loop will tell */
	proc_break(p, r == MKV_E_BUSY ? "does not read its control socket" : mkv_err(r));
}

static void
proc_on_hung(struct proc *p, uint64_t silent_ms)
{
	mkv_log(MKV_EV_CHILD_HUNG, "child=%s child_pid=%d silent_ms=%" PRIu64, p->child.name, (int)p->life->pid, silent_ms);
	mkv_metric_add(p->sup->metrics, MKV_M_supervisor_child_hangs_total, 0, 1);
	snprintf(p->why, sizeof(p->why), "did not answer the liveness ping");
	p->life->broken = 1;
	child_kill(&p->child);
	peers_on_broken(p);
}

/* We were stopped ourselves, or starved: who did not answer meanwhile may not have been heard. */
void
proc_ping_anew(struct proc *p, uint64_t now_ns)
{
	if (p->life != NULL && p->life->ping_sent_ns != 0)
		p->life->ping_sent_ns = now_ns;
}

/* Before it is ready a process reserves files and registers memory in calls that no loop turns in; waiting for a lock and recovery answer. */
static uint64_t
proc_silent_limit_ns(const struct proc *p)
{
	return (p->sup->params->server_ping_timeout * MKV_NS_PER_US * (p->life->ready ? 1 : PROC_START_PATIENCE));
}

/* Called every server.ping_interval. From START on. */
void
proc_ping(struct proc *p, uint64_t now_ns)
{
	struct life *l = p->life;
	Mkv__Ctl__Ping body = MKV__CTL__PING__INIT;
	Mkv__Ctl__Control m = MKV__CTL__CONTROL__INIT;

	if (l == NULL || !l->configured || l->broken || p->child.state == CHILD_STOPPING)
		return;
	if (l->ping_sent_ns != 0) {
		if (now_ns - l->ping_sent_ns < proc_silent_limit_ns(p))
			return;
		proc_on_hung(p, (now_ns - l->ping_sent_ns) / MKV_NS_PER_MS);
		return;
	}
	m.body_case = MKV__CTL__CONTROL__BODY_PING;
	m.ping = &body;
	body.nonce = ++l->ping_nonce;
	l->ping_sent_ns = now_ns;
	proc_send(p, &m, NULL, 0);
}

/* ---- child.c's wishes ---- */

/* Takes all that sp names. */
static int
proc_attach(struct proc *p, const struct spawned *sp)
{
	struct mkv_sup *s = p->sup;
	struct life *l = calloc(1, sizeof(*l));
	int r;

	if (l == NULL || (l->watch = malloc(sizeof(*l->watch))) == NULL || uv_poll_init(s->loop, l->watch, sp->pidfd) != 0) {
		if (l != NULL)
			free(l->watch);
		free(l);
		close(sp->pidfd);
		close(sp->ctl_fd);
		close(sp->log_fd);
		return (MKV_E_NOMEM);
	}
	l->proc = p;
	l->pid = sp->pid;
	l->pidfd = sp->pidfd;
	l->watch->data = l;
	(void)uv_poll_start(l->watch, UV_READABLE, proc_on_watch);
	p->life = l;
	r = logs_open(&l->log, s->loop, sp->log_fd, &s->out, &p->words, p->child.name, (int)sp->pid);
	if (ctl_open(&l->ctl, s->loop, sp->ctl_fd, proc_on_msg, proc_on_ctl_end, l) != 0 || r != 0)
		proc_break(p, "no memory to watch over it");	/* its end is watched: the rest follows from there */
	l->ctl.may_pass = p->kind == SUP_FRONT_LOCAL;
	return (0);
}

static int
proc_spawn(struct child *c)
{
	struct proc *p = c->owner;
	struct mkv_sup *s = p->sup;
	struct mkv_os_cpus cpus;
	struct spawned sp;
	char path[640], why[600], node[16] = "-";
	int r;

	snprintf(p->detail, sizeof(p->detail), "%s", p->absent ? p->why : "");	/* what it waits for stands until it says something else */
	p->why[0] = '\0';
	snprintf(path, sizeof(path), "%s/%s", s->libexec, spawn_program(p->kind));
	if ((r = peers_raise_epoch(s, why, sizeof(why))) != 0) {
		snprintf(p->why, sizeof(p->why), "waits to be started: %s", why);
		c->held = 1;
		return (r);
	}
	affinity_place(p);
	if ((r = spawn_child(path, c->name, p->epoch == 0, affinity_cpus(p, &cpus) ? &cpus : NULL, &sp)) != 0) {
		snprintf(p->why, sizeof(p->why), "cannot be started: %s", mkv_err(r));
		mkv_log(MKV_EV_CHILD_DIED, "child=%s why=%s", c->name, p->why);
		return (r);
	}
	if (p->epoch != 0 && !p->absent)
		mkv_metric_add(s->metrics, MKV_M_supervisor_child_restarts_total, 0, 1);
	p->epoch = s->state.epoch;
	if ((r = proc_attach(p, &sp)) != 0) {
		(void)kill(sp.pid, SIGKILL);
		(void)waitpid(sp.pid, NULL, WNOHANG);
		return (r);
	}
	if (p->node >= 0)
		snprintf(node, sizeof(node), "%d", p->node);
	if (!p->absent)
		mkv_log(MKV_EV_CHILD_START, "child=%s child_pid=%d epoch=%" PRIu32 " node=%s", c->name, (int)sp.pid, p->epoch, node);
	if (heritage_rings(p) != 0)
		proc_break(p, "no memory for its rings");
	return (0);
}

static void
proc_kill(struct child *c)
{
	struct proc *p = c->owner;

	/* The pid is ours until waitpid() named it, so this cannot hit another process. */
	if (p->life != NULL && !p->life->reaped)
		(void)kill(p->life->pid, SIGKILL);
}

static void
proc_ask_stop(struct child *c)
{
	struct proc *p = c->owner;
	Mkv__Ctl__Stop body = MKV__CTL__STOP__INIT;
	Mkv__Ctl__Control m = MKV__CTL__CONTROL__INIT;

	m.body_case = MKV__CTL__CONTROL__BODY_STOP;
	m.stop = &body;
	body.grace_ms = c->policy->stop_limit_ns / MKV_NS_PER_MS;
	if (proc_reachable(p))
		proc_send(p, &m, NULL, 0);
	else
		child_kill(c);			/* it has nothing yet that could be lost */
}

static void
proc_on_timer(uv_timer_t *t)
{
	struct proc *p = t->data;

	child_on_timer(&p->child);
	sup_on_change(p->sup);
}

static void
proc_arm(struct child *c, uint64_t in_ns)
{
	struct proc *p = c->owner;

	if (in_ns == UINT64_MAX)
		uv_timer_stop(&p->timer);
	else
		(void)uv_timer_start(&p->timer, proc_on_timer, in_ns / MKV_NS_PER_MS, 0);
}

static void
proc_changed(struct child *c, enum child_state from)
{
	peers_on_state(c->owner, from);
}

static const struct child_ops proc_ops = {
	.now_ns = mkv_now_ns,
	.spawn = proc_spawn,
	.kill = proc_kill,
	.ask_stop = proc_ask_stop,
	.arm = proc_arm,
	.changed = proc_changed,
};

void
proc_init(struct mkv_sup *s, uint32_t number, enum sup_kind kind, uint32_t index)
{
	struct proc *p = &s->proc[number];
	char name[32];

	memset(p, 0, sizeof(*p));
	snprintf(name, sizeof(name), "%s:%u", proc_names[kind], index);
	if (kind == SUP_FRONT_RDMA)
		snprintf(name, sizeof(name), "%s:%s", proc_names[kind], s->params->rdma_devices.item[index - s->shard_count]);
	else if (kind == SUP_FRONT_LOCAL)
		snprintf(name, sizeof(name), "%s", proc_names[kind]);
	child_init(&p->child, name, &proc_ops, &s->policy, p);
	p->sup = s;
	p->kind = kind;
	p->index = index;
	p->number = number;
	p->node = -1;
	(void)uv_timer_init(s->loop, &p->timer);
	p->timer.data = p;
	p->rail.number = kind == SUP_FRONT_RDMA ? index - s->shard_count + 1 : 0;
	p->rail.door_fd = -1;
	p->bell_shm = p->bell_wait = p->bell_ring = p->metrics_fd = p->stage_fd = p->listen_fd = p->arena_fd = p->arena_meta_fd = -1;
}

/* The loop is at its end. A process that is still there is left to notice that its control socket has ended. */
void
proc_close(struct proc *p)
{
	struct life *l = p->life;

	p->life = NULL;
	if (l != NULL)
		life_free(l);
	uv_close((uv_handle_t *)&p->timer, NULL);
}
