/*
 * memkv-front: the ends of descriptors that clients passed, beside the loop. The last close of a file may take its time: a memfd gives its pages back, a socket lingers,
 * a file of FUSE or NFS is flushed to whoever serves it.
 *
 * Called on the loop, which has nothing to do with them from then on. What was a region is unmapped and closed by one thread, in order. A stranger, which was none, may hang for
 * ever, and so may a client's socket, with what was passed and never read: those have ASIDE_STRANGERS threads. The threads are the process's and end with it.
 * Fails: no thread to be had, or more than ASIDE_WAITING regions to close: it is done here and now. Where as many strangers wait, since all threads hang, one more stays open.
 */
#include "config.h"

#include "worker/front/front_priv.h"

#include <pthread.h>
#include <unistd.h>

#define ASIDE_STRANGERS	16u
#define ASIDE_WAITING	4096u
#define ASIDE_STACK	262144u		/* more than any machine's least: 128 KiB on arm64 */

static pthread_mutex_t aside_mutex = PTHREAD_MUTEX_INITIALIZER;		/* what follows */
static pthread_cond_t aside_more = PTHREAD_COND_INITIALIZER;
static int aside_runs;
static struct mkv_aside aside_wait[ASIDE_WAITING];
static unsigned aside_head, aside_n;

static pthread_mutex_t stranger_mutex = PTHREAD_MUTEX_INITIALIZER;	/* what follows */
static pthread_cond_t stranger_more = PTHREAD_COND_INITIALIZER;
static unsigned stranger_threads, stranger_idle;
static int stranger_wait[ASIDE_WAITING];
static unsigned stranger_head, stranger_n;

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
stranger_run(void *arg MKV_UNUSED)
{
	(void)pthread_mutex_lock(&stranger_mutex);
	for (;;) {
		int fd;

		stranger_idle++;
		while (stranger_n == 0)
			(void)pthread_cond_wait(&stranger_more, &stranger_mutex);
		stranger_idle--;
		fd = stranger_wait[stranger_head];
		stranger_head = (stranger_head + 1) % ASIDE_WAITING;
		stranger_n--;
		(void)pthread_mutex_unlock(&stranger_mutex);
		close(fd);
		(void)pthread_mutex_lock(&stranger_mutex);
	}
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
	int nobody;

	(void)pthread_mutex_lock(&stranger_mutex);
	if (stranger_n >= stranger_idle && stranger_threads < ASIDE_STRANGERS)
		stranger_threads += (unsigned)aside_thread(stranger_run, NULL);
	nobody = stranger_threads == 0;
	if (!nobody && stranger_n < ASIDE_WAITING)
		stranger_wait[(stranger_head + stranger_n++) % ASIDE_WAITING] = fd;
	(void)pthread_mutex_unlock(&stranger_mutex);
	(void)pthread_cond_signal(&stranger_more);
	if (nobody)
		close(fd);
}
