/*
 * The machine of doctor_up.h.
 */
#include "config.h"
#include "tests/unit/doctor_up.h"

#include <errno.h>
#include <ftw.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

char		up_root[64];
struct doctor	up;

/* ---- what is no file ---- */

struct up_fake	up_fake;

static int
fake_limit(enum doctor_limit which, uint64_t *soft, uint64_t *hard)
{
	*soft = *hard = which == DOCTOR_LIMIT_MEMLOCK ? up_fake.memlock : up_fake.files;
	return (0);
}

static int
fake_system(char name[65], char release[65])
{
	strcpy(name, "Linux");
	strcpy(release, up_fake.release);
	return (0);
}

static int
fake_clock(void)
{
	return (up_fake.clock);
}

static int
fake_uring(void)
{
	return (up_fake.uring);
}

static int
fake_dcb(const char *netdev, struct mkv_os_dcb *out)
{
	assert_true(netdev[0] != '\0');
	*out = up_fake.dcb;
	return (up_fake.dcb_status);
}

static int
fake_bind(const char *host, uint16_t port)
{
	assert_true(host[0] != '\0');
	return (port == 9900 ? up_fake.bind_data : up_fake.bind_admin);
}

static int
fake_space(const char *path, uint64_t *filesystem, uint64_t *free_bytes)
{
	if (access(path, F_OK) != 0)
		return (-errno);
	*filesystem = 7;
	*free_bytes = up_fake.space;
	return (0);
}

static int
fake_uid(void)
{
	return (up_fake.uid);
}

static const char *
fake_env(const char *name)
{
	for (unsigned i = 0; i < UP_ENV_MAX && up_fake.env[i][0] != NULL; i++)
		if (strcmp(up_fake.env[i][0], name) == 0)
			return (up_fake.env[i][1]);
	return (NULL);
}

static int
fake_client(const char *file, char *why, size_t why_bytes)
{
	up_fake.client_file = file;
	if (up_fake.client_why != NULL)
		snprintf(why, why_bytes, "%s", up_fake.client_why);
	return (up_fake.client);
}

static json_t *
fake_config(const struct doctor *d, const char *file, char *why, size_t why_bytes)
{
	(void)d;
	(void)file;
	snprintf(why, why_bytes, "no checker here");
	return (json_incref(up_fake.answer));
}

static const struct doctor_ops fake_ops = {
	.limit = fake_limit, .system = fake_system, .clock = fake_clock, .uring = fake_uring, .dcb = fake_dcb, .bind = fake_bind, .space = fake_space,
	.uid = fake_uid, .env = fake_env, .client = fake_client, .config = fake_config,
};

/* ---- files ---- */

void
up_path(char path[512], const char *name)
{
	assert_true(snprintf(path, 512, "%s%s", up_root, name) < 512);
}

/* The directories above it, and itself if it ends in a slash. */
void
up_above(const char *name)
{
	char path[512];

	up_path(path, name);
	for (char *p = path + strlen(up_root) + 1; (p = strchr(p, '/')) != NULL; p++) {
		*p = '\0';
		if (mkdir(path, 0755) != 0)
			assert_int_equal(errno, EEXIST);
		*p = '/';
	}
}

void
up_put_bytes(const char *name, const void *bytes, size_t n)
{
	char path[512];
	FILE *f;

	up_above(name);
	up_path(path, name);
	f = fopen(path, "w");
	assert_non_null(f);
	assert_int_equal(fwrite(bytes, 1, n, f), n);
	assert_int_equal(fclose(f), 0);
}

void
up_put(const char *name, const char *text)
{
	up_put_bytes(name, text, strlen(text));
}

void
up_mode(const char *name, mode_t bits)
{
	char path[512];

	up_path(path, name);
	assert_int_equal(chmod(path, bits), 0);
}

void
up_link(const char *name, const char *target)
{
	char path[512];

	up_above(name);
	up_path(path, name);
	assert_int_equal(symlink(target, path), 0);
}

static int
drop_one(const char *path, const struct stat *st, int flag, struct FTW *at)
{
	(void)st;
	(void)flag;
	(void)at;
	return (remove(path));
}

void
up_drop(const char *name)
{
	char path[512];

	up_path(path, name);
	assert_int_equal(nftw(path, drop_one, 16, FTW_DEPTH | FTW_PHYS), 0);
}

/* ---- a good machine ---- */

static void
good_pci(const char *slot, const char *vendor, const char *class)
{
	static const char *const file[][2] = {
		{ "numa_node", "0\n" }, { "current_link_width", "16\n" }, { "max_link_width", "16\n" }, { "current_link_speed", "16.0 GT/s PCIe\n" },
		{ "max_link_speed", "16.0 GT/s PCIe\n" }
	};
	char name[256];

	for (size_t i = 0; i < MKV_ARRAY_LEN(file); i++) {
		snprintf(name, sizeof(name), "/sys/bus/pci/devices/%s/%s", slot, file[i][0]);
		up_put(name, file[i][1]);
	}
	snprintf(name, sizeof(name), "/sys/bus/pci/devices/%s/vendor", slot);
	up_put(name, vendor);
	snprintf(name, sizeof(name), "/sys/bus/pci/devices/%s/class", slot);
	up_put(name, class);
}

static void
good_host(void)
{
	up_put("/etc/memkv/config.yaml", "network: {}\n");
	up_mode("/etc/memkv/config.yaml", 0600);
	up_put("/proc/sys/kernel/io_uring_disabled", "0\n");
	up_put("/proc/sys/vm/overcommit_memory", "0\n");
	up_put("/proc/self/status", "Name:\tmemkv\nCapEff:\t0000000000000000\n");
	up_put("/proc/self/cgroup", "12:cpu:/x\n0::/system.slice/memkv.service\n");
	up_put("/sys/fs/cgroup/system.slice/memkv.service/memory.max", "max\n");
	up_put("/proc/self/mounts", "/dev/sda1 / ext4 rw 0 0\nproc /proc proc rw 0 0\n");
	up_put("/proc/net/tcp", "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n");
	up_put("/proc/meminfo", "MemTotal:       8388608 kB\nMemAvailable:   7340032 kB\nCommitLimit:    4194304 kB\nCommitted_AS:    102400 kB\n");
	up_put("/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages", "200\n");
	up_put("/sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages", "200\n");
	up_put("/sys/kernel/mm/hugepages/hugepages-2048kB/resv_hugepages", "0\n");
	up_put("/sys/kernel/mm/hugepages/hugepages-1048576kB/nr_hugepages", "0\n");
	up_put("/sys/kernel/mm/transparent_hugepage/shmem_enabled", "always within_size advise [never] deny force\n");
	up_put("/sys/devices/system/clocksource/clocksource0/current_clocksource", "tsc\n");
	up_put("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor", "performance\n");
	up_put("/sys/devices/system/cpu/cpu0/cpufreq/scaling_driver", "acpi-cpufreq\n");
	up_put("/sys/devices/system/node/node0/distance", "10 21\n");
	up_put("/sys/devices/system/node/node1/distance", "21 10\n");
}

static void
good_drives(void)
{
	up_put("/dev/nvme0n1", "");
	up_put("/sys/class/block/nvme0n1/ro", "0\n");
	up_above("/sys/class/block/nvme0n1/holders/");
	up_put("/sys/class/block/nvme0n1/queue/discard_max_bytes", "2199023255040\n");
	up_put("/sys/class/block/nvme0n1/queue/rotational", "0\n");
	up_put("/sys/class/nvme/nvme0/state", "live\n");
	up_put("/sys/class/nvme/nvme0/hwmon3/temp1_input", "41850\n");
	up_put("/sys/class/nvme/nvme0/hwmon3/temp1_max", "81850\n");
	up_link("/sys/class/block/nvme0n1/device", "../../nvme/nvme0");
	up_link("/sys/class/nvme/nvme0/device", "../../../bus/pci/devices/0000:41:00.0");
	good_pci("0000:41:00.0", "0x144d\n", "0x010802\n");
	up_link("/dev/disk/by-id/nvme-A", "../../nvme0n1");
}

static void
good_rdma(void)
{
	good_pci("0000:3b:00.0", "0x15b3\n", "0x020000\n");
	up_link(MLX "/device", "../../../bus/pci/devices/0000:3b:00.0");
	up_put(MLX "/node_type", "1: CA\n");
	up_put(MLX "/ports/1/state", "4: ACTIVE\n");
	up_put(MLX "/ports/1/phys_state", "5: LinkUp\n");
	up_put(MLX "/ports/1/link_layer", "Ethernet\n");
	up_put(MLX "/ports/1/rate", "100 Gb/sec (2X HDR)\n");
	up_put(MLX "/ports/1/gids/0", "fe80:0000:0000:0000:0a00:27ff:fe00:0001\n");
	up_put(MLX "/ports/1/gids/1", "fe80:0000:0000:0000:0a00:27ff:fe00:0001\n");
	up_put(MLX "/ports/1/gids/2", "0000:0000:0000:0000:0000:ffff:0a01:0001\n");
	up_put(MLX "/ports/1/gids/3", "0000:0000:0000:0000:0000:ffff:0a01:0001\n");
	up_put(MLX "/ports/1/gids/4", "0000:0000:0000:0000:0000:0000:0000:0000\n");
	up_put(MLX "/ports/1/gid_attrs/types/0", "IB/RoCE v1\n");
	up_put(MLX "/ports/1/gid_attrs/types/1", "RoCE v2\n");
	up_put(MLX "/ports/1/gid_attrs/types/2", "IB/RoCE v1\n");
	up_put(MLX "/ports/1/gid_attrs/types/3", "RoCE v2\n");
	up_put(MLX "/ports/1/gid_attrs/ndevs/0", "ens1\n");
	up_put(MLX "/tc/1/traffic_class", "Global tclass=106\n");
	up_put("/sys/kernel/config/rdma_cm/mlx5_0/ports/1/default_roce_tos", "106\n");
	up_put("/sys/class/infiniband_verbs/uverbs0/ibdev", "mlx5_0\n");
	up_put("/dev/infiniband/uverbs0", "");
	up_put("/sys/class/net/ens1/mtu", "9000\n");
	up_put("/sys/class/net/ens1/ecn/roce_np/enable/3", "1\n");
	up_put("/sys/class/net/ens1/ecn/roce_rp/enable/3", "1\n");
	up_put("/sys/class/net/ens1/qos/trust", "dscp\n");
}

static void
good_gpu(void)
{
	static const char cache[] = "glibc-ld.so.cache1.1\0\0libcuda.so.1\0libc.so.6";

	good_pci("0000:42:00.0", "0x10de\n", "0x030200\n");
	up_put("/proc/driver/nvidia/version", "NVRM version: NVIDIA UNIX x86_64 Kernel Module  550.54\n");
	up_put("/sys/module/nvidia_peermem/refcnt", "0\n");
	up_put_bytes("/etc/ld.so.cache", cache, sizeof(cache));
}

static const char good_answer[] =
    "{\"status\":\"good\",\"file\":\"/etc/memkv/config.yaml\",\"errors\":[],\"strays\":[],"
    "\"keys\":{\"storage.mode\":\"direct\",\"rdma.devices\":\"mlx5_0\"},"
    "\"drives\":[{\"media\":\"/dev/disk/by-id/nvme-A\",\"max_size\":0,\"weight\":1.0}],"
    "\"data\":{\"host\":\"10.1.0.1\",\"port\":9900},\"admin\":{\"host\":\"10.1.0.1\",\"port\":9901},\"data_dir\":\"/var/lib/memkv\","
    "\"fronts\":1,\"segment_bytes\":278921216,\"staging_bytes\":278921216,\"shared_bytes\":278921216,\"memory_bytes\":614465536,\"auth_key\":true}";

int
doctor_up(void **state)
{
	(void)state;
	/* Some hundred files for each fault: in memory, where there is a place for it. */
	strcpy(up_root, access("/dev/shm", W_OK) == 0 ? "/dev/shm/doctor_test.XXXXXX" : "/tmp/doctor_test.XXXXXX");
	assert_non_null(mkdtemp(up_root));
	good_host();
	good_drives();
	good_rdma();
	good_gpu();
	memset(&up_fake, 0, sizeof(up_fake));
	up_fake.memlock = UINT64_MAX;
	up_fake.files = 1048576;
	up_fake.clock = 1;
	up_fake.uid = 1000;
	up_fake.space = 64ull << 30;
	up_fake.dcb.pfc = 1 << 3;
	memset(up_fake.dcb.of_dscp, -1, sizeof(up_fake.dcb.of_dscp));
	up_fake.release = "6.12.0-1-amd64";
	up_fake.answer = json_loads(good_answer, 0, NULL);
	assert_non_null(up_fake.answer);
	return (0);
}

int
doctor_down(void **state)
{
	(void)state;
	up_drop("");
	json_decref(up_fake.answer);
	up_fake.answer = NULL;
	return (0);
}

void
up_run(unsigned scope)
{
	up = (struct doctor){ .ops = &fake_ops, .root = up_root, .argv0 = "memkv", .scope = scope };
	doctor_run(&up);
}

const struct doctor_found *
up_found(const char *id)
{
	for (unsigned i = 0; i < up.n_found; i++)
		if (up.found[i].id >= 0 && strcmp(doctor_rows[up.found[i].id].id, id) == 0)
			return (&up.found[i]);
	return (NULL);
}

void
up_show(void)
{
	for (unsigned i = 0; i < up.n_found; i++)
		if (up.found[i].id >= 0)
			print_error("%s: %s\n", doctor_rows[up.found[i].id].id, up.found[i].saw);
}

void
up_key(const char *key, const char *value)
{
	json_object_set_new(json_object_get(up_fake.answer, "keys"), key, json_string(value));
}

void
up_env(const char *name, const char *value)
{
	unsigned i = 0;

	while (up_fake.env[i][0] != NULL)
		i++;
	assert_true(i < UP_ENV_MAX);
	up_fake.env[i][0] = name;
	up_fake.env[i][1] = value;
}
