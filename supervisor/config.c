/*
 * Process: supervisor, before the loop runs (and at reload, on it).
 * Owns: nothing; fills the caller's struct config. Sources in rising order: defaults, file, environment, command line; each says where a wrong
 * value came from, and all errors are told together: those of single keys, and what does not fit together among the keys that are good.
 * Foreign bytes: the texts. What can fail: any of them (MKV_E_CONFIG), reading the file.
 */
#include "config.h"

#include "supervisor/config_priv.h"

#include <errno.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/base/err.h"

#define ENV_PREFIX	(sizeof("MEMKV_") - 1)

struct source {					/* one of the sources, while it is read */
	struct config	*c;
	struct config_errors *e;
	const char	*seen[CONFIG_KEYS_MAX];	/* keys that it has set; of the table */
	unsigned	n_seen;
	int		repeats;		/* a later value replaces an earlier one: the command line */
};

void
config_error(struct config_errors *e, const char *fmt, ...)
{
	va_list ap;
	char *s;
	int n;

	va_start(ap, fmt);
	n = vasprintf(&s, fmt, ap);
	va_end(ap);
	if (n == -1 || e->n == CONFIG_ERRORS_MAX) {
		if (n != -1)
			free(s);
		e->more++;
		return;
	}
	e->line[e->n++] = s;
}

void
config_errors_free(struct config_errors *e)
{
	for (unsigned i = 0; i < e->n; i++)
		free(e->line[i]);
	e->n = e->more = 0;
}

/* ---- one key ---- */

/* 1 if this source has set it before. */
static int
source_saw(struct source *s, const struct mkv_param_row *row)
{
	for (unsigned i = 0; i < s->n_seen; i++)
		if (s->seen[i] == row->key)
			return (1);
	if (s->n_seen < CONFIG_KEYS_MAX)
		s->seen[s->n_seen++] = row->key;
	return (0);
}

static void
source_note(struct config *c, const struct mkv_param_row *row)
{
	for (unsigned i = 0; i < c->n_notes; i++)
		if (c->note[i] == row)
			return;
	if (c->n_notes < CONFIG_NOTES_MAX)
		c->note[c->n_notes++] = row;
}

/* A misspelled key was meant to be the nearest one. */
static void
source_bad(void *arg, const char *key)
{
	struct source *s = arg;
	char name[MKV_PARAM_KEY_BYTES * 2];
	const struct mkv_param_row *row;

	snprintf(name, sizeof(name), "%.*s", (int)strcspn(key, "["), key);
	if ((row = mkv_param_find(name)) == NULL)
		row = mkv_param_nearest(name);
	if (row != NULL)
		s->c->bad[row - mkv_param_rows()] = 1;
	if (key[0] == '\0')
		s->c->unread = 1;
}

static void
source_set(void *arg, const char *where, const char *key, const char *value)
{
	struct source *s = arg;
	const struct mkv_param_row *row = mkv_param_find(key);
	char why[MKV_PARAM_WHY_BYTES];

	if (row != NULL && source_saw(s, row) && !s->repeats) {
		config_error(s->e, "%s: key \"%s\": given twice", where, key);
		source_bad(s, key);
		return;
	}
	if (mkv_params_set(&s->c->params, key, value, why, sizeof(why)) != 0) {
		config_error(s->e, "%s: %s", where, why);
		source_bad(s, key);
		return;
	}
	if (row != NULL && row->scope == MKV_PARAM_IGNORED)
		source_note(s->c, row);
}

static void
source_drives_begin(void *arg, const char *where)
{
	struct source *s = arg;

	if (source_saw(s, mkv_param_find("storage.drives")) && !s->repeats) {
		config_error(s->e, "%s: key \"storage.drives\": given twice", where);
		source_bad(s, "storage.drives");
	}
	s->c->params.n_drives = 0;
}

static void
source_drive(void *arg, const char *where, const char *media, const char *max_size, const char *weight)
{
	struct source *s = arg;
	char why[MKV_PARAM_WHY_BYTES];

	if (media == NULL)
		config_error(s->e, "%s: key \"storage.drives[].media\": missing; each drive needs one", where);
	else if (mkv_params_add_drive(&s->c->params, media, max_size, weight, why, sizeof(why)) != 0)
		config_error(s->e, "%s: %s", where, why);
	else
		return;
	source_bad(s, "storage.drives");
}

static struct config_sink
source_sink(struct source *s)
{
	return ((struct config_sink){
	    .set = source_set, .drives_begin = source_drives_begin, .drive = source_drive, .bad = source_bad, .arg = s, .errors = s->e });
}

/* A key with its value as one text, as the environment and the command line have it. */
static void
source_text(struct source *s, const char *where, const char *key, const char *value)
{
	struct config_sink sink = source_sink(s);

	if (strcmp(key, "storage.drives") == 0)
		config_yaml_drives(where, value, &sink);
	else
		source_set(s, where, key, value);
}

/* ---- the sources ---- */

static void
config_read_file(struct config *c, const struct config_args *a, struct config_errors *e)
{
	struct source s = { .c = c, .e = e };
	struct config_sink sink = source_sink(&s);
	const char *path = a->file != NULL ? a->file : getenv("MEMKV_CONFIG");
	int must = path != NULL && path[0] != '\0';
	FILE *f;

	if (!must)
		path = CONFIG_FILE_DEFAULT;
	if ((f = fopen(path, "re")) == NULL) {
		if (must || errno != ENOENT) {
			config_error(e, "%s: cannot be read: %s", path, strerror(errno));
			c->unread = 1;
		}
		return;
	}
	snprintf(c->file, sizeof(c->file), "%s", path);
	config_yaml_file(path, f, &sink);
	fclose(f);
}

/* The length of the section if the variable begins with one of ours, as MEMKV_STORAGE_MODEE does; else 0. */
static size_t
env_section(const char *name)
{
	char of_row[MKV_PARAM_KEY_BYTES + 16];

	for (unsigned i = 0; i < mkv_param_count(); i++) {
		size_t n = strcspn(mkv_param_rows()[i].key, ".");

		mkv_params_env_name(mkv_param_rows()[i].key, of_row, sizeof(of_row));
		if (strncmp(name, of_row, ENV_PREFIX + n + 1) == 0)
			return (n);
	}
	return (0);
}

static int
env_known(const char *name, size_t bytes)
{
	char of_row[MKV_PARAM_KEY_BYTES + 16];
	const char *alias;

	for (unsigned i = 0; i < mkv_param_count(); i++) {
		mkv_params_env_name(mkv_param_rows()[i].key, of_row, sizeof(of_row));
		alias = mkv_params_env_alias(mkv_param_rows()[i].key);
		if ((strlen(of_row) == bytes && memcmp(name, of_row, bytes) == 0) ||
		    (alias != NULL && strlen(alias) == bytes && memcmp(name, alias, bytes) == 0))
			return (1);
	}
	return (0);
}

/*
 * Variables that look like keys and are none are told, not refused: service managers put names of their own there (MEMKV_ADMIN_PORT for a service
 * that is called memkv-admin).
 */
static void
config_note_strays(struct config *c)
{
	char key[MKV_PARAM_KEY_BYTES];

	for (char **v = environ; *v != NULL && c->n_stray < CONFIG_NOTES_MAX; v++) {
		size_t bytes = strcspn(*v, "="), section = env_section(*v);
		struct config_stray *to = &c->stray[c->n_stray];

		if (section == 0 || env_known(*v, bytes))
			continue;
		snprintf(to->name, sizeof(to->name), "%.*s", (int)bytes, *v);
		snprintf(key, sizeof(key), "%.*s", (int)(bytes - ENV_PREFIX), *v + ENV_PREFIX);
		for (char *p = key; *p != '\0'; p++)
			*p = p == key + section ? '.' : *p >= 'A' && *p <= 'Z' ? (char)(*p - 'A' + 'a') : *p;
		to->near = mkv_param_nearest(key);
		c->n_stray++;
	}
}

void
config_stray_text(const struct config_stray *v, char *dst, size_t dst_bytes)
{
	char name[MKV_PARAM_KEY_BYTES + 16];

	if (v->near != NULL)
		snprintf(dst, dst_bytes, "%s: no key has this variable; the nearest one is %s", v->name,
		    mkv_params_env_name(v->near->key, name, sizeof(name)));
	else
		snprintf(dst, dst_bytes, "%s: no key has this variable; memkv start --help lists them", v->name);
}

static void
config_read_env(struct config *c, struct config_errors *e)
{
	struct source s = { .c = c, .e = e };
	char name[MKV_PARAM_KEY_BYTES + 16];
	const char *value, *alias;

	for (unsigned i = 0; i < mkv_param_count(); i++) {
		const char *key = mkv_param_rows()[i].key;

		value = getenv(mkv_params_env_name(key, name, sizeof(name)));
		alias = mkv_params_env_alias(key);
		if (value == NULL && alias != NULL && (value = getenv(alias)) != NULL)
			snprintf(name, sizeof(name), "%s", alias);
		if (value != NULL)
			source_text(&s, name, key, value);
	}
	config_note_strays(c);
}

static void
config_read_sets(struct config *c, const struct config_args *a, struct config_errors *e)
{
	struct source s = { .c = c, .e = e, .repeats = 1 };
	char key[MKV_PARAM_KEY_BYTES * 2], where[sizeof(key) + 16];
	const char *eq;

	for (unsigned i = 0; i < a->n_sets; i++) {
		eq = strchr(a->sets[i], '=');
		if (eq == NULL || eq == a->sets[i] || (size_t)(eq - a->sets[i]) >= sizeof(key)) {
			config_error(e, "--set %s: section.key=value is expected", a->sets[i]);
			continue;
		}
		memcpy(key, a->sets[i], (size_t)(eq - a->sets[i]));
		key[eq - a->sets[i]] = '\0';
		snprintf(where, sizeof(where), "--set %s", key);
		source_text(&s, where, key, eq + 1);
	}
}

int
config_load(struct config *c, const struct config_args *a, struct config_errors *e)
{
	memset(c, 0, sizeof(*c));
	mkv_params_defaults(&c->params);
	config_read_file(c, a, e);
	config_read_env(c, e);
	config_read_sets(c, a, e);
	if (!c->unread)
		config_derive(c, e);
	return (e->n > 0 || e->more > 0 ? MKV_E_CONFIG : 0);
}

void
config_wipe(struct config *c)
{
	mkv_params_wipe(&c->params);
}

/* ---- the command line ---- */

static int
args_take(int argc, char *const argv[], int *i, const char *name, const char **value)
{
	size_t n = strlen(name);

	if (strncmp(argv[*i], name, n) != 0)
		return (0);
	if (argv[*i][n] == '=') {
		*value = argv[*i] + n + 1;
		return (1);
	}
	if (argv[*i][n] != '\0')
		return (0);
	*value = *i + 1 < argc ? argv[++*i] : NULL;
	return (1);
}

/* One option with a value: 0; 1 not one of them; MKV_E_CONFIG and words. */
static int
args_valued(struct config_args *a, int argc, char *const argv[], int *i, char *why, size_t why_bytes)
{
	const char *v = NULL, *name = argv[*i];
	char *end = NULL;
	long fd;

	if (args_take(argc, argv, i, "--config", &v))
		a->file = v;
	else if (args_take(argc, argv, i, "--set", &v)) {
		if (a->n_sets < CONFIG_SETS_MAX)
			a->sets[a->n_sets++] = v;
		else
			v = NULL;
	} else if (args_take(argc, argv, i, "--ready-fd", &v)) {
		fd = v != NULL ? strtol(v, &end, 10) : -1;
		if (end == v || *end != '\0' || fd < 0 || fd > 1 << 20)
			v = NULL;
		a->ready_fd = (int)fd;
	} else
		return (1);
	if (v != NULL)
		return (0);
	snprintf(why, why_bytes, "%s: the value is missing or cannot be used", name);
	return (MKV_E_CONFIG);
}

static int
args_flag(const char *arg, enum config_run *run)
{
	static const struct {
		const char	*name;
		enum config_run	run;
	} flags[] = {
		{ "--show-defaults", CONFIG_SHOW_DEFAULTS }, { "--show-markdown", CONFIG_SHOW_MARKDOWN }, { "--check-config", CONFIG_CHECK },
		{ "--help", CONFIG_HELP }, { "-h", CONFIG_HELP }, { "--version", CONFIG_VERSION }, { "-V", CONFIG_VERSION },
	};

	for (size_t i = 0; i < MKV_ARRAY_LEN(flags); i++)
		if (strcmp(arg, flags[i].name) == 0) {
			*run = flags[i].run;
			return (0);
		}
	return (-1);
}

int
config_parse_args(struct config_args *a, int argc, char *const argv[], enum config_run *run, char *why, size_t why_bytes)
{
	int r;

	memset(a, 0, sizeof(*a));
	a->ready_fd = -1;
	*run = CONFIG_RUN;
	for (int i = 1; i < argc; i++) {
		if (args_flag(argv[i], run) == 0)
			continue;
		if (strcmp(argv[i], "--json") == 0) {
			a->json = 1;
			continue;
		}
		r = args_valued(a, argc, argv, &i, why, why_bytes);
		if (r == 1)
			snprintf(why, why_bytes, "%s: unknown option; --help lists them", argv[i]);
		if (r != 0)
			return (MKV_E_CONFIG);
	}
	if (!a->json || *run == CONFIG_CHECK)
		return (0);
	snprintf(why, why_bytes, "--json: goes with --check-config alone");
	return (MKV_E_CONFIG);
}
