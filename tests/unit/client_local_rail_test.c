/*
 * libmemkv and a server on its own host that has a rail as well: who serves while its unix socket is away, and what becomes of the rail when it is back.
 */
#include "config.h"
#include "tests/unit/client_rail_fix.h"
#include "tests/unit/client_warn.h"

static char path[64];

static int
setup_away(void **state)
{
	struct fake_opts o = { .part_bytes = PART, .local_path = path };

	(void)state;
	n_warned = 0;
	fv_start(2);
	fv_dc(FV_DC_OTHER_MAKE);
	mkv_client_verbs = fv_verbs();
	fakerail_use();
	(void)snprintf(path, sizeof(path), "/tmp/client-local-rail-%d", (int)getpid());
	assert_int_equal(fake_open(&f, &o), 0);
	f.rails = 1;
	f.local = 1;
	fake_local_away(&f);
	return (0);
}

/* Rails leave when it is back: that is no failure of theirs, and values do not go by TCP. */
static void
test_rails_meanwhile(void **state)
{
	struct mkv_client_opts o = { .size = sizeof(o), .transport = "auto", .rdma_devices = "fake0", .connections = 1, .warn = on_warn };
	uint8_t copy[5000], *value = fix_bytes(sizeof(copy), 9);
	struct mkv_client *c = fix_client_opts(&o, &f, 1);
	unsigned gets;

	(void)state;
	for (int round = 0; round < 2; round++) {
		until_rdma(c);
		gets = f.rail_requests[MKV_WIRE_GET];
		round_trip(c, "k", value, copy, sizeof(copy));
		assert_int_equal(f.rail_requests[MKV_WIRE_GET], gets + 1);
		assert_int_equal(fake_local_back(&f), 0);
		until(c, "local");
		for (int i = 0; i < 1000 && rails_by(c, 1, "rc") > 0; i++)
			(void)usleep(10000);
		assert_int_equal(rails_by(c, 1, "rc"), 0);
		round_trip(c, "k", value, copy, sizeof(copy));
		assert_int_equal(f.rail_requests[MKV_WIRE_GET], gets + 1);
		fake_local_away(&f);
	}
	until_rdma(c);
	mkv_client_close(c);
	for (unsigned i = 0; i < MKV_MIN(n_warned, MKV_ARRAY_LEN(warned)); i++)
		if (strstr(warned[i], "its socket on this host") == NULL)
			fail_msg("%u: %s", i, warned[i]);
	assert_int_equal(n_warned, 3);			/* away, back, away: before it had answered once nobody missed it */
	free(value);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_rails_meanwhile, setup_away, teardown),
	};

	return (cmocka_run_group_tests_name("client_local_rail", tests, NULL, NULL));
}
