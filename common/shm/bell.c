/*
 * The bell of one consumer: a shared page and an event descriptor. Supervisor: makes the page; producers ring, the consumer sleeps; each
 * end one loop thread.
 *
 * An end owns its mapping and its copy of the descriptor. Nobody trusts the page: an `asleep` that is wrong costs a system call too many or
 * a sleep of at most MKV_BELL_WAIT_MAX_NS.
 *
 * Why no wake-up is lost:
 *
 *	producer: tail = n; fence P; load asleep	consumer: asleep = 1; fence C; load tail (mkv_ring_empty); wait if all are empty
 *
 * Fences are sequentially consistent, so they have one order. P before C: the consumer sees the tail and does not wait. C before P: the
 * producer sees this 1 or a later word. A later 0 is either another producer's, who rings, or the consumer's, who is awake; before that one
 * waits again it passes another C, which is after P (else the producer would have seen the 1 before it). A plain load after a fence leaves the
 * line shared among all producers while the consumer is awake; a read-modify-write of it at each ring would be right as well and cost four
 * times as much with two producers.
 */
#include "config.h"
#include "common/shm/ring.h"

#include <unistd.h>

#include "common/base/assert.h"
#include "common/base/err.h"
#include "common/base/os.h"

#define BELL_BYTES	4096u

_Static_assert(sizeof(struct mkv_bell_shm) <= BELL_BYTES, "one page");

int
mkv_bell_format(int shm_fd)
{
	struct mkv_bell_shm *shm;
	void *p;
	int r;

	if ((r = mkv_os_shm_map(shm_fd, BELL_BYTES, 1, 0, &p)) != 0)
		return (r);
	shm = p;
	atomic_store_explicit(&shm->asleep, 0, memory_order_relaxed);
	shm->magic = MKV_BELL_MAGIC;
	mkv_os_shm_unmap(p, BELL_BYTES);
	return (0);
}

int
mkv_bell_open(struct mkv_bell *b, int shm_fd, int bell_fd)
{
	void *p;
	int r;

	*b = (struct mkv_bell){ .fd = -1 };
	if ((r = mkv_os_shm_map(shm_fd, BELL_BYTES, 1, 0, &p)) != 0)
		return (r);
	if (((struct mkv_bell_shm *)p)->magic != MKV_BELL_MAGIC) {
		mkv_os_shm_unmap(p, BELL_BYTES);
		return (MKV_E_PEER);
	}
	b->shm = p;
	b->fd = bell_fd;
	return (0);
}

void
mkv_bell_close(struct mkv_bell *b)
{
	if (b->shm == NULL)
		return;
	mkv_os_shm_unmap(b->shm, BELL_BYTES);
	close(b->fd);
	*b = (struct mkv_bell){ .fd = -1 };
}

int
mkv_bell_ring(struct mkv_bell *b)
{
	MKV_ASSERT(b->shm != NULL);
	/* P of the file's head; its partner is C in mkv_bell_sleep(). */
	atomic_thread_fence(memory_order_seq_cst);
	if (atomic_load_explicit(&b->shm->asleep, memory_order_relaxed) == 0)
		return (0);
	/* Relaxed: of several producers one is enough to make the call. */
	if (atomic_exchange_explicit(&b->shm->asleep, 0, memory_order_relaxed) == 0)
		return (0);
	mkv_os_bell_ring(b->fd);
	return (1);
}

void
mkv_bell_sleep(struct mkv_bell *b)
{
	MKV_ASSERT(b->shm != NULL);
	atomic_store_explicit(&b->shm->asleep, 1, memory_order_relaxed);
	/* C of the file's head; its partner is P in mkv_bell_ring(). */
	atomic_thread_fence(memory_order_seq_cst);
}

void
mkv_bell_awake(struct mkv_bell *b)
{
	MKV_ASSERT(b->shm != NULL);
	atomic_store_explicit(&b->shm->asleep, 0, memory_order_relaxed);
}
