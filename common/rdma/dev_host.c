/*
 * What the host is set up to do with RDMA traffic: read once, when a device is opened, before a process enters its jail. Nothing here fails: what cannot be
 * read is as if it were not set.
 *
 * RoCE in production wants a traffic class, so that switches keep it apart: DSCP 26 and priority 3 by custom. We follow the host: the class that rdma_cm
 * uses by default, if an administrator set one, or a VLAN whose priorities are mapped to 3.
 */
#include "config.h"
#include "common/rdma/dev_priv.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "common/base/roce.h"

#define HOST_PATH_BYTES	512u
#define HOST_TEXT_BYTES	8192u

/* What a small file begins with. 1: there was something. */
static int
host_text(const char *path, char *text, size_t bytes)
{
	FILE *f = fopen(path, "re");
	size_t n;

	if (f == NULL)
		return (0);
	n = fread(text, 1, bytes - 1, f);
	text[n] = '\0';
	fclose(f);
	return (n > 0);
}

/* 1: a VLAN device that sends some traffic with RoCE's priority. */
static int
host_vlan_marks(const char *root, const char *netdev)
{
	char path[HOST_PATH_BYTES], text[HOST_TEXT_BYTES];

	snprintf(path, sizeof(path), "%s/proc/net/vlan/%s", root, netdev);
	return (host_text(path, text, sizeof(text)) && mkv_roce_vlan_marks(text));
}

uint8_t
rdma_host_traffic_class(const char *root, const char *device, unsigned port, const char *netdev)
{
	char path[HOST_PATH_BYTES], line[64], *end;
	unsigned long n;

	snprintf(path, sizeof(path), "%s/sys/kernel/config/rdma_cm/%s/ports/%u/default_roce_tos", root, device, port);
	if (host_text(path, line, sizeof(line))) {
		n = strtoul(line, &end, 0);
		if (end != line && n > 0 && n <= UINT8_MAX)
			return ((uint8_t)n);
	}
	return (netdev[0] != '\0' && host_vlan_marks(root, netdev) ? MKV_ROCE_CLASS : 0);
}

uint32_t
rdma_host_rate_mbit(const char *root, const char *device, unsigned port)
{
	char path[HOST_PATH_BYTES], line[64], *end;
	double gbit;

	snprintf(path, sizeof(path), "%s/sys/class/infiniband/%s/ports/%u/rate", root, device, port);
	if (!host_text(path, line, sizeof(line)))
		return (0);
	gbit = strtod(line, &end);		/* "100 Gb/sec (4X EDR)" */
	return (end != line && gbit > 0 && gbit < 1e6 ? (uint32_t)(gbit * 1000 + 0.5) : 0);
}

/* Such devices sit on a network device and say so. */
int
rdma_host_is_soft(const char *root, const char *device)
{
	char path[HOST_PATH_BYTES];

	snprintf(path, sizeof(path), "%s/sys/class/infiniband/%s/parent", root, device);
	return (access(path, F_OK) == 0);
}
