/*
 * In which pages a segment comes to lie: the order of the attempts, what each of them failing leads to, and what is asked of a NUMA node. The system is
 * made up: pages are what have[] says, and each call is written down.
 */
#include "config.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#define mkv_os_shm_create	fake_create
#define mkv_os_shm_create_huge	fake_create_huge
#define mkv_os_shm_prefer	fake_prefer
#include "supervisor/pages.c"

#include "tests/lib/sysfs.h"

#define MIB	(1ull << 20)
#define GIB	(1ull << 30)

static struct mkv_params p;
static char sys[256], calls[512];
static int answer_1g, answer_2m, answer_small;

static void
called(const char *text)
{
	size_t n = strlen(calls);

	snprintf(calls + n, sizeof(calls) - n, "%s;", text);
}

int
fake_create(const char *name, uint64_t bytes, int huge)
{
	char t[128];

	assert_string_equal(name, "seg");
	snprintf(t, sizeof(t), "small %llu%s", (unsigned long long)(bytes / MIB), huge ? " advised" : "");
	called(t);
	return (answer_small);
}

int
fake_create_huge(const char *name, uint64_t bytes, uint64_t page_bytes, int node)
{
	char t[128];

	assert_string_equal(name, "seg");
	snprintf(t, sizeof(t), "%s %llu@%d", page_bytes == GIB ? "1G" : "2M", (unsigned long long)(bytes / MIB), node);
	called(t);
	return (page_bytes == GIB ? answer_1g : answer_2m);
}

int
fake_prefer(int fd, uint64_t bytes, int node)
{
	char t[128];

	assert_int_equal(fd, answer_small);
	snprintf(t, sizeof(t), "prefer %llu@%d", (unsigned long long)(bytes / MIB), node);
	called(t);
	return (MKV_E_UNSUPPORTED);			/* harms nobody */
}

static int
fresh(void **state MKV_UNUSED)
{
	memset(&p, 0, sizeof(p));
	answer_1g = 11;
	answer_2m = 12;
	answer_small = 13;
	sysfs_make(sys, sizeof(sys));
	sysfs_write(sys, "kernel/mm/transparent_hugepage/shmem_enabled", "always [advise] never");
	return (0);
}

static int
gone(void **state MKV_UNUSED)
{
	sysfs_remove(sys);
	return (0);
}

static void
made(uint64_t bytes, int node, int fd, const char *what)
{
	struct pages_mem m;

	calls[0] = '\0';
	assert_int_equal(pages_create(&p, sys, "seg", bytes, node, &m), fd);
	assert_string_equal(calls, what);
	if (fd < 0)
		return;
	assert_true(m.bytes >= bytes && m.page_bytes == (fd == 11 ? GIB : fd == 12 ? 2 * MIB : 0));
	assert_true(m.page_bytes == 0 || m.bytes % m.page_bytes == 0);
	assert_int_equal(m.advised, fd == 13 && p.memory_hugepages != MKV_HUGEPAGES_OFF);
}

static void
the_best_first(void **state MKV_UNUSED)
{
	made(16 * GIB, -1, 11, "1G 16384@-1;");
	made(16 * GIB + 18 * MIB, -1, 11, "1G 17408@-1;");	/* up to 1/16 of it is rounding */
	made(15 * GIB + 18 * MIB, -1, 12, "2M 15378@-1;");
	made(2 * GIB, -1, 11, "1G 2048@-1;");
	made(266 * MIB, -1, 12, "2M 266@-1;");
	made(33 * MIB, -1, 12, "2M 34@-1;");
	answer_1g = MKV_E_NOMEM;
	made(16 * GIB, -1, 12, "1G 16384@-1;2M 16384@-1;");
	answer_2m = MKV_E_DENIED;
	made(16 * GIB, -1, 13, "1G 16384@-1;2M 16384@-1;small 16384 advised;");
	answer_small = MKV_E_NOMEM;
	made(16 * GIB, -1, MKV_E_NOMEM, "1G 16384@-1;2M 16384@-1;small 16384 advised;");
}

static void
one_size_alone(void **state MKV_UNUSED)
{
	p.memory_hugepage_size = MKV_HUGEPAGE_1G;
	made(266 * MIB, -1, 11, "1G 1024@-1;");			/* as asked for, whatever it wastes */
	answer_1g = MKV_E_NOMEM;
	made(266 * MIB, -1, 13, "1G 1024@-1;small 266 advised;");
	p.memory_hugepage_size = MKV_HUGEPAGE_2M;
	made(2 * GIB, -1, 12, "2M 2048@-1;");
}

static void
require_and_off(void **state MKV_UNUSED)
{
	p.memory_hugepages = MKV_HUGEPAGES_REQUIRE;
	made(2 * GIB, -1, 11, "1G 2048@-1;");
	answer_1g = MKV_E_UNSUPPORTED;
	made(2 * GIB, -1, 12, "1G 2048@-1;2M 2048@-1;");
	answer_2m = MKV_E_DENIED;
	made(2 * GIB, -1, MKV_E_DENIED, "1G 2048@-1;2M 2048@-1;");
	answer_2m = MKV_E_UNSUPPORTED;
	made(2 * GIB, -1, MKV_E_NOMEM, "1G 2048@-1;2M 2048@-1;");
	p.memory_hugepages = MKV_HUGEPAGES_OFF;
	made(2 * GIB, -1, 13, "small 2048;");
}

static void
on_a_node(void **state MKV_UNUSED)
{
	made(2 * GIB, 1, 11, "1G 2048@1;");
	answer_1g = answer_2m = MKV_E_DENIED;
	made(2 * GIB, 1, 13, "1G 2048@1;2M 2048@1;small 2048 advised;prefer 2048@1;");
	p.memory_hugepages = MKV_HUGEPAGES_OFF;
	made(2 * GIB, 0, 13, "small 2048;prefer 2048@0;");
	answer_small = MKV_E_NOMEM;
	made(2 * GIB, 0, MKV_E_NOMEM, "small 2048;");
}

static void
in_words(void **state MKV_UNUSED)
{
	char t[64];

	assert_string_equal(pages_text(&(struct pages_mem){ GIB, GIB, 0 }, t, sizeof(t)), "pages of 1 GiB");
	assert_string_equal(pages_text(&(struct pages_mem){ GIB, 2 * MIB, 0 }, t, sizeof(t)), "pages of 2 MiB");
	assert_string_equal(pages_text(&(struct pages_mem){ GIB, 0, 0 }, t, sizeof(t)), "small pages");
	assert_string_equal(pages_text(&(struct pages_mem){ GIB, 0, 1 }, t, sizeof(t)), "small pages, huge ones where the kernel finds them");
}

/* A node has not what the machine has. The numbers and the line are that node's. */
static void
planned_on_nodes(void **state MKV_UNUSED)
{
	struct pages_seg seg[3] = { { .bytes = 20 * MIB, .node = 1 }, { .bytes = 20 * MIB, .node = -1 }, { .bytes = 20 * MIB, .node = 1 } };
	struct pages_fix fix[PAGES_FIXES_MAX];
	char words[512], want[768];

	sysfs_pages(sys, -1, 2 * MIB, 40, 30);
	sysfs_pages(sys, 1, 2 * MIB, 15, 12);
	assert_int_equal(pages_plan(&p, sys, seg, 3), 1);
	assert_true(seg[0].page_bytes == 2 * MIB && seg[1].page_bytes == 2 * MIB && seg[2].page_bytes == 0);
	pages_say(&p, sys, seg, 3, 2 * MIB, words, sizeof(words));
	snprintf(want, sizeof(want), "of 2 MiB on NUMA node 1 20 needed and 12 free; set them aside with\n"
	    "    echo 23 >%s/devices/system/node/node1/hugepages/hugepages-2048kB/nr_hugepages", sys);
	assert_string_equal(words, want);
	assert_int_equal(pages_fixes(&p, sys, seg, 3, fix), 1);
	assert_true(fix[0].node == 1 && fix[0].page_bytes == 2 * MIB && fix[0].count == 23);
	sysfs_pages(sys, 1, 2 * MIB, 25, 20);
	assert_int_equal(pages_plan(&p, sys, seg, 3), 0);
	assert_int_equal(pages_fixes(&p, sys, seg, 3, fix), 0);
	pages_say(&p, sys, seg, 3, 2 * MIB, words, sizeof(words));
	assert_string_equal(words, "");
	/* What the machine as a whole has promised is promised on every node. */
	sysfs_write(sys, "kernel/mm/hugepages/hugepages-2048kB/resv_hugepages", "5");
	assert_int_equal(pages_plan(&p, sys, seg, 3), 1);
	/* What is there already takes no more. */
	seg[0].held = 1;
	assert_int_equal(pages_plan(&p, sys, seg, 3), 0);
}

/* macOS, or a kernel without them: nothing that could be set aside is asked for. */
static void
no_such_pages(void **state MKV_UNUSED)
{
	struct pages_seg seg = { .bytes = 20 * MIB, .node = -1 };
	char words[512];

	assert_int_equal(pages_plan(&p, sys, &seg, 1), 1);
	pages_say(&p, sys, &seg, 1, 0, words, sizeof(words));
	assert_string_equal(words, "of 2 MiB 10 needed and none to be had: this system knows no such pages");
	p.memory_hugepages = MKV_HUGEPAGES_REQUIRE;
	pages_say(&p, sys, &seg, 1, 0, words, sizeof(words));
	assert_string_equal(words, "of 2 MiB 10 needed and none to be had: this system knows no such pages; set memory.hugepages to auto");
	/* A processor without pages of 1 GiB: the others are the way out. */
	sysfs_pages(sys, -1, 2 * MIB, 0, 0);
	seg.bytes = GIB;
	pages_say(&p, sys, &seg, 1, 2 * MIB, words, sizeof(words));
	assert_string_equal(words, "of 1 GiB 1 needed and none to be had: this system knows no such pages, of 2 MiB 512 needed and 0 free; set them aside with\n"
	    "    sysctl vm.nr_hugepages=512");
	p.memory_hugepages = MKV_HUGEPAGES_OFF;
	pages_say(&p, sys, &seg, 1, 2 * MIB, words, sizeof(words));
	assert_string_equal(words, "");
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(the_best_first, fresh, gone),
		cmocka_unit_test_setup_teardown(one_size_alone, fresh, gone),
		cmocka_unit_test_setup_teardown(require_and_off, fresh, gone),
		cmocka_unit_test_setup_teardown(on_a_node, fresh, gone),
		cmocka_unit_test(in_words),
		cmocka_unit_test_setup_teardown(planned_on_nodes, fresh, gone),
		cmocka_unit_test_setup_teardown(no_such_pages, fresh, gone),
	};

	return (cmocka_run_group_tests(tests, NULL, NULL));
}
