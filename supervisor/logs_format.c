/*
 * Process: supervisor, any thread (no state).
 * From a child's line `level=warn event=frame_bad key=value` to the line that leaves: with time, process and pid in front, as logfmt or JSON.
 * Foreign bytes: a line may hold anything. Nothing here fails; what does not fit is cut.
 */
#include "config.h"

#include "supervisor/logs_priv.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <jansson.h>

#include "common/base/assert.h"
#include "common/base/log.h"

#define PAIRS_MAX	32u

struct pair {
	char	key[64];
	char	value[LOGS_LINE_MAX];
};

static void
logs_time(char dst[32], uint64_t wall_ms)
{
	time_t t = (time_t)(wall_ms / 1000);
	struct tm tm;
	size_t n;

	gmtime_r(&t, &tm);
	n = strftime(dst, 32, "%Y-%m-%dT%H:%M:%S", &tm);
	snprintf(dst + n, 32 - n, ".%03uZ", (unsigned)(wall_ms % 1000));
}

static int
logs_is_ours(const char *line, size_t bytes)
{
	return (bytes > 6 && memcmp(line, "level=", 6) == 0 && memmem(line, bytes, " event=", 7) != NULL);
}

/* A quoted value, as mkv_log_quote() writes it; returns what follows its closing quote. */
static const char *
logs_unquote(const char *p, const char *end, char *dst, size_t dst_bytes)
{
	size_t n = 0;

	for (p++; p < end && *p != '"'; p++) {
		char c = *p;

		if (c == '\\' && p + 1 < end) {
			c = *++p;
			if (c == 'n')
				c = '\n';
			else if (c == 't')
				c = '\t';
			else if (c == 'x' && end - p > 2) {
				c = '?';
				p += 2;
			}
		}
		if (n + 1 < dst_bytes)
			dst[n++] = c;
	}
	dst[n] = '\0';
	return (p < end ? p + 1 : end);
}

/* The next key=value from p on; NULL at the end of the line. A word without '=' is a key with an empty value. */
static const char *
logs_next_pair(const char *p, const char *end, struct pair *pr)
{
	size_t n = 0;

	while (p < end && *p == ' ')
		p++;
	if (p == end)
		return (NULL);
	for (; p < end && *p != '=' && *p != ' '; p++)
		if (n + 1 < sizeof(pr->key))
			pr->key[n++] = *p;
	pr->key[n] = '\0';
	pr->value[0] = '\0';
	if (p == end || *p == ' ')
		return (p);
	if (++p < end && *p == '"')
		return (logs_unquote(p, end, pr->value, sizeof(pr->value)));
	for (n = 0; p < end && *p != ' '; p++)
		if (n + 1 < sizeof(pr->value))
			pr->value[n++] = *p;
	pr->value[n] = '\0';
	return (p);
}

static json_t *
logs_json_string(char *s)
{
	json_t *j = json_string(s);

	if (j != NULL)
		return (j);
	for (char *p = s; *p != '\0'; p++)	/* not UTF-8 */
		if ((unsigned char)*p >= 0x80)
			*p = '?';
	return (json_string(s));
}

static void
logs_json_fields(json_t *o, const char *line, size_t bytes)
{
	static struct pair pr;			/* large; one loop thread */
	const char *p = line, *end = line + bytes;

	for (unsigned i = 0; i < PAIRS_MAX && (p = logs_next_pair(p, end, &pr)) != NULL; i++) {
		for (char *k = pr.key; *k != '\0'; k++)
			if ((unsigned char)*k < ' ' || (unsigned char)*k >= 127)
				*k = '?';
		json_object_set_new(o, pr.key, logs_json_string(pr.value));
	}
}

static size_t
logs_format_json(char *dst, size_t dst_bytes, const char *time, const char *name, int pid, const char *line, size_t bytes)
{
	char text[LOGS_LINE_MAX];
	json_t *o = json_object();
	size_t n;

	json_object_set_new(o, "time", json_string(time));
	json_object_set_new(o, "proc", json_string(name));
	json_object_set_new(o, "pid", json_integer(pid));
	if (logs_is_ours(line, bytes))
		logs_json_fields(o, line, bytes);
	else {
		n = MKV_MIN(bytes, sizeof(text) - 1);
		memcpy(text, line, n);
		text[n] = '\0';
		json_object_set_new(o, "level", json_string("info"));
		json_object_set_new(o, "event", json_string("output"));
		json_object_set_new(o, "text", logs_json_string(text));
	}
	n = json_dumpb(o, dst, dst_bytes - 1, JSON_COMPACT);
	json_decref(o);
	if (n == 0 || n > dst_bytes - 1)
		return (0);			/* half an object is worse than none */
	dst[n++] = '\n';
	return (n);
}

static size_t
logs_format_text(char *dst, size_t dst_bytes, const char *time, const char *name, int pid, const char *line, size_t bytes)
{
	char quoted[LOGS_LINE_MAX + 64];
	int n;

	if (logs_is_ours(line, bytes))
		n = snprintf(dst, dst_bytes, "time=%s proc=%s pid=%d %.*s", time, name, pid, (int)bytes, line);
	else
		n = snprintf(dst, dst_bytes, "time=%s proc=%s pid=%d level=info event=output text=%s", time, name, pid,
		    mkv_log_quote(quoted, sizeof(quoted), line, bytes));
	MKV_ASSERT(n > 0);
	n = (int)MKV_MIN((size_t)n, dst_bytes - 2);
	for (int i = 0; i < n; i++)
		if ((unsigned char)dst[i] < ' ' || dst[i] == 127)
			dst[i] = '?';		/* a terminal may be at the other end */
	dst[n++] = '\n';
	return ((size_t)n);
}

size_t
logs_format(char *dst, size_t dst_bytes, int json, uint64_t wall_ms, const char *name, int pid, const char *line, size_t line_bytes)
{
	char time[32];

	MKV_ASSERT(dst_bytes > LOGS_LINE_MAX);
	logs_time(time, wall_ms);
	line_bytes = MKV_MIN(line_bytes, LOGS_LINE_MAX);
	return (json ? logs_format_json(dst, dst_bytes, time, name, pid, line, line_bytes) :
	    logs_format_text(dst, dst_bytes, time, name, pid, line, line_bytes));
}
