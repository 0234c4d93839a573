/*
 * memkv setup, memkv drive: memkv-drive in its offline mode, in our place: it knows what lies on a drive and is the one program that opens one. Here
 * words and options become its arguments, one for each that was given.
 */
#include "config.h"
#include "clients/cli/cli.h"

#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/err.h"

struct drive_args {
	char		**argv;
	int		argc, max;		/* max: room but for the last NULL */
	int		failed;			/* no memory */
};

static void
drive_arg(struct drive_args *a, const char *fmt, ...) MKV_PRINTF(2, 3);

static void
drive_arg(struct drive_args *a, const char *fmt, ...)
{
	va_list ap;
	char *text = NULL;

	va_start(ap, fmt);
	MKV_ASSERT(a->argc < a->max);
	if (vasprintf(&text, fmt, ap) < 0)
		a->failed = 1;
	else
		a->argv[a->argc++] = text;
	va_end(ap);
}

/* Items of a comma separated list. */
static void
drive_list(struct drive_args *a, const char *list)
{
	for (size_t n; list != NULL && *list != '\0'; list += n + (list[n] == ',')) {
		n = strcspn(list, ",");
		if (n > 0)
			drive_arg(a, "%.*s", (int)n, list);
	}
}

static void
drive_options(const struct cli *c, struct drive_args *a)
{
	const struct {
		const char	*name, *text;
		uint64_t	number;
	} row[] = {
		{ "rdma", c->o.rdma, 0 }, { "config_out", c->o.config_out, 0 }, { "data_dir", c->o.data_dir, 0 },
		{ "extent_bytes", NULL, c->o.extent_bytes }, { "file_bytes", NULL, c->o.file_bytes }, { "force", NULL, (uint64_t)c->o.force },
		{ "idempotent", NULL, (uint64_t)c->o.idempotent }, { "data", NULL, (uint64_t)c->o.data }, { "yes", NULL, (uint64_t)c->o.yes },
		{ "quiet", NULL, (uint64_t)c->o.quiet }, { "json", NULL, (uint64_t)c->o.json },
	};

	for (size_t i = 0; i < MKV_ARRAY_LEN(row); i++) {
		if (row[i].text != NULL)
			drive_arg(a, "%s=%s", row[i].name, row[i].text);
		else if (row[i].number != 0)
			drive_arg(a, "%s=%llu", row[i].name, (unsigned long long)row[i].number);
	}
}

/* command and the words behind it */
static int
drive_exec(const struct cli *c, const char *command, const char *const *words, int n_words)
{
	size_t listed = c->o.drives != NULL ? strlen(c->o.drives) : 0;
	struct drive_args a = { .max = (int)(20 + listed) + n_words };
	int status = CLI_FAILED;

	if ((a.argv = calloc((size_t)a.max + 1, sizeof(*a.argv))) != NULL) {
		drive_arg(&a, "memkv-drive");
		drive_arg(&a, "--offline");
		drive_arg(&a, "%s", command);
		drive_options(c, &a);
		drive_arg(&a, "--");
		drive_list(&a, c->o.drives);
		for (int i = 0; i < n_words; i++)
			drive_arg(&a, "%s", words[i]);
	}
	if (a.argv == NULL || a.failed)
		status = cli_fail(c, NULL, MKV_E_NOMEM, 0);
	else {
		char *own = a.argv[0];

		status = cli_exec(c, "memkv-drive", a.argv);
		a.argv[0] = own;		/* cli_exec put the program's path there */
	}
	for (int i = 0; a.argv != NULL && i < a.argc; i++)
		free(a.argv[i]);
	free(a.argv);
	return (status);
}

int
cmd_setup(struct cli *c, int argc MKV_UNUSED, char **argv MKV_UNUSED)
{
	return (drive_exec(c, "setup", c->words, c->n_words));
}

int
cmd_drive(struct cli *c, int argc MKV_UNUSED, char **argv MKV_UNUSED)
{
	static const char *const known[] = { "list", "info", "check", "repair", "clear-failures", "wipe" };

	for (size_t i = 0; i < MKV_ARRAY_LEN(known); i++)
		if (strcmp(known[i], c->words[0]) == 0)
			return (drive_exec(c, known[i], c->words + 1, c->n_words - 1));
	return (cli_usage(c, "unknown command %s; there are list, info, check, repair, clear-failures and wipe", c->words[0]));
}
