/*
 * A region of a GPU's memory and an RDMA device: how the NIC gets at it.
 *
 *   dma-buf            the driver gives a descriptor of the range, the kernel's RDMA core maps it for the device
 *   nvidia-peermem     where that fails: registered like host memory, which works if that module is loaded and fails cleanly if not
 *   neither            the sentence says what each answered and what mends it; values go staged over TCP (transport `rdma`: not at all)
 *
 * Any thread; the caller has the fabric's lock of registrations. Owns nothing: the descriptor is closed when the device has the range.
 * Invariants: no range is registered of a GPU that neither keeps a NIC's writes in order nor can be flushed (docs/internals/client.md).
 */
#include "config.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "clients/lib/client_priv.h"
#include "common/rdma/mem.h"

/* The range in whole pages, as the driver wants it. 0; an error with a sentence. */
static int
add_dmabuf(struct mkv_rdma_mem **out, struct mkv_rdma_dev *d, struct mkv_region *r, unsigned access, char *why)
{
	uint64_t page = (uint64_t)sysconf(_SC_PAGESIZE), begin = (uintptr_t)r->base / page * page, end = MKV_ALIGN_UP((uintptr_t)r->base + r->bytes, page);
	int fd, e;

	if ((fd = mkv_gpu_dmabuf(r->c->gpu_lane, r->memory.device, (void *)(uintptr_t)begin, end - begin, why)) < 0)
		return (fd);
	e = mkv_rdma_mem_add_dmabuf(out, d, fd, (uintptr_t)r->base - begin, r->base, r->bytes, access, why, MKV_GPU_WHY_BYTES);
	(void)close(fd);
	return (e);
}

/* Under c->gpu_lock. */
static int
gpu_add(struct mkv_rdma_mem **out, struct mkv_rdma_dev *d, struct mkv_region *r, unsigned access, char *why, size_t why_bytes)
{
	char dmabuf[MKV_GPU_WHY_BYTES] = "", peermem[MKV_GPU_WHY_BYTES] = "";
	int device = r->memory.device, e;

	if (r->c->gpu_lane == NULL && (r->c->gpu_lane = calloc(1, sizeof(*r->c->gpu_lane))) == NULL)
		return (MKV_E_NOMEM);
	if ((e = mkv_gpu_must_flush(device, dmabuf)) < 0) {
		(void)snprintf(why, why_bytes, "%s", dmabuf);
		return (MKV_E_UNSUPPORTED);
	}
	r->flush = e;
	if (add_dmabuf(out, d, r, access, dmabuf) == 0 || mkv_rdma_mem_add(out, d, r->base, r->bytes, access, peermem, sizeof(peermem)) == 0)
		return (0);
	(void)snprintf(why, why_bytes, "memory of GPU %d cannot be registered with RDMA device %s. By dma-buf: %s. By nvidia-peermem: %s. "
	    "Load that module (modprobe nvidia-peermem), or use the open kernel modules of the NVIDIA driver on Linux 5.12 or newer",
	    device, d->name, dmabuf, peermem);
	return (MKV_E_UNSUPPORTED);
}

int
mkv_gpu_register(struct mkv_rdma_mem **out, struct mkv_rdma_dev *d, struct mkv_region *r, unsigned access, char *why, size_t why_bytes)
{
	int e;

	*out = NULL;
	if (r->memory.kind != MKV_GPU_DEVICE) {
		(void)snprintf(why, why_bytes, "managed memory (cudaMallocManaged) moves between GPU and host and cannot be registered with RDMA device %s: "
		    "use memory of the device (cudaMalloc)", d->name);
		return (MKV_E_UNSUPPORTED);
	}
	(void)pthread_mutex_lock(&r->c->gpu_lock);
	e = gpu_add(out, d, r, access & ~(unsigned)MKV_RDMA_ON_DEMAND, why, why_bytes);
	(void)pthread_mutex_unlock(&r->c->gpu_lock);
	return (e);
}
