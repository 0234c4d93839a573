/*
 * A function that must end its process: run in a child, with what it wrote on standard error.
 */
#ifndef MKV_TESTS_DEATH_H
#define MKV_TESTS_DEATH_H

#include <stddef.h>

/* Runs fn(arg) in a child. Returns the signal that ended it, 0 if it returned. said: its standard error, cut and terminated. */
int	death_signal(void (*fn)(void *arg), void *arg, char *said, size_t said_bytes);

/* 1 if fn(arg) dies by a failed MKV_ASSERT. */
int	death_by_assert(void (*fn)(void *arg), void *arg);

#endif
