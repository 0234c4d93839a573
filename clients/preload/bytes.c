/*
 * What an open object holds: bytes between the memfd, the store and the program's memory, and whether they have changed.
 *
 * Any thread of the program; o->mutex is held over each transfer of the object. An object that is only read is fetched in blocks, as they are asked
 * for, and all of them are of one put: bytes of another are never put beside them (ESTALE). A long read goes from the store to the program's memory,
 * past the memfd. What may be written is in the memfd as a whole.
 * Fails: the store's errors, and memory. A commit that fails leaves the object dirty.
 */
#include "config.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "clients/preload/object_priv.h"

/* The clock of a memfd's mtime ticks every 10 ms at worst: a write so soon after a commit may leave no trace in it. */
#define TICK_NS		10000000ll
/* What the server checks as one: less costs it as much. */
#define BLOCK_BYTES	65536u
/* So much in advance hides the time of a request, and is little to throw away. */
#define AHEAD_BLOCKS_MAX	128u
/* A read this long is worth a request of its own. */
#define STRAIGHT_MIN	(1u << 20)
/* An object that is too small for a head and such a read is fetched whole: a request costs as much as its bytes. */
#define WHOLE_BYTES	(STRAIGHT_MIN + BLOCK_BYTES)
/* The kernel moves no more than a little less than 2 GiB in a call. */
#define PREAD_MAX	(1u << 30)

/* ---- Clean or dirty ----------------------------------------------------------------------------------------------------------- */

static bool
is_recent(const struct stat *st)
{
	struct timespec now;

	(void)clock_gettime(CLOCK_REALTIME, &now);
	return ((now.tv_sec - st->st_mtim.tv_sec) * 1000000000ll + (now.tv_nsec - st->st_mtim.tv_nsec) < 2 * TICK_NS);
}

void
mkv_pl_bytes_seen(struct mkv_pl_object *o)
{
	struct stat st;

	if (mkv_pl_inner_stat(o, &st) != 0)
		return;
	o->seen_mtime = st.st_mtim;
	o->seen_size = st.st_size;
	o->seen_close = is_recent(&st);
}

void
mkv_pl_object_settle(struct mkv_pl_object *o)
{
	struct timespec rest = { .tv_nsec = 2 * TICK_NS };
	struct stat st;

	if (o->writable && o->streams != 0 && !o->foreign && mkv_pl_inner_stat(o, &st) == 0 && is_recent(&st))
		(void)nanosleep(&rest, NULL);
}

/* Has a stream written to it since? In doubt yes, but not for what another process has begun. */
static bool
has_changed(const struct mkv_pl_object *o)
{
	struct stat st;

	if (mkv_pl_inner_stat(o, &st) != 0)
		return (false);
	return (st.st_size != o->seen_size || st.st_mtim.tv_sec != o->seen_mtime.tv_sec || st.st_mtim.tv_nsec != o->seen_mtime.tv_nsec ||
	    (o->seen_close && !o->foreign));
}

static bool
is_dirty(const struct mkv_pl_object *o)
{
	if (!o->writable || o->gone)
		return (false);
	return (o->dirty || (o->mapped_writable && !o->foreign) || (o->streams != 0 && has_changed(o)));
}

void
mkv_pl_object_mapped(struct mkv_pl_object *o, bool writable)
{
	mkv_pl_object_lock(o);
	o->mapped = true;
	o->mapped_writable = o->mapped_writable || (writable && o->writable);
	mkv_pl_object_unlock(o);
}

void
mkv_pl_bytes_stream_end(struct mkv_pl_object *o)
{
	o->dirty = is_dirty(o);
	o->streams -= o->streams != 0;
}

void
mkv_pl_object_stream(struct mkv_pl_object *o, int plus)
{
	mkv_pl_object_lock(o);
	if (plus < 0)
		mkv_pl_bytes_stream_end(o);
	else if (o->streams++ == 0)
		mkv_pl_bytes_seen(o);
	mkv_pl_object_unlock(o);
}

/* ---- From the store ------------------------------------------------------------------------------------------------------------------ */

static uint64_t
block_count(const struct mkv_pl_object *o)
{
	return ((o->version.bytes + BLOCK_BYTES - 1) / BLOCK_BYTES);
}

static bool
is_there(const struct mkv_pl_object *o, uint64_t block)
{
	return (o->filled || (o->there != NULL && (o->there[block / 64] >> block % 64 & 1) != 0));
}

/* How many blocks from here to end are as this one is. */
static uint64_t
run_of(const struct mkv_pl_object *o, uint64_t block, uint64_t end)
{
	bool there = is_there(o, block);
	uint64_t at = block;

	while (at < end && is_there(o, at) == there)
		at++;
	return (at - block);
}

/* Without the memory for it nothing is noted, and it is fetched again. */
static void
note_there(struct mkv_pl_object *o, uint64_t block, uint64_t count)
{
	if (count == block_count(o)) {
		o->filled = true;
		return;
	}
	if (o->there == NULL)
		o->there = calloc((size_t)(block_count(o) / 64 + 1), sizeof(uint64_t));
	for (; o->there != NULL && count > 0; count--, block++)
		o->there[block / 64] |= (uint64_t)1 << block % 64;
}

/* What was there when it was opened must be there still: a miss now is a failure, not an absence. */
static int
get(struct mkv_pl_object *o, uint64_t off, void *to, size_t bytes)
{
	if (mkv_pl_store_get(&o->name, &o->version, off, to, bytes) == 0)
		return (0);
	if (errno == ENOENT)
		errno = ESTALE;
	return (-1);
}

static void *
map_of(const struct mkv_pl_object *o, uint64_t off, size_t bytes)
{
	return (REAL(mmap)(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, o->fd, (off_t)off));
}

/* Also with a program that exec() began, which has said so. */
static bool
is_shared(struct mkv_pl_object *o, const struct stat *st)
{
	if (mkv_pl_memfd_is_adopted(st))
		o->shared = true;
	return (o->shared);
}

/* Where another process has the same memfd its bytes are only replaced by what is known to be the same. */
static int
get_beside(struct mkv_pl_object *o, uint64_t off, void *to, size_t bytes)
{
	void *at = REAL(mmap)(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	int r, e;

	if (at == MAP_FAILED)
		return (-1);
	if ((r = get(o, off, at, bytes)) == 0)
		memcpy(to, at, bytes);
	e = errno;
	(void)munmap(at, bytes);
	errno = e;
	return (r);
}

/* What came before a get failed may be of another put: who gets the memfd by exec() takes what has no holes for whole. */
static void
drop_bytes(const struct mkv_pl_object *o, uint64_t off, size_t bytes)
{
	int e = errno;

	(void)REAL(fallocate)(o->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)off, (off_t)bytes);
	errno = e;
}

static int
fetch(struct mkv_pl_object *o, uint64_t block, uint64_t count)
{
	uint64_t off = block * BLOCK_BYTES, end = (block + count) * BLOCK_BYTES;
	size_t bytes = (size_t)((end < o->version.bytes ? end : o->version.bytes) - off);
	void *at = map_of(o, off, bytes);
	int r, e;

	if (at == MAP_FAILED)
		return (-1);
	r = o->shared ? get_beside(o, off, at, bytes) : get(o, off, at, bytes);
	e = errno;
	(void)munmap(at, bytes);
	errno = e;
	if (r == 0)
		note_there(o, block, count);
	else if (!o->shared)
		drop_bytes(o, off, bytes);
	return (r);
}

/* What is not there of these blocks, and after the last of them as many more as there is reason to want. */
static int
fetch_all(struct mkv_pl_object *o, uint64_t block, uint64_t end, uint64_t ahead)
{
	uint64_t last = end + ahead < block_count(o) ? end + ahead : block_count(o), run;
	struct stat st;

	if (mkv_pl_inner_stat(o, &st) != 0)
		return (-1);
	(void)is_shared(o, &st);
	for (; block < end; block += run) {
		run = run_of(o, block, is_there(o, block) ? end : last);
		if (!is_there(o, block) && fetch(o, block, run) != 0)
			return (-1);
	}
	return (0);
}

int
mkv_pl_bytes_fill(struct mkv_pl_object *o)
{
	if (o->filled)
		return (0);
	if (fetch_all(o, 0, block_count(o), 0) != 0)
		return (-1);
	o->filled = true;
	if (o->streams != 0)
		mkv_pl_bytes_seen(o);
	return (0);
}

int
mkv_pl_object_fill(struct mkv_pl_object *o)
{
	int r, e = errno;

	mkv_pl_object_lock(o);
	if ((r = mkv_pl_bytes_fill(o)) == 0)
		errno = e;
	mkv_pl_object_unlock(o);
	return (r);
}

/* ---- Reading ------------------------------------------------------------------------------------------------------------------------- */

/* [off, off + bytes) is in the memfd. Who goes on where the last one ended gets more in advance each time. */
static int
fill_range(struct mkv_pl_object *o, off_t off, size_t bytes)
{
	uint64_t left = (uint64_t)off < o->version.bytes ? o->version.bytes - (uint64_t)off : 0, block = (uint64_t)off / BLOCK_BYTES, end, ahead;

	if (bytes > left)
		bytes = (size_t)left;
	if (o->filled || bytes == 0)
		return (0);
	if (o->version.bytes <= WHOLE_BYTES || o->shared)
		return (mkv_pl_bytes_fill(o));
	end = ((uint64_t)off + bytes - 1) / BLOCK_BYTES + 1;
	if (is_there(o, block) && run_of(o, block, end) == end - block)
		return (0);
	ahead = off == o->next_off ? o->ahead_blocks : 0;
	o->ahead_blocks = ahead == 0 ? 2 : ahead < AHEAD_BLOCKS_MAX ? 2 * ahead : ahead;
	return (fetch_all(o, block, end, ahead));
}

/* Into the caller's memory: what is there from the memfd, what is long from the store, and the memfd does not get it. */
static int
read_straight(struct mkv_pl_object *o, uint8_t *at, size_t bytes, off_t off)
{
	uint64_t block, end;
	size_t part;

	for (; bytes > 0; at += part, off += (off_t)part, bytes -= part) {
		block = (uint64_t)off / BLOCK_BYTES;
		end = ((uint64_t)off + bytes - 1) / BLOCK_BYTES + 1;
		part = (size_t)((block + run_of(o, block, end)) * BLOCK_BYTES - (uint64_t)off);
		if (part > bytes)
			part = bytes;
		if (!is_there(o, block) && part >= STRAIGHT_MIN) {
			if (get(o, (uint64_t)off, at, part) != 0)
				return (-1);
			continue;
		}
		if (part > PREAD_MAX)
			part = PREAD_MAX;
		if (fetch_all(o, block, ((uint64_t)off + part - 1) / BLOCK_BYTES + 1, 0) != 0)
			return (-1);
		if (REAL(pread)(o->fd, at, part, off) != (ssize_t)part) {
			errno = EIO;
			return (-1);
		}
	}
	return (0);
}

static ssize_t
readv_straight(struct mkv_pl_object *o, const struct iovec *iov, int n, off_t off)
{
	uint64_t left = (uint64_t)off < o->version.bytes ? o->version.bytes - (uint64_t)off : 0;
	ssize_t total = 0;
	size_t part;

	for (; n > 0 && left > 0; n--, iov++) {
		part = iov->iov_len < left ? iov->iov_len : (size_t)left;
		if (read_straight(o, iov->iov_base, part, off + total) != 0)
			return (-1);
		left -= part;
		total += (ssize_t)part;
	}
	return (total);
}

/* 0: not worth it, or not a call that the kernel would take. */
static size_t
straight_bytes(const struct mkv_pl_object *o, const struct iovec *iov, int n, size_t *all)
{
	bool one = false;
	int i;

	*all = 0;
	for (i = 0; i < n && i < IOV_MAX; i++) {
		one = one || iov[i].iov_len >= STRAIGHT_MIN;
		if (iov[i].iov_len > SSIZE_MAX - *all)
			return (0);
		*all += iov[i].iov_len;
	}
	return (one && n <= IOV_MAX && !o->filled && !o->shared ? *all : 0);
}

/* The kernel's read, of bytes that are there. Another process may have the descriptor too, and have moved its offset meanwhile. */
static ssize_t
read_there(struct mkv_pl_object *o, int fd, const struct iovec *iov, int n, off_t off, off_t from)
{
	ssize_t r;
	off_t now;

	if (off >= 0)
		return (REAL(preadv)(fd, iov, n, off));
	r = REAL(readv)(fd, iov, n);
	if (r <= 0 || o->filled || (now = REAL(lseek)(fd, 0, SEEK_CUR)) == from + r)
		return (r);
	return (mkv_pl_bytes_fill(o) != 0 ? -1 : REAL(preadv)(fd, iov, n, now - r));
}

static ssize_t
read_held(struct mkv_pl_object *o, int fd, const struct iovec *iov, int n, off_t off)
{
	off_t from = off >= 0 ? off : REAL(lseek)(fd, 0, SEEK_CUR);
	size_t bytes;
	ssize_t r;

	if (from < 0)
		return (-1);
	if (straight_bytes(o, iov, n, &bytes) != 0) {
		if ((r = readv_straight(o, iov, n, from)) > 0 && off < 0 && REAL(lseek)(fd, from + r, SEEK_SET) < 0)
			return (-1);
	} else {
		if (fill_range(o, from, bytes) != 0)
			return (-1);
		r = read_there(o, fd, iov, n, off, from);
	}
	if (r > 0)
		o->next_off = from + r;
	if (r > 0 && from <= o->read_to && o->next_off > o->read_to)
		o->read_to = o->next_off;
	return (r);
}

ssize_t
mkv_pl_object_read(struct mkv_pl_object *o, int fd, const struct iovec *iov, int n, off_t off)
{
	int e = errno;
	ssize_t r;

	mkv_pl_object_lock(o);
	r = read_held(o, fd, iov, n, off);
	mkv_pl_object_unlock(o);
	if (r >= 0)
		errno = e;
	return (r);
}

/* ---- To the store -------------------------------------------------------------------------------------------------------------------- */

/* The whole of the memfd; a mapping of nothing is none. Where there are holes nothing is looked at before it is sent: that would fill them with memory. */
static int
put(struct mkv_pl_object *o, unsigned flags)
{
	struct stat st;
	void *at;
	int r, e;

	if (mkv_pl_inner_stat(o, &st) != 0)
		return (-1);
	if (st.st_size == 0)
		return (mkv_pl_store_put(&o->name, "", 0, flags));
	at = REAL(mmap)(NULL, (size_t)st.st_size, PROT_READ, MAP_SHARED | (st.st_blocks >= st.st_size / 512 ? MAP_POPULATE : 0), o->fd, 0);
	if (at == MAP_FAILED)
		return (-1);
	r = mkv_pl_store_put(&o->name, at, (size_t)st.st_size, flags);
	e = errno;
	(void)munmap(at, (size_t)st.st_size);
	errno = e;
	return (r);
}

int
mkv_pl_bytes_commit(struct mkv_pl_object *o, unsigned put_flags)
{
	if (!is_dirty(o))
		return (0);
	o->dirty = false;
	mkv_pl_bytes_seen(o);
	mkv_pl_object_keep(&o->name);
	if (put(o, put_flags | (o->fresh ? MKV_PUT_IF_ABSENT : MKV_PUT_OVERWRITE)) != 0) {
		o->dirty = true;
		return (-1);
	}
	o->fresh = false;
	o->loose = (put_flags & MKV_PUT_COMMIT) == 0;
	return (0);
}

int
mkv_pl_object_commit(struct mkv_pl_object *o, unsigned put_flags)
{
	int r, e = errno;

	mkv_pl_object_lock(o);
	o->dirty = o->dirty || (o->loose && (put_flags & MKV_PUT_COMMIT) != 0);
	if ((r = mkv_pl_bytes_commit(o, put_flags)) == 0)
		errno = e;
	mkv_pl_object_unlock(o);
	return (r);
}

void
mkv_pl_object_forget_bytes(struct mkv_pl_object *o)
{
	struct stat st;

	mkv_pl_object_lock(o);
	if (!o->writable && !o->mapped && o->streams == 0 && mkv_pl_inner_stat(o, &st) == 0 && !is_shared(o, &st) && st.st_size != 0 &&
	    REAL(fallocate)(o->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, st.st_size) == 0) {
		o->filled = false;
		free(o->there);
		o->there = NULL;
	}
	mkv_pl_object_unlock(o);
}

int
mkv_pl_object_truncate(struct mkv_pl_object *o, int fd, off_t size)
{
	int r;

	mkv_pl_object_lock(o);
	if ((r = mkv_pl_bytes_fill(o)) == 0 && (r = REAL(ftruncate)(fd, size)) == 0)
		o->dirty = true;
	mkv_pl_object_unlock(o);
	return (r);
}

