/*
 * The failure registry of a drive: what failed, where, when, how often, in blocks 8 to 39 of the medium. Readable while no server runs.
 *
 *   block k of the registry = header + FAIL_ROWS rows; a row's place is serial % rows, so the registry is a ring and the oldest row leaves first
 *
 * It is advice for people: nothing the store promises depends on it. A block whose CRC or tag is wrong counts as empty; a block is written without a
 * flush of its own and never tried again. What lies on the medium is foreign bytes.
 */
#ifndef MKV_DRIVE_FAILREG_H
#define MKV_DRIVE_FAILREG_H

#include <stddef.h>
#include <stdint.h>

#include "worker/drive/layout.h"

#define MKV_FAIL_MAGIC		0x9b3fe215u
#define MKV_FAIL_PER_BLOCK	63u
#define MKV_FAIL_ROWS		(MKV_FAILREG_BLOCKS * MKV_FAIL_PER_BLOCK)

enum mkv_failure {
#define MKV_FAILURE(name, number, label, text)	MKV_FAIL_##name = (number),
#include "common/tbl/failures.def"
#undef MKV_FAILURE
	MKV_FAIL_COUNT
};

struct mkv_fail_row {
	uint64_t	serial;			/* 0: empty; rises; its place is serial % MKV_FAIL_ROWS */
	uint64_t	first_ms, last_ms;	/* wall clock */
	uint64_t	off;			/* on the medium */
	uint64_t	arg;			/* SLOW: longest time in milliseconds; RECOVERY: blocks */
	uint32_t	bytes, count;
	uint16_t	what, zero;		/* enum mkv_failure */
	int32_t		err;			/* MKV_E_* */
	uint32_t	mount, epoch;		/* of the last time */
};
_Static_assert(sizeof(struct mkv_fail_row) == 64, "pinned");

struct mkv_fail_block {
	uint32_t	magic, crc;
	uint64_t	tag;
	uint32_t	block_no, pad;
	uint64_t	zero;
	struct mkv_fail_row row[MKV_FAIL_PER_BLOCK];
	uint8_t		rest[4096 - 32 - 64 * MKV_FAIL_PER_BLOCK];
};
_Static_assert(sizeof(struct mkv_fail_block) == MKV_BLOCK && offsetof(struct mkv_fail_block, row) == 32, "pinned");

struct mkv_fail_sum {
	uint32_t	rows, damaged;		/* damaged: blocks that are neither good nor of another store nor empty */
	uint64_t	events, newest;		/* newest: largest serial */
};

/* Take the registry of a store (its tag) from its MKV_FAILREG_BLOCKS blocks. rows: MKV_FAIL_ROWS of them, in their places, empty ones zero. */
void	mkv_fail_parse(const void *blocks, uint64_t tag, struct mkv_fail_row *rows, struct mkv_fail_sum *sum);
/* The block that row `at` lies in, sealed. */
void	mkv_fail_block(struct mkv_fail_block *b, uint64_t tag, const struct mkv_fail_row *rows, uint32_t block_no);
/*
 * One more failure: the row of the same kind and place counts on, else the next row is taken, over the oldest if need be. Returns its place.
 * f: what, off, bytes, err, arg, mount, epoch, last_ms (now) and count (0: more is known of the last time, it is not another one).
 */
uint32_t mkv_fail_add(struct mkv_fail_row *rows, struct mkv_fail_sum *sum, const struct mkv_fail_row *f);
/* Rows from oldest to newest: *at starts with 0. NULL at the end. */
const struct mkv_fail_row *mkv_fail_next(const struct mkv_fail_row *rows, const struct mkv_fail_sum *sum, uint64_t *at);
const char *mkv_fail_label(unsigned what);
const char *mkv_fail_text(unsigned what);

#endif
