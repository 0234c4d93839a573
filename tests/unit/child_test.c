/*
 * The life of a child as a machine: every edge, back-off, crash loop, who is asked for what. No process: the ops are a list of what was asked.
 */
#include "config.h"
#include "supervisor/child_priv.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "common/base/assert.h"
#include "common/base/err.h"
#include "tests/lib/death.h"
#include "tests/lib/rnd.h"

#define MS	1000000ull

static struct child c;
static uint64_t now, armed;
static unsigned spawns, kills, stops, changes;
static int spawn_result;

static uint64_t
fake_now(void)
{
	return (now);
}

static int
fake_spawn(struct child *ch)
{
	assert_int_equal(ch->state, CHILD_STARTING);
	spawns++;
	return (spawn_result);
}

static void
fake_kill(struct child *ch)
{
	assert_true(child_alive(ch));
	kills++;
}

static void
fake_ask_stop(struct child *ch)
{
	assert_int_equal(ch->state, CHILD_STOPPING);
	stops++;
}

static void
fake_arm(struct child *ch, uint64_t in_ns)
{
	(void)ch;
	armed = in_ns;
}

static void
fake_changed(struct child *ch, enum child_state from)
{
	assert_true(child_edge_allowed(from, ch->state));
	changes++;
}

static const struct child_ops ops = {
	.now_ns = fake_now, .spawn = fake_spawn, .kill = fake_kill, .ask_stop = fake_ask_stop, .arm = fake_arm, .changed = fake_changed,
};

static const struct child_policy policy = {
	.backoff_min_ns = 100 * MS, .backoff_max_ns = 1000 * MS, .crash_window_ns = 60000 * MS, .served_ok_ns = 10000 * MS,
	.start_limit_ns = 20000 * MS, .stop_limit_ns = 15000 * MS, .crash_limit = 5,
};

static int
fresh(void **state)
{
	(void)state;
	now = 1000 * MS;
	armed = UINT64_MAX;
	spawns = kills = stops = changes = 0;
	spawn_result = 0;
	child_init(&c, "drive:0", &ops, &policy, NULL);
	return (0);
}

static void
run(void)
{
	assert_int_equal(child_start(&c), 0);
	child_on_hello(&c);
	child_on_ready(&c);
	assert_int_equal(c.state, CHILD_RUNNING);
}

static void
good_life(void **state)
{
	(void)state;
	assert_int_equal(child_start(&c), 0);
	assert_int_equal(c.state, CHILD_STARTING);
	assert_int_equal(armed, policy.start_limit_ns);
	child_on_hello(&c);
	assert_int_equal(armed, UINT64_MAX);
	child_on_ready(&c);
	assert_int_equal(c.state, CHILD_RUNNING);
	child_stop(&c);
	assert_int_equal(stops, 1);
	assert_int_equal(armed, policy.stop_limit_ns);
	assert_int_equal(child_start(&c), MKV_E_BUSY);
	child_on_end(&c);
	assert_int_equal(c.state, CHILD_STOPPED);
	assert_int_equal(c.restart_count, 0);
	assert_int_equal(spawns, 1);
	assert_int_equal(kills, 0);
}

static void
backoff_doubles_up_to_its_limit(void **state)
{
	struct child_policy patient = policy;
	uint64_t want = policy.backoff_min_ns;

	(void)state;
	patient.crash_limit = 1000;
	child_init(&c, "drive:0", &ops, &patient, NULL);
	run();
	for (int i = 0; i < 8; i++) {
		child_on_end(&c);
		assert_int_equal(c.state, CHILD_BACKOFF);
		assert_int_equal(armed, want);
		want = MKV_MIN(want * 2, policy.backoff_max_ns);
		now += armed;
		child_on_timer(&c);
		assert_int_equal(c.state, CHILD_STARTING);
	}
	assert_int_equal(c.restart_count, 8);
}

/* Killed again and again, soon after it got ready: that costs deaths, not time. */
static void
a_child_that_gets_ready_is_back_soon(void **state)
{
	struct child_policy patient = policy;

	(void)state;
	patient.crash_limit = 1000;
	child_init(&c, "drive:0", &ops, &patient, NULL);
	run();
	for (unsigned i = 1; i < 20; i++) {
		now += 500 * MS;
		child_on_end(&c);
		assert_int_equal(c.death_count, i);
		assert_int_equal(armed, policy.backoff_min_ns);
		child_on_timer(&c);
		child_on_hello(&c);
		child_on_ready(&c);
	}
	/* Before it was ready: longer; service does not take that back before it has lasted. */
	child_on_end(&c);
	child_on_timer(&c);
	child_on_end(&c);
	assert_int_equal(armed, 2 * policy.backoff_min_ns);
	child_on_timer(&c);
	child_on_ready(&c);
	child_on_end(&c);
	assert_int_equal(armed, 2 * policy.backoff_min_ns);
	child_on_timer(&c);
	child_on_ready(&c);
	now += policy.served_ok_ns;
	child_on_end(&c);
	assert_int_equal(armed, policy.backoff_min_ns);
	/* The first death of all is the first also when it comes before ready. */
	child_init(&c, "drive:0", &ops, &patient, NULL);
	assert_int_equal(child_start(&c), 0);
	child_on_end(&c);
	assert_int_equal(armed, policy.backoff_min_ns);
}

static void
crash_loop_is_fatal_until_asked_for(void **state)
{
	(void)state;
	run();
	for (unsigned i = 1; i < policy.crash_limit; i++) {
		child_on_end(&c);
		assert_int_equal(c.state, CHILD_BACKOFF);
		child_on_timer(&c);
	}
	child_on_end(&c);
	assert_int_equal(c.state, CHILD_FATAL);
	child_on_timer(&c);
	child_stop(&c);
	assert_int_equal(c.state, CHILD_FATAL);
	assert_int_equal(spawns, policy.crash_limit);
	assert_false(child_coming_back(&c));
	/* An operator's start forgets the deaths. */
	run();
	child_on_end(&c);
	assert_int_equal(c.state, CHILD_BACKOFF);
	assert_int_equal(armed, policy.backoff_min_ns);
}

static void
deaths_outside_the_window_do_not_count(void **state)
{
	(void)state;
	run();
	for (int i = 0; i < 20; i++) {
		child_on_end(&c);
		assert_int_equal(c.state, CHILD_BACKOFF);
		now += policy.crash_window_ns / (policy.crash_limit - 1) + 1;
		child_on_timer(&c);
	}
}

static void
a_child_that_served_counts_from_zero(void **state)
{
	(void)state;
	for (int i = 0; i < 20; i++) {
		run();
		now += policy.served_ok_ns;
		child_on_end(&c);
		assert_int_equal(c.state, CHILD_BACKOFF);
		assert_int_equal(armed, policy.backoff_min_ns);
	}
}

static void
final_is_fatal_at_once(void **state)
{
	(void)state;
	assert_int_equal(child_start(&c), 0);
	c.final = 1;
	child_on_end(&c);
	assert_int_equal(c.state, CHILD_FATAL);
	/* The next life begins without it. */
	run();
	child_on_end(&c);
	assert_int_equal(c.state, CHILD_BACKOFF);
}

static int
held_spawn(struct child *ch)
{
	spawns++;
	ch->held = spawn_result != 0;
	return (spawn_result);
}

/* Nothing can be started: no child is to blame, so none is given up, and the pause grows. */
static void
held_starts_count_as_no_death(void **state)
{
	struct child_ops held_ops = ops;
	uint64_t before = 0;

	(void)state;
	held_ops.spawn = held_spawn;
	child_init(&c, "drive:0", &held_ops, &policy, NULL);
	spawn_result = MKV_E_NOSPACE;
	assert_int_equal(child_start(&c), 0);
	for (unsigned i = 0; i < 50; i++) {
		assert_int_equal(c.state, CHILD_BACKOFF);
		assert_true(armed >= before && armed <= policy.backoff_max_ns);
		before = armed;
		now += armed;
		child_on_timer(&c);
	}
	assert_true(before == policy.backoff_max_ns);
	assert_int_equal(c.death_count, 0);
	spawn_result = 0;
	child_on_timer(&c);
	assert_int_equal(c.state, CHILD_STARTING);
	child_on_ready(&c);
	assert_int_equal(c.state, CHILD_RUNNING);
}

/* What it serves is away: it may say so as often as it likes, and after a life of service the pause begins small again. */
static void
a_child_that_is_held_by_its_own_word(void **state)
{
	(void)state;
	assert_int_equal(child_start(&c), 0);
	for (unsigned i = 0; i < 50; i++) {
		child_on_hello(&c);
		c.held = 1;
		child_on_end(&c);
		assert_int_equal(c.state, CHILD_BACKOFF);
		now += armed;
		child_on_timer(&c);
		assert_int_equal(c.state, CHILD_STARTING);
		assert_false(c.held);
	}
	child_on_ready(&c);
	c.held = 1;
	child_on_end(&c);
	assert_int_equal(c.state, CHILD_BACKOFF);
	assert_true(armed == policy.backoff_min_ns);
	assert_int_equal(c.death_count, 0);
}

static void
forgiven_starts_again_at_once_and_costs_nothing(void **state)
{
	(void)state;
	for (int i = 0; i < 20; i++) {
		assert_int_equal(child_start(&c), 0);
		c.forgiven = 1;
		child_on_end(&c);
		assert_int_equal(c.state, CHILD_BACKOFF);
		assert_int_equal(armed, 0);
	}
	assert_int_equal(c.death_count, 0);
}

static void
spawn_that_fails_is_a_death(void **state)
{
	(void)state;
	spawn_result = MKV_E_NOMEM;
	assert_int_equal(child_start(&c), 0);
	assert_int_equal(c.state, CHILD_BACKOFF);
	for (unsigned i = 1; i < policy.crash_limit; i++)
		child_on_timer(&c);
	assert_int_equal(c.state, CHILD_FATAL);
}

static void
timers_kill_once(void **state)
{
	(void)state;
	assert_int_equal(child_start(&c), 0);
	child_on_timer(&c);			/* no HELLO in time */
	child_on_timer(&c);
	child_kill(&c);
	assert_int_equal(kills, 1);
	child_on_end(&c);
	child_on_timer(&c);
	child_on_hello(&c);
	child_on_ready(&c);
	child_stop(&c);
	child_on_timer(&c);			/* no end in time */
	assert_int_equal(kills, 2);
	child_on_end(&c);
	assert_int_equal(c.state, CHILD_STOPPED);
	child_kill(&c);				/* nobody there */
	assert_int_equal(kills, 2);
}

static void
restart_is_stop_then_start(void **state)
{
	(void)state;
	run();
	child_restart(&c);
	assert_int_equal(c.state, CHILD_STOPPING);
	assert_true(child_coming_back(&c));
	child_on_end(&c);
	assert_int_equal(c.state, CHILD_STOPPED);
	assert_true(child_coming_back(&c));
	assert_int_equal(armed, 0);
	child_on_timer(&c);
	assert_int_equal(c.state, CHILD_STARTING);
	assert_int_equal(c.restart_count, 0);	/* it did not die */
	/* A stop takes it back. */
	child_on_ready(&c);
	child_restart(&c);
	child_stop(&c);
	child_on_end(&c);
	child_on_timer(&c);
	assert_int_equal(c.state, CHILD_STOPPED);
	child_restart(&c);
	assert_int_equal(c.state, CHILD_STARTING);
}

static void
stop_in_backoff_needs_no_process(void **state)
{
	(void)state;
	run();
	child_on_end(&c);
	child_stop(&c);
	assert_int_equal(c.state, CHILD_STOPPED);
	assert_int_equal(stops, 0);
	child_on_timer(&c);
	assert_int_equal(c.state, CHILD_STOPPED);
}

static void
late_ready_is_ignored(void **state)
{
	(void)state;
	assert_int_equal(child_start(&c), 0);
	child_stop(&c);
	child_on_ready(&c);
	assert_int_equal(c.state, CHILD_STOPPING);
}

static void
end_of_nobody(void *arg)
{
	child_on_end(arg);
}

static void
an_end_without_a_process_is_our_mistake(void **state)
{
	(void)state;
	assert_true(death_by_assert(end_of_nobody, &c));
}

static void
names(void **state)
{
	(void)state;
	assert_string_equal(child_state_name(CHILD_STOPPED), "STOPPED");
	assert_string_equal(child_state_name(CHILD_STARTING), "STARTING");
	assert_string_equal(child_state_name(CHILD_RUNNING), "RUNNING");
	assert_string_equal(child_state_name(CHILD_BACKOFF), "BACKOFF");
	assert_string_equal(child_state_name(CHILD_STOPPING), "STOPPING");
	assert_string_equal(child_state_name(CHILD_FATAL), "FATAL");
}

/* Whatever happens in whatever order: only edges of the table, a process is killed once a life, the deaths stay bounded. */
static void
any_order_of_events(void **state)
{
	struct rnd r;

	(void)state;
	rnd_init(&r, 42);
	for (unsigned i = 0; i < 200000; i++) {
		now += rnd_below(&r, 3000) * MS;
		spawn_result = rnd_below(&r, 10) == 0 ? MKV_E_NOMEM : 0;
		switch (rnd_below(&r, 9)) {
		case 0: (void)child_start(&c); break;
		case 1: child_stop(&c); break;
		case 2: child_restart(&c); break;
		case 3: child_on_hello(&c); break;
		case 4: child_on_ready(&c); break;
		case 5: child_kill(&c); break;
		case 6: c.final = rnd_below(&r, 20) == 0; break;
		case 7: child_on_timer(&c); break;
		default:
			if (child_alive(&c))
				child_on_end(&c);
			break;
		}
		assert_true(c.death_count <= CHILD_DEATHS_MAX);
	}
	assert_true(changes > 1000);
	assert_true(kills <= spawns);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(held_starts_count_as_no_death, fresh),
		cmocka_unit_test_setup(a_child_that_is_held_by_its_own_word, fresh),
		cmocka_unit_test_setup(good_life, fresh),
		cmocka_unit_test_setup(backoff_doubles_up_to_its_limit, fresh),
		cmocka_unit_test_setup(a_child_that_gets_ready_is_back_soon, fresh),
		cmocka_unit_test_setup(crash_loop_is_fatal_until_asked_for, fresh),
		cmocka_unit_test_setup(deaths_outside_the_window_do_not_count, fresh),
		cmocka_unit_test_setup(a_child_that_served_counts_from_zero, fresh),
		cmocka_unit_test_setup(final_is_fatal_at_once, fresh),
		cmocka_unit_test_setup(forgiven_starts_again_at_once_and_costs_nothing, fresh),
		cmocka_unit_test_setup(spawn_that_fails_is_a_death, fresh),
		cmocka_unit_test_setup(timers_kill_once, fresh),
		cmocka_unit_test_setup(restart_is_stop_then_start, fresh),
		cmocka_unit_test_setup(stop_in_backoff_needs_no_process, fresh),
		cmocka_unit_test_setup(late_ready_is_ignored, fresh),
		cmocka_unit_test_setup(an_end_without_a_process_is_our_mistake, fresh),
		cmocka_unit_test_setup(names, fresh),
		cmocka_unit_test_setup(any_order_of_events, fresh),
	};

	return (cmocka_run_group_tests(tests, NULL, NULL));
}
