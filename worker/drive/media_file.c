/*
 * Medium: a block device or a regular file behind a completion queue. Drive's loop thread. Owns its handle only.
 *
 * The queue decides how: io_uring with registered file and buffers, or pread and pwrite on helper threads. A short read or write is an error here:
 * the engine never asks beyond the end.
 * Discards are made by a thread of this file alone: neither queue has them, and one may take long. It shares struct file_discard, under its lock.
 */
#include "config.h"

#include <pthread.h>
#include <signal.h>
#include <stdlib.h>

#include "common/base/assert.h"
#include "common/base/clock.h"
#include "common/base/err.h"
#include "common/base/os.h"
#include "worker/drive/media.h"

#define MEDIA_FILE_MAGIC	0x3d1af11eu

enum discard_state { DISCARD_NONE, DISCARD_ASKED, DISCARD_ENDED };

struct file_discard {			/* lock: all but fd and punch, which never change */
	pthread_mutex_t	lock;
	pthread_cond_t	more;
	pthread_t	thread;
	int		fd, punch, running, stop, res;
	enum discard_state state;
	uint64_t	off, bytes;
};

struct media_file {
	struct mkv_media m;
	struct mkv_ioq	*q;
	int		file;
	struct mkv_list	flight;		/* mios, oldest first */
	struct file_discard discard;
};

static struct media_file *
file_of(struct mkv_media *m)
{
	MKV_CHECK_OBJ(m, MEDIA_FILE_MAGIC);
	return (MKV_CONTAINER_OF(m, struct media_file, m));
}

static void
file_on_io(struct mkv_io *io, int res)
{
	struct mkv_mio *mio = MKV_CONTAINER_OF(io, struct mkv_mio, io);

	mkv_list_remove(&mio->flight);
	if (res >= 0)
		res = (uint32_t)res == mio->bytes ? 0 : MKV_E_IO;
	mio->done(mio, res);
}

static void
file_begin(struct media_file *f, struct mkv_mio *mio, uint32_t bytes)
{
	mio->media = &f->m;
	mio->bytes = bytes;
	mio->io.done = file_on_io;
	mio->begin_ns = mkv_now_ns();
	mkv_list_init(&mio->flight);
	mkv_list_push_tail(&f->flight, &mio->flight);
}

static void
file_read(struct mkv_media *m, struct mkv_mio *mio, void *buf, uint32_t bytes, uint64_t off, int buf_idx)
{
	struct media_file *f = file_of(m);

	MKV_ASSERT(off + bytes <= m->total_bytes);
	file_begin(f, mio, bytes);
	mkv_ioq_read(f->q, &mio->io, f->file, buf, bytes, off, buf_idx);
}

static void
file_write(struct mkv_media *m, struct mkv_mio *mio, const void *buf, uint32_t bytes, uint64_t off, int buf_idx)
{
	struct media_file *f = file_of(m);

	MKV_ASSERT(off + bytes <= m->total_bytes);
	file_begin(f, mio, bytes);
	mkv_ioq_write(f->q, &mio->io, f->file, buf, bytes, off, buf_idx);
}

static void
file_flush(struct mkv_media *m, struct mkv_mio *mio)
{
	struct media_file *f = file_of(m);

	file_begin(f, mio, 0);
	mkv_ioq_flush(f->q, &mio->io, f->file);
}

static int
file_pump(struct mkv_media *m, uint64_t until_ns)
{
	return (mkv_ioq_run(file_of(m)->q, until_ns));
}

static void *
file_map(struct mkv_media *m, uint64_t off, uint64_t bytes)
{
	(void)m;
	(void)off;
	(void)bytes;
	return (NULL);
}

static uint64_t
file_oldest_ns(struct mkv_media *m)
{
	const struct media_file *f = file_of(m);

	return (mkv_list_empty(&f->flight) ? UINT64_MAX : MKV_CONTAINER_OF(f->flight.next, struct mkv_mio, flight)->begin_ns);
}

/* ---- discards ---- */

static void *
discard_thread(void *arg)
{
	struct media_file *f = arg;
	struct file_discard *d = &f->discard;
	int res;

	pthread_mutex_lock(&d->lock);
	while (!d->stop) {
		if (d->state != DISCARD_ASKED) {
			pthread_cond_wait(&d->more, &d->lock);
			continue;
		}
		pthread_mutex_unlock(&d->lock);
		res = d->punch ? mkv_os_punch(d->fd, d->off, d->bytes) : mkv_os_discard(d->fd, d->off, d->bytes);
		pthread_mutex_lock(&d->lock);
		d->res = res;
		d->state = DISCARD_ENDED;
		mkv_ioq_wake(f->q);		/* under the lock: close() waits for it before the queue goes */
	}
	pthread_mutex_unlock(&d->lock);
	return (NULL);
}

/* Signals are the loop thread's business. */
static int
discard_start(struct media_file *f)
{
	struct file_discard *d = &f->discard;
	sigset_t all, old;

	if (d->running)
		return (0);
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	d->running = pthread_create(&d->thread, NULL, discard_thread, f) == 0;
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	return (d->running ? 0 : MKV_E_NOMEM);
}

static int
file_discard(struct mkv_media *m, uint64_t off, uint64_t bytes)
{
	struct media_file *f = file_of(m);
	struct file_discard *d = &f->discard;
	int r = discard_start(f);

	MKV_ASSERT(off + bytes <= m->total_bytes);
	if (r != 0)
		return (r);
	pthread_mutex_lock(&d->lock);
	MKV_ASSERT(d->state == DISCARD_NONE);
	d->off = off;
	d->bytes = bytes;
	d->state = DISCARD_ASKED;
	pthread_cond_signal(&d->more);
	pthread_mutex_unlock(&d->lock);
	return (0);
}

static int
file_discard_end(struct mkv_media *m, int *res)
{
	struct file_discard *d = &file_of(m)->discard;
	int ended;

	pthread_mutex_lock(&d->lock);
	MKV_ASSERT(d->state != DISCARD_NONE);
	ended = d->state == DISCARD_ENDED;
	*res = d->res;
	d->state = ended ? DISCARD_NONE : d->state;
	pthread_mutex_unlock(&d->lock);
	return (ended);
}

static void
discard_stop(struct file_discard *d)
{
	pthread_mutex_lock(&d->lock);
	d->stop = 1;
	pthread_cond_signal(&d->more);
	pthread_mutex_unlock(&d->lock);
	if (d->running)
		pthread_join(d->thread, NULL);
	pthread_cond_destroy(&d->more);
	pthread_mutex_destroy(&d->lock);
}

static void
file_close(struct mkv_media *m)
{
	struct media_file *f = file_of(m);

	discard_stop(&f->discard);
	m->magic = 0;
	free(f);
}

static const struct mkv_media_ops file_ops = {
	.read = file_read, .write = file_write, .flush = file_flush, .pump = file_pump, .map = file_map, .close = file_close, .oldest_ns = file_oldest_ns,
};

static const struct mkv_media_ops file_discard_ops = {
	.read = file_read, .write = file_write, .flush = file_flush, .pump = file_pump, .map = file_map, .close = file_close, .oldest_ns = file_oldest_ns,
	.discard = file_discard, .discard_end = file_discard_end,
};

int
mkv_media_file_open(struct mkv_media **out, struct mkv_ioq *q, int file, uint64_t bytes)
{
	struct media_file *f = calloc(1, sizeof(*f));

	*out = NULL;
	if (f == NULL)
		return (MKV_E_NOMEM);
	f->m.magic = MEDIA_FILE_MAGIC;
	f->m.ops = &file_ops;
	f->m.name = mkv_ioq_name(q)[0] == 'p' ? "threads" : "io_uring";
	f->m.total_bytes = bytes & ~4095ull;
	f->q = q;
	f->file = file;
	mkv_list_init(&f->flight);
	pthread_mutex_init(&f->discard.lock, NULL);
	pthread_cond_init(&f->discard.more, NULL);
	*out = &f->m;
	return (0);
}

void
mkv_media_file_may_discard(struct mkv_media *m, int fd, int punch)
{
	struct media_file *f = file_of(m);

	f->discard.fd = fd;
	f->discard.punch = punch;
	m->ops = &file_discard_ops;
}

void
mkv_media_close(struct mkv_media **m)
{
	if (*m != NULL)
		(*m)->ops->close(*m);
	*m = NULL;
}
