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
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

#include "common/base/assert.h"
#include "common/base/err.h"
#include "common/base/os_priv.h"

/* Programs use low numbers, and expect them in order. */
#define FD_AWAY_MIN	700

void
mkv_os_shm_unmap(void *p, uint64_t bytes)
{
	if (p != NULL)
		MKV_ASSERT(munmap(p, bytes) == 0);
}

void
mkv_os_std_fds(void)
{
	/* The lowest free number is the one that is missing. Opened the wrong way round: reading 0 and writing 1 and 2 give EBADF, as on a closed one. */
	for (int fd = 0; fd <= STDERR_FILENO; fd++)
		if (fcntl(fd, F_GETFD) < 0 && open("/dev/null", fd == STDIN_FILENO ? O_WRONLY : O_RDONLY) != fd)
			_exit(1);
}

int
mkv_os_std_unread(void)
{
	struct pollfd p = { .fd = STDOUT_FILENO };

	return (mkv_os_poll(&p, 1, 0) == 1 && (p.revents & (POLLERR | POLLHUP)) != 0);
}

const char *
mkv_os_std_end(void)
{
	int flushed = fflush(stdout) == 0, e = errno;

	if (flushed && !ferror(stdout))
		return (NULL);
	return (mkv_os_std_unread() ? "" : flushed ? "an earlier write failed" : strerror(e));
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

/* A socket that nobody listens on is left over from a process that was killed. Nothing else is removed: neither a file, nor what we may not connect to. */
static int
unix_remove_stale(const struct sockaddr_un *sa)
{
	struct stat st;
	int fd, r;

	if (stat(sa->sun_path, &st) != 0)
		return (0);
	if (!S_ISSOCK(st.st_mode))
		return (MKV_E_EXISTS);
	if ((fd = socket(AF_UNIX, SOCK_STREAM, 0)) < 0)
		return (os_err());
	if (connect(fd, (const struct sockaddr *)sa, sizeof(*sa)) == 0)
		r = MKV_E_LOCKED;
	else
		r = errno == ECONNREFUSED ? 0 : os_err();
	(void)close(fd);
	if (r == 0)
		(void)unlink(sa->sun_path);
	return (r);
}

/* If that was needed and failed, bind says so. */
static void
unix_make_dir(const struct sockaddr_un *sa)
{
	char dir[sizeof(sa->sun_path)], *slash;

	memcpy(dir, sa->sun_path, sizeof(dir));
	slash = strrchr(dir, '/');
	if (slash == NULL || slash == dir)
		return;
	*slash = '\0';
	(void)mkdir(dir, 0755);
}

int
mkv_os_listen_unix(const char *path, mode_t mode)
{
	struct sockaddr_un sa = { .sun_family = AF_UNIX };
	mode_t mask;
	int fd, r;

	if (strlen(path) >= sizeof(sa.sun_path))
		return (MKV_E_TOOBIG);
	memcpy(sa.sun_path, path, strlen(path) + 1);
	unix_make_dir(&sa);
	if ((r = unix_remove_stale(&sa)) != 0)
		return (r);
	fd = socket(AF_UNIX, SOCK_STREAM, 0);
	if (fd < 0)
		return (os_err());
	if (fcntl(fd, F_SETFD, FD_CLOEXEC) != 0 || mkv_os_socket_mode(fd, 1) != 0)
		return (os_close_err(fd, os_err()));
	mkv_os_pass_rights(fd, 0);
	mask = umask(0777 & ~mode);
	r = bind(fd, (struct sockaddr *)&sa, sizeof(sa));
	(void)umask(mask);
	if (r != 0)
		return (os_close_err(fd, os_err()));
	if (listen(fd, SOMAXCONN) != 0) {
		(void)unlink(path);
		return (os_close_err(fd, os_err()));
	}
	return (fd);
}

int
mkv_os_connect_unix(const char *path, unsigned timeout_s)
{
	struct sockaddr_un sa = { .sun_family = AF_UNIX };
	struct timeval tv = { .tv_sec = (time_t)timeout_s };
	int fd;

	if (strlen(path) >= sizeof(sa.sun_path))
		return (-ENAMETOOLONG);
	memcpy(sa.sun_path, path, strlen(path) + 1);
	fd = socket(AF_UNIX, SOCK_STREAM, 0);
	if (fd < 0)
		return (-errno);
	(void)fcntl(fd, F_SETFD, FD_CLOEXEC);
	(void)setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof(tv));
	(void)setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &tv, sizeof(tv));
	if (connect(fd, (struct sockaddr *)&sa, sizeof(sa)) != 0)
		return (os_close_err(fd, -errno));
	return (fd);
}

int
mkv_os_is_socket(int fd)
{
	struct stat st;

	return (fstat(fd, &st) == 0 && S_ISSOCK(st.st_mode));
}

void
mkv_os_fd_away(int *fd)
{
	int saved = errno, away = *fd < 0 || *fd >= FD_AWAY_MIN ? -1 : fcntl(*fd, F_DUPFD_CLOEXEC, FD_AWAY_MIN);

	if (away >= 0) {
		(void)close(*fd);
		*fd = away;
	}
	errno = saved;
}

/* ---- descriptors as companions of a message ---- */

void
os_ctl_attach(struct msghdr *m, void *buf, const int *fds, unsigned n_fds)
{
	struct cmsghdr *h;

	MKV_ASSERT(n_fds <= OS_CTL_FDS_MAX);
	if (n_fds == 0)
		return;
	memset(buf, 0, CMSG_SPACE(n_fds * sizeof(int)));
	m->msg_control = buf;
	m->msg_controllen = (socklen_t)CMSG_SPACE(n_fds * sizeof(int));
	h = CMSG_FIRSTHDR(m);
	h->cmsg_level = SOL_SOCKET;
	h->cmsg_type = SCM_RIGHTS;
	h->cmsg_len = (socklen_t)CMSG_LEN(n_fds * sizeof(int));
	memcpy(CMSG_DATA(h), fds, n_fds * sizeof(int));
}

int
os_ctl_detach(struct msghdr *m, int whole, int *fds, unsigned *n_fds)
{
	unsigned room = *n_fds, seen = 0;
	size_t n;
	int fd;

	for (struct cmsghdr *h = CMSG_FIRSTHDR(m); h != NULL; h = CMSG_NXTHDR(m, h)) {
		if (h->cmsg_level != SOL_SOCKET || h->cmsg_type != SCM_RIGHTS)
			continue;
		n = (h->cmsg_len - CMSG_LEN(0)) / sizeof(int);
		for (size_t i = 0; i < n; i++, seen++) {
			memcpy(&fd, (char *)CMSG_DATA(h) + i * sizeof(int), sizeof(fd));
			if (seen < room)
				fds[seen] = fd;
			else
				(void)close(fd);
		}
	}
	*n_fds = MKV_MIN(seen, room);
	if (whole && seen <= room)
		return (0);
	while (*n_fds > 0)
		(void)close(fds[--*n_fds]);
	return (MKV_E_PROTO);
}

int
mkv_os_next_data(int fd, uint64_t off, uint64_t *from, uint64_t *to)
{
	off_t a = lseek(fd, (off_t)off, SEEK_DATA), b;

	if (a < 0 && errno == ENXIO)
		return (0);
	*from = a >= 0 ? (uint64_t)a : off;
	b = lseek(fd, (off_t)*from, SEEK_HOLE);
	*to = b > (off_t)*from ? (uint64_t)b : UINT64_MAX;
	return (1);
}
