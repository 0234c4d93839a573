/*
 * Where the fake server listens: TCP and, if it was asked for, a unix socket, which comes and goes. See fakeserver.h.
 *
 * fake_main() is the thread that accepts, the rest the test's. A descriptor that is taken away stays open until fake_close(): that thread may be at it.
 */
#include "config.h"
#include "tests/lib/fakeserver.h"

#include <netinet/in.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/base/assert.h"
#include "common/base/auth.h"
#include "common/base/os.h"
#include "tests/lib/fakeserver_priv.h"

static void
fake_accept(struct fake *f, const struct pollfd *pf, int local)
{
	int fd;

	if (pf->revents == 0)
		return;
	if ((fd = accept(pf->fd, NULL, NULL)) < 0) {
		(void)usleep(1000);
	} else if (local && f->local_full) {
		f->local_refused++;
		(void)close(fd);
	} else
		fake_add(f, fd, local);
}

void *
fake_main(void *arg)
{
	struct fake *f = arg;
	struct fake_priv *p = f->p;

	while (!p->quit) {
		struct pollfd pf[2] = { { .fd = p->fd, .events = POLLIN }, { .fd = p->local_fd, .events = POLLIN } };

		p->turns++;
		if (poll(pf, 2, 20) <= 0)
			continue;
		fake_accept(f, &pf[0], 0);
		fake_accept(f, &pf[1], 1);
	}
	return (NULL);
}

int
fake_listen(struct fake_priv *p, uint16_t port)
{
	struct sockaddr_in sa = { .sin_family = AF_INET, .sin_port = htons(port) };
	socklen_t n = sizeof(sa);
	int on = 1;

	sa.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	p->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	(void)setsockopt(p->fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
	if (bind(p->fd, (struct sockaddr *)&sa, sizeof(sa)) != 0 || listen(p->fd, 64) != 0 || getsockname(p->fd, (struct sockaddr *)&sa, &n) != 0)
		return (-1);
	p->port = ntohs(sa.sin_port);
	return (0);
}

/* The thread that accepts holds no lock over accept(): a listening socket that is shut down refuses at once. */
void
fake_stop_listening(struct fake *f)
{
	(void)shutdown(f->p->fd, SHUT_RDWR);
}

void
fake_hello_local(const struct fake *f, uint8_t *to)
{
	struct mkv_wire_local w = { 0 };

	MKV_ASSERT(mkv_key_host(w.host_id) == 0);
	w.host_id[0] ^= f->local == 2;
	memcpy(w.path, f->p->local_path, sizeof(w.path));
	if (f->local == 3)
		w.path[0] = 'x';
	if (f->local == 4)
		memset(w.path, '/', sizeof(w.path));
	memcpy(to, &w, sizeof(w));
}

void
fake_local_away(struct fake *f)
{
	struct fake_priv *p = f->p;
	unsigned from;

	(void)unlink(p->local_path);
	MKV_ASSERT(p->n_local_old < LOCAL_LIVES_MAX);
	p->local_old[p->n_local_old++] = atomic_exchange(&p->local_fd, -1);
	/* Who was about to be accepted is, and is sent away with the rest. */
	from = p->turns;
	while (!p->quit && p->turns - from < 2)
		(void)usleep(500);
	(void)pthread_mutex_lock(&p->lock);
	for (unsigned i = 0; i < CONNS_MAX; i++)
		if (p->conn[i] != NULL && p->conn[i]->local)
			(void)shutdown(p->conn[i]->fd, SHUT_RDWR);
	(void)pthread_mutex_unlock(&p->lock);
}

int
fake_local_back(struct fake *f)
{
	int fd = mkv_os_listen_unix(f->p->local_path, 0600);

	if (fd < 0 || mkv_os_socket_mode(fd, 0) != 0)
		return (-1);
	mkv_os_pass_rights(fd, 1);
	f->p->local_fd = fd;
	return (0);
}
