/*
 * Process: supervisor, loop thread.
 * Owns: the pool map: the rows that are decided (state.drive[].row, state.map_version), the map that fronts go by (served), and a drive's way back.
 *
 *	decide	version + 1, to the drives in service -> each says MAP_STORED (fence: docs/internals/pool.md) -> served = decided, saved, to the fronts
 *
 *	a drive leaves	ONLINE, DRAINING -> FAILED, ABSENT, REMOVED: decide
 *	comes back, and nobody knows what was written meanwhile: its process begins with forget_all; READY -> ONLINE: decide
 *	comes back, and the others have the log:
 *		FENCE: decide without a change -> all stored: what they log is final -> LOGS: ask each, pass on as FORGET -> APPLY: the map to the drive
 *		-> MAP_STORED: ONLINE: decide. Nothing is served in between, so writes wait. Whatever goes wrong: forget_all.
 *
 * Invariants: fronts hear a version only when every drive in service that runs has kept it; a drive in service that has missed one placement and
 * would miss a second is out of service; numbers of rows are for ever. Before all drives have come or are settled nothing is served, so that the
 * largest version any of them has kept is known.
 * What can fail: the state file; then the version is told all the same, as the drives have it.
 */
#include "config.h"

#include "supervisor/sup_priv.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/assert.h"
#include "common/base/err.h"
#include "common/base/hash.h"
#include "common/base/log.h"

static int
pool_serves(const struct mkv_sup *s, uint32_t i)
{
	uint8_t state = pool_row(s, i)->state;

	return (state == MKV_DRIVE_ONLINE || state == MKV_DRIVE_DRAINING);
}

static int
pool_ready(const struct mkv_sup *s, uint32_t i)
{
	return (s->pool[i].ready && s->pool[i].stored == s->state.map_version);
}

enum mkv_drive_state
pool_state(const struct mkv_sup *s, uint32_t i)
{
	enum mkv_drive_state state = pool_row(s, i)->state;

	if (state == MKV_DRIVE_ONLINE && (!s->pool[i].ready || s->pool[i].stored == 0))
		return (MKV_DRIVE_RESTARTING);
	return (state);
}

uint32_t
pool_online(const struct mkv_sup *s)
{
	uint32_t n = 0;

	for (uint32_t i = 0; i < s->drive_count; i++)
		n += pool_state(s, i) == MKV_DRIVE_ONLINE;
	return (n);
}

int
pool_gone(const struct proc *p)
{
	return (proc_is_drive(p) && pool_row(p->sup, p->index)->state == MKV_DRIVE_REMOVED);
}

uint32_t
pool_removed(const struct mkv_sup *s)
{
	uint32_t n = 0;

	for (uint32_t i = 0; i < s->drive_count; i++)
		n += pool_row(s, i)->state == MKV_DRIVE_REMOVED;
	return (n);
}

/* Another drive can take new keys. */
int
pool_others(const struct mkv_sup *s, uint32_t drive)
{
	for (uint32_t i = 0; i < s->drive_count; i++)
		if (i != drive && pool_state(s, i) == MKV_DRIVE_ONLINE)
			return (1);
	return (0);
}

/* ---- Telling --------------------------------------------------------------------------------------------------------------- */

struct pool_message {
	Mkv__Ctl__Control m;
	Mkv__Ctl__PoolMap body;
	Mkv__Ctl__PoolDrive row[MKV_MAP_DRIVES_MAX], *rows[MKV_MAP_DRIVES_MAX];
};

static void
pool_message(struct pool_message *p, uint64_t version, uint32_t n)
{
	mkv__ctl__control__init(&p->m);
	mkv__ctl__pool_map__init(&p->body);
	p->m.body_case = MKV__CTL__CONTROL__BODY_POOL_MAP;
	p->m.pool_map = &p->body;
	p->body.version = version;
	p->body.n_drives = n;
	p->body.drives = p->rows;
}

static void
pool_message_row(struct pool_message *p, uint32_t i, const struct mkv_map_row *r, enum mkv_drive_state state)
{
	Mkv__Ctl__PoolDrive *d = p->rows[i] = &p->row[i];

	mkv__ctl__pool_drive__init(d);
	d->index = i;
	d->uuid = (ProtobufCBinaryData){ .len = r->known ? sizeof(r->uuid) : 0, .data = (uint8_t *)(uintptr_t)r->uuid };
	d->weight = r->weight;
	d->former = r->former;
	d->since = r->since;
	d->state = (Mkv__Ctl__DriveState)state;
}

/* What is decided, to a drive: it keeps it. */
static void
pool_tell_drive(struct mkv_sup *s, uint32_t drive)
{
	struct pool_message p;

	if (s->state.map_version == 0)
		return;				/* its READY makes the first one */
	pool_message(&p, s->state.map_version, s->drive_count);
	for (uint32_t i = 0; i < s->drive_count; i++)
		pool_message_row(&p, i, pool_row(s, i), pool_row(s, i)->state);
	if (proc_reachable(sup_drive(s, drive)))
		proc_send(sup_drive(s, drive), &p.m, NULL, 0);
}

/* What fronts see of a row: as it was decided when its version was served; a drive that left since then is waited for until that is served as well. */
static enum mkv_drive_state
pool_seen_state(const struct mkv_sup *s, uint32_t i)
{
	enum mkv_drive_state state = s->served.row[i].state;

	return (state == MKV_DRIVE_ONLINE && (!pool_serves(s, i) || !s->pool[i].ready) ? MKV_DRIVE_RESTARTING : state);
}

/* to NULL: all fronts. */
static void
pool_tell_fronts(struct mkv_sup *s, struct proc *to)
{
	struct pool_message p;

	if (!s->pool_open)
		return;
	pool_message(&p, s->served.version, s->served.n);
	for (uint32_t i = 0; i < s->served.n; i++)
		pool_message_row(&p, i, &s->served.row[i], pool_seen_state(s, i));
	for (uint32_t i = 0; i < s->front_count; i++)
		if ((to == NULL || to == sup_front(s, i)) && proc_reachable(sup_front(s, i)))
			proc_send(sup_front(s, i), &p.m, NULL, 0);
}

void
pool_catch_up(struct proc *p)
{
	if (!proc_is_drive(p))
		pool_tell_fronts(p->sup, p);
	else if (pool_serves(p->sup, p->index))
		pool_tell_drive(p->sup, p->index);
}

/* ---- Deciding -------------------------------------------------------------------------------------------------------------- */

static void
pool_decided(const struct mkv_sup *s, struct mkv_map *m)
{
	memset(m, 0, sizeof(*m));
	m->version = s->state.map_version;
	m->n = s->drive_count;
	for (uint32_t i = 0; i < m->n; i++)
		m->row[i] = *pool_row(s, i);
}

static int
pool_same_place(const struct mkv_map *a, const struct mkv_map *b)
{
	struct mkv_place pa = { 0 }, pb = { 0 };

	mkv_place_of(&pa, a, 0);
	mkv_place_of(&pb, b, 0);
	return (memcmp(&pa, &pb, sizeof(pa)) == 0);
}

static void
pool_mark_out(struct mkv_sup *s, uint32_t i, enum mkv_drive_state state)
{
	struct mkv_map_row *row = pool_row(s, i);

	mkv_log(MKV_EV_POOL, "child=%s state=%s version=%" PRIu64, sup_drive(s, i)->child.name, mkv_drive_state_name(state),
	    s->state.map_version + 1);
	if (pool_serves(s, i)) {
		row->since = s->state.map_version + 1;
		s->pool[i].log_lost = 0;
	}
	row->state = (uint8_t)state;
}

/* The placement changes: who has not even kept the present one does not know what moved in between. */
static void
pool_leave_behind(struct mkv_sup *s)
{
	for (uint32_t i = 0; i < s->drive_count; i++)
		if (pool_serves(s, i) && !s->pool[i].ready && s->pool_open && s->pool[i].kept < s->place_version) {
			pool_mark_out(s, i, MKV_DRIVE_FAILED);
			s->pool[i].log_lost = 1;
		}
}

static void
pool_decide(struct mkv_sup *s)
{
	struct mkv_map now;

	pool_decided(s, &now);
	if (!pool_same_place(&now, &s->served)) {
		pool_leave_behind(s);
		pool_decided(s, &now);
	}
	for (uint32_t i = 0; i < s->drive_count; i++) {
		const struct mkv_map_row *was = i < s->served.n ? &s->served.row[i] : NULL;

		if (was == NULL)
			pool_row(s, i)->former = 0;
		else if (pool_same_place(&now, &s->served))
			pool_row(s, i)->former = was->former;
		else
			pool_row(s, i)->former = was->known && mkv_drive_places(was->state) ? was->weight : 0;
	}
	s->state.map_version++;
	if (s->join != POOL_JOIN_NONE)
		s->join = POOL_JOIN_FENCE;
	for (uint32_t i = 0; i < s->drive_count; i++)
		if (pool_serves(s, i))
			pool_tell_drive(s, i);
}

/* ---- A drive's way back ---------------------------------------------------------------------------------------------------- */

static void
pool_let_in(struct mkv_sup *s, uint32_t i)
{
	struct pool_drive *d = &s->pool[i];

	pool_row(s, i)->state = MKV_DRIVE_ONLINE;
	pool_row(s, i)->since = 0;
	mkv_log(MKV_EV_POOL, "child=%s state=%s version=%" PRIu64, sup_drive(s, i)->child.name, "online", s->state.map_version + 1);
	if (d->replaces != 0 && pool_serves(s, d->replaces - 1))
		pool_mark_out(s, d->replaces - 1, MKV_DRIVE_DRAINING);
	else if (d->replaces != 0)
		pool_mark_out(s, d->replaces - 1, MKV_DRIVE_REMOVED);
	d->replaces = 0;
	pool_decide(s);
}

/* The others do not have all that was written while it was away. */
static void
pool_join_fail(struct mkv_sup *s)
{
	struct proc *p = sup_drive(s, s->joiner);

	s->join = POOL_JOIN_NONE;
	s->pool[s->joiner].log_lost = 1;
	s->pool[s->joiner].ready = 0;
	mkv_log(MKV_EV_NOTE, "child=%s text=%s", p->child.name, "what was written while it was away is not known: it begins empty");
	if (p->life != NULL && !p->life->broken)
		p->child.forgiven = 1;
	proc_break(p, "begins again, empty");
}

/* All logs have been passed on. Where nobody was in service there was none: who served while the joiner was away has set its log_lost by leaving. */
static void
pool_join_apply(struct mkv_sup *s)
{
	for (uint32_t i = 0; i < s->drive_count; i++)
		if (s->pool[i].asked)
			return;
	s->join = POOL_JOIN_APPLY;
	pool_tell_drive(s, s->joiner);
}

static void
pool_ask_logs(struct mkv_sup *s)
{
	Mkv__Ctl__AwayAsk body = MKV__CTL__AWAY_ASK__INIT;
	Mkv__Ctl__Control m = MKV__CTL__CONTROL__INIT;

	m.body_case = MKV__CTL__CONTROL__BODY_AWAY_ASK;
	m.away_ask = &body;
	body.since = pool_row(s, s->joiner)->since;
	s->join = POOL_JOIN_LOGS;
	for (uint32_t i = 0; i < s->drive_count; i++) {
		s->pool[i].asked = pool_serves(s, i);
		if (s->pool[i].asked && !s->pool[i].ready) {
			pool_join_fail(s);
			return;
		}
		if (s->pool[i].asked)
			proc_send(sup_drive(s, i), &m, NULL, 0);
	}
	pool_join_apply(s);
}

void
pool_on_log(struct proc *drive, const Mkv__Ctl__AwayLog *l)
{
	struct mkv_sup *s = drive->sup;
	Mkv__Ctl__Forget body = MKV__CTL__FORGET__INIT;
	Mkv__Ctl__Control m = MKV__CTL__CONTROL__INIT;

	if (s->join != POOL_JOIN_LOGS || !s->pool[drive->index].asked || l->since != pool_row(s, s->joiner)->since)
		return;
	if (!l->whole) {
		pool_join_fail(s);
		pool_step(s);
		return;
	}
	m.body_case = MKV__CTL__CONTROL__BODY_FORGET;
	m.forget = &body;
	body.digests = l->digests;
	if (l->digests.len > 0)
		proc_send(sup_drive(s, s->joiner), &m, NULL, 0);
	if (!l->last)
		return;
	s->pool[drive->index].asked = 0;
	pool_join_apply(s);
}

/* A drive that runs and is out of service: in at once if it begins empty, else by the logs, one after the other. */
static void
pool_admit(struct mkv_sup *s)
{
	for (uint32_t i = 0; i < s->drive_count && s->join == POOL_JOIN_NONE; i++) {
		struct pool_drive *d = &s->pool[i];

		if (!d->ready || !mkv_drive_away(pool_row(s, i)->state))
			continue;
		if (d->forgot) {
			pool_let_in(s, i);
			continue;
		}
		s->joiner = i;
		if (d->log_lost) {
			pool_join_fail(s);
			continue;
		}
		s->join = POOL_JOIN_FENCE;
		pool_decide(s);
	}
}

/* ---- Serving --------------------------------------------------------------------------------------------------------------- */

static int
pool_all_stored(const struct mkv_sup *s)
{
	for (uint32_t i = 0; i < s->drive_count; i++)
		if (pool_serves(s, i) && s->pool[i].ready && s->pool[i].stored != s->state.map_version)
			return (0);
	return (1);
}

/* Every drive has come, or is known not to come. */
static int
pool_settled(const struct mkv_sup *s)
{
	for (uint32_t i = 0; i < s->drive_count; i++)
		if (s->pool[i].wanted && !s->pool[i].ready && (pool_serves(s, i) || child_coming_back(&s->proc[s->front_count + i].child)) &&
		    !s->pool[i].drain_late && s->proc[s->front_count + i].child.state != CHILD_FATAL)
			return (0);
	return (1);
}

static void
pool_serve(struct mkv_sup *s)
{
	struct mkv_map now;
	char why[640];

	pool_decided(s, &now);
	state_take_map(&s->state);
	(void)peers_save(s, why, sizeof(why));
	if (!pool_same_place(&now, &s->served) || !s->pool_open)
		s->place_version = now.version;
	s->served = now;
	s->pool_open = 1;
	mkv_log(MKV_EV_POOL_SERVED, "version=%" PRIu64 " online=%" PRIu32, now.version, pool_online(s));
	pool_tell_fronts(s, NULL);
}

/* Whatever can go on now. Called after everything that may have moved something. */
void
pool_step(struct mkv_sup *s)
{
	if (s->phase >= SUP_STOPPING_FRONTS)
		return;
	if (s->pool_open || pool_settled(s))
		pool_admit(s);
	if (!pool_all_stored(s) || (!s->pool_open && (!pool_settled(s) || pool_online(s) == 0)))
		return;
	if (s->join == POOL_JOIN_FENCE)
		pool_ask_logs(s);
	if (s->join == POOL_JOIN_NONE && pool_all_stored(s) && (!s->pool_open || s->served.version != s->state.map_version))
		pool_serve(s);
}

int
pool_served(const struct mkv_sup *s)
{
	return (s->pool_open && s->served.version == s->state.map_version);
}

/* ---- What happens to drives ------------------------------------------------------------------------------------------------ */

void
pool_out(struct mkv_sup *s, uint32_t i, enum mkv_drive_state state)
{
	int served = pool_serves(s, i);
	char why[640];

	if (pool_row(s, i)->state == state || pool_row(s, i)->state == MKV_DRIVE_REMOVED)
		return;
	pool_mark_out(s, i, state);
	if (served || state == MKV_DRIVE_REMOVED)
		pool_decide(s);
	else if (pool_served(s)) {
		state_take_map(&s->state);
		(void)peers_save(s, why, sizeof(why));
	}
	pool_step(s);
}

void
pool_on_stored(struct proc *drive, uint64_t version)
{
	struct mkv_sup *s = drive->sup;
	struct pool_drive *d = &s->pool[drive->index];

	d->stored = version;
	d->kept = MKV_MAX(d->kept, version);
	if (s->join == POOL_JOIN_APPLY && drive->index == s->joiner && version == s->state.map_version) {
		s->join = POOL_JOIN_NONE;
		pool_let_in(s, drive->index);
	}
	pool_step(s);
	pool_tell_fronts(s, NULL);
	sup_on_change(s);
}

/* Its process has ended, or is about to and is not spoken to any more. */
void
pool_on_death(struct mkv_sup *s, uint32_t i)
{
	struct pool_drive *d = &s->pool[i];
	int was = d->ready;

	d->ready = d->forgot = 0;
	d->stored = 0;
	if (!was || s->phase >= SUP_STOPPING_FRONTS)
		return;
	if (pool_serves(s, i))
		for (uint32_t k = 0; k < s->drive_count; k++)
			s->pool[k].log_lost |= mkv_drive_away(pool_row(s, k)->state);
	if (s->join != POOL_JOIN_NONE && s->joiner == i)
		s->join = POOL_JOIN_NONE;
	else if (s->join != POOL_JOIN_NONE && pool_serves(s, i))
		pool_join_fail(s);
	pool_tell_fronts(s, NULL);
	pool_step(s);
}

/* A medium carries a later version than the state file: that one was served. */
static void
pool_adopt(struct mkv_sup *s, const Mkv__Ctl__PoolMap *m)
{
	if (m == NULL || m->version <= s->state.map_version || s->pool_open)
		return;
	mkv_log(MKV_EV_NOTE, "version=%" PRIu64 " on_medium=%" PRIu64 " text=%s", s->state.map_version, m->version,
	    "a medium has a later pool map than the state file");
	for (size_t i = 0; i < m->n_drives && i < s->drive_count; i++) {
		const Mkv__Ctl__PoolDrive *from = m->drives[i];
		struct mkv_map_row *row = pool_row(s, (uint32_t)i);

		if (!row->known || from->uuid.len != sizeof(row->uuid) || memcmp(from->uuid.data, row->uuid, sizeof(row->uuid)) != 0 ||
		    (unsigned)from->state >= MKV_DRIVE_STATES)
			continue;
		if (!mkv_drive_away(row->state))
			row->state = (uint8_t)from->state;
		row->since = MKV_MAX(row->since, from->since);
		row->weight = from->weight;
		row->former = from->former;
		s->pool[i].log_lost |= mkv_drive_away(row->state);
	}
	s->map_adopted = 1;
	s->state.map_version = m->version;
	pool_decided(s, &s->served);
	for (uint32_t i = 0; i < s->drive_count; i++)
		if (pool_serves(s, i))
			pool_tell_drive(s, i);
}

/* What READY says of the medium. Returns whether the map changes by it. */
static int
pool_learn(struct mkv_sup *s, uint32_t i, const Mkv__Ctl__Ready *r)
{
	struct pool_drive *d = &s->pool[i];
	struct mkv_map_row *row = pool_row(s, i);
	double weight = s->conf->drive[i].weight * (double)r->total_bytes;
	int same = row->known && memcmp(row->uuid, r->drive_uuid.data, sizeof(row->uuid)) == 0;

	if (row->known && !same)
		mkv_log(MKV_EV_NOTE, "child=%s text=%s", sup_drive(s, i)->child.name, "another medium is in the place of the former one");
	d->total_bytes = r->total_bytes;
	d->used_bytes = r->used_bytes;
	if (same && row->weight == weight)
		return (0);
	memcpy(row->uuid, r->drive_uuid.data, sizeof(row->uuid));
	row->known = 1;
	row->weight = weight;
	return (1);
}

void
pool_on_ready(struct proc *drive, const Mkv__Ctl__Ready *r)
{
	struct mkv_sup *s = drive->sup;
	struct pool_drive *d = &s->pool[drive->index];
	int changed;

	pool_adopt(s, r->map);
	changed = pool_learn(s, drive->index, r);
	d->ready = 1;
	d->forgot = drive->life->forget_all;
	d->found = 0;
	d->kept = r->map != NULL ? r->map->version : 0;
	if (changed && pool_serves(s, drive->index))
		pool_decide(s);
	pool_step(s);
	pool_tell_fronts(s, NULL);
}

void
pool_purged(struct mkv_sup *s, uint32_t i)
{
	s->pool[i].log_lost |= mkv_drive_away(pool_row(s, i)->state);
	if (s->join != POOL_JOIN_NONE && s->joiner == i)
		pool_join_fail(s);
}

/* Begin empty? Asked when its process is configured. */
int
pool_forgets(const struct mkv_sup *s, uint32_t i)
{
	return (mkv_drive_away(pool_row(s, i)->state) && s->pool[i].log_lost);
}

void
pool_on_state(struct proc *p)
{
	struct mkv_sup *s = p->sup;

	if (p->child.state != CHILD_RUNNING)
		pool_on_death(s, p->index);
	if (s->phase >= SUP_STOPPING_FRONTS)
		return;
	if (p->child.state == CHILD_FATAL) {
		pool_out(s, p->index, MKV_DRIVE_FAILED);
		pool_step(s);			/* it may have been the last that a start waited for, and out already in its life before */
	} else if (p->child.state == CHILD_STOPPED && !p->child.start_again)
		pool_out(s, p->index, MKV_DRIVE_ABSENT);
}

/* Called every second: a drive that is drained and empty is done. */
void
pool_tick(struct mkv_sup *s)
{
	for (uint32_t i = 0; i < s->drive_count; i++) {
		const struct proc *p = sup_drive(s, i);

		if (pool_row(s, i)->state == MKV_DRIVE_DRAINING && pool_ready(s, i) && pool_served(s) &&
		    mkv_metric_get(p->metrics, MKV_M_drive_objects, 0) == 0)
			pool_remove(s, i);
	}
}

/* ---- What an operator asks for --------------------------------------------------------------------------------------------- */

void
pool_remove(struct mkv_sup *s, uint32_t i)
{
	s->pool[i].wanted = 0;
	s->pool[i].replaces = 0;		/* withdrawn: it would drain the other one if it were added again */
	pool_out(s, i, MKV_DRIVE_REMOVED);
	child_stop(&sup_drive(s, i)->child);
	sup_on_change(s);
}

const char *
pool_drain(struct mkv_sup *s, uint32_t i)
{
	if (pool_row(s, i)->state == MKV_DRIVE_DRAINING)
		return (NULL);
	if (pool_state(s, i) != MKV_DRIVE_ONLINE)
		return ("only a drive that is online can be drained; remove takes out one that is not");
	if (!pool_others(s, i))
		return ("no other drive is online to take its keys");
	pool_mark_out(s, i, MKV_DRIVE_DRAINING);
	pool_decide(s);
	pool_step(s);
	return (NULL);
}

void
pool_bring_back(struct mkv_sup *s, uint32_t i)
{
	struct mkv_map_row *row = pool_row(s, i);

	row->state = MKV_DRIVE_ABSENT;
	row->since = MKV_MAX(row->since, 1ull);
	s->pool[i].wanted = 1;
	s->pool[i].log_lost = 1;
}

/* A new row, or that of a drive that was removed. The caller makes its process. */
int
pool_add(struct mkv_sup *s, const char *media, uint64_t max_size, double factor, uint32_t *idx, const char **why)
{
	struct state_drive *sd;
	uint32_t before = s->state.drive_count;

	*why = "there are 64 drives already, counting those that were removed; of them only one that never served makes room when it is removed";
	if ((sd = state_drive(&s->state, media)) == NULL)
		return (MKV_E_NOSPACE);
	*idx = (uint32_t)(sd - s->state.drive);
	*why = "it is in the map already: memkvctl drive list shows it; memkvctl start tries it again, drive remove takes it out";
	if (*idx < before && s->pool[*idx].wanted)
		return (MKV_E_EXISTS);
	sd->added = 1;
	sd->max_size = max_size;
	sd->factor = factor;
	pool_bring_back(s, *idx);
	pool_configure(s, *idx);
	return (0);
}

int
pool_locate(const struct mkv_sup *s, const char *ns, const char *key, int *former)
{
	uint8_t secret[MKV_SECRET_BYTES];
	struct mkv_place place = { 0 };
	struct mkv_digest d;
	int home;

	*former = -1;
	if (mkv_digest_secret(s->state.store_secret, ns, strlen(ns), secret) != 0)
		return (-1);
	d = mkv_digest(secret, key, strlen(key));
	explicit_bzero(secret, sizeof(secret));
	mkv_place_of(&place, &s->served, 0);
	home = mkv_place_home(&place, d.lo);
	mkv_place_of(&place, &s->served, 1);
	if (place.n > 0 && mkv_place_home(&place, d.lo) != home)
		*former = mkv_place_home(&place, d.lo);
	return (home);
}

/* ---- At start -------------------------------------------------------------------------------------------------------------- */

/* The table of processes is there. */
void
pool_begin(struct mkv_sup *s)
{
	if (s->pool_changed)
		pool_decide(s);
}

/* The configuration's row of this drive, which the rest of the supervisor goes by. */
void
pool_configure(struct mkv_sup *s, uint32_t i)
{
	const struct state_drive *sd = &s->state.drive[i];
	struct config_drive *c = &s->config->derived.drive[i];

	snprintf(c->media, sizeof(c->media), "%s", sd->media);
	c->max_size = sd->max_size;
	c->weight = sd->factor > 0 ? sd->factor : 1.0;
}

static int
pool_init_row(struct mkv_sup *s, const struct config_drive *c, int first, char *why, unsigned why_bytes)
{
	struct state_drive *sd = state_drive(&s->state, c->media);
	uint32_t row;

	if (sd == NULL) {
		snprintf(why, why_bytes, "%s: too many drives: the pool map keeps a row for each that ever served, at most %u; take it out of the configuration", c->media,
		    STATE_DRIVES_MAX);
		return (MKV_E_NOSPACE);
	}
	row = (uint32_t)(sd - s->state.drive);
	sd->max_size = c->max_size;
	sd->factor = c->weight;
	if (first && sd->row.state != MKV_DRIVE_REMOVED)
		sd->row.state = MKV_DRIVE_ONLINE;
	s->pool[row].wanted = sd->row.state != MKV_DRIVE_REMOVED;
	if (!s->pool[row].wanted)
		mkv_log(MKV_EV_NOTE, "media=%s text=%s", c->media, "it was removed, so it is not started; memkvctl drive add brings it back");
	return (0);
}

/* What became of a row between two lives of the server. */
static void
pool_init_state(struct mkv_sup *s, uint32_t i, int memory)
{
	struct state_drive *sd = &s->state.drive[i];
	struct pool_drive *d = &s->pool[i];

	d->wanted |= sd->added && sd->row.state != MKV_DRIVE_REMOVED;
	if (memory && sd->row.state != MKV_DRIVE_REMOVED)
		sd->row = (struct mkv_map_row){ .state = d->wanted ? MKV_DRIVE_ONLINE : MKV_DRIVE_ABSENT };	/* arenas begin empty */
	if (!d->wanted && pool_serves(s, i)) {
		sd->row.state = MKV_DRIVE_ABSENT;
		sd->row.since = s->state.map_version + 1;
	}
	d->log_lost = mkv_drive_away(sd->row.state);
	pool_configure(s, i);
}

/* Rows are numbered as the state file has them; what is new in the configuration comes behind. */
int
pool_init(struct mkv_sup *s, char *why, unsigned why_bytes)
{
	struct config_derived *c = &s->config->derived;
	int memory = s->params->storage_mode == MKV_STORAGE_MEMORY, first = s->state.map_version == 0 || memory, r;
	struct config_drive *conf = malloc(sizeof(c->drive));
	struct mkv_map now;

	if (conf == NULL) {
		snprintf(why, why_bytes, "out of memory");
		return (MKV_E_NOMEM);
	}
	memcpy(conf, c->drive, sizeof(c->drive));	/* pool_configure() puts them in their order */
	s->drive_count = s->state.drive_count;
	if (!first)
		pool_decided(s, &s->served);
	for (uint32_t i = 0; i < c->drive_count; i++)
		if ((r = pool_init_row(s, &conf[i], first, why, why_bytes)) != 0) {
			free(conf);
			return (r);
		}
	free(conf);
	c->drive_count = s->drive_count = s->state.drive_count;
	for (uint32_t i = 0; i < s->drive_count; i++)
		pool_init_state(s, i, memory);
	pool_decided(s, &now);
	s->pool_changed = !first && memcmp(now.row, s->served.row, sizeof(now.row)) != 0;
	return (0);
}
