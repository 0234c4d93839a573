/*
 * CRC32C by the CPU's own instruction (SSE4.2, ARMv8 CRC). Any thread; the tables are filled once by mkv_crc_hw(), which only
 * mkv_crc_init() calls. One instruction has a latency of three cycles and a throughput of one, so three lanes run side by side and
 * are joined by a table that appends CRC_LANE_BYTES zero bytes to a CRC:
 *
 *	| lane a, 1 KiB | lane b, 1 KiB | lane c, 1 KiB |	crc = shift(shift(a) ^ b) ^ c
 */
#include "config.h"
#include "common/base/crc_priv.h"

#include <string.h>

#if defined(__x86_64__)
#include <nmmintrin.h>
#define CRC_HW_TARGET	__attribute__((target("sse4.2")))
#define CRC_HW_U8(c, v)	_mm_crc32_u8((c), (v))
#define CRC_HW_U64(c, v) ((uint32_t)_mm_crc32_u64((c), (v)))
#elif defined(__aarch64__)
#include <arm_acle.h>
#ifndef __ARM_FEATURE_CRC32
#include <sys/auxv.h>
#endif
#define CRC_HW_TARGET	__attribute__((target("+crc")))
#define CRC_HW_U8(c, v)	__crc32cb((c), (v))
#define CRC_HW_U64(c, v) __crc32cd((c), (v))
#endif

#ifdef CRC_HW_TARGET

static uint32_t crc_lane[4][256];		/* byte i of a CRC -> its part of the CRC one lane later */

static inline uint64_t
crc_hw_load(const uint8_t *p)
{
	uint64_t v;

	memcpy(&v, p, sizeof(v));
	return (v);
}

static inline uint32_t
crc_hw_skip_lane(uint32_t crc)
{
	return (crc_lane[0][crc & 255] ^ crc_lane[1][crc >> 8 & 255] ^ crc_lane[2][crc >> 16 & 255] ^ crc_lane[3][crc >> 24]);
}

CRC_HW_TARGET static uint32_t
crc_hw_run(uint32_t crc, const uint8_t *p, size_t len)
{
	uint32_t b, c;

	for (; len >= 3 * CRC_LANE_BYTES; len -= 3 * CRC_LANE_BYTES, p += 3 * CRC_LANE_BYTES) {
		b = c = 0;
		for (size_t i = 0; i < CRC_LANE_BYTES; i += 8) {
			crc = CRC_HW_U64(crc, crc_hw_load(p + i));
			b = CRC_HW_U64(b, crc_hw_load(p + CRC_LANE_BYTES + i));
			c = CRC_HW_U64(c, crc_hw_load(p + 2 * CRC_LANE_BYTES + i));
		}
		crc = crc_hw_skip_lane(crc_hw_skip_lane(crc) ^ b) ^ c;
	}
	for (; len >= 8; len -= 8, p += 8)
		crc = CRC_HW_U64(crc, crc_hw_load(p));
	while (len-- > 0)
		crc = CRC_HW_U8(crc, *p++);
	return (crc);
}

static int
crc_hw_there(void)
{
#if defined(__x86_64__)
	return (__builtin_cpu_supports("sse4.2"));
#elif defined(__ARM_FEATURE_CRC32)
	return (1);
#else
	return ((getauxval(AT_HWCAP) & HWCAP_CRC32) != 0);
#endif
}

crc_fn *
mkv_crc_hw(void)
{
	if (!crc_hw_there())
		return (NULL);
	for (unsigned byte = 0; byte < 4; byte++)
		for (uint32_t v = 0; v < 256; v++)
			crc_lane[byte][v] = mkv_crc_shift(v << (8 * byte), CRC_LANE_BYTES);
	return (crc_hw_run);
}

#else

crc_fn *
mkv_crc_hw(void)
{
	return (NULL);
}

#endif
