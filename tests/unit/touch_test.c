/*
 * Puts of bytes that are there: taken as a touch, by PUT, by COMMIT, and by a RESERVE that asks before there are any bytes. What is not done then, what keeps it
 * from being one, what it changes, and what it meets under way.
 */
#include "config.h"

#include <string.h>

#include "common/base/crc.h"
#include "common/base/err.h"
#include "tests/unit/scrub_up.h"

#define BYTES	200000u
#define SEED	5u
#define PUT	(MKV_DRV_F_VERIFIED)

/* The three ways to say it. */
enum way { BY_PUT, BY_COMMIT, BY_RESERVE };

static const struct {
	const char	*name;
	enum rig_kind	kind;
	enum way	way;
} ways[] = {
	{ "put", RIG_SIM, BY_PUT }, { "reserve, then put", RIG_SIM, BY_RESERVE },
	{ "commit", RIG_MEMORY, BY_COMMIT }, { "reserve, then commit", RIG_MEMORY, BY_RESERVE },
};

#define EACH(w)	for (unsigned w = 0; w < MKV_ARRAY_LEN(ways); w++)

static void
ask_req(struct rig *r, struct mkv_drv_req *q, unsigned slot, const char *key, uint64_t bytes, uint64_t seed)
{
	rig_put_req(r, q, slot, key, bytes, seed);
	q->op = MKV_DRV_RESERVE;
	q->n_bufs = 0;
	q->flags = MKV_DRV_F_IF_SAME;
	q->deadline_ns = r->now_ns + 20 * MKV_NS_PER_SEC;
}

static const struct mkv_drv_rep *
asked(struct rig *r, unsigned slot, const struct mkv_drv_req *q)
{
	rig_submit(r, slot, q);
	return (rig_wait(r, slot));
}

/* A plain reservation, and the bytes into it. */
static uint64_t
reserve(struct rig *r, unsigned slot, uint64_t bytes, uint64_t seed)
{
	const struct mkv_drv_rep *p;
	struct mkv_drv_req q;
	uint64_t at = 0;

	rig_req(&q, MKV_DRV_RESERVE, NULL);
	q.value_bytes = bytes;
	rig_submit(r, slot, &q);
	p = rig_wait(r, slot);
	assert_int_equal(p->status, 0);
	rig_value(rig_mem(r, slot), bytes, seed);
	for (unsigned i = 0; i < p->n_runs; at += p->runs[i++].bytes)
		memcpy(r->media->ops->map(r->media, r->meta_bytes + p->runs[i].off, p->runs[i].bytes), rig_mem(r, slot) + at, p->runs[i].bytes);
	return (p->txn);
}

/* Slot 2 is asked for the value; what comes is waited for by who calls. */
static void
begin(struct rig *r, unsigned w, const char *key, uint64_t bytes, uint64_t seed, unsigned flags, uint64_t ttl_ms)
{
	struct mkv_drv_req q;

	ask_req(r, &q, 2, key, bytes, seed);
	q.flags = (uint16_t)(q.flags | flags);
	if (ways[w].way != BY_RESERVE) {
		rig_put_req(r, &q, 2, key, bytes, seed);
		q.flags = (uint16_t)(PUT | flags);
		q.deadline_ns = r->now_ns + 20 * MKV_NS_PER_SEC;
	}
	if (ways[w].way == BY_COMMIT) {
		q.txn = reserve(r, 2, bytes, seed);
		q.op = MKV_DRV_COMMIT;
		q.n_bufs = 0;
	}
	q.ttl_ms = ttl_ms;
	rig_submit(r, 2, &q);
}

/* 1: it was a touch. A reservation that was none is given back. */
static int
end(struct rig *r)
{
	const struct mkv_drv_rep *p = rig_wait(r, 2);
	struct mkv_drv_req q;

	assert_int_equal(p->status, 0);
	if (p->op != MKV_DRV_RESERVE)
		return (p->same);
	assert_int_equal(p->n_runs != 0, !p->same && r->kind == RIG_MEMORY);
	if (p->n_runs != 0) {
		rig_req(&q, MKV_DRV_ABORT, NULL);
		q.txn = p->txn;
		assert_int_equal(asked(r, 3, &q)->status, 0);
	}
	return (p->same);
}

static int
touches(struct rig *r, unsigned w, const char *key, uint64_t bytes, uint64_t seed)
{
	begin(r, w, key, bytes, seed, 0, 0);
	return (end(r));
}

/* As rig_put(), by the medium's way. */
static void
store(struct rig *r, const char *key, uint64_t bytes, uint64_t seed, unsigned flags, uint64_t ttl_ms)
{
	struct mkv_drv_req q;

	rig_put_req(r, &q, 1, key, bytes, seed);
	q.flags = (uint16_t)flags;
	q.ttl_ms = ttl_ms;
	assert_int_equal(asked(r, 1, &q)->status, 0);
}

static struct mkv_req *
at_work(struct rig *r, unsigned slot)
{
	MKV_LIST_FOREACH(l, &r->e->all) {
		struct mkv_req *q = MKV_CONTAINER_OF(l, struct mkv_req, all);

		if (q->call.slot_idx == slot)
			return (q);
	}
	return (NULL);
}

/* One step of the engine at a time, without the medium, until the slot's request is there. */
static struct mkv_req *
until(struct rig *r, unsigned slot, enum req_state state)
{
	struct mkv_req *q;

	for (unsigned i = 0; (q = at_work(r, slot)) != NULL && q->state != state; i++) {
		assert_true(i < 1000);
		if (i % 2 == 0)
			(void)mkv_engine_step(r->e);
		else
			rig_turn(r);
	}
	return (q);
}

static int
bytes_used(struct rig *r)
{
	struct mkv_engine_info i;

	mkv_engine_info(r->e, &i);
	return ((int)i.used_bytes);
}

/* ---- What is not done ------------------------------------------------------------------------------------------------------ */

static void
nothing_is_written(void **state)
{
	(void)state;
	EACH(w) {
		struct rig *r = up(ways[w].kind, 32 * MIB, 1);
		int writes, used;

		store(r, "a", BYTES, SEED, PUT, 0);
		for (int i = 0; i < 100; i++)
			rig_turn(r);
		writes = COUNTED(r, writes_total);
		used = bytes_used(r);
		for (int i = 0; i < 3; i++) {
			assert_true(touches(r, w, "a", BYTES, SEED));
			assert_int_equal(COUNTED(r, touches_total), i + 1);
		}
		assert_int_equal(COUNTED(r, writes_total), writes);
		assert_int_equal(COUNTED(r, puts_total), 1);
		assert_int_equal(COUNTED(r, replaced_total), 0);
		assert_int_equal(bytes_used(r), used);
		assert_int_equal(rig_get(r, "a", 0, MIB, SEED), 0);
		rig_destroy(&r);
	}
}

/* It waits for nothing: where no space is left, and none will be, it is answered at once. */
static void
it_takes_no_space(void **state)
{
	struct rig *r = up(RIG_MEMORY, 16 * MIB, 1);
	struct mkv_drv_req q;
	char key[16];

	(void)state;
	r->o.evict = 0;
	mkv_engine_tune(r->e, &r->o);
	store(r, "a", BYTES, SEED, PUT, 0);
	for (int n = 0, err = 0; err == 0; n++) {
		snprintf(key, sizeof(key), "f%d", n);
		err = rig_put(r, key, MIB / 2, 1, 0);
	}
	ask_req(r, &q, 2, "b", MIB / 2, SEED);
	assert_int_equal(asked(r, 2, &q)->status, MKV_E_NOSPACE);
	ask_req(r, &q, 2, "a", BYTES, SEED);
	assert_int_equal(asked(r, 2, &q)->status, 0);
	assert_int_equal(r->slot[2].rep.same, 1);
	rig_destroy(&r);
}

/* ---- What keeps it from being one ------------------------------------------------------------------------------------------ */

static void
other_bytes(void **state)
{
	(void)state;
	EACH(w) {
		struct rig *r = up(ways[w].kind, 32 * MIB, 1);

		assert_false(touches(r, w, "never", BYTES, SEED));
		store(r, "a", BYTES, SEED, PUT, 0);
		assert_false(touches(r, w, "a", BYTES, SEED + 1));
		store(r, "a", BYTES, SEED, PUT, 0);
		assert_false(touches(r, w, "a", BYTES - 1, SEED));	/* as many units, as many CRCs */
		store(r, "a", BYTES, SEED, PUT, 0);
		assert_true(touches(r, w, "a", BYTES, SEED));
		rig_destroy(&r);
	}
}

/* The last chunk's CRC alone: all of them are compared. */
static void
every_crc_counts(void **state)
{
	struct rig *r = up(RIG_SIM, 32 * MIB, 1);
	struct mkv_drv_req q;

	(void)state;
	store(r, "a", BYTES, SEED, PUT, 0);
	for (unsigned i = 0; i < mkv_crc_chunks(BYTES); i++) {
		ask_req(r, &q, 2, "a", BYTES, SEED);
		q.crcs[i] ^= 1u << 31;
		rig_submit(r, 2, &q);
		assert_false(end(r));
	}
	rig_destroy(&r);
}

static void
bytes_that_nobody_checked(void **state)
{
	struct rig *r = up(RIG_SIM, 32 * MIB, 1);
	unsigned reason;

	(void)state;
	/* What is there. */
	store(r, "a", BYTES, SEED, 0, 0);
	EACH(w)
		if (ways[w].kind == RIG_SIM && ways[w].way == BY_RESERVE)
			assert_false(touches(r, w, "a", BYTES, SEED));
	store(r, "a", BYTES, SEED, 0, 0);
	assert_int_equal(r->slot[1].rep.same, 0);
	/* What comes: it is not taken for what its CRCs say. */
	store(r, "b", BYTES, SEED, PUT, 0);
	store(r, "b", BYTES, SEED, 0, 0);
	assert_int_equal(r->slot[1].rep.same, 0);
	/* From when on somebody has. */
	assert_int_equal(rig_op(r, MKV_DRV_VERIFY, "a", &reason), 0);
	assert_true(touches(r, 1, "a", BYTES, SEED));
	rig_destroy(&r);
}

static void
what_is_there_no_more(void **state)
{
	(void)state;
	EACH(w) {
		struct rig *r = up(ways[w].kind, 32 * MIB, 1);
		unsigned reason;

		store(r, "a", BYTES, SEED, PUT, 0);
		assert_int_equal(rig_op(r, MKV_DRV_DELETE, "a", NULL), 0);
		assert_false(touches(r, w, "a", BYTES, SEED));
		store(r, "b", BYTES, SEED, PUT, 5000);
		r->wall_ms += 6000;
		assert_false(touches(r, w, "b", BYTES, SEED));
		store(r, "c", BYTES, SEED, PUT, 0);
		assert_int_equal(rig_purge(r, ""), 0);
		assert_false(touches(r, w, "c", BYTES, SEED));
		store(r, "d", BYTES, SEED, PUT, 0);
		flip(r, place(r, "d", 70000));
		assert_int_equal(rig_op(r, MKV_DRV_VERIFY, "d", &reason), MKV_E_CORRUPT);
		assert_false(touches(r, w, "d", BYTES, SEED));
		rig_destroy(&r);
	}
}

/* Found bad while somebody has the key: it is still there, and counts no more. */
static void
what_was_found_bad(void **state)
{
	(void)state;
	EACH(w) {
		struct rig *r = up(ways[w].kind, 32 * MIB, 1);

		store(r, "a", BYTES, SEED, PUT, 0);
		eng_ent(r->e, entry(r, "a"))->flags |= MKV_ENT_QUARANTINE;
		assert_false(touches(r, w, "a", BYTES, SEED));
		rig_destroy(&r);
	}
}

static void
another_key_of_the_same_digest(void **state)
{
	struct rig *r = up(RIG_SIM, 32 * MIB, 1);
	struct mkv_drv_req q, a;

	(void)state;
	store(r, "a", BYTES, SEED, PUT, 0);
	rig_req(&a, MKV_DRV_STAT, "a");
	ask_req(r, &q, 2, "b", BYTES, SEED);
	q.digest = a.digest;
	rig_submit(r, 2, &q);
	assert_false(end(r));
	assert_int_equal(COUNTED(r, collisions_total), 1);
	rig_destroy(&r);
}

static void
overwrite_and_if_absent(void **state)
{
	(void)state;
	EACH(w) {
		struct rig *r = up(ways[w].kind, 32 * MIB, 1);

		store(r, "a", BYTES, SEED, PUT, 0);
		begin(r, w, "a", BYTES, SEED, MKV_DRV_F_OVERWRITE, 0);
		if (ways[w].way == BY_RESERVE)
			assert_int_equal(rig_wait(r, 2)->status, MKV_E_PROTO);
		else {
			assert_false(end(r));
			assert_int_equal(COUNTED(r, replaced_total), 1);
		}
		begin(r, w, "a", BYTES, SEED, MKV_DRV_F_IF_ABSENT, 0);
		assert_int_equal(rig_wait(r, 2)->status, ways[w].way == BY_RESERVE ? MKV_E_PROTO : MKV_E_EXISTS);
		assert_int_equal(COUNTED(r, touches_total), 0);
		rig_destroy(&r);
	}
}

/* Reservations that ask, and make no sense. */
static void
foreign_numbers(void **state)
{
	struct rig *r = up(RIG_SIM, 32 * MIB, 1);
	struct mkv_drv_req q;

	(void)state;
	store(r, "a", BYTES, SEED, PUT, 0);
	for (int what = 0; what < 5; what++) {
		ask_req(r, &q, 2, "a", BYTES, SEED);
		q.key_bytes = what == 0 ? 0 : q.key_bytes;
		q.n_crcs = (uint16_t)(q.n_crcs - (what == 1));
		q.flags |= what == 2 ? MKV_DRV_F_PIECE : what == 3 ? MKV_DRV_F_MANIFEST : 0;
		q.value_bytes = what == 4 ? r->e->sb.extent_bytes + 1u : q.value_bytes;
		assert_int_equal(asked(r, 2, &q)->status, what == 4 ? MKV_E_TOOBIG : MKV_E_PROTO);
	}
	/* Without the question there is no reservation here. */
	ask_req(r, &q, 2, "a", BYTES, SEED);
	q.flags = 0;
	assert_int_equal(asked(r, 2, &q)->status, MKV_E_UNSUPPORTED);
	rig_destroy(&r);
}

/* ---- What it changes ------------------------------------------------------------------------------------------------------- */

static const struct mkv_drv_rep *
stat_of(struct rig *r, const char *key)
{
	assert_int_equal(rig_op(r, MKV_DRV_STAT, key, NULL), 0);
	return (&r->slot[0].rep);
}

static void
again(struct rig *r)
{
	if (r->kind != RIG_SIM) {
		assert_int_equal(rig_close(r, 0), 0);
	} else {
		assert_int_equal(rig_close(r, 1), 0);
		sim_reboot(r->sim, SIM_DROP);
	}
	assert_int_equal(rig_open(r), 0);
}

static void
time_to_live_and_pin(void **state)
{
	(void)state;
	EACH(w) {
		struct rig *r = up(ways[w].kind, 32 * MIB, 1);
		unsigned reason;

		store(r, "a", BYTES, SEED, PUT, 0);
		begin(r, w, "a", BYTES, SEED, 0, 50000);
		assert_true(end(r));
		assert_true(stat_of(r, "a")->expires_wall_ms != 0);
		again(r);
		assert_true(stat_of(r, "a")->expires_wall_ms != 0);
		assert_true(touches(r, w, "a", BYTES, SEED));		/* asks for none */
		assert_int_equal(stat_of(r, "a")->expires_wall_ms, 0);
		assert_int_equal(stat_of(r, "a")->flags & MKV_DRV_F_PIN, 0);
		begin(r, w, "a", BYTES, SEED, MKV_DRV_F_PIN, 50000);
		assert_true(end(r));
		again(r);
		assert_int_not_equal(stat_of(r, "a")->flags & MKV_DRV_F_PIN, 0);
		assert_true(touches(r, w, "a", BYTES, SEED));		/* a pin goes by other bytes, DELETE or the end of its time */
		assert_int_not_equal(stat_of(r, "a")->flags & MKV_DRV_F_PIN, 0);
		begin(r, w, "a", BYTES, SEED, 0, 5000);
		assert_true(end(r));
		r->wall_ms += 6000;
		assert_int_equal(rig_op(r, MKV_DRV_STAT, "a", &reason), MKV_E_MISS);
		assert_int_equal(reason, MKV_REASON_EXPIRED);
		rig_destroy(&r);
	}
}

/* What a pin may take is asked for before the bytes come. */
static void
no_room_for_a_pin(void **state)
{
	struct rig *r = up(RIG_SIM, 32 * MIB, 1);
	struct mkv_drv_req q;

	(void)state;
	r->o.pin_pct = 1;
	mkv_engine_tune(r->e, &r->o);
	store(r, "a", MIB, SEED, PUT, 0);
	ask_req(r, &q, 2, "a", MIB, SEED);
	q.flags |= MKV_DRV_F_PIN;
	assert_int_equal(asked(r, 2, &q)->status, MKV_E_NOSPACE);
	assert_int_equal(r->e->pin_asked, 0);
	store(r, "b", 5000, SEED, PUT, 0);
	for (int i = 0; i < 2; i++) {		/* other bytes, and the same: none stays asked for */
		ask_req(r, &q, 2, "b", 5000, SEED + 1 - (unsigned)i);
		q.flags |= MKV_DRV_F_PIN;
		rig_submit(r, 2, &q);
		assert_int_equal(end(r), i);
		assert_int_equal(r->e->pin_asked, 0);
	}
	rig_destroy(&r);
}

/* It is a use: what is put all the time is not what leaves. */
static void
it_stays(void **state)
{
	(void)state;
	EACH(w) {
		struct rig *r = up(ways[w].kind, 24 * MIB, 1);
		unsigned reason;
		char key[16];

		r->get_flags = MKV_DRV_F_NO_TOUCH;
		store(r, "a", BYTES, SEED, PUT, 0);
		for (unsigned i = 0; i < 150; i++) {
			snprintf(key, sizeof(key), "e%u", i);
			store(r, key, 400000, i, 0, 0);
			assert_true(touches(r, w, "a", BYTES, SEED));
		}
		assert_int_equal(rig_op(r, MKV_DRV_STAT, "e0", &reason), MKV_E_MISS);
		assert_int_equal(rig_get(r, "a", 0, MIB, SEED), 0);
		rig_destroy(&r);
	}
}

/* The put whose bytes these are is still the one that stored them: said once more, it is known. */
static void
the_first_put_is_known(void **state)
{
	(void)state;
	EACH(w) {
		struct rig *r = up(ways[w].kind, 32 * MIB, 1);
		struct mkv_drv_req q;

		for (uint64_t id = 7; id < 10; id++) {
			rig_put_req(r, &q, 1, "a", BYTES, SEED);
			q.flags = PUT | MKV_DRV_F_IF_ABSENT;
			q.put_id = id == 8 ? 7 : id;
			assert_int_equal(asked(r, 1, &q)->status, id == 9 ? MKV_E_EXISTS : 0);
			assert_true(touches(r, w, "a", BYTES, SEED));
			assert_int_equal(stat_of(r, "a")->put_id, 7);
		}
		rig_destroy(&r);
	}
}

/* ---- What it meets --------------------------------------------------------------------------------------------------------- */

/* An answer to one that is to be durable says that what it found is, too. */
static void
it_is_durable(void **state)
{
	(void)state;
	EACH(w) {
		struct rig *r;

		if (ways[w].kind != RIG_SIM)
			continue;
		r = up(RIG_SIM, 32 * MIB, 1);
		store(r, "a", BYTES, SEED, PUT | MKV_DRV_F_ACCEPTED, 0);
		assert_true(r->e->jn.flushed < r->e->jn.last_record);
		assert_true(touches(r, w, "a", BYTES, SEED));
		assert_true(r->e->jn.flushed >= r->e->jn.last_record);
		again(r);
		assert_int_equal(rig_get(r, "a", 0, MIB, SEED), 0);
		rig_destroy(&r);
	}
}

static void
a_delete_is_in_front(void **state)
{
	(void)state;
	EACH(w)
		for (uint64_t ttl_ms = 0; ttl_ms <= 50000; ttl_ms += 50000) {
			struct rig *r = up(ways[w].kind, 32 * MIB, 1);
			struct mkv_drv_req q;

			store(r, "a", BYTES, SEED, PUT, 0);
			rig_req(&q, MKV_DRV_DELETE, "a");
			rig_submit(r, 1, &q);
			(void)until(r, 1, RQ_FLUSH);
			begin(r, w, "a", BYTES, SEED, 0, ttl_ms);
			assert_false(end(r));
			assert_int_equal(rig_wait(r, 1)->status, 0);
			rig_destroy(&r);
		}
}

/* Other bytes are in the journal already, and seen when they are durable: the put is of what is there then. */
static void
other_bytes_are_in_front(void **state)
{
	(void)state;
	EACH(w)
		for (uint64_t ttl_ms = 0; ttl_ms <= 50000; ttl_ms += 50000) {
			struct rig *r = up(ways[w].kind, 32 * MIB, 1);
			struct mkv_drv_req q;

			store(r, "a", BYTES, SEED, PUT, 0);
			rig_put_req(r, &q, 1, "a", BYTES, SEED + 1);
			q.flags = PUT;
			rig_submit(r, 1, &q);
			(void)until(r, 1, RQ_FLUSH);
			begin(r, w, "a", BYTES, SEED, 0, ttl_ms);
			assert_false(end(r));
			assert_int_equal(rig_wait(r, 1)->status, 0);
			assert_int_equal(rig_get(r, "a", 0, MIB, ways[w].way == BY_RESERVE ? SEED + 1 : SEED), 0);
			if (ways[w].way == BY_RESERVE)
				assert_int_equal(stat_of(r, "a")->expires_wall_ms, 0);
			rig_destroy(&r);
		}
}

/* Behind a touch that is in the journal a delete waits for it. */
static void
a_delete_is_behind(void **state)
{
	(void)state;
	EACH(w) {
		struct rig *r = up(ways[w].kind, 32 * MIB, 1);
		struct mkv_drv_req q;

		store(r, "a", BYTES, SEED, PUT, 0);
		begin(r, w, "a", BYTES, SEED, 0, 50000);
		(void)until(r, 2, RQ_FLUSH);
		rig_req(&q, MKV_DRV_DELETE, "a");
		rig_submit(r, 1, &q);
		assert_true(end(r));
		assert_int_equal(rig_wait(r, 1)->status, 0);
		again(r);
		assert_int_equal(rig_op(r, MKV_DRV_STAT, "a", NULL), MKV_E_MISS);
		rig_destroy(&r);
	}
}

/* It goes while its touch waits for the flush: purged, or found bad. Then it has to be stored. */
static void
it_goes_meanwhile(void **state)
{
	(void)state;
	EACH(w)
		for (int bad = 0; bad < 2 && ways[w].kind == RIG_SIM; bad++) {	/* in memory nothing waits for a flush */
			struct rig *r = up(ways[w].kind, 32 * MIB, 1);

			store(r, "a", BYTES, SEED, PUT, 0);
			begin(r, w, "a", BYTES, SEED, 0, 50000);
			assert_non_null(until(r, 2, RQ_FLUSH));
			if (bad)
				eng_ent(r->e, entry(r, "a"))->flags |= MKV_ENT_QUARANTINE;
			else
				mkv_engine_purge(r->e, 1, "", 0);
			while (!bad && r->e->ns.slot[1].purge_seq == 0)
				(void)mkv_engine_step(r->e);
			assert_false(end(r));
			if (ways[w].way != BY_RESERVE)
				assert_int_equal(rig_get(r, "a", 0, MIB, SEED), 0);
			assert_int_equal(COUNTED(r, touches_total), 0);
			rig_destroy(&r);
		}
}

/* Nobody needs the key while bytes are on their way: a delete is answered meanwhile. */
static void
the_key_is_free_meanwhile(void **state)
{
	struct rig *r = up(RIG_MEMORY, 32 * MIB, 1);
	struct mkv_drv_req q;

	(void)state;
	store(r, "a", BYTES, SEED, PUT, 0);
	ask_req(r, &q, 2, "a", BYTES, SEED + 1);
	assert_int_equal(asked(r, 2, &q)->same, 0);
	assert_int_equal(rig_op(r, MKV_DRV_DELETE, "a", NULL), 0);
	q.op = MKV_DRV_COMMIT;
	q.flags = 0;
	q.txn = r->slot[2].rep.txn;
	assert_int_equal(asked(r, 2, &q)->status, 0);
	assert_int_equal(rig_op(r, MKV_DRV_STAT, "a", NULL), 0);
	rig_destroy(&r);
}

/* Also one that had it to look again: others have it while the bytes are written. */
static void
the_key_is_free_while_it_is_written(void **state)
{
	struct rig *r = up(RIG_SIM, 32 * MIB, 1);
	struct mkv_drv_req q;
	struct mkv_req *put;

	(void)state;
	store(r, "a", BYTES, SEED, PUT, 0);
	rig_req(&q, MKV_DRV_DELETE, "a");
	rig_submit(r, 1, &q);
	(void)until(r, 1, RQ_FLUSH);
	begin(r, 0, "a", BYTES, SEED, 0, 0);
	put = until(r, 2, RQ_LOCK);
	assert_non_null(put);
	assert_int_equal(put->lock, 1);
	put = until(r, 2, RQ_IO);
	assert_non_null(put);
	assert_int_equal(put->lock, 0);
	assert_false(end(r));
	assert_int_equal(rig_wait(r, 1)->status, 0);
	rig_destroy(&r);
}

/* One whose deadline passes while it waits for the key is answered so, and keeps nothing. */
static void
late_for_the_key(void **state)
{
	(void)state;
	EACH(w) {
		struct mkv_req *holder;
		struct mkv_drv_req q;
		struct rig *r;
		int used;

		if (ways[w].kind != RIG_SIM)
			continue;
		r = up(RIG_SIM, 32 * MIB, 1);
		store(r, "a", BYTES, SEED, PUT, 0);
		used = bytes_used(r);
		begin(r, w, "a", BYTES, SEED, 0, 50000);
		holder = until(r, 2, RQ_FLUSH);
		assert_non_null(holder);
		assert_int_equal(holder->lock, 2);
		ask_req(r, &q, 3, "a", BYTES, SEED);
		q.deadline_ns = r->now_ns + 1000;
		rig_submit(r, 3, &q);
		(void)mkv_engine_step(r->e);
		r->now_ns += 5 * MKV_NS_PER_SEC;
		(void)mkv_engine_step(r->e);
		assert_int_equal(rig_wait(r, 3)->status, MKV_E_TIMEOUT);
		assert_true(end(r));
		assert_int_equal(bytes_used(r), used);
		assert_int_equal(mkv_engine_busy(r->e), 0);
		rig_destroy(&r);
	}
}

/* ---- The pool map ---------------------------------------------------------------------------------------------------------- */

/* It is a write: not under an older map; and what is noted for drives that are away names it. */
static void
it_counts_as_a_write(void **state)
{
	struct mkv_map m = { .version = 2, .n = 2 };
	const struct mkv_digest *d;
	struct rig *r;
	struct mkv_drv_req q;
	int whole;

	(void)state;
	r = rig_create(RIG_SIM, 64 * MIB, 7);
	memset(r->o.drive_uuid, 0xd0, 16);
	assert_int_equal(rig_open(r), 0);
	for (unsigned i = 0; i < m.n; i++) {
		memset(m.row[i].uuid, 0xd0 + (int)i, 16);
		m.row[i].known = 1;
		m.row[i].weight = m.row[i].former = i == 0 ? 100 : 0;
		m.row[i].state = i == 0 ? MKV_DRIVE_ONLINE : MKV_DRIVE_FAILED;
	}
	for (m.version = 1; m.version <= 2; m.version++) {
		mkv_engine_map(r->e, &m);
		for (int i = 0; i < 4000 && r->map_stored != m.version; i++)
			rig_turn(r);
		assert_int_equal(r->map_stored, m.version);
	}
	rig_put_req(r, &q, 1, "a", BYTES, SEED);
	q.flags = PUT;
	q.map_version = 2;
	assert_int_equal(asked(r, 1, &q)->status, 0);
	rig_put_req(r, &q, 1, "b", BYTES, SEED);
	q.map_version = 2;
	assert_int_equal(asked(r, 1, &q)->status, 0);
	assert_int_equal(mkv_engine_away(r->e, 2, &d, &whole), 2);
	assert_true(whole);
	ask_req(r, &q, 2, "a", BYTES, SEED);
	q.map_version = 1;
	assert_int_equal(asked(r, 2, &q)->status, MKV_E_RETRY);
	for (int there = 0; there < 2; there++) {
		ask_req(r, &q, 2, there ? "a" : "never", BYTES, SEED);
		q.map_version = 2;
		rig_submit(r, 2, &q);
		assert_int_equal(end(r), there);
	}
	assert_int_equal(mkv_engine_away(r->e, 2, &d, &whole), 3);	/* not the one that was none */
	assert_true(mkv_digest_eq(d[2], q.digest));
	rig_destroy(&r);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(nothing_is_written), cmocka_unit_test(it_takes_no_space), cmocka_unit_test(other_bytes), cmocka_unit_test(every_crc_counts),
		cmocka_unit_test(bytes_that_nobody_checked), cmocka_unit_test(what_is_there_no_more), cmocka_unit_test(what_was_found_bad),
		cmocka_unit_test(another_key_of_the_same_digest), cmocka_unit_test(overwrite_and_if_absent), cmocka_unit_test(foreign_numbers),
		cmocka_unit_test(time_to_live_and_pin), cmocka_unit_test(no_room_for_a_pin), cmocka_unit_test(it_stays),
		cmocka_unit_test(the_first_put_is_known), cmocka_unit_test(it_is_durable), cmocka_unit_test(a_delete_is_in_front),
		cmocka_unit_test(other_bytes_are_in_front), cmocka_unit_test(a_delete_is_behind), cmocka_unit_test(it_goes_meanwhile),
		cmocka_unit_test(the_key_is_free_meanwhile), cmocka_unit_test(the_key_is_free_while_it_is_written),
		cmocka_unit_test(late_for_the_key), cmocka_unit_test(it_counts_as_a_write),
	};

	return (cmocka_run_group_tests(tests, NULL, NULL));
}
