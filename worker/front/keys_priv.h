/*
 * List operations: what keys.c, keys_batch.c (exists, match) and keys_each.c (delete, touch) know of each other.
 */
#ifndef MKV_WORKER_FRONT_KEYS_PRIV_H
#define MKV_WORKER_FRONT_KEYS_PRIV_H

#include "worker/front/front_priv.h"

/* Take a body whose head is checked, its keys not yet. 0; MKV_E_AGAIN: not now, show it again; another error ends the request. */
typedef int	mkv_keys_fn(struct mkv_req *r, const struct mkv_hdr *h, const uint8_t *body);

int		mkv_keys_start(struct mkv_req *r, const struct mkv_hdr *h, const uint8_t *body);
enum mkv_take	mkv_keys_part(struct mkv_req *r, const struct mkv_hdr *h, const uint8_t *body, mkv_keys_fn *take);
void		mkv_keys_answer(struct mkv_req *r);
void		mkv_keys_count_miss(struct mkv_req *r, unsigned reason, uint32_t n);
enum mkv_next	mkv_keys_undo(struct mkv_req *r);

/* Where the byte of key i lies in u->res: behind the fixed part of its reply. */
static inline size_t
mkv_keys_byte_off(uint32_t i)
{
	return (i + (size_t)(i / KEYS_PER_REPLY + 1) * sizeof(struct mkv_wire_keys_reply));
}

/* The next key of a body. NULL: no whole key of 1..512 bytes. */
static inline const uint8_t *
mkv_keys_next(struct mkv_wire_in *in, size_t *bytes)
{
	const uint8_t *p = in->p;

	if (in->end - p < 2)
		return (NULL);
	*bytes = (size_t)p[0] | (size_t)p[1] << 8;
	p += 2;
	if (*bytes == 0 || *bytes > MKV_WIRE_KEY_MAX || (size_t)(in->end - p) < *bytes)
		return (NULL);
	in->p = p + *bytes;
	return (p);
}

#endif
