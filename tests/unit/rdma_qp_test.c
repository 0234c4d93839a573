/*
 * Hubs and queue pairs when all goes well: bytes, order, counts of doorbells and completions, the shared receives, limits; and that whatever fails at opening
 * leaves nothing behind.
 */
#include "config.h"
#include "common/rdma/qp.h"

#include <errno.h>
#include <poll.h>

#include "common/base/assert.h"
#include "tests/lib/death.h"
#include "tests/lib/fail.h"
#include "tests/lib/rnd.h"
#include "tests/unit/rdma_up.h"

static void
bytes_go_both_ways(void **state)
{
	struct up a, b;
	struct rnd r;

	(void)state;
	up_both(&a, &b);
	up_pair(&a, &b);
	rnd_init(&r, 3);
	rnd_fill(&r, a.area, UP_AREA);
	up_write(&a, &b, 64, 4096, 0);
	up_write(&a, &b, 8192, 30000, 0);
	up_turn(&a, &b);
	assert_memory_equal(a.area + 64, b.area + 64, 4096);
	assert_memory_equal(a.area + 8192, b.area + 8192, 30000);
	for (unsigned i = 0; i < 64; i++)
		assert_int_equal(b.area[i] | b.area[4160 + i] | b.area[8191] | b.area[38192], 0);
	memset(a.area, 0, UP_AREA);
	up_read(&a, &b, 8192, 30000, 0);
	up_turn(&a, &b);
	assert_memory_equal(a.area + 8192, b.area + 8192, 30000);
	assert_int_equal(a.good, 3);
	assert_int_equal(b.dones + b.msgs, 0);
	up_end(&a, &b);
	up_none(&a, &b);
}

/* Short ones travel in their work request, long ones in memory of the queue pair; both are copied at once. */
static void
messages_are_copied(void **state)
{
	static const size_t size[] = { 1, 2, 64, 511, 512, 513, 999, UP_LONGEST };
	char text[UP_LONGEST], sent[UP_LONGEST];
	struct fv_wr w[MKV_ARRAY_LEN(size)];
	struct up a, b;

	(void)state;
	up_both(&a, &b);
	up_pair(&a, &b);
	for (unsigned i = 0; i < MKV_ARRAY_LEN(size); i++) {
		memset(text, 'a' + (int)i, sizeof(text));
		memcpy(sent, text, sizeof(text));
		up_say(&a, text, size[i], 0);
		memset(text, '!', sizeof(text));
		up_turn(&a, &b);
		assert_int_equal(b.msgs, i + 1);
		assert_int_equal(b.last_bytes, size[i]);
		assert_memory_equal(b.last, sent, size[i]);
	}
	assert_int_equal(fv_log(w, MKV_ARRAY_LEN(size)), MKV_ARRAY_LEN(size));
	for (unsigned i = 0; i < MKV_ARRAY_LEN(size); i++)
		assert_int_equal((w[i].flags & IBV_SEND_INLINE) != 0, size[i] <= 512);
	assert_int_equal(a.good, MKV_ARRAY_LEN(size));
	up_end(&a, &b);
	up_none(&a, &b);
}

/* Many at once, short and long: each keeps its own bytes until it has left. */
static void
messages_do_not_mix(void **state)
{
	char text[UP_LONGEST];
	unsigned doorbells;
	struct up a, b;

	(void)state;
	up_both(&a, &b);
	up_pair(&a, &b);
	for (unsigned round = 0; round < 6; round++) {
		doorbells = (unsigned)fv_count().doorbells;
		b.keep = 10;
		b.n_kept = b.msgs = 0;
		for (unsigned i = 0; i < 10; i++) {
			memset(text, 'a' + (int)(round * 3 + i), sizeof(text));
			up_say(&a, text, i % 2 == 0 ? 40 : 700, 0);
		}
		up_turn(&a, &b);
		assert_int_equal(fv_count().doorbells, doorbells + 1);
		assert_int_equal(b.n_kept, 10);
		for (unsigned i = 0; i < 10; i++) {
			memset(text, 'a' + (int)(round * 3 + i), sizeof(text));
			assert_int_equal(b.kept[i]->bytes, i % 2 == 0 ? 40 : 700);
			assert_memory_equal(b.kept[i]->buf, text, b.kept[i]->bytes);
		}
		while (b.n_kept > 0)
			mkv_rdma_rx_back(b.hub, b.kept[--b.n_kept]);
		mkv_rdma_hub_flush(b.hub);
	}
	/* More short ones than a batch has room for leave by several. */
	b.keep = b.msgs = 0;
	doorbells = (unsigned)fv_count().doorbells;
	for (unsigned i = 0; i < 40; i++)
		up_say(&a, text, 40, 0);
	assert_int_equal(fv_count().doorbells, doorbells + 2);
	for (unsigned i = 0; i < 5; i++)
		up_turn(&a, &b);
	assert_int_equal(b.msgs, 40);
	assert_int_equal(a.good, 100);
	up_end(&a, &b);
	up_none(&a, &b);
}

/* 64 WRITEs: one doorbell, at most five completions, each told of. */
static void
completions_are_moderated(void **state)
{
	struct mkv_rdma_count c;
	struct fv_wr w[64];
	struct up a, b;

	(void)state;
	up_both(&a, &b);
	up_pair(&a, &b);
	for (unsigned i = 0; i < 63; i++)
		up_write(&a, &b, i * 64, 64, 0);
	assert_int_equal(fv_count().doorbells, 0);
	up_write(&a, &b, 63 * 64, 64, 0);
	up_turn(&a, &b);
	c = *mkv_rdma_hub_count(a.hub);
	assert_int_equal(a.good, 64);
	assert_int_equal(c.wrs, 64);
	assert_int_equal(c.doorbells, 1);
	assert_in_range(c.completions, 1, 5);
	assert_int_equal(fv_log(w, 64), 64);
	for (unsigned i = 0; i < 64; i++)
		assert_int_equal((w[i].flags & IBV_SEND_SIGNALED) != 0, i % 16 == 15);
	/* One is told of at once, whatever came before. */
	up_write(&a, &b, 0, 64, 0);
	up_write(&a, &b, 0, 64, MKV_RDMA_SIGNAL);
	up_write(&a, &b, 0, 64, MKV_RDMA_FENCE);
	up_turn(&a, &b);
	assert_int_equal(a.good, 67);
	assert_int_equal(fv_log(w, 3), 3);
	assert_int_equal(w[0].flags, 0);
	assert_int_equal(w[1].flags, IBV_SEND_SIGNALED);
	assert_int_equal(w[2].flags, IBV_SEND_SIGNALED | IBV_SEND_FENCE);
	assert_int_equal(mkv_rdma_hub_count(a.hub)->doorbells, 2);
	up_end(&a, &b);
	up_none(&a, &b);
}

/* The queue is used to its end and round again, many times; the fake refuses what a send queue has no slot for. */
static void
the_ring_goes_round(void **state)
{
	struct up a, b;
	struct rnd r;
	uint32_t n;

	(void)state;
	up_both(&a, &b);
	up_pair(&a, &b);
	rnd_init(&r, 11);
	for (unsigned round = 0; round < 400; round++) {
		n = 1 + rnd_below(&r, mkv_rdma_qp_room(a.qp));
		for (uint32_t i = 0; i < n; i++)
			up_write(&a, &b, rnd_below(&r, 1000) * 64, 64, rnd_below(&r, 20) == 0 ? MKV_RDMA_SIGNAL : 0);
		assert_int_equal(mkv_rdma_qp_room(a.qp), UP_SENDS - (a.next_cookie - a.next_done));
		mkv_rdma_hub_flush(a.hub);
		mkv_rdma_hub_poll(a.hub, 1 + rnd_below(&r, 4));
		if (mkv_rdma_qp_room(a.qp) == 0)
			up_turn(&a, &b);
	}
	up_turn(&a, &b);
	assert_int_equal(a.good, a.next_cookie);
	assert_int_equal(mkv_rdma_qp_room(a.qp), UP_SENDS);
	up_end(&a, &b);
	up_none(&a, &b);
}

/* With few messages long ones are limited, pieces are not. */
static void
messages_have_a_limit_of_their_own(void **state)
{
	char text[UP_LONGEST] = "m";
	struct mkv_rdma_qp_conf c;
	struct mkv_rdma_peer pa, pb;
	struct up a, b;

	(void)state;
	up_both(&a, &b);
	c = up_conf(&a);
	c.msgs = 3;
	assert_int_equal(mkv_rdma_qp_create(&a.qp, a.hub, &c), 0);
	c = up_conf(&b);
	assert_int_equal(mkv_rdma_qp_create(&b.qp, b.hub, &c), 0);
	pa = up_peer(&a);
	pb = up_peer(&b);
	assert_int_equal(mkv_rdma_qp_connect(a.qp, &pb), 0);
	assert_int_equal(mkv_rdma_qp_connect(b.qp, &pa), 0);
	for (unsigned round = 0; round < 5; round++) {
		for (unsigned i = 3; i > 0; i--) {
			assert_int_equal(mkv_rdma_qp_send_room(a.qp), i);
			up_write(&a, &b, 0, 64, 0);
			up_say(&a, text, sizeof(text), 0);
		}
		assert_int_equal(mkv_rdma_qp_send_room(a.qp), 0);
		assert_int_equal(mkv_rdma_qp_room(a.qp), UP_SENDS - 6);
		up_say(&a, text, 100, 0);		/* short: it needs none of them */
		up_turn(&a, &b);
	}
	assert_int_equal(b.msgs, 20);
	assert_int_equal(b.last_bytes, 100);
	up_end(&a, &b);
	up_none(&a, &b);
}

/* A hub's receives are for all its queue pairs. What is kept is missing until it is given back. */
static void
receives_are_kept_and_given_back(void **state)
{
	struct up a, b;

	(void)state;
	up_both(&a, &b);
	up_pair(&a, &b);
	b.keep = UP_RECVS;
	for (unsigned i = 0; i < UP_RECVS; i++)
		up_say(&a, "kept!", 6, 0);
	up_turn(&a, &b);
	assert_int_equal(b.n_kept, UP_RECVS);
	assert_int_equal(fv_count().rnr_waits, 0);
	up_say(&a, "waits", 6, 0);
	up_turn(&a, &b);
	assert_int_equal(b.msgs, UP_RECVS);
	assert_int_equal(a.good, UP_RECVS);
	for (unsigned i = 0; i < UP_RECVS; i++)
		assert_string_equal((char *)b.kept[i]->buf, "kept!");
	mkv_rdma_rx_back(b.hub, b.kept[--b.n_kept]);
	b.keep = 0;
	up_turn(&a, &b);
	up_turn(&a, &b);
	assert_int_equal(b.msgs, UP_RECVS + 1);
	assert_int_equal(a.good, UP_RECVS + 1);
	while (b.n_kept > 0)
		mkv_rdma_rx_back(b.hub, b.kept[--b.n_kept]);
	mkv_rdma_hub_flush(b.hub);
	assert_int_equal(fv_count().recvs_posted, 2 * UP_RECVS + UP_RECVS + 1);	/* both ends' first, then each again */
	up_end(&a, &b);
	up_none(&a, &b);
}

static void
given_back_twice(void *arg)
{
	struct up *b = arg;

	mkv_rdma_rx_back(b->hub, b->kept[0]);
	mkv_rdma_rx_back(b->hub, b->kept[0]);
}

static void
a_receive_is_given_back_once(void **state)
{
	struct up a, b;

	(void)state;
	up_both(&a, &b);
	up_pair(&a, &b);
	b.keep = 1;
	up_say(&a, "kept!", 6, 0);
	up_turn(&a, &b);
	assert_int_equal(death_by_assert(given_back_twice, &b), 1);
	mkv_rdma_rx_back(b.hub, b.kept[0]);
	up_end(&a, &b);
	up_none(&a, &b);
}

static int
is_readable(int fd)
{
	struct pollfd p = { fd, POLLIN, 0 };

	return (poll(&p, 1, 0) == 1);
}

/* A sleeper is woken; what came just before wakes nobody, so he is told not to sleep. */
static void
who_sleeps_is_woken(void **state)
{
	struct up a, b;

	(void)state;
	up_both(&a, &b);
	up_pair(&a, &b);
	assert_int_equal(mkv_rdma_hub_arm(b.hub), 1);
	assert_false(is_readable(mkv_rdma_hub_fd(b.hub)));
	up_say(&a, "hello", 6, 0);
	mkv_rdma_hub_flush(a.hub);
	assert_true(is_readable(mkv_rdma_hub_fd(b.hub)));
	mkv_rdma_hub_woken(b.hub);
	assert_int_equal(mkv_rdma_hub_arm(b.hub), 0);
	assert_false(is_readable(mkv_rdma_hub_fd(b.hub)));
	assert_int_equal(mkv_rdma_hub_arm(b.hub), 0);
	assert_int_equal(mkv_rdma_hub_poll(b.hub, 16), 1);
	assert_int_equal(b.msgs, 1);
	assert_int_equal(mkv_rdma_hub_arm(b.hub), 1);
	assert_int_equal(mkv_rdma_hub_poll(b.hub, 16), 0);
	assert_int_equal(mkv_rdma_hub_count(b.hub)->events, 1);
	assert_int_equal(mkv_rdma_hub_count(b.hub)->recvs, 1);
	assert_int_equal(mkv_rdma_hub_count(b.hub)->empty_polls, 1);
	up_end(&a, &b);
	up_none(&a, &b);
}

/* However often the loop goes round before something comes: one request for a wake-up. One that the device refused is made again. */
static void
a_wake_up_is_asked_for_once(void **state)
{
	struct up a, b;
	unsigned asked;

	(void)state;
	up_both(&a, &b);
	up_pair(&a, &b);
	asked = fv_calls(FV_REQ_NOTIFY_CQ);
	for (unsigned i = 0; i < 10; i++) {
		assert_int_equal(mkv_rdma_hub_arm(b.hub), 1);
		if (i == 5)
			mkv_rdma_hub_woken(b.hub);	/* by something else */
	}
	assert_int_equal(fv_calls(FV_REQ_NOTIFY_CQ), asked + 1);
	/* Taken before anybody looked at the descriptor: the event is there all the same, and nobody asks for another. */
	up_say(&a, "hello", 6, 0);
	mkv_rdma_hub_flush(a.hub);
	assert_int_equal(mkv_rdma_hub_poll(b.hub, 16), 1);
	assert_int_equal(mkv_rdma_hub_arm(b.hub), 1);
	assert_int_equal(fv_calls(FV_REQ_NOTIFY_CQ), asked + 1);
	assert_true(is_readable(mkv_rdma_hub_fd(b.hub)));
	mkv_rdma_hub_woken(b.hub);
	fv_fail(FV_REQ_NOTIFY_CQ, 1, EIO);
	assert_int_equal(mkv_rdma_hub_arm(b.hub), 1);
	assert_int_equal(fv_fail(FV_REQ_NOTIFY_CQ, 0, 0), 1);
	assert_false(is_readable(mkv_rdma_hub_fd(b.hub)));
	assert_int_equal(mkv_rdma_hub_arm(b.hub), 1);
	assert_int_equal(fv_calls(FV_REQ_NOTIFY_CQ), asked + 3);
	assert_int_equal(mkv_rdma_hub_count(b.hub)->events, 1);
	up_end(&a, &b);
	up_none(&a, &b);
}

/* A queue pair that breaks after the wake-up was asked for, and of which nothing comes back by itself: the loop goes on. */
static void
what_breaks_later_keeps_it_awake(void **state)
{
	struct up a, b;

	(void)state;
	up_both(&a, &b);
	up_pair(&a, &b);
	fv_hold(1);
	up_write(&a, &b, 0, 64, 0);
	mkv_rdma_hub_flush(a.hub);
	assert_int_equal(mkv_rdma_hub_arm(a.hub), 1);
	fv_quirks(FV_NO_FLUSH);
	mkv_rdma_qp_fail(a.qp);
	assert_int_equal(mkv_rdma_hub_arm(a.hub), 0);
	up_rest(&a);
	assert_int_equal(mkv_rdma_hub_arm(a.hub), 1);
	fv_quirks(0);
	fv_hold(0);
	up_end(&a, &b);
	up_none(&a, &b);
}

static void
posts_from_inside(struct up *u)
{
	if (u->next_cookie < 500)
		up_write(u, u->far, 64, 64, MKV_RDMA_SIGNAL);
}

/* Callbacks post; nothing recurses, and the count asked for holds. */
static void
callbacks_may_post(void **state)
{
	struct up a, b;

	(void)state;
	up_both(&a, &b);
	up_pair(&a, &b);
	a.on_done = posts_from_inside;
	up_write(&a, &b, 0, 64, 0);
	mkv_rdma_hub_flush(a.hub);
	assert_int_equal(mkv_rdma_hub_poll(a.hub, 1), 1);
	assert_int_equal(a.good, 1);
	for (unsigned i = 0; i < 1000 && a.good < 500; i++)
		up_turn(&a, &b);
	assert_int_equal(a.good, 500);
	up_end(&a, &b);
	up_none(&a, &b);
}

static void
the_numbers_fit(void **state)
{
	struct mkv_rdma_qp_conf c;
	struct mkv_rdma_peer p, good;
	struct up a, b;

	(void)state;
	up_both(&a, &b);
	up_pair(&a, &b);
	good = up_peer(&b);
	assert_true(good.qpn != up_peer(&a).qpn && good.psn <= 0xffffff && up_peer(&a).psn != good.psn);
	mkv_rdma_qp_fail(a.qp);
	assert_true(mkv_rdma_qp_idle(a.qp));
	mkv_rdma_qp_destroy(&a.qp);
	c = up_conf(&a);
	for (unsigned i = 0; i < 10; i++) {
		assert_int_equal(mkv_rdma_qp_create(&a.qp, a.hub, &c), 0);
		p = good;
		switch (i) {
		case 0: p.qpn = 0; break;
		case 1: p.qpn = 1; break;
		case 2: p.qpn = 0x1000000; break;
		case 3: p.psn = 0x1000000; break;
		case 4: p.mtu_bytes = 0; break;
		case 5: p.mtu_bytes = 1500; break;
		case 6: p.mtu_bytes = 8192; break;
		case 7: memset(p.gid, 0, 16); break;
		case 8: p.gid[0] = 0xff; break;
		default: p.mtu_bytes = 1024; p.rd_atomic_in = 3; p.rd_atomic_out = 5; break;
		}
		assert_int_equal(mkv_rdma_qp_connect(a.qp, &p), i < 9 ? MKV_E_PEER : 0);
		assert_int_equal(fv_qp_state(mkv_rdma_qp_number(a.qp)), i < 9 ? IBV_QPS_INIT : IBV_QPS_RTS);
		assert_int_equal(mkv_rdma_qp_ready(a.qp), i == 9);
		if (i == 9) {
			struct ibv_qp_attr at = fv_qp_attr(mkv_rdma_qp_number(a.qp));

			assert_int_equal(at.path_mtu, IBV_MTU_1024);
			assert_int_equal(at.max_rd_atomic, 3);
			assert_int_equal(at.max_dest_rd_atomic, 5);
			assert_int_equal(at.sq_psn, mkv_rdma_qp_psn(a.qp));
			assert_int_equal(at.rq_psn, good.psn);
			assert_int_equal(at.ah_attr.grh.sgid_index, 3);
		}
		assert_int_equal(mkv_rdma_qp_idle(a.qp), 0);
		if (i < 9)
			mkv_rdma_qp_destroy(&a.qp);	/* NEW still */
	}
	up_end(&a, &b);
	up_none(&a, &b);
}

/* The way there is foreign too. */
static void
no_way_to_the_far_end(void **state)
{
	struct mkv_rdma_qp_conf c;
	struct mkv_rdma_peer p;
	struct up a, b;

	(void)state;
	up_both(&a, &b);
	c = up_conf(&a);
	for (unsigned i = 0; i < 3; i++) {
		assert_int_equal(mkv_rdma_qp_create(&a.qp, a.hub, &c), 0);
		p = up_peer(&a);
		p.gid[15] = i == 0 ? 99 : p.gid[15];
		if (i > 0)
			fv_fail(FV_MODIFY_QP, i, i == 1 ? ETIMEDOUT : EINVAL);
		assert_int_equal(mkv_rdma_qp_connect(a.qp, &p), i < 2 ? MKV_E_UNREACHABLE : MKV_E_SYSTEM);
		assert_true(mkv_rdma_qp_idle(a.qp));
		assert_int_equal(mkv_rdma_qp_room(a.qp), 0);
		mkv_rdma_qp_destroy(&a.qp);
	}
	assert_int_equal(fv_fail(FV_MODIFY_QP, 0, 0), 1);
	up_none(&a, &b);
}

/* A queue pair is refused where the completion queue could overrun. */
static void
a_hub_promises_no_more_than_it_has(void **state)
{
	struct mkv_rdma_qp *qp[5];
	struct mkv_rdma_qp_conf c;
	struct up a, b;

	(void)state;
	up_both(&a, &b);
	c = up_conf(&a);
	for (unsigned i = 0; i < 5; i++)
		assert_int_equal(mkv_rdma_qp_create(&qp[i], a.hub, &c), i < 4 ? 0 : MKV_E_NOMEM);
	mkv_rdma_qp_destroy(&qp[2]);
	assert_int_equal(mkv_rdma_qp_create(&qp[2], a.hub, &c), 0);
	for (unsigned i = 0; i < 4; i++)
		mkv_rdma_qp_destroy(&qp[i]);
	c.sends = 32768;
	assert_int_equal(mkv_rdma_qp_create(&qp[0], a.hub, &c), MKV_E_NOMEM);
	assert_null(qp[0]);
	up_none(&a, &b);
}

static void
a_hub_fits_its_device(void **state)
{
	struct mkv_rdma_hub_conf c = { .recvs = 30000, .recv_bytes = 64, .sends_max = 2768 };
	struct mkv_rdma_hub *h;
	struct up a, b;
	char why[512];

	(void)state;
	up_both(&a, &b);
	assert_int_equal(mkv_rdma_hub_open(&h, a.dev, &c, why, sizeof(why)), MKV_E_CONFIG);
	assert_non_null(strstr(why, "30000 receives and 2768 work requests do not fit the completion queue of RDMA device fake0, which takes 32767"));
	c.sends_max = 2767;
	assert_int_equal(mkv_rdma_hub_open(&h, a.dev, &c, why, sizeof(why)), MKV_E_CONFIG);
	assert_non_null(strstr(why, "30000 receives do not fit the shared receive queue of RDMA device fake0, which takes 16384"));
	up_none(&a, &b);
}

/* The device's inline size is found by trying; without any, all messages go by registered memory. */
static void
inline_sizes_are_tried(void **state)
{
	static const uint32_t has[] = { 512, 300, 64, 0 }, gets[] = { 512, 256, 64, 0 };
	char text[UP_LONGEST] = "x";
	struct fv_wr w[2];
	struct up a, b;

	(void)state;
	for (unsigned i = 0; i < MKV_ARRAY_LEN(has); i++) {
		fv_start(2);
		fv_device(0)->max_inline = has[i];
		up_open(&a, "fake0");
		up_open(&b, "fake1");
		up_pair(&a, &b);
		up_say(&a, text, MKV_MAX(gets[i], 1u), 0);
		up_say(&a, text, gets[i] + 1, 0);
		up_turn(&a, &b);
		assert_int_equal(b.msgs, 2);
		assert_int_equal(fv_log(w, 2), 2);
		assert_int_equal((w[0].flags & IBV_SEND_INLINE) != 0, gets[i] > 0);
		assert_int_equal(w[1].flags & IBV_SEND_INLINE, 0);
		up_end(&a, &b);
		up_none(&a, &b);
	}
}

/* Every verb and every allocation fails once while a hub and a queue pair are made: an error, and nothing is left. */
static int
open_all(struct up *a)
{
	struct mkv_rdma_hub_conf hc = { .recvs = 4, .recv_bytes = 100, .sends_max = 64 };
	struct mkv_rdma_qp_conf c = { .sends = 64, .send_bytes = 1000, .remote_write = 1, .ops = &up_ops, .owner = a };
	struct mkv_rdma_hub *h = NULL;
	struct mkv_rdma_qp *qp = NULL;
	char why[512] = "";
	int e;

	if ((e = mkv_rdma_hub_open(&h, a->dev, &hc, why, sizeof(why))) != 0) {
		assert_null(h);
		assert_true(e == MKV_E_NOMEM || e == MKV_E_SYSTEM);
		assert_true(strlen(why) > 10);
	} else if ((e = mkv_rdma_qp_create(&qp, h, &c)) != 0) {
		assert_null(qp);
		assert_true(e == MKV_E_NOMEM || e == MKV_E_SYSTEM);
	}
	mkv_rdma_qp_destroy(&qp);
	mkv_rdma_hub_close(&h);
	return (e);
}

static void
whatever_fails_leaves_nothing(void **state)
{
	unsigned alive, calls, failed = 0;
	struct up a, b;

	(void)state;
	up_both(&a, &b);
	alive = fv_alive();
	for (int v = 0; v < FV_VERBS; v++) {
		calls = fv_calls((enum fv_verb)v);
		assert_int_equal(open_all(&a), 0);
		calls = fv_calls((enum fv_verb)v) - calls;
		for (unsigned n = 1; n <= calls; n++) {
			int e;

			fv_fail((enum fv_verb)v, n, v % 2 == 0 ? ENOMEM : EIO);
			e = open_all(&a);
			failed += e != 0;
			/* Smaller inline sizes are tried after ENOMEM, and polling at the end has nobody to tell. */
			assert_true(e != 0 || v == FV_CREATE_QP || v == FV_POLL_CQ);
			assert_int_equal(fv_fail((enum fv_verb)v, 0, 0), 1);
			assert_int_equal(fv_alive(), alive);
		}
	}
	assert_true(failed >= 7);
	for (unsigned n = 1; n < 50; n++) {
		fail_alloc(n);
		failed += open_all(&a) == MKV_E_NOMEM;		/* those of the fake are asked for again */
		assert_int_equal(fv_alive(), alive);
		if (fail_alloc(0) == 0)
			break;
	}
	assert_true(failed >= 12);
	up_none(&a, &b);
}

/* Said once, when fewer are left than asked for; then only after it was asked for again. */
static void
few_receives_raise_an_alarm(void **state)
{
	struct up a, b;

	(void)state;
	up_both(&a, &b);
	up_pair(&a, &b);
	assert_int_equal(mkv_rdma_hub_alarm(b.hub, 4), 0);
	b.keep = UP_RECVS - 3;
	for (unsigned i = 0; i < UP_RECVS - 3; i++) {
		assert_int_equal(mkv_rdma_dev_event(b.dev, NULL), MKV_RDMA_EV_NONE);
		up_say(&a, "kept", 5, 0);
		up_turn(&a, &b);
	}
	assert_int_equal(mkv_rdma_dev_event(b.dev, NULL), MKV_RDMA_EV_SRQ_LIMIT);
	up_say(&a, "not kept", 9, 0);
	up_turn(&a, &b);
	assert_int_equal(mkv_rdma_dev_event(b.dev, NULL), MKV_RDMA_EV_NONE);
	assert_int_equal(mkv_rdma_hub_alarm(b.hub, 4), 0);
	up_say(&a, "not kept", 9, 0);
	up_turn(&a, &b);
	assert_int_equal(mkv_rdma_dev_event(b.dev, NULL), MKV_RDMA_EV_SRQ_LIMIT);
	while (b.n_kept > 0)
		mkv_rdma_rx_back(b.hub, b.kept[--b.n_kept]);
	up_end(&a, &b);
	up_none(&a, &b);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(bytes_go_both_ways),
		cmocka_unit_test(messages_are_copied),
		cmocka_unit_test(messages_do_not_mix),
		cmocka_unit_test(completions_are_moderated),
		cmocka_unit_test(the_ring_goes_round),
		cmocka_unit_test(messages_have_a_limit_of_their_own),
		cmocka_unit_test(receives_are_kept_and_given_back),
		cmocka_unit_test(a_receive_is_given_back_once),
		cmocka_unit_test(few_receives_raise_an_alarm),
		cmocka_unit_test(who_sleeps_is_woken),
		cmocka_unit_test(a_wake_up_is_asked_for_once),
		cmocka_unit_test(what_breaks_later_keeps_it_awake),
		cmocka_unit_test(callbacks_may_post),
		cmocka_unit_test(the_numbers_fit),
		cmocka_unit_test(no_way_to_the_far_end),
		cmocka_unit_test(a_hub_promises_no_more_than_it_has),
		cmocka_unit_test(a_hub_fits_its_device),
		cmocka_unit_test(inline_sizes_are_tried),
		cmocka_unit_test(whatever_fails_leaves_nothing),
	};

	return (cmocka_run_group_tests(tests, NULL, NULL));
}
