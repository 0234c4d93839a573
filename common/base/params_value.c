/*
 * Texts of configuration values, by type. Any process, any thread; no state. The texts are foreign: every one is checked against the row's
 * range, and a field changes only when its whole text was good.
 */
#include "config.h"
#include "common/base/params.h"

#include <arpa/inet.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "common/base/assert.h"
#include "common/base/auth.h"
#include "common/base/err.h"
#include "common/base/params_priv.h"
#include "common/base/units.h"

#define WEIGHT_MAX	1000.0

static int
value_number(const char *s, uint64_t *out)
{
	uint64_t v = 0;

	if (*s == '\0')
		return (MKV_E_INVAL);
	for (; *s != '\0'; s++)
		if (*s < '0' || *s > '9' || __builtin_mul_overflow(v, 10, &v) || __builtin_add_overflow(v, (uint64_t)(*s - '0'), &v))
			return (MKV_E_INVAL);
	*out = v;
	return (0);
}

/* The number that a text of this type stands for, whatever the range. */
static int
value_scalar(enum mkv_param_type type, const char *s, uint64_t *out)
{
	switch (type) {
	case MKV_PARAM_SIZE:
	case MKV_PARAM_POW2:
		return (mkv_size_parse(s, out));
	case MKV_PARAM_DURATION:
		return (mkv_duration_parse(s, out));
	default:
		return (value_number(s, out));
	}
}

/* A number within the row's range. */
static int
value_in_range(const struct mkv_param_row *row, const char *s, uint64_t *out)
{
	uint64_t v, min, max;
	int r;

	r = value_scalar(row->type, row->min, &min);
	MKV_ASSERT(r == 0);			/* the row is ours */
	r = value_scalar(row->type, row->max, &max);
	MKV_ASSERT(r == 0);
	if (value_scalar(row->type, s, &v) != 0 || v < min || v > max)
		return (MKV_E_INVAL);
	if (row->type == MKV_PARAM_POW2 && (v & (v - 1)) != 0)
		return (MKV_E_INVAL);
	*out = v;
	return (0);
}

static int
value_bool(const char *s, int *out)
{
	static const char *const word[2][3] = { { "false", "no", "off" }, { "true", "yes", "on" } };

	for (int v = 0; v < 2; v++)
		for (size_t i = 0; i < 3; i++)
			if (strcasecmp(s, word[v][i]) == 0) {
				*out = v;
				return (0);
			}
	return (MKV_E_INVAL);
}

/* Choice number i of "a|b|c" and its length; NULL behind the last. */
static const char *
value_choice(const char *choices, int i, size_t *bytes)
{
	const char *bar;

	for (; i > 0; i--) {
		if ((bar = strchr(choices, '|')) == NULL)
			return (NULL);
		choices = bar + 1;
	}
	*bytes = strcspn(choices, "|");
	return (choices);
}

static int
value_enum(const char *choices, const char *s, int *out)
{
	const char *choice;
	size_t bytes;

	for (int i = 0; (choice = value_choice(choices, i, &bytes)) != NULL; i++)
		if (strlen(s) == bytes && memcmp(s, choice, bytes) == 0) {
			*out = i;
			return (0);
		}
	return (MKV_E_INVAL);
}

/* "127.0.0.1:9900", "[::1]:0". */
static int
value_addr(const char *s, struct mkv_param_addr *out)
{
	struct mkv_param_addr a = { .port = 0 };
	struct in6_addr in6;
	struct in_addr in;
	const char *colon = strrchr(s, ':');
	uint64_t port;
	size_t bytes;
	int v6 = s[0] == '[';

	if (colon == NULL || value_number(colon + 1, &port) != 0 || port > UINT16_MAX)
		return (MKV_E_INVAL);
	bytes = (size_t)(colon - s);
	if (v6 && (bytes < 2 || colon[-1] != ']'))
		return (MKV_E_INVAL);
	s += v6;
	bytes -= v6 ? 2 : 0;
	if (bytes >= sizeof(a.host))
		return (MKV_E_INVAL);
	memcpy(a.host, s, bytes);
	a.port = (uint16_t)port;
	if (v6 ? inet_pton(AF_INET6, a.host, &in6) != 1 : inet_pton(AF_INET, a.host, &in) != 1)
		return (MKV_E_INVAL);
	*out = a;
	return (0);
}

/* s without blanks at both ends. */
static const char *
value_trim(const char *s, size_t *bytes)
{
	for (; *bytes > 0 && (s[0] == ' ' || s[0] == '\t'); s++)
		--*bytes;
	while (*bytes > 0 && (s[*bytes - 1] == ' ' || s[*bytes - 1] == '\t'))
		--*bytes;
	return (s);
}

/* One item of a list, in quotes or not. */
static int
value_item(const char *s, size_t bytes, char dst[MKV_PARAM_ITEM_BYTES])
{
	s = value_trim(s, &bytes);
	if (bytes >= 2 && (s[0] == '"' || s[0] == '\'') && s[bytes - 1] == s[0]) {
		s++;
		bytes -= 2;
	}
	if (bytes == 0 || bytes >= MKV_PARAM_ITEM_BYTES)
		return (MKV_E_INVAL);
	memcpy(dst, s, bytes);
	dst[bytes] = '\0';
	return (params_text_ok(dst, MKV_PARAM_ITEM_BYTES) ? 0 : MKV_E_INVAL);
}

/* "a, b" or "[a, b]" */
static int
value_list(const char *s, struct mkv_param_list *out)
{
	struct mkv_param_list l = { .count = 0 };
	size_t bytes = strlen(s), n;
	const char *comma;

	s = value_trim(s, &bytes);
	if (bytes >= 2 && s[0] == '[' && s[bytes - 1] == ']') {
		s++;
		bytes -= 2;
	}
	for (s = value_trim(s, &bytes); bytes > 0; s += n, bytes -= n) {
		comma = memchr(s, ',', bytes);
		n = comma != NULL ? (size_t)(comma - s) : bytes;
		if (l.count == MKV_PARAM_ITEMS_MAX || value_item(s, n, l.item[l.count]) != 0)
			return (MKV_E_INVAL);
		l.count++;
		n += comma != NULL;
	}
	*out = l;
	return (0);
}

static int
value_secret(const char *s, char *out)
{
	uint8_t key[MKV_KEY_BYTES];

	if (s[0] != '\0' && mkv_key_parse(s, key) != 0)
		return (MKV_E_INVAL);
	mkv_wipe(key, sizeof(key));
	snprintf(out, MKV_PARAM_SECRET_BYTES, "%s", s);
	return (0);
}

int
params_text_ok(const char *s, size_t max_bytes)
{
	if (strlen(s) >= max_bytes)
		return (0);
	for (; *s != '\0'; s++)
		if ((unsigned char)*s < ' ' || *s == 127)
			return (0);
	return (1);
}

int
params_parse_weight(const char *s, double *weight)
{
	char *end;
	double v;

	if (*s < '0' || *s > '9')		/* no sign, blanks, "inf", "nan" */
		return (MKV_E_INVAL);
	v = strtod(s, &end);
	if (*end != '\0' || !(v >= 0 && v <= WEIGHT_MAX))
		return (MKV_E_INVAL);
	*weight = v;
	return (0);
}

static int
value_str(const struct mkv_param_row *row, const char *s, char *out)
{
	uint64_t max;
	int r = value_number(row->max, &max);

	MKV_ASSERT(r == 0 && max < MKV_PARAM_STR_BYTES);
	if (!params_text_ok(s, (size_t)max + 1))
		return (MKV_E_INVAL);
	snprintf(out, MKV_PARAM_STR_BYTES, "%s", s);
	return (0);
}

int
params_parse(const struct mkv_param_row *row, const char *value, void *field)
{
	uint64_t v = 0;

	switch (row->type) {
	case MKV_PARAM_U32:
		if (value_in_range(row, value, &v) != 0 || v > UINT32_MAX)
			return (MKV_E_INVAL);
		*(uint32_t *)field = (uint32_t)v;
		return (0);
	case MKV_PARAM_U64:
	case MKV_PARAM_SIZE:
	case MKV_PARAM_POW2:
	case MKV_PARAM_DURATION:
		return (value_in_range(row, value, field));
	case MKV_PARAM_AUTO:
		if (strcmp(value, "auto") != 0 && (value_in_range(row, value, &v) != 0 || v > INT32_MAX))
			return (MKV_E_INVAL);
		*(int32_t *)field = strcmp(value, "auto") == 0 ? -1 : (int32_t)v;
		return (0);
	case MKV_PARAM_BOOL:
		return (value_bool(value, field));
	case MKV_PARAM_ENUM:
		return (value_enum(row->max, value, field));
	case MKV_PARAM_STR:
		return (value_str(row, value, field));
	case MKV_PARAM_ADDR:
		if (value[0] != '\0' || row->def[0] != '\0')	/* empty only where the default is */
			return (value_addr(value, field));
		*(struct mkv_param_addr *)field = (struct mkv_param_addr){ .port = 0 };
		return (0);
	case MKV_PARAM_SECRET:
		return (value_secret(value, field));
	case MKV_PARAM_LIST:
		return (value_list(value, field));
	case MKV_PARAM_DRIVES:
		break;
	}
	return (MKV_E_INVAL);
}

static int
value_format_list(const struct mkv_param_list *l, char *dst, size_t dst_bytes)
{
	size_t n = 0;

	*dst = '\0';
	for (unsigned i = 0; i < l->count && n < dst_bytes; i++)
		n += (size_t)snprintf(dst + n, dst_bytes - n, "%s%s", i != 0 ? "," : "", l->item[i]);
	return ((int)n);
}

static int
value_format_addr(const struct mkv_param_addr *a, char *dst, size_t dst_bytes)
{
	if (a->host[0] == '\0')
		return (snprintf(dst, dst_bytes, "%s", ""));
	return (snprintf(dst, dst_bytes, strchr(a->host, ':') != NULL ? "[%s]:%u" : "%s:%u", a->host, a->port));
}

int
params_format(const struct mkv_param_row *row, const void *field, char *dst, size_t dst_bytes)
{
	char text[64];
	const char *choice;
	size_t bytes = 0;
	int n = 0;

	switch (row->type) {
	case MKV_PARAM_U32:
		n = snprintf(dst, dst_bytes, "%" PRIu32, *(const uint32_t *)field);
		break;
	case MKV_PARAM_U64:
		n = snprintf(dst, dst_bytes, "%" PRIu64, *(const uint64_t *)field);
		break;
	case MKV_PARAM_SIZE:
	case MKV_PARAM_POW2:
		n = snprintf(dst, dst_bytes, "%s", mkv_size_format(text, sizeof(text), *(const uint64_t *)field));
		break;
	case MKV_PARAM_DURATION:
		n = snprintf(dst, dst_bytes, "%s", mkv_duration_format(text, sizeof(text), *(const uint64_t *)field));
		break;
	case MKV_PARAM_AUTO:
		snprintf(text, sizeof(text), "%" PRId32, *(const int32_t *)field);
		n = snprintf(dst, dst_bytes, "%s", *(const int32_t *)field < 0 ? "auto" : text);
		break;
	case MKV_PARAM_BOOL:
		n = snprintf(dst, dst_bytes, "%s", *(const int *)field ? "true" : "false");
		break;
	case MKV_PARAM_ENUM:
		choice = value_choice(row->max, *(const int *)field, &bytes);
		MKV_ASSERT(choice != NULL);
		n = snprintf(dst, dst_bytes, "%.*s", (int)bytes, choice);
		break;
	case MKV_PARAM_STR:
		n = snprintf(dst, dst_bytes, "%s", (const char *)field);
		break;
	case MKV_PARAM_ADDR:
		n = value_format_addr(field, dst, dst_bytes);
		break;
	case MKV_PARAM_LIST:
		n = value_format_list(field, dst, dst_bytes);
		break;
	case MKV_PARAM_SECRET:
	case MKV_PARAM_DRIVES:
		MKV_ASSERT(!"has no text");
	}
	return (n >= 0 && (size_t)n < dst_bytes ? 0 : MKV_E_TOOBIG);
}
