/*
 * Inside the rail: rail.c (device, ATTACH, messages in) and rail_xfer.c (pieces, answers out, completions). One loop thread.
 */
#ifndef MKV_WORKER_FRONT_RAIL_PRIV_H
#define MKV_WORKER_FRONT_RAIL_PRIV_H

#include "worker/front/front_priv.h"
#include "worker/front/rail.h"

#include "common/rdma/mem.h"
#include "common/rdma/qp.h"

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
#define RAIL_POLL_BATCH		64u

_Static_assert(REQ_BODY_BYTES <= PART_BODY_BYTES && LINE_SEND_BYTES <= MKV_WIRE_RDMA_BYTES, "every answer of a channel fits");

enum chan_state {
	CHAN_NONE,		/* ATTACH moves it on */
	CHAN_OPEN,		/* its first error, or the end of the session */
	CHAN_BROKEN,		/* the last completion of its queue pair */
};

enum line_rec_kind { REC_READ, REC_WRITE, REC_SEND };
struct line_rec {		/* a work request that is out */
	uint8_t		kind;
	uint32_t	bytes;
	struct mkv_part	*part;		/* READ, WRITE */
	struct mkv_out	*o;		/* SEND of an answer that somebody waits for; may be NULL */
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

struct chan_held {		/* a message; there are as many as receives */
	struct mkv_list	link;		/* chan.held or rail.held_free */
	struct mkv_rdma_rx *rx;
	uint64_t	came_ns, until_ns;
};

struct mkv_chan {
	uint32_t	magic;
	struct mkv_conn	*c;		/* while it is not NONE */
	struct mkv_rail	*rail;
	uint8_t		state, heard;
	uint16_t	number;		/* on the wire; of the last one while NONE */
	uint16_t	credits;
	struct mkv_line	*line;		/* while it is not NONE */
	uint64_t	counter_in, counter_out;
	struct mkv_mac	*mac_in, *mac_out;
	struct mkv_list	broken;		/* rail.broken */
	uint32_t	n_held;
	struct mkv_list	held;		/* messages that cannot be taken now, in the order in which they came */
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

/* rail.c */
void		chan_break(struct mkv_chan *ch, const char *why);
/* rail_xfer.c */
void		xfer_done(struct mkv_rdma_qp *qp, void *cookie, int status);
void		xfer_pump(struct mkv_line *line);
void		xfer_break(struct mkv_line *line);		/* what is not posted ends now; what is out comes back */
int		line_send(struct mkv_line *line, struct mkv_hdr *h, const void *body, struct mkv_out *o);	/* number, sign, post; 0; MKV_E_AGAIN: no room */

#endif
