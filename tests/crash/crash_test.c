/*
 * Crashes: scripted histories over the simulated medium, stopped at a write or flush boundary, what was not flushed kept, dropped or torn, then
 * recovery, and on with the history. The oracle: every acknowledged put is there, whole, and nothing older than it; what was not acknowledged is
 * old or new; deleted stays deleted, one at a time or by the purge of a namespace; a purge takes no other namespace's; never wrong bytes.
 *
 *	crash_test [-s SEED] [-n HISTORIES] [-e EVERY]
 *
 * -n: random histories (default 60). -e: step of the exhaustive part: a crash at every EVERYth boundary of one history, each policy (default 7).
 * A failure prints its seed. MKV_FULL in the environment: -n 1000 -e 1.
 */
#include "config.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/base/crc.h"
#include "common/base/err.h"
#include "common/base/log.h"
#include "tests/crash/rig.h"

#define KEYS		24u
#define MEDIUM_BYTES	(12u << 20)
#define SPACES		3u			/* key k is in namespace k % SPACES */

struct version {
	uint64_t	bytes;
	uint64_t	seed;			/* 0: deleted */
};

struct key {
	struct version	acked;			/* what an acknowledged operation left */
	struct version	maybe[8];		/* under way, or cut off by the crash */
	unsigned	maybes;
	int		slot;			/* busy in this slot, or -1 */
	int		purge_maybe;		/* a purge that was under way may have taken it */
	int		purge_met, purge_ended;	/* the operation and a purge overlap; one ended since the purge began */
};

struct history {
	struct rig	*r;
	struct rnd	rnd;
	struct key	key[KEYS];
	uint64_t	next_seed;
	int		evicts;			/* an object may be gone at any time */
	uint64_t	ops, crashes, checked, failures;
	uint32_t	concurrency;
	uint32_t	value_max;
	int		accepted;		/* puts may be lost, never wrong */
	unsigned	purge;			/* namespace + 1 whose purge is under way */
	uint64_t	purge_id, purges;
};

static uint64_t	test_seed;
static unsigned	test_failed;
static uint64_t	test_sames;			/* puts that were touches */

#define FAIL(h, ...) \
	do { \
		fprintf(stderr, "seed=%" PRIu64 " crash=%" PRIu64 ": ", test_seed, (h)->crashes); \
		fprintf(stderr, __VA_ARGS__); \
		fputc('\n', stderr); \
		(h)->failures++; \
	} while (0)

static void
key_name(char *s, size_t n, unsigned k)
{
	snprintf(s, n, "key-%u", k);
}

static void
key_req(struct mkv_drv_req *q, unsigned k)
{
	if (k % SPACES > 0) {			/* the first has no name */
		q->ns_bytes = 2;
		q->ns[0] = 'n';
		q->ns[1] = (uint8_t)('0' + k % SPACES);
	}
}

static int
key_fits(const struct version *v, const struct mkv_drv_rep *p, const uint8_t *b)
{
	return (v->seed != 0 && p->value_bytes == v->bytes && p->len == v->bytes && rig_value_is(b, 0, p->len, v->seed));
}

/* Read key k and hold it against what it may be; settle: then that is what it is. */
static void
key_check(struct history *h, unsigned k, int settle)
{
	struct key *key = &h->key[k];
	const struct mkv_drv_rep *p;
	struct mkv_drv_req q;
	struct version is = { 0, 0 };
	char name[16];
	int found = 0;

	key_name(name, sizeof(name), k);
	rig_req(&q, MKV_DRV_GET, name);
	key_req(&q, k);
	rig_bufs(&q, 0, 1u << 20);
	q.len = 1u << 20;
	rig_submit(h->r, 0, &q);
	if ((p = rig_wait(h->r, 0)) == NULL)
		return;
	h->checked++;
	if (p->status == MKV_E_MISS) {
		found = h->evicts || key->acked.seed == 0 || key->purge_maybe;
		for (unsigned i = 0; i < key->maybes; i++)
			found |= key->maybe[i].seed == 0;
		if (!found)
			FAIL(h, "%s: acknowledged version %" PRIu64 " is gone (reason %u)", name, key->acked.seed, p->reason);
	} else if (p->status != 0) {
		FAIL(h, "%s: %s", name, mkv_err(p->status));
	} else {
		const uint8_t *b = rig_mem(h->r, 0) + p->skip;

		found = key_fits(&key->acked, p, b);
		is = key->acked;
		for (unsigned i = 0; i < key->maybes && !found; i++) {
			is = key->maybe[i];
			found = key_fits(&is, p, b);
		}
		if (!found)
			FAIL(h, "%s: wrong or stale bytes (size %" PRIu64 ", acknowledged version %" PRIu64 " of %" PRIu64 ")", name, p->value_bytes,
			    key->acked.seed, key->acked.bytes);
	}
	if (settle) {
		key->acked = is;
		key->maybes = 0;
		key->purge_maybe = key->purge_met = 0;
	}
}

static void
purge_begin(struct history *h)
{
	struct mkv_drv_req q = { .ns_bytes = 0 };

	h->purge = 1 + rnd_below(&h->rnd, SPACES);
	key_req(&q, h->purge - 1);
	for (unsigned k = h->purge - 1; k < KEYS; k += SPACES) {
		h->key[k].purge_maybe = 1;
		h->key[k].purge_ended = 0;
		h->key[k].purge_met = h->key[k].slot >= 0;
	}
	mkv_engine_purge(h->r->e, ++h->purge_id, q.ns, q.ns_bytes);
}

/* It was answered: what was acknowledged before it began is gone. */
static void
purge_end(struct history *h)
{
	if (h->purge == 0 || h->r->purged_id != h->purge_id)
		return;
	if (h->r->purged_err != 0)
		FAIL(h, "purge: %s", mkv_err(h->r->purged_err));
	for (unsigned k = h->purge - 1; k < KEYS; k += SPACES) {
		struct key *key = &h->key[k];

		if (key->purge_ended)
			continue;
		key->acked = (struct version){ 0, 0 };
		if (key->slot >= 0)
			key->maybe[0] = key->maybe[key->maybes - 1];
		key->maybes = key->slot >= 0;
	}
	h->purge = 0;
	h->purges++;
}

/* A put of what is there, asked for without its bytes. */
static void
same_req(struct history *h, const struct key *key, struct mkv_drv_req *q, unsigned slot, const char *name)
{
	rig_put_req(h->r, q, slot, name, key->acked.bytes, key->acked.seed);
	q->op = MKV_DRV_RESERVE;
	q->n_bufs = 0;
	q->flags = MKV_DRV_F_IF_SAME;
	q->ttl_ms = rnd_below(&h->rnd, 2) == 0 ? 0 : 3600 * 1000;	/* with a record in the journal, or without */
}

static void
op_begin(struct history *h, unsigned slot)
{
	unsigned k = rnd_below(&h->rnd, KEYS);
	struct key *key = &h->key[k];
	struct mkv_drv_req q;
	struct version v = { 0, 0 };
	char name[16];

	if (key->slot >= 0)
		return;
	key_name(name, sizeof(name), k);
	/* Accepted versions pile up until a delete's flush settles them. */
	if (rnd_below(&h->rnd, 5) == 0 || key->maybes == 7) {
		rig_req(&q, MKV_DRV_DELETE, name);
	} else if (key->acked.seed != 0 && key->maybes == 0 && rnd_below(&h->rnd, 4) == 0) {
		v = key->acked;
		same_req(h, key, &q, slot, name);
	} else {
		v.seed = ++h->next_seed;
		v.bytes = rnd_below(&h->rnd, 4) == 0 ? rnd_below(&h->rnd, h->value_max) : rnd_below(&h->rnd, 20000);
		rig_put_req(h->r, &q, slot, name, v.bytes, v.seed);
		q.put_id = v.seed;
		q.flags = v.seed % 4 == 0 ? 0 : MKV_DRV_F_VERIFIED;
	}
	if (q.op != MKV_DRV_DELETE) {
		q.flags |= h->accepted ? MKV_DRV_F_ACCEPTED : 0;
		q.deadline_ns = h->r->now_ns + MKV_NS_PER_SEC;
	}
	key_req(&q, k);
	key->purge_met = h->purge == 1 + k % SPACES;
	key->maybe[key->maybes++] = v;
	key->slot = (int)slot;
	rig_submit(h->r, slot, &q);
	h->ops++;
}

static void
op_end(struct history *h, unsigned k)
{
	struct key *key = &h->key[k];
	struct rig_slot *s = &h->r->slot[key->slot];
	int status = s->rep.status;

	s->busy = 0;
	key->slot = -1;
	if (status == MKV_E_BUSY || status == MKV_E_TIMEOUT || (s->rep.op == MKV_DRV_RESERVE && status == 0 && !s->rep.same)) {
		key->maybes--;
		return;
	}
	test_sames += s->rep.op == MKV_DRV_RESERVE;
	if (status != 0 && status != MKV_E_MISS) {
		FAIL(h, "key-%u: operation failed: %s", k, mkv_err(status));
		return;
	}
	key->purge_ended = 1;
	if (h->accepted && status == 0 && key->maybe[key->maybes - 1].seed != 0)
		return;				/* stays a maybe until a flush, which nobody tells us of */
	key->acked = key->maybe[key->maybes - 1];
	key->maybes = 0;
	key->purge_maybe = key->purge_met;
}

/* Begin and end operations until the medium dies or `ops` have begun and ended. */
static void
history_run(struct history *h, unsigned ops)
{
	uint64_t until = h->ops + ops;

	for (unsigned turns = 0; !h->r->dead && turns < 200000; turns++) {
		unsigned busy = 0;

		for (unsigned k = 0; k < KEYS; k++) {
			if (h->key[k].slot >= 0 && h->r->slot[h->key[k].slot].done)
				op_end(h, k);
			busy += h->key[k].slot >= 0;
		}
		purge_end(h);
		if (busy == 0 && h->ops >= until && h->purge == 0)
			return;
		if (h->purge == 0 && h->ops < until && rnd_below(&h->rnd, 60) == 0)
			purge_begin(h);
		for (unsigned s = 1; s <= h->concurrency && h->ops < until; s++) {
			if (!h->r->slot[s].busy)
				op_begin(h, s);
		}
		/* A get among them: what it finds may be older than what is under way, never older than what was answered. */
		if (rnd_below(&h->rnd, 8) == 0)
			key_check(h, rnd_below(&h->rnd, KEYS), 0);
		else
			rig_turn(h->r);
	}
	/* What was answered before the end was acknowledged. */
	for (unsigned k = 0; k < KEYS; k++) {
		if (h->key[k].slot >= 0 && h->r->slot[h->key[k].slot].done)
			op_end(h, k);
	}
	purge_end(h);
	if (!h->r->dead)
		FAIL(h, "the history does not end");
}

static void
history_crash(struct history *h, enum sim_policy policy)
{
	h->crashes++;
	if (h->r->e != NULL)
		rig_close(h->r, 1);
	sim_reboot(h->r->sim, policy);
	h->r->dead = 0;
	h->purge = 0;
	for (unsigned k = 0; k < KEYS; k++)
		h->key[k].slot = -1;
}

static void
history_check(struct history *h)
{
	for (unsigned k = 0; k < KEYS; k++)
		key_check(h, k, 1);
}

/* A crash is no damage: nothing of it may look as if the medium had failed. But for a superblock that was torn, which nobody can tell from a bad one. */
static void
history_damage(struct history *h)
{
	struct mkv_engine_info info;

	mkv_engine_info(h->r->e, &info);
	if (info.damaged_blocks > 0)
		FAIL(h, "damage after a crash: %u blocks of journal or checkpoint", info.damaged_blocks);
}

/* Open; now and then recovery itself is crashed. */
static int
history_recover(struct history *h)
{
	for (int i = 0; i < 4; i++) {
		int err;

		if (i < 3 && rnd_below(&h->rnd, 3) == 0)
			h->r->sim->crash_at = 1 + rnd_below(&h->rnd, 40);
		err = rig_open(h->r);
		if (err == 0 && !h->r->dead) {
			h->r->sim->crash_at = 0;
			history_damage(h);
			return (0);
		}
		if (!h->r->dead) {
			FAIL(h, "recovery: %s", h->r->why);
			return (-1);
		}
		history_crash(h, (enum sim_policy)rnd_below(&h->rnd, SIM_POLICIES));
	}
	FAIL(h, "recovery never came through");
	return (-1);
}

static struct history *
history_new(uint64_t seed, int evicts, int accepted)
{
	struct history *h = calloc(1, sizeof(*h));

	test_seed = seed;
	h->rnd.state = seed;
	h->r = rig_create(RIG_SIM, MEDIUM_BYTES, seed ^ 0x5eed);
	h->r->o.extent_bytes = MKV_EXTENT_MIN;
	h->r->o.journal_bytes = 128 * 4096;
	h->r->o.objects_max = 256;
	h->r->o.evict = evicts;
	h->r->o.accepted_window_ns = 20 * MKV_NS_PER_MS;
	h->evicts = evicts;
	h->accepted = accepted;
	h->concurrency = 1 + rnd_below(&h->rnd, 12);
	/* Without eviction two versions of everything must fit. */
	h->value_max = MKV_EXTENT_MIN;
	h->next_seed = 1;
	for (unsigned k = 0; k < KEYS; k++)
		h->key[k].slot = -1;
	return (h);
}

static void
history_free(struct history **hp)
{
	struct history *h = *hp;

	if (h->failures)
		test_failed++;
	rig_destroy(&h->r);
	free(h);
	*hp = NULL;
}

/* One random history: several crashes, each at a random boundary. */
static uint64_t
run_random(uint64_t seed)
{
	struct history *h = history_new(seed, seed % 3 == 1, seed % 4 == 3);
	unsigned rounds = 3 + rnd_below(&h->rnd, 4);
	uint64_t checked;

	if (history_recover(h) == 0) {
		for (unsigned i = 0; i < rounds && h->failures == 0; i++) {
			h->r->sim->steps = 0;
			h->r->sim->crash_at = 1 + rnd_below(&h->rnd, 600);
			history_run(h, 20 + rnd_below(&h->rnd, 300));
			if (!h->r->dead && rnd_below(&h->rnd, 4) == 0)
				(void)rig_close(h->r, 0);
			history_crash(h, (enum sim_policy)rnd_below(&h->rnd, SIM_POLICIES));
			if (history_recover(h) != 0)
				break;
			history_check(h);
		}
	}
	checked = h->checked;
	history_free(&h);
	return (checked);
}

/* The same history, crashed at boundary `at`. Returns 0 when it ends before. */
static int
run_at(uint64_t seed, uint64_t at, enum sim_policy policy)
{
	struct history *h = history_new(seed, 0, 0);
	int died;

	test_seed = seed * 1000000 + at;
	if (rig_open(h->r) != 0)
		abort();
	h->r->sim->steps = 0;
	h->r->sim->crash_at = at;
	history_run(h, 120);
	died = h->r->dead;
	history_crash(h, policy);
	if (rig_open(h->r) != 0)
		FAIL(h, "recovery: %s", h->r->why);
	else {
		history_check(h);
		/* And it serves. */
		history_run(h, 40);
		history_check(h);
	}
	history_free(&h);
	return (died);
}

int
main(int argc, char **argv)
{
	unsigned histories = getenv("MKV_FULL") ? 1000 : 60, every = getenv("MKV_FULL") ? 1 : 7;
	uint64_t seed = 1, checked = 0, points = 0;
	int c;

	while ((c = getopt(argc, argv, "s:n:e:")) != -1) {
		if (c == 's')
			seed = strtoull(optarg, NULL, 0);
		else if (c == 'n')
			histories = (unsigned)atoi(optarg);
		else if (c == 'e')
			every = (unsigned)atoi(optarg);
		else
			return (2);
	}
	mkv_log_init(MKV_LOG_ERROR);
	mkv_crc_init();
	for (unsigned i = 0; i < histories && test_failed < 5; i++)
		checked += run_random(seed + i);
	for (uint64_t at = 1; every > 0 && test_failed < 5; at += every, points++) {
		int died = 0;

		for (int policy = SIM_KEEP; policy < SIM_POLICIES; policy++)
			died |= run_at(seed, at, (enum sim_policy)policy);
		if (!died)
			break;
	}
	printf("%u histories, %" PRIu64 " keys checked, %" PRIu64 " puts of what was there, %" PRIu64 " boundaries x %d, %u failed\n", histories, checked,
	    test_sames, points, SIM_POLICIES, test_failed);
	return (test_failed != 0);
}
