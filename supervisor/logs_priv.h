/*
 * What the children (and the supervisor itself) say on stderr: pipes in, dressed lines out, last words kept.
 */
#ifndef MKV_SUPERVISOR_LOGS_PRIV_H
#define MKV_SUPERVISOR_LOGS_PRIV_H

#include <stddef.h>
#include <stdint.h>

#include <uv.h>

#define LOGS_LINE_MAX		2048u	/* a longer line is cut in two */
#define LOGS_WORDS		20u	/* last lines kept of each source */
#define LOGS_WORD_MAX		512u
#define LOGS_BURST		2000u	/* lines a source may send at once ... */
#define LOGS_PER_SECOND		500u	/* ... and for long; what is above is counted and dropped */
#define LOGS_TOLD_MS		1000u	/* and how many that were is said so long after the first, if no further line says it before */

struct logs_out {
	int		fd;
	int		json;
	int		own;			/* fd is ours to close */
	uint64_t	lines;			/* written since the metric took them */
	uint64_t	lost;			/* lines that the far end of fd would not take */
};

struct logs_words {			/* the last lines; outlives a process */
	char		line[LOGS_WORDS][LOGS_WORD_MAX];
	uint32_t	next, count;
};

struct logs_src {
	uint32_t	magic;
	int		fd;
	uv_poll_t	*poll;
	uv_timer_t	*timer;			/* armed while lines were dropped and not told */
	struct logs_out	*out;
	struct logs_words *words;
	const char	*name;			/* the caller's */
	int		pid;
	char		buf[LOGS_LINE_MAX];
	size_t		bytes;
	uint64_t	tokens, refilled_ms, dropped;
};

void		logs_out_open(struct logs_out *o, int json);	/* stderr, without ever waiting for its reader if that can be had */
void		logs_out_close(struct logs_out *o);

/* Takes fd in any case. 0, MKV_E_NOMEM, MKV_E_SYSTEM. */
int		logs_open(struct logs_src *s, uv_loop_t *loop, int fd, struct logs_out *out, struct logs_words *words, const char *name, int pid);
/* Reads what is left (bounded), then closes. Accepts a closed one. */
void		logs_close(struct logs_src *s);

/* The i-th of the kept lines, oldest first; NULL beyond the last. */
const char *	logs_word(const struct logs_words *w, uint32_t i);

/*
 * One dressed line, with its newline, into dst; returns its length. line need not be terminated. What is not logfmt from mkv_log() (a
 * backtrace, a sanitizer's report) becomes event=output with the text as a value.
 */
size_t		logs_format(char *dst, size_t dst_bytes, int json, uint64_t wall_ms, const char *name, int pid, const char *line, size_t line_bytes);

#endif
