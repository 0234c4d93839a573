/*
 * Sizes and durations as text. Any process, any thread; no state. The text may be foreign (configuration, command line): every step is
 * checked for overflow, and *out is untouched on failure.
 */
#include "config.h"
#include "common/base/units.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "common/base/assert.h"
#include "common/base/err.h"

struct unit {
	const char	*name;
	uint64_t	factor;
};

static const struct unit size_units[] = {
	{ "", 1 }, { "B", 1 },
	{ "KiB", 1ull << 10 }, { "MiB", 1ull << 20 }, { "GiB", 1ull << 30 }, { "TiB", 1ull << 40 }, { "PiB", 1ull << 50 },
	{ "KB", 1000ull }, { "MB", 1000000ull }, { "GB", 1000000000ull }, { "TB", 1000000000000ull }, { "PB", 1000000000000000ull },
};

static const struct unit duration_units[] = {
	{ "us", 1 }, { "ms", 1000ull }, { "s", 1000000ull }, { "m", 60000000ull }, { "h", 3600000000ull }, { "d", 86400000000ull },
};

/* Digits at s into *n; returns what follows them, NULL if there are none or too many. */
static const char *
units_number(const char *s, uint64_t *n)
{
	uint64_t v = 0;

	if (*s < '0' || *s > '9')
		return (NULL);
	for (; *s >= '0' && *s <= '9'; s++)
		if (__builtin_mul_overflow(v, 10, &v) || __builtin_add_overflow(v, (uint64_t)(*s - '0'), &v))
			return (NULL);
	*n = v;
	return (s);
}

static int
units_parse(const char *s, const struct unit *units, size_t n_units, uint64_t *out)
{
	uint64_t n, v;
	size_t bytes;

	s += strspn(s, " \t");
	if ((s = units_number(s, &n)) == NULL)
		return (MKV_E_INVAL);
	s += strspn(s, " \t");
	for (bytes = strlen(s); bytes > 0 && (s[bytes - 1] == ' ' || s[bytes - 1] == '\t'); bytes--)
		continue;
	for (size_t i = 0; i < n_units; i++) {
		if (strlen(units[i].name) != bytes || strncasecmp(units[i].name, s, bytes) != 0)
			continue;
		if (__builtin_mul_overflow(n, units[i].factor, &v))
			return (MKV_E_INVAL);
		*out = v;
		return (0);
	}
	return (MKV_E_INVAL);
}

int
mkv_size_parse(const char *s, uint64_t *bytes)
{
	return (units_parse(s, size_units, MKV_ARRAY_LEN(size_units), bytes));
}

int
mkv_duration_parse(const char *s, uint64_t *us)
{
	return (units_parse(s, duration_units, MKV_ARRAY_LEN(duration_units), us));
}

char *
mkv_size_format(char *dst, size_t dst_bytes, uint64_t bytes)
{
	static const char *const name[] = { "", "KiB", "MiB", "GiB", "TiB", "PiB" };
	unsigned i = 0;

	while (i + 1 < MKV_ARRAY_LEN(name) && bytes != 0 && bytes % 1024 == 0) {
		bytes /= 1024;
		i++;
	}
	snprintf(dst, dst_bytes, "%" PRIu64 "%s", bytes, name[i]);
	return (dst);
}

char *
mkv_size_human(char *dst, size_t dst_bytes, uint64_t bytes)
{
	static const char *const name[] = { "B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB" };
	double v = (double)bytes;
	unsigned i = 0;

	while (i + 1 < MKV_ARRAY_LEN(name) && v >= 1023.95) {
		v /= 1024;
		i++;
	}
	if (i == 0)
		snprintf(dst, dst_bytes, "%" PRIu64 " B", bytes);
	else
		snprintf(dst, dst_bytes, "%.1f %s", v, name[i]);
	return (dst);
}

char *
mkv_duration_format(char *dst, size_t dst_bytes, uint64_t us)
{
	unsigned i = MKV_ARRAY_LEN(duration_units) - 1;

	if (us == 0)
		i = 2;				/* "0s" */
	while (us % duration_units[i].factor != 0)
		i--;
	snprintf(dst, dst_bytes, "%" PRIu64 "%s", us / duration_units[i].factor, duration_units[i].name);
	return (dst);
}
