/*
 * What carries requests to one server. tcp_*.c is the carrier over TCP; others fit in beside it.
 *
 * All calls come from the loop's thread. A leg is the transport's from send() until it calls, once, mkv_leg_reply(), mkv_leg_lost() or
 * mkv_leg_detached(), or until detach() returns 1. None of those calls is made from inside send() or part(); want() and probe() may
 * report mkv_server_failed().
 */
#ifndef MKV_CLIENT_TRANSPORT_H
#define MKV_CLIENT_TRANSPORT_H

#include "clients/lib/client_priv.h"

struct transport_ops {
	const char	*name;
	int		(*open)(struct server *s);		/* MKV_E_NOMEM */
	void		(*stop)(struct server *s);		/* end all sessions: legs are lost; completions come from the queue */
	void		(*close)(struct server *s);		/* after the queue ended: free; no pool: no-op */
	int		(*send)(struct server *s, struct leg *l);	/* 0: taken, in LEG_QUEUED; MKV_E_AGAIN: no session with room; else: it cannot be */
	void		(*want)(struct server *s, int waiting);	/* make sessions if there are too few (waiting: requests wait) and srv->may_connect */
	void		(*probe)(struct server *s);		/* try one new session; ends in mkv_server_session_up() or mkv_server_failed() */
	int		(*detach)(struct leg *l);		/* 1: its memory is free; 0: mkv_leg_detached() follows soon */
	void		(*part)(struct leg *l);			/* a LEG_PAUSED stream has its next part */
	void		(*flush)(struct server *s);		/* end of a turn: send what is queued */
	void		(*names)(struct server *s);		/* the resolver has news */
};

extern const struct transport_ops mkv_client_tcp;

#endif
