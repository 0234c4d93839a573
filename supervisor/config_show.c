/*
 * Process: supervisor, then it exits. Prints what the table of parameters says: --help, the defaults as a file that could be used, and the table of
 * docs/operate/configuration.md.
 */
#include "config.h"

#include "supervisor/config_priv.h"

#include <stdio.h>
#include <string.h>

static const char help_text[] =
    "Usage: memkv start [OPTION]...\n"
    "Run a memkv server in the foreground. Without a configuration: file mode on 127.0.0.1:9900, 1 GiB, data in /var/lib/memkv (root) or\n"
    "$XDG_DATA_HOME/memkv.\n"
    "\n"
    "  --config FILE            configuration (default: $MEMKV_CONFIG, then " CONFIG_FILE_DEFAULT " if it is there)\n"
    "  --set SECTION.KEY=VALUE  set one key; may be repeated. Lists as YAML: --set 'storage.drives=[{media: /dev/loop0}]'\n"
    "  --ready-fd N             also write the `ready` line to descriptor N\n"
    "  --check-config           read the configuration, say what is wrong with it, exit; --json: as one object\n"
    "  --show-defaults          print every key with its default, range and meaning, exit\n"
    "  --show-markdown          the same as the table of docs/operate/configuration.md, exit\n"
    "  --version, --help\n"
    "\n"
    "Where several places set a key: command line, MEMKV_SECTION_KEY in the environment, file, default.\n"
    "Signals: TERM, INT orderly stop (twice: at once); HUP read the configuration again. Exit status: 0 stopped as asked; 1 failed; 2 wrong\n"
    "usage or configuration.\n"
    "\n"
    "Keys:\n";

/* Sections that differ between two keys are closed and opened; returns how deep the last one is. */
static unsigned
show_sections(FILE *out, const char *before, const char *key)
{
	unsigned depth = 0;
	size_t at = 0, n;
	int same = 1;

	while ((n = strcspn(key + at, ".")), key[at + n] == '.') {
		same = same && strncmp(before, key, at + n + 1) == 0;
		if (!same)
			fprintf(out, "%s%*s%.*s:\n", depth == 0 ? "\n" : "", (int)depth * 2, "", (int)n, key + at);
		at += n + 1;
		depth++;
	}
	return (depth);
}

static const char *
show_scope(enum mkv_param_scope scope)
{
	return (scope == MKV_PARAM_RELOAD ? "reload" : scope == MKV_PARAM_IGNORED ? "no effect" : "restart");
}

void
config_show_defaults(FILE *out)
{
	const char *before = "", *name;
	char allowed[MKV_PARAM_WHY_BYTES];
	unsigned depth;

	fprintf(out, "# Every key of memkv with its default. Generated from the table that the server itself uses.\n");
	for (unsigned i = 0; i < mkv_param_count(); i++) {
		const struct mkv_param_row *row = &mkv_param_rows()[i];

		depth = show_sections(out, before, row->key);
		name = strrchr(row->key, '.') + 1;
		fprintf(out, "%*s# %s\n", (int)depth * 2, "", row->help);
		fprintf(out, "%*s# %s; taken at: %s\n", (int)depth * 2, "", mkv_param_allowed(row, allowed, sizeof(allowed)), show_scope(row->scope));
		fprintf(out, "%*s%s%s:%s%s\n", (int)depth * 2, "", row->def[0] == '\0' || row->scope == MKV_PARAM_IGNORED ? "# " : "", name,
		    row->def[0] != '\0' ? " " : "", row->def);
		before = row->key;
	}
}

void
config_show_markdown(FILE *out)
{
	char allowed[MKV_PARAM_WHY_BYTES];

	fprintf(out, "| Key | Default | Allowed | Taken at | Meaning |\n|---|---|---|---|---|\n");
	for (unsigned i = 0; i < mkv_param_count(); i++) {
		const struct mkv_param_row *row = &mkv_param_rows()[i];

		fprintf(out, "| `%s` | %s%s%s | ", row->key, row->def[0] != '\0' ? "`" : "", row->def, row->def[0] != '\0' ? "`" : "");
		for (const char *p = mkv_param_allowed(row, allowed, sizeof(allowed)); *p != '\0'; p++)
			fprintf(out, "%s%c", *p == '|' ? "\\" : "", *p);
		fprintf(out, " | %s | %s |\n", show_scope(row->scope), row->help);
	}
}

void
config_show_help(FILE *out)
{
	char env[MKV_PARAM_KEY_BYTES + 16];

	fputs(help_text, out);
	for (unsigned i = 0; i < mkv_param_count(); i++) {
		const struct mkv_param_row *row = &mkv_param_rows()[i];

		fprintf(out, "  %s (%s)%s%s\n        %s\n", row->key, mkv_params_env_name(row->key, env, sizeof(env)),
		    row->def[0] != '\0' ? ", default " : "", row->def, row->help);
	}
}
