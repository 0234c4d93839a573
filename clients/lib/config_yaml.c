/*
 * The client's YAML file: one mapping of known keys to scalars, or to sequences of scalars for lists (joined by commas here).
 *
 * The caller's thread, inside mkv_client_open(). Foreign bytes: unknown keys, other shapes and syntax errors are refused with file and line.
 */
#include "config.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <yaml.h>

#include "clients/lib/client_priv.h"

struct reader {
	yaml_document_t	doc;
	const char	*path;
	char		*why;
};

static int
yaml_bad(struct reader *rd, size_t line, const char *what, const char *word)
{
	(void)snprintf(rd->why, WHY_BYTES, "%s:%zu: %s%s%s%s", rd->path, line + 1, what, word[0] != '\0' ? " \"" : "", word,
	    word[0] != '\0' ? "\"" : "");
	return (MKV_E_CONFIG);
}

/* Appends ",s" (or "s" to nothing). */
static int
yaml_append(char **to, const char *s)
{
	size_t have = *to == NULL ? 0 : strlen(*to), bytes = strlen(s);
	char *p = realloc(*to, have + bytes + 2);

	if (p == NULL)
		return (MKV_E_NOMEM);
	if (have > 0)
		p[have++] = ',';
	memcpy(p + have, s, bytes + 1);
	*to = p;
	return (0);
}

static int
yaml_sequence(struct reader *rd, const yaml_node_t *v, const char *key, char **to)
{
	int r = 0;

	for (yaml_node_item_t *it = v->data.sequence.items.start; it < v->data.sequence.items.top && r == 0; it++) {
		yaml_node_t *n = yaml_document_get_node(&rd->doc, *it);

		if (n == NULL || n->type != YAML_SCALAR_NODE)
			return (yaml_bad(rd, v->start_mark.line, "not a list of words:", key));
		r = yaml_append(to, (const char *)n->data.scalar.value);
	}
	return (r);
}

static int
yaml_pair(struct reader *rd, const yaml_node_t *k, const yaml_node_t *v, struct conf_text *t)
{
	const char *key;
	unsigned i;

	if (k == NULL || v == NULL || k->type != YAML_SCALAR_NODE)
		return (yaml_bad(rd, k == NULL ? 0 : k->start_mark.line, "a key is a word", ""));
	key = (const char *)k->data.scalar.value;
	for (i = 0; i < CONF_KEYS && strcmp(key, mkv_conf_key_names[i]) != 0; i++)
		continue;
	if (i == CONF_KEYS)
		return (yaml_bad(rd, k->start_mark.line, "unknown key", key));
	if (t->value[i] != NULL)
		return (yaml_bad(rd, k->start_mark.line, "key given twice:", key));
	if (v->type == YAML_SCALAR_NODE)
		return (yaml_append(&t->value[i], (const char *)v->data.scalar.value));
	if (v->type == YAML_SEQUENCE_NODE && (i == CONF_SERVERS || i == CONF_RDMA_DEVICES))
		return (yaml_sequence(rd, v, key, &t->value[i]));
	return (yaml_bad(rd, v->start_mark.line, "wrong kind of value for", key));
}

static int
yaml_root(struct reader *rd, struct conf_text *t)
{
	yaml_node_t *root = yaml_document_get_root_node(&rd->doc);
	int r = 0;

	if (root == NULL)
		return (0);				/* an empty file */
	if (root->type != YAML_MAPPING_NODE)
		return (yaml_bad(rd, root->start_mark.line, "the file is a list of `key: value`", ""));
	for (yaml_node_pair_t *p = root->data.mapping.pairs.start; p < root->data.mapping.pairs.top && r == 0; p++)
		r = yaml_pair(rd, yaml_document_get_node(&rd->doc, p->key), yaml_document_get_node(&rd->doc, p->value), t);
	return (r);
}

int
mkv_conf_yaml_read(struct conf_text *t, const char *path, char *why)
{
	struct reader rd = { .path = path, .why = why };
	yaml_parser_t ps;
	FILE *f;
	int r;

	if ((f = fopen(path, "re")) == NULL) {
		(void)snprintf(why, WHY_BYTES, "%s: cannot be read: %s", path, mkv_err(mkv_err_from_errno(errno)));
		return (MKV_E_CONFIG);
	}
	if (!yaml_parser_initialize(&ps)) {
		(void)fclose(f);
		return (MKV_E_NOMEM);
	}
	yaml_parser_set_input_file(&ps, f);
	if (!yaml_parser_load(&ps, &rd.doc)) {
		r = yaml_bad(&rd, ps.problem_mark.line, ps.problem == NULL ? "not YAML" : ps.problem, "");
	} else {
		r = yaml_root(&rd, t);
		yaml_document_delete(&rd.doc);
	}
	yaml_parser_delete(&ps);
	(void)fclose(f);
	return (r);
}
