/*
 * The books of engines and fronts when all is at rest (sim.h): every unit belongs to one object, every piece to one manifest, nothing is lent out.
 */
#include "config.h"

#include "tests/sim/sim.h"

#include <stdlib.h>
#include <string.h>

#include "worker/drive/engine_priv.h"

struct audit {
	uint64_t	*map;			/* units that objects have */
	uint32_t	*page_live;
	uint8_t		*piece_named;		/* by entry */
	uint64_t	units;
};

static struct audit audit[SIM_DRIVES];

static void
audit_run_units(struct sim_drive *d, const struct mkv_run *run)
{
	struct audit *a = &audit[d->index];

	SIM_CHECK((uint64_t)run->off + run->len <= d->e->al.units, "drive %u: a run outside of its medium", d->index);
	for (uint32_t u = run->off; u < run->off + run->len; u++) {
		SIM_CHECK(((a->map[u / 64] >> (u % 64)) & 1) == 0, "drive %u: unit %u belongs to two objects", d->index, u);
		a->map[u / 64] |= 1ull << (u % 64);
	}
	a->units += run->len;
}

static void
audit_entries(struct sim_drive *d)
{
	struct mkv_engine *e = d->e;
	struct audit *a = &audit[d->index];
	uint32_t linked = 0, manifests = 0, pieces = 0, provisional = 0, unproved = 0;

	for (uint32_t i = 0; i < e->ix.ents_high; i++) {
		const struct mkv_ent *en = eng_ent(e, i);
		struct mkv_run run[MKV_OBJ_RUNS_MAX];
		unsigned n;

		if ((en->flags & MKV_ENT_USED) == 0)
			continue;
		SIM_CHECK((en->flags & MKV_ENT_LINKED) && en->holds == 0, "drive %u: entry %u (flags %x, holds %u) is left over", d->index, i,
		    (unsigned)en->flags, en->holds);
		SIM_CHECK(mkv_index_find(&e->ix, en->digest) == i, "drive %u: entry %u is not found", d->index, i);
		linked++;
		manifests += (en->flags & MKV_ENT_MANIFEST) != 0;
		pieces += (en->flags & MKV_ENT_PIECE) != 0;
		provisional += (en->flags & MKV_ENT_PROVISIONAL) != 0;
		unproved += !ent_is_proved(en);
		n = mkv_ent_runs(&e->ix, en, run);
		for (unsigned k = 0; k < n; k++)
			audit_run_units(d, &run[k]);
		SIM_CHECK(en->page < e->pg.count, "drive %u: entry %u has no page", d->index, i);
		a->page_live[en->page]++;
	}
	SIM_CHECK(linked == e->ix.linked && linked == e->ix.used, "drive %u: %u objects, the index says %u of %u", d->index, linked, e->ix.linked,
	    e->ix.used);
	SIM_CHECK(unproved == e->unproved, "drive %u: %u objects are not proved, it says %u", d->index, unproved, e->unproved);
	SIM_CHECK(manifests == e->manifests && pieces == e->pieces && provisional == e->provisional,
	    "drive %u: %u manifests, %u pieces, %u provisional; it says %u, %u, %u", d->index, manifests, pieces, provisional, e->manifests, e->pieces,
	    e->provisional);
}

static int
audit_no_io_waits(const struct mkv_engine *e)
{
	for (unsigned k = 0; k < SCHED_QUEUES; k++) {
		if (!mkv_list_empty(&e->sched.q[k].reqs) || e->sched.q[k].in_flight != 0)
			return (0);
	}
	for (unsigned i = 0; i < LEAD_BUCKETS; i++) {
		if (!mkv_list_empty(&e->lead[i]))
			return (0);
	}
	return (e->dios_used == 0 && e->sched.c[MKV_IO_GET].bytes == 0 && e->sched.c[MKV_IO_PUT].bytes == 0);
}

static void
audit_drive(struct sim_drive *d)
{
	struct mkv_engine *e = d->e;
	struct audit *a = &audit[d->index];
	uint64_t used = eng_used_units(e);

	*a = (struct audit){ calloc(e->al.units / 64 + 1, 8), calloc(e->pg.count, sizeof(uint32_t)), calloc(e->ix.ents_high + 1, 1), 0 };
	SIM_CHECK(a->map != NULL && a->page_live != NULL && a->piece_named != NULL, "no memory");
	SIM_CHECK(e->at_work == 0 && e->pend_count == 0 && e->pend_units == 0 && e->held_units == 0,
	    "drive %u: at rest, but %u requests, %u records pending, %llu units due, %llu units held", d->index, e->at_work, e->pend_count,
	    (unsigned long long)e->pend_units, (unsigned long long)e->held_units);
	SIM_CHECK(e->evict_need == 0 && mkv_list_empty(&e->space_wait) && audit_no_io_waits(e) && mkv_list_empty(&e->jn.wait),
	    "drive %u: at rest, but somebody waits for %llu units", d->index, (unsigned long long)e->evict_need);
	for (unsigned i = 0; i < LOCK_BUCKETS; i++)
		SIM_CHECK(mkv_list_empty(&e->lock[i]), "drive %u: a key is locked at rest", d->index);
	for (unsigned i = 0; i < HOLDS_MAX; i++)
		SIM_CHECK(e->hold[i].ent == MKV_ENT_NIL, "drive %u: a reader holds an object at rest", d->index);
	for (unsigned i = 0; i < TXNS_MAX; i++)
		SIM_CHECK(!e->txn[i].used, "drive %u: a reservation at rest", d->index);
	audit_entries(d);
	if (d->disk == NULL || d->disk->faults + d->disk->flips == 0)
		SIM_CHECK(a->units == used, "drive %u: objects have %llu units, %llu are taken", d->index, (unsigned long long)a->units,
		    (unsigned long long)used);
	for (uint32_t i = 0; i < e->pg.count; i++)
		SIM_CHECK(a->page_live[i] == e->pg.live[i], "drive %u: page %u has %u objects, it says %u", d->index, i, a->page_live[i], e->pg.live[i]);
	SIM_CHECK(e->setfrees == 0 || model.lossy || sim->c.peer_loss_pct > 0, "drive %u: %u values gone, pieces not freed", d->index, e->setfrees);
}

/* What the media or a crash took of values has had the time to be noticed: all can be asked, all can write. */
static int
audit_is_strict(void)
{
	for (unsigned i = 0; i < sim->c.drives; i++)
		if (sim->drive[i].state != DRIVE_UP || sim->drive[i].readonly)
			return (0);
	return (sim->strict);
}

/* Every piece that a manifest names is somewhere; which are named. */
static void
audit_manifest(struct sim_drive *d, const struct mkv_side *s)
{
	for (uint32_t k = 0; k < s->piece_count; k++) {
		struct mkv_digest g = mkv_piece_digest(d->e->piece_secret, s->set, k);
		unsigned found = 0;

		for (unsigned i = 0; i < sim->c.drives; i++) {
			uint32_t at;

			if (sim->drive[i].state != DRIVE_UP || (at = mkv_index_find(&sim->drive[i].e->ix, g)) == MKV_ENT_NIL)
				continue;
			audit[i].piece_named[at] = 1;
			found++;
		}
		SIM_CHECK(found > 0 || (!audit_is_strict() && (model.lossy || sim->c.pct_accepted > 0 || sim->c.accepted)),
		    "drive %u: piece %u of %u of a value is nowhere", d->index, k, s->piece_count);
	}
}

static void
audit_pieces(void)
{
	for (unsigned i = 0; i < sim->c.drives; i++) {
		struct mkv_engine *e = sim->drive[i].e;

		for (uint32_t k = 0; sim->drive[i].state == DRIVE_UP && k < e->ix.ents_high; k++)
			if ((eng_ent(e, k)->flags & (MKV_ENT_USED | MKV_ENT_MANIFEST)) == (MKV_ENT_USED | MKV_ENT_MANIFEST))
				audit_manifest(&sim->drive[i], &e->ix.side[eng_ent(e, k)->run]);
	}
	for (unsigned i = 0; i < sim->c.drives; i++) {
		struct mkv_engine *e = sim->drive[i].e;

		for (uint32_t k = 0; sim->drive[i].state == DRIVE_UP && k < e->ix.ents_high; k++)
			if ((eng_ent(e, k)->flags & MKV_ENT_PIECE) && !audit[i].piece_named[k])
				sim->leaked_units += eng_ent(e, k)->units;
	}
}

static void
audit_front(struct sim_front *f)
{
	struct mkv_stage_stat st;

	mkv_stage_stat(f->stage, &st);
	SIM_CHECK(st.front_bytes == 0 && st.drive_bytes == 0 && st.quarantined_bytes == 0 && st.slots_free == st.slots_total,
	    "front %u: at rest it has %llu bytes, drives %llu, quarantined %llu, slots %u of %u free", f->index, (unsigned long long)st.front_bytes,
	    (unsigned long long)st.drive_bytes, (unsigned long long)st.quarantined_bytes, st.slots_free, st.slots_total);
}

void
audit_run(void)
{
	sim->leaked_units = 0;
	for (unsigned i = 0; i < sim->c.drives; i++)
		if (sim->drive[i].state == DRIVE_UP)
			audit_drive(&sim->drive[i]);
	audit_pieces();
	for (unsigned i = 0; i < sim->c.fronts; i++)
		audit_front(&sim->front[i]);
	for (unsigned i = 0; i < sim->c.drives; i++) {
		free(audit[i].map);
		free(audit[i].page_live);
		free(audit[i].piece_named);
		audit[i] = (struct audit){ NULL, NULL, NULL, 0 };
	}
}
