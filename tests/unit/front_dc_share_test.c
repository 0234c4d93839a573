/*
 * A front's DC initiators among several sessions: what one of them may have while others may want some.
 */
#include "config.h"

#include "tests/unit/front_guest.h"
#include "worker/front/rail_priv.h"

#define DCIS	12u			/* of which two are for PING and CANCEL */

/* The front alone: what comes to the client waits there. */
static void
front_pump(struct t *t)
{
	mkv_rdma_hub_flush(t->u.hub);
	for (unsigned i = 0; i < 8; i++)
		rig_pump(&t->r);
}

/*
 * One that wants all gets half, and while it waits for more the next one is served at once. Nobody spins for what he may not have. Alone it gets all that it wants.
 */
static void
a_session_leaves_some_to_others(void **state)
{
	struct t *t = opened(DCIS);
	const struct mkv_chan *ours, *theirs;
	struct guest g;

	(void)state;
	assert_int_equal(t_put(t, "k", 0, 1000, 1000), 0);
	ours = chan_of(MKV_CONTAINER_OF(t->r.f->conn_used.next, struct mkv_conn, link));
	guest_open(t, &g);
	theirs = chan_of(g.conn);
	t_drives(t, 1);
	for (unsigned i = 0; i < 8; i++)
		(void)t_ask_get(t, "k", 0, 100000 + i * 1000, 1000, 1000);
	front_pump(t);
	assert_int_equal(ours->n_lines, 5);
	assert_int_equal(ours->n_held, 3);
	assert_int_equal(M(dci_shares_total), 1);
	for (unsigned i = 0; i < 5; i++)
		guest_ask_get(t, &g, "k");
	front_pump(t);
	assert_int_equal(theirs->n_lines, 3);
	assert_int_equal(M(dci_shares_total), 2);
	assert_int_equal(mkv_rdma_pool_free(t->rail->pool), DCIS - 8);
	assert_int_equal(rail_dc_is_due(t->rail), 0);
	guest_close(&g);
	for (unsigned i = 0; i < 1000 && ours->n_held != 0; i++)
		rig_pump_ms(&t->r, 1);
	assert_int_equal(ours->n_lines, 8);
	t_drives(t, 0);
	for (unsigned i = 0; i < 8; i++)
		assert_int_equal(t_next(t)->h.status, 0);
	closed(t);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_session_leaves_some_to_others),
	};

	return (cmocka_run_group_tests(tests, NULL, NULL));
}
