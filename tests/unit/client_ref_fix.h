/*
 * Tests of libmemkv on the unix socket of the fake server, where values go by reference: one handle, one server, its socket, regions.
 */
#ifndef MKV_TESTS_CLIENT_REF_FIX_H
#define MKV_TESTS_CLIENT_REF_FIX_H

#include "tests/unit/client_unix_fix.h"

#include <pthread.h>

#include "clients/lib/client_priv.h"

#define MS	1000u
#define MIB	(1u << 20)

/* While it is to be held, a loop that has done its turn stays there, right before it sleeps. */
static _Atomic unsigned to_hold, held;
static int (*_Atomic hold_if)(void);		/* on the loop's thread; NULL: whatever it has done */

uint64_t	__real_mkv_timers_next_ns(const struct mkv_timers *ts);
uint64_t	__wrap_mkv_timers_next_ns(const struct mkv_timers *ts);

uint64_t
__wrap_mkv_timers_next_ns(const struct mkv_timers *ts)
{
	int (*wanted)(void) = hold_if;

	if (to_hold && (wanted == NULL || wanted())) {
		held = 1;
		while (to_hold)
			(void)usleep(100);
	}
	return (__real_mkv_timers_next_ns(ts));
}

static inline int
setup(void **state)
{
	(void)state;
	assert_int_equal(setenv("MEMKV_LOCAL_WINDOW", "8MiB", 1), 0);
	open_fake();
	fake.regions = 1;
	return (0);
}

static inline void
open_with(struct mkv_client_opts *o)
{
	char name[128], why[256];

	(void)snprintf(name, sizeof(name), "s0=local://%s", path);
	o->size = sizeof(*o);
	o->servers = name;
	assert_int_equal(mkv_client_open(&cl, o, why, sizeof(why)), 0);
}

/* One connection: what one request does to it the next one finds. */
static inline void
open_one(void)
{
	struct mkv_client_opts o = { .connections = 1 };

	open_with(&o);
}

static inline void
put_and_get(const char *key, size_t bytes, uint64_t seed)
{
	uint8_t *v = fix_bytes(bytes, seed), *g = calloc(1, bytes + 1);

	assert_int_equal(mkv_put(cl, K(key), v, bytes, NULL, 20 * SEC, NULL), 0);
	assert_int_equal(mkv_get(cl, K(key), g, bytes, 20 * SEC, NULL), (int64_t)bytes);
	assert_memory_equal(v, g, bytes);
	free(v);
	free(g);
}

/* Requests until one goes through the window. */
static inline void
until_window(void)
{
	unsigned before = fake.remote_gets;

	for (unsigned i = 0; i < 1000 && fake.remote_gets == before; i++)
		put_and_get("until", 65536, i);
	assert_true(fake.remote_gets > before);
}

static inline void
submit(enum mkv_op what, const char *key, const struct iovec *iov, unsigned n)
{
	struct mkv_key k = { .data = key, .bytes = strlen(key) };
	struct mkv_request q = { .size = sizeof(q), .op = what, .keys = &k, .n_keys = 1, .iov = iov, .n_iov = n, .len = MEMKV_SIZE_ANY, .deadline_us = 60 * SEC };

	assert_int_equal(mkv_submit(cl, &q, NULL), 0);
}

/* The next one that completes. */
static inline int64_t
completed(void)
{
	struct mkv_completion done = { .size = sizeof(done) };

	while (mkv_drain(cl, &done, 1) == 0)
		assert_int_equal(mkv_wait(cl, 60 * SEC), 1);
	return (done.result);
}

static inline struct mkv_region *
region_of(size_t bytes, uint8_t **base, uint64_t seed)
{
	struct mkv_region *r;

	assert_int_equal(mkv_region_alloc(cl, bytes, &r), 0);
	*base = mkv_region_base(r, NULL);
	fix_fill(*base, bytes, seed);
	return (r);
}

static inline void
until_region(uint8_t *base)
{
	unsigned before = fake.remote_puts[1];

	for (unsigned i = 0; i < 1000 && fake.remote_puts[1] == before; i++)
		assert_int_equal(mkv_put(cl, K("until"), base, 65536, NULL, 20 * SEC, NULL), 0);
	assert_true(fake.remote_puts[1] > before);
}

static inline void
check_stored(const char *key, const uint8_t *v, size_t bytes)
{
	uint8_t *g = malloc(bytes + 1);
	int there;

	assert_int_equal(fake_load(&fake, "", K(key), g, bytes, &there), bytes);
	assert_true(there);
	assert_memory_equal(v, g, bytes);
	free(g);
}

/* Mappings of this process whose file has that name. */
static inline unsigned
mapped(const char *name)
{
	FILE *f = fopen("/proc/self/maps", "r");
	char line[512];
	unsigned n = 0;

	assert_non_null(f);
	while (fgets(line, sizeof(line), f) != NULL)
		n += strstr(line, name) != NULL;
	assert_int_equal(fclose(f), 0);
	return (n);
}

static _Atomic unsigned threads_left;

/* n threads with their numbers, each of which takes one from threads_left when it is through; until then stir(0), stir(1), ... */
static inline void
with_threads(void *(*thread)(void *), unsigned n, void (*stir)(unsigned i))
{
	pthread_t t[8];

	assert_true(n <= MKV_ARRAY_LEN(t));
	threads_left = n;
	for (unsigned i = 0; i < n; i++)
		assert_int_equal(pthread_create(&t[i], NULL, thread, (void *)(uintptr_t)i), 0);
	for (unsigned i = 0; threads_left > 0; i++)
		stir(i);
	for (unsigned i = 0; i < n; i++)
		assert_int_equal(pthread_join(t[i], NULL), 0);
}

#endif
