/*
 * Anonymous files in memory: the one call of the platform that the preload library makes.
 *
 * Any thread of the program. The descriptor is the caller's. Fails as the kernel does.
 */
#include "config.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "clients/preload/preload_priv.h"

/* Programs use low numbers and expect them in order: ours are above, if the limit allows. */
#define MEMFD_NUMBER_MIN	700
#define PUT_ID_DIGITS		16
/* Nobody else can see or set it: fchmod() of an object does nothing. */
#define MODE_PLAIN		0644
#define MODE_ADOPTED		(S_ISVTX | MODE_PLAIN)

int
mkv_pl_memfd(const char *name)
{
	int fd, high;

	if ((fd = memfd_create(name, MFD_CLOEXEC)) < 0)
		return (-1);
	if ((high = REAL(fcntl)(fd, F_DUPFD_CLOEXEC, MEMFD_NUMBER_MIN)) >= 0) {
		(void)REAL(close)(fd);
		fd = high;
	}
	(void)REAL(fchmod)(fd, MODE_PLAIN);
	return (fd);
}

bool
mkv_pl_memfd_is_adopted(const struct stat *st)
{
	return ((st->st_mode & S_ISVTX) != 0);
}

void
mkv_pl_memfd_adopt(int fd)
{
	(void)REAL(fchmod)(fd, MODE_ADOPTED);
}

/* "/memfd:memkv:w0123456789abcdef:KEY (deleted)": the key, whether it may be written, and the put that it was opened as. */
bool
mkv_pl_memfd_key(const char *link, struct mkv_pl_name *n, bool *writable, uint64_t *put_id)
{
	const char *head = "/memfd:" MKV_PL_MEMFD_HEAD, *mark = " (deleted)", *end = link + strlen(link) - strlen(mark), *key;
	char *colon;

	if (strncmp(link, head, strlen(head)) != 0 || end < link + strlen(head) || strcmp(end, mark) != 0)
		return (false);
	link += strlen(head);
	*writable = link[0] == 'w';
	if ((!*writable && link[0] != 'r') || end < link + PUT_ID_DIGITS + 3)
		return (false);
	*put_id = strtoull(link + 1, &colon, 16);
	key = colon + 1;
	if (colon != link + 1 + PUT_ID_DIGITS || *colon != ':' || (size_t)(end - key) > MKV_PL_MEMFD_KEY_MAX)
		return (false);
	n->key_bytes = (size_t)(end - key);
	memcpy(n->key, key, n->key_bytes);
	n->key[n->key_bytes] = '\0';
	return (true);
}
