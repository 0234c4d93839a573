/*
 * What the tests of libmemkv against a front as it is share: a handle on struct both, and values that can be recognised.
 */
#ifndef MKV_TESTS_FRONT_BOTH_CLIENT_H
#define MKV_TESTS_FRONT_BOTH_CLIENT_H

#include "tests/unit/front_both.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>
#include <memkv/memkv.h>

#include "clients/lib/rail.h"
#include "common/base/assert.h"
#include "common/rdma/verbs.h"
#include "tests/lib/fakeverbs.h"

#define SEC	1000000u
#define K(s)	(s), strlen(s)
#define VALUE	(1u << 20)

/* control, tether: as rdma_control and rdma_tether; NULL: the default. */
static inline struct mkv_client *
both_client(const struct both *b, const char *transport, const char *control, const char *tether)
{
	char servers[64], why[256] = "";
	struct mkv_client_opts o = { .size = sizeof(o), .servers = servers, .transport = transport, .rdma_devices = "fake1", .connections = 1, .auth_key = BOTH_CRED,
		.rdma_control = control, .rdma_tether = tether };
	struct mkv_client *c;

	snprintf(servers, sizeof(servers), "127.0.0.1:%u", both_port(b));
	mkv_client_verbs = fv_verbs();
	if (mkv_client_open(&c, &o, why, sizeof(why)) != 0)
		fail_msg("%s", why);
	assert_int_equal(mkv_warm(c, 20 * SEC), 0);
	return (c);
}

static inline void
both_fill(uint8_t *p, size_t n, uint32_t seed)
{
	for (size_t i = 0; i < n; i++)
		p[i] = (uint8_t)(seed = seed * 1664525u + 1013904223u, seed >> 24);
}

static inline void
both_round_trip(struct mkv_client *c, const char *key, size_t n, uint32_t seed)
{
	uint8_t *value = malloc(n), *copy = calloc(1, n);

	both_fill(value, n, seed);
	assert_int_equal(mkv_put(c, K(key), value, n, NULL, 20 * SEC, NULL), 0);
	assert_int_equal(mkv_get(c, K(key), copy, n, 20 * SEC, NULL), n);
	assert_memory_equal(value, copy, n);
	free(value);
	free(copy);
}

#endif
