/*
 * List operations: what keys.c, keys_batch.c (exists, match) and keys_each.c (delete, touch) know of each other.
 */
#ifndef MKV_WORKER_FRONT_KEYS_PRIV_H
#define MKV_WORKER_FRONT_KEYS_PRIV_H

#include "worker/front/front_priv.h"

/* Take a checked body. 0; MKV_E_AGAIN: not now, show it again; another error ends the request. */
typedef int	mkv_keys_fn(struct mkv_req *r, const struct mkv_hdr *h, const uint8_t *body);

int		mkv_keys_start(struct mkv_req *r, const struct mkv_hdr *h, const uint8_t *body);
enum mkv_take	mkv_keys_part(struct mkv_req *r, const struct mkv_hdr *h, const uint8_t *body, mkv_keys_fn *take);
const uint8_t *	mkv_keys_next(struct mkv_wire_in *in, size_t *bytes);	/* NULL: no whole key of 1..512 bytes */
uint8_t *	mkv_keys_byte(const struct mkv_req *r, uint32_t i);
void		mkv_keys_answer(struct mkv_req *r);
void		mkv_keys_count_miss(struct mkv_req *r, unsigned reason);
enum mkv_next	mkv_keys_undo(struct mkv_req *r);

#endif
