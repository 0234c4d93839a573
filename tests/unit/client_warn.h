/*
 * What a handle tells its program, for the tests that count it: on_warn() as mkv_client_opts.warn. An I/O thread writes it, the test reads up to n_warned.
 */
#ifndef MKV_TESTS_CLIENT_WARN_H
#define MKV_TESTS_CLIENT_WARN_H

#include <stdatomic.h>
#include <stdio.h>

#include "common/base/assert.h"

static char warned[8][256];
static _Atomic unsigned n_warned;

static inline void
on_warn(void *arg MKV_UNUSED, const char *text)
{
	unsigned i = n_warned;

	if (i < MKV_ARRAY_LEN(warned))
		(void)snprintf(warned[i], sizeof(warned[i]), "%s", text);
	n_warned = i + 1;
}

#endif
