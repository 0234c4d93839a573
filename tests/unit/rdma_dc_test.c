/*
 * DC on the fake fabric, when all goes well: what initiators and targets are made with, every change of state, work requests field by field, address handles; that
 * a device without DC says why, and that whatever fails leaves nothing.
 */
#include "config.h"
#include "common/rdma/dc.h"

#include <errno.h>

#include "common/base/assert.h"
#include "tests/lib/death.h"
#include "tests/lib/fail.h"
#include "tests/unit/rdma_dc_up.h"

static void
a_device_says_why_it_has_none(void **state)
{
	struct mkv_verbs bare = *fv_verbs();
	char why[256] = "";
	struct up a, b;
	unsigned alive;

	(void)state;
	up_both(&a, &b);
	alive = fv_alive();
	assert_int_equal(mkv_rdma_dc_try(a.hub, why, sizeof(why)), 0);
	assert_string_equal(why, "RDMA device fake0 has no DC: it is none of mlx5");
	fv_dc(FV_DC_NO);
	assert_int_equal(mkv_rdma_dc_try(a.hub, why, sizeof(why)), 0);
	assert_string_equal(why, "RDMA device fake0 makes no DC initiator: Operation not supported");
	assert_int_equal(fv_calls(FV_DC_CREATE_INITIATOR), 1);		/* no use in trying other sizes */
	fv_dc(FV_DC_YES);
	fv_fail(FV_DC_CREATE_TARGET, 1, EOPNOTSUPP);
	assert_int_equal(mkv_rdma_dc_try(a.hub, why, sizeof(why)), 0);
	assert_string_equal(why, "RDMA device fake0 makes no DC target: Operation not supported");
	for (unsigned i = 1; i <= 5; i++) {		/* three changes of state of the one, two of the other */
		fv_fail(FV_MODIFY_QP, i, EINVAL);
		assert_int_equal(mkv_rdma_dc_try(a.hub, why, sizeof(why)), 0);
		assert_non_null(strstr(why, i <= 3 ? "initiator: Invalid argument" : "target: Invalid argument"));
	}
	assert_int_equal(mkv_rdma_dc_try(a.hub, why, sizeof(why)), 1);
	assert_int_equal(fv_alive(), alive);
	up_close(&a);
	bare.dc_supported = NULL;
	up_open_by(&a, "fake0", &bare, 4 * UP_SENDS);
	assert_int_equal(mkv_rdma_dc_try(a.hub, why, sizeof(why)), 0);
	assert_string_equal(why, "memkv was built without mlx5dv, and so without DC");
	up_none(&a, &b);
}

static void
bytes_and_messages_go(void **state)
{
	struct up a, b;

	(void)state;
	dc_both(&a, &b);
	dc_pair(&a, &b);
	memset(a.area, 0x5a, UP_AREA);
	up_write(&a, &b, 64, 4096, 0);
	up_say(&a, "behind it", 10, 0);
	up_turn(&a, &b);
	assert_int_equal(a.good, 2);
	assert_int_equal(b.msgs, 1);
	assert_string_equal((char *)b.last, "behind it");
	assert_memory_equal(a.area + 64, b.area + 64, 4096);
	assert_int_equal(b.area[63] | b.area[4160], 0);
	memset(b.area, 0x33, UP_AREA);
	up_read(&a, &b, 8192, 4096, 0);
	up_turn(&a, &b);
	assert_memory_equal(a.area + 8192, b.area + 8192, 4096);
	assert_int_equal(b.dones, 0);
	up_end(&a, &b);
	up_none(&a, &b);
}

/* ---- what the device is told ---- */

static struct {
	struct mkv_verbs_dc made[2];
	struct ibv_qp_attr attr[8];
	int		mask[8];
	uint32_t	number[8];		/* before the change */
	unsigned	n_made, n;
	union ibv_gid	turn_to;		/* create_ah: whatever is asked for leads there, if it is set */
} told;

static struct ibv_qp *
note_initiator(struct ibv_context *c, const struct mkv_verbs_dc *a)
{
	told.made[told.n_made++ % 2] = *a;
	return (fv_verbs()->dc_create_initiator(c, a));
}

static struct ibv_qp *
note_target(struct ibv_context *c, const struct mkv_verbs_dc *a)
{
	told.made[told.n_made++ % 2] = *a;
	return (fv_verbs()->dc_create_target(c, a));
}

static int
note_change(struct ibv_qp *qp, struct ibv_qp_attr *a, int mask)
{
	if (told.n < MKV_ARRAY_LEN(told.mask)) {
		told.attr[told.n] = *a;
		told.mask[told.n] = mask;
		told.number[told.n] = qp->qp_num;
	}
	told.n++;
	return (fv_verbs()->modify_qp(qp, a, mask));
}

static struct ibv_ah *
note_ah(struct ibv_pd *pd, struct ibv_ah_attr *a)
{
	static const union ibv_gid none;
	struct ibv_ah_attr to = *a;

	if (memcmp(&told.turn_to, &none, sizeof(none)) != 0)
		to.grh.dgid = told.turn_to;
	return (fv_verbs()->create_ah(pd, &to));
}

static const struct mkv_verbs *
noting(void)
{
	static struct mkv_verbs v;

	v = *fv_verbs();
	v.dc_create_initiator = note_initiator;
	v.dc_create_target = note_target;
	v.modify_qp = note_change;
	v.create_ah = note_ah;
	memset(&told, 0, sizeof(told));
	return (&v);
}

static void
path_is(const struct ibv_ah_attr *a, const struct up *u)
{
	assert_int_equal(a->is_global, 1);
	assert_int_equal(a->port_num, u->dev->port);
	assert_int_equal(a->sl, u->dev->service_level);
	assert_int_equal(a->grh.sgid_index, u->dev->gid_index);
	assert_int_equal(a->grh.traffic_class, u->dev->traffic_class);
	assert_int_equal(a->grh.hop_limit, 64);
}

/* mlx5 compares masks for equality: one too many is refused as one too few is. */
static void
an_initiator_goes_through_its_states(void **state)
{
	static const int has[] = { 128, 5 }, gets[] = { 16, 5 };
	struct mkv_rdma_qp_conf c;
	struct up a, b;

	(void)state;
	for (unsigned i = 0; i < MKV_ARRAY_LEN(has); i++) {
		fv_start(2);
		fv_dc(FV_DC_YES);
		fv_device(0)->attr.max_qp_init_rd_atom = has[i];
		up_open_by(&a, "fake0", noting(), 4 * UP_SENDS);
		up_open(&b, "fake1");
		c = up_conf(&a);
		assert_int_equal(mkv_rdma_initiator_create(&a.qp, a.hub, &c), 0);
		assert_int_equal(told.n_made, 1);
		assert_ptr_equal(told.made[0].pd, a.dev->pd);
		assert_non_null(told.made[0].send_cq);
		assert_ptr_equal(told.made[0].recv_cq, told.made[0].send_cq);
		assert_null(told.made[0].srq);
		assert_int_equal(told.made[0].max_send_wr, UP_SENDS);
		assert_int_equal(told.made[0].max_send_sge, 1);
		assert_int_equal(told.made[0].max_inline, 512);
		assert_int_equal(told.made[0].access_key, 0);
		assert_int_equal(told.n, 3);
		assert_int_equal(told.attr[0].qp_state, IBV_QPS_INIT);
		assert_int_equal(told.mask[0], IBV_QP_STATE | IBV_QP_PKEY_INDEX | IBV_QP_PORT);
		assert_int_equal(told.attr[0].port_num, 1);
		assert_int_equal(told.attr[0].pkey_index, 0);
		assert_int_equal(told.attr[1].qp_state, IBV_QPS_RTR);
		assert_int_equal(told.mask[1], IBV_QP_STATE | IBV_QP_PATH_MTU | IBV_QP_AV);
		assert_int_equal(told.attr[1].path_mtu, a.dev->mtu);
		path_is(&told.attr[1].ah_attr, &a);
		assert_int_equal(told.attr[2].qp_state, IBV_QPS_RTS);
		assert_int_equal(told.mask[2], IBV_QP_STATE | IBV_QP_TIMEOUT | IBV_QP_RETRY_CNT | IBV_QP_RNR_RETRY | IBV_QP_MAX_QP_RD_ATOMIC | IBV_QP_SQ_PSN);
		assert_int_equal(told.attr[2].timeout, 14);
		assert_int_equal(told.attr[2].retry_cnt, 6);
		assert_int_equal(told.attr[2].rnr_retry, 6);
		assert_int_equal(told.attr[2].max_rd_atomic, gets[i]);
		assert_in_range(told.attr[2].sq_psn, 0, 0xffffff);
		/* Ours: NEW, since it leads nowhere. */
		assert_false(mkv_rdma_qp_ready(a.qp) || mkv_rdma_qp_idle(a.qp));
		assert_int_equal(mkv_rdma_qp_room(a.qp), 0);
		assert_int_equal(mkv_rdma_qp_fault(a.qp), MKV_RDMA_FAULT_NONE);
		mkv_rdma_qp_destroy(&a.qp);
		up_none(&a, &b);
	}
}

static void
a_target_goes_through_its_states(void **state)
{
	struct mkv_rdma_qp_conf c;
	uint64_t key = 0;
	uint32_t number;
	struct up a, b;

	(void)state;
	fv_start(2);
	fv_dc(FV_DC_YES);
	up_open_by(&a, "fake0", noting(), 4 * UP_SENDS);
	up_open(&b, "fake1");
	for (unsigned i = 0; i < 4; i++) {
		c = up_conf(&a);
		c.sends = 0;
		c.remote_read = i % 2 == 1;
		c.remote_write = i / 2 == 1;
		told.n = told.n_made = 0;
		assert_int_equal(mkv_rdma_target_create(&a.qp, a.hub, &c), 0);
		assert_int_equal(told.n_made, 1);
		assert_non_null(told.made[0].send_cq);
		assert_ptr_equal(told.made[0].recv_cq, told.made[0].send_cq);
		assert_non_null(told.made[0].srq);
		assert_int_equal(told.made[0].max_send_wr | told.made[0].max_send_sge | told.made[0].max_inline, 0);
		assert_true(told.made[0].access_key == mkv_rdma_target_key(a.qp) && told.made[0].access_key != key && told.made[0].access_key != 0);
		key = told.made[0].access_key;
		assert_int_equal(told.n, 2);		/* never to RTS */
		assert_int_equal(told.attr[0].qp_state, IBV_QPS_INIT);
		assert_int_equal(told.mask[0], IBV_QP_STATE | IBV_QP_PKEY_INDEX | IBV_QP_PORT | IBV_QP_ACCESS_FLAGS);
		assert_int_equal(told.attr[0].port_num, 1);
		assert_int_equal(told.attr[0].qp_access_flags, (i % 2 == 1 ? IBV_ACCESS_REMOTE_READ : 0) | (i / 2 == 1 ? IBV_ACCESS_REMOTE_WRITE : 0));
		assert_int_equal(told.attr[1].qp_state, IBV_QPS_RTR);
		assert_int_equal(told.mask[1], IBV_QP_STATE | IBV_QP_PATH_MTU | IBV_QP_MIN_RNR_TIMER | IBV_QP_AV);
		assert_int_equal(told.attr[1].path_mtu, a.dev->mtu);
		assert_int_equal(told.attr[1].min_rnr_timer, 12);
		path_is(&told.attr[1].ah_attr, &a);
		/* It has its number only now. */
		number = mkv_rdma_qp_number(a.qp);
		assert_int_equal(told.number[1], 0);
		assert_int_equal(fv_qp_state(number), IBV_QPS_RTR);
		assert_true(mkv_rdma_qp_ready(a.qp));
		assert_int_equal(mkv_rdma_qp_room(a.qp) + mkv_rdma_qp_send_room(a.qp), 0);
		/* It knows no ERR. */
		mkv_rdma_qp_fail(a.qp);
		assert_int_equal(told.n, 2);
		assert_int_equal(fv_qp_state(number), IBV_QPS_UNKNOWN);
		assert_true(mkv_rdma_qp_idle(a.qp));
		mkv_rdma_qp_destroy(&a.qp);
	}
	up_none(&a, &b);
}

static void
every_field_is_there(void **state)
{
	struct mkv_rdma_dct to;
	struct fv_wr w[5];
	char text[UP_LONGEST] = "long";
	struct up a, b;

	(void)state;
	dc_both(&a, &b);
	dc_pair(&a, &b);
	to = dc_target(&b);
	up_write(&a, &b, 4096, 100, 0);
	up_read(&a, &b, 8192, 200, MKV_RDMA_SIGNAL);
	up_write(&a, &b, 64, 300, MKV_RDMA_FENCE);
	up_say(&a, text, 40, 0);
	up_say(&a, text, sizeof(text), MKV_RDMA_FENCE | MKV_RDMA_SIGNAL);
	mkv_rdma_hub_flush(a.hub);
	assert_int_equal(fv_count().doorbells, 1);
	assert_int_equal(fv_log(w, 5), 5);
	for (unsigned i = 0; i < 5; i++) {
		static const enum ibv_wr_opcode op[] = { IBV_WR_RDMA_WRITE, IBV_WR_RDMA_READ, IBV_WR_RDMA_WRITE, IBV_WR_SEND, IBV_WR_SEND };
		static const unsigned flags[] = { 0, IBV_SEND_SIGNALED, IBV_SEND_FENCE, IBV_SEND_INLINE, IBV_SEND_FENCE | IBV_SEND_SIGNALED };
		static const uint32_t bytes[] = { 100, 200, 300, 40, UP_LONGEST }, off[] = { 4096, 8192, 64 };

		assert_int_equal(w[i].qpn, mkv_rdma_qp_number(a.qp));
		assert_int_equal(w[i].opcode, op[i]);
		assert_int_equal(w[i].flags, flags[i]);
		assert_int_equal(w[i].bytes, bytes[i]);
		assert_memory_equal(w[i].dgid, to.gid, 16);
		assert_int_equal(w[i].dctn, to.dctn);
		assert_true(w[i].dc_key == to.key);
		assert_int_equal((uint32_t)w[i].wr_id, i);
		assert_int_equal(w[i].wr_id >> 32, w[0].wr_id >> 32);
		if (i < 3) {
			assert_int_equal(w[i].lkey, a.lkey);
			assert_true(w[i].local == (uintptr_t)a.area + off[i]);
			assert_int_equal(w[i].rkey, b.rkey);
			assert_true(w[i].remote == (uintptr_t)b.area + off[i]);
		} else {
			assert_int_equal(w[i].rkey, 0);
			assert_true(w[i].remote == 0);
			assert_int_equal(w[i].lkey != 0, i == 4);
			assert_true(w[i].local != 0);
		}
	}
	up_turn(&a, &b);
	assert_int_equal(a.good, 5);
	up_end(&a, &b);
	up_none(&a, &b);
}

/* The same moderation as a queue pair's: one doorbell for a batch, a completion for 16. */
static void
completions_are_moderated(void **state)
{
	struct fv_wr w[64];
	struct up a, b;

	(void)state;
	dc_both(&a, &b);
	dc_pair(&a, &b);
	for (unsigned i = 0; i < 64; i++)
		up_write(&a, &b, i * 64, 64, 0);
	up_turn(&a, &b);
	assert_int_equal(a.good, 64);
	assert_int_equal(mkv_rdma_hub_count(a.hub)->wrs, 64);
	assert_int_equal(mkv_rdma_hub_count(a.hub)->doorbells, 1);
	assert_int_equal(mkv_rdma_hub_count(a.hub)->completions, 4);
	assert_int_equal(fv_log(w, 64), 64);
	for (unsigned i = 0; i < 64; i++)
		assert_int_equal((w[i].flags & IBV_SEND_SIGNALED) != 0, i % 16 == 15);
	/* Round and round its ring. */
	for (unsigned round = 0; round < 100; round++) {
		for (unsigned i = 0; i < UP_SENDS; i++)
			up_write(&a, &b, i * 64, 64, 0);
		assert_int_equal(mkv_rdma_qp_room(a.qp), 0);
		up_turn(&a, &b);
		assert_int_equal(mkv_rdma_qp_room(a.qp), UP_SENDS);
	}
	up_end(&a, &b);
	up_none(&a, &b);
}

/* ---- where an initiator is aimed ---- */

static void
the_numbers_of_a_target_fit(void **state)
{
	struct mkv_rdma_dct good, to;
	struct up a, b;

	(void)state;
	dc_both(&a, &b);
	dc_pair(&a, &b);
	good = dc_target(&b);
	for (unsigned i = 0; i < 6; i++) {
		to = good;
		switch (i) {
		case 0: to.dctn = 0; break;
		case 1: to.dctn = 1; break;
		case 2: to.dctn = 0x1000000; break;
		case 3: memset(to.gid, 0, sizeof(to.gid)); break;
		case 4: to.gid[0] = 0xff; break;
		default: to.gid[15] = 99; break;
		}
		assert_int_equal(mkv_rdma_initiator_aim(a.qp, &to), i < 5 ? MKV_E_PEER : MKV_E_UNREACHABLE);
	}
	fv_fail(FV_CREATE_AH, 1, EIO);
	assert_int_equal(mkv_rdma_initiator_aim(a.qp, &to), MKV_E_SYSTEM);
	fv_fail(FV_CREATE_AH, 1, ENOMEM);
	assert_int_equal(mkv_rdma_initiator_aim(a.qp, &to), MKV_E_NOMEM);
	fail_alloc(1);
	assert_int_equal(mkv_rdma_initiator_aim(a.qp, &to), MKV_E_NOMEM);
	assert_int_equal(fail_alloc(0), 1);
	/* It is aimed where it was. */
	up_say(&a, "still", 6, 0);
	up_turn(&a, &b);
	assert_string_equal((char *)b.last, "still");
	/* On InfiniBand the LID says where. */
	a.dev->is_roce = 0;
	to = good;
	to.lid = 0;
	assert_int_equal(mkv_rdma_initiator_aim(a.qp, &to), MKV_E_PEER);
	to.lid = 0xc000;
	assert_int_equal(mkv_rdma_initiator_aim(a.qp, &to), MKV_E_PEER);
	to.lid = 7;
	assert_int_equal(mkv_rdma_initiator_aim(a.qp, &to), 0);
	up_end(&a, &b);
	up_none(&a, &b);
}

/* One after the other: each request goes to where the initiator was aimed when it was queued. */
static void
one_initiator_many_targets(void **state)
{
	struct mkv_rdma_qp_conf c;
	struct mkv_rdma_dct to[2];
	struct up a, b[2];

	(void)state;
	fv_start(3);
	fv_dc(FV_DC_YES);
	up_open(&a, "fake0");
	for (unsigned i = 0; i < 2; i++) {
		up_open(&b[i], i == 0 ? "fake1" : "fake2");
		dc_listen(&b[i]);
		to[i] = dc_target(&b[i]);
	}
	up_fresh(&a);
	c = up_conf(&a);
	assert_int_equal(mkv_rdma_initiator_create(&a.qp, a.hub, &c), 0);
	for (unsigned i = 0; i < 50; i++) {
		assert_int_equal(mkv_rdma_initiator_aim(a.qp, &to[i % 2]), 0);
		memset(a.area, (int)i + 1, 64);
		up_write(&a, &b[i % 2], 0, 64, 0);
		up_say(&a, "x", 1, 0);
		up_turn(&a, &b[i % 2]);
		assert_int_equal(b[i % 2].area[63], i + 1);
		assert_int_equal(b[i % 2].msgs, i / 2 + 1);
	}
	assert_int_equal(a.good, 100);
	assert_int_equal(fv_calls(FV_CREATE_AH), 2);
	mkv_rdma_qp_fail(a.qp);
	up_rest(&a);
	mkv_rdma_qp_destroy(&a.qp);
	for (unsigned i = 0; i < 2; i++) {
		mkv_rdma_qp_fail(b[i].qp);
		mkv_rdma_qp_destroy(&b[i].qp);
		up_close(&b[i]);
	}
	up_close(&a);
	assert_int_equal(fv_alive(), 0);
}

static void
aims_with_something_out(void *arg)
{
	struct up *a = arg;
	struct mkv_rdma_dct to = dc_target(a->far);

	up_write(a, a->far, 0, 64, 0);
	mkv_rdma_initiator_aim(a->qp, &to);
}

static void
adopts_with_something_out(void *arg)
{
	struct up *a = arg;

	up_write(a, a->far, 0, 64, 0);
	mkv_rdma_qp_adopt(a->qp, &up_ops, a);
}

static void
resets_a_ready_one(void *arg)
{
	mkv_rdma_initiator_reset(((struct up *)arg)->qp);
}

static void
connects_an_initiator(void *arg)
{
	struct up *a = arg;
	struct mkv_rdma_peer p = { .qpn = 5, .mtu_bytes = 1024 };

	memcpy(p.gid, a->dev->gid.raw, 16);
	mkv_rdma_qp_connect(a->qp, &p);
}

static void
writes_by_a_target(void *arg)
{
	struct up *a = arg;

	up_write(a->far, a, 0, 64, 0);
}

static void
states_are_kept(void **state)
{
	static void (*const bad[])(void *arg) = { aims_with_something_out, adopts_with_something_out, resets_a_ready_one, connects_an_initiator, writes_by_a_target };
	struct up a, b;

	(void)state;
	dc_both(&a, &b);
	dc_pair(&a, &b);
	for (unsigned i = 0; i < MKV_ARRAY_LEN(bad); i++)
		assert_int_equal(death_by_assert(bad[i], &a), 1);
	up_end(&a, &b);
	up_none(&a, &b);
}

/* ---- address handles ---- */

/* While its address stays what it is, a far end costs one call into the kernel, however many initiators are aimed at it in turn. */
static void
handles_are_kept(void **state)
{
	struct mkv_rdma_qp *more[3];
	struct mkv_rdma_qp_conf c;
	struct mkv_rdma_dct to;
	struct up a, b;

	(void)state;
	dc_both(&a, &b);
	dc_pair(&a, &b);
	to = dc_target(&b);
	c = up_conf(&a);
	for (unsigned i = 0; i < 3; i++) {
		assert_int_equal(mkv_rdma_initiator_create(&more[i], a.hub, &c), 0);
		assert_int_equal(mkv_rdma_initiator_aim(more[i], &to), 0);
	}
	for (unsigned i = 0; i < 20; i++) {
		to.dctn = 0x100 + i;
		to.key = i;
		assert_int_equal(mkv_rdma_initiator_aim(more[i % 3], &to), 0);
	}
	assert_int_equal(fv_calls(FV_CREATE_AH), 1);
	to.lid++;		/* another key of the cache */
	assert_int_equal(mkv_rdma_initiator_aim(more[0], &to), 0);
	assert_int_equal(fv_calls(FV_CREATE_AH), 2);
	for (unsigned i = 0; i < 3; i++) {
		mkv_rdma_qp_fail(more[i]);
		mkv_rdma_qp_destroy(&more[i]);
	}
	up_end(&a, &b);
	/* Nobody uses them now; they are there for the next. */
	dc_pair(&a, &b);
	assert_int_equal(fv_calls(FV_CREATE_AH), 2);
	up_end(&a, &b);
	up_none(&a, &b);
}

/* Our GIDs changed, or our port came back: all of them are asked for anew. Other events change nothing. */
static void
handles_go_with_our_gids(void **state)
{
	static const struct { enum ibv_event_type type; int drops; } of[] = { { IBV_EVENT_GID_CHANGE, 1 }, { IBV_EVENT_PORT_ERR, 0 }, { IBV_EVENT_PORT_ACTIVE, 1 },
		{ IBV_EVENT_LID_CHANGE, 1 }, { IBV_EVENT_PKEY_CHANGE, 0 } };
	struct mkv_rdma_dct to;
	struct up a, b;
	unsigned calls, alive;

	(void)state;
	dc_both(&a, &b);
	dc_pair(&a, &b);
	to = dc_target(&b);
	for (unsigned i = 0; i < MKV_ARRAY_LEN(of); i++) {
		calls = fv_calls(FV_CREATE_AH);
		alive = fv_alive();
		fv_event(0, of[i].type, 1);
		assert_int_not_equal(mkv_rdma_dev_event(a.dev, NULL), MKV_RDMA_EV_NONE);
		up_say(&a, "by the old one", 15, 0);		/* who is aimed stays so */
		up_turn(&a, &b);
		assert_int_equal(mkv_rdma_initiator_aim(a.qp, &to), 0);
		assert_int_equal(fv_calls(FV_CREATE_AH), calls + (unsigned)of[i].drops);
		assert_int_equal(fv_alive(), alive);
	}
	assert_int_equal(a.good, MKV_ARRAY_LEN(of));
	up_end(&a, &b);
	up_none(&a, &b);
}

/* A far end that moves to other hardware answers no more; the next who goes there finds it. */
static void
handles_go_with_a_path(void **state)
{
	struct mkv_rdma_qp_conf c;
	struct mkv_rdma_qp *other;
	struct mkv_rdma_dct to;
	struct ibv_gid_entry gid;
	struct up a, b, moved;
	unsigned calls;

	(void)state;
	fv_start(3);
	fv_dc(FV_DC_YES);
	up_open(&a, "fake0");
	up_open(&b, "fake1");
	dc_pair(&a, &b);
	to = dc_target(&b);
	c = up_conf(&a);
	assert_int_equal(mkv_rdma_initiator_create(&other, a.hub, &c), 0);
	assert_int_equal(mkv_rdma_initiator_aim(other, &to), 0);
	/* fake1's address is fake2's now. */
	for (unsigned i = 2; i < 4; i++) {
		gid = fv_device(1)->gid[i];
		fv_device(1)->gid[i] = fv_device(2)->gid[i];
		fv_device(2)->gid[i] = gid;
	}
	up_open(&moved, "fake2");
	dc_listen(&moved);
	to = dc_target(&moved);
	to.lid = b.dev->lid;		/* Ethernet has none */
	assert_memory_equal(to.gid, gid.gid.raw, 16);
	calls = fv_calls(FV_CREATE_AH);
	assert_int_equal(mkv_rdma_initiator_aim(a.qp, &to), 0);
	assert_int_equal(fv_calls(FV_CREATE_AH), calls);
	up_say(&a, "lost", 5, 0);
	up_turn(&a, &moved);
	up_rest(&a);
	assert_int_equal(mkv_rdma_qp_fault(a.qp), MKV_RDMA_FAULT_PATH);
	assert_int_equal(moved.msgs, 0);
	up_fresh(&a);
	assert_int_equal(mkv_rdma_initiator_reset(a.qp), 0);
	assert_int_equal(mkv_rdma_initiator_aim(a.qp, &to), 0);
	assert_int_equal(fv_calls(FV_CREATE_AH), calls + 1);
	up_say(&a, "found", 6, 0);
	up_turn(&a, &moved);
	assert_string_equal((char *)moved.last, "found");
	/* Who was aimed by the old handle has it until he aims again. */
	assert_int_equal(mkv_rdma_initiator_aim(other, &to), 0);
	assert_int_equal(fv_calls(FV_CREATE_AH), calls + 1);
	mkv_rdma_qp_fail(other);
	mkv_rdma_qp_destroy(&other);
	up_end(&a, &b);
	mkv_rdma_qp_fail(moved.qp);
	mkv_rdma_qp_destroy(&moved.qp);
	up_close(&moved);
	up_none(&a, &b);
}

/* Far ends come and go for years: what nobody uses is kept up to a limit, the oldest goes first. */
static void
handles_have_a_limit(void **state)
{
	struct mkv_rdma_qp_conf c;
	struct mkv_rdma_dct to;
	struct up a, b;
	unsigned alive, calls;

	(void)state;
	fv_start(2);
	fv_dc(FV_DC_YES);
	up_open_by(&a, "fake0", noting(), 4 * UP_SENDS);
	up_open(&b, "fake1");
	told.turn_to = b.dev->gid;
	c = up_conf(&a);
	assert_int_equal(mkv_rdma_initiator_create(&a.qp, a.hub, &c), 0);
	alive = fv_alive();
	to = (struct mkv_rdma_dct){ .dctn = 77 };
	memcpy(to.gid, b.dev->gid.raw, 16);
	for (unsigned i = 0; i < 3000; i++) {
		to.gid[14] = (uint8_t)(i >> 8);
		to.gid[15] = (uint8_t)i;
		assert_int_equal(mkv_rdma_initiator_aim(a.qp, &to), 0);
	}
	assert_int_equal(fv_calls(FV_CREATE_AH), 3000);
	assert_int_equal(fv_alive(), alive + 1 + 1024);
	calls = fv_calls(FV_CREATE_AH);
	for (unsigned i = 3000 - 1024; i < 3000; i++) {
		to.gid[14] = (uint8_t)(i >> 8);
		to.gid[15] = (uint8_t)i;
		assert_int_equal(mkv_rdma_initiator_aim(a.qp, &to), 0);
	}
	assert_int_equal(fv_calls(FV_CREATE_AH), calls);
	mkv_rdma_qp_fail(a.qp);
	mkv_rdma_qp_destroy(&a.qp);
	up_none(&a, &b);
}

/* ---- what fails at opening ---- */

static int
open_all(struct up *a, const struct mkv_rdma_dct *to)
{
	struct mkv_rdma_qp_conf c = { .sends = 8, .send_bytes = 1000, .ops = &up_ops, .owner = a }, t = { .remote_write = 1, .ops = &up_ops, .owner = a };
	struct mkv_rdma_qp *in = NULL, *target = NULL;
	struct mkv_rdma_pool *p = NULL;
	char why[256] = "";
	int e;

	if ((e = mkv_rdma_initiator_create(&in, a->hub, &c)) == 0 && (e = mkv_rdma_target_create(&target, a->hub, &t)) == 0 &&
	    (e = mkv_rdma_initiator_aim(in, to)) == 0 && (e = mkv_rdma_pool_open(&p, a->hub, &c, 3, why, sizeof(why))) != 0) {
		assert_null(p);
		assert_true(strlen(why) > 10);
	}
	assert_true(e == 0 || e == MKV_E_NOMEM || e == MKV_E_SYSTEM);
	mkv_rdma_pool_close(&p);
	if (in != NULL)
		mkv_rdma_qp_fail(in);
	if (target != NULL)
		mkv_rdma_qp_fail(target);
	mkv_rdma_hub_poll(a->hub, 1);
	mkv_rdma_qp_destroy(&in);
	mkv_rdma_qp_destroy(&target);
	return (e);
}

static void
whatever_fails_leaves_nothing(void **state)
{
	struct mkv_rdma_dct to = { .dctn = 77 };
	struct mkv_rdma_hub_conf hc = { .recvs = 4, .recv_bytes = 64, .sends_max = 64 };
	struct mkv_rdma_hub *kept;
	unsigned alive, calls, failed = 0;
	struct up a, b;
	char why[256];

	(void)state;
	dc_both(&a, &b);
	memcpy(to.gid, b.dev->gid.raw, 16);
	kept = a.hub;
	for (int v = 0; v < FV_VERBS; v++) {
		assert_int_equal(mkv_rdma_hub_open(&a.hub, a.dev, &hc, why, sizeof(why)), 0);
		calls = fv_calls((enum fv_verb)v);
		assert_int_equal(open_all(&a, &to), 0);
		calls = fv_calls((enum fv_verb)v) - calls;
		mkv_rdma_hub_close(&a.hub);
		for (unsigned n = 1; n <= calls; n++) {
			int e;

			alive = fv_alive();
			assert_int_equal(mkv_rdma_hub_open(&a.hub, a.dev, &hc, why, sizeof(why)), 0);
			fv_fail((enum fv_verb)v, n, v % 2 == 0 ? ENOMEM : EIO);
			e = open_all(&a, &to);
			failed += e != 0;
			/* Smaller inline sizes are tried after ENOMEM; of ERR and polling at the end nobody is told. */
			assert_true(e != 0 || v == FV_DC_CREATE_INITIATOR || v == FV_POLL_CQ || v == FV_MODIFY_QP);
			assert_int_equal(fv_fail((enum fv_verb)v, 0, 0), 1);
			mkv_rdma_hub_close(&a.hub);
			assert_int_equal(fv_alive(), alive);
		}
	}
	assert_true(failed >= 15);
	a.hub = kept;
	alive = fv_alive();
	for (unsigned n = 1; n < 60; n++) {
		fail_alloc(n);
		failed += open_all(&a, &to) == MKV_E_NOMEM;
		if (fail_alloc(0) == 0)
			break;
		assert_in_range(fv_alive(), alive, alive + 1);		/* the handle stays */
	}
	assert_true(failed >= 25);
	up_none(&a, &b);
}

/* ---- the fake is as strict as the driver ---- */

static void
the_fake_is_strict(void **state)
{
	const struct mkv_verbs *v = fv_verbs();
	const struct mkv_verbs noted = *noting();
	struct mkv_verbs_dc make, b_made;
	struct ibv_srq *srq;
	struct mkv_verbs_dc_wr w = { .opcode = IBV_WR_SEND, .n_sge = 1, .dctn = 77 };
	struct ibv_qp_attr at = { .qp_state = IBV_QPS_INIT, .port_num = 1 };
	struct ibv_qp *in, *to;
	struct up a, b;

	(void)state;
	fv_start(2);
	fv_dc(FV_DC_YES);
	up_open_by(&a, "fake0", noting(), 4 * UP_SENDS);
	up_open_by(&b, "fake1", &noted, 4 * UP_SENDS);
	dc_pair(&a, &b);		/* the target is made first */
	b_made = told.made[0];
	make = told.made[1];
	srq = b_made.srq;
	b_made.srq = NULL;
	in = v->dc_create_initiator(a.dev->ctx, &make);
	assert_non_null(in);
	/* An initiator has no remote access, and not even none. */
	assert_int_equal(v->modify_qp(in, &at, IBV_QP_STATE | IBV_QP_PKEY_INDEX | IBV_QP_PORT | IBV_QP_ACCESS_FLAGS), EINVAL);
	assert_int_equal(v->modify_qp(in, &at, IBV_QP_STATE | IBV_QP_PKEY_INDEX | IBV_QP_PORT), 0);
	at = (struct ibv_qp_attr){ .qp_state = IBV_QPS_RTR, .path_mtu = IBV_MTU_1024 };
	assert_int_equal(v->modify_qp(in, &at, IBV_QP_STATE | IBV_QP_PATH_MTU | IBV_QP_DEST_QPN), EINVAL);
	assert_int_equal(v->modify_qp(in, &at, IBV_QP_STATE | IBV_QP_PATH_MTU | IBV_QP_AV), EINVAL);	/* an AV of nothing */
	assert_int_equal(v->modify_qp(in, &at, IBV_QP_STATE | IBV_QP_PATH_MTU), 0);
	assert_int_equal(v->dc_post(in, &w, 1), EINVAL);		/* not RTS */
	at = (struct ibv_qp_attr){ .qp_state = IBV_QPS_RTS, .timeout = 14, .retry_cnt = 6, .rnr_retry = 6 };
	assert_int_equal(v->modify_qp(in, &at, IBV_QP_STATE | IBV_QP_TIMEOUT | IBV_QP_RETRY_CNT | IBV_QP_RNR_RETRY | IBV_QP_SQ_PSN), EINVAL);
	assert_int_equal(v->modify_qp(in, &at, IBV_QP_STATE | IBV_QP_TIMEOUT | IBV_QP_RETRY_CNT | IBV_QP_RNR_RETRY | IBV_QP_SQ_PSN | IBV_QP_MAX_QP_RD_ATOMIC), 0);
	assert_int_equal(v->dc_post(in, &w, 1), EINVAL);		/* no address */
	/* A target wants receives, sends nothing, and never goes on to RTS or ERR. */
	assert_null(v->dc_create_target(b.dev->ctx, &b_made));
	b_made.srq = srq;
	b_made.max_send_wr = 1;
	assert_null(v->dc_create_target(b.dev->ctx, &b_made));
	b_made.max_send_wr = 0;
	assert_non_null(to = v->dc_create_target(b.dev->ctx, &b_made));
	at = (struct ibv_qp_attr){ .qp_state = IBV_QPS_INIT, .port_num = 1 };
	assert_int_equal(v->modify_qp(to, &at, IBV_QP_STATE | IBV_QP_PKEY_INDEX | IBV_QP_PORT), EINVAL);
	assert_int_equal(v->modify_qp(to, &at, IBV_QP_STATE | IBV_QP_PKEY_INDEX | IBV_QP_PORT | IBV_QP_ACCESS_FLAGS), 0);
	for (unsigned i = 0; i < 3; i++) {
		at.qp_state = i == 0 ? IBV_QPS_ERR : i == 1 ? IBV_QPS_RESET : IBV_QPS_RTS;
		assert_int_equal(v->modify_qp(to, &at, IBV_QP_STATE), EINVAL);
	}
	v->destroy_qp(to);
	v->destroy_qp(in);
	up_end(&a, &b);
	up_none(&a, &b);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_device_says_why_it_has_none),
		cmocka_unit_test(bytes_and_messages_go),
		cmocka_unit_test(an_initiator_goes_through_its_states),
		cmocka_unit_test(a_target_goes_through_its_states),
		cmocka_unit_test(every_field_is_there),
		cmocka_unit_test(completions_are_moderated),
		cmocka_unit_test(the_numbers_of_a_target_fit),
		cmocka_unit_test(one_initiator_many_targets),
		cmocka_unit_test(states_are_kept),
		cmocka_unit_test(handles_are_kept),
		cmocka_unit_test(handles_go_with_our_gids),
		cmocka_unit_test(handles_go_with_a_path),
		cmocka_unit_test(handles_have_a_limit),
		cmocka_unit_test(whatever_fails_leaves_nothing),
		cmocka_unit_test(the_fake_is_strict),
	};

	return (cmocka_run_group_tests(tests, NULL, NULL));
}
