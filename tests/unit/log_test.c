/*
 * Log lines: their form, foreign bytes in them, limits of rate and length, and writers that cannot write.
 */
#include "config.h"
#include "common/base/log.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "common/base/err.h"
#include "tests/lib/rnd.h"

static int out[2];
static char said[65536];

static int
open_pipe(void **state)
{
	(void)state;
	if (pipe(out) != 0)
		return (-1);
	fcntl(out[0], F_SETFL, O_NONBLOCK);
	mkv_log_init(MKV_LOG_INFO);
	mkv_log_set_fd(out[1]);
	return (0);
}

static int
close_pipe(void **state)
{
	(void)state;
	mkv_log_set_fd(STDERR_FILENO);
	close(out[0]);
	close(out[1]);
	return (0);
}

/* Everything written since the last call. */
static const char *
written(void)
{
	ssize_t n = read(out[0], said, sizeof(said) - 1);

	said[n > 0 ? n : 0] = '\0';
	return (said);
}

static void
form_of_a_line(void **state)
{
	(void)state;
	errno = 77;
	mkv_log(MKV_EV_DRIVE_WRITE_FAILED, "drive=%s lba=%" PRIu64 " err=%s n=%d z=%zu x=%#x c=%c f=%.2f p=%5d%%", "nvme0", (uint64_t)12345678901,
	    mkv_err(MKV_E_NOSPACE), -5, (size_t)9, 255u, 'y', 1.5, 7);
	assert_int_equal(errno, 77);
	assert_string_equal(written(), "level=error event=drive_write_failed drive=nvme0 lba=12345678901 "
	    "err=\"no space left on any drive\" n=-5 z=9 x=0xff c=y f=1.50 p=    7%\n");
	mkv_log(MKV_EV_READY, "%s", "");
	assert_string_equal(written(), "level=info event=ready \n");
	mkv_log(MKV_EV_NOTE, "a=%.*s b=%.3s c=%hu d=%lld e=%jd", 2, "xyz", "abcdef", (unsigned short)65535, -1ll, (intmax_t)-2);
	assert_string_equal(written(), "level=info event=note a=xy b=abc c=65535 d=-1 e=-2\n");
}

static void
long_conversions(void **state)
{
	(void)state;
	mkv_log(MKV_EV_NOTE, "id=%016llx n=%-+12lld| z=%#018zx", 0xabcdef0123456789ull, -5ll, (size_t)255);
	assert_string_equal(written(), "level=info event=note id=abcdef0123456789 n=-5          | z=0x00000000000000ff\n");
	mkv_log(MKV_EV_NOTE, "n=%+*.*lld s=%s", 12, 3, 7ll, "after");
	assert_string_equal(written(), "level=info event=note n=        +007 s=after\n");
}

#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat"	/* what the compiler warns of is what is tested */

/* No log call ends a process: what is not understood is printed as it stands. */
static void
conversions_that_are_not_handled(void **state)
{
	(void)state;
	mkv_log(MKV_EV_NOTE, "a=%d b=%000000000000000000000000000000000000000007d c=%s", 1, 2, "x");
	assert_string_equal(written(), "level=info event=note a=1 b=%000000000000000000000000000000000000000007d c=%s\n");
	mkv_log(MKV_EV_NOTE, "a=%d b=%-+ #0*.*lld", 1, 99999, 99999, 5ll);
	assert_non_null(strstr(written(), "a=1 b=+0000000000000"));
	mkv_log(MKV_EV_NOTE, "a=%d b=%a c=%s", 1, 2.0, "x");
	assert_string_equal(written(), "level=info event=note a=1 b=%a c=%s\n");
	mkv_log(MKV_EV_NOTE, "a=%d b=%l", 1);
	assert_string_equal(written(), "level=info event=note a=1 b=%l\n");
}

#pragma GCC diagnostic pop

static void
foreign_strings(void **state)
{
	const char *volatile none = NULL;

	(void)state;
	mkv_log(MKV_EV_NOTE, "key=%s plain %s:%s", "a\nlevel=error event=\"x\\", "b\nc", "d\x7f");
	assert_string_equal(written(), "level=info event=note key=\"a\\nlevel=error event=\\\"x\\\\\" plain b?c:d?\n");
	mkv_log(MKV_EV_NOTE, "key=%s", none);
	assert_string_equal(written(), "level=info event=note key=-\n");
	mkv_log(MKV_EV_NOTE, "key=%s", "gr\xc3\xbc\xc3\x9f");
	assert_string_equal(written(), "level=info event=note key=gr\xc3\xbc\xc3\x9f\n");
}

static void
long_lines_are_cut(void **state)
{
	char big[9000];
	size_t n;

	(void)state;
	memset(big, 'b', sizeof(big) - 1);
	big[sizeof(big) - 1] = '\0';
	mkv_log(MKV_EV_NOTE, "a=%s b=%s", big, "after");
	n = strlen(written());
	assert_true(n > 1900 && n <= 2048);
	assert_int_equal(said[n - 1], '\n');
	memset(big, '"', sizeof(big) - 1);
	mkv_log(MKV_EV_NOTE, "a=%s", big);
	n = strlen(written());
	assert_true(n > 1900 && n <= 2048);
	assert_memory_equal(said + n - 2, "\"\n", 2);
}

static void
quoting(void **state)
{
	char dst[16];

	(void)state;
	assert_string_equal(mkv_log_quote(dst, sizeof(dst), "plain", 5), "plain");
	assert_string_equal(mkv_log_quote(dst, sizeof(dst), "", 0), "\"\"");
	assert_string_equal(mkv_log_quote(dst, sizeof(dst), "a=b", 3), "\"a=b\"");
	assert_string_equal(mkv_log_quote(dst, sizeof(dst), "\0\t", 2), "\"\\x00\\t\"");
	assert_string_equal(mkv_log_quote(dst, sizeof(dst), "0123456789abcdefgh", 18), "\"0123456789abc\"");
	assert_string_equal(mkv_log_quote(dst, sizeof(dst), "01234567890\n\nxx", 15), "\"01234567890\\n\"");
	assert_string_equal(mkv_log_quote(dst, 3, "xyz", 3), "\"\"");
}

/* Whatever comes in, what goes out is one value: no blanks, controls or quotes outside of escapes. */
static void
quoting_of_anything(void **state)
{
	char src[64], dst[80];
	struct rnd r;
	size_t n, room, end;

	(void)state;
	rnd_init(&r, 12);
	for (unsigned i = 0; i < 20000; i++) {
		n = rnd_below(&r, sizeof(src));
		rnd_fill(&r, src, n);
		room = 3 + rnd_below(&r, sizeof(dst) - 3);
		memset(dst, 'Z', sizeof(dst));
		mkv_log_quote(dst, room, src, n);
		end = strlen(dst);
		assert_true(end < room);
		for (size_t j = room; j < sizeof(dst); j++)
			assert_int_equal(dst[j], 'Z');
		if (dst[0] == '"') {
			assert_true(end >= 2 && dst[end - 1] == '"');
			for (size_t j = 1; j + 1 < end; j++) {
				assert_true((unsigned char)dst[j] >= ' ' && dst[j] != 127 && dst[j] != '"');
				j += dst[j] == '\\';
			}
		} else
			for (size_t j = 0; j < end; j++)
				assert_true((unsigned char)dst[j] > ' ' && dst[j] != '=' && dst[j] != '"');
	}
}

static void
levels(void **state)
{
	(void)state;
	mkv_log(MKV_EV_SESSION_OPEN, "n=%d", 1);
	assert_string_equal(written(), "");
	mkv_log_init(MKV_LOG_DEBUG);
	mkv_log(MKV_EV_SESSION_OPEN, "n=%d", 1);
	assert_string_equal(written(), "level=debug event=session_open n=1\n");
	mkv_log_init(MKV_LOG_ERROR);
	mkv_log(MKV_EV_CHILD_DIED, "n=%d", 1);
	assert_string_equal(written(), "");
	assert_string_equal(mkv_event_name(MKV_EV_CHILD_FATAL), "child_fatal");
}

static void
clients_cannot_flood(void **state)
{
	unsigned lines = 0;

	(void)state;
	for (unsigned i = 0; i < 1000; i++) {
		mkv_log(MKV_EV_AUTH_FAILED, "n=%u", i);
		lines += written()[0] != '\0';
	}
	assert_int_equal(lines, 60);
	for (unsigned i = 0; i < 100; i++)
		mkv_log(MKV_EV_DRAINED, "n=%u", i);	/* an event of ours is not limited */
	written();
	assert_non_null(strstr(said, "n=99\n"));
}

static void
what_was_lost_is_counted(void **state)
{
	(void)state;
	mkv_log_set_fd(-1);
	mkv_log(MKV_EV_STOP, "n=%d", 1);
	mkv_log(MKV_EV_STOP, "n=%d", 2);
	mkv_log_set_fd(out[1]);
	mkv_log(MKV_EV_STOP, "n=%d", 3);
	assert_string_equal(written(), "level=info event=stop held_back=2 n=3\n");
	mkv_log(MKV_EV_STOP, "n=%d", 4);
	assert_string_equal(written(), "level=info event=stop n=4\n");
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(form_of_a_line, open_pipe, close_pipe),
		cmocka_unit_test_setup_teardown(long_conversions, open_pipe, close_pipe),
		cmocka_unit_test_setup_teardown(conversions_that_are_not_handled, open_pipe, close_pipe),
		cmocka_unit_test_setup_teardown(foreign_strings, open_pipe, close_pipe),
		cmocka_unit_test_setup_teardown(long_lines_are_cut, open_pipe, close_pipe),
		cmocka_unit_test(quoting),
		cmocka_unit_test(quoting_of_anything),
		cmocka_unit_test_setup_teardown(levels, open_pipe, close_pipe),
		cmocka_unit_test_setup_teardown(clients_cannot_flood, open_pipe, close_pipe),
		cmocka_unit_test_setup_teardown(what_was_lost_is_counted, open_pipe, close_pipe),
	};

	return (cmocka_run_group_tests(tests, NULL, NULL));
}
