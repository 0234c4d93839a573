/*
 * Fuzz target: configuration texts. The input is lines "key value"; "+ media" adds a drive. A refusal must leave everything as it was and
 * say why; what was accepted must be accepted again from its own text, and give the same text.
 */
#include "config.h"

#include <stdlib.h>
#include <string.h>

#include "common/base/params.h"
#include "tests/fuzz/fuzz.h"

static void
check_text(struct mkv_params *p, const char *key)
{
	const struct mkv_param_row *row = mkv_param_find(key);
	char first[MKV_PARAM_TEXT_BYTES], second[MKV_PARAM_TEXT_BYTES], why[MKV_PARAM_WHY_BYTES];

	if (row == NULL)
		abort();
	if (mkv_params_get_text(p, row, first, sizeof(first)) != 0)
		return;
	if (mkv_params_set(p, key, first, why, sizeof(why)) != 0)
		abort();
	if (mkv_params_get_text(p, row, second, sizeof(second)) != 0 || strcmp(first, second) != 0)
		abort();
}

static void
one_line(struct mkv_params *p, char *line)
{
	static struct mkv_params before;
	char why[MKV_PARAM_WHY_BYTES] = "", *value = strchr(line, ' ');
	int r;

	if (value == NULL)
		return;
	*value++ = '\0';
	before = *p;
	if (strcmp(line, "+") == 0)
		r = mkv_params_add_drive(p, value, "1GiB", "1", why, sizeof(why));
	else
		r = mkv_params_set(p, line, value, why, sizeof(why));
	if (r != 0 && (memcmp(&before, p, sizeof(before)) != 0 || *why == '\0' || memchr(why, '\0', sizeof(why)) == NULL))
		abort();
	if (r == 0 && strcmp(line, "+") != 0)
		check_text(p, line);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
	static struct mkv_params p;
	char *text = malloc(bytes + 1), *next, *line;

	if (text == NULL)
		abort();
	memcpy(text, data, bytes);
	text[bytes] = '\0';
	mkv_params_defaults(&p);
	for (line = text; line != NULL; line = next) {
		next = strchr(line, '\n');
		if (next != NULL)
			*next++ = '\0';
		one_line(&p, line);
	}
	free(text);
	return (0);
}
