/*
 * Two ends of DC on the fake fabric: an initiator at a, its target at b. What a test of queue pairs does with them (rdma_up.h) works here too.
 */
#ifndef MKV_TESTS_RDMA_DC_UP_H
#define MKV_TESTS_RDMA_DC_UP_H

#include "common/rdma/dc.h"
#include "tests/unit/rdma_up.h"

static inline void
dc_both(struct up *a, struct up *b)
{
	fv_start(2);
	fv_dc(FV_DC_YES);
	up_open(a, "fake0");
	up_open(b, "fake1");
}

static inline struct mkv_rdma_dct
dc_target(const struct up *u)
{
	struct mkv_rdma_dct t = { .lid = u->dev->lid, .dctn = mkv_rdma_qp_number(u->qp), .key = mkv_rdma_target_key(u->qp) };

	memcpy(t.gid, u->dev->gid.raw, sizeof(t.gid));
	return (t);
}

static inline void
dc_listen(struct up *u)
{
	struct mkv_rdma_qp_conf c = up_conf(u);

	up_fresh(u);
	c.sends = 0;
	assert_int_equal(mkv_rdma_target_create(&u->qp, u->hub, &c), 0);
	assert_true(mkv_rdma_qp_ready(u->qp));
}

static inline void
dc_pair(struct up *a, struct up *b)
{
	struct mkv_rdma_qp_conf c = up_conf(a);
	struct mkv_rdma_dct to;

	dc_listen(b);
	up_fresh(a);
	a->far = b;
	b->far = a;
	to = dc_target(b);
	assert_int_equal(mkv_rdma_initiator_create(&a->qp, a->hub, &c), 0);
	assert_int_equal(mkv_rdma_initiator_aim(a->qp, &to), 0);
}

#endif
