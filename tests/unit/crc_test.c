/*
 * CRC32C: known answers, every implementation against a bitwise reference, joining of CRCs.
 */
#include "config.h"
#include "common/base/crc.c"			/* the implementations by name */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tests/lib/rnd.h"

#define BUF_BYTES	70000u

static uint8_t buf[BUF_BYTES];

/* By definition, bit for bit. */
static uint32_t
reference(uint32_t crc, const uint8_t *p, size_t len)
{
	crc = ~crc;
	while (len-- > 0) {
		crc ^= *p++;
		for (unsigned bit = 0; bit < 8; bit++)
			crc = crc >> 1 ^ (crc & 1 ? 0x82f63b78u : 0);
	}
	return (~crc);
}

static void
known_answers(void **state)
{
	uint8_t v[32];

	(void)state;
	assert_int_equal(mkv_crc32c(0, "123456789", 9), 0xe3069283u);
	assert_int_equal(mkv_crc32c(0, "", 0), 0);
	memset(v, 0, sizeof(v));			/* RFC 3720, B.4 */
	assert_int_equal(mkv_crc32c(0, v, 32), 0x8a9136aau);
	memset(v, 0xff, sizeof(v));
	assert_int_equal(mkv_crc32c(0, v, 32), 0x62a8ab43u);
	for (unsigned i = 0; i < 32; i++)
		v[i] = (uint8_t)i;
	assert_int_equal(mkv_crc32c(0, v, 32), 0x46dd794eu);
	for (unsigned i = 0; i < 32; i++)
		v[i] = (uint8_t)(31 - i);
	assert_int_equal(mkv_crc32c(0, v, 32), 0x113fdb5cu);
}

static void
check_implementation(crc_fn *run)
{
	struct rnd r;
	uint32_t init;
	size_t off, len;

	rnd_init(&r, 6);
	rnd_fill(&r, buf, sizeof(buf));
	for (unsigned i = 0; i < 400; i++) {
		off = rnd_below(&r, 64);
		len = rnd_below(&r, i < 200 ? 100 : BUF_BYTES - 64);
		init = i % 3 ? (uint32_t)rnd_u64(&r) : 0;
		assert_int_equal(~run(~init, buf + off, len), reference(init, buf + off, len));
	}
}

static void
implementations_agree(void **state)
{
	(void)state;
	mkv_crc_init();
	check_implementation(crc_run_table);
	check_implementation(crc_run_isal);
	if (mkv_crc_hw() != NULL)
		check_implementation(mkv_crc_hw());
	assert_true(strcmp(mkv_crc_impl(), "isal") == 0 || strcmp(mkv_crc_impl(), "hw") == 0 || strcmp(mkv_crc_impl(), "table") == 0);
	printf("chosen: %s\n", mkv_crc_impl());
}

static uint32_t
run_wrong(uint32_t crc, const uint8_t *p, size_t len)
{
	return (crc_run_table(crc, p, len) ^ (len > 16000));
}

static void
wrong_implementation_is_not_chosen(void **state)
{
	static uint8_t pattern[CRC_STEP] = { 1, 2, 3 };

	(void)state;
	assert_true(crc_trial(run_wrong, pattern, sizeof(pattern)) == UINT64_MAX);
	assert_true(crc_trial(crc_run_table, pattern, sizeof(pattern)) < UINT64_MAX);
}

static void
splits_and_joins(void **state)
{
	struct rnd r;
	uint32_t whole, a, b;
	size_t len, cut;

	(void)state;
	rnd_init(&r, 7);
	rnd_fill(&r, buf, sizeof(buf));
	for (unsigned i = 0; i < 300; i++) {
		len = rnd_below(&r, BUF_BYTES);
		cut = rnd_below(&r, (uint32_t)len + 1);
		whole = reference(0, buf, len);
		a = mkv_crc32c(0, buf, cut);
		b = mkv_crc32c(0, buf + cut, len - cut);
		assert_int_equal(mkv_crc32c(a, buf + cut, len - cut), whole);
		assert_int_equal(mkv_crc_shift(a, len - cut) ^ b, whole);
	}
	assert_int_equal(mkv_crc_shift(0x12345678, 0), 0x12345678);
}

/* Lengths beyond what can be computed byte by byte: appending 2^k zero bytes twice is appending 2^(k+1). */
static void
joins_of_huge_lengths(void **state)
{
	uint32_t twice, once, crc = 0xdeadbeef;

	(void)state;
	for (unsigned k = 0; k < 63; k++) {
		twice = mkv_crc_shift(mkv_crc_shift(crc, 1ull << k), 1ull << k);
		once = mkv_crc_shift(crc, 1ull << (k + 1));
		assert_int_equal(twice, once);
	}
}

static void
chunk_lists(void **state)
{
	uint32_t crc[3] = { 1, 2, 3 };

	(void)state;
	assert_int_equal(mkv_crc_chunks(0), 0);
	assert_int_equal(mkv_crc_chunks(1), 1);
	assert_int_equal(mkv_crc_chunks(65536), 1);
	assert_int_equal(mkv_crc_chunks(65537), 2);
	mkv_crc_chunk_list(buf, BUF_BYTES, crc);
	assert_int_equal(crc[0], reference(0, buf, 65536));
	assert_int_equal(crc[1], reference(0, buf + 65536, BUF_BYTES - 65536));
	assert_int_equal(crc[2], 3);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(known_answers),	/* first: the first call chooses by itself */
		cmocka_unit_test(implementations_agree),
		cmocka_unit_test(wrong_implementation_is_not_chosen),
		cmocka_unit_test(splits_and_joins),
		cmocka_unit_test(joins_of_huge_lengths),
		cmocka_unit_test(chunk_lists),
	};

	return (cmocka_run_group_tests(tests, NULL, NULL));
}
