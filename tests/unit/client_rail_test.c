/*
 * libmemkv by RDMA: against a fake server (tests/lib/fakerail.c) over a fabric in the process (tests/lib/fakeverbs.c). Everything by RC, and then by DC; what DC
 * alone has is in client_dc_test.c.
 *
 * What is asserted of time is that calls end by their deadline and some more; what of counts, that nothing went another way than it should.
 */
#include "config.h"
#include "clients/lib/rail_priv.h"
#include "tests/unit/client_rail_fix.h"

#include <errno.h>

static int
setup_absent(void **state)
{
	(void)state;
	return (setup_fabric(1));
}

static void
test_values(void **state)
{
	static const size_t sizes[] = { 1, 5000, 16384, 16385, 65536, PART, PART + 1, 5 * PART - 3 };
	struct mkv_client *c = live("rdma");
	uint8_t *value = fix_bytes(5 * PART, 7), *copy = malloc(5 * PART);
	char key[32];

	(void)state;
	for (unsigned i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
		(void)snprintf(key, sizeof(key), "k%u", i);
		round_trip(c, key, value, copy, sizes[i]);
	}
	assert_int_equal(f.rail_requests[MKV_WIRE_PUT], 6 + 2 + 5);	/* parts */
	assert_int_equal(f.rail_requests[MKV_WIRE_GET], 8);
	assert_int_equal(f.requests[MKV_WIRE_GET], 8);		/* none by another way */
	assert_int_equal(f.acks, 1 + 4);
	assert_int_equal(counter(c, "fences_total"), 0);
	mkv_client_close(c);
	free(value);
	free(copy);
}

/* Regions are registered once; their memory is free when mkv_region_free() has returned. */
static void
test_regions(void **state)
{
	struct mkv_client *c = live("auto");
	struct mkv_region *a, *b;
	unsigned alive = fv_alive(), made = fv_calls(FV_REG_MR);

	(void)state;
	assert_int_equal(mkv_region_alloc(c, 3 * PART, &a), 0);
	assert_int_equal(mkv_region_alloc(c, 3 * PART, &b), 0);
	assert_int_equal(fv_alive(), alive + 2);
	fix_fill(mkv_region_base(a, NULL), 3 * PART, 3);
	for (unsigned i = 0; i < 5; i++)
		round_trip(c, "region", mkv_region_base(a, NULL), mkv_region_base(b, NULL), 3 * PART);
	assert_int_equal(fv_calls(FV_REG_MR) - made, 2);
	assert_int_equal(mkv_region_free(a), 0);
	assert_int_equal(mkv_region_free(b), 0);
	assert_int_equal(fv_alive(), alive);
	mkv_client_close(c);
}

/* Ranges, pieces that are not aligned to anything, and what is beside them. */
static void
test_pieces(void **state)
{
	struct mkv_client *c = live("rdma");
	uint8_t *value = fix_bytes(2 * PART, 11), *room = malloc(2 * PART + 64);
	struct mkv_key key = { "pieces", 6 };
	struct iovec iov[3];
	struct mkv_request q = { .size = sizeof(q), .op = MKV_OP_GET, .keys = &key, .n_keys = 1, .iov = iov, .n_iov = 3, .off = 1000, .len = PART + 70001,
		.deadline_us = 10 * SEC };
	struct mkv_completion done = { .size = sizeof(done) };
	uint64_t id;

	(void)state;
	assert_int_equal(mkv_put(c, K("pieces"), value, 2 * PART, NULL, 10 * SEC, NULL), 0);
	memset(room, 0xa5, 2 * PART + 64);
	iov[0] = (struct iovec){ room + 7, 33 };
	iov[1] = (struct iovec){ room + 41, 70000 };
	iov[2] = (struct iovec){ room + 70042, PART };
	assert_int_equal(mkv_submit(c, &q, &id), 0);
	assert_int_equal(mkv_wait(c, 10 * SEC), 1);
	assert_int_equal(mkv_drain(c, &done, 1), 1);
	assert_int_equal(done.result, PART + 70001);
	assert_memory_equal(room + 7, value + 1000, 33);
	assert_memory_equal(room + 41, value + 1033, 70000);
	assert_memory_equal(room + 70042, value + 71033, PART - 32);
	for (unsigned i = 0; i < 7; i++)
		assert_int_equal(room[i], 0xa5);
	assert_int_equal(room[40], 0xa5);
	assert_int_equal(room[70041], 0xa5);
	for (unsigned i = 70042 + PART - 32; i < 2 * PART + 64; i++)
		assert_int_equal(room[i], 0xa5);
	mkv_client_close(c);
	free(value);
	free(room);
}

/* More pieces than a message has room for: by TCP, or not at all. */
static void
test_too_many_pieces(void **state)
{
	struct iovec iov[300];
	uint8_t *value = fix_bytes(300 * 200, 5);
	struct mkv_client *c = live("auto");

	(void)state;
	for (unsigned i = 0; i < 300; i++)
		iov[i] = (struct iovec){ value + i * 200, 200 };
	assert_int_equal(mkv_putv(c, K("many"), iov, 300, NULL, 10 * SEC, NULL), 0);
	assert_int_equal(f.rail_requests[MKV_WIRE_PUT], 0);
	mkv_client_close(c);
	c = live("rdma");
	assert_int_equal(mkv_putv(c, K("many"), iov, 300, NULL, 10 * SEC, NULL), MKV_ERR_UNSUPPORTED);
	assert_int_equal(mkv_exists(c, K("many"), 10 * SEC), 1);
	mkv_client_close(c);
	free(value);
}

/* ---- no queue pair ---- */

static void
by_tcp(const char *why)
{
	struct mkv_server_info si = { .size = sizeof(si) };
	struct mkv_client *c = client("auto");
	uint8_t copy[5000], *value = fix_bytes(sizeof(copy), 9);

	assert_int_equal(mkv_warm(c, 10 * SEC), 0);
	round_trip(c, "tcp", value, copy, sizeof(copy));
	assert_int_equal(f.rail_requests[MKV_WIRE_PUT] + f.rail_requests[MKV_WIRE_GET], 0);
	assert_int_equal(mkv_server_info(c, 0, 5 * SEC, &si), 0);
	assert_string_equal(si.transport, "tcp");
	if (strstr(si.transport_why, why) == NULL)
		fail_msg("\"%s\" does not say \"%s\"", si.transport_why, why);
	mkv_client_close(c);
	free(value);
}

static void
test_server_without_rails(void **state)
{
	(void)state;
	f.rails = 0;
	by_tcp("no rails");
}

static void
test_rail_is_down(void **state)
{
	(void)state;
	f.rail_down = 1;
	by_tcp("rail 1: the server says that it is not up");
}

static void
test_attach_is_refused(void **state)
{
	(void)state;
	f.attach_status = MKV_E_BUSY;
	by_tcp("refuses to attach");
}

static void
test_attach_is_not_answered(void **state)
{
	(void)state;
	f.attach_mute = 1;
	by_tcp("does not answer to ATTACH");
}

/* Messages by another way than the one that was asked for. */
static void
test_attach_is_not_what_was_asked_for(void **state)
{
	(void)state;
	for (int lie = 1; lie <= 2; lie++) {
		f.attach_lie = lie;
		by_tcp("do not fit together");
	}
}

static void
test_path_does_not_work(void **state)
{
	(void)state;
	f.rail_no_ping = 1;
	by_tcp("no message gets through");
}

static void
test_no_device(void **state)
{
	struct mkv_client_opts o = { .size = sizeof(o), .servers = "127.0.0.1:1", .transport = "rdma", .rdma_devices = "none" };
	struct mkv_client *c;
	char why[256] = "";

	(void)state;
	assert_int_equal(mkv_client_open(&c, &o, why, sizeof(why)), MKV_ERR_UNSUPPORTED);
	assert_non_null(strstr(why, "none"));
	by_tcp("fake0");
}

/* `rdma` says so instead of going another way; lists of keys and the like are not values. */
static void
test_exact(void **state)
{
	struct mkv_client *c = client("rdma");
	uint8_t v[100] = { 0 };

	(void)state;
	f.attach_status = MKV_E_BUSY;
	assert_int_equal(mkv_put(c, K("k"), v, sizeof(v), NULL, 20 * SEC, NULL), MKV_ERR_UNREACHABLE);
	assert_int_equal(mkv_get(c, K("k"), v, sizeof(v), 20 * SEC, NULL), MKV_ERR_UNREACHABLE);
	assert_int_equal(mkv_exists(c, K("k"), 20 * SEC), 0);
	assert_int_equal(f.requests[MKV_WIRE_PUT] + f.requests[MKV_WIRE_GET], 0);
	f.attach_status = 0;
	until_rdma(c);
	assert_int_equal(mkv_put(c, K("k"), v, sizeof(v), NULL, 20 * SEC, NULL), 0);
	mkv_client_close(c);
}

/* ---- and back again ---- */

static void
test_comes_back(void **state)
{
	struct mkv_client *c = client("auto");
	uint8_t copy[5000], *value = fix_bytes(sizeof(copy), 9);

	(void)state;
	f.attach_status = MKV_E_BUSY;
	round_trip(c, "k", value, copy, sizeof(copy));
	f.attach_status = 0;
	until_rdma(c);
	round_trip(c, "k", value, copy, sizeof(copy));
	assert_int_equal(f.rail_requests[MKV_WIRE_GET], 1);
	assert_int_equal(counter(c, "rdma_upgrades_total"), 1);
	mkv_client_close(c);
	free(value);
}

/* A server whose rails come up after its TCP fronts, as they do at each start: the client has asked meanwhile, and the answer knew nothing of them. */
static void
test_comes_up_later(void **state)
{
	static const char *transport[] = { "auto", "rdma" };
	uint8_t copy[5000], *value = fix_bytes(sizeof(copy), 9);
	struct mkv_client *c;

	(void)state;
	for (unsigned i = 0; i < MKV_ARRAY_LEN(transport); i++) {
		f.rail_down = 1;
		c = client(transport[i]);
		(void)mkv_warm(c, 10 * SEC);
		if (i == 0)
			round_trip(c, "k", value, copy, sizeof(copy));
		else
			assert_int_equal(mkv_put(c, K("k"), value, sizeof(copy), NULL, 20 * SEC, NULL), MKV_ERR_UNREACHABLE);
		f.rail_down = 0;
		until_rdma(c);
		round_trip(c, "k", value, copy, sizeof(copy));
		mkv_client_close(c);
	}
	free(value);
}

static unsigned long
sessions_of_rail(struct mkv_client *c, unsigned rail)
{
	return (rails_by(c, rail, by_dc ? "dc" : "rc"));
}

/* Two rails, one of which is down at first: both sessions are the other's, and one goes back when it is there. */
static void
test_rails_share_again(void **state)
{
	struct mkv_client_opts o = { .size = sizeof(o), .transport = "rdma", .rdma_devices = "fake0", .connections = 2 };
	uint8_t copy[5000], *value = fix_bytes(sizeof(copy), 9);
	struct mkv_client *c;

	(void)state;
	f.rails = 2;
	f.rail_down = 1;
	c = fix_client_opts(&o, &f, 1);
	assert_int_equal(mkv_warm(c, 10 * SEC), 0);
	for (unsigned i = 0; i < 1000 && sessions_of_rail(c, 2) != 2; i++)
		(void)usleep(10000);
	assert_int_equal(sessions_of_rail(c, 2), 2);
	f.rail_down = 0;
	for (unsigned i = 0; i < 2000 && (sessions_of_rail(c, 1) != 1 || sessions_of_rail(c, 2) != 1); i++) {
		round_trip(c, "k", value, copy, sizeof(copy));
		(void)usleep(10000);
	}
	assert_int_equal(sessions_of_rail(c, 1), 1);
	assert_int_equal(sessions_of_rail(c, 2), 1);
	assert_int_equal(counter(c, "rdma_downgrades_total"), 0);
	mkv_client_close(c);
	free(value);
}

/* Both sessions are one rail's, and a third is only being tried with the other: those two are not one too many when they come up. */
static void
test_a_try_is_no_session(void **state)
{
	struct mkv_client_opts o = { .size = sizeof(o), .transport = "auto", .rdma_devices = "fake0", .connections = 2 };
	struct mkv_client *c;
	unsigned hellos;

	(void)state;
	f.rails = 2;
	f.rail_down = 1;
	c = fix_client_opts(&o, &f, 1);
	assert_int_equal(mkv_warm(c, 10 * SEC), 0);
	for (unsigned i = 0; i < 1000 && sessions_of_rail(c, 2) != 2; i++)
		(void)usleep(10000);
	hellos = f.rail_hellos;
	f.rail_deaf = 1;
	assert_true(fix_until(&f.rail_hellos, hellos + 1));
	fv_port(0, 1, 0);
	until(c, "tcp");
	fv_port(0, 1, 1);
	for (unsigned i = 0; i < 1000 && counter(c, "rdma_attached_total") < 4; i++)
		(void)usleep(1000);
	(void)usleep(SEC / 10);
	assert_int_equal(sessions_of_rail(c, 2), 2);
	assert_int_equal(counter(c, "sessions_lost_total"), 0);
	f.rail_deaf = f.rail_down = 0;
	for (unsigned i = 0; i < 2000 && (sessions_of_rail(c, 1) != 1 || sessions_of_rail(c, 2) != 1); i++)
		(void)usleep(10000);
	assert_int_equal(sessions_of_rail(c, 1), 1);
	assert_int_equal(sessions_of_rail(c, 2), 1);
	mkv_client_close(c);
}

/* A caller that asks for one value after the other uses both rails in turn. */
static void
test_rails_take_turns(void **state)
{
	struct mkv_client_opts o = { .size = sizeof(o), .transport = "rdma", .rdma_devices = "fake0", .connections = 2 };
	uint8_t copy[5000], *value = fix_bytes(sizeof(copy), 9);
	struct mkv_client *c;

	(void)state;
	f.rails = 2;
	c = fix_client_opts(&o, &f, 1);
	assert_int_equal(mkv_warm(c, 10 * SEC), 0);
	for (unsigned i = 0; i < 1000 && (sessions_of_rail(c, 1) != 1 || sessions_of_rail(c, 2) != 1); i++)
		(void)usleep(10000);
	fake_store(&f, "", K("k"), value, sizeof(copy));
	f.rail_turns = 0;
	for (unsigned i = 0; i < 20; i++)
		assert_int_equal(mkv_get(c, K("k"), copy, sizeof(copy), 10 * SEC, NULL), sizeof(copy));
	assert_true(f.rail_turns >= 19);
	mkv_client_close(c);
	free(value);
}

/* Its queue pair breaks, or its tether ends, under a request: asked again, and nobody hears of it. */
static void
lost_under_a_get(int tether)
{
	struct mkv_client *c = live("auto");
	uint8_t *value = fix_bytes(PART, 3);
	struct getter g;

	fake_store(&f, "", K("value"), value, PART);
	f.rail_mute = 1;
	getter_start(&g, c, PART, 10 * SEC);
	f.rail_mute = 0;
	lose_under(&g, tether, value);
	assert_int_equal(counter(c, "fences_total"), 0);
	mkv_client_close(c);
	free(g.to);
	free(value);
}

static void
test_queue_pair_breaks(void **state)
{
	(void)state;
	lost_under_a_get(0);
}

static void
test_tether_ends(void **state)
{
	(void)state;
	lost_under_a_get(1);
}

static void
test_lies(void **state)
{
	static const int lies[] = { FAKE_BAD_MAC, FAKE_BAD_COUNTER };
	struct mkv_client *c = live("auto");
	uint8_t *value = fix_bytes(PART, 3), *copy = malloc(PART);

	(void)state;
	for (unsigned i = 0; i < (by_dc ? 1u : 2u); i++) {	/* by DC counters may leap */
		f.lie = lies[i];
		f.lies = 1;
		round_trip(c, "k", value, copy, PART);
		assert_int_equal(f.lies, 0);
		assert_int_equal(counter(c, "protocol_errors_total"), i + 1);
		until_rdma(c);
	}
	mkv_client_close(c);
	free(value);
	free(copy);
}

static void
test_wrong_bytes(void **state)
{
	struct mkv_client *c = live("rdma");
	uint8_t *value = fix_bytes(PART, 3), *copy = malloc(PART);

	(void)state;
	fake_store(&f, "", K("value"), value, PART);
	f.lie = FAKE_BAD_CRC;
	f.lies = 1;
	assert_int_equal(mkv_get(c, K("value"), copy, PART, 10 * SEC, NULL), PART);	/* again, after the report, which went by TCP and took the lie */
	assert_memory_equal(copy, value, PART);
	assert_int_equal(counter(c, "corrupt_total"), 1);
	assert_int_equal(f.rail_requests[MKV_WIRE_GET], 2);
	assert_int_equal(f.requests[MKV_WIRE_REPORT], 1);
	assert_int_equal(f.rail_requests[MKV_WIRE_REPORT], 0);
	mkv_client_close(c);
	free(value);
	free(copy);
}

/* ---- no byte after completion ---- */

/* The server answers CANCEL: the call ends by its deadline, and the queue pair lives on. */
static void
test_deadline_cancel(void **state)
{
	uint8_t *value = fix_bytes(PART, 3);
	struct mkv_client *c;
	unsigned attached;
	struct getter g;

	(void)state;
	f.delay_us = SEC / 10;				/* of the PING: a way that is thought to be so long gets its CANCEL early */
	c = live("rdma");
	f.delay_us = 0;
	attached = f.attached;
	fake_store(&f, "", K("value"), value, PART);
	f.rail_mute = by_dc ? 3 : 2;			/* DC: what CANCEL ends has to say so itself */
	getter_start(&g, c, PART, SEC);
	assert_int_equal(getter_end(&g), MKV_ERR_TIMEOUT);
	assert_true(g.took_us < SEC + LATE_US);
	assert_int_equal(f.rail_requests[MKV_WIRE_CANCEL], 1);
	f.rail_mute = 0;
	assert_int_equal(mkv_get(c, K("value"), g.to, PART, 10 * SEC, NULL), PART);
	assert_int_equal(counter(c, "fences_total"), 0);
	assert_int_equal(f.attached, attached);
	mkv_client_close(c);
	free(g.to);
	free(value);
}

/* It does not: the fence ends it in time, and the next request has another queue pair. */
static void
test_deadline_fence(void **state)
{
	struct mkv_client *c = live("auto");
	uint8_t *value = fix_bytes(PART, 3);
	struct getter g;

	(void)state;
	fake_store(&f, "", K("value"), value, PART);
	f.rail_mute = 1;
	getter_start(&g, c, PART, SEC / 2);
	assert_int_equal(getter_end(&g), MKV_ERR_TIMEOUT);
	assert_true(g.took_us < SEC / 2 + LATE_US);
	assert_true(all_are(g.to, PART, 0x77));
	assert_int_equal(counter(c, "fences_total"), 1);
	f.rail_mute = 0;
	until_rdma(c);
	assert_int_equal(mkv_get(c, K("value"), g.to, PART, 10 * SEC, NULL), PART);
	assert_memory_equal(g.to, value, PART);
	mkv_client_close(c);
	free(g.to);
	free(value);
}

/*
 * A device may refuse ERR, and destroying; mlx5 may say that it could not drain a target, which then lives on. So long the call does not return, whatever its
 * deadline: its memory is not safe.
 */
static _Atomic int refuses;

static int
refuse_destroy(struct ibv_qp *qp)
{
	return (refuses ? EINVAL : fv_verbs()->destroy_qp(qp));
}

static int
refuse_error(struct ibv_qp *qp, struct ibv_qp_attr *a, int mask)
{
	return (refuses && a->qp_state == IBV_QPS_ERR ? EINVAL : fv_verbs()->modify_qp(qp, a, mask));
}

static void
test_fence_is_refused(void **state)
{
	static struct mkv_verbs v;
	uint8_t *value = fix_bytes(PART, 3);
	struct mkv_client *c;
	struct getter g;

	(void)state;
	v = *fv_verbs();
	v.destroy_qp = refuse_destroy;
	v.modify_qp = refuse_error;
	mkv_client_verbs = &v;
	c = live("auto");
	fake_store(&f, "", K("value"), value, PART);
	getter_held(&g, c, PART, SEC / 2);
	refuses = 1;
	for (unsigned i = 0; i < 1000 && counter(c, "fences_total") == 0; i++)
		(void)usleep(10000);
	fv_hold(0);					/* it arrives: where it may */
	(void)usleep(SEC / 4);
	assert_false(g.over);
	refuses = 0;
	assert_int_equal(getter_end(&g), MKV_ERR_TIMEOUT);
	assert_memory_equal(g.to, value, PART);
	until_rdma(c);
	assert_int_equal(mkv_get(c, K("value"), g.to, PART, 10 * SEC, NULL), PART);
	mkv_client_close(c);
	free(g.to);
	free(value);
}

/* A rail that brings values and is fenced again and again, as under a server that has too much to do, has not failed: the next request need not wait for its turn. */
static void
test_fences_are_no_failures(void **state)
{
	uint8_t *value = fix_bytes(PART, 3);
	struct mkv_client *c = live("rdma");

	(void)state;
	for (unsigned i = 0; i < 5; i++) {
		f.rail_mute = 0;
		assert_int_equal(mkv_put(c, K("value"), value, PART, NULL, 10 * SEC, NULL), 0);
		f.rail_mute = 1;
		assert_int_equal(mkv_get(c, K("value"), value, PART, SEC / 50, NULL), MKV_ERR_TIMEOUT);
		assert_int_equal(counter(c, "fences_total"), i + 1);
	}
	mkv_client_close(c);
	free(value);
}

/* The same while its WRITE is on the way. */
static void
test_write_on_its_way(void **state)
{
	struct mkv_client *c = live("auto");
	uint8_t *value = fix_bytes(PART, 3);
	struct getter g;

	(void)state;
	fake_store(&f, "", K("value"), value, PART);
	fence_in_the_middle(c, &g, value);
	mkv_client_close(c);
	free(g.to);
	free(value);
}

/* A soft device has a packet in hand when the deadline passes: the call returns when its queue pair is gone, and not when that is in ERR. By DC the target's end is the fence in any case. */
static void
test_packet_in_hand(void **state)
{
	static struct mkv_verbs v;
	uint8_t *value = fix_bytes(PART, 3);
	struct mkv_client *c;
	struct getter g;

	(void)state;
	v = *fv_verbs();
	v.destroy_qp = refuse_destroy;
	mkv_client_verbs = &v;
	c = live("auto");
	c->fabric->d[0].dev->is_soft = !by_dc;
	fake_store(&f, "", K("value"), value, PART);
	fv_quirks(FV_IN_HAND);
	getter_held(&g, c, PART, SEC / 2);
	refuses = 1;
	for (unsigned i = 0; i < 1000 && counter(c, "fences_total") == 0; i++)
		(void)usleep(10000);
	(void)usleep(SEC / 4);
	assert_false(g.over);
	assert_int_equal(fv_land(), !by_dc);
	refuses = 0;
	assert_int_equal(getter_end(&g), MKV_ERR_TIMEOUT);
	fv_quirks(0);
	nothing_lands(&g);
	mkv_client_close(c);
	free(g.to);
	free(value);
}

/* It breaks by the clock while nothing of it is out, and nobody asks for anything then: all the same it is attached again at once. */
static void
test_breaks_in_the_quiet(void **state)
{
	struct mkv_client *c = live("auto");
	unsigned attached = f.attached;
	struct getter g;

	(void)state;
	f.rail_mute = 1;
	getter_start(&g, c, 3000, SEC / 4);
	assert_int_equal(getter_end(&g), MKV_ERR_TIMEOUT);
	for (unsigned i = 0; i < 1000 && counter(c, "rdma_failures_total") == 0; i++)
		(void)usleep(10000);
	f.rail_mute = 0;
	for (unsigned i = 0; i < 500 && f.attached == attached; i++)
		(void)usleep(10000);
	assert_int_equal(f.attached, attached + 1);
	mkv_client_close(c);
	free(g.to);
}

static void
test_cancel(void **state)
{
	struct mkv_client *c = live("rdma");
	uint8_t *value = fix_bytes(PART, 3), *to = malloc(PART);
	uint64_t id;

	(void)state;
	fake_store(&f, "", K("value"), value, PART);
	for (int mute = 2; mute >= 1; mute--) {			/* CANCEL is answered; is not */
		unsigned seen = f.rail_requests[MKV_WIRE_GET];

		f.rail_mute = mute == 2 && by_dc ? 3 : mute;
		id = submit_get(c, to, PART);
		assert_true(fix_until(&f.rail_requests[MKV_WIRE_GET], seen + 1));
		assert_int_equal(mkv_cancel(c, id), 0);
		assert_int_equal(next_result(c), MKV_ERR_CANCELLED);
		assert_int_equal(counter(c, "fences_total"), mute == 1);
	}
	f.rail_mute = 0;
	mkv_client_close(c);
	free(to);
	free(value);
}

static void
test_close(void **state)
{
	(void)state;
	close_with_requests_out(live("auto"));
}

/* The client's port goes down and up again; then its device goes away. */
static void
test_port_and_device(void **state)
{
	struct mkv_client *c = live("auto");
	uint8_t copy[5000], *value = fix_bytes(sizeof(copy), 9);

	(void)state;
	fv_port(0, 1, 0);
	until(c, "tcp");
	round_trip(c, "k", value, copy, sizeof(copy));
	fv_port(0, 1, 1);
	until_rdma(c);
	round_trip(c, "k", value, copy, sizeof(copy));
	fv_gone(0);
	until(c, "tcp");
	round_trip(c, "k", value, copy, sizeof(copy));
	mkv_client_close(c);
	free(value);
}

/* ---- what the program hears ---- */

struct heard {
	_Atomic unsigned n;
	char	text[8][512];
};

static void
hear(void *arg, const char *text)
{
	struct heard *h = arg;

	if (h->n < MKV_ARRAY_LEN(h->text))
		(void)snprintf(h->text[h->n], sizeof(h->text[0]), "%s", text);
	h->n++;
}

/* An address beside the device's own comes and goes: nothing to its rails. Its own goes: they begin anew with what there is. */
static void
test_addresses(void **state)
{
	struct mkv_client *c = live("auto");
	struct fv_device *d = fv_device(0);
	unsigned long attached = counter(c, "rdma_attached_total");
	uint8_t value[3000] = { 9 }, copy[3000];

	(void)state;
	d->gid[4] = d->gid[3];
	d->gid[4].gid_index = 4;
	d->gid[4].gid.raw[15] ^= 0x40;
	d->n_gids = 5;
	fv_event(0, IBV_EVENT_GID_CHANGE, 1);
	(void)usleep(SEC / 5);
	round_trip(c, "k", value, copy, sizeof(value));
	assert_int_equal(counter(c, "rdma_attached_total"), attached);
	assert_int_equal(counter(c, "rdma_failures_total"), 0);
	d->gid[3] = d->gid[4];
	d->gid[3].gid_index = 3;
	d->n_gids = 4;
	fv_event(0, IBV_EVENT_GID_CHANGE, 1);
	for (unsigned i = 0; i < 1000 && counter(c, "rdma_attached_total") == attached; i++)
		(void)usleep(10000);
	assert_int_equal(counter(c, "rdma_attached_total"), attached + 1);
	round_trip(c, "k", value, copy, sizeof(value));
	mkv_client_close(c);
}

/* Each change once, whatever is tried meanwhile; the end of the handle is none. */
static void
test_each_change_is_told_once(void **state)
{
	static const char *transport[] = { "auto", "rdma" }, *way[] = { "go by TCP", "go no other way" };
	struct heard h;

	(void)state;
	for (unsigned i = 0; i < MKV_ARRAY_LEN(transport); i++) {
		struct mkv_client_opts o = { .size = sizeof(o), .transport = transport[i], .rdma_devices = "fake0", .connections = 2, .warn = hear,
			.warn_arg = &h };
		struct mkv_client *c;

		memset(&h, 0, sizeof(h));
		c = fix_client_opts(&o, &f, 1);
		assert_int_equal(mkv_warm(c, 10 * SEC), 0);
		until_rdma(c);
		assert_int_equal(h.n, 0);
		f.attach_status = MKV_E_BUSY;
		fv_port(0, 1, 0);
		until(c, "tcp");
		fv_port(0, 1, 1);
		(void)usleep(SEC / 2);			/* some tries, which are refused */
		assert_int_equal(h.n, 1);
		assert_non_null(strstr(h.text[0], "server s0: "));
		assert_non_null(strstr(h.text[0], way[i]));
		assert_non_null(strstr(h.text[0], "rail 1: "));
		f.attach_status = 0;
		until_rdma(c);
		assert_int_equal(h.n, 2);
		assert_non_null(strstr(h.text[1], "by RDMA again"));
		mkv_client_close(c);
		assert_int_equal(h.n, 2);
	}
}

static struct ibv_device **
no_devices(int *n)
{
	static struct ibv_device *none[1];

	*n = 0;
	return (none);
}

static void
no_list(struct ibv_device **list)
{
	(void)list;
}

/* A host without RDMA to a server that has it: its values go by TCP as they always did, which is no news. */
static void
test_a_host_without_devices_hears_nothing(void **state)
{
	struct mkv_verbs v = *fv_verbs();
	struct heard h = { .n = 0 };
	struct mkv_client_opts o = { .size = sizeof(o), .transport = "auto", .connections = 2, .warn = hear, .warn_arg = &h };
	struct mkv_client *c;

	(void)state;
	v.get_device_list = no_devices;
	v.free_device_list = no_list;
	mkv_client_verbs = &v;
	c = fix_client_opts(&o, &f, 1);
	assert_int_equal(mkv_warm(c, 10 * SEC), 0);
	until(c, "tcp");
	while (counter(c, "rdma_failures_total") < 3)
		(void)usleep(10000);
	mkv_client_close(c);
	mkv_client_verbs = fv_verbs();
	assert_int_equal(h.n, 0);
}

int
main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	const struct CMUnitTest tests[] = {
		T(test_values), T(test_regions), T(test_pieces), T(test_too_many_pieces),
		T(test_server_without_rails), T(test_rail_is_down), T(test_attach_is_refused), T(test_attach_is_not_answered),
		T(test_attach_is_not_what_was_asked_for), T(test_path_does_not_work),
		cmocka_unit_test_setup_teardown(test_no_device, setup_absent, teardown), T(test_exact), T(test_comes_back), T(test_comes_up_later), T(test_rails_share_again), T(test_a_try_is_no_session), T(test_rails_take_turns),
		T(test_queue_pair_breaks), T(test_tether_ends), T(test_lies), T(test_wrong_bytes),
		T(test_deadline_cancel), T(test_deadline_fence), T(test_fences_are_no_failures), T(test_fence_is_refused), T(test_write_on_its_way), T(test_packet_in_hand), T(test_breaks_in_the_quiet), T(test_cancel), T(test_close), T(test_port_and_device),
		T(test_addresses), T(test_each_change_is_told_once), T(test_a_host_without_devices_hears_nothing),
	};

	int r = cmocka_run_group_tests_name("rc", tests, NULL, NULL);

	by_dc = 1;
	return (r + cmocka_run_group_tests_name("dc", tests, NULL, NULL));
}
