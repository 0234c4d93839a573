/*
 * What the files of worker/core share.
 */
#ifndef MKV_WORKER_CORE_PRIV_H
#define MKV_WORKER_CORE_PRIV_H

#include "worker/core/core.h"
#include "worker/core/ctl.h"

#define MKV_PEER_MAGIC		0x8de2b317u
/* When the supervisor is gone nobody gives a grace or stops fronts before drives any more. */
#define MKV_WORKER_ORPHAN_MS	10000u		/* a drive's grace: what it has is finished and synced */
#define MKV_WORKER_ORPHAN_FRONT_MS 2000u	/* a front's: what still has no answer then is asked again of the next server */
#define MKV_WORKER_ORPHAN_SERVE_MS 300u		/* a drive goes on so long first, for what fronts have in flight */
#define MKV_WORKER_LATE_MS	1000u		/* beyond the grace the process ends with status 1 */

/* Declares `name`, a message of one body. */
#define MKV_CTL_MESSAGE(name, CASE, field, value) \
	Mkv__Ctl__Control name = MKV__CTL__CONTROL__INIT; \
	name.body_case = MKV__CTL__CONTROL__BODY_##CASE; \
	name.field = (value)

/* life.c: what the supervisor says. 0, or not 0: the worker has ended (state ENDED is set). */
int	mkv_worker_messages(struct mkv_worker *w);
void	mkv_worker_say(struct mkv_worker *w, const Mkv__Ctl__Control *m);
void	mkv_worker_end(struct mkv_worker *w, int exit_code);

int	mkv_worker_run(int ctl_fd, const struct mkv_worker_ops *ops);	/* exit code; takes ctl_fd */

/* peers.c */
int	mkv_peers_bell(struct mkv_worker *w, const Mkv__Ctl__Bell *m, int *fds);
int	mkv_peers_ring(struct mkv_worker *w, const Mkv__Ctl__Ring *m, int *fds);
int	mkv_peers_died(struct mkv_worker *w, const Mkv__Ctl__PeerDied *m);
unsigned mkv_peers_pop(struct mkv_worker *w);		/* descriptors handled */
int	mkv_peers_idle(const struct mkv_worker *w);	/* 1: nothing to pop */
int	mkv_peers_any_up(const struct mkv_worker *w);
void	mkv_peers_ring_bells(struct mkv_worker *w);
void	mkv_peers_close(struct mkv_worker *w);

/* loop.c */
void	mkv_worker_loop(struct mkv_worker *w);		/* until ENDED */
void	mkv_worker_turn(struct mkv_worker *w);

#endif
