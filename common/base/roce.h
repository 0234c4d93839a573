/*
 * RoCE by custom and by address: what a rail goes by, and what `memkv doctor` says it goes by. No state; any process, any thread.
 */
#ifndef MKV_BASE_ROCE_H
#define MKV_BASE_ROCE_H

#include <stdint.h>

#define MKV_ROCE_DSCP		26	/* of packets that must not be lost ... */
#define MKV_ROCE_PRIORITY	3	/* ... and their priority, by custom: switches and NICs that trust DSCP take its upper three bits */
#define MKV_ROCE_CLASS		104	/* the traffic class with that DSCP */

_Static_assert(MKV_ROCE_DSCP >> 3 == MKV_ROCE_PRIORITY && MKV_ROCE_CLASS >> 2 == MKV_ROCE_DSCP, "one custom");

/*
 * What a GID is made of; of several the last is taken. One of an IPv4 address is preferred to one of a global IPv6 address; the link-local one, which is
 * there on every port and usually stands first, is the last resort: it works on one segment only.
 */
enum mkv_roce_rank { MKV_ROCE_EMPTY, MKV_ROCE_LINK_LOCAL, MKV_ROCE_IPV6, MKV_ROCE_IPV4 };
enum mkv_roce_rank mkv_roce_rank(const uint8_t gid[16]);

/* text: of /proc/net/vlan/NETDEV. 1: that VLAN sends some traffic with MKV_ROCE_PRIORITY. */
int	mkv_roce_vlan_marks(const char *text);

#endif
