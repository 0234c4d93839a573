/*
 * What DC alone has at libmemkv: which transport a rail gets, whose its target is, answers that have no order, and a server whose initiator fails for one request.
 * The rest of DC is client_rail_test.c's second round.
 *
 * The fabric is the fake one, and its DC what mlx5's driver says of it: that a real target drains before it is gone is in docs/operate/dc-bringup.md, not here.
 */
#include "config.h"
#include "tests/unit/client_rail_fix.h"

#include <errno.h>

#include "common/base/assert.h"
#include "common/base/window.h"

static int
setup_dc(void **state)
{
	by_dc = 1;
	return (setup(state));
}

static unsigned
target_now(void)
{
	return (f.dc_targets[(f.dc_attached - 1) % 8]);
}

/* ---- which transport ---- */

/* Up at once, by RC, whoever could not; and asked so many times for DC. */
static void
by_rc(unsigned asked)
{
	uint8_t copy[PART], *value = fix_bytes(PART, 5);
	struct mkv_client *c;

	by_dc = 0;				/* what live() looks for */
	c = live("rdma");
	round_trip(c, "k", value, copy, PART);
	assert_int_equal(counter(c, "rdma_failures_total"), 0);
	assert_int_equal(f.dc_asked, asked);
	assert_int_equal(f.dc_attached, 0);
	mkv_client_close(c);
	free(value);
}

static void
test_server_has_none(void **state)
{
	(void)state;
	f.rail_dc = 0;
	by_rc(0);
}

static void
test_device_is_none_of_mlx5(void **state)
{
	(void)state;
	fv_device(0)->dc = FV_DC_OTHER_MAKE;
	by_rc(0);
}

static void
test_device_makes_none(void **state)
{
	(void)state;
	fv_device(0)->dc = FV_DC_NO;
	by_rc(0);
}

/* The server lists it and refuses: RC in the same try, and DC is not asked for again there. */
static void
test_server_refuses(void **state)
{
	struct mkv_client *c;

	(void)state;
	f.rail_dc = 2;
	by_rc(1);
	c = live("rdma");
	assert_int_equal(f.dc_asked, 2);		/* another handle */
	fv_port(0, 1, 0);
	until(c, "tcp");
	fv_port(0, 1, 1);
	until_rdma(c);
	assert_int_equal(f.dc_asked, 2);
	assert_int_equal(rails_by(c, 1, "rc"), 1);
	mkv_client_close(c);
}

/* Path MTUs that differ, told with the rail; told with ATTACH's answer. */
static void
test_mtu_of_the_rail(void **state)
{
	(void)state;
	f.rail_mtu = 1024;
	by_rc(0);
}

static void
test_mtu_of_the_answer(void **state)
{
	struct mkv_client *c;

	(void)state;
	f.rail_mtu = 4096;
	f.attach_mtu = 1024;
	by_dc = 0;
	c = live("rdma");
	assert_int_equal(f.dc_attached, 1);
	assert_int_equal(counter(c, "rdma_failures_total"), 0);
	mkv_client_close(c);
}

static void
test_regions_on_demand(void **state)
{
	struct mkv_client_opts o = { .size = sizeof(o), .transport = "rdma", .rdma_devices = "fake0", .connections = 1, .rdma_on_demand = 1 };
	struct mkv_client *c;

	(void)state;
	fv_device(0)->odp_caps = IBV_ODP_SUPPORT_READ | IBV_ODP_SUPPORT_WRITE;
	c = fix_client_opts(&o, &f, 1);
	assert_int_equal(mkv_warm(c, 10 * SEC), 0);
	assert_int_equal(rails_by(c, 1, "rc"), 1);
	mkv_client_close(c);
	fv_device(0)->odp_caps = 0;			/* it pins: DC */
	c = fix_client_opts(&o, &f, 1);
	assert_int_equal(mkv_warm(c, 10 * SEC), 0);
	assert_int_equal(rails_by(c, 1, "dc"), 1);
	mkv_client_close(c);
}

static void
lose_tether(struct mkv_client *c)
{
	unsigned attached = f.attached;

	fake_drop_all(&f);
	for (unsigned i = 0; i < 1000 && f.attached == attached; i++) {
		(void)transport_of(c);			/* who asks for nothing needs no session */
		(void)usleep(10000);
	}
	assert_int_equal(f.attached, attached + 1);
	until_rdma(c);
}

/* It could, and then one cannot be made: no DC on this device any more, whatever rail breaks. Opened anew it has it again. */
static void
fails_once(enum fv_verb verb)
{
	struct mkv_client *c = live("auto");
	unsigned made;

	fv_fail(verb, 1, EOPNOTSUPP);
	lose_tether(c);
	assert_int_equal(fv_fail(verb, 0, 0), 1);
	assert_int_equal(rails_by(c, 1, "rc"), 1);
	made = fv_calls(FV_DC_CREATE_INITIATOR);
	lose_tether(c);
	assert_int_equal(rails_by(c, 1, "rc"), 1);
	assert_int_equal(fv_calls(FV_DC_CREATE_INITIATOR), made);
	mkv_client_close(c);
}

static void
test_target_cannot_be_made(void **state)
{
	(void)state;
	fails_once(FV_DC_CREATE_TARGET);
}

static void
test_initiator_cannot_be_made(void **state)
{
	(void)state;
	fails_once(FV_DC_CREATE_INITIATOR);
}

/* ATTACH's answer has the other transport. */
static void
test_another_transport(void **state)
{
	struct mkv_server_info si = { .size = sizeof(si) };
	struct mkv_client *c;

	(void)state;
	f.attach_lie = 3;
	c = client("auto");
	assert_int_equal(mkv_warm(c, 10 * SEC), 0);
	assert_int_equal(mkv_server_info(c, 0, 5 * SEC, &si), 0);
	assert_string_equal(si.transport, "tcp");
	assert_non_null(strstr(si.transport_why, "do not fit together"));
	mkv_client_close(c);
}

/* ---- whose a target is ---- */

/* Each rail its own: what fences one leaves the other's requests alone. */
static void
test_targets_are_not_shared(void **state)
{
	struct mkv_client_opts o = { .size = sizeof(o), .transport = "rdma", .rdma_devices = "fake0", .connections = 2 };
	uint8_t *value = fix_bytes(PART, 5), copy[PART];
	struct mkv_client *c;
	struct getter g;

	(void)state;
	f.rails = 2;
	c = fix_client_opts(&o, &f, 1);
	assert_int_equal(mkv_warm(c, 10 * SEC), 0);
	assert_true(fix_until(&f.dc_attached, 2));
	assert_int_not_equal(f.dc_targets[0], f.dc_targets[1]);
	fake_store(&f, "", K("value"), value, PART);
	for (unsigned i = 0; i < 1000 && rails_by(c, 1, "dc") + rails_by(c, 2, "dc") != 2; i++)
		(void)usleep(10000);
	f.rail_mute = 1;
	getter_start(&g, c, PART, SEC / 2);
	f.rail_mute = 0;
	assert_int_equal(mkv_get(c, K("value"), copy, PART, 10 * SEC, NULL), PART);	/* the other one: it has fewer requests */
	assert_int_equal(getter_end(&g), MKV_ERR_TIMEOUT);
	assert_int_equal(counter(c, "fences_total"), 1);
	assert_int_equal((fv_qp_state(f.dc_targets[0]) == IBV_QPS_RTR) + (fv_qp_state(f.dc_targets[1]) == IBV_QPS_RTR), 1);
	mkv_client_close(c);
	free(g.to);
	free(value);
}

/* The target is gone from the NIC before the call returns, and the next request has another one. */
static void
test_fence(void **state)
{
	struct mkv_client *c = live("auto");
	uint8_t *value = fix_bytes(PART, 3);
	unsigned target = target_now();
	struct getter g;

	(void)state;
	fake_store(&f, "", K("value"), value, PART);
	assert_int_equal(fv_qp_state(target), IBV_QPS_RTR);
	fence_in_the_middle(c, &g, value);
	assert_int_equal(fv_qp_state(target), IBV_QPS_UNKNOWN);
	until_rdma(c);
	assert_int_not_equal(target_now(), target);
	assert_int_equal(mkv_get(c, K("value"), g.to, PART, 10 * SEC, NULL), PART);
	assert_memory_equal(g.to, value, PART);
	assert_int_equal(counter(c, "fences_total"), 1);
	mkv_client_close(c);
	free(g.to);
	free(value);
}

/* ---- answers without order ---- */

static void
many_round_trips(struct mkv_client *c, unsigned n)
{
	uint8_t *value = fix_bytes(2 * PART, 5), *copy = malloc(2 * PART);

	for (unsigned i = 0; i < n; i++)
		round_trip(c, "k", value + i, copy, i % 2 == 0 ? 3000 : 2 * PART - 7 * i);
	free(value);
	free(copy);
}

static void
test_counters_out_of_order(void **state)
{
	struct mkv_client *c;

	(void)state;
	f.dc_swap = 1;
	c = live("rdma");
	many_round_trips(c, 30);
	assert_int_equal(counter(c, "rdma_replayed_total"), 0);
	assert_int_equal(counter(c, "protocol_errors_total"), 0);
	mkv_client_close(c);
}

static void
test_answers_come_twice(void **state)
{
	struct mkv_client *c;
	unsigned answers;

	(void)state;
	f.dc_twice = 1;
	c = live("rdma");
	many_round_trips(c, 30);
	f.dc_twice = 0;
	many_round_trips(c, 1);
	answers = f.rail_requests[MKV_WIRE_PING] + 30 + 30 / 2 * 3 + 15 * 1;
	assert_true(counter(c, "rdma_replayed_total") >= 60 && counter(c, "rdma_replayed_total") <= answers);
	assert_int_equal(counter(c, "late_replies_total"), 0);	/* they were known by their counters */
	assert_int_equal(counter(c, "protocol_errors_total"), 0);
	assert_int_equal(f.dc_attached, 1);
	mkv_client_close(c);
}

/* One answer leaps ahead; those behind it are within the window, or too old to tell. */
static void
test_old_counters(void **state)
{
	struct mkv_client *c;
	uint8_t v[100] = { 1 };

	(void)state;
	c = live("auto");
	f.dc_leap = MKV_WINDOW_BITS - 10;
	many_round_trips(c, 1);				/* put: leaps; get: behind it, and good */
	assert_int_equal(counter(c, "rdma_replayed_total"), 0);
	f.dc_leap = 3 * MKV_WINDOW_BITS;
	assert_int_equal(mkv_put(c, K("a"), v, sizeof(v), NULL, 10 * SEC, NULL), 0);
	assert_int_equal(mkv_put(c, K("b"), v, sizeof(v), NULL, SEC / 2, NULL), MKV_ERR_TIMEOUT);
	assert_true(counter(c, "rdma_replayed_total") >= 1);
	until_rdma(c);
	many_round_trips(c, 2);
	mkv_client_close(c);
}

/* ---- an initiator of the server that fails ---- */

/* Our NIC refused: this request goes another way, and nobody else hears of it. */
static void
test_nic_refused(void **state)
{
	struct mkv_client *c = live("auto");
	uint8_t *value = fix_bytes(PART, 3), *copy = malloc(PART);

	(void)state;
	f.dc_fail = MKV_REASON_NIC_REFUSED;
	round_trip(c, "k", value, copy, PART);
	assert_int_equal(f.dc_failed, 2);
	assert_int_equal(counter(c, "rdma_refused_total"), 2);
	f.dc_fail = 0;
	round_trip(c, "k", value, copy, PART);
	assert_int_equal(counter(c, "rdma_refused_total"), 2);
	assert_int_equal(counter(c, "fences_total"), 0);
	assert_int_equal(f.dc_attached, 1);
	mkv_client_close(c);
	c = live("rdma");
	f.dc_fail = MKV_REASON_NIC_REFUSED;
	assert_int_equal(mkv_get(c, K("k"), copy, PART, 10 * SEC, NULL), MKV_ERR_UNSUPPORTED);
	f.dc_fail = 0;
	mkv_client_close(c);
	free(value);
	free(copy);
}

/* The path failed, bytes are on their way: the fence, then by another way; not a byte of the first attempt lands after the call has returned. */
static void
path_failed(size_t n)
{
	struct mkv_client *c = live("auto");
	uint8_t *value = fix_bytes(PART, 3);
	unsigned target = target_now();
	struct getter g;

	fake_store(&f, "", K("value"), value, n);
	f.dc_fail = MKV_REASON_PATH;
	getter_start(&g, c, n, 10 * SEC);
	while (fv_held() < 2)				/* the answer, the WRITE */
		(void)usleep(1000);
	f.dc_fail = 0;
	assert_int_equal(fv_step(1), 1);
	assert_int_equal(getter_end(&g), n);
	assert_memory_equal(g.to, value, n);
	assert_int_equal(fv_qp_state(target), IBV_QPS_UNKNOWN);
	assert_int_equal(counter(c, "fences_total"), 1);
	assert_int_equal(f.rail_requests[MKV_WIRE_GET], 1);	/* the second attempt was by TCP */
	nothing_lands(&g);
	until_rdma(c);
	assert_int_equal(mkv_get(c, K("value"), g.to, n, 10 * SEC, NULL), n);
	assert_memory_equal(g.to, value, n);
	mkv_client_close(c);
	free(g.to);
	free(value);
}

static void
test_path_failed(void **state)
{
	(void)state;
	path_failed(PART);
}

/* A small one is never lent, but its buffer is the next one's. */
static void
test_path_failed_bounced(void **state)
{
	(void)state;
	path_failed(3000);
}

/* Of a put nothing is written here: it is repeated, and the rail stays. */
static void
test_path_failed_for_put(void **state)
{
	struct mkv_client *c = live("rdma");
	uint8_t *value = fix_bytes(PART, 3), *copy = malloc(PART);
	struct mkv_key key = { "k", 1 };
	struct iovec iov = { value, PART };
	struct mkv_request q = { .size = sizeof(q), .op = MKV_OP_PUT, .keys = &key, .n_keys = 1, .iov = &iov, .n_iov = 1, .deadline_us = 20 * SEC };
	uint64_t id;

	(void)state;
	f.dc_fail = MKV_REASON_PATH;
	assert_int_equal(mkv_submit(c, &q, &id), 0);
	assert_true(fix_until(&f.dc_failed, 1));
	f.dc_fail = 0;
	assert_int_equal(next_result(c), 0);
	assert_int_equal(mkv_get(c, K("k"), copy, PART, 10 * SEC, NULL), PART);
	assert_memory_equal(copy, value, PART);
	assert_true(counter(c, "retries_total") >= 1);
	assert_int_equal(counter(c, "fences_total"), 0);
	assert_int_equal(f.dc_attached, 1);
	mkv_client_close(c);
	free(value);
	free(copy);
}

/* A get that its caller cancels; the server answers CANCEL, and the get itself never. */
static void
cancelled_unheard(struct mkv_client *c, uint8_t *to, size_t n)
{
	uint64_t id;

	f.rail_mute = 2;
	id = submit_get(c, to, n);
	assert_true(fix_until(&f.rail_requests[MKV_WIRE_GET], 1));
	assert_int_equal(mkv_cancel(c, id), 0);
	assert_int_equal(next_result(c), MKV_ERR_CANCELLED);
}

/*
 * The answer that says so is lost, as the path is. CANCEL's comes, by another initiator, and knows nothing of that request's bytes: it is no reason to let
 * go of the memory. So the call returns after the fence.
 */
static void
test_answer_lost(void **state)
{
	struct mkv_client *c = live("auto");
	uint8_t *to = malloc(PART);
	unsigned target = target_now();

	(void)state;
	cancelled_unheard(c, to, PART);
	assert_int_equal(fv_qp_state(target), IBV_QPS_UNKNOWN);
	assert_true(fix_until(&f.rail_requests[MKV_WIRE_CANCEL], 1));
	f.rail_mute = 0;
	until_rdma(c);
	many_round_trips(c, 2);
	mkv_client_close(c);
	free(to);
}

/* A small one's caller may leave at once; the buffer it went by is kept until the rail is fenced for it, though others are answered meanwhile. */
static void
test_answer_lost_bounced(void **state)
{
	struct mkv_client *c = live("rdma");
	uint8_t to[3000], v[100] = { 1 };
	unsigned target = target_now();

	(void)state;
	cancelled_unheard(c, to, sizeof(to));
	assert_true(fix_until(&f.rail_requests[MKV_WIRE_CANCEL], 1));
	f.rail_mute = 0;
	for (unsigned i = 0; i < 3000 && fv_qp_state(target) != IBV_QPS_UNKNOWN; i++) {
		assert_int_equal(mkv_put(c, K("k"), v, sizeof(v), NULL, 10 * SEC, NULL), 0);
		(void)usleep(10000);
	}
	assert_int_equal(fv_qp_state(target), IBV_QPS_UNKNOWN);
	until_rdma(c);
	many_round_trips(c, 2);
	mkv_client_close(c);
}

/* The client's own initiator breaks: a rail like any that broke. */
static void
test_own_initiator_breaks(void **state)
{
	struct mkv_client *c = live("auto");
	uint8_t *value = fix_bytes(PART, 3);
	unsigned target = target_now(), n;
	struct fv_wr w[FV_LOG];
	struct getter g;

	(void)state;
	fake_store(&f, "", K("value"), value, PART);
	f.rail_mute = 1;
	getter_start(&g, c, PART, 10 * SEC);
	f.rail_mute = 0;
	n = fv_log(w, FV_LOG);
	assert_int_equal(w[n - 1].opcode, IBV_WR_SEND);
	assert_int_not_equal(w[n - 1].dctn, target);	/* ours */
	lose_under(&g, 0, value);
	assert_int_equal(fv_qp_state(target), IBV_QPS_UNKNOWN);
	until_rdma(c);
	mkv_client_close(c);
	free(g.to);
	free(value);
}

/* The device goes away, and comes back: by DC again, with a new target. */
static void
test_device_comes_back(void **state)
{
	struct mkv_client *c = live("auto");
	unsigned tries = fv_calls(FV_DC_CREATE_TARGET);

	(void)state;
	many_round_trips(c, 2);
	fv_device(0)->gid[3].gid.raw[15] ^= 0x40;
	fv_event(0, IBV_EVENT_GID_CHANGE, 1);		/* it is closed and opened again */
	assert_true(fix_until(&f.dc_attached, 2));
	until_rdma(c);
	assert_true(fv_calls(FV_DC_CREATE_TARGET) >= tries + 3);	/* tried, made; and the server made one */
	assert_int_equal(rails_by(c, 1, "dc"), 1);
	many_round_trips(c, 2);
	fv_gone(0);
	until(c, "tcp");
	many_round_trips(c, 2);
	mkv_client_close(c);
}

int
main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, setup_dc, teardown)
	const struct CMUnitTest tests[] = {
		T(test_server_has_none), T(test_device_is_none_of_mlx5), T(test_device_makes_none), T(test_server_refuses), T(test_mtu_of_the_rail),
		T(test_mtu_of_the_answer), T(test_regions_on_demand), T(test_target_cannot_be_made), T(test_initiator_cannot_be_made), T(test_another_transport),
		T(test_targets_are_not_shared), T(test_fence), T(test_counters_out_of_order), T(test_answers_come_twice), T(test_old_counters),
		T(test_nic_refused), T(test_path_failed), T(test_path_failed_bounced), T(test_path_failed_for_put), T(test_answer_lost),
		T(test_answer_lost_bounced), T(test_own_initiator_breaks), T(test_device_comes_back),
	};

	return (cmocka_run_group_tests(tests, NULL, NULL));
}
