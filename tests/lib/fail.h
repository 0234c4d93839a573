/*
 * Allocations that fail when told to. A test that wants them adds $(WRAP_ALLOC) to its _LDFLAGS; without it nothing fails.
 */
#ifndef MKV_TESTS_FAIL_H
#define MKV_TESTS_FAIL_H

/*
 * The n-th malloc, calloc or realloc of this thread from now on (1: the next one) returns NULL; later ones work again. 0: none.
 * Returns 1 if the one asked for before did fail.
 */
int	fail_alloc(unsigned n);

#endif
