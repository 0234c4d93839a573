/*
 * Structured log lines. Any process, any thread.
 *
 * One line is formatted on the stack and leaves in one write(2): no lock, no allocation. Owns the least level, the descriptor and, for
 * each event that has a rate in events.def, a window of a minute with what was written and what was held back in it; all are relaxed
 * atomics, so two threads may now and then let one line more pass. A line that cannot be written is dropped and counted into the
 * next one of its event. errno is kept.
 */
#include "config.h"
#include "common/base/log.h"

#include <errno.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "common/base/clock.h"
#include "common/base/log_priv.h"

#define LOG_NAME_MAX	32u
#define LOG_WINDOW_NS	(60 * MKV_NS_PER_SEC)

struct log_window {
	_Atomic uint64_t	begin_ns;
	_Atomic uint32_t	written, held_back;
};

static const struct {
	const char	*name;
	enum mkv_log_level level;
	uint32_t	per_minute;		/* 0: no limit */
} log_table[MKV_EV_COUNT] = {
#define DEBUG	MKV_LOG_DEBUG
#define INFO	MKV_LOG_INFO
#define WARN	MKV_LOG_WARN
#define ERROR	MKV_LOG_ERROR
#define MKV_EVENT(name, level, rate, text)	[MKV_EV_##name] = { #name, level, rate },
#include "common/tbl/events.def"
#undef MKV_EVENT
#undef DEBUG
#undef INFO
#undef WARN
#undef ERROR
};

static const char *const log_levels[] = { "debug", "info", "warn", "error" };

static _Atomic int log_least = MKV_LOG_INFO;
static _Atomic int log_fd = STDERR_FILENO;
static struct log_window log_window[MKV_EV_COUNT];
static char log_names[MKV_EV_COUNT][LOG_NAME_MAX];	/* written once, by log_fill_names() */
static pthread_once_t log_names_once = PTHREAD_ONCE_INIT;

static void
log_fill_names(void)
{
	for (unsigned ev = 0; ev < MKV_EV_COUNT; ev++) {
		MKV_ASSERT(strlen(log_table[ev].name) < LOG_NAME_MAX);
		for (unsigned i = 0; log_table[ev].name[i] != '\0'; i++)
			log_names[ev][i] = log_table[ev].name[i] == '_' ? '_' : (char)(log_table[ev].name[i] | 32);
	}
}

const char *
mkv_event_name(enum mkv_event ev)
{
	MKV_ASSERT((unsigned)ev < MKV_EV_COUNT);
	pthread_once(&log_names_once, log_fill_names);
	return (log_names[ev]);
}

void
mkv_log_init(enum mkv_log_level least)
{
	mkv_assert_prepare();
	atomic_store_explicit(&log_least, (int)least, memory_order_relaxed);
}

void
mkv_log_set_fd(int fd)
{
	atomic_store_explicit(&log_fd, fd, memory_order_relaxed);
}

/* 1 if this line may be written; *held_back: how many of its event were not since the last one that was. */
static int
log_may_write(enum mkv_event ev, uint32_t *held_back)
{
	struct log_window *w = &log_window[ev];
	uint64_t now, begin;

	if (log_table[ev].per_minute != 0) {
		now = mkv_now_ns();
		begin = atomic_load_explicit(&w->begin_ns, memory_order_relaxed);
		if ((begin == 0 || now - begin >= LOG_WINDOW_NS) &&
		    atomic_compare_exchange_strong_explicit(&w->begin_ns, &begin, now, memory_order_relaxed, memory_order_relaxed))
			atomic_store_explicit(&w->written, 0, memory_order_relaxed);
		if (atomic_fetch_add_explicit(&w->written, 1, memory_order_relaxed) >= log_table[ev].per_minute) {
			atomic_fetch_add_explicit(&w->held_back, 1, memory_order_relaxed);
			return (0);
		}
	}
	*held_back = atomic_exchange_explicit(&w->held_back, 0, memory_order_relaxed);
	return (1);
}

static void
log_write(enum mkv_event ev, const char *line, size_t bytes, uint32_t held_back)
{
	ssize_t n;

	do
		n = write(atomic_load_explicit(&log_fd, memory_order_relaxed), line, bytes);
	while (n < 0 && errno == EINTR);
	if (n < 0)
		atomic_fetch_add_explicit(&log_window[ev].held_back, held_back + 1, memory_order_relaxed);
}

void
mkv_log(enum mkv_event ev, const char *fmt, ...)
{
	char line[LOG_LINE_MAX];
	struct log_out out = { line, 0, sizeof(line) - 1 };	/* room for the line feed */
	int saved = errno;
	uint32_t held_back;
	va_list ap;

	MKV_ASSERT((unsigned)ev < MKV_EV_COUNT);
	if ((int)log_table[ev].level < atomic_load_explicit(&log_least, memory_order_relaxed) || !log_may_write(ev, &held_back))
		return;
	log_put(&out, "level=", 6);
	log_put(&out, log_levels[log_table[ev].level], strlen(log_levels[log_table[ev].level]));
	log_put(&out, " event=", 7);
	log_put(&out, mkv_event_name(ev), strlen(mkv_event_name(ev)));
	if (held_back != 0)
		log_put_format(&out, " held_back=%u", held_back);
	if (fmt[0] != '\0') {
		log_put(&out, " ", 1);
		va_start(ap, fmt);
		log_put_args(&out, fmt, ap);
		va_end(ap);
	}
	line[out.bytes++] = '\n';
	log_write(ev, line, out.bytes, held_back);
	errno = saved;
}
