/*
 * Driver "files": one file per key below a directory, as the file back ends of inference engines do it: written beside, renamed into place.
 * Buffered through the page cache, or O_DIRECT. File calls block, so a pool of threads (one for each request in flight) makes them.
 *
 * The bench thread and the pool share two queues under one lock. A miss is ENOENT; every other failure is an error of that request.
 * O_DIRECT moves whole blocks: the file is written rounded up to 4 KiB, then cut to its size.
 */
#include "config.h"
#include "bench/driver.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "common/base/assert.h"
#include "common/base/clock.h"
#include "common/base/err.h"

#define FILES_THREADS_MAX	64u
#define FILES_PATH_MAX		512u
#define FILES_FAN		256u		/* subdirectories */

#ifndef O_DIRECT
#define O_DIRECT		0		/* where there is none, --files-direct is refused */
#endif

struct files_queue {
	struct bench_io	*head, **tail;
};

struct files_drv {
	struct bench_drv	base;
	char			dir[256];
	int			direct, sync;
	pthread_mutex_t		lock;
	pthread_cond_t		work, finished;
	struct files_queue	todo, done;
	int			quit;
	unsigned		n_threads;
	pthread_t		thread[FILES_THREADS_MAX];
};

static void
files_queue_init(struct files_queue *q)
{
	q->head = NULL;
	q->tail = &q->head;
}

static void
files_push(struct files_queue *q, struct bench_io *io)
{
	io->next = NULL;
	*q->tail = io;
	q->tail = &io->next;
}

static struct bench_io *
files_pop(struct files_queue *q)
{
	struct bench_io *io = q->head;

	if (io != NULL) {
		q->head = io->next;
		if (q->head == NULL)
			q->tail = &q->head;
	}
	return (io);
}

/* DIR/xx/name: bytes that file names cannot have become %XX. 0, or -1 when it gets too long. */
static int
files_path(const struct files_drv *d, const struct mkv_key *k, char path[FILES_PATH_MAX])
{
	const unsigned char *p = k->data;
	unsigned sum = 0;
	size_t n;

	for (size_t i = 0; i < k->bytes; i++)
		sum = sum * 31 + p[i];
	n = (size_t)snprintf(path, FILES_PATH_MAX, "%s/%02x/", d->dir, sum % FILES_FAN);
	for (size_t i = 0; i < k->bytes; i++) {
		if (n + 8 > FILES_PATH_MAX)
			return (-1);
		if (p[i] == '/' || p[i] == '%' || p[i] < ' ')
			n += (size_t)snprintf(path + n, FILES_PATH_MAX - n, "%%%02X", p[i]);
		else
			path[n++] = (char)p[i];
	}
	path[n] = '\0';
	return (0);
}

static int
files_open(const struct files_drv *d, const char *path, int flags)
{
	int fd = open(path, flags | O_CLOEXEC | (d->direct ? O_DIRECT : 0), 0600);

	return (fd >= 0 ? fd : errno == ENOENT && (flags & O_CREAT) == 0 ? MKV_ERR_MISS : mkv_err_from_errno(errno));
}

static int
files_write_all(int fd, const char *p, size_t bytes)
{
	ssize_t n;

	for (size_t done = 0; done < bytes; done += (size_t)n) {
		n = pwrite(fd, p + done, bytes - done, (off_t)done);
		if (n <= 0)
			return (n == 0 ? MKV_ERR_IO : mkv_err_from_errno(errno));
	}
	return (0);
}

static int
files_put(const struct files_drv *d, const struct bench_io *io, const char *path)
{
	char tmp[FILES_PATH_MAX + 32];
	size_t bytes = d->direct ? MKV_ALIGN_UP(io->bytes, 4096) : io->bytes;
	int fd, r;

	snprintf(tmp, sizeof(tmp), "%s.%p", path, (const void *)io);
	fd = files_open(d, tmp, O_WRONLY | O_CREAT | O_TRUNC);
	if (fd < 0)
		return (fd);
	r = files_write_all(fd, io->buf, bytes);
	if (r == 0 && bytes != io->bytes && ftruncate(fd, (off_t)io->bytes) != 0)
		r = mkv_err_from_errno(errno);
	if (r == 0 && d->sync && fdatasync(fd) != 0)
		r = mkv_err_from_errno(errno);
	close(fd);
	if (r == 0 && rename(tmp, path) != 0)
		r = mkv_err_from_errno(errno);
	if (r != 0)
		unlink(tmp);
	return (r);
}

static int64_t
files_get(const struct files_drv *d, const struct bench_io *io, const char *path)
{
	struct stat st;
	size_t done = 0;
	ssize_t n;
	int fd = files_open(d, path, O_RDONLY);

	if (fd < 0)
		return (fd);
	if (fstat(fd, &st) != 0 || (uint64_t)st.st_size > io->bytes) {
		close(fd);
		return (MKV_ERR_TOOBIG);
	}
	while (done < io->bytes && (n = pread(fd, (char *)io->buf + done, io->bytes - done, (off_t)done)) != 0) {
		if (n < 0) {
			n = mkv_err_from_errno(errno);
			close(fd);
			return (n);
		}
		done += (size_t)n;
		if (d->direct && done % 4096 != 0)
			break;				/* the end of the file */
	}
	close(fd);
	return ((int64_t)done);
}

static void
files_run(const struct files_drv *d, struct bench_io *io)
{
	char path[FILES_PATH_MAX];
	struct stat st;
	int64_t found = 0;
	int there;

	for (unsigned i = 0; i < io->n_keys; i++) {
		if (files_path(d, &io->keys[i], path) != 0) {
			io->result = MKV_ERR_TOOBIG;
			return;
		}
		if (io->op == BENCH_PUT || io->op == BENCH_GET) {
			io->result = io->op == BENCH_PUT ? files_put(d, io, path) : files_get(d, io, path);
			return;
		}
		there = io->op == BENCH_DELETE ? unlink(path) == 0 : stat(path, &st) == 0;
		found += there;
		if (io->present != NULL)
			io->present[i] = (uint8_t)there;
		if (!there && io->op == BENCH_MATCH)
			break;
	}
	io->result = found;
}

static void *
files_loop(void *arg)
{
	struct files_drv *d = arg;
	struct bench_io *io;

	pthread_mutex_lock(&d->lock);
	while (!d->quit) {
		if ((io = files_pop(&d->todo)) == NULL) {
			pthread_cond_wait(&d->work, &d->lock);
			continue;
		}
		pthread_mutex_unlock(&d->lock);
		files_run(d, io);
		pthread_mutex_lock(&d->lock);
		files_push(&d->done, io);
		pthread_cond_signal(&d->finished);
	}
	pthread_mutex_unlock(&d->lock);
	return (NULL);
}

static void
files_close(struct bench_drv *base)
{
	struct files_drv *d = (struct files_drv *)base;

	pthread_mutex_lock(&d->lock);
	d->quit = 1;
	pthread_cond_broadcast(&d->work);
	pthread_mutex_unlock(&d->lock);
	for (unsigned i = 0; i < d->n_threads; i++)
		pthread_join(d->thread[i], NULL);
	pthread_cond_destroy(&d->work);
	pthread_cond_destroy(&d->finished);
	pthread_mutex_destroy(&d->lock);
	free(d);
}

/* The directory and its subdirectories, made if they are not there. */
static int
files_dirs(const struct files_drv *d, char *why, size_t why_bytes)
{
	char path[sizeof(d->dir) + 8];

	for (unsigned i = 0; i <= FILES_FAN; i++) {
		if (i == 0)
			snprintf(path, sizeof(path), "%s", d->dir);
		else
			snprintf(path, sizeof(path), "%s/%02x", d->dir, i - 1);
		if (mkdir(path, 0700) == 0 || errno == EEXIST)
			continue;
		snprintf(why, why_bytes, "%s: %s; --servers names a directory for the files", path, strerror(errno));
		return (MKV_ERR_SYSTEM);		/* what is not there is no miss here */
	}
	return (0);
}

static int
files_start(struct bench_drv **out, const struct bench_drv_opts *o, char *why, size_t why_bytes)
{
	struct files_drv *d;
	pthread_condattr_t mono;
	int r;

	if (o->servers == NULL || strlen(o->servers) >= sizeof(d->dir) || (o->files_direct && O_DIRECT == 0)) {
		snprintf(why, why_bytes, o->servers == NULL ? "files needs --servers DIRECTORY" : "files cannot do that here");
		return (MKV_ERR_CONFIG);
	}
	d = calloc(1, sizeof(*d));
	if (d == NULL)
		return (MKV_ERR_NOMEM);
	d->base.ops = &bench_driver_files;
	snprintf(d->dir, sizeof(d->dir), "%s", o->servers);
	d->direct = o->files_direct;
	d->sync = o->files_sync;
	files_queue_init(&d->todo);
	files_queue_init(&d->done);
	pthread_mutex_init(&d->lock, NULL);
	pthread_cond_init(&d->work, NULL);
	pthread_condattr_init(&mono);
	pthread_condattr_setclock(&mono, CLOCK_MONOTONIC);
	pthread_cond_init(&d->finished, &mono);
	pthread_condattr_destroy(&mono);
	r = files_dirs(d, why, why_bytes);
	for (; r == 0 && d->n_threads < MKV_MIN(o->concurrency, FILES_THREADS_MAX); d->n_threads++)
		if (pthread_create(&d->thread[d->n_threads], NULL, files_loop, d) != 0) {
			snprintf(why, why_bytes, "no thread for the file calls");
			r = MKV_ERR_SYSTEM;
			break;
		}
	if (r != 0) {
		files_close(&d->base);
		return (r);
	}
	*out = &d->base;
	return (0);
}

static int
files_submit(struct bench_drv *base, struct bench_io *io)
{
	struct files_drv *d = (struct files_drv *)base;

	io->reason = MKV_REASON_NONE;
	pthread_mutex_lock(&d->lock);
	files_push(&d->todo, io);
	pthread_cond_signal(&d->work);
	pthread_mutex_unlock(&d->lock);
	return (0);
}

static void
files_wait(struct bench_drv *base, uint64_t timeout_us)
{
	struct files_drv *d = (struct files_drv *)base;
	uint64_t until = mkv_now_ns() + timeout_us * MKV_NS_PER_US;
	struct timespec ts = { (time_t)(until / MKV_NS_PER_SEC), (long)(until % MKV_NS_PER_SEC) };

	pthread_mutex_lock(&d->lock);
	while (d->done.head == NULL && timeout_us > 0)
		if (pthread_cond_timedwait(&d->finished, &d->lock, &ts) != 0)
			break;
	pthread_mutex_unlock(&d->lock);
}

static unsigned
files_drain(struct bench_drv *base, struct bench_io **out, unsigned max)
{
	struct files_drv *d = (struct files_drv *)base;
	unsigned n = 0;

	pthread_mutex_lock(&d->lock);
	while (n < max && (out[n] = files_pop(&d->done)) != NULL)
		n++;
	pthread_mutex_unlock(&d->lock);
	return (n);
}

const struct bench_driver bench_driver_files = {
	.name = "files", .keeps_values = 1, .open = files_start, .close = files_close, .submit = files_submit, .wait = files_wait,
	.drain = files_drain
};
