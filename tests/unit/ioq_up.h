/*
 * Tests of completion I/O: a queue for each test, on both back ends (where the kernel refuses io_uring, that half skips and says so).
 */
#ifndef MKV_TESTS_UNIT_IOQ_UP_H
#define MKV_TESTS_UNIT_IOQ_UP_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "common/base/assert.h"
#include "common/base/clock.h"
#include "common/base/err.h"
#include "common/base/ioq.h"

#define LIMIT_NS	(10 * MKV_NS_PER_SEC)	/* no test waits longer for one completion */

struct op {
	struct mkv_io	io;
	unsigned	calls;
	int		res;
};

static enum mkv_ioq_kind kinds[] = { MKV_IOQ_URING, MKV_IOQ_POLL };
static struct mkv_ioq *q;

static inline void
on_done(struct mkv_io *io, int res)
{
	struct op *o = MKV_CONTAINER_OF(io, struct op, io);

	o->calls++;
	o->res = res;
}

static inline void
op_init(struct op *o)
{
	memset(o, 0, sizeof(*o));
	o->io.done = on_done;
}

static inline int
set_up_depth(void **state, unsigned entries, unsigned depth)
{
	struct mkv_ioq_opts opts = { .kind = *(enum mkv_ioq_kind *)*state, .entries = entries, .depth_max = depth, .threads = 2 };

	return (mkv_ioq_create(&q, &opts));
}

static inline int
set_up(void **state)
{
	int r = set_up_depth(state, 8, 64);

	if (r == MKV_E_UNSUPPORTED)
		q = NULL;			/* need_queue() skips */
	return (r == MKV_E_UNSUPPORTED ? 0 : r);
}

static inline int
tear_down(void **state MKV_UNUSED)
{
	mkv_ioq_destroy(&q);
	return (0);
}

static inline void
need_queue(void)
{
	if (q == NULL) {
		print_message("io_uring is refused here\n");
		skip();
	}
}

static inline int
wait_for(struct op *o)
{
	uint64_t until = mkv_now_ns() + LIMIT_NS;

	while (o->calls == 0 && mkv_now_ns() < until)
		assert_true(mkv_ioq_run(q, until) >= 0);
	assert_int_equal(o->calls, 1);
	return (o->res);
}

static inline void
pair(int s[2])
{
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, s), 0);
}

static inline int
temp_file(void)
{
	char path[] = "/tmp/memkv-ioq-XXXXXX";
	int fd = mkstemp(path);

	assert_true(fd >= 0);
	unlink(path);
	return (fd);
}

#define BOTH(f) \
	{ #f "/io_uring", f, set_up, tear_down, &kinds[0] }, \
	{ #f "/poll", f, set_up, tear_down, &kinds[1] }

#endif
