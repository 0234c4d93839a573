/*
 * Completion I/O on unix sockets: descriptors beside the bytes.
 */
#include "config.h"

#include "tests/unit/ioq_up.h"

#include <fcntl.h>
#include <sys/stat.h>

static unsigned strays;

static void
close_stray(int fd)
{
	strays++;
	close(fd);
}

static struct mkv_io_pass pass = { .stray = close_stray };

/* A descriptor goes with the first byte of its send, and a recv ends with the bytes of that send. */
static void
test_passes_descriptor(void **state MKV_UNUSED)
{
	char text[] = "abcdefgh";
	struct iovec a = { text, 4 }, b[2] = { { text + 4, 2 }, { text + 6, 2 } };
	struct op r, w;
	struct stat mine, came;
	char buf[16];
	int s[2], fd;

	need_queue();
	pair(s);
	fd = temp_file();
	assert_int_equal(fstat(fd, &mine), 0);
	op_init(&w);
	mkv_ioq_send(q, &w.io, MKV_FD(s[1]), &a, 1);
	assert_int_equal(wait_for(&w), 4);
	op_init(&w);
	mkv_ioq_send_fd(q, &w.io, MKV_FD(s[1]), b, 2, fd);
	assert_int_equal(wait_for(&w), 4);
	op_init(&w);
	mkv_ioq_send(q, &w.io, MKV_FD(s[1]), &a, 1);
	assert_int_equal(wait_for(&w), 4);
	op_init(&r);
	mkv_ioq_recv_fd(q, &r.io, MKV_FD(s[0]), buf, 4, 0, &pass);
	assert_int_equal(wait_for(&r), 4);
	assert_int_equal(r.io.passed, -1);
	op_init(&r);
	mkv_ioq_recv_fd(q, &r.io, MKV_FD(s[0]), buf, sizeof(buf), 0, &pass);
	assert_int_equal(wait_for(&r), 4);		/* not the next one's */
	assert_memory_equal(buf, "efgh", 4);
	assert_true(r.io.passed >= 0);
	assert_int_equal(fcntl(r.io.passed, F_GETFD) & FD_CLOEXEC, FD_CLOEXEC);
	assert_int_equal(fstat(r.io.passed, &came), 0);
	assert_true(mine.st_dev == came.st_dev && mine.st_ino == came.st_ino);
	close(r.io.passed);
	op_init(&r);
	mkv_ioq_recv_fd(q, &r.io, MKV_FD(s[0]), buf, sizeof(buf), 0, &pass);
	assert_int_equal(wait_for(&r), 4);
	assert_int_equal(r.io.passed, -1);
	close(fd);
	close(s[0]);
	close(s[1]);
}

/* More than one with a send: one comes, the others are told of. */
static void
test_takes_one_descriptor(void **state MKV_UNUSED)
{
	_Alignas(struct cmsghdr) char ctl[CMSG_SPACE(3 * sizeof(int))] = { 0 };
	char text[] = "x";
	struct iovec v = { text, 1 };
	struct msghdr m = { .msg_iov = &v, .msg_iovlen = 1, .msg_control = ctl, .msg_controllen = sizeof(ctl) };
	struct cmsghdr *c = CMSG_FIRSTHDR(&m);
	int s[2], fds[3], before, after;
	struct op r;
	char buf[4];

	need_queue();
	pair(s);
	for (int i = 0; i < 3; i++)
		fds[i] = temp_file();
	c->cmsg_level = SOL_SOCKET;
	c->cmsg_type = SCM_RIGHTS;
	c->cmsg_len = CMSG_LEN(sizeof(fds));
	memcpy(CMSG_DATA(c), fds, sizeof(fds));
	assert_int_equal(sendmsg(s[1], &m, 0), 1);
	before = dup(0);
	close(before);
	strays = 0;
	op_init(&r);
	mkv_ioq_recv_fd(q, &r.io, MKV_FD(s[0]), buf, sizeof(buf), 0, &pass);
	assert_int_equal(wait_for(&r), 1);
	assert_true(r.io.passed >= 0);
	assert_int_equal(strays, 2);
	close(r.io.passed);
	after = dup(0);
	assert_int_equal(after, before);
	close(after);
	for (int i = 0; i < 3; i++)
		close(fds[i]);
	close(s[0]);
	close(s[1]);
}

/* All bytes are there, whatever came beside them. */
static void
test_takes_all_bytes(void **state MKV_UNUSED)
{
	char text[] = "abcdefgh";
	struct iovec a = { text, 4 }, b = { text + 4, 4 };
	struct op r, w;
	int s[2], fd;
	char buf[16];

	need_queue();
	pair(s);
	fd = temp_file();
	strays = 0;
	op_init(&r);
	mkv_ioq_recv_fd(q, &r.io, MKV_FD(s[0]), buf, 12, MKV_IO_ALL, &pass);
	for (unsigned i = 0; i < 3; i++) {
		op_init(&w);
		mkv_ioq_send_fd(q, &w.io, MKV_FD(s[1]), i == 1 ? &b : &a, 1, fd);
		assert_int_equal(wait_for(&w), 4);
	}
	assert_int_equal(wait_for(&r), 12);
	assert_memory_equal(buf, "abcdefghabcd", 12);
	assert_true(r.io.passed >= 0);
	assert_int_equal(strays, 2);
	close(r.io.passed);
	close(fd);
	close(s[0]);
	close(s[1]);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		BOTH(test_passes_descriptor), BOTH(test_takes_one_descriptor), BOTH(test_takes_all_bytes),
	};

	return (cmocka_run_group_tests(tests, NULL, NULL));
}
