/*
 * Regions: values between a client's memfd and the front, and what a client may do to its memory meanwhile. A front with fake drives (front_rig.h), in both modes.
 */
#include "config.h"

#include "tests/unit/front_region_up.h"

#include <dirent.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "common/base/assert.h"
#include "common/base/crc.h"
#include "common/base/err.h"

#define LINGER_S	60

static void
with(int memory_mode, uint64_t regions_bytes, void (*fn)(struct rig *, struct rig_client *))
{
	struct rig_conf conf = { .drives = 2, .memory_mode = memory_mode, .regions_bytes = regions_bytes, .kind = MKV_IOQ_AUTO, .idle_ns = 600 * MKV_NS_PER_SEC };
	struct rig_client c;
	struct rig r;

	rig_open(&r, &conf);
	r.from = &unix_socket;
	rig_client_open(&r, &c);
	rig_client_handshake(&c);
	fn(&r, &c);
	rig_client_close(&c);
	for (unsigned i = 0; i < RIG_PATIENCE_MS && r.f->n_conns != 0; i++)
		rig_pump_ms(&r, 1);
	assert_int_equal(r.f->n_regions, 0);
	assert_int_equal(r.f->regions_bytes, 0);
	rig_close(&r);
}

static void
both(uint64_t regions_bytes, void (*fn)(struct rig *, struct rig_client *))
{
	with(0, regions_bytes, fn);
	with(1, regions_bytes, fn);
}

/* ---- */

static void
run_sizes(struct rig *r, struct rig_client *c)
{
	static const uint64_t sizes[] = { 0, 1, 4095, 4096, 65536, 65537, 300001, PART - 1, PART, PART + 1, sizeof(value) };
	struct memory from = memory_of(ROOM), to = memory_of(ROOM);
	struct mkv_wire_seg s[3];

	assert_int_equal(region(c, 1, ROOM, from.fd), 0);
	assert_int_equal(region(c, 2, ROOM, to.fd), 0);
	for (unsigned i = 0; i < MKV_ARRAY_LEN(sizes); i++) {
		uint64_t n = sizes[i], off = 4096u * i + i;
		char key[16];

		snprintf(key, sizeof(key), "k%u", i);
		rig_fill(value, n, i + 1);
		memcpy(from.p + off, value, n);
		assert_int_equal(answer(c, begin_put(c, key, value, n, off, 1)), 0);
		memset(from.p + off, 0, n);
		assert_int_equal(end_get(c, begin_get(c, key, 0, UINT64_MAX, s, cut(s, off + 5, MKV_MAX(n, 1u), 2))), n);
		only(&to, off + 5, value, n);
		memset(to.p, GUARD, ROOM);
		rig_put_get(c, "by the socket", n);
	}
	assert_int_equal(r->f->n_regions, 2);
	memory_free(&from);
	memory_free(&to);
}

static void
test_sizes(void **state MKV_UNUSED)
{
	both(1ull << 30, run_sizes);
}

/* A range, less room than the value has, segments in any order. */
static void
run_ranges(struct rig *r MKV_UNUSED, struct rig_client *c)
{
	struct memory m = memory_of(ROOM);
	struct mkv_wire_seg s[4] = { { 70000, 100, 9 }, { 100, 65000, 9 }, { 200000, PART, 9 }, { 6000000, 1, 9 } };
	const uint64_t from = PART - 70001, want = 100 + 65000 + PART + 1;

	rig_fill(value, sizeof(value), 3);
	assert_int_equal(rig_put(c, "v", value, sizeof(value)), 0);
	assert_int_equal(region(c, 9, ROOM, m.fd), 0);
	assert_int_equal(end_get(c, begin_get(c, "v", from, UINT64_MAX, s, 4)), want);
	assert_memory_equal(m.p + 70000, value + from, 100);
	assert_memory_equal(m.p + 100, value + from + 100, 65000);
	assert_memory_equal(m.p + 200000, value + from + 65100, PART);
	assert_int_equal(m.p[6000000], value[from + want - 1]);
	assert_int_equal(m.p[99], GUARD);
	assert_int_equal(m.p[6000001], GUARD);
	assert_int_equal(end_get(c, begin_get(c, "v", sizeof(value), UINT64_MAX, s, 1)), 0);
	assert_int_equal(end_get(c, begin_get(c, "nobody", 0, UINT64_MAX, s, 1)), MKV_E_MISS);
	memory_free(&m);
}

static void
test_ranges(void **state MKV_UNUSED)
{
	both(1ull << 30, run_ranges);
}

static int
plain_file(void)
{
	char path[] = "/tmp/memkv-region-XXXXXX";
	int fd = mkstemp(path);

	assert_true(fd >= 0);
	unlink(path);
	assert_int_equal(posix_fallocate(fd, 0, ROOM), 0);
	return (fd);
}

/* What is refused leaves the session as it was, and no descriptor behind. */
static void
run_refused(struct rig *r, struct rig_client *c)
{
	struct memory m = memory_of(ROOM), n = memory_of(ROOM), large = memory_of(2 * ROOM);
	int sparse = mkv_os_shm_create("sparse", ROOM, 0), file = plain_file(), unsealed = memfd_create("unsealed", MFD_ALLOW_SEALING | MFD_CLOEXEC);
	unsigned before = open_files();

	assert_int_equal(ftruncate(unsealed, ROOM), 0);
	assert_int_equal(mkv_os_shm_fill(unsealed, ROOM), 0);
	assert_int_equal(region(c, 1, ROOM, sparse), MKV_E_INVAL);
	assert_int_equal(region(c, 1, ROOM, file), MKV_E_INVAL);
	assert_int_equal(region(c, 1, ROOM, unsealed), MKV_E_INVAL);
	assert_int_equal(region(c, 1, ROOM, -1), MKV_E_INVAL);
	assert_int_equal(region(c, 0, ROOM, m.fd), MKV_E_INVAL);
	assert_int_equal(region(c, 1, ROOM - 4096, m.fd), MKV_E_INVAL);
	assert_int_equal(region(c, 1, 2 * ROOM, large.fd), MKV_E_TOOBIG);
	assert_int_equal(drop(c, 1), MKV_E_INVAL);
	assert_int_equal(mkv_metric_get(r->m, MKV_M_front_regions_refused_total, 0), 7);
	for (unsigned i = 0; i < RIG_PATIENCE_MS && open_files() != before; i++)
		usleep(1000);				/* closed aside */
	assert_int_equal(open_files(), before);
	assert_int_equal(region(c, 1, ROOM, m.fd), 0);
	assert_int_equal(region(c, 1, ROOM, n.fd), MKV_E_INVAL);
	assert_int_equal(region(c, 2, ROOM, n.fd), MKV_E_NOSPACE);
	assert_int_equal(region(c, 2, ROOM, m.fd), 0);		/* the same memory */
	assert_int_equal(drop(c, 1), 0);
	assert_int_equal(region(c, 3, ROOM, n.fd), MKV_E_NOSPACE);
	assert_int_equal(drop(c, 2), 0);
	assert_int_equal(region(c, 3, ROOM, n.fd), 0);
	rig_put_get(c, "goes on", 100000);
	close(sparse);
	close(file);
	close(unsealed);
	memory_free(&m);
	memory_free(&n);
	memory_free(&large);
}

static void
test_refused(void **state MKV_UNUSED)
{
	with(0, 4 * ROOM, run_refused);
}

/* The same memory counts once, is mapped once, and stays as long as one session has it. */
static void
run_twins(struct rig *r, struct rig_client *c)
{
	struct memory m = memory_of(ROOM);
	struct mkv_wire_seg s = { 0, PART, 7 };
	struct rig_client other;

	rig_client_open(r, &other);
	rig_client_handshake(&other);
	assert_int_equal(region(c, 7, ROOM, m.fd), 0);
	assert_int_equal(region(&other, 7, ROOM, m.fd), 0);
	assert_int_equal(r->f->regions_bytes, 2 * ROOM);
	assert_ptr_equal(MKV_CONTAINER_OF(r->f->regions_used.next, struct mkv_region, used)->base, MKV_CONTAINER_OF(r->f->regions_used.prev, struct mkv_region, used)->base);
	rig_fill(value, PART, 1);
	memcpy(m.p, value, PART);
	assert_int_equal(answer(c, begin_put(c, "k", value, PART, 0, 7)), 0);
	assert_int_equal(drop(c, 7), 0);
	memset(m.p, 0, PART);
	assert_int_equal(end_get(&other, begin_get(&other, "k", 0, PART, &s, 1)), PART);
	assert_memory_equal(m.p, value, PART);
	assert_int_equal(region(c, 8, ROOM, m.fd), 0);
	rig_client_close(&other);
	for (unsigned i = 0; i < RIG_PATIENCE_MS && r->f->n_regions != 1; i++)
		rig_pump_ms(r, 1);
	assert_int_equal(r->f->regions_bytes, 2 * ROOM);
	assert_int_equal(answer(c, begin_put(c, "q", value, PART, 0, 8)), 0);
	memory_free(&m);
}

static void
test_twins(void **state MKV_UNUSED)
{
	with(0, 4 * ROOM, run_twins);
}

static void
run_outside(struct rig *r MKV_UNUSED, struct rig_client *c)
{
	static const struct mkv_wire_seg bad[] = { { 0, 100, 2 }, { ROOM - 99, 100, 1 }, { ROOM + 1, 1, 1 }, { UINT64_MAX - 10, 100, 1 }, { 0, 0, 1 } };
	struct memory m = memory_of(ROOM);
	struct mkv_wire_seg good = { 0, 100, 1 }, five[5];
	uint8_t body[1024];

	rig_fill(value, 100, 1);
	assert_int_equal(region(c, 1, ROOM, m.fd), 0);
	for (unsigned i = 0; i < MKV_ARRAY_LEN(bad); i++) {
		uint64_t id = c->next_id++;

		send_put(c, id, 0, body, rig_put_body(body, "k", 1, value, 100, 0, 100, 0), 100, &bad[i], 1);
		assert_int_equal(answer(c, id), MKV_E_PROTO);
		assert_int_equal(end_get(c, begin_get(c, "k", 0, 100, &bad[i], 1)), MKV_E_PROTO);
	}
	for (unsigned i = 0; i < 5; i++)
		five[i] = good;
	assert_int_equal(end_get(c, begin_get(c, "k", 0, 100, five, 5)), MKV_E_PROTO);
	{
		uint64_t id = c->next_id++;		/* fewer bytes than the frame says */

		send_put(c, id, 0, body, rig_put_body(body, "k", 1, value, 101, 0, 101, 0), 101, &good, 1);
		assert_int_equal(answer(c, id), MKV_E_PROTO);
	}
	rig_put_get(c, "goes on", 100000);
	memory_free(&m);
}

static void
test_outside(void **state MKV_UNUSED)
{
	both(1ull << 30, run_outside);
}

/* Nobody's signal, nobody's memory: what has no page is read as zeroes, whose CRCs are wrong, and written to like any other. */
static void
run_punched(struct rig *r MKV_UNUSED, struct rig_client *c)
{
	struct memory m = memory_of(ROOM);
	struct mkv_wire_seg s = { 0, PART, 1 };

	rig_fill(value, PART, 1);
	memcpy(m.p, value, PART);
	assert_int_equal(region(c, 1, ROOM, m.fd), 0);
	assert_int_equal(fallocate(m.fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 8192, ROOM - 8192), 0);
	assert_int_equal(answer(c, begin_put(c, "k", value, PART, 0, 1)), MKV_E_CORRUPT);
	assert_int_equal(end_get(c, begin_get(c, "k", 0, PART, &s, 1)), MKV_E_MISS);
	memcpy(m.p, value, PART);
	assert_int_equal(answer(c, begin_put(c, "k", value, PART, 0, 1)), 0);
	assert_int_equal(fallocate(m.fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, ROOM), 0);
	assert_int_equal(end_get(c, begin_get(c, "k", 0, PART, &s, 1)), PART);
	assert_memory_equal(m.p, value, PART);
	memory_free(&m);
}

static void
test_punched(void **state MKV_UNUSED)
{
	both(1ull << 30, run_punched);
}

/* After the answer to DROP its memory is the client's alone; a get that was to go there ends the session, not the front. */
static void
run_dropped(struct rig *r, struct rig_client *c)
{
	struct memory m = memory_of(ROOM);
	struct mkv_wire_seg s = { 0, PART, 1 };
	struct rig_client other;

	rig_client_open(r, &other);
	rig_client_handshake(&other);
	rig_fill(value, PART, 1);
	assert_int_equal(rig_put(c, "k", value, PART), 0);
	assert_int_equal(region(c, 1, ROOM, m.fd), 0);
	for (unsigned i = 0; i < 2; i++)
		r->drive[i].hold = 1;
	begin_get(c, "k", 0, PART, &s, 1);
	for (unsigned i = 0; i < RIG_PATIENCE_MS && r->drive[0].n_held + r->drive[1].n_held == 0; i++)
		rig_pump_ms(r, 1);
	assert_int_equal(drop(c, 1), 0);
	memset(m.p, GUARD, ROOM);
	for (unsigned i = 0; i < 2; i++)
		rig_drive_answer_held(&r->drive[i]);
	assert_int_equal(rig_recv(c, RIG_PATIENCE_MS), -1);
	only(&m, 0, m.p, 0);
	rig_put_get(&other, "goes on", 100000);
	rig_client_close(&other);
	memory_free(&m);
}

static void
test_dropped(void **state MKV_UNUSED)
{
	both(1ull << 30, run_dropped);
}

/* A number that is given again, to less memory, is not what a get from before meant. */
static void
run_reused(struct rig *r, struct rig_client *c)
{
	struct memory large = memory_of(ROOM), small = memory_of(65536);
	struct mkv_wire_seg s[2] = { { 0, 100, 1 }, { ROOM - PART, PART - 100, 1 } };
	struct rig_client other;

	rig_client_open(r, &other);
	rig_client_handshake(&other);
	rig_fill(value, PART, 1);
	assert_int_equal(rig_put(c, "k", value, PART), 0);
	assert_int_equal(region(c, 1, ROOM, large.fd), 0);
	for (unsigned i = 0; i < 2; i++)
		r->drive[i].hold = 1;
	begin_get(c, "k", 0, PART, s, 2);
	for (unsigned i = 0; i < RIG_PATIENCE_MS && r->drive[0].n_held + r->drive[1].n_held == 0; i++)
		rig_pump_ms(r, 1);
	assert_int_equal(drop(c, 1), 0);
	assert_int_equal(region(c, 1, 65536, small.fd), 0);
	for (unsigned i = 0; i < 2; i++)
		rig_drive_answer_held(&r->drive[i]);
	assert_int_equal(rig_recv(c, RIG_PATIENCE_MS), -1);
	only(&small, 0, small.p, 0);
	only(&large, 0, large.p, 0);
	rig_put_get(&other, "goes on", 100000);
	rig_client_close(&other);
	memory_free(&small);
	memory_free(&large);
}

static void
test_reused(void **state MKV_UNUSED)
{
	both(1ull << 30, run_reused);
}

/* A client that goes in the middle of a copy, in each direction, leaves nothing behind: rig_close() and with() look. */
static void
run_gone(struct rig *r, struct rig_client *c)
{
	struct memory m = memory_of(ROOM);
	struct mkv_wire_seg s = { 0, PART, 1 };

	rig_fill(value, PART, 1);
	memcpy(m.p, value, PART);
	assert_int_equal(rig_put(c, "k", value, PART), 0);
	for (unsigned turns = 0; turns < 24; turns++)
		for (unsigned get = 0; get < 2; get++) {
			struct rig_client g;

			rig_client_open(r, &g);
			rig_client_handshake(&g);
			assert_int_equal(region(&g, 1, ROOM, m.fd), 0);
			if (get)
				begin_get(&g, "k", 0, PART, &s, 1);
			else
				begin_put(&g, "q", value, PART, 0, 1);
			for (unsigned i = 0; i < turns; i++)
				(void)rig_turn(r);
			rig_client_close(&g);
		}
	rig_put_get(c, "goes on", 100000);
	memory_free(&m);
}

static void
test_gone(void **state MKV_UNUSED)
{
	both(1ull << 30, run_gone);
}

/* Its deadline passes in the middle of its bytes: it is told so, and the session goes on, since no stream is out of step. */
static void
run_deadline(struct rig *r, struct rig_client *c)
{
	struct memory m = memory_of(ROOM);
	uint64_t id;

	rig_fill(value, PART, 1);
	memcpy(m.p, value, PART);
	assert_int_equal(region(c, 1, ROOM, m.fd), 0);
	id = begin_put(c, "k", value, PART, 0, 1);
	for (unsigned i = 0; i < RIG_PATIENCE_MS && mkv_metric_get(r->m, MKV_M_front_region_put_bytes_total, 0) == 0; i++)
		(void)rig_turn(r);
	assert_true(mkv_metric_get(r->m, MKV_M_front_region_put_bytes_total, 0) < PART);
	r->ahead_ns = 2 * RIG_PATIENCE_MS * MKV_NS_PER_MS;
	assert_int_equal(answer(c, id), MKV_E_TIMEOUT);
	c->deadline_us = 10 * RIG_PATIENCE_MS * 1000;
	rig_put_get(c, "goes on", 100000);
	memory_free(&m);
}

static void
test_deadline(void **state MKV_UNUSED)
{
	with(0, 1ull << 30, run_deadline);
}

/* Between two pieces of a large copy another session is served. */
static void
run_fair(struct rig *r, struct rig_client *c)
{
	struct memory m = memory_of(ROOM);
	struct rig_client other;
	unsigned before = 0;

	rig_client_open(r, &other);
	rig_client_handshake(&other);
	rig_fill(value, sizeof(value), 1);
	memcpy(m.p, value, sizeof(value));
	assert_int_equal(region(c, 1, ROOM, m.fd), 0);
	begin_put(c, "k", value, sizeof(value), 0, 1);
	while (mkv_metric_get(r->m, MKV_M_front_region_put_bytes_total, 0) < sizeof(value)) {
		unsigned answered = other.in_bytes != 0;

		if (!answered)
			(void)rig_send(&other, MKV_WIRE_PING, 0, 0, NULL, 0, NULL, 0);
		(void)rig_turn(r);
		before += !answered && other.in_bytes != 0;
		other.counter_in += other.in_bytes != 0;
		other.in_bytes = 0;
	}
	assert_true(before >= 2);
	assert_int_equal(rig_recv(c, RIG_PATIENCE_MS), 1);
	assert_int_equal(c->f.hdr.status, 0);
	rig_client_close(&other);
	memory_free(&m);
}

static void
test_fair(void **state MKV_UNUSED)
{
	with(0, 1ull << 30, run_fair);
}

/* Values of a piece each, sent in one run, are a turn each. */
static void
run_fair_many(struct rig *r, struct rig_client *c)
{
	struct memory m = memory_of(ROOM);
	uint64_t before = 0, now;

	rig_fill(value, CONN_PIECE_BYTES, 1);
	memcpy(m.p, value, CONN_PIECE_BYTES);
	assert_int_equal(region(c, 1, ROOM, m.fd), 0);
	for (unsigned i = 0; i < 8; i++)
		(void)begin_put(c, "k", value, CONN_PIECE_BYTES, 0, 1);
	do {
		(void)rig_turn(r);
		now = mkv_metric_get(r->m, MKV_M_front_region_put_bytes_total, 0);
		assert_true(now - before <= CONN_PIECE_BYTES);
		before = now;
	} while (now < 8 * CONN_PIECE_BYTES);
	for (unsigned i = 0; i < 8; i++) {
		assert_int_equal(rig_recv(c, RIG_PATIENCE_MS), 1);
		assert_int_equal(c->f.hdr.status, 0);
	}
	memory_free(&m);
}

static void
test_fair_many(void **state MKV_UNUSED)
{
	with(0, 1ull << 30, run_fair_many);
}

/* A connected socket whose close waits LINGER_S seconds for a peer that does not read. */
static int
lingering(int *peer)
{
	struct sockaddr_in a = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	struct linger l = { .l_onoff = 1, .l_linger = LINGER_S };
	int at = socket(AF_INET, SOCK_STREAM, 0), fd = socket(AF_INET, SOCK_STREAM, 0);
	socklen_t n = sizeof(a);

	assert_true(at >= 0 && fd >= 0);
	assert_int_equal(bind(at, (struct sockaddr *)&a, n), 0);
	assert_int_equal(listen(at, 1), 0);
	assert_int_equal(getsockname(at, (struct sockaddr *)&a, &n), 0);
	assert_int_equal(connect(fd, (struct sockaddr *)&a, n), 0);
	*peer = accept(at, NULL, NULL);
	assert_true(*peer >= 0);
	close(at);
	assert_int_equal(setsockopt(fd, SOL_SOCKET, SO_LINGER, &l, sizeof(l)), 0);
	while (send(fd, value, sizeof(value), MSG_DONTWAIT) > 0)
		;
	return (fd);
}

/* The last close of what a client passes may hang: nobody waits for it. */
static void
run_lingering(struct rig *r MKV_UNUSED, struct rig_client *c)
{
	struct mkv_wire_region w = { .number = 1, .bytes = ROOM };
	uint64_t begin = mkv_now_ns(), id;
	int peer, fd = lingering(&peer);
	uint8_t sink[65536];

	id = rig_send_fd(c, MKV_WIRE_REGION, &w, sizeof(w), fd);
	close(fd);
	assert_int_equal(answer(c, id), MKV_E_INVAL);
	rig_put_get(c, "goes on", 100000);
	assert_true(mkv_now_ns() - begin < LINGER_S / 2 * MKV_NS_PER_SEC);
	while (recv(peer, sink, sizeof(sink), 0) > 0)
		;
	close(peer);
}

static void
test_lingering(void **state MKV_UNUSED)
{
	with(0, 1ull << 30, run_lingering);
}

/* So many bytes at once, and descriptors beside the first of them, which are theirs alone from then on. */
static void
send_fds(struct rig_client *c, const void *p, size_t n, int *fds, unsigned n_fds)
{
	_Alignas(struct cmsghdr) char ctl[CMSG_SPACE(4 * sizeof(int))] = { 0 };
	struct iovec v = { (void *)(uintptr_t)p, n };
	struct msghdr m = { .msg_iov = &v, .msg_iovlen = 1, .msg_control = ctl, .msg_controllen = CMSG_SPACE(n_fds * sizeof(int)) };
	struct cmsghdr *cm = CMSG_FIRSTHDR(&m);

	while (c->out_bytes != 0)
		rig_pump(c->rig);
	cm->cmsg_level = SOL_SOCKET;
	cm->cmsg_type = SCM_RIGHTS;
	cm->cmsg_len = CMSG_LEN(n_fds * sizeof(int));
	memcpy(CMSG_DATA(cm), fds, n_fds * sizeof(int));
	assert_int_equal(sendmsg(c->fd, &m, MSG_NOSIGNAL), n);
	for (unsigned i = 0; i < n_fds; i++)
		close(fds[i]);
}

enum { STRAY_SECOND, STRAY_PAIR, STRAY_PAYLOAD, STRAY_DISCARDED, STRAY_UNREAD, STRAYS };

/* A descriptor whose close hangs, where none belongs. Its peer, for the end. */
static int
stray(struct rig_client *c, int memory, unsigned where)
{
	uint8_t body[2048];
	struct mkv_hdr h;
	int peer, fd[2] = { lingering(&peer), -1 };

	switch (where) {
	case STRAY_SECOND:
		fd[1] = dup(memory);
		rig_frame_make(c, &h, MKV_WIRE_PING, 0, c->next_id++, NULL, 0, 0);
		send_fds(c, &h, sizeof(h), &fd[1], 1);
		rig_frame_make(c, &h, MKV_WIRE_PING, 0, c->next_id++, NULL, 0, 0);
		send_fds(c, &h, sizeof(h), fd, 1);
		break;
	case STRAY_PAIR:
		fd[1] = fd[0];
		fd[0] = dup(memory);
		rig_frame_make(c, &h, MKV_WIRE_PING, 0, c->next_id++, NULL, 0, 0);
		send_fds(c, &h, sizeof(h), fd, 2);
		break;
	case STRAY_PAYLOAD:
	case STRAY_DISCARDED: {
		size_t b = rig_put_body(body, "stray", where == STRAY_PAYLOAD ? 5 : 0, value, 100000, 0, 100000, 0);

		rig_frame_make(c, &h, MKV_WIRE_PUT, 0, c->next_id++, body, b, 100000);
		rig_write(c, &h, sizeof(h));
		rig_write(c, body, b);
		rig_write(c, value, 20000);
		rig_pump(c->rig);
		send_fds(c, value + 20000, 10000, fd, 1);
		rig_write(c, value + 30000, 70000);
		break;
	}
	case STRAY_UNREAD:
		memset(body, 0, sizeof(body));
		for (unsigned i = 0; i < 8; i++)	/* no header; more than is read ahead of one */
			rig_write(c, body, sizeof(body));
		while (c->out_bytes != 0)
			(void)rig_clients_pump(c->rig);
		send_fds(c, value, 1, fd, 1);
		break;
	}
	return (peer);
}

/* However a descriptor comes, nobody waits for its close, and not for more of them than there are threads to close them. */
static void
run_strays(struct rig *r, struct rig_client *c)
{
	static const unsigned often[STRAYS] = { [STRAY_SECOND] = 20, [STRAY_PAIR] = 1, [STRAY_PAYLOAD] = 1, [STRAY_DISCARDED] = 1, [STRAY_UNREAD] = 1 };
	struct memory m = memory_of(65536);
	uint64_t begin = mkv_now_ns();
	int peer[32];
	unsigned n = 0;
	uint8_t sink[65536];

	for (unsigned where = STRAYS; where-- > 0;)
		for (unsigned i = 0; i < often[where]; i++) {
			struct rig_client g;

			rig_client_open(r, &g);
			rig_client_handshake(&g);
			peer[n++] = stray(&g, m.fd, where);
			while (rig_recv(&g, where == STRAY_PAIR ? 10 : RIG_PATIENCE_MS) == 1)
				continue;
			assert_int_equal(g.closed, where != STRAY_PAIR);
			rig_client_close(&g);
			rig_put_get(c, "goes on", 100000);
			assert_true(mkv_now_ns() - begin < LINGER_S / 2 * MKV_NS_PER_SEC);
		}
	while (n-- > 0) {
		while (recv(peer[n], sink, sizeof(sink), 0) > 0)
			;
		close(peer[n]);
	}
	memory_free(&m);
}

static void
test_strays(void **state MKV_UNUSED)
{
	with(0, 1ull << 30, run_strays);
}

/* Memory whose pages are gone ends the copy in either direction, and only that: a file that is cut short stands for an empty pool of huge pages. */
static void
test_guard(void **state MKV_UNUSED)
{
	int fd = plain_file(), status;
	uint8_t *p = mmap(NULL, 65536, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0), own[8192] = { 1 };
	pid_t pid;

	assert_true(p != MAP_FAILED);
	assert_true(mkv_guard_init());
	assert_true(mkv_guard_copy(p, own, sizeof(own), p));
	assert_true(mkv_guard_copy(own, p, sizeof(own), p));
	assert_int_equal(ftruncate(fd, 4096), 0);
	for (unsigned i = 0; i < 3; i++) {
		assert_false(mkv_guard_copy(p, own, sizeof(own), p));
		assert_false(mkv_guard_copy(own, p, sizeof(own), p));
		assert_true(mkv_guard_copy(own, p, 4096, p));
	}
	if ((pid = fork()) == 0) {
		(void)mkv_guard_copy(p + 8192, own, 4096, own);	/* the fault is elsewhere */
		_exit(0);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFSIGNALED(status) || WEXITSTATUS(status) != 0);
	assert_int_equal(munmap(p, 65536), 0);
	close(fd);
}

/* Where there are none, a frame that speaks of them ends the session; a descriptor goes nowhere. */
static void
run_none(struct rig *r MKV_UNUSED, struct rig_client *c)
{
	struct memory m = memory_of(ROOM);
	struct mkv_wire_seg s = { 0, PART, 1 };

	assert_int_equal(region(c, 1, ROOM, m.fd), MKV_E_UNSUPPORTED);
	begin_get(c, "k", 0, PART, &s, 1);
	assert_int_equal(rig_recv(c, RIG_PATIENCE_MS), -1);
	memory_free(&m);
}

static void
test_none(void **state MKV_UNUSED)
{
	with(0, 0, run_none);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_sizes),
		cmocka_unit_test(test_ranges),
		cmocka_unit_test(test_refused),
		cmocka_unit_test(test_twins),
		cmocka_unit_test(test_outside),
		cmocka_unit_test(test_punched),
		cmocka_unit_test(test_dropped),
		cmocka_unit_test(test_reused),
		cmocka_unit_test(test_gone),
		cmocka_unit_test(test_deadline),
		cmocka_unit_test(test_fair),
		cmocka_unit_test(test_fair_many),
		cmocka_unit_test(test_lingering),
		cmocka_unit_test(test_strays),
		cmocka_unit_test(test_guard),
		cmocka_unit_test(test_none),
	};

	mkv_crc_init();
	return (cmocka_run_group_tests(tests, NULL, NULL));
}
