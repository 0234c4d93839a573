/*
 * The scrubber in the simulation (sim.h): writers whose bytes nobody saw, or that lie; and at rest, when a whole pass is over, every byte of every drive
 * held against its CRCs, past the engine.
 */
#include "config.h"

#include "tests/sim/sim.h"

#include <string.h>

#include "common/base/crc.h"
#include "worker/drive/engine_priv.h"

/* A put on its way to an engine, as one would come of which the front saw no byte; its bytes may not be what it says. */
void
scrub_put(struct mkv_drv_req *q)
{
	if ((q->op != MKV_DRV_PUT && q->op != MKV_DRV_COMMIT) || (q->flags & MKV_DRV_F_MANIFEST) || !sim_chance(sim->c.pct_unverified, 100))
		return;
	q->flags &= (uint16_t)~MKV_DRV_F_VERIFIED;
	if (q->n_crcs == 0 || q->n_crcs > MKV_DRV_CRCS_MAX || !sim_chance(sim->c.pct_lies, 100))
		return;
	model.lossy = 1;
	q->crcs[sim_below(q->n_crcs)] ^= 1u << sim_below(32);
	sim_trace("a writer lies about %llu bytes", (unsigned long long)q->value_bytes);
}

int
scrub_idle(const struct sim_drive *d)
{
	return (d->e->scrub.ios == 0 && d->e->scrub.ent == MKV_ENT_NIL);
}

static int
scrub_serves(const struct sim_drive *d)
{
	return (d->state == DRIVE_UP && !d->readonly);
}

/*
 * Bit rot while nothing happens: one bit of a page, or of an object, of one drive. Only what is on the medium: what the engine has in memory may well be
 * right.
 */
void
scrub_rot(void)
{
	struct sim_drive *d = &sim->drive[sim_below(sim->c.drives)];
	struct mkv_engine *e = d->e;

	if (!scrub_serves(d) || d->disk == NULL || e->ix.ents_high == 0 || sim->c.disk.flip == 0)
		return;
	for (unsigned n = 0; n < 20; n++) {
		const struct mkv_ent *en = eng_ent(e, sim_below(e->ix.ents_high));
		struct mkv_run run[MKV_OBJ_RUNS_MAX];
		uint64_t left, at = mkv_sb_page_at(&e->sb, en->page) + sim_below(MKV_BLOCK);

		if ((en->flags & MKV_ENT_LINKED) == 0)
			continue;
		if (en->units > 0 && sim_chance(1, 2)) {
			(void)mkv_ent_runs(&e->ix, en, run);
			at = req_phys(e, run, 1, sim_below(run[0].len * e->sb.unit_bytes), &left);
		}
		model.lossy = 1;
		disk_flip_at(d->disk, at);
		return;
	}
}

/* Until each drive has begun and ended a pass. */
void
scrub_rest(uint64_t until)
{
	uint32_t want[SIM_DRIVES] = { 0 };

	for (unsigned i = 0; i < sim->c.drives; i++)
		if (scrub_serves(&sim->drive[i]))
			want[i] = sim->drive[i].e->scrub.pass + 1;
	for (unsigned i = 0; i < sim->c.drives; i++) {
		struct sim_drive *d = &sim->drive[i];

		while (scrub_serves(d) && ((int32_t)(d->e->scrub.pass - want[i]) < 0 || (d->e->scrub.pass == want[i] && d->e->scrub.passing)))
			SIM_CHECK(sim->now < until && sim_run_one(), "drive %u: a pass of the scrubber does not end", i);
	}
}

static void
scrub_audit_object(const struct sim_drive *d, const struct mkv_ent *en, const struct mkv_obj_view *v)
{
	uint8_t chunk[MKV_CRC_CHUNK];
	uint64_t left;

	for (uint64_t pos = 0; pos < v->o->value_bytes; pos += MKV_CRC_CHUNK) {
		uint64_t end = MKV_MIN(pos + MKV_CRC_CHUNK, v->o->value_bytes);

		for (uint64_t at = pos; at < end; at += left) {
			uint64_t off = req_phys(d->e, v->runs, v->o->n_runs, at, &left);

			left = MKV_MIN(left, end - at);
			memcpy(chunk + (at - pos), d->disk->now + off, left);
		}
		SIM_CHECK(mkv_crc32c(0, chunk, end - pos) == v->crcs[pos / MKV_CRC_CHUNK], "drive %u: an object of page %u (flags %x) is damaged after a pass",
		    d->index, en->page, (unsigned)en->flags);
	}
}

static void
scrub_audit_drive(const struct sim_drive *d)
{
	struct mkv_engine *e = d->e;

	SIM_CHECK(e->unproved == 0, "drive %u: %u objects are not proved after a pass", d->index, e->unproved);
	for (uint32_t page = 0; d->disk != NULL && page < e->pg.count; page++) {
		const struct mkv_page *pg = (const void *)(d->disk->now + mkv_sb_page_at(&e->sb, page));
		uint32_t f = e->pg.frame_of[page], pos = 0;
		struct mkv_obj_view v, own;

		if (!e->pg.taken[page] || e->pg.live[page] == 0)
			continue;
		if (f != 0 && (e->pg.frame[f - 1].state == FR_OPEN || e->pg.frame[f - 1].state == FR_WRITING))
			pg = e->pg.frame[f - 1].pg;
		else
			SIM_CHECK(page_good(e, pg, page), "drive %u: page %u is damaged after a pass", d->index, page);
		while (mkv_page_next(pg, &pos, &v) == 1) {
			uint32_t i = mkv_index_find(&e->ix, v.o->digest);

			if (i != MKV_ENT_NIL && eng_ent(e, i)->units > 0 && eng_ent(e, i)->page == page && obj_in_page(e, eng_ent(e, i), pg, &own) == 0 && own.o == v.o)
				scrub_audit_object(d, eng_ent(e, i), &v);
		}
	}
}

void
scrub_audit(void)
{
	for (unsigned i = 0; i < sim->c.drives; i++)
		if (scrub_serves(&sim->drive[i]))
			scrub_audit_drive(&sim->drive[i]);
}
