/*
 * Leases: objects that a client was promised for a while. Drive's loop thread; owns a table of records and a wheel of lists.
 *
 * A leased entry is in no queue of the policy: its q_prev is the number of its record + 1. The record is in the list of the tick at which the lease ends;
 * then the entry goes back, as if it had just been read. No lease is longer than the wheel. Deletes, overwrites and times to live go on: a lease only keeps
 * the policy away. Neither the table nor LEASE_PART of the data area is exceeded: what finds no room is not leased, and the answer says so.
 *
 * Not one lease is stored. The latest end, rounded up, is in the journal before an answer names a lease; after a restart the policy evicts nothing until
 * then. Without leases nobody waits.
 */
#include "config.h"

#include <stdlib.h>
#include <string.h>

#include "common/base/err.h"
#include "worker/drive/engine_priv.h"

#define LEASE_MS_MAX	60000u
#define LEASE_TICK_NS	(100 * MKV_NS_PER_MS)
#define LEASE_WHEEL	1024u			/* ticks: longer than a lease */
#define LEASE_PART	2u			/* leased objects take at most one part in so many */
#define LEASE_STEP_MAX	1024u			/* ended in one turn */
#define LEASE_ROUND_MS	10000u			/* of the end in the journal: so seldom is it written */

_Static_assert(LEASE_WHEEL * 100 > LEASE_MS_MAX + 1000, "no lease goes round");

int
lease_init(struct mkv_engine *e)
{
	struct leases *l = &e->lease;

	if ((l->rec = calloc(LEASES_MAX, sizeof(*l->rec))) == NULL || (l->wheel = calloc(LEASE_WHEEL, sizeof(*l->wheel))) == NULL)
		return (MKV_E_NOMEM);
	for (uint32_t i = 0; i < LEASES_MAX; i++)
		l->rec[i].next = i + 2 <= LEASES_MAX ? i + 2 : 0;
	l->free = 1;
	l->tick = eng_now(e) / LEASE_TICK_NS;
	return (0);
}

void
lease_fini(struct mkv_engine *e)
{
	free(e->lease.rec);
	free(e->lease.wheel);
	memset(&e->lease, 0, sizeof(e->lease));
}

static void
lease_link(struct leases *l, uint32_t n, uint64_t end)
{
	struct lease *rec = &l->rec[n - 1];
	uint32_t *head = &l->wheel[end % LEASE_WHEEL];

	rec->end = end;
	rec->prev = 0;
	rec->next = *head;
	if (*head != 0)
		l->rec[*head - 1].prev = n;
	*head = n;
}

static void
lease_unlink(struct leases *l, uint32_t n)
{
	struct lease *rec = &l->rec[n - 1];

	if (rec->prev != 0)
		l->rec[rec->prev - 1].next = rec->next;
	else
		l->wheel[rec->end % LEASE_WHEEL] = rec->next;
	if (rec->next != 0)
		l->rec[rec->next - 1].prev = rec->prev;
}

void
lease_drop(struct mkv_engine *e, uint32_t i)
{
	struct leases *l = &e->lease;
	struct mkv_ent *en = eng_ent(e, i);
	uint32_t n = en->q_prev;

	if ((en->flags & MKV_ENT_LEASED) == 0)
		return;
	MKV_ASSERT(n > 0 && n <= LEASES_MAX && l->rec[n - 1].ent == i);
	lease_unlink(l, n);
	l->rec[n - 1].next = l->free;
	l->free = n;
	l->count--;
	l->units -= l->rec[n - 1].units;
	en->flags &= (uint16_t)~MKV_ENT_LEASED;
	en->q_prev = 0;
}

/* A first lease of an entry that is in a queue. */
static int
lease_new(struct mkv_engine *e, uint32_t i, uint64_t end)
{
	struct leases *l = &e->lease;
	struct mkv_ent *en = eng_ent(e, i);
	uint64_t units = ent_pin_units(e, en);
	uint32_t n = l->free;

	if (n == 0 || l->units + units > e->al.units / LEASE_PART)
		return (0);
	mkv_policy_remove(&e->pol, i);
	l->free = l->rec[n - 1].next;
	l->rec[n - 1].ent = i;
	l->rec[n - 1].units = units;
	lease_link(l, n, end);
	l->count++;
	l->units += units;
	en->flags |= MKV_ENT_LEASED;
	en->q_prev = n;
	en->rank = 0;
	return (1);
}

int
lease_grant(struct mkv_engine *e, uint32_t i, uint32_t ms)
{
	struct leases *l = &e->lease;
	struct mkv_ent *en = eng_ent(e, i);
	uint64_t end = MKV_DIV_UP(eng_now(e) + MKV_MIN(ms, LEASE_MS_MAX) * MKV_NS_PER_MS, LEASE_TICK_NS) + 1;
	uint32_t n = en->q_prev;

	if (en->flags & MKV_ENT_PIN)
		return (1);
	if ((en->flags & MKV_ENT_LEASED) == 0)
		return (lease_new(e, i, end));
	if (end > l->rec[n - 1].end) {
		lease_unlink(l, n);
		lease_link(l, n, end);
	}
	return (1);
}

/* The promise before the answer. 0; MKV_E_AGAIN: r is parked, and comes again. */
int
lease_promise(struct mkv_req *r, uint32_t ms)
{
	struct mkv_engine *e = r->e;
	uint64_t until = r->wall_ms + MKV_MIN(ms, LEASE_MS_MAX);
	struct mkv_jlease j = { .until_ms = MKV_DIV_UP(until, (uint64_t)LEASE_ROUND_MS) * LEASE_ROUND_MS };
	static const struct mkv_digest none;
	int err;

	if (until > e->lease.until_ms) {
		if ((err = journal_room(e, sizeof(j), 0)) == MKV_E_AGAIN)
			req_park(r, &e->jn.wait);
		if (err != 0)
			return (err);
		e->lease.until_ms = j.until_ms;
		e->lease.seq = journal_append(e, MKV_J_LEASE, none, 0, 0, 0, &j, sizeof(j));
	}
	if (e->lease.seq <= e->jn.flushed)
		return (0);
	if ((err = journal_sync_req(r)) < 0)
		return (err);
	r->state = RQ_FLUSH;
	return (err == 1 ? 0 : MKV_E_AGAIN);
}

void
lease_recovered(struct mkv_engine *e, uint64_t until_ms)
{
	e->lease.until_ms = MKV_MAX(e->lease.until_ms, until_ms);
}

/* After recovery. A clock that was set back since must not stop evictions for longer than a lease can last. */
void
lease_barrier(struct mkv_engine *e)
{
	uint64_t wall = eng_wall(e);

	e->lease.barrier_ms = MKV_MIN(e->lease.until_ms, wall + LEASE_MS_MAX + LEASE_ROUND_MS);
	e->lease.until_ms = e->lease.barrier_ms;
}

/* May the policy evict, or is there a lease of an earlier life? */
int
lease_evict_ok(const struct mkv_engine *e)
{
	return (e->lease.barrier_ms == 0 || eng_wall(e) >= e->lease.barrier_ms);
}

void
lease_step(struct mkv_engine *e)
{
	struct leases *l = &e->lease;
	uint64_t now = eng_now(e) / LEASE_TICK_NS;
	unsigned n = 0;

	if (l->count == 0) {
		l->tick = now;
		return;
	}
	for (; l->tick <= now && n < LEASE_STEP_MAX; l->tick++) {
		uint32_t at;

		while ((at = l->wheel[l->tick % LEASE_WHEEL]) != 0 && n++ < LEASE_STEP_MAX) {
			uint32_t i = l->rec[at - 1].ent;

			lease_drop(e, i);
			mkv_policy_touch(&e->pol, i);
			mkv_policy_restore(&e->pol, i);
		}
		if (at != 0)
			break;
	}
}
