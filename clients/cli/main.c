/*
 * `memkv`: find the command, parse its options, run it. Process: the user's; everything it owns ends with it.
 */
#include "config.h"
#include "clients/cli/cli.h"

#include <signal.h>
#include <stdlib.h>
#include <string.h>

#include "bench/bench.h"
#include "common/base/err.h"
#include "common/base/os.h"

const struct cli_command cli_commands[CLI_COMMANDS] = {
#define CLI_COMMAND(ID, name, fn, words, least, most, help)	{ name, words, help, least, most, fn },
#include "clients/cli/commands.def"
#undef CLI_COMMAND
};

static const struct mkv_opt main_options[] = {
#define CLI_OPT(name, letter, type, field, arg, deflt, limits, commands, help) \
	{ name, letter, MKV_OPT_##type, offsetof(struct cli_opts, field), arg, deflt, limits, help, commands },
#include "clients/cli/options.def"
#undef CLI_OPT
};

static const char *
main_name_at(const void *arg MKV_UNUSED, unsigned i)
{
	return (cli_commands[i].name);
}

static const struct cli_command *
main_find(const char *name)
{
	for (unsigned i = 0; i < CLI_COMMANDS; i++)
		if (strcmp(cli_commands[i].name, name) == 0)
			return (&cli_commands[i]);
	return (NULL);
}

void
cli_help_all(FILE *to)
{
	fprintf(to, "usage: memkv COMMAND [OPTION]... [WORD]...\n\n");
	for (unsigned i = 0; i < CLI_COMMANDS; i++)
		fprintf(to, "  %-8s %s\n", cli_commands[i].name, cli_commands[i].help);
	fprintf(to, "\nmemkv help COMMAND lists the options of a command, memkv help errors the exit statuses.\n");
}

void
cli_help_command(FILE *to, enum cli_id id)
{
	const struct cli_command *cmd = &cli_commands[id];

	fprintf(to, "usage: memkv %s%s%s%s\n\n%s\n\n", cmd->name, cmd->least >= 0 ? " [OPTION]..." : "", cmd->words[0] != '\0' ? " " : "", cmd->words,
	    cmd->help);
	mkv_opt_help(to, main_options, MKV_ARRAY_LEN(main_options), 1u << id);
}

int
cmd_version(struct cli *c, int argc MKV_UNUSED, char **argv MKV_UNUSED)
{
	if (c->o.json)
		cli_json_print(stdout, json_pack("{s:s}", "version", PACKAGE_VERSION));
	else
		printf("memkv %s\n", PACKAGE_VERSION);
	return (CLI_DONE);
}

static void
main_help_errors(FILE *to)
{
	fprintf(to, "Exit statuses\n\n"
	    "  0   done\n  1   failed as said\n  2   wrong usage or configuration\n  3   miss (get, exists, stat, touch)\n"
	    "  4   not reachable, or the deadline passed\n  5   not permitted\n  6   corrupt or inconsistent\n\nErrors\n\n");
#define MKV_ERR(name, number, http, retry, exitcode, text) \
	fprintf(to, "  %-12s %4d  exit %d  %s%s\n", #name, -(number), exitcode, text, retry ? " (may succeed if repeated)" : "");
#include "common/tbl/errors.def"
#undef MKV_ERR
	fprintf(to, "\nReasons of a miss\n\n");
#define MKV_REASON(name, number, label, text)	fprintf(to, "  %-14s %s\n", label, text);
#include "common/tbl/reasons.def"
#undef MKV_REASON
}

/* The first word of a command, where there is a choice: "a|b [WORD]..." */
static void
main_help_words(const struct cli_command *cmd)
{
	size_t n = strcspn(cmd->words, " ");

	if (memchr(cmd->words, '|', n) == NULL || cmd->words[0] < 'a' || cmd->words[0] > 'z')
		return;
	for (const char *at = cmd->words, *end = at + n; at < end; at += strcspn(at, "| ") + 1)
		printf("%.*s\n", (int)strcspn(at, "| "), at);
}

/* For shell completion: commands, their first words, or the options of one, with what they take. */
static int
main_help_lists(int argc, char **argv)
{
	const struct cli_command *cmd;

	if (strcmp(argv[1], "--commands") == 0)
		for (unsigned i = 0; i < CLI_COMMANDS; i++)
			printf("%s\t%s\n", cli_commands[i].name, cli_commands[i].help);
	else if (strcmp(argv[1], "--words") == 0) {
		if (argc > 2 && (cmd = main_find(argv[2])) != NULL)
			main_help_words(cmd);
	} else if (argc > 2 && strcmp(argv[2], "bench") == 0 && argc > 3)
		mkv_bench_list_options(stdout, argv[3]);
	else if (argc > 2 && strcmp(argv[2], "bench") == 0)
		mkv_bench_list_ops(stdout);
	else if (argc > 2 && (cmd = main_find(argv[2])) != NULL)
		mkv_opt_list(stdout, main_options, MKV_ARRAY_LEN(main_options), 1u << (cmd - cli_commands));
	return (CLI_DONE);
}

int
cmd_help(struct cli *c, int argc, char **argv)
{
	static char help[] = "--help";
	const struct cli_command *cmd;

	if (argc < 2 || strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0)
		cli_help_all(stdout);
	else if (strcmp(argv[1], "--commands") == 0 || strcmp(argv[1], "--options") == 0 || strcmp(argv[1], "--words") == 0)
		return (main_help_lists(argc, argv));
	else if (strcmp(argv[1], "errors") == 0)
		main_help_errors(stdout);
	else if (strcmp(argv[1], "bench") == 0)
		mkv_bench_help(stdout);
	else if (strcmp(argv[1], "start") == 0)
		return (cmd_start(c, 2, (char *[]){ argv[1], help, NULL }));
	else if ((cmd = main_find(argv[1])) != NULL)
		cli_help_command(stdout, cmd - cli_commands);
	else
		return (cli_usage(c, "unknown command %s; memkv help lists them", argv[1]));
	return (CLI_DONE);
}

int
cmd_bench(struct cli *c MKV_UNUSED, int argc, char **argv)
{
	return (mkv_bench_main(argc, argv));
}

/* A thread of the library. */
static void
main_warn(void *arg, const char *text)
{
	const struct cli *c = arg;

	fprintf(stderr, "memkv %s: %s\n", c->cmd->name, text);
}

int
cli_open(struct cli *c)
{
	struct mkv_client_opts co = { .size = sizeof(co), .config_file = c->o.config_file, .servers = c->o.servers, .transport = c->o.transport,
		.namespace_ = c->o.namespace_, .warn = main_warn, .warn_arg = c };
	char why[512] = "";
	int r;

	r = mkv_client_open(&c->client, &co, why, sizeof(why));
	if (r == 0 && why[0] != '\0')
		fprintf(stderr, "memkv %s: %s\n", c->cmd->name, why);
	if (r == 0)
		return (CLI_DONE);
	return (why[0] != '\0' ? cli_fail_text(c, r, why) : cli_fail(c, NULL, r, 0));
}

/* A command with options of the table. argv[0] is its name. */
static int
main_run_parsed(struct cli *c, int argc, char **argv)
{
	enum cli_id id = c->cmd - cli_commands;
	char why[512];

	c->n_words = mkv_opt_parse(main_options, MKV_ARRAY_LEN(main_options), 1u << id, &c->o, argc - 1, argv + 1, c->words, why, sizeof(why));
	if (c->n_words < 0)
		return (cli_usage(c, "%s", why));
	if (c->o.help) {
		cli_help_command(stdout, id);
		return (CLI_DONE);
	}
	if (c->o.deadline_us > CLI_DEADLINE_MAX_US)
		return (cli_usage(c, "--deadline: at most 1h"));
	if (c->n_words < c->cmd->least || (c->cmd->most >= 0 && c->n_words > c->cmd->most))
		return (cli_usage(c, "usage: memkv %s [OPTION]... %s", c->cmd->name, c->cmd->words));
	return (c->cmd->fn(c, argc, argv));
}

static int
main_unknown(struct cli *c, const char *word)
{
	const char *near = mkv_opt_nearest(word, main_name_at, NULL, CLI_COMMANDS);

	if (word[0] == '-')
		return (cli_usage(c, "%s stands before the command; options follow it, as in: memkv get KEY --servers HOST:PORT", word));
	if (near != NULL)
		return (cli_usage(c, "unknown command %s; the nearest known one is %s", word, near));
	return (cli_usage(c, "unknown command %s; memkv help lists them", word));
}

/* An answer that does not get out is a failure, whatever the command has done. */
static int
main_flush(int status)
{
	const char *why = mkv_os_std_end();

	if (why == NULL)
		return (status);
	if (why[0] != '\0')
		fprintf(stderr, "memkv: standard output: %s\n", why);
	return (status == CLI_DONE ? CLI_FAILED : status);
}

int
cli_main(int argc, char **argv)
{
	static char main_version[] = "version", main_help[] = "help";
	struct cli c = { .argv0 = argv[0] };
	int status;

	if (argc < 2) {
		cli_help_all(stderr);
		return (CLI_USAGE);
	}
	if (strcmp(argv[1], "-V") == 0 || strcmp(argv[1], "--version") == 0)
		argv[1] = main_version;
	else if (strcmp(argv[1], "-h") == 0 || strcmp(argv[1], "--help") == 0)
		argv[1] = main_help;
	c.cmd = main_find(argv[1]);
	c.o.json = mkv_opt_given(argc - 1, argv + 1, "json", 'j');	/* complaints about other options are objects as well */
	if (c.cmd == NULL)
		return (main_unknown(&c, argv[1]));
	c.words = calloc((size_t)argc + 1, sizeof(*c.words));
	if (c.words == NULL)
		return (CLI_FAILED);
	signal(SIGPIPE, SIG_IGN);			/* a reader that leaves is an error of ours to report */
	status = c.cmd->least < 0 ? c.cmd->fn(&c, argc - 1, argv + 1) : main_run_parsed(&c, argc - 1, argv + 1);
	mkv_client_close(c.client);
	free(c.words);
	return (main_flush(status));
}
