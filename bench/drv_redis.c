/*
 * Driver "redis": SET, GET, EXISTS, DEL in RESP2, pipelined. EXISTS of many keys is as many commands in one go, since one EXISTS with many
 * keys only counts; MATCH is that and looking for the first 0.
 */
#include "config.h"
#include "bench/pipe.h"

#include <string.h>

struct redis_verb {
	const char	*text;			/* the command up to the length of its key */
	size_t		bytes;
};

#define REDIS_VERB(t)	{ t, sizeof(t) - 1 }

static const struct redis_verb redis_verbs[] = {
	[BENCH_PUT] = REDIS_VERB("*3\r\n$3\r\nSET\r\n$"), [BENCH_GET] = REDIS_VERB("*2\r\n$3\r\nGET\r\n$"),
	[BENCH_EXISTS] = REDIS_VERB("*2\r\n$6\r\nEXISTS\r\n$"), [BENCH_DELETE] = REDIS_VERB("*2\r\n$3\r\nDEL\r\n$"),
	[BENCH_MATCH] = REDIS_VERB("*2\r\n$6\r\nEXISTS\r\n$")
};

static char *
redis_put(char *to, const void *from, size_t bytes)
{
	memcpy(to, from, bytes);
	return (to + bytes);
}

static char *
redis_put_number(char *to, size_t v)
{
	char digits[24];
	size_t n = sizeof(digits);

	do
		digits[--n] = (char)('0' + v % 10);
	while ((v /= 10) > 0);
	return (redis_put(redis_put(to, digits + n, sizeof(digits) - n), "\r\n", 2));
}

/* By hand, not by printf: thousands of keys in one batch must not measure our formatting. */
static size_t
redis_command(char *head, const struct bench_io *io, const struct mkv_key *key)
{
	char *p = redis_put(head, redis_verbs[io->op].text, redis_verbs[io->op].bytes);

	p = redis_put(redis_put_number(p, key->bytes), key->data, key->bytes);
	p = redis_put(p, "\r\n", 2);
	if (io->op == BENCH_PUT) {
		*p++ = '$';
		p = redis_put_number(p, io->bytes);
	}
	return ((size_t)(p - head));
}

/* Digits and nothing else. -1 or a number. */
static int64_t
redis_number(const char *p, size_t bytes)
{
	int64_t v = 0;

	if (bytes == 0 || bytes > 18)
		return (-1);
	for (size_t i = 0; i < bytes; i++) {
		if (p[i] < '0' || p[i] > '9')
			return (-1);
		v = v * 10 + (p[i] - '0');
	}
	return (v);
}

static enum pipe_answer
redis_answer(const struct bench_io *io, const char *line, size_t bytes, int64_t *value)
{
	if (bytes < 2)
		return (PIPE_BAD);
	if (line[0] == '-') {
		*value = bytes >= 4 && memcmp(line, "-OOM", 4) == 0 ? MKV_ERR_NOSPACE : MKV_ERR_IO;
		return (PIPE_DONE);
	}
	if (line[0] == '+') {
		*value = 0;
		return (io->op == BENCH_PUT ? PIPE_DONE : PIPE_BAD);
	}
	if (line[0] == '$' && io->op == BENCH_GET && bytes == 3 && memcmp(line, "$-1", 3) == 0) {
		*value = MKV_ERR_MISS;
		return (PIPE_DONE);
	}
	*value = redis_number(line + 1, bytes - 1);
	if (*value < 0)
		return (PIPE_BAD);
	if (line[0] == ':')
		return (io->op == BENCH_EXISTS || io->op == BENCH_MATCH || io->op == BENCH_DELETE ? PIPE_DONE : PIPE_BAD);
	return (line[0] == '$' && io->op == BENCH_GET ? PIPE_VALUE : PIPE_BAD);
}

static const struct pipe_protocol redis_protocol = { .command = redis_command, .answer = redis_answer, .servers = "127.0.0.1:6379",
	.key_max = MEMKV_KEY_MAX };

static int
redis_open(struct bench_drv **out, const struct bench_drv_opts *o, char *why, size_t why_bytes)
{
	return (pipe_open(out, &bench_driver_redis, &redis_protocol, o, why, why_bytes));
}

const struct bench_driver bench_driver_redis = {
	.name = "redis", .keeps_values = 1, .default_connections = 1, .open = redis_open, .close = pipe_close, .submit = pipe_submit,
	.wait = pipe_wait, .drain = pipe_drain
};
