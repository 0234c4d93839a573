/*
 * memkv start, memkv config: run memkv-supervisor in our place, so that each program keeps to its own privileges and libraries; other commands run
 * theirs so, too. A program is looked for in MEMKV_LIBEXEC, then beside the installed tree of this one (../libexec/memkv), then where configure put it.
 */
#include "config.h"
#include "clients/cli/cli.h"

#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define START_PROGRAM	"memkv-supervisor"

/* Where this program is: argv[0] if it names a place, else what PATH makes of it. 0 or -1. */
static int
start_self(const char *argv0, char self[PATH_MAX])
{
	const char *path = getenv("PATH");
	char try[PATH_MAX];
	size_t n;

	if (strchr(argv0, '/') != NULL)
		return (realpath(argv0, self) != NULL ? 0 : -1);
	for (; path != NULL && *path != '\0'; path += n + (path[n] == ':')) {
		n = strcspn(path, ":");
		if (snprintf(try, sizeof(try), "%.*s/%s", (int)n, path, argv0) < (int)sizeof(try) && access(try, X_OK) == 0)
			return (realpath(try, self) != NULL ? 0 : -1);
	}
	return (-1);
}

static int
start_candidate(char out[PATH_MAX], const char *dir, const char *below, const char *program)
{
	return (snprintf(out, PATH_MAX, "%s%s/%s", dir, below, program) < PATH_MAX && access(out, X_OK) == 0 ? 0 : -1);
}

int
cli_program(const char *argv0, const char *program, char out[PATH_MAX])
{
	const char *named = getenv("MEMKV_LIBEXEC");
	char self[PATH_MAX], *slash;

	if (named != NULL && *named != '\0')
		return (start_candidate(out, named, "", program));
	if (start_self(argv0, self) == 0 && (slash = strrchr(self, '/')) != NULL) {
		*slash = '\0';
		if (start_candidate(out, self, "/../libexec/memkv", program) == 0)
			return (0);
	}
	return (start_candidate(out, MKV_LIBEXECDIR, "", program));
}

int
cli_exec(const struct cli *c, const char *program, char **argv)
{
	char path[PATH_MAX];

	if (cli_program(c->argv0, program, path) != 0) {
		fprintf(stderr, "memkv %s: %s is not in %s; is memkv installed, or MEMKV_LIBEXEC set to where it is?\n", c->cmd->name, program,
		    getenv("MEMKV_LIBEXEC") != NULL ? getenv("MEMKV_LIBEXEC") : "../libexec/memkv or " MKV_LIBEXECDIR);
		return (CLI_FAILED);
	}
	argv[0] = path;
	execv(path, argv);
	return (cli_fail_file(c, path, errno));
}

int
cmd_start(struct cli *c, int argc MKV_UNUSED, char **argv)
{
	return (cli_exec(c, START_PROGRAM, argv));
}

int
cmd_config(struct cli *c, int argc, char **argv)
{
	static char check[] = "--check-config";
	int known = 0;

	for (int i = 1; i < argc; i++) {
		if (strcmp(argv[i], "--help") == 0 || strcmp(argv[i], "-h") == 0) {
			cli_help_command(stdout, CLI_CONFIG);
			return (CLI_DONE);
		}
		if (strcmp(argv[i], "--check") == 0)
			argv[i] = check;
		known |= argv[i] == check || strcmp(argv[i], "--show-defaults") == 0;
	}
	if (!known)
		return (cli_usage(c, "usage: memkv config %s", c->cmd->words));
	return (cli_exec(c, START_PROGRAM, argv));
}
