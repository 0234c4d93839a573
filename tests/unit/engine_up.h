/*
 * For tests of the engine: a rig that is open, or the test is skipped where io_uring is refused.
 */
#ifndef MKV_TESTS_ENGINE_UP_H
#define MKV_TESTS_ENGINE_UP_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

#include "common/base/err.h"
#include "tests/crash/rig.h"

/* The first open of a test. */
static inline struct rig *
eng_opened(struct rig *r)
{
	int err = rig_open(r);

	if (err == MKV_E_UNSUPPORTED && r->kind == RIG_URING) {
		rig_destroy(&r);
		skip();
	}
	if (err != 0)
		fprintf(stderr, "open: %s\n", r->why);
	assert_int_equal(err, 0);
	return (r);
}

static inline struct rig *
eng_up(enum rig_kind k, uint64_t bytes)
{
	return (eng_opened(rig_create(k, bytes, 1)));
}

#endif
