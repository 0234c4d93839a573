/*
 * What the link of a descriptor tells a program after exec() about the object behind it: of links that the preload library makes, and of all others.
 *
 * One thread. Owns the descriptors that it makes, until their test ends.
 */
#include "config.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <unistd.h>

#include <cmocka.h>

#include "clients/preload/memfd.c"
#include "clients/preload/real.c"

static bool writable;
static uint64_t put_id;
static struct mkv_pl_name name;

static bool
tells(const char *link)
{
	return (mkv_pl_memfd_key(link, &name, &writable, &put_id));
}

static void
test_a_link_that_the_kernel_makes(void **state)
{
	char path[64], link[512], given[256], key[MKV_PL_MEMFD_KEY_MAX + 1];
	ssize_t n;
	int fd;

	(void)state;
	memset(key, 'k', MKV_PL_MEMFD_KEY_MAX);
	key[MKV_PL_MEMFD_KEY_MAX] = '\0';
	(void)snprintf(given, sizeof(given), MKV_PL_MEMFD_HEAD "w%016llx:%s", 0xfedcba9876543210ull, key);
	assert_true((fd = mkv_pl_memfd(given)) >= 0);
	(void)snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	assert_true((n = readlink(path, link, sizeof(link) - 1)) > 0);
	link[n] = '\0';
	assert_true(tells(link));
	assert_true(writable);
	assert_true(put_id == 0xfedcba9876543210ull);
	assert_string_equal(name.key, key);
	assert_int_equal(name.key_bytes, MKV_PL_MEMFD_KEY_MAX);
	assert_int_equal(close(fd), 0);
}

static void
test_links_by_hand(void **state)
{
	(void)state;
	assert_true(tells("/memfd:memkv:r0000000000000001:a/b (deleted) c (deleted)"));
	assert_false(writable);
	assert_true(put_id == 1);
	assert_string_equal(name.key, "a/b (deleted) c");
	assert_false(tells("/memfd:memkv:r0000000000000001: (deleted)"));
	assert_false(tells("/memfd:memkv:r0000000000000001:a"));
	assert_false(tells("/memfd:memkv:r000000000000001:ab (deleted)"));
	assert_false(tells("/memfd:memkv:r00000000000000011:a (deleted)"));
	assert_false(tells("/memfd:memkv:r00000000000000x1:a (deleted)"));
	assert_false(tells("/memfd:memkv:-0000000000000001:a (deleted)"));
	assert_false(tells("/memfd:memkv:r (deleted)"));
	assert_false(tells("/memfd:memkv: (deleted)"));
	assert_false(tells("/memfd:memkv (deleted)"));
	assert_false(tells("/memfd:other:r0000000000000001:a (deleted)"));
	assert_false(tells("/tmp/memfd:memkv:r0000000000000001:a (deleted)"));
	assert_false(tells(" (deleted)"));
	assert_false(tells("pipe:[4711]"));
	assert_false(tells(""));
}

int
main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(test_a_link_that_the_kernel_makes), cmocka_unit_test(test_links_by_hand) };

	return (cmocka_run_group_tests(tests, NULL, NULL));
}
