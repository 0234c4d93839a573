/*
 * What the kernel says of huge pages, NUMA nodes and where devices sit, by its files. Any process, any thread; no state. Where the files are not there
 * (macOS, small kernels) nothing is known, and that is no error.
 *
 * sys   where sysfs is: MKV_TOPO_SYS; tests have a tree of their own.
 */
#ifndef MKV_BASE_TOPO_H
#define MKV_BASE_TOPO_H

#include <stddef.h>
#include <stdint.h>

#include "common/base/os.h"

#define MKV_TOPO_SYS	"/sys"

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

unsigned mkv_topo_node_count(const char *sys);			/* that have processors; 1 if nobody says */
int	mkv_topo_node_cpus(const char *sys, int node, struct mkv_os_cpus *out);	/* 0 or MKV_E_UNSUPPORTED */
/* As the kernel tells it: 10 on the same node, more the further; -1: not known. */
int	mkv_topo_node_distance(const char *sys, int from, int to);

struct mkv_topo_place {
	int		node;		/* NUMA node; -1: not known */
	int		domain;		/* PCI domain of its root; -1: not known, or on no PCI bus */
};
/* A block device or a part of one, by number; one that stands on others is where all of them are. */
void	mkv_topo_block(const char *sys, unsigned major, unsigned minor, struct mkv_topo_place *out);
void	mkv_topo_rdma(const char *sys, const char *device, struct mkv_topo_place *out);
/* What lies between them, in words: "NUMA nodes 0 and 1", "PCIe domains 0000 and 10000"; "" if nothing is known to. Returns dst. */
char *	mkv_topo_between(const struct mkv_topo_place *a, const struct mkv_topo_place *b, char *dst, size_t dst_bytes);

#endif
