/*
 * For tests of regions: a client's memory, and requests that name places in it.
 */
#ifndef MKV_TESTS_UNIT_FRONT_REGION_UP_H
#define MKV_TESTS_UNIT_FRONT_REGION_UP_H

#include <dirent.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <sys/un.h>
#include <unistd.h>

#include <cmocka.h>

#include "common/base/assert.h"
#include "tests/unit/front_rig.h"
#include "tests/unit/region_memory.h"

#define PART		(1u << 20)
#define ROOM		(8u << 20)	/* of a region */

static const struct sockaddr_storage unix_socket = { .ss_family = AF_UNIX };
static uint8_t value[3 * PART + 777];

static inline unsigned
open_files(void)
{
	DIR *d = opendir("/proc/self/fd");
	unsigned n = 0;

	assert_non_null(d);
	while (readdir(d) != NULL)
		n++;
	closedir(d);
	return (n);
}

static inline int
answer(struct rig_client *c, uint64_t id)
{
	assert_int_equal(rig_recv(c, RIG_PATIENCE_MS), 1);
	assert_int_equal(c->f.hdr.request_id, id);
	return (-(int)c->f.hdr.status);
}

static inline int
region_with(struct rig_client *c, uint32_t number, uint64_t bytes, int fd, uint32_t flags)
{
	struct mkv_wire_region w = { .number = number, .flags = flags, .bytes = bytes };
	uint64_t id = fd >= 0 ? rig_send_fd(c, MKV_WIRE_REGION, &w, sizeof(w), fd) : rig_send(c, MKV_WIRE_REGION, 0, 0, &w, sizeof(w), NULL, 0);

	return (answer(c, id));
}

static inline int
region(struct rig_client *c, uint32_t number, uint64_t bytes, int fd)
{
	return (region_with(c, number, bytes, fd, 0));
}

static inline uint64_t
begin_drop(struct rig_client *c, uint32_t number)
{
	struct mkv_wire_region w = { .number = number, .flags = MKV_WIRE_REGION_DROP };

	return (rig_send(c, MKV_WIRE_REGION, 0, 0, &w, sizeof(w), NULL, 0));
}

static inline int
drop(struct rig_client *c, uint32_t number)
{
	return (answer(c, begin_drop(c, number)));
}

/* One frame of a put whose bytes lie in segments, cut where the caller says. */
static inline void
send_put(struct rig_client *c, uint64_t id, unsigned flags, const uint8_t *body, size_t n, uint64_t bytes, const struct mkv_wire_seg *s, unsigned n_seg)
{
	uint8_t whole[4096];
	struct mkv_hdr h;

	memcpy(whole, body, n);
	memcpy(whole + n, s, n_seg * sizeof(*s));
	rig_frame_make(c, &h, MKV_WIRE_PUT, flags | MKV_WIRE_F_REMOTE, id, whole, n + n_seg * sizeof(*s), bytes);
	rig_write(c, &h, sizeof(h));
	rig_write(c, whole, n + n_seg * sizeof(*s));
}

static inline unsigned
cut(struct mkv_wire_seg s[3], uint64_t off, uint64_t bytes, uint32_t number)
{
	uint32_t a = (uint32_t)MKV_MIN(bytes, 4097u);

	s[0] = (struct mkv_wire_seg){ off, a, number };
	s[1] = (struct mkv_wire_seg){ off + a, (uint32_t)(bytes - a), number };
	return (bytes == 0 ? 0 : bytes > a ? 2 : 1);
}

/* It lies at off of region `number`. */
static inline uint64_t
begin_put(struct rig_client *c, const char *key, const uint8_t *p, uint64_t bytes, uint64_t off, uint32_t number)
{
	uint64_t id = c->next_id++, at = 0;
	struct mkv_wire_seg s[3];
	uint8_t body[2048];

	do {
		uint64_t n = MKV_MIN(bytes - at, (uint64_t)PART);
		int more = at + n < bytes;
		size_t b = rig_put_body(body, key, at == 0 ? strlen(key) : 0, p + at, n, at, more ? MKV_WIRE_SIZE_UNKNOWN : bytes, 0);

		send_put(c, id, more ? MKV_WIRE_F_MORE : 0, body, b, n, s, cut(s, off + at, n, number));
		at += n;
	} while (at < bytes);
	return (id);
}

static inline uint64_t
begin_get(struct rig_client *c, const char *key, uint64_t from, uint64_t len, const struct mkv_wire_seg *s, unsigned n_seg)
{
	_Alignas(8) uint8_t body[1024];
	size_t b = rig_get_body(body, key, strlen(key), from, len);

	memcpy(body + b, s, n_seg * sizeof(*s));
	return (rig_send(c, MKV_WIRE_GET, MKV_WIRE_F_REMOTE, 0, body, b + n_seg * sizeof(*s), NULL, 0));
}

/* All parts; how many bytes. */
static inline int64_t
end_get(struct rig_client *c, uint64_t id)
{
	int64_t got = 0;

	do {
		assert_int_equal(rig_recv(c, RIG_PATIENCE_MS), 1);
		assert_int_equal(c->f.hdr.request_id, id);
		if (c->f.hdr.status != 0)
			return (-(int64_t)c->f.hdr.status);
		assert_int_equal((c->f.hdr.flags & MKV_WIRE_F_REMOTE) != 0, c->f.hdr.payload_bytes != 0);
		got += (int64_t)c->f.hdr.payload_bytes;
	} while (c->f.hdr.flags & MKV_WIRE_F_MORE);
	return (got);
}

static inline void
only(const struct memory *m, uint64_t off, const uint8_t *p, uint64_t n)
{
	assert_memory_equal(m->p + off, p, n);
	for (uint64_t i = 0; i < off; i++)
		assert_int_equal(m->p[i], GUARD);
	for (uint64_t i = off + n; i < m->bytes; i++)
		assert_int_equal(m->p[i], GUARD);
}

#endif
