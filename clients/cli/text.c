/*
 * Keys, ranges and times between people, JSON and bytes. Keeps nothing.
 */
#include "config.h"
#include "clients/cli/cli.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "common/base/units.h"

static int
text_digit(char c)
{
	if (c >= '0' && c <= '9')
		return (c - '0');
	c |= 0x20;
	return (c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1);
}

static int
text_unhex(const char *s, size_t n, unsigned char *out)
{
	int hi, lo;

	for (size_t i = 0; i < n; i += 2) {
		hi = text_digit(s[i]);
		lo = text_digit(s[i + 1]);
		if (hi < 0 || lo < 0)
			return (-1);
		out[i / 2] = (unsigned char)(hi << 4 | lo);
	}
	return (0);
}

int
cli_key(const struct cli *c, const char *given, struct cli_key *k)
{
	size_t n = strlen(given);

	k->given = given;
	k->bytes = c->o.hex ? n / 2 : n;
	if (c->o.hex && n % 2 != 0)
		return (cli_usage(c, "key %s: --hex wants an even number of hexadecimal digits", given));
	if (k->bytes == 0 || k->bytes > MEMKV_KEY_MAX)
		return (cli_usage(c, "key of %zu bytes: a key has 1 to %u", k->bytes, MEMKV_KEY_MAX));
	if (!c->o.hex)
		memcpy(k->data, given, n);
	else if (text_unhex(given, n, k->data) != 0)
		return (cli_usage(c, "key %s: --hex wants an even number of hexadecimal digits", given));
	return (CLI_DONE);
}

int
cli_keys(const struct cli *c, struct cli_key **keys, struct mkv_key **list)
{
	int r;

	*keys = calloc((size_t)c->n_words, sizeof(**keys));
	*list = calloc((size_t)c->n_words, sizeof(**list));
	if (*keys == NULL || *list == NULL)
		return (cli_fail(c, NULL, MKV_ERR_NOMEM, 0));
	for (int i = 0; i < c->n_words; i++) {
		if ((r = cli_key(c, c->words[i], &(*keys)[i])) != 0)
			return (r);
		(*list)[i] = (struct mkv_key){ (*keys)[i].data, (*keys)[i].bytes };
	}
	return (CLI_DONE);
}

char *
cli_key_text(char *dst, const void *key, size_t bytes, int hex)
{
	const unsigned char *p = key;
	char *to = dst;

	for (size_t i = 0; i < bytes; i++) {
		if (hex)
			to += sprintf(to, "%02x", p[i]);
		else if (p[i] < ' ' || p[i] == 127 || p[i] == '\\')
			to += sprintf(to, "\\x%02x", p[i]);
		else
			*to++ = (char)p[i];
	}
	*to = '\0';
	return (dst);
}

void
cli_json_key(json_t *j, const void *key, size_t bytes)
{
	char hex[2 * MEMKV_KEY_MAX + 1];
	json_t *text = memchr(key, 0, bytes) == NULL ? json_stringn(key, bytes) : NULL;

	if (text != NULL)
		json_object_set_new(j, "key", text);
	else
		json_object_set_new(j, "key_hex", json_string(cli_key_text(hex, key, MKV_MIN(bytes, MEMKV_KEY_MAX), 1)));
}

void
cli_json_print(FILE *to, json_t *j)
{
	json_dumpf(j, to, JSON_COMPACT | JSON_PRESERVE_ORDER);
	fputc('\n', to);
	json_decref(j);
}

int
cli_range(const char *text, uint64_t *off, uint64_t *len)
{
	const char *colon = strchr(text, ':');
	char first[64];

	if (colon == NULL || (size_t)(colon - text) >= sizeof(first))
		return (-1);
	snprintf(first, sizeof(first), "%.*s", (int)(colon - text), text);
	if (mkv_size_parse(first, off) != 0 || mkv_size_parse(colon + 1, len) != 0 || *len > MEMKV_VALUE_MAX || *off > MEMKV_VALUE_MAX)
		return (-1);
	return (0);
}

void
cli_time_text(char dst[32], uint64_t wall_ms)
{
	time_t t = (time_t)(wall_ms / 1000);
	struct tm tm;

	if (wall_ms == 0 || gmtime_r(&t, &tm) == NULL || strftime(dst, 32, "%Y-%m-%dT%H:%M:%SZ", &tm) == 0)
		snprintf(dst, 32, "-");
}
