/*
 * memkv doctor: the kernel and its limits, clock and processors. Keeps nothing. What cannot be read is not complained of: it may not exist here.
 */
#include "config.h"
#include "clients/cli/doctor_priv.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/units.h"

#define KERNEL_MAJOR		6u
#define KERNEL_MINOR		8u
#define CAP_IPC_LOCK_BIT	14u
#define CLIENT_LOCKED_BYTES	(256ull << 20)	/* less than that is no region to speak of */
#define FILES_SPARE		256u		/* of a front beside its connections: segments, rings, bells of its drives */
#define FILES_CLIENT		512u

void
doctor_kernel(struct doctor *d)
{
	char name[65], release[65];
	unsigned major, minor;

	if (d->ops->system(name, release) != 0 || sscanf(release, "%u.%u", &major, &minor) != 2)
		return;
	if (major < KERNEL_MAJOR || (major == KERNEL_MAJOR && minor < KERNEL_MINOR))
		doctor_say(d, DOCTOR_KERNEL_OLD, NULL, "Linux %s", release);
	else
		doctor_ok(d, "Linux %s", release);
}

/* ---- io_uring ---- */

void
doctor_uring(struct doctor *d)
{
	int64_t off = 0;
	int r = d->ops->uring(), by_sysctl = doctor_number(d, &off, "/proc/sys/kernel/io_uring_disabled") == 0 && off > 0;
	char why[96];

	if (r == 0) {
		doctor_ok(d, "a ring can be made%s", by_sysctl ? ", though kernel.io_uring_disabled is not 0" : "");
		return;
	}
	if (by_sysctl)
		snprintf(why, sizeof(why), "kernel.io_uring_disabled is %d", (int)off);
	else
		snprintf(why, sizeof(why), "making a ring: %s", strerror(-r));
	if ((d->scope & DOCTOR_SERVER) && d->params.storage_io == MKV_STORAGE_IO_URING)
		doctor_say(d, DOCTOR_URING_REQUIRED, NULL, "%s", why);
	else
		doctor_say(d, by_sysctl ? DOCTOR_URING_SYSCTL : DOCTOR_URING_REFUSED, NULL, "%s", why);
}

/* ---- limits ---- */

/* May this process lock what it likes, whatever the limit is? */
static int
memlock_free(struct doctor *d)
{
	char *status = doctor_load(d, 16384, NULL, "/proc/self/status"), *at;
	uint64_t caps = 0;

	if (status != NULL && (at = strstr(status, "\nCapEff:")) != NULL)
		caps = strtoull(at + 8, NULL, 16);
	free(status);
	return ((caps >> CAP_IPC_LOCK_BIT & 1) != 0);
}

void
doctor_memlock(struct doctor *d)
{
	uint64_t soft, hard;
	struct doctor_names devices;
	const char *key;
	char has[32], needs[32];
	int named, rdma;

	if (d->ops->limit(DOCTOR_LIMIT_MEMLOCK, &soft, &hard) != 0)
		return;
	if (soft == UINT64_MAX || memlock_free(d)) {
		doctor_ok(d, soft == UINT64_MAX ? "unlimited" : "this user may lock what it likes (CAP_IPC_LOCK)");
		return;
	}
	mkv_size_human(has, sizeof(has), soft);
	doctor_rdma_names(d, &devices, &named, &key);
	rdma = d->params.rdma_devices.count > 0;
	/* The server raises its own limit as far as it may: all or nothing. */
	if ((d->scope & DOCTOR_SERVER) && hard != UINT64_MAX && soft < d->staging_bytes)
		doctor_say(d, rdma ? DOCTOR_MEMLOCK_RDMA : DOCTOR_MEMLOCK_SERVER, NULL, "the limit is %s here, and staging takes %s", has,
		    mkv_size_human(needs, sizeof(needs), d->staging_bytes));
	else if ((d->scope & DOCTOR_CLIENT) && devices.count > 0 && soft < CLIENT_LOCKED_BYTES)
		doctor_say(d, DOCTOR_MEMLOCK_CLIENT, NULL, "the limit is %s here", has);
	else
		doctor_ok(d, "%s", has);
}

void
doctor_files(struct doctor *d)
{
	uint64_t soft, hard, need = d->params.network_max_connections + FILES_SPARE;
	char number[24];

	if (d->ops->limit(DOCTOR_LIMIT_FILES, &soft, &hard) != 0)
		return;
	snprintf(number, sizeof(number), "%" PRIu64, need);
	if ((d->scope & DOCTOR_SERVER) && hard < need)		/* it raises its limit to the hard one */
		doctor_say(d, DOCTOR_FILES_SERVER, DOCTOR_ARGS(number), "at most %" PRIu64 " files may be open, and network.max_connections is %" PRIu32, hard,
		    d->params.network_max_connections);
	else if ((d->scope & DOCTOR_CLIENT) && soft < FILES_CLIENT) {
		snprintf(number, sizeof(number), "%u", FILES_CLIENT);
		doctor_say(d, DOCTOR_FILES_CLIENT, DOCTOR_ARGS(number), "%" PRIu64 " files may be open", soft);
	} else if (soft == UINT64_MAX)
		doctor_ok(d, "unlimited");
	else
		doctor_ok(d, "%" PRIu64 " files may be open", soft);
}

/* ---- clock and processors ---- */

void
doctor_clock(struct doctor *d)
{
	static const char *const slow[] = { "hpet", "acpi_pm", "jiffies", "refined-jiffies" };
	char source[DOCTOR_TEXT_BYTES];
	int r = d->ops->clock(), is_slow = 0;

	if (r == 0)
		doctor_say(d, DOCTOR_CLOCK_FREE, NULL, "the kernel says that nothing keeps the clock right");
	else if (r > 0)
		doctor_ok(d, "synchronised");
	if (doctor_text(d, source, sizeof(source), "/sys/devices/system/clocksource/clocksource0/current_clocksource") != 0)
		return;
	for (size_t i = 0; i < MKV_ARRAY_LEN(slow); i++)
		is_slow |= strcmp(source, slow[i]) == 0;
	if (is_slow)
		doctor_say(d, DOCTOR_CLOCK_SLOW, NULL, "the clock source is %s", source);
	else
		doctor_ok(d, "clock source %s", source);
}

/* These drivers choose the speed themselves under this name. */
static int
cpu_own_mind(struct doctor *d)
{
	char driver[DOCTOR_TEXT_BYTES];

	if (doctor_text(d, driver, sizeof(driver), "/sys/devices/system/cpu/cpu0/cpufreq/scaling_driver") != 0)
		return (0);
	return (strcmp(driver, "intel_pstate") == 0 || strcmp(driver, "amd-pstate-epp") == 0);
}

void
doctor_cpu(struct doctor *d)
{
	char governor[DOCTOR_TEXT_BYTES], preference[DOCTOR_TEXT_BYTES] = "";
	int own;

	if (doctor_text(d, governor, sizeof(governor), "/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor") != 0)
		return;
	own = cpu_own_mind(d);
	if (own)
		(void)doctor_text(d, preference, sizeof(preference), "/sys/devices/system/cpu/cpu0/cpufreq/energy_performance_preference");
	if (strcmp(preference, "power") == 0 || (strcmp(governor, "powersave") == 0 && !own))
		doctor_say(d, DOCTOR_CPU_GOVERNOR, NULL, "the governor of processor 0 is %s%s%s", governor, preference[0] != '\0' ? ", its preference " : "", preference);
	else
		doctor_ok(d, "governor %s", governor);
}
