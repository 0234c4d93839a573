/*
 * What the server takes of the machine's memory: sums, limits of machine, cgroup and huge pages, and the words of a refusal. The machine is made up.
 */
#include "config.h"
#include "supervisor/budget_priv.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "common/base/err.h"
#include "tests/lib/sysfs.h"

#define GIB	(1ull << 30)
#define MIB	(1ull << 20)

static struct mkv_params p;
static struct config_derived d;
static struct mkv_os_memory m;
static char why[1024], sys[256];

/* 24 GiB; a front with 256 MiB, a drive in a file. */
static int
fresh(void **state)
{
	(void)state;
	if (sys[0] == '\0')
		sysfs_make(sys, sizeof(sys));
	memset(&p, 0, sizeof(p));
	memset(&d, 0, sizeof(d));
	p.memory_max_size = 256 * MIB;
	p.memory_block_size = 2 * MIB;
	p.memory_slots = 1024;
	p.memory_hugepages = MKV_HUGEPAGES_AUTO;
	p.storage_mode = MKV_STORAGE_FILE;
	p.storage_page_cache = 64 * MIB;
	d.front_count = d.drive_count = 1;
	d.stage_data_bytes = p.memory_max_size;
	d.drive[0].max_size = GIB;
	m = (struct mkv_os_memory){ .total = 24 * GIB, .huge_page_bytes = 2 * MIB, .limit = UINT64_MAX };
	sysfs_pages(sys, -1, 2 * MIB, 0, 0);
	sysfs_pages(sys, -1, GIB, 0, 0);
	return (0);
}

static int
done(void **state)
{
	(void)state;
	sysfs_remove(sys);
	return (0);
}

/* Pages of 2 MiB and 1 GiB; of as many bytes the machine's memory has less. */
static void
set_aside(uint64_t small, uint64_t large)
{
	sysfs_pages(sys, -1, 2 * MIB, small, small);
	sysfs_pages(sys, -1, GIB, large, large);
	m.huge_total = small * 2 * MIB + large * GIB;
}

static int
check(void)
{
	struct budget b;

	why[0] = '\0';
	budget_fronts(&b, &p, &d);
	b.sys = sys;
	for (uint32_t i = 0; i < d.drive_count; i++)
		budget_drive(&b, &p, d.drive[i].max_size);
	if (budget_check(&b, &p, &m, why, sizeof(why)) != 0)
		return (MKV_E_CONFIG);
	budget_say_pages(&b, &p, &m, why, sizeof(why));
	return (0);
}

static void
stage(uint64_t bytes)
{
	p.memory_max_size = bytes;
	d.stage_data_bytes = bytes / d.front_count;
}

static void
refused(const char *words)
{
	assert_int_equal(check(), MKV_E_CONFIG);
	if (strstr(why, words) == NULL)
		fail_msg("\"%s\" does not hold \"%s\"", why, words);
}

static void
defaults_fit(void **state)
{
	(void)state;
	assert_int_equal(check(), 0);
	m.total = 512 * MIB;
	assert_int_equal(check(), 0);
}

static void
staging_of_all_fronts(void **state)
{
	(void)state;
	stage(100 * GIB);
	refused("key \"memory.max_size\": the server would take 100.");
	refused("of staging (memory.max_size)");
	refused("this machine has 24.0 GiB of memory");
	refused("lower it with\n    memory:\n      max_size: ");
	stage(20 * GIB);
	assert_int_equal(check(), 0);
	stage(20 * GIB);
	d.front_count = 4;
	d.stage_data_bytes = 20 * GIB;
	refused("80.");
}

/* What is proposed is taken. */
static void
what_it_proposes_fits(void **state)
{
	unsigned long long mib;

	(void)state;
	stage(100 * GIB);
	assert_int_equal(check(), MKV_E_CONFIG);
	assert_int_equal(sscanf(strstr(why, "max_size: "), "max_size: %lluMiB", &mib), 1);
	assert_true(mib > 20000);
	stage(mib * MIB);
	assert_int_equal(check(), 0);
}

static void
arenas_with_their_metadata(void **state)
{
	(void)state;
	d.drive[0].max_size = d.drive[1].max_size = 16 * GIB;
	d.drive_count = 2;
	assert_int_equal(check(), 0);		/* files */
	p.storage_mode = MKV_STORAGE_MEMORY;
	refused("key \"storage.drives\": the server would take 36.");
	refused("lower max_size in storage.drives");
	d.drive_count = 1;
	assert_int_equal(check(), 0);
	d.drive[0].max_size = 22 * GIB;		/* it alone would go in */
	refused("24.8 GiB of arenas and their metadata");
}

static void
page_caches_of_each_drive(void **state)
{
	(void)state;
	p.storage_page_cache = 4 * GIB;
	d.drive_count = 5;
	assert_int_equal(check(), 0);
	d.drive_count = 8;
	refused("key \"storage.page_cache\": the server would take 32.");
	refused("page_cache: ");
}

static void
the_cgroup_counts(void **state)
{
	(void)state;
	stage(2 * GIB);
	m.limit = 4 * GIB;
	assert_int_equal(check(), 0);
	m.limit = 2 * GIB;
	refused("its memory cgroup allows 2.0 GiB");
	m.limit = 16 * MIB;
	refused("lower memory.max_size and the others");
}

static void
huge_pages_are_a_store_of_their_own(void **state)
{
	(void)state;
	stage(20 * GIB);
	set_aside(11 * 1024, 0);
	assert_int_equal(check(), 0);		/* the segment comes from there */
	assert_string_equal(why, "20.0 GiB of staging in pages of 2 MiB");
	p.memory_hugepages = MKV_HUGEPAGES_OFF;
	refused("of it 22.0 GiB reserved as huge pages");
	p.memory_hugepages = MKV_HUGEPAGES_AUTO;
	sysfs_pages(sys, -1, 2 * MIB, 11 * 1024, 512);	/* others have them */
	refused("of it 22.0 GiB reserved as huge pages");
	p.memory_hugepages = MKV_HUGEPAGES_REQUIRE;
	set_aside(11 * 1024, 0);
	assert_int_equal(check(), 0);
	p.storage_page_cache = 4 * GIB;		/* what is no segment lives beside them */
	refused("key \"storage.page_cache\"");
}

static void
too_few_of_what_is_required(void **state)
{
	(void)state;
	p.memory_hugepages = MKV_HUGEPAGES_REQUIRE;
	set_aside(100, 0);
	refused("key \"memory.hugepages\": is require and too few huge pages are free: of 2 MiB 133 needed and 100 free; set them aside with\n"
	    "    sysctl vm.nr_hugepages=133");
	sysfs_pages(sys, -1, 2 * MIB, 100, 20);		/* 80 are another's, who keeps them */
	refused("133 needed and 20 free; set them aside with\n    sysctl vm.nr_hugepages=213");
	p.memory_hugepage_size = MKV_HUGEPAGE_1G;
	refused(": of 1 GiB 1 needed and 0 free; set them aside with\n    echo 1 >");
	refused("hugepages-1048576kB/nr_hugepages\nor, where memory is too scattered for that by now, on the kernel's command line\n    hugepagesz=1G hugepages=1");
	m.huge_page_bytes = GIB;			/* default_hugepagesz=1G */
	refused("\n    sysctl vm.nr_hugepages=1\n");
	p.memory_hugepage_size = MKV_HUGEPAGE_2M;
	refused("needed and 20 free; set them aside with\n    echo 213 >");
	p.memory_hugepage_size = MKV_HUGEPAGE_AUTO;
	stage(4 * GIB - 16 * MIB);			/* goes well into 1 GiB, so both are named; the smaller is the way out */
	refused(": of 1 GiB 4 needed and 0 free, of 2 MiB 2045 needed and 20 free; set them aside with\n    echo 2125 >");
}

/* No line that would set aside more than there is: the machine would be left with nothing. */
static void
more_is_required_than_there_is(void **state)
{
	(void)state;
	p.memory_hugepages = MKV_HUGEPAGES_REQUIRE;
	stage(1024 * GIB);
	refused("key \"memory.max_size\": the server would take");
	assert_null(strstr(why, "nr_hugepages"));
	refused("this machine has 24.0 GiB of memory, 23.0 GiB can be used: lower it with\n    memory:\n      max_size: ");
	stage(20 * GIB);
	refused("sysctl vm.nr_hugepages=");
	set_aside(11 * 1024, 0);
	assert_int_equal(check(), 0);
}

/* Fronts first, then arenas, each in the best pages that are left for it. */
static void
all_segments_share_what_there_is(void **state)
{
	(void)state;
	p.storage_mode = MKV_STORAGE_MEMORY;
	d.front_count = 2;
	stage(512 * MIB);
	d.drive_count = 2;
	d.drive[0].max_size = d.drive[1].max_size = GIB;
	set_aside(0, 2);
	assert_int_equal(check(), 0);		/* the arenas fill one each; for a front it would be too much rounding */
	assert_string_equal(why, "532.0 MiB of staging in small pages, 2.0 GiB of arenas in pages of 1 GiB; of huge pages of 2 MiB 266 needed and 0 free; "
	    "set them aside with\n    sysctl vm.nr_hugepages=266");
	set_aside(266, 1);
	assert_int_equal(check(), 0);
	assert_string_equal(why, "532.0 MiB of staging in pages of 2 MiB, 2.0 GiB of arenas in pages of several sizes; of huge pages of 1 GiB 2 needed and "
	    "1 free, of 2 MiB 778 needed and 266 free; set them aside with\n    sysctl vm.nr_hugepages=778");
	set_aside(266 + 512, 1);
	assert_int_equal(check(), 0);
	assert_string_equal(why, "532.0 MiB of staging in pages of 2 MiB, 2.0 GiB of arenas in pages of several sizes");
	p.memory_hugepages = MKV_HUGEPAGES_REQUIRE;
	assert_int_equal(check(), 0);
	set_aside(266 + 511, 1);
	refused("of 2 MiB 778 needed and 777 free");
	sysfs_write(sys, "kernel/mm/hugepages/hugepages-2048kB/nr_overcommit_hugepages", "1");
	assert_int_equal(check(), 0);		/* the kernel may make one more */
	sysfs_write(sys, "kernel/mm/hugepages/hugepages-2048kB/nr_overcommit_hugepages", "0");
}

static void
this_machine_says_what_it_has(void **state)
{
	struct mkv_os_memory here;

	(void)state;
	assert_int_equal(mkv_os_memory(&here), 0);
	assert_true(here.total > 64 * MIB && here.huge_total <= here.total && here.limit > 0);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(defaults_fit, fresh),
		cmocka_unit_test_setup(staging_of_all_fronts, fresh),
		cmocka_unit_test_setup(what_it_proposes_fits, fresh),
		cmocka_unit_test_setup(arenas_with_their_metadata, fresh),
		cmocka_unit_test_setup(page_caches_of_each_drive, fresh),
		cmocka_unit_test_setup(the_cgroup_counts, fresh),
		cmocka_unit_test_setup(huge_pages_are_a_store_of_their_own, fresh),
		cmocka_unit_test_setup(too_few_of_what_is_required, fresh),
		cmocka_unit_test_setup(more_is_required_than_there_is, fresh),
		cmocka_unit_test_setup(all_segments_share_what_there_is, fresh),
		cmocka_unit_test_setup(this_machine_says_what_it_has, fresh),
	};

	return (cmocka_run_group_tests(tests, NULL, done));
}
