/*
 * A server as one loop sees it: the queue of requests that wait for a session, and the breaker.
 *
 *   CLOSED --FAILS_MAX failures in a row--> OPEN --back-off--> PROBING --handshake--> RAMP --RAMP_NS without failure--> CLOSED
 *                                            ^----failure---------+-----failure--------+   (a late answer in OPEN or PROBING leads to RAMP as well)
 *
 * The loop's thread. Owns the list of waiting legs and the transport's pool.
 * A failure is an attempt to connect that failed, or a deadline that passed while nothing at all was heard from the server since the request was
 * handed over. Of such deadlines alone the breaker opens only when the server has been silent for SILENCE_NS: deadlines may be shorter than a hiccup of the machine.
 * An attempt that is refused while other sessions serve is none: the server is full, and only further attempts are put off.
 * While OPEN or PROBING requests end at once with "server down"; in RAMP a growing share of them is let through. A session that just ends is no
 * failure: the next attempt to connect will show.
 */
#include "config.h"

#include <string.h>

#include "clients/lib/client_priv.h"
#include "clients/lib/transport.h"
#include "common/base/clock.h"

#define FAILS_MAX	4u
#define SILENCE_NS	(50 * MKV_NS_PER_MS)
#define RECONNECT_NS	(5 * MKV_NS_PER_MS)		/* after the first failure; doubled by each */
#define OPEN_FIRST_NS	(100 * MKV_NS_PER_MS)
#define OPEN_MOST_NS	(1000 * MKV_NS_PER_MS)
#define RAMP_NS		(500 * MKV_NS_PER_MS)
#define RAMP_LEAST	10u				/* per cent let through at its beginning */

static void	server_on_timer(struct mkv_timer *t, uint64_t now_ns);

void
mkv_server_init(struct server *s, struct loop *l, unsigned idx)
{
	memset(s, 0, sizeof(*s));
	s->loop = l;
	s->idx = idx;
	s->conf = &l->c->cf.server[idx];
	s->tr = &mkv_client_tcp;
	s->backoff_ns = OPEN_FIRST_NS;
	s->may_connect = 1;
	s->seed = s->conf->hash + l->idx;
	s->timer.fire = server_on_timer;
	mkv_list_init(&s->waiting);
}

void
mkv_server_fini(struct server *s)
{
	if (s->tr != NULL)
		s->tr->close(s);
}

static uint64_t
server_random(struct server *s)
{
	s->seed = s->seed * 6364136223846793005ull + 1442695040888963407ull;
	return (s->seed >> 33);
}

uint64_t
mkv_server_jitter(struct server *s, uint64_t ns)
{
	return (ns * 3 / 4 + server_random(s) % (ns / 4 + 1));
}

static void
server_set_breaker(struct server *s, enum breaker to)
{
	s->breaker = to;
	atomic_store_explicit(&server_state_of(s)->breaker, to, memory_order_relaxed);
}

static void
server_arm(struct server *s, uint64_t ns)
{
	mkv_timer_arm(&s->loop->timers, &s->timer, s->loop->now_ns + mkv_server_jitter(s, ns));
}

/* Everything that waits is told at once. */
static void
server_open_breaker(struct server *s)
{
	struct mkv_list *n;

	server_set_breaker(s, BREAKER_OPEN);
	client_count(s->loop->c, CC_breaker_opened_total, 1);
	s->may_connect = 0;
	server_arm(s, s->backoff_ns);
	s->backoff_ns = MKV_MIN(s->backoff_ns * 2, OPEN_MOST_NS);
	while ((n = mkv_list_pop(&s->waiting)) != NULL)
		mkv_leg_down(MKV_CONTAINER_OF(n, struct leg, link));
}

static void
server_ramp(struct server *s)
{
	s->fails = 0;
	s->last_error = 0;
	s->may_connect = 1;
	s->ramp_ns = s->loop->now_ns;
	server_set_breaker(s, BREAKER_RAMP);
	server_arm(s, RAMP_NS);
}

static void
server_on_timer(struct mkv_timer *t, uint64_t now_ns MKV_UNUSED)
{
	struct server *s = MKV_CONTAINER_OF(t, struct server, timer);

	switch (s->breaker) {
	case BREAKER_CLOSED:
		s->may_connect = 1;
		mkv_server_pump(s);
		return;
	case BREAKER_OPEN:
		server_set_breaker(s, BREAKER_PROBING);
		s->tr->probe(s);
		return;
	case BREAKER_PROBING:
		return;					/* the transport's own limit ends it */
	case BREAKER_RAMP:
		s->backoff_ns = OPEN_FIRST_NS;
		server_set_breaker(s, BREAKER_CLOSED);
		s->may_connect = 1;
		mkv_server_pump(s);
		return;
	}
}

/* Another name of the list means the same server: it stays out of use. */
static void
server_refuse_all(struct server *s)
{
	struct mkv_list *n;

	while ((n = mkv_list_pop(&s->waiting)) != NULL)
		mkv_leg_over(MKV_CONTAINER_OF(n, struct leg, link), MKV_E_CONFIG, MKV_REASON_SERVER_DOWN);
}

void
mkv_server_failed(struct server *s, int err)
{
	if (atomic_load_explicit(&server_state_of(s)->refused, memory_order_relaxed))
		server_refuse_all(s);
	s->last_error = err;
	s->fails++;
	s->may_connect = 0;
	switch (s->breaker) {
	case BREAKER_CLOSED:
		if (s->fails >= FAILS_MAX)
			server_open_breaker(s);
		else
			server_arm(s, RECONNECT_NS << s->fails);
		return;
	case BREAKER_OPEN:
		return;
	case BREAKER_PROBING:
	case BREAKER_RAMP:
		server_open_breaker(s);
		return;
	}
}

/*
 * The server has no room for one more, but serves us: nothing to hold against it. The next attempt waits ever longer, since each costs a full server
 * work.
 */
void
mkv_server_crowded(struct server *s, int err)
{
	if (s->breaker == BREAKER_OPEN || s->breaker == BREAKER_PROBING) {
		mkv_server_failed(s, err);
		return;
	}
	s->may_connect = 0;
	s->crowd_ns = MKV_MIN(MKV_MAX(2 * s->crowd_ns, 2 * RECONNECT_NS), OPEN_MOST_NS);
	if (s->breaker == BREAKER_CLOSED)
		server_arm(s, s->crowd_ns);		/* in RAMP its end is the time */
}

/* What holds for further sessions does not hold for the first. */
void
mkv_server_alone(struct server *s)
{
	if (s->crowd_ns != 0)
		s->may_connect = 1;
	s->crowd_ns = 0;
}

/* Since when it has not answered, as far as deadlines tell; an answer begins this anew. */
static uint64_t
server_silent_ns(struct server *s, const struct leg *l)
{
	if (s->asked_ns <= s->heard_ns)
		s->asked_ns = l->began_ns;
	return (s->loop->now_ns - s->asked_ns);
}

void
mkv_server_timed_out(struct server *s, const struct leg *l)
{
	int brief;

	if (s->heard_ns >= l->began_ns)
		return;
	brief = server_silent_ns(s, l) < SILENCE_NS;
	if (s->breaker == BREAKER_CLOSED && (brief || s->fails + 1 < FAILS_MAX))
		s->fails = MKV_MIN(s->fails + 1, FAILS_MAX - 1);	/* sessions may be fine: no back-off for connecting */
	else if (!brief && (s->breaker == BREAKER_CLOSED || s->breaker == BREAKER_RAMP))
		mkv_server_failed(s, MKV_E_TIMEOUT);
}

void
mkv_server_heard(struct server *s, uint64_t now_ns)
{
	s->heard_ns = now_ns;
	s->fails = 0;
	if (s->breaker == BREAKER_OPEN || s->breaker == BREAKER_PROBING)
		server_ramp(s);
}

void
mkv_server_session_up(struct server *s)
{
	mkv_server_heard(s, s->loop->now_ns);
	s->may_connect = 1;
	s->crowd_ns = 0;
	if (s->breaker == BREAKER_CLOSED)
		mkv_timer_disarm(&s->loop->timers, &s->timer);
	s->last_error = 0;
	mkv_server_pump(s);
}

static int
server_admits(struct server *s, const struct leg *l)
{
	uint64_t since;

	switch (s->breaker) {
	case BREAKER_CLOSED:
		return (1);
	case BREAKER_RAMP:
		since = (s->loop->now_ns - s->ramp_ns) * 100 / RAMP_NS;
		return (l->attempts > 0 || server_random(s) % 100 < MKV_MAX(since, RAMP_LEAST));
	case BREAKER_OPEN:
	case BREAKER_PROBING:
		return (0);
	}
	return (0);
}

void
mkv_server_submit(struct server *s, struct leg *l)
{
	if (l->state == LEG_IDLE || l->state == LEG_BACKOFF)
		mkv_leg_set_state(l, LEG_WAITING);
	MKV_ASSERT(l->state == LEG_WAITING);
	if (atomic_load_explicit(&server_state_of(s)->refused, memory_order_relaxed)) {
		mkv_leg_over(l, MKV_E_CONFIG, MKV_REASON_SERVER_DOWN);
	} else if (!server_admits(s, l)) {
		mkv_leg_down(l);
	} else {
		mkv_list_push_tail(&s->waiting, &l->link);
		mkv_server_pump(s);
	}
}

void
mkv_server_pump(struct server *s)
{
	struct leg *l;
	int r;

	while (!mkv_list_empty(&s->waiting)) {
		l = MKV_CONTAINER_OF(s->waiting.next, struct leg, link);
		mkv_list_remove(&l->link);
		if ((r = s->tr->send(s, l)) == MKV_E_AGAIN) {
			mkv_list_push_head(&s->waiting, &l->link);
			break;
		}
		if (r != 0)
			mkv_leg_over(l, r, MKV_REASON_NONE);
	}
	if (s->breaker == BREAKER_CLOSED || s->breaker == BREAKER_RAMP)
		s->tr->want(s, !mkv_list_empty(&s->waiting));
}
