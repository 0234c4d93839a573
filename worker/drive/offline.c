/*
 * memkv-drive without a server: entry, arguments, and what the commands say. One process, one thread; owns nothing.
 *
 * The arguments are ours (clients/cli parsed what the user typed): `--offline COMMAND [NAME=VALUE]... -- [MEDIUM]...`. What is wrong in them is
 * refused all the same.
 */
#include "config.h"

#include "worker/drive/offline_priv.h"

#include <errno.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "common/base/crc.h"
#include "common/base/err.h"
#include "common/base/log.h"
#include "common/base/os.h"

static const struct {
	const char	*name;
	int		(*run)(const struct offline *o);
	unsigned	least;			/* media */
} offline_commands[] = {
	{ "setup", offline_setup, 0 }, { "list", offline_list, 0 }, { "info", offline_info, 1 }, { "check", offline_check, 1 },
	{ "repair", offline_repair, 1 }, { "clear-failures", offline_clear_failures, 1 }, { "wipe", offline_wipe, 1 },
};

/* ---- JSON ---- */

static void
js_string(FILE *to, const char *s)
{
	fputc('"', to);
	for (; *s != '\0'; s++) {
		unsigned char c = (unsigned char)*s;

		if (c == '"' || c == '\\')
			fprintf(to, "\\%c", c);
		else if (c < ' ' || c == 127)
			fprintf(to, "\\u%04x", c);
		else
			fputc(c, to);
	}
	fputc('"', to);
}

static void
js_name(struct offline_json *j, const char *name)
{
	if (j->comma)
		fputc(',', j->to);
	if (name != NULL) {
		js_string(j->to, name);
		fputc(':', j->to);
	}
	j->comma = 1;
}

void
js_open(struct offline_json *j, const char *name, char bracket)
{
	js_name(j, name);
	fputc(bracket, j->to);
	j->comma = 0;
}

void
js_close(struct offline_json *j, char bracket)
{
	fputc(bracket, j->to);
	j->comma = 1;
}

void
js_text(struct offline_json *j, const char *name, const char *value)
{
	js_name(j, name);
	js_string(j->to, value);
}

void
js_u64(struct offline_json *j, const char *name, uint64_t value)
{
	js_name(j, name);
	fprintf(j->to, "%llu", (unsigned long long)value);
}

void
js_bool(struct offline_json *j, const char *name, int value)
{
	js_name(j, name);
	fputs(value ? "true" : "false", j->to);
}

/* ---- words ---- */

void
offline_say(const struct offline *o, const char *fmt, ...)
{
	char text[1024];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	fprintf(stderr, "memkv %s%s: %s\n", strcmp(o->command, "setup") == 0 ? "" : "drive ", o->command, text);
}

void
offline_uuid_text(char dst[37], const uint8_t u[16])
{
	snprintf(dst, 37, "%02x%02x%02x%02x-%02x%02x-%02x%02x-%02x%02x-%02x%02x%02x%02x%02x%02x", u[0], u[1], u[2], u[3], u[4], u[5], u[6], u[7],
	    u[8], u[9], u[10], u[11], u[12], u[13], u[14], u[15]);
}

void
offline_time_text(char dst[32], uint64_t wall_ms)
{
	time_t t = (time_t)(wall_ms / 1000);
	struct tm tm;

	if (wall_ms == 0 || gmtime_r(&t, &tm) == NULL || strftime(dst, 32, "%Y-%m-%dT%H:%M:%SZ", &tm) == 0)
		snprintf(dst, 32, "-");
}

int
offline_failures(const struct probe *p, struct mkv_fail_row *rows, struct mkv_fail_sum *sum)
{
	void *mem;
	int r;

	memset(sum, 0, sizeof(*sum));
	if (posix_memalign(&mem, MKV_BLOCK, MKV_FAILREG_BLOCKS * MKV_BLOCK) != 0)
		return (MKV_E_NOMEM);
	if ((r = probe_read(p, mem, MKV_FAILREG_BLOCKS * MKV_BLOCK, MKV_FAILREG_OFF)) == 0)
		mkv_fail_parse(mem, mkv_block_tag(p->sb.uuid), rows, sum);
	free(mem);
	return (r);
}

/* ---- arguments ---- */

static int
offline_set(struct offline *o, const char *arg)
{
	const struct {
		const char	*name;
		const char	**text;
		uint64_t	*number;
	} row[] = {
		{ "rdma", &o->rdma, NULL }, { "config_out", &o->config_out, NULL }, { "data_dir", &o->data_dir, NULL },
		{ "extent_bytes", NULL, &o->extent_bytes }, { "file_bytes", NULL, &o->file_bytes }, { "force", NULL, &o->force },
		{ "idempotent", NULL, &o->idempotent }, { "data", NULL, &o->data }, { "yes", NULL, &o->yes }, { "quiet", NULL, &o->quiet },
		{ "json", NULL, &o->json },
	};
	const char *value = strchr(arg, '=');
	char *end;

	for (size_t i = 0; value != NULL && i < MKV_ARRAY_LEN(row); i++) {
		if (strlen(row[i].name) != (size_t)(value - arg) || strncmp(row[i].name, arg, (size_t)(value - arg)) != 0)
			continue;
		if (row[i].text != NULL) {
			*row[i].text = value + 1;
			return (0);
		}
		errno = 0;
		*row[i].number = strtoull(value + 1, &end, 10);
		return (errno != 0 || end == value + 1 || *end != '\0' ? -1 : 0);
	}
	return (-1);
}

int
offline_main(int argc, char **argv)
{
	struct offline o = { .command = argc > 0 ? argv[0] : "" };
	const char *why;
	int i, status;

	mkv_log_init(MKV_LOG_ERROR);			/* the commands say what they do themselves */
	mkv_assert_prepare();
	mkv_crc_init();
	for (i = 1; i < argc && strcmp(argv[i], "--") != 0; i++) {
		if (offline_set(&o, argv[i]) != 0) {
			fprintf(stderr, "memkv-drive: argument %s makes no sense: this program is run by `memkv setup` and `memkv drive`\n", argv[i]);
			return (OFFLINE_USAGE);
		}
	}
	if (i < argc) {
		o.media = argv + i + 1;
		o.n_media = (unsigned)(argc - i - 1);
	}
	for (size_t k = 0; k < MKV_ARRAY_LEN(offline_commands); k++) {
		if (strcmp(offline_commands[k].name, o.command) != 0)
			continue;
		if (o.n_media < offline_commands[k].least) {
			offline_say(&o, "which medium? memkv drive list shows what there is");
			return (OFFLINE_USAGE);
		}
		status = offline_commands[k].run(&o);
		if ((why = mkv_os_std_end()) != NULL && why[0] != '\0')
			offline_say(&o, "standard output: %s", why);
		return (why != NULL && status == OFFLINE_DONE ? OFFLINE_FAILED : status);
	}
	fprintf(stderr, "memkv drive: unknown command %s; there are list, info, check, repair, clear-failures and wipe\n", o.command);
	return (OFFLINE_USAGE);
}
