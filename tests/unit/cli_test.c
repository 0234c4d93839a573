/*
 * The command line without a server: keys, ranges, usage, the tables behind help, completion and the manual pages; memkvctl against a socket
 * that answers what it is told to.
 */
#include "config.h"
#include "clients/cli/cli.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cmocka.h>

#include "bench/bench_priv.h"
#include "clients/cli/ctl.h"

static char	dir[64];
static struct cli_command command = { .name = "test" };

static struct cli
cli_of(int hex)
{
	return ((struct cli){ .cmd = &command, .o = { .hex = hex } });
}

static void
keys_are_bytes(void **state)
{
	struct cli text = cli_of(0), hex = cli_of(1);
	char longest[MEMKV_KEY_MAX + 2], out[4 * MEMKV_KEY_MAX + 1];
	struct cli_key k;

	(void)state;
	assert_int_equal(cli_key(&text, "a key", &k), 0);
	assert_int_equal(k.bytes, 5);
	assert_int_equal(cli_key(&hex, "00ffA5", &k), 0);
	assert_int_equal(k.bytes, 3);
	assert_memory_equal(k.data, "\x00\xff\xa5", 3);
	assert_string_equal(cli_key_text(out, k.data, 3, 1), "00ffa5");
	assert_string_equal(cli_key_text(out, "a\nb\\", 4, 0), "a\\x0ab\\x5c");
	assert_int_equal(cli_key(&text, "", &k), CLI_USAGE);
	assert_int_equal(cli_key(&hex, "abc", &k), CLI_USAGE);
	assert_int_equal(cli_key(&hex, "zz", &k), CLI_USAGE);
	memset(longest, 'k', sizeof(longest));
	longest[sizeof(longest) - 1] = '\0';
	assert_int_equal(cli_key(&text, longest, &k), CLI_USAGE);
	longest[MEMKV_KEY_MAX] = '\0';
	assert_int_equal(cli_key(&text, longest, &k), 0);
}

static void
keys_in_json(void **state)
{
	json_t *j = json_object();

	(void)state;
	cli_json_key(j, "caf\xc3\xa9", 5);
	assert_string_equal(json_string_value(json_object_get(j, "key")), "caf\xc3\xa9");
	json_object_clear(j);
	cli_json_key(j, "\xff\x00", 2);
	assert_null(json_object_get(j, "key"));
	assert_string_equal(json_string_value(json_object_get(j, "key_hex")), "ff00");
	json_decref(j);
}

static void
ranges_are_read(void **state)
{
	static const char *const bad[] = { "", "5", ":", "5:", ":5", "a:b", "-1:5", "0:1:2", "999999999TiB:1" };
	uint64_t off, len;

	(void)state;
	assert_int_equal(cli_range("0:4096", &off, &len), 0);
	assert_int_equal(len, 4096);
	assert_int_equal(cli_range("1MiB:64KiB", &off, &len), 0);
	assert_int_equal(off, 1 << 20);
	assert_int_equal(len, 65536);
	for (size_t i = 0; i < MKV_ARRAY_LEN(bad); i++)
		assert_int_equal(cli_range(bad[i], &off, &len), -1);
}

/* Run the command line with its output put away; what it said on standard error is kept for said(). */
static int
memkv(const char *first, ...)
{
	char text[16][128], *argv[17], kept[80];
	int argc = 0, r, out = dup(STDOUT_FILENO), err = dup(STDERR_FILENO);
	va_list ap;

	va_start(ap, first);
	for (const char *a = first; a != NULL; a = va_arg(ap, const char *), argc++) {
		snprintf(text[argc], sizeof(text[argc]), "%s", a);
		argv[argc] = text[argc];
	}
	argv[argc] = NULL;
	va_end(ap);
	fflush(NULL);
	assert_non_null(freopen("/dev/null", "w", stdout));
	snprintf(kept, sizeof(kept), "%s/stderr", dir);
	assert_non_null(freopen(kept, "w", stderr));
	r = strcmp(argv[0], "memkvctl") == 0 ? ctl_main(argc, argv) : cli_main(argc, argv);
	fflush(NULL);
	dup2(out, STDOUT_FILENO);
	dup2(err, STDERR_FILENO);
	close(out);
	close(err);
	return (r);
}

/* The last command said this. */
static int
said(const char *words)
{
	char kept[80], text[4096] = "";
	FILE *f;

	snprintf(kept, sizeof(kept), "%s/stderr", dir);
	f = fopen(kept, "r");
	assert_non_null(f);
	text[fread(text, 1, sizeof(text) - 1, f)] = '\0';
	fclose(f);
	return (strstr(text, words) != NULL);
}

static void
messages_show_the_way(void **state)
{
	(void)state;
	memkv("memkv", "--servers", "127.0.0.1:1", "get", "key", NULL);
	assert_true(said("options follow it"));
	memkv("memkv", "ptu", NULL);
	assert_true(said("the nearest known one is put"));
	memkv("memkv", "get", "key", "--deadline", "0s", NULL);
	assert_true(said("above 0"));
	assert_int_equal(memkv("memkv", "get", "key", "--config", "/nonexistent.yaml", NULL), CLI_USAGE);
	assert_true(said("/nonexistent.yaml: cannot be read: not there"));
	memkv("memkvctl", "nonsense", NULL);
	assert_true(said("memkvctl help lists them"));
	memkv("memkvctl", "shutdown", "drive:0", NULL);
	assert_true(said("takes no names"));
}

static void
wrong_usage_is_2_and_help_is_0(void **state)
{
	(void)state;
	assert_int_equal(memkv("memkv", NULL), CLI_USAGE);
	assert_int_equal(memkv("memkv", "ptu", NULL), CLI_USAGE);
	assert_int_equal(memkv("memkv", "put", "key", NULL), CLI_USAGE);
	assert_int_equal(memkv("memkv", "put", "key", "a", "b", NULL), CLI_USAGE);
	assert_int_equal(memkv("memkv", "get", "key", "--transport", "pigeon", NULL), CLI_USAGE);
	assert_int_equal(memkv("memkv", "get", "key", "--deadline", "0s", NULL), CLI_USAGE);
	assert_int_equal(memkv("memkv", "get", "key", "--ttl", "5s", NULL), CLI_USAGE);
	assert_int_equal(memkv("memkv", "get", "key", "--range", "5", NULL), CLI_USAGE);
	assert_int_equal(memkv("memkv", "exists", NULL), CLI_USAGE);
	assert_int_equal(memkv("memkv", "match", "k", "--lease", "61s", NULL), CLI_USAGE);
	assert_int_equal(memkv("memkv", "config", NULL), CLI_USAGE);
	assert_int_equal(memkv("memkv", "bench", "get", "--driver", "null", "--verify", NULL), CLI_USAGE);
	assert_int_equal(memkv("memkv", "bench", "put", "--keys", "4", "--concurrency", "8", "--driver", "null", NULL), CLI_USAGE);
	assert_int_equal(memkv("memkv", "bench", "replay", "--driver", "null", NULL), CLI_USAGE);
	assert_int_equal(memkv("memkv", "bench", "get", "--driver", "null", "--ops", "100", "--json", NULL), CLI_DONE);
	assert_int_equal(memkv("memkv", "--version", NULL), CLI_DONE);
	assert_int_equal(memkv("memkv", "-V", NULL), CLI_DONE);
	assert_int_equal(memkv("memkv", "--help", NULL), CLI_DONE);
	assert_int_equal(memkv("memkv", "help", "errors", NULL), CLI_DONE);
	assert_int_equal(memkv("memkv", "help", "put", NULL), CLI_DONE);
	assert_int_equal(memkv("memkv", "help", "nonsense", NULL), CLI_USAGE);
	assert_int_equal(memkv("memkvctl", "help", NULL), CLI_DONE);
	assert_int_equal(memkv("memkvctl", "help", "drive", NULL), CLI_DONE);
	assert_int_equal(memkv("memkvctl", "help", "nonsense", NULL), CLI_USAGE);
	assert_int_equal(memkv("memkv", "put", "--help", NULL), CLI_DONE);
	assert_int_equal(memkv("memkv", "bench", "replay", "--help", NULL), CLI_DONE);
	assert_int_equal(memkv("memkv", "put", "key", "/nonexistent/file", NULL), CLI_FAILED);
}

static void
start_says_where_it_looked(void **state)
{
	(void)state;
	setenv("MEMKV_LIBEXEC", "/nonexistent", 1);
	assert_int_equal(memkv("memkv", "start", NULL), CLI_FAILED);
	unsetenv("MEMKV_LIBEXEC");
}

/* ---- the manual pages name what the tables have ---- */

static char *
page(const char *name)
{
	const char *src = getenv("srcdir");
	char path[4096], *text;
	FILE *f;
	size_t n;

	snprintf(path, sizeof(path), "%s/../../docs/man/%s", src != NULL ? src : ".", name);
	f = fopen(path, "r");
	if (f == NULL)
		return (NULL);
	text = calloc(1, 1 << 18);
	assert_non_null(text);
	n = fread(text, 1, (1 << 18) - 1, f);
	fclose(f);
	assert_true(n > 0 && n < (1 << 18) - 1);
	return (text);
}

static void
page_has(const char *text, const char *macro, const char *word)
{
	char row[128];

	snprintf(row, sizeof(row), "%s %s", macro, word);
	if (strstr(text, row) == NULL)
		fail_msg("the manual page lacks \"%s\"", row);
}

static void
manual_pages_have_every_command_and_option(void **state)
{
	char *text = page("memkv.1"), *bench = page("memkv-bench.1"), *ctl = page("memkvctl.1");

	(void)state;
	if (text == NULL || bench == NULL || ctl == NULL)
		skip();
	for (unsigned i = 0; i < CLI_COMMANDS; i++)
		page_has(text, ".It Cm", cli_commands[i].name);
#define CLI_OPT(name, letter, type, field, arg, deflt, limits, commands, help)	page_has(text, "Fl Fl", name);
#include "clients/cli/options.def"
#undef CLI_OPT
	for (unsigned i = 0; i < bench_options_count; i++)
		page_has(bench, "Fl Fl", bench_options[i].name);
	for (unsigned i = 0; i < MODE_COUNT; i++)
		page_has(bench, ".It Cm", bench_mode_name(i));
#define CTL_COMMAND(name, names, done, help)	page_has(ctl, ".It Cm", name);
#include "clients/cli/ctl_commands.def"
#undef CTL_COMMAND
	free(text);
	free(bench);
	free(ctl);
}

/* ---- memkvctl ---- */

static struct {
	int		fd;
	char		path[96], asked[1024];
	const char	*answer;
	size_t		piece;
	unsigned	pause_us;
	pthread_t	id;
} server;

static void *
server_loop(void *arg)
{
	size_t n = 0;
	ssize_t got;
	int fd = accept(server.fd, NULL, NULL);

	(void)arg;
	while (n < sizeof(server.asked) - 1 && memchr(server.asked, '\n', n) == NULL &&
	    (got = recv(fd, server.asked + n, sizeof(server.asked) - 1 - n, 0)) > 0)
		n += (size_t)got;
	server.asked[n] = '\0';
	for (size_t at = 0, bytes = strlen(server.answer); at < bytes; at += n) {	/* in small pieces */
		n = MKV_MIN(server.piece, bytes - at);
		if (send(fd, server.answer + at, n, MSG_NOSIGNAL) < 0)
			break;
		if (server.pause_us > 0)
			usleep(server.pause_us);
	}
	close(fd);
	return (NULL);
}

static void
server_start_slow(const char *answer, size_t piece, unsigned pause_us)
{
	struct sockaddr_un sa = { .sun_family = AF_UNIX };

	snprintf(server.path, sizeof(server.path), "%s/control.sock", dir);
	unlink(server.path);
	snprintf(sa.sun_path, sizeof(sa.sun_path), "%s", server.path);
	server.answer = answer;
	server.piece = piece;
	server.pause_us = pause_us;
	memset(server.asked, 0, sizeof(server.asked));
	server.fd = socket(AF_UNIX, SOCK_STREAM, 0);
	assert_int_equal(bind(server.fd, (struct sockaddr *)&sa, sizeof(sa)), 0);
	assert_int_equal(listen(server.fd, 1), 0);
	assert_int_equal(pthread_create(&server.id, NULL, server_loop, NULL), 0);
}

static void
server_start(const char *answer)
{
	server_start_slow(answer, 7, 0);
}

static void
server_end(void)
{
	pthread_join(server.id, NULL);
	close(server.fd);
	unlink(server.path);
}

static void
ctl_asks_and_reads_rows(void **state)
{
	(void)state;
	server_start("{\"ok\":true,\"rows\":[{\"name\":\"drive:0\",\"state\":\"RUNNING\",\"pid\":7,\"uptime_s\":61,\"restarts\":0,\"detail\":\"\"}]}\n");
	assert_int_equal(memkv("memkvctl", "status", "drive:0", "--control", server.path, NULL), 0);
	server_end();
	assert_string_equal(server.asked, "{\"cmd\":\"status\",\"names\":[\"drive:0\"]}\n");
	server_start("{\"ok\":true,\"rows\":[{\"name\":\"drive:0\",\"state\":\"FATAL\",\"pid\":0,\"restarts\":9,\"detail\":\"x\"}]}\n");
	assert_int_equal(memkv("memkvctl", "status", "all", "--control", server.path, NULL), 1);
	server_end();
	assert_string_equal(server.asked, "{\"cmd\":\"status\",\"names\":[\"all\"]}\n");
	server_start("{\"ok\":true,\"rows\":[{\"name\":\"drive:0\",\"lines\":[\"a\",\"b\",7]}]}\n");
	assert_int_equal(memkv("memkvctl", "tail", "--control", server.path, "--json", NULL), 0);
	server_end();
	server_start("{\"ok\":true,\"rows\":[{\"name\":\"drive:0\",\"lines\":[\"a\",\"b\",7]}]}\n");
	assert_int_equal(memkv("memkvctl", "tail", "--control", server.path, NULL), 0);
	server_end();
}

static void
ctl_survives_strange_answers(void **state)
{
	static const struct {
		const char *answer;
		int status;
	} strange[] = {
		{ "{\"ok\":false,\"error\":\"no such child\"}\n", 1 }, { "{\"ok\":false}\n", 1 }, { "nonsense\n", 1 }, { "", 4 }, { "{\"ok\":true", 4 },
		{ "[]\n", 1 }, { "{\"ok\":true,\"rows\":[1,{},null]}\n", 1 }, { "\n", 1 },
	};

	(void)state;
	for (size_t i = 0; i < MKV_ARRAY_LEN(strange); i++) {
		server_start(strange[i].answer);
		assert_int_equal(memkv("memkvctl", "status", "--control", server.path, NULL), strange[i].status);
		server_end();
	}
}

/* No names mean all children: a name that gets lost on the way would stop them all. */
static void
ctl_loses_no_name(void **state)
{
	(void)state;
	server_start("{\"ok\":true,\"rows\":[]}\n");
	assert_int_equal(memkv("memkvctl", "stop", "\xff", "--control", server.path, NULL), 2);
	assert_true(said("not UTF-8"));
	assert_int_equal(memkv("memkvctl", "stop", "drive:0", "all", "--control", server.path, NULL), 0);
	server_end();
	assert_string_equal(server.asked, "{\"cmd\":\"stop\",\"names\":[\"drive:0\",\"all\"]}\n");
	server_start("{\"ok\":true,\"rows\":[]}\n");
	assert_int_equal(memkv("memkvctl", "drive", "locate", "all", "--control", server.path, NULL), 0);	/* a key may be called so */
	server_end();
	assert_string_equal(server.asked, "{\"cmd\":\"drive\",\"names\":[\"locate\",\"all\"]}\n");
}

static void
ctl_says_what_is_wrong_with_an_answer(void **state)
{
	char *text = malloc((16u << 20) + 2);

	(void)state;
	assert_non_null(text);
	memset(text, ' ', (16u << 20) + 1);
	text[(16u << 20) + 1] = '\0';
	server_start_slow(text, 65536, 0);
	assert_int_equal(memkv("memkvctl", "tail", "--control", server.path, NULL), 4);
	server_end();
	assert_true(said("longer than 16 MiB"));
	text[400] = '\0';				/* a byte now and then is no answer in time */
	server_start_slow(text, 1, 10000);
	assert_int_equal(memkv("memkvctl", "status", "--deadline", "1s", "--control", server.path, NULL), 4);
	server_end();
	assert_true(said("too long; --deadline"));
	free(text);
	server_start("{\"ok\":true,\"rows\":[]}\n{\"ok\":");		/* one line is the answer */
	assert_int_equal(memkv("memkvctl", "status", "--control", server.path, NULL), 0);
	server_end();
	server_start("{\"ok\":true,\"rows\":[]}\n");
	assert_int_equal(memkv("memkvctl", "status", "--deadline", "4294967296s", "--control", server.path, NULL), 0);
	server_end();
}

static void
ctl_status_names_what_the_jail_lacks(void **state)
{
	json_t *answer = json_loads("{\"ok\":true,\"rows\":[{\"name\":\"drive:0\",\"state\":\"RUNNING\",\"restarts\":1,\"jail_missing\":\"user,seccomp\","
	    "\"detail\":\"x\"}]}", 0, NULL);
	char *text = NULL;
	size_t bytes = 0;
	FILE *f = open_memstream(&text, &bytes);

	(void)state;
	assert_int_equal(ctl_show(f, "status", answer), 0);
	assert_int_equal(fclose(f), 0);
	assert_string_equal(text, "drive:0          RUNNING   uptime 0:00:00, restarts 1, jail lacks user,seccomp, x\n");
	free(text);
	json_decref(answer);
}

static void
ctl_status_has_room_for_long_names(void **state)
{
	json_t *answer = json_loads("{\"ok\":true,\"rows\":[{\"name\":\"front:tcp:0\",\"state\":\"RUNNING\"},"
	    "{\"name\":\"front:rdma:rocep65s0f0\",\"state\":\"RUNNING\"}]}", 0, NULL);
	char *text = NULL;
	size_t bytes = 0;
	FILE *f = open_memstream(&text, &bytes);

	(void)state;
	assert_int_equal(ctl_show(f, "status", answer), 0);
	assert_int_equal(fclose(f), 0);
	assert_string_equal(text, "front:tcp:0            RUNNING   uptime 0:00:00, restarts 0\n"
	    "front:rdma:rocep65s0f0 RUNNING   uptime 0:00:00, restarts 0\n");
	free(text);
	json_decref(answer);
}

/* A server that was told to end still answers that its children run: not what to tell. */
static void
ctl_shutdown_says_what_happens(void **state)
{
	json_t *answer = json_loads("{\"ok\":true,\"rows\":[{\"name\":\"drive:0\",\"state\":\"RUNNING\"}]}", 0, NULL);
	char *text = NULL;
	size_t bytes = 0;
	FILE *f = open_memstream(&text, &bytes);

	(void)state;
	assert_int_equal(ctl_show(f, "shutdown", answer), 0);
	assert_int_equal(fclose(f), 0);
	assert_string_equal(text, "drive:0: stopping\n");
	free(text);
	json_decref(answer);
}

static void
ctl_usage(void **state)
{
	(void)state;
	assert_int_equal(memkv("memkvctl", NULL), 2);
	assert_int_equal(memkv("memkvctl", "stauts", NULL), 2);
	assert_int_equal(memkv("memkvctl", "shutdown", "drive:0", NULL), 2);
	assert_int_equal(memkv("memkvctl", "--help", NULL), 0);
	assert_int_equal(memkv("memkvctl", "--version", NULL), 0);
	assert_int_equal(memkv("memkvctl", "status", "--control", "/nonexistent/control.sock", NULL), 4);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(keys_are_bytes), cmocka_unit_test(keys_in_json), cmocka_unit_test(ranges_are_read),
		cmocka_unit_test(wrong_usage_is_2_and_help_is_0), cmocka_unit_test(messages_show_the_way),
		cmocka_unit_test(start_says_where_it_looked),
		cmocka_unit_test(manual_pages_have_every_command_and_option), cmocka_unit_test(ctl_asks_and_reads_rows),
		cmocka_unit_test(ctl_survives_strange_answers), cmocka_unit_test(ctl_loses_no_name),
		cmocka_unit_test(ctl_says_what_is_wrong_with_an_answer), cmocka_unit_test(ctl_status_names_what_the_jail_lacks),
		cmocka_unit_test(ctl_status_has_room_for_long_names),
		cmocka_unit_test(ctl_shutdown_says_what_happens), cmocka_unit_test(ctl_usage),
	};
	char kept[80];
	int r;

	snprintf(dir, sizeof(dir), "/tmp/memkv-cli-XXXXXX");
	if (mkdtemp(dir) == NULL)
		return (1);
	r = cmocka_run_group_tests(tests, NULL, NULL);
	snprintf(kept, sizeof(kept), "%s/stderr", dir);
	unlink(kept);
	rmdir(dir);
	return (r);
}
