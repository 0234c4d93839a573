/*
 * The life of one child as a state machine, without a loop and without a process: what the world does to it comes in by calls, what it wants
 * goes out by the ops table. proc.c ties it to fork, pidfd and control socket; the unit test ties it to a list of what was asked.
 */
#ifndef MKV_SUPERVISOR_CHILD_PRIV_H
#define MKV_SUPERVISOR_CHILD_PRIV_H

#include <stddef.h>
#include <stdint.h>

#define CHILD_MAGIC		0x4c81d3f7u
#define CHILD_DEATHS_MAX	1000u	/* the largest server.crash_limit */

/* Who moves it on from here. */
enum child_state {
	CHILD_STOPPED,		/* child_start(): the supervisor at its own start, or an operator; child_on_timer() after child_restart() */
	CHILD_STARTING,		/* child_on_ready(), child_on_end() */
	CHILD_RUNNING,		/* child_on_end(), child_stop() */
	CHILD_BACKOFF,		/* child_on_timer(), child_start(), child_stop() */
	CHILD_STOPPING,		/* child_on_end(); its timer kills */
	CHILD_FATAL,		/* child_start(): an operator */
	CHILD_STATE_COUNT
};

struct child;

struct child_ops {
	uint64_t	(*now_ns)(void);
	/* fork and exec. 0, or MKV_E_*: the start counts as a death, unless it set `held`. */
	int		(*spawn)(struct child *c);
	void		(*kill)(struct child *c);				/* SIGKILL */
	void		(*ask_stop)(struct child *c);				/* STOP on its control socket */
	void		(*arm)(struct child *c, uint64_t in_ns);		/* its one timer; UINT64_MAX: disarm */
	void		(*changed)(struct child *c, enum child_state from);	/* after each edge; must not call back in */
};

struct child_policy {			/* server.* of the configuration */
	uint64_t	backoff_min_ns, backoff_max_ns;
	uint64_t	crash_window_ns, served_ok_ns;
	uint64_t	start_limit_ns;	/* exec to HELLO */
	uint64_t	stop_limit_ns;	/* STOP to SIGKILL */
	uint32_t	crash_limit;	/* deaths within the window that make it FATAL */
};

struct child {
	uint32_t	magic;
	enum child_state state;
	const struct child_ops *ops;
	const struct child_policy *policy;
	void		*owner;
	char		name[48];
	uint64_t	since_ns;			/* of the present state */
	uint64_t	ready_ns;			/* of the present life; 0: never */
	uint64_t	death_ns[CHILD_DEATHS_MAX];	/* of deaths that count, oldest first */
	uint32_t	death_count;
	uint32_t	barren_count;			/* of these, without the first: lives that never got ready */
	uint32_t	restart_count;			/* starts after a death, for status */
	int		start_again;			/* an operator's restart: STOPPED leads to STARTING */
	int		parked;				/* an operator stopped it by its name: a start that names nobody leaves it. Until it is started */
	int		killed;				/* SIGKILL was sent in this life */
	int		final;				/* the child said that another start would fail as well */
	int		forgiven;			/* its end is not its fault: start again at once */
	int		held;				/* spawn: nothing can be started now; or the child: what it serves is not there now. Tried again
							   with a growing pause, counts as no death */
};

void		child_init(struct child *c, const char *name, const struct child_ops *ops, const struct child_policy *policy, void *owner);
const char *	child_state_name(enum child_state s);
int		child_edge_allowed(enum child_state from, enum child_state to);

/* An operator or the supervisor's own start. Returns 0, or MKV_E_BUSY while it is STOPPING; no effect while STARTING or RUNNING. */
int		child_start(struct child *c);
void		child_stop(struct child *c);
void		child_restart(struct child *c);
/* The process. */
void		child_on_hello(struct child *c);
void		child_on_ready(struct child *c);
void		child_on_end(struct child *c);			/* it was reaped */
void		child_on_timer(struct child *c);
/* It hangs or breaks the protocol: SIGKILL now, the rest when it was reaped. */
void		child_kill(struct child *c);
/* It has, or may have, a process. */
int		child_alive(const struct child *c);
/* It will be started without anyone asking. */
int		child_coming_back(const struct child *c);

#endif
