/*
 * MACs and derivations: the vectors of RFC 4231 and RFC 5869, our own derivations against values computed by another program, and what
 * happens to keys that are no keys, bits that flip and memory that is out.
 */
#include "config.h"
#include "common/base/auth.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "common/base/assert.h"
#include "common/base/err.h"
#include "tests/lib/fail.h"

/* Hex text -> bytes; how many. */
static size_t
hex(uint8_t *dst, const char *text)
{
	unsigned v;
	size_t n;

	for (n = 0; text[2 * n] != '\0'; n++) {
		assert_int_equal(sscanf(text + 2 * n, "%2x", &v), 1);
		dst[n] = (uint8_t)v;
	}
	return (n);
}

static void
check_mac(const char *key_hex, const char *data_hex, const char *want_hex)
{
	uint8_t key[MKV_KEY_BYTES] = { 0 }, data[128], want[32], got[32];
	struct mkv_mac *m;
	size_t n;

	hex(key, key_hex);			/* HMAC pads short keys with zeroes, so ours of 32 bytes is the same key */
	n = hex(data, data_hex);
	hex(want, want_hex);
	assert_int_equal(mkv_mac_create(&m, key), 0);
	for (size_t cut = 0; cut <= n; cut++) {	/* the same context again and again, cut everywhere */
		assert_int_equal(mkv_mac_sign(m, data, cut, data + cut, n - cut, got), 0);
		assert_memory_equal(got, want, 32);
	}
	assert_int_equal(mkv_mac_sign(m, data, n, NULL, 0, got), 0);
	assert_memory_equal(got, want, 32);
	mkv_mac_destroy(&m);
	assert_null(m);
}

static void
rfc4231(void **state)
{
	(void)state;
	check_mac("0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b", "4869205468657265",
	    "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7");
	check_mac("4a656665", "7768617420646f2079612077616e7420666f72206e6f7468696e673f",
	    "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843");
	check_mac("aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
	    "dddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddd",
	    "773ea91e36800e46854db8ebd09181a72959098b3ef8c122d9635514ced565fe");
	check_mac("0102030405060708090a0b0c0d0e0f10111213141516171819",
	    "cdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcd",
	    "82558a389a443c0ea4cc819899f2083a85f0faa3e578f8077a2e3ff46729665b");
}

static void
check_hkdf(const char *ikm_hex, const char *salt_hex, const char *info_hex, const char *want_hex)
{
	uint8_t ikm[128], salt[128], info[128], want[128], got[128];
	size_t ikm_bytes = hex(ikm, ikm_hex), salt_bytes = hex(salt, salt_hex), info_bytes = hex(info, info_hex);
	size_t bytes = hex(want, want_hex);

	assert_int_equal(mkv_hkdf(ikm, ikm_bytes, salt, salt_bytes, info, info_bytes, got, bytes), 0);
	assert_memory_equal(got, want, bytes);
}

static void
rfc5869(void **state)
{
	(void)state;
	check_hkdf("0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b", "000102030405060708090a0b0c", "f0f1f2f3f4f5f6f7f8f9",
	    "3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf34007208d5b887185865");
	check_hkdf("000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f202122232425262728292a2b2c2d2e2f"
		   "303132333435363738393a3b3c3d3e3f404142434445464748494a4b4c4d4e4f",
	    "606162636465666768696a6b6c6d6e6f707172737475767778797a7b7c7d7e7f808182838485868788898a8b8c8d8e8f"
	    "909192939495969798999a9b9c9d9e9fa0a1a2a3a4a5a6a7a8a9aaabacadaeaf",
	    "b0b1b2b3b4b5b6b7b8b9babbbcbdbebfc0c1c2c3c4c5c6c7c8c9cacbcccdcecfd0d1d2d3d4d5d6d7d8d9dadbdcdddedf"
	    "e0e1e2e3e4e5e6e7e8e9eaebecedeeeff0f1f2f3f4f5f6f7f8f9fafbfcfdfeff",
	    "b11e398dc80327a1c8e7f78c596a49344f012eda2d4efad8a050cc4c19afa97c59045a99cac7827271cb41c65e590e09"
	    "da3275600c2f09b8367793a9aca3db71cc30c58179ec3e87c14c01d5c1f3434f1d87");
	check_hkdf("0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b", "", "",
	    "8da4e775a563c18f715f802a063c5a31b8a11f5c5ee1879ec3454e5f3c738d2d9d201395faa4b61a96c8");
}

static void
own_derivations(void **state)
{
	uint8_t cred[32], front[32], nonce_c[32], nonce_s[32], transcript[32], session[32], want[32];

	(void)state;
	for (unsigned i = 0; i < 32; i++) {
		cred[i] = (uint8_t)i;
		nonce_c[i] = (uint8_t)(0xc0 + i);
		nonce_s[i] = (uint8_t)(0x50 + i);
	}
	assert_int_equal(mkv_key_front(cred, 0x01020304, front), 0);
	hex(want, "a45e8434452e28efdcf9701f623549bde2b4c7f95647ab50491f6b15ba07a5ca");
	assert_memory_equal(front, want, 32);
	assert_int_equal(mkv_sha256("trans", 5, "cript", 5, transcript), 0);
	hex(want, "54e6289e14c7b0e7ad9acc2dfc4c1e3d027d0eef7f5c4c3fe7c292761d0e06a6");
	assert_memory_equal(transcript, want, 32);
	assert_int_equal(mkv_key_session(front, nonce_c, nonce_s, MKV_DIR_S2C, 0x0506, 0x01020304, transcript, session), 0);
	hex(want, "e81672834fc16e84040b529b5355674a7539c1e498331bc224d9697dece719e3");
	assert_memory_equal(session, want, 32);
	assert_int_equal(mkv_key_session(front, nonce_c, nonce_s, MKV_DIR_C2S, 0x0506, 0x01020304, transcript, session), 0);
	assert_memory_not_equal(session, want, 32);
	assert_int_equal(mkv_key_id(cred), 0x35b59ef3u);
}

static void
check_tells_wrong_ones(void **state)
{
	uint8_t key[32] = { 1 }, mac[32], text[100] = "a message";
	struct mkv_mac *m;

	(void)state;
	assert_int_equal(mkv_mac_create(&m, key), 0);
	assert_int_equal(mkv_mac_sign(m, text, 64, text + 64, 36, mac), 0);
	assert_int_equal(mkv_mac_check(m, text, 64, text + 64, 36, mac), 0);
	for (unsigned bit = 0; bit < 256; bit++) {
		mac[bit / 8] ^= (uint8_t)(1u << bit % 8);
		assert_int_equal(mkv_mac_check(m, text, 64, text + 64, 36, mac), MKV_E_AUTH);
		mac[bit / 8] ^= (uint8_t)(1u << bit % 8);
	}
	for (unsigned bit = 0; bit < 800; bit++) {
		text[bit / 8] ^= (uint8_t)(1u << bit % 8);
		assert_int_equal(mkv_mac_check(m, text, 64, text + 64, 36, mac), MKV_E_AUTH);
		text[bit / 8] ^= (uint8_t)(1u << bit % 8);
	}
	assert_int_equal(mkv_mac_check(m, text, 99, NULL, 0, mac), MKV_E_AUTH);
	assert_int_equal(mkv_mac_check(m, text, 100, NULL, 0, mac), 0);
	mkv_mac_destroy(&m);
	mkv_mac_destroy(&m);
}

static void
keys_of_text(void **state)
{
	static const char good[] = "000102030405060708090A0b0c0d0e0f101112131415161718191a1b1c1d1e1f";
	char text[80];
	uint8_t key[32], untouched[32];

	(void)state;
	assert_int_equal(mkv_key_parse(good, key), 0);
	for (unsigned i = 0; i < 32; i++)
		assert_int_equal(key[i], i);
	memcpy(untouched, key, 32);
	assert_int_equal(mkv_key_parse("", key), MKV_E_INVAL);
	assert_int_equal(mkv_key_parse(good + 1, key), MKV_E_INVAL);
	snprintf(text, sizeof(text), "%s0", good);
	assert_int_equal(mkv_key_parse(text, key), MKV_E_INVAL);
	for (unsigned i = 0; i < 64; i++) {
		memcpy(text, good, sizeof(good));
		text[i] = i % 2 ? 'g' : ' ';
		assert_int_equal(mkv_key_parse(text, key), MKV_E_INVAL);
	}
	assert_memory_equal(key, untouched, 32);
}

static void
dev_key_is_stable(void **state)
{
	uint8_t a[32] = { 0 }, b[32] = { 0 }, zero[32] = { 0 };

	(void)state;
	if (mkv_key_dev(a) != 0)
		skip();				/* a system without /etc/machine-id and without a boot id */
	assert_int_equal(mkv_key_dev(b), 0);
	assert_memory_equal(a, b, 32);
	assert_memory_not_equal(a, zero, 32);
}

/* Others on the host make the same; it does not tell them, or anybody else, what keys are made of. */
static void
host_id_is_stable(void **state)
{
	uint8_t a[16] = { 0 }, b[16] = { 0 }, zero[16] = { 0 }, key[32];

	(void)state;
	if (mkv_key_host(a) != 0)
		skip();				/* a system without a boot id */
	assert_int_equal(mkv_key_host(b), 0);
	assert_memory_equal(a, b, 16);
	assert_memory_not_equal(a, zero, 16);
	assert_int_equal(mkv_key_dev(key), 0);
	assert_memory_not_equal(a, key, 16);
	assert_memory_not_equal(a, key + 16, 16);
}

static void
random_and_wipe(void **state)
{
	uint8_t a[1000] = { 0 }, b[1000] = { 0 };

	(void)state;
	assert_int_equal(mkv_random(a, sizeof(a)), 0);
	assert_int_equal(mkv_random(b, sizeof(b)), 0);
	assert_memory_not_equal(a, b, sizeof(a));
	assert_memory_not_equal(a + 900, b + 900, 100);	/* to the end */
	mkv_wipe(a, sizeof(a));
	for (unsigned i = 0; i < sizeof(a); i++)
		assert_int_equal(a[i], 0);
}

static void
start_test_and_memory(void **state)
{
	uint8_t key[32] = { 0 };
	struct mkv_mac *m = (struct mkv_mac *)key;

	(void)state;
	assert_int_equal(mkv_auth_init(), 0);
	assert_int_equal(mkv_auth_init(), 0);
	fail_alloc(1);
	assert_int_equal(mkv_mac_create(&m, key), MKV_E_NOMEM);
	assert_int_equal(fail_alloc(0), 1);
	assert_null(m);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(rfc4231),
		cmocka_unit_test(rfc5869),
		cmocka_unit_test(own_derivations),
		cmocka_unit_test(check_tells_wrong_ones),
		cmocka_unit_test(keys_of_text),
		cmocka_unit_test(dev_key_is_stable),
		cmocka_unit_test(host_id_is_stable),
		cmocka_unit_test(random_and_wipe),
		cmocka_unit_test(start_test_and_memory),
	};

	return (cmocka_run_group_tests(tests, NULL, NULL));
}
