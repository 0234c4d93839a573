/*
 * For tests of regions: a client's memory, all of it GUARD.
 */
#ifndef MKV_TESTS_UNIT_REGION_MEMORY_H
#define MKV_TESTS_UNIT_REGION_MEMORY_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "common/base/os.h"

#define GUARD	0xa5

struct memory {
	int		fd;
	uint8_t		*p;
	uint64_t	bytes;
};

static inline struct memory
memory_of(uint64_t bytes)
{
	struct memory m = { .fd = mkv_os_shm_create("region", bytes, 0), .bytes = bytes };
	void *p;

	assert_true(m.fd >= 0);
	assert_int_equal(mkv_os_shm_map(m.fd, bytes, 1, 0, &p), 0);
	m.p = p;
	memset(m.p, GUARD, bytes);
	return (m);
}

static inline void
memory_free(struct memory *m)
{
	mkv_os_shm_unmap(m->p, m->bytes);
	close(m->fd);
}

#endif
