/*
 * The jail of a worker on Linux.
 *
 * Process and thread: front, drive; the main thread, before any other exists (threads made later are born in it).
 * Owns: nothing. There is no way back.
 * Why three walls: seccomp does not see what io_uring does for us, Landlock knows neither sockets nor what was open before, and the
 * restrictions of a ring bind only that ring. Order: the ring is restricted and enabled while registering is still allowed; no_new_privs is what
 * lets an unprivileged process use Landlock and seccomp; the user changes before seccomp, which leaves no call to do it with.
 * Fails: a part that the kernel or missing rights refuse is left out and named; nothing here ends the process.
 *
 * Sanitizer builds have the ring's restrictions and no_new_privs only: their run-time opens files and traces threads when it reports.
 */
#include "config.h"
#include "worker/core/jail.h"

#include <errno.h>
#include <pwd.h>
#include <sched.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cap-ng.h>
#include <seccomp.h>

#include "common/base/assert.h"
#include "common/base/os.h"

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define JAIL_SANITIZED	1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer) || __has_feature(memory_sanitizer)
#define JAIL_SANITIZED	1
#endif
#endif
#ifndef JAIL_SANITIZED
#define JAIL_SANITIZED	0
#endif

#define URING_REGISTER_BUFFERS_UPDATE	16	/* IORING_REGISTER_BUFFERS_UPDATE: the one that a jailed ring may still do */
#define BLOCK_DISCARD			0x1277	/* BLKDISCARD */
#define VERBS_IOCTL			0xc0181b01u	/* RDMA_VERBS_IOCTL */

/* Memory, time, threads, descriptors that are open: what any worker does. */
static const int jail_calls_always[] = {
	SCMP_SYS(read), SCMP_SYS(write), SCMP_SYS(readv), SCMP_SYS(writev), SCMP_SYS(close), SCMP_SYS(fstat), SCMP_SYS(newfstatat),
	SCMP_SYS(lseek), SCMP_SYS(fcntl),
	SCMP_SYS(recvmsg), SCMP_SYS(sendmsg),
	SCMP_SYS(munmap), SCMP_SYS(mremap), SCMP_SYS(madvise), SCMP_SYS(brk),
	SCMP_SYS(futex), SCMP_SYS(set_robust_list), SCMP_SYS(rseq), SCMP_SYS(sched_yield), SCMP_SYS(sched_getaffinity),
	SCMP_SYS(clock_gettime), SCMP_SYS(clock_getres), SCMP_SYS(clock_nanosleep), SCMP_SYS(nanosleep), SCMP_SYS(gettimeofday),
	SCMP_SYS(time), SCMP_SYS(restart_syscall), SCMP_SYS(getrusage), SCMP_SYS(sysinfo), SCMP_SYS(getrandom),
	SCMP_SYS(getpid), SCMP_SYS(gettid), SCMP_SYS(getcpu),
	SCMP_SYS(rt_sigreturn), SCMP_SYS(rt_sigprocmask), SCMP_SYS(rt_sigaction), SCMP_SYS(sigaltstack),
	SCMP_SYS(poll), SCMP_SYS(ppoll), SCMP_SYS(io_uring_enter),
	SCMP_SYS(exit), SCMP_SYS(exit_group),
};
static const int jail_calls_file[] = {
	SCMP_SYS(pread64), SCMP_SYS(pwrite64), SCMP_SYS(preadv), SCMP_SYS(pwritev), SCMP_SYS(fdatasync), SCMP_SYS(fsync),
	SCMP_SYS(fallocate),
};
/* Of sockets that are there: no socket, no connect, no bind, no listen. */
static const int jail_calls_socket[] = {
	SCMP_SYS(recvfrom), SCMP_SYS(sendto), SCMP_SYS(accept), SCMP_SYS(accept4), SCMP_SYS(shutdown), SCMP_SYS(getsockopt),
	SCMP_SYS(setsockopt), SCMP_SYS(getsockname), SCMP_SYS(getpeername),
};

/* Datagrams in batches, on the one socket that a rail has open. */
static const int jail_calls_rail[] = { SCMP_SYS(recvmmsg), SCMP_SYS(sendmmsg) };

/* ---- user ---- */

static int
jail_drop_caps(void)
{
	capng_clear(CAPNG_SELECT_BOTH);
	return (capng_apply(CAPNG_SELECT_CAPS) == 0);
}

/* 1 if this process has a user of its own now. Without root it keeps its user and loses what capabilities it may have. */
static int
jail_user(const struct passwd *pw)
{
	if (geteuid() != 0) {
		(void)jail_drop_caps();
		return (0);
	}
	if (pw == NULL || pw->pw_uid == 0 || pw->pw_uid > INT32_MAX || pw->pw_gid > INT32_MAX)
		return (0);
	capng_clear(CAPNG_SELECT_BOTH);
	return (capng_change_id((int)pw->pw_uid, (int)pw->pw_gid, CAPNG_DROP_SUPP_GRP | CAPNG_CLEAR_BOUNDING) == 0);
}

/* ---- seccomp ---- */

static int
jail_allow(scmp_filter_ctx f, const int *calls, size_t n)
{
	int r = 0;

	for (size_t i = 0; i < n && r == 0; i++) {
		r = seccomp_rule_add(f, SCMP_ACT_ALLOW, calls[i], 0);
		if (r == -EDOM)
			r = 0;				/* this machine has no such call */
	}
	return (r);
}

/*
 * Memory is never executable any more. A thread may be made, a process may not: clone3 hides its flags in memory where no filter can look, so
 * it does not exist here and glibc takes clone. Signals reach this process only.
 */
static int
jail_allow_narrowed(scmp_filter_ctx f)
{
	struct scmp_arg_cmp no_exec = SCMP_A2(SCMP_CMP_MASKED_EQ, PROT_EXEC, 0);
	struct scmp_arg_cmp thread = SCMP_A0(SCMP_CMP_MASKED_EQ, CLONE_VM | CLONE_THREAD, CLONE_VM | CLONE_THREAD);
	struct scmp_arg_cmp update = SCMP_A1(SCMP_CMP_EQ, URING_REGISTER_BUFFERS_UPDATE, 0);
	struct scmp_arg_cmp self = SCMP_A0(SCMP_CMP_EQ, (scmp_datum_t)getpid(), 0);
	int r;

	if ((r = seccomp_rule_add_array(f, SCMP_ACT_ALLOW, SCMP_SYS(mmap), 1, &no_exec)) != 0 ||
	    (r = seccomp_rule_add_array(f, SCMP_ACT_ALLOW, SCMP_SYS(mprotect), 1, &no_exec)) != 0 ||
	    (r = seccomp_rule_add_array(f, SCMP_ACT_ALLOW, SCMP_SYS(clone), 1, &thread)) != 0 ||
	    (r = seccomp_rule_add(f, SCMP_ACT_ERRNO(ENOSYS), SCMP_SYS(clone3), 0)) != 0 ||
	    (r = seccomp_rule_add_array(f, SCMP_ACT_ALLOW, SCMP_SYS(io_uring_register), 1, &update)) != 0 ||
	    (r = seccomp_rule_add_array(f, SCMP_ACT_ALLOW, SCMP_SYS(kill), 1, &self)) != 0 ||
	    (r = seccomp_rule_add_array(f, SCMP_ACT_ALLOW, SCMP_SYS(tgkill), 1, &self)) != 0)
		return (r);
	return (0);
}

static int
jail_allow_may(scmp_filter_ctx f, unsigned may)
{
	struct scmp_arg_cmp discard = SCMP_A1(SCMP_CMP_EQ, BLOCK_DISCARD, 0);
	struct scmp_arg_cmp verbs = SCMP_A1(SCMP_CMP_MASKED_EQ, UINT32_MAX, VERBS_IOCTL);
	int r = 0;

	if (may & MKV_IOQ_MAY_FILE) {
		r = jail_allow(f, jail_calls_file, MKV_ARRAY_LEN(jail_calls_file));
		if (r == 0)
			r = seccomp_rule_add_array(f, SCMP_ACT_ALLOW, SCMP_SYS(ioctl), 1, &discard);
	}
	if (r == 0 && (may & MKV_IOQ_MAY_SOCKET))
		r = jail_allow(f, jail_calls_socket, MKV_ARRAY_LEN(jail_calls_socket));
	if (r == 0 && (may & MKV_JAIL_MAY_VERBS))
		r = seccomp_rule_add_array(f, SCMP_ACT_ALLOW, SCMP_SYS(ioctl), 1, &verbs);
	if (r == 0 && (may & MKV_JAIL_MAY_VERBS))
		r = jail_allow(f, jail_calls_rail, MKV_ARRAY_LEN(jail_calls_rail));
	return (r);
}

static int
jail_seccomp(unsigned may)
{
	scmp_filter_ctx f = seccomp_init(SCMP_ACT_ERRNO(EPERM));
	int ok;

	if (f == NULL)
		return (0);
	ok = seccomp_attr_set(f, SCMP_FLTATR_CTL_TSYNC, 1) == 0 &&
	    jail_allow(f, jail_calls_always, MKV_ARRAY_LEN(jail_calls_always)) == 0 &&
	    jail_allow_narrowed(f) == 0 &&
	    jail_allow_may(f, may) == 0 &&
	    seccomp_load(f) == 0;
	seccomp_release(f);
	return (ok);
}

unsigned
mkv_jail_enter(struct mkv_ioq *q, unsigned may, const char *user)
{
	const unsigned queue_may = may & ~(unsigned)(MKV_JAIL_MAY_VERBS | MKV_JAIL_KEEP_CREDENTIALS);
	struct passwd *pw;
	unsigned missing = 0;

	pw = user[0] != '\0' ? getpwnam(user) : NULL;	/* reads files: not possible behind Landlock */
	mkv_assert_prepare();				/* so does the first backtrace */
	if (q != NULL && mkv_ioq_jail(q, queue_may) != 0)
		missing |= MKV_JAIL_RING;
	if (mkv_os_no_new_privs() != 0)
		missing |= MKV_JAIL_NO_NEW_PRIVS;
	if (JAIL_SANITIZED)
		return (missing | MKV_JAIL_LANDLOCK | MKV_JAIL_USER | MKV_JAIL_SECCOMP);
	if ((may & MKV_JAIL_KEEP_CREDENTIALS) || mkv_os_landlock_deny_all() < 1)
		missing |= MKV_JAIL_LANDLOCK;
	if ((may & MKV_JAIL_KEEP_CREDENTIALS) || !jail_user(pw))
		missing |= MKV_JAIL_USER;
	if (!jail_seccomp(may))
		missing |= MKV_JAIL_SECCOMP;
	return (missing);
}
