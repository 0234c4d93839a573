/*
 * memkv-front, loop thread: answers that are kept for requests that come twice (answers.h). Owns the pool's slab; pages of it that no answer ever lay in cost
 * nothing. Invariant: an id that was kept once is never NEW again. Fails: nothing; with the pool empty an answer is remembered by the floor alone.
 */
#include "config.h"

#include "worker/front/answers.h"

#include <stdlib.h>
#include <string.h>

#include "common/base/assert.h"
#include "common/base/err.h"

int
mkv_answer_pool_open(struct mkv_answer_pool *p, uint32_t n)
{
	memset(p, 0, sizeof(*p));
	mkv_list_init(&p->free);
	if ((p->slab = calloc(n, sizeof(p->slab[0]))) == NULL)
		return (MKV_E_NOMEM);
	p->n = n;
	return (0);
}

void
mkv_answer_pool_close(struct mkv_answer_pool *p)
{
	free(p->slab);
	memset(p, 0, sizeof(*p));
}

static struct mkv_answer *
pool_take(struct mkv_answer_pool *p)
{
	struct mkv_list *l = mkv_list_pop(&p->free);

	if (l != NULL)
		return (MKV_CONTAINER_OF(l, struct mkv_answer, link));
	if (p->used == p->n)
		return (NULL);
	mkv_list_init(&p->slab[p->used].link);
	return (&p->slab[p->used++]);
}

static struct mkv_answer *
answer_of(const struct mkv_list *l)
{
	return (MKV_CONTAINER_OF(l, struct mkv_answer, link));
}

static void
answers_drop(struct mkv_answers *a, struct mkv_answer_pool *p, struct mkv_answer *w)
{
	mkv_list_remove(&w->link);
	mkv_list_push_head(&p->free, &w->link);
	a->n--;
}

/* Not to be taken for new, once nothing of it is kept. */
static void
answers_forget(struct mkv_answers *a, uint64_t id)
{
	a->floor = MKV_MAX(a->floor, id);
}

void
mkv_answers_init(struct mkv_answers *a)
{
	memset(a, 0, sizeof(*a));
	mkv_list_init(&a->list);
}

void
mkv_answers_fini(struct mkv_answers *a, struct mkv_answer_pool *p)
{
	while (a->n > 0)
		answers_drop(a, p, answer_of(a->list.next));
}

static int
answers_is_acked(const struct mkv_answers *a, uint64_t id)
{
	return (id < a->acked);
}

enum mkv_seen
mkv_answers_look(const struct mkv_answers *a, uint64_t id, const struct mkv_answer **out)
{
	*out = NULL;
	if (answers_is_acked(a, id))
		return (MKV_SEEN_ACKED);
	MKV_LIST_FOREACH(it, &a->list)
		if (answer_of(it)->id == id) {
			*out = answer_of(it);
			return (answer_of(it)->bytes != 0 ? MKV_SEEN_DONE : MKV_SEEN_FORGOTTEN);
		}
	return (id <= a->floor ? MKV_SEEN_FORGOTTEN : MKV_SEEN_NEW);
}

/* The low half of a number near id, whose upper half is as near: however many requests went by since something was acknowledged. */
void
mkv_answers_ack(struct mkv_answers *a, struct mkv_answer_pool *p, uint64_t id, uint32_t ack_below)
{
	int32_t behind = (int32_t)((uint32_t)id - ack_below);

	if (behind > 0 && id < (uint32_t)behind)
		return;
	if (id - (uint64_t)(int64_t)behind <= a->acked)
		return;
	a->acked = id - (uint64_t)(int64_t)behind;
	MKV_LIST_FOREACH_SAFE(it, tmp, &a->list)
		if (answers_is_acked(a, answer_of(it)->id))
			answers_drop(a, p, answer_of(it));
}

void
mkv_answers_keep(struct mkv_answers *a, struct mkv_answer_pool *p, uint64_t id, const struct mkv_hdr *h, const void *body)
{
	struct mkv_answer *w;

	if (answers_is_acked(a, id))
		return;
	if (a->n == MKV_ANSWERS_MAX) {
		answers_forget(a, answer_of(a->list.next)->id);
		answers_drop(a, p, answer_of(a->list.next));
	}
	if ((w = pool_take(p)) == NULL) {
		answers_forget(a, id);
		return;
	}
	w->id = id;
	w->bytes = 0;
	if (h != NULL && h->body_bytes <= sizeof(w->body)) {
		w->h = *h;
		w->bytes = (uint32_t)sizeof(*h) + h->body_bytes;
		if (h->body_bytes != 0)
			memcpy(w->body, body, h->body_bytes);
	}
	mkv_list_push_tail(&a->list, &w->link);
	a->n++;
}
