/*
 * memkv doctor: RDMA devices, their ports and addresses, all from sysfs; no device is opened. Keeps nothing.
 */
#include "config.h"
#include "clients/cli/doctor_priv.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/base/roce.h"

#define IB		"/sys/class/infiniband"
#define RDMA_UVERBS	"/sys/class/infiniband_verbs"
#define MELLANOX_ID	0x15b3
#define NETWORK_CLASS	0x02		/* the first byte of a PCI class */
#define NODE_RNIC	4		/* iWARP, in node_type */
#define STATE_INIT	2
#define STATE_ACTIVE	4

/* ---- which devices ---- */

static void
names_add(struct doctor_names *n, const char *name, size_t bytes)
{
	char word[DOCTOR_NAME_BYTES];

	if (bytes == 0 || bytes >= sizeof(word))
		return;
	snprintf(word, sizeof(word), "%.*s", (int)bytes, name);
	for (unsigned i = 0; i < n->count; i++)
		if (strcmp(n->name[i], word) == 0)
			return;
	strcpy(n->name[n->count++], word);
}

void
doctor_rdma_names(struct doctor *d, struct doctor_names *n, int *named, const char **key)
{
	const char *env = (d->scope & DOCTOR_CLIENT) ? d->ops->env("MEMKV_RDMA_DEVICES") : NULL;
	size_t bytes;

	*key = d->params.rdma_devices.count > 0 ? "rdma.devices" : "MEMKV_RDMA_DEVICES";
	*named = 0;
	if (doctor_names_room(d, n, d->params.rdma_devices.count + (env != NULL ? (unsigned)MKV_MIN(strlen(env), (size_t)DOCTOR_NAMES_MAX) : 0)) != 0)
		return;
	for (unsigned i = 0; i < d->params.rdma_devices.count; i++)
		names_add(n, d->params.rdma_devices.item[i], strlen(d->params.rdma_devices.item[i]));
	for (const char *p = env != NULL && strlen(env) < DOCTOR_NAMES_MAX ? env : ""; *p != '\0'; p += bytes) {
		p += strspn(p, ", \t");
		bytes = strcspn(p, ", \t");
		names_add(n, p, bytes);
	}
	*named = n->count > 0;
	if (!*named)
		doctor_list(d, n, IB);
}

/* A name is one directory below IB, nothing else. */
static int
rdma_there(struct doctor *d, const char *name)
{
	return (strchr(name, '/') == NULL && name[0] != '.' && S_ISDIR(doctor_mode(d, IB "/%s", name)));
}

/* node_type is "1: CA", "4: RNIC". */
static int
rdma_iwarp(struct doctor *d, const char *name)
{
	char text[DOCTOR_TEXT_BYTES];

	return (doctor_text(d, text, sizeof(text), IB "/%s/node_type", name) == 0 && strtol(text, NULL, 10) == NODE_RNIC);
}

/* The network interface of a port: of its first address that has one, else of the device. */
static void
rdma_netdev(struct doctor *d, struct doctor_port *p)
{
	struct doctor_names n;
	char text[DOCTOR_TEXT_BYTES];

	doctor_list(d, &n, IB "/%s/ports/%u/gid_attrs/ndevs", p->device, p->port);
	for (unsigned i = 0; i < n.count && p->netdev[0] == '\0'; i++)
		if (doctor_text(d, text, sizeof(text), IB "/%s/ports/%u/gid_attrs/ndevs/%s", p->device, p->port, n.name[i]) == 0 &&
		    strlen(text) < sizeof(p->netdev) && strchr(text, '/') == NULL)
			snprintf(p->netdev, sizeof(p->netdev), "%.63s", text);
	if (p->netdev[0] == '\0' && doctor_text(d, text, sizeof(text), IB "/%s/parent", p->device) == 0 && strchr(text, '/') == NULL)
		snprintf(p->netdev, sizeof(p->netdev), "%.63s", text);		/* soft-RoCE has this */
	if (p->netdev[0] != '\0')
		return;
	doctor_list(d, &n, IB "/%s/device/net", p->device);
	if (n.count > 0)
		snprintf(p->netdev, sizeof(p->netdev), "%s", n.name[0]);
}

static int
rdma_active(struct doctor *d, const char *device, const char *port)
{
	char text[DOCTOR_TEXT_BYTES];

	return (doctor_text(d, text, sizeof(text), IB "/%s/ports/%s/state", device, port) == 0 && strtol(text, NULL, 10) == STATE_ACTIVE);
}

/*
 * The port of this device that is taken: rdma.port, else the first that is active. NULL: none.
 * Where none is active the first is as good as any: what is wrong with it is to be said.
 */
static const char *
rdma_choose(struct doctor *d, const char *device, const struct doctor_names *ports)
{
	unsigned wanted = (d->scope & DOCTOR_SERVER) ? d->params.rdma_port : 0;

	for (unsigned i = 0; i < ports->count; i++)
		if (wanted != 0 ? strtoul(ports->name[i], NULL, 10) == wanted : rdma_active(d, device, ports->name[i]))
			return (ports->name[i]);
	return (wanted == 0 && ports->count > 0 ? ports->name[0] : NULL);
}

/* 0 or -ENODEV. */
static int
rdma_port_of(struct doctor *d, const char *device, struct doctor_port *p)
{
	char layer[DOCTOR_TEXT_BYTES], *end;
	struct doctor_names ports;
	const char *port;

	doctor_list(d, &ports, IB "/%s/ports", device);
	if ((port = rdma_choose(d, device, &ports)) == NULL)
		return (-ENODEV);
	*p = (struct doctor_port){ .port = (unsigned)strtoul(port, &end, 10) };
	if (*end != '\0' || p->port > 255)
		return (-ENODEV);
	strcpy(p->device, device);
	p->soft = doctor_mode(d, IB "/%s/device", device) == 0;
	p->ethernet = doctor_text(d, layer, sizeof(layer), IB "/%s/ports/%u/link_layer", device, p->port) == 0 && strcmp(layer, "Ethernet") == 0;
	rdma_netdev(d, p);
	return (0);
}

void
doctor_rdma_ports(struct doctor *d, void (*fn)(struct doctor *d, const struct doctor_port *p))
{
	struct doctor_names devices;
	struct doctor_port p;
	const char *key;
	int named;

	doctor_rdma_names(d, &devices, &named, &key);
	d->at_most = named ? DOCTOR_FAIL : DOCTOR_WARN;
	for (unsigned i = 0; i < devices.count; i++)
		if (rdma_there(d, devices.name[i]) && !rdma_iwarp(d, devices.name[i]) && rdma_port_of(d, devices.name[i], &p) == 0)
			fn(d, &p);
	d->at_most = DOCTOR_FAIL;
}

/* ---- devices and ports ---- */

/* A card of a maker of RDMA NICs without a device of ours. */
static int
rdma_card(struct doctor *d, char slot[DOCTOR_NAME_BYTES])
{
	struct doctor_names n;
	char text[DOCTOR_TEXT_BYTES];

	doctor_list(d, &n, "/sys/bus/pci/devices");
	for (unsigned i = 0; i < n.count; i++)
		if (doctor_text(d, text, sizeof(text), "/sys/bus/pci/devices/%s/vendor", n.name[i]) == 0 && strtol(text, NULL, 16) == MELLANOX_ID &&
		    doctor_text(d, text, sizeof(text), "/sys/bus/pci/devices/%s/class", n.name[i]) == 0 &&
		    strtol(text, NULL, 16) >> 16 == NETWORK_CLASS) {
			strcpy(slot, n.name[i]);
			return (1);
		}
	return (0);
}

/* The file in /dev/infiniband by which programs reach the device. */
static void
rdma_uverbs(struct doctor *d, const char *device)
{
	char text[DOCTOR_TEXT_BYTES];
	struct doctor_names n;
	int r;

	doctor_list(d, &n, RDMA_UVERBS);
	for (unsigned i = 0; i < n.count; i++) {
		if (doctor_text(d, text, sizeof(text), RDMA_UVERBS "/%s/ibdev", n.name[i]) != 0 || strcmp(text, device) != 0)
			continue;
		r = doctor_may(d, R_OK | W_OK, "/dev/infiniband/%s", n.name[i]);
		if (r == -EACCES || r == -EPERM)
			doctor_say(d, DOCTOR_RDMA_DENIED, DOCTOR_ARGS(n.name[i]), "%s: user %d may not open /dev/infiniband/%s", device, d->ops->uid(), n.name[i]);
		else if (r != 0)
			doctor_say(d, DOCTOR_RDMA_UVERBS, DOCTOR_ARGS(n.name[i]), "%s: /dev/infiniband/%s: %s", device, n.name[i], strerror(-r));
		return;
	}
	doctor_say(d, DOCTOR_RDMA_UVERBS, DOCTOR_ARGS("uverbs0"), "%s: it has no entry in " RDMA_UVERBS, device);
}

static void
rdma_device(struct doctor *d, const char *device, const char *key)
{
	char path[PATH_MAX / 4];
	struct doctor_port p;

	if (!rdma_there(d, device)) {
		doctor_say(d, DOCTOR_RDMA_MISSING, DOCTOR_ARGS(key), "%s names %s; no such device in " IB, key, device);
		return;
	}
	if (rdma_iwarp(d, device)) {
		doctor_say(d, DOCTOR_RDMA_IWARP, DOCTOR_ARGS(device, key), "%s: an iWARP device", device);
		return;
	}
	rdma_uverbs(d, device);
	if (rdma_port_of(d, device, &p) != 0)
		doctor_say(d, DOCTOR_RDMA_NO_PORT, NULL, "%s has no port %" PRIu32, device, d->params.rdma_port);
	snprintf(path, sizeof(path), IB "/%s", device);
	doctor_pcie(d, DOCTOR_RDMA_PCIE, device, path);
}

static void
rdma_port(struct doctor *d, const struct doctor_port *p)
{
	char state[DOCTOR_TEXT_BYTES], phys[DOCTOR_TEXT_BYTES] = "", rate[DOCTOR_TEXT_BYTES] = "", port[DOCTOR_NAME_BYTES + 16];
	long v;

	if (doctor_text(d, state, sizeof(state), IB "/%s/ports/%u/state", p->device, p->port) != 0)
		return;
	(void)doctor_text(d, phys, sizeof(phys), IB "/%s/ports/%u/phys_state", p->device, p->port);
	(void)doctor_text(d, rate, sizeof(rate), IB "/%s/ports/%u/rate", p->device, p->port);
	snprintf(port, sizeof(port), "%s/%u", p->device, p->port);
	v = strtol(state, NULL, 10);
	if (v == STATE_ACTIVE)
		doctor_ok(d, "%s: %s, %s, %s%s%s", port, state, p->ethernet ? "Ethernet" : "InfiniBand", rate[0] != '\0' ? rate : "rate not known",
		    p->netdev[0] != '\0' ? ", " : "", p->netdev);
	else if (v == STATE_INIT && !p->ethernet)
		doctor_say(d, DOCTOR_RDMA_NO_MANAGER, NULL, "%s: state %s", port, state);
	else
		doctor_say(d, DOCTOR_RDMA_PORT, DOCTOR_ARGS(p->netdev[0] != '\0' ? p->netdev : "NETDEV", port), "%s: state %s, %s", port, state,
		    phys[0] != '\0' ? phys : "physical state not known");
}

void
doctor_rdma(struct doctor *d)
{
	struct doctor_names devices;
	char slot[DOCTOR_NAME_BYTES];
	const char *key;
	int named;

	doctor_rdma_names(d, &devices, &named, &key);
	d->at_most = named ? DOCTOR_FAIL : DOCTOR_WARN;
	if (devices.count == 0 && rdma_card(d, slot))
		doctor_say(d, DOCTOR_RDMA_DRIVER, NULL, "%s is a network card of Mellanox or NVIDIA, and " IB " is empty", slot);
	else if (devices.count == 0)
		doctor_say(d, DOCTOR_RDMA_NONE, NULL, "no device in " IB);
	for (unsigned i = 0; i < devices.count; i++)
		rdma_device(d, devices.name[i], key);
	doctor_rdma_ports(d, rdma_port);
}

/* ---- addresses ---- */

struct gid {
	int		there, v2;
	enum mkv_roce_rank rank;		/* EMPTY: also what is no RoCE v2 */
	char		text[DOCTOR_TEXT_BYTES], type[DOCTOR_TEXT_BYTES];
};

/* Eight groups of four digits, as sysfs writes them. */
static int
gid_parse(const char *text, uint8_t raw[16])
{
	unsigned group[8];
	int end = 0;

	if (sscanf(text, "%4x:%4x:%4x:%4x:%4x:%4x:%4x:%4x%n", &group[0], &group[1], &group[2], &group[3], &group[4], &group[5], &group[6], &group[7],
	    &end) != 8 || text[end] != '\0')
		return (0);
	for (unsigned i = 0; i < 8; i++) {
		raw[2 * i] = (uint8_t)(group[i] >> 8);
		raw[2 * i + 1] = (uint8_t)group[i];
	}
	return (1);
}

static void
gid_read(struct doctor *d, const struct doctor_port *p, const char *index, struct gid *g)
{
	enum mkv_roce_rank rank;
	uint8_t raw[16];
	size_t n;

	*g = (struct gid){ .there = 0 };
	if (doctor_text(d, g->text, sizeof(g->text), IB "/%s/ports/%u/gids/%s", p->device, p->port, index) != 0 || !gid_parse(g->text, raw))
		return;
	rank = mkv_roce_rank(raw);
	g->there = rank != MKV_ROCE_EMPTY;
	if (!g->there || doctor_text(d, g->type, sizeof(g->type), IB "/%s/ports/%u/gid_attrs/types/%s", p->device, p->port, index) != 0)
		return;
	g->v2 = strcmp(g->type, "RoCE v2") == 0;
	if (!g->v2)
		return;
	g->rank = rank;
	n = strlen(g->text);
	if (rank == MKV_ROCE_IPV4)
		snprintf(g->text + n, sizeof(g->text) - n, " (%u.%u.%u.%u)", raw[12], raw[13], raw[14], raw[15]);
}

/* What rdma.gid_index names. */
static void
gid_override(struct doctor *d, const struct doctor_port *p, const struct doctor_names *n, const char *best)
{
	char index[16];
	struct gid g;

	snprintf(index, sizeof(index), "%d", (int)d->params.rdma_gid_index);
	gid_read(d, p, index, &g);
	if (!g.there)
		doctor_say(d, DOCTOR_GID_INDEX, DOCTOR_ARGS(best != NULL ? best : "auto"), "%s/%u: rdma.gid_index is %s; the table has %u entries%s", p->device,
		    p->port, index, n->count, (unsigned)d->params.rdma_gid_index < n->count ? ", and this one is empty" : "");
	else if (p->ethernet && !g.v2)
		doctor_say(d, DOCTOR_GID_TYPE, DOCTOR_ARGS(best != NULL ? best : "auto"), "%s/%u: entry %s is %s (%s)", p->device, p->port, index, g.text,
		    g.type[0] != '\0' ? g.type : "type not known");
	else
		doctor_ok(d, "%s/%u: entry %s is %s", p->device, p->port, index, g.text);
}

static void
gid_port(struct doctor *d, const struct doctor_port *p)
{
	const char *netdev = p->netdev[0] != '\0' ? p->netdev : "NETDEV", *best = NULL;
	char number[8], shown[DOCTOR_TEXT_BYTES] = "";
	enum mkv_roce_rank rank = MKV_ROCE_EMPTY;
	struct doctor_names n;
	struct gid g;

	snprintf(number, sizeof(number), "%u", p->port);
	doctor_list(d, &n, IB "/%s/ports/%u/gids", p->device, p->port);
	for (unsigned i = 0; i < n.count; i++) {
		gid_read(d, p, n.name[i], &g);
		if (g.rank <= rank)
			continue;
		rank = g.rank;
		best = n.name[i];
		strcpy(shown, g.text);
	}
	if (d->params.rdma_gid_index >= 0 && (d->scope & DOCTOR_SERVER))
		gid_override(d, p, &n, best);
	else if (!p->ethernet)
		doctor_ok(d, "%s: %u entries; InfiniBand goes by entry 0", p->device, n.count);
	else if (rank == MKV_ROCE_EMPTY)
		doctor_say(d, DOCTOR_GID_NONE, DOCTOR_ARGS(netdev, p->device, number), "%s/%u: none of %u entries is RoCE v2 with an address", p->device, p->port,
		    n.count);
	else if (rank == MKV_ROCE_LINK_LOCAL)
		doctor_say(d, DOCTOR_GID_LINK_LOCAL, DOCTOR_ARGS(netdev), "%s/%u: the best is entry %s, %s", p->device, p->port, best, shown);
	else
		doctor_ok(d, "%s/%u: entry %s, %s", p->device, p->port, best, shown);
}

void
doctor_gid(struct doctor *d)
{
	doctor_rdma_ports(d, gid_port);
}
