/*
 * Configuration: precedence, places of complaints, YAML of every shape, what must fit together.
 */
#include "config.h"
#include "supervisor/config_priv.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "common/base/err.h"
#include "tests/lib/rnd.h"

#define KEY64	"00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff"

static struct config conf;
static struct config_args args;
static struct config_errors errors;
static char path[64];

static int
fresh(void **state)
{
	(void)state;
	config_errors_free(&errors);
	memset(&args, 0, sizeof(args));
	args.ready_fd = -1;
	clearenv();
	setenv("HOME", "/home/someone", 1);
	return (0);
}

static void
file(const char *text)
{
	FILE *f = fopen(path, "w");

	assert_non_null(f);
	assert_true(fputs(text, f) >= 0);
	assert_int_equal(fclose(f), 0);
	args.file = path;
}

static void
set(const char *s)
{
	args.sets[args.n_sets++] = s;
}

static void
load(void)
{
	config_errors_free(&errors);
	if (config_load(&conf, &args, &errors) != 0)
		fail_msg("%s", errors.n > 0 ? errors.line[0] : "?");
}

/* Refused; line i of the errors begins with where (the file's name goes in for '@') and holds what. */
static void
refused(unsigned i, const char *where, const char *what)
{
	char begin[128];

	config_errors_free(&errors);
	assert_int_equal(config_load(&conf, &args, &errors), MKV_E_CONFIG);
	assert_true(errors.n > i);
	snprintf(begin, sizeof(begin), "%s%s", where[0] == '@' ? path : "", where + (where[0] == '@'));
	if (strncmp(errors.line[i], begin, strlen(begin)) != 0 || strstr(errors.line[i], what) == NULL)
		fail_msg("\"%s\" does not begin with \"%s\" and hold \"%s\"", errors.line[i], begin, what);
}

static void
nothing_at_all(void **state)
{
	const struct config_derived *d = &conf.derived;

	(void)state;
	set("server.data_dir=/d");
	load();
	assert_string_equal(d->data.host, "127.0.0.1");
	assert_int_equal(d->data.port, 9900);
	assert_int_equal(d->admin.port, 9901);
	assert_int_equal(d->drive_count, 1);
	assert_string_equal(d->drive[0].media, "/d/drive0.dat");
	assert_true(d->drive[0].max_size == 1ull << 30);
	assert_string_equal(d->control_path, "/d/control.sock");
	assert_string_equal(d->local_path, "/d/memkv.sock");
	assert_int_equal(d->local_count, 1);
	assert_true(d->loopback);
	assert_false(d->explicit_key);
	assert_true(d->front_count >= 1);
}

static void
later_sources_win(void **state)
{
	(void)state;
	file("memory:\n  slots: 100\nlog:\n  level: debug\nstorage:\n  drives:\n    - media: /a\n    - media: /b\n");
	load();
	assert_int_equal(conf.params.memory_slots, 100);
	assert_int_equal(conf.derived.drive_count, 2);
	setenv("MEMKV_MEMORY_SLOTS", "200", 1);
	setenv("MEMKV_STORAGE_DRIVES", "[{media: /c, max_size: 64MiB, weight: 2}]", 1);
	load();
	assert_int_equal(conf.params.memory_slots, 200);
	assert_int_equal(conf.derived.drive_count, 1);
	assert_string_equal(conf.derived.drive[0].media, "/c");
	assert_true(conf.derived.drive[0].weight == 2);
	set("memory.slots=300");
	set("memory.slots=400");
	set("storage.drives=[{media: /x},{media: /y},{media: /z}]");
	load();
	assert_int_equal(conf.params.memory_slots, 400);
	assert_int_equal(conf.derived.drive_count, 3);
	assert_int_equal(conf.params.log_level, 0);
}

static void
file_by_the_environment(void **state)
{
	(void)state;
	file("memory:\n  slots: 111\n");
	args.file = NULL;
	setenv("MEMKV_CONFIG", path, 1);
	load();
	assert_int_equal(conf.params.memory_slots, 111);
	setenv("MEMKV_CONFIG", "/does/not/exist", 1);
	refused(0, "/does/not/exist: ", "cannot be read");
}

static void
alias_of_the_key(void **state)
{
	(void)state;
	setenv("MEMKV_AUTH_KEY", KEY64, 1);
	load();
	assert_true(conf.derived.explicit_key);
	config_wipe(&conf);
	assert_string_equal(conf.params.network_auth_key, "");
}

static void
all_errors_with_their_lines(void **state)
{
	(void)state;
	file("network:\n  adress: foo\nstorage:\n  mode: fil\n  eviction:\n    high: 200\n  drives:\n    - media: /x\n      max_size: 12 Foo\n"
	    "    - medi: /y\nlog: json\n");
	refused(0, "@:2: ", "network.address");
	refused(1, "@:4: ", "direct|file|memory");
	refused(2, "@:6: ", "from 50 to 100");
	refused(3, "@:8: ", "12 Foo");
	refused(4, "@:10: ", "storage.drives[].medi");
	refused(5, "@:11: ", "\"log\"");
	assert_int_equal(errors.n, 6);
}

static void
errors_of_other_places(void **state)
{
	(void)state;
	setenv("MEMKV_MEMORY_SLOTS", "many", 1);
	set("nonsense");
	set("storage.mod=file");
	set("storage.drives={media: /x}");
	refused(0, "MEMKV_MEMORY_SLOTS: ", "many");
	refused(1, "--set nonsense: ", "section.key=value");
	refused(2, "--set storage.mod: ", "storage.mode");
	refused(3, "--set storage.drives: ", "list like");
}

/* What keys say together is told in the same go, but for what hangs on a key that was refused. */
static void
all_that_is_wrong_at_once(void **state)
{
	(void)state;
	file("network:\n  address: 0.0.0.0:9900\n  auth_key: short\nmemory:\n  slots: 1\nserver:\n  backoff_min: 10s\n  backoff_max: 1s\n");
	refused(0, "@:3: ", "network.auth_key");
	refused(1, "@:5: ", "memory.slots");
	refused(2, "@: ", "backoff_max");
	assert_int_equal(errors.n, 3);			/* "needs a key of your own" would be wrong: one was given */
	file("network:\n  address: 0.0.0.0:9900\n  auth_kye: " KEY64 "\n");
	refused(0, "@:3: ", "nearest known key is network.auth_key");
	assert_int_equal(errors.n, 1);
	file("storage:\n  mode: direct\n  drives: [{medai: /dev/x}]\n  eviction: {low: 98}\n");
	refused(0, "@:3: ", "storage.drives[].medai");
	refused(1, "@: ", "storage.eviction.high");
	assert_int_equal(errors.n, 2);
	file("storage:\n  mode: direct\n  drives: [{media: /dev/x}\n");
	refused(0, "@:", "");
	assert_int_equal(errors.n, 1);			/* half a text: nothing is known of the rest */
}

static void
variables_that_are_no_keys(void **state)
{
	char why[256];

	(void)state;
	setenv("MEMKV_STORAGE_MODEE", "memory", 1);
	setenv("MEMKV_SERVERS", "127.0.0.1:1", 1);	/* of clients */
	setenv("MEMKV_AUTH_KEY", KEY64, 1);
	setenv("MEMKV_LOG_LEVEL", "warn", 1);
	load();
	assert_int_equal(conf.n_stray, 1);
	config_stray_text(&conf.stray[0], why, sizeof(why));
	assert_non_null(strstr(why, "MEMKV_STORAGE_MODEE"));
	assert_non_null(strstr(why, "nearest one is MEMKV_STORAGE_MODE"));
	clearenv();
	setenv("MEMKV_ADMIN_SERVICE_HOST_OF_SOMEBODY_ELSE_WITH_A_VERY_LONG_NAME_THAT_FITS_NOWHERE", "10.0.0.1", 1);
	setenv("MEMKV_STORAGE_EVICTION_HGIH", "90", 1);
	setenv("MEMKV_", "", 1);
	setenv("MEMKV_LOG", "", 1);
	load();
	assert_int_equal(conf.n_stray, 2);
	config_stray_text(&conf.stray[0], why, sizeof(why));
	assert_non_null(strstr(why, "--help lists them"));
	config_stray_text(&conf.stray[1], why, sizeof(why));
	assert_non_null(strstr(why, "MEMKV_STORAGE_EVICTION_HIGH"));
}

static void
secrets_do_not_show_in_complaints(void **state)
{
	(void)state;
	file("network:\n  auth_key: notakeybutasecret\n");
	refused(0, "@:2: ", "network.auth_key");
	assert_null(strstr(errors.line[0], "notakeybutasecret"));
}

static void
yaml_of_other_shapes(void **state)
{
	(void)state;
	file("");
	load();
	file("---\n# nothing\n...\n");
	load();
	file("network:\nlocal:\n");
	load();
	file("{memory: {slots: 77}, rdma: {devices: [a, b]}}");
	load();
	assert_int_equal(conf.params.memory_slots, 77);
	assert_int_equal(conf.params.rdma_devices.count, 2);
	file("storage: {eviction: {enabled: false}}\n");
	load();
	assert_false(conf.params.storage_eviction_enabled);
	file("rdma: {num_worker_threads: 8}\n");
	load();
	assert_int_equal(conf.n_notes, 1);
	assert_string_equal(conf.note[0]->key, "rdma.num_worker_threads");
	file("rdma: {devices: [a, b]}\nlocal: {path: /run/x}\n");
	load();
	assert_int_equal(conf.n_notes, 0);
	assert_string_equal(conf.derived.local_path, "/run/x");
}

/* Each device is a front of its own, and shares the staging memory. */
static void
rails(void **state)
{
	const struct config_derived *d = &conf.derived;
	uint64_t alone;

	(void)state;
	file("network: {shards: 2}\n");
	load();
	assert_int_equal(d->shard_count, 2);
	assert_int_equal(d->front_count, 3);		/* one more is for this host */
	assert_int_equal(d->rail_count, 0);
	file("network: {shards: 2}\nlocal: {path: \"-\"}\n");
	load();
	assert_int_equal(d->front_count, 2);
	alone = d->stage_data_bytes;
	file("network: {shards: 2}\nlocal: {path: \"-\"}\nrdma: {devices: [mlx5_0, rocep1s0f0.1]}\n");
	load();
	assert_int_equal(d->shard_count, 2);
	assert_int_equal(d->rail_count, 2);
	assert_int_equal(d->front_count, 4);
	assert_true(d->stage_data_bytes == alone / 2);
	file("network: {shards: 1}\nrdma: {device: mlx5_0}\n");
	load();
	assert_int_equal(d->rail_count, 1);
	file("memory: {max_size: 16MiB}\nnetwork: {shards: 1}\nrdma: {devices: [a, b]}\n");
	refused(0, "@: ", "3 front processes (1 for TCP, 2 for rdma.devices, 0 for local.path)");
	refused(0, "@: ", "at least 25165824");
	file("rdma: {devices: [a, b, a]}\n");
	refused(0, "@: ", "\"a\" is given twice");
	file("rdma: {devices: [\"a b\"]}\n");
	refused(0, "@: ", "not the name of a device");
	file("rdma: {devices: [a/b]}\n");
	refused(0, "@: ", "not the name of a device");
	file("rdma: {devices: [mlx5_01234567890123456789012345]}\n");
	load();
	file("rdma: {devices: [mlx5_012345678901234567890123456]}\n");
	refused(0, "@: ", "at most 31");
	file("memory: {max_size: 1GiB}\nrdma: {devices: [a, b, c, d, e, f, g, h, i, j, k]}\n");
	load();
	file("memory: {max_size: 1GiB}\nrdma: {devices: [a, b, c, d, e, f, g, h, i, j, k, l]}\n");
	refused(0, "@: ", "12 devices; one server has at most 11");
	file("rdma: {piece_size: 32KiB}\n");
	refused(0, "@:1: ", "64KiB");
}

static void
yaml_that_is_refused(void **state)
{
	(void)state;
	file("- a\n- b\n");
	refused(0, "@:1: ", "sections");
	file("memory:\n  slots: 1\n  slots: 2\n");
	refused(0, "@:2: ", "");
	file("memory:\n  slots: 100\n  slots: 200\n");
	refused(0, "@:3: ", "given twice");
	file("memory: {slots: 100}\n---\nmemory: {slots: 200}\n");
	refused(0, "@:2: ", "one document");
	file("a: &x 1\nb: *x\n");
	refused(1, "@:2: ", "alias");
	file("a: [b\nc: d\n");
	refused(0, "@:2: ", "");
	file("memory:\n\tslots: 1\n");
	refused(0, "@:2: ", "");
	file("a: {b: {c: {d: {e: {f: {g: {h: {i: {j: 1}}}}}}}}}\n");
	refused(0, "@:1: ", "too deep");
	file("rdma: {devices: [{a: b}, c]}\n");
	refused(0, "@:1: ", "plain words");
	file("{a: b}: c\n");
	refused(0, "@:1: ", "short word");
	file("storage: {drives: [x]}\n");
	refused(0, "@:1: ", "list of");
	file("storage: {drives: [{media: [x]}]}\n");
	refused(0, "@:1: ", "single short value");
	file("storage: {drives: [{media: x, media: y}]}\n");
	refused(0, "@:1: ", "given twice");
	file("storage: {drives: [{max_size: 64MiB}]}\n");
	refused(0, "@:1: ", "missing");
}

static void
elsewhere_needs_a_key(void **state)
{
	(void)state;
	set("network.address=0.0.0.0:9900");
	refused(0, "configuration: ", "openssl rand -hex 32");
	assert_non_null(strstr(errors.line[0], "auth_key: \""));
	set("network.auth_key=" KEY64);
	load();
	assert_false(conf.derived.loopback);
	assert_string_equal(conf.derived.admin.host, "0.0.0.0");
}

static void
loopback_or_not(void **state)
{
	(void)state;
	assert_true(config_is_loopback("127.0.0.1"));
	assert_true(config_is_loopback("127.9.9.9"));
	assert_true(config_is_loopback("::1"));
	assert_false(config_is_loopback("::"));
	assert_false(config_is_loopback("0.0.0.0"));
	assert_false(config_is_loopback("10.0.0.1"));
	assert_false(config_is_loopback("localhost"));
	assert_false(config_is_loopback("::ffff:127.0.0.1"));
}

static void
ports(void **state)
{
	(void)state;
	set("network.address=127.0.0.1:0");
	load();
	assert_int_equal(conf.derived.admin.port, 0);
	set("admin.address=127.0.0.1:1234");
	load();
	assert_int_equal(conf.derived.admin.port, 1234);
	set("network.address=127.0.0.1:1234");
	refused(0, "configuration: ", "is the data address");
	args.n_sets = 0;
	set("network.address=127.0.0.1:65535");
	refused(0, "configuration: ", "admin.address");
}

static void
tls_both_or_none(void **state)
{
	(void)state;
	set("network.tls_cert=/dev/null");
	refused(0, "configuration: ", "only one of");
	set("network.tls_key=/does/not/exist");
	refused(0, "configuration: ", "/does/not/exist");
	set("network.tls_key=/dev/null");
	load();
	/* The admin port reads them when it is opened: a reload that promised more would do nothing. */
	assert_int_equal(mkv_param_find("network.tls_cert")->scope, MKV_PARAM_RESTART);
	assert_int_equal(mkv_param_find("network.tls_key")->scope, MKV_PARAM_RESTART);
}

static void
drives_of_each_mode(void **state)
{
	(void)state;
	set("server.data_dir=/d");
	set("storage.mode=memory");
	load();
	assert_string_equal(conf.derived.drive[0].media, "arena0");
	set("storage.mode=direct");
	refused(0, "configuration: ", "storage.drives");
	set("storage.mode=file");
	set("storage.file_size_gb=3");
	load();
	assert_true(conf.derived.drive[0].max_size == 1ull << 30);
	set("storage.drives=[{media: rel/x}]");
	load();
	assert_true(conf.derived.drive[0].max_size == 3ull << 30);
	assert_int_equal(conf.derived.drive[0].media[0], '/');
	set("storage.drives=[{media: /a},{media: /b}]");
	refused(0, "configuration: ", "means one file");
	set("storage.file_size_gb=0");
	set("storage.drives=[{media: /a, max_size: 1MiB}]");
	refused(0, "configuration: ", "too little");
	set("storage.drives=[{media: /a, max_size: 1}]");
	refused(0, "configuration: ", ": 1 bytes for \"/a\" are too little; at least 33554432 are needed");
	set("storage.drives=[{media: /a},{media: /a}]");
	refused(0, "--set storage.drives", "/a");
}

static void
numbers_that_do_not_fit(void **state)
{
	(void)state;
	set("server.backoff_min=10s");
	set("server.backoff_max=1s");
	set("server.ping_timeout=100ms");
	set("storage.eviction.low=97");
	set("network.shards=16");
	set("memory.max_size=16MiB");
	refused(0, "configuration: ", "memory.max_size");
	refused(1, "configuration: ", "backoff_max");
	refused(2, "configuration: ", "ping_interval");
	refused(3, "configuration: ", "eviction.high");
}

static void
control_socket(void **state)
{
	static char long_dir[300] = "server.data_dir=/";

	(void)state;
	set("server.control_socket=/x/y.sock");
	load();
	assert_string_equal(conf.derived.control_path, "/x/y.sock");
	args.n_sets = 0;
	memset(long_dir + strlen(long_dir), 'x', 150);
	set(long_dir);
	refused(0, "configuration: ", "server.control_socket");
}

/* Nobody who did not ask for it is refused over it. */
static void
local_socket(void **state)
{
	const struct config_derived *d = &conf.derived;
	static char longer[300];

	(void)state;
	set("local.path=-");
	load();
	assert_string_equal(d->local_path, "");
	assert_int_equal(d->local_count, 0);
	args.n_sets = 0;
	set("local.path=/x/l.sock");
	load();
	assert_string_equal(d->local_path, "/x/l.sock");
	assert_int_equal(d->front_count, d->shard_count + 1);
	set("network.shards=1");
	set("memory.max_size=16MiB");
	set("storage.block_size=4MiB");
	load();
	assert_int_equal(d->local_count, 1);
	set("rdma.devices=[a]");
	refused(0, "configuration: ", "1 for local.path");
	args.n_sets = 0;
	set("network.shards=1");
	set("memory.max_size=16MiB");
	set("rdma.devices=[a]");
	load();
	assert_string_equal(d->local_path, "");
	assert_int_equal(d->front_count, 2);
	args.n_sets = 0;
	set("server.control_socket=/x/y.sock");
	set("local.path=/x/y.sock");
	refused(0, "configuration: ", "is server.control_socket");
	args.n_sets = 0;
	snprintf(longer, sizeof(longer), "local.path=/%099d/", 0);
	set(longer);
	set("server.control_socket=/x/y.sock");
	refused(0, "--set local.path: ", "100");
	args.n_sets = 0;
	snprintf(longer, sizeof(longer), "server.data_dir=/%0*d", 150, 0);
	set(longer);
	set("server.control_socket=/x/y.sock");
	load();
	assert_string_equal(d->local_path, "");
	assert_int_equal(d->local_count, 0);
	args.n_sets = 0;
	set("server.data_dir=/x");
	set("server.control_socket=/x/memkv.sock");
	load();
	assert_string_equal(d->local_path, "");
}

static int
parse(int argc, const char *argv[], enum config_run *run_as)
{
	char why[256];

	return (config_parse_args(&args, argc, (char **)(uintptr_t)argv, run_as, why, sizeof(why)));
}

static void
command_line(void **state)
{
	const char *good[] = { "p", "--config", "/f", "--set", "a=b", "--set=c=d", "--ready-fd", "7", "--check-config" };
	const char *bad[][3] = { { "p", "--what" }, { "p", "--config" }, { "p", "--ready-fd", "x" }, { "p", "--ready-fd", "-1" }, { "p", "--set" },
		{ "p", "--configx", "y" }, { "p", "--json" }, { "p", "--json", "--show-defaults" } };
	const char *json[] = { "p", "--json", "--check-config" };
	enum config_run run_as;

	(void)state;
	assert_int_equal(parse(9, good, &run_as), 0);
	assert_string_equal(args.file, "/f");
	assert_int_equal(args.n_sets, 2);
	assert_string_equal(args.sets[1], "c=d");
	assert_int_equal(args.ready_fd, 7);
	assert_int_equal(run_as, CONFIG_CHECK);
	assert_int_equal(args.json, 0);
	assert_int_equal(parse(3, json, &run_as), 0);
	assert_int_equal(args.json, 1);
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		assert_int_equal(parse(bad[i][2] != NULL ? 3 : 2, bad[i], &run_as), MKV_E_CONFIG);
}

/* What --show-defaults prints is a configuration, and it is the one that holds without any. */
static void
shown_defaults_are_a_configuration(void **state)
{
	static struct config bare;
	FILE *f = fopen(path, "w");

	(void)state;
	config_show_defaults(f);
	assert_int_equal(fclose(f), 0);
	load();
	bare = conf;
	args.file = path;
	load();
	assert_memory_equal(&conf.params, &bare.params, sizeof(bare.params));
	assert_int_equal(conf.n_notes, 0);
}

/* Files of random pieces: refused or taken, never a crash, and a refusal says why. */
static void
any_file(void **state)
{
	static const char *const piece[] = { "network", ":", " ", "\n", "  ", "- ", "{", "}", "[", "]", ",", "storage", "drives", "media", "mode",
		"&a", "*a", "!!x", "\"", "'", "|", ">", "#", "---", "...", "\t", "\xff", "\xc3\xa4", "0", "-1", "eviction", "?", "<<", "%" };
	char text[512];
	struct rnd r;

	(void)state;
	rnd_init(&r, 7);
	for (int i = 0; i < 4000; i++) {
		size_t n = 0;

		for (unsigned k = rnd_below(&r, 40); k > 0; k--)
			n += (size_t)snprintf(text + n, sizeof(text) - n, "%s", piece[rnd_below(&r, sizeof(piece) / sizeof(piece[0]))]);
		text[n] = '\0';
		file(text);
		if (config_load(&conf, &args, &errors) != 0)
			assert_true(errors.n > 0);
		config_errors_free(&errors);
	}
}

static int
begin(void **state)
{
	(void)state;
	snprintf(path, sizeof(path), "/tmp/config_test.%d.yaml", (int)getpid());
	return (0);
}

static int
end(void **state)
{
	(void)state;
	config_errors_free(&errors);
	(void)unlink(path);
	return (0);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(nothing_at_all, fresh),
		cmocka_unit_test_setup(later_sources_win, fresh),
		cmocka_unit_test_setup(file_by_the_environment, fresh),
		cmocka_unit_test_setup(alias_of_the_key, fresh),
		cmocka_unit_test_setup(all_errors_with_their_lines, fresh),
		cmocka_unit_test_setup(errors_of_other_places, fresh),
		cmocka_unit_test_setup(all_that_is_wrong_at_once, fresh),
		cmocka_unit_test_setup(variables_that_are_no_keys, fresh),
		cmocka_unit_test_setup(secrets_do_not_show_in_complaints, fresh),
		cmocka_unit_test_setup(yaml_of_other_shapes, fresh),
		cmocka_unit_test_setup(rails, fresh),
		cmocka_unit_test_setup(yaml_that_is_refused, fresh),
		cmocka_unit_test_setup(elsewhere_needs_a_key, fresh),
		cmocka_unit_test_setup(loopback_or_not, fresh),
		cmocka_unit_test_setup(ports, fresh),
		cmocka_unit_test_setup(tls_both_or_none, fresh),
		cmocka_unit_test_setup(drives_of_each_mode, fresh),
		cmocka_unit_test_setup(numbers_that_do_not_fit, fresh),
		cmocka_unit_test_setup(control_socket, fresh),
		cmocka_unit_test_setup(local_socket, fresh),
		cmocka_unit_test_setup(command_line, fresh),
		cmocka_unit_test_setup(shown_defaults_are_a_configuration, fresh),
		cmocka_unit_test_setup(any_file, fresh),
	};

	return (cmocka_run_group_tests(tests, begin, end));
}
