/*
 * libmemkv and several servers, or one that is down: placement, merging of lists, breaker, identity, authentication, fork, deadlines measured, metrics.
 */
#include "config.h"

#include "tests/unit/client_fix.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <pthread.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>

#include "common/base/assert.h"
#include "common/base/hist.h"

#define MS	1000u
#define N	4

static struct fake fake[N];
static struct mkv_client *cl;

static int
setup_n(unsigned n)
{
	for (unsigned i = 0; i < n; i++)
		assert_int_equal(fake_open(&fake[i], NULL), 0);
	cl = fix_client(fake, n);
	return (0);
}

static int
setup_one(void **state)
{
	(void)state;
	return (setup_n(1));
}

static int
setup_all(void **state)
{
	(void)state;
	return (setup_n(N));
}

static int
teardown(void **state)
{
	(void)state;
	mkv_client_close(cl);
	for (unsigned i = 0; i < N; i++)
		if (fake[i].p != NULL)
			fake_close(&fake[i]);
	return (0);
}

static uint64_t
since_us(uint64_t began_ns)
{
	return ((mkv_now_ns() - began_ns) / 1000);
}

static const char *
metrics_text(void)
{
	static char text[1 << 17];

	assert_true(mkv_client_metrics(cl, text, sizeof(text)) < sizeof(text));
	return (text);
}

/* ---- down ---- */

static void
test_server_down(void **state)
{
	struct mkv_object obj = { .size = sizeof(obj) };
	uint8_t present = 9, reason = 9;
	struct mkv_key key = { "k", 1 };
	uint16_t port = (uint16_t)fake_port(&fake[0]);
	struct fake_opts o = { .port = port };
	char buf[8];
	uint64_t t;
	int r;

	(void)state;
	assert_int_equal(mkv_put(cl, K("k"), "1", 1, NULL, SEC, NULL), 0);
	fake_close(&fake[0]);
	t = mkv_now_ns();
	assert_int_equal(mkv_get(cl, K("k"), buf, 8, 10 * SEC, &obj), MKV_ERR_MISS);
	assert_int_equal(obj.reason, MKV_REASON_SERVER_DOWN);
	assert_true(since_us(t) < SEC);
	t = mkv_now_ns();
	for (int i = 0; i < 50; i++)
		assert_int_equal(mkv_get(cl, K("k"), buf, 8, 10 * SEC, &obj), MKV_ERR_MISS);
	assert_true(since_us(t) < 500 * MS);
	assert_int_equal(mkv_put(cl, K("k"), "1", 1, NULL, 10 * SEC, NULL), MKV_ERR_UNREACHABLE);
	assert_int_equal(mkv_exists_batch(cl, &key, 1, 0, 10 * SEC, &present, &reason), MKV_ERR_UNREACHABLE);
	assert_int_equal(reason, MKV_REASON_SERVER_DOWN);
	assert_int_equal(present, 0);
	assert_int_equal(mkv_warm(cl, 10 * SEC), MKV_ERR_UNREACHABLE);
	assert_non_null(strstr(metrics_text(), "memkv_client_breaker_opened_total "));
	/* It comes back: found within two seconds, and used fully within one more. */
	assert_int_equal(fake_open(&fake[0], &o), 0);
	t = mkv_now_ns();
	do {
		(void)usleep(5 * MS);
		r = mkv_put(cl, K("k"), "1", 1, NULL, 10 * SEC, NULL);
	} while (r != 0 && since_us(t) < 5 * SEC);
	assert_int_equal(r, 0);
	assert_true(since_us(t) < 2 * SEC);
	(void)usleep(700 * MS);
	for (int i = 0; i < 100; i++)
		assert_int_equal(mkv_get(cl, K("k"), buf, 8, 10 * SEC, NULL), 1);
	assert_non_null(strstr(metrics_text(), "memkv_client_breaker_state{server=\"s0\"} 0"));
}

/* Stopped, not dead: connections are accepted, nothing answers. After some deadlines calls end at once; when it goes on, it is used again. */
static void
test_server_stopped(void **state)
{
	char buf[8];
	uint64_t t;
	int r;

	(void)state;
	assert_int_equal(mkv_put(cl, K("k"), "1", 1, NULL, SEC, NULL), 0);
	fake[0].frozen = 1;
	/* Four silent deadlines; an answer that was on its way when it stopped may begin the count anew. */
	for (r = 0; r < 10 && strstr(metrics_text(), "memkv_client_breaker_state{server=\"s0\"} 0") != NULL; r++) {
		assert_int_equal(mkv_get(cl, K("k"), buf, 8, 20 * MS, NULL), MKV_ERR_TIMEOUT);
		(void)usleep(20 * MS);			/* the I/O thread sees the deadline, too */
	}
	assert_in_range(r, 4, 9);
	t = mkv_now_ns();
	assert_int_equal(mkv_get(cl, K("k"), buf, 8, 10 * SEC, NULL), MKV_ERR_MISS);
	assert_true(since_us(t) < 300 * MS);
	(void)usleep(400 * MS);
	fake[0].frozen = 0;
	t = mkv_now_ns();
	do {
		(void)usleep(5 * MS);
		r = (int)mkv_get(cl, K("k"), buf, 8, 10 * SEC, NULL);
	} while (r != 1 && since_us(t) < 5 * SEC);
	assert_int_equal(r, 1);
	assert_true(since_us(t) < 2 * SEC);
}

static void
test_auth(void **state)
{
	struct mkv_client_opts o = { .auth_key = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff" };
	struct fake_opts fo = { .auth_key = o.auth_key };
	struct mkv_client *c = fix_client_opts(&o, fake, 1);
	char buf[8];

	(void)state;
	assert_int_equal(mkv_get(c, K("k"), buf, 8, 5 * SEC, NULL), MKV_ERR_AUTH);
	assert_int_equal(mkv_put(c, K("k"), buf, 8, NULL, 5 * SEC, NULL), MKV_ERR_AUTH);
	assert_int_equal(mkv_warm(c, 5 * SEC), MKV_ERR_AUTH);
	mkv_client_close(c);
	fake_close(&fake[0]);
	assert_int_equal(fake_open(&fake[0], &fo), 0);
	c = fix_client_opts(&o, fake, 1);
	assert_int_equal(mkv_put(c, K("k"), buf, 8, NULL, 5 * SEC, NULL), 0);
	mkv_client_close(c);
	fake[0].refuse_key = 1;
	c = fix_client_opts(&o, fake, 1);
	assert_int_equal(mkv_put(c, K("k"), buf, 8, NULL, 5 * SEC, NULL), MKV_ERR_AUTH);
	mkv_client_close(c);
}

static void
test_names(void **state)
{
	char servers[64], why[256], buf[8];
	struct mkv_client_opts o = { .size = sizeof(o), .servers = servers };
	struct mkv_client *c;

	(void)state;
	(void)snprintf(servers, sizeof(servers), "localhost:%u", fake_port(&fake[0]));
	assert_int_equal(mkv_client_open(&c, &o, why, sizeof(why)), 0);
	assert_int_equal(mkv_put(c, K("k"), "1", 1, NULL, 5 * SEC, NULL), 0);
	mkv_client_close(c);
	(void)snprintf(servers, sizeof(servers), "no-such-host.invalid:%u", fake_port(&fake[0]));
	assert_int_equal(mkv_client_open(&c, &o, why, sizeof(why)), 0);
	assert_true(mkv_get(c, K("k"), buf, 8, 500 * MS, NULL) < 0);
	mkv_client_close(c);
}

/* ---- several ---- */

static void
test_spread(void **state)
{
	unsigned on[N] = { 0 };
	char key[32];

	(void)state;
	for (unsigned i = 0; i < 400; i++) {
		(void)snprintf(key, sizeof(key), "key-%u", i);
		assert_int_equal(mkv_put(cl, K(key), key, strlen(key), NULL, 5 * SEC, NULL), 0);
		on[mkv_server_of(cl, K(key))]++;
	}
	for (unsigned i = 0; i < N; i++) {
		assert_int_equal(fake_objects(&fake[i]), on[i]);
		assert_in_range(on[i], 60, 140);
	}
}

static void
lists_over(unsigned dead)
{
	enum { KEYS = 300 };
	char text[KEYS][16];
	struct mkv_key keys[KEYS];
	uint8_t present[KEYS], reason[KEYS];
	unsigned why = 99, first = KEYS, there = 0;
	int r;

	for (unsigned i = 0; i < KEYS; i++) {
		(void)snprintf(text[i], sizeof(text[i]), "m%u", i);
		keys[i] = (struct mkv_key){ text[i], strlen(text[i]) };
		if (i != 250 && mkv_server_of(cl, keys[i].data, keys[i].bytes) != dead)
			assert_int_equal(mkv_put(cl, keys[i].data, keys[i].bytes, "1", 1, NULL, 5 * SEC, NULL), 0);
	}
	r = mkv_exists_batch(cl, keys, KEYS, 0, 300 * MS, present, reason);
	for (unsigned i = 0; i < KEYS; i++) {
		int lost = mkv_server_of(cl, keys[i].data, keys[i].bytes) == dead, want = i != 250 && !lost;

		assert_int_equal(present[i], want);
		if (want)
			assert_int_equal(reason[i], 0);
		else if (!lost)
			assert_int_equal(reason[i], MKV_REASON_NEVER);
		else
			assert_true(reason[i] == MKV_REASON_TIMED_OUT || reason[i] == MKV_REASON_SERVER_DOWN);
		there += (unsigned)want;
		if (!want && first == KEYS)
			first = i;
	}
	assert_int_equal(r, there);
	assert_int_equal(mkv_match(cl, keys, KEYS, 0, 0, 300 * MS, &why), first);
	assert_true(dead < N || why == MKV_REASON_NEVER);
	if (first > 0)
		assert_int_equal(mkv_match(cl, keys, first, 0, 0, 300 * MS, &why), first);
}

static void
test_lists_over_servers(void **state)
{
	(void)state;
	lists_over(N);
}

static void
test_lists_one_mute(void **state)
{
	(void)state;
	fake[2].mute = 1;
	lists_over(2);
}

static void
test_lists_one_down(void **state)
{
	(void)state;
	fake_close(&fake[1]);
	lists_over(1);
}

/* ---- a server that is full ---- */

struct full {
	unsigned	puts, bad;
};

static void *
full_main(void *arg)
{
	uint64_t began = mkv_now_ns();
	struct full *u = arg;

	while (since_us(began) < 1500 * MS) {
		u->puts++;
		u->bad += mkv_put(cl, K("k"), "1", 1, NULL, 10 * SEC, NULL) != 0;
	}
	return (NULL);
}

static long
metric(const char *name)
{
	char line[128];
	const char *at;

	(void)snprintf(line, sizeof(line), "\nmemkv_client_%s ", name);
	at = strstr(metrics_text(), line);
	assert_non_null(at);
	return (atol(at + strlen(line)));
}

/* Deadlines shorter than a hiccup of the server: many may pass, and it stays in use; when it stays silent the breaker opens all the same. */
static void
test_server_hiccups(void **state)
{
	char buf[8];
	unsigned calm = 0;
	uint64_t t;

	(void)state;
	assert_int_equal(mkv_put(cl, K("k"), "1", 1, NULL, SEC, NULL), 0);
	/* What counts is a round that was as short as it was meant to be; a busy machine needs some. */
	for (unsigned round = 0; round < 100 && calm < 3; round++) {
		long opened = metric("breaker_opened_total");

		while (mkv_get(cl, K("k"), buf, 8, SEC, NULL) != 1)
			(void)usleep(50 * MS);
		fake[0].frozen = 1;
		t = mkv_now_ns();
		for (unsigned i = 0; i < 8; i++)
			(void)mkv_get(cl, K("k"), buf, 8, MS / 2, NULL);
		(void)usleep(5 * MS);			/* the I/O thread sees the deadlines, too */
		opened -= metric("breaker_opened_total");
		if (since_us(t) < 40 * MS) {
			assert_int_equal(opened, 0);
			calm++;
		}
		fake[0].frozen = 0;
	}
	assert_int_equal(calm, 3);
	fake[0].frozen = 1;
	t = mkv_now_ns();
	while (strstr(metrics_text(), "memkv_client_breaker_state{server=\"s0\"} 0") != NULL && since_us(t) < 10 * SEC)
		(void)mkv_get(cl, K("k"), buf, 8, MS, NULL);
	assert_true(since_us(t) < 10 * SEC);
	fake[0].frozen = 0;
}

/* It refuses further connections and is slow on the one that we have: no breaker, no request lost, and it is not asked all the time. */
static void
test_full_server(void **state)
{
	struct mkv_client_opts o = { .size = sizeof(o), .connections = 8 };
	struct full u[6] = { { 0, 0 } };
	pthread_t t[6];
	char buf[8];

	(void)state;
	mkv_client_close(cl);
	cl = fix_client_opts(&o, fake, 1);
	assert_int_equal(mkv_warm(cl, SEC), 0);
	fake_stop_listening(&fake[0]);
	fake[0].delay_us = 300 * MS;
	for (unsigned i = 0; i < 6; i++)
		assert_int_equal(pthread_create(&t[i], NULL, full_main, &u[i]), 0);
	for (unsigned i = 0; i < 6; i++)
		(void)pthread_join(t[i], NULL);
	for (unsigned i = 0; i < 6; i++) {
		assert_true(u[i].puts > 0);
		assert_int_equal(u[i].bad, 0);
	}
	assert_int_equal(metric("breaker_opened_total"), 0);
	assert_true(metric("connect_failures_total") > 2 && metric("connect_failures_total") < 15);
	/* Once nobody serves any more it is a server that is down, and that is found out at once. */
	fake_drop_all(&fake[0]);
	assert_int_equal(mkv_get(cl, K("k"), buf, sizeof(buf), 10 * SEC, NULL), MKV_ERR_MISS);
	assert_true(metric("breaker_opened_total") > 0);
}

static void
test_same_server_twice(void **state)
{
	struct fake_opts o = { .server_id = 5 };
	struct mkv_client *c;
	char key[16];
	int bad = 0, good = 0, r;

	(void)state;
	fake_close(&fake[0]);
	fake_close(&fake[1]);
	assert_int_equal(fake_open(&fake[0], &o), 0);
	assert_int_equal(fake_open(&fake[1], &o), 0);
	c = fix_client(fake, 2);
	assert_int_equal(mkv_warm(c, 5 * SEC), MKV_ERR_CONFIG);
	for (unsigned i = 0; i < 40; i++) {
		(void)snprintf(key, sizeof(key), "k%u", i);
		r = mkv_put(c, K(key), "1", 1, NULL, SEC, NULL);
		bad += r == MKV_ERR_CONFIG && mkv_server_of(c, K(key)) == 1;
		good += r == 0 && mkv_server_of(c, K(key)) == 0;
	}
	assert_true(bad > 0 && good > 0);
	assert_int_equal(bad + good, 40);
	mkv_client_close(c);
}

/* ---- fork ---- */

static int
child_is_refused(void)
{
	struct mkv_server_info info = { .size = sizeof(info) };
	struct mkv_request rq = { .size = sizeof(rq), .op = MKV_OP_STAT, .deadline_us = SEC };
	struct mkv_put_stream *s;
	struct mkv_region *r;
	uint64_t id;
	char buf[8];
	int good = 1;

	good &= mkv_get(cl, K("k"), buf, 8, SEC, NULL) == MKV_ERR_FORKED;
	good &= mkv_put(cl, K("k"), buf, 8, NULL, SEC, NULL) == MKV_ERR_FORKED;
	good &= mkv_exists(cl, K("k"), SEC) == MKV_ERR_FORKED;
	good &= mkv_delete(cl, K("k"), SEC) == MKV_ERR_FORKED;
	good &= mkv_submit(cl, &rq, &id) == MKV_ERR_FORKED;
	good &= mkv_drain(cl, &(struct mkv_completion){ .size = sizeof(struct mkv_completion) }, 1) == MKV_ERR_FORKED;
	good &= mkv_event_fd(cl) == MKV_ERR_FORKED;
	good &= mkv_wait(cl, 1) == MKV_ERR_FORKED;
	good &= mkv_warm(cl, SEC) == MKV_ERR_FORKED;
	good &= mkv_server_info(cl, 0, SEC, &info) == MKV_ERR_FORKED;
	good &= mkv_put_begin(cl, K("k"), NULL, SEC, &s) == MKV_ERR_FORKED;
	good &= mkv_region_alloc(cl, 4096, &r) == MKV_ERR_FORKED;
	good &= mkv_cancel(cl, 1) == MKV_ERR_FORKED;
	good &= mkv_client_metrics(cl, buf, 8) == 0;
	mkv_client_close(cl);
	return (good);
}

static void
test_fork(void **state)
{
	char buf[8];
	int status;
	pid_t pid;

	(void)state;
	assert_int_equal(mkv_put(cl, K("k"), "1", 1, NULL, SEC, NULL), 0);
	for (int i = 0; i < 3; i++) {
		pid = fork();
		assert_true(pid >= 0);
		if (pid == 0)
			_exit(child_is_refused() ? 0 : 1);
		assert_int_equal(mkv_get(cl, K("k"), buf, 8, 5 * SEC, NULL), 1);
		assert_int_equal(waitpid(pid, &status, 0), pid);
		assert_int_equal(status, 0);
	}
	assert_int_equal(mkv_get(cl, K("k"), buf, 8, 5 * SEC, NULL), 1);
}

/* ---- deadlines, measured ---- */

#define CALLS	240
#define AT_ONCE	60

struct late {
	struct mkv_client *c;
	uint64_t	us;
	int		bare;
	struct mkv_hist	*hist;
	_Atomic int	*wrong;
};

static pthread_barrier_t late_start;

static void *
late_main(void *arg)
{
	struct late *l = arg;
	struct timespec ts;
	uint64_t end;
	char buf[8];

	(void)pthread_barrier_wait(&late_start);
	end = mkv_now_ns() + l->us * 1000;
	ts = (struct timespec){ .tv_sec = (time_t)(end / 1000000000), .tv_nsec = (long)(end % 1000000000) };

	if (l->bare)
		(void)clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &ts, NULL);
	else if (mkv_get(l->c, K("k"), buf, 8, l->us, NULL) != MKV_ERR_TIMEOUT)
		(*l->wrong)++;
	mkv_hist_add(l->hist, mkv_now_ns() > end ? mkv_now_ns() - end : 0);
	return (NULL);
}

/* AT_ONCE calls beside as many bare sleepers, in flight before the first deadline: the breaker stays out of it. */
static void
late_round(struct mkv_client *c, struct mkv_hist hist[2], unsigned *seed, _Atomic int *wrong)
{
	static struct late l[2 * AT_ONCE];
	pthread_t t[2 * AT_ONCE];

	assert_int_equal(pthread_barrier_init(&late_start, NULL, 2 * AT_ONCE), 0);
	for (unsigned i = 0; i < 2 * AT_ONCE; i++) {
		l[i] = (struct late){ .c = c, .us = 150 * MS + (unsigned)rand_r(seed) % (100 * MS), .bare = i % 2, .hist = &hist[i % 2], .wrong = wrong };
		assert_int_equal(pthread_create(&t[i], NULL, late_main, &l[i]), 0);
	}
	for (unsigned i = 0; i < 2 * AT_ONCE; i++)
		(void)pthread_join(t[i], NULL);
	(void)pthread_barrier_destroy(&late_start);
}

static void
test_deadline_precision(void **state)
{
	static struct mkv_hist hist[2];
	struct mkv_client *c;
	_Atomic int wrong = 0;
	unsigned seed = 1;

	(void)state;
	memset(hist, 0, sizeof(hist));
	for (unsigned i = 0; i < CALLS / AT_ONCE; i++) {
		c = fix_client(fake, 1);
		fake[0].frozen = 0;
		assert_int_equal(mkv_warm(c, 5 * SEC), 0);
		fake[0].frozen = 1;
		late_round(c, hist, &seed, &wrong);
		mkv_client_close(c);
	}
	print_message("late by: calls p50 %lu us p99 %lu us max %lu us; bare timers p50 %lu us p99 %lu us max %lu us\n",
	    mkv_hist_quantile_ns(&hist[0], 0.5) / 1000, mkv_hist_quantile_ns(&hist[0], 0.99) / 1000, hist[0].max_ns / 1000,
	    mkv_hist_quantile_ns(&hist[1], 0.5) / 1000, mkv_hist_quantile_ns(&hist[1], 0.99) / 1000, hist[1].max_ns / 1000);
	assert_int_equal(wrong, 0);
	/* The budget (p99.9 of many calls) is measured by the process tests; here only what cannot be noise. */
	assert_true(mkv_hist_quantile_ns(&hist[0], 0.5) < mkv_hist_quantile_ns(&hist[1], 0.5) + 1000000);
}

/* ---- counters ---- */

static unsigned
free_port(void)
{
	struct sockaddr_in sa = { .sin_family = AF_INET };
	socklen_t n = sizeof(sa);
	int fd = socket(AF_INET, SOCK_STREAM, 0);

	sa.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	assert_int_equal(bind(fd, (struct sockaddr *)&sa, sizeof(sa)), 0);
	assert_int_equal(getsockname(fd, (struct sockaddr *)&sa, &n), 0);
	(void)close(fd);
	return (ntohs(sa.sin_port));
}

static size_t
http(unsigned port, const char *request, char *answer, size_t room)
{
	struct sockaddr_in sa = { .sin_family = AF_INET, .sin_port = htons((uint16_t)port) };
	int fd = socket(AF_INET, SOCK_STREAM, 0);
	size_t have = 0;
	ssize_t n;

	sa.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	assert_int_equal(connect(fd, (struct sockaddr *)&sa, sizeof(sa)), 0);
	for (const char *p = request; *p != '\0'; p += n) {	/* in two pieces: requests may come so */
		n = send(fd, p, strlen(p) > 10 ? strlen(p) / 2 : strlen(p), MSG_NOSIGNAL);
		assert_true(n > 0);
	}
	while (have < room - 1 && (n = recv(fd, answer + have, room - 1 - have, 0)) > 0)
		have += (size_t)n;
	answer[have] = '\0';
	(void)close(fd);
	return (have);
}

static void
test_metrics(void **state)
{
	static char text[1 << 17];
	char bind_to[32], buf[8];
	struct mkv_client_opts o = { .prometheus_bind = bind_to };
	unsigned port = free_port();
	struct mkv_client *c;

	(void)state;
	(void)snprintf(bind_to, sizeof(bind_to), "127.0.0.1:%u", port);
	c = fix_client_opts(&o, fake, 1);
	assert_int_equal(mkv_put(c, K("k"), "1234", 4, NULL, SEC, NULL), 0);
	assert_int_equal(mkv_get(c, K("k"), buf, 8, SEC, NULL), 4);
	assert_int_equal(mkv_get(c, K("no"), buf, 8, SEC, NULL), MKV_ERR_MISS);
	for (int i = 0; i < 6; i++) {
		assert_true(http(port, "GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n", text, sizeof(text)) > 1000);
		assert_non_null(strstr(text, "HTTP/1.1 200 OK\r\n"));
	}
	assert_non_null(strstr(text, "\nmemkv_client_operations_total{op=\"get\",outcome=\"ok\"} 1\n"));
	assert_non_null(strstr(text, "\nmemkv_client_operations_total{op=\"get\",outcome=\"miss\"} 1\n"));
	assert_non_null(strstr(text, "\nmemkv_client_misses_total{reason=\"never_stored\"} 1\n"));
	assert_non_null(strstr(text, "\nmemkv_client_sent_bytes_total 4\n"));
	assert_non_null(strstr(text, "\nmemkv_client_received_bytes_total 4\n"));
	assert_non_null(strstr(text, "\nmemkv_client_sessions{server=\"s0\",transport=\"tcp\"} "));
	assert_non_null(strstr(text, "\nmemkv_client_stage_seconds_count{stage=\"total\"} 3\n"));
	(void)http(port, "GET /secret HTTP/1.1\r\n\r\n", text, sizeof(text));
	assert_non_null(strstr(text, "HTTP/1.1 404 "));
	/* As it would be by snprintf(): the length is told, the text is cut. */
	memset(text, 'x', 64);
	assert_true(mkv_client_metrics(c, text, 32) > 1000);
	assert_int_equal(strlen(text), 31);
	assert_true(mkv_client_metrics(c, NULL, 0) > 1000);
	mkv_client_close(c);
}

/* The port is another handle's: this one goes on without and says so. */
static void
test_metrics_of_the_second_handle(void **state)
{
	static char text[1 << 17];
	char bind_to[32], why[256] = "x";
	struct mkv_client_opts o = { .size = sizeof(o), .servers = "127.0.0.1:1", .prometheus_bind = bind_to };
	struct mkv_client *first, *second;

	(void)state;
	(void)snprintf(bind_to, sizeof(bind_to), "127.0.0.1:%u", free_port());
	assert_int_equal(mkv_client_open(&first, &o, why, sizeof(why)), 0);
	assert_string_equal(why, "");
	assert_int_equal(mkv_client_open(&second, &o, why, sizeof(why)), 0);
	assert_non_null(strstr(why, "prometheus_bind: cannot listen on 127.0.0.1:"));
	assert_true(mkv_client_metrics(second, text, sizeof(text)) > 1000);
	assert_non_null(strstr(text, "\nmemkv_client_metrics_unserved_total 1\n"));
	assert_true(mkv_client_metrics(first, text, sizeof(text)) > 1000);
	assert_non_null(strstr(text, "\nmemkv_client_metrics_unserved_total 0\n"));
	mkv_client_close(second);
	mkv_client_close(first);
	(void)snprintf(bind_to, sizeof(bind_to), "localhost:%u", free_port());
	assert_int_equal(mkv_client_open(&first, &o, why, sizeof(why)), MKV_ERR_CONFIG);
	assert_non_null(strstr(why, "is no address"));
}

/* A scrape that comes while the process has no descriptor left is answered once it has one again. */
static void
test_metrics_after_no_descriptor(void **state)
{
	struct sockaddr_in sa = { .sin_family = AF_INET, .sin_port = htons((uint16_t)free_port()) };
	int fd = socket(AF_INET, SOCK_STREAM, 0), last, fds[256];
	struct timeval limit = { .tv_sec = 10 };
	char bind_to[32], answer[64];
	struct mkv_client_opts o = { .prometheus_bind = bind_to };
	struct rlimit was, few;
	struct mkv_client *c;
	unsigned n = 0;

	(void)state;
	sa.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	(void)snprintf(bind_to, sizeof(bind_to), "127.0.0.1:%u", ntohs(sa.sin_port));
	c = fix_client_opts(&o, fake, 1);
	assert_int_equal(getrlimit(RLIMIT_NOFILE, &was), 0);
	last = dup(fd);
	few = (struct rlimit){ .rlim_cur = (rlim_t)last + 16, .rlim_max = was.rlim_max };
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &few), 0);
	while (n < MKV_ARRAY_LEN(fds) && (fds[n] = dup(fd)) >= 0)
		n++;
	assert_int_equal(connect(fd, (struct sockaddr *)&sa, sizeof(sa)), 0);
	(void)usleep(100000);
	while (n > 0)
		(void)close(fds[--n]);
	(void)close(last);
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &was), 0);
	assert_int_equal(setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit)), 0);
	assert_true(send(fd, "GET /metrics HTTP/1.1\r\n\r\n", 25, MSG_NOSIGNAL) == 25);
	assert_true(recv(fd, answer, 15, MSG_WAITALL) == 15);
	assert_memory_equal(answer, "HTTP/1.1 200 OK", 15);
	(void)close(fd);
	mkv_client_close(c);
}

int
main(void)
{
#define ONE(name) cmocka_unit_test_setup_teardown(name, setup_one, teardown)
#define ALL(name) cmocka_unit_test_setup_teardown(name, setup_all, teardown)
	const struct CMUnitTest tests[] = {
		ONE(test_server_down), ONE(test_full_server), ONE(test_server_hiccups), ONE(test_server_stopped), ONE(test_auth),
		ONE(test_names), ALL(test_spread), ALL(test_lists_over_servers),
		ALL(test_lists_one_mute), ALL(test_lists_one_down), ALL(test_same_server_twice), ONE(test_fork), ONE(test_deadline_precision),
		ONE(test_metrics), ONE(test_metrics_of_the_second_handle), ONE(test_metrics_after_no_descriptor),
	};

	return (cmocka_run_group_tests(tests, NULL, NULL));
}
