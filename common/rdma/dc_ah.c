/*
 * A hub's address handles: one for each GID (and LID) that its initiators are aimed at. Runs in the hub's thread; owns the handles.
 *
 * A handle is made by a call into the kernel, which asks the neighbour's hardware address once and for all. So handles are kept, and dropped where that address may have
 * changed: the far end did not answer, or our own GIDs changed. A dropped one is found by nobody and destroyed with its last user.
 */
#include "config.h"
#include "common/rdma/dc.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/assert.h"
#include "common/base/err.h"
#include "common/rdma/hub_priv.h"

void
hub_ah_init(struct mkv_rdma_hub *h)
{
	for (unsigned i = 0; i < AH_BUCKETS; i++)
		mkv_list_init(&h->ah[i]);
	mkv_list_init(&h->ah_idle);
	h->ah_gids = atomic_load_explicit(&h->d->gids_changed, memory_order_relaxed);
}

static void
ah_free(struct mkv_rdma_hub *h, struct hub_ah *a)
{
	MKV_ASSERT(a->users == 0);
	h->ah_idle_n -= !mkv_list_empty(&a->idle);
	mkv_list_remove(&a->idle);
	mkv_list_remove(&a->link);
	h->v->destroy_ah(a->ah);
	free(a);
}

void
hub_ah_fini(struct mkv_rdma_hub *h)
{
	for (unsigned i = 0; i < AH_BUCKETS; i++)
		MKV_LIST_FOREACH_SAFE(it, tmp, &h->ah[i])
			ah_free(h, MKV_CONTAINER_OF(it, struct hub_ah, link));
}

void
hub_ah_forget(struct mkv_rdma_hub *h, struct hub_ah *a)
{
	a->is_old = 1;
	mkv_list_remove(&a->link);
	if (a->users == 0)
		ah_free(h, a);
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
			hub_ah_forget(h, MKV_CONTAINER_OF(it, struct hub_ah, link));
}

static struct mkv_list *
ah_bucket(struct mkv_rdma_hub *h, const uint8_t gid[16], uint16_t lid)
{
	uint32_t n = 2166136261u ^ lid;

	for (unsigned i = 0; i < 16; i++)
		n = (n ^ gid[i]) * 16777619u;
	return (&h->ah[(n ^ n >> 16) % AH_BUCKETS]);
}

static struct hub_ah *
ah_find(const struct mkv_list *bucket, const uint8_t gid[16], uint16_t lid)
{
	MKV_LIST_FOREACH(it, bucket) {
		struct hub_ah *a = MKV_CONTAINER_OF(it, struct hub_ah, link);

		if (a->lid == lid && memcmp(a->gid, gid, sizeof(a->gid)) == 0)
			return (a);
	}
	return (NULL);
}

static int
ah_make(struct mkv_rdma_hub *h, const uint8_t gid[16], uint16_t lid, struct hub_ah **out)
{
	struct ibv_ah_attr at = qp_path(h->d, gid, lid);
	struct hub_ah *a;
	int e;

	if ((a = calloc(1, sizeof(*a))) == NULL)
		return (MKV_E_NOMEM);
	errno = 0;
	if ((a->ah = h->v->create_ah(h->d->pd, &at)) == NULL) {
		e = qp_path_err(errno);
		free(a);
		return (e);
	}
	memcpy(a->gid, gid, sizeof(a->gid));
	a->lid = lid;
	mkv_list_init(&a->idle);
	mkv_list_push_head(ah_bucket(h, gid, lid), &a->link);
	*out = a;
	return (0);
}

int
hub_ah_take(struct mkv_rdma_hub *h, const uint8_t gid[16], uint16_t lid, struct hub_ah **out)
{
	struct hub_ah *a;
	int e;

	ah_look_for_changes(h);
	if ((a = ah_find(ah_bucket(h, gid, lid), gid, lid)) == NULL && (e = ah_make(h, gid, lid, &a)) != 0)
		return (e);
	if (!mkv_list_empty(&a->idle)) {
		mkv_list_remove(&a->idle);
		h->ah_idle_n--;
	}
	a->users++;
	*out = a;
	return (0);
}

void
hub_ah_back(struct mkv_rdma_hub *h, struct hub_ah **ap)
{
	struct hub_ah *a = *ap;

	if (a == NULL)
		return;
	*ap = NULL;
	MKV_ASSERT(a->users > 0);
	if (--a->users > 0)
		return;
	if (a->is_old) {
		ah_free(h, a);
		return;
	}
	mkv_list_push_tail(&h->ah_idle, &a->idle);
	if (++h->ah_idle_n > AH_IDLE_MAX)
		ah_free(h, MKV_CONTAINER_OF(h->ah_idle.next, struct hub_ah, idle));
}
