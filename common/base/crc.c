/*
 * CRC32C: which implementation, and the arithmetic to join CRCs.
 *
 * Any process, any thread. Owns the choice, made once by mkv_crc_init() (or by the first call) under pthread_once: every candidate must
 * first agree with the table on a test pattern, then the fastest over about 2 ms wins. Nothing can fail: the table always works.
 *
 * Polynomials are reflected: bit 31 of a word is the coefficient of x^0. crc(A || B) = crc(A) * x^(8 |B|) + crc(B) modulo P, because the
 * xors at both ends cancel out.
 */
#include "config.h"
#include "common/base/crc.h"

#include <pthread.h>
#include <stdatomic.h>
#include <string.h>

#include <isa-l/crc.h>

#include "common/base/assert.h"
#include "common/base/clock.h"
#include "common/base/crc_priv.h"

#define CRC_POLY	0x82f63b78u		/* Castagnoli, reflected */
#define CRC_ISAL_MAX	(1u << 30)		/* crc32_iscsi takes an int */
#define CRC_STEP	16384u
#define CRC_TRIAL_NS	(600 * MKV_NS_PER_US)	/* per candidate */
#define CRC_TRIAL_ROUNDS 16u		/* at least, however slow the machine is */

struct crc_choice {
	const char	*name;
	crc_fn		*run;
};

static uint32_t crc_first(uint32_t crc, const uint8_t *p, size_t len);

static const struct crc_choice crc_unset = { "none", crc_first };
static struct crc_choice crc_candidate[3];
static const struct crc_choice *_Atomic crc_chosen = &crc_unset;
static pthread_once_t crc_once = PTHREAD_ONCE_INIT;
static uint32_t crc_table[8][256];
static uint32_t crc_x2n[67];			/* x^(2^n) modulo P: enough for 2^64 bytes */

static uint32_t
crc_multiply(uint32_t a, uint32_t b)
{
	uint32_t product = 0;

	for (; a != 0; a <<= 1) {
		if (a & 1u << 31)
			product ^= b;
		b = b >> 1 ^ (b & 1 ? CRC_POLY : 0);
	}
	return (product);
}

uint32_t
mkv_crc_shift(uint32_t crc, uint64_t bytes)
{
	for (unsigned n = 3; bytes != 0; bytes >>= 1, n++)
		if (bytes & 1)
			crc = crc_multiply(crc_x2n[n], crc);
	return (crc);
}

static void
crc_fill_tables(void)
{
	uint32_t c;

	for (uint32_t v = 0; v < 256; v++) {
		c = v;
		for (unsigned bit = 0; bit < 8; bit++)
			c = c >> 1 ^ (c & 1 ? CRC_POLY : 0);
		crc_table[0][v] = c;
	}
	for (unsigned t = 1; t < 8; t++)
		for (unsigned v = 0; v < 256; v++)
			crc_table[t][v] = crc_table[t - 1][v] >> 8 ^ crc_table[0][crc_table[t - 1][v] & 255];
	crc_x2n[0] = 1u << 30;			/* x */
	for (unsigned n = 1; n < MKV_ARRAY_LEN(crc_x2n); n++)
		crc_x2n[n] = crc_multiply(crc_x2n[n - 1], crc_x2n[n - 1]);
}

/* Eight bytes a step, one table each. */
static uint32_t
crc_run_table(uint32_t crc, const uint8_t *p, size_t len)
{
	uint64_t v;

	for (; len >= 8; len -= 8, p += 8) {
		memcpy(&v, p, sizeof(v));
		v ^= crc;
		crc = crc_table[7][v & 255] ^ crc_table[6][v >> 8 & 255] ^ crc_table[5][v >> 16 & 255] ^
		    crc_table[4][v >> 24 & 255] ^ crc_table[3][v >> 32 & 255] ^ crc_table[2][v >> 40 & 255] ^
		    crc_table[1][v >> 48 & 255] ^ crc_table[0][v >> 56];
	}
	while (len-- > 0)
		crc = crc >> 8 ^ crc_table[0][(crc ^ *p++) & 255];
	return (crc);
}

static uint32_t
crc_run_isal(uint32_t crc, const uint8_t *p, size_t len)
{
	size_t n;

	for (; len > 0; len -= n, p += n) {
		n = MKV_MIN(len, CRC_ISAL_MAX);
		crc = crc32_iscsi((unsigned char *)(uintptr_t)p, (int)n, crc);	/* takes no const, writes nothing */
	}
	return (crc);
}

/*
 * Shortest time of one pass over the pattern; UINT64_MAX if its results are wrong. The shortest, not how many pass in a while: who loses the
 * processor during his turn must not lose the choice.
 */
static uint64_t
crc_trial(crc_fn *run, const uint8_t *pattern, size_t len)
{
	uint64_t shortest = UINT64_MAX, began, end, until;
	uint32_t sink = 0;

	for (size_t off = 0; off < 9; off++)
		if (run(~0u, pattern + off, len - 2 * off) != crc_run_table(~0u, pattern + off, len - 2 * off))
			return (UINT64_MAX);
	began = mkv_now_ns();
	until = began + CRC_TRIAL_NS;
	for (unsigned round = 0; round < CRC_TRIAL_ROUNDS || began < until; round++, began = end) {
		sink ^= run(sink, pattern, len);
		end = mkv_now_ns();
		shortest = MKV_MIN(shortest, end - began);
	}
	return (shortest + (sink == 0));	/* uses sink: the loop must stay */
}

static void
crc_choose(void)
{
	static uint8_t pattern[CRC_STEP];
	const struct crc_choice *best;
	uint64_t ns, least = UINT64_MAX;

	crc_fill_tables();
	crc_candidate[0] = (struct crc_choice){ "table", crc_run_table };
	crc_candidate[1] = (struct crc_choice){ "hw", mkv_crc_hw() };
	crc_candidate[2] = (struct crc_choice){ "isal", crc_run_isal };
	for (size_t i = 0; i < sizeof(pattern); i++)
		pattern[i] = (uint8_t)(i * 167 + (i >> 8) * 13);
	best = &crc_candidate[0];
	for (size_t i = 0; i < MKV_ARRAY_LEN(crc_candidate); i++) {
		if (crc_candidate[i].run == NULL)
			continue;
		ns = crc_trial(crc_candidate[i].run, pattern, sizeof(pattern));
		if (ns < least) {
			least = ns;
			best = &crc_candidate[i];
		}
	}
	/* Release: the tables are filled before the choice that uses them; pairs with the acquire in mkv_crc32c(). */
	atomic_store_explicit(&crc_chosen, best, memory_order_release);
}

void
mkv_crc_init(void)
{
	pthread_once(&crc_once, crc_choose);
}

static uint32_t
crc_first(uint32_t crc, const uint8_t *p, size_t len)
{
	mkv_crc_init();
	return (atomic_load_explicit(&crc_chosen, memory_order_acquire)->run(crc, p, len));
}

const char *
mkv_crc_impl(void)
{
	mkv_crc_init();
	return (atomic_load_explicit(&crc_chosen, memory_order_acquire)->name);
}

uint32_t
mkv_crc32c(uint32_t crc, const void *buf, size_t len)
{
	/* Acquire: pairs with the release in crc_choose(). */
	return (~atomic_load_explicit(&crc_chosen, memory_order_acquire)->run(~crc, buf, len));
}

void
mkv_crc_chunk_list(const void *buf, size_t len, uint32_t *out)
{
	const uint8_t *p = buf;
	size_t n;

	for (; len > 0; len -= n, p += n) {
		n = MKV_MIN(len, MKV_CRC_CHUNK);
		*out++ = mkv_crc32c(0, p, n);
	}
}
