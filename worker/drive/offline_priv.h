/*
 * memkv-drive without a server: `memkv setup` and `memkv drive ...` run it so. One process, one command; formatting has a child process a medium.
 *
 * Rooms: offline.c (entry, arguments, JSON), offline_store.c (a store opened by the engine), offline_setup.c, offline_format.c (one medium),
 * offline_drive.c (list, info, clear-failures, wipe), offline_check.c (check, repair).
 */
#ifndef MKV_DRIVE_OFFLINE_PRIV_H
#define MKV_DRIVE_OFFLINE_PRIV_H

#include <stdio.h>

#include "common/base/assert.h"
#include "worker/drive/engine.h"
#include "worker/drive/probe_priv.h"

/* Exit statuses, those of the commands. */
enum { OFFLINE_DONE = 0, OFFLINE_FAILED = 1, OFFLINE_USAGE = 2, OFFLINE_CORRUPT = 6 };

#define OFFLINE_DRIVES_MAX	64u		/* as many as a server may have */

struct offline {
	const char	*command;
	const char	*rdma, *config_out, *data_dir;
	uint64_t	extent_bytes, file_bytes;	/* 0: not given */
	uint64_t	force, idempotent, data, yes, quiet, json;
	char		**media;
	unsigned	n_media;
};

/* ---- JSON on standard output, one object a line ---- */
struct offline_json {
	FILE		*to;
	int		comma;			/* something stands before */
};
void	js_open(struct offline_json *j, const char *name, char bracket);	/* name: NULL inside lists and at the top */
void	js_close(struct offline_json *j, char bracket);
void	js_text(struct offline_json *j, const char *name, const char *value);
void	js_u64(struct offline_json *j, const char *name, uint64_t value);
void	js_bool(struct offline_json *j, const char *name, int value);

/* Message on standard error: "memkv drive check: ...". */
void	offline_say(const struct offline *o, const char *fmt, ...) MKV_PRINTF(2, 3);
void	offline_uuid_text(char dst[37], const uint8_t uuid[16]);
void	offline_time_text(char dst[32], uint64_t wall_ms);
/* The registry of a probed store. rows: MKV_FAIL_ROWS. 0 or MKV_E_*. */
int	offline_failures(const struct probe *p, struct mkv_fail_row *rows, struct mkv_fail_sum *sum);

/* ---- offline_store.c ---- */
struct offline_store {
	int		fd;			/* locked */
	uint64_t	bytes;
	struct mkv_ioq	*q;
	struct mkv_media *media;
	struct mkv_engine *e;
	struct mkv_engine_opts opts;
	char		readonly[128];		/* why the engine stopped writing; empty: it did not */
};
/* Open and lock a medium. 0 or MKV_E_* with words. Everything below needs it; offline_close() undoes all. */
int	offline_open(struct offline_store *s, const char *path, char *why, size_t n);
void	offline_close(struct offline_store *s);
/* Zero or write bytes and flush; multiples of 4096. */
int	offline_write(struct offline_store *s, const void *buf, uint32_t bytes, uint64_t off);
int	offline_zero(struct offline_store *s, uint64_t bytes, uint64_t off);
int	offline_flush(struct offline_store *s);
/* The engine on it. opts: extent_bytes, may_format, look_only and store_secret are the caller's, the rest is filled in. */
int	offline_engine(struct offline_store *s, const char *name, char *why, size_t n);
int	offline_engine_close(struct offline_store *s);		/* orderly: checkpoint, clean mark. 0 or MKV_E_* */

/* ---- offline_format.c ---- */
struct offline_format {
	const char	*path;
	uint32_t	extent_bytes;
	int		erase;			/* something lies on it that must go */
	void		(*progress)(void *arg, unsigned pct);
	void		*arg;
	/* out */
	uint8_t		uuid[16];
	uint64_t	bytes, data_bytes;
	char		why[512];
};
int	offline_format(struct offline_format *f);

/* ---- commands: an exit status ---- */
int	offline_setup(const struct offline *o);
int	offline_list(const struct offline *o);
int	offline_info(const struct offline *o);
int	offline_clear_failures(const struct offline *o);
int	offline_wipe(const struct offline *o);
int	offline_check(const struct offline *o);
int	offline_repair(const struct offline *o);

int	offline_main(int argc, char **argv);	/* argv: command, name=value..., --, media... */

#endif
