/*
 * A front's DC with messages that go by datagrams or by the tether: what counts as two failures of the path in a row. Nothing but payload goes by RDMA here.
 */
#include "config.h"

#include "tests/unit/front_ctl_up.h"
#include "worker/front/rail_priv.h"

/* While it does not work nothing answers at the number that the front has of the client's target. */
static void
path_turn(struct t *t)
{
	chan_of(MKV_CONTAINER_OF(t->r.f->conn_used.next, struct mkv_conn, link))->dct.dctn ^= 1u << 23;
}

static void
put_fails(struct t *t)
{
	const struct t_msg *m;
	struct t_ask a;

	rig_fill(t->mem, 1000, (uint32_t)t->next_id);	/* what is there already is not READ */
	path_turn(t);
	t_make_put(t, &a, "lost", 0, 1000);
	m = t_call(t, &a);
	assert_int_equal(-(int)m->h.status, MKV_E_CLOSED);
	assert_int_equal(m->h.reason, MKV_REASON_PATH);
	path_turn(t);
}

/* Puts alone, whose answers no queue pair carries: that their READs came back says that the path is there. */
static void
what_comes_back_says_that_the_path_is_there(void **state)
{
	(void)state;
	for (unsigned k = 0; k < MKV_ARRAY_LEN(t_both); k++) {
		struct t *t = ctl_opened(t_both[k]);
		struct t_ask a;

		for (unsigned i = 0; i < 4; i++) {
			put_fails(t);
			rig_fill(t->mem, 1000, i);
			t_make_put(t, &a, "k", 0, 1000);
			assert_int_equal(t_call(t, &a)->h.status, 0);
		}
		assert_int_equal(t_count(t, MKV_M_front_channels_broken_total), 0);
		put_fails(t);
		rig_fill(t->mem, 1000, 99);
		path_turn(t);
		t_make_put(t, &a, "lost", 0, 1000);
		assert_int_equal(-(int)t_call(t, &a)->h.status, MKV_E_CLOSED);
		assert_int_equal(t_count(t, MKV_M_front_channels_broken_total), 1);
		closed(t);
	}
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(what_comes_back_says_that_the_path_is_there),
	};

	t_num_dcis = 4;
	return (cmocka_run_group_tests(tests, NULL, NULL));
}
