/*
 * The supervisor's end of a control socket: order, descriptors, what waits when the other end does not read, nonsense from the other end; and the
 * table of what a child may say.
 */
#include "config.h"
#include "supervisor/control_priv.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <fcntl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "common/base/err.h"
#include "common/base/os.h"
#include "tests/lib/rnd.h"

static uv_loop_t loop;
static struct ctl c;
static int far_end;
static unsigned got, ends, passed;
static int last_body;
static const char *end_why;

static int
on_msg(void *arg, const Mkv__Ctl__Control *m, int fd)
{
	(void)arg;
	got++;
	passed += fd != -1;
	last_body = (int)m->body_case;
	return (0);
}

static void
on_end(void *arg, const char *why)
{
	(void)arg;
	ends++;
	end_why = why;
	ctl_close(&c);
}

static int
fresh(void **state)
{
	int fds[2];

	(void)state;
	assert_int_equal(uv_loop_init(&loop), 0);
	assert_int_equal(mkv_os_ctl_pair(fds), 0);
	far_end = fds[1];
	got = ends = passed = 0;
	assert_int_equal(ctl_open(&c, &loop, fds[0], on_msg, on_end, NULL), 0);
	return (0);
}

static int
clean(void **state)
{
	(void)state;
	ctl_close(&c);
	ctl_close(&c);
	(void)uv_run(&loop, UV_RUN_DEFAULT);
	assert_int_equal(uv_loop_close(&loop), 0);
	if (far_end != -1)
		close(far_end);
	return (0);
}

static int
ping(uint64_t nonce, const int *fds, unsigned n_fds)
{
	Mkv__Ctl__Ping body = MKV__CTL__PING__INIT;
	Mkv__Ctl__Control m = MKV__CTL__CONTROL__INIT;

	m.body_case = MKV__CTL__CONTROL__BODY_PING;
	m.ping = &body;
	body.nonce = nonce;
	return (ctl_send(&c, &m, fds, n_fds));
}

/* The next message at the far end: its nonce, and how many descriptors came; -1 when there is none. */
static int64_t
read_ping(unsigned *n_fds)
{
	uint8_t buf[1024];
	int fds[8];
	int64_t nonce;
	ssize_t n;

	*n_fds = 8;
	n = mkv_os_ctl_recv(far_end, buf, sizeof(buf), fds, n_fds);
	if (n == MKV_E_AGAIN)
		return (-1);
	Mkv__Ctl__Control *m = mkv__ctl__control__unpack(NULL, (size_t)n, buf);

	assert_non_null(m);
	nonce = (int64_t)m->ping->nonce;
	mkv__ctl__control__free_unpacked(m, NULL);
	for (unsigned i = 0; i < *n_fds; i++)
		close(fds[i]);
	return (nonce);
}

static void
what_does_not_fit_waits_in_order(void **state)
{
	int fds[2] = { 0, 1 }, sent = 0, r = 0, seen = 0;
	unsigned n_fds;
	int64_t nonce;

	(void)state;
	while ((r = ping((uint64_t)sent, fds, (unsigned)sent % 3)) == 0)
		sent++;
	assert_int_equal(r, MKV_E_BUSY);
	assert_int_equal(c.queue_count, CTL_QUEUE_MAX);
	for (int idle = 0; idle < 3;) {
		if ((nonce = read_ping(&n_fds)) == -1) {
			(void)uv_run(&loop, UV_RUN_NOWAIT);
			idle++;
			continue;
		}
		assert_int_equal(nonce, seen);
		assert_int_equal(n_fds, seen % 3);
		seen++;
		idle = 0;
	}
	assert_int_equal(seen, sent);
	assert_int_equal(c.queue_count, 0);
	assert_int_equal(ends, 0);
}

static void
what_waits_is_given_back_at_the_end(void **state)
{
	int fds[1] = { 1 };

	(void)state;
	while (ping(1, fds, 1) == 0)
		continue;
	ctl_close(&c);				/* the leak checker and the count of descriptors tell */
	assert_int_equal(ping(1, NULL, 0), MKV_E_CLOSED);
}

static void
the_far_end_closes(void **state)
{
	(void)state;
	close(far_end);
	far_end = -1;
	(void)uv_run(&loop, UV_RUN_NOWAIT);
	assert_int_equal(ends, 1);
	assert_null(end_why);
}

/* Its last words come before its end, also when it left messages of ours unread. */
static void
last_words_are_heard(void **state)
{
	Mkv__Ctl__Fail body = MKV__CTL__FAIL__INIT;
	Mkv__Ctl__Control m = MKV__CTL__CONTROL__INIT;
	uint8_t buf[256];

	(void)state;
	assert_int_equal(ping(1, NULL, 0), 0);
	m.body_case = MKV__CTL__CONTROL__BODY_FAIL;
	m.fail = &body;
	assert_int_equal(mkv_os_ctl_send(far_end, buf, mkv__ctl__control__pack(&m, buf), NULL, 0), 0);
	close(far_end);
	far_end = -1;
	ctl_drain(&c);
	assert_int_equal(got, 1);
	assert_int_equal(last_body, MKV__CTL__CONTROL__BODY_FAIL);
	assert_int_equal(ends, 1);
}

static void
nonsense_ends_it(void **state)
{
	(void)state;
	assert_int_equal(send(far_end, "\xff\xff\xff\xff", 4, 0), 4);
	(void)uv_run(&loop, UV_RUN_NOWAIT);
	assert_int_equal(ends, 1);
	assert_non_null(end_why);
}

static void
descriptors_end_it(void **state)
{
	int fds[1] = { 1 };

	(void)state;
	assert_int_equal(mkv_os_ctl_send(far_end, "x", 1, fds, 1), 0);
	(void)uv_run(&loop, UV_RUN_NOWAIT);
	assert_int_equal(ends, 1);
	assert_non_null(end_why);
	assert_int_equal(got, 0);
}

static unsigned
open_files(void)
{
	unsigned n = 0;

	for (int fd = 0; fd < 1024; fd++)
		n += fcntl(fd, F_GETFD) != -1;
	return (n);
}

/* Where one may come it is shown with its message, and closed; two are too many. */
static void
one_descriptor_where_it_may_be(void **state)
{
	Mkv__Ctl__Pong body = MKV__CTL__PONG__INIT;
	Mkv__Ctl__Control m = MKV__CTL__CONTROL__INIT;
	int fds[2] = { 1, 1 };
	uint8_t buf[64];
	size_t n;
	unsigned before = open_files();

	(void)state;
	c.may_pass = 1;
	m.body_case = MKV__CTL__CONTROL__BODY_PONG;
	m.pong = &body;
	n = mkv__ctl__control__pack(&m, buf);
	for (unsigned i = 0; i < 3; i++) {
		assert_int_equal(mkv_os_ctl_send(far_end, buf, n, fds, i), 0);
		(void)uv_run(&loop, UV_RUN_NOWAIT);
		assert_int_equal(got, i < 2 ? i + 1 : 2);
		assert_int_equal(passed, i > 0);
	}
	assert_int_equal(ends, 1);
	assert_int_equal(open_files(), before - 1);	/* our end of the pair */
}

static void
any_bytes(void **state)
{
	uint8_t buf[128];
	struct rnd r;

	(void)state;
	rnd_init(&r, 11);
	for (int i = 0; i < 3000; i++) {
		uint32_t n = 1 + rnd_below(&r, sizeof(buf) - 1);

		rnd_fill(&r, buf, n);
		assert_int_equal(send(far_end, buf, n, 0), n);
		(void)uv_run(&loop, UV_RUN_NOWAIT);
		if (ends == 0)
			continue;
		clean(NULL);
		fresh(NULL);
	}
}

static void
who_may_say_what_when(void **state)
{
	static const struct {
		int		body;
		const char	*front, *drive;		/* phases N S R P (stopping) */
	} want[] = {
		{ MKV__CTL__CONTROL__BODY_HELLO, "N", "N" },
		{ MKV__CTL__CONTROL__BODY_DRAINED, "", "SRP" },
		{ MKV__CTL__CONTROL__BODY_READY, "SP", "SP" },
		{ MKV__CTL__CONTROL__BODY_STATE, "SRP", "SRP" },
		{ MKV__CTL__CONTROL__BODY_PONG, "SRP", "SRP" },
		{ MKV__CTL__CONTROL__BODY_STOPPED, "P", "P" },
		{ MKV__CTL__CONTROL__BODY_FAIL, "NSRP", "NSRP" },
		{ MKV__CTL__CONTROL__BODY_REGION, "", "" },
		{ MKV__CTL__CONTROL__BODY_REGION_DONE, "", "SRP" },
		{ MKV__CTL__CONTROL__BODY_CONFIGURE, "", "" },
		{ MKV__CTL__CONTROL__BODY_KEY, "", "" },
		{ MKV__CTL__CONTROL__BODY_PEER_DRAINED, "", "" },
		{ MKV__CTL__CONTROL__BODY__NOT_SET, "", "" },
		{ 9999, "", "" },
	};
	static const struct {
		enum ctl_phase	phase;
		char		letter;
	} phase[] = { { CTL_NEW, 'N' }, { CTL_STARTING, 'S' }, { CTL_RUNNING, 'R' }, { CTL_STOPPING, 'P' } };

	(void)state;
	for (size_t i = 0; i < sizeof(want) / sizeof(want[0]); i++)
		for (size_t k = 0; k < 4; k++) {
			assert_int_equal(ctl_allowed(want[i].body, CTL_FRONT, phase[k].phase), strchr(want[i].front, phase[k].letter) != NULL);
			assert_int_equal(ctl_allowed(want[i].body, CTL_DRIVE, phase[k].phase), strchr(want[i].drive, phase[k].letter) != NULL);
		}
	for (size_t k = 0; k < 4; k++)
		assert_int_equal(ctl_allowed(MKV__CTL__CONTROL__BODY_REGION, CTL_FRONT | CTL_LOCAL, phase[k].phase), strchr("RP", phase[k].letter) != NULL);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(what_does_not_fit_waits_in_order, fresh, clean),
		cmocka_unit_test_setup_teardown(what_waits_is_given_back_at_the_end, fresh, clean),
		cmocka_unit_test_setup_teardown(the_far_end_closes, fresh, clean),
		cmocka_unit_test_setup_teardown(last_words_are_heard, fresh, clean),
		cmocka_unit_test_setup_teardown(nonsense_ends_it, fresh, clean),
		cmocka_unit_test_setup_teardown(descriptors_end_it, fresh, clean),
		cmocka_unit_test_setup_teardown(one_descriptor_where_it_may_be, fresh, clean),
		cmocka_unit_test_setup_teardown(any_bytes, fresh, clean),
		cmocka_unit_test(who_may_say_what_when),
	};

	return (cmocka_run_group_tests(tests, NULL, NULL));
}
