/*
 * The platform: what every POSIX system has, for os_linux.c and os_darwin.c alike.
 *
 * Process and thread: any; no state.
 * Owns: nothing; descriptors and mappings are the caller's.
 * Fails: as os.h says.
 */
#include "config.h"
#include "common/base/os.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/base/assert.h"
#include "common/base/err.h"

static int
os_err(void)
{
	return (mkv_err_from_errno(errno));
}

static int
os_close_err(int fd, int err)
{
	(void)close(fd);
	return (err);
}

void
mkv_os_shm_unmap(void *p, uint64_t bytes)
{
	if (p != NULL)
		MKV_ASSERT(munmap(p, bytes) == 0);
}

int
mkv_os_medium_lock(int fd)
{
	int r;

	do
		r = flock(fd, LOCK_EX | LOCK_NB);
	while (r != 0 && errno == EINTR);
	if (r == 0)
		return (0);
	return (errno == EWOULDBLOCK ? MKV_E_LOCKED : os_err());
}

/* A numeric address only: no resolver runs in a server. */
static int
listen_addr(const char *host, uint16_t port, struct sockaddr_storage *ss, socklen_t *bytes)
{
	struct sockaddr_in *v4 = (struct sockaddr_in *)ss;
	struct sockaddr_in6 *v6 = (struct sockaddr_in6 *)ss;

	memset(ss, 0, sizeof(*ss));
	if (inet_pton(AF_INET, host, &v4->sin_addr) == 1) {
		v4->sin_family = AF_INET;
		v4->sin_port = htons(port);
		*bytes = sizeof(*v4);
		return (0);
	}
	if (inet_pton(AF_INET6, host, &v6->sin6_addr) == 1) {
		v6->sin6_family = AF_INET6;
		v6->sin6_port = htons(port);
		*bytes = sizeof(*v6);
		return (0);
	}
	return (MKV_E_INVAL);
}

static uint16_t
listen_port(int fd)
{
	struct sockaddr_storage ss;
	socklen_t bytes = sizeof(ss);

	memset(&ss, 0, sizeof(ss));
	if (getsockname(fd, (struct sockaddr *)&ss, &bytes) != 0)
		return (0);
	if (ss.ss_family == AF_INET6)
		return (ntohs(((struct sockaddr_in6 *)&ss)->sin6_port));
	return (ntohs(((struct sockaddr_in *)&ss)->sin_port));
}

int
mkv_os_listen_tcp(const char *host, uint16_t port, int reuseport, uint16_t *bound_port)
{
	struct sockaddr_storage ss;
	socklen_t bytes;
	int fd, r, one = 1;

	if ((r = listen_addr(host, port, &ss, &bytes)) != 0)
		return (r);
	fd = socket(ss.ss_family, SOCK_STREAM, 0);
	if (fd < 0)
		return (os_err());
	if (fcntl(fd, F_SETFD, FD_CLOEXEC) != 0 || mkv_os_socket_mode(fd, 1) != 0)
		return (os_close_err(fd, os_err()));
	(void)setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	if (ss.ss_family == AF_INET6)
		(void)setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &one, sizeof(one));
	if (reuseport && setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &one, sizeof(one)) != 0)
		return (os_close_err(fd, os_err()));
	if (bind(fd, (struct sockaddr *)&ss, bytes) != 0 || listen(fd, SOMAXCONN) != 0)
		return (os_close_err(fd, errno == EADDRINUSE ? MKV_E_LOCKED : os_err()));
	if (bound_port != NULL)
		*bound_port = listen_port(fd);
	return (fd);
}

int
mkv_os_is_socket(int fd)
{
	struct stat st;

	return (fstat(fd, &st) == 0 && S_ISSOCK(st.st_mode));
}
