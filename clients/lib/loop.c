/*
 * The I/O thread: takes ops from the inbox, runs timers, connections and completions, one turn after the other.
 *
 * Everything here but mkv_loop_open(), mkv_loop_start(), mkv_loop_stop(), mkv_loop_close(), mkv_loop_hand_in(), mkv_loop_poke() and mkv_loop_names()
 * runs on that thread.
 * Owns the queue, the timers, the servers with their connections, and the ops in `live`.
 *
 *   field            written by            read by     under
 *   inbox, pokes     callers, loop         loop        mutex
 *   asleep           loop (1), both (0)    callers     mutex: who finds 1 rings the bell
 *   quit             closer                loop        mutex
 *
 * Fails: only at open (memory, descriptors). When the queue itself fails, the turn goes on with timers alone: every call still ends at its deadline.
 */
#include "config.h"

#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "clients/lib/client_priv.h"
#include "clients/lib/rail.h"
#include "clients/lib/transport.h"
#include "common/base/clock.h"

#define FLUSH_ROUNDS	8u
#define STOP_NS		(2000 * MKV_NS_PER_MS)	/* what the kernel still holds gets so long to end */
#define HTTP_DEPTH	16u

int
mkv_loop_open(struct loop *l, struct mkv_client *c, unsigned idx)
{
	unsigned n = c->cf.n_servers, rails = n * mkv_rails_conns(&c->cf), conns = n * (c->cf.connections + 1) + rails;
	struct mkv_ioq_opts o = { .kind = c->cf.io, .guest = 1, .entries = 64, .depth_max = conns * 2 + HTTP_DEPTH + mkv_rails_ios(&c->cf) };
	int r;

	l->c = c;
	l->idx = idx;
	(void)pthread_mutex_init(&l->mutex, NULL);
	mkv_list_init(&l->inbox);
	mkv_list_init(&l->pokes);
	mkv_list_init(&l->live);
	l->now_ns = mkv_now_ns();
	l->scratch = malloc(SCRATCH_BYTES);
	l->server = calloc(n, sizeof(*l->server));
	if (l->scratch == NULL || l->server == NULL)
		return (MKV_E_NOMEM);
	if ((r = mkv_timers_init(&l->timers, c->cf.inflight_max * (1 + n) + 2 * n + conns + rails + HTTP_DEPTH)) != 0 || (r = mkv_rails_open(l)) != 0)
		return (r);
	for (unsigned i = 0; i < n; i++) {
		mkv_server_init(&l->server[i], l, i);
		if ((r = l->server[i].tr->open(&l->server[i])) != 0)
			return (r);
	}
	return (mkv_ioq_create(&l->q, &o));
}

void
mkv_loop_close(struct loop *l)
{
	mkv_ioq_destroy(&l->q);
	mkv_timers_fini(&l->timers);			/* they lie in what follows */
	for (unsigned i = 0; l->server != NULL && i < l->c->cf.n_servers; i++)
		mkv_server_fini(&l->server[i]);
	mkv_rails_close(l);
	mkv_http_close(&l->http);
	free(l->server);
	free(l->scratch);
	if (l->stage != NULL)
		mkv_stage_free(l->stage, l);
	free(l->stage);
	if (l->gpu_lane != NULL)
		mkv_gpu_lane_fini(l->gpu_lane);
	free(l->gpu_lane);
	(void)pthread_mutex_destroy(&l->mutex);
}

/* ---- other threads ---- */

static void
loop_unlock_and_wake(struct loop *l)
{
	int wake = l->asleep;

	l->asleep = 0;
	(void)pthread_mutex_unlock(&l->mutex);
	if (wake)
		mkv_ioq_wake(l->q);
}

void
mkv_loop_hand_in(struct loop *l, struct op *o)
{
	(void)pthread_mutex_lock(&l->mutex);
	o->over = 0;
	mkv_list_push_tail(&l->inbox, &o->link);
	loop_unlock_and_wake(l);
}

int
mkv_loop_poke(struct loop *l, struct op *o, int cancel)
{
	int live;

	(void)pthread_mutex_lock(&l->mutex);
	if ((live = !o->over) != 0) {
		if (cancel)
			o->want_cancel = 1;
		else
			o->part_ready = 1;
		if (mkv_list_empty(&o->poke))
			mkv_list_push_tail(&l->pokes, &o->poke);
	}
	loop_unlock_and_wake(l);
	return (live);
}

void
mkv_loop_names(struct loop *l)
{
	(void)pthread_mutex_lock(&l->mutex);
	l->names_new = 1;
	loop_unlock_and_wake(l);
}

void
mkv_loop_wake(struct loop *l)
{
	(void)pthread_mutex_lock(&l->mutex);
	l->woken = 1;
	loop_unlock_and_wake(l);
}

/* ---- the thread ---- */

static struct op *
loop_next_poked(struct loop *l, struct mkv_list *poked, int *cancel, int *part)
{
	struct mkv_list *n;
	struct op *o = NULL;

	(void)pthread_mutex_lock(&l->mutex);
	if ((n = mkv_list_pop(poked)) != NULL) {
		o = MKV_CONTAINER_OF(n, struct op, poke);
		*cancel = o->want_cancel;
		*part = o->part_ready;
		o->want_cancel = o->part_ready = 0;
	}
	(void)pthread_mutex_unlock(&l->mutex);
	return (o);
}

static void
loop_move(struct mkv_list *to, struct mkv_list *from)
{
	struct mkv_list *n;

	mkv_list_init(to);
	while ((n = mkv_list_pop(from)) != NULL)
		mkv_list_push_tail(to, n);
}

/*
 * New ops first: a cancel may be for one of them. Both lists are of one moment, so each poke is for an op that is live by then; what is handed in and
 * cancelled while we are at work with them waits for the next turn.
 */
static int
loop_take(struct loop *l)
{
	int quit, names, cancel = 0, part = 0;
	struct mkv_list in, poked, *n;
	struct op *o;

	(void)pthread_mutex_lock(&l->mutex);
	l->asleep = l->woken = 0;
	loop_move(&in, &l->inbox);
	loop_move(&poked, &l->pokes);
	quit = l->quit;
	names = l->names_new;
	l->names_new = 0;
	(void)pthread_mutex_unlock(&l->mutex);
	while ((n = mkv_list_pop(&in)) != NULL)
		mkv_op_start(MKV_CONTAINER_OF(n, struct op, link));
	while ((o = loop_next_poked(l, &poked, &cancel, &part)) != NULL) {
		if (cancel)
			mkv_op_abort(o, MKV_E_CANCELLED);
		else if (part)
			mkv_op_next_part(o);
	}
	for (unsigned i = 0; names && i < l->c->cf.n_servers; i++)
		l->server[i].tr->names(&l->server[i]);
	return (quit);
}

static void
loop_flush(struct loop *l)
{
	for (unsigned round = 0; l->dirty && round < FLUSH_ROUNDS; round++) {
		l->dirty = 0;
		for (unsigned i = 0; i < l->c->cf.n_servers; i++)
			l->server[i].tr->flush(&l->server[i]);
	}
	mkv_rails_flush(l);
}

static void
loop_nap(uint64_t until_ns)
{
	uint64_t ns = MKV_MIN(until_ns - MKV_MIN(until_ns, mkv_now_ns()), MKV_NS_PER_MS);
	struct timespec ts = { .tv_nsec = (long)ns };

	(void)nanosleep(&ts, NULL);
}

/* Sleep until something happens, but only if nothing was handed in since loop_take(). */
static void
loop_wait(struct loop *l)
{
	uint64_t until = mkv_timers_next_ns(&l->timers);
	int quiet = mkv_rails_may_sleep(l);

	(void)pthread_mutex_lock(&l->mutex);
	if (!quiet || l->dirty || l->again || l->quit || l->names_new || l->woken || !mkv_list_empty(&l->inbox) || !mkv_list_empty(&l->pokes))
		until = 0;
	else
		l->asleep = 1;
	(void)pthread_mutex_unlock(&l->mutex);
	if (mkv_ioq_run(l->q, until) < 0)
		loop_nap(until);			/* the queue is broken: deadlines still hold */
	l->dirty = 1;					/* completions may have left something to send or close */
	l->turn++;
}

static void
loop_abort_all(struct loop *l, int status)
{
	struct op *o;

	do {
		o = NULL;
		MKV_LIST_FOREACH(it, &l->live) {
			o = MKV_CONTAINER_OF(it, struct op, link);
			if (o->end_status == 0)
				break;
			o = NULL;
		}
		if (o != NULL)
			mkv_op_abort(o, status);
	} while (o != NULL);
}

/* Everything ends: ops, sessions, then what the kernel has. */
static void
loop_end(struct loop *l)
{
	uint64_t until = mkv_now_ns() + STOP_NS;

	l->ending = 1;
	loop_abort_all(l, MKV_E_CLOSED);
	for (unsigned i = 0; i < l->c->cf.n_servers; i++)
		l->server[i].tr->stop(&l->server[i]);
	if (l->http != NULL)
		mkv_http_stop(l->http);
	while ((l->now_ns = mkv_now_ns()) < until && (mkv_ioq_in_flight(l->q) > 0 || !mkv_list_empty(&l->live) || mkv_rails_busy(l))) {
		l->dirty = 1;
		mkv_rails_stop(l);
		loop_flush(l);
		(void)mkv_ioq_run(l->q, l->now_ns + 10 * MKV_NS_PER_MS);
	}
	l->dirty = 1;
	loop_flush(l);
}

static void *
loop_main(void *arg)
{
	struct loop *l = arg;

	if (l->http != NULL)
		mkv_http_start(l->http);
	for (;;) {
		l->now_ns = mkv_now_ns();
		if (loop_take(l))
			break;
		mkv_rails_poll(l);
		(void)mkv_timers_run(&l->timers, l->now_ns);
		l->again = 0;
		loop_flush(l);
		loop_wait(l);
	}
	loop_end(l);
	return (NULL);
}

/* Signals of the program are not for our threads. */
int
mkv_loop_start(struct loop *l)
{
	sigset_t all, old;

	(void)sigfillset(&all);
	(void)pthread_sigmask(SIG_SETMASK, &all, &old);
	l->started = pthread_create(&l->thread, NULL, loop_main, l) == 0;
	(void)pthread_sigmask(SIG_SETMASK, &old, NULL);
	return (l->started ? 0 : MKV_E_SYSTEM);
}

void
mkv_loop_stop(struct loop *l)
{
	if (!l->started)
		return;
	(void)pthread_mutex_lock(&l->mutex);
	l->quit = 1;
	l->asleep = 1;
	loop_unlock_and_wake(l);
	(void)pthread_join(l->thread, NULL);
	l->started = 0;
}
