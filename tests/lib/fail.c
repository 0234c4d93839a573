/*
 * Allocations that fail when told to: what the linker puts in place of malloc(3) and its kin (-Wl,--wrap).
 */
#include "config.h"
#include "tests/lib/fail.h"

#include <stddef.h>

static _Thread_local unsigned fail_in;
static _Thread_local int fail_done;

void	*__real_malloc(size_t bytes);
void	*__real_calloc(size_t n, size_t bytes);
void	*__real_realloc(void *p, size_t bytes);
void	*__wrap_malloc(size_t bytes);
void	*__wrap_calloc(size_t n, size_t bytes);
void	*__wrap_realloc(void *p, size_t bytes);

int
fail_alloc(unsigned n)
{
	int done = fail_done;

	fail_in = n;
	fail_done = 0;
	return (done);
}

static int
fail_now(void)
{
	if (fail_in == 0 || --fail_in != 0)
		return (0);
	fail_done = 1;
	return (1);
}

void *
__wrap_malloc(size_t bytes)
{
	return (fail_now() ? NULL : __real_malloc(bytes));
}

void *
__wrap_calloc(size_t n, size_t bytes)
{
	return (fail_now() ? NULL : __real_calloc(n, bytes));
}

void *
__wrap_realloc(void *p, size_t bytes)
{
	return (fail_now() ? NULL : __real_realloc(p, bytes));
}
