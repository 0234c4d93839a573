/*
 * memkv doctor: GPUs, and which of NIC, drive and GPU hang on the same socket. From sysfs, the loader's cache and the kernel's configuration.
 */
#include "config.h"
#include "clients/cli/doctor_priv.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define NVIDIA_ID		0x10de
#define DISPLAY_CLASS		0x03		/* the first byte of a PCI class */
#define CACHE_BYTES		(4u << 20)
#define KERNEL_CONFIG_BYTES	(1u << 20)
#define NODES_MAX		1024
#define PLACES_MAX		256u		/* NICs, drives or GPUs that are compared */

/* ---- GPU memory ---- */

static void
gpu_cards(struct doctor *d, struct doctor_names *gpus)
{
	struct doctor_names n;
	char text[DOCTOR_TEXT_BYTES];

	doctor_list(d, &n, "/sys/bus/pci/devices");
	if (doctor_names_room(d, gpus, n.count) != 0)
		return;
	for (unsigned i = 0; i < n.count; i++)
		if (doctor_text(d, text, sizeof(text), "/sys/bus/pci/devices/%s/vendor", n.name[i]) == 0 && strtol(text, NULL, 16) == NVIDIA_ID &&
		    doctor_text(d, text, sizeof(text), "/sys/bus/pci/devices/%s/class", n.name[i]) == 0 &&
		    strtol(text, NULL, 16) >> 16 == DISPLAY_CLASS)
			strcpy(gpus->name[gpus->count++], n.name[i]);
}

/* The loader finds it by its cache; that holds names as they are. */
static int
gpu_cuda(struct doctor *d)
{
	size_t bytes;
	char *cache = doctor_load(d, CACHE_BYTES, &bytes, "/etc/ld.so.cache");
	int found = cache != NULL && memmem(cache, bytes, "libcuda.so.1", 12) != NULL;

	free(cache);
	return (found);
}

/* Does the driver hand out dma-bufs, and can the kernel take them? The second is -1 where its configuration cannot be read. */
static int
gpu_dmabuf(struct doctor *d, int *kernel)
{
	char name[65], release[65], *text, *version = doctor_load(d, 4096, NULL, "/proc/driver/nvidia/version");
	int open = version != NULL && strstr(version, "Open Kernel Module") != NULL;

	free(version);
	*kernel = -1;
	if (d->ops->system(name, release) == 0 && strchr(release, '/') == NULL &&
	    (text = doctor_load(d, KERNEL_CONFIG_BYTES, NULL, "/boot/config-%s", release)) != NULL) {
		*kernel = strstr(text, "CONFIG_DMABUF_MOVE_NOTIFY=y") != NULL && strstr(text, "CONFIG_PCI_P2PDMA=y") != NULL;
		free(text);
	}
	return (open);
}

static void
gpu_peer(struct doctor *d)
{
	int kernel, open = gpu_dmabuf(d, &kernel), peer = doctor_mode(d, "/sys/module/nvidia_peermem") != 0 || doctor_mode(d, "/sys/module/nv_peer_mem") != 0;

	if (peer)
		doctor_ok(d, "nvidia-peermem is loaded");
	else if (open && kernel != 0)
		doctor_ok(d, "dma-buf: open kernel modules%s", kernel < 0 ? "; the kernel's configuration cannot be read" : " and a kernel that takes them");
	else
		doctor_say(d, DOCTOR_GPU_PEER, NULL, "nvidia-peermem is not loaded, and %s",
		    !open ? "the driver is not that of the open kernel modules, which has dma-buf" : "this kernel was built without CONFIG_DMABUF_MOVE_NOTIFY or CONFIG_PCI_P2PDMA");
}

void
doctor_gpu(struct doctor *d)
{
	struct doctor_names gpus, devices;
	const char *key;
	int named;

	gpu_cards(d, &gpus);
	if (gpus.count == 0) {
		doctor_ok(d, "no GPU of NVIDIA");
		return;
	}
	if (doctor_mode(d, "/proc/driver/nvidia/version") == 0) {
		doctor_say(d, DOCTOR_GPU_DRIVER, NULL, "%s is a GPU of NVIDIA, and /proc/driver/nvidia is not there", gpus.name[0]);
		return;
	}
	if (gpu_cuda(d))
		doctor_ok(d, "libcuda.so.1 is there");
	else
		doctor_say(d, DOCTOR_GPU_CUDA, NULL, "the driver is loaded, and /etc/ld.so.cache has no libcuda.so.1");
	doctor_rdma_names(d, &devices, &named, &key);
	if (devices.count > 0)
		gpu_peer(d);
}

/* ---- sockets ---- */

struct place {
	char		what[DOCTOR_NAME_BYTES];
	int64_t		node;
};

struct places {
	unsigned	count;
	struct place	at[PLACES_MAX];
};

/* A node of -1 says nothing. */
static void
places_add(struct doctor *d, struct places *p, const char *what, const char *slot)
{
	int64_t node;

	if (p->count == PLACES_MAX || doctor_number(d, &node, "/sys/bus/pci/devices/%s/numa_node", slot) != 0 || node < 0 || node > NODES_MAX)
		return;
	snprintf(p->at[p->count].what, DOCTOR_NAME_BYTES, "%.63s", what);
	p->at[p->count++].node = node;
}

static int
places_have(const struct places *p, int64_t node)
{
	for (unsigned i = 0; i < p->count; i++)
		if (p->at[i].node == node)
			return (1);
	return (0);
}

static void
numa_nics(struct doctor *d, struct places *nics)
{
	struct doctor_names n;
	char path[PATH_MAX / 4], slot[DOCTOR_NAME_BYTES];
	const char *key;
	int named;

	doctor_rdma_names(d, &n, &named, &key);
	for (unsigned i = 0; i < n.count; i++) {
		snprintf(path, sizeof(path), "/sys/class/infiniband/%s", n.name[i]);
		if (strchr(n.name[i], '/') == NULL && doctor_slot(d, path, slot) == 0)
			places_add(d, nics, n.name[i], slot);
	}
}

/* Whatever has no NIC on its own node. */
static void
numa_compare(struct doctor *d, enum doctor_id id, const struct places *nics, const struct places *others)
{
	char distance[DOCTOR_TEXT_BYTES] = "";

	for (unsigned i = 0; i < others->count; i++) {
		const struct place *o = &others->at[i];

		if (places_have(nics, o->node)) {
			doctor_ok(d, "%s: node %" PRId64 ", where a NIC is", o->what, o->node);
			continue;
		}
		(void)doctor_text(d, distance, sizeof(distance), "/sys/devices/system/node/node%" PRId64 "/distance", o->node);
		doctor_say(d, id, DOCTOR_ARGS(o->what), "%s is on node %" PRId64 " and no NIC is; %s is on node %" PRId64 "%s%s", o->what, o->node,
		    nics->at[0].what, nics->at[0].node, distance[0] != '\0' ? "; distances from there: " : "", distance);
	}
}

static void
numa_drives(struct doctor *d, struct places *drives)
{
	char name[DOCTOR_NAME_BYTES], path[PATH_MAX / 4], slot[DOCTOR_NAME_BYTES];

	for (unsigned i = 0; i < d->params.n_drives && d->params.storage_mode == MKV_STORAGE_DIRECT; i++) {
		if (doctor_block(d, d->params.drives[i].media, name) != 0)
			continue;
		snprintf(path, sizeof(path), "/sys/class/block/%s", name);
		if (doctor_slot(d, path, slot) == 0)
			places_add(d, drives, name, slot);
	}
}

void
doctor_numa(struct doctor *d)
{
	struct places nics = { .count = 0 }, others = { .count = 0 };
	struct doctor_names gpus;

	if (doctor_mode(d, "/sys/devices/system/node/node1") == 0) {
		doctor_ok(d, "one node");
		return;
	}
	numa_nics(d, &nics);
	if (nics.count == 0) {
		doctor_ok(d, "several nodes, no RDMA device with one of them");
		return;
	}
	if (d->scope & DOCTOR_SERVER) {
		numa_drives(d, &others);
		numa_compare(d, DOCTOR_NUMA_DRIVE, &nics, &others);
	}
	if ((d->scope & DOCTOR_CLIENT) == 0)
		return;
	gpu_cards(d, &gpus);
	others.count = 0;
	for (unsigned i = 0; i < gpus.count; i++)
		places_add(d, &others, gpus.name[i], gpus.name[i]);
	numa_compare(d, DOCTOR_NUMA_GPU, &nics, &others);
}
