/*
 * The load of every operation but replay. Each thread has a driver instance, a fixed set of slots and one loop: start what is due, wait,
 * take what is finished, check it, count it.
 *
 *	slot   FREE --start--> OUT (its ios are with the driver) --last io back--> FREE
 *
 * Closed loop: a slot starts again as soon as it is free. Open loop (--rate): call i of a thread is due at start + i x interval; when no slot
 * is free it starts late, and its latency counts from when it was due, so a stall of the server is charged to all it delayed.
 *
 * Memory is taken before the clock starts. A put's key is `busy` until its answer: two puts of a key at once would leave open which one
 * wins. acked[key] is the version of the last answered put: a get that began later and shows an older one is a wrong answer.
 */
#include "config.h"
#include "bench/bench_priv.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "bench/gen.h"
#include "common/base/assert.h"
#include "common/base/clock.h"
#include "common/base/err.h"

#define RUN_WAIT_US		100000u		/* look for the end at least so often */
#define RUN_DRAIN_MAX		64u
#define RUN_TABLE_KEYS		65536u
#define RUN_BACKOFF_NS		(10 * MKV_NS_PER_MS)	/* a slot that failed rests so long: no storm against a server that restarts */
#define RUN_SILENT_NS		(5 * MKV_NS_PER_SEC)	/* failures without one success for so long (and a deadline) end the run */

struct run_key {
	uint64_t	number, floor;
	const char	*text;			/* own[], or of the run's table */
	char		own[BENCH_KEY_BYTES];
	char		space;
};

/* Few keys: their texts are made once, so that a batch of thousands costs no formatting. */
struct run_text {
	uint32_t	bytes;
	char		text[BENCH_KEY_BYTES - sizeof(uint32_t)];
};

struct run_slot {
	struct run_slot	*next_free;
	enum bench_op	op;
	unsigned	n_io, out, failed;
	int		counted;		/* it began after the warm-up */
	uint64_t	due_ns;
	struct bench_io	*io;			/* batch of them; EXISTS and MATCH use the first */
	struct run_key	*key;
	struct mkv_key	*keys;
	uint8_t		*present;
	unsigned char	*buf;			/* batch values */
};

struct run {
	const struct bench_params *p;
	struct bench_result *res;
	struct bench_stats *stats;
	uint64_t	value_room, calls_total;	/* calls_total: 0 no limit */
	uint64_t	calls;			/* claimed by threads */
	uint64_t	version;
	uint64_t	start_ns, measure_ns, end_ns, last_done_ns, last_good_ns;
	uint64_t	*acked;			/* MIXED: by key */
	uint8_t		*busy;			/* PUT, MIXED: by key */
	struct run_text	*table[2];		/* 'k' and 'm'; NULL: too many keys */
	int		stop;			/* 1 failed for too long */
	pthread_mutex_t	error_lock;
};

struct run_thread {
	struct run	*run;
	pthread_t	id;
	unsigned	idx;
	struct bench_drv *drv;
	struct run_slot	*slot, *free;
	unsigned	n_slots, n_out;
	uint64_t	rng, interval_ns, next_due_ns, rest_until_ns;
	struct bench_io	*late, **late_tail;	/* refused with AGAIN: first in, first out */
	void		*block;			/* memory of the slots */
	void		*values;
	uint64_t	unstarted;
};

static int
run_puts(const struct bench_params *p)
{
	return (p->mode == MODE_PUT || p->mode == MODE_MIXED);
}

static int
run_has_values(const struct bench_params *p)
{
	return (p->mode != MODE_EXISTS && p->mode != MODE_MATCH);
}

/* ---- what a call asks for ---- */

/* A key that no put is using. There are at least as many keys as puts can be in flight. */
static uint64_t
run_claim_key(struct run_thread *t)
{
	uint64_t keys = t->run->p->keys, k = mkv_gen_random(&t->rng) % keys;

	for (;;) {
		if (__atomic_exchange_n(&t->run->busy[k], 1, __ATOMIC_ACQUIRE) == 0)
			return (k);
		k = (k + 1) % keys;
	}
}

static int
run_chance(struct run_thread *t, double pct)
{
	return ((double)(mkv_gen_random(&t->rng) >> 11) * (100.0 / 9007199254740992.0) < pct);
}

static void
run_key_set(struct run_thread *t, struct run_slot *s, unsigned i, char space, uint64_t number)
{
	const struct run_text *known = t->run->table[space == 'm'];
	struct run_key *k = &s->key[i];

	k->space = space;
	k->number = number;
	k->floor = 0;
	k->text = known != NULL ? known[number].text : k->own;
	s->keys[i].data = k->text;
	s->keys[i].bytes = known != NULL ? known[number].bytes : bench_key(k->own, space, t->run->p->seed, number);
}

static void
run_choose_puts(struct run_thread *t, struct run_slot *s, uint64_t call)
{
	const struct bench_params *p = t->run->p;
	uint64_t version;
	unsigned char *value;

	s->op = BENCH_PUT;
	s->n_io = (unsigned)p->batch;
	if (p->mode == MODE_FILL)
		s->n_io = (unsigned)MKV_MIN(p->batch, p->keys - call * p->batch);
	for (unsigned i = 0; i < s->n_io; i++) {
		run_key_set(t, s, i, 'k', p->mode == MODE_FILL ? call * p->batch + i : run_claim_key(t));
		version = __atomic_add_fetch(&t->run->version, 1, __ATOMIC_RELAXED);
		s->key[i].floor = version;
		value = s->buf + i * t->run->value_room;
		if (p->verify || p->mode == MODE_FILL)
			mkv_gen_fill(value, p->size, p->seed, s->key[i].number, version);
		else
			mkv_gen_stamp(value, p->size, p->seed, s->key[i].number, version);
	}
}

static void
run_choose_reads(struct run_thread *t, struct run_slot *s)
{
	const struct bench_params *p = t->run->p;
	uint64_t first = mkv_gen_random(&t->rng) % p->keys, known = 0;
	int hit;

	s->op = p->mode == MODE_EXISTS ? BENCH_EXISTS : p->mode == MODE_MATCH ? BENCH_MATCH : BENCH_GET;
	s->n_io = s->op == BENCH_GET ? (unsigned)p->batch : 1;
	if (s->op == BENCH_MATCH) {			/* a chain: its head is known, its tail is not */
		known = (uint64_t)((double)p->batch * p->hit_pct / 100);
		known += run_chance(t, 100 * ((double)p->batch * p->hit_pct / 100 - (double)known));
	}
	for (unsigned i = 0; i < p->batch; i++) {
		hit = s->op == BENCH_MATCH ? i < known : run_chance(t, p->hit_pct);
		run_key_set(t, s, i, hit ? 'k' : 'm', s->op == BENCH_MATCH ? (first + i) % p->keys : mkv_gen_random(&t->rng) % p->keys);
		if (t->run->acked != NULL && hit)
			s->key[i].floor = __atomic_load_n(&t->run->acked[s->key[i].number], __ATOMIC_ACQUIRE);
	}
}

static void
run_io_submit(struct run_thread *t, struct bench_io *io)
{
	if (t->late == NULL && t->drv->ops->submit(t->drv, io) == 0)
		return;
	io->next = NULL;
	*t->late_tail = io;
	t->late_tail = &io->next;
}

static void
run_late_submit(struct run_thread *t)
{
	struct bench_io *io;

	while ((io = t->late) != NULL) {
		if (t->drv->ops->submit(t->drv, io) != 0)
			return;
		t->late = io->next;
		if (t->late == NULL)
			t->late_tail = &t->late;
	}
}

static void
run_slot_start(struct run_thread *t, struct run_slot *s, uint64_t due_ns, uint64_t call)
{
	const struct bench_params *p = t->run->p;
	struct bench_io *io;

	s->due_ns = due_ns;
	s->failed = 0;
	if (p->mode == MODE_FILL || p->mode == MODE_PUT || (p->mode == MODE_MIXED && !run_chance(t, p->read_pct)))
		run_choose_puts(t, s, call);
	else
		run_choose_reads(t, s);
	if (due_ns == 0)
		s->due_ns = mkv_now_ns();		/* closed loop: making keys and bytes is not the server's time */
	s->out = s->n_io;
	t->n_out++;
	for (unsigned i = 0; i < s->n_io; i++) {
		io = &s->io[i];
		*io = (struct bench_io){ .op = s->op, .keys = &s->keys[i], .n_keys = 1, .deadline_us = p->deadline_us, .user = s };
		io->buf = run_has_values(p) ? s->buf + i * t->run->value_room : NULL;
		io->bytes = s->op == BENCH_PUT ? p->size : t->run->value_room;
		if (!run_has_values(p)) {
			io->n_keys = (unsigned)p->batch;
			io->present = s->op == BENCH_EXISTS ? s->present : NULL;
		}
		run_io_submit(t, io);
	}
}

/* ---- what came back ---- */

static void
run_wrong(struct run *r, const char *what, const char *key)
{
	bench_add(&r->stats->verify_failures, 1);
	pthread_mutex_lock(&r->error_lock);
	if (r->res->first_error[0] == '\0')
		snprintf(r->res->first_error, sizeof(r->res->first_error), "%s of key %s", what, key);
	pthread_mutex_unlock(&r->error_lock);
}

/* A miss is no failure, but with --verify a store may not lose or damage what it acknowledged. */
static void
run_miss_checked(struct run *r, const struct run_key *k, unsigned reason)
{
	char what[80];

	if (!r->p->verify || k->space != 'k' || (reason != MKV_REASON_CORRUPT && reason != MKV_REASON_LOST))
		return;
	snprintf(what, sizeof(what), "miss with the reason \"%s\"", mkv_miss_label(reason));
	run_wrong(r, what, k->text);
}

static void
run_miss(struct run *r, const struct run_slot *s, unsigned reason, uint64_t n)
{
	if (!s->counted)
		return;
	bench_add(&r->stats->misses, n);
	bench_add(&r->stats->miss_by[MKV_MIN(reason, BENCH_REASONS_MAX - 1)], n);
}

static void
run_got(struct run *r, const struct run_slot *s, const struct run_key *k, const struct bench_io *io)
{
	const struct bench_params *p = r->p;
	char what[80];
	size_t where = 0;

	if (s->counted) {
		bench_add(&r->stats->hits, 1);
		bench_add(&r->stats->bytes, (uint64_t)io->result);
	}
	if (k->space == 'm') {
		run_wrong(r, "got a value that nobody put", k->text);
		return;
	}
	if (!r->p->drv->keeps_values)
		return;
	if ((uint64_t)io->result != p->size) {
		snprintf(what, sizeof(what), "got %lld bytes instead of %llu", (long long)io->result, (unsigned long long)p->size);
		run_wrong(r, what, k->text);
		return;
	}
	switch (mkv_gen_check(io->buf, p->size, p->seed, k->number, k->floor, p->verify, &where)) {
	case MKV_GEN_GOOD: return;
	case MKV_GEN_STALE: snprintf(what, sizeof(what), "got an older version than the one acknowledged"); break;
	case MKV_GEN_LIGHT: snprintf(what, sizeof(what), "--verify: the value was put without --verify; it is one"); break;
	case MKV_GEN_WRONG: snprintf(what, sizeof(what), "wrong byte at offset %zu", where); break;
	}
	run_wrong(r, what, k->text);
}

static void
run_put_done(struct run *r, const struct run_slot *s, const struct run_key *k, int ok)
{
	if (ok && s->counted)
		bench_add(&r->stats->bytes, r->p->size);
	if (ok && r->acked != NULL && r->p->mode == MODE_MIXED)
		__atomic_store_n(&r->acked[k->number], k->floor, __ATOMIC_RELEASE);
	if (r->busy != NULL)
		__atomic_store_n(&r->busy[k->number], 0, __ATOMIC_RELEASE);
}

static void
run_keys_done(struct run *r, const struct run_slot *s, const struct bench_io *io)
{
	uint64_t found = (uint64_t)io->result, known = 0;

	for (unsigned i = 0; i < io->n_keys; i++) {
		if (io->op == BENCH_EXISTS && io->present[i] && s->key[i].space == 'm')
			run_wrong(r, "a key exists that nobody put", s->key[i].text);
		known += s->key[i].space == 'k';
	}
	if (io->op == BENCH_MATCH && found > known)
		run_wrong(r, "the match is longer than what was put, chain", s->key[0].text);
	if (s->counted)
		bench_add(&r->stats->hits, found);
	if (found < io->n_keys)
		run_miss(r, s, io->reason, io->n_keys - found);
}

static void
run_failed(struct run_thread *t, const struct bench_io *io, const char *key, uint64_t now)
{
	static const char *const verb[] = { "put", "get", "exists", "delete", "match" };
	struct run *r = t->run;
	uint64_t quiet = RUN_SILENT_NS + r->p->deadline_us * MKV_NS_PER_US;

	pthread_mutex_lock(&r->error_lock);
	bench_count_error(r->res, (int)io->result, verb[io->op], key);
	pthread_mutex_unlock(&r->error_lock);
	t->rest_until_ns = now + RUN_BACKOFF_NS;
	if (now - bench_load(&r->last_good_ns) > quiet)
		__atomic_store_n(&r->stop, 1, __ATOMIC_RELAXED);
}

static void
run_io_done(struct run_thread *t, struct bench_io *io, uint64_t now)
{
	struct run *r = t->run;
	struct run_slot *s = io->user;
	const struct run_key *k = &s->key[io->keys - s->keys];
	int miss = io->result == MKV_ERR_MISS && io->op == BENCH_GET;

	MKV_ASSERT(s->out > 0);
	s->counted = s->due_ns >= r->measure_ns;
	if (io->op == BENCH_PUT)
		run_put_done(r, s, k, io->result == 0);
	if (io->result < 0 && !miss) {
		s->failed++;
		run_failed(t, io, k->text, now);
	} else {
		__atomic_store_n(&r->last_good_ns, now, __ATOMIC_RELAXED);
		if (miss && (io->reason == MKV_REASON_SERVER_DOWN || io->reason == MKV_REASON_TIMED_OUT))
			t->rest_until_ns = now + RUN_BACKOFF_NS;
		if (miss) {
			run_miss(r, s, io->reason, 1);
			run_miss_checked(r, k, io->reason);
		} else if (io->op == BENCH_GET)
			run_got(r, s, k, io);
		else if (io->op != BENCH_PUT)
			run_keys_done(r, s, io);
		if (s->counted)
			bench_add(&r->stats->ops, io->n_keys);
	}
	if (--s->out > 0)
		return;
	if (s->counted && s->failed == 0)
		mkv_hist_add(&r->stats->latency, now - s->due_ns);
	s->next_free = t->free;
	t->free = s;
	t->n_out--;
}

/* ---- when ---- */

/* An open loop that is behind may take as long again to catch up; the rest is counted as never started. */
static void
run_give_up_late(struct run_thread *t, uint64_t now)
{
	struct run *r = t->run;

	if (t->next_due_ns >= r->end_ns || now < r->end_ns + (r->end_ns - r->start_ns))
		return;
	t->unstarted = ((r->end_ns - t->next_due_ns - 1) / t->interval_ns + 1) * r->p->batch;
	t->next_due_ns = r->end_ns;
}

/* Is a call due, and which? Closed loop: *due_ns is now. */
static int
run_next(struct run_thread *t, uint64_t now, uint64_t *due_ns, uint64_t *call)
{
	struct run *r = t->run;

	if (bench_interrupted() || __atomic_load_n(&r->stop, __ATOMIC_RELAXED) || now < t->rest_until_ns)
		return (0);
	*due_ns = now;
	if (t->interval_ns > 0) {
		run_give_up_late(t, now);
		if (t->next_due_ns > now || t->next_due_ns >= r->end_ns)
			return (0);
		*due_ns = t->next_due_ns;
	} else if (now >= r->end_ns)
		return (0);
	*call = __atomic_fetch_add(&r->calls, 1, __ATOMIC_RELAXED);
	if (r->calls_total > 0 && *call >= r->calls_total)
		return (0);
	t->next_due_ns += t->interval_ns;
	return (1);
}

/* Nothing will start any more. */
static int
run_over(struct run_thread *t, uint64_t now)
{
	struct run *r = t->run;

	if (bench_interrupted() || __atomic_load_n(&r->stop, __ATOMIC_RELAXED))
		return (1);
	if (r->calls_total > 0 && bench_load(&r->calls) >= r->calls_total)
		return (1);
	return (t->interval_ns == 0 ? now >= r->end_ns : t->next_due_ns >= r->end_ns);
}

static uint64_t
run_wait_us(const struct run_thread *t, uint64_t now)
{
	uint64_t until = now + RUN_WAIT_US * MKV_NS_PER_US;

	if (t->free != NULL && t->rest_until_ns > now)
		until = MKV_MIN(until, t->rest_until_ns);
	else if (t->free != NULL && t->interval_ns > 0 && t->next_due_ns < t->run->end_ns)
		until = MKV_MIN(until, MKV_MAX(t->next_due_ns, now));
	return ((until - now) / MKV_NS_PER_US);
}

static void *
run_loop(void *arg)
{
	struct run_thread *t = arg;
	struct bench_io *done[RUN_DRAIN_MAX];
	struct run_slot *s;
	uint64_t now, due_ns, call;
	unsigned n;

	for (;;) {
		now = mkv_now_ns();
		run_late_submit(t);
		while ((s = t->free) != NULL && run_next(t, now, &due_ns, &call)) {
			t->free = s->next_free;
			run_slot_start(t, s, t->interval_ns > 0 ? due_ns : 0, call);
			now = mkv_now_ns();
		}
		if (t->n_out == 0 && run_over(t, now))
			return (NULL);
		t->drv->ops->wait(t->drv, run_wait_us(t, now));
		n = t->drv->ops->drain(t->drv, done, RUN_DRAIN_MAX);
		now = mkv_now_ns();
		for (unsigned i = 0; i < n; i++)
			run_io_done(t, done[i], now);
		if (n > 0)
			__atomic_store_n(&t->run->last_done_ns, now, __ATOMIC_RELAXED);
	}
}

/* ---- making and ending a run ---- */

static int
run_slots_make(struct run_thread *t)
{
	const struct bench_params *p = t->run->p;
	uint64_t batch = p->batch;
	struct run_slot *s;

	t->slot = calloc(t->n_slots, sizeof(*t->slot));
	if (t->slot == NULL)
		return (MKV_ERR_NOMEM);
	if (run_has_values(p)) {
		uint64_t bytes = t->n_slots * batch * t->run->value_room;

		if (t->drv->ops->alloc != NULL)
			t->block = t->drv->ops->alloc(t->drv, bytes);
		else if (posix_memalign(&t->values, 4096, bytes) == 0)
			t->block = t->values;
		if (t->block == NULL)
			return (MKV_ERR_NOMEM);
		mkv_gen_fill(t->block, bytes, p->seed, t->idx, 0);	/* touches every page; the body of unverified puts */
	}
	for (unsigned i = 0; i < t->n_slots; i++) {
		s = &t->slot[i];
		s->io = calloc(batch, sizeof(*s->io));
		s->key = calloc(batch, sizeof(*s->key));
		s->keys = calloc(batch, sizeof(*s->keys));
		s->present = calloc(batch, 1);
		if (s->io == NULL || s->key == NULL || s->keys == NULL || s->present == NULL)
			return (MKV_ERR_NOMEM);
		if (run_has_values(p))
			s->buf = (unsigned char *)t->block + i * batch * t->run->value_room;
		s->next_free = t->free;
		t->free = s;
	}
	return (0);
}

static void
run_thread_free(struct run_thread *t)
{
	if (t->drv != NULL)
		t->drv->ops->close(t->drv);		/* before the memory: nothing lands after it */
	for (unsigned i = 0; t->slot != NULL && i < t->n_slots; i++) {
		free(t->slot[i].io);
		free(t->slot[i].key);
		free(t->slot[i].keys);
		free(t->slot[i].present);
	}
	free(t->slot);
	free(t->values);
}

static int
run_thread_make(struct run *r, struct run_thread *t, unsigned idx, char *why, size_t why_bytes)
{
	const struct bench_params *p = r->p;
	struct bench_drv_opts o;
	int rc;

	t->run = r;
	t->idx = idx;
	t->late_tail = &t->late;
	t->rng = p->seed * 2654435761u + idx * 40503u + 1;
	t->n_slots = (unsigned)(p->concurrency / p->threads + (idx < p->concurrency % p->threads));
	if (p->rate > 0)
		t->interval_ns = MKV_MAX((uint64_t)(1e9 * (double)(p->batch * p->threads) / p->rate), 1);
	bench_drv_opts(p, &o, (uint64_t)t->n_slots * p->batch, p->size);
	rc = p->drv->open(&t->drv, &o, why, why_bytes);
	if (rc == 0 && (rc = run_slots_make(t)) != 0)
		snprintf(why, why_bytes, "no memory for %llu operations of %llu values of %llu bytes in flight: lower --concurrency, --batch or --size",
		    (unsigned long long)p->concurrency, (unsigned long long)p->batch, (unsigned long long)p->size);
	return (rc);
}

static void
run_table_make(struct run *r)
{
	const struct bench_params *p = r->p;
	char text[BENCH_KEY_BYTES];

	for (unsigned i = 0; p->keys <= RUN_TABLE_KEYS && i < 2; i++) {
		r->table[i] = calloc(p->keys, sizeof(*r->table[i]));
		for (uint64_t k = 0; r->table[i] != NULL && k < p->keys; k++) {
			r->table[i][k].bytes = (uint32_t)bench_key(text, i == 0 ? 'k' : 'm', p->seed, k);
			MKV_ASSERT(r->table[i][k].bytes < sizeof(r->table[i][k].text));
			memcpy(r->table[i][k].text, text, r->table[i][k].bytes);
		}
	}
}

static int
run_make(struct run *r, char *why, size_t why_bytes)
{
	const struct bench_params *p = r->p;

	r->stats = r->res->stats;
	r->value_room = MKV_ALIGN_UP(MKV_MAX(p->size, 1), 4096);
	r->version = mkv_wall_ms() << 20;		/* later runs write later versions */
	run_table_make(r);
	r->calls_total = MKV_DIV_UP(p->mode != MODE_FILL ? p->ops : p->ops > 0 ? MKV_MIN(p->ops, p->keys) : p->keys, p->batch);
	if (run_puts(p))
		r->busy = calloc(p->keys, 1);
	if (p->mode == MODE_MIXED)
		r->acked = calloc(p->keys, sizeof(*r->acked));
	if ((run_puts(p) && r->busy == NULL) || (p->mode == MODE_MIXED && r->acked == NULL)) {
		snprintf(why, why_bytes, "no memory for %llu keys", (unsigned long long)p->keys);
		return (MKV_ERR_NOMEM);
	}
	return (0);
}

static void
run_clock_set(struct run *r, struct run_thread *t)
{
	const struct bench_params *p = r->p;

	r->start_ns = r->last_done_ns = r->last_good_ns = mkv_now_ns();
	r->measure_ns = r->start_ns + p->warmup_us * MKV_NS_PER_US;
	r->end_ns = p->duration_us > 0 ? r->measure_ns + p->duration_us * MKV_NS_PER_US : UINT64_MAX / 2;
	for (unsigned i = 0; i < p->threads; i++)
		t[i].next_due_ns = r->start_ns + (p->rate > 0 ? t[i].interval_ns * i / p->threads : 0);
}

/* Wait for the warm-up to end; what is taken then is what the run is charged with. */
static void
run_warm(const struct run *r)
{
	struct timespec nap = { 0, 10 * 1000 * 1000 };

	while (mkv_now_ns() < r->measure_ns && !bench_interrupted() && !__atomic_load_n(&r->stop, __ATOMIC_RELAXED))
		nanosleep(&nap, NULL);
}

static int
run_threads(struct run *r, struct run_thread *t, char *why, size_t why_bytes)
{
	const struct bench_params *p = r->p;
	pid_t pids[BENCH_PIDS_MAX];
	unsigned n_pids = bench_server_pids(p, pids), started = 0;
	struct bench_progress *pr;
	double server0, client0;
	int rc = 0;

	run_clock_set(r, t);
	while (started < p->threads && pthread_create(&t[started].id, NULL, run_loop, &t[started]) == 0)
		started++;
	if (started < p->threads) {
		snprintf(why, why_bytes, "only %u of %llu threads could be started", started, (unsigned long long)p->threads);
		__atomic_store_n(&r->stop, 1, __ATOMIC_RELAXED);
		rc = MKV_ERR_SYSTEM;
	}
	pr = bench_progress_start(r->stats, &r->stats->ops, p->mode == MODE_FILL ? p->keys : p->ops, !p->quiet);
	run_warm(r);
	server0 = bench_cpu_of(pids, n_pids);
	client0 = (double)mkv_cpu_ns() / 1e9;
	for (unsigned i = 0; i < started; i++)
		pthread_join(t[i].id, NULL);
	r->res->client_cpu_s = (double)mkv_cpu_ns() / 1e9 - client0;
	r->res->server_cpu_s = server0 < 0 ? -1 : MKV_MAX(bench_cpu_of(pids, n_pids) - server0, 0);
	bench_progress_stop(pr);
	if (rc == 0 && r->stop) {
		snprintf(why, why_bytes, "nothing but failures for seconds, gave up (%s)", r->res->first_error);
		rc = MKV_ERR_UNREACHABLE;
	}
	return (rc);
}

static void
run_result(struct run *r, struct run_thread *t)
{
	struct bench_drv_info info = { 0 };

	r->res->seconds = r->last_done_ns > r->measure_ns ? (double)(r->last_done_ns - r->measure_ns) / 1e9 : 0;
	r->res->interrupted = bench_interrupted();
	for (unsigned i = 0; i < r->p->threads; i++)
		r->res->unstarted += t[i].unstarted;
	if (r->p->drv->info != NULL && r->p->drv->info(t[0].drv, &info) == 0)
		memcpy(r->res->transport, info.transport, sizeof(r->res->transport));
}

int
bench_run(const struct bench_params *p, struct bench_result *res, char *why, size_t why_bytes)
{
	struct run r = { .p = p, .res = res, .error_lock = PTHREAD_MUTEX_INITIALIZER };
	struct run_thread *t;
	unsigned made = 0;
	int rc;

	t = calloc(p->threads, sizeof(*t));
	if (t == NULL)
		return (MKV_ERR_NOMEM);
	rc = run_make(&r, why, why_bytes);
	while (rc == 0 && made < p->threads) {
		rc = run_thread_make(&r, &t[made], made, why, why_bytes);
		made++;
	}
	if (rc == 0) {
		rc = run_threads(&r, t, why, why_bytes);
		run_result(&r, t);
	}
	for (unsigned i = 0; i < made; i++)
		run_thread_free(&t[i]);
	free(t);
	free(r.busy);
	free(r.table[0]);
	free(r.table[1]);
	free(r.acked);
	return (rc);
}
