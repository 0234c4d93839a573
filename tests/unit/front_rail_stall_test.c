/*
 * A far end that answers too little for anything to end, and enough for nothing to fail: what is under way to it is given up, and the memory of its requests serves
 * others. Time passes by setting back when something moved.
 */
#include "config.h"

#include "tests/unit/front_rail_up.h"
#include "worker/front/rail_priv.h"

#define STALL_NS	(30 * MKV_NS_PER_SEC)
#define BYTES		(12 * T_PIECE)

static uint32_t num_dcis;

/* The one that has something out. */
static struct mkv_line *
t_line(struct t *t)
{
	struct mkv_chan *ch = chan_of(MKV_CONTAINER_OF(t->r.f->conn_used.next, struct mkv_conn, link));

	if (!ch->dc)
		return (ch->line);
	MKV_LIST_FOREACH(it, &ch->lines)
		if (MKV_CONTAINER_OF(it, struct mkv_line, link)->rec_head != MKV_CONTAINER_OF(it, struct mkv_line, link)->rec_tail)
			return (MKV_CONTAINER_OF(it, struct mkv_line, link));
	return (NULL);
}

/* Its message has reached the front, and nothing that the front posts comes back. */
static void
t_begin(struct t *t)
{
	t->deadline_us = MKV_WIRE_DEADLINE_MAX_US;
	fv_hold(1);
	(void)t_put_part(t, "k", 0, 0, BYTES, 0, BYTES, 0, BYTES);
	t_pump(t);
	assert_int_equal(fv_step(1), 1);
	t_pump(t);
	assert_true(fv_held() > 1);
	assert_int_equal(t->r.f->n_reqs, 1);
}

static void
t_looks(struct t *t)
{
	const uint64_t until_ns = mkv_now_ns() + 3 * RAIL_WATCH_NS;

	while (mkv_now_ns() < until_ns && t->r.f->n_reqs != 0)
		rig_pump_ms(&t->r, 10);
}

static void
memory_comes_back(void **state)
{
	struct t *t = opened(num_dcis);

	(void)state;
	t->r.f->conf.stall_ns = STALL_NS;
	t_begin(t);
	t_line(t)->moved_ns -= STALL_NS;
	t_looks(t);
	assert_int_equal(t->r.f->n_reqs, 0);
	assert_int_equal(mkv_metric_get(t->r.m, MKV_M_front_channels_broken_total, 0), 1);
	t_assert_broken(t);
	closed(t);
}

/* Slow is not stalled: a piece each 20 seconds. */
static void
what_moves_goes_on(void **state)
{
	struct t *t = opened(num_dcis);
	struct t_msg *m;

	(void)state;
	t->r.f->conf.stall_ns = STALL_NS;
	t_begin(t);
	for (unsigned i = 0; i < 2; i++) {
		assert_int_equal(fv_step(4), 4);		/* of those that are out the last one is told of */
		t_pump(t);
		assert_non_null(t_line(t));
		t_line(t)->moved_ns -= STALL_NS * 2 / 3;
		t_looks(t);
	}
	fv_hold(0);
	assert_non_null(m = t_next(t));
	assert_int_equal(m->h.status, 0);
	assert_int_equal(mkv_metric_get(t->r.m, MKV_M_front_channels_broken_total, 0), 0);
	closed(t);
}

/* Of many requests one comes back each 20 seconds, and there is always something out. By DC each has a line of its own. */
static void
one_of_many_moves(void **state)
{
	struct t *t = opened(0);

	(void)state;
	t->r.f->conf.stall_ns = STALL_NS;
	t->deadline_us = MKV_WIRE_DEADLINE_MAX_US;
	fv_hold(1);
	for (unsigned i = 0; i < 4; i++)
		(void)t_put_part(t, (const char *[]){ "a", "b", "c", "d" }[i], 0, 0, 1000, 0, 1000, 0, 1000);
	t_pump(t);
	assert_int_equal(fv_step(4), 4);
	t_pump(t);
	assert_int_equal(fv_held(), 4);
	for (unsigned i = 0; i < 2; i++) {
		t_line(t)->moved_ns -= STALL_NS * 2 / 3;
		assert_int_equal(fv_step(1), 1);
		t_pump(t);
	}
	assert_true(mkv_now_ns() - t_line(t)->moved_ns < STALL_NS * 2 / 3);
	fv_hold(0);
	for (unsigned i = 0; i < 4; i++)
		assert_int_equal(t_next(t)->h.status, 0);
	closed(t);
}

/* One that answers no READ at all would keep them for ever with some devices: it is refused. */
static void
a_client_that_answers_no_read(void **state)
{
	struct t *t = opened(num_dcis);
	struct mkv_wire_attach a;

	(void)state;
	t_detach(t);
	t_qp(t);
	a = t_want(t, 2);
	a.rd_atomic_in = 0;
	assert_int_not_equal(t_ask_for(&t->c, &a), 0);
	t_drop_qps(t);
	t_attach(t, 2);
	rig_fill(t->mem, BYTES, 1);
	assert_int_equal(t_put(t, "k", 0, BYTES, BYTES), 0);
	closed(t);
}

int
main(void)
{
	const struct CMUnitTest both[] = {
		cmocka_unit_test(memory_comes_back), cmocka_unit_test(what_moves_goes_on), cmocka_unit_test(a_client_that_answers_no_read),
	};
	const struct CMUnitTest rc[] = { cmocka_unit_test(one_of_many_moves) };
	int failed = cmocka_run_group_tests_name("by RC", both, NULL, NULL) + cmocka_run_group_tests_name("by RC alone", rc, NULL, NULL);

	num_dcis = 8;
	return (failed + cmocka_run_group_tests_name("by DC", both, NULL, NULL));
}
