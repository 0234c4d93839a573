/*
 * Queue pairs that break, in every way that was seen on real devices or written down of them: what their user hears, in which order, that it ends, and that
 * nothing of the far end gets through afterwards.
 */
#include "config.h"
#include "common/rdma/qp.h"

#include <errno.h>

#include "common/base/assert.h"
#include "common/rdma/dev_priv.h"
#include "tests/lib/death.h"
#include "tests/unit/rdma_break_up.h"

static void
breaks(struct up *a, struct up *b, const struct mistake *m)
{
	up_pair(a, b);
	make_mistake(a, b, m);
	assert_false(mkv_rdma_qp_ready(a->qp));
	up_end(a, b);
}

static void
every_mistake_has_its_words(void **state)
{
	struct mkv_rdma_hub *was;
	struct up a, b;

	(void)state;
	up_both(&a, &b);
	for (unsigned i = 0; i < MKV_ARRAY_LEN(mistakes); i++)
		breaks(&a, &b, &mistakes[i]);
	fv_quirks(FV_FLUSH_FIRST);
	breaks(&a, &b, &flushed_mistake);
	/* But it waits for something better to say. */
	up_pair(&a, &b);
	for (unsigned i = 0; i < 5; i++)
		wrong_lkey(&a, &b);
	mkv_rdma_hub_flush(a.hub);
	for (unsigned i = 0; i < 5; i++) {
		assert_int_equal(a.brokens + a.dones, 0);
		assert_int_equal(mkv_rdma_hub_poll(a.hub, 1), 1);
	}
	assert_int_equal(a.brokens, 1);
	up_rest(&a);
	up_end(&a, &b);
	fv_quirks(0);
	was = short_receives(&b, UP_RECVS);
	breaks(&a, &b, &long_mistake);
	short_receives_end(&b, was);
	up_none(&a, &b);
}

/* The far end hears of its fault as well, where its device tells. */
static void
the_far_end_breaks_too(void **state)
{
	struct mkv_rdma_hub *was;
	struct up a, b;

	(void)state;
	up_both(&a, &b);
	was = short_receives(&b, 2);
	for (unsigned i = 0; i < 6; i++) {		/* more often than it has receives: none is lost */
		up_pair(&a, &b);
		too_long_a_message(&a, &b);
		up_turn(&a, &b);
		up_rest(&b);
		assert_int_equal(b.brokens, 1);
		assert_non_null(strstr(b.why, "receive"));
		up_end(&a, &b);
	}
	short_receives_end(&b, was);
	up_none(&a, &b);
}

static void
nobody_answers(void **state)
{
	struct up a, b;

	(void)state;
	up_both(&a, &b);
	/* Gone, broken, or its port down, or ours. */
	for (unsigned i = 0; i < 4; i++) {
		up_pair(&a, &b);
		up_write(&a, &b, 0, 64, 0);
		up_turn(&a, &b);
		assert_int_equal(a.good, 1);
		if (i < 2) {
			mkv_rdma_qp_fail(b.qp);
			up_rest(&b);
			if (i == 1)
				mkv_rdma_qp_destroy(&b.qp);
		} else {
			fv_port(i - 2, 1, 0);
		}
		up_write(&a, &b, 0, 64, 0);
		up_turn(&a, &b);
		up_rest(&a);
		assert_int_equal(a.brokens, 1);
		assert_int_equal(a.closed, 1);
		assert_non_null(strstr(a.why, "does not answer"));
		if (i >= 2)
			fv_port(i - 2, 1, 1);
		if (b.qp == NULL) {
			mkv_rdma_qp_destroy(&a.qp);
			continue;
		}
		up_end(&a, &b);
	}
	up_none(&a, &b);
}

static void
no_receives_are_left(void **state)
{
	struct up a, b;

	(void)state;
	up_both(&a, &b);
	fv_quirks(FV_RNR_AT_ONCE);
	up_pair(&a, &b);
	b.keep = UP_RECVS;
	for (unsigned i = 0; i < UP_RECVS + 2; i++)
		up_say(&a, "hello", 6, 0);
	up_turn(&a, &b);
	up_rest(&a);
	assert_int_equal(b.msgs, UP_RECVS);
	assert_int_equal(a.brokens, 1);
	assert_true(a.closed >= 2);
	assert_non_null(strstr(a.why, "posts no receives"));
	while (b.n_kept > 0)
		mkv_rdma_rx_back(b.hub, b.kept[--b.n_kept]);
	up_end(&a, &b);
	up_none(&a, &b);
}

static void
the_fence_holds(void **state)
{
	struct up a, b;

	(void)state;
	up_both(&a, &b);
	up_pair(&a, &b);
	fence_in_the_middle(&a, &b, NULL, IBV_QPS_ERR);
	up_end(&a, &b);
	up_none(&a, &b);
}

static void
what_is_out_comes_back(void **state)
{
	struct up a, b;

	(void)state;
	up_both(&a, &b);
	for (unsigned how = 0; how < 4; how++) {
		up_pair(&a, &b);
		fail_with_requests_out(&a, &b, how);
		up_end(&a, &b);
	}
	up_none(&a, &b);
}

/* The far end did what it may not, and this one had nothing under way: the device's event is the only word of it. */
static void
an_idle_one_hears_by_the_event(void **state)
{
	uint32_t qpn = 0, number;
	struct up a, b;

	(void)state;
	up_both(&a, &b);
	up_pair(&a, &b);
	number = mkv_rdma_qp_number(b.qp);
	wrong_rkey(&a, &b);
	up_turn(&a, &b);
	up_rest(&a);
	assert_true(mkv_rdma_qp_ready(b.qp));
	assert_int_equal(mkv_rdma_dev_event(b.dev, &qpn), MKV_RDMA_EV_QP);
	assert_int_equal(qpn, number);
	mkv_rdma_hub_failed(b.hub, number + 100);	/* nobody's */
	assert_true(mkv_rdma_qp_ready(b.qp));
	mkv_rdma_hub_failed(b.hub, number);
	assert_int_equal(b.brokens, 0);			/* never from inside of another call */
	up_rest(&b);
	assert_int_equal(b.brokens, 1);
	assert_non_null(strstr(b.why, "the device ended it"));
	mkv_rdma_hub_failed(b.hub, number);
	up_end(&a, &b);
	assert_int_equal(b.brokens, 1);
	/* One that is destroyed before anybody asked: the device says nothing of it any more. */
	up_pair(&a, &b);
	wrong_rkey(&a, &b);
	up_turn(&a, &b);
	up_rest(&a);
	up_end(&a, &b);
	assert_int_equal(mkv_rdma_dev_event(b.dev, &qpn), MKV_RDMA_EV_NONE);
	up_none(&a, &b);
}

/* A device that tells of nothing any more: the queue pair is destroyed early, and that is the end of it. */
static void
silence_ends(void **state)
{
	uint64_t t0;
	struct up a, b;

	(void)state;
	up_both(&a, &b);
	for (unsigned round = 0; round < 3; round++) {
		up_pair(&a, &b);
		fv_hold(1);
		for (unsigned i = 0; i < 20; i++)
			up_write(&a, &b, i * 64, 64, 0);
		mkv_rdma_hub_flush(a.hub);
		fv_step(16);
		fv_quirks(FV_NO_FLUSH);
		if (round == 0)
			mkv_rdma_qp_fail(a.qp);
		else if (round == 1)
			fv_qp_break(mkv_rdma_qp_number(a.qp));	/* nothing is known of it here: a user hears by the device's event */
		else
			fv_gone(0);
		t0 = mkv_now_ns();
		mkv_rdma_qp_fail(a.qp);
		up_rest(&a);
		assert_true(mkv_now_ns() - t0 < 10 * MKV_NS_PER_SEC);
		assert_int_equal(a.good, 16);
		assert_int_equal(a.closed, 4);
		fv_quirks(0);
		fv_hold(0);
		up_end(&a, &b);
	}
	up_none(&a, &b);
}

/* ERR is refused: destroying is the fence then. */
static void
a_fence_that_is_refused(void **state)
{
	uint32_t number;
	struct up a, b;

	(void)state;
	up_both(&a, &b);
	up_pair(&a, &b);
	fv_hold(1);
	up_write(&a, &b, 0, 4096, 0);
	up_write(&b, &a, 8192, 64, 0);
	up_say(&a, "late", 5, 0);
	mkv_rdma_hub_flush(a.hub);
	mkv_rdma_hub_flush(b.hub);
	number = mkv_rdma_qp_number(b.qp);
	fv_fail(FV_MODIFY_QP, 1, EIO);
	mkv_rdma_qp_fail(b.qp);
	assert_int_equal(fv_fail(FV_MODIFY_QP, 0, 0), 1);
	assert_int_equal(fv_qp_state(number), IBV_QPS_UNKNOWN);
	up_rest(&b);
	assert_int_equal(b.closed, 1);
	fv_hold(0);
	up_turn(&a, &b);
	up_rest(&a);
	assert_int_equal(b.area[0], 0);
	assert_int_equal(b.msgs, 0);
	up_end(&a, &b);
	up_none(&a, &b);
}

/* The device takes only some of a batch, or nothing. */
static void
posting_fails(void **state)
{
	struct up a, b;

	(void)state;
	up_both(&a, &b);
	up_pair(&a, &b);
	for (unsigned i = 0; i < 20; i++)
		up_write(&a, &b, i * 64, 64, 0);
	fv_fail(FV_POST_SEND, 1, ENOMEM);
	mkv_rdma_hub_flush(a.hub);
	assert_int_equal(a.brokens + a.dones, 0);
	assert_false(mkv_rdma_qp_ready(a.qp));
	assert_int_equal(mkv_rdma_qp_room(a.qp), 0);
	for (unsigned i = 0; i < 3; i++)		/* who looked for room before may go on */
		up_write(&a, &b, 0, 64, 0);
	up_say(&a, "x", 1, 0);
	up_rest(&a);
	assert_int_equal(a.brokens, 1);
	assert_int_equal(a.closed, 24);
	assert_non_null(strstr(a.why, "takes no work request: Cannot allocate memory"));
	up_end(&a, &b);
	/* One is refused in the middle: what stands before it is out without a signal. */
	up_pair(&a, &b);
	for (unsigned i = 0; i < 5; i++)
		up_write(&a, &b, i * 64, 64, 0);
	fv_refuse_wr(3);
	up_turn(&a, &b);
	up_rest(&a);
	assert_int_equal(a.brokens, 1);
	assert_int_equal(a.good, 0);
	assert_int_equal(a.closed, 5);
	up_end(&a, &b);
	/* The same, and the device does not tell of those two: they are the device's until the queue pair is destroyed. */
	up_pair(&a, &b);
	fv_hold(1);
	fv_quirks(FV_NO_FLUSH);
	for (unsigned i = 0; i < 5; i++)
		up_write(&a, &b, i * 64, 64, 0);
	fv_refuse_wr(3);
	up_turn(&a, &b);
	assert_int_equal(a.dones, 0);
	up_rest(&a);
	assert_int_equal(a.closed, 5);
	assert_int_equal(fv_qp_state(mkv_rdma_qp_number(a.qp)), IBV_QPS_UNKNOWN);
	fv_quirks(0);
	fv_hold(0);
	up_end(&a, &b);
	up_none(&a, &b);
}

static void
fails_itself(struct up *u)
{
	mkv_rdma_qp_fail(u->qp);
	mkv_rdma_qp_fail(u->far->qp);
}

/* fail() from inside of callbacks, of this queue pair and the other. */
static void
callbacks_may_fail(void **state)
{
	struct up a, b;

	(void)state;
	up_both(&a, &b);
	for (unsigned i = 0; i < 2; i++) {
		up_pair(&a, &b);
		if (i == 0)
			a.on_done = fails_itself;
		else
			a.on_broken = fails_itself;
		fv_hold(1);
		for (unsigned k = 0; k < 40; k++) {
			up_write(&a, &b, 0, 64, 0);
			up_write(&b, &a, 64, 64, 0);
		}
		mkv_rdma_hub_flush(a.hub);
		mkv_rdma_hub_flush(b.hub);
		fv_step(i == 0 ? 40 : 20);
		if (i == 1)
			fv_qp_break(mkv_rdma_qp_number(a.qp));
		up_turn(&a, &b);
		up_rest(&a);
		up_rest(&b);
		assert_int_equal(a.brokens, i);
		assert_int_equal(b.brokens, 0);
		assert_int_equal(a.dones, 40);
		assert_int_equal(b.dones, 40);
		fv_hold(0);
		up_end(&a, &b);
	}
	up_none(&a, &b);
}

/* Completions that lie in the queue when their queue pair is destroyed meet nobody, also not the next one of that number; receives in them are not lost. */
static void
late_completions_meet_nobody(void **state)
{
	uint32_t number;
	struct up a, b;

	(void)state;
	up_both(&a, &b);
	for (unsigned i = 0; i < 4 * UP_RECVS; i++) {
		fv_next_qpn(100);
		up_pair(&a, &b);
		number = mkv_rdma_qp_number(b.qp);
		assert_int_equal(number, 101);
		fv_hold_completions(i % 2);
		up_say(&a, "to the old one", 15, 0);
		if (i % 3 != 0)		/* else it is at rest at once, and the message lies in the queue when it is destroyed */
			up_write(&b, &a, 0, 64, 0);
		mkv_rdma_hub_flush(a.hub);
		mkv_rdma_hub_flush(b.hub);
		mkv_rdma_qp_fail(b.qp);
		fv_hold_completions(0);
		up_rest(&b);
		mkv_rdma_qp_destroy(&b.qp);
		assert_int_equal(b.msgs, 0);		/* who gave it up hears of it no more */
		mkv_rdma_qp_fail(a.qp);
		up_rest(&a);
		mkv_rdma_qp_destroy(&a.qp);
		fv_next_qpn(100);
		up_pair(&a, &b);
		up_turn(&a, &b);
		assert_int_equal(b.msgs + b.dones + a.dones, 0);
		up_say(&a, "to the new one", 15, 0);
		up_turn(&a, &b);
		assert_int_equal(b.msgs, 1);
		assert_string_equal((char *)b.last, "to the new one");
		up_end(&a, &b);
	}
	assert_int_equal(fv_count().rnr_waits, 0);
	up_none(&a, &b);
}

/* A device that reports only after it destroyed the queue pair: sends meet nobody even if the number is taken again, receives are posted again. */
static void
completions_after_destruction(void **state)
{
	struct up a, b;

	(void)state;
	up_both(&a, &b);
	for (unsigned i = 0; i < 2 * UP_RECVS; i++) {
		fv_next_qpn(100);
		up_pair(&a, &b);
		fv_hold_completions(1);
		if (i % 2 == 0)
			up_say(&a, "late", 5, 0);
		for (unsigned k = 0; k < 5; k++)
			up_write(&b, &a, 0, 64, MKV_RDMA_SIGNAL);
		mkv_rdma_hub_flush(a.hub);
		mkv_rdma_hub_flush(b.hub);
		up_end(&a, &b);
		assert_int_equal(b.closed, 5);
		fv_next_qpn(i % 2 == 0 ? 200 : 100);
		up_pair(&a, &b);
		for (unsigned k = 0; k < 9; k++)
			up_write(&b, &a, 0, 64, 0);
		fv_hold(1);
		mkv_rdma_hub_flush(b.hub);
		fv_hold_completions(0);
		up_turn(&a, &b);
		assert_int_equal(b.msgs + b.dones, 0);
		fv_hold(0);
		up_say(&a, "new", 4, 0);
		up_turn(&a, &b);
		assert_int_equal(b.msgs, 1);
		assert_int_equal(b.good, 9);
		up_end(&a, &b);
	}
	assert_int_equal(fv_count().rnr_waits, 0);
	up_none(&a, &b);
}

/* The completion queue itself fails: all queue pairs of the hub break. */
static void
the_completion_queue_fails(void **state)
{
	struct up a, b;

	(void)state;
	up_both(&a, &b);
	up_pair(&a, &b);
	for (unsigned i = 0; i < 20; i++)
		up_write(&a, &b, 0, 64, 0);
	mkv_rdma_hub_flush(a.hub);
	fv_fail(FV_POLL_CQ, 1, EIO);
	mkv_rdma_hub_poll(a.hub, 16);
	up_rest(&a);
	assert_int_equal(a.brokens, 1);
	assert_int_equal(a.closed, 20);
	up_end(&a, &b);
	up_none(&a, &b);
}

/* The same is found out while requests of two queue pairs are posted: the first is refused, and its state cannot be changed either. */
static void
the_completion_queue_fails_in_a_flush(void **state)
{
	struct up a, b, a2, b2;

	(void)state;
	up_both(&a, &b);
	a2 = a;
	b2 = b;
	up_pair(&a, &b);
	up_pair(&a2, &b2);
	up_write(&a, &b, 0, 64, 0);
	up_write(&a2, &b2, 0, 64, 0);
	fv_fail(FV_POST_SEND, 1, EIO);
	fv_fail(FV_MODIFY_QP, 1, EIO);
	fv_fail(FV_POLL_CQ, 1, EIO);
	mkv_rdma_hub_flush(a.hub);
	up_rest(&a);
	up_rest(&a2);
	assert_int_equal(a.brokens, 1);
	assert_int_equal(a2.brokens, 1);
	assert_int_equal(a.closed + a2.closed, 2);
	up_end(&a, &b);
	up_end(&a2, &b2);
	up_none(&a, &b);
}

/* A soft device's ERR leaves the packet in hand on its way: there the fence is the end of the queue pair, which waits for it. */
static void
the_packet_in_hand(void **state)
{
	uint8_t poison[4096];
	struct up a, b;

	(void)state;
	memset(poison, 0x66, sizeof(poison));
	for (int soft = 0; soft < 2; soft++) {
		up_both(&a, &b);
		b.dev->is_soft = soft;
		up_pair(&a, &b);
		fv_quirks(FV_IN_HAND);
		fv_hold(1);
		memset(a.area, 7, UP_AREA);
		up_write(&a, &b, 0, 8192, 0);
		mkv_rdma_hub_flush(a.hub);
		assert_false(mkv_rdma_qp_fenced(b.qp));
		mkv_rdma_qp_fail(b.qp);
		assert_true(mkv_rdma_qp_fenced(b.qp));
		memset(b.area, 0x66, UP_AREA);
		assert_int_equal(fv_land(), !soft);
		assert_int_equal(memcmp(b.area, poison, sizeof(poison)) == 0, soft);
		fv_quirks(0);
		fv_hold(0);
		up_end(&a, &b);
		up_none(&a, &b);
	}
}

/* What its user hears is the same, though the queue pair is gone by then: the reason, and each request once. */
static void
a_soft_device_says_the_same(void **state)
{
	struct up a, b;

	(void)state;
	up_both(&a, &b);
	a.dev->is_soft = b.dev->is_soft = 1;
	for (unsigned i = 0; i < MKV_ARRAY_LEN(mistakes); i++)
		breaks(&a, &b, &mistakes[i]);
	fv_quirks(FV_FLUSH_FIRST);
	breaks(&a, &b, &flushed_mistake);
	fv_quirks(0);
	up_pair(&a, &b);
	fence_in_the_middle(&a, &b, NULL, IBV_QPS_UNKNOWN);
	up_end(&a, &b);
	up_none(&a, &b);
}

static void
posts_to_a_broken_one(void *arg)
{
	struct up *a = arg;

	up_write(a, a->far, 0, 64, 0);
}

/* States: what is only for a ready one ends us, for an idle one at least. */
static void
states_are_kept(void **state)
{
	struct mkv_rdma_qp_conf c;
	struct up a, b;

	(void)state;
	up_both(&a, &b);
	c = up_conf(&a);
	assert_int_equal(mkv_rdma_qp_create(&a.qp, a.hub, &c), 0);
	assert_false(mkv_rdma_qp_ready(a.qp));
	assert_false(mkv_rdma_qp_idle(a.qp));
	assert_int_equal(mkv_rdma_qp_room(a.qp), 0);
	assert_ptr_equal(mkv_rdma_qp_owner(a.qp), &a);
	assert_ptr_equal(mkv_rdma_qp_hub(a.qp), a.hub);
	mkv_rdma_qp_fail(a.qp);
	assert_true(mkv_rdma_qp_idle(a.qp));
	mkv_rdma_qp_destroy(&a.qp);
	assert_null(a.qp);
	mkv_rdma_qp_destroy(&a.qp);
	up_pair(&a, &b);
	mkv_rdma_qp_fail(a.qp);
	assert_int_equal(death_by_assert(posts_to_a_broken_one, &a), 1);
	up_end(&a, &b);
	up_none(&a, &b);
}

/* Many rounds from one seed: pieces, messages, steps, breaks, in any order. What holds is checked by the callbacks. */
static void
whatever_happens(void **state)
{
	struct up a, b;
	struct rnd r;

	(void)state;
	up_both(&a, &b);
	rnd_init(&r, 77);
	for (unsigned round = 0; round < 300; round++) {
		a.dev->is_soft = b.dev->is_soft = (int)rnd_below(&r, 2);
		up_pair(&a, &b);
		fv_quirks(rnd_below(&r, 8));
		fv_hold((int)rnd_below(&r, 2));
		for (unsigned i = 0; i < 60; i++) {
			struct up *u = rnd_below(&r, 2) ? &a : &b;

			something_happens(&r, u, u->far, 64);
		}
		fv_hold(0);
		up_end(&a, &b);
	}
	up_none(&a, &b);
}

static void
every_status_has_words(void **state)
{
	static const enum ibv_wc_status of[] = { IBV_WC_SUCCESS, IBV_WC_LOC_LEN_ERR, IBV_WC_LOC_QP_OP_ERR, IBV_WC_LOC_PROT_ERR, IBV_WC_WR_FLUSH_ERR,
		IBV_WC_LOC_ACCESS_ERR, IBV_WC_BAD_RESP_ERR, IBV_WC_REM_INV_REQ_ERR, IBV_WC_REM_ACCESS_ERR, IBV_WC_REM_OP_ERR, IBV_WC_RETRY_EXC_ERR,
		IBV_WC_RNR_RETRY_EXC_ERR, IBV_WC_REM_ABORT_ERR, IBV_WC_FATAL_ERR, IBV_WC_RESP_TIMEOUT_ERR, (enum ibv_wc_status)999 };

	(void)state;
	for (unsigned i = 0; i < MKV_ARRAY_LEN(of); i++)
		for (unsigned k = 0; k < i; k++)
			assert_string_not_equal(rdma_wc_text(of[i]), rdma_wc_text(of[k]));
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_mistake_has_its_words),
		cmocka_unit_test(the_far_end_breaks_too),
		cmocka_unit_test(nobody_answers),
		cmocka_unit_test(no_receives_are_left),
		cmocka_unit_test(the_fence_holds),
		cmocka_unit_test(the_packet_in_hand),
		cmocka_unit_test(a_soft_device_says_the_same),
		cmocka_unit_test(what_is_out_comes_back),
		cmocka_unit_test(an_idle_one_hears_by_the_event),
		cmocka_unit_test(silence_ends),
		cmocka_unit_test(a_fence_that_is_refused),
		cmocka_unit_test(posting_fails),
		cmocka_unit_test(callbacks_may_fail),
		cmocka_unit_test(late_completions_meet_nobody),
		cmocka_unit_test(completions_after_destruction),
		cmocka_unit_test(the_completion_queue_fails),
		cmocka_unit_test(the_completion_queue_fails_in_a_flush),
		cmocka_unit_test(states_are_kept),
		cmocka_unit_test(whatever_happens),
		cmocka_unit_test(every_status_has_words),
	};

	return (cmocka_run_group_tests(tests, NULL, NULL));
}
