/*
 * Process: supervisor, loop thread.
 * Owns: nothing; it changes rows that are state.c's and pool.c's. A drive is a row of the pool map by its uuid, and paths are where it is looked for: after a
 * restart of the host, or plugged in again, it may have another one. A drive process whose medium is another row's says so and writes nothing:
 *
 *	that other drive is in service, or what it is looked for at is there: a copy, refused with both names
 *	it is not there, or its place has another row's drive: the two rows exchange their media, and who has one now starts
 *	neither is known yet: held, and asked again
 *
 * Invariant: a row changes its medium only while neither process of the two lives. Each exchange puts one row right, so it ends.
 */
#include "config.h"

#include "supervisor/sup_priv.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "common/base/assert.h"
#include "common/base/log.h"

/* Row of that uuid but this one; -1: none. */
static int
moved_row(const struct mkv_sup *s, uint32_t not, const uint8_t *uuid)
{
	for (uint32_t i = 0; i < s->drive_count; i++)
		if (i != not && pool_row(s, i)->known && memcmp(pool_row(s, i)->uuid, uuid, 16) == 0)
			return ((int)i);
	return (-1);
}

/* Certainly not at its place, and nobody is looking. One that was removed has no place, and begins empty. */
static int
moved_away(const struct mkv_sup *s, uint32_t i)
{
	enum child_state state = s->proc[s->front_count + i].child.state;

	if ((state == CHILD_BACKOFF && s->pool[i].found != 0) || (state == CHILD_STOPPED && pool_row(s, i)->state == MKV_DRIVE_REMOVED))
		return (1);
	return ((state == CHILD_STOPPED || state == CHILD_FATAL || state == CHILD_BACKOFF) && access(s->conf->drive[i].media, F_OK) != 0);
}

/* It will be known soon whether it is there. */
static int
moved_unsure(const struct mkv_sup *s, uint32_t i)
{
	enum child_state state = s->proc[s->front_count + i].child.state;

	return (!s->pool[i].ready && !s->pool[i].drain_late && (state == CHILD_STARTING || state == CHILD_BACKOFF));
}

int
moved_taken(struct proc *p, const uint8_t *uuid)
{
	struct mkv_sup *s = p->sup;
	int k = moved_row(s, p->index, uuid);

	if (k < 0)
		return (0);
	snprintf(p->why, sizeof(p->why), "%.255s has the uuid of %s at %.255s: is it a copy? If the drive was moved, nothing may be left at its former place",
	    s->conf->drive[p->index].media, sup_drive(s, (uint32_t)k)->child.name, s->conf->drive[k].media);
	return (1);
}

void
moved_found(struct proc *p, const uint8_t *uuid)
{
	struct mkv_sup *s = p->sup;
	int k = moved_row(s, p->index, uuid);

	if (k < 0 || !moved_taken(p, uuid))
		return;
	if (!moved_away(s, (uint32_t)k) && !moved_unsure(s, (uint32_t)k))
		return;
	s->pool[p->index].found = (uint32_t)k + 1;
	p->child.final = 0;
	p->child.held = 1;
}

/* It was put out of service in this life of the server, which has not served yet: it has missed nothing. */
static void
moved_missed_nothing(struct mkv_sup *s, uint32_t i)
{
	const struct mkv_map_row *saved = &s->state.drive[i].saved;

	if (s->pool_open || s->map_adopted || !saved->known || mkv_drive_away(saved->state) || !mkv_drive_away(pool_row(s, i)->state))
		return;
	pool_row(s, i)->state = saved->state;
	pool_row(s, i)->since = saved->since;
	s->pool[i].log_lost = 0;
}

static void
moved_exchange(struct mkv_sup *s, uint32_t i, uint32_t k)
{
	struct state_drive *a = &s->state.drive[i], *b = &s->state.drive[k], t = *a;
	int holds = s->pool[k].found != 0;	/* there is something where k was looked for: i's, or a third one's */
	char why[640];

	memcpy(a->media, b->media, sizeof(a->media));
	memcpy(b->media, t.media, sizeof(b->media));
	a->max_size = b->max_size;
	b->max_size = t.max_size;
	a->added = b->added;
	b->added = t.added;
	s->pool[k].wanted = 1;
	s->pool[i].wanted = holds;
	s->pool[k].replaces = s->pool[i].replaces;
	s->pool[i].replaces = s->pool[i].found = s->pool[k].found = 0;
	pool_configure(s, i);
	pool_configure(s, k);
	mkv_log(MKV_EV_NOTE, "child=%s media=%s was=%s text=%s", sup_drive(s, k)->child.name, b->media, a->media, "the drive was found at another place");
	snprintf(sup_drive(s, i)->why, sizeof(sup_drive(s, i)->why), "%s is drive:%u, which goes on there", t.media, k);
	if (pool_row(s, k)->state == MKV_DRIVE_REMOVED)
		pool_bring_back(s, k);
	moved_missed_nothing(s, k);
	(void)peers_save(s, why, sizeof(why));
}

static void
moved_start(struct mkv_sup *s, uint32_t i)
{
	if (s->pool[i].wanted)
		(void)child_start(&sup_drive(s, i)->child);
	else
		child_stop(&sup_drive(s, i)->child);
}

/* Called after a child changed its state, and not from within that. */
void
moved_step(struct mkv_sup *s)
{
	if (s->phase >= SUP_STOPPING_FRONTS)
		return;
	for (uint32_t i = 0; i < s->drive_count; i++) {
		uint32_t k = s->pool[i].found - 1;

		if (s->pool[i].found == 0 || sup_drive(s, i)->child.state != CHILD_BACKOFF || !moved_away(s, k))
			continue;
		moved_exchange(s, i, k);
		moved_start(s, k);
		moved_start(s, i);
	}
}
