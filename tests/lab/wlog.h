/*
 * The log of a dm-log-writes device, as a file on the host. Tests only.
 *
 * The target logs a write when it has completed and a flush has begun after that, a flush and a FUA write when they have completed, a mark when it is
 * given. So everything before a flush is on the medium once that flush is in the log, what stands between two flushes may be lost or torn, and a mark
 * that a client gave after its answer stands behind the flush which that answer waited for.
 */
#ifndef MKV_TESTS_LAB_WLOG_H
#define MKV_TESTS_LAB_WLOG_H

#include <stdint.h>

enum { WLOG_FLUSH = 1, WLOG_FUA = 2, WLOG_DISCARD = 4, WLOG_MARK = 8 };

struct wlog_entry {
	uint64_t	off, bytes;		/* a flush may have none */
	unsigned	flags;
	const uint8_t	*data;			/* a mark: its text, not terminated; discards: NULL */
	uint32_t	text_bytes;
};

struct wlog {
	const uint8_t	*map;
	uint64_t	map_bytes;
	struct wlog_entry *entry;
	uint64_t	n;
	uint32_t	sector;
};

/* 0; -1: why says what is wrong with it. Everything in the file is checked. */
int	wlog_open(struct wlog *l, const char *path, char *why, unsigned why_bytes);
void	wlog_close(struct wlog *l);

#endif
