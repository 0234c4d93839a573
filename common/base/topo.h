/*
 * What the kernel says of huge pages, by its files. Any process, any thread; no state. Where the files are not there
 * (macOS, small kernels) nothing is known, and that is no error.
 *
 * sys   where sysfs is: mkv_topo_sys(); tests have a tree of their own.
 */
#ifndef MKV_BASE_TOPO_H
#define MKV_BASE_TOPO_H

#include <stddef.h>
#include <stdint.h>

/* "/sys"; test builds (--enable-crash-points) take MKV_SYSFS from the environment. */
const char *	mkv_topo_sys(void);

struct mkv_topo_pages {			/* of one size; numbers of pages */
	uint64_t	reserved;	/* set aside: what nr_hugepages was set to */
	uint64_t	free;		/* of all there are, neither taken nor promised */
	uint64_t	more;		/* that the kernel would try to make besides (nr_overcommit_hugepages) */
};
/* node: -1, all of them. 0; MKV_E_UNSUPPORTED there are no pages of that size, and *out is zero. */
int	mkv_topo_pages(const char *sys, int node, uint64_t page_bytes, struct mkv_topo_pages *out);
/* The file to write that number to. Returns dst. */
char *	mkv_topo_pages_file(const char *sys, int node, uint64_t page_bytes, char *dst, size_t dst_bytes);
/* Does shared memory get huge pages where it is advised to (shmem_enabled)? */
int	mkv_topo_shmem_huge(const char *sys);

#endif
