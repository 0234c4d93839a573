/*
 * Homes of keys by a pool map. Pure functions, any process.
 */
#include "config.h"

#include "common/base/place.h"

#include "common/base/assert.h"
#include "common/base/hash.h"

const char *
mkv_drive_state_name(unsigned state)
{
	static const char *const names[MKV_DRIVE_STATES] = {
		[MKV_DRIVE_ABSENT] = "absent", [MKV_DRIVE_ONLINE] = "online", [MKV_DRIVE_RESTARTING] = "restarting",
		[MKV_DRIVE_FAILED] = "failed", [MKV_DRIVE_DRAINING] = "draining", [MKV_DRIVE_REMOVED] = "removed",
	};

	return (state < MKV_DRIVE_STATES ? names[state] : "unknown");
}

void
mkv_place_add(struct mkv_place *p, uint64_t uuid_hash, double weight, unsigned idx)
{
	MKV_ASSERT(p->n < MKV_MAP_DRIVES_MAX && idx < MKV_MAP_DRIVES_MAX);
	p->hash[p->n] = uuid_hash;
	p->weight[p->n] = weight;
	p->idx[p->n++] = (uint8_t)idx;
}

int
mkv_place_home(const struct mkv_place *p, uint64_t key_hash)
{
	int best;

	if (p->n <= 1)
		return (p->n == 0 ? -1 : p->idx[0]);
	best = mkv_rendezvous(p->hash, p->weight, p->n, key_hash);
	return (best < 0 ? -1 : p->idx[best]);
}

void
mkv_place_of(struct mkv_place *p, const struct mkv_map *m, int former)
{
	p->n = 0;
	for (uint32_t i = 0; i < m->n; i++) {
		const struct mkv_map_row *r = &m->row[i];
		double weight = former ? r->former : mkv_drive_places(r->state) ? r->weight : 0;

		if (r->known && weight > 0)
			mkv_place_add(p, mkv_hash64(r->uuid, sizeof(r->uuid), 0), weight, i);
	}
}
