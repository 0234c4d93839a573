/*
 * memkv-front, loop thread: the pool map and placement (docs/internals/placement.md). Rendezvous hashing over drive uuids; RESTARTING does not move a key, FAILED, ABSENT
 * and DRAINING do. A key that has moved is looked up at its former home as well, and before it is written anew it is deleted there (docs/internals/pool.md).
 * Owns nothing but fields of mkv_drive that the map sets.
 */
#include "config.h"

#include "worker/front/front_priv.h"

#include <string.h>

#include "common/base/assert.h"
#include "common/base/err.h"

int
mkv_drive_serves(const struct mkv_drive *d)
{
	return (mkv_drive_places(d->state) || d->state == MKV_DRIVE_DRAINING);
}

int
mkv_route_home(const struct mkv_front *f, struct mkv_digest d)
{
	return (mkv_place_home(&f->route_serving, d.lo));
}

int
mkv_route_former(const struct mkv_front *f, struct mkv_digest d)
{
	int former;

	if (!f->has_former)
		return (-1);
	former = mkv_place_home(&f->route_former, d.lo);
	return (former >= 0 && former != mkv_route_home(f, d) && mkv_drive_serves(&f->drive[former]) ? former : -1);
}

int
mkv_route_read(struct mkv_req *r)
{
	int former = -1;

	if (r->former && r->former_version == r->f->map_version)
		former = mkv_route_former(r->f, r->digest);
	r->former = former >= 0;
	return (former >= 0 ? former : mkv_route_home(r->f, r->digest));
}

int
mkv_route_read_next(struct mkv_req *r)
{
	if (r->former || mkv_route_former(r->f, r->digest) < 0)
		return (0);
	r->former = 1;
	r->former_version = r->f->map_version;
	return (1);
}

int
mkv_route_reason(const struct mkv_front *f, struct mkv_digest d, int reason)
{
	int all;

	if (reason != MKV_REASON_NEVER || f->route_all.n == f->route_serving.n)
		return (reason);
	all = mkv_place_home(&f->route_all, d.lo);
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
	unsigned top[MKV_DRV_STRIPE_MAX];
	struct mkv_place t = { 0 };

	for (unsigned i = 0; i < n && t.n < MKV_DRV_STRIPE_MAX; i++) {
		const struct mkv_drive *v = stripe[i] < MKV_FRONT_DRIVES_MAX ? &f->drive[stripe[i]] : NULL;

		if (v != NULL && mkv_drive_serves(v))
			mkv_place_add(&t, v->uuid_hash, v->weight, stripe[i]);
	}
	if (try_no >= t.n)
		return (-1);
	if (t.n == 1)
		return (t.idx[0]);
	if (mkv_rendezvous_top(t.hash, t.weight, t.n, d.lo, top, try_no + 1) <= try_no)
		return (-1);
	return (t.idx[top[try_no]]);
}

static void
route_rows(struct mkv_front *f, const struct mkv_front_drive *d, unsigned n)
{
	memset(&f->route_former, 0, sizeof(f->route_former));
	for (unsigned i = 0; i < MKV_FRONT_DRIVES_MAX; i++) {
		f->drive[i].state = MKV_DRIVE_ABSENT;
		f->drive[i].weight = 0;
	}
	for (unsigned i = 0; i < n; i++) {
		struct mkv_drive *v = &f->drive[d[i].index];

		v->state = d[i].state;
		v->weight = d[i].weight;
		v->uuid_hash = mkv_hash64(d[i].uuid, sizeof(d[i].uuid), 0);
		if (d[i].former > 0)
			mkv_place_add(&f->route_former, v->uuid_hash, d[i].former, d[i].index);
	}
}

int
mkv_front_map(struct mkv_front *f, uint64_t version, const struct mkv_front_drive *d, unsigned n)
{
	MKV_CHECK_OBJ(f, FRONT_MAGIC);
	for (unsigned i = 0; i < n; i++)
		if (d[i].index >= MKV_FRONT_DRIVES_MAX || !(d[i].weight > 0) || !(d[i].former >= 0))
			return (MKV_E_INVAL);
	if (n > MKV_FRONT_DRIVES_MAX)
		return (MKV_E_INVAL);
	route_rows(f, d, n);
	memset(&f->route_all, 0, sizeof(f->route_all));
	memset(&f->route_serving, 0, sizeof(f->route_serving));
	for (unsigned i = 0; i < MKV_FRONT_DRIVES_MAX; i++) {
		const struct mkv_drive *v = &f->drive[i];

		if (!(v->weight > 0) || v->state == MKV_DRIVE_REMOVED)
			continue;
		mkv_place_add(&f->route_all, v->uuid_hash, v->weight, i);
		if (mkv_drive_places(v->state))
			mkv_place_add(&f->route_serving, v->uuid_hash, v->weight, i);
	}
	f->has_former = f->route_former.n != 0 && memcmp(&f->route_former, &f->route_serving, sizeof(f->route_former)) != 0;
	f->map_version = version;
	mkv_drives_remap(f);
	return (0);
}
