/*
 * What a recovery finds on a medium that a crash left (enumerate.h). Tests only; uses the history's checker, whose medium the caller has made.
 */
#include "config.h"

#include "tests/crash/enumerate.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/err.h"

#define EPOCH		1000u			/* of the checker: above all of the history */
#define CUT_STEPS	24u
#define LATER		1000000u		/* versions of puts after a recovery */
#define GOLDEN		0x9e3779b97f4a7c15ull	/* of rig_value() */
#define GOLDEN_INV	0xf1de83e19937733dull

void
key_req(struct mkv_drv_req *q, unsigned op, unsigned k)
{
	char name[401];

	/* Long ones: some of them fill a page, or a block of the journal. */
	memset(name, 'k', sizeof(name) - 1);
	name[sizeof(name) - 1] = '\0';
	name[0] = (char)('a' + k);
	rig_req(q, op, name);
	if (k / 6 == 1) {
		q->ns_bytes = 2;
		memcpy(q->ns, "n1", 2);
	}
}

void
key_put_req(struct rig *r, struct mkv_drv_req *q, unsigned slot, unsigned k, uint64_t bytes, uint64_t seed)
{
	struct mkv_drv_req key;

	key_req(&key, MKV_DRV_PUT, k);
	rig_put_req(r, q, slot, "", bytes, seed);
	q->digest = key.digest;
	q->ns_bytes = key.ns_bytes;
	memcpy(q->ns, key.ns, sizeof(q->ns));
	q->key_bytes = key.key_bytes;
	memcpy(q->key, key.key, sizeof(q->key));
}

/* Which value is it? All its bytes say so. */
static uint64_t
value_seed(const uint8_t *b, uint64_t bytes)
{
	uint64_t word;

	if (bytes < sizeof(word))
		return (0);
	memcpy(&word, b, sizeof(word));
	word *= GOLDEN_INV;
	return (word != 0 && rig_value_is(b, 0, bytes, word) ? word : 0);
}

int
seen_key(struct history *h, struct rig *r, unsigned k, struct state *st)
{
	const struct mkv_drv_rep *p;
	struct mkv_drv_req q;

	*st = (struct state){ 0 };
	key_req(&q, MKV_DRV_STAT, k);
	q.flags = MKV_DRV_F_NO_TOUCH;
	rig_submit(r, 0, &q);
	p = rig_wait(r, 0);
	if (p->status == MKV_E_MISS)
		return (0);
	st->expires_ms = p->expires_wall_ms;
	st->pin = (p->flags & MKV_DRV_F_PIN) != 0;
	key_req(&q, MKV_DRV_GET, k);
	rig_bufs(&q, 0, 1u << 20);
	q.len = 1u << 20;
	rig_submit(r, 0, &q);
	p = rig_wait(r, 0);
	if (p->status != 0 || p->len != p->value_bytes) {
		HIST_FAIL(h, "k%u: get after stat: %s", k, mkv_err(p->status));
		return (-1);
	}
	st->bytes = p->value_bytes;
	if ((st->seed = value_seed(rig_mem(r, 0) + p->skip, p->len)) != 0)
		return (0);
	HIST_FAIL(h, "k%u: %" PRIu64 " wrong bytes", k, p->len);
	return (-1);
}

static int
seen_keys(struct history *h, struct state *st)
{
	for (unsigned k = 0; k < HIST_KEYS; k++) {
		if (seen_key(h, h->check, k, &st[k]) != 0)
			return (-1);
	}
	return (0);
}

/* A crash is no damage, and no unit is lost: all that is in use belongs to what was found. But for what has expired and is there still. */
static int
seen_books(struct history *h, const struct state *st)
{
	struct mkv_inspect in = { .data = 1 };
	struct mkv_engine_info info;
	uint64_t units = 0, objects = 0;

	mkv_engine_info(h->check->e, &info);
	if (info.damaged_blocks > 0) {
		HIST_FAIL(h, "damage after a crash: %u blocks of journal or checkpoint", info.damaged_blocks);
		return (-1);
	}
	for (unsigned k = 0; k < HIST_KEYS; k++) {
		units += MKV_DIV_UP(st[k].bytes, info.unit_bytes);
		objects += st[k].seed != 0;
	}
	if (objects == info.objects && units * info.unit_bytes != info.used_bytes) {
		HIST_FAIL(h, "%" PRIu64 " units are in use, %" PRIu64 " belong to somebody", info.used_bytes / info.unit_bytes, units);
		return (-1);
	}
	if (mkv_engine_inspect(h->check->e, &in) != 0 || in.bad_pages + in.bad_records + in.bad_data > 0) {
		HIST_FAIL(h, "the store has bad pages, records or values: %" PRIu64 ", %" PRIu64 ", %" PRIu64, in.bad_pages, in.bad_records, in.bad_data);
		return (-1);
	}
	return (0);
}

static int
seen_open(struct history *h, const char *which)
{
	h->check->dead = 0;
	if (rig_open(h->check) == 0)
		return (0);
	HIST_FAIL(h, "%s recovery: %s", which, h->check->why);
	return (-1);
}

static int
seen_same(struct history *h, const char *which, const struct state *st, const struct state *want)
{
	for (unsigned k = 0; k < HIST_KEYS; k++) {
		if (memcmp(&st[k], &want[k], sizeof(st[k])) == 0)
			continue;
		HIST_FAIL(h, "k%u: the %s recovery found version %" PRIu64 ", there was version %" PRIu64, k, which, st[k].seed, want[k].seed);
		return (-1);
	}
	return (0);
}

/* The one that recovered dies. What it wrote meanwhile is kept, lost, or some of it. */
static int
seen_again(struct history *h, const struct seen *s)
{
	struct state st[HIST_KEYS];
	enum sim_policy policy = (enum sim_policy)(s->hash % SIM_POLICIES);

	rig_close(h->check, 1);
	sim_reboot(h->check->sim, policy);
	if (seen_open(h, "second") != 0 || seen_keys(h, st) != 0 || seen_books(h, st) != 0)
		return (-1);
	return (seen_same(h, "second", st, s->key));
}

/* And it serves: what is put now is there after an orderly end, and nothing of what was not there comes back behind it. */
static int
seen_serves(struct history *h, const struct seen *s)
{
	struct state st[HIST_KEYS], want[HIST_KEYS];
	struct mkv_drv_req q;

	memcpy(want, s->key, sizeof(want));
	for (unsigned k = 0; k < 4; k++) {
		want[k] = (struct state){ .seed = LATER + k, .bytes = 40 };
		key_put_req(h->check, &q, k, k, want[k].bytes, want[k].seed);
		rig_submit(h->check, k, &q);
	}
	for (unsigned k = 0; k < 4; k++) {
		if (rig_wait(h->check, k)->status != 0) {
			HIST_FAIL(h, "a put after the second recovery");
			return (-1);
		}
	}
	if (rig_close(h->check, 0) != 0) {
		HIST_FAIL(h, "an orderly end after the second recovery");
		return (-1);
	}
	return (seen_open(h, "third") != 0 || seen_keys(h, st) != 0 || seen_books(h, st) != 0 || seen_same(h, "third", st, want) != 0 ? -1 : 0);
}

const struct seen *
seen_find(const struct history *h, uint64_t hash, uint64_t now_ms)
{
	struct seen *s = h->seen[hash % 4096];

	while (s != NULL && (s->hash != hash || s->now_ms != now_ms))
		s = s->next;
	return (s);
}

/* A recovery that dies itself, at one of its own boundaries. */
static void
seen_cut(struct history *h, uint64_t by)
{
	struct rig *c = h->check;

	c->dead = 0;
	c->sim->steps = 0;
	c->sim->crash_at = 1 + by % CUT_STEPS;
	if (rig_open(c) == 0)
		rig_close(c, 1);
	sim_reboot(c->sim, (enum sim_policy)(by / CUT_STEPS % SIM_POLICIES));
}

const struct seen *
seen_add(struct history *h, uint64_t hash, uint64_t now_ms)
{
	struct seen *s = calloc(1, sizeof(*s));
	struct rig *c = h->check;
	int bad;

	MKV_ASSERT(s != NULL);
	s->hash = hash;
	s->now_ms = now_ms;
	c->now_ns = MKV_NS_PER_SEC;
	c->wall_ms = now_ms - c->now_ns / MKV_NS_PER_MS;
	c->o.epoch = EPOCH;
	c->sim->rnd.state = hash;
	h->recovered++;
	if (hash % 4 == 1)
		seen_cut(h, hash / 4);
	bad = seen_open(h, "first") != 0 || seen_keys(h, s->key) != 0 || seen_books(h, s->key) != 0 || seen_again(h, s) != 0 ||
	    (hash % 4 == 0 && seen_serves(h, s) != 0);
	if (c->e != NULL)
		rig_close(c, 1);
	sim_reboot(c->sim, SIM_DROP);
	if (bad) {
		free(s);
		return (NULL);
	}
	s->next = h->seen[hash % 4096];
	h->seen[hash % 4096] = s;
	return (s);
}

void
seen_free(struct history *h)
{
	for (unsigned i = 0; i < 4096; i++) {
		struct seen *s;

		while ((s = h->seen[i]) != NULL) {
			h->seen[i] = s->next;
			free(s);
		}
	}
}
