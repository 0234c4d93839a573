/*
 * What the tests of libmemkv share: a handle on fake servers, keys, bytes that can be recognised.
 */
#ifndef MKV_TESTS_CLIENT_FIX_H
#define MKV_TESTS_CLIENT_FIX_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include <memkv/memkv.h>

#include "common/base/assert.h"
#include "common/base/clock.h"
#include "common/base/err.h"
#include "proto/wire.h"
#include "tests/lib/fakeserver.h"

#define SEC	1000000u
#define K(s)	(s), strlen(s)

static inline struct mkv_client *
fix_client_opts(struct mkv_client_opts *o, struct fake *f, unsigned n)
{
	char servers[512], why[256] = "";
	struct mkv_client *c;
	size_t at = 0;
	int r;

	for (unsigned i = 0; i < n; i++)
		at += (size_t)snprintf(servers + at, sizeof(servers) - at, "%ss%u=127.0.0.1:%u", i > 0 ? "," : "", i, fake_port(&f[i]));
	o->size = sizeof(*o);
	o->servers = servers;
	r = mkv_client_open(&c, o, why, sizeof(why));
	if (r != 0)
		print_error("open: %s\n", why);
	assert_int_equal(r, 0);
	return (c);
}

static inline struct mkv_client *
fix_client(struct fake *f, unsigned n)
{
	struct mkv_client_opts o = { .size = sizeof(o) };

	return (fix_client_opts(&o, f, n));
}

static inline void
fix_fill(uint8_t *p, size_t n, uint64_t seed)
{
	for (size_t i = 0; i < n; i++) {
		if (i % 8 == 0)
			seed = seed * 6364136223846793005ull + 1442695040888963407ull;
		p[i] = (uint8_t)(seed >> (8 * (i % 8)));
	}
}

static inline uint8_t *
fix_bytes(size_t n, uint64_t seed)
{
	uint8_t *p = malloc(n + 1);

	assert_non_null(p);
	fix_fill(p, n, seed);
	return (p);
}

/* Wait until *v is at least n, however slow the machine: for a minute at most. */
static inline int
fix_until(_Atomic unsigned *v, unsigned n)
{
	for (int i = 0; i < 60000 && *v < n; i++)
		(void)usleep(1000);
	return (*v >= n);
}

#endif
