/*
 * An RDMA fabric inside one process: the table of common/rdma/verbs.h without rdma-core. Its devices are called fake0, fake1 ... and reach each other; bytes are
 * really copied, with the checks that a NIC makes: keys, bounds, access, states, packet numbers, receives.
 *
 * Work requests are carried out inside of post_send() unless the test holds them. What a correct user never does (a queue that overruns, unknown flags, a retry
 * count that never ends, an object destroyed before what stands on it) ends the program with a sentence. Any thread; one lock for all.
 */
#ifndef MKV_TESTS_FAKEVERBS_H
#define MKV_TESTS_FAKEVERBS_H

#include "common/rdma/verbs.h"

#define FV_DEVICES	4u
#define FV_GIDS		16u
#define FV_LOG		1024u

/* Every member of the table that can fail; tables of tests go over them. */
enum fv_verb {
	FV_GET_DEVICE_LIST, FV_OPEN_DEVICE, FV_QUERY_DEVICE, FV_QUERY_PORT, FV_QUERY_GID_TABLE, FV_ODP_CAPS, FV_ALLOC_PD, FV_REG_MR, FV_REG_DMABUF_MR,
	FV_CREATE_COMP_CHANNEL, FV_CREATE_CQ, FV_REQ_NOTIFY_CQ, FV_POLL_CQ, FV_CREATE_SRQ, FV_POST_SRQ_RECV, FV_CREATE_QP, FV_MODIFY_QP, FV_QUERY_QP,
	FV_POST_SEND, FV_CREATE_AH, FV_DC_CREATE_INITIATOR, FV_DC_CREATE_TARGET, FV_DC_POST, FV_VERBS
};

/* Otherness of devices. */
enum {
	FV_RNR_AT_ONCE = 1,		/* a message without a receive fails; else it waits for one, which counts in rnr_waits */
	FV_FLUSH_FIRST = 2,		/* a mistake in our own memory shows as a flushed request, as with soft-RoCE */
	FV_NO_FLUSH = 4,		/* a queue pair in error tells of nothing any more */
	FV_IN_HAND = 8			/* ERR does not wait for a packet of the WRITE that is next, as with soft-RoCE: fv_land(). Destroying the queue pair does */
};

/* What a device has of DC. */
enum fv_dc {
	FV_DC_OTHER_MAKE,		/* it is none of mlx5 */
	FV_DC_NO,			/* it is, but its initiators and targets cannot be made: EOPNOTSUPP */
	FV_DC_YES
};

/* What a device says of itself; a test changes it before the device is opened. */
struct fv_device {
	struct ibv_device_attr attr;
	struct ibv_port_attr port[2];
	struct ibv_gid_entry gid[FV_GIDS];
	unsigned	n_gids;
	uint32_t	odp_caps;
	uint32_t	max_inline;	/* more is refused with EINVAL */
	enum ibv_transport_type transport;
	int		is_absent;	/* not in the list */
	enum fv_dc	dc;
};

struct fv_count {
	uint64_t	doorbells, wrs, signalled, completions, rnr_waits, recvs_posted;
};

/* A work request as it was posted. */
struct fv_wr {
	uint32_t	qpn;
	uint64_t	wr_id;
	enum ibv_wr_opcode opcode;
	unsigned	flags;
	uint32_t	bytes, lkey, rkey;
	uint64_t	local, remote;
	uint8_t		dgid[16];	/* of an initiator: its address; else zeroes */
	uint32_t	dctn;
	uint64_t	dc_key;
};

/* A new fabric of n devices, as after a start; ends the program if anything of the last one is left. */
void		fv_start(unsigned n);
const struct mkv_verbs *fv_verbs(void);
/* DC on all devices of this fabric; between fv_start() and opening a device. Without it they have none, like soft-RoCE. One alone: fv_device(i)->dc. */
void		fv_dc(enum fv_dc has);
struct fv_device *fv_device(unsigned i);
/* Objects that are alive: contexts, domains, registrations, queues, channels, queue pairs, address handles. */
unsigned	fv_alive(void);
void		fv_quirks(unsigned quirks);
/* The n-th call of this verb from now on (1: the next one) fails with this errno, once. 0: none. Returns 1 if the one asked for before did fail. */
int		fv_fail(enum fv_verb verb, unsigned n, int err);
void		fv_refuse_wr(unsigned n);	/* the n-th work request from now on is refused; those before it in its list are taken */
unsigned	fv_calls(enum fv_verb verb);
const char *	fv_verb_name(enum fv_verb verb);
struct fv_count	fv_count(void);
/* The last work requests, the newest last: up to max of them; how many. */
unsigned	fv_log(struct fv_wr *w, unsigned max);
void		fv_next_qpn(uint32_t n);	/* the next queue pair has this number */

/* 1: what is posted waits; 0: everything that waits is carried out, and what is posted from now on at once. */
void		fv_hold(int on);
unsigned	fv_step(unsigned n);		/* of what waits, carry out so many, in the order of posting; how many there were */
unsigned	fv_held(void);
/* Of the next WRITE that waits, the first bytes land, and it goes on waiting. 1: there was one, and it was let through. */
int		fv_part(uint32_t bytes);
/* FV_IN_HAND: the packet that was in hand when a queue pair went to ERR is written. 1: there was one, and its queue pair is there still. */
int		fv_land(void);
/* 1: completions are kept back from the completion queues; 0: those kept back appear. */
void		fv_hold_completions(int on);

void		fv_port(unsigned device, unsigned port, int up);	/* 1..; with its event */
void		fv_gone(unsigned device);	/* the NIC is taken out: its event, and every call fails with EIO */
void		fv_event(unsigned device, enum ibv_event_type type, unsigned port);
int		fv_access(uint32_t key);	/* flags of the registration with this key; -1: none */
enum ibv_qp_state fv_qp_state(uint32_t qpn);	/* IBV_QPS_UNKNOWN: there is none; also a target that is gone */
struct ibv_qp_attr fv_qp_attr(uint32_t qpn);	/* as it was connected */
void		fv_qp_break(uint32_t qpn);	/* its device says that it broke: ERR, and what waits is flushed */

#endif
