/*
 * A front's staging segment: layout, opening, adoption, quarantine. Supervisor: formats it; front: owns slots and buffers (one loop
 * thread); drives: map it.
 *
 *	0           header page
 *	4096        owner words, one u64 a unit, then one u64 a control slot
 *	slots_off   control slots of 8 KiB
 *	data_off    chunks; 2 MiB aligned
 *
 * The segment outlives its front. Everything read from it is foreign: the head is checked once at open and copied, owner words are read at
 * adoption alone; while a front lives, its private own[] is the truth and the words only mirror it, so a drive that damages them harms
 * nobody but itself. Time frees nothing.
 */
#include "config.h"
#include "common/shm/stage.h"

#include <stdlib.h>
#include <sys/stat.h>

#include "common/base/assert.h"
#include "common/base/err.h"
#include "common/base/os.h"
#include "common/shm/stage_priv.h"

#define STAGE_PAGE	4096u
#define STAGE_ALIGN	(2u << 20)

_Static_assert(sizeof(struct stage_shm) <= STAGE_PAGE, "the head is one page");
_Static_assert(MKV_STAGE_CHUNK_MAX / MKV_STAGE_UNIT == 64, "chunk_free is one word a chunk");
_Static_assert(MKV_STAGE_DATA_MAX / MKV_STAGE_UNIT + MKV_STAGE_SLOTS_MAX < UINT32_MAX, "indexes of owner words are 32 bits");
_Static_assert(MKV_STAGE_DRIVES_MAX <= MKV_STAGE_DRIVE_ANY && MKV_STAGE_DRIVE_ANY <= 255, "drive is 8 bits");

/* 0 if the numbers are in range; *lay is then complete. */
static int
stage_lay_out(struct stage_layout *lay, uint64_t data_bytes, uint32_t chunk_bytes, uint32_t slots)
{
	if (chunk_bytes < MKV_STAGE_CHUNK_MIN || chunk_bytes > MKV_STAGE_CHUNK_MAX || (chunk_bytes & (chunk_bytes - 1)) != 0)
		return (MKV_E_INVAL);
	if (data_bytes == 0 || data_bytes > MKV_STAGE_DATA_MAX || slots == 0 || slots > MKV_STAGE_SLOTS_MAX)
		return (MKV_E_INVAL);
	lay->chunk_bytes = chunk_bytes;
	lay->slots = slots;
	lay->data_bytes = MKV_ALIGN_UP(data_bytes, chunk_bytes);
	lay->chunks = (uint32_t)(lay->data_bytes / chunk_bytes);
	lay->units = (uint32_t)(lay->data_bytes / MKV_STAGE_UNIT);
	lay->units_per_chunk = chunk_bytes / MKV_STAGE_UNIT;
	lay->words_off = STAGE_PAGE;
	lay->slots_off = MKV_ALIGN_UP(lay->words_off + ((uint64_t)lay->units + slots) * sizeof(uint64_t), STAGE_PAGE);
	lay->data_off = MKV_ALIGN_UP(lay->slots_off + (uint64_t)slots * MKV_STAGE_SLOT_BYTES, STAGE_ALIGN);
	lay->total_bytes = MKV_ALIGN_UP(lay->data_off + lay->data_bytes, STAGE_ALIGN);
	return (0);
}

uint64_t
mkv_stage_bytes(uint64_t data_bytes, uint32_t chunk_bytes, uint32_t slots)
{
	struct stage_layout lay;

	return (stage_lay_out(&lay, data_bytes, chunk_bytes, slots) == 0 ? lay.total_bytes : 0);
}

int
mkv_stage_format(int fd, uint64_t data_bytes, uint32_t chunk_bytes, uint32_t slots, int huge)
{
	struct stage_layout lay;
	struct stage_shm *head;
	struct stat st;
	void *p;
	int r;

	if ((r = stage_lay_out(&lay, data_bytes, chunk_bytes, slots)) != 0)
		return (r);
	if (fstat(fd, &st) != 0)
		return (MKV_E_SYSTEM);
	if (st.st_size < (off_t)lay.total_bytes)
		return (MKV_E_INVAL);
	/* As large as it is: pages of 1 GiB are mapped as a whole. */
	if ((r = mkv_os_shm_map(fd, (uint64_t)st.st_size, 1, huge, &p)) != 0)
		return (r);
	head = p;				/* the segment is new: its owner words are zero, which is FREE */
	head->chunk_bytes = lay.chunk_bytes;
	head->data_bytes = lay.data_bytes;
	head->slots = lay.slots;
	head->magic = MKV_STAGE_MAGIC;
	mkv_os_shm_unmap(p, (uint64_t)st.st_size);
	return (0);
}

/* The head, read once; MKV_E_PEER if it does not describe a stage that fits in the segment. */
static int
stage_read_head(const volatile struct stage_shm *head, uint64_t segment_bytes, struct stage_layout *lay)
{
	uint64_t data_bytes = head->data_bytes;

	if (head->magic != MKV_STAGE_MAGIC || stage_lay_out(lay, data_bytes, head->chunk_bytes, head->slots) != 0)
		return (MKV_E_PEER);
	return (lay->data_bytes == data_bytes && lay->total_bytes <= segment_bytes ? 0 : MKV_E_PEER);
}

/* What a word that a former front wrote means now. */
static uint64_t
stage_adopt_word(struct mkv_stage *s, uint64_t word)
{
	unsigned owner = stage_owner(word);
	int known = stage_drive(word) < MKV_STAGE_DRIVES_MAX;

	if (word == MKV_OWNER_FREE || word == MKV_OWNER_FRONT || word == MKV_OWNER_NIC)
		return (MKV_OWNER_FREE);	/* recv and verbs ended with the process */
	if ((owner == MKV_OWNER_DRIVE || owner == MKV_OWNER_QUARANTINE) && known &&
	    stage_word(owner, stage_drive(word), stage_epoch(word)) == word)
		return (stage_word(MKV_OWNER_QUARANTINE, stage_drive(word), stage_epoch(word)));
	s->words_bad++;
	return (stage_word(MKV_OWNER_QUARANTINE, MKV_STAGE_DRIVE_ANY, UINT32_MAX));
}

void
stage_set(struct mkv_stage *s, uint32_t idx, uint64_t word)
{
	uint32_t *by_owner = idx < s->lay.units ? s->units_by_owner : s->slots_by_owner;

	by_owner[stage_owner(s->own[idx])]--;
	by_owner[stage_owner(word)]++;
	s->own[idx] = word;
	/* Relaxed: read by the next front, after this one's end. */
	atomic_store_explicit(&s->word[idx], word, memory_order_relaxed);
}

static int
stage_adopt(struct mkv_stage *s)
{
	uint32_t words = s->lay.units + s->lay.slots;

	s->own = calloc(words, sizeof(*s->own));
	s->chunk_free = calloc(s->lay.chunks, sizeof(*s->chunk_free));
	s->slot_gen = calloc(s->lay.slots, sizeof(*s->slot_gen));
	s->slot_stack = calloc(s->lay.slots, sizeof(*s->slot_stack));
	if (s->own == NULL || s->chunk_free == NULL || s->slot_gen == NULL || s->slot_stack == NULL)
		return (MKV_E_NOMEM);
	s->units_by_owner[MKV_OWNER_FREE] = s->lay.units;
	s->slots_by_owner[MKV_OWNER_FREE] = s->lay.slots;
	for (uint32_t i = 0; i < words; i++)
		stage_set(s, i, stage_adopt_word(s, atomic_load_explicit(&s->word[i], memory_order_relaxed)));
	stage_pool_fill(s);
	return (0);
}

int
mkv_stage_open(struct mkv_stage **out, int fd, int as_front, int huge)
{
	struct mkv_stage *s;
	struct stat st;
	void *p;
	int r;

	*out = NULL;
	if (fstat(fd, &st) != 0)
		return (MKV_E_SYSTEM);
	if (st.st_size < (off_t)STAGE_PAGE)
		return (MKV_E_PEER);
	if ((s = calloc(1, sizeof(*s))) == NULL)
		return (MKV_E_NOMEM);
	s->magic = STAGE_OPEN_MAGIC;
	s->is_front = as_front;
	if ((r = mkv_os_shm_map(fd, (uint64_t)st.st_size, 1, huge, &p)) != 0)
		goto out;
	s->base = p;
	s->map_bytes = (uint64_t)st.st_size;
	if ((r = stage_read_head(p, s->map_bytes, &s->lay)) != 0)
		goto out;
	s->word = (_Atomic uint64_t *)(s->base + s->lay.words_off);
	if (as_front && (r = stage_adopt(s)) != 0)
		goto out;
	TAKE(*out, s);
out:
	mkv_stage_close(&s);
	return (r);
}

void
mkv_stage_close(struct mkv_stage **sp)
{
	struct mkv_stage *s = *sp;

	*sp = NULL;
	if (s == NULL)
		return;
	MKV_CHECK_OBJ(s, STAGE_OPEN_MAGIC);
	if (s->base != NULL)
		mkv_os_shm_unmap(s->base, s->map_bytes);
	free(s->own);
	free(s->chunk_free);
	free(s->slot_gen);
	free(s->slot_stack);
	s->magic = 0;
	free(s);
}

void *
mkv_stage_base(const struct mkv_stage *s, uint64_t *bytes)
{
	MKV_CHECK_OBJ(s, STAGE_OPEN_MAGIC);
	*bytes = s->map_bytes;
	return (s->base);
}

uint32_t
mkv_stage_chunk_bytes(const struct mkv_stage *s)
{
	MKV_CHECK_OBJ(s, STAGE_OPEN_MAGIC);
	return (s->lay.chunk_bytes);
}

void *
mkv_stage_data(const struct mkv_stage *s, uint64_t off, uint64_t bytes)
{
	MKV_CHECK_OBJ(s, STAGE_OPEN_MAGIC);
	if (off < s->lay.data_off || off - s->lay.data_off > s->lay.data_bytes ||
	    bytes > s->lay.data_bytes - (off - s->lay.data_off))
		return (NULL);
	return (s->base + off);
}

void *
mkv_stage_slot(const struct mkv_stage *s, uint32_t slot_idx)
{
	MKV_CHECK_OBJ(s, STAGE_OPEN_MAGIC);
	if (slot_idx >= s->lay.slots)
		return (NULL);
	return (s->base + s->lay.slots_off + (uint64_t)slot_idx * MKV_STAGE_SLOT_BYTES);
}

uint32_t
mkv_stage_slot_count(const struct mkv_stage *s)
{
	MKV_CHECK_OBJ(s, STAGE_OPEN_MAGIC);
	return (s->lay.slots);
}

void
mkv_stage_stat(const struct mkv_stage *s, struct mkv_stage_stat *st)
{
	MKV_CHECK_OBJ(s, STAGE_OPEN_MAGIC);
	MKV_ASSERT(s->is_front);
	*st = (struct mkv_stage_stat){
		.total_bytes = s->lay.data_bytes,
		.free_bytes = (uint64_t)s->units_by_owner[MKV_OWNER_FREE] * MKV_STAGE_UNIT,
		.front_bytes = ((uint64_t)s->units_by_owner[MKV_OWNER_FRONT] + s->units_by_owner[MKV_OWNER_NIC]) * MKV_STAGE_UNIT,
		.drive_bytes = (uint64_t)s->units_by_owner[MKV_OWNER_DRIVE] * MKV_STAGE_UNIT,
		.quarantined_bytes = (uint64_t)s->units_by_owner[MKV_OWNER_QUARANTINE] * MKV_STAGE_UNIT,
		.slots_total = s->lay.slots,
		.slots_free = s->slots_free,
		.slots_quarantined = s->slots_by_owner[MKV_OWNER_QUARANTINE],
		.words_bad = s->words_bad,
	};
}
