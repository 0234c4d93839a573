/*
 * Traces in Mooncake's format: one JSON object a line with timestamp (ms), input_length (tokens) and hash_ids (one for each 512 tokens of
 * the prompt; an equal id means an equal block with equal blocks before it).
 */
#ifndef MKV_BENCH_TRACE_H
#define MKV_BENCH_TRACE_H

#include <stddef.h>
#include <stdint.h>

#define MKV_TRACE_BLOCKS_MAX	65536u		/* of one request */

struct mkv_trace_request {
	uint64_t	at_us;			/* since the first request; those of one tick are spread over it */
	uint64_t	first;			/* its blocks are id[first .. first + n) */
	unsigned	n;
};

struct mkv_trace {
	struct mkv_trace_request *req;
	uint64_t	*id;
	uint64_t	n_req, n_ids, room_req, room_ids;
	uint64_t	distinct;		/* different ids */
	uint64_t	ceiling_hits;		/* prefix hits of a cache without limit */
};

/*
 * Read at most `limit` requests (0: all). A line that is no such object is refused with FILE:LINE in why.
 * Returns: 0; MKV_ERR_INVAL, MKV_ERR_NOMEM, MKV_ERR_SYSTEM (cannot be read). *t is to be freed in every case.
 */
int	mkv_trace_load(struct mkv_trace *t, const char *path, uint64_t limit, char *why, size_t why_bytes);
void	mkv_trace_free(struct mkv_trace *t);

#endif
