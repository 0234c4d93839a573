/*
 * memkv doctor: files of the machine, or of a test's picture of one. Keeps nothing but the names of what this user may not read.
 * Foreign bytes: all of it. Only regular files are read, at most so much of them; nothing here waits (a pipe in a file's place is refused).
 */
#include "config.h"
#include "clients/cli/doctor_priv.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define ROOT_PROCS_MAX	65536u		/* processes that are asked for a socket */
#define ROOT_FDS_MAX	65536u
#define ROOT_TCP_BYTES	(4u << 20)

/* The path below the root; errno's numbers are small, so a path that is too long is -ENAMETOOLONG. */
static int MKV_PRINTF(3, 0)
root_path(const struct doctor *d, char path[PATH_MAX], const char *fmt, va_list ap)
{
	int n = snprintf(path, PATH_MAX, "%s", d->root), m;

	m = vsnprintf(path + n, PATH_MAX - (size_t)n, fmt, ap);
	return (m < 0 || m >= PATH_MAX - n ? -ENAMETOOLONG : 0);
}

/* The same from the arguments of a function that takes a format and what belongs to it, last. */
#define ROOT_PATH(r, d, path, fmt) do {				\
	va_list ap_;						\
	va_start(ap_, fmt);					\
	(r) = root_path(d, path, fmt, ap_);			\
	va_end(ap_);						\
} while (0)

static int
root_failed(struct doctor *d, const char *path, int err)
{
	path += strlen(d->root);
	if (err != EACCES && err != EPERM)
		return (-err);
	for (unsigned i = 0; i < d->n_denied; i++)
		if (strcmp(d->denied[i], path) == 0)
			return (-err);
	if (d->n_denied < DOCTOR_DENIED_MAX)
		snprintf(d->denied[d->n_denied++], sizeof(d->denied[0]), "%s", path);
	return (-err);
}

/* At most max bytes. How many, or -errno. */
static ssize_t
root_read(struct doctor *d, char *dst, size_t max, const char *path)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
	ssize_t n = 0;
	struct stat st;
	size_t at = 0;

	if (fd < 0)
		return (root_failed(d, path, errno));
	if (fstat(fd, &st) != 0 || !S_ISREG(st.st_mode)) {
		close(fd);
		return (-(S_ISDIR(st.st_mode) ? EISDIR : EINVAL));
	}
	while (at < max && (n = read(fd, dst + at, max - at)) > 0)
		at += (size_t)n;
	n = n < 0 ? root_failed(d, path, errno) : (ssize_t)at;
	close(fd);
	return (n);
}

static int
root_text(struct doctor *d, char *dst, size_t room, const char *path)
{
	char line[DOCTOR_TEXT_BYTES], *s = line, *end;
	ssize_t n = root_read(d, line, sizeof(line) - 1, path);

	dst[0] = '\0';
	if (n < 0)
		return ((int)n);
	line[n] = '\0';
	line[strcspn(line, "\n")] = '\0';
	s += strspn(s, " \t\r");
	for (end = s + strlen(s); end > s && strchr(" \t\r", end[-1]) != NULL; end--)
		continue;
	*end = '\0';
	for (char *p = s; *p != '\0'; p++)
		if (!isprint((unsigned char)*p) || (*p & 0x80))
			*p = '?';
	snprintf(dst, room, "%s", s);
	return (dst[0] != '\0' ? 0 : -ENODATA);
}

int
doctor_text(struct doctor *d, char *dst, size_t room, const char *fmt, ...)
{
	char path[PATH_MAX];
	int r;

	ROOT_PATH(r, d, path, fmt);
	dst[0] = '\0';
	return (r != 0 ? r : root_text(d, dst, room, path));
}

int
doctor_number(struct doctor *d, int64_t *out, const char *fmt, ...)
{
	char path[PATH_MAX], text[DOCTOR_TEXT_BYTES], *end;
	int r;

	ROOT_PATH(r, d, path, fmt);
	if (r != 0 || (r = root_text(d, text, sizeof(text), path)) != 0)
		return (r);
	errno = 0;
	*out = strtoll(text, &end, 10);
	return (end == text || (*end != '\0' && *end != ' ' && *end != '\t') || errno != 0 ? -EINVAL : 0);
}

char *
doctor_load(struct doctor *d, size_t max, size_t *bytes, const char *fmt, ...)
{
	char path[PATH_MAX], *text = malloc(max + 1);
	ssize_t n = -ENOMEM;
	int r;

	ROOT_PATH(r, d, path, fmt);
	if (text != NULL && r == 0)
		n = root_read(d, text, max, path);
	if (n < 0) {
		free(text);
		return (NULL);
	}
	text[n] = '\0';
	if (bytes != NULL)
		*bytes = (size_t)n;
	return (text);
}

mode_t
doctor_mode(struct doctor *d, const char *fmt, ...)
{
	char path[PATH_MAX];
	struct stat st;
	int r;

	ROOT_PATH(r, d, path, fmt);
	if (r != 0)
		return (0);
	if (stat(path, &st) == 0)
		return (st.st_mode);
	root_failed(d, path, errno);
	return (0);
}

int
doctor_link(struct doctor *d, char *dst, size_t room, const char *fmt, ...)
{
	char path[PATH_MAX];
	ssize_t n;
	int r;

	ROOT_PATH(r, d, path, fmt);
	dst[0] = '\0';
	if (r != 0 || (n = readlink(path, dst, room - 1)) < 0)
		return (r != 0 ? r : -errno);
	dst[n] = '\0';
	return (0);
}

int
doctor_may(struct doctor *d, int mode, const char *fmt, ...)
{
	char path[PATH_MAX];
	int r;

	ROOT_PATH(r, d, path, fmt);
	if (r != 0)
		return (r);
	return (faccessat(AT_FDCWD, path, mode, AT_EACCESS) == 0 ? 0 : -errno);
}

int
doctor_space(struct doctor *d, uint64_t *filesystem, uint64_t *free_bytes, const char *fmt, ...)
{
	char path[PATH_MAX];
	int r;

	ROOT_PATH(r, d, path, fmt);
	return (r != 0 ? r : d->ops->space(path, filesystem, free_bytes));
}

/* Numbers by their size, everything else as text. */
static int
list_order(const void *a, const void *b)
{
	long long x, y;
	char *xe, *ye;

	x = strtoll(a, &xe, 10);
	y = strtoll(b, &ye, 10);
	if (*xe == '\0' && *ye == '\0' && x != y)
		return (x < y ? -1 : 1);
	return (strcmp(a, b));
}

/* Takes over the memory of the names; without room for its address they are dropped. */
static int
names_keep(struct doctor *d, struct doctor_names *n)
{
	void **kept = n->name != NULL ? realloc(d->kept, (d->n_kept + 1) * sizeof(*kept)) : NULL;

	if (kept != NULL) {
		d->kept = kept;
		kept[d->n_kept++] = n->name;
		return (0);
	}
	free(n->name);
	*n = (struct doctor_names){ .count = 0 };
	return (-ENOMEM);
}

int
doctor_names_room(struct doctor *d, struct doctor_names *n, unsigned room)
{
	*n = (struct doctor_names){ .name = calloc(room > 0 ? room : 1, sizeof(*n->name)) };
	return (names_keep(d, n));
}

/* One more at the end, if it is one that can be handled. */
static void
list_add(struct doctor_names *n, const char *name)
{
	size_t bytes = strlen(name);
	void *more;

	if (name[0] == '.' || bytes >= DOCTOR_NAME_BYTES)
		return;
	if ((n->count & (n->count - 1)) == 0) {		/* 0, 1, 2, 4, ...: full */
		more = realloc(n->name, MKV_MAX(2 * n->count, 1u) * sizeof(*n->name));
		if (more == NULL)
			return;
		n->name = more;
	}
	memcpy(n->name[n->count], name, bytes + 1);
	for (char *p = n->name[n->count]; *p != '\0'; p++)
		if (!isprint((unsigned char)*p))
			*p = '?';
	n->count++;
}

void
doctor_list(struct doctor *d, struct doctor_names *n, const char *fmt, ...)
{
	char path[PATH_MAX];
	struct dirent *e;
	DIR *dir;
	int r;

	*n = (struct doctor_names){ .count = 0 };
	ROOT_PATH(r, d, path, fmt);
	if (r != 0)
		return;
	if ((dir = opendir(path)) == NULL) {
		root_failed(d, path, errno);
		return;
	}
	while (n->count < DOCTOR_NAMES_MAX && (e = readdir(dir)) != NULL)
		list_add(n, e->d_name);
	closedir(dir);
	if (names_keep(d, n) == 0)
		qsort(n->name, n->count, sizeof(n->name[0]), list_order);
}

int64_t
doctor_field(const char *text, const char *name)
{
	size_t n = strlen(name);
	char *end;
	long long v;

	for (const char *p = text; *p != '\0'; p += strcspn(p, "\n"), p += (*p == '\n')) {
		if (strncmp(p, name, n) != 0 || p[n] != ':')
			continue;
		v = strtoll(p + n + 1, &end, 10);
		if (v < 0 || v > INT64_MAX / 1024 || end == p + n + 1)
			return (-1);
		return (strncmp(end, " kB", 3) == 0 ? v * 1024 : v);
	}
	return (-1);
}

int
doctor_chosen(const char *text, const char *word)
{
	size_t n = strlen(word);
	const char *at = strchr(text, '[');

	return (at != NULL && strncmp(at + 1, word, n) == 0 && at[1 + n] == ']');
}

/* ---- whose port it is ---- */

/* Inodes of sockets that listen on the port, from /proc/net/tcp or tcp6. */
static unsigned
listener_sockets(struct doctor *d, const char *table, uint16_t port, uint64_t *inode, unsigned room)
{
	char *text = doctor_load(d, ROOT_TCP_BYTES, NULL, "/proc/net/%s", table), *line, *next = text;
	unsigned n = 0, at, state;
	uint64_t ino;

	while (n < room && (line = strsep(&next, "\n")) != NULL)
		if (sscanf(line, "%*u: %*[0-9A-Fa-f]:%4x %*[0-9A-Fa-f]:%*x %2x %*s %*s %*s %*u %*u %" SCNu64, &at, &state, &ino) == 3 &&
		    at == port && state == 0x0a)
			inode[n++] = ino;
	free(text);
	return (n);
}

/* Does this process hold one of the sockets? */
static int
listener_is(struct doctor *d, const char *pid, const uint64_t *inode, unsigned n)
{
	char path[PATH_MAX], target[64];
	unsigned long long ino;
	unsigned looked = 0;
	struct dirent *e;
	int found = 0;
	ssize_t len;
	DIR *dir;

	snprintf(path, sizeof(path), "%s/proc/%s/fd", d->root, pid);
	if ((dir = opendir(path)) == NULL)
		return (0);			/* of another user, or gone: then the name stays unknown */
	while (!found && looked++ < ROOT_FDS_MAX && (e = readdir(dir)) != NULL) {
		if ((len = readlinkat(dirfd(dir), e->d_name, target, sizeof(target) - 1)) <= 0)
			continue;
		target[len] = '\0';
		if (sscanf(target, "socket:[%llu]", &ino) == 1)
			for (unsigned i = 0; i < n; i++)
				found |= inode[i] == ino;
	}
	closedir(dir);
	return (found);
}

int
doctor_listener(struct doctor *d, uint16_t port, char *name, size_t room)
{
	char path[PATH_MAX];
	uint64_t inode[16];
	unsigned n = listener_sockets(d, "tcp", port, inode, MKV_ARRAY_LEN(inode)), looked = 0;
	struct dirent *e;
	DIR *dir;

	name[0] = '\0';
	n += listener_sockets(d, "tcp6", port, inode + n, (unsigned)MKV_ARRAY_LEN(inode) - n);
	snprintf(path, sizeof(path), "%s/proc", d->root);
	if (n == 0 || (dir = opendir(path)) == NULL)
		return (n > 0);
	while (name[0] == '\0' && looked++ < ROOT_PROCS_MAX && (e = readdir(dir)) != NULL)
		if (isdigit((unsigned char)e->d_name[0]) && strlen(e->d_name) < 16 && listener_is(d, e->d_name, inode, n))
			(void)doctor_text(d, name, room, "/proc/%s/comm", e->d_name);
	closedir(dir);
	return (1);
}
