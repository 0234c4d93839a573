/*
 * The jail: a child enters it and tries what it must not be able to do, and what it still has to be able to do. The child's exit status is
 * the step that went wrong.
 */
#include "config.h"
#include "worker/core/jail.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "common/base/assert.h"
#include "common/base/clock.h"
#include "common/base/err.h"
#include "common/base/os.h"

#define LIMIT_NS	(10 * MKV_NS_PER_SEC)
#define STEP(n, e)	do { if (!(e)) _exit(n); } while (0)
#define VERBS_IOCTL	0xc0181b01ul	/* RDMA_VERBS_IOCTL of <rdma/rdma_user_ioctl_cmds.h> */
#define REFUSED(call)	(errno = 0, (call) < 0 && (errno == EPERM || errno == EACCES))

struct fixture {
	int	file, s[2];		/* an open file, a socket pair */
	struct sockaddr_in sin;		/* somebody listens there */
	int	tcp;			/* not connected */
	pid_t	parent;
	unsigned expect_missing;
	enum mkv_ioq_kind kind;
};

struct op {
	struct mkv_io io;
	int	calls, res;
};

static void
on_done(struct mkv_io *io, int res)
{
	struct op *o = MKV_CONTAINER_OF(io, struct op, io);

	o->calls++;
	o->res = res;
}

static int
wait_for(struct mkv_ioq *q, struct op *o)
{
	uint64_t until = mkv_now_ns() + LIMIT_NS;

	while (o->calls == 0 && mkv_now_ns() < until)
		if (mkv_ioq_run(q, until) < 0)
			return (-9999);
	return (o->calls == 1 ? o->res : -9998);
}

static void *
thread_main(void *arg)
{
	*(int *)arg = 1;
	return (NULL);
}

static void
try_forbidden(const struct fixture *f)
{
	static char *const argv[] = { (char *)(uintptr_t)"/bin/true", NULL };
	char params[256];

	STEP(10, REFUSED(open("/etc/passwd", O_RDONLY)));
	STEP(11, REFUSED(open("/tmp/memkv-jail-made", O_RDWR | O_CREAT, 0600)));
	STEP(12, REFUSED(socket(AF_INET, SOCK_STREAM, 0)));
	STEP(13, REFUSED(socket(AF_UNIX, SOCK_STREAM, 0)));
	STEP(14, REFUSED(connect(f->tcp, (const struct sockaddr *)&f->sin, sizeof(f->sin))));
	STEP(15, REFUSED(bind(f->tcp, (const struct sockaddr *)&f->sin, sizeof(f->sin))));
	STEP(16, REFUSED(listen(f->tcp, 1)));
	memset(params, 0, sizeof(params));
	STEP(17, REFUSED(syscall(SYS_io_uring_setup, 8, params)));
	STEP(18, REFUSED(ptrace(PTRACE_ATTACH, f->parent, NULL, NULL)));
	STEP(19, REFUSED(fork()));
	STEP(20, REFUSED(execv(argv[0], argv)));
	STEP(21, REFUSED(kill(f->parent, 0)));
	STEP(22, REFUSED(setuid(0)));
	STEP(23, REFUSED(chdir("/")));
	STEP(24, REFUSED(syscall(SYS_process_vm_readv, f->parent, NULL, 0, NULL, 0, 0)));
	errno = 0;
	STEP(25, mmap(NULL, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) == MAP_FAILED && errno == EPERM);
	STEP(26, syscall(SYS_clone3, NULL, 0) < 0 && errno == ENOSYS);
	STEP(27, REFUSED(unlink("/tmp/memkv-jail-made")));
}

static void
try_allowed(const struct fixture *f)
{
	pthread_t th;
	int ran = 0, fds[2], got[2];
	unsigned n = 2;
	char byte = 0;
	void *p;

	STEP(40, pthread_create(&th, NULL, thread_main, &ran) == 0);
	STEP(41, pthread_join(th, NULL) == 0 && ran == 1);
	STEP(42, (p = malloc(8 << 20)) != NULL);
	memset(p, 1, 8 << 20);
	free(p);
	STEP(43, mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) != MAP_FAILED);
	fds[0] = f->file;
	STEP(44, mkv_os_ctl_send(f->s[0], "x", 1, fds, 1) == 0);
	STEP(45, mkv_os_ctl_recv(f->s[1], &byte, 1, got, &n) == 1 && n == 1 && byte == 'x');
	close(got[0]);
	STEP(46, write(2, "", 0) == 0);
	STEP(47, mkv_now_ns() > 0 && mkv_cpu_ns() > 0);
}

static void
try_file_io(const struct fixture *f, struct mkv_ioq *q, int idx)
{
	static char page[8192] __attribute__((aligned(4096)));
	struct iovec iov = { page, 4096 };
	struct op o;

	(void)f;
	memset(page, 'j', sizeof(page));
	STEP(50, mkv_ioq_set_buffer(q, 1, &iov) == 0);
	memset(&o, 0, sizeof(o));
	o.io.done = on_done;
	mkv_ioq_write(q, &o.io, idx, page, 4096, 0, 1);
	STEP(51, wait_for(q, &o) == 4096);
	o.calls = 0;
	mkv_ioq_flush(q, &o.io, idx);
	STEP(52, wait_for(q, &o) == 0);
	o.calls = 0;
	mkv_ioq_read(q, &o.io, idx, page + 4096, 4096, 0, -1);
	STEP(53, wait_for(q, &o) == 4096 && page[4096] == 'j');
}

static void
try_socket_io(const struct fixture *f, struct mkv_ioq *q)
{
	struct iovec iov = { (char *)(uintptr_t)"hello", 5 };
	char buf[8];
	struct op r, w;

	memset(&r, 0, sizeof(r));
	memset(&w, 0, sizeof(w));
	r.io.done = w.io.done = on_done;
	mkv_ioq_recv(q, &r.io, MKV_FD(f->s[1]), buf, 5, 0);
	mkv_ioq_send(q, &w.io, MKV_FD(f->s[0]), &iov, 1);
	STEP(60, wait_for(q, &w) == 5);
	STEP(61, wait_for(q, &r) == 5);
	STEP(62, shutdown(f->s[0], SHUT_RDWR) == 0);
}

static void
child(const struct fixture *f, unsigned may)
{
	struct mkv_ioq_opts opts = { .kind = f->kind, .entries = 8, .depth_max = 8, .threads = 2, .restricted = 1 };
	unsigned missing = f->expect_missing;
	struct mkv_ioq *q;
	int idx;

	STEP(1, mkv_ioq_create(&q, &opts) == 0);
	STEP(2, (idx = mkv_ioq_register_file(q, f->file)) >= 0);
	STEP(3, mkv_ioq_register_buffers(q, NULL, 0, 2) == 0);
	if (may & MKV_JAIL_KEEP_CREDENTIALS)
		missing |= MKV_JAIL_LANDLOCK | MKV_JAIL_USER;
	STEP(4, mkv_jail_enter(q, may, "nobody") == missing);
	try_forbidden(f);
	try_allowed(f);
	if (may & MKV_IOQ_MAY_FILE)
		try_file_io(f, q, idx);
	if (may & MKV_IOQ_MAY_SOCKET)
		try_socket_io(f, q);
	else
		STEP(70, REFUSED(shutdown(f->s[0], SHUT_WR)));
	if (!(may & MKV_IOQ_MAY_FILE))
		STEP(71, REFUSED(pread(f->file, &idx, sizeof(idx), 0)));
	errno = 0;
	STEP(80, ioctl(f->file, VERBS_IOCTL, NULL) < 0 && errno == (may & MKV_JAIL_MAY_VERBS ? ENOTTY : EPERM));
	STEP(81, REFUSED(ioctl(f->s[0], TIOCSTI, "x")));
	mkv_ioq_destroy(&q);
	_exit(0);
}

/* What this machine lets a jail have, seen by a first child: the others must find the same. */
static unsigned
probe_missing(void)
{
	int status;
	pid_t pid = fork();

	if (pid == 0)
		_exit((int)mkv_jail_enter(NULL, MKV_IOQ_MAY_FILE, "nobody"));
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFEXITED(status));
	return ((unsigned)WEXITSTATUS(status));
}

static void
fixture_open(struct fixture *f, enum mkv_ioq_kind kind)
{
	char path[] = "/tmp/memkv-jail-XXXXXX";
	uint16_t port;

	memset(f, 0, sizeof(*f));
	f->kind = kind;
	f->file = mkstemp(path);
	assert_true(f->file >= 0);
	unlink(path);
	assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, f->s), 0);
	assert_true(mkv_os_listen_tcp("127.0.0.1", 0, 0, &port) >= 0);
	f->sin.sin_family = AF_INET;
	f->sin.sin_port = htons(port);
	f->sin.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	f->tcp = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	f->parent = getpid();
	f->expect_missing = probe_missing();
}

static void
fixture_close(struct fixture *f)
{
	close(f->file);
	close(f->s[0]);
	close(f->s[1]);
	close(f->tcp);
}

static int
have_uring(void)
{
	struct mkv_ioq_opts opts = { .kind = MKV_IOQ_URING, .entries = 8, .depth_max = 8 };
	struct mkv_ioq *q = NULL;
	int r = mkv_ioq_create(&q, &opts);

	mkv_ioq_destroy(&q);
	return (r == 0);
}

static void
run(enum mkv_ioq_kind kind, unsigned may)
{
	struct fixture f;
	int status;
	pid_t pid;

	if (kind == MKV_IOQ_URING && !have_uring()) {
		print_message("io_uring is refused here\n");
		skip();
	}
	fixture_open(&f, kind);
	if (f.expect_missing & (MKV_JAIL_SECCOMP | MKV_JAIL_LANDLOCK)) {
		print_message("no whole jail here: parts %u are missing (or this is a sanitizer build)\n", f.expect_missing);
		fixture_close(&f);
		skip();
	}
	if ((pid = fork()) == 0)
		child(&f, may);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFEXITED(status));
	assert_int_equal(WEXITSTATUS(status), 0);
	fixture_close(&f);
}

static void
test_drive_uring(void **state MKV_UNUSED)
{
	run(MKV_IOQ_URING, MKV_IOQ_MAY_FILE);
}

static void
test_drive_threads(void **state MKV_UNUSED)
{
	run(MKV_IOQ_POLL, MKV_IOQ_MAY_FILE);
}

static void
test_front_uring(void **state MKV_UNUSED)
{
	run(MKV_IOQ_URING, MKV_IOQ_MAY_SOCKET);
}

static void
test_front_poll(void **state MKV_UNUSED)
{
	run(MKV_IOQ_POLL, MKV_IOQ_MAY_SOCKET);
}

/* With an RDMA device open: its one ioctl; for a soft device also without new credentials. */
static void
test_rail(void **state MKV_UNUSED)
{
	run(MKV_IOQ_URING, MKV_IOQ_MAY_SOCKET | MKV_JAIL_MAY_VERBS);
	run(MKV_IOQ_URING, MKV_IOQ_MAY_SOCKET | MKV_JAIL_MAY_VERBS | MKV_JAIL_KEEP_CREDENTIALS);
}

static void
test_names(void **state MKV_UNUSED)
{
	for (unsigned bit = 1; bit <= MKV_JAIL_ALL; bit <<= 1)
		assert_string_not_equal(mkv_jail_part_name(bit), "unknown");
	assert_string_equal(mkv_jail_part_name(3), "unknown");
}

/* A user that is not there costs that part alone; so does not being root. */
static void
test_no_such_user(void **state MKV_UNUSED)
{
	int status;
	pid_t pid = fork();

	if (pid == 0)
		_exit((int)(mkv_jail_enter(NULL, MKV_IOQ_MAY_FILE, "memkv-no-such-user") & MKV_JAIL_USER));
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFEXITED(status));
	assert_int_equal(WEXITSTATUS(status), MKV_JAIL_USER);
}

/* The process can still die by an assertion, with words and a core-less abort, and by kill -9 of itself (crash points). */
static void
test_abort_in_jail(void **state MKV_UNUSED)
{
	int status, null = open("/dev/null", O_WRONLY);
	pid_t pid = fork();

	if (pid == 0) {
		dup2(null, 2);
		(void)mkv_jail_enter(NULL, MKV_IOQ_MAY_FILE, "nobody");
		MKV_ASSERT(getpid() < 0);
		_exit(1);
	}
	close(null);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFSIGNALED(status));
	assert_int_equal(WTERMSIG(status), SIGABRT);
}

/* A line of /proc/<pid>/status, after its name and blanks. */
static void
status_line(pid_t pid, const char *name, char *dst, size_t bytes)
{
	char path[64], line[256];
	FILE *in;

	snprintf(path, sizeof(path), "/proc/%d/status", (int)pid);
	assert_non_null(in = fopen(path, "r"));
	dst[0] = '\0';
	while (fgets(line, sizeof(line), in) != NULL)
		if (strncmp(line, name, strlen(name)) == 0 && line[strlen(name)] == ':')
			snprintf(dst, bytes, "%s", line + strlen(name) + strspn(line + strlen(name), ": \t"));
	fclose(in);
}

/* What the kernel says of a jailed process. */
static void
test_seen_from_outside(void **state MKV_UNUSED)
{
	char line[256], byte;
	int s[2], status;
	unsigned missing;
	pid_t pid;

	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, s), 0);
	if ((pid = fork()) == 0) {
		close(s[0]);			/* the parent's end is the only one: its death is the child's */
		missing = mkv_jail_enter(NULL, MKV_IOQ_MAY_FILE, "nobody");
		STEP(1, write(s[1], &missing, sizeof(missing)) == sizeof(missing));
		STEP(2, read(s[1], &byte, 1) == 1);
		_exit(0);
	}
	close(s[1]);
	assert_int_equal(read(s[0], &missing, sizeof(missing)), sizeof(missing));
	status_line(pid, "NoNewPrivs", line, sizeof(line));
	assert_int_equal(line[0], '1');
	if (!(missing & MKV_JAIL_USER)) {
		status_line(pid, "Uid", line, sizeof(line));
		assert_int_not_equal(atoi(line), 0);
		status_line(pid, "CapEff", line, sizeof(line));
		assert_int_equal(strtoull(line, NULL, 16), 0);
		status_line(pid, "CapBnd", line, sizeof(line));
		assert_int_equal(strtoull(line, NULL, 16), 0);
		status_line(pid, "Groups", line, sizeof(line));
		assert_true(line[0] == '\0' || line[0] == '\n' || strtol(line, NULL, 10) != 0);
	}
	if (!(missing & MKV_JAIL_SECCOMP)) {
		status_line(pid, "Seccomp", line, sizeof(line));
		assert_int_equal(line[0], '2');
	}
	assert_int_equal(write(s[0], "x", 1), 1);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
	close(s[0]);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_names),
		cmocka_unit_test(test_drive_uring),
		cmocka_unit_test(test_drive_threads),
		cmocka_unit_test(test_front_uring),
		cmocka_unit_test(test_front_poll),
		cmocka_unit_test(test_rail),
		cmocka_unit_test(test_seen_from_outside),
		cmocka_unit_test(test_no_such_user),
		cmocka_unit_test(test_abort_in_jail),
	};

	return (cmocka_run_group_tests(tests, NULL, NULL));
}
