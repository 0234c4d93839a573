/*
 * The TCP carrier, inside: one struct conn a connection, all of the loop's thread.
 *
 *   tcp_pool.c   the transport's ops; connections of a server: making, choosing, ending them
 *   tcp_hello.c  the handshake
 *   tcp_tx.c     frames out: small ones are collected in tx_buf, large payload goes from the caller's memory, at most one such frame a send
 *   tcp_rx.c     frames in: headers and bodies through rx_buf, payload straight into the caller's memory in pieces
 *   tcp_local.c  which of them go by the unix socket of a server on this host
 *   tcp_ref.c    values that go by reference there: windows, chunks, what is copied; tcp_region.c shows the server the memory
 *
 * A connection that asked for a rail is the tether of a queue pair as well (rail.h).
 */
#ifndef MKV_CLIENT_TCP_PRIV_H
#define MKV_CLIENT_TCP_PRIV_H

#include "clients/lib/client_priv.h"
#include "clients/lib/rail.h"
#include "clients/lib/transport.h"
#include "clients/lib/shmwin.h"

#define CONN_MAGIC	0x44e1d7b2u
#define CONN_SLOTS	256u		/* requests of one connection at once; the server's credits may allow fewer */
#define TX_BUF_BYTES	(192u * 1024)	/* a whole key list and small frames beside it */
#define TX_IOV		64u
#define TX_COPY_MAX	8192u		/* payload up to here is copied behind its header */
#define RX_AHEAD_BYTES	4096u		/* read beyond a header while values are on their way: costs a copy of as much */
#define RX_BUF_BYTES	(MKV_WIRE_HDR_BYTES + MKV_WIRE_BODY_MAX + RX_AHEAD_BYTES)
#define RX_PIECE_BYTES	(256u * 1024)	/* recv of payload: stays in L2 for the CRC */
#define RX_TURN_BYTES	(1024u * 1024)	/* copied out of the window in one turn of the loop: whose deadline comes meanwhile waits for it */
#define RX_LARGE_BYTES	16384u		/* values from here on count as "on their way" */
#define SILENCE_NS	(1000 * MKV_NS_PER_MS)	/* a connection that owes answers nobody waits for is ended after so long without a byte */
#define DRAIN_MOST_BYTES (16ull << 20)	/* of one request that has ended; more: end the connection */

enum conn_state {			/* who moves it on */
	CONN_IDLE,			/* tcp_want(), tcp_probe() */
	CONN_NAMING,			/* the resolver */
	CONN_CONNECTING,		/* the kernel, or the limit */
	CONN_HELLO, CONN_AUTH,		/* the server, or the limit */
	CONN_READY,
	CONN_CLOSING			/* the ends of send and recv */
};

enum rx_state { RX_FRAME, RX_PAYLOAD, RX_WINDOW };

enum slot_way { WAY_SOCKET, WAY_WINDOW, WAY_REGION };	/* of the value */

struct slot {				/* one request on the wire */
	struct mkv_list	link;		/* conn->out in order of ids, or conn->slot_free */
	struct mkv_list	notice;		/* conn->notices: tell the server that this one has ended */
	uint64_t	id;		/* sequence << 8 | place */
	struct leg	*leg;		/* NULL: ended, its answer will be dropped */
	uint64_t	ended_ns, drained;
	uint64_t	cancels;	/* a CANCEL: id of the request that it ends */
	int		large;		/* a long answer may come */
	uint8_t		midway;		/* op of which the server waits for further parts; 0: of none */
	uint16_t	attach;		/* an ATTACH: the channel that it asks for */
	uint8_t		way;		/* enum slot_way */
	struct chunk	chunk;		/* of the window, until the slot is released: the server may be at it */
	uint32_t	region;		/* a REGION: its number */
	uint32_t	into;		/* a get: number of the region that the server may write to, until the slot is released; 0: none */
};

enum passed_state {			/* who moves it on */
	PASSED_LATER,			/* who wants it, after not_before_ns */
	PASSED_TO_SEND, PASSED_TO_DROP,	/* tx, which sends a REGION */
	PASSED_ASKED, PASSED_DROPPING,	/* the server's answer */
	PASSED_UP,			/* the server has it; mkv_pass_sweep() */
	PASSED_REFUSED			/* for as long as the connection lasts */
};

#define PASSED_MAX	64u		/* regions of one connection; what comes later goes through the window */

struct passed {				/* a region that the server was shown, or is to be */
	uint32_t	number;		/* 0: free */
	enum passed_state state;
	int		fd;		/* -1: none any more */
	int		gone;		/* its caller has freed it */
	uint64_t	bytes, not_before_ns;
};

struct ref {				/* payload by reference, on the unix socket */
	int		on;		/* both ends can */
	int		stable;		/* the server may have drives read into the window */
	int		no_window;	/* one could not be made */
	struct shmwin	window;
	struct passed	passed[PASSED_MAX];
	unsigned	due;		/* of passed[]: those for tx */
	unsigned	seen;		/* client's regions_gone */
	unsigned	rx_turn;	/* the loop's, when it copied out last */
	uint64_t	copied;		/* into the window for the send that is being made */
	uint32_t	crcs[PART_CRCS_MAX];
};

struct conn {
	uint32_t	magic;
	unsigned	idx;
	struct server	*srv;
	enum conn_state	state;
	int		fd, error, was_ready, peer_ended;
	struct mkv_timer timer;
	struct sockaddr_storage sa;
	socklen_t	sa_bytes;
	/* session */
	uint64_t	session_id, tx_counter, rx_counter;
	struct mkv_mac	*mac_tx, *mac_rx;
	uint8_t		nonce[32], transcript_in[MKV_WIRE_HDR_BYTES + sizeof(struct mkv_wire_hello)];
	uint8_t		nonce_s[32], transcript[32];	/* with nonce: for keys of further channels */
	uint32_t	front_id;
	uint8_t		server_id[16];
	struct mkv_wire_local told;	/* with has_told: HELLO's reply had it */
	int		has_told;
	uint32_t	part_bytes, credits;
	uint64_t	heard_ns;
	struct rail	*rail;		/* NULL: to a TCP front */
	unsigned	rail_idx;	/* in pool->rail[] */
	int		local;		/* by the unix socket */
	int		leaving;	/* takes nothing more, and ends when nothing is on it */
	/* requests */
	struct slot	slot[CONN_SLOTS];
	struct mkv_list	slot_free, out, notices;
	unsigned	n_out, n_large;
	uint64_t	sequence;
	/* send: one at a time */
	struct mkv_list	txq;		/* legs in LEG_QUEUED */
	struct mkv_io	tx_io;
	int		tx_busy;
	struct leg	*tx_leg;	/* the frame in work; its op is lent while tx_lent */
	int		tx_lent;
	uint8_t		*tx_buf;
	uint32_t	tx_used;
	struct iovec	tx_iov[TX_IOV];
	unsigned	tx_n;
	struct mkv_list	tx_small;	/* legs whose whole frame is in tx_buf, on their way */
	struct stage	tx_stage;	/* a part of a put of a GPU's memory, until it is sent */
	struct ref	ref;
	/* receive: one at a time */
	struct mkv_io	rx_io;
	int		rx_busy;
	enum rx_state	rx;
	uint8_t		*rx_buf;
	uint32_t	rx_head, rx_tail;
	struct mkv_hdr	rx_hdr;		/* of the payload that is coming */
	struct slot	*rx_slot;	/* NULL: nobody's */
	int		rx_lent;	/* the kernel writes to the caller's memory */
	int		rx_staging;	/* it writes to rx_stage */
	uint64_t	rx_left;
	void		*rx_to;
	uint32_t	rx_crcs[PART_CRCS_MAX + 1], rx_crcs_n, rx_crc_at, rx_crc, rx_crc_left;
	struct stage	rx_stage;	/* a get into a GPU's memory: bytes of rx_leg before rx_off that are not there yet */
	uint32_t	rx_staged, rx_stage_room;	/* how many; how many together before they are copied */
};

struct rail_known {			/* a rail as the server told of it */
	struct mkv_wire_rail wire;
	uint64_t	backoff_ns, not_before_ns;	/* after failures */
	uint64_t	carried_ns;			/* when a value of more than a bounce buffer last went by it */
	/* Until the server tells of its rails anew: */
	int		no_dc;		/* it lists DC, and does not take it from us */
	int		no_udp;		/* it has refused control by datagrams */
	int		no_loose;	/* it has refused to go on without a tether */
	uint32_t	loose_most;	/* without one the path took no longer datagram, said the kernel; 0: it has not */
};

struct local {				/* the server's unix socket */
	int		told, known;	/* a session has said where it is, or that there is none; it is on this host */
	unsigned	n_up;		/* connections that are READY */
	char		path[LOCAL_PATH_BYTES];
	uint8_t		server_id[16];
	uint64_t	backoff_ns, not_before_ns;	/* after failures */
};

struct pool {
	struct server	*srv;
	struct local	local;
	unsigned	n, n_plain;	/* of conn[]; the first n_plain go to TCP fronts, the others to rails */
	int		told;		/* rail[] is what the server said */
	unsigned	n_rails, next_rail;
	unsigned	turn;		/* which of those for rails took a value last */
	struct rail_known rail[MKV_WIRE_RAILS_MAX];
	struct mkv_timer timer;		/* a rail, or the unix socket, may be tried again */
	struct conn	conn[];
};

static inline struct pool *
conn_pool(const struct conn *c)
{
	return (c->srv->pool);
}

/* tcp_pool.c */
void		mkv_conn_begin(struct conn *c);			/* from CONN_IDLE */
void		mkv_conn_fail(struct conn *c, int err);		/* end it; its requests are lost (now, or when the kernel gave their memory back) */
void		mkv_conn_drop(struct conn *c);			/* nothing is on it, and its rail goes on without */
void		mkv_conn_retire(struct conn *c);		/* the same of one that is no tether */
void		mkv_conn_check_closed(struct conn *c);		/* after recv or send ended */
void		mkv_conn_ready(struct conn *c);
struct slot *	mkv_conn_slot(struct conn *c, uint64_t id);
struct slot *	mkv_slot_take(struct conn *c, struct leg *l);		/* NULL: as many are out as the server allows */
struct leg *	mkv_slot_release(struct conn *c, struct slot *s);	/* its leg, no longer the carrier's; may be NULL */
void		mkv_conn_ended(struct conn *c, struct slot *s);	/* nobody waits for this answer any more */
void		mkv_conn_early_reply(struct conn *c, struct leg *l);	/* answered before its last part was sent: act on it now */
void		mkv_pool_arm(struct pool *p, uint64_t at_ns);	/* look then what is missing */
/* tcp_local.c */
void		mkv_local_open(struct pool *p);
int		mkv_local_exact(const struct pool *p);		/* requests go by the socket, or not at all */
int		mkv_local_wanted(const struct pool *p);		/* the next connection goes there */
int		mkv_local_is_up(const struct pool *p);
void		mkv_local_address(struct conn *c);
void		mkv_local_told(struct conn *c, const struct mkv_wire_local *w);	/* by a server that has proven itself; NULL: it has none */
int		mkv_local_only_told(const struct conn *c);	/* it has said where the socket is, and serves nobody: whether the server does is not known yet */
int		mkv_local_check(const struct conn *c);		/* 0; MKV_E_PEER: another server listens there */
void		mkv_local_up(struct conn *c);
void		mkv_local_down(struct conn *c, int err);	/* one that was up */
void		mkv_local_failed(struct conn *c, int err);	/* one that never was */
int		mkv_local_verdict(const struct pool *p);	/* of a request that no connection takes: MKV_E_AGAIN, _UNSUPPORTED */
int		mkv_local_takes(const struct pool *p, const struct conn *c);	/* c may take requests */
int		mkv_local_spares(const struct pool *p, const struct conn *c);	/* c is not needed any more, and can be ended now */
/* tcp_ref.c */
void		mkv_ref_choose(struct conn *c, struct leg *l);	/* the op lent, before a frame is made: by which way; copies a put into the window */
void		mkv_ref_frame(struct leg *l, struct mkv_hdr *h, uint8_t *body);	/* after it: REMOTE and the segments */
int		mkv_ref_full(const struct conn *c);		/* enough was copied for one send */
int		mkv_ref_fits(const struct slot *s, const struct mkv_hdr *h);	/* a part's payload came by the way that was asked for */
const uint8_t *	mkv_ref_place(const struct conn *c, const struct slot *s, uint64_t off);	/* of a get's bytes in the window */
void		mkv_ref_no_window(struct conn *c);		/* none for as long as the connection lasts */
void		mkv_ref_reset(struct conn *c);			/* the connection is over: its window goes with it */
/* tcp_region.c */
int		mkv_pass_want(struct conn *c, uint32_t number);	/* 1: the server has it; 0: not now; MKV_E_AGAIN: nobody has shown it yet */
void		mkv_pass_show(struct conn *c, uint32_t number, int fd, uint64_t bytes);	/* takes the descriptor */
uint32_t	mkv_pass_frame(struct conn *c, int *fd);		/* the next REGION, sealed, alone in tx_buf; *fd: goes beside it, or -1. 0: none */
int		mkv_pass_answered(struct conn *c, struct slot *s, const struct mkv_hdr *h);
void		mkv_pass_sweep(struct conn *c);			/* what was freed is dropped */
void		mkv_pass_reset(struct conn *c);
/* tcp_hello.c */
void		mkv_conn_say_hello(struct conn *c);
int		mkv_conn_heard_hello(struct conn *c, const struct mkv_hdr *h, const uint8_t *body);	/* 0 or MKV_E_* */
int		mkv_conn_heard_auth(struct conn *c, const struct mkv_hdr *h, const uint8_t *body);
/* tcp_tx.c */
void		mkv_conn_tx_raw(struct conn *c, uint32_t bytes);	/* send tx_buf */
void		mkv_conn_tx_start(struct conn *c);			/* send what is queued, if nothing is on its way */
void		mkv_conn_seal(struct conn *c, struct mkv_hdr *h, const uint8_t *body);
uint64_t	mkv_leg_left_us(const struct leg *l);
void		mkv_conn_header(struct mkv_hdr *h, uint8_t op, uint64_t id, uint64_t deadline_us);
/* tcp_rx.c */
void		mkv_conn_rx_start(struct conn *c);
int		mkv_conn_rx_detach(struct conn *c, struct leg *l);	/* 1: no byte will reach its memory; 0: when the recv has ended */

#endif
