/*
 * Sizes and durations as people write them, upper or lower case. Sizes: `4096`, `64KiB`, `1 MiB`, `2GiB`, `1 TiB`, also KB/MB/GB (powers of ten).
 * Durations: `500us`, `10ms`, `5s`, `2m`, `1h`, `7d`; a bare number is refused. All return 0 or MKV_E_INVAL and touch *out only on success.
 */
#ifndef MKV_BASE_UNITS_H
#define MKV_BASE_UNITS_H

#include <stddef.h>
#include <stdint.h>

int	mkv_size_parse(const char *s, uint64_t *bytes);
int	mkv_duration_parse(const char *s, uint64_t *us);
char *	mkv_size_format(char *dst, size_t dst_bytes, uint64_t bytes);		/* exact: "64KiB" if it divides, else "1002240" */
char *	mkv_size_human(char *dst, size_t dst_bytes, uint64_t bytes);		/* "1.5 GiB" */
char *	mkv_duration_format(char *dst, size_t dst_bytes, uint64_t us);

#endif
