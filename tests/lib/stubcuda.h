/*
 * A CUDA driver for tests: a shared object whose SONAME is libcuda.so.1 and whose device memory is host memory that nobody may touch (PROT_NONE) but its own
 * copies, through a second mapping. It is loaded by tests with dlopen() from the build directory, never installed; they reach it by stub_control().
 */
#ifndef MKV_TESTS_STUBCUDA_H
#define MKV_TESTS_STUBCUDA_H

#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

enum stub_call { STUB_NONE, STUB_POINTER, STUB_RETAIN, STUB_PUSH, STUB_STREAM, STUB_COPY, STUB_WAIT, STUB_HANDLE, STUB_FLUSH, STUB_CALLS };

struct stub {
	/* how it behaves */
	_Atomic int	fail_call;		/* enum stub_call: the fail_at-th of these (from 1) fails, and those after it if fail_on */
	_Atomic unsigned fail_at;
	_Atomic int	fail_on;
	_Atomic unsigned copy_us;		/* each wait for copies takes so long */
	_Atomic int	no_dmabuf, ordering, flush_options;
	/* what it saw */
	_Atomic unsigned calls[STUB_CALLS];
	_Atomic unsigned contexts, streams, pinned, pushed;	/* that there are now */
	_Atomic uint64_t in_bytes, out_bytes, most_bytes;	/* copied to devices, from them, between two waits at most */
	_Atomic uint64_t last_in_ns;		/* CLOCK_MONOTONIC after the last byte written to a device */
};

/* What stub_control() of the shared object gives. */
struct stub_ops {
	struct stub	*s;
	void *		(*alloc)(int device, size_t bytes, int managed);
	void		(*free)(void *p);
	void		(*write)(void *p, const void *from, size_t bytes);	/* as a kernel would; not counted */
	void		(*read)(const void *p, void *to, size_t bytes);
};

#endif
