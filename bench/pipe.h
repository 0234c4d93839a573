/*
 * Pipelines to servers that answer in order with lines and counted values: Redis and memcached. The protocol is a few functions; sockets,
 * queues and deadlines are here.
 */
#ifndef MKV_BENCH_PIPE_H
#define MKV_BENCH_PIPE_H

#include "bench/driver.h"

#define PIPE_HEAD_MAX	768u		/* of one command: a key of 512 bytes and the words around it */

enum pipe_answer {
	PIPE_DONE,		/* *value: result of this answer, or a negative MKV_ERR_* */
	PIPE_VALUE,		/* *value bytes and CR LF follow this line */
	PIPE_BAD		/* no line of this protocol: the connection ends */
};

struct pipe_protocol {
	/* Write the command for one key of io to head; a PUT's value and then CR LF follow it. Returns the length. */
	size_t			(*command)(char *head, const struct bench_io *io, const struct mkv_key *key);
	enum pipe_answer	(*answer)(const struct bench_io *io, const char *line, size_t bytes, int64_t *value);
	const char		*servers;	/* default */
	size_t			key_max;	/* longer keys are refused; the bench's own have no blanks in them */
};

int		pipe_open(struct bench_drv **out, const struct bench_driver *ops, const struct pipe_protocol *proto, const struct bench_drv_opts *o,
		    char *why, size_t why_bytes);
void		pipe_close(struct bench_drv *base);
int		pipe_submit(struct bench_drv *base, struct bench_io *io);
void		pipe_wait(struct bench_drv *base, uint64_t timeout_us);
unsigned	pipe_drain(struct bench_drv *base, struct bench_io **out, unsigned max);

#endif
