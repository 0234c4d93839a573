/*
 * The data directory: identity is kept, a damaged state file is refused and left alone, one server at a time, what is written is what is read.
 */
#include "config.h"
#include "supervisor/state_priv.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "common/base/crc.h"
#include "common/base/err.h"

static char dir[128], why[512];
static struct state st;

static void
path_of(char dst[192], const char *name)
{
	snprintf(dst, 192, "%s/%s", dir, name);
}

static int
fresh(void **state)
{
	(void)state;
	snprintf(dir, sizeof(dir), "/tmp/state_test.%d/deep/er", (int)getpid());
	why[0] = '\0';
	return (0);
}

static int
clean(void **state)
{
	static const char *const files[] = { "server.state", "server.state.new", "server.lock" };
	char p[192];

	(void)state;
	state_close(&st, 1);
	for (size_t i = 0; i < 3; i++) {
		path_of(p, files[i]);
		(void)unlink(p);
	}
	for (int i = 0; i < 3; i++) {
		(void)rmdir(dir);
		*strrchr(dir, '/') = '\0';
	}
	return (0);
}

static void
open_it(void)
{
	if (state_open(&st, dir, why, sizeof(why)) != 0)
		fail_msg("%s", why);
}

static void
identity_is_kept(void **state)
{
	struct state_drive *d;
	struct state first;
	struct stat sb;
	char p[192];

	(void)state;
	open_it();
	d = state_drive(&st, "/with blanks/and = signs");
	memset(d->row.uuid, 0xab, sizeof(d->row.uuid));
	d->row.known = 1;
	d->row.weight = 1.0 / 3;
	d->row.former = 2.5;
	d->row.state = MKV_DRIVE_DRAINING;
	d->row.since = 5;
	d->added = 1;
	d->max_size = 1ull << 40;
	d->factor = 0.5;
	assert_ptr_equal(state_drive(&st, "/with blanks/and = signs"), d);
	assert_non_null(state_drive(&st, "/other"));
	st.epoch = 41;
	st.epoch_saved = 100;
	st.map_version = 7;
	state_take_map(&st);
	st.map_version = 8;		/* decided, and not taken yet */
	d->row.state = MKV_DRIVE_FAILED;
	assert_int_equal(state_save(&st, why, sizeof(why)), 0);
	first = st;
	state_close(&st, 1);
	open_it();
	assert_memory_equal(st.server_id, first.server_id, sizeof(st.server_id));
	assert_memory_equal(st.store_secret, first.store_secret, sizeof(st.store_secret));
	assert_int_equal(st.epoch, 100);	/* what might have been used */
	assert_int_equal(st.map_version, 7);
	assert_int_equal(st.drive_count, 2);
	assert_string_equal(st.drive[0].media, "/with blanks/and = signs");
	assert_memory_equal(&st.drive[0].row, &first.drive[0].saved, sizeof(st.drive[0].row));
	assert_int_equal(st.drive[0].row.state, MKV_DRIVE_DRAINING);
	assert_int_equal(st.drive[0].added, 1);
	assert_int_equal(st.drive[0].max_size, 1ull << 40);
	assert_true(st.drive[0].factor == 0.5);
	assert_false(st.drive[1].row.known);
	path_of(p, "server.state");
	assert_int_equal(stat(p, &sb), 0);
	assert_int_equal(sb.st_mode & 0777, 0600);
	assert_int_equal(stat(dir, &sb), 0);
	assert_int_equal(sb.st_mode & 0777, 0700);
}

static void
closing_forgets_the_secret(void **state)
{
	static const uint8_t zero[32];

	(void)state;
	open_it();
	assert_memory_not_equal(st.store_secret, zero, sizeof(zero));
	state_close(&st, 1);
	assert_memory_equal(st.store_secret, zero, sizeof(zero));
}

static void
one_at_a_time(void **state)
{
	struct state second;
	char pid[32];

	(void)state;
	open_it();
	assert_int_equal(state_open(&second, dir, why, sizeof(why)), MKV_E_LOCKED);
	snprintf(pid, sizeof(pid), "(pid %d)", (int)getpid());
	assert_non_null(strstr(why, pid));
	state_close(&st, 1);
	assert_int_equal(state_open(&second, dir, why, sizeof(why)), 0);
	state_close(&second, 1);
}

static void
an_unclean_end_shows(void **state)
{
	(void)state;
	open_it();
	assert_false(st.unclean);
	state_close(&st, 0);
	open_it();
	assert_true(st.unclean);
	state_close(&st, 1);
	open_it();
	assert_false(st.unclean);
}

static void
write_file(const char *bytes, size_t n)
{
	char p[192];
	FILE *f;

	path_of(p, "server.state");
	f = fopen(p, "w");
	assert_non_null(f);
	assert_int_equal(fwrite(bytes, 1, n, f), n);
	assert_int_equal(fclose(f), 0);
}

/* Any flipped byte, any shorter file: refused with what to do, and the file stays as it is. */
static void
damage_is_refused(void **state)
{
	char text[4096], p[192], now[4096];
	size_t n;
	FILE *f;

	(void)state;
	open_it();
	(void)state_drive(&st, "/a");
	assert_int_equal(state_save(&st, why, sizeof(why)), 0);
	state_close(&st, 1);
	path_of(p, "server.state");
	f = fopen(p, "r");
	n = fread(text, 1, sizeof(text), f);
	fclose(f);
	for (size_t i = 0; i < n - 1; i++) {		/* the last newline may be missing */
		text[i] ^= 1;
		write_file(text, n);
		assert_int_equal(state_open(&st, dir, why, sizeof(why)), MKV_E_CORRUPT);
		assert_non_null(strstr(why, "damaged"));
		text[i] ^= 1;
	}
	for (size_t i = 0; i < n - 1; i++) {
		write_file(text, i);
		assert_int_equal(state_open(&st, dir, why, sizeof(why)), MKV_E_CORRUPT);
	}
	write_file(text, n);
	open_it();
	state_close(&st, 1);
	f = fopen(p, "r");
	assert_int_equal(fread(now, 1, sizeof(now), f), n);
	fclose(f);
	assert_memory_equal(now, text, n);
}

static void
too_many_drives(void **state)
{
	char media[32];

	(void)state;
	open_it();
	for (unsigned i = 0; i < STATE_DRIVES_MAX; i++) {
		snprintf(media, sizeof(media), "/d%u", i);
		assert_non_null(state_drive(&st, media));
	}
	assert_null(state_drive(&st, "/one more"));
	st.drive[4].row = st.drive[4].saved = (struct mkv_map_row){ .state = MKV_DRIVE_REMOVED, .known = 1 };
	assert_null(state_drive(&st, "/one more"));
	/* Removed before anybody opened it: its row is free, and its versions do not go back. */
	st.drive[7].row = (struct mkv_map_row){ .state = MKV_DRIVE_REMOVED, .since = 9 };
	assert_ptr_equal(state_drive(&st, "/one more"), &st.drive[7]);
	assert_int_equal(st.drive[7].row.since, 9);
	assert_int_not_equal(st.drive[7].row.state, MKV_DRIVE_REMOVED);
	assert_ptr_equal(state_drive(&st, "/one more"), &st.drive[7]);
	assert_null(state_drive(&st, "/and another"));
	assert_int_equal(state_save(&st, why, sizeof(why)), 0);
	state_close(&st, 1);
	open_it();
	assert_int_equal(st.drive_count, STATE_DRIVES_MAX);
}

static void
a_place_that_cannot_be(void **state)
{
	(void)state;
	assert_int_equal(state_open(&st, "/proc/nothing/here", why, sizeof(why)), MKV_E_SYSTEM);
	assert_non_null(strstr(why, "server.data_dir"));
	open_it();				/* for clean() */
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(identity_is_kept, fresh, clean),
		cmocka_unit_test_setup_teardown(closing_forgets_the_secret, fresh, clean),
		cmocka_unit_test_setup_teardown(one_at_a_time, fresh, clean),
		cmocka_unit_test_setup_teardown(an_unclean_end_shows, fresh, clean),
		cmocka_unit_test_setup_teardown(damage_is_refused, fresh, clean),
		cmocka_unit_test_setup_teardown(too_many_drives, fresh, clean),
		cmocka_unit_test_setup_teardown(a_place_that_cannot_be, fresh, clean),
	};

	mkv_crc_init();
	return (cmocka_run_group_tests(tests, NULL, NULL));
}
