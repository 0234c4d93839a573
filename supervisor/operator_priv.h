/*
 * memkvctl's unix socket: one JSON request a line, one JSON answer a line.
 *
 *	{"cmd":"status|start|stop|restart|reload|tail|shutdown","names":["drive:0", ...]}		names missing or empty: all
 *	{"ok":true,"rows":[{"name","state","pid","uptime_s","restarts","detail"}, ...]}			tail: rows of {"name","lines"}
 *	{"ok":false,"error":"words"}
 */
#ifndef MKV_SUPERVISOR_OPERATOR_PRIV_H
#define MKV_SUPERVISOR_OPERATOR_PRIV_H

struct mkv_sup;
struct operator;

/* 0; MKV_E_LOCKED another server listens there; MKV_E_SYSTEM; MKV_E_NOMEM; words in why. */
int	operator_open(struct operator **out, struct mkv_sup *s, const char *path, char *why, unsigned why_bytes);
void	operator_close(struct operator **o);		/* accepts NULL; removes the socket */
/* A child changed its state: perhaps someone waits for that. */
void	operator_on_change(struct operator *o);

#endif
