/*
 * The pool of initiators: turns, what is kept back, limits, and what becomes of those that break, whoever is called at that moment.
 */
#include "config.h"
#include "common/rdma/dc.h"

#include <errno.h>

#include "common/base/assert.h"
#include "tests/lib/death.h"
#include "tests/lib/rnd.h"
#include "tests/unit/rdma_dc_up.h"

#define LINES_MAX	256u
#define LINE_SENDS	32u

struct line {				/* who has a lease */
	struct rig	*rig;
	struct mkv_rdma_qp *qp;
	unsigned	out, good, closed, brokens, leases;
	int		back_in_done, back_in_broken, again;	/* gives it back in that callback; and asks for one at once */
	int		again_breaks;		/* which breaks then and there */
	struct line	*others;		/* and these two with it */
	enum mkv_rdma_fault fault;
};

struct rig {
	struct up	a, b;
	struct mkv_rdma_pool *pool;
	struct mkv_rdma_dct to;
	struct line	line[LINES_MAX];
};

static int	line_lease(struct line *l, uint32_t keep);

static void
line_back(struct line *l)
{
	struct iovec iov = { &l->out, 1 };

	mkv_rdma_pool_back(l->rig->pool, &l->qp);
	assert_null(l->qp);
	if (l->again)
		assert_int_equal(line_lease(l, 0), 0);
	if (!l->again_breaks)
		return;
	/* As many messages as fill a batch leave by themselves. */
	fv_fail(FV_DC_POST, 1, ENOMEM);
	l->again = l->again_breaks = 0;
	for (unsigned i = 0; i < 16; i++) {
		l->out++;
		mkv_rdma_qp_send(l->qp, &iov, 1, 0, l);
	}
	assert_false(mkv_rdma_qp_ready(l->qp));
}

static void
line_on_done(struct mkv_rdma_qp *qp, void *cookie, int status)
{
	struct line *l = mkv_rdma_qp_owner(qp);

	assert_ptr_equal(cookie, l);
	assert_ptr_equal(qp, l->qp);
	l->good += status == 0;
	l->closed += status != 0;
	if (--l->out == 0 && l->back_in_done)
		line_back(l);
}

static void
line_on_broken(struct mkv_rdma_qp *qp, const char *why)
{
	struct line *l = mkv_rdma_qp_owner(qp);

	assert_ptr_equal(qp, l->qp);
	assert_true(strlen(why) > 0);
	l->brokens++;
	l->fault = mkv_rdma_qp_fault(qp);
	for (unsigned i = 0; l->others != NULL && i < 2; i++)
		line_back(&l->others[i]);
	if (l->out == 0 && l->back_in_broken)
		line_back(l);
}

static const struct mkv_rdma_qp_ops line_ops = { NULL, line_on_done, line_on_broken };

static int
line_lease(struct line *l, uint32_t keep)
{
	int e = mkv_rdma_pool_lease(l->rig->pool, &l->rig->to, keep, &line_ops, l, &l->qp);

	l->leases += e == 0;
	assert_int_equal(l->qp != NULL, e == 0);
	return (e);
}

static void
line_write(struct line *l)
{
	struct up *a = &l->rig->a, *b = &l->rig->b;

	l->out++;
	mkv_rdma_qp_write(l->qp, a->area, a->lkey, (uintptr_t)b->area, b->rkey, 64, 0, l);
}

static struct mkv_rdma_qp_conf
line_conf(void)
{
	return ((struct mkv_rdma_qp_conf){ .sends = LINE_SENDS, .send_bytes = 1000, .msgs = 2 });
}

static void
rig_open(struct rig *g, uint32_t n)
{
	struct mkv_rdma_qp_conf c = line_conf();
	char why[256] = "";

	memset(g, 0, sizeof(*g));
	fv_start(2);
	fv_dc(FV_DC_YES);
	up_open_by(&g->a, "fake0", fv_verbs(), n * LINE_SENDS);
	up_open(&g->b, "fake1");
	dc_listen(&g->b);
	g->to = dc_target(&g->b);
	for (unsigned i = 0; i < LINES_MAX; i++)
		g->line[i].rig = g;
	assert_int_equal(mkv_rdma_pool_open(&g->pool, g->a.hub, &c, n, why, sizeof(why)), 0);
	assert_int_equal(mkv_rdma_pool_size(g->pool), n);
	assert_int_equal(mkv_rdma_pool_free(g->pool), n);
}

static void
rig_turn(struct rig *g)
{
	up_turn(&g->a, &g->b);
}

static void
rig_close(struct rig *g)
{
	mkv_rdma_pool_close(&g->pool);
	assert_null(g->pool);
	mkv_rdma_pool_close(&g->pool);
	mkv_rdma_qp_fail(g->b.qp);
	mkv_rdma_qp_destroy(&g->b.qp);
	up_none(&g->a, &g->b);
}

/* The one that was back first is the next, whatever order they were lent in. */
static void
they_take_turns(void **state)
{
	static const unsigned order[] = { 2, 0, 3, 1 };
	struct mkv_rdma_qp *was[4];
	struct rig g;

	(void)state;
	rig_open(&g, 4);
	for (unsigned i = 0; i < 4; i++) {
		assert_int_equal(line_lease(&g.line[i], 0), 0);
		was[i] = g.line[i].qp;
		for (unsigned k = 0; k < i; k++)
			assert_ptr_not_equal(was[k], was[i]);
		assert_int_equal(mkv_rdma_pool_free(g.pool), 3 - i);
		assert_int_equal(mkv_rdma_pool_size(g.pool), 4);
	}
	assert_int_equal(line_lease(&g.line[4], 0), MKV_E_AGAIN);
	for (unsigned i = 0; i < 4; i++)
		line_back(&g.line[order[i]]);
	for (unsigned i = 0; i < 8; i++) {
		assert_int_equal(line_lease(&g.line[5], 0), 0);
		assert_ptr_equal(g.line[5].qp, was[order[i % 4]]);
		line_back(&g.line[5]);
	}
	rig_close(&g);
}

/* The last few are for those who ask with a smaller keep. */
static void
some_are_kept_back(void **state)
{
	struct rig g;

	(void)state;
	rig_open(&g, 8);
	for (unsigned i = 0; i < 8; i++) {
		assert_int_equal(line_lease(&g.line[20], 8 - i), MKV_E_AGAIN);
		if (i >= 6)
			assert_int_equal(line_lease(&g.line[20], 2), MKV_E_AGAIN);
		assert_int_equal(line_lease(&g.line[i], i < 6 ? 2 : 0), 0);
	}
	assert_int_equal(line_lease(&g.line[20], 0), MKV_E_AGAIN);
	line_back(&g.line[0]);
	assert_int_equal(line_lease(&g.line[20], 1), MKV_E_AGAIN);
	assert_int_equal(line_lease(&g.line[20], 0), 0);
	line_back(&g.line[20]);
	for (unsigned i = 1; i < 8; i++)
		line_back(&g.line[i]);
	rig_close(&g);
}

/* A target that is not to be reached costs no initiator, and nobody's turn. */
static void
nowhere_costs_nothing(void **state)
{
	struct mkv_rdma_dct to;
	struct mkv_rdma_qp *qp;
	struct rig g;

	(void)state;
	rig_open(&g, 2);
	to = g.to;
	to.dctn = 0;
	assert_int_equal(mkv_rdma_pool_lease(g.pool, &to, 0, &line_ops, NULL, &qp), MKV_E_PEER);
	assert_null(qp);
	to = g.to;
	to.gid[15] = 99;
	for (unsigned i = 0; i < 5; i++)
		assert_int_equal(mkv_rdma_pool_lease(g.pool, &to, 0, &line_ops, NULL, &qp), MKV_E_UNREACHABLE);
	assert_null(qp);
	assert_int_equal(mkv_rdma_pool_free(g.pool), 2);
	assert_int_equal(line_lease(&g.line[0], 0), 0);
	line_write(&g.line[0]);
	rig_turn(&g);
	assert_int_equal(g.line[0].good, 1);
	line_back(&g.line[0]);
	rig_close(&g);
}

/* 1 and 256, all rings full, every completion still in the queue: it does not overrun. */
static void
the_completion_queue_is_large_enough(void **state)
{
	static const uint32_t n[] = { 1, 2, LINES_MAX };
	static struct rig g;

	(void)state;
	for (unsigned i = 0; i < MKV_ARRAY_LEN(n); i++) {
		rig_open(&g, n[i]);
		for (unsigned round = 0; round < 3; round++) {
			fv_hold_completions(1);
			if (round == 2)
				g.b.rkey ^= 0x5500;		/* errors tell of each one */
			for (unsigned k = 0; k < n[i]; k++) {
				assert_int_equal(line_lease(&g.line[k], 0), 0);
				while (mkv_rdma_qp_room(g.line[k].qp) > 0) {
					line_write(&g.line[k]);
					if (round != 1)
						mkv_rdma_hub_flush(g.a.hub);	/* each is signalled */
				}
				assert_int_equal(g.line[k].out, LINE_SENDS);
			}
			fv_hold_completions(0);
			for (unsigned k = 0; k < 40; k++)
				rig_turn(&g);
			for (unsigned k = 0; k < n[i]; k++) {
				assert_int_equal(g.line[k].out, 0);
				assert_int_equal(g.line[k].brokens, round == 2);
				line_back(&g.line[k]);
			}
			assert_int_equal(mkv_rdma_pool_free(g.pool), n[i]);
		}
		rig_close(&g);
	}
}

static void
a_pool_fits_its_hub(void **state)
{
	struct mkv_rdma_qp_conf c = line_conf();
	struct mkv_rdma_pool *p;
	char why[256] = "";
	struct rig g;

	(void)state;
	rig_open(&g, 4);
	/* The hub was opened for these four. */
	assert_int_equal(mkv_rdma_pool_open(&p, g.a.hub, &c, 1, why, sizeof(why)), MKV_E_CONFIG);
	assert_null(p);
	assert_string_equal(why, "1 DC initiators of 32 work requests do not fit RDMA device fake0: it takes 16384 of one, and 0 are left of those that its completion "
	    "queue is for");
	mkv_rdma_pool_close(&g.pool);
	assert_int_equal(mkv_rdma_pool_open(&p, g.a.hub, &c, 5, why, sizeof(why)), MKV_E_CONFIG);
	c.sends = 32768;
	assert_int_equal(mkv_rdma_pool_open(&p, g.a.hub, &c, 1, why, sizeof(why)), MKV_E_CONFIG);
	c.sends = 32;
	/* The device runs out of them: none is left behind, and the sentence has both numbers. */
	fv_fail(FV_MODIFY_QP, 7, ENOSPC);
	assert_int_equal(mkv_rdma_pool_open(&p, g.a.hub, &c, 4, why, sizeof(why)), MKV_E_SYSTEM);
	assert_null(p);
	assert_string_equal(why, "RDMA device fake0 makes 2 DC initiators, not 4: No space left on device");
	assert_int_equal(mkv_rdma_pool_open(&g.pool, g.a.hub, &c, 4, why, sizeof(why)), 0);
	rig_close(&g);
}

/* An error costs its lease only, and the initiator is back in service with the same number; the others of the pool work on. */
static void
the_broken_are_made_anew(void **state)
{
	uint32_t number;
	struct rig g;

	(void)state;
	rig_open(&g, 3);
	for (unsigned round = 0; round < 30; round++) {
		struct line *bad = &g.line[0], *good = &g.line[1];

		*bad = *good = (struct line){ .rig = &g };
		bad->back_in_done = round % 3 == 1;		/* in the last callback, or when all is over */
		bad->again = round % 6 == 4;
		assert_int_equal(line_lease(bad, 0), 0);
		assert_int_equal(line_lease(good, 0), 0);
		number = mkv_rdma_qp_number(bad->qp);
		line_write(good);
		g.b.rkey ^= 0x5500;
		for (unsigned i = 0; i < 20; i++)
			line_write(bad);
		g.b.rkey ^= 0x5500;
		line_write(good);
		rig_turn(&g);
		assert_int_equal(bad->brokens, 1);
		assert_int_equal(bad->fault, MKV_RDMA_FAULT_ACCESS);
		assert_int_equal(bad->closed, 20);
		assert_int_equal(bad->out, 0);
		if (bad->qp != NULL)
			line_back(bad);
		assert_int_equal(fv_qp_state(number), IBV_QPS_RTS);
		if (bad->qp != NULL) {
			bad->again = 0;
			line_write(bad);
			rig_turn(&g);
			assert_int_equal(bad->good, 1);
			if (bad->qp != NULL)
				line_back(bad);
		}
		rig_turn(&g);
		assert_int_equal(good->good, 2);
		line_back(good);
		assert_int_equal(mkv_rdma_pool_size(g.pool), 3);
		assert_int_equal(mkv_rdma_pool_free(g.pool), 3);
	}
	rig_close(&g);
}

/* In the last callback of its breaking it is given back, lent again, and breaks again: each time its user hears of it once, and in the end it is mended. */
static void
one_breaks_again_and_again(void **state)
{
	struct line *l;
	struct rig g;

	(void)state;
	rig_open(&g, 2);
	assert_int_equal(line_lease(&g.line[1], 0), 0);		/* so that it is the same one every time */
	l = &g.line[0];
	for (unsigned round = 0; round < 5; round++) {
		*l = (struct line){ .rig = &g, .back_in_done = 1, .again = 1, .again_breaks = 1 };
		assert_int_equal(line_lease(l, 0), 0);
		g.b.rkey ^= 0x5500;
		for (unsigned i = 0; i < 3; i++)
			line_write(l);
		g.b.rkey ^= 0x5500;
		rig_turn(&g);
		for (unsigned i = 0; i < 3; i++)
			mkv_rdma_hub_poll(g.a.hub, 16);
		assert_int_equal(l->brokens, 2);
		assert_int_equal(l->closed, 19);
		assert_int_equal(l->out, 0);
		assert_null(l->qp);
		assert_int_equal(mkv_rdma_pool_free(g.pool), 1);
		line_write(&g.line[1]);
		rig_turn(&g);
		assert_int_equal(g.line[1].good, round + 1);
	}
	line_back(&g.line[1]);
	rig_close(&g);
}

/* What cannot be made anew is missing, and nothing else changes, down to the last. */
static void
the_rest_works_on(void **state)
{
	struct line *l;
	struct rig g;

	(void)state;
	rig_open(&g, 4);
	l = &g.line[0];
	for (unsigned i = 1; i <= 4; i++) {
		assert_int_equal(line_lease(l, 0), 0);
		line_write(l);
		if (i == 4)
			fv_quirks(FV_NO_FLUSH);
		fv_hold(1);
		mkv_rdma_hub_flush(g.a.hub);
		mkv_rdma_qp_fail(l->qp);
		while (!mkv_rdma_qp_idle(l->qp))
			mkv_rdma_hub_poll(g.a.hub, 16);
		fv_hold(0);
		if (i < 4)
			fv_fail(FV_MODIFY_QP, i, EIO);		/* RESET, INIT, RTR; the fourth was destroyed */
		line_back(l);
		assert_int_equal(fv_fail(FV_MODIFY_QP, 0, 0), i < 4);
		assert_int_equal(mkv_rdma_pool_size(g.pool), 4 - i);
		assert_int_equal(mkv_rdma_pool_free(g.pool), 4 - i);
		for (unsigned k = 0; k < 8 && i < 4; k++) {
			assert_int_equal(line_lease(&g.line[1], 0), 0);
			line_write(&g.line[1]);
			rig_turn(&g);
			line_back(&g.line[1]);
		}
	}
	assert_int_equal(g.line[1].good, 24);
	assert_int_equal(line_lease(l, 0), MKV_E_AGAIN);
	fv_quirks(0);
	rig_close(&g);
}

/* The completion queue fails, and with it all: the lent ones are told, the free ones are out of service; some are given back from others' callbacks. */
static void
the_device_fails(void **state)
{
	struct rig g;

	(void)state;
	for (unsigned how = 0; how < 6; how++) {
		rig_open(&g, 8);
		g.line[0].others = how >= 4 ? &g.line[1] : NULL;		/* those that are next to be told */
		for (unsigned i = 0; i < 5; i++) {
			assert_int_equal(line_lease(&g.line[i], 0), 0);
			if (i == 0 || i > 2)
				line_write(&g.line[i]);
			g.line[i].back_in_done = how & 1;
			g.line[i].back_in_broken = how >> 1 & 1;
		}
		/* Some have been lent before and are READY, the others are as they were made. */
		for (unsigned i = 5; i < 7; i++) {
			assert_int_equal(line_lease(&g.line[i], 0), 0);
			line_back(&g.line[i]);
		}
		fv_hold(1);
		mkv_rdma_hub_flush(g.a.hub);
		fv_fail(FV_POLL_CQ, 1, EIO);
		assert_int_equal(mkv_rdma_hub_poll(g.a.hub, 16), 0);
		for (unsigned i = 0; i < 5; i++)
			while (g.line[i].out > 0)
				mkv_rdma_hub_poll(g.a.hub, 16);
		for (unsigned i = 0; i < 5; i++) {
			assert_int_equal(g.line[i].brokens, i == 0 || i > 2 || how < 4);
			assert_int_equal(g.line[i].closed, i == 0 || i > 2);
			if (g.line[i].qp != NULL)
				line_back(&g.line[i]);
		}
		/* Only what never was aimed had nothing to break. */
		assert_int_equal(mkv_rdma_pool_size(g.pool), 1);
		assert_int_equal(line_lease(&g.line[9], 0), MKV_E_SYSTEM);
		fv_hold(0);
		rig_close(&g);
	}
}

static void
back_with_something_out(void *arg)
{
	struct rig *g = arg;

	line_write(&g->line[0]);
	line_back(&g->line[0]);
}

static void
back_to_another(void *arg)
{
	struct rig *g = arg;
	struct mkv_rdma_qp_conf c = line_conf();
	struct mkv_rdma_qp *qp;

	line_back(&g->line[0]);
	mkv_rdma_pool_close(&g->pool);
	c.ops = &line_ops;
	assert_int_equal(mkv_rdma_initiator_create(&qp, g->a.hub, &c), 0);
	g->line[0].qp = qp;
	assert_int_equal(mkv_rdma_pool_open(&g->pool, g->a.hub, &c, 1, NULL, 0), 0);
	line_back(&g->line[0]);
}

static void
closes_with_one_lent(void *arg)
{
	mkv_rdma_pool_close(&((struct rig *)arg)->pool);
}

static void
leases_are_kept(void **state)
{
	static void (*const bad[])(void *arg) = { back_with_something_out, back_to_another, closes_with_one_lent };
	struct rig g;

	(void)state;
	rig_open(&g, 2);
	assert_int_equal(line_lease(&g.line[0], 0), 0);
	for (unsigned i = 0; i < MKV_ARRAY_LEN(bad); i++)
		assert_int_equal(death_by_assert(bad[i], &g), 1);
	line_back(&g.line[0]);
	rig_close(&g);
}

/* From one seed: leases, errors, breaks, callbacks that give back and lend again. Every request comes back once, to whom it belongs. */
static void
whatever_happens(void **state)
{
	static struct rig g;
	unsigned leases = 0, brokens = 0, closed = 0, good = 0, wrong;
	struct rnd r;

	(void)state;
	rig_open(&g, 8);
	rnd_init(&r, 79);
	for (unsigned i = 0; i < 30000; i++) {
		struct line *l = &g.line[rnd_below(&r, 12)];

		switch (rnd_below(&r, 10)) {
		case 0: case 1: case 2:
			if (l->qp == NULL) {
				l->back_in_done = (int)rnd_below(&r, 2);
				l->back_in_broken = (int)rnd_below(&r, 2);
				l->again = 0;
				line_lease(l, rnd_below(&r, 3));
			}
			break;
		case 3: case 4: case 5:
			if (l->qp != NULL && mkv_rdma_qp_room(l->qp) > 0) {
				wrong = rnd_below(&r, 40) == 0 ? 0x5500 : 0;
				g.b.rkey ^= wrong;
				line_write(l);
				g.b.rkey ^= wrong;
			}
			break;
		case 6:
			if (l->qp != NULL && l->out == 0)
				line_back(l);
			break;
		case 7: mkv_rdma_hub_flush(g.a.hub); break;
		case 8: mkv_rdma_hub_poll(g.a.hub, rnd_below(&r, 8)); break;
		default:
			if (l->qp != NULL && rnd_below(&r, 20) == 0)
				fv_qp_break(mkv_rdma_qp_number(l->qp));
			else if (l->qp != NULL && rnd_below(&r, 20) == 0)
				mkv_rdma_qp_fail(l->qp);
			else
				fv_hold((int)rnd_below(&r, 2));
		}
		assert_int_equal(mkv_rdma_pool_size(g.pool), 8);
	}
	fv_hold(0);
	for (unsigned i = 0; i < 12; i++) {
		struct line *l = &g.line[i];

		for (unsigned k = 0; l->qp != NULL && l->out > 0 && k < 1000000; k++)
			rig_turn(&g);
		if (l->qp != NULL)
			line_back(l);
		assert_int_equal(l->out, 0);
		leases += l->leases;
		brokens += l->brokens;
		good += l->good;
		closed += l->closed;
	}
	assert_true(leases > 500 && brokens > 20 && good > 2000 && closed > 20);
	assert_int_equal(mkv_rdma_pool_free(g.pool), 8);
	rig_close(&g);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(they_take_turns),
		cmocka_unit_test(some_are_kept_back),
		cmocka_unit_test(nowhere_costs_nothing),
		cmocka_unit_test(the_completion_queue_is_large_enough),
		cmocka_unit_test(a_pool_fits_its_hub),
		cmocka_unit_test(the_broken_are_made_anew),
		cmocka_unit_test(one_breaks_again_and_again),
		cmocka_unit_test(the_rest_works_on),
		cmocka_unit_test(the_device_fails),
		cmocka_unit_test(leases_are_kept),
		cmocka_unit_test(whatever_happens),
	};

	return (cmocka_run_group_tests(tests, NULL, NULL));
}
