/*
 * Which paths are objects of the preload library, and under which key: on directories and links that the test makes.
 *
 * One thread. Owns a directory below TMPDIR, and ends in another working directory than it began.
 */
#include "config.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/stat.h>

#include <cmocka.h>

#include "clients/preload/path.c"
#include "clients/preload/real.c"

static char top[PATH_MAX], text[3][PATH_MAX];
static bool inside;

bool
mkv_pl_store_inside(void)
{
	return (inside);
}

static const char *
at(unsigned which, const char *path)
{
	assert_true(snprintf(text[which], sizeof(text[which]), "%s/%s", top, path) < (int)sizeof(text[which]));
	return (text[which]);
}

static void
is_key(int dirfd, const char *path, const char *key)
{
	struct mkv_pl_name n;

	errno = 77;
	assert_int_equal(mkv_pl_resolve(dirfd, path, &n), MKV_PL_KEY);
	assert_string_equal(n.key, key);
	assert_int_equal(n.key_bytes, strlen(key));
	assert_int_equal(errno, 77);
}

static void
is(int dirfd, const char *path, enum mkv_pl_what what)
{
	struct mkv_pl_name n;

	assert_int_equal(mkv_pl_resolve(dirfd, path, &n), what);
}

static void
make(const char *dir)
{
	assert_int_equal(mkdir(at(0, dir), 0777), 0);
}

static int
setup(void **state)
{
	const char *tmp = getenv("TMPDIR");

	(void)state;
	inside = false;
	(void)snprintf(text[0], sizeof(text[0]), "%s/preload-path-XXXXXX", tmp != NULL ? tmp : "/tmp");
	assert_non_null(mkdtemp(text[0]));
	assert_non_null(realpath(text[0], top));
	make("a");
	make("a/d");
	make("a/d/e");
	make("b");
	assert_int_equal(symlink("a", at(0, "to_a")), 0);
	assert_int_equal(symlink("../b", at(0, "a/out")), 0);
	assert_int_equal(symlink("d/e", at(0, "a/short")), 0);
	assert_int_equal(chdir("/"), 0);
	mkv_pl_path_init(at(0, "a"));
	return (0);
}

static int
teardown(void **state)
{
	char command[PATH_MAX + 16];

	(void)state;
	(void)snprintf(command, sizeof(command), "rm -rf '%s'", top);
	return (chdir("/") != 0 || system(command) != 0);
}

static void
test_below_and_beside(void **state)
{
	(void)state;
	is_key(AT_FDCWD, at(0, "a/x"), "x");
	is_key(AT_FDCWD, at(0, "a/d/e/x.npy"), "d/e/x.npy");
	is(AT_FDCWD, at(0, "a"), MKV_PL_DIR);
	is(AT_FDCWD, at(0, "a/"), MKV_PL_DIR);
	is(AT_FDCWD, at(0, "a/d"), MKV_PL_DIR);
	is(AT_FDCWD, at(0, "a/d/."), MKV_PL_DIR);
	is(AT_FDCWD, at(0, "aa/x"), MKV_PL_OUTSIDE);
	is(AT_FDCWD, at(0, "b/x"), MKV_PL_OUTSIDE);
	is(AT_FDCWD, at(0, "a/none/x"), MKV_PL_OUTSIDE);	/* ENOENT is the kernel's to say */
	is(AT_FDCWD, at(0, "a/x/"), MKV_PL_OUTSIDE);
	is(AT_FDCWD, "/etc/passwd", MKV_PL_OUTSIDE);
	is(AT_FDCWD, "", MKV_PL_OUTSIDE);
	is(AT_FDCWD, NULL, MKV_PL_OUTSIDE);
}

static void
test_crooked(void **state)
{
	(void)state;
	is_key(AT_FDCWD, at(0, "b/../a/x"), "x");
	is_key(AT_FDCWD, at(0, "a//d/./e/../x"), "d/x");
	is(AT_FDCWD, at(0, "a/../b/x"), MKV_PL_OUTSIDE);
	is(AT_FDCWD, at(0, "a/d/../.."), MKV_PL_OUTSIDE);
	is_key(AT_FDCWD, at(0, "a/..x"), "..x");
}

static void
test_links(void **state)
{
	(void)state;
	is_key(AT_FDCWD, at(0, "a/short/x"), "d/e/x");
	is_key(AT_FDCWD, at(0, "a/short/../x"), "d/x");		/* the kernel's "..", not the text's */
	is(AT_FDCWD, at(0, "a/short"), MKV_PL_DIR);
	is(AT_FDCWD, at(0, "a/out/x"), MKV_PL_OUTSIDE);
	mkv_pl_path_init(at(0, "to_a"));
	is_key(AT_FDCWD, at(0, "to_a/x"), "x");
	is_key(AT_FDCWD, at(0, "a/x"), "x");
}

static void
test_relative(void **state)
{
	int fd;

	(void)state;
	assert_int_equal(chdir(at(0, "a/d")), 0);
	is_key(AT_FDCWD, "x", "d/x");
	is_key(AT_FDCWD, "e/x", "d/e/x");
	is_key(AT_FDCWD, "../x", "x");
	is(AT_FDCWD, "../../b/x", MKV_PL_OUTSIDE);
	is(AT_FDCWD, ".", MKV_PL_DIR);
	assert_true((fd = open(at(0, "a/d/e"), O_RDONLY | O_DIRECTORY)) >= 0);
	is_key(fd, "x", "d/e/x");
	is_key(fd, at(0, "a/x"), "x");
	assert_int_equal(close(fd), 0);
	assert_int_equal(chdir(top), 0);
	is_key(AT_FDCWD, "a/x", "x");
	is(AT_FDCWD, "x", MKV_PL_OUTSIDE);
	mkv_pl_path_init("a");
	assert_int_equal(chdir("/"), 0);
	is_key(AT_FDCWD, at(0, "a/x"), "x");
}

static void
test_several_and_later(void **state)
{
	(void)state;
	assert_true(snprintf(text[0], sizeof(text[0]), "%s/a/d::%s/later/:/", top, top) < (int)sizeof(text[0]));
	mkv_pl_path_init(text[0]);
	is_key(AT_FDCWD, at(1, "a/d/x"), "x");
	is(AT_FDCWD, at(1, "a/x"), MKV_PL_OUTSIDE);
	is(AT_FDCWD, at(1, "later/x"), MKV_PL_OUTSIDE);
	make("later");
	is_key(AT_FDCWD, at(1, "later/x"), "x");
	is(AT_FDCWD, "/x", MKV_PL_OUTSIDE);			/* the root is no prefix */
	mkv_pl_path_init(NULL);
	assert_false(mkv_pl_path_any());
	is(AT_FDCWD, at(1, "later/x"), MKV_PL_OUTSIDE);
}

static void
test_long(void **state)
{
	char path[PATH_MAX], dir[NAME_MAX + 1];
	unsigned i;

	(void)state;
	memset(dir, 'k', 170);
	dir[170] = '\0';
	assert_true(snprintf(path, sizeof(path), "%s/a", top) < (int)sizeof(path));
	for (i = 0; i < 2; i++) {
		strcat(strcat(path, "/"), dir);
		assert_int_equal(mkdir(path, 0777), 0);
	}
	strcat(strcat(path, "/"), dir);				/* 3 * 170 + 2 */
	is(AT_FDCWD, path, MKV_PL_KEY);
	strcat(path, "k");
	is(AT_FDCWD, path, MKV_PL_ERROR);
	assert_int_equal(errno, ENAMETOOLONG);
}

static void
test_own_calls_pass(void **state)
{
	(void)state;
	inside = true;
	is(AT_FDCWD, at(0, "a/x"), MKV_PL_OUTSIDE);
}

static void
test_inode(void **state)
{
	(void)state;
	assert_true(mkv_pl_name_ino("", 0) != 0);
	assert_true(mkv_pl_name_ino("a", 1) != mkv_pl_name_ino("b", 1));
	assert_true(mkv_pl_name_ino("a", 1) == mkv_pl_name_ino("ab", 1));
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_below_and_beside, setup, teardown),
		cmocka_unit_test_setup_teardown(test_crooked, setup, teardown),
		cmocka_unit_test_setup_teardown(test_links, setup, teardown),
		cmocka_unit_test_setup_teardown(test_relative, setup, teardown),
		cmocka_unit_test_setup_teardown(test_several_and_later, setup, teardown),
		cmocka_unit_test_setup_teardown(test_long, setup, teardown),
		cmocka_unit_test_setup_teardown(test_own_calls_pass, setup, teardown),
		cmocka_unit_test(test_inode),
	};

	return (cmocka_run_group_tests(tests, NULL, NULL));
}
