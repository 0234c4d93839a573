/*
 * Single-producer single-consumer ring of 64-byte descriptors in a shared memfd, and the bell that wakes a consumer.
 *
 * The supervisor creates the memfd (mkv_ring_bytes), formats it once and gives it to both ends with the epoch; a death makes a new one.
 * The far end's words are foreign bytes: a tail or head that cannot be is MKV_E_PEER, never an assert (docs/internals/shm.md).
 *
 *   field   written by  read by   order
 *   tail    producer    consumer  store release in push; pairs with the acquire in pop
 *   head    consumer    producer  store release in pop; pairs with the acquire in push
 *   asleep  consumer    producers in the consumer's bell page, once for all its rings; full fence between tail store and asleep load
 *                                 (mkv_bell_ring), and between asleep store and tail load (mkv_bell_sleep, then the look at the rings): of two
 *                                 fences one comes first, so one of the two sides sees the other's store
 *   epoch   supervisor  both      raised (mkv_ring_retire) when one side dies; calls with an old epoch are refused
 */
#ifndef MKV_SHM_RING_H
#define MKV_SHM_RING_H

#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

#define MKV_RING_MAGIC		0x52b7c1e9u
#define MKV_RING_CAPACITY_MAX	65536u

struct mkv_desc {
	uint16_t	op;		/* enum mkv_drv_op */
	uint16_t	flags;
	uint32_t	slot_idx;	/* control slot in the front's stage; or 0 */
	uint32_t	gen;		/* generation of the slot: a late answer of a reused slot is dropped */
	int32_t		status;		/* completions: 0 or MKV_E_* */
	uint64_t	arg[6];
};
_Static_assert(sizeof(struct mkv_desc) == 64, "one cache line");

struct mkv_ring_shm {			/* page 0 of the segment; slots begin at byte 4096 */
	uint32_t	magic, capacity;
	_Atomic uint32_t epoch;
	uint32_t	pad;
	_Alignas(64) _Atomic uint32_t tail;
	_Alignas(64) _Atomic uint32_t head;
};

/* This process's end. Own index, capacity and mask live here and are never reread from shared memory. */
struct mkv_ring {
	uint32_t	magic;
	struct mkv_ring_shm *shm;
	struct mkv_desc	*slot;
	uint32_t	capacity, mask, epoch;
	uint32_t	own;		/* producer: tail; consumer: head */
	size_t		map_bytes;
	int		is_producer;
};

size_t	mkv_ring_bytes(uint32_t capacity);				/* capacity: power of two */
int	mkv_ring_format(int fd, uint32_t capacity, uint32_t epoch);	/* supervisor */
int	mkv_ring_retire(int fd, uint32_t epoch);			/* supervisor: from now on both ends get MKV_E_STALE */
/*
 * Maps the segment; fd stays the caller's. Each end is opened once in the life of a segment.
 * MKV_E_PEER damaged or no ring; MKV_E_STALE another epoch, or this end was in use before; MKV_E_SYSTEM. On failure *r is closed.
 */
int	mkv_ring_open(struct mkv_ring *r, int fd, uint32_t epoch, int is_producer);
void	mkv_ring_close(struct mkv_ring *r);				/* unmaps; a closed ring answers MKV_E_CLOSED */
/* 0; MKV_E_AGAIN full (park; poll again when the consumer rings back); MKV_E_PEER damaged (close it); MKV_E_STALE retired (close it);
 * MKV_E_CLOSED. Never blocks, never allocates. */
int	mkv_ring_push(struct mkv_ring *r, const struct mkv_desc *d);
/* 1 popped (a copy: check before use); 0 empty; MKV_E_PEER; MKV_E_STALE; MKV_E_CLOSED. */
int	mkv_ring_pop(struct mkv_ring *r, struct mkv_desc *d);
int	mkv_ring_empty(const struct mkv_ring *r);			/* consumer: 1 nothing to pop; 0 call pop (also when damaged) */

#define MKV_BELL_MAGIC		0x6be11a5du
#define MKV_BELL_WAIT_MAX_NS	10000000ull		/* a consumer never sleeps longer: a damaged word costs time, no request */

struct mkv_bell_shm {			/* one page, one consumer */
	uint32_t	magic, pad;
	_Alignas(64) _Atomic uint32_t asleep;
};

struct mkv_bell {			/* either end */
	struct mkv_bell_shm *shm;
	int		fd;		/* producers: to ring; consumer: to poll */
};

int	mkv_bell_format(int shm_fd);					/* supervisor */
int	mkv_bell_open(struct mkv_bell *b, int shm_fd, int bell_fd);	/* bell_fd is ours on success; shm_fd stays the caller's */
void	mkv_bell_close(struct mkv_bell *b);				/* unmaps, closes fd; again: no-op */
/* Producer, after one or more pushes on rings of that consumer. Returns 1 if a system call was made. */
int	mkv_bell_ring(struct mkv_bell *b);
/* Consumer: announce sleep; the caller then re-checks its rings and only then waits. mkv_bell_awake() after the wait. */
void	mkv_bell_sleep(struct mkv_bell *b);
void	mkv_bell_awake(struct mkv_bell *b);

#endif
