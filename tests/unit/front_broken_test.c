/*
 * A channel that breaks at the front, with messages by RDMA: the client hears of it by its tether, at once.
 */
#include "config.h"

#include "tests/unit/front_rail_up.h"

/* By RC and by DC, whatever the client has out: nothing here. Once for each channel; not of one that the client itself has given up. */
static void
the_client_hears_of_it(void **state)
{
	uint8_t body[4000];

	(void)state;
	for (uint32_t dcis = 0; dcis <= 4; dcis += 4) {
		struct t *t = opened(dcis);

		for (uint16_t channel = 2; channel < 4; channel++) {
			(void)t_send(t, MKV_WIRE_EXISTS, 0, 0, body, rig_keys_body(body, "k%u", 0, 3), 0);
			mkv_rdma_hub_flush(t->u.hub);
			for (unsigned i = 0; i < 4; i++)
				rig_pump(&t->r);
			assert_int_equal(rig_recv(&t->c, 0), 0);
			assert_int_equal(t->c.detached, channel - 1);
			assert_int_equal(-(int)t->c.f.hdr.status, MKV_E_CLOSED);
			t_detach(t);
			t_attach(t, channel);
		}
		t_detach(t);
		t_attach(t, 4);
		assert_int_equal(t_get(t, "nothing", 0, 0, 100, 100), MKV_E_MISS);
		assert_int_equal(t->c.detached, 2);
		closed(t);
	}
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_client_hears_of_it),
	};

	return (cmocka_run_group_tests(tests, NULL, NULL));
}
