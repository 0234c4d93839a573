/*
 * CRC32C (Castagnoli), one value per 64 KiB chunk of an object. ISA-L, a hardware loop, or a slicing table: chosen by
 * mkv_crc_init()'s short measurement (CPU flags alone mislead under emulation). Any thread after init; init is idempotent.
 */
#ifndef MKV_BASE_CRC_H
#define MKV_BASE_CRC_H

#include <stddef.h>
#include <stdint.h>

#define MKV_CRC_CHUNK	65536u

void		mkv_crc_init(void);
const char *	mkv_crc_impl(void);		/* "isal" | "hw" | "table" */

/* Continue a CRC: start with 0. Same convention as RFC 3720 (final xor included), so crc of "123456789" is 0xe3069283. */
uint32_t	mkv_crc32c(uint32_t crc, const void *buf, size_t len);

static inline uint32_t
mkv_crc_chunks(uint64_t bytes)			/* how many CRCs an object of so many bytes has */
{
	return ((uint32_t)((bytes + MKV_CRC_CHUNK - 1) / MKV_CRC_CHUNK));
}

/* CRCs of all chunks of buf into out[mkv_crc_chunks(len)]. */
void		mkv_crc_chunk_list(const void *buf, size_t len, uint32_t *out);

#endif
