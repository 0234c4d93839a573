/*
 * libmemkv without tethers (rdma_tether drop) and a front that is as it is: idle, over a network that loses, with a session that is lost, with what does not fit a
 * datagram. The TCP front beside it has drives of its own: a value that is found there went by TCP.
 */
#include "config.h"

#include "tests/unit/client_counter.h"
#include "tests/unit/front_both_client.h"

#include "clients/lib/rail_priv.h"
#include "common/base/clock.h"

/* A PING after a moment in place of 20 s. */
#undef RAIL_ALIVE_NS
#define RAIL_ALIVE_NS	(200 * MKV_NS_PER_MS)
#include "clients/lib/rail.c"

/* Of 1,000 datagrams of the client so many do not leave. */
static _Atomic unsigned lose;
static _Atomic unsigned lose_next;		/* so many do not, whatever they are */
static _Atomic unsigned path_most = UINT32_MAX;

static int
net_send(int fd, const void *buf, uint32_t bytes)
{
	static uint32_t luck = 1;

	if (bytes > path_most)
		return (MKV_E_TOOBIG);
	if (lose_next > 0) {
		lose_next--;
		return (0);
	}
	luck = luck * 1664525u + 1013904223u;
	return ((luck >> 8) % 1000 < lose ? 0 : mkv_udp_send(fd, buf, bytes));
}

#define mkv_udp_send net_send
#define rail_loop ctl_rail_loop
#include "clients/lib/rail_ctl.c"
#undef rail_loop
#undef mkv_udp_send

static struct mkv_client *
handle(const struct both *b, const char *transport)
{
	return (both_client(b, transport, "udp", "drop"));
}

static void
until(const struct both *b, enum mkv_metric m, uint64_t n)
{
	for (unsigned i = 0; i < 60000 && both_count(b, m) < n; i++)
		(void)usleep(1000);
	assert_true(both_count(b, m) >= n);
}

/* Live, and without its tether. */
static struct mkv_client *
alone(const struct both *b)
{
	struct mkv_client *c = handle(b, "auto");

	until(b, MKV_M_front_sessions_loose, 1);
	assert_int_equal(counter(c, "tethers_dropped_total"), 1);
	assert_int_equal(both_count(b, MKV_M_front_channels_dc), 1);
	return (c);
}

/* One datagram of four does not leave, for a hundred values: all are right and none goes another way. */
static void
network_that_loses(void **state)
{
	struct both *b = both_open(3);
	struct mkv_client *c = alone(b);

	(void)state;
	lose = 250;
	for (unsigned i = 0; i < 100; i++)
		both_round_trip(c, "key", 1 + i * 9000, i);
	lose = 0;
	assert_true(counter(c, "datagrams_repeated_total") > 0);
	assert_int_equal(counter(c, "control_fallovers_total"), 0);
	assert_int_equal(counter(c, "rdma_attached_total"), 1);
	assert_true(both_count(b, MKV_M_front_datagrams_repeated_total) + both_count(b, MKV_M_front_datagrams_received_total) > 200);
	mkv_client_close(c);
	both_close(b);
}

/* Nothing is asked: PINGs say that the client is there, and the session lives. */
static void
idle(void **state)
{
	struct both *b = both_open(3);
	struct mkv_client *c = alone(b);
	uint64_t before;

	(void)state;
	for (unsigned i = 0; i < 3; i++) {
		before = both_count(b, MKV_M_front_datagrams_received_total);
		until(b, MKV_M_front_datagrams_received_total, before + 1);
	}
	assert_int_equal(counter(c, "rdma_attached_total"), 1);
	both_round_trip(c, "key", 5000, 1);
	assert_int_equal(both_count(b, MKV_M_front_sessions_loose), 1);
	mkv_client_close(c);
	both_close(b);
}

/* The server knows the session no more, and says nothing: the client finds out by its PING, and is there again by a new tether, which it gives up, too. */
static void
a_lost_session(void **state)
{
	struct both *b = both_open(3);
	struct mkv_client *c = alone(b);
	uint64_t began;

	(void)state;
	both_forget(b);
	assert_int_equal(both_count(b, MKV_M_front_sessions_loose_expired_total), 1);
	began = mkv_now_ns();
	for (unsigned i = 0; i < 60000 && counter(c, "tethers_dropped_total") < 2; i++)
		(void)usleep(1000);
	assert_int_equal(counter(c, "tethers_dropped_total"), 2);
	print_message("there again after %u ms\n", (unsigned)((mkv_now_ns() - began) / MKV_NS_PER_MS));
	until(b, MKV_M_front_sessions_loose, 1);
	both_round_trip(c, "key", 5000, 1);
	assert_int_equal(counter(c, "rdma_attached_total"), 2);
	mkv_client_close(c);
	both_close(b);
}

/* The same with a get out: it is answered, by another way. */
static void
lost_under_a_get(void **state)
{
	struct both *b = both_open(3);
	struct mkv_client *tcp, *c;
	uint8_t value[5000], copy[5000];

	(void)state;
	tcp = handle(b, "tcp");
	both_fill(value, sizeof(value), 4);
	assert_int_equal(mkv_put(tcp, K("key"), value, sizeof(value), NULL, 20 * SEC, NULL), 0);
	mkv_client_close(tcp);
	c = alone(b);
	assert_int_equal(mkv_put(c, K("key"), value, sizeof(value), NULL, 20 * SEC, NULL), 0);
	both_forget(b);
	assert_int_equal(mkv_get(c, K("key"), copy, sizeof(copy), 20 * SEC, NULL), sizeof(copy));
	assert_memory_equal(copy, value, sizeof(copy));
	mkv_client_close(c);
	both_close(b);
}

/* A deadline passes with the session lost: the call ends in time, and after its fence nothing is written. */
static void
deadline(void **state)
{
	struct both *b = both_open(3);
	struct mkv_client *c = alone(b);
	static uint8_t copy[60000];			/* no bounce buffer */
	uint64_t began;

	(void)state;
	both_round_trip(c, "key", sizeof(copy), 1);
	memset(copy, 0x77, sizeof(copy));
	both_forget(b);
	began = mkv_now_ns();
	assert_int_equal(mkv_get(c, K("key"), copy, sizeof(copy), SEC / 5, NULL), MKV_ERR_TIMEOUT);
	assert_true(mkv_now_ns() - began < 3 * MKV_NS_PER_SEC);
	for (unsigned i = 0; i < sizeof(copy); i++)
		assert_int_equal(copy[i], 0x77);
	assert_true(counter(c, "fences_total") > 0);
	mkv_client_close(c);
	both_close(b);
}

/* What comes in parts, and what is longer than the path takes, goes by a plain connection: the TCP front has it. */
static void
long_requests(void **state)
{
	struct both *b = both_open(3);
	struct mkv_client *c = alone(b), *tcp;
	uint8_t *value = malloc(VALUE + 1), *copy = malloc(VALUE + 1);
	struct iovec iov[60];

	(void)state;
	both_fill(value, VALUE + 1, 3);
	assert_int_equal(mkv_put(c, K("parts"), value, VALUE + 1, NULL, 20 * SEC, NULL), 0);
	assert_int_equal(mkv_get(c, K("parts"), copy, VALUE + 1, 20 * SEC, NULL), VALUE + 1);
	assert_memory_equal(value, copy, VALUE + 1);
	for (unsigned i = 0; i < 60; i++)
		iov[i] = (struct iovec){ value + i * 10000, 9000 };
	path_most = 900;
	for (unsigned i = 0; i < 60000; i++) {			/* the first one learns it, which costs the rail */
		assert_int_equal(mkv_putv(c, K("pieces"), iov, 60, NULL, 20 * SEC, NULL), 0);
		if (counter(c, "rdma_refused_total") > 0)
			break;
		(void)usleep(1000);
	}
	assert_true(counter(c, "rdma_refused_total") > 0);
	path_most = UINT32_MAX;
	mkv_client_close(c);
	tcp = handle(b, "tcp");
	assert_int_equal(mkv_get(tcp, K("parts"), copy, VALUE + 1, 20 * SEC, NULL), VALUE + 1);
	assert_memory_equal(value, copy, VALUE + 1);
	mkv_client_close(tcp);
	both_close(b);
	free(value);
	free(copy);
}

/* The front has no session without a tether any more, and none of them was silent for a minute. */
static void
none_left(const struct both *b)
{
	for (unsigned i = 0; i < 20000 && (both_count(b, MKV_M_front_sessions_loose) != 0 || both_count(b, MKV_M_front_channels) != 0); i++)
		(void)usleep(1000);
	assert_int_equal(both_count(b, MKV_M_front_sessions_loose), 0);
	assert_int_equal(both_count(b, MKV_M_front_channels), 0);
	assert_int_equal(both_count(b, MKV_M_front_sessions_loose_expired_total), 0);
}

/* A client that is closed leaves no session behind, also if the network loses some of what it says; if it loses all, closing takes no longer for that. */
static void
closed(void **state)
{
	struct both *b = both_open(3);
	struct mkv_client *c;
	uint64_t began;

	(void)state;
	for (unsigned i = 0; i < 3; i++) {
		c = alone(b);
		both_round_trip(c, "key", 5000, 1);
		mkv_client_close(c);
		none_left(b);
	}
	c = alone(b);
	lose_next = 2;
	mkv_client_close(c);
	none_left(b);
	c = alone(b);
	lose = 1000;
	began = mkv_now_ns();
	mkv_client_close(c);
	assert_true(mkv_now_ns() - began < MKV_NS_PER_SEC);
	lose = 0;
	assert_int_equal(both_count(b, MKV_M_front_sessions_loose), 1);
	both_close(b);
}

/* A rail that breaks begins anew, and its former session ends. */
static void
begun_anew(void **state)
{
	struct both *b = both_open(3);
	struct mkv_client *c = alone(b);
	uint8_t *value = calloc(1, VALUE);
	struct iovec iov[60];

	(void)state;
	for (unsigned i = 0; i < 60; i++)
		iov[i] = (struct iovec){ value + i * 10000, 9000 };
	path_most = 500;				/* the one that learns it breaks the rail */
	assert_int_equal(mkv_putv(c, K("pieces"), iov, 60, NULL, 20 * SEC, NULL), 0);
	for (unsigned i = 0; i < 60000 && counter(c, "tethers_dropped_total") < 2; i++)
		(void)usleep(1000);
	path_most = UINT32_MAX;
	assert_int_equal(counter(c, "tethers_dropped_total"), 2);
	until(b, MKV_M_front_sessions_closed_total, 1);
	assert_int_equal(both_count(b, MKV_M_front_sessions_loose_expired_total), 0);
	mkv_client_close(c);
	none_left(b);
	both_close(b);
	free(value);
}

/* No datagram is heard: the tether stays, and carries them. */
static void
no_datagram_arrives(void **state)
{
	struct both *b = both_open(3);
	struct mkv_client *c;

	(void)state;
	lose = 1000;
	c = handle(b, "auto");
	for (unsigned i = 0; i < 5; i++)
		both_round_trip(c, "key", 5000, i);
	assert_int_equal(counter(c, "tethers_dropped_total"), 0);
	assert_true(counter(c, "control_fallovers_total") > 0);
	lose = 0;
	for (unsigned i = 0; i < 10000 && counter(c, "tethers_dropped_total") == 0; i++) {
		both_round_trip(c, "key", 5000, i);
		(void)usleep(1000);
	}
	assert_int_equal(counter(c, "tethers_dropped_total"), 1);
	mkv_client_close(c);
	both_close(b);
}

/* What goes by RDMA or not at all keeps its tether: parts need it. */
static void
transport_rdma_keeps_it(void **state)
{
	struct both *b = both_open(3);
	struct mkv_client *c = handle(b, "rdma");

	(void)state;
	both_round_trip(c, "key", 3 * VALUE + 5, 1);
	both_round_trip(c, "key", 5000, 1);
	(void)usleep(300000);
	assert_int_equal(counter(c, "tethers_dropped_total"), 0);
	assert_int_equal(both_count(b, MKV_M_front_sessions_loose), 0);
	mkv_client_close(c);
	both_close(b);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(network_that_loses), cmocka_unit_test(idle), cmocka_unit_test(a_lost_session), cmocka_unit_test(lost_under_a_get),
		cmocka_unit_test(deadline), cmocka_unit_test(long_requests), cmocka_unit_test(no_datagram_arrives), cmocka_unit_test(transport_rdma_keeps_it),
		cmocka_unit_test(closed), cmocka_unit_test(begun_anew),
	};

	return (cmocka_run_group_tests(tests, NULL, NULL));
}
