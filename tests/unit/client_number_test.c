/*
 * The last number that a channel can have on its tether.
 */
#include "config.h"

#include "tests/unit/client_rail_fix.h"

#include "clients/lib/client_priv.h"
#include "clients/lib/rail_priv.h"

static uint32_t qpn;

/* In the loop's thread, before the first ATTACH: as if the rail had broken 65,534 times on its tether. */
static struct ibv_qp *
first_is_last(struct ibv_pd *pd, struct ibv_qp_init_attr *a)
{
	struct rail *r = mkv_rdma_qp_owner(a->qp_context);
	struct ibv_qp *qp = fv_verbs()->create_qp(pd, a);

	if (r->magic == RAIL_MAGIC && qpn == 0 && qp != NULL) {
		r->channel = UINT16_MAX - 1;
		qpn = qp->qp_num;
	}
	return (qp);
}

/* There is no number for another channel on that tether, so there is another tether. */
static void
test_last_number(void **state)
{
	static uint8_t value[100000], copy[100000];
	struct mkv_verbs v = *fv_verbs();
	struct mkv_client *c;

	(void)state;
	v.create_qp = first_is_last;
	mkv_client_verbs = &v;
	memset(value, 7, sizeof(value));
	c = live("auto");
	fv_qp_break(qpn);
	round_trip(c, "k", value, copy, sizeof(value));
	until_rdma(c);
	round_trip(c, "k", value, copy, sizeof(value));
	assert_int_equal(counter(c, "rdma_attached_total"), 2);
	mkv_client_close(c);
}

int
main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test_setup_teardown(test_last_number, setup, teardown) };

	return (cmocka_run_group_tests(tests, NULL, NULL));
}
