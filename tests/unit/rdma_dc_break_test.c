/*
 * What breaks an initiator, and what does not: each mistake breaks the one that made it and no other, its kind is known, and it can be made anew. A target that is
 * failed is gone when the call returns.
 */
#include "config.h"
#include "common/rdma/dc.h"

#include <errno.h>

#include "common/base/assert.h"
#include "tests/unit/rdma_break_up.h"
#include "tests/unit/rdma_dc_up.h"

/* Another initiator of a's device, aimed at the same target: it goes on whatever the first one does. */
static void
other_open(struct up *o, const struct up *a, struct up *b)
{
	struct mkv_rdma_dct to = dc_target(b);
	struct mkv_rdma_qp_conf c;

	*o = *a;
	up_fresh(o);
	c = up_conf(o);
	assert_int_equal(mkv_rdma_initiator_create(&o->qp, a->hub, &c), 0);
	assert_int_equal(mkv_rdma_initiator_aim(o->qp, &to), 0);
}

static void
other_works(struct up *o, struct up *b)
{
	unsigned good = o->good;

	up_write(o, b, 64, 64, 0);
	up_turn(o, b);
	assert_int_equal(o->good, good + 1);
	assert_true(mkv_rdma_qp_ready(o->qp));
}

static void
other_close(struct up *o)
{
	mkv_rdma_qp_fail(o->qp);
	up_rest(o);
	mkv_rdma_qp_destroy(&o->qp);
}

/* a's initiator is made anew, with the number that it had, and carries a full ring. */
static void
mend(struct up *a, struct up *b)
{
	uint32_t number = mkv_rdma_qp_number(a->qp);
	struct mkv_rdma_dct to = dc_target(b);

	up_rest(a);
	assert_int_equal(mkv_rdma_initiator_reset(a->qp), 0);
	assert_false(mkv_rdma_qp_ready(a->qp) || mkv_rdma_qp_idle(a->qp));
	assert_int_equal(mkv_rdma_qp_fault(a->qp), MKV_RDMA_FAULT_NONE);
	assert_int_equal(fv_qp_state(number), IBV_QPS_RTS);
	assert_int_equal(mkv_rdma_qp_number(a->qp), number);
	up_fresh(a);
	assert_int_equal(mkv_rdma_initiator_aim(a->qp, &to), 0);
	assert_int_equal(mkv_rdma_qp_room(a->qp), UP_SENDS);
	for (unsigned i = 0; i < UP_SENDS; i++)
		up_write(a, b, i * 64, 64, 0);
	up_turn(a, b);
	assert_int_equal(a->good, UP_SENDS);
	up_fresh(a);
}

static void
broke_and_is_mended(struct up *a, struct up *b, const char *word, enum mkv_rdma_fault fault)
{
	up_rest(a);
	assert_broke(a, word, fault);
	mend(a, b);
}

/* a's initiator breaks; the target and the other one go on. */
static void
breaks(struct up *a, struct up *b, struct up *o, const struct mistake *m)
{
	make_mistake(a, b, m);
	assert_true(mkv_rdma_qp_ready(b->qp));
	other_works(o, b);
	mend(a, b);
}

static void
a_message(struct up *a, struct up *b)
{
	(void)b;
	up_say(a, "hello", 6, 0);
}

static void
a_mistake_breaks_its_initiator_alone(void **state)
{
	static const struct mistake unheard = { a_message, "posts no receives", MKV_RDMA_FAULT_RNR };
	struct up a, b, o;

	(void)state;
	dc_both(&a, &b);
	dc_pair(&a, &b);
	other_open(&o, &a, &b);
	for (unsigned i = 0; i < MKV_ARRAY_LEN(mistakes); i++)
		breaks(&a, &b, &o, &mistakes[i]);
	fv_quirks(FV_FLUSH_FIRST);
	breaks(&a, &b, &o, &flushed_mistake);
	/* No receives: a message finds that out, a WRITE needs none. */
	fv_quirks(FV_RNR_AT_ONCE);
	b.keep = UP_RECVS;
	for (unsigned i = 0; i < UP_RECVS; i++)
		up_say(&o, "kept", 5, 0);
	up_turn(&o, &b);
	assert_int_equal(b.n_kept, UP_RECVS);
	breaks(&a, &b, &o, &unheard);
	while (b.n_kept > 0)
		mkv_rdma_rx_back(b.hub, b.kept[--b.n_kept]);
	other_close(&o);
	up_end(&a, &b);
	up_none(&a, &b);
}

/* A target without remote access, as a server has: messages come, memory is nobody's. */
static void
a_target_gives_what_it_was_told_to(void **state)
{
	struct mkv_rdma_qp_conf c;
	struct mkv_rdma_dct to;
	struct up a, b;

	(void)state;
	dc_both(&a, &b);
	dc_pair(&a, &b);
	mkv_rdma_qp_fail(b.qp);
	mkv_rdma_qp_destroy(&b.qp);
	for (unsigned i = 0; i < 4; i++) {
		c = up_conf(&b);
		c.sends = 0;
		c.remote_read = i % 2 == 1;
		c.remote_write = i / 2 == 1;
		assert_int_equal(mkv_rdma_target_create(&b.qp, b.hub, &c), 0);
		to = dc_target(&b);
		for (unsigned k = 0; k < 2; k++) {
			up_fresh(&a);
			assert_int_equal(mkv_rdma_initiator_aim(a.qp, &to), 0);
			up_say(&a, "hello", 6, MKV_RDMA_SIGNAL);
			if (k == 0)
				up_read(&a, &b, 0, 64, 0);
			else
				up_write(&a, &b, 0, 64, 0);
			up_turn(&a, &b);
			assert_int_equal(a.good, (k == 0 ? c.remote_read : c.remote_write) ? 2 : 1);
			assert_int_equal(a.brokens, a.good == 1);
			if (a.brokens == 0)
				continue;
			up_rest(&a);
			assert_int_equal(mkv_rdma_qp_fault(a.qp), MKV_RDMA_FAULT_ACCESS);
			assert_int_equal(mkv_rdma_initiator_reset(a.qp), 0);
		}
		assert_int_equal(b.msgs, 2 * (i + 1));
		mkv_rdma_qp_fail(b.qp);
		mkv_rdma_qp_destroy(&b.qp);
	}
	mkv_rdma_qp_fail(a.qp);
	mkv_rdma_qp_destroy(&a.qp);
	up_none(&a, &b);
}

/* A request that the far NIC calls invalid was refused as well. */
static void
an_invalid_request_is_refused(void **state)
{
	struct up a, b;

	(void)state;
	fv_start(2);
	fv_dc(FV_DC_YES);
	fv_device(0)->attr.max_qp_init_rd_atom = 0;
	up_open(&a, "fake0");
	up_open(&b, "fake1");
	dc_pair(&a, &b);
	up_read(&a, &b, 0, 64, 0);
	up_turn(&a, &b);
	broke_and_is_mended(&a, &b, "invalid", MKV_RDMA_FAULT_ACCESS);
	up_end(&a, &b);
	up_none(&a, &b);
}

/* A message that is longer than a receive breaks who sent it. The target and its receives are there for the others, however often. */
static void
a_long_message_harms_its_sender(void **state)
{
	struct mkv_rdma_hub *was;
	struct up a, b, o;

	(void)state;
	dc_both(&a, &b);
	was = short_receives(&b, 2);
	dc_pair(&a, &b);
	other_open(&o, &a, &b);
	for (unsigned i = 0; i < 6; i++) {
		breaks(&a, &b, &o, &long_mistake);
		assert_int_equal(mkv_rdma_hub_count(b.hub)->bad_recvs, i + 1);
		a_message(&o, &b);
		up_turn(&o, &b);
		assert_int_equal(b.msgs, i + 1);
	}
	assert_int_equal(b.brokens, 0);
	other_close(&o);
	up_end(&a, &b);
	short_receives_end(&b, was);
	up_none(&a, &b);
}

/* What the wire told of a target may be false or old: nothing arrives, and why is known. */
static void
false_targets(void **state)
{
	struct mkv_rdma_dct good, to;
	struct mkv_rdma_qp_conf c;
	struct mkv_rdma_qp *rc;
	struct up a, b, o;

	(void)state;
	dc_both(&a, &b);
	dc_pair(&a, &b);
	other_open(&o, &a, &b);
	c = up_conf(&b);
	assert_int_equal(mkv_rdma_qp_create(&rc, b.hub, &c), 0);
	good = dc_target(&b);
	for (unsigned i = 0; i < 7; i++) {
		to = good;
		switch (i) {
		case 0: to.key ^= 1ull << 63; break;
		case 1: to.dctn += 1000; break;				/* nobody's */
		case 2: to.dctn = mkv_rdma_qp_number(rc); break;	/* no target */
		case 3: to.dctn = mkv_rdma_qp_number(o.qp); break;
		case 4: memcpy(to.gid, a.dev->gid.raw, 16); break;	/* of another host */
		case 5: fv_port(1, 1, 0); break;
		default: fv_port(0, 1, 0); break;
		}
		assert_int_equal(mkv_rdma_initiator_aim(a.qp, &to), 0);
		memset(a.area, 0x77, UP_AREA);
		up_write(&a, &b, 32768, 64, 0);
		up_say(&a, "hello", 6, 0);
		up_turn(&a, &b);
		up_rest(&a);
		assert_int_equal(a.closed, 2);
		assert_int_equal(b.msgs, 0);
		assert_int_equal(b.area[32768], 0);
		if (i >= 5)
			fv_port(i == 5, 1, 1);
		broke_and_is_mended(&a, &b, i == 0 ? "wrong key" : "does not answer", i == 0 ? MKV_RDMA_FAULT_ACCESS : MKV_RDMA_FAULT_PATH);
		memset(b.area, 0, UP_AREA);
		other_works(&o, &b);
	}
	mkv_rdma_qp_destroy(&rc);
	other_close(&o);
	up_end(&a, &b);
	up_none(&a, &b);
}

/* By no initiator. */
static void
the_fence_holds(void **state)
{
	struct up a, b, o;

	(void)state;
	dc_both(&a, &b);
	dc_pair(&a, &b);
	other_open(&o, &a, &b);
	fence_in_the_middle(&a, &b, &o, IBV_QPS_UNKNOWN);
	assert_int_equal(o.closed, 1);
	other_close(&o);
	up_end(&a, &b);
	up_none(&a, &b);
}

static unsigned refuse_n;		/* so many calls of destroy_qp are refused */
static int refuse_err;

static int
refuse_destroy(struct ibv_qp *qp)
{
	if (refuse_n == 0)
		return (fv_verbs()->destroy_qp(qp));
	refuse_n--;
	if (refuse_err == EIO)			/* a device that is gone, and all of it */
		fv_verbs()->destroy_qp(qp);
	return (refuse_err);
}

static const struct mkv_verbs *
refusing(void)
{
	static struct mkv_verbs v;

	v = *fv_verbs();
	v.destroy_qp = refuse_destroy;
	refuse_n = 0;
	return (&v);
}

/* mlx5 may say that it could not drain a target, which then lives on. Nobody is told that it is fenced before it is. */
static void
a_fence_that_is_refused(void **state)
{
	uint64_t t0, end;
	struct up a, b;

	(void)state;
	fv_start(2);
	fv_dc(FV_DC_YES);
	up_open(&a, "fake0");
	up_open_by(&b, "fake1", refusing(), 4 * UP_SENDS);
	for (unsigned i = 0; i < 4; i++) {
		dc_pair(&a, &b);
		memset(b.area, 0, 128);
		memset(a.area, 0x66, 128);
		/* Twice is not the end; a device that is gone is; else it is tried again. */
		refuse_n = i == 0 ? 2 : i == 1 ? 1 : 1000;
		refuse_err = i == 1 ? EIO : EINVAL;
		mkv_rdma_qp_fail(b.qp);
		assert_false(mkv_rdma_qp_ready(b.qp));
		assert_int_equal(mkv_rdma_qp_idle(b.qp), i < 2);
		if (i >= 2) {
			up_write(&a, &b, 0, 64, 0);
			up_say(&a, "not taken", 10, 0);
			up_turn(&a, &b);
			assert_int_equal(b.area[63], 0x66);
			assert_int_equal(b.msgs, 0);
			assert_false(mkv_rdma_qp_idle(b.qp));
		}
		if (i == 2) {
			refuse_n = 0;
			t0 = mkv_now_ns();
			end = t0 + 20 * MKV_NS_PER_SEC;
			while (!mkv_rdma_qp_idle(b.qp)) {
				assert_true(mkv_now_ns() < end);
				mkv_rdma_hub_poll(b.hub, 16);
			}
			up_write(&a, &b, 64, 64, 0);
			up_turn(&a, &b);
			up_rest(&a);
			assert_int_equal(b.area[64], 0);
			assert_int_equal(mkv_rdma_qp_fault(a.qp), MKV_RDMA_FAULT_PATH);
		}
		mkv_rdma_qp_fail(a.qp);
		up_rest(&a);
		mkv_rdma_qp_destroy(&a.qp);
		if (i == 3) {		/* who does not care may destroy it all the same */
			refuse_n = 2;
			assert_false(mkv_rdma_qp_idle(b.qp));
		}
		mkv_rdma_qp_destroy(&b.qp);
	}
	up_none(&a, &b);
}

/* An initiator whose device refuses ERR and its end: its user hears that it broke, but nothing comes back while the device may still read that memory. */
static void
nothing_comes_back_too_early(void **state)
{
	struct up a, b;

	(void)state;
	fv_start(2);
	fv_dc(FV_DC_YES);
	up_open_by(&a, "fake0", refusing(), 4 * UP_SENDS);
	up_open(&b, "fake1");
	dc_pair(&a, &b);
	fv_hold(1);
	for (unsigned i = 0; i < 20; i++)
		up_write(&a, &b, 0, 64, 0);
	mkv_rdma_hub_flush(a.hub);
	up_write(&a, &b, 0, 64, 0);
	refuse_n = 1000;
	refuse_err = EBUSY;
	fv_fail(FV_DC_POST, 1, ENOMEM);
	fv_fail(FV_MODIFY_QP, 1, EINVAL);
	mkv_rdma_hub_flush(a.hub);
	assert_int_equal(fv_fail(FV_MODIFY_QP, 0, 0), 1);
	for (unsigned i = 0; i < 10; i++)
		mkv_rdma_hub_poll(a.hub, 16);
	assert_int_equal(a.brokens, 1);
	assert_int_equal(a.dones, 0);
	refuse_n = 0;
	up_rest(&a);
	assert_int_equal(a.closed, 21);
	fv_hold(0);
	up_end(&a, &b);
	up_none(&a, &b);
}

static void
fails_the_target(struct up *u)
{
	mkv_rdma_qp_fail(u->far->qp);
	assert_true(mkv_rdma_qp_idle(u->far->qp));
}

/* Messages that lie in the completion queue when their target is failed meet nobody, also not the next one of that number; their receives are not lost. */
static void
late_messages_meet_nobody(void **state)
{
	struct up a, b;
	uint32_t number;

	(void)state;
	dc_both(&a, &b);
	for (unsigned i = 0; i < 4 * UP_RECVS; i++) {
		fv_next_qpn(100);
		dc_pair(&a, &b);
		number = mkv_rdma_qp_number(b.qp);
		assert_int_equal(number, 100);
		fv_hold_completions(i % 2);
		up_say(&a, "to the old one", 15, 0);
		up_say(&a, "to the old one", 15, 0);
		mkv_rdma_hub_flush(a.hub);
		if (i % 4 == 0)
			assert_int_equal(mkv_rdma_hub_poll(b.hub, 1), 1);	/* one is taken, with the other behind it */
		fv_hold_completions(0);
		mkv_rdma_qp_fail(b.qp);
		assert_true(mkv_rdma_qp_idle(b.qp));
		mkv_rdma_qp_destroy(&b.qp);
		mkv_rdma_qp_fail(a.qp);
		up_rest(&a);
		mkv_rdma_qp_destroy(&a.qp);
		assert_int_equal(b.msgs, i % 4 == 0);
		fv_next_qpn(100);
		dc_pair(&a, &b);
		up_turn(&a, &b);
		assert_int_equal(b.msgs + a.dones, 0);
		up_say(&a, "to the new one", 15, 0);
		if (i % 2 == 0)
			a.on_done = fails_the_target;		/* from inside of another's callback */
		up_turn(&a, &b);
		up_end(&a, &b);
	}
	assert_int_equal(fv_count().rnr_waits, 0);
	up_none(&a, &b);
}

/* And the initiator can be made anew. */
static void
what_is_out_comes_back(void **state)
{
	struct mkv_rdma_dct to;
	struct up a, b;

	(void)state;
	dc_both(&a, &b);
	dc_pair(&a, &b);
	to = dc_target(&b);
	for (unsigned round = 0; round < 20; round++) {
		fail_with_requests_out(&a, &b, round % 4);
		assert_int_equal(mkv_rdma_initiator_reset(a.qp), 0);
		assert_int_equal(mkv_rdma_initiator_aim(a.qp, &to), 0);
		assert_int_equal(mkv_rdma_qp_send_room(a.qp), UP_SENDS);
		up_fresh(&a);
		up_say(&a, (char *)a.area, 700, 0);
		up_turn(&a, &b);
		assert_int_equal(a.good, 1);
		assert_int_equal(b.msgs, round + 1);
		up_fresh(&a);
	}
	up_end(&a, &b);
	up_none(&a, &b);
}

/* The device takes nothing, or is short of one slot: all of the batch or none. */
static void
posting_fails(void **state)
{
	struct up a, b;

	(void)state;
	dc_both(&a, &b);
	dc_pair(&a, &b);
	for (unsigned i = 0; i < 2; i++) {
		for (unsigned k = 0; k < 20; k++)
			up_write(&a, &b, 0, 64, 0);
		if (i == 0)
			fv_fail(FV_DC_POST, 1, ENOMEM);
		else
			fv_refuse_wr(3);
		mkv_rdma_hub_flush(a.hub);
		assert_int_equal(mkv_rdma_hub_count(a.hub)->wrs, i * UP_SENDS);
		for (unsigned k = 0; k < 3; k++)		/* who looked for room before may go on */
			up_write(&a, &b, 0, 64, 0);
		up_rest(&a);
		assert_int_equal(a.closed, 23);
		broke_and_is_mended(&a, &b, "takes no work request: Cannot allocate memory", MKV_RDMA_FAULT_OTHER);
	}
	up_end(&a, &b);
	up_none(&a, &b);
}

static void
fails_itself(struct up *u)
{
	mkv_rdma_qp_fail(u->qp);
}

/* It broke while good completions waited, and the device gave no ERR, so they are handed on with the breaking: who fails it then is not told that it broke. */
static void
who_gave_it_up_hears_no_more(void **state)
{
	struct up a, b;

	(void)state;
	dc_both(&a, &b);
	for (unsigned i = 0; i < 2; i++) {
		dc_pair(&a, &b);
		for (unsigned k = 0; k < 16; k++)
			up_write(&a, &b, 0, 64, 0);
		mkv_rdma_hub_flush(a.hub);
		for (unsigned k = 0; k < 4; k++)
			up_write(&a, &b, 0, 64, 0);
		fv_fail(FV_DC_POST, 1, ENOMEM);
		fv_fail(FV_MODIFY_QP, 1, EIO);
		a.on_done = i == 0 ? NULL : fails_itself;
		mkv_rdma_hub_flush(a.hub);
		assert_int_equal(fv_fail(FV_MODIFY_QP, 0, 0), 1);
		up_rest(&a);
		assert_int_equal(a.good, 16);
		assert_int_equal(a.closed, 4);
		assert_int_equal(a.brokens, i == 0);
		assert_int_equal(mkv_rdma_initiator_reset(a.qp), MKV_E_SYSTEM);
		up_end(&a, &b);
	}
	up_none(&a, &b);
}

/* Each of the four steps back to work can fail; then there is nothing to be done with it but to destroy it. */
static void
some_cannot_be_mended(void **state)
{
	struct up a, b;

	(void)state;
	dc_both(&a, &b);
	for (unsigned i = 1; i <= 6; i++) {
		dc_pair(&a, &b);
		fv_hold(1);
		up_write(&a, &b, 0, 64, 0);
		mkv_rdma_hub_flush(a.hub);
		if (i == 5)
			fv_quirks(FV_NO_FLUSH);		/* the device never gives it back, so it is destroyed */
		if (i == 6)
			fv_gone(0);
		mkv_rdma_qp_fail(a.qp);
		up_rest(&a);
		assert_int_equal(a.closed, 1);
		if (i <= 4)
			fv_fail(FV_MODIFY_QP, i, EIO);
		assert_int_equal(mkv_rdma_initiator_reset(a.qp), MKV_E_SYSTEM);
		assert_int_equal(fv_fail(FV_MODIFY_QP, 0, 0), i <= 4);
		assert_true(mkv_rdma_qp_idle(a.qp));
		fv_quirks(0);
		fv_hold(0);
		up_end(&a, &b);
	}
	up_none(&a, &b);
}

/* Many rounds from one seed: two initiators, two targets that come and go, everything in any order. The fake ends us where a completion would be lost. */
static void
whatever_happens(void **state)
{
	struct up a, b, o;
	struct rnd r;

	(void)state;
	dc_both(&a, &b);
	rnd_init(&r, 78);
	for (unsigned round = 0; round < 200; round++) {
		dc_pair(&a, &b);
		other_open(&o, &a, &b);
		fv_quirks(rnd_below(&r, 4));
		fv_hold((int)rnd_below(&r, 2));
		for (unsigned i = 0; i < 120; i++) {
			struct up *u = rnd_below(&r, 2) ? &a : &o;
			int ready = mkv_rdma_qp_ready(u->qp);
			struct mkv_rdma_dct to = dc_target(&b);

			switch (rnd_below(&r, 12)) {
			case 0: mkv_rdma_hub_poll(b.hub, rnd_below(&r, 20)); break;
			case 1:
				if (mkv_rdma_qp_idle(u->qp) && mkv_rdma_initiator_reset(u->qp) == 0) {
					up_fresh(u);
					assert_int_equal(mkv_rdma_initiator_aim(u->qp, &to), 0);
				} else if (ready && mkv_rdma_qp_room(u->qp) == UP_SENDS) {
					to.key ^= rnd_below(&r, 4) == 0;
					assert_int_equal(mkv_rdma_initiator_aim(u->qp, &to), 0);
				}
				break;
			case 2:
				if (rnd_below(&r, 10) == 0) {
					mkv_rdma_qp_fail(b.qp);
					assert_true(mkv_rdma_qp_idle(b.qp));
					mkv_rdma_qp_destroy(&b.qp);
					dc_listen(&b);
				}
				break;
			default: something_happens(&r, u, &b, UP_AREA);
			}
		}
		fv_hold(0);
		other_close(&o);
		up_end(&a, &b);
	}
	up_none(&a, &b);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_mistake_breaks_its_initiator_alone),
		cmocka_unit_test(a_target_gives_what_it_was_told_to),
		cmocka_unit_test(an_invalid_request_is_refused),
		cmocka_unit_test(a_long_message_harms_its_sender),
		cmocka_unit_test(false_targets),
		cmocka_unit_test(the_fence_holds),
		cmocka_unit_test(a_fence_that_is_refused),
		cmocka_unit_test(nothing_comes_back_too_early),
		cmocka_unit_test(late_messages_meet_nobody),
		cmocka_unit_test(what_is_out_comes_back),
		cmocka_unit_test(posting_fails),
		cmocka_unit_test(who_gave_it_up_hears_no_more),
		cmocka_unit_test(some_cannot_be_mended),
		cmocka_unit_test(whatever_happens),
	};

	return (cmocka_run_group_tests(tests, NULL, NULL));
}
