/*
 * Lists against an array as the model: order, removal from any place, pop until empty.
 */
#include "config.h"
#include "common/base/list.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "tests/lib/rnd.h"

#define NODES	32u

struct node {
	int		on;
	struct mkv_list	link;
};

struct model {
	struct node	*at[NODES];
	unsigned	count;
};

static void
model_insert(struct model *m, unsigned i, struct node *n)
{
	memmove(&m->at[i + 1], &m->at[i], (m->count - i) * sizeof(m->at[0]));
	m->at[i] = n;
	m->count++;
}

static void
model_remove(struct model *m, struct node *n)
{
	unsigned i = 0;

	while (m->at[i] != n)
		i++;
	memmove(&m->at[i], &m->at[i + 1], (--m->count - i) * sizeof(m->at[0]));
}

static void
check_same(const struct mkv_list *head, const struct model *m)
{
	unsigned i = 0;

	MKV_LIST_FOREACH(it, head)
		assert_ptr_equal(MKV_CONTAINER_OF(it, struct node, link), m->at[i++]);
	assert_int_equal(i, m->count);
	assert_int_equal(mkv_list_empty(head), m->count == 0);
}

static void
follows_the_model(void **state)
{
	static struct node node[NODES];
	struct model m = { .count = 0 };
	struct mkv_list head, *l;
	struct node *n;
	struct rnd r;

	(void)state;
	rnd_init(&r, 1);
	mkv_list_init(&head);
	assert_null(mkv_list_pop(&head));
	for (unsigned round = 0; round < 20000; round++) {
		n = &node[rnd_below(&r, NODES)];
		if (rnd_below(&r, 8) == 0) {
			l = mkv_list_pop(&head);
			assert_ptr_equal(l, m.count != 0 ? &m.at[0]->link : NULL);
			if (l != NULL) {
				assert_true(mkv_list_empty(l));
				m.at[0]->on = 0;
				model_remove(&m, m.at[0]);
			}
		} else if (n->on) {
			mkv_list_remove(&n->link);
			mkv_list_remove(&n->link);	/* again: nothing happens */
			model_remove(&m, n);
			n->on = 0;
		} else {
			if (rnd_below(&r, 2) != 0) {
				mkv_list_push_head(&head, &n->link);
				model_insert(&m, 0, n);
			} else {
				mkv_list_push_tail(&head, &n->link);
				model_insert(&m, m.count, n);
			}
			n->on = 1;
		}
		check_same(&head, &m);
	}
}

static void
safe_walk_may_remove(void **state)
{
	struct node node[8];
	struct mkv_list head;
	unsigned seen = 0;

	(void)state;
	mkv_list_init(&head);
	for (unsigned i = 0; i < 8; i++)
		mkv_list_push_tail(&head, &node[i].link);
	MKV_LIST_FOREACH_SAFE(it, tmp, &head) {
		mkv_list_remove(it);
		seen++;
	}
	assert_int_equal(seen, 8);
	assert_true(mkv_list_empty(&head));
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(follows_the_model),
		cmocka_unit_test(safe_walk_may_remove),
	};

	return (cmocka_run_group_tests(tests, NULL, NULL));
}
