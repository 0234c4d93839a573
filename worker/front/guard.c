/*
 * memkv-front, loop thread: a copy to or from memory that is mapped here and belongs to somebody else, who may take its pages away at any time. Where there is none to be
 * had any more (huge pages of an empty pool, a limit of the cgroup, a swap that fails) the kernel sends SIGBUS; here the copy ends with that, and nothing else does.
 *
 * One copy at a time and thread. A SIGBUS for any other address, or outside of a copy, ends the process as it would without us.
 */
#include "config.h"

#include "worker/front/front_priv.h"

#include <setjmp.h>
#include <signal.h>
#include <string.h>

struct guard {
	sigjmp_buf	back;
	uintptr_t	from, to;		/* of the foreign memory; 0: no copy is under way */
};

static _Thread_local struct guard guard;

static void
guard_on_bus(int sig, siginfo_t *info, void *context MKV_UNUSED)
{
	uintptr_t at = (uintptr_t)info->si_addr;

	if (at >= guard.from && at < guard.to)
		siglongjmp(guard.back, 1);
	(void)signal(sig, SIG_DFL);		/* the instruction is tried again */
}

int
mkv_guard_init(void)
{
	struct sigaction a = { .sa_sigaction = guard_on_bus, .sa_flags = SA_SIGINFO | SA_NODEFER };

	(void)sigemptyset(&a.sa_mask);
	return (sigaction(SIGBUS, &a, NULL) == 0);
}

int
mkv_guard_copy(void *to, const void *from, uint32_t bytes, const void *foreign)
{
	volatile int whole = 0;

	guard.from = (uintptr_t)foreign;
	guard.to = guard.from + bytes;
	/* Without the mask: SIGBUS is not blocked while it is handled. */
	if (sigsetjmp(guard.back, 0) == 0) {
		memcpy(to, from, bytes);
		whole = 1;
	}
	guard.from = guard.to = 0;
	return (whole);
}
