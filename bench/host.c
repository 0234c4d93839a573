/*
 * What a result was measured on, and the CPU time of the server. Reads /proc where there is one; what is not to be had is "unknown" or
 * negative, never an error.
 */
#include "config.h"
#include "bench/bench_priv.h"

#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/utsname.h>
#include <dirent.h>
#include <unistd.h>

#include <jansson.h>

#include "common/base/assert.h"
#include "common/base/os.h"

#define HOST_PROCS_MAX	32768u
#define HOST_REPLY_MAX	(1u << 20)
#define HOST_CONTROL_S	2u			/* to wait for the server's answer */

static void
host_cpu_name(char *dst, size_t dst_bytes)
{
	char line[256], *value;
	FILE *f = fopen("/proc/cpuinfo", "re");

	snprintf(dst, dst_bytes, "unknown");
	while (f != NULL && fgets(line, sizeof(line), f) != NULL) {
		if (strncmp(line, "model name", 10) != 0 || (value = strchr(line, ':')) == NULL)
			continue;
		value[strcspn(value, "\n")] = '\0';
		snprintf(dst, dst_bytes, "%s", value + 1 + (value[1] == ' '));
		break;
	}
	if (f != NULL)
		fclose(f);
}

void
bench_host(struct bench_host *h)
{
	struct utsname u;

	h->cores = (int)sysconf(_SC_NPROCESSORS_ONLN);
	snprintf(h->kernel, sizeof(h->kernel), "unknown");
	if (uname(&u) == 0)
		snprintf(h->kernel, sizeof(h->kernel), "%.20s %.60s %.20s", u.sysname, u.release, u.machine);
	host_cpu_name(h->cpu, sizeof(h->cpu));
	if (getloadavg(&h->load, 1) != 1)
		h->load = -1;
}

/* Parent and user + system time, in ticks, of one process. 0 or -1. */
static int
host_stat(pid_t pid, pid_t *parent, uint64_t *ticks)
{
	char path[64], text[1024], *p;
	unsigned long long user, sys;
	size_t n;
	FILE *f;
	int ppid;

	snprintf(path, sizeof(path), "/proc/%d/stat", (int)pid);
	if ((f = fopen(path, "re")) == NULL)
		return (-1);
	n = fread(text, 1, sizeof(text) - 1, f);
	fclose(f);
	text[n] = '\0';
	p = strrchr(text, ')');				/* the name may hold anything */
	if (p == NULL || sscanf(p + 1, " %*c %d %*d %*d %*d %*d %*u %*u %*u %*u %*u %llu %llu", &ppid, &user, &sys) != 3)
		return (-1);
	*parent = ppid;
	*ticks = user + sys;
	return (0);
}

struct host_proc {
	pid_t		pid, parent;
	uint64_t	ticks;
};

static unsigned
host_procs(struct host_proc *t, unsigned max)
{
	struct dirent *e;
	unsigned n = 0;
	DIR *d = opendir("/proc");

	while (d != NULL && n < max && (e = readdir(d)) != NULL) {
		t[n].pid = (pid_t)atoi(e->d_name);
		if (t[n].pid > 0 && host_stat(t[n].pid, &t[n].parent, &t[n].ticks) == 0)
			n++;
	}
	if (d != NULL)
		closedir(d);
	return (n);
}

static int
host_is_one(pid_t pid, const pid_t *pids, unsigned n)
{
	for (unsigned i = 0; i < n; i++)
		if (pids[i] == pid)
			return (1);
	return (0);
}

/* Is the process, or one above it, among pids? The walk is bounded: the table may change while it is read. */
static int
host_below(const struct host_proc *t, unsigned n, unsigned at, const pid_t *pids, unsigned n_pids)
{
	for (unsigned depth = 0; depth < 16; depth++) {
		unsigned up;

		if (host_is_one(t[at].pid, pids, n_pids))
			return (1);
		for (up = 0; up < n && t[up].pid != t[at].parent; up++)
			continue;
		if (up == n)
			return (0);
		at = up;
	}
	return (0);
}

double
bench_cpu_of(const pid_t *pids, unsigned n_pids)
{
	struct host_proc *t;
	uint64_t ticks = 0;
	unsigned n, found = 0;
	long hz = sysconf(_SC_CLK_TCK);

	if (n_pids == 0 || hz <= 0 || (t = malloc(HOST_PROCS_MAX * sizeof(*t))) == NULL)
		return (-1);
	n = host_procs(t, HOST_PROCS_MAX);
	for (unsigned i = 0; i < n; i++)
		if (host_below(t, n, i, pids, n_pids)) {
			ticks += t[i].ticks;
			found++;
		}
	free(t);
	return (found > 0 ? (double)ticks / (double)hz : -1);
}

/* ---- which processes are the server ---- */

static unsigned
host_pids_listed(const char *list, pid_t *pids)
{
	unsigned n = 0;
	char *end;
	long v;

	while (n < BENCH_PIDS_MAX && *list != '\0') {
		v = strtol(list, &end, 10);
		if (end == list)
			break;
		if (v > 0)
			pids[n++] = (pid_t)v;
		list = end + (*end == ',');
	}
	return (n);
}

/* One request line, one answer line. NULL if it does not come. */
static json_t *
host_control_ask(const char *path)
{
	static const char ask[] = "{\"cmd\":\"status\",\"names\":[]}\n";
	char *reply;
	size_t have = 0;
	ssize_t n = 1;
	json_t *j = NULL;
	int fd = mkv_os_connect_unix(path, HOST_CONTROL_S);

	reply = malloc(HOST_REPLY_MAX);
	if (fd >= 0 && reply != NULL && send(fd, ask, sizeof(ask) - 1, MSG_NOSIGNAL) == (ssize_t)sizeof(ask) - 1) {
		while (have < HOST_REPLY_MAX && (n = recv(fd, reply + have, HOST_REPLY_MAX - have, 0)) > 0) {
			have += (size_t)n;
			if (memchr(reply, '\n', have) != NULL)
				break;
		}
		j = json_loadb(reply, have, JSON_DISABLE_EOF_CHECK, NULL);
	}
	free(reply);
	if (fd >= 0)
		close(fd);
	return (j);
}

static unsigned
host_pids_of_control(const char *path, pid_t *pids)
{
	json_t *j = host_control_ask(path), *row;
	json_int_t pid;
	unsigned n = 0;
	size_t i;

	json_array_foreach(json_object_get(j, "rows"), i, row) {
		pid = json_integer_value(json_object_get(row, "pid"));
		if (pid > 0 && n < BENCH_PIDS_MAX)
			pids[n++] = (pid_t)pid;
	}
	json_decref(j);
	return (n);
}

unsigned
bench_server_pids(const struct bench_params *p, pid_t pids[BENCH_PIDS_MAX])
{
	const char *control = p->control != NULL ? p->control : getenv("MEMKV_CONTROL");

	if (p->server_pids != NULL)
		return (host_pids_listed(p->server_pids, pids));
	if (control != NULL && p->drv == &bench_driver_memkv)
		return (host_pids_of_control(control, pids));
	return (0);
}
