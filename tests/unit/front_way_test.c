/*
 * A front and clients whose addresses nobody answers for: the kernel takes its time to find out, and no other client waits with them. By RC, where the call that takes
 * it is the one to RTR, and by DC, where it is the one that makes an address handle.
 */
#include "config.h"

#include "tests/lib/fakeverbs.h"

static const struct mkv_verbs *slow_verbs(void);

#define fv_verbs	slow_verbs
#include "tests/unit/front_rail_up.h"
#undef fv_verbs

#include <stdatomic.h>
#include <unistd.h>

#include "worker/front/rail_priv.h"

#define SLOW_MS		800u
#define NOBODY		0x77		/* all bytes of his address */
#define LATE		0x78		/* answers in the end, at the client's address */

static _Atomic unsigned looked_up;
static union ibv_gid at_last;

/* ETIMEDOUT, or 0 with the address that there is. */
static int
look_up(struct ibv_ah_attr *a)
{
	const uint8_t who = a->grh.dgid.raw[0];

	if (who != NOBODY && who != LATE)
		return (0);
	atomic_fetch_add(&looked_up, 1);
	usleep(SLOW_MS * 1000);
	if (who == NOBODY)
		return (ETIMEDOUT);
	a->grh.dgid = at_last;
	return (0);
}

static struct ibv_ah *
slow_create_ah(struct ibv_pd *pd, struct ibv_ah_attr *a)
{
	struct ibv_ah_attr found = *a;

	if ((errno = look_up(&found)) != 0)
		return (NULL);
	return (fv_verbs()->create_ah(pd, &found));
}

static int
slow_modify_qp(struct ibv_qp *qp, struct ibv_qp_attr *a, int mask)
{
	struct ibv_qp_attr found = *a;
	int e;

	if ((mask & IBV_QP_DEST_QPN) != 0 && (e = look_up(&found.ah_attr)) != 0)
		return (e);
	return (fv_verbs()->modify_qp(qp, &found, mask));
}

static const struct mkv_verbs *
slow_verbs(void)
{
	static struct mkv_verbs v;

	v = *fv_verbs();
	v.create_ah = slow_create_ah;
	v.modify_qp = slow_modify_qp;
	return (&v);
}

static struct t *
with_a_value(uint32_t num_dcis)
{
	struct t *t = opened(num_dcis);

	looked_up = 0;
	assert_int_equal(t_put(t, "k", 0, 1000, 1000), 0);
	at_last = t->u.dev->gid;
	return (t);
}

/* Another client asks for a channel, and its address is being looked up. */
static void
another_asks(struct t *t, struct rig_client *c, uint8_t address)
{
	struct mkv_wire_attach a = t_want(t, 1);

	memset(a.gid, address, sizeof(a.gid));
	rig_client_join(&t->r, c, 1);
	rig_send(c, MKV_WIRE_ATTACH, 0, 0, &a, sizeof(a), NULL, 0);
	for (unsigned i = 0; i < 1000 && looked_up == 0; i++)
		rig_pump_ms(&t->r, 1);
	assert_int_equal(looked_up, 1);
}

static int
answer(struct rig_client *c)
{
	assert_int_equal(rig_recv(c, RIG_PATIENCE_MS), 1);
	assert_int_equal(c->f.hdr.op, MKV_WIRE_ATTACH);
	return (-(int)c->f.hdr.status);
}

static void
others_do_not_wait(void **state)
{
	(void)state;
	for (uint32_t dcis = 0; dcis <= 4; dcis += 4)
		for (uint8_t address = NOBODY; address <= LATE; address++) {
			struct t *t = with_a_value(dcis);
			struct rig_client c;
			uint64_t began = mkv_now_ns();

			another_asks(t, &c, address);
			for (unsigned i = 0; i < 5; i++)
				assert_int_equal(t_get(t, "k", 0, 100000, 1000, 1000), 1000);
			assert_true(mkv_now_ns() - began < SLOW_MS / 2 * MKV_NS_PER_MS);
			assert_int_equal(rig_recv(&c, 0), 0);
			assert_int_equal(answer(&c), address == NOBODY ? MKV_E_UNREACHABLE : 0);
			assert_int_equal(M(channels_opened_total), address == NOBODY ? 1 : 2);
			rig_client_close(&c);
			closed(t);
		}
}

/* The client leaves, or the time that it gave is over, or it begins anew: what was set aside for it is there again, at once or when the look-up has ended. */
static void
who_asked_gives_up(void **state)
{
	(void)state;
	for (uint32_t dcis = 0; dcis <= 4; dcis += 4)
		for (unsigned what = 0; what < 3; what++) {
			struct t *t = with_a_value(dcis);
			uint32_t credits = t->rail->credits_left;
			struct rig_client c;
			struct mkv_wire_attach a;

			another_asks(t, &c, NOBODY);
			assert_true(t->rail->credits_left < credits);
			if (what == 0)
				assert_int_equal(shutdown(c.fd, SHUT_RDWR), 0);
			else if (what == 1) {
				t->r.ahead_ns = 3600 * MKV_NS_PER_SEC;
				rig_pump_ms(&t->r, 5);
				t->r.ahead_ns = 0;
				assert_int_equal(answer(&c), MKV_E_TIMEOUT);
			} else {
				a = t_want(t, 2);
				rig_send(&c, MKV_WIRE_ATTACH, 0, 0, &a, sizeof(a), NULL, 0);
				assert_int_equal(answer(&c), MKV_E_CLOSED);
				assert_int_equal(answer(&c), dcis == 0 ? MKV_E_BUSY : 0);	/* the queue pair is not ours yet */
			}
			rig_pump_ms(&t->r, 5);
			if (what != 2 || dcis == 0)
				assert_int_equal(t->rail->credits_left, credits);
			rig_client_close(&c);
			closed(t);
		}
}

/* The last initiator is lost meanwhile: there is no DC to attach to, and the client hears that at once. */
static void
dc_ends_meanwhile(void **state)
{
	struct t *t = with_a_value(1);
	struct rig_client c;

	(void)state;
	another_asks(t, &c, LATE);
	(void)t_lose_initiator(t);
	assert_int_equal(answer(&c), MKV_E_UNSUPPORTED);
	assert_int_equal(t->rail->dc_lost, 1);
	rig_client_close(&c);
	closed(t);
}

/* After a failure of the path the client's address is looked up anew, while others go on by the one that was known. */
static void
it_is_looked_up_again(void **state)
{
	struct t *t = with_a_value(4);
	struct mkv_chan *ch = chan_of(MKV_CONTAINER_OF(t->r.f->conn_used.next, struct mkv_conn, link));
	unsigned n = fv_calls(FV_CREATE_AH), alive = fv_alive();
	struct t_msg *m;

	(void)state;
	for (unsigned i = 1; i <= 3; i++) {
		(void)t_put_part(t, "lost", 0, 0, 1000, 0, 1000, 0, 1000);
		mkv_rdma_hub_flush(t->u.hub);
		fv_hold(1);
		ch->dct.dctn ^= 1u << 23;		/* nobody is there */
		t_pump(t);
		ch->dct.dctn ^= 1u << 23;
		fv_hold(0);
		assert_non_null(m = t_next(t));
		assert_int_equal(m->h.reason, MKV_REASON_PATH);
		for (unsigned k = 0; k < 8; k++)	/* by each of the initiators */
			assert_int_equal(t_get(t, "k", 0, 100000, 1000, 1000), 1000);
		for (unsigned k = 0; k < 1000 && fv_calls(FV_CREATE_AH) < n + i; k++)
			rig_pump_ms(&t->r, 1);
		assert_int_equal(fv_calls(FV_CREATE_AH), n + i);
	}
	for (unsigned k = 0; k < 8; k++)
		assert_int_equal(t_get(t, "k", 0, 100000, 1000, 1000), 1000);
	assert_in_range(fv_alive(), alive, alive + 1);	/* the channel has its first one still */
	assert_int_equal(M(channels_broken_total), 0);
	closed(t);
}

static void
addresses_change(struct t *t)
{
	unsigned n = fv_calls(FV_CREATE_AH);

	fv_event(0, IBV_EVENT_GID_CHANGE, 1);
	assert_int_equal(mkv_rail_event(t->rail), 0);
	assert_int_equal(t_get(t, "k", 0, 100000, 1000, 1000), 1000);
	for (unsigned i = 0; i < 1000 && fv_calls(FV_CREATE_AH) == n; i++)
		rig_pump_ms(&t->r, 1);
	rig_pump_ms(&t->r, 20);
	assert_int_equal(t_get(t, "k", 0, 100000, 1000, 1000), 1000);
}

/* Our addresses change, and again when the only initiator has been another client's: what was looked up anew is the channel's, and no message of it finds no way. */
static void
what_took_its_place_is_kept(void **state)
{
	struct t *t = with_a_value(1);
	struct rig_client c;

	(void)state;
	addresses_change(t);
	another_asks(t, &c, LATE);
	assert_int_equal(answer(&c), 0);
	addresses_change(t);
	addresses_change(t);
	assert_int_equal(M(channels_broken_total), 0);
	rig_client_close(&c);
	closed(t);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(others_do_not_wait), cmocka_unit_test(who_asked_gives_up), cmocka_unit_test(dc_ends_meanwhile),
		cmocka_unit_test(it_is_looked_up_again), cmocka_unit_test(what_took_its_place_is_kept),
	};

	return (cmocka_run_group_tests(tests, NULL, NULL));
}
