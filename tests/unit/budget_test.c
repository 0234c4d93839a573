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

#define GIB	(1ull << 30)
#define MIB	(1ull << 20)

static struct mkv_params p;
static struct config_derived d;
static struct mkv_os_memory m;
static char why[1024];

/* 24 GiB; a front with 256 MiB, a drive in a file. */
static int
fresh(void **state)
{
	(void)state;
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
	m = (struct mkv_os_memory){ .total = 24 * GIB, .limit = UINT64_MAX };
	return (0);
}

static int
check(void)
{
	struct budget b;

	why[0] = '\0';
	budget_fronts(&b, &p, &d);
	for (uint32_t i = 0; i < d.drive_count; i++)
		budget_drive(&b, &p, d.drive[i].max_size);
	return (budget_check(&b, &p, &m, why, sizeof(why)));
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
	m.huge_total = m.huge_free = 22 * GIB;
	assert_int_equal(check(), 0);		/* the segment comes from there */
	p.memory_hugepages = MKV_HUGEPAGES_OFF;
	refused("of it 22.0 GiB reserved as huge pages");
	p.memory_hugepages = MKV_HUGEPAGES_AUTO;
	m.huge_free = GIB;			/* others have them */
	refused("of it 22.0 GiB reserved as huge pages");
	p.memory_hugepages = MKV_HUGEPAGES_REQUIRE;
	refused("of huge pages (memory.hugepages is require) and 1.0 GiB of them are free");
	m.huge_free = 22 * GIB;
	assert_int_equal(check(), 0);
	p.storage_page_cache = 4 * GIB;		/* what is no segment lives beside them */
	refused("key \"storage.page_cache\"");
}

static void
this_machine_says_what_it_has(void **state)
{
	struct mkv_os_memory here;

	(void)state;
	assert_int_equal(mkv_os_memory(&here), 0);
	assert_true(here.total > 64 * MIB && here.huge_free <= here.huge_total && here.huge_total <= here.total && here.limit > 0);
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
		cmocka_unit_test_setup(this_machine_says_what_it_has, fresh),
	};

	return (cmocka_run_group_tests(tests, NULL, NULL));
}
