/*
 * A front that is short of two things at once: memory for messages, and request contexts. There is so little memory here that a test can have all of it.
 */
#include "config.h"

#include "tests/unit/front_ctl_up.h"
#include "worker/front/rail_priv.h"

#undef CTL_MSGS
#define CTL_MSGS	4u
#include "worker/front/rail_ctl.c"

struct all {				/* what the test has taken */
	struct ctl_msg	*msg[CTL_MSGS];
	struct mkv_list	reqs;
	uint32_t	n_reqs;
};

static void
take_reqs(struct t *t, struct all *a)
{
	struct mkv_list *l;

	mkv_list_init(&a->reqs);
	for (a->n_reqs = 0; (l = mkv_list_pop(&t->r.f->req_free)) != NULL; a->n_reqs++)
		mkv_list_push_tail(&a->reqs, l);
	t->r.f->n_reqs += a->n_reqs;
}

static void
give_reqs(struct t *t, struct all *a)
{
	struct mkv_list *l;

	while ((l = mkv_list_pop(&a->reqs)) != NULL)
		mkv_list_push_tail(&t->r.f->req_free, l);
	t->r.f->n_reqs -= a->n_reqs;
}

/*
 * A datagram of a session waits for a request context, which may take long. The next part of its put, by the tether, wants memory alone: it goes on as soon as there is
 * some, and does not wait for what the datagram waits for.
 */
static void
each_wait_has_its_end(void **state)
{
	struct t *t = ctl_opened(&t_datagrams);
	const uint64_t id = 500;
	const uint32_t total = T_PART + 1000;
	struct t_ask get;
	struct all all;
	struct t_msg *m;
	unsigned seen = 0;

	(void)state;
	t_part(t, id, 0, 0, total);
	assert_non_null(m = t_next(t));
	assert_true(m->h.request_id == id && (m->h.flags & MKV_WIRE_F_MORE) != 0);
	take_reqs(t, &all);
	for (unsigned i = 0; i < CTL_MSGS - 1; i++)
		assert_non_null(all.msg[i] = ctl_msg_take(t->rail));
	t_make_get(t, &get, "long", 0, 3 << 20, 1000);
	t_say(t, &get, 0);				/* has the last of the memory */
	t_silence(t);
	t_part(t, id, 0, T_PART, total);
	t_silence(t);
	ctl_msg_back(t->rail, all.msg[0]);
	/* The put's own context is then the datagram's, whose answer may be seen first. */
	while (seen != 3) {
		assert_non_null(m = t_next(t));
		assert_int_equal(m->h.status, 0);
		seen |= m->h.request_id == get.id ? 1 : (m->h.flags & MKV_WIRE_F_MORE) == 0 ? 2 : 0;
	}
	for (unsigned i = 1; i < CTL_MSGS - 1; i++)
		ctl_msg_back(t->rail, all.msg[i]);
	give_reqs(t, &all);
	closed(t);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(each_wait_has_its_end),
	};

	return (cmocka_run_group_tests(tests, NULL, NULL));
}
