/*
 * What the tests of libmemkv by RDMA share: a fake server (tests/lib/fakerail.c) over a fabric in the process (tests/lib/fakeverbs.c), by RC or by DC; a handle whose
 * rail is up; a get that is on its way.
 */
#ifndef MKV_TESTS_CLIENT_RAIL_FIX_H
#define MKV_TESTS_CLIENT_RAIL_FIX_H

#include "tests/unit/client_counter.h"
#include "tests/unit/client_fix.h"

#include <pthread.h>

#include "clients/lib/rail.h"
#include "tests/lib/fakeverbs.h"

#define PART		(256u * 1024)
#define LATE_US		(2 * SEC)		/* a busy machine */

static struct fake f;
static int by_dc;				/* both ends have it */
static const char *by_control;			/* rdma_control; NULL: the queue pair */

static inline struct mkv_client *
client(const char *transport)
{
	struct mkv_client_opts o = { .size = sizeof(o), .transport = transport, .rdma_devices = "fake0", .connections = 1,
		.rdma_control = by_control };

	return (fix_client_opts(&o, &f, 1));
}

static inline const char *
transport_of(struct mkv_client *c)
{
	static struct mkv_server_info si;

	si.size = sizeof(si);
	assert_int_equal(mkv_server_info(c, 0, 5 * SEC, &si), 0);
	return (si.transport);
}

static inline void
until(struct mkv_client *c, const char *transport)
{
	for (unsigned i = 0; i < 1000 && strcmp(transport_of(c), transport) != 0; i++)
		(void)usleep(10000);
	assert_string_equal(transport_of(c), transport);
}

static inline void
until_rdma(struct mkv_client *c)
{
	until(c, "rdma");
}

static inline int
setup_fabric(int absent)
{
	struct fake_opts o = { .part_bytes = PART };

	fv_start(2);
	fv_dc(by_dc ? FV_DC_YES : FV_DC_OTHER_MAKE);
	fv_device(0)->is_absent = absent;
	mkv_client_verbs = fv_verbs();
	fakerail_use();
	assert_int_equal(fake_open(&f, &o), 0);
	f.rails = 1;
	f.rail_dc = by_dc;
	return (0);
}

static inline int
setup(void **state)
{
	(void)state;
	return (setup_fabric(0));
}

static inline int
teardown(void **state)
{
	(void)state;
	fake_close(&f);
	assert_int_equal(fv_alive(), 0);
	return (0);
}

static inline unsigned long
rails_by(struct mkv_client *c, unsigned rail, const char *transport)
{
	char name[96];

	(void)snprintf(name, sizeof(name), "rail_sessions{server=\"s0\",rail=\"%u\",transport=\"%s\"}", rail, transport);
	return (counter(c, name));
}

/* A handle whose rail is up. */
static inline struct mkv_client *
live(const char *transport)
{
	struct mkv_server_info si = { .size = sizeof(si) };
	struct mkv_client *c = client(transport);
	int r = mkv_warm(c, 10 * SEC);

	assert_int_equal(mkv_server_info(c, 0, 5 * SEC, &si), 0);
	if (r != 0 || strcmp(si.transport, "rdma") != 0)
		fail_msg("%d, %s: %s", r, si.transport, si.transport_why);
	assert_int_equal(rails_by(c, 1, by_dc ? "dc" : "rc"), 1);
	assert_int_equal(rails_by(c, 1, by_dc ? "rc" : "dc"), 0);
	assert_string_equal(si.rails, by_dc ? "1 dc" : "1 rc");
	return (c);
}

static inline void
round_trip(struct mkv_client *c, const char *key, uint8_t *value, uint8_t *copy, size_t n)
{
	struct mkv_object obj = { .size = sizeof(obj) };

	memset(copy, 0x5a, n);
	assert_int_equal(mkv_put(c, K(key), value, n, NULL, 20 * SEC, NULL), 0);
	assert_int_equal(mkv_get(c, K(key), copy, n, 20 * SEC, &obj), n);
	assert_int_equal(obj.value_bytes, n);
	assert_memory_equal(value, copy, n);
}

struct getter {
	struct mkv_client *c;
	pthread_t	thread;
	uint8_t		*to;
	size_t		bytes;
	uint64_t	deadline_us, took_us;
	int64_t		result;
	_Atomic int	over;
};

static inline void *
getter_main(void *arg)
{
	struct getter *g = arg;
	uint64_t began = mkv_now_ns();

	g->result = mkv_get(g->c, K("value"), g->to, g->bytes, g->deadline_us, NULL);
	g->took_us = (mkv_now_ns() - began) / 1000;
	g->over = 1;
	return (NULL);
}

/* A get that is on its way: the server has it. */
static inline void
getter_start(struct getter *g, struct mkv_client *c, size_t bytes, uint64_t deadline_us)
{
	unsigned seen = f.rail_requests[MKV_WIRE_GET];

	memset(g, 0, sizeof(*g));
	g->c = c;
	g->bytes = bytes;
	g->deadline_us = deadline_us;
	g->to = malloc(bytes);
	memset(g->to, 0x77, bytes);
	assert_int_equal(pthread_create(&g->thread, NULL, getter_main, g), 0);
	assert_true(fix_until(&f.rail_requests[MKV_WIRE_GET], seen + 1));
}

static inline int64_t
getter_end(struct getter *g)
{
	assert_int_equal(pthread_join(g->thread, NULL), 0);
	return (g->result);
}

static inline int
all_are(const uint8_t *p, size_t n, uint8_t what)
{
	for (size_t i = 0; i < n; i++)
		if (p[i] != what)
			return (0);
	return (1);
}

/* A get whose bytes are at the server's NIC and stay there: fv_part(), fv_hold(0). */
static inline void
getter_held(struct getter *g, struct mkv_client *c, size_t bytes, uint64_t deadline_us)
{
	f.rail_hold = 1;
	getter_start(g, c, bytes, deadline_us);
	while (fv_held() == 0)
		(void)usleep(1000);
	f.rail_hold = 0;
}

/* What is still on its way to the memory of a get that is over does not come there. */
static inline void
nothing_lands(struct getter *g)
{
	memset(g->to, 0x66, g->bytes);
	fv_hold(0);
	(void)usleep(50000);
	assert_true(all_are(g->to, g->bytes, 0x66));
}

/* The WRITE is in its middle when the deadline passes: the fence, and nothing more of it lands when the call has returned. */
static inline void
fence_in_the_middle(struct mkv_client *c, struct getter *g, const uint8_t *value)
{
	getter_held(g, c, PART, SEC / 2);
	assert_int_equal(fv_part(10000), 1);
	assert_int_equal(getter_end(g), MKV_ERR_TIMEOUT);
	assert_memory_equal(g->to, value, 10000);
	assert_true(all_are(g->to + 10000, PART - 10000, 0x77));
	assert_int_equal(counter(c, "fences_total"), 1);
	nothing_lands(g);
}

/* The queue pair that was posted to last breaks under a get, or the tether ends: it is asked again, and nobody hears of it. */
static inline void
lose_under(struct getter *g, int tether, const uint8_t *value)
{
	struct fv_wr w[FV_LOG];

	if (tether)
		fake_drop_all(&f);
	else
		fv_qp_break(w[fv_log(w, FV_LOG) - 1].qpn);
	fv_hold(0);
	assert_int_equal(getter_end(g), PART);
	assert_memory_equal(g->to, value, PART);
}

/* A get that nobody waits for; to stays until its completion is drained, or the handle closed. */
static inline uint64_t
submit_get(struct mkv_client *c, uint8_t *to, size_t n)
{
	struct mkv_key key = { "value", 5 };
	struct iovec iov = { to, n };
	struct mkv_request q = { .size = sizeof(q), .op = MKV_OP_GET, .keys = &key, .n_keys = 1, .iov = &iov, .n_iov = 1, .len = MEMKV_SIZE_ANY,
		.deadline_us = 100 * SEC };
	uint64_t id;

	assert_int_equal(mkv_submit(c, &q, &id), 0);
	return (id);
}

static inline int64_t
next_result(struct mkv_client *c)
{
	struct mkv_completion done = { .size = sizeof(done) };

	assert_int_equal(mkv_wait(c, 50 * SEC), 1);
	assert_int_equal(mkv_drain(c, &done, 1), 1);
	return (done.result);
}

/* All end; teardown() looks that nothing of the fabric is left. */
static inline void
close_with_requests_out(struct mkv_client *c)
{
	uint8_t *to = malloc(PART);

	f.rail_mute = 1;
	for (unsigned i = 0; i < 20; i++)
		(void)submit_get(c, to, PART);
	assert_true(fix_until(&f.rail_requests[MKV_WIRE_GET], 10));
	mkv_client_close(c);
	free(to);
}

#endif
