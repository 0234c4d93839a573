/*
 * The failure registry as bytes: rows from blocks and blocks from rows. No I/O; any thread; owns nothing. The engine's part is fail.c.
 */
#include "config.h"

#include "worker/drive/failreg.h"

#include <string.h>

#include "common/base/assert.h"

#define FAIL_SERIAL_MAX	(1ull << 62)		/* numbers that rise from 1 never come so far */

static const struct {
	const char	*label, *text;
} fail_rows[MKV_FAIL_COUNT] = {
#define MKV_FAILURE(name, number, label, text)	[number] = { label, text },
#include "common/tbl/failures.def"
#undef MKV_FAILURE
};

const char *
mkv_fail_label(unsigned what)
{
	return (what < MKV_FAIL_COUNT && fail_rows[what].label != NULL ? fail_rows[what].label : "unknown");
}

const char *
mkv_fail_text(unsigned what)
{
	return (what < MKV_FAIL_COUNT && fail_rows[what].text != NULL ? fail_rows[what].text : "a kind this program does not know");
}

static int
fail_is_zero(const void *block)
{
	static const uint8_t zero[MKV_BLOCK];

	return (memcmp(block, zero, MKV_BLOCK) == 0);
}

void
mkv_fail_parse(const void *blocks, uint64_t tag, struct mkv_fail_row *rows, struct mkv_fail_sum *sum)
{
	const struct mkv_fail_block *b = blocks;

	memset(rows, 0, MKV_FAIL_ROWS * sizeof(*rows));
	memset(sum, 0, sizeof(*sum));
	for (uint32_t k = 0; k < MKV_FAILREG_BLOCKS; k++, b++) {
		if (fail_is_zero(b) || (b->magic == MKV_FAIL_MAGIC && b->tag != tag))
			continue;
		if (b->magic != MKV_FAIL_MAGIC || b->block_no != k || !mkv_block_good(b, offsetof(struct mkv_fail_block, crc))) {
			sum->damaged++;
			continue;
		}
		for (uint32_t i = 0; i < MKV_FAIL_PER_BLOCK; i++) {
			const struct mkv_fail_row *r = &b->row[i];

			if (r->serial == 0 || r->serial > FAIL_SERIAL_MAX || r->serial % MKV_FAIL_ROWS != k * MKV_FAIL_PER_BLOCK + i || r->count == 0)
				continue;
			rows[k * MKV_FAIL_PER_BLOCK + i] = *r;
			sum->rows++;
			sum->events += r->count;
			sum->newest = MKV_MAX(sum->newest, r->serial);
		}
	}
}

void
mkv_fail_block(struct mkv_fail_block *b, uint64_t tag, const struct mkv_fail_row *rows, uint32_t block_no)
{
	memset(b, 0, sizeof(*b));
	b->magic = MKV_FAIL_MAGIC;
	b->tag = tag;
	b->block_no = block_no;
	memcpy(b->row, rows + (size_t)block_no * MKV_FAIL_PER_BLOCK, sizeof(b->row));
	mkv_block_seal(b, offsetof(struct mkv_fail_block, crc));
}

uint32_t
mkv_fail_add(struct mkv_fail_row *rows, struct mkv_fail_sum *sum, const struct mkv_fail_row *f)
{
	struct mkv_fail_row *r;

	MKV_ASSERT(f->what > 0 && f->what < MKV_FAIL_COUNT);
	sum->events += f->count;
	for (uint32_t i = 0; i < MKV_FAIL_ROWS; i++) {
		r = &rows[i];
		if (r->serial == 0 || r->what != f->what || r->off != f->off)
			continue;
		r->count += MKV_MIN(f->count, UINT32_MAX - r->count);
		r->last_ms = f->last_ms;
		r->bytes = f->bytes;
		r->err = f->err;
		r->arg = MKV_MAX(r->arg, f->arg);
		r->mount = f->mount;
		r->epoch = f->epoch;
		return (i);
	}
	sum->newest++;
	r = &rows[sum->newest % MKV_FAIL_ROWS];
	if (r->serial == 0)
		sum->rows++;
	else
		sum->events -= MKV_MIN(sum->events, r->count);
	*r = *f;
	r->serial = sum->newest;
	r->first_ms = f->last_ms;
	r->count = MKV_MAX(f->count, 1);
	r->zero = 0;
	return ((uint32_t)(sum->newest % MKV_FAIL_ROWS));
}

const struct mkv_fail_row *
mkv_fail_next(const struct mkv_fail_row *rows, const struct mkv_fail_sum *sum, uint64_t *at)
{
	if (*at == 0 && sum->newest > MKV_FAIL_ROWS)
		*at = sum->newest - MKV_FAIL_ROWS;
	while (++*at <= sum->newest) {
		const struct mkv_fail_row *r = &rows[*at % MKV_FAIL_ROWS];

		if (r->serial == *at)
			return (r);
	}
	return (NULL);
}
