/*
 * SPSC rings of descriptors in shared memory. Supervisor: makes them; fronts and drives: one end each, one loop thread.
 *
 * An end owns its mapping and its private handle; the far end's word and every descriptor are foreign bytes. Invariants: own index, capacity
 * and mask are never reread from the segment; tail - head is at most capacity or the ring is damaged. Nothing blocks or allocates.
 *
 *	page 0:  magic capacity epoch | tail | head |	a cache line each
 *	4096:    slot[0] slot[1] ... slot[capacity - 1]
 *	              ^ head                ^ tail	both count up and wrap at 2^32
 */
#include "config.h"
#include "common/shm/ring.h"

#include <string.h>
#include <sys/stat.h>

#include "common/base/assert.h"
#include "common/base/err.h"
#include "common/base/os.h"

#define RING_SLOTS_OFF	4096u
#define RING_OPEN_MAGIC	0x1d0e52b7u

_Static_assert(sizeof(struct mkv_ring_shm) <= RING_SLOTS_OFF, "the head is one page");
_Static_assert(offsetof(struct mkv_ring_shm, tail) == 64 && offsetof(struct mkv_ring_shm, head) == 128, "a cache line each");
_Static_assert((MKV_RING_CAPACITY_MAX & (MKV_RING_CAPACITY_MAX - 1)) == 0, "power of two");

static int
ring_capacity_ok(uint32_t capacity)
{
	return (capacity != 0 && capacity <= MKV_RING_CAPACITY_MAX && (capacity & (capacity - 1)) == 0);
}

size_t
mkv_ring_bytes(uint32_t capacity)
{
	MKV_ASSERT(ring_capacity_ok(capacity));
	return (MKV_ALIGN_UP(RING_SLOTS_OFF + (size_t)capacity * sizeof(struct mkv_desc), 4096));
}

int
mkv_ring_format(int fd, uint32_t capacity, uint32_t epoch)
{
	struct mkv_ring_shm *shm;
	size_t bytes = mkv_ring_bytes(capacity);
	void *p;
	int r;

	if ((r = mkv_os_shm_map(fd, bytes, 1, 0, &p)) != 0)
		return (r);
	shm = p;
	shm->capacity = capacity;
	atomic_store_explicit(&shm->epoch, epoch, memory_order_relaxed);
	atomic_store_explicit(&shm->tail, 0, memory_order_relaxed);
	atomic_store_explicit(&shm->head, 0, memory_order_relaxed);
	shm->magic = MKV_RING_MAGIC;
	mkv_os_shm_unmap(p, bytes);
	return (0);
}

int
mkv_ring_retire(int fd, uint32_t epoch)
{
	struct mkv_ring_shm *shm;
	void *p;
	int r;

	if ((r = mkv_os_shm_map(fd, RING_SLOTS_OFF, 1, 0, &p)) != 0)
		return (r);
	shm = p;
	/* Relaxed: whoever sees it late does one more call on a ring that nobody serves. */
	atomic_store_explicit(&shm->epoch, epoch, memory_order_relaxed);
	mkv_os_shm_unmap(p, RING_SLOTS_OFF);
	return (0);
}

/* Is what lies in the segment a ring of this size for this end? The capacity is read once, here. */
static int
ring_check(struct mkv_ring *r, uint32_t epoch)
{
	_Atomic uint32_t *word = r->is_producer ? &r->shm->tail : &r->shm->head;
	uint32_t capacity = *(volatile uint32_t *)&r->shm->capacity;

	if (r->shm->magic != MKV_RING_MAGIC || !ring_capacity_ok(capacity) || mkv_ring_bytes(capacity) > r->map_bytes)
		return (MKV_E_PEER);
	if (atomic_load_explicit(&r->shm->epoch, memory_order_relaxed) != epoch)
		return (MKV_E_STALE);
	if (atomic_load_explicit(word, memory_order_relaxed) != 0)
		return (MKV_E_STALE);
	r->capacity = capacity;
	r->mask = capacity - 1;
	r->epoch = epoch;
	r->own = 0;
	return (0);
}

int
mkv_ring_open(struct mkv_ring *r, int fd, uint32_t epoch, int is_producer)
{
	struct stat st;
	void *p;
	int err;

	memset(r, 0, sizeof(*r));
	if (fstat(fd, &st) != 0)
		return (MKV_E_SYSTEM);
	if (st.st_size < (off_t)RING_SLOTS_OFF || (uint64_t)st.st_size > 2 * mkv_ring_bytes(MKV_RING_CAPACITY_MAX))
		return (MKV_E_PEER);
	if ((err = mkv_os_shm_map(fd, (uint64_t)st.st_size, 1, 0, &p)) != 0)
		return (err);
	r->magic = RING_OPEN_MAGIC;
	r->shm = p;
	r->slot = (struct mkv_desc *)((uint8_t *)p + RING_SLOTS_OFF);
	r->map_bytes = (size_t)st.st_size;
	r->is_producer = is_producer;
	if ((err = ring_check(r, epoch)) != 0)
		mkv_ring_close(r);
	return (err);
}

void
mkv_ring_close(struct mkv_ring *r)
{
	if (r->shm != NULL)
		mkv_os_shm_unmap(r->shm, r->map_bytes);
	memset(r, 0, sizeof(*r));
}

/* 0 if this end may be used; also refuses rings that the supervisor has retired. */
static inline int
ring_usable(const struct mkv_ring *r)
{
	if (r->shm == NULL)
		return (MKV_E_CLOSED);
	MKV_ASSERT(r->magic == RING_OPEN_MAGIC);
	if (atomic_load_explicit(&r->shm->epoch, memory_order_relaxed) != r->epoch)
		return (MKV_E_STALE);
	return (0);
}

int
mkv_ring_push(struct mkv_ring *r, const struct mkv_desc *d)
{
	uint32_t used;
	int err;

	if ((err = ring_usable(r)) != 0)
		return (err);
	MKV_ASSERT(r->is_producer);
	/* Acquire: the consumer has finished reading the slot that we are about to reuse; pairs with the release in mkv_ring_pop(). */
	used = r->own - atomic_load_explicit(&r->shm->head, memory_order_acquire);
	if (used > r->capacity)			/* unsigned wrap is intended */
		return (MKV_E_PEER);		/* the peer's word: no assert */
	if (used == r->capacity)
		return (MKV_E_AGAIN);
	r->slot[r->own++ & r->mask] = *d;
	/* Release: the slot is visible before the tail that covers it; pairs with the acquire in mkv_ring_pop(). */
	atomic_store_explicit(&r->shm->tail, r->own, memory_order_release);
	return (0);
}

int
mkv_ring_pop(struct mkv_ring *r, struct mkv_desc *d)
{
	uint32_t avail;
	int err;

	if ((err = ring_usable(r)) != 0)
		return (err);
	MKV_ASSERT(!r->is_producer);
	/* Acquire: the slots below tail are there; pairs with the release in mkv_ring_push(). */
	avail = atomic_load_explicit(&r->shm->tail, memory_order_acquire) - r->own;
	if (avail > r->capacity)
		return (MKV_E_PEER);
	if (avail == 0)
		return (0);
	*d = r->slot[r->own++ & r->mask];
	/* What the caller checks is the copy: the compiler must not read the slot a second time. */
	atomic_signal_fence(memory_order_seq_cst);
	/* Release: we have read the slot before the producer may reuse it; pairs with the acquire in mkv_ring_push(). */
	atomic_store_explicit(&r->shm->head, r->own, memory_order_release);
	return (1);
}

int
mkv_ring_empty(const struct mkv_ring *r)
{
	if (r->shm == NULL)
		return (1);
	MKV_ASSERT(!r->is_producer);
	/* Acquire: as in mkv_ring_pop(), which will be called for anything but "equal". */
	return (atomic_load_explicit(&r->shm->tail, memory_order_acquire) == r->own);
}
