/*
 * Between log.c and log_format.c: a log line while it grows.
 */
#ifndef MKV_BASE_LOG_PRIV_H
#define MKV_BASE_LOG_PRIV_H

#include <stdarg.h>
#include <stddef.h>

#include "common/base/assert.h"

#define LOG_LINE_MAX	2048u			/* below PIPE_BUF: lines of several writers on one pipe do not mix */
_Static_assert(LOG_LINE_MAX <= 4096, "PIPE_BUF on Linux");

struct log_out {
	char	*line;				/* not terminated */
	size_t	bytes, max;			/* bytes <= max; what does not fit is cut off */
};

void	log_put(struct log_out *o, const char *s, size_t bytes);
void	log_put_format(struct log_out *o, const char *fmt, ...) MKV_PRINTF(2, 3);
/* Like vsnprintf(3), but the string that stands as a whole value (`key=%s`) is quoted where logfmt needs it. */
void	log_put_args(struct log_out *o, const char *fmt, va_list ap) MKV_PRINTF(2, 0);

#endif
