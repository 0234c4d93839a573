/*
 * A front in a test: its loop, fake drives on real rings in the same process, and clients on socket pairs that speak proto/wire.h by hand. One thread:
 * rig_pump() turns everything until nothing moves.
 */
#ifndef MKV_TESTS_UNIT_FRONT_RIG_H
#define MKV_TESTS_UNIT_FRONT_RIG_H

#include <stdint.h>
#include <sys/socket.h>

#include "common/shm/drv.h"
#include "proto/wire.h"
#include "worker/front/front_priv.h"

#define RIG_DRIVES	4
#define RIG_OBJECTS	512
#define RIG_ARENA	(64ull << 20)
#define RIG_KEY_ID	77u
#define RIG_PATIENCE_MS	60000u		/* for what is to come, however slow the machine; a test about time has a limit of its own */

struct rig;

struct rig_object {
	int		used, verified;
	struct mkv_digest digest;
	uint8_t		key[MKV_DRV_KEY_MAX];
	uint16_t	key_bytes, flags;
	uint64_t	bytes, put_id;
	uint8_t		*data;
	uint32_t	crcs[MKV_DRV_CRCS_MAX];
	struct mkv_set_id set;
	uint32_t	piece_bytes, piece_count;
	uint8_t		stripe[MKV_DRV_STRIPE_MAX];
	uint16_t	n_stripe;
	uint64_t	arena_off;
};

struct rig_lent {			/* memory of a client that a drive has, or what it was asked about one and has not answered */
	uint32_t	id, epoch;
	uint64_t	bytes;
	int		drop, fd;		/* fd: asked; -1: none */
	uint8_t		*p;
};

struct rig_drive {
	int		lease_full;	/* gives no lease */
	struct rig	*rig;
	uint32_t	index, epoch;
	int		alive;
	struct mkv_ring	to, from;		/* front's ends */
	struct mkv_ring	in, out;		/* drive's ends */
	struct rig_object obj[RIG_OBJECTS];
	uint64_t	next_set, next_txn, arena_at;
	uint8_t		*arena;
	int		arena_fd;
	int		stopped;		/* pops nothing */
	int		hold;			/* pops and keeps, answers nothing */
	struct mkv_desc	held[256];
	unsigned	n_held;
	int		force[32];		/* status instead of doing op */
	void		(*mangle)(struct mkv_desc *d, struct mkv_drv_rep *rep);
	unsigned	count[32];		/* requests by op */
	unsigned	short_releases;		/* which said that a piece was nowhere */
	unsigned	holds;			/* holds out: of manifests, in memory mode of all */
	uint64_t	deadline_seen, renewed_until;	/* of any request; of a set that stays open */
	struct mkv_drv_writer writer_seen;	/* of the last PUT or COMMIT of bytes */
	uint64_t	total_bytes;		/* told with SET_NEW; 0: nothing is told */
	struct rig_lent	lent[64], ask[64];
	unsigned	n_lent, n_ask;
	unsigned	n_shown;		/* of all that it was asked to take */
	int		lend_hold;		/* answers no question about regions */
	int		lend_status;		/* answers this */
	unsigned	direct;			/* gets that went straight to a region */
	unsigned	direct_puts;		/* puts that came straight from one */
};

struct rig_conf {
	unsigned	drives;
	int		memory_mode;
	uint64_t	stage_bytes;		/* 0: 32 MiB */
	uint32_t	slots;			/* 0: 64 */
	uint32_t	connections, requests, inflight;
	uint32_t	part_bytes;		/* 0: 1 MiB */
	uint64_t	handshake_ns, idle_ns, stall_ns;
	enum mkv_ioq_kind kind;
	uint64_t	regions_bytes;
	int		lend;			/* drives may be shown regions */
	uint16_t	rail;			/* a rail's own front */
	int		door;			/* its door, taken; 0: none */
};

struct rig {
	struct mkv_ioq	*q;
	struct mkv_timers timers;
	struct mkv_stage *stage;
	int		stage_fd;
	struct mkv_metrics *m;
	struct mkv_front *f;
	struct rig_conf	conf;
	struct rig_drive drive[RIG_DRIVES];
	struct mkv_front_drive map[RIG_DRIVES];
	uint8_t		key[32];
	const struct sockaddr_storage *from;	/* of the clients to come; NULL: this host */
	uint64_t	ahead_ns;		/* its timers are ahead of the clock: a deadline passes when the test says so */
};

struct rig_frame {
	struct mkv_hdr	hdr;
	uint8_t		body[MKV_WIRE_BODY_MAX];
	uint8_t		*payload;		/* MKV_WIRE_PART_MAX */
};

struct rig_client {
	struct rig	*rig;
	int		fd;
	int		closed;
	unsigned	detached;		/* words of a channel's end; rig_recv() lets them go by */
	uint64_t	session, counter, counter_in, next_id;
	struct mkv_mac	*c2s, *s2c;
	uint8_t		nonce[32];
	uint8_t		*out, *in;
	size_t		out_bytes, out_at, in_bytes, out_room, in_room;
	int		deaf;			/* reads nothing */
	uint32_t	deadline_us;
	uint16_t	rail;			/* asked for in HELLO, ... */
	struct rig	*rail_rig;		/* ... and whose front it is; NULL: HELLO stays where it is */
	struct rig_frame f;
};

void		rig_open(struct rig *r, const struct rig_conf *conf);
void		rig_close(struct rig *r);		/* asserts that nothing is left: buffers, slots, requests */
int		rig_turn(struct rig *r);		/* one turn of each; not 0: something moved */
void		rig_pump(struct rig *r);
int		rig_clients_pump(const struct rig *r);		/* its clients' sockets; not 0: something moved */
void		rig_pump_ms(struct rig *r, unsigned ms);
void		rig_drive_up(struct rig *r, unsigned i, uint32_t epoch);
void		rig_drive_kill(struct rig *r, unsigned i);		/* PEER_DIED */
void		rig_drive_answer_held(struct rig_drive *d);
void		rig_map(struct rig *r, unsigned i, enum mkv_drive_state st);

void		rig_client_open(struct rig *r, struct rig_client *c);	/* socket only */
void		rig_client_handshake(struct rig_client *c);
void		rig_client_join(struct rig *r, struct rig_client *c, uint16_t rail);	/* both, for a session that may have a channel of this rail */
void		rig_client_close(struct rig_client *c);
void		rig_write(struct rig_client *c, const void *p, size_t n);
/* A whole signed frame. Returns its request id. */
uint64_t	rig_send(struct rig_client *c, unsigned op, unsigned flags, uint64_t id, const void *body, size_t body_bytes, const void *pay, size_t pay_bytes);
void		rig_frame_make(struct rig_client *c, struct mkv_hdr *h, unsigned op, unsigned flags, uint64_t id, const void *body, size_t body_bytes, size_t pay_bytes);
/* At once, a descriptor beside its first byte. */
uint64_t	rig_send_fd(struct rig_client *c, unsigned op, const void *body, size_t body_bytes, int fd);
/* 1: a frame in c->f, MAC checked; 0: nothing came in ms; -1: closed. */
int		rig_recv(struct rig_client *c, unsigned ms);

/* Bodies; they return their size. */
size_t		rig_put_body(uint8_t *b, const void *key, size_t key_bytes, const void *val, size_t bytes, uint64_t off, uint64_t total, uint32_t flags);
size_t		rig_get_body(uint8_t *b, const void *key, size_t key_bytes, uint64_t off, uint64_t len);
size_t		rig_keys_body(uint8_t *b, const char *fmt, unsigned from, unsigned n);
/* Whole operations; status of the answer. */
int		rig_put(struct rig_client *c, const char *key, const void *val, size_t bytes);
int		rig_get(struct rig_client *c, const char *key, uint64_t off, uint64_t len, uint8_t *out, size_t *got);
void		rig_fill(uint8_t *p, size_t n, uint32_t seed);

/* Put so many bytes and read them back. */
void	rig_put_get(struct rig_client *c, const char *key, size_t n);
/* Front, client and handshake for one test function. */
void	rig_with(const struct rig_conf *conf, void (*fn)(struct rig *, struct rig_client *));

#endif
