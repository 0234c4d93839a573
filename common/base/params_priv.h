/*
 * Between params.c (the table, keys, names) and params_value.c (texts of values).
 */
#ifndef MKV_BASE_PARAMS_PRIV_H
#define MKV_BASE_PARAMS_PRIV_H

#include "common/base/params.h"

/* value -> *field of row's type; 0 or MKV_E_INVAL, then *field is unchanged. */
int	params_parse(const struct mkv_param_row *row, const char *value, void *field);
int	params_parse_weight(const char *s, double *weight);
/* *field -> the text that params_parse() takes; 0 or MKV_E_TOOBIG. Neither SECRET nor DRIVES. */
int	params_format(const struct mkv_param_row *row, const void *field, char *dst, size_t dst_bytes);
/* 1 if s is short enough for max bytes (with the terminator) and holds no control characters. */
int	params_text_ok(const char *s, size_t max_bytes);

#endif
