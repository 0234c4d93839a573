/*
 * A function that must end its process. Forks without exec: not for tests that have threads running.
 */
#include "config.h"
#include "tests/lib/death.h"

#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/base/assert.h"

static void
death_child(void (*fn)(void *arg), void *arg, int fd)
{
	struct rlimit none = { 0, 0 };

	setrlimit(RLIMIT_CORE, &none);
	signal(SIGABRT, SIG_DFL);		/* the test framework has a handler of its own */
	dup2(fd, STDERR_FILENO);
	alarm(10);
	fn(arg);
	_exit(0);
}

int
death_signal(void (*fn)(void *arg), void *arg, char *said, size_t said_bytes)
{
	char rest[512], *at = said;
	size_t room = said_bytes - 1;
	int fds[2], status, r;
	ssize_t n;
	pid_t pid;

	r = pipe(fds);
	MKV_ASSERT(r == 0);
	pid = fork();
	MKV_ASSERT(pid >= 0);
	if (pid == 0)
		death_child(fn, arg, fds[1]);
	close(fds[1]);
	while ((n = read(fds[0], room > 0 ? at : rest, room > 0 ? room : sizeof(rest))) > 0 || (n < 0 && errno == EINTR))
		if (n > 0 && room > 0) {
			at += n;
			room -= (size_t)n;
		}
	*at = '\0';
	close(fds[0]);
	while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
		continue;
	return (WIFSIGNALED(status) ? WTERMSIG(status) : 0);
}

int
death_by_assert(void (*fn)(void *arg), void *arg)
{
	char said[1024];

	return (death_signal(fn, arg, said, sizeof(said)) == SIGABRT && strstr(said, "event=assert") != NULL);
}
