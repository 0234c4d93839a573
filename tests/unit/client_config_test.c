/*
 * What a handle is told: call, environment, file and defaults, and what is refused with which words.
 */
#include "config.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "clients/lib/client_priv.h"

#define HEX	"00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff"

static char path[64];
static struct conf cf;
static char why[WHY_BYTES];

static void
write_file(const char *text)
{
	FILE *f = fopen(path, "w");

	assert_non_null(f);
	assert_true(fputs(text, f) >= 0);
	assert_int_equal(fclose(f), 0);
}

static int
setup(void **state)
{
	static const char *const env[] = { "MEMKV_SERVERS", "MEMKV_TRANSPORT", "MEMKV_AUTH_KEY", "MEMKV_RDMA_DEVICES", "MEMKV_NAMESPACE",
		"MEMKV_PROMETHEUS_BIND", "MEMKV_CONNECTIONS", "MEMKV_IO_THREADS", "MEMKV_LICENSE", "MEMKV_CONFIG", "MEMKV_IO", "MEMKV_RDMA_CONTROL",
		"MEMKV_RDMA_TETHER", "MEMKV_LOCAL_WINDOW" };
	int fd;

	(void)state;
	for (unsigned i = 0; i < MKV_ARRAY_LEN(env); i++)
		(void)unsetenv(env[i]);
	(void)snprintf(path, sizeof(path), "/tmp/mkv-client-conf-XXXXXX");
	fd = mkstemp(path);
	assert_true(fd >= 0);
	(void)close(fd);
	why[0] = '\0';
	return (0);
}

static int
teardown(void **state)
{
	(void)state;
	return (unlink(path));
}

static int
load_file(const char *text)
{
	struct mkv_client_opts o = { .size = sizeof(o), .config_file = path };

	write_file(text);
	return (mkv_conf_load(&cf, &o, why));
}

static void
test_defaults(void **state)
{
	(void)state;
	assert_int_equal(mkv_conf_load(&cf, NULL, why), 0);
	assert_int_equal(cf.n_servers, 1);
	assert_string_equal(cf.server[0].name, "127.0.0.1:9900");
	assert_string_equal(cf.server[0].host, "127.0.0.1");
	assert_string_equal(cf.server[0].port, "9900");
	assert_int_equal(cf.key_id, MKV_KEY_ID_DEV);
	assert_int_equal(cf.connections, 2);
	assert_int_equal(cf.io_threads, 1);
	assert_int_equal(cf.inflight_max, INFLIGHT_DEFAULT);
	assert_string_equal(cf.ns, "");
	assert_int_equal(cf.http_host[0], '\0');
}

static void
test_order(void **state)
{
	struct mkv_client_opts o = { .size = sizeof(o), .namespace_ = "call" };

	(void)state;
	write_file("servers: [a:1, 'b=[::1]:2']\nnamespace: file\nconnections: 5\nio_threads: 3\nauth_key: " HEX "\nlicense: any\n"
	    "rdma_devices:\n  - mlx5_0\n");
	(void)setenv("MEMKV_CONFIG", path, 1);
	assert_int_equal(mkv_conf_load(&cf, NULL, why), 0);
	assert_int_equal(cf.n_servers, 2);
	assert_string_equal(cf.server[1].name, "b");
	assert_string_equal(cf.server[1].host, "::1");
	assert_string_equal(cf.ns, "file");
	assert_int_equal(cf.connections, 5);
	assert_int_equal(cf.io_threads, 3);
	assert_true(cf.key_id != MKV_KEY_ID_DEV);
	(void)setenv("MEMKV_NAMESPACE", "env", 1);
	(void)setenv("MEMKV_SERVERS", "c:3", 1);
	assert_int_equal(mkv_conf_load(&cf, NULL, why), 0);
	assert_string_equal(cf.ns, "env");
	assert_string_equal(cf.server[0].name, "c:3");
	assert_int_equal(mkv_conf_load(&cf, &o, why), 0);
	assert_string_equal(cf.ns, "call");
}

/* A program built with an older header passes a shorter struct. */
static void
test_old_struct(void **state)
{
	struct mkv_client_opts o = { .size = offsetof(struct mkv_client_opts, namespace_), .servers = "x:1", .namespace_ = "not seen" };

	(void)state;
	assert_int_equal(mkv_conf_load(&cf, &o, why), 0);
	assert_string_equal(cf.server[0].name, "x:1");
	assert_string_equal(cf.ns, "");
}

static void
refused(const char *text, const char *word, int err)
{
	assert_int_equal(load_file(text), err);
	if (strstr(why, word) == NULL)
		fail_msg("\"%s\" does not say \"%s\"", why, word);
}

static void
test_refused(void **state)
{
	char where[128];

	(void)state;
	(void)snprintf(where, sizeof(where), "%s:2: unknown key \"server\"", path);
	refused("namespace: x\nserver: a:1\n", where, MKV_E_CONFIG);
	refused("servers: nohost\n", "\"nohost\"", MKV_E_CONFIG);
	refused("servers: 'a:0'\n", "a:0", MKV_E_CONFIG);
	refused("servers: 'a:70000'\n", "a:70000", MKV_E_CONFIG);
	refused("servers: '::1:9900'\n", "::1:9900", MKV_E_CONFIG);
	refused("servers: [a:1, a:1]\n", "twice", MKV_E_CONFIG);
	refused("servers: {a: 1}\n", "servers", MKV_E_CONFIG);
	refused("namespace: [a]\n", "namespace", MKV_E_CONFIG);
	refused("namespace: a\nnamespace: b\n", "twice", MKV_E_CONFIG);
	refused("- a\n", ":1:", MKV_E_CONFIG);
	refused("a: [\n", path, MKV_E_CONFIG);
	refused("connections: 0\n", "from 1 to 16", MKV_E_CONFIG);
	refused("connections: many\n", "many", MKV_E_CONFIG);
	refused("transport: pigeon\n", "pigeon", MKV_E_CONFIG);
	refused("transport: tcp\nservers: 'local:///run/x'\n", "local:///run/x", MKV_E_CONFIG);
	refused("servers: 'local://x'\n", "local://x", MKV_E_CONFIG);
	assert_int_equal(load_file("transport: local\nservers: 'a:1,b=local:///run/x'\n"), 0);
	assert_string_equal(cf.server[0].host, "a");
	assert_string_equal(cf.server[0].path, "");
	assert_string_equal(cf.server[1].name, "b");
	assert_string_equal(cf.server[1].path, "/run/x");
#ifdef HAVE_RDMA
	assert_int_equal(load_file("transport: rdma\nrdma_devices: [a, b]\n"), 0);	/* module and devices are asked for when a handle is opened */
	assert_string_equal(cf.rdma_devices, "a,b");
#else
	refused("transport: rdma\n", "not in this build", MKV_E_UNSUPPORTED);
#endif
	assert_int_equal(load_file("servers: a:1\n"), 0);
	assert_int_equal(cf.rdma_control, MKV_WIRE_CONTROL_RDMA);
	assert_int_equal(load_file("rdma_control: UDP\n"), 0);
	assert_int_equal(cf.rdma_control, MKV_WIRE_CONTROL_UDP);
	assert_int_equal(load_file("rdma_control: tcp\n"), 0);
	assert_int_equal(cf.rdma_control, MKV_WIRE_CONTROL_TCP);
	assert_int_equal(load_file("rdma_control: auto\n"), 0);
	assert_int_equal(cf.rdma_control, MKV_WIRE_CONTROL_RDMA);
	refused("rdma_control: smoke\n", "smoke", MKV_E_CONFIG);
	assert_int_equal(load_file("transport: tcp\n"), 0);
	assert_int_equal(cf.rdma_drop, 0);
	assert_int_equal(load_file("rdma_tether: drop\n"), 0);
	assert_int_equal(cf.rdma_drop, 1);
	assert_int_equal(load_file("rdma_tether: Keep\n"), 0);
	assert_int_equal(cf.rdma_drop, 0);
	refused("rdma_tether: cut\n", "cut", MKV_E_CONFIG);
	assert_int_equal(load_file("transport: local\n"), 0);
	assert_int_equal(cf.local_window, 32u << 20);
	assert_int_equal(load_file("local_window: 0\n"), 0);
	assert_int_equal(cf.local_window, 0);
	assert_int_equal(load_file("local_window: 1000001\n"), 0);
	assert_int_equal(cf.local_window, 16u << 16);
	refused("local_window: 4KiB\n", "4KiB", MKV_E_CONFIG);
	refused("local_window: 2GiB\n", "2GiB", MKV_E_CONFIG);
	refused("local_window: wide\n", "wide", MKV_E_CONFIG);
	assert_int_equal(load_file("transport: local\n"), 0);
	assert_false(cf.local_in_place);
	assert_int_equal(load_file("transport: local\nlocal_get: in_place\n"), 0);
	assert_true(cf.local_in_place);
	assert_int_equal(load_file("local_get: window\n"), 0);
	assert_false(cf.local_in_place);
	refused("local_get: straight\n", "straight", MKV_E_CONFIG);
	refused("local_get: in_place\n", "another transport", MKV_E_CONFIG);
	refused("auth_key: abc\n", "64 hex digits", MKV_E_CONFIG);
	refused("prometheus_bind: here\n", "here", MKV_E_CONFIG);
	refused("namespace: 1234567890123456789012345678901234567890123456789012345678901234\n", "63 bytes", MKV_E_CONFIG);
	assert_int_equal(load_file(""), 0);
}

/* The key never appears in a message. */
static void
test_key_is_secret(void **state)
{
	(void)state;
	assert_int_equal(load_file("auth_key: 0badc0de\n"), MKV_E_CONFIG);
	assert_null(strstr(why, "0badc0de"));
}

static void
test_missing_file(void **state)
{
	struct mkv_client_opts o = { .size = sizeof(o), .config_file = "/nonexistent/memkv.yaml" };
	struct mkv_client *c = (struct mkv_client *)&o;
	char text[128] = "";

	(void)state;
	assert_int_equal(mkv_client_open(&c, &o, text, sizeof(text)), MKV_ERR_CONFIG);
	assert_null(c);
	assert_non_null(strstr(text, "/nonexistent/memkv.yaml"));
	mkv_client_close(NULL);
}

/* Longer than any deadline is as long as the longest, not what is left of 2^64. */
static void
test_endless_connect(void **state)
{
	struct mkv_client_opts o = { .size = sizeof(o), .connect_timeout_us = UINT64_MAX / 1000 + 2 };

	(void)state;
	assert_int_equal(mkv_conf_load(&cf, &o, why), 0);
	assert_int_equal(cf.connect_timeout_ns, MKV_WIRE_DEADLINE_MAX_US * 1000ull);
}

int
main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	const struct CMUnitTest tests[] = {
		T(test_defaults), T(test_order), T(test_old_struct), T(test_refused), T(test_key_is_secret), T(test_missing_file), T(test_endless_connect),
	};

	return (cmocka_run_group_tests(tests, NULL, NULL));
}
