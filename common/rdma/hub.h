/*
 * What a loop thread has of a device: one completion queue, the channel that it sleeps on, one shared receive queue with its buffers, its queue pairs.
 * All calls from that thread.
 */
#ifndef MKV_RDMA_HUB_H
#define MKV_RDMA_HUB_H

#include "common/base/list.h"
#include "common/rdma/dev.h"

struct mkv_rdma_hub;
struct mkv_rdma_qp;

struct mkv_rdma_hub_conf {
	uint32_t	recvs;			/* receives that are posted */
	uint32_t	recv_bytes;		/* of each */
	uint32_t	sends_max;		/* work requests of all its queue pairs together: sizes the completion queue, which never overruns */
	int		aside;			/* ways to far ends are looked up by threads of its own (mkv_rdma_way_take(), mkv_rdma_qp_connect()); 0: the caller waits */
};

struct mkv_rdma_rx {				/* a receive that came */
	uint8_t		*buf;			/* 64-aligned */
	uint32_t	bytes;
};

struct mkv_rdma_count {
	uint64_t	wrs, doorbells, completions;
	uint64_t	empty_polls, events;	/* turns without a completion; wake-ups of the channel */
	uint64_t	recvs, bad_recvs;	/* that came; of them failed */
};

/* 0; MKV_E_NOMEM; MKV_E_SYSTEM; MKV_E_CONFIG: more than the device has. why as in dev.h. */
int		mkv_rdma_hub_open(struct mkv_rdma_hub **out, struct mkv_rdma_dev *d, const struct mkv_rdma_hub_conf *c, char *why, size_t why_bytes);
/* All its queue pairs must be destroyed. Accepts NULL. */
void		mkv_rdma_hub_close(struct mkv_rdma_hub **h);
/* Readable after mkv_rdma_hub_arm() when completions wait, until mkv_rdma_hub_woken() was told so. */
int		mkv_rdma_hub_fd(const struct mkv_rdma_hub *h);
/* With conf.aside: readable when one of its threads is done with something; else -1. mkv_rdma_hub_poll() takes it back. */
int		mkv_rdma_hub_aside_fd(const struct mkv_rdma_hub *h);
/*
 * Take up to max completions and call the queue pairs' callbacks. Returns how many; 0: none waits. Callbacks may post, fail and connect queue pairs, not
 * destroy them.
 */
unsigned	mkv_rdma_hub_poll(struct mkv_rdma_hub *h, unsigned max);
/*
 * Right before sleeping on the descriptor: 1: nothing waits, it will wake; 0: something came meanwhile, poll again. While a wake-up that was asked for has not come
 * this costs no system call; else two, one of which takes back what made the descriptor readable.
 */
int		mkv_rdma_hub_arm(struct mkv_rdma_hub *h);
/* The descriptor is readable: the next mkv_rdma_hub_arm() takes that back. Also when it may not be: no harm. */
void		mkv_rdma_hub_woken(struct mkv_rdma_hub *h);
/* Ring the doorbells of everything that was queued: once a turn. */
void		mkv_rdma_hub_flush(struct mkv_rdma_hub *h);
/*
 * The device says that this queue pair failed (MKV_RDMA_EV_QP): it breaks, if it has not. One that has nothing under way hears in no other way that the far end
 * did what it may not. Any number: one that is not of an RC queue pair of ours is nothing.
 */
void		mkv_rdma_hub_failed(struct mkv_rdma_hub *h, uint32_t qpn);
/* Have the device say once (MKV_RDMA_EV_SRQ_LIMIT) that fewer receives than these are posted. 0; MKV_E_UNSUPPORTED. */
int		mkv_rdma_hub_alarm(struct mkv_rdma_hub *h, uint32_t recvs);
/* A receive that a callback kept (or got) may be used for the next. */
void		mkv_rdma_rx_back(struct mkv_rdma_hub *h, struct mkv_rdma_rx *rx);
const struct mkv_rdma_count *mkv_rdma_hub_count(const struct mkv_rdma_hub *h);
uint32_t	mkv_rdma_hub_recv_bytes(const struct mkv_rdma_hub *h);

#endif
