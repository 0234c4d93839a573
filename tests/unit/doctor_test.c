/*
 * memkv doctor: on a good machine nothing is found; with one fault that fault is recognised by its id, gets the command that mends it, and nothing else
 * is found. docs/operate/doctor.md says what the table says.
 */
#include "config.h"
#include "tests/unit/doctor_up.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "common/base/err.h"

static void
good_machine_has_no_finding(void **state)
{
	(void)state;
	up_run(DOCTOR_SERVER | DOCTOR_CLIENT);
	if (up.count[DOCTOR_OK] != up.n_found)
		up_show();
	assert_int_equal(up.count[DOCTOR_OK], up.n_found);
	assert_true(up.n_found >= DOCTOR_CHECKS - 1);
	doctor_fini(&up);
}

/* ---- one fault ---- */

static void
no_huge_pages(void)
{
	up_put("/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages", "0\n");
	up_put("/sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages", "0\n");
}

static void
few_huge_pages(void)
{
	up_put("/sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages", "60\n");
	up_put("/sys/kernel/mm/hugepages/hugepages-2048kB/resv_hugepages", "20\n");
}

static void
complaint(void)
{
	json_array_append_new(json_object_get(up_fake.answer, "errors"), json_string("/etc/memkv/config.yaml:3: unknown key \"network.foo\""));
}

static void
stray(void)
{
	json_array_append_new(json_object_get(up_fake.answer, "strays"), json_pack("{s:s, s:s}", "name", "MEMKV_STORAGE_MODEE", "text",
	    "MEMKV_STORAGE_MODEE: no key has this variable"));
}

static void
open_file(void)
{
	up_mode("/etc/memkv/config.yaml", 0644);
}

static void
no_key(void)
{
	json_object_set_new(up_fake.answer, "auth_key", json_false());
}

static void
short_key(void)
{
	up_env("MEMKV_AUTH_KEY", "abc");
}

static void
servers_elsewhere(void)
{
	up_env("MEMKV_SERVERS", "a=127.0.0.1:9900, b=[::1]:9900,local:///run/memkv.sock,d=local:///x,c=10.1.0.2:9900");
}

/* A listener whose process is `name`. */
static void
listener(const char *name)
{
	up_put("/proc/net/tcp", "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n"
	    "   0: 0100010A:26AC 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4711 1 0000000000000000 100 0 0 10 0\n");
	up_put("/proc/77/comm", name);
	up_link("/proc/77/fd/5", "socket:[4711]");
	up_fake.bind_data = -EADDRINUSE;
}

static void
taken(void)
{
	listener("nginx\n");
}

static void
runs_already(void)
{
	listener("memkv-superviso\n");
}

static void
no_address(void)
{
	up_fake.bind_admin = -EADDRNOTAVAIL;
}

static void
low_port(void)
{
	up_fake.bind_data = -EACCES;
}

static void
old_kernel(void)
{
	up_fake.release = "6.1.0-21-amd64";
}

static void
no_ring(void)
{
	up_fake.uring = -EPERM;
}

static void
little_memlock(void)
{
	up_fake.memlock = 8 << 20;
}

static void
little_memlock_tcp(void)
{
	little_memlock();
	up_key("rdma.devices", "");
}

static void
few_files(void)
{
	up_fake.files = 1024;
}

static void
free_clock(void)
{
	up_fake.clock = 0;
}

static void
commit_limit(void)
{
	up_put("/proc/sys/vm/overcommit_memory", "2\n");
	up_put("/proc/meminfo", "MemTotal:       8388608 kB\nMemAvailable:   7340032 kB\nCommitLimit:    204800 kB\nCommitted_AS:    102400 kB\n");
}

static void
refused(void)
{
	json_t *text = json_string("key \"memory.max_size\": 7 GiB of staging do not fit");

	json_array_append(json_object_get(up_fake.answer, "errors"), text);
	json_object_set_new(up_fake.answer, "budget", text);
}

/* What the server's own plan says goes before what can be guessed from here. */
static void
planned(const char *words, uint64_t bytes, int pages, const char *file)
{
	json_object_set_new(up_fake.answer, "huge_short", json_string(words));
	json_object_set_new(up_fake.answer, "huge_bytes", json_integer((json_int_t)bytes));
	json_object_set_new(up_fake.answer, "huge_fixes", pages > 0 ? json_pack("[{s:i, s:s}]", "pages", pages, "file", file) : json_array());
}

static void
refused_pages(void)
{
	json_t *text = json_string("key \"memory.hugepages\": is require and too few huge pages are free: of 1 GiB on NUMA node 1 1 needed and 0 free");

	json_array_append(json_object_get(up_fake.answer, "errors"), text);
	json_object_set_new(up_fake.answer, "budget", text);
	planned("of 1 GiB on NUMA node 1 1 needed and 0 free", 0, 3, "/sys/devices/system/node/node1/hugepages/hugepages-1048576kB/nr_hugepages");
}

static void
no_such_pages(void)
{
	planned("of 1 GiB 1 needed and none to be had: this system knows no such pages", 0, 0, "");
}

/* Free on the other node: the sum says nothing. */
static void
pages_elsewhere(void)
{
	planned("of 2 MiB on NUMA node 1 133 needed and 0 free", 0, 133, "/sys/devices/system/node/node1/hugepages/hugepages-2048kB/nr_hugepages");
}

/* A page of 1 GiB of which a quarter would be used is not taken. */
static void
one_large_page(void)
{
	no_huge_pages();
	up_put("/sys/kernel/mm/hugepages/hugepages-1048576kB/nr_hugepages", "1\n");
	up_put("/sys/kernel/mm/hugepages/hugepages-1048576kB/free_hugepages", "1\n");
}

static void
no_large_page(void)
{
	up_key("memory.hugepage_size", "1GiB");
	up_put("/sys/kernel/mm/hugepages/hugepages-1048576kB/free_hugepages", "0\n");
}

static void
only_reserved_ones(void)
{
	no_huge_pages();
	up_drop("/sys/kernel/mm/transparent_hugepage");
}

static void
other_size(void)
{
	up_put("/sys/kernel/mm/hugepages/hugepages-1048576kB/nr_hugepages", "2\n");
	up_put("/sys/kernel/mm/hugepages/hugepages-1048576kB/free_hugepages", "2\n");
	few_huge_pages();
}

static void
mode_file(void)
{
	up_key("storage.mode", "file");
	json_object_set_new(json_array_get(json_object_get(up_fake.answer, "drives"), 0), "media", json_string("/data/my store/d0.dat"));
}

/* Each fits alone, and both do not. */
static void
two_files(void)
{
	json_t *drives = json_object_get(up_fake.answer, "drives");

	up_key("storage.mode", "file");
	up_above("/data/x");
	json_array_clear(drives);
	json_array_append_new(drives, json_pack("{s:s, s:I}", "media", "/data/a.dat", "max_size", (json_int_t)6 << 30));
	json_array_append_new(drives, json_pack("{s:s, s:I}", "media", "/data/b.dat", "max_size", (json_int_t)6 << 30));
	up_fake.space = 10ull << 30;
}

/* The server makes its own directory, wherever the part is that is there. */
static void
own_directory(void)
{
	two_files();
	json_object_set_new(up_fake.answer, "data_dir", json_string("/data/state/memkv"));
	json_object_set_new(json_array_get(json_object_get(up_fake.answer, "drives"), 0), "media", json_string("/data/state/memkv/drive0.dat"));
}

static void
second_port(void)
{
	up_put(MLX "/ports/2/link_layer", "InfiniBand\n");
}

static void
no_devices(void)
{
	up_drop(MLX);
	up_drop("/sys/class/infiniband_verbs/uverbs0");
	up_key("rdma.devices", "");
}

static void
no_card(void)
{
	no_devices();
	up_drop("/sys/bus/pci/devices/0000:3b:00.0");
}

static void
infiniband(void)
{
	up_put(MLX "/ports/1/link_layer", "InfiniBand\n");
}

static void
no_peer(void)
{
	up_drop("/sys/module/nvidia_peermem");
}

static void
no_peer_open(void)
{
	no_peer();
	up_put("/proc/driver/nvidia/version", "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  550.54\n");
}

static void
ipv4_gone(void)
{
	up_put(MLX "/ports/1/gids/2", "0000:0000:0000:0000:0000:0000:0000:0000\n");
	up_put(MLX "/ports/1/gids/3", "0000:0000:0000:0000:0000:0000:0000:0000\n");
}

static void
no_v2(void)
{
	ipv4_gone();
	up_put(MLX "/ports/1/gids/1", "0000:0000:0000:0000:0000:0000:0000:0000\n");
}

static void
unmarked(void)
{
	up_drop("/sys/kernel/config");
	up_drop(MLX "/tc");
}

static void
two_classes(void)
{
	up_key("rdma.traffic_class", "106");
	up_key("rdma.service_level", "5");
}

static void
client_refused(void)
{
	up_fake.client = MKV_E_CONFIG;
	up_fake.client_why = "memkv.yaml:3: unknown key \"serevrs\"";
}

static void
client_without(void)
{
	up_fake.client_why = "no /metrics: 127.0.0.1:9 is in use";
}

static void
no_pfc(void)
{
	up_fake.dcb.pfc = 1;
}

static void
other_priority(void)
{
	up_fake.dcb.of_dscp[26] = 5;
}

struct fault {
	const char	*id, *mend, *saw;	/* what its command, and what was seen, hold */
	const char	*path, *text;		/* a file; text NULL: it is not there */
	const char	*key, *value;		/* of the configuration */
	void		(*more)(void);
};

static const struct fault faults[] = {
	{ "config.invalid", "memkv config --check --config /etc/memkv/config.yaml", "network.foo", .more = complaint },
	{ "config.stray", "unset MEMKV_STORAGE_MODEE", "MODEE", .more = stray },
	{ "auth.no-key", "openssl rand -hex 32", "10.1.0.1:9900", .more = no_key },
	{ "client.refused", "docs/operate/cli.md", "memkv.yaml:3: unknown key", .more = client_refused },
	{ "client.without", "take it out", "/metrics", .more = client_without },
	{ "auth.open-file", "chmod 600 /etc/memkv/config.yaml", "0644", .more = open_file },
	{ "auth.client-no-key", "export MEMKV_AUTH_KEY=", "10.1.0.2", .more = servers_elsewhere },
	{ "auth.bad-key", "export MEMKV_AUTH_KEY=$(openssl rand -hex 32)", "3 characters", .more = short_key },
	{ "ports.taken", "ss -ltnp sport = :9900", "nginx", .more = taken },
	{ "ports.memkv", "memkvctl status", "a memkv server listens", .more = runs_already },
	{ "ports.no-address", "ip -brief address # set admin.address", "10.1.0.1:9901", .more = no_address },
	{ "ports.denied", "set network.address to a port above 1023", "user 1000", .more = low_port },
	{ "kernel.old", "apt install linux-image-amd64", "6.1.0-21", .more = old_kernel },
	{ "uring.sysctl", "sysctl -w kernel.io_uring_disabled=0", "is 2", .path = "/proc/sys/kernel/io_uring_disabled", .text = "2\n", .more = no_ring },
	{ "uring.refused", "seccomp", "not permitted", .more = no_ring },
	{ "uring.required", "set storage.io to auto", "not permitted", .key = "storage.io", .value = "uring", .more = no_ring },
	{ "memlock.rdma", "LimitMEMLOCK=infinity", "8.0 MiB", .more = little_memlock },
	{ "memlock.server", "LimitMEMLOCK=infinity", "8.0 MiB", .more = little_memlock_tcp },
	{ "files.server", "ulimit -n 4352 # for good: LimitNOFILE=4352", "1024", .more = few_files },
	{ "memory.cgroup", "raise the limit to 377487360", "200.0 MiB", .path = "/sys/fs/cgroup/system.slice/memkv.service/memory.max", .text = "209715200\n" },
	{ "memory.cgroup", "memory.max_size", "100.0 MiB", .path = "/sys/fs/cgroup/system.slice/memory.max", .text = "104857600\n" },
	{ "memory.short", "set memory.max_size to 128MiB", "256.0 MiB", .path = "/proc/meminfo", .text = "MemTotal:  262144 kB\nMemAvailable:  200000 kB\n" },
	{ "memory.short", "set memory.max_size to 128MiB", "256.0 MiB", .path = "/proc/meminfo", .text = "MemTotal:  262144 kB\nMemAvailable:  200000 kB\n",
	    .key = "memory.hugepages", .value = "require", .more = no_huge_pages },
	{ "memory.refused", "lower what takes most", "do not fit", .more = refused },
	{ "memory.busy", "ps aux --sort=-rss", "97.7 MiB", .path = "/proc/meminfo", .text = "MemTotal:  8388608 kB\nMemAvailable:  100000 kB\n" },
	{ "memory.commit", "sysctl -w vm.overcommit_memory=0", "100.0 MiB", .more = commit_limit },
	{ "hugepages.required", "echo 293 >/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages", "40 of 200 are free", .key = "memory.hugepages", .value = "require", .more = few_huge_pages },
	{ "hugepages.required", "echo 3 >/sys/devices/system/node/node1/hugepages/hugepages-1048576kB/nr_hugepages", "node 1 1 needed", .key = "memory.hugepages",
	    .value = "require", .more = refused_pages },
	{ "hugepages.required", "echo 1 >/sys/kernel/mm/hugepages/hugepages-1048576kB/nr_hugepages", "takes 1 of 1 GiB", .key = "memory.hugepages", .value = "require",
	    .more = no_large_page },
	{ "hugepages.cgroup", "raise hugetlb.2MB.max of the group to 278921216", "64.0 MiB of such pages", .key = "memory.hugepages", .value = "require",
	    .path = "/sys/fs/cgroup/system.slice/hugetlb.2MB.max", .text = "67108864\n" },
	{ "hugepages.none", "set memory.hugepages to auto", "none to be had", .key = "memory.hugepages", .value = "require", .more = no_such_pages },
	{ "hugepages.short", "echo 293 >/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages", "of 1 GiB 2 of 2", .key = "memory.hugepage_size", .value = "2MiB",
	    .more = other_size },
	{ "hugepages.short", "echo 293 >/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages", "40 of 200 are free", .more = few_huge_pages },
	{ "hugepages.short", "echo 133 >/sys/devices/system/node/node1/hugepages/hugepages-2048kB/nr_hugepages", "node 1 133 needed", .more = pages_elsewhere },
	{ "hugepages.short", "echo 133 >/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages", "0 of 0 are free", .more = only_reserved_ones },
	{ "hugepages.shmem", "echo advise >/sys/kernel/mm/transparent_hugepage/shmem_enabled # or reserve: echo 133 >/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages",
	    "[never]", .more = no_huge_pages },
	{ "hugepages.shmem", "echo advise >", "of 1 GiB 1 of 1; the server takes 133 of 2 MiB", .more = one_large_page },
	{ "hugepages.idle", "echo 0 >/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages", "200 of 200", .key = "memory.hugepages", .value = "off" },
	{ "clock.free", "timedatectl set-ntp true", "", .more = free_clock },
	{ "clock.slow", "echo tsc >", "hpet", .path = "/sys/devices/system/clocksource/clocksource0/current_clocksource", .text = "hpet\n" },
	{ "cpu.governor", "cpupower frequency-set -g performance", "powersave", .path = "/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor", .text = "powersave\n" },
	{ "drives.missing", "lsblk", "nvme-A", .path = "/dev/nvme0n1" },
	{ "drives.not-block", "set storage.mode to file, or name the block device instead of /dev/disk/by-id/nvme-A", "", .path = "/sys/class/block/nvme0n1" },
	{ "drives.no-directory", "mkdir -p '/data/my store'", "d0.dat", .more = mode_file },
	{ "drives.no-space", "df -h /data # make room", "/data/b.dat: a file of 6.0 GiB is to be made, and 4.0 GiB are left", .more = two_files },
	{ "drives.no-space", "df -h /data # make room", "/data/b.dat: a file of 6.0 GiB is to be made, and 4.0 GiB are left", .more = own_directory },
	{ "drives.read-only", "blockdev --setrw /dev/disk/by-id/nvme-A; dmesg | grep nvme0n1", "read-only", .path = "/sys/class/block/nvme0n1/ro", .text = "1\n" },
	{ "drives.mounted", "umount /mnt", "/mnt", .path = "/proc/self/mounts", .text = "tmpfs /tmp tmpfs rw 0 0\n/dev/nvme0n1 /mnt xfs rw 0 0\n" },
	{ "drives.held", "md127", "md127", .path = "/sys/class/block/nvme0n1/holders/md127/dev", .text = "9:127\n" },
	{ "drives.state", "nvme reset /dev/nvme0", "resetting", .path = "/sys/class/nvme/nvme0/state", .text = "resetting\n" },
	{ "drives.no-trim", "lsblk --discard /dev/disk/by-id/nvme-A", "discard_max_bytes", .path = "/sys/class/block/nvme0n1/queue/discard_max_bytes", .text = "0\n" },
	{ "drives.rotational", "use an NVMe drive", "turns", .path = "/sys/class/block/nvme0n1/queue/rotational", .text = "1\n" },
	{ "drives.hot", "nvme smart-log /dev/nvme0", "79 degrees", .path = "/sys/class/nvme/nvme0/hwmon3/temp1_input", .text = "79000\n" },
	{ "drives.pcie", "lspci -vv -s 0000:41:00.0", "2 lanes of 16.0", .path = "/sys/bus/pci/devices/0000:41:00.0/current_link_width", .text = "2\n" },
	{ "rdma.none", "modprobe -a mlx5_ib ib_uverbs", "", .more = no_card },
	{ "rdma.driver", "modprobe mlx5_ib", "0000:3b:00.0", .more = no_devices },
	{ "rdma.missing", "set rdma.devices to names", "mlx5_9", .key = "rdma.devices", .value = "mlx5_0,mlx5_9" },
	{ "rdma.uverbs", "modprobe ib_uverbs", "uverbs0: No such file", .path = "/dev/infiniband/uverbs0" },
	{ "rdma.uverbs", "modprobe ib_uverbs", "no entry", .path = "/sys/class/infiniband_verbs/uverbs0" },
	{ "rdma.iwarp", "take mlx5_0 out of rdma.devices", "iWARP", .path = MLX "/node_type", .text = "4: RNIC\n" },
	{ "rdma.port", "ip link set ens1 up; rdma link show mlx5_0/1", "1: DOWN, 5: LinkUp", .path = MLX "/ports/1/state", .text = "1: DOWN\n" },
	{ "rdma.no-port", "set rdma.port to 0", "mlx5_0 has no port 3", .key = "rdma.port", .value = "3" },
	{ "rdma.port", "rdma link show mlx5_0/2", "mlx5_0/2: state 1: DOWN", .path = MLX "/ports/2/state", .text = "1: DOWN\n", .key = "rdma.port", .value = "2",
	    .more = second_port },
	{ "rdma.no-manager", "systemctl start opensm", "2: INIT", .path = MLX "/ports/1/state", .text = "2: INIT\n", .more = infiniband },
	{ "rdma.pcie", "lspci -vv -s 0000:3b:00.0", "8.0 GT/s", .path = "/sys/bus/pci/devices/0000:3b:00.0/current_link_speed", .text = "8.0 GT/s PCIe\n" },
	{ "gid.none", "ip address add ADDRESS/24 dev ens1", "none of 5", .more = no_v2 },
	{ "gid.link-local", "ip address add ADDRESS/24 dev ens1", "entry 1, fe80", .more = ipv4_gone },
	{ "gid.index", "set rdma.gid_index to 3, or to auto", "the table has 5 entries", .key = "rdma.gid_index", .value = "16" },
	{ "gid.index", "set rdma.gid_index to 3, or to auto", "is empty", .key = "rdma.gid_index", .value = "4" },
	{ "gid.type", "set rdma.gid_index to 3, or to auto", "IB/RoCE v1", .key = "rdma.gid_index", .value = "2" },
	{ "mtu.above", "ip link set ens1 mtu 9000", "rdma.mtu is 4096 and the port's active MTU is 1024", .path = "/sys/class/net/ens1/mtu", .text = "1500\n", .key = "rdma.mtu",
	    .value = "4096" },
	{ "mtu.above", "set rdma.mtu to 2048", "the port's active MTU is 2048", .path = "/sys/class/net/ens1/mtu", .text = "4191\n", .key = "rdma.mtu",
	    .value = "4096" },
	{ "mtu.small", "ip link set ens1 mtu 9000", "1024 of 4096", .path = "/sys/class/net/ens1/mtu", .text = "1500\n" },
	{ "mtu.above", "set rdma.mtu to 512", "rdma.mtu is 1024 and the port's active MTU is 512", .path = "/sys/class/net/ens1/mtu", .text = "1119\n", .key = "rdma.mtu",
	    .value = "1024" },
	{ "mtu.small", "ip link set ens1 mtu 9000", "1024 of 4096", .path = "/sys/class/net/ens1/mtu", .text = "1500\n", .key = "rdma.devices", .value = "" },
	{ "qos.trust", "mlnx_qos -i ens1 --trust dscp", "pcp", .path = "/sys/class/net/ens1/qos/trust", .text = "pcp\n" },
	{ "qos.pfc", "dcb pfc set dev ens1 prio-pfc 3:on", "PFC is off for priority 3 (on for the bits 0x01)", .more = no_pfc },
	{ "qos.map", "dscp-prio 26:3", "DSCP 26 is put into priority 5", .more = other_priority },
	{ "qos.ecn", "echo 1 >/sys/class/net/ens1/ecn/roce_rp/enable/3", "roce_rp", .path = "/sys/class/net/ens1/ecn/roce_rp/enable/3", .text = "0\n" },
	{ "qos.traffic-class", "echo 106 >/sys/class/infiniband/mlx5_0/tc/1/traffic_class", "DSCP 0", .path = MLX "/tc/1/traffic_class", .text = "Global tclass=0\n" },
	{ "qos.priority", "set rdma.service_level to 3", "is 5", .more = two_classes },
	{ "qos.unmarked", "cma_roce_tos -d mlx5_0 -p 1 -t 106", "marks its packets with nothing", .more = unmarked },
	{ "qos.cma", "cma_roce_tos -d mlx5_0 -t 106", "DSCP 12", .path = "/sys/kernel/config/rdma_cm/mlx5_0/ports/1/default_roce_tos", .text = "48\n" },
	{ "gpu.driver", "modprobe nvidia", "0000:42:00.0", .path = "/proc/driver/nvidia/version" },
	{ "gpu.cuda", "ldconfig", "libcuda.so.1", .path = "/etc/ld.so.cache", .text = "nothing of it" },
	{ "gpu.peer", "modprobe nvidia-peermem", "open kernel modules", .more = no_peer },
	{ "gpu.peer", "modprobe nvidia-peermem", "CONFIG_PCI_P2PDMA", .path = "/boot/config-6.12.0-1-amd64", .text = "CONFIG_DMABUF_MOVE_NOTIFY=y\n# CONFIG_PCI_P2PDMA is not set\n",
	    .more = no_peer_open },
	{ "numa.drive", "put nvme0n1 or a NIC", "node 1", .path = "/sys/bus/pci/devices/0000:41:00.0/numa_node", .text = "1\n" },
	{ "numa.gpu", "nvidia-smi topo -m", "node 1", .path = "/sys/bus/pci/devices/0000:42:00.0/numa_node", .text = "1\n" },
};

static void
one_fault(const struct fault *f)
{
	const struct doctor_found *is;
	unsigned others = 0;

	doctor_up(NULL);
	if (f->path != NULL && f->text != NULL)
		up_put(f->path, f->text);
	else if (f->path != NULL)
		up_drop(f->path);
	if (f->key != NULL)
		up_key(f->key, f->value);
	if (f->more != NULL)
		f->more();
	up_run(DOCTOR_SERVER | DOCTOR_CLIENT);
	is = up_found(f->id);
	for (unsigned i = 0; i < up.n_found; i++)
		others += up.found[i].id >= 0 && strcmp(doctor_rows[up.found[i].id].id, f->id) != 0;
	if (is == NULL || others > 0) {
		print_error("%s was %s, beside:\n", f->id, is == NULL ? "not found" : "found");
		up_show();
	}
	assert_non_null(is);
	assert_int_equal(others, 0);
	assert_int_equal(is->level, doctor_rows[is->id].level);
	if (strstr(is->fix, f->mend) == NULL || strstr(is->saw, f->saw) == NULL)
		fail_msg("%s: saw \"%s\" (not \"%s\"), mend \"%s\" (not \"%s\")", f->id, is->saw, f->saw, is->fix, f->mend);
	doctor_fini(&up);
	doctor_down(NULL);
}

/* Each is found, by its id, with its command, and nothing else is. */
static void
each_fault_is_recognised(void **state)
{
	(void)state;
	for (size_t i = 0; i < MKV_ARRAY_LEN(faults); i++)
		one_fault(&faults[i]);
}

/* ---- what needs another user, another scope, or no configuration ---- */

static void
clients_have_limits_of_their_own(void **state)
{
	(void)state;
	up_fake.memlock = 8 << 20;
	up_fake.files = 256;
	up_env("MEMKV_RDMA_DEVICES", "mlx5_0");
	up_run(DOCTOR_CLIENT);
	assert_non_null(up_found("memlock.client"));
	assert_non_null(strstr(up_found("memlock.client")->fix, "--ulimit memlock=-1"));
	assert_non_null(up_found("files.client"));
	assert_string_equal(up_found("files.client")->fix, "ulimit -n 512");
	assert_int_equal(up.count[DOCTOR_WARN] + up.count[DOCTOR_FAIL], 2);
	doctor_fini(&up);
	up_put("/proc/self/status", "Name:\tmemkv\nCapEff:\t0000000000004000\n");	/* CAP_IPC_LOCK */
	up_run(DOCTOR_CLIENT);
	assert_null(up_found("memlock.client"));
	doctor_fini(&up);
}

static void
without_a_checker_the_defaults_count(void **state)
{
	(void)state;
	json_decref(up_fake.answer);
	up_fake.answer = NULL;
	up_run(DOCTOR_SERVER | DOCTOR_CLIENT);
	assert_non_null(up_found("config.unchecked"));
	assert_string_equal(up_found("config.unchecked")->saw, "no checker here");
	assert_non_null(strstr(up_found("config.unchecked")->fix, "memkv doctor --client"));
	assert_int_equal(up.count[DOCTOR_FAIL] + up.count[DOCTOR_WARN], 0);
	doctor_fini(&up);
}

/* A host has ports without a cable that nobody means to use. */
static void
what_nobody_named_is_no_failure(void **state)
{
	(void)state;
	up_put(MLX "/ports/1/state", "1: DOWN\n");
	up_key("rdma.devices", "");
	up_run(DOCTOR_SERVER | DOCTOR_CLIENT);
	assert_int_equal(up_found("rdma.port")->level, DOCTOR_WARN);
	assert_int_equal(up.count[DOCTOR_FAIL], 0);
	doctor_fini(&up);
	up_env("MEMKV_RDMA_DEVICES", "mlx5_0");
	up_run(DOCTOR_CLIENT);
	assert_int_equal(up_found("rdma.port")->level, DOCTOR_FAIL);
	doctor_fini(&up);
}

/* soft-RoCE has no hardware below it, shorter headers and no queues. */
static void
software_devices_are_known(void **state)
{
	(void)state;
	up_drop(MLX "/device");
	up_drop(MLX "/tc");
	up_drop("/sys/kernel/config");
	up_drop("/sys/class/net/ens1");
	up_put("/sys/class/net/ens1/mtu", "4176\n");
	up_run(DOCTOR_SERVER | DOCTOR_CLIENT);
	assert_null(up_found("mtu.small"));
	assert_null(up_found("qos.unseen"));
	assert_int_equal(up.count[DOCTOR_FAIL] + up.count[DOCTOR_WARN], 0);
	doctor_fini(&up);
	up_put("/sys/class/net/ens1/mtu", "4175\n");
	up_run(DOCTOR_SERVER | DOCTOR_CLIENT);
	assert_non_null(up_found("mtu.small"));
	doctor_fini(&up);
}

static int
said_fine(const char *text)
{
	for (unsigned i = 0; i < up.n_found; i++)
		if (up.found[i].id < 0 && strcmp(up.found[i].saw, text) == 0)
			return (1);
	return (0);
}

/* The table of soft-RoCE has 1024 entries, and readdir() begins anywhere. */
static void
long_tables_are_read_to_their_end(void **state)
{
	char name[128];

	(void)state;
	for (unsigned i = 5; i < 1024; i++) {
		snprintf(name, sizeof(name), MLX "/ports/1/gids/%u", i);
		up_put(name, "0000:0000:0000:0000:0000:0000:0000:0000\n");
		snprintf(name, sizeof(name), "/sys/bus/pci/devices/0001:%02x:%02x.0/vendor", i / 32, i % 32);
		up_put(name, "0x8086\n");
	}
	up_put(MLX "/ports/1/gids/1023", "0000:0000:0000:0000:0000:ffff:0a01:0001\n");
	up_put(MLX "/ports/1/gid_attrs/types/1023", "RoCE v2\n");
	up_run(DOCTOR_SERVER | DOCTOR_CLIENT);
	up_show();
	assert_int_equal(up.count[DOCTOR_OK], up.n_found);
	assert_true(said_fine("mlx5_0/1: entry 3, 0000:0000:0000:0000:0000:ffff:0a01:0001 (10.1.0.1)"));	/* of two that are as good the first */
	doctor_fini(&up);
	up_key("rdma.gid_index", "200");
	up_run(DOCTOR_SERVER | DOCTOR_CLIENT);
	assert_non_null(up_found("gid.index"));
	assert_non_null(strstr(up_found("gid.index")->saw, "the table has 1024 entries"));
	doctor_fini(&up);
}

/* The other port of a device may have no cable. */
static void
the_first_active_port_counts(void **state)
{
	(void)state;
	second_port();
	up_put(MLX "/ports/2/state", "1: DOWN\n");
	up_run(DOCTOR_SERVER | DOCTOR_CLIENT);
	assert_int_equal(up.count[DOCTOR_OK], up.n_found);
	doctor_fini(&up);
}

/* What lies in huge pages is taken already: memory that is free need not hold it again. */
static void
huge_pages_of_one_gib_count(void **state)
{
	(void)state;
	one_large_page();
	up_key("memory.hugepage_size", "1GiB");
	up_put("/proc/meminfo", "MemTotal:  8388608 kB\nMemAvailable:  400000 kB\n");
	up_run(DOCTOR_SERVER);
	up_show();
	assert_int_equal(up.count[DOCTOR_OK], up.n_found);
	doctor_fini(&up);
}

static void
drivers_that_show_nothing_are_said(void **state)
{
	(void)state;
	up_drop(MLX "/tc");
	up_drop("/sys/kernel/config");
	up_drop("/sys/class/net/ens1/ecn");
	up_drop("/sys/class/net/ens1/qos");
	up_fake.dcb_status = -EOPNOTSUPP;
	up_run(DOCTOR_SERVER);
	assert_non_null(up_found("qos.unseen"));
	assert_non_null(strstr(up_found("qos.unseen")->fix, "dcb pfc show dev ens1"));
	assert_non_null(up_found("qos.unmarked"));
	doctor_fini(&up);
	up_put("/proc/net/vlan/ens1", "ens1  VID: 100\nINGRESS priority mappings: 0:3\n EGRESS priority mappings: 0:2 4:33 5:3 \n");
	up_run(DOCTOR_SERVER);
	assert_null(up_found("qos.unmarked"));
	doctor_fini(&up);
}

/* What this user may not see is no fault, and is said. */
static void
rights_are_said(void **state)
{
	(void)state;
	up_mode("", 0755);
	up_mode("/dev/infiniband/uverbs0", 0);
	up_mode("/proc/meminfo", 0);
	up_mode("/etc/memkv/config.yaml", 0);
	if (geteuid() == 0)
		assert_int_equal(seteuid(65534), 0);
	up_key("storage.mode", "memory");
	up_run(DOCTOR_SERVER);
	assert_non_null(up_found("config.unreadable"));
	assert_string_equal(up_found("config.unreadable")->fix, "sudo memkv doctor --config /etc/memkv/config.yaml");
	assert_non_null(strstr(up_found("rights.unseen")->saw, "/proc/meminfo"));
	assert_string_equal(up_found("rights.unseen")->fix, "sudo memkv doctor");
	assert_int_equal(up_found("rdma.denied")->level, DOCTOR_WARN);		/* the file that would name it was not read */
	assert_non_null(strstr(up_found("rdma.denied")->fix, "chmod 666 /dev/infiniband/uverbs0"));
	doctor_fini(&up);
	if (getuid() == 0)
		assert_int_equal(seteuid(0), 0);
}

/* A file that is to be made, and one that is there. Another user may be the one who starts the server. */
static void
files_that_may_not_be_written_are_said(void **state)
{
	unsigned said = 0;

	(void)state;
	two_files();
	up_put("/data/a.dat", "something");
	up_mode("", 0755);
	up_mode("/etc/memkv/config.yaml", 0644);
	up_mode("/data", 0555);
	up_mode("/data/a.dat", 0444);
	if (geteuid() == 0)
		assert_int_equal(seteuid(65534), 0);
	up_run(DOCTOR_SERVER);
	if (getuid() == 0)
		assert_int_equal(seteuid(0), 0);
	up_mode("/data", 0755);
	assert_non_null(strstr(up_found("drives.denied")->saw, "/data/a.dat: user 1000 may not write it"));
	for (unsigned i = 0; i < up.n_found; i++)
		if (up.found[i].id == DOCTOR_DRIVES_DENIED) {
			assert_int_equal(up.found[i].level, DOCTOR_WARN);
			assert_non_null(strstr(up.found[i].fix, "ls -ld /data #"));
			said++;
		}
	assert_int_equal(said, 2);
	doctor_fini(&up);
}

static void
a_device_of_another_user_is_said(void **state)
{
	(void)state;
	up_mode("", 0755);
	up_mode("/etc/memkv/config.yaml", 0644);
	up_mode("/dev/nvme0n1", 0400);
	if (geteuid() == 0)
		assert_int_equal(seteuid(65534), 0);
	up_run(DOCTOR_SERVER);
	if (getuid() == 0)
		assert_int_equal(seteuid(0), 0);
	assert_non_null(strstr(up_found("drives.denied")->saw, "/dev/disk/by-id/nvme-A: user 1000 may not write it"));
	assert_non_null(strstr(up_found("drives.denied")->fix, "ls -ld /dev/disk/by-id/nvme-A #"));
	assert_int_equal(up_found("drives.denied")->level, DOCTOR_WARN);
	doctor_fini(&up);
}

/* No row without a test. */
static void
every_finding_has_a_fault(void **state)
{
	static const char *const elsewhere[] = {
		"config.unreadable", "config.unchecked", "drives.denied", "memlock.client", "files.client", "rdma.denied", "qos.unseen", "rights.unseen"
	};
	unsigned n;

	(void)state;
	for (unsigned i = 0; i < DOCTOR_FINDINGS; i++) {
		n = 0;
		for (size_t k = 0; k < MKV_ARRAY_LEN(faults); k++)
			n += strcmp(faults[k].id, doctor_rows[i].id) == 0;
		for (size_t k = 0; k < MKV_ARRAY_LEN(elsewhere); k++)
			n += strcmp(elsewhere[k], doctor_rows[i].id) == 0;
		if (n == 0)
			fail_msg("nothing seeds %s", doctor_rows[i].id);
	}
}

/* ---- the table and the page ---- */

static void
rows_stand_below_their_checks(void **state)
{
	static const char *const under[] = {
#define DOCTOR_CHECK(ID, name, fn, scope, what)		"=" name,
#define DOCTOR_FINDING(ID, id, level, why, fix)		id,
#include "clients/cli/doctor.def"
#undef DOCTOR_CHECK
#undef DOCTOR_FINDING
	};
	const char *check = "";

	(void)state;
	for (size_t i = 0; i < MKV_ARRAY_LEN(under); i++) {
		if (under[i][0] == '=')
			check = under[i] + 1;
		else if (strncmp(under[i], check, strlen(check)) != 0 || under[i][strlen(check)] != '.')
			fail_msg("%s stands below %s", under[i], check);
	}
}

/* In a table of Markdown a bar ends a cell. */
static void
page_cell(FILE *f, const char *text)
{
	for (; *text != '\0'; text++)
		fprintf(f, *text == '|' ? "\\|" : "%c", *text);
}

static void
page_has_every_row(void **state)
{
	const char *src = getenv("srcdir");
	char path[512], *page, *row = NULL;
	size_t bytes = 0, n;
	unsigned missing = 0;
	FILE *f;

	(void)state;
	snprintf(path, sizeof(path), "%s/../../docs/operate/doctor.md", src != NULL ? src : ".");
	page = calloc(1, 1 << 18);
	assert_non_null(page);
	f = fopen(path, "r");
	assert_non_null(f);
	n = fread(page, 1, (1 << 18) - 1, f);
	assert_true(n > 0);
	fclose(f);
	for (unsigned i = 0; i < DOCTOR_FINDINGS; i++) {
		f = open_memstream(&row, &bytes);
		assert_non_null(f);
		fprintf(f, "| `%s` | %s | ", doctor_rows[i].id, doctor_level_names[doctor_rows[i].level]);
		page_cell(f, doctor_rows[i].why);
		fprintf(f, " | `");
		page_cell(f, doctor_rows[i].fix);
		fprintf(f, "` |\n");
		assert_int_equal(fclose(f), 0);
		if (strstr(page, row) == NULL) {
			print_error("%s", row);
			missing++;
		}
		free(row);
	}
	free(page);
	if (missing > 0)
		fail_msg("docs/operate/doctor.md lacks these %u rows", missing);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(good_machine_has_no_finding, doctor_up, doctor_down),
		cmocka_unit_test(each_fault_is_recognised),
		cmocka_unit_test_setup_teardown(clients_have_limits_of_their_own, doctor_up, doctor_down),
		cmocka_unit_test_setup_teardown(without_a_checker_the_defaults_count, doctor_up, doctor_down),
		cmocka_unit_test_setup_teardown(what_nobody_named_is_no_failure, doctor_up, doctor_down),
		cmocka_unit_test_setup_teardown(software_devices_are_known, doctor_up, doctor_down),
		cmocka_unit_test_setup_teardown(long_tables_are_read_to_their_end, doctor_up, doctor_down),
		cmocka_unit_test_setup_teardown(the_first_active_port_counts, doctor_up, doctor_down),
		cmocka_unit_test_setup_teardown(huge_pages_of_one_gib_count, doctor_up, doctor_down),
		cmocka_unit_test_setup_teardown(drivers_that_show_nothing_are_said, doctor_up, doctor_down),
		cmocka_unit_test_setup_teardown(rights_are_said, doctor_up, doctor_down),
		cmocka_unit_test_setup_teardown(files_that_may_not_be_written_are_said, doctor_up, doctor_down),
		cmocka_unit_test_setup_teardown(a_device_of_another_user_is_said, doctor_up, doctor_down),
		cmocka_unit_test(every_finding_has_a_fault),
		cmocka_unit_test(rows_stand_below_their_checks),
		cmocka_unit_test(page_has_every_row),
	};

	return (cmocka_run_group_tests(tests, NULL, NULL));
}
