/*
 * Two ends on the fake fabric, as the tests of common/rdma use them: a device, a hub, registered memory and a queue pair each.
 */
#ifndef MKV_TESTS_RDMA_UP_H
#define MKV_TESTS_RDMA_UP_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "common/base/clock.h"
#include "common/base/err.h"
#include "common/rdma/mem.h"
#include "common/rdma/qp.h"
#include "tests/lib/fakeverbs.h"

#define UP_AREA		65536u
#define UP_RECVS	16u
#define UP_RECV_BYTES	1024u
#define UP_SENDS	128u
#define UP_LONGEST	1000u

struct up {
	struct up	*far;
	struct mkv_rdma_dev *dev;
	struct mkv_rdma_hub *hub;
	struct mkv_rdma_mem *mem;
	struct mkv_rdma_qp *qp;
	uint8_t		*area;
	uint32_t	lkey, rkey;
	unsigned	msgs, dones, good, closed, brokens;
	uint64_t	next_cookie, next_done;
	struct mkv_rdma_rx *kept[UP_RECVS];
	unsigned	keep, n_kept;
	uint8_t		last[UP_RECV_BYTES];
	uint32_t	last_bytes;
	char		why[256];
	void		(*on_done)(struct up *u);	/* called inside of done() */
	void		(*on_broken)(struct up *u);
};

static inline void
up_recv(struct mkv_rdma_qp *qp, struct mkv_rdma_rx *rx)
{
	struct up *u = mkv_rdma_qp_owner(qp);

	u->msgs++;
	u->last_bytes = rx->bytes;
	memcpy(u->last, rx->buf, rx->bytes);
	assert_int_equal((uintptr_t)rx->buf % 64, 0);
	if (u->keep > u->n_kept)
		u->kept[u->n_kept++] = rx;
	else
		mkv_rdma_rx_back(u->hub, rx);
}

/* In the order of queueing, none good after one that was not, and broken() before the first that was not. */
static inline void
up_done(struct mkv_rdma_qp *qp, void *cookie, int status)
{
	struct up *u = mkv_rdma_qp_owner(qp);

	assert_int_equal((uint64_t)(uintptr_t)cookie, u->next_done);
	u->next_done++;
	u->dones++;
	if (status == 0) {
		assert_int_equal(u->closed, 0);
		u->good++;
	} else {
		assert_int_equal(status, MKV_E_CLOSED);
		u->closed++;
	}
	if (u->on_done != NULL)
		u->on_done(u);
}

static inline void
up_broken(struct mkv_rdma_qp *qp, const char *why)
{
	struct up *u = mkv_rdma_qp_owner(qp);

	assert_int_equal(u->closed, 0);
	assert_false(mkv_rdma_qp_ready(qp));
	u->brokens++;
	snprintf(u->why, sizeof(u->why), "%s", why);
	if (u->on_broken != NULL)
		u->on_broken(u);
}

static const struct mkv_rdma_qp_ops up_ops = { up_recv, up_done, up_broken };

static inline void
up_open_by(struct up *u, const char *device, const struct mkv_verbs *v, uint32_t sends)
{
	struct mkv_rdma_conf c = { .device = device, .gid_index = -1, .traffic_class = -1, .service_level = -1 };
	struct mkv_rdma_hub_conf hc = { .recvs = UP_RECVS, .recv_bytes = UP_RECV_BYTES, .sends_max = sends };
	char why[512] = "";

	memset(u, 0, sizeof(*u));
	assert_int_equal(mkv_rdma_dev_open(&u->dev, v, &c, why, sizeof(why)), 0);
	assert_int_equal(mkv_rdma_hub_open(&u->hub, u->dev, &hc, why, sizeof(why)), 0);
	u->area = calloc(1, UP_AREA);
	assert_non_null(u->area);
	assert_int_equal(mkv_rdma_mem_add(&u->mem, u->dev, u->area, UP_AREA, MKV_RDMA_READABLE | MKV_RDMA_WRITABLE, why, sizeof(why)), 0);
	assert_int_equal(mkv_rdma_mem_keys(u->mem, u->area, &u->lkey, &u->rkey), UP_AREA);
}

static inline void
up_open(struct up *u, const char *device)
{
	up_open_by(u, device, fv_verbs(), 4 * UP_SENDS);
}

static inline void
up_close(struct up *u)
{
	mkv_rdma_mem_drop(&u->mem);
	mkv_rdma_hub_close(&u->hub);
	mkv_rdma_dev_close(&u->dev);
	free(u->area);
}

static inline struct mkv_rdma_qp_conf
up_conf(struct up *u)
{
	return ((struct mkv_rdma_qp_conf){ .sends = UP_SENDS, .send_bytes = UP_LONGEST, .remote_read = 1, .remote_write = 1, .ops = &up_ops, .owner = u });
}

static inline struct mkv_rdma_peer
up_peer(const struct up *u)
{
	struct mkv_rdma_peer p = { .qpn = mkv_rdma_qp_number(u->qp), .psn = mkv_rdma_qp_psn(u->qp), .mtu_bytes = u->dev->mtu_bytes, .lid = u->dev->lid,
		.rd_atomic_in = u->dev->rd_atomic_in, .rd_atomic_out = u->dev->rd_atomic_out };

	memcpy(p.gid, u->dev->gid.raw, 16);
	return (p);
}

static inline void
up_fresh(struct up *u)
{
	u->msgs = u->dones = u->good = u->closed = u->brokens = u->keep = u->n_kept = 0;
	u->next_cookie = u->next_done = 0;
	u->on_done = u->on_broken = NULL;
	u->why[0] = '\0';
}

static inline void
up_pair(struct up *a, struct up *b)
{
	struct mkv_rdma_qp_conf ca = up_conf(a), cb = up_conf(b);
	struct mkv_rdma_peer pa, pb;

	up_fresh(a);
	up_fresh(b);
	a->far = b;
	b->far = a;
	assert_int_equal(mkv_rdma_qp_create(&a->qp, a->hub, &ca), 0);
	assert_int_equal(mkv_rdma_qp_create(&b->qp, b->hub, &cb), 0);
	pa = up_peer(a);
	pb = up_peer(b);
	assert_int_equal(mkv_rdma_qp_connect(a->qp, &pb), 0);
	assert_int_equal(mkv_rdma_qp_connect(b->qp, &pa), 0);
}

static inline void
up_turn(struct up *a, struct up *b)
{
	mkv_rdma_hub_flush(a->hub);
	mkv_rdma_hub_flush(b->hub);
	while (mkv_rdma_hub_poll(a->hub, 16) + mkv_rdma_hub_poll(b->hub, 16) > 0)
		;
}

/* Until it is at rest; the clock is real, so a drain that nothing ends takes its 50 ms. */
static inline void
up_rest(struct up *u)
{
	uint64_t end = mkv_now_ns() + 20 * MKV_NS_PER_SEC;

	while (!mkv_rdma_qp_idle(u->qp)) {
		assert_true(mkv_now_ns() < end);
		assert_int_equal(mkv_rdma_hub_arm(u->hub), 0);	/* who has something to drain does not sleep */
		mkv_rdma_hub_poll(u->hub, 16);
	}
	assert_int_equal(u->dones, u->next_cookie);
}

static inline void
up_end(struct up *a, struct up *b)
{
	mkv_rdma_qp_fail(a->qp);
	mkv_rdma_qp_fail(b->qp);
	up_rest(a);
	up_rest(b);
	mkv_rdma_qp_destroy(&a->qp);
	mkv_rdma_qp_destroy(&b->qp);
}

static inline void
up_write(struct up *a, struct up *b, uint32_t off, uint32_t bytes, unsigned flags)
{
	mkv_rdma_qp_write(a->qp, a->area + off, a->lkey, (uintptr_t)b->area + off, b->rkey, bytes, flags, (void *)(uintptr_t)a->next_cookie++);
}

static inline void
up_read(struct up *a, struct up *b, uint32_t off, uint32_t bytes, unsigned flags)
{
	mkv_rdma_qp_read(a->qp, a->area + off, a->lkey, (uintptr_t)b->area + off, b->rkey, bytes, flags, (void *)(uintptr_t)a->next_cookie++);
}

static inline void
up_say(struct up *a, const char *text, size_t bytes, unsigned flags)
{
	struct iovec iov[3] = { { (void *)(uintptr_t)text, bytes / 2 }, { NULL, 0 }, { (void *)(uintptr_t)(text + bytes / 2), bytes - bytes / 2 } };

	mkv_rdma_qp_send(a->qp, iov, 3, flags, (void *)(uintptr_t)a->next_cookie++);
}

static inline void
up_both(struct up *a, struct up *b)
{
	fv_start(2);
	up_open(a, "fake0");
	up_open(b, "fake1");
}

static inline void
up_none(struct up *a, struct up *b)
{
	up_close(a);
	up_close(b);
	assert_int_equal(fv_alive(), 0);
}

#endif
