/*
 * What a connection needs from its carrier. tr_tcp.c is the one that there is; the unix socket and the tether of an RDMA session are the same calls on another
 * descriptor. Control bytes arrive as a stream; payload is received into, and sent from, stage buffers or arena runs.
 */
#ifndef MKV_WORKER_FRONT_TRANSPORT_H
#define MKV_WORKER_FRONT_TRANSPORT_H

#include <stdint.h>
#include <sys/uio.h>

struct mkv_conn;

enum { MKV_TR_ALL = 1, MKV_TR_PASS = 2 };

struct mkv_transport {
	const char	*name;
	/* 1..bytes, or exactly bytes with ALL; the result comes to mkv_conn_received(). PASS: descriptors may come with them, one in rx_io.passed. */
	void		(*recv)(struct mkv_conn *c, void *buf, uint32_t bytes, unsigned flags);
	/* All of it or an error; the result comes to mkv_conn_sent(). iov stays untouched until then. */
	void		(*send)(struct mkv_conn *c, const struct iovec *iov, unsigned n);
	/* End what is outstanding early; the results still come. */
	void		(*stop)(struct mkv_conn *c);
	/* Nothing is outstanding. */
	void		(*close)(struct mkv_conn *c);
};

extern const struct mkv_transport mkv_transport_tcp;

#endif
