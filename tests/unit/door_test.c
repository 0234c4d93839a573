/*
 * Rails as a TCP front knows them, and connections on their way to one: two fronts in this process, a door between them.
 */
#include "config.h"

#include "tests/unit/front_rig.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "common/base/assert.h"
#include "common/base/err.h"
#include "common/base/os.h"
#include "tests/lib/rnd.h"
#include "worker/front/pass.h"

#define RAIL	2u

static struct rig tcp, rail;
static struct rig_client cl;
static int spare_door;			/* a copy of the end that the TCP front sends to */

static uint64_t
count(const struct rig *r, enum mkv_metric m)
{
	return (mkv_metric_get(r->m, m, 0));
}

static struct mkv_wire_rail
row(uint16_t number, int up)
{
	struct mkv_wire_rail r = { .rail = number, .state = (uint16_t)up, .transports = MKV_FEATURE_RDMA_RC, .speed_mbit = 100000, .mtu = 4096,
		.device = "dev" };

	return (r);
}

static void
open_tcp(void)
{
	const struct rig_conf conf = { .drives = 1, .kind = MKV_IOQ_AUTO, .connections = 4, .handshake_ns = RIG_PATIENCE_MS * MKV_NS_PER_MS };

	rig_open(&tcp, &conf);
}

/* The rail's front, and its door in the hands of the TCP front. */
static void
open_rail(enum mkv_ioq_kind kind)
{
	struct rig_conf conf = { .drives = 1, .kind = kind, .connections = 4, .handshake_ns = RIG_PATIENCE_MS * MKV_NS_PER_MS, .rail = RAIL };
	struct mkv_wire_rail r = row(RAIL, 1);
	int fds[2];

	assert_int_equal(mkv_os_ctl_pair(fds), 0);
	conf.door = fds[0];
	rig_open(&rail, &conf);
	spare_door = dup(fds[1]);
	assert_true(spare_door >= 0);
	assert_int_equal(mkv_front_rail(tcp.f, &r, fds[1]), 0);
	assert_int_equal(mkv_front_rail(rail.f, &r, -1), 0);
}

static int
setup(void **state)
{
	(void)state;
	open_tcp();
	open_rail(MKV_IOQ_AUTO);
	return (0);
}

static int
teardown(void **state)
{
	(void)state;
	rig_close(&tcp);
	rig_close(&rail);
	close(spare_door);
	return (0);
}

static int
setup_tcp(void **state)
{
	(void)state;
	open_tcp();
	return (0);
}

static int
teardown_tcp(void **state)
{
	(void)state;
	rig_close(&tcp);
	return (0);
}

static void
say_hello(struct rig_client *c, uint16_t number)
{
	struct mkv_wire_hello b = { .version_min = 1, .version_max = 1, .rail = number };
	struct mkv_hdr h;

	rig_frame_make(c, &h, MKV_WIRE_HELLO, 0, c->next_id++, NULL, 0, 0);
	h.body_bytes = sizeof(b);
	rig_write(c, &h, sizeof(h));
	rig_write(c, &b, sizeof(b));
}

/* HELLO for a rail is answered by this front, with that status, and the connection ends. */
static void
refused(struct rig *r, uint16_t number, int status)
{
	rig_client_open(r, &cl);
	say_hello(&cl, number);
	assert_int_equal(rig_recv(&cl, RIG_PATIENCE_MS), 1);
	assert_int_equal(cl.f.hdr.op, MKV_WIRE_HELLO);
	assert_int_equal(-(int)cl.f.hdr.status, status);
	assert_int_equal(cl.f.hdr.deadline_us != 0, status == MKV_E_BUSY || status == MKV_E_UNREACHABLE);
	assert_int_equal(rig_recv(&cl, RIG_PATIENCE_MS), -1);
	rig_client_close(&cl);
}

/* ---- What is passed --------------------------------------------------------------------------------------------------------- */

static void
test_message(void **state)
{
	static uint8_t msg[MKV_PASS_MSG_MAX], hello[MKV_PASS_BYTES_MAX + 1];
	struct sockaddr_in6 from = { .sin6_family = AF_INET6, .sin6_port = htons(4711) };
	struct mkv_pass_head *h = (void *)msg;
	struct sockaddr_storage got;
	const uint8_t *p;
	uint32_t bytes;
	size_t n;

	(void)state;
	rig_fill(hello, sizeof(hello), 7);
	n = mkv_pass_encode(msg, 3, (struct sockaddr *)&from, sizeof(from), hello, MKV_PASS_BYTES_MAX);
	assert_int_equal(n, sizeof(*h) + sizeof(from) + MKV_PASS_BYTES_MAX);
	assert_int_equal(mkv_pass_decode(msg, n, 3, &got, &p, &bytes), 0);
	assert_int_equal(bytes, MKV_PASS_BYTES_MAX);
	assert_memory_equal(p, hello, bytes);
	assert_memory_equal(&got, &from, sizeof(from));
	assert_int_equal(mkv_pass_decode(msg, n, 4, &got, &p, &bytes), MKV_E_PROTO);
	assert_int_equal(mkv_pass_decode(msg, n - 1, 3, &got, &p, &bytes), MKV_E_PROTO);
	assert_int_equal(mkv_pass_decode(msg, sizeof(*h) - 1, 3, &got, &p, &bytes), MKV_E_PROTO);
	assert_int_equal(mkv_pass_decode(msg, 0, 3, &got, &p, &bytes), MKV_E_PROTO);
	h->from_bytes += 1000;
	assert_int_equal(mkv_pass_decode(msg, n, 3, &got, &p, &bytes), MKV_E_PROTO);
	h->from_bytes = UINT32_MAX - 10;
	assert_int_equal(mkv_pass_decode(msg, n, 3, &got, &p, &bytes), MKV_E_PROTO);
	assert_null(p);

	assert_int_equal(mkv_pass_encode(msg, 3, (struct sockaddr *)&from, sizeof(from), hello, MKV_PASS_BYTES_MAX + 1), 0);
	assert_int_equal(mkv_pass_encode(msg, 3, (struct sockaddr *)&from, sizeof(from), hello, 0), 0);
	n = mkv_pass_encode(msg, 3, NULL, 0, hello, 1);		/* nobody knows from where: that is not this host */
	assert_int_equal(mkv_pass_decode(msg, n, 3, &got, &p, &bytes), 0);
	assert_false(mkv_front_is_loopback(&got));
	h->version++;
	assert_int_equal(mkv_pass_decode(msg, n, 3, &got, &p, &bytes), MKV_E_PROTO);
	h->version--;
	h->magic ^= 1;
	assert_int_equal(mkv_pass_decode(msg, n, 3, &got, &p, &bytes), MKV_E_PROTO);
}

/* ---- What clients are told ------------------------------------------------------------------------------------------------- */

static void
listed(unsigned n, uint32_t features)
{
	const struct mkv_wire_hello_reply *b = (const void *)cl.f.body;

	rig_client_open(&tcp, &cl);
	rig_client_handshake(&cl);		/* the transcript covers all of it */
	rig_client_close(&cl);
	rig_client_open(&tcp, &cl);
	say_hello(&cl, 0);
	assert_int_equal(rig_recv(&cl, RIG_PATIENCE_MS), 1);
	assert_int_equal(cl.f.hdr.status, 0);
	assert_int_equal(b->n_rails, n);
	assert_int_equal(b->features, MKV_FEATURE_PARTS | features);
	assert_int_equal(cl.f.hdr.body_bytes, sizeof(*b) + n * sizeof(struct mkv_wire_rail) + ((features & MKV_FEATURE_LOCAL) ? sizeof(struct mkv_wire_local) : 0));
	for (unsigned i = 0; i < n; i++) {
		struct mkv_wire_rail r;

		memcpy(&r, cl.f.body + sizeof(*b) + i * sizeof(r), sizeof(r));
		assert_memory_equal(&r, &tcp.f->doors[i].row, sizeof(r));
	}
	rig_client_close(&cl);
}

/* The socket for clients on its host, behind the rails. */
static void
listed_local(unsigned n, uint32_t features)
{
	struct mkv_wire_local w;

	(void)snprintf(tcp.f->conf.local_path, sizeof(tcp.f->conf.local_path), "/run/%099d", 7);
	memset(tcp.f->conf.host_id, 0x5b, sizeof(tcp.f->conf.host_id));
	listed(n, features | MKV_FEATURE_LOCAL);
	memcpy(&w, cl.f.body + sizeof(struct mkv_wire_hello_reply) + n * sizeof(struct mkv_wire_rail), sizeof(w));
	assert_memory_equal(w.host_id, tcp.f->conf.host_id, sizeof(w.host_id));
	assert_string_equal(w.path, tcp.f->conf.local_path);
	tcp.f->conf.local_path[0] = '\0';
}

static void
test_listed(void **state)
{
	struct mkv_wire_rail r = row(1, 0);

	(void)state;
	listed(0, 0);
	listed_local(0, 0);
	assert_int_equal(mkv_front_rail(tcp.f, &r, -1), 0);
	listed(1, 0);				/* known, and down */
	r.state = 1;
	assert_int_equal(mkv_front_rail(tcp.f, &r, -1), 0);
	listed(1, MKV_FEATURE_RDMA_RC);
	r = row(2, 1);
	r.transports = MKV_FEATURE_RDMA_RC | MKV_FEATURE_RDMA_DC;
	assert_int_equal(mkv_front_rail(tcp.f, &r, -1), 0);
	listed(2, MKV_FEATURE_RDMA_RC | MKV_FEATURE_RDMA_DC);
	r.state = 0;
	assert_int_equal(mkv_front_rail(tcp.f, &r, -1), 0);
	listed(2, MKV_FEATURE_RDMA_RC);
	for (uint16_t i = 3; i <= MKV_WIRE_RAILS_MAX; i++) {
		r = row(i, 1);
		assert_int_equal(mkv_front_rail(tcp.f, &r, -1), 0);
	}
	listed(MKV_WIRE_RAILS_MAX, MKV_FEATURE_RDMA_RC);
	listed_local(MKV_WIRE_RAILS_MAX, MKV_FEATURE_RDMA_RC);
	r = row(MKV_WIRE_RAILS_MAX + 1, 1);
	assert_int_equal(mkv_front_rail(tcp.f, &r, -1), MKV_E_INVAL);
	r = row(0, 1);
	assert_int_equal(mkv_front_rail(tcp.f, &r, dup(0)), MKV_E_INVAL);
}

/* ---- Passing --------------------------------------------------------------------------------------------------------------- */

static void
passed_session(struct rig_client *c)
{
	rig_client_open(&tcp, c);
	c->rail = RAIL;
	c->rail_rig = &rail;
	rig_client_handshake(c);
}

static void
test_passed(void **state)
{
	static struct rig_client other;

	(void)state;
	passed_session(&cl);
	assert_int_equal(tcp.f->n_conns, 0);
	assert_int_equal(rail.f->n_conns, 1);
	assert_int_equal(count(&tcp, MKV_M_front_rail_passed_total), 1);
	assert_int_equal(count(&rail, MKV_M_front_rail_taken_total), 1);
	rig_put_get(&cl, "small", 100);
	rig_put_get(&cl, "large", 3 << 20);
	rig_client_open(&tcp, &other);		/* the first front goes on as ever */
	rig_client_handshake(&other);
	rig_put_get(&other, "beside", 100);
	rig_client_close(&other);
	rig_client_close(&cl);
	assert_int_equal(rail.f->n_conns, 0);
}

/* HELLO in two pieces; and with something behind it, which is for the rail's front to judge. */
static void
test_bytes_in_pieces(void **state)
{
	struct mkv_wire_hello b = { .version_min = 1, .version_max = 1, .rail = RAIL };
	static uint8_t behind[3000];
	uint64_t bad = count(&rail, MKV_M_front_bad_frames_total);
	struct mkv_hdr h;

	(void)state;
	for (unsigned with = 0; with < 2; with++) {
		rig_client_open(&tcp, &cl);
		rig_frame_make(&cl, &h, MKV_WIRE_HELLO, 0, cl.next_id++, NULL, 0, 0);
		h.body_bytes = sizeof(b);
		rig_write(&cl, &h, 40);
		rig_pump_ms(&tcp, 5);
		rig_write(&cl, (uint8_t *)&h + 40, sizeof(h) - 40);
		rig_write(&cl, &b, 1);
		rig_pump_ms(&tcp, 5);
		rig_write(&cl, (uint8_t *)&b + 1, sizeof(b) - 1);
		if (with)
			rig_write(&cl, behind, sizeof(behind));
		rig_pump_ms(&tcp, 5);
		assert_int_equal(count(&tcp, MKV_M_front_rail_passed_total), with + 1);
		cl.rig = &rail;
		assert_int_equal(rig_recv(&cl, RIG_PATIENCE_MS), with ? -1 : 1);
		assert_int_equal(cl.f.hdr.status, 0);
		rig_client_close(&cl);
	}
	assert_int_equal(count(&rail, MKV_M_front_bad_frames_total), bad + 1);
	assert_int_equal(count(&tcp, MKV_M_front_bad_frames_total), 0);
}

/* Where a client comes from goes with its connection: for the writer of a value, and for whether the key of this host is enough. */
static void
test_address(void **state)
{
	struct sockaddr_in a = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	socklen_t n = sizeof(a);
	int l, fd;

	(void)state;
	rig_client_open(&tcp, &cl);
	l = socket(AF_INET, SOCK_STREAM, 0);
	assert_int_equal(bind(l, (struct sockaddr *)&a, sizeof(a)), 0);
	assert_int_equal(listen(l, 1), 0);
	assert_int_equal(getsockname(l, (struct sockaddr *)&a, &n), 0);
	close(cl.fd);
	cl.fd = socket(AF_INET, SOCK_STREAM, 0);
	assert_int_equal(connect(cl.fd, (struct sockaddr *)&a, sizeof(a)), 0);
	assert_int_equal(getsockname(cl.fd, (struct sockaddr *)&a, &n), 0);
	assert_true((fd = accept4(l, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0);
	close(l);
	assert_int_equal(fcntl(cl.fd, F_SETFL, O_NONBLOCK), 0);
	assert_int_equal(mkv_front_adopt(tcp.f, fd, (struct sockaddr_storage *)&(struct sockaddr_storage){ .ss_family = AF_INET }), 0);
	cl.rail = RAIL;
	cl.rail_rig = &rail;
	rig_client_handshake(&cl);
	rig_put_get(&cl, "key", 1000);
	assert_int_equal(rail.drive[0].writer_seen.port, ntohs(a.sin_port));
	assert_memory_equal(rail.drive[0].writer_seen.addr + 12, &a.sin_addr, 4);
	rig_client_close(&cl);
}

/* ---- Rails that are not to be had ------------------------------------------------------------------------------------------ */

static void
test_down(void **state)
{
	struct mkv_wire_rail r = row(RAIL, 0);

	(void)state;
	refused(&tcp, 7, MKV_E_UNSUPPORTED);
	assert_int_equal(mkv_front_rail(tcp.f, &r, -1), 0);		/* its port is down */
	refused(&tcp, RAIL, MKV_E_UNREACHABLE);
	r = row(RAIL, 1);
	assert_int_equal(mkv_front_rail(tcp.f, &r, -1), 0);
	passed_session(&cl);						/* the door was the same all the time */
	rig_client_close(&cl);
	r = row(1, 1);							/* up, but nobody gave us its door */
	assert_int_equal(mkv_front_rail(tcp.f, &r, -1), 0);
	refused(&tcp, 1, MKV_E_UNREACHABLE);
	refused(&rail, 1, MKV_E_UNSUPPORTED);				/* a rail's front passes nothing on */
	refused(&rail, 0, MKV_E_UNSUPPORTED);
	assert_int_equal(count(&rail, MKV_M_front_rail_taken_total), 1);
}

/* Its front dies: the first connection that wants it finds that out, before the supervisor has said so. The next life has another door. */
static void
test_death(void **state)
{
	(void)state;
	rig_close(&rail);
	close(spare_door);
	assert_int_equal(tcp.f->doors[0].row.state, 1);
	refused(&tcp, RAIL, MKV_E_UNREACHABLE);
	assert_int_equal(tcp.f->doors[0].row.state, 0);
	refused(&tcp, RAIL, MKV_E_UNREACHABLE);
	open_rail(MKV_IOQ_POLL);		/* the portable queue, for a change */
	passed_session(&cl);
	rig_put_get(&cl, "again", 1000);
	rig_client_close(&cl);
}

/* It stops, and may have answers under way for a long time: nobody is left waiting in its door, nobody else comes in. */
static void
test_stop(void **state)
{
	static struct rig_client works, waits;

	(void)state;
	passed_session(&works);
	rail.drive[0].hold = 1;
	{
		uint8_t body[64];

		rig_send(&works, MKV_WIRE_GET, 0, 0, body, rig_get_body(body, "x", 1, 0, 10), NULL, 0);
		rig_pump_ms(&rail, 5);
	}
	rig_client_open(&tcp, &waits);
	say_hello(&waits, RAIL);
	rig_pump_ms(&tcp, 5);
	assert_int_equal(count(&tcp, MKV_M_front_rail_passed_total), 2);
	waits.rig = &rail;
	mkv_front_stop(rail.f, RIG_PATIENCE_MS * MKV_NS_PER_MS);
	assert_int_equal(rig_recv(&waits, RIG_PATIENCE_MS), -1);
	rig_client_close(&waits);
	assert_false(mkv_front_idle(rail.f));
	refused(&tcp, RAIL, MKV_E_UNREACHABLE);
	rig_drive_answer_held(&rail.drive[0]);
	assert_int_equal(rig_recv(&works, RIG_PATIENCE_MS), 1);		/* what was in flight had its time */
	rig_client_close(&works);
}

/* It takes nothing: the door fills up, who comes then is told to come again; those in it are served when it goes on. */
static void
test_full(void **state)
{
	static struct rig_client c[24];
	int small = 1;
	unsigned in = 0;

	(void)state;
	assert_int_equal(setsockopt(spare_door, SOL_SOCKET, SO_SNDBUF, &small, sizeof(small)), 0);
	for (; in < MKV_ARRAY_LEN(c); in++) {
		rig_client_open(&tcp, &c[in]);
		say_hello(&c[in], RAIL);
		rig_pump_ms(&tcp, 5);
		if (rig_recv(&c[in], 0) == 1)
			break;
	}
	assert_true(in > 0 && in < MKV_ARRAY_LEN(c));
	assert_int_equal(-(int)c[in].f.hdr.status, MKV_E_BUSY);
	assert_int_equal(rig_recv(&c[in], RIG_PATIENCE_MS), -1);
	assert_int_equal(count(&tcp, MKV_M_front_rail_passed_total), in);
	for (unsigned i = 0; i < in; i++) {
		c[i].rig = &rail;
		assert_int_equal(rig_recv(&c[i], RIG_PATIENCE_MS), 1);
		assert_int_equal(-(int)c[i].f.hdr.status, i < 4 ? 0 : MKV_E_BUSY);	/* connections_max of the rail's front */
	}
	for (unsigned i = 0; i <= in; i++)
		rig_client_close(&c[i]);
	passed_session(&cl);
	rig_client_close(&cl);
}

/* A front with no room for a session of its own still passes on. */
static void
test_passed_by_a_crowded_front(void **state)
{
	static struct rig_client c[4];

	(void)state;
	for (unsigned i = 0; i < 4; i++)
		rig_client_open(&tcp, &c[i]);
	rig_pump_ms(&tcp, 2);
	refused(&tcp, 0, MKV_E_BUSY);
	passed_session(&cl);
	rig_client_close(&cl);
	for (unsigned i = 0; i < 4; i++)
		rig_client_close(&c[i]);
}

/* What comes by the door and is no connection: counted, its descriptors closed, and the next one is served. */
static void
test_nonsense_at_the_door(void **state)
{
	static uint8_t msg[MKV_PASS_MSG_MAX];
	struct mkv_pass_head *h = (void *)msg;
	uint64_t bad = count(&rail, MKV_M_front_bad_frames_total);
	struct sockaddr_in from = { .sin_family = AF_INET };
	struct rnd rnd;
	int fds[2];
	size_t n;

	(void)state;
	rnd_init(&rnd, 11);
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, fds), 0);
	n = mkv_pass_encode(msg, RAIL, (struct sockaddr *)&from, sizeof(from), "hello", 5);
	assert_int_equal(mkv_os_ctl_send(spare_door, msg, n, NULL, 0), 0);	/* no socket with it */
	assert_int_equal(mkv_os_ctl_send(spare_door, msg, n, fds, 2), 0);	/* two of them */
	assert_int_equal(mkv_os_ctl_send(spare_door, msg, n - 1, fds + 1, 1), 0);
	h->rail++;
	assert_int_equal(mkv_os_ctl_send(spare_door, msg, n, fds + 1, 1), 0);
	for (unsigned i = 0; i < 400; i++) {
		size_t len = 1 + rnd_below(&rnd, 64);

		rnd_fill(&rnd, msg, len);
		if (i % 2 == 0)
			memcpy(msg, &(struct mkv_pass_head){ .magic = MKV_PASS_MAGIC, .version = MKV_PASS_VERSION, .rail = RAIL }, 8);
		if (mkv_os_ctl_send(spare_door, msg, len, fds + 1, i % 3 != 0) == MKV_E_AGAIN)
			rig_pump(&rail);
	}
	rig_pump_ms(&rail, 5);
	assert_true(count(&rail, MKV_M_front_bad_frames_total) >= bad + 4);
	assert_int_equal(rail.f->n_conns, 0);
	close(fds[1]);
	assert_int_equal(send(fds[0], "x", 1, MSG_NOSIGNAL), -1);	/* no copy of it is left behind */
	close(fds[0]);
	passed_session(&cl);
	rig_put_get(&cl, "fine", 1000);
	rig_client_close(&cl);
}

/* The last sender closes its end: nothing more can come, and the front does not turn for it. */
static void
test_nobody_at_the_door(void **state)
{
	(void)state;
	rig_close(&tcp);
	close(spare_door);
	rig_pump_ms(&rail, 5);
	assert_false(rail.f->door_busy);
	open_tcp();
	spare_door = dup(0);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_message),
		cmocka_unit_test_setup_teardown(test_listed, setup_tcp, teardown_tcp),
		cmocka_unit_test_setup_teardown(test_passed, setup, teardown),
		cmocka_unit_test_setup_teardown(test_bytes_in_pieces, setup, teardown),
		cmocka_unit_test_setup_teardown(test_address, setup, teardown),
		cmocka_unit_test_setup_teardown(test_down, setup, teardown),
		cmocka_unit_test_setup_teardown(test_death, setup, teardown),
		cmocka_unit_test_setup_teardown(test_stop, setup, teardown),
		cmocka_unit_test_setup_teardown(test_full, setup, teardown),
		cmocka_unit_test_setup_teardown(test_passed_by_a_crowded_front, setup, teardown),
		cmocka_unit_test_setup_teardown(test_nonsense_at_the_door, setup, teardown),
		cmocka_unit_test_setup_teardown(test_nobody_at_the_door, setup, teardown),
	};

	return (cmocka_run_group_tests(tests, NULL, NULL));
}
