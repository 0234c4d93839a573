/*
 * Process: supervisor, loop thread; between fork and exec: the child, with async-signal-safe calls alone.
 * Owns: nothing after it returns; the caller gets pid, pidfd and the parent's ends of control socket and log pipe.
 * Invariants: the program starts with exactly 0 /dev/null, 1 and 2 the log pipe, 3 the control socket, no other descriptor, default signals, a
 * clean environment and its name in argv[1].
 * What can fail: descriptors, processes, memory, a missing program (the child says so on its log pipe and exits 127).
 */
#include "config.h"

#include "supervisor/sup_priv.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/base/assert.h"
#include "common/base/err.h"
#include "common/base/os.h"

#define SPAWN_ENV_MAX	8u
#define TAKE_FD(dst, src)	do { (dst) = (src); (src) = -1; } while (0)

static const char *const spawn_programs[SUP_KIND_COUNT] = {
#define MKV_PROC(KIND, name, program, ctl)	[SUP_##KIND] = program,
#include "common/tbl/procs.def"
#undef MKV_PROC
};

/* What a child may inherit: options of the sanitizers, nothing of ours. */
static const char *const spawn_env_kept[] = { "ASAN_OPTIONS", "UBSAN_OPTIONS", "TSAN_OPTIONS", "LSAN_OPTIONS" };
#define SPAWN_ENV_FIRST	"MKV_CRASH_POINT"	/* only for the first life: the next one shall get past the point */

const char *
spawn_program(enum sup_kind kind)
{
	MKV_ASSERT(kind < SUP_KIND_COUNT);
	return (spawn_programs[kind]);
}

static unsigned
spawn_env_take(char *env[SPAWN_ENV_MAX], unsigned n, const char *name)
{
	const char *v = getenv(name);

	if (v != NULL && n + 1 < SPAWN_ENV_MAX && asprintf(&env[n], "%s=%s", name, v) != -1)
		n++;
	return (n);
}

static unsigned
spawn_env(char *env[SPAWN_ENV_MAX], int first_life)
{
	unsigned n = 0;

	for (size_t i = 0; i < MKV_ARRAY_LEN(spawn_env_kept); i++)
		n = spawn_env_take(env, n, spawn_env_kept[i]);
	if (first_life)
		n = spawn_env_take(env, n, SPAWN_ENV_FIRST);
	env[n] = NULL;
	return (n);
}

/* The child's side. Never returns. */
MKV_NORETURN static void
spawn_exec(const char *path, char *const argv[], char *const env[], const struct mkv_os_cpus *cpus, int null_fd, int log_fd, int ctl_fd)
{
	static const char oops[] = "level=error event=start_failed text=\"cannot execute the program\"\n";
	struct sigaction dfl = { .sa_handler = SIG_DFL };
	sigset_t none;

	for (int s = 1; s < NSIG; s++)
		(void)sigaction(s, &dfl, NULL);
	sigemptyset(&none);
	(void)sigprocmask(SIG_SETMASK, &none, NULL);
	if (cpus != NULL)
		(void)mkv_os_cpus_set(cpus);	/* elsewhere it is slower, nothing else */
	(void)setsid();				/* a terminal's ^C is for the supervisor */
	/* All three are above 3 (see spawn_above), so no dup2 hits one that is still needed. */
	if (dup2(null_fd, 0) == -1 || dup2(log_fd, 1) == -1 || dup2(log_fd, 2) == -1 || dup2(ctl_fd, 3) == -1)
		_exit(126);
	(void)mkv_os_close_from(4);
	(void)execve(path, argv, env);
	if (write(2, oops, sizeof(oops) - 1) < 0)
		_exit(126);
	_exit(127);
}

/* fd moved above the four that the child will have. -1 stays -1. */
static int
spawn_above(int fd)
{
	int up;

	if (fd == -1 || fd > 3)
		return (fd);
	up = fcntl(fd, F_DUPFD_CLOEXEC, 4);
	close(fd);
	return (up);
}

static void
spawn_close(int *fd)
{
	if (*fd != -1)
		close(*fd);
	*fd = -1;
}

static int
spawn_fork(const char *path, const char *name, int first_life, const struct mkv_os_cpus *cpus, int null_fd, int log_fd, int ctl_fd, struct spawned *out)
{
	char *env[SPAWN_ENV_MAX], *argv[3];
	unsigned n = spawn_env(env, first_life);
	int r = 0;

	argv[0] = (char *)(uintptr_t)path;
	argv[1] = (char *)(uintptr_t)name;
	argv[2] = NULL;
	out->pid = fork();
	if (out->pid == 0)
		spawn_exec(path, argv, env, cpus, null_fd, log_fd, ctl_fd);
	if (out->pid == -1)
		r = mkv_err_from_errno(errno);
	while (n > 0)
		free(env[--n]);
	return (r);
}

/* A child whose end cannot be watched is ended here. */
static int
spawn_watch(struct spawned *out)
{
	out->pidfd = mkv_os_proc_watch(out->pid);
	if (out->pidfd >= 0)
		return (0);
	(void)kill(out->pid, SIGKILL);
	(void)waitpid(out->pid, NULL, WNOHANG);
	return (MKV_E_SYSTEM);
}

int
spawn_child(const char *path, const char *name, int first_life, const struct mkv_os_cpus *cpus, struct spawned *out)
{
	int ctl[2] = { -1, -1 }, log[2] = { -1, -1 }, null_fd, r = MKV_E_SYSTEM;

	null_fd = spawn_above(open("/dev/null", O_RDWR | O_CLOEXEC));
	if (null_fd == -1 || mkv_os_ctl_pair(ctl) != 0 || pipe2(log, O_CLOEXEC) != 0)
		goto out;
	ctl[1] = spawn_above(ctl[1]);
	log[1] = spawn_above(log[1]);
	/* Neither end waits for the other: a child's line that finds the pipe full is lost. */
	if (ctl[1] == -1 || log[1] == -1 || fcntl(log[0], F_SETFL, O_NONBLOCK) != 0 || fcntl(log[1], F_SETFL, O_NONBLOCK) != 0)
		goto out;
	if ((r = spawn_fork(path, name, first_life, cpus, null_fd, log[1], ctl[1], out)) != 0 || (r = spawn_watch(out)) != 0)
		goto out;
	TAKE_FD(out->ctl_fd, ctl[0]);
	TAKE_FD(out->log_fd, log[0]);
out:
	spawn_close(&null_fd);
	spawn_close(&ctl[0]);
	spawn_close(&ctl[1]);
	spawn_close(&log[0]);
	spawn_close(&log[1]);
	return (r);
}
