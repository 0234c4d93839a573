/*
 * Rings: against a queue as the model, across the wrap of the counters, between two threads, and with every shared word damaged.
 */
#include "config.h"
#include "common/shm/ring.h"

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

#define EPOCH		7u
#define THREADS_NS	MKV_NS_PER_SEC	/* at most so long */

struct pair {
	int		fd;
	struct mkv_ring	p, c;
};

static void
pair_open(struct pair *x, uint32_t capacity)
{
	x->fd = mkv_os_shm_create("ring-test", mkv_ring_bytes(capacity), 0);
	assert_true(x->fd >= 0);
	assert_int_equal(mkv_ring_format(x->fd, capacity, EPOCH), 0);
	assert_int_equal(mkv_ring_open(&x->p, x->fd, EPOCH, 1), 0);
	assert_int_equal(mkv_ring_open(&x->c, x->fd, EPOCH, 0), 0);
}

static void
pair_close(struct pair *x)
{
	mkv_ring_close(&x->p);
	mkv_ring_close(&x->c);
	mkv_ring_close(&x->c);
	close(x->fd);
}

/* One mapping for both ends: the thread sanitizer sees a race only if both threads use the same addresses. */
static void
pair_share(struct pair *x)
{
	mkv_ring_close(&x->c);
	x->c = x->p;
	x->c.is_producer = 0;
}

static void
pair_close_shared(struct pair *x)
{
	memset(&x->c, 0, sizeof(x->c));
	pair_close(x);
}

/* Both ends, and the words, as if n descriptors had gone through. */
static void
pair_forward(struct pair *x, uint32_t n)
{
	x->p.own = x->c.own = n;
	atomic_store(&x->p.shm->tail, n);
	atomic_store(&x->p.shm->head, n);
}

static struct mkv_desc
desc(uint64_t n)
{
	return ((struct mkv_desc){ .op = (uint16_t)n, .slot_idx = (uint32_t)(n >> 3), .arg = { n, ~n, n * 3, n * 5, n * 7, n * 11 } });
}

static void
follows_the_model(void **state)
{
	static const uint32_t capacity[] = { 1, 2, 64, 1024 };
	struct mkv_desc d, want;
	struct pair x;
	struct rnd r;
	uint64_t in, out;
	int e;

	(void)state;
	rnd_init(&r, 20);
	for (unsigned k = 0; k < MKV_ARRAY_LEN(capacity); k++) {
		pair_open(&x, capacity[k]);
		pair_forward(&x, UINT32_MAX - 1500);	/* the counters wrap on the way */
		in = out = 0;
		for (unsigned i = 0; i < 20000; i++) {
			assert_int_equal(mkv_ring_empty(&x.c), in == out);
			if (rnd_below(&r, 2) != 0) {
				d = desc(in);
				e = mkv_ring_push(&x.p, &d);
				assert_int_equal(e, in - out == capacity[k] ? MKV_E_AGAIN : 0);
				in += e == 0;
			} else {
				e = mkv_ring_pop(&x.c, &d);
				assert_int_equal(e, in != out);
				want = desc(out);
				if (e == 1)
					assert_memory_equal(&d, &want, sizeof(d));
				out += e == 1;
			}
		}
		assert_true(out > 1500 + capacity[k]);
		pair_close(&x);
	}
}

static void
epochs_and_ends(void **state)
{
	struct mkv_desc d = desc(1);
	struct mkv_ring r;
	struct pair x;

	(void)state;
	pair_open(&x, 8);
	assert_int_equal(mkv_ring_open(&r, x.fd, EPOCH + 1, 1), MKV_E_STALE);
	assert_int_equal(mkv_ring_push(&r, &d), MKV_E_CLOSED);
	assert_int_equal(mkv_ring_pop(&r, &d), MKV_E_CLOSED);
	assert_int_equal(mkv_ring_empty(&r), 1);
	assert_int_equal(mkv_ring_push(&x.p, &d), 0);
	assert_int_equal(mkv_ring_open(&r, x.fd, EPOCH, 1), MKV_E_STALE);	/* that end was in use */
	assert_int_equal(mkv_ring_retire(x.fd, EPOCH + 1), 0);
	assert_int_equal(mkv_ring_push(&x.p, &d), MKV_E_STALE);
	assert_int_equal(mkv_ring_pop(&x.c, &d), MKV_E_STALE);
	pair_close(&x);
	assert_int_equal(mkv_ring_pop(&x.c, &d), MKV_E_CLOSED);
}

static void
push_at_consumer(void *arg)
{
	struct mkv_desc d = desc(1);

	mkv_ring_push(arg, &d);
}

static void
pop_at_producer(void *arg)
{
	struct mkv_desc d;

	mkv_ring_pop(arg, &d);
}

static void
wrong_end_is_our_mistake(void **state)
{
	struct pair x;

	(void)state;
	pair_open(&x, 8);
	assert_true(death_by_assert(push_at_consumer, &x.c));
	assert_true(death_by_assert(pop_at_producer, &x.p));
	pair_close(&x);
}

static void
what_is_no_ring(void **state)
{
	struct mkv_ring r;
	struct pair x;
	int fd;

	(void)state;
	fd = mkv_os_shm_create("ring-test", 8192, 0);
	assert_int_equal(mkv_ring_open(&r, fd, 0, 1), MKV_E_PEER);	/* not formatted */
	assert_int_equal(mkv_ring_format(fd, 128, 1), MKV_E_INVAL);	/* too small */
	close(fd);
	fd = mkv_os_shm_create("ring-test", 512, 0);
	assert_int_equal(mkv_ring_open(&r, fd, 0, 1), MKV_E_PEER);
	close(fd);
	fd = mkv_os_shm_create("ring-test", 64u << 20, 0);
	assert_int_equal(mkv_ring_open(&r, fd, 0, 1), MKV_E_PEER);
	close(fd);
	assert_int_equal(mkv_ring_open(&r, -1, 0, 1), MKV_E_SYSTEM);
	pair_open(&x, 64);
	x.p.shm->capacity = 128;		/* larger than the segment */
	assert_int_equal(mkv_ring_open(&r, x.fd, EPOCH, 1), MKV_E_PEER);
	x.p.shm->capacity = 63;
	assert_int_equal(mkv_ring_open(&r, x.fd, EPOCH, 1), MKV_E_PEER);
	x.p.shm->capacity = 0;
	assert_int_equal(mkv_ring_open(&r, x.fd, EPOCH, 1), MKV_E_PEER);
	pair_close(&x);
}

/* One random word of the head changes; whatever the other end now says is a number of the contract, and it never leaves its slots. */
static void
damage_once(struct rnd *r, struct mkv_ring_shm *shm)
{
	uint32_t v = rnd_below(r, 4) == 0 ? rnd_below(r, 200) : (uint32_t)rnd_u64(r);

	switch (rnd_below(r, 6)) {
	case 0:
		atomic_store(&shm->tail, v);
		break;
	case 1:
		atomic_store(&shm->head, v);
		break;
	case 2:
		atomic_fetch_add(rnd_below(r, 2) ? &shm->tail : &shm->head, v % 80 - 40);
		break;
	case 3:
		shm->capacity = v;
		break;
	case 4:
		shm->magic = v;
		break;
	default:
		rnd_fill(r, (uint8_t *)shm + 4096 + rnd_below(r, 63) * 64, 64);
	}
}

static void
damaged_words(void **state)
{
	struct mkv_desc d;
	unsigned peer = 0;
	struct pair x;
	struct rnd r;
	int e;

	(void)state;
	rnd_init(&r, 21);
	for (unsigned round = 0; round < 300; round++) {
		pair_open(&x, 64);
		for (unsigned i = 0; i < 200; i++) {
			if (rnd_below(&r, 4) == 0)
				damage_once(&r, x.p.shm);
			d = desc(i);
			e = rnd_below(&r, 2) ? mkv_ring_push(&x.p, &d) : mkv_ring_pop(&x.c, &d);
			assert_true(e == 0 || e == 1 || e == MKV_E_AGAIN || e == MKV_E_PEER);
			peer += e == MKV_E_PEER;
			(void)mkv_ring_empty(&x.c);
		}
		pair_close(&x);
	}
	assert_true(peer > 1000);		/* damage was seen, not only survived */
}

static void
impossible_counts(void **state)
{
	struct mkv_desc d = desc(1);
	struct pair x;

	(void)state;
	pair_open(&x, 4);
	pair_forward(&x, 100);
	atomic_store(&x.p.shm->tail, 105);
	assert_int_equal(mkv_ring_pop(&x.c, &d), MKV_E_PEER);
	assert_int_equal(mkv_ring_empty(&x.c), 0);
	atomic_store(&x.p.shm->tail, 99);
	assert_int_equal(mkv_ring_pop(&x.c, &d), MKV_E_PEER);
	atomic_store(&x.p.shm->head, 101);
	assert_int_equal(mkv_ring_push(&x.p, &d), MKV_E_PEER);
	atomic_store(&x.p.shm->head, 95);
	assert_int_equal(mkv_ring_push(&x.p, &d), MKV_E_PEER);
	pair_close(&x);
}

struct traffic {
	struct mkv_ring	*p, *c;
	uint64_t	pushed, popped, wrong;
	uint64_t	until_ns;
	_Atomic uint64_t sent;
	_Atomic int	done;
};

static void *
producer(void *arg)
{
	struct traffic *t = arg;
	struct mkv_desc d;
	int r = 0;

	for (uint64_t n = 0; (n & 1023) != 0 || mkv_now_ns() < t->until_ns; n++) {
		d = desc(n);
		while ((r = mkv_ring_push(t->p, &d)) == MKV_E_AGAIN)
			sched_yield();
		if (r != 0)
			break;
		t->pushed++;
	}
	atomic_store(&t->sent, t->pushed);
	atomic_store(&t->done, 1);
	return (NULL);
}

static void *
consumer(void *arg)
{
	struct traffic *t = arg;
	struct mkv_desc d, want;
	int r;

	for (;;) {
		r = mkv_ring_pop(t->c, &d);
		if (r == 0) {
			if (atomic_load(&t->done) && t->popped == atomic_load(&t->sent))
				break;
			sched_yield();
			continue;
		}
		want = desc(t->popped);
		t->wrong += r != 1 || memcmp(&d, &want, sizeof(d)) != 0;
		if (r < 0)
			break;
		t->popped++;
	}
	return (NULL);
}

static void
two_threads(void **state)
{
	static const uint32_t capacity[] = { 4, 256 };
	pthread_t a, b;
	struct pair x;

	(void)state;
	for (unsigned k = 0; k < MKV_ARRAY_LEN(capacity); k++) {
		pair_open(&x, capacity[k]);
		pair_share(&x);
		struct traffic t = { .p = &x.p, .c = &x.c, .until_ns = mkv_now_ns() + THREADS_NS / 2 };

		assert_int_equal(pthread_create(&a, NULL, producer, &t), 0);
		assert_int_equal(pthread_create(&b, NULL, consumer, &t), 0);
		pthread_join(a, NULL);
		pthread_join(b, NULL);
		assert_int_equal(t.wrong, 0);
		assert_true(t.pushed == t.popped && t.pushed > 1000);
		printf("capacity %u: %llu messages\n", capacity[k], (unsigned long long)t.pushed);
		pair_close_shared(&x);
	}
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(follows_the_model),
		cmocka_unit_test(epochs_and_ends),
		cmocka_unit_test(wrong_end_is_our_mistake),
		cmocka_unit_test(what_is_no_ring),
		cmocka_unit_test(damaged_words),
		cmocka_unit_test(impossible_counts),
		cmocka_unit_test(two_threads),
	};

	return (cmocka_run_group_tests(tests, NULL, NULL));
}
