/*
 * memkv doctor: the drives of storage.drives, and what sysfs says of PCI devices. Keeps nothing; opens no drive.
 */
#include "config.h"
#include "clients/cli/doctor_priv.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/base/units.h"

#define DRIVE_LINKS_MAX		8u
#define DRIVE_MOUNTS_BYTES	(1u << 20)
#define DRIVE_HOT_MARGIN	5000		/* thousandths of a degree below the limit */
#define SLOT_LEVELS_MAX		4u
#define DRIVE_SPACES_MAX	64u		/* filesystems of files: a server has at most so many drives */

/* ---- where a device is in sysfs ---- */

static const char *
drive_base(const char *path)
{
	const char *slash = strrchr(path, '/');

	return (slash != NULL ? slash + 1 : path);
}

int
doctor_block(struct doctor *d, const char *path, char name[DOCTOR_NAME_BYTES])
{
	char at[PATH_MAX], to[PATH_MAX / 2];
	int n = snprintf(at, sizeof(at), "%s", path);

	for (unsigned i = 0; i < DRIVE_LINKS_MAX && n < (int)sizeof(at) && doctor_link(d, to, sizeof(to), "%s", at) == 0; i++) {
		char *slash = strrchr(at, '/');
		size_t keep = to[0] == '/' || slash == NULL ? 0 : (size_t)(slash + 1 - at);

		n = snprintf(at + keep, sizeof(at) - keep, "%s", to) + (int)keep;
	}
	if (n >= (int)sizeof(at) || strlen(drive_base(at)) >= DOCTOR_NAME_BYTES || drive_base(at)[0] == '\0')
		return (-ENAMETOOLONG);
	snprintf(name, DOCTOR_NAME_BYTES, "%s", drive_base(at));
	return (doctor_mode(d, "/sys/class/block/%s", name) != 0 ? 0 : -ENOENT);
}

/* "0000:3b:00.0" */
static int
slot_is(const char *name)
{
	unsigned domain, bus, device, function;
	int end = 0;

	return (sscanf(name, "%x:%x:%x.%x%n", &domain, &bus, &device, &function, &end) == 4 && name[end] == '\0');
}

int
doctor_slot(struct doctor *d, const char *path, char slot[DOCTOR_NAME_BYTES])
{
	char below[PATH_MAX / 2], target[PATH_MAX / 2];
	int n = snprintf(below, sizeof(below), "%s/device", path);

	/* block -> nvme0 -> PCI device: each is the link `device` of the one before. */
	for (unsigned i = 0; i < SLOT_LEVELS_MAX && n < (int)sizeof(below); i++) {
		if (doctor_link(d, target, sizeof(target), "%s", below) != 0)
			return (-ENOENT);
		if (slot_is(drive_base(target)) && strlen(drive_base(target)) < DOCTOR_NAME_BYTES) {
			snprintf(slot, DOCTOR_NAME_BYTES, "%s", drive_base(target));
			return (0);
		}
		n = snprintf(below + strlen(below), sizeof(below) - strlen(below), "/device") + (int)strlen(below);
	}
	return (-ENOENT);
}

void
doctor_pcie(struct doctor *d, enum doctor_id id, const char *what, const char *path)
{
	char slot[DOCTOR_NAME_BYTES], now[DOCTOR_TEXT_BYTES], best[DOCTOR_TEXT_BYTES];
	int64_t lanes, lanes_best;

	if (doctor_slot(d, path, slot) != 0 ||
	    doctor_number(d, &lanes, "/sys/bus/pci/devices/%s/current_link_width", slot) != 0 ||
	    doctor_number(d, &lanes_best, "/sys/bus/pci/devices/%s/max_link_width", slot) != 0 ||
	    doctor_text(d, now, sizeof(now), "/sys/bus/pci/devices/%s/current_link_speed", slot) != 0 ||
	    doctor_text(d, best, sizeof(best), "/sys/bus/pci/devices/%s/max_link_speed", slot) != 0)
		return;
	if (lanes > 0 && lanes <= 64 && lanes_best <= 64 && (lanes < lanes_best || strtod(now, NULL) < strtod(best, NULL)))
		doctor_say(d, id, DOCTOR_ARGS(slot), "%s: %" PRId64 " lanes of %s, of %" PRId64 " lanes of %s that it has", what, lanes, now, lanes_best, best);
}

/* ---- one block device ---- */

struct drive_space {
	uint64_t	filesystem, left;	/* of what was free, what the files before leave */
};

struct drive_spaces {
	unsigned	count;
	struct drive_space at[DRIVE_SPACES_MAX];
};

struct drive {
	const char	*path;			/* as it is configured */
	char		name[DOCTOR_NAME_BYTES];
	char		queue[PATH_MAX / 4];	/* in sysfs; of the whole device where this is a partition */
	char		controller[DOCTOR_NAME_BYTES];	/* nvme0; "": none */
};

/* nvme0n1 -> nvme0, in whose directory its state is. */
static void
drive_controller(struct doctor *d, struct drive *dr)
{
	int n = 0;
	unsigned number;

	dr->controller[0] = '\0';
	if (sscanf(dr->name, "nvme%un%n", &number, &n) != 1 || n == 0)
		return;
	snprintf(dr->controller, sizeof(dr->controller), "nvme%u", number);
	if (doctor_mode(d, "/sys/class/nvme/%s", dr->controller) == 0)
		dr->controller[0] = '\0';
}

/* may: of doctor_may(). 1: it was said. Another user may be the one who starts the server, but nobody writes to a filesystem that is read-only. */
static int
drive_denied(struct doctor *d, const char *path, const char *what, const char *look, int may)
{
	if (may != -EACCES && may != -EPERM && may != -EROFS)
		return (0);
	d->at_most = may != -EROFS && d->ops->uid() != 0 ? DOCTOR_WARN : DOCTOR_FAIL;
	doctor_say(d, DOCTOR_DRIVES_DENIED, DOCTOR_ARGS(look), "%s: user %d may not write %s: %s", path, d->ops->uid(), strcmp(what, path) == 0 ? "it" : what,
	    strerror(-may));
	d->at_most = DOCTOR_FAIL;
	return (1);
}

/* Is it, or a partition of it, the source of a mount? Then `what` is what is mounted there. */
static int
drive_mounted(struct doctor *d, const struct drive *dr, char *what, size_t room)
{
	char *text = doctor_load(d, DRIVE_MOUNTS_BYTES, NULL, "/proc/self/mounts"), *next = text, *line, source[PATH_MAX / 2], where[PATH_MAX / 2];
	char name[DOCTOR_NAME_BYTES];
	size_t n = strlen(dr->name);
	int found = 0;

	while (!found && (line = strsep(&next, "\n")) != NULL) {
		if (sscanf(line, "%2047s %2047s", source, where) != 2 || source[0] != '/' || doctor_block(d, source, name) != 0)
			continue;
		found = strcmp(name, dr->name) == 0 ||
		    (strncmp(name, dr->name, n) == 0 && doctor_mode(d, "/sys/class/block/%s/%s", dr->name, name) != 0);
		snprintf(what, room, "%s", where);
	}
	free(text);
	return (found);
}

static void
drive_use(struct doctor *d, const struct drive *dr)
{
	struct doctor_names holders;
	char where[PATH_MAX / 2];

	if (drive_mounted(d, dr, where, sizeof(where)))
		doctor_say(d, DOCTOR_DRIVES_MOUNTED, DOCTOR_ARGS(where), "%s: mounted at %s", dr->path, where);
	doctor_list(d, &holders, "/sys/class/block/%s/holders", dr->name);
	if (holders.count > 0)
		doctor_say(d, DOCTOR_DRIVES_HELD, DOCTOR_ARGS(dr->path, holders.name[0]), "%s: part of %s", dr->path, holders.name[0]);
}

static void
drive_heat(struct doctor *d, const struct drive *dr)
{
	struct doctor_names names;
	int64_t now, limit;

	doctor_list(d, &names, "/sys/class/nvme/%s", dr->controller);
	for (unsigned i = 0; i < names.count; i++)
		if (strncmp(names.name[i], "hwmon", 5) == 0 &&
		    doctor_number(d, &now, "/sys/class/nvme/%s/%s/temp1_input", dr->controller, names.name[i]) == 0 &&
		    doctor_number(d, &limit, "/sys/class/nvme/%s/%s/temp1_max", dr->controller, names.name[i]) == 0 &&
		    limit > 0 && limit < 1000000 && now > limit - DRIVE_HOT_MARGIN && now < 1000000)
			doctor_say(d, DOCTOR_DRIVES_HOT, DOCTOR_ARGS(dr->controller), "%s: %" PRId64 " degrees, its limit is %" PRId64, dr->path, now / 1000,
			    limit / 1000);
}

static void
drive_health(struct doctor *d, const struct drive *dr)
{
	char path[PATH_MAX / 4], state[DOCTOR_TEXT_BYTES];
	int64_t v;

	if (doctor_number(d, &v, "/sys/class/block/%s/ro", dr->name) == 0 && v == 1)
		doctor_say(d, DOCTOR_DRIVES_READ_ONLY, DOCTOR_ARGS(dr->path, dr->name), "%s: the kernel has it as read-only", dr->path);
	snprintf(path, sizeof(path), "/sys/class/block/%s", dr->name);
	doctor_pcie(d, DOCTOR_DRIVES_PCIE, dr->path, path);
	if (dr->controller[0] == '\0')
		return;
	if (doctor_text(d, state, sizeof(state), "/sys/class/nvme/%s/state", dr->controller) == 0 && strcmp(state, "live") != 0)
		doctor_say(d, DOCTOR_DRIVES_STATE, DOCTOR_ARGS(dr->controller), "%s: its controller %s is %s", dr->path, dr->controller, state);
	drive_heat(d, dr);
}

static void
drive_kind(struct doctor *d, const struct drive *dr)
{
	int64_t v;

	if (d->params.storage_trim != MKV_STORAGE_TRIM_OFF && doctor_number(d, &v, "%s/discard_max_bytes", dr->queue) == 0 && v == 0)
		doctor_say(d, DOCTOR_DRIVES_NO_TRIM, DOCTOR_ARGS(dr->path), "%s: it takes no discard (discard_max_bytes is 0)", dr->path);
	if (doctor_number(d, &v, "%s/rotational", dr->queue) == 0 && v == 1 && strncmp(dr->name, "loop", 4) != 0)
		doctor_say(d, DOCTOR_DRIVES_ROTATIONAL, NULL, "%s: a disk that turns", dr->path);
}

static void
drive_block(struct doctor *d, struct drive *dr)
{
	unsigned before = d->n_found + d->lost;

	snprintf(dr->queue, sizeof(dr->queue), "/sys/class/block/%s%s/queue", dr->name,
	    doctor_mode(d, "/sys/class/block/%s/partition", dr->name) != 0 ? "/.." : "");
	drive_controller(d, dr);
	(void)drive_denied(d, dr->path, dr->path, dr->path, doctor_may(d, R_OK | W_OK, "%s", dr->path));
	drive_use(d, dr);
	drive_health(d, dr);
	drive_kind(d, dr);
	if (d->n_found + d->lost == before)
		doctor_ok(d, "%s: block device %s", dr->path, dr->name);
}

/* ---- the configured ones ---- */

/* Cuts the last name off: "/a/b" to "/a", "/a" to "/". 0 at the end. */
static int
drive_up(char *path)
{
	char *slash = strrchr(path, '/');

	if (slash == NULL || strcmp(path, "/") == 0)
		return (0);
	slash[slash == path] = '\0';
	return (1);
}

/* The blocks that files are still to get, all of those on one filesystem together. 1: they do not fit. */
static int
drive_space(struct doctor *d, struct drive_spaces *s, const char *path, const char *directory, uint64_t bytes)
{
	uint64_t filesystem, left;
	char need[32], have[32];
	unsigned i = 0;

	if (doctor_space(d, &filesystem, &left, "%s", directory) != 0)
		return (0);
	while (i < s->count && s->at[i].filesystem != filesystem)
		i++;
	if (i == DRIVE_SPACES_MAX)
		return (0);
	if (i == s->count)
		s->at[s->count++] = (struct drive_space){ filesystem, left };
	left = s->at[i].left;
	s->at[i].left -= MKV_MIN(left, bytes);
	if (bytes <= left)
		return (0);
	doctor_say(d, DOCTOR_DRIVES_NO_SPACE, DOCTOR_ARGS(directory), "%s: a file of %s is to be made, and %s are left for it", path,
	    mkv_size_human(need, sizeof(need), bytes), mkv_size_human(have, sizeof(have), left));
	return (1);
}

static void
drive_file(struct doctor *d, struct drive_spaces *s, const char *path, uint64_t bytes)
{
	char directory[PATH_MAX];
	mode_t mode = doctor_mode(d, "%s", path);
	int there = doctor_may(d, F_OK, "%s", path), may;

	snprintf(directory, sizeof(directory), "%s", path);
	(void)drive_up(directory);
	/* Its own directory the server makes, and those above it. */
	for (int own = strcmp(directory, d->data_dir) == 0; own && there != 0 && doctor_may(d, F_OK, "%s", directory) == -ENOENT && drive_up(directory);)
		continue;
	may = there == 0 ? doctor_may(d, R_OK | W_OK, "%s", path) : doctor_may(d, W_OK | X_OK, "%s", directory);
	if (drive_denied(d, path, there == 0 ? path : directory, directory, may))
		return;
	if (there != 0 && !S_ISDIR(doctor_mode(d, "%s", directory)))
		doctor_say(d, DOCTOR_DRIVES_NO_DIRECTORY, DOCTOR_ARGS(directory), "%s: its directory is not there", path);
	else if (there == 0 || drive_space(d, s, path, directory, bytes) == 0)
		doctor_ok(d, "%s: %s", path, mode != 0 ? "a file" : "a file that the server will make");
}

static void
drive_one(struct doctor *d, const char *path)
{
	mode_t mode = doctor_mode(d, "%s", path);
	struct drive dr = { .path = path };

	if (doctor_block(d, path, dr.name) == 0 && (S_ISBLK(mode) || (S_ISREG(mode) && strncmp(path, "/dev/", 5) == 0)))
		drive_block(d, &dr);
	else if (mode == 0)
		doctor_say(d, DOCTOR_DRIVES_MISSING, NULL, "%s: not there", path);
	else
		doctor_say(d, DOCTOR_DRIVES_NOT_BLOCK, DOCTOR_ARGS(path), "%s: %s", path, S_ISREG(mode) ? "a file" : S_ISDIR(mode) ? "a directory" : "no block device");
}

void
doctor_drives(struct doctor *d)
{
	struct drive_spaces spaces = { .count = 0 };

	for (unsigned i = 0; i < d->params.n_drives; i++)
		if (d->params.storage_mode == MKV_STORAGE_DIRECT)
			drive_one(d, d->params.drives[i].media);
		else if (d->params.storage_mode == MKV_STORAGE_FILE)
			drive_file(d, &spaces, d->params.drives[i].media, d->params.drives[i].max_size);
}
