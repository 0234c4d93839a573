/*
 * Memory that a device may touch: registrations of one range, in chunks that the device takes (max_mr_size). Any thread; a range is registered and
 * deregistered once. The memory stays the caller's and must stay mapped until mkv_rdma_mem_drop() has returned.
 */
#ifndef MKV_RDMA_MEM_H
#define MKV_RDMA_MEM_H

#include "common/rdma/dev.h"

/* What the far end may do; local access is always given. STRICT: what it writes is seen in order, as a READ behind it demands (docs/internals/rdma.md). */
enum { MKV_RDMA_LOCAL = 0, MKV_RDMA_READABLE = 1, MKV_RDMA_WRITABLE = 2, MKV_RDMA_ON_DEMAND = 4, MKV_RDMA_STRICT = 8 };

struct mkv_rdma_mem;

/* Host memory. ON_DEMAND: not pinned; MKV_E_UNSUPPORTED where the device cannot. 0; MKV_E_NOMEM: the limit of locked memory, said in why. */
int		mkv_rdma_mem_add(struct mkv_rdma_mem **out, struct mkv_rdma_dev *d, void *base, uint64_t bytes, unsigned access, char *why, size_t why_bytes);
/* Device memory behind a dma-buf descriptor (stays the caller's): [off, off + bytes) of it, addressed as base. */
int		mkv_rdma_mem_add_dmabuf(struct mkv_rdma_mem **out, struct mkv_rdma_dev *d, int fd, uint64_t off, void *base, uint64_t bytes, unsigned access,
		    char *why, size_t why_bytes);
/* When it returns nothing of the far end reaches the memory any more; queue pairs in the middle of it break. Accepts NULL. */
void		mkv_rdma_mem_drop(struct mkv_rdma_mem **m);
/* Keys for the bytes at p, and how many of them from p on have the same; 0: not in it. */
uint64_t	mkv_rdma_mem_keys(const struct mkv_rdma_mem *m, const void *p, uint32_t *lkey, uint32_t *rkey);

#endif
