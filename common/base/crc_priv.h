/*
 * Between crc.c and crc_hw.c: the implementations among which mkv_crc_init() chooses. All take and give the inner form of the CRC,
 * without the xor at both ends.
 */
#ifndef MKV_BASE_CRC_PRIV_H
#define MKV_BASE_CRC_PRIV_H

#include <stddef.h>
#include <stdint.h>

#define CRC_LANE_BYTES	1024u			/* the hardware loop works on three neighbouring lanes at a time */

typedef uint32_t	crc_fn(uint32_t crc, const uint8_t *p, size_t len);

/* The CPU's CRC32C instruction; NULL if this machine has none. Fills its tables: called once, by mkv_crc_init(). */
crc_fn *	mkv_crc_hw(void);

/* x^(8 * bytes) times crc, modulo the polynomial: the CRC after so many zero bytes. */
uint32_t	mkv_crc_shift(uint32_t crc, uint64_t bytes);

#endif
