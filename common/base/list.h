/*
 * Doubly linked intrusive list. Not thread safe. A removed or initialised node points to itself.
 */
#ifndef MKV_BASE_LIST_H
#define MKV_BASE_LIST_H

#include <stddef.h>

#include "common/base/assert.h"

struct mkv_list {
	struct mkv_list	*next, *prev;
};

static inline void
mkv_list_init(struct mkv_list *l)
{
	l->next = l->prev = l;
}

static inline int
mkv_list_empty(const struct mkv_list *l)
{
	return (l->next == l);
}

static inline void
mkv_list_push_tail(struct mkv_list *head, struct mkv_list *n)
{
	n->prev = head->prev;
	n->next = head;
	head->prev->next = n;
	head->prev = n;
}

static inline void
mkv_list_push_head(struct mkv_list *head, struct mkv_list *n)
{
	mkv_list_push_tail(head->next, n);
}

static inline void
mkv_list_remove(struct mkv_list *n)
{
	n->prev->next = n->next;
	n->next->prev = n->prev;
	mkv_list_init(n);
}

/* First node, taken off the list; NULL if empty. */
static inline struct mkv_list *
mkv_list_pop(struct mkv_list *head)
{
	struct mkv_list *n = head->next;

	if (n == head)
		return (NULL);
	mkv_list_remove(n);
	return (n);
}

#define MKV_LIST_FOREACH(it, head) \
	for (struct mkv_list *it = (head)->next; it != (head); it = it->next)
#define MKV_LIST_FOREACH_SAFE(it, tmp, head) \
	for (struct mkv_list *it = (head)->next, *tmp = it->next; it != (head); it = tmp, tmp = it->next)

#endif
