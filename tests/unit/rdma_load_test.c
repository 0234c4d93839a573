/*
 * Loading the module with the verbs: from where, once, and which package a sentence names when it cannot be had. The loader of the system is ours here.
 */
#include "config.h"
#include "common/rdma/verbs.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include <dlfcn.h>
#include <unistd.h>

#include "common/base/assert.h"

static int installed;			/* the file is where it was installed */
static const char *error_text;		/* what dlopen() says; NULL: it works */
static const struct mkv_verbs *table;	/* what dlsym() finds */
static unsigned opened;
static char opened_path[256];

static int
our_access(const char *path, int mode)
{
	assert_int_equal(mode, F_OK);
	assert_string_equal(path, "/somewhere/lib/libmemkv-rdma.so.0");
	return (installed ? 0 : -1);
}

static void *
our_dlopen(const char *path, int flags)
{
	opened++;
	assert_int_equal(flags, RTLD_NOW | RTLD_LOCAL);
	snprintf(opened_path, sizeof(opened_path), "%s", path);
	return (error_text == NULL ? &opened : NULL);
}

static void *
our_dlsym(void *h, const char *name)
{
	assert_ptr_equal(h, &opened);
	assert_string_equal(name, "mkv_verbs_module");
	return ((void *)(uintptr_t)table);
}

static char *
our_dlerror(void)
{
	return ((char *)(uintptr_t)error_text);
}

#undef MKV_LIBDIR
#define MKV_LIBDIR	"/somewhere/lib"
#define access		our_access
#define dlopen		our_dlopen
#define dlsym		our_dlsym
#define dlerror		our_dlerror
#include "common/rdma/verbs_load.c"

static void
every_reason_has_its_package(void **state)
{
	static const struct {
		const char *said, *word;
	} row[] = {
		{ "libibverbs.so.1: cannot open shared object file: No such file or directory", "libibverbs1" },
		{ "libmlx5.so.1: cannot open shared object file: No such file or directory", "RDMA needs libmlx5" },
		{ "/lib/libibverbs.so.1: version `IBVERBS_1.12' not found (required by libmemkv-rdma.so.0)", "libibverbs1" },
		{ "libmemkv-rdma.so.0: cannot open shared object file: No such file or directory", "is not installed" },
		{ "libmemkv-rdma.so.0: file too short", "cannot be loaded: libmemkv-rdma.so.0: file too short" },
	};
	char why[256];

	(void)state;
	for (unsigned i = 0; i < MKV_ARRAY_LEN(row); i++) {
		error_text = row[i].said;
		assert_null(mkv_verbs_load(why, sizeof(why)));
		if (strstr(why, row[i].word) == NULL)
			fail_msg("'%s' lacks '%s'", why, row[i].word);
	}
}

static void
other_versions_are_refused(void **state)
{
	static const struct mkv_verbs old = { .abi = MKV_VERBS_ABI + 1 };
	char why[256];

	(void)state;
	error_text = NULL;
	table = NULL;
	assert_null(mkv_verbs_load(why, sizeof(why)));
	assert_non_null(strstr(why, "another version"));
	table = &old;
	assert_null(mkv_verbs_load(why, sizeof(why)));
	assert_non_null(strstr(why, "another version"));
}

/* The installed one if it is there, else what the system's search finds; the first that loads stays. */
static void
it_is_loaded_once(void **state)
{
	static const struct mkv_verbs good = { .abi = MKV_VERBS_ABI };
	char why[256];

	(void)state;
	error_text = "libmemkv-rdma.so.0: cannot open shared object file: No such file or directory";
	installed = 0;
	assert_null(mkv_verbs_load(why, sizeof(why)));
	assert_string_equal(opened_path, "libmemkv-rdma.so.0");
	installed = 1;
	assert_null(mkv_verbs_load(why, sizeof(why)));
	assert_string_equal(opened_path, "/somewhere/lib/libmemkv-rdma.so.0");
	error_text = NULL;
	table = &good;
	opened = 0;
	assert_ptr_equal(mkv_verbs_load(why, sizeof(why)), &good);
	assert_ptr_equal(mkv_verbs_load(why, sizeof(why)), &good);
	assert_int_equal(opened, 1);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_reason_has_its_package),
		cmocka_unit_test(other_versions_are_refused),
		cmocka_unit_test(it_is_loaded_once),
	};

	return (cmocka_run_group_tests(tests, NULL, NULL));
}
