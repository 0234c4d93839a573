/*
 * Linux: who uses a block device (sysfs, the mount table, swap) and what libblkid calls its content. Offline commands, their one thread; owns
 * nothing between calls. What cannot be read counts as "nobody": the exclusive open that follows is the last word.
 */
#include "config.h"

#include "worker/drive/probe_priv.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <blkid/blkid.h>

#include "common/base/assert.h"

#define PROBE_LINE	4096u

/* One line of a file below /sys, without its end; empty if there is none. */
static void
probe_line(char *dst, size_t n, const char *dir, const char *name)
{
	char path[PATH_MAX];
	FILE *f;

	dst[0] = '\0';
	if (snprintf(path, sizeof(path), "%s/%s", dir, name) >= (int)sizeof(path) || (f = fopen(path, "re")) == NULL)
		return;
	if (fgets(dst, (int)n, f) == NULL)
		dst[0] = '\0';
	fclose(f);
	for (size_t len = strlen(dst); len > 0 && (dst[len - 1] == '\n' || dst[len - 1] == ' ');)
		dst[--len] = '\0';
}

static void	probe_say(char *users, size_t n, const char *fmt, ...) MKV_PRINTF(3, 4);

static void
probe_say(char *users, size_t n, const char *fmt, ...)
{
	size_t have = strlen(users);
	va_list ap;

	if (have > 0 && have + 3 < n)
		have += (size_t)snprintf(users + have, n - have, ", ");
	va_start(ap, fmt);
	if (have < n)
		vsnprintf(users + have, n - have, fmt, ap);
	va_end(ap);
}

/* Octal escapes of the mount table. */
static void
probe_unescape(char *s)
{
	char *to = s;

	for (; *s != '\0'; s++) {
		if (s[0] == '\\' && s[1] >= '0' && s[1] <= '3' && s[2] != '\0' && s[3] != '\0') {
			*to++ = (char)((s[1] - '0') * 64 + (s[2] - '0') * 8 + (s[3] - '0'));
			s += 3;
		} else
			*to++ = *s;
	}
	*to = '\0';
}

/* Some file systems have numbers of their own in the table: then the source is what tells. */
static void
probe_mounts(const char *dev, const char *real, char *users, size_t n)
{
	FILE *f = fopen("/proc/self/mountinfo", "re");
	char *line = NULL, num[32], at[PROBE_LINE], *rest, source[PROBE_LINE];
	size_t room = 0;

	while (f != NULL && getline(&line, &room, f) > 0) {
		source[0] = '\0';
		if (sscanf(line, "%*s %*s %31s %*s %4095s", num, at) != 2)
			continue;
		if ((rest = strstr(line, " - ")) != NULL)
			(void)sscanf(rest, " - %*s %4095s", source);
		if (strcmp(num, dev) != 0 && strcmp(source, real) != 0)
			continue;
		probe_unescape(at);
		probe_say(users, n, "%s is mounted at %s", real, at);
		break;
	}
	free(line);
	if (f != NULL)
		fclose(f);
}

static void
probe_swaps(const char *real, char *users, size_t n)
{
	FILE *f = fopen("/proc/swaps", "re");
	char line[PROBE_LINE], path[PROBE_LINE], full[PATH_MAX];

	while (f != NULL && fgets(line, sizeof(line), f) != NULL) {
		if (sscanf(line, "%4095s", path) != 1)
			continue;
		probe_unescape(path);
		if (realpath(path, full) != NULL && strcmp(full, real) == 0)
			probe_say(users, n, "%s is swap space", real);
	}
	if (f != NULL)
		fclose(f);
}

/* Volumes and arrays that are built on it. */
static void
probe_holders(const char *sys, const char *real, char *users, size_t n)
{
	char dir[PATH_MAX], of[PATH_MAX], name[128], uuid[128], text[512];
	struct dirent *d;
	DIR *h;

	snprintf(dir, sizeof(dir), "%s/holders", sys);
	if ((h = opendir(dir)) == NULL)
		return;
	while ((d = readdir(h)) != NULL) {
		if (d->d_name[0] == '.')
			continue;
		snprintf(of, sizeof(of), "/sys/block/%s", d->d_name);
		probe_line(name, sizeof(name), of, "dm/name");
		probe_line(uuid, sizeof(uuid), of, "dm/uuid");
		snprintf(text, sizeof(text), "%s%s", strncmp(uuid, "LVM-", 4) == 0 ? "LVM volume " : strncmp(d->d_name, "md", 2) == 0 ? "RAID array " : "",
		    name[0] != '\0' ? name : d->d_name);
		probe_say(users, n, "%s is part of %s", real, text);
	}
	closedir(h);
}

static void
probe_one(const char *sys, const char *real, char *users, size_t n)
{
	char dev[32];

	probe_line(dev, sizeof(dev), sys, "dev");
	probe_mounts(dev, real, users, n);
	probe_swaps(real, users, n);
	probe_holders(sys, real, users, n);
}

void
probe_users(struct probe *p, char *users, size_t n)
{
	char sys[64], below[PATH_MAX], ro[8], no[16], real[PATH_MAX];
	struct dirent *d;
	DIR *dir;

	users[0] = '\0';
	snprintf(sys, sizeof(sys), "/sys/dev/block/%u:%u", major(p->dev), minor(p->dev));
	probe_line(p->model, sizeof(p->model), sys, "device/model");
	probe_line(ro, sizeof(ro), sys, "ro");
	if (strcmp(ro, "1") == 0)
		probe_say(users, n, "%s is read-only", p->real);
	probe_one(sys, p->real, users, n);
	if ((dir = opendir(sys)) == NULL)
		return;
	while ((d = readdir(dir)) != NULL) {
		if (d->d_name[0] == '.' || snprintf(below, sizeof(below), "%s/%s", sys, d->d_name) >= (int)sizeof(below))
			continue;
		probe_line(no, sizeof(no), below, "partition");
		if (no[0] == '\0')
			continue;
		p->partitions++;
		snprintf(real, sizeof(real), "/dev/%s", d->d_name);
		probe_one(below, real, users, n);
	}
	closedir(dir);
}

static const char *
probe_value(blkid_probe pr, const char *name)
{
	const char *data = NULL;

	return (blkid_probe_lookup_value(pr, name, &data, NULL) == 0 ? data : NULL);
}

static void
probe_words(blkid_probe pr, char *text, size_t n)
{
	const char *type = probe_value(pr, "TYPE"), *table = probe_value(pr, "PTTYPE"), *label = probe_value(pr, "LABEL"),
	    *usage = probe_value(pr, "USAGE");

	if (type != NULL && strcmp(type, "LVM2_member") == 0)
		snprintf(text, n, "an LVM physical volume");
	else if (type != NULL && strcmp(type, "linux_raid_member") == 0)
		snprintf(text, n, "a member of a RAID array");
	else if (type != NULL && strcmp(type, "swap") == 0)
		snprintf(text, n, "swap space");
	else if (type != NULL)
		snprintf(text, n, "%s %s%s%s%s", usage != NULL && strcmp(usage, "filesystem") == 0 ? "a filesystem:" : "signature", type,
		    label != NULL ? " \"" : "", label != NULL ? label : "", label != NULL ? "\"" : "");
	else if (table != NULL)
		snprintf(text, n, "a partition table (%s)", table);
}

void
probe_signature(int fd, char *text, size_t n)
{
	blkid_probe pr = blkid_new_probe();
	int r;

	text[0] = '\0';
	if (pr == NULL)
		return;
	if (blkid_probe_set_device(pr, fd, 0, 0) == 0) {
		(void)blkid_probe_enable_superblocks(pr, 1);
		(void)blkid_probe_set_superblocks_flags(pr, BLKID_SUBLKS_TYPE | BLKID_SUBLKS_LABEL | BLKID_SUBLKS_USAGE);
		(void)blkid_probe_enable_partitions(pr, 1);
		r = blkid_do_safeprobe(pr);
		if (r == -2)
			snprintf(text, n, "more than one signature");
		else if (r == 0)
			probe_words(pr, text, n);
	}
	blkid_free_probe(pr);
}

void
probe_each(void (*fn)(void *arg, const char *path), void *arg)
{
	static const char *const not_these[] = { "ram", "zram", "sr", "fd", "nbd" };
	char sys[PATH_MAX], size[32], path[PATH_MAX];
	struct dirent **d = NULL;
	int n = scandir("/sys/block", &d, NULL, versionsort);

	for (int i = 0; i < n; free(d[i++])) {
		int skip = d[i]->d_name[0] == '.';

		for (size_t k = 0; k < MKV_ARRAY_LEN(not_these); k++)
			skip |= strncmp(d[i]->d_name, not_these[k], strlen(not_these[k])) == 0;
		snprintf(sys, sizeof(sys), "/sys/block/%s", d[i]->d_name);
		probe_line(size, sizeof(size), sys, "size");
		if (skip || strtoull(size, NULL, 10) == 0)
			continue;
		snprintf(path, sizeof(path), "/dev/%s", d[i]->d_name);
		for (char *c = path + 5; *c != '\0'; c++)
			*c = *c == '!' ? '/' : *c;
		fn(arg, path);
	}
	free(d);
}

void
probe_reread(int fd)
{
	(void)ioctl(fd, BLKRRPART);
}

int
probe_rdma(unsigned n, char *name, size_t name_bytes)
{
	DIR *dir = opendir("/sys/class/infiniband");
	struct dirent *d;
	int found = 0;

	while (dir != NULL && !found && (d = readdir(dir)) != NULL) {
		if (d->d_name[0] == '.' || n-- > 0)
			continue;
		snprintf(name, name_bytes, "%s", d->d_name);
		found = 1;
	}
	if (dir != NULL)
		closedir(dir);
	return (found);
}
