/*
 * Gets straight into the caller's region: into.c says how.
 */
#ifndef MKV_CLIENT_INTO_H
#define MKV_CLIENT_INTO_H

#include <sys/uio.h>

#include "proto/wire.h"

#define INTO_PIECES_MAX	MKV_WIRE_GET_SEGS_MAX

struct op;
struct mkv_region;

/* Loop. 1: this get may name its caller's memory. Then, while the op is lent and before a frame says so, begin. */
int	mkv_into_may(const struct op *o);
void	mkv_into_begin(struct op *o);
/* Loop. 1: no page of the op's memory has been replaced, so a server sees there what its caller does. Of an op with a region. */
int	mkv_into_whole(const struct op *o);
/* Loop; also of what never was. The answer has come: the server writes no more. Or it has not, and the server may be at it for a while. */
void	mkv_into_over(struct op *o);
void	mkv_into_tear(struct op *o);

struct into {				/* a caller's copy of what he may have to tear */
	struct mkv_region *region;	/* NULL: nothing */
	struct iovec	iov[INTO_PIECES_MAX];
	unsigned	n;
};

/* The caller of an op that is his, before he tries to leave it as it stands (own); after it, with what came of it. */
void	mkv_into_hold(struct into *t, const struct op *o, uint32_t own);
void	mkv_into_left(struct into *t, int left);

#endif
