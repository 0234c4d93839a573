/*
 * Process: supervisor, then it exits. What --check-config --json answers: the configuration that a start would have, for programs such as `memkv doctor`.
 * Foreign bytes: texts of the configuration; what of them is no UTF-8 is left out. What can fail: memory, the output.
 */
#include "config.h"

#include "supervisor/config_priv.h"

#include <string.h>

#include <jansson.h>

#include "supervisor/budget_priv.h"

#define JSON_PAGE_BYTES	(2u << 20)		/* segments are whole pages of the smaller huge kind */

/* The value of each key that can be said in one text. */
static json_t *
json_keys(const struct config *c)
{
	char value[MKV_PARAM_TEXT_BYTES];
	json_t *keys = json_object();

	for (unsigned i = 0; i < mkv_param_count(); i++)
		if (mkv_params_get_text(&c->params, &mkv_param_rows()[i], value, sizeof(value)) == 0)
			json_object_set_new(keys, mkv_param_rows()[i].key, json_string(value));
	return (keys);
}

static json_t *
json_drives(const struct config_derived *d)
{
	json_t *drives = json_array();

	for (uint32_t i = 0; i < d->drive_count; i++)
		json_array_append_new(drives, json_pack("{s:s, s:I, s:f}", "media", d->drive[i].media, "max_size", (json_int_t)d->drive[i].max_size,
		    "weight", d->drive[i].weight));
	return (drives);
}

static json_t *
json_texts(char *const *line, unsigned n)
{
	json_t *texts = json_array();

	for (unsigned i = 0; i < n; i++)
		json_array_append_new(texts, json_string(line[i]));
	return (texts);
}

static json_t *
json_strays(const struct config *c)
{
	json_t *strays = json_array();
	char why[256];

	for (unsigned i = 0; i < c->n_stray; i++) {
		config_stray_text(&c->stray[i], why, sizeof(why));
		json_array_append_new(strays, json_pack("{s:s, s:s}", "name", c->stray[i].name, "text", why));
	}
	return (strays);
}

/* What follows from the keys. A file that was not read to its end says nothing of it. */
static void
json_derived(json_t *j, const struct config *c)
{
	const struct config_derived *d = &c->derived;
	json_int_t sum = 0, shared = 0;
	struct budget b;

	budget_fronts(&b, &c->params, d);
	for (uint32_t i = 0; i < d->drive_count; i++)
		budget_drive(&b, &c->params, d->drive[i].max_size);
	for (unsigned i = 0; i < BUDGET_PARTS; i++)
		sum += (json_int_t)budget_bytes(&b, i);
	for (unsigned i = 0; i < b.n_seg; i++)
		shared += (json_int_t)MKV_ALIGN_UP(b.seg[i].bytes, (uint64_t)JSON_PAGE_BYTES);
	json_object_set_new(j, "drives", json_drives(d));
	json_object_set_new(j, "data", json_pack("{s:s, s:i}", "host", d->data.host, "port", (int)d->data.port));
	json_object_set_new(j, "admin", json_pack("{s:s, s:i}", "host", d->admin.host, "port", (int)d->admin.port));
	json_object_set_new(j, "data_dir", json_string(d->data_dir));
	json_object_set_new(j, "control", json_string(d->control_path));
	json_object_set_new(j, "fronts", json_integer(d->front_count));
	json_object_set_new(j, "segment_bytes", json_integer(d->front_count > 0 ? (json_int_t)(budget_bytes(&b, BUDGET_STAGE) / d->front_count) : 0));
	json_object_set_new(j, "staging_bytes", json_integer((json_int_t)budget_bytes(&b, BUDGET_STAGE)));
	json_object_set_new(j, "shared_bytes", json_integer(shared));
	json_object_set_new(j, "memory_bytes", json_integer((json_int_t)sum));
	json_object_set_new(j, "auth_key", json_boolean(d->explicit_key));
}

int
config_show_json(FILE *out, const struct config *c, const struct config_errors *e, const char *memory)
{
	json_t *j = json_pack("{s:s, s:s}", "status", e->n + e->more == 0 ? "good" : "bad", "file", c->file);
	int r;

	if (j == NULL)				/* a name that is no UTF-8 */
		j = json_pack("{s:s}", "status", e->n + e->more == 0 ? "good" : "bad");
	json_object_set_new(j, "errors", json_texts(e->line, e->n));
	if (memory[0] != '\0')
		json_object_set_new(j, e->n + e->more == 0 ? "pages" : "budget", json_string(memory));
	json_object_set_new(j, "strays", json_strays(c));
	json_object_set_new(j, "keys", json_keys(c));
	if (!c->unread)
		json_derived(j, c);
	r = json_dumpf(j, out, JSON_COMPACT | JSON_PRESERVE_ORDER);
	json_decref(j);
	return (r != 0 || fputc('\n', out) == EOF ? -1 : 0);
}
