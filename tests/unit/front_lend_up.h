/*
 * For tests of regions that drives have: a front with two fake drives, a client on a unix socket, and what is with whom.
 */
#ifndef MKV_TESTS_UNIT_FRONT_LEND_UP_H
#define MKV_TESTS_UNIT_FRONT_LEND_UP_H

#include "common/base/err.h"
#include "tests/unit/front_region_up.h"

#define CHUNK	65536u

static inline uint64_t
metric(struct rig *r, enum mkv_metric m)
{
	return (mkv_metric_get(r->m, m, 0));
}

static inline unsigned
direct(const struct rig *r)
{
	return (r->drive[0].direct + r->drive[1].direct);
}

static inline int
lent_all(const struct rig *r, unsigned n)
{
	return (r->drive[0].n_lent == n && r->drive[1].n_lent == n && r->f->lends_here == 2 * n);
}

static inline void
lent(struct rig *r, unsigned n)
{
	for (unsigned i = 0; i < RIG_PATIENCE_MS && !lent_all(r, n); i++)
		rig_pump_ms(r, 1);
	assert_true(lent_all(r, n));
}

static inline void
held(struct rig *r, unsigned n)
{
	for (unsigned i = 0; i < RIG_PATIENCE_MS && r->drive[0].n_held + r->drive[1].n_held < n; i++)
		rig_pump_ms(r, 1);
	assert_int_equal(r->drive[0].n_held + r->drive[1].n_held, n);
}

static inline void
hold(struct rig *r, int on)
{
	for (unsigned i = 0; i < 2; i++)
		if (on)
			r->drive[i].hold = 1;
		else
			rig_drive_answer_held(&r->drive[i]);
}

static inline struct memory
stable(struct rig *r, struct rig_client *c, uint32_t number)
{
	struct memory m = memory_of(ROOM);

	assert_int_equal(region_with(c, number, ROOM, m.fd, MKV_WIRE_REGION_STABLE), 0);
	lent(r, 1);
	return (m);
}

/* A get of all of it, with this much room. */
static inline uint64_t
get(struct rig_client *c, const char *key, uint64_t at, uint64_t room)
{
	struct mkv_wire_seg s = { at, (uint32_t)room, 1 };

	return (begin_get(c, key, 0, UINT64_MAX, &s, 1));
}

/* The request is cancelled while a drive has the memory: CANCEL is answered, the request when the drive is done. */
static inline void
cancel_held(struct rig *r, struct rig_client *c, uint64_t id)
{
	struct mkv_wire_cancel w = { .request_id = id };

	assert_int_equal(answer(c, rig_send(c, MKV_WIRE_CANCEL, 0, 0, &w, sizeof(w), NULL, 0)), 0);
	assert_int_equal(rig_recv(c, 20), 0);
	hold(r, 0);
	assert_int_equal(answer(c, id), MKV_E_CANCELLED);
}

static inline void
gone(struct rig *r)
{
	for (unsigned i = 0; i < RIG_PATIENCE_MS && (r->f->n_conns != 0 || r->f->n_regions != 0); i++)
		rig_pump_ms(r, 1);
	assert_int_equal(r->f->n_regions, 0);
	assert_int_equal(r->f->regions_bytes, 0);
	assert_int_equal(r->f->lends_here, 0);
	assert_int_equal(r->f->lends_asked, 0);
	assert_int_equal(r->drive[0].n_lent + r->drive[1].n_lent, 0);
}

static inline void
with_front(int memory_mode, int verify_put, void (*fn)(struct rig *, struct rig_client *))
{
	struct rig_conf conf = { .drives = 2, .memory_mode = memory_mode, .regions_bytes = 1ull << 30, .lend = 1, .kind = MKV_IOQ_AUTO, .idle_ns = 600 * MKV_NS_PER_SEC };
	struct rig_client c;
	struct rig r;

	rig_open(&r, &conf);
	r.f->conf.verify_put = verify_put;
	r.from = &unix_socket;
	rig_client_open(&r, &c);
	rig_client_handshake(&c);
	fn(&r, &c);
	rig_client_close(&c);
	gone(&r);
	rig_close(&r);
}

#endif
