/*
 * memkvctl: asks the supervisor's control socket about its children. One request, one answer, nothing kept.
 */
#include "config.h"
#include "clients/cli/ctl.h"

#include <errno.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "bench/opt.h"
#include "common/base/assert.h"
#include "common/base/clock.h"
#include "common/base/err.h"
#include "common/base/os.h"
#include "common/base/units.h"

#define CTL_ANSWER_MAX	(16u << 20)
#define CTL_DEADLINE_MAX_S	86400u		/* longer is of no use, and the kernel counts in less than we do */

struct ctl_opts {
	const char	*control;
	uint64_t	deadline_us;
	const char	*size, *weight, *ns;
	int		now, yes, hex, whole_default, json, help, version;
};

struct ctl_command {
	const char	*name;
	int		names;
	const char	*done, *help;
};

static const struct ctl_command ctl_commands[] = {
#define CTL_COMMAND(name, names, done, help)	{ name, names, done, help },
#include "clients/cli/ctl_commands.def"
#undef CTL_COMMAND
};

static const struct mkv_opt ctl_options[] = {
	{ "control", 'c', MKV_OPT_STR, offsetof(struct ctl_opts, control), "PATH", NULL, NULL,
	    "socket of the server, as its ready line says (default MEMKV_CONTROL, then the usual places)", 1 },
	{ "deadline", 0, MKV_OPT_DURATION, offsetof(struct ctl_opts, deadline_us), "DURATION", "40s", NULL, "wait so long for the answer", 1 },
	{ "size", 0, MKV_OPT_STR, offsetof(struct ctl_opts, size), "SIZE", NULL, NULL, "drive add, replace: how large the file or arena is to be; a file that is there keeps its size", 1 },
	{ "weight", 0, MKV_OPT_STR, offsetof(struct ctl_opts, weight), "NUMBER", NULL, NULL, "drive add, replace: share of keys, as a factor on its capacity", 1 },
	{ "namespace", 0, MKV_OPT_STR, offsetof(struct ctl_opts, ns), "NAME", NULL, NULL, "drive locate: of the key", 1 },
	{ "now", 0, MKV_OPT_FLAG, offsetof(struct ctl_opts, now), NULL, NULL, NULL, "drive drain, remove: give up at once what it holds", 1 },
	{ "yes", 'y', MKV_OPT_FLAG, offsetof(struct ctl_opts, yes), NULL, NULL, NULL, "namespace purge: do not ask", 1 },
	{ "hex", 0, MKV_OPT_FLAG, offsetof(struct ctl_opts, hex), NULL, NULL, NULL, "namespace purge: the name is in hexadecimal, as list shows those that are no text", 1 },
	{ "default", 0, MKV_OPT_FLAG, offsetof(struct ctl_opts, whole_default), NULL, NULL, NULL, "namespace purge: the one without a name", 1 },
	{ "json", 'j', MKV_OPT_FLAG, offsetof(struct ctl_opts, json), NULL, NULL, NULL, "the answer as the server gave it", 1 },
	{ "version", 'V', MKV_OPT_FLAG, offsetof(struct ctl_opts, version), NULL, NULL, NULL, "print the version", 1 },
	{ "help", 'h', MKV_OPT_FLAG, offsetof(struct ctl_opts, help), NULL, NULL, NULL, "this text", 1 },
};

static int ctl_json;				/* --json was given, wherever it stood: complaints are objects as well */

/* What got no answer, in words and as an object. Answers with the exit status. */
MKV_PRINTF(3, 4) static int
ctl_fail(int status, int err, const char *fmt, ...)
{
	char text[640];
	json_t *j;
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	fprintf(stderr, "memkvctl: %s\n", text);
	if (!ctl_json)
		return (status);
	j = json_pack("{s:b, s:s}", "ok", 0, "status", mkv_err_name(err));
	json_object_set_new(j, "error", json_string(text));	/* NULL, and left out, if a word was no text */
	json_dumpf(j, stdout, JSON_COMPACT | JSON_PRESERVE_ORDER);
	fputc('\n', stdout);
	json_decref(j);
	return (status);
}

static void
ctl_help(FILE *to)
{
	fprintf(to, "usage: memkvctl COMMAND [OPTION]... [NAME]...\n\nLooks after the children of a running memkv server, such as drive:0 or front:tcp:0.\n\n");
	for (size_t i = 0; i < MKV_ARRAY_LEN(ctl_commands); i++)
		fprintf(to, "  %-9s %s\n", ctl_commands[i].name, ctl_commands[i].help);
	fprintf(to, "\nWithout a NAME, or with the name all, every child is meant. What was stopped by its name is started by its name, or by all.\n\n"
	    "  drive list                 drives, their state, media and use\n"
	    "  drive locate KEY           which drive is the home of a key, and was before\n"
	    "  drive add MEDIA            take a device, file or arena into service\n"
	    "  drive drain ID             no new keys; what it holds is read until it has left (drive.drain_time), then it is removed\n"
	    "  drive remove ID            take out a drive that is drained, failed or absent\n"
	    "  drive replace OLD NEW      add NEW; when it is in service OLD is drained, or removed if it is not in service\n\n"
	    "An ID is a number, drive:NUMBER, a uuid or a medium.\n\n"
	    "  namespace list             namespaces with objects, how many and how much space\n"
	    "  namespace purge NAME       all its objects are gone at once, also those pinned or leased; --hex: the name in hexadecimal; --default: those without a namespace\n\n");
	mkv_opt_help(to, ctl_options, MKV_ARRAY_LEN(ctl_options), 1);
	fprintf(to, "\nExit status: 0 done; 1 the server refused, or status found a child that is not RUNNING; 2 wrong usage; 4 no server there, or no answer in time.\n");
}

/* ---- the socket ---- */

static const char *
ctl_try(char *dst, size_t dst_bytes, const char *dir, const char *below)
{
	if (dir == NULL || dir[0] != '/' || (size_t)snprintf(dst, dst_bytes, "%s%s", dir, below) >= dst_bytes)
		return (NULL);
	return (access(dst, F_OK) == 0 ? dst : NULL);
}

const char *
ctl_find(char *dst, size_t dst_bytes)
{
	const struct {
		const char *dir, *below;
	} place[] = {
		{ getenv("XDG_RUNTIME_DIR"), "/memkv/control.sock" }, { "/run", "/memkv/control.sock" },
		{ getenv("XDG_DATA_HOME"), "/memkv/control.sock" }, { getenv("HOME"), "/.local/share/memkv/control.sock" },
		{ "/var/lib", "/memkv/control.sock" },
	};

	for (size_t i = geteuid() == 0 ? 1 : 0; i < MKV_ARRAY_LEN(place); i++)
		if (ctl_try(dst, dst_bytes, place[i].dir, place[i].below) != NULL)
			return (dst);
	return (NULL);
}

static int
ctl_send(int fd, const char *text, size_t bytes)
{
	ssize_t n;

	for (size_t at = 0; at < bytes; at += (size_t)n) {
		n = send(fd, text + at, bytes - at, MSG_NOSIGNAL);
		if (n < 0 && errno == EINTR)
			n = 0;
		else if (n <= 0)
			return (-1);
	}
	return (0);
}

/* One line, to be freed; NULL with errno: ETIMEDOUT, EMSGSIZE (longer than CTL_ANSWER_MAX), ENOMEM, ECONNRESET (it ended in the middle). */
static char *
ctl_recv(int fd, uint64_t until_ns)
{
	char *line = NULL, *end = NULL, *more;
	size_t have = 0, room = 0;
	ssize_t n;

	while (end == NULL) {
		if (have == room) {
			room = room == 0 ? 65536 : room * 2;
			errno = EMSGSIZE;
			if (room > CTL_ANSWER_MAX || (more = realloc(line, room)) == NULL)
				break;
			line = more;
		}
		errno = ETIMEDOUT;
		if (mkv_now_ns() >= until_ns)
			break;
		n = recv(fd, line + have, room - have, 0);
		if (n == 0)
			errno = ECONNRESET;
		if (n == 0 || (n < 0 && errno != EINTR))
			break;
		end = n > 0 ? memchr(line + have, '\n', (size_t)n) : NULL;
		have += n > 0 ? (size_t)n : 0;
	}
	if (end != NULL)
		*end = '\0';
	else
		free(line);
	return (end != NULL ? line : NULL);
}

/* The line to send, to be freed. NULL: a name is no text, or there is no memory. No names: all children, so none may get lost here. */
static char *
ctl_request(const char *cmd, const char *const *names)
{
	json_t *list = json_array(), *j = json_pack("{s:s, s:O?}", "cmd", cmd, "names", list);
	int r = j == NULL || list == NULL ? -1 : 0;
	char *text = NULL;

	for (size_t i = 0; r == 0 && names[i] != NULL; i++)
		r = json_array_append_new(list, json_string(names[i]));
	if (r == 0)
		text = json_dumps(j, JSON_COMPACT);
	json_decref(list);
	json_decref(j);
	return (text);
}

/* What errno means for somebody who waits for an answer. */
static const char *
ctl_no_answer(void)
{
	switch (errno) {
	case EAGAIN:
	case ETIMEDOUT:
		return ("it took too long; --deadline waits longer");
	case EMSGSIZE:
		return ("it is longer than 16 MiB; names of children make it shorter");
	case ECONNRESET:
		return ("the server ended the connection");
	default:
		return (strerror(errno));
	}
}

static int
ctl_talk(int fd, const char *path, const char *ask, uint64_t until_ns, json_t **answer)
{
	char *line;

	if (ctl_send(fd, ask, strlen(ask)) != 0 || ctl_send(fd, "\n", 1) != 0 || (line = ctl_recv(fd, until_ns)) == NULL)
		return (ctl_fail(4, errno == EAGAIN || errno == ETIMEDOUT ? MKV_E_TIMEOUT : MKV_E_CLOSED, "%s: no answer: %s", path, ctl_no_answer()));
	*answer = json_loads(line, 0, NULL);
	free(line);
	return (*answer == NULL ? ctl_fail(1, MKV_E_PROTO, "%s: the answer is no JSON", path) : 0);
}

int
ctl_ask(const char *path, const char *cmd, const char *const *names, unsigned timeout_s, json_t **answer)
{
	uint64_t until_ns = mkv_now_ns() + timeout_s * MKV_NS_PER_SEC;
	char *ask = ctl_request(cmd, names);
	int fd, status = 4;

	*answer = NULL;
	if (ask == NULL)
		return (ctl_fail(2, MKV_E_INVAL, "%s: a NAME is not UTF-8, or there is no memory; memkvctl status shows the names", cmd));
	fd = mkv_os_connect_unix(path, timeout_s);
	if (fd < 0) {
		(void)ctl_fail(4, MKV_E_UNREACHABLE, "%s: %s: is the server running? --control names another socket", path, strerror(-fd));
	} else {
		status = ctl_talk(fd, path, ask, until_ns, answer);
		close(fd);
	}
	free(ask);
	return (status);
}

/* ---- what it says ---- */

static const char *
ctl_text(const json_t *row, const char *name)
{
	const char *s = json_string_value(json_object_get(row, name));

	return (s != NULL ? s : "");
}

/* Names of RDMA devices may be long. */
static int
ctl_name_width(const json_t *rows)
{
	const json_t *row;
	size_t i, width = 16;

	json_array_foreach((json_t *)(uintptr_t)rows, i, row)
		width = MKV_MAX(width, strlen(ctl_text(row, "name")));
	return ((int)MKV_MIN(width, 64));
}

static void
ctl_show_row(FILE *to, const json_t *row, int width)
{
	json_int_t pid = json_integer_value(json_object_get(row, "pid")), up = json_integer_value(json_object_get(row, "uptime_s")),
	    restarts = json_integer_value(json_object_get(row, "restarts")), failures = json_integer_value(json_object_get(row, "failures")),
	    lies = json_integer_value(json_object_get(row, "writer_crc"));
	const char *state = ctl_text(row, "state"), *detail = ctl_text(row, "detail"), *jail = ctl_text(row, "jail_missing");
	const json_t *scrub = json_object_get(row, "scrub");

	fprintf(to, "%-*s %-9s", width, ctl_text(row, "name"), state);
	if (pid > 0)
		fprintf(to, " pid %lld,", (long long)pid);
	if (strcmp(state, "RUNNING") == 0)
		fprintf(to, " uptime %lld:%02lld:%02lld,", (long long)(up / 3600), (long long)(up / 60 % 60), (long long)(up % 60));
	fprintf(to, " restarts %lld", (long long)restarts);
	if (failures > 0)
		fprintf(to, ", %lld failures recorded (memkv drive info)", (long long)failures);
	if (lies > 0)
		fprintf(to, ", %lld objects that never matched their writer's checksums (log: drive_writer_crc)", (long long)lies);
	if (json_integer_value(json_object_get(scrub, "pass")) > 0)
		fprintf(to, ", scrub %lld%% of pass %lld", (long long)json_integer_value(json_object_get(scrub, "percent")),
		    (long long)json_integer_value(json_object_get(scrub, "pass")));
	if (json_is_integer(json_object_get(row, "node")))
		fprintf(to, ", node %lld", (long long)json_integer_value(json_object_get(row, "node")));
	if (ctl_text(row, "far")[0] != '\0')
		fprintf(to, ", far from %s", ctl_text(row, "far"));
	if (ctl_text(row, "pages")[0] != '\0')
		fprintf(to, ", memory in %s", ctl_text(row, "pages"));
	if (ctl_text(row, "transports")[0] != '\0')
		fprintf(to, ", transports %s", ctl_text(row, "transports"));
	if (ctl_text(row, "without_dc")[0] != '\0')
		fprintf(to, " (no DC: %s)", ctl_text(row, "without_dc"));
	fprintf(to, "%s%s%s%s\n", jail[0] != '\0' ? ", jail lacks " : "", jail, detail[0] != '\0' ? ", " : "", detail);
}

static void
ctl_show_drive(FILE *to, const json_t *row)
{
	char used[32], total[32];

	fprintf(to, "%-9s %-10s %10s of %10s  %8lld objects  %s%s%s%s\n", ctl_text(row, "name"), ctl_text(row, "state"),
	    mkv_size_human(used, sizeof(used), (uint64_t)json_integer_value(json_object_get(row, "used_bytes"))),
	    mkv_size_human(total, sizeof(total), (uint64_t)json_integer_value(json_object_get(row, "total_bytes"))),
	    (long long)json_integer_value(json_object_get(row, "objects")), ctl_text(row, "media"),
	    json_is_true(json_object_get(row, "readonly")) ? ", read-only" : "", ctl_text(row, "detail")[0] != '\0' ? ", " : "", ctl_text(row, "detail"));
}

static void
ctl_show_space(FILE *to, const json_t *row)
{
	char bytes[32];
	int text = !json_is_false(json_object_get(row, "text"));
	const char *name = ctl_text(row, text ? "namespace" : "hex");

	fprintf(to, "%s%-*s %10lld objects  %10s\n", text ? "" : "--hex ", text ? 32 : 26, name[0] != '\0' ? name : "(default)", (long long)json_integer_value(json_object_get(row, "objects")),
	    mkv_size_human(bytes, sizeof(bytes), (uint64_t)json_integer_value(json_object_get(row, "bytes"))));
}

static void
ctl_show_purge(FILE *to, const json_t *row)
{
	const char *state = ctl_text(row, "purge");

	fprintf(to, "%s: %s, %lld objects\n", ctl_text(row, "name"), strcmp(state, "away") == 0 ? "out of service, will begin empty" : state,
	    (long long)json_integer_value(json_object_get(row, "objects")));
}

static void
ctl_show_lines(FILE *to, const json_t *row)
{
	const json_t *lines = json_object_get(row, "lines"), *line;
	size_t i;

	fprintf(to, "==> %s <==\n", ctl_text(row, "name"));
	json_array_foreach((json_t *)(uintptr_t)lines, i, line)
		fprintf(to, "%s\n", json_string_value(line) != NULL ? json_string_value(line) : "");
}

static const struct ctl_command *
ctl_command(const char *name)
{
	for (size_t i = 0; i < MKV_ARRAY_LEN(ctl_commands); i++)
		if (strcmp(ctl_commands[i].name, name) == 0)
			return (&ctl_commands[i]);
	return (NULL);
}

int
ctl_show(FILE *to, const char *cmd, const json_t *answer)
{
	const json_t *rows = json_object_get(answer, "rows"), *row;
	const struct ctl_command *c = ctl_command(cmd);
	int ok = json_is_true(json_object_get(answer, "ok")), status = ok ? 0 : 1;
	size_t i;

	MKV_ASSERT(c != NULL);
	if (!ok)
		fprintf(stderr, "memkvctl %s: %s\n", cmd, json_string_value(json_object_get(answer, "error")) != NULL ?
		    ctl_text(answer, "error") : "refused without a reason");
	json_array_foreach((json_t *)(uintptr_t)rows, i, row) {
		if (strcmp(cmd, "tail") == 0)
			ctl_show_lines(to, row);
		else if (json_object_get(row, "media") != NULL)
			ctl_show_drive(to, row);
		else if (json_object_get(row, "namespace") != NULL)
			ctl_show_space(to, row);
		else if (json_object_get(row, "purge") != NULL)
			ctl_show_purge(to, row);
		else if (json_is_true(json_object_get(row, "left")))
			fprintf(to, "%s: left as it is, for it was stopped by its name; memkvctl %s %s\n", ctl_text(row, "name"), cmd, ctl_text(row, "name"));
		else if (c->done != NULL && ok)
			fprintf(to, "%s: %s\n", ctl_text(row, "name"), c->done);
		else
			ctl_show_row(to, row, ctl_name_width(rows));
		if (strcmp(cmd, "status") == 0 && strcmp(ctl_text(row, "state"), "RUNNING") != 0)
			status = 1;
	}
	return (status);
}

/* ---- the command line ---- */

/* For shell completion. */
static int
ctl_lists(const char *what)
{
	if (strcmp(what, "--options") == 0)
		mkv_opt_list(stdout, ctl_options, MKV_ARRAY_LEN(ctl_options), 1);
	else
		for (size_t i = 0; i < MKV_ARRAY_LEN(ctl_commands); i++)
			printf("%s\t%s\n", ctl_commands[i].name, ctl_commands[i].help);
	return (0);
}

static const char *
ctl_name_at(const void *arg MKV_UNUSED, unsigned i)
{
	return (ctl_commands[i].name);
}

static int
ctl_unknown(const char *word)
{
	const char *near = mkv_opt_nearest(word, ctl_name_at, NULL, MKV_ARRAY_LEN(ctl_commands));

	return (ctl_fail(2, MKV_E_INVAL, "unknown command %s; %s%s", word, near != NULL ? "the nearest known one is " : "memkvctl help lists them",
	    near != NULL ? near : ""));
}

/* The options of `drive` travel as words. */
static void
ctl_drive_words(const struct ctl_opts *o, const char **words, char text[3][320])
{
	const struct {
		const char *name, *value;
	} opt[] = { { "size", o->size }, { "weight", o->weight }, { "namespace", o->ns } };
	unsigned n = 0;

	while (words[n] != NULL)
		n++;
	for (unsigned i = 0; i < MKV_ARRAY_LEN(opt); i++)
		if (opt[i].value != NULL) {
			snprintf(text[i], 320, "%s=%s", opt[i].name, opt[i].value);
			words[n++] = text[i];
		}
	if (o->now)
		words[n++] = "now";
	words[n] = NULL;
}

/* 1: it is meant. */
static int
ctl_sure(const char *name)
{
	char line[16] = "";

	fprintf(stderr, "All objects %s%s will be gone. Go on? [y/N] ", name[0] != '\0' ? "of namespace " : "without a namespace", name);
	return (fgets(line, sizeof(line), stdin) != NULL && (line[0] == 'y' || line[0] == 'Y'));
}

/* The words of `namespace` as the server wants them. 0, or an exit status. */
static int
ctl_space_words(const struct ctl_opts *o, const char **words, char text[320])
{
	int purge = words[1] != NULL && strcmp(words[1], "purge") == 0;

	if (words[1] == NULL)
		words[1] = "list";
	if (!purge)
		return (0);
	if ((words[2] != NULL) == (o->whole_default != 0) || (words[2] != NULL && (words[2][0] == '\0' || words[3] != NULL)))
		return (ctl_fail(2, MKV_E_INVAL, "namespace purge takes one NAME, which may be --hex, or --default"));
	if (!o->yes && (!isatty(STDIN_FILENO) || ctl_json))
		return (ctl_fail(2, MKV_E_INVAL, "namespace purge: nobody to ask; --yes goes on without"));
	if (!o->yes && !ctl_sure(words[2] != NULL ? words[2] : ""))
		return (ctl_fail(1, MKV_E_CANCELLED, "nothing was purged"));
	snprintf(text, 320, "%s=%s", o->hex ? "hex" : "name", words[2] != NULL ? words[2] : "");
	words[2] = o->whole_default ? "default" : text;
	return (0);
}

static int
ctl_run(const struct ctl_opts *o, const char *const *words)
{
	char place[256];
	const char *path = o->control != NULL ? o->control : getenv("MEMKV_CONTROL");
	json_t *answer;
	int status;

	if (path == NULL && (path = ctl_find(place, sizeof(place))) == NULL)
		return (ctl_fail(4, MKV_E_UNREACHABLE, "no control socket in the usual places: is a server running? Its ready line names the socket: "
		    "give that with --control or MEMKV_CONTROL"));
	status = ctl_ask(path, words[0], words + 1, (unsigned)MKV_MIN(o->deadline_us / 1000000 + (o->deadline_us % 1000000 != 0), CTL_DEADLINE_MAX_S), &answer);
	if (status != 0)
		return (status);
	if (o->json) {
		status = json_is_true(json_object_get(answer, "ok")) ? 0 : 1;
		json_dumpf(answer, stdout, JSON_COMPACT | JSON_PRESERVE_ORDER);
		fputc('\n', stdout);
	} else
		status = ctl_show(stdout, words[0], answer);
	json_decref(answer);
	return (status);
}

/* An answer that does not get out is a failure, whatever the server has done. */
static int
ctl_flush(int status)
{
	const char *why = mkv_os_std_end();

	if (why != NULL && why[0] != '\0')
		fprintf(stderr, "memkvctl: standard output: %s\n", why);
	return (why != NULL && status == 0 ? 1 : status);
}

int
ctl_main(int argc, char **argv)
{
	struct ctl_opts o = { 0 };
	char text[3][320];
	const char **words = calloc((size_t)argc + 8, sizeof(*words));
	const struct ctl_command *cmd;
	char why[256];
	int n, status = 0;

	if (words == NULL)
		return (1);
	signal(SIGPIPE, SIG_IGN);			/* a reader that leaves: ctl_flush() */
	if (argc == 3 && strcmp(argv[1], "help") == 0 && (strcmp(argv[2], "--options") == 0 || strcmp(argv[2], "--commands") == 0)) {
		free(words);
		return (ctl_flush(ctl_lists(argv[2])));
	}
	ctl_json = mkv_opt_given(argc, argv, "json", 'j');
	n = mkv_opt_parse(ctl_options, MKV_ARRAY_LEN(ctl_options), 1, &o, argc - 1, argv + 1, words, why, sizeof(why));
	if (n < 0)
		status = ctl_fail(2, MKV_E_INVAL, "%s", why);
	else if (o.version)
		printf("memkvctl %s\n", PACKAGE_VERSION);
	else if (n == 2 && strcmp(words[0], "help") == 0 && ctl_command(words[1]) == NULL)
		status = ctl_unknown(words[1]);
	else if (o.help || (n > 0 && strcmp(words[0], "help") == 0))
		ctl_help(stdout);
	else if (n == 0) {
		status = ctl_json ? ctl_fail(2, MKV_E_INVAL, "a command is missing; memkvctl help lists them") : 2;
		ctl_help(stderr);
	} else if ((cmd = ctl_command(words[0])) == NULL)
		status = ctl_unknown(words[0]);
	else if (!cmd->names && n > 1)
		status = ctl_fail(2, MKV_E_INVAL, "%s takes no names: it is for the whole server", words[0]);
	else {
		if (strcmp(words[0], "drive") == 0)
			ctl_drive_words(&o, words, text);
		if (strcmp(words[0], "namespace") == 0)
			status = ctl_space_words(&o, words, text[0]);
		if (status == 0)
			status = ctl_run(&o, words);
	}
	free(words);
	return (ctl_flush(status));
}
