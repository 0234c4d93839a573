/*
 * Opening a device: by name, port, GID, MTU, class; each way it cannot be used, in words; events; and that whatever fails leaves nothing behind.
 */
#include "config.h"
#include "common/rdma/dev.h"

#include <sys/stat.h>

#include <arpa/inet.h>
#include <errno.h>
#include <poll.h>
#include <unistd.h>

#include "common/base/assert.h"
#include "common/rdma/dev_priv.h"
#include "tests/lib/fail.h"
#include "tests/unit/rdma_up.h"

static const struct mkv_rdma_conf plain = { .device = "fake0", .gid_index = -1, .traffic_class = -1, .service_level = -1 };
static char why[512];

static int
try_open(struct mkv_rdma_dev **d, const struct mkv_rdma_conf *c)
{
	int e;

	why[0] = '\0';
	e = mkv_rdma_dev_open(d, fv_verbs(), c, why, sizeof(why));
	assert_int_equal(*d != NULL, e == 0);
	assert_int_equal(why[0] != '\0', e != 0);
	return (e);
}

/* It cannot be opened so: the error, and a word of the sentence. */
static void
refused(const struct mkv_rdma_conf *c, int err, const char *word)
{
	struct mkv_rdma_dev *d;

	assert_int_equal(try_open(&d, c), err);
	if (strstr(why, word) == NULL)
		fail_msg("'%s' lacks '%s'", why, word);
	assert_int_equal(fv_alive(), 0);
}

static void
what_a_device_is(void **state)
{
	struct mkv_rdma_dev *d;

	(void)state;
	fv_start(2);
	assert_int_equal(try_open(&d, &plain), 0);
	assert_string_equal(d->name, "fake0");
	assert_int_equal(d->port, 1);
	assert_int_equal(d->gid_index, 3);
	assert_int_equal(d->is_roce, 1);
	assert_int_equal(d->mtu, IBV_MTU_4096);
	assert_int_equal(d->mtu_bytes, 4096);
	assert_int_equal(d->speed_mbit, 100000);
	assert_int_equal(d->rd_atomic_in, 16);
	assert_int_equal(d->rd_atomic_out, 16);
	assert_int_equal(d->traffic_class | d->service_level | d->odp, 0);
	assert_memory_equal(d->address, "\0\0\0\0\0\0\0\0\0\0\xff\xff\x0a\x4d\0\x01", 16);
	assert_memory_equal(d->gid.raw, d->address, 16);
	assert_int_equal(mkv_rdma_dev_is_up(d), 1);
	mkv_rdma_dev_close(&d);
	assert_null(d);
	mkv_rdma_dev_close(&d);
	fv_device(0)->attr.max_qp_rd_atom = 4;
	fv_device(0)->attr.max_qp_init_rd_atom = -1;
	assert_int_equal(try_open(&d, &plain), 0);
	assert_int_equal(d->rd_atomic_in, 4);
	assert_int_equal(d->rd_atomic_out, 0);
	mkv_rdma_dev_close(&d);
	assert_int_equal(fv_alive(), 0);
}

static void
devices_have_names(void **state)
{
	char name[4][MKV_RDMA_NAME_BYTES];
	struct mkv_rdma_conf c = plain;

	(void)state;
	fv_start(3);
	assert_int_equal(mkv_rdma_dev_names(fv_verbs(), name, 4), 3);
	for (unsigned i = 0; i < 3; i++) {
		assert_int_equal(name[i][4], '0' + i);
		assert_int_equal(name[i][5], 0);
	}
	assert_int_equal(mkv_rdma_dev_names(fv_verbs(), name, 1), 3);
	fv_fail(FV_GET_DEVICE_LIST, 1, ENOSYS);
	assert_int_equal(mkv_rdma_dev_names(fv_verbs(), name, 4), 0);
	fv_fail(FV_GET_DEVICE_LIST, 1, ENOMEM);
	assert_int_equal(mkv_rdma_dev_names(fv_verbs(), name, 4), MKV_E_NOMEM);
	c.device = "mlx5_9";
	refused(&c, MKV_E_UNSUPPORTED, "no RDMA device mlx5_9 on this host; there is: fake2, fake1, fake0");
	c.device = "a_name_that_is_longer_than_any_device_of_any_host_may_have_in_sysfs";
	refused(&c, MKV_E_UNSUPPORTED, "so long a name");
	fv_start(0);
	refused(&plain, MKV_E_UNSUPPORTED, "there is: none (ibverbs-providers installed?");
	fv_fail(FV_GET_DEVICE_LIST, 1, ENOSYS);
	refused(&plain, MKV_E_UNSUPPORTED, "ib_uverbs");
}

/* One GID table, and what is chosen from it. */
static const struct ibv_gid_entry *
add(unsigned i, unsigned port, uint32_t type, const char *text)
{
	struct ibv_gid_entry *g = &fv_device(0)->gid[i];

	*g = (struct ibv_gid_entry){ .gid_index = i, .port_num = port, .gid_type = type };
	assert_int_equal(inet_pton(AF_INET6, text, g->gid.raw), 1);
	fv_device(0)->n_gids = i + 1;
	return (g);
}

static void
chosen(const struct mkv_rdma_conf *c, int idx)
{
	struct mkv_rdma_dev *d;

	assert_int_equal(try_open(&d, c), 0);
	assert_int_equal(d->gid_index, idx);
	mkv_rdma_dev_close(&d);
}

static void
gids_are_chosen(void **state)
{
	struct mkv_rdma_conf c = plain;
	struct mkv_rdma_dev *d;
	uint8_t address[16];

	(void)state;
	fv_start(1);
	add(0, 1, IBV_GID_TYPE_ROCE_V1, "::ffff:10.0.0.1");
	refused(&plain, MKV_E_UNSUPPORTED, "no RoCE v2 GID: give its network device an address");
	add(1, 2, IBV_GID_TYPE_ROCE_V2, "::ffff:10.0.0.2");
	refused(&plain, MKV_E_UNSUPPORTED, "port 1 has no RoCE v2 GID");
	add(2, 1, IBV_GID_TYPE_ROCE_V2, "::");
	refused(&plain, MKV_E_UNSUPPORTED, "port 1 has no RoCE v2 GID");
	add(3, 1, IBV_GID_TYPE_ROCE_V2, "fe80::1");
	chosen(&plain, 3);
	assert_int_equal(try_open(&d, &plain), 0);
	for (unsigned i = 0; i < 16; i++)
		assert_int_equal(d->address[i], 0);		/* link-local: no address to tell others */
	mkv_rdma_dev_close(&d);
	add(4, 1, IBV_GID_TYPE_ROCE_V2, "2001:db8::7");
	chosen(&plain, 4);
	add(5, 1, IBV_GID_TYPE_ROCE_V2, "::ffff:10.0.0.3");
	chosen(&plain, 5);
	add(6, 1, IBV_GID_TYPE_ROCE_V2, "::ffff:10.0.0.4");
	chosen(&plain, 5);
	/* By address. */
	c.address = address;
	inet_pton(AF_INET6, "::ffff:10.0.0.4", address);
	chosen(&c, 6);
	inet_pton(AF_INET6, "fe80::1", address);
	chosen(&c, 3);
	inet_pton(AF_INET6, "::ffff:10.0.0.1", address);
	refused(&c, MKV_E_UNSUPPORTED, "fake0: port 1 has no RoCE v2 GID for the address 10.0.0.1");
	inet_pton(AF_INET6, "2001:db8::8", address);
	refused(&c, MKV_E_UNSUPPORTED, "for the address 2001:db8::8");
	/* By index, which is checked. */
	c = plain;
	c.gid_index = 4;
	chosen(&c, 4);
	c.gid_index = 0;
	refused(&c, MKV_E_CONFIG, "GID index 0 is RoCE v1, but it takes RoCE v2");
	c.gid_index = 1;
	refused(&c, MKV_E_CONFIG, "port 1 has no GID with index 1");
	c.gid_index = 99;
	refused(&c, MKV_E_CONFIG, "port 1 has no GID with index 99");
}

static void
infiniband_has_gids_of_its_own(void **state)
{
	struct mkv_rdma_dev *d;

	(void)state;
	fv_start(1);
	fv_device(0)->port[0].link_layer = IBV_LINK_LAYER_INFINIBAND;
	refused(&plain, MKV_E_UNSUPPORTED, "subnet manager");
	add(0, 1, IBV_GID_TYPE_IB, "fe80::2:c903:0:1");
	assert_int_equal(try_open(&d, &plain), 0);
	assert_int_equal(d->is_roce, 0);
	assert_int_equal(d->lid, 1);
	assert_int_equal(d->gid_index, 0);
	assert_int_equal(d->address[15], 0);
	mkv_rdma_dev_close(&d);
	fv_device(0)->transport = IBV_TRANSPORT_IWARP;
	refused(&plain, MKV_E_UNSUPPORTED, "neither RoCE nor InfiniBand");
}

static void
ports_are_chosen(void **state)
{
	struct mkv_rdma_conf c = plain;
	struct mkv_rdma_dev *d;

	(void)state;
	fv_start(1);
	c.port = 2;
	refused(&c, MKV_E_UNSUPPORTED, "fake0 has no port 2; it has 1");
	fv_port(0, 1, 0);
	refused(&plain, MKV_E_UNSUPPORTED, "port 1 of RDMA device fake0 is down: look at its network device and cable");
	fv_device(0)->attr.phys_port_cnt = 2;
	add(4, 2, IBV_GID_TYPE_ROCE_V2, "::ffff:10.9.0.1");
	assert_int_equal(try_open(&d, &plain), 0);
	assert_int_equal(d->port, 2);
	assert_int_equal(d->gid_index, 4);
	mkv_rdma_dev_close(&d);
	c.port = 1;
	refused(&c, MKV_E_UNSUPPORTED, "port 1 of RDMA device fake0 is down");
	fv_port(0, 2, 0);
	refused(&plain, MKV_E_UNSUPPORTED, "no port of RDMA device fake0 is active");
}

static void
mtus_are_checked(void **state)
{
	struct mkv_rdma_conf c = plain;
	struct mkv_rdma_dev *d;

	(void)state;
	fv_start(1);
	fv_device(0)->port[0].active_mtu = IBV_MTU_1024;
	for (unsigned m = 256; m <= 4096; m *= 2) {
		c.mtu = m;
		if (m > 1024) {
			snprintf(why, sizeof(why), "a path MTU of %u bytes is set, but port 1 of RDMA device fake0 has 1024 active", m);
			refused(&c, MKV_E_CONFIG, strdupa(why));
			continue;
		}
		assert_int_equal(try_open(&d, &c), 0);
		assert_int_equal(d->mtu_bytes, m);
		assert_int_equal(rdma_mtu_bytes(d->mtu), m);
		mkv_rdma_dev_close(&d);
	}
	c.mtu = 0;
	assert_int_equal(try_open(&d, &c), 0);
	assert_int_equal(d->mtu_bytes, 1024);
	mkv_rdma_dev_close(&d);
	c.mtu = 1500;
	refused(&c, MKV_E_CONFIG, "not 1500");
	fv_device(0)->port[0].active_mtu = (enum ibv_mtu)0;
	c.mtu = 0;
	refused(&c, MKV_E_UNSUPPORTED, "reports no MTU");
}

static void
classes_are_checked(void **state)
{
	struct mkv_rdma_conf c = plain;
	struct mkv_rdma_dev *d;

	(void)state;
	fv_start(1);
	c.traffic_class = 104;
	c.service_level = 5;
	assert_int_equal(try_open(&d, &c), 0);
	assert_int_equal(d->traffic_class, 104);
	assert_int_equal(d->service_level, 5);
	mkv_rdma_dev_close(&d);
	c.service_level = 8;
	refused(&c, MKV_E_CONFIG, "a service level 0 to 7: not 104 and 8");
	c.service_level = -1;
	c.traffic_class = 256;
	refused(&c, MKV_E_CONFIG, "a traffic class is 0 to 255");
}

static void
put(const char *root, const char *path, const char *text)
{
	char full[512];
	FILE *f;

	snprintf(full, sizeof(full), "%s%s", root, path);
	for (char *p = full + strlen(root) + 1; (p = strchr(p, '/')) != NULL; *p++ = '/') {
		*p = '\0';
		mkdir(full, 0700);
	}
	assert_non_null(f = fopen(full, "w"));
	fputs(text, f);
	fclose(f);
}

/* What the host's files say of priorities and speed. */
static void
the_host_is_asked(void **state)
{
	static const struct {
		const char *tos;
		int	class;
	} row[] = { { "104\n", 104 }, { "0\n", 0 }, { "0x68\n", 104 }, { "300\n", 0 }, { "", 0 }, { "many\n", 0 }, { "-4\n", 0 } };
	static const struct {
		const char *rate;
		unsigned mbit;
	} speed[] = { { "100 Gb/sec (4X EDR)\n", 100000 }, { "2.5 Gb/sec (1X SDR)\n", 2500 }, { "800 Gb/sec (4X XDR)\n", 800000 }, { "\n", 0 }, { "fast\n", 0 } };
	static const char *const egress[] = { "0:3", "0:0 4:3 5:5", "0:37 1:3 ", "", "3:4 0:37" };
	char root[] = "/tmp/rdma-dev-test.XXXXXX", text[512], cmd[64];

	(void)state;
	assert_non_null(mkdtemp(root));
	assert_int_equal(rdma_host_traffic_class(root, "x0", 1, "eth0.7"), 0);
	assert_int_equal(rdma_host_rate_mbit(root, "x0", 1), 0);
	for (unsigned i = 0; i < MKV_ARRAY_LEN(row); i++) {
		put(root, "/sys/kernel/config/rdma_cm/x0/ports/2/default_roce_tos", row[i].tos);
		assert_int_equal(rdma_host_traffic_class(root, "x0", 2, ""), row[i].class);
		assert_int_equal(rdma_host_traffic_class(root, "x0", 1, ""), 0);
	}
	for (unsigned i = 0; i < MKV_ARRAY_LEN(speed); i++) {
		put(root, "/sys/class/infiniband/x0/ports/1/rate", speed[i].rate);
		assert_int_equal(rdma_host_rate_mbit(root, "x0", 1), speed[i].mbit);
	}
	assert_int_equal(rdma_host_is_soft(root, "x0"), 0);
	put(root, "/sys/class/infiniband/x0/parent", "eth0\n");
	assert_int_equal(rdma_host_is_soft(root, "x0"), 1);
	for (unsigned i = 0; i < MKV_ARRAY_LEN(egress); i++) {
		snprintf(text, sizeof(text), "eth0.7  VID: 7\t REORDER_HDR: 1  dev->priv_flags: 1021\nDevice: eth0\nINGRESS priority mappings: 0:3\n "
		    "EGRESS priority mappings: %s\n", egress[i]);
		put(root, "/proc/net/vlan/eth0.7", text);
		assert_int_equal(rdma_host_traffic_class(root, "x0", 1, "eth0.7"), i < 3 ? 104 : 0);
		assert_int_equal(rdma_host_traffic_class(root, "x0", 1, "eth0"), 0);
	}
	snprintf(cmd, sizeof(cmd), "rm -r %s", root);
	assert_int_equal(system(cmd), 0);
}

static void
speeds_are_known(void **state)
{
	static const struct {
		uint8_t	width, speed;
		uint32_t mbit;
	} row[] = { { 1, 1, 2500 }, { 2, 4, 40000 }, { 2, 16, 56248 }, { 2, 32, 100000 }, { 2, 64, 200000 }, { 2, 128, 400000 }, { 16, 64, 100000 }, { 4, 128, 800000 },
		{ 3, 32, 0 }, { 2, 0, 0 }, { 0, 1, 0 } };
	struct ibv_port_attr p = { 0 };

	(void)state;
	for (unsigned i = 0; i < MKV_ARRAY_LEN(row); i++) {
		p.active_width = row[i].width;
		p.active_speed = row[i].speed;
		assert_int_equal(rdma_speed_mbit(&p), row[i].mbit);
	}
}

static void
events_are_told(void **state)
{
	static const struct {
		enum ibv_event_type type;
		unsigned port;
		enum mkv_rdma_event want;
	} row[] = { { IBV_EVENT_PORT_ERR, 1, MKV_RDMA_EV_PORT_DOWN }, { IBV_EVENT_PORT_ERR, 2, MKV_RDMA_EV_OTHER }, { IBV_EVENT_PORT_ACTIVE, 1, MKV_RDMA_EV_PORT_UP },
		{ IBV_EVENT_PORT_ACTIVE, 2, MKV_RDMA_EV_OTHER }, { IBV_EVENT_GID_CHANGE, 1, MKV_RDMA_EV_GID_CHANGED }, { IBV_EVENT_LID_CHANGE, 1, MKV_RDMA_EV_GID_CHANGED },
		{ IBV_EVENT_QP_FATAL, 0, MKV_RDMA_EV_QP }, { IBV_EVENT_QP_LAST_WQE_REACHED, 0, MKV_RDMA_EV_QP }, { IBV_EVENT_SRQ_LIMIT_REACHED, 0, MKV_RDMA_EV_SRQ_LIMIT },
		{ IBV_EVENT_CLIENT_REREGISTER, 1, MKV_RDMA_EV_OTHER } };
	struct mkv_rdma_dev *d;
	struct pollfd p;

	(void)state;
	fv_start(1);
	assert_int_equal(try_open(&d, &plain), 0);
	p = (struct pollfd){ mkv_rdma_dev_event_fd(d), POLLIN, 0 };
	assert_int_equal(mkv_rdma_dev_event(d, NULL), MKV_RDMA_EV_NONE);	/* does not wait */
	for (unsigned i = 0; i < MKV_ARRAY_LEN(row); i++) {
		assert_int_equal(poll(&p, 1, 0), 0);
		fv_event(0, row[i].type, row[i].port);
		assert_int_equal(poll(&p, 1, 0), 1);
		assert_int_equal(mkv_rdma_dev_event(d, NULL), row[i].want);
	}
	fv_port(0, 1, 0);
	assert_int_equal(mkv_rdma_dev_is_up(d), 0);
	assert_int_equal(mkv_rdma_dev_event(d, NULL), MKV_RDMA_EV_PORT_DOWN);
	fv_port(0, 1, 1);
	assert_int_equal(mkv_rdma_dev_is_up(d), 1);
	assert_int_equal(mkv_rdma_dev_event(d, NULL), MKV_RDMA_EV_PORT_UP);
	fv_gone(0);
	assert_int_equal(mkv_rdma_dev_event(d, NULL), MKV_RDMA_EV_GONE);
	assert_int_equal(mkv_rdma_dev_is_up(d), 0);
	mkv_rdma_dev_close(&d);
	assert_int_equal(fv_alive(), 0);
}

/* Each verb fails once. What only looks at extras may fail without harm. */
static void
whatever_fails_leaves_nothing(void **state)
{
	struct mkv_rdma_dev *d;
	unsigned failed = 0;
	int e;

	(void)state;
	fv_start(1);
	for (int v = 0; v < FV_VERBS; v++)
		for (int no = 0; no < 3; no++) {
			static const int nos[] = { ENOMEM, EIO, EACCES };

			fv_fail((enum fv_verb)v, 1, nos[no]);
			e = try_open(&d, &plain);
			if (fv_fail((enum fv_verb)v, 0, 0)) {
				assert_true(e != 0 || v == FV_ODP_CAPS);
				failed += e != 0;
				if (e != 0)
					assert_non_null(strstr(why, "RDMA"));
			} else {
				assert_int_equal(e, 0);
			}
			mkv_rdma_dev_close(&d);
			assert_int_equal(fv_alive(), 0);
		}
	assert_int_equal(failed, 3 * 6);
	fv_fail(FV_OPEN_DEVICE, 1, EACCES);
	refused(&plain, MKV_E_SYSTEM, "Permission denied (see the permissions of /dev/infiniband)");
	for (unsigned n = 1; n < 20; n++) {
		fail_alloc(n);
		e = try_open(&d, &plain);
		assert_true(e == 0 || e == MKV_E_NOMEM);
		mkv_rdma_dev_close(&d);
		assert_int_equal(fv_alive(), 0);
		if (!fail_alloc(0))
			break;
		assert_true(n < 19);
	}
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(what_a_device_is),
		cmocka_unit_test(devices_have_names),
		cmocka_unit_test(gids_are_chosen),
		cmocka_unit_test(infiniband_has_gids_of_its_own),
		cmocka_unit_test(ports_are_chosen),
		cmocka_unit_test(mtus_are_checked),
		cmocka_unit_test(classes_are_checked),
		cmocka_unit_test(the_host_is_asked),
		cmocka_unit_test(speeds_are_known),
		cmocka_unit_test(events_are_told),
		cmocka_unit_test(whatever_fails_leaves_nothing),
	};

	return (cmocka_run_group_tests(tests, NULL, NULL));
}
