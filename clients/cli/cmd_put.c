/*
 * memkv put: what fits in one buffer goes in one call, a longer file or stream in parts: nothing is seen before the last is there. When
 * anything fails, or the program ends, the server drops what it has.
 * What a restart of a drive or a server cuts off is begun again inside the deadline where the input can be read a second time: the library keeps no
 * more than one part of it.
 */
#include "config.h"
#include "clients/cli/cli.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/base/clock.h"
#include "common/base/err.h"

#define PUT_PAUSE_MIN_US	50000u
#define PUT_PAUSE_MAX_US	800000u

struct put {
	struct cli	*c;
	struct cli_key	key;
	struct mkv_put_opts po;
	const char	*path;
	int		fd;
	unsigned char	*buf;
	uint64_t	total;
	off_t		start;			/* where the input begins; -1: it is read once */
	uint64_t	until_ns, pause_us;	/* of trying again: 0 before the first failure */
	int		met, committing;	/* a part was taken once; the last call was the commit */
	struct mkv_object obj;
};

/* Fill the buffer, or less at the end of the input. Negative: errno. */
static ssize_t
put_read(struct put *p)
{
	size_t have = 0;
	ssize_t n;

	while (have < CLI_BUFFER_BYTES && (n = read(p->fd, p->buf + have, CLI_BUFFER_BYTES - have)) != 0) {
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return (-1);
		have += (size_t)n;
	}
	return ((ssize_t)have);
}

/* The buffer holds n bytes and more follows. 0, an error of the library, or a positive errno of the input. */
static int
put_attempt(struct put *p, struct cli_progress *pr, ssize_t n)
{
	struct mkv_put_stream *s;
	uint64_t deadline = p->c->o.deadline_us;
	int r;

	p->total = 0;
	p->committing = 0;
	if ((r = mkv_put_begin(p->c->client, p->key.data, p->key.bytes, &p->po, deadline, &s)) != 0)
		return (r);
	for (; n > 0; n = put_read(p)) {
		if ((r = mkv_put_part(s, p->buf, (size_t)n, deadline)) != 0)
			break;
		p->met = 1;
		p->total += (uint64_t)n;
		cli_progress_at(pr, p->total);
		if (n < (ssize_t)CLI_BUFFER_BYTES)
			break;
	}
	if (n < 0)
		r = errno;
	if (r != 0) {
		mkv_put_abort(s);
		return (r);
	}
	p->committing = 1;
	return (mkv_put_commit(s, deadline, &p->obj));
}

/* Is there sense in another attempt? Then the input is at its beginning and a pause is over. A server that never was there is said at once. */
static int
put_again(struct put *p, int r)
{
	uint64_t now = mkv_now_ns();

	if (!mkv_err_retry(r) || !p->met || p->start < 0 || (p->committing && p->c->o.if_absent))
		return (0);			/* an if-absent whose commit has no answer would find itself */
	if (p->until_ns == 0) {
		p->until_ns = now + MKV_MIN(p->c->o.deadline_us - 1, CLI_DEADLINE_MAX_US - 1) * MKV_NS_PER_US;
		p->pause_us = PUT_PAUSE_MIN_US;
	}
	if (now + p->pause_us * MKV_NS_PER_US >= p->until_ns)
		return (0);
	(void)usleep((useconds_t)p->pause_us);
	p->pause_us = MKV_MIN(p->pause_us * 2, PUT_PAUSE_MAX_US);
	return (lseek(p->fd, p->start, SEEK_SET) == p->start);
}

static int
put_parts(struct put *p, struct cli_progress *pr)
{
	ssize_t n = CLI_BUFFER_BYTES;
	int r;

	do
		r = put_attempt(p, pr, n);
	while (r < 0 && put_again(p, r) && (n = put_read(p)) >= 0);
	if (r > 0 || n < 0)
		return (cli_fail_file(p->c, p->path, r > 0 ? r : errno));
	if (r != 0 && p->start < 0 && mkv_err_retry(r) && p->met)
		return (cli_fail_hint(p->c, &p->key, r, "this input cannot be read again; a file is, until the deadline"));
	return (r == 0 ? CLI_DONE : cli_fail(p->c, &p->key, r, 0));
}

static int
put_all(struct put *p)
{
	struct cli_progress pr;
	struct stat st;
	ssize_t n;
	int r;

	if (fstat(p->fd, &st) != 0)
		return (cli_fail_file(p->c, p->path, errno));
	if (S_ISDIR(st.st_mode))
		return (cli_fail_file(p->c, p->path, EISDIR));
	p->start = lseek(p->fd, 0, SEEK_CUR);
	n = put_read(p);
	if (n < 0)
		return (cli_fail_file(p->c, p->path, errno));
	if (n == (ssize_t)CLI_BUFFER_BYTES) {
		cli_progress_begin(&pr, p->c, "put", S_ISREG(st.st_mode) ? (uint64_t)st.st_size : 0);
		r = put_parts(p, &pr);
		cli_progress_end(&pr);
		return (r);
	}
	p->total = (uint64_t)n;
	r = mkv_put(p->c->client, p->key.data, p->key.bytes, p->buf, (size_t)n, &p->po, p->c->o.deadline_us, &p->obj);
	return (r == 0 ? CLI_DONE : cli_fail(p->c, &p->key, r, 0));
}

static void
put_say(const struct put *p)
{
	json_t *j;

	if (!p->c->o.json)
		return;				/* a put that is done says nothing */
	j = json_pack("{s:s, s:I, s:b, s:i}", "status", "OK", "bytes", (json_int_t)p->total, "same", p->obj.same, "server", p->obj.server);
	cli_json_key(j, p->key.data, p->key.bytes);
	cli_json_print(stdout, j);
}

static int
put_options(struct put *p, struct cli_key *parent)
{
	const struct cli_opts *o = &p->c->o;
	int r;

	p->po.size = sizeof(p->po);
	p->po.flags = (o->if_absent ? MKV_PUT_IF_ABSENT : 0) | (o->overwrite ? MKV_PUT_OVERWRITE : 0) | (o->pin ? MKV_PUT_PIN : 0);
	if (o->durability != NULL)
		p->po.flags |= strcmp(o->durability, "commit") == 0 ? MKV_PUT_COMMIT : MKV_PUT_ACCEPTED;
	p->po.ttl_ms = (o->ttl_us + 999) / 1000;
	if (o->parent == NULL)
		return (CLI_DONE);
	r = cli_key(p->c, o->parent, parent);
	p->po.parent = parent->data;
	p->po.parent_bytes = parent->bytes;
	return (r);
}

int
cmd_put(struct cli *c, int argc MKV_UNUSED, char **argv MKV_UNUSED)
{
	struct put p = { .c = c, .path = c->words[1], .fd = STDIN_FILENO, .obj = { .size = sizeof(p.obj) } };
	struct cli_key parent;
	int from_file = strcmp(p.path, "-") != 0, r;

	if ((r = cli_key(c, c->words[0], &p.key)) != 0 || (r = put_options(&p, &parent)) != 0)
		return (r);
	if (from_file && (p.fd = open(p.path, O_RDONLY | O_CLOEXEC)) < 0)
		return (cli_fail_file(c, p.path, errno));
	if ((p.buf = malloc(CLI_BUFFER_BYTES)) == NULL)
		r = cli_fail(c, &p.key, MKV_ERR_NOMEM, 0);
	else if ((r = cli_open(c)) == 0 && (r = put_all(&p)) == 0)
		put_say(&p);
	free(p.buf);
	if (from_file)
		close(p.fd);
	return (r);
}
