/*
 * The bell of one consumer: a shared page and an event descriptor. Supervisor: makes the page; producers ring, the consumer sleeps; each
 * end one loop thread.
 *
 * An end owns its mapping and its copy of the descriptor. Nobody trusts the page: an `asleep` that is wrong costs a system call too many or
 * a sleep of at most MKV_BELL_WAIT_MAX_NS, and `pending` is a hint.
 *
 * Why no wake-up is lost: tail store, pending |= bit (A), asleep load (B) in the producer; asleep store (C), pending load (D), ring check in
 * the consumer. A, B, C, D are sequentially consistent. If D comes after A, D reads the bit and so acquires the tail before it. If not,
 * C comes before D before A before B, and B sees asleep.
 */
#include "config.h"
#include "common/shm/ring.h"

#include <unistd.h>

#include "common/base/assert.h"
#include "common/base/err.h"
#include "common/base/os.h"

#define BELL_BYTES	4096u
#define BELL_WORDS	MKV_ARRAY_LEN(((struct mkv_bell_shm *)0)->pending)

_Static_assert(sizeof(struct mkv_bell_shm) <= BELL_BYTES, "one page");
_Static_assert(MKV_BELL_RINGS_MAX % 64 == 0, "whole words");

int
mkv_bell_format(int shm_fd)
{
	struct mkv_bell_shm *shm;
	void *p;
	int r;

	if ((r = mkv_os_shm_map(shm_fd, BELL_BYTES, 1, 0, &p)) != 0)
		return (r);
	shm = p;
	for (unsigned i = 0; i < BELL_WORDS; i++)
		atomic_store_explicit(&shm->pending[i], 0, memory_order_relaxed);
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
mkv_bell_ring(struct mkv_bell *b, unsigned ring_idx)
{
	MKV_ASSERT(b->shm != NULL);
	MKV_ASSERT(ring_idx < MKV_BELL_RINGS_MAX);
	/* A and B of the file's head; C and D are in mkv_bell_sleep(). */
	atomic_fetch_or_explicit(&b->shm->pending[ring_idx / 64], 1ull << ring_idx % 64, memory_order_seq_cst);
	if (atomic_load_explicit(&b->shm->asleep, memory_order_seq_cst) == 0)
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
	atomic_store_explicit(&b->shm->asleep, 1, memory_order_seq_cst);
	for (unsigned i = 0; i < BELL_WORDS; i++)
		(void)atomic_load_explicit(&b->shm->pending[i], memory_order_seq_cst);
}

void
mkv_bell_awake(struct mkv_bell *b)
{
	MKV_ASSERT(b->shm != NULL);
	atomic_store_explicit(&b->shm->asleep, 0, memory_order_relaxed);
}

uint64_t
mkv_bell_take(struct mkv_bell *b, unsigned word)
{
	MKV_ASSERT(b->shm != NULL);
	MKV_ASSERT(word < BELL_WORDS);
	if (atomic_load_explicit(&b->shm->pending[word], memory_order_relaxed) == 0)
		return (0);
	/* Acquire: the tails of these rings; pairs with A of the file's head. */
	return (atomic_exchange_explicit(&b->shm->pending[word], 0, memory_order_seq_cst));
}
