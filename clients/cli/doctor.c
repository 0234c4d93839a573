/*
 * memkv doctor: runs the checks of doctor.def over a host, keeps what they found, and says it. Owns the findings. The checks change nothing.
 * Foreign bytes: everything that is read; it arrives here as text that can be printed. What can fail: memory, then a finding is counted and lost.
 */
#include "config.h"
#include "clients/cli/doctor_priv.h"

#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "clients/cli/cli.h"

const struct doctor_check doctor_checks[DOCTOR_CHECKS] = {
#define DOCTOR_CHECK(ID, name, fn, scope, what)		{ name, what, scope, fn },
#define DOCTOR_FINDING(ID, id, level, why, fix)
#include "clients/cli/doctor.def"
#undef DOCTOR_CHECK
#undef DOCTOR_FINDING
};

const struct doctor_row doctor_rows[DOCTOR_FINDINGS] = {
#define DOCTOR_CHECK(ID, name, fn, scope, what)
#define DOCTOR_FINDING(ID, id, level, why, fix)		{ id, why, fix, DOCTOR_##level },
#include "clients/cli/doctor.def"
#undef DOCTOR_CHECK
#undef DOCTOR_FINDING
};

const char *const doctor_level_names[DOCTOR_LEVELS] = { "ok", "info", "warn", "fail" };

/* ---- what was found ---- */

/* Names of files may hold anything, and a terminal obeys. */
static void
keep_plain(char *text)
{
	for (; text != NULL && *text != '\0'; text++)
		if (((unsigned char)*text < ' ' && *text != '\n') || *text == 127)
			*text = '?';
}

static void
doctor_keep(struct doctor *d, enum doctor_level level, int id, char *saw, char *fix)
{
	struct doctor_found *more = NULL;

	keep_plain(saw);
	keep_plain(fix);
	d->count[level]++;
	if (saw != NULL && d->n_found < DOCTOR_FOUND_MAX)
		more = realloc(d->found, (d->n_found + 1) * sizeof(*more));
	if (more == NULL) {
		d->lost++;
		free(saw);
		free(fix);
		return;
	}
	d->found = more;
	more[d->n_found++] = (struct doctor_found){ .check = d->now, .level = level, .id = id, .saw = saw, .fix = fix };
}

void
doctor_ok(struct doctor *d, const char *fmt, ...)
{
	va_list ap;
	char *saw;

	va_start(ap, fmt);
	if (vasprintf(&saw, fmt, ap) < 0)
		saw = NULL;
	va_end(ap);
	doctor_keep(d, DOCTOR_OK, -1, saw, NULL);
}

/* Into a command line: what a shell would take apart stands in quotes. */
static void
fill_word(FILE *f, const char *word)
{
	static const char plain[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_./:@%+=,-";

	if (word[0] != '\0' && word[strspn(word, plain)] == '\0') {
		fputs(word, f);
		return;
	}
	fputc('\'', f);
	for (; *word != '\0'; word++)
		if (*word == '\'')
			fputs("'\\''", f);
		else
			fputc(*word, f);
	fputc('\'', f);
}

/* Which of the names that stand in the text this one is, counted from its begin without repeats. */
static unsigned
fill_place(const char *text, const char *at, size_t bytes)
{
	unsigned place = 0;

	for (const char *p = text; p < at; p++) {
		size_t n = strcspn(p, "}") + 1;
		int first = *p == '{';

		for (const char *q = text; first && q < p; q++)
			first = strncmp(q, p, n) != 0;
		if (first && n == bytes && memcmp(p, at, n) == 0)
			return (place);
		place += (unsigned)first;
	}
	return (place);
}

/* "ulimit -n {number}" with its words filled in; a word that was not given stays as it is. */
static char *
doctor_fill(const char *text, const char *const *args)
{
	unsigned n_args = 0, place;
	char *out = NULL;
	size_t bytes = 0, n;
	FILE *f = open_memstream(&out, &bytes);

	if (f == NULL)
		return (NULL);
	while (args != NULL && args[n_args] != NULL)
		n_args++;
	for (const char *p = text; *p != '\0'; p += n) {
		n = strcspn(p + 1, "{") + 1;
		place = n_args;
		if (*p == '{' && strchr(p, '}') != NULL) {
			n = strcspn(p, "}") + 1;
			place = fill_place(text, p, n);
		}
		if (place < n_args)
			fill_word(f, args[place]);
		else
			fwrite(p, 1, n, f);
	}
	if (fclose(f) == 0)
		return (out);
	free(out);
	return (NULL);
}

void
doctor_say(struct doctor *d, enum doctor_id id, const char *const *args, const char *fmt, ...)
{
	va_list ap;
	char *saw;

	va_start(ap, fmt);
	if (vasprintf(&saw, fmt, ap) < 0)
		saw = NULL;
	va_end(ap);
	doctor_keep(d, MKV_MIN(doctor_rows[id].level, d->at_most), (int)id, saw, doctor_fill(doctor_rows[id].fix, args));
}

/* ---- the run ---- */

void
doctor_rights(struct doctor *d)
{
	char list[DOCTOR_DENIED_MAX * (DOCTOR_TEXT_BYTES + 2)] = "";
	size_t n = 0;

	for (unsigned i = 0; i < d->n_denied; i++)
		n += (size_t)snprintf(list + n, sizeof(list) - n, "%s%s", i > 0 ? ", " : "", d->denied[i]);
	if (d->n_denied > 0)
		doctor_say(d, DOCTOR_RIGHTS_UNSEEN, NULL, "user %d may not read %s%s", d->ops->uid(), list,
		    d->n_denied == DOCTOR_DENIED_MAX ? ", perhaps more" : "");
	else
		doctor_ok(d, "user %d could read all of it", d->ops->uid());
}

void
doctor_run(struct doctor *d)
{
	char name[65] = "", release[65];
	int linux_too = d->ops->system(name, release) != 0 || strcmp(name, "Linux") == 0;

	doctor_config_defaults(d);
	for (unsigned i = 0; i < DOCTOR_CHECKS; i++) {
		unsigned scope = doctor_checks[i].scope;

		if ((scope & d->scope) == 0 || ((scope & DOCTOR_LINUX) != 0 && !linux_too))
			continue;
		d->now = (enum doctor_check_id)i;
		d->at_most = DOCTOR_FAIL;
		doctor_checks[i].fn(d);
	}
}

void
doctor_fini(struct doctor *d)
{
	for (unsigned i = 0; i < d->n_found; i++) {
		free(d->found[i].saw);
		free(d->found[i].fix);
	}
	for (unsigned i = 0; i < d->n_kept; i++)
		free(d->kept[i]);
	free(d->kept);
	free(d->found);
	json_decref(d->answer);
	mkv_params_wipe(&d->params);
	d->found = NULL;
	d->answer = NULL;
	d->n_found = 0;
	d->kept = NULL;
	d->n_kept = 0;
}

/* ---- what is said ---- */

/* Behind its label; a text of several lines goes on below its first. */
static void
print_lines(FILE *to, const char *label, const char *text)
{
	size_t n;

	fprintf(to, "      %-5s", label);
	for (const char *p = text; *p != '\0'; p += n + (p[n] == '\n')) {
		n = strcspn(p, "\n");
		fprintf(to, "%s%.*s\n", p == text ? "" : "           ", (int)n, p);
	}
}

void
doctor_print(const struct doctor *d, FILE *to, int verbose)
{
	for (unsigned i = 0; i < d->n_found; i++) {
		const struct doctor_found *f = &d->found[i];

		if (f->id < 0) {
			if (verbose)
				fprintf(to, "ok    %-20s %s\n", doctor_checks[f->check].name, f->saw);
			continue;
		}
		fprintf(to, "%-5s %s\n", doctor_level_names[f->level], doctor_rows[f->id].id);
		print_lines(to, "saw", f->saw);
		print_lines(to, "why", doctor_rows[f->id].why);
		print_lines(to, "mend", f->fix != NULL ? f->fix : doctor_rows[f->id].fix);
	}
	fprintf(to, "%u fine, %u to know, %u to mend, %u wrong\n", d->count[DOCTOR_OK], d->count[DOCTOR_INFO], d->count[DOCTOR_WARN], d->count[DOCTOR_FAIL]);
	if (d->lost > 0)
		fprintf(to, "%u of them are not shown: too many\n", d->lost);
}

/* jansson takes UTF-8 alone, and what others wrote may be anything. */
static json_t *
print_string(const char *text)
{
	json_t *j = json_string(text);
	char *plain;

	if (j != NULL || (plain = strdup(text)) == NULL)
		return (j != NULL ? j : json_null());
	for (char *p = plain; *p != '\0'; p++)
		if (*p & 0x80)
			*p = '?';
	j = json_string(plain);
	free(plain);
	return (j);
}

void
doctor_print_json(const struct doctor *d, FILE *to, int verbose)
{
	json_t *j;

	for (unsigned i = 0; i < d->n_found; i++) {
		const struct doctor_found *f = &d->found[i];

		if (f->id < 0 && !verbose)
			continue;
		j = json_pack("{s:s, s:s}", "level", doctor_level_names[f->level], "check", doctor_checks[f->check].name);
		if (f->id >= 0)
			json_object_set_new(j, "id", json_string(doctor_rows[f->id].id));
		json_object_set_new(j, "saw", print_string(f->saw));
		if (f->id >= 0) {
			json_object_set_new(j, "why", json_string(doctor_rows[f->id].why));
			json_object_set_new(j, "mend", print_string(f->fix != NULL ? f->fix : doctor_rows[f->id].fix));
		}
		cli_json_print(to, j);
	}
	cli_json_print(to, json_pack("{s:i, s:i, s:i, s:i, s:i}", "ok", (int)d->count[DOCTOR_OK], "info", (int)d->count[DOCTOR_INFO], "warn",
	    (int)d->count[DOCTOR_WARN], "fail", (int)d->count[DOCTOR_FAIL], "not_shown", (int)d->lost));
}
