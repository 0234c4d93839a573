/*
 * memkv-front: the ends of descriptors that clients passed, beside the loop. The last close of a file may take its time: a memfd gives its pages back, a socket lingers,
 * a file of FUSE or NFS is flushed to whoever serves it.
 *
 * Called on the loop, which has nothing to do with them from then on. What was a region is unmapped and closed by one thread, in order; a stranger, which was none, by a thread
 * of its own, since it may hang for ever: where ASIDE_STRANGERS do, no session may pass a descriptor (mkv_close_strangers()). The threads are the process's and end with it.
 * Fails: no thread to be had, or more than ASIDE_WAITING to close: it is done here and now.
 */
#include "config.h"

#include "worker/front/front_priv.h"

#include <pthread.h>
#include <stdatomic.h>
#include <unistd.h>

#define ASIDE_STRANGERS	16u
#define ASIDE_WAITING	4096u
#define ASIDE_STACK	65536u

static pthread_mutex_t aside_mutex = PTHREAD_MUTEX_INITIALIZER;		/* what follows */
static pthread_cond_t aside_more = PTHREAD_COND_INITIALIZER;
static int aside_runs;
static struct mkv_aside aside_wait[ASIDE_WAITING];
static unsigned aside_head, aside_n;

static _Atomic unsigned aside_strangers;

static int
aside_thread(void *(*fn)(void *), void *arg)
{
	pthread_attr_t a;
	pthread_t t;
	int r;

	if (pthread_attr_init(&a) != 0)
		return (0);
	r = pthread_attr_setdetachstate(&a, PTHREAD_CREATE_DETACHED);
	if (r == 0)
		r = pthread_attr_setstacksize(&a, ASIDE_STACK);
	if (r == 0)
		r = pthread_create(&t, &a, fn, arg);
	(void)pthread_attr_destroy(&a);
	return (r == 0);
}

static void
aside_end(const struct mkv_aside *a)
{
	if (a->base != NULL)
		mkv_os_shm_unmap(a->base, a->bytes);
	close(a->fd);
}

static void *
aside_run(void *arg MKV_UNUSED)
{
	(void)pthread_mutex_lock(&aside_mutex);
	for (;;) {
		struct mkv_aside a;

		while (aside_n == 0)
			(void)pthread_cond_wait(&aside_more, &aside_mutex);
		a = aside_wait[aside_head];
		aside_head = (aside_head + 1) % ASIDE_WAITING;
		aside_n--;
		(void)pthread_mutex_unlock(&aside_mutex);
		aside_end(&a);
		(void)pthread_mutex_lock(&aside_mutex);
	}
	return (NULL);
}

static void *
aside_stranger(void *arg)
{
	close((int)(intptr_t)arg);
	(void)atomic_fetch_sub_explicit(&aside_strangers, 1, memory_order_relaxed);
	return (NULL);
}

void
mkv_close_aside(const struct mkv_aside *a)
{
	int took = 0;

	(void)pthread_mutex_lock(&aside_mutex);
	if (!aside_runs)
		aside_runs = aside_thread(aside_run, NULL);
	if (aside_runs && aside_n < ASIDE_WAITING) {
		aside_wait[(aside_head + aside_n++) % ASIDE_WAITING] = *a;
		took = 1;
	}
	(void)pthread_mutex_unlock(&aside_mutex);
	(void)pthread_cond_signal(&aside_more);
	if (!took)
		aside_end(a);
}

void
mkv_close_stranger(int fd)
{
	(void)atomic_fetch_add_explicit(&aside_strangers, 1, memory_order_relaxed);
	if (aside_thread(aside_stranger, (void *)(intptr_t)fd))
		return;
	(void)atomic_fetch_sub_explicit(&aside_strangers, 1, memory_order_relaxed);
	close(fd);
}

int
mkv_close_strangers(void)
{
	return (atomic_load_explicit(&aside_strangers, memory_order_relaxed) >= ASIDE_STRANGERS);
}
