/*
 * CHECK() of a program that looks at everything and says at its end how much was wrong: it goes on, and counts in `failed`, which the program has.
 * Tests only.
 */
#ifndef MKV_TESTS_CRASH_CHECK_H
#define MKV_TESTS_CRASH_CHECK_H

#include <stdio.h>

#define CHECK(cond, ...) \
	do { \
		if (!(cond)) { \
			fprintf(stderr, "%s: ", #cond); \
			fprintf(stderr, __VA_ARGS__); \
			fputc('\n', stderr); \
			failed++; \
		} \
	} while (0)

#endif
