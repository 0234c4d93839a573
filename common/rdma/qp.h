/*
 * A reliable queue pair of a hub; README.md has its states. All calls from the hub's thread. What is said here holds for initiators and targets (dc.h) too.
 *
 * Requests are queued by read(), write() and send() and leave with mkv_rdma_hub_flush() (or when the batch is full), many by one doorbell. They come
 * back by done() in the order of queueing, one call for each, also when the queue pair breaks. Completions are moderated: every 16th and those
 * asked for are signalled, and one that comes tells of all before it.
 */
#ifndef MKV_RDMA_QP_H
#define MKV_RDMA_QP_H

#include <sys/uio.h>

#include "common/rdma/hub.h"

#define MKV_RDMA_TIMEOUT	14u		/* 67 ms a try; docs/internals/rdma.md says why these four */
#define MKV_RDMA_RETRIES	6u
#define MKV_RDMA_RNR_RETRIES	6u
#define MKV_RDMA_RNR_TIMER	12u
/* 7 is "for ever" in the specification for receives, and with some devices for the other count and a timeout of 0 as well. */
_Static_assert(MKV_RDMA_RETRIES <= 6 && MKV_RDMA_RNR_RETRIES <= 6 && MKV_RDMA_TIMEOUT >= 1 && MKV_RDMA_TIMEOUT <= 31, "a lost peer is noticed");
_Static_assert(MKV_RDMA_RNR_TIMER >= 1 && MKV_RDMA_RNR_TIMER <= 31, "five bits; 0 is the longest");

enum { MKV_RDMA_SIGNAL = 1, MKV_RDMA_FENCE = 2 };	/* flags of a request: its completion is wanted soon; it waits for the READs before it */

struct mkv_rdma_qp_ops {
	/* A message came. The callee gives rx back by mkv_rdma_rx_back(), now or later. */
	void		(*recv)(struct mkv_rdma_qp *qp, struct mkv_rdma_rx *rx);
	/* The oldest request that is out came back: 0, or MKV_E_CLOSED (the queue pair broke; a WRITE or SEND may have arrived all the same). */
	void		(*done)(struct mkv_rdma_qp *qp, void *cookie, int status);
	/* It broke, for this reason (a sentence); once, before the done() calls that say MKV_E_CLOSED, never from inside another call of this header. */
	void		(*broken)(struct mkv_rdma_qp *qp, const char *why);
};

struct mkv_rdma_qp_conf {
	uint32_t	sends;			/* requests that may be out, power of two */
	uint32_t	send_bytes;		/* longest send() */
	uint32_t	msgs;			/* send()s that may be out, where they do not fit into work requests; 0: as many as sends */
	int		remote_read, remote_write;	/* the far end may; never both 0 at a client, both 0 at a server */
	const struct mkv_rdma_qp_ops *ops;
	void		*owner;
};

/* How one broke, for those who decide by it. */
enum mkv_rdma_fault {
	MKV_RDMA_FAULT_NONE,			/* it did not, or its user failed it */
	MKV_RDMA_FAULT_PATH,			/* the far end does not answer */
	MKV_RDMA_FAULT_RNR,			/* it posts no receives */
	MKV_RDMA_FAULT_ACCESS,			/* its NIC refused: key, range, or what may be done there */
	MKV_RDMA_FAULT_OTHER
};

struct mkv_rdma_peer {				/* the far end of a queue pair, as the wire told it */
	uint8_t		gid[16];
	uint16_t	lid;
	uint32_t	qpn, psn, mtu_bytes;
	uint8_t		rd_atomic_in;		/* READs that it answers at once */
	uint8_t		rd_atomic_out;		/* READs that it may have under way towards us */
};

int		mkv_rdma_qp_create(struct mkv_rdma_qp **out, struct mkv_rdma_hub *h, const struct mkv_rdma_qp_conf *c);	/* NEW; MKV_E_NOMEM, MKV_E_SYSTEM */
/* Number and first packet number for the far end; the path MTU is the device's. */
uint32_t	mkv_rdma_qp_number(const struct mkv_rdma_qp *qp);
uint32_t	mkv_rdma_qp_psn(const struct mkv_rdma_qp *qp);
/*
 * NEW -> READY. 0; MKV_E_PEER: a number of the far end makes no sense; MKV_E_UNREACHABLE: no way to that address; MKV_E_SYSTEM.
 * In a hub with threads for it (conf.aside) one of them does it: NEW -> CONNECTING, and from there READY, or what mkv_rdma_qp_fail() makes of it. MKV_E_PEER as above;
 * MKV_E_BUSY, MKV_E_NOMEM: it is NEW still. One that is failed meanwhile is not idle before that thread has let go of it.
 */
int		mkv_rdma_qp_connect(struct mkv_rdma_qp *qp, const struct mkv_rdma_peer *p);
/* 0: it is READY; MKV_E_AGAIN: not yet, mkv_rdma_hub_poll() may change that; else why it is not. */
int		mkv_rdma_qp_connected(const struct mkv_rdma_qp *qp);
int		mkv_rdma_qp_ready(const struct mkv_rdma_qp *qp);
/* 1: nothing of it is out any more and none can come; it may be destroyed. */
int		mkv_rdma_qp_idle(const struct mkv_rdma_qp *qp);
/* Of one that was failed, or broke: 1: nothing of the far end gets through. */
int		mkv_rdma_qp_fenced(const struct mkv_rdma_qp *qp);
/* How many requests can be queued now. */
uint32_t	mkv_rdma_qp_room(const struct mkv_rdma_qp *qp);
uint32_t	mkv_rdma_qp_send_room(const struct mkv_rdma_qp *qp);	/* of send()s, however long; at most room() */
/*
 * Queue one request; there must be room and the state READY. READ: remote -> local, WRITE: local -> remote. Memory and cookie until done().
 * send(): the bytes are copied at once, at most send_bytes.
 */
void		mkv_rdma_qp_read(struct mkv_rdma_qp *qp, void *local, uint32_t lkey, uint64_t remote, uint32_t rkey, uint32_t bytes, unsigned flags, void *cookie);
void		mkv_rdma_qp_write(struct mkv_rdma_qp *qp, const void *local, uint32_t lkey, uint64_t remote, uint32_t rkey, uint32_t bytes, unsigned flags,
		    void *cookie);
void		mkv_rdma_qp_send(struct mkv_rdma_qp *qp, const struct iovec *iov, unsigned n, unsigned flags, void *cookie);
/*
 * -> BROKEN, in ERR when this returns (on a soft device destroyed, which is what waits for the packet in hand there): the fence. done() follows for what is out.
 * Accepts any state; broken() is not called.
 * A device may refuse both ERR and destroying it: then there is no fence, and it is not idle, until that has worked (it is tried every 50 ms while the hub is polled).
 */
void		mkv_rdma_qp_fail(struct mkv_rdma_qp *qp);
enum mkv_rdma_fault mkv_rdma_qp_fault(const struct mkv_rdma_qp *qp);
/* Another user from now on: his callbacks, his owner(). Nothing may be out. */
void		mkv_rdma_qp_adopt(struct mkv_rdma_qp *qp, const struct mkv_rdma_qp_ops *ops, void *owner);
/* Must be idle (or NEW, or without a fence and nothing out: then what the device does not destroy is left to the end of the process). Accepts NULL. */
void		mkv_rdma_qp_destroy(struct mkv_rdma_qp **qp);
void *		mkv_rdma_qp_owner(const struct mkv_rdma_qp *qp);
struct mkv_rdma_hub *mkv_rdma_qp_hub(const struct mkv_rdma_qp *qp);

#endif
