/*
 * Fuzz target: sizes and durations as people write them. What is accepted must come back the same through the exact format.
 */
#include "config.h"

#include <stdlib.h>
#include <string.h>

#include "common/base/units.h"
#include "tests/fuzz/fuzz.h"

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
	uint64_t value, again;
	char text[64];
	char *s = malloc(bytes + 1);

	if (s == NULL)
		abort();
	memcpy(s, data, bytes);
	s[bytes] = '\0';
	if (mkv_size_parse(s, &value) == 0 &&
	    (mkv_size_parse(mkv_size_format(text, sizeof(text), value), &again) != 0 || again != value))
		abort();
	if (mkv_duration_parse(s, &value) == 0 &&
	    (mkv_duration_parse(mkv_duration_format(text, sizeof(text), value), &again) != 0 || again != value))
		abort();
	free(s);
	return (0);
}
