/*
 * Many blocks in flight from one thread: put 64 of them, collect the completions as they come, beside whatever else the poll loop does.
 * Build: cc async.c $(pkg-config --cflags --libs memkv)
 */
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>

#include <memkv/memkv.h>

#define BLOCKS		64
#define BLOCK_BYTES	(1u << 20)

static int
submit_all(struct mkv_client *c, char *blocks)
{
	char name[32];
	int r = 0;

	for (int i = 0; i < BLOCKS && r == 0; i++) {
		struct mkv_key key = { name, (size_t)snprintf(name, sizeof(name), "block-%d", i) };
		struct iovec iov = { blocks + (size_t)i * BLOCK_BYTES, BLOCK_BYTES };
		struct mkv_request rq = { .size = sizeof(rq), .op = MKV_OP_PUT, .keys = &key, .n_keys = 1, .iov = &iov, .n_iov = 1,
			.deadline_us = 10 * 1000000 };

		r = mkv_submit(c, &rq, NULL);		/* key and iov are copied; the block stays ours to leave alone */
	}
	return (r);
}

int
main(void)
{
	struct mkv_completion done[16] = { { .size = sizeof(done[0]) } };
	char *blocks = calloc(BLOCKS, BLOCK_BYTES), why[256];
	int collected = 0, failed = 0, n;
	struct mkv_client *c;
	struct pollfd pf;

	if (blocks == NULL || mkv_client_open(&c, NULL, why, sizeof(why)) != 0)
		return (2);
	pf = (struct pollfd){ .fd = mkv_event_fd(c), .events = POLLIN };
	if (submit_all(c, blocks) != 0)
		return (1);
	while (collected < BLOCKS && poll(&pf, 1, -1) > 0) {
		n = mkv_drain(c, done, 16);
		for (int i = 0; i < n; i++)
			failed += done[i].result != 0;
		collected += n;
	}
	(void)printf("%d put, %d failed\n", collected - failed, failed);
	mkv_client_close(c);
	free(blocks);
	return (failed > 0);
}
