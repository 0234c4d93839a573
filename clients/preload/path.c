/*
 * Which paths are ours, and under which key.
 *
 * Any thread of the program. Owns the list of prefixes: written before main(), but for the real path of an anchor that did not exist then (its mutex).
 * A path outside costs a comparison with each prefix; inside, the directory is resolved by the kernel's rules (realpath), so `..` and symbolic links
 * below and above a prefix mean what they mean without us. A symbolic link elsewhere that leads below a prefix is not seen: name it as a prefix too.
 * Fails: a key that is too long (ENAMETOOLONG). What else is wrong with a path the real call says.
 */
#include "config.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "clients/preload/preload_priv.h"

#define PREFIX_MAX	16

struct prefix {
	size_t	text_bytes;
	_Atomic size_t real_bytes;	/* set last */
	dev_t	dev;
	char	text[PATH_MAX];		/* absolute, as the user wrote it */
	char	real[PATH_MAX];		/* without links; real_bytes 0: the anchor is not there yet */
};

static struct prefix prefix_of[PREFIX_MAX];
static unsigned prefix_count;
static pthread_mutex_t prefix_mutex = PTHREAD_MUTEX_INITIALIZER;

/* A child has one thread: not in the midst of another's look. */
static void
fork_before(void)
{
	(void)pthread_mutex_lock(&prefix_mutex);
}

static void
fork_after(void)
{
	(void)pthread_mutex_unlock(&prefix_mutex);
}

/* realpath() needs no room from the caller, and is not interposed. */
static bool
prefix_find(struct prefix *p)
{
	struct stat st;
	bool there;

	(void)pthread_mutex_lock(&prefix_mutex);
	if (p->real_bytes == 0 && realpath(p->text, p->real) != NULL && REAL(fstatat)(AT_FDCWD, p->real, &st, 0) == 0) {
		p->dev = st.st_dev;
		p->real_bytes = strlen(p->real);
	}
	there = p->real_bytes != 0;
	(void)pthread_mutex_unlock(&prefix_mutex);
	return (there);
}

static void
prefix_add(const char *text, size_t bytes)
{
	struct prefix *p = &prefix_of[prefix_count];
	char cwd[PATH_MAX] = "";
	int n;

	while (bytes > 1 && text[bytes - 1] == '/')
		bytes--;
	if (bytes == 0 || (bytes == 1 && text[0] == '/') || prefix_count == PREFIX_MAX)
		return;
	if (text[0] != '/' && getcwd(cwd, sizeof(cwd)) == NULL)
		return;
	n = snprintf(p->text, sizeof(p->text), "%s%s%.*s", cwd, cwd[0] != '\0' ? "/" : "", (int)bytes, text);
	if (n < 0 || (size_t)n >= sizeof(p->text))
		return;
	p->text_bytes = (size_t)n;
	(void)prefix_find(p);
	prefix_count++;
}

void
mkv_pl_path_init(const char *text)
{
	const char *end;

	(void)pthread_atfork(fork_before, fork_after, fork_after);
	prefix_count = 0;
	memset(prefix_of, 0, sizeof(prefix_of));
	for (; text != NULL && *text != '\0'; text = *end == '\0' ? end : end + 1) {
		end = strchrnul(text, ':');
		prefix_add(text, (size_t)(end - text));
	}
}

bool
mkv_pl_path_any(void)
{
	return (prefix_count != 0);
}

static bool
begins(const char *path, const char *head, size_t bytes)
{
	return (bytes != 0 && strncmp(path, head, bytes) == 0 && (path[bytes] == '/' || path[bytes] == '\0'));
}

/* "//", "/./" and "/../": the text alone does not say where it leads. */
static bool
is_crooked(const char *path)
{
	const char *s;

	for (s = strchr(path, '/'); s != NULL; s = strchr(s + 1, '/'))
		if (s[1] == '/' || (s[1] == '.' && (s[2] == '/' || s[2] == '\0' || (s[2] == '.' && (s[3] == '/' || s[3] == '\0')))))
			return (true);
	return (false);
}

static bool
may_be_ours(const char *path)
{
	unsigned i;

	for (i = 0; i < prefix_count; i++)
		if (begins(path, prefix_of[i].text, prefix_of[i].text_bytes) || begins(path, prefix_of[i].real, prefix_of[i].real_bytes))
			return (true);
	return (is_crooked(path));
}

/* An absolute path of what dirfd and path say. */
static bool
absolute(int dirfd, const char *path, char full[PATH_MAX])
{
	char link[64];
	ssize_t n;

	if (path[0] == '/')
		return ((size_t)snprintf(full, PATH_MAX, "%s", path) < PATH_MAX);
	if (dirfd == AT_FDCWD) {
		if (getcwd(full, PATH_MAX) == NULL)
			return (false);
		n = (ssize_t)strlen(full);
	} else {
		(void)snprintf(link, sizeof(link), "/proc/self/fd/%d", dirfd);
		if ((n = readlink(link, full, PATH_MAX - 1)) <= 0)
			return (false);
	}
	return (snprintf(full + n, (size_t)(PATH_MAX - n), "/%s", path) < (int)(PATH_MAX - n));
}

/* The prefix that holds a resolved path. */
static const struct prefix *
prefix_holding(const char *real)
{
	unsigned i;

	for (i = 0; i < prefix_count; i++)
		if (prefix_find(&prefix_of[i]) && begins(real, prefix_of[i].real, prefix_of[i].real_bytes))
			return (&prefix_of[i]);
	return (NULL);
}

static enum mkv_pl_what
name_set(const struct prefix *p, const char *real, enum mkv_pl_what what, struct mkv_pl_name *out)
{
	const char *key = real + p->real_bytes + (real[p->real_bytes] == '/');
	size_t n = strlen(key);

	if (n > MEMKV_KEY_MAX) {
		errno = ENAMETOOLONG;
		return (what == MKV_PL_DIR ? MKV_PL_OUTSIDE : MKV_PL_ERROR);
	}
	memcpy(out->key, key, n + 1);
	out->key_bytes = n;
	out->dev = p->dev;
	return (what);
}

/* A path that has been resolved: a directory of ours, or somebody else's. */
static enum mkv_pl_what
directory(const char *path, struct mkv_pl_name *out)
{
	const struct prefix *p;
	char real[PATH_MAX];
	struct stat st;

	if (realpath(path, real) == NULL || (p = prefix_holding(real)) == NULL)
		return (MKV_PL_OUTSIDE);
	if (REAL(fstatat)(AT_FDCWD, real, &st, 0) != 0 || !S_ISDIR(st.st_mode))
		return (MKV_PL_OUTSIDE);
	return (name_set(p, real, MKV_PL_DIR, out));
}

/* full's last component; false: it is none that an object can have. The slash before it becomes the end of full. */
static bool
cut(char *full, char **base, bool *slash)
{
	size_t n = strlen(full);

	for (*slash = false; n > 1 && full[n - 1] == '/'; full[--n] = '\0')
		*slash = true;
	*base = strrchr(full, '/');
	if (*base == NULL || *base == full)
		return (false);
	*(*base)++ = '\0';
	return (strcmp(*base, ".") != 0 && strcmp(*base, "..") != 0 && (*base)[0] != '\0');
}

/* Below dir, without links: base is a directory, or a key. */
static enum mkv_pl_what
in_directory(const char *dir, const char *base, bool slash, struct mkv_pl_name *out)
{
	const struct prefix *p;
	char path[PATH_MAX];
	struct stat st;

	if (snprintf(path, sizeof(path), "%s/%s", dir, base) >= (int)sizeof(path))
		return (MKV_PL_OUTSIDE);
	if (REAL(fstatat)(AT_FDCWD, path, &st, 0) == 0 && S_ISDIR(st.st_mode))
		return (directory(path, out));
	if (slash || strlen(base) > NAME_MAX || (p = prefix_holding(dir)) == NULL)
		return (MKV_PL_OUTSIDE);
	return (name_set(p, path, MKV_PL_KEY, out));
}

static enum mkv_pl_what
resolve(int dirfd, const char *path, struct mkv_pl_name *out)
{
	char full[PATH_MAX], whole[PATH_MAX], dir[PATH_MAX];
	char *base;
	bool slash;

	if (!absolute(dirfd, path, full) || !may_be_ours(full))
		return (MKV_PL_OUTSIDE);
	memcpy(whole, full, strlen(full) + 1);
	if (!cut(full, &base, &slash))
		return (directory(whole, out));
	if (realpath(full, dir) == NULL)
		return (MKV_PL_OUTSIDE);
	return (in_directory(dir, base, slash, out));
}

enum mkv_pl_what
mkv_pl_resolve(int dirfd, const char *path, struct mkv_pl_name *out)
{
	int e = errno;
	enum mkv_pl_what what;

	if (prefix_count == 0 || path == NULL || path[0] == '\0' || (path[0] == '/' && !may_be_ours(path)) || mkv_pl_store_inside())
		return (MKV_PL_OUTSIDE);
	what = resolve(dirfd, path, out);
	if (what != MKV_PL_ERROR)
		errno = e;
	return (what);
}

/* FNV-1a: the inode number of a name, never 0. */
uint64_t
mkv_pl_name_ino(const char *key, size_t key_bytes)
{
	uint64_t h = 0xcbf29ce484222325ull;
	size_t i;

	for (i = 0; i < key_bytes; i++)
		h = (h ^ (uint8_t)key[i]) * 0x100000001b3ull;
	return ((h >> 1) + 1);
}
