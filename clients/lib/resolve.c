/*
 * Names to addresses. getaddrinfo(3) may block for seconds, so it has a thread of its own; numeric addresses are answered at once.
 *
 * Threads: the resolver's own, and I/O threads that ask. Owns one row a server.
 *
 *   field    written by            read by         under
 *   row[]    both                  both            lock
 *   want     I/O threads           resolver        lock
 *
 * A name with several addresses means them in turn: one that did not work is followed by the next.
 *
 * Fails: an unknown name is an answer (MKV_E_UNREACHABLE) that the next question asks again. The thread starts with the first name that is none of
 * numbers; if it cannot start, names stay unknown.
 */
#include "config.h"

#include <netdb.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

#include "clients/lib/client_priv.h"

enum row_state { ROW_EMPTY, ROW_WANTED, ROW_GOOD, ROW_BAD };

struct row {
	enum row_state	state;
	unsigned	turn;			/* which of the name's addresses, from 0 on and round again */
	struct sockaddr_storage sa;
	socklen_t	bytes;
};

struct resolver {
	struct mkv_client *c;
	pthread_mutex_t	lock;
	pthread_cond_t	cond;
	pthread_t	thread;
	int		started, quit;
	struct row	row[SERVERS_MAX];
};

static const struct addrinfo *
resolve_turn(const struct addrinfo *list, unsigned turn)
{
	const struct addrinfo *ai;
	unsigned n = 0;

	for (ai = list; ai != NULL; ai = ai->ai_next)
		n++;
	for (ai = list, turn = n == 0 ? 0 : turn % n; turn > 0; turn--)
		ai = ai->ai_next;
	return (ai);
}

static int
resolve(const struct server_conf *sc, int flags, struct row *row)
{
	struct addrinfo hints = { .ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM, .ai_flags = flags | AI_NUMERICSERV }, *list = NULL;
	const struct addrinfo *ai;

	row->state = ROW_BAD;
	if (getaddrinfo(sc->host, sc->port, &hints, &list) == 0 && (ai = resolve_turn(list, row->turn)) != NULL && ai->ai_addrlen <= sizeof(row->sa)) {
		memcpy(&row->sa, ai->ai_addr, ai->ai_addrlen);
		row->bytes = ai->ai_addrlen;
		row->state = ROW_GOOD;
	}
	if (list != NULL)
		freeaddrinfo(list);
	return (row->state == ROW_GOOD);
}

static int
resolver_next(const struct resolver *r)
{
	for (unsigned i = 0; i < r->c->cf.n_servers; i++)
		if (r->row[i].state == ROW_WANTED)
			return ((int)i);
	return (-1);
}

static void *
resolver_main(void *arg)
{
	struct resolver *r = arg;
	struct row got;
	int i;

	memset(&got, 0, sizeof(got));
	(void)pthread_mutex_lock(&r->lock);
	while (!r->quit) {
		if ((i = resolver_next(r)) < 0) {
			(void)pthread_cond_wait(&r->cond, &r->lock);
			continue;
		}
		got.turn = r->row[i].turn;
		(void)pthread_mutex_unlock(&r->lock);
		(void)resolve(&r->c->cf.server[i], 0, &got);
		(void)pthread_mutex_lock(&r->lock);
		r->row[i] = got;
		for (unsigned k = 0; k < r->c->cf.io_threads && !r->quit; k++)
			mkv_loop_names(&r->c->loop[k]);
	}
	(void)pthread_mutex_unlock(&r->lock);
	return (NULL);
}

/* Signals of the program are not for our threads. */
static void
resolver_start(struct resolver *r)
{
	sigset_t all, old;

	(void)sigfillset(&all);
	(void)pthread_sigmask(SIG_SETMASK, &all, &old);
	r->started = pthread_create(&r->thread, NULL, resolver_main, r) == 0;
	(void)pthread_sigmask(SIG_SETMASK, &old, NULL);
}

int
mkv_resolver_open(struct resolver **out, struct mkv_client *c)
{
	struct resolver *r = calloc(1, sizeof(*r));

	*out = r;
	if (r == NULL)
		return (MKV_E_NOMEM);
	r->c = c;
	(void)pthread_mutex_init(&r->lock, NULL);
	(void)pthread_cond_init(&r->cond, NULL);
	for (unsigned i = 0; i < c->cf.n_servers; i++)
		if (!resolve(&c->cf.server[i], AI_NUMERICHOST, &r->row[i]))
			r->row[i].state = ROW_EMPTY;
	return (0);
}

void
mkv_resolver_close(struct resolver **rp)
{
	struct resolver *r;

	if (*rp == NULL)
		return;
	TAKE(r, *rp);
	(void)pthread_mutex_lock(&r->lock);
	r->quit = 1;
	(void)pthread_cond_signal(&r->cond);
	(void)pthread_mutex_unlock(&r->lock);
	if (r->started)
		(void)pthread_join(r->thread, NULL);
	(void)pthread_cond_destroy(&r->cond);
	(void)pthread_mutex_destroy(&r->lock);
	free(r);
}

int
mkv_resolver_ask(struct resolver *r, unsigned idx, struct sockaddr_storage *sa, socklen_t *bytes)
{
	struct row *row = &r->row[idx];
	int res = MKV_E_AGAIN;

	(void)pthread_mutex_lock(&r->lock);
	if (row->state == ROW_GOOD) {
		*sa = row->sa;
		*bytes = row->bytes;
		res = 0;
	} else if (row->state == ROW_BAD) {
		row->state = ROW_EMPTY;
		res = MKV_E_UNREACHABLE;
	} else {
		row->state = ROW_WANTED;
		if (!r->started)
			resolver_start(r);
		if (!r->started)
			res = MKV_E_UNREACHABLE;
		(void)pthread_cond_signal(&r->cond);
	}
	(void)pthread_mutex_unlock(&r->lock);
	return (res);
}

/* Numeric ones never change. */
void
mkv_resolver_forget(struct resolver *r, unsigned idx)
{
	(void)pthread_mutex_lock(&r->lock);
	if (r->started && r->row[idx].state == ROW_GOOD && !resolve(&r->c->cf.server[idx], AI_NUMERICHOST, &(struct row){ 0 })) {
		r->row[idx].state = ROW_EMPTY;
		r->row[idx].turn++;
	}
	(void)pthread_mutex_unlock(&r->lock);
}
