/*
 * The commands that move no values: exists, stat, delete, touch, match, list, info.
 */
#include "config.h"
#include "clients/cli/cli.h"

#include <stdlib.h>
#include <string.h>

#include "common/base/err.h"
#include "common/base/units.h"

#define KEYS_TEXT	(4 * MEMKV_KEY_MAX + 1)

struct keys {
	struct cli_key	*key;
	struct mkv_key	*list;
	uint8_t		*flag, *reason;		/* one for each key */
};

static int
keys_make(struct cli *c, struct keys *k)
{
	int r = cli_keys(c, &k->key, &k->list);

	if (r != 0)
		return (r);
	k->flag = calloc((size_t)c->n_words, 1);
	k->reason = calloc((size_t)c->n_words, 1);
	if (k->flag == NULL || k->reason == NULL)
		return (cli_fail(c, NULL, MKV_ERR_NOMEM, 0));
	return (cli_open(c));
}

static void
keys_free(struct keys *k)
{
	free(k->key);
	free(k->list);
	free(k->flag);
	free(k->reason);
}

/* "Not there" and "nobody answered" are two things. */
static int
keys_miss_status(unsigned reason)
{
	return (reason == MKV_REASON_SERVER_DOWN || reason == MKV_REASON_TIMED_OUT ? CLI_UNREACHABLE : CLI_MISS);
}

static void
keys_say(const struct cli *c, const struct keys *k, int i, const char *yes, const char *no)
{
	json_t *j;

	if (!c->o.json) {
		printf("%s\t%s%s%s\n", k->key[i].given, k->flag[i] ? yes : no, k->flag[i] ? "" : "\t", k->flag[i] ? "" : mkv_miss_label(k->reason[i]));
		return;
	}
	j = json_object();
	cli_json_key(j, k->key[i].data, k->key[i].bytes);
	json_object_set_new(j, yes, json_boolean(k->flag[i]));
	if (!k->flag[i])
		json_object_set_new(j, "reason", json_string(mkv_miss_label(k->reason[i])));
	cli_json_print(stdout, j);
}

int
cmd_exists(struct cli *c, int argc MKV_UNUSED, char **argv MKV_UNUSED)
{
	struct keys k = { 0 };
	int r, n;

	if ((r = keys_make(c, &k)) == 0) {
		n = mkv_exists_batch(c->client, k.list, (unsigned)c->n_words, MKV_NO_TOUCH, c->o.deadline_us, k.flag, k.reason);
		if (n < 0)
			r = cli_fail(c, NULL, n, 0);
		for (int i = 0; n >= 0 && i < c->n_words; i++) {
			keys_say(c, &k, i, "present", "absent");
			if (!k.flag[i])
				r = MKV_MAX(r, keys_miss_status(k.reason[i]));
		}
	}
	keys_free(&k);
	return (r);
}

int
cmd_delete(struct cli *c, int argc MKV_UNUSED, char **argv MKV_UNUSED)
{
	struct keys k = { 0 };
	int r, n;

	if ((r = keys_make(c, &k)) == 0) {
		n = mkv_delete_batch(c->client, k.list, (unsigned)c->n_words, c->o.deadline_us, k.flag, k.reason);
		if (n < 0)
			r = cli_fail(c, NULL, n, 0);
		for (int i = 0; n >= 0 && i < c->n_words; i++) {
			keys_say(c, &k, i, "deleted", "absent");
			if (!k.flag[i] && keys_miss_status(k.reason[i]) != CLI_MISS)
				r = CLI_UNREACHABLE;
		}
	}
	keys_free(&k);
	return (r);
}

/* All keys in one request; the library ends it at its deadline. How many were there, or an error. */
static int
keys_touch(struct cli *c, struct keys *k)
{
	struct mkv_request q = { .size = sizeof(q), .op = MKV_OP_TOUCH, .keys = k->list, .n_keys = (unsigned)c->n_words,
		.deadline_us = c->o.deadline_us, .ttl_ms = (c->o.ttl_us + 999) / 1000, .present = k->flag, .reasons = k->reason };
	struct mkv_completion done = { .size = sizeof(done) };
	uint64_t id;
	int r;

	if ((r = mkv_submit(c->client, &q, &id)) != 0)
		return (r);
	while (mkv_drain(c->client, &done, 1) == 0)
		(void)mkv_wait(c->client, c->o.deadline_us);
	return ((int)done.result);
}

int
cmd_touch(struct cli *c, int argc MKV_UNUSED, char **argv MKV_UNUSED)
{
	struct keys k = { 0 };
	int r, n;

	if ((r = keys_make(c, &k)) == 0) {
		n = keys_touch(c, &k);
		if (n < 0)
			r = cli_fail(c, NULL, n, 0);
		for (int i = 0; n >= 0 && i < c->n_words; i++) {
			keys_say(c, &k, i, "touched", "absent");
			if (!k.flag[i])
				r = MKV_MAX(r, keys_miss_status(k.reason[i]));
		}
	}
	keys_free(&k);
	return (r);
}

int
cmd_match(struct cli *c, int argc MKV_UNUSED, char **argv MKV_UNUSED)
{
	struct keys k = { 0 };
	unsigned reason = 0;
	int r, n = 0;
	json_t *j;

	if (c->o.lease_us > 60000000)
		return (cli_usage(c, "--lease: at most 60s"));
	if ((r = keys_make(c, &k)) == 0) {
		n = mkv_match(c->client, k.list, (unsigned)c->n_words, (unsigned)((c->o.lease_us + 999) / 1000), 0, c->o.deadline_us, &reason);
		if (n < 0)
			r = cli_fail(c, NULL, n, 0);
	}
	if (r == 0 && c->o.json) {
		j = json_pack("{s:s, s:i, s:i}", "status", "OK", "matched", n, "keys", c->n_words);
		if (n < c->n_words)
			json_object_set_new(j, "reason", json_string(mkv_miss_label(reason)));
		cli_json_print(stdout, j);
	} else if (r == 0)
		printf("%d\n", n);
	if (r == 0 && n < c->n_words && keys_miss_status(reason) == CLI_UNREACHABLE)
		r = CLI_UNREACHABLE;
	keys_free(&k);
	return (r);
}

static void
stat_say(const struct cli *c, const struct cli_key *k, const struct mkv_object *o)
{
	char put[32], expires[32];
	json_t *j;

	cli_time_text(put, o->put_wall_ms);
	cli_time_text(expires, o->expires_wall_ms);
	if (c->o.json) {
		j = json_pack("{s:s, s:I, s:I, s:I, s:b, s:i}", "status", "OK", "bytes", (json_int_t)o->value_bytes, "put_ms",
		    (json_int_t)o->put_wall_ms, "expires_ms", (json_int_t)o->expires_wall_ms, "pinned", (o->flags & MKV_PUT_PIN) != 0,
		    "server", o->server);
		cli_json_key(j, k->data, k->bytes);
		cli_json_print(stdout, j);
		return;
	}
	printf("key      %s\nbytes    %llu\nput      %s\nexpires  %s\npinned   %s\nserver   %d\n", k->given, (unsigned long long)o->value_bytes, put,
	    expires, o->flags & MKV_PUT_PIN ? "yes" : "no", o->server);
}

int
cmd_stat(struct cli *c, int argc MKV_UNUSED, char **argv MKV_UNUSED)
{
	struct mkv_object o = { .size = sizeof(o) };
	struct cli_key k;
	int r;

	if ((r = cli_key(c, c->words[0], &k)) != 0 || (r = cli_open(c)) != 0)
		return (r);
	r = mkv_stat(c->client, k.data, k.bytes, c->o.deadline_us, &o);
	if (r != 0)
		return (cli_fail(c, &k, r, o.reason));
	stat_say(c, &k, &o);
	return (CLI_DONE);
}

struct list {
	const struct cli *c;
	uint64_t	n;
};

static int
list_entry(void *arg, const struct mkv_list_entry *e)
{
	struct list *l = arg;
	char key[KEYS_TEXT], put[32];
	json_t *j;

	if (l->c->o.json) {
		j = json_pack("{s:I, s:I, s:I, s:i}", "bytes", (json_int_t)e->value_bytes, "put_ms", (json_int_t)e->put_wall_ms,
		    "expires_ms", (json_int_t)e->expires_wall_ms, "server", e->server);
		cli_json_key(j, e->key, e->key_bytes);
		cli_json_print(stdout, j);
	} else {
		cli_time_text(put, e->put_wall_ms);
		printf("%s\t%llu\t%s\n", cli_key_text(key, e->key, e->key_bytes, l->c->o.hex), (unsigned long long)e->value_bytes, put);
	}
	l->n++;
	return (ferror(stdout) || (l->c->o.limit > 0 && l->n >= l->c->o.limit));
}

int
cmd_list(struct cli *c, int argc MKV_UNUSED, char **argv MKV_UNUSED)
{
	struct cli_key prefix = { .bytes = 0 };
	struct list l = { c, 0 };
	int r;

	if (c->n_words > 0 && c->words[0][0] != '\0' && (r = cli_key(c, c->words[0], &prefix)) != 0)
		return (r);
	if ((r = cli_open(c)) != 0)
		return (r);
	r = mkv_list(c->client, prefix.data, prefix.bytes, list_entry, &l, c->o.deadline_us);
	return (r < 0 ? cli_fail(c, NULL, r, 0) : ferror(stdout) ? CLI_FAILED : CLI_DONE);
}

static void
info_say_json(const struct mkv_server_info *si)
{
	char id[33];
	json_t *j = json_pack("{s:s, s:s}", "name", si->name, "status", mkv_status_name(si->status));

	if (si->status == 0)
		json_object_update_new(j, json_pack("{s:s, s:s, s:s, s:s, s:s, s:I, s:I, s:I, s:I, s:i, s:i}", "id",
		    cli_key_text(id, si->server_id, sizeof(si->server_id), 1), "version", si->version, "transport", si->transport,
		    "transport_why", si->transport_why, "rails", si->rails, "total_bytes", (json_int_t)si->total_bytes, "used_bytes", (json_int_t)si->used_bytes, "objects", (json_int_t)si->objects,
		    "uptime_ms", (json_int_t)si->uptime_ms, "drives_total", (int)si->drives_total, "drives_online", (int)si->drives_online));
	cli_json_print(stdout, j);
}

static void
info_say(const struct mkv_server_info *si)
{
	char total[32], used[32], up[32];

	if (si->status != 0) {
		printf("%s\t%s\n", si->name, mkv_strerror(si->status));
		return;
	}
	printf("%s\t%s of %s used, %llu objects, %u of %u drives online, up %s, version %s, by %s", si->name,
	    mkv_size_human(used, sizeof(used), si->used_bytes), mkv_size_human(total, sizeof(total), si->total_bytes),
	    (unsigned long long)si->objects, si->drives_online, si->drives_total,
	    mkv_duration_format(up, sizeof(up), si->uptime_ms / 1000 * 1000000), si->version, si->transport);
	if (si->rails[0] != '\0')
		printf(" (rail %s)", si->rails);
	printf("%s%s\n", si->transport_why[0] != '\0' ? ": " : "", si->transport_why);
}

int
cmd_info(struct cli *c, int argc MKV_UNUSED, char **argv MKV_UNUSED)
{
	struct mkv_server_info si;
	int r, status = CLI_DONE, got;

	if ((r = cli_open(c)) != 0)
		return (r);
	for (unsigned i = 0; i < mkv_server_count(c->client); i++) {
		memset(&si, 0, sizeof(si));
		si.size = sizeof(si);
		got = mkv_server_info(c->client, i, c->o.deadline_us, &si);
		if (got != 0)
			si.status = got;
		if (c->o.json)
			info_say_json(&si);
		else
			info_say(&si);
		if (si.status != 0)
			status = MKV_MAX(status, mkv_err_exit(si.status));
	}
	return (status);
}
