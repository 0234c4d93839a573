/*
 * Anonymous files in memory: the one call of the platform that the preload library makes.
 *
 * Any thread of the program. The descriptor is the caller's. Fails as the kernel does.
 */
#include "config.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "clients/preload/preload_priv.h"

/* Programs use low numbers and expect them in order: ours are above, if the limit allows. */
#define MEMFD_NUMBER_MIN	700

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
	(void)fchmod(fd, 0644);
	return (fd);
}

/* "/memfd:memkv:w:KEY (deleted)": the key, and whether it may be written. */
bool
mkv_pl_memfd_key(const char *link, struct mkv_pl_name *n, bool *writable)
{
	const char *head = "/memfd:" MKV_PL_MEMFD_HEAD, *mark = " (deleted)", *end = link + strlen(link) - strlen(mark);

	if (strncmp(link, head, strlen(head)) != 0 || end < link + strlen(head) || strcmp(end, mark) != 0)
		return (false);
	link += strlen(head);
	*writable = link[0] == 'w';
	if ((!*writable && link[0] != 'r') || link[1] != ':' || end < link + 3 || (size_t)(end - link - 2) > MKV_PL_MEMFD_KEY_MAX)
		return (false);
	n->key_bytes = (size_t)(end - link - 2);
	memcpy(n->key, link + 2, n->key_bytes);
	n->key[n->key_bytes] = '\0';
	return (true);
}
