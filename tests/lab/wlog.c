/*
 * Reading the log of dm-log-writes (wlog.h). One thread; owns the mapping. The file comes from a guest and may be cut: a bad entry ends in an error.
 *
 *   sector 0: magic, version, number of entries, sector size
 *   then for each entry a sector {sector, sectors, flags, text bytes, text} and, but for discards and marks, its data
 */
#include "config.h"

#include "tests/lab/wlog.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define WLOG_MAGIC	0x6a736677736872ull
#define WLOG_VERSION	1u

/* A little-endian number, wherever it lies. */
static uint64_t
wlog_le(const uint8_t *p, unsigned bytes)
{
	uint64_t v = 0;

	while (bytes-- > 0)
		v = v << 8 | p[bytes];
	return (v);
}

static int
wlog_map(struct wlog *l, const char *path)
{
	struct stat st;
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	void *p;

	if (fd < 0)
		return (-1);
	if (fstat(fd, &st) != 0 || st.st_size < 4096) {
		close(fd);
		return (-1);
	}
	p = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_SHARED, fd, 0);
	close(fd);
	if (p == MAP_FAILED)
		return (-1);
	l->map = p;
	l->map_bytes = (uint64_t)st.st_size;
	return (0);
}

/* The entry at *pos, which moves behind it. */
static int
wlog_read(struct wlog *l, struct wlog_entry *e, uint64_t *pos)
{
	const uint8_t *p = l->map + *pos;
	uint64_t sectors, text;

	if (l->map_bytes - *pos < l->sector)
		return (-1);
	e->off = wlog_le(p, 8) * l->sector;
	sectors = wlog_le(p + 8, 8);
	e->flags = (unsigned)wlog_le(p + 16, 8);
	text = wlog_le(p + 24, 8);
	*pos += l->sector;
	if (sectors > l->map_bytes || text > l->sector - 32)
		return (-1);
	e->bytes = sectors * l->sector;
	e->text_bytes = (uint32_t)text;
	e->data = NULL;
	if (e->flags & WLOG_MARK) {
		e->data = p + 32;
		e->bytes = 0;
	} else if ((e->flags & WLOG_DISCARD) == 0) {
		if (e->bytes > l->map_bytes - *pos)
			return (-1);
		e->data = l->map + *pos;
		*pos += e->bytes;
	}
	return (0);
}

int
wlog_open(struct wlog *l, const char *path, char *why, unsigned why_bytes)
{
	uint64_t pos;

	memset(l, 0, sizeof(*l));
	if (wlog_map(l, path) != 0) {
		snprintf(why, why_bytes, "%s cannot be read", path);
		return (-1);
	}
	l->sector = (uint32_t)wlog_le(l->map + 24, 4);
	l->n = wlog_le(l->map + 16, 8);
	if (wlog_le(l->map, 8) != WLOG_MAGIC || wlog_le(l->map + 8, 8) != WLOG_VERSION || (l->sector != 512 && l->sector != 4096) ||
	    l->n > l->map_bytes / l->sector || (l->entry = calloc(l->n + 1, sizeof(*l->entry))) == NULL) {
		snprintf(why, why_bytes, "%s is no log of writes", path);
		return (-1);
	}
	pos = l->sector;
	for (uint64_t i = 0; i < l->n; i++) {
		if (wlog_read(l, &l->entry[i], &pos) != 0) {
			snprintf(why, why_bytes, "%s: entry %llu of %llu is cut", path, (unsigned long long)i, (unsigned long long)l->n);
			return (-1);
		}
	}
	return (0);
}

void
wlog_close(struct wlog *l)
{
	if (l->map != NULL)
		munmap((void *)(uintptr_t)l->map, l->map_bytes);
	free(l->entry);
	memset(l, 0, sizeof(*l));
}
