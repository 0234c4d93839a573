/*
 * The option table at work. Any process, start-up only; keeps nothing but pointers into argv.
 */
#include "config.h"
#include "bench/opt.h"

#include <errno.h>
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "common/base/assert.h"
#include "common/base/units.h"

#define OPT_NAME_MAX	64u

static unsigned
opt_distance(const char *a, const char *b)
{
	unsigned row[OPT_NAME_MAX + 1], la = (unsigned)strnlen(a, OPT_NAME_MAX), lb = (unsigned)strnlen(b, OPT_NAME_MAX), diag, up;

	for (unsigned j = 0; j <= lb; j++)
		row[j] = j;
	for (unsigned i = 1; i <= la; i++) {
		diag = row[0];
		row[0] = i;
		for (unsigned j = 1; j <= lb; j++) {
			up = row[j];
			row[j] = MKV_MIN(MKV_MIN(row[j], row[j - 1]) + 1, diag + (a[i - 1] != b[j - 1]));
			diag = up;
		}
	}
	return (row[lb]);
}

const char *
mkv_opt_nearest(const char *word, const char *(*name)(const void *arg, unsigned i), const void *arg, unsigned n)
{
	const char *best = NULL, *cand;
	unsigned best_d = 3, d;			/* further away is no help */

	for (unsigned i = 0; i < n; i++) {
		cand = name(arg, i);
		if (cand == NULL)
			continue;
		d = opt_distance(word, cand);
		if (d < best_d) {
			best_d = d;
			best = cand;
		}
	}
	return (best);
}

static int
opt_choice_ok(const char *choices, const char *text)
{
	size_t n = strlen(text);

	for (const char *p = choices; p != NULL; p = strchr(p, '|')) {
		p += *p == '|';
		if (strncmp(p, text, n) == 0 && (p[n] == '|' || p[n] == '\0'))
			return (n > 0);
	}
	return (0);
}

static int
opt_u64(const char *text, uint64_t *out)
{
	unsigned long long v;
	char *end;

	if (*text < '0' || *text > '9')
		return (-1);
	errno = 0;
	v = strtoull(text, &end, 10);
	if (errno != 0 || *end != '\0')
		return (-1);
	*out = v;
	return (0);
}

static int
opt_real(const char *text, int percent, double *out)
{
	double v;
	char *end;

	errno = 0;
	v = strtod(text, &end);
	if (percent && *end == '%')
		end++;
	if (end == text || errno != 0 || *end != '\0' || !isfinite(v) || v < 0 || (percent && v > 100))
		return (-1);
	*out = v;
	return (0);
}

static int
opt_seconds(const char *text, uint64_t *us)
{
	double v;

	if (opt_real(text, 0, &v) == 0 && v > 0 && v < 1e9) {
		*us = (uint64_t)(v * 1e6);
		return (*us > 0 ? 0 : -1);
	}
	return (mkv_duration_parse(text, us));
}

static const char *
opt_wanted(const struct mkv_opt *row)
{
	switch (row->type) {
	case MKV_OPT_CHOICE: return (row->limits);
	case MKV_OPT_U64: return ("a whole number");
	case MKV_OPT_SIZE: return ("a size such as 4096, 64KiB, 1MiB");
	case MKV_OPT_DURATION: return ("a duration above 0, such as 500us, 10ms, 5s");
	case MKV_OPT_SECONDS: return ("seconds, or a duration such as 500ms, 2m");
	case MKV_OPT_REAL: return ("a number, not negative");
	case MKV_OPT_PERCENT: return ("a percentage from 0 to 100");
	case MKV_OPT_FLAG:
	case MKV_OPT_STR: break;
	}
	return ("a value");
}

int
mkv_opt_set(const struct mkv_opt *row, void *base, const char *text, char *why, size_t why_bytes)
{
	void *field = (char *)base + row->off;
	uint64_t u = 0, least = 0;
	double d = 0;
	int bad = 0;

	switch (row->type) {
	case MKV_OPT_FLAG: *(int *)field = 1; return (0);
	case MKV_OPT_STR: *(const char **)field = text; return (0);
	case MKV_OPT_CHOICE: bad = !opt_choice_ok(row->limits, text); break;
	case MKV_OPT_U64: bad = opt_u64(text, &u); break;
	case MKV_OPT_SIZE: bad = mkv_size_parse(text, &u); break;
	case MKV_OPT_DURATION: bad = mkv_duration_parse(text, &u) != 0 || u == 0; break;
	case MKV_OPT_SECONDS: bad = opt_seconds(text, &u); break;
	case MKV_OPT_REAL: bad = opt_real(text, 0, &d); break;
	case MKV_OPT_PERCENT: bad = opt_real(text, 1, &d); break;
	}
	if (bad != 0) {
		snprintf(why, why_bytes, "--%s %s: wanted is %s", row->name, text, opt_wanted(row));
		return (-1);
	}
	if ((row->type == MKV_OPT_U64 || row->type == MKV_OPT_SIZE) && row->limits != NULL && opt_u64(row->limits, &least) == 0 && u < least) {
		snprintf(why, why_bytes, "--%s %s: at least %s", row->name, text, row->limits);
		return (-1);
	}
	if (row->type == MKV_OPT_CHOICE)
		*(const char **)field = text;
	else if (row->type == MKV_OPT_REAL || row->type == MKV_OPT_PERCENT)
		*(double *)field = d;
	else
		*(uint64_t *)field = u;
	return (0);
}

struct opt_search {
	const struct mkv_opt	*rows;
	unsigned		mask;
};

static const char *
opt_name_at(const void *arg, unsigned i)
{
	const struct opt_search *s = arg;

	return ((s->rows[i].mask & s->mask) != 0 ? s->rows[i].name : NULL);
}

static const struct mkv_opt *
opt_find(const struct mkv_opt *rows, unsigned n, unsigned mask, const char *name, size_t len)
{
	for (unsigned i = 0; i < n; i++)
		if ((rows[i].mask & mask) != 0 && strlen(rows[i].name) == len && strncmp(rows[i].name, name, len) == 0)
			return (&rows[i]);
	return (NULL);
}

static const struct mkv_opt *
opt_find_letter(const struct mkv_opt *rows, unsigned n, unsigned mask, char letter)
{
	for (unsigned i = 0; i < n; i++)
		if ((rows[i].mask & mask) != 0 && rows[i].letter == letter)
			return (&rows[i]);
	return (NULL);
}

static void
opt_unknown(const struct mkv_opt *rows, unsigned n, unsigned mask, const char *arg, char *why, size_t why_bytes)
{
	struct opt_search s = { rows, mask };
	char name[OPT_NAME_MAX];
	const char *near = NULL;

	if (strncmp(arg, "--", 2) == 0) {
		snprintf(name, sizeof(name), "%.*s", (int)strcspn(arg + 2, "="), arg + 2);
		near = mkv_opt_nearest(name, opt_name_at, &s, n);
	}
	if (near != NULL)
		snprintf(why, why_bytes, "unknown option %s; the nearest known one is --%s", arg, near);
	else
		snprintf(why, why_bytes, "unknown option %s; --help lists them", arg);
}

/* Take the option at argv[*ip], and its value. 0 or -1. */
static int
opt_take(const struct mkv_opt *rows, unsigned n, unsigned mask, void *base, int argc, char **argv, int *ip, char *why, size_t why_bytes)
{
	const struct mkv_opt *row;
	char *arg = argv[*ip], *value = NULL;
	size_t len;

	if (arg[1] == '-') {
		len = strcspn(arg + 2, "=");
		row = opt_find(rows, n, mask, arg + 2, len);
		if (arg[2 + len] == '=')
			value = arg + 2 + len + 1;
	} else {
		row = opt_find_letter(rows, n, mask, arg[1]);
		if (arg[2] != '\0')
			value = arg + 2;
	}
	if (row == NULL) {
		opt_unknown(rows, n, mask, arg, why, why_bytes);
		return (-1);
	}
	if (row->type == MKV_OPT_FLAG && value != NULL) {
		snprintf(why, why_bytes, "--%s takes no value", row->name);
		return (-1);
	}
	if (row->type != MKV_OPT_FLAG && value == NULL) {
		if (*ip + 1 >= argc) {
			snprintf(why, why_bytes, "--%s needs a value: %s", row->name, row->arg);
			return (-1);
		}
		value = argv[++*ip];
	}
	return (mkv_opt_set(row, base, value, why, why_bytes));
}

int
mkv_opt_parse(const struct mkv_opt *rows, unsigned n, unsigned mask, void *base, int argc, char **argv, const char **words, char *why,
    size_t why_bytes)
{
	int n_words = 0;

	for (unsigned i = 0; i < n; i++)
		if (rows[i].deflt != NULL)
			MKV_ASSERT(mkv_opt_set(&rows[i], base, rows[i].deflt, why, why_bytes) == 0);
	for (int i = 0; i < argc; i++) {
		if (strcmp(argv[i], "--") == 0) {
			while (++i < argc)
				words[n_words++] = argv[i];
			break;
		}
		if (argv[i][0] != '-' || argv[i][1] == '\0')
			words[n_words++] = argv[i];
		else if (opt_take(rows, n, mask, base, argc, argv, &i, why, why_bytes) != 0)
			return (-1);
	}
	words[n_words] = NULL;
	return (n_words);
}

int
mkv_opt_given(int argc, char **argv, const char *name, char letter)
{
	for (int i = 0; i < argc && strcmp(argv[i], "--") != 0; i++) {
		if (argv[i][0] != '-')
			continue;
		if (argv[i][1] == '-' ? strcmp(argv[i] + 2, name) == 0 : argv[i][1] == letter && argv[i][2] == '\0')
			return (1);
	}
	return (0);
}

void
mkv_opt_help(FILE *to, const struct mkv_opt *rows, unsigned n, unsigned mask)
{
	char left[80];

	for (unsigned i = 0; i < n; i++) {
		if ((rows[i].mask & mask) == 0)
			continue;
		snprintf(left, sizeof(left), "%c%c%s --%s%s%s", rows[i].letter ? '-' : ' ', rows[i].letter ? rows[i].letter : ' ',
		    rows[i].letter ? "," : " ", rows[i].name, rows[i].arg ? " " : "", rows[i].arg ? rows[i].arg : "");
		fprintf(to, "  %-32s %s%s%s", left, rows[i].help, rows[i].type == MKV_OPT_CHOICE ? ": " : "", rows[i].type == MKV_OPT_CHOICE ? rows[i].limits : "");
		if (rows[i].deflt != NULL)
			fprintf(to, " (default %s)", rows[i].deflt);
		fputc('\n', to);
	}
}

void
mkv_opt_list(FILE *to, const struct mkv_opt *rows, unsigned n, unsigned mask)
{
	for (unsigned i = 0; i < n; i++) {
		if ((rows[i].mask & mask) == 0)
			continue;
		fprintf(to, "--%s\t%s\n", rows[i].name, rows[i].type == MKV_OPT_CHOICE ? rows[i].limits : rows[i].arg != NULL ? rows[i].arg : "-");
	}
}
