/*
 * libmemkv and a server on its own host: which connections go by the unix socket, when they begin to, what happens while it does not answer, and what a server
 * may say of it.
 */
#include "config.h"

#include "tests/unit/client_unix_fix.h"
#include "tests/unit/client_warn.h"

#include <pthread.h>
#include <sys/stat.h>

#define MS	1000u

static int
setup(void **state)
{
	(void)state;
	n_warned = 0;
	open_fake();
	fake.local = 1;
	return (0);
}

static void
open_client(const char *transport)
{
	struct mkv_client_opts o = { .size = sizeof(o), .transport = transport, .warn = on_warn };

	cl = fix_client_opts(&o, &fake, 1);
}

/* By the name of the socket. Returns what mkv_client_open() says. */
static int
open_named(const char *transport, const char *name)
{
	struct mkv_client_opts o = { .size = sizeof(o), .transport = transport, .servers = name, .warn = on_warn };
	char why[256] = "";
	int r = mkv_client_open(&cl, &o, why, sizeof(why));

	if (r == MKV_ERR_CONFIG)
		assert_true(why[0] != '\0');
	return (r);
}

static unsigned long
sessions(const char *transport)
{
	char name[64];

	(void)snprintf(name, sizeof(name), "sessions{server=\"s0\",transport=\"%s\"}", transport);
	return (counter(cl, name));
}

/* Requests until as many sessions of that kind are up, and none of the other. For a minute at most. */
static void
until_sessions(const char *transport, const char *other)
{
	for (int i = 0; i < 6000 && (sessions(transport) == 0 || sessions(other) != 0); i++) {
		assert_true(mkv_exists(cl, K("k"), 10 * SEC) >= 0);
		(void)usleep(10 * MS);
	}
	assert_true(sessions(transport) > 0);
	assert_int_equal(sessions(other), 0);
}

static void
put_and_get(unsigned n)
{
	static const size_t sizes[] = { 0, 1, 8192, 8193, 65536, 300001, 5u << 20 };
	char key[16];

	for (unsigned i = 0; i < n; i++) {
		size_t bytes = sizes[i % MKV_ARRAY_LEN(sizes)];
		uint8_t *v = fix_bytes(bytes, i), *g = calloc(1, bytes + 1);

		(void)snprintf(key, sizeof(key), "key%u", i);
		assert_int_equal(mkv_put(cl, K(key), v, bytes, NULL, 10 * SEC, NULL), 0);
		assert_int_equal(mkv_get(cl, K(key), g, bytes, 10 * SEC, NULL), (int64_t)bytes);
		assert_memory_equal(v, g, bytes);
		free(v);
		free(g);
	}
}

static void
test_auto_goes_over(void **state)
{
	unsigned before;

	(void)state;
	open_client("auto");
	put_and_get(2);
	until_sessions("local", "tcp");
	before = fake.local_requests;
	put_and_get(14);
	assert_true(fake.local_requests >= before + 28);
	assert_int_equal(counter(cl, "local_upgrades_total"), 1);
	assert_int_equal(counter(cl, "local_downgrades_total"), 0);
	assert_int_equal(n_warned, 0);
}

static void
test_tcp_never_goes(void **state)
{
	(void)state;
	open_client("tcp");
	put_and_get(3);
	for (int i = 0; i < 20; i++) {
		assert_true(mkv_exists(cl, K("k"), SEC) >= 0);
		(void)usleep(5 * MS);
	}
	assert_int_equal(fake.local_connections, 0);
}

/* Nothing goes by TCP but the question where the socket is. */
static void
test_local_goes_nowhere_else(void **state)
{
	(void)state;
	open_client("local");
	put_and_get(7);
	assert_int_equal(fake.local_requests, fake.requests[MKV_WIRE_PUT] + fake.requests[MKV_WIRE_GET]);
	until_sessions("local", "tcp");
}

static void
test_named(void **state)
{
	char name[128];

	(void)state;
	(void)snprintf(name, sizeof(name), "s0=local://%s", path);
	assert_int_equal(open_named("auto", name), 0);
	put_and_get(7);
	assert_int_equal(fake.connections, fake.local_connections);
	assert_int_equal(sessions("tcp"), 0);
	mkv_client_close(cl);
	cl = NULL;
	(void)snprintf(name, sizeof(name), "local://%s", path);
	assert_int_equal(open_named("local", name), 0);
	put_and_get(2);
	mkv_client_close(cl);
	cl = NULL;
	assert_int_equal(open_named("tcp", name), MKV_ERR_CONFIG);
	assert_int_not_equal(open_named("rdma", name), 0);
	assert_int_equal(open_named("local", "local://relative"), MKV_ERR_CONFIG);
	assert_int_equal(open_named("local", "local://"), MKV_ERR_CONFIG);
	assert_int_equal(open_named("local", "local:///a-path-that-is-longer-than-what-fits-the-address-of-a-unix-socket-which-has-room-for-one-hundred-and-seven-characters"), MKV_ERR_CONFIG);
}

static void
test_named_is_not_there(void **state)
{
	char name[128], buf[8];
	uint64_t t = mkv_now_ns();

	(void)state;
	(void)snprintf(name, sizeof(name), "s0=local://%s.none", path);
	assert_int_equal(open_named("local", name), 0);
	assert_int_equal(mkv_put(cl, K("k"), "v", 1, NULL, 20 * SEC, NULL), MKV_ERR_UNREACHABLE);
	assert_int_equal(mkv_get(cl, K("k"), buf, sizeof(buf), 20 * SEC, NULL), MKV_ERR_MISS);
	assert_true(mkv_now_ns() - t < 10 * MKV_NS_PER_SEC);
	assert_true(counter(cl, "breaker_opened_total") > 0);
}

/* It goes away under load and comes back: no request is lost, and whoever runs the program hears of it once each. */
static void
test_away_and_back(void **state)
{
	(void)state;
	open_client("auto");
	until_sessions("local", "tcp");
	fake_local_away(&fake);
	put_and_get(14);
	until_sessions("tcp", "local");
	assert_true(counter(cl, "local_downgrades_total") >= 1);
	assert_int_equal(fake_local_back(&fake), 0);
	until_sessions("local", "tcp");
	put_and_get(7);
	assert_int_equal(n_warned, 2);
	assert_non_null(strstr(warned[0], "server s0: its socket on this host does not answer"));
	assert_non_null(strstr(warned[1], "again"));
}

/* Nothing else serves meanwhile; the socket is asked for anew, since it may be elsewhere. */
static void
test_away_and_back_alone(void **state)
{
	char buf[8];
	int r = 0;

	(void)state;
	open_client("local");
	put_and_get(2);
	until_sessions("local", "tcp");
	for (int round = 0; round < 3; round++) {
		fake_local_away(&fake);
		for (int i = 0; i < 20; i++) {
			r = mkv_put(cl, K("k"), "v", 1, NULL, 100 * MS, NULL);
			assert_true(r == MKV_ERR_UNREACHABLE || r == MKV_ERR_TIMEOUT);
			assert_true(mkv_get(cl, K("k"), buf, sizeof(buf), 20 * MS, NULL) < 0);
		}
		assert_int_equal(fake_local_back(&fake), 0);
		for (int i = 0; i < 600 && ((r = mkv_put(cl, K("k"), "v", 1, NULL, SEC, NULL)) != 0 || counter(cl, "breaker_state{server=\"s0\"}") != 0); i++)
			(void)usleep(100 * MS);
		assert_int_equal(r, 0);
	}
	put_and_get(7);
	assert_int_equal(fake.local_requests, fake.requests[MKV_WIRE_PUT] + fake.requests[MKV_WIRE_GET] + fake.requests[MKV_WIRE_EXISTS]);
	assert_int_equal(n_warned, 0);
}

/* TCP goes on to say that it is there: calls end as those of a server that is down. */
static void
test_gone_alone(void **state)
{
	char buf[8];
	uint64_t t;
	int r = -1;

	(void)state;
	open_client("local");
	put_and_get(2);
	until_sessions("local", "tcp");
	fake_local_away(&fake);
	t = mkv_now_ns();
	assert_int_equal(mkv_put(cl, K("k"), "v", 1, NULL, 20 * SEC, NULL), MKV_ERR_UNREACHABLE);
	assert_int_equal(mkv_get(cl, K("k"), buf, sizeof(buf), 20 * SEC, NULL), MKV_ERR_MISS);
	assert_true(mkv_now_ns() - t < 10 * MKV_NS_PER_SEC);
	assert_true(counter(cl, "breaker_opened_total") > 0);
	assert_int_equal(fake_local_back(&fake), 0);
	for (int i = 0; i < 600 && (r = mkv_put(cl, K("k"), "v", 1, NULL, SEC, NULL)) != 0; i++)
		(void)usleep(100 * MS);
	assert_int_equal(r, 0);
}

/* A put in parts ends by the way by which it began, and that one lasts as long; with the way it is lost, and the value before it stands. */
static void
test_parts_while_it_changes(void **state)
{
	size_t bytes = 5u << 20;
	uint8_t *v = fix_bytes(2 * bytes, 7), *g = calloc(1, 2 * bytes);
	struct mkv_put_stream *s;

	(void)state;
	fake_local_away(&fake);
	open_client("auto");
	assert_int_equal(mkv_put_begin(cl, K("k"), NULL, 20 * SEC, &s), 0);
	assert_int_equal(mkv_put_part(s, v, bytes, 20 * SEC), 0);
	assert_int_equal(fake_local_back(&fake), 0);
	for (int i = 0; i < 6000 && sessions("local") == 0; i++)
		(void)usleep(10 * MS);
	put_and_get(2);
	assert_int_equal(sessions("tcp"), 1);
	assert_int_equal(mkv_put_part(s, v + bytes, bytes, 20 * SEC), 0);
	assert_int_equal(mkv_put_commit(s, 20 * SEC, NULL), 0);
	until_sessions("local", "tcp");
	assert_int_equal(mkv_put_begin(cl, K("k"), NULL, 20 * SEC, &s), 0);
	assert_int_equal(mkv_put_part(s, v, bytes, 20 * SEC), 0);
	fake_local_away(&fake);
	assert_int_equal(mkv_get(cl, K("k"), g, 2 * bytes, 20 * SEC, NULL), (int64_t)(2 * bytes));
	assert_memory_equal(v, g, 2 * bytes);
	assert_true(mkv_put_commit(s, 20 * SEC, NULL) < 0);
	free(v);
	free(g);
}

static void *
put_for_long(void *arg)
{
	for (int i = 0; i < 50; i++)
		assert_int_equal(mkv_put(cl, K("k"), "v", 1, NULL, 20 * SEC, NULL), 0);
	return (arg);
}

/* It serves, and takes no more sessions: nothing goes another way, and nobody is warned. */
static void
test_full(void **state)
{
	unsigned tcp;
	pthread_t t[4];

	(void)state;
	open_client("auto");
	until_sessions("local", "tcp");
	tcp = fake.connections - fake.local_connections;
	fake.local_full = 1;
	fake.delay_us = 5 * MS;
	for (unsigned i = 0; i < MKV_ARRAY_LEN(t); i++)
		assert_int_equal(pthread_create(&t[i], NULL, put_for_long, NULL), 0);
	for (unsigned i = 0; i < MKV_ARRAY_LEN(t); i++)
		assert_int_equal(pthread_join(t[i], NULL), 0);
	assert_true(fake.local_refused > 0);
	assert_int_equal(fake.connections - fake.local_connections, tcp);
	assert_int_equal(n_warned, 0);
	assert_int_equal(counter(cl, "local_downgrades_total"), 0);
}

/* One thread's values go there and another's, which comes too late, do not: the server's socket does answer. */
static void
test_full_for_another_thread(void **state)
{
	struct mkv_client_opts o = { .size = sizeof(o), .transport = "auto", .io_threads = 2, .connections = 1, .warn = on_warn };

	(void)state;
	cl = fix_client_opts(&o, &fake, 1);
	assert_true(mkv_exists(cl, K("k"), 10 * SEC) >= 0);
	for (int i = 0; i < 6000 && sessions("local") == 0; i++)
		(void)usleep(10 * MS);
	fake.local_full = 1;
	for (int i = 0; i < 6000 && fake.local_refused < 2; i++) {
		assert_true(mkv_exists(cl, K("k"), 10 * SEC) >= 0);
		(void)usleep(MS);
	}
	assert_true(fake.local_refused >= 2);
	assert_int_equal(sessions("local"), 1);
	assert_int_equal(sessions("tcp"), 1);
	assert_int_equal(n_warned, 0);
}

static void
until_all(unsigned threads, const char *transport)
{
	for (int i = 0; i < 6000 && (sessions(transport) < threads || counter(cl, "breaker_state{server=\"s0\"}") != 0); i++) {
		assert_true(mkv_exists(cl, K("k"), 10 * SEC) >= 0);
		(void)usleep(MS);
	}
	assert_true(sessions(transport) >= threads);
}

/* Each goes over and comes back for itself; it is counted and told once for all of them. */
static void
test_several_threads(void **state)
{
	struct mkv_client_opts o = { .size = sizeof(o), .transport = "auto", .io_threads = 3, .connections = 1, .warn = on_warn };
	unsigned rounds = 3;

	(void)state;
	cl = fix_client_opts(&o, &fake, 1);
	until_all(o.io_threads, "local");
	for (unsigned i = 0; i < rounds; i++) {
		fake_local_away(&fake);
		until_all(o.io_threads, "tcp");
		assert_int_equal(sessions("local"), 0);
		assert_int_equal(fake_local_back(&fake), 0);
		until_all(o.io_threads, "local");
	}
	assert_int_equal(counter(cl, "local_upgrades_total"), rounds + 1);
	assert_int_equal(counter(cl, "local_downgrades_total"), rounds);
	assert_int_equal(n_warned, 2 * rounds);
}

/* Accepts and says nothing: calls end by TCP, inside their deadline. */
static void
test_frozen(void **state)
{
	(void)state;
	open_client("auto");
	fake.local_frozen = 1;
	for (int i = 0; i < 6000 && fake.local_connections == 0; i++) {
		assert_true(mkv_exists(cl, K("k"), 10 * SEC) >= 0);
		(void)usleep(MS);
	}
	put_and_get(7);
	assert_true(sessions("tcp") > 0);
	assert_int_equal(sessions("local"), 0);
	fake.local_frozen = 0;
	until_sessions("local", "tcp");
	assert_int_equal(n_warned, 0);		/* it had never answered */
}

static void
test_another_host(void **state)
{
	(void)state;
	fake.local = 2;
	open_client("auto");
	put_and_get(3);
	assert_int_equal(fake.local_connections, 0);
	mkv_client_close(cl);
	open_client("local");
	assert_int_equal(mkv_put(cl, K("k"), "v", 1, NULL, 10 * SEC, NULL), MKV_ERR_UNSUPPORTED);
	mkv_client_close(cl);
	for (int lie = 3; lie <= 5; lie++) {
		fake.local = lie;
		open_client("local");
		assert_int_equal(mkv_put(cl, K("k"), "v", 1, NULL, 10 * SEC, NULL), MKV_ERR_UNSUPPORTED);
		mkv_client_close(cl);
	}
	fake.local = 0;
	open_client("local");
	assert_int_equal(mkv_put(cl, K("k"), "v", 1, NULL, 10 * SEC, NULL), MKV_ERR_UNSUPPORTED);
	assert_int_equal(fake.local_connections, 0);
	/* What it said then holds as long as that session does. */
	fake.local = 1;
	fake_drop_all(&fake);
	for (int i = 0; i < 6000 && mkv_exists(cl, K("k"), SEC) < 0; i++)
		(void)usleep(10 * MS);
	until_sessions("local", "tcp");
	assert_int_equal(fake_objects(&fake), 3);
}

/* Who answers there proves the same key, and is not the server that told of it. */
static void
test_stranger(void **state)
{
	(void)state;
	fake.local_stranger = 1;
	open_client("auto");
	put_and_get(7);
	for (int i = 0; i < 6000 && fake.local_connections == 0; i++) {
		assert_true(mkv_exists(cl, K("k"), 10 * SEC) >= 0);
		(void)usleep(MS);
	}
	put_and_get(7);
	assert_int_equal(sessions("local"), 0);
	assert_int_equal(fake.local_requests, 0);
	fake.local_stranger = 0;
	until_sessions("local", "tcp");
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_auto_goes_over, setup, teardown),
		cmocka_unit_test_setup_teardown(test_tcp_never_goes, setup, teardown),
		cmocka_unit_test_setup_teardown(test_local_goes_nowhere_else, setup, teardown),
		cmocka_unit_test_setup_teardown(test_named, setup, teardown),
		cmocka_unit_test_setup_teardown(test_named_is_not_there, setup, teardown),
		cmocka_unit_test_setup_teardown(test_away_and_back, setup, teardown),
		cmocka_unit_test_setup_teardown(test_away_and_back_alone, setup, teardown),
		cmocka_unit_test_setup_teardown(test_gone_alone, setup, teardown),
		cmocka_unit_test_setup_teardown(test_parts_while_it_changes, setup, teardown),
		cmocka_unit_test_setup_teardown(test_full, setup, teardown),
		cmocka_unit_test_setup_teardown(test_full_for_another_thread, setup, teardown),
		cmocka_unit_test_setup_teardown(test_several_threads, setup, teardown),
		cmocka_unit_test_setup_teardown(test_frozen, setup, teardown),
		cmocka_unit_test_setup_teardown(test_another_host, setup, teardown),
		cmocka_unit_test_setup_teardown(test_stranger, setup, teardown),
	};

	return (cmocka_run_group_tests_name("client_local", tests, NULL, NULL));
}
