/*
 * libmemkv and a server whose address on the rail's network the kernel takes its time to find: by RC in the call to RTR, by DC in the one that makes an address
 * handle. All else that its loop has to do goes on.
 */
#include "config.h"
#include "tests/unit/client_rail_fix.h"

#include <errno.h>

static _Atomic unsigned looked_up, inside;	/* look-ups that have begun; that have not ended */
static _Atomic int slow, nobody;		/* they take until this is 0 again; there is no such address */
static uint64_t most_ns;			/* or so long */

static int
look_up(void)
{
	uint64_t end = mkv_now_ns() + most_ns;

	inside++;
	looked_up++;
	while (slow && mkv_now_ns() < end)
		(void)usleep(1000);
	inside--;
	return (nobody ? ETIMEDOUT : 0);
}

static struct ibv_ah *
slow_create_ah(struct ibv_pd *pd, struct ibv_ah_attr *a)
{
	return ((errno = look_up()) != 0 ? NULL : fv_verbs()->create_ah(pd, a));
}

static int
slow_modify_qp(struct ibv_qp *qp, struct ibv_qp_attr *a, int mask)
{
	int e;

	return ((mask & IBV_QP_DEST_QPN) != 0 && (e = look_up()) != 0 ? e : fv_verbs()->modify_qp(qp, a, mask));
}

static int
setup_slow(void **state)
{
	static struct mkv_verbs v;

	v = *fv_verbs();
	v.create_ah = slow_create_ah;
	v.modify_qp = slow_modify_qp;
	looked_up = inside = 0;
	slow = nobody = 0;
	most_ns = 20 * MKV_NS_PER_SEC;
	if (setup(state) != 0)
		return (-1);
	mkv_client_verbs = &v;
	return (0);
}

static const char *
why_not(struct mkv_client *c)
{
	static struct mkv_server_info si;

	si.size = sizeof(si);
	assert_int_equal(mkv_server_info(c, 0, 5 * SEC, &si), 0);
	return (si.transport_why);
}

static void
until_why(struct mkv_client *c, const char *why)
{
	for (unsigned i = 0; i < 1000 && strstr(why_not(c), why) == NULL; i++)
		(void)usleep(10000);
	if (strstr(why_not(c), why) == NULL)
		fail_msg("\"%s\" does not say \"%s\"", why_not(c), why);
}

static void
test_others_go_on(void **state)
{
	uint8_t copy[5000], *value = fix_bytes(sizeof(copy), 9);
	struct mkv_client *c;

	(void)state;
	slow = 1;
	c = client("auto");
	assert_string_equal(transport_of(c), "tcp");
	assert_true(fix_until(&looked_up, 1));
	round_trip(c, "k", value, copy, sizeof(copy));
	assert_int_equal(inside, 1);
	assert_int_equal(f.rail_requests[MKV_WIRE_GET], 0);
	slow = 0;
	until_rdma(c);
	round_trip(c, "k", value, copy, sizeof(copy));
	assert_int_equal(f.rail_requests[MKV_WIRE_GET], 1);
	mkv_client_close(c);
	free(value);
}

/* It is tried again, and works when there is one. */
static void
test_nobody_is_there(void **state)
{
	struct mkv_client *c;

	(void)state;
	nobody = 1;
	c = client("auto");
	until_why(c, "no way to the server's address");
	assert_string_equal(transport_of(c), "tcp");
	nobody = 0;
	until_rdma(c);
	mkv_client_close(c);
}

/* Longer than a try may: that one is given up, and there is no other before the kernel has let go of its queue pair. */
static void
test_takes_too_long(void **state)
{
	struct mkv_client *c;

	(void)state;
	slow = 1;
	c = client("auto");
	until_why(c, "does not find the server's address");
	assert_int_equal(inside, 1);
	slow = 0;
	until_rdma(c);
	mkv_client_close(c);
}

/* The port goes down in the middle of it, and the device is given up: not by the loop waiting for the kernel. */
static void
test_port_goes_meanwhile(void **state)
{
	uint8_t copy[5000], *value = fix_bytes(sizeof(copy), 9);
	struct mkv_client *c;

	(void)state;
	slow = 1;
	c = client("auto");
	assert_string_equal(transport_of(c), "tcp");
	assert_true(fix_until(&looked_up, 1));
	fv_port(0, 1, 0);
	(void)usleep(SEC / 5);
	round_trip(c, "k", value, copy, sizeof(copy));
	assert_int_equal(inside, 1);
	slow = 0;
	fv_port(0, 1, 1);
	until_rdma(c);
	mkv_client_close(c);
	free(value);
}

/* The handle is closed in the middle of it: teardown() looks that nothing of the fabric is left. */
static void
test_closed_meanwhile(void **state)
{
	struct mkv_client *c;

	(void)state;
	slow = 1;
	most_ns = MKV_NS_PER_SEC / 2;
	c = client("auto");
	assert_string_equal(transport_of(c), "tcp");
	assert_true(fix_until(&looked_up, 1));
	mkv_client_close(c);
	assert_int_equal(inside, 0);
}

int
main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, setup_slow, teardown)
	const struct CMUnitTest tests[] = {
		T(test_others_go_on), T(test_nobody_is_there), T(test_takes_too_long), T(test_port_goes_meanwhile),
		T(test_closed_meanwhile),
	};

	int r = cmocka_run_group_tests_name("rc", tests, NULL, NULL);

	by_dc = 1;
	return (r + cmocka_run_group_tests_name("dc", tests, NULL, NULL));
}
