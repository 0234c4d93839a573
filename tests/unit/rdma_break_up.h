/*
 * What breaks who sends, by RC and by DC alike: mistakes, a WRITE whose owner shuts its end in the middle, requests that are out when they are given up.
 */
#ifndef MKV_TESTS_RDMA_BREAK_UP_H
#define MKV_TESTS_RDMA_BREAK_UP_H

#include "tests/lib/rnd.h"
#include "tests/unit/rdma_up.h"

struct mistake {
	void		(*make)(struct up *a, struct up *b);
	const char	*word;			/* of what a's user hears */
	enum mkv_rdma_fault fault;
};

static inline void
wrong_rkey(struct up *a, struct up *b)
{
	b->rkey ^= 0x5500;
	up_write(a, b, 0, 64, 0);
	b->rkey ^= 0x5500;
}

static inline void
past_the_end(struct up *a, struct up *b)
{
	mkv_rdma_qp_write(a->qp, a->area, a->lkey, (uintptr_t)b->area + UP_AREA - 32, b->rkey, 64, 0, (void *)(uintptr_t)a->next_cookie++);
}

static inline void
before_the_begin(struct up *a, struct up *b)
{
	mkv_rdma_qp_read(a->qp, a->area, a->lkey, (uintptr_t)b->area - 1, b->rkey, 64, 0, (void *)(uintptr_t)a->next_cookie++);
}

static inline void
wrong_lkey(struct up *a, struct up *b)
{
	a->lkey ^= 0x5500;
	up_write(a, b, 0, 64, 0);
	a->lkey ^= 0x5500;
}

static inline void
too_long_a_message(struct up *a, struct up *b)
{
	char text[UP_LONGEST] = "";

	(void)b;
	up_say(a, text, sizeof(text), 0);
}

static const struct mistake mistakes[] = {
	{ wrong_rkey, "does not let us at that memory", MKV_RDMA_FAULT_ACCESS },
	{ past_the_end, "does not let us at that memory", MKV_RDMA_FAULT_ACCESS },
	{ before_the_begin, "does not let us at that memory", MKV_RDMA_FAULT_ACCESS },
	{ wrong_lkey, "memory of ours is not registered", MKV_RDMA_FAULT_OTHER },
};
/* On a device that flushes at once (FV_FLUSH_FIRST), which leaves nothing better to say. */
static const struct mistake flushed_mistake = { wrong_lkey, "had already broken", MKV_RDMA_FAULT_OTHER };
/* To a hub of short receives. */
static const struct mistake long_mistake = { too_long_a_message, "longer than its receive", MKV_RDMA_FAULT_OTHER };

/* u broke, and said why. */
static inline void
assert_broke(const struct up *u, const char *word, enum mkv_rdma_fault fault)
{
	assert_int_equal(u->brokens, 1);
	if (strstr(u->why, word) == NULL)
		fail_msg("'%s' lacks '%s'", u->why, word);
	assert_int_equal(mkv_rdma_qp_fault(u->qp), fault);
	assert_int_equal(mkv_rdma_qp_room(u->qp), 0);
	assert_int_equal(fv_qp_state(mkv_rdma_qp_number(u->qp)), u->dev->is_soft ? IBV_QPS_UNKNOWN : IBV_QPS_ERR);
}

/* One that goes wrong between ten that would not: what came before it may be reported either way, but in order; what comes behind is closed. */
static inline void
make_mistake(struct up *a, struct up *b, const struct mistake *m)
{
	unsigned before = fv_count().doorbells;

	for (unsigned i = 0; i < 5; i++)
		up_write(a, b, i * 64, 64, i == 2 ? MKV_RDMA_SIGNAL : 0);
	m->make(a, b);
	for (unsigned i = 0; i < 5; i++)
		up_write(a, b, i * 64, 64, 0);
	up_turn(a, b);
	up_rest(a);
	assert_int_equal(fv_count().doorbells, before + 1);
	assert_int_equal(a->good, 3);
	assert_int_equal(a->closed, 8);
	assert_broke(a, m->word, m->fault);
}

/* Receives of 64 bytes, and so many of them, for queue pairs of u to come. The hub that it had; short_receives_end() takes it back. */
static inline struct mkv_rdma_hub *
short_receives(struct up *u, uint32_t recvs)
{
	struct mkv_rdma_hub_conf hc = { .recvs = recvs, .recv_bytes = 64, .sends_max = UP_SENDS };
	struct mkv_rdma_hub *was = u->hub;
	char why[512];

	assert_int_equal(mkv_rdma_hub_open(&u->hub, u->dev, &hc, why, sizeof(why)), 0);
	return (was);
}

static inline void
short_receives_end(struct up *u, struct mkv_rdma_hub *was)
{
	mkv_rdma_hub_close(&u->hub);
	u->hub = was;
}

/*
 * The owner of the memory shuts his end in the middle of a WRITE: two of eight have arrived and a part of the third, and nothing else does once that call has
 * returned. o: another one that writes there too; NULL: there is none. gone: what the NIC knows then of the end that was shut.
 */
static inline void
fence_in_the_middle(struct up *a, struct up *b, struct up *o, enum ibv_qp_state gone)
{
	uint32_t number = mkv_rdma_qp_number(b->qp);

	fv_hold(1);
	memset(a->area, 0x77, UP_AREA);
	for (unsigned i = 0; i < 8; i++)
		up_write(a, b, i * 4096, 4096, 0);
	up_say(a, "late", 5, 0);
	mkv_rdma_hub_flush(a->hub);
	if (o != NULL)
		up_write(o, b, 32768, 4096, 0);
	mkv_rdma_hub_flush(a->hub);
	assert_int_equal(fv_step(2), 2);
	assert_int_equal(fv_part(1000), 1);
	assert_int_equal(b->area[8191], 0x77);
	assert_int_equal(b->area[8192 + 999], 0x77);
	mkv_rdma_qp_fail(b->qp);
	assert_true(mkv_rdma_qp_idle(b->qp));		/* nothing of its own was out */
	assert_int_equal(fv_qp_state(number), gone);
	assert_int_equal(fv_part(2000), 0);
	fv_hold(0);
	for (unsigned i = 8192 + 1000; i < UP_AREA; i++)
		assert_int_equal(b->area[i], 0);
	up_turn(a, b);
	up_rest(a);
	if (o != NULL)
		up_rest(o);
	assert_int_equal(a->closed, 9);			/* the first two had no completion of their own: nobody knows */
	assert_int_equal(b->msgs + b->brokens, 0);
}

/* fail() with requests out: they come back closed, without broken(); what was only queued as well. how: 0 queued, 1 posted, 2 some done, 3 more queued behind. */
static inline void
fail_with_requests_out(struct up *a, struct up *b, unsigned how)
{
	fv_hold(1);
	for (unsigned i = 0; i < 20; i++)
		up_write(a, b, i * 64, 64, 0);
	if (how > 0)
		mkv_rdma_hub_flush(a->hub);
	if (how > 1)
		fv_step(17);
	if (how > 2)
		for (unsigned i = 0; i < 7; i++) {
			up_write(a, b, i * 64, 64, 0);
			up_say(a, (char *)a->area, 700, 0);
		}
	mkv_rdma_qp_fail(a->qp);
	assert_false(mkv_rdma_qp_idle(a->qp));
	assert_int_equal(a->dones, 0);			/* never from inside of another call */
	mkv_rdma_qp_fail(a->qp);
	up_rest(a);
	assert_int_equal(a->good, how > 1 ? 16 : 0);
	assert_int_equal(a->closed, a->next_cookie - a->good);
	assert_int_equal(a->brokens, 0);
	assert_int_equal(mkv_rdma_qp_fault(a->qp), MKV_RDMA_FAULT_NONE);
	fv_hold(0);
}

/* One thing of many that may happen to u, or by it to `to`; read_most: of a READ's bytes, more than there are is a mistake. */
static inline void
something_happens(struct rnd *r, struct up *u, struct up *to, uint32_t read_most)
{
	switch (rnd_below(r, 9)) {
	case 0: case 1: case 2:
		if (mkv_rdma_qp_room(u->qp) > 0)
			up_write(u, to, rnd_below(r, 100) * 64, 64, rnd_below(r, 4) == 0);
		break;
	case 3:
		if (mkv_rdma_qp_room(u->qp) > 0)
			up_read(u, to, 8192 + rnd_below(r, 100) * 64, rnd_below(r, 9) == 0 ? read_most : 64, 0);
		break;
	case 4:
		if (mkv_rdma_qp_send_room(u->qp) > 0)
			up_say(u, (char *)u->area, 1 + rnd_below(r, UP_LONGEST - 1), 0);
		break;
	case 5: fv_step(rnd_below(r, 10)); break;
	case 6: mkv_rdma_hub_flush(u->hub); break;
	case 7: mkv_rdma_hub_poll(u->hub, rnd_below(r, 20)); break;
	default:
		if (rnd_below(r, 20) == 0)
			fv_qp_break(mkv_rdma_qp_number(u->qp));
		else if (rnd_below(r, 20) == 0)
			mkv_rdma_qp_fail(u->qp);
	}
}

#endif
