/*
 * RDMA in the library, inside.
 *
 *   rail_dev.c   the fabric: module, devices, which device for which rail, ports that come and go
 *   rail_reg.c   regions registered with devices
 *   rail_loop.c  hubs: completions, sleeping, bounce buffers
 *   rail_pool.c  the rails of a server: making connections to them, choosing one for a request
 *   rail.c       a rail's life: attach, proof, live, broken, again
 *   rail_qp.c    what it has of its device: an RC queue pair, or a DC target and an initiator
 *   rail_mem.c   whose memory a request has, and its segments
 *   rail_tx.c    messages out: requests, CANCEL, PING; credits
 *   rail_rx.c    messages in
 *   rail_ctl.c   messages that go by datagrams or by the tether instead
 *
 *     OFF --timer--> ATTACHING --reply--> CONNECTING --address known--> PROVING --PING's answer--> LIVE
 *      ^                 |                    |                            |                        |
 *      '-- idle, bye ----+----- BREAKING <----+----------------------------+----- error, fence -----'
 *
 * Memory. Of a request in LEG_SENT (or between its parts) the far end may read or write what its segments name: its slot is `lent`, its op OP_LENT. It comes
 * back when the last answer has come, CANCEL's answer has (RC), or after the fence: mkv_rail_qp_fence(), which costs the others on that rail a repetition.
 * What goes through a bounce buffer is never lent: the buffer stays with the slot instead.
 */
#ifndef MKV_CLIENT_RAIL_PRIV_H
#define MKV_CLIENT_RAIL_PRIV_H

#include "clients/lib/rail.h"
#include "clients/lib/tcp_priv.h"
#include "common/base/topo.h"
#include "common/base/udp.h"
#include "common/base/window.h"
#include "common/rdma/dc.h"
#include "common/rdma/mem.h"

#define RAIL_MAGIC		0x72a1c5e9u
#define RAIL_SLOTS		256u		/* requests of one queue pair at once; credits bound its messages */
#define RAIL_SENDS		64u		/* work requests of one queue pair */
#define RAIL_PUT_PARTS		4u		/* of one put without an answer */
#define RAIL_COPIES		72u		/* messages on their way that do not go by the queue pair */
#define RAIL_OURS_US		1000000u	/* deadline of PING and CANCEL */
#define HUB_RECVS		512u
#define HUB_RAILS_MOST		16u		/* whose CANCEL and PING always have a receive; more may, as a rule */
#define BOUNCE_BYTES		16384u
#define BOUNCES			64u
#define FRAME_BYTES		8192u		/* a message is made here: no get or put is longer, whatever its segments */
#define RAIL_ATTACH_NS		(2000 * MKV_NS_PER_MS)	/* of attaching, of the proof */
#define RAIL_LIMIT_NS		(1000 * MKV_NS_PER_MS)	/* of an answer that is owed, if nothing else is heard either */
#define RAIL_ALIVE_NS		(20000 * MKV_NS_PER_MS)	/* without a tether, nothing heard for so long: PING, or the server ends the session after 60 s */
#define RAIL_QUIET_NS		(300 * MKV_NS_PER_MS)	/* nothing heard for so long with requests out: PING */
#define RAIL_BACKOFF_NS		(100 * MKV_NS_PER_MS)
#define RAIL_BACKOFF_MOST_NS	(10000 * MKV_NS_PER_MS)
#define RAIL_PROVEN_NS		(1000 * MKV_NS_PER_MS)	/* live for so long: what ends it is news, not the old failure */
#define RAIL_CARRIED_NS		(10000 * MKV_NS_PER_MS)	/* its way has brought a value since: it works, whatever ends a queue pair */
#define RAIL_MARGIN_NS		(200 * MKV_NS_PER_US)
#define RAIL_CANCEL_NS		(50 * MKV_NS_PER_MS)	/* a caller who cancels gets the fence after this */

/* ---- fabric ---- */

struct fabric_dev {
	char		name[MKV_RDMA_NAME_BYTES];
	struct mkv_rdma_dev *dev;		/* NULL: not open. Under fabric->mutex; who counts in users may read without */
	unsigned	users;			/* hubs, and who registers with it; the same */
	int		gone;
	struct mkv_topo_place place;
	uint64_t	not_before_ns;		/* the next try to open it */
	_Atomic unsigned news;			/* raised when its queue pairs are worth nothing any more */
	_Atomic int	dc;			/* enum fabric_dc: tried by the first hub after it was opened */
};

enum fabric_dc { FABRIC_DC_UNTRIED, FABRIC_DC_NO, FABRIC_DC_YES };

struct fabric {
	struct mkv_client *c;
	pthread_mutex_t	mutex;			/* devices. Taken before */
	pthread_mutex_t	reg;			/* registrations of regions, taken before c->mutex */
	const struct mkv_verbs *v;
	unsigned	n;
	struct fabric_dev d[RDMA_DEVS_MAX];
	uint64_t	not_before_ns;		/* of the next try to find devices */
	char		why[WHY_BYTES];
};

/* The best device for a rail, opened if need be: its index; MKV_E_UNSUPPORTED with a sentence. */
int	mkv_fabric_choose(struct fabric *f, const struct mkv_wire_rail *w, uint64_t spread, char *why);
struct mkv_rdma_dev *mkv_fabric_take(struct fabric *f, unsigned i);	/* NULL: it has gone meanwhile */
void	mkv_fabric_leave(struct fabric *f, unsigned i);
void	mkv_fabric_events(struct fabric *f, unsigned i);	/* its descriptor is readable */
void	mkv_fabric_gone(struct fabric *f, unsigned i);		/* its node is */
void	mkv_fabric_try_dc(struct fabric *f, unsigned i, struct mkv_rdma_hub *h);	/* of a hub that was just opened: can it? */
int	mkv_fabric_dc(const struct fabric *f, unsigned i);
void	mkv_fabric_no_dc(struct fabric *f, unsigned i);		/* it said that it could, and cannot */
/* Registration of a region with a device: NULL: cannot be, for *err. */
struct mkv_rdma_mem *mkv_fabric_region(struct fabric *f, struct mkv_region *r, unsigned dev, int *err);
void	mkv_fabric_forget_device(struct fabric *f, unsigned dev);	/* under f->mutex: all regions' registrations with it */

/* ---- hub ---- */

struct bounce {
	struct mkv_list	link;
	uint8_t		*buf;			/* BOUNCE_BYTES */
};

struct rail_hub {
	struct rails	*rails;
	unsigned	idx;			/* of the device */
	struct mkv_rdma_dev *dev;
	struct mkv_rdma_hub *hub;		/* NULL: not open */
	struct mkv_list	list;			/* rails that have a queue pair, by link */
	unsigned	owed;			/* answers that may come: never more than receives */
	unsigned	news;			/* as of the device when the hub was opened */
	int		leaving;
	int		nodes;			/* tells of device nodes that leave; -1: nobody does */
	struct mkv_io	cq_io, aside_io, ev_io, node_io;
	int		cq_waits, aside_waits, ev_waits, node_waits;
	uint8_t		*bounce_buf;
	struct mkv_rdma_mem *bounce_mem;
	struct bounce	bounce[BOUNCES];
	struct mkv_list	bounce_free;
	uint8_t		*frame;
};

struct rails {
	struct loop	*l;
	int		stopping;
	struct rail_hub	hub[RDMA_DEVS_MAX];
};

struct rail_hub *mkv_rail_hub(struct loop *l, unsigned dev, char *why);	/* opened; NULL with a sentence */

/* ---- rail ---- */

enum rail_state {			/* who moves it on */
	RAIL_OFF,			/* the timer, if the tether is up */
	RAIL_ATTACHING,			/* ATTACH's reply, or the timer */
	RAIL_CONNECTING,		/* mkv_rails_poll(): the server's address is known, or not to be found; or the timer */
	RAIL_PROVING,			/* PING's answer, or the timer */
	RAIL_LIVE,
	RAIL_BREAKING			/* mkv_rails_poll(): its work requests come back, and DETACH is over */
};

struct rail_slot {			/* what is out on a queue pair */
	struct mkv_list	link;		/* rail->out in order of ids, or rail->free */
	uint64_t	id;		/* 0: free */
	struct leg	*leg;		/* NULL: ours (op), or it ended */
	uint8_t		op;		/* MKV_WIRE_* */
	uint8_t		lent;		/* the op is OP_LENT for it */
	uint8_t		ready;		/* its memory has been looked up */
	uint8_t		cancelled;	/* CANCEL is wanted, or sent */
	uint8_t		overtaken;	/* CANCEL was answered before it: its own answer comes by another way, or never */
	uint64_t	ours_for;	/* CANCEL: id of what it ends */
	unsigned	unanswered;	/* messages */
	unsigned	owed;		/* answers that may come */
	uint64_t	sent_ns;	/* PING, CANCEL */
	uint64_t	cancel_ns;	/* lent: then CANCEL; UINT64_MAX: it is on its way */
	uint64_t	fence_ns;	/* lent, cancelled by its caller: then the fence */
	uint64_t	ended_ns;	/* leg NULL: since then */
	struct mkv_list	cancel;		/* rail->cancels */
	/* rail_ctl.c */
	struct rail_copy *copy;		/* of a datagram without an answer; NULL: none */
	uint64_t	again_ns, wait_ns;	/* when it is sent once more; how long it was waited for this time */
	unsigned	tries;
	/* memory */
	struct mkv_rdma_mem *region;	/* of one region; or */
	struct bounce	*bounce;	/* or */
	struct mkv_rdma_mem **once;	/* one for each piece, registered for this request; malloced */
	unsigned	n_once;
};

struct rail_copy {			/* a message that does not go by the queue pair */
	struct mkv_list	link;		/* ctl.free, ctl.frames, or its slot's */
	uint8_t		*buf;
};

struct rail_ctl {
	uint8_t		by;		/* MKV_WIRE_CONTROL_*: what carries the channel's messages, once it is live */
	uint8_t		loose;		/* LOOSE is asked for, and then agreed: the tether may go */
	int		fd;		/* -1: no socket */
	int		waits, ready, leaving;
	struct mkv_io	io;
	uint32_t	most;		/* bytes of a datagram */
	uint64_t	srtt_ns;	/* from a datagram to its answer, the server's work included */
	uint64_t	heard_ns, dumb_ns;	/* last datagram; until then all goes by the tether */
	struct rail_copy copy[RAIL_COPIES];
	uint8_t		*slab;		/* of copies and of one batch of answers; NULL until it is wanted */
	struct mkv_list	free, frames;	/* copies; those that wait for the tether */
	uint64_t	bye_id;		/* of a DETACH that has no answer; 0: none is out */
	uint64_t	bye_ns;		/* when it is sent once more, or given up */
	unsigned	bye_tries;
	int		down;		/* the socket is closed when that is over */
};

struct rail {
	uint32_t	magic;
	struct conn	*c;		/* the tether */
	int		alone;		/* LIVE, and the tether was given up */
	uint64_t	session_id;	/* the tether's, also when that has gone */
	enum rail_state	state;
	struct rail_hub	*hub;		/* while there is a queue pair */
	struct mkv_list	link;		/* hub->list */
	struct mkv_rdma_qp *qp;		/* by which messages leave: a queue pair, or an initiator aimed at the server's target */
	struct mkv_rdma_qp *target;	/* DC: by which the far end reaches us; NULL: RC, the queue pair is that too */
	struct mkv_rdma_way *way;	/* DC: to the server's target, ... */
	struct mkv_rdma_dct to;		/* ... which is that one */
	struct mkv_timer timer;
	uint64_t	live_ns, heard_ns;
	uint64_t	srtt_ns;
	int		trying;		/* counted in the server's rail_tries */
	int		unfenced;	/* BREAKING, and the NIC has not let go: what is out is lost when it is quiet, for this error */
	int		again;		/* its tether begins anew at once, and it is still the same try */
	int		soon;		/* it was up, and is tried again at once */
	/* channel */
	uint16_t	channel;	/* the last one that was asked for on this tether */
	uint64_t	tx_counter, rx_counter;
	struct mkv_window rx_window;	/* in place of rx_counter where answers have no order */
	struct mkv_mac	*mac_tx, *mac_rx;
	uint32_t	peer_bytes;	/* of the far end's receives */
	unsigned	credits, n_msgs, n_ours;	/* messages without an answer; of them CANCEL and PING */
	/* requests */
	struct rail_slot slot[RAIL_SLOTS], *ping;
	struct mkv_list	free, out, txq, cancels;
	unsigned	n_out;
	struct rail_ctl	ctl;
};

/* rail.c */
void	mkv_rail_break(struct rail *r, int err, const char *why);	/* fence; all requests are lost */
void	mkv_rail_trouble(struct rail *r, int err, const char *why);	/* in any state: it broke */
void	mkv_rail_idle(struct rail *r);				/* its queue pair is quiet */
void	mkv_rail_connected(struct rail *r);			/* CONNECTING: is the server's address known now? */
void	mkv_rail_proven(struct rail *r);
void	mkv_rail_watch(struct rail *r);				/* what is due, and when the next is */
/* rail_qp.c */
int	mkv_rail_is_dc(const struct rail *r);
int	mkv_rail_qp_make(struct rail *r, const struct mkv_rdma_qp_ops *ops);	/* of r->hub */
void	mkv_rail_qp_tell(const struct rail *r, struct mkv_wire_attach *w);	/* transport, numbers, address */
int	mkv_rail_qp_connect(struct rail *r, const struct mkv_wire_attach *w);	/* begin: 0; MKV_E_*: as mkv_rdma_qp_connect(); UNSUPPORTED: path MTUs differ */
int	mkv_rail_qp_connected(struct rail *r);				/* 0: it is; MKV_E_AGAIN: not yet; else why not */
int	mkv_rail_qp_without_dc(struct rail *r, int err);			/* 1: DC is what failed for err: RC the next time */
int	mkv_rail_qp_fence(struct rail *r);				/* 1: it holds */
int	mkv_rail_qp_idle(const struct rail *r);
void	mkv_rail_qp_drop(struct rail *r);				/* what was made; idle, or fresh and fenced */
/* rail_pool.c */
void	mkv_rails_live(struct rail *r, int up);			/* counts */
void	mkv_rails_failed(struct rail *r, int err, const char *why);
void	mkv_rails_backoff(struct rail *r);			/* one failure of its rail */
uint64_t mkv_rails_wait(const struct rail *r);			/* until it may be tried again */
void	mkv_rails_level(struct rail *r);				/* it came up: is another one too much now? */
void	mkv_rails_trying(struct rail *r, int on);
void	mkv_rails_carried(struct rail *r);			/* a value went by it that lay in no bounce buffer */
/* rail_mem.c */
int	mkv_rail_mem_take(struct rail *r, struct rail_slot *s);	/* 0; MKV_E_AGAIN no bounce buffer; else: not by this way */
void	mkv_rail_mem_drop(struct rail *r, struct rail_slot *s);
int	mkv_rail_mem_fits(const struct op *o, const struct leg *l, uint32_t part_bytes);
unsigned mkv_rail_mem_segs(struct rail *r, struct rail_slot *s, uint64_t off, uint64_t bytes, struct mkv_wire_seg *seg, unsigned max);	/* 0: too many */
void	mkv_rail_mem_fill(struct rail_slot *s, uint64_t bytes);	/* bounce: put's bytes into it */
/* rail_tx.c */
struct rail_slot *mkv_rail_slot(struct rail *r, uint64_t id);
struct leg *mkv_rail_slot_free(struct rail *r, struct rail_slot *s);	/* memory back; its leg, if any */
void	mkv_rail_answered(struct rail *r, struct rail_slot *s, unsigned msgs);
void	mkv_rail_cancel(struct rail *r, struct rail_slot *s);
void	mkv_rail_ping(struct rail *r);
void	mkv_rail_due(struct rail *r, uint64_t at_ns);		/* something has to be done then */
uint32_t mkv_rail_ack_below(const struct rail *r, const struct mkv_hdr *h);
/* rail_rx.c */
void	mkv_rail_recv(struct mkv_rdma_qp *qp, struct mkv_rdma_rx *rx);
int	mkv_rail_hdr_check(const struct mkv_hdr *h);		/* of an answer; 0 or MKV_E_* */
int	mkv_rail_answer(struct rail *r, const struct mkv_hdr *h, const uint8_t *body);	/* one that is whole, signed and new, whatever carried it */
/* rail_ctl.c */
void	mkv_ctl_init(struct rail *r);
void	mkv_ctl_fini(struct rail *r);
void	mkv_ctl_ask(struct rail *r, struct mkv_wire_attach *w);	/* its fields of an ATTACH */
int	mkv_ctl_refused(struct rail *r, int err);			/* 1: that may be for the datagrams; it is not asked for them again */
int	mkv_ctl_attached(struct rail *r, const struct mkv_wire_attach *w);	/* 0; MKV_E_PEER */
void	mkv_ctl_tether_down(struct rail *r);
void	mkv_ctl_bye(struct rail *r);				/* the channel is given up, and fenced: the server is told, if it would not find out */
int	mkv_ctl_says_bye(const struct rail *r);			/* 1: that is not over */
void	mkv_ctl_bye_due(struct rail *r);			/* perhaps */
int	mkv_ctl_is_off(const struct rail *r);			/* 1: nothing of its socket is with the queue */
int	mkv_ctl_has_room(const struct rail *r);			/* 1: for one more message */
void	mkv_ctl_send(struct rail *r, struct rail_slot *s, const struct mkv_hdr *h);	/* and its body */
int	mkv_ctl_again(struct rail *r, struct rail_slot *s);	/* again_ns is here. 1: it cannot leave by any way: the rail is to break */
int	mkv_ctl_fits(const struct rail *r, const struct rail_slot *s, const struct mkv_hdr *h);	/* 0: not without a tether */
int	mkv_ctl_may_drop(const struct rail *r);			/* 1: nothing is asked of the tether, and datagrams are answered */
void	mkv_ctl_forget(struct rail *r, struct rail_slot *s);	/* nothing of it is sent any more */
uint64_t mkv_ctl_margin(const struct rail *r);			/* before a deadline, for CANCEL and its answer */
void	mkv_ctl_poll(struct rail *r);
void	mkv_ctl_wait(struct rail *r);

/* What the far end may do with memory. An answer by another way than the queue pair follows a READ that pushes what was written, which relaxed ordering does not promise. */
static inline unsigned
rail_access(const struct conf *cf, unsigned access)
{
	return (cf->rdma_control == MKV_WIRE_CONTROL_RDMA ? access : access | MKV_RDMA_STRICT);
}

#endif
