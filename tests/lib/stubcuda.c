/*
 * The stub: see stubcuda.h. Built as a shared object of its own.
 *
 * Any thread. Device memory is a memfd mapped twice: PROT_NONE where the pointer says, and readable and writable where only this file looks. Copies happen
 * when the stream is waited for, so that a buffer that is used too early is seen.
 */
#include "config.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "tests/lib/stubcuda.h"

#define EXPORT	__attribute__((visibility("default")))
#define ALLOCS	64
#define COPIES	4096
#define FAILED	719
#define INVALID	1

static struct stub stub = { .flush_options = 1, .ordering = 100 };

static struct {
	uint8_t		*p, *inside;
	size_t		bytes;
	int		device, managed, fd;
} mem[ALLOCS];

struct stream {
	unsigned	n;
	struct { uint8_t *to; const uint8_t *from; size_t bytes; int in; } copy[COPIES];
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static __thread void *current[8];
static __thread int depth;

static int
fails(enum stub_call call)
{
	unsigned n = ++stub.calls[call];

	return (stub.fail_call == (int)call && (n == stub.fail_at || (stub.fail_on && n > stub.fail_at)));
}

static int
find(uint64_t p)
{
	for (int i = 0; i < ALLOCS; i++)
		if (mem[i].p != NULL && p >= (uintptr_t)mem[i].p && p < (uintptr_t)mem[i].p + mem[i].bytes)
			return (i);
	return (-1);
}

/* Where the bytes are; NULL: not all of one allocation. */
static uint8_t *
inside(uint64_t p, size_t bytes)
{
	uint8_t *at = NULL;
	int i;

	(void)pthread_mutex_lock(&lock);
	if ((i = find(p)) >= 0 && bytes <= mem[i].bytes - (p - (uintptr_t)mem[i].p))
		at = mem[i].inside + (p - (uintptr_t)mem[i].p);
	(void)pthread_mutex_unlock(&lock);
	return (at);
}

/* ---- for tests ---- */

static void *
stub_alloc(int device, size_t bytes, int managed)
{
	int i = 0, fd = memfd_create("stubcuda", MFD_CLOEXEC);
	size_t size = (bytes + 4095) / 4096 * 4096;

	(void)pthread_mutex_lock(&lock);
	while (mem[i].p != NULL)
		i++;
	if (fd < 0 || ftruncate(fd, (off_t)size) != 0)
		abort();
	mem[i].inside = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	mem[i].p = mmap(NULL, size, PROT_NONE, MAP_SHARED, fd, 0);
	mem[i].bytes = bytes;
	mem[i].device = device;
	mem[i].managed = managed;
	mem[i].fd = fd;
	(void)pthread_mutex_unlock(&lock);
	return (mem[i].p);
}

static void
stub_free(void *p)
{
	size_t size;
	int i;

	(void)pthread_mutex_lock(&lock);
	i = find((uintptr_t)p);
	size = (mem[i].bytes + 4095) / 4096 * 4096;
	(void)munmap(mem[i].p, size);
	(void)munmap(mem[i].inside, size);
	(void)close(mem[i].fd);
	mem[i].p = NULL;
	(void)pthread_mutex_unlock(&lock);
}

static void
stub_write(void *p, const void *from, size_t bytes)
{
	memcpy(inside((uintptr_t)p, bytes), from, bytes);
}

static void
stub_read(const void *p, void *to, size_t bytes)
{
	memcpy(to, inside((uintptr_t)p, bytes), bytes);
}

static const struct stub_ops ops = { &stub, stub_alloc, stub_free, stub_write, stub_read };

EXPORT const struct stub_ops *stub_control(void);

EXPORT const struct stub_ops *
stub_control(void)
{
	return (&ops);
}

/* ---- the driver's interface ---- */

EXPORT int	cuPointerGetAttributes(unsigned n, int *what, void **out, uint64_t p);
EXPORT int	cuDeviceGet(int *dev, int ordinal);
EXPORT int	cuDeviceGetAttribute(int *out, int what, int dev);
EXPORT int	cuDevicePrimaryCtxRetain(void **ctx, int dev);
EXPORT int	cuDevicePrimaryCtxRelease_v2(int dev);
EXPORT int	cuCtxPushCurrent_v2(void *ctx);
EXPORT int	cuCtxPopCurrent_v2(void **ctx);
EXPORT int	cuStreamCreate(void **stream, unsigned flags);
EXPORT int	cuStreamDestroy_v2(void *stream);
EXPORT int	cuStreamSynchronize(void *stream);
EXPORT int	cuMemcpyDtoHAsync_v2(void *host, uint64_t dev, size_t bytes, void *stream);
EXPORT int	cuMemcpyHtoDAsync_v2(uint64_t dev, const void *host, size_t bytes, void *stream);
EXPORT int	cuGetErrorName(int err, const char **out);
EXPORT int	cuMemHostRegister_v2(void *p, size_t bytes, unsigned flags);
EXPORT int	cuMemHostUnregister(void *p);
EXPORT int	cuMemGetHandleForAddressRange(void *out, uint64_t p, size_t bytes, int type, unsigned long long flags);
EXPORT int	cuFlushGPUDirectRDMAWrites(int target, int scope);

int
cuPointerGetAttributes(unsigned n, int *what, void **out, uint64_t p)
{
	int i, r = 0;

	if (fails(STUB_POINTER))
		return (FAILED);
	(void)pthread_mutex_lock(&lock);
	i = find(p);
	for (unsigned k = 0; k < n && r == 0; k++) {
		switch (what[k]) {
		case 2:
			*(unsigned *)out[k] = i < 0 ? 0 : 2;
			break;
		case 8:
			*(unsigned char *)out[k] = i >= 0 && mem[i].managed;
			break;
		case 9:
			*(int *)out[k] = i < 0 ? -2 : mem[i].device;
			break;
		case 11:
			*(uint64_t *)out[k] = i < 0 ? 0 : (uintptr_t)mem[i].p;
			break;
		case 12:
			*(size_t *)out[k] = i < 0 ? 0 : mem[i].bytes;
			break;
		default:
			r = INVALID;
		}
	}
	(void)pthread_mutex_unlock(&lock);
	return (r);
}

int
cuDeviceGet(int *dev, int ordinal)
{
	*dev = 100 + ordinal;			/* handles are no ordinals */
	return (0);
}

int
cuDeviceGetAttribute(int *out, int what, int dev)
{
	if (dev < 100)
		return (INVALID);
	*out = what == 124 ? !stub.no_dmabuf : what == 118 ? stub.ordering : what == 117 ? stub.flush_options : 0;
	return (0);
}

int
cuDevicePrimaryCtxRetain(void **ctx, int dev)
{
	if (fails(STUB_RETAIN) || dev < 100)
		return (FAILED);
	stub.contexts++;
	*ctx = (void *)(uintptr_t)(0x1000 + dev);
	return (0);
}

int
cuDevicePrimaryCtxRelease_v2(int dev)
{
	if (dev < 100 || stub.contexts == 0)
		return (INVALID);
	stub.contexts--;
	return (0);
}

int
cuCtxPushCurrent_v2(void *ctx)
{
	if (fails(STUB_PUSH) || ctx == NULL || depth == 8)
		return (INVALID);
	current[depth++] = ctx;
	stub.pushed++;
	return (0);
}

int
cuCtxPopCurrent_v2(void **ctx)
{
	if (depth == 0)
		return (INVALID);
	*ctx = current[--depth];
	stub.pushed--;
	return (0);
}

int
cuStreamCreate(void **stream, unsigned flags)
{
	if (fails(STUB_STREAM) || depth == 0 || flags != 1)
		return (FAILED);
	*stream = calloc(1, sizeof(struct stream));
	stub.streams++;
	return (0);
}

int
cuStreamDestroy_v2(void *stream)
{
	if (depth == 0)
		return (INVALID);
	free(stream);
	stub.streams--;
	return (0);
}

static uint64_t
now_ns(void)
{
	struct timespec ts;

	(void)clock_gettime(CLOCK_MONOTONIC, &ts);
	return ((uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec);
}

int
cuStreamSynchronize(void *stream)
{
	struct stream *s = stream;
	uint64_t bytes = 0;

	if (stub.copy_us > 0 && s->n > 0)
		(void)usleep(stub.copy_us);
	for (unsigned i = 0; i < s->n; i++) {
		memcpy(s->copy[i].to, s->copy[i].from, s->copy[i].bytes);
		bytes += s->copy[i].bytes;
		if (s->copy[i].in) {
			stub.in_bytes += s->copy[i].bytes;
			stub.last_in_ns = now_ns();
		} else {
			stub.out_bytes += s->copy[i].bytes;
		}
	}
	if (bytes > stub.most_bytes)
		stub.most_bytes = bytes;
	s->n = 0;
	return (fails(STUB_WAIT) || depth == 0 ? FAILED : 0);
}

static int
copy(struct stream *s, uint8_t *to, const uint8_t *from, size_t bytes, int in)
{
	if (fails(STUB_COPY) || depth == 0 || to == NULL || from == NULL || s->n == COPIES)
		return (FAILED);
	s->copy[s->n].to = to;
	s->copy[s->n].from = from;
	s->copy[s->n].bytes = bytes;
	s->copy[s->n++].in = in;
	return (0);
}

int
cuMemcpyDtoHAsync_v2(void *host, uint64_t dev, size_t bytes, void *stream)
{
	return (copy(stream, host, inside(dev, bytes), bytes, 0));
}

int
cuMemcpyHtoDAsync_v2(uint64_t dev, const void *host, size_t bytes, void *stream)
{
	return (copy(stream, inside(dev, bytes), host, bytes, 1));
}

int
cuGetErrorName(int err, const char **out)
{
	*out = err == FAILED ? "CUDA_ERROR_LAUNCH_FAILED" : err == INVALID ? "CUDA_ERROR_INVALID_VALUE" : NULL;
	return (*out == NULL);
}

int
cuMemHostRegister_v2(void *p, size_t bytes, unsigned flags)
{
	if (depth == 0 || p == NULL || bytes == 0 || flags != 1)
		return (INVALID);
	stub.pinned++;
	return (0);
}

int
cuMemHostUnregister(void *p)
{
	if (depth == 0 || p == NULL || stub.pinned == 0)
		return (INVALID);
	stub.pinned--;
	return (0);
}

int
cuMemGetHandleForAddressRange(void *out, uint64_t p, size_t bytes, int type, unsigned long long flags)
{
	int i;

	if (fails(STUB_HANDLE))
		return (FAILED);
	if (depth == 0 || type != 1 || flags != 0 || p % 4096 != 0 || bytes % 4096 != 0)
		return (INVALID);
	(void)pthread_mutex_lock(&lock);
	if ((i = find(p)) >= 0)
		*(int *)out = dup(mem[i].fd);
	(void)pthread_mutex_unlock(&lock);
	return (i < 0 ? INVALID : 0);
}

int
cuFlushGPUDirectRDMAWrites(int target, int scope)
{
	return (fails(STUB_FLUSH) || depth == 0 || target != 0 || scope != 100 ? FAILED : 0);
}
