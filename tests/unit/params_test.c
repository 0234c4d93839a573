/*
 * Configuration: the table is sound, every default is read back, every type takes and refuses what it should, complaints help and keep
 * secrets.
 */
#include "config.h"
#include "common/base/params.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "common/base/assert.h"
#include "common/base/err.h"
#include "common/base/log.h"
#include "tests/lib/rnd.h"

static struct mkv_params p, before;
static char why[MKV_PARAM_WHY_BYTES];

static int
defaults(void **state)
{
	(void)state;
	memset(&p, 0xa5, sizeof(p));
	mkv_params_defaults(&p);
	why[0] = '\0';
	return (0);
}

static void
good(const char *key, const char *value)
{
	if (mkv_params_set(&p, key, value, why, sizeof(why)) != 0)
		fail_msg("%s", why);
}

/* Refused, nothing changed, the complaint holds `says`. */
static void
bad(const char *key, const char *value, const char *says)
{
	before = p;
	assert_int_equal(mkv_params_set(&p, key, value, why, sizeof(why)), MKV_E_CONFIG);
	assert_memory_equal(&p, &before, sizeof(p));
	if (strstr(why, says) == NULL)
		fail_msg("\"%s\" lacks \"%s\"", why, says);
}

static void
table_is_sound(void **state)
{
	const struct mkv_param_row *row = mkv_param_rows();
	char name[96], text[MKV_PARAM_TEXT_BYTES];

	(void)state;
	for (unsigned i = 0; i < mkv_param_count(); i++) {
		assert_ptr_equal(mkv_param_find(row[i].key), &row[i]);	/* no key twice */
		assert_non_null(strchr(row[i].key, '.'));
		assert_true(strlen(row[i].key) < MKV_PARAM_KEY_BYTES);
		assert_true(strlen(row[i].help) > 10 && row[i].help[strlen(row[i].help) - 1] == '.');
		mkv_params_env_name(row[i].key, name, sizeof(name));
		assert_int_equal(strncmp(name, "MEMKV_", 6), 0);
		assert_int_equal(strspn(name, "ABCDEFGHIJKLMNOPQRSTUVWXYZ_0123456789"), strlen(name));
		assert_true(strlen(mkv_param_allowed(&row[i], text, sizeof(text))) > 5);
	}
	assert_null(mkv_param_find("drive"));
}

static void
defaults_are_read_back(void **state)
{
	const struct mkv_param_row *row = mkv_param_rows();
	char text[MKV_PARAM_TEXT_BYTES];
	struct mkv_params again;

	(void)state;
	memset(&again, 0, sizeof(again));
	for (unsigned i = 0; i < mkv_param_count(); i++) {
		if (row[i].type == MKV_PARAM_SECRET) {
			assert_int_equal(mkv_params_get_text(&p, &row[i], text, sizeof(text)), MKV_E_DENIED);
			continue;
		}
		if (row[i].type == MKV_PARAM_DRIVES) {
			assert_int_equal(mkv_params_get_text(&p, &row[i], text, sizeof(text)), MKV_E_UNSUPPORTED);
			continue;
		}
		assert_int_equal(mkv_params_get_text(&p, &row[i], text, sizeof(text)), 0);
		assert_string_equal(text, row[i].def);	/* defaults are written the way we write */
		assert_int_equal(mkv_params_set(&again, row[i].key, text, why, sizeof(why)), 0);
	}
	assert_memory_equal(&again, &p, sizeof(p));
	assert_int_equal(mkv_params_get_text(&p, mkv_param_find("network.address"), text, 5), MKV_E_TOOBIG);
}

static void
numbers(void **state)
{
	(void)state;
	good("drive.queue_depth", "1");
	good("drive.queue_depth", "4096");
	assert_int_equal(p.drive_queue_depth, 4096);
	bad("drive.queue_depth", "0", "drive.queue_depth: \"0\" is not allowed; allowed is a whole number from 1 to 4096 (requests)");
	bad("drive.queue_depth", "4097", "\"4097\"");
	bad("drive.queue_depth", "", "\"\"");
	bad("drive.queue_depth", "-1", "\"-1\"");
	bad("drive.queue_depth", " 1", "\" 1\"");
	bad("drive.queue_depth", "4294967297", "1 to 4096");
	bad("drive.queue_depth", "99999999999999999999999", "1 to 4096");
	good("rdma.gid_index", "3");
	assert_int_equal(p.rdma_gid_index, 3);
	good("rdma.gid_index", "auto");
	assert_int_equal(p.rdma_gid_index, -1);
	bad("rdma.gid_index", "Auto", "\"auto\" or a whole number from 0 to 255");
	bad("rdma.gid_index", "256", "0 to 255");
}

static void
sizes_and_durations(void **state)
{
	(void)state;
	good("memory.max_size", "247 GiB");
	assert_true(p.memory_max_size == 247ull << 30);
	bad("memory.max_size", "1MiB", "16MiB to 4TiB");
	bad("memory.max_size", "lots", "\"lots\"");
	good("storage.block_size", "1 MiB");
	assert_true(p.storage_block_size == 1ull << 20);
	bad("storage.block_size", "3MiB", "power of two");
	bad("storage.block_size", "8MiB", "256KiB to 4MiB");
	good("drive.drain_timeout", "1500ms");
	assert_true(p.drive_drain_timeout == 1500000);
	bad("drive.drain_timeout", "10", "a duration from 100ms to 10m");
	bad("drive.drain_timeout", "1us", "100ms");
}

static void
choices(void **state)
{
	static const struct {
		const char	*key, *value;
		size_t		off;
		int		want;
	} c[] = {
		{ "storage.mode", "direct", offsetof(struct mkv_params, storage_mode), MKV_STORAGE_DIRECT },
		{ "storage.mode", "file", offsetof(struct mkv_params, storage_mode), MKV_STORAGE_FILE },
		{ "storage.mode", "memory", offsetof(struct mkv_params, storage_mode), MKV_STORAGE_MEMORY },
		{ "storage.io", "auto", offsetof(struct mkv_params, storage_io), MKV_STORAGE_IO_AUTO },
		{ "storage.io", "uring", offsetof(struct mkv_params, storage_io), MKV_STORAGE_IO_URING },
		{ "storage.io", "threads", offsetof(struct mkv_params, storage_io), MKV_STORAGE_IO_THREADS },
		{ "storage.durability", "commit", offsetof(struct mkv_params, storage_durability), MKV_DURABILITY_COMMIT },
		{ "storage.durability", "accepted", offsetof(struct mkv_params, storage_durability), MKV_DURABILITY_ACCEPTED },
		{ "memory.hugepages", "auto", offsetof(struct mkv_params, memory_hugepages), MKV_HUGEPAGES_AUTO },
		{ "memory.hugepages", "require", offsetof(struct mkv_params, memory_hugepages), MKV_HUGEPAGES_REQUIRE },
		{ "memory.hugepages", "off", offsetof(struct mkv_params, memory_hugepages), MKV_HUGEPAGES_OFF },
		{ "log.format", "logfmt", offsetof(struct mkv_params, log_format), MKV_LOG_FORMAT_LOGFMT },
		{ "log.format", "json", offsetof(struct mkv_params, log_format), MKV_LOG_FORMAT_JSON },
		{ "log.level", "debug", offsetof(struct mkv_params, log_level), MKV_LOG_DEBUG },
		{ "log.level", "error", offsetof(struct mkv_params, log_level), MKV_LOG_ERROR },
	};

	(void)state;
	for (size_t i = 0; i < MKV_ARRAY_LEN(c); i++) {
		good(c[i].key, c[i].value);
		assert_int_equal(*(int *)((char *)&p + c[i].off), c[i].want);
	}
	bad("storage.mode", "files", "one of direct|file|memory");
	bad("storage.mode", "direct|file", "one of");
	bad("storage.mode", "", "one of");
	good("storage.eviction.enabled", "no");
	assert_int_equal(p.storage_eviction_enabled, 0);
	good("storage.eviction.enabled", "True");
	assert_int_equal(p.storage_eviction_enabled, 1);
	bad("storage.eviction.enabled", "1", "true or false");
}

static void
texts_and_addresses(void **state)
{
	char big[400];

	(void)state;
	good("server.data_dir", "/srv/memkv data");
	assert_string_equal(p.server_data_dir, "/srv/memkv data");
	memset(big, 'x', sizeof(big));
	big[256] = '\0';
	bad("server.data_dir", big, "at most 255 bytes");
	big[255] = '\0';
	good("server.data_dir", big);
	bad("server.data_dir", "a\nb", "control characters");
	good("network.address", "0.0.0.0:0");
	assert_string_equal(p.network_address.host, "0.0.0.0");
	assert_int_equal(p.network_address.port, 0);
	good("network.address", "[fe80::1]:9900");
	assert_string_equal(p.network_address.host, "fe80::1");
	bad("network.address", "", "127.0.0.1:9900 or");
	good("admin.address", "127.0.0.1:1");
	good("admin.address", "");
	assert_string_equal(p.admin_address.host, "");
	for (unsigned i = 0; i < 10; i++) {
		static const char *const no[] = { "localhost:9900", "127.0.0.1", "127.0.0.1:", "127.0.0.1:65536", "1.2.3:4", ":9900", "[::1]", "[::1:9",
			"::1:9900", "[127.0.0.1]:9900" };

		bad("network.address", no[i], "numeric address");
	}
}

static void
lists(void **state)
{
	char text[MKV_PARAM_TEXT_BYTES], many[200] = "";

	(void)state;
	good("rdma.devices", "[rocep1s0f0, \"roceP2p1s0f0\" , 'x',]");
	assert_int_equal(p.rdma_devices.count, 3);
	assert_string_equal(p.rdma_devices.item[1], "roceP2p1s0f0");
	assert_int_equal(mkv_params_get_text(&p, mkv_param_find("rdma.devices"), text, sizeof(text)), 0);
	assert_string_equal(text, "rocep1s0f0,roceP2p1s0f0,x");
	good("rdma.devices", " ");
	assert_int_equal(p.rdma_devices.count, 0);
	good("rdma.devices", "[]");
	bad("rdma.devices", "a,,b", "separated by commas");
	bad("rdma.devices", "a,\"\"", "separated by commas");
	for (unsigned i = 0; i < 17; i++)
		strcat(many, i != 0 ? ",m" : "m");
	bad("rdma.devices", many, "at most 16");
	bad("rdma.devices", "0123456789012345678901234567890123456789012345678901234567890123", "at most 63 bytes");
}

static void
older_device_key(void **state)
{
	(void)state;
	good("rdma.device", "mlx5_0");
	assert_int_equal(p.rdma_devices.count, 1);
	assert_string_equal(p.rdma_devices.item[0], "mlx5_0");
	good("rdma.device", "mlx5_1");		/* a later source wins */
	assert_string_equal(p.rdma_devices.item[0], "mlx5_1");
	good("rdma.devices", "a,b");
	good("rdma.device", "mlx5_2");
	assert_int_equal(p.rdma_devices.count, 2);
	assert_int_equal(mkv_param_find("rdma.num_worker_threads")->scope, MKV_PARAM_IGNORED);
}

static void
secrets_stay_secret(void **state)
{
	static const char key[] = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";

	(void)state;
	bad("network.auth_key", "secretsecret", "64 hex digits");
	assert_null(strstr(why, "secretsecret"));
	good("network.auth_key", key);
	assert_string_equal(p.network_auth_key, key);
	mkv_params_wipe(&p);
	for (unsigned i = 0; i < sizeof(p.network_auth_key); i++)
		assert_int_equal(p.network_auth_key[i], 0);
	good("network.auth_key", key);
	good("network.auth_key", "");
	assert_string_equal(p.network_auth_key, "");
}

static void
unknown_keys(void **state)
{
	(void)state;
	bad("drive.queue_dept", "1", "the nearest known key is drive.queue_depth (");
	bad("netwrok.adress", "1", "network.address");
	bad("queue_depth", "1", "drive.queue_depth");
	bad("server.queue_depth", "1", "drive.queue_depth");
	bad("storage.evict.high", "1", "storage.eviction.high");
	bad("completely_else", "1", "--show-defaults");
	bad("", "1", "unknown key \"\"");
	bad("0123456789012345678901234567890123456789012345678901234567890123456789", "1", "unknown key");
	bad("storage.drives", "x", "{media: PATH or NAME");
}

static void
drives(void **state)
{
	char name[16], big[300];

	(void)state;
	assert_int_equal(mkv_params_add_drive(&p, "/dev/nvme0n1", NULL, NULL, why, sizeof(why)), 0);
	assert_int_equal(mkv_params_add_drive(&p, "/dev/nvme1n1", "1 TiB", "0.5", why, sizeof(why)), 0);
	assert_int_equal(p.n_drives, 2);
	assert_string_equal(p.drives[1].media, "/dev/nvme1n1");
	assert_true(p.drives[1].max_size == 1ull << 40 && p.drives[1].weight == 0.5 && p.drives[0].weight == 1);
	assert_int_equal(mkv_params_add_drive(&p, "/dev/nvme1n1", "", "", why, sizeof(why)), MKV_E_CONFIG);
	assert_non_null(strstr(why, "twice"));
	memset(big, 'x', sizeof(big));
	big[256] = '\0';
	assert_int_equal(mkv_params_add_drive(&p, big, NULL, NULL, why, sizeof(why)), MKV_E_CONFIG);
	assert_int_equal(mkv_params_add_drive(&p, "", NULL, NULL, why, sizeof(why)), MKV_E_CONFIG);
	assert_int_equal(mkv_params_add_drive(&p, NULL, NULL, NULL, why, sizeof(why)), MKV_E_CONFIG);
	assert_int_equal(mkv_params_add_drive(&p, "a", "0", NULL, why, sizeof(why)), MKV_E_CONFIG);
	assert_int_equal(mkv_params_add_drive(&p, "a", "big", NULL, why, sizeof(why)), MKV_E_CONFIG);
	for (unsigned i = 0; i < 6; i++) {
		static const char *const no[] = { "-1", "nan", "inf", "1001", "1x", " 1" };

		assert_int_equal(mkv_params_add_drive(&p, "a", NULL, no[i], why, sizeof(why)), MKV_E_CONFIG);
		assert_non_null(strstr(why, no[i]));
	}
	for (unsigned i = 2; i < MKV_PARAM_DRIVES_MAX; i++) {
		snprintf(name, sizeof(name), "m%u", i);
		assert_int_equal(mkv_params_add_drive(&p, name, NULL, NULL, why, sizeof(why)), 0);
	}
	assert_int_equal(mkv_params_add_drive(&p, "one more", NULL, NULL, why, sizeof(why)), MKV_E_CONFIG);
	assert_int_equal(p.n_drives, MKV_PARAM_DRIVES_MAX);
}

static void
names_in_the_environment(void **state)
{
	char name[64], small[8];

	(void)state;
	assert_string_equal(mkv_params_env_name("network.auth_key", name, sizeof(name)), "MEMKV_NETWORK_AUTH_KEY");
	assert_string_equal(mkv_params_env_name("rdma.devices", name, sizeof(name)), "MEMKV_RDMA_DEVICES");
	assert_string_equal(mkv_params_env_name("network.auth_key", small, sizeof(small)), "MEMKV_N");
	assert_string_equal(mkv_params_env_alias("network.auth_key"), "MEMKV_AUTH_KEY");
	assert_null(mkv_params_env_alias("network.address"));
}

/* Any text for any key: it is taken and can be read back, or refused with a sentence; long or wild texts do no harm. */
static void
any_text_for_any_key(void **state)
{
	static const char set[] = "0123456789abcKMGTiBsmhud.,:[]\"' -_=\n\x7f\xff";
	const struct mkv_param_row *row;
	char value[700], text[MKV_PARAM_TEXT_BYTES], back[MKV_PARAM_TEXT_BYTES];
	struct rnd r;
	size_t n;

	(void)state;
	rnd_init(&r, 13);
	for (unsigned i = 0; i < 40000; i++) {
		row = &mkv_param_rows()[rnd_below(&r, mkv_param_count())];
		n = rnd_below(&r, i % 16 ? 8 : sizeof(value) - 1);
		for (size_t j = 0; j < n; j++)
			value[j] = set[rnd_below(&r, sizeof(set) - 1)];
		value[n] = '\0';
		memset(why, 'W', sizeof(why));
		if (mkv_params_set(&p, row->key, value, why, sizeof(why)) != 0) {
			assert_non_null(memchr(why, '\0', sizeof(why)));
			assert_non_null(strstr(why, row->key));
			continue;
		}
		if (row->type == MKV_PARAM_SECRET)
			continue;
		assert_int_equal(mkv_params_get_text(&p, row, text, sizeof(text)), 0);
		assert_int_equal(mkv_params_set(&p, row->key, text, why, sizeof(why)), 0);
		assert_int_equal(mkv_params_get_text(&p, row, back, sizeof(back)), 0);
		assert_string_equal(text, back);
	}
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(table_is_sound, defaults),
		cmocka_unit_test_setup(defaults_are_read_back, defaults),
		cmocka_unit_test_setup(numbers, defaults),
		cmocka_unit_test_setup(sizes_and_durations, defaults),
		cmocka_unit_test_setup(choices, defaults),
		cmocka_unit_test_setup(texts_and_addresses, defaults),
		cmocka_unit_test_setup(lists, defaults),
		cmocka_unit_test_setup(older_device_key, defaults),
		cmocka_unit_test_setup(secrets_stay_secret, defaults),
		cmocka_unit_test_setup(unknown_keys, defaults),
		cmocka_unit_test_setup(drives, defaults),
		cmocka_unit_test_setup(names_in_the_environment, defaults),
		cmocka_unit_test_setup(any_text_for_any_key, defaults),
	};

	return (cmocka_run_group_tests(tests, NULL, NULL));
}
