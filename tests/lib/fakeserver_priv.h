/*
 * The fake server, inside: fakeserver.c is it, fakerail.c its queue pairs.
 */
#ifndef MKV_TESTS_FAKESERVER_PRIV_H
#define MKV_TESTS_FAKESERVER_PRIV_H

#include <pthread.h>
#include <sys/types.h>

#include "common/base/auth.h"
#include "proto/wire.h"
#include "tests/lib/fakeserver.h"
#include "tests/lib/fakestore.h"

#define FRONT_ID	7u
#define SESSION_ID	0x1122334455667788ull
#define CONNS_MAX	256u
#define PARTS_MAX	64u
#define LOCAL_LIVES_MAX	16u

struct part_put {			/* a put of several parts */
	uint64_t	id;			/* 0: free */
	struct mkv_wire_put first;
	char		ns[64];
	uint8_t		key[MKV_WIRE_KEY_MAX], *value;
	size_t		bytes;
	int		refused;
};

#define FAKE_REGIONS_MAX 80u

struct fakeregion {				/* number 0: free */
	uint32_t	number;
	uint64_t	bytes;
	uint8_t		*base;
};

struct fconn {
	struct fake	*f;
	int		fd;
	int		local;			/* came by the unix socket */
	pthread_t	thread;
	_Atomic int	over;
	struct mkv_mac	*in, *out;
	uint64_t	counter_in, counter_out;
	uint8_t		transcript_in[MKV_WIRE_HDR_BYTES + sizeof(struct mkv_wire_hello)], nonce_c[32];
	struct part_put	part[PARTS_MAX];
	uint8_t		*list;			/* bytes of keys of the parts so far */
	uint32_t	list_bytes, list_n;
	char		list_ns[64];
	uint64_t	body[(MKV_WIRE_BODY_MAX + 1024) / 8], reply[(MKV_WIRE_BODY_MAX + 1024) / 8];
	uint8_t		*payload;
	uint8_t		nonce_s[32], transcript[32];
	struct fakerail	*rail;			/* its queue pair, if it attached one; of a queue pair's own: that one */
	int		is_rail;		/* answers leave by the queue pair */
	unsigned	replies;
	int		passed, has_passed;	/* the descriptor that came last */
	struct fakeregion region[FAKE_REGIONS_MAX];
	struct mkv_wire_seg get_seg[MKV_WIRE_GET_SEGS_MAX];	/* of the get in work */
	int		left;			/* its regions are not touched any more */
	unsigned	n_get_seg;		/* 0: its payload goes by the socket */
	uint64_t	get_off;
	pthread_mutex_t	out_lock;		/* its queue pair's thread answers by it, too */
};

struct fake_priv {
	uint8_t		cred[32], id[16];
	uint32_t	part_bytes, credits, key_id;
	int		fd;
	char		local_path[112];	/* "": none */
	_Atomic int	local_fd;		/* -1: none */
	_Atomic unsigned turns;			/* of the thread that accepts */
	int		local_old[LOCAL_LIVES_MAX];	/* of its lives before: the thread that accepts may be at them */
	unsigned	n_local_old;
	uint16_t	port;
	_Atomic int	quit;
	pthread_t	thread;
	pthread_mutex_t	lock;			/* conn */
	struct fakestore store;
	struct fconn	*conn[CONNS_MAX];
};

/* One request, whatever carried it: 0, or the end of the connection. */
int	fake_serve(struct fconn *c, const struct mkv_hdr *q, const uint8_t *body);
void	fake_fconn_clean(struct fconn *c);
void	fake_add(struct fake *f, int fd, int local);		/* serve it */
/* fakelisten.c */
int	fake_listen(struct fake_priv *p, uint16_t port);	/* 0 or -1 */
void *	fake_main(void *fake);					/* accepts until quit */
void	fake_hello_local(const struct fake *f, uint8_t *to);	/* struct mkv_wire_local, not aligned */
int	fake_reply(struct fconn *c, struct mkv_hdr *h, const void *body, const uint8_t *payload);	/* any thread; what is REMOTE has no payload behind it */

/* fakeregion.c */
ssize_t	fakeregion_recv(struct fconn *c, void *to, size_t bytes);	/* as recv(), and keeps the descriptor */
int	fakeregion_serve(struct fconn *c, const struct mkv_hdr *q, const uint8_t *body);	/* REGION */
int	fakeregion_frame(struct fconn *c, const struct mkv_hdr *q, const uint8_t *body);	/* what refers to regions */
int	fakeregion_place(struct fconn *c, struct mkv_hdr *h, const void *body, const uint8_t *payload);	/* -1: it has left, or the memory is gone */
void	fakeregion_leave(struct fconn *c);	/* before the end of the connection, as a good server does */
void	fakeregion_clean(struct fconn *c);

/* fakerail.c, if the test has asked for it. */
struct fakerail_ops {
	int		(*attach)(struct fconn *c, const struct mkv_wire_attach *in, struct mkv_wire_attach *out);	/* status */
	int		(*reply)(struct fakerail *r, struct mkv_hdr *h, const void *body, const uint8_t *payload);
	int		(*frame)(struct fconn *c, const struct mkv_hdr *q, const uint8_t *body);	/* of the tether, for its queue pair */
	void		(*end)(struct fconn *c);
	unsigned	(*list)(struct fake *f, struct mkv_wire_rail *out);
};
extern const struct fakerail_ops *fakerail;

#endif
