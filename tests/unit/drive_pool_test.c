/*
 * A drive that closes, its engine gone already, and the supervisor, which does not know that yet, asks or tells it something: it goes on closing. To end
 * for that would be to end before the last checkpoint.
 */
#include "config.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "common/base/err.h"
#include "worker/drive/drive.h"

static void
test_closing(void **state)
{
	static struct mkv_worker w;
	static struct drive d = { .w = &w };
	uint8_t name[MKV_DRV_NS_MAX + 1] = "ns", digests[2 * sizeof(struct mkv_digest)] = { 0 };
	Mkv__Ctl__Control m = MKV__CTL__CONTROL__INIT;
	Mkv__Ctl__Purge purge = MKV__CTL__PURGE__INIT;
	Mkv__Ctl__SpacesAsk spaces = MKV__CTL__SPACES_ASK__INIT;
	Mkv__Ctl__Forget forget = MKV__CTL__FORGET__INIT;
	Mkv__Ctl__PoolMap map = MKV__CTL__POOL_MAP__INIT;

	(void)state;
	w.state = MKV_WORKER_ENDED;			/* what it would say goes nowhere */
	m.body_case = MKV__CTL__CONTROL__BODY_PURGE;
	m.purge = &purge;
	purge.name = (ProtobufCBinaryData){ .len = 2, .data = name };
	assert_int_equal(drive_pool_message(&d, &m), 0);
	purge.name.len = sizeof(name);
	assert_int_equal(drive_pool_message(&d, &m), MKV_E_PROTO);
	m.body_case = MKV__CTL__CONTROL__BODY_SPACES_ASK;
	m.spaces_ask = &spaces;
	assert_int_equal(drive_pool_message(&d, &m), 0);
	m.body_case = MKV__CTL__CONTROL__BODY_FORGET;
	m.forget = &forget;
	forget.digests = (ProtobufCBinaryData){ .len = sizeof(digests), .data = digests };
	assert_int_equal(drive_pool_message(&d, &m), 0);
	forget.digests.len--;
	assert_int_equal(drive_pool_message(&d, &m), MKV_E_PROTO);
	m.body_case = MKV__CTL__CONTROL__BODY_POOL_MAP;
	m.pool_map = &map;
	map.version = 7;
	assert_int_equal(drive_pool_message(&d, &m), 0);
	map.version = 0;
	assert_int_equal(drive_pool_message(&d, &m), MKV_E_PROTO);
}

int
main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(test_closing) };

	return (cmocka_run_group_tests(tests, NULL, NULL));
}
