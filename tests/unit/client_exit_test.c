/*
 * Programs that call exit() while threads of ours are at work: each is a process of its own, made before this one has any thread, and it ends with the status
 * that it gave. Nobody closed anything before.
 */
#include "config.h"

#include "tests/unit/client_fix.h"

#include <pthread.h>
#include <sys/wait.h>

#include "common/base/auth.h"

#define ROUNDS	24u
#define THREADS	3u
#define STATUS	7
#define BYTES	(128u * 1024)

struct program {
	pid_t	pid;
	int	go;			/* a port is written there, and it begins */
};

static struct program programs[ROUNDS];

/* ---- what they do ---- */

/*
 * Until OpenSSL is not to be had any more. It does not return, as no thread of the library does then: what OpenSSL keeps for a thread is freed when that ends, and
 * OpenSSL's own end frees it too.
 */
static void *
sign_for_ever(void *arg)
{
	uint8_t key[MKV_KEY_BYTES] = { 1 }, out[MKV_MAC_BYTES];
	struct mkv_mac *m;

	while (mkv_mac_create(&m, key) == 0) {
		for (int i = 0; i < 16; i++)
			(void)mkv_mac_sign(m, key, sizeof(key), NULL, 0, out);
		(void)mkv_hkdf(key, sizeof(key), NULL, 0, "info", 4, out, sizeof(out));
		(void)mkv_sha256(key, sizeof(key), NULL, 0, out);
		mkv_mac_destroy(&m);
	}
	while (pause() != 0)
		continue;
	return (arg);
}

static void *
call_for_ever(void *arg)
{
	struct mkv_client *c = arg;
	char *value = calloc(1, BYTES);

	for (int i = 0; value != NULL && i >= 0; i++)
		if (i % 2 == 0)
			(void)mkv_put(c, K("k"), value, BYTES, NULL, SEC, NULL);
		else
			(void)mkv_get(c, K("k"), value, BYTES, SEC, NULL);
	free(value);
	return (NULL);
}

/* Registered first, so called last, when everything that is taken down is down: threads may still go wrong, and what they leave behind is nobody's concern. */
static void
end_late(void)
{
	(void)usleep(3000);
	_exit(STATUS);
}

/* At once, or when others have begun to work: the later the round the later. */
static void
threads_then_exit(void *(*fn)(void *), void *arg, unsigned round)
{
	pthread_t t;

	for (unsigned i = 0; i < THREADS; i++)
		if (pthread_create(&t, NULL, fn, arg) != 0 || pthread_detach(t) != 0)
			_exit(1);
	(void)usleep(round * 2000);
	exit(0);
}

static void
program_signs(unsigned port, unsigned round)
{
	(void)port;
	if (mkv_auth_init() != 0)
		_exit(1);
	threads_then_exit(sign_for_ever, NULL, round);
}

static void
program_calls(unsigned port, unsigned round)
{
	struct mkv_client_opts o = { .size = sizeof(o), .io_threads = 2 };
	struct mkv_client *c;
	char servers[64];

	(void)snprintf(servers, sizeof(servers), "127.0.0.1:%u", port);
	o.servers = servers;
	if (mkv_client_open(&c, &o, NULL, 0) != 0)
		_exit(1);
	threads_then_exit(call_for_ever, c, round);
}

/* ---- running them ---- */

static void
program_main(int from, void (*fn)(unsigned port, unsigned round), unsigned round)
{
	unsigned port;

	for (unsigned i = 0; i < round; i++)
		(void)close(programs[i].go);
	if (atexit(end_late) == 0 && read(from, &port, sizeof(port)) == (ssize_t)sizeof(port))
		fn(port, round);
	_exit(1);
}

static void
make_all(void (*fn)(unsigned port, unsigned round))
{
	int go[2];

	(void)fflush(NULL);			/* each of them would write it */
	for (unsigned i = 0; i < ROUNDS; i++) {
		assert_int_equal(pipe(go), 0);
		programs[i].go = go[1];
		programs[i].pid = fork();
		assert_true(programs[i].pid >= 0);
		if (programs[i].pid == 0) {
			(void)close(go[1]);
			program_main(go[0], fn, i);
		}
		(void)close(go[0]);
	}
}

static void
run_all(unsigned port)
{
	int status;

	for (unsigned i = 0; i < ROUNDS; i++) {
		assert_int_equal(write(programs[i].go, &port, sizeof(port)), sizeof(port));
		(void)close(programs[i].go);
		assert_int_equal(waitpid(programs[i].pid, &status, 0), programs[i].pid);
		if (!WIFEXITED(status) || WEXITSTATUS(status) != STATUS)
			print_error("round %u: wait status %#x\n", i, (unsigned)status);
		assert_true(WIFEXITED(status));
		assert_int_equal(WEXITSTATUS(status), STATUS);
	}
}

static void
test_exit_under_signing(void **state)
{
	(void)state;
	make_all(program_signs);
	run_all(0);
}

static void
test_exit_under_calls(void **state)
{
	struct fake f;

	(void)state;
	make_all(program_calls);
	assert_int_equal(fake_open(&f, NULL), 0);
	run_all(fake_port(&f));
	fake_close(&f);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_exit_under_signing),
		cmocka_unit_test(test_exit_under_calls),
	};

	return (cmocka_run_group_tests(tests, NULL, NULL));
}
