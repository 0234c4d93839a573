/*
 * Puts by a channel of bytes that their home has, where messages go by datagrams or by the tether: nothing is READ, not even a byte that would bring the answer
 * behind others, and what is sent again has one answer. On the fake fabric, by RC and by DC.
 */
#include "config.h"

#include "tests/unit/front_ctl_up.h"

#define BYTES	200001u
#define READS	5u		/* of them, as they lie in segments and pieces */

static unsigned
count(const struct t *t, unsigned op)
{
	return (t->r.drive[0].count[op] + t->r.drive[1].count[op]);
}

static const struct t_msg *
hear(struct t *t, const struct t_ask *a, unsigned same)
{
	const struct t_msg *m = t_answer(t, a->id);

	assert_int_equal(m->h.status, 0);
	assert_int_equal((((const struct mkv_wire_object *)(const void *)m->body)->flags & MKV_WIRE_PUT_SAME) != 0, same);
	return (m);
}

static void
each_carrier(void (*fn)(struct t *t))
{
	for (unsigned i = 0; i < 4; i++) {
		struct t *t;

		t_num_dcis = i / 2 == 0 ? 0 : 8;
		t = ctl_opened(t_both[i % 2]);
		rig_fill(t->mem, BYTES, 3);
		fn(t);
		closed(t);
	}
	t_num_dcis = 0;
}

static void
not_read(struct t *t)
{
	struct t_ask a;
	unsigned before = t_reads();

	t_make_put(t, &a, "key", 0, BYTES);
	t_say(t, &a, 0);
	(void)hear(t, &a, 0);
	assert_int_equal(t_reads() - before, READS);
	for (unsigned n = 0; n < 100; n++) {
		t_make_put(t, &a, "key", 0, BYTES);
		t->acked = a.id;
		t_say(t, &a, 0);
		assert_int_equal(hear(t, &a, 1)->by_tether, t->by == &t_tether);
	}
	assert_int_equal(t_reads() - before, READS);
	assert_int_equal(count(t, MKV_DRV_PUT), 1);
	assert_int_equal(t_count(t, MKV_M_front_put_unread_total), 100);
	t->mem[5] ^= 1;
	t_make_put(t, &a, "key", 0, BYTES);
	t_say(t, &a, 0);
	(void)hear(t, &a, 0);
	assert_int_equal(t_reads() - before, 2 * READS);
}

static void
the_same_is_not_read(void **state)
{
	(void)state;
	each_carrier(not_read);
}

/* A datagram that comes again: while its home is asked, and when it has been answered. */
static void
sent_again(struct t *t)
{
	struct t_ask a;
	unsigned before, asked;

	if (t->by != &t_datagrams)
		return;
	t_make_put(t, &a, "key", 0, BYTES);
	t_say(t, &a, 0);
	(void)hear(t, &a, 0);
	before = t_reads();
	asked = count(t, MKV_DRV_RESERVE);
	t_drives(t, 1);
	t_make_put(t, &a, "key", 0, BYTES);
	for (unsigned i = 0; i < 3; i++) {
		t_say(t, &a, i == 0 ? 0 : MKV_WIRE_F_RESEND);
		t_silence(t);
	}
	t_drives(t, 0);
	(void)hear(t, &a, 1);
	t_silence(t);
	t_say(t, &a, MKV_WIRE_F_RESEND);
	(void)hear(t, &a, 1);
	assert_int_equal(count(t, MKV_DRV_RESERVE), asked + 1);
	assert_int_equal(t_reads(), before);
}

static void
what_is_sent_again(void **state)
{
	(void)state;
	each_carrier(sent_again);
}

int
main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(the_same_is_not_read), cmocka_unit_test(what_is_sent_again) };

	return (cmocka_run_group_tests(tests, NULL, NULL));
}
