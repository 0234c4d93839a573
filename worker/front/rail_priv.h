/*
 * Inside the rail: rail.c (device, ATTACH, messages in) and rail_xfer.c (pieces, answers out, completions). One loop thread.
 */
#ifndef MKV_WORKER_FRONT_RAIL_PRIV_H
#define MKV_WORKER_FRONT_RAIL_PRIV_H

#include "worker/front/front_priv.h"
#include "worker/front/rail.h"

#include "common/base/udp.h"
#include "common/base/window.h"
#include "common/rdma/mem.h"
#include "common/rdma/qp.h"
#include "worker/front/answers.h"

#define RAIL_MAGIC		0x2b7f10c6u
#define CHAN_MAGIC		0x71d3e85au
#define LINE_MAGIC		0x4e90b7c3u

#define LINE_SENDS_MAX		64u		/* work requests of one queue pair */
#define LINE_SENDS_MIN		16u
#define LINE_SEND_BYTES		(MKV_WIRE_HDR_BYTES + PART_BODY_BYTES)		/* the longest answer: its bytes wait with the queue pair */
#define CHAN_CREDITS_MAX	64u		/* messages of a session without an answer */
#define CHAN_CREDITS_MIN	4u
#define CHAN_CREDITS_MORE	2u		/* a CANCEL and a PING get through when all others are out */
#define CHAN_HELD_MAX		(CHAN_CREDITS_MAX + CHAN_CREDITS_MORE)
#define CHAN_MSG_BYTES_MAX	65536u		/* datagrams of a session whose requests are not done with them */
#define RAIL_POLL_BATCH		64u

_Static_assert(REQ_BODY_BYTES <= PART_BODY_BYTES && LINE_SEND_BYTES <= MKV_WIRE_RDMA_BYTES, "every answer of a channel fits");

enum chan_state {
	CHAN_NONE,		/* ATTACH moves it on */
	CHAN_OPEN,		/* its first error, or the end of the session */
	CHAN_BROKEN,		/* the last completion of its queue pair */
};

enum line_rec_kind { REC_READ, REC_WRITE, REC_SEND, REC_FLUSH };
struct line_rec {		/* a work request that is out */
	uint8_t		kind;
	uint32_t	bytes, rkey;
	uint64_t	addr;		/* its last byte, with the client */
	struct mkv_part	*part;		/* READ, WRITE */
	struct mkv_out	*o;		/* SEND of an answer that somebody waits for; may be NULL. FLUSH: it leaves by another way when this is back */
};

/* A queue pair and what is on it: a channel has one for its life. */
struct mkv_line {
	uint32_t	magic;
	struct mkv_rail	*rail;
	struct mkv_chan	*ch;
	struct mkv_rdma_qp *qp;
	struct mkv_list	dirty;		/* rail.dirty: something to post */
	struct mkv_list	xfers;		/* one of each request that has pieces to post, in turns */
	struct mkv_list	outs;		/* answers without payload */
	uint32_t	window;		/* bytes of pieces that are out */
	unsigned	reads;		/* READs that are out */
	uint32_t	sends;		/* of rec[] */
	uint32_t	rec_head, rec_tail;
	struct line_rec	rec[LINE_SENDS_MAX];
};

/* Memory of a message that did not come by a queue pair: a datagram, segments of a frame of the tether, or an answer that no request owns. */
struct ctl_msg {
	struct mkv_list	link;		/* ctl.free */
	struct mkv_rail	*rail;
	struct mkv_chan	*ch;		/* a datagram: whose bytes it counts among */
	uint32_t	bytes;
	union {
		_Alignas(8) uint8_t buf[MKV_WIRE_RDMA_BYTES];
		struct mkv_wire_seg seg[MKV_WIRE_SEGS_MAX];
		struct {
			struct mkv_out	out;
			_Alignas(8) uint8_t body[MKV_ANSWER_BYTES];
		} note;
	} u;
};
_Static_assert(sizeof(((struct ctl_msg *)0)->u) == MKV_WIRE_RDMA_BYTES, "the rest fits where a message does");

struct chan_held {		/* a message; there are as many as receives and memory for others */
	struct mkv_list	link;		/* chan.held or rail.held_free */
	struct mkv_rdma_rx *rx;		/* or */
	struct ctl_msg	*msg;		/* a datagram */
	uint8_t		carrier;	/* of its answer, MKV_WIRE_CONTROL_* */
	uint8_t		over;		/* its request has been cancelled: it is dropped in its turn */
	uint64_t	came_ns, until_ns;
};

struct mkv_chan {
	uint32_t	magic;
	struct mkv_conn	*c;		/* while it is not NONE */
	struct mkv_rail	*rail;
	uint8_t		state, heard;
	uint16_t	number;		/* on the wire; of the last one while NONE */
	uint16_t	credits;
	uint16_t	receives;	/* set aside for its messages */
	struct mkv_line	*line;		/* while it is not NONE */
	uint64_t	counter_in, counter_out;
	struct mkv_mac	*mac_in, *mac_out;
	struct mkv_list	broken;		/* rail.broken */
	uint32_t	n_held;
	struct mkv_list	held;		/* messages that cannot be taken now, in the order in which they came */
	/* rail_ctl.c */
	uint8_t		control;	/* MKV_WIRE_CONTROL_*: what carries its messages */
	uint32_t	msg_bytes;	/* in datagrams that are kept */
	struct mkv_addr	peer;		/* where datagrams come from and go */
	struct mkv_window window;
	struct mkv_answers answers;
	struct mkv_list	outs, dirty;	/* answers that leave by datagram with nothing to wait for; rail.ctl_dirty */
	struct mkv_chan	*next;		/* of those that hash like it */
};

struct mkv_rail {
	uint32_t	magic;
	struct mkv_front *f;
	struct mkv_rail_conf conf;
	char		device[MKV_RDMA_NAME_BYTES];
	struct mkv_rdma_dev *dev;
	struct mkv_rdma_hub *hub;
	struct mkv_rdma_mem *stage, *arena[MKV_FRONT_DRIVES_MAX];
	struct mkv_chan	*chans;		/* one a connection */
	struct chan_held *held;
	struct mkv_list	held_free;
	struct mkv_list	dirty;		/* lines with something to post */
	struct mkv_list	broken;		/* channels that broke and are not gone yet */
	struct mkv_ctl	*ctl;
	struct mkv_list	ctl_dirty;	/* channels with answers for it */
	uint8_t		*sink;		/* where the byte of a flush lands */
	struct mkv_rdma_mem *sink_mem;
	uint32_t	recvs, credits_all, credits_left, sends_all, sends_left;
	uint32_t	n_open;
	int		up;
	struct mkv_rdma_count told;
};

static inline void
line_touch(struct mkv_line *line)
{
	if (mkv_list_empty(&line->dirty))
		mkv_list_push_tail(&line->rail->dirty, &line->dirty);
}

static inline const struct mkv_hdr *
held_hdr(const struct chan_held *m)
{
	return (m->msg != NULL ? (const struct mkv_hdr *)(const void *)m->msg->u.buf : (const struct mkv_hdr *)(const void *)m->rx->buf);
}

/* rail.c */
void		chan_take(struct mkv_chan *ch, struct chan_held *m);		/* a message that is whole and signed: done, or held */
void		chan_break(struct mkv_chan *ch, const char *why);
/* rail_xfer.c */
void		xfer_done(struct mkv_rdma_qp *qp, void *cookie, int status);
void		xfer_pump(struct mkv_line *line);
void		xfer_break(struct mkv_line *line);		/* what is not posted ends now; what is out comes back */
int		line_send(struct mkv_line *line, struct mkv_hdr *h, const void *body, struct mkv_out *o);	/* number, sign, post; 0; MKV_E_AGAIN: no room */
void		out_end(struct mkv_out *o, int res);
/* rail_ctl.c */
#define CTL_MSGS		1024u		/* of all sessions */
int		ctl_open(struct mkv_rail *r);
void		ctl_close(struct mkv_rail *r);		/* accepts one that was not opened */
int		ctl_may(const struct mkv_conn *c, const struct mkv_wire_attach *w);	/* 0: not here, or not with this client */
void		ctl_attach(struct mkv_chan *ch, const struct mkv_wire_attach *w);	/* the channel is about to be open */
void		ctl_detach(struct mkv_chan *ch);	/* its answers end, and it is not found any more */
uint16_t	ctl_port(const struct mkv_chan *ch);	/* for ATTACH's reply */
unsigned	ctl_turn(struct mkv_rail *r);		/* datagrams that wait */
int		ctl_busy(const struct mkv_rail *r);	/* 1: more do */
void		ctl_pump(struct mkv_rail *r);		/* answers that wait for nothing */
void		ctl_out(struct mkv_chan *ch, struct mkv_out *o);		/* now; ends it */
void		ctl_lost(struct mkv_chan *ch, struct mkv_out *o);		/* what was in front of it will not be done */
void		ctl_out_soon(struct mkv_chan *ch, struct mkv_out *o);
void		ctl_ack(struct mkv_chan *ch, const struct mkv_req *r);		/* a part of its put is here */
void		ctl_over(struct mkv_chan *ch, uint64_t id);			/* a request that came or not is over: it will not begin any more */
void		ctl_msg_back(struct mkv_rail *r, struct ctl_msg *m);
void		ctl_msg_segs(struct ctl_msg *m, struct mkv_remote *to);		/* segments that lie in a frame are kept in m */

#endif
