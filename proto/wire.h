/*
 * Client <-> front: the one wire format, the same on every carrier (docs/internals/crypto.md). Little endian, fixed structs, sizes pinned below.
 *
 * A frame is header | body | payload. The MAC (HMAC-SHA256 under the key of this direction and channel) covers header bytes 0..63 and the body; payload is
 * covered by the CRCs in the body. Both sides check in this order: magic, version, body_bytes against the op's limit, MAC, counter (exactly last + 1 on
 * ordered channels), op and state, fields. Bodies are multiples of 8, padded with zeroes. What follows a fixed body struct is packed in the order given.
 *
 * Handshake, one per connection. client: HELLO (clear: nonce_c) -> server: HELLO reply (clear: server id, front id, nonce_s). Both hash
 * transcript = SHA-256(whole HELLO frame || whole HELLO reply frame). client: CONNECT (key_id, counter 1, MAC under c2s: proves the client) -> server:
 * CONNECT reply (session id, counter 1, MAC under s2c: proves the server). A failure of CONNECT is answered by a reply with status AUTH, session 0 and a
 * zero MAC, then the connection is closed; a client takes such a reply for nothing more than a closed connection with a reason.
 *
 * Parts. A value of more than part_bytes (from HELLO) travels as several frames of one request id: MORE on all but the last; each part's body lists the CRCs
 * of its own payload. Part i covers [i * part_bytes, ...). Only the first PUT part carries namespace, key and parent. The server answers a PUT once: after the last part, or
 * early with an error, and then drops the parts that still come. Likewise a list; a client that ends one in the middle sends a last part without keys. A GET is answered by as many parts as it takes; an error in the middle is a last part with a status.
 */
/*
 * RDMA (docs/internals/rdma.md). HELLO's reply lists the rails of a server. A client that wants one opens a connection with HELLO{rail}; the socket is passed to
 * that rail's front, and after CONNECT (channel 0, the tether) the session is like any other. ATTACH both ways exchanges queue pairs; the queue
 * pair is a channel of the session with keys and counters of its own (channel 1, the next one 2, ...). There a message is a frame of at most recv_bytes, and payload
 * is by reference: flag REMOTE (a put: beside PAYLOAD, and payload_bytes says how much; of a get the segments do), the rest of the body is a list of struct
 * mkv_wire_seg of the client's memory. PUT: the server
 * READs them and answers each part but the last with MORE and no body once it has the bytes. GET: the server WRITEs each part to where it belongs in the
 * segments and then sends the part's reply (flags as on TCP, REMOTE instead of bytes behind it) on the same queue pair. What does not fit a message goes by the
 * tether, or another connection; so does everything when there is no queue pair.
 *
 * Control (mkv_wire_attach.control). Messages of a channel may go by datagrams or by the tether instead, payload goes by its queue pair all the same; a message by
 * the tether that belongs to the channel has REMOTE and counts among the tether's. Such an answer leaves when a READ behind its WRITEs has come back. Datagrams have the
 * channel's keys; counters of a channel with datagrams have no order (window of 1,024). A client sends a request again until it is answered: same id, new counter, RESEND;
 * at last by the tether, where its answer then comes. Only requests of one message and one answer go by datagram. Where both ends have said LOOSE the client may
 * close the tether at any time: the session goes on, all that it hears are the channel's messages, and it ends when none has come for 60 s. DETACH, by datagram
 * alone, ends the channel, and with it a session that has no tether; it is answered if the channel is there, and what comes afterwards is of no channel. The client
 * has made its memory safe before it says so. A reply to no request (id 0) of that op, by the tether, or by datagram where that is gone: the server has given the channel up.
 */
/*
 * Regions (a unix socket only; HELLO's reply says REGIONS). A client's memory is a memfd that it passes with REGION (SCM_RIGHTS beside the first byte of the frame, one
 * descriptor; one elsewhere, or a second one before that frame is taken, ends the session), under a number of its choice that lives as long as the session or until REGION with DROP. The memfd has the seals SHRINK, GROW and SEAL, not
 * FUTURE_WRITE, and all its pages are there; what is not so is refused (INVAL), what is beyond the server's caps too (TOOBIG, NOSPACE). The answer to DROP, whatever its status but INVAL (it is
 * none of the session's, or is being dropped), says that nothing touches it any more. Drives may be at work in a STABLE region, and where the server does not verify puts they may read those from any
 * region; no answer to such a request comes before they have done: also one that it is too late can be late. A PUT or GET with flag REMOTE has its payload there: the rest of its body is a list of
 * struct mkv_wire_seg, rkey the region's number, addr an offset in it. The server copies, or its drives do: of a PUT each frame (payload_bytes, PAYLOAD) when it comes to it, so the client keeps the
 * bytes until its answer; of a GET (at most
 * MKV_WIRE_GET_SEGS_MAX segments) each part to where it belongs in the segments, before that part's reply (REMOTE and PAYLOAD, no bytes behind it). A request without REMOTE is as on TCP.
 */
#ifndef MKV_PROTO_WIRE_H
#define MKV_PROTO_WIRE_H

#include <stddef.h>
#include <stdint.h>

#define MKV_WIRE_MAGIC		{ 'M', 'K', 'V', 1 }	/* mkv_hdr.magic */
#define MKV_WIRE_VERSION	1
#define MKV_WIRE_HDR_BYTES	96u
#define MKV_WIRE_SIGNED_BYTES	64u		/* of the header */
#define MKV_WIRE_PART_MAX	(4u << 20)	/* payload of one frame */
#define MKV_WIRE_BODY_MAX	65536u
#define MKV_WIRE_HELLO_MAX	1152u
#define MKV_WIRE_KEY_MAX	512u
#define MKV_WIRE_NS_MAX		63u
#define MKV_WIRE_KEYS_MAX	65536u		/* keys of one list request, all parts together */
#define MKV_WIRE_VALUE_MAX	(1ull << 48)
#define MKV_WIRE_SIZE_UNKNOWN	UINT64_MAX	/* PUT parts but the last: size not known yet */
#define MKV_WIRE_DEADLINE_MAX_US 3600000000u
#define MKV_WIRE_RAILS_MAX	11u		/* of one server: what fits a HELLO reply */
#define MKV_WIRE_RDMA_BYTES	4096u		/* a message on a queue pair is no longer */
#define MKV_WIRE_SEGS_MAX	128u		/* of one request on a queue pair, of one frame of a put from regions */
#define MKV_WIRE_GET_SEGS_MAX	4u		/* of a get into regions */

#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "the wire structs are used in place: little-endian hosts only"
#endif

enum { MKV_OPF_CLEAR = 1, MKV_OPF_IDEMPOTENT = 2, MKV_OPF_LISTS = 4, MKV_OPF_PAYLOAD = 8 };

enum mkv_wire_op {
#define MKV_OP(name, num, label, flags, body_max)	MKV_WIRE_##name = (num),
#include "proto/wire_ops.def"
#undef MKV_OP
};

enum {					/* mkv_hdr.flags */
	MKV_WIRE_F_REPLY	= 1,
	MKV_WIRE_F_MORE		= 2,
	MKV_WIRE_F_LONG_BODY	= 4,	/* RDMA carriers: body by reference */
	MKV_WIRE_F_PAYLOAD	= 8,
	MKV_WIRE_F_RESEND	= 16,
	MKV_WIRE_F_ABORT	= 32,	/* PUT: last part, drop everything; no payload */
	MKV_WIRE_F_REMOTE	= 64,	/* payload is in the client's memory: on a queue pair, or in regions */
	MKV_WIRE_F_KNOWN	= 127
};

struct mkv_hdr {
	uint8_t		magic[4];	/*  0 'M' 'K' 'V' 1 */
	uint8_t		version;	/*  4 */
	uint8_t		op;		/*  5 enum mkv_wire_op */
	uint16_t	flags;		/*  6 */
	uint64_t	session_id;	/*  8 random, given by the front; 0 before the handshake */
	uint64_t	counter;	/* 16 per direction and channel, from 1 */
	uint64_t	request_id;	/* 24 client's, never reused in a session, not 0 */
	uint32_t	body_bytes;	/* 32 multiple of 8 */
	uint32_t	deadline_us;	/* 36 time left when sent, not 0 in requests; in replies: retry after */
	uint64_t	payload_bytes;	/* 40 */
	uint32_t	key_id;		/* 48 CONNECT: which credential */
	uint16_t	status;		/* 52 replies: number of MKV_E_*, 0 good */
	uint16_t	reason;		/* 54 replies: enum mkv_reason */
	uint32_t	ack_below;	/* 56 low half: all answers below this id have arrived */
	uint16_t	credits;	/* 60 requests the receiver of this may have outstanding */
	uint16_t	channel;	/* 62 0 tether (TCP, unix), 1.. further */
	uint8_t		mac[32];	/* 64 */
};
_Static_assert(sizeof(struct mkv_hdr) == 96 && offsetof(struct mkv_hdr, mac) == 64, "header layout");

enum {					/* features, both HELLOs: what the sender can do */
	MKV_FEATURE_PARTS	= 1,
	MKV_FEATURE_RDMA_RC	= 2,
	MKV_FEATURE_RDMA_DC	= 4,
	MKV_FEATURE_UDP		= 8,
	MKV_FEATURE_LOCAL	= 16,
	MKV_FEATURE_TLS		= 32,
	MKV_FEATURE_REGIONS	= 64,	/* on this connection */
	MKV_FEATURE_STABLE	= 128,	/* reply: and REGION may say STABLE */
};

struct mkv_wire_hello {			/* HELLO request */
	uint16_t	version_min, version_max;
	uint16_t	rail;		/* 0: this TCP front; k: pass this socket to the front of rail k */
	uint16_t	pad;
	uint32_t	features, pad2;
	uint8_t		client_id[16];	/* random per client handle */
	uint8_t		nonce[32];
};
_Static_assert(sizeof(struct mkv_wire_hello) == 64, "hello");

struct mkv_wire_rail {
	uint16_t	rail, state;	/* state 1: up */
	uint32_t	transports;	/* MKV_FEATURE_RDMA_* */
	uint32_t	speed_mbit, mtu;
	uint8_t		gid[16];
	uint8_t		address[16];	/* IPv6, or IPv4 mapped */
	char		device[32];
};
_Static_assert(sizeof(struct mkv_wire_rail) == 80, "rail");

struct mkv_wire_local {			/* of a server with a socket for clients on its own host */
	uint8_t		host_id[16];	/* mkv_key_host(): the client is there if its own is the same */
	char		path[112];	/* of the unix socket, with a 0 behind it */
};
_Static_assert(sizeof(struct mkv_wire_local) == 128, "local");

struct mkv_wire_hello_reply {		/* then n_rails struct mkv_wire_rail; with MKV_FEATURE_LOCAL struct mkv_wire_local */
	uint16_t	version;
	uint16_t	n_rails;
	uint32_t	features;
	uint32_t	front_id, epoch;
	uint64_t	map_version;
	uint32_t	part_bytes;	/* size of an extent: cut of values */
	uint32_t	credits;
	uint64_t	value_max;	/* the largest value here: MKV_WIRE_VALUE_MAX, or less where parts are small */
	uint8_t		server_id[16];
	uint8_t		nonce[32];
};
_Static_assert(sizeof(struct mkv_wire_hello_reply) == 88, "hello reply");

struct mkv_wire_connect {		/* CONNECT, both directions */
	uint64_t	session_id;	/* reply */
	uint32_t	features;	/* agreed */
	uint32_t	credits;	/* reply */
};
_Static_assert(sizeof(struct mkv_wire_connect) == 16, "connect");

enum {					/* mkv_wire_attach.control. Payload goes by the queue pair in any case */
	MKV_WIRE_CONTROL_RDMA	= 0,	/* SEND on the queue pair; DC: to the target */
	MKV_WIRE_CONTROL_UDP	= 1,	/* datagrams */
	MKV_WIRE_CONTROL_TCP	= 2,	/* the tether */
	MKV_WIRE_CONTROL_LOOSE	= 0x8000, /* beside UDP, by DC: the client is going to close the tether, and the session goes on without */
};

struct mkv_wire_attach {		/* ATTACH, both directions */
	uint16_t	transport;	/* MKV_FEATURE_RDMA_RC or _DC */
	uint16_t	channel;	/* of this queue pair: one more than the last; the same in both directions */
	uint32_t	qpn;		/* RC: queue pair; DC: the client's target */
	uint32_t	psn;		/* first packet number, 24 bits */
	uint32_t	mtu_bytes;	/* of the path, as this end sees it */
	uint32_t	recv_bytes;	/* of its receives */
	uint16_t	rd_atomic_in, rd_atomic_out;	/* READs that it answers at once; that it may have under way */
	uint64_t	dc_key;
	uint8_t		gid[16];
	uint16_t	lid;
	uint16_t	credits;	/* reply: requests without an answer on this channel */
	uint16_t	control;	/* MKV_WIRE_CONTROL_*: what carries the channel's messages, and LOOSE; the same in both directions */
	uint16_t	udp_port;	/* datagrams: where the sender's come from, on the address of its end of the tether; else 0 */
};
_Static_assert(sizeof(struct mkv_wire_attach) == 56 && offsetof(struct mkv_wire_attach, udp_port) == 54, "attach");

struct mkv_wire_seg {			/* of the client's memory; in a region: offset, bytes, number of the region */
	uint64_t	addr;
	uint32_t	bytes, rkey;
};
_Static_assert(sizeof(struct mkv_wire_seg) == 16, "seg");

enum {
	MKV_WIRE_REGION_DROP	= 1,
	MKV_WIRE_REGION_STABLE	= 2,	/* the bytes that a get names are nobody else's until its answer has come, however late that is: drives may read into them themselves */
};

struct mkv_wire_region {		/* REGION */
	uint32_t	number;		/* not 0, not one that the session has; DROP: one that it has */
	uint32_t	flags;
	uint64_t	bytes;		/* of the memfd; DROP: 0 */
};
_Static_assert(sizeof(struct mkv_wire_region) == 16, "region");

struct mkv_wire_cancel {
	uint64_t	request_id;
	uint64_t	pad;
};

enum {					/* mkv_wire_put.flags, mkv_wire_object.flags */
	MKV_WIRE_PUT_IF_ABSENT	= 1,
	MKV_WIRE_PUT_OVERWRITE	= 2,	/* also when the same bytes are there */
	MKV_WIRE_PUT_PIN	= 4,
	MKV_WIRE_PUT_ACCEPTED	= 8,	/* answer before the flush; the server's own setting may be as weak, never stronger than asked */
	MKV_WIRE_PUT_COMMIT	= 16,	/* answer after the flush whatever the server's default is */
	MKV_WIRE_PUT_SAME	= 32,	/* reply: the bytes were there already */
	MKV_WIRE_PUT_NO_CRC	= 64,	/* n_crcs 0: the server computes them */
};

struct mkv_wire_put {			/* then ns | key | parent key | pad to 8 | n_crcs x u32 | pad to 8 */
	uint64_t	value_bytes;	/* of the whole value; MKV_WIRE_SIZE_UNKNOWN is allowed but in the last part */
	uint64_t	part_off;	/* multiple of part_bytes */
	uint64_t	put_id;
	uint64_t	ttl_ms;		/* 0: none */
	uint32_t	flags;
	uint32_t	n_crcs;		/* mkv_crc_chunks(payload_bytes), or 0 with NO_CRC */
	uint16_t	ns_bytes, key_bytes, parent_bytes, pad;
};
_Static_assert(sizeof(struct mkv_wire_put) == 48, "put");

struct mkv_wire_get {			/* GET, STAT, REPORT; then ns | key | pad to 8 */
	uint64_t	off;
	uint64_t	len;		/* at most so many bytes; STAT: both 0; REPORT: the bytes that did not match, 0: to the end */
	uint32_t	flags;
	uint16_t	ns_bytes, key_bytes;
};
_Static_assert(sizeof(struct mkv_wire_get) == 24, "get");

struct mkv_wire_object {		/* reply of PUT, GET parts, STAT; GET: then n_crcs x u32 | pad to 8, then payload */
	uint64_t	value_bytes;
	uint64_t	off;		/* GET: of this part */
	uint64_t	put_wall_ms, expires_wall_ms;	/* expires 0: never */
	uint64_t	put_id;
	uint32_t	flags;		/* MKV_WIRE_PUT_* of the object */
	uint32_t	n_crcs;		/* of exactly the payload's bytes, cut at the value's 64 KiB boundaries */
};
_Static_assert(sizeof(struct mkv_wire_object) == 48, "object");

enum { MKV_WIRE_LIST_NO_TOUCH = 1 };

struct mkv_wire_keys {			/* EXISTS, DELETE, TOUCH, MATCH: then ns (first part) | n_keys x (u16 length, bytes) | pad to 8 */
	uint32_t	n_keys;		/* in this part */
	uint32_t	lease_ms;	/* MATCH: lease on the matched prefix, <= 60000 */
	uint64_t	ttl_ms;		/* TOUCH: new time to live, 0: keep */
	uint32_t	flags;
	uint16_t	ns_bytes, pad;
};
_Static_assert(sizeof(struct mkv_wire_keys) == 24, "keys");

struct mkv_wire_keys_reply {		/* then one byte a key: 1 there (deleted, touched), else 0 | reason << 1; MATCH: no bytes. Pad to 8. May be long: body in parts with MORE */
	uint32_t	n_keys;		/* bytes in this part */
	uint32_t	n_there;	/* of all parts; MATCH: length of the present prefix */
	uint32_t	lease_ms;	/* granted */
	uint32_t	reason;		/* MATCH: why the first absent key is absent */
};
_Static_assert(sizeof(struct mkv_wire_keys_reply) == 16, "keys reply");

struct mkv_wire_list {			/* then ns | prefix | pad to 8 */
	uint64_t	cursor;		/* 0: from the beginning */
	uint32_t	max_rows;
	uint16_t	ns_bytes, prefix_bytes;
};
_Static_assert(sizeof(struct mkv_wire_list) == 16, "list");

struct mkv_wire_list_reply {		/* then rows, each 8-aligned: struct mkv_wire_list_row */
	uint64_t	cursor;		/* 0: that was all */
	uint32_t	n_rows, pad;
};

struct mkv_wire_list_row {
	uint16_t	row_bytes, key_bytes;
	uint32_t	flags;
	uint64_t	value_bytes, put_wall_ms, expires_wall_ms;
	uint8_t		key[];
};
_Static_assert(sizeof(struct mkv_wire_list_row) == 32, "list row");

struct mkv_wire_info {
	uint8_t		server_id[16];
	uint64_t	total_bytes, used_bytes, objects;
	uint64_t	map_version, uptime_ms;
	uint32_t	drives_total, drives_online;
	uint32_t	part_bytes, pad;
	char		version[32];
};
_Static_assert(sizeof(struct mkv_wire_info) == 104, "info");

/* Row of the table of ops; NULL for an unknown number. proto/wire.c. */
struct mkv_wire_op_row {
	uint8_t		op;
	const char	*label;
	unsigned	flags;
	uint32_t	body_max;
};
const struct mkv_wire_op_row *mkv_wire_op_row(unsigned op);

/*
 * Check what can be checked of a header before its body is read: magic, version, op, flags, limits, padding. 0; MKV_E_PROTO; MKV_E_VERSION.
 * is_reply: which direction is expected. in_session: before it only HELLO and CONNECT, and small bodies.
 */
int	mkv_wire_hdr_check(const struct mkv_hdr *h, int is_reply, int in_session);

/* 1: an ATTACH names a carrier of messages that there is, and a port with datagrams and with nothing else. */
int	mkv_wire_control_ok(const struct mkv_wire_attach *a);
/* The carrier alone, without LOOSE. */
static inline unsigned
mkv_wire_carrier(const struct mkv_wire_attach *a)
{
	return (a->control & ~(unsigned)MKV_WIRE_CONTROL_LOOSE);
}

/* Cursor over a body: bounds-checked takes; NULL / 0 when it does not fit (foreign bytes). */
struct mkv_wire_in {
	const uint8_t	*p, *end;
};
const void *	mkv_wire_take(struct mkv_wire_in *in, size_t bytes);
int		mkv_wire_skip_pad(struct mkv_wire_in *in, const void *base);	/* to the next multiple of 8 from base; pad must be zero */

#endif
