/*
 * Registered memory: any process that uses RDMA, any thread.
 *
 * Owns the registrations, not the memory. A range is cut into chunks of one size, a power of two, the last one shorter: at most 1 GiB, so that a limit of
 * locked memory shows itself before the machine is full, and never more than the device takes. Work requests must not cross a chunk's end;
 * mkv_rdma_mem_keys() says where it is. What can fail: the limit of locked memory, and memory that cannot be registered.
 */
#include "config.h"
#include "common/rdma/mem.h"

#include <sys/resource.h>

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/assert.h"
#include "common/base/err.h"
#include "common/rdma/dev_priv.h"

#define MEM_MAGIC	0x5b90c4e3u
#define MEM_CHUNK_MAX	(1ull << 30)
#define MEM_CHUNK_MIN	4096ull

struct mkv_rdma_mem {
	uint32_t	magic, n;		/* registrations */
	struct mkv_rdma_dev *d;
	uintptr_t	base;
	uint64_t	bytes;
	unsigned	shift;			/* of a chunk */
	struct ibv_mr	*mr[];
};

static int
mem_access(unsigned access)
{
	return (IBV_ACCESS_LOCAL_WRITE | ((access & MKV_RDMA_READABLE) != 0 ? IBV_ACCESS_REMOTE_READ : 0) |
	    ((access & MKV_RDMA_WRITABLE) != 0 ? IBV_ACCESS_REMOTE_WRITE : 0) | ((access & MKV_RDMA_ON_DEMAND) != 0 ? IBV_ACCESS_ON_DEMAND : 0) |
	    ((access & (MKV_RDMA_ON_DEMAND | MKV_RDMA_STRICT)) == 0 ? IBV_ACCESS_RELAXED_ORDERING : 0));
}

static int
mem_why_not(const struct mkv_rdma_dev *d, uint64_t bytes, int no, int is_dmabuf, char *why, size_t why_bytes)
{
	struct rlimit lim = { RLIM_INFINITY, RLIM_INFINITY };
	char limit[64] = "without a limit";

	if (no == ENOMEM || no == EAGAIN) {
		if (getrlimit(RLIMIT_MEMLOCK, &lim) == 0 && lim.rlim_cur != RLIM_INFINITY)
			snprintf(limit, sizeof(limit), "%" PRIu64 " bytes", (uint64_t)lim.rlim_cur);
		return (rdma_why(MKV_E_NOMEM, why, why_bytes, "%" PRIu64 " bytes cannot be locked for RDMA device %s: this process may lock %s "
		    "(RLIMIT_MEMLOCK: ulimit -l, or LimitMEMLOCK= of its unit)", bytes, d->name, limit));
	}
	if (no == EOPNOTSUPP || no == ENOTSUP || no == EPROTONOSUPPORT || no == ENOSYS)
		return (rdma_why(MKV_E_UNSUPPORTED, why, why_bytes, "RDMA device %s cannot register %s", d->name,
		    is_dmabuf ? "a dma-buf (memory of a GPU)" : "memory in this way"));
	if (no == EFAULT)
		return (rdma_why(MKV_E_INVAL, why, why_bytes, "memory that is not there, or a mapping of a file on a disk, cannot be registered with RDMA device %s",
		    d->name));
	return (rdma_why(MKV_E_SYSTEM, why, why_bytes, "RDMA device %s does not register %" PRIu64 " bytes: %s", d->name, bytes, strerror(no)));
}

/* One chunk. Devices without relaxed ordering may say so instead of ignoring the flag. */
static struct ibv_mr *
mem_register(struct mkv_rdma_dev *d, int fd, uint64_t off, uintptr_t base, uint64_t bytes, int access)
{
	int relaxed = access & IBV_ACCESS_RELAXED_ORDERING;
	struct ibv_mr *mr = NULL;

	do {
		if (fd >= 0)
			mr = d->v->reg_dmabuf_mr(d->pd, off, bytes, base, fd, access);
		else
			mr = d->v->reg_mr(d->pd, (void *)base, bytes, access);
		if (mr != NULL || errno != EINVAL || relaxed == 0)
			return (mr);
		access &= ~relaxed;
		relaxed = 0;
	} while (1);
}

static unsigned
mem_shift(const struct mkv_rdma_dev *d)
{
	uint64_t max = MKV_MIN((uint64_t)d->attr.max_mr_size, (uint64_t)MEM_CHUNK_MAX);

	return (max < MEM_CHUNK_MIN ? 0 : 63u - (unsigned)__builtin_clzll(max));
}

static int
mem_add(struct mkv_rdma_mem **out, struct mkv_rdma_dev *d, int fd, uint64_t off, void *base, uint64_t bytes, unsigned access, char *why, size_t why_bytes)
{
	unsigned shift = mem_shift(d);
	struct mkv_rdma_mem *m;
	uint64_t at, n, left;
	int e = 0;

	*out = NULL;
	if (bytes == 0 || bytes > UINT64_MAX - (uintptr_t)base)
		return (rdma_why(MKV_E_INVAL, why, why_bytes, "a range of no bytes, or past the end of memory, cannot be registered"));
	if (shift == 0)
		return (rdma_why(MKV_E_UNSUPPORTED, why, why_bytes, "RDMA device %s registers no memory", d->name));
	if ((access & MKV_RDMA_ON_DEMAND) != 0 && !d->odp)
		return (rdma_why(MKV_E_UNSUPPORTED, why, why_bytes, "RDMA device %s cannot page memory in on demand", d->name));
	n = ((bytes - 1) >> shift) + 1;
	if (n > UINT32_MAX || (m = calloc(1, sizeof(*m) + (size_t)n * sizeof(m->mr[0]))) == NULL)
		return (rdma_why(MKV_E_NOMEM, why, why_bytes, "out of memory"));
	m->magic = MEM_MAGIC;
	m->d = d;
	m->base = (uintptr_t)base;
	m->bytes = bytes;
	m->shift = shift;
	while (m->n < n && e == 0) {
		at = (uint64_t)m->n << shift;
		left = MKV_MIN(bytes - at, (uint64_t)1 << shift);
		if ((m->mr[m->n] = mem_register(d, fd, off + at, m->base + at, left, mem_access(access))) != NULL)
			m->n++;
		else
			e = mem_why_not(d, bytes, errno, fd >= 0, why, why_bytes);
	}
	if (e == 0)
		TAKE(*out, m);
	mkv_rdma_mem_drop(&m);
	return (e);
}

int
mkv_rdma_mem_add(struct mkv_rdma_mem **out, struct mkv_rdma_dev *d, void *base, uint64_t bytes, unsigned access, char *why, size_t why_bytes)
{
	return (mem_add(out, d, -1, 0, base, bytes, access, why, why_bytes));
}

int
mkv_rdma_mem_add_dmabuf(struct mkv_rdma_mem **out, struct mkv_rdma_dev *d, int fd, uint64_t off, void *base, uint64_t bytes, unsigned access, char *why,
    size_t why_bytes)
{
	MKV_ASSERT(fd >= 0);
	return (mem_add(out, d, fd, off, base, bytes, access, why, why_bytes));
}

void
mkv_rdma_mem_drop(struct mkv_rdma_mem **mp)
{
	struct mkv_rdma_mem *m = *mp;

	if (m == NULL)
		return;
	MKV_CHECK_OBJ(m, MEM_MAGIC);
	*mp = NULL;
	for (uint32_t i = 0; i < m->n; i++) {
		int r = m->d->v->dereg_mr(m->mr[i]);

		MKV_ASSERT(r != EBUSY);		/* else: the device is gone, and its access with it */
	}
	m->magic = 0;
	free(m);
}

uint64_t
mkv_rdma_mem_keys(const struct mkv_rdma_mem *m, const void *p, uint32_t *lkey, uint32_t *rkey)
{
	uintptr_t a = (uintptr_t)p;
	uint64_t at, end;

	MKV_CHECK_OBJ(m, MEM_MAGIC);
	if (a < m->base || a - m->base >= m->bytes)
		return (0);
	at = a - m->base;
	*lkey = m->mr[at >> m->shift]->lkey;
	*rkey = m->mr[at >> m->shift]->rkey;
	end = MKV_MIN(((at >> m->shift) + 1) << m->shift, m->bytes);
	return (end - at);
}
