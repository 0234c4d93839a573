/*
 * DC on the fake fabric, when all goes well: targets and initiators in every state, work requests field by field, the pool's turns, address handles; and that a
 * device without DC says why.
 */
#include "config.h"
#include "common/rdma/dc.h"

#include <errno.h>

#include "common/base/assert.h"
#include "tests/lib/death.h"
#include "tests/lib/fail.h"
#include "tests/unit/rdma_dc_up.h"

static void
a_device_says_why_it_has_none(void **state)
{
	struct mkv_verbs bare = *fv_verbs();
	char why[256] = "";
	struct up a, b;
	unsigned alive;

	(void)state;
	up_both(&a, &b);
	alive = fv_alive();
	assert_int_equal(mkv_rdma_dc_try(a.hub, why, sizeof(why)), 0);
	assert_string_equal(why, "RDMA device fake0 has no DC: it is none of mlx5");
	fv_dc(FV_DC_NO);
	assert_int_equal(mkv_rdma_dc_try(a.hub, why, sizeof(why)), 0);
	assert_string_equal(why, "RDMA device fake0 makes no DC initiator: Operation not supported");
	assert_int_equal(fv_calls(FV_DC_CREATE_INITIATOR), 1);		/* no use in trying other sizes */
	fv_dc(FV_DC_YES);
	fv_fail(FV_DC_CREATE_TARGET, 1, EOPNOTSUPP);
	assert_int_equal(mkv_rdma_dc_try(a.hub, why, sizeof(why)), 0);
	assert_string_equal(why, "RDMA device fake0 makes no DC target: Operation not supported");
	for (unsigned i = 1; i <= 5; i++) {		/* three changes of state of the one, two of the other */
		fv_fail(FV_MODIFY_QP, i, EINVAL);
		assert_int_equal(mkv_rdma_dc_try(a.hub, why, sizeof(why)), 0);
		assert_non_null(strstr(why, i <= 3 ? "initiator: Invalid argument" : "target: Invalid argument"));
	}
	assert_int_equal(mkv_rdma_dc_try(a.hub, why, sizeof(why)), 1);
	assert_int_equal(fv_alive(), alive);
	up_close(&a);
	bare.dc_supported = NULL;
	up_open_by(&a, "fake0", &bare, 4 * UP_SENDS);
	assert_int_equal(mkv_rdma_dc_try(a.hub, why, sizeof(why)), 0);
	assert_string_equal(why, "memkv was built without mlx5dv, and so without DC");
	up_none(&a, &b);
}

static void
bytes_and_messages_go(void **state)
{
	struct up a, b;

	(void)state;
	dc_both(&a, &b);
	dc_pair(&a, &b);
	memset(a.area, 0x5a, UP_AREA);
	up_write(&a, &b, 64, 4096, 0);
	up_say(&a, "behind it", 10, 0);
	up_turn(&a, &b);
	assert_int_equal(a.good, 2);
	assert_int_equal(b.msgs, 1);
	assert_string_equal((char *)b.last, "behind it");
	assert_memory_equal(a.area + 64, b.area + 64, 4096);
	assert_int_equal(b.area[63] | b.area[4160], 0);
	memset(b.area, 0x33, UP_AREA);
	up_read(&a, &b, 8192, 4096, 0);
	up_turn(&a, &b);
	assert_memory_equal(a.area + 8192, b.area + 8192, 4096);
	assert_int_equal(b.dones, 0);
	up_end(&a, &b);
	up_none(&a, &b);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_device_says_why_it_has_none),
		cmocka_unit_test(bytes_and_messages_go),
	};

	return (cmocka_run_group_tests(tests, NULL, NULL));
}
