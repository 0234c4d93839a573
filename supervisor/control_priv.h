/*
 * The supervisor's end of one child's control socket: messages out with descriptors, messages in, checked against the table of who may send what.
 */
#ifndef MKV_SUPERVISOR_CONTROL_PRIV_H
#define MKV_SUPERVISOR_CONTROL_PRIV_H

#include <stdint.h>

#include <uv.h>

#include "common/base/list.h"
#include "proto/control.pb-c.h"

#define CTL_MAGIC		0x93e6a05bu
#define CTL_MSG_MAX		65536u		/* one packed message */
#define CTL_QUEUE_MAX		4096u		/* messages that the socket would not take yet; beyond, the child is taken for hung */
#define CTL_FDS_MAX		4u		/* descriptors of one message */

struct ctl;
/*
 * m is freed and fd closed by the caller after the call. fd: a descriptor that came with it, -1: none. Return non-zero when ctl was closed meanwhile: nothing is
 * touched after.
 */
typedef int	ctl_msg_fn(void *arg, const Mkv__Ctl__Control *m, int fd);
typedef void	ctl_end_fn(void *arg, const char *why);	/* why NULL: end of stream; else it broke the protocol */

struct ctl {
	uint32_t	magic;
	int		fd;
	uv_poll_t	*poll;			/* heap: outlives us until libuv has closed it */
	struct mkv_list	queue;			/* struct ctl_out */
	uint32_t	queue_count;
	unsigned	may_pass;		/* descriptors that a message of this child may bring: 1 or none */
	ctl_msg_fn	*on_msg;
	ctl_end_fn	*on_end;
	void		*arg;
};

/* Takes fd in any case. 0, MKV_E_NOMEM, MKV_E_SYSTEM. */
int	ctl_open(struct ctl *c, uv_loop_t *loop, int fd, ctl_msg_fn *on_msg, ctl_end_fn *on_end, void *arg);
void	ctl_close(struct ctl *c);		/* accepts a closed one */
/* Hear what a process that is gone had said. Bounded. */
void	ctl_drain(struct ctl *c);
/*
 * Send or queue. fds stay the caller's. Never blocks.
 * 0; MKV_E_CLOSED the other end is gone (its end is reported by the loop); MKV_E_BUSY the queue is full; MKV_E_NOMEM; MKV_E_TOOBIG.
 */
int	ctl_send(struct ctl *c, const Mkv__Ctl__Control *m, const int *fds, unsigned n_fds);

/* What a child may say, and when. */
enum ctl_phase {
	CTL_NEW = 1,			/* not configured yet */
	CTL_STARTING = 2,		/* configured, not READY */
	CTL_RUNNING = 4,
	CTL_STOPPING = 8,
};
enum ctl_kind { CTL_FRONT = 1, CTL_DRIVE = 2, CTL_LOCAL = 4 };	/* LOCAL: the front with the unix socket, which is a FRONT too */
/* 1 allowed; 0 not. body: Mkv__Ctl__Control.body_case. kinds: what the child is. */
int	ctl_allowed(int body, unsigned kinds, enum ctl_phase phase);

#endif
