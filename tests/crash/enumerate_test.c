/*
 * Crash enumeration: short scripted histories, power lost at every write, flush and discard, begun and ended, and behind every answer. At each such
 * point the media that could be left are made one by one, recovered, read and judged; then the recovered process dies as well and the next one must
 * find the same.
 *
 *	enumerate_test [-h HISTORY] [-s SEED] [-n SEEDS] [-b BOUND] [-t PLACES] [-p POINT] [-v]
 *
 * What could be left at a point, of the writes that no completed flush covers:
 *
 *	up to BOUND of them (default 6)	every subset, in the order in which they were begun
 *	more				all that have at most two of them, all that lack at most two, and a sample of SAMPLE
 *	each of them			torn at PLACES sectors of 512 bytes at most (default 8: a block everywhere, longer writes at their ends and evenly
 *					between): its beginning kept, with all others kept, and with all others lost; MKV_FULL: its end kept, too
 *	a discard			counts as a write; where it is kept the range is rubbish, and once more zeros. Lost: the old bytes
 *
 * One image is recovered once, whatever number of points leave it; it is judged at each of them. SEEDS: orders in which the medium completes (default 2).
 * MKV_FULL in the environment: -b 9 -t 16 -n 12. A failure prints what repeats it.
 *
 * The oracle: each operation has a begin and an answer. What an operation left is possible as long as none that began after its answer was answered and
 * durable. Accepted puts become durable with the next durable answer of an operation that began later, since the journal has one order.
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
#include "tests/crash/enumerate.h"

#define SECTOR		512u
#define BLOCK		4096u
#define SAMPLE		64u
#define WRITES_MAX	64u
#define FAILURES_MAX	10u

static unsigned	bound = 6, places = 8, suffixes, only_point, verbose;

/* ---- The media that could be left ------------------------------------------------------------------------------------------- */

/* What is kept of a write: sectors [from, upto). zero: of a discard: its other content. */
struct pick {
	uint32_t	from, upto;
	int		zero;
};

struct explorer {
	struct history	*h;
	struct sim_write *w[WRITES_MAX];
	struct pick	pick[WRITES_MAX];
	unsigned	n;
	uint64_t	base;			/* hash of what is durable, whatever is lost: the sum over its blocks */
	uint64_t	now_ms;
};

static uint32_t
sectors(const struct sim_write *w)
{
	return (w->bytes / SECTOR);
}

static uint64_t
block_hash(const uint8_t *image, uint64_t block)
{
	return (mkv_hash64(image + block * BLOCK, BLOCK, block + 1));
}

/* The checker's medium is the live one's durable content again. */
static void
image_restore(struct history *h)
{
	struct media_sim *to = h->check->sim;

	for (uint64_t b = 0; b < h->blocks; b++) {
		if (!h->touched[b])
			continue;
		memcpy(to->durable + b * BLOCK, h->r->sim->durable + b * BLOCK, BLOCK);
		memcpy(to->now + b * BLOCK, h->r->sim->durable + b * BLOCK, BLOCK);
		h->touched[b] = 0;
	}
}

static void
image_write(struct media_sim *to, const struct sim_write *w, const struct pick *p)
{
	uint64_t at = (uint64_t)p->from * SECTOR, bytes = (uint64_t)(p->upto - p->from) * SECTOR;

	if (p->zero)
		memset(to->durable + w->off + at, 0, bytes);
	else
		memcpy(to->durable + w->off + at, w->data + at, bytes);
}

/* The image of these picks; its hash. */
static uint64_t
image_make(struct explorer *x)
{
	struct history *h = x->h;
	struct media_sim *to = h->check->sim;
	uint64_t hash = x->base;

	image_restore(h);
	for (unsigned i = 0; i < x->n; i++) {
		if (x->pick[i].upto == x->pick[i].from)
			continue;
		image_write(to, x->w[i], &x->pick[i]);
		memset(h->touched + x->w[i]->off / BLOCK, 1, x->w[i]->bytes / BLOCK);
	}
	for (uint64_t b = 0; b < h->blocks; b++) {
		if (!h->touched[b])
			continue;
		hash += block_hash(to->durable, b) - h->base_hash[b];
		memcpy(to->now + b * BLOCK, to->durable + b * BLOCK, BLOCK);
	}
	return (hash);
}

static void
picks_print(const struct explorer *x)
{
	for (unsigned i = 0; i < x->n; i++) {
		const struct sim_write *w = x->w[i];
		const struct pick *p = &x->pick[i];

		fprintf(stderr, "	%s of %u bytes at %" PRIu64 "%s: ", w->discard ? "discard" : "write", w->bytes, w->off, w->done ? ", completed" : "");
		if (p->upto == p->from)
			fprintf(stderr, "lost\n");
		else if (p->upto - p->from == sectors(w))
			fprintf(stderr, "kept%s\n", p->zero ? ", zeros" : "");
		else
			fprintf(stderr, "torn, sectors %u to %u kept\n", p->from, p->upto);
	}
}

/* One medium: recovered, unless it was before; judged. */
static void
explore_one(struct explorer *x)
{
	struct history *h = x->h;
	uint64_t hash = image_make(x);
	const struct seen *s = seen_find(h, hash, x->now_ms);
	unsigned before = h->failures;

	h->states++;
	if (s == NULL)
		s = seen_add(h, hash, x->now_ms);
	if (s != NULL)
		model_judge(h, s, x->now_ms);
	if (h->failures == before)
		return;
	fprintf(stderr, "%s: repeat it by -h %s -s %" PRIu64 " -p %" PRIu64 "\n", h->script->name, h->script->name, h->seed, h->points);
	picks_print(x);
}

static void
pick_all(struct explorer *x, int keep)
{
	for (unsigned i = 0; i < x->n; i++)
		x->pick[i] = (struct pick){ 0, keep ? sectors(x->w[i]) : 0, 0 };
}

static void
pick_flip(struct explorer *x, unsigned i)
{
	x->pick[i].upto = x->pick[i].upto > 0 ? 0 : sectors(x->w[i]);
}

/* Every subset, a discard that is kept in both ways. Recursive over the writes, so as deep as BOUND. */
static void
explore_subsets(struct explorer *x, unsigned i)
{
	if (i == x->n) {
		explore_one(x);
		return;
	}
	x->pick[i] = (struct pick){ 0, 0, 0 };
	explore_subsets(x, i + 1);
	x->pick[i].upto = sectors(x->w[i]);
	explore_subsets(x, i + 1);
	if (x->w[i]->discard) {
		x->pick[i].zero = 1;
		explore_subsets(x, i + 1);
	}
}

/* All but, or none but, at most two. */
static void
explore_near(struct explorer *x, int keep)
{
	pick_all(x, keep);
	explore_one(x);
	for (unsigned i = 0; i < x->n; i++) {
		pick_all(x, keep);
		pick_flip(x, i);
		explore_one(x);
		for (unsigned k = i + 1; k < x->n; k++) {
			pick_flip(x, k);
			explore_one(x);
			pick_flip(x, k);
		}
	}
}

static void
explore_sample(struct explorer *x)
{
	struct rnd rnd = { x->base };

	for (unsigned n = 0; n < SAMPLE; n++) {
		for (unsigned i = 0; i < x->n; i++)
			x->pick[i] = (struct pick){ 0, rnd_below(&rnd, 2) ? sectors(x->w[i]) : 0, x->w[i]->discard && rnd_below(&rnd, 2) };
		explore_one(x);
	}
}

/* The k-th place where a write of n sectors is torn, 1 to n - 1: both ends first, the others evenly between. */
static uint32_t
tear_place(uint32_t n, unsigned k)
{
	if (n - 1 <= places)
		return (k + 1);
	return (k == 0 ? 1 : k == 1 ? n - 1 : 1 + (uint32_t)((uint64_t)(n - 2) * (k - 1) / (places - 1)));
}

static void
explore_torn(struct explorer *x, unsigned i)
{
	uint32_t n = sectors(x->w[i]);

	for (unsigned k = 0; k < places && k + 1 < n; k++) {
		for (int keep = 0; keep < 2; keep++) {
			pick_all(x, keep);
			x->pick[i] = (struct pick){ 0, tear_place(n, k), 0 };
			explore_one(x);
			x->pick[i] = (struct pick){ tear_place(n, k), n, 0 };
			if (suffixes)
				explore_one(x);
		}
	}
}

/* Power is lost now. */
static void
explore(struct history *h)
{
	struct explorer x = { .h = h, .now_ms = history_now_ms(h) };

	model_answers(h);
	h->points++;
	if ((only_point != 0 && h->points != only_point) || h->failures >= FAILURES_MAX)
		return;
	for (struct sim_write *w = h->r->sim->pending; w != NULL; w = w->next) {
		MKV_ASSERT(x.n < WRITES_MAX);
		x.w[x.n++] = w;
	}
	for (uint64_t b = 0; b < h->blocks; b++) {
		h->base_hash[b] = block_hash(h->r->sim->durable, b);
		x.base += h->base_hash[b];
	}
	h->writes_max = MKV_MAX(h->writes_max, x.n);
	if (x.n <= bound)
		explore_subsets(&x, 0);
	else {
		explore_near(&x, 0);
		explore_near(&x, 1);
		explore_sample(&x);
	}
	for (unsigned i = 0; i < x.n; i++)
		explore_torn(&x, i);
}

/* What a history is to have met, so that it does not pass for nothing. */
static void
met(struct history *h)
{
	const struct script *s = h->script;

	if (h->ckpts < s->ckpts || h->discards < s->discards || h->reused < s->reused || h->evicted < s->evicted || h->sames < s->sames) {
		fprintf(stderr, "%s -s %" PRIu64 ": %u checkpoints, %u discards, %u writes over what was discarded, %u objects evicted, %u touches by a put: fewer than it is for\n",
		    s->name, h->seed, h->ckpts, h->discards, h->reused, h->evicted, h->sames);
		h->failures++;
	}
}

struct total {
	uint64_t	points, states, recovered;
	unsigned	runs, failed;
};

static void
run(const struct script *s, uint64_t seed, struct total *t)
{
	struct history *h = history_new(s, seed, explore);

	history_run(h);
	if (only_point == 0)
		met(h);
	if (verbose)
		printf("%s, order %" PRIu64 ": %" PRIu64 " points, %" PRIu64 " states, %" PRIu64 " images, up to %u unflushed writes, %u discards, %u over discarded, "
		    "%u evicted, %u checkpoints\n", s->name, seed, h->points, h->states, h->recovered, h->writes_max, h->discards, h->reused, h->evicted, h->ckpts);
	fflush(stdout);
	t->points += h->points;
	t->states += h->states;
	t->recovered += h->recovered;
	t->failed += h->failures > 0;
	t->runs++;
	history_free(&h);
}

int
main(int argc, char **argv)
{
	const char *only = NULL;
	struct total t = { 0 };
	uint64_t seed = 1;
	unsigned seeds = 2;
	int c;

	if (getenv("MKV_FULL") != NULL) {
		bound = 9;
		places = 16;
		suffixes = 1;
		seeds = 12;
	}
	while ((c = getopt(argc, argv, "h:s:n:b:t:p:v")) != -1) {
		switch (c) {
		case 'h': only = optarg; break;
		case 's': seed = strtoull(optarg, NULL, 0); seeds = 1; break;
		case 'n': seeds = (unsigned)atoi(optarg); break;
		case 'b': bound = (unsigned)atoi(optarg); break;
		case 't': places = MKV_MAX((unsigned)atoi(optarg), 2u); break;
		case 'p': only_point = (unsigned)atoi(optarg); break;
		case 'v': verbose = 1; break;
		default: return (2);
		}
	}
	mkv_log_init(MKV_LOG_ERROR);
	mkv_crc_init();
	for (const struct script *s = scripts; s->name != NULL; s++) {
		for (unsigned i = 0; i < seeds && (only == NULL || strcmp(only, s->name) == 0); i++)
			run(s, seed + i, &t);
	}
	printf("%u histories, %" PRIu64 " points, %" PRIu64 " states, %" PRIu64 " different images recovered twice, %u failed\n", t.runs, t.points, t.states,
	    t.recovered, t.failed);
	return (t.failed > 0 || t.runs == 0);
}
