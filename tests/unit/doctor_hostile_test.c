/*
 * memkv doctor reads files that are no such files: empty, huge, of any bytes, a directory, a pipe, a link to itself. It waits for none of them, and what
 * it says is text.
 */
#include "config.h"
#include "tests/unit/doctor_up.h"

#include <ftw.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#define FILES_MAX	256u
#define HUGE_BYTES	(6u << 20)

static char	files[FILES_MAX][512];		/* of the good machine */
static unsigned	n_files;

static int
files_add(const char *path, const struct stat *st, int flag, struct FTW *at)
{
	(void)st;
	(void)at;
	if (flag == FTW_F && n_files < FILES_MAX)
		snprintf(files[n_files++], sizeof(files[0]), "%s", path + strlen(up_root));
	return (0);
}

/* All that is said is text of lines, and objects that can be read. */
static void
said_well(void)
{
	char *text = NULL, *line, *next;
	size_t bytes = 0;
	FILE *f = open_memstream(&text, &bytes);
	json_t *j;

	assert_non_null(f);
	doctor_print(&up, f, 1);
	assert_int_equal(fclose(f), 0);
	for (size_t i = 0; i < bytes; i++)
		if (text[i] != '\n')
			assert_in_range((unsigned char)text[i], ' ', '~');
	free(text);
	f = open_memstream(&text, &bytes);
	assert_non_null(f);
	doctor_print_json(&up, f, 1);
	assert_int_equal(fclose(f), 0);
	next = text;
	for (unsigned i = 0; (line = strsep(&next, "\n")) != NULL && *line != '\0'; i++) {
		j = json_loads(line, 0, NULL);
		assert_true(json_is_object(j));
		assert_true(i == up.n_found || json_string_value(json_object_get(j, "level")) != NULL);
		json_decref(j);
	}
	free(text);
}

static void
hostile_run(void)
{
	up_run(DOCTOR_SERVER | DOCTOR_CLIENT);
	said_well();
	doctor_fini(&up);
}

/* Everything that can stand in the place of this file. */
static void
hostile_kinds(const char *name, char *much, size_t huge)
{
	static const char *const words[] = { "-1\n", "99999999999999999999999\n", "\n", "4:\n", "0x\n", "../../../../etc/passwd\n", "fe80::1\n", "%s%n%d\n", "/dev/nvme0n1 /mnt\033[31m xfs rw 0 0\n",
		"\033[31m\a\x7f\xff\xfe\r\t\xc3\x28 4: \xe2\x82\n" };
	char path[512];

	memset(much, 'A', huge);
	up_put_bytes(name, much, huge);
	hostile_run();
	for (size_t k = 0; k < 65536; k++)
		much[k] = (char)(k * 2654435761u >> 7);
	up_put_bytes(name, much, 65536);
	hostile_run();
	up_put(name, "");
	hostile_run();
	for (size_t k = 0; k < MKV_ARRAY_LEN(words); k++) {
		up_put(name, words[k]);
		hostile_run();
	}
	up_drop(name);
	hostile_run();
	up_path(path, name);
	assert_int_equal(mkdir(path, 0755), 0);
	hostile_run();
	assert_int_equal(rmdir(path), 0);
	assert_int_equal(mkfifo(path, 0600), 0);		/* nobody writes: a reader must not wait */
	hostile_run();
	up_drop(name);
	assert_int_equal(symlink(strrchr(path, '/') + 1, path), 0);	/* a ring */
	hostile_run();
	up_drop(name);
}

static void
hostile_files_crash_nothing(void **state)
{
	char *much = malloc(HUGE_BYTES), was[4096], path[512];
	size_t bytes;
	FILE *f;

	(void)state;
	assert_non_null(much);
	n_files = 0;
	assert_int_equal(nftw(up_root, files_add, 16, FTW_PHYS), 0);
	assert_in_range(n_files, 60, FILES_MAX - 1);
	for (unsigned i = 0; i < n_files; i++) {
		up_path(path, files[i]);
		f = fopen(path, "r");
		assert_non_null(f);
		bytes = fread(was, 1, sizeof(was), f);
		fclose(f);
		hostile_kinds(files[i], much, i % 8 == 0 ? HUGE_BYTES : 65536);
		up_put_bytes(files[i], was, bytes);
	}
	free(much);
}

/* All of it at once. */
static void
a_machine_of_nothing_is_survived(void **state)
{
	(void)state;
	up_drop("");
	hostile_run();
	json_object_clear(up_fake.answer);
	hostile_run();
	assert_int_equal(mkdir(up_root, 0755), 0);
}

static void
strange_answers_are_survived(void **state)
{
	static const char *const strange[] = {
		"[]", "{}", "{\"errors\":7,\"keys\":[],\"drives\":{\"a\":1},\"data\":3,\"admin\":null}", "{\"errors\":[1,null,{}],\"strays\":[1,{}]}",
		"{\"keys\":{\"storage.mode\":7,\"nonsense\":\"x\",\"rdma.devices\":\"../../etc,,a/b\"},\"drives\":[1,{},{\"media\":\"\"},{\"media\":\"/\"}]}",
		"{\"data\":{\"host\":\"h\",\"port\":-1},\"fronts\":-5,\"staging_bytes\":9223372036854775807,\"memory_bytes\":-1,\"file\":\"\\u00e9\"}",
	};

	(void)state;
	for (size_t i = 0; i < MKV_ARRAY_LEN(strange); i++) {
		json_decref(up_fake.answer);
		up_fake.answer = json_loads(strange[i], 0, NULL);
		assert_non_null(up_fake.answer);
		up_run(DOCTOR_SERVER | DOCTOR_CLIENT);
		doctor_fini(&up);
	}
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(hostile_files_crash_nothing, doctor_up, doctor_down),
		cmocka_unit_test_setup_teardown(a_machine_of_nothing_is_survived, doctor_up, doctor_down),
		cmocka_unit_test_setup_teardown(strange_answers_are_survived, doctor_up, doctor_down),
	};

	return (cmocka_run_group_tests(tests, NULL, NULL));
}
