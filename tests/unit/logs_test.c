/*
 * Lines of the children: dressed as logfmt and JSON, whatever bytes they hold; last words; a flood is cut down; nothing is lost at the end.
 */
#include "config.h"
#include "supervisor/logs_priv.h"

#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>
#include <jansson.h>

#include "common/base/clock.h"
#include "common/base/err.h"
#include "tests/lib/rnd.h"

#define WALL	1700000000123ull

static char out[3 * LOGS_LINE_MAX];

static const char *
dress(int json, const char *line)
{
	size_t n = logs_format(out, sizeof(out), json, WALL, "drive:0", 77, line, strlen(line));

	assert_true(n > 0 && n < sizeof(out));
	assert_int_equal(out[n - 1], '\n');
	out[n - 1] = '\0';
	return (out);
}

static void
as_logfmt(void **state)
{
	(void)state;
	assert_string_equal(dress(0, "level=warn event=frame_bad key=value"),
	    "time=2023-11-14T22:13:20.123Z proc=drive:0 pid=77 level=warn event=frame_bad key=value");
	assert_string_equal(dress(0, "Aborted (core dumped)"),
	    "time=2023-11-14T22:13:20.123Z proc=drive:0 pid=77 level=info event=output text=\"Aborted (core dumped)\"");
	assert_string_equal(dress(0, "level=warn event=x a=\033[2J"),
	    "time=2023-11-14T22:13:20.123Z proc=drive:0 pid=77 level=warn event=x a=?[2J");
}

static void
as_json(void **state)
{
	(void)state;
	assert_string_equal(dress(1, "level=warn event=frame_bad why=\"a \\\"b\\\" \\\\ \\n\" n=3 bare"),
	    "{\"time\":\"2023-11-14T22:13:20.123Z\",\"proc\":\"drive:0\",\"pid\":77,\"level\":\"warn\",\"event\":\"frame_bad\","
	    "\"why\":\"a \\\"b\\\" \\\\ \\n\",\"n\":\"3\",\"bare\":\"\"}");
	assert_non_null(strstr(dress(1, "some words"), "\"event\":\"output\",\"text\":\"some words\"}"));
	assert_non_null(strstr(dress(1, "level=info event=x a=\xff\xfe"), "\"a\":\"??\""));
	assert_non_null(strstr(dress(1, "level=info event=x a=\xc3\xa4"), "\"a\":\"\xc3\xa4\""));
}

/* One line in, one line out, and in JSON one that a parser takes. */
static void
any_bytes(void **state)
{
	char line[LOGS_LINE_MAX];
	struct rnd r;
	size_t n, m;

	(void)state;
	rnd_init(&r, 3);
	for (int i = 0; i < 20000; i++) {
		n = rnd_below(&r, 300);
		rnd_fill(&r, line, n);
		if (i % 2 == 0)
			n = (size_t)snprintf(line, sizeof(line), "level=info event=%c%c%c %c=\"%c\\%c", line[0], line[1], line[2], line[3], line[4],
			    line[5]);
		for (int json = 0; json < 2; json++) {
			m = logs_format(out, sizeof(out), json, WALL, "drive:0", 77, line, n);
			assert_true(m > 0 && m <= sizeof(out));
			assert_ptr_equal(memchr(out, '\n', m), out + m - 1);
			if (json) {
				json_t *j = json_loadb(out, m, 0, NULL);

				assert_non_null(j);
				json_decref(j);
			}
		}
	}
}

struct source {
	uv_loop_t	loop;
	struct logs_src	src;
	struct logs_out	to;
	struct logs_words words;
	int		in, sink;		/* ends that the test holds */
};

static void
source_open(struct source *s)
{
	int in[2], sink[2];

	memset(s, 0, sizeof(*s));
	assert_int_equal(uv_loop_init(&s->loop), 0);
	assert_int_equal(pipe2(in, O_CLOEXEC | O_NONBLOCK), 0);
	assert_int_equal(pipe2(sink, O_CLOEXEC | O_NONBLOCK), 0);
	s->to.fd = sink[1];
	s->to.own = 1;
	s->sink = sink[0];
	s->in = in[1];
	assert_int_equal(logs_open(&s->src, &s->loop, in[0], &s->to, &s->words, "front:tcp:0", 5), 0);
}

static void
source_close(struct source *s)
{
	logs_close(&s->src);
	logs_out_close(&s->to);
	(void)uv_run(&s->loop, UV_RUN_DEFAULT);
	assert_int_equal(uv_loop_close(&s->loop), 0);
	close(s->in);
	close(s->sink);
}

static void
say(struct source *s, const char *text)
{
	assert_int_equal(write(s->in, text, strlen(text)), strlen(text));
	(void)uv_run(&s->loop, UV_RUN_NOWAIT);
}

static size_t
heard(struct source *s)
{
	ssize_t n = read(s->sink, out, sizeof(out) - 1);

	out[n > 0 ? n : 0] = '\0';
	return (n > 0 ? (size_t)n : 0);
}

static void
lines_in_pieces(void **state)
{
	struct source s;

	(void)state;
	source_open(&s);
	say(&s, "level=info ev");
	assert_int_equal(heard(&s), 0);
	say(&s, "ent=x\nlevel=info event=y\n\nthird");
	assert_true(heard(&s) > 0);
	assert_non_null(strstr(out, "event=x\n"));
	assert_non_null(strstr(out, "event=y\n"));
	assert_null(strstr(out, "third"));
	/* What has no newline yet is heard at the end, also what is still in the pipe. */
	assert_int_equal(write(s.in, " and more", 9), 9);
	logs_close(&s.src);
	assert_true(heard(&s) > 0);
	assert_non_null(strstr(out, "third and more"));
	assert_string_equal(logs_word(&s.words, 2), "third and more");
	assert_null(logs_word(&s.words, 3));
	source_close(&s);
}

static void
last_words(void **state)
{
	struct source s;
	char line[32];

	(void)state;
	source_open(&s);
	for (unsigned i = 0; i < LOGS_WORDS + 5; i++) {
		snprintf(line, sizeof(line), "line %u\n", i);
		say(&s, line);
	}
	assert_string_equal(logs_word(&s.words, 0), "line 5");
	assert_string_equal(logs_word(&s.words, LOGS_WORDS - 1), "line 24");
	assert_null(logs_word(&s.words, LOGS_WORDS));
	source_close(&s);
}

static void
an_endless_line(void **state)
{
	static char text[3 * LOGS_LINE_MAX];
	struct source s;

	(void)state;
	source_open(&s);
	memset(text, 'x', sizeof(text) - 1);
	say(&s, text);
	logs_close(&s.src);
	assert_int_equal(s.words.count, 3);
	source_close(&s);
}

/* More than the burst is dropped, counted and said; a reader that does not read costs lines, no time. */
static void
flood_and_deaf_reader(void **state)
{
	struct source s;

	(void)state;
	source_open(&s);
	for (unsigned i = 0; i < LOGS_BURST + 3000; i++)
		say(&s, "level=info event=flood\n");
	assert_true(s.src.dropped > 0);
	assert_true(s.to.lost > 0);
	source_close(&s);
}

/* A flood that ends with a dropped line, and then silence: how many were dropped is said all the same. */
static void
dropped_is_told_in_silence(void **state)
{
	uint64_t end = mkv_now_ns() + 20 * MKV_NS_PER_SEC;
	struct source s;

	(void)state;
	source_open(&s);
	for (unsigned i = 0; i < 1000 && s.src.dropped == 0; i++) {
		s.src.tokens = 0;
		s.src.refilled_ms = mkv_now_ns() / MKV_NS_PER_MS;
		say(&s, "level=info event=flood\n");	/* in less than 2 ms, or once more */
	}
	assert_int_equal(s.src.dropped, 1);
	for (out[0] = '\0'; strstr(out, "event=log_dropped lines=1\n") == NULL; (void)heard(&s)) {
		assert_true(mkv_now_ns() < end);
		usleep(10000);
		(void)uv_run(&s.loop, UV_RUN_NOWAIT);
	}
	assert_int_equal(s.src.dropped, 0);
	source_close(&s);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(as_logfmt),
		cmocka_unit_test(as_json),
		cmocka_unit_test(any_bytes),
		cmocka_unit_test(lines_in_pieces),
		cmocka_unit_test(last_words),
		cmocka_unit_test(an_endless_line),
		cmocka_unit_test(flood_and_deaf_reader),
		cmocka_unit_test(dropped_is_told_in_silence),
	};

	return (cmocka_run_group_tests(tests, NULL, NULL));
}
