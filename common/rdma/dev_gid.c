/*
 * Which GID, MTU and speed a port has for us: pure functions over what verbs tell. No state, any thread.
 *
 * On Ethernet only RoCE v2 will do; of several GIDs the one of the best address (common/base/roce.h).
 */
#include "config.h"
#include "common/rdma/dev_priv.h"

#include <arpa/inet.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "common/base/err.h"
#include "common/base/roce.h"

int
rdma_gid_is_address(const union ibv_gid *g)
{
	return (mkv_roce_rank(g->raw) >= MKV_ROCE_IPV6);
}

static int
gid_fits(const struct ibv_gid_entry *g, unsigned port, int is_roce)
{
	return (g->port_num == port && g->gid_type == (is_roce ? IBV_GID_TYPE_ROCE_V2 : IBV_GID_TYPE_IB) && mkv_roce_rank(g->gid.raw) != MKV_ROCE_EMPTY);
}

static const char *
gid_type_text(uint32_t type)
{
	return (type == IBV_GID_TYPE_ROCE_V2 ? "RoCE v2" : type == IBV_GID_TYPE_ROCE_V1 ? "RoCE v1" : "InfiniBand");
}

/* An IPv4 address as people write it, else the sixteen bytes. */
static const char *
gid_text(const uint8_t *raw, char *buf, size_t bytes)
{
	if (mkv_roce_rank(raw) == MKV_ROCE_IPV4)
		return (inet_ntop(AF_INET, raw + 12, buf, (socklen_t)bytes));
	return (inet_ntop(AF_INET6, raw, buf, (socklen_t)bytes));
}

static const struct ibv_gid_entry *
gid_by_index(const struct ibv_gid_entry *g, unsigned n, unsigned port, int is_roce, int idx, char *why, size_t why_bytes)
{
	for (unsigned i = 0; i < n; i++) {
		if (g[i].port_num != port || g[i].gid_index != (uint32_t)idx)
			continue;
		if (gid_fits(&g[i], port, is_roce))
			return (&g[i]);
		rdma_why(0, why, why_bytes, "port %u: GID index %d is %s, but it takes %s", port, idx, gid_type_text(g[i].gid_type),
		    is_roce ? "RoCE v2" : "InfiniBand");
		return (NULL);
	}
	rdma_why(0, why, why_bytes, "port %u has no GID with index %d", port, idx);
	return (NULL);
}

const struct ibv_gid_entry *
rdma_gid_choose(const struct ibv_gid_entry *g, unsigned n, unsigned port, int is_roce, const struct mkv_rdma_conf *c, int *e, char *why, size_t why_bytes)
{
	const struct ibv_gid_entry *best = NULL;
	char text[INET6_ADDRSTRLEN];

	if (c->gid_index >= 0) {
		*e = MKV_E_CONFIG;
		return (gid_by_index(g, n, port, is_roce, c->gid_index, why, why_bytes));
	}
	*e = MKV_E_UNSUPPORTED;
	for (unsigned i = 0; i < n; i++) {
		if (!gid_fits(&g[i], port, is_roce) || (c->address != NULL && memcmp(g[i].gid.raw, c->address, 16) != 0))
			continue;
		if (best == NULL || (is_roce && mkv_roce_rank(g[i].gid.raw) > mkv_roce_rank(best->gid.raw)))
			best = &g[i];
	}
	if (best == NULL && c->address != NULL)
		rdma_why(0, why, why_bytes, "port %u has no %s GID for the address %s", port, is_roce ? "RoCE v2" : "InfiniBand",
		    gid_text(c->address, text, sizeof(text)));
	else if (best == NULL)
		rdma_why(0, why, why_bytes, "port %u has no %s GID: %s", port, is_roce ? "RoCE v2" : "InfiniBand",
		    is_roce ? "give its network device an address" : "is a subnet manager running?");
	return (best);
}

uint32_t
rdma_mtu_bytes(enum ibv_mtu m)
{
	return (m >= IBV_MTU_256 && m <= IBV_MTU_4096 ? 128u << (unsigned)m : 0);
}

enum ibv_mtu
rdma_mtu_of(uint32_t bytes)
{
	for (int m = IBV_MTU_256; m <= IBV_MTU_4096; m++)
		if (rdma_mtu_bytes((enum ibv_mtu)m) == bytes)
			return ((enum ibv_mtu)m);
	return ((enum ibv_mtu)0);
}

uint32_t
rdma_speed_mbit(const struct ibv_port_attr *a)
{
	uint32_t lanes, each;

	switch (a->active_width) {
	case 1: lanes = 1; break;
	case 2: lanes = 4; break;
	case 4: lanes = 8; break;
	case 8: lanes = 12; break;
	case 16: lanes = 2; break;
	default: return (0);
	}
	switch (a->active_speed) {
	case 1: each = 2500; break;
	case 2: each = 5000; break;
	case 4: case 8: each = 10000; break;
	case 16: each = 14062; break;
	case 32: each = 25000; break;		/* rounded, as NICs are sold */
	case 64: each = 50000; break;
	case 128: each = 100000; break;
	default: return (0);
	}
	return (lanes * each);
}
