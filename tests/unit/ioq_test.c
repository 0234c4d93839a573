/*
 * Completion I/O: every test runs on both back ends (where the kernel refuses io_uring, that half skips and says so).
 * The io_uring back end is included, so that raw operations can be tried against a restricted ring.
 */
#include "config.h"
#include "common/base/os_uring.c"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/wait.h>

#include <cmocka.h>

#include "tests/unit/ioq_up.h"

static void
test_names(void **state)
{
	need_queue();
	assert_string_equal(mkv_ioq_name(q), *(enum mkv_ioq_kind *)*state == MKV_IOQ_POLL ? "poll" : "io_uring");
	assert_int_equal(mkv_ioq_in_flight(q), 0);
	assert_int_equal(mkv_ioq_run(q, 0), 0);
	assert_true(mkv_ioq_enters(q) >= 1);
}

static void
test_deadline(void **state MKV_UNUSED)
{
	uint64_t t0, took;

	need_queue();
	t0 = mkv_now_ns();
	assert_int_equal(mkv_ioq_run(q, t0 + 20 * MKV_NS_PER_MS), 0);
	took = mkv_now_ns() - t0;
	assert_true(took >= 20 * MKV_NS_PER_MS);
	assert_true(took < 2 * MKV_NS_PER_SEC);
}

static void
test_recv_send(void **state MKV_UNUSED)
{
	char a[] = "hello", b[] = " ", c[] = "world", buf[64];
	struct iovec iov[3] = { { a, 5 }, { b, 1 }, { c, 5 } };
	struct op r, w;
	int s[2];

	need_queue();
	pair(s);
	op_init(&r);
	op_init(&w);
	mkv_ioq_recv(q, &r.io, MKV_FD(s[0]), buf, sizeof(buf), 0);
	mkv_ioq_send(q, &w.io, MKV_FD(s[1]), iov, 3);
	assert_int_equal(mkv_ioq_in_flight(q), 2);
	assert_int_equal(r.calls + w.calls, 0);	/* never from inside the submitting call */
	assert_int_equal(wait_for(&w), 11);
	assert_int_equal(wait_for(&r), 11);
	assert_memory_equal(buf, "hello world", 11);
	assert_int_equal(mkv_ioq_in_flight(q), 0);
	close(s[0]);
	close(s[1]);
}

static void
test_send_nothing(void **state MKV_UNUSED)
{
	struct iovec iov = { NULL, 0 };
	struct op w;

	need_queue();
	op_init(&w);
	mkv_ioq_send(q, &w.io, MKV_FD(0), &iov, 1);
	assert_int_equal(w.calls, 0);
	assert_int_equal(wait_for(&w), 0);
}

static void
test_recv_all(void **state MKV_UNUSED)
{
	char buf[10] = "";
	struct op r;
	int s[2];

	need_queue();
	pair(s);
	op_init(&r);
	mkv_ioq_recv(q, &r.io, MKV_FD(s[0]), buf, 10, MKV_IO_ALL);
	for (int i = 0; i < 4; i++) {
		assert_int_equal(write(s[1], "ab", 2), 2);
		assert_int_equal(mkv_ioq_run(q, mkv_now_ns() + 5 * MKV_NS_PER_MS), 0);
	}
	assert_int_equal(write(s[1], "abX", 3), 3);
	assert_int_equal(wait_for(&r), 10);
	assert_memory_equal(buf, "ababababab", 10);
	op_init(&r);				/* the byte behind is still there */
	mkv_ioq_recv(q, &r.io, MKV_FD(s[0]), buf, 10, 0);
	assert_int_equal(wait_for(&r), 1);
	op_init(&r);				/* end of stream in the middle: short */
	mkv_ioq_recv(q, &r.io, MKV_FD(s[0]), buf, 10, MKV_IO_ALL);
	assert_int_equal(write(s[1], "abc", 3), 3);
	close(s[1]);
	assert_int_equal(wait_for(&r), 3);
	op_init(&r);
	mkv_ioq_recv(q, &r.io, MKV_FD(s[0]), buf, 10, 0);
	assert_int_equal(wait_for(&r), 0);
	close(s[0]);
}

/* More than any socket buffer takes, in iovecs of odd sizes, against a reader in pieces on the same queue. */
static void
test_send_large(void **state MKV_UNUSED)
{
	enum { BYTES = 6000001, PARTS = 7 };
	unsigned char *out = malloc(BYTES), *in = malloc(BYTES);
	struct iovec iov[PARTS];
	size_t at = 0, got = 0;
	struct op w, r;
	int s[2];

	need_queue();
	pair(s);
	for (size_t i = 0; i < BYTES; i++)
		out[i] = (unsigned char)(i * 2654435761u >> 13);
	for (unsigned i = 0; i < PARTS; i++) {
		iov[i].iov_base = out + at;
		iov[i].iov_len = i == PARTS - 1 ? BYTES - at : i == 2 ? 0 : 900001;
		at += iov[i].iov_len;
	}
	op_init(&w);
	mkv_ioq_send(q, &w.io, MKV_FD(s[1]), iov, PARTS);
	while (got < BYTES) {
		op_init(&r);
		mkv_ioq_recv(q, &r.io, MKV_FD(s[0]), in + got, (uint32_t)MKV_MIN(BYTES - got, 70000), 0);
		assert_true(wait_for(&r) > 0);
		got += (size_t)r.res;
	}
	assert_int_equal(wait_for(&w), BYTES);
	assert_memory_equal(in, out, BYTES);
	assert_int_equal(iov[0].iov_len, 900001);	/* the caller's, untouched */
	free(out);
	free(in);
	close(s[0]);
	close(s[1]);
}

static void
test_peer_gone(void **state MKV_UNUSED)
{
	char byte = 'x';
	struct iovec iov = { &byte, 1 };
	struct op w, r;
	int s[2];

	need_queue();
	pair(s);
	close(s[1]);
	op_init(&w);
	op_init(&r);
	mkv_ioq_send(q, &w.io, MKV_FD(s[0]), &iov, 1);
	assert_int_equal(wait_for(&w), MKV_E_CLOSED);	/* and no SIGPIPE */
	mkv_ioq_recv(q, &r.io, MKV_FD(s[0]), &byte, 1, 0);
	assert_int_equal(wait_for(&r), 0);
	close(s[0]);
}

/* shutdown() is how one ends an operation of one's own connection. */
static void
test_shutdown(void **state MKV_UNUSED)
{
	char buf[8];
	struct op r;
	int s[2];

	need_queue();
	pair(s);
	op_init(&r);
	mkv_ioq_recv(q, &r.io, MKV_FD(s[0]), buf, sizeof(buf), MKV_IO_ALL);
	assert_int_equal(mkv_ioq_run(q, 0), 0);
	shutdown(s[0], SHUT_RDWR);
	assert_int_equal(wait_for(&r), 0);
	close(s[0]);
	close(s[1]);
}

static void
test_nonblocking_socket(void **state MKV_UNUSED)
{
	char buf[8];
	struct op r;
	int s[2];

	need_queue();
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, s), 0);
	op_init(&r);
	mkv_ioq_recv(q, &r.io, MKV_FD(s[0]), buf, 4, MKV_IO_ALL);
	for (int i = 0; i < 3; i++)
		assert_int_equal(mkv_ioq_run(q, mkv_now_ns() + 2 * MKV_NS_PER_MS), 0);
	assert_int_equal(write(s[1], "ab", 2), 2);
	assert_int_equal(mkv_ioq_run(q, mkv_now_ns() + 2 * MKV_NS_PER_MS), 0);
	assert_int_equal(write(s[1], "cd", 2), 2);
	assert_int_equal(wait_for(&r), 4);
	assert_memory_equal(buf, "abcd", 4);
	op_init(&r);				/* waits for readiness: must be recallable there too */
	mkv_ioq_recv(q, &r.io, MKV_FD(s[0]), buf, 4, 0);
	assert_int_equal(mkv_ioq_run(q, mkv_now_ns() + 2 * MKV_NS_PER_MS), 0);
	mkv_ioq_cancel(q, &r.io);
	assert_int_equal(wait_for(&r), MKV_E_CANCELLED);
	close(s[0]);
	close(s[1]);
}

static void
test_cancel(void **state MKV_UNUSED)
{
	char buf[8];
	struct op r;
	int s[2];

	need_queue();
	pair(s);
	op_init(&r);
	mkv_ioq_cancel(q, &r.io);		/* idle: nothing happens */
	for (int submitted = 0; submitted < 2; submitted++) {
		op_init(&r);
		mkv_ioq_recv(q, &r.io, MKV_FD(s[0]), buf, sizeof(buf), MKV_IO_ALL);
		if (submitted)
			assert_int_equal(mkv_ioq_run(q, 0), 0);
		mkv_ioq_cancel(q, &r.io);
		mkv_ioq_cancel(q, &r.io);
		assert_int_equal(r.calls, 0);
		assert_int_equal(wait_for(&r), MKV_E_CANCELLED);
		assert_int_equal(mkv_ioq_run(q, mkv_now_ns() + MKV_NS_PER_MS), 0);
		assert_int_equal(r.calls, 1);
	}
	op_init(&r);				/* half done, then recalled */
	mkv_ioq_recv(q, &r.io, MKV_FD(s[0]), buf, sizeof(buf), MKV_IO_ALL);
	assert_int_equal(write(s[1], "abc", 3), 3);
	assert_int_equal(mkv_ioq_run(q, mkv_now_ns() + MKV_NS_PER_MS), 0);
	mkv_ioq_cancel(q, &r.io);
	wait_for(&r);
	assert_true(r.res == MKV_E_CANCELLED || r.res == 3);
	assert_int_equal(mkv_ioq_in_flight(q), 0);
	close(s[0]);
	close(s[1]);
}

/* A cancel that comes too late must not hit the next use of the same struct. */
static void
test_cancel_then_reuse(void **state MKV_UNUSED)
{
	struct iovec iov;
	char buf[8], byte = 'y';
	struct op r, w;
	int s[2];

	need_queue();
	pair(s);
	iov.iov_base = &byte;
	iov.iov_len = 1;
	for (int i = 0; i < 200; i++) {
		op_init(&r);
		op_init(&w);
		mkv_ioq_recv(q, &r.io, MKV_FD(s[0]), buf, 1, 0);
		mkv_ioq_send(q, &w.io, MKV_FD(s[1]), &iov, 1);
		if (i & 1)
			assert_true(mkv_ioq_run(q, 0) >= 0);
		mkv_ioq_cancel(q, &r.io);
		wait_for(&r);
		wait_for(&w);
		if (r.res == 1)
			continue;
		op_init(&r);
		mkv_ioq_recv(q, &r.io, MKV_FD(s[0]), buf, 1, 0);
		assert_int_equal(wait_for(&r), 1);
	}
	close(s[0]);
	close(s[1]);
}

static void
test_accept_connect(void **state MKV_UNUSED)
{
	struct sockaddr_in sin = { .sin_family = AF_INET };
	struct op a, c, r;
	char byte = 0;
	uint16_t port = 0;
	int l, s;

	need_queue();
	l = mkv_os_listen_tcp("127.0.0.1", 0, 0, &port);
	assert_true(l >= 0);
	assert_int_not_equal(port, 0);
	s = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	sin.sin_port = htons(port);
	sin.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	op_init(&a);
	op_init(&c);
	mkv_ioq_accept(q, &a.io, MKV_FD(l));
	assert_int_equal(mkv_ioq_run(q, mkv_now_ns() + 2 * MKV_NS_PER_MS), 0);
	mkv_ioq_connect(q, &c.io, MKV_FD(s), (struct sockaddr *)&sin, sizeof(sin));
	assert_int_equal(wait_for(&c), 0);
	assert_true(wait_for(&a) >= 0);
	assert_int_equal(a.io.addr.ss_family, AF_INET);
	assert_true(fcntl(a.res, F_GETFD) & FD_CLOEXEC);
	assert_int_equal(write(a.res, "z", 1), 1);
	op_init(&r);
	mkv_ioq_recv(q, &r.io, MKV_FD(s), &byte, 1, 0);
	assert_int_equal(wait_for(&r), 1);
	assert_int_equal(byte, 'z');
	close(a.res);
	close(l);
	close(s);
	s = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	op_init(&c);				/* nobody listens any more */
	mkv_ioq_connect(q, &c.io, MKV_FD(s), (struct sockaddr *)&sin, sizeof(sin));
	assert_int_equal(wait_for(&c), MKV_E_UNREACHABLE);
	close(s);
}

static void
test_poll_once(void **state MKV_UNUSED)
{
	struct op p;
	int s[2];

	need_queue();
	pair(s);
	op_init(&p);
	mkv_ioq_poll(q, &p.io, MKV_FD(s[0]), 0);
	assert_int_equal(mkv_ioq_run(q, mkv_now_ns() + 2 * MKV_NS_PER_MS), 0);
	assert_int_equal(write(s[1], "a", 1), 1);
	assert_true(wait_for(&p) & POLLIN);
	assert_int_equal(mkv_ioq_run(q, mkv_now_ns() + 2 * MKV_NS_PER_MS), 0);
	assert_int_equal(mkv_ioq_in_flight(q), 0);
	close(s[0]);
	close(s[1]);
}

static void *
ring_thread(void *arg)
{
	for (int i = 0; i < 2000; i++)
		mkv_os_bell_ring(*(int *)arg);
	return (NULL);
}

static void
test_bell_multishot(void **state MKV_UNUSED)
{
	int w, r, idx;
	pthread_t th;
	struct op p;
	uint64_t until;

	need_queue();
	assert_int_equal(mkv_os_bell_create(&w, &r), 0);
	idx = mkv_ioq_register_file(q, w);
	assert_int_equal(idx, 0);
	op_init(&p);
	mkv_ioq_poll(q, &p.io, idx, 1);
	for (unsigned i = 1; i <= 50; i++) {	/* one ring, one call, and quiet after it */
		mkv_os_bell_ring(r);
		until = mkv_now_ns() + LIMIT_NS;
		while (p.calls < i && mkv_now_ns() < until)
			assert_true(mkv_ioq_run(q, until) >= 0);
		assert_int_equal(p.calls, i);
		assert_true(p.res & POLLIN);
		assert_int_equal(mkv_ioq_run(q, 0), 0);
	}
	assert_int_equal(mkv_ioq_run(q, mkv_now_ns() + 3 * MKV_NS_PER_MS), 0);
	assert_int_equal(pthread_create(&th, NULL, ring_thread, &r), 0);
	p.calls = 0;
	until = mkv_now_ns() + LIMIT_NS;
	while (p.calls == 0 && mkv_now_ns() < until)
		mkv_ioq_run(q, until);
	pthread_join(th, NULL);
	while (mkv_ioq_run(q, mkv_now_ns() + 5 * MKV_NS_PER_MS) > 0)
		continue;
	assert_true(p.calls >= 1);
	assert_int_equal(mkv_ioq_in_flight(q), 1);
	p.calls = 0;
	mkv_ioq_cancel(q, &p.io);
	assert_int_equal(wait_for(&p), MKV_E_CANCELLED);
	close(w);
	close(r);
}

static void *
wake_thread(void *arg MKV_UNUSED)
{
	usleep(20000);
	mkv_ioq_wake(q);
	return (NULL);
}

static void
test_wake(void **state MKV_UNUSED)
{
	uint64_t t0;
	pthread_t th;

	need_queue();
	for (int i = 0; i < 3; i++) {
		t0 = mkv_now_ns();
		assert_int_equal(pthread_create(&th, NULL, wake_thread, NULL), 0);
		assert_int_equal(mkv_ioq_run(q, t0 + LIMIT_NS), 0);
		assert_true(mkv_now_ns() - t0 < LIMIT_NS / 2);
		pthread_join(th, NULL);
	}
}

static void
test_file(void **state MKV_UNUSED)
{
	enum { BYTES = 3 * 65536 };
	char *out = aligned_alloc(4096, BYTES), *in = aligned_alloc(4096, BYTES);
	int fd = temp_file(), idx;
	struct op o;

	need_queue();
	for (int i = 0; i < BYTES; i++)
		out[i] = (char)(i * 31);
	idx = mkv_ioq_register_file(q, fd);
	op_init(&o);
	mkv_ioq_write(q, &o.io, idx, out, BYTES, 4096, -1);
	assert_int_equal(wait_for(&o), BYTES);
	op_init(&o);
	mkv_ioq_flush(q, &o.io, idx);
	assert_int_equal(wait_for(&o), 0);
	op_init(&o);
	mkv_ioq_read(q, &o.io, MKV_FD(fd), in, BYTES, 4096, -1);
	assert_int_equal(wait_for(&o), BYTES);
	assert_memory_equal(in, out, BYTES);
	op_init(&o);				/* across the end, and behind it */
	mkv_ioq_read(q, &o.io, idx, in, BYTES, 4096 + BYTES - 100, -1);
	assert_int_equal(wait_for(&o), 100);
	op_init(&o);
	mkv_ioq_read(q, &o.io, idx, in, BYTES, 1 << 20, -1);
	assert_int_equal(wait_for(&o), 0);
	op_init(&o);				/* an error is an error */
	close(fd);
	mkv_ioq_write(q, &o.io, MKV_FD(1 << 20), out, 1, 0, -1);
	assert_true(wait_for(&o) < 0);
	free(out);
	free(in);
}

static void
test_file_direct(void **state MKV_UNUSED)
{
	char path[] = "/tmp/memkv-ioq-XXXXXX", *buf;
	int fd, direct, idx;
	struct op o;

	need_queue();
	buf = aligned_alloc(4096, 65536);
	fd = mkstemp(path);
	assert_true(fd >= 0);
	assert_int_equal(ftruncate(fd, 20000), 0);	/* ends inside a sector */
	close(fd);
	fd = mkv_os_medium_open(path, &direct);
	unlink(path);
	assert_true(fd >= 0);
	idx = mkv_ioq_register_file(q, fd);
	op_init(&o);
	mkv_ioq_read(q, &o.io, idx, buf, 65536, 0, -1);
	assert_int_equal(wait_for(&o), 20000);
	memset(buf, 7, 65536);
	op_init(&o);
	mkv_ioq_write(q, &o.io, idx, buf, 65536, 0, -1);
	assert_int_equal(wait_for(&o), 65536);
	free(buf);
	close(fd);
}

static void
test_fixed_buffers(void **state MKV_UNUSED)
{
	struct iovec iov[2];
	int fd = temp_file(), idx, r;
	struct op o;

	need_queue();
	for (int i = 0; i < 2; i++) {
		iov[i].iov_len = 65536;
		iov[i].iov_base = mmap(NULL, 65536, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	}
	r = mkv_ioq_register_buffers(q, iov, 1, 4);
	if (r == MKV_E_NOMEM)
		skip();
	assert_int_equal(r, 0);
	idx = mkv_ioq_register_file(q, fd);
	memset(iov[0].iov_base, 'q', 65536);
	op_init(&o);
	mkv_ioq_write(q, &o.io, idx, iov[0].iov_base, 65536, 0, 0);
	assert_int_equal(wait_for(&o), 65536);
	assert_int_equal(mkv_ioq_set_buffer(q, 2, &iov[1]), 0);	/* comes later */
	op_init(&o);
	mkv_ioq_read(q, &o.io, idx, (char *)iov[1].iov_base + 4096, 8192, 0, 2);
	assert_int_equal(wait_for(&o), 8192);
	assert_int_equal(((char *)iov[1].iov_base)[4096 + 8191], 'q');
	assert_int_equal(((char *)iov[1].iov_base)[4096 + 8192], 0);
	munmap(iov[0].iov_base, 65536);
	munmap(iov[1].iov_base, 65536);
	close(fd);
}

/* Far more in flight than the submission ring has slots; all of them pending; then all recalled at once. */
static void
test_more_than_entries(void **state)
{
	enum { N = 300 };
	static struct op r[N], w[N];
	static char buf[N], byte = 'm';
	struct iovec iov = { &byte, 1 };
	int s[2];

	need_queue();
	mkv_ioq_destroy(&q);
	assert_int_equal(set_up_depth(state, 8, 2 * N), 0);
	pair(s);
	for (int i = 0; i < N; i++) {
		op_init(&r[i]);
		mkv_ioq_recv(q, &r[i].io, MKV_FD(s[0]), &buf[i], 1, 0);
	}
	assert_int_equal(mkv_ioq_in_flight(q), N);
	for (int i = 0; i < N / 2; i++) {
		op_init(&w[i]);
		mkv_ioq_send(q, &w[i].io, MKV_FD(s[1]), &iov, 1);
	}
	for (int i = 0; i < N / 2; i++)
		assert_int_equal(wait_for(&w[i]), 1);
	assert_true(mkv_ioq_run(q, 0) >= 0);
	for (int i = 0; i < N; i++)
		mkv_ioq_cancel(q, &r[i].io);
	for (int i = 0; i < N; i++)
		wait_for(&r[i]);
	assert_int_equal(mkv_ioq_in_flight(q), 0);
	close(s[0]);
	close(s[1]);
}

static struct mkv_io *chain_io;
static int chain_left, chain_fd;
static char chain_buf[1];

static void
on_chain(struct mkv_io *io, int res)
{
	assert_ptr_equal(io, chain_io);
	assert_int_equal(res, 1);
	if (--chain_left > 0)			/* from inside done: the same struct again */
		mkv_ioq_recv(q, io, MKV_FD(chain_fd), chain_buf, 1, 0);
}

static void
test_resubmit_in_done(void **state MKV_UNUSED)
{
	struct mkv_io io = { .done = on_chain };
	char bytes[100];
	uint64_t until = mkv_now_ns() + LIMIT_NS;
	int s[2];

	need_queue();
	pair(s);
	memset(bytes, 1, sizeof(bytes));
	chain_io = &io;
	chain_left = 100;
	chain_fd = s[0];
	assert_int_equal(write(s[1], bytes, 100), 100);
	mkv_ioq_recv(q, &io, MKV_FD(s[0]), chain_buf, 1, 0);
	while (chain_left > 0 && mkv_now_ns() < until)
		assert_true(mkv_ioq_run(q, until) >= 0);
	assert_int_equal(chain_left, 0);
	close(s[0]);
	close(s[1]);
}

/* Everything that can be in flight, and then the queue goes away: no done, no leak, no hang. */
static void
test_destroy_busy(void **state MKV_UNUSED)
{
	static struct op r, p, a, f[20];
	static char buf[8], big[20][65536];
	int s[2], l, fd = temp_file();
	uint64_t t0 = mkv_now_ns();

	need_queue();
	pair(s);
	l = mkv_os_listen_tcp("127.0.0.1", 0, 0, NULL);
	op_init(&r);
	op_init(&p);
	op_init(&a);
	mkv_ioq_recv(q, &r.io, MKV_FD(s[0]), buf, 8, 0);
	mkv_ioq_poll(q, &p.io, MKV_FD(s[0]), 1);
	mkv_ioq_accept(q, &a.io, MKV_FD(l));
	assert_int_equal(mkv_ioq_run(q, 0), 0);
	for (int i = 0; i < 20; i++) {
		op_init(&f[i]);
		mkv_ioq_write(q, &f[i].io, MKV_FD(fd), big[i], 65536, 65536u * (unsigned)i, -1);
	}
	mkv_ioq_destroy(&q);
	assert_null(q);
	assert_int_equal(r.calls + p.calls + a.calls + f[0].calls, 0);
	assert_true(mkv_now_ns() - t0 < 5 * MKV_NS_PER_SEC);
	close(s[0]);
	close(s[1]);
	close(l);
	close(fd);
}

/* Made here, used there: the ring is bound to the thread that runs it first. */
static void *
other_thread(void *arg)
{
	mkv_ioq_poll(q, arg, MKV_FD(0), 0);
	mkv_ioq_cancel(q, arg);
	for (int i = 0; i < 100 && mkv_ioq_in_flight(q) > 0; i++)
		if (mkv_ioq_run(q, mkv_now_ns() + 10 * MKV_NS_PER_MS) < 0)
			return ((void *)1);
	mkv_ioq_destroy(&q);
	return (NULL);
}

static void
test_other_thread(void **state MKV_UNUSED)
{
	struct op o;
	pthread_t th;
	void *r;

	need_queue();
	op_init(&o);
	assert_int_equal(pthread_create(&th, NULL, other_thread, &o.io), 0);
	pthread_join(th, &r);
	assert_null(r);
	assert_int_equal(o.calls, 1);
}

/* ---- restricted rings (io_uring only): a child tries, its exit status tells which step failed ---- */

static int
raw_op(struct uring *u, struct io_uring_sqe *want)
{
	struct io_uring_sqe *sqe = uring_sqe(u);
	struct io_uring_cqe *cqe;
	int res;

	want->user_data = 77;
	memcpy(sqe, want, sizeof(*sqe));
	if (io_uring_submit_and_wait(&u->ring, 1) < 0 || io_uring_peek_cqe(&u->ring, &cqe) != 0)
		return (1);
	res = cqe->res;
	io_uring_cqe_seen(&u->ring, cqe);
	return (res);
}

#define STEP(n, e)	do { if (!(e)) _exit(n); } while (0)

static void
child_file_jail(int fd, int bell)
{
	struct mkv_ioq_opts opts = { .kind = MKV_IOQ_URING, .entries = 8, .depth_max = 8, .restricted = 1 };
	static char page[4096] __attribute__((aligned(4096)));
	struct io_uring_sqe sqe;
	struct op o, p;
	struct iovec iov = { page, sizeof(page) };
	int idx, bidx;

	STEP(1, mkv_ioq_create(&q, &opts) == 0);
	STEP(2, (idx = mkv_ioq_register_file(q, fd)) >= 0);
	STEP(3, (bidx = mkv_ioq_register_file(q, bell)) >= 0);
	STEP(4, mkv_ioq_register_buffers(q, NULL, 0, 2) == 0);
	STEP(5, mkv_ioq_jail(q, MKV_IOQ_MAY_FILE) == 0);
	memset(&sqe, 0, sizeof(sqe));
	io_uring_prep_openat(&sqe, AT_FDCWD, "/etc/passwd", O_RDONLY, 0);
	STEP(10, raw_op(uring_of(q), &sqe) == -EACCES);
	sqe.flags = IOSQE_FIXED_FILE;
	STEP(11, raw_op(uring_of(q), &sqe) == -EACCES);
	memset(&sqe, 0, sizeof(sqe));
	sqe.opcode = IORING_OP_SOCKET;
	sqe.fd = AF_INET;
	sqe.off = SOCK_STREAM;
	STEP(12, raw_op(uring_of(q), &sqe) == -EACCES);
	io_uring_prep_read(&sqe, fd, page, 1, 0);	/* an allowed op on a plain descriptor */
	STEP(13, raw_op(uring_of(q), &sqe) == -EACCES);
	io_uring_prep_nop(&sqe);
	STEP(14, raw_op(uring_of(q), &sqe) == -EACCES);
	sqe.flags = IOSQE_FIXED_FILE | IOSQE_ASYNC;
	STEP(15, raw_op(uring_of(q), &sqe) == -EACCES);
	sqe.flags = IOSQE_FIXED_FILE;
	STEP(16, raw_op(uring_of(q), &sqe) == 0);
	STEP(17, mkv_ioq_register_file(q, 0) < 0);
	STEP(20, mkv_ioq_set_buffer(q, 1, &iov) == 0);
	op_init(&o);
	op_init(&p);
	memset(page, 5, sizeof(page));
	mkv_ioq_poll(q, &p.io, bidx, 1);
	mkv_ioq_write(q, &o.io, idx, page, sizeof(page), 0, 1);
	STEP(21, wait_for(&o) == sizeof(page));
	op_init(&o);
	mkv_ioq_flush(q, &o.io, idx);
	STEP(22, wait_for(&o) == 0);
	op_init(&o);
	mkv_ioq_read(q, &o.io, idx, page, sizeof(page), 0, -1);
	STEP(23, wait_for(&o) == sizeof(page));
	mkv_os_bell_ring(bell);
	STEP(24, wait_for(&p) == POLLIN);
	p.calls = 0;
	mkv_ioq_cancel(q, &p.io);
	STEP(25, wait_for(&p) == MKV_E_CANCELLED);
	op_init(&o);
	mkv_ioq_read(q, &o.io, MKV_FD(fd), page, 1, 0, -1);
	STEP(26, wait_for(&o) < 0);
	mkv_ioq_wake(q);
	STEP(27, mkv_ioq_run(q, mkv_now_ns() + LIMIT_NS) == 0);
	mkv_ioq_destroy(&q);
	_exit(0);
}

static void
child_socket_jail(int a, int b)
{
	struct mkv_ioq_opts opts = { .kind = MKV_IOQ_URING, .entries = 8, .depth_max = 8, .restricted = 1 };
	struct sockaddr_in sin = { .sin_family = AF_INET };
	struct io_uring_sqe sqe;
	struct op r, w;
	char buf[4], two[2] = "xy";
	struct iovec iov[2] = { { two, 1 }, { two + 1, 1 } };

	STEP(1, mkv_ioq_create(&q, &opts) == 0);
	STEP(2, mkv_ioq_jail(q, MKV_IOQ_MAY_SOCKET) == 0);
	memset(&sqe, 0, sizeof(sqe));
	io_uring_prep_openat(&sqe, AT_FDCWD, "/etc/passwd", O_RDONLY, 0);
	STEP(10, raw_op(uring_of(q), &sqe) == -EACCES);
	io_uring_prep_connect(&sqe, a, (struct sockaddr *)&sin, sizeof(sin));
	STEP(11, raw_op(uring_of(q), &sqe) == -EACCES);
	io_uring_prep_read(&sqe, a, buf, 1, 0);
	STEP(12, raw_op(uring_of(q), &sqe) == -EACCES);
	op_init(&r);
	op_init(&w);
	mkv_ioq_recv(q, &r.io, MKV_FD(a), buf, 2, MKV_IO_ALL);
	mkv_ioq_send(q, &w.io, MKV_FD(b), iov, 2);
	STEP(20, wait_for(&w) == 2);
	STEP(21, wait_for(&r) == 2 && buf[0] == 'x' && buf[1] == 'y');
	_exit(0);
}

static void
run_child(void (*child)(int, int), int a, int b)
{
	int status;
	pid_t pid = fork();

	if (pid == 0)
		child(a, b);
	assert_true(pid > 0);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFEXITED(status));
	assert_int_equal(WEXITSTATUS(status), 0);
}

static void
test_restricted(void **state)
{
	int fd = temp_file(), s[2], w, r;

	need_queue();
	if (*(enum mkv_ioq_kind *)*state == MKV_IOQ_POLL) {	/* nothing to restrict, and no error */
		assert_int_equal(mkv_ioq_jail(q, MKV_IOQ_MAY_FILE), 0);
		close(fd);
		return;
	}
	pair(s);
	assert_int_equal(mkv_os_bell_create(&w, &r), 0);
	run_child(child_file_jail, fd, w);
	run_child(child_socket_jail, s[0], s[1]);
	close(fd);
	close(s[0]);
	close(s[1]);
	close(w);
	close(r);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		BOTH(test_names), BOTH(test_deadline), BOTH(test_recv_send), BOTH(test_send_nothing), BOTH(test_recv_all),
		BOTH(test_send_large), BOTH(test_peer_gone), BOTH(test_shutdown), BOTH(test_nonblocking_socket), BOTH(test_cancel),
		BOTH(test_cancel_then_reuse), BOTH(test_accept_connect), BOTH(test_poll_once), BOTH(test_bell_multishot),
		BOTH(test_wake), BOTH(test_file), BOTH(test_file_direct), BOTH(test_fixed_buffers), BOTH(test_more_than_entries),
		BOTH(test_resubmit_in_done), BOTH(test_destroy_busy), BOTH(test_other_thread), BOTH(test_restricted),
	};

	return (cmocka_run_group_tests(tests, NULL, NULL));
}
