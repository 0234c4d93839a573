/*
 * memkv setup, with formatting and RDMA devices that the test has made up: that drives are formatted side by side, what the configuration says, what
 * is refused before anything is touched. Real media: tests/proc/test_d_offline.py.
 */
#include "config.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#define offline_format(f)	fake_format(f)
#define probe_rdma	fake_rdma
#include "worker/drive/offline_setup.c"
#undef probe_rdma
#undef offline_format

#include <stdatomic.h>
#include <sys/mman.h>

#define DRIVES	5u
#define WAIT_MS	10000

static const char *rdma[3];
static struct {
	_Atomic unsigned begun;			/* by all children */
	unsigned	fails;			/* 1 + the one that does; 0: none */
} *shared;

int
fake_rdma(unsigned n, char *name, size_t name_bytes)
{
	if (n >= MKV_ARRAY_LEN(rdma) || rdma[n] == NULL)
		return (0);
	snprintf(name, name_bytes, "%s", rdma[n]);
	return (1);
}

/* In a child. Done when all have begun: one after the other never ends. */
int
fake_format(struct offline_format *f)
{
	unsigned me = atomic_fetch_add(&shared->begun, 1);

	for (int i = 0; atomic_load(&shared->begun) < DRIVES; i++) {
		if (i == WAIT_MS) {
			snprintf(f->why, sizeof(f->why), "%s: the others have not begun", f->path);
			return (MKV_E_TIMEOUT);
		}
		(void)usleep(1000);
	}
	f->progress(f->arg, 50);
	if (me + 1 == shared->fails) {
		snprintf(f->why, sizeof(f->why), "%s: it broke", f->path);
		return (MKV_E_IO);
	}
	f->bytes = 64u << 20;
	f->data_bytes = 60u << 20;
	memset(f->uuid, (int)me + 1, sizeof(f->uuid));
	return (0);
}

static void
many(struct setup *s, struct setup_drive *d, const struct offline *o)
{
	atomic_store(&shared->begun, 0);
	*s = (struct setup){ .o = o, .d = d, .n = DRIVES, .is_file = 1, .extent_bytes = SETUP_EXTENT, .file_bytes = 64u << 20 };
	memset(d, 0, DRIVES * sizeof(*d));
	for (unsigned i = 0; i < DRIVES; i++)
		snprintf(d[i].p.path, sizeof(d[i].p.path), "/nowhere/%u", i);
}

static void
test_side_by_side(void **state)
{
	struct offline o = { .command = "setup", .quiet = 1 };
	struct setup_drive d[DRIVES];
	struct setup s;

	(void)state;
	shared->fails = 0;
	many(&s, d, &o);
	assert_int_equal(setup_format(&s), OFFLINE_DONE);
	for (unsigned i = 0; i < DRIVES; i++) {
		assert_int_equal(d[i].done, 1);
		assert_int_equal(d[i].pct, 50);
		assert_int_equal(d[i].data_bytes, 60u << 20);
	}
	/* One that fails is one that fails. */
	shared->fails = 3;
	many(&s, d, &o);
	assert_int_equal(setup_format(&s), OFFLINE_FAILED);
	for (unsigned i = 0, failed = 0; i < DRIVES; i++) {
		failed += (unsigned)d[i].failed;
		assert_int_equal(d[i].done, !d[i].failed);
		if (d[i].failed)
			assert_non_null(strstr(d[i].why, "it broke"));
		if (i + 1 == DRIVES)
			assert_int_equal(failed, 1);
	}
}

static char *
config_of(const char *wish, int *status)
{
	struct offline o = { .command = "setup", .rdma = wish };
	struct setup_drive d = { .bytes = 64u << 20, .uuid = "u" };
	struct setup s = { .o = &o, .d = &d, .n = 1, .extent_bytes = 1u << 20, .file_bytes = 64u << 20 };

	snprintf(d.p.path, sizeof(d.p.path), "/dev/it's");
	*status = setup_check(&s);
	return (setup_config_text(&s));
}

/* --rdma is in the configuration, and only names that there are; without it all of them; none where there are none. */
static void
test_rdma(void **state)
{
	char *text;
	int status;

	(void)state;
	rdma[0] = "mlx5_0";
	rdma[1] = "mlx5_1";
	rdma[2] = "rxe0";
	text = config_of("mlx5_1,rxe0", &status);
	assert_int_equal(status, OFFLINE_DONE);
	assert_non_null(strstr(text, "rdma:\n  devices:\n    - mlx5_1\n    - rxe0\n"));
	assert_null(strstr(text, "mlx5_0"));
	assert_non_null(strstr(text, "mode: direct\n  block_size: 1MiB\n"));
	assert_non_null(strstr(text, "- media: '/dev/it''s'"));
	free(text);
	free(config_of("mlx5_1,mlx5_7", &status));
	assert_int_equal(status, OFFLINE_USAGE);
	text = config_of(NULL, &status);
	assert_int_equal(status, OFFLINE_DONE);
	assert_non_null(strstr(text, "devices:\n    - mlx5_0\n    - mlx5_1\n    - rxe0\n"));
	free(text);
	memset(rdma, 0, sizeof(rdma));
	text = config_of(NULL, &status);
	assert_null(strstr(text, "rdma"));
	free(text);
	free(config_of("mlx5_0", &status));
	assert_int_equal(status, OFFLINE_USAGE);
}

/* What a drive cannot be is known before its blocks are given up, also with --force. */
static void
test_too_small_or_coarse(void **state)
{
	static const struct { uint64_t bytes; uint32_t sector; const char *why; } row[] = {
		{ 1u << 30, 512, NULL }, { 1u << 30, 4096, NULL }, { 1u << 30, 16384, "sectors" }, { 8u << 20, 512, "too few" }, { 0, 512, "too few" },
		{ (1u << 30) + 512, 512, NULL },
	};
	struct offline o = { .command = "setup", .force = 1 };
	struct setup s = { .o = &o, .extent_bytes = SETUP_EXTENT };

	(void)state;
	for (size_t i = 0; i < MKV_ARRAY_LEN(row); i++) {
		struct setup_drive d = { .p = { .is_block = 1, .state = PROBE_FOREIGN, .bytes = row[i].bytes, .sector_bytes = row[i].sector } };

		setup_judge(&s, &d);
		setup_judge_size(&s, &d);
		assert_int_equal(d.failed, row[i].why != NULL);
		if (row[i].why != NULL)
			assert_non_null(strstr(d.why, row[i].why));
	}
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_side_by_side), cmocka_unit_test(test_rdma), cmocka_unit_test(test_too_small_or_coarse),
	};

	shared = mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (shared == MAP_FAILED)
		return (1);
	return (cmocka_run_group_tests(tests, NULL, NULL));
}
