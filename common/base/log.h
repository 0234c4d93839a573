/*
 * Structured log: one event, one line. Any process, any thread; writes one write(2) to stderr, never blocks on a lock.
 * Children write `level=warn event=frame_bad key=value …`; the supervisor prefixes time, kind and pid and turns it into JSON
 * where asked. Values with blanks, quotes or '=' are quoted. Secrets never appear. libmemkv does not log.
 */
#ifndef MKV_BASE_LOG_H
#define MKV_BASE_LOG_H

#include "common/base/assert.h"

enum mkv_log_level { MKV_LOG_DEBUG, MKV_LOG_INFO, MKV_LOG_WARN, MKV_LOG_ERROR };

enum mkv_event {
#define MKV_EVENT(name, level, rate, text)	MKV_EV_##name,
#include "common/tbl/events.def"
#undef MKV_EVENT
	MKV_EV_COUNT
};

void	mkv_log_init(enum mkv_log_level least);		/* default INFO */
void	mkv_log_set_fd(int fd);				/* default 2; tests */
void	mkv_log(enum mkv_event ev, const char *fmt, ...) MKV_PRINTF(2, 3);
const char *mkv_event_name(enum mkv_event ev);

/* Writes s as a logfmt value (quoted if it must be) into dst; always terminates; returns dst. */
char *	mkv_log_quote(char *dst, size_t dst_bytes, const char *s, size_t s_bytes);

#endif
