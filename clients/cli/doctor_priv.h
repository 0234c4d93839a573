/*
 * Inside clients/cli: memkv doctor. One thread, one run. What the checks read comes through struct doctor: files below a root directory, and a table of
 * functions for what is no file, so that tests put a machine with any fault in front of them.
 */
#ifndef MKV_CLI_DOCTOR_PRIV_H
#define MKV_CLI_DOCTOR_PRIV_H

#include <limits.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/types.h>

#include <jansson.h>

#include "common/base/assert.h"
#include "common/base/os.h"
#include "common/base/params.h"

#define DOCTOR_SERVER	1u
#define DOCTOR_CLIENT	2u
#define DOCTOR_LINUX	4u

#define DOCTOR_FOUND_MAX	512u		/* more than that is counted, not kept */
#define DOCTOR_DENIED_MAX	8u
#define DOCTOR_NAMES_MAX	65536u		/* entries of a directory that are looked at; soft-RoCE has 1024 GIDs */
#define DOCTOR_NAME_BYTES	64u
#define DOCTOR_TEXT_BYTES	256u		/* a line of a file */

enum doctor_level { DOCTOR_OK, DOCTOR_INFO, DOCTOR_WARN, DOCTOR_FAIL, DOCTOR_LEVELS };

enum doctor_check_id {
#define DOCTOR_CHECK(ID, name, fn, scope, what)		DOCTOR_C_##ID,
#define DOCTOR_FINDING(ID, id, level, why, fix)
#include "clients/cli/doctor.def"
#undef DOCTOR_CHECK
#undef DOCTOR_FINDING
	DOCTOR_CHECKS
};

enum doctor_id {
#define DOCTOR_CHECK(ID, name, fn, scope, what)
#define DOCTOR_FINDING(ID, id, level, why, fix)		DOCTOR_##ID,
#include "clients/cli/doctor.def"
#undef DOCTOR_CHECK
#undef DOCTOR_FINDING
	DOCTOR_FINDINGS
};

struct doctor;

struct doctor_check {
	const char	*name, *what;
	unsigned	scope;
	void		(*fn)(struct doctor *d);
};

struct doctor_row {
	const char	*id, *why, *fix;
	enum doctor_level level;
};

enum doctor_limit { DOCTOR_LIMIT_MEMLOCK, DOCTOR_LIMIT_FILES };

/* What is no file. Results: 0 or -errno unless it says otherwise. */
struct doctor_ops {
	int		(*limit)(enum doctor_limit which, uint64_t *soft, uint64_t *hard);	/* UINT64_MAX: none */
	int		(*system)(char name[65], char release[65]);
	int		(*clock)(void);				/* 1 synchronised, 0 not, -errno not known */
	int		(*uring)(void);				/* makes a ring and drops it */
	int		(*dcb)(const char *netdev, struct mkv_os_dcb *out);	/* -EOPNOTSUPP: the driver does not tell */
	int		(*bind)(const char *host, uint16_t port);
	/* Of the filesystem that a path is on: a number of its own, and what is free there for whoever asks. */
	int		(*space)(const char *path, uint64_t *filesystem, uint64_t *free_bytes);
	int		(*uid)(void);
	const char *	(*env)(const char *name);		/* NULL: not set */
	/* Open a handle as programs do (no connection is made) and close it: 0 or MKV_E_*, with a sentence; 0 with one: what it goes on without. */
	int		(*client)(const char *file, char *why, size_t why_bytes);
	/* What the server's own checker says of this configuration (NULL: where it looks itself), to be dropped. NULL: why. */
	json_t *	(*config)(const struct doctor *d, const char *file, char *why, size_t why_bytes);
};

struct doctor_found {
	enum doctor_check_id check;
	enum doctor_level level;
	int		id;			/* enum doctor_id; -1: it is fine */
	char		*saw, *fix;
};

struct doctor {
	const struct doctor_ops *ops;
	const char	*root;			/* "": the machine's own */
	const char	*argv0;
	unsigned	scope;
	const char	*config_file;		/* --config; NULL: not given */

	/* What the server would have; defaults where that is not known. */
	struct mkv_params params;
	json_t		*answer;		/* of ops->config; NULL: none */
	char		file[PATH_MAX];		/* its file; "": none */
	char		data_dir[PATH_MAX];	/* that the server makes where it is missing */
	char		data_host[64], admin_host[64];
	uint16_t	data_port, admin_port;
	uint32_t	fronts;
	uint64_t	staging_bytes, memory_bytes, shared_bytes;	/* the last: of segments, which may lie in huge pages */
	uint64_t	huge_bytes;		/* of these, what finds huge pages now */
	uint64_t	ram_bytes;		/* of the machine; 0: not known */
	const char	*huge_short;		/* what of huge pages is short, in the server's words; "": nothing; NULL: it did not say */
	int		explicit_key;
	const char	*budget;		/* what the server itself says of the memory; NULL: it fits */
	int		server_runs;		/* one of ours holds a port already */

	enum doctor_check_id now;
	enum doctor_level at_most;		/* of what is said from here on */
	struct doctor_found *found;
	unsigned	n_found, lost, count[DOCTOR_LEVELS];
	char		denied[DOCTOR_DENIED_MAX][DOCTOR_TEXT_BYTES];
	unsigned	n_denied;
	void		**kept;			/* memory of lists, until doctor_fini() */
	unsigned	n_kept;
};

struct doctor_names {				/* the names belong to struct doctor */
	unsigned	count;
	char		(*name)[DOCTOR_NAME_BYTES];
};

extern const struct doctor_check doctor_checks[DOCTOR_CHECKS];
extern const struct doctor_row	doctor_rows[DOCTOR_FINDINGS];
extern const struct doctor_ops	doctor_real;			/* doctor_real.c */
extern const char *const	doctor_level_names[DOCTOR_LEVELS];

/* doctor.c */
void		doctor_run(struct doctor *d);			/* ops, root, scope, config_file are set */
void		doctor_fini(struct doctor *d);
/* Something is fine. */
void		doctor_ok(struct doctor *d, const char *fmt, ...) MKV_PRINTF(2, 3);
/* Something is not: what was seen. args: what fills the {words} of the row's way to mend it, NULL at the end. */
void		doctor_say(struct doctor *d, enum doctor_id id, const char *const *args, const char *fmt, ...) MKV_PRINTF(4, 5);
#define DOCTOR_ARGS(...)	((const char *const[]){ __VA_ARGS__, NULL })
void		doctor_print(const struct doctor *d, FILE *to, int verbose);
void		doctor_print_json(const struct doctor *d, FILE *to, int verbose);

/* doctor_root.c: files below the root. What cannot be read because of who we are is remembered. */
/* The first line, blanks at its ends cut, what cannot be printed as '?'. 0; -ENODATA: empty; or -errno. */
int		doctor_text(struct doctor *d, char *dst, size_t room, const char *fmt, ...) MKV_PRINTF(4, 5);
int		doctor_number(struct doctor *d, int64_t *out, const char *fmt, ...) MKV_PRINTF(3, 4);	/* the first word, decimal */
/* At most max bytes of it, with a NUL behind; to be freed. NULL: it cannot be read. */
char *		doctor_load(struct doctor *d, size_t max, size_t *bytes, const char *fmt, ...) MKV_PRINTF(4, 5);
mode_t		doctor_mode(struct doctor *d, const char *fmt, ...) MKV_PRINTF(2, 3);	/* 0: it is not there */
int		doctor_link(struct doctor *d, char *dst, size_t room, const char *fmt, ...) MKV_PRINTF(4, 5);	/* 0 or -errno */
/* May this user? mode as of access(2). */
int		doctor_may(struct doctor *d, int mode, const char *fmt, ...) MKV_PRINTF(3, 4);	/* 0 or -errno */
int		doctor_space(struct doctor *d, uint64_t *filesystem, uint64_t *free_bytes, const char *fmt, ...) MKV_PRINTF(4, 5);	/* 0 or -errno */
/* Room for so many names, none of them there yet. 0 or -ENOMEM, then there is no room. */
int		doctor_names_room(struct doctor *d, struct doctor_names *n, unsigned room);
/* Names of a directory, sorted; those that begin with a dot are left out. */
void		doctor_list(struct doctor *d, struct doctor_names *n, const char *fmt, ...) MKV_PRINTF(3, 4);
/* The value behind "Name:" in a file of such lines, in bytes if it says kB; -1: not there. */
int64_t		doctor_field(const char *text, const char *name);
/* Is `word` one of those that stand between blanks? A word in brackets is the chosen one: "always [madvise] never". */
int		doctor_chosen(const char *text, const char *word);
/* Who listens on a port: the program's name, "" if it cannot be told. 1 somebody listens, 0 nobody seen. */
int		doctor_listener(struct doctor *d, uint16_t port, char *name, size_t room);

/* doctor_config.c */
void		doctor_config_defaults(struct doctor *d);

/* doctor_drive.c */
/* The kernel's name of the block device that a path means; 0 or -errno. */
int		doctor_block(struct doctor *d, const char *path, char name[DOCTOR_NAME_BYTES]);
/* The PCI device that something in sysfs is: "0000:3b:00.0", of the link `path`/device or one above. 0 or -errno. */
int		doctor_slot(struct doctor *d, const char *path, char slot[DOCTOR_NAME_BYTES]);
/* Says `id` if the PCI link of this device is narrower or slower than it could be. */
void		doctor_pcie(struct doctor *d, enum doctor_id id, const char *what, const char *path);

/* doctor_rdma.c */
struct doctor_port {
	char		device[DOCTOR_NAME_BYTES], netdev[DOCTOR_NAME_BYTES];	/* netdev "": none */
	unsigned	port;
	int		soft;			/* no hardware below it */
	int		ethernet;
};
/* The devices that are looked at: those that were named, or all. *named: somebody named them. */
void		doctor_rdma_names(struct doctor *d, struct doctor_names *n, int *named, const char **key);
/* Calls fn for each port of each device that is there. */
void		doctor_rdma_ports(struct doctor *d, void (*fn)(struct doctor *d, const struct doctor_port *p));

#define DOCTOR_CHECK(ID, name, fn, scope, what)		void fn(struct doctor *d);
#define DOCTOR_FINDING(ID, id, level, why, fix)
#include "clients/cli/doctor.def"
#undef DOCTOR_CHECK
#undef DOCTOR_FINDING

#endif
