/*
 * Driver "memcached": the meta commands ms, mg, md, pipelined. The server's own limits hold: items above its -I are refused (SERVER_ERROR),
 * keys have at most 250 bytes and no blanks.
 */
#include "config.h"
#include "bench/pipe.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MEMCACHED_KEY_MAX	250u

static size_t
memcached_command(char *head, const struct bench_io *io, const struct mkv_key *key)
{
	const char *p = key->data;

	switch (io->op) {
	case BENCH_PUT:
		return ((size_t)snprintf(head, PIPE_HEAD_MAX, "ms %.*s %zu\r\n", (int)key->bytes, p, io->bytes));
	case BENCH_GET:
		return ((size_t)snprintf(head, PIPE_HEAD_MAX, "mg %.*s v\r\n", (int)key->bytes, p));
	case BENCH_DELETE:
		return ((size_t)snprintf(head, PIPE_HEAD_MAX, "md %.*s\r\n", (int)key->bytes, p));
	case BENCH_EXISTS:
	case BENCH_MATCH:
		break;
	}
	return ((size_t)snprintf(head, PIPE_HEAD_MAX, "mg %.*s\r\n", (int)key->bytes, p));
}

static enum pipe_answer
memcached_answer(const struct bench_io *io, const char *line, size_t bytes, int64_t *value)
{
	char text[32], *end;

	if (bytes < 2)
		return (PIPE_BAD);
	if (memcmp(line, "HD", 2) == 0)
		*value = io->op == BENCH_PUT ? 0 : 1;
	else if (memcmp(line, "EN", 2) == 0 || memcmp(line, "NF", 2) == 0)
		*value = io->op == BENCH_GET ? MKV_ERR_MISS : 0;
	else if (memcmp(line, "NS", 2) == 0 || (bytes >= 12 && memcmp(line, "SERVER_ERROR", 12) == 0))
		*value = MKV_ERR_NOSPACE;
	else if (bytes > 3 && memcmp(line, "VA ", 3) == 0 && io->op == BENCH_GET) {
		snprintf(text, sizeof(text), "%.*s", (int)(bytes - 3), line + 3);
		*value = strtoll(text, &end, 10);
		return (end != text && *value >= 0 ? PIPE_VALUE : PIPE_BAD);
	} else
		return (PIPE_BAD);
	return (PIPE_DONE);
}

static const struct pipe_protocol memcached_protocol = { .command = memcached_command, .answer = memcached_answer, .servers = "127.0.0.1:11211",
	.key_max = MEMCACHED_KEY_MAX };

static int
memcached_open(struct bench_drv **out, const struct bench_drv_opts *o, char *why, size_t why_bytes)
{
	return (pipe_open(out, &bench_driver_memcached, &memcached_protocol, o, why, why_bytes));
}

const struct bench_driver bench_driver_memcached = {
	.name = "memcached", .keeps_values = 1, .default_connections = 1, .open = memcached_open, .close = pipe_close, .submit = pipe_submit,
	.wait = pipe_wait, .drain = pipe_drain
};
