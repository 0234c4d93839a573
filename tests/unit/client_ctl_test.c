/*
 * libmemkv by RDMA with messages by datagrams or by the tether (rdma_control): against a fake server over a fabric in the process, datagrams over loopback, some of
 * which the server loses or hears twice.
 */
#include "config.h"
#include "tests/unit/client_rail_fix.h"

#include "common/base/udp.h"

/* Datagrams longer than this the path does not take: as the kernel says it. */
static _Atomic unsigned path_most = UINT32_MAX;
static _Atomic unsigned too_long;

static int
path_send(int fd, const void *buf, uint32_t bytes)
{
	if (bytes <= path_most)
		return (mkv_udp_send(fd, buf, bytes));
	too_long++;
	return (MKV_E_TOOBIG);
}

#define mkv_udp_send path_send
#include "clients/lib/rail_ctl.c"
#undef mkv_udp_send

static struct mkv_client *
live_by(const char *control)
{
	by_control = control;
	return (live("rdma"));
}

static int
setup_ctl(void **state)
{
	path_most = UINT32_MAX;
	too_long = 0;
	return (setup(state));
}

/* Every size, and what carried it: one message and one answer go by datagram, the rest by the tether; the first PING by the queue pair. */
static void
values(const char *control, unsigned datagrams, unsigned frames)
{
	static const size_t sizes[] = { 1, 5000, 16385, PART, PART + 1, 3 * PART - 3 };
	uint8_t *value = fix_bytes(3 * PART, 7), *copy = malloc(3 * PART);
	struct mkv_client *c = live_by(control);
	char key[32];

	for (unsigned i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
		(void)snprintf(key, sizeof(key), "k%u", i);
		round_trip(c, key, value, copy, sizes[i]);
	}
	assert_int_equal(f.rail_requests[MKV_WIRE_PUT], 4 + 2 + 3);	/* parts */
	assert_int_equal(f.rail_requests[MKV_WIRE_GET], 6);
	assert_int_equal(f.requests[MKV_WIRE_GET], 6);			/* none by another way */
	assert_true(f.udp_messages >= datagrams && f.udp_messages <= 3 * datagrams);	/* on a slow machine some are sent again */
	assert_true(f.tether_messages >= frames && f.tether_messages <= frames + datagrams);
	assert_int_equal(counter(c, "fences_total"), 0);
	assert_int_equal(counter(c, "protocol_errors_total"), 0);
	assert_int_equal(f.attached, 1);
	mkv_client_close(c);
	free(value);
	free(copy);
}

static void
test_values_by_tether(void **state)
{
	(void)state;
	values("tcp", 0, 9 + 6);
}

static void
test_values_by_datagrams(void **state)
{
	(void)state;
	values("udp", 4 + 4, 2 + 3 + 2);
}

static void
test_regions(void **state)
{
	struct mkv_client *c = live_by("udp");
	struct mkv_region *a, *b;

	(void)state;
	assert_int_equal(mkv_region_alloc(c, PART, &a), 0);
	assert_int_equal(mkv_region_alloc(c, PART, &b), 0);
	fix_fill(mkv_region_base(a, NULL), PART, 3);
	for (unsigned i = 0; i < 20; i++)
		round_trip(c, "region", mkv_region_base(a, NULL), mkv_region_base(b, NULL), PART);
	/* An answer that goes another way follows a READ, which relaxed ordering would not hold to. */
	for (unsigned i = 0; i < FV_LOG; i++) {
		struct fv_wr w[FV_LOG];
		unsigned n = fv_log(w, FV_LOG);

		if (i < n && w[i].rkey != 0)
			assert_int_equal(fv_access(w[i].rkey) & IBV_ACCESS_RELAXED_ORDERING, 0);
	}
	assert_int_equal(mkv_region_free(a), 0);
	assert_int_equal(mkv_region_free(b), 0);
	mkv_client_close(c);
}

/* One datagram of five is lost each way, one of five comes twice: every value is right, every call in time, each request done once. */
static void
test_network_that_loses(void **state)
{
	uint8_t *value = fix_bytes(PART, 7), *copy = malloc(PART);
	struct mkv_client *c = live_by("udp");
	char key[32];

	(void)state;
	f.udp_lose = f.udp_repeat = 200;
	for (unsigned i = 0; i < 150; i++) {
		(void)snprintf(key, sizeof(key), "k%u", i % 9);
		value[0] = (uint8_t)i;
		round_trip(c, key, value, copy, 1 + (i * 1777) % PART);
	}
	assert_int_equal(f.rail_requests[MKV_WIRE_PUT], 150);
	assert_int_equal(f.rail_requests[MKV_WIRE_GET], 150);
	assert_true(counter(c, "datagrams_repeated_total") > 0);
	assert_true(counter(c, "datagrams_dropped_total") > 0);		/* those that came twice */
	assert_true(f.udp_again > 0);
	assert_int_equal(counter(c, "fences_total"), 0);
	assert_int_equal(f.attached, 1);
	f.udp_lose = f.udp_repeat = 0;
	mkv_client_close(c);
	free(value);
	free(copy);
}

/* Datagrams go nowhere: the tether takes over, at first after three tries, then at once; and datagrams again when they are heard. */
static void
test_no_datagram_arrives(void **state)
{
	uint8_t *value = fix_bytes(PART, 7), *copy = malloc(PART);
	struct mkv_client *c = live_by("udp");
	unsigned long sent;

	(void)state;
	f.udp_mute = 1;
	for (unsigned i = 0; i < 20; i++)
		round_trip(c, "k", value, copy, 5000);
	assert_true(f.tether_messages >= 40);
	sent = counter(c, "datagrams_sent_total");
	assert_true(sent < 40);
	assert_int_equal(f.attached, 1);
	f.udp_mute = 0;
	for (unsigned i = 0; i < 3000 && f.udp_messages < 10; i++) {
		round_trip(c, "k", value, copy, 5000);
		(void)usleep(1000);
	}
	assert_true(f.udp_messages >= 10);
	mkv_client_close(c);
	free(value);
	free(copy);
}

/* A server that has no datagrams says so: then the tether from the beginning. It begins anew, and has them: it is asked again. */
static void
test_server_without_datagrams(void **state)
{
	uint8_t *value = fix_bytes(PART, 7), *copy = malloc(PART);
	struct mkv_client *c;

	(void)state;
	f.udp_refuse = 1;
	c = live_by("udp");
	round_trip(c, "k", value, copy, 5000);
	assert_int_equal(f.udp_messages, 0);
	assert_int_equal(f.tether_messages, 2);
	f.udp_refuse = 0;
	fake_drop_all(&f);
	for (unsigned i = 0; i < 1000 && f.udp_messages == 0; i++) {
		round_trip(c, "k", value, copy, 5000);
		(void)usleep(10000);
	}
	assert_true(f.udp_messages > 0);
	mkv_client_close(c);
	free(value);
	free(copy);
}

/* rdma_tether drop: a server that does not want that is asked for datagrams with the tether, and not again while it lasts; by RC nobody is asked. */
static void
test_server_that_keeps_its_tether(void **state)
{
	uint8_t *value = fix_bytes(PART, 7), *copy = malloc(PART);

	(void)state;
	for (int dc = 0; dc < 2; dc++) {
		struct mkv_client_opts o = { .size = sizeof(o), .transport = "auto", .rdma_devices = "fake0", .connections = 1, .rdma_control = "udp",
			.rdma_tether = "drop" };
		unsigned attached = f.attached;
		struct mkv_client *c;

		fv_dc(dc ? FV_DC_YES : FV_DC_OTHER_MAKE);
		f.rail_dc = dc;
		c = fix_client_opts(&o, &f, 1);
		assert_int_equal(mkv_warm(c, 10 * SEC), 0);
		for (unsigned i = 0; i < 10; i++)
			round_trip(c, "k", value, copy, 5000);
		assert_int_equal(f.loose_refused, dc);
		assert_int_equal(f.attached, attached + 1);
		assert_true(f.udp_messages > 0);
		assert_int_equal(counter(c, "tethers_dropped_total"), 0);
		assert_int_equal(counter(c, "rdma_failures_total"), 0);
		mkv_client_close(c);
	}
	free(value);
	free(copy);
}

/* What is longer than the path goes by the tether; the kernel's word about the path is kept to. */
static void
test_longer_than_the_path(void **state)
{
	uint8_t *value = fix_bytes(300000, 7), *copy = malloc(300000);
	struct mkv_client *c = live_by("udp");
	struct iovec iov[50];

	(void)state;
	path_most = 600;
	for (unsigned k = 0; k < 3; k++) {
		for (unsigned i = 0; i < 50; i++)
			iov[i] = (struct iovec){ value + i * 1000, 1000 };
		assert_int_equal(mkv_putv(c, K("pieces"), iov, 50, NULL, 20 * SEC, NULL), 0);
		assert_int_equal(mkv_get(c, K("pieces"), copy, 50000, 20 * SEC, NULL), 50000);
		assert_memory_equal(value, copy, 50000);
	}
	assert_int_equal(too_long, 1);
	assert_true(f.tether_messages >= 3);
	assert_int_equal(counter(c, "control_fallovers_total"), f.tether_messages);
	assert_true(f.udp_messages >= 3);
	mkv_client_close(c);
	free(value);
	free(copy);
}

/* 1: the get of the value that is not answered ended without a fence. It ends in time in any case. */
static int
get_in_vain(struct mkv_client *c, struct getter *g)
{
	unsigned long fences = counter(c, "fences_total");

	getter_start(g, c, PART, SEC);
	assert_int_equal(getter_end(g), MKV_ERR_TIMEOUT);
	assert_true(g->took_us >= SEC / 2 && g->took_us < SEC + LATE_US);
	assert_true(all_are(g->to, PART, 0x77));
	return (counter(c, "fences_total") == fences);
}

/* The deadline is kept: by CANCEL where that is answered (a busy machine may be late with it now and then), else by the fence. Nothing is sent afterwards. */
static void
deadline(const char *control, int mute)
{
	struct mkv_client *c = live_by(control);
	uint8_t *value = fix_bytes(PART, 3);
	unsigned long sent;
	struct getter g;
	int quiet;

	fake_store(&f, "", K("value"), value, PART);
	f.rail_mute = mute;
	quiet = get_in_vain(c, &g);
	for (unsigned i = 0; i < 10 && mute == 2 && !quiet; i++) {
		free(g.to);
		quiet = get_in_vain(c, &g);
	}
	assert_int_equal(quiet, mute == 2);
	f.rail_mute = 0;
	sent = counter(c, "datagrams_repeated_total");
	(void)usleep(100000);
	assert_int_equal(counter(c, "datagrams_repeated_total"), sent);
	assert_int_equal(mkv_get(c, K("value"), g.to, PART, 20 * SEC, NULL), PART);
	assert_memory_equal(g.to, value, PART);
	mkv_client_close(c);
	free(g.to);
	free(value);
}

static void
test_deadline(void **state)
{
	(void)state;
	deadline("udp", 2);
	deadline("tcp", 2);
}

static void
test_deadline_fence(void **state)
{
	(void)state;
	deadline("udp", 1);
	deadline("tcp", 1);
}

/* The server's queue pair breaks, or the tether ends, under a get: asked again, and nobody hears of it. */
static void
lost_under_a_get(const char *control, int tether)
{
	struct mkv_client *c = live_by(control);
	uint8_t *value = fix_bytes(PART, 3);
	struct getter g;

	fake_store(&f, "", K("value"), value, PART);
	getter_held(&g, c, PART, 20 * SEC);
	lose_under(&g, tether, value);			/* the WRITE's */
	mkv_client_close(c);
	free(g.to);
	free(value);
}

static void
test_lost(void **state)
{
	static const char *const control[] = { "udp", "tcp" };

	(void)state;
	for (unsigned i = 0; i < 4; i++)
		lost_under_a_get(control[i / 2], (int)(i % 2));
}

static void
test_close_with_requests_out(void **state)
{
	(void)state;
	close_with_requests_out(live_by("udp"));
}

int
main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, setup_ctl, teardown)
	const struct CMUnitTest tests[] = {
		T(test_values_by_tether), T(test_values_by_datagrams), T(test_regions), T(test_network_that_loses), T(test_no_datagram_arrives),
		T(test_server_without_datagrams), T(test_server_that_keeps_its_tether), T(test_longer_than_the_path),
		T(test_deadline), T(test_deadline_fence), T(test_lost), T(test_close_with_requests_out),
	};

	return (cmocka_run_group_tests(tests, NULL, NULL));
}
