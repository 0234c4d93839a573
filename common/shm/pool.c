/*
 * What a front hands out of its stage: buffers and control slots. Front, loop thread; no allocation, no blocking.
 *
 * A buffer is a run of free units in one chunk: the lowest run that fits, in the first chunk that has one, beginning at the chunk that served
 * last. Invariants: a unit is in chunk_free exactly when own[] says FREE; a slot is on slot_stack exactly when its word says FREE; only the
 * owner passes something on. A broken one is our own mistake: own[] is private memory.
 */
#include "config.h"
#include "common/shm/stage.h"

#include "common/base/assert.h"
#include "common/base/err.h"
#include "common/shm/stage_priv.h"

static inline void
pool_check(const struct mkv_stage *s)
{
	MKV_CHECK_OBJ(s, STAGE_OPEN_MAGIC);
	MKV_ASSERT(s->is_front);
}

/* n ones from bit 0; n is 1..64. */
static inline uint64_t
pool_ones(uint32_t n)
{
	return (~0ull >> (64 - n));
}

/* Lowest bit where a run of n ones begins; -1 if there is none. */
static int
pool_find_run(uint64_t bits, uint32_t n)
{
	uint32_t have = 1, step;

	/* Bit i of `bits` stays set while i .. i + have - 1 are all ones. */
	while (have < n && bits != 0) {
		step = MKV_MIN(have, n - have);
		bits &= bits >> step;
		have += step;
	}
	return (bits != 0 ? __builtin_ctzll(bits) : -1);
}

static void
pool_free_unit(struct mkv_stage *s, uint32_t unit)
{
	uint64_t bit = 1ull << unit % s->lay.units_per_chunk;

	MKV_ASSERT((s->chunk_free[unit / s->lay.units_per_chunk] & bit) == 0);
	s->chunk_free[unit / s->lay.units_per_chunk] |= bit;
	stage_set(s, unit, MKV_OWNER_FREE);
}

static void
pool_free_slot(struct mkv_stage *s, uint32_t slot_idx)
{
	if (++s->slot_gen[slot_idx] == 0)	/* 0 is no generation */
		s->slot_gen[slot_idx] = 1;
	MKV_ASSERT(s->slots_free < s->lay.slots);
	s->slot_stack[s->slots_free++] = slot_idx;
	stage_set(s, s->lay.units + slot_idx, MKV_OWNER_FREE);
}

void
stage_pool_fill(struct mkv_stage *s)
{
	for (uint32_t unit = 0; unit < s->lay.units; unit++)
		if (s->own[unit] == MKV_OWNER_FREE)
			pool_free_unit(s, unit);
	for (uint32_t i = s->lay.slots; i-- > 0;)	/* slot 0 ends up on top */
		if (s->own[s->lay.units + i] == MKV_OWNER_FREE)
			pool_free_slot(s, i);
}

int
mkv_buf_take(struct mkv_stage *s, uint32_t bytes, struct mkv_buf *b)
{
	uint32_t n = MKV_DIV_UP(bytes, MKV_STAGE_UNIT), chunk;
	int bit;

	pool_check(s);
	MKV_ASSERT(bytes != 0 && bytes <= s->lay.chunk_bytes);
	*b = (struct mkv_buf){ 0, 0 };
	if (s->units_by_owner[MKV_OWNER_FREE] < n)
		return (MKV_E_AGAIN);
	for (uint32_t i = 0; i < s->lay.chunks; i++) {
		chunk = s->chunk_cursor + i < s->lay.chunks ? s->chunk_cursor + i : s->chunk_cursor + i - s->lay.chunks;
		if ((bit = pool_find_run(s->chunk_free[chunk], n)) < 0)
			continue;
		s->chunk_free[chunk] &= ~(pool_ones(n) << bit);
		s->chunk_cursor = chunk;
		*b = (struct mkv_buf){ chunk * s->lay.units_per_chunk + (uint32_t)bit, n };
		for (uint32_t unit = b->unit_idx; unit < b->unit_idx + n; unit++)
			stage_set(s, unit, MKV_OWNER_FRONT);
		return (0);
	}
	return (MKV_E_AGAIN);
}

static void
pool_check_buf(const struct mkv_stage *s, struct mkv_buf b)
{
	pool_check(s);
	MKV_ASSERT(b.unit_count != 0);
	MKV_ASSERT(b.unit_idx < s->lay.units && b.unit_count <= s->lay.units - b.unit_idx);
}

void
mkv_buf_give(struct mkv_stage *s, struct mkv_buf b, enum mkv_owner from, enum mkv_owner to, uint32_t drive, uint32_t epoch)
{
	uint64_t word = stage_word(to, drive, epoch);

	pool_check_buf(s, b);
	MKV_ASSERT(from != MKV_OWNER_FREE && to != MKV_OWNER_FREE);
	MKV_ASSERT(drive < MKV_STAGE_DRIVES_MAX || word == (uint64_t)to);
	for (uint32_t unit = b.unit_idx; unit < b.unit_idx + b.unit_count; unit++) {
		MKV_ASSERT(stage_owner(s->own[unit]) == (unsigned)from);
		MKV_ASSERT(from != MKV_OWNER_DRIVE || stage_drive(s->own[unit]) == drive);
		stage_set(s, unit, word);
	}
}

void
mkv_buf_drop(struct mkv_stage *s, struct mkv_buf *b)
{
	pool_check_buf(s, *b);
	for (uint32_t unit = b->unit_idx; unit < b->unit_idx + b->unit_count; unit++) {
		MKV_ASSERT(s->own[unit] == MKV_OWNER_FRONT);
		pool_free_unit(s, unit);
	}
	*b = (struct mkv_buf){ 0, 0 };
}

uint64_t
mkv_buf_off(const struct mkv_stage *s, struct mkv_buf b)
{
	pool_check_buf(s, b);
	return (s->lay.data_off + (uint64_t)b.unit_idx * MKV_STAGE_UNIT);
}

void *
mkv_buf_ptr(const struct mkv_stage *s, struct mkv_buf b)
{
	return (s->base + mkv_buf_off(s, b));
}

uint32_t
mkv_buf_bytes(struct mkv_buf b)
{
	return (b.unit_count * MKV_STAGE_UNIT);
}

int
mkv_stage_slot_take(struct mkv_stage *s, uint32_t *slot_idx, uint32_t *gen)
{
	pool_check(s);
	if (s->slots_free == 0)
		return (MKV_E_AGAIN);
	*slot_idx = s->slot_stack[--s->slots_free];
	*gen = s->slot_gen[*slot_idx];
	stage_set(s, s->lay.units + *slot_idx, MKV_OWNER_FRONT);
	return (0);
}

/* Moves a slot from one owner to another, which both are ours to name. */
static void
pool_move_slot(struct mkv_stage *s, uint32_t slot_idx, enum mkv_owner from, uint64_t word)
{
	pool_check(s);
	MKV_ASSERT(slot_idx < s->lay.slots);
	MKV_ASSERT(stage_owner(s->own[s->lay.units + slot_idx]) == (unsigned)from);
	stage_set(s, s->lay.units + slot_idx, word);
}

void
mkv_stage_slot_drop(struct mkv_stage *s, uint32_t slot_idx)
{
	pool_move_slot(s, slot_idx, MKV_OWNER_FRONT, MKV_OWNER_FRONT);
	pool_free_slot(s, slot_idx);
}

uint32_t
mkv_stage_slot_gen(const struct mkv_stage *s, uint32_t slot_idx)
{
	pool_check(s);
	MKV_ASSERT(slot_idx < s->lay.slots);
	return (s->slot_gen[slot_idx]);
}

void
mkv_stage_slot_give(struct mkv_stage *s, uint32_t slot_idx, uint32_t drive, uint32_t epoch)
{
	MKV_ASSERT(drive < MKV_STAGE_DRIVES_MAX);
	pool_move_slot(s, slot_idx, MKV_OWNER_FRONT, stage_word(MKV_OWNER_DRIVE, drive, epoch));
}

void
mkv_stage_slot_back(struct mkv_stage *s, uint32_t slot_idx)
{
	pool_move_slot(s, slot_idx, MKV_OWNER_DRIVE, MKV_OWNER_FRONT);
}

/* Is this word with that drive under an epoch up to that one? */
static int
pool_word_is(uint64_t word, enum mkv_owner owner, uint32_t drive, uint32_t epoch)
{
	return (stage_owner(word) == (unsigned)owner && stage_drive(word) == drive && stage_epoch(word) <= epoch);
}

uint32_t
mkv_stage_quarantine(struct mkv_stage *s, uint32_t drive, uint32_t epoch)
{
	uint32_t units = 0;

	pool_check(s);
	MKV_ASSERT(drive < MKV_STAGE_DRIVES_MAX);
	for (uint32_t i = 0; i < s->lay.units + s->lay.slots; i++)
		if (pool_word_is(s->own[i], MKV_OWNER_DRIVE, drive, epoch)) {
			stage_set(s, i, stage_word(MKV_OWNER_QUARANTINE, drive, stage_epoch(s->own[i])));
			units += i < s->lay.units;
		}
	return (units);
}

uint32_t
mkv_stage_release(struct mkv_stage *s, uint32_t drive, uint32_t epoch)
{
	uint32_t units = 0;

	pool_check(s);
	MKV_ASSERT(drive < MKV_STAGE_DRIVES_MAX || drive == MKV_STAGE_DRIVE_ANY);
	for (uint32_t i = 0; i < s->lay.units; i++)
		if (pool_word_is(s->own[i], MKV_OWNER_QUARANTINE, drive, epoch)) {
			pool_free_unit(s, i);
			units++;
		}
	for (uint32_t i = 0; i < s->lay.slots; i++)
		if (pool_word_is(s->own[s->lay.units + i], MKV_OWNER_QUARANTINE, drive, epoch))
			pool_free_slot(s, i);
	return (units);
}
