/*
 * memkv admin status: asks the admin port of one server or several (HTTP, GET /v1/status) and shows the answers as a table, or as they came.
 * One connection and one answer at a time, each within the deadline. Foreign bytes: the answer; of bounded length, taken apart by jansson, and what
 * it lacks is shown as nothing.
 */
#include "config.h"
#include "clients/cli/cli.h"

#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/base/clock.h"
#include "common/base/units.h"

#define ADMIN_ANSWER_MAX	(16u << 20)
#define ADMIN_ADDRESS_MAX	300u
#define ADMIN_DEFAULT		"127.0.0.1:9900"
#define ADMIN_HTTPS		"If it speaks HTTPS (network.tls_cert): curl https://HOST:PORT/v1/status"
#define ADMIN_BETWEEN		", \t"			/* two servers, as in libmemkv */

struct admin {
	const struct cli *c;
	char		address[ADMIN_ADDRESS_MAX];	/* of the admin port, as it is shown */
	char		host[ADMIN_ADDRESS_MAX], port[8];
	uint64_t	until_ns;
	int		fd;
	char		*text;			/* the answer, to be freed */
	size_t		bytes;
};

/* ---- where to ask ---- */

/* HOST:PORT, [HOST]:PORT; add: to the port, since the admin port is the one after the data port. 0 or -1. */
static int
admin_address(struct admin *a, const char *text, size_t bytes, unsigned add)
{
	const char *colon = memrchr(text, ':', bytes);
	unsigned long port;
	size_t host;
	char *end;

	if (colon == NULL || bytes >= ADMIN_ADDRESS_MAX - sizeof(a->port))
		return (-1);
	host = (size_t)(colon - text);
	port = strtoul(colon + 1, &end, 10);
	if (host == 0 || end != text + bytes || end == colon + 1 || port == 0 || port + add > UINT16_MAX)
		return (-1);
	snprintf(a->port, sizeof(a->port), "%u", (unsigned)port + add);
	snprintf(a->address, sizeof(a->address), "%.*s:%s", (int)host, text, a->port);
	if (text[0] == '[' && text[host - 1] == ']')
		snprintf(a->host, sizeof(a->host), "%.*s", (int)host - 2, text + 1);
	else
		snprintf(a->host, sizeof(a->host), "%.*s", (int)host, text);
	return (0);
}

/* ---- one question ---- */

static int
admin_fail(struct admin *a, int exit_status, const char *what)
{
	json_t *j;

	fprintf(stderr, "memkv admin: %s: %s\n", a->address, what);
	if (a->c->o.json) {
		j = json_pack("{s:s, s:s, s:s}", "admin", a->address, "status", "unreachable", "error", what);
		cli_json_print(stdout, j);
	}
	return (exit_status);
}

/* Until the socket can be read or written, or the deadline. 0, or -1 with errno. */
static int
admin_wait(const struct admin *a, short events)
{
	struct pollfd p = { .fd = a->fd, .events = events };
	uint64_t now;
	int n;

	for (;;) {
		now = mkv_now_ns();
		errno = ETIMEDOUT;
		if (now >= a->until_ns)
			return (-1);
		n = poll(&p, 1, (int)MKV_MIN(MKV_DIV_UP(a->until_ns - now, MKV_NS_PER_MS), (uint64_t)60000));
		if (n > 0)
			return (0);
		if (n < 0 && errno != EINTR)
			return (-1);
	}
}

static int
admin_connect_to(struct admin *a, const struct addrinfo *ai)
{
	int err = 0;
	socklen_t bytes = sizeof(err);

	a->fd = socket(ai->ai_family, ai->ai_socktype | SOCK_NONBLOCK | SOCK_CLOEXEC, ai->ai_protocol);
	if (a->fd < 0)
		return (-1);
	if (connect(a->fd, ai->ai_addr, ai->ai_addrlen) == 0)
		return (0);
	if (errno == EINPROGRESS && admin_wait(a, POLLOUT) == 0 && getsockopt(a->fd, SOL_SOCKET, SO_ERROR, &err, &bytes) == 0) {
		if (err == 0)
			return (0);
		errno = err;
	}
	err = errno;
	close(a->fd);
	a->fd = -1;
	errno = err;
	return (-1);
}

static int
admin_connect(struct admin *a)
{
	struct addrinfo hints = { .ai_socktype = SOCK_STREAM }, *list;
	int r = getaddrinfo(a->host, a->port, &hints, &list);

	if (r != 0)
		return (admin_fail(a, CLI_UNREACHABLE, gai_strerror(r)));
	for (const struct addrinfo *ai = list; ai != NULL && a->fd < 0; ai = ai->ai_next)
		if (admin_connect_to(a, ai) == 0)
			break;
	r = errno;
	freeaddrinfo(list);
	if (a->fd >= 0)
		return (CLI_DONE);
	return (admin_fail(a, CLI_UNREACHABLE, r == ECONNREFUSED ? "nothing listens there; the ready line of `memkv start` names the admin port" : strerror(r)));
}

static int
admin_ask(struct admin *a)
{
	char ask[ADMIN_ADDRESS_MAX + 96];
	int n = snprintf(ask, sizeof(ask), "GET /v1/status HTTP/1.0\r\nHost: %s\r\nUser-Agent: memkv/%s\r\n\r\n", a->address, PACKAGE_VERSION);
	ssize_t sent;

	/* A new socket takes so little at once, or it is of no use. */
	sent = send(a->fd, ask, (size_t)n, MSG_NOSIGNAL);
	return (sent == n ? CLI_DONE : admin_fail(a, CLI_UNREACHABLE, sent < 0 ? strerror(errno) : "it takes nothing"));
}

/* All of it, up to the end of the connection; a NUL behind it. */
static int
admin_answer(struct admin *a)
{
	size_t room = 0;
	ssize_t n;
	char *more;

	for (;;) {
		if (a->bytes + 1 >= room) {
			room = room == 0 ? 65536 : 2 * room;
			if (room > ADMIN_ANSWER_MAX || (more = realloc(a->text, room)) == NULL)
				return (admin_fail(a, CLI_FAILED, "the answer is too long"));
			a->text = more;
		}
		n = recv(a->fd, a->text + a->bytes, room - a->bytes - 1, 0);
		if (n == 0)
			break;
		if (n > 0)
			a->bytes += (size_t)n;
		else if ((errno != EAGAIN && errno != EWOULDBLOCK && errno != EINTR) || admin_wait(a, POLLIN) != 0)
			return (admin_fail(a, CLI_UNREACHABLE, errno == ETIMEDOUT ? "no answer in time; --deadline gives it longer" :
			    errno == ECONNRESET ? "it ended the connection without an answer. " ADMIN_HTTPS : strerror(errno)));
	}
	a->text[a->bytes] = '\0';
	return (CLI_DONE);
}

/* The body, taken apart. */
static int
admin_parse(struct admin *a, json_t **status)
{
	const char *body = a->bytes > 0 ? strstr(a->text, "\r\n\r\n") : NULL;
	unsigned code = 0;

	if (body == NULL || sscanf(a->text, "HTTP/1.%*1u %3u", &code) != 1)
		return (admin_fail(a, CLI_FAILED, "the answer is no HTTP; is it the admin port? " ADMIN_HTTPS));
	if (code != 200)
		return (admin_fail(a, CLI_FAILED, "it knows no /v1/status; is it the admin port of a memkv server?"));
	*status = json_loadb(body + 4, a->bytes - (size_t)(body + 4 - a->text), 0, NULL);
	if (!json_is_object(*status)) {
		json_decref(*status);
		*status = NULL;
		return (admin_fail(a, CLI_FAILED, "the answer is no JSON object"));
	}
	return (CLI_DONE);
}

/* ---- what it says ---- */

static const char *
admin_text(const json_t *j, const char *name)
{
	const char *s = json_string_value(json_object_get(j, name));

	return (s != NULL ? s : "");
}

static uint64_t
admin_number(const json_t *j, const char *name)
{
	json_int_t v = json_integer_value(json_object_get(j, name));

	return (v > 0 ? (uint64_t)v : 0);
}

static void
admin_show_devices(const json_t *storage)
{
	char used[32], usable[32];
	json_t *d;
	size_t i;

	json_array_foreach(json_object_get(storage, "devices"), i, d)
		printf("  drive %-9llu %-10s %s of %s used%s%s%s, %s\n", (unsigned long long)admin_number(d, "index"), admin_text(d, "state"),
		    mkv_size_human(used, sizeof(used), admin_number(d, "used_bytes")),
		    mkv_size_human(usable, sizeof(usable), admin_number(d, "usable_bytes")), admin_text(d, "io")[0] != '\0' ? ", by " : "", admin_text(d, "io"),
		    json_is_true(json_object_get(d, "readonly")) ? ", read-only" : "", admin_text(d, "media"));
}

static void
admin_show_processes(const json_t *processes)
{
	char up[32];
	json_t *p, *part;
	size_t i, k;

	json_array_foreach((json_t *)(uintptr_t)processes, i, p) {
		printf("  %-15s %-10s pid %llu, up %s, restarts %llu", admin_text(p, "name"), admin_text(p, "state"),
		    (unsigned long long)admin_number(p, "pid"), mkv_duration_format(up, sizeof(up), admin_number(p, "uptime_s") * 1000000),
		    (unsigned long long)admin_number(p, "restarts"));
		json_array_foreach(json_object_get(p, "jail_missing"), k, part)
			printf("%s%s", k == 0 ? ", jail lacks " : " ", json_string_value(part) != NULL ? json_string_value(part) : "");
		if (strcmp(admin_text(p, "state"), "RUNNING") != 0 && admin_text(p, "why")[0] != '\0')
			printf(", %s", admin_text(p, "why"));
		putchar('\n');
	}
}

static void
admin_show(const struct admin *a, const json_t *s)
{
	const json_t *storage = json_object_get(s, "storage");
	char up[32];

	printf("%-17s %-10s version %s, up %s, epoch %llu, %s mode, %s key\n", a->address, admin_text(s, "status"), admin_text(s, "version"),
	    mkv_duration_format(up, sizeof(up), admin_number(s, "uptime_s") * 1000000), (unsigned long long)admin_number(s, "epoch"),
	    admin_text(storage, "mode"), admin_text(s, "auth_key"));
	admin_show_devices(storage);
	admin_show_processes(json_object_get(s, "processes"));
}

/* One server. 0 if it serves, else an exit status. */
static int
admin_one(struct admin *a)
{
	json_t *status = NULL;
	int r;

	a->until_ns = mkv_now_ns() + a->c->o.deadline_us * MKV_NS_PER_US;
	a->fd = -1;
	if ((r = admin_connect(a)) == 0 && (r = admin_ask(a)) == 0 && (r = admin_answer(a)) == 0 && (r = admin_parse(a, &status)) == 0) {
		r = strcmp(admin_text(status, "status"), "unhealthy") == 0 ? CLI_FAILED : CLI_DONE;
		if (a->c->o.json)
			cli_json_print(stdout, json_incref(status));
		else
			admin_show(a, status);
	}
	json_decref(status);
	free(a->text);
	if (a->fd >= 0)
		close(a->fd);
	return (r);
}

/* The servers of --servers, each at its data port + 1. */
static int
admin_of_servers(struct cli *c)
{
	const char *list = c->o.servers != NULL ? c->o.servers : getenv("MEMKV_SERVERS"), *name;
	int r = CLI_DONE, one;
	size_t n;

	if (list == NULL || list[0] == '\0')
		list = ADMIN_DEFAULT;
	for (list += strspn(list, ADMIN_BETWEEN); *list != '\0'; list += n, list += strspn(list, ADMIN_BETWEEN)) {
		struct admin a = { .c = c };
		size_t skip;

		n = strcspn(list, ADMIN_BETWEEN);
		name = memchr(list, '=', n);
		skip = name != NULL ? (size_t)(name + 1 - list) : 0;
		if (admin_address(&a, list + skip, n - skip, 1) != 0)
			return (cli_usage(c, "--servers %.*s: HOST:PORT of the data port is expected", (int)n, list));
		one = admin_one(&a);
		r = MKV_MAX(r, one);
	}
	return (r);
}

int
cmd_admin(struct cli *c, int argc MKV_UNUSED, char **argv MKV_UNUSED)
{
	int r = CLI_DONE, one;

	if (strcmp(c->words[0], "status") != 0)
		return (cli_usage(c, "unknown question %s; there is status", c->words[0]));
	if (c->n_words == 1)
		return (admin_of_servers(c));
	for (int i = 1; i < c->n_words; i++) {
		struct admin a = { .c = c };

		if (admin_address(&a, c->words[i], strlen(c->words[i]), 0) != 0)
			return (cli_usage(c, "%s: HOST:PORT of an admin port is expected", c->words[i]));
		one = admin_one(&a);
		r = MKV_MAX(r, one);
	}
	return (r);
}
