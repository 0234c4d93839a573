/*
 * memkv-front, loop thread: RDMA behind a session. What the rest of the front calls; rail_priv.h says which files are behind it, in a build without RDMA rail_none.c.
 *
 * A rail is the front's device, one a process, made by main.c before the jail. A channel is what a session has beside its connection, the tether, which
 * serves whatever comes by it as any connection does. Requests that come by the channel are the same requests; what differs is where payload
 * comes from (RDMA READ of the client's memory), where it goes (RDMA WRITE) and how answers leave (SEND behind the data, on the same queue pair).
 * That queue pair is the channel's (RC), or one of the rail's initiators, leased for the request (DC).
 *
 *	CHAN_NONE --ATTACH on the tether--> CHAN_OPENING --the client's address is known--> CHAN_OPEN --first error, end of the session--> CHAN_BROKEN
 *	CHAN_BROKEN --all that is out came back--> CHAN_NONE
 *
 * Memory: a message lies in a receive of the hub. It is given back when its request needs its segments no more, always before the request's last answer is
 * posted: so what is kept is covered by the credits that were granted, and those never exceed what is posted. Buffers and arena runs of a part under READ
 * or WRITE are the NIC's until the queue pair has given the request back, also after the queue pair broke.
 */
#ifndef MKV_WORKER_FRONT_RAIL_H
#define MKV_WORKER_FRONT_RAIL_H

#include <stdint.h>

#include "common/base/list.h"
#include "proto/wire.h"

struct mkv_chan;
struct mkv_conn;
struct mkv_front;
struct ctl_msg;
struct mkv_line;
struct mkv_out;
struct mkv_part;
struct mkv_rail;
struct mkv_rdma_rx;
struct mkv_req;
struct mkv_verbs;

struct mkv_rail_conf {
	uint32_t	rail;			/* on the wire, from 1 */
	const char	*device;
	unsigned	port;			/* 0: the first that is up */
	int		gid_index, traffic_class, service_level;	/* -1: auto */
	unsigned	mtu;			/* bytes */
	uint32_t	piece_bytes, window_bytes, srq_depth, num_dcis;
};

/* How payload of the frame in work is to be moved: set while a message of a channel is dispatched. */
struct mkv_remote {
	struct mkv_rdma_rx *rx;			/* who keeps it sets this to NULL; */
	struct ctl_msg	*msg;			/* of a message that came otherwise the same */
	uint8_t		lost;			/* a frame whose channel is not there any more: it is answered with that */
	const struct mkv_wire_seg *seg;		/* in rx */
	unsigned	n_seg;
	uint64_t	bytes;			/* of all segments */
	struct mkv_line	*line;			/* DC: for the request that this message begins */
};

/* Of one part: its payload between our memory and the client's. */
enum mkv_xfer_kind { XFER_NONE, XFER_READ, XFER_ACK, XFER_WRITE };
struct mkv_xfer {
	struct mkv_list	link;			/* line.xfers while pieces of it are to be posted */
	struct mkv_line	*line;
	uint8_t		kind, failed, stopped;
	uint32_t	out;			/* pieces at the NIC */
	uint32_t	left, pos;		/* bytes not posted yet; where they begin in the part */
	unsigned	seg_i;			/* the same in the segments */
	uint32_t	seg_off;
	uint64_t	begin_ns;
};

/* main.c: before the jail. 0, or MKV_E_* with a sentence in why. The rail is the front's from then on. */
int		mkv_rail_open(struct mkv_rail **out, struct mkv_front *f, const struct mkv_verbs *v, const struct mkv_rail_conf *c, char *why, size_t why_bytes);
int		mkv_rail_quiet(const struct mkv_rail *r);	/* 1: no channel is left */
void		mkv_rail_close(struct mkv_rail **r);		/* of a quiet one. Accepts NULL */
int		mkv_rail_arena(struct mkv_rail *r, unsigned drive, void *base, uint64_t bytes);	/* memory mode: another place of payload */
void		mkv_rail_describe(const struct mkv_rail *r, struct mkv_wire_rail *out);
const char *	mkv_rail_without_dc(const struct mkv_rail *r);	/* why; "" where it has DC */
const char *	mkv_rail_node(const struct mkv_rail *r);		/* of the device, below /dev/infiniband */
int		mkv_rail_is_soft(const struct mkv_rail *r);	/* 1: it posts by write(), which wants the credentials that opened the device */
int		mkv_rail_fd(const struct mkv_rail *r);		/* readable: completions wait; mkv_rail_woken() is to be told */
int		mkv_rail_aside_fd(const struct mkv_rail *r);	/* readable: something is known that a client's ATTACH waited for; the turn takes it */
int		mkv_rail_event_fd(const struct mkv_rail *r);	/* readable: the device has news */
/* 1: the description changed; 2: the device is going away: end; 3: its port has another address by now: end, and begin anew. */
int		mkv_rail_event(struct mkv_rail *r);
const char *	mkv_rail_state_text(const struct mkv_rail *r);	/* up, or why not, in words */
/* Completions, then what they allow; how many. */
unsigned	mkv_rail_turn(struct mkv_rail *r);
void		mkv_rail_wake(struct mkv_rail *r);		/* who waits for an initiator, or for memory of messages */
void		mkv_rail_flush(struct mkv_rail *r);		/* end of a turn: doorbells */
/* Right before the loop sleeps: 1: nothing waits, and its descriptor will wake us; 0: one more turn. */
int		mkv_rail_may_sleep(struct mkv_rail *r);
void		mkv_rail_woken(struct mkv_rail *r);		/* it did */
void		mkv_rail_gauges(struct mkv_rail *r);

/* Before the jail: datagrams come to this address. The descriptor to listen to, the rail's; MKV_E_*: there will be none. */
int		mkv_rail_listen(struct mkv_rail *r, const uint8_t ip[16], uint16_t port);
void		mkv_rail_readable(struct mkv_rail *r);		/* it is */

/* conn.c */
void		mkv_chan_run(struct mkv_conn *c);		/* messages that were held */
void		mkv_chan_close(struct mkv_conn *c);		/* the session ends */
int		mkv_chan_gone(struct mkv_conn *c);		/* 1: the connection has none any more */
int		mkv_chan_heard(struct mkv_conn *c);		/* 1: something came since the last time this was asked */
int		mkv_chan_is_loose(const struct mkv_conn *c);	/* 1: it is open, and may go on without its connection */
uint64_t	mkv_chan_heard_ns(const struct mkv_conn *c);	/* when its last message came */
/* admin.c */
void		mkv_chan_cancelled(struct mkv_req *cancel, uint64_t id);	/* is not at work: nor will it be */
/*
 * req.c. A request is about to begin: 0: it may, with an initiator where that is wanted; MKV_E_AGAIN: the frame is to be shown again; else nobody can be answered.
 * Then the request has what c->remote has, until it is gone.
 */
int		mkv_chan_lease(struct mkv_conn *c, const struct mkv_hdr *h, const uint8_t *body);
void		mkv_chan_req_begins(struct mkv_req *r);
/* put.c: it waits for its client's next part, and needs its initiator only for what is out of it. req.c: that part is here: as mkv_chan_lease(). */
void		mkv_chan_req_rests(struct mkv_req *r);
int		mkv_chan_lease_again(struct mkv_req *r);
void		mkv_chan_req_gone(struct mkv_req *r);
/* req.c. The answer of a request that came by a channel, and its payload before it. 0: there is no such channel any more, o is not taken. */
int		mkv_chan_reply(struct mkv_req *r, struct mkv_out *o);
void		mkv_chan_stop(struct mkv_req *r);		/* no further piece of it is posted; the answer that follows comes behind what is out */
void		mkv_chan_req_done(struct mkv_req *r);		/* its segments are not needed any more */
/* put.c, part.c: READ the part's payload; it becomes FULL when that is there or will not come, and its request is run. */
void		mkv_chan_read(struct mkv_req *r, struct mkv_part *p);
void		mkv_chan_part_done(struct mkv_part *p);		/* its segments are not needed any more */
int		mkv_chan_take_segs(struct mkv_conn *c, struct mkv_wire_in *in);		/* the rest of a body: 0; MKV_E_PROTO */

#endif
