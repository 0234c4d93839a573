/*
 * Inside common/rdma: how a port is chosen, and what the host says of it. Free of state, so that tests reach each choice.
 */
#ifndef MKV_RDMA_DEV_PRIV_H
#define MKV_RDMA_DEV_PRIV_H

#include "common/base/assert.h"
#include "common/rdma/dev.h"

#define MKV_RDMA_RD_ATOMIC_MAX	16u	/* more buys nothing, and each costs the NIC memory */

/* A sentence in why, and e: `return (rdma_why(...))`. */
int		rdma_why(int e, char *why, size_t why_bytes, const char *fmt, ...) MKV_PRINTF(4, 5);
/* In words: what the far end or we did. Never NULL. */
const char *	rdma_wc_text(enum ibv_wc_status s);

/* Of n entries the one for this port: by index, by address, or the best. NULL with a sentence in why, *e is MKV_E_UNSUPPORTED or MKV_E_CONFIG. */
const struct ibv_gid_entry *rdma_gid_choose(const struct ibv_gid_entry *g, unsigned n, unsigned port, int is_roce, const struct mkv_rdma_conf *c, int *e,
		    char *why, size_t why_bytes);
/* 1: the GID is an IP address that is not link-local. */
int		rdma_gid_is_address(const union ibv_gid *g);

uint32_t	rdma_mtu_bytes(enum ibv_mtu m);		/* 0: none of ours */
enum ibv_mtu	rdma_mtu_of(uint32_t bytes);		/* 0: none of them */
uint32_t	rdma_speed_mbit(const struct ibv_port_attr *a);	/* 0: newer than the header */

/* The host's side, below root ("" in a process; tests have a tree of their own). */
uint8_t		rdma_host_traffic_class(const char *root, const char *device, unsigned port, const char *netdev);
uint32_t	rdma_host_rate_mbit(const char *root, const char *device, unsigned port);
int		rdma_host_is_soft(const char *root, const char *device);

#endif
