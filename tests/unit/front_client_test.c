/*
 * libmemkv and the front of an RDMA device, both as they are, over the fake fabric: by DC and by RC, with each carrier of messages. A TCP front beside it lists the rail and passes the
 * connections that ask for it; both fronts are turned by one thread.
 */
#include "config.h"

#include "tests/unit/front_both_client.h"

#include <pthread.h>

#define THREADS	4u
#define ROUNDS	40u

static uint32_t num_dcis;				/* 0: by RC */
static const char *control;				/* rdma_control */
static int drop;					/* rdma_tether: the connection is given up. Then values in parts go by the TCP front, which has drives of its own */

/* Its session has no connection any more. */
static void
is_alone(const struct both *b)
{
	for (unsigned i = 0; i < 20000 && both_count(b, MKV_M_front_sessions_loose) == 0; i++)
		(void)usleep(1000);
	assert_true(both_count(b, MKV_M_front_sessions_loose) != 0);
}

static void
is_by_rdma(struct mkv_client *c)
{
	struct mkv_server_info si = { .size = sizeof(si) };

	for (unsigned i = 0; i < 2000 && (mkv_server_info(c, 0, SEC, &si) != 0 || strcmp(si.transport, "rdma") != 0); i++)
		(void)usleep(10000);
	assert_string_equal(si.transport, "rdma");
}

static struct mkv_client *
handle(const struct both *b, const char *transport)
{
	struct mkv_client *c = both_client(b, transport, control, drop ? "drop" : NULL);

	if (drop)
		is_alone(b);
	return (c);
}

static void
values_go_both_ways(void **state)
{
	static const size_t sizes[] = { 1, 4096, 65537, VALUE, 3 * VALUE + 12345 };
	struct both *b = both_open(num_dcis);
	struct mkv_client *c;

	(void)state;
	c = handle(b, drop ? "auto" : "rdma");
	for (size_t i = 0; i < MKV_ARRAY_LEN(sizes); i++)
		both_round_trip(c, "key", sizes[i], (uint32_t)i + 1);
	assert_int_equal(both_count(b, MKV_M_front_channels), 1);
	assert_int_equal(both_count(b, MKV_M_front_channels_dc), num_dcis != 0);
	assert_int_equal(both_count(b, MKV_M_front_channels_broken_total), 0);
	assert_int_equal(both_count(b, MKV_M_front_messages_stale_total), 0);
	assert_true((both_count(b, MKV_M_front_datagrams_received_total) != 0) == (strcmp(control, "udp") == 0));
	mkv_client_close(c);
	both_close(b);
}

/* Put again, and once more with OVERWRITE. */
static void
what_is_there_is_not_read(void **state)
{
	struct mkv_put_opts always = { .size = sizeof(always), .flags = MKV_PUT_OVERWRITE };
	struct mkv_object obj = { .size = sizeof(obj) };
	struct both *b = both_open(num_dcis);
	uint8_t *value = malloc(VALUE);
	struct mkv_client *c;

	(void)state;
	c = handle(b, drop ? "auto" : "rdma");
	both_fill(value, VALUE, 1);
	for (unsigned i = 0; i < 4; i++) {
		assert_int_equal(mkv_put(c, K("key"), value, VALUE, NULL, 20 * SEC, &obj), 0);
		assert_int_equal(obj.same, i > 0);
	}
	assert_int_equal(both_count(b, MKV_M_front_put_unread_total), 3);
	assert_int_equal(both_count(b, MKV_M_front_received_bytes_total), VALUE);
	assert_int_equal(mkv_put(c, K("key"), value, VALUE, &always, 20 * SEC, &obj), 0);
	assert_int_equal(obj.same, 0);
	assert_int_equal(both_count(b, MKV_M_front_received_bytes_total), 2 * VALUE);
	mkv_client_close(c);
	both_close(b);
	free(value);
}

struct worker {
	pthread_t	thread;
	struct mkv_client *c;
	unsigned	no, failed, wrong;
};

/* Errors may come where initiators are broken; bytes that are not those of the value never. */
static void *
work(void *arg)
{
	struct worker *w = arg;
	uint8_t *value = malloc(VALUE), *copy = malloc(VALUE);
	struct mkv_object obj = { .size = sizeof(obj) };
	char key[16];

	snprintf(key, sizeof(key), "w%u", w->no);
	both_fill(value, VALUE, w->no);
	for (unsigned i = 0; i < ROUNDS; i++) {
		size_t n = 1 + ((drop ? 0 : i) * 7919u + w->no * 104729u) % VALUE;	/* the same in both stores, where it may go to either */
		int64_t got;

		if (mkv_put(w->c, K(key), value, n, NULL, 20 * SEC, NULL) != 0) {
			w->failed++;
			continue;
		}
		memset(copy, 0x5a, n);
		got = mkv_get(w->c, K(key), copy, VALUE, 20 * SEC, &obj);
		w->failed += got < 0;
		w->wrong += got >= 0 && ((size_t)got != n || memcmp(copy, value, n) != 0);
	}
	free(value);
	free(copy);
	return (NULL);
}

static void
workers(struct mkv_client *c, void (*meanwhile)(void), unsigned *failed)
{
	struct worker w[THREADS];

	*failed = 0;
	for (unsigned i = 0; i < THREADS; i++) {
		w[i] = (struct worker){ .c = c, .no = i };
		assert_int_equal(pthread_create(&w[i].thread, NULL, work, &w[i]), 0);
	}
	if (meanwhile != NULL)
		meanwhile();
	for (unsigned i = 0; i < THREADS; i++) {
		pthread_join(w[i].thread, NULL);
		assert_int_equal(w[i].wrong, 0);
		*failed += w[i].failed;
	}
}

/* More at once than initiators. */
static void
many_at_once(void **state)
{
	struct both *b = both_open(num_dcis);
	struct mkv_client *c;
	unsigned failed;

	(void)state;
	c = handle(b, drop ? "auto" : "rdma");
	workers(c, NULL, &failed);
	assert_int_equal(failed, 0);
	assert_int_equal(both_count(b, MKV_M_front_dci_resets_total), 0);
	mkv_client_close(c);
	both_close(b);
}

static void
break_some(void)
{
	struct fv_wr w[FV_LOG];

	for (unsigned i = 0; i < 60; i++) {
		unsigned n = fv_log(w, FV_LOG);

		(void)usleep(2000);
		if (n > 0)
			fv_qp_break(w[n - 1].qpn);
	}
}

/*
 * A rail that is worth nothing any more counts as one until the client has noticed: what is put then goes by TCP to the other store, and what is got a moment later by
 * RDMA is not there. When a value is found where it was put, that is over.
 */
static void
is_back(struct mkv_client *c)
{
	char x;

	for (unsigned i = 0; i < 100; i++) {
		is_by_rdma(c);
		assert_int_equal(mkv_put(c, K("found"), "x", 1, NULL, 20 * SEC, NULL), 0);
		if (mkv_get(c, K("found"), &x, 1, 20 * SEC, NULL) == 1)
			return;
	}
	fail_msg("what is put is not found");
}

/* Queue pairs and initiators of both ends break in the middle: values are right or are not delivered, and after it all goes on. */
static void
ends_that_break(void **state)
{
	struct both *b = both_open(num_dcis);
	struct mkv_client *c;
	unsigned failed;

	(void)state;
	c = handle(b, drop ? "auto" : "rdma");			/* the TCP front has drives of its own */
	workers(c, break_some, &failed);
	for (unsigned i = 0; i < 1000 && mkv_put(c, K("is it back"), "x", 1, NULL, SEC, NULL) != 0; i++)
		(void)usleep(10000);
	if (drop)
		is_back(c);
	for (unsigned i = 0; i < 5; i++)
		both_round_trip(c, "after", 100000 + i, i);
	mkv_client_close(c);
	both_close(b);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(values_go_both_ways), cmocka_unit_test(what_is_there_is_not_read),
		cmocka_unit_test(many_at_once),
		cmocka_unit_test(ends_that_break),
	};
	static const char *const controls[] = { "rdma", "udp", "tcp" };
	int failed = 0;

	for (unsigned i = 0; i < 7; i++) {
		char name[64];

		drop = i == 6;
		num_dcis = drop || i % 2 != 0 ? 3 : 0;
		control = controls[drop ? 1 : i / 2];
		snprintf(name, sizeof(name), "by %s, control by %s%s", num_dcis != 0 ? "DC" : "RC", control, drop ? ", no tether" : "");
		failed += cmocka_run_group_tests_name(name, tests, NULL, NULL);
	}
	return (failed);
}
