/*
 * A second DC session of the front beside that of front_rail_up.h: a tether and keys of its own, messages by t's initiator. Its answers come to t's target, where
 * they are not expected: a test closes the guest before it looks there again.
 */
#ifndef MKV_TESTS_FRONT_GUEST_H
#define MKV_TESTS_FRONT_GUEST_H

#include "tests/unit/front_rail_up.h"

struct guest {
	struct rig_client c;
	struct mkv_conn	*conn;
	struct mkv_mac	*out;
	uint64_t	counter;
};

static inline void
guest_open(struct t *t, struct guest *g)
{
	struct mkv_wire_attach a = t_want(t, 1);
	const struct mkv_session *s;
	uint8_t k[MKV_KEY_BYTES];

	memset(g, 0, sizeof(*g));
	rig_client_join(&t->r, &g->c, 1);
	g->conn = MKV_CONTAINER_OF(t->r.f->conn_used.prev, struct mkv_conn, link);
	s = &g->conn->s;
	assert_int_equal(t_ask_for(&g->c, &a), 0);
	assert_int_equal(mkv_key_session(t->r.key, s->nonce_c, s->nonce_s, MKV_DIR_C2S, 1, t->r.f->conf.front_id, s->transcript, k), 0);
	assert_int_equal(mkv_mac_create(&g->out, k), 0);
}

/* What t sends in between is the guest's. */
static inline void
guest_turn(struct t *t, struct guest *g)
{
	struct guest was = { .out = t->out, .c.session = t->c.session, .counter = t->counter };

	t->out = g->out;
	t->c.session = g->c.session;
	t->counter = g->counter;
	g->out = was.out;
	g->c.session = was.c.session;
	g->counter = was.counter;
}

static inline void
guest_ask_get(struct t *t, struct guest *g, const char *key)
{
	guest_turn(t, g);
	(void)t_ask_get(t, key, 0, 0, 1000, 1000);
	guest_turn(t, g);
}

static inline void
guest_close(struct guest *g)
{
	rig_client_close(&g->c);
	mkv_mac_destroy(&g->out);
}

#endif
