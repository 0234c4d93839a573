/*
 * What ioq.c and the two back ends share: the queue's head, the ops table, and what a raw result means for an operation.
 */
#ifndef MKV_BASE_IOQ_PRIV_H
#define MKV_BASE_IOQ_PRIV_H

#include <stdint.h>

#include "common/base/ioq.h"
#include "common/base/list.h"

#define MKV_IOQ_MAGIC		0x91d7ae34u
#define MKV_IOQ_FILES_MAX	64		/* registered files of one queue */
#define MKV_IOQ_DESTROY_MS	2000		/* mkv_ioq_destroy() waits so long for I/O that it cannot recall */

enum ioq_op {
	IOQ_RECV, IOQ_SEND, IOQ_ACCEPT, IOQ_CONNECT, IOQ_POLL,		/* descriptors that one waits for */
	IOQ_READ, IOQ_WRITE, IOQ_FLUSH					/* files: the poll back end's threads do them */
};
#define IOQ_IS_FILE(op)		((op) >= IOQ_READ)

/* io->active, and who moves it on */
enum ioq_active {
	IOQ_IDLE = 0,			/* the caller: submit */
	IOQ_BUSY,			/* the back end: a completion */
	IOQ_READY			/* mkv_ioq_run(): the result is known, `done` runs next */
};

/* io->flags beside MKV_IO_ALL */
#define IOQ_F_PASS		0x20	/* a descriptor goes or comes beside the bytes */
#define IOQ_F_CANCEL		0x40	/* the caller wants an early end: issue no rest */
#define IOQ_F_WAITING		0x80	/* the back end waits for readiness, then issues the operation again */

struct mkv_ioq_ops {
	const char	*name;
	int		(*register_file)(struct mkv_ioq *q, int fd);
	int		(*register_buffers)(struct mkv_ioq *q, const struct iovec *iov, unsigned n, unsigned slots);
	int		(*set_buffer)(struct mkv_ioq *q, unsigned slot, const struct iovec *iov);
	int		(*jail)(struct mkv_ioq *q, unsigned may);
	void		(*submit)(struct mkv_ioq *q, struct mkv_io *io);
	void		(*cancel)(struct mkv_ioq *q, struct mkv_io *io);	/* of a busy one */
	int		(*run)(struct mkv_ioq *q, uint64_t until_ns);
	void		(*wake)(struct mkv_ioq *q);
	void		(*destroy)(struct mkv_ioq *q);
};

struct mkv_ioq {			/* first member of each back end's struct */
	uint32_t	magic;
	unsigned	depth_max, in_flight;
	const struct mkv_ioq_ops *ops;
	uint64_t	enters;
	struct mkv_list	ready;		/* IOQ_READY, in the order in which `done` will run */
};

/* Back ends; MKV_E_UNSUPPORTED, MKV_E_NOMEM, MKV_E_SYSTEM. */
int		mkv_ioq_create_uring(struct mkv_ioq **out, const struct mkv_ioq_opts *opts);
int		mkv_ioq_create_poll(struct mkv_ioq **out, const struct mkv_ioq_opts *opts);

void		mkv_ioq_init(struct mkv_ioq *q, const struct mkv_ioq_ops *ops, const struct mkv_ioq_opts *opts);
/* Take `raw` (a count or -errno) in. 1: *res is the result; 0: issue what is left. Touches only io: helper threads call it too. */
int		mkv_ioq_progress(struct mkv_io *io, int raw, int *res);
/* The msghdr of a recv that may bring a descriptor. */
void		mkv_ioq_recv_pass(struct mkv_io *io, struct msghdr *m);
/* The msghdr of what is left to send: whole iovecs of the caller, or the rest of one in io->one. */
void		mkv_ioq_send_rest(struct mkv_io *io, struct msghdr *m);
int		mkv_ioq_errno(int e);					/* positive errno -> MKV_E_*, as ioq.h promises */
void		mkv_ioq_ready(struct mkv_ioq *q, struct mkv_io *io, int res);	/* done runs in the next mkv_ioq_run_ready() */
void		mkv_ioq_finish(struct mkv_ioq *q, struct mkv_io *io, int res);	/* done runs now: only from run() */
unsigned	mkv_ioq_run_ready(struct mkv_ioq *q);

#endif
