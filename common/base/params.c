/*
 * Configuration keys: the table, their names in the environment, complaints that help. Any process, any thread; no state.
 *
 * Keys and values are foreign texts. A complaint quotes them cut to a length that leaves room for the rest of the sentence, and never
 * quotes the value of a SECRET. What can fail is the text: MKV_E_CONFIG, and the struct is as it was.
 */
#include "config.h"
#include "common/base/params.h"

#include <stdio.h>
#include <string.h>

#include "common/base/assert.h"
#include "common/base/auth.h"
#include "common/base/err.h"
#include "common/base/params_priv.h"
#include "common/base/units.h"

#define QUOTED_MAX	100		/* bytes of a foreign text in a complaint */

static const struct mkv_param_row params_table[] = {
#define MKV_PARAM(key, type, field, def, min, max, unit, scope, help) \
	{ key, MKV_PARAM_##type, offsetof(struct mkv_params, field), def, min, max, unit, MKV_PARAM_##scope, help },
#include "common/tbl/params.def"
#undef MKV_PARAM
};

static const struct {
	const char	*key, *name;
} params_alias[] = {
	{ "network.auth_key", "MEMKV_AUTH_KEY" },
};

const struct mkv_param_row *
mkv_param_rows(void)
{
	return (params_table);
}

unsigned
mkv_param_count(void)
{
	return (MKV_ARRAY_LEN(params_table));
}

const struct mkv_param_row *
mkv_param_find(const char *key)
{
	for (unsigned i = 0; i < MKV_ARRAY_LEN(params_table); i++)
		if (strcmp(params_table[i].key, key) == 0)
			return (&params_table[i]);
	return (NULL);
}

/* Insertions, deletions and replacements from a to b; both shorter than MKV_PARAM_KEY_BYTES. */
static unsigned
params_distance(const char *a, const char *b)
{
	unsigned row[MKV_PARAM_KEY_BYTES + 1], diagonal, above;
	size_t n = strlen(b);

	MKV_ASSERT(n < MKV_PARAM_KEY_BYTES);
	for (size_t j = 0; j <= n; j++)
		row[j] = (unsigned)j;
	for (size_t i = 0; a[i] != '\0'; i++) {
		diagonal = row[0];
		row[0] = (unsigned)i + 1;
		for (size_t j = 0; j < n; j++) {
			above = row[j + 1];
			row[j + 1] = MKV_MIN(diagonal + (a[i] != b[j]), MKV_MIN(above, row[j]) + 1);
			diagonal = above;
		}
	}
	return (row[n]);
}

const struct mkv_param_row *
mkv_param_nearest(const char *key)
{
	const struct mkv_param_row *best = NULL;
	unsigned d, best_d;
	size_t bytes = strlen(key);

	if (bytes >= MKV_PARAM_KEY_BYTES)
		return (NULL);
	best_d = MKV_MAX((unsigned)bytes / 2, 2u);	/* beyond that it is another word */
	for (unsigned i = 0; i < MKV_ARRAY_LEN(params_table); i++) {
		d = params_distance(key, params_table[i].key);
		/* The right name in the wrong section, or without one, is close. */
		if (strcmp(strrchr(params_table[i].key, '.') + 1, strrchr(key, '.') != NULL ? strrchr(key, '.') + 1 : key) == 0)
			d = MKV_MIN(d, 1u);
		if (d < best_d) {
			best_d = d;
			best = &params_table[i];
		}
	}
	return (best);
}

char *
mkv_param_allowed(const struct mkv_param_row *row, char *dst, size_t dst_bytes)
{
	const char *open = row->unit[0] != '\0' ? " (" : "", *close = row->unit[0] != '\0' ? ")" : "";

	switch (row->type) {
	case MKV_PARAM_U32:
	case MKV_PARAM_U64:
		snprintf(dst, dst_bytes, "a whole number from %s to %s%s%s%s", row->min, row->max, open, row->unit, close);
		break;
	case MKV_PARAM_AUTO:
		snprintf(dst, dst_bytes, "\"auto\" or a whole number from %s to %s", row->min, row->max);
		break;
	case MKV_PARAM_SIZE:
		snprintf(dst, dst_bytes, "a size from %s to %s, such as 64MiB", row->min, row->max);
		break;
	case MKV_PARAM_POW2:
		snprintf(dst, dst_bytes, "a size from %s to %s that is a power of two", row->min, row->max);
		break;
	case MKV_PARAM_DURATION:
		snprintf(dst, dst_bytes, "a duration from %s to %s, such as 500ms or 5s", row->min, row->max);
		break;
	case MKV_PARAM_BOOL:
		snprintf(dst, dst_bytes, "true or false");
		break;
	case MKV_PARAM_ENUM:
		snprintf(dst, dst_bytes, "one of %s", row->max);
		break;
	case MKV_PARAM_STR:
		snprintf(dst, dst_bytes, "a text of at most %s bytes without control characters", row->max);
		break;
	case MKV_PARAM_ADDR:
		snprintf(dst, dst_bytes, "ADDRESS:PORT with a numeric address, such as 127.0.0.1:9900 or [::1]:9900%s",
		    row->def[0] == '\0' ? ", or nothing" : "");
		break;
	case MKV_PARAM_SECRET:
		snprintf(dst, dst_bytes, "64 hex digits (openssl rand -hex 32), or nothing");
		break;
	case MKV_PARAM_LIST:
		snprintf(dst, dst_bytes, "at most %u %s of at most %u bytes, separated by commas", MKV_PARAM_ITEMS_MAX, row->unit,
		    MKV_PARAM_ITEM_BYTES - 1);
		break;
	case MKV_PARAM_DRIVES:
		snprintf(dst, dst_bytes, "a list of at most %s {media: PATH or NAME, max_size: SIZE, weight: NUMBER}", row->max);
		break;
	}
	return (dst);
}

char *
mkv_params_env_name(const char *key, char *dst, size_t dst_bytes)
{
	size_t n = (size_t)snprintf(dst, dst_bytes, "MEMKV_%s", key);

	for (size_t i = 0; i < n && i + 1 < dst_bytes; i++)
		if (dst[i] == '.')
			dst[i] = '_';
		else if (dst[i] >= 'a' && dst[i] <= 'z')
			dst[i] = (char)(dst[i] - 'a' + 'A');
	return (dst);
}

const char *
mkv_params_env_alias(const char *key)
{
	for (unsigned i = 0; i < MKV_ARRAY_LEN(params_alias); i++)
		if (strcmp(params_alias[i].key, key) == 0)
			return (params_alias[i].name);
	return (NULL);
}

void
mkv_params_defaults(struct mkv_params *p)
{
	int r;

	memset(p, 0, sizeof(*p));
	for (unsigned i = 0; i < MKV_ARRAY_LEN(params_table); i++) {
		if (params_table[i].type == MKV_PARAM_DRIVES)
			continue;
		r = params_parse(&params_table[i], params_table[i].def, (char *)p + params_table[i].off);
		MKV_ASSERT(r == 0);		/* the table is ours */
	}
}

static int
params_unknown(const char *key, char *why, size_t why_bytes)
{
	const struct mkv_param_row *near = mkv_param_nearest(key);

	if (near != NULL)
		snprintf(why, why_bytes, "unknown key \"%.*s\"; the nearest known key is %s (%s)", QUOTED_MAX, key, near->key, near->help);
	else
		snprintf(why, why_bytes, "unknown key \"%.*s\"; `memkv config --show-defaults` lists the known ones", QUOTED_MAX, key);
	return (MKV_E_CONFIG);
}

static int
params_refuse(const struct mkv_param_row *row, const char *value, char *why, size_t why_bytes)
{
	char allowed[192];

	mkv_param_allowed(row, allowed, sizeof(allowed));
	if (row->type == MKV_PARAM_SECRET)
		snprintf(why, why_bytes, "%s: the value (%zu bytes) is not allowed; allowed is %s", row->key, strlen(value), allowed);
	else
		snprintf(why, why_bytes, "%s: \"%.*s\" is not allowed; allowed is %s", row->key, QUOTED_MAX, value, allowed);
	return (MKV_E_CONFIG);
}

/* rdma.device, the older form, is the only item of rdma.devices unless that was given as well. */
static void
params_carry_device(struct mkv_params *p, const char *former)
{
	struct mkv_param_list *l = &p->rdma_devices;

	if (l->count > 1 || (l->count == 1 && strcmp(l->item[0], former) != 0))
		return;
	l->count = p->rdma_device[0] != '\0';
	memcpy(l->item[0], p->rdma_device, MKV_PARAM_ITEM_BYTES);	/* the row allows 63 bytes */
}

int
mkv_params_set(struct mkv_params *p, const char *key, const char *value, char *why, size_t why_bytes)
{
	const struct mkv_param_row *row = mkv_param_find(key);
	char former[MKV_PARAM_STR_BYTES];

	if (row == NULL)
		return (params_unknown(key, why, why_bytes));
	memcpy(former, p->rdma_device, sizeof(former));
	if (params_parse(row, value, (char *)p + row->off) != 0)
		return (params_refuse(row, value, why, why_bytes));
	if (row->off == offsetof(struct mkv_params, rdma_device))
		params_carry_device(p, former);
	return (0);
}

int
mkv_params_add_drive(struct mkv_params *p, const char *media, const char *max_size, const char *weight, char *why, size_t why_bytes)
{
	struct mkv_drive_conf d = { .weight = 1 };

	if (p->n_drives == MKV_PARAM_DRIVES_MAX) {
		snprintf(why, why_bytes, "storage.drives: more than %u drives", MKV_PARAM_DRIVES_MAX);
		return (MKV_E_CONFIG);
	}
	if (media == NULL || media[0] == '\0' || !params_text_ok(media, sizeof(d.media))) {
		snprintf(why, why_bytes, "storage.drives: media is missing, or not a text of at most %zu bytes", sizeof(d.media) - 1);
		return (MKV_E_CONFIG);
	}
	for (unsigned i = 0; i < p->n_drives; i++)
		if (strcmp(p->drives[i].media, media) == 0) {
			snprintf(why, why_bytes, "storage.drives: media \"%.*s\" stands there twice", QUOTED_MAX, media);
			return (MKV_E_CONFIG);
		}
	if (max_size != NULL && max_size[0] != '\0' && (mkv_size_parse(max_size, &d.max_size) != 0 || d.max_size == 0)) {
		snprintf(why, why_bytes, "storage.drives: max_size \"%.*s\" is not allowed; allowed is a size such as 1TiB", QUOTED_MAX, max_size);
		return (MKV_E_CONFIG);
	}
	if (weight != NULL && weight[0] != '\0' && params_parse_weight(weight, &d.weight) != 0) {
		snprintf(why, why_bytes, "storage.drives: weight \"%.*s\" is not allowed; allowed is a number from 0 to 1000", QUOTED_MAX, weight);
		return (MKV_E_CONFIG);
	}
	memcpy(d.media, media, strlen(media) + 1);
	p->drives[p->n_drives++] = d;
	return (0);
}

int
mkv_params_get_text(const struct mkv_params *p, const struct mkv_param_row *row, char *dst, size_t dst_bytes)
{
	if (row->type == MKV_PARAM_SECRET)
		return (MKV_E_DENIED);
	if (row->type == MKV_PARAM_DRIVES)
		return (MKV_E_UNSUPPORTED);
	return (params_format(row, (const char *)p + row->off, dst, dst_bytes));
}

void
mkv_params_wipe(struct mkv_params *p)
{
	for (unsigned i = 0; i < MKV_ARRAY_LEN(params_table); i++)
		if (params_table[i].type == MKV_PARAM_SECRET)
			mkv_wipe((char *)p + params_table[i].off, MKV_PARAM_SECRET_BYTES);
}
