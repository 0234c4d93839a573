/*
 * What a network device says of its priorities: a message as the kernel makes it, cut anywhere; and the kernel's own answer.
 */
#include "config.h"
#include "common/base/os.h"

#include <errno.h>
#include <linux/dcbnl.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "common/base/assert.h"
#include "common/base/os_priv.h"

#define MSG_BYTES	1024u

static _Alignas(8) char msg[MSG_BYTES];
static size_t used;

static size_t
put(const void *bytes, size_t n)
{
	size_t at = used;

	assert_true(used + RTA_ALIGN(n) <= sizeof(msg));
	if (bytes != NULL)
		memcpy(msg + used, bytes, n);
	used += RTA_ALIGN(n);
	return (at);
}

static size_t
attr(unsigned type, const void *bytes, size_t n)
{
	struct rtattr a = { .rta_len = (uint16_t)RTA_LENGTH(n), .rta_type = (uint16_t)type };
	size_t at = put(&a, sizeof(a));

	if (n != 0)
		put(bytes, n);
	return (at);
}

/* What was put since belongs to the attribute at `at`. */
static void
within(size_t at)
{
	uint16_t n = (uint16_t)(used - at);

	memcpy(msg + at, &n, sizeof(n));
}

static void
app(uint8_t selector, uint16_t protocol, uint8_t priority)
{
	struct dcb_app a = { .selector = selector, .priority = priority, .protocol = protocol };

	attr(DCB_ATTR_IEEE_APP, &a, sizeof(a));
}

static void
message(void)
{
	struct nlmsghdr h = { .nlmsg_type = RTM_GETDCB };
	struct dcbmsg d = { .cmd = DCB_CMD_IEEE_GET };
	struct ieee_pfc pfc = { .pfc_cap = 8, .pfc_en = 1 << 3 };
	struct ieee_ets ets = { .ets_cap = 8 };
	size_t ieee, table;

	memset(msg, 0, sizeof(msg));
	used = 0;
	put(&h, sizeof(h));
	put(&d, sizeof(d));
	attr(DCB_ATTR_IFNAME, "ens1", 5);
	ieee = attr(DCB_ATTR_IEEE | NLA_F_NESTED, NULL, 0);
	attr(DCB_ATTR_IEEE_ETS, &ets, sizeof(ets));
	table = attr(DCB_ATTR_IEEE_APP_TABLE | NLA_F_NESTED, NULL, 0);
	app(IEEE_8021QAZ_APP_SEL_ETHERTYPE, 26, 1);
	app(IEEE_8021QAZ_APP_SEL_DSCP, 26, 5);
	app(IEEE_8021QAZ_APP_SEL_DSCP, 64, 7);
	app(IEEE_8021QAZ_APP_SEL_DSCP, 46, 6);
	within(table);
	attr(DCB_ATTR_IEEE_PFC, &pfc, sizeof(pfc));
	within(ieee);
	h.nlmsg_len = (uint32_t)used;
	memcpy(msg, &h, sizeof(h));
}

static void
all_of_it(void **state MKV_UNUSED)
{
	struct mkv_os_dcb dcb;

	message();
	assert_int_equal(os_dcb_parse(msg, used, &dcb), 0);
	assert_int_equal(dcb.pfc, 1 << 3);
	assert_int_equal(dcb.of_dscp[26], 5);
	assert_int_equal(dcb.of_dscp[46], 6);
	assert_int_equal(dcb.of_dscp[0], -1);
	assert_int_equal(dcb.of_dscp[63], -1);
}

/* Any length that is not the whole, in memory that ends there: nothing behind it is read, nothing is made up. */
static void
cut_anywhere(void **state MKV_UNUSED)
{
	struct mkv_os_dcb dcb;

	for (uint32_t n = 0; n < used; n++) {
		char *copy = malloc(n + 1);

		assert_non_null(copy);
		memcpy(copy, msg, n);
		if (n >= sizeof(struct nlmsghdr))
			memcpy(copy, &n, sizeof(n));		/* nlmsg_len is the first member */
		(void)os_dcb_parse(copy, n, &dcb);
		assert_true(dcb.pfc == -1 || n + RTA_ALIGN(1) > used);
		free(copy);
	}
}

static void
refusals(void **state MKV_UNUSED)
{
	struct { struct nlmsghdr h; struct nlmsgerr e; } no = { .h = { .nlmsg_len = sizeof(no), .nlmsg_type = NLMSG_ERROR }, .e = { .error = -ENODEV } };
	struct mkv_os_dcb dcb;

	assert_int_equal(os_dcb_parse(&no, sizeof(no), &dcb), -ENODEV);
	no.e.error = 0;
	assert_int_equal(os_dcb_parse(&no, sizeof(no), &dcb), -EBADMSG);
	assert_int_equal(os_dcb_parse(&no, sizeof(no) - 1, &dcb), -EBADMSG);
	assert_int_equal(dcb.pfc, -1);
}

/* The loopback device has no priorities, whatever the kernel. */
static void
the_kernel(void **state MKV_UNUSED)
{
	struct mkv_os_dcb dcb;

	assert_int_equal(mkv_os_dcb("lo", &dcb), -EOPNOTSUPP);
	assert_true(mkv_os_dcb("memkv-none", &dcb) < 0);
	assert_int_equal(mkv_os_dcb("a-name-that-is-too-long", &dcb), -ENODEV);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(all_of_it),
		cmocka_unit_test(cut_anywhere),
		cmocka_unit_test(refusals),
		cmocka_unit_test(the_kernel),
	};

	return (cmocka_run_group_tests(tests, NULL, NULL));
}
