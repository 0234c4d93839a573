/*
 * proto/wire.c: the header check and the body cursor, against good frames and every way to damage one.
 */
#include "config.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "common/base/err.h"
#include "proto/wire.h"

static struct mkv_hdr
wire_good(uint8_t op, uint16_t flags)
{
	struct mkv_hdr h = { .magic = { 'M', 'K', 'V', 1 }, .version = MKV_WIRE_VERSION, .op = op, .flags = flags };

	if ((flags & MKV_WIRE_F_REPLY) == 0) {
		h.request_id = 1;
		h.deadline_us = 1000;
	}
	return (h);
}

static void
wire_ops_are_unique(void **state)
{
	unsigned seen[256] = { 0 };

	(void)state;
#define MKV_OP(name, num, text, flags, body_max)			\
	assert_int_equal(seen[num]++, 0);				\
	assert_non_null(mkv_wire_op_row(num));				\
	assert_string_equal(mkv_wire_op_row(num)->label, text);	\
	assert_true((body_max) <= MKV_WIRE_BODY_MAX);
#include "proto/wire_ops.def"
#undef MKV_OP
	assert_null(mkv_wire_op_row(0));
	assert_null(mkv_wire_op_row(255));
}

static void
wire_good_headers(void **state)
{
	struct mkv_hdr h;

	(void)state;
	h = wire_good(MKV_WIRE_HELLO, 0);
	assert_int_equal(mkv_wire_hdr_check(&h, 0, 0), 0);
	h = wire_good(MKV_WIRE_GET, 0);
	assert_int_equal(mkv_wire_hdr_check(&h, 0, 1), 0);
	h = wire_good(MKV_WIRE_PUT, MKV_WIRE_F_PAYLOAD | MKV_WIRE_F_MORE);
	h.payload_bytes = MKV_WIRE_PART_MAX;
	assert_int_equal(mkv_wire_hdr_check(&h, 0, 1), 0);
	h = wire_good(MKV_WIRE_GET, MKV_WIRE_F_REPLY | MKV_WIRE_F_PAYLOAD);
	h.payload_bytes = 1;
	assert_int_equal(mkv_wire_hdr_check(&h, 1, 1), 0);
}

static void
wire_bad_headers(void **state)
{
	const struct mkv_hdr get = wire_good(MKV_WIRE_GET, 0);
	struct mkv_hdr h;

	(void)state;
#define BAD(err, change)	do { h = get; change; assert_int_equal(mkv_wire_hdr_check(&h, 0, 1), err); } while (0)
	BAD(MKV_E_PROTO, h.magic[0] = 'X');
	BAD(MKV_E_PROTO, h.magic[3] = 2);
	BAD(MKV_E_VERSION, h.version = MKV_WIRE_VERSION + 1);
	BAD(MKV_E_PROTO, h.op = 200);
	BAD(MKV_E_PROTO, h.flags = 1 << 15);
	BAD(MKV_E_PROTO, h.flags = MKV_WIRE_F_REPLY);
	BAD(MKV_E_PROTO, h.body_bytes = 12);
	BAD(MKV_E_PROTO, h.body_bytes = mkv_wire_op_row(MKV_WIRE_GET)->body_max + 8);
	BAD(MKV_E_PROTO, h.body_bytes = UINT32_MAX - 7);
	BAD(MKV_E_PROTO, h.payload_bytes = 8);
	BAD(MKV_E_PROTO, (h.payload_bytes = 8, h.flags = MKV_WIRE_F_PAYLOAD));
	BAD(MKV_E_PROTO, (h.op = MKV_WIRE_PUT, h.payload_bytes = 8));
	BAD(MKV_E_PROTO, (h.op = MKV_WIRE_PUT, h.flags = MKV_WIRE_F_PAYLOAD));
	BAD(MKV_E_PROTO, (h.op = MKV_WIRE_PUT, h.flags = MKV_WIRE_F_PAYLOAD, h.payload_bytes = MKV_WIRE_PART_MAX + 1ull));
	BAD(MKV_E_PROTO, h.request_id = 0);
	BAD(MKV_E_PROTO, h.deadline_us = 0);
	BAD(MKV_E_PROTO, h.status = 1);
#undef BAD
	h = get;
	assert_int_equal(mkv_wire_hdr_check(&h, 0, 0), MKV_E_PROTO);	/* before the session */
	assert_int_equal(mkv_wire_hdr_check(&h, 1, 1), MKV_E_PROTO);	/* a request where a reply belongs */
}

static void
wire_control(void **state)
{
	static const struct { uint16_t control, port; int good; } row[] = {
		{ MKV_WIRE_CONTROL_RDMA, 0, 1 }, { MKV_WIRE_CONTROL_RDMA, 9900, 0 },
		{ MKV_WIRE_CONTROL_UDP, 9900, 1 }, { MKV_WIRE_CONTROL_UDP, 0, 0 },
		{ MKV_WIRE_CONTROL_TCP, 0, 1 }, { MKV_WIRE_CONTROL_TCP, 9900, 0 },
		{ MKV_WIRE_CONTROL_UDP | MKV_WIRE_CONTROL_LOOSE, 9900, 1 }, { MKV_WIRE_CONTROL_UDP | MKV_WIRE_CONTROL_LOOSE, 0, 0 },
		{ MKV_WIRE_CONTROL_RDMA | MKV_WIRE_CONTROL_LOOSE, 0, 1 },	/* well formed; no server does it */
		{ 3, 0, 0 }, { UINT16_MAX, UINT16_MAX, 0 }, { MKV_WIRE_CONTROL_UDP | 0x4000, 9900, 0 },
	};

	(void)state;
	for (size_t i = 0; i < sizeof(row) / sizeof(row[0]); i++) {
		struct mkv_wire_attach a = { .control = row[i].control, .udp_port = row[i].port };

		assert_int_equal(mkv_wire_control_ok(&a), row[i].good);
	}
}

static void
wire_cursor(void **state)
{
	uint8_t body[16] = "abcde";
	struct mkv_wire_in in = { body, body + sizeof(body) };

	(void)state;
	assert_ptr_equal(mkv_wire_take(&in, 5), body);
	assert_int_equal(mkv_wire_skip_pad(&in, body), 1);
	assert_ptr_equal(mkv_wire_take(&in, 8), body + 8);
	assert_null(mkv_wire_take(&in, 1));
	assert_null(mkv_wire_take(&in, SIZE_MAX));
	assert_non_null(mkv_wire_take(&in, 0));

	in = (struct mkv_wire_in){ body, body + sizeof(body) };
	body[6] = 1;
	assert_non_null(mkv_wire_take(&in, 5));
	assert_int_equal(mkv_wire_skip_pad(&in, body), 0);		/* padding that is not zero */
	in = (struct mkv_wire_in){ body, body + 7 };
	assert_non_null(mkv_wire_take(&in, 5));
	assert_int_equal(mkv_wire_skip_pad(&in, body), 0);		/* padding cut off */
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(wire_ops_are_unique),
		cmocka_unit_test(wire_good_headers),
		cmocka_unit_test(wire_bad_headers),
		cmocka_unit_test(wire_control),
		cmocka_unit_test(wire_cursor),
	};

	return (cmocka_run_group_tests(tests, NULL, NULL));
}
