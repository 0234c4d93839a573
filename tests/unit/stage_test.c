/*
 * Staging memory: every operation against a model, the death of the front in every state, damaged owner words and heads.
 */
#include "config.h"
#include "common/shm/stage.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "common/base/assert.h"
#include "common/base/err.h"
#include "common/base/os.h"
#include "common/shm/stage_priv.h"
#include "tests/lib/death.h"
#include "tests/lib/fail.h"
#include "tests/lib/rnd.h"

#define CHUNK		(1u << 20)
#define UNITS		(CHUNK / MKV_STAGE_UNIT)	/* of a chunk */
#define CHUNKS		6u
#define SLOTS		20u
#define HELD_MAX	(UNITS * CHUNKS)
#define DRIVES		3u

struct held {				/* one buffer or slot that is not free */
	struct mkv_buf	buf;		/* unit_count 0: a slot, unit_idx */
	enum mkv_owner	owner;
	uint32_t	drive, epoch;
};

struct model {
	struct mkv_stage *s;
	int		fd;
	uint32_t	epoch;
	struct held	held[HELD_MAX + SLOTS];
	unsigned	n;
	uint8_t		used[UNITS * CHUNKS], slot_used[SLOTS];
	uint32_t	slot_gen[SLOTS];
	unsigned	taken, refused;
};

static int
new_fd(uint64_t data, uint32_t chunk, uint32_t slots)
{
	int fd = mkv_os_shm_create("stage-test", mkv_stage_bytes(data, chunk, slots), 0);

	assert_true(fd >= 0);
	assert_int_equal(mkv_stage_format(fd, data, chunk, slots, 0), 0);
	return (fd);
}

static void
model_open(struct model *m)
{
	memset(m, 0, sizeof(*m));
	m->fd = new_fd(CHUNK * CHUNKS, CHUNK, SLOTS);
	m->epoch = 10;
	assert_int_equal(mkv_stage_open(&m->s, m->fd, 1, 0), 0);
}

static void
model_close(struct model *m)
{
	mkv_stage_close(&m->s);
	close(m->fd);
}

static void
model_forget(struct model *m, unsigned i)
{
	struct held *h = &m->held[i];

	if (h->buf.unit_count == 0)
		m->slot_used[h->buf.unit_idx] = 0;
	else
		memset(m->used + h->buf.unit_idx, 0, h->buf.unit_count);
	*h = m->held[--m->n];
}

/* What the stage says about itself must be what the model says. */
static void
model_check(const struct model *m)
{
	uint64_t by_owner[STAGE_OWNERS] = { 0 };
	struct mkv_stage_stat st;
	unsigned slots = 0, slots_quarantined = 0;

	for (unsigned i = 0; i < m->n; i++) {
		if (m->held[i].buf.unit_count == 0)
			slots_quarantined += m->held[i].owner == MKV_OWNER_QUARANTINE;
		slots += m->held[i].buf.unit_count == 0;
		by_owner[m->held[i].owner] += mkv_buf_bytes(m->held[i].buf);
	}
	mkv_stage_stat(m->s, &st);
	assert_true(st.total_bytes == CHUNK * CHUNKS);
	assert_true(st.front_bytes == by_owner[MKV_OWNER_FRONT] + by_owner[MKV_OWNER_NIC]);
	assert_true(st.drive_bytes == by_owner[MKV_OWNER_DRIVE]);
	assert_true(st.quarantined_bytes == by_owner[MKV_OWNER_QUARANTINE]);
	assert_true(st.free_bytes == st.total_bytes - st.front_bytes - st.drive_bytes - st.quarantined_bytes);
	assert_int_equal(st.slots_free, SLOTS - slots);
	assert_int_equal(st.slots_quarantined, slots_quarantined);
	assert_int_equal(st.words_bad, 0);
}

static int
model_has_run(const struct model *m, unsigned n)
{
	for (unsigned c = 0; c < CHUNKS; c++)
		for (unsigned i = 0, run = 0; i < UNITS; i++) {
			run = m->used[c * UNITS + i] ? 0 : run + 1;
			if (run == n)
				return (1);
		}
	return (0);
}

static void
do_take(struct model *m, struct rnd *r)
{
	uint32_t bytes = 1 + rnd_below(r, rnd_below(r, 4) ? 4 * MKV_STAGE_UNIT : CHUNK);
	unsigned n = MKV_DIV_UP(bytes, MKV_STAGE_UNIT);
	struct mkv_buf b;
	int e = mkv_buf_take(m->s, bytes, &b);

	assert_int_equal(e, model_has_run(m, n) ? 0 : MKV_E_AGAIN);
	if (e != 0) {
		assert_int_equal(b.unit_count, 0);
		m->refused++;
		return;
	}
	m->taken++;
	assert_int_equal(b.unit_count, n);
	assert_int_equal(b.unit_idx / UNITS, (b.unit_idx + n - 1) / UNITS);	/* one chunk */
	for (unsigned i = 0; i < n; i++) {
		assert_int_equal(m->used[b.unit_idx + i], 0);
		m->used[b.unit_idx + i] = 1;
	}
	assert_ptr_equal(mkv_buf_ptr(m->s, b), mkv_stage_data(m->s, mkv_buf_off(m->s, b), mkv_buf_bytes(b)));
	memset(mkv_buf_ptr(m->s, b), (int)n, bytes);
	m->held[m->n++] = (struct held){ b, MKV_OWNER_FRONT, 0, 0 };
}

static void
do_take_slot(struct model *m)
{
	uint32_t idx, gen, used = 0;

	for (unsigned i = 0; i < SLOTS; i++)
		used += m->slot_used[i];
	if (mkv_stage_slot_take(m->s, &idx, &gen) != 0) {
		assert_int_equal(used, SLOTS);
		return;
	}
	assert_int_equal(m->slot_used[idx], 0);
	assert_int_not_equal(gen, 0);
	assert_int_not_equal(gen, m->slot_gen[idx]);	/* never the one it had before */
	assert_int_equal(gen, mkv_stage_slot_gen(m->s, idx));
	m->slot_used[idx] = 1;
	m->slot_gen[idx] = gen;
	memset(mkv_stage_slot(m->s, idx), 1, MKV_STAGE_SLOT_BYTES);
	m->held[m->n++] = (struct held){ { idx, 0 }, MKV_OWNER_FRONT, 0, 0 };
}

/* Moves something that is held one step on its way. */
static void
do_step(struct model *m, struct rnd *r, unsigned i)
{
	struct held *h = &m->held[i];
	int slot = h->buf.unit_count == 0;

	if (h->owner == MKV_OWNER_FRONT && rnd_below(r, 2)) {
		if (slot)
			mkv_stage_slot_drop(m->s, h->buf.unit_idx);
		else {
			struct mkv_buf b = h->buf;

			mkv_buf_drop(m->s, &b);
			assert_int_equal(b.unit_count, 0);
		}
		model_forget(m, i);
	} else if (h->owner == MKV_OWNER_FRONT && !slot && rnd_below(r, 4) == 0) {
		mkv_buf_give(m->s, h->buf, MKV_OWNER_FRONT, MKV_OWNER_NIC, 0, 0);
		h->owner = MKV_OWNER_NIC;
	} else if (h->owner == MKV_OWNER_FRONT) {
		h->drive = rnd_below(r, DRIVES);
		h->epoch = m->epoch;
		if (slot)
			mkv_stage_slot_give(m->s, h->buf.unit_idx, h->drive, h->epoch);
		else
			mkv_buf_give(m->s, h->buf, MKV_OWNER_FRONT, MKV_OWNER_DRIVE, h->drive, h->epoch);
		h->owner = MKV_OWNER_DRIVE;
	} else if (h->owner == MKV_OWNER_DRIVE || h->owner == MKV_OWNER_NIC) {
		if (slot)
			mkv_stage_slot_back(m->s, h->buf.unit_idx);
		else
			mkv_buf_give(m->s, h->buf, h->owner, MKV_OWNER_FRONT, h->drive, h->epoch);
		h->owner = MKV_OWNER_FRONT;
	}
}

static void
do_drive_died(struct model *m, uint32_t drive, uint32_t epoch)
{
	uint32_t units = 0;

	for (unsigned i = 0; i < m->n; i++)
		if (m->held[i].owner == MKV_OWNER_DRIVE && m->held[i].drive == drive && m->held[i].epoch <= epoch) {
			m->held[i].owner = MKV_OWNER_QUARANTINE;
			units += m->held[i].buf.unit_count;
		}
	assert_int_equal(mkv_stage_quarantine(m->s, drive, epoch), units);
}

static void
do_drained(struct model *m, uint32_t drive, uint32_t epoch)
{
	uint32_t units = 0;

	for (unsigned i = m->n; i-- > 0;)
		if (m->held[i].owner == MKV_OWNER_QUARANTINE && m->held[i].drive == drive && m->held[i].epoch <= epoch) {
			units += m->held[i].buf.unit_count;
			model_forget(m, i);
		}
	assert_int_equal(mkv_stage_release(m->s, drive, epoch), units);
}

/* The front dies and another one takes over. */
static void
do_front_died(struct model *m)
{
	mkv_stage_close(&m->s);
	assert_int_equal(mkv_stage_open(&m->s, m->fd, 1, 0), 0);
	m->epoch++;
	memset(m->slot_gen, 0, sizeof(m->slot_gen));	/* its rings are new, so old answers cannot come */
	for (unsigned i = m->n; i-- > 0;)
		if (m->held[i].owner == MKV_OWNER_FRONT || m->held[i].owner == MKV_OWNER_NIC)
			model_forget(m, i);
		else
			m->held[i].owner = MKV_OWNER_QUARANTINE;
}

static void
follows_the_model(void **state)
{
	static struct model m;
	struct rnd r;

	(void)state;
	rnd_init(&r, 30);
	model_open(&m);
	for (unsigned i = 0; i < 60000; i++) {
		unsigned what = rnd_below(&r, 1000);

		if (what < 400)
			do_take(&m, &r);
		else if (what < 500)
			do_take_slot(&m);
		else if (what < 960 && m.n > 0)
			do_step(&m, &r, rnd_below(&r, m.n));
		else if (what < 975)
			do_drive_died(&m, rnd_below(&r, DRIVES), m.epoch - rnd_below(&r, 2));
		else if (what < 995)
			do_drained(&m, rnd_below(&r, DRIVES), m.epoch - rnd_below(&r, 3));
		else
			do_front_died(&m);
		model_check(&m);
	}
	assert_true(m.taken > 5000 && m.refused > 500);
	do_front_died(&m);
	for (unsigned d = 0; d < DRIVES; d++)
		do_drained(&m, d, m.epoch);
	model_check(&m);
	assert_int_equal(m.n, 0);		/* all is free again */
	model_close(&m);
}

static void
full_and_empty_again(void **state)
{
	static struct model m;
	struct mkv_buf b[HELD_MAX + 1], extra;	/* the last take fails */

	(void)state;
	model_open(&m);
	for (uint32_t n = 1; n <= UNITS; n++) {
		unsigned count = 0, want = CHUNKS * (UNITS / n);

		while (mkv_buf_take(m.s, n * MKV_STAGE_UNIT, &b[count]) == 0)
			count++;
		assert_int_equal(count, want);
		assert_int_equal(mkv_buf_take(m.s, n * MKV_STAGE_UNIT, &extra), MKV_E_AGAIN);
		while (count > 0)
			mkv_buf_drop(m.s, &b[--count]);
	}
	model_check(&m);
	model_close(&m);
}

/* One buffer and one slot in each state at the front's death. */
static void
death_in_every_state(void **state)
{
	static struct model m;
	struct mkv_stage_stat st;
	struct mkv_buf b[4];
	uint32_t slot[3], gen;

	(void)state;
	model_open(&m);
	for (unsigned i = 0; i < 4; i++)
		assert_int_equal(mkv_buf_take(m.s, MKV_STAGE_UNIT, &b[i]), 0);
	for (unsigned i = 0; i < 3; i++)
		assert_int_equal(mkv_stage_slot_take(m.s, &slot[i], &gen), 0);
	mkv_buf_give(m.s, b[1], MKV_OWNER_FRONT, MKV_OWNER_DRIVE, 1, 10);
	mkv_buf_give(m.s, b[2], MKV_OWNER_FRONT, MKV_OWNER_NIC, 0, 0);
	mkv_buf_give(m.s, b[3], MKV_OWNER_FRONT, MKV_OWNER_DRIVE, 2, 11);
	mkv_stage_slot_give(m.s, slot[1], 1, 10);
	mkv_stage_slot_give(m.s, slot[2], 2, 11);
	assert_int_equal(mkv_stage_quarantine(m.s, 2, 11), 1);
	do_front_died(&m);
	mkv_stage_stat(m.s, &st);
	assert_true(st.quarantined_bytes == 2 * MKV_STAGE_UNIT);
	assert_int_equal(st.slots_quarantined, 2);
	assert_true(st.free_bytes == st.total_bytes - 2 * MKV_STAGE_UNIT);
	assert_int_equal(mkv_stage_release(m.s, 1, 9), 0);	/* an older epoch frees nothing */
	assert_int_equal(mkv_stage_release(m.s, 0, 99), 0);	/* nor does another drive */
	assert_int_equal(mkv_stage_release(m.s, 1, 10), 1);
	do_front_died(&m);					/* quarantine outlives one more front */
	assert_int_equal(mkv_stage_release(m.s, 2, 11), 1);
	mkv_stage_stat(m.s, &st);
	assert_true(st.free_bytes == st.total_bytes);
	assert_int_equal(st.slots_free, SLOTS);
	model_close(&m);
}

static void
damaged_words_at_adoption(void **state)
{
	static struct model m;
	struct mkv_stage_stat st;
	struct rnd r;
	uint32_t words = UNITS * CHUNKS + SLOTS;

	(void)state;
	rnd_init(&r, 31);
	for (unsigned round = 0; round < 200; round++) {
		model_open(&m);
		for (unsigned i = 0; i < 40; i++)
			atomic_store(&m.s->word[rnd_below(&r, words)],
			    rnd_below(&r, 2) ? rnd_u64(&r) : stage_word(rnd_below(&r, 6), rnd_below(&r, 80), rnd_below(&r, 3)));
		mkv_stage_close(&m.s);
		assert_int_equal(mkv_stage_open(&m.s, m.fd, 1, 0), 0);
		mkv_stage_stat(m.s, &st);
		assert_true(st.words_bad > 0);
		assert_true(st.free_bytes + st.quarantined_bytes == st.total_bytes);
		assert_int_equal(st.slots_free + st.slots_quarantined, SLOTS);
		for (uint32_t d = 0; d < MKV_STAGE_DRIVES_MAX; d++)
			mkv_stage_release(m.s, d, UINT32_MAX);
		mkv_stage_release(m.s, MKV_STAGE_DRIVE_ANY, UINT32_MAX);
		mkv_stage_stat(m.s, &st);
		assert_true(st.free_bytes == st.total_bytes);
		assert_int_equal(st.slots_free, SLOTS);
		model_close(&m);
	}
}

/* A drive writes all over the owner words while the front works: the front goes on as if nothing had happened. */
static void
damaged_words_while_it_lives(void **state)
{
	static struct model m;
	struct rnd r;

	(void)state;
	rnd_init(&r, 32);
	model_open(&m);
	for (unsigned i = 0; i < 5000; i++) {
		atomic_store(&m.s->word[rnd_below(&r, UNITS * CHUNKS + SLOTS)], rnd_u64(&r));
		do_take(&m, &r);
		do_take_slot(&m);
		if (m.n > 0)
			do_step(&m, &r, rnd_below(&r, m.n));
		model_check(&m);
	}
	model_close(&m);
}

static void
foreign_offsets(void **state)
{
	static struct model m;
	uint64_t first, end, base_bytes;
	uint8_t *base;
	struct mkv_stage *drive;

	(void)state;
	model_open(&m);
	assert_int_equal(mkv_stage_open(&drive, m.fd, 0, 0), 0);
	base = mkv_stage_base(drive, &base_bytes);
	first = m.s->lay.data_off;
	end = first + CHUNK * CHUNKS;
	assert_int_equal(first % (2u << 20), 0);
	assert_true(base_bytes >= end);
	assert_ptr_equal(mkv_stage_data(drive, first, end - first), base + first);
	assert_non_null(mkv_stage_data(drive, end - 1, 1));
	assert_non_null(mkv_stage_data(drive, end, 0));
	assert_null(mkv_stage_data(drive, end, 1));
	assert_null(mkv_stage_data(drive, first - 1, 1));
	assert_null(mkv_stage_data(drive, 0, 1));
	assert_null(mkv_stage_data(drive, first, end - first + 1));
	assert_null(mkv_stage_data(drive, first + 1, UINT64_MAX));
	assert_null(mkv_stage_data(drive, UINT64_MAX, 1));
	assert_null(mkv_stage_data(drive, UINT64_MAX - 1, UINT64_MAX));
	assert_non_null(mkv_stage_slot(drive, SLOTS - 1));
	assert_true((uint8_t *)mkv_stage_slot(drive, SLOTS - 1) + MKV_STAGE_SLOT_BYTES <= base + first);
	assert_null(mkv_stage_slot(drive, SLOTS));
	assert_null(mkv_stage_slot(drive, UINT32_MAX));
	assert_int_equal(mkv_stage_slot_count(drive), SLOTS);
	assert_int_equal(mkv_stage_chunk_bytes(drive), CHUNK);
	mkv_stage_close(&drive);
	model_close(&m);
}

static void
sizes(void **state)
{
	(void)state;
	assert_int_equal(mkv_stage_bytes(0, CHUNK, SLOTS), 0);
	assert_int_equal(mkv_stage_bytes(CHUNK, CHUNK / 2, SLOTS), 0);
	assert_int_equal(mkv_stage_bytes(CHUNK, 8u << 20, SLOTS), 0);
	assert_int_equal(mkv_stage_bytes(CHUNK, 3u << 19, SLOTS), 0);
	assert_int_equal(mkv_stage_bytes(CHUNK, CHUNK, 0), 0);
	assert_int_equal(mkv_stage_bytes(CHUNK, CHUNK, MKV_STAGE_SLOTS_MAX + 1), 0);
	assert_int_equal(mkv_stage_bytes(MKV_STAGE_DATA_MAX + 1, CHUNK, SLOTS), 0);
	assert_true(mkv_stage_bytes(1, CHUNK, 1) % (2u << 20) == 0);
	assert_true(mkv_stage_bytes(MKV_STAGE_DATA_MAX, 4u << 20, MKV_STAGE_SLOTS_MAX) > MKV_STAGE_DATA_MAX);
	assert_int_equal(mkv_stage_format(-1, 0, CHUNK, SLOTS, 0), MKV_E_INVAL);
}

static void
damaged_head(void **state)
{
	struct mkv_stage *s;
	struct rnd r;
	void *p;
	int fd, e;

	(void)state;
	rnd_init(&r, 33);
	for (unsigned i = 0; i < 300; i++) {
		fd = new_fd(CHUNK * 2, CHUNK, SLOTS);
		assert_int_equal(mkv_os_shm_map(fd, 4096, 1, 0, &p), 0);
		((uint32_t *)p)[rnd_below(&r, 5)] = rnd_below(&r, 2) ? (uint32_t)rnd_u64(&r) : 1u << rnd_below(&r, 32);
		mkv_os_shm_unmap(p, 4096);
		e = mkv_stage_open(&s, fd, (int)(i & 1), 0);
		assert_true(e == 0 || e == MKV_E_PEER);
		assert_true((e == 0) == (s != NULL));
		mkv_stage_close(&s);
		close(fd);
	}
	fd = mkv_os_shm_create("stage-test", 2u << 20, 0);
	assert_int_equal(mkv_stage_open(&s, fd, 1, 0), MKV_E_PEER);
	close(fd);
	assert_int_equal(mkv_stage_open(&s, -1, 1, 0), MKV_E_SYSTEM);
}

static void
out_of_memory(void **state)
{
	struct mkv_stage *s;
	int fd = new_fd(CHUNK, CHUNK, SLOTS);
	unsigned n = 1;

	(void)state;
	for (;; n++) {
		fail_alloc(n);
		if (mkv_stage_open(&s, fd, 1, 0) == 0)
			break;
		assert_int_equal(fail_alloc(0), 1);
		assert_null(s);
	}
	fail_alloc(0);
	assert_int_equal(n, 6);			/* five allocations, each failed once */
	mkv_stage_close(&s);
	close(fd);
}

static void
drop_what_a_drive_has(void *arg)
{
	struct mkv_stage *s = arg;
	struct mkv_buf b;

	mkv_buf_take(s, 1, &b);
	mkv_buf_give(s, b, MKV_OWNER_FRONT, MKV_OWNER_DRIVE, 0, 1);
	mkv_buf_drop(s, &b);
}

static void
give_back_for_another(void *arg)
{
	struct mkv_stage *s = arg;
	struct mkv_buf b;

	mkv_buf_take(s, 1, &b);
	mkv_buf_give(s, b, MKV_OWNER_FRONT, MKV_OWNER_DRIVE, 0, 1);
	mkv_buf_give(s, b, MKV_OWNER_DRIVE, MKV_OWNER_FRONT, 1, 1);
}

static void
drop_twice(void *arg)
{
	struct mkv_stage *s = arg;
	struct mkv_buf b, again;

	mkv_buf_take(s, 1, &b);
	again = b;
	mkv_buf_drop(s, &b);
	mkv_buf_drop(s, &again);
}

static void
take_too_much(void *arg)
{
	struct mkv_buf b;

	mkv_buf_take(arg, CHUNK + 1, &b);
}

static void
drop_slot_of_a_drive(void *arg)
{
	uint32_t idx, gen;

	mkv_stage_slot_take(arg, &idx, &gen);
	mkv_stage_slot_give(arg, idx, 1, 1);
	mkv_stage_slot_drop(arg, idx);
}

static void
mistakes_end_the_front(void **state)
{
	static struct model m;
	struct mkv_stage *drive;

	(void)state;
	model_open(&m);
	assert_true(death_by_assert(drop_what_a_drive_has, m.s));
	assert_true(death_by_assert(give_back_for_another, m.s));
	assert_true(death_by_assert(drop_twice, m.s));
	assert_true(death_by_assert(take_too_much, m.s));
	assert_true(death_by_assert(drop_slot_of_a_drive, m.s));
	assert_int_equal(mkv_stage_open(&drive, m.fd, 0, 0), 0);
	assert_true(death_by_assert(drop_twice, drive));	/* a drive hands out nothing */
	mkv_stage_close(&drive);
	model_close(&m);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(follows_the_model),
		cmocka_unit_test(full_and_empty_again),
		cmocka_unit_test(death_in_every_state),
		cmocka_unit_test(damaged_words_at_adoption),
		cmocka_unit_test(damaged_words_while_it_lives),
		cmocka_unit_test(foreign_offsets),
		cmocka_unit_test(sizes),
		cmocka_unit_test(damaged_head),
		cmocka_unit_test(out_of_memory),
		cmocka_unit_test(mistakes_end_the_front),
	};

	return (cmocka_run_group_tests(tests, NULL, NULL));
}
