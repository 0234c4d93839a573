/*
 * Which GID, MTU and speed a port has for us: pure functions over what verbs tell. No state, any thread.
 *
 * On Ethernet only RoCE v2 will do. A GID made of an IPv4 address is preferred to one of a global IPv6 address; the link-local one, which is there on every
 * port and usually stands first, is the last resort: it works on one segment only.
 */
#include "config.h"
#include "common/rdma/dev_priv.h"

#include <arpa/inet.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "common/base/err.h"

enum gid_rank { GID_NONE, GID_LINK_LOCAL, GID_IPV6, GID_IPV4 };

static enum gid_rank
gid_rank(const union ibv_gid *g)
{
	static const uint8_t mapped[12] = { 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff }, zero[16];

	if (memcmp(g->raw, zero, 16) == 0)
		return (GID_NONE);
	if (memcmp(g->raw, mapped, 12) == 0)
		return (GID_IPV4);
	return (g->raw[0] == 0xfe && (g->raw[1] & 0xc0) == 0x80 ? GID_LINK_LOCAL : GID_IPV6);
}

int
rdma_gid_is_address(const union ibv_gid *g)
{
	return (gid_rank(g) >= GID_IPV6);
}

static int
gid_fits(const struct ibv_gid_entry *g, unsigned port, int is_roce)
{
	return (g->port_num == port && g->gid_type == (is_roce ? IBV_GID_TYPE_ROCE_V2 : IBV_GID_TYPE_IB) && gid_rank(&g->gid) != GID_NONE);
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
	union ibv_gid g;

	memcpy(g.raw, raw, 16);
	if (gid_rank(&g) == GID_IPV4)
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
		if (best == NULL || (is_roce && gid_rank(&g[i].gid) > gid_rank(&best->gid)))
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
