/*
 * What a power loss leaves, at every flush and between: a log of writes that a served drive made in the lab is replayed up to a point, what was not
 * flushed by then is kept, dropped or torn, and the engine opens what is left. Tests only; one thread in each process.
 *
 *	replay [-j JOBS] [-r RANDOM] [-e EVERY] [-s SEED] [-o POINT] [-v] LOG BYTES OPS VALUES SECRET
 *
 * LOG: the drive behind dm-log-writes; BYTES: size of the drive it stood before. OPS: a line for each operation in order of their answers,
 * "NO KIND KEY OFFSET BYTES": KIND p (put, its value at OFFSET of VALUES) or d (delete). The client gave the mark "aNO" after the answer of
 * operation NO, and "ready" when the store was formatted. SECRET: the store's, in hex.
 *
 * Checked at each point: the newest write of a key that was answered for is there, byte for byte, or the one after it, which had begun; what was
 * deleted is not there; the store has no damage. Then the process that recovered dies, and the next one finds the same.
 *
 * Points: each flush and FUA write, before and after (every EVERY-th of them), and RANDOM others, no two of them the same; a log that has not so many
 * is refused. A point is the number of entries that had been logged. Each process walks the log by itself and takes every JOBS-th point. What fails:
 * prints the point, its variant and the key; exit 1.
 */
#include "config.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/base/assert.h"
#include "common/base/auth.h"
#include "common/base/err.h"
#include "common/base/hash.h"
#include "common/base/log.h"
#include "common/shm/drv.h"
#include "tests/crash/rig.h"
#include "tests/lab/overlay.h"
#include "tests/lab/wlog.h"
#include "tests/lib/rnd.h"

#define SECTOR		512u
#define KEYS_MAX	4096u
#define EPOCH		1000000u	/* above what the servers in the lab had */
#define CHUNK_ROOM	(2u << 16)	/* a get may read a chunk more at each end */

enum variant { KEPT, DROPPED, SOME, TORN, VARIANTS };
static const char *const variant_name[] = { "kept", "dropped", "some", "torn" };

struct op {
	unsigned	no;
	int		put;
	uint64_t	off, bytes;
	struct op	*next;			/* of the same key */
	struct key	*key;
};

struct key {
	char		name[64];
	struct op	*first, *last;
	struct op	*acked;			/* newest that was answered for before the point; NULL: none */
	struct mkv_digest digest;
};

/* What all processes add to. */
struct sums {
	uint64_t	points, states, values, absent, torn_superblocks, failed;
};

struct replay {
	struct wlog	log;
	uint64_t	bytes, ready;
	uint8_t		*point;			/* of each number of entries: 1 boundary, 2 random */
	struct key	key[KEYS_MAX];
	unsigned	n_keys, n_ops;
	struct op	*op;			/* by number */
	const uint8_t	*values;
	uint64_t	values_bytes;
	uint8_t		secret[32], piece_secret[MKV_SECRET_BYTES];

	uint8_t		*image;			/* what is on the medium for certain */
	struct overlay	*o;
	struct rig	*rig;
	struct rnd	rnd;
	uint8_t		*got;
	uint64_t	got_bytes;
	struct sums	*sums;
	int		verbose;
};

static struct replay replay;

static void
die(const char *what, const char *more)
{
	fprintf(stderr, "replay: %s%s\n", what, more);
	exit(2);
}

/* ---- What is to be expected ------------------------------------------------------------------------------------------------ */

static struct key *
key_of(struct replay *r, const char *name)
{
	struct key *k;

	for (unsigned i = 0; i < r->n_keys; i++)
		if (strcmp(r->key[i].name, name) == 0)
			return (&r->key[i]);
	if (r->n_keys == KEYS_MAX || strlen(name) >= sizeof(k->name))
		die("too many keys, or too long: ", name);
	k = &r->key[r->n_keys++];
	strcpy(k->name, name);
	return (k);
}

static void
ops_read(struct replay *r, const char *path)
{
	FILE *f = fopen(path, "re");
	char kind, name[64];
	unsigned no, max = 1u << 20;
	unsigned long long off, bytes;

	r->op = calloc(max, sizeof(*r->op));
	if (f == NULL || r->op == NULL)
		die("cannot read ", path);
	while (fscanf(f, "%u %c %63s %llu %llu", &no, &kind, name, &off, &bytes) == 5) {
		struct op *o;

		if (no != r->n_ops || no >= max || off > r->values_bytes || bytes > r->values_bytes - off)
			die("bad operation in ", path);
		o = &r->op[r->n_ops++];
		*o = (struct op){ .no = no, .put = kind == 'p', .off = off, .bytes = bytes, .key = key_of(r, name) };
		if (o->key->last != NULL)
			o->key->last->next = o;
		else
			o->key->first = o;
		o->key->last = o;
		r->got_bytes = MKV_MAX(r->got_bytes, bytes);
	}
	fclose(f);
	if (r->n_ops == 0)
		die("no operations in ", path);
}

static void
values_map(struct replay *r, const char *path)
{
	struct stat st;
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	void *p;

	if (fd < 0 || fstat(fd, &st) != 0 || (p = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_SHARED, fd, 0)) == MAP_FAILED)
		die("cannot read ", path);
	close(fd);
	r->values = p;
	r->values_bytes = (uint64_t)st.st_size;
}

static void
secrets_make(struct replay *r, const char *hex)
{
	uint8_t ns[MKV_SECRET_BYTES];
	unsigned v;

	if (strlen(hex) != 64 || strspn(hex, "0123456789abcdef") != 64)
		die("no secret: ", hex);
	for (unsigned i = 0; i < 32; i++) {
		(void)sscanf(hex + 2 * i, "%2x", &v);
		r->secret[i] = (uint8_t)v;
	}
	MKV_ASSERT(mkv_digest_secret(r->secret, "", 0, ns) == 0);
	MKV_ASSERT(mkv_hkdf(r->secret, 32, NULL, 0, MKV_PIECE_INFO, strlen(MKV_PIECE_INFO), r->piece_secret, sizeof(r->piece_secret)) == 0);
	for (unsigned i = 0; i < r->n_keys; i++)
		r->key[i].digest = mkv_digest(ns, r->key[i].name, strlen(r->key[i].name));
}

/* ---- Reading the recovered store ------------------------------------------------------------------------------------------- */

/* One object, or one piece of a value, to `to`. The answer; its status is what a front would hear. */
static const struct mkv_drv_rep *
get_one(struct replay *r, struct mkv_drv_req *q, uint8_t *to)
{
	const struct mkv_drv_rep *p;

	q->len = RIG_SLOT_BYTES - CHUNK_ROOM;
	rig_bufs(q, 0, RIG_SLOT_BYTES);
	rig_submit(r->rig, 0, q);
	p = rig_wait(r->rig, 0);
	MKV_ASSERT(p != NULL);
	if (p->status == 0 && (p->flags & MKV_DRV_F_MANIFEST) == 0 && p->len == p->value_bytes && p->len <= (uint64_t)(r->got + r->got_bytes - to))
		memcpy(to, rig_mem(r->rig, 0) + p->skip, p->len);
	return (p);
}

static int
get_pieces(struct replay *r, const struct mkv_drv_rep *manifest, uint64_t *bytes)
{
	struct mkv_drv_rep m = *manifest;
	struct mkv_drv_req q;
	const struct mkv_drv_rep *p;

	if (m.value_bytes > r->got_bytes || m.piece_bytes == 0)
		return (MKV_E_CORRUPT);
	for (uint32_t no = 0; (uint64_t)no * m.piece_bytes < m.value_bytes; no++) {
		rig_req(&q, MKV_DRV_GET, NULL);
		q.flags = MKV_DRV_F_PIECE;
		q.set = m.set;
		q.piece_no = no;
		q.piece_bytes = m.piece_bytes;
		q.digest = mkv_piece_digest(r->piece_secret, m.set, no);
		p = get_one(r, &q, r->got + (uint64_t)no * m.piece_bytes);
		if (p->status != 0)
			return (p->status);
		if (p->len != MKV_MIN(m.value_bytes - (uint64_t)no * m.piece_bytes, (uint64_t)m.piece_bytes))
			return (MKV_E_CORRUPT);
	}
	*bytes = m.value_bytes;
	return (0);
}

/* The value of a key in r->got. */
static int
get_value(struct replay *r, const struct key *k, uint64_t *bytes)
{
	const struct mkv_drv_rep *p;
	struct mkv_drv_req q;

	rig_req(&q, MKV_DRV_GET, k->name);
	q.digest = k->digest;
	p = get_one(r, &q, r->got);
	if (p->status == 0 && (p->flags & MKV_DRV_F_MANIFEST))
		return (get_pieces(r, p, bytes));
	*bytes = p->value_bytes;
	return (p->status);
}

/* ---- Judging --------------------------------------------------------------------------------------------------------------- */

struct place {
	uint64_t	point;
	enum variant	variant;
	unsigned	life;			/* 0: the first recovery; 1: the one after the death of the first */
};

static void
failed(struct replay *r, const struct place *at, const char *key, const char *what)
{
	__atomic_fetch_add(&r->sums->failed, 1, __ATOMIC_RELAXED);
	printf("FAILED at point %llu of %llu, unflushed writes %s, recovery %u: %s%s%s\n", (unsigned long long)at->point, (unsigned long long)r->log.n,
	    variant_name[at->variant], at->life + 1, key, key[0] != '\0' ? ": " : "", what);
	fflush(stdout);
}

static int
op_is(const struct replay *r, const struct op *o, int status, uint64_t bytes)
{
	if (o == NULL || !o->put)
		return (status == MKV_E_MISS);
	return (status == 0 && bytes == o->bytes && memcmp(r->got, r->values + o->off, bytes) == 0);
}

static void
judge_key(struct replay *r, const struct key *k, const struct place *at)
{
	char what[160];
	uint64_t bytes = 0;
	int status = get_value(r, k, &bytes);
	const struct op *next = k->acked != NULL ? k->acked->next : k->first;

	__atomic_fetch_add(status == 0 ? &r->sums->values : &r->sums->absent, 1, __ATOMIC_RELAXED);
	if (op_is(r, k->acked, status, bytes) || (next != NULL && op_is(r, next, status, bytes)))
		return;
	for (const struct op *o = k->first; o != NULL; o = o->next) {
		if (status == 0 && op_is(r, o, status, bytes)) {
			snprintf(what, sizeof(what), "operation %u is there, answered for is %d", o->no, k->acked != NULL ? (int)k->acked->no : -1);
			failed(r, at, k->name, what);
			return;
		}
	}
	snprintf(what, sizeof(what), "%s, answered for is operation %d%s", status == 0 ? "wrong bytes" : mkv_err(status),
	    k->acked != NULL ? (int)k->acked->no : -1, k->acked != NULL && !k->acked->put ? " (a delete)" : "");
	failed(r, at, k->name, what);
}

static void
judge_books(struct replay *r, const struct place *at)
{
	struct mkv_inspect in = { .data = 1 };
	struct mkv_engine_info info;
	char what[160];

	mkv_engine_info(r->rig->e, &info);
	/* Torn, as far as anybody can tell; the other one serves. */
	__atomic_fetch_add(&r->sums->torn_superblocks, (uint64_t)info.superblock_bad, __ATOMIC_RELAXED);
	if (mkv_engine_inspect(r->rig->e, &in) != 0) {
		failed(r, at, "", "the store cannot be looked over");
		return;
	}
	if (in.bad_pages + in.bad_records + in.bad_data + info.damaged_blocks + info.lost_objects == 0)
		return;
	snprintf(what, sizeof(what), "damage: pages %llu, records %llu, values %llu; recovery: blocks %u, objects %u", (unsigned long long)in.bad_pages,
	    (unsigned long long)in.bad_records, (unsigned long long)in.bad_data, info.damaged_blocks, info.lost_objects);
	failed(r, at, "", what);
}

static struct mkv_media *
wrap_overlay(struct rig *rig, struct mkv_media *m)
{
	(void)rig;
	mkv_media_close(&m);
	return (&replay.o->m);
}

static void
judge(struct replay *r, uint64_t point, enum variant variant)
{
	struct place at = { point, variant, 0 };

	for (at.life = 0; at.life < 2; at.life++) {
		int err;

		r->rig->o.epoch = EPOCH + at.life;
		if ((err = rig_open(r->rig)) != 0) {
			failed(r, &at, "", r->rig->why[0] != '\0' ? r->rig->why : mkv_err(err));
			return;
		}
		if (at.life == 0)
			judge_books(r, &at);
		for (unsigned i = 0; i < r->n_keys; i++)
			judge_key(r, &r->key[i], &at);
		(void)rig_close(r->rig, 1);
		overlay_forget_io(r->o);
	}
	__atomic_fetch_add(&r->sums->states, 1, __ATOMIC_RELAXED);
}

/* ---- The medium at a point ------------------------------------------------------------------------------------------------- */

/* One write that was not flushed. */
static void
apply_pending(struct replay *r, const struct wlog_entry *e, enum variant v)
{
	if (v == DROPPED || (v == SOME && rnd_below(&r->rnd, 2)))
		return;
	if (e->flags & WLOG_DISCARD) {
		/* A drive may answer with anything after a discard; these are two of its ways. */
		overlay_fill(r->o, v == KEPT ? 0 : 0xd1, e->bytes, e->off);
		return;
	}
	if (v != TORN) {
		overlay_write(r->o, e->data, e->bytes, e->off);
		return;
	}
	for (uint64_t i = 0; i < e->bytes; i += SECTOR)
		if (rnd_below(&r->rnd, 2))
			overlay_write(r->o, e->data + i, SECTOR, e->off + i);
}

/* The image has entries [0, from); the point lies at `to`. How many writes could be lost. */
static unsigned
apply(struct replay *r, uint64_t from, uint64_t to, enum variant v)
{
	unsigned n = 0;

	for (uint64_t i = from; i < to; i++) {
		const struct wlog_entry *e = &r->log.entry[i];

		if (e->bytes == 0)
			continue;
		if (e->flags & WLOG_FUA) {
			overlay_write(r->o, e->data, e->bytes, e->off);
			continue;
		}
		apply_pending(r, e, v);
		n++;
	}
	return (n);
}

static void
image_take(struct replay *r, const struct wlog_entry *e)
{
	if (e->bytes == 0)
		return;
	if (e->off > r->bytes || e->bytes > r->bytes - e->off)
		die("a write lies behind the end of the drive", "");
	if (e->flags & WLOG_DISCARD)
		memset(r->image + e->off, 0, e->bytes);
	else
		memcpy(r->image + e->off, e->data, e->bytes);
}

static void
mark_take(struct replay *r, const struct wlog_entry *e)
{
	char text[32];
	unsigned no;

	snprintf(text, sizeof(text), "%.*s", (int)MKV_MIN(e->text_bytes, 31u), (const char *)e->data);
	if (sscanf(text, "a%u", &no) == 1 && no < r->n_ops && (r->op[no].key->acked == NULL || r->op[no].key->acked->no < no))
		r->op[no].key->acked = &r->op[no];
}

static void
at_point(struct replay *r, uint64_t flushed, uint64_t point)
{
	if (r->verbose)
		printf("point %llu, %llu entries since the flush\n", (unsigned long long)point, (unsigned long long)(point - flushed));
	__atomic_fetch_add(&r->sums->points, 1, __ATOMIC_RELAXED);
	for (enum variant v = KEPT; v < VARIANTS; v++) {
		unsigned open_writes;

		r->rnd.state = (point * 16 + v) * 0x9e3779b97f4a7c15ull + 1;	/* a point is the same whoever takes it */
		open_writes = apply(r, flushed, point, v);
		judge(r, point, v);
		overlay_reset(r->o);
		if (open_writes == 0)
			break;
	}
}

/* Every jobs-th point, from the job-th on. */
static void
walk(struct replay *r, unsigned job, unsigned jobs)
{
	uint64_t flushed = 0, taken = 0;

	r->image = mmap(NULL, r->bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	MKV_ASSERT(r->image != MAP_FAILED);
	r->o = overlay_create(r->image, r->bytes);
	r->got = malloc(r->got_bytes + 1);
	r->rig = rig_create(RIG_SIM, 1u << 20, 1);
	memset(r->rig->o.drive_uuid, 0, sizeof(r->rig->o.drive_uuid));	/* the recorded drive has its own */
	MKV_ASSERT(r->got != NULL && r->rig != NULL);
	r->rig->wrap = wrap_overlay;
	r->rig->o.offline = 1;
	r->rig->o.may_format = 0;
	memcpy(r->rig->o.store_secret, r->secret, sizeof(r->secret));
	for (uint64_t i = 0; i <= r->log.n; i++) {
		const struct wlog_entry *e = &r->log.entry[i];

		if (r->point[i] && taken++ % jobs == job)
			at_point(r, flushed, i);
		if (i == r->log.n)
			break;
		if (e->flags & WLOG_MARK)
			mark_take(r, e);
		if (e->flags & WLOG_FLUSH) {
			for (; flushed < i; flushed++)
				image_take(r, &r->log.entry[flushed]);
		}
	}
	rig_destroy(&r->rig);
	overlay_destroy(&r->o);
	free(r->got);
}

/* ---- Which points ---------------------------------------------------------------------------------------------------------- */

static void
points_choose(struct replay *r, unsigned every, unsigned n_random, uint64_t seed)
{
	unsigned boundary = 0, n = 0;

	r->point = calloc(r->log.n + 1, 1);
	MKV_ASSERT(r->point != NULL);
	for (uint64_t i = r->ready; i < r->log.n; i++) {
		if ((r->log.entry[i].flags & (WLOG_FLUSH | WLOG_FUA)) == 0)
			continue;
		if (boundary++ % every == 0)
			r->point[i] = r->point[i + 1] = 1;
	}
	r->rnd.state = seed;
	for (unsigned tries = 0; n < n_random && tries < 20 * n_random; tries++) {
		uint64_t i = r->ready + rnd_u64(&r->rnd) % (r->log.n - r->ready + 1);

		if (r->point[i] == 0) {
			r->point[i] = 2;
			n++;
		}
	}
	if (n < n_random)
		die("the log is too short for so many random points beside the boundaries: record more operations", "");
	printf("%llu entries from the mark `ready' on, %u flushes and FUA writes, %u random points\n", (unsigned long long)(r->log.n - r->ready), boundary, n);
	fflush(stdout);				/* once, not by each process */
}

static void
ready_find(struct replay *r)
{
	for (uint64_t i = 0; i < r->log.n; i++) {
		const struct wlog_entry *e = &r->log.entry[i];

		if ((e->flags & WLOG_MARK) && e->text_bytes >= 5 && memcmp(e->data, "ready", 5) == 0) {
			r->ready = i + 1;
			return;
		}
	}
	die("the log has no mark `ready'", "");
}

static int
run(struct replay *r, unsigned jobs)
{
	int bad = 0, status;

	for (unsigned j = 0; j < jobs; j++) {
		pid_t pid = fork();

		MKV_ASSERT(pid >= 0);
		if (pid == 0) {
			walk(r, j, jobs);
			fflush(stdout);
			_exit(0);
		}
	}
	while (wait(&status) > 0 || errno == EINTR)
		bad |= status;
	printf("%llu points, %llu states recovered twice, %llu values and %llu absences checked, %llu torn superblocks, %llu failures\n", (unsigned long long)r->sums->points,
	    (unsigned long long)r->sums->states, (unsigned long long)r->sums->values, (unsigned long long)r->sums->absent,
	    (unsigned long long)r->sums->torn_superblocks, (unsigned long long)r->sums->failed);
	if (bad != 0)
		printf("FAILED: a process that replayed has died\n");
	return (bad != 0 || r->sums->failed > 0 || r->sums->states == 0);
}

static void
inputs_read(struct replay *r, char **arg)
{
	char why[256];

	if (wlog_open(&r->log, arg[0], why, sizeof(why)) != 0)
		die(why, "");
	r->bytes = strtoull(arg[1], NULL, 10);
	values_map(r, arg[3]);
	ops_read(r, arg[2]);
	secrets_make(r, arg[4]);
}

int
main(int argc, char **argv)
{
	struct replay *r = &replay;
	unsigned jobs = 1, n_random = 50, every = 1;
	uint64_t seed = 1, only = UINT64_MAX;
	int c;

	while ((c = getopt(argc, argv, "j:r:e:s:o:v")) != -1) {
		switch (c) {
		case 'j': jobs = (unsigned)strtoul(optarg, NULL, 10); break;
		case 'r': n_random = (unsigned)strtoul(optarg, NULL, 10); break;
		case 'e': every = (unsigned)strtoul(optarg, NULL, 10); break;
		case 's': seed = strtoull(optarg, NULL, 10); break;
		case 'o': only = strtoull(optarg, NULL, 10); break;
		case 'v': r->verbose = 1; break;
		default: return (2);
		}
	}
	if (argc - optind != 5 || jobs == 0 || every == 0)
		die("usage: replay [-j JOBS] [-r RANDOM] [-e EVERY] [-s SEED] [-o POINT] [-v] LOG BYTES OPS VALUES SECRET", "");
	inputs_read(r, argv + optind);
	mkv_log_init(MKV_LOG_ERROR);
	ready_find(r);
	points_choose(r, every, n_random, seed);
	if (only <= r->log.n) {
		memset(r->point, 0, r->log.n + 1);
		r->point[only] = 1;
	}
	r->sums = mmap(NULL, sizeof(*r->sums), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	MKV_ASSERT(r->sums != MAP_FAILED);
	return (run(r, jobs));
}
