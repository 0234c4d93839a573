/*
 * Process: supervisor, then it exits. What --check-config --json answers: the configuration that a start would have, for programs such as `memkv doctor`.
 * Foreign bytes: texts of the configuration; what of them is no UTF-8 is left out. What can fail: memory, the output.
 */
#include "config.h"

#include "supervisor/config_priv.h"

#include <limits.h>
#include <string.h>

#include <jansson.h>

#include "common/base/topo.h"
#include "supervisor/budget_priv.h"

#define JSON_PAGE_BYTES	(2u << 20)		/* segments are whole pages of the smaller huge kind */
#define JSON_WORDS	768u

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

/* What of it lies in huge pages if the server starts now, and what is short of them. */
static void
json_huge(json_t *j, const struct config *c, struct budget *b)
{
	json_t *fixes = json_array();
	struct pages_fix fix[PAGES_FIXES_MAX];
	json_int_t bytes = 0;
	char file[PATH_MAX], words[JSON_WORDS];
	unsigned n;

	(void)pages_plan(&c->params, b->sys, b->seg, b->n_seg);
	for (unsigned i = 0; i < b->n_seg; i++)
		bytes += b->seg[i].page_bytes > 0 ? (json_int_t)b->seg[i].bytes : 0;
	n = pages_fixes(&c->params, b->sys, b->seg, b->n_seg, fix);
	for (unsigned i = 0; i < n; i++)
		json_array_append_new(fixes, json_pack("{s:I, s:s}", "pages", (json_int_t)fix[i].count, "file",
		    mkv_topo_pages_file(b->sys, fix[i].node, fix[i].page_bytes, file, sizeof(file))));
	pages_say(&c->params, b->sys, b->seg, b->n_seg, 0, words, sizeof(words));
	words[strcspn(words, ";")] = '\0';	/* what mends it follows */
	json_object_set_new(j, "huge_bytes", json_integer(bytes));
	json_object_set_new(j, "huge_short", json_string(words));
	json_object_set_new(j, "huge_fixes", fixes);
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
	json_object_set_new(j, "local", json_string(d->local_path));
	json_object_set_new(j, "fronts", json_integer(d->front_count));
	json_object_set_new(j, "segment_bytes", json_integer(d->front_count > 0 ? (json_int_t)(budget_bytes(&b, BUDGET_STAGE) / d->front_count) : 0));
	json_object_set_new(j, "staging_bytes", json_integer((json_int_t)budget_bytes(&b, BUDGET_STAGE)));
	json_object_set_new(j, "shared_bytes", json_integer(shared));
	json_object_set_new(j, "memory_bytes", json_integer((json_int_t)sum));
	json_huge(j, c, &b);
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
