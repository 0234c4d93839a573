/*
 * Traces: what is read, what is refused and where, how ticks are spread, what can be known before a run.
 */
#include "config.h"
#include "bench/trace.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>
#include <memkv/memkv.h>

#include "common/base/assert.h"

static char	trace_path[64];

static int
load(const char *text, uint64_t limit, struct mkv_trace *t, char why[256])
{
	FILE *f = fopen(trace_path, "w");

	assert_non_null(f);
	fputs(text, f);
	assert_int_equal(fclose(f), 0);
	why[0] = '\0';
	return (mkv_trace_load(t, trace_path, limit, why, 256));
}

static void
requests_are_read(void **state)
{
	struct mkv_trace t;
	char why[256];

	(void)state;
	assert_int_equal(load("{\"timestamp\": 0, \"input_length\": 1024, \"hash_ids\": [7, 8]}\n\n"
	    "{\"timestamp\": 27, \"hash_ids\": [7, 8, 9], \"other\": {\"x\": 1}}", 0, &t, why), 0);
	assert_int_equal(t.n_req, 2);
	assert_int_equal(t.n_ids, 5);
	assert_int_equal(t.req[1].first, 2);
	assert_int_equal(t.req[1].n, 3);
	assert_int_equal(t.id[4], 9);
	assert_int_equal(t.distinct, 3);
	assert_int_equal(t.ceiling_hits, 2);
	mkv_trace_free(&t);
	assert_int_equal(load("{\"timestamp\": 5, \"hash_ids\": [1]}\n{\"timestamp\": 6, \"hash_ids\": [2]}\n", 1, &t, why), 0);
	assert_int_equal(t.n_req, 1);
	assert_int_equal(t.req[0].at_us, 0);
	mkv_trace_free(&t);
}

static void
a_hit_needs_all_before_it(void **state)
{
	struct mkv_trace t;
	char why[256];

	(void)state;
	assert_int_equal(load("{\"timestamp\": 0, \"hash_ids\": [1, 2, 3]}\n{\"timestamp\": 0, \"hash_ids\": [9, 2, 3]}\n"
	    "{\"timestamp\": 0, \"hash_ids\": [1, 2, 4, 3]}\n", 0, &t, why), 0);
	assert_int_equal(t.distinct, 5);
	assert_int_equal(t.ceiling_hits, 2);		/* only 1, 2 of the third */
	mkv_trace_free(&t);
}

static void
ticks_are_spread(void **state)
{
	struct mkv_trace t;
	char why[256];

	(void)state;
	assert_int_equal(load("{\"timestamp\": 3000, \"hash_ids\": [1]}\n{\"timestamp\": 3000, \"hash_ids\": [2]}\n"
	    "{\"timestamp\": 3000, \"hash_ids\": [3]}\n{\"timestamp\": 6000, \"hash_ids\": [4]}\n"
	    "{\"timestamp\": 60000, \"hash_ids\": [5]}\n{\"timestamp\": 60000, \"hash_ids\": [6]}\n", 0, &t, why), 0);
	assert_int_equal(t.req[0].at_us, 0);
	assert_int_equal(t.req[1].at_us, 1000000);
	assert_int_equal(t.req[2].at_us, 2000000);
	assert_int_equal(t.req[3].at_us, 3000000);
	assert_int_equal(t.req[4].at_us, 57000000);
	assert_int_equal(t.req[5].at_us, 58500000);	/* the last tick is taken to last 3 s */
	mkv_trace_free(&t);
}

static void
wrong_lines_are_refused_with_their_number(void **state)
{
	static const char *const bad[] = {
		"{\"timestamp\": 1, \"hash_ids\": []}", "{\"timestamp\": -1, \"hash_ids\": [1]}", "{\"timestamp\": \"1\", \"hash_ids\": [1]}",
		"{\"timestamp\": 1}", "{\"hash_ids\": [1]}", "{\"timestamp\": 1, \"hash_ids\": [1, -2]}", "{\"timestamp\": 1, \"hash_ids\": [1.5]}",
		"{\"timestamp\": 1, \"hash_ids\": [\"1\"]}", "{\"timestamp\": 1, \"hash_ids\": 1}", "[1]", "nonsense", "{\"timestamp\": 1",
		"{\"timestamp\": 1e300, \"hash_ids\": [1]}", "{\"timestamp\": 0, \"hash_ids\": [1]}",
	};
	struct mkv_trace t;
	char text[256], why[256], line[80];

	(void)state;
	for (size_t i = 0; i < MKV_ARRAY_LEN(bad); i++) {
		snprintf(text, sizeof(text), "{\"timestamp\": 1, \"hash_ids\": [1]}\n%s\n", bad[i]);
		assert_int_equal(load(text, 0, &t, why), MKV_ERR_INVAL);
		snprintf(line, sizeof(line), "%s:2: ", trace_path);
		assert_memory_equal(why, line, strlen(line));
		mkv_trace_free(&t);
	}
	assert_int_equal(load("\n", 0, &t, why), MKV_ERR_INVAL);
	mkv_trace_free(&t);
	assert_int_equal(mkv_trace_load(&t, "/nonexistent/trace", 0, why, sizeof(why)), MKV_ERR_SYSTEM);
	assert_int_equal(mkv_trace_load(&t, "/", 0, why, sizeof(why)), MKV_ERR_SYSTEM);
	assert_string_equal(why, "/: Is a directory");
	mkv_trace_free(&t);
}

/* What tests/data/README.md says of the sample. */
static void
the_sample_is_what_it_says(void **state)
{
	const char *dir = getenv("srcdir");
	char path[4096], why[256];
	struct mkv_trace t;

	(void)state;
	snprintf(path, sizeof(path), "%s/../data/mooncake_conversation_sample.jsonl", dir != NULL ? dir : ".");
	if (access(path, R_OK) != 0)
		skip();
	assert_int_equal(mkv_trace_load(&t, path, 0, why, sizeof(why)), 0);
	assert_int_equal(t.n_req, 400);
	assert_int_equal(t.n_ids, 11349);
	assert_int_equal(t.distinct, 9821);
	assert_int_equal(t.ceiling_hits, 1528);
	mkv_trace_free(&t);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(requests_are_read), cmocka_unit_test(a_hit_needs_all_before_it), cmocka_unit_test(ticks_are_spread),
		cmocka_unit_test(wrong_lines_are_refused_with_their_number), cmocka_unit_test(the_sample_is_what_it_says),
	};
	int r, fd;

	snprintf(trace_path, sizeof(trace_path), "/tmp/memkv-trace-XXXXXX");
	if ((fd = mkstemp(trace_path)) < 0)
		return (1);
	close(fd);
	r = cmocka_run_group_tests(tests, NULL, NULL);
	unlink(trace_path);
	return (r);
}
