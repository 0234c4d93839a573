/*
 * The loop of a worker.
 *
 * Process and thread: front, drive; the main thread.
 * One turn: rings, timers, the room's turn, bells of those we pushed to, then, unless the room has more to do, one wait for whatever comes next: a completion,
 * a bell, the control socket, a timer. Before the wait the sleep is announced and the rings are looked at once more, so no push is missed; the wait is
 * never longer than 10 ms while there are rings, so a damaged word costs time and nothing else.
 * Owns: the queue and the timers. Fails: a queue that cannot run ends the process (Fail).
 */
#include "config.h"
#include "worker/core/core_priv.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "common/base/clock.h"
#include "common/base/err.h"
#include "common/base/log.h"
#include "common/base/os.h"
#include "common/base/params.h"
#include "worker/core/jail.h"

#define SPIN_NS		(20 * MKV_NS_PER_US)

/* The bell only ends the wait: rings are looked at every turn. */
static void
loop_on_bell(struct mkv_io *io, int res)
{
	struct mkv_worker *w = MKV_CONTAINER_OF(io, struct mkv_worker, bell_io);

	if (res < 0 && w->state != MKV_WORKER_ENDED)
		(void)mkv_worker_fail(w, 0, "bell: %s", mkv_err(res));
}

static void
loop_on_ctl(struct mkv_io *io, int res)
{
	struct mkv_worker *w = MKV_CONTAINER_OF(io, struct mkv_worker, ctl_io);

	if (res >= 0)
		(void)mkv_worker_messages(w);
	else if (!w->orphan && w->state != MKV_WORKER_ENDED)
		(void)mkv_worker_fail(w, 0, "control socket: %s", mkv_err(res));
}

/* Spinning only where every busy loop of this server, and the client's, has a core of its own. */
static uint64_t
loop_spin_ns(const struct mkv_worker *w)
{
	unsigned cores = (unsigned)mkv_os_cpu_count();

	return (cores > 2 && cores > w->front_count + w->drive_count + 1 ? SPIN_NS : 0);
}

int
mkv_worker_open_queue(struct mkv_worker *w, const struct mkv_ioq_opts *opts, uint32_t timers)
{
	struct mkv_ioq_opts o = *opts;
	int r;

	MKV_ASSERT(w->q == NULL);
	MKV_ASSERT(w->has_bell);
	o.restricted = 1;
	o.depth_max += 2;				/* bell and control socket */
	if ((r = mkv_timers_init(&w->timers, timers + 1)) != 0)
		return (r);
	if ((r = mkv_ioq_create(&w->q, &o)) != 0)
		return (r);
	if (o.kind == MKV_IOQ_AUTO && strcmp(mkv_ioq_name(w->q), "io_uring") != 0)
		mkv_log(MKV_EV_IO_FALLBACK, "io=%s", mkv_ioq_name(w->q));
	w->ctl_file = mkv_ioq_register_file(w->q, mkv_ctl_fd(w->ctl));
	w->bell_file = mkv_ioq_register_file(w->q, w->bell.fd);
	w->spin_ns = loop_spin_ns(w);
	return (w->ctl_file < 0 ? w->ctl_file : w->bell_file < 0 ? w->bell_file : 0);
}

/* Only now may anything be submitted. */
void
mkv_worker_jail(struct mkv_worker *w, unsigned may)
{
	/* Who is not root has no other user to become: that is as asked. In the jail there is no geteuid() any more. */
	unsigned expected = geteuid() == 0 ? 0 : MKV_JAIL_USER;
	char missing[128] = "";
	size_t n = 0;

	MKV_ASSERT(w->q != NULL);
	MKV_ASSERT(!w->jailed);
	w->jailed = 1;
	w->jail_missing = mkv_jail_enter(w->q, may, w->params->server_user);
	for (unsigned bit = 1; bit <= MKV_JAIL_ALL; bit <<= 1)
		if (w->jail_missing & bit)
			n += (size_t)snprintf(missing + n, sizeof(missing) - n, "%s%s", n > 0 ? "," : "", mkv_jail_part_name(bit));
	if ((w->jail_missing & ~expected) == 0)
		mkv_log(MKV_EV_JAIL, "io=%s missing=%s", mkv_ioq_name(w->q), missing);
	else
		mkv_log(MKV_EV_JAIL_PARTIAL, "missing=%s", missing);
	w->bell_io.done = loop_on_bell;
	w->ctl_io.done = loop_on_ctl;
	mkv_ioq_poll(w->q, &w->bell_io, w->bell_file, 1);
	mkv_ioq_poll(w->q, &w->ctl_io, w->ctl_file, 1);
}

/* Adaptive: the average gap between descriptors says whether it is worth it. */
static void
loop_note_gap(struct mkv_worker *w)
{
	uint64_t gap = w->now_ns - w->last_desc_ns;

	w->last_desc_ns = w->now_ns;
	w->gap8_ns += MKV_MIN(gap, MKV_NS_PER_SEC) - w->gap8_ns / 8;
}

static int
loop_spin(const struct mkv_worker *w)
{
	uint64_t until;

	if (w->spin_ns == 0 || w->gap8_ns / 8 > w->spin_ns)
		return (0);
	until = mkv_now_ns() + w->spin_ns;
	do
		if (!mkv_peers_idle(w))
			return (1);
	while (mkv_now_ns() < until);
	return (0);
}

static uint64_t
loop_until(struct mkv_worker *w, unsigned popped)
{
	uint64_t until = mkv_timers_next_ns(&w->timers);

	if (popped > 0 || loop_spin(w) || (w->ops->may_sleep != NULL && !w->ops->may_sleep(w)))
		return (0);
	if (mkv_peers_any_up(w) || mkv_ctl_flush(w->ctl) == MKV_E_AGAIN)
		until = MKV_MIN(until, w->now_ns + MKV_BELL_WAIT_MAX_NS);
	mkv_bell_sleep(&w->bell);
	return (mkv_peers_idle(w) ? until : 0);
}

void
mkv_worker_turn(struct mkv_worker *w)
{
	unsigned popped;
	int r;

	w->turns++;
	w->now_ns = mkv_now_ns();
	popped = mkv_peers_pop(w);
	if (popped > 0)
		loop_note_gap(w);
	(void)mkv_timers_run(&w->timers, w->now_ns);
	if (w->ops->turn != NULL)
		w->ops->turn(w, w->now_ns);
	mkv_peers_ring_bells(w);
	if (w->state == MKV_WORKER_ENDED)
		return;
	r = mkv_ioq_run(w->q, loop_until(w, popped));
	mkv_bell_awake(&w->bell);
	mkv_peers_ring_bells(w);
	if (r < 0)
		(void)mkv_worker_fail(w, 0, "%s: %s", mkv_ioq_name(w->q), mkv_err(r));
}

void
mkv_worker_loop(struct mkv_worker *w)
{
	while (w->state != MKV_WORKER_ENDED)
		mkv_worker_turn(w);
}
