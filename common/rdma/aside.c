/*
 * Calls into the kernel that may sleep, made beside the hub's thread. With RoCE the kernel asks for the far end's hardware address inside the call that makes an address
 * handle, or that moves a queue pair to RTR, and waits up to a second for somebody who does not answer: nobody else of the thread may wait with it.
 *
 *	hub's thread: give --> todo --> one of a few threads: call() --> done --> hub's thread, from mkv_rdma_hub_poll(): done()
 *
 * Owns its threads. They are made when there is something to do, so after the process has entered its jail; until then nothing but a descriptor is there. A job is its
 * giver's memory, which must stay until its done() was called. Fails: no thread can be made, or too many jobs are out: the job is not taken.
 */
#include "config.h"

#include <signal.h>
#include <unistd.h>

#include "common/base/assert.h"
#include "common/base/err.h"
#include "common/base/os.h"
#include "common/rdma/hub_priv.h"

int
hub_aside_init(struct mkv_rdma_hub *h)
{
	struct hub_aside *a = &h->aside;

	mkv_list_init(&a->todo);
	mkv_list_init(&a->done);
	a->fd = a->ring_fd = -1;
	(void)pthread_mutex_init(&a->mutex, NULL);
	(void)pthread_cond_init(&a->more, NULL);
	return (h->conf.aside ? mkv_os_bell_create(&a->fd, &a->ring_fd) : 0);
}

static void *
aside_main(void *arg)
{
	struct hub_aside *a = arg;
	struct mkv_list *l;

	(void)pthread_mutex_lock(&a->mutex);
	for (;;) {
		while ((l = mkv_list_pop(&a->todo)) == NULL && !a->stop) {
			a->idle++;
			(void)pthread_cond_wait(&a->more, &a->mutex);
			a->idle--;
		}
		if (l == NULL)
			break;
		if (!a->stop) {
			(void)pthread_mutex_unlock(&a->mutex);
			MKV_CONTAINER_OF(l, struct hub_job, link)->call(MKV_CONTAINER_OF(l, struct hub_job, link));
			(void)pthread_mutex_lock(&a->mutex);
		}
		mkv_list_push_tail(&a->done, l);
		/* Release: with the acquire in hub_aside_turn() the list is what it says. */
		atomic_store_explicit(&a->news, 1, memory_order_release);
		mkv_os_bell_ring(a->ring_fd);
	}
	(void)pthread_mutex_unlock(&a->mutex);
	return (NULL);
}

/* Signals of the program are not for it. */
static int
aside_thread(struct hub_aside *a)
{
	sigset_t all, old;
	int made;

	(void)sigfillset(&all);
	(void)pthread_sigmask(SIG_SETMASK, &all, &old);
	made = pthread_create(&a->thread[a->n_threads], NULL, aside_main, a) == 0;
	(void)pthread_sigmask(SIG_SETMASK, &old, NULL);
	a->n_threads += (unsigned)made;
	return (made);
}

int
hub_aside_give(struct mkv_rdma_hub *h, struct hub_job *j)
{
	struct hub_aside *a = &h->aside;
	int ok;

	MKV_ASSERT(h->conf.aside);
	if (a->out == ASIDE_JOBS_MOST)
		return (MKV_E_BUSY);
	(void)pthread_mutex_lock(&a->mutex);
	ok = a->idle > 0 || (a->n_threads < ASIDE_THREADS && aside_thread(a)) || a->n_threads > 0;
	if (ok) {
		mkv_list_push_tail(&a->todo, &j->link);
		(void)pthread_cond_signal(&a->more);
		a->out++;
	}
	(void)pthread_mutex_unlock(&a->mutex);
	return (ok ? 0 : MKV_E_NOMEM);
}

void
hub_aside_turn(struct mkv_rdma_hub *h)
{
	struct hub_aside *a = &h->aside;
	struct mkv_list now, *l;

	/* Acquire: pairs with the release in aside_main(). */
	if (!hub_aside_due(h) || !atomic_exchange_explicit(&a->news, 0, memory_order_acquire))
		return;
	mkv_os_bell_clear(a->fd);
	mkv_list_init(&now);
	(void)pthread_mutex_lock(&a->mutex);
	while ((l = mkv_list_pop(&a->done)) != NULL)
		mkv_list_push_tail(&now, l);
	(void)pthread_mutex_unlock(&a->mutex);
	while ((l = mkv_list_pop(&now)) != NULL) {
		struct hub_job *j = MKV_CONTAINER_OF(l, struct hub_job, link);

		a->out--;
		j->done(j);
	}
}

/* What is called ends first, which may take a second; what waits is not called any more, and its result is what its giver set before. */
void
hub_aside_fini(struct mkv_rdma_hub *h)
{
	struct hub_aside *a = &h->aside;

	(void)pthread_mutex_lock(&a->mutex);
	a->stop = 1;
	(void)pthread_cond_broadcast(&a->more);
	(void)pthread_mutex_unlock(&a->mutex);
	for (unsigned i = 0; i < a->n_threads; i++)
		MKV_ASSERT(pthread_join(a->thread[i], NULL) == 0);
	hub_aside_turn(h);
	MKV_ASSERT(a->out == 0);
	if (a->fd >= 0) {
		(void)close(a->fd);
		(void)close(a->ring_fd);
	}
	(void)pthread_cond_destroy(&a->more);
	(void)pthread_mutex_destroy(&a->mutex);
}

int
mkv_rdma_hub_aside_fd(const struct mkv_rdma_hub *h)
{
	MKV_CHECK_OBJ(h, HUB_MAGIC);
	return (h->aside.fd);
}
