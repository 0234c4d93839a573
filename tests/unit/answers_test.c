/*
 * Answers that are kept for requests that come twice: what is known of a number, against everything that was said of it; the bounds of memory.
 */
#include "config.h"
#include "worker/front/answers.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "tests/lib/rnd.h"

static struct mkv_answer_pool pool;
static struct mkv_answers a;

static void
start(uint32_t n)
{
	assert_int_equal(mkv_answer_pool_open(&pool, n), 0);
	mkv_answers_init(&a);
}

static void
end(void)
{
	mkv_answers_fini(&a, &pool);
	assert_int_equal(a.n, 0);
	mkv_answer_pool_close(&pool);
}

static void
keep(uint64_t id, uint32_t body_bytes)
{
	struct mkv_hdr h = { .request_id = id, .body_bytes = body_bytes, .status = (uint16_t)id };
	uint8_t body[1024];

	memset(body, (int)id, sizeof(body));
	mkv_answers_keep(&a, &pool, id, &h, body);
}

static enum mkv_seen
look(uint64_t id)
{
	const struct mkv_answer *w;
	enum mkv_seen s = mkv_answers_look(&a, id, &w);

	assert_true((w != NULL && w->id == id) == (w != NULL));
	if (s == MKV_SEEN_DONE) {
		assert_int_equal(w->h.status, (uint16_t)id);
		if (w->h.body_bytes != 0)
			assert_int_equal(w->body[w->h.body_bytes - 1], (uint8_t)id);
	}
	return (s);
}

static void
answers_of_one_session(void **state)
{
	(void)state;
	start(200);
	assert_int_equal(look(256), MKV_SEEN_NEW);
	keep(256, 48);
	keep(512, 0);
	assert_int_equal(look(256), MKV_SEEN_DONE);
	assert_int_equal(look(512), MKV_SEEN_DONE);
	assert_int_equal(look(257), MKV_SEEN_NEW);		/* slower than the others, and still on its way */
	keep(768, 600);						/* too long: known to be done, no more */
	assert_int_equal(look(768), MKV_SEEN_FORGOTTEN);
	mkv_answers_keep(&a, &pool, 1024, NULL, NULL);
	assert_int_equal(look(1024), MKV_SEEN_FORGOTTEN);
	mkv_answers_ack(&a, &pool, 1024, 512);
	assert_int_equal(look(256), MKV_SEEN_ACKED);
	assert_int_equal(look(257), MKV_SEEN_ACKED);
	assert_int_equal(look(512), MKV_SEEN_DONE);
	mkv_answers_ack(&a, &pool, 1025, 300);			/* of a message that was overtaken */
	assert_int_equal(look(400), MKV_SEEN_ACKED);
	keep(300, 0);
	assert_int_equal(a.n, 3);				/* what was acknowledged is not kept */
	end();
}

/* Of 64 the oldest goes, and nothing that is not above it is new any more. */
static void
answers_are_forgotten(void **state)
{
	(void)state;
	start(200);
	for (uint64_t id = 1; id <= MKV_ANSWERS_MAX + 10; id++)
		keep(1000 + 2 * id, 48);
	assert_int_equal(a.n, MKV_ANSWERS_MAX);
	assert_int_equal(look(1002), MKV_SEEN_FORGOTTEN);
	assert_int_equal(look(1020), MKV_SEEN_FORGOTTEN);
	assert_int_equal(look(1019), MKV_SEEN_FORGOTTEN);	/* never seen, but who can tell */
	assert_int_equal(look(1021), MKV_SEEN_NEW);
	assert_int_equal(look(1022), MKV_SEEN_DONE);
	end();
	start(3);						/* the memory of all sessions is used up */
	for (uint64_t id = 1; id <= 5; id++)
		keep(id, 48);
	assert_int_equal(look(3), MKV_SEEN_DONE);
	assert_int_equal(look(5), MKV_SEEN_FORGOTTEN);
	mkv_answers_ack(&a, &pool, 6, 6);
	keep(7, 48);
	assert_int_equal(look(7), MKV_SEEN_DONE);
	end();
}

/* The low halves of the numbers come around. */
static void
answers_around_the_corner(void **state)
{
	const uint64_t corner = 1ull << 32;

	(void)state;
	start(200);
	for (uint64_t id = corner - 5; id < corner + 5; id++)
		keep(id, 48);
	mkv_answers_ack(&a, &pool, corner + 5, (uint32_t)(corner - 2));
	assert_int_equal(look(corner - 3), MKV_SEEN_ACKED);
	assert_int_equal(look(corner - 2), MKV_SEEN_DONE);
	assert_int_equal(look(corner + 4), MKV_SEEN_DONE);
	mkv_answers_ack(&a, &pool, corner + 5, (uint32_t)(corner + 2));
	assert_int_equal(look(corner - 1), MKV_SEEN_ACKED);
	assert_int_equal(look(corner + 1), MKV_SEEN_ACKED);
	assert_int_equal(look(corner + 2), MKV_SEEN_DONE);
	assert_int_equal(look(corner + 100), MKV_SEEN_NEW);
	end();
}

/* Most requests of a session may go by its tether, and tell nothing: a number that is further away than a half can count is new all the same. */
static void
answers_after_a_long_time(void **state)
{
	(void)state;
	start(200);
	keep(256, 48);
	mkv_answers_ack(&a, &pool, 512, 512);
	for (uint64_t id = 512, far = 3ull << 30; id < far * 5; id += far) {
		mkv_answers_ack(&a, &pool, id + 256, (uint32_t)id);
		assert_int_equal(look(id + 256), MKV_SEEN_NEW);
		keep(id + 256, 48);
		assert_int_equal(look(id + 256), MKV_SEEN_DONE);
		assert_int_equal(look(id - 256), MKV_SEEN_ACKED);
	}
	mkv_answers_ack(&a, &pool, 5, 7000);			/* what nobody means */
	mkv_answers_ack(&a, &pool, 5, UINT32_MAX - 7000);
	end();
}

/* Whatever happens: what was done once is never new again. */
static void
answers_by_chance(void **state)
{
	static uint8_t done[20000];
	struct rnd r;

	(void)state;
	rnd_init(&r, 5);
	start(300);
	for (unsigned at = 100; at + 200 < sizeof(done); at += rnd_below(&r, 3)) {
		uint64_t id = at + rnd_below(&r, 100) - rnd_below(&r, 90);

		if (look(id) == MKV_SEEN_NEW) {
			assert_int_equal(done[id], 0);
			done[id] = 1;
			keep(id, 8 * rnd_below(&r, 70));
		}
		if (rnd_below(&r, 20) == 0)
			mkv_answers_ack(&a, &pool, at, (uint32_t)(at - rnd_below(&r, 100)));
		assert_true(a.n <= MKV_ANSWERS_MAX);
	}
	end();
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(answers_of_one_session), cmocka_unit_test(answers_are_forgotten), cmocka_unit_test(answers_around_the_corner), cmocka_unit_test(answers_after_a_long_time),
		cmocka_unit_test(answers_by_chance),
	};

	return (cmocka_run_group_tests(tests, NULL, NULL));
}
