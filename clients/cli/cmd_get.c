/*
 * memkv get: a value that fits in the buffer comes in one call, a longer one in ranges, all of which must be of the same put. A file given
 * by -o is written beside and renamed when it is whole; an interrupt removes what is half. What is there already and no file, such as a device or a
 * pipe, is written to as it is.
 */
#include "config.h"
#include "clients/cli/cli.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/base/os.h"

struct get {
	struct cli	*c;
	struct cli_key	key;
	const char	*path;			/* NULL: standard output */
	int		fd;
	unsigned char	*buf;
	uint64_t	off, want, done;	/* want MEMKV_SIZE_ANY: to the end */
	struct mkv_object obj;
};

static char get_partial[4096 + 16];		/* for the signal handler; "" where nothing is renamed */

static void
get_on_signal(int sig)
{
	unlink(get_partial);
	_exit(128 + sig);
}

static int
get_output_open(struct get *g)
{
	struct stat st;

	get_partial[0] = '\0';
	if (g->path == NULL) {
		g->fd = STDOUT_FILENO;
		return (CLI_DONE);
	}
	if (stat(g->path, &st) == 0 && !S_ISREG(st.st_mode)) {
		g->fd = open(g->path, O_WRONLY | O_CLOEXEC);
		return (g->fd >= 0 ? CLI_DONE : cli_fail_file(g->c, g->path, errno));
	}
	if ((size_t)snprintf(get_partial, sizeof(get_partial), "%s.part%ld", g->path, (long)getpid()) >= sizeof(get_partial))
		return (cli_fail_file(g->c, g->path, ENAMETOOLONG));
	g->fd = open(get_partial, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
	if (g->fd < 0)
		return (cli_fail_file(g->c, g->path, errno));	/* the name that was given; ours beside it says nothing to anyone */
	signal(SIGINT, get_on_signal);
	signal(SIGTERM, get_on_signal);
	return (CLI_DONE);
}

static int
get_output_close(struct get *g, int status)
{
	int bad;

	if (g->path == NULL || g->fd < 0)
		return (status);
	bad = close(g->fd);
	if (status == CLI_DONE && (bad != 0 || (get_partial[0] != '\0' && rename(get_partial, g->path) != 0)))
		status = cli_fail_file(g->c, g->path, errno);
	if (status != CLI_DONE && get_partial[0] != '\0')
		unlink(get_partial);
	return (status);
}

static int
get_write(struct get *g, size_t bytes)
{
	ssize_t n;

	for (size_t at = 0; at < bytes; at += (size_t)n) {
		n = write(g->fd, g->buf + at, bytes - at);
		if (n < 0 && errno == EINTR)
			n = 0;
		else if (n < 0 && g->path == NULL && mkv_os_std_unread())
			return (CLI_FAILED);		/* whose reader left has heard enough */
		else if (n < 0)
			return (cli_fail_file(g->c, g->path != NULL ? g->path : "standard output", errno));
	}
	g->done += bytes;
	return (CLI_DONE);
}

/* In pieces. first: what the value was when we began, size 0 if we have not looked yet. */
static int
get_ranges(struct get *g, struct mkv_object first, struct cli_progress *pr)
{
	int known = first.value_bytes > 0, r;
	int64_t n;

	while (g->want == MEMKV_SIZE_ANY || g->done < g->want) {
		n = mkv_get_range(g->c->client, g->key.data, g->key.bytes, g->off + g->done, g->buf,
		    MKV_MIN(g->want - g->done, CLI_BUFFER_BYTES), g->c->o.deadline_us, &g->obj);
		if (n < 0)
			return (cli_fail(g->c, &g->key, (int)n, g->obj.reason));
		if (known && (g->obj.value_bytes != first.value_bytes || g->obj.put_wall_ms != first.put_wall_ms)) {
			fprintf(stderr, "memkv get: %s was replaced while it was read; try again\n", g->key.given);
			return (CLI_CORRUPT);
		}
		if (!known)
			pr->total = MKV_MIN(g->want, g->obj.value_bytes - MKV_MIN(g->off, g->obj.value_bytes));
		first = g->obj;
		known = 1;
		if (n == 0)
			break;
		if ((r = get_write(g, (size_t)n)) != 0)
			return (r);
		cli_progress_at(pr, g->done);
		if (g->off + g->done >= g->obj.value_bytes)
			break;
	}
	return (CLI_DONE);
}

static int
get_all(struct get *g)
{
	struct cli_progress pr;
	int64_t n = MKV_ERR_TOOBIG;
	int r;

	cli_progress_begin(&pr, g->c, "get", 0);
	if (g->c->o.range == NULL)
		n = mkv_get(g->c->client, g->key.data, g->key.bytes, g->buf, CLI_BUFFER_BYTES, g->c->o.deadline_us, &g->obj);
	pr.total = g->obj.value_bytes;
	if (n >= 0)
		r = get_write(g, (size_t)n);
	else if (n == MKV_ERR_TOOBIG)
		r = get_ranges(g, g->obj, &pr);
	else
		r = cli_fail(g->c, &g->key, (int)n, g->obj.reason);
	cli_progress_end(&pr);
	return (r);
}

/* Where the value takes standard output, the object goes to standard error. */
static void
get_say(const struct get *g)
{
	json_t *j;

	if (!g->c->o.json)
		return;
	j = json_pack("{s:s, s:I, s:I, s:i}", "status", "OK", "bytes", (json_int_t)g->done, "value_bytes", (json_int_t)g->obj.value_bytes,
	    "server", g->obj.server);
	cli_json_key(j, g->key.data, g->key.bytes);
	cli_json_print(g->path != NULL ? stdout : stderr, j);
}

int
cmd_get(struct cli *c, int argc MKV_UNUSED, char **argv MKV_UNUSED)
{
	struct get g = { .c = c, .fd = -1, .want = MEMKV_SIZE_ANY, .obj = { .size = sizeof(g.obj) } };
	int r;

	if ((r = cli_key(c, c->words[0], &g.key)) != 0)
		return (r);
	if (c->o.range != NULL && cli_range(c->o.range, &g.off, &g.want) != 0)
		return (cli_usage(c, "--range %s: wanted is OFFSET:LENGTH in bytes, such as 0:4096 or 1MiB:64KiB", c->o.range));
	if (c->o.output != NULL && strcmp(c->o.output, "-") != 0)
		g.path = c->o.output;
	if ((g.buf = malloc(CLI_BUFFER_BYTES)) == NULL)
		return (cli_fail(c, &g.key, MKV_ERR_NOMEM, 0));
	if ((r = cli_open(c)) == 0 && (r = get_output_open(&g)) == 0) {
		r = get_output_close(&g, get_all(&g));
		if (r == CLI_DONE)
			get_say(&g);
	}
	free(g.buf);
	return (r);
}
