/*
 * Process: supervisor, loop thread.
 * Owns: memkvctl's socket and its connections. The protocol is in operator_priv.h.
 * Invariants: only root and the server's own user are heard (peer credentials); a connection has one request open at a time; start, stop and
 * restart are answered when every named child got there, or cannot, or WAIT_MS have passed.
 * Foreign bytes: the lines, though from a trusted user; lengths and connections are bounded.
 * What can fail: the socket at start; later a connection, which is closed.
 */
#include "config.h"

#include "supervisor/operator_priv.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <jansson.h>
#include <uv.h>

#include "common/base/assert.h"
#include "common/base/clock.h"
#include "common/base/err.h"
#include "common/base/list.h"
#include "common/base/log.h"
#include "common/base/os.h"
#include "proto/wire.h"
#include "supervisor/sup_priv.h"

#define OPERATOR_LINE_MAX	16384u
#define OPERATOR_CONNS_MAX	32u
#define OPERATOR_WAIT_MS	30000u

enum op_who { OP_NOBODY, OP_ALL, OP_NAMED };	/* what the request names: nobody, so all are meant; "all"; some */
enum op_wait { OP_WAIT_NONE, OP_WAIT_RUNNING, OP_WAIT_STOPPED, OP_WAIT_SPACE };

struct op_conn {
	struct mkv_list	link;
	uv_pipe_t	pipe;
	uv_timer_t	timer;
	struct operator	*op;
	char		line[OPERATOR_LINE_MAX];
	size_t		bytes;
	enum op_wait	wait;
	uint64_t	since_ns;		/* RUNNING counts if it began after this */
	enum op_who	who;
	uint8_t		named[SUP_PROCS_MAX];	/* who is meant */
	uint8_t		left[SUP_PROCS_MAX];	/* start, restart: stopped by name, and nobody named it */
	int		closing;		/* handles that libuv has yet to give back */
};

struct operator {
	struct mkv_sup	*sup;
	uv_pipe_t	*listener;
	struct mkv_list	conns;
	unsigned	n_conns;
	char		path[CONFIG_PATH_MAX];
};

struct op_write {
	uv_write_t	req;
	char		*text;
};

/* ---- answers ---- */

static void
op_on_handle_closed(uv_handle_t *h)
{
	struct op_conn *c = h->data;

	if (--c->closing == 0)
		free(c);
}

static void
op_conn_close(struct op_conn *c)
{
	if (c->closing > 0)
		return;
	c->closing = 2;
	c->wait = OP_WAIT_NONE;
	operator_space_gone(c);
	mkv_list_remove(&c->link);
	c->op->n_conns--;
	uv_close((uv_handle_t *)&c->pipe, op_on_handle_closed);
	uv_close((uv_handle_t *)&c->timer, op_on_handle_closed);
}

static void
op_on_written(uv_write_t *req, int status MKV_UNUSED)
{
	struct op_write *w = MKV_CONTAINER_OF(req, struct op_write, req);

	free(w->text);
	free(w);
}

/* Sends one line; takes the reference. */
static void
op_answer(struct op_conn *c, json_t *j)
{
	struct op_write *w = calloc(1, sizeof(*w));
	char *text = json_dumps(j, JSON_COMPACT);
	uv_buf_t buf;
	size_t n;

	json_decref(j);
	if (w != NULL && text != NULL) {
		n = strlen(text);
		text[n] = '\n';			/* in the place of its NUL: the length goes with it */
		w->text = text;
		buf = uv_buf_init(text, (unsigned)n + 1);
		if (uv_write(&w->req, (uv_stream_t *)&c->pipe, &buf, 1, op_on_written) == 0)
			return;
	}
	free(w);
	free(text);
	op_conn_close(c);
}

void
operator_answer(struct op_conn *c, json_t *j)
{
	c->wait = OP_WAIT_NONE;
	(void)uv_timer_stop(&c->timer);
	op_answer(c, j);
}

static void
op_refuse(struct op_conn *c, const char *why)
{
	op_answer(c, json_pack("{s:b,s:s}", "ok", 0, "error", why));
}

/* How far a drive is with reading what it holds. */
static json_t *
op_scrub(const struct proc *p)
{
	const struct mkv_metrics *m = p->metrics;

	return (json_pack("{s:I,s:I,s:I,s:I,s:I}", "pass", (json_int_t)mkv_metric_get(m, MKV_M_drive_scrub_pass, 0), "percent",
	    (json_int_t)mkv_metric_get(m, MKV_M_drive_scrub_pass_percent, 0), "bytes", (json_int_t)mkv_metric_get(m, MKV_M_drive_scrub_pass_bytes, 0),
	    "bad", (json_int_t)mkv_metric_get(m, MKV_M_drive_scrub_bad_total, 0), "last_end_s",
	    (json_int_t)mkv_metric_get(m, MKV_M_drive_scrub_pass_end_seconds, 0)));
}

static json_t *
op_row(const struct proc *p)
{
	const struct child *ch = &p->child;
	uint64_t up = ch->state == CHILD_RUNNING ? (mkv_now_ns() - ch->ready_ns) / MKV_NS_PER_SEC : 0;
	const char *detail = proc_words(p), *jail = ch->state == CHILD_RUNNING ? p->jail_missing : "";
	char pages[64], far[1024];

	json_t *row = json_pack("{s:s,s:s,s:i,s:I,s:i,s:s,s:s%}", "name", ch->name, "state", child_state_name(ch->state), "pid",
	    p->life != NULL ? (int)p->life->pid : 0, "uptime_s", (json_int_t)up, "restarts", (int)ch->restart_count, "jail_missing",
	    jail, "detail", detail, strlen(detail));

	if (row != NULL && p->node >= 0)
		json_object_set_new(row, "node", json_integer(p->node));
	if (row != NULL && affinity_far(p, far, sizeof(far))[0] != '\0')
		json_object_set_new(row, "far", json_string(far));
	if (row != NULL && heritage_memory(p) != NULL)
		json_object_set_new(row, "pages", json_string(pages_text(heritage_memory(p), pages, sizeof(pages))));
	if (row != NULL && proc_is_rail(p) && ch->state == CHILD_RUNNING)
		json_object_set_new(row, "transports", json_string((p->rail.transports & MKV_FEATURE_RDMA_DC) != 0 ? "rc dc" : "rc"));
	if (row != NULL && p->rail.without_dc[0] != '\0')
		json_object_set_new(row, "without_dc", json_string(p->rail.without_dc));
	/* What the drive's own registry counts; memkv drive info has the rows. */
	if (row != NULL && proc_is_drive(p) && p->metrics != NULL) {
		json_object_set_new(row, "failures", json_integer((json_int_t)mkv_metric_get(p->metrics, MKV_M_drive_failures, 0)));
		json_object_set_new(row, "scrub", op_scrub(p));
		json_object_set_new(row, "writer_crc", json_integer((json_int_t)mkv_metric_get(p->metrics, MKV_M_drive_writer_crc_total, 0)));
	}
	return (row);
}

static json_t *
op_lines(const struct proc *p)
{
	json_t *lines = json_array(), *s;
	const char *l;

	for (uint32_t i = 0; (l = logs_word(&p->words, i)) != NULL; i++)
		json_array_append_new(lines, (s = json_string(l)) != NULL ? s : json_string("(not text)"));
	return (json_pack("{s:s,s:o}", "name", p->child.name, "lines", lines));
}

static json_t *
op_rows(const struct op_conn *c, json_t *(*row)(const struct proc *))
{
	struct mkv_sup *s = c->op->sup;
	json_t *rows = json_array();

	for (uint32_t i = 0; i < s->proc_count; i++) {
		json_t *one = c->named[i] || c->left[i] ? row(&s->proc[i]) : NULL;

		if (one != NULL && c->left[i])
			json_object_set_new(one, "left", json_true());
		if (one != NULL)
			json_array_append_new(rows, one);
	}
	return (rows);
}

static void
op_answer_rows(struct op_conn *c, const char *error)
{
	if (error == NULL)
		op_answer(c, json_pack("{s:b,s:o}", "ok", 1, "rows", op_rows(c, op_row)));
	else
		op_answer(c, json_pack("{s:b,s:s,s:o}", "ok", 0, "error", error, "rows", op_rows(c, op_row)));
}

/* ---- waiting ---- */

/* 1 there; 0 not yet; -1 will not get there by itself. */
static int
op_arrived(const struct op_conn *c, const struct proc *p)
{
	const struct child *ch = &p->child;

	if (c->wait == OP_WAIT_STOPPED)
		return (ch->state == CHILD_STOPPED || ch->state == CHILD_FATAL);
	if (ch->state == CHILD_RUNNING && (c->since_ns == 0 || ch->ready_ns >= c->since_ns))
		return (1);
	if (ch->state == CHILD_BACKOFF && p->absent)
		return (-1);			/* once its device is there */
	return (ch->state == CHILD_FATAL || (ch->state == CHILD_STOPPED && !ch->start_again) ? -1 : 0);
}

static void
op_check_wait(struct op_conn *c)
{
	struct mkv_sup *s = c->op->sup;
	const char *error = NULL;
	int r;

	for (uint32_t i = 0; i < s->proc_count; i++) {
		if (!c->named[i])
			continue;
		r = op_arrived(c, &s->proc[i]);
		if (r == 0)
			return;
		if (r == -1)
			error = s->proc[i].why[0] != '\0' ? s->proc[i].why : "stopped by another request";
	}
	c->wait = OP_WAIT_NONE;
	uv_timer_stop(&c->timer);
	op_answer_rows(c, error);
}

void
operator_on_change(struct operator *o)
{
	MKV_LIST_FOREACH_SAFE(l, next, &o->conns) {
		struct op_conn *c = MKV_CONTAINER_OF(l, struct op_conn, link);

		if (c->wait == OP_WAIT_RUNNING || c->wait == OP_WAIT_STOPPED)
			op_check_wait(c);
	}
	operator_space_step(o->sup);
}

static void
op_on_timer(uv_timer_t *t)
{
	struct op_conn *c = t->data;

	if (c->wait == OP_WAIT_NONE)
		return;
	if (c->wait == OP_WAIT_SPACE) {
		operator_space_late(c);
		return;
	}
	c->wait = OP_WAIT_NONE;
	op_answer_rows(c, "not done yet; status will tell");
}

/* ---- requests ---- */

static void
op_move(struct op_conn *c, enum op_wait wait, int again, void (*verb)(struct child *))
{
	struct mkv_sup *s = c->op->sup;

	c->wait = wait;
	c->since_ns = again ? mkv_now_ns() : 0;
	(void)uv_timer_start(&c->timer, op_on_timer, OPERATOR_WAIT_MS, 0);
	for (uint32_t i = 0; i < s->proc_count; i++)
		if (c->named[i])
			verb(&s->proc[i].child);
	sup_on_change(s);
}

/* Who took one child out by its name has a reason that a start of everything knows nothing of. */
static void
op_leave_parked(struct op_conn *c)
{
	struct mkv_sup *s = c->op->sup;

	for (uint32_t i = 0; c->who == OP_NOBODY && i < s->proc_count; i++)
		if (c->named[i] && s->proc[i].child.parked) {
			c->named[i] = 0;
			c->left[i] = 1;
		}
}

static void
op_start_child(struct child *c)
{
	(void)child_start(c);
}

static void
op_start(struct op_conn *c)
{
	struct mkv_sup *s = c->op->sup;

	op_leave_parked(c);
	for (uint32_t i = 0; i < s->proc_count; i++)
		if (c->named[i] && s->proc[i].child.state == CHILD_STOPPING) {
			op_refuse(c, "still stopping; try again");
			return;
		}
	/* Not a restart: what runs already has arrived. */
	op_move(c, OP_WAIT_RUNNING, 0, op_start_child);
}

static void
op_park_child(struct child *c)
{
	child_stop(c);
	c->parked = 1;
}

static void
op_stop(struct op_conn *c)
{
	op_move(c, OP_WAIT_STOPPED, 0, c->who == OP_NAMED ? op_park_child : child_stop);
}

static void
op_restart(struct op_conn *c)
{
	op_leave_parked(c);
	op_move(c, OP_WAIT_RUNNING, 1, child_restart);
}

static void
op_status(struct op_conn *c)
{
	op_answer_rows(c, NULL);
}

static void
op_tail(struct op_conn *c)
{
	op_answer(c, json_pack("{s:b,s:o}", "ok", 1, "rows", op_rows(c, op_lines)));
}

static void
op_reload(struct op_conn *c)
{
	char why[MKV_PARAM_WHY_BYTES + CONFIG_PATH_MAX];

	if (sup_reload(c->op->sup, why, sizeof(why)) != 0)
		op_refuse(c, why);
	else
		op_answer_rows(c, NULL);
}

static void
op_shutdown(struct op_conn *c)
{
	struct mkv_sup *s = c->op->sup;

	op_answer_rows(c, NULL);
	sup_stop(s);
}

static const struct {
	const char	*name;
	void		(*run)(struct op_conn *c);
	int		changes;		/* not while the server stops */
} op_table[] = {
	{ "status", op_status, 0 },	{ "tail", op_tail, 0 },		{ "start", op_start, 1 },	{ "stop", op_stop, 1 },
	{ "restart", op_restart, 1 },	{ "reload", op_reload, 1 },	{ "shutdown", op_shutdown, 1 },
};

static enum op_who
op_who(const json_t *names)
{
	json_t *v;
	size_t i;

	json_array_foreach((json_t *)(uintptr_t)names, i, v)
		if (json_is_string(v) && strcmp(json_string_value(v), "all") == 0)
			return (OP_ALL);
	return (json_array_size(names) == 0 ? OP_NOBODY : OP_NAMED);
}

/* Which children are meant. 0 after an answer was sent. */
static int
op_names(struct op_conn *c, const json_t *names)
{
	struct mkv_sup *s = c->op->sup;
	char why[160];
	json_t *v;
	size_t i;

	c->who = op_who(names);
	memset(c->named, c->who != OP_NAMED, sizeof(c->named));
	for (i = 0; i < s->drive_count; i++)	/* who was removed is meant by name alone */
		c->named[s->front_count + i] &= pool_row(s, (uint32_t)i)->state != MKV_DRIVE_REMOVED;
	json_array_foreach((json_t *)(uintptr_t)names, i, v) {
		struct proc *p = json_is_string(v) ? sup_proc_named(s, json_string_value(v)) : NULL;

		if (c->who == OP_ALL)
			break;
		if (p == NULL) {
			snprintf(why, sizeof(why), "no child is called \"%.64s\"", json_is_string(v) ? json_string_value(v) : "?");
			op_refuse(c, why);
			return (0);
		}
		c->named[p->number] = 1;
	}
	return (1);
}

/* One that is added is waited for until its process runs or is given up. */
static void
op_drive(struct op_conn *c, const json_t *words)
{
	struct mkv_sup *s = c->op->sup;
	struct proc *p = NULL;
	json_t *answer = operator_drive(s, words, &p);

	if (answer != NULL) {
		op_answer(c, answer);
		return;
	}
	memset(c->named, 0, sizeof(c->named));
	c->named[p->number] = 1;
	op_move(c, OP_WAIT_RUNNING, 0, op_start_child);
}

static void
op_space(struct op_conn *c, const json_t *words)
{
	const char *why = operator_space(c->op->sup, words, c);

	if (why != NULL) {
		op_refuse(c, why);
		return;
	}
	c->wait = OP_WAIT_SPACE;
	(void)uv_timer_start(&c->timer, op_on_timer, OPERATOR_WAIT_MS, 0);
	operator_space_step(c->op->sup);
}

static void
op_request(struct op_conn *c, const char *line)
{
	json_t *j = json_loads(line, JSON_REJECT_DUPLICATES, NULL);
	const char *cmd = j != NULL ? json_string_value(json_object_get(j, "cmd")) : NULL;
	size_t i;

	memset(c->left, 0, sizeof(c->left));
	if (cmd == NULL) {
		op_refuse(c, "a request is an object with \"cmd\", in one line");
		json_decref(j);
		return;
	}
	for (i = 0; i < MKV_ARRAY_LEN(op_table) && strcmp(op_table[i].name, cmd) != 0; i++)
		continue;
	if (strcmp(cmd, "drive") == 0)
		op_drive(c, json_object_get(j, "names"));
	else if (strcmp(cmd, "namespace") == 0)
		op_space(c, json_object_get(j, "names"));
	else if (i == MKV_ARRAY_LEN(op_table))
		op_refuse(c, "unknown command; known are status, tail, start, stop, restart, reload, drive, namespace, shutdown");
	else if (op_table[i].changes && c->op->sup->phase >= SUP_STOPPING_FRONTS)
		op_refuse(c, "the server is stopping");
	else if (op_names(c, json_object_get(j, "names")))
		op_table[i].run(c);
	json_decref(j);
}

/* ---- connections ---- */

static void
op_on_alloc(uv_handle_t *h, size_t hint MKV_UNUSED, uv_buf_t *buf)
{
	struct op_conn *c = h->data;

	*buf = uv_buf_init(c->line + c->bytes, (unsigned)(sizeof(c->line) - c->bytes));
}

/* Whole lines of what was read. Another request while one waits is a mistake of the other side. */
static void
op_split(struct op_conn *c)
{
	char *nl, line[OPERATOR_LINE_MAX];
	size_t n;

	while (c->closing == 0 && (nl = memchr(c->line, '\n', c->bytes)) != NULL) {
		n = (size_t)(nl - c->line);
		memcpy(line, c->line, n);
		line[n] = '\0';
		memmove(c->line, nl + 1, c->bytes - n - 1);
		c->bytes -= n + 1;
		if (c->wait != OP_WAIT_NONE) {
			op_conn_close(c);
			return;
		}
		op_request(c, line);
	}
	if (c->closing == 0 && c->bytes == sizeof(c->line))
		op_conn_close(c);
}

static void
op_on_read(uv_stream_t *st, ssize_t n, const uv_buf_t *buf MKV_UNUSED)
{
	struct op_conn *c = st->data;

	if (n < 0) {
		op_conn_close(c);
		return;
	}
	c->bytes += (size_t)n;
	op_split(c);
}

/* The permissions of the socket keep others out already; this also holds where they do not count. */
static int
op_peer_ok(struct op_conn *c)
{
	uv_os_fd_t fd;
	uid_t uid;

	if (uv_fileno((uv_handle_t *)&c->pipe, &fd) != 0 || mkv_os_peer(fd, &uid, NULL) != 0)
		return (0);
	return (uid == 0 || uid == geteuid());
}

static void
op_on_connection(uv_stream_t *listener, int status)
{
	struct operator *o = listener->data;
	struct op_conn *c;

	if (status != 0 || (c = calloc(1, sizeof(*c))) == NULL)
		return;
	c->op = o;
	(void)uv_pipe_init(o->sup->loop, &c->pipe, 0);
	(void)uv_timer_init(o->sup->loop, &c->timer);
	c->pipe.data = c->timer.data = c;
	mkv_list_init(&c->link);
	mkv_list_push_tail(&o->conns, &c->link);
	o->n_conns++;
	if (uv_accept(listener, (uv_stream_t *)&c->pipe) != 0 || o->n_conns > OPERATOR_CONNS_MAX || !op_peer_ok(c) ||
	    uv_read_start((uv_stream_t *)&c->pipe, op_on_alloc, op_on_read) != 0)
		op_conn_close(c);
}

/* ---- start and end ---- */

/* Only this user and root may connect; who it is, is looked at as well. */
static int
op_listen(struct operator *o, char *why, unsigned why_bytes)
{
	int fd = mkv_os_listen_unix(o->path, 0600), r;

	if (fd < 0) {
		snprintf(why, why_bytes, "control socket \"%s\": %s; set server.control_socket", o->path,
		    fd == MKV_E_LOCKED ? "another server listens there" : mkv_err(fd));
		return (fd);
	}
	(void)uv_pipe_init(o->sup->loop, o->listener, 0);
	o->listener->data = o;
	if ((r = uv_pipe_open(o->listener, fd)) != 0 || (r = uv_listen((uv_stream_t *)o->listener, 16, op_on_connection)) != 0) {
		snprintf(why, why_bytes, "control socket \"%s\": %s", o->path, uv_strerror(r));
		(void)unlink(o->path);
		return (MKV_E_SYSTEM);
	}
	return (0);
}

static void
op_on_listener_closed(uv_handle_t *h)
{
	free(h);
}

int
operator_open(struct operator **out, struct mkv_sup *s, const char *path, char *why, unsigned why_bytes)
{
	struct operator *o = calloc(1, sizeof(*o));
	int r;

	*out = NULL;
	if (o == NULL || (o->listener = calloc(1, sizeof(*o->listener))) == NULL) {
		free(o);
		snprintf(why, why_bytes, "out of memory");
		return (MKV_E_NOMEM);
	}
	o->sup = s;
	mkv_list_init(&o->conns);
	snprintf(o->path, sizeof(o->path), "%s", path);
	if ((r = op_listen(o, why, why_bytes)) != 0) {
		if (o->listener->data != NULL)
			uv_close((uv_handle_t *)o->listener, op_on_listener_closed);
		else
			free(o->listener);
		free(o);
		return (r);
	}
	*out = o;
	return (0);
}

void
operator_close(struct operator **op)
{
	struct operator *o = *op;

	if (o == NULL)
		return;
	*op = NULL;
	MKV_LIST_FOREACH_SAFE(l, next, &o->conns)
		op_conn_close(MKV_CONTAINER_OF(l, struct op_conn, link));
	(void)unlink(o->path);			/* while it is ours: another server may be about to listen there */
	uv_close((uv_handle_t *)o->listener, op_on_listener_closed);
	free(o);
}
