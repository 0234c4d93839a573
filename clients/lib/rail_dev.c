/*
 * The fabric: RDMA devices of a handle, opened when the first rail is met, and which of them serves which rail.
 *
 * Any thread; f->mutex over everything. Owns the devices. A device stays open while a hub uses it; when it is gone (or its GID is another) it is closed with
 * the last of them and opened again by the next try.
 * Fails: no module, no device, none that fits a rail: a sentence, and the next try after a second. A list of devices that makes no sense, and with transport `rdma` one
 * that is not there: the handle does not open.
 */
#include "config.h"

#include <net/if.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "clients/lib/rail_priv.h"
#include "common/base/clock.h"
#include "common/base/hash.h"
#include "common/rdma/dc.h"

#define FIND_AGAIN_NS	(1000 * MKV_NS_PER_MS)
#define NUMA_SAME	10u		/* the kernel's unit of distance */
#define NUMA_OTHER	20u
#define NUMA_UNKNOWN	15u
#define NUMA_MOST	254u
#define HOST_DEVS_MAX	64u		/* whose names are looked at */
#define DISCARD_PORT	9

const struct mkv_verbs *mkv_client_verbs;
const char *mkv_client_sys = MKV_TOPO_SYS;

int
mkv_rail_wanted(const struct conf *cf)
{
	return (cf->transport == MKV_TRANSPORT_AUTO || cf->transport == MKV_TRANSPORT_RDMA);
}

/* ---- finding and opening ---- */

static int
fabric_has(const struct fabric *f, const char *name, size_t n)
{
	for (unsigned i = 0; i < f->n; i++)
		if (strlen(f->d[i].name) == n && memcmp(f->d[i].name, name, n) == 0)
			return (1);
	return (0);
}

/* "mlx5_0,mlx5_1": 0; MKV_E_CONFIG. */
static int
fabric_named(struct fabric *f, const char *list)
{
	size_t n;

	for (const char *s = list; *s != '\0'; s += n) {
		s += strspn(s, ", \t");
		n = strcspn(s, ", \t");
		if (n == 0 || fabric_has(f, s, n))
			continue;
		if (n >= MKV_RDMA_NAME_BYTES || f->n == RDMA_DEVS_MAX) {
			(void)snprintf(f->why, sizeof(f->why), n >= MKV_RDMA_NAME_BYTES ? "rdma_devices: no RDMA device has so long a name as \"%.*s\"" :
			    "rdma_devices: \"%.*s\" is one device too many, %u is the most", (int)MKV_MIN(n, 200u), s, RDMA_DEVS_MAX);
			return (MKV_E_CONFIG);
		}
		memcpy(f->d[f->n++].name, s, n);
	}
	return (0);
}

static int
fabric_load(struct fabric *f)
{
	if (f->v == NULL && (f->v = mkv_client_verbs) == NULL)
		f->v = mkv_verbs_load(f->why, sizeof(f->why));
	return (f->v != NULL ? 0 : MKV_E_UNSUPPORTED);
}

/* All that are there, if none were named. */
static int
fabric_find(struct fabric *f)
{
	char names[RDMA_DEVS_MAX][MKV_RDMA_NAME_BYTES];
	int n;

	if ((n = fabric_load(f)) != 0 || f->n > 0)
		return (n);
	if ((n = mkv_rdma_dev_names(f->v, names, RDMA_DEVS_MAX)) < 0) {
		(void)snprintf(f->why, sizeof(f->why), "RDMA devices cannot be listed: %s", mkv_err(n));
		return (n);
	}
	f->n = MKV_MIN((unsigned)n, RDMA_DEVS_MAX);
	for (unsigned i = 0; i < f->n; i++)
		memcpy(f->d[i].name, names[i], sizeof(f->d[i].name));
	if (f->n == 0)
		(void)snprintf(f->why, sizeof(f->why), "this host has no RDMA device");
	return (f->n > 0 ? 0 : MKV_E_UNSUPPORTED);
}

/* What was named by hand is meant: the others are no substitute. 0; MKV_E_UNSUPPORTED: one is not there. */
static int
fabric_all_there(struct fabric *f)
{
	char names[HOST_DEVS_MAX][MKV_RDMA_NAME_BYTES], all[256] = "";
	int n = mkv_rdma_dev_names(f->v, names, HOST_DEVS_MAX), k;
	size_t at = 0;

	if (n > (int)HOST_DEVS_MAX)
		return (0);				/* opening will tell */
	for (unsigned i = 0; i < f->n; i++) {
		for (k = 0; k < n && strcmp(names[k], f->d[i].name) != 0; k++)
			;
		if (k < n)
			continue;
		for (k = 0; k < n && at < sizeof(all); k++)
			at += (size_t)snprintf(all + at, sizeof(all) - at, "%s%s", k > 0 ? ", " : "", names[k]);
		(void)snprintf(f->why, sizeof(f->why), "rdma_devices (MEMKV_RDMA_DEVICES) names %s, and this host has no such RDMA device; there is: %s",
		    f->d[i].name, n > 0 ? all : "none");
		return (MKV_E_UNSUPPORTED);
	}
	return (0);
}

static void
fabric_open_one(struct fabric *f, struct fabric_dev *d)
{
	struct mkv_rdma_conf conf = { .device = d->name, .gid_index = -1, .traffic_class = -1, .service_level = -1 };

	if (d->dev != NULL || d->not_before_ns > mkv_now_ns())
		return;
	d->not_before_ns = mkv_now_ns() + FIND_AGAIN_NS;
	if (mkv_rdma_dev_open(&d->dev, f->v, &conf, f->why, sizeof(f->why)) != 0) {
		d->dev = NULL;
		return;
	}
	d->gone = 0;
	atomic_store_explicit(&d->dc, FABRIC_DC_UNTRIED, memory_order_relaxed);
	mkv_topo_rdma(mkv_client_sys, d->name, &d->place);
}

/* Under the mutex. Devices that are not there, or whose port is down, are looked at again later. */
static int
fabric_ready(struct fabric *f)
{
	unsigned open = 0;
	int r;

	if (f->n == 0 && f->not_before_ns > mkv_now_ns())
		return (MKV_E_UNSUPPORTED);
	f->not_before_ns = mkv_now_ns() + FIND_AGAIN_NS;
	if ((r = fabric_find(f)) != 0)
		return (r);
	for (unsigned i = 0; i < f->n; i++) {
		fabric_open_one(f, &f->d[i]);
		open += f->d[i].dev != NULL;
	}
	return (open > 0 ? 0 : MKV_E_UNSUPPORTED);
}

int
mkv_fabric_is_there(struct mkv_client *c)
{
	struct fabric *f = c->fabric;
	int there;

	(void)pthread_mutex_lock(&f->mutex);
	there = f->n > 0 || fabric_find(f) == 0;
	(void)pthread_mutex_unlock(&f->mutex);
	return (there);
}

int
mkv_fabric_open(struct mkv_client *c, char *why)
{
	struct fabric *f;
	int r;

	if (!mkv_rail_wanted(&c->cf))
		return (0);
	if ((f = calloc(1, sizeof(*f))) == NULL)
		return (MKV_E_NOMEM);
	f->c = c;
	(void)pthread_mutex_init(&f->mutex, NULL);
	(void)pthread_mutex_init(&f->reg, NULL);
	c->fabric = f;
	if ((r = fabric_named(f, c->cf.rdma_devices)) != 0)
		(void)snprintf(why, WHY_BYTES, "%s", f->why);
	else if (c->cf.transport == MKV_TRANSPORT_RDMA && ((r = fabric_load(f)) != 0 || (r = fabric_all_there(f)) != 0 || (r = fabric_ready(f)) != 0))
		(void)snprintf(why, WHY_BYTES, "transport \"rdma\": %.450s", f->why);
	return (r);
}

/* Under the mutex. */
static void
fabric_close_one(struct fabric *f, unsigned i)
{
	MKV_ASSERT(f->d[i].users == 0);
	if (f->d[i].dev == NULL)
		return;
	mkv_fabric_forget_device(f, i);
	mkv_rdma_dev_close(&f->d[i].dev);
	f->d[i].gone = 0;
}

void
mkv_fabric_close(struct mkv_client *c)
{
	struct fabric *f = c->fabric;

	if (f == NULL)
		return;
	/* One that is still in use has a queue pair that the NIC did not let go of: the end of the process does. */
	for (unsigned i = 0; i < f->n; i++)
		if (f->d[i].users == 0)
			fabric_close_one(f, i);
	(void)pthread_mutex_destroy(&f->mutex);
	(void)pthread_mutex_destroy(&f->reg);
	free(f);
	c->fabric = NULL;
}

/* ---- which device for a rail ---- */

static int
is_ipv4(const uint8_t a[16])
{
	static const uint8_t mapped[12] = { [10] = 0xff, [11] = 0xff };

	return (memcmp(a, mapped, sizeof(mapped)) == 0);
}

static int
is_zero(const uint8_t a[16])
{
	static const uint8_t zero[16];

	return (memcmp(a, zero, sizeof(zero)) == 0);
}

/* Does a datagram from this device's address leave by its own interface? 2: surely; 1: cannot be told; 0: no. Nothing is sent. */
static int
route_fits(const struct mkv_rdma_dev *d, const struct mkv_wire_rail *w)
{
	struct mkv_addr to, from;
	char name[IF_NAMESIZE];
	int fd, fits = 1;

	if (is_zero(w->address) || is_zero(d->address))
		return (1);
	mkv_addr_make(&to, w->address, DISCARD_PORT);
	mkv_addr_make(&from, d->address, 0);
	if (from.ss.ss_family != to.ss.ss_family || (fd = socket(to.ss.ss_family, SOCK_DGRAM | SOCK_CLOEXEC, 0)) < 0)
		return (from.ss.ss_family == to.ss.ss_family);
	/* Without the right to bind to the interface the address alone must tell. */
	if (d->ifindex != 0 && if_indextoname(d->ifindex, name) != NULL)
		(void)setsockopt(fd, SOL_SOCKET, SO_BINDTODEVICE, name, (socklen_t)strlen(name));
	if (bind(fd, (struct sockaddr *)&from.ss, from.bytes) == 0)
		fits = mkv_udp_connect(fd, &to) == 0 ? 2 : 0;
	(void)close(fd);
	return (fits);
}

/* From the node that this thread runs on. What is not known lies between this node and the others. */
static unsigned
device_distance(const struct fabric_dev *d)
{
	unsigned cpu, node;
	int far;

	if (d->place.node < 0 || getcpu(&cpu, &node) != 0)
		return (NUMA_UNKNOWN);
	if ((far = mkv_topo_node_distance(mkv_client_sys, (int)node, d->place.node)) < 0)
		return (node == (unsigned)d->place.node ? NUMA_SAME : NUMA_OTHER);
	return (MKV_MIN((unsigned)far, NUMA_MOST));
}

/* 0: it cannot be; else the larger the better: a route that is sure, then the distance, then chance. */
static uint64_t
device_score(const struct fabric_dev *d, const struct mkv_wire_rail *w, uint64_t spread)
{
	uint64_t route;

	if (d->dev == NULL || d->gone || is_ipv4(w->gid) != is_ipv4(d->dev->gid.raw) || (route = (uint64_t)route_fits(d->dev, w)) == 0)
		return (0);
	return (route << 62 | (uint64_t)(NUMA_MOST + 1 - device_distance(d)) << 54 | mkv_hash64(d->name, strlen(d->name), spread) >> 10 | 1);
}

int
mkv_fabric_choose(struct fabric *f, const struct mkv_wire_rail *w, uint64_t spread, char *why)
{
	uint64_t best = 0, score;
	int at = MKV_E_UNSUPPORTED;

	(void)pthread_mutex_lock(&f->mutex);
	if (fabric_ready(f) != 0) {
		(void)snprintf(why, WHY_BYTES, "%s", f->why);
	} else {
		for (unsigned i = 0; i < f->n; i++) {
			if ((score = device_score(&f->d[i], w, spread)) <= best)
				continue;
			best = score;
			at = (int)i;
		}
		if (at < 0)
			(void)snprintf(why, WHY_BYTES, "no RDMA device of this host reaches rail %u (%.31s): other kind of address, or no route", w->rail,
			    w->device);
	}
	(void)pthread_mutex_unlock(&f->mutex);
	return (at);
}

/* ---- in use ---- */

struct mkv_rdma_dev *
mkv_fabric_take(struct fabric *f, unsigned i)
{
	struct mkv_rdma_dev *dev = NULL;

	(void)pthread_mutex_lock(&f->mutex);
	if (f->d[i].dev != NULL && !f->d[i].gone) {
		f->d[i].users++;
		dev = f->d[i].dev;
	}
	(void)pthread_mutex_unlock(&f->mutex);
	return (dev);
}

void
mkv_fabric_leave(struct fabric *f, unsigned i)
{
	(void)pthread_mutex_lock(&f->mutex);
	MKV_ASSERT(f->d[i].users > 0);
	if (--f->d[i].users == 0 && f->d[i].gone)
		fabric_close_one(f, i);
	(void)pthread_mutex_unlock(&f->mutex);
}

/* 1: queue pairs of it are worth nothing any more. An address that came or went beside its own is no news: containers and VLANs bring them. */
static int
event_ends(struct fabric_dev *d, enum mkv_rdma_event e)
{
	const struct mkv_rdma_conf conf = { .gid_index = -1 };

	if (e == MKV_RDMA_EV_GID_CHANGED && mkv_rdma_dev_gid(d->dev, &conf) == MKV_RDMA_GID_STANDS)
		return (0);
	switch (e) {
	case MKV_RDMA_EV_GONE:
	case MKV_RDMA_EV_GID_CHANGED:
		d->gone = 1;
		d->not_before_ns = 0;
		return (1);
	case MKV_RDMA_EV_PORT_DOWN:
		return (1);
	default:
		return (0);
	}
}

static void
fabric_tell(struct fabric *f, struct fabric_dev *d)
{
	atomic_fetch_add_explicit(&d->news, 1, memory_order_release);	/* pairs with hub_look() */
	for (unsigned k = 0; k < f->c->cf.io_threads; k++)
		mkv_loop_wake(&f->c->loop[k]);
}

/* Several loops may be woken by one event; the first takes it and tells all. */
void
mkv_fabric_events(struct fabric *f, unsigned i)
{
	struct fabric_dev *d = &f->d[i];
	enum mkv_rdma_event e;
	int ends = 0;

	(void)pthread_mutex_lock(&f->mutex);
	while (d->dev != NULL && (e = mkv_rdma_dev_event(d->dev, NULL)) != MKV_RDMA_EV_NONE) {
		ends |= event_ends(d, e);
		if (e == MKV_RDMA_EV_GONE)
			break;
	}
	(void)pthread_mutex_unlock(&f->mutex);
	if (ends)
		fabric_tell(f, d);
}

void
mkv_fabric_gone(struct fabric *f, unsigned i)
{
	(void)pthread_mutex_lock(&f->mutex);
	f->d[i].gone = f->d[i].dev != NULL;
	(void)pthread_mutex_unlock(&f->mutex);
	fabric_tell(f, &f->d[i]);
}

/* ---- DC ---- */

/* Loops may try at the same time: they find the same. Relaxed: it is a number and nothing else. */
void
mkv_fabric_try_dc(struct fabric *f, unsigned i, struct mkv_rdma_hub *h)
{
	char why[WHY_BYTES];
	int can;

	if (atomic_load_explicit(&f->d[i].dc, memory_order_relaxed) != FABRIC_DC_UNTRIED)
		return;
	can = mkv_rdma_dc_try(h, why, sizeof(why));
	atomic_store_explicit(&f->d[i].dc, can ? FABRIC_DC_YES : FABRIC_DC_NO, memory_order_relaxed);
}

int
mkv_fabric_dc(const struct fabric *f, unsigned i)
{
	return (atomic_load_explicit(&f->d[i].dc, memory_order_relaxed) == FABRIC_DC_YES);
}

void
mkv_fabric_no_dc(struct fabric *f, unsigned i)
{
	atomic_store_explicit(&f->d[i].dc, FABRIC_DC_NO, memory_order_relaxed);
}
