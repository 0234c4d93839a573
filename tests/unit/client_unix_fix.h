/*
 * Tests of libmemkv on the unix socket of the fake server: one handle, one server, its socket.
 */
#ifndef MKV_TESTS_CLIENT_UNIX_FIX_H
#define MKV_TESTS_CLIENT_UNIX_FIX_H

#include "tests/unit/client_counter.h"
#include "tests/unit/client_fix.h"

static char dir[32], path[64];
static struct fake fake;
static struct mkv_client *cl;

static inline void
open_fake(void)
{
	struct fake_opts o = { .local_path = path };

	cl = NULL;
	(void)snprintf(dir, sizeof(dir), "/tmp/client-unix-XXXXXX");
	assert_non_null(mkdtemp(dir));
	(void)snprintf(path, sizeof(path), "%s/s", dir);
	assert_int_equal(fake_open(&fake, &o), 0);
}

static inline int
teardown(void **state)
{
	(void)state;
	mkv_client_close(cl);
	fake_close(&fake);
	assert_int_equal(rmdir(dir), 0);
	return (0);
}

#endif
