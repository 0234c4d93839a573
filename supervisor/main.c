/*
 * Process: supervisor. The command line; the rest is sup_run().
 * Exit status: 0 stopped as asked (or shown what was asked for); 1 failed; 2 wrong usage or configuration.
 */
#include "config.h"

#include <fcntl.h>
#include <stdio.h>

#include "common/base/os.h"
#include "supervisor/budget_priv.h"
#include "supervisor/config_priv.h"
#include "supervisor/sup_priv.h"

/* What was to be shown is worth nothing if it did not get out. */
static int
main_shown(void)
{
	const char *why = mkv_os_std_end();

	if (why != NULL && why[0] != '\0')
		fprintf(stderr, "memkv: standard output: %s\n", why);
	return (why != NULL);
}

static int
main_say_errors(struct config_errors *e)
{
	for (unsigned i = 0; i < e->n; i++)
		fprintf(stderr, "%s\n", e->line[i]);
	if (e->more > 0)
		fprintf(stderr, "and %u more\n", e->more);
	config_errors_free(e);
	return (2);
}

static int
main_say_good(const struct config *c, const char *pages)
{
	char why[256];

	for (unsigned i = 0; i < c->n_notes; i++)
		fprintf(stderr, "%s: %s\n", c->note[i]->key, c->note[i]->help);
	for (unsigned i = 0; i < c->n_stray; i++) {
		config_stray_text(&c->stray[i], why, sizeof(why));
		fprintf(stderr, "%s\n", why);
	}
	printf("configuration is good%s%s\n%s%s", c->file[0] != '\0' ? ": " : "", c->file, pages, pages[0] != '\0' ? "\n" : "");
	return (main_shown());
}

/* The answer for programs holds the complaints as well. */
static int
main_say_json(const struct config *c, struct config_errors *e, const char *memory)
{
	int status = e->n + e->more > 0 ? 2 : 0, failed = config_show_json(stdout, c, e, memory) != 0;

	if (main_shown() != 0 || failed)
		status = 1;
	config_errors_free(e);
	return (status);
}

/* Who waits for the ready line on a descriptor that is not there would wait for ever. */
static int
main_ready_fd(int fd)
{
	int flags = fd >= 0 ? fcntl(fd, F_GETFL) : O_WRONLY;

	if (flags >= 0 && (flags & O_ACCMODE) != O_RDONLY)
		return (0);
	fprintf(stderr, "memkv: --ready-fd %d: %s\n", fd, flags < 0 ? "that descriptor is not open" : "that descriptor is not open for writing");
	return (2);
}

static int
main_run(const struct config_args *args, enum config_run run)
{
	static struct config config;		/* large */
	struct config_errors e = { .n = 0 };
	char why[1536] = "";
	int status;

	if (run == CONFIG_RUN && (status = main_ready_fd(args->ready_fd)) != 0)
		return (status);
	if (config_load(&config, args, &e) == 0 && budget_config(&config, why, sizeof(why)) != 0)
		config_error(&e, "%s", why);
	if (args->json)
		status = main_say_json(&config, &e, why);
	else if (e.n + e.more > 0)
		status = main_say_errors(&e);
	else if (run == CONFIG_CHECK)
		status = main_say_good(&config, why);
	else
		status = sup_run(args, &config);
	config_wipe(&config);
	return (status);
}

int
main(int argc, char *argv[])
{
	static struct config_args args;
	enum config_run run;
	char why[256];

	mkv_os_std_fds();
	if (config_parse_args(&args, argc, argv, &run, why, sizeof(why)) != 0) {
		fprintf(stderr, "memkv: %s\n", why);
		return (2);
	}
	switch (run) {
	case CONFIG_HELP:
		config_show_help(stdout);
		return (main_shown());
	case CONFIG_VERSION:
		printf("memkv %s\n", PACKAGE_VERSION);
		return (main_shown());
	case CONFIG_SHOW_DEFAULTS:
		config_show_defaults(stdout);
		return (main_shown());
	case CONFIG_SHOW_MARKDOWN:
		config_show_markdown(stdout);
		return (main_shown());
	default:
		return (main_run(&args, run));
	}
}
