/*
 * A server in the test's own process that speaks proto/wire.h over TCP and a unix socket and can misbehave: stall, delay, lie, cut. Values live in memory.
 *
 * Threads of its own, one that accepts and one a connection; everything below may be changed at any time from the test's thread.
 */
#ifndef MKV_TESTS_FAKESERVER_H
#define MKV_TESTS_FAKESERVER_H

#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

#define FAKE_SEGS_MAX	64u

enum fake_lie {				/* how the next replies (fake.lies of them) are wrong */
	FAKE_TRUTH,
	FAKE_BAD_MAC, FAKE_BAD_COUNTER, FAKE_BAD_MAGIC, FAKE_BAD_ID, FAKE_NO_ID, FAKE_BAD_SESSION, FAKE_BAD_OP, FAKE_BIG_BODY, FAKE_SHORT_BODY,
	FAKE_CUT_HEADER, FAKE_CUT_PAYLOAD, FAKE_BAD_CRC, FAKE_BAD_OFFSET, FAKE_TOO_MANY_BYTES, FAKE_TOO_FEW_BYTES,
	FAKE_LIES
};

struct fake {
	/* how it behaves */
	_Atomic int	frozen;			/* 1: reads and answers nothing, the kernel still accepts (SIGSTOP) */
	_Atomic int	mute;			/* 1: reads requests and never answers them */
	_Atomic unsigned delay_us;		/* before each reply */
	_Atomic unsigned piece_bytes, piece_us;	/* payload of replies leaves in such pieces with such pauses; 0: at once */
	_Atomic unsigned long long stall_after;	/* bytes of a reply's payload after which it stops sending; 0: never */
	_Atomic int	lie, lies;
	_Atomic int	status, statuses, hint_us;	/* the next `statuses` requests get this MKV_E_* */
	_Atomic int	hang_up;		/* the next so many requests are answered by the end of the connection */
	_Atomic int	report_bad;		/* REPORT: 1 the stored bytes were found bad before (miss corrupt), 2 they are now: their writer's fault, 0 good */
	_Atomic uint64_t report_off, report_len;	/* of the last one */
	_Atomic int	refuse_key;		/* CONNECT: 1 the key is refused */
	_Atomic int	early;			/* a put of several parts is refused after its first, with this MKV_E_* */
	/* the unix socket of fake_opts.local_path */
	_Atomic int	local;			/* HELLO tells of it: 1 as it is, 2 as of another host, 3 with a path that is none, 4 with one that does not end, 5 short by 8 bytes */
	_Atomic int	local_stranger;		/* who comes there meets another server */
	_Atomic int	local_frozen;		/* as frozen, for those who came there */
	_Atomic int	local_full;		/* no more connections there */
	_Atomic unsigned local_connections, local_requests, local_refused;	/* what it saw */
	/* clients' memory there (fakeregion.c) */
	_Atomic int	regions;		/* HELLO says REGIONS: 1 and it is so; 2 gets are answered with their bytes all the same; 3 those by the socket as if they were not */
	_Atomic int	region_status;		/* REGION is answered by this MKV_E_* */
	_Atomic int	regions_stable;		/* HELLO says STABLE: what was to be brought when the connection ends is so later (fakeregion_late()) */
	_Atomic unsigned stable_shown, late_gets;	/* regions that were shown as stable; gets that are to come late */
	_Atomic int	region_mute;		/* 1: it is not answered */
	_Atomic unsigned remote_us;		/* before a request that refers to regions is looked at */
	_Atomic unsigned regions_shown, regions_dropped, remote_gets, into_gets;	/* what it saw; into_gets: of remote_gets, those with other places than the window */
	_Atomic unsigned remote_puts[2];	/* frames: from windows; from others */
	_Atomic uint64_t seg_at[FAKE_SEGS_MAX], seg_end[FAKE_SEGS_MAX];	/* of gets, in their order, round and round */
	/* rails (fakerail.c), over the fabric of fakeverbs: device fake1 */
	_Atomic unsigned rails;			/* so many are listed */
	_Atomic unsigned rail_down;		/* bit i: HELLO of rail i + 1 is refused */
	_Atomic unsigned rail_deaf;		/* bit i: and this one's is not answered */
	_Atomic int	attach_mute, attach_status;	/* ATTACH is not answered; is answered by this MKV_E_* */
	_Atomic int	rail_mute;		/* 1: messages are not answered; 2: CANCEL alone is; 3: and what it cancels, before it */
	_Atomic int	rail_no_ping;		/* 1: PING is not */
	_Atomic int	rail_hold;		/* 1: what is posted waits (fv_hold()) from the next WRITE on */
	_Atomic unsigned rail_credits;		/* 0: 16 */
	_Atomic int	attach_lie;		/* ATTACH's reply: 1 a carrier that was not asked for, 2 a port without datagrams, 3 another transport */
	_Atomic int	rail_dc;		/* rails are listed with DC: 1 and attached so, 2 and refused so */
	_Atomic unsigned rail_mtu, attach_mtu;	/* that rails are listed with; that ATTACH's reply has by DC. 0: not told; the device's */
	/* answers by DC: counters in pairs, the second first; each sent twice; the next so much further on, and those behind it as before */
	_Atomic int	dc_swap, dc_twice;
	_Atomic unsigned dc_leap;
	_Atomic int	dc_fail;		/* gets, puts: CLOSED by another initiator, for this MKV_REASON_*; 1: without a word. PATH, 1: a get's WRITEs are held (fv_hold()) */
	/* messages of a rail by datagrams: of 1,000 each way so many are lost, come twice; lost for ever */
	_Atomic unsigned udp_lose, udp_repeat;
	_Atomic int	udp_mute, udp_refuse;		/* none arrives; ATTACH that asks for them is UNSUPPORTED */
	_Atomic unsigned loose_refused;		/* ATTACHes that wanted to go on without a tether: they are UNSUPPORTED here */
	/* what it saw */
	_Atomic unsigned connections, sessions, requests[32], resends, aborts, parts;
	_Atomic unsigned answered[32];		/* requests whose last byte of answer has been sent, on connections */
	_Atomic unsigned rail_hellos, attached, rail_requests[32], acks;
	_Atomic unsigned rail_turns;		/* gets that did not come by the session of the get before */
	_Atomic(const void *) rail_last;
	_Atomic unsigned dc_asked, dc_refused, dc_attached, dc_failed;	/* ATTACHes; see dc_fail */
	_Atomic unsigned dc_targets[8];		/* numbers of the clients' targets, in the order of ATTACH */
	_Atomic unsigned udp_messages, udp_again, tether_messages;	/* taken; of a request that had come before; frames of the tether that are a rail's */
	_Atomic unsigned long long last_put_id, last_ttl_ms, last_parent_bytes, last_flags, last_ack;
	struct fake_priv *p;
};

struct fake_opts {
	const char	*auth_key;		/* 64 hex; NULL: dev key */
	uint32_t	part_bytes;		/* 0: 4 MiB */
	uint32_t	credits;		/* 0: 256 */
	uint8_t		server_id;		/* repeated 16 times; 0: random */
	uint16_t	port;			/* 0: any */
	const char	*local_path;		/* NULL: TCP alone */
};

/* From now on servers of this process have rails (fake.rails). fakerail.c. */
void		fakerail_use(void);

/* 0 or -1. The server listens on 127.0.0.1. */
int		fake_open(struct fake *f, const struct fake_opts *opts);
void		fake_close(struct fake *f);
unsigned	fake_port(const struct fake *f);
void		fake_stop_listening(struct fake *f);	/* connection refused from now on; sessions go on */
void		fake_drop_all(struct fake *f);		/* end all connections */
void		fake_local_away(struct fake *f);	/* its unix socket is gone, and all who came there are sent away */
int		fake_local_back(struct fake *f);	/* it is there again: 0 or -1 */
void		fakeregion_scribble(struct fake *f);	/* other bytes into every window */
void		fakeregion_late(void);			/* other bytes to where late gets were to bring theirs; their memory is given back */
/* Direct access to the store. */
void		fake_store(struct fake *f, const char *ns, const void *key, size_t key_bytes, const void *value, size_t bytes);
size_t		fake_load(struct fake *f, const char *ns, const void *key, size_t key_bytes, void *value, size_t room, int *there);
unsigned	fake_objects(struct fake *f);

#endif
