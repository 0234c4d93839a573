/*
 * The bring-up program of tests/lab on the fake fabric: it runs to its end, and finds right what is right there. What it is for, it can only find on a NIC.
 */
#include "config.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

int	probe_main(int argc, char **argv);
#define main probe_main
#include "tests/lab/dc_probe.c"
#undef main

static void
it_runs_to_its_end(void **state)
{
	char *argv[] = { (char[]){ "dc_probe" }, (char[]){ "fake0" }, (char[]){ "fake1" }, NULL };

	(void)state;
	assert_int_equal(probe_main(3, argv), 0);
	assert_int_equal(fv_alive(), 0);
	/* Both ends on one device. */
	argv[2] = argv[1];
	assert_int_equal(probe_main(3, argv), 0);
	assert_int_equal(fv_alive(), 0);
}

int
main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(it_runs_to_its_end) };

	return (cmocka_run_group_tests(tests, NULL, NULL));
}
