/*
 * The entry of a fuzz target, as libFuzzer calls it; replay.c calls it otherwise. It gets foreign bytes, must not keep them, and says
 * what it finds wrong by abort().
 */
#ifndef MKV_TESTS_FUZZ_H
#define MKV_TESTS_FUZZ_H

#include <stddef.h>
#include <stdint.h>

int	LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);	/* 0 */

#endif
