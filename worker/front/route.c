/*
 * memkv-front, loop thread: the pool map and placement (docs/internals/placement.md). Rendezvous hashing over drive uuids; RESTARTING does not move a key, FAILED, ABSENT
 * and DRAINING do. Owns nothing but fields of mkv_drive that the map sets.
 */
#include "config.h"

#include "worker/front/front_priv.h"

#include <string.h>

#include "common/base/assert.h"
#include "common/base/err.h"

int
mkv_drive_serves(const struct mkv_drive *d)
{
	return (d->state == MKV_DRIVE_ONLINE || d->state == MKV_DRIVE_RESTARTING);
}

static int
route_best(const struct mkv_route *t, uint64_t key_hash)
{
	int best;

	if (t->n <= 1)
		return (t->n == 0 ? -1 : t->idx[0]);
	best = mkv_rendezvous(t->hash, t->weight, t->n, key_hash);
	return (best < 0 ? -1 : t->idx[best]);
}

int
mkv_route_home(const struct mkv_front *f, struct mkv_digest d)
{
	return (route_best(&f->route_serving, d.lo));
}

int
mkv_route_reason(const struct mkv_front *f, struct mkv_digest d, int reason)
{
	int all;

	if (reason != MKV_REASON_NEVER || f->route_all.n == f->route_serving.n)
		return (reason);
	all = route_best(&f->route_all, d.lo);
	if (all >= 0 && !mkv_drive_serves(&f->drive[all]))
		return (MKV_REASON_DRIVE_OFFLINE);
	return (reason);
}

unsigned
mkv_route_stripe(const struct mkv_front *f, uint8_t out[MKV_DRV_STRIPE_MAX])
{
	memcpy(out, f->route_serving.idx, f->route_serving.n);
	return (f->route_serving.n);
}

int
mkv_route_piece_drive(const struct mkv_front *f, struct mkv_digest d, const uint8_t *stripe, unsigned n, unsigned try_no)
{
	uint64_t hash[MKV_DRV_STRIPE_MAX];
	double weight[MKV_DRV_STRIPE_MAX];
	uint8_t idx[MKV_DRV_STRIPE_MAX];
	unsigned top[MKV_DRV_STRIPE_MAX], k = 0;

	for (unsigned i = 0; i < n && k < MKV_DRV_STRIPE_MAX; i++) {
		if (stripe[i] >= MKV_FRONT_DRIVES_MAX || !mkv_drive_serves(&f->drive[stripe[i]]))
			continue;
		hash[k] = f->drive[stripe[i]].uuid_hash;
		weight[k] = f->drive[stripe[i]].weight;
		idx[k++] = stripe[i];
	}
	if (try_no >= k)
		return (-1);
	if (k == 1)
		return (idx[0]);
	if (mkv_rendezvous_top(hash, weight, k, d.lo, top, try_no + 1) <= try_no)
		return (-1);
	return (idx[top[try_no]]);
}

static void
route_add(struct mkv_route *t, const struct mkv_drive *d)
{
	t->hash[t->n] = d->uuid_hash;
	t->weight[t->n] = d->weight;
	t->idx[t->n++] = (uint8_t)d->index;
}

int
mkv_front_map(struct mkv_front *f, uint64_t version, const struct mkv_front_drive *d, unsigned n)
{
	MKV_CHECK_OBJ(f, FRONT_MAGIC);
	for (unsigned i = 0; i < n; i++)
		if (d[i].index >= MKV_FRONT_DRIVES_MAX || !(d[i].weight > 0))
			return (MKV_E_INVAL);
	for (unsigned i = 0; i < MKV_FRONT_DRIVES_MAX; i++) {
		f->drive[i].state = MKV_DRIVE_ABSENT;
		f->drive[i].weight = 0;
	}
	for (unsigned i = 0; i < n; i++) {
		struct mkv_drive *v = &f->drive[d[i].index];

		v->state = d[i].state;
		v->weight = d[i].weight;
		v->uuid_hash = mkv_hash64(d[i].uuid, sizeof(d[i].uuid), 0);
	}
	f->route_all.n = f->route_serving.n = 0;
	for (unsigned i = 0; i < MKV_FRONT_DRIVES_MAX; i++)
		if (f->drive[i].weight > 0) {
			route_add(&f->route_all, &f->drive[i]);
			if (mkv_drive_serves(&f->drive[i]))
				route_add(&f->route_serving, &f->drive[i]);
		}
	f->map_version = version;
	mkv_drives_remap(f);
	return (0);
}
