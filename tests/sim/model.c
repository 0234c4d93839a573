/*
 * The oracle (model.h).
 */
#include "config.h"

#include "tests/sim/model.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "common/base/assert.h"
#include "tests/sim/sim.h"

#define MODEL_TTL_SLACK_MS	100u		/* the store may keep the end of a time to live by tenths of a second, rounded up */

struct model model;

/* ---- Values ----------------------------------------------------------------------------------------------------------------- */

static uint64_t
value_word(uint64_t seed, uint64_t k)
{
	return ((seed * 0xd1342543de82ef95ull + k) * 0x9e3779b97f4a7c15ull);
}

void
value_fill(uint8_t *p, uint64_t bytes, uint64_t seed)
{
	uint64_t k = 0, w;

	for (; 8 * k + 8 <= bytes; k++) {
		w = value_word(seed, k);
		memcpy(p + 8 * k, &w, 8);
	}
	w = value_word(seed, k);
	memcpy(p + 8 * k, &w, bytes - 8 * k);
}

static int
value_is(const uint8_t *p, uint64_t off, uint64_t len, uint64_t seed)
{
	uint64_t i = 0, w;

	for (; i < len && (off + i) % 8 != 0; i++) {
		w = value_word(seed, (off + i) / 8);
		if (p[i] != (uint8_t)(w >> 8 * ((off + i) % 8)))
			return (0);
	}
	for (; i + 8 <= len; i += 8) {
		w = value_word(seed, (off + i) / 8);
		if (memcmp(p + i, &w, 8) != 0)
			return (0);
	}
	w = value_word(seed, (off + i) / 8);
	return (memcmp(p + i, &w, len - i) == 0);
}

/* ---- Which versions --------------------------------------------------------------------------------------------------------- */

static int
version_replaced(const struct model_key *k, const struct model_version *v, uint64_t start)
{
	for (unsigned i = 0; i < k->n; i++) {
		const struct model_version *w = &k->v[i];

		if (w != v && w->state == MV_DONE && w->end <= start && v->end <= w->start)
			return (1);
	}
	return (0);
}

/* May a read that began at start and ends now see it? */
static int
version_may_show(const struct model_key *k, const struct model_version *v, uint64_t start)
{
	if ((v->state == MV_NOT && v->lost_at <= start) || v->start > sim->now || version_replaced(k, v, start))
		return (0);
	return (v->seed == 0 || v->exp_hi == UINT64_MAX || k->touching > 0 || sim->wall_ms + start / MS < v->exp_hi);
}

/* May it be that it is there no more, for other reasons than a newer one? */
static int
version_may_go(const struct model_version *v)
{
	return (v->seed == 0 || v->fragile || (v->exp_lo != UINT64_MAX && sim_wall() >= v->exp_lo));
}

/* It was read: it did happen; and what was over before the read and after it did not. */
static void
version_seen(struct model_key *k, struct model_version *v, uint64_t start)
{
	if (start < model.crashed_at)
		return;				/* the answer is older than the crash, perhaps */
	for (unsigned i = 0; i < k->n; i++) {
		struct model_version *w = &k->v[i];

		if (w->state == MV_UNKNOWN && w != v && w->end <= start && v->end <= w->start) {
			w->state = MV_NOT;
			w->lost_at = w->fragile ? model.crashed_at : 0;
		}
	}
	if (v->state == MV_UNKNOWN && !v->accepted) {
		v->state = MV_DONE;
		v->end = MKV_MIN(v->end, sim->now);
	}
}

static void
model_explain(const struct model_key *k, uint64_t start)
{
	static const char *const state[] = { "pending", "done", "unknown", "not" };

	fprintf(stderr, "key %.*s of namespace \"%.*s\", read from %.6f:\n", (int)k->name_bytes, k->name, (int)k->ns_bytes, k->ns, (double)start / 1e9);
	for (unsigned i = 0; i < k->n; i++) {
		const struct model_version *v = &k->v[i];

		fprintf(stderr, "  %3u seed %" PRIu64 " bytes %" PRIu64 " from %.6f to %.6f %s%s%s ttl %" PRIu64 "%s\n", i, v->seed, v->bytes,
		    (double)v->start / 1e9, v->end == UINT64_MAX ? -1 : (double)v->end / 1e9, state[v->state], v->accepted ? " accepted" : "",
		    v->fragile ? " fragile" : "", v->ttl_ms, version_may_show(k, v, start) ? " *" : "");
	}
}

/* ---- Writes ----------------------------------------------------------------------------------------------------------------- */

void
model_init(unsigned keys, int evicts)
{
	SIM_CHECK(keys <= MODEL_KEYS_MAX, "too many keys");
	model.keys = keys;
	model.next_seed = 1;
	model.evicts = evicts;
	model.lossy = 0;
	model.crashed_at = 0;
	for (unsigned i = 0; i < keys; i++) {
		struct model_key *k = &model.key[i];
		unsigned ns = i % MODEL_NS;

		/* The same names in each namespace; one of them is empty. */
		k->name_bytes = (unsigned)snprintf((char *)k->name, sizeof(k->name), "k/%u", i / MODEL_NS);
		k->ns_bytes = ns == 0 ? 0 : (unsigned)snprintf((char *)k->ns, sizeof(k->ns), "space-%u", ns);
		k->busy = k->touching = 0;
		k->touch_end = 0;
		k->n = 1;
		k->v[0] = (struct model_version){ .state = MV_DONE, .exp_lo = UINT64_MAX, .exp_hi = UINT64_MAX };
	}
}

unsigned
model_begin(unsigned key, uint64_t seed, uint64_t bytes, uint64_t ttl_ms, int accepted, int pin)
{
	struct model_key *k = &model.key[key];

	SIM_CHECK(k->n < MODEL_VERSIONS_MAX, "too many versions of one key");
	k->busy++;
	k->v[k->n] = (struct model_version){ .seed = seed, .bytes = bytes, .start = sim->now, .end = UINT64_MAX, .ttl_ms = ttl_ms,
	    .exp_lo = MKV_MIN(ttl_ms ? sim_wall() + ttl_ms : UINT64_MAX, k->touching > 0 ? k->touch_lo : UINT64_MAX), .exp_hi = UINT64_MAX, .accepted = accepted, .pin = pin };
	return (k->n++);
}

void
model_end(unsigned key, unsigned version, enum model_state state)
{
	struct model_version *v = &model.key[key].v[version];

	SIM_CHECK(v->state == MV_PENDING, "a write ends twice");
	model.key[key].busy--;
	v->state = state;
	if (state != MV_DONE)
		return;
	v->end = sim->now;
	if (v->ttl_ms != 0 && v->exp_hi == UINT64_MAX)
		v->exp_hi = MKV_MAX(sim_wall() + v->ttl_ms + MODEL_TTL_SLACK_MS, v->touched_hi);
	/* The answer may have been on its way when the drive that gave it died. */
	if (v->accepted && v->fragile)
		v->state = MV_UNKNOWN;
}

void
model_check_absent(unsigned key, unsigned version)
{
	struct model_key *k = &model.key[key];
	const struct model_version *b = &k->v[version];

	model_check_miss(key, b->start, "put if absent found nothing");
	if (model.evicts || model.lossy)
		return;
	for (unsigned i = 0; i < k->n; i++) {
		const struct model_version *a = &k->v[i];
		int between = 0;

		if (a == b || !a->if_absent || a->state != MV_DONE || a->end <= b->start || a->ttl_ms != 0 || b->ttl_ms != 0)
			continue;
		/* They met: something must have taken away what the first of them had put. */
		for (unsigned n = 0; n < k->n; n++)
			between |= k->v[n].state != MV_NOT && k->v[n].end >= MKV_MIN(a->start, b->start) && version_may_go(&k->v[n]);
		if (between || k->touching > 0)
			continue;
		model_explain(k, b->start);
		sim_fail("two puts if absent both found nothing (versions %u and %u)", i, version);
	}
}

void
model_deleted(unsigned key, unsigned version, int was_there)
{
	struct model_version *v = &model.key[key].v[version];

	/* It is no reason for itself. */
	v->state = MV_NOT;
	if (was_there)
		model_check_there(key, v->start, UINT64_MAX, "delete");
	else
		model_check_miss(key, v->start, "delete");
	v->state = MV_PENDING;
	model_end(key, version, MV_DONE);
}

/* Until it is answered, what is there or comes may end as early as it says, or live on. */
void
model_touch_begin(unsigned key, uint64_t ttl_ms)
{
	struct model_key *k = &model.key[key];

	k->touching++;
	k->touch_lo = MKV_MIN(k->touching == 1 ? UINT64_MAX : k->touch_lo, sim_wall() + ttl_ms);
	for (unsigned i = 0; i < k->n; i++)
		if (k->v[i].seed != 0 && version_may_show(k, &k->v[i], sim->now))
			k->v[i].exp_lo = MKV_MIN(k->v[i].exp_lo, sim_wall() + ttl_ms);
}

/* What the touch may have met has this end of life, or perhaps the one that it had. */
void
model_touch_end(unsigned key, uint64_t start, uint64_t ttl_ms, int sure)
{
	struct model_key *k = &model.key[key];
	struct model_version *only = NULL;
	unsigned n = 0;
	int alone = --k->touching == 0 && k->touch_end <= start;

	k->touch_end = sim->now;
	for (unsigned i = 0; i < k->n; i++) {
		struct model_version *v = &k->v[i];

		if (v->seed == 0 || !version_may_show(k, v, start))
			continue;
		only = v;
		n++;
		v->touched_hi = MKV_MAX(v->touched_hi, sim_wall() + ttl_ms + MODEL_TTL_SLACK_MS);
		if (v->exp_hi != UINT64_MAX)
			v->exp_hi = MKV_MAX(v->exp_hi, v->touched_hi);
	}
	if (n != 1 || !sure || !alone || only->state != MV_DONE || only->end > start || k->busy > 0)
		return;
	only->exp_lo = sim->wall_ms + start / MS + ttl_ms;
	only->exp_hi = sim_wall() + ttl_ms + MODEL_TTL_SLACK_MS;
}

/* ---- Reads ------------------------------------------------------------------------------------------------------------------ */

/* Whatever may show is pinned. */
static int
model_pinned(const struct model_key *k, uint64_t start)
{
	for (unsigned i = 0; i < k->n; i++)
		if (version_may_show(k, &k->v[i], start) && !k->v[i].pin)
			return (0);
	return (1);
}

int
model_may_miss(unsigned key, uint64_t start)
{
	struct model_key *k = &model.key[key];

	if (model.lossy || (model.evicts && !model_pinned(k, start)))
		return (1);
	/* The end of a time to live is not the end of what was there before: it is the end. */
	for (unsigned i = 0; i < k->n; i++)
		if (!version_replaced(k, &k->v[i], start) && k->v[i].state != MV_NOT && version_may_go(&k->v[i]))
			return (1);
	return (0);
}

/*
 * A value of several pieces that is replaced or deleted while it is read, and meanwhile a drive died: perhaps the home, and with it what it knew of its
 * readers.
 */
static int
model_pulled_away(const struct model_key *k, uint64_t start)
{
	int striped = 0, moved = 0;

	if (sim->died_ns < start)
		return (0);
	for (unsigned i = 0; i < k->n; i++) {
		const struct model_version *v = &k->v[i];

		striped |= v->bytes > SIM_EXTENT && version_may_show(k, v, start);
		moved |= v->state != MV_NOT && v->start > 0 && v->end >= start;
	}
	return (striped && moved);
}

void
model_check_miss(unsigned key, uint64_t start, const char *what)
{
	sim->stat_checks++;
	if (model_may_miss(key, start))
		return;
	if (model_pulled_away(&model.key[key], start)) {
		sim->stat_pulled++;
		return;
	}
	model_explain(&model.key[key], start);
	sim_fail("%s: what was acknowledged is gone", what);
}

int
model_may_hit(unsigned key, uint64_t start)
{
	const struct model_key *k = &model.key[key];

	for (unsigned i = 0; i < k->n; i++)
		if (k->v[i].seed != 0 && version_may_show(k, &k->v[i], start))
			return (1);
	return (0);
}

void
model_check_there(unsigned key, uint64_t start, uint64_t value_bytes, const char *what)
{
	const struct model_key *k = &model.key[key];

	sim->stat_checks++;
	for (unsigned i = 0; i < k->n; i++)
		if (k->v[i].seed != 0 && version_may_show(k, &k->v[i], start) && (value_bytes == UINT64_MAX || value_bytes == k->v[i].bytes))
			return;
	model_explain(k, start);
	sim_fail("%s: something is there (%" PRId64 " bytes) that cannot be", what, (int64_t)value_bytes);
}

/* For the message: whose bytes are these? */
static void
model_whose(uint64_t off, const uint8_t *p, uint64_t len)
{
	for (unsigned i = 0; i < model.keys; i++)
		for (unsigned n = 0; n < model.key[i].n; n++)
			if (model.key[i].v[n].seed != 0 && len > 0 && value_is(p, off, len, model.key[i].v[n].seed))
				fprintf(stderr, "they are those of key %u, version %u\n", i, n);
}

void
model_check_hit(unsigned key, uint64_t start, uint64_t value_bytes, uint64_t off, const uint8_t *p, uint64_t len, const char *what)
{
	struct model_key *k = &model.key[key];
	struct model_version *found = NULL;
	unsigned n = 0;

	sim->stat_checks++;
	sim->stat_hits++;
	for (unsigned i = k->n; i-- > 0; ) {
		struct model_version *v = &k->v[i];

		if (v->seed == 0 || v->bytes != value_bytes || !version_may_show(k, v, start) || !value_is(p, off, len, v->seed))
			continue;
		found = v;
		n++;
	}
	/* Bytes that several writes wrote do not say which. */
	if (n == 1 && len >= 8)
		version_seen(k, found, start);
	if (n > 0)
		return;
	model_explain(k, start);
	model_whose(off, p, len);
	sim_fail("%s: wrong or stale bytes (value of %" PRIu64 ", from %" PRIu64 " on %" PRIu64 ")", what, value_bytes, off, len);
}

/* ---- Crashes ---------------------------------------------------------------------------------------------------------------- */

void
model_crashed(void)
{
	model.crashed_at = sim->now;
	for (unsigned i = 0; i < model.keys; i++)
		for (unsigned n = 0; n < model.key[i].n; n++) {
			struct model_version *v = &model.key[i].v[n];

			if (!v->accepted)
				continue;
			v->fragile = 1;
			if (v->state == MV_DONE)
				v->state = MV_UNKNOWN;
		}
}

void
model_settled(void)
{
	for (unsigned i = 0; i < model.keys; i++)
		for (unsigned n = 0; n < model.key[i].n; n++) {
			struct model_version *v = &model.key[i].v[n];

			if (v->state == MV_UNKNOWN && v->end == UINT64_MAX) {
				v->end = sim->now;
				if (v->ttl_ms != 0 && v->exp_hi == UINT64_MAX)
					v->exp_hi = MKV_MAX(sim_wall() + v->ttl_ms + MODEL_TTL_SLACK_MS, v->touched_hi);
			}
			if (v->state != MV_PENDING)
				v->accepted = 0;
		}
}

void
model_wiped(void)
{
	for (unsigned i = 0; i < model.keys; i++) {
		struct model_key *k = &model.key[i];

		SIM_CHECK(k->n < MODEL_VERSIONS_MAX, "too many versions of one key");
		for (unsigned n = 0; n < k->n; n++)
			if (k->v[n].state == MV_UNKNOWN)
				k->v[n].end = MKV_MIN(k->v[n].end, sim->now);
		k->v[k->n++] = (struct model_version){ .start = sim->now, .end = sim->now, .state = MV_DONE, .exp_lo = UINT64_MAX,
		    .exp_hi = UINT64_MAX };
	}
}
