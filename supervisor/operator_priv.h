/*
 * memkvctl's unix socket: one JSON request a line, one JSON answer a line.
 *
 *	{"cmd":"status|start|stop|restart|reload|tail|shutdown","names":["drive:0", ...]}		names missing or empty: all; so does "all"
 *	{"ok":true,"rows":[{"name","state","pid","uptime_s","restarts","detail"}, ...]}			tail: rows of {"name","lines"}
 *
 * start and restart without a name leave children that were stopped by name (in rows of theirs "left" is true); "all" takes them as well.
 *	{"cmd":"drive","names":["list"]} and the other words of operator_drive.c; list: rows of {"id","state","media", ...}
 *	{"cmd":"namespace","names":["list"]} and the other words of operator_space.c; list: rows of {"namespace","hex","objects","bytes"}
 *	{"ok":false,"error":"words"}
 */
#ifndef MKV_SUPERVISOR_OPERATOR_PRIV_H
#define MKV_SUPERVISOR_OPERATOR_PRIV_H

#include <jansson.h>

struct mkv_sup;
struct proc;
struct operator;
struct op_conn;

/* 0; MKV_E_LOCKED another server listens there; MKV_E_SYSTEM; MKV_E_NOMEM; words in why. */
int	operator_open(struct operator **out, struct mkv_sup *s, const char *path, char *why, unsigned why_bytes);
void	operator_close(struct operator **o);		/* accepts NULL; removes the socket */
/* A child changed its state: perhaps someone waits for that. */
void	operator_on_change(struct operator *o);

/* The answer to a request that was waited for; takes the reference. */
void	operator_answer(struct op_conn *c, json_t *j);

/* operator_space.c: NULL: under way, operator_answer() follows (maybe from the first step); or why not. */
const char *operator_space(struct mkv_sup *s, const json_t *words, struct op_conn *c);
void	operator_space_step(struct mkv_sup *s);		/* a drive came, went, or changed its place */
void	operator_space_late(struct op_conn *c);		/* it has taken too long */
void	operator_space_gone(struct op_conn *c);

/* operator_drive.c: an answer, or NULL and the process that is to be started and waited for. */
json_t *operator_drive(struct mkv_sup *s, const json_t *words, struct proc **p);

#endif
