/*
 * A medium and its store for an offline command: locked, read and written by the engine itself. One process, one thread; owns the descriptor, the
 * queue, the medium and the engine until offline_close().
 *
 * The lock is the one a server takes: who has it, has the drive to itself. Nothing waits for a server that runs, which is to be stopped first; for the
 * end of one that has just stopped, everything does (PROBE_SETTLE_NS).
 */
#include "config.h"

#include "worker/drive/offline_priv.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "common/base/clock.h"
#include "common/base/err.h"
#include "common/base/os.h"
#include "worker/drive/probe_priv.h"

#define STORE_PUMP_NS	(5 * MKV_NS_PER_MS)
#define STORE_DEPTH	64u
#define STORE_PAGES	(64ull << 20)

static void
store_reply(void *arg, const struct mkv_call *call, const struct mkv_drv_rep *rep)
{
	(void)arg;
	(void)call;
	(void)rep;
}

static void *
store_buffer(void *arg, uint32_t client, uint64_t off, uint64_t bytes, int *buf_idx)
{
	(void)arg;
	(void)client;
	(void)off;
	(void)bytes;
	(void)buf_idx;
	return (NULL);
}

static void
store_peer(void *arg, uint32_t drive, const struct mkv_desc *d)
{
	(void)arg;
	(void)drive;
	(void)d;
}

static void
store_client_done(void *arg, uint32_t client)
{
	(void)arg;
	(void)client;
}

static void
store_readonly(void *arg, const char *why)
{
	struct offline_store *s = arg;

	snprintf(s->readonly, sizeof(s->readonly), "%s", why);
}

static int
store_pump(void *arg)
{
	struct offline_store *s = arg;

	return (s->media->ops->pump(s->media, mkv_now_ns() + STORE_PUMP_NS));
}

static const struct mkv_engine_ops store_ops = {
	.reply = store_reply, .buffer = store_buffer, .peer = store_peer, .client_done = store_client_done, .readonly = store_readonly, .pump = store_pump,
};

/* As probe_settled(). */
static int
store_lock(struct offline_store *s, const char *path)
{
	uint64_t until = mkv_now_ns() + PROBE_SETTLE_NS;
	int direct, r;

	for (;;) {
		if (s->fd < 0)
			s->fd = mkv_os_medium_open(path, &direct);
		r = s->fd < 0 ? s->fd : mkv_os_medium_lock(s->fd);
		if (r != MKV_E_LOCKED || mkv_now_ns() >= until)
			return (r);
		(void)nanosleep(&(struct timespec){ .tv_nsec = PROBE_AGAIN_NS }, NULL);
	}
}

int
offline_open(struct offline_store *s, const char *path, char *why, size_t n)
{
	struct mkv_ioq_opts qo = { .kind = MKV_IOQ_AUTO, .entries = 256, .depth_max = 1024, .threads = 2 };
	struct mkv_os_medium m;
	int r;

	memset(s, 0, sizeof(*s));
	s->fd = -1;
	r = store_lock(s, path);
	if (r == MKV_E_LOCKED) {
		snprintf(why, n, "%s is in use: stop the server that has it first (or unmount it, if it is no store)", path);
	} else if (r == 0 && (r = mkv_os_medium_query(s->fd, &m)) == 0 && (r = mkv_ioq_create(&s->q, &qo)) == 0) {
		s->bytes = m.bytes & ~4095ull;
		r = mkv_media_file_open(&s->media, s->q, MKV_FD(s->fd), s->bytes);
	}
	if (r != 0) {
		if (r != MKV_E_LOCKED)
			snprintf(why, n, "%s cannot be opened for writing: %s", path, mkv_err(r));
		offline_close(s);
		return (r);
	}
	return (0);
}

void
offline_close(struct offline_store *s)
{
	(void)mkv_engine_close(&s->e, 1);
	mkv_media_close(&s->media);
	mkv_ioq_destroy(&s->q);
	if (s->fd >= 0)
		close(s->fd);
	s->fd = -1;
}

struct store_io {
	struct mkv_mio	mio;
	int		done, res;
};

static void
store_on_io(struct mkv_mio *mio, int res)
{
	struct store_io *io = MKV_CONTAINER_OF(mio, struct store_io, mio);

	io->done = 1;
	io->res = res;
}

static int
store_wait(struct offline_store *s, struct store_io *io)
{
	while (!io->done) {
		int r = store_pump(s);

		MKV_ASSERT(r >= 0);			/* what the queue still has would come later into a frame that is gone */
	}
	return (io->res);
}

int
offline_write(struct offline_store *s, const void *buf, uint32_t bytes, uint64_t off)
{
	struct store_io io = { .mio = { .done = store_on_io } };

	s->media->ops->write(s->media, &io.mio, buf, bytes, off, -1);
	return (store_wait(s, &io));
}

int
offline_flush(struct offline_store *s)
{
	struct store_io io = { .mio = { .done = store_on_io } };

	s->media->ops->flush(s->media, &io.mio);
	return (store_wait(s, &io));
}

int
offline_zero(struct offline_store *s, uint64_t bytes, uint64_t off)
{
	uint32_t piece = 1u << 20;
	void *zero;
	int r = 0;

	if (posix_memalign(&zero, MKV_BLOCK, piece) != 0)
		return (MKV_E_NOMEM);
	memset(zero, 0, piece);
	for (uint64_t at = 0; at < bytes && r == 0; at += piece)
		r = offline_write(s, zero, (uint32_t)MKV_MIN(piece, bytes - at), off + at);
	free(zero);
	return (r);
}

int
offline_engine(struct offline_store *s, const char *name, char *why, size_t n)
{
	uint32_t epoch_seen;

	s->opts.media = s->media;
	s->opts.clock = &mkv_clock_os;
	s->opts.ops = &store_ops;
	s->opts.arg = s;
	s->opts.name = name;
	s->opts.offline = 1;
	s->opts.queue_depth = STORE_DEPTH;
	s->opts.page_cache_bytes = STORE_PAGES;
	s->opts.accepted_window_ns = MKV_NS_PER_SEC;
	s->opts.accepted_window_bytes = 1u << 20;
	s->opts.evict_high_pct = 100;
	s->opts.evict_low_pct = 99;
	return (mkv_engine_open(&s->e, &s->opts, &epoch_seen, why, n));
}

int
offline_engine_close(struct offline_store *s)
{
	int r = mkv_engine_close(&s->e, 0);

	return (s->readonly[0] != '\0' && r == 0 ? MKV_E_READONLY : r);
}
