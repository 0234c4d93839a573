/*
 * Inside the rail: rail_dev.c (the device), rail.c (ATTACH, messages in), rail_dc.c (what is DC's: pool, target, leases), rail_xfer.c (pieces, answers out,
 * completions) and rail_ctl.c (messages by datagrams and by the tether). One loop thread.
 */
#ifndef MKV_WORKER_FRONT_RAIL_PRIV_H
#define MKV_WORKER_FRONT_RAIL_PRIV_H

#include "worker/front/front_priv.h"
#include "worker/front/rail.h"

#include "common/base/udp.h"
#include "common/base/window.h"
#include "common/rdma/dc.h"
#include "common/rdma/mem.h"
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
#define CHAN_RECEIVES_OVER	4u		/* a put's may come back a moment after its answer has left */
#define CHAN_NOTES_MAX		(2 * CHAN_HELD_MAX)	/* of each message an answer, and that once more */
#define CHAN_MSG_BYTES_MAX	65536u		/* datagrams of a session whose requests are not done with them */
#define RAIL_POLL_BATCH		64u
#define RAIL_WATCH_NS		MKV_NS_PER_SEC	/* how often lines are looked at that nothing comes back of */
#define RAIL_OPENING_MOST	32u		/* clients whose addresses are looked up at once: they may be addresses where nobody is */

_Static_assert(REQ_BODY_BYTES <= PART_BODY_BYTES && LINE_SEND_BYTES <= MKV_WIRE_RDMA_BYTES, "every answer of a channel fits");

enum chan_state {
	CHAN_NONE,		/* ATTACH moves it on */
	CHAN_OPENING,		/* a thread of the hub looks the client up: its word, or the end of the session or of ATTACH */
	CHAN_OPEN,		/* its first error, or the end of the session */
	CHAN_BROKEN,		/* the last completion of its lines */
};

enum line_rec_kind { REC_READ, REC_WRITE, REC_SEND, REC_FLUSH };
struct line_rec {		/* a work request that is out */
	uint8_t		kind;
	uint32_t	bytes, rkey;
	uint64_t	addr;		/* its last byte, with the client */
	struct mkv_part	*part;		/* READ, WRITE */
	struct mkv_out	*o;		/* SEND of an answer that somebody waits for; may be NULL. FLUSH: it leaves by another way when this is back */
};

/* A queue pair and what is on it. RC: a channel has one for its life. DC: an initiator, leased to one request of the channel. */
struct mkv_line {
	uint32_t	magic;
	uint8_t		dc, broken;
	uint8_t		vital;		/* DC: it carries a word that the client must hear */
	uint32_t	users;		/* DC: requests whose answers go by it: the one that has it, and CANCELs */
	struct mkv_req	*rests;		/* DC: of them one that waits for its client, and needs it no more when nothing is out; NULL: none */
	struct mkv_list	link;		/* DC: chan.lines, or rail.line_free */
	struct mkv_list	over;		/* DC: rail.over */
	struct mkv_rail	*rail;
	struct mkv_chan	*ch;		/* DC: NULL while it is free */
	struct mkv_rdma_qp *qp;
	struct mkv_list	dirty;		/* rail.dirty: something to post */
	struct mkv_list	xfers;		/* one of each request that has pieces to post, in turns */
	struct mkv_list	outs;		/* answers without payload */
	uint32_t	window;		/* bytes of pieces that are out */
	unsigned	reads;		/* READs that are out */
	uint32_t	sends;		/* of rec[] */
	uint64_t	moved_ns;	/* something of it came back, or went out with nothing in front of it */
	uint32_t	rec_head, rec_tail;
	struct line_rec	rec[LINE_SENDS_MAX];
};

/* Memory of a message that did not come by a queue pair: a datagram, segments of a frame of the tether, or an answer that no request owns. */
struct ctl_msg {
	struct mkv_list	link;		/* ctl.free */
	struct mkv_rail	*rail;
	struct mkv_chan	*ch;		/* a datagram: whose bytes it counts among; an answer: whose it is */
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
	uint8_t		state, heard;
	uint8_t		dc;		/* else RC */
	uint8_t		n_rnr, n_path;	/* DC: failures in a row */
	uint8_t		woken;		/* DC: it is its turn to have a line */
	uint8_t		wants_last;	/* DC: it waits for one that others do not get */
	uint8_t		control;	/* MKV_WIRE_CONTROL_*: what carries its messages */
	uint8_t		loose;		/* its client may close the tether */
	uint16_t	number;		/* on the wire; of the last one while NONE */
	uint16_t	credits;
	uint16_t	receives;	/* set aside for its messages */
	uint16_t	n_rx;		/* that its messages have */
	uint32_t	n_held;
	struct mkv_conn	*c;		/* while it is not NONE */
	struct mkv_rail	*rail;
	struct mkv_line	*line;		/* RC: while it is not NONE */
	struct mkv_mac	*mac_in, *mac_out;
	uint64_t	counter_in, counter_out;	/* in: where messages have an order */
	uint64_t	heard_ns;	/* its last message */
	struct mkv_window window;	/* counters in, where they have none */
	struct mkv_list	broken;		/* rail.broken */
	struct mkv_list	held;		/* messages that cannot be taken now, in the order in which they came */
	struct mkv_chan	*next;		/* of those that hash like it: datagrams and DC are found by their session */
	struct mkv_req	*attach;	/* OPENING: who waits for it */
	struct mkv_list	opening;	/* OPENING: rail.opening */
	/* rail_dc.c */
	struct mkv_rdma_way *way;	/* to the client's target */
	struct mkv_list	lines;		/* that it has */
	struct mkv_list	late;		/* answers of requests that had given their line back */
	uint32_t	n_lines;
	struct mkv_line	*obit;		/* the one by which the client hears of requests that failed, while such a word is out */
	struct mkv_list	wait;		/* rail.wait */
	struct mkv_rdma_dct dct;	/* the client's target */
	/* rail_ctl.c */
	uint32_t	msg_bytes;	/* in datagrams that are kept; those of a former channel's requests, too, until they are gone */
	uint16_t	n_notes;	/* answers by the tether that no request owns; the same */
	struct mkv_addr	peer;		/* where datagrams come from and go */
	struct mkv_answers answers;
	struct mkv_list	outs, dirty;	/* answers that leave by datagram with nothing to wait for; rail.ctl_dirty */
};
/* A client of DC has no more than this here but for its session (conn.c) and two MACs; docs/internals/rdma.md has the sum. */
_Static_assert(sizeof(struct mkv_chan) <= 640, "a channel is small");

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
	/* DC; pool NULL: only RC, dc_why says why */
	struct mkv_rdma_pool *pool;
	struct mkv_rdma_qp *target;
	struct mkv_line	*lines;
	uint32_t	dc_n, dc_sends, dc_keep;	/* initiators, work requests of each, how many of them are for PING and CANCEL */
	struct mkv_list	line_free, over;	/* lines; those that may have nothing left to do */
	struct mkv_list	wait;		/* channels whose next message waits for a line */
	uint32_t	n_dc;		/* channels */
	int		dc_lost;	/* the target broke */
	char		dc_why[256];
	struct mkv_ctl	*ctl;
	struct mkv_list	ctl_dirty;	/* channels with answers for it */
	uint8_t		*sink;		/* where the byte of a flush lands */
	struct mkv_rdma_mem *sink_mem;
	uint32_t	recvs, credits_all, credits_left, sends_all, sends_left;
	struct mkv_list	opening;
	uint32_t	n_opening;
	uint32_t	n_open;		/* those that are opening, too */
	int		up;			/* clients may come: the port is active, and has the address that they are told */
	int		port_up, no_gid;
	int		alarm_set;		/* of the receives that are left */
	struct mkv_timer watch;		/* while there are channels: lines that nothing comes back of */
	struct mkv_rdma_count told;
};

static inline struct mkv_chan *
chan_of(const struct mkv_conn *c)
{
	return (c->f->rail == NULL ? NULL : &c->f->rail->chans[c->idx]);
}

static inline int
line_is_open(const struct mkv_line *line)
{
	return (!line->broken && line->ch->state == CHAN_OPEN);
}

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

/* rail_dev.c */
void		rail_alarm(struct mkv_rail *r);			/* set again, if it has rung */
/* rail.c */
void		line_init(struct mkv_line *line, struct mkv_rail *r, uint32_t sends);
void		chan_message(struct mkv_chan *ch, struct mkv_rdma_rx *rx);	/* by RDMA; takes rx */
void		chan_rx_back(struct mkv_chan *ch, struct mkv_rdma_rx *rx);	/* of a message of it */
void		chan_take(struct mkv_chan *ch, struct chan_held *m);		/* a message that is whole and signed: done, or held */
void		chan_break(struct mkv_chan *ch, const char *why);
void		rail_watch(struct mkv_timer *t, uint64_t now_ns);
/* rail_dc.c */
void		rail_dc_share(struct mkv_rail *r, uint32_t sends);	/* how many initiators, if there can be so many work requests */
void		rail_dc_open(struct mkv_rail *r);			/* or dc_why is set */
void		rail_dc_close(struct mkv_rail *r);
void		rail_lines_back(struct mkv_rail *r);
int		rail_dc_is_due(const struct mkv_rail *r);		/* 1: there is something for rail_lines_back() and mkv_rail_wake() */
int		dc_can(const struct mkv_rail *r, const struct mkv_wire_attach *w);
int		dc_attach(struct mkv_chan *ch, const struct mkv_wire_attach *w);	/* begin: 0; MKV_E_PEER, MKV_E_BUSY, MKV_E_NOMEM */
int		dc_attached(struct mkv_chan *ch);			/* 0; MKV_E_AGAIN: the way is not known yet; else why not */
void		dc_break_lines(struct mkv_chan *ch);
void		dc_reply_late(struct mkv_chan *ch, struct mkv_out *o);	/* by the next line that there is */
void		dc_run(struct mkv_chan *ch);				/* there may be one now */
void		dc_say_cancelled(const struct chan_held *m, const struct mkv_req *cancel);	/* the answer of one that waits */
void		line_rest(struct mkv_line *line);			/* goes back soon, if nothing of it is left */
/* rail_xfer.c */
void		xfer_done(struct mkv_rdma_qp *qp, void *cookie, int status);
void		xfer_pump(struct mkv_line *line);
void		xfer_break(struct mkv_line *line);		/* what is not posted ends now; what is out comes back */
int		line_send(struct mkv_line *line, struct mkv_hdr *h, const void *body, struct mkv_out *o);	/* number, sign, post; 0; MKV_E_AGAIN: no room */
/* An answer to request id without a body, that nobody waits for. As line_send(). */
int		line_word(struct mkv_line *line, uint8_t op, uint64_t id, unsigned flags, int status, unsigned reason);
void		out_end(struct mkv_out *o, int res);
/* rail_ctl.c */
#define CTL_MSGS		1024u		/* of all sessions */
int		ctl_open(struct mkv_rail *r);
void		ctl_close(struct mkv_rail *r);		/* accepts one that was not opened */
struct mkv_chan *ctl_find(struct mkv_rail *r, uint64_t session, uint16_t channel);	/* of datagrams or DC; NULL: none that is open */
int		ctl_may(const struct mkv_conn *c, const struct mkv_wire_attach *w);	/* 0: not here, not with this client, or LOOSE with what cannot be */
void		ctl_attach(struct mkv_chan *ch, const struct mkv_wire_attach *w);	/* the channel is about to be open */
void		ctl_detach(struct mkv_chan *ch);	/* its answers end, and it is not found any more */
uint16_t	ctl_port(const struct mkv_chan *ch);	/* for ATTACH's reply */
unsigned	ctl_turn(struct mkv_rail *r);		/* datagrams that wait */
int		ctl_busy(const struct mkv_rail *r);	/* 1: more do, or ctl_wake() has something to do */
void		ctl_wake(struct mkv_rail *r);		/* connections whose frames waited for memory */
void		ctl_pump(struct mkv_rail *r);		/* answers that wait for nothing */
void		ctl_out(struct mkv_chan *ch, struct mkv_out *o);		/* now; ends it */
void		ctl_keep(struct mkv_chan *ch, const struct mkv_out *o);		/* it leaves: should its request come once more, that is answered by it */
void		ctl_lost(struct mkv_chan *ch, struct mkv_out *o);		/* what was in front of it will not be done */
int		ctl_tell(struct mkv_chan *ch, struct mkv_out *o);		/* by the tether, or where that is gone by a datagram; 1: o is under way */
void		ctl_out_soon(struct mkv_chan *ch, struct mkv_out *o);
void		ctl_ack(struct mkv_chan *ch, const struct mkv_req *r);		/* a part of its put is here */
void		ctl_say_broken(struct mkv_chan *ch);				/* the client hears that the channel is over */
void		ctl_say_cancelled(struct mkv_chan *ch, const struct chan_held *m);	/* a datagram's request that has not begun */
void		ctl_over(struct mkv_chan *ch, uint64_t id);			/* a request that came or not is over: it will not begin any more */
struct ctl_msg *ctl_msg_take(struct mkv_rail *r);		/* NULL: all are in use */
void		ctl_msg_back(struct mkv_rail *r, struct ctl_msg *m);
void		ctl_msg_segs(struct ctl_msg *m, struct mkv_remote *to);		/* segments that lie in a frame are kept in m */

#endif
