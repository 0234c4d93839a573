/*
 * A front's DC initiators among several sessions: what one of them may have while others may want some. A put whose client is silent has none.
 */
#include "config.h"

#include "tests/unit/front_guest.h"
#include "worker/front/rail_priv.h"

#define DCIS	12u			/* of which two are for PING and CANCEL */
#define PART	(1u << 20)		/* of the rig's fronts */

/* The front alone: what comes to the client waits there. */
static void
front_pump(struct t *t)
{
	mkv_rdma_hub_flush(t->u.hub);
	for (unsigned i = 0; i < 8; i++)
		rig_pump(&t->r);
}

/*
 * One that wants all gets half, and while it waits for more the next one is served at once. Nobody spins for what he may not have. Alone it gets all that it wants.
 */
static void
a_session_leaves_some_to_others(void **state)
{
	struct t *t = opened(DCIS);
	const struct mkv_chan *ours, *theirs;
	struct guest g;

	(void)state;
	assert_int_equal(t_put(t, "k", 0, 1000, 1000), 0);
	ours = chan_of(MKV_CONTAINER_OF(t->r.f->conn_used.next, struct mkv_conn, link));
	guest_open(t, &g);
	theirs = chan_of(g.conn);
	t_drives(t, 1);
	for (unsigned i = 0; i < 8; i++)
		(void)t_ask_get(t, "k", 0, 100000 + i * 1000, 1000, 1000);
	front_pump(t);
	assert_int_equal(ours->n_lines, 5);
	assert_int_equal(ours->n_held, 3);
	assert_int_equal(M(dci_shares_total), 1);
	for (unsigned i = 0; i < 5; i++)
		guest_ask_get(t, &g, "k");
	front_pump(t);
	assert_int_equal(theirs->n_lines, 3);
	assert_int_equal(M(dci_shares_total), 2);
	assert_int_equal(mkv_rdma_pool_free(t->rail->pool), DCIS - 8);
	assert_int_equal(rail_dc_is_due(t->rail), 0);
	guest_close(&g);
	for (unsigned i = 0; i < 1000 && ours->n_held != 0; i++)
		rig_pump_ms(&t->r, 1);
	assert_int_equal(ours->n_lines, 8);
	t_drives(t, 0);
	for (unsigned i = 0; i < 8; i++)
		assert_int_equal(t_next(t)->h.status, 0);
	closed(t);
}

/* The first part of a put, which is at its drive. Its client says no more. */
static uint64_t
first_part(struct t *t, const char *key)
{
	uint64_t id = t_put_part(t, key, 0, 0, PART, 0, 0, 1, PART);
	const struct t_msg *m = t_next(t);

	assert_non_null(m);
	assert_int_equal(m->h.request_id, id);
	assert_int_equal(m->h.status, 0);
	assert_true((m->h.flags & MKV_WIRE_F_MORE) != 0);
	return (id);
}

static void
until_free(struct t *t, uint32_t n)
{
	for (unsigned i = 0; i < 1000 && mkv_rdma_pool_free(t->rail->pool) != n; i++)
		t_pump(t);
	assert_int_equal(mkv_rdma_pool_free(t->rail->pool), n);
}

/* As many puts as there are initiators wait for their clients: they hold none, others are served, and each goes on when its client does. */
static void
a_silent_put_holds_none(void **state)
{
	uint64_t id[DCIS + 2];
	struct t *t = opened(DCIS);
	char key[16];

	(void)state;
	for (unsigned i = 0; i < DCIS + 2; i++) {
		snprintf(key, sizeof(key), "k%u", i);
		id[i] = first_part(t, key);
		until_free(t, DCIS);
	}
	assert_int_equal(t_put(t, "other", 0, 1000, 1000), 0);
	for (unsigned i = 0; i < DCIS + 2; i++) {
		const struct t_msg *m;

		(void)t_put_part(t, "", id[i], PART + i, 5000 + i, PART, PART + 5000 + i, 0, 5000 + i);
		assert_non_null(m = t_next(t));
		assert_int_equal(m->h.request_id, id[i]);
		assert_int_equal(m->h.status, 0);
	}
	until_free(t, DCIS);
	assert_int_equal(M(dci_waits_total), 0);
	assert_int_equal(t_get(t, "k3", 0, 3 * PART, 2 * PART, 2 * PART), PART + 5003);
	assert_memory_equal(t->mem + 3 * PART, t->mem, PART);
	assert_memory_equal(t->mem + 4 * PART, t->mem + PART + 3, 5003);
	closed(t);
}

/* Its deadline passes, or it is cancelled: the client hears of it, though the put has no initiator. */
static void
a_silent_put_is_answered(void **state)
{
	struct t *t = opened(DCIS);
	struct mkv_wire_cancel w = { 0 };
	unsigned told = 0;
	uint64_t id, cancel;

	(void)state;
	id = first_part(t, "late");
	until_free(t, DCIS);
	t->r.ahead_ns = 2 * (uint64_t)RIG_PATIENCE_MS * MKV_NS_PER_MS;
	assert_non_null(t_next(t));
	t->r.ahead_ns = 0;
	assert_int_equal(t->msg[(t->at_msg - 1) % T_MSGS].h.request_id, id);
	assert_int_equal(t->msg[(t->at_msg - 1) % T_MSGS].h.status, -MKV_E_TIMEOUT);
	w.request_id = first_part(t, "cancelled");
	until_free(t, DCIS);
	cancel = t_send(t, MKV_WIRE_CANCEL, 0, 0, &w, sizeof(w), 0);
	for (unsigned i = 0; i < 2; i++) {		/* in any order */
		const struct t_msg *m = t_next(t);

		assert_non_null(m);
		told |= m->h.request_id == cancel && m->h.status == 0 ? 1u : 0;
		told |= m->h.request_id == w.request_id && m->h.status == -MKV_E_CANCELLED ? 2u : 0;
	}
	assert_int_equal(told, 3);
	until_free(t, DCIS);
	closed(t);
}

/* None is free when it has something to say: that is said when there is one. The channel may end before. */
static void
an_answer_waits_for_one(void **state)
{
	(void)state;
	for (int broken = 0; broken < 2; broken++) {
		struct t *t = opened(DCIS);
		struct mkv_chan *ch = chan_of(MKV_CONTAINER_OF(t->r.f->conn_used.next, struct mkv_conn, link));
		uint64_t id = first_part(t, "late");
		unsigned told = 0;

		until_free(t, DCIS);
		assert_int_equal(t_put(t, "k", 0, 1000, 1000), 0);
		until_free(t, DCIS);
		t_drives(t, 1);
		for (unsigned i = 0; i < DCIS - 2; i++)
			(void)t_ask_get(t, "k", 0, 100000 + i * 1000, 1000, 1000);
		front_pump(t);
		fv_hold(1);
		for (unsigned i = 0; i < 2; i++) {
			struct mkv_wire_cancel w = { .request_id = 1 };

			(void)t_send(t, MKV_WIRE_CANCEL, 0, 0, &w, sizeof(w), 0);
		}
		mkv_rdma_hub_flush(t->u.hub);
		assert_int_equal(fv_step(2), 2);		/* they come; their answers do not leave */
		front_pump(t);
		assert_int_equal(mkv_rdma_pool_free(t->rail->pool), 0);
		t->r.ahead_ns = 2 * (uint64_t)RIG_PATIENCE_MS * MKV_NS_PER_MS;
		front_pump(t);
		t->r.ahead_ns = 0;
		assert_false(mkv_list_empty(&ch->late));
		if (broken) {
			chan_break(ch, "the test");
			assert_true(mkv_list_empty(&ch->late));
		}
		fv_hold(0);
		t_drives(t, 0);
		if (!broken) {
			for (const struct t_msg *m; told == 0 && (m = t_next(t)) != NULL;)
				told = m->h.request_id == id && m->h.status == -MKV_E_TIMEOUT;
			assert_int_equal(told, 1);
			until_free(t, DCIS);
		}
		closed(t);
	}
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_session_leaves_some_to_others),
		cmocka_unit_test(a_silent_put_holds_none),
		cmocka_unit_test(a_silent_put_is_answered),
		cmocka_unit_test(an_answer_waits_for_one),
	};

	return (cmocka_run_group_tests(tests, NULL, NULL));
}
