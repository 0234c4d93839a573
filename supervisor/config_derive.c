/*
 * Process: supervisor, before the loop runs (and at reload, on it).
 * What the parameters mean together: addresses, places, sizes per front, drives; and what cannot be together, said with the line that fixes it.
 * What can fail: the configuration (errors), nothing else.
 */
#include "config.h"

#include "supervisor/config_priv.h"

#include <arpa/inet.h>
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/base/assert.h"
#include "common/base/os.h"
#include "common/base/units.h"

#define DRIVE_BYTES_DEFAULT	(1ull << 30)
#define DRIVE_BYTES_MIN		(32ull << 20)
#define SUN_PATH_MAX		108u
#define STAGE_EXTENTS_MIN	2u		/* a front must be able to hold so many extents, or large values would wait for themselves */

/*
 * Complaints name the file where there is one: the reader will look there first. keys: what it hangs on, with a blank between them; if one of them
 * was refused its present value says nothing, and nor do we.
 */
#define COMPLAIN(c, e, keys, fmt, ...) do { \
	if (!derive_doubtful(c, keys)) \
		config_error(e, "%s: " fmt, (c)->file[0] != '\0' ? (c)->file : "configuration", __VA_ARGS__); \
} while (0)

static int
derive_doubtful(const struct config *c, const char *keys)
{
	char key[MKV_PARAM_KEY_BYTES];
	const struct mkv_param_row *row;
	size_t n;

	for (; *keys != '\0'; keys += n + (keys[n] == ' ')) {
		n = strcspn(keys, " ");
		snprintf(key, sizeof(key), "%.*s", (int)n, keys);
		row = mkv_param_find(key);
		MKV_ASSERT(row != NULL);
		if (c->bad[row - mkv_param_rows()])
			return (1);
	}
	return (0);
}

int
config_is_loopback(const char *host)
{
	struct in6_addr six;
	struct in_addr four;

	if (inet_pton(AF_INET, host, &four) == 1)
		return ((ntohl(four.s_addr) >> 24) == 127);
	return (inet_pton(AF_INET6, host, &six) == 1 && IN6_IS_ADDR_LOOPBACK(&six));
}

char *
config_addr_text(char dst[CONFIG_ADDR_TEXT], const char *host, uint16_t port)
{
	snprintf(dst, CONFIG_ADDR_TEXT, strchr(host, ':') != NULL ? "[%s]:%u" : "%s:%u", host, port);
	return (dst);
}

static void
derive_path(char dst[CONFIG_PATH_MAX], const char *path)
{
	char cwd[CONFIG_PATH_MAX / 2];

	if (path[0] == '/' || getcwd(cwd, sizeof(cwd)) == NULL)
		snprintf(dst, CONFIG_PATH_MAX, "%s", path);
	else
		snprintf(dst, CONFIG_PATH_MAX, "%s/%s", cwd, path);
}

/* $NAME, if it is an absolute path. */
static const char *
derive_env_dir(const char *name)
{
	const char *v = getenv(name);

	return (v != NULL && v[0] == '/' ? v : NULL);
}

static void
derive_data_dir(struct config *c, struct config_errors *e)
{
	const char *xdg = derive_env_dir("XDG_DATA_HOME"), *home = derive_env_dir("HOME");
	struct config_derived *d = &c->derived;
	int n = 0;

	if (c->params.server_data_dir[0] != '\0')
		derive_path(d->data_dir, c->params.server_data_dir);
	else if (geteuid() == 0)
		n = snprintf(d->data_dir, sizeof(d->data_dir), "/var/lib/memkv");
	else if (xdg != NULL)
		n = snprintf(d->data_dir, sizeof(d->data_dir), "%s/memkv", xdg);
	else if (home != NULL)
		n = snprintf(d->data_dir, sizeof(d->data_dir), "%s/.local/share/memkv", home);
	else
		COMPLAIN(c, e, "server.data_dir", "key \"%s\": not set, and there is neither XDG_DATA_HOME nor HOME", "server.data_dir");
	if (n >= (int)sizeof(d->data_dir))
		COMPLAIN(c, e, "server.data_dir", "key \"%s\": too long", "server.data_dir");
}

/* A server with a directory of its own has its sockets there, so that several can run side by side. */
static int
derive_socket_path(const struct config *c, char dst[CONFIG_PATH_MAX], const char *given, const char *name)
{
	const char *run = derive_env_dir("XDG_RUNTIME_DIR");

	if (given[0] != '\0') {
		derive_path(dst, given);
		return ((int)strlen(dst));
	}
	if (c->params.server_data_dir[0] != '\0' || (geteuid() != 0 && run == NULL))
		return (snprintf(dst, CONFIG_PATH_MAX, "%s/%s", c->derived.data_dir, name));
	return (snprintf(dst, CONFIG_PATH_MAX, "%s/memkv/%s", geteuid() == 0 ? "/run" : run, name));
}

static void
derive_control_path(struct config *c, struct config_errors *e)
{
	struct config_derived *d = &c->derived;

	if (derive_socket_path(c, d->control_path, c->params.server_control_socket, "control.sock") >= (int)SUN_PATH_MAX)
		COMPLAIN(c, e, "server.control_socket server.data_dir",
		    "key \"server.control_socket\": \"%s\" is longer than the system allows for a socket (%u); set it to a shorter path",
		    d->control_path, SUN_PATH_MAX - 1);
}

static void
derive_local_path(struct config *c, struct config_errors *e)
{
	struct config_derived *d = &c->derived;
	int is_long, is_control;

	if (strcmp(c->params.local_path, "-") == 0)
		return;
	is_long = derive_socket_path(c, d->local_path, c->params.local_path, "memkv.sock") >= (int)SUN_PATH_MAX;
	is_control = strcmp(d->local_path, d->control_path) == 0;
	if (c->params.local_path[0] == '\0' && (is_long || is_control))
		d->local_path[0] = '\0';		/* nobody has asked for it */
	else if (is_long)
		COMPLAIN(c, e, "local.path server.data_dir",
		    "key \"local.path\": \"%s\" is longer than the system allows for a socket (%u); set it to a shorter path, or to - for none",
		    d->local_path, SUN_PATH_MAX - 1);
	else if (is_control)
		COMPLAIN(c, e, "local.path server.control_socket", "key \"local.path\": \"%s\" is server.control_socket; set it to another path", d->local_path);
}

static void
derive_addresses(struct config *c, struct config_errors *e)
{
	struct config_derived *d = &c->derived;
	const struct mkv_params *p = &c->params;

	d->data = p->network_address;
	d->admin = p->admin_address;
	if (d->admin.host[0] == '\0') {
		d->admin = d->data;
		d->admin.port = d->data.port == 0 ? 0 : (uint16_t)(d->data.port + 1);
		if (d->data.port == UINT16_MAX)
			COMPLAIN(c, e, "network.address admin.address",
			    "key \"network.address\": port %u leaves none for the admin port; set admin.address", d->data.port);
	} else if (p->admin_enabled && d->admin.port != 0 && d->admin.port == d->data.port && strcmp(d->admin.host, d->data.host) == 0)
		COMPLAIN(c, e, "network.address admin.address",
		    "key \"admin.address\": \"%s:%u\" is the data address; choose another port", d->admin.host, d->admin.port);
	d->loopback = config_is_loopback(d->data.host);
	d->explicit_key = p->network_auth_key[0] != '\0';
	if (!d->loopback && !d->explicit_key)
		COMPLAIN(c, e, "network.address network.auth_key",
		    "key \"network.address\": \"%s:%u\" can be reached from elsewhere and needs a key of your own. Make one with\n"
		    "    openssl rand -hex 32\nand put it in the file\n    network:\n      auth_key: \"<the 64 digits>\"\n"
		    "or in the environment as MEMKV_AUTH_KEY; or bind to 127.0.0.1", d->data.host, d->data.port);
	if ((p->network_tls_cert[0] != '\0') != (p->network_tls_key[0] != '\0'))
		COMPLAIN(c, e, "network.tls_cert network.tls_key",
		    "key \"%s\": only one of network.tls_cert and network.tls_key is set; set both or none",
		    p->network_tls_cert[0] != '\0' ? "network.tls_cert" : "network.tls_key");
	if (p->network_tls_cert[0] != '\0' && access(p->network_tls_cert, R_OK) != 0)
		COMPLAIN(c, e, "network.tls_cert", "key \"network.tls_cert\": \"%s\": %s", p->network_tls_cert, strerror(errno));
	if (p->network_tls_key[0] != '\0' && access(p->network_tls_key, R_OK) != 0)
		COMPLAIN(c, e, "network.tls_key", "key \"network.tls_key\": \"%s\": %s", p->network_tls_key, strerror(errno));
}

/* A device's name becomes part of its front's, which is typed in a shell and ends a log line's word. */
static int
derive_device_name(const char *name)
{
	return (strspn(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.-") == strlen(name) && strlen(name) < CONFIG_DEVICE_BYTES);
}

static void
derive_rails(struct config *c, struct config_errors *e)
{
	const struct mkv_param_list *l = &c->params.rdma_devices;

	if (l->count > CONFIG_RAILS_MAX)
		COMPLAIN(c, e, "rdma.devices", "key \"rdma.devices\": %u devices; one server has at most %u", l->count, CONFIG_RAILS_MAX);
	for (unsigned i = 0; i < l->count; i++) {
		if (!derive_device_name(l->item[i]))
			COMPLAIN(c, e, "rdma.devices", "key \"rdma.devices\": \"%s\" is not the name of a device: at most %u letters, digits, _ . -",
			    l->item[i], CONFIG_DEVICE_BYTES - 1);
		for (unsigned j = 0; j < i; j++)
			if (strcmp(l->item[i], l->item[j]) == 0)
				COMPLAIN(c, e, "rdma.devices", "key \"rdma.devices\": \"%s\" is given twice", l->item[i]);
	}
	c->derived.rail_count = MKV_MIN(l->count, CONFIG_RAILS_MAX);
}

static void
derive_stage(struct config_derived *d, const struct mkv_params *p)
{
	d->front_count = d->shard_count + d->rail_count + d->local_count;
	d->stage_data_bytes = p->memory_max_size / d->front_count / p->memory_block_size * p->memory_block_size;
}

static void
derive_fronts(struct config *c, struct config_errors *e)
{
	struct config_derived *d = &c->derived;
	const struct mkv_params *p = &c->params;
	uint32_t cpus = (uint32_t)MKV_MAX(mkv_os_cpu_count(), 1);
	uint64_t need;

	derive_rails(c, e);
	d->shard_count = p->network_shards;
	if (d->shard_count == 0)
		d->shard_count = MKV_MAX(1, MKV_MIN(4, cpus / 4));
	need = STAGE_EXTENTS_MIN * MKV_MAX(p->storage_block_size, p->memory_block_size);
	d->local_count = d->local_path[0] != '\0';
	derive_stage(d, p);
	if (d->stage_data_bytes < need && d->local_count > 0 && p->local_path[0] == '\0') {
		d->local_path[0] = '\0';	/* nobody has asked for it */
		d->local_count = 0;
		derive_stage(d, p);
	}
	if (d->stage_data_bytes < need)
		COMPLAIN(c, e, "memory.max_size memory.block_size storage.block_size network.shards rdma.devices local.path",
		    "key \"memory.max_size\": %" PRIu64 " bytes for %u front processes (%u for TCP, %u for rdma.devices, %u for local.path) are too little; with "
		    "storage.block_size %" PRIu64 " at least %" PRIu64 " are needed", p->memory_max_size, d->front_count, d->shard_count,
		    d->rail_count, d->local_count, p->storage_block_size, need * d->front_count);
}

static void
derive_default_drive(struct config *c, struct config_errors *e)
{
	struct config_derived *d = &c->derived;

	if (c->params.storage_mode == MKV_STORAGE_DIRECT) {
		COMPLAIN(c, e, "storage.drives storage.mode",
		    "key \"storage.drives\": missing; %s", "storage.mode direct needs the block devices: drives: [{media: /dev/nvme0n1}]");
		return;
	}
	d->drive_count = 1;
	d->drive[0].max_size = DRIVE_BYTES_DEFAULT;
	d->drive[0].weight = 1;
	if (c->params.storage_mode == MKV_STORAGE_MEMORY)
		strcpy(d->drive[0].media, "arena0");
	else if (snprintf(d->drive[0].media, CONFIG_PATH_MAX, "%s/drive0.dat", d->data_dir) >= (int)CONFIG_PATH_MAX)
		COMPLAIN(c, e, "server.data_dir", "key \"%s\": too long", "server.data_dir");
}

uint64_t
config_drive_least(const struct mkv_params *p)
{
	return (MKV_MAX((uint64_t)DRIVE_BYTES_MIN, 8 * p->storage_block_size));
}

/* Sizes that were not given, sizes that cannot be. */
static void
derive_drive_size(struct config *c, struct config_errors *e, struct config_drive *dr)
{
	const uint64_t least = config_drive_least(&c->params);
	uint64_t given = dr->max_size;

	if (c->params.storage_mode == MKV_STORAGE_DIRECT)
		return;
	if (dr->max_size == 0)
		dr->max_size = c->params.storage_file_size_gb > 0 ? c->params.storage_file_size_gb << 30 : DRIVE_BYTES_DEFAULT;
	dr->max_size &= ~(uint64_t)4095;
	if (dr->max_size < least)
		COMPLAIN(c, e, "storage.drives storage.mode storage.block_size storage.file_size_gb",
		    "key \"storage.drives[].max_size\": %" PRIu64 " bytes for \"%s\" are too little; at least %" PRIu64 " are needed",
		    given, dr->media, least);
}

static void
derive_drives(struct config *c, struct config_errors *e)
{
	struct config_derived *d = &c->derived;
	const struct mkv_params *p = &c->params;

	d->drive_count = p->n_drives;
	for (uint32_t i = 0; i < p->n_drives; i++) {
		struct config_drive *dr = &d->drive[i];

		if (p->storage_mode == MKV_STORAGE_MEMORY)
			snprintf(dr->media, sizeof(dr->media), "%s", p->drives[i].media);
		else
			derive_path(dr->media, p->drives[i].media);
		dr->max_size = p->drives[i].max_size;
		dr->weight = p->drives[i].weight;
		for (uint32_t j = 0; j < i; j++)
			if (strcmp(d->drive[j].media, dr->media) == 0)
				COMPLAIN(c, e, "storage.drives", "key \"storage.drives[].media\": \"%s\" is given twice", dr->media);
	}
	if (d->drive_count == 0)
		derive_default_drive(c, e);
	for (uint32_t i = 0; i < d->drive_count; i++)
		derive_drive_size(c, e, &d->drive[i]);
	if (p->storage_file_size_gb > 0 && d->drive_count > 1)
		COMPLAIN(c, e, "storage.file_size_gb storage.drives",
		    "key \"storage.file_size_gb\": means one file, but there are %u drives; use max_size of each", d->drive_count);
}

static void
derive_limits(struct config *c, struct config_errors *e)
{
	const struct mkv_params *p = &c->params;

	if (p->server_backoff_min > p->server_backoff_max)
		COMPLAIN(c, e, "server.backoff_min server.backoff_max", "key \"%s\": is above server.backoff_max", "server.backoff_min");
	if (p->server_ping_timeout < p->server_ping_interval)
		COMPLAIN(c, e, "server.ping_timeout server.ping_interval", "key \"%s\": is below server.ping_interval", "server.ping_timeout");
	if (p->storage_eviction_low >= p->storage_eviction_high)
		COMPLAIN(c, e, "storage.eviction.low storage.eviction.high",
		    "key \"storage.eviction.low\": %u is not below storage.eviction.high (%u)", p->storage_eviction_low,
		    p->storage_eviction_high);
	if (p->storage_file_size_gb > 0 && p->storage_mode != MKV_STORAGE_FILE)
		COMPLAIN(c, e, "storage.file_size_gb storage.mode", "key \"%s\": is for storage.mode file", "storage.file_size_gb");
}

void
config_derive(struct config *c, struct config_errors *e)
{
	memset(&c->derived, 0, sizeof(c->derived));
	derive_data_dir(c, e);
	derive_control_path(c, e);
	derive_local_path(c, e);
	derive_addresses(c, e);
	derive_fronts(c, e);
	derive_drives(c, e);
	derive_limits(c, e);
}
