/*
 * Process: supervisor, loop thread.
 * Owns: the read ends of the log pipes and the output. A source's last lines are kept for status after its process is gone.
 * Invariants: never waits for the reader of the output (a line that it would not take is lost and counted); a source that floods is cut down to
 * LOGS_PER_SECOND and one line says how many were dropped: with the next line that is let through, or a second later.
 * What can fail: the output (lines are lost), memory at open.
 */
#include "config.h"

#include "supervisor/logs_priv.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/base/assert.h"
#include "common/base/clock.h"
#include "common/base/err.h"
#include "common/base/log.h"

#define LOGS_MAGIC	0x1d0f5e92u
#define LOGS_OUT_MAX	(2u * LOGS_LINE_MAX + 256u)	/* JSON may double a line */
#define LOGS_TURN_MAX	16u				/* reads of one source in one turn */
#define LOGS_LAST_MAX	64u				/* reads of what a dead process left in its pipe */

/*
 * Pipes and terminals: a description of our own makes it non-blocking for us and leaves those who share the terminal alone. A file never makes us
 * wait, and a second description would have an offset of its own; a socket cannot be opened anew.
 */
void
logs_out_open(struct logs_out *o, int json)
{
	struct stat sb;

	memset(o, 0, sizeof(*o));
	o->json = json;
	o->fd = -1;
	if (fstat(2, &sb) == 0 && (S_ISFIFO(sb.st_mode) || S_ISCHR(sb.st_mode)))
		o->fd = open("/dev/fd/2", O_WRONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
	o->own = o->fd != -1;
	if (!o->own)
		o->fd = 2;
}

void
logs_out_close(struct logs_out *o)
{
	if (o->own)
		close(o->fd);
	o->own = 0;
	o->fd = 2;
}

static void
logs_write(struct logs_out *o, const char *line, size_t bytes)
{
	ssize_t n;

	do
		n = write(o->fd, line, bytes);
	while (n == -1 && errno == EINTR);
	o->lines++;
	if (n != (ssize_t)bytes)
		o->lost++;
}

static void
logs_keep(struct logs_words *w, const char *line, size_t bytes)
{
	char *dst = w->line[w->next];

	bytes = MKV_MIN(bytes, LOGS_WORD_MAX - 1);
	memcpy(dst, line, bytes);
	dst[bytes] = '\0';
	w->next = (w->next + 1) % LOGS_WORDS;
	if (w->count < LOGS_WORDS)
		w->count++;
}

const char *
logs_word(const struct logs_words *w, uint32_t i)
{
	if (i >= w->count)
		return (NULL);
	return (w->line[(w->next + LOGS_WORDS - w->count + i) % LOGS_WORDS]);
}

static void
logs_emit(struct logs_src *s, const char *line, size_t bytes)
{
	char out[LOGS_OUT_MAX];
	size_t n = logs_format(out, sizeof(out), s->out->json, mkv_wall_ms(), s->name, s->pid, line, bytes);

	if (n > 0)
		logs_write(s->out, out, n);
}

static void
logs_refill(struct logs_src *s)
{
	uint64_t now = mkv_now_ns() / MKV_NS_PER_MS, add = (now - s->refilled_ms) * LOGS_PER_SECOND / 1000;
	char line[128];
	int n;

	if (add == 0)
		return;
	s->refilled_ms = now;
	s->tokens = MKV_MIN(s->tokens + add, LOGS_BURST);
	if (s->dropped == 0)
		return;
	n = snprintf(line, sizeof(line), "level=warn event=log_dropped lines=%" PRIu64, s->dropped);
	logs_emit(s, line, (size_t)n);
	s->dropped = 0;
}

static void
logs_on_timer(uv_timer_t *h)
{
	if (h->data != NULL)
		logs_refill(h->data);
}

static void
logs_drop(struct logs_src *s)
{
	if (s->dropped++ == 0)
		(void)uv_timer_start(s->timer, logs_on_timer, LOGS_TOLD_MS, 0);
}

static void
logs_line(struct logs_src *s, const char *line, size_t bytes)
{
	if (bytes == 0)
		return;
	logs_keep(s->words, line, bytes);
	if (s->tokens == 0)
		logs_refill(s);
	if (s->tokens == 0) {
		logs_drop(s);
		return;
	}
	s->tokens--;
	logs_emit(s, line, bytes);
}

static void
logs_split(struct logs_src *s)
{
	char *nl;
	size_t n;

	while ((nl = memchr(s->buf, '\n', s->bytes)) != NULL) {
		n = (size_t)(nl - s->buf);
		logs_line(s, s->buf, n);
		memmove(s->buf, nl + 1, s->bytes - n - 1);
		s->bytes -= n + 1;
	}
	if (s->bytes == sizeof(s->buf)) {
		logs_line(s, s->buf, s->bytes);
		s->bytes = 0;
	}
}

/* 1 read something; 0 nothing there now; -1 end. */
static int
logs_read(struct logs_src *s)
{
	ssize_t n = read(s->fd, s->buf + s->bytes, sizeof(s->buf) - s->bytes);

	if (n > 0) {
		s->bytes += (size_t)n;
		logs_split(s);
		return (1);
	}
	return (n == -1 && (errno == EAGAIN || errno == EINTR) ? 0 : -1);
}

static void
logs_on_poll(uv_poll_t *h, int status, int events MKV_UNUSED)
{
	struct logs_src *s = h->data;
	int r = 1;

	if (s == NULL || status != 0)
		return;
	for (unsigned i = 0; i < LOGS_TURN_MAX && r == 1; i++)
		r = logs_read(s);
	logs_refill(s);
	if (r == -1)
		uv_poll_stop(h);
}

static void
logs_on_handle_closed(uv_handle_t *h)
{
	free(h);
}

int
logs_open(struct logs_src *s, uv_loop_t *loop, int fd, struct logs_out *out, struct logs_words *words, const char *name, int pid)
{
	memset(s, 0, sizeof(*s));
	s->poll = malloc(sizeof(*s->poll));
	s->timer = malloc(sizeof(*s->timer));
	if (s->poll == NULL || s->timer == NULL || uv_poll_init(loop, s->poll, fd) != 0) {
		int r = s->poll == NULL || s->timer == NULL ? MKV_E_NOMEM : MKV_E_SYSTEM;

		free(s->poll);
		free(s->timer);
		close(fd);
		return (r);
	}
	(void)uv_timer_init(loop, s->timer);	/* cannot fail */
	uv_unref((uv_handle_t *)s->timer);
	s->timer->data = s;
	s->magic = LOGS_MAGIC;
	s->fd = fd;
	s->poll->data = s;
	s->out = out;
	s->words = words;
	s->name = name;
	s->pid = pid;
	s->tokens = LOGS_BURST;
	s->refilled_ms = mkv_now_ns() / MKV_NS_PER_MS;
	(void)uv_poll_start(s->poll, UV_READABLE, logs_on_poll);
	return (0);
}

void
logs_close(struct logs_src *s)
{
	int r = 1;

	if (s->magic != LOGS_MAGIC)
		return;
	for (unsigned i = 0; i < LOGS_LAST_MAX && r == 1; i++)
		r = logs_read(s);
	logs_line(s, s->buf, s->bytes);
	logs_refill(s);
	uv_poll_stop(s->poll);
	s->poll->data = NULL;
	uv_close((uv_handle_t *)s->poll, logs_on_handle_closed);
	uv_timer_stop(s->timer);
	s->timer->data = NULL;
	uv_close((uv_handle_t *)s->timer, logs_on_handle_closed);
	close(s->fd);
	memset(s, 0, sizeof(*s));
}
