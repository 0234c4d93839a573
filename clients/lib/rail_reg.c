/*
 * Regions and devices: what is registered with what.
 *
 * Any thread. f->reg over every change; a loop that has a hub of the device reads region->mem[device] without. A registration is made once, at the region's
 * making or by mkv_warm() if the device is open then, else by the first request; it goes before the region, and with its device.
 * Memory of no region is never remembered here: an address that was unmapped and mapped again would bring the old pages.
 * Fails: what cannot be registered is noted in the region, and its requests go another way.
 */
#include "config.h"

#include <stdlib.h>

#include "clients/lib/rail_priv.h"

static struct mkv_rdma_mem *
region_mem(struct mkv_region *r, unsigned dev)
{
	return (atomic_load_explicit(&r->mem[dev], memory_order_acquire));
}

/* Under f->reg; the device is open and stays so. */
static void
region_add(struct fabric *f, struct mkv_region *r, unsigned dev)
{
	unsigned access = rail_access(&f->c->cf, MKV_RDMA_READABLE | MKV_RDMA_WRITABLE);
	struct mkv_rdma_mem *m = NULL;
	char why[2 * WHY_BYTES];
	int e;

	if (region_mem(r, dev) != NULL)
		return;
	if (f->c->cf.rdma_on_demand && f->d[dev].dev->odp)
		access |= MKV_RDMA_ON_DEMAND;
	if (r->memory.kind == MKV_GPU_HOST)
		e = mkv_rdma_mem_add(&m, f->d[dev].dev, r->base, r->bytes, access, why, sizeof(why));
	else if ((e = mkv_gpu_register(&m, f->d[dev].dev, r, access, why, sizeof(why))) != 0)
		mkv_gpu_failed(f->c, why);
	client_count(f->c, e == 0 ? CC_registrations_total : CC_registration_failures_total, 1);
	atomic_store_explicit(&r->mem_error[dev], e, memory_order_relaxed);
	if (e == 0)
		atomic_store_explicit(&r->mem[dev], m, memory_order_release);	/* pairs with region_mem() */
}

struct mkv_rdma_mem *
mkv_fabric_region(struct fabric *f, struct mkv_region *r, unsigned dev, int *err)
{
	struct mkv_rdma_mem *m = region_mem(r, dev);

	if (m == NULL && atomic_load_explicit(&r->mem_error[dev], memory_order_relaxed) == 0) {
		(void)pthread_mutex_lock(&f->reg);
		region_add(f, r, dev);
		(void)pthread_mutex_unlock(&f->reg);
		m = region_mem(r, dev);
	}
	*err = atomic_load_explicit(&r->mem_error[dev], memory_order_relaxed);
	return (m);
}

/* As its user keeps a device open: registering may take seconds, and loops want f->mutex meanwhile. */
void
mkv_fabric_add_region(struct mkv_region *r)
{
	struct fabric *f = r->c->fabric;

	for (unsigned i = 0; f != NULL && i < RDMA_DEVS_MAX; i++) {
		if (mkv_fabric_take(f, i) == NULL)
			continue;
		(void)pthread_mutex_lock(&f->reg);
		region_add(f, r, i);
		(void)pthread_mutex_unlock(&f->reg);
		mkv_fabric_leave(f, i);
	}
}

/* A copy of the list, since registering takes long; f->reg keeps regions from going. */
static struct mkv_region **
regions_now(struct mkv_client *c, unsigned *n)
{
	struct mkv_region **all;

	*n = 0;
	(void)pthread_mutex_lock(&c->mutex);
	if ((all = calloc(atomic_load_explicit(&c->n_regions, memory_order_relaxed) + 1, sizeof(*all))) != NULL)
		MKV_LIST_FOREACH(it, &c->regions)
			all[(*n)++] = MKV_CONTAINER_OF(it, struct mkv_region, link);
	(void)pthread_mutex_unlock(&c->mutex);
	return (all);
}

void
mkv_fabric_warm(struct mkv_client *c)
{
	struct fabric *f = c->fabric;
	struct mkv_region **all;
	unsigned n;

	if (f == NULL || atomic_load_explicit(&c->n_regions, memory_order_relaxed) == 0)
		return;
	for (unsigned i = 0; i < RDMA_DEVS_MAX; i++) {
		if (mkv_fabric_take(f, i) == NULL)
			continue;
		(void)pthread_mutex_lock(&f->reg);
		all = regions_now(c, &n);
		for (unsigned k = 0; all != NULL && k < n; k++)
			region_add(f, all[k], i);
		free(all);
		(void)pthread_mutex_unlock(&f->reg);
		mkv_fabric_leave(f, i);
	}
}

static void
region_drop(struct mkv_region *r, unsigned dev)
{
	struct mkv_rdma_mem *m = atomic_exchange_explicit(&r->mem[dev], NULL, memory_order_acq_rel);

	mkv_rdma_mem_drop(&m);
	atomic_store_explicit(&r->mem_error[dev], 0, memory_order_relaxed);
}

int
mkv_fabric_drop_region(struct mkv_region *r)
{
	struct mkv_client *c = r->c;
	struct fabric *f = c->fabric;
	int busy;

	if (f != NULL)
		(void)pthread_mutex_lock(&f->reg);
	(void)pthread_mutex_lock(&c->mutex);
	if ((busy = r->in_flight > 0) == 0) {
		mkv_list_remove(&r->link);
		atomic_fetch_sub_explicit(&c->n_regions, 1, memory_order_relaxed);
	}
	(void)pthread_mutex_unlock(&c->mutex);
	for (unsigned i = 0; !busy && f != NULL && i < RDMA_DEVS_MAX; i++)
		region_drop(r, i);
	if (f != NULL)
		(void)pthread_mutex_unlock(&f->reg);
	return (busy ? MKV_E_BUSY : 0);
}

/* One that the device still has, or could not have; NULL: none. */
static struct mkv_region *
region_with(struct mkv_client *c, unsigned dev)
{
	struct mkv_region *r = NULL;

	(void)pthread_mutex_lock(&c->mutex);
	MKV_LIST_FOREACH(it, &c->regions) {
		r = MKV_CONTAINER_OF(it, struct mkv_region, link);
		if (region_mem(r, dev) != NULL || atomic_load_explicit(&r->mem_error[dev], memory_order_relaxed) != 0)
			break;
		r = NULL;
	}
	(void)pthread_mutex_unlock(&c->mutex);
	return (r);
}

/* c->mutex is every call's: not while pages are given back. */
void
mkv_fabric_forget_device(struct fabric *f, unsigned dev)
{
	struct mkv_region *r;

	(void)pthread_mutex_lock(&f->reg);
	while ((r = region_with(f->c, dev)) != NULL)
		region_drop(r, dev);
	(void)pthread_mutex_unlock(&f->reg);
}
