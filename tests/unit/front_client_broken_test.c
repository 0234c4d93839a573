/*
 * libmemkv and a front whose channel breaks under a get: messages go by RDMA, so the client has nothing out that would tell it. It is told, and need not ask.
 */
#include "config.h"

#include "tests/unit/front_both_client.h"

#include <pthread.h>

struct getter {
	pthread_t	thread;
	struct mkv_client *c;
	uint8_t		*to;
	int64_t		got;
};

static void *
get(void *arg)
{
	struct getter *g = arg;

	g->got = mkv_get(g->c, K("key"), g->to, VALUE, 20 * SEC, NULL);
	return (NULL);
}

/* Of what waits the last was posted by the front: it has begun to write, or to read. Its queue pair fails. */
static void
break_the_fronts(void)
{
	struct fv_wr w[FV_LOG];

	for (unsigned i = 0; i < 20000 && fv_held() < 1; i++)
		(void)usleep(100);
	(void)fv_step(1);				/* the request */
	for (unsigned i = 0; i < 20000 && fv_held() < 2; i++)
		(void)usleep(100);
	assert_true(fv_held() >= 2);
	fv_qp_break(w[fv_log(w, FV_LOG) - 1].qpn);
	fv_hold(0);
}

/* By DC with one initiator: nobody is left to say by RDMA what became of the get. By RC nobody ever is. */
static void
a_get_is_asked_again_at_once(void **state)
{
	(void)state;
	for (uint32_t dcis = 0; dcis <= 1; dcis++) {
		struct both *b = both_open(dcis);
		struct getter g = { .c = both_client(b, "rdma", NULL, NULL), .to = calloc(1, VALUE) };
		uint8_t *value = calloc(1, VALUE);

		both_fill(value, VALUE, 7);
		assert_int_equal(mkv_put(g.c, K("key"), value, VALUE, NULL, 20 * SEC, NULL), 0);
		fv_hold(1);
		assert_int_equal(pthread_create(&g.thread, NULL, get, &g), 0);
		break_the_fronts();
		pthread_join(g.thread, NULL);
		assert_int_equal(g.got, VALUE);
		assert_memory_equal(g.to, value, VALUE);
		assert_int_equal(both_count(b, MKV_M_front_channels_broken_total), 1);
		assert_int_equal(both_count(b, MKV_M_front_channels_opened_total), 2);
		/* It has not asked: by DC that is a message of no channel. */
		assert_int_equal(both_count(b, MKV_M_front_messages_unknown_total), 0);
		mkv_client_close(g.c);
		both_close(b);
		free(g.to);
		free(value);
	}
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_get_is_asked_again_at_once),
	};

	return (cmocka_run_group_tests(tests, NULL, NULL));
}
