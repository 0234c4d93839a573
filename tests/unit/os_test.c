/*
 * The platform: shared memory and its seals, bells, control messages with descriptors, media, limits. What the machine lacks skips.
 */
#include "config.h"
#include "common/base/os.h"

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "common/base/assert.h"
#include "common/base/clock.h"
#include "common/base/err.h"

static int
readable(int fd)
{
	struct pollfd p = { .fd = fd, .events = POLLIN };

	return (poll(&p, 1, 0) == 1);
}

static int
is_cloexec(int fd)
{
	return ((fcntl(fd, F_GETFD) & FD_CLOEXEC) != 0);
}

static int
temp_file_of(off_t bytes)
{
	char path[] = "/tmp/memkv-os-XXXXXX";
	int fd = mkstemp(path);

	if (fd >= 0) {
		(void)unlink(path);
		assert_int_equal(posix_fallocate(fd, 0, bytes), 0);
	}
	return (fd);
}

static void
test_shm(void **state MKV_UNUSED)
{
	int fd = mkv_os_shm_create("test", 3 * 4096, 0);
	char *a, *b;
	void *p;

	assert_true(fd >= 0);
	assert_true(is_cloexec(fd));
	assert_true(ftruncate(fd, 4096) != 0);
	assert_true(ftruncate(fd, 1 << 20) != 0);
	assert_int_equal(mkv_os_shm_map(fd, 4 * 4096, 1, 0, &p), MKV_E_INVAL);
	assert_null(p);
	assert_int_equal(mkv_os_shm_map(fd, 0, 1, 0, &p), MKV_E_INVAL);
	assert_int_equal(mkv_os_shm_map(fd, 3 * 4096, 1, 0, &p), 0);
	a = p;
	assert_int_equal(mkv_os_shm_map(fd, 4096, 0, 0, &p), 0);
	b = p;
	for (int i = 0; i < 3 * 4096; i++)
		assert_int_equal(a[i], 0);
	a[17] = 'x';
	assert_int_equal(b[17], 'x');
	mkv_os_shm_unmap(a, 3 * 4096);
	mkv_os_shm_unmap(b, 4096);
	mkv_os_shm_unmap(NULL, 4096);
	close(fd);
	assert_true(mkv_os_shm_map(fd, 4096, 1, 0, &p) < 0);
}

/* Each byte of n pages. */
static int
pages_are(const uint8_t *p, unsigned n, int what)
{
	for (size_t i = 0; i < (size_t)n * 4096; i++)
		if (p[i] != what)
			return (0);
	return (1);
}

/* New pages in the middle of a memfd's mapping, and over the place where two meet: what is written to the memfd is not seen there, and the neighbours are as they were. */
static void
test_replace_pages(void **state MKV_UNUSED)
{
	int fd = mkv_os_shm_create("test", 16 * 65536, 0);
	void *m, *seen, *old;
	uint8_t *a, *b;

	assert_true(fd >= 0);
	assert_int_equal(mkv_os_shm_map(fd, 16 * 65536, 1, 0, &m), 0);
	assert_int_equal(mkv_os_shm_map(fd, 16 * 65536, 1, 0, &seen), 0);
	a = m;
	b = seen;
	memset(a, 1, 16 * 65536);
	for (unsigned i = 0; i < 3; i++) {
		uint8_t *p = a + (size_t)(4 + i) * 65536;			/* then over the former's end, then the same once more */

		if (i == 2)
			p = a + (size_t)4 * 65536;
		memset(b, 2, 16 * 65536);
		memset(a + (size_t)3 * 65536, 7, 4096);
		assert_int_equal(mkv_os_replace_pages(p, 2 * 65536, &old), 0);
		assert_true(pages_are(p, 32, 0));
		memset(p, 5, 2 * 65536);
		memset(b, 3, 16 * 65536);
		assert_true(pages_are(p, 32, 5));
		assert_true(pages_are(a, 64, 3) && pages_are(a + (size_t)7 * 65536, 144, 3));
		if (i == 0 && old != NULL)
			assert_true(pages_are(old, 32, 3));
		if (old != NULL)
			mkv_os_shm_unmap(old, 2 * 65536);
		assert_true(pages_are(p, 32, 5));
	}
	mkv_os_shm_unmap(m, 16 * 65536);
	mkv_os_shm_unmap(seen, 16 * 65536);
	close(fd);
}

/* Where there is no room for the new ones nothing is lost. */
static void
test_replace_pages_fails(void **state MKV_UNUSED)
{
	int fd = mkv_os_shm_create("test", 65536, 0);
	void *m, *old;

	assert_true(fd >= 0);
	assert_int_equal(mkv_os_shm_map(fd, 65536, 1, 0, &m), 0);
	memset(m, 9, 65536);
	assert_int_equal(mkv_os_replace_pages((uint8_t *)m + 1, 65536, &old), MKV_E_NOMEM);
	assert_null(old);
	assert_int_equal(mkv_os_replace_pages(m, 1ull << 62, &old), MKV_E_NOMEM);
	assert_null(old);
	assert_true(pages_are(m, 16, 9));
	mkv_os_shm_unmap(m, 65536);
	close(fd);
}

/* What a server takes as a client's region, and what it does not. */
static void
test_shm_check(void **state MKV_UNUSED)
{
	int fd = mkv_os_shm_create("test", 3 * 4096, 0), other, plain = temp_file_of(4096);
	struct mkv_os_shm s, t;

	assert_true(fd >= 0 && plain >= 0);
	assert_int_equal(mkv_os_shm_check(fd, &s), MKV_E_INVAL);	/* sparse: its pages would be the server's */
	assert_int_equal(mkv_os_shm_fill(fd, 3 * 4096), 0);
	assert_int_equal(mkv_os_shm_check(fd, &s), 0);
	assert_int_equal(s.bytes, 3 * 4096);
	other = dup(fd);
	assert_int_equal(mkv_os_shm_check(other, &t), 0);
	assert_true(s.dev == t.dev && s.ino == t.ino);
	close(other);
	assert_int_equal(fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 4096, 4096), 0);
	assert_int_equal(mkv_os_shm_check(fd, &s), MKV_E_INVAL);
	close(fd);
	assert_int_equal(mkv_os_shm_check(plain, &s), MKV_E_INVAL);
	close(plain);
	assert_int_equal(mkv_os_shm_check(-1, &s), MKV_E_INVAL);
	for (unsigned i = 0; i < 5; i++) {
		static const int seals[] = { F_SEAL_SHRINK | F_SEAL_GROW, F_SEAL_GROW | F_SEAL_SEAL, F_SEAL_SHRINK | F_SEAL_SEAL,
			F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL | F_SEAL_WRITE, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL | F_SEAL_FUTURE_WRITE };

		fd = memfd_create("test", MFD_CLOEXEC | MFD_ALLOW_SEALING);
		assert_true(fd >= 0 && ftruncate(fd, 4096) == 0 && mkv_os_shm_fill(fd, 4096) == 0);
		assert_int_equal(fcntl(fd, F_ADD_SEALS, seals[i]), 0);
		assert_int_equal(mkv_os_shm_check(fd, &s), MKV_E_INVAL);
		close(fd);
	}
}

static void
test_shm_huge(void **state MKV_UNUSED)
{
	int fd = mkv_os_shm_create("test", 4 << 20, 1), r;
	void *p;

	assert_true(fd >= 0);
	assert_int_equal(mkv_os_shm_map(fd, 4 << 20, 1, 1, &p), 0);
	assert_int_equal((uintptr_t)p % (2 << 20), 0);
	memset(p, 1, 4 << 20);
	mkv_os_shm_unmap(p, 4 << 20);
	close(fd);
	assert_int_equal(mkv_os_shm_create("test", 4096, 2), MKV_E_INVAL);
	r = mkv_os_shm_create("test", 1ull << 40, 2);	/* no machine has so many: a refusal now, not a signal later */
	assert_true(r < 0);
	r = mkv_os_shm_create("test", 2 << 20, 2);
	if (r < 0)
		return;					/* no pool here */
	assert_int_equal(mkv_os_shm_map(r, 2 << 20, 1, 2, &p), 0);
	memset(p, 1, 2 << 20);
	mkv_os_shm_unmap(p, 2 << 20);
	close(r);
}

/* What cannot be is said at once, without a page taken. */
static void
test_shm_huge_refused(void **state MKV_UNUSED)
{
	assert_int_equal(mkv_os_shm_create_huge("test", 2 << 20, 4096, -1), MKV_E_INVAL);
	assert_int_equal(mkv_os_shm_create_huge("test", 6 << 20, 3 << 20, -1), MKV_E_INVAL);
	assert_int_equal(mkv_os_shm_create_huge("test", 3 << 20, 2 << 20, -1), MKV_E_INVAL);
	assert_int_equal(mkv_os_shm_create_huge("test", 1ull << 42, 1ull << 42, -1), MKV_E_UNSUPPORTED);	/* no such pages */
	assert_true(mkv_os_shm_create_huge("test", 1ull << 40, 1ull << 30, -1) < 0);
}

/* Whether there are huge pages or not, what was there is there, and in other mappings of it as well. */
static void
test_shm_collapse(void **state MKV_UNUSED)
{
	const uint64_t bytes = 4ull << 20;
	int fd = mkv_os_shm_create("collapse", bytes, 1);
	uint8_t *a, *b;
	void *p;

	assert_true(fd >= 0);
	assert_int_equal(mkv_os_shm_map(fd, bytes, 1, 1, &p), 0);
	a = p;
	assert_int_equal(mkv_os_shm_map(fd, bytes, 0, 0, &p), 0);
	b = p;
	mkv_os_populate(a, bytes);
	for (uint64_t i = 0; i < bytes; i += 4096)
		a[i] = (uint8_t)(i / 4096 % 251);
	(void)mkv_os_collapse(a, bytes);
	for (uint64_t i = 0; i < bytes; i += 4096)
		assert_true(a[i] == i / 4096 % 251 && b[i] == i / 4096 % 251 && a[i + 1] == 0);
	a[bytes - 1] = 7;
	assert_int_equal(b[bytes - 1], 7);
	assert_int_equal(mkv_os_collapse(a + 4096, 8192) == 1 || b[0] == 0, 1);	/* nothing of that size there: no harm */
	mkv_os_shm_unmap(a, bytes);
	mkv_os_shm_unmap(b, bytes);
	close(fd);
}

static void
test_shm_prefer(void **state MKV_UNUSED)
{
	int fd = mkv_os_shm_create("test", 1 << 20, 0), r;
	void *p;

	assert_true(fd >= 0);
	r = mkv_os_shm_prefer(fd, 1 << 20, 0);
	assert_true(r == 0 || r == MKV_E_UNSUPPORTED);
	assert_int_equal(mkv_os_shm_prefer(fd, 1 << 20, -1), MKV_E_INVAL);
	assert_int_equal(mkv_os_shm_prefer(fd, 1 << 20, 1024), MKV_E_INVAL);
	if (r == 0)
		assert_true(mkv_os_shm_prefer(fd, 1 << 20, 1023) < 0);		/* no such node */
	assert_int_equal(mkv_os_shm_map(fd, 1 << 20, 1, 0, &p), 0);
	memset(p, 1, 1 << 20);
	mkv_os_shm_unmap(p, 1 << 20);
	close(fd);
}

static void
test_bell(void **state MKV_UNUSED)
{
	int w, r;

	assert_int_equal(mkv_os_bell_create(&w, &r), 0);
	assert_int_not_equal(w, r);
	assert_true(is_cloexec(w) && is_cloexec(r));
	assert_false(readable(w));
	errno = 99;
	for (int i = 0; i < 100000; i++)		/* never blocks */
		mkv_os_bell_ring(r);
	assert_true(readable(w));
	mkv_os_bell_clear(w);
	mkv_os_bell_clear(w);
	assert_int_equal(errno, 99);
	assert_false(readable(w));
	close(w);
	mkv_os_bell_ring(r);				/* nobody listens */
	close(r);
}

static int
count_fds(void)
{
	int n = 0;

	for (int fd = 0; fd < 256; fd++)
		n += (fcntl(fd, F_GETFD) >= 0);
	return (n);
}

static void
test_ctl(void **state MKV_UNUSED)
{
	int s[2], fds[32], got[32], before = count_fds();
	char buf[64];
	unsigned n;

	assert_int_equal(mkv_os_ctl_pair(s), 0);
	assert_true(is_cloexec(s[0]) && is_cloexec(s[1]));
	n = 4;
	assert_int_equal(mkv_os_ctl_recv(s[1], buf, sizeof(buf), got, &n), MKV_E_AGAIN);
	for (int i = 0; i < 32; i++)
		fds[i] = s[0];
	assert_int_equal(mkv_os_ctl_send(s[0], "one", 3, NULL, 0), 0);
	assert_int_equal(mkv_os_ctl_send(s[0], "three", 5, fds, 3), 0);
	n = 4;
	assert_int_equal(mkv_os_ctl_recv(s[1], buf, sizeof(buf), got, &n), 3);	/* boundaries are kept */
	assert_int_equal(n, 0);
	n = 3;
	assert_int_equal(mkv_os_ctl_recv(s[1], buf, sizeof(buf), got, &n), 5);
	assert_int_equal(n, 3);
	for (unsigned i = 0; i < n; i++) {
		assert_true(is_cloexec(got[i]));
		close(got[i]);
	}
	assert_int_equal(mkv_os_ctl_send(s[0], "many", 4, fds, 32), 0);
	n = 4;						/* too many: refused, and none stays open */
	assert_int_equal(mkv_os_ctl_recv(s[1], buf, sizeof(buf), got, &n), MKV_E_PROTO);
	assert_int_equal(n, 0);
	assert_int_equal(mkv_os_ctl_send(s[0], "long message", 12, fds, 2), 0);
	n = 4;
	assert_int_equal(mkv_os_ctl_recv(s[1], buf, 5, got, &n), MKV_E_PROTO);
	assert_int_equal(count_fds(), before + 2);
	close(s[0]);
	n = 0;
	assert_int_equal(mkv_os_ctl_recv(s[1], buf, sizeof(buf), NULL, &n), 0);
	assert_int_equal(mkv_os_ctl_send(s[1], "x", 1, NULL, 0), MKV_E_CLOSED);
	close(s[1]);
}

static void
test_ctl_full(void **state MKV_UNUSED)
{
	static char msg[60000];
	int s[2], r = 0, i;

	assert_int_equal(mkv_os_ctl_pair(s), 0);
	for (i = 0; i < 100000 && r == 0; i++)
		r = mkv_os_ctl_send(s[0], msg, sizeof(msg), NULL, 0);
	assert_int_equal(r, MKV_E_AGAIN);
	assert_true(i > 1);
	close(s[0]);
	close(s[1]);
}

static void
test_peer(void **state MKV_UNUSED)
{
	uid_t uid = (uid_t)-1;
	pid_t pid = -1;
	int s[2];

	assert_int_equal(mkv_os_ctl_pair(s), 0);
	assert_int_equal(mkv_os_peer(s[0], &uid, &pid), 0);
	assert_int_equal(uid, geteuid());
	assert_int_equal(pid, getpid());
	uid = (uid_t)-1;
	assert_int_equal(mkv_os_peer(s[0], &uid, NULL), 0);
	assert_int_equal(uid, geteuid());
	close(s[0]);
	close(s[1]);
	assert_int_equal(mkv_os_peer(s[0], &uid, &pid), MKV_E_SYSTEM);
}

static int
pass_one(int fd)
{
	_Alignas(struct cmsghdr) char ctl[CMSG_SPACE(sizeof(fd))] = { 0 };
	char text[] = "x";
	struct iovec v = { text, 1 };
	struct msghdr m = { .msg_iov = &v, .msg_iovlen = 1, .msg_control = ctl, .msg_controllen = sizeof(ctl) };
	struct cmsghdr *c = CMSG_FIRSTHDR(&m);

	c->cmsg_level = SOL_SOCKET;
	c->cmsg_type = SCM_RIGHTS;
	c->cmsg_len = CMSG_LEN(sizeof(fd));
	memcpy(CMSG_DATA(c), &fd, sizeof(fd));
	return (sendmsg(fd, &m, MSG_NOSIGNAL | MSG_DONTWAIT) == 1);
}

/* Who connected, accepted or not, may pass nothing before he is allowed to, where the kernel knows how to say no. */
static void
check_pass_rights(int listener, int client)
{
	int was = 1, off = 0, fd;
	socklen_t n = sizeof(was);

	if (getsockopt(listener, SOL_SOCKET, 83 /* SO_PASSRIGHTS */, &was, &n) != 0 || setsockopt(client, SOL_SOCKET, 83, &off, sizeof(off)) != 0)
		return;				/* no such switch here, or an emulator that does not know it */
	assert_int_equal(was, 0);
	assert_false(pass_one(client));
	fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
	assert_true(fd >= 0);
	assert_false(pass_one(client));
	mkv_os_pass_rights(fd, 1);
	assert_true(pass_one(client));
	close(fd);
}

static void
test_listen_unix(void **state MKV_UNUSED)
{
	char dir[] = "/tmp/os-unix-XXXXXX", path[64], longer[256];
	int fd, other, c;
	struct stat st;

	assert_non_null(mkdtemp(dir));
	snprintf(path, sizeof(path), "%s/below/s", dir);
	fd = mkv_os_listen_unix(path, 0660);
	assert_true(fd >= 0);
	assert_int_equal(stat(path, &st), 0);
	assert_true(S_ISSOCK(st.st_mode));
	assert_int_equal(st.st_mode & 0777, 0660);
	c = mkv_os_connect_unix(path, 1);
	assert_true(c >= 0);
	assert_int_equal(mkv_os_listen_unix(path, 0600), MKV_E_LOCKED);
	check_pass_rights(fd, c);
	close(c);
	close(fd);
	/* Nobody listens any more: it is what a killed process left. */
	other = mkv_os_listen_unix(path, 0600);
	assert_true(other >= 0);
	close(other);
	assert_int_equal(unlink(path), 0);
	memset(longer, 'x', sizeof(longer) - 1);
	longer[0] = '/';
	longer[sizeof(longer) - 1] = '\0';
	assert_int_equal(mkv_os_listen_unix(longer, 0600), MKV_E_TOOBIG);
	/* A file that is no socket was left by nobody who listened. */
	fd = open(path, O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
	assert_true(fd >= 0);
	close(fd);
	assert_int_equal(mkv_os_listen_unix(path, 0600), MKV_E_EXISTS);
	assert_int_equal(unlink(path), 0);
	snprintf(path, sizeof(path), "%s/below", dir);
	assert_int_equal(rmdir(path), 0);
	assert_int_equal(rmdir(dir), 0);
}

static void
test_proc_watch(void **state MKV_UNUSED)
{
	struct pollfd p = { .events = POLLIN };
	int s[2], status;
	char byte;
	pid_t pid;

	assert_int_equal(pipe(s), 0);
	if ((pid = fork()) == 0) {
		close(s[1]);
		_exit(read(s[0], &byte, 1) == 0 ? 5 : 1);
	}
	close(s[0]);
	p.fd = mkv_os_proc_watch(pid);
	assert_true(p.fd >= 0);
	assert_true(is_cloexec(p.fd));
	assert_int_equal(poll(&p, 1, 20), 0);
	close(s[1]);
	assert_int_equal(poll(&p, 1, 10000), 1);
	assert_int_equal(waitpid(pid, &status, WNOHANG), pid);
	assert_int_equal(WEXITSTATUS(status), 5);
	close(p.fd);
	assert_true(mkv_os_proc_watch(pid) < 0);
}

static void
test_landlock(void **state MKV_UNUSED)
{
	int status, null = open("/dev/null", O_RDONLY);
	pid_t pid = fork();

	if (pid == 0) {
		if (mkv_os_no_new_privs() != 0)
			_exit(2);
		if (mkv_os_landlock_deny_all() < 1)
			_exit(77);
		if (open("/etc/passwd", O_RDONLY) >= 0 || errno != EACCES)
			_exit(3);
		_exit(read(null, &status, 1) == 0 ? 0 : 4);	/* what was open before still works */
	}
	close(null);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFEXITED(status));
	if (WEXITSTATUS(status) == 77)
		skip();
	assert_int_equal(WEXITSTATUS(status), 0);
}

static void
temp_name(char *path, size_t bytes)
{
	int fd;

	snprintf(path, bytes, "/tmp/memkv-os-XXXXXX");
	fd = mkstemp(path);
	assert_true(fd >= 0);
	close(fd);
}

static void
test_medium(void **state MKV_UNUSED)
{
	struct mkv_os_medium m;
	struct stat st;
	char path[64];
	int fd, other, direct;

	temp_name(path, sizeof(path));
	fd = mkv_os_medium_open(path, &direct);
	assert_true(fd >= 0);
	assert_true(is_cloexec(fd));
	assert_int_equal(mkv_os_preallocate(fd, 1 << 20), 0);
	assert_int_equal(fstat(fd, &st), 0);
	assert_int_equal(st.st_size, 1 << 20);
	assert_true(st.st_blocks * 512 >= 1 << 20);
	assert_int_equal(mkv_os_medium_query(fd, &m), 0);
	assert_int_equal(m.bytes, 1 << 20);
	assert_false(m.is_block);
	assert_true(m.sector_bytes >= 512 && m.sector_bytes <= 4096);
	assert_int_equal(mkv_os_medium_lock(fd), 0);
	other = mkv_os_medium_open(path, &direct);	/* another description: the lock is in the way, and goes with the holder */
	assert_true(other >= 0);
	assert_int_equal(mkv_os_medium_lock(other), MKV_E_LOCKED);
	close(fd);
	assert_int_equal(mkv_os_medium_lock(other), 0);
	assert_int_equal(mkv_os_preallocate(other, 1ull << 62), MKV_E_NOSPACE);
	assert_int_equal(fstat(other, &st), 0);
	assert_int_equal(st.st_size, 1 << 20);		/* nothing changed */
	assert_int_equal(mkv_os_discard(other, 0, 4096), MKV_E_UNSUPPORTED);
	assert_int_equal(mkv_os_flush(other), 0);
	close(other);
	unlink(path);
	assert_true(mkv_os_medium_open(path, &direct) < 0);
	assert_int_equal(mkv_os_medium_open("/dev/null", &direct), MKV_E_INVAL);
	assert_int_equal(mkv_os_medium_open("/tmp", &direct), MKV_E_INVAL);
}

/* What was written goes, its blocks stay, and it is told from what was never written. */
static void
test_zero(void **state MKV_UNUSED)
{
	char path[] = "/tmp/memkv-os.XXXXXX", byte = 1;
	int fd = mkstemp(path);
	uint64_t from, to;
	struct stat st;

	assert_true(fd >= 0);
	unlink(path);
	assert_int_equal(mkv_os_preallocate(fd, 4 << 20), 0);
	assert_int_equal(mkv_os_next_data(fd, 0, &from, &to), 0);
	assert_int_equal(pwrite(fd, &byte, 1, 3 << 20), 1);
	assert_int_equal(fsync(fd), 0);
	assert_int_equal(mkv_os_next_data(fd, 1 << 20, &from, &to), 1);
	assert_true(from <= 3 << 20 && to > 3 << 20);
	assert_int_equal(mkv_os_zero(fd, 0, 1 << 20), 0);
	assert_int_equal(mkv_os_next_data(fd, 1 << 20, &from, &to), 1);
	assert_int_equal(mkv_os_zero(fd, 1 << 20, 3 << 20), 0);
	assert_int_equal(mkv_os_next_data(fd, 1 << 20, &from, &to), 0);
	assert_int_equal(pread(fd, &byte, 1, 3 << 20), 1);
	assert_int_equal(byte, 0);
	assert_int_equal(fstat(fd, &st), 0);
	assert_int_equal(st.st_size, 4 << 20);
	assert_true(st.st_blocks * 512 >= 4 << 20);
	close(fd);
	assert_int_equal(mkv_os_next_data(fd, 5, &from, &to), 1);	/* who cannot tell says all of it */
	assert_true(from == 5 && to == UINT64_MAX);
}

static void
test_listen(void **state MKV_UNUSED)
{
	uint16_t port = 0, again = 0;
	int a, b;

	a = mkv_os_listen_tcp("127.0.0.1", 0, 1, &port);
	assert_true(a >= 0 && port != 0);
	assert_true(is_cloexec(a));
	assert_true(fcntl(a, F_GETFL) & O_NONBLOCK);
	b = mkv_os_listen_tcp("127.0.0.1", port, 1, &again);	/* shards share a port */
	assert_true(b >= 0);
	assert_int_equal(port, again);
	close(b);
	assert_int_equal(mkv_os_listen_tcp("127.0.0.1", port, 0, NULL), MKV_E_LOCKED);
	assert_int_equal(mkv_os_listen_tcp("localhost", 0, 0, NULL), MKV_E_INVAL);
	assert_int_equal(mkv_os_listen_tcp("127.0.0.1.5", 0, 0, NULL), MKV_E_INVAL);
	assert_true(mkv_os_listen_tcp("192.0.2.1", 0, 0, NULL) < 0);	/* not an address of this host */
	close(a);
	a = mkv_os_listen_tcp("::1", 0, 0, &port);
	if (a >= 0) {
		assert_int_not_equal(port, 0);
		close(a);
	}
}

static void
test_descriptors(void **state MKV_UNUSED)
{
	int status, before = mkv_os_fds_inherited(), fd;
	pid_t pid;

	assert_true(before >= 0);
	fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
	assert_int_equal(mkv_os_fds_inherited(), before);
	fcntl(fd, F_SETFD, 0);
	assert_int_equal(mkv_os_fds_inherited(), before + 1);
	if ((pid = fork()) == 0) {
		if (mkv_os_close_from(fd) != 0)
			_exit(1);
		_exit(fcntl(fd, F_GETFD) < 0 && fcntl(2, F_GETFD) >= 0 ? 0 : 2);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
	close(fd);
	assert_true(mkv_os_cpu_count() >= 1);
}

static void
test_watch(void **state MKV_UNUSED)
{
	char dir[] = "/tmp/memkv-watch-XXXXXX", path[64];
	int fd;

	assert_non_null(mkdtemp(dir));
	snprintf(path, sizeof(path), "%s/b", dir);
	assert_true((fd = open(path, O_CREAT | O_WRONLY | O_CLOEXEC, 0600)) >= 0);
	close(fd);
	if ((fd = mkv_os_watch_dir(dir)) == MKV_E_UNSUPPORTED)
		skip();
	assert_true(fd >= 0);
	assert_int_equal(mkv_os_watch_left(fd, "b"), 0);
	for (unsigned i = 0; i < 100; i++) {		/* more news than one read takes */
		char other[64];
		int o;

		snprintf(other, sizeof(other), "%s/o%u", dir, i);
		assert_true((o = open(other, O_CREAT | O_WRONLY | O_CLOEXEC, 0600)) >= 0);
		close(o);
		assert_int_equal(unlink(other), 0);
	}
	assert_int_equal(mkv_os_watch_left(fd, "b"), 0);
	assert_int_equal(unlink(path), 0);
	assert_int_equal(mkv_os_watch_left(fd, "b"), 1);
	assert_int_equal(mkv_os_watch_left(fd, "b"), 0);
	close(fd);
	assert_int_equal(rmdir(dir), 0);
	assert_true(mkv_os_watch_dir(path) < 0);
}

static void
test_poll_wait(void **state MKV_UNUSED)
{
	uint64_t t0 = mkv_now_ns(), took;

	assert_int_equal(mkv_os_poll(NULL, 0, 1500 * MKV_NS_PER_US), 0);
	took = mkv_now_ns() - t0;
	assert_true(took >= 1500 * MKV_NS_PER_US);
	assert_true(took < MKV_NS_PER_SEC);
}

static void
test_socket_mode(void **state MKV_UNUSED)
{
	int s[2], null = open("/dev/null", O_RDONLY);

	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, s), 0);
	assert_int_equal(mkv_os_socket_mode(s[0], 1), 0);
	assert_true(fcntl(s[0], F_GETFL) & O_NONBLOCK);
	assert_int_equal(mkv_os_socket_mode(s[0], 0), 0);
	assert_false(fcntl(s[0], F_GETFL) & O_NONBLOCK);
	assert_true(mkv_os_is_socket(s[0]));
	close(s[0]);
	close(s[1]);
	assert_false(mkv_os_is_socket(null));
	close(null);
	assert_true(mkv_os_socket_mode(s[0], 1) < 0);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_shm),
		cmocka_unit_test(test_replace_pages),
		cmocka_unit_test(test_replace_pages_fails),
		cmocka_unit_test(test_shm_check),
		cmocka_unit_test(test_shm_huge),
		cmocka_unit_test(test_shm_huge_refused),
		cmocka_unit_test(test_shm_collapse),
		cmocka_unit_test(test_shm_prefer),
		cmocka_unit_test(test_bell),
		cmocka_unit_test(test_ctl),
		cmocka_unit_test(test_ctl_full),
		cmocka_unit_test(test_peer),
		cmocka_unit_test(test_listen_unix),
		cmocka_unit_test(test_proc_watch),
		cmocka_unit_test(test_landlock),
		cmocka_unit_test(test_medium),
		cmocka_unit_test(test_zero),
		cmocka_unit_test(test_listen),
		cmocka_unit_test(test_descriptors),
		cmocka_unit_test(test_watch),
		cmocka_unit_test(test_poll_wait),
		cmocka_unit_test(test_socket_mode),
	};

	return (cmocka_run_group_tests(tests, NULL, NULL));
}
