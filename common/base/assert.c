/*
 * The end of a process that found itself wrong, and the places where test builds end it on purpose.
 *
 * Any process, any thread. Owns nothing. mkv_assert_failed() uses only write(2), dprintf(3) and backtrace(3) on stderr, so that it
 * works in a jail; mkv_assert_prepare() must have run before the jail, because the first backtrace(3) loads a library.
 */
#include "config.h"
#include "common/base/assert.h"

#include <execinfo.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define ASSERT_FRAMES_MAX	48

void
mkv_assert_prepare(void)
{
	void *frame[1];

	(void)backtrace(frame, 1);
}

MKV_NORETURN void
mkv_assert_failed(const char *expr, const char *file, int line, const char *func)
{
	static _Thread_local int again;
	void *frame[ASSERT_FRAMES_MAX];
	int n;

	if (again++)				/* an assert inside of this function */
		abort();
	dprintf(STDERR_FILENO, "level=error event=assert expr=\"%s\" at=%s:%d func=%s\n", expr, file, line, func);
	n = backtrace(frame, ASSERT_FRAMES_MAX);
	backtrace_symbols_fd(frame, n, STDERR_FILENO);
	abort();
}

#ifdef MKV_WITH_CRASH_POINTS
void
mkv_crash_point(const char *name)
{
	static _Atomic unsigned passed;
	const char *want = getenv("MKV_CRASH_POINT");
	size_t bytes = strlen(name);
	unsigned at = 1;

	if (want == NULL || strncmp(want, name, bytes) != 0)
		return;
	if (want[bytes] == ':')
		at = (unsigned)strtoul(want + bytes + 1, NULL, 10);
	else if (want[bytes] != '\0')
		return;
	if (++passed < at)
		return;
	dprintf(STDERR_FILENO, "level=warn event=note crash_point=%s\n", name);
	kill(getpid(), SIGKILL);
	_exit(128 + SIGKILL);			/* a jail may refuse kill(2) */
}
#endif
