/*
 * A hub's address handles: one for each GID (and LID) that its initiators are aimed at. Runs in the hub's thread; owns the handles.
 *
 * A handle is made by a call into the kernel, which asks the neighbour's hardware address once and for all, and may sleep for a second over it. So handles are kept, and
 * dropped where that address may have changed: the far end did not answer, or our own GIDs changed. A dropped one is found by nobody and destroyed with its last user.
 *
 * In a hub with threads for it (conf.aside) that call is theirs: a way is taken, and then known. One that is to be dropped and has users stays until another is there:
 * who goes there meanwhile fares as the former address lets him, and nobody waits.
 */
#include "config.h"
#include "common/rdma/dc.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/assert.h"
#include "common/base/err.h"
#include "common/rdma/hub_priv.h"

static void	ah_renew(struct mkv_rdma_hub *h, struct mkv_rdma_way *former);
static void	ah_use(struct mkv_rdma_hub *h, struct mkv_rdma_way *a);

void
hub_ah_init(struct mkv_rdma_hub *h)
{
	for (unsigned i = 0; i < AH_BUCKETS; i++)
		mkv_list_init(&h->ah[i]);
	mkv_list_init(&h->ah_idle);
	h->ah_gids = atomic_load_explicit(&h->d->gids_changed, memory_order_relaxed);
}

static void
ah_free(struct mkv_rdma_hub *h, struct mkv_rdma_way *a)
{
	MKV_ASSERT(a->users == 0 && !a->is_made);
	h->ah_idle_n -= !mkv_list_empty(&a->idle);
	mkv_list_remove(&a->idle);
	mkv_list_remove(&a->link);
	if (a->ah != NULL)
		h->v->destroy_ah(a->ah);
	hub_ah_back(h, &a->heir);
	free(a);
}

void
hub_ah_fini(struct mkv_rdma_hub *h)
{
	for (unsigned i = 0; i < AH_BUCKETS; i++)
		MKV_LIST_FOREACH_SAFE(it, tmp, &h->ah[i])
			ah_free(h, MKV_CONTAINER_OF(it, struct mkv_rdma_way, link));
}

static void
ah_drop(struct mkv_rdma_hub *h, struct mkv_rdma_way *a)
{
	a->is_old = 1;
	mkv_list_remove(&a->link);
	if (a->users == 0 && !a->is_made)
		ah_free(h, a);
}

void
hub_ah_forget(struct mkv_rdma_hub *h, struct mkv_rdma_way *a)
{
	if (h->conf.aside && a->users > 0 && a->ah != NULL)
		ah_renew(h, a);
	else
		ah_drop(h, a);
}

/* Ours changed: packets would leave with a former address of ours, or to a neighbour of the former network. Any thread counts; when we see it is not urgent. */
static void
ah_look_for_changes(struct mkv_rdma_hub *h)
{
	uint32_t now = atomic_load_explicit(&h->d->gids_changed, memory_order_relaxed);

	if (now == h->ah_gids)
		return;
	h->ah_gids = now;
	for (unsigned i = 0; i < AH_BUCKETS; i++)
		MKV_LIST_FOREACH_SAFE(it, tmp, &h->ah[i])
			hub_ah_forget(h, MKV_CONTAINER_OF(it, struct mkv_rdma_way, link));
}

static struct mkv_list *
ah_bucket(struct mkv_rdma_hub *h, const uint8_t gid[16], uint16_t lid)
{
	uint32_t n = 2166136261u ^ lid;

	for (unsigned i = 0; i < 16; i++)
		n = (n ^ gid[i]) * 16777619u;
	return (&h->ah[(n ^ n >> 16) % AH_BUCKETS]);
}

static struct mkv_rdma_way *
ah_find(const struct mkv_list *bucket, const uint8_t gid[16], uint16_t lid)
{
	MKV_LIST_FOREACH(it, bucket) {
		struct mkv_rdma_way *a = MKV_CONTAINER_OF(it, struct mkv_rdma_way, link);

		if (a->lid == lid && memcmp(a->gid, gid, sizeof(a->gid)) == 0)
			return (a);
	}
	return (NULL);
}

static struct mkv_rdma_way *
ah_new(struct mkv_rdma_hub *h, const uint8_t gid[16], uint16_t lid)
{
	struct mkv_rdma_way *a = calloc(1, sizeof(*a));

	if (a == NULL)
		return (NULL);
	a->hub = h;
	memcpy(a->gid, gid, sizeof(a->gid));
	a->lid = lid;
	a->attr = qp_path(h->d, gid, lid);
	mkv_list_init(&a->link);
	mkv_list_init(&a->idle);
	mkv_list_init(&a->job.link);
	return (a);
}

/* Any thread. */
static void
ah_call(struct hub_job *j)
{
	struct mkv_rdma_way *a = MKV_CONTAINER_OF(j, struct mkv_rdma_way, job);

	errno = 0;
	a->ah = a->hub->v->create_ah(a->hub->d->pd, &a->attr);
	a->errno_there = a->ah == NULL ? errno : 0;
}

static int
ah_make(struct mkv_rdma_hub *h, const uint8_t gid[16], uint16_t lid, struct mkv_rdma_way **out)
{
	struct mkv_rdma_way *a = ah_new(h, gid, lid);
	int e;

	if (a == NULL)
		return (MKV_E_NOMEM);
	ah_call(&a->job);
	if (a->ah == NULL) {
		e = qp_path_err(a->errno_there);
		free(a);
		return (e);
	}
	mkv_list_push_head(ah_bucket(h, gid, lid), &a->link);
	*out = a;
	return (0);
}

static void
ah_use(struct mkv_rdma_hub *h, struct mkv_rdma_way *a)
{
	if (!mkv_list_empty(&a->idle)) {
		mkv_list_remove(&a->idle);
		h->ah_idle_n--;
	}
	a->users++;
}

int
hub_ah_take(struct mkv_rdma_hub *h, const uint8_t gid[16], uint16_t lid, struct mkv_rdma_way **out)
{
	struct mkv_rdma_way *a;
	int e;

	ah_look_for_changes(h);
	a = ah_find(ah_bucket(h, gid, lid), gid, lid);
	if (h->conf.aside && (a == NULL || a->ah == NULL))
		return (MKV_E_BUSY);
	if (a == NULL && (e = ah_make(h, gid, lid, &a)) != 0)
		return (e);
	ah_use(h, a);
	*out = a;
	return (0);
}

/* Nobody uses it any more: it is kept for the next, if it is good for him. */
static void
ah_rest(struct mkv_rdma_hub *h, struct mkv_rdma_way *a)
{
	if (a->is_made)
		return;					/* ah_done() sees to it */
	if (a->is_old) {
		ah_free(h, a);
		return;
	}
	mkv_list_push_tail(&h->ah_idle, &a->idle);
	if (++h->ah_idle_n > AH_IDLE_MAX)
		ah_free(h, MKV_CONTAINER_OF(h->ah_idle.next, struct mkv_rdma_way, idle));
}

void
hub_ah_back(struct mkv_rdma_hub *h, struct mkv_rdma_way **ap)
{
	struct mkv_rdma_way *a = *ap;

	if (a == NULL)
		return;
	*ap = NULL;
	MKV_ASSERT(a->users > 0);
	if (--a->users == 0)
		ah_rest(h, a);
}

/* ---- By another thread ----------------------------------------------------------------------------------------------------- */

/* In place of another: that one is found no more, and who uses it keeps it, and this one by it. */
static void
ah_replace(struct mkv_rdma_hub *h, struct mkv_rdma_way *a)
{
	struct mkv_rdma_way *former = a->in_place;

	a->in_place = NULL;
	former->is_renewed = 0;
	if (a->err == 0 && !former->is_old) {
		mkv_list_push_head(ah_bucket(h, a->gid, a->lid), &a->link);
		ah_drop(h, former);
		ah_use(h, a);
		former->heir = a;
	} else
		a->is_old = 1;
	hub_ah_back(h, &former);
}

static void
ah_done(struct hub_job *j)
{
	struct mkv_rdma_way *a = MKV_CONTAINER_OF(j, struct mkv_rdma_way, job);
	struct mkv_rdma_hub *h = a->hub;

	a->is_made = 0;
	a->err = a->ah == NULL ? qp_path_err(a->errno_there) : 0;
	if (a->in_place != NULL)
		ah_replace(h, a);
	else if (a->err != 0) {
		a->is_old = 1;
		mkv_list_remove(&a->link);
	}
	if (a->users == 0 && mkv_list_empty(&a->idle))
		ah_rest(h, a);
}

static int
ah_begin(struct mkv_rdma_hub *h, struct mkv_rdma_way *a)
{
	int e;

	a->job.call = ah_call;
	a->job.done = ah_done;
	a->errno_there = ECANCELED;
	a->is_made = 1;
	if ((e = hub_aside_give(h, &a->job)) != 0)
		a->is_made = 0;
	return (e);
}

/* What finds no place among the jobs is done at the next fault. */
static void
ah_renew(struct mkv_rdma_hub *h, struct mkv_rdma_way *former)
{
	struct mkv_rdma_way *a;

	if (former->is_old || former->is_renewed || (a = ah_new(h, former->gid, former->lid)) == NULL)
		return;
	if (ah_begin(h, a) != 0) {
		free(a);
		return;
	}
	former->is_renewed = 1;
	former->users++;
	a->in_place = former;
}

int
mkv_rdma_way_take(struct mkv_rdma_way **out, struct mkv_rdma_hub *h, const struct mkv_rdma_dct *to)
{
	struct mkv_rdma_way *a;
	int e;

	*out = NULL;
	MKV_CHECK_OBJ(h, HUB_MAGIC);
	if (!qp_address_fits(h->d, to->gid, to->lid))
		return (MKV_E_PEER);
	ah_look_for_changes(h);
	if ((a = ah_find(ah_bucket(h, to->gid, to->lid), to->gid, to->lid)) == NULL) {
		if ((a = ah_new(h, to->gid, to->lid)) == NULL)
			return (MKV_E_NOMEM);
		if ((e = ah_begin(h, a)) != 0) {
			free(a);
			return (e);
		}
		mkv_list_push_head(ah_bucket(h, to->gid, to->lid), &a->link);
	}
	ah_use(h, a);
	*out = a;
	return (0);
}

int
mkv_rdma_way_known(const struct mkv_rdma_way *a)
{
	return (a->is_made ? MKV_E_AGAIN : a->err);
}

void
mkv_rdma_way_back(struct mkv_rdma_way **a)
{
	if (*a != NULL)
		hub_ah_back((*a)->hub, a);
}

void
mkv_rdma_way_follow(struct mkv_rdma_way **a)
{
	struct mkv_rdma_way *heir;

	while (*a != NULL && (heir = (*a)->heir) != NULL) {
		ah_use(heir->hub, heir);
		mkv_rdma_way_back(a);
		*a = heir;
	}
}
