/*
 * A scripted history and its model (enumerate.h). Tests only, one thread.
 */
#include "config.h"

#include "tests/crash/enumerate.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/err.h"
#include "worker/drive/engine_priv.h"

#define MEDIUM_BYTES	3801088u		/* four extents of MKV_EXTENT_MIN behind what 64 objects need */
#define TTL_MS		30000u
#define PURGE_SLOT	(HIST_OPS + 1)		/* of a candidate */
#define BLOCK		4096u

/* ---- What may be there ------------------------------------------------------------------------------------------------------ */

static struct cand *
cand_add(struct history *h, unsigned k, struct state st, unsigned slot)
{
	struct cand *c = &h->cand[k][h->cands[k]++];

	MKV_ASSERT(h->cands[k] <= HIST_CANDS);
	*c = (struct cand){ .st = st, .begin = ++h->order, .slot = slot };
	return (c);
}

static void
cand_del(struct history *h, unsigned k, struct cand *c)
{
	*c = h->cand[k][--h->cands[k]];
}

static struct cand *
cand_of(struct history *h, unsigned k, unsigned slot)
{
	for (unsigned i = 0; i < h->cands[k]; i++)
		if (h->cand[k][i].slot == slot)
			return (&h->cand[k][i]);
	return (NULL);
}

/* What was over before a durable operation began is the past. */
static void
cands_prune(struct history *h, unsigned k)
{
	uint64_t newest = 0;

	for (unsigned i = 0; i < h->cands[k]; i++)
		if (h->cand[k][i].durable)
			newest = MKV_MAX(newest, h->cand[k][i].begin);
	for (unsigned i = 0; i < h->cands[k];) {
		if (h->cand[k][i].end != 0 && h->cand[k][i].end < newest)
			cand_del(h, k, &h->cand[k][i]);
		else
			i++;
	}
}

/* The journal has one order: what was answered before `begin` is durable as well. */
static void
cands_durable(struct history *h, uint64_t begin)
{
	for (unsigned k = 0; k < HIST_KEYS; k++) {
		for (unsigned i = 0; i < h->cands[k]; i++)
			if (h->cand[k][i].end != 0 && h->cand[k][i].end < begin)
				h->cand[k][i].durable = 1;
		cands_prune(h, k);
	}
}

static void
cand_end(struct history *h, unsigned k, struct cand *c, int durable)
{
	uint64_t begin = c->begin;

	c->end = ++h->order;
	c->slot = 0;
	c->durable = durable;
	if (durable)
		cands_durable(h, begin);
	cands_prune(h, k);
}

/* What is there decides: of operations that overlapped, and after a crash. */
static void
cands_settle(struct history *h, unsigned k)
{
	struct state st;

	if (seen_key(h, h->r, k, &st) != 0)
		return;
	for (unsigned i = 0; i < h->cands[k]; i++) {
		const struct cand *c = &h->cand[k][i];

		if (c->st.seed != st.seed || c->st.pin != st.pin)
			continue;
		h->cand[k][0] = *c;
		h->cand[k][0].begin = h->cand[k][0].end = ++h->order;
		h->cand[k][0].slot = 0;
		h->cand[k][0].durable = 1;
		h->cands[k] = 1;
		return;
	}
	if (st.seed != 0 || !h->script->evict)
		HIST_FAIL(h, "k%u: the history itself has version %" PRIu64, k, st.seed);
}

/* The one state of a key at rest. */
static struct state
cand_now(const struct history *h, unsigned k)
{
	MKV_ASSERT(h->cands[k] == 1 && h->cand[k][0].durable);
	return (h->cand[k][0].st);
}

static int
state_expired(const struct state *st, uint64_t now_ms)
{
	return (st->expires_ms != 0 && now_ms >= st->expires_ms);
}

static int
state_is(const struct history *h, const struct state *may, const struct state *is, uint64_t now_ms)
{
	if (may->seed == 0 || state_expired(may, now_ms))
		return (is->seed == 0);
	if (is->seed == 0)
		return (h->script->evict && !may->pin);
	if (is->seed != may->seed || is->bytes != may->bytes || is->pin != may->pin || (is->expires_ms == 0) != (may->expires_ms == 0))
		return (0);
	/* A tick is 100 ms, rounded up. */
	return (is->expires_ms >= may->expires_ms && is->expires_ms - may->expires_ms <= 200);
}

void
model_judge(struct history *h, const struct seen *s, uint64_t now_ms)
{
	for (unsigned k = 0; k < HIST_KEYS; k++) {
		const struct state *is = &s->key[k];
		int fits = 0;

		for (unsigned i = 0; i < h->cands[k] && !fits; i++)
			fits = state_is(h, &h->cand[k][i].st, is, now_ms);
		if (fits)
			continue;
		HIST_FAIL(h, "k%u: version %" PRIu64 "%s%s is there after the crash; possible were:", k, is->seed, is->pin ? ", pinned" : "",
		    is->expires_ms ? ", with a time to live" : "");
		for (unsigned i = 0; i < h->cands[k]; i++) {
			const struct cand *c = &h->cand[k][i];

			fprintf(stderr, "	version %" PRIu64 "%s%s%s\n", c->st.seed, c->st.pin ? ", pinned" : "", c->st.expires_ms ? ", with a time to live" : "",
			    c->end ? c->durable ? ", durable" : ", accepted" : ", not answered");
		}
	}
}

/* ---- Answers ---------------------------------------------------------------------------------------------------------------- */

static void
answer_get(struct history *h, unsigned slot, const struct mkv_drv_rep *p)
{
	const uint8_t *b = rig_mem(h->r, slot) + p->skip;

	if (p->status != 0 || p->len != p->value_bytes || !rig_value_is(b, 0, p->len, h->slot[slot].seed))
		HIST_FAIL(h, "k%u: a reader got %s", h->slot[slot].key, p->status != 0 ? mkv_err(p->status) : "other bytes than it began with");
}

static void
answer(struct history *h, unsigned slot)
{
	const struct mkv_drv_rep *p = &h->r->slot[slot].rep;
	unsigned k = h->slot[slot].key, op = h->slot[slot].op;
	struct cand *c = cand_of(h, k, slot);

	h->slot[slot].busy = 0;
	h->r->slot[slot].busy = 0;
	if (op == S_GET) {
		answer_get(h, slot, p);
		return;
	}
	if (op == S_SAME && p->status == 0 && !p->same) {
		cand_del(h, k, c);
		return;
	}
	h->sames += op == S_SAME && p->status == 0;
	if (p->status == 0 || (op == S_DELETE && p->status == MKV_E_MISS)) {
		cand_end(h, k, c, !h->slot[slot].accepted);
		return;
	}
	cand_del(h, k, c);
	if (p->status != MKV_E_EXISTS)
		HIST_FAIL(h, "k%u: %s", k, mkv_err(p->status));
}

static int
answered(const struct history *h)
{
	for (unsigned s = 1; s <= HIST_OPS; s++)
		if (h->slot[s].busy && h->r->slot[s].done)
			return (1);
	return (h->purge != 0 && h->r->purged_id == h->purge);
}

void
model_answers(struct history *h)
{
	for (unsigned s = 1; s <= HIST_OPS; s++)
		if (h->slot[s].busy && h->r->slot[s].done)
			answer(h, s);
	if (h->purge == 0 || h->r->purged_id != h->purge)
		return;
	h->purge = 0;
	for (unsigned k = 0; k < HIST_KEYS; k++) {
		struct cand *c = cand_of(h, k, PURGE_SLOT);

		if (c != NULL)
			cand_end(h, k, c, 1);
	}
}

/* ---- The history ------------------------------------------------------------------------------------------------------------ */

uint64_t
history_now_ms(const struct history *h)
{
	return (MKV_DIV_UP(h->r->wall_ms + h->r->now_ns / MKV_NS_PER_MS, 1000) * 1000);
}

/* What is written and discarded, for what the script is to meet. */
static void
history_watch(struct history *h)
{
	for (struct sim_write *w = h->r->sim->pending; w != NULL; w = w->next) {
		uint8_t *d = h->discarded + w->off / BLOCK;

		if (w->mark)
			continue;
		w->mark = 1;
		h->discards += (unsigned)(w->discard && !h->quiet);
		h->reused += (unsigned)(!w->discard && d[0] && !h->quiet);
		memset(d, w->discard, w->bytes / BLOCK);
	}
}

static void
history_point(struct history *h)
{
	if (!h->quiet)
		h->explore(h);
}

static void
history_on_step(void *arg)
{
	struct history *h = arg;

	history_watch(h);
	history_point(h);
}

static void
turn(struct history *h)
{
	rig_turn(h->r);
	if (!answered(h))
		return;
	model_answers(h);
	history_point(h);
}

static int
busy(const struct history *h)
{
	unsigned n = h->purge != 0;

	for (unsigned s = 1; s <= HIST_OPS; s++)
		n += h->slot[s].busy;
	return (n > 0);
}

static void
step_join(struct history *h)
{
	for (unsigned i = 0; busy(h); i++) {
		MKV_ASSERT(i < 200000);
		turn(h);
	}
	for (unsigned k = 0; k < HIST_KEYS; k++) {
		int open = 0;

		for (unsigned i = 0; i < h->cands[k]; i++)
			open += !h->cand[k][i].durable;
		if (h->cands[k] > 1 && open == 0)
			cands_settle(h, k);
	}
}

static unsigned
slot_free(const struct history *h)
{
	unsigned s = 1;

	while (h->slot[s].busy)
		s++;
	MKV_ASSERT(s <= HIST_OPS);
	return (s);
}

static uint64_t
ttl_end(const struct history *h)
{
	return (h->r->wall_ms + h->r->now_ns / MKV_NS_PER_MS + TTL_MS);
}

/* The request of a step, and what its key has after it. */
static struct state
step_req(struct history *h, const struct step *s, unsigned slot, struct mkv_drv_req *q)
{
	struct state st = { 0 };

	unsigned flags = s->flags;

	key_req(q, s->op == S_DELETE ? MKV_DRV_DELETE : s->op == S_TOUCH ? MKV_DRV_TOUCH : MKV_DRV_GET, s->key);
	if (s->op == S_PUT) {
		st.seed = ++h->next_seed;
		st.bytes = s->arg;
		key_put_req(h->r, q, slot, s->key, s->arg, st.seed);
		q->put_id = st.seed;
	} else if (s->op == S_TOUCH)
		st = cand_now(h, s->key);
	else if (s->op == S_SAME) {
		st = cand_now(h, s->key);
		st.expires_ms = 0;
		key_put_req(h->r, q, slot, s->key, st.bytes, st.seed);
		q->op = MKV_DRV_RESERVE;
		q->n_bufs = 0;
		flags |= MKV_DRV_F_IF_SAME;
	} else if (s->op == S_GET) {
		rig_bufs(q, slot, 1u << 20);
		q->len = 1u << 20;
	}
	q->flags = (uint16_t)flags;
	st.pin |= (s->flags & MKV_DRV_F_PIN) != 0;
	if (s->flags & TTL) {
		q->ttl_ms = TTL_MS;
		st.expires_ms = ttl_end(h);
	}
	return (st);
}

static void
step_request(struct history *h, const struct step *s)
{
	unsigned slot = slot_free(h);
	struct mkv_drv_req q;
	struct state st = step_req(h, s, slot, &q);

	h->slot[slot].busy = 1;
	h->slot[slot].op = s->op;
	h->slot[slot].key = s->key;
	h->slot[slot].accepted = (s->flags & MKV_DRV_F_ACCEPTED) != 0;
	if (s->op == S_GET)
		h->slot[slot].seed = cand_now(h, s->key).seed;
	else
		(void)cand_add(h, s->key, st, slot);
	rig_submit(h->r, slot, &q);
	if ((s->flags & ASYNC) == 0)
		step_join(h);
}

static void
step_purge(struct history *h, const struct step *s)
{
	for (unsigned k = 6 * s->key; k < 6 * s->key + 6; k++)
		(void)cand_add(h, k, (struct state){ 0 }, PURGE_SLOT);
	h->purge = h->r->purged_id + 1;
	mkv_engine_purge(h->r->e, h->purge, "n1", s->key == 1 ? 2 : 0);
	if ((s->flags & ASYNC) == 0)
		step_join(h);
}

static void
step_checkpoint(struct history *h, const struct step *s)
{
	uint64_t id = h->r->e->ck.id;

	h->r->e->ck.wanted = h->r->e->ck.hurry = 1;
	for (unsigned i = 0; (s->flags & ASYNC) == 0 && h->r->e->ck.id == id; i++) {
		MKV_ASSERT(i < 200000);
		turn(h);
	}
	history_point(h);
}

static void
step_sync(struct history *h)
{
	uint64_t upto = h->r->e->jn.last_record;

	mkv_engine_sync(h->r->e);
	while (h->r->e->jn.flushed < upto)
		turn(h);
	cands_durable(h, h->order + 1);
	history_point(h);
}

static void
step_turns(struct history *h, uint64_t ms, uint64_t n)
{
	h->r->now_ns += ms * MKV_NS_PER_MS;
	while (n-- > 0)
		turn(h);
}

static void
history_open(struct history *h)
{
	if (rig_open(h->r) != 0) {
		fprintf(stderr, "%s -s %" PRIu64 ": %s\n", h->script->name, h->seed, h->r->why);
		abort();
	}
}

static void
step_restart(struct history *h)
{
	step_join(h);
	MKV_ASSERT(rig_close(h->r, 0) == 0);
	cands_durable(h, h->order + 1);
	history_point(h);
	history_open(h);
}

static void
step_cut(struct history *h, enum sim_policy policy)
{
	rig_close(h->r, 1);
	sim_reboot(h->r->sim, policy);
	memset(h->touched, 1, h->blocks);
	memset(h->slot, 0, sizeof(h->slot));
	h->purge = 0;
	history_open(h);
	for (unsigned k = 0; k < HIST_KEYS; k++)
		cands_settle(h, k);
}

static void
step_age(struct history *h, const struct step *s)
{
	const struct step put = { S_PUT, s->key, 100, 0 };

	while (h->r->e->jn.next_seq % h->r->e->sb.journal_blocks != s->arg)
		step_request(h, &put);
}

static void
history_step(struct history *h, const struct step *s)
{
	switch (s->op) {
	case S_PUT: case S_DELETE: case S_TOUCH: case S_SAME: case S_GET: step_request(h, s); break;
	case S_PURGE: step_purge(h, s); break;
	case S_JOIN: step_join(h); break;
	case S_CHECKPOINT: step_checkpoint(h, s); break;
	case S_SYNC: step_sync(h); break;
	case S_WAIT: step_turns(h, s->arg, 60); break;
	case S_TURNS: step_turns(h, 0, s->arg); break;
	case S_HOLD_DISCARD: h->r->sim->discard_hold = s->arg ? UINT32_MAX : 0; break;
	case S_HOLD_READS: h->r->sim->read_hold = s->arg != 0; break;
	case S_RESTART: step_restart(h); break;
	case S_CUT: step_cut(h, (enum sim_policy)s->arg); break;
	case S_QUIET: h->quiet = s->arg != 0; break;
	case S_AGE: step_age(h, s); break;
	case S_END: break;
	}
}

static struct rig *
history_rig(const struct script *s, uint64_t seed, uint8_t *touched)
{
	struct rig *r = rig_create(RIG_SIM, MEDIUM_BYTES, seed);

	r->o.extent_bytes = MKV_EXTENT_MIN;
	r->o.journal_bytes = 128 * 4096;
	r->o.objects_max = 64;
	r->o.evict = s->evict;
	r->o.policy = s->evict ? MKV_POLICY_CLOCK : MKV_POLICY_NONE;
	r->sim->touched = touched;
	return (r);
}

struct history *
history_new(const struct script *s, uint64_t seed, void (*explore)(struct history *h))
{
	struct history *h = calloc(1, sizeof(*h));

	MKV_ASSERT(h != NULL);
	h->script = s;
	h->seed = seed;
	h->explore = explore;
	h->blocks = MEDIUM_BYTES / BLOCK;
	h->touched = malloc(h->blocks);
	h->discarded = calloc(1, h->blocks);
	h->base_hash = calloc(h->blocks, sizeof(*h->base_hash));
	MKV_ASSERT(h->touched != NULL && h->discarded != NULL && h->base_hash != NULL);
	memset(h->touched, 1, h->blocks);
	h->r = history_rig(s, seed, h->touched);
	h->check = history_rig(s, seed, h->touched);
	h->check->o.evict = 0;			/* what was recovered stays while it is looked at */
	h->check->o.policy = MKV_POLICY_NONE;
	if (s->trim) {
		sim_may_discard(h->r->sim);
		h->r->o.trim = 1;
		h->r->o.trim_wait_ns = 5 * MKV_NS_PER_MS;
	}
	h->r->sim->on_step = history_on_step;
	h->r->sim->on_step_arg = h;
	for (unsigned k = 0; k < HIST_KEYS; k++) {
		struct cand *c = cand_add(h, k, (struct state){ 0 }, 0);

		c->end = ++h->order;
		c->durable = 1;
	}
	return (h);
}

/* What was evicted is gone, though nobody deleted it. */
static void
history_count(struct history *h)
{
	struct state st;

	h->ckpts = (unsigned)(h->r->e->ck.id - h->ckpts_before);
	for (unsigned k = 0; h->script->evict && k < HIST_KEYS; k++) {
		int there = h->cands[k] > 0;

		for (unsigned i = 0; i < h->cands[k]; i++)
			there &= h->cand[k][i].st.seed != 0;
		if (there && seen_key(h, h->r, k, &st) == 0)
			h->evicted += st.seed == 0;
	}
}

void
history_run(struct history *h)
{
	h->quiet = 1;				/* formatting is format_test's */
	history_open(h);
	h->ckpts_before = h->r->e->ck.id;
	h->quiet = 0;
	for (const struct step *s = h->script->step; s->op != S_END; s++)
		history_step(h, s);
	step_join(h);
	history_point(h);
	h->quiet = 1;
	history_count(h);
}

void
history_free(struct history **hp)
{
	struct history *h = *hp;

	rig_destroy(&h->r);
	rig_destroy(&h->check);
	seen_free(h);
	free(h->touched);
	free(h->discarded);
	free(h->base_hash);
	free(h);
	*hp = NULL;
}
