/*
 * Messages: what, where, and how to mend it. With --json the same as an object on standard output.
 */
#include "config.h"
#include "clients/cli/cli.h"

#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/err.h"
#include "common/base/units.h"

/* With --transport rdma a server may be there, and not by RDMA. 1: that is it, and why. */
static int
fail_rdma(const struct cli *c, char *dst, size_t dst_bytes)
{
	struct mkv_server_info si = { .size = sizeof(si) };

	for (unsigned i = 0; c->client != NULL && i < mkv_server_count(c->client); i++) {
		if (mkv_server_info(c->client, i, 1000000, &si) != 0 || si.transport_why[0] == '\0')
			continue;
		snprintf(dst, dst_bytes, "%s answers, but not by RDMA: %s", si.name, si.transport_why);
		return (1);
	}
	return (0);
}

static void
fail_hint(const struct cli *c, int status, char *dst, size_t dst_bytes)
{
	const char *servers = c->o.servers != NULL ? c->o.servers : getenv("MEMKV_SERVERS");
	char t[32];

	dst[0] = '\0';
	switch (status) {
	case MKV_ERR_UNREACHABLE:
	case MKV_ERR_CLOSED:
		if (!fail_rdma(c, dst, dst_bytes))
			snprintf(dst, dst_bytes, "no server at %s; start one with `memkv start`, or name others with --servers or MEMKV_SERVERS",
			    servers != NULL && servers[0] != '\0' ? servers : "127.0.0.1:9900");
		break;
	case MKV_ERR_BUSY:
		snprintf(dst, dst_bytes, "try again; if it stays so, the server is at a limit: network.max_connections, network.max_inflight, or as many "
		    "namespaces as its drives can have (memkvctl namespace list)");
		break;
	case MKV_ERR_TIMEOUT:
	case MKV_ERR_RETRY:
		snprintf(dst, dst_bytes, "it had %s; --deadline gives it longer", mkv_duration_format(t, sizeof(t), c->o.deadline_us));
		break;
	case MKV_ERR_AUTH:
		snprintf(dst, dst_bytes, "client and server have different keys: give the server's network.auth_key in MEMKV_AUTH_KEY");
		break;
	case MKV_ERR_DENIED:
		snprintf(dst, dst_bytes, "this key may not do that here; another --namespace or MEMKV_AUTH_KEY may");
		break;
	case MKV_ERR_NOSPACE:
		snprintf(dst, dst_bytes, "`memkv info` shows how full the server is");
		break;
	case MKV_ERR_TOOBIG:
		if (strcmp(c->cmd->name, "put") == 0)
			snprintf(dst, dst_bytes, "a value has at most 2^26 pieces of the server's storage.block_size, and 2^48 bytes");
		break;
	case MKV_ERR_UNSUPPORTED:
		if (!fail_rdma(c, dst, dst_bytes) && c->o.transport != NULL && strcmp(c->o.transport, "local") == 0)
			snprintf(dst, dst_bytes, "the server has no socket for clients on its host (local.path), or is on another host");
		break;
	case MKV_ERR_EXISTS:
		snprintf(dst, dst_bytes, "without --if-absent it is replaced");
		break;
	case MKV_ERR_VERSION:
		snprintf(dst, dst_bytes, "client is %s; `memkv info` on the server's host shows its version", PACKAGE_VERSION);
		break;
	default:
		break;
	}
}

static int
fail_say(const struct cli *c, const struct cli_key *k, int status, unsigned reason, const char *given)
{
	char hint[512];
	int miss;
	json_t *j;

	/* To the library a server that does not answer is a miss; who types a command wants to know the difference. */
	if (status == MKV_ERR_MISS && reason == MKV_REASON_SERVER_DOWN)
		status = MKV_ERR_UNREACHABLE;
	else if (status == MKV_ERR_MISS && reason == MKV_REASON_TIMED_OUT)
		status = MKV_ERR_TIMEOUT;
	miss = status == MKV_ERR_MISS;
	fail_hint(c, status, hint, sizeof(hint));
	if (given != NULL)
		snprintf(hint, sizeof(hint), "%s", given);
	fprintf(stderr, "memkv %s: %s%s%s%s%s%s%s\n", c->cmd->name, k != NULL ? k->given : "", k != NULL ? ": " : "",
	    mkv_strerror(status), miss ? ": " : "", miss ? mkv_miss_text(reason) : "", hint[0] != '\0' ? ": " : "", hint);
	if (c->o.json) {
		j = json_pack("{s:s, s:s}", "status", mkv_status_name(status), "error", mkv_strerror(status));
		if (k != NULL)
			cli_json_key(j, k->data, k->bytes);
		if (miss)
			json_object_set_new(j, "reason", json_string(mkv_miss_label(reason)));
		cli_json_print(stdout, j);
	}
	return (mkv_err_exit(status));
}

int
cli_fail(const struct cli *c, const struct cli_key *k, int status, unsigned reason)
{
	return (fail_say(c, k, status, reason, NULL));
}

int
cli_fail_hint(const struct cli *c, const struct cli_key *k, int status, const char *hint)
{
	return (fail_say(c, k, status, 0, hint));
}

/* What a person typed may be no UTF-8: then the object does without it. */
static void
fail_json(int status, const char *text, const char *file)
{
	json_t *j = json_pack("{s:s}", "status", mkv_status_name(status));

	json_object_set_new(j, "error", json_string(text));
	if (file != NULL)
		json_object_set_new(j, "file", json_string(file));
	cli_json_print(stdout, j);
}

int
cli_fail_text(const struct cli *c, int status, const char *text)
{
	fprintf(stderr, "memkv %s: %s\n", c->cmd->name, text);
	if (c->o.json)
		fail_json(status, text, NULL);
	return (mkv_err_exit(status));
}

int
cli_usage(const struct cli *c, const char *fmt, ...)
{
	char text[512];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	fprintf(stderr, "memkv%s%s: %s\n", c->cmd != NULL ? " " : "", c->cmd != NULL ? c->cmd->name : "", text);
	if (c->o.json)
		fail_json(MKV_ERR_INVAL, text, NULL);
	return (CLI_USAGE);
}

int
cli_fail_file(const struct cli *c, const char *path, int err)
{
	fprintf(stderr, "memkv %s: %s: %s\n", c->cmd->name, path, strerror(err));
	if (c->o.json)
		fail_json(MKV_ERR_SYSTEM, strerror(err), path);
	return (CLI_FAILED);
}
