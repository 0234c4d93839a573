/*
 * Inside clients/cli: what the commands of `memkv` share. One process, one command, one thread of ours.
 */
#ifndef MKV_CLI_H
#define MKV_CLI_H

#include <limits.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <jansson.h>
#include <memkv/memkv.h>

#include "bench/opt.h"
#include "common/base/assert.h"

enum cli_id {
#define CLI_COMMAND(ID, name, fn, words, least, most, help)	CLI_##ID,
#include "clients/cli/commands.def"
#undef CLI_COMMAND
	CLI_COMMANDS
};

#define C(ID)		(1u << CLI_##ID)
#define C_KEYS		(C(PUT) | C(GET) | C(EXISTS) | C(STAT) | C(DELETE) | C(TOUCH) | C(MATCH) | C(LIST))
#define C_CLIENT	(C_KEYS | C(INFO))
#define C_OFFLINE	(C(SETUP) | C(DRIVE))

/* Exit statuses (docs/operate/cli.md). Those of libmemkv's errors are in common/tbl/errors.def. */
enum { CLI_DONE = 0, CLI_FAILED = 1, CLI_USAGE = 2, CLI_MISS = 3, CLI_UNREACHABLE = 4, CLI_DENIED = 5, CLI_CORRUPT = 6 };

#define CLI_BUFFER_BYTES	(8u << 20)	/* values up to this go in one piece, larger ones in such pieces */

#define CLI_DEADLINE_MAX_US	3600000000u	/* the library's limit */

/* Filled by the option table. */
struct cli_opts {
	const char	*servers, *transport, *namespace_, *config_file, *parent, *durability, *output, *range;
	const char	*drives, *rdma, *config_out, *data_dir;
	uint64_t	deadline_us, ttl_us, lease_us, limit, extent_bytes, file_bytes;
	int		hex, if_absent, overwrite, pin, quiet, json, help, force, idempotent, data, yes, server, client, verbose;
};

struct cli_key {
	const char	*given;			/* as on the command line */
	size_t		bytes;
	unsigned char	data[MEMKV_KEY_MAX];
};

struct cli_command;

struct cli {
	const struct cli_command *cmd;
	const char	*argv0;
	struct cli_opts	o;
	const char	**words;		/* what is no option, then NULL */
	int		n_words;
	struct mkv_client *client;
};

struct cli_command {
	const char	*name, *words, *help;
	int		least, most;		/* words; least -1: raw, argc and argv go to fn unparsed */
	int		(*fn)(struct cli *c, int argc, char **argv);
};

extern const struct cli_command	cli_commands[CLI_COMMANDS];

#define CLI_COMMAND(ID, name, fn, words, least, most, help)	int fn(struct cli *c, int argc, char **argv);
#include "clients/cli/commands.def"
#undef CLI_COMMAND

/* main.c */
int		cli_main(int argc, char **argv);
/* The handle, with a message if there is none. 0 or an exit status. */
int		cli_open(struct cli *c);

void		cli_help_all(FILE *to);
void		cli_help_command(FILE *to, enum cli_id id);

/* cmd_start.c: run a program of the server in our place; argv[0] is set here. Returns only when that failed: an exit status, with a message. */
int		cli_exec(const struct cli *c, const char *program, char **argv);

/* Where that program is. 0 or -1. */
int		cli_program(const char *argv0, const char *program, char out[PATH_MAX]);

/* text.c */
/* Key from the command line; 0, or an exit status with a message. */
int		cli_key(const struct cli *c, const char *given, struct cli_key *k);
int		cli_keys(const struct cli *c, struct cli_key **keys, struct mkv_key **list);	/* of all words; to be freed */
/* Bytes as text: what is not printable becomes \xNN; with --hex all digits. dst: room for 4 x bytes + 1. */
char *		cli_key_text(char *dst, const void *key, size_t bytes, int hex);
/* {"key": text} if it is UTF-8, else {"key_hex": digits}. */
void		cli_json_key(json_t *j, const void *key, size_t bytes);
void		cli_json_print(FILE *to, json_t *j);			/* takes j */
int		cli_range(const char *text, uint64_t *off, uint64_t *len);	/* 0 or -1 */
void		cli_time_text(char dst[32], uint64_t wall_ms);

/* fail.c */
/* Say what went wrong with which key and how to mend it; answers with the exit status. reason: of a miss. */
int		cli_fail(const struct cli *c, const struct cli_key *k, int status, unsigned reason);
/* The same with another way to mend it. */
int		cli_fail_hint(const struct cli *c, const struct cli_key *k, int status, const char *hint);
/* The same with a text that says it all. */
int		cli_fail_text(const struct cli *c, int status, const char *text);
int		cli_usage(const struct cli *c, const char *fmt, ...) MKV_PRINTF(2, 3);
/* A local failure: message with errno's text. Answers CLI_FAILED. */
int		cli_fail_file(const struct cli *c, const char *path, int err);

/* progress.c */
struct cli_progress {
	int		on;
	const char	*what;
	uint64_t	total, start_ns, shown_ns;	/* total 0: not known */
};
void		cli_progress_begin(struct cli_progress *p, const struct cli *c, const char *what, uint64_t total);
void		cli_progress_at(struct cli_progress *p, uint64_t done);
void		cli_progress_end(struct cli_progress *p);

#endif
