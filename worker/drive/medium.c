/*
 * Opening a drive's medium: create or find it, wait for its lock, reserve its space. Drive's loop thread, in start(), before the jail.
 *
 * Nothing is read before the lock is ours: a former process's writes may still land, seconds after its end. The lock is tried every 20 ms while
 * the supervisor is answered; how long that may take is the supervisor's business. Only then DRAINED is said.
 */
#include "config.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "common/base/clock.h"
#include "common/base/err.h"
#include "common/base/log.h"
#include "common/base/os.h"
#include "common/base/params.h"
#include "worker/drive/drive.h"
#include "worker/drive/layout.h"

#define MEDIUM_RETRY_NS	(20 * MKV_NS_PER_MS)

/* File mode: the file is made if it is not there; its size comes after the lock. */
static int
medium_create(struct drive *d)
{
	struct mkv_worker *w = d->w;
	int fd = open(w->media, O_RDWR | O_CREAT | O_CLOEXEC | O_NOCTTY | O_NOFOLLOW, 0600);

	if (fd < 0)
		return (mkv_worker_fail(w, 1, "%s cannot be opened: %s", w->media, strerror(errno)));
	close(fd);
	return (0);
}

/* Open and lock, again and again: block devices are busy at open, files at flock. */
static int
medium_lock(struct drive *d)
{
	struct mkv_worker *w = d->w;
	int direct = 0, r;

	for (;;) {
		if (d->fd < 0 && (d->fd = mkv_os_medium_open(w->media, &direct)) < 0 && d->fd != MKV_E_LOCKED)
			return (mkv_worker_fail(w, 1, "%s cannot be opened: %s", w->media, mkv_err(d->fd)));
		if (d->fd >= 0) {
			if ((r = mkv_os_medium_lock(d->fd)) == 0)
				break;
			if (r != MKV_E_LOCKED)
				return (mkv_worker_fail(w, 0, "%s cannot be locked: %s", w->media, mkv_err(r)));
		}
		if ((r = mkv_worker_pump(w, mkv_now_ns() + MEDIUM_RETRY_NS, NULL)) != 0)
			return (r);
	}
	mkv_log(MKV_EV_DRIVE_OPENED, "media=%s direct=%d", w->media, direct);
	mkv_worker_drained_own(w);
	return (0);
}

/* Does a superblock of ours lie at either place? Then its size is not ours to change. */
static int
medium_is_ours(int fd)
{
	static const uint64_t at[] = { MKV_SB_OFF_A, MKV_SB_OFF_B };
	struct mkv_sb *sb;
	int ours = 0;

	if (posix_memalign((void **)&sb, MKV_BLOCK, MKV_BLOCK) != 0)
		return (1);
	for (unsigned i = 0; i < MKV_ARRAY_LEN(at); i++)
		ours |= pread(fd, sb, MKV_BLOCK, (off_t)at[i]) == (ssize_t)MKV_BLOCK && sb->magic == MKV_SB_MAGIC;
	free(sb);
	return (ours);
}

static int
medium_reserve(struct drive *d, uint64_t bytes)
{
	struct mkv_worker *w = d->w;
	struct statvfs fs;
	int r = mkv_os_preallocate(d->fd, bytes);

	if (r == 0)
		return (0);
	if (r == MKV_E_NOSPACE && fstatvfs(d->fd, &fs) == 0)
		return (mkv_worker_fail(w, 1, "%s needs %" PRIu64 " bytes and its filesystem has %" PRIu64 " left: lower max_size, or choose another place",
		    w->media, bytes, (uint64_t)fs.f_bavail * fs.f_frsize));
	if (r == MKV_E_UNSUPPORTED)
		return (mkv_worker_fail(w, 1, "%s: this filesystem cannot reserve space for a file: choose another place", w->media));
	return (mkv_worker_fail(w, 1, "%s: %" PRIu64 " bytes cannot be reserved: %s", w->media, bytes, mkv_err(r)));
}

/* A file has max_size bytes, all of them there; a device has what it has. */
static int
medium_size(struct drive *d)
{
	struct mkv_worker *w = d->w;
	struct mkv_os_medium m;
	int r = mkv_os_medium_query(d->fd, &m);
	uint64_t want = w->max_size & ~(uint64_t)(MKV_BLOCK - 1);

	if (r != 0)
		return (mkv_worker_fail(w, 0, "%s: %s", w->media, mkv_err(r)));
	if (m.sector_bytes > MKV_BLOCK)
		return (mkv_worker_fail(w, 1, "%s has sectors of %u bytes; at most %u are supported", w->media, m.sector_bytes, MKV_BLOCK));
	d->arena_bytes = m.bytes;
	d->is_block = m.is_block;
	if (m.is_block || m.bytes == want || want == 0)
		return (0);
	if (m.bytes > 0 && medium_is_ours(d->fd))
		return (mkv_worker_fail(w, 1, "%s has %" PRIu64 " bytes and max_size is %" PRIu64 ": a store does not change its size; set max_size to %"
		    PRIu64 ", or remove the file to begin anew", w->media, m.bytes, want, m.bytes));
	if (m.bytes > want)
		return (mkv_worker_fail(w, 1, "%s has %" PRIu64 " bytes, more than max_size (%" PRIu64 "), and is not a store: refused", w->media, m.bytes,
		    want));
	d->arena_bytes = want;
	return (medium_reserve(d, want));
}

int
drive_medium_open(struct drive *d)
{
	struct mkv_worker *w = d->w;
	int r;

	if (w->params->storage_mode == MKV_STORAGE_MEMORY) {
		if (d->arena_fd < 0)
			return (mkv_worker_fail(w, 1, "memory mode, and no arena came"));
		mkv_worker_drained_own(w);	/* no I/O outlives the process */
		return (0);
	}
	if (w->media[0] == '\0')
		return (mkv_worker_fail(w, 1, "no medium is configured"));
	if (w->params->storage_mode == MKV_STORAGE_FILE && (r = medium_create(d)) != 0)
		return (r);
	if ((r = medium_lock(d)) != 0)
		return (r);
	return (medium_size(d));
}

int
drive_medium_punched(const struct drive *d)
{
	const struct mkv_params *p = d->w->params;

	return (p->storage_mode != MKV_STORAGE_MEMORY && !d->is_block && p->storage_trim == MKV_STORAGE_TRIM_PUNCH);
}

/* Free space of a device is discarded; a file keeps its blocks, for they are what was promised, unless somebody chose otherwise. */
static void
medium_may_discard(struct drive *d)
{
	if (d->w->params->storage_trim == MKV_STORAGE_TRIM_OFF || (!d->is_block && !drive_medium_punched(d)))
		return;
	mkv_media_file_may_discard(d->media, d->fd, drive_medium_punched(d));
	if (drive_medium_punched(d))
		mkv_log(MKV_EV_DRIVE_TRIM_PUNCH, "media=%s", d->w->media);
}

int
drive_medium_media(struct drive *d)
{
	int r;

	if (d->w->params->storage_mode == MKV_STORAGE_MEMORY)
		return (mkv_media_memory_open(&d->media, d->arena_fd, d->arena_bytes, d->meta_fd, d->meta_bytes));
	if ((d->file = mkv_ioq_register_file(d->w->q, d->fd)) < 0)
		return (d->file);
	if ((r = mkv_media_file_open(&d->media, d->w->q, d->file, d->arena_bytes)) == 0)
		medium_may_discard(d);
	return (r);
}
