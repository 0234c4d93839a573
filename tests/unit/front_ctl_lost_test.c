/*
 * A channel's frames on its tether when all is not well: the channel is not there any more, and its client has not heard of it yet, or means harm.
 */
#include "config.h"

#include "tests/unit/front_ctl_up.h"
#include "worker/front/rail_priv.h"

static struct mkv_chan *
t_chan(struct t *t)
{
	return (chan_of(MKV_CONTAINER_OF(t->r.f->conn_used.next, struct mkv_conn, link)));
}

static void
t_break(struct t *t)
{
	struct mkv_chan *ch = t_chan(t);

	fv_qp_break(mkv_rdma_qp_number(ch->line->qp));
	(void)mkv_rail_event(t->rail);
	for (unsigned i = 0; i < RIG_PATIENCE_MS && ch->state != CHAN_NONE; i++) {
		t_pump(t);
		rig_pump_ms(&t->r, 1);
	}
	assert_int_equal(ch->state, CHAN_NONE);
}

/* A put in parts ended with its channel, and a drive is at work with it still: its client had the next part on its way, and keeps its tether. */
static void
a_part_comes_late(void **state)
{
	const uint32_t n = 2 * T_PART + 1000;
	struct t *t = ctl_opened(&t_tether);
	struct t_msg *m;

	(void)state;
	rig_fill(t->mem, n, 5);
	t_drives(t, 1);
	t_part(t, 900, 0, 0, n);
	m = t_answer(t, 900);
	assert_true(m->h.status == 0 && (m->h.flags & MKV_WIRE_F_MORE) != 0);
	t_break(t);
	assert_int_equal(-(int)t_answer(t, 900)->h.status, MKV_E_CLOSED);
	assert_int_equal(t->r.f->n_reqs, 1);
	t_part(t, 900, 0, T_PART, n);
	assert_true(t_tether_answers(t));
	t_drives(t, 0);
	assert_true(t_tether_answers(t));
	assert_int_equal(t->r.f->n_reqs, 0);
	t_part(t, 900, 0, 2 * T_PART, n);
	assert_true(t_tether_answers(t));
	closed(t);
}

/* A put by the stream, and a part of it that says where its bytes lie: they never come, and what lies in the server's buffers is not the client's. */
static void
a_put_of_the_stream_has_no_memory(void **state)
{
	static struct rig_client d;
	const uint32_t n = T_PART + 1000;
	_Alignas(8) uint8_t body[4000];
	struct t *t = ctl_opened(&t_tether);
	uint8_t *got = malloc(n);
	size_t have;

	(void)state;
	rig_fill(t->mem, n, 5);
	t_break(t);
	rig_send(&t->c, MKV_WIRE_PUT, MKV_WIRE_F_MORE, 900, body, rig_put_body(body, "long", 4, t->mem, T_PART, 0, MKV_WIRE_SIZE_UNKNOWN, 0), t->mem, T_PART);
	t_part(t, 900, 0, T_PART, n);
	assert_int_equal(rig_recv(&t->c, RIG_PATIENCE_MS), -1);
	rig_client_join(&t->r, &d, 1);
	assert_int_equal(rig_get(&d, "long", 0, n, got, &have), MKV_E_MISS);
	rig_client_close(&d);
	closed(t);
	free(got);
}

/* One session asks by the tether for what it has heard, again and again, and reads nothing: its answers are bounded, and there when it reads. */
static void
who_asks_again_and_does_not_read(void **state)
{
	struct t *t = ctl_opened(&t_datagrams);
	const int little = 1;
	struct t_ask get;

	(void)state;
	t_store(t, "k", 5000);
	t_make_get(t, &get, "k", 0, 1 << 20, 5000);
	assert_int_equal(t_call(t, &get)->h.status, 0);
	assert_int_equal(setsockopt(t_chan(t)->c->fd, SOL_SOCKET, SO_SNDBUF, &little, sizeof(little)), 0);
	t->c.deaf = 1;
	for (unsigned i = 0; i < 8 * CHAN_NOTES_MAX; i++) {
		t_by_tether(t, get.op, get.flags | MKV_WIRE_F_RESEND, get.id, get.body, get.bytes, 0);
		rig_pump(&t->r);
		assert_true(t_chan(t)->n_notes <= CHAN_NOTES_MAX);
	}
	assert_int_equal(t_chan(t)->n_notes, CHAN_NOTES_MAX);
	t->c.deaf = 0;
	assert_true(t_tether_answers(t));
	assert_int_equal(t_chan(t)->n_notes, 0);
	closed(t);
}

static struct ctl_msg *others[CTL_MSGS + 1];	/* and the one that there is not */

/* The memory of messages is all in use by others. */
static unsigned
take_all(struct t *t)
{
	unsigned n = 0;

	while ((others[n] = ctl_msg_take(t->rail)) != NULL)
		n++;
	assert_true(n > 0);
	return (n);
}

static void
give_back(struct t *t, unsigned n)
{
	while (n > 0)
		ctl_msg_back(t->rail, others[--n]);
}

/* A put in parts goes on: the word that a part is here does not wait for that memory, and is not lost. */
static void
a_part_is_here_without_memory(void **state)
{
	const uint32_t n = T_PART + 1000;
	struct t *t = ctl_opened(&t_tether);
	struct t_msg *m;
	unsigned taken;

	(void)state;
	rig_fill(t->mem, n, 5);
	fv_hold(1);
	t_part(t, 900, 0, 0, n);
	t_silence(t);
	assert_true(fv_held() > 0);
	taken = take_all(t);
	fv_hold(0);
	assert_non_null(m = t_next(t));
	assert_true(m->h.request_id == 900 && m->h.status == 0 && (m->h.flags & MKV_WIRE_F_MORE) != 0);
	give_back(t, taken);
	t_part(t, 900, 0, T_PART, n);
	assert_non_null(m = t_next(t));
	assert_true(m->h.request_id == 900 && m->h.status == 0 && (m->h.flags & MKV_WIRE_F_MORE) == 0);
	closed(t);
}

/* What is asked for once more by the tether, which is done once, waits for memory as a new request does. */
static void
asked_again_without_memory(void **state)
{
	struct t *t = ctl_opened(&t_datagrams);
	struct t_ask get;
	struct t_msg *m;
	unsigned taken;

	(void)state;
	t_store(t, "k", 5000);
	t_make_get(t, &get, "k", 0, 1 << 20, 5000);
	assert_int_equal(t_call(t, &get)->h.status, 0);
	taken = take_all(t);
	t_by_tether(t, get.op, get.flags | MKV_WIRE_F_RESEND, get.id, get.body, get.bytes, 0);
	t_silence(t);
	give_back(t, taken);
	assert_non_null(m = t_next(t));
	assert_true(m->h.request_id == get.id && m->h.status == 0 && m->by_tether);
	closed(t);
}

/* The first byte of all memory, which nobody has: its client loses the channel. */
static void
a_byte_at_nothing(void **state)
{
	const struct mkv_wire_seg nothing = { .addr = 0, .bytes = 1, .rkey = 0xdeadbeef };
	struct t *t = ctl_opened(&t_tether);
	struct t_ask get = { .op = MKV_WIRE_GET, .flags = MKV_WIRE_F_REMOTE, .id = 900 };

	(void)state;
	t_store(t, "k", 5000);
	get.bytes = rig_get_body(get.body, "k", 1, 0, 1);
	memcpy(get.body + get.bytes, &nothing, sizeof(nothing));
	get.bytes += sizeof(nothing);
	t_say(t, &get, 0);
	assert_int_equal(-(int)t_answer(t, get.id)->h.status, MKV_E_CLOSED);
	assert_true(t_tether_answers(t));
	closed(t);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_part_comes_late),
		cmocka_unit_test(a_put_of_the_stream_has_no_memory),
		cmocka_unit_test(who_asks_again_and_does_not_read),
		cmocka_unit_test(a_part_is_here_without_memory),
		cmocka_unit_test(asked_again_without_memory),
		cmocka_unit_test(a_byte_at_nothing),
	};

	return (cmocka_run_group_tests(tests, NULL, NULL));
}
