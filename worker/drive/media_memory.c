/*
 * Medium: two shared memories that the supervisor keeps. Drive's loop thread; owns the mappings.
 *
 * One address space: [0, meta_bytes) is the second memory (superblocks, journal, checkpoints, pages: only drives map it), from there on the arena.
 * A transfer is a copy; a flush does nothing, since the memory outlives the process and nothing outlives the server. Completions are queued and
 * run from pump, like any other medium's. The segments are sealed against shrinking and made by our supervisor: a copy does not fault.
 */
#include "config.h"

#include <stdlib.h>
#include <string.h>

#include "common/base/assert.h"
#include "common/base/err.h"
#include "common/base/os.h"
#include "worker/drive/media.h"

#define MEDIA_MEMORY_MAGIC	0x3d1a3e30u

struct media_memory {
	struct mkv_media m;
	uint8_t		*meta, *data;
	uint64_t	data_bytes;
	struct mkv_mio	*first, **last;		/* done, not reported yet */
};

static struct media_memory *
memory_of(struct mkv_media *m)
{
	MKV_CHECK_OBJ(m, MEDIA_MEMORY_MAGIC);
	return (MKV_CONTAINER_OF(m, struct media_memory, m));
}

static uint8_t *
memory_at(struct media_memory *mm, uint64_t off, uint64_t bytes)
{
	if (off < mm->m.meta_bytes) {
		MKV_ASSERT(off + bytes <= mm->m.meta_bytes);
		return (mm->meta + off);
	}
	off -= mm->m.meta_bytes;
	MKV_ASSERT(off + bytes <= mm->data_bytes);
	return (mm->data + off);
}

static void
memory_queue(struct media_memory *mm, struct mkv_mio *mio)
{
	mio->media = &mm->m;
	mio->next = NULL;
	mio->res = 0;
	*mm->last = mio;
	mm->last = &mio->next;
}

static void
memory_read(struct mkv_media *m, struct mkv_mio *mio, void *buf, uint32_t bytes, uint64_t off, int buf_idx)
{
	struct media_memory *mm = memory_of(m);

	(void)buf_idx;
	memcpy(buf, memory_at(mm, off, bytes), bytes);
	memory_queue(mm, mio);
}

static void
memory_write(struct mkv_media *m, struct mkv_mio *mio, const void *buf, uint32_t bytes, uint64_t off, int buf_idx)
{
	struct media_memory *mm = memory_of(m);

	(void)buf_idx;
	memcpy(memory_at(mm, off, bytes), buf, bytes);
	memory_queue(mm, mio);
}

static void
memory_flush(struct mkv_media *m, struct mkv_mio *mio)
{
	memory_queue(memory_of(m), mio);
}

static int
memory_pump(struct mkv_media *m, uint64_t until_ns)
{
	struct media_memory *mm = memory_of(m);
	struct mkv_mio *mio = mm->first, *next;
	int n = 0;

	(void)until_ns;
	mm->first = NULL;
	mm->last = &mm->first;
	for (; mio != NULL; mio = next, n++) {
		next = mio->next;
		mio->done(mio, mio->res);
	}
	return (n);
}

static void *
memory_map(struct mkv_media *m, uint64_t off, uint64_t bytes)
{
	return (memory_at(memory_of(m), off, bytes));
}

static void
memory_close(struct mkv_media *m)
{
	struct media_memory *mm = memory_of(m);

	mkv_os_shm_unmap(mm->meta, m->meta_bytes);
	mkv_os_shm_unmap(mm->data, mm->data_bytes);
	m->magic = 0;
	free(mm);
}

static const struct mkv_media_ops memory_ops = {
	.read = memory_read, .write = memory_write, .flush = memory_flush, .pump = memory_pump, .map = memory_map, .close = memory_close,
};

int
mkv_media_memory_open(struct mkv_media **out, int data_fd, uint64_t data_bytes, int meta_fd, uint64_t meta_bytes)
{
	struct media_memory *mm = calloc(1, sizeof(*mm));
	void *p = NULL;
	int r;

	*out = NULL;
	if (mm == NULL)
		return (MKV_E_NOMEM);
	data_bytes &= ~4095ull;
	meta_bytes &= ~4095ull;
	if ((r = mkv_os_shm_map(meta_fd, meta_bytes, 1, 0, &p)) != 0) {
		free(mm);
		return (r);
	}
	mm->meta = p;
	if ((r = mkv_os_shm_map(data_fd, data_bytes, 1, 1, &p)) != 0) {
		mkv_os_shm_unmap(mm->meta, meta_bytes);
		free(mm);
		return (r);
	}
	mm->data = p;
	mm->data_bytes = data_bytes;
	mm->m.magic = MEDIA_MEMORY_MAGIC;
	mm->m.ops = &memory_ops;
	mm->m.name = "memory";
	mm->m.total_bytes = meta_bytes + data_bytes;
	mm->m.meta_bytes = meta_bytes;
	mm->m.shared = 1;
	mm->last = &mm->first;
	*out = &mm->m;
	return (0);
}
