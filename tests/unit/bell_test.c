/*
 * Bells: no wake-up is lost between two threads, a sleeper is rung once, damaged pages cost time only.
 */
#include "config.h"
#include "common/shm/ring.h"

#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "common/base/assert.h"
#include "common/base/clock.h"
#include "common/base/err.h"
#include "common/base/os.h"
#include "tests/lib/death.h"
#include "tests/lib/rnd.h"

#define PRODUCERS	2u
#define RUN_NS		MKV_NS_PER_SEC
#define LOST_MS		2000			/* a bell that takes so long is lost, whatever the machine does */

static int page_fd, wait_fd;

/* One consumer's bell and n more handles on it for producers. */
static void
bells_open(struct mkv_bell *b, unsigned n)
{
	int ring_fd;

	page_fd = mkv_os_shm_create("bell-test", 4096, 0);
	assert_true(page_fd >= 0);
	assert_int_equal(mkv_bell_format(page_fd), 0);
	assert_int_equal(mkv_os_bell_create(&wait_fd, &ring_fd), 0);
	for (unsigned i = 0; i < n; i++)
		assert_int_equal(mkv_bell_open(&b[i], page_fd, dup(ring_fd)), 0);
	if (ring_fd != wait_fd)
		close(ring_fd);
}

static void
bells_close(struct mkv_bell *b, unsigned n)
{
	for (unsigned i = 0; i < n; i++) {
		mkv_bell_close(&b[i]);
		mkv_bell_close(&b[i]);
	}
	close(wait_fd);
	close(page_fd);
}

static int
rung(int timeout_ms)
{
	struct pollfd p = { .fd = wait_fd, .events = POLLIN };

	return (poll(&p, 1, timeout_ms) == 1);
}

static void
only_a_sleeper_is_rung(void **state)
{
	struct mkv_bell b[3];

	(void)state;
	bells_open(b, 3);
	assert_int_equal(mkv_bell_ring(&b[1]), 0);
	assert_false(rung(0));
	mkv_bell_sleep(&b[0]);
	assert_int_equal(mkv_bell_ring(&b[1]), 1);
	assert_int_equal(mkv_bell_ring(&b[2]), 0);		/* one call is enough */
	assert_true(rung(0));
	mkv_bell_awake(&b[0]);
	mkv_os_bell_clear(wait_fd);
	assert_false(rung(0));
	assert_int_equal(mkv_bell_ring(&b[1]), 0);
	bells_close(b, 3);
}

static void
ring_after_close(void *arg)
{
	struct mkv_bell b = { .fd = -1 };

	(void)arg;
	mkv_bell_ring(&b);
}

static void
mistakes(void **state)
{
	struct mkv_bell b[1], c;
	int fd;

	(void)state;
	bells_open(b, 1);
	assert_true(death_by_assert(ring_after_close, NULL));
	fd = mkv_os_shm_create("bell-test", 4096, 0);
	assert_int_equal(mkv_bell_open(&c, fd, 0), MKV_E_PEER);	/* not formatted */
	mkv_bell_close(&c);
	close(fd);
	bells_close(b, 1);
}

static void
damaged_page(void **state)
{
	struct mkv_bell b[2];
	struct rnd r;

	(void)state;
	rnd_init(&r, 22);
	bells_open(b, 2);
	for (unsigned i = 0; i < 5000; i++) {
		rnd_fill(&r, b[0].shm, sizeof(*b[0].shm));
		mkv_bell_ring(&b[1]);
		mkv_bell_sleep(&b[0]);
		mkv_bell_awake(&b[0]);
	}
	bells_close(b, 2);
}

struct lane {				/* one producer */
	struct mkv_ring	p, c;
	struct mkv_bell	bell;
	unsigned	idx;
	uint64_t	until_ns, pushed, popped, calls;
	_Atomic int	done;
};

static void *
producer(void *arg)
{
	struct lane *l = arg;
	struct mkv_desc d = { .op = 1 };
	struct rnd r = { l->idx };
	struct pollfd none = { .fd = -1 };

	for (uint64_t n = 0; mkv_now_ns() < l->until_ns; n++) {
		for (unsigned burst = 1 + rnd_below(&r, 4); burst > 0; burst--)
			if (mkv_ring_push(&l->p, &d) == 0)
				l->pushed++;
		l->calls += (unsigned)mkv_bell_ring(&l->bell);
		if (rnd_below(&r, 50) == 0)
			poll(&none, 0, 1);	/* let it fall asleep */
	}
	atomic_store(&l->done, 1);
	mkv_bell_ring(&l->bell);
	return (NULL);
}

static unsigned
drain(struct lane *l)
{
	struct mkv_desc d;
	unsigned got = 0;

	for (unsigned i = 0; i < PRODUCERS; i++)
		while (mkv_ring_pop(&l[i].c, &d) == 1) {
			l[i].popped++;
			got++;
		}
	return (got);
}

/* The consumer waits for the bell alone, with no limit of 10 ms: a lost wake-up shows as a wait of LOST_MS with something in a ring. */
static void
no_wake_up_is_lost(void **state)
{
	struct mkv_bell b[1 + PRODUCERS];
	struct lane l[PRODUCERS] = { 0 };
	pthread_t t[PRODUCERS];
	unsigned lost = 0, sleeps = 0, open;
	int fd;

	(void)state;
	bells_open(b, 1 + PRODUCERS);
	for (unsigned i = 0; i < PRODUCERS; i++) {
		fd = mkv_os_shm_create("bell-test", mkv_ring_bytes(1024), 0);
		assert_int_equal(mkv_ring_format(fd, 1024, 1), 0);
		assert_int_equal(mkv_ring_open(&l[i].p, fd, 1, 1), 0);
		close(fd);
		/* One mapping for both sides: the thread sanitizer sees a race only if both threads use the same addresses. */
		l[i].c = l[i].p;
		l[i].c.is_producer = 0;
		l[i].bell = (struct mkv_bell){ b[0].shm, b[1 + i].fd };
		l[i].idx = i;
		l[i].until_ns = mkv_now_ns() + RUN_NS;
		assert_int_equal(pthread_create(&t[i], NULL, producer, &l[i]), 0);
	}
	do {
		mkv_bell_sleep(&b[0]);
		open = 0;
		for (unsigned i = 0; i < PRODUCERS; i++)
			open += !atomic_load(&l[i].done);
		if (drain(l) == 0 && open != 0) {
			sleeps++;
			lost += !rung(LOST_MS);
		}
		mkv_os_bell_clear(wait_fd);
		mkv_bell_awake(&b[0]);
		drain(l);
	} while (open != 0);
	for (unsigned i = 0; i < PRODUCERS; i++)
		pthread_join(t[i], NULL);
	drain(l);
	for (unsigned i = 0; i < PRODUCERS; i++) {
		assert_true(l[i].popped == l[i].pushed);
		printf("%llu messages, %llu calls\n", (unsigned long long)l[i].pushed, (unsigned long long)l[i].calls);
		mkv_ring_close(&l[i].p);
	}
	assert_int_equal(lost, 0);
	assert_true(sleeps > 5);
	bells_close(b, 1 + PRODUCERS);
}

struct meeting {			/* the two sides begin each round at the same moment */
	struct mkv_ring	p, c;
	struct mkv_bell	ringer, sleeper;
	_Atomic unsigned begun[2], end;
	unsigned	rounds, missed;
	int		called;		/* written by the producer, read after the round */
};

/* Waits until the other side has begun round n as well; 0 when it is over. */
static int
meet(struct meeting *m, unsigned side, unsigned n)
{
	atomic_store(&m->begun[side], n);
	for (unsigned spins = 0; atomic_load(&m->begun[!side]) < n; spins++) {
		if (atomic_load(&m->end))
			return (0);
		if (spins % 1000 == 999)
			sched_yield();
	}
	return (!atomic_load(&m->end));
}

/* A few nanoseconds more or less, so that the two sides meet in every way. */
static void
stagger(struct rnd *r)
{
	for (volatile unsigned n = rnd_below(r, 64); n > 0; n--)
		continue;
}

static void *
meeting_producer(void *arg)
{
	struct rnd r = { 1 };
	struct meeting *m = arg;
	struct mkv_desc d = { .op = 1 };

	for (unsigned n = 1; meet(m, 0, 2 * n - 1); n++) {
		stagger(&r);
		if (mkv_ring_push(&m->p, &d) != 0)
			break;
		m->called = mkv_bell_ring(&m->ringer);
		if (!meet(m, 0, 2 * n))
			break;
	}
	return (NULL);
}

/* Push and fall asleep at the same moment: either the producer rings, or the sleeper sees what was pushed. */
static void
push_meets_sleep(void **state)
{
	static struct meeting m;
	uint64_t until = mkv_now_ns() + RUN_NS / 2;
	struct mkv_bell b[2];
	struct mkv_desc d;
	struct rnd r = { 2 };
	pthread_t t;
	int fd, empty;

	(void)state;
	bells_open(b, 2);
	fd = mkv_os_shm_create("bell-test", mkv_ring_bytes(4), 0);
	assert_int_equal(mkv_ring_format(fd, 4, 1), 0);
	assert_int_equal(mkv_ring_open(&m.p, fd, 1, 1), 0);
	close(fd);
	m.c = m.p;
	m.c.is_producer = 0;
	m.sleeper = b[0];
	m.ringer = (struct mkv_bell){ b[0].shm, b[1].fd };
	assert_int_equal(pthread_create(&t, NULL, meeting_producer, &m), 0);
	for (unsigned n = 1; mkv_now_ns() < until && meet(&m, 1, 2 * n - 1); n++) {
		stagger(&r);
		mkv_bell_sleep(&m.sleeper);
		empty = mkv_ring_empty(&m.c);
		if (!meet(&m, 1, 2 * n))
			break;
		m.missed += empty && !m.called;
		m.rounds++;
		mkv_bell_awake(&m.sleeper);
		assert_int_equal(mkv_ring_pop(&m.c, &d), 1);
	}
	atomic_store(&m.end, 1);
	pthread_join(t, NULL);
	printf("%u rounds\n", m.rounds);
	assert_int_equal(m.missed, 0);
	assert_true(m.rounds > 0);
	mkv_ring_close(&m.p);
	bells_close(b, 2);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(only_a_sleeper_is_rung),
		cmocka_unit_test(mistakes),
		cmocka_unit_test(damaged_page),
		cmocka_unit_test(no_wake_up_is_lost),
		cmocka_unit_test(push_meets_sleep),
	};

	return (cmocka_run_group_tests(tests, NULL, NULL));
}
