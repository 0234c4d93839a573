/*
 * The CUDA driver of this process, if it has one.
 *
 * Callers' threads and I/O threads. Owns one handle of libcuda.so.1 for the life of the process, taken with RTLD_NOLOAD: a driver that nobody has loaded has
 * no memory that could come here, and loading it is not for a guest. Its functions are called by pointers, and the few types and numbers of them that we
 * need are declared here after the documentation of the driver's interface (CUDA 11.7 and later; older ones lack dma-buf and say so).
 *
 *   field         written by                         read by
 *   gpu           gpu_join(), once, under gpu_lock   everybody, after gpu_found was seen (acquire)
 *   gpu_looked    mkv_gpu_here(), under gpu_lock     everybody, relaxed: an old value costs a look
 *
 * Invariants: a lane belongs to one thread at a time; it keeps a device's primary context from its first use to mkv_gpu_lane_fini(), and a stream of its own
 * that waits for no other. The thread's current context is the same after each call as before.
 * Fails: every call of the driver; the sentence names the call, the device, the driver's number and name for it.
 */
#include "config.h"
#include "clients/lib/gpu.h"

#include <dlfcn.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "common/base/assert.h"
#include "common/base/err.h"
#include "common/base/os.h"

#define LIBCUDA			"libcuda.so.1"

#define CU_NOT_INITIALIZED	3
#define CU_STREAM_NON_BLOCKING	1u
#define CU_HOST_PORTABLE	1u		/* pinned for every context */
#define CU_RANGE_DMA_BUF	1
#define CU_FLUSH_TARGET_CTX	0
#define CU_FLUSH_TO_OWNER	100
#define CU_ORDERING_OWNER	100		/* GPUDirect writes are in order for the device itself */
enum { CU_MEMORY_DEVICE = 2 };
enum { CU_PTR_MEMORY_TYPE = 2, CU_PTR_IS_MANAGED = 8, CU_PTR_DEVICE = 9, CU_PTR_RANGE_START = 11, CU_PTR_RANGE_BYTES = 12 };
enum { CU_DEV_FLUSH_OPTIONS = 117, CU_DEV_WRITES_ORDERING = 118, CU_DEV_DMA_BUF = 124 };
#define CU_FLUSH_BY_HOST	1		/* of CU_DEV_FLUSH_OPTIONS */

typedef int (*gpu_any_fn)(void);
static struct {
	int	(*pointer_attributes)(unsigned n, int *what, void **out, uint64_t p);
	int	(*device_get)(int *dev, int ordinal);
	int	(*device_attribute)(int *out, int what, int dev);
	int	(*primary_retain)(void **ctx, int dev);
	int	(*primary_release)(int dev);
	int	(*ctx_push)(void *ctx);
	int	(*ctx_pop)(void **ctx);
	int	(*stream_create)(void **stream, unsigned flags);
	int	(*stream_destroy)(void *stream);
	int	(*stream_wait)(void *stream);
	int	(*to_host)(void *host, uint64_t dev, size_t bytes, void *stream);
	int	(*to_device)(uint64_t dev, const void *host, size_t bytes, void *stream);
	int	(*error_name)(int err, const char **out);
	/* May be absent. */
	int	(*host_register)(void *p, size_t bytes, unsigned flags);
	int	(*host_unregister)(void *p);
	int	(*range_handle)(void *out, uint64_t p, size_t bytes, int type, unsigned long long flags);
	int	(*flush)(int target, int scope);
} gpu;

static const struct {
	const char	*name;
	gpu_any_fn	*to;
	int		needed;
} gpu_names[] = {
#define FN(name, field, needed)	{ name, (gpu_any_fn *)(void *)&gpu.field, needed }
	FN("cuPointerGetAttributes", pointer_attributes, 1),
	FN("cuDeviceGet", device_get, 1),
	FN("cuDeviceGetAttribute", device_attribute, 1),
	FN("cuDevicePrimaryCtxRetain", primary_retain, 1),
	FN("cuDevicePrimaryCtxRelease_v2", primary_release, 1),
	FN("cuCtxPushCurrent_v2", ctx_push, 1),
	FN("cuCtxPopCurrent_v2", ctx_pop, 1),
	FN("cuStreamCreate", stream_create, 1),
	FN("cuStreamDestroy_v2", stream_destroy, 1),
	FN("cuStreamSynchronize", stream_wait, 1),
	FN("cuMemcpyDtoHAsync_v2", to_host, 1),
	FN("cuMemcpyHtoDAsync_v2", to_device, 1),
	FN("cuGetErrorName", error_name, 1),
	FN("cuMemHostRegister_v2", host_register, 0),
	FN("cuMemHostUnregister", host_unregister, 0),
	FN("cuMemGetHandleForAddressRange", range_handle, 0),
	FN("cuFlushGPUDirectRDMAWrites", flush, 0),
#undef FN
};

static pthread_mutex_t gpu_lock = PTHREAD_MUTEX_INITIALIZER;
static _Atomic int gpu_found;			/* 1: gpu is valid */
static _Atomic uint64_t gpu_looked;		/* libraries of the process when libcuda was not among them */

/* Under gpu_lock. */
static int
gpu_join(void)
{
	void *lib = dlopen(LIBCUDA, RTLD_LAZY | RTLD_NOLOAD);

	if (lib == NULL)
		return (0);
	for (unsigned i = 0; i < MKV_ARRAY_LEN(gpu_names); i++) {
		void *p = dlsym(lib, gpu_names[i].name);

		if (p == NULL && gpu_names[i].needed) {
			(void)dlclose(lib);		/* older than unified addressing: no pointer of it could be told from ours */
			return (0);
		}
		memcpy(gpu_names[i].to, &p, sizeof(p));
	}
	return (1);
}

int
mkv_gpu_here(void)
{
	uint64_t libs;

	/* Acquire, pairs with the release below: gpu is written before. */
	if (atomic_load_explicit(&gpu_found, memory_order_acquire))
		return (1);
	libs = mkv_os_libs_loaded();
	if (libs == atomic_load_explicit(&gpu_looked, memory_order_relaxed))
		return (0);
	(void)pthread_mutex_lock(&gpu_lock);
	if (!atomic_load_explicit(&gpu_found, memory_order_relaxed) && gpu_join())
		atomic_store_explicit(&gpu_found, 1, memory_order_release);
	atomic_store_explicit(&gpu_looked, libs, memory_order_relaxed);
	(void)pthread_mutex_unlock(&gpu_lock);
	return (atomic_load_explicit(&gpu_found, memory_order_acquire));
}

static int
gpu_fail(const char *call, int device, int err, char *why)
{
	const char *name = NULL;

	if (gpu.error_name(err, &name) != 0 || name == NULL)
		name = "an error that it has no name for";
	(void)snprintf(why, MKV_GPU_WHY_BYTES, "%s on GPU %d: the CUDA driver says %d, %s", call, device, err, name);
	return (MKV_E_IO);
}

/* The kernel knows without touching it in our name. */
static int
gpu_cpu_reads(const void *p)
{
	int fds[2], r;

	if (mkv_os_ctl_pair(fds) != 0)
		return (0);
	r = mkv_os_ctl_send(fds[0], p, 1, NULL, 0);
	(void)close(fds[0]);
	(void)close(fds[1]);
	return (r == 0);
}

int
mkv_gpu_what(const void *p, struct mkv_gpu_mem *m, char *why)
{
	int what[] = { CU_PTR_MEMORY_TYPE, CU_PTR_IS_MANAGED, CU_PTR_DEVICE, CU_PTR_RANGE_START, CU_PTR_RANGE_BYTES }, device = 0, r;
	unsigned type = 0, managed = 0;
	uint64_t base = 0;
	size_t bytes = 0;
	void *out[] = { &type, &managed, &device, &base, &bytes };

	*m = (struct mkv_gpu_mem){ .kind = MKV_GPU_HOST, .device = -1 };
	if (!mkv_gpu_here())
		return (0);
	r = gpu.pointer_attributes(MKV_ARRAY_LEN(what), what, out, (uintptr_t)p);
	if (r == CU_NOT_INITIALIZED)
		return (0);				/* nobody has memory of it yet */
	if (r != 0 && gpu_cpu_reads(p))
		return (0);				/* a driver that has broken down is no reason to refuse the host's memory */
	if (r != 0)
		return (gpu_fail("cuPointerGetAttributes", device, r, why));
	if ((managed & 0xff) == 0 && type != CU_MEMORY_DEVICE)
		return (0);				/* pinned by CUDA, or unknown to it */
	m->kind = managed & 0xff ? MKV_GPU_MANAGED : MKV_GPU_DEVICE;
	m->device = m->kind == MKV_GPU_MANAGED && device < 0 ? 0 : device;	/* managed memory may prefer the CPU */
	m->base = base;
	m->bytes = bytes;
	if (m->device >= 0 && m->device < MKV_GPU_DEVICES_MAX)
		return (0);
	(void)snprintf(why, MKV_GPU_WHY_BYTES, "memory of GPU %d: only the first %d are supported", m->device, MKV_GPU_DEVICES_MAX);
	return (MKV_E_IO);
}

/* ---- contexts ---- */

static int
lane_device(int device, int *dev, char *why)
{
	int r;

	MKV_ASSERT(device >= 0 && device < MKV_GPU_DEVICES_MAX);
	return ((r = gpu.device_get(dev, device)) == 0 ? 0 : gpu_fail("cuDeviceGet", device, r, why));
}

/* Make the device's primary context, the one that the CUDA runtime uses, current; to be undone by lane_leave(). */
static int
lane_enter(struct mkv_gpu_lane *l, int device, char *why)
{
	int dev, r;

	if (l->dev[device].ctx == NULL) {
		if ((r = lane_device(device, &dev, why)) != 0)
			return (r);
		if ((r = gpu.primary_retain(&l->dev[device].ctx, dev)) != 0) {
			l->dev[device].ctx = NULL;
			return (gpu_fail("cuDevicePrimaryCtxRetain", device, r, why));
		}
	}
	if ((r = gpu.ctx_push(l->dev[device].ctx)) != 0)
		return (gpu_fail("cuCtxPushCurrent", device, r, why));
	return (0);
}

static void
lane_leave(void)
{
	void *ctx;

	(void)gpu.ctx_pop(&ctx);
}

void
mkv_gpu_lane_fini(struct mkv_gpu_lane *l)
{
	char why[MKV_GPU_WHY_BYTES];
	int dev;

	for (int i = 0; i < MKV_GPU_DEVICES_MAX; i++) {
		if (l->dev[i].ctx == NULL)
			continue;
		if (l->dev[i].stream != NULL && lane_enter(l, i, why) == 0) {
			(void)gpu.stream_destroy(l->dev[i].stream);
			lane_leave();
		}
		if (lane_device(i, &dev, why) == 0)
			(void)gpu.primary_release(dev);
		l->dev[i].ctx = l->dev[i].stream = NULL;
	}
}

/* ---- copies ---- */

/* In the context of lane_enter(). */
static int
lane_copy(struct mkv_gpu_lane *l, int device, void *dev, void *host, size_t bytes, int in, char *why)
{
	int r;

	if (l->dev[device].stream == NULL && (r = gpu.stream_create(&l->dev[device].stream, CU_STREAM_NON_BLOCKING)) != 0) {
		l->dev[device].stream = NULL;
		return (gpu_fail("cuStreamCreate", device, r, why));
	}
	l->dev[device].queued = 1;
	if (in)
		r = gpu.to_device((uintptr_t)dev, host, bytes, l->dev[device].stream);
	else
		r = gpu.to_host(host, (uintptr_t)dev, bytes, l->dev[device].stream);
	return (r == 0 ? 0 : gpu_fail(in ? "cuMemcpyHtoDAsync" : "cuMemcpyDtoHAsync", device, r, why));
}

int
mkv_gpu_queue(struct mkv_gpu_lane *l, int device, void *dev, void *host, size_t bytes, int in, char *why)
{
	int r;

	if ((r = lane_enter(l, device, why)) != 0)
		return (r);
	r = lane_copy(l, device, dev, host, bytes, in, why);
	lane_leave();
	return (r);
}

/* A stream knows its context: what is queued there is waited for also where that cannot be made current, or it would move when nobody expects it. */
static int
lane_settle(struct mkv_gpu_lane *l, int device, char *why)
{
	int entered = lane_enter(l, device, why), r;

	l->dev[device].queued = 0;
	r = gpu.stream_wait(l->dev[device].stream);
	if (entered != 0)
		return (entered);
	lane_leave();
	return (r == 0 ? 0 : gpu_fail("cuStreamSynchronize", device, r, why));
}

int
mkv_gpu_settle(struct mkv_gpu_lane *l, char *why)
{
	char later[MKV_GPU_WHY_BYTES];
	int first = 0, r;

	for (int i = 0; i < MKV_GPU_DEVICES_MAX; i++)
		if (l->dev[i].queued && (r = lane_settle(l, i, first == 0 ? why : later)) != 0 && first == 0)
			first = r;
	return (first);
}

int
mkv_gpu_pin(struct mkv_gpu_lane *l, int device, void *p, size_t bytes)
{
	char why[MKV_GPU_WHY_BYTES];
	int r;

	if (gpu.host_register == NULL || gpu.host_unregister == NULL || lane_enter(l, device, why) != 0)
		return (0);
	r = gpu.host_register(p, bytes, CU_HOST_PORTABLE);
	lane_leave();
	return (r == 0);
}

void
mkv_gpu_unpin(struct mkv_gpu_lane *l, int device, void *p)
{
	char why[MKV_GPU_WHY_BYTES];

	if (lane_enter(l, device, why) != 0)
		return;
	(void)gpu.host_unregister(p);
	lane_leave();
}

/* ---- for a NIC ---- */

/* 0 or MKV_E_IO. */
static int
lane_attribute(int device, int what, int *out, char *why)
{
	int dev, r;

	*out = 0;
	if ((r = lane_device(device, &dev, why)) != 0)
		return (r);
	if ((r = gpu.device_attribute(out, what, dev)) != 0)
		return (gpu_fail("cuDeviceGetAttribute", device, r, why));
	return (0);
}

int
mkv_gpu_dmabuf(struct mkv_gpu_lane *l, int device, void *p, size_t bytes, char *why)
{
	int fd = -1, there = 0, r;

	if ((r = lane_attribute(device, CU_DEV_DMA_BUF, &there, why)) != 0)
		return (r);
	if (!there || gpu.range_handle == NULL) {
		(void)snprintf(why, MKV_GPU_WHY_BYTES, "the CUDA driver offers no dma-buf of GPU %d (it wants the open kernel modules, and Linux 5.12 or newer)",
		    device);
		return (MKV_E_UNSUPPORTED);
	}
	if ((r = lane_enter(l, device, why)) != 0)
		return (r);
	r = gpu.range_handle(&fd, (uintptr_t)p, bytes, CU_RANGE_DMA_BUF, 0);
	lane_leave();
	if (r != 0)
		return (gpu_fail("cuMemGetHandleForAddressRange", device, r, why));
	return (fd);
}

int
mkv_gpu_must_flush(int device, char *why)
{
	int ordering, options, r;

	if ((r = lane_attribute(device, CU_DEV_WRITES_ORDERING, &ordering, why)) != 0)
		return (r);
	if (ordering >= CU_ORDERING_OWNER)
		return (0);
	if ((r = lane_attribute(device, CU_DEV_FLUSH_OPTIONS, &options, why)) != 0)
		return (r);
	if ((options & CU_FLUSH_BY_HOST) != 0 && gpu.flush != NULL)
		return (1);
	(void)snprintf(why, MKV_GPU_WHY_BYTES, "GPU %d neither orders what a NIC writes nor lets the host flush it", device);
	return (MKV_E_UNSUPPORTED);
}

int
mkv_gpu_flush(struct mkv_gpu_lane *l, int device, char *why)
{
	int r;

	if ((r = lane_enter(l, device, why)) != 0)
		return (r);
	r = gpu.flush(CU_FLUSH_TARGET_CTX, CU_FLUSH_TO_OWNER);
	lane_leave();
	return (r == 0 ? 0 : gpu_fail("cuFlushGPUDirectRDMAWrites", device, r, why));
}
