/*
 * An RDMA device of this process: opened, looked over, closed. Any process that uses RDMA; one thread opens and closes it.
 *
 * Owns the context (a descriptor of /dev/infiniband/uverbsN, closed on exec) and the protection domain. Invariant: a device that was opened has an active
 * port, a GID that far ends can reach, and a path MTU that its port takes. What can fail is the host's: each way out says what mends it.
 */
#include "config.h"
#include "common/rdma/dev.h"

#include <errno.h>
#include <fcntl.h>
#include <net/if.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/assert.h"
#include "common/base/err.h"
#include "common/base/roce.h"
#include "common/rdma/dev_priv.h"

#define DEV_MAGIC	0x7d3e11a6u
#define DEV_GIDS_MAX	1024u		/* of all ports; ConnectX has 256 a port */

/* Names of what is there, for who misspelt his. */
static void
dev_list_text(const struct mkv_verbs *v, struct ibv_device **list, int n, char *buf, size_t bytes)
{
	size_t at = 0;

	buf[0] = '\0';
	for (int i = 0; i < n && at < bytes; i++)
		at += (size_t)snprintf(buf + at, bytes - at, "%s%s", i > 0 ? ", " : "", v->get_device_name(list[i]));
	if (n == 0)
		snprintf(buf, bytes, "none (ibverbs-providers installed? driver loaded?)");
}

static int
dev_find(struct mkv_rdma_dev *d, const char *name, char *why, size_t why_bytes)
{
	struct ibv_device **list;
	char names[256];
	int n = 0, e = 0, i;

	if ((list = d->v->get_device_list(&n)) == NULL)
		return (rdma_why(MKV_E_UNSUPPORTED, why, why_bytes, "no RDMA on this host: %s%s", strerror(errno),
		    errno == ENOSYS ? " (is the kernel module ib_uverbs loaded?)" : ""));
	for (i = 0; i < n && strcmp(d->v->get_device_name(list[i]), name) != 0; i++)
		;
	if (i == n) {
		dev_list_text(d->v, list, n, names, sizeof(names));
		e = rdma_why(MKV_E_UNSUPPORTED, why, why_bytes, "no RDMA device %s on this host; there is: %s", name, names);
	} else if ((d->ctx = d->v->open_device(list[i])) == NULL) {
		e = rdma_why(errno == ENOMEM ? MKV_E_NOMEM : MKV_E_SYSTEM, why, why_bytes, "RDMA device %s cannot be opened: %s%s", name, strerror(errno),
		    errno == EACCES || errno == EPERM ? " (see the permissions of /dev/infiniband)" : "");
	}
	d->v->free_device_list(list);
	return (e);
}

static const char *
dev_port_state(enum ibv_port_state s)
{
	return (s == IBV_PORT_DOWN ? "down" : s == IBV_PORT_INIT ? "waiting for a subnet manager" : s == IBV_PORT_ARMED ? "armed" : "not active");
}

/* The port asked for, or the first that is active. */
static int
dev_choose_port(struct mkv_rdma_dev *d, unsigned want, struct ibv_port_attr *p, char *why, size_t why_bytes)
{
	unsigned first = want != 0 ? want : 1, last = want != 0 ? want : d->attr.phys_port_cnt;
	int e;

	if (want > d->attr.phys_port_cnt || d->attr.phys_port_cnt == 0)
		return (rdma_why(MKV_E_UNSUPPORTED, why, why_bytes, "RDMA device %s has no port %u; it has %u", d->name, want, d->attr.phys_port_cnt));
	for (unsigned i = first; i <= last; i++) {
		memset(p, 0, sizeof(*p));
		if ((e = d->v->query_port(d->ctx, (uint8_t)i, p)) != 0)
			return (rdma_why(MKV_E_SYSTEM, why, why_bytes, "port %u of RDMA device %s cannot be asked: %s", i, d->name, strerror(e)));
		d->port = (uint8_t)i;
		if (p->state == IBV_PORT_ACTIVE)
			return (0);
	}
	if (first != last)
		return (rdma_why(MKV_E_UNSUPPORTED, why, why_bytes, "no port of RDMA device %s is active", d->name));
	return (rdma_why(MKV_E_UNSUPPORTED, why, why_bytes, "port %u of RDMA device %s is %s: look at its network device and cable", first, d->name,
	    dev_port_state(p->state)));
}

static int
dev_choose_gid(struct mkv_rdma_dev *d, const struct mkv_rdma_conf *c, char *why, size_t why_bytes)
{
	const struct ibv_gid_entry *g;
	struct ibv_gid_entry *all;
	char said[160];
	ssize_t n;
	int e = MKV_E_NOMEM;

	if ((all = calloc(DEV_GIDS_MAX, sizeof(*all))) == NULL)
		return (rdma_why(e, why, why_bytes, "out of memory"));
	if ((n = d->v->query_gid_table(d->ctx, all, DEV_GIDS_MAX)) < 0) {
		e = rdma_why(MKV_E_SYSTEM, why, why_bytes, "the GIDs of RDMA device %s cannot be read: %s", d->name, strerror((int)-n));
	} else if ((g = rdma_gid_choose(all, (unsigned)n, d->port, d->is_roce, c, &e, said, sizeof(said))) == NULL) {
		rdma_why(e, why, why_bytes, "RDMA device %s: %s", d->name, said);
	} else {
		d->gid_index = (int)g->gid_index;
		d->gid = g->gid;
		d->ifindex = g->ndev_ifindex;
		if (d->is_roce && rdma_gid_is_address(&g->gid))
			memcpy(d->address, g->gid.raw, sizeof(d->address));
		e = 0;
	}
	free(all);
	return (e);
}

/* Never silently less than was asked for: far ends may have been told. */
static int
dev_choose_mtu(struct mkv_rdma_dev *d, const struct ibv_port_attr *p, unsigned want, char *why, size_t why_bytes)
{
	uint32_t active = rdma_mtu_bytes(p->active_mtu);

	if (active == 0)
		return (rdma_why(MKV_E_UNSUPPORTED, why, why_bytes, "port %u of RDMA device %s reports no MTU", d->port, d->name));
	if (want != 0 && rdma_mtu_of(want) == 0)
		return (rdma_why(MKV_E_CONFIG, why, why_bytes, "a path MTU is 256, 512, 1024, 2048 or 4096 bytes, not %u", want));
	if (want > active)
		return (rdma_why(MKV_E_CONFIG, why, why_bytes, "a path MTU of %u bytes is set, but port %u of RDMA device %s has %u active%s", want, d->port,
		    d->name, (unsigned)active, d->is_roce ? ": raise the MTU of its network device, also in the switch" : ""));
	d->mtu_bytes = want != 0 ? want : active;
	d->mtu = rdma_mtu_of(d->mtu_bytes);
	return (0);
}

static int
dev_choose_class(struct mkv_rdma_dev *d, const struct mkv_rdma_conf *c, char *why, size_t why_bytes)
{
	char netdev[IF_NAMESIZE] = "";
	uint8_t host = 0;

	if (c->traffic_class > UINT8_MAX || c->service_level > 15 || (d->is_roce && c->service_level > 7))
		return (rdma_why(MKV_E_CONFIG, why, why_bytes, "a traffic class is 0 to 255, a service level 0 to %d: not %d and %d", d->is_roce ? 7 : 15,
		    c->traffic_class, c->service_level));
	if (d->is_roce && (c->traffic_class < 0 || c->service_level < 0)) {
		if (d->ifindex == 0 || if_indextoname(d->ifindex, netdev) == NULL)
			netdev[0] = '\0';
		host = rdma_host_traffic_class("", d->name, d->port, netdev);
	}
	d->traffic_class = c->traffic_class >= 0 ? (uint8_t)c->traffic_class : host;
	/* Switches and NICs that trust DSCP take its upper three bits for the priority: 26 is 3. */
	d->service_level = c->service_level >= 0 ? (uint8_t)c->service_level : (uint8_t)(host >> 5);
	return (0);
}

static void
dev_look_over(struct mkv_rdma_dev *d, const struct ibv_port_attr *p)
{
	uint32_t odp = 0, both = IBV_ODP_SUPPORT_READ | IBV_ODP_SUPPORT_WRITE;

	d->rd_atomic_out = (uint8_t)MKV_MAX(0, MKV_MIN(d->attr.max_qp_init_rd_atom, (int)MKV_RDMA_RD_ATOMIC_MAX));
	d->rd_atomic_in = (uint8_t)MKV_MAX(0, MKV_MIN(d->attr.max_qp_rd_atom, (int)MKV_RDMA_RD_ATOMIC_MAX));
	d->lid = p->lid;
	d->is_soft = rdma_host_is_soft("", d->name);
	if ((d->speed_mbit = rdma_speed_mbit(p)) == 0)
		d->speed_mbit = rdma_host_rate_mbit("", d->name, d->port);
	d->odp = d->v->odp_caps(d->ctx, &odp) == 0 && (odp & both) == both;
}

static int
dev_fill(struct mkv_rdma_dev *d, const struct mkv_rdma_conf *c, char *why, size_t why_bytes)
{
	struct ibv_port_attr p;
	int e, fl;

	if ((e = dev_find(d, c->device, why, why_bytes)) != 0)
		return (e);
	if (d->ctx->device->transport_type != IBV_TRANSPORT_IB)
		return (rdma_why(MKV_E_UNSUPPORTED, why, why_bytes, "RDMA device %s is neither RoCE nor InfiniBand", d->name));
	if ((fl = fcntl(d->ctx->async_fd, F_GETFL)) < 0 || fcntl(d->ctx->async_fd, F_SETFL, fl | O_NONBLOCK) != 0)
		return (rdma_why(MKV_E_SYSTEM, why, why_bytes, "RDMA device %s: no events: %s", d->name, strerror(errno)));
	if ((e = d->v->query_device(d->ctx, &d->attr)) != 0)
		return (rdma_why(MKV_E_SYSTEM, why, why_bytes, "RDMA device %s cannot be asked: %s", d->name, strerror(e)));
	if ((e = dev_choose_port(d, c->port, &p, why, why_bytes)) != 0)
		return (e);
	d->is_roce = p.link_layer == IBV_LINK_LAYER_ETHERNET;
	if ((e = dev_choose_gid(d, c, why, why_bytes)) != 0 || (e = dev_choose_mtu(d, &p, c->mtu, why, why_bytes)) != 0 ||
	    (e = dev_choose_class(d, c, why, why_bytes)) != 0)
		return (e);
	if ((d->pd = d->v->alloc_pd(d->ctx)) == NULL)
		return (rdma_why(errno == ENOMEM ? MKV_E_NOMEM : MKV_E_SYSTEM, why, why_bytes, "RDMA device %s: no protection domain: %s", d->name,
		    strerror(errno)));
	dev_look_over(d, &p);
	return (0);
}

int
mkv_rdma_dev_open(struct mkv_rdma_dev **out, const struct mkv_verbs *v, const struct mkv_rdma_conf *c, char *why, size_t why_bytes)
{
	struct mkv_rdma_dev *d;
	int e;

	MKV_ASSERT(v != NULL && v->abi == MKV_VERBS_ABI && c->device != NULL);
	*out = NULL;
	if (strlen(c->device) >= MKV_RDMA_NAME_BYTES)
		return (rdma_why(MKV_E_UNSUPPORTED, why, why_bytes, "no RDMA device has so long a name"));
	if ((d = calloc(1, sizeof(*d))) == NULL)
		return (rdma_why(MKV_E_NOMEM, why, why_bytes, "out of memory"));
	d->magic = DEV_MAGIC;
	d->v = v;
	strcpy(d->name, c->device);
	if ((e = dev_fill(d, c, why, why_bytes)) == 0)
		TAKE(*out, d);
	mkv_rdma_dev_close(&d);
	return (e);
}

void
mkv_rdma_dev_close(struct mkv_rdma_dev **dp)
{
	struct mkv_rdma_dev *d = *dp;
	int r;

	if (d == NULL)
		return;
	MKV_CHECK_OBJ(d, DEV_MAGIC);
	*dp = NULL;
	/* EBUSY: something made of it is still there, which is our mistake. Anything else is a device that is gone: nothing can be done about it. */
	r = d->pd != NULL ? d->v->dealloc_pd(d->pd) : 0;
	MKV_ASSERT(r != EBUSY);
	if (d->ctx != NULL)
		d->v->close_device(d->ctx);
	d->magic = 0;
	free(d);
}

static int
dev_name_cmp(const void *a, const void *b)
{
	return (strcmp(a, b));
}

int
mkv_rdma_dev_names(const struct mkv_verbs *v, char (*name)[MKV_RDMA_NAME_BYTES], unsigned max)
{
	struct ibv_device **list;
	unsigned k = 0;
	int n = 0;

	if ((list = v->get_device_list(&n)) == NULL)
		return (errno == ENOSYS ? 0 : mkv_err_from_errno(errno));
	for (int i = 0; i < n && k < max; i++)
		snprintf(name[k++], MKV_RDMA_NAME_BYTES, "%s", v->get_device_name(list[i]));
	v->free_device_list(list);
	qsort(name, k, sizeof(*name), dev_name_cmp);
	return (n);
}

int
mkv_rdma_dev_event_fd(const struct mkv_rdma_dev *d)
{
	MKV_CHECK_OBJ(d, DEV_MAGIC);
	return (d->ctx->async_fd);
}

static int
dev_event_of_qp(enum ibv_event_type type)
{
	return (type == IBV_EVENT_QP_FATAL || type == IBV_EVENT_QP_REQ_ERR || type == IBV_EVENT_QP_ACCESS_ERR || type == IBV_EVENT_QP_LAST_WQE_REACHED);
}

enum mkv_rdma_event
mkv_rdma_dev_event(struct mkv_rdma_dev *d, uint32_t *qpn)
{
	struct ibv_async_event ev;
	enum ibv_event_type type;
	int port;

	MKV_CHECK_OBJ(d, DEV_MAGIC);
	memset(&ev, 0, sizeof(ev));
	if (d->v->get_async_event(d->ctx, &ev) != 0)
		return (errno == EAGAIN || errno == EINTR ? MKV_RDMA_EV_NONE : MKV_RDMA_EV_GONE);
	type = ev.event_type;
	port = ev.element.port_num;
	/* An event of a queue pair that was destroyed is not given out any more. */
	if (qpn != NULL && dev_event_of_qp(type))
		*qpn = ev.element.qp != NULL ? ev.element.qp->qp_num : 0;
	d->v->ack_async_event(&ev);
	/* Relaxed: who sends to a former address once more finds out by an error. */
	if (type == IBV_EVENT_GID_CHANGE || type == IBV_EVENT_LID_CHANGE || type == IBV_EVENT_PORT_ACTIVE)
		atomic_fetch_add_explicit(&d->gids_changed, 1, memory_order_relaxed);
	if (dev_event_of_qp(type))
		return (MKV_RDMA_EV_QP);
	switch (type) {
	case IBV_EVENT_PORT_ERR: return (port == d->port ? MKV_RDMA_EV_PORT_DOWN : MKV_RDMA_EV_OTHER);
	case IBV_EVENT_PORT_ACTIVE: return (port == d->port ? MKV_RDMA_EV_PORT_UP : MKV_RDMA_EV_OTHER);
	case IBV_EVENT_GID_CHANGE:
	case IBV_EVENT_LID_CHANGE: return (port == d->port ? MKV_RDMA_EV_GID_CHANGED : MKV_RDMA_EV_OTHER);
	case IBV_EVENT_SRQ_LIMIT_REACHED: return (MKV_RDMA_EV_SRQ_LIMIT);
	case IBV_EVENT_DEVICE_FATAL: return (MKV_RDMA_EV_GONE);
	default: return (MKV_RDMA_EV_OTHER);
	}
}

int
mkv_rdma_dev_is_up(const struct mkv_rdma_dev *d)
{
	struct ibv_port_attr p;

	MKV_CHECK_OBJ(d, DEV_MAGIC);
	memset(&p, 0, sizeof(p));
	return (d->v->query_port(d->ctx, d->port, &p) == 0 && p.state == IBV_PORT_ACTIVE);
}

static int
dev_has_gid(const struct mkv_rdma_dev *d, const struct ibv_gid_entry *g, size_t n)
{
	for (size_t i = 0; i < n; i++)
		if (g[i].port_num == d->port && g[i].gid_index == (uint32_t)d->gid_index)
			return (memcmp(g[i].gid.raw, d->gid.raw, sizeof(d->gid.raw)) == 0);
	return (0);
}

static enum mkv_rdma_gid
dev_gid_of(const struct mkv_rdma_dev *d, const struct ibv_gid_entry *all, size_t n, const struct mkv_rdma_conf *c)
{
	const struct ibv_gid_entry *g;
	char said[160];
	int e;

	if (dev_has_gid(d, all, n))
		return (MKV_RDMA_GID_STANDS);
	g = rdma_gid_choose(all, (unsigned)n, d->port, d->is_roce, c, &e, said, sizeof(said));
	return (g != NULL && mkv_roce_rank(g->gid.raw) >= mkv_roce_rank(d->gid.raw) ? MKV_RDMA_GID_OTHER : MKV_RDMA_GID_NONE);
}

enum mkv_rdma_gid
mkv_rdma_dev_gid(const struct mkv_rdma_dev *d, const struct mkv_rdma_conf *c)
{
	enum mkv_rdma_gid is = MKV_RDMA_GID_STANDS;
	struct ibv_gid_entry *all;
	struct ibv_port_attr p;
	ssize_t n;

	MKV_CHECK_OBJ(d, DEV_MAGIC);
	memset(&p, 0, sizeof(p));
	if (!d->is_roce && d->v->query_port(d->ctx, d->port, &p) == 0 && p.lid != d->lid)
		return (MKV_RDMA_GID_OTHER);
	if ((all = calloc(DEV_GIDS_MAX, sizeof(*all))) == NULL)
		return (is);
	if ((n = d->v->query_gid_table(d->ctx, all, DEV_GIDS_MAX)) >= 0)
		is = dev_gid_of(d, all, (size_t)n, c);
	free(all);
	return (is);
}
