/*
 * Puts by a channel of bytes that their home has: nothing is READ, no buffer is taken, and what the client is told is the same. By RC and by DC, on the fake fabric
 * with a client by hand; rig_close() asserts that nothing is left: no buffer, slot or request.
 */
#include "config.h"

#include <unistd.h>

#include "common/base/os.h"
#include "tests/unit/front_rail_up.h"
#include "worker/front/rail_priv.h"

#define BYTES	200001u
#define READS	5u		/* of them, as they lie in segments and pieces */

static const uint32_t transports[] = { 0, 8 };		/* RC; DC with so many initiators */

#define EACH(k)	for (unsigned k = 0; k < MKV_ARRAY_LEN(transports); k++)

static unsigned
count(const struct t *t, unsigned op)
{
	return (t->r.drive[0].count[op] + t->r.drive[1].count[op]);
}

static uint64_t
metric(const struct t *t, enum mkv_metric m)
{
	return (mkv_metric_get(t->r.m, m, 0));
}

static struct t *
t_new(uint32_t num_dcis)
{
	struct t *t = opened(num_dcis);

	memset(t->mem, T_POISON, T_BYTES);
	rig_fill(t->mem, BYTES, 3);
	return (t);
}

static uint64_t
send_put(struct t *t, const char *key, uint64_t put_id, uint32_t flags)
{
	_Alignas(8) uint8_t body[4000];
	size_t b = rig_put_body(body, key, strlen(key), t->mem, BYTES, 0, BYTES, flags);

	((struct mkv_wire_put *)(void *)body)->put_id = put_id;
	b = t_segs(t, body, b, 0, BYTES, 70000);
	return (t_send(t, MKV_WIRE_PUT, MKV_WIRE_F_REMOTE, 0, body, b, BYTES));
}

/* 1: it was there; 0: it was stored; a status. */
static int
hear_put(struct t *t, uint64_t id)
{
	struct t_msg *m = t_next(t);
	const struct mkv_wire_object *o;

	assert_non_null(m);
	assert_int_equal(m->h.request_id, id);
	if (m->h.status != 0)
		return (-(int)m->h.status);
	o = (const void *)m->body;
	assert_int_equal(o->value_bytes, BYTES);
	assert_int_equal(m->h.payload_bytes, 0);
	return ((o->flags & MKV_WIRE_PUT_SAME) != 0);
}

static int
put(struct t *t, const char *key, uint64_t put_id, uint32_t flags)
{
	return (hear_put(t, send_put(t, key, put_id, flags)));
}

static void
assert_value(struct t *t, const char *key)
{
	assert_int_equal(t_get(t, key, 0, BYTES + 64, BYTES, 70000), BYTES);
	assert_memory_equal(t->mem + BYTES + 64, t->mem, BYTES);
	memset(t->mem + BYTES + 64, T_POISON, BYTES);
}

static uint64_t
staged(const struct t *t)
{
	struct mkv_stage_stat st;

	mkv_stage_stat(t->r.stage, &st);
	return (st.front_bytes + st.drive_bytes);
}

/* ---- What is not done ------------------------------------------------------------------------------------------------------ */

/* Again and again: more often than there are receives, slots and initiators. */
static void
the_same_is_not_read(void **state)
{
	(void)state;
	EACH(k) {
		struct t *t = t_new(transports[k]);
		uint64_t received;
		unsigned n;

		assert_int_equal(put(t, "key", 1, 0), 0);
		assert_int_equal(t_reads(), READS);
		assert_int_equal(count(t, MKV_DRV_PUT), 1);
		received = metric(t, MKV_M_front_received_bytes_total);
		for (n = 1; n <= 100; n++)
			assert_int_equal(put(t, "key", n, 0), 1);
		assert_int_equal(t_reads(), READS);
		assert_int_equal(count(t, MKV_DRV_PUT), 1);
		assert_int_equal(count(t, MKV_DRV_RESERVE), n);
		assert_int_equal(metric(t, MKV_M_front_received_bytes_total), received);
		assert_int_equal(metric(t, MKV_M_front_put_total), 1);
		assert_int_equal(metric(t, MKV_M_front_put_same_total), n - 1);
		assert_int_equal(metric(t, MKV_M_front_put_unread_total), n - 1);
		assert_value(t, "key");
		for (n = 0; n < 200; n++)
			assert_int_equal(put(t, "key", n, 0), 1);
		closed(t);
	}
}

/* While the home is asked nothing is held but the message and its slot; when it is not there, the bytes are fetched as ever. */
static void
no_buffer_while_it_is_asked(void **state)
{
	(void)state;
	EACH(k)
		for (int same = 0; same < 2; same++) {
			struct t *t = t_new(transports[k]);
			unsigned before, n;
			uint64_t id;

			assert_int_equal(put(t, "key", 1, 0), 0);
			t->mem[7] ^= (uint8_t)!same;
			before = t_reads();
			n = count(t, MKV_DRV_RESERVE);
			t->r.drive[0].hold = t->r.drive[1].hold = 1;
			id = send_put(t, "key", 2, 0);
			for (unsigned i = 0; i < 200 && count(t, MKV_DRV_RESERVE) == n; i++)
				t_pump(t);
			t_pump(t);
			assert_int_equal(count(t, MKV_DRV_RESERVE), n + 1);
			assert_int_equal(staged(t), 0);
			assert_int_equal(t_reads(), before);
			rig_drive_answer_held(&t->r.drive[0]);
			rig_drive_answer_held(&t->r.drive[1]);
			assert_int_equal(hear_put(t, id), same);
			assert_int_equal(t_reads() - before, same ? 0 : READS);
			assert_int_equal(staged(t), 0);
			assert_value(t, "key");
			closed(t);
		}
}

/* It is not there, and no buffer is free: what waits for one holds no slot, which those that have buffers may wait for. */
static void
no_slot_while_it_waits(void **state)
{
	struct t *t = t_new(0);
	struct mkv_buf all[64];
	struct mkv_stage_stat st;
	unsigned n = 0;
	uint64_t id;

	(void)state;
	for (uint32_t bytes = 1u << 20; bytes >= MKV_STAGE_UNIT; bytes /= 2)
		while (n < MKV_ARRAY_LEN(all) && mkv_buf_take(t->r.stage, bytes, &all[n]) == 0)
			n++;
	assert_true(n < MKV_ARRAY_LEN(all));
	id = send_put(t, "key", 1, 0);
	for (unsigned i = 0; i < 200 && count(t, MKV_DRV_RESERVE) == 0; i++)
		t_pump(t);
	t_pump(t);
	assert_int_equal(count(t, MKV_DRV_RESERVE), 1);
	mkv_stage_stat(t->r.stage, &st);
	assert_int_equal(st.slots_free, st.slots_total);
	assert_int_equal(t_reads(), 0);
	while (n > 0)
		mkv_buf_drop(t->r.stage, &all[--n]);
	t->r.f->park_bufs.wake = 1;
	assert_int_equal(hear_put(t, id), 0);
	assert_value(t, "key");
	closed(t);
}

/* ---- What keeps it from being one ------------------------------------------------------------------------------------------ */

static void
what_is_not_asked(void **state)
{
	(void)state;
	EACH(k) {
		struct t *t = t_new(transports[k]);
		unsigned before;

		assert_int_equal(put(t, "key", 1, 0), 0);
		assert_int_equal(count(t, MKV_DRV_RESERVE), 1);
		before = t_reads();
		assert_int_equal(put(t, "key", 2, MKV_WIRE_PUT_OVERWRITE), 0);
		assert_int_equal(t_reads() - before, READS);
		assert_int_equal(put(t, "key", 3, MKV_WIRE_PUT_IF_ABSENT), MKV_E_EXISTS);
		assert_int_equal(put(t, "key", 2, MKV_WIRE_PUT_IF_ABSENT), 0);		/* that put, once more */
		assert_int_equal(t_reads() - before, 3 * READS);
		/* The server makes the CRCs: what the client has is not known before it is here. */
		assert_int_equal(put(t, "key", 4, MKV_WIRE_PUT_NO_CRC), 0);
		assert_int_equal(t_reads() - before, 4 * READS);
		assert_int_equal(count(t, MKV_DRV_RESERVE), 1);
		assert_int_equal(metric(t, MKV_M_front_put_unread_total), 0);
		assert_int_equal(put(t, "key", 5, 0), 1);
		assert_value(t, "key");
		closed(t);
	}
}

static void
values_in_parts_are_not_asked(void **state)
{
	struct t *t = t_new(0);
	const uint32_t part = 1 << 20, n = part + 1000;

	(void)state;
	rig_fill(t->mem, n, 3);
	for (int i = 0; i < 2; i++) {
		unsigned before = t_reads();
		uint64_t id = t_put_part(t, "long", 0, 0, part, 0, n, 1, 300000);
		struct t_msg *m = t_next(t);

		assert_non_null(m);
		assert_int_not_equal(m->h.flags & MKV_WIRE_F_MORE, 0);
		(void)t_put_part(t, "long", id, part, n - part, part, n, 0, 300000);
		while ((m = t_next(t)) != NULL && (m->h.flags & MKV_WIRE_F_MORE) != 0)
			continue;
		assert_non_null(m);
		assert_int_equal(m->h.status, 0);
		assert_true(t_reads() - before >= n / T_PIECE);
	}
	assert_int_equal(count(t, MKV_DRV_RESERVE), 0);
	closed(t);
}

/* Nobody has looked at what is there: it is stored once more. */
static void
what_nobody_checked_is_read(void **state)
{
	struct t *t = t_new(0);
	unsigned before;

	(void)state;
	t->r.f->conf.verify_put = 0;
	assert_int_equal(put(t, "key", 1, 0), 0);
	before = t_reads();
	assert_int_equal(put(t, "key", 2, 0), 0);
	assert_int_equal(count(t, MKV_DRV_RESERVE), 2);
	assert_int_equal(t_reads() - before, READS);
	t->r.f->conf.verify_put = 1;
	assert_int_equal(put(t, "key", 3, 0), 0);
	t->r.f->conf.verify_put = 0;
	assert_int_equal(put(t, "key", 4, 0), 1);		/* what is there has been checked, that is enough */
	closed(t);
}

/* ---- What it meets --------------------------------------------------------------------------------------------------------- */

/* A put is asked about, and its drives say nothing. */
static uint64_t
t_asked(struct t *t)
{
	unsigned n = count(t, MKV_DRV_RESERVE);
	uint64_t id;

	t->r.drive[0].hold = t->r.drive[1].hold = 1;
	id = send_put(t, "key", 9, 0);
	for (unsigned i = 0; i < 200 && count(t, MKV_DRV_RESERVE) == n; i++)
		t_pump(t);
	assert_int_equal(count(t, MKV_DRV_RESERVE), n + 1);
	return (id);
}

static void
t_answer(struct t *t)
{
	rig_drive_answer_held(&t->r.drive[0]);
	rig_drive_answer_held(&t->r.drive[1]);
}

/* The answer of the drive comes when nobody waits for it any more. */
static void
ends_while_it_is_asked(void **state)
{
	(void)state;
	EACH(k)
		for (int what = 0; what < 8; what++) {
			struct t *t = t_new(transports[k]);
			struct mkv_wire_cancel w = { 0 };
			unsigned before;
			struct t_msg *m;
			uint64_t id;

			assert_int_equal(put(t, "key", 1, 0), 0);
			t->mem[9] ^= (uint8_t)(what % 2);		/* the answer would be: it is there; or: it is not */
			before = t_reads();
			t->deadline_us = what / 2 == 1 ? 50000 : t->deadline_us;
			w.request_id = id = t_asked(t);
			switch (what / 2) {
			case 0:
				(void)t_send(t, MKV_WIRE_CANCEL, 0, 0, &w, sizeof(w), 0);
				for (unsigned got = 0; got < 2; got++) {
					assert_non_null(m = t_next(t));
					assert_int_equal(-(int)m->h.status, m->h.request_id == id ? MKV_E_CANCELLED : 0);
				}
				break;
			case 1:
				assert_non_null(m = t_next(t));
				assert_int_equal(-(int)m->h.status, MKV_E_TIMEOUT);
				break;
			case 2:						/* the client's queue pair, or its target: the front learns it when it sends */
				mkv_rdma_qp_fail(t->u.qp);
				break;
			case 3:
				shutdown(t->c.fd, SHUT_RDWR);
				rig_pump_ms(&t->r, 5);
				break;
			}
			t_answer(t);
			t_pump(t);
			if (what != 5) {
				assert_int_equal(t_reads(), before);
				assert_int_equal(staged(t), 0);
			}
			closed(t);
		}
}

/* Nothing was given away: the next life of the drive is asked. */
static void
its_drive_dies(void **state)
{
	(void)state;
	EACH(k)
		for (int same = 0; same < 2; same++) {
			struct t *t = t_new(transports[k]);
			uint64_t id;

			assert_int_equal(put(t, "key", 1, 0), 0);
			t->mem[7] ^= (uint8_t)!same;
			id = t_asked(t);
			for (unsigned i = 0; i < 2; i++) {
				rig_drive_kill(&t->r, i);
				t->r.drive[i].hold = 0;
			}
			t_pump(t);
			for (unsigned i = 0; i < 2; i++)
				rig_drive_up(&t->r, i, 20);
			assert_int_equal(hear_put(t, id), same);
			assert_value(t, "key");
			closed(t);
		}
}

/* Out of service while it is asked: its key has another home, where nothing is. */
static void
its_home_moves(void **state)
{
	(void)state;
	EACH(k) {
		struct t *t = t_new(transports[k]);
		unsigned home, before;
		uint64_t id;

		assert_int_equal(put(t, "key", 1, 0), 0);
		home = t->r.drive[1].count[MKV_DRV_PUT];
		before = t_reads();
		id = t_asked(t);
		rig_map(&t->r, home, MKV_DRIVE_FAILED);
		t->r.drive[!home].hold = 0;
		t_answer(t);
		assert_int_equal(hear_put(t, id), 0);
		assert_int_equal(t_reads() - before, READS);
		assert_int_equal(t->r.drive[!home].count[MKV_DRV_PUT], 1);
		closed(t);
	}
}

static int
rep_has_runs(int on)
{
	static int is_on;

	is_on = on < 0 ? is_on : on;
	return (is_on);
}

static void
lie(struct mkv_desc *d, struct mkv_drv_rep *rep)
{
	if (d->op != MKV_DRV_RESERVE)
		return;
	rep->same = 1;
	rep->n_runs = (uint16_t)rep_has_runs(-1);
}

/* Memory where none was asked for. */
static void
a_drive_that_lies(void **state)
{
	struct t *t = t_new(0);

	(void)state;
	t->r.drive[0].mangle = t->r.drive[1].mangle = lie;
	(void)rep_has_runs(1);
	assert_int_equal(put(t, "key", 1, 0), MKV_E_PEER);
	(void)rep_has_runs(0);
	assert_int_equal(put(t, "key", 1, 0), 1);		/* nobody can tell */
	closed(t);
}

/* ---- Homes before ---------------------------------------------------------------------------------------------------------- */

/*
 * Two drives, and before the last change of the map only the first: its keys that are the other's now may lie there still. What the home has is a touch, and what
 * the former home has goes, as with every put.
 */
static void
what_lies_at_the_former_home_goes(void **state)
{
	(void)state;
	EACH(k) {
		struct t *t = t_new(transports[k]);
		unsigned touched = 0;
		char key[16];

		for (unsigned i = 0; i < 24; i++) {
			snprintf(key, sizeof(key), "key%u", i);
			assert_int_equal(put(t, key, 1, 0), 0);
		}
		t->r.map[0].former = 1;
		assert_int_equal(mkv_front_map(t->r.f, 3, t->r.map, 2), 0);
		assert_true(t->r.f->has_former);
		for (unsigned i = 0; i < 24; i++) {
			unsigned stale = t->r.drive[0].count[MKV_DRV_DELETE], before = t_reads();

			snprintf(key, sizeof(key), "key%u", i);
			assert_int_equal(put(t, key, 2, 0), 1);
			assert_int_equal(t_reads(), before);
			touched += t->r.drive[0].count[MKV_DRV_DELETE] - stale;
			assert_value(t, key);
		}
		assert_in_range(touched, 4, 20);
		assert_int_equal(metric(t, MKV_M_front_put_unread_total), 24);
		closed(t);
	}
}

/* The map changes while the former home is asked to forget: the new home is asked anew. */
static void
the_map_changes_meanwhile(void **state)
{
	struct t *t = t_new(0);
	unsigned before;
	uint64_t id;

	(void)state;
	t->r.map[0].weight = 1e-9;			/* all at the second, and before all at the first */
	t->r.map[0].former = 1;
	assert_int_equal(mkv_front_map(t->r.f, 3, t->r.map, 2), 0);
	assert_int_equal(put(t, "key", 1, 0), 0);
	assert_int_equal(t->r.drive[1].count[MKV_DRV_PUT], 1);
	before = t_reads();
	t->r.drive[0].hold = 1;
	id = send_put(t, "key", 2, 0);
	for (unsigned i = 0; i < 200 && t->r.drive[0].n_held == 0; i++)
		t_pump(t);
	assert_int_equal(t->r.drive[0].held[0].op, MKV_DRV_DELETE);
	t->r.map[0].weight = 1;
	t->r.map[1].weight = 1e-9;
	t->r.map[0].former = 0;
	t->r.map[1].former = 1;
	assert_int_equal(mkv_front_map(t->r.f, 4, t->r.map, 2), 0);
	t_answer(t);
	assert_int_equal(hear_put(t, id), 0);
	assert_int_equal(t_reads() - before, READS);
	assert_int_equal(t->r.drive[0].count[MKV_DRV_PUT], 1);
	assert_int_equal(t->r.drive[1].count[MKV_DRV_DELETE], 1);
	assert_value(t, "key");
	closed(t);
}

/* ---- Memory mode ----------------------------------------------------------------------------------------------------------- */

/* The bytes land in the drive's arena: one question serves for both, and what is not needed is not reserved. */
static void
into_the_arena(void **state)
{
	(void)state;
	EACH(k) {
		struct t *t = t_new(transports[k]);

		t->r.conf.memory_mode = t->r.f->conf.memory_mode = 1;
		for (unsigned i = 0; i < 2; i++) {
			struct rig_drive *d = &t->r.drive[i];
			void *p;

			d->arena_fd = mkv_os_shm_create("rig-arena", RIG_ARENA, 0);
			assert_int_equal(mkv_os_shm_map(d->arena_fd, RIG_ARENA, 1, 0, &p), 0);
			d->arena = p;
			assert_int_equal(mkv_front_arena(t->r.f, i, d->arena_fd, RIG_ARENA), 0);
			close(d->arena_fd);
		}
		for (unsigned n = 1; n <= 20; n++) {
			unsigned before = t_reads();

			assert_int_equal(put(t, "key", n, 0), n > 1);
			assert_int_equal(t_reads() - before, n > 1 ? 0 : READS);	/* its two runs */
			assert_int_equal(count(t, MKV_DRV_RESERVE), n);
		}
		t->mem[3] ^= 1;
		assert_int_equal(put(t, "key", 30, 0), 0);
		assert_int_equal(count(t, MKV_DRV_COMMIT), 2);
		assert_int_equal(count(t, MKV_DRV_ABORT), 0);
		assert_value(t, "key");
		closed(t);
	}
}

/* ---- By the socket --------------------------------------------------------------------------------------------------------- */

/* The bytes come whatever is there, and are checked: those that do not match are refused, though the home has what they should have been. */
static void
received_all_the_same(struct rig *r, struct rig_client *c)
{
	static uint8_t value[BYTES];
	_Alignas(8) uint8_t body[4000];
	size_t n;

	rig_fill(value, BYTES, 3);
	for (unsigned i = 1; i <= 3; i++) {
		assert_int_equal(rig_put(c, "key", value, BYTES), 0);
		assert_int_equal(mkv_metric_get(r->m, MKV_M_front_received_bytes_total, 0), i * BYTES);
	}
	n = rig_put_body(body, "key", 3, value, BYTES, 0, BYTES, 0);
	value[70000] ^= 1;
	(void)rig_send(c, MKV_WIRE_PUT, 0, 0, body, n, value, BYTES);
	assert_int_equal(rig_recv(c, RIG_PATIENCE_MS), 1);
	assert_int_equal(-(int)c->f.hdr.status, MKV_E_CORRUPT);
	assert_int_equal(mkv_metric_get(r->m, MKV_M_front_put_unread_total, 0), 0);
	assert_int_equal(r->drive[0].count[MKV_DRV_RESERVE] > 0, r->conf.memory_mode);
}

static void
by_the_socket(void **state)
{
	static const struct rig_conf direct = { .kind = MKV_IOQ_AUTO }, memory = { .kind = MKV_IOQ_AUTO, .memory_mode = 1 };

	(void)state;
	rig_with(&direct, received_all_the_same);
	rig_with(&memory, received_all_the_same);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_same_is_not_read), cmocka_unit_test(no_buffer_while_it_is_asked), cmocka_unit_test(no_slot_while_it_waits),
		cmocka_unit_test(what_is_not_asked),
		cmocka_unit_test(values_in_parts_are_not_asked), cmocka_unit_test(what_nobody_checked_is_read), cmocka_unit_test(ends_while_it_is_asked),
		cmocka_unit_test(its_drive_dies), cmocka_unit_test(its_home_moves), cmocka_unit_test(a_drive_that_lies),
		cmocka_unit_test(what_lies_at_the_former_home_goes), cmocka_unit_test(the_map_changes_meanwhile), cmocka_unit_test(into_the_arena), cmocka_unit_test(by_the_socket),
	};

	return (cmocka_run_group_tests(tests, NULL, NULL));
}
