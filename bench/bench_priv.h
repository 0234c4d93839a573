/*
 * Inside the bench room: parameters of a run, its counters, and who calls whom: main.c parses, run.c (or replay.c) makes the load through a
 * driver, report.c prints.
 */
#ifndef MKV_BENCH_PRIV_H
#define MKV_BENCH_PRIV_H

#include <stdint.h>
#include <stdio.h>
#include <sys/types.h>

#include "bench/driver.h"
#include "bench/opt.h"
#include "common/base/hist.h"

enum bench_mode { MODE_FILL, MODE_PUT, MODE_GET, MODE_MIXED, MODE_EXISTS, MODE_MATCH, MODE_REPLAY, MODE_COUNT };

#define O_REPLAY	(1u << MODE_REPLAY)
#define O_ALL		((1u << MODE_COUNT) - 1)
#define O_LOAD		(O_ALL & ~O_REPLAY)

#define BENCH_THREADS_MAX	64u
#define BENCH_INFLIGHT_MAX	65536u		/* concurrency times batch */
#define BENCH_ERRORS_MAX	32u		/* rows of the error table: statuses of libmemkv are -1 .. -27 */
#define BENCH_REASONS_MAX	16u
#define BENCH_GIVE_UP		256u		/* failures in a row that end a run */
#define BENCH_KEY_BYTES		64u

/* Filled by the option table; see options.def. */
struct bench_params {
	enum bench_mode	mode;
	const char	*servers, *transport, *driver, *namespace_, *config_file, *durability, *trace, *server_pids, *control;
	uint64_t	deadline_us, size, keys, concurrency, batch, threads, connections, duration_us, ops, warmup_us, seed;
	uint64_t	block_bytes, limit, requests;
	double		rate, hit_pct, read_pct, speed, capacity_pct;
	int		verify, no_crc, files_direct, files_sync, json, quiet, help;
	const struct bench_driver *drv;		/* found from `driver`; tests set their own */
};

/* Counters of a run. Threads add with relaxed atomics, the progress line reads beside them. */
struct bench_stats {
	struct mkv_hist	latency;
	uint64_t	ops;			/* keys put, got or asked for */
	uint64_t	bytes;			/* of values that arrived */
	uint64_t	hits, misses, errors, verify_failures;
	uint64_t	miss_by[BENCH_REASONS_MAX];
	uint64_t	error_by[BENCH_ERRORS_MAX];	/* index: minus the status */
};

struct bench_result {
	struct bench_stats *stats;
	double		seconds;
	double		client_cpu_s, server_cpu_s;	/* negative: not known */
	uint64_t	unstarted;		/* open loop: intended inside the run, never started */
	int		interrupted;
	char		transport[16];
	char		first_error[160];	/* where and what, of the first failure or wrong byte */
	struct bench_replay_result *replay;	/* NULL unless replay */
};

struct bench_replay_result {
	uint64_t	requests, requests_total, blocks, distinct, ceiling_hits, put_blocks, got_blocks, put_bytes, got_bytes;
	uint64_t	capacity_bytes, server_bytes;	/* with --capacity-of-distinct */
	struct mkv_hist	match, get, put, request;
};

static inline void
bench_add(uint64_t *counter, uint64_t n)
{
	__atomic_fetch_add(counter, n, __ATOMIC_RELAXED);
}

static inline uint64_t
bench_load(const uint64_t *counter)
{
	return (__atomic_load_n(counter, __ATOMIC_RELAXED));
}

/* main.c */
extern const struct mkv_opt bench_options[];
extern const unsigned bench_options_count;
const char *	bench_mode_name(enum bench_mode m);
/* SIGINT and SIGTERM were seen: end in order. */
int		bench_interrupted(void);
/* Text of the key with this number; space: 'k' filled keys, 'm' keys that nobody fills, 'b' blocks of a trace. Returns its length. */
size_t		bench_key(char dst[BENCH_KEY_BYTES], char space, uint64_t seed, uint64_t number);
void		bench_drv_opts(const struct bench_params *p, struct bench_drv_opts *o, uint64_t concurrency, uint64_t value_bytes);
void		bench_count_error(struct bench_result *res, int status, const char *what, const char *key);

/* run.c, replay.c: 0 or a negative MKV_ERR_* with why; counters are valid in both cases. */
int		bench_run(const struct bench_params *p, struct bench_result *res, char *why, size_t why_bytes);
int		bench_replay(const struct bench_params *p, struct bench_result *res, char *why, size_t why_bytes);

/* report.c */
void		bench_report_text(FILE *to, const struct bench_params *p, const struct bench_result *res);
int		bench_report_json(FILE *to, const struct bench_params *p, const struct bench_result *res);

/* progress.c: a line on stderr once a second while somebody looks. */
struct bench_progress;
struct bench_progress *bench_progress_start(const struct bench_stats *stats, const uint64_t *done, uint64_t total, int wanted);
void		bench_progress_stop(struct bench_progress *pr);		/* accepts NULL */

/* host.c */
struct bench_host {
	int		cores;
	char		kernel[128], cpu[128];
	double		load;			/* one minute average; negative: not known */
};
void		bench_host(struct bench_host *h);
#define BENCH_PIDS_MAX	256u
/* CPU seconds of these processes and all below them; negative when nothing is known. */
double		bench_cpu_of(const pid_t *pids, unsigned n);
/* Processes named by --server-pid, or asked for at the control socket. Returns how many; 0 none. */
unsigned	bench_server_pids(const struct bench_params *p, pid_t pids[BENCH_PIDS_MAX]);

#endif
