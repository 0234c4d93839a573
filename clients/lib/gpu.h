/*
 * Memory of a GPU: what a pointer is, and copies between it and the host. The CUDA driver is never linked and never loaded by us: memory of a GPU exists
 * only in a process that has libcuda already, and that one is joined. stage.c is what uses this for TCP, gpu_rdma.c for registrations.
 */
#ifndef MKV_CLIENT_GPU_H
#define MKV_CLIENT_GPU_H

#include <stddef.h>
#include <stdint.h>

#define MKV_GPU_DEVICES_MAX	64
#define MKV_GPU_WHY_BYTES	256u

enum mkv_gpu_kind {
	MKV_GPU_HOST,				/* the CPU may touch it: also what CUDA has pinned, or knows nothing of */
	MKV_GPU_DEVICE,
	MKV_GPU_MANAGED				/* moves between both: copied by the driver like a device's, never registered */
};

struct mkv_gpu_mem {
	enum mkv_gpu_kind kind;
	int		device;			/* its number in this process; HOST: -1 */
	uint64_t	base, bytes;		/* the allocation; 0: unknown */
};

/* 1: this process has a CUDA driver. One comparison without it, as long as the process loads no further library. Any thread. */
int	mkv_gpu_here(void);
/* What memory is at p. 0; MKV_E_IO: the driver does not answer and the CPU cannot read it, a sentence in why[MKV_GPU_WHY_BYTES]. Any thread. */
int	mkv_gpu_what(const void *p, struct mkv_gpu_mem *m, char *why);

/* Contexts and streams of one user: a loop, or callers under a lock. Zeroed is empty. */
struct mkv_gpu_lane {
	struct {
		void	*ctx, *stream;
		int	queued;			/* copies that mkv_gpu_settle() waits for */
	} dev[MKV_GPU_DEVICES_MAX];
};

void	mkv_gpu_lane_fini(struct mkv_gpu_lane *l);
/*
 * Queue a copy between memory of a device and the host's: in 1: to the device. Both stay as they are until mkv_gpu_settle(). 0; MKV_E_IO with a sentence;
 * then too, what was queued before is under way.
 */
int	mkv_gpu_queue(struct mkv_gpu_lane *l, int device, void *dev, void *host, size_t bytes, int in, char *why);
/* Wait for all that was queued: nothing of it moves after. 0, or MKV_E_IO: the first failure. */
int	mkv_gpu_settle(struct mkv_gpu_lane *l, char *why);
/* Host memory that is about to be copied from or to: pinned, so that copies run at full speed. 1: to be undone by mkv_gpu_unpin(). Failure costs speed only. */
int	mkv_gpu_pin(struct mkv_gpu_lane *l, int device, void *p, size_t bytes);
void	mkv_gpu_unpin(struct mkv_gpu_lane *l, int device, void *p);

/* ---- for a NIC ---- */

/* A dma-buf descriptor of [p, p + bytes), both multiples of the page size, to be closed; or MKV_E_UNSUPPORTED, MKV_E_IO with a sentence. */
int	mkv_gpu_dmabuf(struct mkv_gpu_lane *l, int device, void *p, size_t bytes, char *why);
/* 1: what a NIC has written must be flushed before this device's kernels may read it; 0: ordered by the platform; or MKV_E_*. */
int	mkv_gpu_must_flush(int device, char *why);
int	mkv_gpu_flush(struct mkv_gpu_lane *l, int device, char *why);

#endif
