/*
 * Walks over the pieces of a set. Drive's loop thread; owns the table of jobs.
 *
 * A drive does not know which pieces of a set it has: it finds them by counting, and a value may have 2^26. So a walk goes on from turn to turn, SET_STEP
 * looks in each for all jobs together, and as many for all ABORTs together (one that drops a piece counts as SET_DROP_COST).
 *
 *   COMMIT  pieces are not provisional any more, then SET_COMMITTED into the journal
 *   FREE    pieces leave, then SET_FREED to whoever asked, once everything is durable. Asked again meanwhile: it goes on
 *   ABORT   provisional pieces leave; the request itself is the walk
 *
 * One job a set: FREE takes the place of COMMIT. What keeps a job waiting (journal room, a put of a piece, answers owed) is looked at again in the next
 * turn. A full table, a restart, a drive that became read-only: the job is forgotten. Homes say SET_FREE every second, and pieces ask after an open.
 */
#include "config.h"

#include <string.h>

#include "common/base/err.h"
#include "worker/drive/engine_priv.h"

#define SETJOB_REPLAY_MAX	(1u << 22)	/* pieces looked for by all of replay: less than a second */

void
setjob_init(struct mkv_engine *e)
{
	mkv_list_init(&e->setjobs.wait);
	e->setjobs.left_replay = SETJOB_REPLAY_MAX;
}

static struct setjob *
setjob_find(struct mkv_engine *e, struct mkv_set_id set)
{
	for (uint32_t i = 0; e->setjobs.count > 0 && i < SETJOBS_MAX; i++) {
		struct setjob *j = &e->setjobs.job[i];

		if (j->kind != SETJOB_NONE && j->set.lo == set.lo && j->set.hi == set.hi)
			return (j);
	}
	return (NULL);
}

static void
setjob_end(struct mkv_engine *e, struct setjob *j)
{
	j->kind = SETJOB_NONE;
	e->setjobs.count--;
}

uint32_t
setjob_dropped(struct mkv_engine *e, struct mkv_set_id set)
{
	const struct setjob *j = setjob_find(e, set);

	return (j != NULL && j->kind == SETJOB_FREE ? j->next : 0);
}

/* ---- Looking ---------------------------------------------------------------------------------------------------------------- */

struct look {				/* some pieces, looked for at once */
	uint32_t	n;
	uint32_t	ent[MKV_INDEX_MANY];	/* MKV_ENT_NIL: not here */
};

/* The next pieces of [from, end), no more than *left. */
static void
look_begin(struct mkv_engine *e, struct look *l, struct mkv_set_id set, uint32_t from, uint32_t end, uint32_t *left)
{
	struct mkv_digest d[MKV_INDEX_MANY];

	l->n = MKV_MIN(MKV_MIN(end - from, MKV_INDEX_MANY), *left);
	*left -= l->n;
	e->setjobs.looks += l->n;
	for (uint32_t k = 0; k < l->n; k++)
		d[k] = mkv_piece_digest(e->piece_secret, set, from + k);
	mkv_index_find_many(&e->ix, d, l->n, l->ent);
}

static uint32_t
look_mark(struct mkv_engine *e, const struct look *l)
{
	uint32_t n = 0;

	for (uint32_t k = 0; k < l->n; k++) {
		struct mkv_ent *en = l->ent[k] != MKV_ENT_NIL ? eng_ent(e, l->ent[k]) : NULL;

		if (en == NULL || (en->flags & MKV_ENT_PROVISIONAL) == 0)
			continue;
		en->flags &= (uint16_t)~MKV_ENT_PROVISIONAL;
		e->provisional--;		/* before recovery has counted them it is nothing, and set anew */
		n++;
	}
	return (n);
}

/* Those of l leave that are here; *from says how far it came. 0, MKV_E_AGAIN, MKV_E_BUSY, MKV_E_READONLY. */
static int
look_drop(struct mkv_engine *e, const struct look *l, uint32_t *from, int provisional_only, uint32_t *left)
{
	for (uint32_t k = 0; k < l->n; k++, (*from)++) {
		struct mkv_ent *en = l->ent[k] != MKV_ENT_NIL ? eng_ent(e, l->ent[k]) : NULL;
		int r;

		if (en == NULL || (en->flags & MKV_ENT_PIECE) == 0 || (provisional_only && (en->flags & MKV_ENT_PROVISIONAL) == 0))
			continue;
		if (req_locked(e, en->digest))
			return (MKV_E_BUSY);
		if ((r = evict_one(e, l->ent[k], MKV_REASON_NONE)) != 0)
			return (r);
		ENG_COUNT(e, pieces_freed_total, 1);
		*left -= MKV_MIN(*left, SET_DROP_COST - 1);
	}
	return (0);
}

static int
setjob_drop(struct mkv_engine *e, struct mkv_set_id set, uint32_t *from, uint32_t end, int provisional_only, uint32_t *left)
{
	struct look l;
	int r;

	while (*from < end && (provisional_only ? e->provisional : e->pieces) > 0) {
		if (*left == 0)
			return (SETJOB_MORE);
		look_begin(e, &l, set, *from, end, left);
		if ((r = look_drop(e, &l, from, provisional_only, left)) != 0)
			return (r);
	}
	*from = end;
	return (0);
}

int
setjob_drop_one(struct mkv_engine *e, struct mkv_set_id set, uint32_t piece_no)
{
	uint32_t one = 1;

	return (setjob_drop(e, set, &piece_no, piece_no + 1, 0, &one));
}

/* ---- Jobs ------------------------------------------------------------------------------------------------------------------- */

static int
setjob_commit(struct mkv_engine *e, struct setjob *j)
{
	static const struct mkv_digest none;
	struct mkv_jset body = { .set = j->set, .piece_count = j->end };
	uint32_t *left = &e->setjobs.left;
	struct look l;

	for (; j->next < j->end && e->provisional > 0; j->next += l.n) {
		if (*left == 0)
			return (SETJOB_MORE);
		look_begin(e, &l, j->set, j->next, j->end, left);
		j->marked += look_mark(e, &l);
	}
	/* Lost without room: the pieces stay provisional after a restart, which protects them as well. */
	if (j->marked > 0 && journal_room(e, sizeof(body), 0) == 0)
		(void)journal_append(e, MKV_J_SET_COMMITTED, none, 0, 0, 0, &body, sizeof(body));
	return (0);
}

static int
setjob_free_step(struct mkv_engine *e, struct setjob *j)
{
	int r = setjob_drop(e, j->set, &j->next, j->end, 0, &e->setjobs.left);

	if (r == 0 && e->setacks == SETACK_MAX)
		r = MKV_E_AGAIN;
	if (r == 0)
		set_answer(e, j->mask, MKV_DRV_SET_FREED, j->set, 0, e->jn.last_record);
	else
		journal_urgent(e);
	return (r);
}

/* As far as it goes in this turn. */
static void
setjob_run(struct mkv_engine *e, struct setjob *j)
{
	int r = j->kind == SETJOB_COMMIT ? setjob_commit(e, j) : setjob_free_step(e, j);

	if (r == 0 || r == MKV_E_READONLY)
		setjob_end(e, j);
	else if (r == SETJOB_MORE)
		e->more = 1;
}

/* NULL: the table is full. */
static struct setjob *
setjob_new(struct mkv_engine *e, enum setjob_kind kind, struct mkv_set_id set)
{
	for (uint32_t i = 0; i < SETJOBS_MAX; i++) {
		struct setjob *j = &e->setjobs.job[i];

		if (j->kind != SETJOB_NONE)
			continue;
		*j = (struct setjob){ .set = set, .kind = kind };
		e->setjobs.count++;
		return (j);
	}
	return (NULL);
}

void
setjob_committed(struct mkv_engine *e, struct mkv_set_id set, uint32_t end)
{
	struct setjob *j = setjob_find(e, set);

	if (e->readonly || (j == NULL && (j = setjob_new(e, SETJOB_COMMIT, set)) == NULL) || j->kind != SETJOB_COMMIT)
		return;
	j->end = MKV_MAX(j->end, end);
	setjob_run(e, j);
}

void
setjob_free(struct mkv_engine *e, uint64_t mask, struct mkv_set_id set, uint32_t end)
{
	struct setjob *j = setjob_find(e, set);

	if (e->readonly || (j == NULL && (j = setjob_new(e, SETJOB_FREE, set)) == NULL))
		return;
	if (j->kind == SETJOB_COMMIT)
		*j = (struct setjob){ .set = set, .kind = SETJOB_FREE };
	j->mask |= mask;
	j->end = MKV_MAX(j->end, end);
	setjob_run(e, j);
}

void
setjob_turn(struct mkv_engine *e)
{
	struct setjobs *s = &e->setjobs;

	s->left = s->left_aborts = e->o.set_step ? e->o.set_step : SET_STEP;
	if (e->readonly && s->count > 0) {
		memset(s->job, 0, sizeof(s->job));
		s->count = 0;
	}
	req_wake_list(&s->wait, 1);
	if (!mkv_list_empty(&s->wait))
		e->more = 1;
	/* Each turn begins with another one. */
	for (uint32_t n = 0; n < SETJOBS_MAX && s->count > 0; n++) {
		struct setjob *j = &s->job[(s->hand + n) % SETJOBS_MAX];

		if (j->kind != SETJOB_NONE)
			setjob_run(e, j);
	}
	s->hand++;
}

int
setjob_next(const struct mkv_engine *e)
{
	return (e->setjobs.count > 0);
}

int
setjob_abort(struct mkv_req *r, struct mkv_set_id set, uint32_t *from, uint32_t end)
{
	struct setjobs *s = &r->e->setjobs;
	int err = setjob_drop(r->e, set, from, end, 1, &s->left_aborts);

	if (err == SETJOB_MORE) {
		req_park(r, &s->wait);
		r->e->more = 1;
	} else if (s->left_aborts > 0)
		req_wake_list(&s->wait, 1);
	return (err);
}

void
setjob_replay_committed(struct mkv_engine *e, struct mkv_set_id set, uint32_t end)
{
	uint32_t *left = &e->setjobs.left_replay;
	struct look l;

	if (end > *left)
		return;
	for (uint32_t from = 0; from < end; from += l.n) {
		look_begin(e, &l, set, from, end, left);
		(void)look_mark(e, &l);
	}
}
