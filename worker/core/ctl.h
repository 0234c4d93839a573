/*
 * A worker's end of its control socket: whole messages in and out, descriptors with them, and the table of what the supervisor may say when.
 */
#ifndef MKV_WORKER_CTL_H
#define MKV_WORKER_CTL_H

#include <stddef.h>

#include "proto/control.pb-c.h"

#define MKV_CTL_FD		3		/* what the supervisor leaves there for us */
#define MKV_CTL_BYTES_MAX	65536u		/* one packed message, as in supervisor/control_priv.h */
#define MKV_CTL_FDS_MAX		4u
#define MKV_CTL_QUEUE_MAX	256u		/* unsent messages: a supervisor that reads none of them is taken for dead */

struct mkv_ctl;

/* Order of what was received decides, so both ends agree on the phase of a message without a round trip. */
enum mkv_ctl_phase {
	MKV_CTL_NEW = 1,		/* nothing yet */
	MKV_CTL_SETUP = 2,		/* CONFIGURE came */
	MKV_CTL_SERVE = 4,		/* START came */
	MKV_CTL_STOPPING = 8,		/* STOP came */
};

/* Takes fd, on success and on failure. */
int	mkv_ctl_open(struct mkv_ctl **out, int fd);
void	mkv_ctl_close(struct mkv_ctl **c);
int	mkv_ctl_fd(const struct mkv_ctl *c);
/* Queue and try to send. 0 (also when it waits), MKV_E_CLOSED, MKV_E_BUSY queue full, MKV_E_NOMEM. Order is kept. */
int	mkv_ctl_send(struct mkv_ctl *c, const Mkv__Ctl__Control *m);
/* The same with a descriptor, which stays the caller's; -1: none. */
int	mkv_ctl_send_fd(struct mkv_ctl *c, const Mkv__Ctl__Control *m, int fd);
/* 0 all gone, MKV_E_AGAIN, MKV_E_CLOSED. */
int	mkv_ctl_flush(struct mkv_ctl *c);
/*
 * 1: *m (free it with mkv_ctl_free()) and *n_fds descriptors in fds[MKV_CTL_FDS_MAX], the caller's now; 0: end of stream; MKV_E_AGAIN nothing
 * there; MKV_E_PROTO: not a message (too large, too many descriptors, cannot be parsed); MKV_E_NOMEM.
 */
int	mkv_ctl_recv(struct mkv_ctl *c, Mkv__Ctl__Control **m, int *fds, unsigned *n_fds);
void	mkv_ctl_free(Mkv__Ctl__Control **m);		/* wipes keys first; accepts NULL */
/* 1: body may come in this phase to this kind of worker with so many descriptors. */
int	mkv_ctl_allowed(int body, enum mkv_ctl_phase phase, int is_drive, unsigned n_fds);
const char *mkv_ctl_name(int body);			/* "configure"; "unknown" */

#endif
