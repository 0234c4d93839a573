/*
 * Process: supervisor, before the loop runs (and at reload, on it).
 * From YAML events to (key, value) with the line of each. Owns the parser only while a call lasts.
 * Foreign bytes: any file may come. Depth, lengths and counts are bounded; aliases, tags of other types and a second document are refused.
 * What can fail: the text; every complaint names the line and parsing goes on behind it where it can.
 */
#include "config.h"

#include "supervisor/config_priv.h"

#include <stdio.h>
#include <string.h>

#include <yaml.h>

#include "common/base/assert.h"

#define YAML_DEPTH_MAX	8u
#define YAML_PATH_MAX	128u
#define YAML_WHERE_MAX	(CONFIG_PATH_MAX + 16u)
#define DRIVES_KEY	"storage.drives"

struct doc {
	yaml_parser_t	p;
	yaml_event_t	ev;
	int		have;			/* ev is to be freed */
	int		bad;			/* the text is no YAML from here on */
	const char	*name;
	int		lines;			/* name is a file: add the line */
	const struct config_sink *sink;
};

static const char *
doc_where(const struct doc *d, size_t line, char dst[YAML_WHERE_MAX])
{
	if (d->lines)
		snprintf(dst, YAML_WHERE_MAX, "%s:%zu", d->name, line + 1);
	else
		snprintf(dst, YAML_WHERE_MAX, "%s", d->name);
	return (dst);
}

static void
doc_complain(struct doc *d, size_t line, const char *what, const char *key)
{
	char where[YAML_WHERE_MAX];

	config_error(d->sink->errors, key[0] != '\0' ? "%s: key \"%s\": %s" : "%s:%s %s", doc_where(d, line, where), key, what);
	d->sink->bad(d->sink->arg, key);
}

/* The next event; 0 when there is none any more, which was said. */
static int
doc_next(struct doc *d)
{
	if (d->bad)
		return (0);
	if (d->have)
		yaml_event_delete(&d->ev);
	d->have = yaml_parser_parse(&d->p, &d->ev);
	if (d->have)
		return (1);
	d->bad = 1;
	doc_complain(d, d->p.problem_mark.line, d->p.problem != NULL ? d->p.problem : "cannot be read", "");
	return (0);
}

/* Passes over the node whose first event is d->ev. Depth does not matter: events are counted. */
static void
doc_skip(struct doc *d)
{
	unsigned open = 0;

	do {
		if (d->ev.type == YAML_MAPPING_START_EVENT || d->ev.type == YAML_SEQUENCE_START_EVENT)
			open++;
		else if (d->ev.type == YAML_MAPPING_END_EVENT || d->ev.type == YAML_SEQUENCE_END_EVENT)
			open--;
	} while (open > 0 && doc_next(d));
}

/* Text of the scalar in d->ev; NULL if it cannot be one of ours. */
static const char *
doc_scalar(struct doc *d, const char *key)
{
	const char *s = (const char *)d->ev.data.scalar.value;

	if (strlen(s) != d->ev.data.scalar.length || strlen(s) >= MKV_PARAM_TEXT_BYTES) {
		doc_complain(d, d->ev.start_mark.line, "value is too long or holds a NUL", key);
		return (NULL);
	}
	return (s);
}

/* [a, b, c] -> "a,b,c" */
static void
doc_list(struct doc *d, const char *key)
{
	char text[MKV_PARAM_TEXT_BYTES] = "", where[YAML_WHERE_MAX];
	size_t n = 0, line = d->ev.start_mark.line;
	const char *s;
	int ok = 1;

	while (doc_next(d) && d->ev.type != YAML_SEQUENCE_END_EVENT) {
		s = d->ev.type == YAML_SCALAR_EVENT ? doc_scalar(d, key) : NULL;
		if (s == NULL || strchr(s, ',') != NULL || n + strlen(s) + 2 > sizeof(text)) {
			doc_complain(d, d->ev.start_mark.line, "a list of plain words is expected", key);
			ok = 0;
			doc_skip(d);
			continue;
		}
		n += (size_t)snprintf(text + n, sizeof(text) - n, "%s%s", n > 0 ? "," : "", s);
	}
	if (ok && !d->bad)
		d->sink->set(d->sink->arg, doc_where(d, line, where), key, text);
}

struct drive_text {
	char		media[MKV_PARAM_TEXT_BYTES], max_size[64], weight[64];
	int		have_media, have_size, have_weight;
};

/* Where the value of this key of a drive goes; NULL for an unknown one. */
static char *
drive_field(struct drive_text *t, const char *key, size_t *max, int **have)
{
	if (strcmp(key, "media") == 0) {
		*max = sizeof(t->media);
		*have = &t->have_media;
		return (t->media);
	}
	if (strcmp(key, "max_size") == 0) {
		*max = sizeof(t->max_size);
		*have = &t->have_size;
		return (t->max_size);
	}
	if (strcmp(key, "weight") == 0) {
		*max = sizeof(t->weight);
		*have = &t->have_weight;
		return (t->weight);
	}
	return (NULL);
}

/* One `key: value` of a drive; d->ev is the key. 0: complained. */
static int
doc_drive_pair(struct doc *d, struct drive_text *t)
{
	char key[YAML_PATH_MAX], full[YAML_PATH_MAX + 32], *dst;
	size_t max = 0, line = d->ev.start_mark.line;
	const char *s = NULL;
	int *have = NULL;

	if (d->ev.type == YAML_SCALAR_EVENT)
		snprintf(key, sizeof(key), "%s", (const char *)d->ev.data.scalar.value);
	else {
		doc_complain(d, line, "a drive's keys are media, max_size and weight", DRIVES_KEY);
		doc_skip(d);
		key[0] = '\0';
	}
	if (!doc_next(d))
		return (0);
	snprintf(full, sizeof(full), DRIVES_KEY "[].%s", key);
	dst = drive_field(t, key, &max, &have);
	if (dst == NULL || *have) {
		doc_complain(d, line, dst == NULL ? "unknown; a drive's keys are media, max_size and weight" : "given twice", full);
		doc_skip(d);
		return (0);
	}
	if (d->ev.type == YAML_SCALAR_EVENT)
		s = doc_scalar(d, full);
	if (s == NULL || strlen(s) >= max) {
		doc_complain(d, line, "a single short value is expected", full);
		doc_skip(d);
		return (0);
	}
	strcpy(dst, s);
	*have = 1;
	return (1);
}

static void
doc_drive(struct doc *d)
{
	struct drive_text t = { .have_media = 0 };
	char where[YAML_WHERE_MAX];
	size_t line = d->ev.start_mark.line;
	int ok = 1;

	while (doc_next(d) && d->ev.type != YAML_MAPPING_END_EVENT)
		ok &= doc_drive_pair(d, &t);
	if (ok && !d->bad)
		d->sink->drive(d->sink->arg, doc_where(d, line, where), t.have_media ? t.media : NULL, t.have_size ? t.max_size : NULL,
		    t.have_weight ? t.weight : NULL);
}

static void
doc_drives(struct doc *d)
{
	char where[YAML_WHERE_MAX];

	d->sink->drives_begin(d->sink->arg, doc_where(d, d->ev.start_mark.line, where));
	while (doc_next(d) && d->ev.type != YAML_SEQUENCE_END_EVENT) {
		if (d->ev.type == YAML_MAPPING_START_EVENT) {
			doc_drive(d);
			continue;
		}
		doc_complain(d, d->ev.start_mark.line, "a list of {media: PATH, max_size: SIZE} is expected", DRIVES_KEY);
		doc_skip(d);
	}
}

static void	doc_mapping(struct doc *d, const char *path, unsigned depth);

/* `network:` with nothing below it. */
static int
doc_empty_section(const struct doc *d, const char *path)
{
	size_t n = strlen(path);

	if (d->ev.data.scalar.length > 0 || d->ev.data.scalar.style != YAML_PLAIN_SCALAR_STYLE)
		return (0);
	for (unsigned i = 0; i < mkv_param_count(); i++)
		if (strncmp(mkv_param_rows()[i].key, path, n) == 0 && mkv_param_rows()[i].key[n] == '.')
			return (1);
	return (0);
}

/* The value of key `path`; d->ev is its first event. */
static void
doc_value(struct doc *d, const char *path, size_t line, unsigned depth)
{
	char where[YAML_WHERE_MAX];
	const char *s;

	switch (d->ev.type) {
	case YAML_SCALAR_EVENT:
		if (!doc_empty_section(d, path) && (s = doc_scalar(d, path)) != NULL)
			d->sink->set(d->sink->arg, doc_where(d, line, where), path, s);
		break;
	case YAML_MAPPING_START_EVENT:
		if (depth < YAML_DEPTH_MAX)
			doc_mapping(d, path, depth + 1);
		else {
			doc_complain(d, line, "nested too deep", path);
			doc_skip(d);
		}
		break;
	case YAML_SEQUENCE_START_EVENT:
		if (strcmp(path, DRIVES_KEY) == 0)
			doc_drives(d);
		else
			doc_list(d, path);
		break;
	default:
		doc_complain(d, line, "aliases are not supported", path);
		break;
	}
}

/* d->ev opened the mapping; returns with d->ev closing it. */
static void
doc_mapping(struct doc *d, const char *path, unsigned depth)
{
	char child[YAML_PATH_MAX];
	size_t line;
	int n;

	while (doc_next(d) && d->ev.type != YAML_MAPPING_END_EVENT) {
		line = d->ev.start_mark.line;
		n = d->ev.type == YAML_SCALAR_EVENT ?
		    snprintf(child, sizeof(child), "%s%s%s", path, path[0] != '\0' ? "." : "", (const char *)d->ev.data.scalar.value) : -1;
		if (n < 0 || (size_t)n >= sizeof(child)) {
			doc_complain(d, line, "a key must be a short word", path);
			doc_skip(d);
			if (doc_next(d))
				doc_skip(d);
			continue;
		}
		if (doc_next(d))
			doc_value(d, child, line, depth);
	}
}

/* The one document; d->ev is its first content event, or the stream's end. */
static void
doc_file(struct doc *d)
{
	int empty = d->ev.type == YAML_SCALAR_EVENT && d->ev.data.scalar.length == 0;

	if (d->ev.type == YAML_MAPPING_START_EVENT)
		doc_mapping(d, "", 0);
	else if (!empty) {
		doc_complain(d, d->ev.start_mark.line, "sections like \"network:\" are expected", "");
		doc_skip(d);
	}
	if (doc_next(d) && doc_next(d) && d->ev.type != YAML_STREAM_END_EVENT)
		doc_complain(d, d->ev.start_mark.line, "only one document is expected", "");
}

static void
doc_run(struct doc *d, void (*content)(struct doc *))
{
	int in_doc = doc_next(d) && doc_next(d) && d->ev.type == YAML_DOCUMENT_START_EVENT;

	if (in_doc && doc_next(d))
		content(d);
	if (d->have)
		yaml_event_delete(&d->ev);
	yaml_parser_delete(&d->p);
}

void
config_yaml_file(const char *name, FILE *f, const struct config_sink *sink)
{
	struct doc d = { .name = name, .lines = 1, .sink = sink };

	if (!yaml_parser_initialize(&d.p)) {
		config_error(sink->errors, "%s: out of memory", name);
		sink->bad(sink->arg, "");
		return;
	}
	yaml_parser_set_input_file(&d.p, f);
	doc_run(&d, doc_file);
}

static void
doc_drives_only(struct doc *d)
{
	if (d->ev.type == YAML_SEQUENCE_START_EVENT)
		doc_drives(d);
	else
		doc_complain(d, 0, "a list like [{media: PATH, max_size: SIZE}] is expected", DRIVES_KEY);
}

void
config_yaml_drives(const char *where, const char *text, const struct config_sink *sink)
{
	struct doc d = { .name = where, .lines = 0, .sink = sink };

	if (!yaml_parser_initialize(&d.p)) {
		config_error(sink->errors, "%s: out of memory", where);
		sink->bad(sink->arg, DRIVES_KEY);
		return;
	}
	yaml_parser_set_input_string(&d.p, (const unsigned char *)text, strlen(text));
	doc_run(&d, doc_drives_only);
}
