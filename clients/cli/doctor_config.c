/*
 * memkv doctor: what the server would have (asked of its own checker), keys, ports. Fills the fields of struct doctor that the other checks go by.
 * Foreign bytes: the checker's answer; what it lacks stays at its default. The key itself is never read here, only that there is one.
 */
#include "config.h"
#include "clients/cli/doctor_priv.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define CONFIG_FILE_DEFAULT	"/etc/memkv/config.yaml"	/* of the server */
#define CONFIG_DATA_DEFAULT	"127.0.0.1"
#define CONFIG_PORT_DEFAULT	9900u

/* ---- the configuration ---- */

void
doctor_config_defaults(struct doctor *d)
{
	mkv_params_defaults(&d->params);
	snprintf(d->data_host, sizeof(d->data_host), "%s", CONFIG_DATA_DEFAULT);
	snprintf(d->admin_host, sizeof(d->admin_host), "%s", CONFIG_DATA_DEFAULT);
	d->data_port = CONFIG_PORT_DEFAULT;
	d->admin_port = CONFIG_PORT_DEFAULT + 1;
	d->fronts = 1;
	d->shared_bytes = d->staging_bytes = d->params.memory_max_size;
	d->memory_bytes = d->staging_bytes + d->params.storage_page_cache;
}

static uint64_t
config_number(const struct doctor *d, const char *name, uint64_t otherwise)
{
	json_int_t v = json_integer_value(json_object_get(d->answer, name));

	return (v > 0 ? (uint64_t)v : otherwise);
}

static void
config_address(const struct doctor *d, const char *name, char host[64], uint16_t *port)
{
	json_t *a = json_object_get(d->answer, name);
	const char *h = json_string_value(json_object_get(a, "host"));
	json_int_t p = json_integer_value(json_object_get(a, "port"));

	if (h == NULL || h[0] == '\0' || p < 0 || p > UINT16_MAX)
		return;
	snprintf(host, 64, "%s", h);
	*port = (uint16_t)p;
}

static void
config_take(struct doctor *d)
{
	char why[MKV_PARAM_WHY_BYTES], size[32];
	const char *key, *file = json_string_value(json_object_get(d->answer, "file"));
	const char *directory = json_string_value(json_object_get(d->answer, "data_dir"));
	json_t *v;
	size_t i;

	snprintf(d->file, sizeof(d->file), "%s", file != NULL ? file : "");
	snprintf(d->data_dir, sizeof(d->data_dir), "%s", directory != NULL ? directory : "");
	json_object_foreach(json_object_get(d->answer, "keys"), key, v)
		if (json_string_value(v) != NULL)
			(void)mkv_params_set(&d->params, key, json_string_value(v), why, sizeof(why));
	json_array_foreach(json_object_get(d->answer, "drives"), i, v) {
		const char *media = json_string_value(json_object_get(v, "media"));
		long long bytes = json_integer_value(json_object_get(v, "max_size"));

		snprintf(size, sizeof(size), "%lld", bytes);
		if (media != NULL)
			(void)mkv_params_add_drive(&d->params, media, bytes > 0 ? size : NULL, NULL, why, sizeof(why));
	}
	config_address(d, "data", d->data_host, &d->data_port);
	config_address(d, "admin", d->admin_host, &d->admin_port);
	d->fronts = (uint32_t)MKV_MIN(config_number(d, "fronts", 1), (uint64_t)UINT16_MAX);
	d->staging_bytes = config_number(d, "staging_bytes", d->staging_bytes);
	d->shared_bytes = config_number(d, "shared_bytes", d->staging_bytes);
	d->memory_bytes = config_number(d, "memory_bytes", d->memory_bytes);
	d->huge_bytes = config_number(d, "huge_bytes", 0);
	d->huge_short = json_string_value(json_object_get(d->answer, "huge_short"));
	d->budget = json_string_value(json_object_get(d->answer, "budget"));
	d->explicit_key = json_is_true(json_object_get(d->answer, "auth_key"));
}

static void
config_complaints(struct doctor *d)
{
	const char *file = d->file[0] != '\0' ? d->file : d->config_file != NULL ? d->config_file : CONFIG_FILE_DEFAULT;
	json_t *v, *list = json_object_get(d->answer, "errors");
	unsigned before = d->n_found + d->lost;
	const char *text;
	size_t i;

	json_array_foreach(list, i, v)
		if (d->budget == NULL || json_string_value(v) == NULL || strcmp(d->budget, json_string_value(v)) != 0)	/* that is said of the memory */
			doctor_say(d, DOCTOR_CONFIG_INVALID, DOCTOR_ARGS(file), "%s", json_string_value(v) != NULL ? json_string_value(v) : "a complaint that is no text");
	json_array_foreach(json_object_get(d->answer, "strays"), i, v)
		if ((text = json_string_value(json_object_get(v, "text"))) != NULL)
			doctor_say(d, DOCTOR_CONFIG_STRAY, DOCTOR_ARGS(json_string_value(json_object_get(v, "name"))), "%s", text);
	if (d->n_found + d->lost == before)
		doctor_ok(d, "%s", d->file[0] != '\0' ? d->file : "no file: the defaults, as `memkv config --show-defaults` prints them");
}

void
doctor_config(struct doctor *d)
{
	const char *named = d->config_file != NULL ? d->config_file : d->ops->env("MEMKV_CONFIG");
	const char *file = named != NULL && named[0] != '\0' ? named : CONFIG_FILE_DEFAULT;
	char why[DOCTOR_TEXT_BYTES] = "";

	if (doctor_may(d, R_OK, "%s", file) == -EACCES) {
		doctor_say(d, DOCTOR_CONFIG_UNREADABLE, DOCTOR_ARGS(file), "%s may not be read by user %d", file, d->ops->uid());
		return;
	}
	d->answer = d->ops->config(d, d->config_file, why, sizeof(why));
	if (!json_is_object(d->answer)) {
		json_decref(d->answer);
		d->answer = NULL;
		doctor_say(d, DOCTOR_CONFIG_UNCHECKED, NULL, "%s", why[0] != '\0' ? why : "the server's checker gave no answer");
		return;
	}
	config_take(d);
	config_complaints(d);
}

/* ---- the client ---- */

/* One variable names the file of either: where the server's checker took it, it is no client's. */
static int
client_has_none(const struct doctor *d)
{
	const char *named = d->ops->env("MEMKV_CONFIG");

	return ((d->scope & DOCTOR_SERVER) != 0 && named != NULL && named[0] != '\0' && d->config_file == NULL);
}

void
doctor_client(struct doctor *d)
{
	const char *file = (d->scope & DOCTOR_SERVER) != 0 ? NULL : d->config_file;
	char why[DOCTOR_TEXT_BYTES] = "";

	if (client_has_none(d))
		doctor_ok(d, "MEMKV_CONFIG is taken for the server's; memkv doctor --client takes it for the client's");
	else if (d->ops->client(file, why, sizeof(why)) != 0)
		doctor_say(d, DOCTOR_CLIENT_REFUSED, NULL, "%s", why);
	else if (why[0] != '\0')
		doctor_say(d, DOCTOR_CLIENT_WITHOUT, NULL, "%s", why);
	else
		doctor_ok(d, "a handle opens");
}

/* ---- keys ---- */

static int
auth_loopback(const char *host)
{
	struct in6_addr six;
	struct in_addr four;

	if (inet_pton(AF_INET, host, &four) == 1)
		return ((ntohl(four.s_addr) >> 24) == 127);
	return (strcmp(host, "localhost") == 0 || (inet_pton(AF_INET6, host, &six) == 1 && IN6_IS_ADDR_LOOPBACK(&six)));
}

static int
auth_given(const struct doctor *d, const char *name)
{
	const char *v = d->ops->env(name);

	return (v != NULL && v[0] != '\0');
}

static void
auth_server(struct doctor *d)
{
	mode_t mode;

	if (!auth_loopback(d->data_host) && !d->explicit_key)
		doctor_say(d, DOCTOR_AUTH_NO_KEY, NULL, "network.address is %s:%u and network.auth_key is not set", d->data_host, d->data_port);
	else
		doctor_ok(d, "server: %s, %s", d->data_host, d->explicit_key ? "a key of its own" : "the key of this host");
	if (!d->explicit_key || d->file[0] == '\0' || auth_given(d, "MEMKV_AUTH_KEY") || auth_given(d, "MEMKV_NETWORK_AUTH_KEY"))
		return;
	mode = doctor_mode(d, "%s", d->file);
	if ((mode & (S_IROTH | S_IWOTH)) != 0)
		doctor_say(d, DOCTOR_AUTH_OPEN_FILE, DOCTOR_ARGS(d->file), "%s holds network.auth_key and has mode %04o", d->file, (unsigned)mode & 07777);
}

/* The first of "NAME=host:port,[v6]:port" that is not on this host, as one by its unix socket always is; 0: none. */
static int
auth_elsewhere(const char *servers, char host[64])
{
	size_t n;

	for (const char *s = servers; *s != '\0'; s += n) {
		const char *at, *colon;

		s += strspn(s, ", \t");
		n = strcspn(s, ", \t");
		at = memchr(s, '=', n);
		at = at != NULL ? at + 1 : s;
		colon = memrchr(at, ':', n - (size_t)(at - s));
		if (n == 0 || colon == NULL || strncmp(at, "local://", 8) == 0)
			continue;
		snprintf(host, 64, "%.*s", (int)MKV_MIN(colon - at, (ptrdiff_t)63), at);
		if (host[0] == '[') {
			memmove(host, host + 1, strlen(host));
			host[strcspn(host, "]")] = '\0';
		}
		if (!auth_loopback(host))
			return (1);
	}
	return (0);
}

static void
auth_client(struct doctor *d)
{
	const char *key = d->ops->env("MEMKV_AUTH_KEY"), *servers = d->ops->env("MEMKV_SERVERS");
	char host[64];

	if (key != NULL && key[0] != '\0' && (strlen(key) != 64 || strspn(key, "0123456789abcdefABCDEF") != 64))
		doctor_say(d, DOCTOR_AUTH_BAD_KEY, NULL, "MEMKV_AUTH_KEY has %zu characters; a key is 64 hexadecimal digits", strlen(key));
	else if (!auth_given(d, "MEMKV_AUTH_KEY") && !auth_given(d, "MEMKV_CONFIG") && servers != NULL && auth_elsewhere(servers, host))
		doctor_say(d, DOCTOR_AUTH_CLIENT_NO_KEY, NULL, "MEMKV_SERVERS names %s, and neither MEMKV_AUTH_KEY nor MEMKV_CONFIG is set", host);
	else
		doctor_ok(d, "client: %s", auth_given(d, "MEMKV_AUTH_KEY") ? "MEMKV_AUTH_KEY is a key" : "no key in the environment, and none is needed for this host");
}

void
doctor_auth(struct doctor *d)
{
	if (d->scope & DOCTOR_SERVER)
		auth_server(d);
	if (d->scope & DOCTOR_CLIENT)
		auth_client(d);
}

/* ---- ports ---- */

static void
ports_one(struct doctor *d, const char *key, const char *host, uint16_t port)
{
	char owner[DOCTOR_NAME_BYTES], number[8];
	int r = d->ops->bind(host, port);

	snprintf(number, sizeof(number), "%u", port);
	if (port == 0 || r == 0)
		doctor_ok(d, "%s %s:%u can be taken", key, host, port);
	else if (r == -EADDRINUSE) {
		(void)doctor_listener(d, port, owner, sizeof(owner));
		if (strncmp(owner, "memkv", 5) == 0) {
			d->server_runs = 1;
			doctor_say(d, DOCTOR_PORTS_MEMKV, NULL, "a memkv server listens on %s:%u (%s)", host, port, key);
		} else
			doctor_say(d, DOCTOR_PORTS_TAKEN, DOCTOR_ARGS(number, key), "%s listens on %s:%u (%s)",
			    owner[0] != '\0' ? owner : "a program whose name this user may not see", host, port, key);
	} else if (r == -EADDRNOTAVAIL)
		doctor_say(d, DOCTOR_PORTS_NO_ADDRESS, DOCTOR_ARGS(key), "%s is %s:%u, and no interface has that address", key, host, port);
	else if (r == -EACCES || r == -EPERM)
		doctor_say(d, DOCTOR_PORTS_DENIED, DOCTOR_ARGS(key), "%s is %s:%u, and user %d may not listen there", key, host, port, d->ops->uid());
	else
		doctor_ok(d, "%s %s:%u could not be tried: %s", key, host, port, strerror(-r));
}

void
doctor_ports(struct doctor *d)
{
	ports_one(d, "network.address", d->data_host, d->data_port);
	if (d->params.admin_enabled)
		ports_one(d, "admin.address", d->admin_host, d->admin_port);
}
