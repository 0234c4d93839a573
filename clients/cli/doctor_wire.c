/*
 * memkv doctor: what RoCE packets are like: their size, and the class that switches and NICs put them in. From sysfs, configfs and rtnetlink. Keeps nothing.
 */
#include "config.h"
#include "clients/cli/doctor_priv.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/roce.h"

#define ROCE_HEADERS		96	/* what the kernel keeps of a netdev's MTU for headers: GRH, UDP, BTH and the longest extensions, ICRC */
#define ROCE_HEADERS_SOFT	80	/* the same in soft-RoCE */
#define ROCE_MTU_LEAST		256u
#define ROCE_MTU_MOST		4096u
#define NETDEV_MTU_MAX		1048576

/* ---- MTU ---- */

/* rdma.mtu is auto or one of the sizes, in this order. Auto takes what there is; the largest is worth having. */
static unsigned
mtu_wanted(const struct doctor *d)
{
	unsigned at = (unsigned)d->params.rdma_mtu;

	return (at == 0 ? ROCE_MTU_MOST : ROCE_MTU_LEAST << MKV_MIN(at - 1, 4u));
}

/* The largest power of two whose packet fits. */
static unsigned
mtu_active(int64_t netdev_mtu, int64_t headers)
{
	unsigned mtu = ROCE_MTU_MOST;

	while (mtu > ROCE_MTU_LEAST && (int64_t)mtu + headers > netdev_mtu)
		mtu /= 2;
	return (mtu);
}

/* Is there a front for this device that was given an MTU? It opens with that and nothing less. */
static int
mtu_served(const struct doctor *d, const char *device)
{
	for (unsigned i = 0; d->params.rdma_mtu != 0 && i < d->params.rdma_devices.count && (d->scope & DOCTOR_SERVER); i++)
		if (strcmp(d->params.rdma_devices.item[i], device) == 0)
			return (1);
	return (0);
}

static void
mtu_port(struct doctor *d, const struct doctor_port *p)
{
	int64_t netdev_mtu, headers = p->soft ? ROCE_HEADERS_SOFT : ROCE_HEADERS;
	unsigned active, wanted = mtu_wanted(d);
	char least[16], now[16];

	if (!p->ethernet) {
		doctor_ok(d, "%s/%u: InfiniBand; ibv_devinfo -d %s shows the active MTU", p->device, p->port, p->device);
		return;
	}
	if (p->netdev[0] == '\0' || doctor_number(d, &netdev_mtu, "/sys/class/net/%s/mtu", p->netdev) != 0 || netdev_mtu < 0 || netdev_mtu > NETDEV_MTU_MAX)
		return;
	active = mtu_active(netdev_mtu, headers);
	snprintf(least, sizeof(least), "%d", wanted == ROCE_MTU_MOST ? 9000 : (int)wanted + ROCE_HEADERS);
	snprintf(now, sizeof(now), "%u", active);
	if (active >= wanted)
		doctor_ok(d, "%s/%u: %u bytes active, rdma.mtu is %u (%s has %" PRId64 ")", p->device, p->port, active, wanted, p->netdev, netdev_mtu);
	else if (mtu_served(d, p->device))
		doctor_say(d, DOCTOR_MTU_ABOVE, DOCTOR_ARGS(p->netdev, least, now), "%s/%u: rdma.mtu is %u and the port's active MTU is %u, for %s has %" PRId64,
		    p->device, p->port, wanted, active, p->netdev, netdev_mtu);
	else
		doctor_say(d, DOCTOR_MTU_SMALL, DOCTOR_ARGS(p->netdev, least), "%s/%u: the port's active MTU is %u of %u, for %s has %" PRId64, p->device,
		    p->port, active, wanted, p->netdev, netdev_mtu);
}

void
doctor_mtu(struct doctor *d)
{
	doctor_rdma_ports(d, mtu_port);
}

/* ---- classes ---- */

static unsigned
qos_ecn(struct doctor *d, const struct doctor_port *p)
{
	static const char *const part[] = { "roce_np", "roce_rp" };
	unsigned seen = 0;
	int64_t on;

	for (size_t i = 0; i < MKV_ARRAY_LEN(part); i++) {
		if (doctor_number(d, &on, "/sys/class/net/%s/ecn/%s/enable/%d", p->netdev, part[i], MKV_ROCE_PRIORITY) != 0)
			continue;
		seen++;
		if (on == 0)
			doctor_say(d, DOCTOR_QOS_ECN, DOCTOR_ARGS(p->netdev, part[i]), "%s: ECN is off for priority %d (%s)", p->netdev, MKV_ROCE_PRIORITY, part[i]);
	}
	return (seen);
}

static unsigned
qos_trust(struct doctor *d, const struct doctor_port *p)
{
	char trust[DOCTOR_TEXT_BYTES];

	if (doctor_text(d, trust, sizeof(trust), "/sys/class/net/%s/qos/trust", p->netdev) != 0)
		return (0);
	if (strstr(trust, "dscp") == NULL)
		doctor_say(d, DOCTOR_QOS_TRUST, DOCTOR_ARGS(p->netdev), "%s: trust state %s", p->netdev, trust);
	return (1);
}

/* Priority flow control, and the priority of our DSCP: 0: the driver tells nothing of either. */
static unsigned
qos_dcb(struct doctor *d, const struct doctor_port *p)
{
	struct mkv_os_dcb dcb;
	int prio;

	if (d->ops->dcb(p->netdev, &dcb) != 0)
		return (0);
	prio = dcb.of_dscp[MKV_ROCE_DSCP];
	if (dcb.pfc >= 0 && (dcb.pfc >> MKV_ROCE_PRIORITY & 1) == 0)
		doctor_say(d, DOCTOR_QOS_PFC, DOCTOR_ARGS(p->netdev), "%s: PFC is off for priority %d (on for the bits 0x%02x)", p->netdev, MKV_ROCE_PRIORITY, (unsigned)dcb.pfc);
	if (prio >= 0 && prio != MKV_ROCE_PRIORITY)
		doctor_say(d, DOCTOR_QOS_MAP, DOCTOR_ARGS(p->netdev), "%s: DSCP %d is put into priority %d", p->netdev, MKV_ROCE_DSCP, prio);
	return (dcb.pfc >= 0 || prio >= 0);
}

/* "Global tclass=106": the number at the end; -1: none. */
static long
qos_last_number(const char *text)
{
	const char *at = strrchr(text, '=');
	char *end;
	long v;

	at = at != NULL ? at + 1 : text;
	v = strtol(at, &end, 10);
	return (end == at || v < 0 || v > 255 ? -1 : v);
}

/* Is one of this VLAN's priorities sent as 3? Then a server marks its packets by itself. */
static int
qos_vlan(struct doctor *d, const struct doctor_port *p)
{
	char *text = doctor_load(d, 65536, NULL, "/proc/net/vlan/%s", p->netdev);
	int found = text != NULL && mkv_roce_vlan_marks(text);

	free(text);
	return (found);
}

/* What is in the packets: what is set, else what the device or rdma_cm marks all packets with. How much was seen. */
static unsigned
qos_marks(struct doctor *d, const struct doctor_port *p)
{
	char text[DOCTOR_TEXT_BYTES], number[8];
	int marked = d->params.rdma_traffic_class >= 0 || qos_vlan(d, p);
	unsigned seen = 0;
	long class;

	snprintf(number, sizeof(number), "%u", p->port);
	if (doctor_text(d, text, sizeof(text), "/sys/class/infiniband/%s/tc/%u/traffic_class", p->device, p->port) == 0 &&
	    (class = qos_last_number(text)) >= 0) {
		seen++;
		marked = 1;
		if (class >> 2 != MKV_ROCE_DSCP)
			doctor_say(d, DOCTOR_QOS_TRAFFIC_CLASS, DOCTOR_ARGS(p->device, number), "%s: traffic class %ld, which is DSCP %ld", p->device, class, class >> 2);
	}
	if (doctor_text(d, text, sizeof(text), "/sys/kernel/config/rdma_cm/%s/ports/%u/default_roce_tos", p->device, p->port) == 0 &&
	    (class = qos_last_number(text)) >= 0) {
		seen++;
		marked |= class > 0;
		if (class > 0 && class >> 2 != MKV_ROCE_DSCP)
			doctor_say(d, DOCTOR_QOS_CMA, DOCTOR_ARGS(p->device), "%s: default_roce_tos is %ld, which is DSCP %ld", p->device, class, class >> 2);
	}
	if (!marked && !p->soft)
		doctor_say(d, DOCTOR_QOS_UNMARKED, DOCTOR_ARGS(p->device, number), "%s: rdma.traffic_class is auto, and this host marks its packets with nothing", p->device);
	return (seen);
}

static void
qos_port(struct doctor *d, const struct doctor_port *p)
{
	unsigned before = d->n_found + d->lost, seen;

	if (!p->ethernet || p->netdev[0] == '\0')
		return;
	seen = qos_ecn(d, p) + qos_trust(d, p) + qos_marks(d, p);
	if (p->soft)
		return;				/* no queues of its own */
	seen += qos_dcb(d, p);
	if (seen == 0)
		doctor_say(d, DOCTOR_QOS_UNSEEN, DOCTOR_ARGS(p->netdev), "%s: the driver of %s shows neither trust state, ECN nor PFC", p->device, p->netdev);
	else if (d->n_found + d->lost == before)
		doctor_ok(d, "%s: what can be seen is set for DSCP %d, priority %d", p->device, MKV_ROCE_DSCP, MKV_ROCE_PRIORITY);
}

void
doctor_qos(struct doctor *d)
{
	int class = d->params.rdma_traffic_class, level = d->params.rdma_service_level;

	if (class >= 0 && class >> 2 == MKV_ROCE_DSCP && level >= 0 && level != MKV_ROCE_PRIORITY)
		doctor_say(d, DOCTOR_QOS_PRIORITY, NULL, "rdma.traffic_class %d is DSCP %d, rdma.service_level is %d", class, class >> 2, level);
	doctor_rdma_ports(d, qos_port);
}
