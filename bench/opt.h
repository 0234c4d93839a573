/*
 * Command line options as a table: the parser, `--help` and shell completion read the same rows. For bench and clients/cli.
 */
#ifndef MKV_BENCH_OPT_H
#define MKV_BENCH_OPT_H

#include <stddef.h>
#include <stdio.h>

enum mkv_opt_type {
	MKV_OPT_FLAG,		/* int: 1 if given */
	MKV_OPT_STR,		/* const char *: points into argv */
	MKV_OPT_CHOICE,		/* const char *: one of row->limits, "a|b|c" */
	MKV_OPT_U64,		/* uint64_t, not below row->limits if that is set */
	MKV_OPT_SIZE,		/* uint64_t bytes: "64KiB" */
	MKV_OPT_DURATION,	/* uint64_t microseconds: "10ms"; at least 1 */
	MKV_OPT_SECONDS,	/* the same; a bare number means seconds */
	MKV_OPT_REAL,		/* double, not negative */
	MKV_OPT_PERCENT		/* double 0..100; a % sign may follow */
};

struct mkv_opt {
	const char		*name;		/* without the dashes */
	char			letter;		/* 0: none */
	enum mkv_opt_type	type;
	size_t			off;		/* of the field in the struct that mkv_opt_parse() fills */
	const char		*arg;		/* how --help calls the value; NULL for flags */
	const char		*deflt;		/* text, NULL: the field starts as zero */
	const char		*limits;
	const char		*help;
	unsigned		mask;		/* which commands know it */
};

/*
 * Fill *base with the defaults of all rows, then with argv[0..argc). Only rows whose mask meets `mask` are known.
 *
 * words   room for argc + 1 pointers: gets what is no option, in order, then NULL. After "--" everything is such a word; "-" is one.
 * why     gets a sentence when it fails: the option, the value, what is allowed, the nearest known option.
 * Returns: how many words; -1 wrong usage.
 */
int		mkv_opt_parse(const struct mkv_opt *rows, unsigned n, unsigned mask, void *base, int argc, char **argv, const char **words,
		    char *why, size_t why_bytes);
/* Set one row from text. 0 or -1 with why. */
int		mkv_opt_set(const struct mkv_opt *row, void *base, const char *text, char *why, size_t why_bytes);
/* Does this flag stand among the options? For what is said when mkv_opt_parse() fails before it gets there. */
int		mkv_opt_given(int argc, char **argv, const char *name, char letter);
void		mkv_opt_help(FILE *to, const struct mkv_opt *rows, unsigned n, unsigned mask);
/* One option a line: "--name<TAB>a|b|c" for completion; the second column is FILE, a list of choices, or empty. */
void		mkv_opt_list(FILE *to, const struct mkv_opt *rows, unsigned n, unsigned mask);
/* Nearest of n names to `word`, or NULL if none is near. */
const char *	mkv_opt_nearest(const char *word, const char *(*name)(const void *arg, unsigned i), const void *arg, unsigned n);

#endif
