/*
 * `memkv bench`: everything behind the word, for clients/cli.
 */
#ifndef MKV_BENCH_BENCH_H
#define MKV_BENCH_BENCH_H

#include <stdio.h>

/* argv[0] is "bench", argv[1] the operation. Returns the exit status (docs/operate/cli.md). */
int	mkv_bench_main(int argc, char **argv);
/* For help and completion. */
void	mkv_bench_help(FILE *to);
void	mkv_bench_list_ops(FILE *to);
void	mkv_bench_list_options(FILE *to, const char *op);

#endif
