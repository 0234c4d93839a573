/*
 * The fronts of front_client_test: two rigs in one thread of their own.
 */
#include "config.h"

#include "tests/unit/front_both.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <pthread.h>
#include <stdatomic.h>
#include <unistd.h>

#include "common/base/auth.h"
#include "common/base/os.h"
#include "tests/unit/front_rig.h"
#include "tests/unit/rdma_up.h"
#include "worker/front/rail.h"

#define BOTH_LATE_NS	(62 * MKV_NS_PER_SEC)

struct both {
	struct rig	tcp, rdma;
	struct mkv_rail	*rail;
	uint32_t	num_dcis;
	int		listener;
	uint16_t	port;
	pthread_t	thread;
	_Atomic int	is_up, stop, forget;
};

static void
both_listen(struct both *b)
{
	struct sockaddr_in a = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	socklen_t n = sizeof(a);

	b->listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	assert_true(b->listener >= 0 && bind(b->listener, (struct sockaddr *)&a, sizeof(a)) == 0 && listen(b->listener, 16) == 0);
	assert_int_equal(getsockname(b->listener, (struct sockaddr *)&a, &n), 0);
	b->port = ntohs(a.sin_port);
}

static void
both_key(struct rig *r)
{
	uint8_t cred[MKV_KEY_BYTES], key[MKV_KEY_BYTES];

	assert_int_equal(mkv_key_parse(BOTH_CRED, cred), 0);
	assert_int_equal(mkv_key_front(cred, r->f->conf.front_id, key), 0);
	assert_int_equal(mkv_front_key(r->f, mkv_key_id(cred), key, 0, 0), 0);
}

static void
both_up(struct both *b)
{
	struct rig_conf tcp = { .drives = 1 }, rdma = { .drives = 2, .rail = 1, .stage_bytes = 16 << 20 };
	struct mkv_rail_conf c = { .rail = 1, .device = "fake0", .gid_index = -1, .traffic_class = -1, .service_level = -1, .piece_bytes = 64 << 10,
		.window_bytes = 256 << 10, .srq_depth = 256, .num_dcis = b->num_dcis };
	static const uint8_t loopback[16] = { [10] = 0xff, [11] = 0xff, [12] = 127, [15] = 1 };
	struct mkv_wire_rail row;
	char why[512] = "";
	int fds[2];

	assert_int_equal(mkv_os_ctl_pair(fds), 0);
	rdma.door = fds[0];
	rig_open(&b->tcp, &tcp);
	rig_open(&b->rdma, &rdma);
	b->rdma.f->conf.verify_put = 1;
	assert_int_equal(mkv_rail_open(&b->rail, b->rdma.f, fv_verbs(), &c, why, sizeof(why)), 0);
	assert_true(mkv_rail_listen(b->rail, loopback, 0) >= 0);
	mkv_rail_describe(b->rail, &row);
	memcpy(row.address, loopback, sizeof(row.address));	/* where datagrams go */
	assert_int_equal(mkv_front_rail(b->tcp.f, &row, fds[1]), 0);
	both_key(&b->tcp);
	both_key(&b->rdma);
	both_listen(b);
	b->is_up = 1;
}

static void
both_down(struct both *b)
{
	for (unsigned i = 0; i < 1000 && !mkv_rail_quiet(b->rail); i++)
		rig_pump_ms(&b->rdma, 1);
	assert_true(mkv_rail_quiet(b->rail));
	mkv_rail_close(&b->rail);
	rig_close(&b->tcp);
	rig_close(&b->rdma);
	(void)close(b->listener);
}

/* A queue of the kernel's gives its results to the thread that asked: all of the fronts is done here. */
static void *
both_main(void *arg)
{
	struct both *b = arg;
	struct sockaddr_storage from = { 0 };
	socklen_t n;
	int fd;

	both_up(b);
	while (!b->stop) {
		n = sizeof(from);
		if ((fd = accept4(b->listener, (struct sockaddr *)&from, &n, SOCK_CLOEXEC)) >= 0)
			(void)mkv_front_adopt(b->tcp.f, fd, &from);
		mkv_rail_readable(b->rail);
		rig_pump(&b->tcp);
		rig_pump(&b->rdma);
		mkv_rail_gauges(b->rail);
		mkv_front_gauges(b->rdma.f);
		if (b->forget) {
			b->rdma.ahead_ns = b->forget > 1 ? 0 : BOTH_LATE_NS;
			b->forget = b->forget > 1 ? 0 : 2;
		}
		(void)usleep(100);
	}
	both_down(b);
	return (NULL);
}

struct both *
both_open(uint32_t num_dcis)
{
	struct both *b = calloc(1, sizeof(*b));

	assert_non_null(b);
	b->num_dcis = num_dcis;
	fv_start(2);
	fv_dc(num_dcis != 0 ? FV_DC_YES : FV_DC_OTHER_MAKE);
	assert_int_equal(pthread_create(&b->thread, NULL, both_main, b), 0);
	while (!b->is_up)
		(void)usleep(1000);
	return (b);
}

uint16_t
both_port(const struct both *b)
{
	return (b->port);
}

uint64_t
both_count(const struct both *b, enum mkv_metric m)
{
	return (mkv_metric_get(b->rdma.m, m, 0));
}

void
both_forget(struct both *b)
{
	b->forget = 1;
	while (b->forget)
		(void)usleep(1000);
}

void
both_close(struct both *b)
{
	if (both_count(b, MKV_M_front_sessions_loose) != 0)
		both_forget(b);
	for (unsigned i = 0; i < 10000 && mkv_metric_get(b->rdma.m, MKV_M_front_channels, 0) != 0; i++)
		(void)usleep(1000);
	b->stop = 1;
	pthread_join(b->thread, NULL);
	assert_int_equal(fv_alive(), 0);
	free(b);
}
