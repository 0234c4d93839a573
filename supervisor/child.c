/*
 * Process: supervisor, loop thread.
 * Owns: the state of one child and the account of its deaths. No process, descriptor or loop: see child_priv.h.
 *
 *   STOPPED --start--> STARTING --ready--> RUNNING --stop--> STOPPING --end--> STOPPED
 *                        |  ^                |
 *                        end timer,start    end
 *                        v  |                v
 *                        BACKOFF <-----------+----(crash loop, or it said "final")----> FATAL --start--> STARTING
 *
 * Invariants: child_set_state() is the only writer of the state and asserts the edge; the timer belongs to the present state.
 * What can fail: spawn, which counts as a death.
 */
#include "config.h"

#include "supervisor/child_priv.h"

#include <string.h>

#include "common/base/assert.h"
#include "common/base/err.h"

static const char *const child_names[CHILD_STATE_COUNT] = {
	[CHILD_STOPPED] = "STOPPED",	[CHILD_STARTING] = "STARTING",	[CHILD_RUNNING] = "RUNNING",
	[CHILD_BACKOFF] = "BACKOFF",	[CHILD_STOPPING] = "STOPPING",	[CHILD_FATAL] = "FATAL",
};

#define BIT(s)	(1u << (s))
static const uint8_t child_edges[CHILD_STATE_COUNT] = {
	[CHILD_STOPPED] = BIT(CHILD_STARTING),
	[CHILD_STARTING] = BIT(CHILD_RUNNING) | BIT(CHILD_BACKOFF) | BIT(CHILD_STOPPING) | BIT(CHILD_FATAL),
	[CHILD_RUNNING] = BIT(CHILD_BACKOFF) | BIT(CHILD_STOPPING) | BIT(CHILD_FATAL),
	[CHILD_BACKOFF] = BIT(CHILD_STARTING) | BIT(CHILD_STOPPED),
	[CHILD_STOPPING] = BIT(CHILD_STOPPED),
	[CHILD_FATAL] = BIT(CHILD_STARTING),
};

void
child_init(struct child *c, const char *name, const struct child_ops *ops, const struct child_policy *policy, void *owner)
{
	MKV_ASSERT(strlen(name) < sizeof(c->name));
	memset(c, 0, sizeof(*c));
	c->magic = CHILD_MAGIC;
	c->state = CHILD_STOPPED;
	c->ops = ops;
	c->policy = policy;
	c->owner = owner;
	c->since_ns = ops->now_ns();
	strcpy(c->name, name);
}

const char *
child_state_name(enum child_state s)
{
	MKV_ASSERT(s < CHILD_STATE_COUNT);
	return (child_names[s]);
}

int
child_edge_allowed(enum child_state from, enum child_state to)
{
	MKV_ASSERT(from < CHILD_STATE_COUNT);
	MKV_ASSERT(to < CHILD_STATE_COUNT);
	return ((child_edges[from] & BIT(to)) != 0);
}

static void
child_set_state(struct child *c, enum child_state to)
{
	enum child_state from = c->state;

	MKV_ASSERT(child_edge_allowed(from, to));
	c->state = to;
	c->since_ns = c->ops->now_ns();
	c->ops->arm(c, UINT64_MAX);
	c->ops->changed(c, from);
}

/* Deaths that lie outside the window no longer count. */
static void
child_forget_deaths(struct child *c, uint64_t now)
{
	uint32_t old = 0;

	while (old < c->death_count && now - c->death_ns[old] > c->policy->crash_window_ns)
		old++;
	memmove(c->death_ns, c->death_ns + old, (c->death_count - old) * sizeof(c->death_ns[0]));
	c->death_count -= old;
}

static void
child_count_death(struct child *c)
{
	uint64_t now = c->ops->now_ns();

	if (c->ready_ns != 0 && now - c->ready_ns >= c->policy->served_ok_ns)
		c->death_count = 0;
	child_forget_deaths(c, now);
	if (c->death_count == 0)
		c->barren_count = 0;
	else if (c->ready_ns == 0)
		c->barren_count++;
	if (c->death_count == CHILD_DEATHS_MAX)
		memmove(c->death_ns, c->death_ns + 1, --c->death_count * sizeof(c->death_ns[0]));
	c->death_ns[c->death_count++] = now;
}

/* backoff_min after a death; each further one that comes before the child got ready doubles it. */
static uint64_t
child_backoff_ns(const struct child *c)
{
	uint64_t ns = c->policy->backoff_min_ns;

	for (uint32_t i = 0; i < c->barren_count && ns < c->policy->backoff_max_ns; i++)
		ns *= 2;
	return (MKV_MIN(ns, c->policy->backoff_max_ns));
}

static void
child_on_death(struct child *c)
{
	if (c->held)
		c->barren_count = c->ready_ns != 0 ? 0 : c->barren_count + 1;
	else if (!c->forgiven)
		child_count_death(c);
	if (c->final || (c->death_count >= c->policy->crash_limit && !c->forgiven && !c->held)) {
		child_set_state(c, CHILD_FATAL);
		return;
	}
	child_set_state(c, CHILD_BACKOFF);
	c->ops->arm(c, c->forgiven ? 0 : child_backoff_ns(c));
}

static void
child_spawn(struct child *c)
{
	c->ready_ns = 0;
	c->killed = c->final = c->forgiven = c->held = c->start_again = c->parked = 0;
	child_set_state(c, CHILD_STARTING);
	if (c->ops->spawn(c) != 0) {
		child_on_death(c);
		return;
	}
	c->ops->arm(c, c->policy->start_limit_ns);
}

int
child_start(struct child *c)
{
	MKV_CHECK_OBJ(c, CHILD_MAGIC);
	switch (c->state) {
	case CHILD_STOPPED:
	case CHILD_FATAL:
		c->death_count = 0;
		child_spawn(c);
		return (0);
	case CHILD_BACKOFF:
		child_spawn(c);
		return (0);
	case CHILD_STOPPING:
		return (MKV_E_BUSY);
	default:
		return (0);
	}
}

void
child_stop(struct child *c)
{
	MKV_CHECK_OBJ(c, CHILD_MAGIC);
	c->start_again = 0;
	switch (c->state) {
	case CHILD_STARTING:
	case CHILD_RUNNING:
		child_set_state(c, CHILD_STOPPING);
		c->ops->ask_stop(c);
		c->ops->arm(c, c->policy->stop_limit_ns);
		break;
	case CHILD_BACKOFF:
		child_set_state(c, CHILD_STOPPED);
		break;
	default:
		break;
	}
}

void
child_restart(struct child *c)
{
	MKV_CHECK_OBJ(c, CHILD_MAGIC);
	child_stop(c);
	if (c->state == CHILD_STOPPING)
		c->start_again = 1;
	else
		(void)child_start(c);
}

/* From here a drive may take any time: it waits for its lock and recovers. Each has limits of its own elsewhere. */
void
child_on_hello(struct child *c)
{
	MKV_CHECK_OBJ(c, CHILD_MAGIC);
	if (c->state == CHILD_STARTING)
		c->ops->arm(c, UINT64_MAX);
}

void
child_on_ready(struct child *c)
{
	MKV_CHECK_OBJ(c, CHILD_MAGIC);
	if (c->state != CHILD_STARTING)
		return;
	c->ready_ns = c->ops->now_ns();
	child_set_state(c, CHILD_RUNNING);
}

void
child_on_end(struct child *c)
{
	MKV_CHECK_OBJ(c, CHILD_MAGIC);
	MKV_ASSERT(child_alive(c));
	if (c->state != CHILD_STOPPING) {
		c->restart_count += !c->held;
		child_on_death(c);
		return;
	}
	child_set_state(c, CHILD_STOPPED);
	if (c->start_again)
		c->ops->arm(c, 0);		/* not from here: the caller has yet to bury this life */
}

void
child_kill(struct child *c)
{
	MKV_CHECK_OBJ(c, CHILD_MAGIC);
	if (!child_alive(c) || c->killed)
		return;
	c->killed = 1;
	c->ops->kill(c);
}

void
child_on_timer(struct child *c)
{
	MKV_CHECK_OBJ(c, CHILD_MAGIC);
	switch (c->state) {
	case CHILD_STARTING:
	case CHILD_STOPPING:
		child_kill(c);
		break;
	case CHILD_BACKOFF:
		child_spawn(c);
		break;
	case CHILD_STOPPED:
		if (c->start_again)
			(void)child_start(c);
		break;
	default:
		break;
	}
}

int
child_alive(const struct child *c)
{
	return (c->state == CHILD_STARTING || c->state == CHILD_RUNNING || c->state == CHILD_STOPPING);
}

int
child_coming_back(const struct child *c)
{
	return (c->state == CHILD_STARTING || c->state == CHILD_RUNNING || c->state == CHILD_BACKOFF || c->start_again);
}
