/*
 * What a handle is told: the call, then MEMKV_* variables, then the YAML file, then defaults; the first that says something wins, key by key.
 *
 * The caller's thread, inside mkv_client_open(). Owns a struct conf_text while it works. Fails with a sentence that names the value and where it came
 * from; the key itself is never part of it.
 */
#include "config.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/un.h>

#include "clients/lib/client_priv.h"
#include "clients/lib/rail.h"
#include "clients/lib/shmwin.h"
#include "common/base/clock.h"
#include "common/base/hash.h"
#include "common/base/units.h"

#define WINDOW_DEFAULT	(32ull << 20)
#define WINDOW_LEAST	(256ull << 10)
#define WINDOW_MOST	(1ull << 30)

const char *const mkv_conf_key_names[CONF_KEYS] = {
	"servers", "transport", "auth_key", "rdma_devices", "namespace", "prometheus_bind", "connections", "io_threads", "license",
	"rdma_control", "rdma_tether", "local_window", "local_get"
};

static const char *const conf_env[CONF_KEYS] = {
	"MEMKV_SERVERS", "MEMKV_TRANSPORT", "MEMKV_AUTH_KEY", "MEMKV_RDMA_DEVICES", "MEMKV_NAMESPACE", "MEMKV_PROMETHEUS_BIND", "MEMKV_CONNECTIONS",
	"MEMKV_IO_THREADS", "MEMKV_LICENSE", "MEMKV_RDMA_CONTROL", "MEMKV_RDMA_TETHER", "MEMKV_LOCAL_WINDOW", "MEMKV_LOCAL_GET"
};

static int
conf_bad(char *why, const char *what, const char *value)
{
	(void)snprintf(why, WHY_BYTES, "%s: \"%.256s\"", what, value);
	return (MKV_E_CONFIG);
}

void
mkv_conf_text_fini(struct conf_text *t)
{
	for (unsigned i = 0; i < CONF_KEYS; i++) {
		if (t->value[i] != NULL)
			mkv_wipe(t->value[i], strlen(t->value[i]));
		free(t->value[i]);
		t->value[i] = NULL;
	}
}

/* "host:port", "[v6]:port"; host is what lies before the last colon. */
static int
conf_host_port(const char *s, size_t bytes, char host[256], char port[8])
{
	const char *colon = memrchr(s, ':', bytes);
	size_t h, p;

	if (colon == NULL || colon == s)
		return (MKV_E_CONFIG);
	h = (size_t)(colon - s);
	p = bytes - h - 1;
	if (*s == '[' && h > 2 && s[h - 1] == ']') {
		s++;
		h -= 2;
	} else if (memchr(s, ':', h) != NULL) {
		return (MKV_E_CONFIG);			/* an IPv6 address without brackets */
	}
	if (h >= 256 || p == 0 || p > 5 || strspn(colon + 1, "0123456789") < p)
		return (MKV_E_CONFIG);
	memcpy(host, s, h);
	host[h] = '\0';
	memcpy(port, colon + 1, p);
	port[p] = '\0';
	return (atoi(port) > 0 && atoi(port) < 65536 ? 0 : MKV_E_CONFIG);
}

/* LOCAL_SCHEME and an absolute path. */
static int
conf_local_path(const char *s, size_t bytes, char path[LOCAL_PATH_BYTES])
{
	size_t scheme = sizeof(LOCAL_SCHEME) - 1;

	if (bytes - scheme >= sizeof(((struct sockaddr_un *)0)->sun_path) || bytes == scheme || s[scheme] != '/')
		return (MKV_E_CONFIG);
	memcpy(path, s + scheme, bytes - scheme);
	path[bytes - scheme] = '\0';
	return (0);
}

static int
conf_where(struct server_conf *sc, const char *s, size_t bytes)
{
	sc->host[0] = sc->port[0] = sc->path[0] = '\0';
	if (bytes >= sizeof(LOCAL_SCHEME) - 1 && memcmp(s, LOCAL_SCHEME, sizeof(LOCAL_SCHEME) - 1) == 0)
		return (conf_local_path(s, bytes, sc->path));
	return (conf_host_port(s, bytes, sc->host, sc->port));
}

static int
conf_server(struct conf *cf, const char *s, size_t bytes, char *why)
{
	struct server_conf *sc = &cf->server[cf->n_servers];
	const char *eq = memchr(s, '=', bytes), *at = eq == NULL ? s : eq + 1;
	size_t name = eq == NULL ? bytes : (size_t)(eq - s);
	char text[128];

	(void)snprintf(text, sizeof(text), "%.*s", (int)MKV_MIN(bytes, sizeof(text) - 1), s);
	if (cf->n_servers == SERVERS_MAX)
		return (conf_bad(why, "too many servers (64 at most), first that is too many", text));
	if (name == 0 || name >= sizeof(sc->name) || conf_where(sc, at, bytes - (size_t)(at - s)) != 0)
		return (conf_bad(why, "a server is written host:port, NAME=host:port, local:///PATH or NAME=local:///PATH (a unix socket, 107 bytes at most), not", text));
	memcpy(sc->name, s, name);
	sc->name[name] = '\0';
	for (unsigned i = 0; i < cf->n_servers; i++)
		if (strcmp(cf->server[i].name, sc->name) == 0)
			return (conf_bad(why, "server named twice", sc->name));
	sc->hash = mkv_hash64(sc->name, name, 0);
	cf->n_servers++;
	return (0);
}

static int
conf_servers(struct conf *cf, const char *list, char *why)
{
	size_t n;
	int r;

	for (const char *s = list; *s != '\0'; s += n) {
		s += strspn(s, ", \t");
		n = strcspn(s, ", \t");
		if (n > 0 && (r = conf_server(cf, s, n, why)) != 0)
			return (r);
	}
	return (cf->n_servers > 0 ? 0 : conf_bad(why, "no server in the list", list));
}

static int
conf_transport(struct conf *cf, const char *s, char *why)
{
	static const char *const label[] = { "auto", "rdma", "tcp", "local" };
	unsigned i;

	for (i = 0; i < MKV_ARRAY_LEN(label) && strcasecmp(s, label[i]) != 0; i++)
		continue;
	if (i == MKV_ARRAY_LEN(label))
		return (conf_bad(why, "transport is auto, rdma, tcp or local, not", s));
	cf->transport = (enum mkv_transport)i;
	if (cf->transport == MKV_TRANSPORT_RDMA && !mkv_rail_wanted(cf)) {
		(void)snprintf(why, WHY_BYTES, "transport \"%s\" is not in this build: use \"auto\", \"local\" or \"tcp\"", label[i]);
		return (MKV_E_UNSUPPORTED);
	}
	for (i = 0; i < cf->n_servers; i++)
		if (cf->server[i].path[0] != '\0' && cf->transport != MKV_TRANSPORT_AUTO && cf->transport != MKV_TRANSPORT_LOCAL)
			return (conf_bad(why, "with transport tcp or rdma a server is written host:port, not", cf->server[i].name));
	return (0);
}

static int
conf_control(struct conf *cf, const char *s, char *why)
{
	static const struct { const char *label; uint8_t control; } row[] = {
		{ "auto", MKV_WIRE_CONTROL_RDMA }, { "rdma", MKV_WIRE_CONTROL_RDMA }, { "udp", MKV_WIRE_CONTROL_UDP }, { "tcp", MKV_WIRE_CONTROL_TCP },
	};

	for (unsigned i = 0; i < MKV_ARRAY_LEN(row); i++)
		if (strcasecmp(s, row[i].label) == 0) {
			cf->rdma_control = row[i].control;
			return (0);
		}
	return (conf_bad(why, "rdma_control is auto, rdma, udp or tcp, not", s));
}

static int
conf_tether(struct conf *cf, const char *s, char *why)
{
	cf->rdma_drop = strcasecmp(s, "drop") == 0;
	return (cf->rdma_drop || strcasecmp(s, "keep") == 0 ? 0 : conf_bad(why, "rdma_tether is keep or drop, not", s));
}

static int
conf_window(struct conf *cf, const char *s, char *why)
{
	if (s == NULL)
		cf->local_window = WINDOW_DEFAULT;
	else if (mkv_size_parse(s, &cf->local_window) != 0 || cf->local_window > WINDOW_MOST || (cf->local_window > 0 && cf->local_window < WINDOW_LEAST))
		return (conf_bad(why, "local_window is 0 or a size from 256KiB to 1GiB, not", s));
	cf->local_window = MKV_ALIGN_UP(cf->local_window, WINDOW_UNIT);
	return (0);
}

static int
conf_local_get(struct conf *cf, const char *s, char *why)
{
	cf->local_in_place = strcasecmp(s, "in_place") == 0;
	if (!cf->local_in_place && strcasecmp(s, "window") != 0)
		return (conf_bad(why, "local_get is window or in_place, not", s));
	if (cf->local_in_place && cf->transport != MKV_TRANSPORT_LOCAL)
		return (conf_bad(why, "a NIC keeps the pages that it was given: with another transport than local local_get is window, not", s));
	return (0);
}

static int
conf_key(struct conf *cf, const char *hex, char *why)
{
	int r;

	if (hex == NULL || *hex == '\0') {
		cf->key_id = MKV_KEY_ID_DEV;
		if ((r = mkv_key_dev(cf->cred)) != 0)
			(void)snprintf(why, WHY_BYTES, "no auth_key is set and this host has no id to make the dev key from");
		return (r);
	}
	if (mkv_key_parse(hex, cf->cred) != 0) {
		(void)snprintf(why, WHY_BYTES, "auth_key is 64 hex digits (it has %zu characters)", strlen(hex));
		return (MKV_E_CONFIG);
	}
	cf->key_id = mkv_key_id(cf->cred);
	return (0);
}

static int
conf_number(const char *key, const char *s, unsigned least, unsigned most, unsigned *out, char *why)
{
	char *end, text[96];
	unsigned long v;
	int saved = errno;

	v = strtoul(s, &end, 10);
	errno = saved;
	if (*s < '0' || *s > '9' || *end != '\0' || v < least || v > most) {
		(void)snprintf(text, sizeof(text), "%s is a number from %u to %u, not", key, least, most);
		return (conf_bad(why, text, s));
	}
	*out = (unsigned)v;
	return (0);
}

static int
conf_set_text(struct conf_text *t, enum conf_key k, const char *s)
{
	if (s == NULL || *s == '\0')
		return (0);
	free(t->value[k]);
	t->value[k] = strdup(s);
	return (t->value[k] == NULL ? MKV_E_NOMEM : 0);
}

/* File first, so that what comes later replaces it. */
static int
conf_gather(struct conf_text *t, const struct mkv_client_opts *o, char *why)
{
	const char *call[CONF_KEYS] = {
		[CONF_SERVERS] = o->servers, [CONF_TRANSPORT] = o->transport, [CONF_AUTH_KEY] = o->auth_key, [CONF_RDMA_DEVICES] = o->rdma_devices,
		[CONF_NAMESPACE] = o->namespace_, [CONF_PROMETHEUS_BIND] = o->prometheus_bind, [CONF_RDMA_CONTROL] = o->rdma_control,
		[CONF_RDMA_TETHER] = o->rdma_tether
	};
	const char *path = o->config_file != NULL ? o->config_file : getenv("MEMKV_CONFIG");
	int r;

	if (path != NULL && *path != '\0' && (r = mkv_conf_yaml_read(t, path, why)) != 0)
		return (r);
	for (unsigned i = 0; i < CONF_KEYS; i++)
		if ((r = conf_set_text(t, (enum conf_key)i, getenv(conf_env[i]))) != 0 || (r = conf_set_text(t, (enum conf_key)i, call[i])) != 0)
			return (r);
	return (0);
}

static int
conf_numbers(struct conf *cf, const struct conf_text *t, const struct mkv_client_opts *o, char *why)
{
	int r;

	cf->io_threads = o->io_threads;
	cf->connections = o->connections;
	if (cf->io_threads == 0 && t->value[CONF_IO_THREADS] != NULL &&
	    (r = conf_number("io_threads", t->value[CONF_IO_THREADS], 1, THREADS_MAX, &cf->io_threads, why)) != 0)
		return (r);
	if (cf->connections == 0 && t->value[CONF_CONNECTIONS] != NULL &&
	    (r = conf_number("connections", t->value[CONF_CONNECTIONS], 1, CONNECTIONS_MAX, &cf->connections, why)) != 0)
		return (r);
	cf->io_threads = cf->io_threads == 0 ? 1 : MKV_MIN(cf->io_threads, THREADS_MAX);
	cf->connections = cf->connections == 0 ? 2 : MKV_MIN(cf->connections, CONNECTIONS_MAX);
	cf->inflight_max = o->inflight_max == 0 ? INFLIGHT_DEFAULT : MKV_MIN(o->inflight_max, INFLIGHT_MAX);
	cf->no_verify = o->no_verify;
	cf->rdma_on_demand = o->rdma_on_demand;
	cf->warn = o->warn;
	cf->warn_arg = o->warn_arg;
	cf->connect_timeout_ns = (o->connect_timeout_us == 0 ? CONNECT_TIMEOUT_US : MKV_MIN(o->connect_timeout_us, MKV_WIRE_DEADLINE_MAX_US)) *
	    MKV_NS_PER_US;
	return (0);
}

static int
conf_apply(struct conf *cf, const struct conf_text *t, char *why)
{
	const char *ns = t->value[CONF_NAMESPACE], *http = t->value[CONF_PROMETHEUS_BIND], *devices = t->value[CONF_RDMA_DEVICES];
	int r;

	if ((r = conf_servers(cf, t->value[CONF_SERVERS] == NULL ? "127.0.0.1:9900" : t->value[CONF_SERVERS], why)) != 0 ||
	    (r = conf_transport(cf, t->value[CONF_TRANSPORT] == NULL ? "auto" : t->value[CONF_TRANSPORT], why)) != 0 ||
	    (r = conf_key(cf, t->value[CONF_AUTH_KEY], why)) != 0)
		return (r);
	if (ns != NULL && strlen(ns) > MEMKV_NAMESPACE_MAX)
		return (conf_bad(why, "a namespace has 63 bytes at most", ns));
	(void)snprintf(cf->ns, sizeof(cf->ns), "%s", ns == NULL ? "" : ns);
	if (t->value[CONF_RDMA_CONTROL] != NULL && (r = conf_control(cf, t->value[CONF_RDMA_CONTROL], why)) != 0)
		return (r);
	if (t->value[CONF_RDMA_TETHER] != NULL && (r = conf_tether(cf, t->value[CONF_RDMA_TETHER], why)) != 0)
		return (r);
	if ((r = conf_window(cf, t->value[CONF_LOCAL_WINDOW], why)) != 0)
		return (r);
	if (t->value[CONF_LOCAL_GET] != NULL && (r = conf_local_get(cf, t->value[CONF_LOCAL_GET], why)) != 0)
		return (r);
	if (devices != NULL && strlen(devices) >= sizeof(cf->rdma_devices))
		return (conf_bad(why, "rdma_devices is too long", devices));
	(void)snprintf(cf->rdma_devices, sizeof(cf->rdma_devices), "%s", devices == NULL ? "" : devices);
	/* Port 0 is a choice here: the system picks one. */
	if (http != NULL && conf_host_port(http, strlen(http), cf->http_host, cf->http_port) != 0 && strcmp(cf->http_port, "0") != 0)
		return (conf_bad(why, "prometheus_bind is host:port, not", http));
	return (0);
}

/* For containers that refuse io_uring late, and for tests; nowhere but in the environment. */
static int
conf_io(struct conf *cf, char *why)
{
	const char *s = getenv("MEMKV_IO");

	if (s == NULL || *s == '\0' || strcmp(s, "auto") == 0)
		cf->io = MKV_IOQ_AUTO;
	else if (strcmp(s, "uring") == 0)
		cf->io = MKV_IOQ_URING;
	else if (strcmp(s, "poll") == 0)
		cf->io = MKV_IOQ_POLL;
	else
		return (conf_bad(why, "MEMKV_IO is auto, uring or poll, not", s));
	return (0);
}

/* A shorter struct is an older program's: what it does not know is 0. */
static void
conf_copy_opts(struct mkv_client_opts *to, const struct mkv_client_opts *from)
{
	memset(to, 0, sizeof(*to));
	if (from != NULL)
		memcpy(to, from, MKV_MIN(from->size, sizeof(*to)));
}

int
mkv_conf_load(struct conf *cf, const struct mkv_client_opts *opts, char *why)
{
	struct conf_text t = { .value = { NULL } };
	struct mkv_client_opts o;
	int r;

	memset(cf, 0, sizeof(*cf));
	conf_copy_opts(&o, opts);
	if ((r = conf_gather(&t, &o, why)) == 0 && (r = conf_io(cf, why)) == 0 && (r = conf_numbers(cf, &t, &o, why)) == 0)
		r = conf_apply(cf, &t, why);
	mkv_conf_text_fini(&t);
	return (r);
}
